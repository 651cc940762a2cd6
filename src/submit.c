/*
 * submit.c: edits are run: groups in order, each all or nothing.
 *
 * A savepoint for each event would be dear, so there is one subtransaction for
 * all of them.  When an event of group k fails it is taken back; the groups
 * before k run again in one subtransaction, k by itself, and the rest in one.
 * Deferred constraints are checked before a subtransaction is kept.  If they
 * fail there, nobody knows whose fault it is: from then on they are checked
 * after each group.  Groups that failed for want of another row get one more
 * chance once that one may have come or gone.
 *
 * All rows of a batch are locked first, in one order, so that two batches that
 * meet wait and do not kill each other.  When the first attempt fails the locks
 * are taken again and kept.
 *
 * Memory: the batch's context is current; each event runs in b->work.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "submit.h"

/* more subtransactions than this would not fit into what snapshots hold of one transaction */
#define MAX_LIVE	50

/* so often is an edit run again that lost a race which the caller cannot see */
#define MAX_RACES	10

/* what attempt() returns beside the number of the group that failed */
#define ALL_WELL		-1
#define UNKNOWN_CULPRIT -2
#define LOST_RACE		-3
#define NO_LOCK			-4

/* ------------------------------------------------------------------- locks */

static int
compare_rows(const void *a, const void *b)
{
	const EsyncItem *x = *(EsyncItem *const *) a;
	const EsyncItem *y = *(EsyncItem *const *) b;
	int			xlen = VARSIZE_ANY_EXHDR(x->aggregate_id);
	int			ylen = VARSIZE_ANY_EXHDR(y->aggregate_id);
	int			result;

	if (x->target->root != y->target->root)
		return x->target->root < y->target->root ? -1 : 1;
	result = memcmp(VARDATA_ANY(x->aggregate_id), VARDATA_ANY(y->aggregate_id), Min(xlen, ylen));
	return result != 0 ? result : xlen - ylen;
}

/* The rows that the batch is about, as far as they are known, in the order of all batches. */
static void
list_rows(EsyncBatch *b)
{
	b->rows = palloc(Max(b->n, 1) * sizeof(EsyncItem *));
	for (int i = 0; i < b->n; i++)
		if (b->items[i].aggregate_id && !b->items[i].final && b->items[i].twin == NULL)
			b->rows[b->nrows++] = &b->items[i];
	qsort(b->rows, b->nrows, sizeof(EsyncItem *), compare_rows);
}

/*
 * Locks all of these rows, unless they are held already: once any is kept, no
 * more may be taken, for they would be out of order.  A row that cannot be
 * locked is left to the event itself.
 */
static void
lock_rows(EsyncBatch *b)
{
	if (b->held)
		return;
	b->locking = true;
	for (int i = 0; i < b->nrows; i++)
	{
		EsyncItem  *item = b->rows[i];

		if (item->unlockable || (i > 0 && compare_rows(&b->rows[i - 1], &b->rows[i]) == 0))
			continue;
		CHECK_FOR_INTERRUPTS();
		b->current = item;
		esync_apply_lock(esync_tracked_get(item->target->root), item->aggregate_id,
						 item->keyvalues);
	}
	b->current = NULL;
	b->locking = false;
}

/* SET CONSTRAINTS ALL. */
static void
set_constraints(bool deferred)
{
	ConstraintsSetStmt *stmt = makeNode(ConstraintsSetStmt);

	stmt->constraints = NIL;
	stmt->deferred = deferred;
	AfterTriggerSetState(stmt);
}

/*
 * What comes after us in the caller's transaction finds constraints as they are
 * declared.  A name that one of another table bears as well, which cannot be
 * deferred, stays immediate; what the caller itself had set is not known.
 */
static void
restore_constraints(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	const char *query =
		"SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, c.conname), ', ')"
		" FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_namespace AS n"
		" ON n.oid OPERATOR(pg_catalog.=) c.connamespace"
		" WHERE c.condeferred AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
		" AND NOT pg_catalog.pg_is_other_temp_schema(n.oid) AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS o"
		" WHERE o.connamespace OPERATOR(pg_catalog.=) c.connamespace"
		" AND o.conname OPERATOR(pg_catalog.=) c.conname AND NOT o.condeferrable)";
	char	   *names;

	if (!IsTransactionBlock())
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_plan(esync_plan(query, 0, NULL), NULL, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "listing deferred constraints failed");
	names = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (names && SPI_execute(psprintf("SET CONSTRAINTS %s DEFERRED", names), false, 0) < 0)
		elog(ERROR, "deferring constraints failed");
	SPI_finish();
	MemoryContextSwitchTo(cxt);
}

