/*
 * conflictfn.c: the ledger for users: esync_conflicts, and how many are open.
 *
 * Functions run as their caller.  A conflict is shown to whoever may read the
 * field that it is about and, where row policies apply, sees its row; values
 * of several columns lose those that the caller may not read.  What is not
 * shown leaves no trace, neither a row nor an error.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "conflict.h"

/* what is asked for; NULL, 0: whatever it be */
typedef struct Wanted
{
	text	   *aggregate_id;		/* of the row that the caller named */
	EsyncLedgerStatus status;
	const char *field;			/* as the caller calls it */
	text	   *kind;
	text	   *user_id;
	int64		after;
	int64		max;			/* PG_INT64_MAX: all */
} Wanted;

/* a conflict to be shown */
typedef struct Hit
{
	int64		conflict_id;
	HeapTuple	tuple;
} Hit;

/* a listing under way */
typedef struct Listing
{
	const Wanted *wanted;
	MemoryContext cxt;			/* of hits */
	TupleDesc	desc;			/* of the result; NULL: hits are only counted */
	int			n;
	int			size;
	Hit		   *hits;

	EsyncTracked *t;			/* the table at hand, and */
	EsyncRights rights;			/* what the caller may read of it, */
	const char *field;			/* and what it calls the field that is wanted; NULL: all */
	bool		open;			/* hits of this status, in the table, */
	int64		found;			/* are so many */
	text	   *asked;			/* the row that policies were asked about last, */
	bool		seen;			/* whether they show it, and */
	int64		gone;			/* its last version that left no row */
	bool		former;			/* conflicts of a former key of the row, */
	int64		from;			/* whose versions from here */
	int64		until;			/* to there are the row's */
} Listing;

/* ------------------------------------------------------------- row policies */

/* Callback: finds the last event after which there was no row. */
static bool
find_gone(EsyncEvent *event, int index, void *arg)
{
	if (!(event->flags & ESYNC_FLAG_DELETED) || event->row_xmin != InvalidTransactionId)
		return true;
	*(int64 *) arg = event->version;
	return false;
}

/*
 * Do row policies show the caller this row?  Asked once for a run of its
 * conflicts.  Those of a former key go by the row under its key of now.
 */
static bool
row_seen(Listing *l, const text *aggregate_id)
{
	Datum	   *key;

	if (!l->rights.rls)
		return true;
	if (l->former)
		aggregate_id = l->wanted->aggregate_id;
	if (l->asked && VARSIZE_ANY_EXHDR(l->asked) == VARSIZE_ANY_EXHDR(aggregate_id) &&
		memcmp(VARDATA_ANY(l->asked), VARDATA_ANY(aggregate_id),
			   VARSIZE_ANY_EXHDR(aggregate_id)) == 0)
		return l->seen;
	if (l->asked)
		pfree(l->asked);
	l->asked = (text *) MemoryContextAlloc(l->cxt, VARSIZE_ANY(aggregate_id));
	memcpy(l->asked, aggregate_id, VARSIZE_ANY(aggregate_id));
	key = palloc(sizeof(Datum) * l->t->nkeys);
	l->gone = 0;
	l->seen = esync_key_values(l->t, l->asked, key) && esync_rights_row(l->t, &l->rights, key);
	if (l->seen)
		esync_stream_back(l->t, l->asked, NULL, GetActiveSnapshot(), false, find_gone, &l->gone);
	return l->seen;
}

/*
 * Is a version one of the row's present life?  Where policies apply, what was
 * before its last deletion may have been another's; under a former key there
 * may have been other rows, too.
 */
static bool
in_present_life(const Listing *l, int64 version)
{
	if (l->former)
		return version >= l->from && version <= l->until;
	return !l->rights.rls || version > l->gone || l->gone == 0;
}

/*
 * The same of the contenders.  A late edit lies under the former key beyond the
 * move; where no policies apply, one contender of the row is enough.
 */
static bool
contenders_in_present_life(const Listing *l, const EsyncLedgerContender *contenders, int n)
{
	int			inside = 0;

	for (int i = 0; i < n; i++)
		inside += in_present_life(l, contenders[i].version);
	return inside == n || (inside > 0 && !l->rights.rls);
}

