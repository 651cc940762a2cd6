/*
 * stream.c: the only reader of esync.event.
 *
 * Events are read from the leaf of their table through its unique index on
 * (aggregate_id, version), without the planner, under a snapshot of the
 * caller's choice; any snapshot will do, SnapshotSelf included.  Everything
 * handed out is a copy in the caller's memory context, except that payloads
 * stay compressed or out of line until esync_event_payload is asked.
 *
 * Nothing here asks for rights: whoever calls has done so.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "esync.h"

/* one pass over a leaf's index, and the events gathered of the aggregate at hand */
typedef struct Reader
{
	EsyncTracked *t;
	EsyncBounds bounds;
	Snapshot	snapshot;
	EsyncWant	want;
	Relation	leaf;
	Relation	index_rel;
	TupleTableSlot *slot;
	TupleTableSlot *row_slot;	/* for finish_events, where it has work to do */

	EsyncEvents *events;
	int			size;			/* of events->e */
	int			row;			/* index of the last event that left a row; -1: none */
	ItemPointerData row_tid;
	int64		until;			/* only versions up to this one, and */
	int64		since;			/* beyond this one */
	MemoryContext scratch;		/* esync_stream_back: documents live here, during a call */
	EsyncEventCallback callback;
	void	   *arg;
	int			index;			/* that it was called with */
	text	   *former;			/* the aggregate that the last moved Created came from */
	int64		former_version;

	/* texts of the event before, shared by those that repeat them */
	text	   *aggregate_id;
	text	   *user_id;
	text	   *device_id;
	text	   *db_role;
	text	   *tenant;
} Reader;

static const char *const type_names[] = {
	[ESYNC_CREATED] = "Created",
	[ESYNC_UPDATED] = "Updated",
	[ESYNC_DELETED] = "Deleted",
	[ESYNC_RESTORED] = "Restored",
	[ESYNC_RESOLVED] = "Resolved",
	[ESYNC_BASELINE] = "Baseline"
};

/* The name under which a type is stored and shown. */
const char *
esync_event_type_name(EsyncEventType type)
{
	return type_names[type];
}

/* The type of that name; the stream holds no other. */
EsyncEventType
esync_event_type_parse(const char *name, int len)
{
	for (int i = 0; i < lengthof(type_names); i++)
	{
		if (strncmp(type_names[i], name, len) == 0 && type_names[i][len] == '\0')
			return (EsyncEventType) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("unknown event type \"%s\" in the event stream",
					pnstrdup(name, len))));
}

/* ------------------------------------------------------ tuple to event */

/* A column as text, the one of the event before if it is the same. */
static text *
read_text(Reader *r, int attr, text **before)
{
	struct varlena *source;
	int			len;

	if (r->slot->tts_isnull[attr - 1])
		return NULL;
	source = PG_DETOAST_DATUM_PACKED(r->slot->tts_values[attr - 1]);
	len = VARSIZE_ANY_EXHDR(source);
	if (*before == NULL || VARSIZE(*before) - VARHDRSZ != len ||
		memcmp(VARDATA(*before), VARDATA_ANY(source), len) != 0)
		*before = cstring_to_text_with_len(VARDATA_ANY(source), len);
	return *before;
}

/* A column as flat jsonb: a copy, or in scratch or in the tuple where that will do. */
static Jsonb *
read_jsonb(Reader *r, int attr)
{
	MemoryContext old;
	Jsonb	   *doc;

	if (r->slot->tts_isnull[attr - 1])
		return NULL;
	if (r->scratch == NULL)
		return (Jsonb *) PG_DETOAST_DATUM_COPY(r->slot->tts_values[attr - 1]);
	old = MemoryContextSwitchTo(r->scratch);
	doc = (Jsonb *) PG_DETOAST_DATUM(r->slot->tts_values[attr - 1]);
	MemoryContextSwitchTo(old);
	return doc;
}

/* A copy of the payload as it is stored, however that may be. */
static Jsonb *
read_payload(TupleTableSlot *slot)
{
	struct varlena *source;
	void	   *copy;

	if (slot->tts_isnull[ESYNC_ATTR_PAYLOAD - 1])
		return NULL;
	source = (struct varlena *) DatumGetPointer(slot->tts_values[ESYNC_ATTR_PAYLOAD - 1]);
	copy = palloc(VARSIZE_ANY(source));
	memcpy(copy, source, VARSIZE_ANY(source));
	return (Jsonb *) copy;
}

