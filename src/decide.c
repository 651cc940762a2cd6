/*
 * decide.c: what a decision makes of which field.
 *
 * A conflict and a strategy, or a field and a choice, become values of
 * columns, operations inside of json_merge columns, and whether the row
 * lives.  Values come from the ledger, from the row's events, from the fold
 * at some point of the stream, or from who decides.  Writes nothing.
 *
 * Memory: the current context; values point into events and conflicts.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "paths.h"
#include "resolve.h"

/* where values come from; the first that is set */
typedef struct Source
{
	EsyncFold  *fold;			/* the row at some point of the stream */
	const EsyncEvent *event;	/* a contender, and */
	const JsonbValue *value;	/* what the ledger has of it; or what was given */
} Source;

static const char *const strategies[] = {"server_wins", "client_wins", "last_write_wins",
"event_sourced", "manual"};

/* The name of a strategy, as a constant; those that need no value alone in bulk. */
const char *
esync_decide_strategy(const text *name, bool bulk)
{
	for (int i = 0; i < lengthof(strategies) - bulk; i++)
		if (VARSIZE_ANY_EXHDR(name) == strlen(strategies[i]) &&
			memcmp(VARDATA_ANY(name), strategies[i], strlen(strategies[i])) == 0)
			return strategies[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid strategy \"%s\"", text_to_cstring(name)),
			 bulk ? errhint("The strategy is \"server_wins\", \"client_wins\", \"last_write_wins\" or \"event_sourced\".") :
			 errhint("The strategy is \"server_wins\", \"client_wins\", \"last_write_wins\", \"event_sourced\" or \"manual\". Fields are chosen one by one with esync_resolve_row.")));
}

/* ------------------------------------------------------- what is decided */

/* An error in what was sent. */
#define invalid(...) \
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), __VA_ARGS__))

/* The place in a value at a path ("" or "/token..."); false: there is nothing. */
static bool
value_at(const JsonbValue *value, const char *path, JsonbValue *out)
{
	*out = *value;
	while (*path)
	{
		int			len = 1 + strcspn(path + 1, "/");
		char	   *token = palloc(len + 1);
		int			n = esync_pointer_token(path, len, token);

		if (n < 0 || out->type != jbvBinary || !JsonContainerIsObject(out->val.binary.data) ||
			!esync_json_member(out->val.binary.data, token, n, out))
			return false;
		path += len;
	}
	return true;
}

/* The row as the stream has it now. */
static EsyncFold *
fold_now(EsyncDecision *d)
{
	if (d->now == NULL)
		d->now = esync_merge_fold(&d->m, d->m.events->n);
	return d->now;
}

/* Is a place inside of a column there now? */
static bool
is_there(EsyncDecision *d, int field, const char *path)
{
	JsonbValue	column;
	JsonbValue	value;

	return esync_fold_value(fold_now(d), field, &column) && value_at(&column, path, &value);
}

/* Decides a place in a json_merge column, or all of it; value NULL: it is to be removed. */
static void
put_op(EsyncDecision *d, int field, const char *path, const JsonbValue *value)
{
	const char *name = d->t->fields[field].name;
	const char *op = value == NULL ? "remove" : is_there(d, field, path) ? "replace" : "add";
	EsyncMember members[3] = {{.key = "op", .keylen = 2}, {.key = "path", .keylen = 4},
		{.key = "value", .keylen = 5}};

	members[0].value = esync_value_string(op);
	members[1].value = esync_value_string(psprintf("/%s%s", esync_pointer_escape(name), path));
	if (value)
		members[2].value = *value;
	d->ops = lappend(d->ops, esync_json_object(value ? 3 : 2, members));
}

/* Does the name of a column that is gone mean another one by now? */
static bool
is_renamed_over(const EsyncTracked *t, int field)
{
	const char *name = t->fields[field].name;
	int			now = esync_field_at(t->fields, t->nfields, name, strlen(name), PG_INT64_MAX);

	return now >= 0 && now != field;
}

