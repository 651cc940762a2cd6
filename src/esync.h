/*
 * esync.h: the structs that cross rooms, then the prototypes of each room in
 * the order in which data flows through them.
 *
 *   a row changes:    capture -> tracked -> encode -> store
 *   someone reads:    stream -> paths -> fold -> replay | history | graph
 *   someone follows:  cursor -> changes -> run -> leaf -> effect
 *   an edit arrives:  submit -> apply -> merge -> the table -> capture -> conflict
 *
 * json, encode, paths and fold call nothing of esync but json (paths: its tree and diff).  store.c alone
 * writes esync.event, stream.c and leaf.c alone read it.  What is shared by a few files
 * only stands in coder.h (encode), paths.h (fold, merge) and history.h (history).
 */
#ifndef ESYNC_H
#define ESYNC_H

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/transam.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "compat.h"
#include "json.h"

/* SQLSTATEs of esync's own class YS; docs/reference.md lists them */
#define ERRCODE_ESYNC_NOT_TRACKED		MAKE_SQLSTATE('Y','S','0','0','1')
#define ERRCODE_ESYNC_NO_KEY			MAKE_SQLSTATE('Y','S','0','0','2')
#define ERRCODE_ESYNC_CONFIGURATION		MAKE_SQLSTATE('Y','S','0','0','3')
#define ERRCODE_ESYNC_VERSION			MAKE_SQLSTATE('Y','S','0','0','4')
#define ERRCODE_ESYNC_CONFLICT			MAKE_SQLSTATE('Y','S','0','0','5')

/* names of esync's triggers: the first sorts before RI_..., the last after all */
#define ESYNC_TRIGGER_CAPTURE	"0_esync_capture"
#define ESYNC_TRIGGER_TRUNCATE	"0_esync_truncate"
#define ESYNC_TRIGGER_MERGE		"0_esync_merge"
#define ESYNC_TRIGGER_STAMP		"~_esync_stamp"

/* what stands for the value of a masked column */
#define ESYNC_MASK				"***"

/* in payload mode 'changes' every so manieth version carries the whole row */
#define ESYNC_FULL_EVERY		64

/* ------------------------------------------------------------------ events */

typedef enum EsyncEventType
{
	ESYNC_CREATED,
	ESYNC_UPDATED,
	ESYNC_DELETED,
	ESYNC_RESTORED,
	ESYNC_RESOLVED,
	ESYNC_BASELINE
} EsyncEventType;

/* bits of esync.event.flags */
#define ESYNC_FLAG_DELETED		0x0001	/* after this event the aggregate is deleted */
#define ESYNC_FLAG_NO_ROW		0x0002	/* the event changed no row of the table */
#define ESYNC_FLAG_CLAMPED		0x0004	/* submit lay in the future: commit time taken */
#define ESYNC_FLAG_SHIFTED		0x0008	/* submit was corrected by the clock offset */
#define ESYNC_FLAG_BUMPED		0x0010	/* effective lies after submit: the base is later */
#define ESYNC_FLAG_DRIFT		0x0020	/* a Baseline that records what happened unseen */
#define ESYNC_FLAG_MOVED		0x0040	/* half of a change of key: meta has the other */
#define ESYNC_FLAG_CONFLICT		0x0080	/* after this event the aggregate has an open conflict */
#define ESYNC_FLAG_DERIVED		0x0100	/* what the table's own triggers made of a merge */
#define ESYNC_FLAG_OVERTAKEN	0x0200	/* later edits of the same device were here before it */
#define ESYNC_FLAG_FOLLOWING	0x0400	/* a trigger or a foreign key wrote it, not the statement itself */

/*
 * One event, as store.c takes it and stream.c gives it.  A NULL pointer is
 * SQL NULL.  Timestamps are UTC microseconds; effective is DT_NOBEGIN for an
 * aggregate's first Baseline.
 */
typedef struct EsyncEvent
{
	int64		event_id;
	FullTransactionId xid;		/* top-level transaction */
	int64		version;
	int64		base_version;
	TimestampTz branch;
	TimestampTz submit;
	TimestampTz commit;
	TimestampTz effective;
	TimestampTz effective_high; /* highest effective of versions <= this one */
	int64		device_seq;		/* 0 is NULL */
	int32		epoch;
	int32		table_id;
	int32		flags;
	TransactionId row_xmin;		/* raw xmin of the tuple left; 0 if none */
	ItemPointerData row_tid;	/* where it was; (0,0) if none */
	EsyncEventType type;
	text	   *aggregate_id;
	text	   *user_id;
	text	   *device_id;
	text	   *db_role;
	text	   *tenant;
	pg_uuid_t  *client_event_id;
	Jsonb	   *patch;
	Jsonb	   *payload;
	Jsonb	   *meta;
} EsyncEvent;

/*
 * A bit that only stream.c sets in EsyncEvent.flags, never stored: the event
 * belongs to a former key of the aggregate, whose link was followed.  The
 * Deleted half of the move bears it too and deletes nothing then.
 */
