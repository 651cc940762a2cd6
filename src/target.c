/*
 * target.c: the tables of a batch: by which name, and what points to what.
 *
 * References are declared foreign keys and the option links alike.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "submit.h"

/* attribute numbers of esync.tracked_table, of which no more is needed here */
#define TRACKED_RELATION		2
#define TRACKED_AGGREGATE_TYPE	5

/* A table by its SQL name, through search_path where unqualified; or InvalidOid. */
static Oid
find_by_sql_name(const char *name)
{
	List	   *parts;
	Oid			schema;

	if (!SplitIdentifierString(pstrdup(name), '.', &parts))
		return InvalidOid;
	if (list_length(parts) == 3 &&
		strcmp(linitial(parts), get_database_name(MyDatabaseId)) == 0)
		parts = list_delete_first(parts);
	if (list_length(parts) == 1)
		return RelnameGetRelid(linitial(parts));
	if (list_length(parts) != 2)
		return InvalidOid;
	schema = get_namespace_oid(linitial(parts), true);
	return OidIsValid(schema) ? get_relname_relid(lsecond(parts), schema) : InvalidOid;
}

/* A tracked table by its aggregate_type; or InvalidOid. */
static Oid
find_by_type(const char *name)
{
	Relation	rel = table_open(esync_relation_oid("tracked_table"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;
	bool		isnull;

	ScanKeyInit(&key, TRACKED_AGGREGATE_TYPE, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(name));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (!OidIsValid(relid) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		relation = heap_getattr(tuple, TRACKED_RELATION, RelationGetDescr(rel),
										   &isnull);

		if (!isnull)
			relid = DatumGetObjectId(relation);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relid;
}

/* The plan of a table that can be written to; NULL, and a message, if it is none. */
static EsyncTracked *
usable(Oid relid, const char *name, char **message)
{
	EsyncTracked *t;

	LockRelationOid(relid, AccessShareLock);
	if (get_rel_name(relid) == NULL || (t = esync_tracked_get(relid)) == NULL)
		*message = psprintf("table \"%.200s\" is not tracked", name);
	else if (!t->is_root)
		*message = psprintf("table \"%.200s\" is a partition of \"%s\", which is tracked",
							name, t->table_name);
	else if (!t->enabled)
		*message = psprintf("table \"%.200s\" is not tracked any more", name);
	else if (t->broken)
		*message = psprintf("key column \"%s\" of table \"%.200s\" was dropped", t->broken, name);
	else
		return t;
	return NULL;
}

/* Names of columns by number, in cxt. */
static char **
column_names(Oid relid, const AttrNumber *attnums, int n)
{
	char	  **names = palloc(n * sizeof(char *));

	for (int i = 0; i < n; i++)
		names[i] = get_attname(relid, attnums[i], false);
	return names;
}

/* What the columns of a tracked table point to, in cxt. */
EsyncReference *
esync_target_references(EsyncTracked *t, MemoryContext cxt, int *n)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Relation	rel = table_open(t->root, AccessShareLock);
	List	   *keys = RelationGetFKeyList(rel);
	EsyncReference *references = palloc0((list_length(keys) + t->nlinks + 1) *
										 sizeof(EsyncReference));
	ListCell   *lc;

	*n = 0;
	foreach(lc, keys)
	{
		ForeignKeyCacheInfo *key = lfirst(lc);
		EsyncReference *r = &references[*n];

		r->parent = key->confrelid;
		r->n = key->nkeys;
		r->columns = column_names(t->root, key->conkey, key->nkeys);
		r->parent_columns = column_names(key->confrelid, key->confkey, key->nkeys);
		(*n)++;
	}
	for (int i = 0; i < t->nlinks; i++)
	{
		EsyncTracked *parent = esync_tracked_get(t->links[i].parent);
		EsyncReference *r = &references[*n];

		if (parent == NULL || parent->nkeys != 1)
			continue;
		r->parent = parent->root;
		r->n = 1;
		r->columns = palloc(sizeof(char *));
		r->columns[0] = pstrdup(t->fields[t->links[i].field].name);
		r->parent_columns = palloc(sizeof(char *));
		r->parent_columns[0] = pstrdup(parent->fields[parent->keyfields[0]].name);
		(*n)++;
	}
	table_close(rel, NoLock);
	MemoryContextSwitchTo(old);
	return references;
}

/*
 * The table that a batch calls so: as in SQL, or by its aggregate_type.  Where
 * there is none, the target says why.  Once a name and batch.
 */
EsyncTarget *
esync_target_get(EsyncBatch *b, const char *name)
{
	EsyncTarget *target;
	EsyncTracked *t = NULL;
	Oid			relid;
	ListCell   *lc;

	foreach(lc, b->targets)
		if (strcmp(((EsyncTarget *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	target = palloc0(sizeof(EsyncTarget));
	target->name = pstrdup(name);
	relid = find_by_sql_name(name);
	if (OidIsValid(relid))
		t = usable(relid, name, &target->message);
	if (t == NULL && OidIsValid(relid = find_by_type(name)))
		t = usable(relid, name, &target->message);
	if (t != NULL)
	{
		target->root = t->root;
		target->table_id = t->table_id;
		target->references = esync_target_references(t, b->cxt, &target->nreferences);
	}
	else if (target->message == NULL)
		target->message = psprintf("there is no table \"%.200s\"", name);
	b->targets = lappend(b->targets, target);
	return target;
}
