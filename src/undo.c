/*
 * undo.c: esync_undo: an event is taken back.
 *
 * Each field that the row still shows from the event gets the value that the
 * fold has without it.  What was changed since, or had lost, is left alone and
 * reported.  The result is an edit like any other, a Resolved event whose author
 * had seen everything; the event is withdrawn as a contender (withdraw.c), and
 * who contends in the fields that it had set is found anew (clash.c).
 *
 * Memory: the caller's context.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "conflict.h"
#include "merge.h"
#include "paths.h"

PG_FUNCTION_INFO_V1(esync_undo);

/* the row as a whole, in place of a field */
#define THE_ROW		(-1)

typedef struct Undo
{
	EsyncTracked *t;
	EsyncRights rights;
	text	   *aggregate_id;
	Datum	   *key;
	EsyncMerge	m;				/* all events of the row, as others ask for them */
	EsyncEvents *events;
	EsyncEvent *target;			/* the one to be undone, and */
	int			at;				/* its place */
	bool	   *was;			/* by place: withdrawn before */
	EsyncFold	all;
	EsyncFold	without;		/* what was undone before, and the target */

	/* what it comes to */
	bool		refused;		/* nothing can be undone without taking the row from others */
	int			life;
	bool		hard;
	int			nset;
	EsyncMember *set;
	List	   *ops;			/* of Jsonb */
	List	   *from;			/* of EsyncMember: path, event_id */
	List	   *undone;			/* of char *; NULL: the row as a whole */
	List	   *kept;			/* of Jsonb */
} Undo;

/* ---------------------------------------------------------------- documents */

static EsyncMember
member(const char *key, JsonbValue value)
{
	EsyncMember m = {.key = key, .keylen = strlen(key), .value = value};

	return m;
}

static JsonbValue
number(int64 i)
{
	JsonbValue	v = {.type = jbvNumeric};

	v.val.numeric = int64_to_numeric(i);
	return v;
}

/* A string; NULL is null. */
static JsonbValue
string(const char *s)
{
	JsonbValue	v = {.type = jbvNull};

	if (s == NULL)
		return v;
	v.type = jbvString;
	v.val.string.val = unconstify(char *, s);
	v.val.string.len = strlen(s);
	return v;
}

static JsonbValue
document(const Jsonb *doc)
{
	JsonbValue	v = {.type = jbvNull};

	if (doc)
		esync_json_root(doc, &v);
	return v;
}

/* Documents as an array. */
static Jsonb *
array_of(const List *docs)
{
	EsyncJson	json;
	ListCell   *lc;

	esync_json_init(&json, 256);
	esync_json_open_array(&json, list_length(docs));
	foreach(lc, docs)
	{
		JsonbValue	v = document(lfirst(lc));

		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Names as an array; NULL is null. */
static Jsonb *
array_of_names(const List *names)
{
	EsyncJson	json;
	ListCell   *lc;

	esync_json_init(&json, 256);
	esync_json_open_array(&json, list_length(names));
	foreach(lc, names)
	{
		JsonbValue	v = string(lfirst(lc));

		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------- what is to be undone */

static void
no_such_event(int64 event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event " INT64_FORMAT " does not exist", event_id),
			 errhint("esync_history() and field_history() tell the events of a row.")));
}

/*
 * Takes the event's row, locked and with its stream up to date, as the caller
 * may.  A row that policies hide has no events.
 */
static void
take_row(Undo *u, int64 event_id)
{
	int32		table_id;
	Oid			relid;

	if (!esync_rights_find_event(event_id, &table_id, &u->aggregate_id))
		no_such_event(event_id);
	relid = esync_tracked_relation(table_id);
	if (!OidIsValid(relid))
		no_such_event(event_id);
	LockRelationOid(relid, RowExclusiveLock);
	u->t = esync_tracked_need(relid);
	esync_tracked_check(u->t);
	esync_rights_read(u->t, &u->rights);
	u->key = palloc(u->t->nkeys * sizeof(Datum));
	if (!esync_key_values(u->t, u->aggregate_id, u->key) ||
		(u->rights.rls && !esync_rights_row(u->t, &u->rights, u->key)) ||
		!esync_apply_meet(u->t, u->aggregate_id, u->key))
		no_such_event(event_id);
	u->events = esync_stream_read(u->t, u->aggregate_id, NULL, SnapshotSelf, false,
								  ESYNC_WANT_EDITS);
	u->at = esync_withdraw_find(u->events, event_id);
	if (u->at < 0)
		no_such_event(event_id);
	u->target = &u->events->e[u->at];
	u->m.t = u->t;
	u->m.events = u->events;
}

/* The undo that withdrew the target; 0: none that stands. */
static int64
undone_by(const Undo *u)
{
	for (int i = u->events->n - 1; i > u->at; i--)
		if (!(u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) &&
			esync_event_undoes(&u->events->e[i]) == u->target->event_id)
			return u->events->e[i].event_id;
	return 0;
}

/* Raises where the event is none that can be undone. */
static void
check_target(Undo *u)
{
	int64		id = u->target->event_id;

	if (u->target->type == ESYNC_BASELINE && !(u->target->flags & ESYNC_FLAG_DRIFT))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("event " INT64_FORMAT " cannot be undone", id),
				 errdetail("It tells what the row was before its first event.")));
	for (int i = u->at; i < u->events->n; i++)
		if (u->events->e[i].flags & ESYNC_FLAG_MOVED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("event " INT64_FORMAT " cannot be undone", id),
					 errdetail("The key of the row was changed by it or after it."),
					 errhint("Change the row itself.")));
	esync_withdraw_mark(u->events, 0);
	if (u->target->flags & ESYNC_FLAG_WITHDRAWN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event " INT64_FORMAT " is undone already", id),
				 errhint("esync_undo(" INT64_FORMAT ") takes that back.", undone_by(u))));
	u->was = palloc(u->events->n * sizeof(bool));
	for (int i = 0; i < u->events->n; i++)
	{
		u->was[i] = (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) != 0;
		u->events->e[i].flags &= ~ESYNC_FLAG_WITHDRAWN;
	}
	esync_withdraw_mark(u->events, id);
}

