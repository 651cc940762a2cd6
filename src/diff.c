/*
 * diff.c: what differs between two documents, as an RFC 6902 patch.
 *
 * Objects are walked side by side in their stored order of keys; arrays are
 * diff_array.c's.  Equal bytes settle most of it without a look inside.
 * Operations are collected as pointers into the two documents and written
 * once at the end.  Only add, remove and replace are made.  Every path is
 * good both in sequence and, as arrays are told from right to left, in the
 * indexes that the old document had.
 *
 * What is excluded is neither compared nor written: for every node there is
 * the set of the excluded pointers that match its path so far (EsyncMask);
 * where it is empty, nothing below is excluded.
 *
 * Memory: the current context.  Calls only PostgreSQL and json.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "diff.h"

#define MAX_EXCLUDES	64			/* bits of EsyncMask */
#define CELLS			(4 * 1000 * 1000)
#define SCAN			(64 * 1024 * 1024)

PG_FUNCTION_INFO_V1(esync_diff);

/* ------------------------------------------------------------------ paths */

/* Appends a node's JSON pointer. */
void
esync_path_append(StringInfo out, const EsyncPath *path)
{
	if (path == NULL)
		return;
	check_stack_depth();
	esync_path_append(out, path->up);
	appendStringInfoChar(out, '/');
	if (path->key == NULL)
	{
		char		digits[12];

		appendBinaryStringInfo(out, digits, pg_ltoa(path->index, digits));
		return;
	}
	for (int i = 0; i < path->keylen; i++)
	{
		if (path->key[i] == '~')
			appendBinaryStringInfo(out, "~0", 2);
		else if (path->key[i] == '/')
			appendBinaryStringInfo(out, "~1", 2);
		else
			appendStringInfoChar(out, path->key[i]);
	}
}

/* ------------------------------------------------------ excluded pointers */

static pg_noinline void
bad_exclude(const char *pointer, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid JSON pointer \"%s\" in exclude", pointer),
			 errhint("%s", hint)));
}

/* One token, unescaped in place; returns where the next begins, or NULL. */
static char *
parse_token(const char *whole, char *from, EsyncExcludeToken *token)
{
	char	   *to = from;

	token->name = from;
	token->any = from[0] == '*' && (from[1] == '/' || from[1] == '\0');
	while (*from != '\0' && *from != '/')
	{
		if (*from == '~')
		{
			from++;
			if (*from != '0' && *from != '1')
				bad_exclude(whole, "Write ~ as ~0 and / as ~1 inside of a name.");
			*to++ = *from == '0' ? '~' : '/';
			from++;
		}
		else
			*to++ = *from++;
	}
	token->len = to - token->name;
	return *from == '/' ? from + 1 : NULL;
}

static void
parse_exclude(const char *pointer, EsyncExclude *exclude)
{
	char	   *next = pstrdup(pointer);
	int			ntokens = 0;

	if (*next != '\0' && *next != '/')
		bad_exclude(pointer, "A pointer is empty or begins with a slash, as in /items/*/cache.");
	for (const char *p = next; *p; p++)
		ntokens += *p == '/';
	exclude->ntokens = ntokens;
	exclude->tokens = palloc(Max(ntokens, 1) * sizeof(EsyncExcludeToken));
	if (ntokens > 0)
		next++;
	for (int i = 0; i < ntokens; i++)
		next = parse_token(pointer, next, &exclude->tokens[i]);
}

/* The excluded pointers; returns the root's mask, and whether the root itself is excluded. */
static EsyncMask
parse_excludes(EsyncDiff *diff, ArrayType *array, bool *root)
{
	EsyncMask	mask = {0, 0};
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	*root = false;
	if (ARR_NDIM(array) == 0)
		return mask;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n > MAX_EXCLUDES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %d excluded pointers", MAX_EXCLUDES)));
	diff->excludes = palloc(n * sizeof(EsyncExclude));
	diff->nexcludes = n;
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("exclude must not contain nulls"),
					 errhint("Give a JSON pointer, as in /items/*/cache.")));
		parse_exclude(TextDatumGetCString(elements[i]), &diff->excludes[i]);
		if (diff->excludes[i].ntokens == 0)
			*root = true;
		mask.bits |= UINT64CONST(1) << i;
	}
	return mask;
}

/*
 * Goes down one token from a node with that mask.  False: the child is
 * excluded; else *inner is its mask.
 */
