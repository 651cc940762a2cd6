/*
 * edit.h: an edit as it was sent, what it becomes, and between whom a conflict
 * lies.  A part of esync.h, which includes it; nobody else does.
 */
#ifndef ESYNC_EDIT_H
#define ESYNC_EDIT_H

typedef enum EsyncVerb
{
	ESYNC_VERB_CREATE,
	ESYNC_VERB_UPDATE,
	ESYNC_VERB_DELETE,
	ESYNC_VERB_RESTORE,
	ESYNC_VERB_SAVE,			/* create or update, whichever it turns out to be */
	ESYNC_VERB_RESOLVE			/* a decision: all that is named counts, changed or not */
} EsyncVerb;

/* what an author did to one row, as it was sent; a NULL pointer: not sent */
typedef struct EsyncEdit
{
	EsyncVerb	verb;
	bool		head_by_default;	/* without a base the head is taken; else it is invalid */
	bool		names_of_now;	/* columns are named as they are now, not as at the base */
	bool		rowless;		/* nothing is done where the row would have to change */
	bool		has_base_version;
	bool		has_branch;
	bool		has_submit;
	int64		base_version;
	TimestampTz branch;
	TimestampTz submit;			/* as corrected by the clock offset */
	TimestampTz submit_raw;
	int64		offset_ms;		/* server minus device; 0 within tolerance */
	int64		device_seq;		/* 0: none */
	text	   *user_id;		/* never NULL */
	text	   *db_role;		/* never NULL */
	text	   *device_id;
	pg_uuid_t  *client_event_id;
	Jsonb	   *document;		/* the row as the author leaves it, or */
	Jsonb	   *set;			/* the changed fields alone */
	Jsonb	   *base;			/* what was shown, whole or in part */
	Jsonb	   *meta;

	bool		careful;		/* it was refused before: what can be applied of it is */

	/* of a decision */
	Jsonb	   *ops;			/* operations inside of json_merge columns, besides set */
	int			life;			/* 1: the row lives, -1: it is deleted, 0: that is not decided */
	bool		hard;			/* a delete takes the row, tombstone or not */
	int64		undoes;			/* this event is withdrawn by it; 0: none is */
	const char *strategy;		/* how conflicts are closed by it; NULL: superseded */
} EsyncEdit;

/* one of the events between which a conflict lies; what seen() needs comes with it */
typedef struct EsyncContender
{
	int64		event_id;
	int64		version;
	int64		base_version;
	int64		device_seq;
	EsyncEventType type;
	bool		undo;			/* it withdraws another event */
	bool		nobodys;		/* an undo, or a Baseline: it replaces nobody's edit */
	int64		origin;			/* of an undo: the event whose value it put back; else 0 */
	TimestampTz submit;
	text	   *user_id;
	text	   *device_id;
	Jsonb	   *value;			/* of the field; a group's as an object; of a delete null, of
								 * an edit against it an object of what it set */
	const char *constraint;		/* that refused it; NULL: it is in the stream */
	List	   *inner;			/* of EsyncPathOp *: what it set inside of the place alone */
	bool		shown;			/* this is the one that the row shows */
} EsyncContender;

/*
 * What an event does to the ledger in one field: its contenders are now
 * these (open), or none are left and an open row, if there is one, closes.
 */
typedef struct EsyncClash
{
	char	   *field;			/* a column, a group, column/path of json_merge; NULL: the
								 * row as a whole (delete_edit) */
	const char *kind;			/* field, delete_edit, create_create, constraint */
	bool		open;
	const char *resolution;		/* where it closes: superseded or agreed */
	int64		life_from;		/* bases from here to before life_to (0: all) are of the row that its */
	int64		life_to;		/* author had seen, not of others that had its key */
	int64		base_at;		/* the lowest base of the contenders, and */
	Jsonb	   *base_value;		/* what the field was there; NULL: unknown */
	Jsonb	   *shown_value;	/* NULL: that of the contender that shows */
	int			column;			/* inside of which it lies, plus one; 0: of none */
	const char *path;			/* in that column */
	int			ncontenders;
	EsyncContender *contenders; /* ascending event_id; the event at hand among them */
	int64		conflict_id;	/* filled in by the ledger where open */
	int64		mine;			/* the event at hand among them, once it is written */
	bool		decided;		/* by the table's policy, at once */
	bool		overrules;		/* the policy drops what was refused of it before, seen or not */
	EsyncContender *showing;	/* where something refused goes on waiting: the edit that the
								 * row shows now; NULL: none at hand */
	int64		confirmed;		/* the event whose value is the latest one, where that was asked */
	int			merged;			/* the contender that shows by the merge alone, plus one, and */
	Jsonb	   *merged_value;	/* what shown_value is by it; */
	int			winner;			/* the same by what was decided */
	Jsonb	   *decided_value;
} EsyncClash;

