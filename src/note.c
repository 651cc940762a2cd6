/*
 * note.c: what an event does to the ledger is noted: conflicts are opened,
 * changed, closed, or opened again.
 *
 * The caller holds the lock of the user's row.  Memory: the caller's context.
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

/* an open row while an event is noted */
typedef struct OpenRow
{
	HeapTuple	tuple;			/* NULL: this very event opened or changed it */
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
} OpenRow;

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
	EsyncMember members[10];
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
	if (c->constraint)
		add_member(members, &n, "constraint", json_text(cstring_to_text(c->constraint)));
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
	set_pointer(row, COL_SHOWN_VALUE, clash->shown_value);
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

	esync_ledger_scan(side, table_id, aggregate_id, true, SnapshotSelf);
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

/* All rows of an aggregate that an event closed. */
static List *
rows_closed_by(EsyncSide *side, int32 table_id, text *aggregate_id, int64 event_id)
{
	List	   *rows = NIL;
	OpenRow    *row = palloc(sizeof(OpenRow));

	esync_ledger_scan(side, table_id, aggregate_id, false, SnapshotSelf);
	while (esync_side_next(side, row->values, row->nulls))
	{
		if (row->nulls[COL_RESOLVED_EVENT - 1] ||
			DatumGetInt64(row->values[COL_RESOLVED_EVENT - 1]) != event_id)
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

/* Is the row about what a constraint refused?  Such a one stands beside others of its field. */
static bool
is_refusal(const OpenRow *row)
{
	const text *kind = DatumGetTextPP(row->values[COL_KIND - 1]);

	return VARSIZE_ANY_EXHDR(kind) == strlen("constraint") &&
		memcmp(VARDATA_ANY(kind), "constraint", strlen("constraint")) == 0;
}

/* Had the author of an event seen that a value was refused? */
static bool
has_seen(const EsyncEvent *event, const EsyncLedgerContender *c)
{
	int64		undoes = esync_event_undoes(event);

	if (undoes != 0)			/* it takes back that one, and decides about no other */
		return c->event_id == undoes;
	return c->version <= event->base_version ||
		(event->device_id != NULL && event->device_seq != 0 && c->device_seq != 0 &&
		 c->device_id.type == jbvString &&
		 c->device_id.val.string.len == VARSIZE_ANY_EXHDR(event->device_id) &&
		 memcmp(c->device_id.val.string.val, VARDATA_ANY(event->device_id),
				c->device_id.val.string.len) == 0 &&
		 c->device_seq < event->device_seq);
}

/* How many of the refused values of a row had the author of an event not seen? */
static int
unseen_refusals(const OpenRow *row, const EsyncEvent *event)
{
	EsyncConflict *conflict = esync_ledger_read(row->values, row->nulls);
	int			n;
	int			unseen = 0;
	EsyncLedgerContender *contenders = esync_ledger_contenders(conflict, &n);

	for (int i = 0; i < n; i++)
		if (contenders[i].constraint.type != jbvNull && !has_seen(event, &contenders[i]))
			unseen++;
	return unseen;
}

/*
 * One more value was refused: those before it whose refusal its author had not
 * seen stay contenders.
 */
static void
set_refusals(OpenRow *row, const EsyncEvent *event, const EsyncClash *clash)
{
	EsyncConflict *before = esync_ledger_read(row->values, row->nulls);
	int			n;
	int			kept = unseen_refusals(row, event);
	EsyncLedgerContender *contenders = esync_ledger_contenders(before, &n);
	Jsonb	   *fresh;
	EsyncJson	json;
	EsyncWalk	walk;

	set_contenders(row, clash);
	if (kept == 0)
		return;
	fresh = (Jsonb *) DatumGetPointer(row->values[COL_CONTENDERS - 1]);
	esync_json_init(&json, 1024);
	esync_json_open_array(&json, kept + esync_json_count(&fresh->root));
	esync_walk_init(&walk, &before->contenders->root);
	for (int i = 0; i < n && esync_walk_next(&walk); i++)
		if (contenders[i].constraint.type != jbvNull && !has_seen(event, &contenders[i]))
			esync_json_value(&json, &walk.value);
	esync_walk_init(&walk, &fresh->root);
	while (esync_walk_next(&walk))
		esync_json_value(&json, &walk.value);
	esync_json_close(&json);
	set_pointer(row, COL_CONTENDERS, esync_json_finish(&json));
}

/* Of some rows, the one about a place, or about what was refused there; NULL: there is none. */
static OpenRow *
row_about(const EsyncTracked *t, List *rows, const EsyncPlace *place, const text *name,
		  bool refusal)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		text	   *its_name;
		EsyncPlace	its = place_of(t, lfirst(lc), &its_name);

		if (is_refusal(lfirst(lc)) == refusal && esync_ledger_same_place(place, name, &its, its_name))
			return lfirst(lc);
	}
	return NULL;
}