bool
esync_diff_step(const EsyncDiff *diff, EsyncMask mask, const char *key, int keylen,
				EsyncMask *inner)
{
	inner->bits = 0;
	inner->depth = mask.depth + 1;
	if (likely(mask.bits == 0))
		return true;
	for (int i = 0; i < diff->nexcludes; i++)
	{
		const EsyncExclude *exclude = &diff->excludes[i];
		const EsyncExcludeToken *token;

		if ((mask.bits & (UINT64CONST(1) << i)) == 0)
			continue;
		token = &exclude->tokens[mask.depth];
		if (!token->any &&
			(token->len != keylen || memcmp(token->name, key, keylen) != 0))
			continue;
		if (exclude->ntokens == inner->depth)
			return false;
		inner->bits |= UINT64CONST(1) << i;
	}
	return true;
}

/* The same for an array element. */
static bool
step_index(const EsyncDiff *diff, EsyncMask mask, int index, EsyncMask *inner)
{
	char		digits[12];
	int			len = mask.bits != 0 ? pg_ltoa(index, digits) : 0;

	return esync_diff_step(diff, mask, digits, len, inner);
}

/* The next member or element that is not excluded, and its mask. */
static bool
walk_next(const EsyncDiff *diff, EsyncWalk *walk, EsyncMask mask, EsyncMask *inner)
{
	while (esync_walk_next(walk))
	{
		if (walk->key != NULL ?
			esync_diff_step(diff, mask, walk->key, walk->keylen, inner) :
			step_index(diff, mask, walk->next - 1, inner))
			return true;
	}
	return false;
}

/*
 * Equality of two nodes apart from what is excluded below them.
 */
bool
esync_diff_same(const EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b, EsyncMask mask)
{
	EsyncWalk	x;
	EsyncWalk	y;
	EsyncMask	inner;
	EsyncMask	other;

	if (mask.bits == 0 || a->type != jbvBinary || b->type != jbvBinary)
		return esync_json_equal(a, b, diff->exact);
	check_stack_depth();
	if (JsonContainerIsObject(a->val.binary.data) != JsonContainerIsObject(b->val.binary.data))
		return false;
	esync_walk_init(&x, a->val.binary.data);
	esync_walk_init(&y, b->val.binary.data);
	for (;;)
	{
		bool		more = walk_next(diff, &x, mask, &inner);

		if (more != walk_next(diff, &y, mask, &other))
			return false;
		if (!more)
			return true;
		if (x.keylen != y.keylen || (x.keylen > 0 && memcmp(x.key, y.key, x.keylen) != 0))
			return false;
		if (!esync_diff_same(diff, &x.value, &y.value, inner))
			return false;
	}
}

/* ------------------------------------------------------------- operations */

/*
 * The characters of a number: sign, digits before the point by the weight and
 * the first digit of base 10000, and the scale.  (numeric.c keeps its macros
 * to itself; numeric_out would print it.)
 */
static int64
number_size(Numeric number)
{
	uint16		words[3] = {0};	/* header of one or two words, first digit */
	int			weight;
	int			scale;
	bool		is_short;
	int			first;
	bool		negative;

	memcpy(words, VARDATA(number), Min(sizeof(words), VARSIZE(number) - VARHDRSZ));
	is_short = (words[0] & 0xC000) == 0x8000;
	weight = is_short ? (words[0] & 0x3F) - (words[0] & 0x40) : (int16) words[1];
	scale = is_short ? (words[0] & 0x1F80) >> 7 : words[0] & 0x3FFF;
	negative = is_short ? (words[0] & 0x2000) != 0 : (words[0] & 0xC000) == 0x4000;
	first = words[is_short ? 1 : 2];
	return negative + (scale > 0 ? scale + 1 : 0) +
		(weight < 0 ? 1 : weight * 4 + (first > 999 ? 4 : first > 99 ? 3 : first > 9 ? 2 : 1));
}

/* The bytes of a value as text, without spaces; of control characters as if one. */
int64
esync_diff_size(EsyncDiff *diff, const JsonbValue *value)
{
	EsyncWalk	walk;
	int64		size = 2;

	switch (value->type)
	{
		case jbvString:
			size += value->val.string.len;
			for (int i = 0; i < value->val.string.len; i++)
				size += value->val.string.val[i] == '"' || value->val.string.val[i] == '\\';
			return size;
		case jbvNumeric:
			return number_size(value->val.numeric);
		case jbvBool:
			return value->val.boolean ? 4 : 5;
		case jbvBinary:
			break;
		default:
			return 4;
	}
	diff->scan -= value->val.binary.len;
	if (diff->scan <= 0)
		return value->val.binary.len;
	check_stack_depth();
	esync_walk_init(&walk, value->val.binary.data);
	while (esync_walk_next(&walk))
		size += esync_diff_size(diff, &walk.value) + 1 + (walk.key != NULL ? walk.keylen + 3 : 0);
	return size - (walk.count > 0);
}

