/*
 * batch.c: a batch of edits, from JSON into structs.
 *
 * Whatever is wrong with one event is the code of that event and nobody
 * else's; what is wrong with the batch is told to each of its events.  Only
 * what is no object with an array "events" at all is an error.  A member that
 * is not known is wrong: a client that spells one otherwise shall hear of it.
 */
#include "postgres.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "coder.h"
#include "submit.h"

/* what is wrong is told in so many bytes */
#define MESSAGE_MAX 1000

/*
 * Takes one member.  Returns what it ought to be, where it is not; NULL where
 * all is well.
 */
typedef const char *(*Reader) (EsyncBatch *b, EsyncItem *item, const JsonbValue *v);

typedef struct Member
{
	const char *name;
	Reader		read;
} Member;

/* ------------------------------------------------------------------ values */

/* Says what is wrong with an event; what was said first stays. */
void
esync_item_reject(EsyncItem *item, const char *code, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	if (item->status == ESYNC_REJECTED)
		return;
	initStringInfo(&message);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	if (message.len > MESSAGE_MAX)	/* it may quote a value of any size */
		strcpy(message.data + pg_mbcliplen(message.data, message.len, MESSAGE_MAX - 3), "...");
	item->status = ESYNC_REJECTED;
	item->code = code;
	item->message = message.data;
}

/* A JSON number as an integer; false if it is none. */
static bool
read_integer(const JsonbValue *v, int64 *result)
{
	char	   *string;
	char	   *end;

	if (v->type != jbvNumeric)
		return false;
	string = esync_scalar_text(v);
	errno = 0;
	*result = strtoll(string, &end, 10);
	return errno == 0 && *end == '\0';
}

/* A JSON object as a document of its own; NULL if it is none. */
static Jsonb *
read_object(const JsonbValue *v)
{
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return NULL;
	return esync_json_from_value(v);
}

