/*
 * clash.c: between which events of a row a conflict lies.
 *
 * Contenders of a field are those of the events that set it whose edit nobody
 * replaced who had seen it; where they do not agree, there is a conflict.  All
 * that lies before an event's base was seen by its author, so only what came
 * later needs looking at.  For the row as a whole (a delete against an edit)
 * all events are looked at: that is rare.
 *
 * Values point into the events; lists and what else is made live in the
 * current memory context.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "conflict.h"
#include "merge.h"
#include "paths.h"

/* one event that sets the field at hand, and to what */
typedef struct Setter
{
	EsyncContender c;
	bool		whole;			/* the column as a whole */
	JsonbValue	value;
	const char *path;			/* below the column, of an operation inside of it */
	int			pathlen;
} Setter;

/* the setters of one field; the event at hand is the last */
typedef struct Setters
{
	int			n;
	Setter	   *s;
} Setters;

/* ------------------------------------------------------------------- values */

static Jsonb *
null_document(void)
{
	JsonbValue	null = {.type = jbvNull};

	return esync_json_from_value(&null);
}

/* ------------------------------------------------------------- the maximal */

/*
 * Has anybody replaced setter i who had seen it?  No base reaches up to its own
 * event, so the highest of all decides; else a device's own queue may.  An undo
 * replaces nothing, nor does a Baseline, for nobody knows what was seen by it.
 */
static bool
is_replaced(const Setters *all, int i, int64 highest_base)
{
	if (all->s[i].c.version <= highest_base)
		return true;
	for (int k = 0; k < all->n && all->s[i].c.device_id != NULL; k++)
		if (k != i && !all->s[k].c.nobodys && esync_merge_seen(&all->s[k].c, &all->s[i].c))
			return true;
	return false;
}

/* Does an undo put back what one of the others says for itself, or an earlier undo did? */
static bool
is_stand_in(const Setters *all, const Setter *undo)
{
	for (int i = 0; i < all->n && undo->c.undo && undo->c.origin; i++)
		if (all->s[i].c.event_id == undo->c.origin ||
			(all->s[i].c.origin == undo->c.origin &&
			 all->s[i].c.event_id < undo->c.event_id))
			return true;
	return false;
}

/* Is it an undo or a Baseline, and came after all others? */
static bool
is_last_word(const Setters *all, const Setter *last)
{
	bool		seen = last->c.nobodys;

	for (int i = 0; i < all->n && seen; i++)
		seen = all->s[i].c.nobodys || esync_merge_seen(&last->c, &all->s[i].c);
	return seen;
}

/*
 * Leaves out undos that put back what one of the others says, and undos and
 * Baselines that contradict nobody unseen.  Against the row as a whole stand edits too, and those are not
 * among the others: there the latter stay.
 */
static void
drop_stand_ins(Setters *all, bool of_row)
{
	bool	   *drop = palloc(Max(all->n, 1) * sizeof(bool));
	int			n = 0;

	for (int i = 0; i < all->n; i++)
		drop[i] = is_stand_in(all, &all->s[i]) || (!of_row && is_last_word(all, &all->s[i]));
	for (int i = 0; i < all->n; i++)
		if (!drop[i])
			all->s[n++] = all->s[i];
	all->n = n;
}

/* Leaves only those that nobody replaced. */
static void
keep_maximal(Setters *all, bool of_row)
{
	bool	   *replaced = palloc(Max(all->n, 1) * sizeof(bool));
	int64		highest_base = 0;
	int			n = 0;

	for (int i = 0; i < all->n; i++)
		if (!all->s[i].c.nobodys)
			highest_base = Max(highest_base, all->s[i].c.base_version);
	for (int i = 0; i < all->n; i++)
		replaced[i] = is_replaced(all, i, highest_base);
	for (int i = 0; i < all->n; i++)
		if (!replaced[i])
			all->s[n++] = all->s[i];
	all->n = n;
	drop_stand_ins(all, of_row);
}

