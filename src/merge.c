/*
 * merge.c: the rule by which an edit finds its place among others.
 *
 * What its author changed is the difference between what the device showed
 * (base.c) and what was sent.  Its effective time is the corrected submit time, but after all that was seen.
 * Field by field the greatest stamp shows; edits whose authors had not seen
 * each other and that differ are contenders of a conflict.  All of it is a
 * function of the set of events, not of the order in which they arrive.
 *
 * Works on events that the caller has read, and writes nothing.  Memory: the
 * current context, in which the events must live as well.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "merge.h"
#include "paths.h"

/* ------------------------------------------------------------------- seen */

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Are both of one device's queue?  A device that is not named has none. */
static bool
same_queue(const text *a, int64 a_seq, const text *b, int64 b_seq)
{
	return a != NULL && b != NULL && a_seq != 0 && b_seq != 0 && same_text(a, b);
}

/*
 * Had the author of e seen x?  The ground is seen by everyone.  An edit that the
 * device sent again, on top of what it had done since, comes after that.
 */
bool
esync_merge_seen(const EsyncContender *e, const EsyncContender *x)
{
	if (x->version <= e->base_version)
		return true;
	return same_queue(e->device_id, e->device_seq, x->device_id, x->device_seq) &&
		x->device_seq < e->device_seq &&
		(e->version == 0 || e->version > x->base_version);
}

/* What seen() and the ledger need of an event. */
EsyncContender
esync_merge_contender(const EsyncEvent *e)
{
	EsyncContender c = {0};

	c.event_id = e->event_id;
	c.version = e->version;
	c.base_version = e->base_version;
	c.device_seq = e->device_seq;
	c.type = e->type;
	if (e->type == ESYNC_RESOLVED && esync_event_life(e) != 0)
		c.type = esync_event_life(e) > 0 ? ESYNC_RESTORED : ESYNC_DELETED;
	c.undo = esync_event_undoes(e) != 0;
	c.nobodys = c.undo || e->type == ESYNC_BASELINE;
	c.submit = e->submit;
	c.user_id = e->user_id;
	c.device_id = e->device_id;
	return c;
}

/* What triggers made of an event belongs to it. */
static const EsyncEvent *
cause_of(const EsyncMerge *m, const EsyncEvent *e)
{
	if ((e->flags & ESYNC_FLAG_DERIVED) && e > m->events->e && e[-1].version == e->version - 1)
		return e - 1;
	return e;
}

/* Is the event the device's own, of before this edit?  With it goes what was derived from it. */
bool
esync_merge_own_before(const EsyncMerge *m, const EsyncEvent *e)
{
	e = cause_of(m, e);
	return same_queue(m->edit->device_id, m->edit->device_seq, e->device_id, e->device_seq) &&
		e->device_seq < m->edit->device_seq;
}

/* Is the event the device's own, of after this edit, and here before it? */
bool
esync_merge_own_after(const EsyncMerge *m, const EsyncEvent *e)
{
	e = cause_of(m, e);
	return same_queue(m->edit->device_id, m->edit->device_seq, e->device_id, e->device_seq) &&
		e->device_seq > m->edit->device_seq;
}

/* ------------------------------------------------------------------ lives */

/* Finds by which events rows went from a key to others; it is asked for each event. */
static void
find_leaves(EsyncEvents *events)
{
	events->leaves = MemoryContextAllocHuge(GetMemoryChunkContext(events),
											(events->n + 1) * sizeof(int64));
	events->nleaves = 0;
	for (int i = 0; i < events->n; i++)
		if (events->e[i].type == ESYNC_DELETED && (events->e[i].flags & ESYNC_FLAG_MOVED))
			events->leaves[events->nleaves++] = events->e[i].version;
	events->leaves_of = events->n;
}

/* How many rows had gone from a key to others by one of its versions? */
int
esync_merge_life_at(EsyncEvents *events, int64 base)
{
	int			n = 0;

	if (events->leaves == NULL || events->leaves_of != events->n)
		find_leaves(events);
	while (n < events->nleaves && events->leaves[n] <= base)
		n++;
	return n;
}

