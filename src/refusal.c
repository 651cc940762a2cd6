/*
 * refusal.c: what a constraint of the table refuses of an edit.
 *
 * An edit that was right where it was made may be one that the row, or the
 * table, of now does not take.  Its fields that the constraint is about are
 * taken out, all of them, for they belong together; the others are applied.
 * The event tells in meta what was refused, and a conflict of kind constraint
 * waits for a person: for each field the value that was refused, and the edit
 * that shows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "nodes/execnodes.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "conflict.h"
#include "merge.h"
#include "paths.h"

/* --------------------------------------------- what a constraint is about */

/* Marks the field that a column of a relation of the tracked table is. */
static void
add_column(const EsyncTracked *t, Oid relid, AttrNumber attnum, bool *about)
{
	char	   *name = attnum > 0 ? get_attname(relid, attnum, true) : NULL;
	int			field;

	if (name == NULL)
		return;
	field = esync_field_at(t->fields, t->nfields, name, strlen(name), PG_INT64_MAX);
	if (field >= 0)
		about[field] = true;
}

/* The same of all columns that an expression reads. */
static void
add_expression(const EsyncTracked *t, Oid relid, Node *expression, bool *about)
{
	Bitmapset  *columns = NULL;
	int			x = -1;

	pull_varattnos(expression, 1, &columns);
	while ((x = bms_next_member(columns, x)) >= 0)
		add_column(t, relid, x + FirstLowInvalidHeapAttributeNumber, about);
}

/* An index: its columns, what it computes, and for which rows it is. */
static void
add_index(const EsyncTracked *t, Oid relid, Oid indexid, bool *about)
{
	Relation	rel = index_open(indexid, AccessShareLock);
	IndexInfo  *info;

	if (rel->rd_index->indrelid == relid)
	{
		info = BuildIndexInfo(rel);
		for (int i = 0; i < info->ii_NumIndexKeyAttrs; i++)
			add_column(t, relid, info->ii_IndexAttrNumbers[i], about);
		add_expression(t, relid, (Node *) info->ii_Expressions, about);
		add_expression(t, relid, (Node *) info->ii_Predicate, about);
	}
	index_close(rel, AccessShareLock);
}

/* The columns in an array of the catalog. */
static void
add_columns(const EsyncTracked *t, Oid relid, HeapTuple tuple, AttrNumber attr, bool *about)
{
	bool		isnull;
	Datum		array = SysCacheGetAttr(CONSTROID, tuple, attr, &isnull);
	Datum	   *columns;
	int			n;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(array), INT2OID, 2, true, TYPALIGN_SHORT, &columns,
					  NULL, &n);
	for (int i = 0; i < n; i++)
		add_column(t, relid, DatumGetInt16(columns[i]), about);
}

/* A constraint; one of another table may be a foreign key to this one. */
static void
add_constraint(const EsyncTracked *t, Oid relid, Oid constraint, bool *about)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->contype == CONSTRAINT_FOREIGN && form->confrelid == t->root)
		add_columns(t, t->root, tuple, Anum_pg_constraint_confkey, about);
	if (form->conrelid == relid && OidIsValid(form->conindid) &&
		form->contype != CONSTRAINT_FOREIGN)
		add_index(t, relid, form->conindid, about);
	else if (form->conrelid == relid)
		add_columns(t, relid, tuple, Anum_pg_constraint_conkey, about);
	ReleaseSysCache(tuple);
}

/* Marks the fields that an error of the server is about; those of the tracked table alone. */
static void
find_fields(const EsyncTracked *t, const ErrorData *error, bool *about)
{
	Oid			schema;
	Oid			relid;
	Oid			constraint;
	EsyncTracked *other;

	if (error->schema_name == NULL || error->table_name == NULL ||
		!OidIsValid(schema = get_namespace_oid(error->schema_name, true)) ||
		!OidIsValid(relid = get_relname_relid(error->table_name, schema)))
		return;
	other = esync_tracked_get(relid);
	if (error->constraint_name &&
		OidIsValid(constraint = get_relation_constraint_oid(relid, error->constraint_name, true)))
		add_constraint(t, other && other->root == t->root ? relid : InvalidOid, constraint, about);
	else if (other == NULL || other->root != t->root)
		return;
	else if (error->constraint_name &&
			 get_rel_relkind(get_relname_relid(error->constraint_name, schema)) == RELKIND_INDEX)
		add_index(t, relid, get_relname_relid(error->constraint_name, schema), about);
	if (error->column_name && other && other->root == t->root)
		add_column(t, relid, get_attnum(relid, error->column_name), about);
}

