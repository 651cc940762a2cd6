/*
 * conflict.c: the ledger: which edits contradict each other.
 *
 * esync.conflict has at most one open row for each field of an aggregate, with
 * all its contenders; which these are is said by merge.c, a function of the
 * set of events.  A row is written under the lock of the user's row, by which
 * all events of an aggregate are written, and read with SnapshotSelf, so it is
 * right at every isolation level.
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
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "conflict.h"

/* columns of esync.conflict; closed are those that have a resolved_at */
enum
{
	COL_CONFLICT_ID = 1, COL_TABLE_ID, COL_AGGREGATE_ID, COL_FIELD, COL_KIND, COL_BASE_VALUE,
	COL_CONTENDERS, COL_SHOWN_EVENT, COL_SHOWN_VALUE, COL_STATUS, COL_OPENED_AT, COL_OPENED_EVENT,
	COL_RESOLVED_AT, COL_RESOLVED_BY, COL_RESOLUTION, COL_RESOLVED_EVENT,
	COL_COUNT = COL_RESOLVED_EVENT
};

/* an open row while an event is noted */
typedef struct OpenRow
{
	HeapTuple	tuple;			/* NULL: this very event opened or changed it */
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
} OpenRow;

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

/* Are two names, resolved, about the same?  Those of nothing that is there must be equal. */
static bool
same_place(const EsyncPlace *a, const text *a_name, const EsyncPlace *b, const text *b_name)
{
	if (a->row || b->row)
		return a->row && b->row;
	if (a->field >= 0 || b->field >= 0)
		return a->field == b->field && strcmp(a->path, b->path) == 0;
	return VARSIZE_ANY_EXHDR(a_name) == VARSIZE_ANY_EXHDR(b_name) &&
		memcmp(VARDATA_ANY(a_name), VARDATA_ANY(b_name), VARSIZE_ANY_EXHDR(a_name)) == 0;
}

/* Does one place lie inside of another: deeper in the same column? */
static bool
lies_inside(const EsyncPlace *inner, const EsyncPlace *outer)
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
static bool
covers(const EsyncTracked *t, const EsyncPlace *place, int field)
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

		if (covers(t, place, i) && !f->excluded && !f->masked && esync_rights_field(rights, f))
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------- reading */

/* A row of the relation as a struct; it points to where values do. */
static EsyncConflict *
conflict_from(const Datum *values, const bool *nulls)
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
static void
scan_aggregate(EsyncSide *side, int32 table_id, text *aggregate_id, bool open, Snapshot snapshot)
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
		EsyncConflict *conflict = conflict_from(values, nulls);

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
		scan_aggregate(&side, table_id, aggregate_id, status == ESYNC_LEDGER_OPEN, snapshot);
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

		if (walk.value.type != jbvBinary)
			continue;
		c->event_id = number_of(object, "event_id");
		c->version = number_of(object, "version");
		c->base_version = number_of(object, "base_version");
		c->user_id = member_of(object, "user_id");
		c->device_id = member_of(object, "device_id");
		c->value = member_of(object, "value");
		c->submit = member_of(object, "submit_timestamp");
		(*n)++;
	}
	return contenders;
}

/* ---------------------------------------------------------------- writing */

/* Members of an object that is put together. */
static void
add_member(EsyncMember *members, int *n, const char *key, JsonbValue value)
{
	members[*n].key = key;
	members[*n].keylen = strlen(key);
	members[(*n)++].value = value;
}

static JsonbValue
json_int64(int64 number)
{
	JsonbValue	v = {.type = jbvNumeric};

	v.val.numeric = int64_to_numeric(number);
	return v;
}

static JsonbValue
json_text(const text *string)
{
	JsonbValue	v = {.type = jbvNull};

	if (string == NULL)
		return v;
	v.type = jbvString;
	v.val.string.val = VARDATA_ANY(string);
	v.val.string.len = VARSIZE_ANY_EXHDR(string);
	return v;
}

/* A document, where there is none null. */
static JsonbValue
json_document(const Jsonb *document)
{
	JsonbValue	v = {.type = jbvNull};

	if (document != NULL)
		esync_json_root(document, &v);
	return v;
}

