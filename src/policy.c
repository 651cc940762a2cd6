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
 * names it, and so the latest edit shows in whichever order they come.  It takes
 * the time at which that one was saved, so that who edits on top of the decision
 * is no later than without it.
 *
 * What a constraint refused of the disputed event is dropped by server_wins
 * alone; the others want it, and cannot have it, so that waits for a person, or
 * for an edit by which the policy drops it (overrule).
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

/* Is a conflict that was decided about a field, or about a place in it or around it? */
static bool
is_about(const JsonbContainer *confirmation, const char *field)
{
	JsonbValue	v;
	int			len;

	if (!esync_json_member(confirmation, "field", 5, &v) || v.type != jbvString)
		return false;
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

/* Does an event want the row deleted? */
static bool
deletes(const EsyncEvent *e)
{
	return esync_merge_contender(e).type == ESYNC_DELETED;
}

/*
 * Does an event count for nothing in whether the row lives: was it undone, or is
 * it an undo, and says nothing of that, or what was undone as well?
 */
static bool
is_mute(const EsyncEvents *events, const EsyncEvent *e)
{
	if (e->flags & ESYNC_FLAG_WITHDRAWN)
		return true;
	return esync_event_undoes(e) != 0 &&
		(esync_event_life(e) == 0 ||
		 esync_withdraw_is_void(events, esync_withdraw_origin(e, "", 0), 0));
}

/*
 * Had the author of an edit seen the row deleted?  Then the edit lies under that
 * delete, and does not say that the row lives.
 */
static bool
lies_under_delete(const EsyncEvents *events, const EsyncEvent *e)
{
	EsyncContender me = esync_merge_contender(e);
	const EsyncEvent *latest = NULL;

	for (int i = 0; i < events->n; i++)
	{
		const EsyncEvent *x = &events->e[i];
		EsyncContender other = esync_merge_contender(x);
		EsyncStamp	a = esync_event_stamp(x);
		EsyncStamp	b;

		if ((other.type != ESYNC_DELETED && other.type != ESYNC_CREATED &&
			 other.type != ESYNC_RESTORED) || is_mute(events, x) || !esync_merge_seen(&me, &other))
			continue;
		if (latest)
			b = esync_event_stamp(latest);
		if (latest == NULL || esync_stamp_cmp(&a, &b) > 0)
			latest = x;
	}
	return latest != NULL && deletes(latest);
}

/*
 * The latest edit that says whether the row lives, which all do, of any field,
 * but those that lie under a delete, and undos, which stand in for others;
 * NULL: none.  What last_write_wins decided before is not asked, so that it does
 * not depend on the order of arrival.
 */
static const EsyncEvent *
latest_vote(const EsyncEvents *events)
{
	const EsyncEvent *latest = NULL;
	JsonbValue	list;

	for (int i = 0; i < events->n; i++)
	{
		const EsyncEvent *e = &events->e[i];
		EsyncEventType type = esync_merge_contender(e).type;
		EsyncStamp	a = esync_event_stamp(e);
		EsyncStamp	b;

		if (e->type == ESYNC_BASELINE || has_confirmed(e, &list) ||
			(e->flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_MOVED)) || is_mute(events, e) ||
			((type == ESYNC_UPDATED || type == ESYNC_RESOLVED) && lies_under_delete(events, e)))
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
		other = confirmed_by(ch->whole, e, field);
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

/* The row is set to live, or to be deleted; false: nobody knows which. */
static bool
decide_row(Choice *ch, EsyncClash *clash)
{
	const EsyncEvent *vote;

	if (ch->policy == CLIENT_WINS)
		ch->life = mine_in(clash)->type == ESYNC_DELETED ? -1 : 1;
	else if (ch->policy == SERVER_WINS)
	{
		EsyncFold  *fold = esync_merge_fold(ch->m, ch->m->events->n);

		ch->life = esync_fold_has_row(fold) && !fold->deleted ? 1 : -1;
	}
	else if ((vote = latest_vote(ch->whole)) == NULL)
		return false;
	else
	{
		ch->life = deletes(vote) ? -1 : 1;
		clash->confirmed = vote->event_id;
	}
	return true;
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

/* Does a contender want what was decided: the value, or, where there is no field, the row's life? */
static bool
wants(const Choice *ch, const EsyncClash *clash, const EsyncContender *c, const Jsonb *value)
{
	JsonbValue	a;
	JsonbValue	b;

	if (clash->field == NULL)
		return (c->type == ESYNC_DELETED) == (ch->life < 0);
	if (c->value == NULL || value == NULL)
		return false;
	esync_json_root(c->value, &a);
	esync_json_root(value, &b);
	return esync_json_equal(&a, &b, false);
}

/*
 * The contender that the row showed before the event at hand, by what was
 * decided: of several that want the same the latest, or the one that an undo put
 * back last.  NULL: none wants it.
 */
static EsyncContender *
shown_before(const Choice *ch, EsyncClash *clash, const Jsonb *value)
{
	EsyncContender *latest = NULL;
	EsyncStamp	best = {0};

	for (int i = 0; i < clash->ncontenders; i++)
	{
		EsyncContender *c = &clash->contenders[i];
		const EsyncEvent *e = event_of(ch->m->events, c->event_id);
		EsyncStamp	stamp = {0};

		if (c == mine_in(clash) || !wants(ch, clash, c, value))
			continue;
		if (e)
			stamp = esync_clash_stamp(ch->m->t, ch->m->events, e, clash, c);
		if (latest && (e == NULL || esync_stamp_cmp(&stamp, &best) <= 0))
			continue;
		best = stamp;
		latest = c;
	}
	return latest;
}

/* The ledger and the answer tell of the contender that was decided for, if of any. */
static void
mark_winner(const Choice *ch, EsyncClash *clash, EsyncContender *winner, Jsonb *value)
{
	if (winner == NULL)
		winner = shown_before(ch, clash, value);
	clash->merged_value = clash->shown_value;
	for (int i = 0; i < clash->ncontenders; i++)
	{
		if (clash->contenders[i].shown)
			clash->merged = i + 1;
		clash->contenders[i].shown = false;
	}
	if (winner)
	{
		winner->shown = true;
		clash->winner = winner - clash->contenders + 1;
	}
	if (clash->field)
		clash->shown_value = value;
	clash->decided_value = clash->shown_value;
}

/* Under last_write_wins: when the latest edit was saved that is confirmed. */
static TimestampTz
confirmed_submit(const Choice *ch)
{
	TimestampTz latest = 0;
	bool		any = false;
	ListCell   *lc;

	foreach(lc, ch->m->intent->clashes)
	{
		const EsyncClash *clash = lfirst(lc);
		const EsyncEvent *e = ch->whole && clash->decided ?
			event_of(ch->whole, clash->confirmed) : NULL;

		if (e == NULL)
			continue;
		latest = any ? Max(latest, e->submit) : e->submit;
		any = true;
	}
	return latest;
}

/* One conflict is decided. */
static void
decide_clash(Choice *ch, EsyncClash *clash)
{
	EsyncContender *winner = NULL;
	Jsonb	   *value = NULL;

	if (ch->policy == CLIENT_WINS)
		winner = mine_in(clash);
	else if (ch->policy == LAST_WRITE_WINS && clash->field &&
			 (winner = latest_of(ch, clash, &clash->confirmed)) == NULL)
		return;
	if (clash->field == NULL)
	{
		if (!decide_row(ch, clash))
			return;
		for (int i = 0; i < clash->ncontenders; i++)
			if (clash->contenders[i].event_id == clash->confirmed)
				winner = &clash->contenders[i];
	}
	else if (clash->column > 0)
		value = decide_place(ch, clash, winner);
	else if ((value = decide_field(ch, clash, winner)) == NULL)
		return;
	clash->decided = true;
	mark_winner(ch, clash, winner, value);
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

/* Did all others of a clash come after their row had left the key at hand? */
static bool
is_after_move(const EsyncMerge *m, const EsyncClash *clash)
{
	int64		move = m->events->e[m->until].version;

	for (int i = 0; i < clash->ncontenders; i++)
		if (clash->contenders[i].event_id != ESYNC_AT_HAND && clash->contenders[i].version < move)
			return false;
	return true;
}

/*
 * Late edits of a row that has another key by now contend there, where the policy
 * decides; no conflict about the same is opened under the former key.
 */
static void
leave_to_move(EsyncMerge *m)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, m->intent->clashes)
		if (!((EsyncClash *) lfirst(lc))->open || !is_after_move(m, lfirst(lc)))
			kept = lappend(kept, lfirst(lc));
	m->intent->clashes = kept;
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

	if (ch.policy == NULL || m->edit->verb == ESYNC_VERB_RESOLVE)
		return;
	if (m->until < m->events->n)
	{
		leave_to_move(m);
		return;
	}
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

		if (mine_in(clash) != NULL &&
			(strcmp(clash->kind, "constraint") != 0 || ch.policy == SERVER_WINS))
			decide_clash(&ch, clash);
		any |= clash->decided;
	}
	if (!any)
		return;
	decision = palloc0(sizeof(EsyncRuling));
	decision->policy = ch.policy;
	decision->submit = confirmed_submit(&ch);
	decision->set = ch.nset ? esync_json_object(ch.nset, ch.set) : NULL;
	decision->ops = ch.ops ? esync_json_array(ch.ops) : NULL;
	decision->life = ch.life;
	m->intent->decision = decision;
}

/*
 * Does the policy drop what a constraint refused of one event when another one sets
 * the field, which came after it?  Under last_write_wins it must be the later one.
 */
bool
esync_policy_drops(const EsyncTracked *t, const EsyncEvent *refused, const EsyncEvent *by)
{
	const char *policy = deciding_policy(t);
	EsyncStamp	a = esync_event_stamp(refused);
	EsyncStamp	b = esync_event_stamp(by);

	return policy != NULL && (policy != LAST_WRITE_WINS || esync_stamp_cmp(&a, &b) < 0);
}

/*
 * Was something refused, in what a clash is about, of an edit that the author at
 * hand had not seen, and that the policy does not drop?
 */
static bool
is_kept(const EsyncMerge *m, const EsyncClash *clash)
{
	for (int i = m->nseen; i < m->events->n; i++)
		if (esync_refusal_unseen(m, i, clash->field) &&
			!esync_policy_drops(m->t, &m->events->e[i], &m->intent->event))
			return true;
	return false;
}

/*
 * Marks where the event at hand ends what waits since a constraint refused it,
 * though its author had not seen that: the policy would drop it now.
 */
void
esync_policy_overrule(EsyncMerge *m)
{
	ListCell   *lc;

	if (deciding_policy(m->t) == NULL || m->edit->verb == ESYNC_VERB_RESOLVE)
		return;
	foreach(lc, m->intent->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (clash->field && strcmp(clash->kind ? clash->kind : "", "constraint") != 0)
			clash->overrules = !is_kept(m, clash);
	}
}

/* ---------------------------------------------------------------- written */

/* {"field": ..., "event_id": ...}: whose value is confirmed. */
static Jsonb *
confirmation(const EsyncIntent *in, const EsyncClash *clash)
{
	EsyncMember members[2];

	members[0] = esync_json_pair("field", esync_value_string(clash->field));
	members[1] = esync_json_pair("event_id", esync_value_int64(clash->confirmed == ESYNC_AT_HAND ?
															   in->event.event_id : clash->confirmed));
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
		id = esync_value_int64(clash->conflict_id);
		resolves = lappend(resolves, esync_json_from_value(&id));
		if (clash->confirmed != 0)
			confirms = lappend(confirms, confirmation(in, clash));
	}
	extras[0].value = extras[1].value = esync_value_string(policy);
	extras[2].value = esync_value_document(esync_json_array(resolves));
	extras[3].value = esync_value_document(esync_json_array(confirms));
	return esync_meta_with(NULL, extras, policy == LAST_WRITE_WINS ? 4 : 3);
}

