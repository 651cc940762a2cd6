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
#include "nodes/execnodes.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "merge.h"

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
	return n > 0 && n < m->nchanges;
}

/* Takes what was refused out of the changes. */
void
esync_refusal_take_out(EsyncMerge *m)
{
	int			n = 0;

	if (m->refused == NIL)
		return;
	for (int i = 0; i < m->nchanges; i++)
	{
		EsyncRefusal *r = refusal_of(m, m->changes[i].field);

		if (r)
			r->change = m->changes[i];
		else
			m->changes[n++] = m->changes[i];
	}
	m->nchanges = n;
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

/* What a constraint refused of an event in a field; false: nothing. */
bool
esync_refusal_value(const EsyncTracked *t, const EsyncEvent *e, int field, JsonbValue *value)
{
	JsonbValue	refused;
	EsyncWalk	walk;

	if (e->meta == NULL || !esync_json_member(&e->meta->root, "refused", 7, &refused) ||
		refused.type != jbvBinary || !JsonContainerIsObject(refused.val.binary.data))
		return false;
	esync_walk_init(&walk, refused.val.binary.data);
	while (esync_walk_next(&walk))
		if (walk.value.type == jbvBinary && JsonContainerIsObject(walk.value.val.binary.data) &&
			esync_field_at(t->fields, t->nfields, walk.key, walk.keylen, e->event_id) == field)
			return esync_json_member(walk.value.val.binary.data, "value", 5, value);
	return false;
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

/* Adds the conflicts of what was refused, one a column or group. */
List *
esync_refusal_clashes(EsyncMerge *m, List *list)
{
	Jsonb	   *row;
	ListCell   *lc;
	Bitmapset  *groups = NULL;

	if (m->refused == NIL)
		return list;
	row = esync_fold_state(m->after, true);
	foreach(lc, m->refused)
	{
		const EsyncRefusal *r = lfirst(lc);
		int			group = m->t->fields[r->field].group;

		if (group >= 0 && bms_is_member(group, groups))
			continue;
		if (group >= 0)
			groups = bms_add_member(groups, group);
		list = lappend(list, clash_of(m, r, row));
	}
	return list;
}
