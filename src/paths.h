/*
 * paths.h: edits of single places inside of a column (option json_merge), for
 * those who fold them: fold.c, history.c, and who merges.
 */
#ifndef ESYNC_PATHS_H
#define ESYNC_PATHS_H

#include "esync.h"

/*
 * One operation of an event's patch that sets something.  The first columnlen
 * bytes of the path name the column, escaped, slash included; the rest is the
 * place inside of it, nothing where the column is set as a whole.
 */
typedef struct EsyncPathOp
{
	const char *path;
	int			len;
	int			columnlen;
	bool		remove;
	JsonbValue	value;			/* null where removed */
} EsyncPathOp;

typedef struct EsyncPathEdit
{
	EsyncStamp	stamp;
	int			turn;			/* the how-manieth that was added */
	EsyncPathOp op;
} EsyncPathEdit;

/* edits of one column, in any order, and what they make of it; see esync_paths_make */
typedef struct EsyncPaths
{
	MemoryContext cxt;			/* of the list and the document */
	int			n;
	int			size;
	EsyncPathEdit *edits;
	bool		sorted;
	int			turns;
	int			applied;		/* so many of the edits are in */
	Jsonb	   *document;
} EsyncPaths;

/* Does an operation of that name set something, and does it so by removing? */
static inline bool
esync_paths_is_edit(const JsonbValue *name, bool *remove)
{
	const char *s = name->val.string.val;

	*remove = false;
	switch (name->val.string.len)
	{
		case 7:
			return memcmp(s, "replace", 7) == 0;
		case 3:
			return memcmp(s, "add", 3) == 0;
		case 6:
			return *remove = memcmp(s, "remove", 6) == 0;
	}
	return false;
}

/*
 * One operation of an event's patch; false where it sets nothing.  A removed
 * column is one that is null.
 */
static inline bool
esync_paths_read(const JsonbValue *op, EsyncPathOp *out)
{
	bool		sets = false;
	EsyncWalk	walk;
	const char *slash;

	if (op->type != jbvBinary)
		return false;
	out->len = 0;
	out->value.type = jbvNull;
	esync_walk_init(&walk, op->val.binary.data);
	while (esync_walk_next(&walk))
	{
		if (walk.keylen == 2 && walk.value.type == jbvString)
			sets = esync_paths_is_edit(&walk.value, &out->remove);
		else if (walk.keylen == 4 && walk.value.type == jbvString &&
				 memcmp(walk.key, "path", 4) == 0)
		{
			out->path = walk.value.val.string.val;
			out->len = walk.value.val.string.len;
		}
		else if (walk.keylen == 5 && memcmp(walk.key, "value", 5) == 0)
			out->value = walk.value;
	}
	if (!sets || out->len < 1 || out->path[0] != '/')
		return false;
	slash = memchr(out->path + 1, '/', out->len - 1);
	out->columnlen = slash ? slash - out->path : out->len;
	return true;
}

/* ---- paths.c: results in the current memory context */
/* is one pointer equal to the other, or the way to it */
extern bool esync_paths_overlap(const char *a, int alen, const char *b, int blen);
/* the RFC 6902 patch ("/column/...") that makes one value of the column of another */
extern Jsonb *esync_paths_diff(const JsonbValue *from, const JsonbValue *to, const char *column);
/* the column's value after one operation, which is the later edit, so it always shows */
extern Jsonb *esync_paths_apply(const JsonbValue *document, const EsyncPathOp *op);
/* the same of many: add them in any order, whole sets too; see paths.c */
extern EsyncPaths *esync_paths_make(void);
extern void esync_paths_reset(EsyncPaths *paths);
extern void esync_paths_add(EsyncPaths *paths, const EsyncStamp *stamp, const EsyncPathOp *op);
extern void esync_paths_cover(EsyncPaths *paths, const EsyncStamp *stamp);
extern void esync_paths_value(EsyncPaths *paths, const JsonbValue *before, JsonbValue *value);

#endif							/* ESYNC_PATHS_H */
