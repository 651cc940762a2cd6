/*
 * fold.c: registers, and the fold of events.
 *
 * A register is a field's current winner: the value that bears the greatest
 * stamp (effective, device_id, device_seq, event_id), NULL lowest.  The delete
 * register is one more.  The fold of a set of events is the same in whatever
 * order they are added.
 *
 * Columns that an author did not name when creating a row are stamped below
 * every edit and below the ground of a Baseline: effective -infinity, no
 * device, and event_id less DEFAULT_SHIFT, so that the later default wins
 * among its like.
 *
 * A column may also be edited inside (paths.c).  Such edits are kept beside its
 * register, as far as they are not older than it, and laid over its value.
 *
 * Calls only PostgreSQL, json and paths.  What fields were called when an event was
 * written is looked up in a hash made at init, by the rule of esync_field_at.
 *
 * Memory: registers, hash and lists of edits in the context current at init.
 * Values point into the events, which must live as long as the fold; or are copied
 * there, after esync_fold_keep.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "paths.h"

/* event_ids of defaults are less than those of any event by this much */
#define DEFAULT_SHIFT			(PG_INT64_MAX / 2)

/* a name that a field once had, in the hash */
typedef struct FieldName
{
	const char *name;			/* NULL: free */
	int			len;
	int			field;
	uint32		hash;
	int64		from_event;
} FieldName;

/*
 * What a fold keeps beside its registers; esync_fold_init makes them one chunk.
 * Names and living are never changed once they are made: folds may share them.
 */
typedef struct FoldPlan
{
	FieldName  *names;			/* open addressing */
	uint32		mask;
	int			nliving;
	int		   *living;			/* fields that a state may show, in stored key order */
	bool		has_stamps;
	bool		keeps;			/* copies what it keeps, into */
	MemoryContext keep_cxt;		/* this context: see esync_fold_keep */
	EsyncPaths **paths;			/* edits inside of columns, by field; NULL: there were none */
	bool		born;			/* the delete register was ever set */
	int			row;			/* index of row_event */
	MemoryContext cxt;
	EsyncJsonHead heads[2];		/* prepared states, without and with masked columns */
	EsyncRegister registers[FLEXIBLE_ARRAY_MEMBER];
} FoldPlan;

static inline FoldPlan *
plan_of(const EsyncFold *fold)
{
	return (FoldPlan *) ((char *) fold->registers - offsetof(FoldPlan, registers));
}

/* ----------------------------------------------------------------- stamps */

/* Bytewise; NULL sorts lowest. */
static int
device_cmp(const text *a, const text *b)
{
	int			alen;
	int			blen;
	int			c;

	if (a == b)
		return 0;
	if (a == NULL || b == NULL)
		return a == NULL ? -1 : 1;
	alen = VARSIZE_ANY_EXHDR(a);
	blen = VARSIZE_ANY_EXHDR(b);
	c = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));
	if (c != 0)
		return c;
	return alen < blen ? -1 : alen > blen;
}

/* The order of edits; the greater one shows. */
int
esync_stamp_cmp(const EsyncStamp *a, const EsyncStamp *b)
{
	int			c;

	if (a->effective != b->effective)
		return a->effective < b->effective ? -1 : 1;
	c = device_cmp(a->device_id, b->device_id);
	if (c != 0)
		return c;
	if (a->device_seq != b->device_seq)
		return a->device_seq < b->device_seq ? -1 : 1;
	if (a->event_id != b->event_id)
		return a->event_id < b->event_id ? -1 : 1;
	return 0;
}

/* The stamp that an event gives to its edits. */
EsyncStamp
esync_event_stamp(const EsyncEvent *event)
{
	EsyncStamp	stamp = {event->effective, event->device_id, event->device_seq,
	event->event_id};

	return stamp;
}

/* The stamp of a value that nobody chose. */
static EsyncStamp
default_stamp(const EsyncEvent *event)
{
	EsyncStamp	stamp = {DT_NOBEGIN, NULL, 0, event->event_id - DEFAULT_SHIFT};

	return stamp;
}

/* ------------------------------------------------------------------ fields */

/* Puts one name of a field into the hash; equal names stand there side by side. */
static void
add_name(FoldPlan *plan, int field, const EsyncName *name)
{
	int			len = strlen(name->name);
	uint32		hash = hash_bytes((const unsigned char *) name->name, len);
	uint32		slot = hash & plan->mask;

	while (plan->names[slot].name != NULL)
		slot = (slot + 1) & plan->mask;
	plan->names[slot].name = name->name;
	plan->names[slot].len = len;
	plan->names[slot].field = field;
	plan->names[slot].hash = hash;
	plan->names[slot].from_event = name->from_event;
}

