/*
 * esync_rooms.h: prototypes per file, in flow order.  (Folded into esync.h.)
 */
#ifndef ESYNC_ROOMS_H
#define ESYNC_ROOMS_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

#include "esync_json.h"
#include "esync_encode.h"

/* esync.c */
extern bool esync_enabled;			/* esync.enabled */
extern int	esync_clock_tolerance;	/* esync.clock_tolerance, ms */

/* ---- capture.c */
extern void esync_capture_init(void);
/* a Baseline for every row of a table just enabled; the caller holds its lock */
extern void esync_capture_baseline(Oid relid);

/* ---- pending.c: what a transaction remembers between row triggers */
typedef struct EsyncMove		/* a row on its way between partitions */
{
	Oid			relid;			/* the leaf it left */
	int			depth;			/* of triggers */
	HeapTuple	tuple;			/* as it was, header included */
	SubTransactionId subid;
} EsyncMove;

extern void esync_pending_init(void);
extern void esync_pending_move(Oid relid, int depth, HeapTuple tuple);
/* the move waiting for its other half, taken out; NULL if none */
extern EsyncMove *esync_pending_take_move(void);
extern const EsyncMove *esync_pending_peek_move(void);
/* a key found written again before its row's own deletion was told; version of the Deleted */
extern void esync_pending_vanish(Oid root, text *aggregate_id, TransactionId xmin, int64 version);
/* the same taken out; 0 if none */
extern int64 esync_pending_take_vanished(Oid root, text *aggregate_id, TransactionId xmin);
/* a tuple whose event was written before its own trigger ran */
extern void esync_pending_caught(Oid relid, ItemPointer tid);
extern bool esync_pending_take_caught(Oid relid, ItemPointer tid);

/* ---- lineage.c: fields through renames and restores */
extern Oid	esync_relation_oid(const char *name);
extern int	esync_relnatts(Oid relid);
extern void esync_side_insert(const char *relname, Datum *values, bool *nulls);
extern int32 esync_epoch(void);
extern void esync_epoch_record(void);
extern EsyncField *esync_lineage_load(int32 table_id, Oid root, int *nfields, bool *unrecorded);
extern void esync_lineage_record(EsyncTracked *t, int64 event_id);
extern void esync_lineage_forget(void);
/* index into fields of what `name` meant at event_id (PG_INT64_MAX: now); -1 if nothing */
extern int	esync_field_at(const EsyncField *fields, int nfields,
						   const char *name, int namelen, int64 event_id);

/* ---- tracked.c: plans */
extern void esync_tracked_init(void);
extern void esync_tracked_undo_on_abort(void);
/* the plan of a tracked table or a leaf of one; NULL where it is not tracked */
extern EsyncTracked *esync_tracked_get(Oid relid);
/* the same of a tracked table named by a user; YS001 where it is not tracked */
extern EsyncTracked *esync_tracked_need(Oid relid);

/* ---- key.c: aggregate ids */
/* canonical aggregate_id of a key given as any type or as text; values[] (nkeys) if not NULL
 * takes the key as datums of the key columns' types.  22023 / 22P02 if it does not fit. */
extern text *esync_key_from_any(EsyncTracked *t, Datum arg, Oid argtype, Datum *values);
extern text *esync_key_from_text(EsyncTracked *t, text *arg, Datum *values);
/* {"block_id": "..."} of an aggregate_id */
extern Jsonb *esync_key_object(EsyncTracked *t, text *aggregate_id);

/* ---- rights.c: who may */
typedef struct EsyncRights
{
	bool		all;			/* every column of the table may be read */
	bool		table_wide;		/* SELECT on the table itself (columns that are gone) */
	bool		rls;			/* row policies apply to the caller */
	Bitmapset  *columns;		/* attnums of the root that may be read, where not all */
} EsyncRights;

