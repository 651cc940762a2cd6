/*
 * policy.c: what the option on_conflict makes of a conflict.
 *
 * Under 'merge' conflicts wait for a person.  Under 'reject' an edit that
 * conflicts is not taken.  The others decide at once: right after the disputed
 * event, in the same transaction, a Resolved event sets what is disputed to the
 * value before it (server_wins), to its own (client_wins) or to that of the
 * latest edit (last_write_wins).  The first two depend on the order of arrival.
 *
 * A decision is later than all that it decides about, so an edit that comes
 * after it and had not seen it may stand against the decision.  For
 * last_write_wins that decision is as late as the edit that it confirmed: meta
 * names it, and so the latest edit shows in whichever order they come.
 *
 * What is decided is found out while the events are at hand (choose), and
 * written when the event has its number (decide).
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"

#include "merge.h"
#include "paths.h"

/* what is decided about the conflicts of one event */
typedef struct Choice
{
	EsyncMerge *m;
	const char *policy;
	EsyncEvents *whole;			/* all events, the one at hand too; last_write_wins alone */
	Jsonb	   *merged;			/* the row by these, without what was decided: the same */
	Jsonb	   *before;			/* the row without the event */
	int			nset;
	EsyncMember *set;
	List	   *ops;			/* of Jsonb * */
	int			life;
} Choice;

static const char *const SERVER_WINS = "server_wins";
static const char *const CLIENT_WINS = "client_wins";
static const char *const LAST_WRITE_WINS = "last_write_wins";

/* The policy of a table that decides by itself, as a constant; NULL: it has none. */
static const char *
deciding_policy(const EsyncTracked *t)
{
	const char *const policies[] = {SERVER_WINS, CLIENT_WINS, LAST_WRITE_WINS};

	for (int i = 0; i < lengthof(policies); i++)
		if (strcmp(t->on_conflict, policies[i]) == 0)
			return policies[i];
	return NULL;
}

/* The event at hand among the contenders of an open conflict; NULL: it is none of them. */
static EsyncContender *
mine_in(const EsyncClash *clash)
{
	for (int i = 0; clash->open && i < clash->ncontenders; i++)
		if (clash->contenders[i].event_id == ESYNC_AT_HAND)
			return &clash->contenders[i];
	return NULL;
}

/* ------------------------------------------------------------------- reject */

/*
 * Is the edit not to be taken, since it contradicts others?  Then code and
 * message say so.  They name fields that the author sent, and no values.
 */
bool
esync_policy_rejects(EsyncMerge *m)
{
	ListCell   *lc;

	if (strcmp(m->t->on_conflict, "reject") != 0 || m->edit->verb == ESYNC_VERB_RESOLVE)
		return false;
	foreach(lc, m->intent->clashes)
	{
		const EsyncClash *clash = lfirst(lc);

		if (mine_in(clash) == NULL)
			continue;
		if (clash->field)
			esync_merge_reject(m, "conflict",
							   psprintf("\"%s\" of row \"%s\" of table \"%s\" was changed meanwhile",
										clash->field, text_to_cstring(m->aggregate_id),
										m->t->table_name));
		else
			esync_merge_reject(m, "conflict",
							   psprintf("row \"%s\" of table \"%s\" was changed or deleted meanwhile",
										text_to_cstring(m->aggregate_id), m->t->table_name));
		return true;
	}
	return false;
}

/* ------------------------------------------------------------ the latest one */

/* An event by its number; NULL: there is none. */
static const EsyncEvent *
event_of(const EsyncEvents *events, int64 event_id)
{
	for (int i = events->n - 1; i >= 0; i--)
		if (events->e[i].event_id == event_id)
			return &events->e[i];
	return NULL;
}

/*
 * Is a conflict that was decided about a field, or about a place in it or
 * around it?  Both NULL: about the row as a whole.
 */
static bool
is_about(const JsonbContainer *confirmation, const char *field)
{
	JsonbValue	v;
	int			len;

	if (!esync_json_member(confirmation, "field", 5, &v))
		return false;
	if (field == NULL || v.type != jbvString)
		return field == NULL && v.type == jbvNull;
	len = Min(v.val.string.len, (int) strlen(field));
	if (memcmp(v.val.string.val, field, len) != 0)
		return false;
	return v.val.string.len == len ? field[len] == '\0' || field[len] == '/' :
		v.val.string.val[len] == '/';
}

