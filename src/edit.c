/*
 * edit.c: an edit meets its row: what event it is, and what becomes of the row.
 *
 * Reads as many events as the rule needs (merge.c), folds them without and
 * with the edit, and says in which columns the row has to follow.  Who writes
 * the row is apply.c, or the statement whose BEFORE trigger asked (sqlmerge.c).
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "merge.h"
#include "paths.h"

/* ----------------------------------------------------------- reading events */

/* An edit of now, with the author and the times that the session tells of; it has no base yet. */
EsyncEdit
esync_edit_by(const EsyncContext *context, EsyncVerb verb)
{
	EsyncEdit	edit = {.verb = verb, .head_by_default = true, .names_of_now = true};

	edit.has_branch = context->has_branch;
	edit.branch = context->branch;
	edit.has_submit = context->has_submit;
	edit.submit = context->submit;
	edit.submit_raw = context->submit_raw;
	edit.offset_ms = context->offset_ms;
	edit.user_id = context->user_id;
	edit.db_role = context->db_role;
	edit.device_id = context->device_id;
	return edit;
}

/* how far back events are needed */
typedef struct Reach
{
	bool		all;
	int64		base;
	TimestampTz earliest;		/* least effective of the events read */
	bool		grounded;
} Reach;

/*
 * Callback: enough was read when a whole row is met that was seen, and before
 * which everything is older than what was read; it stands for all before it.
 * Never where an unseen edit came after later ones of its own device, or undid
 * another: these may lie anywhere.
 */
static bool
enough(EsyncEvent *event, int index, void *arg)
{
	Reach	   *r = arg;

	if (event->version > r->base &&
		((event->flags & ESYNC_FLAG_OVERTAKEN) || esync_event_undoes(event) != 0))
		r->all = true;
	if (!r->all && event->version <= r->base && event->payload != NULL &&
		event->row_xmin != InvalidTransactionId && event->effective_high < r->earliest)
	{
		r->grounded = true;
		return true;
	}
	r->earliest = Min(r->earliest, event->effective);
	return false;
}

/* The events that the rule needs, by what the edit says of its base. */
static void
read_events(EsyncMerge *m)
{
	const EsyncEdit *edit = m->edit;
	Reach		r = {.earliest = DT_NOEND};

	r.base = m->head;
	if (edit->has_base_version)
		r.base = Min(edit->base_version, m->head);
	else
		r.all = edit->undoes != 0 || edit->base != NULL || edit->has_branch || !edit->head_by_default ||
			edit->verb == ESYNC_VERB_CREATE || esync_merge_stamp_sent(m) != DT_NOBEGIN;
	m->events = esync_stream_since(m->t, m->aggregate_id, SnapshotSelf, enough, &r);
	m->grounded = r.grounded;
	m->until = m->events->n;
	m->hard = m->hard || edit->hard;
	esync_withdraw_mark(m->events, edit->undoes);
	for (int i = 0; m->grounded && i < 1; i++)
		(void) esync_event_payload(&m->events->e[i]);
}

/* --------------------------------------------------------- what event it is */

/* Is there a row to the author, and not marked as deleted? */
static bool
shows_living(const EsyncMerge *m)
{
	return esync_fold_has_row(m->shown) && !m->shown->deleted;
}

/* The column that an edit of this kind sets to delete or restore the row; -1: none. */
static int
tombstone_of(const EsyncMerge *m, EsyncEventType type)
{
	if (type == ESYNC_UPDATED || m->t->tombstone_field < 0 || m->hard ||
		(type == ESYNC_RESOLVED && m->edit->life == 0))
		return -1;
	for (int i = 0; i < m->nchanges; i++)
		if (m->changes[i].field == m->t->tombstone_field)
			return -1;			/* the author did it by hand */
	return m->t->tombstone_field;
}

