/*
 * lineage.c: the fields of a tracked table through renames and restores.
 *
 * A field is a column with all names it ever had.  esync.tracked_column says
 * which column (attnum) bore which name from which event on, per life: an
 * epoch of the database and the OID of the table in it.  From one life to the
 * next a field is followed by its name.  The present catalog is laid over
 * what is recorded, so that a rename shows before any event was written under
 * the new name.  A name that is empty says that the column was dropped.
 *
 * Nothing here opens or locks the tracked table: a writer who holds a lock on
 * a leaf may not wait for one on its root.  Columns come from the syscache.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "esync.h"

/* columns of esync.tracked_column */
enum
{
	COL_TABLE_ID = 1, COL_EPOCH, COL_RELID, COL_ATTNUM, COL_NAME, COL_FROM_EVENT, COL_GENERATED,
	COL_FILL,
	COL_COUNT = COL_FILL
};

/* columns of esync.life */
enum
{
	LIFE_EPOCH = 1, LIFE_SYSTEM, LIFE_DATABASE, LIFE_SINCE,
	LIFE_COUNT = LIFE_SINCE
};

/* a row of esync.tracked_column */
typedef struct Recorded
{
	int32		epoch;
	Oid			relid;
	AttrNumber	attnum;
	NameData	name;
	int64		from_event;
	bool		generated;
	Jsonb	   *fill;
} Recorded;

/* a field while it is being put together */
typedef struct Growing
{
	EsyncField	field;
	int			names_cap;
	int32		epoch;			/* the life in which attnum holds */
	Oid			relid;
	AttrNumber	attnum;
	bool		generated;		/* as recorded last */
} Growing;

typedef struct Lineage
{
	int			n;
	int			cap;
	Growing    *g;
} Lineage;

static int32 known_epoch = 0;	/* 0: not looked up, or undone by an abort */
static Oid	known_life = InvalidOid;	/* esync.life, when it was */

/* OID of a relation in schema esync; an error if the extension is broken. */
Oid
esync_relation_oid(const char *name)
{
	Oid			relid = get_relname_relid(name, get_namespace_oid("esync", false));

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"esync.%s\" does not exist", name)));
	return relid;
}

/* Relcache callback: the epoch is forgotten with the table that told it. */
void
esync_lineage_flag(Oid relid)
{
	if (!OidIsValid(relid) || relid == known_life)
		known_epoch = 0;
}

/* Forgets what a transaction that is being undone may have recorded. */
void
esync_lineage_forget(void)
{
	known_epoch = 0;
}

/*
 * The number of this database's present life.  Where esync.life does not end
 * with it (a restored dump, a copy), the next number, and *recorded is false.
 */