/*
 * Of which of the rows that its key had, one after the other, is an event?  Its
 * author had seen that those before had gone; an undo is of the row of what it
 * undoes.
 */
int
esync_merge_life(EsyncEvents *events, int i)
{
	int			k;

	while ((k = esync_withdraw_find(events, esync_event_undoes(&events->e[i]))) >= 0 && k < i)
		i = k;
	return esync_merge_life_at(events, events->e[i].base_version);
}

/* Is an event of the row that the author at hand had seen, and not of another that had its key? */
bool
esync_merge_same_life(const EsyncMerge *m, int i)
{
	return !m->moves || esync_merge_life(m->events, i) == m->life;
}

/* ------------------------------------------------------------------ folds */

/*
 * Adds one of the events; the first of a list that does not begin at the
 * beginning stands for all before it, as if it were the ground.
 */
void
esync_merge_add(EsyncMerge *m, EsyncFold *fold, int i)
{
	EsyncEvent	ground;

	if (i > 0 || !m->grounded)
	{
		esync_fold_add(fold, &m->events->e[i], i);
		return;
	}
	ground = m->events->e[0];
	ground.type = ESYNC_BASELINE;
	ground.effective = DT_NOBEGIN;
	ground.flags &= ~ESYNC_FLAG_DRIFT;
	ground.meta = NULL;
	ground.patch = m->nothing;
	esync_fold_add(fold, &ground, i);
}

/* A fold of the first n events. */
EsyncFold *
esync_merge_fold(EsyncMerge *m, int n)
{
	EsyncFold  *fold = palloc(sizeof(EsyncFold));

	if (m->shown)
		esync_fold_init_like(fold, m->shown);
	else
		esync_fold_init(fold, m->t->fields, m->t->nfields, m->t->tombstone_field);
	for (int i = 0; i < n; i++)
		esync_merge_add(m, fold, i);
	return fold;
}

/* ---------------------------------------------------------------- changes */

/* Sets what is wrong with the edit. */
bool
esync_merge_reject(EsyncMerge *m, const char *code, char *message)
{
	m->code = code;
	m->message = message;
	return false;
}


/* Has the field a value that an author may set? */
bool
esync_merge_takes(const EsyncField *f)
{
	return !f->excluded && !f->stamp;
}

/*
 * The field that a name in an edit means: what bore it at the base, else now,
 * else ever; -1: nothing did.
 */
int
esync_merge_field(const EsyncMerge *m, const char *name, int len)
{
	const EsyncTracked *t = m->t;
	int			i = esync_field_at(t->fields, t->nfields, name, len, m->names_at);

	if (i < 0)
		i = esync_field_at(t->fields, t->nfields, name, len, PG_INT64_MAX);
	for (int k = 0; i < 0 && k < t->nfields; k++)
		if (esync_field_bore(&t->fields[k], name, len))
			i = k;
	return i;
}

/* Index in the row shape of a living field; -1: it has no place there. */
int
esync_merge_shape(const EsyncTracked *t, int field)
{
	for (int i = 0; i < t->ncolumns; i++)
		if (t->columns[i].field == field)
			return t->columns[i].shape;
	return -1;
}

/* Equality of two values of a column's type by that type's own =; false where it has none. */
static bool
equal_by_type(const EsyncField *f, Datum a, Datum b)
{
	TypeCacheEntry *type = lookup_type_cache(f->typid, TYPECACHE_EQ_OPR_FINFO);
	Oid			collation = type->typcollation;

	if (!OidIsValid(type->eq_opr_finfo.fn_oid))
		return false;
	return DatumGetBool(FunctionCall2Coll(&type->eq_opr_finfo, collation, a, b));
}

/*
 * Does a column take a value in any case?  Others may have been shown when it had
 * another type, or an enum another label; and asking with care has its price.
 */
static bool
takes_any(const EsyncField *f, const JsonbValue *shown)
{
	switch (f->typid)
	{
		case TEXTOID:
		case JSONBOID:
			return true;
		case VARCHAROID:
			return f->typmod < 0;
		case BOOLOID:
			return shown->type == jbvBool;
		case NUMERICOID:
			return f->typmod < 0 && shown->type == jbvNumeric;
		default:
			return false;
	}
}

