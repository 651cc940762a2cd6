/*
 * record.c: what happened to a row, as events.
 *
 * The aggregate's last event (the head) is found, the columns are compared as
 * datums, and JSON is made of what changed alone.  Where the head does not fit
 * the row at hand, something happened that was not recorded (capture was off,
 * a restore, a rewrite), and a Baseline says what; or the row's key is on its
 * way to another row in the same statement.
 *
 * Knows nothing of triggers.  The caller holds the row's lock.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"

/* one more member of an event's meta */
typedef struct Extra
{
	const char *key;
	JsonbValue	value;
} Extra;

#define MAX_EXTRAS 5
#define MAX_NOTIFIED 1000		/* bytes; JSON may escape each with six */

/* ---------------------------------------------------------------- small ones */

/* Is the same value stored?  Toast pointers first: no detoasting if they agree. */
static bool
same_value(const EsyncColumn *col, const EsyncRow *a, const EsyncRow *b)
{
	int			i = col->attnum - 1;
	Datum		x = a->values[i];
	Datum		y = b->values[i];

	if (a->isnull[i] || b->isnull[i])
		return a->isnull[i] == b->isnull[i];
	if (col->attbyval)
		return x == y;
	if (col->attlen == -1)
	{
		Size		size = VARSIZE_ANY(DatumGetPointer(x));

		if (size == VARSIZE_ANY(DatumGetPointer(y)) &&
			memcmp(DatumGetPointer(x), DatumGetPointer(y), size) == 0)
			return true;
	}
	return datum_image_eq(x, y, false, col->attlen);
}

/*
 * Which edits lead from one row to another, as indexes into the row shape;
 * *nwhich of them.  *key says whether the key may have changed.
 */
static int *
changed_columns(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new, int *nwhich, bool *key)
{
	int		   *which = palloc((t->ncolumns + 1) * sizeof(int));
	int			n = 0;

	*key = t->key_generated;
	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];

		if (!col->patched || same_value(col, old, new))
			continue;
		which[n++] = col->shape;
		for (int k = 0; k < t->nkeys; k++)
			*key |= t->keyattnums[k] == col->attnum;
	}
	*nwhich = n;
	return which;
}

/* Is any column changed that an author can change? */
bool
esync_record_differs(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new)
{
	for (int i = 0; i < t->ncolumns; i++)
		if (t->columns[i].patched && !same_value(&t->columns[i], old, new))
			return true;
	return false;
}

/* The aggregate_id of a row. */
text *
esync_record_key(EsyncTracked *t, const EsyncRow *row)
{
	return esync_encode_key(t->key, row->values, row->isnull);
}

