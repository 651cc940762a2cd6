/*
 * context.c: who writes, from which device, when, and on what base.
 *
 * The settings esync.user_id and its kin say it; an application may set them
 * with SET LOCAL or through esync_context.  Where one is unset or empty, the
 * settings that PostgREST makes (request.jwt.claims, request.headers) are
 * taken.  Values are parsed when they differ from those parsed last: once a
 * value, not once a row.  Whatever cannot be read is an error, 22023.
 *
 * The parsed context lives in a memory context of its own, replaced whole.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "esync.h"

/* what a context is made of, in the order of settings[] */
enum
{
	USER_ID, DEVICE_ID, BRANCH, SUBMIT, SENT_AT, BASE_VERSION, META,
	NSETTINGS
};

typedef struct Setting
{
	const char *name;			/* of the setting and of esync_context's argument */
	const char *header;			/* where request.headers has it; NULL: nowhere */
	const char *description;
	char	   *value;			/* kept by the GUC machinery */
} Setting;

static Setting settings[NSETTINGS] = {
	{"esync.user_id", NULL, "Who makes the changes, as recorded with each event.", NULL},
	{"esync.device_id", "x-device-id", "The local store that the changes come from.", NULL},
	{"esync.branch_timestamp", "x-branch-timestamp", "When the author took a copy of the row.", NULL},
	{"esync.submit_timestamp", "x-submit-timestamp", "When the author saved on the device.", NULL},
	{"esync.sent_at", "x-sent-at", "The device's clock as the request left it.", NULL},
	{"esync.base_version", "x-base-version", "The version that the author was looking at.", NULL},
	{"esync.meta", NULL, "A JSON object to be kept with each event.", NULL}
};

#define SOURCES (NSETTINGS + 2)	/* the settings, the claims, the headers */

static const EsyncContext *lent = NULL; /* in place of the session's */
static uint64 last_turn = 0;		/* counts how often a base was given */
static uint64 branch_turn = 0;	/* which giving the present values are of */
static uint64 base_turn = 0;

static MemoryContext parsed_cxt = NULL;
static EsyncContext *parsed = NULL;
static char *parsed_from[SOURCES];	/* the texts that parsed was made from */
static Oid	parsed_role = InvalidOid;
static int	parsed_tolerance = 0;
static pg_tz *parsed_zone = NULL;	/* for times that name no zone */
static int	parsed_order = 0;
static TimestampTz parsed_start = 0;	/* of the transaction, where sent_at matters */

/*
 * Check hook: a base is given, though it may be the same value as before.  The
 * number of its giving stays with the value where a savepoint brings it back.
 */
static bool
count_giving(char **newval, void **extra, GucSource source)
{
	uint64	   *turn = guc_malloc(LOG, sizeof(uint64));

	if (turn == NULL)
		return false;
	*turn = ++last_turn;
	*extra = turn;
	return true;
}

/* Assign hooks: which giving the present value is of. */
static void
branch_given(const char *newval, void *extra)
{
	branch_turn = *(uint64 *) extra;
}

static void
base_given(const char *newval, void *extra)
{
	base_turn = *(uint64 *) extra;
}

/* Which giving of a base the present one is of; a spent base stays so until the next. */
uint64
esync_context_base_turn(void)
{
	return Max(branch_turn, base_turn);
}

/* Defines the settings; called once, by _PG_init. */
void
esync_context_init(void)
{
	for (int i = 0; i < NSETTINGS; i++)
		DefineCustomStringVariable(settings[i].name, settings[i].description,
								   "Set it locally to a transaction; esync_context() does.",
								   &settings[i].value, "", PGC_USERSET, 0,
								   i == BRANCH || i == BASE_VERSION ? count_giving : NULL,
								   i == BRANCH ? branch_given :
								   i == BASE_VERSION ? base_given : NULL, NULL);
}

/* The error for a value that cannot be read. */
static void
malformed(const char *name, const char *value, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for \"%s\": \"%s\"", name, value),
			 errhint("Expected is %s.", expected)));
}

/*
 * Calls an input function; whatever it finds wrong becomes `malformed`.
 * Safe without a subtransaction: the error is thrown on, only renamed.
 */
