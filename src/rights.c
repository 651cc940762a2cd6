/*
 * rights.c: who may see and who may switch.
 *
 * The readers run as their caller and open the stream themselves, so they ask
 * the tracked table: its grants, its column grants and its row policies.
 * Policies are asked by selecting the row as the caller, never copied.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "esync.h"

/* Raises unless the caller owns the table. */
void
esync_rights_owner(Oid relid)
{
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* May the caller name what is in the schema of the table, as a query would? */
static bool
may_use_schema(const EsyncTracked *t)
{
	Oid			schema = get_rel_namespace(t->root);

	/* where the table is gone, asking for its own grants says so */
	return !OidIsValid(schema) ||
		object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
}

/*
 * What the caller may read of a tracked table; false: not a single column, or
 * not its schema.  The bitmap holds plain attribute numbers of the root.
 */
bool
esync_rights_try(EsyncTracked *t, EsyncRights *rights)
{
	Oid			user = GetUserId();

	memset(rights, 0, sizeof(EsyncRights));
	if (!may_use_schema(t))
		return false;
	if (pg_class_aclcheck(t->root, user, ACL_SELECT) == ACLCHECK_OK)
		rights->all = rights->table_wide = true;
	for (int i = 0; !rights->all && i < t->nfields && t->fields[i].attnum != 0; i++)
		if (pg_attribute_aclcheck(t->root, t->fields[i].attnum, user, ACL_SELECT) == ACLCHECK_OK)
			rights->columns = bms_add_member(rights->columns, t->fields[i].attnum);
	if (!rights->all && bms_is_empty(rights->columns))
		return false;
	rights->rls = check_enable_rls(t->root, user, false) == RLS_ENABLED;
	return true;
}

/* The same; 42501 where it is nothing. */
void
esync_rights_read(EsyncTracked *t, EsyncRights *rights)
{
	if (esync_rights_try(t, rights))
		return;
	if (!may_use_schema(t))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA,
					   get_namespace_name(get_rel_namespace(t->root)));
	else
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(t->root)),
					   t->table_name);
}

/* May the history of this field be read?  One that is gone needs the table. */
bool
esync_rights_field(const EsyncRights *rights, const EsyncField *field)
{
	if (rights->all)
		return true;
	return field->attnum != 0 && bms_is_member(field->attnum, rights->columns);
}

/* Raises unless the caller may update a column, by a grant on it or on the table. */
void
esync_rights_update(const EsyncTracked *t, const EsyncField *field)
{
	if (pg_class_aclcheck(t->root, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck(t->root, field->attnum, GetUserId(), ACL_UPDATE) != ACLCHECK_OK)
		aclcheck_error_col(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(t->root)),
						   t->table_name, field->name);
}

/*
 * SELECT columns FROM the tracked table, and WHERE its key columns are $1 ...
 * where by_key; ONLY, unless it is partitioned: children by inheritance are
 * not captured.  Names are those of now: a renamed schema tells nobody.
 */
char *
esync_rights_query(const EsyncTracked *t, const char *columns, bool by_key)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfo(&query, "SELECT %s FROM %s%s", columns,
					 get_rel_relkind(t->root) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 esync_tracked_name(t));
	for (int k = 0; by_key && k < t->nkeys; k++)
	{
		const EsyncField *f = &t->fields[t->keyfields[k]];

		appendStringInfoString(&query, k ? " AND " : " WHERE ");
		generate_operator_clause(&query, quote_identifier(f->name), f->typid,
								 lookup_type_cache(f->typid, TYPECACHE_EQ_OPR)->eq_opr,
								 psprintf("$%d", k + 1), f->typid);
	}
	return query.data;
}

/* The types of the key columns, for the parameters of such a query. */
Oid *
esync_rights_key_types(const EsyncTracked *t)
{
	Oid		   *types = palloc(t->nkeys * sizeof(Oid));

	for (int k = 0; k < t->nkeys; k++)
		types[k] = t->fields[t->keyfields[k]].typid;
	return types;
}

/*
 * Selects columns of the row with this key as the caller, so that its grants
 * and policies decide; true if there is one.  Leaves SPI connected, for the
 * caller to take the row from SPI_tuptable and call SPI_finish.
 */
bool
esync_rights_select(const EsyncTracked *t, const char *columns, Datum *key)
{
	char	   *query = esync_rights_query(t, columns, true);
	Oid		   *types = esync_rights_key_types(t);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_plan(esync_plan(query, t->nkeys, types), key, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "reading a row of \"%s\" failed", t->table_name);
	return SPI_processed > 0;
}