/* Do they all say the same? */
static bool
agree(const Setters *all)
{
	for (int i = 1; i < all->n; i++)
		if (!esync_json_equal(&all->s[i].value, &all->s[0].value, false))
			return false;
	return true;
}

static int
setter_cmp(const void *a, const void *b)
{
	int64		x = ((const Setter *) a)->c.event_id;
	int64		y = ((const Setter *) b)->c.event_id;

	return x < y ? -1 : x > y;
}

/* ----------------------------------------------------------------- a clash */

/* The setters as contenders of a clash; the lowest base says what was before them. */
static EsyncClash *
make_clash(char *field, const char *kind, Setters *all)
{
	EsyncClash *clash = palloc0(sizeof(EsyncClash));

	qsort(all->s, all->n, sizeof(Setter), setter_cmp);
	clash->field = field;
	clash->kind = kind;
	clash->open = true;
	clash->ncontenders = all->n;
	clash->contenders = palloc(all->n * sizeof(EsyncContender));
	clash->base_at = PG_INT64_MAX;
	for (int i = 0; i < all->n; i++)
	{
		clash->contenders[i] = all->s[i].c;
		clash->contenders[i].value = esync_json_from_value(&all->s[i].value);
		clash->base_at = Min(clash->base_at, all->s[i].c.base_version);
	}
	return clash;
}

/* A clash that is settled in a field. */
static EsyncClash *
settled(char *field, const char *resolution)
{
	EsyncClash *clash = palloc0(sizeof(EsyncClash));

	clash->field = field;
	clash->resolution = resolution;
	return clash;
}

/* Are all contenders creations of the row? */
static bool
all_created(const Setters *all)
{
	for (int i = 0; i < all->n; i++)
		if (all->s[i].c.type != ESYNC_CREATED)
			return false;
	return true;
}

/* ------------------------------------------------------------ field by field */

/* An event as a setter. */
static Setter
setter_of(const EsyncEvent *e, const JsonbValue *value)
{
	Setter		s = {0};

	s.c = esync_merge_contender(e);
	s.value = *value;
	return s;
}

/*
 * Had the device of event i replaced what it set, by an edit that the author
 * at hand has seen though it had not seen this one?  What was undone replaces
 * nothing.
 */
static bool
is_overtaken(EsyncMerge *m, int i, int field, const EsyncGroup *group)
{
	EsyncContender x = esync_merge_contender(&m->events->e[i]);
	JsonbValue	value;

	for (int k = 0; k < m->nseen && (m->events->e[i].flags & ESYNC_FLAG_OVERTAKEN); k++)
	{
		EsyncContender y = esync_merge_contender(&m->events->e[k]);

		if (!(m->events->e[k].flags & ESYNC_FLAG_WITHDRAWN) && esync_merge_seen(&y, &x) &&
			(group ? esync_merge_sets_group(m, k, group, &value) : esync_merge_sets(m, k, field, NULL)))
			return true;
	}
	return false;
}

/* The origin of what event i put back in a column, or in a member of a group; 0: none. */
static int64
origin_of(EsyncMerge *m, int i, int field, const EsyncGroup *group)
{
	int64		origin = 0;

	if (esync_event_undoes(&m->events->e[i]) == 0)
		return 0;
	if (group == NULL)
		return esync_withdraw_origin_of_field(m->t, &m->events->e[i], field);
	for (int k = 0; k < group->nfields && origin == 0; k++)
		origin = esync_withdraw_origin_of_field(m->t, &m->events->e[i], group->fields[k]);
	return origin;
}

/*
 * The clash of a column or a group among all events of the row: an undo changes
 * who contends.  It has nothing to say of its own, since it puts back what one
 * of the others said.
 */