/* The field that bore the name when the event was written; -1: none. */
static int
field_at(const FoldPlan *plan, const char *name, int len, int64 event_id)
{
	uint32		hash = hash_bytes((const unsigned char *) name, len);
	const FieldName *best = NULL;

	for (uint32 slot = hash & plan->mask; plan->names[slot].name != NULL;
		 slot = (slot + 1) & plan->mask)
	{
		const FieldName *n = &plan->names[slot];

		if (n->hash == hash && n->len == len && n->from_event <= event_id &&
			(best == NULL || n->from_event > best->from_event) &&
			memcmp(n->name, name, len) == 0)
			best = n;
	}
	return best ? best->field : -1;
}

/* The name that a field bore when the event was written; NULL: it was not there. */
static const char *
name_at(const EsyncField *field, int64 event_id)
{
	for (int k = field->nnames - 1; k >= 0; k--)
	{
		if (field->names[k].from_event <= event_id)
			return field->names[k].name;
	}
	return NULL;
}

static int
living_cmp(const void *a, const void *b, void *fields)
{
	const char *x = ((const EsyncField *) fields)[*(const int *) a].name;
	const char *y = ((const EsyncField *) fields)[*(const int *) b].name;

	return esync_key_cmp(x, strlen(x), y, strlen(y));
}

static inline bool
has_register(const EsyncField *field)
{
	return !field->excluded && !field->masked && !field->stamp;
}

/* Fills the hash, and lists the fields that a state shows. */
static void
prepare(EsyncFold *fold, FoldPlan *plan)
{
	int			n = 0;
	uint32		size = 16;

	for (int i = 0; i < fold->nfields; i++)
		n += fold->fields[i].nnames;
	while (size < 2 * n)
		size *= 2;
	plan->names = palloc0(size * sizeof(FieldName));
	plan->mask = size - 1;
	plan->living = palloc(fold->nfields * sizeof(int) + 1);
	for (int i = 0; i < fold->nfields; i++)
	{
		const EsyncField *field = &fold->fields[i];

		for (int k = 0; k < field->nnames; k++)
			add_name(plan, i, &field->names[k]);
		if (field->attnum != 0 && !field->excluded)
		{
			plan->living[plan->nliving++] = i;
			plan->has_stamps |= field->stamp;
		}
	}
	qsort_arg(plan->living, plan->nliving, sizeof(int), living_cmp,
			  unconstify(EsyncField *, fold->fields));
}

/* An empty fold, of which nothing is prepared yet. */
static FoldPlan *
make_plan(EsyncFold *fold, const EsyncField *fields, int nfields, int tombstone_field)
{
	FoldPlan   *plan = palloc0(offsetof(FoldPlan, registers) +
							   (nfields + 1) * sizeof(EsyncRegister));

	memset(fold, 0, sizeof(*fold));
	fold->fields = fields;
	fold->nfields = nfields;
	fold->tombstone_field = tombstone_field;
	fold->registers = plan->registers;
	plan->cxt = CurrentMemoryContext;
	return plan;
}

/*
 * Prepares a fold for events of a table with these fields, which must live as
 * long as it.  tombstone_field -1: the table has no tombstone.
 */
void
esync_fold_init(EsyncFold *fold, const EsyncField *fields, int nfields, int tombstone_field)
{
	prepare(fold, make_plan(fold, fields, nfields, tombstone_field));
	esync_fold_reset(fold);
}

/* Prepares a fold for events of the same table as another one, which must live as long. */
void
esync_fold_init_like(EsyncFold *fold, const EsyncFold *other)
{
	const FoldPlan *from = plan_of(other);
	FoldPlan   *plan = make_plan(fold, other->fields, other->nfields, other->tombstone_field);

	plan->names = from->names;
	plan->mask = from->mask;
	plan->nliving = from->nliving;
	plan->living = from->living;
	plan->has_stamps = from->has_stamps;
	esync_fold_reset(fold);
}

/* Forgets all events; what init prepared stays. */
void
esync_fold_reset(EsyncFold *fold)
{
	FoldPlan   *plan = plan_of(fold);

	for (int i = 0; i < fold->nfields; i++)
	{
		fold->registers[i].event = -1;
		if (plan->paths != NULL && plan->paths[i] != NULL)
			esync_paths_reset(plan->paths[i]);
	}
	fold->known = false;
	fold->deleted = false;
	fold->gone = false;
	memset(&fold->deleted_stamp, 0, sizeof(EsyncStamp));
	fold->row_version = 0;
	fold->row_event = NULL;
	plan->born = false;
	plan->row = -1;
}

