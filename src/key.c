/*
 * key.c: aggregate ids, the keys of rows as canonical text.
 *
 * Two keys that are equal must have one text, or a row would have two
 * streams.  That holds for types whose equality is equality of the image
 * (what btree calls equalimage), and for numbers, which encode.c brings into
 * one form; other types are refused when a table is enabled.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "esync.h"

/* Does the default btree opclass of a type promise equal images? */
static bool
is_equalimage(Oid typid, Oid collation)
{
	TypeCacheEntry *type = lookup_type_cache(typid, TYPECACHE_BTREE_OPFAMILY);
	Oid			proc;

	if (!OidIsValid(type->btree_opf))
		return false;
	proc = get_opfamily_proc(type->btree_opf, type->btree_opintype, type->btree_opintype,
							 BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation,
										  ObjectIdGetDatum(type->btree_opintype)));
}

/* Has every value of this type one canonical text, and equal values the same? */
static bool
is_key_type(Oid typid, Oid collation)
{
	Oid			base = getBaseType(typid);
	Oid			element;

	switch (base)
	{
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
			return true;
		case BPCHAROID:			/* trailing blanks are cut off */
			base = TEXTOID;
			break;
		default:
			break;
	}
	if (type_is_multirange(base))
		base = get_multirange_range(base);
	if (type_is_range(base))
	{
		/* numeric bounds would keep their scale inside the text of the range */
		element = getBaseType(get_range_subtype(base));
		return element != NUMERICOID && is_equalimage(element, get_range_collation(base));
	}
	element = get_element_type(base);
	if (OidIsValid(element))
		return is_equalimage(getBaseType(element), collation);
	return is_equalimage(base, collation);
}

PG_FUNCTION_INFO_V1(esync_key_type_fits);

/* esync.key_type_fits(type oid, collation oid): may such a column be in a key? */
Datum
esync_key_type_fits(PG_FUNCTION_ARGS)
{
	/* a dropped column has no type; the planner may ask for it all the same */
	PG_RETURN_BOOL(OidIsValid(PG_GETARG_OID(0)) &&
				   is_key_type(PG_GETARG_OID(0), PG_GETARG_OID(1)));
}

/* "a, b": the key columns, for messages. */
static char *
key_columns_text(EsyncTracked *t)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < t->nkeys; k++)
		appendStringInfo(&s, "%s%s", k ? ", " : "", t->fields[t->keyfields[k]].name);
	return s.data;
}

/* The error for a key of the wrong shape. */
static void
key_does_not_fit(EsyncTracked *t)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key does not fit table \"%s\"", t->table_name),
			 errdetail("Its key consists of: %s.", key_columns_text(t)),
			 t->nkeys == 1 ?
			 errhint("Give the value of that column.") :
			 errhint("Give ROW(...) of the columns in that order, or the text of a JSON array or object.")));
}

/*
 * One value of a key by its column's type; where that type cannot read it, the
 * error says which column and type it is about.
 */
static Datum
read_key_value(EsyncTracked *t, int which, const char *text)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile Datum value = (Datum) 0;

	PG_TRY();
	{
		value = esync_decode_key_text(t->key, which, text);
	}
	PG_CATCH();
	{
		const EsyncField *field = &t->fields[t->keyfields[which]];
		ErrorData  *error;

		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (error->hint == NULL)
			error->hint = psprintf("Column \"%s\" of the key of table \"%s\" is of type %s.",
								   field->name, t->table_name, format_type_be(field->typid));
		ReThrowError(error);
	}
	PG_END_TRY();
	return value;
}

/*
 * The aggregate_id of key columns given as texts; values, if not NULL, takes
 * them as datums.  They are laid where the key shape looks for them.
 */
text *
esync_key_from_texts(EsyncTracked *t, char **texts, Datum *values)
{
	int			natts = 0;
	Datum	   *datums;
	bool	   *nulls;

	for (int k = 0; k < t->nkeys; k++)
		natts = Max(natts, t->keyattnums[k]);
	datums = palloc0(natts * sizeof(Datum));
	nulls = palloc0(natts * sizeof(bool));
	for (int k = 0; k < t->nkeys; k++)
	{
		if (texts[k] == NULL)
			key_does_not_fit(t);
		datums[t->keyattnums[k] - 1] = read_key_value(t, k, texts[k]);
		if (values)
			values[k] = datums[t->keyattnums[k] - 1];
	}
	return esync_encode_key(t->key, datums, nulls);
}

/* A JSON scalar as the text that a type's input function takes; NULL for null. */
static char *
scalar_text(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		default:
			return JsonbToCString(NULL, v->val.binary.data, v->val.binary.len);
	}
}

/* Splits a composite key given as JSON array or object into texts. */
static void
split_json(EsyncTracked *t, const JsonbContainer *json, char **texts)
{
	JsonbValue	v;

	if (esync_json_count(json) != t->nkeys || JsonContainerIsScalar(json))
		key_does_not_fit(t);
	for (int k = 0; k < t->nkeys; k++)
	{
		const char *name = t->fields[t->keyfields[k]].name;

		if (JsonContainerIsArray(json))
			esync_json_element(json, k, &v);
		else if (!esync_json_member(json, name, strlen(name), &v))
			key_does_not_fit(t);
		texts[k] = scalar_text(&v);
	}
}

/*
 * The aggregate_id of a key given as text: the value itself, or for several
 * columns a JSON array (as aggregate_id is) or object.
 */
text *
esync_key_from_text(EsyncTracked *t, text *arg, Datum *values)
{
	char	   *string = text_to_cstring(arg);
	char	  **texts = palloc0(t->nkeys * sizeof(char *));

	if (t->nkeys == 1)
		texts[0] = string;
	else
	{
		const char *p = string + strspn(string, " \t\r\n");

		if (*p != '[' && *p != '{')
			key_does_not_fit(t);
		split_json(t, &DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(string)))->root,
				   texts);
	}
	return esync_key_from_texts(t, texts, values);
}

