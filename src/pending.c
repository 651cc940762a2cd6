/*
 * pending.c: what a transaction remembers between row triggers.
 *
 * Row triggers tell of changes one by one, and not always in the order in
 * which they were made.  Three things must be kept from one to another: half
 * of a move between partitions, a key that was written again before the
 * deletion of its former row was told, and a change that had to be recorded
 * before its own trigger ran.  Besides, merges that a trigger is to tell of, and
 * tables whose capture was paused.  All
 * are rare; they live in a memory context of the transaction.  What a rolled
 * back savepoint added is taken out again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "esync.h"

typedef struct Vanished
{
	Oid			root;
	text	   *aggregate_id;
	CommandId	cid;			/* that wrote the key again */
	int64		version;		/* of the Deleted event */
	SubTransactionId subid;
	SubTransactionId taken;		/* in which it was told; or none */
} Vanished;

/* hashed as bytes: there must be no padding in it */
typedef struct CaughtKey
{
	Oid			relid;
	uint32		block;
	uint32		offset;
} CaughtKey;

typedef struct Caught
{
	CaughtKey	key;			/* must be first */
	TransactionId xmin;			/* of the tuple: its place may be taken by another */
	CommandId	cmin;
	SubTransactionId subid;
} Caught;

/* a merge by the place of its row */
typedef struct Placed
{
	CaughtKey	key;			/* must be first */
	EsyncIntent *intent;
	SubTransactionId subid;
} Placed;

/* something that ended for a table with a command of this transaction */
typedef struct Mark
{
	Oid			root;
	CommandId	cid;
} Mark;

static MemoryContext pending_cxt = NULL;
static List *moves = NIL;
static List *vanished = NIL;
static HTAB *caught = NULL;
static HTAB *intents = NULL;	/* of Placed: merges of rows that are there */
static List *newcomers = NIL;	/* of EsyncIntent: merges that make a row */
static List *paused = NIL;		/* of Mark: changes before it went by unrecorded */
static List *rewritten = NIL;	/* of Mark: tuples before it may be copies */

/* Everything is forgotten at the end of a transaction; the memory went with it. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	pending_cxt = NULL;
	moves = vanished = newcomers = paused = rewritten = NIL;
	caught = intents = NULL;
}

/* The caught tuples of a savepoint that ends. */
static void
end_caught(SubTransactionId mine, SubTransactionId parent, bool undo)
{
	HASH_SEQ_STATUS status;
	Caught	   *c;

	if (caught == NULL)
		return;
	hash_seq_init(&status, caught);
	while ((c = hash_seq_search(&status)) != NULL)
	{
		if (c->subid != mine)
			continue;
		c->subid = parent;
		if (undo)
			hash_search(caught, &c->key, HASH_REMOVE, NULL);
	}
}

/* The merges of rows that are there. */
static void
end_intents(SubTransactionId mine, SubTransactionId parent, bool undo)
{
	HASH_SEQ_STATUS status;
	Placed	   *p;

	if (intents == NULL)
		return;
	hash_seq_init(&status, intents);
	while ((p = hash_seq_search(&status)) != NULL)
	{
		if (p->subid != mine)
			continue;
		p->subid = parent;
		if (undo)
			hash_search(intents, &p->key, HASH_REMOVE, NULL);
	}
}

/*
 * What becomes of an entry with a savepoint that ends: it is the parent's, or
 * was never made (false); it was used, or not yet.
 */
static bool
end_entry(SubTransactionId *made, SubTransactionId *used,
		  SubTransactionId mine, SubTransactionId parent, bool undo)
{
	if (*used == mine)
		*used = undo ? InvalidSubTransactionId : parent;
	if (*made != mine)
		return true;
	*made = parent;
	return !undo;
}

/* A savepoint ends. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					  void *arg)
{
	ListCell   *lc;
	bool		undo = event == SUBXACT_EVENT_ABORT_SUB;

	if (!undo && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(lc, moves)
	{
		EsyncMove  *m = lfirst(lc);

		if (!end_entry(&m->subid, &m->settled, mine, parent, undo))
			moves = foreach_delete_current(moves, lc);
	}
	foreach(lc, vanished)
	{
		Vanished   *v = lfirst(lc);

		if (!end_entry(&v->subid, &v->taken, mine, parent, undo))
			vanished = foreach_delete_current(vanished, lc);
	}
	foreach(lc, newcomers)
	{
		EsyncIntent *in = lfirst(lc);

		if (in->subid != mine)
			continue;
		in->subid = parent;
		if (undo)
			newcomers = foreach_delete_current(newcomers, lc);
	}
	end_intents(mine, parent, undo);
	end_caught(mine, parent, undo);
}

/* Called once, by _PG_init. */
void
esync_pending_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
}

/* Switches to the context of all this; returns the former one. */
static MemoryContext
enter(void)
{
	if (pending_cxt == NULL)
		pending_cxt = AllocSetContextCreate(TopTransactionContext, "esync pending",
											ALLOCSET_SMALL_SIZES);
	return MemoryContextSwitchTo(pending_cxt);
}

