/*
 * changes.h: what cursor.c, changes.c, effect.c and consumer.c tell each other:
 * what was seen of the stream, and what is told of an event.
 */
#ifndef ESYNC_CHANGES_H
#define ESYNC_CHANGES_H

#include "access/xlogdefs.h"
#include "utils/array.h"

#include "esync.h"

/*
 * Which transactions have been seen: those before xmax that are not in xip.
 * xmax 0 is nothing at all, not even what was there before the epoch at hand.
 */
typedef struct EsyncSeen
{
	uint64		xmax;
	int			n;
	uint64	   *xip;			/* ascending, all before xmax */
} EsyncSeen;

/*
 * A witness: an event that was there when the cursor was made, the last one of
 * all.  Where it is gone, the database was set back.
 */
typedef struct EsyncWitness
{
	int64		event_id;		/* 0: there was none */
	uint64		xid;
	TimestampTz commit;
	int32		table_id;
} EsyncWitness;

/* Tables with histories, by table_ids that follow each other. */
typedef struct EsyncTableRun
{
	int32		first;
	int32		last;
} EsyncTableRun;

/*
 * What a cursor holds.  As long as a page is open, the events that `page` sees
 * and `seen` does not are on their way, those up to `at` were given.
 */
typedef struct EsyncCursor
{
	uint64		system;			/* identifier of the cluster */
	Oid			database;
	Oid			stream;			/* esync.event: another one, where the extension was made again */
	int32		epoch;
	TimeLineID	tli;			/* and how much of its WAL has everything */
	XLogRecPtr	lsn;			/* that the cursor knows of */
	EsyncSeen	seen;
	uint64		next;			/* what this transaction and later ones write */
	int64		floor;			/* has an event_id beyond this one; -1: nobody can tell */
	bool		open;			/* a page is open: */
	bool		wide;			/* there is much to come */
	int64		at;
	EsyncSeen	page;
	uint64		page_next;		/* next and floor of page */
	int64		page_floor;
	EsyncWitness witness;
	int			ntables;		/* asked for; -1: all */
	int32	   *tables;			/* table_ids, ascending */
	int			nknown;			/* of all: the tables that were there, ascending */
	EsyncTableRun *known;
	bool		has_tenant;
	uint32		tenant;			/* its hash */
	bool		has_device;		/* whose own events were left out */
	uint32		device;			/* its hash */
} EsyncCursor;

/* how many changes a page has where nobody says */
#define ESYNC_PAGE 500

/* how a cursor stands to this server and snapshot */
typedef enum EsyncStanding
{
	ESYNC_CURSOR_GOOD,
	ESYNC_CURSOR_AHEAD,			/* a standby that lags, or an old snapshot: ask again */
	ESYNC_CURSOR_LOST			/* it is of no use here: begin anew */
} EsyncStanding;

/* what is asked of the stream */
typedef struct EsyncAsked
{
	int			max_rows;
	ArrayType  *tables;			/* NULL: all that the caller may read */
	text	   *device_id;		/* whose own events are left out; NULL: nobody's */
	text	   *tenant;			/* NULL: any */
	bool		rows;			/* the whole row each time */
	bool		start;			/* no changes, but a cursor from which to get them */
	bool		keep;			/* where nothing is new, the cursor as it was given */
	int			nids;			/* for whom none of these was left out at will: */
	const int32 *ids;			/* the tables of a consumer */
} EsyncAsked;

/* what came of it */
typedef struct EsyncAnswer
{
	Jsonb	   *document;		/* as esync_changes answers it */
	text	   *cursor;			/* that is in it; NULL: none */
	const char *reason;			/* of a reset; NULL: it is none */
	int			count;			/* of changes */
} EsyncAnswer;

/* a tracked table of which changes are told, and what the caller may read of it */
typedef struct EsyncSource
{
	EsyncTracked *t;
	EsyncRights rights;
	EsyncLeafReader reader;
	char	   *name;			/* schema.table */
	MemoryContext cxt;			/* of what is kept for the page */
	bool		conflicts;		/* some conflict of it is open */
	bool		conflicts_known;
	struct sights_hash *sights; /* rows asked about, see effect.c; NULL: none yet */
	MemoryContext sight_cxt;	/* what that has; NULL: none yet */
} EsyncSource;

/* how much of an event is told */
typedef enum EsyncFate
{
	ESYNC_TELL_NOTHING,
	ESYNC_TELL_GONE,			/* key and version: the row is not there for the caller */
	ESYNC_TELL_SET,				/* what it set */
	ESYNC_TELL_ROW				/* the whole row */
} EsyncFate;

/* an event on its way */
typedef struct EsyncPlaceOfRun
{
	int64		event_id;
	uint64		xid;
	ItemPointerData tid;
	int			source;
} EsyncPlaceOfRun;

/* a run under way */
typedef struct EsyncRun
{
	const EsyncAsked *asked;
	EsyncCursor *c;
	int32		epoch;			/* the present one */
	int			nsources;
	EsyncSource *sources;
	int			at_source;		/* the one that is being read */
	bool		behind;			/* the cursor has seen what the snapshot at hand does not see */
	int			npresent;		/* histories that are there, ascending */
	EsyncTableRun *present;
	int			nliving;		/* those of tables that are there, too */
	EsyncTableRun *living;

	int			n;				/* events on their way */
	int			size;
	EsyncPlaceOfRun *places;
	int64		budget;			/* no more of them, where not negative, nor */
	int64		skipped;		/* so many others */

	int			count;			/* given out */
	int64		bytes;
	Jsonb	  **changes;
	bool		more;			/* there is one more */
	MemoryContext cxt;
	MemoryContext scratch;		/* reset after each event */
} EsyncRun;

/* cursor.c */
extern EsyncSeen esync_seen_now(Snapshot snapshot);
extern bool esync_seen_has(const EsyncSeen *seen, uint64 xid);
extern bool esync_seen_covers(const EsyncSeen *a, const EsyncSeen *b);
extern EsyncSeen esync_seen_join(const EsyncSeen *a, const EsyncSeen *b);
extern void esync_cursor_here(EsyncCursor *c);
extern bool esync_cursor_is_durable(const EsyncCursor *c);
extern void esync_cursor_make_durable(const EsyncCursor *c);
extern text *esync_cursor_write(const EsyncCursor *c);
extern bool esync_cursor_is(const char *string);
extern void esync_cursor_read(const char *string, EsyncCursor *c);
extern EsyncStanding esync_cursor_stand(const EsyncCursor *c, const EsyncCursor *here,
										const char **reason);
extern int64 esync_cursor_last_id(void);

/* effect.c */
extern EsyncFate esync_effect_fate(EsyncSource *s, const EsyncAsked *asked, EsyncEvent *e);
extern Jsonb *esync_effect_change(EsyncSource *s, const EsyncAsked *asked, EsyncEvent *e,
								  EsyncFate fate);

/* run.c */
extern EsyncWitness esync_run_witness(const EsyncSeen *seen);
extern EsyncSource *esync_run_open(EsyncRun *run, int i);
extern void esync_run_page(EsyncRun *run);
extern void esync_run_count(EsyncRun *run, int64 *events, TimestampTz *since);
extern int64 esync_run_last_before(EsyncRun *run, TimestampTz start);

/* changes.c */
extern void esync_changes_read(const char *cursor, const EsyncAsked *asked, EsyncAnswer *answer);
/* how many events are unread (at least, where there are many), and since when; false: unknown */
extern bool esync_changes_behind(const char *cursor, const int32 *tables, int ntables,
								 int64 *events, TimestampTz *since);

#endif							/* ESYNC_CHANGES_H */