/* what the option on_conflict makes of an event's conflicts, to be written right after it */
typedef struct EsyncRuling
{
	const char *policy;			/* a constant */
	TimestampTz submit;			/* of the latest edit that it confirms; 0: it is of now */
	Jsonb	   *set;			/* as in EsyncEdit; NULL: none */
	Jsonb	   *ops;
	int			life;
} EsyncRuling;

/* what became of an edit */
typedef struct EsyncOutcome
{
	const char *code;			/* NULL: accepted; else a code of the contract, and nothing
								 * was written */
	char	   *message;
	text	   *aggregate_id;
	int64		version;		/* the aggregate's last */
	int64		event_id;		/* 0: nothing changed, so no event */
	TimestampTz effective;		/* of the event */
	bool		deleted;		/* the row is deleted now */
	bool		with_row;		/* others' events lie between base and version: row is told */
	Jsonb	   *row;			/* as the caller may see it; NULL: gone */
	List	   *ignored;		/* of char *: members that were left out */
	List	   *clashes;		/* of EsyncClash, open ones alone */
	bool		blind;			/* row policies can not be asked: tell no values of others */
} EsyncOutcome;

/*
 * A merge on its way to the event that tells of it: what apply.c, or the
 * BEFORE trigger of plain SQL, hands to the AFTER trigger.
 */
typedef struct EsyncIntent
{
	Oid			relid;			/* of the row to be changed, and */
	ItemPointerData tid;		/* its place; invalid: a row is to come, */
	Oid			root;			/* of this table, */
	text	   *aggregate_id;	/* with this key */
	CommandId	cid;			/* that changes it; InvalidCommandId: the next one to do so */
	SubTransactionId subid;
	MemoryContext cxt;			/* its own, to be deleted with it; or NULL */
	EsyncEvent	event;			/* as merge.c made it; ids, version and row are set last */
	bool	   *set;			/* by field: the merge sets it, to */
	Datum	   *values;
	bool	   *isnull;
	List	   *clashes;
	bool		silent;			/* no event tells of it: the row follows its stream */
	EsyncRuling *decision;	/* NULL: conflicts stay open */
	bool		plain;			/* it is a statement of plain SQL */
	bool		written;		/* then event has all of it */
	bool		ahead;			/* it was, before the row, which a decision is to change */
} EsyncIntent;

/* a bit that only withdraw.c sets in EsyncEvent.flags, never stored: the event was undone */
#define ESYNC_FLAG_WITHDRAWN	0x20000000

/* an edit of now, by the session's author, without a base (edit.c) */
extern EsyncEdit esync_edit_by(const EsyncContext *context, EsyncVerb verb);
/* what a constraint refused of an event in a field, and which, unless NULL (refusal.c) */
extern bool esync_refusal_value(const EsyncTracked *t, const EsyncEvent *e, int field,
								JsonbValue *value, const char **constraint);
/* the event that a Resolved withdraws; 0: it is no undo (fold.c) */
extern int64 esync_event_undoes(const EsyncEvent *event);

/* was the event written by esync_touch: does it say nothing of its own (fold.c) */
extern bool esync_event_is_touch(const EsyncEvent *event);

/* apply.c: writes such an event; false: there is no such row for the caller */
extern bool esync_apply_touch(EsyncTracked *t, text *aggregate_id, Datum *key);
/* apply.c: locks the row of a decision to come, and brings the stream up to what the table
 * holds; false: there may be a row, but the caller does not see it */
extern bool esync_apply_meet(EsyncTracked *t, text *aggregate_id, Datum *key);
/* makes the row what its events say, without an event; true if it was something else */
extern bool esync_apply_rebuild(EsyncTracked *t, text *aggregate_id, Datum *key);

/* the event_id of an event that is not written yet: it sorts last, and names are those of now */
#define ESYNC_AT_HAND	PG_INT64_MAX

#endif							/* ESYNC_EDIT_H */
