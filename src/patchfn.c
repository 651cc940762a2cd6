/*
 * patchfn.c: the functions of patches that SQL calls, the aggregate that folds
 * many, and merge patches (RFC 7396).
 *
 * Here, and only here, a Failure becomes an error or a value.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "patch.h"

/* how much of a pointer stands in a detail, in bytes */
#define SHOWN_POINTER	200

/* memory of a fold, above which it is written out and begun anew */
#define FOLD_LIMIT		((Size) 8 * 1024 * 1024)

/* what esync_patch_agg keeps, in the aggregate's context */
typedef struct Fold
{
	MemoryContext cxt;			/* of the document and all patches since it was written */
	Size		limit;			/* for its memory */
	int64		patches;
	Patcher		patcher;
} Fold;

PG_FUNCTION_INFO_V1(esync_patch);
PG_FUNCTION_INFO_V1(esync_try_patch);
PG_FUNCTION_INFO_V1(esync_invert);
PG_FUNCTION_INFO_V1(esync_merge_patch);
PG_FUNCTION_INFO_V1(esync_patch_agg_step);
PG_FUNCTION_INFO_V1(esync_patch_agg_result);

/* --------------------------------------------------------------- failures */

/* The operation's number, name and pointers. */
static char *
describe_operation(const Patcher *p)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfo(&out, "Operation %d", p->number);
	if (p->kind != OP_UNKNOWN)
		appendStringInfo(&out, ", %s", esync_patch_op_name(p->kind));
	if (p->path.text)
		appendStringInfo(&out, ", path \"%s\"",
						 esync_patch_shorten(p->path.text, p->path.textlen, SHOWN_POINTER));
	if (p->from.text)
		appendStringInfo(&out, ", from \"%s\"",
						 esync_patch_shorten(p->from.text, p->from.textlen, SHOWN_POINTER));
	appendStringInfoChar(&out, '.');
	if (p->failure.found)
		appendStringInfo(&out, " Found %s.", p->failure.found);
	return out.data;
}

/* Makes an error of a failure. */
static void
throw_failure(const Patcher *p)
{
	ereport(ERROR,
			(errcode(p->failure.sqlstate),
			 errmsg_internal("%s", p->failure.message),
			 p->number >= 0 ? errdetail_internal("%s", describe_operation(p)) : 0));
}

/* {"op", "code", "path", "message"} of a failure. */
static Jsonb *
failure_object(const Patcher *p)
{
	EsyncJson	json;

	esync_json_init(&json, 256);
	esync_json_open_object(&json, 4);
	esync_json_key(&json, "op", 2);
	esync_json_key(&json, "code", 4);
	esync_json_key(&json, "path", 4);
	esync_json_key(&json, "message", 7);
	if (p->number >= 0)
		esync_json_int64(&json, p->number);
	else
		esync_json_null(&json);
	esync_json_string(&json, unpack_sql_state(p->failure.sqlstate), 5);
	if (p->path.text)
		esync_json_string(&json, p->path.text, p->path.textlen);
	else
		esync_json_null(&json);
	esync_json_string(&json, p->failure.message, strlen(p->failure.message));
	esync_json_close(&json);
	return esync_json_finish(&json);
}

/* ---------------------------------------------------------- merge patches */

static bool
is_object(const JsonbValue *value)
{
	return value != NULL && value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

/*
 * RFC 7396 over both member lists at once.  target is NULL where it is
 * missing; what is not an object counts as one without members.
 */
static void
merge_patch(const JsonbValue *target, const JsonbValue *patch, EsyncNode *out)
{
	EsyncWalk	old;
	EsyncWalk	new;
	EsyncBranch *branch;
	bool		has_old;
	bool		has_new;

	CHECK_FOR_INTERRUPTS();
	check_stack_depth();
	if (!is_object(patch))
	{
		esync_node_set(out, patch);
		return;
	}
	esync_walk_init(&new, patch->val.binary.data);
	if (is_object(target))
		esync_walk_init(&old, target->val.binary.data);
	branch = esync_branch_make(true, new.count + (is_object(target) ? old.count : 0));
	has_old = is_object(target) && esync_walk_next(&old);
	has_new = esync_walk_next(&new);
	while (has_old || has_new)
	{
		int			order = !has_old ? 1 : !has_new ? -1 :
			esync_key_cmp(old.key, old.keylen, new.key, new.keylen);

		if (order < 0)
			esync_node_set(esync_branch_insert(branch, branch->count, old.key, old.keylen),
						   &old.value);
		else if (new.value.type != jbvNull)
			merge_patch(order == 0 ? &old.value : NULL, &new.value,
						esync_branch_insert(branch, branch->count, new.key, new.keylen));
		has_old = order <= 0 ? esync_walk_next(&old) : has_old;
		has_new = order >= 0 ? esync_walk_next(&new) : has_new;
	}
	out->kind = NODE_BRANCH;
	out->at = branch;
	out->len = 0;
}

/* --------------------------------------------------------- what SQL calls */

/* esync_patch(doc, patch) */
Datum
esync_patch(PG_FUNCTION_ARGS)
{
	Jsonb	   *doc = PG_GETARG_JSONB_P(0);
	Jsonb	   *patch = PG_GETARG_JSONB_P(1);
	Jsonb	   *result = NULL;
	Patcher		p;

	esync_patch_begin(&p, doc, false);
	if (esync_patch_apply(&p, patch))
		result = esync_patch_finish(&p);
	if (result == NULL)
		throw_failure(&p);
	PG_RETURN_JSONB_P(result);
}

/* esync_try_patch(doc, patch, OUT result, OUT error) */
Datum
esync_try_patch(PG_FUNCTION_ARGS)
{
	Jsonb	   *doc = PG_GETARG_JSONB_P(0);
	Jsonb	   *patch = PG_GETARG_JSONB_P(1);
	Jsonb	   *result = NULL;
	Datum		values[2] = {0};
	bool		nulls[2];
	TupleDesc	desc;
	Patcher		p;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	esync_patch_begin(&p, doc, false);
	if (esync_patch_apply(&p, patch))
		result = esync_patch_finish(&p);
	nulls[0] = result == NULL;
	nulls[1] = result != NULL;
	if (result)
		values[0] = JsonbPGetDatum(result);
	else
		values[1] = JsonbPGetDatum(failure_object(&p));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* esync_invert(doc, patch): the patch that leads back to doc */
Datum
esync_invert(PG_FUNCTION_ARGS)
{
	Jsonb	   *doc = PG_GETARG_JSONB_P(0);
	Jsonb	   *patch = PG_GETARG_JSONB_P(1);
	Jsonb	   *inverse = NULL;
	Patcher		p;

	esync_patch_begin(&p, doc, true);
	if (esync_patch_apply(&p, patch))
		inverse = esync_patch_inverse(&p);
	if (inverse == NULL)
		throw_failure(&p);
	PG_RETURN_JSONB_P(inverse);
}

/* esync_merge_patch(doc, patch), RFC 7396 */
Datum
esync_merge_patch(PG_FUNCTION_ARGS)
{
	Jsonb	   *doc = PG_GETARG_JSONB_P(0);
	Jsonb	   *patch = PG_GETARG_JSONB_P(1);
	JsonbValue	target;
	JsonbValue	change;
	EsyncTree	tree;
	Jsonb	   *result;

	esync_json_root(doc, &target);
	esync_json_root(patch, &change);
	tree.root.keylen = 0;
	merge_patch(&target, &change, &tree.root);
	tree.bound = (Size) VARSIZE(doc) + VARSIZE(patch);
	result = esync_tree_write(&tree);
	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("the document is nested too deeply")));
	PG_RETURN_JSONB_P(result);
}