#define ESYNC_FLAG_FOLLOWED		0x40000000

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
	ESYNC_ATTR_ROW_TID,
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

/* ------------------------------------ encode.c: rows and keys, as JSON and back */

/* one column as encode.c sees it */
typedef struct EsyncAttr
{
	const char *name;
	AttrNumber	attnum;			/* its place in the values array is attnum - 1 */
	Oid			typid;
	int32		typmod;
	bool		masked;			/* the value is never shown: ESYNC_MASK instead */
} EsyncAttr;

/* the prepared encoding of a list of columns; long-lived, see esync_shape_make */
typedef struct EsyncShape EsyncShape;

/* ------------------------------------------------ tracked.c: capture plans */

/* what one name of a column meant, from which event on */
typedef struct EsyncName
{
	const char *name;
	int64		from_event;
} EsyncName;

/*
 * A field: one column of a tracked table through all its renames, in this
 * life of the database and in earlier ones.  attnum 0: the column is gone.
 */
typedef struct EsyncField
{
	const char *name;			/* now, or the last one it had */
	AttrNumber	attnum;			/* in the tracked table itself */
	AttrNumber	dropped_attnum; /* the same of one that is gone from this life */
	Oid			typid;			/* InvalidOid when gone */
	int32		typmod;
	bool		recorded;		/* its present name stands in tracked_column */
	bool		generated;
	bool		excluded;		/* never recorded: by option, or generated */
	bool		masked;
	bool		stamp;			/* kept by the option last_modified */
	bool		json_merge;		/* merged path by path */
	int			group;			/* index into groups; -1: none */
	Jsonb	   *fill;			/* what rows hold that were never written since
								 * ADD COLUMN ... DEFAULT; NULL is JSON null */
	int			nnames;
	EsyncName  *names;			/* ascending from_event; an empty one: dropped */
} EsyncField;

/* a captured column of the relation at hand: the table itself or a leaf */
typedef struct EsyncColumn
{
	AttrNumber	attnum;			/* in the relation's own tuples */
	int			field;			/* index into fields */
	int			shape;			/* index in the row shape; -1: not in payloads */
	int16		attlen;
	bool		attbyval;
	bool		patched;		/* a change of it is an edit (not a stamp) */
} EsyncColumn;

/* columns that win or lose together */
typedef struct EsyncGroup
{
	char	   *name;			/* as the ledger names it */
	int			nfields;
	int		   *fields;			/* indexes into fields; living ones alone */
} EsyncGroup;

/* a column that points to another tracked table without a declared foreign key */
typedef struct EsyncLink
{
	int			field;
	Oid			parent;			/* its key has one column */
} EsyncLink;

/* a history: of a table that is tracked, or once was */
typedef struct EsyncListed
{
	int32		table_id;
	Oid			relation;		/* InvalidOid: it was dropped */
	char	   *schema_name;	/* when it was enabled or dropped */
	char	   *table_name;
} EsyncListed;

/*
 * Everything there is to know about a relation whose changes are captured,
 * or read back.  Lives in its own context until the relation, its root or
 * its configuration changes; see esync_tracked_get.
 */
typedef struct EsyncTracked
{
	Oid			relid;			/* hash key: a tracked table, or a leaf of one */
	MemoryContext cxt;

	Oid			root;			/* the tracked table */
	Oid			leaf;			/* esync.event_<table_id> */
	Oid			sequence;		/* esync.event_id_seq */
	int32		table_id;
	bool		is_root;
	char	   *broken;			/* a key column that is gone; NULL: all is well */
	bool		enabled;		/* false: history only */
	bool		payload_full;
	bool		notify;
	bool		pruned;			/* events were purged: version 1 may be gone, */
	uint64		pruned_through; /* up to this transaction */
	bool		hides;			/* some column is excluded or masked by option */
	char	   *table_name;		/* of the tracked table, for messages */
	char	   *aggregate_type;

	int64		check_from;		/* a row whose head is older is compared with the fold */

	int			nfields;		/* all fields that ever were, by attnum; gone last */
	EsyncField *fields;
	bool		unrecorded;		/* some present name is not in tracked_column yet */

	int			ncolumns;		/* captured columns, by attnum of relid */
	EsyncColumn *columns;
	EsyncShape *row;			/* whole rows of relid */
	EsyncShape *key;			/* key columns of relid, in key order */
	int			nkeys;
	int		   *keyfields;		/* index into fields, in key order */
	AttrNumber *keyattnums;		/* in relid */
	bool		key_generated;	/* some key column is generated, so in no patch */
	AttrNumber	tombstone;		/* in relid; 0: none */
	AttrNumber	tenant;
	EsyncShape *tenant_shape;
	int			tombstone_field;	/* index into fields; -1: none */
	int			tenant_field;
	int			nstamps;
	AttrNumber *stamps;			/* last_modified columns in relid */

	bool		json_merges;	/* some column is merged path by path */
	bool		sql_merge;		/* plain SQL merges where its context names a base */
	char	   *on_conflict;	/* 'merge', or a policy: see policy.c */
	int			ngroups;
	EsyncGroup *groups;
	int			nlinks;
	EsyncLink  *links;			/* the option links, not declared foreign keys */
} EsyncTracked;

