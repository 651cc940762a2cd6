/*
 * history.c: fields and events over time: field_history and esync_history.
 *
 * A field's track is read in effective order, a row's events in commit order.
 * Functions run as their caller: what it may not read of the tracked table
 * it does not get here either.  Everything lives in the caller's context,
 * which the executor resets; values point into the events, or were made there.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "conflict.h"
#include "paths.h"

/* a path longer than this names no column, however it is escaped */
#define PATH_MAX_LEN	(2 * NAMEDATALEN + 1)

/* one register while the events are walked in effective order */
typedef struct Track
{
	bool		shown;			/* the field has bars that the caller may see */
	bool		known;			/* something was set, or stood there by default */
	int			bar;			/* the winner's; -1: it has none */
	JsonbValue	value;
} Track;

/* the walk that makes bars of edits */
typedef struct BarWalk
{
	EsyncReading *reading;
	EsyncBars  *bars;
	Track	   *tracks;			/* one a field */
	int			field;			/* the only one asked for, or ESYNC_ALL_FIELDS */
	bool		born;			/* an event lies before the one at hand */
	bool		gone;			/* the row was taken as a whole */
	int			delete_bar;		/* the delete register's winner; -1: it has no bar */
} BarWalk;

static void walk_event(BarWalk *walk, int index);
static void walk_defaults(BarWalk *walk);
static void walk_payload(BarWalk *walk, int index);
static void walk_patch(BarWalk *walk, int index);
static void walk_delete_register(BarWalk *walk, int index);

/* ------------------------------------------------------ opening a reading */

/*
 * Takes (tbl, key) from a function's first two arguments and asks the caller's
 * rights; reads no events.  False where an argument is NULL.  Holds a lock on
 * the table, so that its plan stays.
 */
bool
esync_history_take(FunctionCallInfo fcinfo, bool key_is_text, EsyncReading *reading)
{
	EsyncTracked *t;
	Datum	   *key;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return false;

	LockRelationOid(PG_GETARG_OID(0), AccessShareLock);
	reading->tracked = t = esync_tracked_need(PG_GETARG_OID(0));
	esync_rights_read(t, &reading->rights);

	reading->key = key = palloc(sizeof(Datum) * t->nkeys);
	if (key_is_text)
		reading->aggregate_id = esync_key_from_text(t, PG_GETARG_TEXT_PP(1), key);
	else
		reading->aggregate_id =
			esync_key_from_any(t, PG_GETARG_DATUM(1),
							   get_fn_expr_argtype(fcinfo->flinfo, 1), key);

	return true;
}

/* The same, with the events, as much of each as is wanted. */
bool
esync_history_open(FunctionCallInfo fcinfo, bool key_is_text, EsyncWant want,
				   EsyncReading *reading)
{
	EsyncBounds unbounded = {DT_NOEND, DT_NOEND, false};

	if (!esync_history_take(fcinfo, key_is_text, reading))
		return false;
	unbounded.present_life = reading->rights.rls;
	reading->rls_hidden = reading->rights.rls &&
		!esync_rights_row(reading->tracked, &reading->rights, reading->key);
	reading->events = esync_stream_read(reading->tracked, reading->aggregate_id, &unbounded,
											GetActiveSnapshot(), true, want);
	return true;
}

/* ------------------------------------------------- edits, as bars of tracks */

/* For qsort_arg: indexes of events, by effective order. */
static int
compare_effective(const void *a, const void *b, void *arg)
{
	const EsyncStamp *stamps = arg;

	return esync_stamp_cmp(&stamps[*(const int *) a], &stamps[*(const int *) b]);
}

/* Indexes of the events in ascending effective order. */
static int *
effective_order(const EsyncEvents *events)
{
	EsyncStamp *stamps = palloc(sizeof(EsyncStamp) * Max(events->n, 1));
	int		   *order = palloc(sizeof(int) * Max(events->n, 1));

	for (int i = 0; i < events->n; i++)
	{
		order[i] = i;
		stamps[i] = esync_event_stamp(&events->e[i]);
	}
	qsort_arg(order, events->n, sizeof(int), compare_effective, stamps);
	pfree(stamps);
	return order;
}

