/*
 * answer.c: what esync_submit and its like answer.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "submit.h"

/* an object while its members are collected */
typedef struct Building
{
	int			n;
	EsyncMember members[16];
} Building;

/* The value of a new member, for the caller to fill in. */
static JsonbValue *
add(Building *o, const char *key)
{
	EsyncMember *member = &o->members[o->n++];

	Assert(o->n <= lengthof(o->members));
	member->key = key;
	member->keylen = strlen(key);
	member->value.type = jbvNull;
	return &member->value;
}

static void
add_string(Building *o, const char *key, const char *string)
{
	*add(o, key) = esync_value_string(string);
}

static void
add_text(Building *o, const char *key, const text *value)
{
	*add(o, key) = esync_value_text(value);
}

static void
add_bool(Building *o, const char *key, bool value)
{
	*add(o, key) = esync_value_bool(value);
}

static void
add_int(Building *o, const char *key, int64 value)
{
	*add(o, key) = esync_value_int64(value);
}

static void
add_json(Building *o, const char *key, const Jsonb *value)
{
	*add(o, key) = esync_value_document(value);
}

static Jsonb *
build(const Building *o)
{
	return esync_json_object(o->n, o->members);
}

/* A time as every document of esync has it: ISO 8601, in UTC. */
void
esync_json_time(TimestampTz at, JsonbValue *value)
{
	EsyncAttr	attr = {"at", 1, TIMESTAMPTZOID, -1, false};
	static EsyncShape *shape = NULL;

	if (shape == NULL)
		shape = esync_shape_make(TopMemoryContext, &attr, 1);
	esync_encode_value(shape, 0, TimestampTzGetDatum(at), false, value);
}

/* --------------------------------------------------------------- conflicts */

/* May the caller see the values of what a clash is about? */
static bool
shows(const EsyncTracked *t, const EsyncRights *rights, const char *field)
{
	const EsyncField *f;
	int			i;

	if (rights->all && !t->hides)
		return true;
	for (int g = 0; g < t->ngroups; g++)
		if (strcmp(t->groups[g].name, field) == 0)
		{
			for (int k = 0; k < t->groups[g].nfields; k++)
			{
				f = &t->fields[t->groups[g].fields[k]];
				if (f->excluded || f->masked || !esync_rights_field(rights, f))
					return false;
			}
			return true;
		}
	i = esync_field_at(t->fields, t->nfields, field, strlen(field), PG_INT64_MAX);
	if (i < 0)					/* column/path of json_merge */
		i = esync_field_at(t->fields, t->nfields, field, strcspn(field, "/"), PG_INT64_MAX);
	return i >= 0 && !t->fields[i].excluded && !t->fields[i].masked &&
		esync_rights_field(rights, &t->fields[i]);
}

/*
 * What the caller may see of a contender's value: all of it or nothing; of an
 * edit that stands against a delete, the fields one by one.
 */
static Jsonb *
seen_value(const EsyncTracked *t, const EsyncRights *rights, const char *field, Jsonb *value)
{
	EsyncMember *members;
	int			n = 0;
	EsyncWalk	walk;

	if (field)
		return shows(t, rights, field) ? value : NULL;
	if (value == NULL || !JB_ROOT_IS_OBJECT(value))
		return value;
	members = palloc(Max(JB_ROOT_COUNT(value), 1) * sizeof(EsyncMember));
	esync_walk_init(&walk, &value->root);
	while (esync_walk_next(&walk))
		if (shows(t, rights, pnstrdup(walk.key, walk.keylen)))
			members[n++] = (EsyncMember) {walk.key, walk.keylen, walk.value};
	return esync_json_object(n, members);
}