/* -------------------------------------------------- context.c: who and when */

/* what the session says of the author; NULL pointers where it says nothing */
typedef struct EsyncContext
{
	text	   *user_id;		/* never NULL: the outer role if nobody says */
	text	   *device_id;
	text	   *db_role;
	Jsonb	   *meta;
	bool		has_branch;
	bool		has_submit;
	bool		has_base;
	bool		has_sent_at;
	TimestampTz branch;
	TimestampTz submit;			/* as corrected by the clock offset */
	TimestampTz submit_raw;
	TimestampTz sent_at;
	int64		offset_ms;		/* server minus client; 0 within tolerance */
	int64		base_version;
} EsyncContext;

/* --------------------------------------------------------- fold.c: the fold */

/*
 * The stamp of an edit: (effective, device_id, device_seq, event_id), the
 * greatest wins, NULL lowest.
 */
typedef struct EsyncStamp
{
	TimestampTz effective;
	text	   *device_id;
	int64		device_seq;
	int64		event_id;
} EsyncStamp;

/* one field's current winner; event < 0: nobody ever set it */
typedef struct EsyncRegister
{
	int			event;			/* index into the folded events */
	EsyncStamp	stamp;
	JsonbValue	value;			/* points into the event's patch or payload */
} EsyncRegister;

/* -------------------------------------------------------------------- side */

/* a side table at work, on the caller's stack: see side.c */
typedef struct EsyncSide
{
	Relation	rel;
	LOCKMODE	lockmode;
	Relation	index;			/* of the scan */
	SysScanDesc scan;			/* NULL: none is under way */
	MemoryContext scan_cxt;		/* was current when it began */
	HeapTuple	tuple;			/* the row that it gave last */
	struct EState *estate;		/* of the writer; NULL before the first write */
	struct ResultRelInfo *rri;
	TupleTableSlot *slot;		/* what is written, and */
	TupleTableSlot *found;		/* in place of what */
} EsyncSide;

/* ------------------------------------------------------------------ rights */

typedef struct EsyncRights
{
	bool		all;			/* every column of the table may be read */
	bool		table_wide;		/* SELECT on the table itself (columns that are gone) */
	bool		rls;			/* row policies apply to the caller */
	Bitmapset  *columns;		/* attnums of the root that may be read, where not all */
} EsyncRights;

/* ----------------------------------------------------------------- pending */

typedef struct EsyncMove		/* a row on its way between partitions */
{
	Oid			relid;			/* the leaf it left */
	int			depth;			/* of triggers */
	HeapTuple	tuple;			/* as it was, header included */
	const EsyncContext *context;	/* of the statement that moved it */
	SubTransactionId subid;
	SubTransactionId settled;	/* in which the other half came; or none */
} EsyncMove;

/* -------------------------------------------------------- store and stream */

/*
 * An opened event leaf.  store.c opens, keeps and closes it; the head_ members
 * are what esync_leaf_head needs: head_index as esync_leaf_index finds it,
 * head_scan from index_beginscan with SnapshotSelf and one key, and head_slot
 * from table_slot_create(rel, NULL).
 */
typedef struct EsyncLeaf
{
	Relation	rel;
	Relation	head_index;
	IndexScanDesc head_scan;
	TupleTableSlot *head_slot;
	ScanKeyData head_key;		/* filled at the first probe; zero before */
} EsyncLeaf;

typedef struct EsyncHead		/* the last event of an aggregate */
{
	bool		found;
	int64		version;
	int64		event_id;
	TimestampTz commit;
	TimestampTz effective_high;
	TransactionId row_xmin;
	ItemPointerData row_tid;
	int32		flags;
} EsyncHead;

typedef struct EsyncEvents
{
	int			n;
	EsyncEvent *e;				/* ascending version; by event_id where a link was followed */
	int64	   *leaves;			/* merge.c: versions by which rows went to other keys; NULL: not asked */
	int			nleaves;
	int			leaves_of;		/* n when that was found out */
} EsyncEvents;

/* bounds of a reading; DT_NOEND where unbounded */
typedef struct EsyncBounds
{
	TimestampTz as_of;			/* effective_timestamp <= as_of (Baseline ground always) */
	TimestampTz known_at;		/* commit_timestamp <= known_at */
	bool		present_life;	/* nothing before the last deletion of the row */
} EsyncBounds;

