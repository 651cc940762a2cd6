/*
 * changes.c: what is new since a cursor: of which tables, whether the cursor is
 * good, and the answer.
 *
 * A run goes from what the cursor has seen to what the snapshot at hand sees, in
 * pages; as long as one is open the snapshot stays.  run.c finds the events,
 * effect.c says what of them is told.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "changes.h"

/* no more events a page, whatever is asked for */
#define MAX_ROWS		10000

/* events that wait are counted exactly up to four times as many */
#define COUNTED_PAGE	2500

/* ------------------------------------------------------------------- sources */

/*
 * The tables themselves are not locked: what is asked of them is in the catalog,
 * and no ALTER TABLE that takes its time may hold up who reads of others.
 */

/* Adds a table of which changes are told. */
static void
add_source(EsyncRun *run, EsyncTracked *t, const EsyncRights *rights)
{
	EsyncSource *s = &run->sources[run->nsources++];

	memset(s, 0, sizeof(EsyncSource));
	s->t = t;
	s->rights = *rights;
	s->cxt = run->cxt;
	s->name = esync_tracked_name(t);
}

/* The table, if the caller may read it with its key; nobody named it. */
static void
add_if_readable(EsyncRun *run, Oid relid)
{
	EsyncTracked *t = esync_tracked_get(relid);
	EsyncRights rights;

	if (t != NULL && t->is_root && t->broken == NULL &&
		SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		esync_rights_try(t, &rights) && esync_rights_key(t, &rights))
		add_source(run, t, &rights);
}

/* A table that was named: it must be tracked, and the caller may read it. */
static void
add_named(EsyncRun *run, Oid relid)
{
	EsyncTracked *t;
	EsyncRights rights;

	t = esync_tracked_need(relid);
	esync_rights_read(t, &rights);
	if (!esync_rights_key(t, &rights))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the key of table \"%s\"", t->table_name),
				 errhint("Changes are told by key: SELECT on the key columns is needed.")));
	for (int i = 0; i < run->nsources; i++)
		if (run->sources[i].t->root == t->root)
			return;
	add_source(run, t, &rights);
}

/* Finds the tables of which changes are told. */
static void
find_sources(EsyncRun *run)
{
	ArrayType  *tables = run->asked->tables;
	Datum	   *relids;
	bool	   *nulls;
	int			n;
	List	   *all;
	ListCell   *lc;

	if (tables == NULL)
	{
		all = esync_tracked_tables();
		run->sources = palloc((list_length(all) + 1) * sizeof(EsyncSource));
		foreach(lc, all)
			add_if_readable(run, lfirst_oid(lc));
		return;
	}
	deconstruct_array(tables, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &relids, &nulls, &n);
	run->sources = palloc((n + 1) * sizeof(EsyncSource));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("tables must not contain nulls"),
					 errhint("Leave \"tables\" out for all tables that you may read.")));
		add_named(run, DatumGetObjectId(relids[i]));
	}
}

/*
 * Is this the history of a table that was dropped, and is another one tracked
 * under its name?  To who reads changes that is one table, whose versions begin
 * anew.
 */
