/*
 * leaf.c: a leaf of the stream as a whole: its indexes, the last event of an
 * aggregate, how much there is, and its events in the order of their writing.
 *
 * With stream.c the only reader of esync.event.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "esync.h"

/* so many tuples read for nothing, and the BRIN is looked after */
#define MAX_VISITED		2000

/* ------------------------------------------------------------- the index */

/*
 * Does this index find an aggregate's events: valid, whole, unique on
 * (aggregate_id, version), ascending and the text bytewise, as streams are read?
 */
bool
esync_leaf_is_head_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	return form->indisvalid && form->indisready && form->indisunique &&
		form->indnkeyatts == 2 &&
		form->indkey.values[0] == ESYNC_ATTR_AGGREGATE_ID &&
		form->indkey.values[1] == ESYNC_ATTR_VERSION &&
		index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_indoption[0] == 0 && index->rd_indoption[1] == 0 &&
		index->rd_indcollation[0] == C_COLLATION_OID &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/* The index that finds an aggregate's events; InvalidOid where it is gone. */
Oid
esync_leaf_index(Relation leaf)
{
	List	   *indexes = RelationGetIndexList(leaf);
	Oid			result = InvalidOid;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (esync_leaf_is_head_index(index))
			result = lfirst_oid(cell);
		index_close(index, AccessShareLock);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	return result;
}

/* -------------------------------------------------------------- the head */

/*
 * Finds the last event of an aggregate: one descent of the kept scan to the
 * far end of its versions.  Sees what SnapshotSelf sees, own command included.
 * Leaves no buffer pinned: the scan outlives subtransactions.  Runs in the
 * scan's own memory context, for the btree remembers dead entries in memory
 * that it allocates when it meets the first.
 */
void
esync_leaf_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(leaf->head_scan));
	TupleTableSlot *slot = leaf->head_slot;

	if (leaf->head_key.sk_func.fn_oid == InvalidOid)
		ScanKeyEntryInitialize(&leaf->head_key, 0, 1, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ, (Datum) 0);
	leaf->head_key.sk_argument = PointerGetDatum(aggregate_id);
	index_rescan(leaf->head_scan, &leaf->head_key, 1, NULL, 0);
	head->found = index_getnext_slot(leaf->head_scan, BackwardScanDirection, slot);
	if (head->found)
	{
		Datum	   *values = slot->tts_values - 1;

		slot_getsomeattrs(slot, ESYNC_ATTR_ROW_TID);
		head->version = DatumGetInt64(values[ESYNC_ATTR_VERSION]);
		head->event_id = DatumGetInt64(values[ESYNC_ATTR_EVENT_ID]);
		head->commit = DatumGetTimestampTz(values[ESYNC_ATTR_COMMIT]);
		head->effective_high = DatumGetTimestampTz(values[ESYNC_ATTR_EFFECTIVE_HIGH]);
		head->row_xmin = slot->tts_isnull[ESYNC_ATTR_ROW_XMIN - 1] ? InvalidTransactionId :
			DatumGetTransactionId(values[ESYNC_ATTR_ROW_XMIN]);
		if (slot->tts_isnull[ESYNC_ATTR_ROW_TID - 1])
			ItemPointerSetInvalid(&head->row_tid);
		else
			head->row_tid = *(ItemPointer) DatumGetPointer(values[ESYNC_ATTR_ROW_TID]);
		head->flags = DatumGetInt32(values[ESYNC_ATTR_FLAGS]);
	}
	ExecClearTuple(slot);
	index_rescan(leaf->head_scan, NULL, leaf->head_scan->numberOfKeys, NULL, 0);
	MemoryContextSwitchTo(old);
}

/* --------------------------------------------------------------- counting */

