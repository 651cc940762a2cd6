/*
 * diff_array.c: arrays, with few and small operations.
 *
 *   1 trim      what both begin and end with, by bytes
 *   2 match     equal elements: a hash of each becomes a number (equality is
 *               checked), lcs.c keeps as many as it can
 *   3 pair      what is left between two matches: elements that name the same
 *               identity, then by how much is saved, then in order; of small
 *               arrays everything by how much is saved, which is best
 *   4 tell      from right to left: removes, adds, and what differs inside of
 *               pairs, all in indexes of the old array
 *   5 shorten   a replace of the whole where that is smaller
 *
 * Work is bounded by the budgets of EsyncDiff: beyond them the result is
 * larger, never wrong.  Equal values with different bytes (1.0 and 1.00) hash
 * alike unless the caller wants them told apart.
 *
 * Memory: freed with each array, as arrays nest.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "diff.h"

#define PAIR_CELLS	1024		/* pairing by savings: old elements times new ones, in gaps */
#define SMALL_CELLS	256			/* and instead of matching */

/* the elements of one side that take part, and what they are matched by */
typedef struct Labels
{
	int			n;
	const JsonbValue *values;
	int		   *at;				/* index of the element; NULL: the same */
} Labels;

/* two arrays at hand; to, by index in a: the partner in b, or -1 */
typedef struct Arrays
{
	EsyncDiff  *diff;
	EsyncMask	mask;			/* of every element */
	int			pathlen;		/* of an element, about */
	JsonbValue *a;
	JsonbValue *b;
	int		   *to;
	bool	   *same;			/* and whether it is equal */
} Arrays;

/* elements [alo, ahi) of a against [blo, bhi) of b */
typedef struct Gap
{
	int			alo;
	int			ahi;
	int			blo;
	int			bhi;
} Gap;

/* ----------------------------------------------------------------- hashes */

/*
 * A hash of a value, apart from what is excluded; numbers that differ in scale
 * only hash alike.
 */
uint64
esync_diff_hash(const EsyncDiff *diff, const JsonbValue *value, EsyncMask mask)
{
	EsyncWalk	walk;
	EsyncMask	inner;
	uint64		hash = value->type;

	switch (value->type)
	{
		case jbvBool:
			return hash * 2 + value->val.boolean;
		case jbvString:
			return hash_bytes_extended((const unsigned char *) value->val.string.val,
									   value->val.string.len, hash);
		case jbvNumeric:
			return DatumGetUInt64(DirectFunctionCall2(hash_numeric_extended,
													  NumericGetDatum(value->val.numeric),
													  UInt64GetDatum(hash)));
		case jbvBinary:
			break;
		default:
			return hash;
	}
	check_stack_depth();
	hash = hash_combine64(hash, esync_diff_is_object(value));
	esync_walk_init(&walk, value->val.binary.data);
	while (esync_walk_next(&walk))
	{
		char		digits[12];
		int			len = 0;

		if (walk.key == NULL && mask.bits != 0)
			len = pg_ltoa(walk.next - 1, digits);
		if (!esync_diff_step(diff, mask, walk.key != NULL ? walk.key : digits,
							 walk.key != NULL ? walk.keylen : len, &inner))
			continue;
		if (walk.key != NULL)
			hash = hash_bytes_extended((const unsigned char *) walk.key, walk.keylen, hash);
		hash = hash_combine64(hash, esync_diff_hash(diff, &walk.value, inner));
	}
	return hash;
}

/* When the budget for reading is spent: by bytes, where 1.0 and 1.00 differ. */
static uint64
hash_label(EsyncDiff *diff, const JsonbValue *value, EsyncMask mask)
{
	if (value->type != jbvBinary)
		return esync_diff_hash(diff, value, mask);
	if (diff->scan <= 0 && mask.bits == 0)
		return hash_bytes_extended((const unsigned char *) value->val.binary.data,
								   value->val.binary.len, jbvBinary);
	return esync_diff_hash(diff, value, mask);
}

