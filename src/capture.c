/*
 * capture.c: the triggers, and the order in which they tell of changes.
 *
 * A row trigger runs after the row was changed, so the writer holds the row's
 * lock; record.c turns the change into events.  What is told in another order
 * than it was done is put right here: rows that move between partitions, and
 * triggers that change rows whose own trigger has not run yet.
 *
 * All garbage is in the per-tuple context that the executor resets.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"

/* what a trigger keeps over the rows of a statement, in its fn_extra */
typedef struct Kept
{
	EsyncLeaf  *leaf;
	const EsyncContext *context;
} Kept;

/* ----------------------------------------------------- order of row triggers */

/*
 * At which depth of triggers does this one run?  1: the statement is not
 * itself run by a trigger.
 */
int
esync_trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/* Was this version of a row the one from which an UPDATE of ours made tuple? */
static bool
is_predecessor(HeapTuple candidate, HeapTuple tuple)
{
	return ItemPointerEquals(&candidate->t_data->t_ctid, &tuple->t_self) &&
		!ItemPointerEquals(&candidate->t_self, &tuple->t_self) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(candidate->t_data));
}

/* A unique index on exactly the key columns of a relation; NULL if it has none. */
static Relation
open_key_index(Relation rel, EsyncTracked *t)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		fits = form->indisunique && form->indisvalid && form->indnkeyatts == t->nkeys &&
			index->rd_rel->relam == BTREE_AM_OID &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);

		for (int i = 0; fits && i < t->nkeys; i++)
		{
			bool		found = false;

			for (int k = 0; k < t->nkeys; k++)
				found |= t->keyattnums[k] == form->indkey.values[i];
			fits = found;
		}
		if (fits)
			return index;
		index_close(index, AccessShareLock);
	}
	return NULL;
}

/* Scan keys that find all tuples with the key of a row. */
static void
fill_key(Relation index, const EsyncRow *row, ScanKey key)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		Oid			opr = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
											  index->rd_opcintype[i], BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&key[i], 0, i + 1, BTEqualStrategyNumber,
							   index->rd_opcintype[i], index->rd_indcollation[i],
							   get_opcode(opr), row->values[index->rd_index->indkey.values[i] - 1]);
	}
}