/* ------------------------------------------------------------------ the folds */

/* Is event i taken back: is it the target, or one that the target had brought back? */
static bool
is_taken(const Undo *u, int i)
{
	return i >= 0 && !u->was[i] && (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) != 0;
}

/* Does an event say how the row came to be? */
static bool
is_birth(const EsyncEvent *e)
{
	return e->type == ESYNC_CREATED || (e->type == ESYNC_BASELINE && e->payload != NULL);
}

/* Is no creation of the row left? */
static bool
has_no_birth(const Undo *u)
{
	for (int i = 0; i < u->events->n; i++)
		if (is_birth(&u->events->e[i]) && !(u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN))
			return false;
	return true;
}

/* Is it the row's creation that is taken back, so that there is nothing below it? */
static bool
is_unborn(const Undo *u)
{
	for (int i = 0; i < u->events->n; i++)
		if (is_birth(&u->events->e[i]) && is_taken(u, i))
			return has_no_birth(u);
	return false;
}

/*
 * Does event i not count without the target?  Of a row whose creation was undone
 * before, what it held then is still the ground.
 */
static bool
is_out(const Undo *u, int i)
{
	const EsyncEvent *e = &u->events->e[i];

	return (e->flags & ESYNC_FLAG_WITHDRAWN) &&
		(!is_birth(e) || is_taken(u, i) || !has_no_birth(u));
}

static bool
is_withdrawn(const Undo *u, int64 event_id)
{
	int			i = event_id ? esync_withdraw_find(u->events, event_id) : -1;

	return i >= 0 && is_out(u, i);
}

/*
 * A former undo without what it put back of an event that is withdrawn as well:
 * below it lies what is to be shown then.
 */
static EsyncEvent
without_stand_ins(const Undo *u, const EsyncEvent *e)
{
	EsyncEvent	copy = *e;
	List	   *ops = NIL;
	EsyncWalk	walk;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (!esync_paths_read(&walk.value, &op) ||
			!is_withdrawn(u, esync_withdraw_origin(e, op.path, op.len)))
			ops = lappend(ops, esync_json_from_value(&walk.value));
	}
	copy.patch = array_of(ops);
	if (is_withdrawn(u, esync_withdraw_origin(e, "", 0)))
		copy.meta = NULL;
	return copy;
}

