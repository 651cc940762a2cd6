/*
 * capture.c: from a row trigger to events.
 *
 * The trigger runs after the row was changed, so the writer holds the row's
 * lock: the aggregate's last event (the head) is found, the columns are
 * compared as datums, and JSON is made of what changed alone.
 *
 * Where the head does not fit the row at hand, something happened that was
 * not recorded (capture was off, a restore, a rewrite) or that is recorded in
 * another order than it was done.  The sections below treat these one by one:
 * drift, keys that move, rows that move between partitions, and triggers that
 * change rows whose own trigger has not run yet.
 *
 * All garbage is in the per-tuple context that the executor resets.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "esync.h"

/* what a trigger keeps over the rows of a statement, in its fn_extra */
typedef struct Kept
{
	EsyncLeaf  *leaf;
	const EsyncContext *context;
	uint64		generation;		/* of context */
} Kept;

/* one row's way to its events */
typedef struct Capture
{
	EsyncTracked *t;
	EsyncLeaf  *leaf;
	const EsyncContext *context;
	EsyncHead	head;			/* of the aggregate at hand; moves with each event */
	text	   *key;			/* its aggregate_id */
} Capture;

/* a row as it was or is; values are numbered by attnum - 1 of t->relid */
typedef struct Row
{
	Datum	   *values;
	bool	   *isnull;
	HeapTuple	tuple;			/* header included; NULL where unknown */
} Row;

/* one more member of an event's meta */
typedef struct Extra
{
	const char *key;
	JsonbValue	value;
} Extra;

#define MAX_EXTRAS 5
#define MAX_DEPTH 16

/* per depth of triggers: the command whose rows are being captured there */
static CommandId command_at[MAX_DEPTH];
static LocalTransactionId command_lxid[MAX_DEPTH];

static void capture_update(Capture *c, Row *old, Row *new);
static void capture_insert(Capture *c, Row *new);

/* ---------------------------------------------------------------- small ones */

/* Raw xmin of a row's tuple; 0 where there is none. */
static TransactionId
row_xmin(const Row *row)
{
	return row->tuple ? HeapTupleHeaderGetRawXmin(row->tuple->t_data) : InvalidTransactionId;
}

/* Is the same value stored?  Toast pointers first: no detoasting if they agree. */
static bool
same_value(const EsyncColumn *col, const Row *a, const Row *b)
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
 * *nwhich of them.  *key says whether the key is among the changed columns.
 */
