/*
 * suggest.c: what a field might well hold: esync_suggest.
 *
 * The values are those that the field's track has.  What speaks for each is
 * counted: authors, by the word that each said last, the other living rows of
 * the table that hold the value, and for numbers how near it lies to their
 * median.  Tracks are read as field_history reads them, and the table is asked
 * as the caller, so grants and row policies decide what is counted.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "conflict.h"

/* rows that a cursor gives at a time */
#define BATCH 1000

/* fewer numbers than these have no median worth a word */
#define FEW 3

/* what an author whose edit somebody replaced who had seen it weighs, beside 1 */
#define REPLACED_WEIGHT 0.5

/* one edit of the field, with its value as a document */
typedef struct Said
{
	Jsonb	   *value;
	int			bar;			/* index into the bars: their order is that of edits */
	bool		last;			/* its author has said nothing since; false where there is none */
} Said;

/* a value, and what speaks for it */
typedef struct Candidate
{
	Jsonb	   *value;
	int			first;			/* its edits, in the sorted list, */
	int			n;				/* and how many */
	bool		shown;			/* the field shows it */
	bool		disputed;		/* it is a contender's in an open conflict */
	int			authors;		/* whose last word it is */
	int64		rows;			/* other living rows that hold it */
	bool		measured;		/* it is a number, and so are others: */
	Numeric		distance;		/* from their median */
	double		confidence;
} Candidate;

typedef struct Suggest
{
	EsyncReading reading;
	int			field;
	EsyncBars  *bars;
	EsyncMarks *marks;
	Said	   *said;			/* by value, then newest first */
	int			ncandidates;
	Candidate  *candidates;		/* by value */
	int			authors;		/* that said anything */
	double		weight;			/* of all of them */
	int64		rows;			/* other rows that were counted, */
	int64		held;			/* of which so many hold a candidate */
	int64		numbers;		/* so many have a number */
	Numeric		median;
	Numeric		usual;			/* half of them lie no further from it */
} Suggest;

/* --------------------------------------------------------- who said what */

/* For qsort: by value, newest first. */
static int
compare_said(const void *a, const void *b)
{
	const Said *x = a;
	const Said *y = b;
	int			order = compareJsonbContainers(&x->value->root, &y->value->root);

	return order != 0 ? order : y->bar - x->bar;
}

/* The author of an edit; NULL where it is nobody's own word. */
static text *
author_of(const Suggest *s, int bar)
{
	const EsyncEvent *event = &s->reading.events->e[s->bars->bar[bar].event];
	JsonbValue	found;

	if (event->type == ESYNC_BASELINE || (event->flags & ESYNC_FLAG_DERIVED))
		return NULL;
	/* a policy's decision, and what an undo left, nobody said */
	if (event->type == ESYNC_RESOLVED && event->meta && JB_ROOT_IS_OBJECT(event->meta) &&
		(esync_json_member(&event->meta->root, "policy", 6, &found) ||
		 esync_json_member(&event->meta->root, "undoes", 6, &found)))
		return NULL;
	return event->user_id ? event->user_id : event->device_id;
}

/* For qsort_arg: edits by author, the newest first. */
static int
compare_authors(const void *a, const void *b, void *arg)
{
	text	   *const *authors = arg;
	int			x = *(const int *) a;
	int			y = *(const int *) b;
	int			order = esync_key_cmp(VARDATA_ANY(authors[x]), VARSIZE_ANY_EXHDR(authors[x]),
									  VARDATA_ANY(authors[y]), VARSIZE_ANY_EXHDR(authors[y]));

	return order != 0 ? order : y - x;
}

/* Marks the last word of each author, in the order of edits. */
static void
mark_last_words(Suggest *s)
{
	text	  **authors = palloc(sizeof(text *) * Max(s->bars->n, 1));
	int		   *order = palloc(sizeof(int) * Max(s->bars->n, 1));
	int			n = 0;

	for (int i = 0; i < s->bars->n; i++)
		if (s->bars->bar[i].field == s->field && (authors[i] = author_of(s, i)) != NULL)
			order[n++] = i;
	qsort_arg(order, n, sizeof(int), compare_authors, authors);
	for (int i = 0; i < n; i++)
	{
		const text *mine = authors[order[i]];
		const text *before = i == 0 ? NULL : authors[order[i - 1]];

		if (before == NULL ||
			esync_key_cmp(VARDATA_ANY(mine), VARSIZE_ANY_EXHDR(mine),
						  VARDATA_ANY(before), VARSIZE_ANY_EXHDR(before)) != 0)
			s->said[order[i]].last = true;
	}
}

