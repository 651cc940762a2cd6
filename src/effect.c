/*
 * effect.c: what one event means for somebody who follows the changes of a
 * table: whether it is told, and the values to be written after the merge.
 *
 * The payload of an event is the row after the merge, so what the event set is
 * compared with what came of it; only where no payload is stored the events of
 * the row are folded.  Rights are those of now: grants decide over columns,
 * policies over rows, asked once a row and page.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changes.h"
#include "conflict.h"
#include "merge.h"
#include "paths.h"

/* of so many rows it is remembered what was asked; then all are forgotten */
#define MAX_SIGHTS 32768

/* set and patch of more bytes are too much for one answer; jsonb ends at 256 MB */
#define MAX_CHANGE (250 * 1024 * 1024)

/* an open conflict of a row */
typedef struct OpenConflict
{
	char	   *name;			/* NULL: the row as a whole */
	EsyncPlace	place;
	int64		opened_event;
	int			n;
	int64	   *contenders;
} OpenConflict;

/* what was asked of a row */
typedef struct EsyncRowSight
{
	text	   *aggregate_id;	/* the key of the hash */
	uint32		hash;
	char		status;			/* of the place, for simplehash.h */
	bool		asked;			/* whether policies show it */
	bool		visible;
	int64		gone;			/* its last version that left no row */
	bool		conflicts_asked;
	List	   *conflicts;		/* of OpenConflict */
} EsyncRowSight;

/* the row after an event, when it is needed */
typedef struct After
{
	EsyncSource *s;
	EsyncEvent *e;
	bool		known;
	Jsonb	   *row;			/* NULL: none */
	int64		names_at;		/* columns are called as at this event */
} After;

/* ------------------------------------------------------------- rows of a page */

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Is it the same, where NULL is nobody's? */
static bool
is_same(const text *a, const text *b)
{
	return a != NULL && b != NULL && same_text(a, b);
}

static uint32
hash_text(const text *t)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

#define SH_PREFIX		sights
#define SH_ELEMENT_TYPE	EsyncRowSight
#define SH_KEY_TYPE		text *
#define SH_KEY			aggregate_id
#define SH_HASH_KEY(tb, key)	hash_text(key)
#define SH_EQUAL(tb, a, b)		same_text(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)		(a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * The row's place among those asked about, good until the next call.  A page may
 * look at any number of rows that are hidden, so old places are given up.
 */
static EsyncRowSight *
sight_of_row(EsyncSource *s, text *aggregate_id)
{
	EsyncRowSight *sight;
	text	   *copy;
	bool		found;

	if (s->sight_cxt == NULL)
		s->sight_cxt = AllocSetContextCreate(s->cxt, "esync rows asked about",
											 ALLOCSET_DEFAULT_SIZES);
	if (s->sights != NULL && s->sights->members >= MAX_SIGHTS)
	{
		MemoryContextReset(s->sight_cxt);
		s->sights = NULL;
	}
	if (s->sights == NULL)
		s->sights = sights_create(s->sight_cxt, 256, NULL);
	sight = sights_insert(s->sights, aggregate_id, &found);
	if (found)
		return sight;
	copy = MemoryContextAlloc(s->sight_cxt, VARSIZE_ANY(aggregate_id));
	memcpy(copy, aggregate_id, VARSIZE_ANY(aggregate_id));
	sight->aggregate_id = copy;
	sight->asked = sight->visible = sight->conflicts_asked = false;
	sight->gone = 0;
	sight->conflicts = NIL;
	return sight;
}

/*
 * Do row policies show the caller the row to which this version belongs?  What
 * was before its last deletion may have been another's.
 */
static bool
is_shown(EsyncSource *s, const EsyncEvent *e)
{
	EsyncRowSight *sight = sight_of_row(s, e->aggregate_id);

	if (!sight->asked)
	{
		Datum	   *key = palloc(s->t->nkeys * sizeof(Datum));

		sight->visible = esync_key_values(s->t, sight->aggregate_id, key) &&
			esync_rights_row(s->t, &s->rights, key);
		if (sight->visible)
			sight->gone = esync_stream_life(s->t, sight->aggregate_id, GetActiveSnapshot());
		sight->asked = true;
	}
	return sight->visible && e->version > sight->gone;
}

/* ---------------------------------------------------------------- is it told? */

