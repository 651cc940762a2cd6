/*
 * event.c: what is common to the events that capture writes: clocks, meta,
 * payload, tenant, notification, and the head that moves with each.
 *
 * Knows nothing of what happened to the row: record.c and merged.c do.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "merge.h"
#include "paths.h"

#define MAX_NOTIFIED 1000		/* bytes; JSON may escape each with six */

/* Is the row marked deleted by the tombstone column? */
bool
esync_event_tombstoned(EsyncTracked *t, const EsyncRow *row)
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
text *
esync_event_tenant(EsyncTracked *t, const EsyncRow *row)
{
	JsonbValue	v;

	if (t->tenant == 0 || row->isnull[t->tenant - 1])
		return NULL;
	esync_encode_value(t->tenant_shape, 0, row->values[t->tenant - 1], false, &v);
	return tenant_text(&v);
}

/* The same of a row as JSON. */
text *
esync_event_tenant_of_json(EsyncTracked *t, const Jsonb *row)
{
	const char *name = t->tenant == 0 ? NULL : t->fields[t->tenant_field].name;
	JsonbValue	v;

	if (name == NULL || !esync_json_member(&row->root, name, strlen(name), &v))
		return NULL;
	return tenant_text(&v);
}

/* An empty patch: the payload, or the event's type, is all there is to say. */
Jsonb *
esync_event_no_patch(void)
{
	EsyncJson	json;

	esync_json_init(&json, 16);
	esync_json_open_array(&json, 0);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Do the operations make exactly this value of that one, to the last digit? */
static bool
makes(const Jsonb *ops, const JsonbValue *from, const JsonbValue *to)
{
	JsonbValue	value = *from;
	EsyncPathOp op;
	EsyncWalk	walk;

	esync_walk_init(&walk, &ops->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op))
			esync_json_root(esync_paths_apply(&value, &op), &value);
	return esync_json_equal(&value, to, true);
}

/*
 * What changed in one column that is merged path by path, as a patch; NULL
 * where only the whole column tells it.
 */
static Jsonb *
inner_patch(EsyncTracked *t, const EsyncColumn *col, const EsyncRow *old, const EsyncRow *new)
{
	int			k = col->attnum - 1;
	JsonbValue	from;
	JsonbValue	to;
	Jsonb	   *ops;

	if (!t->fields[col->field].json_merge || old->isnull[k] || new->isnull[k])
		return NULL;
	esync_encode_value(t->row, col->shape, old->values[k], false, &from);
	esync_encode_value(t->row, col->shape, new->values[k], false, &to);
	ops = esync_paths_diff(&from, &to, t->fields[col->field].name);
	return makes(ops, &from, &to) ? ops : NULL;
}

