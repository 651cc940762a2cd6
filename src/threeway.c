/*
 * threeway.c: one document out of two that go back to a common one.
 *
 * A node is a value or missing, which is not null; NULL stands for missing
 * here.  For each node:
 *
 *   1 what only one side changed is taken; what both changed alike too
 *   2 objects are merged member by member
 *   3 arrays are one value ('atomic'), or merged element by element
 *     ('keyed:<member>'), matched by that member
 *   4 all else is a conflict at this node, and ours is taken: the result is
 *     always whole
 *
 * Equal bytes are asked for first; deep equality only where the node is not
 * entered, so that it is paid once.
 *
 * Memory: the current context; the result points into the three documents
 * until it is written.  Calls only PostgreSQL and json.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "diff.h"

PG_FUNCTION_INFO_V1(esync_merge);

/* one node on the three sides; NULL: missing */
typedef struct Three
{
	const JsonbValue *base;
	const JsonbValue *ours;
	const JsonbValue *theirs;
} Three;

struct Merged;

typedef struct Child
{
	const char *key;			/* of an object's member */
	int			keylen;
	struct Merged *node;
} Child;

/* a merged node: a value as it stands somewhere, or children */
typedef struct Merged
{
	JsonbValue	value;			/* where children is NULL */
	bool		object;
	int			n;
	Child	   *children;
} Merged;

typedef struct Conflict
{
	int			path;			/* in Merge.paths */
	int			pathlen;
	const char *kind;
	const char *note;			/* why an array was not merged by element, or NULL */
	bool		has[3];			/* base, ours, theirs */
	JsonbValue	values[3];
} Conflict;

typedef struct Merge
{
	const char *member;			/* by which array elements are matched; NULL: atomic */
	int			memberlen;
	Conflict   *conflicts;
	int			nconflicts;
	int			maxconflicts;
	StringInfoData paths;
} Merge;

static Merged *merge_node(Merge *merge, Three three, const EsyncPath *path);

/* -------------------------------------------------------------- conflicts */

/* 0 a scalar, 1 an object, 2 an array */
static int
shape(const JsonbValue *value)
{
	return value->type != jbvBinary ? 0 : esync_diff_is_object(value) ? 1 : 2;
}

static const char *
conflict_kind(Three three)
{
	if (three.ours == NULL)
		return "delete/edit";
	if (three.theirs == NULL)
		return "edit/delete";
	if (three.base == NULL)
		return "add/add";
	if (shape(three.ours) != shape(three.theirs))
		return "type";
	return shape(three.ours) == 2 ? "array" : "edit/edit";
}

static void
add_conflict(Merge *merge, Three three, const EsyncPath *path, const char *kind, const char *note)
{
	const JsonbValue *sides[3] = {three.base, three.ours, three.theirs};
	Conflict   *conflict;

	if (merge->nconflicts == merge->maxconflicts)
	{
		merge->maxconflicts *= 2;
		merge->conflicts = repalloc_huge(merge->conflicts,
										 (Size) merge->maxconflicts * sizeof(Conflict));
	}
	conflict = &merge->conflicts[merge->nconflicts++];
	conflict->path = merge->paths.len;
	esync_path_append(&merge->paths, path);
	conflict->pathlen = merge->paths.len - conflict->path;
	conflict->kind = kind;
	conflict->note = note;
	for (int i = 0; i < 3; i++)
	{
		conflict->has[i] = sides[i] != NULL;
		if (sides[i] != NULL)
			conflict->values[i] = *sides[i];
	}
}

/* ------------------------------------------------------------------ nodes */

/* A node as one side has it; NULL stays missing. */
static Merged *
take(const JsonbValue *value)
{
	Merged	   *node;

	if (value == NULL)
		return NULL;
	node = palloc0(sizeof(Merged));
	node->value = *value;
	return node;
}

static Merged *
container(bool object, int capacity)
{
	Merged	   *node = palloc0(sizeof(Merged));

	node->object = object;
	node->children = palloc_extended(Max(capacity, 1) * sizeof(Child), MCXT_ALLOC_HUGE);
	return node;
}

static void
add_child(Merged *node, const char *key, int keylen, Merged *child)
{
	Child	   *place = &node->children[node->n++];

	place->key = key;
	place->keylen = keylen;
	place->node = child;
}