/* ----------------------------------------------------------- what is refused */

/* The refusal of a field; NULL: it is not refused. */
static EsyncRefusal *
refusal_of(const EsyncMerge *m, int field)
{
	ListCell   *lc;

	foreach(lc, m->refused)
		if (((EsyncRefusal *) lfirst(lc))->field == field)
			return lfirst(lc);
	return NULL;
}

/* Can a field be left out of an edit, and its value be told? */
static bool
may_leave_out(const EsyncMerge *m, int field)
{
	return !m->t->fields[field].masked && field != m->t->tombstone_field &&
		!esync_merge_is_key(m->t, field);
}

/* How many changes say more than which row it is, and that it lives? */
static int
others_than_row(const EsyncMerge *m)
{
	int			n = 0;

	for (int k = 0; k < m->nchanges; k++)
		n += !esync_merge_is_key(m->t, m->changes[k].field) &&
			m->changes[k].field != m->t->tombstone_field;
	return n;
}

/*
 * Notes which fields of the edit an error is about: those of the constraint
 * that the edit sets in the row, and their groups.  False: nobody knows, or
 * nothing would be left of it.
 */
bool
esync_refusal_note(EsyncMerge *m, const ErrorData *error)
{
	const EsyncTracked *t = m->t;
	bool	   *about = palloc0((t->nfields + 1) * sizeof(bool));
	bool	   *out = palloc0((t->nfields + 1) * sizeof(bool));
	int			n = 0;

	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		(m->intent->event.type != ESYNC_UPDATED && m->intent->event.type != ESYNC_CREATED))
		return false;
	find_fields(t, error, about);
	for (int i = 0; i < t->nfields; i++)
		for (int k = 0; k < m->nchanges && about[i] && m->intent->set[i]; k++)
		{
			int			field = m->changes[k].field;

			out[field] |= field == i ||
				(t->fields[i].group >= 0 && t->fields[field].group == t->fields[i].group);
		}
	for (int k = 0; k < m->nchanges; k++)
	{
		EsyncRefusal *r;

		if (!out[m->changes[k].field])
			continue;
		if (!may_leave_out(m, m->changes[k].field))
			return false;
		r = palloc0(sizeof(EsyncRefusal));
		r->field = m->changes[k].field;
		r->constraint = error->constraint_name ? error->constraint_name : "NOT NULL";
		m->refused = lappend(m->refused, r);
		n++;
	}
	return n > 0 && n < others_than_row(m);
}

/* a value that may not be one of its column's type */
typedef struct Attempt
{
	const EsyncMerge *m;
	int			shape;
	const JsonbValue *sent;
} Attempt;

/* Callback: reads the value. */
static void
read_value(void *arg)
{
	const Attempt *a = arg;
	Datum		value;
	bool		isnull;

	esync_decode_value(a->m->t->row, a->shape, a->sent, &value, &isnull);
}

/* May the type have constraints of its own, or in it? */
static bool
may_have_domain(Oid typid)
{
	return get_typtype(typid) != TYPTYPE_BASE || OidIsValid(get_element_type(typid));
}

/*
 * Does the domain of a column refuse a value of an edit that is run with care?
 * Then it is noted, to be taken out of the changes.  Whatever else is wrong with
 * the value is raised.
 */
