/*
 * replay.c: the state of rows at a point of either axis.
 *
 * All readers here run as their caller, under its snapshot: they ask the
 * tracked table's rights first, then read the stream themselves.  A caller
 * to whom row policies apply reads only rows that they show to him now.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "esync.h"

PG_FUNCTION_INFO_V1(esync_state_any);
PG_FUNCTION_INFO_V1(esync_state_text);
PG_FUNCTION_INFO_V1(esync_replay_any);
PG_FUNCTION_INFO_V1(esync_replay_text);
PG_FUNCTION_INFO_V1(esync_as_of);

/* columns of esync_replay */
enum
{
	REPLAY_EVENT_ID, REPLAY_VERSION, REPLAY_TYPE, REPLAY_EFFECTIVE, REPLAY_PATCH, REPLAY_STATE,
	REPLAY_COLUMNS
};

/* one aggregate that somebody may read, within bounds */
typedef struct Reading
{
	EsyncTracked *t;
	EsyncRights rights;
	text	   *aggregate_id;
	Datum	   *key;
	EsyncBounds bounds;
} Reading;

/* an argument as a bound; NULL is none */
static TimestampTz
bound_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(arg);
}

/*
 * Prepares the reading of (tbl, key, as_of, known_at).  False: nothing is to
 * be shown, since table or key is NULL or row policies hide the row.
 */
static bool
begin_reading(FunctionCallInfo fcinfo, bool key_is_text, Reading *r)
{
	Datum	   *values;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return false;
	r->t = esync_tracked_need(PG_GETARG_OID(0));
	esync_rights_read(r->t, &r->rights);
	values = palloc(r->t->nkeys * sizeof(Datum));
	r->aggregate_id = key_is_text ?
		esync_key_from_text(r->t, PG_GETARG_TEXT_PP(1), values) :
		esync_key_from_any(r->t, PG_GETARG_DATUM(1), get_fn_expr_argtype(fcinfo->flinfo, 1),
						   values);
	if (r->rights.rls && !esync_rights_row(r->t, &r->rights, values))
		return false;
	r->key = values;
	r->bounds.as_of = bound_argument(fcinfo, 2);
	r->bounds.known_at = bound_argument(fcinfo, 3);
	r->bounds.present_life = r->rights.rls;
	return true;
}

/* ------------------------------------------------------------ one state */

/* Callback: adds an event to the fold. */
static bool
add_event(EsyncEvent *event, int index, void *arg)
{
	esync_fold_add((EsyncFold *) arg, event, index);
	return true;
}

/* Folds all events of an aggregate into a state; NULL: there is no row. */
static Jsonb *
fold_aggregate(EsyncTracked *t, text *aggregate_id, const EsyncBounds *bounds,
			   Snapshot snapshot, bool follow, EsyncFold *fold)
{
	esync_fold_init(fold, t->fields, t->nfields, t->tombstone_field);
	esync_fold_keep(fold, CurrentMemoryContext);
	esync_stream_back(t, aggregate_id, bounds, snapshot, follow, add_event, fold);
	return esync_fold_state(fold, true);
}

/* a fold that ends at a payload which says all that lies before it */
typedef struct Shortcut
{
	EsyncFold	fold;
	TimestampTz earliest;		/* least effective of the events added */
	TimestampTz as_of;			/* events beyond it do not count */
	bool		whole;			/* no: add all events */
} Shortcut;