static EsyncEventType
read_type(TupleTableSlot *slot)
{
	Datum		value = slot->tts_values[ESYNC_ATTR_EVENT_TYPE - 1];
	struct varlena *name = PG_DETOAST_DATUM_PACKED(value);

	return esync_event_type_parse(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/* What every reader wants: places, clocks, type, device, patch and meta. */
static void
read_place(Reader *r, EsyncEvent *e)
{
	Datum	   *values = r->slot->tts_values - 1;
	bool	   *isnull = r->slot->tts_isnull - 1;

	e->event_id = DatumGetInt64(values[ESYNC_ATTR_EVENT_ID]);
	e->version = DatumGetInt64(values[ESYNC_ATTR_VERSION]);
	e->commit = DatumGetTimestampTz(values[ESYNC_ATTR_COMMIT]);
	e->effective = DatumGetTimestampTz(values[ESYNC_ATTR_EFFECTIVE]);
	e->device_seq = isnull[ESYNC_ATTR_DEVICE_SEQ] ? 0 :
		DatumGetInt64(values[ESYNC_ATTR_DEVICE_SEQ]);
	e->effective_high = DatumGetTimestampTz(values[ESYNC_ATTR_EFFECTIVE_HIGH]);
	e->row_xmin = isnull[ESYNC_ATTR_ROW_XMIN] ? InvalidTransactionId :
		DatumGetTransactionId(values[ESYNC_ATTR_ROW_XMIN]);
	e->flags = DatumGetInt32(values[ESYNC_ATTR_FLAGS]);
	e->type = read_type(r->slot);
	e->aggregate_id = read_text(r, ESYNC_ATTR_AGGREGATE_ID, &r->aggregate_id);
	e->device_id = read_text(r, ESYNC_ATTR_DEVICE_ID, &r->device_id);
	e->patch = read_jsonb(r, ESYNC_ATTR_PATCH);
	e->meta = read_jsonb(r, ESYNC_ATTR_META);
}

/* The rest: who and when. */
static void
read_author(Reader *r, EsyncEvent *e)
{
	Datum	   *values = r->slot->tts_values - 1;
	bool	   *isnull = r->slot->tts_isnull - 1;

	e->xid = DatumGetFullTransactionId(values[ESYNC_ATTR_XID]);
	e->base_version = isnull[ESYNC_ATTR_BASE_VERSION] ? 0 :
		DatumGetInt64(values[ESYNC_ATTR_BASE_VERSION]);
	e->branch = DatumGetTimestampTz(values[ESYNC_ATTR_BRANCH]);
	e->submit = DatumGetTimestampTz(values[ESYNC_ATTR_SUBMIT]);
	e->epoch = DatumGetInt32(values[ESYNC_ATTR_EPOCH]);
	e->table_id = DatumGetInt32(values[ESYNC_ATTR_TABLE_ID]);
	e->user_id = read_text(r, ESYNC_ATTR_USER_ID, &r->user_id);
	e->db_role = read_text(r, ESYNC_ATTR_DB_ROLE, &r->db_role);
	e->tenant = read_text(r, ESYNC_ATTR_TENANT, &r->tenant);
	if (!isnull[ESYNC_ATTR_CLIENT_EVENT_ID])
	{
		e->client_event_id = palloc(sizeof(pg_uuid_t));
		memcpy(e->client_event_id, DatumGetUUIDP(values[ESYNC_ATTR_CLIENT_EVENT_ID]),
			   sizeof(pg_uuid_t));
	}
}

/* The event in a slot, all of it; for leaf.c, which finds events by their order. */
void
esync_stream_event(TupleTableSlot *slot, EsyncEvent *event)
{
	Reader		r = {.slot = slot};

	memset(event, 0, sizeof(EsyncEvent));
	read_place(&r, event);
	read_author(&r, event);
	event->payload = read_payload(slot);
}

/* --------------------------------------------------------- gathering */

/*
 * Takes note of where a moved row came from: meta {"moved_from": {...}}.  The
 * last such event counts; a list is read up to it, backwards it comes first.
 */
static void
note_link(Reader *r, Jsonb *meta)
{
	JsonbValue	link;
	JsonbValue	id;
	JsonbValue	version;

	if (r->scratch != NULL && r->former != NULL)
		return;
	if (meta == NULL || !esync_json_member(&meta->root, "moved_from", 10, &link) ||
		link.type != jbvBinary ||
		!esync_json_member(link.val.binary.data, "aggregate_id", 12, &id) ||
		!esync_json_member(link.val.binary.data, "version", 7, &version) ||
		id.type != jbvString || version.type != jbvNumeric)
		return;
	r->former = cstring_to_text_with_len(id.val.string.val, id.val.string.len);
	r->former_version =
		DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(version.val.numeric)));
}

