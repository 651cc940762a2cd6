/*
 * capture.h: what capture.c shares with record.c and sqlmerge.c.
 */
#ifndef ESYNC_CAPTURE_H
#define ESYNC_CAPTURE_H

#include "access/htup_details.h"
#include "commands/trigger.h"

#include "esync.h"

/* a row as it was or is; values are numbered by attnum - 1 of t->relid */
typedef struct EsyncRow
{
	Datum	   *values;
	bool	   *isnull;
	HeapTuple	tuple;			/* header included; NULL where unknown */
} EsyncRow;

/* one row's way to its events */
typedef struct EsyncCapture EsyncCapture;
struct EsyncMerge;

struct EsyncCapture
{
	EsyncTracked *t;
	EsyncLeaf  *leaf;
	const EsyncContext *context;
	EsyncHead	head;			/* of the aggregate at hand; moves with each event */
	text	   *key;			/* its aggregate_id */
	Relation	rel;			/* that is changed */
	bool		following;		/* by a trigger or a foreign key, not by the statement itself */

	/*
	 * Called where this transaction made a row and the head does not tell of
	 * it: tells it, so that the head does; or returns false.
	 */
	bool		(*tell_first) (EsyncCapture *c, EsyncRow *row);
};


/* every trigger function begins with it: the plan, or an error; see capture.c */
extern EsyncTracked *esync_check_trigger(FunctionCallInfo fcinfo, const char *name,
										 TriggerEvent moment);

/* Raw xmin of a row's tuple; 0 where there is none. */
static inline TransactionId
esync_row_xmin(const EsyncRow *row)
{
	return row->tuple ? HeapTupleHeaderGetRawXmin(row->tuple->t_data) : InvalidTransactionId;
}

/* ---- event.c: what is common to events */
#define MAX_EXTRAS 5			/* members that esync itself adds to meta */

extern bool esync_event_tombstoned(EsyncTracked *t, const EsyncRow *row);
extern text *esync_event_tenant(EsyncTracked *t, const EsyncRow *row);
extern text *esync_event_tenant_of_json(EsyncTracked *t, const Jsonb *row);
extern Jsonb *esync_event_no_patch(void);
extern Jsonb *esync_event_patch(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new,
								const int *which, int nwhich);
extern Jsonb *esync_event_payload_of(EsyncCapture *c, const EsyncEvent *e, const EsyncRow *row);
extern TimestampTz esync_event_stamped_at(EsyncTracked *t, const EsyncRow *row);
extern void esync_event_set_row(EsyncEvent *e, const EsyncRow *row);
extern void esync_event_begin(EsyncCapture *c, EsyncEvent *e, EsyncEventType type,
							  const EsyncRow *stamped, TimestampTz after,
							  EsyncExtra *extras, int nextras);
extern void esync_event_begin_baseline(EsyncCapture *c, EsyncEvent *e);
extern void esync_event_notify(EsyncCapture *c, const EsyncEvent *e);
extern void esync_event_done(EsyncCapture *c, const EsyncEvent *e);
extern void esync_event_put(EsyncCapture *c, EsyncEvent *e);

/* ---- merged.c: events of merges */
extern void esync_merged_put(EsyncCapture *c, EsyncIntent *in, const EsyncRow *old,
							 const EsyncRow *new);
extern void esync_merged_put_delete(EsyncCapture *c, EsyncIntent *in, const EsyncRow *old);
/* a merge that changes no row; row NULL: there is none */
extern void esync_merged_put_rowless(EsyncCapture *c, EsyncIntent *in, const EsyncRow *row);

/* ---- follow.c: late edits of rows that have another key by now */
/* esync_merged_put_rowless, and what of it follows the row; false, and nothing was written: that is wrong */
extern bool esync_follow_store(struct EsyncMerge *m, EsyncCapture *c, const EsyncRow *row,
							   EsyncOutcome *o);

/* ---- record.c: what happened to a row */
extern int *esync_record_changes(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new,
								 int *nwhich, bool *key);
/* is any column changed that an author can change? */
extern bool esync_record_differs(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new);
extern text *esync_record_key(EsyncTracked *t, const EsyncRow *row);
/* turns to an aggregate: its key and its last event */
extern void esync_record_turn(EsyncCapture *c, text *key);
/* does the head tell of exactly this tuple */
extern bool esync_record_tells(const EsyncCapture *c, const EsyncRow *row);
extern bool esync_record_is_met(const EsyncCapture *c, const EsyncRow *row);
/* ground or Baseline, so that the head tells of the row */
extern void esync_record_meet(EsyncCapture *c, EsyncRow *row);

/* a Baseline that says nothing, so that the row, or that it is gone (NULL), is told again */
extern void esync_record_touch(EsyncCapture *c, const EsyncRow *row);
/* a Baseline that says that the row of the aggregate at hand is gone */
extern void esync_record_missing(EsyncCapture *c);

/* what happened to a row, as events; each finds and moves the head */
extern void esync_record_insert(EsyncCapture *c, EsyncRow *new);
extern void esync_record_update(EsyncCapture *c, EsyncRow *old, EsyncRow *new);
extern void esync_record_delete(EsyncCapture *c, EsyncRow *old);

/* on behalf of a relation, outside of its own trigger; what it keeps lives in cxt */
extern EsyncCapture esync_capture_for(EsyncTracked *t, Relation rel, MemoryContext cxt);
/* at which depth of triggers this one runs; 1: the statement is not run by one */
extern int	esync_trigger_depth(void);
/* a tuple as a row */
extern EsyncRow esync_capture_row(Relation rel, HeapTuple tuple);

/* sqlmerge.c: a DELETE under a stale base, as its author meant it; NULL: as any other */
extern EsyncIntent *esync_sqlmerge_delete(EsyncCapture *c, const EsyncRow *old);

#endif							/* ESYNC_CAPTURE_H */