/* Does the event's patch set the column by which tenants are told apart? */
static bool
sets_tenant(const EsyncTracked *t, const EsyncEvent *e)
{
	EsyncPathOp op;
	EsyncWalk	walk;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op) &&
			esync_merge_op_in_field(t, &op, e->event_id, t->tenant_field))
			return true;
	return false;
}

/*
 * What a tenant is told: its own rows; of one that comes the whole, of one
 * that leaves that it is gone.  An event of a row that is gone has no tenant
 * of its own.
 */
static EsyncFate
fate_for_tenant(EsyncSource *s, const EsyncAsked *asked, const EsyncEvent *e)
{
	bool		mine = is_same(e->tenant, asked->tenant);
	bool		was;
	bool		row;

	if (s->t->tenant_field < 0)
		return mine ? ESYNC_TELL_SET : ESYNC_TELL_NOTHING;
	if (e->tenant == NULL && e->row_xmin == InvalidTransactionId)
		return is_same(esync_leaf_tenant_before(&s->reader, e->aggregate_id, e->version, NULL),
					   asked->tenant) ? ESYNC_TELL_SET : ESYNC_TELL_NOTHING;
	/* a creation may have met a row that was there; it does not name what it left as it was */
	if (e->version == 1 || (e->type != ESYNC_CREATED && !sets_tenant(s->t, e)))
		return mine ? ESYNC_TELL_SET : ESYNC_TELL_NOTHING;
	was = is_same(esync_leaf_tenant_before(&s->reader, e->aggregate_id, e->version, &row),
				  asked->tenant);
	if (e->type == ESYNC_CREATED && !row)
		was = false;			/* it was told that it is gone */
	if (mine)
		return was ? ESYNC_TELL_SET : ESYNC_TELL_ROW;
	return was ? ESYNC_TELL_GONE : ESYNC_TELL_NOTHING;
}

/*
 * How much of an event the caller is told.  Where policies apply, a row that is
 * shown is told as a whole with each event: what a policy looks at may be another
 * row, or a setting, so nobody can say whether the caller saw the row before.
 */
EsyncFate
esync_effect_fate(EsyncSource *s, const EsyncAsked *asked, EsyncEvent *e)
{
	EsyncFate	fate = ESYNC_TELL_SET;

	if (is_same(e->device_id, asked->device_id) &&
		!(e->flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_FOLLOWING)))
		return ESYNC_TELL_NOTHING;
	if (asked->tenant != NULL)
		fate = fate_for_tenant(s, asked, e);
	if (fate == ESYNC_TELL_NOTHING || fate == ESYNC_TELL_GONE || !s->rights.rls)
		return fate;
	if (is_shown(s, e))
		return ESYNC_TELL_ROW;
	/* before its first event nobody could have held it */
	return e->version == 1 ? ESYNC_TELL_NOTHING : ESYNC_TELL_GONE;
}

/* --------------------------------------------------------- what came of it */

/* May the caller be told values of this field? */
static bool
is_told(const EsyncSource *s, const EsyncField *f)
{
	return f->attnum != 0 && !f->excluded && !f->masked && esync_rights_field(&s->rights, f);
}

/* Does the event tell of a row as a whole? */
static bool
tells_whole(const EsyncEvent *e)
{
	JsonbValue	deleted;

	switch (e->type)
	{
		case ESYNC_CREATED:
		case ESYNC_RESTORED:
			return true;
		case ESYNC_BASELINE:
			return !(e->flags & ESYNC_FLAG_DRIFT) || esync_json_count(&e->patch->root) == 0 ||
				(e->meta != NULL &&
				 esync_json_member(&e->meta->root, "deleted", 7, &deleted));
		case ESYNC_RESOLVED:
			return esync_event_life(e) > 0;
		default:
			return false;
	}
}

/* The row after the event: its payload, or else its events folded. */
static void
find_row(After *a)
{
	if (a->known)
		return;
	a->known = true;
	a->row = esync_event_payload(a->e);
	a->names_at = a->e->event_id;
	if (a->row == NULL)
	{
		a->row = esync_replay_at(a->s->t, a->e->aggregate_id, a->e->version,
								 GetActiveSnapshot());
		a->names_at = PG_INT64_MAX;
	}
}

/* What a field was called at an event; NULL: it was not there. */
static const char *
name_at(const EsyncField *f, int64 event_id)
{
	for (int k = f->nnames - 1; k >= 0; k--)
		if (f->names[k].from_event <= event_id)
			return f->names[k].name;
	return NULL;
}