bool
esync_refusal_by_type(EsyncMerge *m, int field, const JsonbValue *sent)
{
	Attempt		attempt = {m, esync_merge_shape(m->t, field), sent};
	EsyncRefusal *r = refusal_of(m, field);
	ErrorData  *error;

	if (r)
		return r->by_type;		/* it was noted before, and is merged anew */
	if (!m->edit->careful || m->edit->verb == ESYNC_VERB_RESOLVE || attempt.shape < 0 ||
		strcmp(m->t->on_conflict, "reject") == 0 || !may_leave_out(m, field) ||
		!may_have_domain(m->t->fields[field].typid))
		return false;
	if ((error = esync_guard(read_value, &attempt)) == NULL)
		return false;
	if (esync_error_is_fatal(error) ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		ReThrowError(error);
	r = palloc0(sizeof(EsyncRefusal));
	r->field = field;
	r->constraint = error->constraint_name ? error->constraint_name : "NOT NULL";
	r->by_type = true;
	m->refused = lappend(m->refused, r);
	m->type_error = error;
	return true;
}

/* What a domain refused of a group takes the other columns of that with it. */
static void
refuse_groups(EsyncMerge *m)
{
	int			n = list_length(m->refused);

	for (int i = 0; i < n; i++)
	{
		const EsyncRefusal *r = list_nth(m->refused, i);
		int			group = m->t->fields[r->field].group;

		for (int k = 0; r->by_type && group >= 0 && k < m->nchanges; k++)
		{
			EsyncRefusal *other;

			if (m->t->fields[m->changes[k].field].group != group ||
				refusal_of(m, m->changes[k].field))
				continue;
			other = palloc0(sizeof(EsyncRefusal));
			other->field = m->changes[k].field;
			other->constraint = r->constraint;
			m->refused = lappend(m->refused, other);
		}
	}
}

/*
 * Takes what was refused out of the changes.  Where a domain did that and
 * nothing is left, or the event is not one of which a part may go, it is raised.
 */
void
esync_refusal_take_out(EsyncMerge *m, EsyncEventType type)
{
	int			n = 0;

	if (m->refused == NIL)
		return;
	refuse_groups(m);
	for (int i = 0; i < m->nchanges; i++)
	{
		EsyncRefusal *r = refusal_of(m, m->changes[i].field);

		if (r)
			r->change = m->changes[i];
		else
			m->changes[n++] = m->changes[i];
	}
	m->nchanges = n;
	if (m->type_error && (n == 0 || type != ESYNC_UPDATED))
		ReThrowError(m->type_error);
}

/* {"column": {"value": ..., "constraint": ...}, ...}, for the event's meta. */
Jsonb *
esync_refusal_meta(const EsyncMerge *m)
{
	EsyncMember *members = palloc(list_length(m->refused) * sizeof(EsyncMember));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, m->refused)
	{
		const EsyncRefusal *r = lfirst(lc);
		EsyncMember told[2] = {{.key = "value", .keylen = 5}, {.key = "constraint", .keylen = 10}};

		told[0].value = r->change.value;
		told[1].value.type = jbvString;
		told[1].value.val.string.val = (char *) r->constraint;
		told[1].value.val.string.len = strlen(r->constraint);
		members[n].key = m->t->fields[r->field].name;
		members[n].keylen = strlen(members[n].key);
		esync_json_root(esync_json_object(2, told), &members[n++].value);
	}
	return esync_json_object(n, members);
}

/* {"value": ..., "constraint": ...}: what was refused of an event in a field; NULL: nothing. */
static const JsonbContainer *
refused_in(const EsyncTracked *t, const EsyncEvent *e, int field)
{
	JsonbValue	refused;
	EsyncWalk	walk;

	if (e->meta == NULL || !esync_json_member(&e->meta->root, "refused", 7, &refused) ||
		refused.type != jbvBinary || !JsonContainerIsObject(refused.val.binary.data))
		return NULL;
	esync_walk_init(&walk, refused.val.binary.data);
	while (esync_walk_next(&walk))
		if (walk.value.type == jbvBinary && JsonContainerIsObject(walk.value.val.binary.data) &&
			esync_field_at(t->fields, t->nfields, walk.key, walk.keylen, e->event_id) == field)
			return walk.value.val.binary.data;
	return NULL;
}

/*
 * What a constraint refused of an event in a field, and, where asked for, which;
 * false: nothing.
 */