/* Are two canonical keys the same? */
static bool
same_key(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Turns to an aggregate: its key and its last event. */
void
esync_record_turn(EsyncCapture *c, text *key)
{
	c->key = key;
	esync_store_head(c->leaf, key, &c->head);
}

/* Is the row marked deleted by the tombstone column? */
static bool
is_tombstoned(EsyncTracked *t, const EsyncRow *row)
{
	return t->tombstone != 0 && !row->isnull[t->tombstone - 1];
}

/* A JSON value as the text of a tenant; NULL for null. */
static text *
tenant_text(const JsonbValue *v)
{
	if (v->type == jbvNull)
		return NULL;
	if (v->type == jbvString)
		return cstring_to_text_with_len(v->val.string.val, v->val.string.len);
	return cstring_to_text(JsonbToCString(NULL, &esync_json_from_value(v)->root, 64));
}

/* The tenant of a row as text; NULL where there is no such option or value. */
static text *
tenant_of(EsyncTracked *t, const EsyncRow *row)
{
	JsonbValue	v;

	if (t->tenant == 0 || row->isnull[t->tenant - 1])
		return NULL;
	esync_encode_value(t->tenant_shape, 0, row->values[t->tenant - 1], false, &v);
	return tenant_text(&v);
}

/* The same of a row as JSON. */
static text *
tenant_of_json(EsyncTracked *t, const Jsonb *row)
{
	const char *name = t->tenant == 0 ? NULL : t->fields[t->tenant_field].name;
	JsonbValue	v;

	if (name == NULL || !esync_json_member(&row->root, name, strlen(name), &v))
		return NULL;
	return tenant_text(&v);
}

/* An empty patch: the payload, or the event's type, is all there is to say. */
static Jsonb *
empty_patch(void)
{
	EsyncJson	json;

	esync_json_init(&json, 16);
	esync_json_open_array(&json, 0);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* The whole row as payload, where this event carries one. */
static Jsonb *
payload_of(EsyncCapture *c, const EsyncEvent *e, const EsyncRow *row)
{
	if (!c->t->payload_full && e->type != ESYNC_CREATED && e->type != ESYNC_BASELINE &&
		(e->type == ESYNC_DELETED || e->version % ESYNC_FULL_EVERY != 0))
		return NULL;
	return esync_encode_row(c->t->row, row->values, row->isnull);
}

/* ---------------------------------------------------------------------- meta */

/* A timestamp as a JSON string in UTC. */
static void
time_value(TimestampTz at, JsonbValue *out)
{
	EsyncAttr	attr = {"t", 1, TIMESTAMPTZOID, -1, false};

	esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
					   TimestampTzGetDatum(at), false, out);
}

/* An integer as a JSON number. */
static void
int_value(int64 i, JsonbValue *out)
{
	out->type = jbvNumeric;
	out->val.numeric = int64_to_numeric(i);
}

/* {"aggregate_id": key, "version": version}: the other half of a move. */
static void
link_value(text *key, int64 version, JsonbValue *out)
{
	EsyncMember m[2];
	Jsonb	   *link;

	m[0].key = "version";
	m[0].keylen = 7;
	int_value(version, &m[0].value);
	m[1].key = "aggregate_id";
	m[1].keylen = 12;
	m[1].value.type = jbvString;
	m[1].value.val.string.val = VARDATA_ANY(key);
	m[1].value.val.string.len = VARSIZE_ANY_EXHDR(key);
	link = esync_json_object(2, m);
	esync_json_root(link, out);
}

/*
 * What the author sent as meta, with what esync has to add; esync's members
 * win.  NULL where there is neither.
 */
static Jsonb *
meta_with(Jsonb *meta, const Extra *extras, int nextras)
{
	EsyncMember *members;
	int			n = 0;
	EsyncWalk	walk;

	if (nextras == 0)
		return meta;
	members = palloc((nextras + (meta ? esync_json_count(&meta->root) : 0)) * sizeof(EsyncMember));
	for (n = 0; n < nextras; n++)
	{
		members[n].key = extras[n].key;
		members[n].keylen = strlen(extras[n].key);
		members[n].value = extras[n].value;
	}
	if (meta)
	{
		esync_walk_init(&walk, &meta->root);
		while (esync_walk_next(&walk))
		{
			bool		ours = false;

			for (int i = 0; i < nextras; i++)
				ours |= esync_key_cmp(walk.key, walk.keylen, members[i].key, members[i].keylen) == 0;
			if (ours)
				continue;
			members[n].key = walk.key;
			members[n].keylen = walk.keylen;
			members[n].value = walk.value;
			n++;
		}
	}
	return esync_json_object(n, members);
}

/* ------------------------------------------------------- one event's clothing */

/*
 * The clocks of an event by its author: commit under the row's lock, submit
 * as corrected, effective after all that the author has seen (the head, and
 * `after`).  Adds to extras what was corrected.
 */
static void
set_clocks(EsyncCapture *c, EsyncEvent *e, TimestampTz after, Extra *extras, int *nextras)
{
	const EsyncContext *x = c->context;

	if (e->commit == 0)
		e->commit = GetCurrentTimestamp();
	if (c->head.found)
		e->commit = Max(e->commit, c->head.commit);
	e->submit = x->has_submit ? x->submit : e->commit;
	if (x->has_submit && x->submit != x->submit_raw)
		e->flags |= ESYNC_FLAG_SHIFTED;
	if (e->submit > e->commit)
	{
		e->submit = e->commit;
		e->flags |= ESYNC_FLAG_CLAMPED;
	}
	if (e->submit != x->submit_raw && x->has_submit)
	{
		extras[*nextras].key = "submit_raw";
		time_value(x->submit_raw, &extras[(*nextras)++].value);
	}
	if (e->flags & ESYNC_FLAG_SHIFTED)
	{
		extras[*nextras].key = "clock_offset_ms";
		int_value(x->offset_ms, &extras[(*nextras)++].value);
	}
	e->branch = x->has_branch ? x->branch : e->submit;
	e->effective = e->submit;
	if (c->head.found)
		after = Max(after, c->head.effective_high);
	if (after != DT_NOBEGIN && e->effective <= after)
	{
		e->effective = after + 1;
		e->flags |= ESYNC_FLAG_BUMPED;
	}
	e->effective_high = e->effective;
}

/*
 * The time that the stamp trigger gave a row under this statement, so that
 * last_modified and the commit time of the event are one; 0 where there is no
 * such column, or it holds what no clock said.
 */
static TimestampTz
stamp_of(EsyncTracked *t, const EsyncRow *row)
{
	TimestampTz stamp;

	if (t->nstamps == 0 || row->isnull[t->stamps[0] - 1])
		return 0;
	stamp = DatumGetTimestampTz(row->values[t->stamps[0] - 1]);
	return stamp < GetCurrentTransactionStartTimestamp() || stamp > GetCurrentTimestamp() ? 0 : stamp;
}

/* The tuple that an event leaves. */
static void
set_row(EsyncEvent *e, const EsyncRow *row)
{
	e->row_xmin = esync_row_xmin(row);
	e->row_tid = row->tuple->t_self;
}

/*
 * An event of the session's author on the aggregate at hand, based on its
 * head; what is left to the caller is row_xmin, patch and payload.  stamped
 * is a row whose last_modified columns give the commit time; or NULL.
 */
static void
begin_event(EsyncCapture *c, EsyncEvent *e, EsyncEventType type, const EsyncRow *stamped,
			TimestampTz after, Extra *extras, int nextras)
{
	const EsyncContext *x = c->context;

	memset(e, 0, sizeof(EsyncEvent));
	e->type = type;
	e->event_id = esync_store_next_id(c->t);
	e->aggregate_id = c->key;
	e->version = c->head.found ? c->head.version + 1 : 1;
	e->base_version = c->head.found ? c->head.version : 0;
	e->user_id = x->user_id;
	e->device_id = x->device_id;
	e->db_role = x->db_role;
	if (stamped)
		e->commit = stamp_of(c->t, stamped);
	set_clocks(c, e, after, extras, &nextras);
	if (x->has_base && x->base_version != e->base_version)
	{
		extras[nextras].key = "base_version";
		int_value(x->base_version, &extras[nextras++].value);
	}
	e->meta = meta_with(x->meta, extras, nextras);
}

/*
 * A Baseline on the aggregate at hand: nobody's edit.  Without a head it is
 * the ground, before everything; else it lies after all that is known.
 */
static void
begin_baseline(EsyncCapture *c, EsyncEvent *e)
{
	memset(e, 0, sizeof(EsyncEvent));
	e->type = ESYNC_BASELINE;
	e->event_id = esync_store_next_id(c->t);
	e->aggregate_id = c->key;
	e->db_role = c->context->db_role;
	e->commit = GetCurrentTimestamp();
	e->version = 1;
	e->effective = DT_NOBEGIN;
	if (c->head.found)
	{
		e->commit = Max(e->commit, c->head.commit);
		e->version = c->head.version + 1;
		e->base_version = c->head.version;
		e->effective = e->commit;
		if (c->head.effective_high != DT_NOBEGIN)
			e->effective = Max(e->commit, c->head.effective_high + 1);
		e->flags |= ESYNC_FLAG_DRIFT;
	}
	e->branch = e->submit = e->commit;
	e->effective_high = e->effective;
}

/*
 * One NOTIFY a transaction, table and tenant: PostgreSQL folds equal ones.  A
 * tenant too long for a notification is told as null.
 */
static void
notify(EsyncCapture *c, const EsyncEvent *e)
{
	EsyncJson	json;

	esync_json_init(&json, 256);
	esync_json_open_object(&json, 3);
	esync_json_key(&json, "table", 5);
	esync_json_key(&json, "tenant", 6);
	esync_json_key(&json, "aggregate_type", 14);
	{
		char	   *table = esync_tracked_name(c->t);

		esync_json_string(&json, table, strlen(table));
	}
	if (e->tenant && VARSIZE_ANY_EXHDR(e->tenant) <= MAX_NOTIFIED)
		esync_json_string(&json, VARDATA_ANY(e->tenant), VARSIZE_ANY_EXHDR(e->tenant));
	else
		esync_json_null(&json);
	esync_json_string(&json, c->t->aggregate_type, strlen(c->t->aggregate_type));
	esync_json_close(&json);
	Async_Notify("esync", JsonbToCString(NULL, &esync_json_finish(&json)->root, 256));
}

/* The event was written: it is the head. */
static void
put_done(EsyncCapture *c, const EsyncEvent *e)
{
	if (c->t->notify)
		notify(c, e);
	c->head.found = true;
	c->head.version = e->version;
	c->head.event_id = e->event_id;
	c->head.commit = e->commit;
	c->head.effective_high = e->effective_high;
	c->head.row_xmin = e->row_xmin;
	c->head.row_tid = e->row_tid;
	c->head.flags = e->flags;
}

/* Writes the event. */
static void
put(EsyncCapture *c, EsyncEvent *e)
{
	esync_store_put(c->leaf, c->t, e);
	put_done(c, e);
}

/* --------------------------------------------------------- ground and drift */

/* The ground of an aggregate: a row that was there before its first event. */
static void
put_ground(EsyncCapture *c, const EsyncRow *row)
{
	EsyncEvent	e;

	begin_baseline(c, &e);
	set_row(&e, row);
	e.patch = empty_patch();
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	if (is_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	put(c, &e);
}

/* Which columns of a row differ from what the stream says; masked ones cannot. */
static int *
drifted_columns(EsyncTracked *t, const EsyncRow *row, const Jsonb *expected, int *nwhich)
{
	int		   *which = palloc((t->ncolumns + 1) * sizeof(int));
	int			n = 0;

	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];
		const EsyncField *f = &t->fields[col->field];
		JsonbValue	here;
		JsonbValue	there;

		if (!col->patched || f->masked)
			continue;
		esync_encode_value(t->row, col->shape, row->values[col->attnum - 1],
						   row->isnull[col->attnum - 1], &here);
		if (expected &&
			esync_json_member(&expected->root, f->name, strlen(f->name), &there) &&
			esync_json_equal(&here, &there, true))
			continue;
		which[n++] = col->shape;
	}
	*nwhich = n;
	return which;
}

