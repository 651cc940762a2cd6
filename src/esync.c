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
	esync_context_init();
	MarkGUCPrefixReserved("esync");
	esync_tracked_init();
	esync_store_init();
	esync_pending_init();
	esync_capture_init();
}
