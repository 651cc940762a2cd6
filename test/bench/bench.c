/*
 * bench.c: what the bench needs in C, and nothing of esync.
 *
 * bench_cpu() reads this backend's own CPU time.  bench_noop() is the trigger
 * above which every figure is counted, bench_pass() the same BEFORE.  bench_floor() is the storage floor: it
 * writes a ready-made event per row into a table made LIKE an event leaf, with
 * its indexes, so that what it costs is what storing such rows costs at least.
 *
 * The floor keeps its handles for one statement.  They hang on the trigger's
 * FmgrInfo, which the executor keeps in the memory of the query, and are given
 * back when that memory goes.
 */
#include "postgres.h"

#include <time.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#define insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#else
#define insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_cpu);
PG_FUNCTION_INFO_V1(bench_noop);
PG_FUNCTION_INFO_V1(bench_pass);
PG_FUNCTION_INFO_V1(bench_floor);

#define UUID_TEXT_LEN	36

/* the ready-made event of one trigger and operation; lives as long as the backend */
typedef struct FloorTemplate
{
	Oid			trigger;
	int64		operation;
	Oid			log;
	int			natts;
	int			event_id;		/* places of the columns that differ per row */
	int			xid;
	int			aggregate_id;
	int			version;
	Datum	   *values;
	bool	   *isnull;
	struct FloorTemplate *next;
} FloorTemplate;

/* the open log of one statement */
typedef struct FloorState
{
	FloorTemplate *template;
	Relation	rel;
	ResultRelInfo *rri;
	EState	   *estate;
	TupleTableSlot *slot;
	int64		next;			/* event_id and version of the next event */
	char		key[VARHDRSZ + UUID_TEXT_LEN];	/* text of the row's key */
	MemoryContextCallback callback;
} FloorState;

static FloorTemplate *templates = NULL;

/* CPU time that this backend has used so far, in nanoseconds */
Datum
bench_cpu(PG_FUNCTION_ARGS)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) != 0)
		elog(ERROR, "could not read the CPU clock: %m");
	PG_RETURN_INT64((int64) ts.tv_sec * INT64CONST(1000000000) + ts.tv_nsec);
}

/* a row trigger that does nothing: what calling any trigger costs */
Datum
bench_noop(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "bench_noop: not called by the trigger manager");
	return PointerGetDatum(NULL);
}

/* a BEFORE UPDATE row trigger that does nothing: what calling one costs, with the lock of the row */
Datum
bench_pass(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "bench_pass: not called by the trigger manager");
	return PointerGetDatum(((TriggerData *) fcinfo->context)->tg_newtuple);
}

/*
 * Gives the handles back when the query's memory goes.  After an error the
 * resource owner has done so already.  The EState's memory is a child of the
 * query's and is gone by now.
 */
static void
floor_close(void *arg)
{
	FloorState *state = (FloorState *) arg;

	if (!IsTransactionState())
		return;
	ExecCloseIndices(state->rri);
	ExecDropSingleTupleTableSlot(state->slot);
	table_close(state->rel, NoLock);
}

/* the place of a column in the log, which must be there */
static int
floor_column(TupleDesc desc, const char *name)
{
	int			attnum = SPI_fnumber(desc, name);

	if (attnum <= 0)
		elog(ERROR, "bench_floor: the log has no column %s", name);
	return attnum - 1;
}

/* 1, 2, 3 for INSERT, UPDATE, DELETE */
static int64
floor_operation(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return 1;
	return TRIGGER_FIRED_BY_UPDATE(event) ? 2 : 3;
}

/*
 * Reads the ready-made event of an operation from the table of templates: it
 * has the shape of the log and one row per operation, numbered in version.
 */
static void
floor_read_template(FloorTemplate *template, Relation rel)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	tuple;
	bool		found = false;

	template->natts = desc->natts;
	template->values = palloc(desc->natts * sizeof(Datum));
	template->isnull = palloc(desc->natts * sizeof(bool));
	template->event_id = floor_column(desc, "event_id");
	template->xid = floor_column(desc, "xid");
	template->aggregate_id = floor_column(desc, "aggregate_id");
	template->version = floor_column(desc, "version");
	while (!found && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		heap_deform_tuple(heap_copytuple(tuple), desc, template->values, template->isnull);
		found = DatumGetInt64(template->values[template->version]) == template->operation;
	}
	table_endscan(scan);
	if (!found)
		elog(ERROR, "bench_floor: no template for operation %d", (int) template->operation);
}