/*
 * Compares a row with the fold of its stream, and records what differs in a
 * Baseline: something changed it that was not captured.
 */
static void
check_drift(EsyncCapture *c, const EsyncRow *row)
{
	EsyncEvent	e;
	bool		deleted;
	Jsonb	   *expected = esync_replay_now(c->t, c->key, SnapshotSelf,
											c->head.event_id < c->t->check_from, &deleted);
	Extra		alive = {"deleted", {.type = jbvBool, .val.boolean = false}};
	int			nwhich;
	int		   *which = drifted_columns(c->t, row, expected, &nwhich);

	if (nwhich == 0 && expected != NULL)
		return;
	begin_baseline(c, &e);
	set_row(&e, row);
	e.patch = esync_encode_patch(c->t->row, row->values, row->isnull, which, nwhich);
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	if (expected == NULL)
		e.meta = meta_with(NULL, &alive, 1);
	if (is_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	put(c, &e);
}

/* Does the head tell of exactly this tuple, and not of another or none? */
bool
esync_record_tells(const EsyncCapture *c, const EsyncRow *row)
{
	return c->head.found && c->head.row_xmin == esync_row_xmin(row) &&
		ItemPointerEquals((ItemPointer) &c->head.row_tid, &row->tuple->t_self);
}

/*
 * Makes the head tell of the row at hand, before an event is written on top:
 * what this transaction did is told first; the ground where there is no event
 * yet, a Baseline where the row drifted.
 */
void
esync_record_meet(EsyncCapture *c, EsyncRow *row)
{
	if (esync_record_tells(c, row))
	{
		if (c->head.event_id < c->t->check_from)
			check_drift(c, row);
		return;
	}
	if (c->rel != NULL &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row->tuple->t_data)))
	{
		/* whatever is told of it now, its own trigger must not tell it again */
		esync_pending_caught(RelationGetRelid(c->rel), row->tuple);
		if (!esync_pending_paused(c->t->root, row->tuple) && c->tell_first(c, row))
			return;
	}
	if (!c->head.found)
		put_ground(c, row);
	else
		check_drift(c, row);
}