static Datum
parse(PGFunction input, const char *name, const char *value, const char *expected)
{
	MemoryContext old = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = DirectFunctionCall3(input, CStringGetDatum(value),
									 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		malformed(name, value, expected);
	}
	PG_END_TRY();
	return result;
}

/* Is this date or time spelled relative to now, as "now" and "tomorrow" are? */
static bool
is_relative(const char *value)
{
	return strpbrk(value, "0123456789") == NULL;
}

/*
 * A timestamp with time zone.  It must be absolute: infinity has no place on
 * the submit axis, and "now" would not mean the device's now.
 */
static TimestampTz
parse_time(const char *name, const char *value)
{
	const char *expected = "a timestamp with time zone in ISO 8601, such as 2025-11-21T08:00:00Z";

	if (is_relative(value))
		malformed(name, value, expected);
	return DatumGetTimestampTz(parse(timestamptz_in, name, value, expected));
}

/* A JSON object, from a setting. */
static Jsonb *
parse_object(const char *name, const char *value)
{
	Jsonb	   *json = DatumGetJsonbP(parse(jsonb_in, name, value, "a JSON object"));

	if (!JB_ROOT_IS_OBJECT(json))
		malformed(name, value, "a JSON object");
	return json;
}

/* A text member of a JSON object, or NULL; numbers are taken as they print. */
static char *
object_text(Jsonb *object, const char *key)
{
	JsonbValue	v;

	if (object == NULL || !esync_json_member(&object->root, key, strlen(key), &v))
		return NULL;
	if (v.type == jbvString)
		return v.val.string.len > 0 ? pnstrdup(v.val.string.val, v.val.string.len) : NULL;
	if (v.type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v.val.numeric)));
	return NULL;
}

/* A text to keep, or NULL. */
static text *
keep_text(const char *value)
{
	return value ? cstring_to_text(value) : NULL;
}

/*
 * A time as parse_time reads it, for those to whom a bad one is data: false if
 * it is none.
 */
bool
esync_clock_parse(const char *value, TimestampTz *result)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool fits = false;

	if (is_relative(value))
		return false;
	PG_TRY();
	{
		*result = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(value),
														  ObjectIdGetDatum(InvalidOid),
														  Int32GetDatum(-1)));
		fits = !TIMESTAMP_NOT_FINITE(*result);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return fits;
}

/*
 * How far the device's clock is behind the server's, in microseconds.  The
 * request is taken to have arrived when the transaction began.
 */
int64
esync_clock_offset(TimestampTz sent_at)
{
	return GetCurrentTransactionStartTimestamp() - sent_at;
}

/* Whether a clock is so far off that submit times are shifted. */
bool
esync_clock_is_off(int64 offset)
{
	return Abs(offset) > (int64) esync_clock_tolerance * 1000;
}

/* A submit time shifted by an offset, unless it would leave the calendar. */
TimestampTz
esync_clock_shift(TimestampTz submit, int64 offset)
{
	if (!TIMESTAMP_NOT_FINITE(submit) && IS_VALID_TIMESTAMP(submit + offset))
		return submit + offset;
	return submit;
}

/*
 * The submit timestamp as corrected: shifted by the clock offset that sent_at
 * shows, where that is beyond tolerance.
 */
static void
correct_submit(EsyncContext *c, const char *name, const char *sent_at)
{
	int64		offset;

	c->submit = c->submit_raw;
	if (sent_at == NULL)
		return;
	parsed_start = GetCurrentTransactionStartTimestamp();
	c->has_sent_at = true;
	c->sent_at = parse_time(name, sent_at);
	offset = esync_clock_offset(c->sent_at);
	if (!esync_clock_is_off(offset))
		return;
	c->offset_ms = offset / 1000;
	if (c->has_submit)
		c->submit = esync_clock_shift(c->submit_raw, offset);
}