/* The predecessor of a row's tuple among the tuples with the same key; or NULL. */
static HeapTuple
predecessor_by_key(Relation rel, Relation index, const EsyncRow *row)
{
	ScanKeyData key[INDEX_MAX_KEYS];
	IndexScanDesc scan = index_beginscan(rel, index, SnapshotAny, NULL,
										 index->rd_index->indnkeyatts, 0);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	HeapTuple	found = NULL;

	fill_key(index, row, key);
	index_rescan(scan, key, index->rd_index->indnkeyatts, NULL, 0);
	while (found == NULL && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		free;
		HeapTuple	candidate = ExecFetchSlotHeapTuple(slot, false, &free);

		if (is_predecessor(candidate, row->tuple))
			found = heap_copytuple(candidate);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* The same among all tuples of the table: where its key was changed, or has no index. */
static HeapTuple
predecessor_by_scan(Relation rel, const EsyncRow *row)
{
	TableScanDesc scan = table_beginscan(rel, SnapshotAny, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	HeapTuple	found = NULL;

	while (found == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		free;
		HeapTuple	candidate = ExecFetchSlotHeapTuple(slot, false, &free);

		if (is_predecessor(candidate, row->tuple))
			found = heap_copytuple(candidate);
		CHECK_FOR_INTERRUPTS();
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return found;
}

/*
 * The version of a row from which an UPDATE of this transaction made it; NULL
 * if an INSERT did.
 */
static HeapTuple
predecessor(Relation rel, EsyncTracked *t, const EsyncRow *row)
{
	Relation	index;
	HeapTuple	found = NULL;

	if ((row->tuple->t_data->t_infomask & HEAP_UPDATED) == 0)
		return NULL;
	index = open_key_index(rel, t);
	if (index)
	{
		found = predecessor_by_key(rel, index, row);
		index_close(index, NoLock);
	}
	return found ? found : predecessor_by_scan(rel, row);
}

/* A tuple as a row. */
EsyncRow
esync_capture_row(Relation rel, HeapTuple tuple)
{
	int			natts = RelationGetDescr(rel)->natts;
	EsyncRow	row;

	row.values = palloc(natts * sizeof(Datum));
	row.isnull = palloc(natts * sizeof(bool));
	row.tuple = tuple;
	heap_deform_tuple(tuple, RelationGetDescr(rel), row.values, row.isnull);
	return row;
}

/* --------------------------------------------------- moves between partitions */

static bool tell_first(EsyncCapture *c, EsyncRow *row);

/* A row laid out as another leaf of the same table has it. */
static EsyncRow
row_for(EsyncTracked *to, EsyncTracked *from, const EsyncRow *row)
{
	int			natts = esync_relnatts(to->relid);
	EsyncRow	r;

	r.values = palloc0(natts * sizeof(Datum));
	r.isnull = palloc(natts * sizeof(bool));
	memset(r.isnull, true, natts * sizeof(bool));
	r.tuple = row->tuple;
	for (int i = 0; i < to->nfields && to->fields[i].attnum != 0; i++)
	{
		AttrNumber	there = get_attnum(from->relid, to->fields[i].name);
		AttrNumber	here = get_attnum(to->relid, to->fields[i].name);

		if (there == InvalidAttrNumber || here == InvalidAttrNumber)
			continue;
		r.values[here - 1] = row->values[there - 1];
		r.isnull[here - 1] = row->isnull[there - 1];
	}
	return r;
}

/* EsyncCapture on behalf of a relation, outside of its own trigger. */
EsyncCapture
esync_capture_for(EsyncTracked *t, Relation rel, MemoryContext cxt)
{
	EsyncCapture		c = {0};
	EsyncLeaf  *keep = NULL;

	c.t = t;
	c.rel = rel;
	c.tell_first = tell_first;
	c.leaf = esync_store_open(t, cxt, &keep);
	c.context = esync_context_get();
	return c;
}

/*
 * The row left its partition and never came to another: a trigger must have
 * swallowed it.  It is deleted.
 */
static void
flush_move(EsyncMove *m)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync move",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Relation	rel = table_open(m->relid, AccessShareLock);
	EsyncTracked *t = esync_tracked_get(m->relid);

	esync_pending_settle_move(m);
	if (t && t->enabled)
	{
		EsyncCapture		c = esync_capture_for(t, rel, cxt);
		EsyncRow	row = esync_capture_row(rel, m->tuple);

		c.context = m->context;
		esync_record_delete(&c, &row);
	}
	table_close(rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	esync_pending_end_move(m);
}

/*
 * Makes the head tell of a row that this transaction made, though the change
 * at hand may be none: its own trigger must not tell of it later.
 */
static void
tell_of_ours(EsyncCapture *c, EsyncRow *row)
{
	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row->tuple->t_data)))
		return;
	esync_record_turn(c, esync_record_key(c->t, row));
	if (!esync_pending_has_vanished(c->t->root, c->key, row->tuple))
		esync_record_meet(c, row);
}

/*
 * The other half of a move arrived: one change of one row.  What this
 * transaction did to the row before is told of the partition that it left.
 */
static void
capture_move(EsyncCapture *c, EsyncMove *m, EsyncRow *new)
{
	Relation	rel = table_open(m->relid, AccessShareLock);
	EsyncTracked *from = esync_tracked_get(m->relid);
	EsyncCapture before = *c;
	EsyncRow	row = esync_capture_row(rel, m->tuple);
	EsyncRow	old;

	esync_pending_settle_move(m);
	before.t = from;
	before.rel = rel;
	tell_of_ours(&before, &row);
	old = row_for(c->t, from, &row);
	esync_record_update(c, &old, new);
	table_close(rel, NoLock);
	esync_pending_end_move(m);
}

/* Did one command take the old tuple out of its partition and put in the new one? */
static bool
is_other_half(const EsyncMove *m, EsyncTracked *t, const EsyncRow *new)
{
	EsyncTracked *from = esync_tracked_get(m->relid);
	HeapTupleHeader old = m->tuple->t_data;
	HeapTupleHeader h = new->tuple->t_data;

	return from && from->root == t->root &&
		HeapTupleHeaderGetUpdateXid(old) == HeapTupleHeaderGetXmin(h) &&
		HeapTupleHeaderGetCmax(old) == HeapTupleHeaderGetCmin(h);
}

/* The move, among those that wait, of which this row is the other half; or NULL. */
static EsyncMove *
waiting_half(EsyncTracked *t, const EsyncRow *new)
{
	EsyncMove  *m;

	for (m = esync_pending_move(NULL); m != NULL; m = esync_pending_move(m))
		if (is_other_half(m, t, new))
			return m;
	return NULL;
}

/*
 * Did an INSERT make this row of the present transaction?  Not if the table
 * was rewritten since: that makes new tuples of rows that were there.
 */
static bool
may_be_inserted(const EsyncCapture *c, const EsyncRow *row)
{
	if (row->tuple->t_data->t_infomask & HEAP_UPDATED)
		return false;
	return c->rel->rd_firstRelfilelocatorSubid == InvalidSubTransactionId ||
		c->rel->rd_createSubid != InvalidSubTransactionId ||
		!esync_pending_copied(c->t->root, row->tuple);
}

/*
 * This transaction made a row, and no event tells: its own trigger has not run
 * yet, since the change was made by an outer statement whose triggers are
 * running, or capture could not see it.  Tells it now, after what went before
 * it; its trigger, if it runs, finds it told.
 */
static bool
tell_first(EsyncCapture *c, EsyncRow *row)
{
	HeapTuple	before;
	EsyncMove  *m = waiting_half(c->t, row);

	check_stack_depth();
	if (m != NULL)
		capture_move(c, m, row);
	else if ((before = predecessor(c->rel, c->t, row)) != NULL)
	{
		EsyncRow	old = esync_capture_row(c->rel, before);

		tell_of_ours(c, &old);
		esync_record_update(c, &old, row);
	}
	else if (may_be_inserted(c, row))
		esync_record_insert(c, row);
	else
		return false;
	esync_record_turn(c, esync_record_key(c->t, row));
	return esync_record_tells(c, row);
}

/*
 * Settles moves that wait for their other half: true if this INSERT is it, and
 * was captured with it.  Those of triggers further out go on waiting.
 */
static bool
settle_moves(EsyncCapture *c, TriggerData *trigdata, EsyncRow *row)
{
	EsyncMove  *m = esync_pending_move(NULL);
	int			depth;

	if (m == NULL)
		return false;
	depth = esync_trigger_depth();
	for (; m != NULL && m->depth >= depth; m = esync_pending_move(NULL))
	{
		if (m->depth == depth && TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) &&
			is_other_half(m, c->t, row))
		{
			/* where a trigger met the row before, it was told as it came there */
			if (esync_pending_take_caught(c->t->relid, row->tuple))
				flush_move(m);
			else
				capture_move(c, m, row);
			return true;
		}
		flush_move(m);
	}
	return false;
}

