/*
 * encode.c: rows, values and keys as JSON, free of session settings.
 *
 * The JSON of a row equals to_jsonb(row), byte for byte, taken with DateStyle
 * ISO, IntervalStyle postgres, extra_float_digits 1, TimeZone UTC,
 * bytea_output hex, search_path pg_catalog, quote_all_identifiers off,
 * lc_monetary C and xmloption content, whatever the session says.  The one
 * exception: text of type json that jsonb cannot hold becomes a JSON string
 * (esync_scalar_json), for no write may fail because it is recorded.
 *
 * A shape prepares a list of columns: a coder for each type, the keys in
 * stored order.  Common types are formatted here and need no setting; others
 * go through their output function, for which only the settings that it reads
 * and that differ are pinned, in one nested GUC level per call.  An error
 * leaves that level to the abort of the (sub)transaction.
 *
 * Memory: shapes live in the context given to esync_shape_make and go with
 * it; coders of composite types rebuild themselves when the type changes.
 * Results and garbage are in the current context.  Calls only PostgreSQL,
 * json.c, and its own back rooms scalar.c and pins.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

#include "coder.h"

static const char *const op_names[2] = {"replace", "add"};

static void put_value(Run *run, Coder *coder, Datum value);

/* ----------------------------------------------------------------- shapes */

/* The kind of a base type that needs no further look-up, else CODE_OUTPUT. */
static CoderKind
builtin_kind(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return CODE_BOOL;
		case INT2OID:
			return CODE_INT2;
		case INT4OID:
			return CODE_INT4;
		case INT8OID:
			return CODE_INT8;
		case FLOAT4OID:
			return CODE_FLOAT4;
		case FLOAT8OID:
			return CODE_FLOAT8;
		case NUMERICOID:
			return CODE_NUMERIC;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return CODE_TEXT;
		case DATEOID:
			return CODE_DATE;
		case TIMESTAMPOID:
			return CODE_TIMESTAMP;
		case TIMESTAMPTZOID:
			return CODE_TIMESTAMPTZ;
		case UUIDOID:
			return CODE_UUID;
		case BYTEAOID:
			return CODE_BYTEA;
		case JSONBOID:
			return CODE_JSONB;
		case JSONOID:
			return CODE_JSON;
		default:
			return CODE_OUTPUT;
	}
}

/*
 * Finds out how a type is written, by the rules of core's json_categorize_type.
 * A user's type may have a cast to json, which core honours; one whose output
 * function is that of text (citext) is taken as text.
 */
static void
coder_init(Coder *coder, MemoryContext cxt, Oid typid, int32 typmod)
{
	Oid			function = InvalidOid;
	bool		varlena;

	memset(coder, 0, sizeof(Coder));
	coder->cxt = cxt;
	coder->typid = typid;
	coder->basetypmod = typmod;
	coder->basetype = getBaseTypeAndTypmod(typid, &coder->basetypmod);
	coder->kind = builtin_kind(coder->basetype);
	if (coder->kind != CODE_OUTPUT)
		return;
	if (OidIsValid(get_element_type(coder->basetype)) || coder->basetype == ANYARRAYOID)
		coder->kind = CODE_ARRAY;
	else if (type_is_rowtype(coder->basetype))
		coder->kind = CODE_COMPOSITE;
	else if (coder->basetype >= FirstNormalObjectId &&
			 find_coercion_pathway(JSONOID, coder->basetype, COERCION_EXPLICIT,
								   &function) == COERCION_PATH_FUNC &&
			 OidIsValid(function))
	{
		coder->kind = CODE_CAST;
		coder->settings = PIN_ALL;
		fmgr_info_cxt(function, &coder->out, cxt);
	}
	else
	{
		getTypeOutputInfo(coder->basetype, &function, &varlena);
		fmgr_info_cxt(function, &coder->out, cxt);
		coder->settings = esync_pins_for(coder->basetype);
		if (varlena && coder->out.fn_addr == textout)
			coder->kind = CODE_TEXT;
	}
}

/*
 * Can values of this type be written without running a function that a user
 * wrote?  A cast to json is such a one, wherever in the type it stands.
 */