/* a comparison by a type, which may refuse a value */
typedef struct Comparison
{
	const EsyncMerge *m;
	int			field;
	const JsonbValue *shown;
	JsonbValue *told;			/* what is said to have been shown, */
	Datum		sent;			/* or, as a value of the type, what was sent */
	bool		equal;
} Comparison;

/* Callback: compares what was shown with a value of the type. */
static void
compare_shown(void *arg)
{
	Comparison *c = arg;
	Datum		before;
	bool		was_null;

	esync_decode_value(c->m->t->row, esync_merge_shape(c->m->t, c->field), c->shown, &before,
					   &was_null);
	c->equal = !was_null && equal_by_type(&c->m->t->fields[c->field], before, c->sent);
}

/* Callback: compares what was shown with what is said to have been. */
static void
compare_told(void *arg)
{
	Comparison *c = arg;

	c->equal = esync_merge_equal(c->m, c->field, c->shown, c->told);
}

/* Compares; what a type does not take that had another one, or no constraint, then is not equal. */
static bool
compare(Comparison *c, void (*body) (void *arg))
{
	ErrorData  *error = esync_guard(body, c);

	if (error && esync_error_is_fatal(error))
		ReThrowError(error);
	return error == NULL && c->equal;
}

/*
 * Is the value that was sent the same as the one that was shown, to the
 * column's type?  Brings the sent value into the form that a row has, where it
 * is another one.  What does not fit the type is an error, 22xxx; but what was
 * shown may be from a time when the column had another type.
 */
bool
esync_merge_equal(const EsyncMerge *m, int field, const JsonbValue *shown, JsonbValue *sent)
{
	Comparison	c = {.m = m, .field = field, .shown = shown};
	int			shape = esync_merge_shape(m->t, field);
	bool		isnull;

	if (esync_json_equal(shown, sent, false) || shape < 0)
		return esync_json_equal(shown, sent, false);
	esync_decode_value(m->t->row, shape, sent, &c.sent, &isnull);
	esync_encode_value(m->t->row, shape, c.sent, isnull, sent);
	if (isnull || shown->type == jbvNull)
		return isnull && shown->type == jbvNull;
	if (esync_json_equal(shown, sent, false))
		return true;
	if (!takes_any(&m->t->fields[field], shown))
		return compare(&c, compare_shown);
	compare_shown(&c);
	return c.equal;
}

/* The same for a value that was not sent as an edit, but is said to have been shown. */
bool
esync_merge_equal_told(const EsyncMerge *m, int field, const JsonbValue *shown, JsonbValue *told)
{
	Comparison	c = {.m = m, .field = field, .shown = shown, .told = told};

	return esync_json_equal(shown, told, false) ||
		(esync_merge_shape(m->t, field) >= 0 && compare(&c, compare_told));
}

/* A change, with room for it; or the one that is there. */
static EsyncChange *
change_of(EsyncMerge *m, int field)
{
	EsyncChange *c;

	for (int i = 0; i < m->nchanges; i++)
		if (m->changes[i].field == field)
			return &m->changes[i];
	c = &m->changes[m->nchanges++];
	memset(c, 0, sizeof(EsyncChange));
	c->field = field;
	return c;
}

/* Had the author a value of the field before the eyes, null or not? */
static bool
is_shown(const EsyncMerge *m, int field)
{
	return m->shown->known && (m->nseen > 0 || esync_fold_is_set(m->shown, field));
}

/*
 * What the author had before the eyes in a field; false: nothing at all.  In the
 * form that a row has, unless it is what was sent (NULL: that is not known).
 */
