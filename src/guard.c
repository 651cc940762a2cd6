/*
 * guard.c: what may fail without failing the statement.
 *
 * A subtransaction runs one function; its error is handed back as a value, in
 * the caller's memory context, for whoever tries something else then.  Errors
 * of the server or of the transaction are no edit's fault: those are raised.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "esync.h"

/*
 * Runs body in a subtransaction.  NULL where all went well; else the error, and
 * nothing of what body did is left.  What it allocates in the caller's context is.
 */
ErrorData *
esync_guard(void (*body) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		body(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

/* Is this an error of the server or of the transaction, not of an event? */
bool
esync_error_is_fatal(const ErrorData *error)
{
	static const char *const states[] = {"40", "57", "53", "58", "XX", "25", "55P03", "P0004"};
	char	   *state = unpack_sql_state(error->sqlerrcode);

	for (int i = 0; i < lengthof(states); i++)
		if (strncmp(state, states[i], strlen(states[i])) == 0)
			return true;
	return error->elevel > ERROR;
}