bool
esync_encode_is_pure(Oid typid)
{
	Coder		coder;
	TupleDesc	desc;
	bool		pure = true;

	check_stack_depth();
	coder_init(&coder, CurrentMemoryContext, typid, -1);
	switch (coder.kind)
	{
		case CODE_CAST:
			return false;
		case CODE_ARRAY:
			return coder.basetype != ANYARRAYOID &&
				esync_encode_is_pure(get_element_type(coder.basetype));
		case CODE_COMPOSITE:
			if (coder.basetype == RECORDOID)
				return false;
			desc = lookup_rowtype_tupdesc(coder.basetype, -1);
			for (int i = 0; pure && i < desc->natts; i++)
				pure = TupleDescAttr(desc, i)->attisdropped ||
					esync_encode_is_pure(TupleDescAttr(desc, i)->atttypid);
			ReleaseTupleDesc(desc);
			return pure;
		default:
			return true;
	}
}

typedef struct SortKey
{
	const char *name;
	int			len;
	int			attr;
} SortKey;

static int
sort_key_cmp(const void *a, const void *b)
{
	const SortKey *x = (const SortKey *) a;
	const SortKey *y = (const SortKey *) b;

	return esync_key_cmp(x->name, x->len, y->name, y->len);
}

/* Sorts the columns by key, and writes header and keys of their object. */
static void
shape_order(EsyncShape *shape)
{
	SortKey    *keys = palloc(Max(shape->nattrs, 1) * sizeof(SortKey));
	EsyncJson	json;

	for (int i = 0; i < shape->nattrs; i++)
	{
		keys[i].name = shape->attrs[i].name;
		keys[i].len = strlen(keys[i].name);
		keys[i].attr = i;
	}
	qsort(keys, shape->nattrs, sizeof(SortKey), sort_key_cmp);
	esync_json_init(&json, 64 + shape->nattrs * 32);
	esync_json_open_object(&json, shape->nattrs);
	for (int i = 0; i < shape->nattrs; i++)
	{
		ShapeColumn *column = &shape->columns[i];

		esync_json_key(&json, keys[i].name, keys[i].len);
		column->coder = &shape->coders[keys[i].attr];
		column->index = shape->attrs[keys[i].attr].attnum - 1;
		column->masked = shape->attrs[keys[i].attr].masked;
	}
	esync_json_head_make(&json, shape->cxt, &shape->head);
	shape->guess = shape->head.len + shape->nattrs * 16;
}

/*
 * Prepares the encoding of a list of columns with distinct names.  Reads the
 * catalog once; the shape lives and dies with cxt.
 */
EsyncShape *
esync_shape_make(MemoryContext cxt, const EsyncAttr *attrs, int nattrs)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	EsyncShape *shape = palloc0(sizeof(EsyncShape));

	shape->cxt = cxt;
	shape->nattrs = nattrs;
	shape->attrs = palloc(Max(nattrs, 1) * sizeof(EsyncAttr));
	shape->coders = palloc(Max(nattrs, 1) * sizeof(Coder));
	shape->columns = palloc(Max(nattrs, 1) * sizeof(ShapeColumn));
	for (int i = 0; i < lengthof(shape->ops); i++)
		shape->ops[i] = palloc0(Max(nattrs, 1) * sizeof(EsyncJsonHead));
	for (int i = 0; i < nattrs; i++)
	{
		shape->attrs[i] = attrs[i];
		shape->attrs[i].name = pstrdup(attrs[i].name);
		coder_init(&shape->coders[i], cxt, attrs[i].typid, attrs[i].typmod);
	}
	MemoryContextSwitchTo(old);
	shape_order(shape);
	return shape;
}

/* Numerics are carried over; a key's lose what 1.00 has over 1. */
static void
put_numeric(Run *run, Datum value)
{
	struct varlena *numeric = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));

	if (run->canonical)
		numeric = (struct varlena *)
			DatumGetPointer(DirectFunctionCall1(numeric_trim_scale, PointerGetDatum(numeric)));
	esync_json_numeric(&run->json, numeric);
}

static void
put_output(Run *run, Coder *coder, Datum value)
{
	char	   *string;

	esync_pins_add(&run->pins, coder->settings);
	string = OutputFunctionCall(&coder->out, value);
	esync_json_string(&run->json, string, strlen(string));
}

