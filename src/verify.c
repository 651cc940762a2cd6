/*
 * verify.c: what is wrong between a table, its triggers and its stream.
 *
 * First the table as a whole (triggers, key, index), then one pass over the
 * stream in the order of its index: the events of each aggregate among
 * themselves, and their fold against the row that the caller finds under the
 * key; last the ledger against the stream.  Memory does not grow with the table.  Table and stream are read under
 * one snapshot.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/partcache.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "conflict.h"

PG_FUNCTION_INFO_V1(esync_verify);

typedef struct Verify
{
	EsyncTracked *t;
	EsyncRights rights;
	ReturnSetInfo *rsinfo;
	EsyncFold	fold;
	SPIPlanPtr	plan;			/* the row of a key; NULL until the first aggregate */
	Datum	   *values;			/* of that row, by attnum */
	bool	   *nulls;
} Verify;

/* ---------------------------------------------------------------- findings */

/* Puts out one problem; aggregate_id NULL: of the table as a whole. */
static void
put_problem(Verify *v, text *aggregate_id, const char *problem, Jsonb *detail)
{
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = PointerGetDatum(aggregate_id);
	nulls[0] = aggregate_id == NULL;
	values[1] = CStringGetTextDatum(problem);
	values[2] = JsonbPGetDatum(detail);
	tuplestore_putvalues(v->rsinfo->setResult, v->rsinfo->setDesc, values, nulls);
}

/* A member of a detail. */
static EsyncMember
string_member(const char *key, const char *string)
{
	EsyncMember m = {.key = key, .keylen = strlen(key)};

	m.value.type = jbvString;
	m.value.val.string.val = unconstify(char *, string);
	m.value.val.string.len = strlen(string);
	return m;
}

static EsyncMember
int64_member(const char *key, int64 number)
{
	EsyncMember m = {.key = key, .keylen = strlen(key)};

	m.value.type = jbvNumeric;
	m.value.val.numeric = int64_to_numeric(number);
	return m;
}

static EsyncMember
json_member(const char *key, const Jsonb *doc)
{
	EsyncMember m = {.key = key, .keylen = strlen(key)};

	esync_json_root(doc, &m.value);
	return m;
}

static EsyncMember
relation_member(const char *key, Relation rel)
{
	char	   *schema = get_namespace_name(RelationGetNamespace(rel));

	return string_member(key, quote_qualified_identifier(schema, RelationGetRelationName(rel)));
}

/* {"trigger": ..., "relation": ...} */
static Jsonb *
trigger_detail(const char *trigger, Relation rel)
{
	EsyncMember members[2];

	members[0] = string_member("trigger", trigger);
	members[1] = relation_member("relation", rel);
	return esync_json_object(2, members);
}

/* ------------------------------------------------------------- the table */

/* Looks for one trigger of a relation; `missing` is the problem if it is not there. */
static void
check_trigger(Verify *v, Relation rel, const char *name, const char *missing)
{
	const TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (strcmp(trigger->tgname, name) != 0)
			continue;
		if (trigger->tgenabled == TRIGGER_DISABLED ||
			trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			put_problem(v, NULL, "trigger disabled", trigger_detail(name, rel));
		return;
	}
	put_problem(v, NULL, missing, trigger_detail(name, rel));
}

