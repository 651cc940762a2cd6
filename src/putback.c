/*
 * putback.c: what is put back where an event is taken back.
 *
 * Events that were undone do not count.  A field gets the value that the fold
 * of those that do has, if what it shows does not count any more: it is from
 * an event that was undone, or was put back by an undo from such a one, or
 * although a later event counts again.  Whether the row lives is told by a
 * fold of its own: a creation that was undone says nothing of it, while its
 * values are the ground as long as no creation counts.
 *
 * Memory: the caller's context.
 */
#include "postgres.h"

#include "paths.h"
#include "undo.h"

/* The undo that withdrew an event; 0: none that stands. */
int64
esync_undo_by(const EsyncUndo *u, int at)
{
	for (int i = u->events->n - 1; i > at; i--)
		if (!(u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) &&
			esync_event_undoes(&u->events->e[i]) == u->events->e[at].event_id)
			return u->events->e[i].event_id;
	return 0;
}

/* ------------------------------------------------------------------ the folds */

/* Is event i taken back: is it the target, or one that the target had brought back? */
static bool
is_taken(const EsyncUndo *u, int i)
{
	return i >= 0 && !u->was[i] && (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) != 0;
}

/* Does event i count now and did not before, or the other way round? */
static bool
is_turned(const EsyncUndo *u, int i)
{
	return u->was[i] != ((u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) != 0);
}

/* Was a row found, or found gone, where the stream said otherwise? */
static bool
tells_of_life(const EsyncEvent *e, bool *deleted)
{
	JsonbValue	value;

	if (e->type != ESYNC_BASELINE || !(e->flags & ESYNC_FLAG_DRIFT) || e->meta == NULL ||
		!esync_json_member(&e->meta->root, "deleted", 7, &value) || value.type != jbvBool)
		return false;
	*deleted = value.val.boolean;
	return true;
}

/* Does an event say how the row came to be? */
static bool
is_birth(const EsyncEvent *e)
{
	bool		deleted;

	if (e->type != ESYNC_BASELINE)
		return e->type == ESYNC_CREATED;
	return (e->flags & ESYNC_FLAG_DRIFT) ? tells_of_life(e, &deleted) && !deleted :
		e->payload != NULL;
}

/* Was the tombstone column found set, or cleared, where the stream said otherwise? */
static bool
finds_tombstone(EsyncUndo *u, int i)
{
	return u->events->e[i].type == ESYNC_BASELINE &&
		(u->events->e[i].flags & ESYNC_FLAG_DRIFT) && u->t->tombstone_field >= 0 &&
		esync_merge_sets(&u->m, i, u->t->tombstone_field, NULL);
}

/* Does event i say whether the row lives? */
static bool
is_word(EsyncUndo *u, int i)
{
	const EsyncEvent *e = &u->events->e[i];
	EsyncEventType type = esync_merge_contender(e).type;
	bool		deleted;

	return is_birth(e) || type == ESYNC_DELETED || type == ESYNC_RESTORED ||
		tells_of_life(e, &deleted) || finds_tombstone(u, i);
}

/* Looks at the creations of the row: which count, which went before, which go now. */
static void
note_births(EsyncUndo *u)
{
	u->no_birth = true;
	for (int i = 0; i < u->events->n; i++)
	{
		if (!is_birth(&u->events->e[i]))
			continue;
		if (!(u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN))
			u->no_birth = false;
		else if (u->was[i])
			u->has_ground = true;
		else
			u->takes_birth = true;
	}
}

/* Is it the row's last creation that is taken back? */
static bool
is_unborn(const EsyncUndo *u)
{
	return u->no_birth && u->takes_birth;
}

/*
 * Does event i not count without the target?  Of a row whose creations were all
 * undone, what it held then is still the ground of its fields.
 */
static bool
is_out(const EsyncUndo *u, int i)
{
	const EsyncEvent *e = &u->events->e[i];

	return (e->flags & ESYNC_FLAG_WITHDRAWN) &&
		(!is_birth(e) || !u->no_birth || (is_taken(u, i) && u->has_ground));
}