/* Folds all events, and those that are left without the target. */
static void
make_folds(Undo *u)
{
	esync_fold_init(&u->all, u->t->fields, u->t->nfields, u->t->tombstone_field);
	esync_fold_init_like(&u->without, &u->all);
	for (int i = 0; i < u->events->n; i++)
	{
		EsyncEvent *e = &u->events->e[i];

		esync_fold_add(&u->all, e, i);
		if (is_out(u, i))
			continue;
		if (esync_event_undoes(e) == 0)
			esync_fold_add(&u->without, e, i);
		else
		{
			EsyncEvent *copy = palloc(sizeof(EsyncEvent));

			*copy = without_stand_ins(u, e);
			esync_fold_add(&u->without, copy, i);
		}
	}
}

/* The event from which event i has a field's value: itself, unless an undo put it back. */
static int64
source_of(const Undo *u, int i, int field)
{
	const EsyncEvent *e = &u->events->e[i];
	int64		origin;

	if (esync_event_undoes(e) == 0)
		return e->event_id;
	origin = field == THE_ROW ? esync_withdraw_origin(e, "", 0) :
		esync_withdraw_origin_of_field(u->t, e, field);
	return origin ? origin : e->event_id;
}

/* Does a field that event i shows come from what is taken back? */
static bool
shows_taken(const Undo *u, int i, int field)
{
	return is_taken(u, i) || is_taken(u, esync_withdraw_find(u->events, source_of(u, i, field)));
}

static bool
is_living(const EsyncFold *fold)
{
	return esync_fold_has_row(fold) && !fold->deleted;
}

/* ------------------------------------------------------------------- findings */

/* What is put back at a path is from that event, if there is one that counts. */
static void
note_from(Undo *u, const char *path, int64 event_id)
{
	EsyncMember *m = palloc(sizeof(EsyncMember));
	int			i = esync_withdraw_find(u->events, event_id);

	if (i < 0 || (u->events->e[i].flags & ESYNC_FLAG_WITHDRAWN))
		return;
	*m = member(path, number(event_id));
	u->from = lappend(u->from, m);
}

/* A field, or the row (NULL), is left as it is. */
static void
keep(Undo *u, const char *field, const char *reason, int64 by)
{
	EsyncMember members[3];
	int			n = 0;

	members[n++] = member("field", string(field));
	members[n++] = member("reason", string(reason));
	if (by != 0)
		members[n++] = member("event_id", number(by));
	u->kept = lappend(u->kept, esync_json_object(n, members));
}

/* The same because of another event, which knew the target or not. */
static void
keep_for(Undo *u, const char *field, int by)
{
	EsyncContender winner = esync_merge_contender(&u->events->e[by]);
	EsyncContender target = esync_merge_contender(u->target);

	keep(u, field, esync_merge_seen(&winner, &target) ? "changed" : "lost", winner.event_id);
}

/* ------------------------------------------------------------ the row as a whole */

/* Does an event set any field?  The tombstone column is none: a delete is no edit of the row. */
static bool
edits_fields(Undo *u, int i)
{
	for (int f = 0; f < u->t->nfields; f++)
		if (f != u->t->tombstone_field && esync_merge_sets(&u->m, i, f, NULL))
			return true;
	return false;
}

/* The last event after the target by which somebody changed the row; -1: none. */
static int
edited_since(Undo *u)
{
	for (int i = u->events->n - 1; i > u->at; i--)
	{
		const EsyncEvent *e = &u->events->e[i];

		if (!(e->flags & (ESYNC_FLAG_WITHDRAWN | ESYNC_FLAG_DERIVED)) &&
			esync_event_undoes(e) == 0 &&
			(e->type == ESYNC_CREATED || edits_fields(u, i)))
			return i;
	}
	return -1;
}

/* The row lives, or is deleted, as it is without the target. */
static void
put_back_life(Undo *u)
{
	bool		unborn = is_unborn(u);
	int			i = esync_withdraw_find(u->events, u->without.deleted_stamp.event_id);
	int64		source = i < 0 || unborn ? 0 : source_of(u, i, THE_ROW);
	int			tombstone = u->t->tombstone_field;

	u->life = is_living(&u->without) ? 1 : -1;
	u->hard = u->life < 0 && (u->without.gone || (unborn && tombstone < 0));
	u->undone = lappend(u->undone, NULL);
	note_from(u, "", source);
	if (tombstone < 0 || u->hard)
		return;
	note_from(u, psprintf("/%s", esync_pointer_escape(u->t->fields[tombstone].name)), source);
	if (u->life < 0 && !unborn)
	{
		JsonbValue	value;

		if (esync_fold_value(&u->without, tombstone, &value) && value.type != jbvNull)
			u->set[u->nset++] = member(u->t->fields[tombstone].name, value);
	}
}