/* Adds what the scan yields; aggregates come one after the other. */
static void
count_events(IndexScanDesc scan, TupleTableSlot *slot, EsyncCount *count)
{
	StringInfoData last;

	initStringInfo(&last);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		Datum	   *values = slot->tts_values - 1;
		text	   *id;
		TimestampTz commit;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, ESYNC_ATTR_AGGREGATE_ID);
		id = (text *) PG_DETOAST_DATUM_PACKED(values[ESYNC_ATTR_AGGREGATE_ID]);
		commit = DatumGetTimestampTz(values[ESYNC_ATTR_COMMIT]);
		if (count->events == 0 || last.len != VARSIZE_ANY_EXHDR(id) ||
			memcmp(last.data, VARDATA_ANY(id), last.len) != 0)
		{
			resetStringInfo(&last);
			appendBinaryStringInfo(&last, VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id));
			count->aggregates++;
		}
		count->events++;
		count->oldest = Min(count->oldest, commit);
		count->newest = Max(count->newest, commit);
		if ((Pointer) id != DatumGetPointer(values[ESYNC_ATTR_AGGREGATE_ID]))
			pfree(id);
	}
}

/*
 * Counts the events and aggregates of a leaf, and finds the first and last
 * commit time, by one pass through its index on (aggregate_id, version).
 */
void
esync_leaf_count(Oid leafid, EsyncCount *count)
{
	Relation	leaf = table_open(leafid, AccessShareLock);
	Oid			indexid = esync_leaf_index(leaf);
	TupleTableSlot *slot = table_slot_create(leaf, NULL);
	Relation	index;
	IndexScanDesc scan;

	memset(count, 0, sizeof(EsyncCount));
	count->oldest = DT_NOEND;
	count->newest = DT_NOBEGIN;
	if (!OidIsValid(indexid))
		elog(ERROR, "leaf %u of the event stream lacks its index", leafid);
	index = index_open(indexid, AccessShareLock);
	scan = index_beginscan(leaf, index, GetActiveSnapshot(), NULL, 0, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	count_events(scan, slot, count);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	ExecDropSingleTupleTableSlot(slot);
	table_close(leaf, AccessShareLock);
}

/* ----------------------------------------------- events as they were written */

/* Is it a whole btree on (xid, event_id)? */
static bool
is_xid_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	return form->indisvalid && form->indnkeyatts == 2 &&
		form->indkey.values[0] == ESYNC_ATTR_XID &&
		form->indkey.values[1] == ESYNC_ATTR_EVENT_ID &&
		index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_indoption[0] == 0 && index->rd_indoption[1] == 0 &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/* Is it a whole BRIN on event_id? */
static bool
is_brin_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	return form->indisvalid && form->indnkeyatts == 1 &&
		form->indkey.values[0] == ESYNC_ATTR_EVENT_ID &&
		index->rd_rel->relam == BRIN_AM_OID &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/*
 * Opens a leaf for reading by the order of its events; esync_leaf_close gives
 * it back, but for the lock.  Of the indexes either may be missing.
 */
void
esync_leaf_open(EsyncLeafReader *r, Oid leafid, Snapshot snapshot)
{
	ListCell   *lc;

	memset(r, 0, sizeof(EsyncLeafReader));
	r->snapshot = snapshot;
	r->rel = try_relation_open(leafid, AccessShareLock);
	if (r->rel == NULL)			/* while this waited for its lock */
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the history of a table was dropped while it was about to be read"),
				 errhint("Repeat the call.")));
	r->slot = table_slot_create(r->rel, NULL);
	foreach(lc, RelationGetIndexList(r->rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (r->xid_index == NULL && is_xid_index(index))
			r->xid_index = index;
		else if (r->brin == NULL && is_brin_index(index))
			r->brin = index;
		else if (r->head_index == NULL && esync_leaf_is_head_index(index))
			r->head_index = index;
		else
			index_close(index, AccessShareLock);
	}
}

/*
 * Opens a leaf for a look by transaction, without waiting for a lock; false:
 * somebody has it, or it is gone.  esync_leaf_close gives back the locks, too, so
 * that a look at many leaves does not fill the lock table.
 */