static EsyncClash *
clash_anew(EsyncMerge *m, int field, const EsyncGroup *group, char *name)
{
	Setters		all = {0};

	all.s = palloc0((m->events->n + 1) * sizeof(Setter));
	for (int i = 0; i < m->events->n; i++)
	{
		Setter	   *s = &all.s[all.n];

		if ((m->events->e[i].flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN)) ||
			!esync_merge_same_life(m, i) ||
			(group ? !esync_merge_sets_group(m, i, group, &s->value) :
			 !esync_merge_sets(m, i, field, &s->value)))
			continue;
		s->c = esync_merge_contender(&m->events->e[i]);
		s->c.origin = origin_of(m, i, field, group);
		if (!esync_withdraw_is_void(m->events, s->c.origin, m->edit->undoes))
			all.n++;
	}
	keep_maximal(&all, false);
	if (agree(&all))
		return settled(name, "superseded");
	return make_clash(name, all_created(&all) ? "create_create" : "field", &all);
}

/*
 * The clash of a column or a group that the event at hand sets to value; NULL
 * where the same device did so later, or where all that is unseen is of another
 * row that had the key: who contends there is no matter of this one.
 */
static EsyncClash *
clash_of_field(EsyncMerge *m, const EsyncEvent *e, int field, const EsyncGroup *group,
			   char *name, const JsonbValue *value)
{
	Setters		all = {0};
	bool		unseen = false;
	bool		others = false;	/* set it, unseen, in another row that had the key */

	all.s = palloc0((m->events->n - m->nseen + 1) * sizeof(Setter));
	for (int i = m->nseen; i < m->events->n; i++)
	{
		Setter	   *s = &all.s[all.n];

		if (m->events->e[i].flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN))
			continue;			/* the ledger speaks of what authors said */
		if (group ? !esync_merge_sets_group(m, i, group, &s->value) :
			!esync_merge_sets(m, i, field, &s->value))
			continue;
		if (!esync_merge_same_life(m, i))
		{
			others = true;
			continue;
		}
		if (esync_merge_own_after(m, &m->events->e[i]))
			return NULL;
		if (is_overtaken(m, i, field, group))
			continue;
		s->c = esync_merge_contender(&m->events->e[i]);
		s->c.origin = origin_of(m, i, field, group);
		if (esync_withdraw_is_void(m->events, s->c.origin, 0))
			continue;
		unseen |= !esync_merge_own_before(m, &m->events->e[i]);
		all.n++;
	}
	if (!unseen)
		return others ? NULL : settled(name, "superseded");
	all.s[all.n++] = setter_of(e, value);
	keep_maximal(&all, false);
	if (agree(&all))
		return settled(name, "agreed");
	return make_clash(name, all_created(&all) ? "create_create" : "field", &all);
}

/* "column/path" as the ledger names what lies inside of a column. */
static char *
path_name(const char *path, int len)
{
	char	   *token = palloc(len + 1);
	const char *deeper = memchr(path + 1, '/', len - 1);
	int			n = esync_pointer_token(path, deeper ? deeper - path : len, token);

	return psprintf("%s%s", pnstrdup(token, Max(n, 0)),
					deeper ? pnstrdup(deeper, len - (deeper - path)) : "");
}

/* ---------------------------------------------------------- the whole row */

/* Does an event write the delete register?  The halves of a change of key take nothing. */
static bool
writes_register(const EsyncEvent *e)
{
	if (e->flags & ESYNC_FLAG_MOVED)
		return false;
	return esync_clash_is_word(esync_merge_contender(e).type);
}

/* Does an event set anything, and not the delete register? */
static bool
is_edit(const EsyncEvent *e)
{
	return (e->type == ESYNC_UPDATED || (e->type == ESYNC_RESOLVED && !esync_event_life(e))) &&
		esync_event_undoes(e) == 0 &&
		!(e->flags & ESYNC_FLAG_DERIVED) && esync_json_count(&e->patch->root) > 0;
}

