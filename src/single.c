/*
 * single.c: one edit by itself: esync_save, esync_delete, esync_retry.
 *
 * An edit that is not in a batch is made into an event such as a batch has,
 * and takes the same way.  What was rejected of it can be tried again like
 * any other.
 */
#include "postgres.h"
#include "miscadmin.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "rejected.h"

/* arguments of esync_save and esync_delete; the second one is document or key */
enum
{
	ARG_TABLE, ARG_WHAT, ARG_BASE_VERSION, ARG_BASE, ARG_ID, ARG_CONTEXT
};

/* an event that is being put together */
typedef struct Event
{
	int			n;
	EsyncMember members[8];
} Event;

static JsonbValue *
add(Event *event, const char *name)
{
	EsyncMember *member = &event->members[event->n++];

	member->key = name;
	member->keylen = strlen(name);
	return &member->value;
}

static void
add_string(Event *event, const char *name, const char *string)
{
	JsonbValue *v = add(event, name);

	v->type = jbvString;
	v->val.string.val = (char *) string;
	v->val.string.len = strlen(string);
}

static void
add_integer(Event *event, const char *name, int64 value)
{
	JsonbValue *v = add(event, name);

	v->type = jbvNumeric;
	v->val.numeric = int64_to_numeric(value);
}

/* The name of the table that was given; an error if it is none. */
static char *
table_name(FunctionCallInfo fcinfo)
{
	char	   *name;

	esync_rights_need_table(fcinfo);
	name = get_rel_name(PG_GETARG_OID(ARG_TABLE));
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(ARG_TABLE))));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(PG_GETARG_OID(ARG_TABLE))),
									  name);
}

/* The event that the arguments of esync_save or esync_delete, and the context, say. */
static Jsonb *
make_event(FunctionCallInfo fcinfo, bool is_delete)
{
	const EsyncContext *context = esync_context_get();
	bool		has_base = !esync_sqlmerge_base_is_spent();
	Event		event = {0};

	add_string(&event, "table", table_name(fcinfo));
	add_string(&event, "op", is_delete ? "delete" : "save");
	if (!PG_ARGISNULL(ARG_WHAT) && is_delete)
		add_string(&event, "key", text_to_cstring(PG_GETARG_TEXT_PP(ARG_WHAT)));
	else if (!PG_ARGISNULL(ARG_WHAT))
		esync_json_root(PG_GETARG_JSONB_P(ARG_WHAT), add(&event, "document"));
	if (!PG_ARGISNULL(ARG_BASE_VERSION))
		add_integer(&event, "base_version", PG_GETARG_INT64(ARG_BASE_VERSION));
	else if (has_base && context->has_base && PG_ARGISNULL(ARG_BASE))
		add_integer(&event, "base_version", context->base_version);
	if (!PG_ARGISNULL(ARG_BASE))
		esync_json_root(PG_GETARG_JSONB_P(ARG_BASE), add(&event, "base"));
	if (!PG_ARGISNULL(ARG_ID))
		add_string(&event, "id", esync_uuid_text(PG_GETARG_UUID_P(ARG_ID)));
	if (has_base && context->has_branch)
		esync_json_time(context->branch, add(&event, "branch_timestamp"));
	if (context->has_submit)
		esync_json_time(context->submit_raw, add(&event, "submit_timestamp"));
	return esync_json_object(event.n, event.members);
}

/* The answer to one edit: an element of "results", and the ids where temporary ones were named. */
static Jsonb *
single_answer(EsyncBatch *b)
{
	Jsonb	   *result = esync_answer_item(&b->items[0]);
	EsyncMember *members;
	int			n = 0;
	EsyncWalk	walk;

	if (!b->has_temporaries)
		return result;
	members = palloc((JB_ROOT_COUNT(result) + 1) * sizeof(EsyncMember));
	esync_walk_init(&walk, &result->root);
	while (esync_walk_next(&walk))
		members[n++] = (EsyncMember) {walk.key, walk.keylen, walk.value};
	members[n].key = "ids";
	members[n].keylen = 3;
	esync_json_root(esync_temporary_ids(b), &members[n++].value);
	return esync_json_object(n, members);
}

/* esync_save and esync_delete. */
static Datum
run_single(FunctionCallInfo fcinfo, const char *via, bool is_delete)
{
	EsyncBatch *b;

	PreventCommandIfReadOnly(is_delete ? "esync_delete()" : "esync_save()");
	if (!PG_ARGISNULL(ARG_CONTEXT))
		esync_context_set(PG_GETARG_JSONB_P(ARG_CONTEXT));
	b = esync_batch_begin(via);
	b->head_by_default = true;
	esync_batch_single(b, make_event(fcinfo, is_delete));
	esync_sqlmerge_spend_base();	/* it was this edit's, and no statement after it takes it */
	esync_submit_run(b);
	PG_RETURN_JSONB_P(single_answer(b));
}

