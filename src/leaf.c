/*
 * leaf.c: a leaf of the stream as a whole: its index, the last event of an
 * aggregate, and how much there is.
 *
 * With stream.c the only reader of esync.event.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "esync.h"

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
