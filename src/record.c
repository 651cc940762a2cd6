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
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"

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

static int
int_cmp(const void *a, const void *b)
{
	return *(const int *) a - *(const int *) b;
}

/* Columns that win or lose together are named together; how many there are now. */
static int
complete_groups(EsyncTracked *t, int *which, int n)
{
	int			before = n;

	for (int i = 0; i < t->ncolumns; i++)
	{
		int			group = t->fields[t->columns[i].field].group;
		bool		named = false;
		bool		wanted = false;

		for (int k = 0; k < before && group >= 0; k++)
		{
			/* places in the shape are places in columns */
			named |= which[k] == t->columns[i].shape;
			wanted |= t->fields[t->columns[which[k]].field].group == group;
		}
		if (wanted && !named)
			which[n++] = t->columns[i].shape;
	}
	qsort(which, n, sizeof(int), int_cmp);
	return n;
}

/*
 * Which edits lead from one row to another, as indexes into the row shape;
 * *nwhich of them.  *key says whether the key may have changed.
 */
int *
esync_record_changes(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new, int *nwhich, bool *key)
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
	*nwhich = n > 0 && t->ngroups > 0 ? complete_groups(t, which, n) : n;
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

/* --------------------------------------------------------- ground and drift */

/* The ground of an aggregate: a row that was there before its first event. */
static void
put_ground(EsyncCapture *c, const EsyncRow *row)
{
	EsyncEvent	e;

	esync_event_begin_baseline(c, &e);
	esync_event_set_row(&e, row);
	e.patch = esync_event_no_patch();
	e.payload = esync_event_payload_of(c, &e, row);
	e.tenant = esync_event_tenant(c->t, row);
	if (esync_event_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	esync_event_put(c, &e);
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
	EsyncExtra 	alive = {"deleted", {.type = jbvBool, .val.boolean = false}};
	int			nwhich;
	int		   *which = drifted_columns(c->t, row, expected, &nwhich);

	if (nwhich == 0 && expected != NULL)
		return;
	esync_event_begin_baseline(c, &e);
	esync_event_set_row(&e, row);
	e.patch = esync_encode_patch(c->t->row, row->values, row->isnull, which, nwhich);
	e.payload = esync_event_payload_of(c, &e, row);
	e.tenant = esync_event_tenant(c->t, row);
	if (expected == NULL)
		e.meta = esync_meta_with(NULL, &alive, 1);
	if (esync_event_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	esync_event_put(c, &e);
}

/* Does the head tell of exactly this tuple, and not of another or none? */
bool
esync_record_tells(const EsyncCapture *c, const EsyncRow *row)
{
	return c->head.found && c->head.row_xmin == esync_row_xmin(row) &&
		ItemPointerEquals((ItemPointer) &c->head.row_tid, &row->tuple->t_self);
}

/* Does the head tell of the row at hand, with nothing to be compared? */
bool
esync_record_is_met(const EsyncCapture *c, const EsyncRow *row)
{
	return esync_record_tells(c, row) && c->head.event_id >= c->t->check_from;
}

/*
 * Makes the head tell of the row at hand, before an event is written on top:
 * what this transaction did is told first; the ground where there is no event
 * yet, a Baseline where the row drifted.
 */
void
esync_record_meet(EsyncCapture *c, EsyncRow *row)
{
	if (esync_record_is_met(c, row))
		return;
	if (esync_record_tells(c, row))
	{
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

/*
 * The row of the aggregate at hand is to be shown again to whoever follows the
 * changes; NULL: that it is gone.  Says nothing of its own: no field is stamped,
 * and the place of later edits is what it was.
 */
void
esync_record_touch(EsyncCapture *c, const EsyncRow *row)
{
	EsyncEvent	e;
	EsyncExtra	touch = {"touch", {.type = jbvBool, .val.boolean = true}};

	esync_event_begin_baseline(c, &e);
	e.effective = e.effective_high = c->head.effective_high;
	e.patch = esync_event_no_patch();
	e.meta = esync_meta_with(NULL, &touch, 1);
	if (row)
	{
		esync_event_set_row(&e, row);
		e.payload = esync_event_payload_of(c, &e, row);
		e.tenant = esync_event_tenant(c->t, row);
	}
	else
		e.flags |= ESYNC_FLAG_NO_ROW;
	if (row == NULL || esync_event_tombstoned(c->t, row))
		e.flags |= ESYNC_FLAG_DELETED;
	esync_event_put(c, &e);
}

/* The row of the aggregate at hand is gone, and nobody told. */
void
esync_record_missing(EsyncCapture *c)
{
	EsyncEvent	e;
	EsyncExtra 	gone = {"deleted", {.type = jbvBool, .val.boolean = true}};

	esync_event_begin_baseline(c, &e);
	e.flags |= ESYNC_FLAG_DELETED;
	e.patch = esync_event_no_patch();
	e.meta = esync_meta_with(NULL, &gone, 1);
	esync_event_put(c, &e);
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

	esync_event_begin(c, &e, ESYNC_DELETED, NULL, DT_NOBEGIN, (EsyncExtra[MAX_EXTRAS]) {0}, 0);
	e.flags |= ESYNC_FLAG_DELETED | ESYNC_FLAG_DRIFT;
	e.patch = esync_event_no_patch();
	esync_event_put(c, &e);
	esync_pending_vanish(c->t->root, c->key, HeapTupleHeaderGetCmin(by->tuple->t_data), e.version);
}

/* -------------------------------------------------------------- plain events */

/* A Created event on the key at hand, all but written. */
static void
begin_created(EsyncCapture *c, EsyncEvent *e, const EsyncRow *row, TimestampTz after,
			  EsyncExtra *extras, int nextras)
{
	esync_event_begin(c, e, ESYNC_CREATED, row, after, extras, nextras);
	if (esync_event_tombstoned(c->t, row))
		e->flags |= ESYNC_FLAG_DELETED;
	esync_event_set_row(e, row);
	e->patch = esync_event_no_patch();
	e->payload = esync_event_payload_of(c, e, row);
	e->tenant = esync_event_tenant(c->t, row);
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
	begin_created(c, &e, row, DT_NOBEGIN, (EsyncExtra[MAX_EXTRAS]) {0}, 0);
	if (!esync_store_try_first(c->leaf, c->t, &e))
		return false;
	esync_event_done(c, &e);
	return true;
}

/* Created on the key at hand; moved_from is the former key of a moved row. */
static void
put_created(EsyncCapture *c, const EsyncRow *row, text *moved_from, int64 moved_version,
			TimestampTz after)
{
	EsyncEvent	e;
	EsyncExtra 	extras[MAX_EXTRAS];
	int			nextras = 0;

	if (c->head.found && c->head.row_xmin != InvalidTransactionId)
		put_vanished(c, row);
	if (moved_from)
	{
		extras[nextras].key = "moved_from";
		esync_meta_link(moved_from, moved_version, &extras[nextras++].value);
	}
	begin_created(c, &e, row, after, extras, nextras);
	if (moved_from)
		e.flags |= ESYNC_FLAG_MOVED;
	esync_event_put(c, &e);
}

/* Deleted on the key at hand; moved_to is the new key of a moved row. */
static void
put_deleted(EsyncCapture *c, const EsyncRow *row, text *moved_to, int64 moved_version)
{
	EsyncEvent	e;
	EsyncExtra 	extras[MAX_EXTRAS];
	int			nextras = 0;

	if (moved_to)
	{
		extras[nextras].key = "moved_to";
		esync_meta_link(moved_to, moved_version, &extras[nextras++].value);
	}
	esync_event_begin(c, &e, ESYNC_DELETED, NULL, DT_NOBEGIN, extras, nextras);
	e.flags |= ESYNC_FLAG_DELETED;
	if (moved_to)
		e.flags |= ESYNC_FLAG_MOVED;
	e.patch = esync_event_no_patch();
	e.payload = esync_event_payload_of(c, &e, row);
	e.tenant = esync_event_tenant(c->t, row);
	esync_event_put(c, &e);
}

/* Updated, or Deleted and Restored by way of the tombstone column. */
static void
put_updated(EsyncCapture *c, const EsyncRow *old, const EsyncRow *new, const int *which, int nwhich)
{
	EsyncEvent	e;
	EsyncEventType type = ESYNC_UPDATED;
	bool		was = esync_event_tombstoned(c->t, old);
	bool		is = esync_event_tombstoned(c->t, new);

	if (was != is)
		type = is ? ESYNC_DELETED : ESYNC_RESTORED;
	esync_event_begin(c, &e, type, new, DT_NOBEGIN, (EsyncExtra[MAX_EXTRAS]) {0}, 0);
	if (is)
		e.flags |= ESYNC_FLAG_DELETED;
	esync_event_set_row(&e, new);
	e.patch = c->t->json_merges ? esync_event_patch(c->t, old, new, which, nwhich) :
		esync_encode_patch(c->t->row, new->values, new->isnull, which, nwhich);
	e.payload = esync_event_payload_of(c, &e, new);
	e.tenant = esync_event_tenant(c->t, new);
	esync_event_put(c, &e);
	if (c->t->notify && c->t->tenant != 0)
	{
		e.tenant = esync_event_tenant(c->t, old);	/* who may lose the row hears of it too */
		esync_event_notify(c, &e);
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
	EsyncExtra 	alive = {"deleted", {.type = jbvBool, .val.boolean = false}};
	bool		deleted;
	Jsonb	   *row = esync_replay_now(c->t, c->key, SnapshotSelf, false, &deleted);

	put_deleted(c, old, moved_to, moved_version);
	esync_event_begin_baseline(c, &e);
	e.flags |= present.flags & ESYNC_FLAG_DELETED;
	e.row_xmin = present.row_xmin;
	e.row_tid = present.row_tid;
	e.patch = esync_event_no_patch();
	e.payload = row;
	e.tenant = esync_event_tenant_of_json(c->t, row);
	e.meta = esync_meta_with(NULL, &alive, 1);
	esync_event_put(c, &e);
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

/* The merge that changes this row; NULL: none does. */
static EsyncIntent *
merge_of(EsyncCapture *c, const EsyncRow *old, CommandId cid)
{
	return esync_pending_has_intents() ? esync_pending_intent(old->tuple, cid) : NULL;
}

/* Is the change at hand one of a statement whose context names a base? */
static bool
by_statement(const EsyncCapture *c)
{
	return c->rel != NULL && (c->context->has_base || c->context->has_branch);
}

/* Did this transaction delete the row, and not TRUNCATE the table, which asks no row? */
static bool
is_deleted_here(const EsyncRow *row)
{
	HeapTupleHeader h = row->tuple->t_data;

	return (h->t_infomask & HEAP_XMAX_INVALID) == 0 && !HEAP_XMAX_IS_LOCKED_ONLY(h->t_infomask) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(h));
}

/* The merge that takes this row, or what its author meant by a stale base; NULL: neither. */
static EsyncIntent *
merge_of_deletion(EsyncCapture *c, const EsyncRow *old)
{
	EsyncIntent *in;

	if ((!esync_pending_has_intents() && !by_statement(c)) || !is_deleted_here(old))
		return NULL;
	in = merge_of(c, old, HeapTupleHeaderGetCmax(old->tuple->t_data));
	return in == NULL && by_statement(c) ? esync_sqlmerge_delete(c, old) : in;
}

/* Does the row go because the stream says that it is gone?  Then no event tells of it. */
static bool
is_silent_deletion(EsyncCapture *c, const EsyncRow *old)
{
	EsyncIntent *in;

	if (!esync_pending_has_intents() || !is_deleted_here(old))
		return false;
	in = merge_of(c, old, HeapTupleHeaderGetCmax(old->tuple->t_data));
	if (in == NULL || !in->silent)
		return false;
	return in->written = true;
}

/* ------------------------------------------------------------- the operations */

/* A row came. */
void
esync_record_insert(EsyncCapture *c, EsyncRow *new)
{
	EsyncIntent *in = NULL;

	c->key = esync_record_key(c->t, new);
	if (by_statement(c) && c->t->sql_merge)
		(void) esync_sqlmerge_take_base(c->t, c->context);	/* it is spent */
	if (esync_pending_has_intents())
		in = esync_pending_intent_for_key(c->t->root, c->key);
	if (in == NULL && try_created(c, new))
		return;
	esync_record_turn(c, c->key);
	if (in)
		esync_merged_put(c, in, NULL, new);
	else
		put_created(c, new, NULL, 0, DT_NOBEGIN);
}

/* A row changed; nothing is written where nothing that is recorded changed. */
void
esync_record_update(EsyncCapture *c, EsyncRow *old, EsyncRow *new)
{
	int			nwhich;
	bool		key_changed;
	int		   *which = esync_record_changes(c->t, old, new, &nwhich, &key_changed);
	EsyncIntent *in = merge_of(c, old, HeapTupleHeaderGetCmin(new->tuple->t_data));
	text	   *key;

	if (nwhich == 0 && in == NULL)
		return;
	key = esync_record_key(c->t, old);
	if (key_changed)
	{
		text	   *new_key = esync_record_key(c->t, new);

		if (in && !same_key(key, new_key))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the key of a row of \"%s\" was changed while an edit was merged into it",
							c->t->table_name),
					 errhint("Change the key in a statement without base_version, and not in a trigger.")));

		if (!same_key(key, new_key))
		{
			put_moved(c, old, new, key, new_key);
			return;
		}
	}
	esync_record_turn(c, key);
	if (in == NULL || !in->silent)
		esync_record_meet(c, old);
	if (in)
		esync_merged_put(c, in, old, new);
	else
		put_updated(c, old, new, which, nwhich);
}

/* A row went, unless that was recorded when its key was written again. */
void
esync_record_delete(EsyncCapture *c, EsyncRow *old)
{
	EsyncIntent *in;

	if (is_silent_deletion(c, old))
		return;
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
	in = merge_of_deletion(c, old);
	if (in)
		esync_merged_put_delete(c, in, old);
	else
		put_deleted(c, old, NULL, 0);
}
