/*
 * graph.c: one row's lanes drawn as text, newest first, as `git log --graph`
 * draws branches.
 *
 * Lane 0 is the server's line with a `*` for each commit; an author's lane
 * leaves it where the copy was taken, has an `o` for branch and submit, and
 * joins it below the commit.  The drawing is a function of the events alone.
 * Everything lives in the caller's context.
 */
#include "postgres.h"

#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "conflict.h"

/* how much of a value, and of a line, is shown; in characters */
#define VALUE_WIDTH		40
#define LINE_WIDTH		120
#define FIELDS_SHOWN	3

/* room for what else a line may need: separators and ", +99 more" */
#define MORE_WIDTH		14

/* what colour adds to the author's name, and nobody sees */
#define ESCAPES_WIDTH	((int) strlen("\033[31m\033[0m"))

/* the colours of lanes 0, 1, 2 ...: codes of ANSI's SGR, as git orders them */
static const char *const lane_colors[] = {"31", "32", "33", "34", "35", "36"};

/* a drawing that goes down the page, from the newest moment to the oldest */
typedef struct Graph
{
	EsyncReading *reading;
	EsyncMoments *moments;
	EsyncBar  **bars;			/* of all events, by event and field */
	int			nbars;
	EsyncMarks *marks;			/* what the ledger says of the events */
	bool		color;
	int		   *open;			/* a lane: how many events are on it here */
	int			commits_below;	/* commits that are still to be drawn */
	int			width;			/* of the drawing */
	char	   *cell;			/* one line of it, and */
	int		   *owner;			/* the lane that each cell belongs to */
	ReturnSetInfo *rsinfo;
} Graph;

static void draw_moment(Graph *graph, int i);
static void draw_commit(Graph *graph, int i);
static void draw_work(Graph *graph, int i);
static void draw_link(Graph *graph, int lane, char slash);
static void emit(Graph *graph, const char *text);
static char *describe(Graph *graph, const EsyncMoment *moment);
static void describe_author(Graph *graph, StringInfo out, int event);
static void describe_bars(Graph *graph, StringInfo out, int event);
static void describe_marks(Graph *graph, StringInfo out, int event, EsyncVerdict verdict,
						   const char *label);

/* For qsort: by event, then by field in column order. */
static int
compare_bars(const void *a, const void *b)
{
	const EsyncBar *x = *(EsyncBar *const *) a;
	const EsyncBar *y = *(EsyncBar *const *) b;

	if (x->event != y->event)
		return x->event < y->event ? -1 : 1;
	return x->field < y->field ? -1 : x->field > y->field;
}

/* Gathers what the drawing needs; no line has been drawn after it. */
static void
graph_begin(Graph *graph, EsyncReading *reading, bool color, ReturnSetInfo *rsinfo)
{
	EsyncBars  *bars = esync_history_bars(reading, ESYNC_ALL_FIELDS);

	graph->reading = reading;
	graph->moments = esync_timeline_moments(reading->events);
	graph->color = color;
	graph->rsinfo = rsinfo;

	graph->nbars = bars->n;
	graph->bars = palloc(sizeof(EsyncBar *) * Max(bars->n, 1));
	for (int i = 0; i < bars->n; i++)
		graph->bars[i] = &bars->bar[i];
	qsort(graph->bars, bars->n, sizeof(EsyncBar *), compare_bars);
	graph->marks = esync_ledger_marks(reading);

	graph->width = 2 * graph->moments->nlanes - 1;
	graph->cell = palloc(graph->width + 1);
	graph->owner = palloc(sizeof(int) * graph->width);
	graph->open = palloc0(sizeof(int) * graph->moments->nlanes);
	graph->commits_below = reading->events->n;
}

