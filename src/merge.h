/*
 * merge.h: an edit on its way, and what it meets; what base.c, merge.c,
 * clash.c, inner.c, edit.c, apply.c and sqlmerge.c tell each other.
 */
#ifndef ESYNC_MERGE_H
#define ESYNC_MERGE_H

#include "esync.h"

struct EsyncPathOp;

/* one field that an author changed */
typedef struct EsyncChange
{
	int			field;			/* index into fields */
	const char *name;			/* in the patch */
	JsonbValue	value;			/* in the form that a row has */
	JsonbValue	shown;			/* what it was before, to the author */
	Jsonb	   *ops;			/* of a json_merge column: what changed inside; else NULL */
} EsyncChange;

/* a change that the table refused, and by which constraint */
typedef struct EsyncRefusal
{
	int			field;
	const char *constraint;
	bool		by_type;		/* one of the column's domain */
	EsyncChange change;			/* as it was taken out of the edit */
} EsyncRefusal;

/* what is to be done to the row */
typedef enum EsyncAction
{
	ESYNC_ACT_NOTHING,			/* nothing changed: there is no event either */
	ESYNC_ACT_STORE,			/* the event alone */
	ESYNC_ACT_UPDATE,
	ESYNC_ACT_INSERT,
	ESYNC_ACT_DELETE
} EsyncAction;

typedef struct EsyncMerge
{
	EsyncTracked *t;			/* of the tracked table itself */
	const EsyncEdit *edit;
	text	   *aggregate_id;
	EsyncEvents *events;		/* ascending versions up to the head */
	bool		grounded;		/* the first one's payload stands for all before it */
	int64		head;			/* version; 0: there are no events */
	TimestampTz head_commit;
	Jsonb	   *nothing;		/* an empty patch */
	Jsonb	   *key_at;			/* the key as an object; NULL: do not compare */
	bool		hard;			/* a delete takes the row, tombstone or not */
	Jsonb	   *masked;			/* the row as the table has it, where there are masked columns */

	/* what is wrong */
	const char *code;
	char	   *message;

	/* esync_merge_base */
	int64		base;
	int			nseen;			/* the first so many events were seen by version */
	int64		names_at;		/* event_id at which names in the edit were true */
	bool		base_beyond;	/* base_version was beyond the head */
	bool		base_guessed;	/* no version shows `base` */
	EsyncFold  *shown;			/* what the device showed */

	/* esync_merge_changes */
	bool		creates;		/* all that was sent is named */
	int			nchanges;
	EsyncChange *changes;		/* by field */
	List	   *ignored;		/* of char * */
	int			ndropped;
	EsyncMember *dropped;		/* edits of columns that are gone, and whose names mean others */

	List	   *refused;		/* of EsyncRefusal: to be taken out of the changes */
	ErrorData  *type_error;		/* by which a domain refused one of them; or NULL */

	/* esync_edit_meet */
	bool		whole;			/* a creation stamps every column; so it must where the caller may
								 * not see what was there */
	EsyncAction action;
	int			until;			/* events before this one are of the row that was seen: then its
								 * key was changed; or the count of all */
	bool		moves;			/* a row went from this key to another; and then */
	int			life;			/* how many had gone when the author took a copy */
	EsyncFold  *after;			/* all events and the edit */
	EsyncIntent *intent;		/* the event, and what the row gets */
} EsyncMerge;

/* base.c */
extern int64 esync_merge_version_at(const EsyncMerge *m, TimestampTz at);
extern TimestampTz esync_merge_stamp_sent(EsyncMerge *m);
extern bool esync_merge_base(EsyncMerge *m);

/* merge.c */
extern bool esync_merge_reject(EsyncMerge *m, const char *code, char *message);
extern bool esync_merge_seen(const EsyncContender *e, const EsyncContender *x);
extern EsyncContender esync_merge_contender(const EsyncEvent *e);
extern bool esync_merge_own_before(const EsyncMerge *m, const EsyncEvent *e);
extern bool esync_merge_own_after(const EsyncMerge *m, const EsyncEvent *e);
extern void esync_merge_add(EsyncMerge *m, EsyncFold *fold, int i);
extern EsyncFold *esync_merge_fold(EsyncMerge *m, int n);
extern bool esync_merge_takes(const EsyncField *f);
extern int	esync_merge_field(const EsyncMerge *m, const char *name, int len);
extern int	esync_merge_shape(const EsyncTracked *t, int field);
extern bool esync_merge_equal(const EsyncMerge *m, int field, const JsonbValue *shown,
							  JsonbValue *sent);
extern bool esync_merge_equal_told(const EsyncMerge *m, int field, const JsonbValue *shown,
								   JsonbValue *told);
extern bool esync_merge_changes(EsyncMerge *m, bool creates);
extern void esync_merge_place(EsyncMerge *m, EsyncEvent *e);
extern int	esync_merge_life_at(EsyncEvents *events, int64 base);
extern int	esync_merge_life(EsyncEvents *events, int i);
extern bool esync_merge_same_life(const EsyncMerge *m, int i);
extern bool esync_merge_is_key(const EsyncTracked *t, int field);
extern void esync_merge_defaults(EsyncMerge *m);

/* sets.c: what events set */
extern bool esync_merge_sets(EsyncMerge *m, int i, int field, JsonbValue *value);
extern bool esync_merge_sets_group(EsyncMerge *m, int i, const EsyncGroup *group,
								   JsonbValue *value);
