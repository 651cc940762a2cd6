/*
 * lcs.c: which numbers of two sequences to keep, so that few are left over.
 *
 * The linear-space algorithm of Myers (1986): from both corners of the edit
 * graph, furthest-reaching paths of ever more differences, until they meet;
 * there the problem falls into two.  As long as the sequences differ in at
 * most 2 * HALF_CAP numbers, the result is a longest common subsequence.
 *
 * Where they differ in more, numbers that each side has exactly once become
 * anchors: the longest run of them that ascends on both sides is kept
 * ("patience"), and what lies between goes on alone.  Where even that differs
 * in too much, the furthest path found so far is taken as good.  All work is
 * charged to the caller's budget; when it is spent, nothing more is matched.
 * So any input takes O((n + m) log n) plus the budget.
 *
 * Deterministic.  Memory: O(n + m), freed.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "diff.h"

#define HALF_CAP	256			/* differences from either corner */

typedef struct Lcs
{
	const int  *a;
	const int  *b;
	const int  *twin;			/* by number: where in b it is, if once on both sides; or -1 */
	int		   *to;				/* result: index in b for each index in a, or -1 */
	int		   *fd;				/* by diagonal x - y: furthest x from the start */
	int		   *bd;				/* and from the end */
	int64	   *cells;
} Lcs;

/* A rectangle of the edit graph: a[alo, ahi) against b[blo, bhi). */
typedef struct Range
{
	int			alo;
	int			ahi;
	int			blo;
	int			bhi;
} Range;

static void match_range(Lcs *lcs, Range r, bool anchored);

/* Matches what the range begins and ends with, and narrows it. */
static void
trim(Lcs *lcs, Range *r)
{
	while (r->alo < r->ahi && r->blo < r->bhi && lcs->a[r->alo] == lcs->b[r->blo])
		lcs->to[r->alo++] = r->blo++;
	while (r->alo < r->ahi && r->blo < r->bhi && lcs->a[r->ahi - 1] == lcs->b[r->bhi - 1])
		lcs->to[--r->ahi] = --r->bhi;
}

/* The diagonals that one sweep has reached. */
typedef struct Sweep
{
	int			min;
	int			max;
} Sweep;

/* One difference more from the start; true: met the other sweep, at *x, *y. */
static bool
sweep_forward(Lcs *lcs, const Range *r, Sweep *f, const Sweep *back, bool odd, int *x, int *y)
{
	int		   *fd = lcs->fd;

	if (f->min > r->alo - r->bhi)
		fd[--f->min - 1] = -1;
	else
		f->min++;
	if (f->max < r->ahi - r->blo)
		fd[++f->max + 1] = -1;
	else
		f->max--;
	for (int d = f->max; d >= f->min; d -= 2)
	{
		int			from = fd[d - 1] < fd[d + 1] ? fd[d + 1] : fd[d - 1] + 1;

		*x = from;
		*y = *x - d;
		while (*x < r->ahi && *y < r->bhi && lcs->a[*x] == lcs->b[*y])
		{
			(*x)++;
			(*y)++;
		}
		fd[d] = *x;
		*lcs->cells -= 1 + (*x - from);
		if (odd && back->min <= d && d <= back->max && lcs->bd[d] <= *x)
			return true;
	}
	return false;
}

/* The same from the end. */
static bool
sweep_backward(Lcs *lcs, const Range *r, Sweep *back, const Sweep *f, bool odd, int *x, int *y)
{
	int		   *bd = lcs->bd;

	if (back->min > r->alo - r->bhi)
		bd[--back->min - 1] = PG_INT32_MAX;
	else
		back->min++;
	if (back->max < r->ahi - r->blo)
		bd[++back->max + 1] = PG_INT32_MAX;
	else
		back->max--;
	for (int d = back->max; d >= back->min; d -= 2)
	{
		int			from = bd[d - 1] < bd[d + 1] ? bd[d - 1] : bd[d + 1] - 1;

		*x = from;
		*y = *x - d;
		while (r->alo < *x && r->blo < *y && lcs->a[*x - 1] == lcs->b[*y - 1])
		{
			(*x)--;
			(*y)--;
		}
		bd[d] = *x;
		*lcs->cells -= 1 + (from - *x);
		if (!odd && f->min <= d && d <= f->max && *x <= lcs->fd[d])
			return true;
	}
	return false;
}

/* Where the forward sweep has come furthest. */
static void
furthest(const Lcs *lcs, const Range *r, const Sweep *f, int *x, int *y)
{
	int			best = -1;

	for (int d = f->max; d >= f->min; d -= 2)
	{
		int			px = Min(lcs->fd[d], r->ahi);
		int			py = px - d;

		if (py > r->bhi)
		{
			px = r->bhi + d;
			py = r->bhi;
		}
		if (px + py > best)
		{
			best = px + py;
			*x = px;
			*y = py;
		}
	}
}

