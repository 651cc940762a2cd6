/*
 * rejected.c: what could not be applied is kept whole.
 *
 * One row for each content that one user's device sent: sent again, it counts
 * up.  It is closed when an event of its id is accepted at last.  The owner of
 * the table sees all; others what they sent themselves, as the same role and
 * user.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "rejected.h"

/* -------------------------------------------------------------- writing it */

static bool
same_bytes(const void *a, const void *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Finds the row of a content, whatever its status. */
static bool
find_content(EsyncSide *side, bytea *hash, Datum *values, bool *nulls)
{
	ScanKeyData key;
	bool		found;

	ScanKeyInit(&key, REJ_HASH, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(hash));
	esync_side_scan(side, "rejected_hash", SnapshotSelf, &key, 1);
	found = esync_side_next(side, values, nulls);
	esync_side_end(side);
	return found;
}

/* Sets a text column; NULL is SQL NULL. */
static void
set_text(Datum *values, bool *nulls, int column, const void *value)
{
	values[column - 1] = PointerGetDatum(value);
	nulls[column - 1] = value == NULL;
}

/* A new row, but for what the last try says. */
static void
fill_new(EsyncBatch *b, EsyncItem *item, Datum *values, bool *nulls)
{
	bool		off = b->has_clock && esync_clock_is_off(b->offset);

	memset(nulls, 0, sizeof(bool) * REJ_COUNT);
	values[REJ_ID - 1] = Int64GetDatum(esync_side_nextval("rejected_id_seq"));
	set_text(values, nulls, REJ_DEVICE_ID, b->device_id);
	set_text(values, nulls, REJ_USER_ID, b->user_id);
	set_text(values, nulls, REJ_DB_ROLE, b->db_role);
	set_text(values, nulls, REJ_HASH, item->hash);
	set_text(values, nulls, REJ_VIA, cstring_to_text(b->via));
	set_text(values, nulls, REJ_EVENT, esync_json_from_value(&item->event));
	set_text(values, nulls, REJ_STATUS, cstring_to_text("open"));
	values[REJ_CLIENT_EVENT_ID - 1] = UUIDPGetDatum(&item->id);
	nulls[REJ_CLIENT_EVENT_ID - 1] = !item->has_id;
	values[REJ_OFFSET_MS - 1] = Int64GetDatum(off ? b->offset / 1000 : 0);
	values[REJ_TRIES - 1] = Int32GetDatum(0);
}

/* Keeps an event that was rejected, or counts one more try of it. */
static void
keep(EsyncBatch *b, EsyncSide *side, EsyncItem *item)
{
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	bool		found = find_content(side, item->hash, values, nulls);
	bool		tracked = item->target && OidIsValid(item->target->root);
	TimestampTz now = GetCurrentTimestamp();

	if (!found)
	{
		fill_new(b, item, values, nulls);
		values[REJ_FIRST_SEEN - 1] = TimestampTzGetDatum(now);
	}
	else if (strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), "closed") == 0)
		set_text(values, nulls, REJ_STATUS, cstring_to_text("open"));
	item->rejected_id = DatumGetInt64(values[REJ_ID - 1]);
	values[REJ_TABLE_ID - 1] = Int32GetDatum(tracked ? item->target->table_id : 0);
	nulls[REJ_TABLE_ID - 1] = !tracked;
	set_text(values, nulls, REJ_AGGREGATE_ID, item->aggregate_id);
	set_text(values, nulls, REJ_CODE, cstring_to_text(item->code));
	set_text(values, nulls, REJ_MESSAGE, cstring_to_text(item->message));
	values[REJ_LAST_SEEN - 1] = TimestampTzGetDatum(now);
	values[REJ_TRIES - 1] = Int32GetDatum(DatumGetInt32(values[REJ_TRIES - 1]) + 1);
	if (found)
		esync_side_change(side, values, nulls);
	else
		esync_side_add(side, values, nulls);
}