/* Fills a context from its sources; memory: the current context. */
static void
parse_context(EsyncContext *c, char **from)
{
	char	   *value[NSETTINGS];
	const char *name[NSETTINGS];
	Jsonb	   *claims = from[NSETTINGS] ? parse_object("request.jwt.claims", from[NSETTINGS]) : NULL;
	Jsonb	   *headers = from[NSETTINGS + 1] ?
		parse_object("request.headers", from[NSETTINGS + 1]) : NULL;

	for (int i = 0; i < NSETTINGS; i++)
	{
		value[i] = from[i];
		name[i] = settings[i].name;
		if (value[i] == NULL && settings[i].header)
		{
			value[i] = object_text(headers, settings[i].header);
			name[i] = psprintf("%s of request.headers", settings[i].header);
		}
	}
	if (value[USER_ID] == NULL)
		value[USER_ID] = object_text(claims, "sub");
	c->db_role = cstring_to_text(GetUserNameFromId(GetOuterUserId(), false));
	c->user_id = value[USER_ID] ? cstring_to_text(value[USER_ID]) : c->db_role;
	c->device_id = keep_text(value[DEVICE_ID]);
	c->has_branch = value[BRANCH] != NULL;
	c->has_submit = value[SUBMIT] != NULL;
	c->has_base = value[BASE_VERSION] != NULL;
	if (c->has_branch)
		c->branch = parse_time(name[BRANCH], value[BRANCH]);
	if (c->has_submit)
		c->submit_raw = parse_time(name[SUBMIT], value[SUBMIT]);
	correct_submit(c, name[SENT_AT], value[SENT_AT]);
	if (c->has_base)
		c->base_version = DatumGetInt64(parse(int8in, name[BASE_VERSION],
											  value[BASE_VERSION], "a version number"));
	if (c->has_base && c->base_version < 0)
		malformed(name[BASE_VERSION], value[BASE_VERSION], "a version number");
	c->meta = value[META] ? parse_object(settings[META].name, value[META]) : NULL;
}

/* The present texts of all sources; NULL where unset or empty. */
static void
read_sources(char **from)
{
	const char *other[2];

	for (int i = 0; i < NSETTINGS; i++)
		from[i] = settings[i].value && settings[i].value[0] ? settings[i].value : NULL;
	other[0] = GetConfigOption("request.jwt.claims", true, false);
	other[1] = GetConfigOption("request.headers", true, false);
	for (int i = 0; i < 2; i++)
		from[NSETTINGS + i] = other[i] && other[i][0] ? (char *) other[i] : NULL;
}

/* Are the sources still the ones that the parsed context was made from? */
static bool
is_fresh(char **from)
{
	if (parsed == NULL || parsed_role != GetOuterUserId() ||
		parsed_tolerance != esync_clock_tolerance ||
		parsed_zone != session_timezone || parsed_order != DateOrder ||
		(parsed_start != 0 && parsed_start != GetCurrentTransactionStartTimestamp()))
		return false;
	for (int i = 0; i < SOURCES; i++)
		if ((from[i] == NULL) != (parsed_from[i] == NULL) ||
			(from[i] && strcmp(from[i], parsed_from[i]) != 0))
			return false;
	return true;
}

/*
 * Who and when, as of now.  The result is good until the end of the
 * transaction; callers ask once a statement.
 */