/* Rule 1 with one way of being equal; false: it does not apply. */
static bool
take_one(Three three, bool (*same) (const JsonbValue *, const JsonbValue *), Merged **out)
{
	if (same(three.ours, three.theirs) || same(three.theirs, three.base))
		*out = take(three.ours);
	else if (same(three.ours, three.base))
		*out = take(three.theirs);
	else
		return false;
	return true;
}

static bool
same_bytes(const JsonbValue *a, const JsonbValue *b)
{
	return a == NULL || b == NULL ? a == b : esync_diff_raw_same(a, b);
}

static bool
same_value(const JsonbValue *a, const JsonbValue *b)
{
	return a == NULL || b == NULL ? a == b : esync_json_equal(a, b, false);
}

/* ---------------------------------------------------------------- objects */

/* a walk that stands on a member, or is at its end */
typedef struct Cursor
{
	EsyncWalk	walk;
	bool		more;
} Cursor;

static void
cursor_init(Cursor *cursor, const JsonbValue *object)
{
	cursor->more = false;
	if (object == NULL)
		return;
	esync_walk_init(&cursor->walk, object->val.binary.data);
	cursor->more = esync_walk_next(&cursor->walk);
}

/* The value, if the cursor stands on that key. */
static const JsonbValue *
cursor_at(const Cursor *cursor, const EsyncPath *path)
{
	const EsyncWalk *walk = &cursor->walk;

	if (!cursor->more || walk->keylen != path->keylen ||
		memcmp(walk->key, path->key, path->keylen) != 0)
		return NULL;
	return &walk->value;
}

/* Rule 2: the union of the members; a missing base has none. */
static Merged *
merge_objects(Merge *merge, Three three, const EsyncPath *up)
{
	Cursor		sides[3];
	EsyncPath	path = {.up = up};
	Merged	   *node;

	cursor_init(&sides[0], three.base);
	cursor_init(&sides[1], three.ours);
	cursor_init(&sides[2], three.theirs);
	node = container(true, sides[1].walk.count + sides[2].walk.count);
	for (;;)
	{
		const Cursor *first = NULL;
		const JsonbValue *values[3];
		Merged	   *child;

		for (int i = 0; i < 3; i++)
		{
			if (sides[i].more &&
				(first == NULL || esync_key_cmp(sides[i].walk.key, sides[i].walk.keylen,
												first->walk.key, first->walk.keylen) < 0))
				first = &sides[i];
		}
		if (first == NULL)
			return node;
		path.key = first->walk.key;
		path.keylen = first->walk.keylen;
		for (int i = 0; i < 3; i++)
			values[i] = cursor_at(&sides[i], &path);
		child = merge_node(merge, (Three) {values[0], values[1], values[2]}, &path);
		if (child != NULL)
			add_child(node, path.key, path.keylen, child);
		for (int i = 0; i < 3; i++)
		{
			if (values[i] != NULL)
				sides[i].more = esync_walk_next(&sides[i].walk);
		}
	}
}

/* ----------------------------------------------------------- keyed arrays */

typedef struct Entry
{
	uint64		hash;
	int			index;
} Entry;

/* an array whose elements are found by their key */
typedef struct Keyed
{
	int			n;
	JsonbValue *elements;
	JsonbValue *keys;
	Entry	   *sorted;
} Keyed;

static int
entry_cmp(const void *a, const void *b)
{
	const Entry *x = (const Entry *) a;
	const Entry *y = (const Entry *) b;

	if (x->hash != y->hash)
		return x->hash > y->hash ? 1 : -1;
	return x->index > y->index ? 1 : x->index < y->index ? -1 : 0;
}