/* Begins, or begins anew, a fold with a document; what it had before goes. */
static void
open_fold(Fold *fold, MemoryContext parent, Datum doc)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "esync_patch_agg", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);

	esync_patch_begin(&fold->patcher, (Jsonb *) PG_DETOAST_DATUM_COPY(doc), false);
	MemoryContextSwitchTo(old);
	if (fold->cxt)
		MemoryContextDelete(fold->cxt);
	fold->cxt = cxt;
	fold->limit = Max(FOLD_LIMIT, MemoryContextMemAllocated(cxt, true) * 4);
}

/* Throws what went wrong, and in which patch. */
static void
throw_fold(const Fold *fold)
{
	const Patcher *p = &fold->patcher;

	ereport(ERROR,
			(errcode(p->failure.sqlstate),
			 errmsg_internal("%s", p->failure.message),
			 p->number >= 0 ? errdetail_internal("%s", describe_operation(p)) : 0,
			 errcontext("patch " INT64_FORMAT " of esync_patch_agg", fold->patches)));
}

/* Applies one more patch.  Memory stays in proportion to the document, however many. */
static void
fold_patch(Fold *fold, Datum patch)
{
	MemoryContext old = MemoryContextSwitchTo(fold->cxt);
	bool		applied;

	fold->patches++;
	applied = esync_patch_apply(&fold->patcher, (Jsonb *) PG_DETOAST_DATUM_COPY(patch));
	MemoryContextSwitchTo(old);
	if (!applied)
		throw_fold(fold);
	if (MemoryContextMemAllocated(fold->cxt, true) > fold->limit)
	{
		Jsonb	   *doc = esync_patch_finish(&fold->patcher);

		if (doc == NULL)
			throw_fold(fold);
		open_fold(fold, MemoryContextGetParent(fold->cxt), JsonbPGetDatum(doc));
		pfree(doc);
	}
}

/*
 * Transition function of esync_patch_agg: the first doc that is not NULL is
 * where it begins, patches before that have nothing to change, and a NULL
 * patch changes nothing.
 */
Datum
esync_patch_agg_step(PG_FUNCTION_ARGS)
{
	Fold	   *fold = PG_ARGISNULL(0) ? NULL : (Fold *) PG_GETARG_POINTER(0);
	MemoryContext cxt;

	if (!AggCheckCallContext(fcinfo, &cxt))
		elog(ERROR, "esync_patch_agg_step called in non-aggregate context");
	if (fold == NULL && !PG_ARGISNULL(1))
	{
		fold = MemoryContextAllocZero(cxt, sizeof(Fold));
		open_fold(fold, cxt, PG_GETARG_DATUM(1));
	}
	if (fold == NULL)
		PG_RETURN_NULL();
	if (!PG_ARGISNULL(2))
		fold_patch(fold, PG_GETARG_DATUM(2));
	PG_RETURN_POINTER(fold);
}

/* Final function: writes the document and leaves the state as it is. */
Datum
esync_patch_agg_result(PG_FUNCTION_ARGS)
{
	Fold	   *fold = PG_ARGISNULL(0) ? NULL : (Fold *) PG_GETARG_POINTER(0);
	Jsonb	   *result;

	if (fold == NULL)
		PG_RETURN_NULL();
	result = esync_patch_finish(&fold->patcher);
	if (result == NULL)
		throw_fold(fold);
	PG_RETURN_JSONB_P(result);
}
