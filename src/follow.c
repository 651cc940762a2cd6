/*
 * follow.c: a late edit of a row that has another key by now.
 *
 * It is recorded under the key that its author knew, and what of it shows there
 * is one more edit, of the row under the key that it has now.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "capture.h"
#include "merge.h"

/* Where the row went by a change of its key that the author had not seen; NULL: nowhere. */
static text *
moved_to(const EsyncMerge *m, int64 *version)
{
	const Jsonb *meta;
	JsonbValue	link;
	JsonbValue	id;
	JsonbValue	at;

	if (m->until >= m->events->n)
		return NULL;
	meta = m->events->e[m->until].meta;
	if (meta == NULL || !esync_json_member(&meta->root, "moved_to", 8, &link) ||
		link.type != jbvBinary ||
		!esync_json_member(link.val.binary.data, "aggregate_id", 12, &id) ||
		!esync_json_member(link.val.binary.data, "version", 7, &at))
		return NULL;
	*version = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(at.val.numeric)));
	return cstring_to_text_with_len(id.val.string.val, id.val.string.len);
}

/*
 * The fields in which the edit shows under the former key, as an object; NULL: in
 * none.  The key itself, which a creation sets, is not for the row under another one.
 */
static Jsonb *
shown_changes(EsyncMerge *m)
{
	EsyncMember *members = palloc((m->nchanges + 1) * sizeof(EsyncMember));
	int			n = 0;

	for (int i = 0; i < m->nchanges; i++)
	{
		const EsyncChange *c = &m->changes[i];

		if (m->t->fields[c->field].attnum == 0 || esync_merge_is_key(m->t, c->field) ||
			!esync_merge_shows(m, c->field))
			continue;
		members[n].key = m->t->fields[c->field].name;
		members[n].keylen = strlen(members[n].key);
		members[n++].value = c->value;
	}
	return n == 0 ? NULL : esync_json_object(n, members);
}

/*
 * A late edit follows its row to the key that it has now: what of it shows
 * under the former key is an edit of the row under the new one, on top of the
 * move.  False, and nothing was written: that one is wrong.
 */
static bool
follow_row(EsyncMerge *m, EsyncOutcome *o)
{
	EsyncEdit	edit = *m->edit;
	EsyncExtra	extra = {.key = "moved_from"};
	EsyncOutcome outcome;
	int64		version;
	text	   *to;
	Datum	   *key;

	if ((to = moved_to(m, &version)) == NULL)
		return true;
	edit.verb = m->intent->event.type == ESYNC_DELETED ? ESYNC_VERB_DELETE : ESYNC_VERB_UPDATE;
	edit.document = edit.base = NULL;
	edit.set = edit.verb == ESYNC_VERB_DELETE ? NULL : shown_changes(m);
	if (edit.verb == ESYNC_VERB_UPDATE && edit.set == NULL)
		return true;
	edit.has_base_version = true;
	edit.base_version = version;
	edit.device_id = NULL;		/* its queue is that of the former key */
	edit.device_seq = 0;
	esync_meta_link(m->aggregate_id, m->intent->event.version, &extra.value);
	edit.meta = esync_meta_with(edit.meta, &extra, 1);
	key = palloc(m->t->nkeys * sizeof(Datum));
	if (!esync_key_values(m->t, to, key))
		return true;
	esync_apply(m->t, to, key, &edit, &outcome);
	m->code = outcome.code;
	m->message = outcome.message;
	o->clashes = outcome.clashes;
	return outcome.code == NULL;
}

/* what is written of a late edit of a row that moved */
typedef struct Late
{
	EsyncMerge *m;
	EsyncCapture *c;
	const EsyncRow *row;
	EsyncOutcome *o;
	bool		followed;
} Late;

/* The edit under the former key, and then what follows its row; fails where that is wrong. */
static void
write_late(void *arg)
{
	Late	   *late = arg;

	esync_merged_put_rowless(late->c, late->m->intent, late->row);
	CommandCounterIncrement();
	late->followed = follow_row(late->m, late->o);
	if (!late->followed)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION), errmsg_internal("%s", late->m->message)));
}

/* May the way of the row that moved lead back to the key at hand? */
static bool
comes_back(const EsyncMerge *m)
{
	for (int i = m->until; i < m->events->n; i++)
		if (m->events->e[i].type == ESYNC_CREATED && (m->events->e[i].flags & ESYNC_FLAG_MOVED))
			return true;
	return false;
}

/*
 * Writes an edit that changes no row, and what of it follows a row that moved.
 * Where that may lead back here the edit's own event goes first, for its number.
 * False, and nothing was written: what follows is wrong.
 */
bool
esync_follow_store(EsyncMerge *m, EsyncCapture *c, const EsyncRow *row, EsyncOutcome *o)
{
	Late		late = {m, c, row, o, true};
	ErrorData  *error;

	if (!comes_back(m))
	{
		if (!follow_row(m, o))
			return false;
		esync_merged_put_rowless(c, m->intent, row);
		return true;
	}
	error = esync_guard(write_late, &late);
	if (error && late.followed)
		ReThrowError(error);
	return late.followed;
}