/* Does event i set a place inside of a column, or something around it or in it? */
static bool
sets_place(EsyncUndo *u, int i, int field, const char *path, int len)
{
	EsyncEvent *e = &u->events->e[i];
	EsyncWalk	walk;

	if (esync_json_count(&e->patch->root) == 0)
		return esync_merge_sets(&u->m, i, field, NULL);
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(u->t, &op, e->event_id, field) &&
			esync_paths_overlap(path, len, op.path + op.columnlen, op.len - op.columnlen))
			return true;
	}
	return false;
}

/* Which events were withdrawn when undo i was written, by places. */
static Bitmapset *
withdrawn_at(const EsyncUndo *u, int i)
{
	Bitmapset  *gone = NULL;

	for (int k = i; k >= 0; k--)
		if (u->undoes[k] >= 0 && !bms_is_member(k, gone))
			gone = bms_add_member(gone, u->undoes[k]);
	return gone;
}

/* Notes who undoes whom, and, if any undo was taken back, what each of them did not count. */
static void
note_undos(EsyncUndo *u)
{
	int			n = u->events->n;
	bool		back = false;

	u->undoes = palloc(n * sizeof(int));
	u->then = palloc0(n * sizeof(Bitmapset *));
	for (int i = 0; i < n; i++)
	{
		int64		id = esync_event_undoes(&u->events->e[i]);

		u->undoes[i] = id ? esync_withdraw_find(u->events, id) : -1;
		back |= id != 0 && (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN);
	}
	for (int i = 0; back && i < n; i++)
		if (u->undoes[i] >= 0 && !(u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN))
			u->then[i] = withdrawn_at(u, i);
}

/* Is event x, later than the one at origin (-1: none), back since undo i put that one in place? */
static bool
is_back_since(const EsyncUndo *u, int i, int origin, int x)
{
	EsyncStamp	mine;
	EsyncStamp	its;

	if (u->undoes[x] >= 0 || (u->events->e[x].flags & ESYNC_FLAG_WITHDRAWN))
		return false;
	if (origin < 0)
		return true;
	mine = esync_event_stamp(&u->events->e[x]);
	its = esync_event_stamp(&u->events->e[origin]);
	return esync_stamp_cmp(&mine, &its) > 0;
}

/*
 * Did an event that does not count any more, and did when undo i was written,
 * have a part in the object that this put in a place?
 */
static bool
has_lost_part(EsyncUndo *u, int i, int field, const EsyncPathOp *op)
{
	Bitmapset  *gone = NULL;

	if (!u->t->fields[field].json_merge || op->value.type != jbvBinary ||
		!JsonContainerIsObject(op->value.val.binary.data))
		return false;
	for (int x = 0; x < i; x++)
	{
		if (u->undoes[x] >= 0 || !is_out(u, x) ||
			!sets_place(u, x, field, op->path + op->columnlen, op->len - op->columnlen))
			continue;
		if (gone == NULL)
			gone = withdrawn_at(u, i);
		if (!bms_is_member(x, gone))
			return true;
	}
	return false;
}

/*
 * Has what undo i put in a place no ground any more?  The event that it is from
 * does not count, or one of several, or a later one does again.
 */
static bool
is_place_void(EsyncUndo *u, int i, int64 origin_id, int field, const EsyncPathOp *op)
{
	const char *path = op->path + op->columnlen;
	int			len = op->len - op->columnlen;
	int			origin = origin_id ? esync_withdraw_find(u->events, origin_id) : -1;

	if ((origin >= 0 && is_out(u, origin)) || has_lost_part(u, i, field, op))
		return true;
	for (int x = bms_next_member(u->then[i], -1); x >= 0; x = bms_next_member(u->then[i], x))
		if (is_back_since(u, i, origin, x) && sets_place(u, x, field, path, len))
			return true;
	return false;
}

