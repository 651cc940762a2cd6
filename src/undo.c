/*
 * undo.c: esync_undo: an event is taken back.
 *
 * Each field that the row still shows from the event gets the value that the
 * fold has without it.  What was changed since, or had lost, is left alone and
 * reported.  The result is an edit like any other, a Resolved event whose author
 * had seen everything; the event is withdrawn as a contender (withdraw.c), and
 * who contends in the fields that it had set is found anew (clash.c).
 *
 * Memory: the caller's context.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "resolve.h"
#include "undo.h"

PG_FUNCTION_INFO_V1(esync_undo);

/* ------------------------------------------------------- what is to be undone */

static void
no_such_event(int64 event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event " INT64_FORMAT " does not exist", event_id),
			 errhint("esync_history() and field_history() tell the events of a row.")));
}

/*
 * Locks the row, brings its stream up to date and reads it.  False: the caller does
 * not see the row.  Where it is gone, who undoes something of it at the same time
 * may give it back: the second one waits, and looks again.
 */
static bool
meet_row(EsyncUndo *u)
{
	bool		alone = false;

	for (;;)
	{
		if (!esync_apply_meet(u->t, u->aggregate_id, u->key))
			return false;
		u->events = esync_stream_read(u->t, u->aggregate_id, NULL, SnapshotSelf, false,
									  ESYNC_WANT_EDITS);
		if (alone || u->events->n == 0 ||
			u->events->e[u->events->n - 1].row_xmin != InvalidTransactionId)
			return true;
		esync_decision_lock_gone(u->t, u->aggregate_id);
		alone = true;
	}
}

/*
 * Takes the event's row, locked and with its stream up to date, as the caller
 * may.  A row that policies hide has no events.
 */
static void
take_row(EsyncUndo *u, int64 event_id)
{
	int32		table_id;
	Oid			relid;

	if (!esync_leaf_find_event(event_id, &table_id, &u->aggregate_id))
		no_such_event(event_id);
	relid = esync_tracked_relation(table_id);
	if (!OidIsValid(relid))
		no_such_event(event_id);
	LockRelationOid(relid, RowExclusiveLock);
	u->t = esync_tracked_need(relid);
	esync_tracked_check(u->t);
	esync_rights_read(u->t, &u->rights);
	u->key = palloc(u->t->nkeys * sizeof(Datum));
	if (!esync_key_values(u->t, u->aggregate_id, u->key) ||
		(u->rights.rls && !esync_rights_row(u->t, &u->rights, u->key)) ||
		!meet_row(u))
		no_such_event(event_id);
	u->at = esync_withdraw_find(u->events, event_id);
	if (u->at < 0)
		no_such_event(event_id);
	u->target = &u->events->e[u->at];
	u->m.t = u->t;
	u->m.events = u->events;
}

/* Raises where the event is none that can be undone. */
static void
check_target(EsyncUndo *u)
{
	int64		id = u->target->event_id;

	if (u->target->type == ESYNC_BASELINE && !(u->target->flags & ESYNC_FLAG_DRIFT))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("event " INT64_FORMAT " cannot be undone", id),
				 errdetail("It tells what the row was before its first event."),
				 errhint("Change the row itself.")));
	for (int i = u->at; i < u->events->n; i++)
		if (u->events->e[i].flags & ESYNC_FLAG_MOVED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("event " INT64_FORMAT " cannot be undone", id),
					 errdetail("The key of the row was changed by it or after it."),
					 errhint("Change the row itself.")));
	esync_withdraw_mark(u->events, 0);
	if (u->target->flags & ESYNC_FLAG_WITHDRAWN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event " INT64_FORMAT " is undone already", id),
				 errhint("esync_undo(" INT64_FORMAT ") takes that back.", esync_undo_by(u, u->at))));
	u->was = palloc(u->events->n * sizeof(bool));
	for (int i = 0; i < u->events->n; i++)
	{
		u->was[i] = (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) != 0;
		u->events->e[i].flags &= ~ESYNC_FLAG_WITHDRAWN;
	}
	esync_withdraw_mark(u->events, id);
}

/* ------------------------------------------------------------------ the call */

/* What the event tells besides: what it undoes, and from where it has its values. */
static Jsonb *
meta_of(const EsyncUndo *u, const EsyncContext *context)
{
	EsyncMember *members = palloc((list_length(u->from) + 1) * sizeof(EsyncMember));
	EsyncExtra	extras[3];
	int			n = 0;
	ListCell   *lc;

	foreach(lc, u->from)
		members[n++] = *(EsyncMember *) lfirst(lc);
	extras[0] = (EsyncExtra) {"undoes", esync_value_int64(u->target->event_id)};
	extras[1] = (EsyncExtra) {"strategy", esync_value_string("undo")};
	extras[2] = (EsyncExtra) {"from", esync_value_document(esync_json_object(n, members))};
	return esync_meta_with(context->meta, extras, 3);
}

