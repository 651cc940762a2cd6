/*
 * resolve.c: conflicts decided: esync_resolve, esync_resolve_row,
 * esync_resolve_all.
 *
 * A decision is an event like any other, written by apply.c as the caller.
 * What it is about is read under the row's lock, as of now: of two who decide
 * one conflict the second one finds it closed, and is told what the row is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "resolve.h"

/* so many rows are decided at once; if one is refused they are tried one by one */
#define BULK	100

/* ------------------------------------------------------------------- answers */

/* The numbers of conflicts as an array. */
static JsonbValue
json_ids(List *conflicts)
{
	List	   *ids = NIL;
	ListCell   *lc;

	foreach(lc, conflicts)
	{
		JsonbValue	v = esync_value_int64(((EsyncConflict *) lfirst(lc))->conflict_id);

		ids = lappend(ids, esync_json_from_value(&v));
	}
	return esync_value_document(esync_json_array(ids));
}

/* May the caller know of a conflict of a row that it sees? */
static bool
is_readable(const EsyncDecision *d, const EsyncConflict *c)
{
	EsyncPlace	place = esync_ledger_place(d->t, c->field, c->opened_event);

	return esync_ledger_readable(d->t, &d->rights, &place);
}

/* A conflict in short, under the name that its field has now. */
static Jsonb *
conflict_object(const EsyncDecision *d, const EsyncConflict *c)
{
	EsyncPlace	place = esync_ledger_place(d->t, c->field, c->opened_event);
	char	   *name = esync_ledger_name(d->t, c, &place);
	EsyncMember members[6];
	int			n = 0;

	members[n++] = esync_json_pair("conflict_id", esync_value_int64(c->conflict_id));
	members[n++] = esync_json_pair("field", esync_value_string(name));
	members[n++] = esync_json_pair("kind", esync_value_text(c->kind));
	if (!c->open)
	{
		members[n++] = esync_json_pair("status", esync_value_string("closed"));
		members[n++] = esync_json_pair("resolution", esync_value_text(c->resolution));
		members[n++] = esync_json_pair("resolved_by", esync_value_text(c->resolved_by));
	}
	return esync_json_object(n, members);
}

/* Open conflicts of the row, after one that may be closed. */
static JsonbValue
json_conflicts(const EsyncDecision *d, List *open, const EsyncConflict *closed)
{
	List	   *documents = NIL;
	ListCell   *lc;

	if (closed && !closed->open)
		documents = list_make1(conflict_object(d, closed));
	foreach(lc, open)
		if (is_readable(d, lfirst(lc)))
			documents = lappend(documents, conflict_object(d, lfirst(lc)));
	return esync_value_document(esync_json_array(documents));
}

/*
 * The error where the row is not what the decider saw: somebody else was first.
 * Its detail is the present state, for programs.
 */
static void
raise_stale(EsyncDecision *d, const EsyncConflict *closed, char *message)
{
	const EsyncEvent *head = esync_decision_head(d);
	EsyncMember members[4];
	int			n = 0;
	Jsonb	   *row = esync_decision_row(d);
	Jsonb	   *state;

	members[n++] = esync_json_pair("version", esync_value_int64(head ? head->version : 1));
	members[n++] = esync_json_pair("deleted",
								   esync_value_bool(head ? (head->flags & ESYNC_FLAG_DELETED) != 0 :
													row == NULL));
	members[n++] = esync_json_pair("row", esync_value_document(row));
	members[n++] = esync_json_pair("conflicts", json_conflicts(d, d->open, closed));
	state = esync_json_object(n, members);
	ereport(ERROR,
			(errcode(ERRCODE_ESYNC_VERSION),
			 errmsg_internal("%s", message),
			 errdetail_internal("%s", JsonbToCString(NULL, &state->root, VARSIZE(state))),
			 errhint("Look at the row as it is now, and decide again.")));
}

/* Raises where something contends with the decision that was not there at expected_version. */
static void
check_expected(EsyncDecision *d)
{
	const EsyncEvent *head = esync_decision_head(d);

	if (!d->expects)
		return;
	if (d->expected > (head ? head->version : 1))
		raise_stale(d, NULL, psprintf("row \"%s\" of table \"%s\" has no version " INT64_FORMAT,
									  text_to_cstring(d->aggregate_id), d->t->table_name,
									  d->expected));
	for (int i = 0; i < d->m.events->n; i++)
		if (d->m.events->e[i].version > d->expected && esync_decide_contends(d, i))
			raise_stale(d, NULL,
						psprintf("row \"%s\" of table \"%s\" was changed since version " INT64_FORMAT,
								 text_to_cstring(d->aggregate_id), d->t->table_name,
								 d->expected));
}

