/*
 * conflict.h: what conflict.c tells the readers of the ledger.
 */
#ifndef ESYNC_CONFLICT_H
#define ESYNC_CONFLICT_H

#include "history.h"

/* columns of esync.conflict; closed are those that have a resolved_at */
enum
{
	COL_CONFLICT_ID = 1, COL_TABLE_ID, COL_AGGREGATE_ID, COL_FIELD, COL_KIND, COL_BASE_VALUE,
	COL_CONTENDERS, COL_SHOWN_EVENT, COL_SHOWN_VALUE, COL_STATUS, COL_OPENED_AT, COL_OPENED_EVENT,
	COL_RESOLVED_AT, COL_RESOLVED_BY, COL_RESOLUTION, COL_RESOLVED_EVENT,
	COL_COUNT = COL_RESOLVED_EVENT
};

/* a row of esync.conflict; a NULL pointer is SQL NULL */
typedef struct EsyncConflict
{
	int64		conflict_id;
	text	   *aggregate_id;
	text	   *field;			/* under its name when the conflict was opened */
	text	   *kind;
	Jsonb	   *base_value;
	Jsonb	   *contenders;
	int64		shown_event;	/* 0: the row shows none of them */
	Jsonb	   *shown_value;
	bool		open;
	TimestampTz opened_at;
	int64		opened_event;
	TimestampTz resolved_at;	/* these four of a closed one alone */
	text	   *resolved_by;
	text	   *resolution;
	int64		resolved_event;
} EsyncConflict;

/*
 * What a name in the ledger means: a column, a place inside of one, a group,
 * or, with none of them, the row as a whole or what is gone.
 */
typedef struct EsyncPlace
{
	bool		row;			/* there was no name: the row as a whole */
	int			field;			/* index into fields; -1: no column */
	int			group;			/* index into groups; -1: no group */
	char	   *path;			/* below the column, "" for the column itself */
} EsyncPlace;

/* one contender as it lies in the ledger; values point into it */
typedef struct EsyncLedgerContender
{
	int64		event_id;
	int64		version;
	int64		base_version;
	JsonbValue	user_id;
	JsonbValue	device_id;
	JsonbValue	value;
	JsonbValue	submit;
	JsonbValue	constraint;		/* that refused it; null: none did */
	int64		device_seq;		/* 0: none */
	bool		resolved;		/* a decision, or an undo */
} EsyncLedgerContender;

/* which conflicts to read: of a table, of one of its rows */
typedef enum EsyncLedgerStatus
{
	ESYNC_LEDGER_OPEN = 1,
	ESYNC_LEDGER_CLOSED = 2,
	ESYNC_LEDGER_ALL = 3
} EsyncLedgerStatus;

/*
 * called once a conflict, in a memory context that is reset after it, in which
 * the conflict lies; false to see no more
 */
typedef bool (*EsyncConflictCallback) (EsyncConflict *conflict, void *arg);

/* what the ledger says of an event's part in a conflict */
typedef enum EsyncVerdict
{
	ESYNC_VERDICT_NONE,
	ESYNC_VERDICT_LOST,
	ESYNC_VERDICT_CONFLICT
} EsyncVerdict;

typedef struct EsyncMark
{
	int64		event_id;
	int64		conflict_id;
	EsyncVerdict verdict;
	EsyncPlace	place;
	char	   *name;			/* that the place has now; NULL: the row as a whole */
} EsyncMark;

/* what the ledger says of the events of a reading */
typedef struct EsyncMarks
{
	int			n;
	int			size;
	EsyncMark  *mark;			/* ascending event_id */
	MemoryContext cxt;			/* in which they lie */
} EsyncMarks;

/* aggregate_id NULL: of the whole table, by conflict_id, only those after it */
extern void esync_ledger_each(int32 table_id, text *aggregate_id, EsyncLedgerStatus status,
							  int64 after, Snapshot snapshot,
							  EsyncConflictCallback callback, void *arg);
/* the row of a conflict, whoever asks; NULL: there is no such conflict */
extern text *esync_ledger_find(int64 conflict_id, int32 *table_id);
extern EsyncLedgerContender *esync_ledger_contenders(const EsyncConflict *conflict, int *n);
extern EsyncPlace esync_ledger_place(const EsyncTracked *t, const text *field, int64 event_id);
/* what a caller means by a name; false: nothing was ever called so */
extern bool esync_ledger_lookup(const EsyncTracked *t, const char *name, EsyncPlace *place);
/* the name that conflicts about what a caller names have now; NULL: there was never such a field */
extern const char *esync_ledger_field(const EsyncTracked *t, const char *name);
pg_noreturn extern void esync_ledger_unknown(const EsyncTracked *t, const char *name);
extern char *esync_ledger_name(const EsyncTracked *t, const EsyncConflict *conflict,
							   const EsyncPlace *place);
/* is a conflict, by its present name, about a field: itself, inside of it, or its group */
extern bool esync_ledger_about(const EsyncTracked *t, const EsyncPlace *place, const char *name,
							   const char *field);
/* does a place cover a column; field -1: the row itself */
extern bool esync_ledger_covers(const EsyncTracked *t, const EsyncPlace *place, int field);

/* marks.c */
extern EsyncMarks *esync_ledger_marks(const EsyncReading *reading);
extern int	esync_ledger_first(const EsyncMarks *marks, int64 event_id);
extern EsyncVerdict esync_ledger_verdict(const EsyncMarks *marks, const EsyncTracked *t,
										 int field, int64 event_id);

/* may the caller see a conflict about this, its own rows' apart */
extern bool esync_ledger_readable(const EsyncTracked *t, const EsyncRights *rights,
								  const EsyncPlace *place);

/* note.c: does a decision name this conflict as one that it closes? */
extern bool esync_ledger_is_named(const EsyncEvent *event, int64 conflict_id);

/* conflict.c for note.c */
extern bool esync_ledger_same_place(const EsyncPlace *a, const text *a_name,
									const EsyncPlace *b, const text *b_name);
extern bool esync_ledger_lies_inside(const EsyncPlace *inner, const EsyncPlace *outer);
extern EsyncConflict *esync_ledger_read(const Datum *values, const bool *nulls);
extern void esync_ledger_scan(EsyncSide *side, int32 table_id, text *aggregate_id, bool open,
							  Snapshot snapshot);

#endif							/* ESYNC_CONFLICT_H */
