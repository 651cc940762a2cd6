/*
 * paths.c: edits of single places inside of a json_merge column.
 *
 * An event's patch names a column ("/spec") or, where edits of a column are
 * merged path by path, a place inside of it ("/spec/dim/length").  The fold of
 * such edits is lenient, so that any set of them has a value and the later
 * edit always shows: what lies on the way and is no object becomes one, and a
 * removed member need not be there.  Arrays are values like scalars: a path
 * that leads into one makes an object of it.
 *
 * Memory: lists of edits in the context current when they were made; what
 * edits point to is the caller's.  Calls only PostgreSQL, json, tree and diff.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "diff.h"
#include "paths.h"
#include "tree.h"

/* ---------------------------------------------------------------- pointers */

/* Is one pointer the other, or the way to it? */
bool
esync_paths_overlap(const char *a, int alen, const char *b, int blen)
{
	int			len = Min(alen, blen);

	return memcmp(a, b, len) == 0 &&
		(alen == blen || (alen > blen ? a : b)[len] == '/');
}

/* Are all tildes of a path escapes? */
static bool
is_pointer(const char *path, int len)
{
	const char *end = path + len;

	while ((path = memchr(path, '~', end - path)) != NULL)
	{
		if (++path == end || (*path != '0' && *path != '1'))
			return false;
	}
	return true;
}

/* Takes the first token off a path, unescaped; a copy only where it must be. */
static const char *
take_token(const char **path, int *len, int *tokenlen)
{
	const char *token = *path + 1;
	const char *slash = memchr(token, '/', *len - 1);
	int			raw = slash ? slash - token : *len - 1;
	char	   *copy;

	*path += raw + 1;
	*len -= raw + 1;
	*tokenlen = raw;
	if (memchr(token, '~', raw) == NULL)
		return token;
	copy = palloc(raw + 1);
	*tokenlen = esync_pointer_token(token - 1, raw + 1, copy);
	return copy;
}

/* --------------------------------------------------------------- documents */

/* Puts an empty object in place of whatever is there. */
static EsyncBranch *
make_object(EsyncNode *node)
{
	EsyncBranch *branch = esync_branch_make(true, 2);

	node->kind = NODE_BRANCH;
	node->at = branch;
	node->len = 0;
	return branch;
}

/* Does one edit of a document.  The value's bytes are shared with it from now on. */
static void
apply_op(EsyncNode *root, const EsyncPathOp *op)
{
	const char *path = op->path + op->columnlen;
	int			len = op->len - op->columnlen;
	EsyncNode  *node = root;
	JsonbValue	null = {.type = jbvNull};

	while (len > 0)
	{
		int			keylen;
		const char *key = take_token(&path, &len, &keylen);
		EsyncBranch *branch = esync_node_expand(node);
		EsyncNode	removed;
		uint32		at;

		if (branch == NULL || !branch->object)
		{
			if (op->remove)
				return;
			branch = make_object(node);
		}
		if (!esync_branch_find(branch, key, keylen, &at))
		{
			if (op->remove)
				return;
			node = esync_branch_insert(branch, at, key, keylen);
		}
		else if (op->remove && len == 0)
		{
			esync_branch_remove(branch, at, &removed);
			return;
		}
		else
			node = esync_branch_kid(branch, at);
	}
	esync_node_set(node, op->remove ? &null : &op->value);
}

/* Writes a document in the current memory context. */
static Jsonb *
write_document(const EsyncNode *root, Size guess)
{
	EsyncJson	json;

	esync_json_init(&json, guess);
	if (!esync_node_write(&json, root))
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("jsonb document is nested too deeply"),
				 errhint("Increase the configuration parameter \"max_stack_depth\".")));
	return esync_json_finish(&json);
}

/* About how many bytes a value takes. */
static Size
value_size(const JsonbValue *value)
{
	return value->type == jbvBinary ? value->val.binary.len :
		value->type == jbvString ? value->val.string.len : 16;
}

/* A column's document after one edit, in the current memory context; see above. */
Jsonb *
esync_paths_apply(const JsonbValue *document, const EsyncPathOp *op)
{
	EsyncNode	root = {0};

	esync_node_set(&root, document);
	if (is_pointer(op->path, op->len))
		apply_op(&root, op);
	return write_document(&root, value_size(document) + value_size(&op->value) + op->len + 64);
}

/* -------------------------------------------------------------------- diff */

/*
 * What leads from one value of a column to another, as an RFC 6902 patch of
 * the row: objects member by member, everything else as a whole.  Equal is
 * what jsonb's = says.
 */
