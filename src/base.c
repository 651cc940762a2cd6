/*
 * base.c: what an author had seen, and had before the eyes.
 *
 * The base is a version of the row: named as such, by the values that it shows,
 * by a last_modified value, or by the time when the copy was taken.  All events
 * up to it were seen.  What the device showed is the row at the base with the
 * device's own later edits laid over it.
 *
 * Works on events that the caller has read.  Memory: the current context.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "merge.h"

static int
seq_cmp(const void *a, const void *b, void *arg)
{
	const EsyncEvents *events = arg;
	int64		x = events->e[*(const int *) a].device_seq;
	int64		y = events->e[*(const int *) b].device_seq;

	return x < y ? -1 : x > y;
}

/*
 * What the device showed: the row at the base, with the device's own earlier
 * edits laid over it in the order in which they were made.
 */
static void
fold_shown(EsyncMerge *m)
{
	int		   *own = palloc(Max(m->events->n, 1) * sizeof(int));
	int			nown = 0;

	m->shown = esync_merge_fold(m, m->nseen);
	for (int i = m->nseen; i < m->events->n; i++)
		if (esync_merge_own_before(m, &m->events->e[i]) &&
			!(m->events->e[i].flags & ESYNC_FLAG_DERIVED))
			own[nown++] = i;
	qsort_arg(own, nown, sizeof(int), seq_cmp, m->events);
	for (int k = 0; k < nown; k++)
	{
		EsyncEvent	laid = m->events->e[own[k]];

		laid.effective = DT_NOEND - nown + k;
		if (laid.type == ESYNC_CREATED && esync_json_count(&laid.patch->root) > 0)
			laid.payload = NULL;	/* what others had set, or defaults: it was not named */
		esync_fold_add(m->shown, &laid, own[k]);
	}
}

/* Is the ground the first event?  It was seen by everyone. */
static int64
ground_version(const EsyncMerge *m)
{
	const EsyncEvent *first = m->events->n > 0 ? &m->events->e[0] : NULL;

	return first != NULL && first->type == ESYNC_BASELINE && first->effective == DT_NOBEGIN ?
		first->version : 0;
}

/* A version as the base: all up to it was seen, and the ground in any case. */
static void
set_base(EsyncMerge *m, int64 base)
{
	EsyncEvents *events = m->events;

	base = Max(base, ground_version(m));
	m->base = base;
	if (m->nseen > 0 && events->e[m->nseen - 1].version > base)
		m->nseen = 0;
	while (m->nseen < events->n && events->e[m->nseen].version <= base)
		m->nseen++;
	m->names_at = m->nseen > 0 && !m->edit->names_of_now ?
		events->e[m->nseen - 1].event_id : PG_INT64_MAX;
}

/* The version that was current at a time, less what had been committed just before. */
int64
esync_merge_version_at(const EsyncMerge *m, TimestampTz at)
{
	int64		version = ground_version(m);

	for (int i = 0; i < m->events->n; i++)
		if (m->events->e[i].commit <= at)
			version = m->events->e[i].version;
	return version;
}

/* Does a fold show all values of a document? */
static bool
shows(EsyncMerge *m, EsyncFold *fold, const Jsonb *document)
{
	EsyncWalk	walk;

	if (!esync_fold_has_row(fold))
		return false;
	esync_walk_init(&walk, &document->root);
	while (esync_walk_next(&walk))
	{
		int			field = esync_merge_field(m, walk.key, walk.keylen);
		JsonbValue	value;
		JsonbValue	sent;

		if (field < 0)
			return false;
		if (!esync_merge_takes(&m->t->fields[field]) || m->t->fields[field].masked ||
			esync_merge_is_key(m->t, field) || !esync_fold_value(fold, field, &value))
			continue;
		if (m->nseen == 0 && !esync_fold_is_set(fold, field))
			return false;
		sent = walk.value;
		if (!esync_merge_equal_told(m, field, &value, &sent))
			return false;
	}
	return true;
}

/* The last of the device's own earlier edits; -1: there is none. */
static int
last_own_event(const EsyncMerge *m)
{
	for (int i = m->events->n - 1; i >= 0; i--)
		if (esync_merge_own_before(m, &m->events->e[i]))
			return i;
	return -1;
}

/*
 * The oldest version that shows the values from which the author started, the
 * device's own edits laid over it; -1 if none does.
 */
static int64
version_showing(EsyncMerge *m, const Jsonb *base)
{
	EsyncFold  *fold;
	int			last_own;

	set_base(m, 0);
	fold_shown(m);
	if (m->nseen == 0 && shows(m, m->shown, base))
		return 0;
	last_own = last_own_event(m);
	fold = esync_merge_fold(m, 0);
	for (int i = 0; i < m->events->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		set_base(m, m->events->e[i].version);
		esync_merge_add(m, fold, i);
		if (i < last_own)
			fold_shown(m);
		if (shows(m, i < last_own ? m->shown : fold, base))
			return m->events->e[i].version;
	}
	return -1;
}

