/*
 * cursor.c: what a reader of changes has seen, as opaque text.
 *
 * A cursor is a snapshot: which transactions were seen, not up to which number.
 * So nothing is skipped that commits late, and nothing waits for a transaction
 * that stays open.  With it go the life of the database (cluster, database,
 * epoch, timeline) and how much WAL it takes to know all that the cursor knows:
 * where these do not fit, nobody can say what was seen, and the reader begins anew.
 *
 * Only top-level transactions count, as esync.event.xid has them.  The caller's
 * own is running, whatever its own snapshot shows.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/timeline.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "changes.h"

/* what every cursor of this form begins with */
#define PREFIX "e1."

/* more than any honest cursor has */
#define MAX_CURSOR	(16 * 1024 * 1024)

/* ----------------------------------------------------------- what was seen */

static int
xid_cmp(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* A transaction id of a snapshot with its epoch; it is near next. */
static uint64
full_xid(FullTransactionId next, TransactionId xid)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

/*
 * What a snapshot sees.  One that was taken in recovery has all running
 * transactions among the subtransactions.
 */
EsyncSeen
esync_seen_now(Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	bool		recovery = snapshot->takenDuringRecovery;
	TransactionId *xip = recovery ? snapshot->subxip : snapshot->xip;
	int			n = recovery ? snapshot->subxcnt : (int) snapshot->xcnt;
	EsyncSeen	seen;
	int			kept = 0;

	if (snapshot->snapshot_type != SNAPSHOT_MVCC)
		elog(ERROR, "changes can only be read under an MVCC snapshot");
	seen.xmax = full_xid(next, snapshot->xmax);
	seen.xip = palloc((n + 1) * sizeof(uint64));
	for (int i = 0; i < n; i++)
		seen.xip[i] = full_xid(next, xip[i]);
	if (FullTransactionIdIsValid(own) && U64FromFullTransactionId(own) < seen.xmax)
		seen.xip[n++] = U64FromFullTransactionId(own);
	qsort(seen.xip, n, sizeof(uint64), xid_cmp);
	for (int i = 0; i < n; i++)
		if (seen.xip[i] < seen.xmax && (kept == 0 || seen.xip[kept - 1] != seen.xip[i]))
			seen.xip[kept++] = seen.xip[i];
	seen.n = kept;
	return seen;
}

/* Was this transaction seen? */
bool
esync_seen_has(const EsyncSeen *seen, uint64 xid)
{
	if (xid >= seen->xmax)
		return false;
	return seen->n == 0 ||
		bsearch(&xid, seen->xip, seen->n, sizeof(uint64), xid_cmp) == NULL;
}

/* Does a see all that b sees? */
bool
esync_seen_covers(const EsyncSeen *a, const EsyncSeen *b)
{
	uint64		beyond = 0;

	for (int i = 0; i < a->n; i++)
		if (esync_seen_has(b, a->xip[i]))
			return false;
	if (b->xmax <= a->xmax)
		return true;
	for (int i = 0; i < b->n; i++)
		beyond += b->xip[i] >= a->xmax;
	return beyond == b->xmax - a->xmax;
}

/* What either of them sees. */
EsyncSeen
esync_seen_join(const EsyncSeen *a, const EsyncSeen *b)
{
	EsyncSeen	seen = {Max(a->xmax, b->xmax), 0, palloc((a->n + b->n + 1) * sizeof(uint64))};
	int			n = 0;

	for (int i = 0; i < a->n; i++)
		if (!esync_seen_has(b, a->xip[i]))
			seen.xip[n++] = a->xip[i];
	for (int i = 0; i < b->n; i++)
		if (!esync_seen_has(a, b->xip[i]))
			seen.xip[n++] = b->xip[i];
	qsort(seen.xip, n, sizeof(uint64), xid_cmp);
	for (int i = 0; i < n; i++)
		if (seen.n == 0 || seen.xip[seen.n - 1] != seen.xip[i])
			seen.xip[seen.n++] = seen.xip[i];
	return seen;
}

/* ------------------------------------------------------- where and when we are */

/*
 * The last event_id that was given out; on a standby maybe a later one, since WAL
 * tells of a sequence's values in advance.
 */
int64
esync_cursor_last_id(void)
{
	Relation	rel = relation_open(esync_relation_oid("event_id_seq"), AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	Form_pg_sequence_data data;
	Page		page;
	int64		last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	data = (Form_pg_sequence_data)
		((char *) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)) +
		 ((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)))->t_hoff);
	last = data->is_called ? data->last_value : data->last_value - 1;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return last;
}