/* Whether a field has bars: one that is kept out, or kept by esync, has none. */
static bool
field_has_bars(const EsyncReading *reading, int field)
{
	const EsyncField *f = &reading->tracked->fields[field];

	return !f->excluded && !f->stamp && esync_rights_field(&reading->rights, f);
}

/*
 * The bars of one field, or of all that the caller may read, and of the
 * delete register, in the effective order of their events.
 */
EsyncBars *
esync_history_bars(EsyncReading *reading, int field)
{
	EsyncTracked *t = reading->tracked;
	BarWalk		walk = {.reading = reading, .field = field, .delete_bar = -1};
	int		   *order = effective_order(reading->events);

	walk.bars = palloc0(sizeof(EsyncBars));
	walk.tracks = palloc0(sizeof(Track) * Max(t->nfields, 1));
	for (int i = 0; i < t->nfields; i++)
	{
		walk.tracks[i].bar = -1;
		walk.tracks[i].shown = (field == ESYNC_ALL_FIELDS || field == i) &&
			field_has_bars(reading, i);
	}
	walk_defaults(&walk);
	for (int i = 0; i < reading->events->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		walk_event(&walk, order[i]);
	}
	return walk.bars;
}

/* Takes one event: what it set, then what it says of the row as a whole. */
static void
walk_event(BarWalk *walk, int index)
{
	const EsyncEvent *event = &walk->reading->events->e[index];
	bool		ground = event->type == ESYNC_BASELINE &&
		(event->flags & ESYNC_FLAG_DRIFT) == 0;

	if (esync_json_count(&event->patch->root) > 0)
		walk_patch(walk, index);
	else if (ground || event->type == ESYNC_CREATED)
		walk_payload(walk, index);
	walk_delete_register(walk, index);
	walk->born = true;
}

/* Appends a bar, and makes it the winner in place of *winner. */
static EsyncBar *
add_bar(EsyncBars *bars, int field, int event, int *winner)
{
	EsyncBar   *bar;

	if (bars->n == bars->size)
	{
		bars->size = bars->size == 0 ? 64 : bars->size * 2;
		bars->bar = bars->bar == NULL ? palloc(sizeof(EsyncBar) * bars->size) :
			repalloc_huge(bars->bar, sizeof(EsyncBar) * bars->size);
	}
	if (*winner >= 0)
		bars->bar[*winner].current = false;
	*winner = bars->n;
	bar = &bars->bar[bars->n++];
	memset(bar, 0, sizeof(EsyncBar));
	bar->field = field;
	bar->event = event;
	bar->current = true;
	return bar;
}

/*
 * What a field held before an event set it.  A row that was there before the
 * column holds the column's fill.  False: there was nothing before.
 */
static bool
previous_value(const BarWalk *walk, int field, bool creates, JsonbValue *value)
{
	const Track *track = &walk->tracks[field];
	const EsyncField *f = &walk->reading->tracked->fields[field];

	if (track->known)
		*value = track->value;
	else if (creates || !walk->born)
		return false;
	else if (f->fill != NULL)
		esync_json_root(f->fill, value);
	else
		value->type = jbvNull;
	return true;
}

/* Shows a mask, also for what was recorded before the column was masked. */
static void
set_masked(JsonbValue *value)
{
	value->type = jbvString;
	value->val.string.val = ESYNC_MASK;
	value->val.string.len = strlen(ESYNC_MASK);
}

/* Has the event at hand a bar of this field already? */
static bool
has_bar(const BarWalk *walk, int index, int field)
{
	int			bar = walk->tracks[field].bar;

	return bar >= 0 && walk->bars->bar[bar].event == index;
}

/*
 * Takes one value that an event has for a field.  Where a row got another
 * key, only what differs from before is an edit.  Several edits of one event
 * inside of a column are one bar.
 */
