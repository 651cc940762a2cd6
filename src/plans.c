/*
 * plans.c: prepared statements, kept for the session.
 *
 * A statement is found again by its text and the types of its parameters.
 * PostgreSQL itself plans it anew when a table, a role or a policy changes.
 * Names in the text are those of now, so a rename makes another text.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "esync.h"

/* beyond so many none is kept: a session that writes every set of columns of many tables */
#define MAX_PLANS 500

typedef struct Entry
{
	uint64		hash;			/* must be first */
	char	   *text;
	SPIPlanPtr	plan;
} Entry;

static HTAB *plans = NULL;

/* Text and types as one string. */
static char *
full_text(const char *query, int nargs, const Oid *types)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&s, "%u ", types[i]);
	appendStringInfoString(&s, query);
	return s.data;
}

/* The prepared statement; SPI must be connected.  The caller executes it at once. */
SPIPlanPtr
esync_plan(const char *query, int nargs, Oid *types)
{
	char	   *text = full_text(query, nargs, types);
	uint64		hash = hash_bytes_extended((const unsigned char *) text, strlen(text), 0);
	Entry	   *e;
	SPIPlanPtr	plan;
	bool		found;

	if (plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(Entry);
		ctl.hcxt = TopMemoryContext;
		plans = hash_create("esync statements", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	e = hash_search(plans, &hash, HASH_FIND, NULL);
	if (e && strcmp(e->text, text) == 0)
		return e->plan;
	plan = SPI_prepare(query, nargs, types);
	if (plan == NULL)
		elog(ERROR, "preparing \"%s\" failed: %s", query, SPI_result_code_string(SPI_result));
	if (e || hash_get_num_entries(plans) >= MAX_PLANS)
		return plan;			/* of this call alone */
	text = MemoryContextStrdup(TopMemoryContext, text);
	SPI_keepplan(plan);
	e = hash_search(plans, &hash, HASH_ENTER, &found);
	e->text = text;
	e->plan = plan;
	return plan;
}