bool
esync_refusal_value(const EsyncTracked *t, const EsyncEvent *e, int field, JsonbValue *value,
					const char **constraint)
{
	const JsonbContainer *refused = refused_in(t, e, field);
	JsonbValue	name;

	if (refused && constraint && esync_json_member(refused, "constraint", 10, &name) &&
		name.type == jbvString)
		*constraint = pnstrdup(name.val.string.val, name.val.string.len);
	return refused && esync_json_member(refused, "value", 5, value);
}

/* ---------------------------------------------------------------- conflicts */

/* What was refused of a group, or of a column by itself, as a document. */
static Jsonb *
refused_value(const EsyncMerge *m, int group, const EsyncRefusal *one)
{
	EsyncMember *members;
	int			n = 0;
	ListCell   *lc;

	if (group < 0)
		return esync_json_from_value(&one->change.value);
	members = palloc(list_length(m->refused) * sizeof(EsyncMember));
	foreach(lc, m->refused)
	{
		const EsyncRefusal *r = lfirst(lc);

		if (m->t->fields[r->field].group != group)
			continue;
		members[n].key = m->t->fields[r->field].name;
		members[n].keylen = strlen(members[n].key);
		members[n++].value = r->change.value;
	}
	return esync_json_object(n, members);
}

/* The event that the row shows in a field; NULL: none of those at hand. */
static const EsyncEvent *
shown_event(const EsyncMerge *m, int field)
{
	int			i = m->after->registers[field].event;

	return i < (m->grounded ? 1 : 0) || i >= m->events->n ? NULL : &m->events->e[i];
}

/* The conflict between what was refused and what the row shows. */
static EsyncClash *
clash_of(EsyncMerge *m, const EsyncRefusal *r, const Jsonb *row)
{
	int			group = m->t->fields[r->field].group;
	const EsyncEvent *shown = shown_event(m, r->field);
	EsyncClash *clash = palloc0(sizeof(EsyncClash));
	EsyncContender *c;

	clash->field = pstrdup(group < 0 ? m->t->fields[r->field].name : m->t->groups[group].name);
	clash->kind = "constraint";
	clash->open = true;
	clash->base_at = m->base;
	clash->contenders = palloc0(2 * sizeof(EsyncContender));
	clash->shown_value = esync_edit_value_in(m->t, row, clash->field);
	if (shown)
	{
		c = &clash->contenders[clash->ncontenders++];
		*c = esync_merge_contender(shown);
		c->value = clash->shown_value;
		c->shown = true;
	}
	c = &clash->contenders[clash->ncontenders++];
	*c = esync_merge_contender(&m->intent->event);
	c->value = refused_value(m, group, r);
	c->constraint = r->constraint;
	return clash;
}

/* Does an event set a column as a whole? */
static bool
sets_column(EsyncMerge *m, int i, int field)
{
	const EsyncEvent *e = &m->events->e[i];
	EsyncWalk	walk;

	if (!m->t->fields[field].json_merge || esync_json_count(&e->patch->root) == 0)
		return esync_merge_sets(m, i, field, NULL);
	esync_walk_init(&walk, &e->patch->root);
	while (esync_walk_next(&walk))
	{
		EsyncPathOp op;

		if (esync_paths_read(&walk.value, &op) && op.len == op.columnlen &&
			esync_merge_op_in_field(m->t, &op, e->event_id, field))
			return true;
	}
	return false;
}

/*
 * Has the same device, by an edit that arrived before this one and was made after
 * it, set the column or meant to?  Then that one is what it has to say.
 */
static bool
is_said_later(EsyncMerge *m, int field)
{
	for (int i = m->nseen; i < m->events->n; i++)
		if (!(m->events->e[i].flags & (ESYNC_FLAG_DERIVED | ESYNC_FLAG_WITHDRAWN)) &&
			esync_merge_own_after(m, &m->events->e[i]) &&
			(sets_column(m, i, field) || refused_in(m->t, &m->events->e[i], field)))
			return true;
	return false;
}