static void
walk_value(BarWalk *walk, int index, int field, const JsonbValue *value)
{
	const EsyncEvent *event = &walk->reading->events->e[index];
	Track	   *track = &walk->tracks[field];
	bool		creates = event->type == ESYNC_CREATED;
	bool		moved = creates && (event->flags & ESYNC_FLAG_MOVED) != 0;
	JsonbValue	previous;
	bool		has_previous = previous_value(walk, field, creates && !moved, &previous);
	EsyncBar   *bar;

	track->known = true;
	track->value = *value;
	if (walk->reading->tracked->fields[field].masked)
		set_masked(&track->value);
	if (moved && has_previous && esync_json_equal(&track->value, &previous, true))
		return;
	if (has_bar(walk, index, field))
	{
		walk->bars->bar[track->bar].value = track->value;
		return;
	}

	bar = add_bar(walk->bars, field, index, &track->bar);
	bar->has_value = true;
	bar->value = track->value;
	bar->has_previous = has_previous;
	if (has_previous)
		bar->previous = previous;
}

/*
 * The field that a name in an event meant, if it is to be shown, else -1.
 * With one field asked for, its own names are compared before any other.
 */
static int
shown_field(const BarWalk *walk, const char *name, int len, int64 event_id)
{
	const EsyncTracked *t = walk->reading->tracked;
	int			field;

	if (walk->field != ESYNC_ALL_FIELDS)
	{
		const EsyncField *f = &t->fields[walk->field];
		bool		match = strncmp(f->name, name, len) == 0 && f->name[len] == '\0';

		for (int i = 0; i < f->nnames && !match; i++)
			match = strncmp(f->names[i].name, name, len) == 0 &&
				f->names[i].name[len] == '\0';
		if (!match)
			return -1;
	}
	field = esync_field_at(t->fields, t->nfields, name, len, event_id);
	return field >= 0 && walk->tracks[field].shown ? field : -1;
}

/* Takes a payload: each of its members is an edit. */
static void
walk_payload(BarWalk *walk, int index)
{
	EsyncEvent *event = &walk->reading->events->e[index];
	Jsonb	   *payload = esync_event_payload(event);
	EsyncWalk	members;

	if (payload == NULL || !JB_ROOT_IS_OBJECT(payload))
		return;
	esync_walk_init(&members, &payload->root);
	while (esync_walk_next(&members))
	{
		int			field = shown_field(walk, members.key, members.keylen,
										event->event_id);

		if (field >= 0)
			walk_value(walk, index, field, &members.value);
	}
}

/* The field that an operation of a patch sets; -1 if it shows in no track. */
static int
op_field(const BarWalk *walk, const EsyncEvent *event, const JsonbValue *value, EsyncPathOp *op)
{
	char		token[PATH_MAX_LEN];
	int			len;

	if (!esync_paths_read(value, op) || op->columnlen > PATH_MAX_LEN)
		return -1;
	len = esync_pointer_token(op->path, op->columnlen, token);
	return len < 0 ? -1 : shown_field(walk, token, len, event->event_id);
}

/* The column after an edit inside of it, which is made of what its track holds. */
static void
edit_inside(const BarWalk *walk, int field, EsyncPathOp *op)
{
	const EsyncField *f = &walk->reading->tracked->fields[field];
	JsonbValue	before = {.type = jbvNull};

	if (walk->tracks[field].known)
		before = walk->tracks[field].value;
	else if (f->fill != NULL)
		esync_json_root(f->fill, &before);
	esync_json_root(esync_paths_apply(&before, op), &op->value);
}

/*
 * Takes the operations of a patch: each sets the column that its path names,
 * or a place inside of it.
 */
static void
walk_patch(BarWalk *walk, int index)
{
	const EsyncEvent *event = &walk->reading->events->e[index];
	EsyncPathOp op;
	EsyncWalk	ops;

	esync_walk_init(&ops, &event->patch->root);
	while (esync_walk_next(&ops))
	{
		int			field = op_field(walk, event, &ops.value, &op);

		if (field < 0)
			continue;
		if (op.columnlen < op.len && !walk->reading->tracked->fields[field].masked)
			edit_inside(walk, field, &op);
		walk_value(walk, index, field, &op.value);
	}
}

/*
 * What the first event's author did not name when creating the row stood
 * there by default, before every edit: it is none, but edits replaced it.
 */