/* The same of the row's life.  Nothing at all was put there where no creation was left. */
static bool
is_word_void(EsyncUndo *u, int i)
{
	int64		origin_id = esync_withdraw_origin(&u->events->e[i], "", 0);
	int			origin = origin_id ? esync_withdraw_find(u->events, origin_id) : -1;

	if (origin < 0 || (u->events->e[origin].flags & ESYNC_FLAG_WITHDRAWN))
		return true;
	for (int x = bms_next_member(u->then[i], -1); x >= 0; x = bms_next_member(u->then[i], x))
		if (is_back_since(u, i, origin, x) && is_word(u, x))
			return true;
	return false;
}

/* A former undo without what has no ground any more: below it lies what is to be shown then. */
static EsyncEvent
without_stand_ins(EsyncUndo *u, int i)
{
	const EsyncEvent *e = &u->events->e[i];
	EsyncEvent	copy = *e;
	List	   *ops = NIL;
	EsyncWalk	walk;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		int			field;

		if (!esync_paths_read(&walk.value, &op) ||
			(field = esync_merge_field_of_op(u->t, &op, e->event_id)) < 0 ||
			!is_place_void(u, i, esync_withdraw_origin(e, op.path, op.len), field, &op))
			ops = lappend(ops, esync_json_from_value(&walk.value));
	}
	copy.patch = esync_json_array(ops);
	if (is_word_void(u, i))
		copy.meta = NULL;
	return copy;
}

/* Has what event i says of the row's life no ground any more? */
static bool
is_hollow(EsyncUndo *u, int i)
{
	if (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN)
		return true;
	return u->undoes[i] >= 0 && is_word_void(u, i);
}

/* Folds all events, and those that are left without the target. */
static void
make_folds(EsyncUndo *u)
{
	note_births(u);
	note_undos(u);
	esync_fold_init(&u->all, u->t->fields, u->t->nfields, u->t->tombstone_field);
	esync_fold_init_like(&u->without, &u->all);
	esync_fold_init_like(&u->words, &u->all);
	for (int i = 0; i < u->events->n; i++)
	{
		EsyncEvent *e = &u->events->e[i];

		esync_fold_add(&u->all, e, i);
		if (is_word(u, i) && !is_hollow(u, i))
			esync_fold_add(&u->words, e, i);
		if (is_out(u, i))
			continue;
		if (u->undoes[i] < 0)
			esync_fold_add(&u->without, e, i);
		else
		{
			EsyncEvent *copy = palloc(sizeof(EsyncEvent));

			*copy = without_stand_ins(u, i);
			esync_fold_add(&u->without, copy, i);
		}
	}
}

/* The event from which event i has the row's life: itself, unless an undo put it back. */
static int64
source_of_life(const EsyncUndo *u, int i)
{
	int64		origin = esync_withdraw_origin(&u->events->e[i], "", 0);

	return origin ? origin : u->events->e[i].event_id;
}

/* Does undo i put anything in a place that has its ground still?  origin: from which event; 0: none. */
static bool
puts_there(EsyncUndo *u, int i, int field, const char *path, int len, int64 *origin)
{
	const EsyncEvent *e = &u->events->e[i];
	EsyncWalk	walk;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (!esync_paths_read(&walk.value, &op) ||
			!esync_merge_op_in_field(u->t, &op, e->event_id, field) ||
			!esync_paths_overlap(path, len, op.path + op.columnlen, op.len - op.columnlen))
			continue;
		*origin = esync_withdraw_origin(e, op.path, op.len);
		if (!is_place_void(u, i, *origin, field, &op))
			return true;
	}
	return false;
}

/* The event from which event i has a field, or a place in it. */
static int64
source_of(EsyncUndo *u, int i, int field, const char *path, int len)
{
	int64		origin;

	if (u->undoes[i] >= 0 && puts_there(u, i, field, path, len, &origin) && origin)
		return origin;
	return u->events->e[i].event_id;
}

/* Is event i an undo, and has what it put in a place no ground any more? */
static bool
is_void_in(EsyncUndo *u, int i, int field, const char *path, int len)
{
	int64		origin;

	return u->undoes[i] >= 0 && !puts_there(u, i, field, path, len, &origin);
}

