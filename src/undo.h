/*
 * undo.h: an event on its way to be taken back: undo.c knows who takes it back
 * and writes it, putback.c what it comes to.
 */
#ifndef ESYNC_UNDO_H
#define ESYNC_UNDO_H

#include "conflict.h"
#include "merge.h"

/* everything lives in the caller's context */
typedef struct EsyncUndo
{
	EsyncTracked *t;
	EsyncRights rights;
	text	   *aggregate_id;
	Datum	   *key;
	EsyncMerge	m;				/* all events of the row, as others ask for them */
	EsyncEvents *events;
	EsyncEvent *target;			/* the one to be undone, and */
	int			at;				/* its place */
	bool	   *was;			/* by place: withdrawn before */
	int		   *undoes;			/* by place: the place of what it undoes; -1: it is no undo */
	Bitmapset **then;			/* by place, of undos: what was withdrawn when they were written, if
								 * anything that was is back */
	bool		no_birth;		/* no creation of the row counts; */
	bool		has_ground;		/* one was undone before, */
	bool		takes_birth;	/* one is undone now */
	EsyncFold	all;
	EsyncFold	without;		/* what was undone before, and the target */
	EsyncFold	words;			/* of those that are left, who says whether the row lives */

	/* the column at hand, where it has edits inside */
	Jsonb	   *diff;			/* what leads from all to without, and */
	JsonbValue	reached;		/* what it comes to */
	List	   *places;			/* of char *: what was put back */

	/* what it comes to */
	bool		refused;		/* nothing can be undone without taking the row from others */
	int			life;
	bool		hard;
	int			nset;
	EsyncMember *set;
	List	   *ops;			/* of Jsonb */
	List	   *from;			/* of EsyncMember: path, event_id */
	List	   *undone;			/* of char *; NULL: the row as a whole */
	List	   *kept;			/* of Jsonb */
} EsyncUndo;

/* putback.c */
/* the undo that withdrew the event at a place; 0: none that stands */
extern int64 esync_undo_by(const EsyncUndo *u, int at);
/* finds what the row gets without the target, and what is left as it is */
extern void esync_undo_find(EsyncUndo *u);

#endif							/* ESYNC_UNDO_H */