/* [], in the current memory context. */
static Jsonb *
empty_patch(void)
{
	EsyncJson	json;

	esync_json_init(&json, 16);
	esync_json_open_array(&json, 0);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/*
 * Callback: adds an event; one with the whole row, before which everything is
 * older than what was added and within bounds, stands for all of it as if it
 * were the ground.  Its own patch may have lost to what came before it.
 */
static bool
add_until_payload(EsyncEvent *event, int index, void *arg)
{
	Shortcut   *s = arg;
	EsyncEvent	ground = *event;

	if (s->whole || event->payload == NULL || event->row_xmin == InvalidTransactionId ||
		event->effective_high >= s->earliest || event->effective_high > s->as_of)
	{
		esync_fold_add(&s->fold, event, index);
		s->earliest = Min(s->earliest, event->effective);
		return true;
	}
	ground.type = ESYNC_BASELINE;
	ground.effective = DT_NOBEGIN;
	ground.flags &= ~(ESYNC_FLAG_DRIFT | ESYNC_FLAG_NO_ROW);
	ground.meta = NULL;
	ground.patch = empty_patch();
	esync_fold_add(&s->fold, &ground, index);
	return false;
}

/*
 * The row that the table ought to hold by all events of this very key, as
 * esync_encode_row would write it: masked columns as ESYNC_MASK.  Any
 * snapshot will do, SnapshotSelf too.  NULL: no event, or no row.  Unless the
 * whole of it is asked for, reads no further back than the last whole row, so
 * that it costs no more as events grow.
 */
Jsonb *
esync_replay_now(EsyncTracked *t, text *aggregate_id, Snapshot snapshot, bool whole,
				 bool *deleted)
{
	Shortcut	s = {.earliest = DT_NOEND, .as_of = DT_NOEND, .whole = whole};

	esync_fold_init(&s.fold, t->fields, t->nfields, t->tombstone_field);
	esync_fold_keep(&s.fold, CurrentMemoryContext);
	esync_stream_back(t, aggregate_id, NULL, snapshot, false, add_until_payload, &s);
	*deleted = s.fold.deleted;
	return esync_fold_state(&s.fold, true);
}

/* the fold of the versions up to one */
typedef struct Until
{
	Shortcut	s;
	int64		version;
} Until;

/* Callback: passes over what came later. */
static bool
add_until_version(EsyncEvent *event, int index, void *arg)
{
	Until	   *u = arg;

	return event->version > u->version || add_until_payload(event, index, &u->s);
}

/*
 * The row by all versions of this very key up to one; what a hard delete took
 * is told all the same.  NULL: there never was one.
 */
Jsonb *
esync_replay_at(EsyncTracked *t, text *aggregate_id, int64 version, Snapshot snapshot)
{
	Until		u = {.s = {.earliest = DT_NOEND, .as_of = DT_NOEND}, .version = version};

	esync_fold_init(&u.s.fold, t->fields, t->nfields, t->tombstone_field);
	esync_fold_keep(&u.s.fold, CurrentMemoryContext);
	esync_stream_back(t, aggregate_id, NULL, snapshot, false, add_until_version, &u);
	u.s.fold.gone = false;
	return esync_fold_state(&u.s.fold, true);
}

/* Has the aggregate any event, within whatever bounds? */
static bool
has_events(EsyncTracked *t, text *aggregate_id)
{
	EsyncLookup *lookup = esync_stream_lookup_begin(t, GetActiveSnapshot());
	bool		found = esync_stream_lookup(lookup, aggregate_id);

	esync_stream_lookup_end(lookup);
	return found;
}

/*
 * The body of both signatures of esync_state.  A row without any event has
 * been as it is since ever: the ground that its first event will write down.
 */
static Datum
state(FunctionCallInfo fcinfo, bool key_is_text)
{
	EsyncFold	fold;
	Reading		r;
	Jsonb	   *result;

	if (!begin_reading(fcinfo, key_is_text, &r))
		PG_RETURN_NULL();
	result = fold_aggregate(r.t, r.aggregate_id, &r.bounds, GetActiveSnapshot(), false, &fold);
	if (!fold.known)			/* not under this key yet, but maybe under a former one */
		result = fold_aggregate(r.t, r.aggregate_id, &r.bounds, GetActiveSnapshot(), true, &fold);
	if (!fold.known && !has_events(r.t, r.aggregate_id))
		result = esync_row_read(r.t, &r.rights, r.key);
	result = esync_rights_filter(r.t, &r.rights, result, false, PG_INT64_MAX);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* esync_state(tbl, key "any", as_of, known_at) */
Datum
esync_state_any(PG_FUNCTION_ARGS)
{
	return state(fcinfo, false);
}

/* esync_state(tbl, key text, as_of, known_at) */
Datum
esync_state_text(PG_FUNCTION_ARGS)
{
	return state(fcinfo, true);
}

/* ------------------------------------------------------ state by state */

/* Sorts places of events by their stamps: the order on the submit axis. */
static int
submit_cmp(const void *a, const void *b, void *arg)
{
	const EsyncEvents *events = arg;
	EsyncStamp	x = esync_event_stamp(&events->e[*(const int *) a]);
	EsyncStamp	y = esync_event_stamp(&events->e[*(const int *) b]);

	return esync_stamp_cmp(&x, &y);
}

/* One row of esync_replay: the event, and the fold of it and all before. */
static void
put_state(ReturnSetInfo *rsinfo, Reading *r, const EsyncEvent *e, EsyncFold *fold)
{
	Datum		values[REPLAY_COLUMNS];
	bool		nulls[REPLAY_COLUMNS] = {false};
	Jsonb	   *patch = esync_rights_filter(r->t, &r->rights, e->patch, true, e->event_id);
	Jsonb	   *doc = esync_rights_filter(r->t, &r->rights, esync_fold_state(fold, true),
										  false, PG_INT64_MAX);

	values[REPLAY_EVENT_ID] = Int64GetDatum(e->event_id);
	values[REPLAY_VERSION] = Int64GetDatum(e->version);
	values[REPLAY_TYPE] = CStringGetTextDatum(esync_event_type_name(e->type));
	values[REPLAY_EFFECTIVE] = TimestampTzGetDatum(e->effective);
	values[REPLAY_PATCH] = JsonbPGetDatum(patch);
	values[REPLAY_STATE] = PointerGetDatum(doc);
	nulls[REPLAY_STATE] = doc == NULL;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Adds one event after the other in submit order, and puts out each state. */
static void
put_states(ReturnSetInfo *rsinfo, Reading *r, EsyncEvents *events)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "esync replay row",
											  ALLOCSET_DEFAULT_SIZES);
	int		   *order = palloc(Max(events->n, 1) * sizeof(int));
	EsyncFolds	folds = {.t = r->t};

	for (int i = 0; i < events->n; i++)
		order[i] = i;
	qsort_arg(order, events->n, sizeof(int), submit_cmp, events);
	for (int i = 0; i < events->n; i++)
	{
		EsyncEvent *e = &events->e[order[i]];
		EsyncFold  *fold = esync_folds_of(&folds, e->aggregate_id);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		esync_fold_add(fold, e, order[i]);
		if (r->t->nstamps > 0 && fold->row_event != NULL)
			(void) esync_event_payload(fold->row_event);	/* not in the row's context */
		old = MemoryContextSwitchTo(row);
		put_state(rsinfo, r, e, fold);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
	}
	MemoryContextDelete(row);
}

/*
 * The body of both signatures of esync_replay.  Only last_modified columns
 * need the payload of every event: they show the last one added.
 */
static Datum
replay(FunctionCallInfo fcinfo, bool key_is_text)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Reading		r;

	InitMaterializedSRF(fcinfo, 0);
	if (begin_reading(fcinfo, key_is_text, &r))
		put_states(rsinfo, &r,
				   esync_stream_read(r.t, r.aggregate_id, &r.bounds, GetActiveSnapshot(),
										 true, r.t->nstamps > 0 ? ESYNC_WANT_ALL :
										 ESYNC_WANT_FOLD));
	return (Datum) 0;
}