/* --------------------------------------------------------------- the decision */

/* What the event tells besides: that of the context, and what it decides. */
static Jsonb *
meta_of(EsyncDecision *d, Jsonb *meta)
{
	List	   *resolves = NIL;
	EsyncExtra	extras[2];
	ListCell   *lc;

	foreach(lc, d->open)
		if (esync_decide_covers(d, lfirst(lc)))
			resolves = lappend(resolves, lfirst(lc));
	extras[0].key = "strategy";
	extras[0].value = esync_value_string(d->strategy);
	extras[1].key = "resolves";
	extras[1].value = json_ids(resolves);
	return esync_meta_with(meta, extras, resolves ? 2 : 1);
}

/* The decision as an edit, by the session's author. */
static EsyncEdit
edit_of(EsyncDecision *d)
{
	const EsyncContext *context = esync_context_get();
	const EsyncEvent *head = esync_decision_head(d);
	EsyncEdit	edit = esync_edit_by(context, ESYNC_VERB_RESOLVE);

	/* what apply finds to have happened unseen is seen by who saw all else */
	edit.has_base_version = d->expects && head && d->expected < head->version &&
		strcmp(d->strategy, "event_sourced") != 0;
	edit.base_version = d->expected;
	edit.meta = meta_of(d, context->meta);
	edit.set = esync_json_object(d->nset, d->set);
	if (d->ops)
		edit.ops = esync_json_array(d->ops);
	edit.life = d->life;
	edit.strategy = d->strategy;
	return edit;
}

/* The error of a decision that cannot be written. */
static void
raise_outcome(const EsyncOutcome *outcome)
{
	if (strcmp(outcome->code, "not_found") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg_internal("%s", outcome->message),
				 errhint("esync_conflicts lists the rows that have conflicts, as aggregate_id.")));
	ereport(ERROR,
			(errcode(strcmp(outcome->code, "unknown_column") == 0 ? ERRCODE_UNDEFINED_COLUMN :
					 ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", outcome->message)));
}

static void
tell_row(void *arg)
{
	const EsyncDecision *d = arg;

	errcontext("decision on row \"%s\" of table \"%s\"", text_to_cstring(d->aggregate_id),
			   d->t->table_name);
}

/* Writes the edit; errors tell of which row. */
static void
write_edit(EsyncDecision *d, const EsyncEdit *edit, EsyncOutcome *outcome)
{
	ErrorContextCallback context = {error_context_stack, tell_row, d};

	error_context_stack = &context;
	esync_decision_apply(d->t, d->aggregate_id, d->key, edit, outcome);
	error_context_stack = context.previous;
	if (outcome->code)
		raise_outcome(outcome);
}

/* Conflicts that were open before and are not now. */
static List *
closed_since(List *before, List *after)
{
	List	   *closed = NIL;
	ListCell   *lb;
	ListCell   *la;

	foreach(lb, before)
	{
		bool		open = false;

		foreach(la, after)
			open |= ((EsyncConflict *) lfirst(la))->conflict_id ==
				((EsyncConflict *) lfirst(lb))->conflict_id;
		if (!open)
			closed = lappend(closed, lfirst(lb));
	}
	return closed;
}

/* Writes the decision; the conflicts that it closed, and those that are open then. */
static List *
decide(EsyncDecision *d, EsyncOutcome *outcome, List **open)
{
	EsyncEdit	edit = edit_of(d);

	write_edit(d, &edit, outcome);
	CommandCounterIncrement();
	(void) esync_decision_conflicts(d, 0, open);
	return closed_since(d->open, *open);
}

/* Is nothing decided? */
static bool
is_empty(const EsyncDecision *d)
{
	return d->nset == 0 && d->ops == NIL && d->life == 0 && d->resolves == NIL;
}

/* The error of a decision about fields of a row that is gone, and why there must be one. */
static void
raise_gone(const EsyncDecision *d, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("row \"%s\" of table \"%s\" is deleted", text_to_cstring(d->aggregate_id),
					d->t->table_name),
			 why ? errdetail_internal("%s", why) : 0,
			 errhint("Give it back by the same decision of esync_resolve_row: {\"\": {\"value\": {\"deleted\": false}}}.")));
}