/* what a reader wants of each event; the rest of EsyncEvent is zero or NULL */
typedef enum EsyncWant
{
	ESYNC_WANT_ALL,				/* everything */
	ESYNC_WANT_EDITS,			/* the same, payloads only of Created and Baseline */
	ESYNC_WANT_FOLD,			/* what folding needs: clocks, device, flags, patch, meta; payloads
								 * only of Created and Baseline, and of the last event that left a
								 * row where the table has last_modified columns */
	ESYNC_WANT_ROW				/* the same, and the payload of that last event in any case */
} EsyncWant;

/* called once an aggregate; see esync_stream_each */
typedef void (*EsyncAggregateCallback) (EsyncTracked *t, text *aggregate_id,
										EsyncEvents *events, void *arg);

/* called once an event, false to see no more; see esync_stream_back */
typedef bool (*EsyncEventCallback) (EsyncEvent *event, int index, void *arg);

/* ---------------------------------------------------------------- the fold */

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

#include "edit.h"

/* ----------------------------------------------- prototypes, in flow order */

/* ---- esync.c: settings */
extern bool esync_enabled;			/* esync.enabled */
extern int	esync_clock_tolerance;	/* esync.clock_tolerance, ms */
extern int	esync_batch_max_events; /* esync.batch_max_events */
extern int	esync_batch_max_bytes;	/* esync.batch_max_bytes */
extern int	esync_branch_margin;	/* esync.branch_margin, ms */
extern int	esync_since_overlap;	/* esync.since_overlap, ms */
extern int	esync_consumer_lease;	/* esync.consumer_lease, ms */

/* ---- capture.c */
extern void esync_capture_init(void);
/* a Baseline for every row of a table just enabled; the caller holds its lock */
extern void esync_capture_baseline(Oid relid);

/* ---- pending.c: what a transaction remembers between row triggers */
extern void esync_pending_init(void);
/* capture of a table was off for a time in this transaction */
extern void esync_pending_pause(Oid root);
extern bool esync_pending_paused(Oid root, HeapTuple tuple);
/* a table was altered or emptied: tuples made before may be copies of former ones */
extern void esync_pending_rewritten(Oid root);
extern bool esync_pending_copied(Oid root, HeapTuple tuple);
/* rows that left a partition and wait for their other half: the innermost, or the one
 * before m; NULL: there is none */
extern EsyncMove *esync_pending_move(const EsyncMove *m);
extern void esync_pending_push_move(Oid relid, int depth, HeapTuple tuple,
									const EsyncContext *context);
/* the other half came: m waits no longer; it is used, and ended */
extern void esync_pending_settle_move(EsyncMove *m);
extern void esync_pending_end_move(EsyncMove *m);
/* a key found written again (by a tuple of that command) before its former row's
 * deletion was told; version of the Deleted that was written for it */
extern void esync_pending_vanish(Oid root, text *aggregate_id, CommandId cid, int64 version);
/* a tuple's deletion is told now: that version, if it was that former row; else 0 */
extern bool esync_pending_has_vanished(Oid root, text *aggregate_id, HeapTuple tuple);
extern int64 esync_pending_take_vanished(Oid root, text *aggregate_id, HeapTuple tuple);
/* a tuple whose event was written before its own trigger ran */
extern void esync_pending_caught(Oid relid, HeapTuple tuple);
extern bool esync_pending_take_caught(Oid relid, HeapTuple tuple);

/* merges on their way */
extern void esync_pending_push_intent(EsyncIntent *intent);
extern void esync_pending_forget_intent(EsyncIntent *intent);
extern bool esync_pending_has_intents(void);
/* the one for a row at its place, changed by that command; NULL: none */
extern EsyncIntent *esync_pending_intent(HeapTuple old, CommandId cid);
extern EsyncIntent *esync_pending_intent_for_key(Oid root, const text *aggregate_id);

/* ---- context.c */
extern void esync_context_init(void);
extern const EsyncContext *esync_context_get(void);
/* the argument `context` of esync_submit and others; 22023 for what esync_context does not have */
extern void esync_context_set(Jsonb *context);
/* the clock of a device, offsets in microseconds: how a time is read, and submit corrected */
extern bool esync_clock_parse(const char *value, TimestampTz *result);
extern int64 esync_clock_offset(TimestampTz sent_at);
extern bool esync_clock_is_off(int64 offset);
extern TimestampTz esync_clock_shift(TimestampTz submit, int64 offset);
/* what that is while an edit is applied; NULL: the session's own again */
extern const EsyncContext *esync_context_lend(const EsyncContext *context);
extern void esync_context_put_back(const EsyncContext *former);
/* which giving of base_version and branch_timestamp the present ones are of */
extern uint64 esync_context_base_turn(void);