/* esync_replay(tbl, key "any", as_of, known_at) */
Datum
esync_replay_any(PG_FUNCTION_ARGS)
{
	return replay(fcinfo, false);
}

/* esync_replay(tbl, key text, as_of, known_at) */
Datum
esync_replay_text(PG_FUNCTION_ARGS)
{
	return replay(fcinfo, true);
}

/* ------------------------------------------------------ the whole table */

/* what esync_as_of keeps from row to row */
typedef struct AsOf
{
	Shortcut	s;				/* of the aggregate at hand; must be first */
	EsyncTracked *t;
	EsyncRights rights;
	bool	   *shown;			/* by place in t->columns: may be shown, and has a value */
	Datum	   *values;
	bool	   *nulls;
	ReturnSetInfo *rsinfo;
	const char *field;			/* being decoded, of */
	text	   *aggregate_id;	/* this one; for errors */
} AsOf;

/*
 * Is this what was recorded of a column while it was masked?  Where the type
 * could hold just that text nobody can tell, and the mask shows.
 */
static bool
is_mask(const EsyncTracked *t, int field, const JsonbValue *value)
{
	Oid			base = getBaseType(t->fields[field].typid);
	char		category;
	bool		preferred;

	if (value->type != jbvString || value->val.string.len != strlen(ESYNC_MASK) ||
		memcmp(value->val.string.val, ESYNC_MASK, strlen(ESYNC_MASK)) != 0)
		return false;
	get_type_category_preferred(base, &category, &preferred);
	return category != TYPCATEGORY_STRING && base != JSONBOID && base != JSONOID &&
		base != XMLOID && base != REFCURSOROID;
}

