/*
 * temporary.c: the keys of a batch, and the temporary ids in them.
 *
 * A device that creates rows offline may call them by temporary ids, in their
 * key and in the columns that point to them.  The real id is what the table
 * itself would give: the column's default.  What stands for what is kept by
 * device in esync.temporary_id, so that a repeat means the same rows.
 *
 * Defaults are evaluated as the caller, within the subtransaction of the
 * event, since they may fail.  A value once taken is kept when the event is run
 * again.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "coder.h"
#include "submit.h"

/* so many values of a default may be taken already */
#define MAX_DRAWS 10000

/* columns of esync.temporary_id */
enum
{
	MAP_DEVICE_ID = 1, MAP_TEMPORARY, MAP_TABLE_ID, MAP_VALUE,
	MAP_COUNT = MAP_VALUE
};

/* ------------------------------------------------------------ the mappings */

static bool
is_temporary_text(const char *string, int len)
{
	return (len >= 4 && memcmp(string, "tmp:", 4) == 0) ||
		(len >= 5 && memcmp(string, "temp_", 5) == 0);
}

static bool
is_temporary(const JsonbValue *v)
{
	return v->type == jbvString && is_temporary_text(v->val.string.val, v->val.string.len);
}

/* Asks the table of mappings for one of this device's. */
static void
look_up(EsyncBatch *b, EsyncTemporary *e)
{
	EsyncSide	side;
	ScanKeyData keys[2];
	Datum		values[MAP_COUNT];
	bool		nulls[MAP_COUNT];

	ScanKeyInit(&keys[0], MAP_DEVICE_ID, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(b->device_id));
	ScanKeyInit(&keys[1], MAP_TEMPORARY, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(e->name));
	esync_side_open(&side, "temporary_id", AccessShareLock);
	esync_side_scan(&side, "temporary_id_pkey", SnapshotSelf, keys, 2);
	if (esync_side_next(&side, values, nulls))
	{
		e->stored = true;
		e->table_id = DatumGetInt32(values[MAP_TABLE_ID - 1]);
		e->value = DatumGetJsonbPCopy(values[MAP_VALUE - 1]);
	}
	esync_side_close(&side);
}

/* The entry of a temporary id; NULL if it is too long for one. */
static EsyncTemporary *
entry_of(EsyncBatch *b, const char *string, int len)
{
	char		name[ESYNC_TEMPORARY_MAX + 1] = {0};
	EsyncTemporary *e;
	bool		found;

	if (len > ESYNC_TEMPORARY_MAX)
		return NULL;
	memcpy(name, string, len);
	if (b->temporaries == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(name);
		ctl.entrysize = sizeof(EsyncTemporary);
		ctl.hcxt = b->cxt;
		b->temporaries = hash_create("esync temporary ids", 32, &ctl,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	e = hash_search(b->temporaries, name, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(b->cxt);

		memset((char *) e + sizeof(name), 0, sizeof(EsyncTemporary) - sizeof(name));
		if (b->device_id)
			look_up(b, e);
		MemoryContextSwitchTo(old);
	}
	return e;
}

/* Does a column of that name point to other rows?  Of that table, if it is given. */
static bool
is_reference(const EsyncTarget *target, const char *name, int len, int32 table_id)
{
	for (int i = 0; i < target->nreferences; i++)
		for (int c = 0; c < target->references[i].n; c++)
		{
			const char *column = target->references[i].columns[c];
			EsyncTracked *parent;

			if (strlen(column) != len || memcmp(column, name, len) != 0)
				continue;
			if (table_id == 0)
				return true;
			parent = esync_tracked_get(target->references[i].parent);
			if (parent != NULL && parent->table_id == table_id)
				return true;
		}
	return false;
}

/* Is it a column of the key? */
static bool
is_key_column(const EsyncTracked *t, const char *name, int len)
{
	for (int k = 0; k < t->nkeys; k++)
	{
		const char *column = t->fields[t->keyfields[k]].name;

		if (strlen(column) == len && memcmp(column, name, len) == 0)
			return true;
	}
	return false;
}

/* Looks for temporary ids in the columns that may hold them. */
static void
note_temporaries(EsyncBatch *b, EsyncItem *item, EsyncTracked *t, Jsonb *document)
{
	EsyncWalk	walk;

	if (document == NULL)
		return;
	esync_walk_init(&walk, &document->root);
	while (esync_walk_next(&walk))
	{
		if (!is_temporary(&walk.value) ||
			(!is_key_column(t, walk.key, walk.keylen) &&
			 !is_reference(item->target, walk.key, walk.keylen, 0)))
			continue;
		item->temporary = b->has_temporaries = true;
		if (entry_of(b, walk.value.val.string.val, walk.value.val.string.len) == NULL)
			esync_item_reject(item, "invalid", "a temporary id has at most %d bytes",
							  ESYNC_TEMPORARY_MAX);
	}
}

/* -------------------------------------------------------------------- keys */

/* The columns of the key, for messages. */
static char *
key_columns(const EsyncTracked *t)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < t->nkeys; k++)
		appendStringInfo(&s, "%s%s", k ? ", " : "", t->fields[t->keyfields[k]].name);
	return s.data;
}