/* May the caller select by the key: does it have SELECT on all its columns? */
bool
esync_rights_key(const EsyncTracked *t, const EsyncRights *rights)
{
	for (int k = 0; k < t->nkeys; k++)
		if (!esync_rights_field(rights, &t->fields[t->keyfields[k]]))
			return false;
	return true;
}

/*
 * Is there a row with this key that the caller may see?  A caller without
 * SELECT on the key columns sees none.
 */
bool
esync_rights_row(EsyncTracked *t, const EsyncRights *rights, Datum *key)
{
	bool		found;

	if (!esync_rights_key(t, rights))
		return false;
	found = esync_rights_select(t, "1", key);
	SPI_finish();
	return found;
}

/* How much of an operation's path names the column; 0 where it is none. */
static int
op_column_length(const JsonbValue *op, JsonbValue *path)
{
	const char *slash;

	if (op->type != jbvBinary ||
		!esync_json_member(op->val.binary.data, "path", 4, path) || path->type != jbvString ||
		path->val.string.len < 1)
		return 0;
	slash = memchr(path->val.string.val + 1, '/', path->val.string.len - 1);
	return slash ? slash - path->val.string.val : path->val.string.len;
}

/* The name of the column that an operation is about, or inside of; its length or -1. */
static int
op_column(const JsonbValue *op, char *name)
{
	JsonbValue	path;
	int			len = op_column_length(op, &path);

	return len > 0 ? esync_pointer_token(path.val.string.val, len, name) : -1;
}

/* How a reader may see a column */
typedef enum Sight
{
	HIDDEN,
	MASKED,						/* that it changed, not to what */
	SHOWN
} Sight;

/*
 * How the caller may see what the stream calls `name` at this event.  A column
 * that is masked or excluded now is so for its past as well.
 */
static Sight
sight_of(EsyncTracked *t, const EsyncRights *rights, const char *name, int len, int64 event_id)
{
	int			i = esync_field_at(t->fields, t->nfields, name, len, event_id);

	if (i < 0 || t->fields[i].excluded || !esync_rights_field(rights, &t->fields[i]))
		return HIDDEN;
	return t->fields[i].masked ? MASKED : SHOWN;
}

/* The value in place of a masked one. */
static void
mask_value(JsonbValue *value)
{
	value->type = jbvString;
	value->val.string.val = ESYNC_MASK;
	value->val.string.len = strlen(ESYNC_MASK);
}

/* An operation on a masked column: that it was set, not where inside of it, or to what. */
static Jsonb *
masked_op(const JsonbValue *op)
{
	EsyncMember members[3] = {{.key = "op", .keylen = 2}, {.key = "path", .keylen = 4},
	{.key = "value", .keylen = 5}};
	int			len = op_column_length(op, &members[1].value);

	esync_json_member(op->val.binary.data, "op", 2, &members[0].value);
	if (len < members[1].value.val.string.len)
	{
		members[0].value.type = jbvString;
		members[0].value.val.string.val = "replace";
		members[0].value.val.string.len = strlen("replace");
		members[1].value.val.string.len = len;
	}
	mask_value(&members[2].value);
	return esync_json_object(3, members);
}

