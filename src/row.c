/*
 * row.c: one row as a whole: its version, and the head of esync_row.
 *
 * A row that the stream does not know yet is read from the table, as the
 * caller; it has version 1, the one that its ground will take.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "history.h"

/* "a, b": the columns that are recorded and that the caller may read. */
static char *
readable_columns(EsyncTracked *t, const EsyncRights *rights, bool open, EsyncAttr *attrs,
				 int *nattrs)
{
	StringInfoData list;

	initStringInfo(&list);
	*nattrs = 0;
	for (int i = 0; i < t->ncolumns; i++)
	{
		const EsyncField *f = &t->fields[t->columns[i].field];

		if (!esync_rights_field(rights, f))
			continue;
		appendStringInfo(&list, "%s%s", *nattrs == 0 ? "" : ", ", quote_identifier(f->name));
		attrs[*nattrs] = (EsyncAttr) {f->name, *nattrs + 1, f->typid, f->typmod,
			f->masked && !open};
		(*nattrs)++;
	}
	return list.data;
}

/*
 * The row as the table has it, asked as the caller, policies included; NULL if
 * there is none.  Masked columns are shown as they are where open is set.
 */
static Jsonb *
read_row(EsyncTracked *t, const EsyncRights *rights, bool open, Datum *key)
{
	MemoryContext caller = CurrentMemoryContext;
	EsyncAttr  *attrs = palloc(sizeof(EsyncAttr) * Max(t->ncolumns, 1));
	Jsonb	   *row = NULL;
	int			nattrs;
	char	   *columns = readable_columns(t, rights, open, attrs, &nattrs);

	if (nattrs == 0 || !esync_rights_key(t, rights))
		return NULL;
	if (esync_rights_select(t, columns, key))
	{
		Datum	   *values = palloc(sizeof(Datum) * nattrs);
		bool	   *isnull = palloc(sizeof(bool) * nattrs);
		EsyncShape *shape = esync_shape_make(CurrentMemoryContext, attrs, nattrs);

		heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, values, isnull);
		MemoryContextSwitchTo(caller);
		row = esync_encode_row(shape, values, isnull);
	}
	SPI_finish();
	return row;
}

/* The same for a row that the stream does not know yet, masked as there. */
Jsonb *
esync_row_read(EsyncTracked *t, const EsyncRights *rights, Datum *key)
{
	return read_row(t, rights, false, key);
}

/* The row as its events have it, less what the caller may not read; NULL if gone. */
static Jsonb *
folded_row(const EsyncReading *reading)
{
	const EsyncTracked *t = reading->tracked;
	EsyncFold	fold;

	esync_fold_init(&fold, t->fields, t->nfields, t->tombstone_field);
	for (int i = 0; i < reading->events->n; i++)
		esync_fold_add(&fold, &reading->events->e[i], i);
	return esync_rights_filter(reading->tracked, &reading->rights,
							   esync_fold_state(&fold, true), false, PG_INT64_MAX);
}

/* Sets a member of an object; the value is the caller's to fill in. */
static JsonbValue *
set_member(EsyncMember *member, const char *key)
{
	member->key = key;
	member->keylen = strlen(key);
	return &member->value;
}

/*
 * {"table", "key", "row", "version", "deleted"} of an aggregate.  Without the
 * row where policies do not show it.
 */
static Jsonb *
row_head(const EsyncReading *reading, Jsonb *row, int64 version, bool deleted)
{
	const EsyncTracked *t = reading->tracked;
	EsyncMember members[5];
	JsonbValue *value;
	int			n = 0;

	value = set_member(&members[n++], "table");
	value->type = jbvString;
	value->val.string.val = esync_tracked_name(t);
	value->val.string.len = strlen(value->val.string.val);

	value = set_member(&members[n++], "key");
	esync_json_root(esync_key_object(reading->tracked, reading->aggregate_id), value);

	value = set_member(&members[n++], "version");
	value->type = jbvNumeric;
	value->val.numeric = int64_to_numeric(version);

	value = set_member(&members[n++], "deleted");
	value->type = jbvBool;
	value->val.boolean = deleted;

	if (!reading->rls_hidden)
	{
		value = set_member(&members[n++], "row");
		if (row == NULL)
			value->type = jbvNull;
		else
			esync_json_root(row, value);
	}
	return esync_json_object(n, members);
}

/* what is asked of the last event */
typedef struct Last
{
	int64		version;		/* 0: there is none */
	bool		row;			/* it left a row */
	bool		deleted;
} Last;