/* And of the bases from which they came. */
static bool
bases_in_present_life(const Listing *l, const EsyncLedgerContender *contenders, int n)
{
	for (int i = 0; l->rights.rls && i < n; i++)
		if (!in_present_life(l, contenders[i].base_version))
			return false;
	return true;
}

/* ------------------------------------------------------------------- values */

/* Whether the caller may see a member of a value: a column, or column/path; and how. */
static bool
member_seen(const Listing *l, const EsyncWalk *walk, int64 event_id, bool *masked)
{
	const EsyncTracked *t = l->t;
	int64		moments[2] = {event_id, PG_INT64_MAX};
	text	   *name = cstring_to_text_with_len(walk->key, walk->keylen);
	bool		known = false;

	*masked = false;
	/* the name may be that of then or that of now: no column it could mean may be hidden */
	for (int i = 0; i < lengthof(moments); i++)
	{
		int			field = esync_ledger_place(t, name, moments[i]).field;

		if (field < 0)
			continue;
		if (t->fields[field].excluded || !esync_rights_field(&l->rights, &t->fields[field]))
			return false;
		*masked |= t->fields[field].masked;
		known = true;
	}
	return known;
}

/*
 * A value in the ledger as the caller may see it.  Of a column that is the
 * value itself; of a group or a whole row an object of columns.
 */
static JsonbValue
filter_value(const Listing *l, const EsyncPlace *place, const JsonbValue *value, int64 event_id)
{
	EsyncMember *members;
	JsonbValue	result = {.type = jbvNull};
	EsyncWalk	walk;
	int			n = 0;

	if (place->field >= 0 || (l->rights.all && !l->t->hides))
		return *value;
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		return result;
	members = palloc(sizeof(EsyncMember) * Max(esync_json_count(value->val.binary.data), 1));
	esync_walk_init(&walk, value->val.binary.data);
	while (esync_walk_next(&walk))
	{
		bool		masked;

		if (!member_seen(l, &walk, event_id, &masked))
			continue;
		members[n] = (EsyncMember) {walk.key, walk.keylen, walk.value};
		if (masked)
		{
			members[n].value.type = jbvString;
			members[n].value.val.string.val = ESYNC_MASK;
			members[n].value.val.string.len = strlen(ESYNC_MASK);
		}
		n++;
	}
	esync_json_root(esync_json_object(n, members), &result);
	return result;
}

/* The same of a stored document; NULL stays NULL. */
static Jsonb *
filter_document(const Listing *l, const EsyncPlace *place, const Jsonb *document, int64 event_id)
{
	JsonbValue	value;

	if (document == NULL)
		return NULL;
	esync_json_root(document, &value);
	value = filter_value(l, place, &value, event_id);
	return esync_json_from_value(&value);
}

/* One contender as it is shown. */
static Jsonb *
shown_contender(const Listing *l, const EsyncConflict *conflict, const EsyncPlace *place,
				const EsyncLedgerContender *c)
{
	int			n = 7;
	EsyncMember members[8] = {
		{.key = "event_id", .value.type = jbvNumeric},
		{.key = "version", .value.type = jbvNumeric},
		{.key = "user_id", .value = c->user_id},
		{.key = "device_id", .value = c->device_id},
		{.key = "value", .value = filter_value(l, place, &c->value, c->event_id)},
		{.key = "submit_timestamp", .value = c->submit},
		{.key = "shown", .value.type = jbvBool},
		{.key = "constraint", .value = c->constraint}
	};

	for (int i = 0; i < lengthof(members); i++)
		members[i].keylen = strlen(members[i].key);
	members[0].value.val.numeric = int64_to_numeric(c->event_id);
	members[1].value.val.numeric = int64_to_numeric(c->version);
	members[6].value.val.boolean = c->event_id == conflict->shown_event;
	if (c->constraint.type != jbvNull)
		n++;
	return esync_json_object(n, members);
}