/* The decisions of last_write_wins that an event wrote; false: none. */
static bool
has_confirmed(const EsyncEvent *e, JsonbValue *list)
{
	return e->type == ESYNC_RESOLVED && e->meta != NULL &&
		esync_json_member(&e->meta->root, "confirms", 8, list) && list->type == jbvBinary;
}

/*
 * The event whose value a decision by last_write_wins confirmed in a field, the
 * latest of several; NULL: none.
 */
static const EsyncEvent *
confirmed_by(const EsyncEvents *events, const EsyncEvent *e, const char *field)
{
	const EsyncEvent *latest = NULL;
	JsonbValue	list;
	JsonbValue	id;
	EsyncWalk	walk;

	if (!has_confirmed(e, &list))
		return NULL;
	esync_walk_init(&walk, list.val.binary.data);
	while (esync_walk_next(&walk))
	{
		const EsyncEvent *other;
		EsyncStamp	a;
		EsyncStamp	b;

		if (walk.value.type != jbvBinary || !is_about(walk.value.val.binary.data, field) ||
			!esync_json_member(walk.value.val.binary.data, "event_id", 8, &id) ||
			id.type != jbvNumeric ||
			(other = event_of(events, DatumGetInt64(DirectFunctionCall1(numeric_int8,
													NumericGetDatum(id.val.numeric))))) == NULL)
			continue;
		a = esync_event_stamp(other);
		if (latest)
			b = esync_event_stamp(latest);
		if (latest == NULL || esync_stamp_cmp(&a, &b) > 0)
			latest = other;
	}
	return latest;
}

/*
 * The latest edit before a decision that wants the row as the decision does,
 * deleted or not: whether the row lives is said by all edits, of any field.
 */
static const EsyncEvent *
latest_of_side(const EsyncEvents *events, const EsyncEvent *decision)
{
	bool		deleted = esync_merge_contender(decision).type == ESYNC_DELETED;
	const EsyncEvent *latest = NULL;
	JsonbValue	list;

	for (int i = 0; i < events->n && events->e[i].version < decision->version; i++)
	{
		const EsyncEvent *e = &events->e[i];
		EsyncStamp	a = esync_event_stamp(e);
		EsyncStamp	b;

		if (e->type == ESYNC_BASELINE || has_confirmed(e, &list) ||
			(esync_merge_contender(e).type == ESYNC_DELETED) != deleted ||
			(e->flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_MOVED)))
			continue;
		if (latest)
			b = esync_event_stamp(latest);
		if (latest == NULL || esync_stamp_cmp(&a, &b) > 0)
			latest = e;
	}
	return latest;
}

/* The event that an event speaks for in a field: itself, or the one that it confirmed. */
static const EsyncEvent *
spoken_for(const Choice *ch, int64 event_id, const char *field)
{
	const EsyncEvent *e = event_of(ch->whole, event_id);
	const EsyncEvent *other = NULL;
	JsonbValue	list;

	if (e && has_confirmed(e, &list))
		other = field ? confirmed_by(ch->whole, e, field) : latest_of_side(ch->whole, e);
	return other ? other : e;
}

/* The latest of the contenders; confirmed takes the event that it speaks for. */
static EsyncContender *
latest_of(const Choice *ch, const EsyncClash *clash, int64 *confirmed)
{
	EsyncContender *latest = NULL;
	EsyncStamp	best = {0};

	for (int i = 0; i < clash->ncontenders; i++)
	{
		const EsyncEvent *e = spoken_for(ch, clash->contenders[i].event_id, clash->field);
		EsyncStamp	stamp;

		if (e == NULL)
			continue;
		stamp = esync_event_stamp(e);
		if (latest && esync_stamp_cmp(&stamp, &best) <= 0)
			continue;
		best = stamp;
		latest = &clash->contenders[i];
		*confirmed = e->event_id;
	}
	return latest;
}

