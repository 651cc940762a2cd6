/*
 * links.c: esync_orphans: rows that point to rows that are not there.
 *
 * Foreign keys that are enforced let none be; those that are NOT VALID or
 * whose triggers are disabled may, and the option links is enforced by nobody.
 * The tables are asked as the caller, one query a reference.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "esync.h"

/* columns that point to columns of a parent, and how they compare */
typedef struct Link
{
	Oid			parent;
	int			n;
	AttrNumber	columns[INDEX_MAX_KEYS];
	AttrNumber	parent_columns[INDEX_MAX_KEYS];
	Oid			operators[INDEX_MAX_KEYS];	/* parent = child */
} Link;

/* ------------------------------------------------------- what is unenforced */

/* Is a trigger of the constraint on this table disabled? */
static bool
has_disabled_trigger(Relation rel, Oid constraint)
{
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		if (rel->trigdesc->triggers[i].tgconstraint == constraint &&
			(rel->trigdesc->triggers[i].tgenabled == TRIGGER_DISABLED ||
			 rel->trigdesc->triggers[i].tgenabled == TRIGGER_FIRES_ON_REPLICA))
			return true;
	return false;
}

/* May rows violate this foreign key? */
static bool
is_unenforced(Relation rel, const ForeignKeyCacheInfo *key)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(key->conoid));
	Relation	parent;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = !((Form_pg_constraint) GETSTRUCT(tuple))->convalidated;
	ReleaseSysCache(tuple);
	if (result || has_disabled_trigger(rel, key->conoid))
		return true;
	parent = table_open(key->confrelid, AccessShareLock);
	result = has_disabled_trigger(parent, key->conoid);
	table_close(parent, NoLock);
	return result;
}

/* The links of a table that nobody enforces. */
static List *
find_links(EsyncTracked *t)
{
	Relation	rel = table_open(t->root, AccessShareLock);
	List	   *links = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetFKeyList(rel))
	{
		ForeignKeyCacheInfo *key = lfirst(lc);
		Link	   *link = palloc0(sizeof(Link));

		if (get_rel_relispartition(key->confrelid) || !is_unenforced(rel, key))
			continue;
		link->parent = key->confrelid;
		link->n = key->nkeys;
		memcpy(link->columns, key->conkey, sizeof(link->columns));
		memcpy(link->parent_columns, key->confkey, sizeof(link->parent_columns));
		memcpy(link->operators, key->conpfeqop, sizeof(link->operators));
		links = lappend(links, link);
	}
	for (int i = 0; i < t->nlinks; i++)
	{
		EsyncTracked *parent = esync_tracked_get(t->links[i].parent);
		EsyncField *field = &t->fields[t->links[i].field];
		Link	   *link = palloc0(sizeof(Link));

		if (parent == NULL || parent->nkeys != 1)
			continue;
		link->parent = parent->root;
		link->n = 1;
		link->columns[0] = field->attnum;
		link->parent_columns[0] = parent->fields[parent->keyfields[0]].attnum;
		link->operators[0] = lookup_type_cache(getBaseType(field->typid),
											   TYPECACHE_EQ_OPR)->eq_opr;
		links = lappend(links, link);
	}
	table_close(rel, NoLock);
	return links;
}

/* ------------------------------------------------------------- the question */

/* FROM [ONLY] a table, under an alias. */
static void
append_table(StringInfo query, Oid relid, const char *alias)
{
	appendStringInfo(query, "%s%s AS %s",
					 get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												get_rel_name(relid)), alias);
}

/* "alias.column" */
static char *
column_of(const char *alias, Oid relid, AttrNumber attnum)
{
	return psprintf("%s.%s", alias, quote_identifier(get_attname(relid, attnum, false)));
}

/*
 * SELECT key columns, then linking columns, of the rows whose parent is not
 * there.  Of a parent that is deleted softly the row is there, and no parent.
 */
static char *
orphans_query(const EsyncTracked *t, const Link *link, const EsyncTracked *parent)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	for (int k = 0; k < t->nkeys; k++)
		appendStringInfo(&query, "%s, ", column_of("c", t->root, t->fields[t->keyfields[k]].attnum));
	for (int i = 0; i < link->n; i++)
		appendStringInfo(&query, "%s%s", i ? ", " : "", column_of("c", t->root, link->columns[i]));
	appendStringInfoString(&query, " FROM ");
	append_table(&query, t->root, "c");
	appendStringInfoString(&query, " WHERE NOT EXISTS (SELECT 1 FROM ");
	append_table(&query, link->parent, "p");
	for (int i = 0; i < link->n; i++)
	{
		appendStringInfoString(&query, i ? " AND " : " WHERE ");
		generate_operator_clause(&query, column_of("p", link->parent, link->parent_columns[i]),
								 get_atttype(link->parent, link->parent_columns[i]),
								 link->operators[i], column_of("c", t->root, link->columns[i]),
								 get_atttype(t->root, link->columns[i]));
	}
	if (parent && parent->tombstone != 0)
		appendStringInfo(&query, " AND %s IS NULL",
						 column_of("p", parent->root, parent->fields[parent->tombstone_field].attnum));
	appendStringInfoChar(&query, ')');
	for (int i = 0; i < link->n; i++)
		appendStringInfo(&query, " AND %s IS NOT NULL", column_of("c", t->root, link->columns[i]));
	if (t->tombstone != 0)
		appendStringInfo(&query, " AND %s IS NULL",
						 column_of("c", t->root, t->fields[t->tombstone_field].attnum));
	return query.data;
}

