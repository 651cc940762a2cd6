/*
 * sqlmerge.c: plain SQL with a base (option sql_merge).
 *
 * An UPDATE whose context names a base is an edit of the row that its author
 * had seen: the first BEFORE trigger merges what was assigned into the row of
 * now, and leaves an intent for the AFTER trigger.  Only an assigned column
 * whose value differs from the base is an edit, so an application that sends
 * all columns each time takes back nobody's.
 *
 * The base is for one row: the first tracked one that a statement writes at
 * trigger depth 1.  It is spent with that statement.  A DELETE needs no merge,
 * but tells what its author had seen.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "merge.h"

PG_FUNCTION_INFO_V1(esync_merge_row);

/* a base that was used: which, and by which statement of this transaction */
typedef struct Spent
{
	uint64		turn;
	uint64		highest;		/* turn up to here */
	CommandId	cid;
	SubTransactionId subid;
} Spent;

static Spent *spent = NULL;		/* as they were used; those of a savepoint are the last */
static int	nspent = 0;
static int	room = 0;

/* The transaction ends, and what it spent is forgotten; the memory went with it. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	spent = NULL;
	nspent = room = 0;
}

/* A savepoint ends: what it spent is there again, or is the parent's. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					  void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nspent > 0 && spent[nspent - 1].subid == mine)
			nspent--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = nspent - 1; i >= 0 && spent[i].subid == mine; i--)
			spent[i].subid = parent;
}

/* Called once, by _PG_init. */
void
esync_sqlmerge_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
}

/* How the present base was spent in this transaction; NULL: it was not. */
static const Spent *
find_spent(void)
{
	uint64		turn = esync_context_base_turn();

	for (int i = nspent - 1; i >= 0 && spent[i].highest >= turn; i--)
		if (spent[i].turn == turn)
			return &spent[i];
	return NULL;
}

/* The present base is spent by a statement. */
static void
spend(CommandId cid)
{
	Spent	   *s;

	if (nspent == room)
	{
		int			more = Max(2 * room, 8);

		spent = spent ? repalloc_huge(spent, more * sizeof(Spent)) :
			MemoryContextAlloc(TopTransactionContext, more * sizeof(Spent));
		room = more;
	}
	s = &spent[nspent++];
	s->turn = esync_context_base_turn();
	s->highest = nspent > 1 ? Max(s->turn, s[-1].highest) : s->turn;
	s->cid = cid;
	s->subid = GetCurrentSubTransactionId();
}

/*
 * Takes the base of the context for a row that is written at trigger depth 1;
 * false: there is none, or an earlier statement spent it.  A second row of the
 * same statement is an error; but a branch timestamp alone holds for all of them.
 */
bool
esync_sqlmerge_take_base(EsyncTracked *t, const EsyncContext *context)
{
	CommandId	cid = GetActiveSnapshot()->curcid;
	const Spent *before;

	if (!context->has_base && !context->has_branch)
		return false;
	if (esync_trigger_depth() != 1)
		return false;
	before = find_spent();
	if (before)
	{
		if (before->cid != cid)
			return false;
		if (!context->has_base)
			return true;
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("base_version names one row, but the statement writes more of table \"%s\"",
						t->table_name),
				 errhint("Write one row a statement under a base_version, or hand the edits to esync_submit.")));
	}
	spend(cid);
	return true;
}

/* Was the present base used up, by a statement or by an edit that was saved? */
bool
esync_sqlmerge_base_is_spent(void)
{
	return find_spent() != NULL;
}

/* The context's base is that of an edit that is saved: no statement after it takes it. */
void
esync_sqlmerge_spend_base(void)
{
	if (find_spent() == NULL)
		spend(InvalidCommandId);
}

/* ------------------------------------------------------------------ the edit */

/* Did the statement assign the column? */
static bool
is_assigned(const EsyncColumn *col, const Bitmapset *updated)
{
	return bms_is_member(col->attnum - FirstLowInvalidHeapAttributeNumber, updated);
}