/* ------------------------------------------------------------------- events */

/* The first of those whom an event needs that came to nothing; NULL: all is well. */
static EsyncItem *
failed_need(const EsyncItem *item)
{
	ListCell   *lc;

	foreach(lc, item->needs)
		if (((EsyncItem *) lfirst(lc))->status == ESYNC_REJECTED)
			return lfirst(lc);
	return NULL;
}

/* Rejects an event because another one was. */
static void
reject_dependent(EsyncItem *item, const EsyncItem *on)
{
	if (on->has_id)
		esync_item_reject(item, "depends_on", "it depends on event %s, which was rejected",
						  esync_uuid_text(&on->id));
	else
		esync_item_reject(item, "depends_on", "it depends on an event that was rejected");
}

/* Merges one event; false if it is rejected without an error. */
static bool
run_item(EsyncBatch *b, EsyncItem *item)
{
	EsyncItem  *need = failed_need(item);
	EsyncOutcome outcome = {0};

	if (item->status == ESYNC_REJECTED)
		return false;
	if (need && need->edit.verb == ESYNC_VERB_CREATE)
		reject_dependent(item, need);
	else if (item->temporary && !item->resolved)
		esync_temporary_resolve(b, item);
	if (item->status == ESYNC_REJECTED)
		return false;
	MemoryContextReset(b->work);
	MemoryContextSwitchTo(b->work);
	esync_apply(esync_tracked_get(item->target->root), item->aggregate_id, item->keyvalues,
				&item->edit, &outcome);
	if (outcome.code == NULL)
	{
		esync_answer_accept(b, item, &outcome);
		esync_submission_put(b, item);
	}
	MemoryContextSwitchTo(b->cxt);
	if (outcome.code != NULL)
	{
		/* a code is a constant, unlike its message */
		esync_item_reject(item, outcome.code, "%s", outcome.message ? outcome.message : outcome.code);
		if (need && strcmp(outcome.code, "not_found") == 0)
		{
			item->status = ESYNC_WAITING;
			reject_dependent(item, need);
		}
	}
	return item->status != ESYNC_REJECTED;
}

/* All others of a group fall with the one that failed. */
static void
fail_group(EsyncTx *tx, const EsyncItem *culprit)
{
	for (int i = 0; i < tx->n; i++)
	{
		EsyncItem  *item = tx->items[i];

		if (item == culprit || (item->final && item->status == ESYNC_REJECTED))
			continue;
		item->status = ESYNC_WAITING;
		if (culprit->has_id)
			esync_item_reject(item, "depends_on", "its tx failed with event %s",
							  esync_uuid_text(&culprit->id));
		else
			esync_item_reject(item, "depends_on", "its tx failed with another event");
	}
}

/*
 * Merges the events of a group.  False: it failed, and has written something
 * that must be taken back.  One that failed before it wrote is told by the
 * status of its events alone.
 */
static bool
run_group(EsyncBatch *b, EsyncTx *tx)
{
	for (int i = 0; i < tx->n; i++)
		if (tx->items[i]->final && tx->items[i]->status == ESYNC_REJECTED)
		{
			fail_group(tx, tx->items[i]);
			return true;
		}
	for (int i = 0; i < tx->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		b->current = tx->items[i];
		if (!run_item(b, tx->items[i]))
		{
			fail_group(tx, tx->items[i]);
			return i == 0;
		}
	}
	return true;
}

/* ------------------------------------------------------------------- errors */

/* Two transactions wrote one version of an aggregate, where there was no row to lock. */
static bool
is_version_race(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE &&
		error->schema_name && strcmp(error->schema_name, "esync") == 0;
}

/* The code of the contract for an error of the server. */
static const char *
error_code(const ErrorData *error)
{
	if (error->schema_name && strcmp(error->schema_name, "esync") == 0 && error->table_name &&
		strcmp(error->table_name, "submission") == 0)
		return "id_reused";
	switch (error->sqlerrcode)
	{
		case ERRCODE_FOREIGN_KEY_VIOLATION:
			return "fk";
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
		case ERRCODE_WITH_CHECK_OPTION_VIOLATION:
			return "denied";
		default:
			break;
	}
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return "invalid";
		default:
			return "constraint";
	}
}

/* Does the detail of such an error show a whole row, columns that are masked or excluded too? */
static bool
tells_row(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_NOT_NULL_VIOLATION ||
		error->sqlerrcode == ERRCODE_CHECK_VIOLATION ||
		error->sqlerrcode == ERRCODE_WITH_CHECK_OPTION_VIOLATION;
}