/* A time in UTC, as in rows. */
static JsonbValue
json_time(TimestampTz at)
{
	char		buffer[MAXDATELEN + 1];
	int			utc = 0;

	JsonEncodeDateTime(buffer, TimestampTzGetDatum(at), TIMESTAMPTZOID, &utc);
	return json_text(cstring_to_text(buffer));
}

/* One contender, as the ledger keeps it. */
static Jsonb *
contender_object(const EsyncContender *c)
{
	EsyncMember members[9];
	int			n = 0;

	add_member(members, &n, "event_id", json_int64(c->event_id));
	add_member(members, &n, "version", json_int64(c->version));
	add_member(members, &n, "base_version", json_int64(c->base_version));
	add_member(members, &n, "device_seq",
			   c->device_seq == 0 ? json_text(NULL) : json_int64(c->device_seq));
	add_member(members, &n, "type",
			   json_text(cstring_to_text(esync_event_type_name(c->type))));
	add_member(members, &n, "user_id", json_text(c->user_id));
	add_member(members, &n, "device_id", json_text(c->device_id));
	add_member(members, &n, "value", json_document(c->value));
	add_member(members, &n, "submit_timestamp", json_time(c->submit));
	return esync_json_object(n, members);
}

/* All contenders of a clash, as an array. */
static Jsonb *
contender_array(const EsyncClash *clash)
{
	EsyncJson	json;

	esync_json_init(&json, 256 * (clash->ncontenders + 1));
	esync_json_open_array(&json, clash->ncontenders);
	for (int i = 0; i < clash->ncontenders; i++)
	{
		JsonbValue	v = json_document(contender_object(&clash->contenders[i]));

		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Sets a column to a pointer, or to NULL. */
static void
set_pointer(OpenRow *row, int attr, const void *pointer)
{
	row->values[attr - 1] = PointerGetDatum(pointer);
	row->nulls[attr - 1] = pointer == NULL;
}

static void
set_number(OpenRow *row, int attr, int64 number)
{
	row->values[attr - 1] = Int64GetDatum(number);
	row->nulls[attr - 1] = false;
}

/* What an open row says of its contenders, and which of them shows. */
static void
set_contenders(OpenRow *row, const EsyncClash *clash)
{
	set_pointer(row, COL_KIND, cstring_to_text(clash->kind));
	set_pointer(row, COL_BASE_VALUE, clash->base_value);
	set_pointer(row, COL_CONTENDERS, contender_array(clash));
	set_pointer(row, COL_SHOWN_VALUE, NULL);
	row->nulls[COL_SHOWN_EVENT - 1] = true;
	for (int i = 0; i < clash->ncontenders; i++)
	{
		const EsyncContender *c = &clash->contenders[i];
		JsonbValue	value = json_document(c->value);

		if (!c->shown)
			continue;
		set_number(row, COL_SHOWN_EVENT, c->event_id);
		set_pointer(row, COL_SHOWN_VALUE,
					clash->shown_value ? clash->shown_value : esync_json_from_value(&value));
	}
}

/* Opens a conflict. */
static OpenRow *
open_conflict(EsyncSide *side, const EsyncTracked *t, const EsyncEvent *event, EsyncClash *clash)
{
	OpenRow    *row = palloc0(sizeof(OpenRow));

	clash->conflict_id = esync_side_nextval("conflict_id_seq");
	memset(row->nulls, true, sizeof(row->nulls));
	set_number(row, COL_CONFLICT_ID, clash->conflict_id);
	row->values[COL_TABLE_ID - 1] = Int32GetDatum(t->table_id);
	row->nulls[COL_TABLE_ID - 1] = false;
	set_pointer(row, COL_AGGREGATE_ID, event->aggregate_id);
	set_pointer(row, COL_FIELD, clash->field ? cstring_to_text(clash->field) : NULL);
	set_pointer(row, COL_STATUS, cstring_to_text("open"));
	set_number(row, COL_OPENED_AT, event->commit);
	set_number(row, COL_OPENED_EVENT, event->event_id);
	set_contenders(row, clash);
	esync_side_add(side, row->values, row->nulls);
	return row;
}

/* Writes an open row anew, as changed or closed. */
static void
write_row(EsyncSide *side, OpenRow *row)
{
	side->tuple = row->tuple;
	esync_side_change(side, row->values, row->nulls);
}

/* Closes a conflict; what was shown stays what it was before. */
static void
close_conflict(EsyncSide *side, OpenRow *row, const EsyncEvent *event, const EsyncClash *clash)
{
	set_pointer(row, COL_STATUS, cstring_to_text("closed"));
	set_number(row, COL_RESOLVED_AT, event->commit);
	set_pointer(row, COL_RESOLVED_BY, event->user_id);
	set_pointer(row, COL_RESOLUTION,
				cstring_to_text(clash->resolution ? clash->resolution : "superseded"));
	set_number(row, COL_RESOLVED_EVENT, event->event_id);
	write_row(side, row);
}

/* All open rows of an aggregate. */
static List *
open_rows(EsyncSide *side, int32 table_id, text *aggregate_id)
{
	List	   *rows = NIL;
	OpenRow    *row = palloc(sizeof(OpenRow));

	scan_aggregate(side, table_id, aggregate_id, true, SnapshotSelf);
	while (esync_side_next(side, row->values, row->nulls))
	{
		if (!row->nulls[COL_RESOLVED_AT - 1])
			continue;
		row->tuple = side->tuple;
		rows = lappend(rows, row);
		row = palloc(sizeof(OpenRow));
	}
	return rows;
}

/* What an open row is about. */
static EsyncPlace
place_of(const EsyncTracked *t, const OpenRow *row, text **name)
{
	*name = row->nulls[COL_FIELD - 1] ? NULL : DatumGetTextPP(row->values[COL_FIELD - 1]);
	return esync_ledger_place(t, *name, DatumGetInt64(row->values[COL_OPENED_EVENT - 1]));
}

/*
 * Notes that there is a conflict: in the open row about it, or in a new one.
 * Two clashes of one event about one place share a row, which tells of the first.
 */
static List *
note_open(EsyncSide *side, const EsyncTracked *t, List *rows, const EsyncEvent *event,
		  EsyncClash *clash)
{
	text	   *name = clash->field ? cstring_to_text(clash->field) : NULL;
	EsyncPlace	place = esync_ledger_place(t, name, PG_INT64_MAX);
	OpenRow    *row;
	ListCell   *lc;

	foreach(lc, rows)
	{
		text	   *its_name;
		EsyncPlace	its;

		row = lfirst(lc);
		its = place_of(t, row, &its_name);
		if (!same_place(&place, name, &its, its_name))
			continue;
		clash->conflict_id = DatumGetInt64(row->values[COL_CONFLICT_ID - 1]);
		if (row->tuple != NULL)
		{
			set_contenders(row, clash);
			write_row(side, row);
		}
		row->tuple = NULL;
		return rows;
	}
	row = open_conflict(side, t, event, clash);
	return lappend(rows, row);
}

/*
 * Notes that there is no conflict: closes the open row about it, and those
 * about what lies inside of it.  Returns the rows that are left.
 */
static List *
note_settled(EsyncSide *side, const EsyncTracked *t, List *rows, const EsyncEvent *event,
			 const EsyncClash *clash)
{
	text	   *name = clash->field ? cstring_to_text(clash->field) : NULL;
	EsyncPlace	place = esync_ledger_place(t, name, PG_INT64_MAX);
	List	   *left = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		OpenRow    *row = lfirst(lc);
		text	   *its_name;
		EsyncPlace	its = place_of(t, row, &its_name);

		if (row->tuple != NULL &&
			(same_place(&place, name, &its, its_name) || lies_inside(&its, &place)))
			close_conflict(side, row, event, clash);
		else
			left = lappend(left, row);
	}
	return left;
}

/*
 * Brings the ledger up to date with an event about to be written: see esync.h.
 * An event that only agrees with what was shown may close a conflict as well.
 */
bool
esync_ledger_note(EsyncTracked *t, const EsyncEvent *event, List *clashes)
{
	EsyncSide	side;
	List	   *rows;
	ListCell   *lc;

	esync_side_open(&side, "conflict", RowExclusiveLock);
	rows = open_rows(&side, t->table_id, event->aggregate_id);
	foreach(lc, clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (clash->open)
			rows = note_open(&side, t, rows, event, clash);
		else if (rows != NIL)
			rows = note_settled(&side, t, rows, event, clash);
	}
	esync_side_close(&side);
	return rows != NIL;
}

/* ------------------------------------------------------------------ marks */

/* A reading's marks while they are gathered. */
typedef struct Marking
{
	const EsyncTracked *t;
	EsyncMarks *marks;
} Marking;

/* Callback: every contender is marked, but of a closed conflict not the one shown. */
static bool
mark_conflict(EsyncConflict *conflict, void *arg)
{
	const EsyncTracked *t = ((Marking *) arg)->t;
	EsyncMarks *marks = ((Marking *) arg)->marks;
	int			n;
	EsyncLedgerContender *contenders = esync_ledger_contenders(conflict, &n);
	MemoryContext old = MemoryContextSwitchTo(marks->cxt);
	EsyncMark	mark = {.conflict_id = conflict->conflict_id};

	mark.place = esync_ledger_place(t, conflict->field, conflict->opened_event);
	mark.name = esync_ledger_name(t, conflict, &mark.place);
	mark.verdict = conflict->open ? ESYNC_VERDICT_CONFLICT : ESYNC_VERDICT_LOST;
	if (marks->n + n > marks->size)
	{
		marks->size = 2 * (marks->n + n);
		marks->mark = marks->mark ? repalloc(marks->mark, marks->size * sizeof(EsyncMark)) :
			palloc(marks->size * sizeof(EsyncMark));
	}
	for (int i = 0; i < n; i++)
	{
		mark.event_id = contenders[i].event_id;
		if (conflict->open || mark.event_id != conflict->shown_event)
			marks->mark[marks->n++] = mark;
	}
	MemoryContextSwitchTo(old);
	return true;
}

/* For qsort: by event, then by field in column order. */
static int
mark_cmp(const void *a, const void *b)
{
	const EsyncMark *x = a;
	const EsyncMark *y = b;

	if (x->event_id != y->event_id)
		return x->event_id < y->event_id ? -1 : 1;
	if (x->place.field != y->place.field)
		return x->place.field < y->place.field ? -1 : 1;
	return x->conflict_id < y->conflict_id ? -1 : x->conflict_id > y->conflict_id;
}

/* What the ledger says of the events of a reading, under former keys as well. */
EsyncMarks *
esync_ledger_marks(const EsyncReading *reading)
{
	EsyncMarks *marks = palloc0(sizeof(EsyncMarks));
	Marking		marking = {reading->tracked, marks};
	const text *last = NULL;

	marks->cxt = CurrentMemoryContext;
	for (int i = 0; i < reading->events->n; i++)
	{
		text	   *id = reading->events->e[i].aggregate_id;

		if (last != NULL && VARSIZE_ANY_EXHDR(id) == VARSIZE_ANY_EXHDR(last) &&
			memcmp(VARDATA_ANY(id), VARDATA_ANY(last), VARSIZE_ANY_EXHDR(id)) == 0)
			continue;
		last = id;
		esync_ledger_each(reading->tracked->table_id, id, ESYNC_LEDGER_ALL, 0,
						  GetActiveSnapshot(), mark_conflict, &marking);
	}
	if (marks->n > 1)
		qsort(marks->mark, marks->n, sizeof(EsyncMark), mark_cmp);
	return marks;
}

/* Index of the first mark of an event; where there is none, of one of another event, or n. */
int
esync_ledger_first(const EsyncMarks *marks, int64 event_id)
{
	int			low = 0;
	int			high = marks->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (marks->mark[middle].event_id < event_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What became of an event's edit of a field; -1: of the row as a whole. */
EsyncVerdict
esync_ledger_verdict(const EsyncMarks *marks, const EsyncTracked *t, int field, int64 event_id)
{
	EsyncVerdict verdict = ESYNC_VERDICT_NONE;

	for (int i = esync_ledger_first(marks, event_id);
		 i < marks->n && marks->mark[i].event_id == event_id; i++)
		if (covers(t, &marks->mark[i].place, field))
			verdict = Max(verdict, marks->mark[i].verdict);
	return verdict;
}
