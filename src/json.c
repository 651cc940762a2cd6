/*
 * json.c: jsonb containers, written and read byte by byte.
 *
 * The writer lays a document down front to back in its final form: header,
 * JEntry array, keys, values.  Its bytes are those that jsonb_in would
 * produce of the same document: an offset instead of a length in every
 * JB_OFFSET_STRIDE-th JEntry (keys and values of an object share the count),
 * numerics and containers aligned to four bytes with the padding counted in
 * their length.  Containers hold only relative offsets, so one that exists is
 * carried over by memcpy.
 *
 * The reader never allocates: values point into the document, which must be
 * detoasted and aligned (PG_DETOAST_DATUM, not _PACKED).
 *
 * Memory: only the context current at esync_json_init.  Calls only PostgreSQL.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "esync.h"

/* the sign word of an on-disk numeric (numeric.c keeps its macros to itself) */
#define NUMERIC_WORD_SPECIAL	0xC000
#define NUMERIC_WORD_MASK		0xF000
#define NUMERIC_WORD_PINF		0xD000
#define NUMERIC_WORD_NINF		0xF000
#define NUMERIC_WORD_SHORT		0x8000
#define NUMERIC_WORD_NEGATIVE	0x2000
#define NUMERIC_BASE			10000

/* ---------------------------------------------------------------- writing */

/* A document larger than the format, or an allocation, can hold. */
static void
too_large(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("total size of jsonb %s exceeds the maximum of %u bytes",
					what, JENTRY_OFFLENMASK)));
}

/* Makes room for so many bytes more. */
static pg_noinline void
grow(EsyncJson *json, Size more)
{
	Size		cap = Max((Size) json->cap * 2, (Size) json->len + more);

	if ((Size) json->len + more > MaxAllocSize)
		too_large("document");
	cap = Min(cap, MaxAllocSize);
	json->buf = repalloc(json->buf, cap);
	json->cap = (uint32) cap;
}

static inline void
reserve(EsyncJson *json, Size more)
{
	if (unlikely((Size) json->cap - json->len < more))
		grow(json, more);
}

/* Zero bytes up to the next multiple of four. */
static inline void
align(EsyncJson *json)
{
	reserve(json, sizeof(int32));
	while (json->len & (sizeof(int32) - 1))
		json->buf[json->len++] = '\0';
}

/* Fills the next JEntry of the innermost container. */
static inline void
add_entry(EsyncJson *json, uint32 type, uint32 len)
{
	EsyncJsonLevel *level = &json->levels[json->depth - 1];
	JEntry		entry;

	if (unlikely(level->index >= level->count))
		elog(ERROR, "more children than a jsonb container was opened for");
	if (unlikely(len > JENTRY_OFFLENMASK - level->total))
		too_large("container");
	level->total += len;
	entry = (level->index % JB_OFFSET_STRIDE) == 0 ?
		(type | level->total | JENTRY_HAS_OFF) : (type | len);
	memcpy(json->buf + level->entry, &entry, sizeof(entry));
	level->entry += sizeof(JEntry);
	level->index++;
}

/* One level deeper; its fields are the caller's to fill, except base. */
static EsyncJsonLevel *
push_level(EsyncJson *json)
{
	EsyncJsonLevel *level;

	if (json->depth == json->maxdepth)
	{
		EsyncJsonLevel *more;

		more = MemoryContextAlloc(GetMemoryChunkContext(json->buf),
								  json->maxdepth * 2 * sizeof(EsyncJsonLevel));
		memcpy(more, json->levels, json->maxdepth * sizeof(EsyncJsonLevel));
		json->levels = more;
		json->maxdepth *= 2;
	}
	level = &json->levels[json->depth++];
	level->base = json->len;
	return level;
}

/* Writes the header of a container and leaves room for its JEntrys. */
static void
open_container(EsyncJson *json, uint32 flags, uint32 count, uint32 entries)
{
	EsyncJsonLevel *level = push_level(json);
	uint32		header = count | flags;

	align(json);
	reserve(json, sizeof(uint32) + (Size) entries * sizeof(JEntry));
	memcpy(json->buf + json->len, &header, sizeof(header));
	json->len += sizeof(header);
	level->entry = json->len;
	level->index = 0;
	level->count = entries;
	level->total = 0;
	json->len += entries * sizeof(JEntry);
}