/* All contenders as they are shown. */
static Jsonb *
shown_contenders(const Listing *l, const EsyncConflict *conflict, const EsyncPlace *place,
				 const EsyncLedgerContender *contenders, int n)
{
	EsyncJson	json;

	esync_json_init(&json, 256 * (n + 1));
	esync_json_open_array(&json, n);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	v;

		esync_json_root(shown_contender(l, conflict, place, &contenders[i]), &v);
		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------------------ listing */

static bool
text_is(const text *a, const char *string, int len)
{
	return a != NULL && VARSIZE_ANY_EXHDR(a) == len && memcmp(VARDATA_ANY(a), string, len) == 0;
}

/* Is it one of that user's? */
static bool
user_wanted(const Listing *l, const EsyncLedgerContender *contenders, int n)
{
	const text *user = l->wanted->user_id;

	for (int i = 0; user && i < n; i++)
		if (contenders[i].user_id.type == jbvString &&
			text_is(user, contenders[i].user_id.val.string.val,
					contenders[i].user_id.val.string.len))
			return true;
	return user == NULL;
}

/* Sets a result column to a pointer, or to NULL. */
static void
put_pointer(Datum *value, bool *isnull, const void *pointer)
{
	*value = PointerGetDatum(pointer);
	*isnull = pointer == NULL;
}

/* The row of esync_conflicts that shows a conflict. */
static HeapTuple
shown_conflict(const Listing *l, const EsyncConflict *c, const EsyncPlace *place,
			   const char *name, const EsyncLedgerContender *contenders, int n)
{
	Datum		values[13];
	bool		nulls[13] = {false};
	bool		key = l->wanted->aggregate_id != NULL || esync_rights_key(l->t, &l->rights);
	bool		base = bases_in_present_life(l, contenders, n);

	values[0] = Int64GetDatum(c->conflict_id);
	values[1] = ObjectIdGetDatum(l->t->root);
	put_pointer(&values[2], &nulls[2], key ? c->aggregate_id : NULL);
	put_pointer(&values[3], &nulls[3], name ? cstring_to_text(name) : NULL);
	put_pointer(&values[4], &nulls[4], c->kind);
	put_pointer(&values[5], &nulls[5],
				base ? filter_document(l, place, c->base_value, c->opened_event) : NULL);
	put_pointer(&values[6], &nulls[6],
				filter_document(l, place, c->shown_value, c->shown_event));
	put_pointer(&values[7], &nulls[7], shown_contenders(l, c, place, contenders, n));
	put_pointer(&values[8], &nulls[8], cstring_to_text(c->open ? "open" : "closed"));
	values[9] = TimestampTzGetDatum(c->opened_at);
	values[10] = TimestampTzGetDatum(c->resolved_at);
	nulls[10] = c->open;
	put_pointer(&values[11], &nulls[11], c->resolved_by);
	put_pointer(&values[12], &nulls[12], c->resolution);
	return heap_form_tuple(l->desc, values, nulls);
}

/* Takes a conflict that is shown. */
static void
add_hit(Listing *l, int64 conflict_id, HeapTuple tuple)
{
	MemoryContext old = MemoryContextSwitchTo(l->cxt);

	if (l->n == l->size)
	{
		l->size = Max(2 * l->size, 64);
		l->hits = l->hits ? repalloc_huge(l->hits, l->size * sizeof(Hit)) :
			palloc(l->size * sizeof(Hit));
	}
	l->hits[l->n].conflict_id = conflict_id;
	l->hits[l->n++].tuple = tuple ? heap_copytuple(tuple) : NULL;
	MemoryContextSwitchTo(old);
}

/* Callback: takes a conflict if it is wanted and the caller may see it. */
static bool
list_conflict(EsyncConflict *c, void *arg)
{
	Listing    *l = arg;
	const Wanted *wanted = l->wanted;
	EsyncPlace	place = esync_ledger_place(l->t, c->field, c->opened_event);
	char	   *name = esync_ledger_name(l->t, c, &place);
	EsyncLedgerContender *contenders;
	int			n;

	if (l->open != c->open)
		l->found = 0;
	l->open = c->open;
	if (l->found >= wanted->max && wanted->aggregate_id == NULL)
		return false;
	if (!esync_ledger_readable(l->t, &l->rights, &place) ||
		(l->field && !esync_ledger_about(l->t, &place, name, l->field)) ||
		(wanted->kind && !text_is(wanted->kind, VARDATA_ANY(c->kind), VARSIZE_ANY_EXHDR(c->kind))))
		return true;
	contenders = esync_ledger_contenders(c, &n);
	if (!user_wanted(l, contenders, n) || !row_seen(l, c->aggregate_id) ||
		!contenders_in_present_life(l, contenders, n))
		return true;
	add_hit(l, c->conflict_id, l->desc == NULL ? NULL :
			shown_conflict(l, c, &place, name, contenders, n));
	l->found++;
	return true;
}

/* Takes the table at hand, of which rights were asked; false: it never had the field. */
static bool
take_table(Listing *l, EsyncTracked *t)
{
	l->t = t;
	l->field = NULL;
	return l->wanted->field == NULL ||
		(l->field = esync_ledger_field(t, l->wanted->field)) != NULL;
}

/* Lists what is wanted of the table at hand, or of one key in it. */
static void
list_table(Listing *l, text *aggregate_id)
{
	l->asked = NULL;
	l->open = true;
	l->found = 0;
	esync_ledger_each(l->t->table_id, aggregate_id, l->wanted->status, l->wanted->after,
					  GetActiveSnapshot(), list_conflict, l);
}

/* Lists what is wanted of one row, under the keys that it had before as well. */
static void
list_row(Listing *l)
{
	EsyncBounds bounds = {DT_NOEND, DT_NOEND, l->rights.rls};
	EsyncEvents *events = esync_stream_read(l->t, l->wanted->aggregate_id, &bounds,
											GetActiveSnapshot(), true, ESYNC_WANT_FOLD);
	int			i = 0;

	list_table(l, l->wanted->aggregate_id);
	l->former = true;
	while (i < events->n && (events->e[i].flags & ESYNC_FLAG_FOLLOWED))
	{
		text	   *key = events->e[i].aggregate_id;

		l->from = l->until = events->e[i].version;
		for (i++; i < events->n && (events->e[i].flags & ESYNC_FLAG_FOLLOWED) &&
			 text_is(key, VARDATA_ANY(events->e[i].aggregate_id),
					 VARSIZE_ANY_EXHDR(events->e[i].aggregate_id)); i++)
			l->until = events->e[i].version;
		list_table(l, key);
	}
}

/*
 * Lists a table that nobody named: it is passed over where the caller may not
 * read it, or its key is gone.  Held by a lock, but only if it may be read.
 * False: it has not the field that is wanted.
 */
static bool
list_any_table(Listing *l, Oid relid)
{
	EsyncTracked *t = esync_tracked_get(relid);

	if (t == NULL || !esync_rights_try(t, &l->rights))
		return false;
	LockRelationOid(relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return false;
	t = esync_tracked_get(relid);
	if (t == NULL || !t->is_root || t->broken || !esync_rights_try(t, &l->rights) ||
		!take_table(l, t))
		return false;
	list_table(l, NULL);
	return true;
}

/* Lists all tables that the caller may read; 42703 where none has the field that is wanted. */
static void
list_all_tables(Listing *l)
{
	bool		known = l->wanted->field == NULL;
	ListCell   *lc;

	foreach(lc, esync_tracked_tables())
		known |= list_any_table(l, lfirst_oid(lc));
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("field \"%s\" does not exist", l->wanted->field),
				 errhint("No tracked table that you may read has or had such a column, group, or path inside of a jsonb column.")));
}

