/*
 * shown.c: which contender of a conflict the row shows.
 *
 * It may be none: after an undo that nobody contradicts, and where the row was
 * changed unseen, which is nobody's edit.  Reads what clash.c found, and the
 * folds of edit.c.
 */
#include "postgres.h"

#include "merge.h"
#include "paths.h"

/* Raises a stamp to another one that is greater. */
static void
raise_stamp(EsyncStamp *stamp, const EsyncEvent *by)
{
	EsyncStamp	other = esync_event_stamp(by);

	if (esync_stamp_cmp(&other, stamp) > 0)
		*stamp = other;
}

/* The stamp that a contender has in the row: where it was put back, that of the undo. */
EsyncStamp
esync_clash_stamp(const EsyncTracked *t, const EsyncEvents *events, const EsyncEvent *e,
				  const EsyncClash *clash, const EsyncContender *c)
{
	EsyncStamp	stamp = esync_event_stamp(e);
	int64		origin = c->origin ? c->origin : c->event_id;
	int			i = esync_withdraw_find(events, c->event_id);

	if (i >= 0)
		stamp = esync_event_stamp(&events->e[i]);
	for (int k = 0; k < events->n; k++)
		if (esync_withdraw_puts_back(t, &events->e[k], origin, clash))
			raise_stamp(&stamp, &events->e[k]);
	if (esync_withdraw_puts_back(t, e, origin, clash))
		raise_stamp(&stamp, e);
	return stamp;
}

/*
 * The event that a column shows, NULL: none at hand; and the one that it speaks for,
 * where it is an undo.
 */
static const EsyncEvent *
winner_in(EsyncMerge *m, const EsyncEvent *e, int field, int64 *origin)
{
	int			i = field < 0 ? -1 : esync_merge_after(m)->registers[field].event;
	const EsyncEvent *winner = i < m->events->n ? &m->events->e[Max(i, 0)] : e;

	if (i < 0)
		return NULL;
	if ((winner->flags & ESYNC_FLAG_DERIVED) && i > 0)
		winner--;				/* what triggers made of an event belongs to it */
	*origin = esync_withdraw_origin_of_field(m->t, winner, field);
	return winner;
}

/* Does a column show what was changed unseen? */
static bool
shows_drift(EsyncMerge *m, const EsyncEvent *winner, int64 origin)
{
	int			i = origin == 0 ? -1 : esync_withdraw_find(m->events, origin);

	if (i >= 0)
		winner = &m->events->e[i];
	return winner->type == ESYNC_BASELINE && (winner->flags & ESYNC_FLAG_DRIFT);
}

/*
 * The column that tells what a group shows: one that was changed unseen, for that
 * may be one alone; else the first that somebody said something of, else the first
 * that an undo left with what nobody said.  -1: none.
 */
static int
field_of_group(EsyncMerge *m, const EsyncEvent *e, const EsyncGroup *group)
{
	int			first = -1;
	int			mute = -1;

	for (int k = 0; k < group->nfields; k++)
	{
		int			field = group->fields[k];
		int64		origin;
		const EsyncEvent *winner = m->t->fields[field].masked ? NULL :
			winner_in(m, e, field, &origin);

		if (winner && shows_drift(m, winner, origin))
			return field;
		if (winner && first < 0 && (origin != 0 || esync_event_undoes(winner) == 0))
			first = field;
		if (winner && mute < 0)
			mute = field;
	}
	return first >= 0 ? first : mute;
}

/*
 * Marks the contender that a column shows, itself or by an undo that put it back.
 * It may be none: after an undo that nobody contradicts, which is no contender.
 */