/* ------------------------------------------------------ arrays, composites */

/* One dimension of an array: an array of arrays, until the innermost. */
static void
put_dimension(Run *run, Coder *coder, int ndims, const int *dims, Datum **elements, bool **nulls)
{
	esync_json_open_array(&run->json, dims[0]);
	for (int i = 0; i < dims[0]; i++)
	{
		if (ndims > 1)
		{
			put_dimension(run, coder, ndims - 1, dims + 1, elements, nulls);
			continue;
		}
		if (**nulls)
			esync_json_null(&run->json);
		else
			put_value(run, coder, **elements);
		(*elements)++;
		(*nulls)++;
	}
	esync_json_close(&run->json);
}

/* An array as JSON arrays, one level a dimension; lower bounds are not kept. */
static void
put_array(Run *run, Coder *coder, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (coder->element == NULL || coder->elemtype != ARR_ELEMTYPE(array))
	{
		Coder	   *element = MemoryContextAlloc(coder->cxt, sizeof(Coder));

		coder->elemtype = ARR_ELEMTYPE(array);
		get_typlenbyvalalign(coder->elemtype, &coder->elemlen, &coder->elembyval,
							 &coder->elemalign);
		coder_init(element, coder->cxt, coder->elemtype, -1);
		coder->element = element;
	}
	deconstruct_array(array, coder->elemtype, coder->elemlen, coder->elembyval,
					  coder->elemalign, &elements, &nulls, &count);
	if (count > 0)
		put_dimension(run, coder->element, ARR_NDIM(array), ARR_DIMS(array), &elements, &nulls);
	else
	{
		esync_json_open_array(&run->json, 0);
		esync_json_close(&run->json);
	}
}

/* Prepares a composite type's columns, again whenever the type has changed. */
static void
coder_rowtype(Coder *coder, Oid type, int32 typmod)
{
	uint64		id = assign_record_type_identifier(type, typmod);
	MemoryContext cxt;
	MemoryContext old;
	TupleDesc	desc;
	EsyncAttr  *attrs;
	int			nattrs = 0;

	if (coder->sub != NULL && coder->subid == id)
		return;
	cxt = AllocSetContextCreate(coder->cxt, "esync composite type", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	desc = lookup_rowtype_tupdesc_copy(type, typmod);
	attrs = palloc(Max(desc->natts, 1) * sizeof(EsyncAttr));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		attrs[nattrs].name = NameStr(att->attname);
		attrs[nattrs].attnum = i + 1;
		attrs[nattrs].typid = att->atttypid;
		attrs[nattrs].typmod = att->atttypmod;
		attrs[nattrs].masked = false;
		nattrs++;
	}
	MemoryContextSwitchTo(old);
	coder->sub = NULL;
	if (coder->subcxt != NULL)
		MemoryContextDelete(coder->subcxt);
	coder->subcxt = cxt;
	coder->subdesc = desc;
	coder->sub = esync_shape_make(cxt, attrs, nattrs);
	coder->subid = id;
}

/* A row as an object; NULL columns as null, masked ones as the mask. */
static void
put_row(Run *run, EsyncShape *shape, const Datum *values, const bool *isnull)
{
	esync_json_open_head(&run->json, &shape->head);
	for (int i = 0; i < shape->nattrs; i++)
	{
		ShapeColumn *column = &shape->columns[i];

		if (column->masked)
			esync_json_string(&run->json, ESYNC_MASK, strlen(ESYNC_MASK));
		else if (isnull[column->index])
			esync_json_null(&run->json);
		else
			put_value(run, column->coder, values[column->index]);
	}
	esync_json_close(&run->json);
}

static void
put_composite(Run *run, Coder *coder, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	HeapTupleData tuple;
	Datum	   *values;
	bool	   *isnull;

	coder_rowtype(coder, HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	values = palloc(coder->subdesc->natts * (sizeof(Datum) + sizeof(bool)) + 1);
	isnull = (bool *) (values + coder->subdesc->natts);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, coder->subdesc, values, isnull);
	put_row(run, coder->sub, values, isnull);
}