/* Room for one event more, zeroed. */
static EsyncEvent *
next_event(Reader *r)
{
	EsyncEvents *events = r->events;

	if (events->n == r->size)
	{
		r->size *= 2;
		events->e = repalloc_huge(events->e, (Size) r->size * sizeof(EsyncEvent));
	}
	memset(&events->e[events->n], 0, sizeof(EsyncEvent));
	return &events->e[events->n++];
}

/* Does the event leave a row in the table (as far as it says itself)? */
static bool
leaves_row(const EsyncEvent *e)
{
	if (e->flags & ESYNC_FLAG_NO_ROW)
		return false;
	if (e->type == ESYNC_DELETED)
		return esync_json_count(&e->patch->root) > 0;
	if (e->type == ESYNC_RESOLVED)
		return e->row_xmin != InvalidTransactionId;
	return true;
}

/*
 * Looks at the slot's event: is it within bounds?  Where it is the Created
 * half of a move, its link is noted in any case.
 */
static bool
is_wanted(Reader *r)
{
	TupleTableSlot *slot = r->slot;
	Datum	   *values = slot->tts_values - 1;

	slot_getsomeattrs(slot, ESYNC_ATTR_FLAGS);
	if (DatumGetInt64(values[ESYNC_ATTR_VERSION]) > r->until ||
		DatumGetInt64(values[ESYNC_ATTR_VERSION]) <= r->since)
		return false;
	if (DatumGetInt32(values[ESYNC_ATTR_FLAGS]) & ESYNC_FLAG_MOVED)
	{
		slot_getallattrs(slot);
		if (read_type(slot) == ESYNC_CREATED)
			note_link(r, read_jsonb(r, ESYNC_ATTR_META));
	}
	if (DatumGetTimestampTz(values[ESYNC_ATTR_EFFECTIVE]) == DT_NOBEGIN)
		return true;			/* the ground was known before it was written down */
	return DatumGetTimestampTz(values[ESYNC_ATTR_EFFECTIVE]) <= r->bounds.as_of &&
		DatumGetTimestampTz(values[ESYNC_ATTR_COMMIT]) <= r->bounds.known_at;
}

/* Adds the slot's event to the list, if it is wanted. */
static void
gather(Reader *r)
{
	TupleTableSlot *slot = r->slot;
	EsyncEvent *e;

	if (!is_wanted(r))
		return;
	slot_getsomeattrs(slot, ESYNC_EVENT_NATTS);
	e = next_event(r);
	read_place(r, e);
	if (r->want == ESYNC_WANT_ALL || r->want == ESYNC_WANT_EDITS)
		read_author(r, e);
	if (r->want == ESYNC_WANT_ALL || e->type == ESYNC_CREATED || e->type == ESYNC_BASELINE)
		e->payload = read_payload(slot);
	if (leaves_row(e))
	{
		r->row = r->events->n - 1;
		r->row_tid = slot->tts_tid;
	}
}

/* An empty list in the current context, and nothing remembered of former events. */
static void
start_events(Reader *r)
{
	r->size = 16;
	r->events = palloc0(sizeof(EsyncEvents));
	r->events->n = 0;
	r->events->e = palloc(r->size * sizeof(EsyncEvent));
	r->row = -1;
	r->former = NULL;
	r->aggregate_id = r->user_id = r->device_id = r->db_role = r->tenant = NULL;
}

/*
 * The fold takes last_modified columns from the payload of the last event that
 * left a row.  That one is read afterwards, so that nobody copies all others.
 */
static void
finish_events(Reader *r)
{
	EsyncEvent *e;

	if (r->row_slot == NULL || r->row < 0)
		return;
	e = &r->events->e[r->row];
	if (e->payload != NULL ||
		!table_tuple_fetch_row_version(r->leaf, &r->row_tid, r->snapshot, r->row_slot))
		return;
	slot_getsomeattrs(r->row_slot, ESYNC_ATTR_PAYLOAD);
	e->payload = read_payload(r->row_slot);
	ExecClearTuple(r->row_slot);
}

