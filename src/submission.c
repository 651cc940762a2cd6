/*
 * submission.c: what was submitted before.
 *
 * esync.submission has one row for each id that was accepted, with a hash of
 * what was sent and the answer it got.  It is asked before anything else, so
 * that an answer that was lost can be had again.  One device's batches wait for
 * each other; ids of two devices that are alike meet at the primary key.
 */
#include "postgres.h"

#include "access/genam.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "submit.h"

/* columns of esync.submission */
enum
{
	SUB_CLIENT_EVENT_ID = 1, SUB_DEVICE_ID, SUB_USER_ID, SUB_HASH, SUB_TABLE_ID, SUB_RESULT, SUB_AT,
	SUB_COUNT = SUB_AT
};

/* columns of esync.device */
enum
{
	DEV_DEVICE_ID = 1, DEV_USER_ID, DEV_DB_ROLE, DEV_LAST_SEEN, DEV_CLOCK_OFFSET, DEV_ACCEPTED,
	DEV_CONFLICT, DEV_REJECTED, DEV_DUPLICATES,
	DEV_COUNT = DEV_DUPLICATES
};

/* advisory locks of SQL use 1 and 2 in this place */
#define LOCK_CLASS 3

/*
 * Waits for other batches of the device; without a device, for others of the
 * same id.  Before any look-up, and until the transaction ends.
 */
void
esync_submission_lock(EsyncBatch *b)
{
	LOCKTAG		tag;
	uint64		hash;

	if (b->device_id)
		hash = DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(b->device_id),
												VARSIZE_ANY_EXHDR(b->device_id), 0));
	else if (b->n == 1 && b->items[0].has_id)
		hash = DatumGetUInt64(hash_any_extended(b->items[0].id.data, UUID_LEN, 1));
	else
		return;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Waits for others who try the same rejected event again. */
void
esync_submission_lock_rejected(int64 rejected_id)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (rejected_id >> 32), (uint32) rejected_id,
						 LOCK_CLASS + 1);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Is it what was sent before, by the same user from the same device? */
static bool
same_hash(const bytea *a, const bytea *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* The error of an id that means something else already. */
static void
reject_reused(EsyncItem *item)
{
	item->status = ESYNC_WAITING;	/* whatever else is wrong with it */
	esync_item_reject(item, "id_reused", "an event with this id was accepted with another content");
	item->final = true;
}

/* Looks one id up: it was accepted before, with this or another content. */
static void
find_one(EsyncBatch *b, EsyncItem *item)
{
	ScanKeyData key;
	Datum		values[SUB_COUNT];
	bool		nulls[SUB_COUNT];
	Jsonb	   *result;
	JsonbValue	status;

	ScanKeyInit(&key, SUB_CLIENT_EVENT_ID, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&item->id));
	esync_side_scan(&b->submission, "submission_pkey", SnapshotSelf, &key, 1);
	if (!esync_side_next(&b->submission, values, nulls))
		return;
	esync_side_end(&b->submission);
	if (!same_hash(DatumGetByteaPP(values[SUB_HASH - 1]), item->hash))
	{
		reject_reused(item);
		return;
	}
	result = DatumGetJsonbPCopy(values[SUB_RESULT - 1]);
	item->duplicate = item->final = true;
	item->result = result;
	item->status = ESYNC_ACCEPTED;
	if (esync_json_member(&result->root, "status", 6, &status) && status.type == jbvString &&
		status.val.string.len == 8 && memcmp(status.val.string.val, "conflict", 8) == 0)
		item->status = ESYNC_CONFLICTING;
}

static int
compare_ids(const void *a, const void *b)
{
	const EsyncItem *x = *(EsyncItem *const *) a;
	const EsyncItem *y = *(EsyncItem *const *) b;
	int			result = memcmp(x->id.data, y->id.data, UUID_LEN);

	return result != 0 ? result : (x < y ? -1 : 1);
}