Jsonb *
esync_paths_diff(const JsonbValue *from, const JsonbValue *to, const char *column)
{
	EsyncPath	path = {.key = column, .keylen = strlen(column)};
	EsyncMask	mask = {0, 0};
	EsyncDiff	diff;
	EsyncNode	node = {0};
	JsonbValue	a;
	JsonbValue	b;

	esync_node_set(&node, from);	/* takes scalars out of their arrays */
	esync_node_get(&node, &a);
	esync_node_set(&node, to);
	esync_node_get(&node, &b);
	esync_diff_begin(&diff);
	diff.whole_arrays = true;
	esync_diff_value(&diff, &a, &b, &path, mask);
	return esync_diff_patch(&diff);
}

/* ---------------------------------------------------------- a list of edits */

/* An empty list, in the current memory context. */
EsyncPaths *
esync_paths_make(void)
{
	EsyncPaths *paths = palloc0(sizeof(EsyncPaths));

	paths->cxt = CurrentMemoryContext;
	paths->sorted = true;
	return paths;
}

/* The document made of the edits so far is of no use any more. */
static void
drop_document(EsyncPaths *paths)
{
	if (paths->document != NULL)
		pfree(paths->document);
	paths->document = NULL;
	paths->applied = 0;
}

/* Empties a list; its room stays. */
void
esync_paths_reset(EsyncPaths *paths)
{
	drop_document(paths);
	paths->n = 0;
	paths->turns = 0;
	paths->sorted = true;
}

/* The order of edits: by stamp, those of one event as its patch has them. */
static int
edit_cmp(const void *a, const void *b)
{
	const EsyncPathEdit *x = a;
	const EsyncPathEdit *y = b;
	int			c = esync_stamp_cmp(&x->stamp, &y->stamp);

	return c != 0 ? c : x->turn - y->turn;
}

/*
 * Adds an edit; what it points to must stay.  Any order of adding gives the
 * same value, but edits of one stamp come as their event has them.  One whose
 * path is malformed is none.
 */
void
esync_paths_add(EsyncPaths *paths, const EsyncStamp *stamp, const EsyncPathOp *op)
{
	EsyncPathEdit *edit;

	if (!is_pointer(op->path, op->len))
		return;
	if (paths->n == paths->size)
	{
		paths->size = paths->size ? paths->size * 2 : 8;
		paths->edits = paths->edits == NULL ?
			MemoryContextAlloc(paths->cxt, paths->size * sizeof(EsyncPathEdit)) :
			repalloc_huge(paths->edits, (Size) paths->size * sizeof(EsyncPathEdit));
	}
	edit = &paths->edits[paths->n++];
	edit->stamp = *stamp;
	edit->turn = paths->turns++;
	edit->op = *op;
	if (paths->n > 1 && edit_cmp(edit - 1, edit) > 0)
	{
		paths->sorted = false;
		drop_document(paths);
	}
}

/* The whole column was set: what was added before, up to that stamp, shows no more. */
void
esync_paths_cover(EsyncPaths *paths, const EsyncStamp *stamp)
{
	int			n = 0;

	drop_document(paths);
	for (int i = 0; i < paths->n; i++)
	{
		if (esync_stamp_cmp(&paths->edits[i].stamp, stamp) > 0)
			paths->edits[n++] = paths->edits[i];
	}
	paths->n = n;
}

/* Brings the document up to date with the edits, which are sorted. */
static void
make_document(EsyncPaths *paths, const JsonbValue *before)
{
	Jsonb	   *former = paths->document;
	EsyncNode	root = {0};
	Size		guess = value_size(before) + 64;
	MemoryContext old;
	JsonbValue	value = *before;

	if (former != NULL)
		esync_json_root(former, &value);
	esync_node_set(&root, &value);
	for (int i = paths->applied; i < paths->n; i++)
	{
		const EsyncPathOp *op = &paths->edits[i].op;

		CHECK_FOR_INTERRUPTS();
		apply_op(&root, op);
		guess = Min(guess + op->len + value_size(&op->value), 65536);
	}
	old = MemoryContextSwitchTo(paths->cxt);
	paths->document = write_document(&root, Max(guess, value_size(&value)));
	MemoryContextSwitchTo(old);
	paths->applied = paths->n;
	if (former != NULL)
		pfree(former);
}

/*
 * The column's value: the edits in their order over what it was before all of
 * them, which is the same at each call unless the column was covered between.
 * Good until the next edit is added; leaves garbage in the current context.
 */
void
esync_paths_value(EsyncPaths *paths, const JsonbValue *before, JsonbValue *value)
{
	*value = *before;
	if (paths->n == 0)
		return;
	if (!paths->sorted)
		qsort(paths->edits, paths->n, sizeof(EsyncPathEdit), edit_cmp);
	paths->sorted = true;
	if (paths->applied < paths->n)
		make_document(paths, before);
	esync_json_root(paths->document, value);
}