/* A scalar outside of any container makes the document a bare scalar. */
static pg_noinline void
open_scalar(EsyncJson *json)
{
	if (json->len != VARHDRSZ)
		elog(ERROR, "a jsonb document has one root");
	open_container(json, JB_FARRAY | JB_FSCALAR, 1, 1);
	json->rawscalar = true;
}

static inline void
begin_scalar(EsyncJson *json)
{
	if (unlikely(json->depth == 0))
		open_scalar(json);
}

/*
 * Begins a document in the current memory context.  guess is the expected
 * size in bytes; a good one saves copying.
 */
void
esync_json_init(EsyncJson *json, Size guess)
{
	json->cap = (uint32) Min(Max(guess, 64), MaxAllocSize);
	json->buf = palloc(json->cap);
	json->len = VARHDRSZ;
	json->depth = 0;
	json->maxdepth = lengthof(json->few);
	json->levels = json->few;
	json->rawscalar = false;
}

/* Opens an array of exactly count elements. */
void
esync_json_open_array(EsyncJson *json, int count)
{
	if ((uint32) count > JB_CMASK)
		too_large("array elements");
	open_container(json, JB_FARRAY, count, count);
}

/* Opens an object of exactly count members: all keys first, then all values. */
void
esync_json_open_object(EsyncJson *json, int count)
{
	if ((uint32) count > JB_CMASK)
		too_large("object elements");
	open_container(json, JB_FOBJECT, count, (uint32) count * 2);
}

/* The next key of the innermost object; the caller keeps them in stored order. */
void
esync_json_key(EsyncJson *json, const char *key, int keylen)
{
	Assert(json->depth > 0);
	esync_json_string(json, key, keylen);
}

/* Ends the innermost container, which must be complete. */
void
esync_json_close(EsyncJson *json)
{
	EsyncJsonLevel *level = &json->levels[json->depth - 1];
	uint32		len = json->len - level->base;

	if (unlikely(level->index != level->count))
		elog(ERROR, "jsonb container closed with %u of %u children",
			 level->index, level->count);
	if (unlikely(len > JENTRY_OFFLENMASK))
		too_large("container");
	if (--json->depth > 0)
		add_entry(json, JENTRY_ISCONTAINER, len);
}

void
esync_json_null(EsyncJson *json)
{
	begin_scalar(json);
	add_entry(json, JENTRY_ISNULL, 0);
}

void
esync_json_bool(EsyncJson *json, bool value)
{
	begin_scalar(json);
	add_entry(json, value ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE, 0);
}

/* An integer as the numeric that numeric_in would make of it. */
void
esync_json_int64(EsyncJson *json, int64 value)
{
	uint16		words[1 + 5];	/* sign and weight, then digits of base 10000 */
	uint64		rest = value < 0 ? -(uint64) value : (uint64) value;
	int			first = lengthof(words);
	int			last = lengthof(words);
	uint32		start;
	uint32		size;
	char	   *place;

	begin_scalar(json);
	while (rest != 0)
	{
		words[--first] = rest % NUMERIC_BASE;
		rest /= NUMERIC_BASE;
	}
	start = lengthof(words) - first;	/* digits before zeros are dropped */
	while (last > first && words[last - 1] == 0)
		last--;
	words[--first] = NUMERIC_WORD_SHORT | (value < 0 ? NUMERIC_WORD_NEGATIVE : 0) |
		(start > 0 ? start - 1 : 0);
	size = VARHDRSZ + Max(last - first, 1) * sizeof(uint16);

	start = json->len;
	align(json);
	reserve(json, size);
	place = json->buf + json->len;
	SET_VARSIZE(place, size);
	memcpy(place + VARHDRSZ, &words[first], size - VARHDRSZ);
	json->len += size;
	add_entry(json, JENTRY_ISNUMERIC, json->len - start);
}

/*
 * A numeric, with a short or a full header but not toasted.  NaN and the
 * infinities, which JSON cannot express, become strings, as in to_jsonb.
 */