/*
 * Raises where nothing would come of a family's decisions: of fields alone, none of
 * them in conflict, while there is no row to show them.
 */
static void
check_effect(const EsyncDecision *d)
{
	ListCell   *lf;
	ListCell   *lc;

	if (is_empty(d) || d->life != 0 || !esync_decision_gone(d))
		return;
	foreach(lf, *d->family)
		foreach(lc, ((EsyncDecision *) lfirst(lf))->open)
			if (esync_decide_covers(lfirst(lf), lfirst(lc)))
				return;
	raise_gone(d, NULL);
}

/*
 * Writes the decisions of a family; the conflicts that they closed.  What became
 * of `d` goes to outcome, and what is open of it then to open.
 */
static List *
decide_family(EsyncDecision *d, EsyncOutcome *outcome, List **open)
{
	List	   *closed = NIL;
	ListCell   *lc;

	foreach(lc, *d->family)
		check_expected(lfirst(lc));
	check_effect(d);
	foreach(lc, *d->family)
		if (esync_decision_blind(lfirst(lc)))
			raise_gone(lfirst(lc), "What a constraint refused cannot be tried without a row.");
	foreach(lc, *d->family)
	{
		EsyncDecision *one = lfirst(lc);
		EsyncOutcome other;
		List	   *left;

		if (is_empty(one))
			continue;
		closed = list_concat(closed, decide(one, one == d ? outcome : &other,
											one == d ? open : &left));
	}
	return closed;
}

/* Decides, and tells what became of it. */
static Jsonb *
decide_and_tell(EsyncDecision *d)
{
	EsyncOutcome outcome = {0};
	const EsyncEvent *head = esync_decision_head(d);
	List	   *open = d->open;
	List	   *closed = decide_family(d, &outcome, &open);
	EsyncMember members[7];
	int			n = 0;
	JsonbValue	value = {.type = jbvNull};
	Jsonb	   *row = esync_decision_row(d);

	if (outcome.event_id == 0)
	{
		outcome.version = head ? head->version : 1;
		outcome.deleted = head && (head->flags & ESYNC_FLAG_DELETED);
	}
	members[n++] = esync_json_pair("event_id",
								   outcome.event_id ? esync_value_int64(outcome.event_id) : value);
	members[n++] = esync_json_pair("version", esync_value_int64(outcome.version));
	if (outcome.event_id)
		esync_json_time(outcome.effective, &value);
	members[n++] = esync_json_pair("effective_timestamp", value);
	members[n++] = esync_json_pair("deleted", esync_value_bool(outcome.deleted));
	members[n++] = esync_json_pair("row", esync_value_document(row));
	members[n++] = esync_json_pair("resolved", json_ids(closed));
	members[n++] = esync_json_pair("conflicts", json_conflicts(d, open, NULL));
	return esync_json_object(n, members);
}

/* ------------------------------------------------------------------ the calls */

/* Raises where an argument that is needed is NULL. */
static void
need(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Only value, expected_version and field may be null.")));
}

/* Begins a decision on a table that is written. */
static void
take_table(EsyncDecision *d, Oid relid)
{
	LockRelationOid(relid, RowExclusiveLock);
	d->family = palloc(sizeof(List *));
	*d->family = list_make1(d);
	d->t = d->m.t = esync_tracked_need(relid);
	esync_rights_read(d->t, &d->rights);
	d->key = palloc(sizeof(Datum) * d->t->nkeys);
}

static void
take_expected(EsyncDecision *d, FunctionCallInfo fcinfo, int arg)
{
	d->expects = !PG_ARGISNULL(arg);
	if (d->expects)
		d->expected = PG_GETARG_INT64(arg);
}

/* The error of a conflict that there is not, to the caller. */
static void
no_conflict(int64 conflict_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("conflict " INT64_FORMAT " does not exist", conflict_id),
			 errhint("esync_conflicts lists the conflicts of rows that you may read.")));
}

/* Turns to the table and the row of a conflict. */
static void
take_conflict(EsyncDecision *d, int64 conflict_id)
{
	int32		table_id;
	Oid			relid;
	EsyncTracked *t;
	EsyncRights rights;

	d->aggregate_id = esync_ledger_find(conflict_id, &table_id);
	relid = d->aggregate_id ? esync_tracked_relation(table_id) : InvalidOid;
	t = OidIsValid(relid) ? esync_tracked_get(relid) : NULL;
	if (t == NULL || !esync_rights_try(t, &rights))
		no_conflict(conflict_id);
	take_table(d, relid);
	if (!esync_key_values(d->t, d->aggregate_id, d->key))
		no_conflict(conflict_id);
}

