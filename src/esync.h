/*
 * esync.h: the structs that cross rooms, then the prototypes of each room in
 * the order in which data flows through them.
 *
 *   a row changes:    capture -> tracked -> encode -> store
 *   someone reads:    stream -> merge -> replay | history | graph
 *
 * json, encode and merge call nothing of esync but json.  store.c alone
 * writes esync.event, stream.c alone reads it.
 */
#ifndef ESYNC_H
#define ESYNC_H

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "compat.h"

/* SQLSTATEs of esync's own class YS; docs/reference.md lists them */
#define ERRCODE_ESYNC_NOT_TRACKED		MAKE_SQLSTATE('Y','S','0','0','1')
#define ERRCODE_ESYNC_NO_KEY			MAKE_SQLSTATE('Y','S','0','0','2')
#define ERRCODE_ESYNC_CONFIGURATION		MAKE_SQLSTATE('Y','S','0','0','3')

/* names of esync's triggers: the first sorts before RI_..., the last after all */
#define ESYNC_TRIGGER_CAPTURE	"0_esync_capture"
#define ESYNC_TRIGGER_TRUNCATE	"0_esync_truncate"
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

/* ------------------------------------------------- json.c: jsonb, bytewise */

/*
 * A jsonb document being written front to back into buf.  Containers are
 * opened with the number of their children; object keys must be given in
 * stored order (esync_key_cmp).  Memory: the context current at init.
 */
typedef struct EsyncJson EsyncJson;

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
	Oid			typid;			/* InvalidOid when gone */
	int32		typmod;
	bool		recorded;		/* its present name stands in tracked_column */
	bool		excluded;
	bool		masked;
	bool		stamp;			/* kept by the option last_modified */
	Jsonb	   *fill;			/* what rows hold that were never written since
								 * ADD COLUMN ... DEFAULT; NULL is JSON null */
	int			nnames;
	EsyncName  *names;			/* ascending from_event */
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
	int32		epoch;
	bool		is_root;
	bool		enabled;		/* false: history only */
	bool		payload_full;
	bool		notify;
	char	   *schema_name;	/* of the tracked table */
	char	   *table_name;
	char	   *aggregate_type;

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
	AttrNumber	tombstone;		/* in relid; 0: none */
	AttrNumber	tenant;
	int			tombstone_field;	/* index into fields; -1: none */
	int			tenant_field;
	int			nstamps;
	AttrNumber *stamps;			/* last_modified columns in relid */
	LocalTransactionId paused_lxid; /* transaction in which capture was paused */
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
	TimestampTz branch;
	TimestampTz submit;			/* as corrected by the clock offset */
	TimestampTz submit_raw;
	int64		offset_ms;		/* server minus client; 0 within tolerance */
	int64		base_version;
} EsyncContext;

/* -------------------------------------------------------- merge.c: the fold */

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

#include "esync_rooms.h"

#endif							/* ESYNC_H */