/* Adds the conflicts of what was refused, one a column or group. */
List *
esync_refusal_clashes(EsyncMerge *m, List *list)
{
	Jsonb	   *row;
	ListCell   *lc;
	Bitmapset  *groups = NULL;

	if (m->refused == NIL)
		return list;
	row = esync_edit_row_after(m);
	foreach(lc, m->refused)
	{
		const EsyncRefusal *r = lfirst(lc);
		int			group = m->t->fields[r->field].group;

		if ((group >= 0 && bms_is_member(group, groups)) || is_said_later(m, r->field))
			continue;
		if (group >= 0)
			groups = bms_add_member(groups, group);
		list = lappend(list, clash_of(m, r, row));
	}
	return list;
}

/* --------------------------------------------------------------- after an undo */

/* a conflict about what was refused, open or closed */
typedef struct Waiting
{
	EsyncPlace	place;
	int64		conflict_id;
	int64		closed_by;		/* the event that closed it; 0: it is open */
	int			n;
	int64	   *events;			/* that were refused */
} Waiting;

/* those of one row */
typedef struct Reading
{
	const EsyncTracked *t;
	MemoryContext cxt;
	List	   *rows;			/* of Waiting * */
} Reading;

/* Callback: keeps what a conflict is about, and of whom. */
static bool
keep_waiting(EsyncConflict *conflict, void *arg)
{
	Reading    *r = arg;
	MemoryContext old = MemoryContextSwitchTo(r->cxt);
	Waiting    *w = palloc0(sizeof(Waiting));
	int			n;
	EsyncLedgerContender *all = esync_ledger_contenders(conflict, &n);

	w->events = palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		if (all[i].constraint.type != jbvNull)
			w->events[w->n++] = all[i].event_id;
	w->place = esync_ledger_place(r->t, conflict->field, conflict->opened_event);
	w->conflict_id = conflict->conflict_id;
	w->closed_by = conflict->open ? 0 : conflict->resolved_event;
	if (w->n > 0)
		r->rows = lappend(r->rows, w);
	MemoryContextSwitchTo(old);
	return true;
}

/* Did a policy decide, by meta?  It answers nothing that was refused but what it names. */
static bool
is_policys(const Jsonb *meta)
{
	JsonbValue	policy;

	return meta != NULL && esync_json_member(&meta->root, "policy", 6, &policy);
}

/* Is an event, which is no undo, one that counts? */
static bool
counts(const EsyncMerge *m, int i)
{
	return i >= 0 && !(m->events->e[i].flags & ESYNC_FLAG_WITHDRAWN) &&
		esync_event_undoes(&m->events->e[i]) == 0;
}

/* Was a conflict about event x's refused value closed, or named, by an event that counts? */
static bool
is_decided(EsyncMerge *m, int x, int field, const List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		const Waiting *w = lfirst(lc);
		bool		held = false;

		for (int i = 0; i < w->n; i++)
			held |= w->events[i] == m->events->e[x].event_id;
		if (!held || !esync_ledger_covers(m->t, &w->place, field))
			continue;
		if (w->closed_by && counts(m, esync_withdraw_find(m->events, w->closed_by)))
			return true;
		for (int i = x + 1; i < m->events->n; i++)
			if (counts(m, i) && esync_ledger_is_named(&m->events->e[i], w->conflict_id))
				return true;
	}
	return false;
}

/* Does an open conflict tell of event x's refused value in a field? */
static bool
is_open(const EsyncMerge *m, int x, int field, const List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		const Waiting *w = lfirst(lc);

		for (int i = 0; i < w->n; i++)
			if (w->closed_by == 0 && w->events[i] == m->events->e[x].event_id &&
				esync_ledger_covers(m->t, &w->place, field))
				return true;
	}
	return false;
}

/* Does event i count again by the undo at hand, which takes an undo back? */
static bool
comes_back(const EsyncMerge *m, int i)
{
	int64		id = m->edit->undoes;
	bool		back = false;

	for (int k; id != 0 && (k = esync_withdraw_find(m->events, id)) >= 0; back = !back)
	{
		if (k == i)
			return back;
		id = esync_event_undoes(&m->events->e[k]);
	}
	return false;
}