/* Patch without the operations on columns that the caller may not read. */
static Jsonb *
filter_patch(EsyncTracked *t, const EsyncRights *rights, Jsonb *patch, int64 event_id)
{
	int			n = esync_json_count(&patch->root);
	JsonbValue *kept = palloc(Max(n, 1) * sizeof(JsonbValue));
	char	   *name = palloc(VARSIZE(patch));
	int			nkept = 0;
	EsyncWalk	walk;
	EsyncJson	json;

	esync_walk_init(&walk, &patch->root);
	while (esync_walk_next(&walk))
	{
		int			len = op_column(&walk.value, name);
		Sight		sight = len < 0 ? HIDDEN : sight_of(t, rights, name, len, event_id);

		if (sight == HIDDEN)
			continue;
		if (sight == MASKED)
			esync_json_root(masked_op(&walk.value), &walk.value);
		if (sight == SHOWN || nkept == 0 ||
			!esync_json_equal(&walk.value, &kept[nkept - 1], true))
			kept[nkept++] = walk.value;
	}
	esync_json_init(&json, VARSIZE(patch));
	esync_json_open_array(&json, nkept);
	for (int i = 0; i < nkept; i++)
		esync_json_value(&json, &kept[i]);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Payload without the members that the caller may not read. */
static Jsonb *
filter_payload(EsyncTracked *t, const EsyncRights *rights, Jsonb *payload, int64 event_id)
{
	EsyncMember *members = palloc(Max(esync_json_count(&payload->root), 1) * sizeof(EsyncMember));
	int			n = 0;
	EsyncWalk	walk;

	esync_walk_init(&walk, &payload->root);
	while (esync_walk_next(&walk))
	{
		Sight		sight = sight_of(t, rights, walk.key, walk.keylen, event_id);

		if (sight == HIDDEN)
			continue;
		members[n].key = walk.key;
		members[n].keylen = walk.keylen;
		members[n].value = walk.value;
		if (sight == MASKED)
			mask_value(&members[n].value);
		n++;
	}
	return esync_json_object(n, members);
}

/* Is a member of meta of that name? */
static bool
is_member(const EsyncWalk *walk, const char *name)
{
	return walk->keylen == strlen(name) && memcmp(walk->key, name, walk->keylen) == 0;
}

/* What constraints refused, without the columns that the caller may not read. */
static Jsonb *
filter_refused(const EsyncTracked *t, const EsyncRights *rights, const JsonbContainer *refused)
{
	EsyncMember *members = palloc(Max(esync_json_count(refused), 1) * sizeof(EsyncMember));
	int			n = 0;
	EsyncWalk	walk;

	esync_walk_init(&walk, refused);
	while (esync_walk_next(&walk))
	{
		int			field = esync_field_at(t->fields, t->nfields, walk.key, walk.keylen,
										   PG_INT64_MAX);

		if (field >= 0 && !t->fields[field].excluded && !t->fields[field].masked &&
			esync_rights_field(rights, &t->fields[field]))
			members[n++] = (EsyncMember) {walk.key, walk.keylen, walk.value};
	}
	return esync_json_object(n, members);
}

/*
 * Meta as the caller may see it: no keys for one who may not read the key, and
 * no values of columns that it may not read.
 */
Jsonb *
esync_rights_meta(EsyncTracked *t, const EsyncRights *rights, Jsonb *meta)
{
	EsyncMember *members;
	bool		key = esync_rights_key(t, rights);
	int			n = 0;
	EsyncWalk	walk;

	if (meta == NULL || (key && rights->all && !t->hides))
		return meta;
	members = palloc(Max(esync_json_count(&meta->root), 1) * sizeof(EsyncMember));
	esync_walk_init(&walk, &meta->root);
	while (esync_walk_next(&walk))
	{
		if (!key && (is_member(&walk, "moved_to") || is_member(&walk, "moved_from")))
			continue;
		members[n].key = walk.key;
		members[n].keylen = walk.keylen;
		members[n].value = walk.value;
		if (is_member(&walk, "refused") && walk.value.type == jbvBinary &&
			JsonContainerIsObject(walk.value.val.binary.data))
			esync_json_root(filter_refused(t, rights, walk.value.val.binary.data),
							&members[n].value);
		n++;
	}
	return esync_json_object(n, members);
}

/*
 * A patch or a payload as the caller may see it: without columns that it may
 * not read and those excluded, masked ones as ESYNC_MASK.  The very same
 * document where nothing is to be hidden; NULL stays NULL.
 */
Jsonb *
esync_rights_filter(EsyncTracked *t, const EsyncRights *rights,
					Jsonb *doc, bool is_patch, int64 event_id)
{
	if (doc == NULL || (rights->all && !t->hides))
		return doc;
	return is_patch ? filter_patch(t, rights, doc, event_id) :
		filter_payload(t, rights, doc, event_id);
}

/* The owner of the extension, as which esync's own relations are changed. */
Oid
esync_rights_extension_owner(void)
{
	Oid			extension = get_extension_oid("esync", false);
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "extension esync is not in the catalog");
	owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

/*
 * Runs "SELECT esync.<name>(args of fcinfo)" as the owner of the extension,
 * with a search_path that nobody else can write to.
 * The caller has checked that the user may.  True if it returns true.
 */
static bool
call_as_owner(FunctionCallInfo fcinfo, const char *name)
{
	StringInfoData query;
	Datum		values[FUNC_MAX_ARGS];
	char		nulls[FUNC_MAX_ARGS + 1];
	Oid		   *types;
	int			nargs;
	Oid			user;
	int			context;
	int			level;
	bool		isnull;
	bool		result;

	get_func_signature(fcinfo->flinfo->fn_oid, &types, &nargs);
	initStringInfo(&query);
	appendStringInfo(&query, "SELECT esync.%s(", name);
	for (int i = 0; i < nargs; i++)
	{
		appendStringInfo(&query, "%s$%d", i ? ", " : "", i + 1);
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	}
	appendStringInfoChar(&query, ')');
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(esync_rights_extension_owner(), context | SECURITY_LOCAL_USERID_CHANGE);
	level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(query.data, nargs, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "calling esync.%s failed", name);
	result = SPI_gettypeid(SPI_tuptable->tupdesc, 1) == BOOLOID &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	AtEOXact_GUC(true, level);
	SetUserIdAndSecContext(user, context);
	return result;
}

/* An error where the first argument, a table, is NULL. */
void
esync_rights_need_table(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("table must not be null"),
				 errhint("Name a table; to_regclass() gives NULL where there is none of that name.")));
}