/* An update by way of the tombstone column deletes or restores. */
static EsyncEventType
type_of_update(const EsyncMerge *m)
{
	for (int i = 0; i < m->nchanges; i++)
		if (m->changes[i].field == m->t->tombstone_field)
			return m->changes[i].value.type == jbvNull ? ESYNC_RESTORED : ESYNC_DELETED;
	return ESYNC_UPDATED;
}

/* Creates: every member that was sent is named; all columns, where the delete was seen. */
static bool
decide_create(EsyncMerge *m, EsyncEventType *type)
{
	*type = ESYNC_CREATED;
	if (shows_living(m))
		return esync_merge_reject(m, "constraint",
					  psprintf("row \"%s\" of table \"%s\" exists already",
							   text_to_cstring(m->aggregate_id), m->t->table_name));
	m->whole |= m->shown->known;
	if (!esync_merge_changes(m, true))
		return false;
	if (m->whole)
		esync_merge_defaults(m);
	return true;
}

/* Updates what the author changed; a save of what was seen deleted brings it back. */
static bool
decide_update(EsyncMerge *m, EsyncEventType *type)
{
	if (m->head == 0)
		return esync_merge_reject(m, "not_found",
					  psprintf("table \"%s\" has no row \"%s\"", m->t->table_name,
							   text_to_cstring(m->aggregate_id)));
	if (!esync_merge_changes(m, false))
		return false;
	*type = type_of_update(m);
	if (*type == ESYNC_UPDATED && m->edit->verb == ESYNC_VERB_SAVE &&
		m->shown->known && !shows_living(m))
		*type = ESYNC_RESTORED;
	if (*type == ESYNC_UPDATED && m->nchanges == 0 && m->ndropped == 0)
		m->action = ESYNC_ACT_NOTHING;
	return true;
}

/* A decision is an event like any other, but all that it names counts. */
static bool
decide_resolve(EsyncMerge *m, EsyncEventType *type)
{
	if (m->head == 0)
		return decide_update(m, type);
	*type = ESYNC_RESOLVED;
	return esync_merge_changes(m, false);
}

/*
 * Is a save the creation of a row?  So it is where nothing was there to its
 * author, and where base 0 says so; but not on top of the device's own creation.
 */
static bool
saves_new(const EsyncMerge *m)
{
	if (m->head == 0)
		return !m->edit->has_base_version || m->edit->base_version == 0;
	if (m->edit->base)
		return false;			/* there was something before the eyes */
	for (int i = m->nseen; i < m->events->n; i++)
		if (esync_merge_own_before(m, &m->events->e[i]))
			return !m->shown->known;
	return !m->shown->known || (m->edit->has_base_version && m->edit->base_version == 0);
}

/* Which event the edit is; false: code and message say why none. */
static bool
decide_type(EsyncMerge *m, EsyncEventType *type)
{
	m->action = ESYNC_ACT_STORE;
	switch (m->edit->verb)
	{
		case ESYNC_VERB_CREATE:
			return decide_create(m, type);
		case ESYNC_VERB_SAVE:
			if (saves_new(m))
				return decide_create(m, type);
			return decide_update(m, type);
		case ESYNC_VERB_UPDATE:
			return decide_update(m, type);
		case ESYNC_VERB_RESOLVE:
			return decide_resolve(m, type);
		case ESYNC_VERB_DELETE:
		case ESYNC_VERB_RESTORE:
			break;
	}
	if (m->head == 0)
		return decide_update(m, type);
	*type = m->edit->verb == ESYNC_VERB_DELETE ? ESYNC_DELETED : ESYNC_RESTORED;
	if (m->shown->known && shows_living(m) == (*type == ESYNC_RESTORED))
		m->action = ESYNC_ACT_NOTHING;
	m->changes = palloc((m->t->nfields + 1) * sizeof(EsyncChange));
	return true;
}

