/*
 * suggest.c: what a field might well hold: esync_suggest.
 *
 * The values are those that the field's track has, and those that a constraint
 * refused and that still wait.  What speaks for each is counted: authors, by the
 * word that each said last, the other living rows of the table that hold the
 * value, and for numbers how near it lies to their median (others.c).  Tracks
 * are read as field_history reads them.
 *
 * A field is whatever esync_conflicts calls one: a column, a group, whose values
 * are objects of its columns, or a path inside of a jsonb column.
 */
#include "postgres.h"

#include <math.h>

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "merge.h"
#include "paths.h"
#include "suggest.h"

/* fewer numbers than these have no median worth a word */
#define FEW 3

/* what an author whose edit somebody replaced who had seen it weighs, beside 1 */
#define REPLACED_WEIGHT 0.5

/* one edit of the field, with its value as a document */
typedef struct Said
{
	Jsonb	   *value;
	int			event;			/* index into the events */
	const EsyncBar *bar;		/* NULL: it was refused */
	const char *constraint;		/* by which */
	int			rank;			/* in the order of edits */
	bool		last;			/* its author has said nothing since; false where there is none */
	bool		current;		/* the field shows it */
} Said;

/* what was said of the field, while it is read */
typedef struct Track
{
	EsyncSuggest s;
	EsyncMarks *marks;
	JsonbValue *columns;		/* what the columns of the field hold, */
	bool	   *known;			/* as far as anybody said */
	int			n;
	Said	   *said;
} Track;

/* ------------------------------------------------------------ what is meant */

/* A column of the place, if the caller may read it. */
static void
add_field(EsyncSuggest *s, int field)
{
	const EsyncField *f = &s->reading.tracked->fields[field];

	if (esync_rights_field(&s->reading.rights, f) && !f->masked && !f->excluded)
		s->fields[s->nfields++] = field;
}

/* Finds what the caller calls a field; 42703 and 42501 as field_history. */
static void
find_place(EsyncSuggest *s, Name name)
{
	EsyncTracked *t = s->reading.tracked;
	const EsyncGroup *group;

	s->fields = palloc((t->nfields + 1) * sizeof(int));
	if (!esync_ledger_lookup(t, NameStr(*name), &s->place))
		esync_ledger_unknown(t, NameStr(*name));
	if (s->place.group < 0)
	{
		esync_history_readable(&s->reading, s->place.field);
		add_field(s, s->place.field);
		return;
	}
	group = &t->groups[s->place.group];
	for (int k = 0; k < group->nfields; k++)
		add_field(s, group->fields[k]);
	if (s->nfields == 0)
		esync_history_readable(&s->reading, group->fields[0]);
}

/* The value of the place by those of its columns; of nothing at a path null; NULL: not known. */
Jsonb *
esync_suggest_value(const EsyncSuggest *s, const JsonbValue *columns, const bool *known)
{
	EsyncMember *members;
	JsonbValue	value;
	int			n = 0;

	if (s->place.group < 0)
	{
		if (!known[0])
			return NULL;
		if (!esync_inner_value(&columns[0], s->place.path, strlen(s->place.path), &value))
			value.type = jbvNull;
		return esync_json_from_value(&value);
	}
	members = palloc(s->nfields * sizeof(EsyncMember));
	for (int k = 0; k < s->nfields; k++)
	{
		const char *name = s->reading.tracked->fields[s->fields[k]].name;

		if (known[k])
			members[n++] = (EsyncMember) {name, strlen(name), columns[k]};
	}
	return n == 0 ? NULL : esync_json_object(n, members);
}

/* --------------------------------------------------------- who said what */

/* Is an edit of a column about the path in it that is asked for? */
static bool
is_about_path(const EsyncSuggest *s, const EsyncBar *bar)
{
	const EsyncEvent *event = &s->reading.events->e[bar->event];
	const char *path = s->place.path;
	EsyncWalk	walk;
	EsyncPathOp op;

	if (*path == '\0' || esync_json_count(&event->patch->root) == 0)
		return true;
	esync_walk_init(&walk, &event->patch->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(s->reading.tracked, &op, event->event_id, bar->field) &&
			esync_paths_overlap(op.path + op.columnlen, op.len - op.columnlen, path,
								strlen(path)))
			return true;
	return false;
}