/* Does a field that event i shows come from what does not count any more? */
static bool
shows_out(EsyncUndo *u, int i, int field)
{
	return is_out(u, i) || is_void_in(u, i, field, "", 0);
}

static bool
is_living(const EsyncFold *fold)
{
	return esync_fold_has_row(fold) && !fold->deleted;
}

/* ------------------------------------------------------------------- findings */

/* What is put back at a path is from that event, if there is one that counts. */
static void
note_from(EsyncUndo *u, const char *path, int64 event_id)
{
	EsyncMember *m = palloc(sizeof(EsyncMember));
	int			i = esync_withdraw_find(u->events, event_id);

	if (i < 0 || (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN))
		return;
	*m = esync_json_pair(path, esync_value_int64(event_id));
	u->from = lappend(u->from, m);
}

/* A field, or the row (NULL), is left as it is. */
static void
keep(EsyncUndo *u, const char *field, const char *reason, int64 by)
{
	EsyncMember members[3];
	int			n = 0;

	members[n++] = esync_json_pair("field", esync_value_string(field));
	members[n++] = esync_json_pair("reason", esync_value_string(reason));
	if (by != 0)
		members[n++] = esync_json_pair("event_id", esync_value_int64(by));
	u->kept = lappend(u->kept, esync_json_object(n, members));
}

/* The same because of another event, which knew the target or not. */
static void
keep_for(EsyncUndo *u, const char *field, int by)
{
	EsyncContender winner = esync_merge_contender(&u->events->e[by]);
	EsyncContender target = esync_merge_contender(u->target);

	keep(u, field, esync_merge_seen(&winner, &target) ? "changed" : "lost", winner.event_id);
}

/* ------------------------------------------------------------ the row as a whole */

/* Does an event set any field?  The tombstone column is none: a delete is no edit of the row. */
static bool
edits_fields(EsyncUndo *u, int i)
{
	for (int f = 0; f < u->t->nfields; f++)
		if (f != u->t->tombstone_field && esync_merge_sets(&u->m, i, f, NULL))
			return true;
	return false;
}

/*
 * The last event after the target by which somebody changed the row who had seen
 * the target; -1: none.  The edit of an author who had not came late, and would
 * have met the row as it is without the target.  Where a creation is undone it
 * may have nothing else to stand on: then all edits are meant.
 */
static int
edited_since(EsyncUndo *u)
{
	EsyncContender target = esync_merge_contender(u->target);

	for (int i = u->events->n - 1; i > u->at; i--)
	{
		const EsyncEvent *e = &u->events->e[i];
		EsyncContender other = esync_merge_contender(e);

		if (!(e->flags & (ESYNC_FLAG_WITHDRAWN | ESYNC_FLAG_DERIVED)) &&
			esync_event_undoes(e) == 0 &&
			(u->takes_birth || esync_merge_seen(&other, &target)) &&
			(e->type == ESYNC_CREATED || edits_fields(u, i)))
			return i;
	}
	return -1;
}

/* The row lives, or is deleted, as it is without the target. */
static void
put_back_life(EsyncUndo *u)
{
	int			i = esync_withdraw_find(u->events, u->words.deleted_stamp.event_id);
	int64		source = i < 0 ? 0 : source_of_life(u, i);
	int			tombstone = u->t->tombstone_field;
	JsonbValue	value;

	u->life = is_living(&u->words) ? 1 : -1;
	u->hard = u->life < 0 && (i < 0 ? tombstone < 0 : u->words.gone);
	u->undone = lappend(u->undone, NULL);
	note_from(u, "", source);
	if (tombstone < 0 || u->hard)
		return;
	note_from(u, psprintf("/%s", esync_pointer_escape(u->t->fields[tombstone].name)), source);
	if (u->life < 0 && i >= 0 && esync_fold_value(&u->words, tombstone, &value) &&
		value.type != jbvNull)
		u->set[u->nset++] = esync_json_pair(u->t->fields[tombstone].name, value);
}