/* Rejects the event of a group in which an error came; NULL: nobody knows which. */
static void
fail_with_error(EsyncTx *tx, EsyncItem *culprit, const ErrorData *error)
{
	const char *code = error_code(error);
	char	   *message = error->message;

	if (error->detail && !tells_row(error))
		message = psprintf("%s (%s)", error->message, error->detail);
	for (int i = 0; i < tx->n; i++)
	{
		EsyncItem  *item = tx->items[i];
		EsyncItem  *need = failed_need(item);

		if (culprit && item != culprit)
			continue;
		item->status = ESYNC_WAITING;
		if (need && strcmp(code, "fk") == 0)
			reject_dependent(item, need);
		esync_item_reject(item, code, "%s", message);
	}
	if (culprit)
		fail_group(tx, culprit);
}

/* --------------------------------------------------------- subtransactions */

/* Forgets what an attempt that was taken back had come to. */
static void
reset_groups(EsyncBatch *b, int from, int to)
{
	for (int i = from; i < to; i++)
		for (int k = 0; k < b->tx[i].n; k++)
			if (!b->tx[i].items[k]->final)
			{
				b->tx[i].items[k]->status = ESYNC_WAITING;
				b->tx[i].items[k]->result = NULL;
			}
}

/*
 * Runs groups in the subtransaction at hand.  The number of the group that
 * failed and must be taken back, or ALL_WELL.  *at follows the work.
 */
static int
run_groups(EsyncBatch *b, int from, int to, volatile int *at)
{
	set_constraints(true);
	lock_rows(b);
	for (int i = from; i < to; i++)
	{
		bool		careful = b->tx[i].n == 1 && b->tx[i].items[0]->edit.careful;

		*at = i;
		if (careful)
			set_constraints(false); /* it is to hear of each at once */
		if (!run_group(b, &b->tx[i]))
			return i;
		b->current = NULL;
		if (b->check_each)
			set_constraints(false);
		if (b->check_each || careful)
			set_constraints(true);
	}
	*at = UNKNOWN_CULPRIT;
	set_constraints(false);
	return ALL_WELL;
}

/* The group of the event at hand, among some. */
static int
group_of(EsyncBatch *b, const EsyncItem *item, int from, int to)
{
	for (int i = from; i < to; i++)
		for (int k = 0; k < b->tx[i].n; k++)
			if (b->tx[i].items[k] == item)
				return i;
	return from;
}

/*
 * Runs groups in a subtransaction, which is kept or leaves nothing: ALL_WELL,
 * the number of the group that failed, or one of the others.  *error is NULL
 * where it failed without one.  Errors that are nobody's fault are raised.
 */
static int
attempt(EsyncBatch *b, int from, int to, ErrorData **error)
{
	ResourceOwner owner = CurrentResourceOwner;
	volatile int at = from;
	volatile int result = ALL_WELL;

	*error = NULL;
	reset_groups(b, from, to);
	b->current = NULL;
	b->locking = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(b->cxt);
	PG_TRY();
	{
		result = run_groups(b, from, to, &at);
		if (result == ALL_WELL)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(b->cxt);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(b->cxt);
		CurrentResourceOwner = owner;
		if (is_version_race(*error) && !IsolationUsesXactSnapshot())
			return LOST_RACE;
		if (esync_error_is_fatal(*error))
			ReThrowError(*error);
		if (b->locking)
		{
			b->current->unlockable = true;
			b->locking = false;
			return NO_LOCK;
		}
		if (at == UNKNOWN_CULPRIT)
			return UNKNOWN_CULPRIT;
		return b->current ? group_of(b, b->current, from, to) : at;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(b->cxt);
	CurrentResourceOwner = owner;
	return result;
}

/* The group was taken with others: nothing can change it now. */
static void
settle(EsyncBatch *b, int from, int to)
{
	for (int i = from; i < to; i++)
		for (int k = 0; k < b->tx[i].n; k++)
			b->tx[i].items[k]->final = true;
}

/* Nothing of the group can be done: its events are rejected, if they are not already. */
static void
give_up(EsyncBatch *b, int group, const ErrorData *error)
{
	if (error)
		fail_with_error(&b->tx[group], b->current, error);
	settle(b, group, group + 1);
}

/* A unique key may have been taken a moment ago: then it is an edit of that row now. */
static bool
may_have_raced(EsyncTx *tx, const ErrorData *error)
{
	if (error == NULL || error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION || tx->retried ||
		IsolationUsesXactSnapshot())
		return false;
	tx->retried = true;
	return true;
}

/* Is it an event of which a constraint may refuse a part?  Of a row to come it refuses all. */
static bool
may_be_partial(const EsyncItem *item)
{
	const char *policy = esync_tracked_get(item->target->root)->on_conflict;

	if (strcmp(policy, "merge") != 0)	/* or the decision about its conflicts */
		return strcmp(policy, "reject") != 0;
	return (item->edit.verb == ESYNC_VERB_UPDATE || item->edit.verb == ESYNC_VERB_SAVE) &&
		esync_json_count(item->edit.set ? &item->edit.set->root :
						 &item->edit.document->root) > 1;
}

/*
 * May an event that failed be run once more with care, so that what can be
 * applied of it is, or that its conflicts stay open where the decision about
 * them failed?  Where a row is wanted that may yet come, that waits.
 */
static bool
may_go_in_part(EsyncBatch *b, EsyncTx *tx, const ErrorData *error)
{
	EsyncItem  *item = b->current ? b->current : tx->n == 1 ? tx->items[0] : NULL;

	if (error == NULL || item == NULL || item->edit.careful || failed_need(item) ||
		!may_be_partial(item))
		return false;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
		strcmp(esync_tracked_get(item->target->root)->on_conflict, "merge") == 0)
		return false;
	if (!b->last_chance && strcmp(error_code(error), "fk") == 0)
		return false;
	return item->edit.careful = true;
}