/* The table that an administrative function was given; NULL is an error. */
static Oid
table_argument(FunctionCallInfo fcinfo)
{
	esync_rights_need_table(fcinfo);
	if (get_rel_name(PG_GETARG_OID(0)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(0))));
	return PG_GETARG_OID(0);
}

PG_FUNCTION_INFO_V1(esync_enable_table);
PG_FUNCTION_INFO_V1(esync_disable_table);

/* positions of arguments of esync_enable */
#define ENABLE_LINKS 13
#define ENABLE_BASELINE 15

/*
 * The option links with the names of tables qualified, as the caller's
 * search_path has them; what names no table is left as it is.
 */
static Datum
qualify_links(Datum links)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			type = JSONBOID;
	MemoryContext old;
	bool		isnull;

	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(links)) || JB_ROOT_COUNT(DatumGetJsonbP(links)) == 0)
		return links;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(
			"SELECT pg_catalog.jsonb_object_agg(l.key, CASE WHEN c.oid IS NULL THEN l.value "
			"ELSE pg_catalog.to_jsonb(pg_catalog.format('%I.%I', n.nspname, c.relname)) END) "
			"FROM pg_catalog.jsonb_each($1) AS l LEFT JOIN (pg_catalog.pg_class AS c "
			"JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace) "
			"ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass("
			"l.value OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.oid",
			1, &type, &links, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "qualifying links failed");
	old = MemoryContextSwitchTo(cxt);
	links = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	links = PointerGetDatum(PG_DETOAST_DATUM_COPY(links));
	MemoryContextSwitchTo(old);
	SPI_finish();
	return links;
}

/*
 * esync_enable(tbl, ...): the owner's right is asked here, the work is done
 * by esync.enable_table as the owner of the extension.  A baseline is taken
 * as the caller: encoding rows may run casts that users wrote.
 */
Datum
esync_enable_table(PG_FUNCTION_ARGS)
{
	Oid			relid = table_argument(fcinfo);
	bool		compare;

	esync_rights_owner(relid);
	esync_pending_pause(relid);	/* what this transaction did before was not seen */
	if (!PG_ARGISNULL(ENABLE_LINKS))
		fcinfo->args[ENABLE_LINKS].value = qualify_links(fcinfo->args[ENABLE_LINKS].value);
	compare = call_as_owner(fcinfo, "enable_table");
	if (compare || (!PG_ARGISNULL(ENABLE_BASELINE) && PG_GETARG_BOOL(ENABLE_BASELINE)))
		esync_capture_baseline(relid);
	PG_RETURN_VOID();
}

/* esync_disable(tbl, drop_history) */
Datum
esync_disable_table(PG_FUNCTION_ARGS)
{
	esync_rights_owner(table_argument(fcinfo));
	(void) call_as_owner(fcinfo, "disable_table");
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(esync_leaf_stats);

/*
 * esync.leaf_stats(table_id, tbl): counts for whoever may read the table, or
 * the leaf itself where the table is gone; else NULLs.
 */
Datum
esync_leaf_stats(PG_FUNCTION_ARGS)
{
	Oid			leaf = get_relname_relid(psprintf("event_%d", PG_GETARG_INT32(0)),
										 get_namespace_oid("esync", false));
	EsyncTracked *t = PG_ARGISNULL(1) ? NULL : esync_tracked_get(PG_GETARG_OID(1));
	Oid			asked = t && t->table_id == PG_GETARG_INT32(0) ? t->root : leaf;
	TupleDesc	desc;
	EsyncCount	count;
	Datum		values[5] = {0};
	bool		nulls[5] = {true, true, true, true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	if (OidIsValid(leaf) && pg_class_aclcheck(asked, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
	{
		esync_leaf_count(leaf, &count);
		values[0] = Int64GetDatum(count.events);
		values[1] = Int64GetDatum(count.aggregates);
		values[2] = DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(leaf));
		values[3] = TimestampTzGetDatum(count.oldest);
		values[4] = TimestampTzGetDatum(count.newest);
		nulls[0] = nulls[1] = nulls[2] = false;
		nulls[3] = nulls[4] = count.events == 0;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