/* Is any word on the row's life withdrawn now, or back? */
static bool
changes_words(EsyncUndo *u)
{
	for (int i = 0; i < u->events->n; i++)
		if (is_turned(u, i) && is_word(u, i))
			return true;
	return false;
}

/* The undo by which the last of the row's creations is withdrawn; 0: there is none. */
static int64
unborn_by(const EsyncUndo *u)
{
	for (int i = u->events->n - 1; i >= 0; i--)
		if (is_birth(&u->events->e[i]))
			return esync_undo_by(u, i);
	return 0;
}

/*
 * What becomes of the row as a whole.  It is not taken from those who edited it
 * since: then nothing is undone.  Who says nothing but that there was no row
 * gives way to whoever says something.
 */
static void
undo_life(EsyncUndo *u)
{
	int			winner = esync_withdraw_find(u->events, u->all.deleted_stamp.event_id);
	bool		lives = is_living(&u->words);
	bool		stays_gone = !lives && !is_living(&u->all);
	int			since = -1;

	if (winner < 0)
		return;
	if (!changes_words(u) || !is_hollow(u, winner) ||
		(stays_gone && !(u->events->e[winner].flags & ESYNC_FLAG_WITHDRAWN) &&
		 source_of_life(u, winner) == u->events->e[winner].event_id))
	{
		if (is_word(u, u->at))
			keep_for(u, NULL, winner);
		return;
	}
	if (stays_gone && !esync_fold_has_row(&u->words) && !u->words.gone)
	{
		keep(u, NULL, "undone", unborn_by(u));
		return;
	}
	if (!lives && is_living(&u->all))
		since = edited_since(u);
	if (since >= 0)
	{
		keep(u, NULL, "changed", u->events->e[since].event_id);
		u->refused = true;
	}
	else
		put_back_life(u);
}

/* ------------------------------------------------------------- field by field */

/* Does a field that the target set, or what the target had taken back, show another event? */
static bool
shows_another(EsyncUndo *u, int winner, int field)
{
	bool		sets = false;

	for (int i = u->at; i >= 0;
		 i = esync_withdraw_find(u->events, esync_event_undoes(&u->events->e[i])))
	{
		if (i == winner)
			return false;
		sets |= esync_merge_sets(&u->m, i, field, NULL);
	}
	return sets;
}

/* Is event i a creation that is undone, below which there is nothing to be shown? */
static bool
is_ground(const EsyncUndo *u, int i)
{
	return (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) && !is_out(u, i);
}

/* A column as a whole: it is put back if it is shown from the target. */
static void
undo_column(EsyncUndo *u, int field)
{
	const char *name = u->t->fields[field].name;
	int			winner = u->all.registers[field].event;
	int			below = u->without.registers[field].event;
	JsonbValue	value;

	if (winner < 0 || !esync_fold_value(&u->without, field, &value))
		return;
	if (!shows_out(u, winner, field))
	{
		if (is_ground(u, winner))
			keep(u, name, "row", 0);
		else if (shows_another(u, winner, field))
			keep_for(u, name, winner);
		return;
	}
	u->set[u->nset++] = esync_json_pair(name, value);
	u->undone = lappend(u->undone, unconstify(char *, name));
	if (below >= 0)
		note_from(u, psprintf("/%s", esync_pointer_escape(name)), source_of(u, below, field, "", 0));
}

/* The last event, by stamp, that sets a place; of those that stay, or of all.  -1: none. */
static int
last_setter(EsyncUndo *u, int field, const char *path, int len, bool staying)
{
	int			best = -1;

	for (int i = 0; i < u->events->n; i++)
	{
		EsyncStamp	mine = esync_event_stamp(&u->events->e[i]);
		EsyncStamp	other = esync_event_stamp(&u->events->e[Max(best, 0)]);

		if ((staying && is_out(u, i)) || !sets_place(u, i, field, path, len) ||
			(staying && is_void_in(u, i, field, path, len)))
			continue;
		if (best < 0 || esync_stamp_cmp(&mine, &other) > 0)
			best = i;
	}
	return best;
}