PG_FUNCTION_INFO_V1(esync_resolve);
PG_FUNCTION_INFO_V1(esync_resolve_row);
PG_FUNCTION_INFO_V1(esync_resolve_all);

/* esync_resolve(conflict_id bigint, strategy text, value jsonb, expected_version bigint) */
Datum
esync_resolve(PG_FUNCTION_ARGS)
{
	EsyncDecision d = {0};
	EsyncConflict *conflict;
	bool		manual;

	need(fcinfo, 0, "conflict_id");
	need(fcinfo, 1, "strategy");
	PreventCommandIfReadOnly("esync_resolve()");
	d.strategy = esync_decide_strategy(PG_GETARG_TEXT_PP(1), false);
	manual = strcmp(d.strategy, "manual") == 0;
	if (manual == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 manual ? errmsg("strategy \"manual\" needs a value") :
				 errmsg("strategy \"%s\" takes no value", d.strategy),
				 errhint("A value goes with the strategy \"manual\"; JSON null empties the field.")));
	take_expected(&d, fcinfo, 3);
	take_conflict(&d, PG_GETARG_INT64(0));
	conflict = esync_decision_meet(&d, PG_GETARG_INT64(0), true);
	if (conflict == NULL || !is_readable(&d, conflict) || !esync_decision_seen(&d))
		no_conflict(PG_GETARG_INT64(0));
	if (!conflict->open)
		raise_stale(&d, conflict, psprintf("conflict " INT64_FORMAT " is closed",
										   conflict->conflict_id));
	esync_decide_conflict(&d, conflict, manual ? PG_GETARG_JSONB_P(2) : NULL);
	PG_RETURN_JSONB_P(decide_and_tell(d.places ? &d : llast(*d.family)));
}

/*
 * Decides all open conflicts of the row that the caller may see, under former keys
 * too, and what went unseen.
 */
static void
decide_by_strategy(EsyncDecision *d, List *former)
{
	ListCell   *lf;
	ListCell   *lc;

	foreach(lf, former)
	{
		EsyncDecision *other = lfirst(lf);

		foreach(lc, other->open)
			if (is_readable(other, lfirst(lc)))
				esync_decide_conflict(other, lfirst(lc), NULL);
	}
	foreach(lc, d->open)
		if (is_readable(d, lfirst(lc)))
			esync_decide_conflict(d, lfirst(lc), NULL);
	if (strcmp(d->strategy, "event_sourced") == 0)
		esync_decide_drift(d, esync_decision_row(d));
}

/* Decides what was chosen field by field; conflicts about it under former keys go with it. */
static void
decide_by_choices(EsyncDecision *d, List *former, const JsonbContainer *choices)
{
	EsyncWalk	walk;
	ListCell   *lf;
	ListCell   *lc;

	esync_walk_init(&walk, choices);
	while (esync_walk_next(&walk))
		esync_decide_choice(d, walk.key, walk.keylen, &walk.value);
	foreach(lf, former)
	{
		EsyncDecision *other = lfirst(lf);

		foreach(lc, other->open)
			if (esync_decide_covers(d, lfirst(lc)))
				other->resolves = lappend(other->resolves, lfirst(lc));
	}
}

/* What was chosen: an object, or the name of a strategy for all. */
static JsonbValue
read_choices(const Jsonb *document)
{
	JsonbValue	choices;

	esync_json_root(document, &choices);
	if (choices.type != jbvString &&
		(choices.type != jbvBinary || !JsonContainerIsObject(choices.val.binary.data)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("choices must be an object or the name of a strategy"),
				 errhint("For example {\"title\": {\"event_id\": 12}, \"note\": {\"value\": null}}, or \"server_wins\".")));
	return choices;
}

/* The error of a row that never was, or that row policies hide from the caller. */
static void
no_row(const EsyncDecision *d)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("table \"%s\" has no row \"%s\"%s", d->t->table_name,
					text_to_cstring(d->aggregate_id), d->rights.rls ? " that you may change" : ""),
			 errhint("esync_conflicts lists the rows that have conflicts, as aggregate_id.")));
}