/* Before the commit, what still waits is written. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	EsyncMove  *m;

	if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE)
		return;
	while ((m = esync_pending_move(NULL)) != NULL)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		flush_move(m);
		PopActiveSnapshot();
	}
}

/* Called once, by _PG_init. */
void
esync_capture_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
}

/* ----------------------------------------------------------------- the triggers */

PG_FUNCTION_INFO_V1(esync_capture);
PG_FUNCTION_INFO_V1(esync_truncate);
PG_FUNCTION_INFO_V1(esync_stamp);

/*
 * Every trigger function begins here: called as a trigger, by the trigger of
 * that name, at that moment; on a relation that is tracked.
 */
EsyncTracked *
esync_check_trigger(FunctionCallInfo fcinfo, const char *name, TriggerEvent moment)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncTracked *t;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
	if ((trigdata->tg_event & (TRIGGER_EVENT_ROW | TRIGGER_EVENT_TIMINGMASK)) != moment ||
		strcmp(trigdata->tg_trigger->tgname, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" was not made by esync_enable",
						trigdata->tg_trigger->tgname),
				 errhint("Drop it, and call esync_enable.")));
	t = esync_tracked_get(RelationGetRelid(trigdata->tg_relation));
	if (t == NULL || !t->enabled)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_CONFIGURATION),
				 errmsg("table \"%s\" has a trigger of esync but is not enabled",
						RelationGetRelationName(trigdata->tg_relation)),
				 errhint("Call esync_enable for the table, or drop the trigger \"%s\".", name)));
	esync_tracked_check(t);
	return t;
}

/* What the statement keeps, made at its first row. */
static void
begin_row(FunctionCallInfo fcinfo, EsyncCapture *c)
{
	MemoryContext cxt = fcinfo->flinfo->fn_mcxt;
	Kept	   *kept = fcinfo->flinfo->fn_extra;

	if (kept == NULL)
		kept = fcinfo->flinfo->fn_extra = MemoryContextAllocZero(cxt, sizeof(Kept));
	c->leaf = esync_store_open(c->t, cxt, &kept->leaf);
	if (kept->context == NULL)
		kept->context = esync_context_get();
	c->context = kept->context;
}