extern int	esync_merge_field_of_op(const EsyncTracked *t, const struct EsyncPathOp *op,
									int64 event_id);
extern bool esync_merge_op_in_field(const EsyncTracked *t, const struct EsyncPathOp *op,
									int64 event_id, int field);
extern bool esync_merge_member(const EsyncTracked *t, const Jsonb *payload, int field,
							   int64 event_id, JsonbValue *value);

/* clash.c */
/* what the event does to the ledger: a list of EsyncClash */
extern List *esync_clash_find(EsyncMerge *m, const EsyncEvent *e, EsyncEvents *whole);
/* does finding them need all events of the aggregate (whole)? */
extern bool esync_clash_needs_whole(EsyncMerge *m, const EsyncEvent *e);
/* the same of an event whose author had seen everything */
extern List *esync_clash_settle(EsyncTracked *t, const EsyncEvent *e);

/* does an event of that type say whether the row lives */
static inline bool
esync_clash_is_word(EsyncEventType type)
{
	return type == ESYNC_CREATED || type == ESYNC_DELETED || type == ESYNC_RESTORED;
}

/* shown.c: marks the contender of an open conflict that the row shows, if any */
extern void esync_clash_mark_shown(EsyncMerge *m, const EsyncEvent *e,
								   const EsyncEvents *whole, EsyncClash *clash);
/* the stamp that a contender has in the row: where it was put back, that of the undo */
extern EsyncStamp esync_clash_stamp(const EsyncTracked *t, const EsyncEvents *events,
									const EsyncEvent *e, const EsyncClash *clash,
									const EsyncContender *c);

/* withdraw.c: events that were undone */
extern void esync_withdraw_mark(EsyncEvents *events, int64 undoes);
extern int	esync_withdraw_find(const EsyncEvents *events, int64 event_id);
extern bool esync_withdraw_is_void(const EsyncEvents *events, int64 origin, int64 undoes);
extern int64 esync_withdraw_origin(const EsyncEvent *e, const char *path, int len);
extern int64 esync_withdraw_origin_of_field(const EsyncTracked *t, const EsyncEvent *e, int field);
extern bool esync_withdraw_puts_back(const EsyncTracked *t, const EsyncEvent *e,
									 int64 event_id, const EsyncClash *clash);
extern Bitmapset *esync_withdraw_fields(EsyncMerge *m, int64 undoes);

/* inner.c */
extern List *esync_inner_clashes(const EsyncTracked *t, const EsyncEvents *whole, int field,
								 List *list);
extern bool esync_inner_value(const JsonbValue *value, const char *path, int len,
							  JsonbValue *out);
extern void esync_inner_tell(EsyncClash *clash, const JsonbValue *column);

/* policy.c */
extern bool esync_policy_rejects(EsyncMerge *m);
extern void esync_policy_choose(EsyncMerge *m);
extern void esync_policy_overrule(EsyncMerge *m);
/* does it drop what was refused of an event when another one, later to arrive, sets the field */
extern bool esync_policy_drops(const EsyncTracked *t, const EsyncEvent *refused,
							   const EsyncEvent *by);

/* refusal.c */
extern bool esync_refusal_note(EsyncMerge *m, const ErrorData *error);
extern bool esync_refusal_by_type(EsyncMerge *m, int field, const JsonbValue *sent);
extern void esync_refusal_take_out(EsyncMerge *m, EsyncEventType type);
extern Jsonb *esync_refusal_meta(const EsyncMerge *m);
extern List *esync_refusal_clashes(EsyncMerge *m, List *list);
extern List *esync_refusal_undone(EsyncMerge *m, List *list);
/* was something of event i, which the author at hand had not seen, refused in a column or group? */
extern bool esync_refusal_unseen(const EsyncMerge *m, int i, const char *field);
extern void esync_refusal_tell_shown(EsyncMerge *m);

/* edit.c */
extern EsyncFold *esync_merge_after(EsyncMerge *m);
extern bool esync_merge_shows(EsyncMerge *m, int field);
extern void esync_edit_intent(EsyncMerge *m);
extern Jsonb *esync_edit_row_at(EsyncMerge *m, int64 version);
extern Jsonb *esync_edit_value_in(const EsyncTracked *t, const Jsonb *row, const char *field);
extern Jsonb *esync_edit_row_after(EsyncMerge *m);
extern EsyncEvents *esync_edit_whole(EsyncMerge *m);
extern bool esync_edit_meet(EsyncMerge *m, bool found);

/* grants.c: what the caller may do to the table; 42501 names the right that is missing */
pg_noreturn extern void esync_grants_deny(const EsyncTracked *t, AclMode right, const char *column);
extern bool esync_grants_update(const EsyncTracked *t);
extern void esync_grants_named(const EsyncTracked *t, const EsyncRights *rights,
							   const EsyncEdit *edit);
extern void esync_grants_check(const EsyncMerge *m, bool found);

/* statement.c: SPI must be connected */
extern void esync_statement_table(StringInfo query, const EsyncTracked *t);
extern void esync_statement_key(StringInfo query, const EsyncTracked *t, int first);
extern uint64 esync_statement_run(const char *query, int nargs, Oid *types, Datum *values,
								  const char *nulls);
extern uint64 esync_statement_update(const EsyncTracked *t, Datum *key, const EsyncIntent *in);
extern uint64 esync_statement_insert(const EsyncTracked *t, Datum *key, const EsyncIntent *in);
extern uint64 esync_statement_delete(const EsyncTracked *t, Datum *key);

#endif							/* ESYNC_MERGE_H */
