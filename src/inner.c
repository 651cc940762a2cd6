/*
 * inner.c: conflicts inside of columns that are merged path by path.
 *
 * An edit of a place replaces what its author had seen at that place, inside of
 * it and, there, around it: what else an edit around it says stands.  Two edits
 * of unseen authors contradict each other where one place holds the other, nobody
 * replaced either of them at the inner one, and the values differ there.  Edits
 * that contradict each other, directly or through
 * others, are one conflict, named by the outermost place among them.
 *
 * All events of the row are looked at, so that the result is a function of
 * their set; that is needed only where somebody unseen set the column.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "merge.h"
#include "paths.h"

/* one operation of one event */
typedef struct Edit
{
	EsyncContender c;
	const char *path;			/* inside of the column; "": the whole */
	int			len;
	bool		removed;
	bool		stands;			/* nobody replaced any of it */
	bool		silent;			/* another one speaks for it */
	JsonbValue	value;
	int			root;			/* of its component: an index; its own where it is alone */
} Edit;

typedef struct Edits
{
	int			n;
	int			size;
	Edit	   *e;
} Edits;

/* Room for one more. */
static Edit *
add_edit(Edits *all, const EsyncEvent *e)
{
	Edit	   *edit;

	if (all->n == all->size)
	{
		all->size = Max(2 * all->size, 32);
		all->e = all->e ? repalloc_huge(all->e, all->size * sizeof(Edit)) :
			palloc(all->size * sizeof(Edit));
	}
	edit = &all->e[all->n];
	memset(edit, 0, sizeof(Edit));
	edit->c = esync_merge_contender(e);
	edit->path = "";
	edit->root = all->n++;
	return edit;
}

/* Does one place hold the other? */
static bool
overlap(const Edit *a, const Edit *b)
{
	return esync_paths_overlap(a->path, a->len, b->path, b->len);
}

/* Adds what an event sets in the column; what triggers derived is nobody's. */
static void
add_edits(const EsyncTracked *t, const EsyncEvents *whole, EsyncEvent *e, int field, Edits *all)
{
	EsyncWalk	walk;

	if ((e->type == ESYNC_BASELINE && !(e->flags & ESYNC_FLAG_DRIFT)) ||
		(e->flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN)))
		return;
	if (e->type == ESYNC_CREATED && esync_json_count(&e->patch->root) == 0)
	{
		JsonbValue	value;

		if (esync_event_payload(e) != NULL &&
			esync_merge_member(t, e->payload, field, e->event_id, &value))
			add_edit(all, e)->value = value;
		return;
	}
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		int64		origin;
		Edit	   *edit;

		if (!esync_paths_read(&walk.value, &op) ||
			!esync_merge_op_in_field(t, &op, e->event_id, field))
			continue;
		origin = esync_withdraw_origin(e, op.path, op.len);
		if (esync_withdraw_is_void(whole, origin, 0))
			continue;
		edit = add_edit(all, e);
		edit->path = op.path + op.columnlen;
		edit->len = op.len - op.columnlen;
		edit->removed = op.remove;
		edit->value = op.value;
		edit->c.origin = origin;
	}
}

/* All edits of the column by all events. */
static void
collect(const EsyncTracked *t, const EsyncEvents *whole, int field, Edits *all)
{
	for (int i = 0; i < whole->n; i++)
		add_edits(t, whole, &whole->e[i], field, all);
}

/* Does an undo put back what another edit, which stands, has there, or an earlier undo? */
static bool
is_stand_in(const Edits *all, const Edit *undo)
{
	for (int i = 0; i < all->n && undo->c.origin; i++)
		if (all->e[i].stands && overlap(&all->e[i], undo) &&
			(all->e[i].c.event_id == undo->c.origin ||
			 (all->e[i].c.origin == undo->c.origin &&
			  all->e[i].c.event_id < undo->c.event_id)))
			return true;
	return false;
}

/*
 * Did anybody replace an edit at a place, who had seen it?  An undo or a Baseline
 * replaces nothing.  Most that had seen it came right after it: these first.
 */
static bool
is_replaced(const Edits *all, int i, const Edit *place)
{
	for (int n = 1; n < all->n; n++)
	{
		const Edit *by = &all->e[(i + n) % all->n];

		if (!by->c.nobodys && overlap(by, place) && esync_merge_seen(&by->c, &all->e[i].c))
			return true;
	}
	return false;
}