/* --------------------------------------------------------- what is decided */

/* The row is set to live, or to be deleted. */
static void
decide_row(Choice *ch, EsyncClash *clash, const EsyncContender *winner)
{
	const EsyncMerge *m = ch->m;

	if (winner)
		ch->life = winner->type == ESYNC_DELETED ? -1 : 1;
	else
	{
		EsyncFold  *fold = esync_merge_fold(ch->m, m->events->n);

		ch->life = esync_fold_has_row(fold) && !fold->deleted ? 1 : -1;
	}
}

/* Adds one operation on a place inside of a column; value NULL: nothing is there. */
static void
add_op(Choice *ch, const EsyncClash *clash, const Jsonb *value)
{
	EsyncMember members[3] = {{.key = "op"}, {.key = "path"}, {.key = "value"}};
	const char *op = clash->path[0] == '\0' ? "replace" : value ? "add" : "remove";
	char	   *path = psprintf("/%s%s",
								esync_pointer_escape(ch->m->t->fields[clash->column - 1].name),
								clash->path);

	for (int i = 0; i < lengthof(members); i++)
		members[i].keylen = strlen(members[i].key);
	members[0].value.type = members[1].value.type = jbvString;
	members[0].value.val.string.val = (char *) op;
	members[0].value.val.string.len = strlen(op);
	members[1].value.val.string.val = path;
	members[1].value.val.string.len = strlen(path);
	members[2].value.type = jbvNull;
	if (value)
		esync_json_root(value, &members[2].value);
	ch->ops = lappend(ch->ops, esync_json_object(op[2] == 'm' ? 2 : 3, members));
}

/* What the event at hand makes of a place inside of a column, laid over what was there. */
static Jsonb *
mine_over(const Choice *ch, const EsyncClash *clash, const EsyncContender *mine)
{
	Jsonb	   *before = esync_edit_value_in(ch->m->t, ch->before, clash->field);
	JsonbValue	value = {.type = jbvNull};
	ListCell   *lc;

	if (mine->inner == NIL)
		return mine->value;
	if (before)
		esync_json_root(before, &value);
	foreach(lc, mine->inner)
		esync_json_root(esync_paths_apply(&value, lfirst(lc)), &value);
	return esync_json_from_value(&value);
}

/* A place inside of a column is set; NULL: to nothing. */
static Jsonb *
decide_place(Choice *ch, const EsyncClash *clash, const EsyncContender *winner)
{
	const EsyncContender *mine = mine_in(clash);
	Jsonb	   *value;

	if (ch->merged)
		value = esync_edit_value_in(ch->m->t, ch->merged, clash->field);
	else if (winner == mine)
		value = mine_over(ch, clash, mine);
	else
		value = esync_edit_value_in(ch->m->t, ch->before, clash->field);
	add_op(ch, clash, value);
	return value;
}

/* Adds a column that is set. */
static void
add_set(Choice *ch, const char *name, const JsonbValue *value)
{
	ch->set[ch->nset].key = name;
	ch->set[ch->nset].keylen = strlen(name);
	ch->set[ch->nset++].value = *value;
}

/* A column, or those of a group, are set; NULL: nobody knows to what. */
static Jsonb *
decide_field(Choice *ch, const EsyncClash *clash, const EsyncContender *winner)
{
	const EsyncTracked *t = ch->m->t;
	Jsonb	   *value = winner ? winner->value :
		esync_edit_value_in(t, ch->before, clash->field);
	JsonbValue	root;
	EsyncWalk	walk;

	if (value == NULL)
		return NULL;
	esync_json_root(value, &root);
	for (int g = 0; g < t->ngroups; g++)
	{
		if (strcmp(t->groups[g].name, clash->field) != 0)
			continue;
		if (!JB_ROOT_IS_OBJECT(value))
			return NULL;
		esync_walk_init(&walk, &value->root);
		while (esync_walk_next(&walk))
			add_set(ch, pnstrdup(walk.key, walk.keylen), &walk.value);
		return value;
	}
	add_set(ch, clash->field, &root);
	return value;
}