void
esync_json_numeric(EsyncJson *json, const struct varlena *numeric)
{
	uint32		body = VARSIZE_ANY_EXHDR(numeric);
	uint32		start;
	uint16		word;
	char	   *place;

	memcpy(&word, VARDATA_ANY(numeric), sizeof(word));
	if (unlikely((word & NUMERIC_WORD_SPECIAL) == NUMERIC_WORD_SPECIAL))
	{
		const char *name = (word & NUMERIC_WORD_MASK) == NUMERIC_WORD_PINF ? "Infinity" :
			(word & NUMERIC_WORD_MASK) == NUMERIC_WORD_NINF ? "-Infinity" : "NaN";

		esync_json_string(json, name, strlen(name));
		return;
	}
	begin_scalar(json);
	start = json->len;
	align(json);
	reserve(json, (Size) body + VARHDRSZ);
	place = json->buf + json->len;
	SET_VARSIZE(place, body + VARHDRSZ);
	memcpy(place + VARHDRSZ, VARDATA_ANY(numeric), body);
	json->len += body + VARHDRSZ;
	add_entry(json, JENTRY_ISNUMERIC, json->len - start);
}

/*
 * Room for a string of exactly len bytes, which the caller fills before
 * anything else is appended.
 */
char *
esync_json_string_space(EsyncJson *json, int len)
{
	char	   *place;

	begin_scalar(json);
	reserve(json, len);
	place = json->buf + json->len;
	json->len += len;
	add_entry(json, JENTRY_ISSTRING, len);
	return place;
}

/* A string in the server encoding. */
void
esync_json_string(EsyncJson *json, const char *string, int len)
{
	char	   *place = esync_json_string_space(json, len);

	memcpy(place, string, len);
}

/*
 * The bytes of a whole container that exists elsewhere, at any alignment.
 * Not for the one-element array around a bare scalar: see esync_json_value.
 */
void
esync_json_container(EsyncJson *json, const void *container, int len)
{
	uint32		start = json->len;

	if (json->depth == 0 && json->len != VARHDRSZ)
		elog(ERROR, "a jsonb document has one root");
	align(json);
	reserve(json, len);
	memcpy(json->buf + json->len, container, len);
	json->len += len;
	if (json->depth > 0)
		add_entry(json, JENTRY_ISCONTAINER, json->len - start);
}

/* Any scalar, or a container as jbvBinary (a bare scalar in one is unwrapped). */
void
esync_json_value(EsyncJson *json, const JsonbValue *value)
{
	JsonbValue	scalar;

	switch (value->type)
	{
		case jbvNull:
			esync_json_null(json);
			break;
		case jbvBool:
			esync_json_bool(json, value->val.boolean);
			break;
		case jbvNumeric:
			esync_json_numeric(json, (const struct varlena *) value->val.numeric);
			break;
		case jbvString:
			esync_json_string(json, value->val.string.val, value->val.string.len);
			break;
		case jbvBinary:
			if (JsonContainerIsScalar(value->val.binary.data))
			{
				esync_json_element(value->val.binary.data, 0, &scalar);
				esync_json_value(json, &scalar);
			}
			else
				esync_json_container(json, value->val.binary.data, value->val.binary.len);
			break;
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) value->type);
	}
}

/* The finished document; every container must have been closed. */
Jsonb *
esync_json_finish(EsyncJson *json)
{
	if (json->rawscalar && json->depth == 1)
		esync_json_close(json);
	if (json->depth != 0 || json->len == VARHDRSZ)
		elog(ERROR, "jsonb document is not complete");
	SET_VARSIZE(json->buf, json->len);
	return (Jsonb *) json->buf;
}

/*
 * Copies what is written of the innermost open container, which must hold
 * scalars and keys only so far, into cxt; json itself goes on unchanged.
 */
void
esync_json_head_make(EsyncJson *json, MemoryContext cxt, EsyncJsonHead *head)
{
	EsyncJsonLevel *level = &json->levels[json->depth - 1];
	uint32		start = INTALIGN(level->base);

	head->len = json->len - start;
	head->bytes = MemoryContextAlloc(cxt, head->len);
	memcpy(head->bytes, json->buf + start, head->len);
	head->index = level->index;
	head->count = level->count;
	head->total = level->total;
}

/* Opens a container that begins with a prepared head; its other children follow. */
void
esync_json_open_head(EsyncJson *json, const EsyncJsonHead *head)
{
	EsyncJsonLevel *level = push_level(json);

	align(json);
	reserve(json, head->len);
	memcpy(json->buf + json->len, head->bytes, head->len);
	level->entry = json->len + sizeof(uint32) + head->index * sizeof(JEntry);
	level->index = head->index;
	level->count = head->count;
	level->total = head->total;
	json->len += head->len;
}

