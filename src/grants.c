/*
 * grants.c: which grants on its table an edit needs.
 *
 * The statements that write the row ask for themselves.  Here it is asked for
 * what no statement asks: edits that lose, or that change no row.  Errors name
 * the right that is missing, and the column.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "merge.h"
#include "paths.h"

/* The error of a right that the caller has not, on a column, or NULL: on the table. */
void
esync_grants_deny(const EsyncTracked *t, AclMode right, const char *column)
{
	const char *name = right == ACL_SELECT ? "SELECT" : right == ACL_INSERT ? "INSERT" :
		right == ACL_DELETE ? "DELETE" : "UPDATE";

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 column ? errmsg("permission denied for column \"%s\" of relation \"%s\"", column,
							 t->table_name) :
			 errmsg("permission denied for table %s", t->table_name),
			 errdetail("The right %s is missing.", name)));
}

/* Has the caller a right on the table, or on this column of it? */
static bool
has_right(const EsyncTracked *t, AclMode right, const EsyncField *f)
{
	return pg_class_aclcheck(t->root, GetUserId(), right) == ACLCHECK_OK ||
		pg_attribute_aclcheck(t->root, f->attnum, GetUserId(), right) == ACLCHECK_OK;
}

/* May the caller update any column of the table, and so lock its rows? */
bool
esync_grants_update(const EsyncTracked *t)
{
	return pg_class_aclcheck(t->root, GetUserId(), ACL_UPDATE) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(t->root, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
}

/* Raises unless the caller may read a column. */
static void
check_read(const EsyncTracked *t, const EsyncRights *rights, int field)
{
	if (!esync_rights_field(rights, &t->fields[field]))
		esync_grants_deny(t, ACL_SELECT, t->fields[field].name);
}

/* The same of all that bear, or bore, the names in a document. */
static void
check_names(const EsyncTracked *t, const EsyncRights *rights, const Jsonb *document)
{
	EsyncWalk	walk;

	esync_walk_init(&walk, &document->root);
	while (esync_walk_next(&walk))
		for (int i = 0; i < t->nfields; i++)
			if (esync_field_bore(&t->fields[i], walk.key, walk.keylen))
				check_read(t, rights, i);
}

/* The same of the columns in which operations lie. */
static void
check_ops(const EsyncTracked *t, const EsyncRights *rights, const Jsonb *ops)
{
	EsyncPathOp op;
	EsyncWalk	walk;
	int			field;

	esync_walk_init(&walk, &ops->root);
	while (esync_walk_next(&walk))
		if (esync_paths_read(&walk.value, &op) &&
			(field = esync_merge_field_of_op(t, &op, PG_INT64_MAX)) >= 0)
			check_read(t, rights, field);
}

/*
 * Raises unless the caller may read the key and what the edit names: what
 * becomes of it depends on what is there, and the answer tells.
 */
void
esync_grants_named(const EsyncTracked *t, const EsyncRights *rights, const EsyncEdit *edit)
{
	const Jsonb *named[] = {edit->document, edit->set, edit->base};

	if (rights->table_wide)
		return;
	for (int k = 0; k < t->nkeys; k++)
		check_read(t, rights, t->keyfields[k]);
	for (int i = 0; i < lengthof(named); i++)
		if (named[i])
			check_names(t, rights, named[i]);
	if (edit->ops)
		check_ops(t, rights, edit->ops);
}

/* Raises unless the caller may update what the edit changes, losing or not. */
static void
check_update(const EsyncMerge *m)
{
	if (m->nchanges == 0 && !esync_grants_update(m->t))
		esync_grants_deny(m->t, ACL_UPDATE, NULL);
	for (int i = 0; i < m->nchanges; i++)
	{
		const EsyncField *f = &m->t->fields[m->changes[i].field];

		if (f->attnum != 0 && !esync_merge_is_key(m->t, m->changes[i].field) &&
			!has_right(m->t, ACL_UPDATE, f))
			esync_grants_deny(m->t, ACL_UPDATE, f->name);
	}
}

/* Raises unless the caller may insert the row that the edit makes. */
static void
check_insert(const EsyncMerge *m)
{
	for (int k = 0; k < m->t->nkeys; k++)
	{
		const EsyncField *f = &m->t->fields[m->t->keyfields[k]];

		if (!f->generated && !has_right(m->t, ACL_INSERT, f))
			esync_grants_deny(m->t, ACL_INSERT, f->name);
	}
	for (int i = 0; i < m->t->nfields; i++)
		if (m->intent->set[i] && !has_right(m->t, ACL_INSERT, &m->t->fields[i]))
			esync_grants_deny(m->t, ACL_INSERT, m->t->fields[i].name);
}

/* Raises unless the caller may do to the table what the edit says; found: there is a row. */
void
esync_grants_check(const EsyncMerge *m, bool found)
{
	EsyncEventType type = m->intent->event.type;

	if (m->action == ESYNC_ACT_NOTHING)
		return;
	if (type == ESYNC_DELETED && m->t->tombstone_field < 0)
	{
		if (pg_class_aclcheck(m->t->root, GetUserId(), ACL_DELETE) != ACLCHECK_OK)
			esync_grants_deny(m->t, ACL_DELETE, NULL);
	}
	else if (!found && (type == ESYNC_CREATED || type == ESYNC_RESTORED))
	{
		if (m->action != ESYNC_ACT_INSERT &&
			pg_class_aclcheck(m->t->root, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
			esync_grants_deny(m->t, ACL_INSERT, NULL);
	}
	else
		check_update(m);
	if (m->action == ESYNC_ACT_INSERT)
		check_insert(m);
}