/*
 * Did the policy drop what was refused of event x in a field when event i set it,
 * whose author had not seen that?  While a conflict is open about it, only an event
 * that counts again has anything to say: under another policy it may have dropped
 * nothing.
 */
static bool
is_dropped(EsyncMerge *m, int x, int i, int field, const List *rows)
{
	const EsyncEvent *e = &m->events->e[i];

	if (i <= x || e->type == ESYNC_RESOLVED || (e->flags & ESYNC_FLAG_DERIVED) ||
		(is_open(m, x, field, rows) && !comes_back(m, i)))
		return false;
	for (int k = 0; k < i; k++)
		if (refused_in(m->t, &m->events->e[k], field) &&
			!esync_policy_drops(m->t, &m->events->e[k], e))
			return false;
	return true;
}

/*
 * Does what was refused of event x in a field wait: did nobody who had seen it set
 * the field, or mean to, nor anybody set it by whom the policy drops it?
 */
static bool
waits(EsyncMerge *m, int x, int field, const List *rows)
{
	EsyncContender refused = esync_merge_contender(&m->events->e[x]);

	if (!counts(m, x) || refused_in(m->t, &m->events->e[x], field) == NULL)
		return false;
	for (int i = 0; i < m->events->n; i++)
	{
		EsyncContender c = esync_merge_contender(&m->events->e[i]);
		bool		seen = esync_merge_seen(&c, &refused);

		if (i == x || !counts(m, i) || c.nobodys ||
			!(sets_column(m, i, field) || (seen && refused_in(m->t, &m->events->e[i], field))))
			continue;
		if (seen ?
			!(c.type == ESYNC_RESOLVED && is_policys(m->events->e[i].meta)) :
			is_dropped(m, x, i, field, rows))
			return false;
	}
	return !is_decided(m, x, field, rows);
}

/* What was refused of event x, as a contender. */
static EsyncContender
refused_contender(const EsyncMerge *m, int x, int field)
{
	const EsyncTracked *t = m->t;
	const EsyncEvent *e = &m->events->e[x];
	EsyncContender c = esync_merge_contender(e);
	int			group = t->fields[field].group;
	JsonbValue	value;

	(void) esync_json_member(refused_in(t, e, field), "constraint", 10, &value);
	c.constraint = pnstrdup(value.val.string.val, value.val.string.len);
	if (group >= 0)
	{
		EsyncMember *members = palloc(t->groups[group].nfields * sizeof(EsyncMember));
		int			n = 0;

		for (int i = 0; i < t->groups[group].nfields; i++)
			if (esync_refusal_value(t, e, t->groups[group].fields[i], &value, NULL))
				members[n++] = esync_json_pair(t->fields[t->groups[group].fields[i]].name, value);
		c.value = esync_json_object(n, members);
	}
	else if (esync_refusal_value(t, e, field, &value, NULL))
		c.value = esync_json_from_value(&value);
	return c;
}

static int
contender_cmp(const void *a, const void *b)
{
	int64		x = ((const EsyncContender *) a)->event_id;
	int64		y = ((const EsyncContender *) b)->event_id;

	return x < y ? -1 : x > y;
}

/* What waits in a column, or its group, with what the row shows; or that nothing does. */
static EsyncClash *
waiting_in(EsyncMerge *m, int field, const List *rows, const Jsonb *row)
{
	int			group = m->t->fields[field].group;
	const EsyncEvent *shown = shown_event(m, field);
	EsyncClash *clash = palloc0(sizeof(EsyncClash));

	clash->field = pstrdup(group < 0 ? m->t->fields[field].name : m->t->groups[group].name);
	clash->kind = "constraint";
	clash->base_at = PG_INT64_MAX;
	clash->contenders = palloc0((m->events->n + 1) * sizeof(EsyncContender));
	clash->shown_value = esync_edit_value_in(m->t, row, clash->field);
	for (int i = 0; i < m->events->n; i++)
	{
		if (!waits(m, i, field, rows))
			continue;
		clash->open = true;
		clash->base_at = Min(clash->base_at, m->events->e[i].base_version);
		clash->contenders[clash->ncontenders++] = refused_contender(m, i, field);
	}
	if (shown && counts(m, shown - m->events->e) && shown->version > clash->base_at)
	{
		EsyncContender *c = &clash->contenders[clash->ncontenders++];

		*c = esync_merge_contender(shown);
		c->value = clash->shown_value;
		c->shown = true;
		qsort(clash->contenders, clash->ncontenders, sizeof(EsyncContender), contender_cmp);
	}
	return clash;
}