/* The ledger and the answer tell of the contender that was decided for, if of any. */
static void
mark_winner(EsyncClash *clash, EsyncContender *winner, Jsonb *value)
{
	const EsyncContender *mine = mine_in(clash);

	clash->merged_value = clash->shown_value;
	for (int i = 0; i < clash->ncontenders; i++)
	{
		EsyncContender *c = &clash->contenders[i];
		JsonbValue	a;
		JsonbValue	b;

		if (c->shown)
			clash->merged = i + 1;
		c->shown = false;
		if (winner || c == mine || c->value == NULL || value == NULL)
			continue;
		esync_json_root(c->value, &a);
		esync_json_root(value, &b);
		if (esync_json_equal(&a, &b, false))
			winner = c;
	}
	if (winner)
		winner->shown = true;
	if (clash->field)
		clash->shown_value = value;
}

/* One conflict is decided. */
static void
decide_clash(Choice *ch, EsyncClash *clash)
{
	EsyncContender *winner = NULL;
	Jsonb	   *value = NULL;

	if (ch->policy == CLIENT_WINS)
		winner = mine_in(clash);
	else if (ch->policy == LAST_WRITE_WINS &&
			 (winner = latest_of(ch, clash, &clash->confirmed)) == NULL)
		return;
	if (clash->field == NULL)
	{
		decide_row(ch, clash, winner);
		for (int i = 0; i < clash->ncontenders && winner == NULL; i++)
			if (&clash->contenders[i] != mine_in(clash) &&
				(clash->contenders[i].type == ESYNC_DELETED) == (ch->life < 0))
				winner = &clash->contenders[i];
	}
	else if (clash->column > 0)
		value = decide_place(ch, clash, winner);
	else if ((value = decide_field(ch, clash, winner)) == NULL)
		return;
	clash->decided = true;
	mark_winner(clash, winner, value);
}

/*
 * The row as its authors' edits make it, which does not depend on their order;
 * what last_write_wins decided before is not asked.
 */
static Jsonb *
merged_row(EsyncMerge *m, const EsyncEvents *whole)
{
	EsyncFold  *fold = esync_merge_fold(m, 0);
	JsonbValue	list;

	for (int i = 0; i < whole->n; i++)
		if (!has_confirmed(&whole->e[i], &list))
			esync_fold_add(fold, &whole->e[i], i);
	fold->gone = false;
	return esync_fold_state(fold, true);
}