/* The groups of the tail wait for another batch. */
static void
put_off(EsyncBatch *b, int from)
{
	for (int i = from; i < b->ntx; i++)
		for (int k = 0; k < b->tx[i].n; k++)
		{
			EsyncItem  *item = b->tx[i].items[k];

			if (item->final)
				continue;
			item->status = ESYNC_WAITING;
			esync_item_reject(item, "too_large",
							  "too many events of the batch failed: send this one in another batch");
			item->untold = item->final = true;
		}
}

/*
 * Something failed, and its locks are gone.  They are taken anew, and kept by a
 * subtransaction of their own, so that it is done once for all that follows.
 */
static void
hold_rows(EsyncBatch *b)
{
	EsyncItem  *culprit = b->current;
	ErrorData  *error;
	int			failed;

	do
		failed = attempt(b, 0, 0, &error);
	while (failed == NO_LOCK);	/* now without that row */
	if (failed != ALL_WELL)
		ReThrowError(error);
	b->held = true;
	b->current = culprit;
}

/* Runs the groups from here on, as told at the top of this file. */
static void
run_all(EsyncBatch *b)
{
	int			from = 0;
	int			to = b->ntx;
	int			races = 0;

	while (from < b->ntx)
	{
		ErrorData  *error;
		int			failed;

		if (b->live >= MAX_LIVE)
		{
			put_off(b, from);
			return;
		}
		failed = attempt(b, from, to, &error);
		if (failed == ALL_WELL)
		{
			settle(b, from, to);
			b->live++;
			from = to;
			to = b->ntx;
		}
		if (failed == ALL_WELL || failed == NO_LOCK)
			continue;
		if (!b->held && b->ntx - from > 1)
			hold_rows(b);
		if (failed == LOST_RACE)
		{
			if (++races > MAX_RACES)
				ReThrowError(error);
		}
		else if (failed == UNKNOWN_CULPRIT && (to - from > 1 && !b->check_each))
			b->check_each = true;
		else if (failed > from)
			to = failed;		/* those before it, then the others */
		else if (!may_have_raced(&b->tx[from], error) &&
				 !may_go_in_part(b, &b->tx[from], error))
		{
			give_up(b, from, error);
			from++;
			to = b->ntx;
		}
	}
}

/* Was the group rejected for want of another row, and nothing else? */
static bool
wants_row(const EsyncTx *tx)
{
	for (int i = 0; i < tx->n; i++)
		if (tx->items[i]->wrong)
			return false;
	for (int i = 0; i < tx->n; i++)
		if (tx->items[i]->status == ESYNC_REJECTED &&
			(strcmp(tx->items[i]->code, "fk") == 0 ||
			 strcmp(tx->items[i]->code, "depends_on") == 0))
			return true;
	return false;
}

/* Makes a group as if it had never been run. */
static void
renew(EsyncTx *tx)
{
	for (int i = 0; i < tx->n; i++)
	{
		tx->items[i]->final = false;
		tx->items[i]->status = ESYNC_WAITING;
	}
}