/* ---- tracked.c: plans */
extern void esync_tracked_init(void);
extern void esync_tracked_undo_on_abort(void);
extern void esync_tracked_void_others(const EsyncTracked *t);
/* the plan of a tracked table or a leaf of one; NULL where it is not tracked */
extern EsyncTracked *esync_tracked_get(Oid relid);
/* the same of a tracked table named by a user; YS001 where it is not tracked */
extern EsyncTracked *esync_tracked_need(Oid relid);
/* the table with this table_id; InvalidOid where it is gone */
extern Oid	esync_tracked_relation(int32 table_id);
/* all histories as the active snapshot has them, EsyncListed by table_id */
extern List *esync_tracked_list(void);
/* the OIDs of the tables that are tracked, or were and are still there */
extern List *esync_tracked_tables(void);
extern void esync_tracked_check(const EsyncTracked *t);
extern char *esync_tracked_name(const EsyncTracked *t);

/* ---- lineage.c: fields through renames and restores */
extern Oid	esync_relation_oid(const char *name);
extern int	esync_relnatts(Oid relid);
extern int32 esync_epoch(void);
extern void esync_epoch_record(void);
extern EsyncField *esync_lineage_load(int32 table_id, Oid root, int *nfields, bool *unrecorded,
									  int64 *check_from);
extern void esync_lineage_record(EsyncTracked *t, int64 event_id);
extern void esync_lineage_forget(void);
extern void esync_lineage_flag(Oid relid);
/* index into fields of what `name` meant at event_id (PG_INT64_MAX: now); -1 if nothing */
extern int	esync_field_at(const EsyncField *fields, int nfields,
						   const char *name, int namelen, int64 event_id);
/* index into fields of what a caller calls by a name, a former one too; -1 if nothing */
extern int	esync_field_called(const EsyncField *fields, int nfields, const char *name);
extern bool esync_field_bore(const EsyncField *field, const char *name, int namelen);

/* ---- side.c: rows of esync's own tables beside the stream; asks no rights */
extern void esync_side_open(EsyncSide *side, const char *relname, LOCKMODE lockmode);
extern void esync_side_scan(EsyncSide *side, const char *indexname, Snapshot snapshot,
							ScanKey keys, int nkeys);
extern bool esync_side_next(EsyncSide *side, Datum *values, bool *nulls);
extern void esync_side_end(EsyncSide *side);
extern void esync_side_prepare(EsyncSide *side);
extern void esync_side_add(EsyncSide *side, const Datum *values, const bool *nulls);
/* the row that esync_side_next gave last: another in its place, or none */
extern void esync_side_change(EsyncSide *side, const Datum *values, const bool *nulls);
extern void esync_side_remove(EsyncSide *side);
extern void esync_side_close(EsyncSide *side);
/* all in one, for a single row; and a sequence of esync's */
extern void esync_side_insert(const char *relname, Datum *values, bool *nulls);
extern int64 esync_side_nextval(const char *sequence);

/* ---- key.c: aggregate ids */
/* canonical aggregate_id of a key given as any type or as text; values[] (nkeys) if not NULL
 * takes the key as datums of the key columns' types.  22023 / 22P02 if it does not fit. */
extern text *esync_key_from_any(EsyncTracked *t, Datum arg, Oid argtype, Datum *values);
extern text *esync_key_from_text(EsyncTracked *t, text *arg, Datum *values);
/* the same of a text for each key column */
extern text *esync_key_from_texts(EsyncTracked *t, char **texts, Datum *values);
extern bool esync_key_values(EsyncTracked *t, text *aggregate_id, Datum *values);
/* {"block_id": "..."} of an aggregate_id */
extern Jsonb *esync_key_object(EsyncTracked *t, text *aggregate_id);
/* the same of a key that its type may not be able to read any more: NULL then */
extern Jsonb *esync_key_object_if_any(EsyncTracked *t, text *aggregate_id);

/* ---- encode.c, decode.c: datum <-> JSON value, free of session settings */
extern bool esync_encode_is_pure(Oid typid);
extern EsyncShape *esync_shape_make(MemoryContext cxt, const EsyncAttr *attrs, int nattrs);

/* values[attnum - 1] is the value of an attr; which is an index into attrs */
extern Jsonb *esync_encode_row(EsyncShape *shape, const Datum *values, const bool *isnull);
extern Jsonb *esync_encode_patch(EsyncShape *shape, const Datum *values, const bool *isnull,
								 const int *which, int nwhich);
extern Jsonb *esync_encode_adds(EsyncShape *shape, const Datum *values, const bool *isnull,
								const int *which, int nwhich);
extern void esync_encode_value(EsyncShape *shape, int which, Datum value, bool isnull,
							   JsonbValue *out);
extern text *esync_encode_key(EsyncShape *keyshape, const Datum *values, const bool *isnull);

extern void esync_decode_value(EsyncShape *shape, int which, const JsonbValue *v,
							   Datum *value, bool *isnull);
extern Datum esync_decode_key_text(EsyncShape *keyshape, int which, const char *string);