/* The columns that the statement assigned, as an object of their new values. */
static Jsonb *
assigned(EsyncTracked *t, const EsyncRow *new, const Bitmapset *updated)
{
	EsyncMember *members = palloc((t->ncolumns + 1) * sizeof(EsyncMember));
	int			n = 0;

	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];
		const EsyncField *f = &t->fields[col->field];
		EsyncAttr	attr = {f->name, col->attnum, f->typid, f->typmod, false};

		if (!col->patched || !is_assigned(col, updated))
			continue;
		members[n].key = f->name;
		members[n].keylen = strlen(f->name);
		if (f->masked)
			esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
							   new->values[col->attnum - 1], new->isnull[col->attnum - 1],
							   &members[n++].value);
		else
			esync_encode_value(t->row, col->shape, new->values[col->attnum - 1],
							   new->isnull[col->attnum - 1], &members[n++].value);
	}
	return esync_json_object(n, members);
}

/* The statement as an edit, by what the session says of its author. */
static void
make_edit(EsyncEdit *edit, const EsyncContext *x, Jsonb *document)
{
	*edit = esync_edit_by(x, ESYNC_VERB_UPDATE);
	edit->has_base_version = x->has_base;
	edit->base_version = x->base_version;
	edit->meta = x->meta;
	edit->set = document;
}

/* Is the base older than the last event of the row?  Else there is nothing to merge. */
static bool
is_stale(const EsyncContext *x, const EsyncHead *head)
{
	if (x->has_base)
		return x->base_version < head->version;
	return head->commit > x->branch - (int64) esync_branch_margin * 1000;
}

/*
 * The row as the statement may leave it: what it assigned and did not change
 * in its base is as it is now; what it changed is as the merge says.  What it
 * did not assign is left to triggers that may have run before.
 */
static HeapTuple
merged_tuple(EsyncTracked *t, EsyncMerge *m, TriggerData *trigdata, const EsyncRow *old)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	Datum	   *values = palloc((t->ncolumns + 1) * sizeof(Datum));
	bool	   *nulls = palloc((t->ncolumns + 1) * sizeof(bool));
	int		   *columns = palloc((t->ncolumns + 1) * sizeof(int));
	int			n = 0;

	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];

		if (!col->patched || esync_merge_is_key(t, col->field) ||
			!(is_assigned(col, trigdata->tg_updatedcols) || m->intent->set[col->field]))
			continue;
		columns[n] = col->attnum;
		if (m->intent->set[col->field])
		{
			values[n] = m->intent->values[col->field];
			nulls[n++] = m->intent->isnull[col->field];
		}
		else
		{
			values[n] = old->values[col->attnum - 1];
			nulls[n++] = old->isnull[col->attnum - 1];
		}
	}
	return heap_modify_tuple_by_cols(trigdata->tg_newtuple, desc, n, columns, values, nulls);
}

/* A text or jsonb of the merge, for as long as its intent lasts. */
static void *
keep(const void *value)
{
	return value ? pg_detoast_datum_copy(unconstify(void *, value)) : NULL;
}

/* Does a conflict stay open? */
static bool
any_open(List *clashes)
{
	ListCell   *lc;

	foreach(lc, clashes)
		if (((EsyncClash *) lfirst(lc))->open)
			return true;
	return false;
}

/* Clashes that are settled, to be kept with their intent. */
static List *
keep_settled(List *clashes)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, clashes)
	{
		EsyncClash *clash = lfirst(lc);
		EsyncClash *copy = palloc0(sizeof(EsyncClash));

		copy->field = clash->field ? pstrdup(clash->field) : NULL;
		copy->resolution = clash->resolution;
		kept = lappend(kept, copy);
	}
	return kept;
}

/* What an intent is to give the row, to be kept with it. */
static void
keep_values(EsyncTracked *t, EsyncIntent *in)
{
	Size		n = t->nfields + 1;

	in->set = memcpy(palloc(n * sizeof(bool)), in->set, n * sizeof(bool));
	in->isnull = memcpy(palloc(n * sizeof(bool)), in->isnull, n * sizeof(bool));
	in->values = memcpy(palloc(n * sizeof(Datum)), in->values, n * sizeof(Datum));
	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];

		if (in->set[col->field] && !in->isnull[col->field])
			in->values[col->field] = datumCopy(in->values[col->field], col->attbyval, col->attlen);
	}
}