/*
 * What becomes of the row as a whole.  It is not taken from those who edited it
 * since: then nothing is undone.
 */
static void
undo_life(Undo *u)
{
	int			winner = esync_withdraw_find(u->events, u->all.deleted_stamp.event_id);
	EsyncEventType type = esync_merge_contender(u->target).type;
	bool		writes = type == ESYNC_CREATED || type == ESYNC_DELETED || type == ESYNC_RESTORED;
	int			since;

	if (winner < 0)
		return;
	if (!shows_taken(u, winner, THE_ROW))
	{
		if (writes)
			keep_for(u, NULL, winner);
		return;
	}
	since = is_living(&u->without) || !is_living(&u->all) ? -1 : edited_since(u);
	if (since >= 0)
	{
		keep(u, NULL, "changed", u->events->e[since].event_id);
		u->refused = true;
	}
	else
		put_back_life(u);
}

/* ------------------------------------------------------------- field by field */

/* Does a field that the target set, or what the target had taken back, show another event? */
static bool
shows_another(Undo *u, int winner, int field)
{
	bool		sets = false;

	for (int i = u->at; i >= 0;
		 i = esync_withdraw_find(u->events, esync_event_undoes(&u->events->e[i])))
	{
		if (i == winner)
			return false;
		sets |= esync_merge_sets(&u->m, i, field, NULL);
	}
	return sets;
}

/* A column as a whole: it is put back if it is shown from the target. */
static void
undo_column(Undo *u, int field)
{
	const char *name = u->t->fields[field].name;
	int			winner = u->all.registers[field].event;
	int			below = u->without.registers[field].event;
	JsonbValue	value;

	if (winner < 0 || !esync_fold_value(&u->without, field, &value))
		return;
	if (!shows_taken(u, winner, field))
	{
		if (shows_another(u, winner, field))
			keep_for(u, name, winner);
		return;
	}
	u->set[u->nset++] = member(name, value);
	u->undone = lappend(u->undone, unconstify(char *, name));
	if (below >= 0)
		note_from(u, psprintf("/%s", esync_pointer_escape(name)), source_of(u, below, field));
}

/* Does event i set a place inside of a column, or something around it or in it? */
static bool
sets_place(Undo *u, int i, int field, const char *path, int len)
{
	EsyncEvent *e = &u->events->e[i];
	EsyncWalk	walk;

	if (esync_json_count(&e->patch->root) == 0)
		return esync_merge_sets(&u->m, i, field, NULL);
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(u->t, &op, e->event_id, field) &&
			esync_paths_overlap(path, len, op.path + op.columnlen, op.len - op.columnlen))
			return true;
	}
	return false;
}

/* The last event, by stamp, that sets a place; of those that stay, or of all.  -1: none. */
static int
last_setter(Undo *u, int field, const char *path, int len, bool staying)
{
	int			best = -1;

	for (int i = 0; i < u->events->n; i++)
	{
		EsyncStamp	mine = esync_event_stamp(&u->events->e[i]);
		EsyncStamp	other = esync_event_stamp(&u->events->e[Max(best, 0)]);

		if ((staying && is_out(u, i)) ||
			!sets_place(u, i, field, path, len))
			continue;
		if (best < 0 || esync_stamp_cmp(&mine, &other) > 0)
			best = i;
	}
	return best;
}

/* An operation by which a place gets a value, or loses the one that it has. */
static Jsonb *
place_op(const char *path, bool was_there, const JsonbValue *value)
{
	EsyncMember members[3];
	int			n = 0;

	members[n++] = member("op", string(value == NULL ? "remove" : was_there ? "replace" : "add"));
	members[n++] = member("path", string(path));
	if (value)
		members[n++] = member("value", *value);
	return esync_json_object(n, members);
}