/*
 * Writes the decision; false: the caller cannot, and nothing was written.  Rowless:
 * the row is to stay as it is.
 */
static bool
write_decision(EsyncTracked *t, EsyncIntent *in, bool rowless)
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
	edit.has_submit = in->decision->submit != 0;
	edit.submit = edit.submit_raw = in->decision->submit;
	edit.strategy = in->decision->policy;
	edit.rowless = rowless;
	edit.meta = decision_meta(in);
	esync_apply(t, in->aggregate_id, key, &edit, &outcome);
	return outcome.code == NULL;
}

/* a decision that may be refused */
typedef struct Attempt
{
	EsyncTracked *t;
	EsyncIntent *in;
	bool		rowless;
	bool		written;
} Attempt;

static void
write_attempt(void *arg)
{
	Attempt    *a = arg;

	a->written = write_decision(a->t, a->in, a->rowless);
}

/* The same in a subtransaction: what refuses the decision undoes it alone. */
static bool
try_decision(EsyncTracked *t, EsyncIntent *in, bool rowless)
{
	Attempt		attempt = {.t = t, .in = in, .rowless = rowless};
	ErrorData  *error = esync_guard(write_attempt, &attempt);

	if (error && esync_error_is_fatal(error))
		ReThrowError(error);
	return error == NULL && attempt.written;
}