/* Appends one value that is not NULL. */
static void
put_value(Run *run, Coder *coder, Datum value)
{
	EsyncJson  *json = &run->json;

	switch (coder->kind)
	{
		case CODE_BOOL:
			esync_json_bool(json, DatumGetBool(value));
			break;
		case CODE_INT2:
			esync_json_int64(json, DatumGetInt16(value));
			break;
		case CODE_INT4:
			esync_json_int64(json, DatumGetInt32(value));
			break;
		case CODE_INT8:
			esync_json_int64(json, DatumGetInt64(value));
			break;
		case CODE_FLOAT4:
			esync_scalar_float4(json, DatumGetFloat4(value));
			break;
		case CODE_FLOAT8:
			esync_scalar_float8(json, DatumGetFloat8(value));
			break;
		case CODE_NUMERIC:
			put_numeric(run, value);
			break;
		case CODE_TEXT:
			{
				text	   *string = DatumGetTextPP(value);

				esync_json_string(json, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
				break;
			}
		case CODE_DATE:
			esync_scalar_datetime(json, value, DATEOID);
			break;
		case CODE_TIMESTAMP:
			esync_scalar_datetime(json, value, TIMESTAMPOID);
			break;
		case CODE_TIMESTAMPTZ:
			esync_scalar_datetime(json, value, TIMESTAMPTZOID);
			break;
		case CODE_UUID:
			esync_scalar_uuid(esync_json_string_space(json, 36), DatumGetUUIDP(value));
			break;
		case CODE_BYTEA:
			esync_scalar_bytea(json, value);
			break;
		case CODE_JSONB:
			esync_scalar_jsonb(json, value);
			break;
		case CODE_JSON:
			esync_scalar_json(json, value);
			break;
		case CODE_ARRAY:
			check_stack_depth();
			put_array(run, coder, value);
			break;
		case CODE_COMPOSITE:
			check_stack_depth();
			put_composite(run, coder, value);
			break;
		case CODE_CAST:
			esync_pins_add(&run->pins, coder->settings);
			esync_scalar_json(json, FunctionCall1(&coder->out, value));
			break;
		case CODE_OUTPUT:
			put_output(run, coder, value);
			break;
	}
}

/* --------------------------------------------------------------- documents */

static void
run_begin(Run *run, Size guess)
{
	run->pins.done = 0;
	run->pins.nestlevel = 0;
	run->canonical = false;
	esync_json_init(&run->json, guess);
}

static Jsonb *
run_end(Run *run)
{
	esync_pins_end(&run->pins);
	return esync_json_finish(&run->json);
}

/* The object of all columns, in the current memory context. */
Jsonb *
esync_encode_row(EsyncShape *shape, const Datum *values, const bool *isnull)
{
	Run			run;

	run_begin(&run, (Size) shape->guess + 64);
	put_row(&run, shape, values, isnull);
	if (run.json.len > shape->guess)
		shape->guess = run.json.len;
	else
		shape->guess -= (shape->guess - run.json.len) / 8;
	return run_end(&run);
}

/* The value of one column of a shape, masked or NULL or neither. */
static void
put_attr(Run *run, EsyncShape *shape, int which, Datum value, bool isnull)
{
	if (shape->attrs[which].masked)
		esync_json_string(&run->json, ESYNC_MASK, strlen(ESYNC_MASK));
	else if (isnull)
		esync_json_null(&run->json);
	else
		put_value(run, &shape->coders[which], value);
}

/* Makes {"op": …, "path": "/column", "value": up to where the value goes. */
static void
make_op(EsyncShape *shape, int which, int op)
{
	const char *token = esync_pointer_escape(shape->attrs[which].name);
	int			len = strlen(token) + 1;
	EsyncJson	json;
	char	   *path;

	esync_json_init(&json, 128);
	esync_json_open_object(&json, 3);
	esync_json_key(&json, "op", 2);
	esync_json_key(&json, "path", 4);
	esync_json_key(&json, "value", 5);
	esync_json_string(&json, op_names[op], strlen(op_names[op]));
	path = esync_json_string_space(&json, len);
	path[0] = '/';
	memcpy(path + 1, token, len - 1);
	esync_json_head_make(&json, shape->cxt, &shape->ops[op][which]);
}

/* An RFC 6902 patch of one operation per which[], in that order. */
static Jsonb *
encode_ops(EsyncShape *shape, const Datum *values, const bool *isnull,
		   const int *which, int nwhich, int op)
{
	Run			run;

	run_begin(&run, 64 + (Size) nwhich * 128);
	esync_json_open_array(&run.json, nwhich);
	for (int i = 0; i < nwhich; i++)
	{
		int			index = shape->attrs[which[i]].attnum - 1;

		if (shape->ops[op][which[i]].bytes == NULL)
			make_op(shape, which[i], op);
		esync_json_open_head(&run.json, &shape->ops[op][which[i]]);
		put_attr(&run, shape, which[i], values[index], isnull[index]);
		esync_json_close(&run.json);
	}
	esync_json_close(&run.json);
	return run_end(&run);
}

/* One "replace" per column. */
Jsonb *
esync_encode_patch(EsyncShape *shape, const Datum *values, const bool *isnull,
				   const int *which, int nwhich)
{
	return encode_ops(shape, values, isnull, which, nwhich, 0);
}

/* One "add" per column. */
Jsonb *
esync_encode_adds(EsyncShape *shape, const Datum *values, const bool *isnull,
				  const int *which, int nwhich)
{
	return encode_ops(shape, values, isnull, which, nwhich, 1);
}

/* One column as a scalar or jbvBinary, in memory of the current context. */
void
esync_encode_value(EsyncShape *shape, int which, Datum value, bool isnull, JsonbValue *out)
{
	Run			run;

	run_begin(&run, 64);
	put_attr(&run, shape, which, value, isnull);
	esync_json_root(run_end(&run), out);
}

/* -------------------------------------------------------------------- keys */

/* A key of any other type than the usual ones, by way of JSON. */
static text *
key_by_json(EsyncShape *keyshape, const Datum *values, const bool *isnull)
{
	bool		single = keyshape->nattrs == 1;
	JsonbValue	root;
	Run			run;

	run_begin(&run, 256);
	run.canonical = true;
	if (!single)
		esync_json_open_array(&run.json, keyshape->nattrs);
	for (int i = 0; i < keyshape->nattrs; i++)
	{
		int			index = keyshape->attrs[i].attnum - 1;

		if (isnull[index])
			esync_json_null(&run.json);
		else
			put_value(&run, &keyshape->coders[i], values[index]);
	}
	if (!single)
		esync_json_close(&run.json);
	esync_json_root(run_end(&run), &root);
	return cstring_to_text(esync_scalar_text(&root));
}

/*
 * The canonical text of a key.  One column: the text that its JSON shows;
 * several: the text of a JSON array in the order of attrs.  Numerics lose
 * trailing zeros.  Masks do not apply.
 */
text *
esync_encode_key(EsyncShape *keyshape, const Datum *values, const bool *isnull)
{
	int			index = keyshape->attrs[0].attnum - 1;
	char		buf[MAXINT8LEN + 1];
	text	   *result;
	Datum		value;

	if (keyshape->nattrs != 1 || isnull[index])
		return key_by_json(keyshape, values, isnull);
	value = values[index];
	switch (keyshape->coders[0].kind)
	{
		case CODE_UUID:
			result = palloc(VARHDRSZ + 36);
			SET_VARSIZE(result, VARHDRSZ + 36);
			esync_scalar_uuid(VARDATA(result), DatumGetUUIDP(value));
			return result;
		case CODE_INT2:
			return cstring_to_text_with_len(buf, pg_itoa(DatumGetInt16(value), buf));
		case CODE_INT4:
			return cstring_to_text_with_len(buf, pg_ltoa(DatumGetInt32(value), buf));
		case CODE_INT8:
			return cstring_to_text_with_len(buf, pg_lltoa(DatumGetInt64(value), buf));
		case CODE_TEXT:
			result = DatumGetTextPP(value);
			return cstring_to_text_with_len(VARDATA_ANY(result),
											keyshape->coders[0].basetype == BPCHAROID ?
											bpchartruelen(VARDATA_ANY(result),
														  VARSIZE_ANY_EXHDR(result)) :
											VARSIZE_ANY_EXHDR(result));
		case CODE_NUMERIC:
			return cstring_to_text(numeric_normalize(DatumGetNumeric(value)));
		default:
			return key_by_json(keyshape, values, isnull);
	}
}
