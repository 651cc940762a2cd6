/*
 * store.c: the only writer of esync.event.
 *
 * Events go straight into the leaf of their table: a heap insert and its
 * index entries, nobody's privileges asked, no SPI.  An opened leaf is kept
 * across the rows of a statement.  What it holds (relcache references, locks,
 * pins) belongs to the resource owner of the (sub)transaction, and is given
 * back when the statement's memory goes, before that (sub)transaction
 * commits, or by its abort, whichever comes first.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "esync.h"

/* a key of so many bytes needs no compression to fit into a btree */
#define MAX_PLAIN_KEY	2600

typedef struct OpenLeaf
{
	EsyncLeaf	leaf;			/* must be first */
	dlist_node	link;			/* in open_leaves, while open */
	bool		open;
	Oid			relid;
	MemoryContext cxt;			/* the statement's; this struct lives in it */
	MemoryContextCallback callback;
	ResourceOwner owner;
	SubTransactionId subid;
	TupleTableSlot *slot;
	bool		plain;			/* no triggers, checks, or indexes that need an executor */
	int			nindexes;
	Relation   *indexes;
	IndexInfo **infos;
	MemoryContext exec_cxt;		/* where it is not plain; else NULL */
	EState	   *estate;
	ResultRelInfo *rri;
} OpenLeaf;

static dlist_head open_leaves = DLIST_STATIC_INIT(open_leaves);

/* the head of a row whose lock is held, from its BEFORE trigger to its AFTER trigger */
typedef struct KeptHead
{
	Oid			leaf;			/* InvalidOid: none is kept */
	CommandId	cid;			/* the statement's */
	int			keylen;
	char		key[128];
	EsyncHead	head;
} KeptHead;

static KeptHead kept;

/* Closes the indexes; their access methods may have kept something. */
static void
close_indexes(OpenLeaf *o)
{
	for (int i = 0; i < o->nindexes; i++)
	{
		index_insert_cleanup(o->indexes[i], o->infos[i]);
		index_close(o->indexes[i], NoLock);
	}
}

/* Gives everything back that an open leaf holds; the struct stays. */
static void
close_leaf(OpenLeaf *o)
{
	ResourceOwner old = CurrentResourceOwner;

	dlist_delete(&o->link);
	o->open = false;
	CurrentResourceOwner = o->owner;
	if (o->leaf.head_scan)
		index_endscan(o->leaf.head_scan);
	if (o->leaf.head_slot)
		ExecDropSingleTupleTableSlot(o->leaf.head_slot);
	ExecDropSingleTupleTableSlot(o->slot);
	if (o->exec_cxt)
	{
		ExecCloseIndices(o->rri);
		ExecResetTupleTable(o->estate->es_tupleTable, false);
		MemoryContextDelete(o->exec_cxt);
	}
	close_indexes(o);
	table_close(o->leaf.rel, NoLock);
	CurrentResourceOwner = old;
}

/* Forgets a leaf whose resources an abort gives back by itself. */
static void
forget_leaf(OpenLeaf *o)
{
	dlist_delete(&o->link);
	o->open = false;
}

/* The statement's memory is about to go. */
static void
memory_goes(void *arg)
{
	OpenLeaf   *o = arg;

	if (!o->open)
		return;
	if (IsTransactionState())
		close_leaf(o);
	else
		forget_leaf(o);
}

/*
 * Closes all leaves kept open; whoever alters or drops a leaf calls this
 * first, since an open one counts as in use.
 */
void
esync_store_close_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &open_leaves)
		close_leaf(dlist_container(OpenLeaf, link, iter.cur));
}

/* Nothing may be open when the resource owner is released by a commit. */
static void
end_of_transaction(XactEvent event, void *arg)
{
	dlist_mutable_iter iter;

	kept.leaf = InvalidOid;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		esync_store_close_all();
	else if (event == XACT_EVENT_ABORT)
		dlist_foreach_modify(iter, &open_leaves)
			forget_leaf(dlist_container(OpenLeaf, link, iter.cur));
}