/* Writes the undo as an edit of the row. */
static void
apply_changes(EsyncUndo *u, EsyncOutcome *o)
{
	const EsyncContext *context = esync_context_get();
	EsyncEdit	edit = esync_edit_by(context, ESYNC_VERB_RESOLVE);

	edit.meta = meta_of(u, context);
	edit.set = u->nset > 0 ? esync_json_object(u->nset, u->set) : NULL;
	edit.ops = u->ops ? esync_json_array(u->ops) : NULL;
	edit.life = u->life;
	edit.hard = u->hard;
	edit.undoes = u->target->event_id;
	edit.strategy = "undo";
	esync_decision_apply(u->t, u->aggregate_id, u->key, &edit, o);
	if (o->code)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event " INT64_FORMAT " cannot be undone", u->target->event_id),
				 errdetail("%s.", o->message)));
}

/* The outcome where nothing was written. */
static void
leave(const EsyncUndo *u, EsyncOutcome *o)
{
	const EsyncEvent *last = &u->events->e[u->events->n - 1];

	memset(o, 0, sizeof(EsyncOutcome));
	o->version = last->version;
	o->deleted = (last->flags & ESYNC_FLAG_DELETED) != 0;
}

/* what is told of the row's conflicts */
typedef struct Told
{
	const EsyncUndo *u;
	int64		event_id;
	MemoryContext cxt;
	List	   *conflicts;		/* of Jsonb */
} Told;

/* Callback: tells of what is open now, and of what the undo closed. */
static bool
tell_conflict(EsyncConflict *conflict, void *arg)
{
	Told	   *told = arg;
	EsyncPlace	place = esync_ledger_place(told->u->t, conflict->field, conflict->opened_event);
	EsyncMember members[4];
	MemoryContext old;

	if ((!conflict->open && conflict->resolved_event != told->event_id) ||
		!esync_ledger_readable(told->u->t, &told->u->rights, &place))
		return true;
	old = MemoryContextSwitchTo(told->cxt);
	members[0] = esync_json_pair("conflict_id", esync_value_int64(conflict->conflict_id));
	members[1] = esync_json_pair("field", esync_value_string(esync_ledger_name(told->u->t, conflict, &place)));
	members[2] = esync_json_pair("kind", esync_value_string(text_to_cstring(conflict->kind)));
	members[3] = esync_json_pair("status", esync_value_string(conflict->open ? "open" : "closed"));
	told->conflicts = lappend(told->conflicts, esync_json_object(4, members));
	MemoryContextSwitchTo(old);
	return true;
}

/* The answer. */
static Jsonb *
answer(const EsyncUndo *u, const EsyncOutcome *o)
{
	Told		told = {u, o->event_id, CurrentMemoryContext, NIL};
	EsyncMember members[7];
	JsonbValue	deleted = {.type = jbvBool, .val.boolean = o->deleted};
	Jsonb	   *row;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	row = esync_row_read(u->t, &u->rights, u->key);
	PopActiveSnapshot();
	esync_ledger_each(u->t->table_id, u->aggregate_id, ESYNC_LEDGER_ALL, 0, SnapshotSelf,
					  tell_conflict, &told);
	members[0] = esync_json_pair("event_id", o->event_id ? esync_value_int64(o->event_id) :
								 esync_value_string(NULL));
	members[1] = esync_json_pair("version", esync_value_int64(o->version));
	members[2] = esync_json_pair("undone", esync_value_document(esync_json_strings(u->undone)));
	members[3] = esync_json_pair("kept", esync_value_document(esync_json_array(u->kept)));
	members[4] = esync_json_pair("row", esync_value_document(row));
	members[5] = esync_json_pair("deleted", deleted);
	members[6] = esync_json_pair("conflicts", esync_value_document(esync_json_array(told.conflicts)));
	return esync_json_object(7, members);
}

/* esync_undo(event_id bigint) */
Datum
esync_undo(PG_FUNCTION_ARGS)
{
	EsyncUndo		u = {0};
	EsyncOutcome o;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event_id must not be null"),
				 errhint("esync_history() and field_history() tell the events of a row.")));
	PreventCommandIfReadOnly("esync_undo()");
	take_row(&u, PG_GETARG_INT64(0));
	check_target(&u);
	esync_undo_find(&u);
	if (u.refused)
		leave(&u, &o);
	else
		apply_changes(&u, &o);
	PG_RETURN_JSONB_P(answer(&u, &o));
}
