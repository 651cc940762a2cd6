/*
 * diff.h: what diff.c, diff_array.c, lcs.c, threeway.c and paths.c share and nobody else
 * needs.
 */
#ifndef ESYNC_DIFF_H
#define ESYNC_DIFF_H

#include "esync.h"

/* operations as text, without path and value */
#define ADD_BYTES		((int64) strlen("{\"op\":\"add\",\"path\":\"\",\"value\":},"))
#define REMOVE_BYTES	((int64) strlen("{\"op\":\"remove\",\"path\":\"\"},"))
#define REPLACE_BYTES	((int64) strlen("{\"op\":\"replace\",\"path\":\"\",\"value\":},"))

/* a node's place, innermost token first; NULL is the root */
typedef struct EsyncPath
{
	const struct EsyncPath *up;
	const char *key;			/* NULL: an array element */
	int			keylen;
	int			index;
} EsyncPath;

/* the excluded pointers that match the path so far, all with this many tokens */
typedef struct EsyncMask
{
	uint64		bits;			/* 0: nothing below is excluded */
	int			depth;
} EsyncMask;

typedef struct EsyncExcludeToken
{
	bool		any;			/* a lone * */
	char	   *name;			/* unescaped */
	int			len;
} EsyncExcludeToken;

typedef struct EsyncExclude
{
	int			ntokens;
	EsyncExcludeToken *tokens;
} EsyncExclude;

typedef enum EsyncOpKind
{
	ESYNC_OP_ADD,
	ESYNC_OP_REMOVE,
	ESYNC_OP_REPLACE
} EsyncOpKind;

typedef struct EsyncOp
{
	EsyncOpKind kind;
	int			path;			/* where in EsyncDiff.paths */
	int			pathlen;
	JsonbValue	value;			/* points into the new document */
	EsyncMask	mask;			/* what to leave out of it */
} EsyncOp;

/* a point to cut the operations back to */
typedef struct EsyncMark
{
	int			nops;
	int			paths;
	int64		bytes;
} EsyncMark;

typedef struct EsyncDiff
{
	bool		exact;			/* 1.0 is not 1.00 */
	bool		whole_arrays;	/* an array that differs is replaced */
	int			nexcludes;
	EsyncExclude *excludes;
	EsyncOp    *ops;
	int			nops;
	int			maxops;
	StringInfoData paths;		/* text of all paths */
	int			arrays;			/* arrays around the node at hand */
	int64		bytes;			/* text size of operations made inside of arrays */
	int64		cells;			/* what is left of the work for matching elements, */
	int64		scan;			/* and of the bytes to read for hashes and sizes */
} EsyncDiff;

/* ---- diff.c */
extern void esync_diff_begin(EsyncDiff *diff);
extern Jsonb *esync_diff_patch(const EsyncDiff *diff);
extern void esync_diff_value(EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b,
							 const EsyncPath *path, EsyncMask mask);
extern void esync_diff_emit(EsyncDiff *diff, EsyncOpKind kind, const EsyncPath *path,
							const JsonbValue *value, EsyncMask mask);
extern EsyncMark esync_diff_mark(const EsyncDiff *diff);
extern void esync_diff_shorten(EsyncDiff *diff, EsyncMark mark, const EsyncPath *path,
							   const JsonbValue *b, EsyncMask mask);
extern int64 esync_diff_size(EsyncDiff *diff, const JsonbValue *value);
extern bool esync_diff_step(const EsyncDiff *diff, EsyncMask mask, const char *key, int keylen,
							EsyncMask *inner);
extern bool esync_diff_same(const EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b,
							EsyncMask mask);
extern void esync_path_append(StringInfo out, const EsyncPath *path);

/* ---- diff_array.c */
extern void esync_diff_array(EsyncDiff *diff, const JsonbValue *a, const JsonbValue *b,
							 const EsyncPath *path, EsyncMask mask);
extern uint64 esync_diff_hash(const EsyncDiff *diff, const JsonbValue *value, EsyncMask mask);

/* ---- lcs.c */
extern void esync_lcs(const int *a, int n, const int *b, int m, const int *twin, int *to,
					  int64 *cells);

/*
 * Equal bytes, which means equal values; different bytes do not mean that they
 * differ.  Cheap where it fails.
 */
static inline bool
esync_diff_raw_same(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return VARSIZE(a->val.numeric) == VARSIZE(b->val.numeric) &&
				memcmp(a->val.numeric, b->val.numeric, VARSIZE(a->val.numeric)) == 0;
		case jbvBinary:
			return a->val.binary.len == b->val.binary.len &&
				memcmp(a->val.binary.data, b->val.binary.data, a->val.binary.len) == 0;
		default:
			return false;
	}
}

static inline bool
esync_diff_is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static inline bool
esync_diff_is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

#endif							/* ESYNC_DIFF_H */