/* The text of one key column as the member "key" has it; NULL if it does not fit. */
static char *
given_key(const EsyncItem *item, const EsyncTracked *t, int k)
{
	const JsonbContainer *json;
	JsonbValue	v = item->key;
	const char *name = t->fields[t->keyfields[k]].name;
	Datum		parsed;

	/* a composite key as aggregate_id has it: the text of a JSON array */
	if (v.type == jbvString && t->nkeys > 1 &&
		esync_scalar_try(jsonb_in, esync_scalar_text(&v), &parsed))
		esync_json_root(DatumGetJsonbP(parsed), &v);
	if (v.type == jbvBinary)
	{
		json = v.val.binary.data;
		if (esync_json_count(json) != t->nkeys)
			return NULL;
		if (JsonContainerIsArray(json))
			esync_json_element(json, k, &v);
		else if (!esync_json_member(json, name, strlen(name), &v))
			return NULL;
	}
	else if (t->nkeys > 1)
		return NULL;
	return v.type == jbvNull ? NULL : esync_scalar_text(&v);
}

/* The text of one key column in the document; NULL if it is not there. */
static char *
document_key(const EsyncItem *item, const EsyncTracked *t, int k)
{
	const Jsonb *document = item->edit.document ? item->edit.document : item->edit.set;
	const char *name = t->fields[t->keyfields[k]].name;
	JsonbValue	v;

	if (document == NULL || !esync_json_member(&document->root, name, strlen(name), &v) ||
		v.type == jbvNull)
		return NULL;
	return esync_scalar_text(&v);
}

/*
 * The aggregate_id of a key given by texts; NULL, and the item is rejected, if
 * they are none.  A domain's checks may run anything, so they get a
 * subtransaction.
 */
static text *
canonical_key(EsyncItem *item, EsyncTracked *t, char **texts, Datum *values)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	text	   *volatile result = NULL;
	volatile bool sub = false;
	int			level = NewGUCNestLevel();

	for (int k = 0; k < t->nkeys; k++)
		sub |= get_typtype(t->fields[t->keyfields[k]].typid) == TYPTYPE_DOMAIN;
	if (sub)
		BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		result = esync_key_from_texts(t, texts, values);
		if (sub)
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		if (!sub && ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		error = CopyErrorData();
		FlushErrorState();
		if (sub)
			RollbackAndReleaseCurrentSubTransaction();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
			ReThrowError(error);
		MemoryContextSwitchTo(cxt);
		esync_item_reject(item, "invalid", "%s", error->message);
		result = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	AtEOXact_GUC(true, level);
	return result;
}