/*
 * Has the fold copy what it keeps into a context, so that events need not
 * outlive their adding.  The context may be reset together with the fold.
 */
void
esync_fold_keep(EsyncFold *fold, MemoryContext cxt)
{
	plan_of(fold)->keeps = true;
	plan_of(fold)->keep_cxt = cxt;
}

/* The event as far as last_modified columns need it, as the fold's own. */
static EsyncEvent *
keep_event(const FoldPlan *plan, EsyncEvent *event)
{
	MemoryContext old = MemoryContextSwitchTo(plan->keep_cxt);
	EsyncEvent *copy = palloc(sizeof(EsyncEvent));

	*copy = *event;
	copy->patch = copy->meta = NULL;
	if (plan->has_stamps && event->payload != NULL)
		copy->payload = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(event->payload));
	else
		copy->payload = NULL;
	MemoryContextSwitchTo(old);
	return copy;
}

/* ------------------------------------------------------------------ edits */

/* An edit of one field: it shows if its stamp is the greatest so far. */
static void
set_register(EsyncFold *fold, int field, int index, const EsyncStamp *stamp,
			 const JsonbValue *value)
{
	EsyncRegister *reg = &fold->registers[field];

	if (!has_register(&fold->fields[field]))
		return;
	if (reg->event >= 0 && esync_stamp_cmp(stamp, &reg->stamp) <= 0)
		return;
	reg->event = index;
	reg->stamp = *stamp;
	reg->value = *value;
	if (plan_of(fold)->keeps)
		esync_json_keep(&reg->value, plan_of(fold)->keep_cxt);
	if (plan_of(fold)->paths != NULL && plan_of(fold)->paths[field] != NULL)
		esync_paths_cover(plan_of(fold)->paths[field], stamp);
}

/*
 * An edit inside of a column.  It shows unless the column was set as a whole,
 * or that very place again, with a greater stamp.
 */
static void
set_inside(EsyncFold *fold, int field, const EsyncStamp *stamp, const EsyncPathOp *op)
{
	FoldPlan   *plan = plan_of(fold);
	EsyncRegister *reg = &fold->registers[field];
	EsyncPathOp kept = *op;
	MemoryContext old;

	if (!has_register(&fold->fields[field]))
		return;
	if (reg->event >= 0 && esync_stamp_cmp(stamp, &reg->stamp) < 0)
		return;
	old = MemoryContextSwitchTo(plan->cxt);
	if (plan->paths == NULL)
		plan->paths = palloc0(fold->nfields * sizeof(EsyncPaths *));
	if (plan->paths[field] == NULL)
		plan->paths[field] = esync_paths_make();
	MemoryContextSwitchTo(old);
	if (plan->keeps)
	{
		kept.path = memcpy(MemoryContextAlloc(plan->keep_cxt, op->len), op->path, op->len);
		esync_json_keep(&kept.value, plan->keep_cxt);
	}
	esync_paths_add(plan->paths[field], stamp, &kept);
}

/* The same for the delete register; gone: there is no row either. */
static void
set_deleted(EsyncFold *fold, const EsyncStamp *stamp, bool deleted, bool gone)
{
	FoldPlan   *plan = plan_of(fold);

	if (plan->born && esync_stamp_cmp(stamp, &fold->deleted_stamp) <= 0)
		return;
	plan->born = true;
	fold->deleted_stamp = *stamp;
	fold->deleted = deleted;
	fold->gone = gone;
}

/* Every member of a payload is an edit with that stamp; returns the tombstone's. */
static bool
add_members(EsyncFold *fold, const EsyncEvent *event, Jsonb *payload, int index,
			const EsyncStamp *stamp)
{
	FoldPlan   *plan = plan_of(fold);
	bool		deleted = false;
	EsyncWalk	walk;

	esync_walk_init(&walk, &payload->root);
	while (esync_walk_next(&walk))
	{
		int			field = field_at(plan, walk.key, walk.keylen, event->event_id);

		if (field < 0)
			continue;
		if (field == fold->tombstone_field)
			deleted = walk.value.type != jbvNull;
		set_register(fold, field, index, stamp, &walk.value);
	}
	return deleted;
}