/* The end of the WAL that was written, which can be flushed up to there. */
static XLogRecPtr
insert_end(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();
	bool		first = XLogSegmentOffset(lsn, wal_segment_size) < XLOG_BLCKSZ;
	uint32		header = first ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	/* behind the header of a page on which there is nothing else yet */
	if (lsn % XLOG_BLCKSZ == header)
		lsn -= header;
	return lsn;
}

/*
 * A cursor for the present: the active snapshot, and what tells this life of
 * the database from others.  The floor is read before next, so that whoever
 * begins later takes a greater event_id.  Not so on a standby: a transaction of
 * which no WAL has come yet may have taken its event_id long ago.
 */
void
esync_cursor_here(EsyncCursor *c)
{
	memset(c, 0, sizeof(EsyncCursor));
	c->system = GetSystemIdentifier();
	c->database = MyDatabaseId;
	c->stream = esync_relation_oid("event");
	c->epoch = esync_epoch();
	c->seen = esync_seen_now(GetActiveSnapshot());
	c->floor = RecoveryInProgress() ? -1 : esync_cursor_last_id();
	c->next = U64FromFullTransactionId(ReadNextFullTransactionId());
	c->ntables = -1;
	if (RecoveryInProgress())
		c->lsn = GetXLogReplayRecPtr(&c->tli);
	else
	{
		c->lsn = insert_end();
		c->tli = GetWALInsertionTimeLine();
	}
}

/* Does what the cursor knows of survive a crash? */
bool
esync_cursor_is_durable(const EsyncCursor *c)
{
	return RecoveryInProgress() || GetFlushRecPtr(NULL) >= c->lsn;
}

/* Sees to it: after a crash other transactions would bear the numbers of those that it lost. */
void
esync_cursor_make_durable(const EsyncCursor *c)
{
	if (!esync_cursor_is_durable(c))
		XLogFlush(c->lsn);
}

/* ------------------------------------------------------------ as bytes */

static void
put_number(StringInfo s, uint64 n)
{
	while (n >= 0x80)
	{
		appendStringInfoChar(s, (char) (n | 0x80));
		n >>= 7;
	}
	appendStringInfoChar(s, (char) n);
}

/* The transactions as distances from each other. */
static void
put_seen(StringInfo s, const EsyncSeen *seen)
{
	uint64		last = 0;

	put_number(s, seen->xmax);
	put_number(s, seen->n);
	for (int i = 0; i < seen->n; i++)
	{
		put_number(s, seen->xip[i] - last);
		last = seen->xip[i];
	}
}

/* a cursor being read */
typedef struct Reader
{
	const unsigned char *p;
	const unsigned char *end;
	bool		bad;
} Reader;

static uint64
get_number(Reader *r)
{
	uint64		n = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		unsigned char byte;

		if (r->p == r->end)
			break;
		byte = *r->p++;
		n |= (uint64) (byte & 0x7f) << shift;
		if (byte < 0x80)
			return n;
	}
	r->bad = true;
	return 0;
}

/* How many of something follow: no more than there are bytes. */
static int
get_count(Reader *r)
{
	uint64		n = get_number(r);

	if (n > (uint64) (r->end - r->p))
	{
		r->bad = true;
		return 0;
	}
	return (int) n;
}

static EsyncSeen
get_seen(Reader *r)
{
	EsyncSeen	seen;
	uint64		last = 0;

	seen.xmax = get_number(r);
	seen.n = get_count(r);
	seen.xip = palloc((seen.n + 1) * sizeof(uint64));
	for (int i = 0; i < seen.n; i++)
		seen.xip[i] = last += get_number(r);
	return seen;
}

/* bits that tell which parts there are */
#define PART_PAGE		0x01
#define PART_WIDE		0x02
#define PART_WITNESS		0x04
#define PART_TABLES		0x08
#define PART_TENANT		0x10
#define PART_KNOWN		0x20
#define PART_DEVICE		0x40

/* Runs of tables as distances and lengths: a few bytes, however many tables. */
static void
put_known(StringInfo s, const EsyncCursor *c)
{
	int32		last = 0;

	put_number(s, c->nknown);
	for (int i = 0; i < c->nknown; i++)
	{
		put_number(s, c->known[i].first - last);
		put_number(s, c->known[i].last - c->known[i].first);
		last = c->known[i].last;
	}
}