/* Makes candidates of the edits: one a value. */
static void
make_candidates(Suggest *s)
{
	int			n = 0;

	s->said = palloc0(sizeof(Said) * Max(s->bars->n, 1));
	mark_last_words(s);
	for (int i = 0; i < s->bars->n; i++)
	{
		const EsyncBar *bar = &s->bars->bar[i];

		if (bar->field != s->field || !bar->has_value)
			continue;
		s->said[n] = (Said) {esync_json_from_value(&bar->value), i, s->said[i].last};
		n++;
	}
	qsort(s->said, n, sizeof(Said), compare_said);
	s->candidates = palloc0(sizeof(Candidate) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		const EsyncBar *bar = &s->bars->bar[s->said[i].bar];
		Candidate  *c = &s->candidates[s->ncandidates - 1];

		if (i == 0 || compareJsonbContainers(&c->value->root, &s->said[i].value->root) != 0)
		{
			c = &s->candidates[s->ncandidates++];
			c->value = s->said[i].value;
			c->first = i;
		}
		c->n++;
		c->authors += s->said[i].last;
		c->shown |= bar->current;
		c->disputed |= esync_ledger_verdict(s->marks, s->reading.tracked, s->field,
											s->reading.events->e[bar->event].event_id) ==
			ESYNC_VERDICT_CONFLICT;
	}
}

/* ------------------------------------------------------- what others hold */