/* The field that an operation is about, as a whole or inside; -1: none. */
static int
field_of_op(const FoldPlan *plan, const EsyncPathOp *op, int64 event_id)
{
	int			len = op->columnlen;
	char		name[2 * NAMEDATALEN];

	if (len > sizeof(name))
		return -1;
	if (memchr(op->path, '~', len) == NULL)
		return field_at(plan, op->path + 1, len - 1, event_id);
	len = esync_pointer_token(op->path, len, name);
	return len < 0 ? -1 : field_at(plan, name, len, event_id);
}

/* Every operation of the patch is an edit; one on the tombstone column deletes or restores. */
static void
add_ops(EsyncFold *fold, const EsyncEvent *event, int index, const EsyncStamp *stamp)
{
	FoldPlan   *plan = plan_of(fold);
	EsyncPathOp op;
	EsyncWalk	walk;

	esync_walk_init(&walk, &event->patch->root);
	while (esync_walk_next(&walk))
	{
		int			field;

		if (!esync_paths_read(&walk.value, &op))
			continue;
		field = field_of_op(plan, &op, event->event_id);
		if (field < 0)
			continue;
		if (op.columnlen < op.len)
		{
			set_inside(fold, field, stamp, &op);
			continue;
		}
		set_register(fold, field, index, stamp, &op.value);
		if (field == fold->tombstone_field)
			set_deleted(fold, stamp, op.value.type != jbvNull, false);
	}
}

/*
 * The whole row, or with operations: these, and defaults for the rest of the row.
 * Where the key had events before there were no defaults: the rest of the payload
 * is what others had made of the row, who may be undone, or be later.
 */
static void
add_whole(EsyncFold *fold, EsyncEvent *event, int index, const EsyncStamp *stamp)
{
	Jsonb	   *payload = esync_event_payload(event);
	bool		named = esync_json_count(&event->patch->root) > 0;
	EsyncStamp	unnamed = default_stamp(event);
	bool		deleted = false;

	if (payload != NULL && !(named && event->version > 1))
		deleted = add_members(fold, event, payload, index, named ? &unnamed : stamp);
	set_deleted(fold, stamp, deleted, false);
	add_ops(fold, event, index, stamp);
}

/* What was found to differ, and whether the row was found there or gone. */
static void
add_drift(EsyncFold *fold, EsyncEvent *event, int index, const EsyncStamp *stamp)
{
	JsonbValue	deleted;

	if (event->meta != NULL && esync_json_member(&event->meta->root, "deleted", 7, &deleted) &&
		deleted.type == jbvBool)
		set_deleted(fold, stamp, deleted.val.boolean,
					deleted.val.boolean && event->payload == NULL);
	add_ops(fold, event, index, stamp);
}

/* What a decision says of the row as a whole: 1 it lives, -1 it is deleted, 0 nothing. */
int
esync_event_life(const EsyncEvent *event)
{
	JsonbValue	deleted;

	if (event->type != ESYNC_RESOLVED || event->meta == NULL ||
		!esync_json_member(&event->meta->root, "deleted", 7, &deleted) ||
		deleted.type != jbvBool)
		return 0;
	return deleted.val.boolean ? -1 : 1;
}

/*
 * The event that this one withdraws; 0: it is no undo.  What an author wrote
 * into meta is not taken for one: no other decision bears that strategy.
 */
int64
esync_event_undoes(const EsyncEvent *event)
{
	JsonbValue	strategy;
	JsonbValue	id;

	if (event->type != ESYNC_RESOLVED || event->meta == NULL ||
		!esync_json_member(&event->meta->root, "undoes", 6, &id) || id.type != jbvNumeric ||
		!esync_json_member(&event->meta->root, "strategy", 8, &strategy) ||
		strategy.type != jbvString || strategy.val.string.len != 4 ||
		memcmp(strategy.val.string.val, "undo", 4) != 0)
		return 0;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(id.val.numeric)));
}

/* Was the event written by esync_touch?  It shows the row again and stamps nothing. */
bool
esync_event_is_touch(const EsyncEvent *event)
{
	JsonbValue	touch;

	return event->type == ESYNC_BASELINE && (event->flags & ESYNC_FLAG_DRIFT) &&
		event->meta != NULL && esync_json_member(&event->meta->root, "touch", 5, &touch);
}

/* Does a decision take the row, and not mark it by the tombstone column? */
static bool
takes_row(const EsyncEvent *event)
{
	JsonbValue	hard;

	return esync_event_life(event) < 0 &&
		esync_json_member(&event->meta->root, "hard", 4, &hard) && hard.type == jbvBool &&
		hard.val.boolean;
}