static int *
changed_columns(EsyncTracked *t, const Row *old, const Row *new, int *nwhich, bool *key)
{
	int		   *which = palloc((t->ncolumns + 1) * sizeof(int));
	int			n = 0;

	*key = false;
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

/* The aggregate_id of a row. */
static text *
key_of(EsyncTracked *t, const Row *row)
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
static void
turn_to(Capture *c, text *key)
{
	c->key = key;
	esync_store_head(c->leaf, key, &c->head);
}

/* Is the row marked deleted by the tombstone column? */
static bool
is_tombstoned(EsyncTracked *t, const Row *row)
{
	return t->tombstone != 0 && !row->isnull[t->tombstone - 1];
}

/* The tenant of a row as text; NULL where there is no such option or value. */
static text *
tenant_of(EsyncTracked *t, const Row *row)
{
	JsonbValue	v;

	if (t->tenant == 0 || row->isnull[t->tenant - 1])
		return NULL;
	for (int i = 0; i < t->ncolumns; i++)
		if (t->columns[i].attnum == t->tenant)
			esync_encode_value(t->row, t->columns[i].shape, row->values[t->tenant - 1], false, &v);
	if (v.type == jbvString)
		return cstring_to_text_with_len(v.val.string.val, v.val.string.len);
	return cstring_to_text(JsonbToCString(NULL, &esync_json_from_value(&v)->root, 64));
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
payload_of(Capture *c, const EsyncEvent *e, const Row *row)
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
set_clocks(Capture *c, EsyncEvent *e, TimestampTz after, Extra *extras, int *nextras)
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
stamp_of(EsyncTracked *t, const Row *row)
{
	TimestampTz stamp;

	if (t->nstamps == 0 || row->isnull[t->stamps[0] - 1])
		return 0;
	stamp = DatumGetTimestampTz(row->values[t->stamps[0] - 1]);
	return stamp < GetCurrentTransactionStartTimestamp() || stamp > GetCurrentTimestamp() ? 0 : stamp;
}

/*
 * An event of the session's author on the aggregate at hand, based on its
 * head; what is left to the caller is row_xmin, patch and payload.  stamped
 * is a row whose last_modified columns give the commit time; or NULL.
 */
static void
begin_event(Capture *c, EsyncEvent *e, EsyncEventType type, const Row *stamped,
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
begin_baseline(Capture *c, EsyncEvent *e)
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

/* One NOTIFY per subtransaction, table and tenant; PostgreSQL folds the rest. */
static void
notify(Capture *c, const EsyncEvent *e)
{
	EsyncJson	json;

	esync_json_init(&json, 256);
	esync_json_open_object(&json, 3);
	esync_json_key(&json, "table", 5);
	esync_json_key(&json, "tenant", 6);
	esync_json_key(&json, "aggregate_type", 14);
	{
		char	   *table = quote_qualified_identifier(c->t->schema_name, c->t->table_name);

		esync_json_string(&json, table, strlen(table));
	}
	if (e->tenant)
		esync_json_string(&json, VARDATA_ANY(e->tenant), VARSIZE_ANY_EXHDR(e->tenant));
	else
		esync_json_null(&json);
	esync_json_string(&json, c->t->aggregate_type, strlen(c->t->aggregate_type));
	esync_json_close(&json);
	Async_Notify("esync", JsonbToCString(NULL, &esync_json_finish(&json)->root, 256));
}

/* Writes the event; it becomes the head. */
static void
put(Capture *c, EsyncEvent *e)
{
	esync_store_put(c->leaf, c->t, e);
	if (c->t->notify)
		notify(c, e);
	c->head.found = true;
	c->head.version = e->version;
	c->head.event_id = e->event_id;
	c->head.commit = e->commit;
	c->head.effective_high = e->effective_high;
	c->head.row_xmin = e->row_xmin;
	c->head.flags = e->flags;
}

/* --------------------------------------------------------- ground and drift */

/* The ground of an aggregate: a row that was there before its first event. */
static void
put_ground(Capture *c, const Row *row)
{
	EsyncEvent	e;

	begin_baseline(c, &e);
	e.row_xmin = row_xmin(row);
	e.patch = empty_patch();
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	if (is_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	put(c, &e);
}

/* Which columns of a row differ from what the stream says; masked ones cannot. */
static int *
drifted_columns(EsyncTracked *t, const Row *row, const Jsonb *expected, int *nwhich)
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
check_drift(Capture *c, const Row *row)
{
	EsyncEvent	e;
	bool		known;
	bool		deleted;
	Jsonb	   *expected = esync_replay_now(c->t, c->key, SnapshotSelf, &known, &deleted);
	Extra		alive = {"deleted", {.type = jbvBool, .val.boolean = false}};
	int			nwhich;
	int		   *which = drifted_columns(c->t, row, expected, &nwhich);

	if (nwhich == 0 && expected != NULL)
		return;
	begin_baseline(c, &e);
	e.row_xmin = row_xmin(row);
	e.patch = esync_encode_patch(c->t->row, row->values, row->isnull, which, nwhich);
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	if (expected == NULL)
		e.meta = meta_with(NULL, &alive, 1);
	if (is_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	put(c, &e);
}

/*
 * Makes the head tell of the row at hand, before an event is written on top:
 * the ground where there is no event yet, a Baseline where the row drifted.
 */
static void
meet_row(Capture *c, const Row *row)
{
	if (!c->head.found)
		put_ground(c, row);
	else if (c->head.row_xmin != row_xmin(row) || c->t->paused_lxid == esync_my_lxid)
		check_drift(c, row);
}

/*
 * The stream says that the key at hand has a row, yet another row was just
 * written under it: the former one is gone.  Either its own trigger is still
 * to run in this statement (then it finds this Deleted by the tuple's xmin),
 * or nobody told.
 */
static void
put_vanished(Capture *c)
{
	EsyncEvent	e;
	TransactionId xmin = c->head.row_xmin;

	begin_event(c, &e, ESYNC_DELETED, NULL, DT_NOBEGIN, (Extra[MAX_EXTRAS]) {0}, 0);
	e.flags |= ESYNC_FLAG_DELETED | ESYNC_FLAG_DRIFT;
	e.patch = empty_patch();
	put(c, &e);
	esync_pending_vanish(c->t->root, c->key, xmin, e.version);
}

/* -------------------------------------------------------------- plain events */

/* Created on the key at hand; moved_from is the former key of a moved row. */
static void
put_created(Capture *c, const Row *row, text *moved_from, int64 moved_version, TimestampTz after)
{
	EsyncEvent	e;
	Extra		extras[MAX_EXTRAS];
	int			nextras = 0;

	if (c->head.found && c->head.row_xmin != InvalidTransactionId)
		put_vanished(c);
	if (moved_from)
	{
		extras[nextras].key = "moved_from";
		link_value(moved_from, moved_version, &extras[nextras++].value);
	}
	begin_event(c, &e, ESYNC_CREATED, row, after, extras, nextras);
	if (moved_from)
		e.flags |= ESYNC_FLAG_MOVED;
	if (is_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	e.row_xmin = row_xmin(row);
	e.patch = empty_patch();
	e.payload = payload_of(c, &e, row);
	e.tenant = tenant_of(c->t, row);
	put(c, &e);
}

/* Deleted on the key at hand; moved_to is the new key of a moved row. */
static void
put_deleted(Capture *c, const Row *row, text *moved_to, int64 moved_version)
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
put_updated(Capture *c, const Row *old, const Row *new, const int *which, int nwhich)
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
	e.row_xmin = row_xmin(new);
	e.patch = esync_encode_patch(c->t->row, new->values, new->isnull, which, nwhich);
	e.payload = payload_of(c, &e, new);
	e.tenant = tenant_of(c->t, new);
	put(c, &e);
}

/*
 * A row got another key: Deleted under the old one, Created under the new
 * one, each naming the other.  The Deleted may have been recorded already,
 * when another row took the old key first.
 */
static void
put_moved(Capture *c, const Row *old, const Row *new, text *old_key, text *new_key)
{
	int64		deleted_version;
	int64		created_version;
	TimestampTz after;

	turn_to(c, new_key);
	created_version = c->head.found ? c->head.version + 1 : 1;
	if (c->head.found && c->head.row_xmin != InvalidTransactionId)
		created_version++;		/* the former row of that key vanishes first */
	turn_to(c, old_key);
	deleted_version = esync_pending_take_vanished(c->t->root, old_key, row_xmin(old));
	if (deleted_version == 0)
	{
		meet_row(c, old);
		put_deleted(c, old, new_key, created_version);
		deleted_version = c->head.version;
	}
	after = c->head.effective_high;
	turn_to(c, new_key);
	put_created(c, new, old_key, deleted_version, after);
}

/* ----------------------------------------------------- order of row triggers */

/*
 * At which depth of triggers does this one run?  1: the statement is not
 * itself run by a trigger.
 */
static int
trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/*
 * May the event of the change that made this tuple be still to come?  Asked in
 * triggers that run within triggers: the change was made by this transaction,
 * in a statement whose own triggers are running, or none of whose rows was
 * captured yet.
 */
static bool
may_be_untold(const Row *row, int depth)
{
	HeapTupleHeader h = row->tuple->t_data;
	CommandId	cid;

	if (depth <= 1 || !TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(h)))
		return false;
	cid = HeapTupleHeaderGetCmin(h);
	for (int d = 1; d < depth && d < MAX_DEPTH; d++)
		if (command_lxid[d] == esync_my_lxid && command_at[d] == cid)
			return true;
	return !esync_pending_command_seen(cid);
}

/* Notes, for triggers further in, which command's rows are captured here. */
static void
note_command(const Row *new, int depth)
{
	HeapTupleHeader h = new->tuple->t_data;
	CommandId	cid;

	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(h)))
		return;
	cid = HeapTupleHeaderGetCmin(h);
	esync_pending_see_command(cid);
	if (depth >= MAX_DEPTH)
		return;
	command_lxid[depth] = esync_my_lxid;
	command_at[depth] = cid;
}

/* Was this version of a row the one from which an UPDATE of ours made tuple? */
static bool
is_predecessor(HeapTuple candidate, HeapTuple tuple)
{
	return ItemPointerEquals(&candidate->t_data->t_ctid, &tuple->t_self) &&
		!ItemPointerEquals(&candidate->t_self, &tuple->t_self) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(candidate->t_data));
}

/*
 * That version, found among all versions in the table; NULL if there is none.
 * A walk through the table, for the rare row whose change must be told before
 * its own trigger runs.
 */
static HeapTuple
predecessor(Relation rel, HeapTuple tuple)
{
	TableScanDesc scan = table_beginscan(rel, SnapshotAny, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	HeapTuple	found = NULL;

	while (found == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		free;
		HeapTuple	candidate = ExecFetchSlotHeapTuple(slot, false, &free);

		if (is_predecessor(candidate, tuple))
			found = heap_copytuple(candidate);
		CHECK_FOR_INTERRUPTS();
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return found;
}

/* A tuple as a row. */
static Row
row_from_tuple(Relation rel, HeapTuple tuple)
{
	int			natts = RelationGetDescr(rel)->natts;
	Row			row;

	row.values = palloc(natts * sizeof(Datum));
	row.isnull = palloc(natts * sizeof(bool));
	row.tuple = tuple;
	heap_deform_tuple(tuple, RelationGetDescr(rel), row.values, row.isnull);
	return row;
}

/* Does the stream already tell of the row as it is? */
static bool
is_told(Capture *c, const Row *row)
{
	bool		known;
	bool		deleted;
	Jsonb	   *expected;
	int			nwhich;

	if (!c->head.found)
		return false;
	expected = esync_replay_now(c->t, c->key, SnapshotSelf, &known, &deleted);
	if (expected == NULL)
		return false;
	drifted_columns(c->t, row, expected, &nwhich);
	return nwhich == 0;
}

/*
 * An outer statement changed this row, and a trigger of that statement now
 * changes it again before the row's own trigger ran: tells the outer change
 * first, and lets its trigger find that it was told.
 */
static void
catch_up(Capture *c, Relation rel, Row *row)
{
	text	   *key = c->key;
	HeapTuple	before;

	if (is_told(c, row))
		return;
	before = predecessor(rel, row->tuple);
	if (before)
	{
		Row			old = row_from_tuple(rel, before);

		capture_update(c, &old, row);
	}
	else if (row->tuple->t_data->t_infomask & HEAP_UPDATED)
		return;					/* the drift check has to do */
	else
		capture_insert(c, row);
	esync_pending_caught(RelationGetRelid(rel), &row->tuple->t_self);
	turn_to(c, key);
}

/* ------------------------------------------------------------- the operations */

/* A row came. */
static void
capture_insert(Capture *c, Row *new)
{
	turn_to(c, key_of(c->t, new));
	put_created(c, new, NULL, 0, DT_NOBEGIN);
}

/* A row changed; nothing is written where nothing that is recorded changed. */
static void
capture_update(Capture *c, Row *old, Row *new)
{
	int			nwhich;
	bool		key_changed;
	int		   *which = changed_columns(c->t, old, new, &nwhich, &key_changed);
	text	   *key;

	if (nwhich == 0)
		return;
	key = key_of(c->t, old);
	if (key_changed)
	{
		text	   *new_key = key_of(c->t, new);

		if (!same_key(key, new_key))
		{
			put_moved(c, old, new, key, new_key);
			return;
		}
	}
	turn_to(c, key);
	meet_row(c, old);
	put_updated(c, old, new, which, nwhich);
}

/* A row went. */
static void
capture_delete(Capture *c, Row *old)
{
	text	   *key = key_of(c->t, old);

	if (esync_pending_take_vanished(c->t->root, key, row_xmin(old)) != 0)
		return;
	turn_to(c, key);
	meet_row(c, old);
	put_deleted(c, old, NULL, 0);
}

/* --------------------------------------------------- moves between partitions */

/* A row laid out as another leaf of the same table has it. */
static Row
row_for(EsyncTracked *to, EsyncTracked *from, const Row *row)
{
	int			natts = esync_relnatts(to->relid);
	Row			r;

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

/* Capture on behalf of a relation, outside of its own trigger. */
static Capture
capture_for(EsyncTracked *t, MemoryContext cxt)
{
	Capture		c = {0};
	EsyncLeaf  *keep = NULL;

	c.t = t;
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

	if (t && t->enabled)
	{
		Capture		c = capture_for(t, cxt);
		Row			row = row_from_tuple(rel, m->tuple);

		capture_delete(&c, &row);
	}
	table_close(rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* The other half of a move arrived: one change of one row. */
static void
capture_move(Capture *c, EsyncMove *m, Row *new)
{
	Relation	rel = table_open(m->relid, AccessShareLock);
	EsyncTracked *from = esync_tracked_get(m->relid);
	Row			row = row_from_tuple(rel, m->tuple);
	Row			old = row_for(c->t, from, &row);

	capture_update(c, &old, new);
	table_close(rel, NoLock);
}

/* Before the commit, what still waits is written. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	EsyncMove  *m;

	if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE)
		return;
	m = esync_pending_take_move();
	if (m == NULL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	flush_move(m);
	PopActiveSnapshot();
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
static EsyncTracked *
check_protocol(FunctionCallInfo fcinfo, const char *name, TriggerEvent moment)
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
	return t;
}

/* What the statement keeps, made at its first row, brought up to date. */
static void
begin_row(FunctionCallInfo fcinfo, Capture *c)
{
	MemoryContext cxt = fcinfo->flinfo->fn_mcxt;
	Kept	   *kept = fcinfo->flinfo->fn_extra;

	if (kept == NULL)
		kept = fcinfo->flinfo->fn_extra = MemoryContextAllocZero(cxt, sizeof(Kept));
	c->leaf = esync_store_open(c->t, cxt, &kept->leaf);
	if (kept->context == NULL || kept->generation != esync_context_generation)
	{
		kept->context = esync_context_get();
		kept->generation = esync_context_generation;
	}
	c->context = kept->context;
}

/* The row in a trigger's slot. */
static Row
row_from_slot(TupleTableSlot *slot, HeapTuple tuple)
{
	Row			row;

	slot_getallattrs(slot);
	row.values = slot->tts_values;
	row.isnull = slot->tts_isnull;
	row.tuple = tuple;
	return row;
}

/*
 * Settles a move that waits for its other half: true if this INSERT is it,
 * and was captured with it.  Triggers further in leave it alone.
 */
static bool
settle_move(Capture *c, TriggerData *trigdata, Row *new)
{
	const EsyncMove *waiting = esync_pending_peek_move();
	int			depth;

	if (waiting == NULL)
		return false;
	depth = trigger_depth();
	if (waiting->depth < depth)
		return false;
	if (new != NULL && TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && waiting->depth == depth)
	{
		EsyncTracked *from = esync_tracked_get(waiting->relid);

		if (from && from->root == c->t->root)
		{
			capture_move(c, esync_pending_take_move(), new);
			return true;
		}
	}
	flush_move(esync_pending_take_move());
	return false;
}

/* UPDATE, by way of what triggers further out have or have not told yet. */
static void
fired_by_update(Capture *c, TriggerData *trigdata, Row *old, Row *new)
{
	int			depth = trigger_depth();

	if (esync_pending_take_caught(c->t->relid, &new->tuple->t_self))
		return;
	note_command(new, depth);
	if (may_be_untold(old, depth))
	{
		turn_to(c, key_of(c->t, old));
		catch_up(c, trigdata->tg_relation, old);
	}
	capture_update(c, old, new);
}

/* DELETE; half of a move waits for the other half. */
static void
fired_by_delete(Capture *c, TriggerData *trigdata, Row *old)
{
	int			depth = trigger_depth();

	if (HeapTupleHeaderIndicatesMovedPartitions(old->tuple->t_data))
	{
		esync_pending_move(c->t->relid, depth, old->tuple);
		return;
	}
	if (may_be_untold(old, depth))
	{
		turn_to(c, key_of(c->t, old));
		catch_up(c, trigdata->tg_relation, old);
	}
	capture_delete(c, old);
}

/* AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW: the way of a row to its events. */
Datum
esync_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Capture		c = {0};
	Row			first;
	Row			second;

	c.t = check_protocol(fcinfo, ESYNC_TRIGGER_CAPTURE, TRIGGER_EVENT_ROW | TRIGGER_EVENT_AFTER);
	if (!esync_enabled)
	{
		c.t->paused_lxid = esync_my_lxid;
		return PointerGetDatum(NULL);
	}
	begin_row(fcinfo, &c);
	first = row_from_slot(trigdata->tg_trigslot, trigdata->tg_trigtuple);
	if (settle_move(&c, trigdata, &first))
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		second = row_from_slot(trigdata->tg_newslot, trigdata->tg_newtuple);
		fired_by_update(&c, trigdata, &first, &second);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		fired_by_delete(&c, trigdata, &first);
	else if (!esync_pending_take_caught(c.t->relid, &first.tuple->t_self))
	{
		note_command(&first, trigger_depth());
		capture_insert(&c, &first);
	}
	return PointerGetDatum(NULL);
}

/* ------------------------------------------------------------ whole tables */

typedef void (*RowAction) (Capture *c, Row *row);

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
	Capture		c = capture_for(t, cxt);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		free;
		Row			row;

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
	EsyncTracked *t = check_protocol(fcinfo, ESYNC_TRIGGER_TRUNCATE, TRIGGER_EVENT_BEFORE);

	if (esync_enabled)
		each_leaf(RelationGetRelid(trigdata->tg_relation), capture_delete, false);
	else
		t->paused_lxid = esync_my_lxid;
	return PointerGetDatum(NULL);
}

/* Ground for a row without events, a Baseline for one that drifted. */
static void
capture_ground(Capture *c, Row *row)
{
	turn_to(c, key_of(c->t, row));
	meet_row(c, row);
}

/* The option baseline: now, for every row. */
void
esync_capture_baseline(Oid relid)
{
	each_leaf(relid, capture_ground, true);
}

/* ----------------------------------------------------------- last_modified */

/* Is any column changed that an author can change? */
static bool
is_edited(EsyncTracked *t, const Row *old, const Row *new)
{
	for (int i = 0; i < t->ncolumns; i++)
		if (t->columns[i].patched && !same_value(&t->columns[i], old, new))
			return true;
	return false;
}

/*
 * BEFORE INSERT OR UPDATE FOR EACH ROW, the last such trigger: last_modified
 * columns take the present time, later than before; they stay as they were
 * where nothing else changed.
 */
Datum
esync_stamp(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsyncTracked *t = check_protocol(fcinfo, ESYNC_TRIGGER_STAMP,
									 TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE);
	bool		update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	HeapTuple	tuple = update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	Relation	rel = trigdata->tg_relation;
	TimestampTz now = GetCurrentTimestamp();
	Datum	   *values = palloc(t->nstamps * sizeof(Datum));
	bool	   *nulls = palloc0(t->nstamps * sizeof(bool));
	int		   *columns = palloc(t->nstamps * sizeof(int));
	bool		edited = true;
	Row			old = {0};

	if (!esync_enabled || t->nstamps == 0)
		return PointerGetDatum(tuple);
	if (update)
	{
		Row			new = row_from_tuple(rel, tuple);

		old = row_from_tuple(rel, trigdata->tg_trigtuple);
		edited = is_edited(t, &old, &new);
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