/* Does every member that was sent, but for the key, have one in base too? */
static bool
covers(const EsyncMerge *m, const Jsonb *base, const Jsonb *sent)
{
	EsyncWalk	walk;
	JsonbValue	value;

	esync_walk_init(&walk, &sent->root);
	while (esync_walk_next(&walk))
	{
		int			field = esync_merge_field(m, walk.key, walk.keylen);

		if ((field < 0 || !esync_merge_is_key(m->t, field)) &&
			!esync_json_member(&base->root, walk.key, walk.keylen, &value))
			return false;
	}
	return true;
}

/* The last_modified value in a document, if there is one: microseconds, or DT_NOBEGIN. */
TimestampTz
esync_merge_stamp_sent(EsyncMerge *m)
{
	EsyncTracked *t = m->t;
	JsonbValue	v;

	for (int i = 0; i < t->ncolumns && m->edit->document; i++)
	{
		const EsyncField *f = &t->fields[t->columns[i].field];
		Datum		value;
		bool		isnull;

		if (!f->stamp || !esync_json_member(&m->edit->document->root, f->name, strlen(f->name), &v) ||
			v.type == jbvNull)
			continue;
		esync_decode_value(t->row, t->columns[i].shape, &v, &value, &isnull);
		return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	}
	return DT_NOBEGIN;
}

/* The time that an event gave to the first last_modified column. */
static TimestampTz
stamp_of_event(EsyncMerge *m, EsyncEvent *e)
{
	EsyncTracked *t = m->t;
	Jsonb	   *payload = esync_event_payload(e);
	JsonbValue	v;

	for (int i = 0; i < t->ncolumns && payload; i++)
	{
		const EsyncField *f = &t->fields[t->columns[i].field];
		Datum		value;
		bool		isnull;

		if (!f->stamp || !esync_json_member(&payload->root, f->name, strlen(f->name), &v))
			continue;
		esync_decode_value(t->row, t->columns[i].shape, &v, &value, &isnull);
		if (!isnull)
			return DatumGetTimestampTz(value);
	}
	return e->commit;
}

/*
 * The version to which a last_modified value belongs: the last that is not
 * younger.  A device may have cut it to milliseconds.  -1: it is older than all.
 */
static int64
version_stamped(EsyncMerge *m, TimestampTz sent)
{
	int64		version = -1;

	if (sent % 1000 == 0)
		sent += 999;
	for (int i = 0; i < m->events->n; i++)
		if (stamp_of_event(m, &m->events->e[i]) <= sent)
			version = m->events->e[i].version;
	return version;
}

/*
 * The base where no version was named; see design: base, last_modified, branch, or the head.  Who decides had
 * seen the head, whatever the branch: that is of the device on which it was decided.
 */
static bool
infer_base(EsyncMerge *m)
{
	const EsyncEdit *edit = m->edit;
	TimestampTz stamp = esync_merge_stamp_sent(m);
	int64		version = -1;

	if (edit->base)
	{
		version = version_showing(m, edit->base);
		if (version < 0 && !covers(m, edit->base, edit->document ? edit->document :
								   edit->set ? edit->set : edit->base))
			return esync_merge_reject(m, "base_unknown",
						  pstrdup("no version of the row shows the values of \"base\""));
		m->base_guessed = version < 0;
		version = version < 0 ? ground_version(m) : version;
	}
	else if (stamp != DT_NOBEGIN)
	{
		version = version_stamped(m, stamp);
		if (version < 0)
			return esync_merge_reject(m, "base_unknown",
						  pstrdup("no version of the row has that last_modified value"));
	}
	else if (edit->has_branch && edit->verb != ESYNC_VERB_RESOLVE)
		version = esync_merge_version_at(m, edit->branch - (int64) esync_branch_margin * 1000);
	else if (edit->head_by_default || m->head == 0)
		version = m->head;
	else
		return esync_merge_reject(m, "invalid",
					  pstrdup("no base: give base_version, base or branch_timestamp"));
	set_base(m, version);
	return true;
}

/*
 * Finds the base of the edit among the events, and what its author had before
 * the eyes.  False: code and message say why not.
 */
bool
esync_merge_base(EsyncMerge *m)
{
	const EsyncEdit *edit = m->edit;

	if (!edit->has_base_version)
	{
		if (edit->verb == ESYNC_VERB_CREATE && !edit->base && !edit->has_branch)
			set_base(m, 0);
		else if (!infer_base(m))
			return false;
	}
	else if (edit->base_version > m->head)
	{
		if (edit->document && !edit->base && m->head > 0)
			return esync_merge_reject(m, "base_unknown",
						  psprintf("base_version " INT64_FORMAT " lies beyond the head, which is " INT64_FORMAT,
								   edit->base_version, m->head));
		m->base_beyond = true;
		set_base(m, m->head);
	}
	else
		set_base(m, edit->base_version);
	/* what was purged cannot be shown; the fields that were sent need no more than a place */
	if (m->events->n > 0 && m->nseen == 0 && m->base > 0 && edit->document && !edit->base)
		return esync_merge_reject(m, "base_pruned",
					  psprintf("version " INT64_FORMAT " of the row was purged", m->base));
	fold_shown(m);
	return true;
}