/* Takes a bar: what the field is after it.  Bars of one event are one edit. */
static void
take_bar(Track *track, const EsyncBar *bar)
{
	const EsyncSuggest *s = &track->s;
	Said	   *said;
	int			k;

	for (k = 0; k < s->nfields; k++)
		if (s->fields[k] == bar->field)
			break;
	if (k == s->nfields || !bar->has_value)
		return;
	track->columns[k] = bar->value;
	track->known[k] = true;
	if (!is_about_path(s, bar))
		return;
	if (track->n == 0 || track->said[track->n - 1].event != bar->event)
		track->n++;
	said = &track->said[track->n - 1];
	memset(said, 0, sizeof(Said));
	said->value = esync_suggest_value(s, track->columns, track->known);
	said->event = bar->event;
	said->bar = bar;
}

/* What the ledger says of an event's edit of the field. */
static EsyncVerdict
verdict_of(const Track *track, int64 event_id)
{
	const EsyncSuggest *s = &track->s;
	const EsyncMarks *marks = track->marks;
	const char *path = s->place.path;
	EsyncVerdict verdict = ESYNC_VERDICT_NONE;

	if (*path == '\0')
	{
		for (int k = 0; k < s->nfields; k++)
			verdict = Max(verdict, esync_ledger_verdict(marks, s->reading.tracked, s->fields[k],
														event_id));
		return verdict;
	}
	for (int i = esync_ledger_first(marks, event_id);
		 i < marks->n && marks->mark[i].event_id == event_id; i++)
	{
		const EsyncPlace *place = &marks->mark[i].place;

		if (!place->row && place->field == s->place.field &&
			esync_paths_overlap(place->path, strlen(place->path), path, strlen(path)))
			verdict = Max(verdict, marks->mark[i].verdict);
	}
	return verdict;
}

/* Takes what a constraint refused of an event, if that is still in conflict. */
static void
take_refused(Track *track, int event)
{
	const EsyncSuggest *s = &track->s;
	const EsyncEvent *e = &s->reading.events->e[event];
	JsonbValue *columns = palloc(s->nfields * sizeof(JsonbValue));
	bool	   *known = palloc(s->nfields * sizeof(bool));
	const char *constraint = NULL;

	if (*s->place.path || verdict_of(track, e->event_id) != ESYNC_VERDICT_CONFLICT)
		return;
	for (int k = 0; k < s->nfields; k++)
		known[k] = esync_refusal_value(s->reading.tracked, e, s->fields[k], &columns[k],
									   &constraint);
	if (constraint == NULL)
		return;
	track->said[track->n].value = esync_suggest_value(s, columns, known);
	track->said[track->n].event = event;
	track->said[track->n++].constraint = constraint;
}

/* For qsort_arg: by the place of their events among edits. */
static int
compare_effective(const void *a, const void *b, void *arg)
{
	const EsyncEvents *events = arg;
	EsyncStamp	x = esync_event_stamp(&events->e[((const Said *) a)->event]);
	EsyncStamp	y = esync_event_stamp(&events->e[((const Said *) b)->event]);

	return esync_stamp_cmp(&x, &y);
}

/* The author of an edit; NULL where it is nobody's own word. */
static text *
author_of(const EsyncEvent *event)
{
	JsonbValue	found;

	if (event->type == ESYNC_BASELINE ||
		(event->flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN)))
		return NULL;
	/* a policy's decision, and what an undo left, nobody said */
	if (event->type == ESYNC_RESOLVED && event->meta && JB_ROOT_IS_OBJECT(event->meta) &&
		(esync_json_member(&event->meta->root, "policy", 6, &found) ||
		 esync_json_member(&event->meta->root, "undoes", 6, &found)))
		return NULL;
	return event->user_id ? event->user_id : event->device_id;
}

/* For qsort_arg: edits by author, the newest first. */
static int
compare_authors(const void *a, const void *b, void *arg)
{
	text	   *const *authors = arg;
	int			x = *(const int *) a;
	int			y = *(const int *) b;
	int			order = esync_key_cmp(VARDATA_ANY(authors[x]), VARSIZE_ANY_EXHDR(authors[x]),
									  VARDATA_ANY(authors[y]), VARSIZE_ANY_EXHDR(authors[y]));

	return order != 0 ? order : y - x;
}