bool
esync_leaf_try_open(EsyncLeafReader *r, Oid leafid, Snapshot snapshot)
{
	ListCell   *lc;

	memset(r, 0, sizeof(EsyncLeafReader));
	if (!ConditionalLockRelationOid(leafid, AccessShareLock))
		return false;
	if ((r->rel = try_relation_open(leafid, NoLock)) == NULL)
	{
		UnlockRelationOid(leafid, AccessShareLock);
		return false;
	}
	r->snapshot = snapshot;
	r->unlock = AccessShareLock;
	r->slot = table_slot_create(r->rel, NULL);
	foreach(lc, RelationGetIndexList(r->rel))
	{
		Relation	index;

		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			continue;
		index = index_open(lfirst_oid(lc), NoLock);
		if (r->xid_index == NULL && is_xid_index(index))
			r->xid_index = index;
		else
			index_close(index, AccessShareLock);
	}
	return true;
}

/* Closes what was opened; nothing is done where it was not. */
void
esync_leaf_close(EsyncLeafReader *r)
{
	if (r->rel == NULL)
		return;
	ExecDropSingleTupleTableSlot(r->slot);
	if (r->xid_index)
		index_close(r->xid_index, r->unlock);
	if (r->brin)
		index_close(r->brin, r->unlock);
	if (r->head_index)
		index_close(r->head_index, r->unlock);
	table_close(r->rel, r->unlock);
	r->rel = NULL;
}

/* Calls back for the entries of the index on (xid, event_id) within keys; true: for all. */
static bool
scan_entries(EsyncLeafReader *r, ScanKey keys, int nkeys, ScanDirection direction,
			 EsyncPlaceCallback callback, void *arg)
{
	IndexScanDesc scan = index_beginscan(r->rel, r->xid_index, r->snapshot, NULL, nkeys, 0);
	TupleDesc	desc = RelationGetDescr(r->xid_index);
	ItemPointer tid;
	bool		more = true;

	scan->xs_want_itup = true;
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (more && (tid = index_getnext_tid(scan, direction)) != NULL)
	{
		EsyncPlaceOfEvent place = {.tid = *tid, .epoch = -1};
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		place.xid = U64FromFullTransactionId(DatumGetFullTransactionId(
											 index_getattr(scan->xs_itup, 1, desc, &isnull)));
		place.event_id = DatumGetInt64(index_getattr(scan->xs_itup, 2, desc, &isnull));
		more = callback(&place, arg);
	}
	index_endscan(scan);
	return more;
}

/*
 * What transactions from `from` on and before `below` wrote, in their order:
 * places alone, not all of which are visible.  The callback returns false to
 * see no more; so does this function then.  There must be an xid_index.
 */
bool
esync_leaf_probe(EsyncLeafReader *r, uint64 from, uint64 below, EsyncPlaceCallback callback,
				 void *arg)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_XID8GE,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(from)));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_XID8LT,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(below)));
	return scan_entries(r, keys, 2, ForwardScanDirection, callback, arg);
}

/* The places of one event; there is one that counts, if any. */
void
esync_leaf_find(EsyncLeafReader *r, uint64 xid, int64 event_id, EsyncPlaceCallback callback,
				void *arg)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_XID8EQ,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(xid)));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(event_id));
	(void) scan_entries(r, keys, 2, ForwardScanDirection, callback, arg);
}

/* Like esync_leaf_probe, of all transactions before `below`, the last one first. */
void
esync_leaf_probe_back(EsyncLeafReader *r, uint64 below, EsyncPlaceCallback callback, void *arg)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_XID8LT,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(below)));
	(void) scan_entries(r, &key, 1, BackwardScanDirection, callback, arg);
}

