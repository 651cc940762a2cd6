/*
 * suggest.h: what suggest.c and others.c tell each other.
 */
#ifndef ESYNC_SUGGEST_H
#define ESYNC_SUGGEST_H

#include "conflict.h"

/* a value, and what speaks for it */
typedef struct EsyncCandidate
{
	Jsonb	   *value;
	int			first;			/* its edits, in the sorted list, */
	int			n;				/* and how many */
	bool		shown;			/* the field shows it */
	bool		disputed;		/* it is a contender's in an open conflict */
	const char *constraint;		/* by which the table refused it; NULL: it did not */
	int			authors;		/* whose last word it is */
	int64		rows;			/* other living rows that hold it */
	bool		measured;		/* it is a number, and so are others: */
	Numeric		distance;		/* from their median */
	double		confidence;
} EsyncCandidate;

/* the values of a place in a row, and in the other rows of its table */
typedef struct EsyncSuggest
{
	EsyncReading reading;
	EsyncFold	fold;			/* of all its events */
	EsyncPlace	place;			/* a column, a group, or a path in a column */
	int			nfields;		/* its columns as far as the caller may read them, */
	int		   *fields;
	int			ncandidates;
	EsyncCandidate *candidates; /* by value */
	int			authors;		/* that said anything */
	double		weight;			/* of all of them */
	int64		rows;			/* other rows that were counted, */
	int64		held;			/* of which so many hold a candidate */
	int64		numbers;		/* so many have a number */
	Numeric		median;
	Numeric		usual;			/* half of them lie no further from it */
} EsyncSuggest;

/* suggest.c: the value of the place by those of its columns; NULL: not known */
extern Jsonb *esync_suggest_value(const EsyncSuggest *s, const JsonbValue *columns,
								  const bool *known);

/* others.c: counts the other rows that hold each candidate, and measures their numbers */
extern void esync_others_count(EsyncSuggest *s);
extern void esync_others_median(EsyncSuggest *s);

#endif							/* ESYNC_SUGGEST_H */