/* Callback: puts out the row of an aggregate that was folded, typed. */
static void
put_folded(text *aggregate_id, void *arg)
{
	AsOf	   *a = arg;
	EsyncTracked *t = a->t;
	EsyncFold  *fold = &a->s.fold;
	char		buffer[MAXDATELEN + 1];

	for (int i = 0; i < t->ncolumns && esync_fold_has_row(fold); i++)
	{
		const EsyncColumn *c = &t->columns[i];
		JsonbValue	value;

		if (!a->shown[i])
			continue;
		if (t->fields[c->field].stamp)
			esync_fold_stamp_value(fold, c->field, buffer, &value);
		else
			esync_fold_value(fold, c->field, &value);
		if (is_mask(t, c->field, &value))
			value.type = jbvNull;
		a->field = t->fields[c->field].name;
		a->aggregate_id = aggregate_id;
		esync_decode_value(t->row, c->shape, &value, &a->values[c->attnum - 1],
						   &a->nulls[c->attnum - 1]);
	}
	a->field = NULL;
	if (esync_fold_has_row(fold))
		tuplestore_putvalues(a->rsinfo->setResult, a->rsinfo->setDesc, a->values, a->nulls);
	esync_fold_reset(fold);
	a->s.earliest = DT_NOEND;
}

/* Callback, under row policies: the same for a row that the caller sees. */
static void
put_visible(EsyncTracked *t, text *aggregate_id, EsyncEvents *events, void *arg)
{
	AsOf	   *a = arg;
	Datum	   *key = palloc(t->nkeys * sizeof(Datum));

	if (!esync_key_values(t, aggregate_id, key) || !esync_rights_row(t, &a->rights, key))
		return;
	for (int i = 0; i < events->n; i++)
		esync_fold_add(&a->s.fold, &events->e[i], i);
	put_folded(aggregate_id, a);
}

/* All aggregates that have a row within bounds. */
static void
put_folds(AsOf *a, const EsyncBounds *bounds)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync as of aggregate",
											  ALLOCSET_DEFAULT_SIZES);

	esync_fold_init(&a->s.fold, a->t->fields, a->t->nfields, a->t->tombstone_field);
	if (bounds->present_life)
		esync_stream_each(a->t, bounds, GetActiveSnapshot(), ESYNC_WANT_FOLD, put_visible, a);
	else
	{
		esync_fold_keep(&a->s.fold, cxt);
		esync_stream_each_back(a->t, bounds, GetActiveSnapshot(), cxt, add_until_payload,
							   put_folded, a);
	}
	MemoryContextDelete(cxt);
}

/* The shown and the key columns of the table, for a query of its rows. */
static char *
as_of_columns(AsOf *a, EsyncTracked *t)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int k = 0; k < t->nkeys; k++)
		appendStringInfo(&list, "%s%s", k ? ", " : "",
						 quote_identifier(t->fields[t->keyfields[k]].name));
	for (int i = 0; i < t->ncolumns; i++)
		if (a->shown[i])
			appendStringInfo(&list, ", %s", quote_identifier(t->fields[t->columns[i].field].name));
	return list.data;
}