/* The same for the leaves that a subtransaction opened. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					  void *arg)
{
	dlist_mutable_iter iter;

	if (event != SUBXACT_EVENT_PRE_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		kept.leaf = InvalidOid;	/* the row's lock may have gone with it */
	dlist_foreach_modify(iter, &open_leaves)
	{
		OpenLeaf   *o = dlist_container(OpenLeaf, link, iter.cur);

		if (o->subid != mine)
			continue;
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
			close_leaf(o);
		else
			forget_leaf(o);
	}
}

/* Called once, by _PG_init. */
void
esync_store_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
}

/* May rows be inserted without an executor's help? */
static bool
is_plain(const OpenLeaf *o)
{
	TupleConstr *constr = RelationGetDescr(o->leaf.rel)->constr;

	if (o->leaf.rel->trigdesc != NULL || (constr != NULL && constr->num_check > 0))
		return false;
	for (int i = 0; i < o->nindexes; i++)
		if (o->infos[i]->ii_Expressions != NIL || o->infos[i]->ii_Predicate != NIL ||
			o->infos[i]->ii_ExclusionOps != NULL || !o->indexes[i]->rd_index->indimmediate)
			return false;
	return true;
}

/* Opens the leaf's indexes; the one for the head is among them. */
static void
open_indexes(OpenLeaf *o, EsyncTracked *t)
{
	List	   *oids = RelationGetIndexList(o->leaf.rel);
	ListCell   *lc;

	o->nindexes = 0;
	o->indexes = palloc((list_length(oids) + 1) * sizeof(Relation));
	o->infos = palloc((list_length(oids) + 1) * sizeof(IndexInfo *));
	o->leaf.head_index = NULL;
	foreach(lc, oids)
	{
		Relation	index = index_open(lfirst_oid(lc), RowExclusiveLock);

		if (o->leaf.head_index == NULL && esync_leaf_is_head_index(index))
			o->leaf.head_index = index;
		o->indexes[o->nindexes] = index;
		o->infos[o->nindexes++] = BuildIndexInfo(index);
	}
	if (o->leaf.head_index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ESYNC_CONFIGURATION),
				 errmsg("table \"esync.%s\" lacks its unique index on (aggregate_id, version)",
						RelationGetRelationName(o->leaf.rel)),
				 errhint("Create it again, or call esync_disable for table \"%s\".",
						 t->table_name)));
}

/*
 * What it takes to go by way of the executor: see insert_row.  Its memory is
 * the subtransaction's, since it is needed until the leaf is closed.
 */
