/*
 * tree.c: a jsonb document opened for many changes and written once.
 *
 * A document begins as one untouched container.  A container is taken apart,
 * one level of it, when something in it is to be changed; all else stays as
 * the bytes it is, and is copied as such when the tree is written.  So the
 * work depends on the width of the containers on the way to what changes, not
 * on the size of the document.
 *
 * A branch belongs to one place of one tree; bytes may be shared by many,
 * since nothing ever writes to them.
 *
 * Memory: the context current at each call; nothing is freed singly.  Calls
 * only PostgreSQL and json.c.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "tree.h"

/* what a child costs besides its bytes: two JEntrys, and the padding before it */
#define CHILD_OVERHEAD	(2 * sizeof(JEntry) + sizeof(int32) - 1)

/* free places in a branch that is made to be changed */
#define FREE_PLACES		4

static bool write_branch(EsyncJson *json, const EsyncBranch *branch);
static bool clone_branch(const EsyncBranch *branch, EsyncNode *copy, Size *bytes, Size limit);
static bool branch_equal(const EsyncBranch *branch, const JsonbContainer *container);

/* ----------------------------------------------------------------- values */

/* Makes a node of a value, which may be a bare scalar in its array; the key stays. */
void
esync_node_set(EsyncNode *node, const JsonbValue *value)
{
	JsonbValue	scalar;

	node->at = NULL;
	node->len = 0;
	switch (value->type)
	{
		case jbvNull:
			node->kind = NODE_NULL;
			break;
		case jbvBool:
			node->kind = value->val.boolean ? NODE_TRUE : NODE_FALSE;
			break;
		case jbvString:
			node->kind = NODE_STRING;
			node->at = value->val.string.val;
			node->len = value->val.string.len;
			break;
		case jbvNumeric:
			node->kind = NODE_NUMBER;
			node->at = value->val.numeric;
			node->len = VARSIZE(value->val.numeric);
			break;
		case jbvBinary:
			if (JsonContainerIsScalar(value->val.binary.data))
			{
				esync_json_element(value->val.binary.data, 0, &scalar);
				esync_node_set(node, &scalar);
				break;
			}
			node->kind = NODE_RAW;
			node->at = value->val.binary.data;
			node->len = value->val.binary.len;
			break;
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) value->type);
	}
}

/* The value of a node; false for a branch, which has no bytes. */
bool
esync_node_get(const EsyncNode *node, JsonbValue *value)
{
	switch ((EsyncNodeKind) node->kind)
	{
		case NODE_NULL:
			value->type = jbvNull;
			return true;
		case NODE_FALSE:
		case NODE_TRUE:
			value->type = jbvBool;
			value->val.boolean = node->kind == NODE_TRUE;
			return true;
		case NODE_STRING:
			value->type = jbvString;
			value->val.string.val = unconstify(char *, (const char *) node->at);
			value->val.string.len = node->len;
			return true;
		case NODE_NUMBER:
			value->type = jbvNumeric;
			value->val.numeric = (Numeric) unconstify(void *, node->at);
			return true;
		case NODE_RAW:
			value->type = jbvBinary;
			value->val.binary.data = (JsonbContainer *) unconstify(void *, node->at);
			value->val.binary.len = node->len;
			return true;
		case NODE_BRANCH:
			break;
	}
	return false;
}

/* Puts a value into a place, which keeps its key.  A branch must not stay elsewhere. */
void
esync_node_put(EsyncNode *place, const EsyncNode *value)
{
	place->at = value->at;
	place->len = value->len;
	place->kind = value->kind;
}

/* Takes a container apart, unless it is already; NULL for a scalar. */
EsyncBranch *
esync_node_expand(EsyncNode *node)
{
	const JsonbContainer *container = node->at;
	EsyncBranch *branch;
	EsyncWalk	walk;
	EsyncNode  *kid;

	if (node->kind == NODE_BRANCH)
		return (EsyncBranch *) unconstify(void *, node->at);
	if (node->kind != NODE_RAW)
		return NULL;
	branch = esync_branch_make(JsonContainerIsObject(container),
							   JsonContainerSize(container) + FREE_PLACES);
	kid = branch->kids;
	esync_walk_init(&walk, container);
	while (esync_walk_next(&walk))
	{
		kid->key = walk.key;
		kid->keylen = walk.keylen;
		esync_node_set(kid, &walk.value);
		kid++;
	}
	branch->count = branch->gap = walk.count;
	node->kind = NODE_BRANCH;
	node->at = branch;
	return branch;
}