/* a query about the other rows, with its parameters */
typedef struct Others
{
	StringInfoData query;
	int			n;
	Oid			types[INDEX_MAX_KEYS + 1];
	Datum		values[INDEX_MAX_KEYS + 1];
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
append_tenant(const Suggest *s, Others *o)
{
	EsyncTracked *t = s->reading.tracked;
	const EsyncField *f = &t->fields[t->tenant_field];
	JsonbValue	value;
	EsyncFold	fold;
	Datum		tenant;
	bool		isnull;

	esync_fold_init(&fold, t->fields, t->nfields, t->tombstone_field);
	for (int i = 0; i < s->reading.events->n; i++)
		esync_fold_add(&fold, &s->reading.events->e[i], i);
	if (!esync_fold_value(&fold, t->tenant_field, &value))
		return false;
	appendStringInfoString(&o->query, " AND ");
	esync_decode_value(t->tenant_shape, 0, &value, &tenant, &isnull);
	if (!isnull)
		return append_equal(o, f, tenant);
	appendStringInfo(&o->query, "%s IS NULL", quote_identifier(f->name));
	return true;
}

/*
 * SELECT expression FROM the other living rows of the row's tenant.  False
 * where the caller may not ask for that, or nothing can be told.
 */
static bool
others_query(const Suggest *s, const char *expression, Others *o)
{
	EsyncTracked *t = s->reading.tracked;
	const EsyncRights *rights = &s->reading.rights;

	o->n = 0;
	if (!esync_rights_key(t, rights) ||
		(t->tombstone_field >= 0 && !esync_rights_field(rights, &t->fields[t->tombstone_field])) ||
		(t->tenant_field >= 0 && !esync_rights_field(rights, &t->fields[t->tenant_field])))
		return false;
	initStringInfo(&o->query);
	appendStringInfo(&o->query, "%s WHERE NOT (", esync_rights_query(t, expression, false));
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
static Candidate *
find_candidate(const Suggest *s, Jsonb *value)
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
count_row(Suggest *s, EsyncShape *shape, HeapTuple tuple, TupleDesc desc)
{
	Candidate  *c;
	JsonbValue	value;
	Datum		datum;
	bool		isnull;

	datum = heap_getattr(tuple, 1, desc, &isnull);
	esync_encode_value(shape, 0, datum, isnull, &value);
	c = find_candidate(s, esync_json_from_value(&value));
	s->rows++;
	if (c != NULL)
	{
		c->rows++;
		s->held++;
	}
}

/* Counts the other rows that hold each of the values: reads the table once. */
static void
count_rows(Suggest *s)
{
	const EsyncField *f = &s->reading.tracked->fields[s->field];
	EsyncAttr	attr = {f->name, 1, f->typid, f->typmod, false};
	EsyncShape *shape = esync_shape_make(CurrentMemoryContext, &attr, 1);
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(old, "esync other rows", ALLOCSET_DEFAULT_SIZES);
	Portal		cursor;
	Others		o;

	if (!others_query(s, quote_identifier(f->name), &o))
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

/* Is it a type of numbers? */
static bool
is_number(Oid typid)
{
	switch (getBaseType(typid))
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
			return true;
		default:
			return false;
	}
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

/* The median of the other rows' numbers, and how far half of them lie from it. */
static void
find_median(Suggest *s)
{
	const EsyncField *f = &s->reading.tracked->fields[s->field];
	MemoryContext cxt = CurrentMemoryContext;
	bool		isnull;
	Others		o;

	if (!is_number(f->typid) ||
		!others_query(s, psprintf("%s::pg_catalog.numeric AS v", quote_identifier(f->name)), &o))
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

/* ------------------------------------------------------------ what it weighs */

/* A value as a number to be reckoned with; NULL: it is none. */
static Numeric
number_of(const Jsonb *value)
{
	JsonbValue	v;

	esync_json_root(value, &v);
	return v.type == jbvNumeric ? v.val.numeric : NULL;
}

static double
as_double(Numeric n)
{
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(n)));
}

/* What one author of this value weighs. */
static double
weight_of(const Candidate *c)
{
	return c->shown || c->disputed ? 1 : REPLACED_WEIGHT;
}

/* How near a value is to the median: 1 for the median, 1/2 where half of the rows lie further. */
static double
nearness(const Suggest *s, const Candidate *c)
{
	double		usual = as_double(s->usual);
	double		distance = as_double(c->distance);

	if (distance == 0)
		return 1;
	return usual == 0 ? 0 : 1 / (1 + distance / usual);
}

/*
 * The mean of what can be told: the share of authors, the share of rows, and
 * the nearness.  What tells nothing of any candidate is left out.
 */
static void
weigh(const Suggest *s, Candidate *c)
{
	double		sum = 0;
	int			n = 0;

	if (s->weight > 0)
	{
		sum += c->authors * weight_of(c) / s->weight;
		n++;
	}
	if (s->held > 0)
	{
		sum += (double) c->rows / s->rows;
		n++;
	}
	if (c->measured)
	{
		sum += nearness(s, c);
		n++;
	}
	c->confidence = n == 0 ? 0 : rint(sum / n * 10000) / 10000;
}

/* Measures and weighs all candidates. */
static void
weigh_all(Suggest *s)
{
	bool		median = s->numbers >= FEW && s->median != NULL && s->usual != NULL;

	for (int i = 0; i < s->ncandidates; i++)
	{
		Candidate  *c = &s->candidates[i];
		Numeric		number = number_of(c->value);

		s->authors += c->authors;
		s->weight += c->authors * weight_of(c);
		if (!median || number == NULL)
			continue;
		c->measured = true;
		c->distance = DatumGetNumeric(DirectFunctionCall1(numeric_abs,
			DirectFunctionCall2(numeric_sub, NumericGetDatum(number), NumericGetDatum(s->median))));
	}
	for (int i = 0; i < s->ncandidates; i++)
		weigh(s, &s->candidates[i]);
}

/* For qsort_arg: the greatest confidence first, then what was said last. */
static int
compare_candidates(const void *a, const void *b, void *arg)
{
	const Candidate *x = a;
	const Candidate *y = b;
	const Said *said = arg;

	if (x->confidence != y->confidence)
		return x->confidence > y->confidence ? -1 : 1;
	return said[y->first].bar - said[x->first].bar;
}

/* ---------------------------------------------------------------- the answer */

/* A number without zeros behind its last digit. */
static char *
number_text(Numeric n)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
		DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(n))));
}