static void
open_executor(OpenLeaf *o)
{
	MemoryContext old;

	o->exec_cxt = AllocSetContextCreate(CurTransactionContext, "esync executor",
										ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(o->exec_cxt);
	o->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(o->rri, o->leaf.rel, 0, NULL, 0);
	ExecOpenIndices(o->rri, false);
	o->estate = CreateExecutorState();
	o->estate->es_opened_result_relations = list_make1(o->rri);
	MemoryContextSwitchTo(old);
}

/* Opens everything that an insert needs. */
static void
open_leaf(OpenLeaf *o, EsyncTracked *t)
{
	MemoryContext old = MemoryContextSwitchTo(o->cxt);
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = o->owner = CurTransactionResourceOwner;
	o->subid = GetCurrentSubTransactionId();
	o->relid = t->leaf;
	o->leaf.rel = table_open(t->leaf, RowExclusiveLock);
	o->leaf.head_scan = NULL;
	o->leaf.head_slot = NULL;
	o->exec_cxt = NULL;
	open_indexes(o, t);
	o->slot = MakeSingleTupleTableSlot(RelationGetDescr(o->leaf.rel), &TTSOpsVirtual);
	o->plain = is_plain(o);
	if (!o->plain)
		open_executor(o);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(old);
	dlist_push_head(&open_leaves, &o->link);
	o->open = true;
}

/* Opens what a probe for the head needs besides. */
static void
open_head(OpenLeaf *o)
{
	MemoryContext old = MemoryContextSwitchTo(o->cxt);

	o->leaf.head_slot = table_slot_create(o->leaf.rel, NULL);
	o->leaf.head_scan = index_beginscan(o->leaf.rel, o->leaf.head_index, SnapshotSelf,
										NULL, 1, 0);
	memset(&o->leaf.head_key, 0, sizeof(ScanKeyData));
	MemoryContextSwitchTo(old);
}

/*
 * The opened leaf of a tracked table, kept in *keep for as long as cxt lives:
 * a trigger passes its fn_mcxt and a place that survives with it.
 */
EsyncLeaf *
esync_store_open(EsyncTracked *t, MemoryContext cxt, EsyncLeaf **keep)
{
	OpenLeaf   *o = (OpenLeaf *) *keep;

	if (o != NULL && o->open && o->relid == t->leaf)
		return *keep;
	if (o == NULL)
	{
		o = MemoryContextAllocZero(cxt, sizeof(OpenLeaf));
		o->cxt = cxt;
		o->callback.func = memory_goes;
		o->callback.arg = o;
		MemoryContextRegisterResetCallback(cxt, &o->callback);
		*keep = &o->leaf;
	}
	else if (o->open)
		close_leaf(o);
	open_leaf(o, t);
	return *keep;
}

/*
 * Keeps the head of a row that this command has locked, for the next one who
 * asks for it.  Nobody else can write an event of that row; if we write one,
 * of whatever row, or a savepoint is taken back, it is forgotten.
 */
void
esync_store_keep_head(EsyncLeaf *leaf, const text *aggregate_id, const EsyncHead *head)
{
	kept.leaf = InvalidOid;
	kept.keylen = VARSIZE_ANY_EXHDR(aggregate_id);
	if (kept.keylen > sizeof(kept.key))
		return;
	memcpy(kept.key, VARDATA_ANY(aggregate_id), kept.keylen);
	kept.head = *head;
	kept.cid = GetActiveSnapshot()->curcid;
	kept.leaf = RelationGetRelid(leaf->rel);
}

/* Takes it back; false: it is of another row, or there is none. */
static bool
take_kept_head(EsyncLeaf *leaf, const text *aggregate_id, EsyncHead *head)
{
	if (kept.leaf != RelationGetRelid(leaf->rel) || !ActiveSnapshotSet() ||
		kept.cid != GetActiveSnapshot()->curcid ||
		kept.keylen != VARSIZE_ANY_EXHDR(aggregate_id) ||
		memcmp(kept.key, VARDATA_ANY(aggregate_id), kept.keylen) != 0)
		return false;
	kept.leaf = InvalidOid;
	*head = kept.head;
	return true;
}

/* The last event of an aggregate, whoever's transaction, if not undone. */
void
esync_store_head(EsyncLeaf *leaf, text *aggregate_id, EsyncHead *head)
{
	ResourceOwner old = CurrentResourceOwner;

	if (take_kept_head(leaf, aggregate_id, head))
		return;
	CurrentResourceOwner = ((OpenLeaf *) leaf)->owner;
	if (leaf->head_scan == NULL)
		open_head((OpenLeaf *) leaf);
	esync_leaf_head(leaf, aggregate_id, head);
	CurrentResourceOwner = old;
}

/* Sets a nullable pointer column. */
static inline void
set_pointer(TupleTableSlot *slot, EsyncEventAttr attr, const void *pointer)
{
	slot->tts_values[attr - 1] = PointerGetDatum(pointer);
	slot->tts_isnull[attr - 1] = pointer == NULL;
}

/* Lays an event out as a row of esync.event. */
static void
fill_slot(TupleTableSlot *slot, const EsyncEvent *e, text *type)
{
	Datum	   *v = slot->tts_values;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, ESYNC_EVENT_NATTS * sizeof(bool));
	v[ESYNC_ATTR_EVENT_ID - 1] = Int64GetDatum(e->event_id);
	v[ESYNC_ATTR_XID - 1] = FullTransactionIdGetDatum(e->xid);
	v[ESYNC_ATTR_VERSION - 1] = Int64GetDatum(e->version);
	v[ESYNC_ATTR_BASE_VERSION - 1] = Int64GetDatum(e->base_version);
	v[ESYNC_ATTR_BRANCH - 1] = TimestampTzGetDatum(e->branch);
	v[ESYNC_ATTR_SUBMIT - 1] = TimestampTzGetDatum(e->submit);
	v[ESYNC_ATTR_COMMIT - 1] = TimestampTzGetDatum(e->commit);
	v[ESYNC_ATTR_EFFECTIVE - 1] = TimestampTzGetDatum(e->effective);
	v[ESYNC_ATTR_EFFECTIVE_HIGH - 1] = TimestampTzGetDatum(e->effective_high);
	v[ESYNC_ATTR_DEVICE_SEQ - 1] = Int64GetDatum(e->device_seq);
	slot->tts_isnull[ESYNC_ATTR_DEVICE_SEQ - 1] = e->device_seq == 0;
	v[ESYNC_ATTR_EPOCH - 1] = Int32GetDatum(e->epoch);
	v[ESYNC_ATTR_TABLE_ID - 1] = Int32GetDatum(e->table_id);
	v[ESYNC_ATTR_FLAGS - 1] = Int32GetDatum(e->flags);
	v[ESYNC_ATTR_ROW_XMIN - 1] = TransactionIdGetDatum(e->row_xmin);
	set_pointer(slot, ESYNC_ATTR_ROW_TID,
				ItemPointerIsValid(&e->row_tid) ? &e->row_tid : NULL);
	set_pointer(slot, ESYNC_ATTR_EVENT_TYPE, type);
	set_pointer(slot, ESYNC_ATTR_AGGREGATE_ID, e->aggregate_id);
	set_pointer(slot, ESYNC_ATTR_USER_ID, e->user_id);
	set_pointer(slot, ESYNC_ATTR_DEVICE_ID, e->device_id);
	set_pointer(slot, ESYNC_ATTR_DB_ROLE, e->db_role);
	set_pointer(slot, ESYNC_ATTR_TENANT, e->tenant);
	set_pointer(slot, ESYNC_ATTR_CLIENT_EVENT_ID, e->client_event_id);
	set_pointer(slot, ESYNC_ATTR_PATCH, e->patch);
	set_pointer(slot, ESYNC_ATTR_PAYLOAD, e->payload);
	set_pointer(slot, ESYNC_ATTR_META, e->meta);
	ExecStoreVirtualTuple(slot);
}