/* Do the key as given and that in the document mean one row? */
static bool
keys_agree(EsyncItem *item, EsyncTracked *t, char **inside)
{
	text	   *given;
	text	   *meant;

	for (int k = 0; k < t->nkeys; k++)
		if (strcmp(item->keytexts[k], inside[k]) != 0 &&
			(is_temporary_text(item->keytexts[k], strlen(item->keytexts[k])) ||
			 is_temporary_text(inside[k], strlen(inside[k]))))
			return false;
	given = canonical_key(item, t, item->keytexts, NULL);
	meant = given ? canonical_key(item, t, inside, NULL) : NULL;
	return meant == NULL || (VARSIZE_ANY_EXHDR(given) == VARSIZE_ANY_EXHDR(meant) &&
							 memcmp(VARDATA_ANY(given), VARDATA_ANY(meant),
									VARSIZE_ANY_EXHDR(given)) == 0);
}

/* The texts of the key columns, from "key", the document, or both; false if it has none. */
static bool
collect_key(EsyncItem *item, EsyncTracked *t)
{
	char	  **inside = palloc(t->nkeys * sizeof(char *));
	bool		given = item->key.type != jbvNull;
	bool		differ = false;

	item->keytexts = palloc(t->nkeys * sizeof(char *));
	for (int k = 0; k < t->nkeys; k++)
	{
		item->keytexts[k] = given ? given_key(item, t, k) : document_key(item, t, k);
		if (item->keytexts[k] == NULL)
		{
			esync_item_reject(item, "invalid", given ? "the key does not fit table \"%s\": it consists of %s" :
							  "the event names no row of table \"%s\": its key consists of %s",
							  t->table_name, key_columns(t));
			item->keytexts = NULL;
			return false;
		}
		inside[k] = document_key(item, t, k);
		if (inside[k] == NULL)
			inside[k] = item->keytexts[k];
		differ |= strcmp(inside[k], item->keytexts[k]) != 0;
	}
	if (!differ || keys_agree(item, t, inside))
		return true;
	esync_item_reject(item, "invalid", "the key contradicts the document");
	item->keytexts = NULL;
	return false;
}

/* Is it this event that gives the temporary id in a key column its meaning? */
static bool
defines(const EsyncItem *item, const EsyncTracked *t, int k)
{
	const char *column = t->fields[t->keyfields[k]].name;

	return (item->edit.verb == ESYNC_VERB_CREATE || item->edit.verb == ESYNC_VERB_SAVE) &&
		!is_reference(item->target, column, strlen(column), 0);
}

/* Does the key hold a temporary id? */
static bool
note_key(EsyncBatch *b, EsyncItem *item, EsyncTracked *t)
{
	bool		result = false;

	for (int k = 0; k < t->nkeys; k++)
	{
		int			len = strlen(item->keytexts[k]);
		EsyncTemporary *e;

		if (!is_temporary_text(item->keytexts[k], len))
			continue;
		result = item->temporary = b->has_temporaries = true;
		e = entry_of(b, item->keytexts[k], len);
		if (e == NULL)
			esync_item_reject(item, "invalid", "a temporary id has at most %d bytes",
							  ESYNC_TEMPORARY_MAX);
		else if (e->creator == NULL && defines(item, t, k))
		{
			e->creator = item;
			e->column = k;
		}
	}
	return result;
}

/* Do the temporary ids in the key mean something already?  Then texts is the real key. */
static bool
is_known_key(EsyncBatch *b, EsyncItem *item, EsyncTracked *t, char **texts)
{
	for (int k = 0; k < t->nkeys; k++)
	{
		int			len = strlen(item->keytexts[k]);
		EsyncTemporary *e;
		JsonbValue	v;

		texts[k] = item->keytexts[k];
		if (!is_temporary_text(texts[k], len))
			continue;
		e = entry_of(b, texts[k], len);
		if (e == NULL || !e->stored)
			return false;
		esync_json_root(e->value, &v);
		texts[k] = esync_scalar_text(&v);
	}
	return true;
}

