/*
 * scalar.c: scalar values as JSON, as to_jsonb would write them under the
 * settings that encode.c names, without reading any setting.
 *
 * Memory: garbage in the current context.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "coder.h"

/* Two decimal digits. */
static inline char *
put_pair(char *to, int number)
{
	*to++ = '0' + number / 10;
	*to++ = '0' + number % 10;
	return to;
}

/* A Julian day as year-month-day; NULL where the year has not four digits. */
static inline char *
put_day(char *to, int julian)
{
	int			year;
	int			month;
	int			day;

	j2date(julian, &year, &month, &day);
	if (year < 1 || year > 9999)
		return NULL;
	to = put_pair(to, year / 100);
	to = put_pair(to, year % 100);
	*to++ = '-';
	to = put_pair(to, month);
	*to++ = '-';
	return put_pair(to, day);
}

/* Microseconds of a day as T hours:minutes:seconds, fraction without trailing zeros. */
static inline char *
put_clock(char *to, int64 micros)
{
	int			seconds = (int) (micros / USECS_PER_SEC);
	int			fraction = (int) (micros % USECS_PER_SEC);

	*to++ = 'T';
	to = put_pair(to, seconds / SECS_PER_HOUR);
	*to++ = ':';
	to = put_pair(to, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*to++ = ':';
	to = put_pair(to, seconds % SECS_PER_MINUTE);
	if (fraction != 0)
	{
		*to++ = '.';
		to = put_pair(to, fraction / 10000);
		to = put_pair(to, fraction / 100 % 100);
		to = put_pair(to, fraction % 100);
		while (to[-1] == '0')
			to--;
	}
	return to;
}

/* ISO 8601 with a T; what is rare (infinity, BC, five-digit years) is core's work. */
void
esync_scalar_datetime(EsyncJson *json, Datum value, Oid type)
{
	char		buf[MAXDATELEN + 1];
	char	   *end = NULL;
	int			utc = 0;

	if (type == DATEOID)
	{
		if (!DATE_NOT_FINITE(DatumGetDateADT(value)))
			end = put_day(buf, DatumGetDateADT(value) + POSTGRES_EPOCH_JDATE);
	}
	else if (!TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)))
	{
		int64		days = DatumGetTimestamp(value) / USECS_PER_DAY;
		int64		micros = DatumGetTimestamp(value) % USECS_PER_DAY;

		if (micros < 0)
		{
			days--;
			micros += USECS_PER_DAY;
		}
		end = put_day(buf, (int) days + POSTGRES_EPOCH_JDATE);
		if (end != NULL)
			end = put_clock(end, micros);
		if (end != NULL && type == TIMESTAMPTZOID)
		{
			memcpy(end, "+00:00", 6);
			end += 6;
		}
	}
	if (end == NULL)
	{
		JsonEncodeDateTime(buf, value, type, &utc);
		end = buf + strlen(buf);
	}
	esync_json_string(json, buf, end - buf);
}

/*
 * A float in its shortest exact form, which text holds; or, if whole, an
 * integer whose shortest form is its digits.
 */
static void
put_float(EsyncJson *json, float8 value, bool whole, const char *text)
{
	if (isnan(value))
		esync_json_string(json, "NaN", 3);
	else if (isinf(value))
		esync_json_string(json, value > 0 ? "Infinity" : "-Infinity", value > 0 ? 8 : 9);
	else if (whole)
		esync_json_int64(json, (int64) value);
	else
	{
		Datum		numeric = DirectFunctionCall3(numeric_in, CStringGetDatum(text),
												  ObjectIdGetDatum(InvalidOid),
												  Int32GetDatum(-1));

		esync_json_numeric(json, (struct varlena *) DatumGetPointer(numeric));
	}
}

void
esync_scalar_float4(EsyncJson *json, float4 value)
{
	char		text[FLOAT_SHORTEST_DECIMAL_LEN];
	bool		whole = fabsf(value) < 8388608.0f && value == rintf(value);

	if (!whole)
		float_to_shortest_decimal_buf(value, text);
	put_float(json, value, whole, text);
}

void
esync_scalar_float8(EsyncJson *json, float8 value)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
	bool		whole = fabs(value) < 1e15 && value == rint(value);

	if (!whole)
		double_to_shortest_decimal_buf(value, text);
	put_float(json, value, whole, text);
}

/* Thirty-six characters, into to. */
void
esync_scalar_uuid(char *to, const pg_uuid_t *uuid)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = digits[uuid->data[i] >> 4];
		*to++ = digits[uuid->data[i] & 0x0F];
	}
}

void
esync_scalar_bytea(EsyncJson *json, Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);
	Size		len = VARSIZE_ANY_EXHDR(bytes);
	char	   *to;

	if (len > (JENTRY_OFFLENMASK - 2) / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value of type bytea is too long to be recorded as JSON"),
				 errdetail("It has %zu bytes; at most %u can be recorded.",
						   len, (JENTRY_OFFLENMASK - 2) / 2)));
	to = esync_json_string_space(json, 2 + len * 2);
	*to++ = '\\';
	*to++ = 'x';
	hex_encode(VARDATA_ANY(bytes), len, to);
}

/* Carries a jsonb's bytes over; its header may be short, its bytes unaligned. */
void
esync_scalar_jsonb(EsyncJson *json, Datum value)
{
	struct varlena *packed = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));
	JsonbValue	scalar;
	uint32		header;

	memcpy(&header, VARDATA_ANY(packed), sizeof(header));
	if ((header & JB_FSCALAR) == 0)
	{
		esync_json_container(json, VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed));
		return;
	}
	esync_json_root(DatumGetJsonbP(PointerGetDatum(packed)), &scalar);
	esync_json_value(json, &scalar);
}

/*
 * Runs the input function of json or jsonb; false if it cannot take the text:
 * no JSON, or JSON that jsonb cannot hold (\u0000 and lone surrogates, numbers
 * beyond numeric, documents beyond its limits).  Catching the error without a
 * subtransaction is safe here: these parsers hold nothing but memory.
 */
bool
esync_scalar_try(PGFunction input, char *string, Datum *result)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool fits = false;

	PG_TRY();
	{
		*result = DirectFunctionCall1(input, CStringGetDatum(string));
		fits = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		switch (geterrcode())
		{
			case ERRCODE_UNTRANSLATABLE_CHARACTER:
			case ERRCODE_INVALID_TEXT_REPRESENTATION:
			case ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE:
			case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			case ERRCODE_STATEMENT_TOO_COMPLEX:
			case ERRCODE_FEATURE_NOT_SUPPORTED:
				FlushErrorState();
				break;
			default:
				PG_RE_THROW();
		}
	}
	PG_END_TRY();
	return fits;
}

/*
 * A value of type json becomes jsonb, as in to_jsonb.  Text that jsonb cannot
 * hold ("\u0000", 1e200000) is recorded as a JSON string of that text, where
 * to_jsonb fails; decode.c turns it back.
 */
void
esync_scalar_json(EsyncJson *json, Datum value)
{
	text	   *string = DatumGetTextPP(value);
	Datum		document;
	JsonbValue	root;

	if (!esync_scalar_try(jsonb_in, text_to_cstring(string), &document))
	{
		esync_json_string(json, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
		return;
	}
	esync_json_root(DatumGetJsonbP(document), &root);
	esync_json_value(json, &root);
}

/* A scalar as the bare text that it shows, a container as JSON text. */
char *
esync_scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return pstrdup("null");
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		default:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	}
}
