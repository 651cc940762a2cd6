/*
 * conflict.c: the ledger: which edits contradict each other.
 *
 * esync.conflict has at most one open row for each field of an aggregate, with
 * all its contenders; which these are is said by merge.c, a function of the
 * set of events.  A row is written under the lock of the user's row, by which
 * all events of an aggregate are written, and read with SnapshotSelf, so it is
 * right at every isolation level.  Here it is read; note.c writes it.
 *
 * A name in the ledger is that of the moment when the conflict was opened; it
 * is resolved by that event, as names in patches are.
 *
 * Memory: the caller's context.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "conflict.h"

/* ----------------------------------------------------------------- places */

/* The column that a name of some length bore at an event; -1: none. */
static int
column_of(const EsyncTracked *t, const char *name, int len, int64 event_id)
{
	int			field = esync_field_at(t->fields, t->nfields, name, len, event_id);
	char	   *token;

	if (field >= 0)
		return field;
	token = palloc(len + 2);
	len = esync_pointer_token(psprintf("/%.*s", len, name), len + 1, token);
	return len < 0 ? -1 : esync_field_at(t->fields, t->nfields, token, len, event_id);
}

/*
 * What a name in the ledger meant at an event (PG_INT64_MAX: now).  Groups are
 * those of now.  A column's whole name goes before a path: names may have
 * slashes.
 */
EsyncPlace
esync_ledger_place(const EsyncTracked *t, const text *field, int64 event_id)
{
	EsyncPlace	place = {.field = -1, .group = -1, .path = ""};
	char	   *name;

	if (field == NULL)
	{
		place.row = true;
		return place;
	}
	name = text_to_cstring(field);
	for (int i = 0; i < t->ngroups; i++)
		if (strcmp(t->groups[i].name, name) == 0)
		{
			place.group = i;
			return place;
		}
	place.field = esync_field_at(t->fields, t->nfields, name, strlen(name), event_id);
	for (char *slash = strchr(name, '/'); place.field < 0 && slash; slash = strchr(slash + 1, '/'))
	{
		place.field = column_of(t, name, slash - name, event_id);
		if (place.field >= 0)
			place.path = slash;
	}
	return place;
}

/*
 * What a caller calls by a name: a group, a column (also by a name that it had),
 * or a path inside of a jsonb column.  False: nothing in the table was ever
 * called so.
 */
bool
esync_ledger_lookup(const EsyncTracked *t, const char *name, EsyncPlace *place)
{
	int			field = esync_field_called(t->fields, t->nfields, name);

	*place = esync_ledger_place(t, cstring_to_text(name), PG_INT64_MAX);
	if (place->group >= 0)
		return true;
	if (field >= 0)
		*place = (EsyncPlace) {.field = field, .group = -1, .path = ""};
	return place->field >= 0 &&
		(*place->path == '\0' || t->fields[place->field].attnum == 0 ||
		 getBaseType(t->fields[place->field].typid) == JSONBOID);
}

/* The error of a name that nothing in the table was ever called. */
void
esync_ledger_unknown(const EsyncTracked *t, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("field \"%s\" does not exist", name),
			 errhint("Name a column that table \"%s\" has or had, one of its groups, or a path inside of a jsonb column.",
					 t->table_name)));
}

/* Are two names, resolved, about the same?  Those of nothing that is there must be equal. */
bool
esync_ledger_same_place(const EsyncPlace *a, const text *a_name, const EsyncPlace *b, const text *b_name)
{
	if (a->row || b->row)
		return a->row && b->row;
	if (a->field >= 0 || b->field >= 0)
		return a->field == b->field && strcmp(a->path, b->path) == 0;
	return VARSIZE_ANY_EXHDR(a_name) == VARSIZE_ANY_EXHDR(b_name) &&
		memcmp(VARDATA_ANY(a_name), VARDATA_ANY(b_name), VARSIZE_ANY_EXHDR(a_name)) == 0;
}