/* Marks what nobody replaced anywhere; and what has nothing to say of its own. */
static void
mark_standing(Edits *all)
{
	for (int i = 0; i < all->n; i++)
		all->e[i].stands = !is_replaced(all, i, &all->e[i]);
	for (int i = 0; i < all->n; i++)
		if (all->e[i].c.undo && is_stand_in(all, &all->e[i]))
		{
			all->e[i].stands = false;
			all->e[i].silent = true;
		}
}

/* What a value holds at a path inside of it; false: nothing. */
bool
esync_inner_value(const JsonbValue *value, const char *path, int len, JsonbValue *out)
{
	*out = *value;
	while (len > 0)
	{
		const char *next = memchr(path + 1, '/', len - 1);
		int			tokenlen = next ? next - path : len;
		char	   *token = palloc(tokenlen + 1);
		int			n = esync_pointer_token(path, tokenlen, token);

		if (n < 0 || out->type != jbvBinary || !JsonContainerIsObject(out->val.binary.data) ||
			!esync_json_member(out->val.binary.data, token, n, out))
			return false;
		path += tokenlen;
		len -= tokenlen;
	}
	return true;
}

/* Do two edits of places, one of which holds the other, want different things? */
static bool
contradict(const Edit *a, const Edit *b)
{
	const Edit *outer = a->len <= b->len ? a : b;
	const Edit *inner = outer == a ? b : a;
	JsonbValue	there;
	bool		is_there = !outer->removed &&
		esync_inner_value(&outer->value, inner->path + outer->len, inner->len - outer->len, &there);

	if (!is_there || inner->removed)
		return is_there || !inner->removed;
	return !esync_json_equal(&there, &inner->value, false);
}

/* The component of an edit. */
static int
root_of(const Edits *all, int i)
{
	while (all->e[i].root != i)
		i = all->e[i].root;
	return i;
}

/* Are two edits in conflict? */
static bool
is_clash(const Edits *all, int i, int k)
{
	const Edit *a = &all->e[i];
	const Edit *b = &all->e[k];
	const Edit *inner = a->len > b->len ? a : b;

	if (a->silent || b->silent || !inner->stands || a->c.event_id == b->c.event_id ||
		!overlap(a, b) || esync_merge_seen(&a->c, &b->c) || esync_merge_seen(&b->c, &a->c) ||
		!contradict(a, b))
		return false;
	return !is_replaced(all, inner == a ? k : i, inner);
}

/*
 * Puts what contradicts each other into one component.  One of the two stands;
 * in a long history these are few.
 */
static void
connect(Edits *all)
{
	int		   *standing = palloc_extended((all->n + 1) * sizeof(int), MCXT_ALLOC_HUGE);
	int			n = 0;

	for (int i = 0; i < all->n; i++)
		if (all->e[i].stands)
			standing[n++] = i;
	for (int i = 0, s = 0; i < all->n; i++)
	{
		while (s < n && standing[s] <= i)
			s++;
		for (int k = all->e[i].stands ? i + 1 : s; k < (all->e[i].stands ? all->n : n); k++)
		{
			int			other = all->e[i].stands ? k : standing[k];

			if (is_clash(all, i, other))
				all->e[root_of(all, other)].root = root_of(all, i);
		}
	}
}

/* What the ledger calls a place. */
static char *
name_of(const EsyncTracked *t, int field, const Edit *edit)
{
	return psprintf("%s%s", t->fields[field].name, pnstrdup(edit->path, edit->len));
}

/* The contender that an edit's event is in a clash, made at its first edit. */
static EsyncContender *
contender_in(EsyncClash *clash, const Edit *edit)
{
	EsyncContender *c;

	for (int i = 0; i < clash->ncontenders; i++)
		if (clash->contenders[i].event_id == edit->c.event_id)
			return &clash->contenders[i];
	c = &clash->contenders[clash->ncontenders++];
	*c = edit->c;
	return c;
}

/* An edit as an operation inside of the place that names the clash. */
static EsyncPathOp *
inner_op(const Edit *edit, int outer)
{
	EsyncPathOp *op = palloc0(sizeof(EsyncPathOp));

	op->path = edit->path + outer;
	op->len = edit->len - outer;
	op->remove = edit->removed;
	op->value = edit->value;
	return op;
}