/* The row of the aggregate at hand is gone, and nobody told. */
void
esync_record_missing(EsyncCapture *c)
{
	EsyncEvent	e;
	Extra		gone = {"deleted", {.type = jbvBool, .val.boolean = true}};

	begin_baseline(c, &e);
	e.flags |= ESYNC_FLAG_DELETED;
	e.patch = empty_patch();
	e.meta = meta_with(NULL, &gone, 1);
	put(c, &e);
}

/*
 * The stream says that the key at hand has a row, yet another row was just
 * written under it: the former one is gone.  Either its own trigger is still
 * to run in this statement (then it finds this Deleted by the tuple's xmin),
 * or nobody told.
 */
static void
put_vanished(EsyncCapture *c, const EsyncRow *by)
{
	EsyncEvent	e;

	begin_event(c, &e, ESYNC_DELETED, NULL, DT_NOBEGIN, (Extra[MAX_EXTRAS]) {0}, 0);
	e.flags |= ESYNC_FLAG_DELETED | ESYNC_FLAG_DRIFT;
	e.patch = empty_patch();
	put(c, &e);
	esync_pending_vanish(c->t->root, c->key, HeapTupleHeaderGetCmin(by->tuple->t_data), e.version);
}

/* -------------------------------------------------------------- plain events */