/* A closed row is open again. */
static void
reopen_row(EsyncSide *side, OpenRow *row)
{
	set_pointer(row, COL_STATUS, cstring_to_text("open"));
	row->nulls[COL_RESOLVED_AT - 1] = row->nulls[COL_RESOLVED_BY - 1] = true;
	row->nulls[COL_RESOLUTION - 1] = row->nulls[COL_RESOLVED_EVENT - 1] = true;
	write_row(side, row);
	row->tuple = NULL;
}

/*
 * The conflict that was closed by what is undone now is open again: the same
 * row, unless it went on under another.  NULL: there is none.
 */
static OpenRow *
reopen_conflict(EsyncSide *side, const EsyncTracked *t, const EsyncEvent *event,
				EsyncClash *clash)
{
	text	   *name = clash->field ? cstring_to_text(clash->field) : NULL;
	EsyncPlace	place = esync_ledger_place(t, name, PG_INT64_MAX);
	int64		undoes = esync_event_undoes(event);
	OpenRow    *row = undoes == 0 ? NULL :
		row_about(t, rows_closed_by(side, t->table_id, event->aggregate_id, undoes), &place, name,
				  strcmp(clash->kind, "constraint") == 0);

	if (row == NULL)
		return NULL;
	clash->conflict_id = DatumGetInt64(row->values[COL_CONFLICT_ID - 1]);
	set_contenders(row, clash);
	reopen_row(side, row);
	return row;
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
	bool		refusal = strcmp(clash->kind, "constraint") == 0;
	OpenRow    *row = row_about(t, rows, &place, name, refusal);

	if (row == NULL)
	{
		row = reopen_conflict(side, t, event, clash);
		return lappend(rows, row ? row : open_conflict(side, t, event, clash));
	}
	clash->conflict_id = DatumGetInt64(row->values[COL_CONFLICT_ID - 1]);
	if (row->tuple != NULL)
	{
		if (refusal)
			set_refusals(row, event, clash);
		else
			set_contenders(row, clash);
		write_row(side, row);
	}
	row->tuple = NULL;
	return rows;
}

/*
 * Notes that an event sets a field.  Where there is no conflict, it closes the
 * open row about it, and those about what lies inside of it; in any case what
 * was refused before, if its author had seen that.  Returns the rows that are
 * left.
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
			(esync_ledger_same_place(&place, name, &its, its_name) || esync_ledger_lies_inside(&its, &place)) &&
			(is_refusal(row) ? esync_event_undoes(event) == 0 && unseen_refusals(row, event) == 0 :
			 !clash->open))
			close_conflict(side, row, event, clash);
		else
			left = lappend(left, row);
	}
	return left;
}

/* What a row has refused of other events than one; how many these are. */
static int
without_event(OpenRow *row, int64 event_id, Jsonb **left)
{
	EsyncConflict *conflict = esync_ledger_read(row->values, row->nulls);
	int			n;
	int			kept = 0;
	int			refused = 0;
	EsyncLedgerContender *contenders = esync_ledger_contenders(conflict, &n);
	EsyncJson	json;
	EsyncWalk	walk;

	for (int i = 0; i < n; i++)
		kept += contenders[i].event_id != event_id;
	esync_json_init(&json, 1024);
	esync_json_open_array(&json, kept);
	esync_walk_init(&walk, &conflict->contenders->root);
	for (int i = 0; i < n && esync_walk_next(&walk); i++)
	{
		if (contenders[i].event_id == event_id)
			continue;
		esync_json_value(&json, &walk.value);
		refused += contenders[i].constraint.type != jbvNull;
	}
	esync_json_close(&json);
	*left = esync_json_finish(&json);
	return refused;
}