static bool
is_replaced(const char *schema, const char *name)
{
	Oid			nspid = get_namespace_oid(schema, true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(name, nspid) : InvalidOid;

	return OidIsValid(relid) && esync_tracked_get(relid) != NULL;
}

/* Adds a table behind the others. */
static EsyncTableRun *
add_table(EsyncTableRun *tables, int *n, int32 id)
{
	if (*n > 0 && tables[*n - 1].last == id - 1)
	{
		tables[*n - 1].last = id;
		return tables;
	}
	if (*n % 16 == 0)
		tables = tables ? repalloc(tables, (*n + 16) * sizeof(EsyncTableRun)) :
			palloc(16 * sizeof(EsyncTableRun));
	tables[(*n)++] = (EsyncTableRun) {id, id};
	return tables;
}

/* Finds which histories are there, whoever may read them, and of which the table is. */
static void
find_present(EsyncRun *run)
{
	ListCell   *lc;

	foreach(lc, esync_tracked_list())
	{
		EsyncListed *t = lfirst(lc);

		if (!OidIsValid(t->relation) && is_replaced(t->schema_name, t->table_name))
			continue;
		run->present = add_table(run->present, &run->npresent, t->table_id);
		if (OidIsValid(t->relation))
			run->living = add_table(run->living, &run->nliving, t->table_id);
	}
}

static void
close_sources(EsyncRun *run)
{
	for (int i = 0; i < run->nsources; i++)
		esync_leaf_close(&run->sources[i].reader);
}

/* --------------------------------------------------------- which cursor is good */

static int
int32_cmp(const void *a, const void *b)
{
	int32		x = *(const int32 *) a;
	int32		y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

/* 0 for NULL. */
static uint32
hash_if_any(const text *t)
{
	return t == NULL ? 0 :
		hash_bytes((const unsigned char *) VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* Writes down in the cursor what was asked for: it is good for no more than that. */
static void
note_filter(EsyncRun *run, EsyncCursor *c)
{
	const EsyncAsked *asked = run->asked;

	c->ntables = -1;
	if (asked->tables != NULL)
	{
		c->nknown = 0;
		c->ntables = run->nsources;
		c->tables = palloc((run->nsources + 1) * sizeof(int32));
		for (int i = 0; i < run->nsources; i++)
			c->tables[i] = run->sources[i].t->table_id;
		qsort(c->tables, c->ntables, sizeof(int32), int32_cmp);
	}
	c->has_tenant = asked->tenant != NULL;
	c->tenant = hash_if_any(asked->tenant);
	c->has_device = asked->device_id != NULL;
	c->device = hash_if_any(asked->device_id);
}

/* Is more asked for than the cursor was made for?  It was not kept then. */
static bool
asks_for_more(EsyncRun *run, const EsyncCursor *c)
{
	EsyncCursor now;

	note_filter(run, &now);
	if (c->has_tenant && (!now.has_tenant || now.tenant != c->tenant))
		return true;
	/* the events of that device were left out: who is not that device has never had them */
	if (c->has_device && (!now.has_device || now.device != c->device))
		return true;
	if (c->ntables < 0)
		return false;
	for (int i = 0; i < now.ntables; i++)
		if (bsearch(&now.tables[i], c->tables, c->ntables, sizeof(int32), int32_cmp) == NULL)
			return true;
	return now.ntables < 0;
}

/* Is the history of one of these tables not there any more?  Both ascend. */
static bool
is_any_gone(const EsyncRun *run, const EsyncTableRun *known, int n)
{
	int			k = 0;

	for (int i = 0; i < n; i++)
	{
		while (k < run->npresent && run->present[k].last < known[i].last)
			k++;
		if (k == run->npresent || run->present[k].first > known[i].first)
			return true;
	}
	return false;
}

/*
 * The cursor is about to know the tables that are here, beside those that it
 * knows: of these some may have been dropped since, and some are yet to come where
 * it has seen what is not here.
 */
static void
know_tables(EsyncRun *run, EsyncCursor *c)
{
	EsyncTableRun *known = NULL;
	Bitmapset  *all = NULL;
	int			id = -1;
	int			n = 0;

	for (int i = 0; i < run->nliving; i++)
		all = bms_add_range(all, run->living[i].first, run->living[i].last);
	for (int i = 0; i < c->nknown; i++)
		all = bms_add_range(all, c->known[i].first, c->known[i].last);
	while ((id = bms_next_member(all, id)) >= 0)
		known = add_table(known, &n, id);
	c->nknown = n;
	c->known = known;
}

/*
 * Was the history of a table dropped that the cursor knew?  Then events may be
 * gone that it has not seen, and where the table is tracked again its versions
 * begin anew, so that a copy of before would take none of them.  Nobody can tell
 * where the cursor has seen more than is here: the table may be yet to come.
 */
static bool
is_dropped(const EsyncRun *run, const EsyncCursor *c)
{
	if (run->behind)
		return false;
	if (is_any_gone(run, c->known, c->nknown))
		return true;
	for (int i = 0; i < c->ntables; i++)
		if (is_any_gone(run, &(EsyncTableRun) {c->tables[i], c->tables[i]}, 1))
			return true;
	return false;
}

/* Was this table one of those that the cursor was made for? */
static bool
was_asked_for(const EsyncCursor *c, int32 table_id)
{
	return c->ntables < 0 ||
		bsearch(&table_id, c->tables, c->ntables, sizeof(int32), int32_cmp) != NULL;
}

/* Was the history of a table dropped that the cursor and its consumer were made for? */
static bool
is_taken_away(const EsyncRun *run, const EsyncCursor *c)
{
	for (int i = 0; !run->behind && i < run->asked->nids; i++)
	{
		int32		id = run->asked->ids[i];

		if (was_asked_for(c, id) && is_any_gone(run, &(EsyncTableRun) {id, id}, 1))
			return true;
	}
	return false;
}

/* The least transaction that was not seen. */
static uint64
first_unseen(const EsyncSeen *seen)
{
	return seen->n > 0 ? seen->xip[0] : seen->xmax;
}

/* Was something purged that the cursor has not seen? */
static bool
is_pruned(EsyncRun *run, const EsyncCursor *here)
{
	const EsyncCursor *c = run->c;

	for (int i = 0; c->seen.xmax > 0 && i < run->nsources; i++)
	{
		const EsyncTracked *t = run->sources[i].t;

		if (t->pruned && t->pruned_through >= first_unseen(&c->seen) &&
			t->pruned_through < here->next)
			return true;
	}
	return false;
}

/* a search for one event */
typedef struct Search
{
	EsyncLeafReader *reader;
	const EsyncWitness *witness;
	bool		found;
} Search;

/* Callback: is it that event? */
static bool
is_witness(const EsyncPlaceOfEvent *place, void *arg)
{
	Search	   *search = arg;
	EsyncEvent	e;
	ItemPointerData tid = place->tid;

	search->found = esync_leaf_fetch(search->reader, &tid, &e) &&
		e.commit == search->witness->commit;
	return !search->found;
}

/*
 * Is the witness not there any more, and was not purged?  Then this is not the
 * database in which the cursor was made, but one that was set back; or the
 * history of a table was dropped that the cursor may not have seen to its end.
 * Where somebody has locked that table nobody can tell now, and nobody waits.
 */
static bool
is_lost(const EsyncCursor *c, const EsyncCursor *here)
{
	const EsyncWitness *witness = &c->witness;
	Oid			leaf;
	Oid			relid;
	EsyncTracked *t;
	EsyncLeafReader reader;
	Search		search = {&reader, witness, false};

	if (witness->event_id == 0 || !esync_seen_has(&here->seen, witness->xid))
		return false;
	leaf = get_relname_relid(psprintf("event_%d", witness->table_id),
							 get_namespace_oid("esync", false));
	if (!OidIsValid(leaf))
		return was_asked_for(c, witness->table_id);
	if (!esync_leaf_try_open(&reader, leaf, GetActiveSnapshot()))
		return false;
	if (reader.xid_index != NULL)
		esync_leaf_find(&reader, witness->xid, witness->event_id, is_witness, &search);
	else
		search.found = true;	/* it would take too long to look */
	esync_leaf_close(&reader);
	if (search.found)
		return false;
	relid = esync_tracked_relation(witness->table_id);
	t = OidIsValid(relid) ? esync_tracked_get(relid) : NULL;
	return t == NULL || !t->pruned || t->pruned_through < witness->xid;
}

/*
 * Reads a cursor: why it is of no use; NULL: it is good, or it is ahead.  Whether
 * more is asked for than it was made for matters where it is to be used.
 */
static const char *
take_cursor(EsyncRun *run, const EsyncCursor *here, const char *string, bool use,
			EsyncStanding *standing)
{
	EsyncCursor *c = run->c;
	const char *reason;

	esync_cursor_read(string, c);
	run->behind = !esync_seen_covers(&here->seen, &c->seen) ||
		(c->open && !esync_seen_covers(&here->seen, &c->page));
	*standing = esync_cursor_stand(c, here, &reason);
	if (*standing == ESYNC_CURSOR_LOST)
		return reason;
	if (is_taken_away(run, c) || (c->ntables < 0 && is_dropped(run, c)))
		return "dropped";
	if (use && asks_for_more(run, c))
		return is_dropped(run, c) ? "dropped" : "filter";
	if (is_lost(c, here))
		return "lost";
	if (is_pruned(run, here))
		return "pruned";
	return NULL;
}

/* ----------------------------------------------------------------- the answer */

/* A run begins: the snapshot of its pages is that of now, and so are the tables. */
static void
open_page(EsyncRun *run, const EsyncCursor *here)
{
	EsyncCursor *c = run->c;

	know_tables(run, c);
	c->open = true;
	c->wide = false;
	c->at = 0;
	c->page = here->seen;
	c->page_next = here->next;
	c->page_floor = here->floor;
}

/*
 * The cursor is about to know what is here.  On one timeline it may know of more
 * WAL already, from a server that was further.
 */
static void
move_here(EsyncCursor *c, const EsyncCursor *here)
{
	c->lsn = c->tli == here->tli ? Max(c->lsn, here->lsn) : here->lsn;
	c->tli = here->tli;
}

/* A run ends: all that its pages see was seen. */
static void
close_page(EsyncCursor *c)
{
	c->seen = esync_seen_join(&c->seen, &c->page);
	c->next = c->page_next;
	c->floor = c->page_floor;
	c->open = c->wide = false;
	c->witness = esync_run_witness(&c->seen);
}

/* {"reset", "cursor", "reason", "changes", "has_more", "server_now"} */
static Jsonb *
answer(const EsyncRun *run, const text *cursor, const char *reason)
{
	EsyncJson	json;
	JsonbValue	v;

	esync_json_init(&json, run->bytes + 512);
	esync_json_open_object(&json, 6);
	esync_json_key(&json, "reset", 5);
	esync_json_key(&json, "cursor", 6);
	esync_json_key(&json, "reason", 6);
	esync_json_key(&json, "changes", 7);
	esync_json_key(&json, "has_more", 8);
	esync_json_key(&json, "server_now", 10);
	esync_json_bool(&json, reason != NULL);
	if (cursor)
		esync_json_string(&json, VARDATA_ANY(cursor), VARSIZE_ANY_EXHDR(cursor));
	else
		esync_json_null(&json);
	if (reason)
		esync_json_string(&json, reason, strlen(reason));
	else
		esync_json_null(&json);
	esync_json_open_array(&json, run->count);
	for (int i = 0; i < run->count; i++)
	{
		esync_json_root(run->changes[i], &v);
		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	esync_json_bool(&json, run->more);
	esync_json_time(GetCurrentTimestamp(), &v);
	esync_json_value(&json, &v);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Runs one page of a good cursor; the text of the one that follows. */
static text *
go_on(EsyncRun *run, const EsyncCursor *here, const char *string)
{
	EsyncCursor *c = run->c;
	bool		opened = !c->open;

	if (opened)
	{
		if (string != NULL && esync_seen_covers(&c->seen, &here->seen))
			return cstring_to_text(string);
		open_page(run, here);
		move_here(c, here);
	}
	else if (c->tli != here->tli)
		move_here(c, here);
	if (!run->asked->start)
		esync_run_page(run);
	if (!run->asked->start && !run->more)
		close_page(c);
	else if (opened)
		c->witness = esync_run_witness(&c->page);
	/* nothing was given, so the cursor as it was is as good, and needs no flush */
	if (string != NULL && run->count == 0 && (run->asked->keep || !esync_cursor_is_durable(c)))
		return cstring_to_text(string);
	esync_cursor_make_durable(c);
	note_filter(run, c);
	return esync_cursor_write(c);
}

/* Starts at a time: `string` is none of the other cursors. */
static text *
go_on_since(EsyncRun *run, const EsyncCursor *here, const char *string)
{
	TimestampTz since;

	if (!esync_clock_parse(string, &since))
		esync_cursor_read(string, run->c);	/* it is no cursor either: the error */
	open_page(run, here);
	run->c->at = esync_run_last_before(run, since - (int64) esync_since_overlap * 1000);
	run->c->wide = true;
	return go_on(run, here, NULL);
}

/* Makes a run ready to read on from the beginning; *here is where we are. */
static void
begin_run(EsyncRun *run, EsyncCursor *c, EsyncCursor *here)
{
	run->cxt = CurrentMemoryContext;
	esync_cursor_here(here);
	run->epoch = here->epoch;
	run->c = c;
	*c = *here;
	c->seen = (EsyncSeen) {0};
}

/* Answers what is new since a cursor, as it was given (NULL: the beginning). */
void
esync_changes_read(const char *cursor, const EsyncAsked *asked, EsyncAnswer *a)
{
	EsyncRun			run = {.asked = asked};
	EsyncStanding standing = ESYNC_CURSOR_GOOD;
	EsyncCursor here;
	EsyncCursor c;

	if (asked->max_rows < 1 || asked->max_rows > MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must be between 1 and %d", MAX_ROWS)));
	begin_run(&run, &c, &here);
	find_sources(&run);
	find_present(&run);
	a->reason = NULL;
	if (cursor == NULL)
		a->cursor = go_on(&run, &here, NULL);
	else if (strcmp(cursor, "now") == 0)
	{
		esync_cursor_make_durable(&here);
		here.witness = esync_run_witness(&here.seen);
		know_tables(&run, &here);
		note_filter(&run, &here);
		a->cursor = esync_cursor_write(&here);
	}
	else if (!esync_cursor_is(cursor))
		a->cursor = go_on_since(&run, &here, cursor);
	else
	{
		a->reason = take_cursor(&run, &here, cursor, true, &standing);
		a->cursor = a->reason ? NULL :
			standing == ESYNC_CURSOR_AHEAD || asked->start ? cstring_to_text(cursor) :
			go_on(&run, &here, cursor);
	}
	close_sources(&run);
	a->count = run.count;
	a->document = answer(&run, a->cursor, a->reason);
}

/*
 * How far behind a cursor is: events that were not read yet, or how many there
 * are at least, and the commit time of the first; for whoever asks.
 */
bool
esync_changes_behind(const char *cursor, const int32 *tables, int ntables, int64 *events,
					 TimestampTz *since)
{
	EsyncAsked	asked = {.max_rows = COUNTED_PAGE, .nids = ntables, .ids = tables};
	EsyncRights rights = {.all = true};
	EsyncRun			run = {.asked = &asked};
	EsyncStanding standing = ESYNC_CURSOR_GOOD;
	const char *reason = NULL;
	List	   *all = esync_tracked_tables();
	EsyncCursor here;
	EsyncCursor c;
	ListCell   *lc;

	begin_run(&run, &c, &here);
	run.sources = palloc((list_length(all) + 1) * sizeof(EsyncSource));
	foreach(lc, all)
	{
		EsyncTracked *t = esync_tracked_get(lfirst_oid(lc));
		bool		asked_for = ntables < 0;

		for (int i = 0; t && i < ntables; i++)
			asked_for |= tables[i] == t->table_id;
		if (t && t->is_root && asked_for)
			add_source(&run, t, &rights);
	}
	if (cursor != NULL)
	{
		find_present(&run);
		reason = take_cursor(&run, &here, cursor, false, &standing);
	}
	if (reason != NULL || standing != ESYNC_CURSOR_GOOD)
		return false;
	if (!c.open)
		open_page(&run, &here);
	esync_run_count(&run, events, since);
	close_sources(&run);
	return true;
}

/* ------------------------------------------------------------------------- SQL */

PG_FUNCTION_INFO_V1(esync_changes);

/* esync_changes(cursor, max_rows, tables, device_id, tenant, rows) */
Datum
esync_changes(PG_FUNCTION_ARGS)
{
	EsyncAsked	asked = {.max_rows = ESYNC_PAGE};
	EsyncAnswer answer;

	if (!PG_ARGISNULL(1))
		asked.max_rows = PG_GETARG_INT32(1);
	if (!PG_ARGISNULL(2))
		asked.tables = PG_GETARG_ARRAYTYPE_P(2);
	if (!PG_ARGISNULL(3))
		asked.device_id = PG_GETARG_TEXT_PP(3);
	if (!PG_ARGISNULL(4))
		asked.tenant = PG_GETARG_TEXT_PP(4);
	asked.rows = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	esync_changes_read(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), &asked,
					   &answer);
	PG_RETURN_JSONB_P(answer.document);
}

PG_FUNCTION_INFO_V1(esync_touch);

/* esync_touch(tbl regclass, key text): every reader of changes is told the row once more */
Datum
esync_touch(PG_FUNCTION_ARGS)
{
	EsyncTracked *t;
	text	   *aggregate_id;
	Datum	   *key;

	PreventCommandIfReadOnly("esync_touch()");
	esync_rights_need_table(fcinfo);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null"),
				 errhint("Give the key of a row as text, of several columns that of a JSON array or object.")));
	LockRelationOid(PG_GETARG_OID(0), RowExclusiveLock);
	t = esync_tracked_need(PG_GETARG_OID(0));
	key = palloc(t->nkeys * sizeof(Datum));
	aggregate_id = esync_key_from_text(t, PG_GETARG_TEXT_PP(1), key);
	if (!esync_apply_touch(t, aggregate_id, key))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("table \"%s\" has no row \"%s\" that you may change", t->table_name,
						text_to_cstring(aggregate_id))));
	PG_RETURN_VOID();
}
