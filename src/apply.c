/*
 * apply.c: the only writer of users' tables.
 *
 * One edit at a time is merged into its row, as the caller: its grants,
 * policies, constraints and triggers decide.  The row is locked first; then
 * the rule (edit.c, merge.c) says what becomes of it, and the statement that
 * changes it carries the event as an intent to the capture trigger, which
 * writes it.  Where no row changes the event is written from here.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "capture.h"
#include "merge.h"

/* the row of an edit, as the table has it */
typedef struct Target
{
	EsyncTracked *t;			/* of the tracked table */
	text	   *aggregate_id;
	Datum	   *key;
	EsyncRights rights;
	Relation	rel;			/* that holds the row; NULL: there is none */
	EsyncRow	row;
	EsyncCapture c;				/* head and leaf */
} Target;

/* ------------------------------------------------------------------- locking */

/* The place of the row that a query with FOR UPDATE gave last, as WHERE CURRENT OF finds it. */
static void
place_of_locked(Portal portal, Oid *relid, ItemPointer tid)
{
	const EState *estate = portal->queryDesc->estate;

	for (int i = 0; estate->es_rowmarks && i < estate->es_range_table_size; i++)
	{
		const ExecRowMark *mark = estate->es_rowmarks[i];

		if (mark == NULL || !mark->ermActive || !ItemPointerIsValid(&mark->curCtid))
			continue;
		*relid = mark->relid;
		ItemPointerCopy(&mark->curCtid, tid);
		return;
	}
	elog(ERROR, "a row was locked and has no place");
}

/*
 * find_row for a caller who may not read system columns, since it has SELECT on
 * some columns alone: the lock tells the place.
 */
static bool
find_row_by_lock(const EsyncTracked *t, Datum *key, Oid *relid, ItemPointer tid)
{
	MemoryContext cxt = CurrentMemoryContext;
	bool		lock = esync_grants_update(t);
	StringInfoData query;
	Portal		portal;
	bool		found;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT 1 FROM ");
	esync_statement_table(&query, t);
	esync_statement_key(&query, t, 1);
	if (lock)
		appendStringInfoString(&query, " FOR NO KEY UPDATE");
	portal = SPI_cursor_open(NULL, esync_plan(query.data, t->nkeys, esync_rights_key_types(t)),
							 key, NULL, false);
	SPI_cursor_fetch(portal, true, 1);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	if (found && !lock)
		esync_grants_deny(t, ACL_SELECT, NULL);
	if (found)
		place_of_locked(portal, relid, tid);
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(cxt);
	return found;
}

/*
 * Finds the row, and locks it where the caller may; its place goes to *relid
 * and *tid.  Who may not update but delete sees it without a lock.
 */
static bool
find_row(EsyncTracked *t, const EsyncRights *rights, Datum *key, Oid *relid, ItemPointer tid)
{
	StringInfoData query;
	bool		isnull;

	if (!rights->table_wide)
		return find_row_by_lock(t, key, relid, tid);
	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT tableoid, ctid FROM ");
	esync_statement_table(&query, t);
	esync_statement_key(&query, t, 1);
	if (esync_grants_update(t))
		appendStringInfoString(&query, " FOR NO KEY UPDATE");
	if (esync_statement_run(query.data, t->nkeys, esync_rights_key_types(t), key, NULL) == 0)
		return false;
	*relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
											&isnull));
	ItemPointerCopy((ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[0],
																SPI_tuptable->tupdesc, 2,
																&isnull)), tid);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * Is there a row after all, as of now?  A transaction's snapshot, or that of a
 * query that had to wait, may be too old to show it.
 */
static bool
came_meanwhile(EsyncTracked *t, Datum *key)
{
	MemoryContext cxt = CurrentMemoryContext;
	StringInfoData query;
	bool		found;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT 1 FROM ");
	esync_statement_table(&query, t);
	esync_statement_key(&query, t, 1);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_plan(esync_plan(query.data, t->nkeys, esync_rights_key_types(t)),
						 key, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "reading a row of \"%s\" failed", t->table_name);
	found = SPI_processed > 0;
	MemoryContextSwitchTo(cxt);
	PopActiveSnapshot();
	return found;
}