/* Calls back for each visible event within bounds of some blocks. */
static void
read_blocks(EsyncLeafReader *r, BlockNumber first, BlockNumber last, int64 after, int64 upto,
			EsyncPlaceCallback callback, void *arg)
{
	ItemPointerData low;
	ItemPointerData high;
	TableScanDesc scan;

	ItemPointerSet(&low, first, FirstOffsetNumber);
	ItemPointerSet(&high, last, MaxOffsetNumber);
	scan = table_beginscan_tidrange(r->rel, r->snapshot, &low, &high);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, r->slot))
	{
		Datum	   *values = r->slot->tts_values - 1;
		EsyncPlaceOfEvent place = {.tid = r->slot->tts_tid};

		CHECK_FOR_INTERRUPTS();
		r->visited++;
		slot_getsomeattrs(r->slot, ESYNC_ATTR_EVENT_ID);
		place.event_id = DatumGetInt64(values[ESYNC_ATTR_EVENT_ID]);
		if (place.event_id <= after || place.event_id > upto)
			continue;
		r->matched++;
		slot_getsomeattrs(r->slot, ESYNC_ATTR_EPOCH);
		place.xid = U64FromFullTransactionId(DatumGetFullTransactionId(values[ESYNC_ATTR_XID]));
		place.epoch = DatumGetInt32(values[ESYNC_ATTR_EPOCH]);
		place.commit = DatumGetTimestampTz(values[ESYNC_ATTR_COMMIT]);
		(void) callback(&place, arg);
	}
	ExecClearTuple(r->slot);
	table_endscan(scan);
}

/* The blocks that may hold events within bounds, by the BRIN. */
static TIDBitmap *
find_blocks(EsyncLeafReader *r, int64 after, int64 upto)
{
	TIDBitmap  *blocks = tbm_create(work_mem * 1024L, NULL);
	IndexScanDesc scan = index_beginscan_bitmap(r->brin, r->snapshot, NULL, 2);
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTGreaterStrategyNumber, INT8OID, InvalidOid,
						   F_INT8GT, Int64GetDatum(after));
	ScanKeyEntryInitialize(&keys[1], 0, 1, BTLessEqualStrategyNumber, INT8OID, InvalidOid,
						   F_INT8LE, Int64GetDatum(upto));
	index_rescan(scan, keys, 2, NULL, 0);
	(void) index_getbitmap(scan, blocks);
	index_endscan(scan);
	return blocks;
}

/*
 * All visible events with an event_id beyond `after` and up to `upto`, in no
 * order.  What the callback returns does not matter.  Without a BRIN the whole
 * leaf is read.
 */
void
esync_leaf_window(EsyncLeafReader *r, int64 after, int64 upto, EsyncPlaceCallback callback,
				  void *arg)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(r->rel);
	BlockNumber first = InvalidBlockNumber;
	BlockNumber last = InvalidBlockNumber;
	BlockNumber block;
	EsyncBlocks *iterator;
	TIDBitmap  *blocks;

	if (nblocks == 0)
		return;
	if (r->brin == NULL)
	{
		read_blocks(r, 0, nblocks - 1, after, upto, callback, arg);
		return;
	}
	blocks = find_blocks(r, after, upto);
	iterator = esync_blocks_begin(blocks);
	while (esync_blocks_next(iterator, &block))
	{
		if (block >= nblocks)
			continue;
		if (first != InvalidBlockNumber && block == last + 1)
		{
			last = block;
			continue;
		}
		if (first != InvalidBlockNumber)
			read_blocks(r, first, last, after, upto, callback, arg);
		first = last = block;
	}
	if (first != InvalidBlockNumber)
		read_blocks(r, first, last, after, upto, callback, arg);
	esync_blocks_end(iterator);
	tbm_free(blocks);
}

/*
 * Has the BRIN look at what was written since it was looked after last, or
 * every window would read all of that.  Left to autovacuum where it can not be
 * done at once, and where this is a standby.
 */