/* Finds table and row of an event, as far as that can be done before it is run. */
static void
find_row(EsyncBatch *b, EsyncItem *item)
{
	EsyncTracked *t;
	char	   *texts[INDEX_MAX_KEYS];
	bool		temporary;

	item->target = esync_target_get(b, item->table);
	if (!OidIsValid(item->target->root))
	{
		if (!item->duplicate)
			esync_item_reject(item, "unknown_table", "%s", item->target->message);
		return;
	}
	t = esync_tracked_get(item->target->root);
	note_temporaries(b, item, t, item->edit.document);
	note_temporaries(b, item, t, item->edit.set);
	note_temporaries(b, item, t, item->edit.base);
	if (item->duplicate)
		return;
	if (!collect_key(item, t))
		return;
	temporary = note_key(b, item, t);
	if (temporary && !is_known_key(b, item, t, texts))
		return;
	item->keyvalues = palloc(t->nkeys * sizeof(Datum));
	item->aggregate_id = canonical_key(item, t, temporary ? texts : item->keytexts,
									   item->keyvalues);
}

/*
 * Finds table and row of an event before the batch is put in order; a
 * temporary id may get its meaning only when it is run.  Of one that is wrong
 * the row is looked for as well, so that those hear of it who need it; where
 * none is found it has no place in the order.
 */
void
esync_temporary_prepare(EsyncBatch *b, EsyncItem *item)
{
	if (item->table == NULL || item->untold)
		return;
	find_row(b, item);
	if (item->aggregate_id == NULL && (item->status == ESYNC_REJECTED && !item->temporary))
		item->keytexts = NULL;
}

/* ----------------------------------------------------------- the real ids */

/* The default of a key column, evaluated now; false if it has none. */
static bool
evaluate_default(Relation rel, AttrNumber attnum, Datum *value)
{
	Node	   *expr = build_column_default(rel, attnum);
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	EState	   *estate;
	bool		isnull;

	if (expr == NULL)
		return false;
	estate = CreateExecutorState();
	*value = ExecEvalExprSwitchContext(ExecInitExpr(expression_planner((Expr *) expr), NULL),
									   GetPerTupleExprContext(estate), &isnull);
	if (!isnull)
		*value = datumCopy(*value, att->attbyval, att->attlen);
	FreeExecutorState(estate);
	return !isnull;
}

/* May the caller insert anything into the table?  Else its defaults are not his to draw. */
static bool
may_insert(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_INSERT, ACLMASK_ANY) == ACLCHECK_OK;
}

/* A value for a key column: its default, else a random uuid; false if it has neither. */
static bool
draw_value(EsyncTracked *t, int k, Relation rel, Datum *value)
{
	const EsyncField *f = &t->fields[t->keyfields[k]];
	Oid			type = getBaseType(f->typid);

	if (evaluate_default(rel, f->attnum, value))
		return true;
	if (type != UUIDOID && type != TEXTOID && type != VARCHAROID)
		return false;
	*value = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
	if (type != UUIDOID)
		*value = CStringGetTextDatum(esync_uuid_text(DatumGetUUIDP(*value)));
	return true;
}

/* Does a value name a row already, living or gone?  A key of several columns says nothing so. */
static bool
is_taken(EsyncTracked *t, Datum value)
{
	Datum	   *values = palloc0((t->keyattnums[0]) * sizeof(Datum));
	bool	   *nulls = palloc0((t->keyattnums[0]) * sizeof(bool));
	EsyncLookup *lookup;
	EsyncRights rights;
	bool		found;

	if (t->nkeys > 1)
		return false;
	values[t->keyattnums[0] - 1] = value;
	lookup = esync_stream_lookup_begin(t, SnapshotSelf);
	found = esync_stream_lookup(lookup, esync_encode_key(t->key, values, nulls));
	esync_stream_lookup_end(lookup);
	if (found)
		return true;
	esync_rights_read(t, &rights);
	return esync_rights_row(t, &rights, &value);
}

/*
 * A new id for a key column.  A sequence may be behind the rows: values that
 * are taken are passed over.  NULL, and the item is rejected, if there is none.
 */
