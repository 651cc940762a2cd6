/*
 * consumer.c: cursors that are kept here, under a name, for a listener.
 *
 * What esync_poll gives out is leased: nobody else is given anything until
 * esync_ack says that it was dealt with, or the lease is over; then it comes
 * again.  So each change arrives at least once, and in order.
 *
 * A consumer belongs to the role that made it, and reads with the rights of
 * whoever polls.  One at a time works on it: an advisory lock of esync's own,
 * held until the transaction ends.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changes.h"

/* columns of esync.consumer */
enum
{
	CON_CONSUMER = 1, CON_OWNER, CON_TABLES, CON_TENANT, CON_CURSOR, CON_PENDING,
	CON_LEASED_UNTIL, CON_RESET, CON_CREATED_AT, CON_POLLED_AT, CON_ACKED_AT,
	CON_COUNT = CON_ACKED_AT
};

/* the fourth field of the lock tag; see submission.c and decision.c */
#define LOCK_CLASS 6

/* a poll that finds nothing is written down no more often */
#define NOTE_EVERY		(10 * USECS_PER_SEC)

/* a consumer at work */
typedef struct Consumer
{
	text	   *name;
	bool		found;
	EsyncSide	side;
	Datum		values[CON_COUNT];
	bool		nulls[CON_COUNT];
} Consumer;

/* ------------------------------------------------------------------ its row */

static void
set_text(Consumer *c, int column, const text *value)
{
	c->values[column - 1] = PointerGetDatum(value);
	c->nulls[column - 1] = value == NULL;
}

static text *
get_text(const Consumer *c, int column)
{
	return c->nulls[column - 1] ? NULL : DatumGetTextPP(c->values[column - 1]);
}

static char *
get_string(const Consumer *c, int column)
{
	text	   *value = get_text(c, column);

	return value ? text_to_cstring(value) : NULL;
}

static void
set_time(Consumer *c, int column, TimestampTz at)
{
	c->values[column - 1] = TimestampTzGetDatum(at);
	c->nulls[column - 1] = at == 0;
}

static bool
same_text(const text *a, const text *b)
{
	return a != NULL && b != NULL && VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* The name that an argument gives a consumer. */
static text *
name_argument(FunctionCallInfo fcinfo)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);

	if (name == NULL || VARSIZE_ANY_EXHDR(name) == 0 || VARSIZE_ANY_EXHDR(name) > 1000)
		ereport(ERROR,
				(errcode(name ? ERRCODE_INVALID_PARAMETER_VALUE : ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the name of a consumer must have between 1 and 1000 bytes")));
	return name;
}

/* Has nobody else work on it until the end of the transaction; false: somebody does. */
static bool
lock_consumer(const text *name, bool wait)
{
	LOCKTAG		tag;
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), 0);

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Does the consumer belong to the caller? */
static bool
is_own(const Consumer *c)
{
	Oid			owner = get_role_oid(get_string(c, CON_OWNER), true);

	return superuser() || (OidIsValid(owner) && has_privs_of_role(GetUserId(), owner));
}

/*
 * Opens the consumer of that name, if there is one, as it is now; one of
 * somebody else is an error.
 */
static void
open_consumer(Consumer *c, text *name)
{
	ScanKeyData key;

	memset(c, 0, sizeof(Consumer));
	c->name = name;
	esync_side_open(&c->side, "consumer", RowExclusiveLock);
	ScanKeyInit(&key, CON_CONSUMER, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(name));
	esync_side_scan(&c->side, "consumer_pkey", SnapshotSelf, &key, 1);
	c->found = esync_side_next(&c->side, c->values, c->nulls);
	esync_side_end(&c->side);
	if (c->found && !is_own(c))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("consumer \"%s\" belongs to role \"%s\"", text_to_cstring(name),
						get_string(c, CON_OWNER))));
}