/* What the event tells besides, as its author sent it and as it was corrected. */
static Jsonb *
meta_of(const EsyncMerge *m, const EsyncEvent *e)
{
	EsyncExtra	extras[8];
	int			n = 0;

	if (m->edit->has_submit && e->submit != m->edit->submit_raw)
	{
		extras[n].key = "submit_raw";
		esync_meta_time(m->edit->submit_raw, &extras[n++].value);
	}
	if (e->flags & ESYNC_FLAG_SHIFTED)
	{
		extras[n].key = "clock_offset_ms";
		esync_meta_int(m->edit->offset_ms, &extras[n++].value);
	}
	if (m->base_beyond)
	{
		extras[n].key = "base_version";
		esync_meta_int(m->edit->base_version, &extras[n++].value);
	}
	if (m->base_guessed)
	{
		extras[n].key = "base_unknown";
		extras[n].value.type = jbvBool;
		extras[n++].value.val.boolean = true;
	}
	if (m->edit->life != 0)
	{
		extras[n].key = "deleted";
		extras[n].value.type = jbvBool;
		extras[n++].value.val.boolean = m->edit->life < 0;
	}
	if (m->edit->life < 0 && (m->t->tombstone_field < 0 || m->edit->hard))
	{
		extras[n].key = "hard";
		extras[n].value.type = jbvBool;
		extras[n++].value.val.boolean = true;
	}
	if (m->ndropped > 0)
	{
		extras[n].key = "ignored";
		esync_json_root(esync_json_object(m->ndropped, m->dropped), &extras[n++].value);
	}
	if (m->refused)
	{
		extras[n].key = "refused";
		esync_json_root(esync_refusal_meta(m), &extras[n++].value);
	}
	return esync_meta_with(m->edit->meta, extras, n);
}

/*
 * Finds where the row that the author had seen went by a change of its key.
 * What came after that under the same key is another row, but for late edits.
 */
static void
find_move(EsyncMerge *m)
{
	int			undone = esync_withdraw_find(m->events, m->edit->undoes);

	for (int i = m->events->n - 1; i >= 0; i--)
	{
		if (m->events->e[i].type != ESYNC_DELETED || !(m->events->e[i].flags & ESYNC_FLAG_MOVED))
			continue;
		m->moves = true;
		if (i >= m->nseen)
			m->until = i;
	}
	m->life = undone < 0 ? esync_merge_life_at(m->events, m->base) :
		esync_merge_life(m->events, undone);
}

/* The event, all but patch, flags of the row, and what is known when it is written. */
static void
make_event(EsyncMerge *m, EsyncEventType type)
{
	const EsyncEdit *edit = m->edit;
	EsyncEvent *e = &m->intent->event;

	memset(e, 0, sizeof(EsyncEvent));
	e->type = type;
	e->event_id = ESYNC_AT_HAND;
	e->version = m->head + 1;
	e->aggregate_id = m->aggregate_id;
	e->user_id = edit->user_id;
	e->db_role = edit->db_role;
	e->device_id = edit->device_id;
	e->device_seq = edit->device_id ? edit->device_seq : 0;
	e->client_event_id = edit->client_event_id;
	e->commit = Max(GetCurrentTimestamp(), m->head_commit);
	esync_merge_place(m, e);
	if (m->until < m->events->n)	/* nothing of it may show in the row that has the key now */
		e->effective = Min(e->effective, m->events->e[m->until].effective);
	e->meta = meta_of(m, e);
}

/* ------------------------------------------------------------------- patch */

/* One operation on a column as a whole. */
static void
put_op(EsyncJson *json, const char *op, const char *name, const JsonbValue *value)
{
	char	   *path = psprintf("/%s", esync_pointer_escape(name));

	esync_json_open_object(json, 3);
	esync_json_key(json, "op", 2);
	esync_json_key(json, "path", 4);
	esync_json_key(json, "value", 5);
	esync_json_string(json, op, strlen(op));
	esync_json_string(json, path, strlen(path));
	esync_json_value(json, value);
	esync_json_close(json);
}

/*
 * What the author changed as an RFC 6902 patch, in the order of the columns.
 * Masked values are not told.
 */
