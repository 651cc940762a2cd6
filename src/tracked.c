/*
 * tracked.c: capture plans, one per relation, kept until something changes.
 *
 * A plan is everything that capture and the readers need to know of a
 * relation: its configuration, its fields, its encoders.  Each lives in a
 * memory context of its own below CacheMemoryContext.  The relcache callback
 * only flags plans; a flagged plan is built anew at its next use.  Its old
 * context is kept until the end of the transaction, since a caller up the
 * stack may still hold a pointer into it.
 *
 * Configuration is read with a catalog snapshot, which is the latest there is:
 * a transaction that began before esync_enable fires the triggers all the same.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "esync.h"

/* columns of esync.tracked_table */
enum
{
	TAB_TABLE_ID = 1, TAB_RELATION, TAB_SCHEMA_NAME, TAB_TABLE_NAME, TAB_AGGREGATE_TYPE,
	TAB_ENABLED, TAB_MODE, TAB_PAYLOAD, TAB_KEY_COLUMNS, TAB_KEY, TAB_EXCLUDE, TAB_MASK,
	TAB_LAST_MODIFIED, TAB_TOMBSTONE, TAB_TENANT, TAB_NOTIFY, TAB_RETENTION,
	TAB_OPTIONS_AS_OF, TAB_SINCE, TAB_PRUNED_THROUGH, TAB_SQL_MERGE, TAB_ON_CONFLICT,
	TAB_GROUPS, TAB_JSON_MERGE, TAB_LINKS,
	TAB_COUNT = TAB_LINKS
};

/* more plans than this are flagged all together: no quadratic invalidation */
#define MANY_PLANS 1000

typedef struct PlanEntry
{
	Oid			relid;			/* hash key, must be first */
	EsyncTracked *plan;			/* NULL: never built, or the build failed */
	bool		flagged;		/* something changed, also while it was built */
} PlanEntry;

static HTAB *plans = NULL;
static List *retired = NIL;		/* contexts to be deleted at end of transaction */
static bool undo_on_abort = false;	/* this transaction recorded names or an epoch */

/* Was a plan made by looking at this relation? */
static bool
depends_on(const EsyncTracked *t, Oid relid)
{
	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].parent == relid)
			return true;
	return t->root == relid || t->leaf == relid;
}