static int32
read_epoch(bool *recorded)
{
	Relation	rel = table_open(esync_relation_oid("life"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	int32		epoch = 0;
	bool		ours = false;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[LIFE_COUNT];
		bool		nulls[LIFE_COUNT];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (DatumGetInt32(values[LIFE_EPOCH - 1]) < epoch)
			continue;
		epoch = DatumGetInt32(values[LIFE_EPOCH - 1]);
		ours = DatumGetInt64(values[LIFE_SYSTEM - 1]) == (int64) GetSystemIdentifier() &&
			DatumGetObjectId(values[LIFE_DATABASE - 1]) == MyDatabaseId;
	}
	systable_endscan(scan);
	known_life = RelationGetRelid(rel);
	table_close(rel, AccessShareLock);
	*recorded = ours;
	return ours ? epoch : epoch + 1;
}

/* The present epoch; looked up once a session. */
int32
esync_epoch(void)
{
	bool		recorded;
	int32		epoch;

	if (known_epoch > 0)
		return known_epoch;
	epoch = read_epoch(&recorded);
	if (recorded)
		known_epoch = epoch;
	return epoch;
}

/*
 * Makes sure that the present epoch stands in esync.life; for whoever is
 * about to write an event.  Two sessions may both write it: harmless.
 */
void
esync_epoch_record(void)
{
	bool		recorded;
	int32		epoch;
	Datum		values[LIFE_COUNT];
	bool		nulls[LIFE_COUNT] = {false};

	if (known_epoch > 0)
		return;
	epoch = read_epoch(&recorded);
	if (!recorded)
	{
		values[LIFE_EPOCH - 1] = Int32GetDatum(epoch);
		values[LIFE_SYSTEM - 1] = Int64GetDatum((int64) GetSystemIdentifier());
		values[LIFE_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
		values[LIFE_SINCE - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		esync_side_insert("life", values, nulls);
		esync_tracked_undo_on_abort();
	}
	known_epoch = epoch;
}

/* How many attributes a relation has, dropped ones included; 0 if it is gone. */
int
esync_relnatts(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	int			natts = 0;

	if (HeapTupleIsValid(tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	return natts;
}

/* A row of tracked_column as a struct; fill is copied. */
static Recorded *
recorded_from(HeapTuple tuple, TupleDesc desc)
{
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];
	Recorded   *r = palloc0(sizeof(Recorded));

	heap_deform_tuple(tuple, desc, values, nulls);
	r->epoch = DatumGetInt32(values[COL_EPOCH - 1]);
	r->relid = DatumGetObjectId(values[COL_RELID - 1]);
	r->attnum = DatumGetInt16(values[COL_ATTNUM - 1]);
	r->name = *DatumGetName(values[COL_NAME - 1]);
	r->from_event = DatumGetInt64(values[COL_FROM_EVENT - 1]);
	r->generated = DatumGetBool(values[COL_GENERATED - 1]);
	if (!nulls[COL_FILL - 1])
		r->fill = DatumGetJsonbPCopy(values[COL_FILL - 1]);
	return r;
}

/* Sorts by event: lives and names follow each other as they were written. */
static int
recorded_cmp(const ListCell *a, const ListCell *b)
{
	const Recorded *x = lfirst(a);
	const Recorded *y = lfirst(b);

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	if (x->from_event != y->from_event)
		return x->from_event < y->from_event ? -1 : 1;
	return (int) x->attnum - (int) y->attnum;
}

/* All rows of tracked_column of one table, oldest first. */
static List *
read_recorded(int32 table_id)
{
	Relation	rel = table_open(esync_relation_oid("tracked_column"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *rows = NIL;

	ScanKeyInit(&key, COL_TABLE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	scan = systable_beginscan(rel, esync_relation_oid("tracked_column_table_id"), true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		rows = lappend(rows, recorded_from(tuple, RelationGetDescr(rel)));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(rows, recorded_cmp);
	return rows;
}

/* A new field in the lineage, bound to a column of one life. */
static Growing *
grow(Lineage *lineage, int32 epoch, Oid relid, AttrNumber attnum)
{
	Growing    *g;

	if (lineage->n == lineage->cap)
	{
		lineage->cap = Max(16, lineage->cap * 2);
		lineage->g = lineage->g ? repalloc(lineage->g, lineage->cap * sizeof(Growing)) :
			palloc(lineage->cap * sizeof(Growing));
	}
	g = &lineage->g[lineage->n++];
	memset(g, 0, sizeof(Growing));
	g->field.group = -1;
	g->epoch = epoch;
	g->relid = relid;
	g->attnum = attnum;
	return g;
}

/* Appends a name, unless the field bears it already. */
static void
grow_name(Growing *g, const char *name, int64 from_event)
{
	EsyncField *f = &g->field;

	if (f->nnames > 0 && strcmp(f->names[f->nnames - 1].name, name) == 0)
		return;
	if (f->nnames == g->names_cap)
	{
		g->names_cap = Max(2, g->names_cap * 2);
		f->names = f->names ? repalloc(f->names, g->names_cap * sizeof(EsyncName)) :
			palloc(g->names_cap * sizeof(EsyncName));
	}
	f->names[f->nnames].name = pstrdup(name);
	f->names[f->nnames].from_event = from_event;
	if (name[0] != '\0')
		f->name = f->names[f->nnames].name;
	f->nnames++;
}

/* Was the column dropped, as far as is recorded? */
static bool
is_dropped(const Growing *g)
{
	return g->field.nnames > 0 && g->field.names[g->field.nnames - 1].name[0] == '\0';
}

/*
 * The field that is column attnum in that life: already bound to it, else the
 * latest field of an earlier life that ended with the same name, else new.
 */
static Growing *
field_in_life(Lineage *lineage, int32 epoch, Oid relid, AttrNumber attnum, const char *name)
{
	Growing    *heir = NULL;

	for (int i = 0; i < lineage->n; i++)
	{
		Growing    *g = &lineage->g[i];

		if (g->epoch == epoch && g->relid == relid)
		{
			if (g->attnum == attnum)
				return g;
		}
		else if (!is_dropped(g) && strcmp(g->field.name, name) == 0 &&
				 (heir == NULL || g->field.names[g->field.nnames - 1].from_event >
				  heir->field.names[heir->field.nnames - 1].from_event))
			heir = g;
	}
	if (heir == NULL)
		return grow(lineage, epoch, relid, attnum);
	heir->epoch = epoch;
	heir->relid = relid;
	heir->attnum = attnum;
	return heir;
}

/* What ADD COLUMN ... DEFAULT left for rows with this attribute, as JSON; or NULL. */
static Jsonb *
missing_of(HeapTuple tuple)
{
	Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);
	EsyncAttr	attr = {NameStr(att->attname), 1, att->atttypid, att->atttypmod, false};
	JsonbValue	json;
	bool		isnull;
	Datum		missing;
	Datum		value;

	if (!att->atthasmissing || !esync_encode_is_pure(att->atttypid))
		return NULL;			/* this may run as somebody else: no user's function */
	missing = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attmissingval, &isnull);
	if (isnull)
		return NULL;
	value = array_get_element(missing, 1, (int[]) {1}, -1,
							  att->attlen, att->attbyval, att->attalign, &isnull);
	if (isnull)
		return NULL;
	esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0, value, false, &json);
	return esync_json_from_value(&json);
}

/*
 * What a column of the tracked table was filled with.  A partitioned table
 * holds no rows, so its leaves are asked.
 */
static Jsonb *
fill_of(Oid root, HeapTuple tuple)
{
	char	   *name = NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname);
	Jsonb	   *fill = missing_of(tuple);
	ListCell   *lc;

	if (fill != NULL || get_rel_relkind(root) != RELKIND_PARTITIONED_TABLE)
		return fill;
	foreach(lc, find_all_inheritors(root, NoLock, NULL))
	{
		HeapTuple	leaf = SearchSysCacheAttName(lfirst_oid(lc), name);

		if (!HeapTupleIsValid(leaf))
			continue;
		fill = missing_of(leaf);
		ReleaseSysCache(leaf);
		if (fill != NULL)
			break;
	}
	return fill;
}

/* Lays one column of the present catalog over the lineage. */
static void
overlay_column(Lineage *lineage, int32 epoch, Oid root, HeapTuple tuple)
{
	Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);
	Growing    *g = field_in_life(lineage, epoch, root, att->attnum, NameStr(att->attname));
	EsyncField *f = &g->field;

	f->attnum = att->attnum;
	f->typid = att->atttypid;
	f->typmod = att->atttypmod;
	f->generated = f->excluded = att->attgenerated != '\0';
	if (f->fill == NULL && f->nnames == 0)
		f->fill = fill_of(root, tuple);
	f->recorded = false;
	f->name = pstrdup(NameStr(att->attname));
}

/*
 * Whether a field's present name is the last one recorded in this life, and
 * whether it was as it is, generated or not.
 */
static bool
is_recorded(List *rows, int32 epoch, Oid root, const EsyncField *f)
{
	const Recorded *last = NULL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		const Recorded *r = lfirst(lc);

		if (r->epoch == epoch && r->relid == root && r->attnum == f->attnum)
			last = r;
	}
	return last != NULL && last->generated == f->generated &&
		strcmp(NameStr(last->name), f->name) == 0;
}

/* Living columns first, by attnum; gone ones after them as they came. */
static int
growing_cmp(const void *a, const void *b)
{
	const EsyncField *x = &((const Growing *) a)->field;
	const EsyncField *y = &((const Growing *) b)->field;

	if ((x->attnum == 0) != (y->attnum == 0))
		return x->attnum == 0 ? 1 : -1;
	if (x->attnum != y->attnum)
		return x->attnum < y->attnum ? -1 : 1;
	if (x->attnum == 0)
		return strcmp(x->name, y->name);
	return 0;
}

/*
 * All fields of a table, in the current memory context: those of living
 * columns by attnum, then those that are gone.  *unrecorded tells whether
 * some present name is not in tracked_column yet; *check_from is the event
 * since when rows may hold what was never recorded, 0 if there is none.
 */
EsyncField *
esync_lineage_load(int32 table_id, Oid root, int *nfields, bool *unrecorded, int64 *check_from)
{
	int32		epoch = esync_epoch();
	List	   *rows = read_recorded(table_id);
	Lineage		lineage = {0};
	int			natts = esync_relnatts(root);
	EsyncField *fields;
	ListCell   *lc;

	*check_from = 0;
	foreach(lc, rows)
	{
		Recorded   *r = lfirst(lc);
		Growing    *g;

		if (r->attnum == 0)		/* a mark, of no column */
		{
			*check_from = Max(*check_from, r->from_event);
			continue;
		}
		g = field_in_life(&lineage, r->epoch, r->relid, r->attnum, NameStr(r->name));
		if (g->generated && !r->generated)
			*check_from = Max(*check_from, r->from_event);
		g->generated = r->generated;
		grow_name(g, NameStr(r->name), r->from_event);
		if (r->fill)
			g->field.fill = r->fill;
	}
	for (AttrNumber attnum = 1; attnum <= natts; attnum++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(root), Int16GetDatum(attnum));

		if (!HeapTupleIsValid(tuple))
			continue;
		if (!((Form_pg_attribute) GETSTRUCT(tuple))->attisdropped)
			overlay_column(&lineage, epoch, root, tuple);
		ReleaseSysCache(tuple);
	}
	if (lineage.n > 1)
		qsort(lineage.g, lineage.n, sizeof(Growing), growing_cmp);
	*unrecorded = false;
	*nfields = lineage.n;
	fields = palloc((lineage.n + 1) * sizeof(EsyncField));
	for (int i = 0; i < lineage.n; i++)
	{
		const Growing *g = &lineage.g[i];

		fields[i] = g->field;
		if (fields[i].attnum != 0)
			fields[i].recorded = is_recorded(rows, epoch, root, &fields[i]);
		else
		{
			fields[i].recorded = g->epoch != epoch || g->relid != root || is_dropped(g);
			fields[i].dropped_attnum = g->attnum;
		}
		*unrecorded |= !fields[i].recorded;
	}
	return fields;
}

/* Is it that name?  Most differ in their first byte. */
static inline bool
is_name(const char *name, const char *other, int len)
{
	return len > 0 && name[0] == other[0] && strncmp(name, other, len) == 0 && name[len] == '\0';
}

/* Is this one of the names that the field has or ever had? */
bool
esync_field_bore(const EsyncField *field, const char *name, int namelen)
{
	for (int k = 0; k < field->nnames; k++)
		if (is_name(field->names[k].name, name, namelen))
			return true;
	return is_name(field->name, name, namelen);
}

/*
 * Index of the field that bore the name when event_id was written, -1 if none
 * did; PG_INT64_MAX asks for today's name first, then for the last one borne.
 */
int
esync_field_at(const EsyncField *fields, int nfields,
			   const char *name, int namelen, int64 event_id)
{
	int			best = -1;
	int64		since = -1;

	for (int i = 0; i < nfields; i++)
	{
		const EsyncField *f = &fields[i];

		if (event_id == PG_INT64_MAX && f->attnum != 0 &&
			is_name(f->name, name, namelen))
			return i;
		for (int k = f->nnames - 1; k >= 0; k--)
			if (f->names[k].from_event <= event_id && f->names[k].from_event > since &&
				is_name(f->names[k].name, name, namelen))
			{
				best = i;
				since = f->names[k].from_event;
			}
	}
	return best;
}

/*
 * The field that a caller calls by a name: a present column, else the latest of
 * those that are gone, else what bore the name last; -1: nothing ever did.
 */
int
esync_field_called(const EsyncField *fields, int nfields, const char *name)
{
	int			found = -1;

	for (int i = 0; i < nfields; i++)
	{
		if (strcmp(fields[i].name, name) != 0)
			continue;
		found = i;
		if (fields[i].attnum != 0)
			break;
	}
	return found >= 0 ? found : esync_field_at(fields, nfields, name, strlen(name), PG_INT64_MAX);
}

/* Writes one field's present name down, from event_id on; none if it is gone. */
static void
record_name(int32 table_id, Oid root, EsyncField *f, int64 event_id)
{
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT] = {false};
	NameData	name;

	namestrcpy(&name, f->attnum != 0 ? f->name : "");
	values[COL_TABLE_ID - 1] = Int32GetDatum(table_id);
	values[COL_EPOCH - 1] = Int32GetDatum(esync_epoch());
	values[COL_RELID - 1] = ObjectIdGetDatum(root);
	values[COL_ATTNUM - 1] = Int16GetDatum(f->attnum != 0 ? f->attnum : f->dropped_attnum);
	values[COL_NAME - 1] = NameGetDatum(&name);
	values[COL_FROM_EVENT - 1] = Int64GetDatum(event_id);
	values[COL_GENERATED - 1] = BoolGetDatum(f->generated);
	values[COL_FILL - 1] = PointerGetDatum(f->fill);
	nulls[COL_FILL - 1] = f->fill == NULL;
	esync_side_insert("tracked_column", values, nulls);
}