/* Marks the last word of each author, in the order of edits. */
static void
mark_last_words(Track *track)
{
	text	  **authors = palloc(sizeof(text *) * Max(track->n, 1));
	int		   *order = palloc(sizeof(int) * Max(track->n, 1));
	int			n = 0;

	for (int i = 0; i < track->n; i++)
	{
		authors[i] = author_of(&track->s.reading.events->e[track->said[i].event]);
		if (authors[i] != NULL)
			order[n++] = i;
	}
	qsort_arg(order, n, sizeof(int), compare_authors, authors);
	for (int i = 0; i < n; i++)
	{
		const text *mine = authors[order[i]];
		const text *before = i == 0 ? NULL : authors[order[i - 1]];

		if (before == NULL ||
			esync_key_cmp(VARDATA_ANY(mine), VARSIZE_ANY_EXHDR(mine),
						  VARDATA_ANY(before), VARSIZE_ANY_EXHDR(before)) != 0)
			track->said[order[i]].last = true;
	}
}

/* Reads all that was said of the field, in the order of edits. */
static void
read_track(Track *track)
{
	EsyncSuggest *s = &track->s;
	EsyncBars  *bars = esync_history_bars(&s->reading, s->place.group >= 0 ? ESYNC_ALL_FIELDS :
										  s->place.field);
	Said	   *current = NULL;

	track->marks = esync_ledger_marks(&s->reading);
	track->columns = palloc(s->nfields * sizeof(JsonbValue));
	track->known = palloc0(s->nfields * sizeof(bool));
	track->said = palloc0((bars->n + s->reading.events->n + 1) * sizeof(Said));
	esync_withdraw_mark(s->reading.events, 0);
	for (int i = 0; i < bars->n; i++)
		take_bar(track, &bars->bar[i]);
	for (int i = 0; i < s->reading.events->n; i++)
		take_refused(track, i);
	qsort_arg(track->said, track->n, sizeof(Said), compare_effective, s->reading.events);
	mark_last_words(track);
	for (int i = 0; i < track->n; i++)
	{
		track->said[i].rank = i;
		if (track->said[i].bar)
			current = &track->said[i];
	}
	if (current)
		current->current = true;
}

/* For qsort: by value, newest first. */
static int
compare_said(const void *a, const void *b)
{
	const Said *x = a;
	const Said *y = b;
	int			order = compareJsonbContainers(&x->value->root, &y->value->root);

	return order != 0 ? order : y->rank - x->rank;
}

/* Makes candidates of the edits: one a value. */
static void
make_candidates(Track *track)
{
	EsyncSuggest *s = &track->s;

	qsort(track->said, track->n, sizeof(Said), compare_said);
	s->candidates = palloc0(sizeof(EsyncCandidate) * Max(track->n, 1));
	for (int i = 0; i < track->n; i++)
	{
		const Said *said = &track->said[i];
		EsyncCandidate *c = &s->candidates[s->ncandidates - 1];

		if (i == 0 || compareJsonbContainers(&c->value->root, &said->value->root) != 0)
		{
			c = &s->candidates[s->ncandidates++];
			c->value = said->value;
			c->first = i;
		}
		c->n++;
		c->authors += said->last;
		c->shown |= said->current;
		if (c->constraint == NULL)
			c->constraint = said->constraint;
		c->disputed |= verdict_of(track, s->reading.events->e[said->event].event_id) ==
			ESYNC_VERDICT_CONFLICT;
	}
}

/* ------------------------------------------------------------ what it weighs */

/* A value as a number to be reckoned with; NULL: it is none. */
static Numeric
number_of(const Jsonb *value)
{
	JsonbValue	v;

	esync_json_root(value, &v);
	return v.type == jbvNumeric ? v.val.numeric : NULL;
}

static double
as_double(Numeric n)
{
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(n)));
}

/* What one author of this value weighs. */
static double
weight_of(const EsyncCandidate *c)
{
	return c->shown || c->disputed ? 1 : REPLACED_WEIGHT;
}

/* How near a value is to the median: 1 for the median, 1/2 where half of the rows lie further. */
static double
nearness(const EsyncSuggest *s, const EsyncCandidate *c)
{
	double		usual = as_double(s->usual);
	double		distance = as_double(c->distance);

	if (distance == 0)
		return 1;
	return usual == 0 ? 0 : 1 / (1 + distance / usual);
}