/* The same; 42704 where there is none. */
static void
open_known_consumer(Consumer *c, text *name)
{
	open_consumer(c, name);
	if (!c->found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" does not exist", text_to_cstring(name)),
				 errhint("esync_poll or esync_consumer_create makes one.")));
}

/* A consumer of the caller's, which has seen nothing. */
static void
make_new(Consumer *c)
{
	memset(c->nulls, true, sizeof(c->nulls));
	set_text(c, CON_CONSUMER, c->name);
	set_text(c, CON_OWNER, cstring_to_text(GetUserNameFromId(GetUserId(), false)));
	set_time(c, CON_CREATED_AT, GetCurrentTimestamp());
}

/* Writes it. */
static void
save(Consumer *c)
{
	if (c->found)
		esync_side_change(&c->side, c->values, c->nulls);
	else
		esync_side_add(&c->side, c->values, c->nulls);
}

/* ------------------------------------------------------------------- its tables */

/* The table_ids that it reads; *n -1: all. */
static int32 *
table_ids(const Consumer *c, int *n)
{
	Datum	   *ids;
	int32	   *result;

	*n = -1;
	if (c->nulls[CON_TABLES - 1])
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(c->values[CON_TABLES - 1]), INT4OID, sizeof(int32), true,
					  TYPALIGN_INT, &ids, NULL, n);
	result = palloc((*n + 1) * sizeof(int32));
	for (int i = 0; i < *n; i++)
		result[i] = DatumGetInt32(ids[i]);
	return result;
}