/* Length first, then memcmp: the order in which jsonb stores keys. */
int
esync_key_cmp(const char *a, int alen, const char *b, int blen)
{
	if (alen != blen)
		return alen > blen ? 1 : -1;
	return memcmp(a, b, alen);
}

static int
member_cmp(const void *a, const void *b)
{
	const EsyncMember *x = (const EsyncMember *) a;
	const EsyncMember *y = (const EsyncMember *) b;

	return esync_key_cmp(x->key, x->keylen, y->key, y->keylen);
}

/* An object of members with unique keys in any order, in the current context. */
Jsonb *
esync_json_object(int count, const EsyncMember *members)
{
	EsyncJson	json;
	bool		sorted = true;

	for (int i = 1; i < count && sorted; i++)
		sorted = member_cmp(&members[i - 1], &members[i]) < 0;
	if (!sorted)
	{
		EsyncMember *copy = palloc(count * sizeof(EsyncMember));

		memcpy(copy, members, count * sizeof(EsyncMember));
		qsort(copy, count, sizeof(EsyncMember), member_cmp);
		members = copy;
	}
	esync_json_init(&json, 64 + count * 48);
	esync_json_open_object(&json, count);
	for (int i = 0; i < count; i++)
		esync_json_key(&json, members[i].key, members[i].keylen);
	for (int i = 0; i < count; i++)
		esync_json_value(&json, &members[i].value);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* A document of one value, in the current memory context. */
Jsonb *
esync_json_from_value(const JsonbValue *value)
{
	EsyncJson	json;

	esync_json_init(&json, value->type == jbvBinary ? value->val.binary.len + VARHDRSZ : 64);
	esync_json_value(&json, value);
	return esync_json_finish(&json);
}

/* ---------------------------------------------------------------- reading */

/* Where the children's bytes begin. */
static inline const char *
container_base(const JsonbContainer *container)
{
	uint32		entries = JsonContainerSize(container);

	if (JsonContainerIsObject(container))
		entries *= 2;
	return (const char *) &container->children[entries];
}

/* The end of a child's bytes, given where they start. */
static inline uint32
entry_end(JEntry entry, uint32 start)
{
	return JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) : start + JBE_OFFLENFLD(entry);
}

/* The child whose bytes lie in [start, end). */
static inline void
fill_value(const char *base, JEntry entry, uint32 start, uint32 end, JsonbValue *out)
{
	if (JBE_ISNULL(entry))
		out->type = jbvNull;
	else if (JBE_ISSTRING(entry))
	{
		out->type = jbvString;
		out->val.string.val = unconstify(char *, base + start);
		out->val.string.len = end - start;
	}
	else if (JBE_ISNUMERIC(entry))
	{
		out->type = jbvNumeric;
		out->val.numeric = (Numeric) unconstify(char *, base + INTALIGN(start));
	}
	else if (JBE_ISBOOL_TRUE(entry))
	{
		out->type = jbvBool;
		out->val.boolean = true;
	}
	else if (JBE_ISBOOL_FALSE(entry))
	{
		out->type = jbvBool;
		out->val.boolean = false;
	}
	else
	{
		out->type = jbvBinary;
		out->val.binary.data = (JsonbContainer *) unconstify(char *, base + INTALIGN(start));
		out->val.binary.len = end - INTALIGN(start);
	}
}

/*
 * Begins a walk over an object's members or an array's elements, in stored
 * order.  A bare scalar is the only element of its array.
 */
void
esync_walk_init(EsyncWalk *walk, const JsonbContainer *container)
{
	walk->container = container;
	walk->base = container_base(container);
	walk->count = JsonContainerSize(container);
	walk->next = 0;
	walk->keyoff = 0;
	walk->valueoff = 0;
	walk->key = NULL;
	walk->keylen = 0;
	if (JsonContainerIsObject(container) && walk->count > 0)
		walk->valueoff = getJsonbOffset(container, walk->count);
}