/* A Created event on the key at hand, all but written. */
static void
begin_created(EsyncCapture *c, EsyncEvent *e, const EsyncRow *row, TimestampTz after,
			  Extra *extras, int nextras)
{
	begin_event(c, e, ESYNC_CREATED, row, after, extras, nextras);
	if (is_tombstoned(c->t, row))
		e->flags |= ESYNC_FLAG_DELETED;
	set_row(e, row);
	e->patch = empty_patch();
	e->payload = payload_of(c, e, row);
	e->tenant = tenant_of(c->t, row);
}

/*
 * Created as the first event of its key, without a look for others; false if
 * there are.
 */
static bool
try_created(EsyncCapture *c, const EsyncRow *row)
{
	EsyncEvent	e;

	if (!esync_store_can_try(c->leaf, c->t))
		return false;
	memset(&c->head, 0, sizeof(EsyncHead));
	begin_created(c, &e, row, DT_NOBEGIN, (Extra[MAX_EXTRAS]) {0}, 0);
	if (!esync_store_try_first(c->leaf, c->t, &e))
		return false;
	put_done(c, &e);
	return true;
}

/* Created on the key at hand; moved_from is the former key of a moved row. */
static void
put_created(EsyncCapture *c, const EsyncRow *row, text *moved_from, int64 moved_version,
			TimestampTz after)
{
	EsyncEvent	e;
	Extra		extras[MAX_EXTRAS];
	int			nextras = 0;

	if (c->head.found && c->head.row_xmin != InvalidTransactionId)
		put_vanished(c, row);
	if (moved_from)
	{
		extras[nextras].key = "moved_from";
		link_value(moved_from, moved_version, &extras[nextras++].value);
	}
	begin_created(c, &e, row, after, extras, nextras);
	if (moved_from)
		e.flags |= ESYNC_FLAG_MOVED;
	put(c, &e);
}