/* ------------------------------------------------------------------ match */

/* a value that stands at least once among the labels of a */
typedef struct Symbol
{
	uint64		hash;
	const JsonbValue *value;
	int			next;			/* in its bucket; -1: last */
	int			count_a;
	int			count_b;
} Symbol;

typedef struct Symbols
{
	int			n;
	Symbol	   *symbols;
	int		   *buckets;		/* first symbol; -1: none */
	uint32		modulo;			/* number of buckets - 1 */
} Symbols;

static void *
alloc(Size n, Size size)
{
	return palloc_extended(Max(n, 1) * size, MCXT_ALLOC_HUGE);
}

static void
symbols_init(Symbols *table, int n)
{
	uint32		buckets = 16;

	while (buckets < (uint32) n)
		buckets *= 2;
	table->n = 0;
	table->modulo = buckets - 1;
	table->symbols = alloc(n, sizeof(Symbol));
	table->buckets = alloc(buckets, sizeof(int));
	for (uint32 i = 0; i < buckets; i++)
		table->buckets[i] = -1;
}

/* The number of a value; -1 where it is new, and not to be added. */
static int
symbol_of(EsyncDiff *diff, Symbols *table, const JsonbValue *value, EsyncMask mask, bool add)
{
	uint64		hash = hash_label(diff, value, mask);
	int		   *bucket = &table->buckets[(hash ^ (hash >> 32)) & table->modulo];
	Symbol	   *symbol;

	for (int i = *bucket; i >= 0; i = table->symbols[i].next)
	{
		symbol = &table->symbols[i];
		if (symbol->hash == hash &&
			(esync_diff_raw_same(symbol->value, value) ||
			 esync_diff_same(diff, symbol->value, value, mask)))
			return i;
	}
	if (!add)
		return -1;
	symbol = &table->symbols[table->n];
	symbol->hash = hash;
	symbol->value = value;
	symbol->next = *bucket;
	symbol->count_a = 0;
	symbol->count_b = 0;
	*bucket = table->n;
	return table->n++;
}

/* a side as numbers, those only that the other side has too */
typedef struct Sequence
{
	int			n;
	int		   *number;
	int		   *at;				/* index among the labels */
} Sequence;

static void
sequence_init(Sequence *sequence, int n)
{
	sequence->n = 0;
	sequence->number = alloc(n, sizeof(int));
	sequence->at = alloc(n, sizeof(int));
}

/* Numbers for both sides; what is on one side only cannot match and stays out. */
static void
number_sides(EsyncDiff *diff, Symbols *table, const Labels *a, const Labels *b, EsyncMask mask,
			 Sequence *x, Sequence *y)
{
	int		   *numbers = alloc(a->n, sizeof(int));

	for (int i = 0; i < a->n; i++)
	{
		numbers[i] = symbol_of(diff, table, &a->values[i], mask, true);
		table->symbols[numbers[i]].count_a++;
		CHECK_FOR_INTERRUPTS();
	}
	for (int j = 0; j < b->n; j++)
	{
		int			number = symbol_of(diff, table, &b->values[j], mask, false);

		CHECK_FOR_INTERRUPTS();
		if (number < 0)
			continue;
		table->symbols[number].count_b++;
		y->number[y->n] = number;
		y->at[y->n++] = j;
	}
	for (int i = 0; i < a->n; i++)
	{
		if (table->symbols[numbers[i]].count_b == 0)
			continue;
		x->number[x->n] = numbers[i];
		x->at[x->n++] = i;
	}
	pfree(numbers);
}

