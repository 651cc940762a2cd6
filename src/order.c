/*
 * order.c: in which order the events of a batch are run.
 *
 * Without dependencies they keep the order of their seq, or in which they were
 * sent.  Those of one row stay in it; who creates a row goes before who points
 * to it, by value; deletes go by table, the other way round.  A cycle is cut
 * where it would have begun without the rules.  Events of one tx are one node,
 * ordered among themselves by the same rules.
 *
 * Rows are compared by the text of their keys as sent, in lower case: what
 * looks alike and is not costs a needless rule, nothing more.
 */
#include "postgres.h"

#include <limits.h>

#include "lib/binaryheap.h"
#include "utils/builtins.h"

#include "coder.h"
#include "submit.h"

typedef struct Edge
{
	int			from;
	int			to;
} Edge;

typedef struct Graph
{
	int			n;				/* nodes */
	int		   *rank;			/* of each: lower ones go first where they may */
	int			nedges;
	int			size;
	Edge	   *edges;
} Graph;

/* a row, or what a row is pointed to by, and who is about it */
typedef struct Mention
{
	char	   *name;
	EsyncItem  *item;
} Mention;

typedef struct Mentions
{
	int			n;
	int			size;
	Mention    *m;
} Mentions;

/* ------------------------------------------------------------------ graphs */

static void
graph_init(Graph *g, int n)
{
	g->n = n;
	g->rank = palloc0(Max(n, 1) * sizeof(int));
	g->nedges = 0;
	g->size = 64;
	g->edges = palloc(g->size * sizeof(Edge));
}

static void
add_edge(Graph *g, int from, int to)
{
	if (from == to)
		return;
	if (g->nedges == g->size)
	{
		g->size *= 2;
		g->edges = repalloc_huge(g->edges, g->size * sizeof(Edge));
	}
	g->edges[g->nedges++] = (Edge) {from, to};
}

static int
compare_edges(const void *a, const void *b)
{
	return ((const Edge *) a)->from - ((const Edge *) b)->from;
}

/* The heap gives the greatest first, so the lowest rank is the greatest. */
static int
compare_ranks(Datum a, Datum b, void *arg)
{
	const Graph *g = arg;

	return g->rank[DatumGetInt32(b)] - g->rank[DatumGetInt32(a)];
}

/* One node is done: those that waited for it alone are ready. */
static void
release(const Graph *g, const int *first, int node, int *waits, const bool *done, binaryheap *ready)
{
	for (int i = first[node]; i < first[node + 1]; i++)
	{
		int			to = g->edges[i].to;

		if (--waits[to] == 0 && !done[to])
			binaryheap_add(ready, Int32GetDatum(to));
	}
}

/*
 * The nodes in an order that follows the edges, and the ranks where there is a
 * choice.  In a cycle the node of lowest rank goes first.  by_rank has all
 * nodes by ascending rank.
 */
static int *
sort_graph(Graph *g, const int *by_rank)
{
	int		   *order = palloc(Max(g->n, 1) * sizeof(int));
	int		   *waits = palloc0(Max(g->n, 1) * sizeof(int));
	int		   *first = palloc((g->n + 1) * sizeof(int));
	bool	   *done = palloc0(Max(g->n, 1) * sizeof(bool));
	binaryheap *ready = binaryheap_allocate(Max(g->n, 1), compare_ranks, g);
	int			next = 0;
	int			edge = 0;

	qsort(g->edges, g->nedges, sizeof(Edge), compare_edges);
	for (int i = 0; i <= g->n; i++)
	{
		while (edge < g->nedges && g->edges[edge].from < i)
			edge++;
		first[i] = edge;
	}
	for (int i = 0; i < g->nedges; i++)
		waits[g->edges[i].to]++;
	for (int i = 0; i < g->n; i++)
		if (waits[i] == 0)
			binaryheap_add(ready, Int32GetDatum(i));
	for (int i = 0; i < g->n; i++)
	{
		int			node;

		if (!binaryheap_empty(ready))
			node = DatumGetInt32(binaryheap_remove_first(ready));
		else
		{
			while (done[by_rank[next]])
				next++;
			node = by_rank[next];
		}
		done[node] = true;
		order[i] = node;
		release(g, first, node, waits, done, ready);
	}
	return order;
}