/* Does the operation lie in a column of the key?  It names the row, and is no edit. */
static bool
is_of_key(const EsyncTracked *t, const EsyncPathOp *op, int64 event_id)
{
	int			field = esync_merge_field_of_op(t, op, event_id);

	return field >= 0 && esync_merge_is_key(t, field);
}

/* What a creation set whose patch is empty, since all of it showed: the row, without the key. */
static Jsonb *
created_value(const EsyncTracked *t, const EsyncEvent *e)
{
	EsyncMember *members = palloc(Max(esync_json_count(&e->payload->root), 1) * sizeof(EsyncMember));
	EsyncWalk	walk;
	int			n = 0;

	esync_walk_init(&walk, &e->payload->root);
	while (esync_walk_next(&walk))
	{
		int			field = esync_field_at(t->fields, t->nfields, walk.key, walk.keylen, e->event_id);

		if (field >= 0 && (esync_merge_is_key(t, field) || t->fields[field].stamp))
			continue;
		members[n].key = pnstrdup(walk.key, walk.keylen);
		members[n].keylen = walk.keylen;
		members[n++].value = walk.value;
	}
	return esync_json_object(n, members);
}

/* What an edit set, as an object by paths without their slash; a delete set null. */
static Jsonb *
edit_value(const EsyncTracked *t, EsyncEvent *e)
{
	int			n = 0;
	EsyncMember *members;
	EsyncWalk	walk;

	if (esync_merge_contender(e).type == ESYNC_DELETED)
		return null_document();
	if (e->type == ESYNC_CREATED && esync_json_count(&e->patch->root) == 0 &&
		esync_event_payload(e) != NULL)
		return created_value(t, e);
	members = palloc(Max(esync_json_count(&e->patch->root), 1) * sizeof(EsyncMember));
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		int			i;

		if (!esync_paths_read(&walk.value, &op) || is_of_key(t, &op, e->event_id))
			continue;
		members[n].key = path_name(op.path, op.len);
		members[n].keylen = strlen(members[n].key);
		members[n].value = op.value;
		for (i = 0; i < n; i++)
			if (strcmp(members[i].key, members[n].key) == 0)
				break;
		if (i == n)
			n++;
		else
			members[i].value = op.value;
	}
	return esync_json_object(n, members);
}

/* Sorts events by what part they may play: writers of the register, and edits that none saw. */
static void
register_setters(const EsyncTracked *t, const EsyncEvents *events, Setters *writers,
				 Setters *edits)
{
	for (int i = 0; i < events->n; i++)
	{
		EsyncEvent *e = &events->e[i];
		Setters    *to = writes_register(e) ? writers : is_edit(e) ? edits : NULL;
		JsonbValue	value;

		if (to == NULL || (e->flags & ESYNC_FLAG_WITHDRAWN))
			continue;
		esync_json_root(edit_value(t, e), &value);
		to->s[to->n] = setter_of(e, &value);
		to->s[to->n].c.origin = esync_withdraw_origin(e, "", 0);
		if (!esync_withdraw_is_void(events, to->s[to->n].c.origin, 0))
			to->n++;
	}
}

/* Had no writer of the register seen the edit? */
static bool
is_unanswered(const Setters *writers, const Setter *edit)
{
	for (int i = 0; i < writers->n; i++)
		if (!writers->s[i].c.nobodys && esync_merge_seen(&writers->s[i].c, &edit->c))
			return false;
	return true;
}

/* Does a delete stand against something else that neither had seen? */
static bool
stands_against(const Setter *delete, const Setter *other)
{
	return delete->c.type == ESYNC_DELETED && other->c.type != ESYNC_DELETED &&
		!esync_merge_seen(&delete->c, &other->c) && !esync_merge_seen(&other->c, &delete->c);
}

/* Adds those of a list that stand against a delete. */
static void
add_against(Setters *to, const Setter *delete, const Setters *from)
{
	for (int i = 0; i < from->n; i++)
		if (stands_against(delete, &from->s[i]))
			to->s[to->n++] = from->s[i];
}