/* Decides a column, unless nobody can: by an option that came after the conflict. */
static void
put_column(EsyncDecision *d, int field, const JsonbValue *value)
{
	const EsyncField *f = &d->t->fields[field];
	int			i;

	if (!esync_merge_takes(f) || esync_merge_is_key(d->t, field) ||
		is_renamed_over(d->t, field))
		return;
	if (f->json_merge)
	{
		put_op(d, field, "", value);
		return;
	}
	if (d->set == NULL)
		d->set = palloc((d->t->nfields + 1) * sizeof(EsyncMember));
	for (i = 0; i < d->nset; i++)
		if (strcmp(d->set[i].key, f->name) == 0)
			break;
	d->nset = Max(d->nset, i + 1);
	d->set[i].key = f->name;
	d->set[i].keylen = strlen(f->name);
	d->set[i].value = *value;
}

static void
put_place(EsyncDecision *d, const EsyncPlace *place)
{
	EsyncPlace *copy = palloc(sizeof(EsyncPlace));

	*copy = *place;
	d->places = lappend(d->places, copy);
}

/* {"deleted": true}: whether the row lives. */
static void
put_life(EsyncDecision *d, const JsonbValue *value)
{
	JsonbValue	deleted;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data) ||
		esync_json_count(value->val.binary.data) != 1 ||
		!esync_json_member(value->val.binary.data, "deleted", 7, &deleted) ||
		deleted.type != jbvBool)
		invalid(errmsg("invalid decision about a row as a whole"),
				errhint("It is {\"deleted\": true} or {\"deleted\": false}."));
	d->life = deleted.val.boolean ? -1 : 1;
}

/* ---------------------------------------------------------------- sources */

/* The event with that id; NULL: it is none of the row's. */
static const EsyncEvent *
event_of(const EsyncDecision *d, int64 event_id)
{
	for (int i = 0; i < d->m.events->n; i++)
		if (d->m.events->e[i].event_id == event_id)
			return &d->m.events->e[i];
	return NULL;
}

/* The row before an event came, whatever its effective time. */
static EsyncFold *
fold_before(EsyncDecision *d, int64 version)
{
	int			n = 0;

	while (n < d->m.events->n && d->m.events->e[n].version < version)
		n++;
	return esync_merge_fold(&d->m, n);
}

/* The contender with the greatest stamp: the latest submit, if no clock was wrong. */
static const EsyncLedgerContender *
latest(const EsyncDecision *d, const EsyncLedgerContender *contenders, int n)
{
	const EsyncLedgerContender *best = &contenders[n - 1];
	EsyncStamp	best_stamp = {0};
	bool		found = false;

	for (int i = 0; i < n; i++)
	{
		const EsyncEvent *e = event_of(d, contenders[i].event_id);
		EsyncStamp	stamp;

		if (e == NULL)
			continue;
		stamp = esync_event_stamp(e);
		if (found && esync_stamp_cmp(&stamp, &best_stamp) < 0)
			continue;
		found = true;
		best = &contenders[i];
		best_stamp = stamp;
	}
	return best;
}

/* The disputed event: the last that was committed, of those that a constraint refused. */
static const EsyncLedgerContender *
disputed(const EsyncLedgerContender *contenders, int n)
{
	const EsyncLedgerContender *one = &contenders[0];

	for (int i = 1; i < n; i++)
	{
		bool		refused = contenders[i].constraint.type != jbvNull;
		bool		other = one->constraint.type != jbvNull;

		if (refused == other ? contenders[i].version > one->version : refused)
			one = &contenders[i];
	}
	return one;
}

/*
 * Is the latest edit of a place where others merge with it?  What the row shows
 * of it is confirmed as it is: who had seen it may have set parts since.
 */