/* The element with that key, or -1. */
static int
keyed_find(const Keyed *keyed, const JsonbValue *key, uint64 hash)
{
	int			low = 0;
	int			high = keyed->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (keyed->sorted[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < keyed->n && keyed->sorted[low].hash == hash; low++)
	{
		if (esync_json_equal(&keyed->keys[keyed->sorted[low].index], key, false))
			return keyed->sorted[low].index;
	}
	return -1;
}

static uint64
key_hash(const JsonbValue *key)
{
	return esync_diff_hash(NULL, key, (EsyncMask) {0, 0});
}

/*
 * Loads an array (NULL: an empty one).  False, and why not: an element has no
 * key, or two have the same.
 */
static bool
keyed_load(const Merge *merge, const JsonbValue *array, Keyed *keyed, const char **why)
{
	EsyncWalk	walk;

	memset(keyed, 0, sizeof(Keyed));
	if (array == NULL)
		return true;
	esync_walk_init(&walk, array->val.binary.data);
	keyed->elements = palloc_extended((Size) Max(walk.count, 1) * sizeof(JsonbValue),
									  MCXT_ALLOC_HUGE);
	keyed->keys = palloc_extended((Size) Max(walk.count, 1) * sizeof(JsonbValue),
								  MCXT_ALLOC_HUGE);
	keyed->sorted = palloc_extended((Size) Max(walk.count, 1) * sizeof(Entry), MCXT_ALLOC_HUGE);
	for (; esync_walk_next(&walk); keyed->n++)
	{
		JsonbValue *key = &keyed->keys[keyed->n];

		*why = "not merged by element: one has no key";
		if (!esync_diff_is_object(&walk.value) ||
			!esync_json_member(walk.value.val.binary.data, merge->member, merge->memberlen, key) ||
			(key->type != jbvString && key->type != jbvNumeric))
			return false;
		keyed->elements[keyed->n] = walk.value;
		keyed->sorted[keyed->n] = (Entry) {key_hash(key), keyed->n};
	}
	qsort(keyed->sorted, keyed->n, sizeof(Entry), entry_cmp);
	*why = "not merged by element: two have the same key";
	for (int i = 0; i < keyed->n; i++)
	{
		/* the first of several is found, so each of the others is missed */
		if (keyed_find(keyed, &keyed->keys[keyed->sorted[i].index], keyed->sorted[i].hash) !=
			keyed->sorted[i].index)
			return false;
	}
	*why = NULL;
	return true;
}

/* an element of ours or, if ours lacks it, of theirs */
typedef struct Slot
{
	int			base;			/* index there; -1: missing */
	int			ours;
	int			theirs;
	Merged	   *node;			/* NULL: not in the result */
	int			next;			/* slot that follows in the result */
	bool		placed;
} Slot;

typedef struct Slots
{
	Keyed		base;
	Keyed		ours;
	Keyed		theirs;
	int			n;
	Slot	   *slots;			/* those of ours first, in its order */
	int		   *by_theirs;		/* slot of each element of theirs */
} Slots;

/* Matches the elements of the three sides. */
static void
match_slots(Slots *all)
{
	all->slots = palloc_extended((Size) Max(all->ours.n + all->theirs.n, 1) * sizeof(Slot),
								 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	all->by_theirs = palloc_extended((Size) Max(all->theirs.n, 1) * sizeof(int), MCXT_ALLOC_HUGE);
	for (int i = 0; i < all->ours.n; i++)
	{
		const JsonbValue *key = &all->ours.keys[i];
		uint64		hash = key_hash(key);
		Slot	   *slot = &all->slots[all->n];

		slot->base = keyed_find(&all->base, key, hash);
		slot->ours = i;
		slot->theirs = keyed_find(&all->theirs, key, hash);
		if (slot->theirs >= 0)
			all->by_theirs[slot->theirs] = all->n;
		all->n++;
	}
	for (int j = 0; j < all->theirs.n; j++)
	{
		const JsonbValue *key = &all->theirs.keys[j];
		uint64		hash = key_hash(key);
		Slot	   *slot = &all->slots[all->n];

		if (keyed_find(&all->ours, key, hash) >= 0)
			continue;
		slot->base = keyed_find(&all->base, key, hash);
		slot->ours = -1;
		slot->theirs = j;
		all->by_theirs[j] = all->n++;
	}
}

/*
 * Who gives the order: theirs where only they moved what all three have.
 * conflict: both did, and not alike.
 */
static bool
theirs_lead(const Slots *all, bool *conflict)
{
	bool		ours_moved = false;
	bool		theirs_moved = false;
	bool		alike = true;
	int			last_ours = -1;
	int			last_theirs = -1;

	for (int i = 0, j = 0;; i++, j++)
	{
		const Slot *x;
		const Slot *y;

		while (i < all->ours.n && (all->slots[i].base < 0 || all->slots[i].theirs < 0))
			i++;
		while (j < all->theirs.n &&
			   (all->slots[all->by_theirs[j]].base < 0 || all->slots[all->by_theirs[j]].ours < 0))
			j++;
		if (i >= all->ours.n || j >= all->theirs.n)
			break;				/* both, as they are the same elements */
		x = &all->slots[i];
		y = &all->slots[all->by_theirs[j]];
		ours_moved |= x->base < last_ours;
		theirs_moved |= y->base < last_theirs;
		alike &= x == y;
		last_ours = x->base;
		last_theirs = y->base;
	}
	*conflict = ours_moved && theirs_moved && !alike;
	return theirs_moved && !ours_moved;
}

/*
 * Merges one element.  In conflicts it goes by its index in base, or if it was
 * added, in ours.
 */
static Merged *
merge_element(Merge *merge, const Slots *all, int base, int ours, int theirs, const EsyncPath *up)
{
	EsyncPath	path = {.up = up, .index = base >= 0 ? base : Max(ours, 0)};
	Three		three = {
		base >= 0 ? &all->base.elements[base] : NULL,
		ours >= 0 ? &all->ours.elements[ours] : NULL,
		theirs >= 0 ? &all->theirs.elements[theirs] : NULL
	};

	return merge_node(merge, three, &path);
}

/* Fills the nodes of all slots: those of base in its order, then what was added. */
static void
merge_slots(Merge *merge, Slots *all, const EsyncPath *up)
{
	int		   *by_base = palloc_extended((Size) Max(all->base.n, 1) * sizeof(int),
										  MCXT_ALLOC_HUGE);

	for (int i = 0; i < all->base.n; i++)
		by_base[i] = -1;
	for (int i = 0; i < all->n; i++)
	{
		if (all->slots[i].base >= 0)
			by_base[all->slots[i].base] = i;
	}
	for (int i = 0; i < all->base.n; i++)
	{
		Slot	   *slot = by_base[i] >= 0 ? &all->slots[by_base[i]] : NULL;

		/* what both removed is no slot, and stays away */
		if (slot != NULL)
			slot->node = merge_element(merge, all, i, slot->ours, slot->theirs, up);
	}
	for (int i = 0; i < all->n; i++)
	{
		Slot	   *slot = &all->slots[i];

		if (slot->base < 0)
			slot->node = merge_element(merge, all, -1, slot->ours, slot->theirs, up);
	}
	pfree(by_base);
}

/*
 * Puts one side's slots that are not there yet into the chain, each after the
 * one that goes before it on this side.  first is the chain's head.
 */
static void
place_side(Slots *all, bool theirs, int *first)
{
	int			count = theirs ? all->theirs.n : all->ours.n;
	int		   *link = first;

	for (int i = 0; i < count; i++)
	{
		int			which = theirs ? all->by_theirs[i] : i;
		Slot	   *slot = &all->slots[which];

		if (slot->node == NULL)
			continue;
		if (!slot->placed)
		{
			slot->next = *link;
			*link = which;
			slot->placed = true;
		}
		link = &slot->next;
	}
}

/*
 * Rule 3, 'keyed'.  NULL: some array cannot be matched by element, *why says
 * how come.
 */
static Merged *
merge_keyed(Merge *merge, Three three, const EsyncPath *path, const char **why)
{
	Slots		all = {.n = 0};
	Merged	   *node;
	int			first = -1;
	bool		conflict;
	bool		lead;

	if (!keyed_load(merge, three.base, &all.base, why) ||
		!keyed_load(merge, three.ours, &all.ours, why) ||
		!keyed_load(merge, three.theirs, &all.theirs, why))
		return NULL;
	match_slots(&all);
	lead = theirs_lead(&all, &conflict);
	if (conflict)
		add_conflict(merge, three, path, "order", NULL);
	merge_slots(merge, &all, path);
	place_side(&all, lead, &first);
	place_side(&all, !lead, &first);
	node = container(false, all.n);
	for (int i = first; i >= 0; i = all.slots[i].next)
		add_child(node, NULL, 0, all.slots[i].node);
	return node;
}

/* ------------------------------------------------------------------ rules */

static bool
is_shape(const JsonbValue *value, int wanted, bool or_missing)
{
	return value == NULL ? or_missing : shape(value) == wanted;
}

/* The heart: the four rules for one node; NULL is missing. */
static Merged *
merge_node(Merge *merge, Three three, const EsyncPath *path)
{
	const char *note = NULL;
	Merged	   *node;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (take_one(three, same_bytes, &node))
		return node;
	if (is_shape(three.base, 1, true) && is_shape(three.ours, 1, false) &&
		is_shape(three.theirs, 1, false))
		return merge_objects(merge, three, path);
	if (merge->member != NULL && is_shape(three.base, 2, true) &&
		is_shape(three.ours, 2, false) && is_shape(three.theirs, 2, false))
	{
		node = merge_keyed(merge, three, path, &note);
		if (node != NULL)
			return node;
	}
	if (take_one(three, same_value, &node))
		return node;
	add_conflict(merge, three, path, conflict_kind(three), note);
	return take(three.ours);
}

/* ---------------------------------------------------------------- writing */

static void
write_node(EsyncJson *json, const Merged *node)
{
	if (node->children == NULL)
	{
		esync_json_value(json, &node->value);
		return;
	}
	check_stack_depth();
	if (node->object)
	{
		esync_json_open_object(json, node->n);
		for (int i = 0; i < node->n; i++)
			esync_json_key(json, node->children[i].key, node->children[i].keylen);
	}
	else
		esync_json_open_array(json, node->n);
	for (int i = 0; i < node->n; i++)
		write_node(json, node->children[i].node);
	esync_json_close(json);
}

static void
write_text(EsyncJson *json, const char *string)
{
	esync_json_string(json, string, strlen(string));
}

/* One conflict, members in stored order. */
static void
write_conflict(const Merge *merge, EsyncJson *json, const Conflict *c)
{
	esync_json_open_object(json, 3 + c->has[0] + c->has[1] + c->has[2] + (c->note != NULL));
	if (c->has[0])
		esync_json_key(json, "base", 4);
	esync_json_key(json, "kind", 4);
	if (c->note != NULL)
		esync_json_key(json, "note", 4);
	if (c->has[1])
		esync_json_key(json, "ours", 4);
	esync_json_key(json, "path", 4);
	esync_json_key(json, "took", 4);
	if (c->has[2])
		esync_json_key(json, "theirs", 6);

	if (c->has[0])
		esync_json_value(json, &c->values[0]);
	write_text(json, c->kind);
	if (c->note != NULL)
		write_text(json, c->note);
	if (c->has[1])
		esync_json_value(json, &c->values[1]);
	esync_json_string(json, merge->paths.data + c->path, c->pathlen);
	write_text(json, "ours");
	if (c->has[2])
		esync_json_value(json, &c->values[2]);
	esync_json_close(json);
}

static Jsonb *
write_conflicts(const Merge *merge)
{
	EsyncJson	json;

	esync_json_init(&json, 64 + (Size) merge->nconflicts * 160);
	esync_json_open_array(&json, merge->nconflicts);
	for (int i = 0; i < merge->nconflicts; i++)
		write_conflict(merge, &json, &merge->conflicts[i]);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------------ entry point */

/* 'atomic' or 'keyed:<member>' */
static void
parse_arrays(Merge *merge, text *arrays)
{
	char	   *name = text_to_cstring(arrays);

	if (strcmp(name, "atomic") == 0)
		return;
	if (strncmp(name, "keyed:", 6) != 0 || name[6] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown way to merge arrays \"%s\"", name),
				 errhint("It is \"atomic\" or \"keyed:\" and a member's name, as in keyed:id.")));
	merge->member = name + 6;
	merge->memberlen = strlen(merge->member);
}

/* esync_merge(base, ours, theirs, arrays text, OUT merged, OUT conflicts) */
Datum
esync_merge(PG_FUNCTION_ARGS)
{
	JsonbValue	base;
	JsonbValue	ours;
	JsonbValue	theirs;
	Merge		merge = {.maxconflicts = 8};
	EsyncJson	json;
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	esync_json_root(PG_GETARG_JSONB_P(0), &base);
	esync_json_root(PG_GETARG_JSONB_P(1), &ours);
	esync_json_root(PG_GETARG_JSONB_P(2), &theirs);
	parse_arrays(&merge, PG_GETARG_TEXT_PP(3));
	merge.conflicts = palloc(merge.maxconflicts * sizeof(Conflict));
	initStringInfo(&merge.paths);

	esync_json_init(&json, ours.type == jbvBinary ? ours.val.binary.len + 64 : 64);
	write_node(&json, merge_node(&merge, (Three) {&base, &ours, &theirs}, NULL));
	values[0] = JsonbPGetDatum(esync_json_finish(&json));
	values[1] = JsonbPGetDatum(write_conflicts(&merge));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