/* The row in a trigger's slot. */
static EsyncRow
row_from_slot(TupleTableSlot *slot, HeapTuple tuple)
{
	EsyncRow	row;

	slot_getallattrs(slot);
	row.values = slot->tts_values;
	row.isnull = slot->tts_isnull;
	row.tuple = tuple;
	return row;
}

/*
 * Did a trigger change the row, or a foreign key, and not the statement itself?
 * Triggers run deeper.  What a foreign key does is told among the rows of the
 * statement that led to it, but bears the number of another command.
 */
static bool
is_following(const TriggerData *trigdata)
{
	CommandId	cid = GetActiveSnapshot()->curcid;

	if (esync_trigger_depth() > 1)
		return true;
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		return HeapTupleHeaderGetCmax(trigdata->tg_trigtuple->t_data) != cid;
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return HeapTupleHeaderGetCmin(trigdata->tg_newtuple->t_data) != cid;
	return HeapTupleHeaderGetCmin(trigdata->tg_trigtuple->t_data) != cid;
}

/* AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW: the way of a row to its events. */
Datum
esync_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncCapture c = {0};
	EsyncRow	row;
	EsyncRow	new;

	c.t = esync_check_trigger(fcinfo, ESYNC_TRIGGER_CAPTURE,
							  TRIGGER_EVENT_ROW | TRIGGER_EVENT_AFTER);
	c.rel = trigdata->tg_relation;
	c.tell_first = tell_first;
	if (!esync_enabled)
	{
		esync_pending_pause(c.t->root);
		return PointerGetDatum(NULL);
	}
	begin_row(fcinfo, &c);
	c.following = c.context->device_id != NULL && is_following(trigdata);
	row = row_from_slot(trigdata->tg_trigslot, trigdata->tg_trigtuple);
	if (settle_moves(&c, trigdata, &row))
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		new = row_from_slot(trigdata->tg_newslot, trigdata->tg_newtuple);
		if (!esync_pending_take_caught(c.t->relid, new.tuple))
			esync_record_update(&c, &row, &new);
	}
	else if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		if (!esync_pending_take_caught(c.t->relid, row.tuple))
			esync_record_insert(&c, &row);
	}
	else if (HeapTupleHeaderIndicatesMovedPartitions(row.tuple->t_data))
		esync_pending_push_move(c.t->relid, esync_trigger_depth(), row.tuple, c.context);
	else
		esync_record_delete(&c, &row);
	return PointerGetDatum(NULL);
}

/* ------------------------------------------------------------ whole tables */

typedef void (*RowAction) (EsyncCapture *c, EsyncRow *row);

/*
 * Does something to every row of one relation with storage.  The caller holds
 * a lock that keeps writers out, so the latest snapshot shows all there is.
 */
static void
each_row(Relation rel, EsyncTracked *t, RowAction action)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync table",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext per_row = AllocSetContextCreate(cxt, "esync row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	EsyncCapture		c = esync_capture_for(t, rel, cxt);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		free;
		EsyncRow	row;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(per_row);
		row = row_from_slot(slot, ExecFetchSlotHeapTuple(slot, false, &free));
		action(&c, &row);
		MemoryContextSwitchTo(cxt);
		MemoryContextReset(per_row);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* Is there a truncate trigger of ours on the relation itself? */
static bool
has_truncate_trigger(Relation rel)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc && i < desc->numtriggers; i++)
		if (strcmp(desc->triggers[i].tgname, ESYNC_TRIGGER_TRUNCATE) == 0 &&
			desc->triggers[i].tgenabled != TRIGGER_DISABLED)
			return true;
	return false;
}

/*
 * Does something to every row of a relation, of all leaves where it is
 * partitioned; with_trigger false leaves those out that have a truncate
 * trigger of their own.
 */
static void
each_leaf(Oid relid, RowAction action, bool with_trigger)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);
		EsyncTracked *t = esync_tracked_get(lfirst_oid(lc));

		if (t && rel->rd_rel->relkind == RELKIND_RELATION &&
			(with_trigger || lfirst_oid(lc) == relid || !has_truncate_trigger(rel)))
			each_row(rel, t, action);
		table_close(rel, NoLock);
	}
}

/*
 * BEFORE TRUNCATE FOR EACH STATEMENT: a Deleted event for every row.  Statement
 * triggers are not cloned, so the root's looks after leaves without one.
 */
