/*
 * submit.h: what the rooms of esync_submit share and nobody else sees: a batch
 * while it is worked on.
 *
 *   batch (parse) -> submission (seen before?) -> temporary (keys) -> order
 *     -> submit (run) -> answer, rejected, device
 *
 * Everything of a batch lives in its context, cxt; what one edit needs on its
 * way lives in work, which is reset for each.
 */
#ifndef ESYNC_SUBMIT_H
#define ESYNC_SUBMIT_H

#include "esync.h"

/* longer texts are no temporary ids, and no names of devices */
#define ESYNC_TEMPORARY_MAX	200
#define ESYNC_DEVICE_MAX	1000

typedef enum EsyncStatus
{
	ESYNC_WAITING,
	ESYNC_ACCEPTED,
	ESYNC_CONFLICTING,			/* accepted too, and it clashes */
	ESYNC_REJECTED
} EsyncStatus;

/* columns of a table that point to columns of another: a foreign key, or a link */
typedef struct EsyncReference
{
	Oid			parent;
	int			n;
	char	  **columns;
	char	  **parent_columns;
} EsyncReference;

/* a tracked table of a batch */
typedef struct EsyncTarget
{
	char	   *name;			/* as the batch calls it */
	Oid			root;			/* InvalidOid: there is no such tracked table, and */
	char	   *message;		/* that is what is wrong */
	int32		table_id;
	int			nreferences;
	EsyncReference *references;
} EsyncTarget;

/* one event of a batch */
typedef struct EsyncItem
{
	JsonbValue	event;			/* as sent */
	JsonbValue	given_id;		/* what it calls its id, whatever that is; null */
	bytea	   *hash;			/* of event, user and device */
	bool		has_id;
	pg_uuid_t	id;
	char	   *tx;				/* NULL: a group by itself */
	char	   *table;			/* as sent */
	JsonbValue	key;			/* as sent; jbvNull: not sent */
	int			base_place;		/* where it would stand without any dependency */
	int			group;
	EsyncTarget *target;
	bool		temporary;		/* names temporary ids */
	bool		resolved;		/* and they are replaced */
	char	  **keytexts;		/* one a key column, as sent */
	text	   *aggregate_id;	/* NULL: not known yet */
	Datum	   *keyvalues;
	EsyncEdit	edit;
	List	   *needs;			/* of EsyncItem *: without them it makes no sense */
	struct EsyncItem *twin;		/* an earlier one of the same id */

	EsyncStatus status;
	bool		final;			/* nothing that is run will change it */
	bool		wrong;			/* rejected before anything was run */
	bool		duplicate;		/* it was accepted before */
	bool		untold;			/* rejected, but not recorded as such */
	bool		unlockable;		/* to lock its row is an error */
	const char *code;
	char	   *message;
	Jsonb	   *result;			/* of an accepted one */
	int64		rejected_id;	/* 0: none */
} EsyncItem;

/* items that are accepted or rejected together, in the order in which they run */
typedef struct EsyncTx
{
	int			n;
	EsyncItem **items;
	bool		retried;		/* once, after a unique violation */
} EsyncTx;

/* a temporary id and what it stands for */
typedef struct EsyncTemporary
{
	char		name[ESYNC_TEMPORARY_MAX + 1];	/* hash key */
	Jsonb	   *value;			/* NULL: nothing yet */
	int32		table_id;
	bool		stored;
	EsyncItem  *creator;		/* the event of this batch that creates the row; NULL: none */
	int			column;			/* of its key */
} EsyncTemporary;

typedef struct EsyncBatch
{
	MemoryContext cxt;
	MemoryContext work;
	const char *via;			/* the function that was called */
	bool		id_optional;	/* a single call */
	JsonbValue	batch_id;
	text	   *device_id;
	text	   *user_id;
	text	   *db_role;
	Jsonb	   *meta;			/* of the context */
	bool		has_clock;		/* the device told its clock, and it is */
	int64		offset;			/* behind ours by so many microseconds */
	const char *code;			/* what is wrong with the batch as such; NULL: nothing */
	char	   *message;
	bool		head_by_default;
	bool		is_retry;		/* the device is not there: somebody acts for it */

	int			n;
	EsyncItem  *items;
	List	   *targets;
	HTAB	   *temporaries;
	bool		has_temporaries;
	int			ntx;
	EsyncTx    *tx;

	EsyncSide	submission;		/* open while the batch is worked on */
	int			nrows;
	EsyncItem **rows;			/* whose rows are locked, in that order */
	bool		locking;
	bool		held;			/* by a subtransaction that was kept */
	EsyncItem  *current;		/* the one at hand, when an error comes */
	int			live;			/* subtransactions that were kept */
	bool		last_chance;	/* no row that is wanted will come any more */
	bool		check_each;		/* deferred constraints are checked group by group */
} EsyncBatch;

/* batch.c */
extern EsyncBatch *esync_batch_begin(const char *via);
extern void esync_batch_parse(EsyncBatch *b, Jsonb *batch);
extern void esync_batch_refuse(int sqlerrcode, const char *what);
extern void esync_batch_single(EsyncBatch *b, Jsonb *event);
extern void esync_item_reject(EsyncItem *item, const char *code, const char *format,...)
			pg_attribute_printf(3, 4);
extern char *esync_uuid_text(const pg_uuid_t *id);

/* target.c */
extern EsyncTarget *esync_target_get(EsyncBatch *b, const char *name);
extern EsyncReference *esync_target_references(EsyncTracked *t, MemoryContext cxt, int *n);

/* temporary.c */
extern void esync_temporary_prepare(EsyncBatch *b, EsyncItem *item);
extern void esync_temporary_resolve(EsyncBatch *b, EsyncItem *item);
extern void esync_temporary_keep(EsyncBatch *b);
extern Jsonb *esync_temporary_ids(EsyncBatch *b);

/* order.c */
extern void esync_order(EsyncBatch *b);

/* answer.c */
extern void esync_answer_accept(EsyncBatch *b, EsyncItem *item, const EsyncOutcome *outcome);
extern Jsonb *esync_answer_item(EsyncItem *item);
extern Jsonb *esync_answer(EsyncBatch *b);
extern bool esync_code_is_retryable(const char *code);

/* submission.c */
extern void esync_submission_lock(EsyncBatch *b);
extern void esync_submission_lock_rejected(int64 rejected_id);
extern void esync_submission_find(EsyncBatch *b);
extern void esync_submission_put(EsyncBatch *b, EsyncItem *item);
extern void esync_submission_device(EsyncBatch *b);

/* rejected.c */
extern void esync_rejected_note(EsyncBatch *b);

/* submit.c */
extern void esync_submit_run(EsyncBatch *b);

#endif							/* ESYNC_SUBMIT_H */