/* Opens the leaf and its index; the event table without it is of no use to anyone. */
static void
open_reader(Reader *r, EsyncTracked *t, const EsyncBounds *bounds, Snapshot snapshot,
			EsyncWant want)
{
	Oid			indexid;

	memset(r, 0, sizeof(*r));
	r->t = t;
	r->bounds.as_of = bounds ? bounds->as_of : DT_NOEND;
	r->bounds.known_at = bounds ? bounds->known_at : DT_NOEND;
	r->snapshot = snapshot;
	r->want = want;
	r->until = PG_INT64_MAX;
	r->bounds.present_life = bounds && bounds->present_life;
	r->leaf = table_open(t->leaf, AccessShareLock);
	indexid = esync_leaf_index(r->leaf);
	if (!OidIsValid(indexid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event table \"%s\" lacks its unique index on (aggregate_id, version)",
						RelationGetRelationName(r->leaf)),
				 errhint("Create it again as a unique btree index, or REINDEX the invalid one.")));
	r->index_rel = index_open(indexid, AccessShareLock);
	r->slot = table_slot_create(r->leaf, NULL);
	if (want == ESYNC_WANT_ROW || (want == ESYNC_WANT_FOLD && t->nstamps > 0))
		r->row_slot = table_slot_create(r->leaf, NULL);
}

static void
close_reader(Reader *r)
{
	if (r->row_slot)
		ExecDropSingleTupleTableSlot(r->row_slot);
	ExecDropSingleTupleTableSlot(r->slot);
	index_close(r->index_rel, AccessShareLock);
	table_close(r->leaf, AccessShareLock);
}

/* ------------------------------------------------------ one aggregate */

/* Where a key's scan begins; the caller ends it. */
static IndexScanDesc
begin_key_scan(Reader *r, text *aggregate_id)
{
	IndexScanDesc scan = index_beginscan(r->leaf, r->index_rel, r->snapshot, NULL, 1, 0);
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(aggregate_id));
	index_rescan(scan, &key, 1, NULL, 0);
	return scan;
}

/*
 * Sets since to the last version before `below` that left no row: what came
 * before was another life, of a row that a caller under row policies need not
 * be allowed to see.  Bounds play no part.
 */
static void
find_present_life(Reader *r, text *aggregate_id, int64 below)
{
	IndexScanDesc scan;

	r->since = 0;
	if (!r->bounds.present_life)
		return;
	scan = begin_key_scan(r, aggregate_id);
	while (r->since == 0 && index_getnext_slot(scan, BackwardScanDirection, r->slot))
	{
		Datum	   *values = r->slot->tts_values - 1;
		int64		version;

		slot_getsomeattrs(r->slot, ESYNC_ATTR_ROW_XMIN);
		version = DatumGetInt64(values[ESYNC_ATTR_VERSION]);
		if (version < below &&
			(DatumGetInt32(values[ESYNC_ATTR_FLAGS]) & ESYNC_FLAG_DELETED) &&
			DatumGetTransactionId(values[ESYNC_ATTR_ROW_XMIN]) == InvalidTransactionId)
			r->since = version;
	}
	index_endscan(scan);
	ExecClearTuple(r->slot);
}

/* Reads the versions of one aggregate up to r->until into a new list. */
static EsyncEvents *
read_aggregate(Reader *r, text *aggregate_id)
{
	IndexScanDesc scan;

	find_present_life(r, aggregate_id, r->until);
	scan = begin_key_scan(r, aggregate_id);
	start_events(r);
	while (index_getnext_slot(scan, ForwardScanDirection, r->slot))
	{
		CHECK_FOR_INTERRUPTS();
		gather(r);
	}
	index_endscan(scan);
	finish_events(r);
	ExecClearTuple(r->slot);
	return r->events;
}

/* Puts the events of a former key before those that are there, and marks them. */
static EsyncEvents *
join_events(EsyncEvents *former, EsyncEvents *later)
{
	EsyncEvents *joined = palloc0(sizeof(EsyncEvents));
	Size		bytes = (Size) Max(former->n + later->n, 1) * sizeof(EsyncEvent);

	joined->n = former->n + later->n;
	joined->e = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	memcpy(joined->e, former->e, former->n * sizeof(EsyncEvent));
	memcpy(joined->e + former->n, later->e, later->n * sizeof(EsyncEvent));
	for (int i = 0; i < former->n; i++)
		joined->e[i].flags |= ESYNC_FLAG_FOLLOWED;
	return joined;
}