Datum
esync_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncTracked *t = esync_check_trigger(fcinfo, ESYNC_TRIGGER_TRUNCATE, TRIGGER_EVENT_BEFORE);

	esync_pending_rewritten(t->root);
	if (esync_enabled)
		each_leaf(RelationGetRelid(trigdata->tg_relation), esync_record_delete, false);
	else
		esync_pending_pause(t->root);
	return PointerGetDatum(NULL);
}

/* Ground for a row without events, a Baseline for one that drifted. */
static void
capture_ground(EsyncCapture *c, EsyncRow *row)
{
	esync_record_turn(c, esync_record_key(c->t, row));
	esync_record_meet(c, row);
}

/* what looking for rows that are gone needs */
typedef struct Missing
{
	EsyncCapture c;
	SPIPlanPtr	plan;
} Missing;

/* Callback: writes down that a row is gone which the stream has alive. */
static void
find_missing(EsyncTracked *t, text *aggregate_id, EsyncEvents *events, void *arg)
{
	Missing    *m = arg;
	MemoryContext cxt = CurrentMemoryContext;
	Datum	   *key = palloc(t->nkeys * sizeof(Datum));

	if (events->e[events->n - 1].row_xmin == InvalidTransactionId)
		return;
	if (esync_key_values(t, aggregate_id, key))
	{
		if (SPI_execute_plan(m->plan, key, NULL, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "reading \"%s\" failed", t->table_name);
		MemoryContextSwitchTo(cxt); /* SPI leaves its own */
		SPI_freetuptable(SPI_tuptable);
		if (SPI_processed > 0)
			return;
	}
	esync_record_turn(&m->c, aggregate_id);
	esync_record_missing(&m->c);
}

/*
 * All rows that went unseen.  Where row policies hide rows from the caller,
 * nobody can tell hidden from gone, and none is looked for.
 */
static void
each_missing(EsyncTracked *t)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync missing",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Snapshot	snapshot;
	Missing		m;

	if (check_enable_rls(t->root, InvalidOid, true) == RLS_ENABLED)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	old = MemoryContextSwitchTo(cxt);
	m.c = esync_capture_for(t, NULL, cxt);
	m.plan = SPI_prepare(esync_rights_query(t, "1", true), t->nkeys, esync_rights_key_types(t));
	if (m.plan == NULL)
		elog(ERROR, "preparing to read \"%s\" failed", t->table_name);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	esync_stream_each(t, NULL, snapshot, ESYNC_WANT_ALL, find_missing, &m);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	SPI_finish();
	MemoryContextDelete(cxt);
}

/* The option baseline: the table as it is, against the stream, row by row. */
void
esync_capture_baseline(Oid relid)
{
	each_leaf(relid, capture_ground, true);
	CommandCounterIncrement();	/* what was written is to be read */
	each_missing(esync_tracked_need(relid));
}

/* ----------------------------------------------------------- last_modified */

/*
 * BEFORE INSERT OR UPDATE FOR EACH ROW, the last such trigger: last_modified
 * columns take the present time, later than before; they stay as they were
 * where nothing else changed.
 */
Datum
esync_stamp(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncTracked *t = esync_check_trigger(fcinfo, ESYNC_TRIGGER_STAMP,
										  TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE);
	bool		update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	HeapTuple	tuple = update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	Relation	rel = trigdata->tg_relation;
	TimestampTz now = GetCurrentTimestamp();
	Datum	   *values = palloc(t->nstamps * sizeof(Datum));
	bool	   *nulls = palloc0(t->nstamps * sizeof(bool));
	int		   *columns = palloc(t->nstamps * sizeof(int));
	bool		edited = true;
	EsyncRow	old = {0};

	if (!esync_enabled || t->nstamps == 0)
		return PointerGetDatum(tuple);
	if (update)
	{
		EsyncRow	new = esync_capture_row(rel, tuple);

		old = esync_capture_row(rel, trigdata->tg_trigtuple);
		edited = esync_record_differs(t, &old, &new);
	}
	for (int i = 0; update && edited && i < t->nstamps; i++)
		if (!old.isnull[t->stamps[i] - 1])
			now = Max(now, DatumGetTimestampTz(old.values[t->stamps[i] - 1]) + 1);
	for (int i = 0; i < t->nstamps; i++)
	{
		columns[i] = t->stamps[i];
		values[i] = edited ? TimestampTzGetDatum(now) : old.values[t->stamps[i] - 1];
		nulls[i] = edited ? false : old.isnull[t->stamps[i] - 1];
	}
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), t->nstamps,
													 columns, values, nulls));
}