/* A list of operations as an array. */
static Jsonb *
array_of(const List *documents)
{
	EsyncJson	json;
	ListCell   *lc;

	esync_json_init(&json, 256);
	esync_json_open_array(&json, list_length(documents));
	foreach(lc, documents)
	{
		JsonbValue	v;

		esync_json_root(lfirst(lc), &v);
		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/*
 * Decides the conflicts in which the event at hand contends, as the table's
 * policy says; what is to be written lies in the intent.
 */
void
esync_policy_choose(EsyncMerge *m)
{
	Choice		ch = {.m = m, .policy = deciding_policy(m->t)};
	EsyncRuling *decision;
	bool		any = false;
	ListCell   *lc;

	if (ch.policy == NULL || m->edit->verb == ESYNC_VERB_RESOLVE || m->until < m->events->n)
		return;
	foreach(lc, m->intent->clashes)
		any |= mine_in(lfirst(lc)) != NULL;
	if (!any)
		return;
	ch.before = esync_edit_row_at(m, m->head);
	ch.set = palloc0((m->t->nfields + 1) * sizeof(EsyncMember));
	if (ch.policy == LAST_WRITE_WINS)
	{
		ch.whole = esync_edit_whole(m);
		ch.merged = merged_row(m, ch.whole);
	}
	any = false;
	foreach(lc, m->intent->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (mine_in(clash) != NULL && strcmp(clash->kind, "constraint") != 0)
			decide_clash(&ch, clash);
		any |= clash->decided;
	}
	if (!any)
		return;
	decision = palloc0(sizeof(EsyncRuling));
	decision->policy = ch.policy;
	decision->set = ch.nset ? esync_json_object(ch.nset, ch.set) : NULL;
	decision->ops = ch.ops ? array_of(ch.ops) : NULL;
	decision->life = ch.life;
	m->intent->decision = decision;
}

/* ---------------------------------------------------------------- written */

/* {"field": ..., "event_id": ...}: whose value is confirmed. */
static Jsonb *
confirmation(const EsyncIntent *in, const EsyncClash *clash)
{
	EsyncMember members[2] = {{.key = "field", .keylen = 5}, {.key = "event_id", .keylen = 8}};

	members[0].value.type = jbvNull;
	if (clash->field)
	{
		members[0].value.type = jbvString;
		members[0].value.val.string.val = clash->field;
		members[0].value.val.string.len = strlen(clash->field);
	}
	esync_meta_int(clash->confirmed == ESYNC_AT_HAND ? in->event.event_id : clash->confirmed,
				   &members[1].value);
	return esync_json_object(2, members);
}

/* What the event tells: which policy decided which conflicts, and for whose edits. */
static Jsonb *
decision_meta(const EsyncIntent *in)
{
	const char *policy = in->decision->policy;
	EsyncExtra	extras[4] = {{.key = "policy"}, {.key = "strategy"}, {.key = "resolves"},
	{.key = "confirms"}};
	List	   *resolves = NIL;
	List	   *confirms = NIL;
	ListCell   *lc;

	foreach(lc, in->clashes)
	{
		const EsyncClash *clash = lfirst(lc);
		JsonbValue	id;

		if (!clash->decided)
			continue;
		esync_meta_int(clash->conflict_id, &id);
		resolves = lappend(resolves, esync_json_from_value(&id));
		if (clash->confirmed != 0)
			confirms = lappend(confirms, confirmation(in, clash));
	}
	for (int i = 0; i < 2; i++)
	{
		extras[i].value.type = jbvString;
		extras[i].value.val.string.val = (char *) policy;
		extras[i].value.val.string.len = strlen(policy);
	}
	esync_json_root(array_of(resolves), &extras[2].value);
	esync_json_root(array_of(confirms), &extras[3].value);
	return esync_meta_with(NULL, extras, policy == LAST_WRITE_WINS ? 4 : 3);
}

/* Writes the decision; false: the caller cannot, and nothing was written. */
static bool
write_decision(EsyncTracked *t, EsyncIntent *in)
{
	EsyncEdit	edit = {.verb = ESYNC_VERB_RESOLVE, .head_by_default = true, .names_of_now = true};
	EsyncOutcome outcome;
	Datum	   *key = palloc(t->nkeys * sizeof(Datum));

	if (!esync_key_values(t, in->aggregate_id, key))
		return false;
	edit.user_id = in->event.user_id;
	edit.db_role = in->event.db_role;
	edit.set = in->decision->set;
	edit.ops = in->decision->ops;
	edit.life = in->decision->life;
	edit.strategy = in->decision->policy;
	edit.meta = decision_meta(in);
	esync_apply(t, in->aggregate_id, key, &edit, &outcome);
	return outcome.code == NULL;
}

/* The same in a subtransaction: what refuses the decision undoes it alone. */
static bool
try_decision(EsyncTracked *t, EsyncIntent *in)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool written = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		written = write_decision(t, in);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (esync_error_is_fatal(error))
			ReThrowError(error);
		written = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return written;
}

/* The conflicts stay open, and the ledger tells what the merge shows. */
static void
leave_open(EsyncTracked *t, EsyncIntent *in)
{
	ListCell   *lc;

	foreach(lc, in->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (!clash->decided)
			continue;
		clash->decided = false;
		for (int i = 0; i < clash->ncontenders; i++)
			clash->contenders[i].shown = i + 1 == clash->merged;
		clash->shown_value = clash->merged_value;
	}
	CommandCounterIncrement();
	(void) esync_ledger_note(t, &in->event, in->clashes);
}

/*
 * Writes what was decided about the conflicts of an event that was just
 * written, in the name of its author and with the caller's rights.
 */
void
esync_policy_decide(EsyncTracked *t, EsyncIntent *in, bool guarded)
{
	CommandCounterIncrement();
	if (!(guarded ? try_decision(t, in) : write_decision(t, in)))
		leave_open(t, in);
}