static void
get_known(Reader *r, EsyncCursor *c)
{
	uint32		last = 0;

	c->nknown = get_count(r);
	c->known = palloc((c->nknown + 1) * sizeof(EsyncTableRun));
	for (int i = 0; i < c->nknown; i++)
	{
		c->known[i].first = last += get_number(r);
		c->known[i].last = last += get_number(r);
	}
}

/* All of a cursor but the checksum. */
static void
put_cursor(StringInfo s, const EsyncCursor *c)
{
	put_number(s, (c->open ? PART_PAGE : 0) | (c->wide ? PART_WIDE : 0) |
			   (c->witness.event_id ? PART_WITNESS : 0) | (c->ntables >= 0 ? PART_TABLES : 0) |
			   (c->has_tenant ? PART_TENANT : 0) | (c->nknown ? PART_KNOWN : 0) |
			   (c->has_device ? PART_DEVICE : 0));
	put_number(s, c->system);
	put_number(s, c->database);
	put_number(s, c->stream);
	put_number(s, c->epoch);
	put_number(s, c->tli);
	put_number(s, c->lsn);
	put_seen(s, &c->seen);
	put_number(s, c->next);
	put_number(s, c->floor + 1);
	if (c->open)
	{
		put_number(s, c->at);
		put_seen(s, &c->page);
		put_number(s, c->page_next);
		put_number(s, c->page_floor + 1);
	}
	if (c->witness.event_id)
	{
		put_number(s, c->witness.event_id);
		put_number(s, c->witness.xid);
		put_number(s, c->witness.commit);
		put_number(s, c->witness.table_id);
	}
	if (c->ntables >= 0)
	{
		put_number(s, c->ntables);
		for (int i = 0; i < c->ntables; i++)
			put_number(s, c->tables[i]);
	}
	if (c->has_tenant)
		put_number(s, c->tenant);
	if (c->nknown)
		put_known(s, c);
	if (c->has_device)
		put_number(s, c->device);
}

static void
get_cursor(Reader *r, EsyncCursor *c)
{
	int			parts = get_number(r);

	memset(c, 0, sizeof(EsyncCursor));
	c->open = (parts & PART_PAGE) != 0;
	c->wide = (parts & PART_WIDE) != 0;
	c->system = get_number(r);
	c->database = get_number(r);
	c->stream = get_number(r);
	c->epoch = get_number(r);
	c->tli = get_number(r);
	c->lsn = get_number(r);
	c->seen = get_seen(r);
	c->next = get_number(r);
	c->floor = (int64) get_number(r) - 1;
	if (c->open)
	{
		c->at = get_number(r);
		c->page = get_seen(r);
		c->page_next = get_number(r);
		c->page_floor = (int64) get_number(r) - 1;
	}
	if (parts & PART_WITNESS)
	{
		c->witness.event_id = get_number(r);
		c->witness.xid = get_number(r);
		c->witness.commit = get_number(r);
		c->witness.table_id = get_number(r);
	}
	c->ntables = -1;
	if (parts & PART_TABLES)
	{
		c->ntables = get_count(r);
		c->tables = palloc((c->ntables + 1) * sizeof(int32));
		for (int i = 0; i < c->ntables; i++)
			c->tables[i] = get_number(r);
	}
	c->has_tenant = (parts & PART_TENANT) != 0;
	if (c->has_tenant)
		c->tenant = get_number(r);
	if (parts & PART_KNOWN)
		get_known(r, c);
	c->has_device = (parts & PART_DEVICE) != 0;
	if (c->has_device)
		c->device = get_number(r);
}

/* ------------------------------------------------------------- as text */

static const char digits[] =
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Bytes as base64url, which needs no escape anywhere. */
static void
put_digits(StringInfo out, const unsigned char *bytes, int len)
{
	for (int i = 0; i < len; i += 3)
	{
		int			n = Min(len - i, 3);
		uint32		bits = bytes[i] << 16 | (n > 1 ? bytes[i + 1] << 8 : 0) |
			(n > 2 ? bytes[i + 2] : 0);

		for (int k = 0; k <= n; k++)
			appendStringInfoChar(out, digits[bits >> (18 - 6 * k) & 0x3f]);
	}
}