static void
walk_defaults(BarWalk *walk)
{
	EsyncEvent *event = walk->reading->events->e;
	EsyncPathOp op;
	EsyncWalk	members;
	int			field;

	if (walk->reading->events->n == 0 || event->type != ESYNC_CREATED ||
		esync_json_count(&event->patch->root) == 0 || esync_event_payload(event) == NULL)
		return;
	esync_walk_init(&members, &event->payload->root);
	while (esync_walk_next(&members))
	{
		field = shown_field(walk, members.key, members.keylen, event->event_id);
		if (field < 0)
			continue;
		walk->tracks[field].known = true;
		walk->tracks[field].value = members.value;
		if (walk->reading->tracked->fields[field].masked)
			set_masked(&walk->tracks[field].value);
	}
	esync_walk_init(&members, &event->patch->root);
	while (esync_walk_next(&members))
	{
		field = op_field(walk, event, &members.value, &op);
		if (field >= 0 && op.columnlen == op.len)
			walk->tracks[field].known = false;
	}
}

/* What a Baseline's meta says of the delete register; false: nothing. */
static bool
baseline_deleted(const EsyncEvent *event, bool *deleted)
{
	JsonbValue	value;

	if (event->meta == NULL || !JB_ROOT_IS_OBJECT(event->meta) ||
		!esync_json_member(&event->meta->root, "deleted", 7, &value) ||
		value.type != jbvBool)
		return false;
	*deleted = value.val.boolean;
	return true;
}

/*
 * Takes what an event says of the row as a whole.  Only what took the row, or
 * gave it back after that, is a bar: a tombstone shows on its own track, and
 * the two halves of a change of key are one row living on.
 */
static void
walk_delete_register(BarWalk *walk, int index)
{
	const EsyncEvent *event = &walk->reading->events->e[index];
	bool		moved = (event->flags & ESYNC_FLAG_MOVED) != 0;
	bool		deleted = false;
	bool		gone;

	if (moved && (event->flags & ESYNC_FLAG_FOLLOWED) != 0 && event->type == ESYNC_DELETED)
		return;
	if (event->type == ESYNC_DELETED)
		deleted = true;
	else if (event->type == ESYNC_BASELINE)
	{
		if (!baseline_deleted(event, &deleted))
			return;
	}
	else if (esync_event_life(event) != 0)
		deleted = esync_event_life(event) < 0;
	else if (event->type != ESYNC_CREATED && event->type != ESYNC_RESTORED)
		return;

	gone = deleted && (event->type == ESYNC_BASELINE ? event->payload == NULL :
					   event->type == ESYNC_RESOLVED ? event->row_xmin == InvalidTransactionId :
					   esync_json_count(&event->patch->root) == 0);
	if ((gone || walk->gone) && !(moved && deleted))
		add_bar(walk->bars, -1, index, &walk->delete_bar);
	else
	{
		if (walk->delete_bar >= 0)
			walk->bars->bar[walk->delete_bar].current = false;
		walk->delete_bar = -1;
	}
	walk->gone = gone;
}

/* ----------------------------------------------------------- field_history */

/* Raises unless the caller may read a field. */
void
esync_history_readable(const EsyncReading *reading, int field)
{
	const EsyncTracked *t = reading->tracked;

	if (!esync_rights_field(&reading->rights, &t->fields[field]))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for column \"%s\" of relation \"%s\"",
						t->fields[field].name, t->table_name)));
}

/*
 * The field that a caller names: a present column, else the latest of those
 * that are gone, else the one that bore that name last.  42703 where there never
 * was one.
 */
int
esync_history_field(const EsyncReading *reading, Name name)
{
	const EsyncTracked *t = reading->tracked;
	int			found = esync_field_called(t->fields, t->nfields, NameStr(*name));

	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("field \"%s\" does not exist", NameStr(*name)),
				 errhint("Name a column that table \"%s\" has or had.", t->table_name)));
	esync_history_readable(reading, found);
	return found;
}

/* A bar's status, the first that holds. */
const char *
esync_history_status(const EsyncReading *reading, const struct EsyncMarks *marks,
					 const EsyncBar *bar)
{
	if (bar->current)
		return "current";
	switch (esync_ledger_verdict(marks, reading->tracked, bar->field,
								 reading->events->e[bar->event].event_id))
	{
		case ESYNC_VERDICT_CONFLICT:
			return "conflict";
		case ESYNC_VERDICT_LOST:
			return "lost";
		case ESYNC_VERDICT_NONE:
			break;
	}
	return "superseded";
}