static bool
is_hard_delete(const EsyncEvent *event)
{
	if (event->type == ESYNC_RESOLVED)
		return takes_row(event);
	return event->type == ESYNC_DELETED && esync_json_count(&event->patch->root) == 0;
}

/* Remembers the event of the highest version that left a row. */
static void
note_row(EsyncFold *fold, EsyncEvent *event, int index)
{
	FoldPlan   *plan = plan_of(fold);
	bool		found_gone = event->type == ESYNC_BASELINE && event->payload == NULL;

	if ((event->flags & ESYNC_FLAG_NO_ROW) || is_hard_delete(event) || found_gone ||
		index < plan->row)
		return;
	plan->row = index;
	fold->row_event = plan->keeps ? keep_event(plan, event) : event;
	fold->row_version = event->version;
}

/*
 * Adds one event; index is its place by version, as in EsyncEvents, and goes
 * into the registers that it wins.  Any order of adding gives the same fold.
 */
void
esync_fold_add(EsyncFold *fold, EsyncEvent *event, int index)
{
	EsyncStamp	stamp = esync_event_stamp(event);

	fold->known = true;
	note_row(fold, event, index);
	switch (event->type)
	{
		case ESYNC_CREATED:
			add_whole(fold, event, index, &stamp);
			break;
		case ESYNC_BASELINE:
			if (event->flags & ESYNC_FLAG_DRIFT)
				add_drift(fold, event, index, &stamp);
			else
				add_whole(fold, event, index, &stamp);
			break;
		case ESYNC_DELETED:
			if ((event->flags & ESYNC_FLAG_FOLLOWED) && (event->flags & ESYNC_FLAG_MOVED))
				break;
			set_deleted(fold, &stamp, true, is_hard_delete(event));
			add_ops(fold, event, index, &stamp);
			break;
		case ESYNC_RESTORED:
			set_deleted(fold, &stamp, false, false);
			add_ops(fold, event, index, &stamp);
			break;
		case ESYNC_RESOLVED:
			if (esync_event_life(event) != 0)
				set_deleted(fold, &stamp, esync_event_life(event) < 0, takes_row(event));
			add_ops(fold, event, index, &stamp);
			break;
		case ESYNC_UPDATED:
			add_ops(fold, event, index, &stamp);
			break;
	}
}

/* ------------------------------------------------------------------ state */

/*
 * What one field holds: its register, else its fill, else null, and over that
 * the edits inside of it.  False where it has no register (excluded, masked,
 * kept by last_modified).
 */
bool
esync_fold_value(const EsyncFold *fold, int field, JsonbValue *value)
{
	const EsyncField *f = &fold->fields[field];

	if (!has_register(f))
		return false;
	if (fold->registers[field].event >= 0)
		*value = fold->registers[field].value;
	else if (f->fill != NULL)
		esync_json_root(f->fill, value);
	else
		value->type = jbvNull;
	if (plan_of(fold)->paths != NULL && plan_of(fold)->paths[field] != NULL)
		esync_paths_value(plan_of(fold)->paths[field], value, value);
	return true;
}

/* Is a field's value made of edits inside of it, laid over its register? */
bool
esync_fold_is_inside(const EsyncFold *fold, int field)
{
	const FoldPlan *plan = plan_of(fold);

	return plan->paths != NULL && plan->paths[field] != NULL && plan->paths[field]->n > 0;
}

/* Was the field set by any event, as a whole or inside? */
bool
esync_fold_is_set(const EsyncFold *fold, int field)
{
	return fold->registers[field].event >= 0 || esync_fold_is_inside(fold, field);
}

/* Is there a row, by the events added? */
bool
esync_fold_has_row(const EsyncFold *fold)
{
	return plan_of(fold)->born && !fold->gone;
}

/* A last_modified column, of the last event that left a row: as stored, or when that was. */
void
esync_fold_stamp_value(const EsyncFold *fold, int field, char *buffer, JsonbValue *value)
{
	EsyncEvent *event = fold->row_event;
	const char *name;
	Jsonb	   *payload;
	int			utc = 0;

	value->type = jbvNull;
	if (event == NULL)
		return;
	payload = esync_event_payload(event);
	if (payload != NULL)
	{
		name = name_at(&fold->fields[field], event->event_id);
		if (name != NULL)
			esync_json_member(&payload->root, name, strlen(name), value);
		return;
	}
	JsonEncodeDateTime(buffer, TimestampTzGetDatum(event->commit), TIMESTAMPTZOID, &utc);
	value->type = jbvString;
	value->val.string.val = buffer;
	value->val.string.len = strlen(buffer);
}

