/*
 * decision.c: the row that a decision is about: locked, and read as of now.
 *
 * A row that got another key since is followed to the one that it has: what
 * is decided is decided there, and what is closed is closed where it lies.
 * The decisions on all keys that a row has or had are a family.  What the table
 * itself says against a decision gets a hint.
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

#include "paths.h"
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

/*
 * Waits for others who decide on a row that is gone, or undo what was done to
 * it: there is none to be locked.
 */
void
esync_decision_lock_gone(const EsyncTracked *t, const text *aggregate_id)
{
	uint32		hash = DatumGetUInt32(hash_any((unsigned char *) VARDATA_ANY(aggregate_id),
											   VARSIZE_ANY_EXHDR(aggregate_id)));
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) t->table_id, hash, LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Locks the row and reads what there is to know; returns the conflict that is asked for. */
EsyncConflict *
esync_decision_meet(EsyncDecision *d, int64 asked, bool alone)
{
	EsyncConflict *conflict;
	const EsyncEvent *head;

	d->here = esync_apply_lock(d->t, d->aggregate_id, d->key);
	conflict = read_stream(d, asked);
	head = esync_decision_head(d);
	d->lacking = !d->here && head != NULL && head->row_xmin != InvalidTransactionId &&
		esync_apply_lacks(d->t, d->key);
	if (!alone || head == NULL || head->row_xmin != InvalidTransactionId)
		return conflict;
	esync_decision_lock_gone(d->t, d->aggregate_id);
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

/* -------------------------------------------------- a row that cannot be asked */

/* Is a value, or NULL: that there is none, at a place in a column not what the stream says? */
static bool
differs(const EsyncFold *fold, int field, const char *path, int len, const JsonbValue *value)
{
	JsonbValue	column;
	JsonbValue	now;
	bool		there = esync_fold_value(fold, field, &column) &&
		esync_inner_value(&column, path, len, &now);

	return there ? value == NULL || !esync_json_equal(&now, value, true) : value != NULL;
}

/* The columns to which the decision gives another value than the stream says. */
static Bitmapset *
changed_fields(const EsyncDecision *d, const EsyncFold *fold)
{
	Bitmapset  *fields = NULL;
	EsyncPathOp op;
	ListCell   *lc;

	for (int i = 0; i < d->nset; i++)
	{
		int			field = esync_field_at(d->t->fields, d->t->nfields, d->set[i].key,
										   d->set[i].keylen, PG_INT64_MAX);

		if (field >= 0 && differs(fold, field, "", 0, &d->set[i].value))
			fields = bms_add_member(fields, field);
	}
	foreach(lc, d->ops)
	{
		JsonbValue	value;
		int			field;

		esync_json_root(lfirst(lc), &value);
		if (esync_paths_read(&value, &op) &&
			(field = esync_merge_field_of_op(d->t, &op, PG_INT64_MAX)) >= 0 &&
			differs(fold, field, op.path + op.columnlen, op.len - op.columnlen,
					op.remove ? NULL : &op.value))
			fields = bms_add_member(fields, field);
	}
	return fields;
}

/* Is a conflict one of what a constraint refused in any of these columns? */
static bool
is_refusal_in(const EsyncDecision *d, const EsyncConflict *c, Bitmapset *fields)
{
	EsyncPlace	place = esync_ledger_place(d->t, c->field, c->opened_event);
	int			field = -1;

	if (strcmp(text_to_cstring(c->kind), "constraint") != 0)
		return false;
	while ((field = bms_next_member(fields, field)) >= 0)
		if (esync_ledger_covers(d->t, &place, field))
			return true;
	return false;
}

/*
 * Is the row gone for good, and does the decision leave it so?  Who came or went
 * unseen counts: that is recorded before the decision is.
 */
bool
esync_decision_gone(const EsyncDecision *d)
{
	const EsyncEvent *head = esync_decision_head(d);

	return d->life <= 0 && head != NULL && !d->here &&
		(d->lacking || ((head->flags & ESYNC_FLAG_DELETED) && head->row_xmin == InvalidTransactionId));
}

/*
 * Does the decision set a column of which a constraint refused a value, where no
 * row is there of which the constraint could be asked?
 */
bool
esync_decision_blind(EsyncDecision *d)
{
	Bitmapset  *fields;
	ListCell   *lf;
	ListCell   *lc;

	if (!esync_decision_gone(d) || (d->nset == 0 && d->ops == NIL))
		return false;
	fields = changed_fields(d, esync_merge_fold(&d->m, d->m.events->n));
	foreach(lf, *d->family)
		foreach(lc, ((EsyncDecision *) lfirst(lf))->open)
			if (is_refusal_in(d, lfirst(lc), fields))
				return true;
	return false;
}

/* ------------------------------------------------------- what the table refuses */

/* Is a value that was given none of its column's type? */
static bool
is_bad_value(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_INVALID_TEXT_REPRESENTATION ||
		sqlerrcode == ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE ||
		sqlerrcode == ERRCODE_INVALID_DATETIME_FORMAT ||
		sqlerrcode == ERRCODE_DATETIME_VALUE_OUT_OF_RANGE ||
		sqlerrcode == ERRCODE_STRING_DATA_RIGHT_TRUNCATION;
}

/* What to do about what the table says against a decision; NULL: nobody knows. */
static const char *
refusal_hint(int sqlerrcode, const EsyncEdit *edit)
{
	if (is_bad_value(sqlerrcode))
		return "A value must be one that its column takes, in the form that it has in a payload.";
	if (sqlerrcode == ERRCODE_GENERATED_ALWAYS)
		return "ALTER TABLE ... ALTER COLUMN ... SET GENERATED BY DEFAULT lets an identity column be set.";
	if (ERRCODE_TO_CATEGORY(sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		return NULL;
	if (sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION && edit->life < 0)
		return edit->undoes ? "Delete the rows that point to it first." :
			"Delete the rows that point to it first, or let it live: {\"deleted\": false}.";
	if (sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION)
		return "Restore the row that it points to first, or decide on another value with esync_resolve_row.";
	if (edit->life > 0)
		return "Give the row back with other values by esync_resolve_row: {\"\": {\"value\": {\"deleted\": false}}, \"column\": {\"value\": ...}}.";
	return "Decide on another value with esync_resolve_row.";
}

/* Writes a decision or an undo; where the table refuses it, the error says what to do. */
void
esync_decision_apply(EsyncTracked *t, text *aggregate_id, Datum *key, const EsyncEdit *edit,
					 EsyncOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		esync_apply(t, aggregate_id, key, edit, outcome);
	}
	PG_CATCH();
	{
		const char *hint = refusal_hint(geterrcode(), edit);
		ErrorData  *error;

		if (hint == NULL)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (error->hint == NULL)
			error->hint = pstrdup(hint);
		ReThrowError(error);
	}
	PG_END_TRY();
}