/* ---- meta.c: what an event's meta tells */
typedef struct EsyncExtra		/* one more member of it */
{
	const char *key;
	JsonbValue	value;
} EsyncExtra;
extern void esync_meta_time(TimestampTz at, JsonbValue *out);
extern void esync_meta_int(int64 i, JsonbValue *out);
extern void esync_meta_link(text *key, int64 version, JsonbValue *out);
extern Jsonb *esync_meta_with(Jsonb *meta, const EsyncExtra *extras, int nextras);

/* ---- store.c: the only writer */
extern void esync_store_init(void);
extern void esync_store_close_all(void);
extern EsyncLeaf *esync_store_open(EsyncTracked *t, MemoryContext cxt, EsyncLeaf **keep);
extern void esync_store_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head);
/* has the next such call of this command give the same, where the row is locked */
extern void esync_store_keep_head(EsyncLeaf *leaf, const text *aggregate_id,
								  const EsyncHead *head);
extern int64 esync_store_next_id(EsyncTracked *t);
extern void esync_store_put(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e);
/* a first event without a probe for the head: false if the aggregate has one already */
extern bool esync_store_can_try(const EsyncLeaf *leaf, const EsyncTracked *t);
extern bool esync_store_try_first(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e);

/* ---- leaf.c: with stream.c the only reader */
/* the leaf's valid unique index on (aggregate_id, version); InvalidOid if it has none */
extern bool esync_leaf_is_head_index(Relation index);
extern Oid	esync_leaf_index(Relation leaf);
extern void esync_leaf_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head);

/* what there is in a leaf */
typedef struct EsyncCount
{
	int64		events;
	int64		aggregates;
	TimestampTz oldest;			/* commit times; without meaning where there are no events */
	TimestampTz newest;
} EsyncCount;
extern void esync_leaf_count(Oid leafid, EsyncCount *count);

/* a leaf opened for reading by the order of its events */
typedef struct EsyncLeafReader
{
	Relation	rel;			/* NULL: not opened */
	Relation	xid_index;		/* on (xid, event_id), */
	Relation	brin;			/* on event_id, and */
	Relation	head_index;		/* on (aggregate_id, version); each may be missing */
	Snapshot	snapshot;
	TupleTableSlot *slot;
	int64		visited;		/* tuples that windows read, and */
	int64		matched;		/* how many were in them */
	bool		summarized;		/* esync_leaf_summarize was called */
	LOCKMODE	unlock;			/* given back on closing */
} EsyncLeafReader;

/* an event by its place */
typedef struct EsyncPlaceOfEvent
{
	int64		event_id;
	uint64		xid;
	TimestampTz commit;			/* not of a probe */
	ItemPointerData tid;
	int32		epoch;			/* -1: not looked up */
} EsyncPlaceOfEvent;

typedef bool (*EsyncPlaceCallback) (const EsyncPlaceOfEvent *place, void *arg);
extern void esync_leaf_open(EsyncLeafReader *r, Oid leafid, Snapshot snapshot);
extern bool esync_leaf_try_open(EsyncLeafReader *r, Oid leafid, Snapshot snapshot);
extern void esync_leaf_close(EsyncLeafReader *r);
extern bool esync_leaf_probe(EsyncLeafReader *r, uint64 from, uint64 below,
							 EsyncPlaceCallback callback, void *arg);
extern void esync_leaf_find(EsyncLeafReader *r, uint64 xid, int64 event_id,
							EsyncPlaceCallback callback, void *arg);
extern void esync_leaf_probe_back(EsyncLeafReader *r, uint64 below, EsyncPlaceCallback callback,
								  void *arg);
extern void esync_leaf_window(EsyncLeafReader *r, int64 after, int64 upto,
							  EsyncPlaceCallback callback, void *arg);
extern void esync_leaf_summarize(EsyncLeafReader *r);
/* the row to which an event of a tracked table belongs; false: there is no such event */
extern bool esync_leaf_find_event(int64 event_id, int32 *table_id, text **aggregate_id);
extern bool esync_leaf_fetch(EsyncLeafReader *r, ItemPointer tid, EsyncEvent *event);
extern text *esync_leaf_tenant_before(EsyncLeafReader *r, text *aggregate_id, int64 version,
									  bool *row);

/* ---- stream.c: with leaf.c the only reader */
/* the event in a slot of esync.event, in the current memory context; the payload points into it */
extern void esync_stream_event(TupleTableSlot *slot, EsyncEvent *event);
/* the last version of an aggregate that left no row; 0: none */
extern int64 esync_stream_life(EsyncTracked *t, text *aggregate_id, Snapshot snapshot);

/* "Created" and so on, as stored; a constant */
extern const char *esync_event_type_name(EsyncEventType type);
/* the reverse; XX001 if the stored text is none of them */
extern EsyncEventType esync_event_type_parse(const char *name, int len);


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

/*
 * All events of one aggregate within bounds, as much of each as is wanted, in
 * the current memory context.  Where follow is set and the key was changed,
 * those of the former key up to the move come with it, all by event_id.
 * Opens the leaf by itself (AccessShareLock), asks no rights.
 */
