/*
 * others.c: what the other rows of a table hold, for esync_suggest.
 *
 * The table is asked through SPI as the caller, so grants and row policies
 * decide what is counted.  Values are encoded as the stream has them, and looked
 * up among the candidates, so that no type needs an equality.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "suggest.h"

/* rows that a cursor gives at a time */
#define BATCH 1000

/* a query about the other rows, with its parameters: path, key, tenant */
typedef struct Others
{
	StringInfoData query;
	int			n;
	Oid			types[INDEX_MAX_KEYS + 2];
	Datum		values[INDEX_MAX_KEYS + 2];
} Others;

/* Appends "column = $n"; false if the type has no equality. */
static bool
append_equal(Others *o, const EsyncField *f, Datum value)
{
	Oid			eq = lookup_type_cache(f->typid, TYPECACHE_EQ_OPR)->eq_opr;

	if (!OidIsValid(eq))
		return false;
	o->types[o->n] = f->typid;
	o->values[o->n++] = value;
	generate_operator_clause(&o->query, quote_identifier(f->name), f->typid, eq,
							 psprintf("$%d", o->n), f->typid);
	return true;
}

/* Appends that the tenant is that of the row at hand, as its events have it. */
static bool
append_tenant(const EsyncSuggest *s, Others *o)
{
	EsyncTracked *t = s->reading.tracked;
	const EsyncField *f = &t->fields[t->tenant_field];
	JsonbValue	value;
	Datum		tenant;
	bool		isnull;

	if (!esync_fold_value(&s->fold, t->tenant_field, &value))
		return false;
	appendStringInfoString(&o->query, " AND ");
	esync_decode_value(t->tenant_shape, 0, &value, &tenant, &isnull);
	if (!isnull)
		return append_equal(o, f, tenant);
	appendStringInfo(&o->query, "%s IS NULL", quote_identifier(f->name));
	return true;
}

/*
 * SELECT expressions FROM the other living rows of the row's tenant.  False
 * where the caller may not ask for that, or nothing can be told.
 */
static bool
others_query(const EsyncSuggest *s, const char *expressions, Others *o)
{
	EsyncTracked *t = s->reading.tracked;
	const EsyncRights *rights = &s->reading.rights;

	if (!esync_rights_key(t, rights) ||
		(t->tombstone_field >= 0 && !esync_rights_field(rights, &t->fields[t->tombstone_field])) ||
		(t->tenant_field >= 0 && !esync_rights_field(rights, &t->fields[t->tenant_field])))
		return false;
	initStringInfo(&o->query);
	appendStringInfo(&o->query, "%s WHERE NOT (", esync_rights_query(t, expressions, false));
	for (int k = 0; k < t->nkeys; k++)
	{
		appendStringInfoString(&o->query, k ? " AND " : "");
		if (!append_equal(o, &t->fields[t->keyfields[k]], s->reading.key[k]))
			return false;
	}
	appendStringInfoChar(&o->query, ')');
	if (t->tombstone_field >= 0)
		appendStringInfo(&o->query, " AND %s IS NULL",
						 quote_identifier(t->fields[t->tombstone_field].name));
	return t->tenant_field < 0 || append_tenant(s, o);
}

