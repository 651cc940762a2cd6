/*
 * decision.c: the row that a decision is about: locked, and read as of now.
 *
 * A row that got another key since is followed to the one that it has: what
 * is decided is decided there, and what is closed is closed where it lies.
 * The decisions on all keys that a row has or had are a family.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "resolve.h"

/* the fourth field of the lock tag of a row that is gone; see submission.c */
#define LOCK_CLASS 5

/* ---------------------------------------------------------------- the ledger */

/* the conflicts of a row while they are read */
typedef struct Reading
{
	MemoryContext cxt;
	List	   *open;
	int64		asked;			/* this one is wanted, open or closed */
	EsyncConflict *found;
} Reading;

static void *
copy_varlena(const void *value)
{
	return value ? DatumGetPointer(datumCopy(PointerGetDatum(value), false, -1)) : NULL;
}

/* Callback: keeps a copy of a conflict. */
static bool
keep_conflict(EsyncConflict *conflict, void *arg)
{
	Reading    *r = arg;
	MemoryContext old;
	EsyncConflict *c;

	if (!conflict->open && conflict->conflict_id != r->asked)
		return true;
	old = MemoryContextSwitchTo(r->cxt);
	c = palloc(sizeof(EsyncConflict));
	*c = *conflict;
	c->aggregate_id = copy_varlena(c->aggregate_id);
	c->field = copy_varlena(c->field);
	c->kind = copy_varlena(c->kind);
	c->base_value = copy_varlena(c->base_value);
	c->contenders = copy_varlena(c->contenders);
	c->shown_value = copy_varlena(c->shown_value);
	c->resolved_by = copy_varlena(c->resolved_by);
	c->resolution = copy_varlena(c->resolution);
	if (c->open)
		r->open = lappend(r->open, c);
	if (c->conflict_id == r->asked)
		r->found = c;
	MemoryContextSwitchTo(old);
	return true;
}

static int
conflict_cmp(const ListCell *a, const ListCell *b)
{
	const EsyncConflict *x = lfirst(a);
	const EsyncConflict *y = lfirst(b);

	return x->conflict_id < y->conflict_id ? -1 : x->conflict_id > y->conflict_id;
}

/* The open conflicts of the row by conflict_id, as of now; returns the one that is asked for. */
EsyncConflict *
esync_decision_conflicts(EsyncDecision *d, int64 asked, List **open)
{
	Reading		r = {.cxt = CurrentMemoryContext, .asked = asked};

	esync_ledger_each(d->t->table_id, d->aggregate_id,
					  asked ? ESYNC_LEDGER_ALL : ESYNC_LEDGER_OPEN, 0, SnapshotSelf,
					  keep_conflict, &r);
	list_sort(r.open, conflict_cmp);
	*open = r.open;
	return r.found;
}

/* ------------------------------------------------------------------- the row */

/* The events of the row, and its open conflicts, as of now. */
static EsyncConflict *
read_stream(EsyncDecision *d, int64 asked)
{
	d->m.events = esync_stream_read(d->t, d->aggregate_id, NULL, SnapshotSelf, false,
									ESYNC_WANT_EDITS);
	return esync_decision_conflicts(d, asked, &d->open);
}

const EsyncEvent *
esync_decision_head(const EsyncDecision *d)
{
	return d->m.events->n > 0 ? &d->m.events->e[d->m.events->n - 1] : NULL;
}

/* Waits for others who decide on a row that is gone: there is none to be locked. */
static void
lock_gone_row(const EsyncDecision *d)
{
	uint32		hash = DatumGetUInt32(hash_any((unsigned char *) VARDATA_ANY(d->aggregate_id),
											   VARSIZE_ANY_EXHDR(d->aggregate_id)));
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) d->t->table_id, hash, LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Locks the row and reads what there is to know; returns the conflict that is asked for. */
EsyncConflict *
esync_decision_meet(EsyncDecision *d, int64 asked, bool alone)
{
	EsyncConflict *conflict;
	const EsyncEvent *head;

	esync_apply_lock(d->t, d->aggregate_id, d->key);
	conflict = read_stream(d, asked);
	head = esync_decision_head(d);
	if (!alone || head == NULL || head->row_xmin != InvalidTransactionId)
		return conflict;
	lock_gone_row(d);
	return read_stream(d, asked);
}