extern EsyncEvents *esync_stream_read(EsyncTracked *t, text *aggregate_id,
										  const EsyncBounds *bounds, Snapshot snapshot,
										  bool follow, EsyncWant want);
/* calls back once per aggregate of the table, its events in ascending version, in a
 * memory context that is reset after each call */
extern void esync_stream_each(EsyncTracked *t, const EsyncBounds *bounds,
								  Snapshot snapshot, EsyncWant want,
								  EsyncAggregateCallback callback, void *arg);

/*
 * The events of one aggregate one by one, newest version first, without
 * copies: what the event points to (the payload as ever in stored form) is
 * good for the time of the call, which is made in a memory context that is
 * reset after it.  index descends.  For a state, which needs few of the values
 * that ever were, this is much cheaper than a list; see esync_fold_keep.  The
 * callback returns false to see no more.
 */
extern void esync_stream_back(EsyncTracked *t, text *aggregate_id, const EsyncBounds *bounds,
							  Snapshot snapshot, bool follow,
							  EsyncEventCallback callback, void *arg);

/*
 * The same for each aggregate of the table, the last key first: `event` until
 * it returns false, then `end`, in cxt, which is reset after each.  What is
 * not asked for is passed over in the index, without a look at the heap.
 */
typedef void (*EsyncEndCallback) (text *aggregate_id, void *arg);
extern void esync_stream_each_back(EsyncTracked *t, const EsyncBounds *bounds, Snapshot snapshot,
								   MemoryContext cxt, EsyncEventCallback event,
								   EsyncEndCallback end, void *arg);

/* the last events up to the one at which `stop` returns true, as a list of copies */
extern EsyncEvents *esync_stream_since(EsyncTracked *t, text *aggregate_id, Snapshot snapshot,
									   EsyncEventCallback stop, void *arg);

/* has an aggregate any event?  One reader for many questions */
typedef struct EsyncLookup EsyncLookup;
extern EsyncLookup *esync_stream_lookup_begin(EsyncTracked *t, Snapshot snapshot);
extern bool esync_stream_lookup(EsyncLookup *lookup, text *aggregate_id);
extern void esync_stream_lookup_end(EsyncLookup *lookup);

/* ---- fold.c: registers and fold */
extern void esync_fold_init(EsyncFold *fold, const EsyncField *fields, int nfields,
							int tombstone_field);
/* the same for the table of another fold, which must live as long */
extern void esync_fold_init_like(EsyncFold *fold, const EsyncFold *other);
extern void esync_fold_add(EsyncFold *fold, EsyncEvent *event, int index);
/* the row that the registers say; masked columns only with_masked (as "***"); NULL when gone */
extern Jsonb *esync_fold_state(EsyncFold *fold, bool with_masked);
/* the same with the fields and names that the table had at event_id, masked ones too */
extern Jsonb *esync_fold_state_at(EsyncFold *fold, int64 event_id);
extern int	esync_stamp_cmp(const EsyncStamp *a, const EsyncStamp *b);
extern EsyncStamp esync_event_stamp(const EsyncEvent *event);

/* what a Resolved decides of the row as a whole: 1 it lives, -1 it is deleted, 0 nothing */
extern int	esync_event_life(const EsyncEvent *event);

/* from now on the fold copies what it keeps into cxt; events may go after each call */
extern void esync_fold_keep(EsyncFold *fold, MemoryContext cxt);
/* empties a fold for another aggregate of the same table; keeps what init prepared */
extern void esync_fold_reset(EsyncFold *fold);
/* the value of one field now (fill or null where never set); false: it has no register.
 * Good until the next event is added.  Of a column that is edited inside the register alone
 * knows no more than the last whole set. */
extern bool esync_fold_value(const EsyncFold *fold, int field, JsonbValue *value);
/* is it made of edits inside of it; was it ever set, so or as a whole */
extern bool esync_fold_is_inside(const EsyncFold *fold, int field);
extern bool esync_fold_is_set(const EsyncFold *fold, int field);
/* the same of a last_modified column; buffer (MAXDATELEN + 1) may come to hold the value */
extern void esync_fold_stamp_value(const EsyncFold *fold, int field, char *buffer,
								   JsonbValue *value);
/* is there a row, by the events added */
extern bool esync_fold_has_row(const EsyncFold *fold);

/* folds of several aggregates, as events of a followed link need them */
typedef struct EsyncFolds
{
	const EsyncTracked *t;
	List	   *folds;
	List	   *ids;			/* aggregate_id of each */
} EsyncFolds;

extern EsyncFold *esync_folds_of(EsyncFolds *folds, const text *aggregate_id);

/* ---- replay.c: state at a point */
/* what the table's row ought to hold now, by all events; NULL: no event, or gone */
extern Jsonb *esync_replay_now(EsyncTracked *t, text *aggregate_id, Snapshot snapshot,
							   bool whole, bool *deleted);