/* Relcache callback: flags, touches nothing else. */
static void
flag_plans(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	PlanEntry  *entry;
	bool		all = !OidIsValid(relid);

	esync_lineage_flag(relid);
	if (plans == NULL)
		return;
	if (hash_get_num_entries(plans) > MANY_PLANS)
		all = true;
	hash_seq_init(&status, plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (all || entry->relid == relid || entry->plan == NULL ||
			depends_on(entry->plan, relid))
			entry->flagged = true;
}

/*
 * Plans that hold what only this transaction wrote are void unless it commits
 * here and now; a prepared one may yet be rolled back.  Retired contexts go.
 */
static void
end_of_transaction(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (undo_on_abort && event != XACT_EVENT_COMMIT)
	{
		flag_plans((Datum) 0, InvalidOid);
		esync_lineage_forget();
	}
	undo_on_abort = false;
	foreach(lc, retired)
		MemoryContextDelete(lfirst(lc));
	list_free(retired);
	retired = NIL;
}

/* The same for a savepoint: what it recorded may be gone. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					  void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && undo_on_abort)
	{
		flag_plans((Datum) 0, InvalidOid);
		esync_lineage_forget();
	}
}

/* Says that plans now hold what only this transaction has written. */
void
esync_tracked_undo_on_abort(void)
{
	undo_on_abort = true;
}

/*
 * The plan at hand learned of names that were recorded: all others of its
 * table are void, here now and elsewhere when this transaction commits.
 */
void
esync_tracked_void_others(const EsyncTracked *t)
{
	HASH_SEQ_STATUS status;
	PlanEntry  *entry;

	hash_seq_init(&status, plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->plan != NULL && entry->plan != t && entry->plan->root == t->root)
			entry->flagged = true;
	CacheInvalidateRelcacheByRelid(t->root);
}

/* Called once, by _PG_init. */
void
esync_tracked_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(PlanEntry);
	ctl.hcxt = CacheMemoryContext;
	plans = hash_create("esync plans", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(flag_plans, (Datum) 0);
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
}

/*
 * The configuration row of exactly this relation, deformed into values and
 * nulls with by-reference values copied; false where there is none.
 */
static bool
read_configuration(Oid relid, Datum *values, bool *nulls)
{
	Relation	rel = table_open(esync_relation_oid("tracked_table"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, TAB_RELATION, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, esync_relation_oid("tracked_table_relation_key"), true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		heap_deform_tuple(heap_copytuple(tuple), RelationGetDescr(rel), values, nulls);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * The tracked table that a relation belongs to: the nearest of itself and its
 * partitioned ancestors that is enabled; else itself, if it once was.
 * InvalidOid if there is none.
 */
static Oid
find_root(Oid relid, Datum *values, bool *nulls)
{
	bool		was_tracked = read_configuration(relid, values, nulls);
	ListCell   *lc;

	if (was_tracked && DatumGetBool(values[TAB_ENABLED - 1]))
		return relid;
	if (get_rel_relispartition(relid))
		foreach(lc, get_partition_ancestors(relid))
			if (read_configuration(lfirst_oid(lc), values, nulls) &&
				DatumGetBool(values[TAB_ENABLED - 1]))
				return lfirst_oid(lc);
	return was_tracked && read_configuration(relid, values, nulls) ? relid : InvalidOid;
}

/* Index of the living field that an option's column name means; -1 if gone. */
static int
field_of_option(EsyncTracked *t, const char *name, int64 as_of)
{
	int			i = esync_field_at(t->fields, t->nfields, name, strlen(name), as_of);

	return i >= 0 && t->fields[i].attnum != 0 ? i : -1;
}

/* The names in a name[] as C strings. */
static List *
names_in(Datum array)
{
	Datum	   *elements;
	int			n;
	List	   *names = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		names = lappend(names, NameStr(*DatumGetName(elements[i])));
	return names;
}

/* Attribute number in relid of a field, which is numbered after the root. */
static AttrNumber
attnum_here(EsyncTracked *t, int field)
{
	if (t->is_root)
		return t->fields[field].attnum;
	return get_attnum(t->relid, t->fields[field].name);
}

/* Sets one of the marks of fields (exclude, mask, last_modified, json_merge). */
static void
mark_fields(EsyncTracked *t, Datum array, int64 as_of, size_t offset)
{
	ListCell   *lc;

	foreach(lc, names_in(array))
	{
		int			i = field_of_option(t, lfirst(lc), as_of);

		if (i < 0)				/* dropped; one of that name may have come */
			i = field_of_option(t, lfirst(lc), PG_INT64_MAX);
		if (i >= 0)
			*((bool *) ((char *) &t->fields[i] + offset)) = true;
	}
}

/* Index of the field that an option with one column names; -1: none. */
static int
field_of_name(EsyncTracked *t, Datum name, bool isnull, int64 as_of)
{
	return isnull ? -1 : field_of_option(t, NameStr(*DatumGetName(name)), as_of);
}

/* Resolves the key columns; where one is gone, the plan is broken. */
static void
plan_key(EsyncTracked *t, Datum array, int64 as_of)
{
	List	   *names = names_in(array);
	EsyncAttr  *attrs = palloc0(list_length(names) * sizeof(EsyncAttr));
	ListCell   *lc;

	t->keyfields = palloc(list_length(names) * sizeof(int));
	t->keyattnums = palloc(list_length(names) * sizeof(AttrNumber));
	foreach(lc, names)
	{
		int			i = field_of_option(t, lfirst(lc), as_of);
		EsyncAttr  *a = &attrs[t->nkeys];

		if (i < 0)
		{
			t->broken = lfirst(lc);
			t->nkeys = 0;
			return;
		}
		t->keyfields[t->nkeys] = i;
		t->key_generated |= t->fields[i].excluded;
		t->keyattnums[t->nkeys] = attnum_here(t, i);
		a->name = t->fields[i].name;
		a->attnum = t->keyattnums[t->nkeys];
		a->typid = t->fields[i].typid;
		a->typmod = t->fields[i].typmod;
		t->nkeys++;
	}
	t->key = esync_shape_make(t->cxt, attrs, t->nkeys);
}

/* A string of a document as a C string. */
static char *
json_cstring(const JsonbValue *v)
{
	return pnstrdup(v->val.string.val, v->val.string.len);
}

/* Resolves the option groups; columns that are gone are left out. */
static void
plan_groups(EsyncTracked *t, Jsonb *option, int64 as_of)
{
	EsyncWalk	walk;

	t->groups = palloc0((JB_ROOT_COUNT(option) + 1) * sizeof(EsyncGroup));
	esync_walk_init(&walk, &option->root);
	while (esync_walk_next(&walk))
	{
		EsyncGroup *g = &t->groups[t->ngroups];
		EsyncWalk	columns;

		esync_walk_init(&columns, walk.value.val.binary.data);
		g->fields = palloc((columns.count + 1) * sizeof(int));
		while (esync_walk_next(&columns))
		{
			int			i = field_of_option(t, json_cstring(&columns.value), as_of);

			if (i < 0)
				continue;
			t->fields[i].group = t->ngroups;
			g->fields[g->nfields++] = i;
		}
		g->name = pnstrdup(walk.key, walk.keylen);
		if (g->nfields > 0)
			t->ngroups++;
	}
}

/* The tracked table with that table_id; InvalidOid if it is gone. */
Oid
esync_tracked_relation(int32 table_id)
{
	Relation	rel = table_open(esync_relation_oid("tracked_table"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;
	Oid			relid = InvalidOid;

	ScanKeyInit(&key, TAB_TABLE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	scan = systable_beginscan(rel, esync_relation_oid("tracked_table_pkey"), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		relid = DatumGetObjectId(heap_getattr(tuple, TAB_RELATION, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relid;
}

/* All tables that are tracked or once were, those that are gone with their names: EsyncListed. */
List *
esync_tracked_list(void)
{
	EsyncSide	side;
	ScanKeyData key;
	Datum		values[TAB_COUNT];
	bool		nulls[TAB_COUNT];
	List	   *tables = NIL;

	esync_side_open(&side, "tracked_table", AccessShareLock);
	ScanKeyInit(&key, TAB_TABLE_ID, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(0));
	esync_side_scan(&side, "tracked_table_pkey", GetActiveSnapshot(), &key, 1);
	while (esync_side_next(&side, values, nulls))
	{
		EsyncListed *t = palloc(sizeof(EsyncListed));

		t->table_id = DatumGetInt32(values[TAB_TABLE_ID - 1]);
		t->relation = nulls[TAB_RELATION - 1] ? InvalidOid :
			DatumGetObjectId(values[TAB_RELATION - 1]);
		t->schema_name = TextDatumGetCString(values[TAB_SCHEMA_NAME - 1]);
		t->table_name = TextDatumGetCString(values[TAB_TABLE_NAME - 1]);
		tables = lappend(tables, t);
	}
	esync_side_close(&side);
	return tables;
}

/* Of these the tables that are there. */
List *
esync_tracked_tables(void)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, esync_tracked_list())
	{
		EsyncListed *t = lfirst(lc);

		if (OidIsValid(t->relation))
			tables = lappend_oid(tables, t->relation);
	}
	return tables;
}

/* Resolves the option links; those of which either end is gone are left out. */
static void
plan_links(EsyncTracked *t, Jsonb *option, int64 as_of)
{
	EsyncWalk	walk;

	t->links = palloc0((JB_ROOT_COUNT(option) + 1) * sizeof(EsyncLink));
	esync_walk_init(&walk, &option->root);
	while (esync_walk_next(&walk))
	{
		EsyncLink  *link = &t->links[t->nlinks];

		link->field = field_of_option(t, pnstrdup(walk.key, walk.keylen), as_of);
		link->parent = esync_tracked_relation(DatumGetInt32(DirectFunctionCall1(numeric_int4,
													 NumericGetDatum(walk.value.val.numeric))));
		if (link->field >= 0 && OidIsValid(link->parent))
			t->nlinks++;
	}
}

/* What an offline edit is merged by. */
static void
plan_merging(EsyncTracked *t, const Datum *values, int64 as_of)
{
	t->sql_merge = DatumGetBool(values[TAB_SQL_MERGE - 1]);
	t->on_conflict = TextDatumGetCString(values[TAB_ON_CONFLICT - 1]);
	plan_groups(t, DatumGetJsonbP(values[TAB_GROUPS - 1]), as_of);
	mark_fields(t, values[TAB_JSON_MERGE - 1], as_of, offsetof(EsyncField, json_merge));
	for (int i = 0; i < t->nfields; i++)
	{
		t->fields[i].json_merge &= t->fields[i].typid == JSONBOID;
		t->json_merges |= t->fields[i].json_merge && t->fields[i].attnum != 0;
	}
	plan_links(t, DatumGetJsonbP(values[TAB_LINKS - 1]), as_of);
}

/* Orders captured columns as relid stores them. */
static int
column_cmp(const void *a, const void *b)
{
	return (int) ((const EsyncColumn *) a)->attnum - (int) ((const EsyncColumn *) b)->attnum;
}

/* Lists the captured columns and prepares the encoding of whole rows. */
static void
plan_columns(EsyncTracked *t)
{
	EsyncAttr  *attrs = palloc0((t->nfields + 1) * sizeof(EsyncAttr));

	t->columns = palloc0((t->nfields + 1) * sizeof(EsyncColumn));
	t->stamps = palloc0((t->nfields + 1) * sizeof(AttrNumber));
	for (int i = 0; i < t->nfields && t->fields[i].attnum != 0; i++)
	{
		EsyncField *f = &t->fields[i];
		EsyncColumn *c = &t->columns[t->ncolumns];
		char		align;

		if (f->excluded)
			continue;
		c->attnum = attnum_here(t, i);
		c->field = i;
		get_typlenbyvalalign(f->typid, &c->attlen, &c->attbyval, &align);
		c->patched = !f->stamp;
		if (f->stamp)
			t->stamps[t->nstamps++] = c->attnum;
		t->ncolumns++;
	}
	qsort(t->columns, t->ncolumns, sizeof(EsyncColumn), column_cmp);
	for (int i = 0; i < t->ncolumns; i++)
	{
		EsyncField *f = &t->fields[t->columns[i].field];

		t->columns[i].shape = i;
		attrs[i].name = f->name;
		attrs[i].attnum = t->columns[i].attnum;
		attrs[i].typid = f->typid;
		attrs[i].typmod = f->typmod;
		attrs[i].masked = f->masked;
	}
	t->row = esync_shape_make(t->cxt, attrs, t->ncolumns);
}

/* Builds the plan of relid in a new context; NULL where it is not tracked. */
static EsyncTracked *
build(Oid relid)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync plan",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	EsyncTracked *t = palloc0(sizeof(EsyncTracked));
	Datum		values[TAB_COUNT];
	bool		nulls[TAB_COUNT];
	int64		as_of;

	t->root = find_root(relid, values, nulls);
	if (!OidIsValid(t->root) || get_rel_name(t->root) == NULL)
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		return NULL;
	}
	t->relid = relid;
	t->is_root = relid == t->root;
	t->cxt = cxt;
	t->table_id = DatumGetInt32(values[TAB_TABLE_ID - 1]);
	t->leaf = esync_relation_oid(psprintf("event_%d", t->table_id));
	t->sequence = esync_relation_oid("event_id_seq");
	t->enabled = DatumGetBool(values[TAB_ENABLED - 1]);
	t->payload_full = strcmp(TextDatumGetCString(values[TAB_PAYLOAD - 1]), "full") == 0;
	t->notify = DatumGetBool(values[TAB_NOTIFY - 1]);
	t->table_name = get_rel_name(t->root);
	t->aggregate_type = TextDatumGetCString(values[TAB_AGGREGATE_TYPE - 1]);
	t->fields = esync_lineage_load(t->table_id, t->root, &t->nfields, &t->unrecorded,
								   &t->check_from);
	as_of = DatumGetInt64(values[TAB_OPTIONS_AS_OF - 1]);
	mark_fields(t, values[TAB_EXCLUDE - 1], as_of, offsetof(EsyncField, excluded));
	mark_fields(t, values[TAB_MASK - 1], as_of, offsetof(EsyncField, masked));
	mark_fields(t, values[TAB_LAST_MODIFIED - 1], as_of, offsetof(EsyncField, stamp));
	t->tombstone_field = field_of_name(t, values[TAB_TOMBSTONE - 1], nulls[TAB_TOMBSTONE - 1],
									   as_of);
	t->tenant_field = field_of_name(t, values[TAB_TENANT - 1], nulls[TAB_TENANT - 1], as_of);
	t->tombstone = t->tombstone_field < 0 ? 0 : attnum_here(t, t->tombstone_field);
	t->tenant = t->tenant_field < 0 ? 0 : attnum_here(t, t->tenant_field);
	t->pruned = !nulls[TAB_PRUNED_THROUGH - 1];
	if (t->pruned)
		t->pruned_through = U64FromFullTransactionId(
								DatumGetFullTransactionId(values[TAB_PRUNED_THROUGH - 1]));
	t->hides = names_in(values[TAB_EXCLUDE - 1]) != NIL || names_in(values[TAB_MASK - 1]) != NIL;
	if (t->tenant != 0)
	{
		EsyncField *f = &t->fields[t->tenant_field];
		EsyncAttr	attr = {f->name, t->tenant, f->typid, f->typmod, false};

		t->tenant_shape = esync_shape_make(cxt, &attr, 1);
	}
	plan_key(t, values[TAB_KEY_COLUMNS - 1], as_of);
	plan_merging(t, values, as_of);
	plan_columns(t);
	MemoryContextSwitchTo(old);
	return t;
}

/*
 * The plan of a tracked table or of a leaf of one; NULL where neither is
 * tracked.  The pointer is good until the end of the transaction, though a
 * change of the table may make it stale: take it anew for each row.
 */
EsyncTracked *
esync_tracked_get(Oid relid)
{
	static PlanEntry *last = NULL;
	PlanEntry  *volatile entry = last;
	EsyncTracked *plan;
	bool		found;

	if (entry == NULL || entry->relid != relid)
	{
		entry = hash_search(plans, &relid, HASH_ENTER, &found);
		if (!found)
		{
			entry->plan = NULL;
			entry->flagged = true;
		}
		last = entry;
	}
	if (entry->plan == NULL || entry->flagged)
	{
		entry->flagged = false;		/* set again by whatever comes meanwhile */
		PG_TRY();
		{
			plan = build(relid);
		}
		PG_CATCH();
		{
			entry->flagged = true;
			PG_RE_THROW();
		}
		PG_END_TRY();
		if (plan == NULL)
		{
			entry->flagged = true;
			return NULL;
		}
		if (entry->plan)
		{
			MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);

			retired = lappend(retired, entry->plan->cxt);
			MemoryContextSwitchTo(old);
		}
		MemoryContextSetParent(plan->cxt, CacheMemoryContext);
		entry->plan = plan;
	}
	return entry->plan;
}

/* Raises where a plan cannot be worked with. */
void
esync_tracked_check(const EsyncTracked *t)
{
	if (t->broken)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_CONFIGURATION),
				 errmsg("key column \"%s\" of tracked table \"%s\" was dropped",
						t->broken, t->table_name),
				 errhint("Call esync_disable; the key cannot change while the history is kept.")));
}

/* The same for a table that a user named: an error where it is not tracked. */
EsyncTracked *
esync_tracked_need(Oid relid)
{
	EsyncTracked *t;
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	t = esync_tracked_get(relid);
	if (t == NULL || !t->is_root)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_NOT_TRACKED),
				 errmsg("table \"%s\" is not tracked", name),
				 t ? errhint("It is a partition of \"%s\", which is tracked: name that one.",
							 t->table_name) :
				 errhint("SELECT esync_enable('%s') begins to track it.", name)));
	esync_tracked_check(t);
	return t;
}

/* The quoted, qualified name that the tracked table has now. */
char *
esync_tracked_name(const EsyncTracked *t)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(t->root)),
									  get_rel_name(t->root));
}

PG_FUNCTION_INFO_V1(esync_invalidate);

/* esync.invalidate(relation): every session builds its plan of it anew. */
Datum
esync_invalidate(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}