/* Puts out one row of the table, unless it has events: those have told of it. */
static void
put_untold(AsOf *a, EsyncTracked *t, EsyncLookup *lookup, HeapTuple tuple, TupleDesc desc)
{
	int			natts = a->rsinfo->setDesc->natts;
	Datum	   *values = palloc0(natts * sizeof(Datum));
	bool	   *isnull = palloc(natts * sizeof(bool));
	int			column = 0;
	bool		null;

	memset(isnull, true, natts * sizeof(bool));
	for (int k = 0; k < t->nkeys; k++)
		values[t->keyattnums[k] - 1] = SPI_getbinval(tuple, desc, ++column,
													 &isnull[t->keyattnums[k] - 1]);
	if (esync_stream_lookup(lookup, esync_encode_key(t->key, values, isnull)))
		return;
	for (int i = 0; i < t->ncolumns; i++)
	{
		AttrNumber	attnum = t->columns[i].attnum;

		a->nulls[attnum - 1] = true;
		if (!a->shown[i])
			continue;
		a->values[attnum - 1] = SPI_getbinval(tuple, desc, ++column, &null);
		a->nulls[attnum - 1] = null;
	}
	tuplestore_putvalues(a->rsinfo->setResult, a->rsinfo->setDesc, a->values, a->nulls);
}

/*
 * The rows without any event, which have been as they are since ever, read
 * from the table as the caller.
 */
static void
put_untold_rows(AsOf *a, EsyncTracked *t)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "esync as of row",
											  ALLOCSET_DEFAULT_SIZES);
	EsyncLookup *lookup = esync_stream_lookup_begin(t, GetActiveSnapshot());
	Portal		portal;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	portal = SPI_cursor_open_with_args(NULL, esync_rights_query(t, as_of_columns(a, t), false),
									   0, NULL, NULL, NULL, true, 0);
	for (SPI_cursor_fetch(portal, true, 1000); SPI_processed > 0;
		 SPI_cursor_fetch(portal, true, 1000))
	{
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(row);

			put_untold(a, t, lookup, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	esync_stream_lookup_end(lookup);
	MemoryContextDelete(row);
}

/* Error context: which row and column of the past did not fit the present type. */
static void
as_of_context(void *arg)
{
	AsOf	   *a = arg;

	if (a->field)
		errcontext("column \"%s\" of aggregate \"%s\", as esync_as_of makes it a row of now",
				   a->field, text_to_cstring(a->aggregate_id));
}

/* The tracked table whose row type the first argument has; 42804 if it has none. */
static EsyncTracked *
table_of_argument(FunctionCallInfo fcinfo)
{
	Oid			typid = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(typid) ? get_typ_typrelid(typid) : InvalidOid;

	if (!OidIsValid(relid) || get_rel_name(relid) == NULL ||
		get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type %s is not the row type of a table",
						OidIsValid(typid) ? format_type_be(typid) : "unknown"),
				 errhint("Name the table by a value of its row type, such as NULL::schema.name.")));
	return esync_tracked_need(relid);
}

/*
 * esync_as_of(tbl, as_of, known_at): all rows that were there.  Columns that
 * are excluded, masked, generated, or not the caller's to read are NULL.
 */
Datum
esync_as_of(PG_FUNCTION_ARGS)
{
	EsyncTracked *t = table_of_argument(fcinfo);
	EsyncBounds bounds = {bound_argument(fcinfo, 1), bound_argument(fcinfo, 2), false};
	AsOf		a;
	ErrorContextCallback context;
	int			natts;

	esync_rights_read(t, &a.rights);
	bounds.present_life = a.rights.rls;
	InitMaterializedSRF(fcinfo, 0);
	a.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	natts = a.rsinfo->setDesc->natts;
	a.values = palloc0(natts * sizeof(Datum));
	a.nulls = palloc(natts * sizeof(bool));
	memset(a.nulls, true, natts * sizeof(bool));
	a.shown = palloc(Max(t->ncolumns, 1) * sizeof(bool));
	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncField *f = &t->fields[t->columns[i].field];

		a.shown[i] = !f->masked && t->columns[i].attnum <= natts && esync_rights_field(&a.rights, f);
	}
	a.t = t;
	a.s.earliest = DT_NOEND;
	a.s.as_of = bounds.as_of;
	a.s.whole = false;
	a.field = NULL;
	context.callback = as_of_context;
	context.arg = &a;
	context.previous = error_context_stack;
	error_context_stack = &context;
	put_folds(&a, &bounds);
	error_context_stack = context.previous;
	if (esync_rights_key(t, &a.rights))
		put_untold_rows(&a, t);
	return (Datum) 0;
}