static bool
shown_value(EsyncMerge *m, int field, const JsonbValue *sent, JsonbValue *value)
{
	const EsyncField *f = &m->t->fields[field];

	value->type = jbvNull;
	if (m->edit->base)
	{
		EsyncWalk	walk;

		esync_walk_init(&walk, &m->edit->base->root);
		while (esync_walk_next(&walk))
			if (esync_field_bore(f, walk.key, walk.keylen) &&
				esync_merge_field(m, walk.key, walk.keylen) == field)
			{
				JsonbValue	null = {.type = jbvNull};

				*value = walk.value;
				if (f->attnum != 0 && !(sent && esync_json_equal(value, sent, false)))
					(void) esync_merge_equal_told(m, field, &null, value);
				return true;
			}
	}
	if (!is_shown(m, field))
		return false;
	if (!esync_fold_value(m->shown, field, value))
		value->type = jbvNull;
	return true;
}

/*
 * A value that was sent for a column whose values nobody records: an edit if
 * the row holds another now, unless somebody set it whom the author had not seen.
 */
static bool
masked_differs(EsyncMerge *m, int field, const JsonbValue *sent)
{
	const char *name = m->t->fields[field].name;
	JsonbValue	now = {.type = jbvNull};
	JsonbValue	value = *sent;	/* the row's own form of it would be the mask */

	if (sent->type == jbvString && sent->val.string.len == strlen(ESYNC_MASK) &&
		memcmp(sent->val.string.val, ESYNC_MASK, sent->val.string.len) == 0)
		return false;
	if (m->masked && esync_json_member(&m->masked->root, name, strlen(name), &now) &&
		esync_merge_equal(m, field, &now, &value))
		return false;
	if (m->edit->set)
		return true;
	for (int i = m->nseen; i < m->events->n; i++)
		if (esync_merge_sets(m, i, field, NULL))
			return false;
	return true;
}

/* Is the field part of the key? */
bool
esync_merge_is_key(const EsyncTracked *t, int field)
{
	for (int k = 0; k < t->nkeys; k++)
		if (t->keyfields[k] == field)
			return true;
	return false;
}

/*
 * An edit of a column that was dropped since stays in patch and history; but in
 * meta alone where its name now means another column.
 */
static bool
takes_dropped(EsyncMerge *m, int field, const EsyncWalk *walk)
{
	m->ignored = lappend(m->ignored, pnstrdup(walk->key, walk->keylen));
	if (esync_field_at(m->t->fields, m->t->nfields, walk->key, walk->keylen,
					   PG_INT64_MAX) == field)
		return true;
	if (m->dropped == NULL)
		m->dropped = palloc((m->t->nfields + 1) * sizeof(EsyncMember));
	m->dropped[m->ndropped].key = walk->key;
	m->dropped[m->ndropped].keylen = walk->keylen;
	m->dropped[m->ndropped++].value = walk->value;
	return false;
}

/* Takes one member of a document or of the fields that were sent. */
static bool
take_member(EsyncMerge *m, const EsyncWalk *walk, bool creates)
{
	int			field = esync_merge_field(m, walk->key, walk->keylen);
	const EsyncField *f = &m->t->fields[Max(field, 0)];
	JsonbValue	shown;
	JsonbValue	sent = walk->value;
	bool		refused;
	bool		differs;
	bool		shows;
	EsyncChange *c;

	if (field < 0)
		return esync_merge_reject(m, "unknown_column",
					  psprintf("column \"%s\" of table \"%s\" never existed",
							   pnstrdup(walk->key, walk->keylen), m->t->table_name));
	if (!esync_merge_takes(f))
		return true;
	shows = shown_value(m, field, &sent, &shown);
	if (esync_merge_is_key(m->t, field))
	{
		if (m->key_at && esync_json_member(&m->key_at->root, f->name, strlen(f->name), &shown) &&
			!esync_merge_equal(m, field, &shown, &sent))
			return esync_merge_reject(m, "invalid",
						  psprintf("column \"%s\" of the document contradicts the key", f->name));
		if (!creates)
			return true;
	}
	refused = !creates && !esync_json_equal(&shown, &sent, false) &&
		esync_refusal_by_type(m, field, &sent);
	differs = refused || (f->masked ? masked_differs(m, field, &sent) :
						  !esync_merge_equal(m, field, &shown, &sent) || !shows);
	if (!differs && !creates && m->edit->verb != ESYNC_VERB_RESOLVE)
		return true;
	if (f->attnum == 0 && !takes_dropped(m, field, walk))
		return true;
	c = change_of(m, field);
	c->value = sent;
	c->shown = shown;
	c->name = f->attnum == 0 ? pnstrdup(walk->key, walk->keylen) : f->name;
	if (!differs)
	{
		/* bring it into the form that a row has */
		JsonbValue	null = {.type = jbvNull};

		if (!f->masked && f->attnum != 0)
			(void) esync_merge_equal(m, field, &null, &c->value);
	}
	return true;
}