/* Closes the row at hand, if it is open and of this batch's user and device. */
static void
close_row(EsyncBatch *b, EsyncSide *side, Datum *values, bool *nulls)
{
	bool		same_device = nulls[REJ_DEVICE_ID - 1] == (b->device_id == NULL) &&
		(b->device_id == NULL ||
		 same_bytes(DatumGetTextPP(values[REJ_DEVICE_ID - 1]), b->device_id));

	if (!same_device || !same_bytes(DatumGetTextPP(values[REJ_USER_ID - 1]), b->user_id) ||
		strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), "open") != 0)
		return;
	set_text(values, nulls, REJ_STATUS, cstring_to_text("closed"));
	values[REJ_LAST_SEEN - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	esync_side_change(side, values, nulls);
}

/* An event was accepted: what was rejected of it is settled. */
static void
close_item(EsyncBatch *b, EsyncSide *side, EsyncItem *item)
{
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	ScanKeyData key;

	if (!item->has_id)
	{
		if (find_content(side, item->hash, values, nulls))
			close_row(b, side, values, nulls);
		return;
	}
	ScanKeyInit(&key, REJ_CLIENT_EVENT_ID, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&item->id));
	esync_side_scan(side, "rejected_client_event_id", SnapshotSelf, &key, 1);
	while (esync_side_next(side, values, nulls))
		close_row(b, side, values, nulls);
}

/* Notes what was rejected of a batch, and closes what was accepted at last. */
void
esync_rejected_note(EsyncBatch *b)
{
	EsyncSide	side;

	esync_side_open(&side, "rejected", RowExclusiveLock);
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];

		if (item->twin || item->untold)
			continue;
		if (item->status == ESYNC_REJECTED)
			keep(b, &side, item);
		else if (!item->duplicate || b->id_optional)
			close_item(b, &side, item);
	}
	esync_side_close(&side);
}

/* ------------------------------------------------------------- who may see */

/* Did the caller send it, as the same role and user? */
static bool
is_own(const Datum *values)
{
	const EsyncContext *context = esync_context_get();

	return same_bytes(DatumGetTextPP(values[REJ_USER_ID - 1]), context->user_id) &&
		same_bytes(DatumGetTextPP(values[REJ_DB_ROLE - 1]), context->db_role);
}

/* The table that a rejected event was for; InvalidOid if there is none. */
static Oid
table_of(const Datum *values, const bool *nulls)
{
	Oid			relid;

	if (nulls[REJ_TABLE_ID - 1])
		return InvalidOid;
	relid = esync_tracked_relation(DatumGetInt32(values[REJ_TABLE_ID - 1]));
	return get_rel_name(relid) ? relid : InvalidOid;
}

/* May the caller see the row, and decide about it? */
static bool
is_visible(const Datum *values, const bool *nulls)
{
	Oid			relid = table_of(values, nulls);

	if (!OidIsValid(relid))
		return superuser() || is_own(values);
	if (object_ownercheck(RelationRelationId, relid, GetUserId()))
		return true;
	return is_own(values) &&
		(pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		 pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK);
}

/*
 * The row with this number, for the caller to write: an error if there is none
 * that it may see.
 */
void
esync_rejected_find(EsyncSide *side, int64 rejected_id, Datum *values, bool *nulls)
{
	ScanKeyData key;

	ScanKeyInit(&key, REJ_ID, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(rejected_id));
	esync_side_scan(side, "rejected_pkey", SnapshotSelf, &key, 1);
	if (!esync_side_next(side, values, nulls) || !is_visible(values, nulls))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no rejected event " INT64_FORMAT, rejected_id),
				 errhint("SELECT * FROM esync_rejected(status => 'all') lists those that you may see.")));
	esync_side_end(side);
}

/* -------------------------------------------------------------- SQL: rejected */

PG_FUNCTION_INFO_V1(esync_rejected);
PG_FUNCTION_INFO_V1(esync_open_rejected);
PG_FUNCTION_INFO_V1(esync_discard);