static bool
is_named(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (lfirst(lc) && strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/*
 * A place inside of a column: what differs there without the target is put back;
 * what others set inside of it since is part of that.
 */
static void
undo_place(Undo *u, int of, int field, const char *place, int len)
{
	const char *name = u->t->fields[field].name;
	char	   *label = psprintf("%s%s", name, pnstrdup(place, len));
	char	   *path = psprintf("/%s%s", esync_pointer_escape(name), pnstrdup(place, len));
	int			winner = last_setter(u, field, place, len, false);
	int			below = last_setter(u, field, place, len, true);
	JsonbValue	all;
	JsonbValue	without;
	JsonbValue	now;
	JsonbValue	then;
	bool		is_there;
	bool		was_there;

	(void) esync_fold_value(&u->all, field, &all);
	(void) esync_fold_value(&u->without, field, &without);
	is_there = esync_inner_value(&all, place, len, &now);
	was_there = esync_inner_value(&without, place, len, &then);
	if (is_named(u->undone, label))
		return;					/* another event of the chain set it, too */
	if (is_there == was_there && (!is_there || esync_json_equal(&now, &then, true)))
	{
		if (of == u->at && winner >= 0 && winner != u->at)
			keep_for(u, label, winner);
		else if (of == u->at)
			u->undone = lappend(u->undone, label);
		return;
	}
	if (len == 0)
		u->set[u->nset++] = member(name, then);
	else
		u->ops = lappend(u->ops, place_op(path, is_there, was_there ? &then : NULL));
	u->undone = lappend(u->undone, label);
	if (below >= 0)
		note_from(u, path, source_of(u, below, field));
}

/* A column that is merged path by path: each place that event i set. */
static void
undo_places(Undo *u, int i, int field)
{
	const EsyncEvent *e = &u->events->e[i];
	EsyncWalk	walk;

	if (esync_json_count(&e->patch->root) == 0)
	{
		if (esync_merge_sets(&u->m, i, field, NULL))
			undo_place(u, i, field, "", 0);
		return;
	}
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(u->t, &op, e->event_id, field))
			undo_place(u, i, field, op.path + op.columnlen, op.len - op.columnlen);
	}
}

/* Raises unless the caller may update a column: shown or not, its contenders change. */
static void
check_column(const Undo *u, const EsyncField *f)
{
	if (pg_class_aclcheck(u->t->root, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck(u->t->root, f->attnum, GetUserId(), ACL_UPDATE) != ACLCHECK_OK)
		aclcheck_error_col(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(u->t->root)),
						   u->t->table_name, f->name);
}

/* One field that the target set, or what it brought back. */
static void
undo_field(Undo *u, int field)
{
	const EsyncField *f = &u->t->fields[field];
	const char *reason = f->masked ? "masked" : f->attnum == 0 ? "dropped" :
		u->refused ? "row" : NULL;

	if (f->excluded || f->stamp || field == u->t->tombstone_field ||
		esync_merge_is_key(u->t, field))
		return;
	if (reason != NULL)
	{
		if (esync_merge_sets(&u->m, u->at, field, NULL))
			keep(u, f->name, reason, 0);
		return;
	}
	check_column(u, f);
	if (f->json_merge)
	{
		for (int i = u->at; i >= 0;
			 i = esync_withdraw_find(u->events, esync_event_undoes(&u->events->e[i])))
			if (is_taken(u, i))
				undo_places(u, i, field);
	}
	else
		undo_column(u, field);
}

/* All that the target set.  Where the row goes with it, its fields stay as they are. */
static void
find_changes(Undo *u)
{
	Bitmapset  *fields = esync_withdraw_fields(&u->m, u->target->event_id);
	int			i = -1;

	u->set = palloc((u->t->nfields + 1) * sizeof(EsyncMember));
	undo_life(u);
	if (!u->refused && is_unborn(u))
		return;					/* its fields go with it */
	while ((i = bms_next_member(fields, i)) >= 0)
		undo_field(u, i);
}

/* ------------------------------------------------------------------ the call */

/* What the event tells besides: what it undoes, and from where it has its values. */
static Jsonb *
meta_of(const Undo *u, const EsyncContext *context)
{
	EsyncMember *members = palloc((list_length(u->from) + 1) * sizeof(EsyncMember));
	EsyncExtra	extras[3];
	int			n = 0;
	ListCell   *lc;

	foreach(lc, u->from)
		members[n++] = *(EsyncMember *) lfirst(lc);
	extras[0] = (EsyncExtra) {"undoes", number(u->target->event_id)};
	extras[1] = (EsyncExtra) {"strategy", string("undo")};
	extras[2] = (EsyncExtra) {"from", document(esync_json_object(n, members))};
	return esync_meta_with(context->meta, extras, 3);
}