static bool
is_merged(const EsyncDecision *d, const EsyncPlace *place, const EsyncLedgerContender *latest)
{
	return place->field >= 0 && d->t->fields[place->field].json_merge &&
		latest->constraint.type == jbvNull;
}

/*
 * What a strategy takes values from.  Before an event that was refused there
 * was what the row shows still.
 */
static Source
source_of(EsyncDecision *d, const EsyncPlace *place, const EsyncConflict *conflict,
		  const JsonbValue *value)
{
	int			n;
	EsyncLedgerContender *all = esync_ledger_contenders(conflict, &n);
	const EsyncLedgerContender *one = disputed(all, n);
	Source		source = {0};

	if (strcmp(d->strategy, "manual") == 0)
	{
		source.value = value;
		return source;
	}
	if (strcmp(d->strategy, "server_wins") == 0)
		source.fold = one->constraint.type != jbvNull ? fold_now(d) :
			fold_before(d, one->version);
	else if (strcmp(d->strategy, "event_sourced") == 0)
		source.fold = fold_now(d);
	else
	{
		if (strcmp(d->strategy, "last_write_wins") == 0)
			one = latest(d, all, n);
		if (strcmp(d->strategy, "client_wins") != 0 && is_merged(d, place, one))
		{
			source.fold = fold_now(d);
			return source;
		}
		source.event = event_of(d, one->event_id);
		source.value = &one->value;
	}
	return source;
}

/* Did an event take away what was at a place inside of a column? */
static bool
takes_away(const EsyncDecision *d, const EsyncEvent *e, const EsyncPlace *place)
{
	EsyncWalk	walk;
	bool		nothing = false;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		JsonbValue	value;
		int			len;

		if (!esync_paths_read(&walk.value, &op) ||
			!esync_merge_op_in_field(d->t, &op, e->event_id, place->field))
			continue;
		len = op.len - op.columnlen;
		if (len > strlen(place->path) ||
			memcmp(place->path, op.path + op.columnlen, len) != 0 ||
			(place->path[len] != '\0' && place->path[len] != '/'))
			continue;
		nothing = op.remove || !value_at(&op.value, place->path + len, &value);
	}
	return nothing;
}

/* Decides a place inside of a column. */
static void
decide_inside(EsyncDecision *d, const EsyncPlace *place, const Source *source)
{
	JsonbValue	value;

	if (!esync_merge_takes(&d->t->fields[place->field]) || is_renamed_over(d->t, place->field))
		return;
	if (source->fold)
	{
		JsonbValue	column;
		bool		found = esync_fold_value(source->fold, place->field, &column) &&
			value_at(&column, place->path, &value);

		if (found && value.type == jbvBinary)
			esync_json_root(esync_json_from_value(&value), &value);	/* the fold goes on */
		put_op(d, place->field, place->path, found ? &value : NULL);
	}
	else if (source->event && source->value->type == jbvNull &&
			 takes_away(d, source->event, place))
		put_op(d, place->field, place->path, NULL);
	else
		put_op(d, place->field, place->path, source->value);
}

/* Decides a column by the fold; one whose values nobody records stays as it is. */
static void
decide_by_fold(EsyncDecision *d, int field, EsyncFold *fold)
{
	JsonbValue	value;

	if (d->t->fields[field].masked || !esync_fold_value(fold, field, &value))
		return;
	if (value.type == jbvBinary)
		esync_json_root(esync_json_from_value(&value), &value);
	put_column(d, field, &value);
}

/* The column that bears a name now; -1: none, whatever was called so before. */
static int
column_now(const EsyncTracked *t, const char *name, int len)
{
	for (int i = 0; i < t->nfields; i++)
		if (t->fields[i].attnum != 0 && strlen(t->fields[i].name) == len &&
			memcmp(t->fields[i].name, name, len) == 0)
			return i;
	return -1;
}

/*
 * A column as it was named when the conflict was opened, or is named now; who
 * chooses (PG_INT64_MAX) calls it by its present name.  -1: none.
 */