static bool
was_visited(List *visited, text *aggregate_id)
{
	ListCell   *cell;

	foreach(cell, visited)
	{
		text	   *other = (text *) lfirst(cell);

		if (VARSIZE_ANY_EXHDR(other) == VARSIZE_ANY_EXHDR(aggregate_id) &&
			memcmp(VARDATA_ANY(other), VARDATA_ANY(aggregate_id),
				   VARSIZE_ANY_EXHDR(other)) == 0)
			return true;
	}
	return false;
}

/* A key that was left and taken again: its events and those in between, as they came. */
static int
event_id_cmp(const void *a, const void *b)
{
	int64		x = ((const EsyncEvent *) a)->event_id;
	int64		y = ((const EsyncEvent *) b)->event_id;

	return x < y ? -1 : x > y;
}

/*
 * Reads one aggregate; with follow, what its row was under former keys too.
 * A link is followed although its own event lies beyond the bounds: the row
 * was there under its former key.  Each key is visited once, which ends circles
 * (a row that got an old key back has that key's events in its own list).
 */
EsyncEvents *
esync_stream_read(EsyncTracked *t, text *aggregate_id, const EsyncBounds *bounds,
					  Snapshot snapshot, bool follow, EsyncWant want)
{
	Reader		r;
	EsyncEvents *events;
	List	   *visited = NIL;

	open_reader(&r, t, bounds, snapshot, want);
	events = read_aggregate(&r, aggregate_id);
	while (follow && r.former != NULL)
	{
		text	   *former = r.former;

		visited = lappend(visited, aggregate_id);
		if (was_visited(visited, former))
			break;
		r.until = r.former_version;
		aggregate_id = former;
		events = join_events(read_aggregate(&r, former), events);
	}
	close_reader(&r);
	if (visited != NIL && events->n > 1)
		qsort(events->e, events->n, sizeof(EsyncEvent), event_id_cmp);
	return events;
}

/*
 * The last events of one aggregate up to the one at which `stop` says so, that
 * one included, as a list of copies in ascending version.  `stop` can see of
 * each whether it has a payload; in the list the one at which it ended has
 * one, those that made or found the row, and all where the fold needs them.
 */
EsyncEvents *
esync_stream_since(EsyncTracked *t, text *aggregate_id, Snapshot snapshot,
				   EsyncEventCallback stop, void *arg)
{
	Reader		r;
	EsyncEvents *events;
	IndexScanDesc scan;
	bool		more = true;

	open_reader(&r, t, NULL, snapshot, t->nstamps > 0 ? ESYNC_WANT_ALL : ESYNC_WANT_EDITS);
	scan = begin_key_scan(&r, aggregate_id);
	start_events(&r);
	while (more && index_getnext_slot(scan, BackwardScanDirection, r.slot))
	{
		EsyncEvent *e;
		bool		left_out;

		CHECK_FOR_INTERRUPTS();
		gather(&r);
		e = &r.events->e[r.events->n - 1];
		left_out = e->payload == NULL && !r.slot->tts_isnull[ESYNC_ATTR_PAYLOAD - 1];
		if (left_out)
			e->payload = (Jsonb *) DatumGetPointer(r.slot->tts_values[ESYNC_ATTR_PAYLOAD - 1]);
		more = !stop(e, r.events->n - 1, arg);
		if (left_out)
			e->payload = more ? NULL : read_payload(r.slot);
	}
	index_endscan(scan);
	ExecClearTuple(r.slot);
	close_reader(&r);
	events = r.events;
	for (int i = 0, k = events->n - 1; i < k; i++, k--)
	{
		EsyncEvent	e = events->e[i];

		events->e[i] = events->e[k];
		events->e[k] = e;
	}
	return events;
}

