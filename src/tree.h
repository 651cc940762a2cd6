/*
 * tree.h: a jsonb document opened for many changes; shared by tree.c,
 * patch.c and paths.c alone.
 */
#ifndef ESYNC_TREE_H
#define ESYNC_TREE_H

#include "esync.h"

typedef enum EsyncNodeKind
{
	NODE_NULL,
	NODE_FALSE,
	NODE_TRUE,
	NODE_STRING,				/* at: its bytes */
	NODE_NUMBER,				/* at: an aligned numeric with a full header */
	NODE_RAW,					/* at: a container of which nothing was changed */
	NODE_BRANCH,				/* at: an EsyncBranch, a container taken apart */
} EsyncNodeKind;

/*
 * A value and, where it is a member of an object, its key.  Both point into
 * documents, which must outlive the tree; only branches are its own.
 */
typedef struct EsyncNode
{
	const char *key;
	const void *at;
	uint32		len;			/* bytes; without meaning for a branch */
	uint32		keylen:28;
	uint32		kind:4;
} EsyncNode;

/*
 * The members (in stored order of their keys) or elements of a container.
 * The free places lie in one gap, so that changes near each other, such as a
 * patch makes from the end of an array to its front, move little.
 */
typedef struct EsyncBranch
{
	EsyncNode  *kids;			/* cap places */
	uint32		count;
	uint32		cap;
	uint32		gap;			/* index of the first free place */
	bool		object;
} EsyncBranch;

typedef struct EsyncTree
{
	EsyncNode	root;
	Size		bound;			/* its size when written, or a little more */
} EsyncTree;

/* ---- tree.c: everything is allocated in the current memory context */
extern void esync_tree_init(EsyncTree *tree, const Jsonb *document);
extern void esync_tree_grow(EsyncTree *tree, const EsyncNode *added);
extern void esync_tree_shrink(EsyncTree *tree, const EsyncNode *removed);
extern bool esync_tree_fits(EsyncTree *tree);
/* the document; NULL where it is nested too deeply for the stack */
extern Jsonb *esync_tree_write(const EsyncTree *tree);

extern void esync_node_set(EsyncNode *node, const JsonbValue *value);
extern bool esync_node_get(const EsyncNode *node, JsonbValue *value);
extern void esync_node_put(EsyncNode *place, const EsyncNode *value);
extern EsyncBranch *esync_node_expand(EsyncNode *node);
extern bool esync_node_clone(const EsyncNode *node, EsyncNode *copy, Size *bytes, Size limit);
extern bool esync_node_equal(const EsyncNode *node, const JsonbValue *value);
extern Size esync_node_size(const EsyncNode *node);
extern bool esync_node_write(EsyncJson *json, const EsyncNode *node);

extern EsyncBranch *esync_branch_make(bool object, uint32 cap);
extern bool esync_branch_find(const EsyncBranch *branch, const char *key, uint32 keylen,
							  uint32 *at);
extern EsyncNode *esync_branch_insert(EsyncBranch *branch, uint32 at,
									  const char *key, uint32 keylen);
extern void esync_branch_remove(EsyncBranch *branch, uint32 at, EsyncNode *removed);

/* The at-th member or element. */
static inline EsyncNode *
esync_branch_kid(const EsyncBranch *branch, uint32 at)
{
	return &branch->kids[at < branch->gap ? at : at + branch->cap - branch->count];
}

#endif							/* ESYNC_TREE_H */