/*
 * Locks the row of an edit to come, if the caller may and there is one; true: it
 * is there, and locked.
 */
bool
esync_apply_lock(EsyncTracked *t, text *aggregate_id, Datum *key)
{
	EsyncRights rights;
	Oid			relid;
	ItemPointerData tid;
	bool		found;

	if (!esync_rights_try(t, &rights) || !esync_rights_key(t, &rights) || !esync_grants_update(t))
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	found = find_row(t, &rights, key, &relid, &tid);
	SPI_finish();
	return found;
}

/*
 * Is a row that could not be locked not there, whatever the stream says?  Where
 * nobody can tell, by rights or policies, it is not said to be missing.
 */
bool
esync_apply_lacks(EsyncTracked *t, Datum *key)
{
	EsyncRights rights;
	bool		found;

	if (!esync_rights_try(t, &rights) || !esync_rights_key(t, &rights) || rights.rls)
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	found = came_meanwhile(t, key);
	SPI_finish();
	return !found;
}

/* ------------------------------------------------------------------- the row */

/* The tuple at a place of a table whose lock we hold, as a row that lives on. */
static void
fetch_row(Target *g, Oid relid, ItemPointer tid)
{
	TupleTableSlot *slot;
	bool		free;

	g->rel = table_open(relid, RowExclusiveLock);
	slot = table_slot_create(g->rel, NULL);
	if (!table_tuple_fetch_row_version(g->rel, tid, SnapshotAny, slot))
		elog(ERROR, "row (%u,%u) of \"%s\" is gone", ItemPointerGetBlockNumber(tid),
			 ItemPointerGetOffsetNumber(tid), RelationGetRelationName(g->rel));
	g->row = esync_capture_row(g->rel, heap_copytuple(ExecFetchSlotHeapTuple(slot, false, &free)));
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Finds and locks the row; what the stream tells of, and no snapshot of ours
 * shows, is looked for again.  A row that is shown and never found is one that
 * policies do not let the caller lock.
 */
static bool
take_row(Target *g)
{
	Oid			relid;
	ItemPointerData tid;
	EsyncLeaf  *keep = NULL;
	EsyncHead	head;

	for (int tries = 0; tries < 10; tries++)
	{
		CHECK_FOR_INTERRUPTS();
		if (find_row(g->t, &g->rights, g->key, &relid, &tid))
		{
			fetch_row(g, relid, &tid);
			return true;
		}
		esync_store_head(esync_store_open(g->t, CurrentMemoryContext, &keep), g->aggregate_id,
						 &head);
		if (!head.found || head.row_xmin == InvalidTransactionId || !came_meanwhile(g->t, g->key))
			return false;
		if (IsolationUsesXactSnapshot())
			break;
	}
	if (g->rights.rls && !IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row-level security policies forbid changing row \"%s\" of table \"%s\"",
						text_to_cstring(g->aggregate_id), g->t->table_name),
				 errhint("Its policies for SELECT show the row, those for UPDATE do not.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to row \"%s\" of table \"%s\" due to concurrent change",
					text_to_cstring(g->aggregate_id), g->t->table_name),
			 errhint("The transaction might succeed if retried.")));
}

/*
 * Finds and locks the row, and brings the stream up to what the table holds:
 * ground for a row without events, a Baseline for what went unseen.  False:
 * there may be a row, but the caller does not see it.
 */
static bool
meet_row(Target *g)
{
	(void) take_row(g);
	g->c = esync_capture_for(g->rel ? esync_tracked_get(RelationGetRelid(g->rel)) : g->t, g->rel,
							 CurrentMemoryContext);
	esync_record_turn(&g->c, g->aggregate_id);
	if (g->rel)
		esync_record_meet(&g->c, &g->row);
	else if (g->c.head.found && g->c.head.row_xmin != InvalidTransactionId)
	{
		if (g->rights.rls)
			return false;
		esync_record_missing(&g->c);
	}
	return true;
}

