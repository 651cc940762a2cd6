/*
 * decode.c: JSON values and key texts back to datums of a column's type.
 *
 * The meaning is that of jsonb_populate_record, domains and typmods included.
 * What encode.c wrote reads back the same under any session settings: those
 * that would change the meaning of its text are pinned.
 *
 * Memory: what is prepared lives with the shape, results in the current
 * context.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "coder.h"

static bool
is_hstore(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	result = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), "hstore") == 0;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Prepares a coder for reading: the base type's input function and, where
 * the type is written by its cast to json, its cast from jsonb, if any.
 */
static void
coder_reads(Coder *coder)
{
	Oid			function;

	if (coder->reads)
		return;
	getTypeInputInfo(coder->basetype, &function, &coder->ioparam);
	fmgr_info_cxt(function, &coder->in, coder->cxt);
	if (coder->kind == CODE_CAST)
	{
		if (find_coercion_pathway(coder->basetype, JSONBOID, COERCION_EXPLICIT,
								  &function) == COERCION_PATH_FUNC)
			fmgr_info_cxt(function, &coder->back, coder->cxt);
		coder->hstore = is_hstore(coder->basetype);
	}
	coder->reads = true;
}

/*
 * Settings under which text of a type is read, so that what was written here
 * reads back the same.  Times without a zone, as people type them, are still
 * the session's to understand, unless the type is unknown.
 */
static uint32
input_settings(const Coder *coder)
{
	uint32		settings = coder->settings;

	if (coder->kind == CODE_COMPOSITE)
		return PIN_ALL & ~PIN_OUTPUT_ONLY;
	if (coder->kind == CODE_ARRAY)
		settings = esync_pins_for(getBaseType(get_element_type(coder->basetype)));
	if (settings == PIN_ALL)
		return PIN_ALL;
	return settings & ~PIN_OUTPUT_ONLY;
}

/*
 * Makes what jsonb_populate_record wants: its FmgrInfo that says "record",
 * and a record of one column of the type, holding NULL.
 */
static void
coder_populates(Coder *coder)
{
	MemoryContext old = MemoryContextSwitchTo(coder->cxt);
	Datum		value = (Datum) 0;
	bool		isnull = true;
	TupleDesc	desc;
	Node	   *call;

	desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(desc, 1, "v", coder->basetype, coder->basetypmod, 0);
	desc = BlessTupleDesc(desc);
	fmgr_info_cxt(F_JSONB_POPULATE_RECORD, &coder->populate, coder->cxt);
	call = (Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, RECORDOID,
								 list_make2(makeNullConst(RECORDOID, -1, InvalidOid),
											makeNullConst(JSONBOID, -1, InvalidOid)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	fmgr_info_set_expr(call, &coder->populate);
	coder->recorddesc = desc;
	coder->record = DatumGetHeapTupleHeader(HeapTupleGetDatum(heap_form_tuple(desc, &value,
																			   &isnull)));
	MemoryContextSwitchTo(old);
}

/* Arrays and composites from JSON arrays and objects, as core reads them. */
static Datum
read_nested(Coder *coder, const JsonbValue *v, bool *isnull)
{
	EsyncMember member = {"v", 1, *v};
	HeapTupleData tuple;
	Datum		row;

	if (coder->record == NULL)
		coder_populates(coder);
	row = FunctionCall2(&coder->populate, PointerGetDatum(coder->record),
						JsonbPGetDatum(esync_json_object(1, &member)));
	tuple.t_data = DatumGetHeapTupleHeader(row);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	return heap_getattr(&tuple, 1, coder->recorddesc, isnull);
}

/*
 * A value of type json.  A string whose text is JSON that jsonb cannot hold
 * was written by esync_scalar_json, and is that text again.
 */
static Datum
read_json(const JsonbValue *v)
{
	Jsonb	   *document;
	Datum		ignored;

	if (v->type == jbvString)
	{
		char	   *string = pnstrdup(v->val.string.val, v->val.string.len);
		char		first = string[strspn(string, " \t\n\r")];

		if (first != '\0' && strchr("\"[{-0123456789", first) != NULL &&
			!esync_scalar_try(jsonb_in, string, &ignored) &&
			esync_scalar_try(json_in, string, &ignored))
			return CStringGetTextDatum(string);
	}
	document = esync_json_from_value(v);
	return CStringGetTextDatum(JsonbToCString(NULL, &document->root, VARSIZE(document)));
}

/*
 * An array of json or jsonb, or of domains over them.  Always of one dimension: nested arrays are
 * taken for elements, for that is what they nearly always are.
 */
static Datum
read_json_array(Oid elemtype, const JsonbValue *v)
{
	bool		as_text = getBaseType(elemtype) == JSONOID;
	int			count = esync_json_count(v->val.binary.data);
	Datum	   *elements = palloc(Max(count, 1) * sizeof(Datum));
	bool	   *nulls = palloc(Max(count, 1) * sizeof(bool));
	int			lower = 1;
	EsyncWalk	walk;

	if (count == 0)
		return PointerGetDatum(construct_empty_array(elemtype));
	esync_walk_init(&walk, v->val.binary.data);
	for (int i = 0; esync_walk_next(&walk); i++)
	{
		nulls[i] = walk.value.type == jbvNull;
		if (nulls[i])
			elements[i] = (Datum) 0;
		else if (as_text)
			elements[i] = read_json(&walk.value);
		else
			elements[i] = JsonbPGetDatum(esync_json_from_value(&walk.value));
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, &count, &lower, elemtype,
											  -1, false, TYPALIGN_INT));
}

/* Text through the base type's input function. */
static Datum
read_text(Coder *coder, char *string)
{
	coder_reads(coder);
	return InputFunctionCall(&coder->in, string, coder->ioparam, coder->basetypmod);
}

/* A string of hstore's text form. */
static void
append_quoted(StringInfo to, const char *string, int len)
{
	appendStringInfoChar(to, '"');
	for (int i = 0; i < len; i++)
	{
		if (string[i] == '"' || string[i] == '\\')
			appendStringInfoChar(to, '\\');
		appendStringInfoChar(to, string[i]);
	}
	appendStringInfoChar(to, '"');
}

/*
 * An object as hstore's text.  hstore is written through its cast to json but
 * has none back, and its input function takes no JSON.
 */
static char *
hstore_text(const JsonbContainer *object)
{
	StringInfoData text;
	EsyncWalk	walk;

	initStringInfo(&text);
	esync_walk_init(&walk, object);
	while (esync_walk_next(&walk))
	{
		char	   *value = esync_scalar_text(&walk.value);

		append_quoted(&text, walk.key, walk.keylen);
		appendStringInfoString(&text, "=>");
		if (walk.value.type == jbvNull)
			appendStringInfoString(&text, "NULL,");
		else
		{
			append_quoted(&text, value, strlen(value));
			appendStringInfoChar(&text, ',');
		}
	}
	return text.data;
}

/* A type with a cast to json: its cast from jsonb, or its text. */
static Datum
read_cast(Coder *coder, const JsonbValue *v)
{
	coder_reads(coder);
	if (OidIsValid(coder->back.fn_oid))
		return FunctionCall1(&coder->back, JsonbPGetDatum(esync_json_from_value(v)));
	if (coder->hstore && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data))
		return read_text(coder, hstore_text(v->val.binary.data));
	return read_text(coder, esync_scalar_text(v));
}

