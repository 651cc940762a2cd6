/*
 * merged.c: the events of merges: the author's own, as edit.c made it, and
 * what the table's own triggers made of the row beyond it.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "capture.h"
#include "merge.h"

/* The row as the merge was to make it; columns that nobody edits are as they came. */
static EsyncRow
expected_row(EsyncTracked *t, const EsyncIntent *in, const EsyncRow *old, const EsyncRow *new)
{
	int			natts = esync_relnatts(t->relid);
	const EsyncRow *from = old ? old : new;
	EsyncRow	row;

	row.values = palloc(natts * sizeof(Datum));
	row.isnull = palloc(natts * sizeof(bool));
	row.tuple = new->tuple;
	memcpy(row.values, from->values, natts * sizeof(Datum));
	memcpy(row.isnull, from->isnull, natts * sizeof(bool));
	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncColumn *col = &t->columns[i];
		int			k = col->attnum - 1;

		if (!col->patched)
		{
			row.values[k] = new->values[k];
			row.isnull[k] = new->isnull[k];
		}
		else if (in->set[col->field])
		{
			row.values[k] = in->values[col->field];
			row.isnull[k] = in->isnull[col->field];
		}
	}
	return row;
}

/* The clashes of the event at hand, now that it has a name; true: one stays open. */
static bool
note_clashes(EsyncCapture *c, EsyncIntent *in, EsyncEvent *e)
{
	bool		any = (c->head.found && (c->head.flags & ESYNC_FLAG_CONFLICT) != 0) ||
		esync_event_undoes(e) != 0;
	ListCell   *lc;

	foreach(lc, in->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		any |= clash->open;
		for (int i = 0; i < clash->ncontenders; i++)
			if (clash->contenders[i].event_id == ESYNC_AT_HAND)
			{
				clash->contenders[i].event_id = e->event_id;
				clash->contenders[i].version = e->version;
				clash->mine = e->event_id;
			}
	}
	return any && esync_ledger_note(c->t, e, in->clashes);
}

/*
 * Writes the event of a merge on the aggregate at hand; the caller has set
 * row, payload and tenant.
 */
static void
put_merge(EsyncCapture *c, EsyncIntent *in, EsyncEvent *e)
{
	e->effective_high = c->head.found ? Max(e->effective, c->head.effective_high) : e->effective;
	if (note_clashes(c, in, e))
		e->flags |= ESYNC_FLAG_CONFLICT;
	esync_store_put(c->leaf, c->t, e);
	esync_event_done(c, e);
	in->event = *e;
	in->event.aggregate_id = in->aggregate_id;	/* the trigger's own goes with the trigger */
	in->written = true;
}

/*
 * The event of a merge, by name, number and commit time, of which last_modified
 * columns of the row tell.
 */
static void
begin_merge(EsyncCapture *c, const EsyncIntent *in, EsyncEvent *e, const EsyncRow *stamped)
{
	TimestampTz stamp = stamped ? esync_event_stamped_at(c->t, stamped) : 0;

	*e = in->event;
	e->event_id = esync_store_next_id(c->t);
	e->aggregate_id = c->key;
	e->version = c->head.found ? c->head.version + 1 : 1;
	e->commit = Max(stamp ? stamp : GetCurrentTimestamp(), e->commit);
	if (c->head.found)
		e->commit = Max(e->commit, c->head.commit);
}

/*
 * What the table's own triggers made of a row beyond the merge: an event of
 * its own, which knows the merge and comes from no device.  It was saved when
 * its cause was, so that it beats nothing that its cause does not.
 */
static void
put_derived(EsyncCapture *c, const EsyncEvent *cause, const EsyncRow *expected,
			const EsyncRow *new)
{
	const EsyncContext *outer = c->context;
	EsyncContext context = {0};
	EsyncEvent	e;
	EsyncEventType type = ESYNC_UPDATED;
	bool		was = esync_event_tombstoned(c->t, expected);
	bool		is = esync_event_tombstoned(c->t, new);
	int			nwhich;
	bool		key_changed;
	int		   *which = esync_record_changes(c->t, expected, new, &nwhich, &key_changed);

	if (nwhich == 0)
		return;
	context.user_id = outer->user_id;
	context.db_role = outer->db_role;
	context.has_branch = context.has_submit = true;
	context.branch = cause->branch;
	context.submit = context.submit_raw = cause->submit;
	c->context = &context;
	if (was != is)
		type = is ? ESYNC_DELETED : ESYNC_RESTORED;
	esync_event_begin(c, &e, type, new, DT_NOBEGIN, (EsyncExtra[MAX_EXTRAS]) {0}, 0);
	c->context = outer;
	e.flags |= ESYNC_FLAG_DERIVED;
	if (is)
		e.flags |= ESYNC_FLAG_DELETED;
	esync_event_set_row(&e, new);
	e.patch = esync_event_patch(c->t, expected, new, which, nwhich);
	e.payload = esync_event_payload_of(c, &e, new);
	e.tenant = esync_event_tenant(c->t, new);
	esync_event_put(c, &e);
}

/* What the table's policy makes of the conflicts of a statement of plain SQL. */
static void
decide(EsyncCapture *c, EsyncIntent *in)
{
	if (!in->plain || in->decision == NULL)
		return;
	esync_policy_decide(esync_tracked_get(c->t->root), in, true);
	esync_record_turn(c, c->key);
}

/* A merge changed or made a row: its event, and what the triggers made of it. */
void
esync_merged_put(EsyncCapture *c, EsyncIntent *in, const EsyncRow *old, const EsyncRow *new)
{
	EsyncRow	expected = expected_row(c->t, in, old, new);
	EsyncEvent	e;

	if (in->silent)
		in->written = true;
	if (!in->written)
	{
		begin_merge(c, in, &e, new);
		esync_event_set_row(&e, new);
		e.payload = esync_event_payload_of(c, &e, &expected);
		e.tenant = esync_event_tenant(c->t, new);
		put_merge(c, in, &e);
	}
	put_derived(c, &in->event, &expected, new);
	if (in->cxt)				/* a statement's own, and nobody asks again: not the decision either */
		esync_pending_forget_intent(in);
	decide(c, in);
	if (in->cxt)
		MemoryContextDelete(in->cxt);
}

/* A merge took the row. */
void
esync_merged_put_delete(EsyncCapture *c, EsyncIntent *in, const EsyncRow *old)
{
	EsyncEvent	e;

	begin_merge(c, in, &e, NULL);
	e.payload = esync_event_payload_of(c, &e, old);
	e.tenant = esync_event_tenant(c->t, old);
	put_merge(c, in, &e);
	decide(c, in);
}

/*
 * A merge that changes no row: all its fields lost, or the row is gone (NULL).
 * The head's row stays the one that the stream tells of.
 */
void
esync_merged_put_rowless(EsyncCapture *c, EsyncIntent *in, const EsyncRow *row)
{
	EsyncEvent	e;

	begin_merge(c, in, &e, NULL);
	e.flags |= ESYNC_FLAG_NO_ROW;
	if (row)
	{
		esync_event_set_row(&e, row);
		e.payload = esync_event_payload_of(c, &e, row);
		e.tenant = esync_event_tenant(c->t, row);
	}
	put_merge(c, in, &e);
}
