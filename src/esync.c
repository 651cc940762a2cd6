/*
 * esync.c: the module's entry and its settings; nothing else.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "esync.h"

ESYNC_MODULE_MAGIC;

bool		esync_enabled = true;
int			esync_clock_tolerance = 30000;
int			esync_batch_max_events = 500;
int			esync_batch_max_bytes = 1024 * 1024;
int			esync_branch_margin = 5000;
int			esync_since_overlap = 300000;
int			esync_consumer_lease = 30000;

void		_PG_init(void);

/* Each room that keeps state or settings of its own sets them up. */
void
_PG_init(void)
{
	DefineCustomBoolVariable("esync.enabled",
							 "Whether changes of tracked tables are recorded.",
							 "Off pauses capture without DDL; what changes meanwhile is found "
							 "as drift at the next write of a row.",
							 &esync_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("esync.clock_tolerance",
							"How far a device's clock may be off before its submit times are shifted.",
							NULL,
							&esync_clock_tolerance, 30000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("esync.batch_max_events",
							"How many events of a batch are taken; those behind them wait for another one.",
							NULL,
							&esync_batch_max_events, 500, 1, 100000, PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("esync.batch_max_bytes",
							"How many bytes of events of a batch are taken, as jsonb stores them.",
							NULL,
							&esync_batch_max_bytes, 1024 * 1024, 1024, 512 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("esync.branch_margin",
							"How long before a branch timestamp something must have been committed to have been seen.",
							"Used where an edit names its base by nothing but the branch timestamp.",
							&esync_branch_margin, 5000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("esync.since_overlap",
							"How long before a timestamp esync_changes starts, for transactions that took so long.",
							NULL,
							&esync_since_overlap, 300000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("esync.consumer_lease",
							"How long the changes that esync_poll gave out belong to whoever polled.",
							"After that they are given out again, unless esync_ack was called.",
							&esync_consumer_lease, 30000, 1, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	esync_context_init();
	MarkGUCPrefixReserved("esync");
	esync_tracked_init();
	esync_store_init();
	esync_pending_init();
	esync_capture_init();
	esync_sqlmerge_init();
}