/* ---------------------------------------------------------------- mentions */

static void
mention(Mentions *list, char *name, EsyncItem *item)
{
	if (list->n == list->size)
	{
		list->size = Max(64, list->size * 2);
		list->m = list->m ? repalloc_huge(list->m, list->size * sizeof(Mention)) :
			palloc(list->size * sizeof(Mention));
	}
	list->m[list->n++] = (Mention) {name, item};
}

/* By name, then by where the events would stand. */
static int
compare_mentions(const void *a, const void *b)
{
	const Mention *x = a;
	const Mention *y = b;
	int			result = strcmp(x->name, y->name);

	return result != 0 ? result : x->item->base_place - y->item->base_place;
}

/* The first mention of a name; -1 if there is none. */
static int
find_mention(const Mentions *list, const char *name)
{
	int			low = 0;
	int			high = list->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (strcmp(list->m[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < list->n && strcmp(list->m[low].name, name) == 0 ? low : -1;
}

/* Adds "column=value" to a name, length first, so that no two names are alike by chance. */
static void
append_value(StringInfo name, const char *column, const char *value)
{
	appendStringInfo(name, "%zu %s=%zu ", strlen(column), column, strlen(value));
	for (; *value; value++)
		appendStringInfoChar(name, pg_ascii_tolower((unsigned char) *value));
}

/* What an item sets a column to, as text; NULL: nothing, or it is not known. */
static char *
column_text(const EsyncItem *item, const EsyncTracked *t, const char *column)
{
	const Jsonb *document = item->edit.document ? item->edit.document : item->edit.set;
	JsonbValue	v;

	if (document && esync_json_member(&document->root, column, strlen(column), &v))
		return v.type == jbvNull ? NULL : esync_scalar_text(&v);
	for (int k = 0; k < t->nkeys; k++)
		if (strcmp(t->fields[t->keyfields[k]].name, column) == 0)
			return item->keytexts[k];
	return NULL;
}

/* The name of a row of a table by these columns; NULL if one is not set. */
static char *
name_of(const EsyncItem *item, Oid relid, char **theirs, char **ours, int n)
{
	EsyncTracked *t = esync_tracked_get(item->target->root);
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfo(&name, "%u ", relid);
	for (int i = 0; i < n; i++)
	{
		char	   *value = column_text(item, t, ours[i]);

		if (value == NULL)
			return NULL;
		append_value(&name, theirs[i], value);
	}
	return name.data;
}

/* The name of the row that an item is about; one whose key is still to be made is like no other. */
static char *
row_name(const EsyncItem *item)
{
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfo(&name, "%u ", item->target->root);
	if (item->aggregate_id)
		append_value(&name, "", text_to_cstring(item->aggregate_id));
	else
	{
		EsyncTracked *t = esync_tracked_get(item->target->root);

		for (int k = 0; k < t->nkeys; k++)
			append_value(&name, "", item->keytexts[k]);
	}
	return name.data;
}

/* ------------------------------------------------------------ dependencies */

/* Is the item part of the order?  One that names no row of a table is not. */
static bool
takes_part(const EsyncItem *item)
{
	return !item->duplicate && item->twin == NULL && item->keytexts != NULL &&
		(item->aggregate_id != NULL || item->temporary) && item->target != NULL;
}

static bool
creates(const EsyncItem *item)
{
	return item->edit.verb == ESYNC_VERB_CREATE || item->edit.verb == ESYNC_VERB_SAVE ||
		item->edit.verb == ESYNC_VERB_RESTORE;
}

/* Events of one row keep their order; what follows a create is nothing without it. */
static void
order_rows(EsyncBatch *b, Graph *g)
{
	Mentions	rows = {0};
	EsyncItem  *creator = NULL;

	for (int i = 0; i < b->n; i++)
		if (takes_part(&b->items[i]))
			mention(&rows, row_name(&b->items[i]), &b->items[i]);
	if (rows.n > 1)
		qsort(rows.m, rows.n, sizeof(Mention), compare_mentions);
	for (int i = 0; i < rows.n; i++)
	{
		EsyncItem  *item = rows.m[i].item;

		if (i == 0 || strcmp(rows.m[i - 1].name, rows.m[i].name) != 0)
			creator = NULL;
		else
			add_edge(g, rows.m[i - 1].item - b->items, item - b->items);
		if (creator)
			item->needs = lappend(item->needs, creator);
		if (creates(item))
			creator = item;
	}
}

/* Under all names by which a reference of the batch could mean the row of this item. */
static void
mention_created(EsyncBatch *b, Mentions *created, EsyncItem *item)
{
	ListCell   *lc;

	foreach(lc, b->targets)
	{
		EsyncTarget *target = lfirst(lc);

		for (int i = 0; i < target->nreferences; i++)
		{
			EsyncReference *r = &target->references[i];
			char	   *name;

			if (r->parent != item->target->root)
				continue;
			name = name_of(item, r->parent, r->parent_columns, r->parent_columns, r->n);
			if (name)
				mention(created, name, item);
		}
	}
}

/* Who creates a row goes before who points to it. */
static void
order_references(EsyncBatch *b, Graph *g)
{
	Mentions	created = {0};

	for (int i = 0; i < b->n; i++)
		if (takes_part(&b->items[i]) && creates(&b->items[i]))
			mention_created(b, &created, &b->items[i]);
	if (created.n == 0)
		return;
	qsort(created.m, created.n, sizeof(Mention), compare_mentions);
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];

		if (!takes_part(item) || item->edit.verb == ESYNC_VERB_DELETE)
			continue;
		for (int k = 0; k < item->target->nreferences; k++)
		{
			EsyncReference *r = &item->target->references[k];
			char	   *name = name_of(item, r->parent, r->parent_columns, r->columns, r->n);
			int			at = name ? find_mention(&created, name) : -1;

			if (at < 0 || created.m[at].item == item)
				continue;
			add_edge(g, created.m[at].item - b->items, i);
			item->needs = lappend(item->needs, created.m[at].item);
		}
	}
}

/*
 * Deletes of rows that point come before deletes of rows that are pointed to.
 * Which row points to which is not in the batch, so tables are ordered: a node
 * beyond the items, one a target, stands for the deletes of its table.
 */
static void
order_deletes(EsyncBatch *b, Graph *g)
{
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[i];
		int			node = b->n;
		ListCell   *lc;

		if (!takes_part(item) || item->edit.verb != ESYNC_VERB_DELETE)
			continue;
		foreach(lc, b->targets)
		{
			EsyncTarget *target = lfirst(lc);

			if (target->root == item->target->root)
				add_edge(g, i, node);
			else
				for (int k = 0; k < target->nreferences; k++)
					if (target->references[k].parent == item->target->root)
						add_edge(g, node, i);
			node++;
		}
	}
}