/* Sets to[index in a] = index in b, ascending, for equal labels; says how many. */
static int
match_labels(EsyncDiff *diff, const Labels *a, const Labels *b, EsyncMask mask, int *to)
{
	Symbols		table;
	Sequence	x;
	Sequence	y;
	int		   *twin;
	int		   *kept;
	int			matches = 0;

	symbols_init(&table, a->n);
	sequence_init(&x, a->n);
	sequence_init(&y, b->n);
	number_sides(diff, &table, a, b, mask, &x, &y);

	twin = alloc(table.n, sizeof(int));
	kept = alloc(x.n, sizeof(int));
	for (int i = 0; i < table.n; i++)
		twin[i] = -1;
	for (int j = 0; j < y.n; j++)
	{
		Symbol	   *symbol = &table.symbols[y.number[j]];

		if (symbol->count_a == 1 && symbol->count_b == 1)
			twin[y.number[j]] = j;
	}
	esync_lcs(x.number, x.n, y.number, y.n, twin, kept, &diff->cells);
	for (int i = 0; i < x.n; i++)
	{
		int			from = x.at[i];

		if (kept[i] < 0)
			continue;
		to[a->at ? a->at[from] : from] = b->at ? b->at[y.at[kept[i]]] : y.at[kept[i]];
		matches++;
	}
	pfree(kept);
	pfree(twin);
	pfree(x.number);
	pfree(x.at);
	pfree(y.number);
	pfree(y.at);
	pfree(table.symbols);
	pfree(table.buckets);
	return matches;
}

/* ------------------------------------------------------------------- pair */

/* The member by which an object is usually known; scalars only. */
static bool
identity(const JsonbValue *element, JsonbValue *out)
{
	static const char *const names[] = {"id", "_id", "uuid", "key", "name"};

	if (!esync_diff_is_object(element))
		return false;
	for (int i = 0; i < lengthof(names); i++)
	{
		if (esync_json_member(element->val.binary.data, names[i], strlen(names[i]), out))
			return out->type == jbvString || out->type == jbvNumeric;
	}
	return false;
}

/* The elements lo..hi that have an identity, and that. */
static void
identities(const JsonbValue *elements, int lo, int hi, Labels *out)
{
	JsonbValue *values = alloc(hi - lo, sizeof(JsonbValue));

	out->at = alloc(hi - lo, sizeof(int));
	out->n = 0;
	for (int i = lo; i < hi; i++)
	{
		if (identity(&elements[i], &values[out->n]))
			out->at[out->n++] = i;
	}
	out->values = values;
}

/* Bytes of the operations that turn members of x into those of y, about. */
static int64
object_cost(const Arrays *arrays, const JsonbValue *x, const JsonbValue *y)
{
	EsyncWalk	p;
	EsyncWalk	q;
	bool		more_p;
	bool		more_q;
	int64		cost = 0;

	esync_walk_init(&p, x->val.binary.data);
	esync_walk_init(&q, y->val.binary.data);
	arrays->diff->cells -= p.count + q.count;
	more_p = esync_walk_next(&p);
	more_q = esync_walk_next(&q);
	while (more_p || more_q)
	{
		int			order = !more_p ? 1 : !more_q ? -1 :
			esync_key_cmp(p.key, p.keylen, q.key, q.keylen);

		if (order < 0)
			cost += REMOVE_BYTES + arrays->pathlen + p.keylen + 1;
		else if (order > 0 || !esync_diff_raw_same(&p.value, &q.value))
			cost += REPLACE_BYTES + arrays->pathlen + q.keylen + 1 +
				esync_diff_size(arrays->diff, &q.value);
		if (order <= 0)
			more_p = esync_walk_next(&p);
		if (order >= 0)
			more_q = esync_walk_next(&q);
	}
	return cost;
}

/*
 * Bytes saved by telling y, of that size, as a change of x instead of removing
 * x and adding y, about.
 */