/* Appends an operation; value is NULL for a remove. */
void
esync_diff_emit(EsyncDiff *diff, EsyncOpKind kind, const EsyncPath *path,
				const JsonbValue *value, EsyncMask mask)
{
	EsyncOp    *op;

	if (diff->nops == diff->maxops)
	{
		diff->maxops *= 2;
		diff->ops = repalloc_huge(diff->ops, (Size) diff->maxops * sizeof(EsyncOp));
	}
	op = &diff->ops[diff->nops++];
	op->kind = kind;
	op->path = diff->paths.len;
	esync_path_append(&diff->paths, path);
	op->pathlen = diff->paths.len - op->path;
	op->mask = mask;
	if (value != NULL)
		op->value = *value;
	if (diff->arrays > 0)
	{
		diff->bytes += op->pathlen;
		diff->bytes += kind == ESYNC_OP_REMOVE ? REMOVE_BYTES :
			kind == ESYNC_OP_ADD ? ADD_BYTES : REPLACE_BYTES;
		if (value != NULL)
			diff->bytes += esync_diff_size(diff, value);
	}
}

EsyncMark
esync_diff_mark(const EsyncDiff *diff)
{
	EsyncMark	mark = {diff->nops, diff->paths.len, diff->bytes};

	return mark;
}

/*
 * Where the operations since mark, which turn a node into b, are larger than
 * a replace by b, puts that in their place.  Not where something below is
 * excluded: the old document keeps that.
 */
void
esync_diff_shorten(EsyncDiff *diff, EsyncMark mark, const EsyncPath *path,
				   const JsonbValue *b, EsyncMask mask)
{
	int64		bytes = diff->bytes - mark.bytes;
	EsyncMark	end = esync_diff_mark(diff);
	EsyncOp		saved;

	/* a byte of text takes at most six in binary, so most need no look */
	if (mask.bits != 0 || diff->nops < mark.nops + 2 ||
		(b->type == jbvBinary && bytes < b->val.binary.len / 6))
		return;
	esync_diff_emit(diff, ESYNC_OP_REPLACE, path, b, mask);
	if (diff->bytes - end.bytes >= bytes)
	{
		diff->nops = end.nops;
		diff->paths.len = end.paths;
		diff->bytes = end.bytes;
		return;
	}
	saved = diff->ops[end.nops];
	memmove(diff->paths.data + mark.paths, diff->paths.data + saved.path, saved.pathlen);
	saved.path = mark.paths;
	diff->ops[mark.nops] = saved;
	diff->nops = mark.nops + 1;
	diff->paths.len = mark.paths + saved.pathlen;
	diff->bytes = mark.bytes + (diff->bytes - end.bytes);
}

/* ------------------------------------------------------------------- walk */

/* Begins a diff: no operation yet, nothing excluded. */
void
esync_diff_begin(EsyncDiff *diff)
{
	memset(diff, 0, sizeof(EsyncDiff));
	diff->cells = CELLS;
	diff->scan = SCAN;
	diff->maxops = 8;
	diff->ops = palloc(diff->maxops * sizeof(EsyncOp));
	initStringInfo(&diff->paths);
}

/* Members of both sides, merged by key. */
static void
diff_object(EsyncDiff *diff, const JsonbContainer *a, const JsonbContainer *b,
			const EsyncPath *up, EsyncMask mask)
{
	EsyncWalk	x;
	EsyncWalk	y;
	EsyncPath	path = {.up = up};
	EsyncMask	inner;
	bool		more_x;
	bool		more_y;

	esync_walk_init(&x, a);
	esync_walk_init(&y, b);
	more_x = esync_walk_next(&x);
	more_y = esync_walk_next(&y);
	while (more_x || more_y)
	{
		int			order = !more_x ? 1 : !more_y ? -1 :
			esync_key_cmp(x.key, x.keylen, y.key, y.keylen);

		if (order != 0 || !esync_diff_raw_same(&x.value, &y.value))
		{
			path.key = order <= 0 ? x.key : y.key;
			path.keylen = order <= 0 ? x.keylen : y.keylen;
			if (!esync_diff_step(diff, mask, path.key, path.keylen, &inner))
				 /* excluded */ ;
			else if (order < 0)
				esync_diff_emit(diff, ESYNC_OP_REMOVE, &path, NULL, inner);
			else if (order > 0)
				esync_diff_emit(diff, ESYNC_OP_ADD, &path, &y.value, inner);
			else
				esync_diff_value(diff, &x.value, &y.value, &path, inner);
		}
		if (order <= 0)
			more_x = esync_walk_next(&x);
		if (order >= 0)
			more_y = esync_walk_next(&y);
	}
}