/* An operation by which a place gets another value. */
static Jsonb *
replace_op(const char *path, const JsonbValue *value)
{
	EsyncMember members[3] = {esync_json_pair("op", esync_value_string("replace")),
		esync_json_pair("path", esync_value_string(path)), esync_json_pair("value", *value)};

	return esync_json_object(3, members);
}

/* Is a place of the column at hand, or one around it, put back already? */
static bool
is_put_back(const EsyncUndo *u, const char *place, int len)
{
	ListCell   *lc;

	foreach(lc, u->places)
	{
		int			outer = strlen(lfirst(lc));

		if (outer <= len && esync_paths_overlap(lfirst(lc), outer, place, len))
			return true;
	}
	return false;
}

/*
 * Begins a column that has edits inside: the patch that makes of it what it is
 * without the target.  That leaves 1.0 where 1.00 was; so what it comes to is kept.
 */
static void
compare_column(EsyncUndo *u, int field)
{
	EsyncPaths *paths = esync_paths_make();
	EsyncStamp	stamp = {0};
	JsonbValue	all;
	JsonbValue	without;
	EsyncWalk	walk;
	EsyncPathOp op;

	(void) esync_fold_value(&u->all, field, &all);
	(void) esync_fold_value(&u->without, field, &without);
	u->diff = esync_paths_diff(&all, &without, u->t->fields[field].name);
	esync_walk_init(&walk, &u->diff->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op))
			esync_paths_add(paths, &stamp, &op);
	esync_paths_value(paths, &all, &u->reached);
	u->places = NIL;
}

/*
 * The operations that make of a place what it is without the target: what lies
 * in it is put back member by member, and where something else than an object
 * lay around it, that.
 */
static List *
ops_of_place(EsyncUndo *u, int field, const char *place, int len)
{
	const char *column = esync_pointer_escape(u->t->fields[field].name);
	List	   *ops = NIL;
	JsonbValue	reached;
	JsonbValue	without;
	EsyncWalk	walk;
	EsyncPathOp op;

	esync_walk_init(&walk, &u->diff->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op) &&
			esync_paths_overlap(place, len, op.path + op.columnlen, op.len - op.columnlen))
			ops = lappend(ops, esync_json_from_value(&walk.value));
	(void) esync_fold_value(&u->without, field, &without);
	if (esync_inner_value(&u->reached, place, len, &reached) &&
		esync_inner_value(&without, place, len, &without) &&
		!esync_json_equal(&reached, &without, true))
		return list_make1(replace_op(psprintf("/%s%s", column, place), &without));
	return ops;
}

/*
 * Puts one of them back, unless it is; returns the place, which may be wider
 * than the one that was meant, or NULL.
 */
static char *
put_back_op(EsyncUndo *u, int field, Jsonb *document)
{
	JsonbValue	value;
	EsyncPathOp op;
	char	   *place;
	int			below;

	esync_json_root(document, &value);
	(void) esync_paths_read(&value, &op);
	place = pnstrdup(op.path + op.columnlen, op.len - op.columnlen);
	if (is_put_back(u, place, strlen(place)))
		return NULL;
	if (*place == '\0')
		u->set[u->nset++] = esync_json_pair(u->t->fields[field].name, op.value);
	else
		u->ops = lappend(u->ops, document);
	below = last_setter(u, field, place, strlen(place), true);
	if (below >= 0)
		note_from(u, pnstrdup(op.path, op.len), source_of(u, below, field, place, strlen(place)));
	return place;
}

/* Puts operations back; returns how much of a place they are about, -1: none is new. */
static int
put_back_ops(EsyncUndo *u, int field, List *ops, int len)
{
	int			done = -1;
	ListCell   *lc;

	foreach(lc, ops)
	{
		const char *put = put_back_op(u, field, lfirst(lc));

		if (put)
			done = Min(len, strlen(put));
	}
	return done;
}