static int64
savings(const Arrays *arrays, const JsonbValue *x, const JsonbValue *y, int64 size)
{
	int64		apart = REMOVE_BYTES + ADD_BYTES + 2 * arrays->pathlen + size;
	int64		cost = REPLACE_BYTES + arrays->pathlen + size;

	arrays->diff->cells -= 1;
	if (x->type != y->type)
		return apart - cost;
	if (x->type != jbvBinary || arrays->mask.bits != 0 ?
		esync_diff_same(arrays->diff, x, y, arrays->mask) : esync_diff_raw_same(x, y))
		return apart;
	if (esync_diff_is_object(x) && esync_diff_is_object(y))
		return apart - Min(cost, object_cost(arrays, x, y));
	/* two arrays often have something in common */
	return apart - cost + (esync_diff_is_array(x) && esync_diff_is_array(y));
}

/* Pairs by savings, equal ones among them: the best of all ascending pairings. */
static void
pair_best(Arrays *arrays, Gap gap)
{
	int			p = gap.ahi - gap.alo;
	int			q = gap.bhi - gap.blo;
	int64	   *own = alloc((Size) p * q, sizeof(int64));
	int64	   *best = alloc((Size) (p + 1) * (q + 1), sizeof(int64));	/* of the rest */
	int64	   *sizes = alloc(q, sizeof(int64));

	memset(best, 0, (Size) (p + 1) * (q + 1) * sizeof(int64));
	for (int j = 0; j < q; j++)
		sizes[j] = esync_diff_size(arrays->diff, &arrays->b[gap.blo + j]);
	for (int i = p - 1; i >= 0; i--)
	{
		for (int j = q - 1; j >= 0; j--)
		{
			int64		here = savings(arrays, &arrays->a[gap.alo + i],
									   &arrays->b[gap.blo + j], sizes[j]);

			own[i * q + j] = here;
			here += best[(i + 1) * (q + 1) + j + 1];
			here = Max(here, best[(i + 1) * (q + 1) + j]);
			best[i * (q + 1) + j] = Max(here, best[i * (q + 1) + j + 1]);
		}
	}
	for (int i = 0, j = 0; i < p && j < q;)
	{
		int64		here = best[i * (q + 1) + j];

		if (here == own[i * q + j] + best[(i + 1) * (q + 1) + j + 1])
			arrays->to[gap.alo + i++] = gap.blo + j++;
		else if (here == best[(i + 1) * (q + 1) + j])
			i++;
		else
			j++;
	}
	pfree(own);
	pfree(best);
	pfree(sizes);
}

/* Pairs what has no identity in common. */
static void
pair_rest(Arrays *arrays, Gap gap)
{
	int64		p = gap.ahi - gap.alo;
	int64		q = gap.bhi - gap.blo;

	if (p > 0 && q > 0 && p + q > 2 && p * q <= PAIR_CELLS && arrays->diff->cells > 0)
		pair_best(arrays, gap);
	else
	{
		for (int k = 0; k < Min(p, q); k++)
			arrays->to[gap.alo + k] = gap.blo + k;
	}
}

/* Calls back for each stretch of the gap that no partner was found in. */
static void
each_gap(Arrays *arrays, Gap gap, void (*callback) (Arrays *, Gap))
{
	Gap			part = gap;

	for (int i = gap.alo; i <= gap.ahi; i++)
	{
		if (i < gap.ahi && arrays->to[i] < 0)
			continue;
		part.ahi = i;
		part.bhi = i < gap.ahi ? arrays->to[i] : gap.bhi;
		/* callback fills to[] of this part only */
		callback(arrays, part);
		part.alo = i + 1;
		part.blo = part.bhi + 1;
	}
}

/* Pairs what is left between two matches. */
static void
pair_gap(Arrays *arrays, Gap gap)
{
	Labels		a;
	Labels		b;
	EsyncMask	none = {0, 0};
	int			matches = 0;

	if (gap.alo == gap.ahi || gap.blo == gap.bhi)
		return;
	if (gap.ahi - gap.alo == 1 && gap.bhi - gap.blo == 1)
	{
		arrays->to[gap.alo] = gap.blo;
		return;
	}
	identities(arrays->a, gap.alo, gap.ahi, &a);
	identities(arrays->b, gap.blo, gap.bhi, &b);
	if (a.n > 0 && b.n > 0)
		matches = match_labels(arrays->diff, &a, &b, none, arrays->to);
	pfree(a.at);
	pfree(b.at);
	pfree(unconstify(JsonbValue *, a.values));
	pfree(unconstify(JsonbValue *, b.values));
	if (matches > 0)
		each_gap(arrays, gap, pair_rest);
	else
		pair_rest(arrays, gap);
}