/* Does one place lie inside of another: deeper in the same column? */
bool
esync_ledger_lies_inside(const EsyncPlace *inner, const EsyncPlace *outer)
{
	int			len = strlen(outer->path);

	return outer->field >= 0 && inner->field == outer->field &&
		strncmp(inner->path, outer->path, len) == 0 && inner->path[len] == '/';
}

/* A conflict's field under the name it has now; NULL: the row as a whole. */
char *
esync_ledger_name(const EsyncTracked *t, const EsyncConflict *conflict, const EsyncPlace *place)
{
	if (place->row)
		return NULL;
	if (place->field >= 0)
		return psprintf("%s%s", t->fields[place->field].name, place->path);
	return text_to_cstring(conflict->field);
}

/* Does a place cover a column?  A group covers its members; field -1 is the row itself. */
bool
esync_ledger_covers(const EsyncTracked *t, const EsyncPlace *place, int field)
{
	if (place->row)
		return field < 0 || field == t->tombstone_field;
	if (place->group < 0)
		return field >= 0 && place->field == field;
	for (int i = 0; i < t->groups[place->group].nfields; i++)
		if (t->groups[place->group].fields[i] == field)
			return true;
	return false;
}

/* Is a conflict of that present name about a field: itself, inside of it, or its group? */
bool
esync_ledger_about(const EsyncTracked *t, const EsyncPlace *place, const char *name,
				   const char *field)
{
	const EsyncGroup *group = place->group < 0 ? NULL : &t->groups[place->group];

	if (name == NULL)
		return false;
	if (strcmp(name, field) == 0)
		return true;
	if (place->field >= 0 && strcmp(t->fields[place->field].name, field) == 0)
		return true;
	for (int i = 0; group && i < group->nfields; i++)
		if (strcmp(t->fields[group->fields[i]].name, field) == 0)
			return true;
	return false;
}

/*
 * May a conflict about this be shown: is there a column in it that the caller
 * may read?  Columns without a register have no conflicts.
 */
