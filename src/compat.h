/*
 * compat.h: the only file that knows server versions.
 *
 * Everything is shimmed toward the newest API: code elsewhere is written as
 * for PostgreSQL 18, and what older servers lack is defined here.
 */
#ifndef ESYNC_COMPAT_H
#define ESYNC_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "esync needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18: what does not return says so in front */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* 16 (afbfc02983): one ownership check for every class of object */
#if PG_VERSION_NUM < 160000
#define object_ownercheck(classid, objectid, roleid) \
	pg_class_ownercheck(objectid, roleid)
#endif

/* 16 (c727f511bd): the same of rights; schemas alone are asked for */
#if PG_VERSION_NUM < 160000
#define object_aclcheck(classid, objectid, roleid, mode) \
	pg_namespace_aclcheck(objectid, roleid, mode)
#endif

#include "access/genam.h"

/* 18 (0fbceae841): index scans take a place for their instrumentation */
#if PG_VERSION_NUM < 180000
#define index_beginscan(heap, index, snapshot, instrument, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#endif

#if PG_VERSION_NUM < 180000
#define index_beginscan_bitmap(index, snapshot, instrument, nkeys) \
	index_beginscan_bitmap(index, snapshot, nkeys)
#endif

#include "nodes/tidbitmap.h"

/* 18 (7f9d4187e7, bfe56cdf9a): a bitmap is walked otherwise */
#if PG_VERSION_NUM < 180000
typedef TBMIterator EsyncBlocks;
#define esync_blocks_begin(bitmap) tbm_begin_iterate(bitmap)
#define esync_blocks_end(blocks) tbm_end_iterate(blocks)
#else
typedef TBMPrivateIterator EsyncBlocks;
#define esync_blocks_begin(bitmap) tbm_begin_private_iterate(bitmap)
#define esync_blocks_end(blocks) tbm_end_private_iterate(blocks)
#endif

/* The next block of it, ascending; false: there is none. */
static inline bool
esync_blocks_next(EsyncBlocks *blocks, BlockNumber *block)
{
#if PG_VERSION_NUM < 180000
	TBMIterateResult *result = tbm_iterate(blocks);

	if (result == NULL)
		return false;
	*block = result->blockno;
	return true;
#else
	TBMIterateResult result;

	if (!tbm_private_iterate(blocks, &result))
		return false;
	*block = result.blockno;
	return true;
#endif
}

/* 16 (b0a55e4329): the storage of a relation is named otherwise */
#if PG_VERSION_NUM < 160000
#define rd_firstRelfilelocatorSubid rd_firstRelfilenodeSubid
#endif

#include "utils/guc.h"

/* 16 (3057465acf): what a setting keeps lies in a memory context */
#if PG_VERSION_NUM < 160000
#define guc_malloc(elevel, size) malloc(size)
#endif

#include "executor/executor.h"

/* 16 (70b42f2790): the relations that may be rechecked are named */
#if PG_VERSION_NUM < 160000
#define EvalPlanQualInit(epqstate, estate, subplan, auxrowmarks, epqparam, relations) \
	EvalPlanQualInit(epqstate, estate, subplan, auxrowmarks, epqparam)
#endif

/* 17 (c1ec02be1d): indexes may keep something over the inserts of a statement */
#if PG_VERSION_NUM < 170000
#define index_insert_cleanup(index, info) ((void) 0)
#endif

/* 18 (8f2e6c76c1 and others): Abs() is gone from c.h; 15 lacks FullTransactionIdGetDatum */
#ifndef Abs
#define Abs(x) ((x) >= 0 ? (x) : -(x))
#endif

/* 18: the module can say its own name and version */
#if PG_VERSION_NUM >= 180000
#define ESYNC_MODULE_MAGIC \
	PG_MODULE_MAGIC_EXT(.name = "esync", .version = ESYNC_VERSION)
#else
#define ESYNC_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18: generated columns may be virtual; before, all are stored */
#ifndef ATTRIBUTE_GENERATED_VIRTUAL
#define ATTRIBUTE_GENERATED_VIRTUAL 'v'
#endif

#endif							/* ESYNC_COMPAT_H */