/*
 * The mean of what can be told: the share of authors, the share of rows, and
 * the nearness.  What tells nothing of any candidate is left out.
 */
static void
weigh(const EsyncSuggest *s, EsyncCandidate *c)
{
	double		sum = 0;
	int			n = 0;

	if (s->weight > 0)
	{
		sum += c->authors * weight_of(c) / s->weight;
		n++;
	}
	if (s->held > 0)
	{
		sum += (double) c->rows / s->rows;
		n++;
	}
	if (c->measured)
	{
		sum += nearness(s, c);
		n++;
	}
	c->confidence = n == 0 ? 0 : rint(sum / n * 10000) / 10000;
}

/* Measures and weighs all candidates. */
static void
weigh_all(EsyncSuggest *s)
{
	bool		median = s->numbers >= FEW && s->median != NULL && s->usual != NULL;

	for (int i = 0; i < s->ncandidates; i++)
	{
		EsyncCandidate *c = &s->candidates[i];
		Numeric		number = number_of(c->value);

		s->authors += c->authors;
		s->weight += c->authors * weight_of(c);
		if (!median || number == NULL)
			continue;
		c->measured = true;
		c->distance = DatumGetNumeric(DirectFunctionCall1(numeric_abs,
			DirectFunctionCall2(numeric_sub, NumericGetDatum(number), NumericGetDatum(s->median))));
	}
	for (int i = 0; i < s->ncandidates; i++)
		weigh(s, &s->candidates[i]);
}

/* Does the table not take the value, as things stand? */
static bool
is_refused(const EsyncCandidate *c)
{
	return c->constraint != NULL && !c->shown;
}

/*
 * For qsort_arg: what was refused last; then the greatest confidence first, then
 * what was said last.
 */
static int
compare_candidates(const void *a, const void *b, void *arg)
{
	const EsyncCandidate *x = a;
	const EsyncCandidate *y = b;
	const Said *said = arg;

	if (is_refused(x) != is_refused(y))
		return is_refused(x) - is_refused(y);
	if (x->confidence != y->confidence)
		return x->confidence > y->confidence ? -1 : 1;
	return said[y->first].rank - said[x->first].rank;
}

/* ---------------------------------------------------------------- the answer */

/* A number without zeros behind its last digit. */
static char *
number_text(Numeric n)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
		DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(n))));
}

/* How a value stands to the field, as the beginning of a sentence. */
static char *
standing_of(const EsyncSuggest *s, const EsyncCandidate *c)
{
	bool		dropped = s->reading.tracked->fields[s->fields[0]].attnum == 0;
	bool		deleted = s->fold.deleted || !esync_fold_has_row(&s->fold);

	if (is_refused(c))
		return strcmp(c->constraint, "NOT NULL") == 0 ? "Refused by NOT NULL, so it counts for nothing" :
			psprintf("Refused by constraint \"%s\", so it counts for nothing", c->constraint);
	if (c->shown)
		return psprintf("%s%s", dropped ? "Shown last, before the column was dropped" :
						deleted ? "Would show if the row came back" : "Shown",
						c->disputed ? ", in dispute" : "");
	return c->disputed ? "In dispute" : "Replaced since";
}

/* What speaks for a value, as a sentence with the figures in it. */
static text *
reason_of(const EsyncSuggest *s, const EsyncCandidate *c)
{
	StringInfoData r;

	initStringInfo(&r);
	appendStringInfoString(&r, standing_of(s, c));
	if (s->authors > 0)
		appendStringInfo(&r, "; %d of %d author%s said so last%s", c->authors, s->authors,
						 s->authors == 1 ? "" : "s",
						 c->authors > 0 && weight_of(c) < 1 ? ", counted half" : "");
	if (s->rows > 0)
		appendStringInfo(&r, "; " INT64_FORMAT " of " INT64_FORMAT " other row%s%s %s it",
						 c->rows, s->rows, s->rows == 1 ? "" : "s",
						 s->reading.tracked->tenant_field >= 0 ? " of the tenant" : "",
						 s->rows == 1 ? "holds" : "hold");
	if (c->measured)
		appendStringInfo(&r, "; %s away from their median %s, where half of them lie within %s",
						 number_text(c->distance), number_text(s->median), number_text(s->usual));
	appendStringInfoChar(&r, '.');
	return cstring_to_text_with_len(r.data, r.len);
}