/* The decision of the family on a row of that key, which is locked and read where it is new. */
static EsyncDecision *
relative(EsyncDecision *d, text *aggregate_id)
{
	EsyncDecision *other;
	ListCell   *lc;

	foreach(lc, *d->family)
	{
		other = lfirst(lc);
		if (VARSIZE_ANY_EXHDR(other->aggregate_id) == VARSIZE_ANY_EXHDR(aggregate_id) &&
			memcmp(VARDATA_ANY(other->aggregate_id), VARDATA_ANY(aggregate_id),
				   VARSIZE_ANY_EXHDR(aggregate_id)) == 0)
			return other;
	}
	other = palloc0(sizeof(EsyncDecision));
	other->t = other->m.t = d->t;
	other->rights = d->rights;
	other->aggregate_id = aggregate_id;
	other->key = palloc(sizeof(Datum) * d->t->nkeys);
	if (!esync_key_values(d->t, aggregate_id, other->key))
		return NULL;
	other->strategy = d->strategy;
	(void) esync_decision_meet(other, 0, false);
	other->family = d->family;
	*d->family = lappend(*d->family, other);
	return other;
}

/* To which key, and version there, the row went by an event; NULL: the event is no move. */
static text *
moved_to(const EsyncEvent *e, int64 *version)
{
	JsonbValue	link;
	JsonbValue	id;
	JsonbValue	at;

	if (e->type != ESYNC_DELETED || !(e->flags & ESYNC_FLAG_MOVED) || e->meta == NULL ||
		!esync_json_member(&e->meta->root, "moved_to", 8, &link) || link.type != jbvBinary ||
		!esync_json_member(link.val.binary.data, "aggregate_id", 12, &id) ||
		!esync_json_member(link.val.binary.data, "version", 7, &at))
		return NULL;
	*version = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(at.val.numeric)));
	return cstring_to_text_with_len(id.val.string.val, id.val.string.len);
}

/* The decision on the row that was there at a version, under the key that it has now. */
EsyncDecision *
esync_decision_follow(EsyncDecision *d, int64 version)
{
	for (int i = 0; i < d->m.events->n; i++)
	{
		const EsyncEvent *e = &d->m.events->e[i];
		EsyncDecision *other;
		int64		there;
		text	   *to;

		if (e->version <= version || (to = moved_to(e, &there)) == NULL)
			continue;
		other = relative(d, to);
		return other && other != d ? esync_decision_follow(other, there) : d;
	}
	return d;
}

/* The decision on the row that a key names: its own, or the one that went to another key. */
EsyncDecision *
esync_decision_named(EsyncDecision *d)
{
	for (int i = d->m.events->n - 1; i >= 0; i--)
	{
		const EsyncEvent *e = &d->m.events->e[i];
		EsyncEventType type = esync_merge_contender(e).type;
		int64		version;

		if (moved_to(e, &version))
			return esync_decision_follow(d, e->version - 1);
		if (type == ESYNC_CREATED || type == ESYNC_DELETED || type == ESYNC_RESTORED)
			break;
	}
	return d;
}

/* Decisions on the keys that the row had before: conflicts may be open under them. */
List *
esync_decision_former(EsyncDecision *d)
{
	EsyncEvents *events;
	List	   *former = NIL;

	if (d->rights.rls)
		return NIL;				/* nobody can ask policies about them */
	events = esync_stream_read(d->t, d->aggregate_id, NULL, SnapshotSelf, true,
							   ESYNC_WANT_FOLD);
	for (int i = 0; i < events->n && (events->e[i].flags & ESYNC_FLAG_FOLLOWED); i++)
	{
		EsyncDecision *other = relative(d, events->e[i].aggregate_id);

		if (other && other != d)
			former = list_append_unique_ptr(former, other);
	}
	return former;
}

/* The row as the caller sees it now. */
Jsonb *
esync_decision_row(EsyncDecision *d)
{
	Jsonb	   *row;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	row = esync_row_read(d->t, &d->rights, d->key);
	PopActiveSnapshot();
	return row;
}

/* Do row policies show the caller the row? */
bool
esync_decision_seen(EsyncDecision *d)
{
	bool		seen;

	if (!d->rights.rls)
		return true;
	PushActiveSnapshot(GetTransactionSnapshot());
	seen = esync_rights_row(d->t, &d->rights, d->key);
	PopActiveSnapshot();
	return seen;
}