bool
esync_ledger_readable(const EsyncTracked *t, const EsyncRights *rights, const EsyncPlace *place)
{
	if (place->row)
		return true;
	if (place->field < 0 && place->group < 0)
		return rights->all;
	for (int i = 0; i < t->nfields; i++)
	{
		const EsyncField *f = &t->fields[i];

		if (esync_ledger_covers(t, place, i) && !f->excluded && !f->masked && esync_rights_field(rights, f))
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------- reading */

/* A row of the relation as a struct; it points to where values do. */
EsyncConflict *
esync_ledger_read(const Datum *values, const bool *nulls)
{
	EsyncConflict *c = palloc0(sizeof(EsyncConflict));

#define POINTER(attr, get) (nulls[(attr) - 1] ? NULL : get(values[(attr) - 1]))
#define NUMBER(attr) (nulls[(attr) - 1] ? 0 : DatumGetInt64(values[(attr) - 1]))
	c->conflict_id = NUMBER(COL_CONFLICT_ID);
	c->aggregate_id = POINTER(COL_AGGREGATE_ID, DatumGetTextPP);
	c->field = POINTER(COL_FIELD, DatumGetTextPP);
	c->kind = POINTER(COL_KIND, DatumGetTextPP);
	c->base_value = POINTER(COL_BASE_VALUE, DatumGetJsonbP);
	c->contenders = POINTER(COL_CONTENDERS, DatumGetJsonbP);
	c->shown_event = NUMBER(COL_SHOWN_EVENT);
	c->shown_value = POINTER(COL_SHOWN_VALUE, DatumGetJsonbP);
	c->open = nulls[COL_RESOLVED_AT - 1];
	c->opened_at = NUMBER(COL_OPENED_AT);
	c->opened_event = NUMBER(COL_OPENED_EVENT);
	c->resolved_at = NUMBER(COL_RESOLVED_AT);
	c->resolved_by = POINTER(COL_RESOLVED_BY, DatumGetTextPP);
	c->resolution = POINTER(COL_RESOLUTION, DatumGetTextPP);
	c->resolved_event = NUMBER(COL_RESOLVED_EVENT);
#undef POINTER
#undef NUMBER
	return c;
}

/* Begins a scan of one aggregate's conflicts, all of them or those that are open. */
void
esync_ledger_scan(EsyncSide *side, int32 table_id, text *aggregate_id, bool open, Snapshot snapshot)
{
	ScanKeyData keys[3];

	ScanKeyInit(&keys[0], COL_TABLE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	ScanKeyInit(&keys[1], COL_AGGREGATE_ID, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(aggregate_id));
	ScanKeyInit(&keys[2], COL_STATUS, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum("open"));
	esync_side_scan(side, "conflict_aggregate_id", snapshot, keys, open ? 3 : 2);
}

/* Begins a scan of a table's conflicts of one status, by conflict_id. */
static void
scan_table(EsyncSide *side, int32 table_id, bool open, int64 after, Snapshot snapshot)
{
	ScanKeyData keys[3];

	ScanKeyInit(&keys[0], COL_TABLE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	ScanKeyInit(&keys[1], COL_STATUS, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(open ? "open" : "closed"));
	ScanKeyInit(&keys[2], COL_CONFLICT_ID, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after));
	esync_side_scan(side, "conflict_status", snapshot, keys, 3);
}

/* what is asked of a scan */
typedef struct Each
{
	EsyncLedgerStatus status;
	int64		after;
	EsyncConflictCallback callback;
	void	   *arg;
	MemoryContext scratch;
} Each;

/* Hands out what a scan gives, until the callback has enough. */
static void
hand_out(EsyncSide *side, const Each *each)
{
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
	MemoryContext old = MemoryContextSwitchTo(each->scratch);
	bool		more = true;

	while (more && esync_side_next(side, values, nulls))
	{
		EsyncConflict *conflict = esync_ledger_read(values, nulls);

		CHECK_FOR_INTERRUPTS();
		if ((each->status & (conflict->open ? ESYNC_LEDGER_OPEN : ESYNC_LEDGER_CLOSED)) &&
			conflict->conflict_id > each->after)
			more = each->callback(conflict, each->arg);
		MemoryContextReset(each->scratch);
	}
	MemoryContextSwitchTo(old);
	esync_side_end(side);
}

/*
 * Conflicts of a table, or of one aggregate; asks no rights.  By conflict_id
 * within a status; the callback's false ends that status alone.
 */
void
esync_ledger_each(int32 table_id, text *aggregate_id, EsyncLedgerStatus status, int64 after,
				  Snapshot snapshot, EsyncConflictCallback callback, void *arg)
{
	EsyncSide	side;
	Each		each = {status, after, callback, arg, NULL};

	each.scratch = AllocSetContextCreate(CurrentMemoryContext, "esync ledger",
										 ALLOCSET_DEFAULT_SIZES);
	esync_side_open(&side, "conflict", AccessShareLock);
	if (aggregate_id != NULL)
	{
		esync_ledger_scan(&side, table_id, aggregate_id, status == ESYNC_LEDGER_OPEN, snapshot);
		hand_out(&side, &each);
	}
	else
		for (int open = 1; open >= 0; open--)
		{
			if (!(status & (open ? ESYNC_LEDGER_OPEN : ESYNC_LEDGER_CLOSED)))
				continue;
			scan_table(&side, table_id, open, after, snapshot);
			hand_out(&side, &each);
		}
	esync_side_close(&side);
	MemoryContextDelete(each.scratch);
}

/* a name that is looked for in the ledger */
typedef struct Wanted
{
	const EsyncTracked *t;
	const char *name;
	bool		found;
} Wanted;

/* Callback: is a conflict about something of that name? */
static bool
is_named(EsyncConflict *conflict, void *arg)
{
	Wanted	   *wanted = arg;
	EsyncPlace	place = esync_ledger_place(wanted->t, conflict->field, conflict->opened_event);
	const char *name = esync_ledger_name(wanted->t, conflict, &place);

	wanted->found |= name != NULL && strcmp(name, wanted->name) == 0;
	return !wanted->found;
}

/*
 * What a caller calls a field by the name that conflicts about it have now; NULL
 * where the table never had it.  Groups that are no more are known to the ledger
 * alone.
 */
const char *
esync_ledger_field(const EsyncTracked *t, const char *name)
{
	Wanted		wanted = {t, name, false};
	EsyncPlace	place;

	if (!esync_ledger_lookup(t, name, &place))
	{
		esync_ledger_each(t->table_id, NULL, ESYNC_LEDGER_ALL, 0, GetActiveSnapshot(), is_named,
						  &wanted);
		return wanted.found ? name : NULL;
	}
	if (place.group >= 0)
		return name;
	return psprintf("%s%s", t->fields[place.field].name, place.path);
}

/* The row of a conflict, as of now; NULL where there is no such conflict. */
text *
esync_ledger_find(int64 conflict_id, int32 *table_id)
{
	EsyncSide	side;
	ScanKeyData key;
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
	text	   *aggregate_id = NULL;

	ScanKeyInit(&key, COL_CONFLICT_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(conflict_id));
	esync_side_open(&side, "conflict", AccessShareLock);
	esync_side_scan(&side, "conflict_pkey", SnapshotSelf, &key, 1);
	if (esync_side_next(&side, values, nulls))
	{
		*table_id = DatumGetInt32(values[COL_TABLE_ID - 1]);
		aggregate_id = DatumGetTextPCopy(values[COL_AGGREGATE_ID - 1]);
	}
	esync_side_end(&side);
	esync_side_close(&side);
	return aggregate_id;
}

/* A number of a contender. */
static int64
number_of(const JsonbContainer *object, const char *key)
{
	JsonbValue	v;

	if (!esync_json_member(object, key, strlen(key), &v) || v.type != jbvNumeric)
		return 0;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric)));
}