/* Events with the id of an earlier one of this batch share its fate, or are wrong. */
static void
find_twins(EsyncBatch *b)
{
	EsyncItem **sorted = palloc(Max(b->n, 1) * sizeof(EsyncItem *));
	EsyncItem  *first = NULL;
	int			n = 0;

	for (int i = 0; i < b->n; i++)
		if (b->items[i].has_id && !b->items[i].duplicate)
			sorted[n++] = &b->items[i];
	qsort(sorted, n, sizeof(EsyncItem *), compare_ids);
	for (int i = 0; i < n; i++)
	{
		EsyncItem  *item = sorted[i];

		if (first == NULL || memcmp(first->id.data, item->id.data, UUID_LEN) != 0)
			first = item;
		else if (same_hash(first->hash, item->hash))
			item->twin = first;
		else if (!item->final)
		{
			esync_item_reject(item, "id_reused", "another event of this batch has the same id");
			item->final = true;
		}
	}
}

/*
 * Finds the events that were submitted before, and their answers.  Sees what
 * others committed until now at every isolation level.  Opens the table, for
 * the batch to write to it.
 */
void
esync_submission_find(EsyncBatch *b)
{
	esync_side_open(&b->submission, "submission", RowExclusiveLock);
	esync_side_prepare(&b->submission);
	for (int i = 0; i < b->n && b->code == NULL; i++)
		if (b->items[i].has_id)
			find_one(b, &b->items[i]);
	find_twins(b);
}

/* Keeps the answer of an event that was accepted. */
void
esync_submission_put(EsyncBatch *b, EsyncItem *item)
{
	Datum		values[SUB_COUNT];
	bool		nulls[SUB_COUNT] = {false};

	if (!item->has_id)
		return;
	values[SUB_CLIENT_EVENT_ID - 1] = UUIDPGetDatum(&item->id);
	values[SUB_DEVICE_ID - 1] = PointerGetDatum(b->device_id);
	nulls[SUB_DEVICE_ID - 1] = b->device_id == NULL;
	values[SUB_USER_ID - 1] = PointerGetDatum(b->user_id);
	values[SUB_HASH - 1] = PointerGetDatum(item->hash);
	values[SUB_TABLE_ID - 1] = Int32GetDatum(item->target->table_id);
	values[SUB_RESULT - 1] = JsonbPGetDatum(item->result);
	values[SUB_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	esync_side_add(&b->submission, values, nulls);
}

/* The clock offset as an interval. */
static Datum
offset_interval(const EsyncBatch *b)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = b->offset;
	return IntervalPGetDatum(interval);
}

/* Adds what became of a batch to the counts of its device. */
static void
count_items(const EsyncBatch *b, Datum *values)
{
	int64		count[ESYNC_REJECTED + 1] = {0};
	int64		duplicates = 0;

	for (int i = 0; i < b->n; i++)
		if (b->items[i].duplicate || b->items[i].twin)
			duplicates++;
		else if (!b->items[i].untold)
			count[b->items[i].status]++;
	values[DEV_ACCEPTED - 1] = Int64GetDatum(DatumGetInt64(values[DEV_ACCEPTED - 1]) + count[ESYNC_ACCEPTED]);
	values[DEV_CONFLICT - 1] = Int64GetDatum(DatumGetInt64(values[DEV_CONFLICT - 1]) + count[ESYNC_CONFLICTING]);
	values[DEV_REJECTED - 1] = Int64GetDatum(DatumGetInt64(values[DEV_REJECTED - 1]) + count[ESYNC_REJECTED]);
	values[DEV_DUPLICATES - 1] = Int64GetDatum(DatumGetInt64(values[DEV_DUPLICATES - 1]) + duplicates);
}

