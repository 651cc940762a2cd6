/*
 * run.c: the events of a run, on their way.
 *
 * A run is what one snapshot sees and another does not, given out by event_id
 * over all tables.  Where that is little, the index on (xid, event_id) finds it;
 * where it is much, windows of event_id are read by the BRIN, the same ones of
 * all tables, until a page is full.
 *
 * Events of an earlier epoch came with a dump: their xids mean nothing here, and
 * only who has seen nothing at all is given them.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changes.h"

/* a page ends where it has so many bytes, and before a change with which it would have so many */
#define MAX_BYTES		(32 * 1024 * 1024)
#define MAX_WITH_LAST	(64 * 1024 * 1024)

/* a run of so many pages, or index entries on its way, is read by windows */
#define NARROW_PAGES	4
#define NARROW_SKIPPED	20000

/* the widest window, and how many tuples beside it may be read before the BRIN is looked after */
#define MAX_WINDOW		(1 << 18)
#define MAX_ASIDE		500

/* The source, opened for reading. */
EsyncSource *
esync_run_open(EsyncRun *run, int i)
{
	EsyncSource *s = &run->sources[i];

	run->at_source = i;
	if (s->reader.rel == NULL)
		esync_leaf_open(&s->reader, s->t->leaf, GetActiveSnapshot());
	return s;
}

/* ------------------------------------------------------------ what is on its way */

/* Does the run give out an event of that transaction and epoch?  -1: any epoch. */
static bool
is_wanted(const EsyncRun *run, uint64 xid, int32 epoch)
{
	const EsyncCursor *c = run->c;

	if (epoch >= 0 && epoch != run->epoch)
		return c->seen.xmax == 0;
	if (epoch < 0 && c->seen.xmax == 0)
		return true;
	return esync_seen_has(&c->page, xid) && !esync_seen_has(&c->seen, xid);
}

/* Callback: takes an event that is wanted; false when there are too many. */
static bool
take_place(const EsyncPlaceOfEvent *place, void *arg)
{
	EsyncRun		   *run = arg;

	if (place->event_id <= run->c->at || !is_wanted(run, place->xid, place->epoch))
		return ++run->skipped < NARROW_SKIPPED || run->budget < 0;
	if (run->budget >= 0 && run->n >= run->budget)
		return false;
	if (run->n == run->size)
	{
		run->size = Max(2 * run->size, 256);
		run->places = run->places ?
			repalloc_huge(run->places, (Size) run->size * sizeof(EsyncPlaceOfRun)) :
			MemoryContextAlloc(run->cxt, run->size * sizeof(EsyncPlaceOfRun));
	}
	run->places[run->n++] = (EsyncPlaceOfRun) {place->event_id, place->xid, place->tid, run->at_source};
	return true;
}

/* All that a source has on its way, by transactions; false: that is too much. */
static bool
probe_source(EsyncRun *run, EsyncSource *s)
{
	const EsyncCursor *c = run->c;

	if (s->reader.xid_index == NULL)
		return false;
	for (int i = 0; i < c->seen.n; i++)
		if (esync_seen_has(&c->page, c->seen.xip[i]) &&
			!esync_leaf_probe(&s->reader, c->seen.xip[i], c->seen.xip[i] + 1, take_place, run))
			return false;
	return esync_leaf_probe(&s->reader, c->seen.xmax,
							c->seen.xmax == 0 ? PG_UINT64_MAX : c->page.xmax, take_place, run);
}

/* The same of all; what was taken is of no use where it is too much. */
static bool
probe_all(EsyncRun *run)
{
	run->budget = (int64) NARROW_PAGES * run->asked->max_rows;
	run->skipped = run->n = 0;
	for (int i = 0; i < run->nsources; i++)
		if (!probe_source(run, esync_run_open(run, i)))
			return false;
	return true;
}

static int
place_cmp(const void *a, const void *b)
{
	int64		x = ((const EsyncPlaceOfRun *) a)->event_id;
	int64		y = ((const EsyncPlaceOfRun *) b)->event_id;

	return x < y ? -1 : x > y;
}

/* ------------------------------------------------------------------- giving out */

/* Is the page full? */
static bool
is_full(const EsyncRun *run)
{
	return run->count >= run->asked->max_rows || run->bytes >= MAX_BYTES;
}