/* Masked columns of the row, as the table has them; NULL where there are none. */
static Jsonb *
masked_values(const Target *g)
{
	EsyncTracked *t = g->c.t;
	EsyncMember *members = palloc(Max(t->ncolumns, 1) * sizeof(EsyncMember));
	int			n = 0;

	for (int i = 0; g->rel && i < t->ncolumns; i++)
	{
		const EsyncField *f = &t->fields[t->columns[i].field];
		int			k = t->columns[i].attnum - 1;
		EsyncAttr	attr = {f->name, 1, f->typid, f->typmod, false};

		if (!f->masked)
			continue;
		members[n].key = f->name;
		members[n].keylen = strlen(f->name);
		esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
						   g->row.values[k], g->row.isnull[k], &members[n++].value);
	}
	return n == 0 ? NULL : esync_json_object(n, members);
}

/* ------------------------------------------------------------------- writing */

/*
 * Changes the row; the capture trigger finds the intent and writes the event.
 * What triggers and cascades write meanwhile is the user's, but no device's.
 */
static void
write_row(EsyncMerge *m, Target *g)
{
	EsyncIntent *in = m->intent;
	EsyncContext context = {0};
	const EsyncContext *former;

	context.user_id = m->edit->user_id;
	context.db_role = m->edit->db_role;
	if (g->rel)
	{
		in->relid = RelationGetRelid(g->rel);
		in->tid = g->row.tuple->t_self;
	}
	esync_pending_push_intent(in);
	former = esync_context_lend(&context);
	PG_TRY();
	{
		if (m->action == ESYNC_ACT_UPDATE)
			(void) esync_statement_update(m->t, g->key, m->intent);
		else if (m->action == ESYNC_ACT_INSERT)
			(void) esync_statement_insert(m->t, g->key, m->intent);
		else
			(void) esync_statement_delete(m->t, g->key);
	}
	PG_FINALLY();
	{
		esync_context_put_back(former);
	}
	PG_END_TRY();
	esync_pending_forget_intent(in);
	if (!in->written)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("an edit of table \"%s\" did not reach the row", m->t->table_name),
				 errhint("A trigger or a row policy of the table suppressed the change, or capture is switched off.")));
}

/* ------------------------------------------------------------------- outcome */

/* Does any event but this device's own lie between the edit's base and its own event? */
static bool
others_between(const EsyncMerge *m, int64 version)
{
	for (int i = m->nseen; i < m->events->n; i++)
	{
		const EsyncEvent *e = &m->events->e[i];

		if (e->device_id == NULL || m->edit->device_id == NULL ||
			VARSIZE_ANY_EXHDR(e->device_id) != VARSIZE_ANY_EXHDR(m->edit->device_id) ||
			memcmp(VARDATA_ANY(e->device_id), VARDATA_ANY(m->edit->device_id),
				   VARSIZE_ANY_EXHDR(e->device_id)) != 0)
			return true;
	}
	/* what the table's triggers made of it is no device's */
	return m->action != ESYNC_ACT_NOTHING && version > m->intent->event.version;
}

/* The row as the caller sees it now, what was just written included. */
static Jsonb *
present_row(Target *g)
{
	Jsonb	   *row;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	row = esync_row_read(g->t, &g->rights, g->key);
	PopActiveSnapshot();
	return row;
}

/* Is the event one of those between which a conflict lies now? */
static bool
is_party(const EsyncClash *clash)
{
	return clash->open && clash->mine != 0;
}

/* Tells what became of the edit. */
static void
tell(EsyncMerge *m, Target *g, EsyncOutcome *o)
{
	ListCell   *lc;

	esync_record_turn(&g->c, g->aggregate_id);
	o->version = g->c.head.version;
	o->deleted = (g->c.head.flags & ESYNC_FLAG_DELETED) != 0;
	o->ignored = m->ignored;
	o->with_row = others_between(m, o->version);
	if (m->action == ESYNC_ACT_NOTHING)
	{
		if (o->with_row)
			o->row = present_row(g);
		return;
	}
	o->event_id = m->intent->event.event_id;
	o->effective = m->intent->event.effective;
	foreach(lc, m->intent->clashes)
	{
		if (is_party(lfirst(lc)))
			o->clashes = lappend(o->clashes, lfirst(lc));
	}
	o->with_row |= o->clashes != NIL;
	if (o->with_row)
		o->row = present_row(g);
}