/* ---- sqlmerge.c: plain SQL with a base */
extern void esync_sqlmerge_init(void);
/* may this row be written on the context's base?  It is spent with the statement then */
extern bool esync_sqlmerge_take_base(EsyncTracked *t, const EsyncContext *context);
extern bool esync_sqlmerge_base_is_spent(void);
extern void esync_sqlmerge_spend_base(void);

/* ---- plans.c: prepared statements, kept for the session */
extern SPIPlanPtr esync_plan(const char *query, int nargs, Oid *types);

/* ---- apply.c: the only writer of users' tables */
/* locks the row of an edit to come, as the caller, if the caller may write it and there is one: then true */
extern bool esync_apply_lock(EsyncTracked *t, text *aggregate_id, Datum *key);
/* is a row that could not be locked not there, whatever its events say? */
extern bool esync_apply_lacks(EsyncTracked *t, Datum *key);
/*
 * Merges one edit into its row, as the caller: events, table and ledger.  What
 * is wrong with the edit itself is a code in the outcome, and nothing was
 * written; whatever PostgreSQL finds (constraints, rights, triggers) is raised.
 * Memory: the current context.  Deferred constraints are the caller's business.
 */
extern void esync_apply(EsyncTracked *t, text *aggregate_id, Datum *key, const EsyncEdit *edit,
						EsyncOutcome *outcome);

/* ---- policy.c: what the option on_conflict makes of a conflict */
/* writes the decision after its event; guarded: where it fails, the conflicts stay open */
extern void esync_policy_decide(EsyncTracked *t, EsyncIntent *in, bool guarded);
/* the same of an event that a BEFORE trigger wrote; what would change the row waits for the former */
extern void esync_policy_decide_ahead(EsyncTracked *t, EsyncIntent *in);

/* ---- conflict.c: the ledger */
/*
 * Brings the ledger up to date with an event about to be written (its
 * event_id and version are set): opens, changes or closes one row a clash.
 * A decision's meta gets all that it closed.  The caller holds the row's lock.
 * True: the aggregate has an open conflict after it.
 */
extern bool esync_ledger_note(EsyncTracked *t, EsyncEvent *event, List *clashes);
/*
 * The same of a Baseline of a row in conflict: what was changed unseen shows now.
 * `turned`: the row was deleted by it, or is there again.
 */
extern void esync_ledger_drift(EsyncTracked *t, const EsyncEvent *event, bool turned);

/* ---- guard.c: what may fail */
/* runs body in a subtransaction; NULL, or the error, after which nothing of it is left */
extern ErrorData *esync_guard(void (*body) (void *arg), void *arg);
/* is this an error of the server or of the transaction, not of an edit? */
extern bool esync_error_is_fatal(const ErrorData *error);

/* ---- answer.c: a time as a JSON string, ISO 8601 in UTC */
extern void esync_json_time(TimestampTz at, JsonbValue *value);
/* the same of all events up to one version */
extern Jsonb *esync_replay_at(EsyncTracked *t, text *aggregate_id, int64 version,
							  Snapshot snapshot);

/* ---- row.c: the row as the table has it, as the caller may see it; NULL if there is none */
extern Jsonb *esync_row_read(EsyncTracked *t, const EsyncRights *rights, Datum *key);

/* ---- rights.c: who may */
extern void esync_rights_owner(Oid relid);
/* 22004 where the first argument, a table, is NULL */
extern void esync_rights_need_table(FunctionCallInfo fcinfo);
/* the owner of the extension, as which esync's own relations are changed */
extern Oid	esync_rights_extension_owner(void);
/* what the caller may read of t; false, or 42501, if not a single column */
extern bool esync_rights_try(EsyncTracked *t, EsyncRights *rights);
extern void esync_rights_read(EsyncTracked *t, EsyncRights *rights);
extern bool esync_rights_field(const EsyncRights *rights, const EsyncField *field);
/* 42501 unless the caller may update the column */
extern void esync_rights_update(const EsyncTracked *t, const EsyncField *field);
/* is there a row with this key that the caller sees (its grants and policies) */
extern bool esync_rights_row(EsyncTracked *t, const EsyncRights *rights, Datum *key);
extern char *esync_rights_query(const EsyncTracked *t, const char *columns, bool by_key);
extern Oid *esync_rights_key_types(const EsyncTracked *t);
extern bool esync_rights_key(const EsyncTracked *t, const EsyncRights *rights);
extern bool esync_rights_select(const EsyncTracked *t, const char *columns, Datum *key);
/* patch or payload without the fields that the caller may not read; NULL stays NULL */
extern Jsonb *esync_rights_meta(EsyncTracked *t, const EsyncRights *rights, Jsonb *meta);
extern Jsonb *esync_rights_filter(EsyncTracked *t, const EsyncRights *rights,
								  Jsonb *doc, bool is_patch, int64 event_id);

#endif							/* ESYNC_H */