/* Steps to the next member or element; false when there is none. */
bool
esync_walk_next(EsyncWalk *walk)
{
	const JEntry *entries = walk->container->children;
	int			i = walk->next;
	uint32		end;

	if (i >= walk->count)
		return false;
	walk->next++;
	if (JsonContainerIsObject(walk->container))
	{
		end = entry_end(entries[i], walk->keyoff);
		walk->key = walk->base + walk->keyoff;
		walk->keylen = end - walk->keyoff;
		walk->keyoff = end;
		i += walk->count;
	}
	end = entry_end(entries[i], walk->valueoff);
	fill_value(walk->base, entries[i], walk->valueoff, end, &walk->value);
	walk->valueoff = end;
	return true;
}

/* The whole document as one value: a bare scalar, or a container as jbvBinary. */
void
esync_json_root(const Jsonb *document, JsonbValue *out)
{
	if (JB_ROOT_IS_SCALAR(document))
		esync_json_element(&document->root, 0, out);
	else
	{
		out->type = jbvBinary;
		out->val.binary.data = unconstify(JsonbContainer *, &document->root);
		out->val.binary.len = VARSIZE(document) - VARHDRSZ;
	}
}

/* How many members or elements. */
int
esync_json_count(const JsonbContainer *container)
{
	return JsonContainerSize(container);
}

/* The member of that name; false where there is none, or this is no object. */
bool
esync_json_member(const JsonbContainer *object, const char *key, int keylen, JsonbValue *out)
{
	const char *base = container_base(object);
	uint32		low = 0;
	uint32		high = JsonContainerSize(object);

	if (!JsonContainerIsObject(object))
		return false;
	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		int			difference;

		difference = esync_key_cmp(base + getJsonbOffset(object, middle),
								   getJsonbLength(object, middle), key, keylen);
		if (difference == 0)
		{
			esync_json_element(object, middle + JsonContainerSize(object), out);
			return true;
		}
		if (difference < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/*
 * The i-th element of an array, which must exist.  (Of an object: the i-th
 * key, or from the count on, the values.)
 */
void
esync_json_element(const JsonbContainer *array, int i, JsonbValue *out)
{
	uint32		start = getJsonbOffset(array, i);

	fill_value(container_base(array), array->children[i], start,
			   entry_end(array->children[i], start), out);
}

/* Copies what a value points to into a context. */
void
esync_json_keep(JsonbValue *value, MemoryContext cxt)
{
	const void *from;
	void	   *copy;
	Size		len;

	if (value->type == jbvString)
		from = value->val.string.val, len = value->val.string.len;
	else if (value->type == jbvNumeric)
		from = value->val.numeric, len = VARSIZE_ANY(from);
	else if (value->type == jbvBinary)
		from = value->val.binary.data, len = value->val.binary.len;
	else
		return;
	copy = MemoryContextAlloc(cxt, len + 1);
	memcpy(copy, from, len);
	if (value->type == jbvString)
		value->val.string.val = copy;
	else if (value->type == jbvNumeric)
		value->val.numeric = copy;
	else
		value->val.binary.data = copy;
}

/* The same number; exact: with the same number of digits after the point too. */
static bool
numeric_same(Numeric a, Numeric b, bool exact)
{
	Datum		x = NumericGetDatum(a);
	Datum		y = NumericGetDatum(b);

	if (VARSIZE_ANY(a) == VARSIZE_ANY(b) && memcmp(a, b, VARSIZE_ANY(a)) == 0)
		return true;
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, x, y)))
		return false;
	return !exact ||
		DatumGetInt32(DirectFunctionCall1(numeric_scale, x)) ==
		DatumGetInt32(DirectFunctionCall1(numeric_scale, y));
}

/*
 * Containers by their bytes first.  Equal bytes are equal values; different
 * bytes may still be (numeric scale), so then child by child.
 */
static bool
container_same(const JsonbContainer *a, int alen, const JsonbContainer *b, int blen, bool exact)
{
	EsyncWalk	x;
	EsyncWalk	y;

	check_stack_depth();
	if (alen == blen && memcmp(a, b, alen) == 0)
		return true;
	if (a->header != b->header)
		return false;
	esync_walk_init(&x, a);
	esync_walk_init(&y, b);
	while (esync_walk_next(&x) && esync_walk_next(&y))
	{
		if (x.keylen != y.keylen ||
			(x.keylen > 0 && memcmp(x.key, y.key, x.keylen) != 0))
			return false;
		if (!esync_json_equal(&x.value, &y.value, exact))
			return false;
	}
	return true;
}

