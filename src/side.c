/*
 * side.c: the only writer of esync's side tables, and their reader by index.
 *
 * Side tables are the relations of schema esync beside the stream: the ledger,
 * what was submitted, names of columns.  All here is the extension's own act:
 * no privilege is asked, no SPI and no planner are at work.
 *
 * Whoever decides by what is found here reads with SnapshotSelf: all that was
 * committed, and the transaction's own work, at every isolation level.  It
 * holds a lock by which nobody else changes these rows (that of the user's
 * row, an advisory one); of two that change one row all the same the second
 * gets 40001.  Readers for users give the active snapshot.
 *
 * Memory: rows are copied into the context current at esync_side_next.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "utils/snapmgr.h"

#include "esync.h"

/* Opens a side table; RowExclusiveLock to write, which is kept until the transaction ends. */
void
esync_side_open(EsyncSide *side, const char *relname, LOCKMODE lockmode)
{
	memset(side, 0, sizeof(EsyncSide));
	side->rel = table_open(esync_relation_oid(relname), lockmode);
	side->lockmode = lockmode;
}

/*
 * Begins to look for rows: keys are made by ScanKeyInit with attribute numbers
 * of the table, of leading columns of the index, in its order, and are
 * used up.  Rows come in the order of the index.  A scan begun before is ended.
 */
void
esync_side_scan(EsyncSide *side, const char *indexname, Snapshot snapshot, ScanKey keys, int nkeys)
{
	esync_side_end(side);
	side->index = index_open(esync_relation_oid(indexname), AccessShareLock);
	side->scan_cxt = CurrentMemoryContext;
	side->scan = systable_beginscan_ordered(side->rel, side->index, snapshot, nkeys, keys);
}

/* The next row, of which values and nulls (one a column) are filled; false: none is left. */
bool
esync_side_next(EsyncSide *side, Datum *values, bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(side->scan_cxt);
	HeapTuple	tuple = systable_getnext_ordered(side->scan, ForwardScanDirection);

	/* the scan remembers dead entries in memory that it allocates when it meets the first */
	MemoryContextSwitchTo(old);
	if (!HeapTupleIsValid(tuple))
	{
		esync_side_end(side);
		side->tuple = NULL;
		return false;
	}
	side->tuple = heap_copytuple(tuple);
	heap_deform_tuple(side->tuple, RelationGetDescr(side->rel), values, nulls);
	return true;
}

/* Ends a scan before its end; the row it gave last can be written still. */
void
esync_side_end(EsyncSide *side)
{
	if (side->scan == NULL)
		return;
	systable_endscan_ordered(side->scan);
	index_close(side->index, AccessShareLock);
	side->scan = NULL;
}

/* Prepares for writing, once. */
static void
writer_begin(EsyncSide *side)
{
	if (side->estate != NULL)
		return;
	side->estate = CreateExecutorState();
	side->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(side->rri, side->rel, 0, NULL, 0);
	ExecOpenIndices(side->rri, false);
	side->slot = MakeSingleTupleTableSlot(RelationGetDescr(side->rel), &TTSOpsVirtual);
	side->found = table_slot_create(side->rel, NULL);
}

/*
 * Prepares for writing now.  What is opened belongs to the resource owner at
 * hand: whoever writes from several subtransactions calls this before the first.
 */
void
esync_side_prepare(EsyncSide *side)
{
	writer_begin(side);
}

/* Lays a row out as the writer takes it. */
static void
fill_slot(EsyncSide *side, const Datum *values, const bool *nulls)
{
	int			natts = RelationGetDescr(side->rel)->natts;

	ExecClearTuple(side->slot);
	memcpy(side->slot->tts_values, values, natts * sizeof(Datum));
	memcpy(side->slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(side->slot);
}

/*
 * Locks the row that the scan gave last, as the writer takes it.  One that
 * this very command wrote could not be written again, so another one begins.
 */
static TupleTableSlot *
found_slot(EsyncSide *side, LockTupleMode mode)
{
	HeapTupleHeader header = side->tuple->t_data;
	TM_FailureData failure;
	TM_Result	result;

	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)) &&
		HeapTupleHeaderGetCmin(header) >= GetCurrentCommandId(false))
		CommandCounterIncrement();
	result = table_tuple_lock(side->rel, &side->tuple->t_self, SnapshotSelf, side->found,
							  GetCurrentCommandId(false), mode, LockWaitBlock, 0, &failure);
	if (result != TM_Ok)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to \"esync.%s\" due to concurrent change",
						RelationGetRelationName(side->rel)),
				 errhint("The transaction might succeed if retried."),
				 err_generic_string(PG_DIAG_SCHEMA_NAME, "esync")));	/* submit tells it by that */
	return side->found;
}

/* Adds a row, with its index entries. */
void
esync_side_add(EsyncSide *side, const Datum *values, const bool *nulls)
{
	writer_begin(side);
	fill_slot(side, values, nulls);
	ExecSimpleRelationInsert(side->rri, side->estate, side->slot);
	ResetPerTupleExprContext(side->estate);
}

/* Writes a row in place of the one that the scan gave last; values may be those it gave. */
void
esync_side_change(EsyncSide *side, const Datum *values, const bool *nulls)
{
	EPQState	epq;

	writer_begin(side);
	EvalPlanQualInit(&epq, side->estate, NULL, NIL, -1, NIL);
	fill_slot(side, values, nulls);
	ExecSimpleRelationUpdate(side->rri, side->estate, &epq,
							 found_slot(side, LockTupleNoKeyExclusive), side->slot);
	ExecClearTuple(side->found);
	EvalPlanQualEnd(&epq);
	ResetPerTupleExprContext(side->estate);
}

/* Removes the row that the scan gave last. */
void
esync_side_remove(EsyncSide *side)
{
	EPQState	epq;

	writer_begin(side);
	EvalPlanQualInit(&epq, side->estate, NULL, NIL, -1, NIL);
	ExecSimpleRelationDelete(side->rri, side->estate, &epq,
							 found_slot(side, LockTupleExclusive));
	ExecClearTuple(side->found);
	EvalPlanQualEnd(&epq);
	ResetPerTupleExprContext(side->estate);
}

/* Closes the table, with whatever was begun. */
void
esync_side_close(EsyncSide *side)
{
	esync_side_end(side);
	if (side->estate != NULL)
	{
		ExecCloseIndices(side->rri);
		ExecDropSingleTupleTableSlot(side->slot);
		ExecDropSingleTupleTableSlot(side->found);
		FreeExecutorState(side->estate);
	}
	table_close(side->rel, side->lockmode == AccessShareLock ? AccessShareLock : NoLock);
}

/* Adds one row to a side table. */
void
esync_side_insert(const char *relname, Datum *values, bool *nulls)
{
	EsyncSide	side;

	esync_side_open(&side, relname, RowExclusiveLock);
	esync_side_add(&side, values, nulls);
	esync_side_close(&side);
}

/* The next number of one of esync's sequences; no privilege is asked. */
int64
esync_side_nextval(const char *sequence)
{
	return nextval_internal(esync_relation_oid(sequence), false);
}