static Datum
read_numeric(Coder *coder, const JsonbValue *v)
{
	Datum		value = NumericGetDatum(v->val.numeric);

	if (coder->basetypmod < 0)
		return datumCopy(value, false, -1);
	return DirectFunctionCall2(numeric, value, Int32GetDatum(coder->basetypmod));
}

/* A value other than JSON null, as the base type of the column. */
static Datum
read_value(Coder *coder, const JsonbValue *v, bool *isnull)
{
	Oid			elemtype;

	switch (coder->kind)
	{
		case CODE_JSONB:
			return JsonbPGetDatum(esync_json_from_value(v));
		case CODE_JSON:
			return read_json(v);
		case CODE_CAST:
			return read_cast(coder, v);
		case CODE_ARRAY:
			elemtype = get_element_type(coder->basetype);
			if ((getBaseType(elemtype) == JSONOID || getBaseType(elemtype) == JSONBOID) &&
				v->type == jbvBinary &&
				JsonContainerIsArray(v->val.binary.data))
				return read_json_array(elemtype, v);
			/* FALLTHROUGH */
		case CODE_COMPOSITE:
			if (v->type != jbvString)
				return read_nested(coder, v, isnull);
			break;
		case CODE_BOOL:
			if (v->type == jbvBool)
				return BoolGetDatum(v->val.boolean);
			break;
		case CODE_NUMERIC:
			if (v->type == jbvNumeric)
				return read_numeric(coder, v);
			break;
		case CODE_TEXT:
			if (v->type == jbvString &&
				(coder->basetype == TEXTOID ||
				 (coder->basetype == VARCHAROID && coder->basetypmod < 0)))
				return PointerGetDatum(cstring_to_text_with_len(v->val.string.val,
																v->val.string.len));
			break;
		default:
			break;
	}
	return read_text(coder, esync_scalar_text(v));
}

/* A domain's constraints, NOT NULL among them, on a value of its base type. */
static inline void
check_domain(Coder *coder, Datum value, bool isnull)
{
	if (coder->typid != coder->basetype)
		domain_check(value, isnull, coder->typid, &coder->domain, coder->cxt);
}

/*
 * A JSON value as a datum of column which of the shape, in the current memory
 * context.  JSON null is SQL NULL.  What does not fit the type is the error
 * that SQL would raise.
 */
void
esync_decode_value(EsyncShape *shape, int which, const JsonbValue *v,
				   Datum *value, bool *isnull)
{
	Coder	   *coder = &shape->coders[which];
	Pins		pins = {0, 0};
	JsonbValue	scalar;

	if (v->type == jbvBinary && JsonContainerIsScalar(v->val.binary.data))
	{
		esync_json_element(v->val.binary.data, 0, &scalar);
		v = &scalar;
	}
	*isnull = v->type == jbvNull;
	*value = (Datum) 0;
	esync_pins_add(&pins, input_settings(coder));
	if (!*isnull)
		*value = read_value(coder, v, isnull);
	esync_pins_end(&pins);
	check_domain(coder, *value, *isnull);
}

/*
 * A key column's text, as a user types it or as esync_encode_key wrote it, as
 * a datum of its type: the input function's work, except that arrays and
 * composites may also be given as JSON.
 */
Datum
esync_decode_key_text(EsyncShape *keyshape, int which, const char *string)
{
	Coder	   *coder = &keyshape->coders[which];
	char	   *copy = pstrdup(string);
	char		first = string[0];
	char		last = first == '\0' ? '\0' : string[strlen(string) - 1];
	Pins		pins = {0, 0};
	Datum		value;

	if ((coder->kind == CODE_ARRAY && first == '[' && last == ']') ||
		(coder->kind == CODE_COMPOSITE && first == '{'))
	{
		JsonbValue	root;
		bool		isnull;

		esync_json_root(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(copy))),
						&root);
		esync_decode_value(keyshape, which, &root, &value, &isnull);
		return value;
	}
	esync_pins_add(&pins, input_settings(coder));
	value = read_text(coder, copy);
	esync_pins_end(&pins);
	check_domain(coder, value, false);
	return value;
}