/*
 * A place inside of a column: what differs there without the target is put back;
 * what others set inside of it since is part of that.
 */
static void
undo_place(EsyncUndo *u, int of, int field, const char *path, int len)
{
	const char *name = u->t->fields[field].name;
	char	   *place = pnstrdup(path, len);
	char	   *label = psprintf("%s%s", name, place);
	int			winner = last_setter(u, field, place, len, false);
	List	   *ops = ops_of_place(u, field, place, len);
	int			done;

	if (is_put_back(u, place, len))
		return;					/* another event of the chain set it, too */
	if ((done = put_back_ops(u, field, ops, len)) >= 0)
		place[done] = label[strlen(name) + done] = '\0';
	else if (ops != NIL || of != u->at)
		return;
	else if (winner >= 0 && is_ground(u, winner))
	{
		keep(u, label, "row", 0);
		return;
	}
	else if (winner >= 0 && winner != u->at && !shows_out(u, winner, field))
	{
		keep_for(u, label, winner);
		return;
	}
	u->places = lappend(u->places, place);
	u->undone = lappend(u->undone, label);
}

/* A column that is, or was, merged path by path: each place that event i set. */
static void
undo_places(EsyncUndo *u, int i, int field)
{
	const EsyncEvent *e = &u->events->e[i];
	EsyncWalk	walk;

	if (esync_json_count(&e->patch->root) == 0)
	{
		if (esync_merge_sets(&u->m, i, field, NULL))
			undo_place(u, i, field, "", 0);
		return;
	}
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(u->t, &op, e->event_id, field))
			undo_place(u, i, field, op.path + op.columnlen, op.len - op.columnlen);
	}
}

/*
 * Does a field show what does not count any more?  So it may, where the creation
 * that it is from was undone and took the row with it, and another one is back.
 */
static bool
is_stale(EsyncUndo *u, int field)
{
	int			winner = u->all.registers[field].event;

	return winner >= 0 && shows_out(u, winner, field) &&
		esync_merge_sets(&u->m, winner, field, NULL);
}

/* One field that the target set, or what it brought back. */
static void
undo_field(EsyncUndo *u, int field)
{
	const EsyncField *f = &u->t->fields[field];
	const char *reason = f->masked ? "masked" : f->attnum == 0 ? "dropped" :
		u->refused ? "row" : NULL;
	int			told = list_length(u->undone) + list_length(u->kept);

	if (f->excluded || f->stamp || field == u->t->tombstone_field ||
		esync_merge_is_key(u->t, field))
		return;
	if (reason != NULL)
	{
		if (esync_merge_sets(&u->m, u->at, field, NULL))
			keep(u, f->name, reason, 0);
		return;
	}
	esync_rights_update(u->t, f);	/* shown or not, its contenders change */
	if (f->json_merge || esync_fold_is_inside(&u->all, field) ||
		esync_fold_is_inside(&u->without, field))
	{
		compare_column(u, field);
		for (int i = u->at; i >= 0;
			 i = esync_withdraw_find(u->events, esync_event_undoes(&u->events->e[i])))
			if (is_turned(u, i))
				undo_places(u, i, field);
		if (is_stale(u, field) && list_length(u->undone) + list_length(u->kept) == told)
			undo_place(u, u->at, field, "", 0);
	}
	else
		undo_column(u, field);
}

/*
 * All that the target set, and what is stale.  Where the row goes with its
 * creation, its fields stay as they are.
 */
void
esync_undo_find(EsyncUndo *u)
{
	Bitmapset  *fields = esync_withdraw_fields(&u->m, u->target->event_id);

	u->set = palloc((u->t->nfields + 1) * sizeof(EsyncMember));
	make_folds(u);
	undo_life(u);
	if (!u->refused && is_unborn(u) && !is_living(&u->words))
		return;					/* its fields go with it */
	for (int i = 0; i < u->t->nfields; i++)
		if (bms_is_member(i, fields) || (!u->refused && is_stale(u, i)))
			undo_field(u, i);
}