static Jsonb *
new_id(EsyncItem *item, EsyncTracked *t, int k)
{
	Relation	rel = table_open(t->root, AccessShareLock);
	JsonbValue	json;
	Datum		value = (Datum) 0;
	int			tries = 0;

	if (!may_insert(t->root))
		esync_item_reject(item, "denied", "permission denied for table %s", t->table_name);
	while (item->status != ESYNC_REJECTED)
	{
		CHECK_FOR_INTERRUPTS();
		if (!draw_value(t, k, rel, &value) || ++tries > MAX_DRAWS)
			esync_item_reject(item, "invalid", "column \"%s\" of table \"%s\" has no default for a temporary id",
							  t->fields[t->keyfields[k]].name, t->table_name);
		else if (!is_taken(t, value))
			break;
	}
	table_close(rel, NoLock);
	if (item->status == ESYNC_REJECTED)
		return NULL;
	esync_encode_value(t->key, k, value, false, &json);
	return esync_json_from_value(&json);
}

/* Gives a temporary id its meaning, if an event of the batch is to do that; else it stays void. */
static void
define(EsyncItem *item, EsyncTemporary *e)
{
	EsyncTracked *t;

	if (e->value != NULL || e->creator == NULL || e->creator->status == ESYNC_REJECTED)
		return;
	t = esync_tracked_get(e->creator->target->root);
	e->value = new_id(item, t, e->column);
	e->table_id = t->table_id;
}

/* Why a temporary id has no meaning yet. */
static void
unknown_id(EsyncItem *item, const EsyncTemporary *e)
{
	if (e->creator && e->creator->has_id)
		esync_item_reject(item, "depends_on", "temporary id \"%s\" was to come from event %s, which was rejected",
						  e->name, esync_uuid_text(&e->creator->id));
	else
		esync_item_reject(item, "depends_on", "temporary id \"%s\" is not known", e->name);
}

/* Has the event that was to give the id its meaning come to nothing? */
static bool
is_void(const EsyncTemporary *e)
{
	return e->value == NULL ||
		(!e->stored && e->creator && e->creator->final && e->creator->status == ESYNC_REJECTED);
}

/* What a temporary id in a column stands for; NULL, and the item is rejected, if nothing. */
static Jsonb *
meaning(EsyncBatch *b, EsyncItem *item, EsyncTracked *t, const char *column, int len,
		const JsonbValue *v)
{
	EsyncTemporary *e = entry_of(b, v->val.string.val, v->val.string.len);
	bool		is_key = is_key_column(t, column, len) &&
		!is_reference(item->target, column, len, 0);

	define(item, e);
	if (is_void(e))
	{
		unknown_id(item, e);
		return NULL;
	}
	if (is_key ? e->table_id != item->target->table_id :
		!is_reference(item->target, column, len, e->table_id))
	{
		esync_item_reject(item, "invalid", "temporary id \"%s\" in column \"%.*s\" is a row of another table",
						  e->name, len, column);
		return NULL;
	}
	return e->value;
}

/* Where this event creates the row of a temporary id that came to nothing before, it means this one. */
static void
take_over(EsyncBatch *b, EsyncItem *item, EsyncTracked *t, int k)
{
	EsyncTemporary *e = entry_of(b, item->keytexts[k], strlen(item->keytexts[k]));

	if (!defines(item, t, k) || e->stored || e->creator == item ||
		(e->creator && (!e->creator->final || e->creator->status != ESYNC_REJECTED)))
		return;
	e->creator = item;
	e->column = k;
	if (e->table_id != item->target->table_id)
		e->value = NULL;
}

/* A document with real ids in place of temporary ones. */
static Jsonb *
real_document(EsyncBatch *b, EsyncItem *item, EsyncTracked *t, Jsonb *document)
{
	EsyncMember *members;
	int			n = 0;
	EsyncWalk	walk;

	if (document == NULL || item->status == ESYNC_REJECTED)
		return document;
	members = palloc((JB_ROOT_COUNT(document) + 1) * sizeof(EsyncMember));
	esync_walk_init(&walk, &document->root);
	while (esync_walk_next(&walk))
	{
		Jsonb	   *real;

		members[n] = (EsyncMember) {walk.key, walk.keylen, walk.value};
		if (is_temporary(&walk.value) &&
			(is_key_column(t, walk.key, walk.keylen) ||
			 is_reference(item->target, walk.key, walk.keylen, 0)))
		{
			real = meaning(b, item, t, walk.key, walk.keylen, &walk.value);
			if (real == NULL)
				return document;
			esync_json_root(real, &members[n].value);
		}
		n++;
	}
	return esync_json_object(n, members);
}