/*
 * The ready-made event for this trigger and operation, read once a backend.
 * Trigger arguments are the log and the table of templates.
 */
static FloorTemplate *
floor_template(TriggerData *trigdata)
{
	Trigger    *trigger = trigdata->tg_trigger;
	int64		operation = floor_operation(trigdata->tg_event);
	FloorTemplate *t;
	MemoryContext old;
	Relation	rel;
	List	   *name;

	for (t = templates; t != NULL; t = t->next)
		if (t->trigger == trigger->tgoid && t->operation == operation)
			return t;
	if (trigger->tgnargs != 2)
		elog(ERROR, "bench_floor: log and template expected");
	old = MemoryContextSwitchTo(TopMemoryContext);
	t = palloc0(sizeof(FloorTemplate));
	t->trigger = trigger->tgoid;
	t->operation = operation;
	name = list_make1(makeString(trigger->tgargs[0]));
	t->log = RangeVarGetRelid(makeRangeVarFromNameList(name), NoLock, false);
	name = list_make1(makeString(trigger->tgargs[1]));
	rel = table_openrv(makeRangeVarFromNameList(name), AccessShareLock);
	floor_read_template(t, rel);
	table_close(rel, AccessShareLock);
	t->next = templates;
	templates = t;
	MemoryContextSwitchTo(old);
	return t;
}

/*
 * Opens the log for the rest of the statement.  Called with the memory of the
 * query as the current context.
 */
static FloorState *
floor_open(TriggerData *trigdata)
{
	static int64 next = 1000000;	/* above all events of earlier statements */
	FloorState *state = palloc0(sizeof(FloorState));

	state->template = floor_template(trigdata);
	state->rel = table_open(state->template->log, RowExclusiveLock);
	state->estate = CreateExecutorState();
	state->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(state->rri, state->rel, 0, NULL, 0);
	ExecOpenIndices(state->rri, false);
	state->slot = table_slot_create(state->rel, NULL);
	state->next = next;
	next += INT64CONST(1000000000);
	SET_VARSIZE(state->key, sizeof(state->key));
	state->callback.func = floor_close;
	state->callback.arg = state;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &state->callback);
	return state;
}

/* the key of the row, its first column, as text: the only part that differs */
static Datum
floor_key(FloorState *state, TriggerData *trigdata)
{
	static const char digits[] = "0123456789abcdef";
	TupleTableSlot *row = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
		trigdata->tg_newslot : trigdata->tg_trigslot;
	char	   *p = VARDATA(state->key);
	bool		isnull;
	pg_uuid_t  *uuid = DatumGetUUIDP(slot_getattr(row, 1, &isnull));
	int			i;

	for (i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid->data[i] >> 4];
		*p++ = digits[uuid->data[i] & 0x0F];
	}
	return PointerGetDatum(state->key);
}

/*
 * The storage floor: one ready-made event into heap and indexes per row.  The
 * counter stands for version too, so that a row may be updated many times.
 */
Datum
bench_floor(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	FloorState *state = fcinfo->flinfo->fn_extra;
	FloorTemplate *template;
	TupleTableSlot *slot;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "bench_floor: not called by the trigger manager");
	if (state == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		state = floor_open(trigdata);
		fcinfo->flinfo->fn_extra = state;
		MemoryContextSwitchTo(old);
	}

	template = state->template;
	slot = state->slot;
	ExecClearTuple(slot);
	memcpy(slot->tts_values, template->values, template->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, template->isnull, template->natts * sizeof(bool));
	slot->tts_values[template->event_id] = Int64GetDatum(state->next);
	slot->tts_values[template->version] = Int64GetDatum(state->next++);
	slot->tts_values[template->xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	slot->tts_values[template->aggregate_id] = floor_key(state, trigdata);
	ExecStoreVirtualTuple(slot);
	table_tuple_insert(state->rel, slot, GetCurrentCommandId(true), 0, NULL);
	insert_index_tuples(state->rri, slot, state->estate);
	ResetPerTupleExprContext(state->estate);
	return PointerGetDatum(NULL);
}