/*
 * The heart: appends what turns node a into node b.  Neither is a container
 * around a bare scalar.
 */
void
esync_diff_value(EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b,
				 const EsyncPath *path, EsyncMask mask)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();

	if (esync_diff_raw_same(a, b))
		return;
	if (esync_diff_is_object(a) && esync_diff_is_object(b))
		diff_object(diff, a->val.binary.data, b->val.binary.data, path, mask);
	else if (esync_diff_is_array(a) && esync_diff_is_array(b) && !diff->whole_arrays)
		esync_diff_array(diff, a, b, path, mask);
	else if (!esync_diff_same(diff, a, b, mask))
		esync_diff_emit(diff, ESYNC_OP_REPLACE, path, b, mask);
}

/* ---------------------------------------------------------------- writing */

/* A value without what is excluded of it. */
static void
write_value(const EsyncDiff *diff, EsyncJson *json, const JsonbValue *value, EsyncMask mask)
{
	EsyncWalk	walk;
	EsyncMask	inner;
	int			count = 0;

	if (mask.bits == 0 || value->type != jbvBinary)
	{
		esync_json_value(json, value);
		return;
	}
	check_stack_depth();
	esync_walk_init(&walk, value->val.binary.data);
	while (walk_next(diff, &walk, mask, &inner))
		count++;
	if (JsonContainerIsObject(value->val.binary.data))
	{
		esync_json_open_object(json, count);
		esync_walk_init(&walk, value->val.binary.data);
		while (walk_next(diff, &walk, mask, &inner))
			esync_json_key(json, walk.key, walk.keylen);
	}
	else
		esync_json_open_array(json, count);
	esync_walk_init(&walk, value->val.binary.data);
	while (walk_next(diff, &walk, mask, &inner))
		write_value(diff, json, &walk.value, inner);
	esync_json_close(json);
}

/* One operation: its members in stored order are op, path and value. */
static void
write_op(const EsyncDiff *diff, EsyncJson *json, const EsyncOp *op)
{
	bool		has_value = op->kind != ESYNC_OP_REMOVE;

	esync_json_open_object(json, has_value ? 3 : 2);
	esync_json_key(json, "op", 2);
	esync_json_key(json, "path", 4);
	if (has_value)
		esync_json_key(json, "value", 5);
	if (op->kind == ESYNC_OP_ADD)
		esync_json_string(json, "add", 3);
	else if (op->kind == ESYNC_OP_REMOVE)
		esync_json_string(json, "remove", 6);
	else
		esync_json_string(json, "replace", 7);
	esync_json_string(json, diff->paths.data + op->path, op->pathlen);
	if (has_value)
		write_value(diff, json, &op->value, op->mask);
	esync_json_close(json);
}

/* The operations collected, as a patch. */
Jsonb *
esync_diff_patch(const EsyncDiff *diff)
{
	EsyncJson	json;

	esync_json_init(&json, 64 + (Size) diff->nops * 80 + diff->paths.len);
	esync_json_open_array(&json, diff->nops);
	for (int i = 0; i < diff->nops; i++)
		write_op(diff, &json, &diff->ops[i]);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------------ entry point */

/* 'minimal' or 'replace': is it the latter? */
static bool
parse_arrays(text *arrays)
{
	const char *name = VARDATA_ANY(arrays);
	int			len = VARSIZE_ANY_EXHDR(arrays);

	if (len == 7 && memcmp(name, "minimal", 7) == 0)
		return false;
	if (len == 7 && memcmp(name, "replace", 7) == 0)
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown way to compare arrays \"%s\"", text_to_cstring(arrays)),
			 errhint("It is \"minimal\" or \"replace\".")));
}

/* esync_diff(a, b, exclude text[], arrays text, exact boolean): the patch from a to b. */
Datum
esync_diff(PG_FUNCTION_ARGS)
{
	Jsonb	   *a = PG_GETARG_JSONB_P(0);
	Jsonb	   *b = PG_GETARG_JSONB_P(1);
	EsyncDiff	diff;
	EsyncMask	mask;
	JsonbValue	x;
	JsonbValue	y;
	bool		nothing;

	esync_diff_begin(&diff);
	mask = parse_excludes(&diff, PG_GETARG_ARRAYTYPE_P(2), &nothing);
	diff.whole_arrays = parse_arrays(PG_GETARG_TEXT_PP(3));
	diff.exact = PG_GETARG_BOOL(4);
	esync_json_root(a, &x);
	esync_json_root(b, &y);
	if (!nothing)
		esync_diff_value(&diff, &x, &y, NULL, mask);
	PG_RETURN_JSONB_P(esync_diff_patch(&diff));
}
