/*
 * marks.c: what the ledger says of the events of a reading: which are, or were,
 * contenders of what.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "conflict.h"

/* A reading's marks while they are gathered. */
typedef struct Marking
{
	const EsyncTracked *t;
	EsyncMarks *marks;
} Marking;

/* Callback: every contender is marked, but of a closed conflict not the one shown. */
static bool
mark_conflict(EsyncConflict *conflict, void *arg)
{
	const EsyncTracked *t = ((Marking *) arg)->t;
	EsyncMarks *marks = ((Marking *) arg)->marks;
	int			n;
	EsyncLedgerContender *contenders = esync_ledger_contenders(conflict, &n);
	MemoryContext old = MemoryContextSwitchTo(marks->cxt);
	EsyncMark	mark = {.conflict_id = conflict->conflict_id};

	mark.place = esync_ledger_place(t, conflict->field, conflict->opened_event);
	mark.name = esync_ledger_name(t, conflict, &mark.place);
	mark.verdict = conflict->open ? ESYNC_VERDICT_CONFLICT : ESYNC_VERDICT_LOST;
	if (marks->n + n > marks->size)
	{
		marks->size = 2 * (marks->n + n);
		marks->mark = marks->mark ? repalloc(marks->mark, marks->size * sizeof(EsyncMark)) :
			palloc(marks->size * sizeof(EsyncMark));
	}
	for (int i = 0; i < n; i++)
	{
		mark.event_id = contenders[i].event_id;
		if (conflict->open || mark.event_id != conflict->shown_event)
			marks->mark[marks->n++] = mark;
	}
	MemoryContextSwitchTo(old);
	return true;
}

/* For qsort: by event, then by field in column order. */
static int
mark_cmp(const void *a, const void *b)
{
	const EsyncMark *x = a;
	const EsyncMark *y = b;

	if (x->event_id != y->event_id)
		return x->event_id < y->event_id ? -1 : 1;
	if (x->place.field != y->place.field)
		return x->place.field < y->place.field ? -1 : 1;
	return x->conflict_id < y->conflict_id ? -1 : x->conflict_id > y->conflict_id;
}

/* What the ledger says of the events of a reading, under former keys as well. */
EsyncMarks *
esync_ledger_marks(const EsyncReading *reading)
{
	EsyncMarks *marks = palloc0(sizeof(EsyncMarks));
	Marking		marking = {reading->tracked, marks};
	const text *last = NULL;

	marks->cxt = CurrentMemoryContext;
	for (int i = 0; i < reading->events->n; i++)
	{
		text	   *id = reading->events->e[i].aggregate_id;

		if (last != NULL && VARSIZE_ANY_EXHDR(id) == VARSIZE_ANY_EXHDR(last) &&
			memcmp(VARDATA_ANY(id), VARDATA_ANY(last), VARSIZE_ANY_EXHDR(id)) == 0)
			continue;
		last = id;
		esync_ledger_each(reading->tracked->table_id, id, ESYNC_LEDGER_ALL, 0,
						  GetActiveSnapshot(), mark_conflict, &marking);
	}
	if (marks->n > 1)
		qsort(marks->mark, marks->n, sizeof(EsyncMark), mark_cmp);
	return marks;
}

/* Index of the first mark of an event; where there is none, of one of another event, or n. */
int
esync_ledger_first(const EsyncMarks *marks, int64 event_id)
{
	int			low = 0;
	int			high = marks->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (marks->mark[middle].event_id < event_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What became of an event's edit of a field; -1: of the row as a whole. */
EsyncVerdict
esync_ledger_verdict(const EsyncMarks *marks, const EsyncTracked *t, int field, int64 event_id)
{
	EsyncVerdict verdict = ESYNC_VERDICT_NONE;

	for (int i = esync_ledger_first(marks, event_id);
		 i < marks->n && marks->mark[i].event_id == event_id; i++)
		if (esync_ledger_covers(t, &marks->mark[i].place, field))
			verdict = Max(verdict, marks->mark[i].verdict);
	return verdict;
}