/* The shared body of esync_graph: nothing is drawn where nothing may be read. */
static Datum
graph_rows(FunctionCallInfo fcinfo, bool key_is_text)
{
	EsyncReading reading;
	Graph		graph;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!esync_history_open(fcinfo, key_is_text, ESYNC_WANT_EDITS, &reading) ||
		reading.rls_hidden)
		return (Datum) 0;

	graph_begin(&graph, &reading, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2),
				(ReturnSetInfo *) fcinfo->resultinfo);
	for (int i = graph.moments->n - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		draw_moment(&graph, i);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(esync_graph_any);

/* esync_graph(tbl regclass, key "any", color boolean) */
Datum
esync_graph_any(PG_FUNCTION_ARGS)
{
	return graph_rows(fcinfo, false);
}

PG_FUNCTION_INFO_V1(esync_graph_text);

/* esync_graph(tbl regclass, key text, color boolean) */
Datum
esync_graph_text(PG_FUNCTION_ARGS)
{
	return graph_rows(fcinfo, true);
}

/* Draws one moment with the lines that link its lane to the server's. */
static void
draw_moment(Graph *graph, int i)
{
	const EsyncMoment *moment = &graph->moments->moment[i];

	if (moment->kind == ESYNC_MOMENT_COMMIT)
		draw_commit(graph, i);
	else
		draw_work(graph, i);
}

/* Sets a line to the lanes that pass through it. */
static void
draw_passing(Graph *graph)
{
	memset(graph->cell, ' ', graph->width);
	graph->cell[graph->width] = '\0';
	for (int lane = 0; lane < graph->moments->nlanes; lane++)
	{
		bool		passes = lane == 0 ? graph->commits_below > 0 : graph->open[lane] > 0;

		graph->cell[2 * lane] = passes ? '|' : ' ';
		graph->owner[2 * lane] = lane;
		if (lane > 0)
			graph->owner[2 * lane - 1] = lane;
	}
}

/*
 * Draws a commit: the `*` on lane 0, and the lane that joined it.  Where the
 * commit is older than the event's other moments the lane ends above it.
 */
static void
draw_commit(Graph *graph, int i)
{
	const EsyncMoment *moment = &graph->moments->moment[i];
	const EsyncSpan *span = &graph->moments->span[moment->event];
	bool		oldest = span->lane > 0 && i == span->first;

	if (oldest)
	{
		graph->open[span->lane]--;
		draw_link(graph, span->lane, '/');
	}
	draw_passing(graph);
	graph->cell[0] = '*';
	emit(graph, describe(graph, moment));
	graph->commits_below--;
	if (span->lane > 0 && !oldest)
	{
		draw_link(graph, span->lane, '\\');
		if (i == span->last)
			graph->open[span->lane]++;
	}
}

/*
 * Draws a branch or submit moment: the `o` on its lane, and below a branch
 * the way back to lane 0, unless the row was not yet there to be branched.
 */
static void
draw_work(Graph *graph, int i)
{
	const EsyncMoment *moment = &graph->moments->moment[i];
	const EsyncSpan *span = &graph->moments->span[moment->event];

	if (i == span->last)
		graph->open[span->lane]++;
	draw_passing(graph);
	graph->cell[2 * span->lane] = 'o';
	emit(graph, describe(graph, moment));
	if (i == span->first)
		graph->open[span->lane]--;
	if (moment->kind == ESYNC_MOMENT_BRANCH && graph->commits_below > 0)
		draw_link(graph, span->lane, '/');
}

/* Marks a cell as part of the link of a lane; lanes that pass stay visible. */
static void
put_link(Graph *graph, int column, char c, int lane)
{
	if (graph->cell[column] != ' ')
		return;
	graph->cell[column] = c;
	graph->owner[column] = lane;
}

/*
 * Draws the line or two that lead from lane 0 down to a lane (slash `\`) or
 * from a lane down to lane 0 (`/`), crossing the lanes between them.
 */
static void
draw_link(Graph *graph, int lane, char slash)
{
	bool		down = slash == '\\';

	draw_passing(graph);
	if (lane == 1)
	{
		put_link(graph, 1, slash, lane);
		emit(graph, NULL);
		return;
	}
	put_link(graph, down ? 1 : 2 * lane - 1, slash, lane);
	for (int column = 2; column <= 2 * lane - 2; column++)
		put_link(graph, column, '_', lane);
	emit(graph, NULL);

	draw_passing(graph);
	put_link(graph, down ? 2 * lane - 1 : 1, slash, lane);
	emit(graph, NULL);
}

/* Appends the drawing of a line, coloured lane by lane where asked for. */
static void
append_cells(Graph *graph, StringInfo out, int ncells)
{
	int			painted = -1;

	for (int column = 0; column < ncells; column++)
	{
		char		c = graph->cell[column];
		int			owner = c == ' ' ? painted : graph->owner[column];

		if (graph->color && owner != painted)
		{
			appendStringInfo(out, "\033[%sm", lane_colors[owner % lengthof(lane_colors)]);
			painted = owner;
		}
		appendStringInfoChar(out, c);
	}
	if (painted >= 0)
		appendStringInfoString(out, "\033[0m");
}

/* Returns one line: the drawing and, unless NULL, the text beside it. */
static void
emit(Graph *graph, const char *text)
{
	StringInfoData line;
	int			ncells = graph->width;
	Datum		value;
	bool		isnull = false;

	initStringInfo(&line);
	if (text == NULL)
		while (ncells > 0 && graph->cell[ncells - 1] == ' ')
			ncells--;
	append_cells(graph, &line, ncells);
	if (text != NULL)
	{
		appendStringInfoString(&line, "  ");
		appendStringInfoString(&line, text);
		if (graph->color)
			appendStringInfoString(&line, "\033[0m");
	}
	value = PointerGetDatum(cstring_to_text_with_len(line.data, line.len));
	tuplestore_putvalues(graph->rsinfo->setResult, graph->rsinfo->setDesc, &value, &isnull);
	pfree(line.data);
}

/* ------------------------------------------------- the text beside the lanes */

/* Appends a text that users chose, without what could drive a terminal. */
static void
append_plain(StringInfo out, const char *string, int len)
{
	for (int i = 0; i < len; i++)
	{
		unsigned char c = string[i];

		appendStringInfoChar(out, c < 0x20 || c == 0x7f ? '?' : (char) c);
	}
}

/* Appends a moment in UTC, to the second. */
static void
append_time(StringInfo out, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buf[MAXDATELEN + 1];

	if (TIMESTAMP_NOT_FINITE(at) || timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		EncodeSpecialTimestamp(at, buf);
	else
		EncodeDateTime(&tm, 0, false, 0, NULL, USE_ISO_DATES, buf);
	appendStringInfoString(out, buf);
}

/* Appends a value as JSON, cut to VALUE_WIDTH characters. */
static void
append_value(StringInfo out, const JsonbValue *value)
{
	StringInfoData json;
	Jsonb	   *document = esync_json_from_value(value);
	int			cut;

	initStringInfo(&json);
	JsonbToCString(&json, &document->root, VARSIZE(document));
	cut = pg_mbcharcliplen(json.data, json.len, VALUE_WIDTH);
	if (cut == json.len)
		append_plain(out, json.data, json.len);
	else
	{
		cut = pg_mbcharcliplen(json.data, json.len, VALUE_WIDTH - 3);
		append_plain(out, json.data, cut);
		appendStringInfoString(out, "...");
	}
	pfree(json.data);
}

/* What stands beside a moment; lines of a commit say what it set. */
static char *
describe(Graph *graph, const EsyncMoment *moment)
{
	const EsyncEvent *event = &graph->reading->events->e[moment->event];
	StringInfoData out;

	initStringInfo(&out);
	append_time(&out, moment->at);
	if (moment->kind == ESYNC_MOMENT_COMMIT)
		appendStringInfo(&out, "  v" INT64_FORMAT " %s",
						 event->version, esync_event_type_name(event->type));
	else
		appendStringInfoString(&out,
							   moment->kind == ESYNC_MOMENT_BRANCH ? "  branch" : "  submit");
	describe_author(graph, &out, moment->event);
	if (moment->kind == ESYNC_MOMENT_COMMIT)
	{
		describe_bars(graph, &out, moment->event);
		describe_marks(graph, &out, moment->event, ESYNC_VERDICT_CONFLICT, "conflict");
		describe_marks(graph, &out, moment->event, ESYNC_VERDICT_LOST, "lost");
	}
	return out.data;
}

/* Appends who was at work, in the colour of the lane. */
static void
describe_author(Graph *graph, StringInfo out, int i)
{
	const EsyncEvent *event = &graph->reading->events->e[i];
	int			lane = graph->moments->span[i].lane;

	appendStringInfoString(out, "  ");
	if (graph->color)
		appendStringInfo(out, "\033[%sm", lane_colors[lane % lengthof(lane_colors)]);
	if (event->user_id != NULL)
		append_plain(out, VARDATA_ANY(event->user_id), VARSIZE_ANY_EXHDR(event->user_id));
	if (event->device_id != NULL)
	{
		appendStringInfoChar(out, '@');
		append_plain(out, VARDATA_ANY(event->device_id), VARSIZE_ANY_EXHDR(event->device_id));
	}
	if (graph->color)
		appendStringInfoString(out, "\033[0m");
}

/* Index of an event's first bar; the number of bars if it has none. */
static int
first_bar(Graph *graph, int event)
{
	int			low = 0;
	int			high = graph->nbars;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (graph->bars[middle]->event < event)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* One edit: `name: before -> after`, or `name: after` where nothing was before. */
static char *
describe_bar(Graph *graph, const EsyncBar *bar)
{
	const char *name = graph->reading->tracked->fields[bar->field].name;
	StringInfoData out;

	initStringInfo(&out);
	append_plain(&out, name, strlen(name));
	appendStringInfoString(&out, ": ");
	if (bar->has_previous)
	{
		append_value(&out, &bar->previous);
		appendStringInfoString(&out, " -> ");
	}
	append_value(&out, &bar->value);
	return out.data;
}

/*
 * Appends up to FIELDS_SHOWN of what an event set, fewer where the line gets
 * too long, and how many there are more.  A null that replaces nothing is
 * not worth a place.
 */
static void
describe_bars(Graph *graph, StringInfo out, int event)
{
	int			width = graph->width + pg_mbstrlen_with_len(out->data, out->len) -
		(graph->color ? ESCAPES_WIDTH : 0);
	int			shown = 0;
	int			more = 0;

	for (int i = first_bar(graph, event);
		 i < graph->nbars && graph->bars[i]->event == event; i++)
	{
		const EsyncBar *bar = graph->bars[i];
		char	   *item;

		if (bar->field < 0 || (!bar->has_previous && bar->value.type == jbvNull))
			continue;
		item = more > 0 || shown == FIELDS_SHOWN ? NULL : describe_bar(graph, bar);
		if (item == NULL ||
			(shown > 0 && width + pg_mbstrlen(item) + MORE_WIDTH > LINE_WIDTH))
		{
			more++;
			continue;
		}
		appendStringInfo(out, "%s%s", shown > 0 ? ", " : "  ", item);
		width += 2 + pg_mbstrlen(item);
		shown++;
	}
	if (more > 0)
		appendStringInfo(out, ", +%d more", more);
}

/*
 * Appends the fields in which an event is in conflict, or lost, as far as the
 * caller may read them; the row as a whole is named by the kind of conflict.
 */
static void
describe_marks(Graph *graph, StringInfo out, int event, EsyncVerdict verdict, const char *label)
{
	const EsyncReading *reading = graph->reading;
	const EsyncMarks *marks = graph->marks;
	int64		event_id = reading->events->e[event].event_id;
	List	   *shown = NIL;

	for (int i = esync_ledger_first(marks, event_id);
		 i < marks->n && marks->mark[i].event_id == event_id; i++)
	{
		const EsyncMark *mark = &marks->mark[i];
		char	   *name = mark->name ? mark->name : "delete_edit";

		if (mark->verdict != verdict || list_member(shown, makeString(name)) ||
			!esync_ledger_readable(reading->tracked, &reading->rights, &mark->place))
			continue;
		if (shown == NIL)
			appendStringInfo(out, "  %s: ", label);
		else
			appendStringInfoString(out, ", ");
		append_plain(out, name, strlen(name));
		shown = lappend(shown, makeString(name));
	}
}