/* The triggers of the table and of all its partitions. */
static void
check_triggers(Verify *v)
{
	List	   *relids = list_make1_oid(v->t->root);
	ListCell   *cell;

	if (get_rel_relkind(v->t->root) == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(v->t->root, AccessShareLock, NULL);
	foreach(cell, relids)
	{
		Relation	rel = table_open(lfirst_oid(cell), AccessShareLock);
		bool		is_root = RelationGetRelid(rel) == v->t->root;

		check_trigger(v, rel, ESYNC_TRIGGER_CAPTURE, "trigger missing");
		check_trigger(v, rel, ESYNC_TRIGGER_TRUNCATE,
					  is_root ? "trigger missing" : "partition without truncate trigger");
		if (v->t->sql_merge)
			check_trigger(v, rel, ESYNC_TRIGGER_MERGE, "trigger missing");
		if (v->t->nstamps > 0)
			check_trigger(v, rel, ESYNC_TRIGGER_STAMP, "trigger missing");
		table_close(rel, AccessShareLock);
	}
}

/* Is this index a whole, immediate, unique one on exactly the key columns? */
static bool
index_is_key(EsyncTracked *t, Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	Form_pg_index form;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	fits = form->indisunique && form->indimmediate && form->indisvalid &&
		form->indnkeyatts == t->nkeys &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	for (int i = 0; fits && i < form->indnkeyatts; i++)
	{
		bool		found = false;

		for (int k = 0; k < t->nkeys; k++)
			found |= form->indkey.values[i] == t->keyattnums[k];
		fits = found;
	}
	ReleaseSysCache(tuple);
	return fits;
}

/* Does the partition key have a column (or expression) that the key leaves out? */
static bool
key_spans_partitions(EsyncTracked *t, Relation rel)
{
	PartitionKey partkey = RelationGetPartitionKey(rel);

	for (int i = 0; partkey != NULL && i < get_partition_natts(partkey); i++)
	{
		bool		found = false;

		for (int k = 0; k < t->nkeys; k++)
			found |= get_partition_col_attnum(partkey, i) == t->keyattnums[k];
		if (!found)
			return true;
	}
	return false;
}

/*
 * Is the key still one?  Where it leaves out the partition key no index can
 * say so, and the owner has vouched for it.
 */
static void
check_key(Verify *v)
{
	Relation	rel = table_open(v->t->root, AccessShareLock);
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = key_spans_partitions(v->t, rel);
	ListCell   *cell;
	StringInfoData columns;
	EsyncMember member;

	foreach(cell, indexes)
		found = found || index_is_key(v->t, lfirst_oid(cell));
	for (int k = 0; k < v->t->nkeys; k++)
		found = found &&
			TupleDescAttr(RelationGetDescr(rel), v->t->keyattnums[k] - 1)->attnotnull;
	table_close(rel, AccessShareLock);
	if (found)
		return;
	initStringInfo(&columns);
	for (int k = 0; k < v->t->nkeys; k++)
		appendStringInfo(&columns, "%s%s", k ? ", " : "",
						 quote_identifier(v->t->fields[v->t->keyfields[k]].name));
	if (v->t->broken)
		appendStringInfoString(&columns, quote_identifier(v->t->broken));
	member = string_member("key", columns.data);
	put_problem(v, NULL, "key changed", esync_json_object(1, &member));
}

/* Is the stream's own index there?  Without it nothing of it can be read. */
static bool
check_index(Verify *v)
{
	Relation	leaf = table_open(v->t->leaf, AccessShareLock);
	bool		found = OidIsValid(esync_leaf_index(leaf));
	EsyncMember members[2];

	if (!found)
	{
		members[0] = relation_member("relation", leaf);
		members[1] = string_member("columns", "aggregate_id, version");
		put_problem(v, NULL, "index missing", esync_json_object(2, members));
	}
	table_close(leaf, AccessShareLock);
	return found;
}

/* --------------------------------------------------------------- the row */

/* The prepared query of the captured columns of one row, as the caller sees it. */
static SPIPlanPtr
row_plan(EsyncTracked *t)
{
	StringInfoData columns;
	SPIPlanPtr	plan;

	initStringInfo(&columns);
	for (int i = 0; i < t->ncolumns; i++)
		appendStringInfo(&columns, "%s%s", i ? ", " : "",
						 quote_identifier(t->fields[t->columns[i].field].name));
	plan = SPI_prepare(esync_rights_query(t, columns.data, true), t->nkeys,
					   esync_rights_key_types(t));
	if (plan == NULL)
		elog(ERROR, "preparing to read \"%s\" failed: %s", t->table_name,
			 SPI_result_code_string(SPI_result));
	return plan;
}

/* The row under a key as JSON in the current context; NULL: none that the caller sees. */
static Jsonb *
table_row(Verify *v, text *aggregate_id)
{
	MemoryContext cxt = CurrentMemoryContext;
	Datum	   *key = palloc(v->t->nkeys * sizeof(Datum));
	Jsonb	   *doc = NULL;

	if (!esync_key_values(v->t, aggregate_id, key))
		return NULL;
	if (SPI_execute_plan(v->plan, key, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "reading \"%s\" failed", v->t->table_name);
	MemoryContextSwitchTo(cxt); /* SPI leaves its own */
	if (SPI_processed > 0)
	{
		for (int i = 0; i < v->t->ncolumns; i++)
		{
			AttrNumber	attnum = v->t->columns[i].attnum;

			v->values[attnum - 1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												  i + 1, &v->nulls[attnum - 1]);
		}
		doc = esync_encode_row(v->t->row, v->values, v->nulls);
	}
	SPI_freetuptable(SPI_tuptable);
	return doc;
}

/* -------------------------------------------------------------- the ledger */

/* Callback: there is one. */
static bool
note_conflict(EsyncConflict *conflict, void *arg)
{
	*(bool *) arg = true;
	return false;
}

/* An aggregate whose last event says that it has open conflicts must have one. */
static void
check_flag(Verify *v, text *aggregate_id, const EsyncEvent *last)
{
	bool		found = false;
	EsyncMember members[3];

	if (!(last->flags & ESYNC_FLAG_CONFLICT))
		return;
	esync_ledger_each(v->t->table_id, aggregate_id, ESYNC_LEDGER_OPEN, 0, GetActiveSnapshot(),
					  note_conflict, &found);
	if (found)
		return;
	members[0] = int64_member("version", last->version);
	members[1] = int64_member("event_id", last->event_id);
	members[2] = int64_member("open", 0);
	put_problem(v, aggregate_id, "ledger differs", esync_json_object(3, members));
}

/* the stream beside one open conflict */
typedef struct Beside
{
	EsyncLedgerContender *contenders;	/* version 0: its event was found */
	int			n;
	bool		any;			/* an event was seen, */
	bool		flag;			/* and the last one says that a conflict is open */
} Beside;

/* Callback: takes an event off the list of those to be found. */
static bool
find_contender(EsyncEvent *event, int index, void *arg)
{
	Beside	   *b = arg;

	if (!b->any)
		b->flag = (event->flags & ESYNC_FLAG_CONFLICT) != 0;
	b->any = true;
	for (int i = 0; i < b->n; i++)
		if (b->contenders[i].event_id == event->event_id &&
			b->contenders[i].version == event->version)
			b->contenders[i].version = 0;
	return true;
}

/* The event_ids of contenders that were not found, as an array. */
static Jsonb *
missing_events(const Beside *b, int missing)
{
	EsyncJson	json;

	esync_json_init(&json, 64);
	esync_json_open_array(&json, missing);
	for (int i = 0; i < b->n; i++)
		if (b->contenders[i].version != 0)
			esync_json_int64(&json, b->contenders[i].event_id);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Callback: the contenders of an open conflict are events, the last of which says so. */
static bool
check_conflict(EsyncConflict *conflict, void *arg)
{
	Verify	   *v = arg;
	Beside		b = {0};
	int			missing = 0;
	EsyncMember members[4];
	int			n = 0;

	if (v->rights.rls && table_row(v, conflict->aggregate_id) == NULL)
		return true;
	b.contenders = esync_ledger_contenders(conflict, &b.n);
	esync_stream_back(v->t, conflict->aggregate_id, NULL, GetActiveSnapshot(), false,
					  find_contender, &b);
	for (int i = 0; i < b.n; i++)
		missing += b.contenders[i].version != 0;
	if (missing == 0 && b.flag)
		return true;
	members[n++] = int64_member("conflict_id", conflict->conflict_id);
	if (conflict->field != NULL)
		members[n++] = string_member("field", text_to_cstring(conflict->field));
	if (missing > 0)
		members[n++] = json_member("missing_events", missing_events(&b, missing));
	if (!b.flag)
		members[n++] = (EsyncMember) {"flag", 4, {.type = jbvBool}};
	put_problem(v, conflict->aggregate_id, "ledger differs", esync_json_object(n, members));
	return true;
}

/* -------------------------------------------------------- one aggregate */

/* {"version": ..., "event_id": ...} of an event */
static Jsonb *
event_detail(const EsyncEvent *e)
{
	EsyncMember members[2];

	members[0] = int64_member("version", e->version);
	members[1] = int64_member("event_id", e->event_id);
	return esync_json_object(2, members);
}

/* Versions without a gap, event_ids ascending. */
static void
check_order(Verify *v, text *aggregate_id, const EsyncEvents *events)
{
	int64		version = events->e[0].type == ESYNC_BASELINE ? events->e[0].version - 1 : 0;
	int64		event_id = 0;
	EsyncMember members[3];

	for (int i = 0; i < events->n; i++)
	{
		const EsyncEvent *e = &events->e[i];

		if (e->version != version + 1)
		{
			members[0] = int64_member("first_missing", version + 1);
			members[1] = int64_member("last_missing", e->version - 1);
			put_problem(v, aggregate_id, "version gap", esync_json_object(2, members));
		}
		if (e->event_id <= event_id)
		{
			members[0] = int64_member("version", e->version);
			members[1] = int64_member("event_id", e->event_id);
			members[2] = int64_member("previous_event_id", event_id);
			put_problem(v, aggregate_id, "event order", esync_json_object(3, members));
		}
		version = e->version;
		event_id = e->event_id;
	}
}

/* {"title": {"<other>": ..., "stream": ...}}: one member of "fields" */
static EsyncMember
difference(const char *field, const char *other, const JsonbValue *value,
		   const JsonbValue *stream)
{
	EsyncMember pair[2];

	pair[0] = (EsyncMember) {.key = other, .keylen = strlen(other), .value = *value};
	pair[1] = (EsyncMember) {.key = "stream", .keylen = strlen("stream"), .value = *stream};
	return json_member(field, esync_json_object(2, pair));
}

/* Puts out a problem whose detail lists fields that differ, if there are any. */
static void
put_differences(Verify *v, text *aggregate_id, const char *problem, const EsyncEvent *event,
				EsyncMember *fields, int n)
{
	EsyncMember members[3];

	if (n == 0)
		return;
	members[0] = json_member("fields", esync_json_object(n, fields));
	members[1] = int64_member("version", event->version);
	members[2] = int64_member("event_id", event->event_id);
	put_problem(v, aggregate_id, problem, esync_json_object(3, members));
}

/* The row against the fold, field by field; what has no register is skipped. */
static void
check_row(Verify *v, text *aggregate_id, const EsyncEvent *last, const Jsonb *row)
{
	EsyncTracked *t = v->t;
	EsyncMember *fields = palloc((t->nfields + 1) * sizeof(EsyncMember));
	int			n = 0;

	for (int i = 0; i < t->nfields && t->fields[i].attnum != 0; i++)
	{
		const char *name = t->fields[i].name;
		JsonbValue	stream;
		JsonbValue	table;

		if (!esync_fold_value(&v->fold, i, &stream) ||
			!esync_json_member(&row->root, name, strlen(name), &table) ||
			esync_json_equal(&table, &stream, true))
			continue;
		fields[n++] = difference(name, "table", &table, &stream);
	}
	put_differences(v, aggregate_id, "row differs", last, fields, n);
}

/* The payload of the last event against the fold, under the names it had then. */
static void
check_payload(Verify *v, text *aggregate_id, EsyncEvent *last)
{
	EsyncTracked *t = v->t;
	EsyncMember *fields = palloc((t->nfields + 1) * sizeof(EsyncMember));
	bool	   *seen = palloc0((t->nfields + 1) * sizeof(bool));
	Jsonb	   *payload = esync_event_payload(last);
	JsonbValue	stream;
	JsonbValue	null = {.type = jbvNull};
	EsyncWalk	walk;
	int			n = 0;

	if (payload == NULL || v->fold.row_event != last)
		return;
	esync_walk_init(&walk, &payload->root);
	while (esync_walk_next(&walk))
	{
		int			i = esync_field_at(t->fields, t->nfields, walk.key, walk.keylen,
									   last->event_id);

		if (i < 0 || seen[i])
			continue;
		seen[i] = true;
		if (esync_fold_value(&v->fold, i, &stream) &&
			!esync_json_equal(&walk.value, &stream, true))
			fields[n++] = difference(t->fields[i].name, "payload", &walk.value, &stream);
	}
	for (int i = 0; i < t->nfields && t->fields[i].attnum != 0; i++)
	{
		if (!seen[i] && esync_fold_is_set(&v->fold, i) &&
			esync_fold_value(&v->fold, i, &stream))
			fields[n++] = difference(t->fields[i].name, "payload", &null, &stream);
	}
	put_differences(v, aggregate_id, "payload differs", last, fields, n);
}

/*
 * Callback: everything about one aggregate.  Where row policies apply, those
 * whose row the caller does not see are passed over in silence.
 */
static void
check_aggregate(EsyncTracked *t, text *aggregate_id, EsyncEvents *events, void *arg)
{
	Verify	   *v = arg;
	EsyncEvent *last = &events->e[events->n - 1];
	Jsonb	   *row = table_row(v, aggregate_id);

	if (row == NULL && v->rights.rls)
		return;
	check_order(v, aggregate_id, events);
	check_flag(v, aggregate_id, last);
	esync_fold_reset(&v->fold);
	for (int i = 0; i < events->n; i++)
		esync_fold_add(&v->fold, &events->e[i], i);
	if (!esync_fold_has_row(&v->fold))
	{
		if (row != NULL)
			put_problem(v, aggregate_id, "row not deleted", event_detail(last));
		return;
	}
	check_payload(v, aggregate_id, last);
	if (row == NULL)
		put_problem(v, aggregate_id, "row missing", event_detail(last));
	else
		check_row(v, aggregate_id, last, row);
}

/* ---------------------------------------------------------------- the call */

/* All aggregates, or the one of a key. */
static void
check_aggregates(Verify *v, text *key)
{
	MemoryContext cxt = CurrentMemoryContext;
	EsyncTracked *t = v->t;
	text	   *aggregate_id = NULL;

	v->values = palloc0(MaxHeapAttributeNumber * sizeof(Datum));
	v->nulls = palloc(MaxHeapAttributeNumber * sizeof(bool));
	memset(v->nulls, true, MaxHeapAttributeNumber * sizeof(bool));
	esync_fold_init(&v->fold, t->fields, t->nfields, t->tombstone_field);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	v->plan = row_plan(t);
	MemoryContextSwitchTo(cxt);
	if (key == NULL)
		esync_stream_each(t, NULL, GetActiveSnapshot(), ESYNC_WANT_ROW, check_aggregate, v);
	else
	{
		EsyncEvents *events;

		aggregate_id = esync_key_from_text(t, key, NULL);
		events = esync_stream_read(t, aggregate_id, NULL, GetActiveSnapshot(), false,
								   ESYNC_WANT_ROW);
		if (events->n > 0)
			check_aggregate(t, aggregate_id, events, v);
	}
	esync_ledger_each(t->table_id, aggregate_id, ESYNC_LEDGER_OPEN, 0, GetActiveSnapshot(),
					  check_conflict, v);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

/*
 * esync_verify(tbl, key): one row a problem, none when all is well.  Needs
 * SELECT on the table.  A table that is switched off has no triggers to miss.
 */
Datum
esync_verify(PG_FUNCTION_ARGS)
{
	text	   *key = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	Verify		v = {0};

	InitMaterializedSRF(fcinfo, 0);
	esync_rights_need_table(fcinfo);
	v.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	v.t = esync_tracked_get(PG_GETARG_OID(0));
	if (v.t == NULL || !v.t->is_root || v.t->broken == NULL)
		v.t = esync_tracked_need(PG_GETARG_OID(0));
	esync_rights_read(v.t, &v.rights);
	if (!v.rights.all)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(v.t->root)),
					   v.t->table_name);
	if (key == NULL)
	{
		if (v.t->enabled)
			check_triggers(&v);
		check_key(&v);
		if (!check_index(&v) || v.t->broken)
			return (Datum) 0;
	}
	esync_tracked_check(v.t);
	check_aggregates(&v, key);
	return (Datum) 0;
}