void
esync_leaf_summarize(EsyncLeafReader *r)
{
	Oid			leaf = RelationGetRelid(r->rel);
	Oid			user;
	int			context;

	if (r->brin == NULL || RecoveryInProgress() || IsInParallelMode() ||
		!ConditionalLockRelationOid(leaf, ShareUpdateExclusiveLock))
		return;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(esync_rights_extension_owner(),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	(void) DirectFunctionCall1(brin_summarize_new_values,
							   ObjectIdGetDatum(RelationGetRelid(r->brin)));
	SetUserIdAndSecContext(user, context);
	UnlockRelationOid(leaf, ShareUpdateExclusiveLock);
}

/* The tuple to which an index entry leads, where somebody updated the event in place. */
static bool
fetch_by_entry(EsyncLeafReader *r, ItemPointer tid)
{
	IndexFetchTableData *scan = table_index_fetch_begin(r->rel);
	bool		again = false;
	bool		found = table_index_fetch_tuple(scan, tid, r->snapshot, r->slot, &again, NULL);

	table_index_fetch_end(scan);
	return found;
}

/*
 * The event at this place, of a tuple or an entry of an index; false where it is
 * not visible.
 */
bool
esync_leaf_fetch(EsyncLeafReader *r, ItemPointer tid, EsyncEvent *event)
{
	if (!table_tuple_fetch_row_version(r->rel, tid, r->snapshot, r->slot) &&
		!fetch_by_entry(r, tid))
		return false;
	slot_getallattrs(r->slot);
	esync_stream_event(r->slot, event);
	ExecClearTuple(r->slot);
	return true;
}

/*
 * The tenant of a row before that version: of the last event that has one, or
 * that left a row without one.  NULL: none.  row, if not NULL: whether the very
 * version before left a row.
 */
text *
esync_leaf_tenant_before(EsyncLeafReader *r, text *aggregate_id, int64 version, bool *row)
{
	bool		first = true;
	text	   *tenant = NULL;
	bool		found = false;
	IndexScanDesc scan;
	ScanKeyData keys[2];

	if (row)
		*row = false;
	if (r->head_index == NULL)
		return NULL;
	scan = index_beginscan(r->rel, r->head_index, r->snapshot, NULL, 2, 0);
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(aggregate_id));
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(version));
	index_rescan(scan, keys, 2, NULL, 0);
	while (!found && index_getnext_slot(scan, BackwardScanDirection, r->slot))
	{
		Datum	   *values = r->slot->tts_values - 1;
		bool	   *isnull = r->slot->tts_isnull - 1;
		bool		left_row;

		slot_getsomeattrs(r->slot, ESYNC_ATTR_TENANT);
		left_row = DatumGetTransactionId(values[ESYNC_ATTR_ROW_XMIN]) != InvalidTransactionId;
		if (first && row)
			*row = left_row;
		first = false;
		found = !isnull[ESYNC_ATTR_TENANT] || left_row;
		if (!isnull[ESYNC_ATTR_TENANT])
			tenant = DatumGetTextPCopy(values[ESYNC_ATTR_TENANT]);
	}
	ExecClearTuple(r->slot);
	index_endscan(scan);
	return tenant;
}

/* Callback: keeps where an event is. */
static bool
keep_place(const EsyncPlaceOfEvent *place, void *arg)
{
	*(ItemPointer) arg = place->tid;
	return true;
}

/*
 * The row to which an event of a tracked table belongs; false: there is no such
 * event.  What of it the caller may be told is the caller's business to find
 * out.  A leaf that the BRIN did not look at for long is summarized.
 */
bool
esync_leaf_find_event(int64 event_id, int32 *table_id, text **aggregate_id)
{
	bool		found = false;
	ListCell   *lc;

	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, event_id > 0 ? esync_tracked_tables() : NIL)
	{
		EsyncTracked *t = esync_tracked_get(lfirst_oid(lc));
		EsyncLeafReader r;
		ItemPointerData tid;
		EsyncEvent	e;

		if (t == NULL || !t->is_root)
			continue;
		ItemPointerSetInvalid(&tid);
		esync_leaf_open(&r, t->leaf, GetActiveSnapshot());
		esync_leaf_window(&r, event_id - 1, event_id, keep_place, &tid);
		found = ItemPointerIsValid(&tid) && esync_leaf_fetch(&r, &tid, &e);
		if (r.visited > MAX_VISITED)
			esync_leaf_summarize(&r);
		esync_leaf_close(&r);
		if (!found)
			continue;
		*table_id = e.table_id;
		*aggregate_id = e.aggregate_id;
		break;
	}
	PopActiveSnapshot();
	return found;
}