/*
 * An event is undone: adds what waits of all that was refused, of events that
 * count, one a column or group.
 */
List *
esync_refusal_undone(EsyncMerge *m, List *list)
{
	Reading		reading = {m->t, CurrentMemoryContext, NIL};
	Bitmapset  *groups = NULL;
	Jsonb	   *row = NULL;

	for (int f = 0; f < m->t->nfields; f++)
	{
		int			group = m->t->fields[f].group;
		bool		any = false;

		for (int i = 0; i < m->events->n && !any; i++)
			any = refused_in(m->t, &m->events->e[i], f) != NULL;
		if (!any || m->t->fields[f].attnum == 0 || (group >= 0 && bms_is_member(group, groups)))
			continue;
		if (group >= 0)
			groups = bms_add_member(groups, group);
		if (reading.rows == NIL)
			esync_ledger_each(m->t->table_id, m->aggregate_id, ESYNC_LEDGER_ALL, 0, SnapshotSelf,
							  keep_waiting, &reading);
		if (row == NULL)
			row = esync_edit_row_after(m);
		list = lappend(list, waiting_in(m, f, reading.rows, row));
	}
	return list;
}

/* ------------------------------------------------------ what goes on waiting */

/* Is a column the one of that name, or of that group? */
static bool
is_called(const EsyncTracked *t, int field, const char *name)
{
	const EsyncField *f = &t->fields[field];

	return strcmp(f->group < 0 ? f->name : t->groups[f->group].name, name) == 0;
}

/* Was something of event i, which the author at hand had not seen, refused in a column or group? */
bool
esync_refusal_unseen(const EsyncMerge *m, int i, const char *field)
{
	const EsyncEvent *e = &m->events->e[i];
	JsonbValue	value;

	if (i < m->nseen || e->meta == NULL || esync_merge_own_before(m, e))
		return false;
	for (int f = 0; f < m->t->nfields; f++)
		if (is_called(m->t, f, field) && esync_refusal_value(m->t, e, f, &value, NULL))
			return true;
	return false;
}

/* The edit that the row shows in a column or group after this one; NULL: none at hand. */
static EsyncContender *
showing(const EsyncMerge *m, const char *name)
{
	EsyncContender *c = palloc(sizeof(EsyncContender));

	for (int f = 0; f < m->t->nfields; f++)
	{
		const EsyncEvent *shown;

		if (!is_called(m->t, f, name))
			continue;
		shown = m->after->registers[f].event == m->events->n ? &m->intent->event :
			shown_event(m, f);
		if (shown == NULL)
			return NULL;
		*c = esync_merge_contender(shown);
		return c;
	}
	return NULL;
}

/*
 * Where what was refused before goes on waiting, since the author at hand had
 * not seen it, the ledger is to tell what the row shows now.
 */
void
esync_refusal_tell_shown(EsyncMerge *m)
{
	Jsonb	   *row = NULL;
	ListCell   *lc;

	foreach(lc, m->intent->clashes)
	{
		EsyncClash *clash = lfirst(lc);
		bool		waits = clash->field && m->edit->verb == ESYNC_VERB_RESOLVE &&
			is_policys(m->edit->meta);

		for (int i = m->nseen; clash->field && i < m->events->n && !waits; i++)
			waits = esync_refusal_unseen(m, i, clash->field);
		if (!waits || (clash->kind && strcmp(clash->kind, "constraint") == 0) ||
			(clash->showing = showing(m, clash->field)) == NULL)
			continue;
		if (row == NULL)
			row = esync_edit_row_after(m);
		clash->showing->value = esync_edit_value_in(m->t, row, clash->field);
		clash->showing->shown = true;
	}
}