/*
 * The datums of an aggregate_id; false where the key's type cannot read it any
 * more, an enum without that label, say: then there is no row of that key.
 */
bool
esync_key_values(EsyncTracked *t, text *aggregate_id, Datum *values)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool fits = true;

	for (int k = 0; k < t->nkeys; k++)
		if (get_typtype(t->fields[t->keyfields[k]].typid) == TYPTYPE_DOMAIN)
		{
			/* its checks may run anything: not to be caught without a savepoint */
			(void) esync_key_from_text(t, aggregate_id, values);
			return true;
		}
	PG_TRY();
	{
		(void) esync_key_from_text(t, aggregate_id, values);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		fits = false;
	}
	PG_END_TRY();
	return fits;
}

/* A datum of any type as text, by its output function. */
static char *
datum_text(Datum value, Oid typid)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(typid, &output, &varlena);
	return OidOutputFunctionCall(output, value);
}

/* Splits ROW(...) into the texts of its columns. */
static void
split_row(EsyncTracked *t, HeapTupleHeader row, char **texts)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
											  HeapTupleHeaderGetTypMod(row));
	HeapTupleData tuple = {0};
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));

	if (desc->natts != t->nkeys)
		key_does_not_fit(t);
	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	tuple.t_data = row;
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int k = 0; k < t->nkeys; k++)
		texts[k] = nulls[k] ? NULL : datum_text(values[k], TupleDescAttr(desc, k)->atttypid);
	ReleaseTupleDesc(desc);
}

/*
 * The aggregate_id of a key given as a value of whatever type: the key
 * column's own, one that prints alike, an untyped literal, or ROW(...).
 */
text *
esync_key_from_any(EsyncTracked *t, Datum arg, Oid argtype, Datum *values)
{
	char	  **texts = palloc0(t->nkeys * sizeof(char *));

	if (argtype == UNKNOWNOID)
		return esync_key_from_text(t, cstring_to_text(DatumGetCString(arg)), values);
	if (argtype == TEXTOID || argtype == VARCHAROID)
		return esync_key_from_text(t, DatumGetTextPP(arg), values);
	if (argtype == JSONBOID && t->nkeys > 1)
		split_json(t, &DatumGetJsonbP(arg)->root, texts);
	else if (type_is_rowtype(argtype))
		split_row(t, DatumGetHeapTupleHeader(arg), texts);
	else if (t->nkeys == 1)
		texts[0] = datum_text(arg, argtype);
	else
		key_does_not_fit(t);
	return esync_key_from_texts(t, texts, values);
}

/* The values of a key as a JSON object. */
static Jsonb *
object_of(EsyncTracked *t, const Datum *values)
{
	EsyncMember *members = palloc(t->nkeys * sizeof(EsyncMember));

	for (int k = 0; k < t->nkeys; k++)
	{
		members[k].key = t->fields[t->keyfields[k]].name;
		members[k].keylen = strlen(members[k].key);
		esync_encode_value(t->key, k, values[k], false, &members[k].value);
	}
	return esync_json_object(t->nkeys, members);
}

/*
 * The key as a JSON object, members typed as in the row: {"block_id": "..."}.
 * The aggregate_id must be a canonical one.
 */
Jsonb *
esync_key_object(EsyncTracked *t, text *aggregate_id)
{
	Datum	   *values = palloc(t->nkeys * sizeof(Datum));

	esync_key_from_text(t, aggregate_id, values);
	return object_of(t, values);
}

/* The same; NULL where the key's type cannot read it any more. */
Jsonb *
esync_key_object_if_any(EsyncTracked *t, text *aggregate_id)
{
	Datum	   *values = palloc(t->nkeys * sizeof(Datum));

	return esync_key_values(t, aggregate_id, values) ? object_of(t, values) : NULL;
}

PG_FUNCTION_INFO_V1(esync_key_as_object);
PG_FUNCTION_INFO_V1(esync_key_canonical);
PG_FUNCTION_INFO_V1(esync_key_names);

/* esync.key_object(tbl, key text) */
Datum
esync_key_as_object(PG_FUNCTION_ARGS)
{
	EsyncTracked *t = esync_tracked_need(PG_GETARG_OID(0));

	PG_RETURN_JSONB_P(esync_key_object(t, esync_key_from_text(t, PG_GETARG_TEXT_PP(1), NULL)));
}

/* esync.aggregate_id(tbl, key text): the canonical form of a key */
Datum
esync_key_canonical(PG_FUNCTION_ARGS)
{
	EsyncTracked *t = esync_tracked_need(PG_GETARG_OID(0));

	PG_RETURN_TEXT_P(esync_key_from_text(t, PG_GETARG_TEXT_PP(1), NULL));
}

/*
 * esync.key_columns(tbl): the columns of the key by their present names, in key
 * order; NULL where the table is not tracked, or a column of its key is gone.
 */
Datum
esync_key_names(PG_FUNCTION_ARGS)
{
	EsyncTracked *t = esync_tracked_get(PG_GETARG_OID(0));
	Datum	   *names;

	if (t == NULL || !t->is_root || t->broken)
		PG_RETURN_NULL();
	names = palloc(t->nkeys * sizeof(Datum));
	for (int k = 0; k < t->nkeys; k++)
		names[k] = DirectFunctionCall1(namein, CStringGetDatum(t->fields[t->keyfields[k]].name));
	PG_RETURN_ARRAYTYPE_P(construct_array(names, t->nkeys, NAMEOID, NAMEDATALEN, false,
										  TYPALIGN_CHAR));
}