static int
column_named(const EsyncDecision *d, const char *name, int len, int64 event_id)
{
	int			field;

	if (event_id == PG_INT64_MAX)
		return column_now(d->t, name, len);
	field = esync_field_at(d->t->fields, d->t->nfields, name, len, event_id);
	return field >= 0 ? field :
		esync_field_at(d->t->fields, d->t->nfields, name, len, PG_INT64_MAX);
}

/* Decides several columns, of which the source has an object; by the fold those that `like` has. */
static void
decide_columns(EsyncDecision *d, const Source *source, const JsonbValue *like, int64 event_id)
{
	EsyncWalk	walk;

	if (like->type != jbvBinary || !JsonContainerIsObject(like->val.binary.data))
		invalid(errmsg("a decision about several columns must be an object"),
				errhint("Its members are the columns."));
	esync_walk_init(&walk, like->val.binary.data);
	while (esync_walk_next(&walk))
	{
		int			field = column_named(d, walk.key, walk.keylen, event_id);

		if (field < 0)
			invalid(errmsg("table \"%s\" has no column \"%s\"", d->t->table_name,
						   pnstrdup(walk.key, walk.keylen)),
					errhint("The members of the value are columns, as they are called now."));
		if (source->fold)
			decide_by_fold(d, field, source->fold);
		else if (!d->t->fields[field].masked)
			put_column(d, field, &walk.value);
	}
}

/* Decides the columns of a group; a value must not name others. */
static void
decide_group(EsyncDecision *d, const EsyncPlace *place, const Source *source, int64 event_id)
{
	const EsyncGroup *group = &d->t->groups[place->group];
	int			before = d->nset;

	if (source->fold)
	{
		for (int i = 0; i < group->nfields; i++)
			decide_by_fold(d, group->fields[i], source->fold);
		return;
	}
	decide_columns(d, source, source->value, event_id);
	for (int i = before; i < d->nset && source->event == NULL; i++)
	{
		int			field = esync_field_at(d->t->fields, d->t->nfields, d->set[i].key,
										   d->set[i].keylen, PG_INT64_MAX);

		if (d->t->fields[field].group != place->group)
			invalid(errmsg("column \"%s\" is none of group \"%s\"", d->set[i].key,
						   group->name),
					errhint("The value of a group has columns of the group alone."));
	}
}

/* ---------------------------------------------------------------- conflicts */

/* Decides whether the row lives. */
static void
decide_life(EsyncDecision *d, const Source *source)
{
	if (source->fold)
		d->life = esync_fold_has_row(source->fold) && !source->fold->deleted ? 1 : -1;
	else if (source->event)
		d->life = esync_merge_contender(source->event).type == ESYNC_DELETED ? -1 : 1;
	else
		put_life(d, source->value);
}

/* Is it about whether the row lives?  Other kinds without a field are about several. */
static bool
is_about_life(const EsyncConflict *c)
{
	return c->field == NULL && VARSIZE_ANY_EXHDR(c->kind) == strlen("delete_edit") &&
		memcmp(VARDATA_ANY(c->kind), "delete_edit", strlen("delete_edit")) == 0;
}

/* The lowest base of a conflict's contenders: what came after it may be another row. */
static int64
lowest_base(const EsyncConflict *conflict)
{
	int			n;
	EsyncLedgerContender *all = esync_ledger_contenders(conflict, &n);
	int64		lowest = all[0].base_version;

	for (int i = 1; i < n; i++)
		lowest = Min(lowest, all[i].base_version);
	return lowest;
}

/* Decides what the contenders set of a group or a column that is no more. */
static void
decide_gone(EsyncDecision *d, const EsyncConflict *conflict, const Source *source)
{
	int			n;
	EsyncLedgerContender *all = esync_ledger_contenders(conflict, &n);

	if (source->fold == NULL)
		decide_columns(d, source, source->value, conflict->opened_event);
	else if (all[n - 1].value.type == jbvBinary)
		decide_columns(d, source, &all[n - 1].value, conflict->opened_event);
}