/*
 * A copy that shares no branch with the original.  Adds its size to *bytes,
 * and gives up (false) when that comes to be over the limit, or else when the
 * stack does not suffice.
 */
bool
esync_node_clone(const EsyncNode *node, EsyncNode *copy, Size *bytes, Size limit)
{
	if (node->kind == NODE_BRANCH)
		return clone_branch(node->at, copy, bytes, limit);
	esync_node_put(copy, node);
	*bytes += node->len + CHILD_OVERHEAD;
	return *bytes <= limit;
}

static bool
clone_branch(const EsyncBranch *branch, EsyncNode *copy, Size *bytes, Size limit)
{
	EsyncBranch *twin;

	CHECK_FOR_INTERRUPTS();
	if (stack_is_too_deep())
		return false;
	*bytes += sizeof(uint32) + CHILD_OVERHEAD;
	twin = esync_branch_make(branch->object, branch->count + FREE_PLACES);
	for (uint32 i = 0; i < branch->count; i++)
	{
		const EsyncNode *kid = esync_branch_kid(branch, i);

		twin->kids[i].key = kid->key;
		twin->kids[i].keylen = kid->keylen;
		*bytes += kid->keylen;
		if (!esync_node_clone(kid, &twin->kids[i], bytes, limit))
			return false;
	}
	twin->count = twin->gap = branch->count;
	copy->kind = NODE_BRANCH;
	copy->at = twin;
	copy->len = 0;
	return true;
}

/* Deep equality; numbers by value, 1.0 is 1. */
bool
esync_node_equal(const EsyncNode *node, const JsonbValue *value)
{
	JsonbValue	own;

	if (esync_node_get(node, &own))
		return esync_json_equal(&own, value, false);
	return value->type == jbvBinary && branch_equal(node->at, value->val.binary.data);
}

static bool
branch_equal(const EsyncBranch *branch, const JsonbContainer *container)
{
	EsyncWalk	walk;

	CHECK_FOR_INTERRUPTS();
	check_stack_depth();
	if (JsonContainerIsScalar(container) ||
		branch->object != JsonContainerIsObject(container) ||
		branch->count != JsonContainerSize(container))
		return false;
	esync_walk_init(&walk, container);
	for (uint32 i = 0; esync_walk_next(&walk); i++)
	{
		const EsyncNode *kid = esync_branch_kid(branch, i);

		if (branch->object &&
			esync_key_cmp(kid->key, kid->keylen, walk.key, walk.keylen) != 0)
			return false;
		if (!esync_node_equal(kid, &walk.value))
			return false;
	}
	return true;
}

/* What a value takes when written, with all the padding that may be needed. */
Size
esync_node_size(const EsyncNode *node)
{
	const EsyncBranch *branch = node->at;
	Size		size = node->len;

	if (node->kind == NODE_BRANCH)
	{
		CHECK_FOR_INTERRUPTS();
		check_stack_depth();
		size = sizeof(uint32);
		for (uint32 i = 0; i < branch->count; i++)
			size += esync_node_size(esync_branch_kid(branch, i));
	}
	return size + node->keylen + CHILD_OVERHEAD;
}

/* ---------------------------------------------------------------- writing */

/* Appends a value; false, with json left unusable, where the stack does not suffice. */
bool
esync_node_write(EsyncJson *json, const EsyncNode *node)
{
	switch ((EsyncNodeKind) node->kind)
	{
		case NODE_NULL:
			esync_json_null(json);
			return true;
		case NODE_FALSE:
		case NODE_TRUE:
			esync_json_bool(json, node->kind == NODE_TRUE);
			return true;
		case NODE_STRING:
			esync_json_string(json, node->at, node->len);
			return true;
		case NODE_NUMBER:
			esync_json_numeric(json, node->at);
			return true;
		case NODE_RAW:
			esync_json_container(json, node->at, node->len);
			return true;
		case NODE_BRANCH:
			break;
	}
	return write_branch(json, node->at);
}

static bool
write_branch(EsyncJson *json, const EsyncBranch *branch)
{
	CHECK_FOR_INTERRUPTS();
	if (stack_is_too_deep())
		return false;
	if (branch->object)
	{
		esync_json_open_object(json, branch->count);
		for (uint32 i = 0; i < branch->count; i++)
		{
			const EsyncNode *kid = esync_branch_kid(branch, i);

			esync_json_key(json, kid->key, kid->keylen);
		}
	}
	else
		esync_json_open_array(json, branch->count);
	for (uint32 i = 0; i < branch->count; i++)
	{
		if (!esync_node_write(json, esync_branch_kid(branch, i)))
			return false;
	}
	esync_json_close(json);
	return true;
}