/* For qsort: by field in column order, the row itself last; then newest first. */
static int
compare_tracks(const void *a, const void *b)
{
	const EsyncBar *x = *(EsyncBar *const *) a;
	const EsyncBar *y = *(EsyncBar *const *) b;

	if (x->field != y->field)
	{
		if (x->field < 0 || y->field < 0)
			return x->field < 0 ? 1 : -1;
		return x->field < y->field ? -1 : 1;
	}
	return x > y ? -1 : x < y;
}

/* The bars in the order in which field_history gives them. */
static EsyncBar **
sorted_bars(EsyncBars *bars, bool one_field)
{
	EsyncBar  **sorted = palloc(sizeof(EsyncBar *) * Max(bars->n, 1));

	for (int i = 0; i < bars->n; i++)
		sorted[i] = &bars->bar[bars->n - 1 - i];
	if (!one_field)
		qsort(sorted, bars->n, sizeof(EsyncBar *), compare_tracks);
	return sorted;
}

/* Sets a result column to a text, or to NULL. */
static inline void
put_text(Datum *value, bool *isnull, const text *string)
{
	*isnull = string == NULL;
	*value = PointerGetDatum(string);
}

/* Returns one row of field_history. */
static void
put_bar(ReturnSetInfo *rsinfo, const EsyncReading *reading, const EsyncMarks *marks,
		const EsyncBar *bar)
{
	const EsyncEvent *event = &reading->events->e[bar->event];
	Datum		values[13];
	bool		nulls[13] = {false};

	if (bar->field < 0)
		nulls[0] = true;
	else
		values[0] = CStringGetTextDatum(reading->tracked->fields[bar->field].name);
	values[1] = Int64GetDatum(event->version);
	values[2] = Int64GetDatum(event->event_id);
	values[3] = CStringGetTextDatum(esync_event_type_name(event->type));
	nulls[4] = !bar->has_value;
	if (bar->has_value)
		values[4] = JsonbPGetDatum(esync_json_from_value(&bar->value));
	nulls[5] = !bar->has_previous;
	if (bar->has_previous)
		values[5] = JsonbPGetDatum(esync_json_from_value(&bar->previous));
	put_text(&values[6], &nulls[6], event->user_id);
	put_text(&values[7], &nulls[7], event->device_id);
	values[8] = TimestampTzGetDatum(event->branch);
	values[9] = TimestampTzGetDatum(event->submit);
	values[10] = TimestampTzGetDatum(event->commit);
	values[11] = TimestampTzGetDatum(event->effective);
	values[12] = CStringGetTextDatum(esync_history_status(reading, marks, bar));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The shared body of field_history. */
static Datum
field_history_rows(FunctionCallInfo fcinfo, bool key_is_text)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EsyncReading reading;
	EsyncBars  *bars;
	EsyncBar  **sorted;
	EsyncMarks *marks;
	int			field = ESYNC_ALL_FIELDS;

	InitMaterializedSRF(fcinfo, 0);
	if (!esync_history_open(fcinfo, key_is_text, ESYNC_WANT_EDITS, &reading))
		return (Datum) 0;
	if (!PG_ARGISNULL(2))
		field = esync_history_field(&reading, PG_GETARG_NAME(2));
	if (reading.rls_hidden)
		return (Datum) 0;

	bars = esync_history_bars(&reading, field);
	sorted = sorted_bars(bars, field != ESYNC_ALL_FIELDS);
	marks = esync_ledger_marks(&reading);
	for (int i = 0; i < bars->n; i++)
		put_bar(rsinfo, &reading, marks, sorted[i]);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(esync_field_history_any);

/* field_history(tbl regclass, key "any", field name) */
Datum
esync_field_history_any(PG_FUNCTION_ARGS)
{
	return field_history_rows(fcinfo, false);
}

PG_FUNCTION_INFO_V1(esync_field_history_text);

/* field_history(tbl regclass, key text, field name) */
Datum
esync_field_history_text(PG_FUNCTION_ARGS)
{
	return field_history_rows(fcinfo, true);
}

/* ----------------------------------------------------------- esync_history */

/* The rows that events left, where they are not stored: a fold that goes along. */
typedef struct Rows
{
	bool		needed;			/* some event has no payload */
	EsyncFolds	folds;
} Rows;

/* Begins the fold, if any payload is missing. */
static void
rows_begin(Rows *rows, const EsyncReading *reading)
{
	memset(rows, 0, sizeof(Rows));
	rows->folds.t = reading->tracked;
	for (int i = 0; i < reading->events->n && !rows->needed; i++)
		rows->needed = reading->events->e[i].payload == NULL;
}

/*
 * The row after an event, in the order of commits; of a hard delete the row
 * that it took.  Must be called for each event in turn.
 */
static Jsonb *
rows_next(Rows *rows, const EsyncReading *reading, int index)
{
	EsyncEvent *event = &reading->events->e[index];
	bool		hard = event->type == ESYNC_DELETED &&
		esync_json_count(&event->patch->root) == 0;
	Jsonb	   *row = esync_event_payload(event);
	EsyncFold  *fold;

	if (!rows->needed)
		return row;
	fold = esync_folds_of(&rows->folds, event->aggregate_id);
	if (row == NULL && hard)
		row = esync_fold_state_at(fold, event->event_id);
	esync_fold_add(fold, event, index);
	if (row == NULL && !hard)
		row = esync_fold_state_at(fold, event->event_id);
	return row;
}

/* Sets a result column to a document less what the caller may not read. */
static void
put_document(const EsyncReading *reading, Jsonb *document, bool is_patch, int64 event_id,
			 Datum *value, bool *isnull)
{
	document = esync_rights_filter(reading->tracked, &reading->rights, document,
								   is_patch, event_id);
	*isnull = document == NULL;
	*value = PointerGetDatum(document);
}

/* Returns one row of esync_history. */
static void
put_event(ReturnSetInfo *rsinfo, const EsyncReading *reading, int index, Jsonb *row,
		  bool row_stored)
{
	const EsyncEvent *event = &reading->events->e[index];
	Datum		values[13];
	bool		nulls[13] = {false};

	values[0] = Int64GetDatum(event->event_id);
	values[1] = Int64GetDatum(event->version);
	values[2] = CStringGetTextDatum(esync_event_type_name(event->type));
	values[3] = Int64GetDatum(event->base_version);
	put_document(reading, event->patch, true, event->event_id, &values[4], &nulls[4]);
	/* a row that was computed bears the names of today */
	put_document(reading, row, false, row_stored ? event->event_id : PG_INT64_MAX,
				 &values[5], &nulls[5]);
	put_text(&values[6], &nulls[6], event->user_id);
	put_text(&values[7], &nulls[7], event->device_id);
	values[8] = TimestampTzGetDatum(event->branch);
	values[9] = TimestampTzGetDatum(event->submit);
	values[10] = TimestampTzGetDatum(event->commit);
	values[11] = TimestampTzGetDatum(event->effective);
	values[12] = PointerGetDatum(esync_rights_meta(reading->tracked, &reading->rights,
												   event->meta));
	nulls[12] = event->meta == NULL;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The shared body of esync_history. */
static Datum
history_rows(FunctionCallInfo fcinfo, bool key_is_text)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EsyncReading reading;
	Rows		rows;

	InitMaterializedSRF(fcinfo, 0);
	if (!esync_history_open(fcinfo, key_is_text, ESYNC_WANT_ALL, &reading) ||
		reading.rls_hidden)
		return (Datum) 0;

	rows_begin(&rows, &reading);
	for (int i = 0; i < reading.events->n; i++)
	{
		bool		stored = reading.events->e[i].payload != NULL;
		Jsonb	   *row;

		CHECK_FOR_INTERRUPTS();
		row = rows_next(&rows, &reading, i);
		put_event(rsinfo, &reading, i, row, stored);
		if (!stored && row != NULL)
			pfree(row);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(esync_history_any);

/* esync_history(tbl regclass, key "any") */
Datum
esync_history_any(PG_FUNCTION_ARGS)
{
	return history_rows(fcinfo, false);
}

PG_FUNCTION_INFO_V1(esync_history_text);

/* esync_history(tbl regclass, key text) */
Datum
esync_history_text(PG_FUNCTION_ARGS)
{
	return history_rows(fcinfo, true);
}