/*
 * Decides a conflict by the decision's strategy; value is that of `manual`.  A
 * row that got another key meanwhile is decided under the one that it has now.
 */
void
esync_decide_conflict(EsyncDecision *d, EsyncConflict *conflict, const Jsonb *value)
{
	EsyncDecision *to = esync_decision_follow(d, lowest_base(conflict));
	EsyncPlace	place = esync_ledger_place(d->t, conflict->field, conflict->opened_event);
	JsonbValue *given = palloc(sizeof(JsonbValue));
	Source		source;

	if (value)
		esync_json_root(value, given);
	source = source_of(d, &place, conflict, value ? given : NULL);
	d->resolves = lappend(d->resolves, conflict);
	put_place(to, &place);
	if (is_about_life(conflict))
		decide_life(to, &source);
	else if (place.group >= 0)
		decide_group(to, &place, &source, conflict->opened_event);
	else if (place.field < 0)
		decide_gone(to, conflict, &source);
	else if (*place.path)
		decide_inside(to, &place, &source);
	else if (source.fold)
		decide_by_fold(to, place.field, source.fold);
	else
		put_column(to, place.field, source.value);
}

/* ------------------------------------------------------------------ choices */

/* A JSON number as an event_id; 0 if it is none. */
static int64
read_event_id(const JsonbValue *v)
{
	Datum		given;
	Datum		id;

	if (v->type != jbvNumeric)
		return 0;
	given = NumericGetDatum(v->val.numeric);
	if (		DatumGetBool(DirectFunctionCall2(numeric_gt, given,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, given, NumericGetDatum(int64_to_numeric(0)))))
		return 0;
	id = DirectFunctionCall1(numeric_int8, given);
	return DatumGetBool(DirectFunctionCall2(numeric_eq, given,
											NumericGetDatum(int64_to_numeric(DatumGetInt64(id))))) ?
		DatumGetInt64(id) : 0;
}

/*
 * What an event set a column to: the value of its bar, also of one under a
 * former key, or what a constraint refused of it.
 */
static bool
bar_value(EsyncDecision *d, int field, int64 event_id, JsonbValue *value)
{
	EsyncBounds bounds = {DT_NOEND, DT_NOEND, d->rights.rls};
	EsyncReading reading = {.tracked = d->t, .rights = d->rights,
		.aggregate_id = d->aggregate_id, .key = d->key};
	EsyncBars  *bars;

	if (d->t->fields[field].masked)
		return false;
	reading.events = esync_stream_read(d->t, d->aggregate_id, &bounds, SnapshotSelf, true,
									   ESYNC_WANT_EDITS);
	bars = esync_history_bars(&reading, field);
	for (int i = 0; i < bars->n; i++)
		if (bars->bar[i].has_value && bars->bar[i].field == field &&
			reading.events->e[bars->bar[i].event].event_id == event_id)
		{
			*value = bars->bar[i].value;
			return true;
		}
	for (int i = 0; i < reading.events->n; i++)
		if (reading.events->e[i].event_id == event_id)
			return esync_rights_field(&d->rights, &d->t->fields[field]) &&
				esync_refusal_value(d->t, &reading.events->e[i], field, value, NULL);
	return false;
}

/* The error of an event that is no bar of the field's track. */
static void
no_bar(const EsyncDecision *d, const char *name, int64 event_id)
{
	invalid(errmsg("event " INT64_FORMAT " has no value of \"%s\" in row \"%s\" of table \"%s\"",
				   event_id, name, text_to_cstring(d->aggregate_id), d->t->table_name),
			errhint("field_history tells which events set a field."));
}