/*
 * The slot's index entries, without an executor.  With try_first the index
 * for the head only asks; false if the aggregate may have this version.
 */
static bool
insert_entries(OpenLeaf *o, bool try_first)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	bool		unique = true;

	for (int i = 0; i < o->nindexes; i++)
	{
		IndexUniqueCheck check = UNIQUE_CHECK_NO;

		if (!o->infos[i]->ii_ReadyForInserts)
			continue;
		if (o->indexes[i]->rd_index->indisunique)
			check = try_first && o->indexes[i] == o->leaf.head_index ?
				UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_YES;
		FormIndexDatum(o->infos[i], o->slot, NULL, values, isnull);
		if (!index_insert(o->indexes[i], values, isnull, &o->slot->tts_tid, o->leaf.rel,
						  check, false, o->infos[i]) && check == UNIQUE_CHECK_PARTIAL)
			unique = false;
	}
	return unique;
}

/*
 * Inserts the slot; with everything that a DBA may have hung onto the leaf.
 * False, of try_first alone: the aggregate has events, nothing is left behind.
 */
static bool
insert_row(OpenLeaf *o, bool try_first)
{
	if (!o->plain)
	{
		AfterTriggerBeginQuery();
		ExecSimpleRelationInsert(o->rri, o->estate, o->slot);
		AfterTriggerEndQuery(o->estate);
		ResetPerTupleExprContext(o->estate);
		return true;
	}
	table_tuple_insert(o->leaf.rel, o->slot, GetCurrentCommandId(true), 0, NULL);
	if (insert_entries(o, try_first))
		return true;
	CommandCounterIncrement();	/* or it could not be deleted */
	simple_table_tuple_delete(o->leaf.rel, &o->slot->tts_tid, GetLatestSnapshot());
	return false;
}