/*
 * Records all present names that are not recorded yet, as true from event_id
 * on, and marks them so in the plan.  If the transaction is undone, the plan
 * is dropped with it.
 */
void
esync_lineage_record(EsyncTracked *t, int64 event_id)
{
	MemoryContext old = MemoryContextSwitchTo(t->cxt);

	esync_tracked_undo_on_abort();
	for (int i = 0; i < t->nfields; i++)
	{
		EsyncField *f = &t->fields[i];
		EsyncName  *names;

		if (f->recorded)
			continue;
		record_name(t->table_id, t->root, f, event_id);
		names = palloc((f->nnames + 1) * sizeof(EsyncName));
		if (f->nnames > 0)
			memcpy(names, f->names, f->nnames * sizeof(EsyncName));
		names[f->nnames].name = f->attnum != 0 ? f->name : "";
		names[f->nnames].from_event = event_id;
		f->names = names;
		f->nnames++;
		f->recorded = true;
	}
	t->unrecorded = false;
	MemoryContextSwitchTo(old);
	esync_tracked_void_others(t);
}

/*
 * Leaves a mark: rows whose head is older than event_id may hold what was
 * never recorded, and are to be compared with their fold.
 */
static void
record_mark(int32 table_id, Oid root, int64 event_id)
{
	EsyncField	none = {.name = ""};

	record_name(table_id, root, &none, event_id);
}