/* Does the group delete and do nothing else? */
static bool
only_deletes(const EsyncTx *tx)
{
	for (int i = 0; i < tx->n; i++)
		if (tx->items[i]->edit.verb != ESYNC_VERB_DELETE)
			return false;
	return true;
}

/*
 * The groups that failed for want of another row once more: what the batch does
 * not tell, say which row a deleted one points to, is found out so.  Deletes
 * come last, and the last of them first.  False if there are none, or nothing
 * else has been done meanwhile.
 */
static bool
try_again(EsyncBatch *b)
{
	EsyncTx    *tx = palloc(Max(b->ntx, 1) * sizeof(EsyncTx));
	int			n = 0;

	for (int i = 0; i < b->ntx; i++)
		if (wants_row(&b->tx[i]) && !only_deletes(&b->tx[i]))
			tx[n++] = b->tx[i];
	for (int i = b->ntx - 1; i >= 0; i--)
		if (wants_row(&b->tx[i]) && only_deletes(&b->tx[i]))
			tx[n++] = b->tx[i];
	if (n == 0 || b->live == 0 || b->live >= MAX_LIVE)
		return false;
	for (int i = 0; i < n; i++)
		renew(&tx[i]);
	b->tx = tx;
	b->ntx = n;
	run_all(b);
	for (int i = 0; i < n; i++)
		if (!wants_row(&tx[i]))
			return true;
	return false;
}

/*
 * What a foreign key refused, and nothing that came later cured: the single
 * events among them are run a last time, so that what can be applied is.
 */
static void
take_parts(EsyncBatch *b)
{
	EsyncTx    *tx = palloc(Max(b->ntx, 1) * sizeof(EsyncTx));
	int			n = 0;

	for (int i = 0; i < b->ntx; i++)
	{
		const EsyncItem *item = b->tx[i].items[0];

		if (wants_row(&b->tx[i]) && b->tx[i].n == 1 && strcmp(item->code, "fk") == 0 &&
			may_be_partial(item))
			tx[n++] = b->tx[i];
	}
	b->last_chance = true;
	if (n == 0 || b->live >= MAX_LIVE)
		return;
	for (int i = 0; i < n; i++)
		renew(&tx[i]);
	b->tx = tx;
	b->ntx = n;
	run_all(b);
}

/* Events with the id of an earlier one of the batch have its result. */
static void
follow_twins(EsyncBatch *b)
{
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];

		if (item->twin == NULL)
			continue;
		item->status = item->twin->status;
		item->code = item->twin->code;
		item->message = item->twin->message;
		item->result = item->twin->result;
		item->rejected_id = item->twin->rejected_id;
		item->duplicate = item->status != ESYNC_REJECTED;
	}
}

/*
 * Runs a batch that was parsed, from the look-up of ids to the notes of what was
 * rejected.  Nothing of it is left where an error is raised.
 */
void
esync_submit_run(EsyncBatch *b)
{
	if (!esync_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("edits cannot be merged while esync.enabled is off"),
				 errhint("Set esync.enabled to on.")));
	esync_submission_lock(b);
	esync_submission_find(b);
	for (int i = 0; i < b->n; i++)
	{
		esync_temporary_prepare(b, &b->items[i]);
		b->items[i].wrong = b->items[i].status == ESYNC_REJECTED;
		b->items[i].final |= b->items[i].wrong;
	}
	esync_order(b);
	list_rows(b);
	set_constraints(false);		/* what the caller did before is not these events' fault */
	run_all(b);
	while (try_again(b))
		;
	take_parts(b);
	restore_constraints();
	esync_side_close(&b->submission);
	esync_temporary_keep(b);
	esync_rejected_note(b);
	if (!b->is_retry && (b->code == NULL || strcmp(b->code, "denied") != 0))
		esync_submission_device(b);
	follow_twins(b);
}

PG_FUNCTION_INFO_V1(esync_submit);

/* esync_submit(batch jsonb, context jsonb) */
Datum
esync_submit(PG_FUNCTION_ARGS)
{
	EsyncBatch *b;

	if (PG_ARGISNULL(0))
		esync_batch_refuse(ERRCODE_NULL_VALUE_NOT_ALLOWED, "batch must not be null");
	PreventCommandIfReadOnly("esync_submit()");
	if (!PG_ARGISNULL(1))
		esync_context_set(PG_GETARG_JSONB_P(1));
	b = esync_batch_begin("esync_submit");
	esync_batch_parse(b, PG_GETARG_JSONB_P(0));
	esync_submit_run(b);
	PG_RETURN_JSONB_P(esync_answer(b));
}