/* Hands the slot's event to the callback, as it lies in the tuple; false: enough. */
static bool
hand_out(Reader *r, int flags)
{
	EsyncEvent	e = {0};
	MemoryContext old;
	bool		more;

	if (!is_wanted(r))
		return true;
	slot_getsomeattrs(r->slot, ESYNC_EVENT_NATTS);
	read_place(r, &e);
	e.flags |= flags;
	if (!r->slot->tts_isnull[ESYNC_ATTR_PAYLOAD - 1])
		e.payload = (Jsonb *) DatumGetPointer(r->slot->tts_values[ESYNC_ATTR_PAYLOAD - 1]);
	old = MemoryContextSwitchTo(r->scratch);
	more = r->callback(&e, --r->index, r->arg);
	MemoryContextSwitchTo(old);
	return more;
}

/* The versions of one aggregate up to r->until, the last one first. */
static void
scan_back(Reader *r, text *aggregate_id, int flags)
{
	IndexScanDesc scan;

	find_present_life(r, aggregate_id, r->until);
	scan = begin_key_scan(r, aggregate_id);
	r->former = NULL;
	while (index_getnext_slot(scan, BackwardScanDirection, r->slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!hand_out(r, flags))
		{
			r->former = NULL;
			break;
		}
		MemoryContextReset(r->scratch);
	}
	index_endscan(scan);
	ExecClearTuple(r->slot);
}

/* Reads one aggregate newest first; see esync.h.  Links are followed as in a list. */
void
esync_stream_back(EsyncTracked *t, text *aggregate_id, const EsyncBounds *bounds,
				  Snapshot snapshot, bool follow, EsyncEventCallback callback, void *arg)
{
	Reader		r;
	List	   *visited = NIL;

	open_reader(&r, t, bounds, snapshot, ESYNC_WANT_ALL);
	r.scratch = AllocSetContextCreate(CurrentMemoryContext, "esync event",
									  ALLOCSET_DEFAULT_SIZES);
	r.callback = callback;
	r.arg = arg;
	r.index = PG_INT32_MAX;
	scan_back(&r, aggregate_id, 0);
	while (follow && r.former != NULL)
	{
		visited = lappend(visited, aggregate_id);
		if (was_visited(visited, r.former))
			break;
		aggregate_id = r.former;
		r.until = r.former_version;
		scan_back(&r, aggregate_id, ESYNC_FLAG_FOLLOWED);
	}
	MemoryContextDelete(r.scratch);
	close_reader(&r);
}

/* ----------------------------------------------------- all aggregates */

/* Is the slot's event of another aggregate than the one at hand? */
static bool
begins_aggregate(Reader *r, text *current)
{
	struct varlena *id;

	slot_getsomeattrs(r->slot, ESYNC_ATTR_AGGREGATE_ID);
	id = PG_DETOAST_DATUM_PACKED(r->slot->tts_values[ESYNC_ATTR_AGGREGATE_ID - 1]);
	return current == NULL ||
		VARSIZE_ANY_EXHDR(id) != VARSIZE(current) - VARHDRSZ ||
		memcmp(VARDATA_ANY(id), VARDATA(current), VARSIZE_ANY_EXHDR(id)) != 0;
}

/* The version after which the present life of one aggregate began. */
int64
esync_stream_life(EsyncTracked *t, text *aggregate_id, Snapshot snapshot)
{
	EsyncBounds bounds = {DT_NOEND, DT_NOEND, true};
	Reader		r;

	open_reader(&r, t, &bounds, snapshot, ESYNC_WANT_ALL);
	find_present_life(&r, aggregate_id, PG_INT64_MAX);
	close_reader(&r);
	return r.since;
}

/*
 * Reads the whole leaf in the order of its index, one aggregate at a time.
 * Events, aggregate_id and whatever the callback allocates live in a context
 * that is reset after the call.  An aggregate without an event within bounds
 * is passed over.
 */
void
esync_stream_each(EsyncTracked *t, const EsyncBounds *bounds, Snapshot snapshot,
					  EsyncWant want, EsyncAggregateCallback callback, void *arg)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync aggregate",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = CurrentMemoryContext;
	text	   *current = NULL;
	IndexScanDesc scan;
	Reader		r;

	open_reader(&r, t, bounds, snapshot, want);
	scan = index_beginscan(r.leaf, r.index_rel, snapshot, NULL, 0, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	for (;;)
	{
		bool		more = index_getnext_slot(scan, ForwardScanDirection, r.slot);

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(cxt);
		if (!more || begins_aggregate(&r, current))
		{
			if (current != NULL && r.events->n > 0)
			{
				finish_events(&r);
				callback(t, current, r.events, arg);
				MemoryContextSwitchTo(cxt);
			}
			if (!more)
				break;
			MemoryContextReset(cxt);
			start_events(&r);
			current = read_text(&r, ESYNC_ATTR_AGGREGATE_ID, &r.aggregate_id);
			r.since = bounds && bounds->present_life ? esync_stream_life(t, current, snapshot) : 0;
		}
		gather(&r);
		MemoryContextSwitchTo(outer);
	}
	MemoryContextSwitchTo(outer);
	index_endscan(scan);
	close_reader(&r);
	MemoryContextDelete(cxt);
}