/* Adds one that is not there yet. */
static void
add_once(Setters *to, const Setter *one)
{
	for (int i = 0; i < to->n; i++)
		if (to->s[i].c.event_id == one->c.event_id)
			return;
	to->s[to->n++] = *one;
}

/*
 * The clash of deletes against what their authors had not seen, among all
 * events of the row, the one at hand included.
 */
static EsyncClash *
clash_of_row(const EsyncTracked *t, const EsyncEvents *events)
{
	Setters		writers = {0, palloc0((events->n + 1) * sizeof(Setter))};
	Setters		edits = {0, palloc0((events->n + 1) * sizeof(Setter))};
	Setters		all = {0, palloc0((events->n + 1) * sizeof(Setter))};
	int			n = 0;

	register_setters(t, events, &writers, &edits);
	for (int i = 0; i < edits.n; i++)
		if (is_unanswered(&writers, &edits.s[i]))
			edits.s[n++] = edits.s[i];
	edits.n = n;
	keep_maximal(&writers, true);
	for (int i = 0; i < writers.n; i++)
	{
		Setters		against = {0, palloc0((events->n + 1) * sizeof(Setter))};

		add_against(&against, &writers.s[i], &edits);
		keep_maximal(&against, true);
		add_against(&against, &writers.s[i], &writers);
		for (int k = 0; k < against.n; k++)
			add_once(&all, &against.s[k]);
		if (against.n > 0)
			add_once(&all, &writers.s[i]);
	}
	if (all.n == 0)
		return settled(NULL, "superseded");
	return make_clash(NULL, "delete_edit", &all);
}

/* Has somebody set the column, or a place in it, whom the author at hand had not seen? */
static bool
is_set_unseen(EsyncMerge *m, int field)
{
	for (int i = m->nseen; i < m->events->n; i++)
		if (esync_merge_same_life(m, i) && !esync_merge_own_before(m, &m->events->e[i]) &&
			!(m->events->e[i].flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN)) &&
			esync_merge_sets(m, i, field, NULL))
			return true;
	return false;
}

/* Is anything of the row in conflict before the event at hand? */
static bool
is_in_conflict(const EsyncMerge *m)
{
	return m->events->n > 0 && (m->events->e[m->events->n - 1].flags & ESYNC_FLAG_CONFLICT);
}

/*
 * Is there a delete, or anything against one, that the author at hand had not
 * seen?  Or has somebody unseen set a column that is merged path by path, or is
 * a conflict open, which may be about a place around what is set now?
 */
bool
esync_clash_needs_whole(EsyncMerge *m, const EsyncEvent *e)
{
	if (m->edit->undoes)
		return true;
	for (int i = m->nseen; i < m->events->n; i++)
	{
		const EsyncEvent *x = &m->events->e[i];

		if (esync_merge_own_before(m, x) || !esync_merge_same_life(m, i))
			continue;
		if ((writes_register(x) && esync_merge_contender(x).type == ESYNC_DELETED) ||
			(writes_register(e) && (writes_register(x) || is_edit(x))))
			return true;
	}
	for (int i = 0; i < m->nchanges; i++)
		if (m->t->fields[m->changes[i].field].json_merge &&
			(is_in_conflict(m) || is_set_unseen(m, m->changes[i].field)))
			return true;
	return false;
}

/* --------------------------------------------------------------------- all */

static int
contender_cmp(const void *a, const void *b)
{
	int64		x = ((const EsyncContender *) a)->event_id;
	int64		y = ((const EsyncContender *) b)->event_id;

	return x < y ? -1 : x > y;
}