/* Its tables as an array of regclass; those that are gone are left out.  NULL: all. */
static ArrayType *
tables_of(const Consumer *c)
{
	int			n;
	int32	   *ids = table_ids(c, &n);
	Datum	   *relids;
	int			kept = 0;

	if (n < 0)
		return NULL;
	relids = palloc((n + 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		Oid			relid = esync_tracked_relation(ids[i]);

		if (OidIsValid(relid) && get_rel_name(relid))
			relids[kept++] = ObjectIdGetDatum(relid);
	}
	return construct_array(relids, kept, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT);
}

/* An array of regclass as one of table_ids; the caller has seen to it that they are tracked. */
static Datum
ids_of_tables(ArrayType *tables)
{
	Datum	   *relids;
	int			n;

	deconstruct_array(tables, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &relids, NULL, &n);
	for (int i = 0; i < n; i++)
		relids[i] = Int32GetDatum(esync_tracked_need(DatumGetObjectId(relids[i]))->table_id);
	return PointerGetDatum(construct_array(relids, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* ------------------------------------------------------------------------- SQL */

PG_FUNCTION_INFO_V1(esync_poll);
PG_FUNCTION_INFO_V1(esync_ack);
PG_FUNCTION_INFO_V1(esync_consumer_create);
PG_FUNCTION_INFO_V1(esync_consumer_drop);
PG_FUNCTION_INFO_V1(esync_consumers);

/* Raises where what was given out last still belongs to whoever polled. */
static void
check_lease(const Consumer *c)
{
	TimestampTz until = c->nulls[CON_LEASED_UNTIL - 1] ? 0 :
		DatumGetTimestampTz(c->values[CON_LEASED_UNTIL - 1]);

	if (until > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("changes of consumer \"%s\" are being worked on", text_to_cstring(c->name)),
				 errdetail("They are leased until %s.", timestamptz_to_str(until)),
				 errhint("Call esync_ack with the cursor that came with them, or wait until the lease is over.")));
}

/* Writes down what a poll came to. */
static void
note_poll(Consumer *c, const EsyncAnswer *a, bool due)
{
	TimestampTz now = GetCurrentTimestamp();

	if (a->reason == NULL && a->count == 0 && !due)
		return;
	set_time(c, CON_POLLED_AT, now);
	set_text(c, CON_RESET, a->reason ? cstring_to_text(a->reason) : NULL);
	set_text(c, CON_PENDING, a->count > 0 ? a->cursor : NULL);
	set_time(c, CON_LEASED_UNTIL,
			 a->count > 0 ? TimestampTzPlusMilliseconds(now, esync_consumer_lease) : 0);
	if (a->count == 0 && a->reason == NULL)
		set_text(c, CON_CURSOR, a->cursor);
	save(c);
}

/* esync_poll(consumer text, max_rows int) */
Datum
esync_poll(PG_FUNCTION_ARGS)
{
	text	   *name = name_argument(fcinfo);
	EsyncAsked	asked = {.max_rows = PG_ARGISNULL(1) ? ESYNC_PAGE : PG_GETARG_INT32(1)};
	EsyncAnswer answer;
	Consumer	c;
	bool		due;

	PreventCommandIfReadOnly("esync_poll()");
	if (!lock_consumer(name, false))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("consumer \"%s\" is in use by another transaction", text_to_cstring(name)),
				 errhint("Commit there before the changes are worked on, or give each worker a consumer of its own.")));
	open_consumer(&c, name);
	if (!c.found)
		make_new(&c);
	check_lease(&c);
	due = c.nulls[CON_CURSOR - 1] || c.nulls[CON_POLLED_AT - 1] ||
		DatumGetTimestampTz(c.values[CON_POLLED_AT - 1]) + NOTE_EVERY < GetCurrentTimestamp();
	asked.keep = !due;
	asked.ids = table_ids(&c, &asked.nids);
	asked.tables = tables_of(&c);
	asked.tenant = get_text(&c, CON_TENANT);
	esync_changes_read(get_string(&c, CON_CURSOR), &asked, &answer);
	note_poll(&c, &answer, due);
	esync_side_close(&c.side);
	PG_RETURN_JSONB_P(answer.document);
}

/* Was it acknowledged already? */
static bool
is_acked(const Consumer *c, const text *cursor)
{
	if (cursor == NULL)
		return c->nulls[CON_CURSOR - 1] && c->nulls[CON_RESET - 1] && c->nulls[CON_PENDING - 1] &&
			!c->nulls[CON_ACKED_AT - 1];
	return same_text(cursor, get_text(c, CON_CURSOR));
}

/* Takes the cursor that is acknowledged; 22023 for one that was not given out last. */
static void
take_ack(Consumer *c, const text *cursor)
{
	if (cursor == NULL && c->nulls[CON_RESET - 1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cursor must not be null"),
				 errhint("NULL acknowledges a reset, and the consumer was not reset.")));
	if (cursor != NULL && !same_text(cursor, get_text(c, CON_PENDING)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the cursor is not the one that consumer \"%s\" was given last",
						text_to_cstring(c->name)),
				 errhint("The lease may have been over, and the changes given out again: what esync_poll answered last counts.")));
	set_text(c, CON_CURSOR, cursor);
	set_text(c, CON_PENDING, NULL);
	set_text(c, CON_RESET, NULL);
	set_time(c, CON_LEASED_UNTIL, 0);
	set_time(c, CON_ACKED_AT, GetCurrentTimestamp());
	save(c);
}

/* esync_ack(consumer text, cursor text) */
Datum
esync_ack(PG_FUNCTION_ARGS)
{
	text	   *name = name_argument(fcinfo);
	text	   *cursor = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	Consumer	c;

	PreventCommandIfReadOnly("esync_ack()");
	(void) lock_consumer(name, true);
	open_known_consumer(&c, name);
	if (!is_acked(&c, cursor))
		take_ack(&c, cursor);
	esync_side_close(&c.side);
	PG_RETURN_VOID();
}