/* What the caller may read of a table, nothing included. */
static void
caller_rights(EsyncTracked *t, EsyncRights *rights)
{
	if (pg_class_aclcheck(t->root, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(t->root, GetUserId(), ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK)
		esync_rights_read(t, rights);
	else
		memset(rights, 0, sizeof(EsyncRights));
}

/* One member of "conflicts", as the author of this event sees it. */
static Jsonb *
clash_json(const EsyncTracked *t, const EsyncRights *rights, const EsyncClash *clash, bool blind)
{
	Building	o = {0};
	const EsyncContender *mine = NULL;
	const EsyncContender *shown = NULL;
	List	   *others = NIL;

	for (int i = 0; i < clash->ncontenders; i++)
	{
		const EsyncContender *c = &clash->contenders[i];
		Building	other = {0};

		if (c->shown)
			shown = c;
		if (c->event_id == clash->mine)
		{
			mine = c;
			continue;
		}
		add_int(&other, "event_id", c->event_id);
		add_text(&other, "user_id", c->user_id);
		add_text(&other, "device_id", c->device_id);
		add_json(&other, "value", blind ? NULL : seen_value(t, rights, clash->field, c->value));
		others = lappend(others, build(&other));
	}
	add_int(&o, "conflict_id", clash->conflict_id);
	add_string(&o, "field", clash->field);
	add_string(&o, "kind", clash->kind);
	add_json(&o, "mine", mine ? seen_value(t, rights, clash->field, mine->value) : NULL);
	if (blind)
		add_json(&o, "value", NULL);
	else
		add_json(&o, "value", seen_value(t, rights, clash->field,
										 clash->shown_value ? clash->shown_value :
										 shown ? shown->value : NULL));
	add_bool(&o, "won", mine && mine->shown);
	add_json(&o, "others", esync_json_array(others));
	if (mine && mine->constraint)
		add_string(&o, "constraint", mine->constraint);
	if (clash->decided)
		add_string(&o, "resolution", t->on_conflict);
	return build(&o);
}

/* "conflicts" of a result. */
static Jsonb *
clashes_json(const EsyncItem *item, const EsyncOutcome *outcome)
{
	EsyncTracked *t = esync_tracked_get(item->target->root);
	EsyncRights rights;
	List	   *list = NIL;
	ListCell   *lc;

	caller_rights(t, &rights);
	foreach(lc, outcome->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		list = lappend(list, clash_json(t, &rights, clash, outcome->blind));
	}
	return esync_json_array(list);
}

/* ----------------------------------------------------------------- results */

/* Adds the id of an event, as it was given. */
static void
add_id(Building *o, const EsyncItem *item)
{
	*add(o, "id") = item->given_id;
}

/* An edit was taken: its result, in the batch's context. */
void
esync_answer_accept(EsyncBatch *b, EsyncItem *item, const EsyncOutcome *outcome)
{
	Building	o = {0};
	bool		conflict = outcome->clashes != NIL;
	MemoryContext old;

	add_id(&o, item);
	add_string(&o, "status", conflict ? "conflict" : "accepted");
	add_bool(&o, "duplicate", false);
	add_int(&o, "version", outcome->version);
	if (outcome->event_id != 0)
		esync_json_time(outcome->effective, add(&o, "effective_timestamp"));
	else
		add_json(&o, "effective_timestamp", NULL);
	if (outcome->with_row)
		add_json(&o, "row", outcome->row);
	if (outcome->with_row || outcome->deleted)
		add_bool(&o, "deleted", outcome->deleted);
	if (conflict || outcome->ignored != NIL)
		add_json(&o, "ignored", esync_json_strings(outcome->ignored));
	if (conflict)
		add_json(&o, "conflicts", clashes_json(item, outcome));
	old = MemoryContextSwitchTo(b->cxt);
	item->result = build(&o);
	item->status = conflict ? ESYNC_CONFLICTING : ESYNC_ACCEPTED;
	MemoryContextSwitchTo(old);
}

/* Is it worth while to send the same again? */
bool
esync_code_is_retryable(const char *code)
{
	static const char *const codes[] = {"not_found", "fk", "depends_on", "too_large", "conflict"};

	for (int i = 0; i < lengthof(codes); i++)
		if (strcmp(codes[i], code) == 0)
			return true;
	return false;
}

/* The result of an event that was not taken. */
static Jsonb *
rejection(const EsyncItem *item)
{
	Building	o = {0};

	add_id(&o, item);
	add_string(&o, "status", "rejected");
	add_string(&o, "code", item->code);
	add_bool(&o, "retryable", esync_code_is_retryable(item->code));
	add_string(&o, "message", item->message);
	if (item->rejected_id != 0)
		add_int(&o, "rejected_id", item->rejected_id);
	return build(&o);
}

/* A result with another value of one of its members, which it has. */
static Jsonb *
with_member(const Jsonb *result, const char *key, const JsonbValue *value)
{
	EsyncMember *members = palloc(JB_ROOT_COUNT(result) * sizeof(EsyncMember));
	int			n = 0;
	EsyncWalk	walk;

	esync_walk_init(&walk, &result->root);
	while (esync_walk_next(&walk))
	{
		bool		replaced = strlen(key) == walk.keylen && memcmp(key, walk.key, walk.keylen) == 0;

		members[n++] = (EsyncMember) {walk.key, walk.keylen, replaced ? *value : walk.value};
	}
	return esync_json_object(n, members);
}

/* One element of "results". */
Jsonb *
esync_answer_item(EsyncItem *item)
{
	JsonbValue	yes = {.type = jbvBool, .val.boolean = true};

	if (item->status == ESYNC_REJECTED)
		return rejection(item);
	return item->duplicate ? with_member(item->result, "duplicate", &yes) : item->result;
}

/* "next": what a client may send. */
static Jsonb *
limits(void)
{
	Building	o = {0};

	add_int(&o, "max_events", esync_batch_max_events);
	add_int(&o, "max_bytes", esync_batch_max_bytes);
	add_int(&o, "retry_after_ms", 0);
	return build(&o);
}

/* The whole answer to a batch. */
Jsonb *
esync_answer(EsyncBatch *b)
{
	Building	o = {0};
	int			count[ESYNC_REJECTED + 1] = {0};
	EsyncJson	results;

	esync_json_init(&results, 256 + 128 * (Size) b->n);
	esync_json_open_array(&results, b->n);
	for (int i = 0; i < b->n; i++)
	{
		JsonbValue	v;

		count[b->items[i].status]++;
		esync_json_root(esync_answer_item(&b->items[i]), &v);
		esync_json_value(&results, &v);
	}
	esync_json_close(&results);
	*add(&o, "batch_id") = b->batch_id;
	esync_json_time(GetCurrentTimestamp(), add(&o, "server_now"));
	if (b->has_clock)
		add_int(&o, "clock_offset_ms", b->offset / 1000);
	else
		add_json(&o, "clock_offset_ms", NULL);
	add_json(&o, "ids", esync_temporary_ids(b));
	add_json(&o, "results", esync_json_finish(&results));
	add_int(&o, "accepted", count[ESYNC_ACCEPTED]);
	add_int(&o, "conflict", count[ESYNC_CONFLICTING]);
	add_int(&o, "rejected", count[ESYNC_REJECTED]);
	add_json(&o, "next", limits());
	return build(&o);
}