/* Opens the object with all its keys; what that writes is kept for the next time. */
static void
open_state(EsyncFold *fold, EsyncJson *json, bool with_masked)
{
	FoldPlan   *plan = plan_of(fold);
	EsyncJsonHead *head = &plan->heads[with_masked];
	int			n = 0;

	if (head->bytes != NULL)
	{
		esync_json_open_head(json, head);
		return;
	}
	for (int i = 0; i < plan->nliving; i++)
		n += with_masked || !fold->fields[plan->living[i]].masked;
	esync_json_open_object(json, n);
	for (int i = 0; i < plan->nliving; i++)
	{
		const EsyncField *f = &fold->fields[plan->living[i]];

		if (with_masked || !f->masked)
			esync_json_key(json, f->name, strlen(f->name));
	}
	esync_json_head_make(json, plan->cxt, head);
}

/*
 * The row as an object of the living fields under their present names, in the
 * current memory context; NULL where there is none.  Masked columns are left
 * out or shown as ESYNC_MASK.
 */
Jsonb *
esync_fold_state(EsyncFold *fold, bool with_masked)
{
	FoldPlan   *plan = plan_of(fold);
	char		buffer[MAXDATELEN + 1];
	EsyncJson	json;

	if (!esync_fold_has_row(fold))
		return NULL;
	esync_json_init(&json, 64 * (plan->nliving + 1));
	open_state(fold, &json, with_masked);
	for (int i = 0; i < plan->nliving; i++)
	{
		const EsyncField *f = &fold->fields[plan->living[i]];
		JsonbValue	value;

		if (f->masked)
		{
			if (with_masked)
				esync_json_string(&json, ESYNC_MASK, strlen(ESYNC_MASK));
			continue;
		}
		if (f->stamp)
			esync_fold_stamp_value(fold, plan->living[i], buffer, &value);
		else
			esync_fold_value(fold, plan->living[i], &value);
		esync_json_value(&json, &value);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/*
 * The row as a payload written with that event would have had it: fields that
 * were there then, under their names of then, masked ones as ESYNC_MASK.
 * NULL: no row.  Strings are in the current memory context.
 */
Jsonb *
esync_fold_state_at(EsyncFold *fold, int64 event_id)
{
	EsyncMember *members;
	int			n = 0;

	if (!esync_fold_has_row(fold))
		return NULL;
	members = palloc((fold->nfields + 1) * sizeof(EsyncMember));
	for (int i = 0; i < fold->nfields; i++)
	{
		const EsyncField *f = &fold->fields[i];
		const char *name = name_at(f, event_id);
		EsyncMember *m = &members[n];

		if (f->excluded || name == NULL || name[0] == '\0')
			continue;
		m->key = name;
		m->keylen = strlen(name);
		if (f->masked)
		{
			m->value.type = jbvString;
			m->value.val.string.val = ESYNC_MASK;
			m->value.val.string.len = strlen(ESYNC_MASK);
		}
		else if (f->stamp)
			esync_fold_stamp_value(fold, i, palloc(MAXDATELEN + 1), &m->value);
		else
			esync_fold_value(fold, i, &m->value);
		n++;
	}
	return esync_json_object(n, members);
}

/* ------------------------------------------------------- several aggregates */

/*
 * The fold of one aggregate among those of a followed link, made at its first
 * event.  Each key has its own: two rows may have borne one key.
 */
EsyncFold *
esync_folds_of(EsyncFolds *folds, const text *aggregate_id)
{
	EsyncFold  *fold;
	ListCell   *lc;

	foreach(lc, folds->ids)
	{
		const text *id = lfirst(lc);

		if (id == aggregate_id ||
			(VARSIZE_ANY_EXHDR(id) == VARSIZE_ANY_EXHDR(aggregate_id) &&
			 memcmp(VARDATA_ANY(id), VARDATA_ANY(aggregate_id), VARSIZE_ANY_EXHDR(id)) == 0))
			return list_nth(folds->folds, foreach_current_index(lc));
	}
	fold = palloc(sizeof(EsyncFold));
	esync_fold_init(fold, folds->t->fields, folds->t->nfields, folds->t->tombstone_field);
	folds->folds = lappend(folds->folds, fold);
	folds->ids = lappend(folds->ids, (void *) aggregate_id);
	return fold;
}