/*
 * Deep equality of two values, scalars or jbvBinary.  exact: the scale of a
 * number counts, 1.0 is not 1.00.
 */
bool
esync_json_equal(const JsonbValue *a, const JsonbValue *b, bool exact)
{
	JsonbValue	scalar;

	if (a->type == jbvBinary && JsonContainerIsScalar(a->val.binary.data))
	{
		esync_json_element(a->val.binary.data, 0, &scalar);
		return esync_json_equal(&scalar, b, exact);
	}
	if (b->type == jbvBinary && JsonContainerIsScalar(b->val.binary.data))
	{
		esync_json_element(b->val.binary.data, 0, &scalar);
		return esync_json_equal(a, &scalar, exact);
	}
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
			return numeric_same(a->val.numeric, b->val.numeric, exact);
		case jbvBinary:
			return container_same(a->val.binary.data, a->val.binary.len,
								  b->val.binary.data, b->val.binary.len, exact);
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) a->type);
			return false;
	}
}

/* ----------------------------------------------------------------- values */

JsonbValue
esync_value_int64(int64 number)
{
	JsonbValue	v = {.type = jbvNumeric};

	v.val.numeric = int64_to_numeric(number);
	return v;
}

JsonbValue
esync_value_bool(bool value)
{
	JsonbValue	v = {.type = jbvBool};

	v.val.boolean = value;
	return v;
}

/* A string; NULL is null. */
static JsonbValue
string_value(const char *string, int len)
{
	JsonbValue	v = {.type = jbvNull};

	if (string == NULL)
		return v;
	v.type = jbvString;
	v.val.string.val = unconstify(char *, string);
	v.val.string.len = len;
	return v;
}

JsonbValue
esync_value_string(const char *string)
{
	return string_value(string, string ? strlen(string) : 0);
}

JsonbValue
esync_value_text(const text *string)
{
	return string ? string_value(VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string)) :
		string_value(NULL, 0);
}

JsonbValue
esync_value_document(const Jsonb *document)
{
	JsonbValue	v = {.type = jbvNull};

	if (document != NULL)
		esync_json_root(document, &v);
	return v;
}

/* A member of an object that is put together. */
EsyncMember
esync_json_pair(const char *key, JsonbValue value)
{
	EsyncMember m = {.key = key, .keylen = strlen(key), .value = value};

	return m;
}

/* Documents (Jsonb *) as an array. */
Jsonb *
esync_json_array(const List *documents)
{
	EsyncJson	json;
	ListCell   *lc;

	esync_json_init(&json, 256);
	esync_json_open_array(&json, list_length(documents));
	foreach(lc, documents)
	{
		JsonbValue	v = esync_value_document(lfirst(lc));

		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* C strings as an array. */
Jsonb *
esync_json_strings(const List *strings)
{
	EsyncJson	json;
	ListCell   *lc;

	esync_json_init(&json, 256);
	esync_json_open_array(&json, list_length(strings));
	foreach(lc, strings)
	{
		JsonbValue	v = esync_value_string(lfirst(lc));

		esync_json_value(&json, &v);
	}
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* --------------------------------------------------------------- pointers */

/* A name as one token of a JSON pointer, without the slash; palloc'd. */
char *
esync_pointer_escape(const char *name)
{
	char	   *token = palloc(strlen(name) * 2 + 1);
	char	   *to = token;

	for (const char *from = name; *from; from++)
	{
		if (*from == '~' || *from == '/')
		{
			*to++ = '~';
			*to++ = *from == '~' ? '0' : '1';
		}
		else
			*to++ = *from;
	}
	*to = '\0';
	return token;
}

/*
 * The name that a pointer of one token ("/a~1b") means, into token, which has
 * room for pathlen bytes.  Its length (no terminator), or -1 where the path
 * is empty, deeper than one token, or malformed.
 */
int
esync_pointer_token(const char *path, int pathlen, char *token)
{
	char	   *to = token;

	if (pathlen < 1 || path[0] != '/')
		return -1;
	for (int i = 1; i < pathlen; i++)
	{
		if (path[i] == '/')
			return -1;
		if (path[i] != '~')
			*to++ = path[i];
		else if (++i < pathlen && (path[i] == '0' || path[i] == '1'))
			*to++ = path[i] == '0' ? '~' : '/';
		else
			return -1;
	}
	return to - token;
}
