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
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "conflict.h"
#include "merge.h"
#include "paths.h"

/* an open row while an event is noted */
typedef struct OpenRow
{
	HeapTuple	tuple;			/* NULL: this very event opened or changed it */
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
} OpenRow;

/* A time in UTC, as in rows. */
static JsonbValue
time_value(TimestampTz at)
{
	JsonbValue	v;

	esync_json_time(at, &v);
	return v;
}

/* One contender, as the ledger keeps it. */
static Jsonb *
contender_object(const EsyncContender *c)
{
	EsyncMember members[10];
	int			n = 0;

	members[n++] = esync_json_pair("event_id", esync_value_int64(c->event_id));
	members[n++] = esync_json_pair("version", esync_value_int64(c->version));
	members[n++] = esync_json_pair("base_version", esync_value_int64(c->base_version));
	members[n++] = esync_json_pair("device_seq", c->device_seq == 0 ? esync_value_text(NULL) :
								   esync_value_int64(c->device_seq));
	members[n++] = esync_json_pair("type", esync_value_string(esync_event_type_name(c->type)));
	members[n++] = esync_json_pair("user_id", esync_value_text(c->user_id));
	members[n++] = esync_json_pair("device_id", esync_value_text(c->device_id));
	members[n++] = esync_json_pair("value", esync_value_document(c->value));
	members[n++] = esync_json_pair("submit_timestamp", time_value(c->submit));
	if (c->constraint)
		members[n++] = esync_json_pair("constraint", esync_value_string(c->constraint));
	return esync_json_object(n, members);
}