/* Takes a place, a column or the members of a group as an event left them. */
static void
choose_bar(EsyncDecision *d, const EsyncPlace *place, const char *name, int64 event_id)
{
	JsonbValue	column;
	JsonbValue	value;
	int			found = 0;

	if (place->group >= 0)
	{
		const EsyncGroup *group = &d->t->groups[place->group];

		for (int i = 0; i < group->nfields; i++)
			if (bar_value(d, group->fields[i], event_id, &value))
			{
				put_column(d, group->fields[i], &value);
				found++;
			}
	}
	else if (bar_value(d, place->field, event_id, &column))
	{
		found++;
		if (*place->path == '\0')
			put_column(d, place->field, &column);
		else
			put_op(d, place->field, place->path,
				   value_at(&column, place->path, &value) ? &value : NULL);
	}
	if (found == 0)
		no_bar(d, name, event_id);
}

/* Whether the row lives, as an event has it. */
static void
choose_life(EsyncDecision *d, int64 event_id, const JsonbValue *value)
{
	const EsyncEvent *e;

	if (value)
	{
		put_life(d, value);
		return;
	}
	e = event_of(d, event_id);
	if (e == NULL)
		invalid(errmsg("event " INT64_FORMAT " is none of row \"%s\" of table \"%s\"", event_id,
					   text_to_cstring(d->aggregate_id), d->t->table_name),
				errhint("esync_history tells the events of a row."));
	d->life = esync_merge_contender(e).type == ESYNC_DELETED ? -1 : 1;
}

/* Raises unless the place below a column is a JSON pointer: it is to stand in a patch. */
static void
check_path(const EsyncPlace *place, const char *name)
{
	for (const char *at = strchr(place->path, '~'); at; at = strchr(at + 1, '~'))
		if (at[1] != '0' && at[1] != '1')
			invalid(errmsg("invalid path in \"%s\"", name),
					errhint("Below the column it is a JSON pointer: write ~0 for a \"~\" in a name, ~1 for a \"/\"."));
}

/* Raises unless anybody can decide the column. */
static void
check_column(const EsyncDecision *d, const EsyncPlace *place, const char *name,
			 const JsonbValue *value)
{
	const EsyncField *f = &d->t->fields[place->field];

	if (!esync_merge_takes(f) || esync_merge_is_key(d->t, place->field))
		invalid(errmsg("column \"%s\" of table \"%s\" cannot be decided", f->name,
					   d->t->table_name),
				errhint("Columns of the key, generated and excluded ones, and those of last_modified have no conflicts."));
	if (place->field == d->t->tombstone_field)
		invalid(errmsg("column \"%s\" of table \"%s\" says whether the row lives", f->name,
					   d->t->table_name),
				errhint("Decide the row as a whole: {\"\": {\"value\": {\"deleted\": false}}}."));
	if (*place->path && !f->json_merge)
		invalid(errmsg("column \"%s\" of table \"%s\" is not merged path by path", f->name,
					   d->t->table_name),
				errhint("Decide it as a whole, or name it in the option json_merge."));
	check_path(place, name);
	if (value && f->masked && value->type == jbvString &&
		value->val.string.len == strlen(ESYNC_MASK) &&
		memcmp(value->val.string.val, ESYNC_MASK, strlen(ESYNC_MASK)) == 0)
		invalid(errmsg("column \"%s\" of table \"%s\" is masked", f->name, d->t->table_name),
				errhint("Give its real value."));
}

/* Reads {"event_id": 12} or {"value": ...}; the one that it is not is 0 or NULL. */
static const JsonbValue *
read_choice(const char *name, const JsonbValue *choice, int64 *event_id)
{
	EsyncWalk	walk;
	JsonbValue *value = palloc(sizeof(JsonbValue));

	*event_id = 0;
	if (choice->type == jbvBinary && JsonContainerIsObject(choice->val.binary.data) &&
		esync_json_count(choice->val.binary.data) == 1)
	{
		esync_walk_init(&walk, choice->val.binary.data);
		(void) esync_walk_next(&walk);
		*value = walk.value;
		if (walk.keylen == 5 && memcmp(walk.key, "value", 5) == 0)
			return value;
		if (walk.keylen == 8 && memcmp(walk.key, "event_id", 8) == 0 &&
			(*event_id = read_event_id(value)) > 0)
			return NULL;
	}
	invalid(errmsg("invalid choice for \"%s\"", name),
			errhint("It is {\"event_id\": 12}, an event that set the field, or {\"value\": ...}, null to empty it."));
}