/* Deleted on the key at hand; moved_to is the new key of a moved row. */
static void
put_deleted(EsyncCapture *c, const EsyncRow *row, text *moved_to, int64 moved_version)
{
	EsyncEvent	e;
	Extra		extras[MAX_EXTRAS];
	int			nextras = 0;

	if (moved_to)
	{
		extras[nextras].key = "moved_to";
		link_value(moved_to, moved_version, &extras[nextras++].value);
	}
	begin_event(c, &e, ESYNC_DELETED, NULL, DT_NOBEGIN, extras, nextras);
	e.flags |= ESYNC_FLAG_DELETED;
	if (moved_to)
		e.flags |= ESYNC_FLAG_MOVED;
	e.patch = empty_patch();
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	put(c, &e);
}

/* Updated, or Deleted and Restored by way of the tombstone column. */
static void
put_updated(EsyncCapture *c, const EsyncRow *old, const EsyncRow *new, const int *which, int nwhich)
{
	EsyncEvent	e;
	EsyncEventType type = ESYNC_UPDATED;
	bool		was = is_tombstoned(c->t, old);
	bool		is = is_tombstoned(c->t, new);

	if (was != is)
		type = is ? ESYNC_DELETED : ESYNC_RESTORED;
	begin_event(c, &e, type, new, DT_NOBEGIN, (Extra[MAX_EXTRAS]) {0}, 0);
	if (is)
		e.flags |= ESYNC_FLAG_DELETED;
	set_row(&e, new);
	e.patch = esync_encode_patch(c->t->row, new->values, new->isnull, which, nwhich);
	e.payload = payload_of(c, &e, new);
	e.tenant = tenant_of(c->t, new);
	put(c, &e);
	if (c->t->notify && c->t->tenant != 0)
	{
		e.tenant = tenant_of(c->t, old);	/* who may lose the row hears of it too */
		notify(c, &e);
	}
}

/*
 * Did this transaction make the head's row by a later command than that one?
 * A table rewritten since may have no such place any more.
 */
static bool
is_head_younger(const EsyncCapture *c, const EsyncRow *old)
{
	TupleTableSlot *slot;
	ItemPointerData tid = c->head.row_tid;
	bool		younger = false;
	bool		free;

	if (!ItemPointerIsValid(&tid) ||
		ItemPointerGetBlockNumber(&tid) >= RelationGetNumberOfBlocks(c->rel))
		return false;
	slot = table_slot_create(c->rel, NULL);
	if (table_tuple_fetch_row_version(c->rel, &tid, SnapshotAny, slot))
	{
		HeapTupleHeader h = ExecFetchSlotHeapTuple(slot, false, &free)->t_data;

		younger = HeapTupleHeaderGetRawXmin(h) == c->head.row_xmin &&
			HeapTupleHeaderGetCmin(h) > HeapTupleHeaderGetCmin(old->tuple->t_data);
	}
	ExecDropSingleTupleTableSlot(slot);
	return younger;
}

/*
 * Is the row that goes older than the one that the head tells of?  So it is
 * where a trigger wrote the key anew, and the stream had nothing of the row
 * that was there before.
 */
static bool
is_superseded(const EsyncCapture *c, const EsyncRow *old)
{
	if (!c->head.found || c->head.row_xmin == InvalidTransactionId ||
		esync_record_tells(c, old) ||
		!TransactionIdIsCurrentTransactionId(c->head.row_xmin))
		return false;
	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(old->tuple->t_data)))
		return true;
	return c->rel != NULL && is_head_younger(c, old);
}

/*
 * Tells late of a row that went before the present one came: it is deleted,
 * so that what it held is on record, and a Baseline says that there is a row
 * all the same.
 */