/* The error where a key does not fit into the index of the stream. */
static void
key_too_long(const EsyncTracked *t, const EsyncEvent *e)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("key of tracked table \"%s\" is too long for the event stream", t->table_name),
			 errdetail("As text it has %zu bytes.", VARSIZE_ANY_EXHDR(e->aggregate_id)),
			 errhint("A key of up to %d bytes fits in any case.", MAX_PLAIN_KEY)));
}

/* The error where another writer took the same version of an aggregate. */
static void
version_taken(const EsyncEvent *e)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to aggregate \"%s\" due to concurrent change",
					text_to_cstring(e->aggregate_id)),
			 errdetail("Another transaction wrote version " INT64_FORMAT " of it.", e->version),
			 errhint("The transaction might succeed if retried."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, "esync")));	/* submit tells it by that */
}

/*
 * Takes the next event_id; the caller holds the lock of the aggregate's row,
 * so that ids ascend with versions.  The transaction has its own id first:
 * cursor.c relies on it.  Names of columns that are new since the last event
 * are recorded as true from it on.
 */
int64
esync_store_next_id(EsyncTracked *t)
{
	int64		id;

	(void) GetTopFullTransactionId();
	id = nextval_internal(t->sequence, false);
	if (t->unrecorded)
		esync_lineage_record(t, id);
	return id;
}

/* The name of a type as a text, made once a session. */
static text *
type_text(EsyncEventType type)
{
	static text *texts[ESYNC_BASELINE + 1];

	if (texts[type] == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		texts[type] = cstring_to_text(esync_event_type_name(type));
		MemoryContextSwitchTo(old);
	}
	return texts[type];
}

/* Writes an event; see the two below. */
static bool
put(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e, bool try_first)
{
	OpenLeaf   *o = (OpenLeaf *) leaf;
	ResourceOwner old = CurrentResourceOwner;
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool done = false;

	kept.leaf = InvalidOid;
	esync_epoch_record();
	e->xid = GetTopFullTransactionId();
	e->epoch = esync_epoch();
	e->table_id = t->table_id;
	fill_slot(o->slot, e, type_text(e->type));
	CurrentResourceOwner = o->owner;
	PG_TRY();
	{
		done = insert_row(o, try_first);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		if (geterrcode() == ERRCODE_UNIQUE_VIOLATION)
		{
			FlushErrorState();
			version_taken(e);
		}
		if (geterrcode() == ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
			VARSIZE_ANY_EXHDR(e->aggregate_id) > MAX_PLAIN_KEY)
		{
			FlushErrorState();
			key_too_long(t, e);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	CurrentResourceOwner = old;
	return done;
}

/*
 * Writes an event whose every member but xid, epoch and table_id is set.  A
 * version that another transaction took meanwhile is 40001, never 23505.
 */
void
esync_store_put(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e)
{
	(void) put(leaf, t, e, false);
}

/*
 * May the first event of an aggregate be written without looking for a head?
 * The index itself tells whether version 1 is taken, unless a purge has taken
 * it away.  Not where changes are decoded: a row that is found wrong and taken
 * back would show there.
 */
bool
esync_store_can_try(const EsyncLeaf *leaf, const EsyncTracked *t)
{
	return ((const OpenLeaf *) leaf)->plain && !t->pruned && !XLogLogicalInfoActive();
}

/* Writes version 1 of an aggregate; false, and nothing written, if it has one. */
bool
esync_store_try_first(EsyncLeaf *leaf, EsyncTracked *t, EsyncEvent *e)
{
	return put(leaf, t, e, true);
}

PG_FUNCTION_INFO_V1(esync_close_leaves);

/* esync.close_leaves(), for esync.disable_table */
Datum
esync_close_leaves(PG_FUNCTION_ARGS)
{
	esync_store_close_all();
	PG_RETURN_VOID();
}