/*
 * What the contenders set of the place, and in parts of it: all of that, for what
 * nobody contradicts is said by them, too.
 */
static void
tell_contenders(EsyncClash *clash, const Edits *all, const Edit *outermost)
{
	for (int i = 0; i < all->n; i++)
	{
		const Edit *edit = &all->e[i];

		for (int k = 0; k < clash->ncontenders; k++)
		{
			EsyncContender *c = &clash->contenders[k];

			if (c->event_id != edit->c.event_id || c->origin != edit->c.origin ||
				edit->len < outermost->len || !overlap(edit, outermost))
				continue;
			if (edit->len > outermost->len)
				c->inner = lappend(c->inner, inner_op(edit, outermost->len));
			else if (!edit->removed)
				c->value = esync_json_from_value(&edit->value);
		}
	}
}

/*
 * A component as a clash.  Who set just a part of the place is told with what
 * stood there before, as his edits left it: esync_inner_tell.
 */
static EsyncClash *
clash_of(const EsyncTracked *t, int field, const Edits *all, int root)
{
	EsyncClash *clash = palloc0(sizeof(EsyncClash));
	const Edit *outermost = NULL;
	bool		created = true;

	clash->contenders = palloc0(all->n * sizeof(EsyncContender));
	clash->open = true;
	clash->base_at = PG_INT64_MAX;
	for (int i = 0; i < all->n; i++)
		if (root_of(all, i) == root && (outermost == NULL || all->e[i].len < outermost->len))
			outermost = &all->e[i];
	clash->field = name_of(t, field, outermost);
	clash->column = field + 1;
	clash->path = pnstrdup(outermost->path, outermost->len);
	for (int i = 0; i < all->n; i++)
	{
		const Edit *edit = &all->e[i];

		if (root_of(all, i) != root)
			continue;
		(void) contender_in(clash, edit);
		created &= edit->c.type == ESYNC_CREATED;
		clash->base_at = Min(clash->base_at, edit->c.base_version);
	}
	tell_contenders(clash, all, outermost);
	clash->kind = created ? "create_create" : "field";
	return clash;
}

/*
 * All conflicts inside of a column, and then all places of it as settled: those
 * that are in conflict were named before.  Appended to a list of EsyncClash.
 */
List *
esync_inner_clashes(const EsyncTracked *t, const EsyncEvents *whole, int field, List *list)
{
	Edits		all = {0};
	bool	   *alone;

	collect(t, whole, field, &all);
	mark_standing(&all);
	connect(&all);
	alone = palloc((all.n + 1) * sizeof(bool));
	memset(alone, true, all.n);
	for (int i = 0; i < all.n; i++)
		if (all.e[i].root != i)
			alone[root_of(&all, i)] = false;
	for (int i = 0; i < all.n; i++)
		if (!alone[i] && all.e[i].root == i)
			list = lappend(list, clash_of(t, field, &all, i));
	for (int i = 0; i < all.n; i++)
	{
		EsyncClash *settled = palloc0(sizeof(EsyncClash));

		settled->field = name_of(t, field, &all.e[i]);
		settled->resolution = "superseded";
		list = lappend(list, settled);
	}
	return list;
}

/*
 * Tells the values of a clash inside of a column, whose value is now `column`:
 * what a contender set in parts of the place is laid over what was there before.
 */
void
esync_inner_tell(EsyncClash *clash, const JsonbValue *column)
{
	JsonbValue	shown;

	if (!esync_inner_value(column, clash->path, strlen(clash->path), &shown))
		shown.type = jbvNull;
	clash->shown_value = esync_json_from_value(&shown);
	for (int i = 0; i < clash->ncontenders; i++)
	{
		EsyncContender *c = &clash->contenders[i];
		JsonbValue	value = {.type = jbvNull};
		ListCell   *lc;

		if (c->inner == NIL)
			continue;
		if (c->value || clash->base_value)
			esync_json_root(c->value ? c->value : clash->base_value, &value);
		foreach(lc, c->inner)
			esync_json_root(esync_paths_apply(&value, lfirst(lc)), &value);
		c->value = esync_json_from_value(&value);
	}
}
