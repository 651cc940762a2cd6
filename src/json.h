/*
 * json.h: jsonb documents, written and read byte by byte (json.c).  A part of
 * esync.h, which includes it; who needs nothing else may include it alone.
 */
#ifndef ESYNC_JSON_H
#define ESYNC_JSON_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* one open container of a document being written */
typedef struct EsyncJsonLevel
{
	uint32		base;			/* where it began, alignment included */
	uint32		entry;			/* where its next JEntry goes */
	uint32		index;			/* how many JEntrys are filled */
	uint32		count;			/* how many it must have */
	uint32		total;			/* bytes of its children so far */
} EsyncJsonLevel;

/*
 * A jsonb document being written front to back.  Lives on the caller's
 * stack; buf belongs to the context current at init, and becomes the result.
 */
typedef struct EsyncJson
{
	char	   *buf;
	uint32		len;
	uint32		cap;
	int			depth;			/* open containers */
	int			maxdepth;
	bool		rawscalar;		/* the root is a bare scalar */
	EsyncJsonLevel *levels;
	EsyncJsonLevel few[8];		/* levels, until more are needed */
} EsyncJson;

/* the beginning of a container, made once and copied often */
typedef struct EsyncJsonHead
{
	char	   *bytes;
	uint32		len;
	uint32		index;			/* as in EsyncJsonLevel */
	uint32		count;
	uint32		total;
} EsyncJsonHead;

/* an object in one call; keys unique, in any order */
typedef struct EsyncMember
{
	const char *key;
	int			keylen;
	JsonbValue	value;			/* a scalar or jbvBinary */
} EsyncMember;

/*
 * Reading, without palloc.  Values point into the container: strings and
 * numerics there, nested containers as jbvBinary.
 */
typedef struct EsyncWalk
{
	const JsonbContainer *container;
	const char *base;			/* where the children's bytes begin */
	int			count;			/* members or elements */
	int			next;			/* index of the one that comes next */
	uint32		keyoff;			/* offset of its key (objects) and value */
	uint32		valueoff;
	const char *key;			/* the one at hand; NULL in arrays */
	int			keylen;
	JsonbValue	value;
} EsyncWalk;

/* ------------------------------------------------------------ prototypes */

/*
 * Writing.  An array: open_array(n), then n children.  An object:
 * open_object(n), then all n keys in stored order (esync_key_cmp), then the n
 * values in the same order.  Whatever is appended outside of any container
 * is the root; esync_json_finish closes nothing but a bare scalar.
 */
extern void esync_json_init(EsyncJson *json, Size guess);
extern void esync_json_open_array(EsyncJson *json, int count);
extern void esync_json_open_object(EsyncJson *json, int count);
extern void esync_json_key(EsyncJson *json, const char *key, int keylen);
extern void esync_json_close(EsyncJson *json);
extern void esync_json_null(EsyncJson *json);
extern void esync_json_bool(EsyncJson *json, bool value);
extern void esync_json_int64(EsyncJson *json, int64 value);
extern void esync_json_numeric(EsyncJson *json, const struct varlena *numeric);
extern void esync_json_string(EsyncJson *json, const char *string, int len);
extern char *esync_json_string_space(EsyncJson *json, int len);
extern void esync_json_container(EsyncJson *json, const void *container, int len);
extern void esync_json_value(EsyncJson *json, const JsonbValue *value);
extern Jsonb *esync_json_finish(EsyncJson *json);

/* Prepared beginnings: what is written of the innermost open container. */
extern void esync_json_head_make(EsyncJson *json, MemoryContext cxt, EsyncJsonHead *head);
extern void esync_json_open_head(EsyncJson *json, const EsyncJsonHead *head);

extern Jsonb *esync_json_object(int count, const EsyncMember *members);
/* the same of documents, and of C strings (NULL: null) */
extern Jsonb *esync_json_array(const List *documents);
extern Jsonb *esync_json_strings(const List *strings);

/* One value, or one member; what it points to must live as long.  NULL is null. */
extern JsonbValue esync_value_int64(int64 number);
extern JsonbValue esync_value_bool(bool value);
extern JsonbValue esync_value_string(const char *string);
extern JsonbValue esync_value_text(const text *string);
extern JsonbValue esync_value_document(const Jsonb *document);
extern EsyncMember esync_json_pair(const char *key, JsonbValue value);

/* Length first, then memcmp: the order in which jsonb stores keys. */
extern int	esync_key_cmp(const char *a, int alen, const char *b, int blen);

extern void esync_walk_init(EsyncWalk *walk, const JsonbContainer *container);
extern bool esync_walk_next(EsyncWalk *walk);
extern void esync_json_root(const Jsonb *document, JsonbValue *out);
extern int	esync_json_count(const JsonbContainer *container);
extern bool esync_json_member(const JsonbContainer *object, const char *key, int keylen,
							  JsonbValue *out);
extern void esync_json_element(const JsonbContainer *array, int i, JsonbValue *out);
extern bool esync_json_equal(const JsonbValue *a, const JsonbValue *b, bool exact);
extern Jsonb *esync_json_from_value(const JsonbValue *value);
extern void esync_json_keep(JsonbValue *value, MemoryContext cxt);

/* JSON pointers of one token */
extern char *esync_pointer_escape(const char *name);
extern int	esync_pointer_token(const char *path, int pathlen, char *token);

#endif							/* ESYNC_JSON_H */