/* The ledger tells what the row shows by the merge alone, or by what was decided. */
static void
tell_shown(EsyncTracked *t, EsyncIntent *in, bool decided)
{
	ListCell   *lc;

	foreach(lc, in->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (!clash->decided)
			continue;
		for (int i = 0; i < clash->ncontenders; i++)
			clash->contenders[i].shown = i + 1 == (decided ? clash->winner : clash->merged);
		clash->shown_value = decided ? clash->decided_value : clash->merged_value;
	}
	CommandCounterIncrement();
	(void) esync_ledger_note(t, &in->event, in->clashes);
}

/* The conflicts stay open, and the ledger tells what the merge shows. */
static void
leave_open(EsyncTracked *t, EsyncIntent *in)
{
	ListCell   *lc;

	tell_shown(t, in, false);
	foreach(lc, in->clashes)
		((EsyncClash *) lfirst(lc))->decided = false;
}

/*
 * Writes what was decided about the conflicts of an event that was just
 * written, in the name of its author and with the caller's rights.
 */
void
esync_policy_decide(EsyncTracked *t, EsyncIntent *in, bool guarded)
{
	if (in->ahead)
		tell_shown(t, in, true);
	CommandCounterIncrement();
	if (!(guarded ? try_decision(t, in, false) : write_decision(t, in, false)))
		leave_open(t, in);
}

/*
 * The same for an event that was written before the statement's row is, which may
 * never be: what leaves the row as it is is decided at once; else the conflicts are
 * open until the row was written (esync_policy_decide).
 */
void
esync_policy_decide_ahead(EsyncTracked *t, EsyncIntent *in)
{
	if (in->decision == NULL)
		return;
	CommandCounterIncrement();
	if (try_decision(t, in, true))
	{
		in->decision = NULL;
		return;
	}
	tell_shown(t, in, false);
	in->ahead = true;
}
