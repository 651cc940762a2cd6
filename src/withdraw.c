/*
 * withdraw.c: events that were undone, and what the undos put back.
 *
 * An undo is a Resolved event with {"strategy": "undo", "undoes": event_id} in
 * meta.  The event that it names is withdrawn, unless the undo itself was.  The
 * member "from" says of each value from which event it is: {"/title": 12}, and
 * {"": 12} of the row as a whole.  So an undo stands in for that event: it is no
 * edit of its own, contends only where that one does not, and gives way when
 * that one is withdrawn too.
 *
 * Works on lists of events that the caller has read.
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "merge.h"
#include "paths.h"

/* Place of an event in a list; -1: it is not there. */
int
esync_withdraw_find(const EsyncEvents *events, int64 event_id)
{
	int			low = 0;
	int			high = events->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (events->e[middle].event_id < event_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < events->n && events->e[low].event_id == event_id ? low : -1;
}

/*
 * Marks the events that were undone, and the one that is about to be (0: none).
 * Who undoes comes later than what is undone, so the last ones go first.
 */
void
esync_withdraw_mark(EsyncEvents *events, int64 undoes)
{
	int			target = undoes ? esync_withdraw_find(events, undoes) : -1;

	if (target >= 0)
		events->e[target].flags |= ESYNC_FLAG_WITHDRAWN;
	for (int i = events->n - 1; i >= 0; i--)
	{
		int64		id = (events->e[i].flags & ESYNC_FLAG_WITHDRAWN) ? 0 :
			esync_event_undoes(&events->e[i]);

		if (id != 0 && (target = esync_withdraw_find(events, id)) >= 0)
			events->e[target].flags |= ESYNC_FLAG_WITHDRAWN;
	}
}

/* Is an event of that number withdrawn, listed or not? */
static bool
is_withdrawn(const EsyncEvents *events, int64 event_id)
{
	for (int i = events->n - 1; i >= 0 && events->e[i].event_id > event_id; i--)
		if (!(events->e[i].flags & ESYNC_FLAG_WITHDRAWN) &&
			esync_event_undoes(&events->e[i]) == event_id)
			return true;
	return false;
}

/*
 * Has an undo nothing to say any more: is what it put back withdrawn as well?
 * `undoes` is withdrawn by the event at hand, which is not listed; 0: none is.
 */
bool
esync_withdraw_is_void(const EsyncEvents *events, int64 origin, int64 undoes)
{
	return origin != 0 && (origin == undoes || is_withdrawn(events, origin));
}

/* The member "from" of an undo; false: it has none, or this is no undo. */
static bool
origins_of(const EsyncEvent *e, JsonbValue *from)
{
	return esync_event_undoes(e) != 0 &&
		esync_json_member(&e->meta->root, "from", 4, from) &&
		from->type == jbvBinary && JsonContainerIsObject(from->val.binary.data);
}

static int64
id_of(const JsonbValue *v)
{
	return v->type != jbvNumeric ? 0 :
		DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v->val.numeric)));
}

/*
 * The event whose value an undo put back at a path of its patch, or around it;
 * 0: none, or no undo.  An empty path is the row as a whole.
 */
int64
esync_withdraw_origin(const EsyncEvent *e, const char *path, int len)
{
	JsonbValue	from;
	EsyncWalk	walk;

	if (!origins_of(e, &from))
		return 0;
	esync_walk_init(&walk, from.val.binary.data);
	while (esync_walk_next(&walk))
		if (walk.keylen <= len && (walk.keylen == 0) == (len == 0) &&
			esync_paths_overlap(walk.key, walk.keylen, path, len))
			return id_of(&walk.value);
	return 0;
}

/* A key of "from" as the place that it names. */
static EsyncPathOp
place_of(const EsyncWalk *walk)
{
	EsyncPathOp op = {.path = walk->key, .len = walk->keylen};
	const char *slash = walk->keylen > 1 ? memchr(walk->key + 1, '/', walk->keylen - 1) : NULL;

	op.columnlen = slash ? slash - walk->key : walk->keylen;
	return op;
}

/* The same of a column as a whole. */
int64
esync_withdraw_origin_of_field(const EsyncTracked *t, const EsyncEvent *e, int field)
{
	JsonbValue	from;
	EsyncWalk	walk;

	if (!origins_of(e, &from))
		return 0;
	esync_walk_init(&walk, from.val.binary.data);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op = place_of(&walk);

		if (op.len > 0 && op.len == op.columnlen &&
			esync_merge_field_of_op(t, &op, e->event_id) == field)
			return id_of(&walk.value);
	}
	return 0;
}

/* Does a clash lie in that place? */
static bool
lies_in(const EsyncTracked *t, const EsyncClash *clash, const EsyncPathOp *op, int64 event_id)
{
	int			field;

	if (clash->field == NULL || op->len == 0)
		return clash->field == NULL && op->len == 0;
	field = esync_merge_field_of_op(t, op, event_id);
	if (field < 0)
		return false;
	if (clash->column > 0)
		return field == clash->column - 1 &&
			esync_paths_overlap(clash->path, strlen(clash->path), op->path + op->columnlen,
								op->len - op->columnlen);
	if (t->fields[field].group >= 0)
		return strcmp(t->groups[t->fields[field].group].name, clash->field) == 0;
	return strcmp(t->fields[field].name, clash->field) == 0;
}

/* Did an undo, which was not undone itself, put back an event's value where a clash lies? */
bool
esync_withdraw_puts_back(const EsyncTracked *t, const EsyncEvent *e, int64 event_id,
						 const EsyncClash *clash)
{
	JsonbValue	from;
	EsyncWalk	walk;

	if ((e->flags & ESYNC_FLAG_WITHDRAWN) || !origins_of(e, &from))
		return false;
	esync_walk_init(&walk, from.val.binary.data);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op = place_of(&walk);

		if (id_of(&walk.value) == event_id && lies_in(t, clash, &op, e->event_id))
			return true;
	}
	return false;
}

/* Adds the fields in which an undo put back what an event says. */
static Bitmapset *
add_stand_ins(const EsyncMerge *m, int64 event_id, Bitmapset *fields)
{
	for (int i = 0; i < m->events->n; i++)
	{
		const EsyncEvent *e = &m->events->e[i];
		JsonbValue	from;
		EsyncWalk	walk;

		if (!origins_of(e, &from))
			continue;
		esync_walk_init(&walk, from.val.binary.data);
		while (esync_walk_next(&walk))
		{
			EsyncPathOp op = place_of(&walk);
			int			field;

			if (op.len > 0 && id_of(&walk.value) == event_id &&
				(field = esync_merge_field_of_op(m->t, &op, e->event_id)) >= 0)
				fields = bms_add_member(fields, field);
		}
	}
	return fields;
}

/*
 * The fields in which who contends may change when an event is undone: those
 * that it set, also by an undo that stands in for it, and where it was an undo,
 * those of what it undid.
 */
Bitmapset *
esync_withdraw_fields(EsyncMerge *m, int64 undoes)
{
	Bitmapset  *fields = NULL;
	int			i;

	for (; undoes != 0 && (i = esync_withdraw_find(m->events, undoes)) >= 0;
		 undoes = esync_event_undoes(&m->events->e[i]))
	{
		for (int f = 0; f < m->t->nfields; f++)
			if (esync_merge_sets(m, i, f, NULL))
				fields = bms_add_member(fields, f);
		fields = add_stand_ins(m, undoes, fields);
	}
	return fields;
}