/* The candidate with this value; NULL: none. */
static EsyncCandidate *
find_candidate(const EsyncSuggest *s, Jsonb *value)
{
	int			low = 0;
	int			high = s->ncandidates;

	while (low < high)
	{
		int			mid = (low + high) / 2;
		int			order = compareJsonbContainers(&s->candidates[mid].value->root, &value->root);

		if (order == 0)
			return &s->candidates[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* Counts one other row. */
static void
count_row(EsyncSuggest *s, EsyncShape *shape, HeapTuple tuple, TupleDesc desc)
{
	JsonbValue *columns = palloc(s->nfields * sizeof(JsonbValue));
	bool	   *known = palloc(s->nfields * sizeof(bool));
	EsyncCandidate *c;

	for (int k = 0; k < s->nfields; k++)
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, k + 1, desc, &isnull);

		esync_encode_value(shape, k, datum, isnull, &columns[k]);
		known[k] = true;
	}
	c = find_candidate(s, esync_suggest_value(s, columns, known));
	s->rows++;
	if (c != NULL)
	{
		c->rows++;
		s->held++;
	}
}

/* The columns of the place as a list; how they are encoded goes to *shape. */
static char *
column_list(const EsyncSuggest *s, EsyncShape **shape)
{
	EsyncAttr  *attrs = palloc(s->nfields * sizeof(EsyncAttr));
	StringInfoData list;

	initStringInfo(&list);
	for (int k = 0; k < s->nfields; k++)
	{
		const EsyncField *f = &s->reading.tracked->fields[s->fields[k]];

		attrs[k] = (EsyncAttr) {f->name, k + 1, f->typid, f->typmod, false};
		appendStringInfo(&list, "%s%s", k ? ", " : "", quote_identifier(f->name));
	}
	*shape = esync_shape_make(CurrentMemoryContext, attrs, s->nfields);
	return list.data;
}

/* Counts the other rows that hold each of the candidates: reads the table once. */
void
esync_others_count(EsyncSuggest *s)
{
	EsyncShape *shape;
	char	   *columns = column_list(s, &shape);
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(old, "esync other rows", ALLOCSET_DEFAULT_SIZES);
	Portal		cursor;
	Others		o = {.n = 0};

	if (!others_query(s, columns, &o))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	cursor = SPI_cursor_open_with_args(NULL, o.query.data, o.n, o.types, o.values, NULL, true, 0);
	do
	{
		SPI_cursor_fetch(cursor, true, BATCH);
		MemoryContextSwitchTo(cxt);
		for (uint64 i = 0; i < SPI_processed; i++)
			count_row(s, shape, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	} while (SPI_processed > 0);
	SPI_cursor_close(cursor);
	SPI_finish();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* The tokens of a path as a text array. */
static Datum
path_tokens(const char *path)
{
	Datum	   *tokens = palloc(strlen(path) * sizeof(Datum));
	int			n = 0;

	while (*path)
	{
		int			len = 1 + strcspn(path + 1, "/");
		char	   *token = palloc(len + 1);
		int			tokenlen = esync_pointer_token(path, len, token);

		tokens[n++] = PointerGetDatum(cstring_to_text_with_len(token, Max(tokenlen, 0)));
		path += len;
	}
	return PointerGetDatum(construct_array(tokens, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * The place as an expression "... AS v" that gives numbers: a column of numbers,
 * or what is a number in a jsonb column; NULL: it gives none.
 */
static char *
number_expression(const EsyncSuggest *s, Others *o)
{
	const EsyncField *f = &s->reading.tracked->fields[s->fields[0]];
	const char *name = quote_identifier(f->name);

	if (s->place.field < 0)
		return NULL;
	switch (getBaseType(f->typid))
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
			return psprintf("%s::pg_catalog.numeric AS v", name);
		case JSONBOID:
			break;
		default:
			return NULL;
	}
	name = psprintf("%s::pg_catalog.jsonb", name);
	if (*s->place.path)
	{
		o->types[o->n] = TEXTARRAYOID;
		o->values[o->n++] = path_tokens(s->place.path);
		name = psprintf("(%s OPERATOR(pg_catalog.#>) $1)", name);
	}
	return psprintf("CASE WHEN pg_catalog.jsonb_typeof(%s) OPERATOR(pg_catalog.=) 'number'"
					" THEN (%s)::pg_catalog.numeric END AS v", name, name);
}

/* A number of the row that SPI found, kept; NULL: none, or none to reckon with. */
static Numeric
found_number(int column, MemoryContext cxt)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
	MemoryContext old;
	Numeric		result;

	if (isnull || numeric_is_nan(DatumGetNumeric(value)) || numeric_is_inf(DatumGetNumeric(value)))
		return NULL;
	old = MemoryContextSwitchTo(cxt);
	result = DatumGetNumericCopy(value);
	MemoryContextSwitchTo(old);
	return result;
}

/* Finds the median of the other rows' numbers, and how far half of them lie from it. */
void
esync_others_median(EsyncSuggest *s)
{
	MemoryContext cxt = CurrentMemoryContext;
	Others		o = {.n = 0};
	char	   *numbers = number_expression(s, &o);
	bool		isnull;

	if (numbers == NULL || !others_query(s, numbers, &o))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	o.query.data = psprintf(
		"WITH others AS MATERIALIZED (%s), m AS (SELECT pg_catalog.count(v) AS n,"
		" pg_catalog.percentile_disc(0.5) WITHIN GROUP (ORDER BY v) AS median FROM others)"
		" SELECT n, median, (SELECT pg_catalog.percentile_disc(0.5) WITHIN GROUP"
		" (ORDER BY pg_catalog.abs(v OPERATOR(pg_catalog.-) median)) FROM others) FROM m",
		o.query.data);
	if (SPI_execute_with_args(o.query.data, o.n, o.types, o.values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "reading the numbers of \"%s\" failed", s->reading.tracked->table_name);
	s->numbers = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	s->median = found_number(2, cxt);
	s->usual = found_number(3, cxt);
	SPI_finish();
}