/*
 * What a choice calls by a name: a group, a column by its present name, or a
 * path inside of one.  As in the ledger, names may have slashes, and may be
 * escaped before a path; but what is gone, and former names, mean nothing.
 */
static EsyncPlace
place_now(const EsyncTracked *t, const char *name)
{
	EsyncPlace	place = esync_ledger_place(t, cstring_to_text(name), PG_INT64_MAX);

	if (place.group >= 0)
		return place;
	place.field = column_now(t, name, strlen(name));
	place.path = "";
	for (const char *slash = strchr(name, '/'); place.field < 0 && slash; slash = strchr(slash + 1, '/'))
	{
		char	   *token = palloc(slash - name + 2);
		int			n;

		place.path = pstrdup(slash);
		place.field = column_now(t, name, slash - name);
		n = esync_pointer_token(psprintf("/%.*s", (int) (slash - name), name), slash - name + 1, token);
		if (place.field < 0 && n >= 0)
			place.field = column_now(t, token, n);
	}
	return place;
}

/*
 * Decides one field by its name of now: a column, column/path, a group, or ""
 * for the row as a whole.
 */
void
esync_decide_choice(EsyncDecision *d, const char *key, int len, const JsonbValue *choice)
{
	char	   *name = pnstrdup(key, len);
	int64		event_id;
	const JsonbValue *value = read_choice(name, choice, &event_id);
	EsyncPlace	place = {.row = true, .field = -1, .group = -1, .path = ""};

	if (len > 0)
		place = place_now(d->t, name);
	put_place(d, &place);
	if (place.row)
		choose_life(d, event_id, value);
	else if (place.field < 0 && place.group < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", name,
						d->t->table_name),
				 errhint("A choice names a column, column/path in a column of json_merge, or a group, as it is called now.")));
	else
	{
		Source		source = {.value = value};

		if (place.field >= 0)
			check_column(d, &place, name, value);
		if (value == NULL)
			choose_bar(d, &place, name, event_id);
		else if (place.group >= 0)
			decide_group(d, &place, &source, PG_INT64_MAX);
		else if (*place.path)
			put_op(d, place.field, place.path, value);
		else
			put_column(d, place.field, value);
	}
}

/* -------------------------------------------------------------------- drift */

/*
 * Decides for the stream wherever the table's row (NULL: there is none) is not
 * what the stream says: it was changed where esync did not see it.
 */
void
esync_decide_drift(EsyncDecision *d, const Jsonb *row)
{
	EsyncFold  *fold = fold_now(d);
	bool		living = fold->known && esync_fold_has_row(fold);

	if (!fold->known)
		return;
	if (living != (row != NULL))
		d->life = living && !fold->deleted ? 1 : -1;
	for (int i = 0; living && row && i < d->t->nfields; i++)
	{
		const EsyncField *f = &d->t->fields[i];
		EsyncPlace	place = {.field = i, .group = -1, .path = ""};
		JsonbValue	here;
		JsonbValue	there;

		if (f->attnum == 0 || f->masked || !esync_merge_takes(f) ||
			i == d->t->tombstone_field || !esync_fold_value(fold, i, &there) ||
			!esync_json_member(&row->root, f->name, strlen(f->name), &here) ||
			esync_json_equal(&here, &there, true))
			continue;
		put_place(d, &place);
		decide_by_fold(d, i, fold);
	}
}

/* ----------------------------------------------------------- what it touches */