/* A column's default, computed now; NULL where it has none. */
static void
default_of(const EsyncMerge *m, int field, JsonbValue *value)
{
	Relation	rel = table_open(m->t->root, AccessShareLock);
	Node	   *expr = build_column_default(rel, m->t->fields[field].attnum);
	EState	   *estate = CreateExecutorState();
	Datum		datum = (Datum) 0;
	bool		isnull = true;

	if (expr)
		datum = ExecEvalExpr(ExecPrepareExpr((Expr *) expr, estate),
							 GetPerTupleExprContext(estate), &isnull);
	esync_encode_value(m->t->row, esync_merge_shape(m->t, field), datum, isnull, value);
	if (value->type == jbvString || value->type == jbvNumeric || value->type == jbvBinary)
		esync_json_root(esync_json_from_value(value), value);	/* a copy */
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

/* Callback: reads a value as one of its column's type. */
static void
read_shown(void *arg)
{
	Comparison *c = arg;
	bool		isnull;

	esync_decode_value(c->m->t->row, esync_merge_shape(c->m->t, c->field), c->shown, &c->sent,
					   &isnull);
	c->equal = true;
}

/*
 * Does a column take what its author had before the eyes?  Since then it may have
 * got another type; then its rows were changed, too, and nobody saw that.
 */
static bool
is_taken_still(EsyncMerge *m, int field, const JsonbValue *shown)
{
	Comparison	c = {.m = m, .field = field, .shown = shown};

	for (int i = m->nseen; i < m->events->n; i++)
		if (m->events->e[i].type == ESYNC_BASELINE && esync_merge_sets(m, i, field, NULL))
			return esync_merge_shape(m->t, field) < 0 || compare(&c, read_shown);
	return true;
}

/*
 * An event that changes a member of a group names all members, at the values
 * its author saw; of a row that is made, at their defaults.  A value that the
 * column does not take any more is left out: the row has what became of it.
 */
static void
complete_groups(EsyncMerge *m)
{
	int			n = m->nchanges;

	for (int i = 0; i < n; i++)
	{
		int			group = m->t->fields[m->changes[i].field].group;

		for (int k = 0; group >= 0 && k < m->t->groups[group].nfields; k++)
		{
			int			field = m->t->groups[group].fields[k];
			int			before = m->nchanges;
			EsyncChange *c = change_of(m, field);

			if (m->nchanges == before)
				continue;
			c->name = m->t->fields[field].name;
			(void) shown_value(m, field, NULL, &c->shown);
			c->value = c->shown;
			if (m->creates)
				default_of(m, field, &c->value);
			else if (!is_taken_still(m, field, &c->value))
				m->nchanges--;
		}
	}
}

static int
change_cmp(const void *a, const void *b)
{
	return ((const EsyncChange *) a)->field - ((const EsyncChange *) b)->field;
}

/* Of a column that is merged path by path, only what differs inside was changed. */
static void
split_paths(EsyncMerge *m)
{
	for (int i = 0; i < m->nchanges; i++)
	{
		EsyncChange *c = &m->changes[i];

		if (!m->t->fields[c->field].json_merge || m->creates || c->ops != NULL)
			continue;
		c->ops = esync_paths_diff(&c->shown, &c->value, c->name);
		if (esync_json_count(&c->ops->root) == 0)
			c->ops = NULL;		/* decided though nothing differs: the whole of it */
	}
}

/* Takes the operations of a decision, column by column. */
static void
take_ops(EsyncMerge *m)
{
	EsyncWalk	walk;

	esync_walk_init(&walk, &m->edit->ops->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;
		EsyncChange *c;
		int			field;
		int			n;
		EsyncJson	json;
		EsyncWalk	before;

		if (!esync_paths_read(&walk.value, &op) ||
			(field = esync_merge_field_of_op(m->t, &op, PG_INT64_MAX)) < 0)
			continue;
		c = change_of(m, field);
		c->name = m->t->fields[field].name;
		c->shown.type = c->value.type = jbvNull;
		n = c->ops ? esync_json_count(&c->ops->root) : 0;
		esync_json_init(&json, 256);
		esync_json_open_array(&json, n + 1);
		if (c->ops)
		{
			esync_walk_init(&before, &c->ops->root);
			while (esync_walk_next(&before))
				esync_json_value(&json, &before.value);
		}
		esync_json_value(&json, &walk.value);
		esync_json_close(&json);
		c->ops = esync_json_finish(&json);
	}
}

/*
 * What the author changed.  With `creates` every member that was sent is
 * named.  False: code and message say what is wrong.
 */
bool
esync_merge_changes(EsyncMerge *m, bool creates)
{
	const Jsonb *sent = m->edit->document ? m->edit->document : m->edit->set;
	EsyncWalk	walk;

	m->creates = creates;
	m->changes = palloc((m->t->nfields + 1) * sizeof(EsyncChange));
	m->nchanges = 0;
	if (m->edit->ops)
		take_ops(m);
	if (sent == NULL)
		return true;
	esync_walk_init(&walk, &sent->root);
	while (esync_walk_next(&walk))
		if (!take_member(m, &walk, creates))
			return false;
	complete_groups(m);
	qsort(m->changes, m->nchanges, sizeof(EsyncChange), change_cmp);
	split_paths(m);
	return true;
}

/*
 * Names every column that the author of a creation left out, at its default:
 * what had been there was seen deleted.
 */
void
esync_merge_defaults(EsyncMerge *m)
{
	for (int i = 0; i < m->t->nfields && m->t->fields[i].attnum != 0; i++)
	{
		const EsyncField *f = &m->t->fields[i];
		int			before = m->nchanges;
		EsyncChange *c;

		if (!esync_merge_takes(f) || f->masked || esync_merge_is_key(m->t, i))
			continue;
		c = change_of(m, i);
		if (m->nchanges == before)
			continue;
		c->name = f->name;
		c->shown.type = jbvNull;
		default_of(m, i, &c->value);
	}
	qsort(m->changes, m->nchanges, sizeof(EsyncChange), change_cmp);
}

/* ------------------------------------------------------------------ place */

/*
 * The edit's place on the submit axis: its corrected submit time, but after
 * all that its author had seen, and not after what the same device did later.
 * commit is the server's clock.
 */
void
esync_merge_place(EsyncMerge *m, EsyncEvent *e)
{
	const EsyncEdit *edit = m->edit;
	TimestampTz high = DT_NOBEGIN;
	TimestampTz before = DT_NOEND;

	if (m->nseen > 0)
		high = m->events->e[m->nseen - 1].effective_high;
	for (int i = m->nseen; i < m->events->n; i++)
	{
		const EsyncEvent *x = &m->events->e[i];

		if (esync_merge_own_before(m, x))
			high = Max(high, x->effective);
		if (esync_merge_own_after(m, x))
			before = Min(before, x->effective);
	}
	e->submit = edit->has_submit ? edit->submit : e->commit;
	if (edit->has_submit && edit->submit != edit->submit_raw)
		e->flags |= ESYNC_FLAG_SHIFTED;
	if (e->submit > e->commit)
	{
		e->submit = e->commit;
		e->flags |= ESYNC_FLAG_CLAMPED;
	}
	e->branch = edit->has_branch ? edit->branch : e->submit;
	e->effective = Min(e->submit, before);
	if (high != DT_NOBEGIN && e->effective <= high)
		e->effective = high + 1;
	if (e->effective > e->submit)
		e->flags |= ESYNC_FLAG_BUMPED;
	if (before != DT_NOEND)
		e->flags |= ESYNC_FLAG_OVERTAKEN;
	e->base_version = m->base;
}