/* A JSON string as a C string; NULL if it is none. */
static char *
read_string(const JsonbValue *v)
{
	return v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

/* A JSON string as a time; false if it is none. */
static bool
read_time(const JsonbValue *v, TimestampTz *result)
{
	return v->type == jbvString && esync_clock_parse(read_string(v), result);
}

/* A uuid as text. */
char *
esync_uuid_text(const pg_uuid_t *id)
{
	char	   *text = palloc(37);

	esync_scalar_uuid(text, id);
	text[36] = '\0';
	return text;
}

/* -------------------------------------------------- the members of an event */

static const char *
read_id(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	Datum		id;

	item->given_id = *v;
	if (v->type != jbvString || !esync_scalar_try(uuid_in, read_string(v), &id))
		return "a uuid";
	item->has_id = true;
	item->id = *DatumGetUUIDP(id);
	item->edit.client_event_id = &item->id;
	return NULL;
}

static const char *
read_seq(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	return read_integer(v, &item->edit.device_seq) && item->edit.device_seq > 0 ? NULL :
		"a positive integer";
}

static const char *
read_tx(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->tx = read_string(v);
	return item->tx ? NULL : "a string";
}

static const char *
read_table(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->table = read_string(v);
	return item->table ? NULL : "a string";
}

static const char *
read_op(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	static const char *const verbs[] = {"create", "update", "delete", "restore", "save"};
	char	   *op = read_string(v);

	for (int i = 0; op && i < lengthof(verbs); i++)
		if (strcmp(op, verbs[i]) == 0)
		{
			item->edit.verb = (EsyncVerb) i;
			return NULL;
		}
	return "one of create, update, delete, restore and save";
}

static const char *
read_key(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->key = *v;
	return NULL;
}

static const char *
read_document(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.document = read_object(v);
	return item->edit.document ? NULL : "an object";
}

static const char *
read_set(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.set = read_object(v);
	return item->edit.set ? NULL : "an object";
}

static const char *
read_base(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.base = read_object(v);
	return item->edit.base ? NULL : "an object";
}

static const char *
read_base_version(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.has_base_version = true;
	return read_integer(v, &item->edit.base_version) && item->edit.base_version >= 0 ? NULL :
		"a version number";
}

static const char *
read_branch(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.has_branch = true;
	return read_time(v, &item->edit.branch) ? NULL : "a time in ISO 8601 with offset";
}

static const char *
read_submit(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	EsyncEdit  *e = &item->edit;

	e->has_submit = true;
	if (!read_time(v, &e->submit_raw))
		return "a time in ISO 8601 with offset";
	e->submit = e->submit_raw;
	if (b->has_clock && esync_clock_is_off(b->offset))
	{
		e->submit = esync_clock_shift(e->submit_raw, b->offset);
		e->offset_ms = b->offset / 1000;
	}
	return NULL;
}

static const char *
read_schema_version(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	return v->type == jbvString || v->type == jbvNumeric ? NULL : "a string";
}

static const char *
read_meta(EsyncBatch *b, EsyncItem *item, const JsonbValue *v)
{
	item->edit.meta = read_object(v);
	return item->edit.meta ? NULL : "an object";
}

static const Member event_members[] = {
	{"id", read_id}, {"seq", read_seq}, {"tx", read_tx}, {"table", read_table}, {"op", read_op},
	{"key", read_key}, {"document", read_document}, {"set", read_set}, {"base", read_base},
	{"base_version", read_base_version}, {"branch_timestamp", read_branch},
	{"submit_timestamp", read_submit}, {"schema_version", read_schema_version},
	{"meta", read_meta}
};

/* The member of that name; NULL if there is none. */
static const Member *
find_member(const Member *members, int n, const EsyncWalk *walk)
{
	for (int i = 0; i < n; i++)
		if (strlen(members[i].name) == walk->keylen &&
			memcmp(members[i].name, walk->key, walk->keylen) == 0)
			return &members[i];
	return NULL;
}

/* Do the members that an event has belong together? */
static void
check_members(EsyncBatch *b, EsyncItem *item, bool has_op)
{
	EsyncEdit  *e = &item->edit;
	bool		writes = e->verb != ESYNC_VERB_DELETE && e->verb != ESYNC_VERB_RESTORE;

	if (!item->has_id && !b->id_optional)
		esync_item_reject(item, "invalid", "the event has no \"id\"");
	else if (item->table == NULL)
		esync_item_reject(item, "invalid", "the event has no \"table\"");
	else if (!has_op)
		esync_item_reject(item, "invalid", "the event has no \"op\"");
	else if (e->document && e->set)
		esync_item_reject(item, "invalid", "the event has both \"document\" and \"set\"");
	else if (writes && !e->document && !e->set)
		esync_item_reject(item, "invalid", "the event has neither \"document\" nor \"set\"");
	else if (!writes && (e->document || e->set))
		esync_item_reject(item, "invalid", "a %s has neither \"document\" nor \"set\"",
						  e->verb == ESYNC_VERB_DELETE ? "delete" : "restore");
}

/* Appends the members of an object that were not there before; the count. */
static int
add_members(EsyncMember *members, int n, const Jsonb *object)
{
	EsyncWalk	walk;

	if (object == NULL)
		return n;
	esync_walk_init(&walk, &object->root);
	while (esync_walk_next(&walk))
	{
		int			i = 0;

		while (i < n && (members[i].keylen != walk.keylen ||
						 memcmp(members[i].key, walk.key, walk.keylen) != 0))
			i++;
		if (i < n)
			continue;
		members[n++] = (EsyncMember) {walk.key, walk.keylen, walk.value};
	}
	return n;
}

/* The meta of an event: its schema_version, its own, and that of the context. */
static Jsonb *
whole_meta(const Jsonb *context, const Jsonb *own, const JsonbValue *schema_version)
{
	EsyncMember *members;
	int			n = 0;

	if (schema_version == NULL && (context == NULL || own == NULL))
		return (Jsonb *) (own ? own : context);
	members = palloc(sizeof(EsyncMember) *
					 (1 + (own ? JB_ROOT_COUNT(own) : 0) + (context ? JB_ROOT_COUNT(context) : 0)));
	if (schema_version)
		members[n++] = (EsyncMember) {"schema_version", 14, *schema_version};
	n = add_members(members, n, own);
	n = add_members(members, n, context);
	return esync_json_object(n, members);
}

/* The hash of what was sent, by whom, from where. */
static bytea *
hash_item(const EsyncBatch *b, const EsyncItem *item)
{
	StringInfoData text;
	Jsonb	   *event = esync_json_from_value(&item->event);

	/* what will never be accepted may be too large for text */
	if (item->status == ESYNC_REJECTED && strcmp(item->code, "too_large") == 0)
		return DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(event)));
	initStringInfo(&text);
	appendBinaryStringInfo(&text, VARDATA_ANY(b->user_id), VARSIZE_ANY_EXHDR(b->user_id));
	appendStringInfoChar(&text, '\0');
	if (b->device_id)
		appendBinaryStringInfo(&text, VARDATA_ANY(b->device_id), VARSIZE_ANY_EXHDR(b->device_id));
	appendStringInfoChar(&text, '\0');
	JsonbToCString(&text, &event->root, VARSIZE(event));
	return DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											   PointerGetDatum(cstring_to_text_with_len(text.data,
																						text.len))));
}

