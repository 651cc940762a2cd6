/*
 * history.h: what history.c and timeline.c tell each other and graph.c.
 */
#ifndef ESYNC_HISTORY_H
#define ESYNC_HISTORY_H

#include "esync.h"

/* one aggregate opened for a caller who may read it */
typedef struct EsyncReading
{
	EsyncTracked *tracked;
	EsyncRights rights;
	text	   *aggregate_id;
	Datum	   *key;			/* as values of the key columns' types */
	EsyncEvents *events;
	bool		rls_hidden;		/* row policies do not show the caller the row */
} EsyncReading;

/*
 * One edit of one field, or, with field -1, a write of the delete register
 * that took or gave back the whole row.  Values point into the events, or were
 * made of edits inside of a column.
 */
typedef struct EsyncBar
{
	int			field;			/* index into the plan's fields */
	int			event;			/* index into the events */
	bool		has_value;
	bool		has_previous;	/* the register had a value before */
	bool		current;		/* this is the register's winner */
	JsonbValue	value;
	JsonbValue	previous;
} EsyncBar;

typedef struct EsyncBars
{
	int			n;
	int			size;
	EsyncBar   *bar;			/* ascending by the effective order of the events */
} EsyncBars;

/* ties in time are drawn in this order */
typedef enum EsyncMomentKind
{
	ESYNC_MOMENT_BRANCH,
	ESYNC_MOMENT_SUBMIT,
	ESYNC_MOMENT_COMMIT
} EsyncMomentKind;

typedef struct EsyncMoment
{
	TimestampTz at;
	EsyncMomentKind kind;
	int			event;			/* index into the events */
} EsyncMoment;

/* where an event's author worked: lane 0 is the server, which has no span */
typedef struct EsyncSpan
{
	int			lane;
	int			first;			/* its earliest moment, and */
	int			last;			/* its latest: indexes into the moments */
} EsyncSpan;

typedef struct EsyncMoments
{
	int			n;
	EsyncMoment *moment;		/* ascending in time */
	EsyncSpan  *span;			/* one an event */
	int			nlanes;			/* lane 0 included */
} EsyncMoments;

/* every field, for esync_history_bars */
#define ESYNC_ALL_FIELDS	(-1)

extern bool esync_history_take(FunctionCallInfo fcinfo, bool key_is_text,
							   EsyncReading *reading);
extern bool esync_history_open(FunctionCallInfo fcinfo, bool key_is_text, EsyncWant want,
							   EsyncReading *reading);
extern EsyncBars *esync_history_bars(EsyncReading *reading, int field);
/* the field that a caller names; 42703 where there never was one, 42501 where it may not be read */
extern int	esync_history_field(const EsyncReading *reading, Name name);
extern void esync_history_readable(const EsyncReading *reading, int field);
/* what field_history says of a bar, by the ledger's marks */
struct EsyncMarks;
extern const char *esync_history_status(const EsyncReading *reading, const struct EsyncMarks *marks,
										const EsyncBar *bar);
extern EsyncMoments *esync_timeline_moments(const EsyncEvents *events);

#endif							/* ESYNC_HISTORY_H */