extern void esync_rights_owner(Oid relid);
/* what the caller may read of t; 42501 if not a single column */
extern void esync_rights_read(EsyncTracked *t, EsyncRights *rights);
extern bool esync_rights_field(const EsyncRights *rights, const EsyncField *field);
/* is there a row with this key that the caller sees (its grants and policies) */
extern bool esync_rights_row(EsyncTracked *t, const Datum *values);
/* patch or payload without the fields that the caller may not read; NULL stays NULL */
extern Jsonb *esync_rights_filter(EsyncTracked *t, const EsyncRights *rights,
								  Jsonb *doc, bool is_patch, int64 event_id);

/* ---- context.c */
extern void esync_context_init(void);
extern uint64 esync_context_generation;	/* moves when the last result of get is void */
extern const EsyncContext *esync_context_get(void);

/* ---- store.c: the only writer */
typedef struct EsyncLeaf EsyncLeaf;	/* an opened event leaf */
typedef struct EsyncHead EsyncHead;

extern void esync_store_init(void);
extern void esync_store_close_all(void);
extern EsyncLeaf *esync_store_open(EsyncTracked *t, MemoryContext cxt, EsyncLeaf **keep);
extern void esync_store_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head);
extern int64 esync_store_next_id(EsyncTracked *t);
extern void esync_store_put(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e);

/* ---- stream.c: the only reader */
struct EsyncHead				/* the last event of an aggregate */
{
	bool		found;
	int64		version;
	int64		event_id;
	TimestampTz commit;
	TimestampTz effective_high;
	TransactionId row_xmin;
	int32		flags;
};

extern void esync_stream_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head);

typedef struct EsyncEvents
{
	int			n;
	EsyncEvent *e;				/* ascending version; a followed link's events first */
} EsyncEvents;

/* bounds of a reading; DT_NOEND where unbounded */
typedef struct EsyncBounds
{
	TimestampTz as_of;			/* effective_timestamp <= as_of (Baseline ground always) */
	TimestampTz known_at;		/* commit_timestamp <= known_at */
} EsyncBounds;

/*
 * All events of one aggregate within bounds, detoasted, in the current memory
 * context.  Follows the link of a changed key backwards where follow is set:
 * events of the former key up to the move stand before, the move's Deleted
 * half included.  Opens the leaf by itself (AccessShareLock), asks no rights.
 */
extern EsyncEvents *esync_stream_read(EsyncTracked *t, text *aggregate_id,
									  const EsyncBounds *bounds, Snapshot snapshot, bool follow);
/* calls back once per aggregate of the table, its events in ascending version, in a
 * memory context that is reset after each call */
typedef void (*EsyncAggregateCallback) (EsyncTracked *t, text *aggregate_id,
										EsyncEvents *events, void *arg);
extern void esync_stream_each(EsyncTracked *t, const EsyncBounds *bounds, Snapshot snapshot,
							  EsyncAggregateCallback callback, void *arg);

/* ---- merge.c: registers and fold */
typedef struct EsyncFold
{
	const EsyncField *fields;
	int			nfields;
	EsyncRegister *registers;	/* one a field */
	bool		known;			/* any event was added */
	bool		deleted;		/* what the delete register says */
	bool		gone;			/* deleted by a hard delete: no row at all */
	EsyncStamp	deleted_stamp;
	int64		row_version;	/* highest version added that left a row, and */
	EsyncEvent *row_event;		/* that event: last_modified columns come from it */
	int			tombstone_field;
} EsyncFold;

extern void esync_fold_init(EsyncFold *fold, const EsyncField *fields, int nfields,
							int tombstone_field);
extern void esync_fold_add(EsyncFold *fold, EsyncEvent *event, int index);
/* the row that the registers say; masked columns only with_masked (as "***"); NULL when gone */
extern Jsonb *esync_fold_state(EsyncFold *fold, bool with_masked);
extern int	esync_stamp_cmp(const EsyncStamp *a, const EsyncStamp *b);
extern EsyncStamp esync_event_stamp(const EsyncEvent *event);

/* ---- replay.c: state at a point */
/* what the table's row ought to hold now, by all events; NULL: no event, or gone */
extern Jsonb *esync_replay_now(EsyncTracked *t, text *aggregate_id, Snapshot snapshot,
							   bool *known, bool *deleted);

#endif							/* ESYNC_ROOMS_H */
