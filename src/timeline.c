/*
 * timeline.c: the branch, submit and commit moments of a row's events, in
 * time, each on its lane.
 *
 * Lane 0 is the server: all commits lie there.  An event that was prepared
 * away from it holds a lane of its own from its first moment to its last; the
 * events of one device share one while they overlap.  Moments may come in any
 * order.  The lanes are a function of the events alone.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "history.h"

/* For qsort_arg: moments by time, then branch, submit, commit, then event_id. */
static int
compare_moments(const void *a, const void *b, void *arg)
{
	const EsyncMoment *x = a;
	const EsyncMoment *y = b;
	const EsyncEvents *events = arg;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->event != y->event)
		return events->e[x->event].event_id < events->e[y->event].event_id ? -1 : 1;
	return 0;
}

/* Whether an event has a commit moment alone: nobody was away from the server. */
static bool
event_is_plain(const EsyncEvent *event)
{
	return event->type == ESYNC_BASELINE ||
		(event->branch == event->commit && event->submit == event->commit);
}

/* Appends a moment. */
static void
add_moment(EsyncMoments *moments, int event, EsyncMomentKind kind, TimestampTz at)
{
	EsyncMoment *moment = &moments->moment[moments->n++];

	moment->at = at;
	moment->kind = kind;
	moment->event = event;
}

/* a lane while moments are walked in ascending time */
typedef struct Lane
{
	int			open;			/* events on it */
	const text *device;			/* theirs; NULL: none was named */
} Lane;

/* Whether two devices are the same; nameless ones never are. */
static bool
same_device(const text *a, const text *b)
{
	return a != NULL && b != NULL && VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*
 * The lane of an event that opens: its device's, if that is at work, else the
 * lowest that is free.  Lane 0 is the server's.
 */
static int
pick_lane(Lane *lanes, int *nlanes, const text *device)
{
	int			free_lane = 0;

	for (int i = 1; i < *nlanes; i++)
	{
		if (lanes[i].open > 0 && same_device(lanes[i].device, device))
			return i;
		if (lanes[i].open == 0 && free_lane == 0)
			free_lane = i;
	}
	return free_lane > 0 ? free_lane : (*nlanes)++;
}

/* Gives each event that was not plain the lane on which its author worked. */
static void
assign_lanes(EsyncMoments *moments, const EsyncEvents *events)
{
	Lane	   *lanes = palloc0(sizeof(Lane) * (events->n + 1));

	moments->nlanes = 1;
	for (int i = 0; i < events->n; i++)
		moments->span[i].first = -1;
	for (int i = 0; i < moments->n; i++)
	{
		EsyncSpan  *span = &moments->span[moments->moment[i].event];

		if (span->first < 0)
			span->first = i;
		span->last = i;
	}
	for (int i = 0; i < moments->n; i++)
	{
		int			event = moments->moment[i].event;
		EsyncSpan  *span = &moments->span[event];

		if (span->first == span->last)
			continue;
		if (i == span->first)
		{
			span->lane = pick_lane(lanes, &moments->nlanes, events->e[event].device_id);
			lanes[span->lane].device = events->e[event].device_id;
			lanes[span->lane].open++;
		}
		else if (i == span->last)
			lanes[span->lane].open--;
	}
	pfree(lanes);
}

/* All moments of the events in ascending time, and the lanes they lie on. */
EsyncMoments *
esync_timeline_moments(const EsyncEvents *events)
{
	EsyncMoments *moments = palloc0(sizeof(EsyncMoments));

	moments->moment = palloc(sizeof(EsyncMoment) * Max(3 * events->n, 1));
	moments->span = palloc0(sizeof(EsyncSpan) * Max(events->n, 1));
	for (int i = 0; i < events->n; i++)
	{
		const EsyncEvent *event = &events->e[i];

		if (!event_is_plain(event))
		{
			add_moment(moments, i, ESYNC_MOMENT_BRANCH, event->branch);
			add_moment(moments, i, ESYNC_MOMENT_SUBMIT, event->submit);
		}
		add_moment(moments, i, ESYNC_MOMENT_COMMIT, event->commit);
	}
	qsort_arg(moments->moment, moments->n, sizeof(EsyncMoment), compare_moments,
			  unconstify(EsyncEvents *, events));
	assign_lanes(moments, events);
	return moments;
}

/* Returns one row of esync_timeline. */
static void
put_moment(ReturnSetInfo *rsinfo, const EsyncReading *reading, const EsyncMoments *moments,
		   const EsyncMoment *moment)
{
	static const char *const names[] = {"branch", "submit", "commit"};
	const EsyncEvent *event = &reading->events->e[moment->event];
	bool		commit = moment->kind == ESYNC_MOMENT_COMMIT;
	Datum		values[8];
	bool		nulls[8] = {false};

	values[0] = TimestampTzGetDatum(moment->at);
	values[1] = CStringGetTextDatum(names[moment->kind]);
	values[2] = Int32GetDatum(commit ? 0 : moments->span[moment->event].lane);
	values[3] = Int64GetDatum(event->event_id);
	values[4] = CStringGetTextDatum(esync_event_type_name(event->type));
	nulls[5] = event->user_id == NULL;
	values[5] = PointerGetDatum(event->user_id);
	nulls[6] = event->device_id == NULL;
	values[6] = PointerGetDatum(event->device_id);
	nulls[7] = !commit;
	if (commit)
		values[7] = JsonbPGetDatum(esync_rights_filter(reading->tracked, &reading->rights,
													   event->patch, true, event->event_id));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The shared body of esync_timeline. */
static Datum
timeline_rows(FunctionCallInfo fcinfo, bool key_is_text)
{
	EsyncReading reading;
	EsyncMoments *moments;

	InitMaterializedSRF(fcinfo, 0);
	if (!esync_history_open(fcinfo, key_is_text, ESYNC_WANT_EDITS, &reading) ||
		reading.rls_hidden)
		return (Datum) 0;

	moments = esync_timeline_moments(reading.events);
	for (int i = 0; i < moments->n; i++)
		put_moment((ReturnSetInfo *) fcinfo->resultinfo, &reading, moments,
				   &moments->moment[i]);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(esync_timeline_any);

/* esync_timeline(tbl regclass, key "any") */
Datum
esync_timeline_any(PG_FUNCTION_ARGS)
{
	return timeline_rows(fcinfo, false);
}

PG_FUNCTION_INFO_V1(esync_timeline_text);

/* esync_timeline(tbl regclass, key text) */
Datum
esync_timeline_text(PG_FUNCTION_ARGS)
{
	return timeline_rows(fcinfo, true);
}