/* Finds a partner for as many elements of the gap as possible. */
static void
find_partners(Arrays *arrays, Gap gap)
{
	int			n = gap.ahi - gap.alo;
	int			m = gap.bhi - gap.blo;

	for (int i = gap.alo; i < gap.ahi; i++)
	{
		arrays->to[i] = -1;
		arrays->same[i] = false;
	}
	if (n > 0 && m > 0 && (int64) n * m > SMALL_CELLS)
	{
		Labels		a = {n, arrays->a + gap.alo, NULL};
		Labels		b = {m, arrays->b + gap.blo, NULL};

		match_labels(arrays->diff, &a, &b, arrays->mask, arrays->to + gap.alo);
		for (int i = gap.alo; i < gap.ahi; i++)
		{
			if (arrays->to[i] < 0)
				continue;
			arrays->to[i] += gap.blo;
			arrays->same[i] = true;
		}
	}
	if ((int64) n * m <= SMALL_CELLS)
		pair_rest(arrays, gap);
	else
		each_gap(arrays, gap, pair_gap);
}

/* ------------------------------------------------------------------- tell */

/* What a pair differs in; a replace of the element where that is smaller. */
static void
tell_pair(Arrays *arrays, int i, const EsyncPath *up)
{
	EsyncPath	path = {.up = up, .index = i};
	EsyncMark	mark = esync_diff_mark(arrays->diff);
	const JsonbValue *b = &arrays->b[arrays->to[i]];

	esync_diff_value(arrays->diff, &arrays->a[i], b, &path, arrays->mask);
	if (esync_diff_is_object(b))
		esync_diff_shorten(arrays->diff, mark, &path, b, arrays->mask);
}

/*
 * From right to left, so that no operation moves what a later one names: after
 * the rightmost partner, removes from high to low, adds in reverse at one
 * index; then that pair; and so on.
 */
static void
tell(Arrays *arrays, Gap gap, const EsyncPath *up)
{
	int			j = gap.bhi;
	EsyncPath	path = {.up = up};

	for (int i = gap.ahi - 1;; i--)
	{
		int			from;

		for (; i >= gap.alo && arrays->to[i] < 0; i--)
		{
			path.index = i;
			esync_diff_emit(arrays->diff, ESYNC_OP_REMOVE, &path, NULL, arrays->mask);
		}
		path.index = i + 1;
		from = i >= gap.alo ? arrays->to[i] + 1 : gap.blo;
		while (j > from)
			esync_diff_emit(arrays->diff, ESYNC_OP_ADD, &path, &arrays->b[--j], arrays->mask);
		if (i < gap.alo)
			return;
		if (!arrays->same[i])
			tell_pair(arrays, i, up);
		j = arrays->to[i];
	}
}

/* ------------------------------------------------------------ entry point */

static JsonbValue *
load(const JsonbContainer *array, int n)
{
	JsonbValue *values = alloc(n, sizeof(JsonbValue));
	EsyncWalk	walk;

	esync_walk_init(&walk, array);
	for (int i = 0; esync_walk_next(&walk); i++)
		values[i] = walk.value;
	return values;
}

/* Is one element of arrays with this mask excluded by its index, or something in it? */
static bool
names_index(const EsyncDiff *diff, EsyncMask mask)
{
	for (int i = 0; i < diff->nexcludes; i++)
	{
		const EsyncExcludeToken *token;

		if ((mask.bits & (UINT64CONST(1) << i)) == 0)
			continue;
		token = &diff->excludes[i].tokens[mask.depth];
		if (!token->any && token->len > 0 && strspn(token->name, "0123456789") >= token->len)
			return true;
	}
	return false;
}