PG_FUNCTION_INFO_V1(esync_save);
PG_FUNCTION_INFO_V1(esync_delete);
PG_FUNCTION_INFO_V1(esync_retry);

/* esync_save(tbl, document, base_version, base, client_event_id, context) */
Datum
esync_save(PG_FUNCTION_ARGS)
{
	return run_single(fcinfo, "esync_save", false);
}

/* esync_delete(tbl, key text, base_version, base, client_event_id, context) */
Datum
esync_delete(PG_FUNCTION_ARGS)
{
	return run_single(fcinfo, "esync_delete", true);
}

/* Meta of an event that another user than its author tries again. */
static Jsonb *
retry_meta(const Jsonb *meta, const text *user)
{
	EsyncMember *members = palloc(((meta ? JB_ROOT_COUNT(meta) : 0) + 1) * sizeof(EsyncMember));
	int			n = 0;
	EsyncWalk	walk;

	members[n].key = "retried_by";
	members[n].keylen = strlen("retried_by");
	members[n].value.type = jbvString;
	members[n].value.val.string.val = VARDATA_ANY(user);
	members[n++].value.val.string.len = VARSIZE_ANY_EXHDR(user);
	if (meta)
	{
		esync_walk_init(&walk, &meta->root);
		while (esync_walk_next(&walk))
			if (walk.keylen != members[0].keylen ||
				memcmp(walk.key, members[0].key, walk.keylen) != 0)
				members[n++] = (EsyncMember) {walk.key, walk.keylen, walk.value};
	}
	return esync_json_object(n, members);
}

/* A batch in the name of who sent the rejected event. */
static EsyncBatch *
batch_of_author(const Datum *values, const bool *nulls)
{
	EsyncBatch *b = esync_batch_begin(TextDatumGetCString(values[REJ_VIA - 1]));
	text	   *caller = b->user_id;
	int64		offset = DatumGetInt64(values[REJ_OFFSET_MS - 1]) * 1000;

	b->user_id = DatumGetTextPP(values[REJ_USER_ID - 1]);
	b->device_id = nulls[REJ_DEVICE_ID - 1] ? NULL : DatumGetTextPP(values[REJ_DEVICE_ID - 1]);
	b->has_clock = offset != 0;
	b->offset = offset;
	b->head_by_default = strcmp(b->via, "esync_submit") != 0;
	b->is_retry = true;
	if (VARSIZE_ANY_EXHDR(caller) != VARSIZE_ANY_EXHDR(b->user_id) ||
		memcmp(VARDATA_ANY(caller), VARDATA_ANY(b->user_id), VARSIZE_ANY_EXHDR(caller)) != 0)
		b->meta = retry_meta(b->meta, caller);
	return b;
}

/*
 * The event, as sent or as amended, is the one that was rejected: it keeps its
 * id, and the hash of what was sent, so that the device that sends it once more
 * hears that it was accepted.
 */
static void
keep_identity(EsyncItem *item, const Datum *values, const bool *nulls)
{
	item->hash = DatumGetByteaPP(values[REJ_HASH - 1]);
	if (nulls[REJ_CLIENT_EVENT_ID - 1])
		return;
	if (item->has_id &&
		memcmp(item->id.data, DatumGetUUIDP(values[REJ_CLIENT_EVENT_ID - 1])->data, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event has another id than the one that was rejected"),
				 errhint("Leave the id as it was, or out.")));
	item->has_id = true;
	item->id = *DatumGetUUIDP(values[REJ_CLIENT_EVENT_ID - 1]);
	item->edit.client_event_id = &item->id;
	item->given_id.type = jbvString;
	item->given_id.val.string.val = esync_uuid_text(&item->id);
	item->given_id.val.string.len = strlen(item->given_id.val.string.val);
}

/* esync_retry(rejected_id bigint, event jsonb) */
Datum
esync_retry(PG_FUNCTION_ARGS)
{
	Datum		values[REJ_COUNT];
	bool		nulls[REJ_COUNT];
	EsyncSide	side;
	EsyncBatch *b;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PreventCommandIfReadOnly("esync_retry()");
	esync_submission_lock_rejected(PG_GETARG_INT64(0));
	esync_side_open(&side, "rejected", AccessShareLock);
	esync_rejected_find(&side, PG_GETARG_INT64(0), values, nulls);
	esync_side_close(&side);
	if (strcmp(TextDatumGetCString(values[REJ_STATUS - 1]), "closed") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rejected event " INT64_FORMAT " is closed", PG_GETARG_INT64(0)),
				 errhint("It was accepted when it came again.")));
	b = batch_of_author(values, nulls);
	esync_batch_single(b, PG_ARGISNULL(1) ? DatumGetJsonbP(values[REJ_EVENT - 1]) :
					   PG_GETARG_JSONB_P(1));
	keep_identity(&b->items[0], values, nulls);
	esync_submit_run(b);
	PG_RETURN_JSONB_P(single_answer(b));
}
