/*
 * meta.c: what an event's meta tells besides what its author sent.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "esync.h"

/* A timestamp as a JSON string in UTC. */
void
esync_meta_time(TimestampTz at, JsonbValue *out)
{
	EsyncAttr	attr = {"t", 1, TIMESTAMPTZOID, -1, false};

	esync_encode_value(esync_shape_make(CurrentMemoryContext, &attr, 1), 0,
					   TimestampTzGetDatum(at), false, out);
}

/* An integer as a JSON number. */
void
esync_meta_int(int64 i, JsonbValue *out)
{
	out->type = jbvNumeric;
	out->val.numeric = int64_to_numeric(i);
}

/* {"aggregate_id": key, "version": version}: the other half of a move. */
void
esync_meta_link(text *key, int64 version, JsonbValue *out)
{
	EsyncMember m[2];
	Jsonb	   *link;

	m[0].key = "version";
	m[0].keylen = 7;
	esync_meta_int(version, &m[0].value);
	m[1].key = "aggregate_id";
	m[1].keylen = 12;
	m[1].value.type = jbvString;
	m[1].value.val.string.val = VARDATA_ANY(key);
	m[1].value.val.string.len = VARSIZE_ANY_EXHDR(key);
	link = esync_json_object(2, m);
	esync_json_root(link, out);
}

/*
 * What the author sent as meta, with what esync has to add; esync's members
 * win.  NULL where there is neither.
 */
Jsonb *
esync_meta_with(Jsonb *meta, const EsyncExtra *extras, int nextras)
{
	EsyncMember *members;
	int			n = 0;
	EsyncWalk	walk;

	if (nextras == 0)
		return meta;
	members = palloc((nextras + (meta ? esync_json_count(&meta->root) : 0)) * sizeof(EsyncMember));
	for (n = 0; n < nextras; n++)
	{
		members[n].key = extras[n].key;
		members[n].keylen = strlen(extras[n].key);
		members[n].value = extras[n].value;
	}
	if (meta)
	{
		esync_walk_init(&walk, &meta->root);
		while (esync_walk_next(&walk))
		{
			bool		ours = false;

			for (int i = 0; i < nextras; i++)
				ours |= esync_key_cmp(walk.key, walk.keylen, members[i].key, members[i].keylen) == 0;
			if (ours)
				continue;
			members[n].key = walk.key;
			members[n].keylen = walk.keylen;
			members[n].value = walk.value;
			n++;
		}
	}
	return esync_json_object(n, members);
}
