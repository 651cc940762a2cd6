/*
 * patch.c: JSON pointers (RFC 6901) and patches (RFC 6902), applied and
 * inverted.
 *
 * A patch is applied to a tree (tree.c) operation by operation.  Nothing of
 * it is seen before the tree is written, so a patch that fails has done
 * nothing.  Whatever the operations do wrong is kept as a value (Failure);
 * only patchfn.c, which SQL calls, makes an error of it, so that
 * esync_try_patch needs no subtransaction.  Thrown from within are a cancel,
 * lack of memory, and a test of values nested too deeply for the stack.
 *
 * Documents and patches must outlive the tree, which points into them.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "patch.h"

/* what the copies of one patch, or the old values in one inverse, may add */
#define COPY_LIMIT		((Size) 64 * 1024 * 1024)

/* how much of a text of the user's own stands in a message, in bytes */
#define SHOWN_TOKEN		64
#define SHOWN_VALUE		100

static const char *const op_names[] = {"add", "remove", "replace", "move", "copy", "test"};

const char *
esync_patch_op_name(OpKind kind)
{
	return op_names[kind];
}

/* --------------------------------------------------------------- failures */

/* Notes why the operation cannot be done.  Always false. */
static bool pg_attribute_printf(3, 4)
fail(Patcher *p, int sqlstate, const char *format,...)
{
	char		message[512];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	p->failure.sqlstate = sqlstate;
	p->failure.message = pstrdup(message);
	p->failure.found = NULL;
	return false;
}

/* The beginning of a text, with "..." where that is not all. */
char *
esync_patch_shorten(const char *string, int len, int max)
{
	if (len <= max)
		return pnstrdup(string, len);
	return psprintf("%.*s...", pg_mbcliplen(string, len, max), string);
}

/* A value for people: short ones as JSON, others by what they are. */
static char *
describe_value(const EsyncNode *node)
{
	EsyncBranch *branch;
	EsyncNode	copy = *node;
	EsyncTree	tree;
	Jsonb	   *json;

	copy.keylen = 0;
	if (node->kind == NODE_STRING && node->len > SHOWN_VALUE)
		return psprintf("\"%s\"", esync_patch_shorten(node->at, node->len, SHOWN_VALUE));
	if (node->kind == NODE_NUMBER || esync_node_size(&copy) <= SHOWN_VALUE * 2)
	{
		char	   *text;

		tree.root = copy;
		tree.bound = SHOWN_VALUE;
		json = esync_tree_write(&tree);
		text = JsonbToCString(NULL, &json->root, VARSIZE(json));
		return esync_patch_shorten(text, strlen(text), SHOWN_VALUE);
	}
	branch = esync_node_expand(&copy);
	return psprintf(branch->object ? "an object of %u members" : "an array of %u elements",
					branch->count);
}

/* --------------------------------------------------------------- pointers */

/* The next place for a token. */
static Token *
add_token(JsonPointer *pointer)
{
	if (pointer->count == pointer->cap)
	{
		Token	   *more = palloc(pointer->cap * 2 * sizeof(Token));

		memcpy(more, pointer->tokens, pointer->cap * sizeof(Token));
		pointer->tokens = more;
		pointer->cap *= 2;
	}
	return &pointer->tokens[pointer->count++];
}

/* Replaces ~1 and ~0 in one pass from the left; false for any other ~. */
static bool
unescape(Token *token)
{
	char	   *string = palloc(token->len);
	int			len = 0;

	for (int i = 0; i < token->len; i++)
	{
		char		c = token->string[i];

		if (c == '~')
		{
			if (++i == token->len || (token->string[i] != '0' && token->string[i] != '1'))
				return false;
			c = token->string[i] == '0' ? '~' : '/';
		}
		string[len++] = c;
	}
	token->string = string;
	token->len = len;
	return true;
}