/* Sets a member of an object; the value is the caller's to fill in. */
static JsonbValue *
set_member(EsyncMember *member, const char *key)
{
	member->key = key;
	member->keylen = strlen(key);
	member->value.type = jbvNull;
	return &member->value;
}

static void
set_text(JsonbValue *value, text *string)
{
	if (string == NULL)
		return;
	value->type = jbvString;
	value->val.string.val = VARDATA_ANY(string);
	value->val.string.len = VARSIZE_ANY_EXHDR(string);
}

static void
set_int64(JsonbValue *value, int64 number)
{
	value->type = jbvNumeric;
	value->val.numeric = int64_to_numeric(number);
}

/* The status of an edit as field_history has it; what was refused is in conflict. */
static const char *
status_of(const Track *track, const Said *said)
{
	if (said->current)
		return "current";
	switch (verdict_of(track, track->s.reading.events->e[said->event].event_id))
	{
		case ESYNC_VERDICT_CONFLICT:
			return "conflict";
		case ESYNC_VERDICT_LOST:
			return "lost";
		case ESYNC_VERDICT_NONE:
			break;
	}
	return "superseded";
}

/* An edit that set the value, or of which a constraint refused it. */
static Jsonb *
source_of(const Track *track, const Said *said)
{
	const EsyncEvent *event = &track->s.reading.events->e[said->event];
	int			n = 6;
	EsyncMember members[7];

	set_int64(set_member(&members[0], "event_id"), event->event_id);
	set_int64(set_member(&members[1], "version"), event->version);
	set_text(set_member(&members[2], "user_id"), event->user_id);
	set_text(set_member(&members[3], "device_id"), event->device_id);
	esync_json_time(event->submit, set_member(&members[4], "submit_timestamp"));
	set_text(set_member(&members[5], "status"), cstring_to_text(status_of(track, said)));
	if (said->constraint)
		set_text(set_member(&members[n++], "constraint"), cstring_to_text(said->constraint));
	return esync_json_object(n, members);
}

/* All edits that set the value, newest first. */
static Jsonb *
sources_of(const Track *track, const EsyncCandidate *c)
{
	EsyncJson	json;

	esync_json_init(&json, 200 * c->n + 64);
	esync_json_open_array(&json, c->n);
	for (int i = 0; i < c->n; i++)
	{
		JsonbValue	v;

		esync_json_root(source_of(track, &track->said[c->first + i]), &v);
		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* Returns one row of esync_suggest. */
static void
put_candidate(ReturnSetInfo *rsinfo, const Track *track, const EsyncCandidate *c)
{
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = JsonbPGetDatum(c->value);
	values[1] = Float8GetDatum(is_refused(c) ? 0 : c->confidence);
	values[2] = PointerGetDatum(reason_of(&track->s, c));
	values[3] = Int64GetDatum(c->authors + c->rows);
	values[4] = JsonbPGetDatum(sources_of(track, c));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(esync_suggest);

/* esync_suggest(tbl regclass, key text, field name) */
Datum
esync_suggest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Track		track = {0};
	EsyncSuggest *s = &track.s;
	EsyncTracked *t;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(2) || !esync_history_open(fcinfo, true, ESYNC_WANT_EDITS, &s->reading))
		return (Datum) 0;
	find_place(s, PG_GETARG_NAME(2));
	if (s->reading.rls_hidden || s->nfields == 0)
		return (Datum) 0;

	read_track(&track);
	make_candidates(&track);
	if (s->ncandidates == 0)
		return (Datum) 0;
	t = s->reading.tracked;
	esync_fold_init(&s->fold, t->fields, t->nfields, t->tombstone_field);
	for (int i = 0; i < s->reading.events->n; i++)
		esync_fold_add(&s->fold, &s->reading.events->e[i], i);
	if (t->fields[s->fields[0]].attnum != 0)
	{
		esync_others_count(s);
		esync_others_median(s);
	}
	weigh_all(s);
	qsort_arg(s->candidates, s->ncandidates, sizeof(EsyncCandidate), compare_candidates,
			  track.said);
	for (int i = 0; i < s->ncandidates; i++)
		put_candidate(rsinfo, &track, &s->candidates[i]);
	return (Datum) 0;
}