const EsyncContext *
esync_context_get(void)
{
	char	   *from[SOURCES];
	MemoryContext cxt;
	MemoryContext old;
	EsyncContext *c;

	if (lent)
		return lent;
	read_sources(from);
	if (is_fresh(from))
		return parsed;
	cxt = AllocSetContextCreate(CurrentMemoryContext, "esync context", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	parsed_start = 0;
	c = palloc0(sizeof(EsyncContext));
	for (int i = 0; i < SOURCES; i++)
		from[i] = from[i] ? pstrdup(from[i]) : NULL;
	parsed = NULL;
	parse_context(c, from);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(cxt, TopMemoryContext);
	if (parsed_cxt)				/* a row on its way may still use it */
		MemoryContextSetParent(parsed_cxt, TopTransactionContext);
	parsed_cxt = cxt;
	parsed = c;
	parsed_role = GetOuterUserId();
	parsed_tolerance = esync_clock_tolerance;
	parsed_zone = session_timezone;
	parsed_order = DateOrder;
	memcpy(parsed_from, from, sizeof(from));
	return parsed;
}

/*
 * Puts another context in place of the session's, while an edit is applied:
 * what triggers and cascades write then is no device's.  Returns the former
 * one, for the caller to put back, errors included.  What is lent lives until
 * the transaction ends: a row on its way may still use it.
 */
const EsyncContext *
esync_context_lend(const EsyncContext *context)
{
	const EsyncContext *former = lent;
	MemoryContext old;
	EsyncContext *copy;

	if (context == NULL)
	{
		lent = NULL;
		return former;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	copy = palloc(sizeof(EsyncContext));
	*copy = *context;
	copy->user_id = (text *) pg_detoast_datum_copy((struct varlena *) context->user_id);
	copy->db_role = (text *) pg_detoast_datum_copy((struct varlena *) context->db_role);
	MemoryContextSwitchTo(old);
	lent = copy;
	return former;
}

/* Puts back what was there before something was lent. */
void
esync_context_put_back(const EsyncContext *former)
{
	lent = former;
}

PG_FUNCTION_INFO_V1(esync_context);

/* One argument of esync_context as the text of its setting. */
static char *
argument_text(FunctionCallInfo fcinfo, int i)
{
	if (PG_ARGISNULL(i))
		return "";
	switch (i)
	{
		case BRANCH:
		case SUBMIT:
		case SENT_AT:
			{
				JsonbValue	v;
				EsyncAttr	attr = {"t", 1, TIMESTAMPTZOID, -1, false};

				if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(i)))
					ereport(ERROR,
							(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							 errmsg("\"%s\" must be finite", settings[i].name)));
				esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
								   PG_GETARG_DATUM(i), false, &v);
				return pnstrdup(v.val.string.val, v.val.string.len);
			}
		case BASE_VERSION:
			if (PG_GETARG_INT64(i) < 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("base_version must not be negative")));
			return psprintf(INT64_FORMAT, PG_GETARG_INT64(i));
		case META:
			if (!JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(i)))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("meta must be a JSON object")));
			return JsonbToCString(NULL, &PG_GETARG_JSONB_P(i)->root, VARSIZE(PG_GETARG_JSONB_P(i)));
		default:
			return text_to_cstring(PG_GETARG_TEXT_PP(i));
	}
}

/*
 * esync_context(user_id, device_id, branch_timestamp, submit_timestamp,
 * sent_at, base_version, meta): sets the settings for this transaction; NULL
 * clears one.
 */
Datum
esync_context(PG_FUNCTION_ARGS)
{
	for (int i = 0; i < NSETTINGS; i++)
		(void) set_config_option(settings[i].name, argument_text(fcinfo, i),
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	PG_RETURN_VOID();
}

/* The text of a setting that a member of a context object gives. */
static char *
member_text(int i, const JsonbValue *v)
{
	const char *name = strchr(settings[i].name, '.') + 1;
	Jsonb	   *value;

	if (v->type == jbvNull)
		return "";
	if ((i == META) != (v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data)) ||
		(i != META && v->type != jbvString && (i != BASE_VERSION || v->type != jbvNumeric)))
	{
		value = esync_json_from_value(v);
		malformed(psprintf("%s of context", name),
				  JsonbToCString(NULL, &value->root, VARSIZE(value)),
				  i == META ? "a JSON object" : i == BASE_VERSION ? "a version number" : "a string");
	}
	if (v->type == jbvString)
		return pnstrdup(v->val.string.val, v->val.string.len);
	if (v->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
	return JsonbToCString(NULL, v->val.binary.data, v->val.binary.len);
}

/*
 * What the argument `context` of esync_submit and its like says: the arguments
 * of esync_context as an object.  Those left out keep their value.
 */
void
esync_context_set(Jsonb *context)
{
	EsyncWalk	walk;

	if (!JB_ROOT_IS_OBJECT(context))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("context must be a JSON object"),
				 errhint("Its members are the arguments of esync_context.")));
	esync_walk_init(&walk, &context->root);
	while (esync_walk_next(&walk))
	{
		int			i = 0;

		while (i < NSETTINGS && (strlen(settings[i].name) != walk.keylen + strlen("esync.") ||
								 memcmp(settings[i].name + strlen("esync."), walk.key,
										walk.keylen) != 0))
			i++;
		if (i == NSETTINGS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown member \"%s\" of context", pnstrdup(walk.key, walk.keylen)),
					 errhint("Its members are the arguments of esync_context.")));
		(void) set_config_option(settings[i].name, member_text(i, &walk.value),
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	}
}