/*
 * Where elements are excluded by index, an element is what stands at its
 * index: those on both sides are compared, the rest removed or added.
 */
static void
diff_by_index(EsyncDiff *diff, const Arrays *arrays, Gap gap, const EsyncPath *up, EsyncMask mask)
{
	int			common = Min(gap.ahi, gap.bhi);
	EsyncPath	path = {.up = up};
	EsyncMask	inner;
	char		digits[12];

	for (int i = Max(gap.ahi, gap.bhi) - 1; i >= 0; i--)
	{
		if (!esync_diff_step(diff, mask, digits, pg_ltoa(i, digits), &inner))
			continue;
		path.index = Min(i, gap.ahi);
		if (i < common)
			esync_diff_value(diff, &arrays->a[i], &arrays->b[i], &path, inner);
		else if (i < gap.ahi)
			esync_diff_emit(diff, ESYNC_OP_REMOVE, &path, NULL, inner);
		else
			esync_diff_emit(diff, ESYNC_OP_ADD, &path, &arrays->b[i], inner);
	}
}

/* Elements that are the same in both, at the start and at the end. */
static void
trim(const Arrays *arrays, Gap *gap)
{
	while (gap->alo < gap->ahi && gap->blo < gap->bhi &&
		   esync_diff_raw_same(&arrays->a[gap->alo], &arrays->b[gap->blo]))
	{
		gap->alo++;
		gap->blo++;
	}
	while (gap->alo < gap->ahi && gap->blo < gap->bhi &&
		   esync_diff_raw_same(&arrays->a[gap->ahi - 1], &arrays->b[gap->bhi - 1]))
	{
		gap->ahi--;
		gap->bhi--;
	}
}

/* The steps 1 to 5; whole is the new array. */
static void
diff_elements(Arrays *arrays, Gap gap, const JsonbValue *whole, const EsyncPath *path)
{
	EsyncMark	mark = esync_diff_mark(arrays->diff);

	trim(arrays, &gap);
	arrays->to = alloc(gap.ahi, sizeof(int));
	arrays->same = alloc(gap.ahi, sizeof(bool));
	for (int i = gap.alo; i < gap.ahi && arrays->mask.bits == 0; i++)
	{
		if (arrays->a[i].type == jbvBinary)
			arrays->diff->scan -= arrays->a[i].val.binary.len;
	}
	find_partners(arrays, gap);
	tell(arrays, gap, path);
	esync_diff_shorten(arrays->diff, mark, path, whole, arrays->mask);
	pfree(arrays->to);
	pfree(arrays->same);
}

/* About the bytes of a pointer. */
static int
pointer_length(const EsyncPath *path)
{
	int			len = 0;

	for (; path != NULL; path = path->up)
		len += 1 + (path->key != NULL ? path->keylen : 2);
	return len;
}

/* Appends what turns array a into array b. */
void
esync_diff_array(EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b,
				 const EsyncPath *path, EsyncMask mask)
{
	Gap			gap = {
		0, esync_json_count(a->val.binary.data),
		0, esync_json_count(b->val.binary.data)
	};
	Arrays		arrays = {.diff = diff};
	bool		by_index = names_index(diff, mask);

	/* a token without a name is matched by * alone */
	if (!by_index && !esync_diff_step(diff, mask, NULL, -1, &arrays.mask))
		return;
	arrays.a = load(a->val.binary.data, gap.ahi);
	arrays.b = load(b->val.binary.data, gap.bhi);
	arrays.pathlen = pointer_length(path) + 3;
	diff->arrays++;
	if (by_index)
		diff_by_index(diff, &arrays, gap, path, mask);
	else
		diff_elements(&arrays, gap, b, path);
	diff->arrays--;
	pfree(arrays.a);
	pfree(arrays.b);
}