/* The error where an edit is to be written while nobody records. */
static void
check_enabled(const EsyncTracked *t)
{
	if (!esync_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("edits cannot be merged while esync.enabled is off"),
				 errhint("Set esync.enabled to on.")));
	if (!t->enabled)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_NOT_TRACKED),
				 errmsg("table \"%s\" is not tracked", t->table_name),
				 errhint("SELECT esync_enable('%s') begins to track it again.", t->table_name)));
}

/* The caller sees no such row. */
static void
not_found(EsyncMerge *m, const Target *g)
{
	m->code = "not_found";
	m->message = psprintf("table \"%s\" has no row \"%s\" that you may change",
						  g->t->table_name, text_to_cstring(g->aggregate_id));
}

/* May the table refuse a part of it, and the rest be applied? */
static bool
may_go_in_part(const EsyncMerge *m)
{
	return m->edit->careful && m->action == ESYNC_ACT_UPDATE &&
		m->edit->verb != ESYNC_VERB_RESOLVE && strcmp(m->t->on_conflict, "reject") != 0;
}

/* a change of the row that may fail */
typedef struct Attempt
{
	EsyncMerge *m;
	Target	   *g;
} Attempt;

static void
write_attempt(void *arg)
{
	Attempt    *a = arg;

	write_row(a->m, a->g);
}

/* The same edit, to be merged anew. */
static void
begin_again(EsyncMerge *m)
{
	EsyncMerge	again = {0};

	again.t = m->t;
	again.edit = m->edit;
	again.aggregate_id = m->aggregate_id;
	again.head = m->head;
	again.head_commit = m->head_commit;
	again.key_at = m->key_at;
	again.masked = m->masked;
	again.whole = m->whole;
	again.refused = m->refused;
	again.type_error = m->type_error;
	*m = again;
}

/*
 * Changes the row; where a constraint refuses that, without the fields that it
 * is about, as often as another one refuses the rest.  The error is raised
 * where nothing would be left.
 */
static bool
write_what_goes(EsyncMerge *m, Target *g)
{
	for (;;)
	{
		Attempt		attempt = {m, g};
		ErrorData  *error = esync_guard(write_attempt, &attempt);

		if (error == NULL)
			return true;
		if (esync_error_is_fatal(error) || !esync_refusal_note(m, error))
			ReThrowError(error);
		begin_again(m);
		if (!esync_edit_meet(m, true))
			return false;
		esync_grants_check(m, g->rel != NULL);
		if (m->action != ESYNC_ACT_UPDATE)
		{
			esync_merged_put_rowless(&g->c, m->intent, &g->row);
			return true;
		}
	}
}

/* Merges the edit, SPI being connected; see esync.h. */
static void
apply(EsyncMerge *m, Target *g, EsyncOutcome *o)
{
	esync_grants_named(g->t, &g->rights, m->edit);
	if (!meet_row(g))
	{
		not_found(m, g);
		return;
	}
	m->head = g->c.head.found ? g->c.head.version : 0;
	m->head_commit = g->c.head.found ? g->c.head.commit : DT_NOBEGIN;
	m->key_at = esync_key_object(g->t, g->aggregate_id);
	m->masked = masked_values(g);
	m->whole = o->blind = g->rel == NULL && g->rights.rls && m->head > 0;
	if (!esync_edit_meet(m, g->rel != NULL))
		return;
	if (m->edit->rowless && m->action != ESYNC_ACT_STORE && m->action != ESYNC_ACT_NOTHING)
	{
		m->code = "row";		/* nobody is told */
		return;
	}
	esync_grants_check(m, g->rel != NULL);
	if (g->rel == NULL && g->rights.rls && m->action != ESYNC_ACT_NOTHING &&
		(m->action == ESYNC_ACT_STORE || m->intent->event.type != ESYNC_CREATED))
	{
		not_found(m, g);		/* nobody can ask the policies about a row that is gone */
		return;
	}
	if (m->action == ESYNC_ACT_STORE)
	{
		if (!esync_follow_store(m, &g->c, g->rel ? &g->row : NULL, o))
			return;
	}
	else if (may_go_in_part(m))
	{
		if (!write_what_goes(m, g))
			return;
	}
	else if (m->action != ESYNC_ACT_NOTHING)
		write_row(m, g);
	if (m->action != ESYNC_ACT_NOTHING && m->intent->decision)
		esync_policy_decide(g->t, m->intent, m->edit->careful);
	tell(m, g, o);
}