/* Adds the contenders of another clash that this one does not have. */
static void
take_contenders(EsyncClash *to, const EsyncClash *from)
{
	to->contenders = repalloc(to->contenders,
							  (to->ncontenders + from->ncontenders) * sizeof(EsyncContender));
	for (int i = 0; i < from->ncontenders; i++)
	{
		bool		found = false;

		for (int k = 0; k < to->ncontenders; k++)
			found |= to->contenders[k].event_id == from->contenders[i].event_id;
		if (!found)
			to->contenders[to->ncontenders++] = from->contenders[i];
	}
	to->base_at = Min(to->base_at, from->base_at);
	qsort(to->contenders, to->ncontenders, sizeof(EsyncContender), contender_cmp);
}

/* The places inside of a column that the event sets, as settled: its author had seen all. */
static List *
settle_places(const EsyncChange *c, List *list)
{
	EsyncWalk	walk;

	if (c->ops == NULL)
		return lappend(list, settled(pstrdup(c->name), "superseded"));
	esync_walk_init(&walk, &c->ops->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op))
			list = lappend(list, settled(path_name(op.path, op.len), "superseded"));
	}
	return list;
}

/* The clashes of one change. */
static List *
clash_of_change(EsyncMerge *m, const EsyncEvent *e, const EsyncChange *c,
				const EsyncEvents *whole, List *list)
{
	const EsyncField *f = &m->t->fields[c->field];
	EsyncClash *clash;

	if (f->json_merge && whole != NULL && (is_in_conflict(m) || is_set_unseen(m, c->field)))
		return esync_inner_clashes(m->t, whole, c->field, list);
	if (f->json_merge)
		return settle_places(c, list);
	clash = clash_of_field(m, e, c->field, NULL, pstrdup(f->name), &c->value);
	return clash ? lappend(list, clash) : list;
}

/* The clashes of a group, once for all its members. */
static List *
clash_of_group(EsyncMerge *m, const EsyncEvent *e, int group, List *list)
{
	const EsyncGroup *g = &m->t->groups[group];
	EsyncMember *members = palloc(g->nfields * sizeof(EsyncMember));
	int			n = 0;
	JsonbValue	value;
	EsyncClash *clash;

	for (int i = 0; i < m->nchanges; i++)
		if (m->t->fields[m->changes[i].field].group == group)
		{
			members[n].key = m->t->fields[m->changes[i].field].name;
			members[n].keylen = strlen(members[n].key);
			members[n++].value = m->changes[i].value;
		}
	if (n == 0)
		return list;
	esync_json_root(esync_json_object(n, members), &value);
	clash = clash_of_field(m, e, -1, g, pstrdup(g->name), &value);
	return clash ? lappend(list, clash) : list;
}

/*
 * The clashes of all fields in which who contends may have changed by an undo,
 * and of those that it sets since what they showed was undone long ago.
 */
static List *
clashes_after_undo(EsyncMerge *m, const EsyncEvents *whole)
{
	EsyncTracked *t = m->t;
	Bitmapset  *fields = esync_withdraw_fields(m, m->edit->undoes);
	Bitmapset  *groups = NULL;
	List	   *list = NIL;
	int			i = -1;

	for (int k = 0; k < m->nchanges; k++)
		fields = bms_add_member(fields, m->changes[k].field);
	while ((i = bms_next_member(fields, i)) >= 0)
	{
		char	   *name = pstrdup(t->fields[i].name);

		if (t->fields[i].masked || i == t->tombstone_field)
			continue;
		if (t->fields[i].group >= 0)
			groups = bms_add_member(groups, t->fields[i].group);
		else if (t->fields[i].json_merge)
			list = lappend(esync_inner_clashes(t, whole, i, list), settled(name, "superseded"));
		else
			list = lappend(list, clash_anew(m, i, NULL, name));
	}
	i = -1;
	while ((i = bms_next_member(groups, i)) >= 0)
		list = lappend(list, clash_anew(m, -1, &t->groups[i], pstrdup(t->groups[i].name)));
	return list;
}

/*
 * An event may set two places inside of a column that another set as a whole:
 * that is one clash.  Takes the contenders of later ones into the first.
 */