/* The reverse; -1 where it is none. */
static int
get_digits(const char *string, unsigned char *bytes)
{
	uint32		bits = 0;
	int			nbits = 0;
	int			n = 0;

	for (; *string; string++)
	{
		const char *digit = strchr(digits, *string);

		if (digit == NULL)
			return -1;
		bits = bits << 6 | (uint32) (digit - digits);
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			bytes[n++] = (unsigned char) (bits >> nbits);
		}
	}
	if (nbits == 6 || (bits & ((1 << nbits) - 1)) != 0)
		return -1;				/* nobody would have written it so */
	return n;
}

static pg_crc32c
checksum(const void *bytes, int len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, len);
	FIN_CRC32C(crc);
	return crc;
}

/* A cursor as it is handed out. */
text *
esync_cursor_write(const EsyncCursor *c)
{
	StringInfoData bytes;
	StringInfoData out;
	pg_crc32c	crc;

	initStringInfo(&bytes);
	put_cursor(&bytes, c);
	crc = checksum(bytes.data, bytes.len);
	for (int i = 0; i < 4; i++)
		appendStringInfoChar(&bytes, (char) (crc >> (8 * i)));
	initStringInfo(&out);
	appendStringInfoString(&out, PREFIX);
	put_digits(&out, (unsigned char *) bytes.data, bytes.len);
	return cstring_to_text_with_len(out.data, out.len);
}

/* Does it look like a cursor, right or wrong? */
bool
esync_cursor_is(const char *string)
{
	return strncmp(string, PREFIX, strlen(PREFIX)) == 0;
}

/* Reads a cursor that was handed out; 22023 for what never was one. */
void
esync_cursor_read(const char *string, EsyncCursor *c)
{
	size_t		len = strlen(string);
	unsigned char *bytes;
	int			n = -1;
	bool		good = false;

	if (esync_cursor_is(string) && len < MAX_CURSOR)
	{
		bytes = palloc(len);
		n = get_digits(string + strlen(PREFIX), bytes);
	}
	if (n > 4)
	{
		pg_crc32c	crc = checksum(bytes, n - 4);
		Reader		r = {bytes, bytes + n - 4, false};

		good = true;
		for (int i = 0; i < 4; i++)
			good &= bytes[n - 4 + i] == (unsigned char) (crc >> (8 * i));
		if (good)
		{
			get_cursor(&r, c);
			good = !r.bad && r.p == r.end;
		}
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cursor \"%s\"", len > 100 ? psprintf("%.100s...", string) : string),
				 errhint("Give a cursor back as it was answered, a timestamp with date and time, 'now', or NULL for the beginning.")));
}

/* ------------------------------------------------------ is it one of ours? */

/*
 * Does the present timeline have all of the WAL that the cursor knows of?  It
 * may have left the cursor's timeline before or after.
 */
static bool
is_in_history(const EsyncCursor *c, const EsyncCursor *here)
{
	List	   *history;
	XLogRecPtr	until;

	if (c->tli == here->tli)
		return true;
	history = readTimeLineHistory(here->tli);
	if (!tliInHistory(c->tli, history))
		return false;
	until = tliSwitchPoint(c->tli, history, NULL);
	return XLogRecPtrIsInvalid(until) || c->lsn <= until;
}

/*
 * How a cursor stands to where we are; `here` is of esync_cursor_here.  Where
 * it is lost, *reason says why.
 */
EsyncStanding
esync_cursor_stand(const EsyncCursor *c, const EsyncCursor *here, const char **reason)
{
	bool		recovery = RecoveryInProgress();

	*reason = NULL;
	if (c->system != here->system || c->database != here->database)
		*reason = "other_database";
	else if (c->stream != here->stream || c->epoch != here->epoch)
		*reason = "restored";
	else if (c->tli > here->tli && recovery)
		return ESYNC_CURSOR_AHEAD;
	else if (!is_in_history(c, here))
		*reason = "timeline";
	else if (!recovery && (c->lsn > here->lsn || c->seen.xmax > here->next ||
						   c->page.xmax > here->next))
		*reason = "ahead";
	if (*reason)
		return ESYNC_CURSOR_LOST;
	if (c->open && !esync_seen_covers(&here->seen, &c->page))
		return ESYNC_CURSOR_AHEAD;
	return ESYNC_CURSOR_GOOD;
}
