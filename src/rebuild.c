/*
 * rebuild.c: esync_rebuild: rows that differ from their stream are put right.
 *
 * Which these are is said by esync_verify.  The stream is right: rows become
 * what their events say, and no event tells of it, since to the stream nothing
 * happened.  The table is right: what rows hold is recorded as Baseline events,
 * as the next change of each would do.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "esync.h"

PG_FUNCTION_INFO_V1(esync_rebuild);

/* Does the source say that the stream is right?  22023 for what is no source. */
static bool
stream_is_right(FunctionCallInfo fcinfo)
{
	char	   *source = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));

	if (source && strcmp(source, "stream") == 0)
		return true;
	if (source && strcmp(source, "table") == 0)
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid source: %s", source ? quote_literal_cstr(source) : "NULL"),
			 errhint("Which side is right: 'stream' or 'table'.")));
}

/* The rows that differ from their stream, as a list of text. */
static List *
differing(FunctionCallInfo fcinfo)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[2] = {REGCLASSOID, TEXTOID};
	Datum		values[2] = {fcinfo->args[0].value, fcinfo->args[1].value};
	char		nulls[3] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', '\0'};
	List	   *ids = NIL;
	const char *schema =
		quote_identifier(get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid)));

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf("SELECT DISTINCT aggregate_id FROM %s.esync_verify($1, $2)"
									   " WHERE problem OPERATOR(pg_catalog.=) ANY"
									   " ('{row differs,row missing,row not deleted}'::pg_catalog.text[])"
									   " ORDER BY aggregate_id", schema),
							  2, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "calling esync_verify failed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		MemoryContext old = MemoryContextSwitchTo(cxt);

		ids = lappend(ids, DatumGetTextPCopy(SPI_getbinval(SPI_tuptable->vals[i],
														   SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return ids;
}

/* Callback: the version of the last event, which comes first. */
static bool
take_version(EsyncEvent *event, int index, void *arg)
{
	*(int64 *) arg = event->version;
	return false;
}

static int64
head_of(EsyncTracked *t, text *aggregate_id)
{
	int64		version = 0;

	esync_stream_back(t, aggregate_id, NULL, SnapshotSelf, false, take_version, &version);
	return version;
}

/* Records what the table holds; true if that was something else than the stream said. */
static bool
record_row(EsyncTracked *t, text *aggregate_id, Datum *key)
{
	int64		before = head_of(t, aggregate_id);

	(void) esync_apply_meet(t, aggregate_id, key);
	return head_of(t, aggregate_id) > before;
}

/* what is put right */
typedef struct Rebuild
{
	Oid			relid;
	bool		stream;			/* which is right; else the table */
	MemoryContext cxt;			/* of one row at a time */
	int64		count;			/* rows put right */
} Rebuild;

/* Puts one row right. */
static void
rebuild_row(Rebuild *r, text *aggregate_id)
{
	MemoryContext old = MemoryContextSwitchTo(r->cxt);
	EsyncTracked *t = esync_tracked_need(r->relid);
	Datum	   *key = palloc(t->nkeys * sizeof(Datum));

	CHECK_FOR_INTERRUPTS();
	if (esync_key_values(t, aggregate_id, key) &&
		(r->stream ? esync_apply_rebuild(t, aggregate_id, key) : record_row(t, aggregate_id, key)))
		r->count++;
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextReset(r->cxt);
}

/* some rows to be tried */
typedef struct Attempt
{
	Rebuild    *r;
	const List *ids;
} Attempt;

static void
rebuild_attempt(void *arg)
{
	Attempt    *a = arg;
	ListCell   *lc;

	foreach(lc, a->ids)
		rebuild_row(a->r, lfirst(lc));
}

/*
 * Puts rows right in a subtransaction, all or none.  Gives back the error of a
 * constraint that refused, in the current context; raises any other.
 */
static ErrorData *
try_rows(Rebuild *r, const List *ids)
{
	Attempt		attempt = {r, ids};
	int64		before = r->count;
	ErrorData  *error = esync_guard(rebuild_attempt, &attempt);

	if (error)
		r->count = before;
	if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		ReThrowError(error);
	return error;
}

/* The error of rows of which none can go first: that of the first, with all of them named. */
static void
raise_refused(const Rebuild *r, const List *ids, ErrorData *error)
{
	StringInfoData names;
	int			n = 0;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, ids)
	{
		if (++n > 10)
			break;
		appendStringInfo(&names, "%s\"%s\"", n > 1 ? ", " : "", text_to_cstring(lfirst(lc)));
	}
	if (list_length(ids) > 10)
		appendStringInfo(&names, " and %d more", list_length(ids) - 10);
	error->context = psprintf("rebuilding table \"%s\", rows %s",
							  esync_tracked_need(r->relid)->table_name, names.data);
	if (error->hint == NULL)
		error->hint = pstrdup("Nothing was put right. Mend what the constraint stands on first; where rows wait for each other,"
							  " it must be deferrable, and deferred by SET CONSTRAINTS; or let the table be right: source => 'table'.");
	ReThrowError(error);
}

/*
 * Puts rows right where constraints refuse some as long as others are not:
 * rows that point to others of the table, values that wait to be free.  Goes
 * over those that are left until none moves.
 */
static void
rebuild_in_turn(Rebuild *r, List *ids)
{
	while (ids != NIL)
	{
		List	   *refused = NIL;
		ErrorData  *first = NULL;
		ListCell   *lc;

		foreach(lc, ids)
		{
			ErrorData  *error = try_rows(r, list_make1(lfirst(lc)));

			if (error == NULL)
				continue;
			refused = lappend(refused, lfirst(lc));
			if (first == NULL)
				first = error;
			else
				FreeErrorData(error);
		}
		if (list_length(refused) == list_length(ids))
			raise_refused(r, refused, first);
		ids = refused;
	}
}

/* esync_rebuild(tbl regclass, key text, source text) */
Datum
esync_rebuild(PG_FUNCTION_ARGS)
{
	Rebuild		r = {0};
	List	   *ids;

	PreventCommandIfReadOnly("esync_rebuild()");
	esync_rights_need_table(fcinfo);
	r.relid = PG_GETARG_OID(0);
	esync_rights_owner(r.relid);
	r.stream = stream_is_right(fcinfo);
	esync_tracked_check(esync_tracked_need(r.relid));
	ids = differing(fcinfo);
	r.cxt = AllocSetContextCreate(CurrentMemoryContext, "esync rebuild", ALLOCSET_DEFAULT_SIZES);
	if (try_rows(&r, ids) != NULL)
		rebuild_in_turn(&r, ids);
	PG_RETURN_INT64(r.count);
}