/* Any member of a contender; null where it is missing. */
static JsonbValue
member_of(const JsonbContainer *object, const char *key)
{
	JsonbValue	v;

	if (!esync_json_member(object, key, strlen(key), &v))
		v.type = jbvNull;
	return v;
}

/* The contenders of a conflict, ascending event_id. */
EsyncLedgerContender *
esync_ledger_contenders(const EsyncConflict *conflict, int *n)
{
	EsyncLedgerContender *contenders =
		palloc0(sizeof(EsyncLedgerContender) *
				Max(esync_json_count(&conflict->contenders->root), 1));
	EsyncWalk	walk;

	*n = 0;
	esync_walk_init(&walk, &conflict->contenders->root);
	while (esync_walk_next(&walk))
	{
		EsyncLedgerContender *c = &contenders[*n];
		const JsonbContainer *object = walk.value.val.binary.data;
		JsonbValue	type;

		if (walk.value.type != jbvBinary)
			continue;
		c->event_id = number_of(object, "event_id");
		c->version = number_of(object, "version");
		c->base_version = number_of(object, "base_version");
		c->user_id = member_of(object, "user_id");
		c->device_id = member_of(object, "device_id");
		c->value = member_of(object, "value");
		c->submit = member_of(object, "submit_timestamp");
		c->constraint = member_of(object, "constraint");
		c->device_seq = number_of(object, "device_seq");
		type = member_of(object, "type");
		c->resolved = type.type == jbvString && type.val.string.len == strlen("Resolved") &&
			memcmp(type.val.string.val, "Resolved", strlen("Resolved")) == 0;
		(*n)++;
	}
	return contenders;
}