/* Does a place hold another: itself, what lies inside of it, or the group of a column? */
static bool
holds(const EsyncTracked *t, const EsyncPlace *a, const EsyncPlace *b)
{
	int			len = strlen(a->path);

	if (a->row || b->row)
		return a->row && b->row;
	if (a->group >= 0 || b->group >= 0)
		return a->group == b->group ||
			(a->field >= 0 && *a->path == '\0' && t->fields[a->field].group == b->group) ||
			(a->group >= 0 && b->field >= 0 && t->fields[b->field].group == a->group);
	return a->field >= 0 && a->field == b->field && strncmp(a->path, b->path, len) == 0 &&
		(b->path[len] == '\0' || b->path[len] == '/');
}

/* Does the decision settle a conflict? */
bool
esync_decide_covers(const EsyncDecision *d, const EsyncConflict *conflict)
{
	EsyncPlace	place = esync_ledger_place(d->t, conflict->field, conflict->opened_event);
	ListCell   *lc;

	if (list_member_ptr(d->resolves, conflict))
		return true;
	foreach(lc, d->places)
		if ((!place.row || is_about_life(conflict)) && holds(d->t, lfirst(lc), &place))
			return true;
	return false;
}

/* Did a constraint refuse of an event what it set of a place? */
static bool
was_refused(EsyncDecision *d, int event, const EsyncPlace *place)
{
	JsonbValue	value;

	for (int i = 0; i < d->t->nfields; i++)
		if (esync_ledger_covers(d->t, place, i) &&
			esync_refusal_value(d->t, &d->m.events->e[event], i, &value, NULL))
			return true;
	return false;
}

/* Does an event set a place, or something that holds it, or in it? */
static bool
sets_place(EsyncDecision *d, int event, const EsyncPlace *place)
{
	const EsyncEvent *e = &d->m.events->e[event];
	EsyncWalk	walk;

	if (place->group >= 0)
	{
		const EsyncGroup *group = &d->t->groups[place->group];

		for (int i = 0; i < group->nfields; i++)
			if (esync_merge_sets(&d->m, event, group->fields[i], NULL))
				return true;
		return false;
	}
	if (place->field < 0)
		return false;
	if (*place->path == '\0' || esync_json_count(&e->patch->root) == 0)
		return esync_merge_sets(&d->m, event, place->field, NULL);
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(d->t, &op, e->event_id, place->field) &&
			(op.len == op.columnlen ||
			 esync_paths_overlap(op.path + op.columnlen, op.len - op.columnlen, place->path,
								 strlen(place->path))))
			return true;
	}
	return false;
}

static bool
is_contender(const EsyncConflict *conflict, int64 event_id)
{
	int			n;
	EsyncLedgerContender *all = esync_ledger_contenders(conflict, &n);

	for (int i = 0; i < n; i++)
		if (all[i].event_id == event_id)
			return true;
	return false;
}

/*
 * Would an event that the decider had not seen contend with the decision?  It
 * does if it sets what is decided, or would have, or takes or gives back the row.  What
 * triggers made of edits is nobody's, and the ground was seen by all.
 */
bool
esync_decide_contends(EsyncDecision *d, int event)
{
	const EsyncEvent *e = &d->m.events->e[event];
	EsyncEventType type = esync_merge_contender(e).type;
	ListCell   *lc;

	foreach(lc, d->resolves)
		if (is_contender(lfirst(lc), e->event_id))
			return true;
	if ((e->flags & ESYNC_FLAG_DERIVED) ||
		(type == ESYNC_BASELINE && (!(e->flags & ESYNC_FLAG_DRIFT) ||
									strcmp(d->strategy, "event_sourced") == 0)))
		return false;
	if (type == ESYNC_CREATED || type == ESYNC_DELETED || type == ESYNC_RESTORED)
		return true;
	if (d->life != 0)
		return true;
	foreach(lc, d->places)
		if (sets_place(d, event, lfirst(lc)) || was_refused(d, event, lfirst(lc)))
			return true;
	return false;
}