/* One event into its struct, with whatever is wrong with it. */
static void
parse_item(EsyncBatch *b, EsyncItem *item, const JsonbValue *event)
{
	EsyncWalk	walk;
	bool		has_op = false;
	JsonbValue	schema_version;

	schema_version.type = jbvNull;
	item->event = *event;
	item->given_id.type = jbvNull;
	item->key.type = jbvNull;
	item->edit.user_id = b->user_id;
	item->edit.db_role = b->db_role;
	item->edit.device_id = b->device_id;
	item->edit.head_by_default = b->head_by_default;
	if (event->type != jbvBinary || !JsonContainerIsObject(event->val.binary.data))
	{
		esync_item_reject(item, "invalid", "the event is not an object");
		return;
	}
	esync_walk_init(&walk, event->val.binary.data);
	while (esync_walk_next(&walk))
	{
		const Member *member = find_member(event_members, lengthof(event_members), &walk);
		const char *expected = NULL;

		if (member == NULL)
			esync_item_reject(item, "invalid", "unknown member \"%.*s\"",
							  Min(walk.keylen, 100), walk.key);
		else if (walk.value.type != jbvNull)
			expected = member->read(b, item, &walk.value);
		if (expected)
			esync_item_reject(item, "invalid", "\"%s\" must be %s", member->name, expected);
		if (member && member->read == read_op && walk.value.type != jbvNull)
			has_op = true;
		if (member && member->read == read_schema_version)
			schema_version = walk.value;
	}
	check_members(b, item, has_op);
	item->edit.meta = whole_meta(b->meta, item->edit.meta,
								 schema_version.type == jbvNull ? NULL : &schema_version);
}

/* ------------------------------------------------- the members of a batch */

/* Says what is wrong with the batch; what was said first stays. */
static void
spoil(EsyncBatch *b, const char *code, char *message)
{
	if (b->code == NULL)
	{
		b->code = code;
		b->message = message;
	}
}

/* Takes the device's name, which must be the context's where that has one. */
static void
take_device(EsyncBatch *b, const JsonbValue *v)
{
	text	   *ours = b->device_id;

	if (v->type != jbvString || v->val.string.len == 0 ||
		v->val.string.len > ESYNC_DEVICE_MAX)
	{
		spoil(b, "invalid", psprintf("\"device_id\" must be a string of 1 to %d bytes",
									 ESYNC_DEVICE_MAX));
		return;
	}
	b->device_id = cstring_to_text_with_len(v->val.string.val, v->val.string.len);
	if (ours != NULL && (VARSIZE_ANY_EXHDR(ours) != v->val.string.len ||
						 memcmp(VARDATA_ANY(ours), v->val.string.val, v->val.string.len) != 0))
		spoil(b, "denied", "\"device_id\" is not the device of the context");
}

/* Takes one member of the batch but "events". */
static void
take_member(EsyncBatch *b, const EsyncWalk *walk)
{
	const JsonbValue *v = &walk->value;
	TimestampTz sent_at;

	if (walk->keylen == 9 && memcmp(walk->key, "device_id", 9) == 0)
		take_device(b, v);
	else if (walk->keylen == 8 && memcmp(walk->key, "batch_id", 8) == 0)
	{
		if (v->type != jbvString && v->type != jbvNull)
			spoil(b, "invalid", "\"batch_id\" must be a string");
		else
			b->batch_id = *v;
	}
	else if (walk->keylen == 7 && memcmp(walk->key, "sent_at", 7) == 0)
	{
		if (v->type == jbvNull)
			return;
		if (!read_time(v, &sent_at))
		{
			spoil(b, "invalid", "\"sent_at\" must be a time in ISO 8601 with offset");
			return;
		}
		b->has_clock = true;
		b->offset = esync_clock_offset(sent_at);
	}
	else if (walk->keylen != 6 || memcmp(walk->key, "events", 6) != 0)
		spoil(b, "invalid", psprintf("unknown member \"%.*s\" of the batch",
									 Min(walk->keylen, 100), walk->key));
}

/* The error for what is no batch at all. */
void
esync_batch_refuse(int sqlerrcode, const char *what)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("%s", what),
			 errhint("A batch is {\"device_id\": ..., \"sent_at\": ..., \"events\": [...]}.")));
}

/*
 * Events beyond the limits wait for another batch, with those of their tx.  One
 * that is too large by itself will never go through: it is kept as rejected,
 * and those behind it go on.
 */
static void
apply_limits(EsyncBatch *b)
{
	int64		bytes = 0;
	int			events = 0;
	bool		full = false;

	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];
		int64		size = item->event.type == jbvBinary ? item->event.val.binary.len : 0;

		if (size > esync_batch_max_bytes && !full)
			esync_item_reject(item, "too_large", "the event has %lld bytes, the limit is %d",
							  (long long) size, esync_batch_max_bytes);
		else if (full || events + 1 > esync_batch_max_events || bytes + size > esync_batch_max_bytes)
		{
			full = true;
			item->untold = true;
			esync_item_reject(item, "too_large", "the batch is full: send this event in another one");
		}
		bytes += size;
		events++;
		if (size > esync_batch_max_bytes)
			bytes -= size;
	}
}