/* Writes the undo as an edit of the row. */
static void
apply_changes(Undo *u, EsyncOutcome *o)
{
	const EsyncContext *context = esync_context_get();
	EsyncEdit	edit = {0};

	edit.verb = ESYNC_VERB_RESOLVE;
	edit.head_by_default = edit.names_of_now = true;
	edit.user_id = context->user_id;
	edit.db_role = context->db_role;
	edit.device_id = context->device_id;
	edit.meta = meta_of(u, context);
	edit.set = u->nset > 0 ? esync_json_object(u->nset, u->set) : NULL;
	edit.ops = u->ops ? array_of(u->ops) : NULL;
	edit.life = u->life;
	edit.hard = u->hard;
	edit.undoes = u->target->event_id;
	edit.strategy = "undo";
	esync_apply(u->t, u->aggregate_id, u->key, &edit, o);
	if (o->code)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event " INT64_FORMAT " cannot be undone", u->target->event_id),
				 errdetail("%s.", o->message)));
}

/* The outcome where nothing was written. */
static void
leave(const Undo *u, EsyncOutcome *o)
{
	const EsyncEvent *last = &u->events->e[u->events->n - 1];

	memset(o, 0, sizeof(EsyncOutcome));
	o->version = last->version;
	o->deleted = (last->flags & ESYNC_FLAG_DELETED) != 0;
}

/* what is told of the row's conflicts */
typedef struct Told
{
	const Undo *u;
	int64		event_id;
	MemoryContext cxt;
	List	   *conflicts;		/* of Jsonb */
} Told;

/* Callback: tells of what is open now, and of what the undo closed. */
static bool
tell_conflict(EsyncConflict *conflict, void *arg)
{
	Told	   *told = arg;
	EsyncPlace	place = esync_ledger_place(told->u->t, conflict->field, conflict->opened_event);
	EsyncMember members[4];
	MemoryContext old;

	if ((!conflict->open && conflict->resolved_event != told->event_id) ||
		!esync_ledger_readable(told->u->t, &told->u->rights, &place))
		return true;
	old = MemoryContextSwitchTo(told->cxt);
	members[0] = member("conflict_id", number(conflict->conflict_id));
	members[1] = member("field", string(esync_ledger_name(told->u->t, conflict, &place)));
	members[2] = member("kind", string(text_to_cstring(conflict->kind)));
	members[3] = member("status", string(conflict->open ? "open" : "closed"));
	told->conflicts = lappend(told->conflicts, esync_json_object(4, members));
	MemoryContextSwitchTo(old);
	return true;
}

/* The answer. */
static Jsonb *
answer(const Undo *u, const EsyncOutcome *o)
{
	Told		told = {u, o->event_id, CurrentMemoryContext, NIL};
	EsyncMember members[7];
	JsonbValue	deleted = {.type = jbvBool, .val.boolean = o->deleted};
	Jsonb	   *row;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	row = esync_row_read(u->t, &u->rights, u->key);
	PopActiveSnapshot();
	esync_ledger_each(u->t->table_id, u->aggregate_id, ESYNC_LEDGER_ALL, 0, SnapshotSelf,
					  tell_conflict, &told);
	members[0] = member("event_id", o->event_id ? number(o->event_id) : string(NULL));
	members[1] = member("version", number(o->version));
	members[2] = member("undone", document(array_of_names(u->undone)));
	members[3] = member("kept", document(array_of(u->kept)));
	members[4] = member("row", document(row));
	members[5] = member("deleted", deleted);
	members[6] = member("conflicts", document(array_of(told.conflicts)));
	return esync_json_object(7, members);
}

/* esync_undo(event_id bigint) */
Datum
esync_undo(PG_FUNCTION_ARGS)
{
	Undo		u = {0};
	EsyncOutcome o;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event_id must not be null")));
	PreventCommandIfReadOnly("esync_undo()");
	take_row(&u, PG_GETARG_INT64(0));
	check_target(&u);
	make_folds(&u);
	find_changes(&u);
	if (u.refused)
		leave(&u, &o);
	else
		apply_changes(&u, &o);
	PG_RETURN_JSONB_P(answer(&u, &o));
}