/* What a row, called by names of some event, holds in a field. */
static void
value_in(const EsyncField *f, const Jsonb *row, int64 names_at, JsonbValue *value)
{
	const char *name = names_at == PG_INT64_MAX ? f->name : name_at(f, names_at);

	if (row != NULL && name != NULL &&
		esync_json_member(&row->root, name, strlen(name), value))
		return;
	value->type = jbvNull;
	if (f->fill != NULL)
		esync_json_root(f->fill, value);
}

/* The whole row as the caller may see it, under the names of now. */
static Jsonb *
whole_row(After *a)
{
	const EsyncTracked *t = a->s->t;
	EsyncMember *members = palloc(Max(t->nfields, 1) * sizeof(EsyncMember));
	int			n = 0;

	find_row(a);
	for (int i = 0; i < t->nfields && t->fields[i].attnum != 0; i++)
	{
		const EsyncField *f = &t->fields[i];

		if (!is_told(a->s, f))
			continue;
		members[n].key = f->name;
		members[n].keylen = strlen(f->name);
		value_in(f, a->row, a->names_at, &members[n++].value);
	}
	return esync_json_object(n, members);
}

/* what an event says of one field */
typedef struct Said
{
	bool		whole;			/* it was set as a whole, last to */
	JsonbValue	value;
	bool		inside;			/* places inside of it were set */
} Said;

/* Does everything that the event says show, since its author had seen all else? */
static bool
shows_all(const EsyncEvent *e)
{
	return e->effective == e->effective_high && e->base_version >= e->version - 1 &&
		(e->flags & (ESYNC_FLAG_NO_ROW | ESYNC_FLAG_OVERTAKEN)) == 0;
}

/*
 * The value that the row took in a field through the event; false where it
 * took none.  Of a column that is merged inside, whether it changed tells.
 */
static bool
took(After *a, int field, const Said *said, bool all, JsonbValue *value)
{
	const EsyncField *f = &a->s->t->fields[field];
	JsonbValue	before;

	*value = said->value;
	if (all && !said->inside)
		return true;
	find_row(a);
	value_in(f, a->row, a->names_at, value);
	if (all || (said->whole && !said->inside && esync_json_equal(value, &said->value, true)))
		return true;
	if (!said->inside && !f->json_merge)
		return false;
	value_in(f, esync_replay_at(a->s->t, a->e->aggregate_id, a->e->version - 1,
								GetActiveSnapshot()), PG_INT64_MAX, &before);
	return !esync_json_equal(value, &before, true);
}

/* What the event says, field by field. */
static Said *
read_patch(const EsyncTracked *t, const EsyncEvent *e)
{
	Said	   *said = palloc0((t->nfields + 1) * sizeof(Said));
	EsyncPathOp op;
	EsyncWalk	walk;

	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		int			field;

		if (!esync_paths_read(&walk.value, &op))
			continue;
		field = esync_merge_field_of_op(t, &op, e->event_id);
		if (field < 0)
			continue;
		if (op.columnlen < op.len)
			said[field].inside = true;
		else
		{
			said[field].whole = true;
			said[field].value = op.value;
		}
	}
	return said;
}

/* Adds a field to those that are told. */
static void
add_field(const EsyncField *f, const JsonbValue *value, EsyncMember *members, int *n)
{
	members[*n].key = f->name;
	members[*n].keylen = strlen(f->name);
	members[(*n)++].value = *value;
}

/*
 * Those of the event's fields whose value the row took, and with them the
 * columns that last_modified keeps: also where the row took nothing but what the
 * caller is not told.
 */
static Jsonb *
fields_set(After *a)
{
	const EsyncTracked *t = a->s->t;
	Said	   *said = read_patch(t, a->e);
	EsyncMember *members = palloc(Max(t->nfields, 1) * sizeof(EsyncMember));
	bool		all = shows_all(a->e);
	bool		any = false;
	JsonbValue	value;
	int			n = 0;

	for (int i = 0; i < t->nfields; i++)
	{
		bool		told = is_told(a->s, &t->fields[i]);

		if (!(said[i].whole || said[i].inside) || (!told && (any || t->nstamps == 0)) ||
			!took(a, i, &said[i], all, &value))
			continue;
		any = true;
		if (told)
			add_field(&t->fields[i], &value, members, &n);
	}
	for (int i = 0; any && t->nstamps > 0 && i < t->nfields; i++)
		if (t->fields[i].stamp && is_told(a->s, &t->fields[i]))
		{
			find_row(a);
			value_in(&t->fields[i], a->row, a->names_at, &value);
			add_field(&t->fields[i], &value, members, &n);
		}
	return esync_json_object(n, members);
}