static int
hit_cmp(const void *a, const void *b)
{
	const Hit  *x = a;
	const Hit  *y = b;

	return x->conflict_id < y->conflict_id ? -1 : x->conflict_id > y->conflict_id;
}

/* ---------------------------------------------------------------- the calls */

/* The statuses that an argument names; NULL: all. */
static EsyncLedgerStatus
status_argument(const text *status)
{
	if (status == NULL || text_is(status, "all", 3))
		return ESYNC_LEDGER_ALL;
	if (text_is(status, "open", 4))
		return ESYNC_LEDGER_OPEN;
	if (!text_is(status, "closed", 6))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid status \"%s\"", text_to_cstring(status)),
				 errhint("The status is \"open\", \"closed\" or \"all\".")));
	return ESYNC_LEDGER_CLOSED;
}

/* Raises unless it is a kind of conflict. */
static void
check_kind(const text *kind)
{
	static const char *const kinds[] = {"field", "delete_edit", "create_create", "constraint", "orphan"};

	for (int i = 0; i < lengthof(kinds); i++)
		if (text_is(kind, kinds[i], strlen(kinds[i])))
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid kind \"%s\"", text_to_cstring(kind)),
			 errhint("The kind is \"field\", \"delete_edit\", \"create_create\", \"constraint\" or \"orphan\".")));
}