/* Splits pointer->text into tokens; they point into it, or are palloc'd. */
static bool
parse_pointer(Patcher *p, JsonPointer *pointer)
{
	const char *at = pointer->text;
	const char *end = at + pointer->textlen;

	pointer->count = 0;
	if (at < end && *at != '/')
		return fail(p, ERRCODE_INVALID_TEXT_REPRESENTATION,
					"a JSON pointer must be empty or begin with \"/\"");
	while (at < end)
	{
		Token	   *token = add_token(pointer);
		bool		escaped = false;

		token->string = ++at;
		while (at < end && *at != '/')
			escaped |= *at++ == '~';
		token->len = at - token->string;
		if (escaped && !unescape(token))
			return fail(p, ERRCODE_INVALID_TEXT_REPRESENTATION,
						"\"~\" in a JSON pointer must be followed by 0 or 1");
	}
	return true;
}

/*
 * The index that a token means in an array of count elements: below count,
 * or, where one is to be added, count itself, also named "-".
 */
static bool
parse_index(Patcher *p, const Token *token, uint32 count, bool adding, uint32 *index)
{
	const char *digits = token->string;
	int64		value = 0;

	if (token->len == 1 && digits[0] == '-')
	{
		*index = count;
		return adding || fail(p, ERRCODE_INVALID_SQL_JSON_SUBSCRIPT,
							  "\"-\" names no element of an array");
	}
	for (int i = 0; i < token->len; i++)
	{
		if (digits[i] < '0' || digits[i] > '9')
			value = -1;
		if (value < 0)
			break;
		value = Min(value * 10 + digits[i] - '0', (int64) PG_INT32_MAX + 1);
	}
	if (token->len == 0 || value < 0 || (token->len > 1 && digits[0] == '0'))
		return fail(p, ERRCODE_INVALID_SQL_JSON_SUBSCRIPT, "\"%s\" is not an array index",
					esync_patch_shorten(token->string, token->len, SHOWN_TOKEN));
	*index = (uint32) value;
	if (value < count || (adding && value == count))
		return true;
	return fail(p, ERRCODE_INVALID_SQL_JSON_SUBSCRIPT,
				"array index %s is out of range, the array has %u elements",
				esync_patch_shorten(token->string, token->len, SHOWN_TOKEN), count);
}

static bool
fail_member(Patcher *p, const Token *token)
{
	return fail(p, ERRCODE_SQL_JSON_MEMBER_NOT_FOUND, "there is no object member \"%s\"",
				esync_patch_shorten(token->string, token->len, SHOWN_TOKEN));
}

/* A token that looks into a scalar: for an array's index, or for a member? */
static bool
fail_scalar(Patcher *p, const Token *token)
{
	bool		index = token->len > 0;

	for (int i = 0; i < token->len; i++)
		index &= token->string[i] >= '0' && token->string[i] <= '9';
	index |= token->len == 1 && token->string[0] == '-';
	return fail(p, index ? ERRCODE_SQL_JSON_ARRAY_NOT_FOUND : ERRCODE_SQL_JSON_OBJECT_NOT_FOUND,
				"\"%s\" looks into a scalar",
				esync_patch_shorten(token->string, token->len, SHOWN_TOKEN));
}

/* Where the child is that a token names; it must exist. */
static bool
find_child(Patcher *p, const EsyncBranch *branch, const Token *token, uint32 *at)
{
	if (!branch->object)
		return parse_index(p, token, branch->count, false, at);
	return esync_branch_find(branch, token->string, token->len, at) || fail_member(p, token);
}

/* The container in which a pointer's last token is looked up, taken apart; or NULL. */
static EsyncBranch *
find_parent(Patcher *p, const JsonPointer *pointer)
{
	EsyncNode  *node = &p->tree.root;

	for (int i = 0;; i++)
	{
		EsyncBranch *branch = esync_node_expand(node);
		uint32		at;

		if (branch == NULL)
		{
			fail_scalar(p, &pointer->tokens[i]);
			return NULL;
		}
		if (i == pointer->count - 1)
			return branch;
		if (!find_child(p, branch, &pointer->tokens[i], &at))
			return NULL;
		node = esync_branch_kid(branch, at);
	}
}

/* One step down in a container that is left as it is. */
static bool
look_raw(Patcher *p, EsyncNode *node, const Token *token)
{
	const JsonbContainer *container = node->at;
	JsonbValue	value;
	uint32		at;

	if (JsonContainerIsObject(container))
	{
		if (!esync_json_member(container, token->string, token->len, &value))
			return fail_member(p, token);
	}
	else
	{
		if (!parse_index(p, token, JsonContainerSize(container), false, &at))
			return false;
		esync_json_element(container, at, &value);
	}
	esync_node_set(node, &value);
	return true;
}