/* Puts real ids in place of temporary ones, and finds the row; or rejects the item. */
void
esync_temporary_resolve(EsyncBatch *b, EsyncItem *item)
{
	EsyncTracked *t = esync_tracked_get(item->target->root);
	char	  **texts = palloc(t->nkeys * sizeof(char *));
	JsonbValue	v;

	for (int k = 0; k < t->nkeys; k++)
	{
		const char *column = t->fields[t->keyfields[k]].name;
		Jsonb	   *real;

		texts[k] = item->keytexts[k];
		if (!is_temporary_text(texts[k], strlen(texts[k])))
			continue;
		take_over(b, item, t, k);
		v.type = jbvString;
		v.val.string.val = texts[k];
		v.val.string.len = strlen(texts[k]);
		real = meaning(b, item, t, column, strlen(column), &v);
		if (real == NULL)
			return;
		esync_json_root(real, &v);
		texts[k] = esync_scalar_text(&v);
	}
	item->edit.document = real_document(b, item, t, item->edit.document);
	item->edit.set = real_document(b, item, t, item->edit.set);
	item->edit.base = real_document(b, item, t, item->edit.base);
	if (item->status == ESYNC_REJECTED)
		return;
	item->keyvalues = palloc(t->nkeys * sizeof(Datum));
	item->aggregate_id = canonical_key(item, t, texts, item->keyvalues);
	item->resolved = item->aggregate_id != NULL;
}

/* Has this id got its meaning for good? */
static bool
is_settled(const EsyncTemporary *e)
{
	return e->value != NULL && (e->stored ||
								(e->creator && (e->creator->status == ESYNC_ACCEPTED ||
												e->creator->status == ESYNC_CONFLICTING)));
}

/* Keeps what was given a meaning, for this device's next batches. */
void
esync_temporary_keep(EsyncBatch *b)
{
	HASH_SEQ_STATUS status;
	EsyncTemporary *e;
	EsyncSide	side;
	Datum		values[MAP_COUNT];
	bool		nulls[MAP_COUNT] = {false};

	if (b->temporaries == NULL || b->device_id == NULL)
		return;
	esync_side_open(&side, "temporary_id", RowExclusiveLock);
	hash_seq_init(&status, b->temporaries);
	while ((e = hash_seq_search(&status)) != NULL)
	{
		if (e->stored || !is_settled(e))
			continue;
		values[MAP_DEVICE_ID - 1] = PointerGetDatum(b->device_id);
		values[MAP_TEMPORARY - 1] = CStringGetTextDatum(e->name);
		values[MAP_TABLE_ID - 1] = Int32GetDatum(e->table_id);
		values[MAP_VALUE - 1] = JsonbPGetDatum(e->value);
		esync_side_add(&side, values, nulls);
	}
	esync_side_close(&side);
}

/* {"tmp:1": real id, ...} of all temporary ids that the batch names and that mean something. */
Jsonb *
esync_temporary_ids(EsyncBatch *b)
{
	HASH_SEQ_STATUS status;
	EsyncTemporary *e;
	EsyncMember *members;
	int			n = 0;

	if (b->temporaries == NULL)
		return esync_json_object(0, NULL);
	members = palloc(hash_get_num_entries(b->temporaries) * sizeof(EsyncMember));
	hash_seq_init(&status, b->temporaries);
	while ((e = hash_seq_search(&status)) != NULL)
	{
		if (!is_settled(e))
			continue;
		members[n].key = e->name;
		members[n].keylen = strlen(e->name);
		esync_json_root(e->value, &members[n++].value);
	}
	return esync_json_object(n, members);
}