/* esync_resolve_row(tbl regclass, key text, choices jsonb, expected_version bigint) */
Datum
esync_resolve_row(PG_FUNCTION_ARGS)
{
	EsyncDecision first = {.strategy = "merge"};
	EsyncDecision *d;
	JsonbValue	choices;
	List	   *former;

	need(fcinfo, 0, "table");
	need(fcinfo, 1, "key");
	need(fcinfo, 2, "choices");
	PreventCommandIfReadOnly("esync_resolve_row()");
	choices = read_choices(PG_GETARG_JSONB_P(2));
	if (choices.type == jbvString)
		first.strategy = esync_decide_strategy(cstring_to_text_with_len(choices.val.string.val,
																		choices.val.string.len),
											   true);
	take_expected(&first, fcinfo, 3);
	take_table(&first, PG_GETARG_OID(0));
	first.aggregate_id = esync_key_from_text(first.t, PG_GETARG_TEXT_PP(1), first.key);
	(void) esync_decision_meet(&first, 0, true);
	if (!esync_decision_seen(&first) ||
		(esync_decision_head(&first) == NULL && esync_decision_row(&first) == NULL))
		no_row(&first);
	d = esync_decision_named(&first);
	former = esync_decision_former(d);
	if (choices.type == jbvString)
		decide_by_strategy(d, former);
	else
		decide_by_choices(d, former, choices.val.binary.data);
	PG_RETURN_JSONB_P(decide_and_tell(d));
}

/* ----------------------------------------------------------------------- bulk */

/* the rows of a table that have open conflicts */
typedef struct Rows
{
	MemoryContext cxt;
	int			n;
	int			size;
	text	  **ids;
} Rows;

/* Callback: notes the row of a conflict. */
static bool
note_row(EsyncConflict *conflict, void *arg)
{
	Rows	   *rows = arg;
	MemoryContext old = MemoryContextSwitchTo(rows->cxt);

	if (rows->n == rows->size)
	{
		rows->size = Max(2 * rows->size, 64);
		rows->ids = rows->ids ? repalloc_huge(rows->ids, rows->size * sizeof(text *)) :
			palloc(rows->size * sizeof(text *));
	}
	rows->ids[rows->n++] =
		DatumGetTextPCopy(PointerGetDatum(conflict->aggregate_id));
	MemoryContextSwitchTo(old);
	return true;
}

/* For qsort: in the order in which esync_submit locks rows. */
static int
row_cmp(const void *a, const void *b)
{
	const text *x = *(text *const *) a;
	const text *y = *(text *const *) b;
	int			xlen = VARSIZE_ANY_EXHDR(x);
	int			ylen = VARSIZE_ANY_EXHDR(y);
	int			result = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(xlen, ylen));

	return result != 0 ? result : xlen - ylen;
}

/* what is done in bulk */
typedef struct Bulk
{
	Oid			relid;
	const char *strategy;
	const char *field;			/* NULL: all */
	bool		leave_refused;	/* conflicts with constraints are not decided */
	text	  **ids;			/* of the rows */
	MemoryContext cxt;			/* of one row at a time */
} Bulk;

/* Is a conflict of the row one of those that are to be decided? */
static bool
is_meant(const Bulk *b, const EsyncDecision *d, EsyncConflict *c)
{
	EsyncPlace	place = esync_ledger_place(d->t, c->field, c->opened_event);

	if (!is_readable(d, c) ||
		(b->leave_refused && strcmp(text_to_cstring(c->kind), "constraint") == 0))
		return false;
	return b->field == NULL ||
		esync_ledger_about(d->t, &place, esync_ledger_name(d->t, c, &place), b->field);
}

/* Decides what is open in one row, in the field if one is named; how many are closed by it. */
static int64
resolve_one(const Bulk *b, text *aggregate_id)
{
	EsyncDecision d = {.strategy = b->strategy, .aggregate_id = aggregate_id};
	EsyncOutcome outcome;
	List	   *open;
	ListCell   *lc;

	take_table(&d, b->relid);
	if (!esync_key_values(d.t, aggregate_id, d.key) || !esync_decision_seen(&d))
		return 0;
	(void) esync_decision_meet(&d, 0, false);
	foreach(lc, d.open)
		if (is_meant(b, &d, lfirst(lc)))
			esync_decide_conflict(&d, lfirst(lc), NULL);
	return list_length(decide_family(&d, &outcome, &open));
}

/* Decides some rows; how many conflicts were closed. */
static int64
resolve_rows(const Bulk *b, int from, int to)
{
	int64		closed = 0;

	for (int i = from; i < to; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(b->cxt);

		CHECK_FOR_INTERRUPTS();
		closed += resolve_one(b, b->ids[i]);
		MemoryContextSwitchTo(old);
		MemoryContextReset(b->cxt);
	}
	return closed;
}

