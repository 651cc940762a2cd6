/*
 * patch.h: a document and the patch that is applied to it; shared by patch.c
 * and patchfn.c alone.
 */
#ifndef ESYNC_PATCH_H
#define ESYNC_PATCH_H

#include "tree.h"

/* SQLSTATE of a test operation that fails */
#define ERRCODE_ESYNC_TEST_FAILED	MAKE_SQLSTATE('Y','S','0','1','0')

/* one reference token, unescaped */
typedef struct Token
{
	const char *string;
	int			len;
} Token;

/* a JSON pointer, parsed; reused from operation to operation */
typedef struct JsonPointer
{
	const char *text;			/* NULL: the operation has none */
	int			textlen;
	int			count;
	int			cap;
	Token	   *tokens;
	Token		few[16];		/* tokens, until more are needed */
} JsonPointer;

typedef enum OpKind
{
	OP_ADD, OP_REMOVE, OP_REPLACE, OP_MOVE, OP_COPY, OP_TEST, OP_UNKNOWN,
} OpKind;

/* why a patch cannot be applied */
typedef struct Failure
{
	int			sqlstate;
	char	   *message;
	char	   *found;			/* of a test: the value; or NULL */
} Failure;

/* an operation of the inverse; those of the last change come first */
typedef struct Undo
{
	OpKind		kind;
	const char *path;
	int			pathlen;
	const char *from;
	int			fromlen;
	EsyncNode	value;
} Undo;

/* a document and the patch that is applied to it */
typedef struct Patcher
{
	EsyncTree	tree;
	int			number;			/* of the operation, from 0; -1: the patch itself */
	OpKind		kind;
	JsonPointer path;
	JsonPointer from;
	bool		has_value;
	JsonbValue	value;
	Size		copied;			/* bytes by which copies have made the document grow */
	bool		inverting;		/* undo is wanted */
	Undo	   *undo;
	int			nundo;
	int			maxundo;
	Failure		failure;
} Patcher;

/* ---- patch.c: in the current memory context; documents and patches must stay */
extern void esync_patch_begin(Patcher *p, const Jsonb *doc, bool inverting);
extern bool esync_patch_apply(Patcher *p, const Jsonb *patch);
extern Jsonb *esync_patch_finish(Patcher *p);
extern Jsonb *esync_patch_inverse(Patcher *p);
extern const char *esync_patch_op_name(OpKind kind);
extern char *esync_patch_shorten(const char *string, int len, int max);

#endif							/* ESYNC_PATCH_H */