/* What the arguments of esync_conflicts ask for, but the key. */
static Wanted
wanted_arguments(FunctionCallInfo fcinfo)
{
	Wanted		w = {.max = PG_INT64_MAX};

	w.status = status_argument(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	if (!PG_ARGISNULL(3))
		w.field = NameStr(*PG_GETARG_NAME(3));
	if (!PG_ARGISNULL(4))
		check_kind(w.kind = PG_GETARG_TEXT_PP(4));
	if (!PG_ARGISNULL(5))
		w.user_id = PG_GETARG_TEXT_PP(5);
	if (!PG_ARGISNULL(6))
		w.after = PG_GETARG_INT64(6);
	if (!PG_ARGISNULL(7))
		w.max = PG_GETARG_INT32(7);
	if (w.max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must not be negative"),
				 errhint("NULL asks for all.")));
	if (PG_ARGISNULL(0) && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a key needs its table"),
				 errhint("Name the table with the argument tbl.")));
	return w;
}

PG_FUNCTION_INFO_V1(esync_conflicts);

/* esync_conflicts(tbl, key, status, field, kind, user_id, after, max_rows) */
Datum
esync_conflicts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Wanted		wanted;
	Listing		l = {.wanted = &wanted, .cxt = CurrentMemoryContext};

	InitMaterializedSRF(fcinfo, 0);
	wanted = wanted_arguments(fcinfo);
	l.desc = rsinfo->setDesc;
	if (PG_ARGISNULL(0))
		list_all_tables(&l);
	else
	{
		EsyncTracked *t;

		LockRelationOid(PG_GETARG_OID(0), AccessShareLock);
		t = esync_tracked_need(PG_GETARG_OID(0));
		esync_rights_read(t, &l.rights);
		if (!take_table(&l, t))
			esync_ledger_unknown(t, wanted.field);
		if (PG_ARGISNULL(1))
			list_table(&l, NULL);
		else
		{
			wanted.aggregate_id = esync_key_from_text(t, PG_GETARG_TEXT_PP(1), NULL);
			list_row(&l);
		}
	}
	if (l.n > 1)
		qsort(l.hits, l.n, sizeof(Hit), hit_cmp);
	for (int i = 0; i < Min(l.n, wanted.max); i++)
		tuplestore_puttuple(rsinfo->setResult, l.hits[i].tuple);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(esync_open_conflicts);

/*
 * esync.open_conflicts(tbl): how many the caller would be shown; NULL where it
 * may not read the table, or that is gone.
 */
Datum
esync_open_conflicts(PG_FUNCTION_ARGS)
{
	Wanted		wanted = {.status = ESYNC_LEDGER_OPEN, .max = PG_INT64_MAX};
	Listing		l = {.wanted = &wanted, .cxt = CurrentMemoryContext};
	EsyncTracked *t = PG_ARGISNULL(0) ? NULL : esync_tracked_get(PG_GETARG_OID(0));

	if (t == NULL || !t->is_root || t->broken || !esync_rights_try(t, &l.rights))
		PG_RETURN_NULL();
	(void) take_table(&l, t);
	list_table(&l, NULL);
	PG_RETURN_INT64(l.n);
}