/* The values to write after this event. */
static Jsonb *
effective_set(EsyncSource *s, const EsyncAsked *asked, EsyncEvent *e, bool whole)
{
	After		a = {.s = s, .e = e};

	if (e->flags & ESYNC_FLAG_DELETED)
		return esync_json_object(0, NULL);
	if (whole || asked->rows || tells_whole(e))
		return whole_row(&a);
	return fields_set(&a);
}

/* ----------------------------------------------------------------- conflicts */

/* Callback: is there any? */
static bool
note_any(EsyncConflict *c, void *arg)
{
	*(bool *) arg = true;
	return false;
}

/* a row's conflicts while they are gathered */
typedef struct Gathering
{
	EsyncSource *s;
	EsyncRowSight *sight;
} Gathering;

/* Callback: keeps an open conflict that the caller may read. */
static bool
keep_conflict(EsyncConflict *c, void *arg)
{
	Gathering  *g = arg;
	const EsyncTracked *t = g->s->t;
	EsyncPlace	place = esync_ledger_place(t, c->field, c->opened_event);
	EsyncLedgerContender *contenders;
	OpenConflict *open;
	MemoryContext old;
	int			n;

	if (!c->open || !esync_ledger_readable(t, &g->s->rights, &place))
		return true;
	contenders = esync_ledger_contenders(c, &n);
	old = MemoryContextSwitchTo(g->s->sight_cxt);
	open = palloc(sizeof(OpenConflict));
	open->place = esync_ledger_place(t, c->field, c->opened_event);
	open->name = esync_ledger_name(t, c, &open->place);
	open->opened_event = c->opened_event;
	open->n = n;
	open->contenders = palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		open->contenders[i] = contenders[i].event_id;
	g->sight->conflicts = lappend(g->sight->conflicts, open);
	MemoryContextSwitchTo(old);
	return true;
}

/* The open conflicts of a row. */
static List *
conflicts_of(EsyncSource *s, const EsyncEvent *e)
{
	EsyncRowSight *sight;

	if (!s->conflicts_known)
	{
		esync_ledger_each(s->t->table_id, NULL, ESYNC_LEDGER_OPEN, 0, GetActiveSnapshot(),
						  note_any, &s->conflicts);
		s->conflicts_known = true;
	}
	if (!s->conflicts)
		return NIL;
	sight = sight_of_row(s, e->aggregate_id);
	if (!sight->conflicts_asked)
	{
		Gathering	g = {s, sight};

		esync_ledger_each(s->t->table_id, sight->aggregate_id, ESYNC_LEDGER_OPEN, 0,
						  GetActiveSnapshot(), keep_conflict, &g);
		sight->conflicts_asked = true;
	}
	return sight->conflicts;
}

/*
 * Is a decision, or an undo, about what the conflict is about?  An undo may have
 * opened it again.
 */
static bool
decides(EsyncSource *s, const OpenConflict *c, const EsyncEvent *e)
{
	EsyncPathOp op;
	EsyncWalk	walk;

	if (e->type != ESYNC_RESOLVED)
		return false;
	if (c->place.row)
		return esync_event_life(e) != 0;
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		int			field = esync_paths_read(&walk.value, &op) ?
			esync_merge_field_of_op(s->t, &op, e->event_id) : -1;

		if (field >= 0 && esync_ledger_covers(s->t, &c->place, field))
			return true;
	}
	return false;
}

/*
 * Does the conflict concern who is told of the event: is it one of those between
 * which it lies, the one that opened it, or one that was to decide it?
 */
static bool
is_party(EsyncSource *s, const OpenConflict *c, const EsyncEvent *e)
{
	if (c->opened_event == e->event_id)
		return true;
	for (int i = 0; i < c->n; i++)
		if (c->contenders[i] == e->event_id)
			return true;
	return decides(s, c, e);
}