/*
 * A point that a shortest edit path goes through; the range must be trimmed
 * and have two sides.  False: it differs in too much, and the point is only
 * the furthest one that was reached.
 */
static bool
split(Lcs *lcs, const Range *r, int *x, int *y)
{
	Sweep		f = {r->alo - r->blo, r->alo - r->blo};
	Sweep		back = {r->ahi - r->bhi, r->ahi - r->bhi};
	bool		odd = (f.min - back.min) & 1;

	lcs->fd[f.min] = r->alo;
	lcs->bd[back.min] = r->ahi;
	for (int half = 1;; half++)
	{
		if (sweep_forward(lcs, r, &f, &back, odd, x, y) ||
			sweep_backward(lcs, r, &back, &f, odd, x, y))
			return true;
		if (half >= HALF_CAP || *lcs->cells <= 0)
		{
			furthest(lcs, r, &f, x, y);
			return false;
		}
	}
}

/*
 * Patience: of the numbers in the range that are there once on both sides, the
 * longest run that ascends on both; indexes into a, ascending, into run.
 */
static int
longest_run(const Lcs *lcs, const Range *r, int *run)
{
	int			n = r->ahi - r->alo;
	int		   *tail = palloc(n * sizeof(int));	/* by length: the least end of such a run */
	int		   *before = palloc(n * sizeof(int));
	int			len = 0;

	for (int i = r->alo; i < r->ahi; i++)
	{
		int			j = lcs->twin[lcs->a[i]];
		int			low = 0;
		int			high = len;

		if (j < r->blo || j >= r->bhi)
			continue;
		while (low < high)
		{
			int			middle = (low + high) / 2;

			if (lcs->twin[lcs->a[tail[middle]]] < j)
				low = middle + 1;
			else
				high = middle;
		}
		before[i - r->alo] = low > 0 ? tail[low - 1] : -1;
		tail[low] = i;
		len = Max(len, low + 1);
	}
	for (int k = len - 1, i = len > 0 ? tail[len - 1] : -1; k >= 0; k--)
	{
		run[k] = i;
		i = before[i - r->alo];
	}
	pfree(tail);
	pfree(before);
	return len;
}

/* Keeps the anchors and goes on with what lies between them. */
static void
match_anchors(Lcs *lcs, Range r)
{
	int		   *run = palloc((r.ahi - r.alo) * sizeof(int));
	int			len = longest_run(lcs, &r, run);
	Range		gap = r;

	for (int k = 0; k <= len; k++)
	{
		gap.ahi = k < len ? run[k] : r.ahi;
		gap.bhi = k < len ? lcs->twin[lcs->a[run[k]]] : r.bhi;
		match_range(lcs, gap, true);
		if (k < len)
			lcs->to[gap.ahi] = gap.bhi;
		gap.alo = gap.ahi + 1;
		gap.blo = gap.bhi + 1;
	}
	pfree(run);
}

/* Fills lcs->to of one range. */
static void
match_range(Lcs *lcs, Range r, bool anchored)
{
	for (;;)
	{
		Range		left;
		int			x = r.alo;
		int			y = r.blo;
		bool		exact;

		CHECK_FOR_INTERRUPTS();
		trim(lcs, &r);
		if (r.alo == r.ahi || r.blo == r.bhi || (anchored && *lcs->cells <= 0))
			return;
		exact = split(lcs, &r, &x, &y);
		if (!exact && !anchored)
		{
			match_anchors(lcs, r);
			return;
		}
		left = r;
		left.ahi = x;
		left.bhi = y;
		match_range(lcs, left, true);
		r.alo = x;
		r.blo = y;
		anchored = anchored || exact;
	}
}

/*
 * a and b are sequences of numbers.  to[i] becomes the index in b that a[i] is
 * kept as, ascending, or -1.  twin: for each number that is exactly once in a
 * and in b, where in b it is; else -1.  cells: the work that may be done,
 * lowered by what was.
 */
void
esync_lcs(const int *a, int n, const int *b, int m, const int *twin, int *to, int64 *cells)
{
	Lcs			lcs = {.a = a, .b = b, .twin = twin, .to = to, .cells = cells};
	Range		all = {0, n, 0, m};
	int		   *diagonals;

	for (int i = 0; i < n; i++)
		to[i] = -1;
	trim(&lcs, &all);
	if (all.alo == all.ahi || all.blo == all.bhi)
		return;
	diagonals = palloc(((Size) n + m + 3) * 2 * sizeof(int));
	lcs.fd = diagonals + m + 1;
	lcs.bd = lcs.fd + n + m + 3;
	match_range(&lcs, all, false);
	pfree(diagonals);
}