/* Gives out one event, if it is told at all; of a full page it is known that there is more. */
static void
give_out(EsyncRun *run, const EsyncPlaceOfRun *place)
{
	EsyncSource *s = &run->sources[place->source];
	ItemPointerData tid = place->tid;
	EsyncEvent	e;
	EsyncFate	fate;
	Jsonb	   *change;

	if (!esync_leaf_fetch(&s->reader, &tid, &e) ||
		!is_wanted(run, U64FromFullTransactionId(e.xid), e.epoch))
		return;
	fate = esync_effect_fate(s, run->asked, &e);
	if (fate == ESYNC_TELL_NOTHING)
		return;
	if (is_full(run))
	{
		run->more = true;
		return;
	}
	change = esync_effect_change(s, run->asked, &e, fate);
	if (run->count > 0 && run->bytes + VARSIZE(change) > MAX_WITH_LAST)
	{
		run->more = true;
		return;
	}
	run->changes[run->count] = MemoryContextAllocHuge(run->cxt, VARSIZE(change));
	memcpy(run->changes[run->count++], change, VARSIZE(change));
	run->bytes += VARSIZE(change);
	run->c->at = e.event_id;
}

/* Gives out what was taken, in order, until the page is full. */
static void
give_out_all(EsyncRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->scratch);

	if (run->n > 1)
		qsort(run->places, run->n, sizeof(EsyncPlaceOfRun), place_cmp);
	for (int i = 0; i < run->n && !run->more; i++)
	{
		CHECK_FOR_INTERRUPTS();
		give_out(run, &run->places[i]);
		MemoryContextReset(run->scratch);
	}
	MemoryContextSwitchTo(old);
}

/* ---------------------------------------------------------------------- witness */

/* of the last entries of an index so many are looked at */
#define WITNESSES	20

/* a search for the last event of all */
typedef struct LastEvent
{
	const EsyncSeen *seen;
	EsyncLeafReader reader;
	EsyncWitness last;
	int			tries;
} LastEvent;

/* Callback: takes the first that is there. */
static bool
take_witness(const EsyncPlaceOfEvent *place, void *arg)
{
	LastEvent  *l = arg;
	ItemPointerData tid = place->tid;
	EsyncEvent	e;

	if (l->last.event_id >= place->event_id)
		return false;
	if (!esync_seen_has(l->seen, place->xid) || !esync_leaf_fetch(&l->reader, &tid, &e))
		return --l->tries > 0;
	l->last = (EsyncWitness) {e.event_id, place->xid, e.commit, e.table_id};
	return false;
}

/*
 * The last event that is seen, of whatever table: whoever asks learns its number
 * at most.  Tables that somebody has locked are passed over, and no lock is kept:
 * nobody waits for a table that was not asked for.
 */