static List *
join_namesakes(List *list)
{
	List	   *joined = NIL;
	ListCell   *lc;

	foreach(lc, list)
	{
		EsyncClash *clash = lfirst(lc);
		EsyncClash *first = NULL;
		ListCell   *lj;

		foreach(lj, joined)
		{
			EsyncClash *other = lfirst(lj);

			if (clash->field && other->field && strcmp(clash->field, other->field) == 0)
				first = other;
		}
		if (first == NULL)
			joined = lappend(joined, clash);
		else if (!first->open)
			*first = *clash;
		else if (clash->open)
			take_contenders(first, clash);
	}
	return joined;
}

/* Tells of which of the rows that had the key a clash is. */
static void
mark_life(const EsyncMerge *m, EsyncClash *clash)
{
	int			life = 0;

	for (int i = 0; m->moves && i < m->events->n && clash->life_to == 0; i++)
	{
		const EsyncEvent *e = &m->events->e[i];

		if (e->type != ESYNC_DELETED || !(e->flags & ESYNC_FLAG_MOVED))
			continue;
		if (life++ == m->life)
			clash->life_to = e->version;
		else
			clash->life_from = e->version;
	}
	if (m->moves && clash->life_to == 0)
		clash->life_to = PG_INT64_MAX;
}

/*
 * What the event at hand does to the ledger, field by field; `whole` are all
 * events of the row, with this one, where esync_clash_needs_whole said so.
 */
List *
esync_clash_find(EsyncMerge *m, const EsyncEvent *e, EsyncEvents *whole)
{
	List	   *list = NIL;
	ListCell   *lc;

	for (int i = 0; i < m->nchanges && !m->edit->undoes; i++)
	{
		const EsyncField *f = &m->t->fields[m->changes[i].field];

		if (f->masked || f->group >= 0 || m->changes[i].field == m->t->tombstone_field)
			continue;
		list = clash_of_change(m, e, &m->changes[i], whole, list);
	}
	for (int g = 0; g < m->t->ngroups && !m->edit->undoes; g++)
		list = clash_of_group(m, e, g, list);
	if (m->edit->undoes)
		list = clashes_after_undo(m, whole);
	if (whole)
		list = lappend(list, clash_of_row(m->t, whole));
	else if (writes_register(e))
		list = lappend(list, settled(NULL, "superseded"));
	list = join_namesakes(list);
	foreach(lc, list)
	{
		EsyncClash *clash = lfirst(lc);

		mark_life(m, clash);
		if (clash->open)
			esync_clash_mark_shown(m, e, whole, clash);
	}
	return list;
}

/* where an event sets parts of columns, and in which of them something is open there */
typedef struct Parts
{
	EsyncTracked *t;
	const EsyncEvent *e;
	MemoryContext cxt;			/* of fields */
	Bitmapset  *fields;
} Parts;

/* The column of which an operation sets no more than a part; -1: of none. */
static int
part_of(const Parts *p, const JsonbValue *value, EsyncPathOp *op)
{
	return esync_paths_read(value, op) && op->len > op->columnlen ?
		esync_merge_field_of_op(p->t, op, p->e->event_id) : -1;
}

/* Callback: adds the column of an open conflict that the event touches; a refusal waits by itself. */
static bool
add_touched(EsyncConflict *conflict, void *arg)
{
	Parts	   *p = arg;
	EsyncPlace	place = esync_ledger_place(p->t, conflict->field, conflict->opened_event);
	EsyncPathOp op;
	EsyncWalk	walk;

	if (place.field < 0 || strcmp(text_to_cstring(conflict->kind), "constraint") == 0)
		return true;
	esync_walk_init(&walk, &p->e->patch->root);
	while (esync_walk_next(&walk))
		if (part_of(p, &walk.value, &op) == place.field &&
			esync_paths_overlap(op.path + op.columnlen, op.len - op.columnlen, place.path,
								strlen(place.path)))
		{
			MemoryContext old = MemoryContextSwitchTo(p->cxt);

			p->fields = bms_add_member(p->fields, place.field);
			MemoryContextSwitchTo(old);
		}
	return true;
}