/* Moves a table's mark to behind the present command. */
static void
set_mark(List **marks, Oid root)
{
	MemoryContext old = enter();
	Mark	   *m = NULL;
	ListCell   *lc;

	foreach(lc, *marks)
		if (((Mark *) lfirst(lc))->root == root)
			m = lfirst(lc);
	if (m == NULL)
	{
		m = palloc(sizeof(Mark));
		m->root = root;
		*marks = lappend(*marks, m);
	}
	m->cid = GetCurrentCommandId(true) + 1;
	MemoryContextSwitchTo(old);
}

/* Was a tuple of this transaction made before the table's mark? */
static bool
is_before_mark(List *marks, Oid root, HeapTuple tuple)
{
	ListCell   *lc;

	foreach(lc, marks)
	{
		const Mark *m = lfirst(lc);

		if (m->root == root)
			return HeapTupleHeaderGetCmin(tuple->t_data) < m->cid;
	}
	return false;
}

/* Remembers that changes of a table go by unrecorded, on purpose. */
void
esync_pending_pause(Oid root)
{
	set_mark(&paused, root);
}

/* May a tuple of this transaction have been made while capture was off? */
bool
esync_pending_paused(Oid root, HeapTuple tuple)
{
	return is_before_mark(paused, root, tuple);
}

/* Remembers that a table was altered or emptied: it may have come new. */
void
esync_pending_rewritten(Oid root)
{
	set_mark(&rewritten, root);
}

/* May a tuple of this transaction, in a table that came new, be a copy? */
bool
esync_pending_copied(Oid root, HeapTuple tuple)
{
	return rewritten == NIL || is_before_mark(rewritten, root, tuple);
}

/* Keeps the half of a move that left a partition. */
void
esync_pending_push_move(Oid relid, int depth, HeapTuple tuple, const EsyncContext *context)
{
	MemoryContext old = enter();
	EsyncMove  *m = palloc(sizeof(EsyncMove));

	m->relid = relid;
	m->depth = depth;
	m->context = context;
	m->tuple = heap_copytuple(tuple);
	m->subid = GetCurrentSubTransactionId();
	m->settled = InvalidSubTransactionId;
	moves = lappend(moves, m);
	MemoryContextSwitchTo(old);
}

/* The innermost move that waits; or the next further out than m.  NULL: none. */
EsyncMove *
esync_pending_move(const EsyncMove *m)
{
	bool		beyond = m == NULL;

	for (int i = list_length(moves) - 1; i >= 0; i--)
	{
		EsyncMove  *candidate = list_nth(moves, i);

		if (beyond && candidate->settled == InvalidSubTransactionId)
			return candidate;
		beyond |= candidate == m;
	}
	return NULL;
}

/* The move waits no longer, unless the savepoint in which we are is undone. */
void
esync_pending_settle_move(EsyncMove *m)
{
	m->settled = GetCurrentSubTransactionId();
}

/* Frees a settled move that no savepoint can bring back. */
void
esync_pending_end_move(EsyncMove *m)
{
	if (m->settled != m->subid)
		return;
	moves = list_delete_ptr(moves, m);
	heap_freetuple(m->tuple);
	pfree(m);
}

/* Remembers a deletion recorded before it was told. */
void
esync_pending_vanish(Oid root, text *aggregate_id, CommandId cid, int64 version)
{
	MemoryContext old = enter();
	Vanished   *v = palloc(sizeof(Vanished));

	v->root = root;
	v->aggregate_id = (text *) pg_detoast_datum_copy((struct varlena *) aggregate_id);
	v->cid = cid;
	v->version = version;
	v->subid = GetCurrentSubTransactionId();
	v->taken = InvalidSubTransactionId;
	vanished = lappend(vanished, v);
	MemoryContextSwitchTo(old);
}

/*
 * The deletion that was recorded when the key of a tuple was written again,
 * after the tuple was made; or NULL.
 */
static Vanished *
find_vanished(Oid root, text *aggregate_id, HeapTuple tuple)
{
	HeapTupleHeader h = tuple->t_data;
	bool		ours;
	ListCell   *lc;

	if (vanished == NIL)
		return NULL;
	ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(h));
	foreach(lc, vanished)
	{
		Vanished   *v = lfirst(lc);

		if (v->root == root && v->taken == InvalidSubTransactionId &&
			!(ours && HeapTupleHeaderGetCmin(h) >= v->cid) &&
			VARSIZE_ANY_EXHDR(v->aggregate_id) == VARSIZE_ANY_EXHDR(aggregate_id) &&
			memcmp(VARDATA_ANY(v->aggregate_id), VARDATA_ANY(aggregate_id),
				   VARSIZE_ANY_EXHDR(aggregate_id)) == 0)
			return v;
	}
	return NULL;
}

/* Was the deletion of this tuple recorded before it is told? */
bool
esync_pending_has_vanished(Oid root, text *aggregate_id, HeapTuple tuple)
{
	return find_vanished(root, aggregate_id, tuple) != NULL;
}

