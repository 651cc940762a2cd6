/*
 * resolve.h: a decision on its way: resolve.c knows who decides and writes it,
 * decision.c the row, and decide.c what it makes of which field.
 */
#ifndef ESYNC_RESOLVE_H
#define ESYNC_RESOLVE_H

#include "conflict.h"
#include "merge.h"

/* a decision about one row; everything lives in the context in which it was begun */
typedef struct EsyncDecision
{
	EsyncTracked *t;
	EsyncRights rights;
	text	   *aggregate_id;
	Datum	   *key;
	const char *strategy;		/* how conflicts are closed by it */
	bool		expects;		/* the row was seen at this version: */
	int64		expected;

	/* the row, under its lock */
	bool		here;			/* the table has it, */
	bool		lacking;		/* or has none, whatever its events say */
	EsyncMerge	m;				/* plan and events alone */
	EsyncFold  *now;			/* of all events */
	List	   *open;			/* of EsyncConflict *: its open conflicts */
	List	  **family;			/* of EsyncDecision *: this one, and those of the keys that the
								 * row had before or has now */

	/* what is decided */
	List	   *places;			/* of EsyncPlace * */
	List	   *resolves;		/* of EsyncConflict *: those that are decided as such */
	int			nset;
	EsyncMember *set;			/* columns by their names of now */
	List	   *ops;			/* of Jsonb *: operations in json_merge columns */
	int			life;			/* as in EsyncEdit */
} EsyncDecision;

/* decision.c */
extern EsyncConflict *esync_decision_conflicts(EsyncDecision *d, int64 asked, List **open);
extern void esync_decision_lock_gone(const EsyncTracked *t, const text *aggregate_id);
extern const EsyncEvent *esync_decision_head(const EsyncDecision *d);
extern EsyncConflict *esync_decision_meet(EsyncDecision *d, int64 asked, bool alone);
extern EsyncDecision *esync_decision_follow(EsyncDecision *d, int64 version);
extern EsyncDecision *esync_decision_named(EsyncDecision *d);
extern List *esync_decision_former(EsyncDecision *d);
extern Jsonb *esync_decision_row(EsyncDecision *d);
extern bool esync_decision_seen(EsyncDecision *d);
extern bool esync_decision_gone(const EsyncDecision *d);
extern bool esync_decision_blind(EsyncDecision *d);
extern void esync_decision_apply(EsyncTracked *t, text *aggregate_id, Datum *key,
								 const EsyncEdit *edit, EsyncOutcome *outcome);

/* decide.c */
extern const char *esync_decide_strategy(const text *name, bool bulk);
extern void esync_decide_conflict(EsyncDecision *d, EsyncConflict *conflict,
								  const Jsonb *value);
extern void esync_decide_choice(EsyncDecision *d, const char *name, int len,
								const JsonbValue *choice);
extern void esync_decide_drift(EsyncDecision *d, const Jsonb *row);
extern bool esync_decide_covers(const EsyncDecision *d, const EsyncConflict *conflict);
extern bool esync_decide_contends(EsyncDecision *d, int event);

#endif							/* ESYNC_RESOLVE_H */