/*
 * The columns merged path by path of which an event sets no more than parts, with
 * a conflict open at or around one of these: all others cost it nothing.
 */
static Bitmapset *
columns_in_part(EsyncTracked *t, const EsyncEvent *e)
{
	Parts		parts = {t, e, CurrentMemoryContext, NULL};
	EsyncPathOp op;
	EsyncWalk	walk;
	bool		any = false;

	esync_walk_init(&walk, &e->patch->root);
	while (!any && esync_walk_next(&walk))
		any = part_of(&parts, &walk.value, &op) >= 0;
	if (any)
		esync_ledger_each(t->table_id, e->aggregate_id, ESYNC_LEDGER_OPEN, 0, SnapshotSelf,
						  add_touched, &parts);
	return parts.fields;
}

/*
 * What becomes of the conflicts in columns of which an event sets parts: one about
 * a place around these is over, or goes on between others, about what is left.
 */
static List *
settle_parts(EsyncTracked *t, const EsyncEvent *e, Bitmapset *fields)
{
	EsyncMerge	m = {.t = t, .aggregate_id = e->aggregate_id};
	List	   *list = NIL;
	int			field = -1;
	ListCell   *lc;
	EsyncFold  *fold;

	m.events = esync_stream_read(t, e->aggregate_id, NULL, SnapshotSelf, false, ESYNC_WANT_EDITS);
	m.events->e = repalloc_huge(m.events->e, (m.events->n + 1) * sizeof(EsyncEvent));
	m.events->e[m.events->n++] = *e;
	esync_withdraw_mark(m.events, 0);
	while ((field = bms_next_member(fields, field)) >= 0)
		list = esync_inner_clashes(t, m.events, field, list);
	list = join_namesakes(list);
	fold = esync_merge_fold(&m, m.events->n);
	foreach(lc, list)
	{
		EsyncClash *clash = lfirst(lc);
		JsonbValue	column;

		if (!clash->open)
			continue;
		clash->base_value = esync_edit_value_in(t, esync_edit_row_at(&m, clash->base_at),
												clash->field);
		if (esync_fold_value(fold, clash->column - 1, &column))
			esync_inner_tell(clash, &column);
		esync_clash_mark_shown(&m, e, NULL, clash);
	}
	return list;
}

/* The fields that an event sets, as clashes that are settled: its author had seen all. */
List *
esync_clash_settle(EsyncTracked *t, const EsyncEvent *e)
{
	List	   *list = NIL;
	Bitmapset  *in_part;
	EsyncWalk	walk;

	if (e->type == ESYNC_BASELINE)
		return NIL;
	if ((in_part = columns_in_part(t, e)) != NULL)
		list = settle_parts(t, e, in_part);
	if (writes_register(e))
		list = lappend(list, settled(NULL, "superseded"));
	if (e->type == ESYNC_CREATED && esync_json_count(&e->patch->root) == 0)
	{
		for (int i = 0; i < t->nfields && t->fields[i].attnum != 0; i++)
			list = lappend(list, settled(unconstify(char *, t->fields[i].name), "superseded"));
		for (int g = 0; g < t->ngroups; g++)
			list = lappend(list, settled(t->groups[g].name, "superseded"));
		return list;
	}
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		int			field;

		if (!esync_paths_read(&walk.value, &op))
			continue;
		field = esync_merge_field_of_op(t, &op, e->event_id);
		list = lappend(list, settled(path_name(op.path, op.len), "superseded"));
		if (field >= 0 && t->fields[field].group >= 0)
			list = lappend(list, settled(t->groups[t->fields[field].group].name, "superseded"));
	}
	return join_namesakes(list);
}