/* It is told now: the version of its Deleted, 0 if it was not recorded. */
int64
esync_pending_take_vanished(Oid root, text *aggregate_id, HeapTuple tuple)
{
	Vanished   *v = find_vanished(root, aggregate_id, tuple);

	if (v == NULL)
		return 0;
	v->taken = GetCurrentSubTransactionId();
	return v->version;
}

/* The key of a tuple among the caught ones. */
static CaughtKey
caught_key(Oid relid, HeapTuple tuple)
{
	CaughtKey	key = {relid, ItemPointerGetBlockNumber(&tuple->t_self),
	ItemPointerGetOffsetNumber(&tuple->t_self)};

	return key;
}

/*
 * Remembers a tuple of this transaction whose making was recorded before its
 * trigger ran.
 */
void
esync_pending_caught(Oid relid, HeapTuple tuple)
{
	CaughtKey	key = caught_key(relid, tuple);
	Caught	   *c;

	if (caught == NULL)
	{
		HASHCTL		ctl = {0};
		MemoryContext old = enter();

		ctl.keysize = sizeof(CaughtKey);
		ctl.entrysize = sizeof(Caught);
		ctl.hcxt = pending_cxt;
		caught = hash_create("esync caught", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		MemoryContextSwitchTo(old);
	}
	c = hash_search(caught, &key, HASH_ENTER, NULL);
	c->xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	c->cmin = HeapTupleHeaderGetCmin(tuple->t_data);
	c->subid = GetCurrentSubTransactionId();
}

/* Its trigger runs now: was it recorded before? */
bool
esync_pending_take_caught(Oid relid, HeapTuple tuple)
{
	CaughtKey	key;
	Caught	   *c;
	bool		ours;

	if (caught == NULL)
		return false;
	key = caught_key(relid, tuple);
	c = hash_search(caught, &key, HASH_FIND, NULL);
	if (c == NULL)
		return false;
	ours = c->xmin == HeapTupleHeaderGetXmin(tuple->t_data) &&
		c->cmin == HeapTupleHeaderGetCmin(tuple->t_data);
	hash_search(caught, &key, HASH_REMOVE, NULL);
	return ours;
}

/* ----------------------------------------------------------------- merges */

/* The place of a row that a merge is to change. */
static CaughtKey
place_of(Oid relid, const ItemPointerData *tid)
{
	CaughtKey	key = {relid, ItemPointerGetBlockNumber(tid), ItemPointerGetOffsetNumber(tid)};

	return key;
}

/* Keeps a merge until its row's trigger runs; the caller's memory must last so long. */
void
esync_pending_push_intent(EsyncIntent *intent)
{
	MemoryContext old = enter();

	intent->subid = GetCurrentSubTransactionId();
	if (!ItemPointerIsValid(&intent->tid))
		newcomers = lappend(newcomers, intent);
	else
	{
		CaughtKey	key = place_of(intent->relid, &intent->tid);
		Placed	   *p;

		if (intents == NULL)
		{
			HASHCTL		ctl = {0};

			ctl.keysize = sizeof(CaughtKey);
			ctl.entrysize = sizeof(Placed);
			ctl.hcxt = pending_cxt;
			intents = hash_create("esync merges", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		}
		p = hash_search(intents, &key, HASH_ENTER, NULL);	/* one that a trigger swallowed goes */
		p->intent = intent;
		p->subid = intent->subid;
	}
	MemoryContextSwitchTo(old);
}

/* The merge was told, or will not be.  Its memory stays. */
void
esync_pending_forget_intent(EsyncIntent *intent)
{
	if (!ItemPointerIsValid(&intent->tid))
		newcomers = list_delete_ptr(newcomers, intent);
	else if (intents != NULL)
	{
		CaughtKey	key = place_of(intent->relid, &intent->tid);

		hash_search(intents, &key, HASH_REMOVE, NULL);
	}
}

/* Is any merge on its way? */
bool
esync_pending_has_intents(void)
{
	return newcomers != NIL || (intents != NULL && hash_get_num_entries(intents) > 0);
}

/* The merge of a row at its place, changed by that command; NULL: there is none. */
EsyncIntent *
esync_pending_intent(HeapTuple old, CommandId cid)
{
	CaughtKey	key = place_of(old->t_tableOid, &old->t_self);
	Placed	   *p = intents ? hash_search(intents, &key, HASH_FIND, NULL) : NULL;

	if (p == NULL || (p->intent->cid != InvalidCommandId && p->intent->cid != cid))
		return NULL;
	return p->intent;
}

/* The merge that is to make a row with that key; NULL: there is none. */
EsyncIntent *
esync_pending_intent_for_key(Oid root, const text *aggregate_id)
{
	ListCell   *lc;

	foreach(lc, newcomers)
	{
		EsyncIntent *in = lfirst(lc);

		if (!in->written && in->root == root &&
			VARSIZE_ANY_EXHDR(in->aggregate_id) == VARSIZE_ANY_EXHDR(aggregate_id) &&
			memcmp(VARDATA_ANY(in->aggregate_id), VARDATA_ANY(aggregate_id),
				   VARSIZE_ANY_EXHDR(aggregate_id)) == 0)
			return in;
	}
	return NULL;
}
