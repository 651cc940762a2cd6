/*
 * capture.h: what capture.c hands to record.c.
 */
#ifndef ESYNC_CAPTURE_H
#define ESYNC_CAPTURE_H

#include "access/htup_details.h"

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

struct EsyncCapture
{
	EsyncTracked *t;
	EsyncLeaf  *leaf;
	const EsyncContext *context;
	EsyncHead	head;			/* of the aggregate at hand; moves with each event */
	text	   *key;			/* its aggregate_id */
	Relation	rel;			/* that is changed */

	/*
	 * Called where this transaction made a row and the head does not tell of
	 * it: tells it, so that the head does; or returns false.
	 */
	bool		(*tell_first) (EsyncCapture *c, EsyncRow *row);
};


/* Raw xmin of a row's tuple; 0 where there is none. */
static inline TransactionId
esync_row_xmin(const EsyncRow *row)
{
	return row->tuple ? HeapTupleHeaderGetRawXmin(row->tuple->t_data) : InvalidTransactionId;
}

/* is any column changed that an author can change? */
extern bool esync_record_differs(EsyncTracked *t, const EsyncRow *old, const EsyncRow *new);
extern text *esync_record_key(EsyncTracked *t, const EsyncRow *row);
/* turns to an aggregate: its key and its last event */
extern void esync_record_turn(EsyncCapture *c, text *key);
/* does the head tell of exactly this tuple */
extern bool esync_record_tells(const EsyncCapture *c, const EsyncRow *row);
/* ground or Baseline, so that the head tells of the row */
extern void esync_record_meet(EsyncCapture *c, EsyncRow *row);

/* a Baseline that says that the row of the aggregate at hand is gone */
extern void esync_record_missing(EsyncCapture *c);

/* what happened to a row, as events; each finds and moves the head */
extern void esync_record_insert(EsyncCapture *c, EsyncRow *new);
extern void esync_record_update(EsyncCapture *c, EsyncRow *old, EsyncRow *new);
extern void esync_record_delete(EsyncCapture *c, EsyncRow *old);

#endif							/* ESYNC_CAPTURE_H */