/* All contenders of a clash, as an array. */
static Jsonb *
contender_array(const EsyncClash *clash)
{
	List	   *contenders = NIL;

	for (int i = 0; i < clash->ncontenders; i++)
		contenders = lappend(contenders, contender_object(&clash->contenders[i]));
	return esync_json_array(contenders);
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
		JsonbValue	value = esync_value_document(c->value);

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

/* All closed rows of an aggregate; those that an event closed, or (0) by whichever. */
static List *
closed_rows(EsyncSide *side, int32 table_id, text *aggregate_id, int64 event_id)
{
	List	   *rows = NIL;
	OpenRow    *row = palloc(sizeof(OpenRow));

	esync_ledger_scan(side, table_id, aggregate_id, false, SnapshotSelf);
	while (esync_side_next(side, row->values, row->nulls))
	{
		if (row->nulls[COL_RESOLVED_EVENT - 1] ||
			(event_id != 0 && DatumGetInt64(row->values[COL_RESOLVED_EVENT - 1]) != event_id))
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

/* Is a clash about what a constraint refused? */
static bool
is_about_refusals(const EsyncClash *clash)
{
	return clash->kind && strcmp(clash->kind, "constraint") == 0;
}

/* Did the table's policy write the event? */
static bool
is_by_policy(const EsyncEvent *event)
{
	JsonbValue	policy;

	return event->type == ESYNC_RESOLVED && event->meta &&
		esync_json_member(&event->meta->root, "policy", 6, &policy);
}

/*
 * Had the author of an event seen that a value was refused?  A policy decides
 * about what it names alone, and a Baseline is nobody's.
 */
static bool
has_seen(const EsyncEvent *event, const EsyncLedgerContender *c)
{
	if (event->type == ESYNC_BASELINE || is_by_policy(event))
		return false;
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

/* one contender as it lies in the ledger */
typedef struct Kept
{
	int64		event_id;
	JsonbValue	value;
} Kept;

static int
kept_cmp(const void *a, const void *b)
{
	int64		x = ((const Kept *) a)->event_id;
	int64		y = ((const Kept *) b)->event_id;

	return x < y ? -1 : x > y;
}

/* Sets the contenders of a row: those from before that stay, and some fresh ones. */
static void
join_contenders(OpenRow *row, const EsyncConflict *before, const bool *stays, const Jsonb *fresh)
{
	int			n = 0;
	Kept	   *list = palloc((esync_json_count(&before->contenders->root) +
							   esync_json_count(&fresh->root) + 1) * sizeof(Kept));
	JsonbValue	id;
	EsyncJson	json;
	EsyncWalk	walk;

	for (int from = 0; from < 2; from++)
	{
		esync_walk_init(&walk, from == 0 ? &before->contenders->root : &fresh->root);
		for (int i = 0; esync_walk_next(&walk); i++)
			if ((from == 1 || stays[i]) &&
				esync_json_member(walk.value.val.binary.data, "event_id", 8, &id))
				list[n++] = (Kept) {DatumGetInt64(DirectFunctionCall1(numeric_int8,
												  NumericGetDatum(id.val.numeric))), walk.value};
	}
	qsort(list, n, sizeof(Kept), kept_cmp);
	esync_json_init(&json, 1024);
	esync_json_open_array(&json, n);
	for (int i = 0; i < n; i++)
		esync_json_value(&json, &list[i].value);
	esync_json_close(&json);
	set_pointer(row, COL_CONTENDERS, esync_json_finish(&json));
}

/*
 * The contenders of a row about refusals after an event: those that were refused
 * before whose refusal its author had not seen, and some fresh ones.
 */
static void
keep_refusals(OpenRow *row, const EsyncConflict *before, const EsyncEvent *event,
			  const Jsonb *fresh)
{
	int			n;
	EsyncLedgerContender *contenders = esync_ledger_contenders(before, &n);
	bool	   *stays = palloc(Max(n, 1) * sizeof(bool));

	for (int i = 0; i < n; i++)
		stays[i] = contenders[i].constraint.type != jbvNull && !has_seen(event, &contenders[i]);
	join_contenders(row, before, stays, fresh);
}

/*
 * What is open about a field in another row that had the key stays beside it:
 * there is one conflict about a field.  Of those, decisions and undos had seen
 * all.
 */
static void
set_of_life(OpenRow *row, const EsyncClash *clash)
{
	EsyncConflict *before = esync_ledger_read(row->values, row->nulls);
	int			n;
	EsyncLedgerContender *contenders = esync_ledger_contenders(before, &n);
	bool	   *stays = palloc(Max(n, 1) * sizeof(bool));
	bool		any = false;

	for (int i = 0; i < n; i++)
	{
		stays[i] = clash->life_to != 0 && !contenders[i].resolved &&
			(contenders[i].base_version < clash->life_from ||
			 contenders[i].base_version >= clash->life_to);
		for (int k = 0; k < clash->ncontenders; k++)
			stays[i] &= clash->contenders[k].event_id != contenders[i].event_id;
		any |= stays[i];
	}
	set_contenders(row, clash);
	if (any)
		join_contenders(row, before, stays,
						(Jsonb *) DatumGetPointer(row->values[COL_CONTENDERS - 1]));
}

/*
 * One more value was refused: those before it whose refusal its author had not
 * seen stay contenders.
 */
static void
set_refusals(OpenRow *row, const EsyncEvent *event, const EsyncClash *clash)
{
	EsyncConflict *before = esync_ledger_read(row->values, row->nulls);

	set_contenders(row, clash);
	keep_refusals(row, before, event, (Jsonb *) DatumGetPointer(row->values[COL_CONTENDERS - 1]));
}

/* An event sets the field, and what was refused goes on waiting beside what the row shows now. */
static void
set_showing(EsyncSide *side, OpenRow *row, const EsyncEvent *event, const EsyncClash *clash)
{
	EsyncConflict *before = esync_ledger_read(row->values, row->nulls);
	EsyncContender c = *clash->showing;
	EsyncClash	now = {.contenders = &c, .ncontenders = 1, .kind = clash->kind};

	if (c.event_id == ESYNC_AT_HAND)
		c.event_id = event->event_id;
	keep_refusals(row, before, event, contender_array(&now));
	set_number(row, COL_SHOWN_EVENT, c.event_id);
	set_pointer(row, COL_SHOWN_VALUE, c.value);
	write_row(side, row);
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

/* Of closed rows, the last one about a place in which some of those that were refused waited before. */
static OpenRow *
row_of_refused(const EsyncTracked *t, List *rows, const EsyncPlace *place, const text *name,
			   const EsyncClash *clash)
{
	OpenRow    *found = NULL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		OpenRow    *row = row_about(t, list_make1(lfirst(lc)), place, name, true);
		int			n = 0;
		EsyncLedgerContender *all = row == NULL ? NULL :
			esync_ledger_contenders(esync_ledger_read(row->values, row->nulls), &n);

		if (found && row && DatumGetInt64(found->values[COL_CONFLICT_ID - 1]) >
			DatumGetInt64(row->values[COL_CONFLICT_ID - 1]))
			continue;
		for (int i = 0; i < n; i++)
			for (int k = 0; k < clash->ncontenders; k++)
				if (clash->contenders[k].constraint && all[i].constraint.type != jbvNull &&
					clash->contenders[k].event_id == all[i].event_id)
					found = row;
	}
	return found;
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
	bool		refusal = is_about_refusals(clash);
	OpenRow    *row = undoes == 0 ? NULL :
		row_about(t, closed_rows(side, t->table_id, event->aggregate_id, undoes), &place, name,
				  refusal);

	if (row == NULL && undoes != 0 && refusal)
		row = row_of_refused(t, closed_rows(side, t->table_id, event->aggregate_id, 0), &place,
							 name, clash);
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
	bool		refusal = is_about_refusals(clash);
	OpenRow    *row = row_about(t, rows, &place, name, refusal);

	if (row == NULL)
	{
		row = reopen_conflict(side, t, event, clash);
		return lappend(rows, row ? row : open_conflict(side, t, event, clash));
	}
	clash->conflict_id = DatumGetInt64(row->values[COL_CONFLICT_ID - 1]);
	if (row->tuple != NULL)
	{
		if (refusal && esync_event_undoes(event) == 0)
			set_refusals(row, event, clash);
		else
			set_of_life(row, clash);
		write_row(side, row);
	}
	row->tuple = NULL;
	return rows;
}

/*
 * Does what became of a field close a row about it?  What was refused is settled
 * by whoever had seen that, or where the policy drops it; by an undo, where nothing
 * of it waits any more.
 */
static bool
settles(const OpenRow *row, const EsyncEvent *event, const EsyncClash *clash)
{
	if (is_about_refusals(clash))
		return is_refusal(row);
	if (!is_refusal(row))
		return !clash->open;
	return esync_event_undoes(event) == 0 &&
		(clash->overrules || unseen_refusals(row, event) == 0);
}

/*
 * Is a row about what a clash is about, or about what lies inside of it: deeper in
 * the column, or a column that was none of the group yet when the row was opened?
 */
static bool
is_within(const EsyncTracked *t, const OpenRow *row, const EsyncPlace *place, const text *name)
{
	text	   *its_name;
	EsyncPlace	its = place_of(t, row, &its_name);

	return esync_ledger_same_place(place, name, &its, its_name) ||
		esync_ledger_lies_inside(&its, place) ||
		(place->group >= 0 && its.field >= 0 && t->fields[its.field].group == place->group);
}

/*
 * Notes that an event sets a field.  Where there is no conflict, it closes the
 * open row about it, and those about what lies inside of it; in any case what
 * was refused before, if that is settled by it.  Returns the rows that are left.
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
		EsyncClash	by = *clash;

		if (row->tuple == NULL || !is_within(t, row, &place, name))
		{
			left = lappend(left, row);
			continue;
		}
		if (settles(row, event, clash))
		{
			if (clash->overrules && is_refusal(row) && unseen_refusals(row, event) > 0)
				by.resolution = t->on_conflict;
			close_conflict(side, row, event, &by);
			continue;
		}
		if (is_refusal(row) && clash->showing &&
			!esync_ledger_is_named(event, DatumGetInt64(row->values[COL_CONFLICT_ID - 1])))
		{
			set_showing(side, row, event, clash);
			row->tuple = NULL;
		}
		left = lappend(left, row);
	}
	return left;
}

/* Does a decision name this conflict as one that it closes? */
bool
esync_ledger_is_named(const EsyncEvent *event, int64 conflict_id)
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
			esync_ledger_is_named(event, DatumGetInt64(row->values[COL_CONFLICT_ID - 1])))
			close_conflict(side, row, event, &clash);
		else
			left = lappend(left, row);
	}
	return left;
}

static int64
id_of(const OpenRow *row)
{
	return DatumGetInt64(row->values[COL_CONFLICT_ID - 1]);
}

/* For list_sort: by conflict_id. */
static int
row_cmp(const ListCell *a, const ListCell *b)
{
	int64		x = id_of(lfirst(a));
	int64		y = id_of(lfirst(b));

	return x < y ? -1 : x > y;
}

/*
 * A decision names all that it closed: besides what its author chose, conflicts
 * about places around what was decided may end by it.
 */
static void
name_closed(EsyncEvent *event, List *before, List *after)
{
	EsyncExtra	resolves = {.key = "resolves"};
	List	   *ids = NIL;
	bool		all = true;
	ListCell   *lc;

	list_sort(before, row_cmp);
	foreach(lc, before)
	{
		JsonbValue	id = esync_value_int64(id_of(lfirst(lc)));
		bool		named = esync_ledger_is_named(event, id_of(lfirst(lc)));

		if (!named && list_member_ptr(after, lfirst(lc)))
			continue;
		all &= named;
		ids = lappend(ids, esync_json_from_value(&id));
	}
	if (all)
		return;
	resolves.value = esync_value_document(esync_json_array(ids));
	event->meta = esync_meta_with(event->meta, &resolves, 1);
}

/*
 * Brings the ledger up to date with an event about to be written: see esync.h.
 * An event that only agrees with what was shown may close a conflict as well.
 */
bool
esync_ledger_note(EsyncTracked *t, EsyncEvent *event, List *clashes)
{
	EsyncSide	side;
	List	   *rows;
	List	   *before;
	ListCell   *lc;

	esync_side_open(&side, "conflict", RowExclusiveLock);
	rows = open_rows(&side, t->table_id, event->aggregate_id);
	before = list_copy(rows);
	foreach(lc, clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (rows != NIL && (!clash->open || !is_about_refusals(clash)))
			rows = note_settled(&side, t, rows, event, clash);
		if (clash->open)
			rows = note_open(&side, t, rows, event, clash);
	}
	if (event->type == ESYNC_RESOLVED)
		rows = note_named(&side, rows, event);
	if (event->type == ESYNC_RESOLVED && esync_event_undoes(event) == 0)
		name_closed(event, before, rows);
	esync_side_close(&side);
	return rows != NIL;
}

/* ------------------------------------------------------------- changed unseen */

/* Does an event set what a conflict is about, or a place in it or around it? */
static bool
sets_place(const EsyncTracked *t, const EsyncEvent *event, const EsyncPlace *place)
{
	EsyncWalk	walk;

	esync_walk_init(&walk, &event->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		int			field;

		if (!esync_paths_read(&walk.value, &op) ||
			(field = esync_merge_field_of_op(t, &op, event->event_id)) < 0)
			continue;
		if (place->group >= 0 ? t->fields[field].group == place->group :
			place->field == field &&
			esync_paths_overlap(place->path, strlen(place->path), op.path + op.columnlen,
								op.len - op.columnlen))
			return true;
	}
	return false;
}

/* What the row holds in a place, by the payload of a Baseline; NULL: nothing. */
static Jsonb *
value_at(const EsyncTracked *t, const EsyncEvent *event, const EsyncConflict *conflict,
		 const EsyncPlace *place)
{
	Jsonb	   *value = esync_edit_value_in(t, event->payload, esync_ledger_name(t, conflict, place));
	JsonbValue	null = {.type = jbvNull};

	return value == NULL && place->path[0] ? esync_json_from_value(&null) : value;
}

/* Does a row tell that value already? */
static bool
is_shown(const EsyncConflict *conflict, const Jsonb *value)
{
	JsonbValue	a;
	JsonbValue	b;

	if (conflict->shown_value == NULL || value == NULL)
		return conflict->shown_value == value;
	esync_json_root(conflict->shown_value, &a);
	esync_json_root(value, &b);
	return esync_json_equal(&a, &b, false);
}

/*
 * A row about what an event set unseen tells the value that is shown now, which
 * is none of its contenders'; what was refused waits beside that event.
 */
static void
set_drifted(EsyncSide *side, const EsyncTracked *t, OpenRow *row, const EsyncEvent *event)
{
	EsyncConflict *conflict = esync_ledger_read(row->values, row->nulls);
	EsyncPlace	place = esync_ledger_place(t, conflict->field, conflict->opened_event);
	Jsonb	   *value = place.row ? NULL : value_at(t, event, conflict, &place);
	EsyncContender c = esync_merge_contender(event);
	EsyncClash	clash = {.showing = &c};

	if (is_shown(conflict, value))
		return;
	c.value = value;
	if (is_refusal(row))
	{
		set_showing(side, row, event, &clash);
		return;
	}
	row->nulls[COL_SHOWN_EVENT - 1] = true;
	set_pointer(row, COL_SHOWN_VALUE, value);
	write_row(side, row);
}

/* Brings the ledger up to date with a Baseline about to be written: see esync.h. */
void
esync_ledger_drift(EsyncTracked *t, const EsyncEvent *event, bool turned)
{
	EsyncSide	side;
	ListCell   *lc;

	esync_side_open(&side, "conflict", RowExclusiveLock);
	foreach(lc, open_rows(&side, t->table_id, event->aggregate_id))
	{
		text	   *name;
		EsyncPlace	place = place_of(t, lfirst(lc), &name);

		if (place.row ? turned : event->payload != NULL && sets_place(t, event, &place))
			set_drifted(&side, t, lfirst(lc), event);
	}
	esync_side_close(&side);
}
