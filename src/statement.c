/*
 * statement.c: the statements by which apply.c changes users' tables.
 *
 * Made of names as they are now, prepared once (plans.c), and run as the caller.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "merge.h"

/* "schema"."table", with ONLY unless it is partitioned. */
void
esync_statement_table(StringInfo query, const EsyncTracked *t)
{
	appendStringInfo(query, "%s%s",
					 get_rel_relkind(t->root) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 esync_tracked_name(t));
}

/* " WHERE key = $first ..." */
void
esync_statement_key(StringInfo query, const EsyncTracked *t, int first)
{
	for (int k = 0; k < t->nkeys; k++)
	{
		const EsyncField *f = &t->fields[t->keyfields[k]];

		appendStringInfoString(query, k ? " AND " : " WHERE ");
		generate_operator_clause(query, quote_identifier(f->name), f->typid,
								 lookup_type_cache(f->typid, TYPECACHE_EQ_OPR)->eq_opr,
								 psprintf("$%d", first + k), f->typid);
	}
}

/* Runs a statement on the row as the caller; how many rows it changed or found. */
uint64
esync_statement_run(const char *query, int nargs, Oid *types, Datum *values, const char *nulls)
{
	MemoryContext cxt = CurrentMemoryContext;
	SPIPlanPtr	plan = esync_plan(query, nargs, types);
	int			rc = SPI_execute_plan(plan, values, nulls, false, 0);

	MemoryContextSwitchTo(cxt); /* SPI leaves its own */
	if (rc < 0)
		elog(ERROR, "executing \"%s\" failed: %s", query, SPI_result_code_string(rc));
	return SPI_processed;
}

/* Parameters of a statement: columns that the merge sets, then the key. */
typedef struct Parameters
{
	int			n;
	Datum	   *values;
	Oid		   *types;
	char	   *nulls;
} Parameters;

static void
add_parameter(Parameters *p, const EsyncField *f, Datum value, bool isnull)
{
	p->values[p->n] = value;
	p->types[p->n] = f->typid;
	p->nulls[p->n++] = isnull ? 'n' : ' ';
}

static Parameters
make_parameters(const EsyncTracked *t)
{
	Parameters	p = {0};
	int			n = t->nfields + t->nkeys + 1;

	p.values = palloc(n * sizeof(Datum));
	p.types = palloc(n * sizeof(Oid));
	p.nulls = palloc0(n + 1);
	return p;
}

static void
add_key(Parameters *p, const EsyncTracked *t, Datum *key)
{
	for (int k = 0; k < t->nkeys; k++)
		add_parameter(p, &t->fields[t->keyfields[k]], key[k], false);
}

/* UPDATE of the columns that the merge sets. */
uint64
esync_statement_update(const EsyncTracked *t, Datum *key, const EsyncIntent *in)
{
	Parameters	p = make_parameters(t);
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "UPDATE ");
	esync_statement_table(&query, t);
	for (int i = 0; i < t->nfields; i++)
	{
		if (!in->set[i])
			continue;
		appendStringInfo(&query, "%s%s = $%d", p.n ? ", " : " SET ",
						 quote_identifier(t->fields[i].name), p.n + 1);
		add_parameter(&p, &t->fields[i], in->values[i], in->isnull[i]);
	}
	esync_statement_key(&query, t, p.n + 1);
	add_key(&p, t, key);
	return esync_statement_run(query.data, p.n, p.types, p.values, p.nulls);
}

/* INSERT of the key and the columns that the merge sets; the others take their defaults. */
uint64
esync_statement_insert(const EsyncTracked *t, Datum *key, const EsyncIntent *in)
{
	Parameters	p = make_parameters(t);
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfo(&query, "INSERT INTO %s (", esync_tracked_name(t));
	for (int k = 0; k < t->nkeys; k++)
	{
		const EsyncField *f = &t->fields[t->keyfields[k]];

		if (f->generated)
			continue;
		appendStringInfo(&query, "%s%s", p.n ? ", " : "", quote_identifier(f->name));
		add_parameter(&p, f, key[k], false);
	}
	for (int i = 0; i < t->nfields; i++)
	{
		if (!in->set[i])
			continue;
		appendStringInfo(&query, "%s%s", p.n ? ", " : "", quote_identifier(t->fields[i].name));
		add_parameter(&p, &t->fields[i], in->values[i], in->isnull[i]);
	}
	appendStringInfoString(&query, ") OVERRIDING SYSTEM VALUE VALUES (");
	for (int i = 0; i < p.n; i++)
		appendStringInfo(&query, "%s$%d", i ? ", " : "", i + 1);
	appendStringInfoChar(&query, ')');
	return esync_statement_run(query.data, p.n, p.types, p.values, p.nulls);
}

/* DELETE of the row. */
uint64
esync_statement_delete(const EsyncTracked *t, Datum *key)
{
	Parameters	p = make_parameters(t);
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "DELETE FROM ");
	esync_statement_table(&query, t);
	esync_statement_key(&query, t, 1);
	add_key(&p, t, key);
	return esync_statement_run(query.data, p.n, p.types, p.values, p.nulls);
}
