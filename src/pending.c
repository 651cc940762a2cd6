/*
 * pending.c: what a transaction remembers between row triggers.
 *
 * Row triggers tell of changes one by one, and not always in the order in
 * which they were made.  Three things must be kept from one to another:
 * half of a move between partitions, a key that was written again before the
 * deletion of its former row was told, and a change that had to be recorded
 * before its own trigger ran.  All three are rare; each is a short list in a
 * memory context of the transaction.  What a rolled back savepoint added is
 * taken out again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "esync.h"

typedef struct Vanished
{
	Oid			root;
	text	   *aggregate_id;
	TransactionId xmin;			/* raw xmin of the tuple that is gone */
	int64		version;		/* of the Deleted event */
	SubTransactionId subid;
} Vanished;

typedef struct Caught
{
	Oid			relid;
	ItemPointerData tid;
	SubTransactionId subid;
} Caught;

static MemoryContext pending_cxt = NULL;
static EsyncMove *move = NULL;
static List *vanished = NIL;
static List *caught = NIL;
static Bitmapset *commands = NULL;
static CommandId last_command = InvalidCommandId;

/* All lists are empty at the end of a transaction; their memory went with it. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	pending_cxt = NULL;
	move = NULL;
	vanished = caught = NIL;
	commands = NULL;
	last_command = InvalidCommandId;
}

/* A savepoint ends: its entries become the parent's, or are taken out. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					  void *arg)
{
	ListCell   *lc;
	bool		undo = event == SUBXACT_EVENT_ABORT_SUB;

	if (!undo && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	if (move && move->subid == mine)
	{
		move->subid = parent;
		if (undo)
			move = NULL;
	}
	foreach(lc, vanished)
	{
		Vanished   *v = lfirst(lc);

		if (v->subid != mine)
			continue;
		v->subid = parent;
		if (undo)
			vanished = foreach_delete_current(vanished, lc);
	}
	foreach(lc, caught)
	{
		Caught	   *c = lfirst(lc);

		if (c->subid != mine)
			continue;
		c->subid = parent;
		if (undo)
			caught = foreach_delete_current(caught, lc);
	}
}

/* Called once, by _PG_init. */
void
esync_pending_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
}

/* Switches to the context of the lists; returns the former one. */
static MemoryContext
enter(void)
{
	if (pending_cxt == NULL)
		pending_cxt = AllocSetContextCreate(TopTransactionContext, "esync pending",
											ALLOCSET_SMALL_SIZES);
	return MemoryContextSwitchTo(pending_cxt);
}

/* Keeps the half of a move that left a partition; there must be none. */
void
esync_pending_move(Oid relid, int depth, HeapTuple tuple)
{
	MemoryContext old = enter();

	Assert(move == NULL);
	move = palloc(sizeof(EsyncMove));
	move->relid = relid;
	move->depth = depth;
	move->tuple = heap_copytuple(tuple);
	move->subid = GetCurrentSubTransactionId();
	MemoryContextSwitchTo(old);
}

/* The move that waits for its other half, without taking it; NULL: none. */
const EsyncMove *
esync_pending_peek_move(void)
{
	return move;
}

/* The same, taken out; it lives on until the end of the transaction. */
EsyncMove *
esync_pending_take_move(void)
{
	EsyncMove  *taken = move;

	move = NULL;
	return taken;
}

/* Remembers a deletion recorded before it was told. */
void
esync_pending_vanish(Oid root, text *aggregate_id, TransactionId xmin, int64 version)
{
	MemoryContext old = enter();
	Vanished   *v = palloc(sizeof(Vanished));

	v->root = root;
	v->aggregate_id = (text *) pg_detoast_datum_copy((struct varlena *) aggregate_id);
	v->xmin = xmin;
	v->version = version;
	v->subid = GetCurrentSubTransactionId();
	vanished = lappend(vanished, v);
	MemoryContextSwitchTo(old);
}

/* Now it is told: the version of its Deleted event, 0 if it was not recorded. */
int64
esync_pending_take_vanished(Oid root, text *aggregate_id, TransactionId xmin)
{
	ListCell   *lc;

	foreach(lc, vanished)
	{
		Vanished   *v = lfirst(lc);
		int64		version = v->version;

		if (v->root != root || v->xmin != xmin ||
			VARSIZE_ANY_EXHDR(v->aggregate_id) != VARSIZE_ANY_EXHDR(aggregate_id) ||
			memcmp(VARDATA_ANY(v->aggregate_id), VARDATA_ANY(aggregate_id),
				   VARSIZE_ANY_EXHDR(aggregate_id)) != 0)
			continue;
		vanished = foreach_delete_current(vanished, lc);
		return version;
	}
	return 0;
}

/* Remembers a tuple whose making was recorded before its trigger ran. */
void
esync_pending_caught(Oid relid, ItemPointer tid)
{
	MemoryContext old = enter();
	Caught	   *c = palloc(sizeof(Caught));

	c->relid = relid;
	c->tid = *tid;
	c->subid = GetCurrentSubTransactionId();
	caught = lappend(caught, c);
	MemoryContextSwitchTo(old);
}

/* Its trigger runs now: was it recorded before? */
bool
esync_pending_take_caught(Oid relid, ItemPointer tid)
{
	ListCell   *lc;

	foreach(lc, caught)
	{
		Caught	   *c = lfirst(lc);

		if (c->relid != relid || !ItemPointerEquals(&c->tid, tid))
			continue;
		caught = foreach_delete_current(caught, lc);
		return true;
	}
	return false;
}

/* Remembers that rows of a command of this transaction were captured. */
void
esync_pending_see_command(CommandId cid)
{
	MemoryContext old;

	if (cid == last_command || cid > PG_INT32_MAX)
		return;
	old = enter();
	commands = bms_add_member(commands, (int) cid);
	last_command = cid;
	MemoryContextSwitchTo(old);
}

/* Were rows of that command captured? */
bool
esync_pending_command_seen(CommandId cid)
{
	return cid <= PG_INT32_MAX && bms_is_member((int) cid, commands);
}