/* esync_consumer_create(consumer text, cursor text, tables regclass[], tenant text) */
Datum
esync_consumer_create(PG_FUNCTION_ARGS)
{
	text	   *name = name_argument(fcinfo);
	EsyncAsked	asked = {.max_rows = ESYNC_PAGE, .start = true};
	EsyncAnswer answer;
	Consumer	c;

	PreventCommandIfReadOnly("esync_consumer_create()");
	(void) lock_consumer(name, true);
	open_consumer(&c, name);
	if (c.found)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" already exists", text_to_cstring(name)),
				 errhint("esync_consumer_drop removes it.")));
	make_new(&c);
	asked.tables = PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2);
	asked.tenant = PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3);
	esync_changes_read(PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)), &asked,
					   &answer);
	if (answer.reason)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the cursor is of no use here: %s", answer.reason),
				 errhint("Begin with 'now', a timestamp, or NULL for the beginning.")));
	set_text(&c, CON_CURSOR, PG_ARGISNULL(1) ? NULL : answer.cursor);
	set_text(&c, CON_TENANT, asked.tenant);
	if (asked.tables)
	{
		c.values[CON_TABLES - 1] = ids_of_tables(asked.tables);
		c.nulls[CON_TABLES - 1] = false;
	}
	save(&c);
	esync_side_close(&c.side);
	PG_RETURN_VOID();
}

/* esync_consumer_drop(consumer text) */
Datum
esync_consumer_drop(PG_FUNCTION_ARGS)
{
	text	   *name = name_argument(fcinfo);
	Consumer	c;

	PreventCommandIfReadOnly("esync_consumer_drop()");
	(void) lock_consumer(name, true);
	open_known_consumer(&c, name);
	esync_side_remove(&c.side);
	esync_side_close(&c.side);
	PG_RETURN_VOID();
}

/* How far behind a consumer is, as the columns lag and behind of esync_consumers. */
static void
put_lag(const Consumer *c, Datum *values, bool *nulls)
{
	int			n;
	int32	   *ids = table_ids(c, &n);
	int64		events;
	TimestampTz since = 0;
	TimestampTz now;

	if (!c->nulls[CON_RESET - 1] ||
		!esync_changes_behind(get_string(c, CON_CURSOR), ids, n, &events, &since))
		return;
	nulls[0] = nulls[1] = false;
	now = GetCurrentTimestamp();
	if (events == 0 || since > now)
		since = now;
	values[0] = DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(now),
									TimestampTzGetDatum(since));
	values[1] = Int64GetDatum(events);
}

/* One row of esync_consumers. */
static void
put_consumer(ReturnSetInfo *result, const Consumer *c)
{
	static const int columns[] = {CON_CONSUMER, CON_OWNER, 0, CON_TENANT, CON_CURSOR, CON_PENDING,
		CON_LEASED_UNTIL, CON_RESET, 0, 0, CON_CREATED_AT, CON_POLLED_AT, CON_ACKED_AT};
	Datum		values[lengthof(columns)];
	bool		nulls[lengthof(columns)];
	ArrayType  *tables = tables_of(c);

	for (int i = 0; i < lengthof(columns); i++)
	{
		nulls[i] = columns[i] == 0 || c->nulls[columns[i] - 1];
		if (!nulls[i])
			values[i] = c->values[columns[i] - 1];
	}
	values[2] = PointerGetDatum(tables);
	nulls[2] = tables == NULL;
	put_lag(c, &values[8], &nulls[8]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* esync_consumers(): those of the caller; all to whoever may read esync.consumer */
Datum
esync_consumers(PG_FUNCTION_ARGS)
{
	bool		all = pg_class_aclcheck(esync_relation_oid("consumer"), GetUserId(),
										ACL_SELECT) == ACLCHECK_OK;
	Consumer	c = {0};

	InitMaterializedSRF(fcinfo, 0);
	esync_side_open(&c.side, "consumer", AccessShareLock);
	esync_side_scan(&c.side, "consumer_pkey", GetActiveSnapshot(), NULL, 0);
	while (esync_side_next(&c.side, c.values, c.nulls))
	{
		CHECK_FOR_INTERRUPTS();
		if (all || is_own(&c))
			put_consumer((ReturnSetInfo *) fcinfo->resultinfo, &c);
	}
	esync_side_close(&c.side);
	return (Datum) 0;
}