/* A copy of the merge's intent in the current context, in which no conflict stays open. */
static EsyncIntent *
keep_intent(const EsyncMerge *m)
{
	EsyncIntent *in = palloc(sizeof(EsyncIntent));
	EsyncEvent *e = &in->event;

	*in = *m->intent;
	in->aggregate_id = e->aggregate_id = keep(in->aggregate_id);
	e->user_id = keep(e->user_id);
	e->device_id = keep(e->device_id);
	e->db_role = keep(e->db_role);
	e->patch = keep(e->patch);
	e->meta = keep(e->meta);
	e->payload = NULL;			/* these are set when it is written */
	e->tenant = NULL;
	in->clashes = keep_settled(in->clashes);
	keep_values(m->t, in);
	return in;
}

/*
 * Leaves the intent for the AFTER trigger of this statement.  A statement may
 * leave one a row, so only where a conflict is to be told the memory of the
 * whole merge is kept: then true.
 */
static bool
leave_intent(EsyncMerge *m, MemoryContext cxt, TriggerData *trigdata)
{
	bool		whole = any_open(m->intent->clashes);
	EsyncIntent *in = m->intent;

	if (whole)
		MemoryContextSetParent(cxt, TopTransactionContext);
	else
	{
		MemoryContext old;

		cxt = AllocSetContextCreate(TopTransactionContext, "esync merge", ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(cxt);
		in = keep_intent(m);
		MemoryContextSwitchTo(old);
	}
	in->plain = true;
	in->cxt = cxt;
	in->relid = RelationGetRelid(trigdata->tg_relation);
	in->tid = trigdata->tg_trigtuple->t_self;
	in->cid = GetActiveSnapshot()->curcid;
	esync_pending_push_intent(in);
	return whole;
}

/* Masked columns of OLD, as the table has them. */
static Jsonb *
masked_values(EsyncTracked *t, const EsyncRow *old)
{
	EsyncMember *members = palloc((t->ncolumns + 1) * sizeof(EsyncMember));
	int			n = 0;

	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];
		const EsyncField *f = &t->fields[col->field];
		EsyncAttr	attr = {f->name, col->attnum, f->typid, f->typmod, false};

		if (!f->masked)
			continue;
		members[n].key = f->name;
		members[n].keylen = strlen(f->name);
		esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
						   old->values[col->attnum - 1], old->isnull[col->attnum - 1],
						   &members[n++].value);
	}
	return n == 0 ? NULL : esync_json_object(n, members);
}

/* Has the table other BEFORE triggers, which may keep the row from being written? */
static bool
may_be_swallowed(const TriggerData *trigdata)
{
	const TriggerDesc *desc = trigdata->tg_relation->trigdesc;

	for (int i = 0; i < desc->numtriggers; i++)
	{
		const Trigger *trigger = &desc->triggers[i];

		if (TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_BEFORE(trigger->tgtype) &&
			TRIGGER_FOR_UPDATE(trigger->tgtype) && trigger->tgenabled != TRIGGER_DISABLED &&
			strcmp(trigger->tgname, ESYNC_TRIGGER_MERGE) != 0 &&
			strcmp(trigger->tgname, ESYNC_TRIGGER_STAMP) != 0)
			return true;
	}
	return false;
}

/* The key columns of a row, and nothing else of it. */
static EsyncRow
key_row(const EsyncTracked *t, Relation rel, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(rel);
	EsyncRow	row;

	row.values = palloc(desc->natts * sizeof(Datum));
	row.isnull = palloc(desc->natts * sizeof(bool));
	row.tuple = tuple;
	for (int k = 0; k < t->nkeys; k++)
	{
		AttrNumber	attnum = t->keyattnums[k];

		row.values[attnum - 1] = heap_getattr(tuple, attnum, desc, &row.isnull[attnum - 1]);
	}
	return row;
}

/* The error where a statement cannot be merged. */
static void
cannot_merge(const EsyncMerge *m)
{
	if (strcmp(m->code, "conflict") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_CONFLICT),
				 errmsg("%s", m->message),
				 errhint("Read the row and its version again, and repeat the change on top of them.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the statement cannot be merged into table \"%s\"", m->t->table_name),
			 errdetail("%s.", m->message)));
}

/*
 * Merges the statement's row into the one of now; the result is in the
 * caller's context, what the AFTER trigger needs in one of its own.  Most
 * bases are fresh: that is found out before anything else is made.
 */