/* -------------------------------------------------------------- the answers */

/* what the stream says of a parent */
typedef struct Parent
{
	bool		known;
	bool		deleted;
} Parent;

/* Callback: takes it from the last event. */
static bool
take_last(EsyncEvent *event, int index, void *arg)
{
	Parent	   *parent = arg;

	parent->known = true;
	parent->deleted = (event->flags & ESYNC_FLAG_DELETED) != 0;
	return false;
}

/* Do the link's columns point to the parent's key, in its order? */
static bool
points_to_key(const Link *link, const EsyncTracked *parent)
{
	if (parent == NULL || parent->nkeys != link->n)
		return false;
	for (int k = 0; k < link->n; k++)
		if (parent->fields[parent->keyfields[k]].attnum != link->parent_columns[k])
			return false;
	return true;
}

/* The parent's id as the row has it: canonical where it is the parent's key, else the texts. */
static text *
parent_id(const Link *link, EsyncTracked *parent, char **texts)
{
	EsyncJson	json;
	Jsonb	   *array;

	if (points_to_key(link, parent))
		return esync_key_from_texts(parent, texts, NULL);
	if (link->n == 1)
		return cstring_to_text(texts[0]);
	esync_json_init(&json, 256);
	esync_json_open_array(&json, link->n);
	for (int i = 0; i < link->n; i++)
		esync_json_string(&json, texts[i], strlen(texts[i]));
	esync_json_close(&json);
	array = esync_json_finish(&json);
	return cstring_to_text(JsonbToCString(NULL, &array->root, VARSIZE(array)));
}

/* The aggregate_id of the row at hand. */
static text *
child_id(EsyncTracked *t, HeapTuple tuple, TupleDesc desc)
{
	Datum	   *values = palloc0(MaxHeapAttributeNumber * sizeof(Datum));
	bool	   *nulls = palloc0(MaxHeapAttributeNumber * sizeof(bool));

	for (int k = 0; k < t->nkeys; k++)
		values[t->keyattnums[k] - 1] = heap_getattr(tuple, k + 1, desc,
													&nulls[t->keyattnums[k] - 1]);
	return esync_encode_key(t->key, values, nulls);
}

/* One row that points to nothing, unless the stream says that it points to what the caller may not see. */
static void
put_orphan(ReturnSetInfo *result, EsyncTracked *t, const Link *link, EsyncTracked *parent,
		   HeapTuple tuple, TupleDesc desc)
{
	char	  **texts = palloc(link->n * sizeof(char *));
	Parent		last = {false, false};
	Datum		values[5];
	bool		nulls[5] = {false};
	NameData	field;
	text	   *id;

	for (int i = 0; i < link->n; i++)
		texts[i] = SPI_getvalue(tuple, desc, t->nkeys + i + 1);
	id = parent_id(link, parent, texts);
	if (points_to_key(link, parent))
		esync_stream_back(parent, id, NULL, GetActiveSnapshot(), false, take_last, &last);
	if (last.known && !last.deleted)
		return;
	namestrcpy(&field, get_attname(t->root, link->columns[0], false));
	values[0] = PointerGetDatum(child_id(t, tuple, desc));
	values[1] = NameGetDatum(&field);
	values[2] = ObjectIdGetDatum(link->parent);
	values[3] = PointerGetDatum(id);
	values[4] = CStringGetTextDatum(last.known ? "deleted" : "missing");
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* All rows that a link leaves without a parent. */
static void
put_orphans(ReturnSetInfo *result, EsyncTracked *t, const Link *link)
{
	EsyncTracked *parent = esync_tracked_get(link->parent);
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "esync orphan",
											   ALLOCSET_DEFAULT_SIZES);
	Portal		portal;

	if (parent && !parent->is_root)
		parent = NULL;
	portal = SPI_cursor_open_with_args(NULL, orphans_query(t, link, parent), 0, NULL, NULL, NULL,
									   true, 0);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, 1000);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(work);

			CHECK_FOR_INTERRUPTS();
			put_orphan(result, t, link, parent, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(work);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
}

PG_FUNCTION_INFO_V1(esync_orphans);

/* esync_orphans(tbl regclass) */
Datum
esync_orphans(PG_FUNCTION_ARGS)
{
	EsyncTracked *t;
	List	   *links;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	t = esync_tracked_need(PG_GETARG_OID(0));
	links = find_links(t);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	foreach(lc, links)
		put_orphans((ReturnSetInfo *) fcinfo->resultinfo, t, lfirst(lc));
	SPI_finish();
	return (Datum) 0;
}