/* ------------------------------------------------------------------ groups */

static int
compare_seq(const void *a, const void *b)
{
	const EsyncItem *x = *(EsyncItem *const *) a;
	const EsyncItem *y = *(EsyncItem *const *) b;

	if (x->edit.device_seq != y->edit.device_seq)
		return x->edit.device_seq < y->edit.device_seq ? -1 : 1;
	return x < y ? -1 : 1;
}

/* Where each event would stand: those with a seq share their places in its order. */
static void
place_items(EsyncBatch *b)
{
	EsyncItem **sorted = palloc(Max(b->n, 1) * sizeof(EsyncItem *));
	int			n = 0;
	int			next = 0;

	for (int i = 0; i < b->n; i++)
		if (b->items[i].edit.device_seq > 0)
			sorted[n++] = &b->items[i];
	qsort(sorted, n, sizeof(EsyncItem *), compare_seq);
	for (int i = 0; i < b->n; i++)
	{
		if (b->items[i].edit.device_seq > 0)
			sorted[next++]->base_place = i;
		else
			b->items[i].base_place = i;
	}
}

typedef struct Tx
{
	const char *name;
	EsyncItem  *item;
} Tx;

static int
compare_tx(const void *a, const void *b)
{
	const Tx   *x = a;
	const Tx   *y = b;
	int			result = strcmp(x->name, y->name);

	return result != 0 ? result : x->item->base_place - y->item->base_place;
}