static void
mark_shown_in(EsyncMerge *m, const EsyncEvent *e, EsyncClash *clash)
{
	const EsyncTracked *t = m->t;
	int			field = esync_field_at(t->fields, t->nfields, clash->field,
									   strlen(clash->field), PG_INT64_MAX);
	int64		origin = 0;
	const EsyncEvent *winner;

	for (int g = 0; g < t->ngroups; g++)
		if (strcmp(t->groups[g].name, clash->field) == 0)
			field = field_of_group(m, e, &t->groups[g]);
	winner = winner_in(m, e, field, &origin);
	for (int k = 0; winner && k < clash->ncontenders; k++)
	{
		EsyncContender *c = &clash->contenders[k];

		c->shown = c->event_id == winner->event_id ||
			(origin != 0 && (c->event_id == origin || c->origin == origin));
		if (c->shown)
			return;
	}
}

/* Does an operation on a column say of a place in it what a contender says? */
static bool
says_the_same(const EsyncPathOp *op, const EsyncClash *clash, const EsyncContender *c)
{
	JsonbValue	here;
	JsonbValue	there;

	if (c->inner != NIL)
		return false;
	if (!esync_inner_value(&op->value, clash->path, strlen(clash->path), &here) || c->value == NULL)
		return c->value == NULL;
	esync_json_root(c->value, &there);
	return esync_json_equal(&here, &there, false);
}

/* Was the column that a clash lies in changed unseen, and to another value, after a contender? */
static bool
is_drifted(const EsyncTracked *t, const EsyncEvents *events, const EsyncEvent *e,
		   const EsyncClash *clash, const EsyncContender *c, const EsyncStamp *at)
{
	for (int i = 0; i < events->n; i++)
	{
		const EsyncEvent *x = &events->e[i];
		EsyncContender drift;
		EsyncStamp	stamp;
		EsyncWalk	walk;

		if (x->type != ESYNC_BASELINE || !(x->flags & ESYNC_FLAG_DRIFT) ||
			(x->flags & ESYNC_FLAG_WITHDRAWN))
			continue;
		drift = esync_merge_contender(x);
		stamp = esync_clash_stamp(t, events, e, clash, &drift);
		esync_walk_init(&walk, &x->patch->root);
		while (esync_stamp_cmp(&stamp, at) > 0 && esync_walk_next(&walk))
		{
			EsyncPathOp op;

			if (esync_paths_read(&walk.value, &op) &&
				esync_merge_op_in_field(t, &op, x->event_id, clash->column - 1) &&
				!says_the_same(&op, clash, c))
				return true;
		}
	}
	return false;
}

/*
 * Marks the contender that shows inside of a column, or of those who say whether
 * there is a row: the greatest stamp.  Whether there is one is said by the delete
 * register alone, however late an edit was saved.  It is none of them where the
 * row was changed unseen since.
 */
static void
mark_shown(const EsyncTracked *t, const EsyncEvents *events, const EsyncEvent *e,
		   EsyncClash *clash)
{
	EsyncStamp	best = {0};
	int			shown = -1;

	for (int i = 0; i < clash->ncontenders; i++)
	{
		EsyncStamp	stamp;

		if (clash->field == NULL && !esync_clash_is_word(clash->contenders[i].type))
			continue;
		stamp = esync_clash_stamp(t, events, e, clash, &clash->contenders[i]);
		if (shown < 0 || esync_stamp_cmp(&stamp, &best) > 0)
		{
			best = stamp;
			shown = i;
		}
	}
	if (shown < 0)
		return;
	if (clash->field == NULL)
		clash->contenders[shown].shown = (clash->contenders[shown].type == ESYNC_DELETED) ==
			((e->flags & ESYNC_FLAG_DELETED) != 0);
	else
		clash->contenders[shown].shown = !is_drifted(t, events, e, clash,
													&clash->contenders[shown], &best);
}

/* Marks the contender of an open conflict that the row shows; `whole` as in esync_clash_find. */
void
esync_clash_mark_shown(EsyncMerge *m, const EsyncEvent *e, const EsyncEvents *whole,
					   EsyncClash *clash)
{
	if (clash->field && clash->column == 0)
		mark_shown_in(m, e, clash);
	else
		mark_shown(m->t, whole && clash->field == NULL ? whole : m->events, e, clash);
}
