/*
 * esync_event.h: the stream's table as store.c writes and stream.c reads it,
 * and what stream.c and merge.c offer beyond the prototypes in esync.h.
 *
 * The column order of esync.event is frozen; every leaf has the same.
 */
#ifndef ESYNC_EVENT_H
#define ESYNC_EVENT_H

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

#include "esync.h"

/* attribute numbers of esync.event */
typedef enum EsyncEventAttr
{
	ESYNC_ATTR_EVENT_ID = 1,
	ESYNC_ATTR_XID,
	ESYNC_ATTR_VERSION,
	ESYNC_ATTR_BASE_VERSION,
	ESYNC_ATTR_BRANCH,
	ESYNC_ATTR_SUBMIT,
	ESYNC_ATTR_COMMIT,
	ESYNC_ATTR_EFFECTIVE,
	ESYNC_ATTR_EFFECTIVE_HIGH,
	ESYNC_ATTR_DEVICE_SEQ,
	ESYNC_ATTR_EPOCH,
	ESYNC_ATTR_TABLE_ID,
	ESYNC_ATTR_FLAGS,
	ESYNC_ATTR_ROW_XMIN,
	ESYNC_ATTR_EVENT_TYPE,
	ESYNC_ATTR_AGGREGATE_ID,
	ESYNC_ATTR_USER_ID,
	ESYNC_ATTR_DEVICE_ID,
	ESYNC_ATTR_DB_ROLE,
	ESYNC_ATTR_TENANT,
	ESYNC_ATTR_CLIENT_EVENT_ID,
	ESYNC_ATTR_PATCH,
	ESYNC_ATTR_PAYLOAD,
	ESYNC_ATTR_META
} EsyncEventAttr;

#define ESYNC_EVENT_NATTS		ESYNC_ATTR_META

/*
 * A bit that only stream.c sets in EsyncEvent.flags, never stored: the event
 * belongs to a former key of the aggregate, whose link was followed.  The
 * Deleted half of the move bears it too and deletes nothing then.
 */
#define ESYNC_FLAG_FOLLOWED		0x40000000

/*
 * An opened event leaf.  store.c opens, keeps and closes it; the head_ members
 * are what esync_stream_head needs: head_index as esync_stream_index finds it,
 * head_scan from index_beginscan with SnapshotSelf and one key, and
 * head_slot from table_slot_create(rel, NULL).
 */
struct EsyncLeaf
{
	Relation	rel;
	Relation	head_index;
	IndexScanDesc head_scan;
	TupleTableSlot *head_slot;
	ScanKeyData head_key;		/* filled at the first probe; zero before */
};

/* ---- stream.c */

/* "Created" and so on, as stored; a constant */
extern const char *esync_event_type_name(EsyncEventType type);
/* the reverse; XX001 if the stored text is none of them */
extern EsyncEventType esync_event_type_parse(const char *name, int len);

/* the leaf's valid unique index on (aggregate_id, version); InvalidOid if it has none */
extern Oid	esync_stream_index(Relation leaf);

/*
 * The payload of an event that stream.c gave, in flat form; NULL where none is
 * stored.  EsyncEvent.payload itself is as it stands in the tuple, maybe
 * compressed or out of line: never look into it without this.  The result
 * replaces event->payload, so a second call is free; it is allocated in the
 * current memory context, which must live as long as the event.  (patch and
 * meta are always flat.)
 */
static inline Jsonb *
esync_event_payload(EsyncEvent *event)
{
	if (event->payload != NULL && VARATT_IS_EXTENDED(event->payload))
		event->payload = (Jsonb *) detoast_attr((struct varlena *) event->payload);
	return event->payload;
}

/* what a reader wants of each event; the rest of EsyncEvent is zero or NULL */
typedef enum EsyncWant
{
	ESYNC_WANT_ALL,				/* everything */
	ESYNC_WANT_FOLD,			/* what folding needs: clocks, device, flags, patch, meta; payloads
								 * only of Created and Baseline, and of the last event that left a
								 * row where the table has last_modified columns */
	ESYNC_WANT_ROW				/* the same, and the payload of that last event in any case */
} EsyncWant;

/* esync_stream_read and esync_stream_each with a choice of what to read */
extern EsyncEvents *esync_stream_read_for(EsyncTracked *t, text *aggregate_id,
										  const EsyncBounds *bounds, Snapshot snapshot,
										  bool follow, EsyncWant want);
extern void esync_stream_each_for(EsyncTracked *t, const EsyncBounds *bounds,
								  Snapshot snapshot, EsyncWant want,
								  EsyncAggregateCallback callback, void *arg);

/*
 * The events of one aggregate one by one, newest version first, without
 * copies: what the event points to (the payload as ever in stored form) is
 * good for the time of the call, which is made in a memory context that is
 * reset after it.  index descends.  For a state, which needs few of the values
 * that ever were, this is much cheaper than a list; see esync_fold_keep.
 */
typedef void (*EsyncEventCallback) (EsyncEvent *event, int index, void *arg);
extern void esync_stream_back(EsyncTracked *t, text *aggregate_id, const EsyncBounds *bounds,
							  Snapshot snapshot, bool follow,
							  EsyncEventCallback callback, void *arg);

/* ---- merge.c */

/* from now on the fold copies the values that it keeps; events may go after each call */
extern void esync_fold_keep(EsyncFold *fold);
/* empties a fold for another aggregate of the same table; keeps what init prepared */
extern void esync_fold_reset(EsyncFold *fold);
/* the value of one field now (fill or null where never set); false: it has no register */
extern bool esync_fold_value(const EsyncFold *fold, int field, JsonbValue *value);
/* the same of a last_modified column; buffer (MAXDATELEN + 1) may come to hold the value */
extern void esync_fold_stamp_value(const EsyncFold *fold, int field, char *buffer,
								   JsonbValue *value);
/* is there a row, by the events added */
extern bool esync_fold_has_row(const EsyncFold *fold);

#endif							/* ESYNC_EVENT_H */
