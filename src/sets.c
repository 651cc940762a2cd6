/*
 * sets.c: what an event sets: in which field its operations lie, and to what.
 *
 * Names in patches and payloads are those of the event's time.  Values point
 * into the events; nothing is read, and nothing written.
 */
#include "postgres.h"

#include "merge.h"
#include "paths.h"

/* The field in which an operation of an event lies; -1: none. */
int
esync_merge_field_of_op(const EsyncTracked *t, const EsyncPathOp *op, int64 event_id)
{
	char	   *name = palloc(op->columnlen + 1);
	int			len = esync_pointer_token(op->path, op->columnlen, name);

	return len < 0 ? -1 : esync_field_at(t->fields, t->nfields, name, len, event_id);
}

/*
 * Does an operation of an event lie in a field?  All fields are asked only
 * where this one may be meant.
 */
bool
esync_merge_op_in_field(const EsyncTracked *t, const EsyncPathOp *op, int64 event_id, int field)
{
	if (memchr(op->path, '~', op->columnlen) == NULL &&
		!esync_field_bore(&t->fields[field], op->path + 1, op->columnlen - 1))
		return false;
	return esync_merge_field_of_op(t, op, event_id) == field;
}

/* What a payload written with that event has for a field; false: nothing. */
bool
esync_merge_member(const EsyncTracked *t, const Jsonb *payload, int field, int64 event_id,
				   JsonbValue *value)
{
	EsyncWalk	walk;

	esync_walk_init(&walk, &payload->root);
	while (esync_walk_next(&walk))
		if (esync_field_bore(&t->fields[field], walk.key, walk.keylen) &&
			esync_field_at(t->fields, t->nfields, walk.key, walk.keylen, event_id) == field)
		{
			*value = walk.value;
			return true;
		}
	return false;
}

/*
 * Does event i set a field, or something in it?  value, if not NULL, takes
 * what: the whole column, or what its last operation inside has.
 */
bool
esync_merge_sets(EsyncMerge *m, int i, int field, JsonbValue *value)
{
	EsyncEvent *e = &m->events->e[i];
	bool		ground = e->type == ESYNC_BASELINE && !(e->flags & ESYNC_FLAG_DRIFT);
	EsyncWalk	walk;
	bool		found = false;

	if (e->type == ESYNC_CREATED && esync_json_count(&e->patch->root) == 0)
	{
		JsonbValue	member;

		return esync_event_payload(e) != NULL &&
			esync_merge_member(m->t, e->payload, field, e->event_id, value ? value : &member);
	}
	if (ground)
		return false;
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (!esync_paths_read(&walk.value, &op) ||
			!esync_merge_op_in_field(m->t, &op, e->event_id, field))
			continue;
		if (value)
			*value = op.value;
		found = true;
	}
	return found;
}

/* What event i set in all members of a group, as an object; false: in none. */
bool
esync_merge_sets_group(EsyncMerge *m, int i, const EsyncGroup *group, JsonbValue *value)
{
	EsyncMember *members = palloc(group->nfields * sizeof(EsyncMember));
	int			n = 0;
	Jsonb	   *object;

	for (int k = 0; k < group->nfields; k++)
	{
		if (!esync_merge_sets(m, i, group->fields[k], &members[n].value))
			continue;
		members[n].key = m->t->fields[group->fields[k]].name;
		members[n].keylen = strlen(members[n].key);
		n++;
	}
	if (n == 0)
		return false;
	object = esync_json_object(n, members);
	esync_json_root(object, value);
	return true;
}