/*
 * An event is undone: what was refused of it waits no longer, and what it had
 * closed of others' waits again.
 */
static List *
undo_refusals(EsyncSide *side, const EsyncTracked *t, List *rows, const EsyncEvent *event)
{
	int64		undoes = esync_event_undoes(event);
	EsyncClash	clash = {.resolution = "undo"};
	List	   *left = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		OpenRow    *row = lfirst(lc);
		Jsonb	   *contenders = NULL;

		if (is_refusal(row) && without_event(row, undoes, &contenders) == 0)
		{
			close_conflict(side, row, event, &clash);
			continue;
		}
		if (is_refusal(row))
		{
			set_pointer(row, COL_CONTENDERS, contenders);
			write_row(side, row);
			row->tuple = NULL;
		}
		left = lappend(left, row);
	}
	foreach(lc, rows_closed_by(side, t->table_id, event->aggregate_id, undoes))
	{
		OpenRow    *row = lfirst(lc);
		text	   *name;
		EsyncPlace	place = place_of(t, row, &name);

		if (!is_refusal(row) || row_about(t, left, &place, name, true))
			continue;
		reopen_row(side, row);
		left = lappend(left, row);
	}
	return left;
}

/* Does a decision name this conflict as one that it closes? */
static bool
is_named(const EsyncEvent *event, int64 conflict_id)
{
	JsonbValue	resolves;
	EsyncWalk	walk;

	if (event->meta == NULL ||
		!esync_json_member(&event->meta->root, "resolves", 8, &resolves) ||
		resolves.type != jbvBinary || !JsonContainerIsArray(resolves.val.binary.data))
		return false;
	esync_walk_init(&walk, resolves.val.binary.data);
	while (esync_walk_next(&walk))
		if (walk.value.type == jbvNumeric &&
			DatumGetInt64(DirectFunctionCall1(numeric_int8,
											  NumericGetDatum(walk.value.val.numeric))) == conflict_id)
			return true;
	return false;
}

/*
 * Closes what a decision names and no clash of it told of: conflicts about what
 * is no more, and places inside of a column that it left as they are.
 */
static List *
note_named(EsyncSide *side, List *rows, const EsyncEvent *event)
{
	EsyncClash	clash = {0};
	JsonbValue	strategy;
	List	   *left = NIL;
	ListCell   *lc;

	if (event->meta && esync_json_member(&event->meta->root, "strategy", 8, &strategy) &&
		strategy.type == jbvString)
		clash.resolution = pnstrdup(strategy.val.string.val, strategy.val.string.len);
	foreach(lc, rows)
	{
		OpenRow    *row = lfirst(lc);

		if (row->tuple != NULL &&
			is_named(event, DatumGetInt64(row->values[COL_CONFLICT_ID - 1])))
			close_conflict(side, row, event, &clash);
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
	if (esync_event_undoes(event) != 0)
		rows = undo_refusals(&side, t, rows, event);
	foreach(lc, clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (rows != NIL && (!clash->open || strcmp(clash->kind, "constraint") != 0))
			rows = note_settled(&side, t, rows, event, clash);
		if (clash->open)
			rows = note_open(&side, t, rows, event, clash);
	}
	if (event->type == ESYNC_RESOLVED)
		rows = note_named(&side, rows, event);
	esync_side_close(&side);
	return rows != NIL;
}