/* The names of the open conflicts in which the event stands, as an array. */
static void
put_conflicts(EsyncJson *json, EsyncSource *s, const EsyncEvent *e)
{
	List	   *conflicts = conflicts_of(s, e);
	int			n = 0;
	ListCell   *lc;

	foreach(lc, conflicts)
		n += is_party(s, lfirst(lc), e);
	esync_json_open_array(json, n);
	foreach(lc, conflicts)
	{
		const OpenConflict *c = lfirst(lc);

		if (!is_party(s, c, e))
			continue;
		if (c->name)
			esync_json_string(json, c->name, strlen(c->name));
		else
			esync_json_null(json);
	}
	esync_json_close(json);
}

/* ---------------------------------------------------------------- the change */

static void
put_text(EsyncJson *json, const text *value)
{
	if (value)
		esync_json_string(json, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	else
		esync_json_null(json);
}

static void
put_string(EsyncJson *json, const char *value)
{
	esync_json_string(json, value, strlen(value));
}

static void
put_document(EsyncJson *json, const Jsonb *value)
{
	JsonbValue	v = {.type = jbvNull};

	if (value)
		esync_json_root(value, &v);
	esync_json_value(json, &v);
}

static void
put_time(EsyncJson *json, TimestampTz at)
{
	JsonbValue	v;

	esync_json_time(at, &v);
	esync_json_value(json, &v);
}

/* Opens an object with these keys, which stand in stored order. */
static void
open_with(EsyncJson *json, const char *const *keys, int n)
{
	esync_json_init(json, 1024);
	esync_json_open_object(json, n);
	for (int i = 0; i < n; i++)
		esync_json_key(json, keys[i], strlen(keys[i]));
}

/* What is told of a row that is not there for the caller. */
static Jsonb *
gone_change(EsyncSource *s, EsyncEvent *e)
{
	static const char *const keys[] = {"key", "set", "table", "deleted", "version", "conflict",
	"event_id", "event_type", "aggregate_id", "aggregate_type"};
	EsyncJson	json;

	open_with(&json, keys, lengthof(keys));
	put_document(&json, esync_key_object_if_any(s->t, e->aggregate_id));
	put_document(&json, esync_json_object(0, NULL));
	put_string(&json, s->name);
	esync_json_bool(&json, true);
	esync_json_int64(&json, e->version);
	esync_json_open_array(&json, 0);
	esync_json_close(&json);
	esync_json_int64(&json, e->event_id);
	put_string(&json, esync_event_type_name(ESYNC_DELETED));
	put_text(&json, e->aggregate_id);
	put_string(&json, s->t->aggregate_type);
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* One element of "changes"; fate is of esync_effect_fate, and says that there is one. */
Jsonb *
esync_effect_change(EsyncSource *s, const EsyncAsked *asked, EsyncEvent *e, EsyncFate fate)
{
	static const char *const keys[] = {"key", "set", "patch", "table", "deleted", "user_id",
		"version", "conflict", "event_id", "device_id", "event_type", "aggregate_id",
		"aggregate_type", "branch_timestamp", "commit_timestamp", "submit_timestamp",
	"effective_timestamp"};
	EsyncJson	json;
	Jsonb	   *set;
	Jsonb	   *patch;

	if (fate == ESYNC_TELL_GONE)
		return gone_change(s, e);
	set = effective_set(s, asked, e, fate == ESYNC_TELL_ROW);
	patch = esync_rights_filter(s->t, &s->rights, e->patch, true, e->event_id);
	if ((Size) VARSIZE(set) + VARSIZE(patch) > MAX_CHANGE)
		patch = NULL;			/* or nobody would get beyond this event */
	open_with(&json, keys, lengthof(keys));
	put_document(&json, esync_key_object_if_any(s->t, e->aggregate_id));
	put_document(&json, set);
	put_document(&json, patch);
	put_string(&json, s->name);
	esync_json_bool(&json, (e->flags & ESYNC_FLAG_DELETED) != 0);
	put_text(&json, e->user_id);
	esync_json_int64(&json, e->version);
	put_conflicts(&json, s, e);
	esync_json_int64(&json, e->event_id);
	put_text(&json, e->device_id);
	put_string(&json, esync_event_type_name(e->type));
	put_text(&json, e->aggregate_id);
	put_string(&json, s->t->aggregate_type);
	put_time(&json, e->branch);
	put_time(&json, e->commit);
	put_time(&json, e->submit);
	put_time(&json, e->effective);
	esync_json_close(&json);
	return esync_json_finish(&json);
}