/* Tells which row is left in conflict, and why. */
static void
tell_refused(const Bulk *b, int row, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("row \"%s\" of table \"%s\" is left in conflict",
					text_to_cstring(b->ids[row]), esync_tracked_need(b->relid)->table_name),
			 errdetail_internal("%s", error->message)));
}

/* some rows to be tried */
typedef struct Attempt
{
	const Bulk *b;
	int			from;
	int			to;
	int64		closed;
} Attempt;

static void
resolve_attempt(void *arg)
{
	Attempt    *a = arg;

	a->closed = resolve_rows(a->b, a->from, a->to);
}

/*
 * Is an error one of the row at hand, and not of all: a constraint, a trigger, a row
 * policy or the column's type refuses it, or it is gone?  Grants are missing on every row; whatever
 * checks them says so in these words.
 */
static bool
is_of_row(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		return error->message_id == NULL ||
			strncmp(error->message_id, "permission denied", strlen("permission denied")) != 0;
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		error->sqlerrcode == ERRCODE_TRIGGERED_ACTION_EXCEPTION ||
		error->sqlerrcode == ERRCODE_RAISE_EXCEPTION ||
		error->sqlerrcode == ERRCODE_NO_DATA_FOUND;
}

/*
 * Decides some rows in a subtransaction, all or none.  Gives back the error of
 * a row that refused, in the current context; raises any other.
 */
static ErrorData *
attempt_rows(const Bulk *b, int from, int to, int64 *closed)
{
	Attempt		attempt = {.b = b, .from = from, .to = to};
	ErrorData  *error = esync_guard(resolve_attempt, &attempt);

	if (error && !is_of_row(error))
		ReThrowError(error);
	if (error == NULL)
		*closed += attempt.closed;
	return error;
}

/*
 * Decides some rows.  What is refused is found by trying them one by one: such a
 * row keeps its conflicts of kind constraint, or all of them.
 */
static int64
try_rows(const Bulk *b, int from, int to)
{
	int64		closed = 0;
	ErrorData  *error = attempt_rows(b, from, to, &closed);
	Bulk		rest = *b;

	if (error == NULL)
		return closed;
	if (to - from == 1)
	{
		rest.leave_refused = true;
		(void) attempt_rows(&rest, from, to, &closed);
		tell_refused(b, from, error);
	}
	for (int i = from; i < to && to - from > 1; i++)
		closed += try_rows(b, i, i + 1);
	return closed;
}

/* Leaves each row once, in order; how many there are. */
static int
order_rows(Rows *rows)
{
	int			n = 0;

	if (rows->n > 1)
		qsort(rows->ids, rows->n, sizeof(text *), row_cmp);
	for (int i = 0; i < rows->n; i++)
		if (n == 0 || row_cmp(&rows->ids[n - 1], &rows->ids[i]) != 0)
			rows->ids[n++] = rows->ids[i];
	return n;
}

/* esync_resolve_all(tbl regclass, strategy text, field name) */
Datum
esync_resolve_all(PG_FUNCTION_ARGS)
{
	EsyncDecision d = {0};
	Rows		rows = {.cxt = CurrentMemoryContext};
	Bulk		bulk = {0};
	int64		closed = 0;
	int			n;

	need(fcinfo, 0, "table");
	need(fcinfo, 1, "strategy");
	PreventCommandIfReadOnly("esync_resolve_all()");
	bulk.strategy = esync_decide_strategy(PG_GETARG_TEXT_PP(1), true);
	take_table(&d, PG_GETARG_OID(0));
	if (!PG_ARGISNULL(2) &&
		(bulk.field = esync_ledger_field(d.t, NameStr(*PG_GETARG_NAME(2)))) == NULL)
		esync_ledger_unknown(d.t, NameStr(*PG_GETARG_NAME(2)));
	esync_ledger_each(d.t->table_id, NULL, ESYNC_LEDGER_OPEN, 0, GetActiveSnapshot(), note_row,
					  &rows);
	n = order_rows(&rows);
	bulk.relid = PG_GETARG_OID(0);
	bulk.ids = rows.ids;
	bulk.cxt = AllocSetContextCreate(CurrentMemoryContext, "esync decision",
									 ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i += BULK)
		closed += try_rows(&bulk, i, Min(i + BULK, n));
	MemoryContextDelete(bulk.cxt);
	PG_RETURN_INT64(closed);
}