/* Notes that the device was here, once a batch. */
void
esync_submission_device(EsyncBatch *b)
{
	EsyncSide	side;
	ScanKeyData keys[2];
	Datum		values[DEV_COUNT] = {0};
	bool		nulls[DEV_COUNT] = {false};
	bool		found;

	if (b->device_id == NULL || VARSIZE_ANY_EXHDR(b->device_id) > ESYNC_DEVICE_MAX ||
		VARSIZE_ANY_EXHDR(b->user_id) > ESYNC_DEVICE_MAX)
		return;
	ScanKeyInit(&keys[0], DEV_DEVICE_ID, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(b->device_id));
	ScanKeyInit(&keys[1], DEV_USER_ID, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(b->user_id));
	esync_side_open(&side, "device", RowExclusiveLock);
	esync_side_scan(&side, "device_pkey", SnapshotSelf, keys, 2);
	found = esync_side_next(&side, values, nulls);
	esync_side_end(&side);
	if (!found)
	{
		memset(values, 0, sizeof(values));
		memset(nulls, 0, sizeof(nulls));
		nulls[DEV_CLOCK_OFFSET - 1] = true;
	}
	values[DEV_DEVICE_ID - 1] = PointerGetDatum(b->device_id);
	values[DEV_USER_ID - 1] = PointerGetDatum(b->user_id);
	values[DEV_DB_ROLE - 1] = PointerGetDatum(b->db_role);
	values[DEV_LAST_SEEN - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (b->has_clock)
	{
		values[DEV_CLOCK_OFFSET - 1] = offset_interval(b);
		nulls[DEV_CLOCK_OFFSET - 1] = false;
	}
	count_items(b, values);
	if (found)
		esync_side_change(&side, values, nulls);
	else
		esync_side_add(&side, values, nulls);
	esync_side_close(&side);
}

/* -------------------------------------------------------------- SQL: devices */

PG_FUNCTION_INFO_V1(esync_devices);

/* Is this row of esync.device of the caller's own making? */
static bool
is_own(const Datum *values)
{
	const EsyncContext *context = esync_context_get();
	text	   *user = DatumGetTextPP(values[DEV_USER_ID - 1]);
	text	   *role = DatumGetTextPP(values[DEV_DB_ROLE - 1]);

	return VARSIZE_ANY_EXHDR(user) == VARSIZE_ANY_EXHDR(context->user_id) &&
		memcmp(VARDATA_ANY(user), VARDATA_ANY(context->user_id), VARSIZE_ANY_EXHDR(user)) == 0 &&
		VARSIZE_ANY_EXHDR(role) == VARSIZE_ANY_EXHDR(context->db_role) &&
		memcmp(VARDATA_ANY(role), VARDATA_ANY(context->db_role), VARSIZE_ANY_EXHDR(role)) == 0;
}

/* esync_devices(): all to whom may read esync.device, their own to others. */
Datum
esync_devices(PG_FUNCTION_ARGS)
{
	static const int columns[] = {DEV_DEVICE_ID, DEV_USER_ID, DEV_LAST_SEEN, DEV_CLOCK_OFFSET,
		DEV_ACCEPTED, DEV_CONFLICT, DEV_REJECTED, DEV_DUPLICATES};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[DEV_COUNT];
	bool		nulls[DEV_COUNT];
	bool		all = pg_class_aclcheck(esync_relation_oid("device"), GetUserId(),
										ACL_SELECT) == ACLCHECK_OK;
	EsyncSide	side;

	InitMaterializedSRF(fcinfo, 0);
	esync_side_open(&side, "device", AccessShareLock);
	esync_side_scan(&side, "device_pkey", GetActiveSnapshot(), NULL, 0);
	while (esync_side_next(&side, values, nulls))
	{
		Datum		out[lengthof(columns)];
		bool		out_nulls[lengthof(columns)];

		if (!all && !is_own(values))
			continue;
		for (int i = 0; i < lengthof(columns); i++)
		{
			out[i] = values[columns[i] - 1];
			out_nulls[i] = nulls[columns[i] - 1];
		}
		tuplestore_putvalues(result->setResult, result->setDesc, out, out_nulls);
	}
	esync_side_close(&side);
	return (Datum) 0;
}