/* One row of esync_rejected. */
static void
put_row(ReturnSetInfo *result, const Datum *from, const bool *from_nulls)
{
	static const int columns[] = {REJ_ID, 0, REJ_AGGREGATE_ID, REJ_CLIENT_EVENT_ID, REJ_DEVICE_ID,
		REJ_USER_ID, REJ_CODE, REJ_MESSAGE, REJ_EVENT, REJ_FIRST_SEEN, REJ_LAST_SEEN, REJ_TRIES};
	Datum		values[lengthof(columns)];
	bool		nulls[lengthof(columns)];

	for (int i = 0; i < lengthof(columns); i++)
		if (columns[i] > 0)
		{
			values[i] = from[columns[i] - 1];
			nulls[i] = from_nulls[columns[i] - 1];
		}
	values[1] = ObjectIdGetDatum(table_of(from, from_nulls));
	nulls[1] = !OidIsValid(table_of(from, from_nulls));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* esync_rejected(tbl regclass, status text): NULL and 'all' are any. */
Datum
esync_rejected(PG_FUNCTION_ARGS)
{
	int32		table_id = PG_ARGISNULL(0) ? 0 : esync_tracked_need(PG_GETARG_OID(0))->table_id;
	char	   *status = PG_ARGISNULL(1) ? "all" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		all = strcmp(status, "all") == 0;
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	EsyncSide	side;

	if (!all && strcmp(status, "open") != 0 && strcmp(status, "closed") != 0 &&
		strcmp(status, "discarded") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid status \"%s\"", status),
				 errhint("The status is open, closed, discarded or all.")));
	InitMaterializedSRF(fcinfo, 0);
	esync_side_open(&side, "rejected", AccessShareLock);
	esync_side_scan(&side, "rejected_pkey", GetActiveSnapshot(), NULL, 0);
	while (esync_side_next(&side, values, nulls))
	{
		CHECK_FOR_INTERRUPTS();
		if ((table_id == 0 || (!nulls[REJ_TABLE_ID - 1] &&
							   DatumGetInt32(values[REJ_TABLE_ID - 1]) == table_id)) &&
			(all || strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), status) == 0) &&
			is_visible(values, nulls))
			put_row((ReturnSetInfo *) fcinfo->resultinfo, values, nulls);
		heap_freetuple(side.tuple);
	}
	esync_side_close(&side);
	return (Datum) 0;
}

/* esync.open_rejected(table_id integer), for esync_status */
Datum
esync_open_rejected(PG_FUNCTION_ARGS)
{
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	EsyncSide	side;
	int64		count = 0;

	esync_side_open(&side, "rejected", AccessShareLock);
	esync_side_scan(&side, "rejected_pkey", GetActiveSnapshot(), NULL, 0);
	while (esync_side_next(&side, values, nulls))
	{
		CHECK_FOR_INTERRUPTS();
		count += !nulls[REJ_TABLE_ID - 1] &&
			DatumGetInt32(values[REJ_TABLE_ID - 1]) == PG_GETARG_INT32(0) &&
			strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), "open") == 0 &&
			is_visible(values, nulls);
		heap_freetuple(side.tuple);
	}
	esync_side_close(&side);
	PG_RETURN_INT64(count);
}

/* esync_discard(rejected_id bigint) */
Datum
esync_discard(PG_FUNCTION_ARGS)
{
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	EsyncSide	side;

	PreventCommandIfReadOnly("esync_discard()");
	esync_side_open(&side, "rejected", RowExclusiveLock);
	esync_rejected_find(&side, PG_GETARG_INT64(0), values, nulls);
	if (strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), "closed") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rejected event " INT64_FORMAT " is closed", PG_GETARG_INT64(0)),
				 errhint("It was accepted when it was tried again.")));
	set_text(values, nulls, REJ_STATUS, cstring_to_text("discarded"));
	esync_side_change(&side, values, nulls);
	esync_side_close(&side);
	PG_RETURN_VOID();
}