static void
put_deleted_late(EsyncCapture *c, const EsyncRow *old, text *moved_to, int64 moved_version)
{
	EsyncHead	present = c->head;
	EsyncEvent	e;
	Extra		alive = {"deleted", {.type = jbvBool, .val.boolean = false}};
	bool		deleted;
	Jsonb	   *row = esync_replay_now(c->t, c->key, SnapshotSelf, false, &deleted);

	put_deleted(c, old, moved_to, moved_version);
	begin_baseline(c, &e);
	e.flags |= present.flags & ESYNC_FLAG_DELETED;
	e.row_xmin = present.row_xmin;
	e.row_tid = present.row_tid;
	e.patch = empty_patch();
	e.payload = row;
	e.tenant = tenant_of_json(c->t, row);
	e.meta = meta_with(NULL, &alive, 1);
	put(c, &e);
}

/*
 * The version that a Created on that key will have, which a former row of it
 * may have to leave first.  Turns to the key.
 */
static int64
next_version(EsyncCapture *c, text *key)
{
	esync_record_turn(c, key);
	if (!c->head.found)
		return 1;
	return c->head.version + (c->head.row_xmin != InvalidTransactionId ? 2 : 1);
}

/*
 * A row got another key: Deleted under the old one, Created under the new
 * one, each naming the other.  The Deleted may have been recorded already,
 * when another row took the old key first.
 */
static void
put_moved(EsyncCapture *c, EsyncRow *old, const EsyncRow *new, text *old_key, text *new_key)
{
	int64		deleted_version = 0;
	int64		created_version;
	TimestampTz after;

	esync_record_turn(c, old_key);
	if (!esync_record_tells(c, old))
		deleted_version = esync_pending_take_vanished(c->t->root, old_key, old->tuple);
	if (deleted_version == 0)
	{
		bool		late = is_superseded(c, old);

		if (!late)
			esync_record_meet(c, old);
		created_version = next_version(c, new_key);
		esync_record_turn(c, old_key);
		deleted_version = c->head.version + 1;
		if (late)
			put_deleted_late(c, old, new_key, created_version);
		else
			put_deleted(c, old, new_key, created_version);
	}
	after = c->head.effective_high;
	esync_record_turn(c, new_key);
	put_created(c, new, old_key, deleted_version, after);
}

/* ------------------------------------------------------------- the operations */

/* A row came. */
void
esync_record_insert(EsyncCapture *c, EsyncRow *new)
{
	c->key = esync_record_key(c->t, new);
	if (try_created(c, new))
		return;
	esync_record_turn(c, c->key);
	put_created(c, new, NULL, 0, DT_NOBEGIN);
}

/* A row changed; nothing is written where nothing that is recorded changed. */
void
esync_record_update(EsyncCapture *c, EsyncRow *old, EsyncRow *new)
{
	int			nwhich;
	bool		key_changed;
	int		   *which = changed_columns(c->t, old, new, &nwhich, &key_changed);
	text	   *key;

	if (nwhich == 0)
		return;
	key = esync_record_key(c->t, old);
	if (key_changed)
	{
		text	   *new_key = esync_record_key(c->t, new);

		if (!same_key(key, new_key))
		{
			put_moved(c, old, new, key, new_key);
			return;
		}
	}
	esync_record_turn(c, key);
	esync_record_meet(c, old);
	put_updated(c, old, new, which, nwhich);
}

/* A row went, unless that was recorded when its key was written again. */
void
esync_record_delete(EsyncCapture *c, EsyncRow *old)
{
	esync_record_turn(c, esync_record_key(c->t, old));
	if (!esync_record_tells(c, old) &&
		esync_pending_take_vanished(c->t->root, c->key, old->tuple) != 0)
		return;
	if (is_superseded(c, old))
	{
		put_deleted_late(c, old, NULL, 0);
		return;
	}
	esync_record_meet(c, old);
	put_deleted(c, old, NULL, 0);
}
