/*
 * rejected.h: a row of esync.rejected, as those see it who try it again.
 */
#ifndef ESYNC_REJECTED_H
#define ESYNC_REJECTED_H

#include "submit.h"

/* columns of esync.rejected */
enum
{
	REJ_ID = 1, REJ_TABLE_ID, REJ_AGGREGATE_ID, REJ_CLIENT_EVENT_ID, REJ_DEVICE_ID, REJ_USER_ID,
	REJ_DB_ROLE, REJ_HASH, REJ_VIA, REJ_OFFSET_MS, REJ_STATUS, REJ_CODE, REJ_MESSAGE, REJ_EVENT,
	REJ_FIRST_SEEN, REJ_LAST_SEEN, REJ_TRIES,
	REJ_COUNT = REJ_TRIES
};

extern void esync_rejected_find(EsyncSide *side, int64 rejected_id, Datum *values, bool *nulls);

#endif							/* ESYNC_REJECTED_H */