/* Events of a tx of which some wait for another batch wait with them. */
static void
extend_limits(EsyncBatch *b)
{
	List	   *cut = NIL;
	ListCell   *lc;

	for (int i = b->n - 1; i >= 0 && b->items[i].untold; i--)
		if (b->items[i].tx)
			cut = lappend(cut, b->items[i].tx);
	for (int i = 0; cut != NIL && i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];

		foreach(lc, cut)
			if (!item->untold && item->tx && strcmp(item->tx, lfirst(lc)) == 0)
			{
				item->untold = true;
				item->status = ESYNC_WAITING;
				esync_item_reject(item, "too_large",
								  "the batch has no room for all of tx \"%.100s\"", item->tx);
			}
	}
}

/*
 * The author of what comes, from the context.  Everything of the batch is to
 * live in the context current now.
 */
EsyncBatch *
esync_batch_begin(const char *via)
{
	const EsyncContext *context = esync_context_get();
	EsyncBatch *b = palloc0(sizeof(EsyncBatch));

	b->via = via;
	b->cxt = CurrentMemoryContext;
	b->work = AllocSetContextCreate(b->cxt, "esync edit", ALLOCSET_DEFAULT_SIZES);
	b->batch_id.type = jbvNull;
	b->user_id = context->user_id;
	b->db_role = context->db_role;
	b->device_id = context->device_id;
	b->meta = context->meta;
	b->has_clock = context->has_sent_at;
	if (b->has_clock)
		b->offset = esync_clock_offset(context->sent_at);
	return b;
}

/* Fills in the events, each with what is wrong with it. */
static void
parse_items(EsyncBatch *b, const JsonbContainer *events)
{
	EsyncWalk	walk;

	b->items = MemoryContextAllocExtended(b->cxt, sizeof(EsyncItem) *
										  Max(esync_json_count(events), 1),
										  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	esync_walk_init(&walk, events);
	while (esync_walk_next(&walk))
	{
		EsyncItem  *item = &b->items[b->n++];

		item->event = walk.value;
		item->given_id.type = jbvNull;
		item->key.type = jbvNull;
	}
	apply_limits(b);
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];

		CHECK_FOR_INTERRUPTS();
		if (item->untold)		/* of these only the id is told */
		{
			JsonbValue	id;

			if (item->event.type == jbvBinary &&
				JsonContainerIsObject(item->event.val.binary.data) &&
				esync_json_member(item->event.val.binary.data, "id", 2, &id))
				item->given_id = id;
			if (item->event.type == jbvBinary &&
				JsonContainerIsObject(item->event.val.binary.data) &&
				esync_json_member(item->event.val.binary.data, "tx", 2, &id))
				item->tx = read_string(&id);
			continue;
		}
		if (b->code)
			esync_item_reject(item, b->code, "%s", b->message);
		parse_item(b, item, &item->event);
		item->hash = hash_item(b, item);
	}
	extend_limits(b);
	for (int i = 0; i < b->n; i++)
		b->items[i].final = b->items[i].status == ESYNC_REJECTED;
}

/* A whole batch; 22023 where it is none. */
void
esync_batch_parse(EsyncBatch *b, Jsonb *batch)
{
	JsonbValue	events;
	bool		has_device = false;
	EsyncWalk	walk;

	if (!JB_ROOT_IS_OBJECT(batch))
		esync_batch_refuse(ERRCODE_INVALID_PARAMETER_VALUE, "the batch is not a JSON object");
	if (!esync_json_member(&batch->root, "events", 6, &events))
		esync_batch_refuse(ERRCODE_INVALID_PARAMETER_VALUE, "the batch has no \"events\"");
	if (events.type != jbvBinary || !JsonContainerIsArray(events.val.binary.data))
		esync_batch_refuse(ERRCODE_INVALID_PARAMETER_VALUE, "\"events\" of the batch is not an array");
	esync_walk_init(&walk, &batch->root);
	while (esync_walk_next(&walk))
	{
		has_device |= walk.keylen == 9 && memcmp(walk.key, "device_id", 9) == 0;
		take_member(b, &walk);
	}
	if (!has_device)
		spoil(b, "invalid", "the batch has no \"device_id\"");
	parse_items(b, events.val.binary.data);
}

/* One event by itself, as esync_save makes it, or as it was sent before. */
void
esync_batch_single(EsyncBatch *b, Jsonb *event)
{
	b->id_optional = true;
	b->n = 1;
	b->items = palloc0(sizeof(EsyncItem));
	esync_json_root(event, &b->items[0].event);
	parse_item(b, &b->items[0], &b->items[0].event);
	b->items[0].hash = hash_item(b, &b->items[0]);
	b->items[0].final = b->items[0].status == ESYNC_REJECTED;
}