/* What a pointer names, without taking anything apart. */
static bool
look(Patcher *p, const JsonPointer *pointer, EsyncNode *out)
{
	*out = p->tree.root;
	for (int i = 0; i < pointer->count; i++)
	{
		const Token *token = &pointer->tokens[i];
		uint32		at;

		if (out->kind == NODE_BRANCH)
		{
			const EsyncBranch *branch = out->at;

			if (!find_child(p, branch, token, &at))
				return false;
			*out = *esync_branch_kid(branch, at);
		}
		else if (out->kind != NODE_RAW)
			return fail_scalar(p, token);
		else if (!look_raw(p, out, token))
			return false;
	}
	return true;
}

/* Does a begin with all tokens of b, and maybe more? */
static bool
is_within(const JsonPointer *a, const JsonPointer *b)
{
	if (a->count < b->count)
		return false;
	for (int i = 0; i < b->count; i++)
	{
		if (a->tokens[i].len != b->tokens[i].len ||
			memcmp(a->tokens[i].string, b->tokens[i].string, a->tokens[i].len) != 0)
			return false;
	}
	return true;
}

/* --------------------------------------------------------------- inverses */

/* Notes an operation of the inverse; value is what it needs, or NULL. */
static Undo *
add_undo(Patcher *p, OpKind kind, const JsonPointer *path, const EsyncNode *value)
{
	Undo	   *undo;

	if (p->nundo == p->maxundo)
	{
		p->maxundo = Max(p->maxundo * 2, 16);
		p->undo = p->undo == NULL ? palloc(p->maxundo * sizeof(Undo)) :
			repalloc_huge(p->undo, p->maxundo * sizeof(Undo));
	}
	undo = &p->undo[p->nundo++];
	undo->kind = kind;
	undo->path = path->text;
	undo->pathlen = path->textlen;
	undo->from = NULL;
	undo->fromlen = 0;
	if (value)
		undo->value = *value;
	undo->value.key = NULL;
	undo->value.keylen = 0;
	return undo;
}

/* Gives "-", where an element was added, the index that it got. */
static void
resolve_end(JsonPointer *path, uint32 at)
{
	Token	   *last = &path->tokens[path->count - 1];

	if (last->len == 1 && last->string[0] == '-')
	{
		path->text = psprintf("%.*s%u", path->textlen - 1, path->text, at);
		path->textlen = strlen(path->text);
		last->string = strrchr(path->text, '/') + 1;
		last->len = strlen(last->string);
	}
}

/*
 * Notes the inverse of a move.  Moving back does it where nothing was
 * replaced and the place to go back to lies outside of what moves.  Else the
 * place is restored, and the value, as it was when it moved, added again.
 */
static bool
undo_move(Patcher *p, const JsonPointer *from, const JsonPointer *path,
		  const EsyncNode *moved, bool replaced, const EsyncNode *old)
{
	EsyncNode	copy;
	Undo	   *undo;

	if (!replaced && !is_within(from, path))
	{
		undo = add_undo(p, OP_MOVE, from, NULL);
		undo->from = path->text;
		undo->fromlen = path->textlen;
		return true;
	}
	if (!esync_node_clone(moved, &copy, &p->copied, COPY_LIMIT))
		return fail(p, p->copied > COPY_LIMIT ? ERRCODE_PROGRAM_LIMIT_EXCEEDED :
					ERRCODE_STATEMENT_TOO_COMPLEX, "the inverse of the patch is too large");
	add_undo(p, OP_ADD, from, &copy);
	add_undo(p, replaced ? OP_REPLACE : OP_REMOVE, path, old);
	return true;
}