/* Numbers the groups: one a tx, and one for each event without. */
static int
number_groups(EsyncBatch *b)
{
	Tx		   *tx = palloc(Max(b->n, 1) * sizeof(Tx));
	int			ntx = 0;
	int			ngroups = 0;

	for (int i = 0; i < b->n; i++)
	{
		b->items[i].group = -1;
		if (b->items[i].duplicate || b->items[i].twin != NULL || b->items[i].untold)
			continue;
		if (b->items[i].tx)
			tx[ntx++] = (Tx) {b->items[i].tx, &b->items[i]};
		else
			b->items[i].group = ngroups++;
	}
	qsort(tx, ntx, sizeof(Tx), compare_tx);
	for (int i = 0; i < ntx; i++)
	{
		if (i == 0 || strcmp(tx[i - 1].name, tx[i].name) != 0)
			ngroups++;
		tx[i].item->group = ngroups - 1;
	}
	return ngroups;
}

/* The graph of groups, out of that of items; nodes beyond the items follow the groups. */
static void
contract(EsyncBatch *b, const Graph *items, int ngroups, Graph *groups)
{
	int			extra = items->n - b->n;

	graph_init(groups, ngroups + extra);
	for (int i = 0; i < groups->n; i++)
		groups->rank[i] = i < ngroups ? INT_MAX : i - groups->n;
	for (int i = 0; i < b->n; i++)
		if (b->items[i].group >= 0)
			groups->rank[b->items[i].group] = Min(groups->rank[b->items[i].group],
												  b->items[i].base_place);
	for (int i = 0; i < items->nedges; i++)
	{
		int			from = items->edges[i].from;
		int			to = items->edges[i].to;

		add_edge(groups, from < b->n ? b->items[from].group : from - b->n + ngroups,
				 to < b->n ? b->items[to].group : to - b->n + ngroups);
	}
}

static int
compare_by_rank(const void *a, const void *b, void *arg)
{
	const int  *rank = arg;

	return rank[*(const int *) a] - rank[*(const int *) b];
}

/* All nodes by ascending rank. */
static int *
nodes_by_rank(const Graph *g)
{
	int		   *nodes = palloc(Max(g->n, 1) * sizeof(int));

	for (int i = 0; i < g->n; i++)
		nodes[i] = i;
	qsort_arg(nodes, g->n, sizeof(int), compare_by_rank, g->rank);
	return nodes;
}

/* Fills the groups in the order of their nodes, their items in that of the batch. */
static void
fill_groups(EsyncBatch *b, const int *order, int nnodes, int ngroups, const int *items)
{
	EsyncTx    *tx = palloc0(Max(ngroups, 1) * sizeof(EsyncTx));
	int			n = 0;

	for (int i = 0; i < b->n; i++)
		if (b->items[i].group >= 0)
			tx[b->items[i].group].n++;
	for (int i = 0; i < ngroups; i++)
	{
		tx[i].items = palloc(tx[i].n * sizeof(EsyncItem *));
		tx[i].n = 0;
	}
	for (int i = 0; i < b->n; i++)
	{
		EsyncItem  *item = &b->items[items[i]];

		if (item->group >= 0)
			tx[item->group].items[tx[item->group].n++] = item;
	}
	b->tx = palloc(Max(ngroups, 1) * sizeof(EsyncTx));
	for (int i = 0; i < nnodes; i++)
		if (order[i] < ngroups)
			b->tx[n++] = tx[order[i]];
	b->ntx = n;
}

/* Takes the nodes beyond the items out of an order. */
static int *
items_only(const int *order, int n, int nitems)
{
	int		   *items = palloc(Max(nitems, 1) * sizeof(int));
	int			k = 0;

	for (int i = 0; i < n; i++)
		if (order[i] < nitems)
			items[k++] = order[i];
	return items;
}

/* Puts the events of a batch into groups, and these into order. */
void
esync_order(EsyncBatch *b)
{
	Graph		items;
	Graph		groups;
	int			ngroups;
	int		   *order;

	place_items(b);
	graph_init(&items, b->n + list_length(b->targets));
	for (int i = 0; i < items.n; i++)
		items.rank[i] = i < b->n ? b->items[i].base_place : i - items.n;
	order_rows(b, &items);
	order_references(b, &items);
	order_deletes(b, &items);
	ngroups = number_groups(b);
	contract(b, &items, ngroups, &groups);
	order = items_only(sort_graph(&items, nodes_by_rank(&items)), items.n, b->n);
	fill_groups(b, sort_graph(&groups, nodes_by_rank(&groups)), groups.n, ngroups, order);
}