/* Callback: takes it from the last event, which comes first. */
static bool
take_last(EsyncEvent *event, int index, void *arg)
{
	Last	   *last = arg;

	last->version = event->version;
	last->row = event->row_xmin != InvalidTransactionId;
	last->deleted = (event->flags & ESYNC_FLAG_DELETED) != 0;
	return false;
}

/* The last event of the row, in whichever of its lives. */
static Last
last_of(const EsyncReading *reading)
{
	Last		last = {0};

	esync_stream_back(reading->tracked, reading->aggregate_id, NULL, GetActiveSnapshot(), false,
					  take_last, &last);
	return last;
}

PG_FUNCTION_INFO_V1(esync_row_head);

/*
 * esync.row_head(tbl regclass, key text): NULL for what is neither event nor
 * row, and for a living row that policies hide.
 */
Datum
esync_row_head(PG_FUNCTION_ARGS)
{
	EsyncReading reading;
	Jsonb	   *row = NULL;
	Last		last;

	if (!esync_history_open(fcinfo, true, ESYNC_WANT_FOLD, &reading))
		PG_RETURN_NULL();
	last = last_of(&reading);
	if (last.version == 0)
	{
		row = esync_row_read(reading.tracked, &reading.rights, reading.key);
		if (row == NULL)
			PG_RETURN_NULL();
		PG_RETURN_JSONB_P(row_head(&reading, row, 1, false));
	}
	if (reading.rls_hidden && last.row)
		PG_RETURN_NULL();
	if (!reading.rls_hidden)
		row = folded_row(&reading);
	PG_RETURN_JSONB_P(row_head(&reading, row, last.version, last.deleted));
}

PG_FUNCTION_INFO_V1(esync_version_any);
PG_FUNCTION_INFO_V1(esync_version_text);

/*
 * The version of a row as of the statement's snapshot; 1 for a row without
 * events, NULL where there is neither.  Row policies hide it with the row, but
 * the version of a row that is gone is told to whoever knows the key.
 */
static Datum
version_of(FunctionCallInfo fcinfo, bool key_is_text)
{
	EsyncReading reading;
	Last		last;

	if (!esync_history_take(fcinfo, key_is_text, &reading))
		PG_RETURN_NULL();
	last = last_of(&reading);
	if ((last.version == 0 || (reading.rights.rls && last.row)) &&
		!esync_rights_row(reading.tracked, &reading.rights, reading.key))
		PG_RETURN_NULL();
	PG_RETURN_INT64(Max(last.version, 1));
}

/* esync_version(tbl regclass, key "any") */
Datum
esync_version_any(PG_FUNCTION_ARGS)
{
	return version_of(fcinfo, false);
}

/* esync_version(tbl regclass, key text) */
Datum
esync_version_text(PG_FUNCTION_ARGS)
{
	return version_of(fcinfo, true);
}

PG_FUNCTION_INFO_V1(esync_checkout);

/*
 * The server's clock, not later than the snapshot at hand: what was committed
 * up to then is seen by it.
 */
static TimestampTz
snapshot_clock(void)
{
	return IsolationUsesXactSnapshot() ? GetCurrentTransactionStartTimestamp() :
		GetCurrentStatementStartTimestamp();
}

/* {"row", "version", "branch_timestamp", "deleted"} */
static Jsonb *
checkout(Jsonb *row, int64 version, bool deleted)
{
	EsyncMember members[4];
	JsonbValue *value;

	value = set_member(&members[0], "row");
	value->type = jbvNull;
	if (row != NULL)
		esync_json_root(row, value);
	value = set_member(&members[1], "version");
	value->type = jbvNumeric;
	value->val.numeric = int64_to_numeric(version);
	esync_json_time(snapshot_clock(), set_member(&members[2], "branch_timestamp"));
	value = set_member(&members[3], "deleted");
	value->type = jbvBool;
	value->val.boolean = deleted;
	return esync_json_object(4, members);
}

/*
 * esync_checkout(tbl regclass, key text): row and version of one snapshot, to
 * be edited offline.  NULL for a key that never was, and for a living row that
 * policies hide.
 */
Datum
esync_checkout(PG_FUNCTION_ARGS)
{
	EsyncReading reading;
	Jsonb	   *row;
	Last		last;

	if (!esync_history_take(fcinfo, true, &reading))
		PG_RETURN_NULL();
	last = last_of(&reading);
	row = read_row(reading.tracked, &reading.rights, true, reading.key);
	if (row == NULL &&
		(last.version == 0 ||
		 (last.row && (reading.rights.rls || !esync_rights_key(reading.tracked, &reading.rights)))))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(checkout(row, Max(last.version, 1),
							   row == NULL || (last.row && last.deleted)));
}