/* The patch that leads from one row to another in the columns that changed. */
Jsonb *
esync_event_patch(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new,
				  const int *which, int nwhich)
{
	Jsonb	  **parts = palloc(Max(nwhich, 1) * sizeof(Jsonb *));
	bool		inner = false;
	int			n = 0;
	EsyncJson	json;

	for (int i = 0; i < nwhich; i++)
	{
		parts[i] = inner_patch(t, &t->columns[which[i]], old, new);
		inner |= parts[i] != NULL;
	}
	if (!inner)
		return esync_encode_patch(t->row, new->values, new->isnull, which, nwhich);
	for (int i = 0; i < nwhich; i++)
	{
		if (parts[i] == NULL)
			parts[i] = esync_encode_patch(t->row, new->values, new->isnull, &which[i], 1);
		n += esync_json_count(&parts[i]->root);
	}
	esync_json_init(&json, 256);
	esync_json_open_array(&json, n);
	for (int i = 0; i < nwhich; i++)
	{
		EsyncWalk	walk;

		esync_walk_init(&walk, &parts[i]->root);
		while (esync_walk_next(&walk))
			esync_json_value(&json, &walk.value);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/*
 * Do the last_modified columns of the row hold the event's commit time?  Without
 * a payload readers take them to.  An event that changed no row is passed over.
 */
static bool
stamps_are_commit(const EsyncTracked *t, const EsyncEvent *e, const EsyncRow *row)
{
	if (e->flags & ESYNC_FLAG_NO_ROW)
		return true;
	for (int i = 0; i < t->nstamps; i++)
		if (row->isnull[t->stamps[i] - 1] ||
			DatumGetTimestampTz(row->values[t->stamps[i] - 1]) != e->commit)
			return false;
	return true;
}

/*
 * The whole row as payload, where this event carries one.  With changes alone, a
 * delete has none that took the row; one that marked it is like any other.
 */
Jsonb *
esync_event_payload_of(EsyncCapture *c, const EsyncEvent *e, const EsyncRow *row)
{
	bool		hard = e->type == ESYNC_DELETED && e->row_xmin == InvalidTransactionId;

	if (!c->t->payload_full && e->type != ESYNC_CREATED && e->type != ESYNC_BASELINE &&
		(hard || (e->version % ESYNC_FULL_EVERY != 0 && stamps_are_commit(c->t, e, row))))
		return NULL;
	return esync_encode_row(c->t->row, row->values, row->isnull);
}

/* ------------------------------------------------------- one event's clothing */

/*
 * The clocks of an event by its author: commit under the row's lock, submit
 * as corrected, effective after all that the author has seen (the head, and
 * `after`).  Adds to extras what was corrected.
 */
static void
set_clocks(EsyncCapture *c, EsyncEvent *e, TimestampTz after, EsyncExtra *extras, int *nextras)
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
		esync_meta_time(x->submit_raw, &extras[(*nextras)++].value);
	}
	if (e->flags & ESYNC_FLAG_SHIFTED)
	{
		extras[*nextras].key = "clock_offset_ms";
		esync_meta_int(x->offset_ms, &extras[(*nextras)++].value);
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
TimestampTz
esync_event_stamped_at(EsyncTracked *t, const EsyncRow *row)
{
	TimestampTz stamp;

	if (t->nstamps == 0 || row->isnull[t->stamps[0] - 1])
		return 0;
	stamp = DatumGetTimestampTz(row->values[t->stamps[0] - 1]);
	return stamp < GetCurrentTransactionStartTimestamp() || stamp > GetCurrentTimestamp() ? 0 : stamp;
}

/* The tuple that an event leaves. */
void
esync_event_set_row(EsyncEvent *e, const EsyncRow *row)
{
	e->row_xmin = esync_row_xmin(row);
	e->row_tid = row->tuple->t_self;
}

/*
 * An event of the session's author on the aggregate at hand, based on its
 * head; what is left to the caller is row_xmin, patch and payload.  stamped
 * is a row whose last_modified columns give the commit time; or NULL.
 */
void
esync_event_begin(EsyncCapture *c, EsyncEvent *e, EsyncEventType type, const EsyncRow *stamped,
			TimestampTz after, EsyncExtra *extras, int nextras)
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
	if (c->following)
		e->flags |= ESYNC_FLAG_FOLLOWING;
	e->db_role = x->db_role;
	if (stamped)
		e->commit = esync_event_stamped_at(c->t, stamped);
	set_clocks(c, e, after, extras, &nextras);
	if (x->has_base && x->base_version != e->base_version &&
		(!c->t->sql_merge || (type != ESYNC_CREATED && x->base_version > e->base_version)))
	{
		extras[nextras].key = "base_version";
		esync_meta_int(x->base_version, &extras[nextras++].value);
	}
	e->meta = esync_meta_with(x->meta, extras, nextras);
}

/*
 * A Baseline on the aggregate at hand: nobody's edit.  Without a head it is
 * the ground, before everything; else it lies after all that is known.
 */
void
esync_event_begin_baseline(EsyncCapture *c, EsyncEvent *e)
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
void
esync_event_notify(EsyncCapture *c, const EsyncEvent *e)
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
void
esync_event_done(EsyncCapture *c, const EsyncEvent *e)
{
	if (c->t->notify)
		esync_event_notify(c, e);
	c->head.found = true;
	c->head.version = e->version;
	c->head.event_id = e->event_id;
	c->head.commit = e->commit;
	c->head.effective_high = e->effective_high;
	c->head.row_xmin = e->row_xmin;
	c->head.row_tid = e->row_tid;
	c->head.flags = e->flags;
}

/*
 * Where the row is in conflict: what the event sets closes it, since its
 * author had seen everything; nobody's Baseline closes nothing, but is what the
 * row shows.
 */
static void
settle_conflicts(EsyncCapture *c, EsyncEvent *e)
{
	if (!c->head.found || (c->head.flags & ESYNC_FLAG_CONFLICT) == 0)
		return;
	if (e->type == ESYNC_BASELINE)
		esync_ledger_drift(c->t, e, ((c->head.flags ^ e->flags) & ESYNC_FLAG_DELETED) != 0);
	if (e->type == ESYNC_BASELINE || (e->flags & ESYNC_FLAG_DERIVED) ||
		esync_ledger_note(c->t, e, esync_clash_settle(c->t, e)))
		e->flags |= ESYNC_FLAG_CONFLICT;
}

/* Writes the event. */
void
esync_event_put(EsyncCapture *c, EsyncEvent *e)
{
	settle_conflicts(c, e);
	esync_store_put(c->leaf, c->t, e);
	esync_event_done(c, e);
}