/* Does something with a row that changes nothing in the table; the caller must read all of it. */
static bool
look_at_row(EsyncTracked *t, text *aggregate_id, Datum *key, bool (*look) (Target *g))
{
	MemoryContext caller = CurrentMemoryContext;
	Target		g = {0};
	bool		result;

	check_enabled(t);
	g.t = t;
	g.aggregate_id = aggregate_id;
	g.key = key;
	if (!esync_rights_try(t, &g.rights) || !g.rights.table_wide)
		esync_grants_deny(t, ACL_SELECT, NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	result = look(&g);
	MemoryContextSwitchTo(caller);
	if (g.rel)
		table_close(g.rel, NoLock);
	SPI_finish();
	return result;
}

/*
 * Locks the row, and brings the stream up to what the table holds, before a
 * decision about it is prepared; see esync.h.
 */
bool
esync_apply_meet(EsyncTracked *t, text *aggregate_id, Datum *key)
{
	return look_at_row(t, aggregate_id, key, meet_row);
}

/* Shows the row again; where that gave it its ground, that was enough. */
static bool
touch(Target *g)
{
	bool		is_new;

	if (!esync_grants_update(g->t))
		esync_grants_deny(g->t, ACL_UPDATE, NULL);
	if (!take_row(g) && g->rights.rls)
		return false;
	g->c = esync_capture_for(g->rel ? esync_tracked_get(RelationGetRelid(g->rel)) : g->t, g->rel,
							 CurrentMemoryContext);
	esync_record_turn(&g->c, g->aggregate_id);
	is_new = !g->c.head.found;
	if (g->rel)
		esync_record_meet(&g->c, &g->row);
	else if (g->c.head.found && g->c.head.row_xmin != InvalidTransactionId)
		esync_record_missing(&g->c);
	if (!g->c.head.found)
		return false;
	if (!is_new)
		esync_record_touch(&g->c, g->rel ? &g->row : NULL);
	return true;
}

/* Writes an event that says nothing, so that the row is told again; see edit.h. */
bool
esync_apply_touch(EsyncTracked *t, text *aggregate_id, Datum *key)
{
	return look_at_row(t, aggregate_id, key, touch);
}

/* The fold of all events of a row; NULL: it has none. */
static EsyncFold *
fold_of(EsyncTracked *t, text *aggregate_id)
{
	EsyncFold  *fold = palloc(sizeof(EsyncFold));
	EsyncEvents *events = esync_stream_read(t, aggregate_id, NULL, SnapshotSelf, false,
											ESYNC_WANT_FOLD);

	esync_fold_init(fold, t->fields, t->nfields, t->tombstone_field);
	for (int i = 0; i < events->n; i++)
		esync_fold_add(fold, &events->e[i], i);
	return events->n == 0 ? NULL : fold;
}

/* What the row holds in a field, by its place in the columns of its relation. */
static bool
row_holds(const Target *g, int field, const JsonbValue *value)
{
	EsyncTracked *t = g->c.t;

	for (int i = 0; i < t->ncolumns; i++)
	{
		int			k = t->columns[i].attnum - 1;
		JsonbValue	here;

		if (t->columns[i].field != field)
			continue;
		esync_encode_value(t->row, t->columns[i].shape, g->row.values[k], g->row.isnull[k],
						   &here);
		return esync_json_equal(&here, value, true);
	}
	return true;
}

/* Sets the columns in which the row, if there is one, is not what a fold says; how many. */
static int
set_differing(EsyncMerge *m, const Target *g, EsyncFold *fold)
{
	int			n = 0;

	for (int i = 0; i < m->t->nfields && m->t->fields[i].attnum != 0; i++)
	{
		int			shape = esync_merge_shape(m->t, i);
		JsonbValue	value;

		if (!esync_merge_takes(&m->t->fields[i]) || shape < 0 || esync_merge_is_key(m->t, i) ||
			!esync_fold_value(fold, i, &value) || (g->rel && row_holds(g, i, &value)))
			continue;
		m->intent->set[i] = true;
		esync_decode_value(m->t->row, shape, &value, &m->intent->values[i],
						   &m->intent->isnull[i]);
		n++;
	}
	return n;
}

/* Makes the row what its events say, SPI being connected; false: so it is. */
static bool
rebuild(EsyncMerge *m, Target *g)
{
	EsyncFold  *fold;
	int			n;

	(void) take_row(g);
	if ((fold = fold_of(g->t, g->aggregate_id)) == NULL)
		return false;
	g->c = esync_capture_for(g->rel ? esync_tracked_get(RelationGetRelid(g->rel)) : g->t, g->rel,
							 CurrentMemoryContext);
	n = esync_fold_has_row(fold) ? set_differing(m, g, fold) : 0;
	if (!esync_fold_has_row(fold))
		m->action = g->rel ? ESYNC_ACT_DELETE : ESYNC_ACT_NOTHING;
	else if (g->rel == NULL)
		m->action = ESYNC_ACT_INSERT;
	else
		m->action = n > 0 ? ESYNC_ACT_UPDATE : ESYNC_ACT_NOTHING;
	if (m->action == ESYNC_ACT_NOTHING)
		return false;
	write_row(m, g);
	return true;
}

/* Makes the row what its events say, as the caller, and without an event; see esync.h. */
bool
esync_apply_rebuild(EsyncTracked *t, text *aggregate_id, Datum *key)
{
	MemoryContext caller = CurrentMemoryContext;
	EsyncEdit	edit = {0};
	EsyncMerge	m = {0};
	Target		g = {0};
	bool		changed;

	check_enabled(t);
	m.t = g.t = t;
	m.edit = &edit;
	m.aggregate_id = g.aggregate_id = aggregate_id;
	g.key = key;
	esync_rights_read(t, &g.rights);
	edit.user_id = esync_context_get()->user_id;
	edit.db_role = esync_context_get()->db_role;
	esync_edit_intent(&m);
	m.intent->silent = true;
	m.intent->event.submit = m.intent->event.branch = GetCurrentTimestamp();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	changed = rebuild(&m, &g);
	MemoryContextSwitchTo(caller);
	if (g.rel)
		table_close(g.rel, NoLock);
	SPI_finish();
	return changed;
}

/* Merges one edit into its row, as the caller; see esync.h. */
void
esync_apply(EsyncTracked *t, text *aggregate_id, Datum *key, const EsyncEdit *edit,
			EsyncOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	EsyncMerge	m = {0};
	Target		g = {0};

	check_enabled(t);
	memset(outcome, 0, sizeof(EsyncOutcome));
	m.t = g.t = t;
	m.edit = edit;
	m.aggregate_id = outcome->aggregate_id = g.aggregate_id = aggregate_id;
	g.key = key;
	if (!esync_rights_try(t, &g.rights))
		esync_grants_deny(t, ACL_SELECT, NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	apply(&m, &g, outcome);
	MemoryContextSwitchTo(caller);
	if (g.rel)
		table_close(g.rel, NoLock);
	SPI_finish();
	outcome->code = m.code;
	outcome->message = m.message;
}