/* What speaks for a value, as a sentence with the figures in it. */
static text *
reason_of(const Suggest *s, const Candidate *c)
{
	StringInfoData r;

	initStringInfo(&r);
	appendStringInfoString(&r, c->shown && c->disputed ? "Shown, in dispute" : c->shown ? "Shown" :
						   c->disputed ? "In dispute" : "Replaced since");
	if (s->authors > 0)
		appendStringInfo(&r, "; %d of %d author%s said so last%s", c->authors, s->authors,
						 s->authors == 1 ? "" : "s",
						 c->authors > 0 && weight_of(c) < 1 ? ", counted half" : "");
	if (s->rows > 0)
		appendStringInfo(&r, "; " INT64_FORMAT " of " INT64_FORMAT " other row%s%s hold it",
						 c->rows, s->rows, s->rows == 1 ? "" : "s",
						 s->reading.tracked->tenant_field >= 0 ? " of the tenant" : "");
	if (c->measured)
		appendStringInfo(&r, "; %s away from their median %s, where half of them lie within %s",
						 number_text(c->distance), number_text(s->median), number_text(s->usual));
	appendStringInfoChar(&r, '.');
	return cstring_to_text_with_len(r.data, r.len);
}

/* Sets a member of an object; the value is the caller's to fill in. */
static JsonbValue *
set_member(EsyncMember *member, const char *key)
{
	member->key = key;
	member->keylen = strlen(key);
	member->value.type = jbvNull;
	return &member->value;
}

static void
set_text(JsonbValue *value, text *string)
{
	if (string == NULL)
		return;
	value->type = jbvString;
	value->val.string.val = VARDATA_ANY(string);
	value->val.string.len = VARSIZE_ANY_EXHDR(string);
}

static void
set_int64(JsonbValue *value, int64 number)
{
	value->type = jbvNumeric;
	value->val.numeric = int64_to_numeric(number);
}

/* An edit that set the value. */
static Jsonb *
source_of(const Suggest *s, int bar)
{
	const EsyncEvent *event = &s->reading.events->e[s->bars->bar[bar].event];
	const char *status = esync_history_status(&s->reading, s->marks, &s->bars->bar[bar]);
	EsyncMember members[6];

	set_int64(set_member(&members[0], "event_id"), event->event_id);
	set_int64(set_member(&members[1], "version"), event->version);
	set_text(set_member(&members[2], "user_id"), event->user_id);
	set_text(set_member(&members[3], "device_id"), event->device_id);
	esync_json_time(event->submit, set_member(&members[4], "submit_timestamp"));
	set_text(set_member(&members[5], "status"), cstring_to_text(status));
	return esync_json_object(lengthof(members), members);
}

/* All edits that set the value, newest first. */
static Jsonb *
sources_of(const Suggest *s, const Candidate *c)
{
	EsyncJson	json;

	esync_json_init(&json, 200 * c->n + 64);
	esync_json_open_array(&json, c->n);
	for (int i = 0; i < c->n; i++)
	{
		JsonbValue	v;

		esync_json_root(source_of(s, s->said[c->first + i].bar), &v);
		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

PG_FUNCTION_INFO_V1(esync_suggest);

/* esync_suggest(tbl regclass, key text, field name) */
Datum
esync_suggest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Suggest		s = {0};
	const EsyncField *f;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(2) || !esync_history_open(fcinfo, true, ESYNC_WANT_EDITS, &s.reading))
		return (Datum) 0;
	s.field = esync_history_field(&s.reading, PG_GETARG_NAME(2));
	f = &s.reading.tracked->fields[s.field];
	if (s.reading.rls_hidden || f->masked)
		return (Datum) 0;

	s.bars = esync_history_bars(&s.reading, s.field);
	s.marks = esync_ledger_marks(&s.reading);
	make_candidates(&s);
	if (s.ncandidates == 0)
		return (Datum) 0;
	if (f->attnum != 0)
	{
		count_rows(&s);
		find_median(&s);
	}
	weigh_all(&s);
	qsort_arg(s.candidates, s.ncandidates, sizeof(Candidate), compare_candidates, s.said);
	for (int i = 0; i < s.ncandidates; i++)
	{
		const Candidate *c = &s.candidates[i];
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = JsonbPGetDatum(c->value);
		values[1] = Float8GetDatum(c->confidence);
		values[2] = PointerGetDatum(reason_of(&s, c));
		values[3] = Int64GetDatum(c->authors + c->rows);
		values[4] = JsonbPGetDatum(sources_of(&s, c));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