static Jsonb *
patch_of(const EsyncMerge *m, bool adds)
{
	JsonbValue	mask = {.type = jbvString};
	int			n = 0;
	EsyncJson	json;

	mask.val.string.val = ESYNC_MASK;
	mask.val.string.len = strlen(ESYNC_MASK);
	for (int i = 0; i < m->nchanges; i++)
		n += m->changes[i].ops ? esync_json_count(&m->changes[i].ops->root) : 1;
	esync_json_init(&json, 256);
	esync_json_open_array(&json, n);
	for (int i = 0; i < m->nchanges; i++)
	{
		const EsyncChange *c = &m->changes[i];
		EsyncWalk	walk;

		if (c->ops == NULL)
		{
			put_op(&json, adds ? "add" : "replace", c->name,
				   m->t->fields[c->field].masked ? &mask : &c->value);
			continue;
		}
		esync_walk_init(&walk, &c->ops->root);
		while (esync_walk_next(&walk))
			esync_json_value(&json, &walk.value);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------ what the row becomes */

/* Of a column whose values nobody records: does the edit bear the greatest stamp? */
static bool
masked_shows(EsyncMerge *m, int field)
{
	EsyncStamp	mine = esync_event_stamp(&m->intent->event);

	for (int i = m->nseen; i < m->events->n; i++)
	{
		EsyncStamp	other = esync_event_stamp(&m->events->e[i]);

		if (esync_merge_sets(m, i, field, NULL) && esync_stamp_cmp(&other, &mine) > 0)
			return false;
	}
	return true;
}

/* The fold with the edit, of the row that its author had seen: what came after a change of key is another. */
EsyncFold *
esync_merge_after(EsyncMerge *m)
{
	EsyncFold  *fold;

	if (m->until == m->events->n)
		return m->after;
	fold = esync_merge_fold(m, m->until);
	for (int i = m->until + 1; i < m->events->n; i++)
		if (esync_merge_same_life(m, i))
			esync_merge_add(m, fold, i);
	esync_fold_add(fold, &m->intent->event, m->events->n);
	return fold;
}

/*
 * Does the edit show in a field, by what is known of the row under this key?  Of a
 * row that has another one by now late edits contend there, each at its own time;
 * but for what its own device said later.
 */
bool
esync_merge_shows(EsyncMerge *m, int field)
{
	EsyncFold  *fold = m->after;

	if (m->t->fields[field].masked)
		return masked_shows(m, field);
	if (m->until < m->events->n)
	{
		fold = esync_merge_fold(m, m->until);
		for (int i = m->until + 1; i < m->events->n; i++)
			if (esync_merge_own_after(m, &m->events->e[i]) && esync_merge_same_life(m, i))
				esync_merge_add(m, fold, i);
		esync_fold_add(fold, &m->intent->event, m->events->n);
	}
	return fold->registers[field].event == m->events->n;
}

/* The change of a field; NULL: there is none. */
static const EsyncChange *
change_in(const EsyncMerge *m, int field)
{
	for (int i = 0; i < m->nchanges; i++)
		if (m->changes[i].field == field)
			return &m->changes[i];
	return NULL;
}

/* The row gets a value in a column. */
static void
set_column(EsyncMerge *m, int field, const JsonbValue *value)
{
	EsyncIntent *in = m->intent;
	int			shape = esync_merge_shape(m->t, field);

	if (shape < 0)
		return;
	in->set[field] = true;
	esync_decode_value(m->t->row, shape, value, &in->values[field], &in->isnull[field]);
}

/* The columns in which a living row has to follow: those in which the fold changed. */
static void
follow_columns(EsyncMerge *m, EsyncFold *fold, const JsonbValue *before)
{
	for (int i = 0; i < m->nchanges; i++)
	{
		const EsyncChange *c = &m->changes[i];
		const EsyncField *f = &m->t->fields[c->field];
		JsonbValue	after;

		if (f->attnum == 0 || esync_merge_is_key(m->t, c->field))
			continue;
		if (f->masked)
		{
			if (masked_shows(m, c->field))
				set_column(m, c->field, &c->value);
		}
		else if (esync_fold_value(fold, c->field, &after) &&
				 !esync_json_equal(&after, &before[i], true))
			set_column(m, c->field, &after);
	}
}

/* The columns of a row that comes, or comes back. */
static void
fill_columns(EsyncMerge *m, EsyncFold *fold)
{
	bool		restored = m->intent->event.type != ESYNC_CREATED;

	for (int i = 0; i < m->t->nfields && m->t->fields[i].attnum != 0; i++)
	{
		const EsyncField *f = &m->t->fields[i];
		const EsyncChange *c = change_in(m, i);
		JsonbValue	value;

		if (!esync_merge_takes(f) || esync_merge_is_key(m->t, i))
			continue;
		if (f->masked)
		{
			if (c && masked_shows(m, i))
				set_column(m, i, &c->value);
		}
		else if ((c || restored || esync_fold_is_set(fold, i)) &&
				 esync_fold_value(fold, i, &value))
			set_column(m, i, &value);
	}
}

/* Did the author name every column, and does each of them show? */
static bool
is_plain_insert(EsyncMerge *m, EsyncFold *fold)
{
	for (int i = 0; i < m->t->nfields && m->t->fields[i].attnum != 0; i++)
	{
		const EsyncField *f = &m->t->fields[i];
		const EsyncChange *c = change_in(m, i);
		JsonbValue	value;

		if (!esync_merge_takes(f))
			continue;
		if (c == NULL)
			return false;
		if (f->masked ? !masked_shows(m, i) :
			!esync_fold_value(fold, i, &value) || !esync_json_equal(&value, &c->value, true))
			return false;
	}
	return true;
}

/* The tombstone as this event sets it: its own time, or null. */
static void
add_tombstone(EsyncMerge *m, EsyncEventType type)
{
	int			field = tombstone_of(m, type);
	EsyncChange *c;

	if (field < 0)
		return;
	c = &m->changes[m->nchanges++];
	memset(c, 0, sizeof(EsyncChange));
	c->field = field;
	c->name = m->t->fields[field].name;
	c->value.type = jbvNull;
	if (type == ESYNC_DELETED || (type == ESYNC_RESOLVED && m->edit->life < 0))
		esync_meta_time(m->intent->event.effective, &c->value);
}

/* Room for what the row gets. */
void
esync_edit_intent(EsyncMerge *m)
{
	EsyncIntent *in = palloc0(sizeof(EsyncIntent));

	in->set = palloc0((m->t->nfields + 1) * sizeof(bool));
	in->values = palloc0((m->t->nfields + 1) * sizeof(Datum));
	in->isnull = palloc0((m->t->nfields + 1) * sizeof(bool));
	in->root = m->t->root;
	in->aggregate_id = m->aggregate_id;
	in->cid = InvalidCommandId;
	m->intent = in;
}

/*
 * Folds the events without and with the edit, and decides what is to be done
 * to the row; `found`: there is one.
 */
static void
weigh(EsyncMerge *m, bool found)
{
	EsyncEvent *e = &m->intent->event;
	EsyncFold  *fold = esync_merge_fold(m, m->events->n);
	JsonbValue *before = palloc((m->nchanges + 1) * sizeof(JsonbValue));
	EsyncEvent	added;
	bool		has_row;

	for (int i = 0; i < m->nchanges; i++)
	{
		before[i].type = jbvNull;
		if (esync_fold_value(fold, m->changes[i].field, &before[i]) &&
			before[i].type == jbvBinary)
			esync_json_root(esync_json_from_value(&before[i]), &before[i]);	/* a copy */
	}
	e->patch = patch_of(m, e->type == ESYNC_CREATED);
	added = *e;
	m->after = fold;
	esync_fold_add(fold, &added, m->events->n);
	has_row = esync_fold_has_row(fold);
	if (fold->deleted)
		e->flags |= ESYNC_FLAG_DELETED;
	if (found && has_row)
		follow_columns(m, fold, before);
	else if (has_row)
		fill_columns(m, fold);
	if (e->type == ESYNC_CREATED && has_row && is_plain_insert(m, fold))
		e->patch = m->nothing;
	m->action = found ? (has_row ? ESYNC_ACT_STORE : ESYNC_ACT_DELETE) :
		(has_row ? ESYNC_ACT_INSERT : ESYNC_ACT_STORE);
	for (int i = 0; i < m->t->nfields && m->action == ESYNC_ACT_STORE && found; i++)
		if (m->intent->set[i])
			m->action = ESYNC_ACT_UPDATE;
}

/* ----------------------------------------------------------------- conflicts */

/* What a ledger row's field was in a document; NULL: nothing. */
Jsonb *
esync_edit_value_in(const EsyncTracked *t, const Jsonb *row, const char *field)
{
	JsonbValue	value;
	EsyncMember *members;
	int			n = 0;

	if (row == NULL || field == NULL)
		return NULL;
	if (esync_json_member(&row->root, field, strlen(field), &value))
		return esync_json_from_value(&value);
	for (int g = 0; g < t->ngroups; g++)
	{
		if (strcmp(t->groups[g].name, field) != 0)
			continue;
		members = palloc(t->groups[g].nfields * sizeof(EsyncMember));
		for (int k = 0; k < t->groups[g].nfields; k++)
		{
			members[n].key = t->fields[t->groups[g].fields[k]].name;
			members[n].keylen = strlen(members[n].key);
			if (esync_json_member(&row->root, members[n].key, members[n].keylen,
								  &members[n].value))
				n++;
		}
		return esync_json_object(n, members);
	}
	/* column/path: the column as it is named, the path as a JSON pointer */
	for (const char *slash = strchr(field, '/'); slash; slash = strchr(slash + 1, '/'))
		if (esync_json_member(&row->root, field, slash - field, &value))
			return esync_inner_value(&value, slash, strlen(slash), &value) ?
				esync_json_from_value(&value) : NULL;
	return NULL;
}

/* The row by the versions up to one: of the events at hand, where these reach so far back. */
Jsonb *
esync_edit_row_at(EsyncMerge *m, int64 version)
{
	int			n = 0;
	EsyncFold  *fold;

	while (n < m->events->n && m->events->e[n].version <= version)
		n++;
	if (m->grounded && n == 0)
		return esync_replay_at(m->t, m->aggregate_id, version, SnapshotSelf);
	fold = esync_merge_fold(m, n);
	fold->gone = false;
	return esync_fold_state(fold, true);
}

/* What the row holds, or would hold if it were there. */
Jsonb *
esync_edit_row_after(EsyncMerge *m)
{
	EsyncFold  *fold = esync_merge_after(m);
	bool		gone = fold->gone;
	Jsonb	   *row;

	fold->gone = false;
	row = esync_fold_state(fold, true);
	fold->gone = gone;
	return row;
}

/*
 * What stood in conflict before, the fields at the lowest base of the contenders;
 * and what they show now, which need not be what a contender says.
 */
static void
tell_values(EsyncMerge *m, List *clashes)
{
	Jsonb	   *row = NULL;
	Jsonb	   *now = NULL;
	int64		row_version = 0;
	ListCell   *lc;

	foreach(lc, clashes)
	{
		EsyncClash *clash = lfirst(lc);
		JsonbValue	column;

		if (!clash->open || clash->field == NULL)
			continue;
		if (clash->base_at != row_version)
			row = esync_edit_row_at(m, clash->base_at);
		row_version = clash->base_at;
		clash->base_value = esync_edit_value_in(m->t, row, clash->field);
		if (clash->column > 0 && esync_fold_value(m->after, clash->column - 1, &column))
			esync_inner_tell(clash, &column);
		if (clash->column > 0 || strcmp(clash->kind, "constraint") == 0)
			continue;
		now = now ? now : esync_edit_row_after(m);
		clash->shown_value = esync_edit_value_in(m->t, now, clash->field);
	}
}

/* What a decision closes is closed by its strategy. */
static void
name_resolution(EsyncMerge *m)
{
	ListCell   *lc;

	foreach(lc, m->intent->clashes)
	{
		EsyncClash *clash = lfirst(lc);

		if (!clash->open)
			clash->resolution = m->edit->strategy;
	}
}

/* Leaves only the events of the row that the author at hand had seen, not of others that had its key. */
static void
keep_life(const EsyncMerge *m, EsyncEvents *all)
{
	int			undone = esync_withdraw_find(all, m->edit->undoes);
	int			life = undone < 0 ? esync_merge_life_at(all, m->base) : esync_merge_life(all, undone);
	bool	   *keep = palloc(Max(all->n, 1) * sizeof(bool));
	int			n = 0;

	for (int i = 0; i < all->n; i++)
		keep[i] = esync_merge_life(all, i) == life;
	for (int i = 0; i < all->n; i++)
		if (keep[i])
			all->e[n++] = all->e[i];
	all->n = n;
	all->leaves = NULL;			/* they went with the others */
}

/*
 * All events of the row, and the one at hand; whose payload, where it stands for
 * the patch, is not written yet.
 */
EsyncEvents *
esync_edit_whole(EsyncMerge *m)
{
	EsyncEvent *mine;
	EsyncEvents *all = esync_stream_read(m->t, m->aggregate_id, NULL, SnapshotSelf, false,
										 ESYNC_WANT_EDITS);

	if (m->moves)
		keep_life(m, all);
	all->e = repalloc_huge(all->e, (all->n + 1) * sizeof(EsyncEvent));
	mine = &all->e[all->n++];
	*mine = m->intent->event;
	if (mine->type == ESYNC_CREATED && mine->patch == m->nothing)
		mine->payload = esync_fold_state(m->after, true);
	esync_withdraw_mark(all, 0);
	return all;
}

/*
 * An edit meets its row; `found`: the table has one.  True: intent and action
 * say what is to be done.  False: code and message say what is wrong.
 */
bool
esync_edit_meet(EsyncMerge *m, bool found)
{
	EsyncEventType type = ESYNC_UPDATED;
	EsyncJson	json;

	esync_json_init(&json, 16);
	esync_json_open_array(&json, 0);
	esync_json_close(&json);
	m->nothing = esync_json_finish(&json);
	read_events(m);
	if (!esync_merge_base(m))
		return false;
	find_move(m);
	if (!decide_type(m, &type))
		return false;
	esync_refusal_take_out(m, type);
	esync_edit_intent(m);
	if (m->action == ESYNC_ACT_NOTHING)
		return true;
	make_event(m, type);
	add_tombstone(m, type);
	weigh(m, found);
	m->intent->clashes =
		esync_clash_find(m, &m->intent->event,
						 esync_clash_needs_whole(m, &m->intent->event) ? esync_edit_whole(m) : NULL);
	m->intent->clashes = esync_refusal_clashes(m, m->intent->clashes);
	if (m->edit->undoes)
		m->intent->clashes = esync_refusal_undone(m, m->intent->clashes);
	tell_values(m, m->intent->clashes);
	esync_refusal_tell_shown(m);
	if (m->edit->strategy)
		name_resolution(m);
	if (esync_policy_rejects(m))
		return false;
	esync_policy_choose(m);
	esync_policy_overrule(m);
	/* a row that is to stay after all is not taken first, with what hangs on it */
	if (m->action == ESYNC_ACT_DELETE && !m->hard && m->intent->decision &&
		m->intent->decision->life > 0)
		m->action = ESYNC_ACT_STORE;
	return true;
}