/* The texts shared by events are about to go. */
static void
forget_texts(Reader *r)
{
	r->aggregate_id = r->user_id = r->device_id = r->db_role = r->tenant = NULL;
}

/* The aggregate that the index entry at hand belongs to. */
static text *
entry_aggregate(IndexScanDesc scan)
{
	bool		isnull;

	return (text *) PG_DETOAST_DATUM_PACKED(index_getattr(scan->xs_itup, 1,
														  RelationGetDescr(scan->indexRelation),
														  &isnull));
}

/* Is it the same aggregate? */
static bool
same_aggregate(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* All aggregates from the last key to the first, each newest first; see esync.h. */
void
esync_stream_each_back(EsyncTracked *t, const EsyncBounds *bounds, Snapshot snapshot,
					   MemoryContext cxt, EsyncEventCallback event, EsyncEndCallback end,
					   void *arg)
{
	text	   *current = NULL;
	bool		more = false;
	IndexScanDesc scan;
	Reader		r;

	open_reader(&r, t, bounds, snapshot, ESYNC_WANT_ALL);
	r.scratch = AllocSetContextCreate(CurrentMemoryContext, "esync event",
									  ALLOCSET_DEFAULT_SIZES);
	r.callback = event;
	r.arg = arg;
	r.index = PG_INT32_MAX;
	scan = index_beginscan(r.leaf, r.index_rel, snapshot, NULL, 0, 0);
	scan->xs_want_itup = true;
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_tid(scan, BackwardScanDirection) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(r.scratch);
		text	   *id = entry_aggregate(scan);

		CHECK_FOR_INTERRUPTS();
		if (current == NULL || !same_aggregate(current, id))
		{
			MemoryContextSwitchTo(cxt);
			if (current != NULL)
				end(current, arg);
			MemoryContextReset(cxt);
			forget_texts(&r);
			current = cstring_to_text_with_len(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id));
			more = true;
		}
		MemoryContextSwitchTo(cxt);
		if (more && index_fetch_heap(scan, r.slot))
			more = hand_out(&r, 0);
		MemoryContextSwitchTo(old);
		MemoryContextReset(r.scratch);
	}
	if (current != NULL)
		end(current, arg);
	index_endscan(scan);
	MemoryContextDelete(r.scratch);
	close_reader(&r);
}

/* ------------------------------------------------------------- one question */

struct EsyncLookup
{
	Reader		reader;
	IndexScanDesc scan;
	MemoryContext cxt;			/* of the scan */
};

/* Opens the stream of a table for esync_stream_lookup, in the current context. */
EsyncLookup *
esync_stream_lookup_begin(EsyncTracked *t, Snapshot snapshot)
{
	EsyncLookup *l = palloc(sizeof(EsyncLookup));

	l->cxt = CurrentMemoryContext;
	open_reader(&l->reader, t, NULL, snapshot, ESYNC_WANT_ALL);
	l->scan = index_beginscan(l->reader.leaf, l->reader.index_rel, snapshot, NULL, 1, 0);
	return l;
}

/* Has the aggregate any event? */
bool
esync_stream_lookup(EsyncLookup *l, text *aggregate_id)
{
	MemoryContext old = MemoryContextSwitchTo(l->cxt);	/* btree keeps what it allocates */
	ScanKeyData key;
	bool		found;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(aggregate_id));
	index_rescan(l->scan, &key, 1, NULL, 0);
	found = index_getnext_slot(l->scan, ForwardScanDirection, l->reader.slot);
	ExecClearTuple(l->reader.slot);
	MemoryContextSwitchTo(old);
	return found;
}

/* Closes it. */
void
esync_stream_lookup_end(EsyncLookup *l)
{
	index_endscan(l->scan);
	close_reader(&l->reader);
}