/* --------------------------------------------------------------- branches */

/* An empty container with room for cap children. */
EsyncBranch *
esync_branch_make(bool object, uint32 cap)
{
	EsyncBranch *branch = palloc(sizeof(EsyncBranch));

	branch->kids = MemoryContextAllocHuge(CurrentMemoryContext, cap * sizeof(EsyncNode));
	branch->count = branch->gap = 0;
	branch->cap = cap;
	branch->object = object;
	return branch;
}

/* Where the key is, or, if it returns false, would be. */
bool
esync_branch_find(const EsyncBranch *branch, const char *key, uint32 keylen, uint32 *at)
{
	uint32		low = 0;
	uint32		high = branch->count;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		const EsyncNode *kid = esync_branch_kid(branch, middle);
		int			difference = esync_key_cmp(kid->key, kid->keylen, key, keylen);

		if (difference == 0)
		{
			*at = middle;
			return true;
		}
		if (difference < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*at = low;
	return false;
}

static void
move_gap(EsyncBranch *branch, uint32 to)
{
	uint32		room = branch->cap - branch->count;

	if (to < branch->gap)
		memmove(&branch->kids[to + room], &branch->kids[to],
				(branch->gap - to) * sizeof(EsyncNode));
	else if (to > branch->gap)
		memmove(&branch->kids[branch->gap], &branch->kids[branch->gap + room],
				(to - branch->gap) * sizeof(EsyncNode));
	branch->gap = to;
}

/* Doubles the places; the gap is then at the end. */
static void
grow_branch(EsyncBranch *branch)
{
	move_gap(branch, branch->count);
	branch->cap = branch->cap * 2 + FREE_PLACES;
	branch->kids = repalloc_huge(branch->kids, branch->cap * sizeof(EsyncNode));
}

/* A new place before the at-th; its value is the caller's to put. */
EsyncNode *
esync_branch_insert(EsyncBranch *branch, uint32 at, const char *key, uint32 keylen)
{
	EsyncNode  *place;

	if (branch->count == branch->cap)
		grow_branch(branch);
	move_gap(branch, at);
	place = &branch->kids[branch->gap++];
	branch->count++;
	place->key = key;
	place->keylen = keylen;
	place->kind = NODE_NULL;
	return place;
}

/* Takes out the at-th child. */
void
esync_branch_remove(EsyncBranch *branch, uint32 at, EsyncNode *removed)
{
	move_gap(branch, at);
	*removed = branch->kids[at + branch->cap - branch->count];
	branch->count--;
}

/* ------------------------------------------------------------------ trees */

/* Opens a document, which must be flat and stay where it is. */
void
esync_tree_init(EsyncTree *tree, const Jsonb *document)
{
	JsonbValue	root;

	esync_json_root(document, &root);
	tree->root.key = NULL;
	tree->root.keylen = 0;
	esync_node_set(&tree->root, &root);
	tree->bound = VARSIZE(document);
}

/* Notes that a value was added; a branch counts when it is measured. */
void
esync_tree_grow(EsyncTree *tree, const EsyncNode *added)
{
	tree->bound += added->len + added->keylen + CHILD_OVERHEAD;
}

/* Notes that a value was removed. */
void
esync_tree_shrink(EsyncTree *tree, const EsyncNode *removed)
{
	if (removed->kind != NODE_BRANCH)
		tree->bound -= Min(tree->bound, removed->len + removed->keylen + sizeof(JEntry));
}

/* Does it still fit a jsonb?  Measures only when what was noted says no. */
bool
esync_tree_fits(EsyncTree *tree)
{
	if (likely(tree->bound <= JENTRY_OFFLENMASK))
		return true;
	tree->bound = esync_node_size(&tree->root);
	return tree->bound <= JENTRY_OFFLENMASK;
}

Jsonb *
esync_tree_write(const EsyncTree *tree)
{
	EsyncJson	json;

	esync_json_init(&json, Min(tree->bound, JENTRY_OFFLENMASK) + 256);
	return esync_node_write(&json, &tree->root) ? esync_json_finish(&json) : NULL;
}