PG_FUNCTION_INFO_V1(esync_record_columns);
PG_FUNCTION_INFO_V1(esync_present_name);

/* esync.record_columns(table_id, tbl, from_event, mark) */
Datum
esync_record_columns(PG_FUNCTION_ARGS)
{
	EsyncTracked t = {0};

	esync_epoch_record();
	t.table_id = PG_GETARG_INT32(0);
	t.root = PG_GETARG_OID(1);
	esync_pending_rewritten(t.root);
	t.cxt = CurrentMemoryContext;
	t.fields = esync_lineage_load(t.table_id, t.root, &t.nfields, &t.unrecorded, &t.check_from);
	if (t.unrecorded)
		esync_lineage_record(&t, PG_GETARG_INT64(2));
	if (PG_GETARG_BOOL(3))
		record_mark(t.table_id, t.root, PG_GETARG_INT64(2));
	PG_RETURN_VOID();
}

/*
 * esync.present_name(table_id, tbl, name, as_of, namesake): with namesake, where
 * that column is gone, one of the name that is there now.
 */
Datum
esync_present_name(PG_FUNCTION_ARGS)
{
	char	   *name = NameStr(*PG_GETARG_NAME(2));
	Name		result = palloc0(NAMEDATALEN);
	int			nfields;
	bool		unrecorded;
	int64		check_from;
	EsyncField *fields = esync_lineage_load(PG_GETARG_INT32(0), PG_GETARG_OID(1),
											&nfields, &unrecorded, &check_from);
	int			i = esync_field_at(fields, nfields, name, strlen(name), PG_GETARG_INT64(3));

	if ((i < 0 || fields[i].attnum == 0) && PG_GETARG_BOOL(4))
		i = esync_field_at(fields, nfields, name, strlen(name), PG_INT64_MAX);
	if (i < 0 || fields[i].attnum == 0)
		PG_RETURN_NULL();
	namestrcpy(result, fields[i].name);
	PG_RETURN_NAME(result);
}