static HeapTuple
merge_row(EsyncTracked *t, const EsyncContext *context, TriggerData *trigdata)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext cxt;
	EsyncRow	old = key_row(t, trigdata->tg_relation, trigdata->tg_trigtuple);
	EsyncRow	new;
	EsyncMerge *m;
	EsyncEdit  *edit;
	EsyncCapture c = esync_capture_for(t, trigdata->tg_relation, caller);
	HeapTuple	result = trigdata->tg_newtuple;

	esync_record_turn(&c, esync_record_key(t, &old));
	if (esync_record_is_met(&c, &old) && !is_stale(context, &c.head))
	{
		esync_store_keep_head(c.leaf, c.key, &c.head);
		return result;
	}
	cxt = AllocSetContextCreate(caller, "esync merging", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	old = esync_capture_row(trigdata->tg_relation, trigdata->tg_trigtuple);
	c.key = esync_record_key(t, &old);
	esync_record_meet(&c, &old);
	if (is_stale(context, &c.head))
	{
		new = esync_capture_row(trigdata->tg_relation, trigdata->tg_newtuple);
		m = palloc0(sizeof(EsyncMerge));
		edit = palloc(sizeof(EsyncEdit));
		make_edit(edit, context, assigned(t, &new, trigdata->tg_updatedcols));
		m->t = t;
		m->edit = edit;
		m->aggregate_id = c.key;
		m->head = c.head.version;
		m->head_commit = c.head.commit;
		m->masked = masked_values(t, &old);
		if (!esync_edit_meet(m, true))
			cannot_merge(m);
		MemoryContextSwitchTo(caller);
		result = merged_tuple(t, m, trigdata, &old);
		if (m->action == ESYNC_ACT_STORE && may_be_swallowed(trigdata))
		{
			/* a trigger may find that nothing changes; the edit is told all the same */
			MemoryContextSwitchTo(cxt);
			esync_merged_put_rowless(&c, m->intent, &old);
			esync_policy_decide_ahead(esync_tracked_get(t->root), m->intent);
			MemoryContextSwitchTo(caller);
		}
		if (m->action != ESYNC_ACT_NOTHING && leave_intent(m, cxt, trigdata))
			return result;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(cxt);
	return result;
}

/*
 * Was the row deleted by the statement itself?  What a foreign key deletes on
 * its behalf is told at the same depth, but has a command of its own.
 */
static bool
is_by_statement(HeapTuple old)
{
	HeapTupleHeader h = old->t_data;

	return HEAP_XMAX_IS_LOCKED_ONLY(h->t_infomask) ||
		!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(h)) ||
		HeapTupleHeaderGetCmax(h) == GetActiveSnapshot()->curcid;
}

/*
 * A row was deleted by a statement whose context names a base that is stale:
 * the event as its author meant it.  NULL: as any other DELETE, which it also
 * is where an unseen restore says that the row should have stayed.
 */
EsyncIntent *
esync_sqlmerge_delete(EsyncCapture *c, const EsyncRow *old)
{
	EsyncMerge *m;
	EsyncEdit  *edit;

	if (!c->t->sql_merge || !is_by_statement(old->tuple) ||
		!esync_sqlmerge_take_base(c->t, c->context) ||
		!is_stale(c->context, &c->head))
		return NULL;
	m = palloc0(sizeof(EsyncMerge));
	edit = palloc(sizeof(EsyncEdit));
	make_edit(edit, c->context, NULL);
	edit->verb = ESYNC_VERB_DELETE;
	m->t = c->t;
	m->edit = edit;
	m->aggregate_id = c->key;
	m->head = c->head.version;
	m->head_commit = c->head.commit;
	m->hard = true;
	if (!esync_edit_meet(m, true))
	{
		if (strcmp(m->code, "conflict") == 0)
			cannot_merge(m);
		return NULL;
	}
	m->intent->plain = true;
	return m->action == ESYNC_ACT_DELETE ? m->intent : NULL;
}

/* BEFORE UPDATE FOR EACH ROW, the first such trigger. */
Datum
esync_merge_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncTracked *t = esync_check_trigger(fcinfo, ESYNC_TRIGGER_MERGE,
										  TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE);
	const EsyncContext *context;

	if (!esync_enabled)
		return PointerGetDatum(trigdata->tg_newtuple);
	context = esync_context_get();
	if (!esync_sqlmerge_take_base(t, context))
		return PointerGetDatum(trigdata->tg_newtuple);
	return PointerGetDatum(merge_row(t, context, trigdata));
}