/* Writes one operation of the inverse. */
static bool
write_undo(EsyncJson *json, const Undo *undo)
{
	const char *name = op_names[undo->kind];
	bool		has_value = undo->kind == OP_ADD || undo->kind == OP_REPLACE;

	esync_json_open_object(json, undo->kind == OP_REMOVE ? 2 : 3);
	esync_json_key(json, "op", 2);
	if (undo->from)
		esync_json_key(json, "from", 4);
	esync_json_key(json, "path", 4);
	if (has_value)
		esync_json_key(json, "value", 5);
	esync_json_string(json, name, strlen(name));
	if (undo->from)
		esync_json_string(json, undo->from, undo->fromlen);
	esync_json_string(json, undo->path, undo->pathlen);
	if (has_value && !esync_node_write(json, &undo->value))
		return false;
	esync_json_close(json);
	return true;
}

/*
 * The inverse of what was applied, as a patch; NULL, with failure set, where a
 * value is nested too deeply for the stack.
 */
Jsonb *
esync_patch_inverse(Patcher *p)
{
	EsyncJson	json;

	esync_json_init(&json, 64 + (Size) p->nundo * 80);
	esync_json_open_array(&json, p->nundo);
	for (int i = p->nundo - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		if (!write_undo(&json, &p->undo[i]))
		{
			p->number = -1;
			fail(p, ERRCODE_STATEMENT_TOO_COMPLEX, "the inverse is nested too deeply");
			return NULL;
		}
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ------------------------------------------------------------- operations */

/*
 * Puts a value where the pointer says.  What an object's member, or the
 * root, held before is *old, and *replaced set.
 */
static bool
put(Patcher *p, JsonPointer *path, const EsyncNode *value, bool *replaced, EsyncNode *old)
{
	EsyncNode  *place = &p->tree.root;
	uint32		at;

	*replaced = true;
	if (path->count > 0)
	{
		const Token *last = &path->tokens[path->count - 1];
		EsyncBranch *branch = find_parent(p, path);

		if (branch == NULL)
			return false;
		if (!branch->object)
		{
			if (!parse_index(p, last, branch->count, true, &at))
				return false;
			if (p->inverting)
				resolve_end(path, at);
			*replaced = false;
			place = esync_branch_insert(branch, at, NULL, 0);
		}
		else if (esync_branch_find(branch, last->string, last->len, &at))
			place = esync_branch_kid(branch, at);
		else
		{
			*replaced = false;
			place = esync_branch_insert(branch, at, last->string, last->len);
		}
	}
	if (*replaced)
	{
		*old = *place;
		esync_tree_shrink(&p->tree, old);
	}
	esync_node_put(place, value);
	esync_tree_grow(&p->tree, place);
	return true;
}

/* Takes out what the pointer names. */
static bool
take(Patcher *p, const JsonPointer *path, EsyncNode *old)
{
	EsyncBranch *branch;
	uint32		at;

	if (path->count == 0)
		return fail(p, ERRCODE_INVALID_PARAMETER_VALUE, "the whole document cannot be removed");
	branch = find_parent(p, path);
	if (branch == NULL || !find_child(p, branch, &path->tokens[path->count - 1], &at))
		return false;
	esync_branch_remove(branch, at, old);
	esync_tree_shrink(&p->tree, old);
	return true;
}

/* add, and the second half of copy */
static bool
do_add(Patcher *p, const EsyncNode *value)
{
	EsyncNode	old;
	bool		replaced;

	if (!put(p, &p->path, value, &replaced, &old))
		return false;
	if (p->inverting)
		add_undo(p, replaced ? OP_REPLACE : OP_REMOVE, &p->path, replaced ? &old : NULL);
	return true;
}

static bool
do_remove(Patcher *p)
{
	EsyncNode	old;

	if (!take(p, &p->path, &old))
		return false;
	if (p->inverting)
		add_undo(p, OP_ADD, &p->path, &old);
	return true;
}

static bool
do_replace(Patcher *p, const EsyncNode *value)
{
	EsyncNode  *place = &p->tree.root;
	EsyncNode	old;
	uint32		at;

	if (p->path.count > 0)
	{
		EsyncBranch *branch = find_parent(p, &p->path);

		if (branch == NULL || !find_child(p, branch, &p->path.tokens[p->path.count - 1], &at))
			return false;
		place = esync_branch_kid(branch, at);
	}
	old = *place;
	esync_tree_shrink(&p->tree, &old);
	esync_node_put(place, value);
	esync_tree_grow(&p->tree, place);
	if (p->inverting)
		add_undo(p, OP_REPLACE, &p->path, &old);
	return true;
}

/* The source must exist, also when it is where it goes to. */
static bool
do_move(Patcher *p)
{
	EsyncNode	moved;
	EsyncNode	old;
	bool		replaced;

	if (is_within(&p->path, &p->from))
	{
		if (p->path.count > p->from.count)
			return fail(p, ERRCODE_INVALID_PARAMETER_VALUE,
						"a value cannot be moved into itself");
		return look(p, &p->from, &moved);
	}
	if (!take(p, &p->from, &moved) || !put(p, &p->path, &moved, &replaced, &old))
		return false;
	return !p->inverting || undo_move(p, &p->from, &p->path, &moved, replaced, &old);
}

/* Copies share bytes, but no branch, with what they were made of. */
static bool
do_copy(Patcher *p)
{
	Size		before = p->copied;
	EsyncNode	source;
	EsyncNode	copy;

	if (!look(p, &p->from, &source))
		return false;
	if (!esync_node_clone(&source, &copy, &p->copied, COPY_LIMIT))
	{
		if (p->copied <= COPY_LIMIT)
			return fail(p, ERRCODE_STATEMENT_TOO_COMPLEX, "the document is nested too deeply");
		return fail(p, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					"the copies made by the patch exceed %zu bytes", COPY_LIMIT);
	}
	if (copy.kind == NODE_BRANCH)
		p->tree.bound += p->copied - before;
	return do_add(p, &copy);
}

static bool
do_test(Patcher *p)
{
	EsyncNode	found;

	if (!look(p, &p->path, &found))
	{
		p->failure.sqlstate = ERRCODE_ESYNC_TEST_FAILED;
		p->failure.message = psprintf("test failed: %s", p->failure.message);
		return false;
	}
	if (esync_node_equal(&found, &p->value))
		return true;
	fail(p, ERRCODE_ESYNC_TEST_FAILED, "test failed: the value is another");
	p->failure.found = describe_value(&found);
	return false;
}

/* ---------------------------------------------------------------- patches */

static OpKind
op_kind(const JsonbValue *name)
{
	for (int i = 0; i < OP_UNKNOWN; i++)
	{
		if (strlen(op_names[i]) == name->val.string.len &&
			memcmp(op_names[i], name->val.string.val, name->val.string.len) == 0)
			return (OpKind) i;
	}
	return OP_UNKNOWN;
}

static bool
read_op(Patcher *p, const JsonbValue *value)
{
	if (value->type != jbvString)
		return fail(p, ERRCODE_INVALID_PARAMETER_VALUE,
					"member \"op\" of an operation is not a string");
	p->kind = op_kind(value);
	return p->kind != OP_UNKNOWN ||
		fail(p, ERRCODE_INVALID_PARAMETER_VALUE, "unknown operation \"%s\"",
			 esync_patch_shorten(value->val.string.val, value->val.string.len, SHOWN_TOKEN));
}

/* The text of a pointer; it is parsed when it is known to be needed. */
static bool
read_pointer(Patcher *p, const JsonbValue *value, const char *name, JsonPointer *pointer)
{
	if (value->type != jbvString)
		return fail(p, ERRCODE_INVALID_PARAMETER_VALUE,
					"member \"%s\" of an operation is not a string", name);
	pointer->text = value->val.string.val;
	pointer->textlen = value->val.string.len;
	return true;
}

/*
 * Takes the members of an operation; others than these are ignored.  "op"
 * comes first, as stored, so that "from" is looked at only where it counts.
 */
static bool
read_members(Patcher *p, const JsonbContainer *object)
{
	EsyncWalk	walk;

	esync_walk_init(&walk, object);
	while (esync_walk_next(&walk))
	{
		if (walk.keylen == 2 && memcmp(walk.key, "op", 2) == 0)
		{
			if (!read_op(p, &walk.value))
				return false;
		}
		else if (walk.keylen == 4 && memcmp(walk.key, "path", 4) == 0)
		{
			if (!read_pointer(p, &walk.value, "path", &p->path))
				return false;
		}
		else if (walk.keylen == 4 && memcmp(walk.key, "from", 4) == 0)
		{
			if ((p->kind == OP_MOVE || p->kind == OP_COPY) &&
				!read_pointer(p, &walk.value, "from", &p->from))
				return false;
		}
		else if (walk.keylen == 5 && memcmp(walk.key, "value", 5) == 0)
		{
			p->value = walk.value;
			p->has_value = true;
		}
	}
	return true;
}

static bool
fail_missing(Patcher *p, const char *name)
{
	return fail(p, ERRCODE_INVALID_PARAMETER_VALUE, "an operation lacks member \"%s\"", name);
}

/* Reads an operation, and checks all of it that does not need the document. */
static bool
read_operation(Patcher *p, const JsonbValue *operation)
{
	p->kind = OP_UNKNOWN;
	p->path.text = p->from.text = NULL;
	p->has_value = false;
	if (operation->type != jbvBinary || !JsonContainerIsObject(operation->val.binary.data))
		return fail(p, ERRCODE_INVALID_PARAMETER_VALUE, "an operation is not an object");
	if (!read_members(p, operation->val.binary.data))
		return false;
	if (p->kind == OP_UNKNOWN)
		return fail_missing(p, "op");
	if (p->path.text == NULL)
		return fail_missing(p, "path");
	if ((p->kind == OP_MOVE || p->kind == OP_COPY) && p->from.text == NULL)
		return fail_missing(p, "from");
	if ((p->kind == OP_ADD || p->kind == OP_REPLACE || p->kind == OP_TEST) && !p->has_value)
		return fail_missing(p, "value");
	return parse_pointer(p, &p->path) &&
		(p->from.text == NULL || parse_pointer(p, &p->from));
}

static bool
do_operation(Patcher *p)
{
	EsyncNode	value;

	switch (p->kind)
	{
		case OP_ADD:
			esync_node_set(&value, &p->value);
			return do_add(p, &value);
		case OP_REMOVE:
			return do_remove(p);
		case OP_REPLACE:
			esync_node_set(&value, &p->value);
			return do_replace(p, &value);
		case OP_MOVE:
			return do_move(p);
		case OP_COPY:
			return do_copy(p);
		case OP_TEST:
			return do_test(p);
		case OP_UNKNOWN:
			break;
	}
	elog(ERROR, "unexpected operation kind %d", (int) p->kind);
	return false;
}

/* Opens a document for patches. */
void
esync_patch_begin(Patcher *p, const Jsonb *doc, bool inverting)
{
	esync_tree_init(&p->tree, doc);
	p->path.tokens = p->path.few;
	p->from.tokens = p->from.few;
	p->path.cap = p->from.cap = lengthof(p->path.few);
	p->inverting = inverting;
	p->undo = NULL;
	p->nundo = p->maxundo = 0;
}

/* Applies a patch to the tree; false, with failure set, where it cannot. */
bool
esync_patch_apply(Patcher *p, const Jsonb *patch)
{
	EsyncWalk	walk;

	p->number = -1;
	p->kind = OP_UNKNOWN;
	p->path.text = p->from.text = NULL;
	p->copied = 0;
	if (!JB_ROOT_IS_ARRAY(patch) || JB_ROOT_IS_SCALAR(patch))
		return fail(p, ERRCODE_INVALID_PARAMETER_VALUE, "a JSON patch must be an array");
	esync_walk_init(&walk, &patch->root);
	while (esync_walk_next(&walk))
	{
		CHECK_FOR_INTERRUPTS();
		p->number++;
		if (!read_operation(p, &walk.value) || !do_operation(p))
			return false;
		if (!esync_tree_fits(&p->tree))
			return fail(p, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						"the patched document exceeds %u bytes", JENTRY_OFFLENMASK);
	}
	return true;
}

/* The patched document; NULL, with failure set, where there is none. */
Jsonb *
esync_patch_finish(Patcher *p)
{
	Jsonb	   *result = esync_tree_write(&p->tree);

	p->number = result ? p->number : -1;
	if (result == NULL)
		fail(p, ERRCODE_STATEMENT_TOO_COMPLEX, "the patched document is nested too deeply");
	return result;
}