EsyncWitness
esync_run_witness(const EsyncSeen *seen)
{
	LastEvent	l = {.seen = seen};
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "esync witness",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	ListCell   *lc;

	foreach(lc, esync_tracked_tables())
	{
		EsyncTracked *t = esync_tracked_get(lfirst_oid(lc));

		if (t == NULL || !t->is_root ||
			!esync_leaf_try_open(&l.reader, t->leaf, GetActiveSnapshot()))
			continue;
		l.tries = WITNESSES;
		if (l.reader.xid_index)
			esync_leaf_probe_back(&l.reader, seen->xmax, take_witness, &l);
		esync_leaf_close(&l.reader);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return l.last;
}

/* ---------------------------------------------------------------------- windows */

/* the least event_id of those looked at */
typedef struct Least
{
	int64		event_id;
	TimestampTz commit;
	int64		budget;
} Least;

/* Callback: is it less? */
static bool
note_least(const EsyncPlaceOfEvent *place, void *arg)
{
	Least	   *least = arg;

	if (place->event_id < least->event_id)
	{
		least->event_id = place->event_id;
		least->commit = place->commit;
	}
	return --least->budget > 0;
}

/*
 * Before which event_id a run has nothing.  Transactions that began after the
 * cursor was made are beyond its floor; those that were under way then are
 * looked up.  Where it has no floor all of the run is.
 */
static int64
floor_of(EsyncRun *run)
{
	const EsyncSeen *seen = &run->c->seen;
	bool		floored = run->c->floor >= 0;
	uint64		below = floored ? run->c->next : run->c->page.xmax;
	Least		least = {floored ? run->c->floor + 1 : PG_INT64_MAX, 0,
		floored ? NARROW_SKIPPED : PG_INT64_MAX};

	if (seen->xmax == 0)
		return 0;
	for (int i = 0; i < run->nsources; i++)
	{
		EsyncLeafReader *r = &esync_run_open(run, i)->reader;

		if (r->xid_index == NULL)
			return 0;
		for (int k = 0; k < seen->n; k++)
			(void) esync_leaf_probe(r, seen->xip[k], seen->xip[k] + 1, note_least, &least);
		if (below > seen->xmax)
			(void) esync_leaf_probe(r, seen->xmax, below, note_least, &least);
	}
	return least.budget > 0 && least.event_id < PG_INT64_MAX ? least.event_id - 1 : 0;
}

/* One window of all sources. */
static void
read_window(EsyncRun *run, int64 after, int64 upto, EsyncPlaceCallback callback, void *arg)
{
	for (int i = 0; i < run->nsources; i++)
	{
		EsyncSource *s = esync_run_open(run, i);

		s->reader.visited = s->reader.matched = 0;
		esync_leaf_window(&s->reader, after, upto, callback, arg);
		if (s->reader.visited - s->reader.matched > MAX_ASIDE && !s->reader.summarized)
		{
			esync_leaf_summarize(&s->reader);
			s->reader.summarized = true;
		}
	}
}

/* Gives out a page by windows of event_id. */
static void
run_wide(EsyncRun *run)
{
	int64		last = esync_cursor_last_id();
	int64		after = Max(run->c->at, run->c->wide ? 0 : floor_of(run));
	int64		width = Max(2 * run->asked->max_rows, 256);
	int64		upto;

	run->budget = -1;
	run->c->wide = true;
	do
	{
		upto = after + width < last ? after + width : PG_INT64_MAX;
		run->n = 0;
		read_window(run, after, upto, take_place, run);
		give_out_all(run);
		if (run->n < run->asked->max_rows && width < MAX_WINDOW)
			width *= 2;
		after = upto;
	} while (!run->more && upto != PG_INT64_MAX);
}

/* Gives out one page. */
void
esync_run_page(EsyncRun *run)
{
	run->changes = palloc((run->asked->max_rows + 1) * sizeof(Jsonb *));
	run->scratch = AllocSetContextCreate(CurrentMemoryContext, "esync change",
										 ALLOCSET_DEFAULT_SIZES);
	if (!run->c->wide && probe_all(run))
		give_out_all(run);
	else
		run_wide(run);
	MemoryContextDelete(run->scratch);
}

/* The first event beyond an event_id; PG_INT64_MAX: none. */
static Least
first_after(EsyncRun *run, int64 after, int64 last)
{
	int64		width = 64;
	Least		least = {PG_INT64_MAX, 0, PG_INT64_MAX};

	while (least.event_id == PG_INT64_MAX && after < last)
	{
		read_window(run, after, after + width, note_least, &least);
		after += width;
		width *= 4;
	}
	return least;
}

/* The greatest event_id before which everything was committed before a time. */
int64
esync_run_last_before(EsyncRun *run, TimestampTz start)
{
	int64		last = esync_cursor_last_id();
	int64		low = 0;
	int64		high = last;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;
		Least		least = first_after(run, middle, last);

		CHECK_FOR_INTERRUPTS();
		if (least.event_id == PG_INT64_MAX || least.commit >= start)
			high = middle;
		else
			low = least.event_id;
	}
	return low;
}

/* Callback: does the run give out this one?  Then it may be the first. */
static bool
note_first(const EsyncPlaceOfEvent *place, void *arg)
{
	EsyncRun		   *run = arg;

	if (place->event_id > run->c->at && is_wanted(run, place->xid, place->epoch) &&
		(run->n == 0 || place->event_id < run->places[0].event_id))
	{
		run->n = 1;
		run->places[0] = (EsyncPlaceOfRun) {place->event_id, place->xid, place->tid, run->at_source};
	}
	return true;
}

/* The first event that a run gives out, where there are too many to look at all. */
static void
find_first(EsyncRun *run)
{
	int64		last = esync_cursor_last_id();
	int64		after = Max(run->c->at, floor_of(run));
	int64		width = 256;

	run->n = 0;
	for (; run->n == 0 && after < last; after += width, width *= 2)
		read_window(run, after, after + width, note_first, run);
}

/*
 * How many events the run gives out before rights and filters, or how many
 * there are at least, and when the first was committed; nobody has looked at
 * those that were rolled back.
 */
void
esync_run_count(EsyncRun *run, int64 *events, TimestampTz *since)
{
	EsyncEvent	e;

	*events = 0;
	if (!probe_all(run))
	{
		*events = Max(run->n, 1);
		run->budget = -1;
		find_first(run);
	}
	if (run->n > 1)
		qsort(run->places, run->n, sizeof(EsyncPlaceOfRun), place_cmp);
	*events = Max(*events, run->n);
	for (int i = 0; i < run->n; i++)
	{
		EsyncPlaceOfRun *place = &run->places[i];

		if (esync_leaf_fetch(&run->sources[place->source].reader, &place->tid, &e) &&
			is_wanted(run, place->xid, e.epoch))
		{
			*since = e.commit;
			return;
		}
		--*events;
	}
}
