/* esync: the current state, kept by hand; sections in the order of src/ */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION esync" to load this file. \quit

CREATE SCHEMA esync;
COMMENT ON SCHEMA esync IS
'esync: the event stream, its configuration and internals; the functions to call are named esync_... and field_history';
GRANT USAGE ON SCHEMA esync TO PUBLIC;


------------------------------------------------------------------ relations

CREATE SEQUENCE esync.table_id_seq AS integer;
COMMENT ON SEQUENCE esync.table_id_seq IS 'source of esync.tracked_table.table_id';

CREATE SEQUENCE esync.event_id_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE esync.event_id_seq IS
'source of event_id for all tracked tables; taken while the row is locked, so it must keep CACHE 1';

CREATE TABLE esync.tracked_table (
	table_id		integer PRIMARY KEY DEFAULT pg_catalog.nextval('esync.table_id_seq'),
	relation		regclass UNIQUE,
	schema_name		text NOT NULL,
	table_name		text NOT NULL,
	aggregate_type	text NOT NULL,
	enabled			boolean NOT NULL,
	mode			text NOT NULL,
	payload			text NOT NULL,
	key_columns		name[] NOT NULL,
	key				name[],
	exclude			name[] NOT NULL,
	mask			name[] NOT NULL,
	last_modified	name[] NOT NULL,
	tombstone		name,
	tenant			name,
	notify			boolean NOT NULL,
	retention		interval,
	options_as_of	bigint NOT NULL,
	since			timestamptz NOT NULL,
	pruned_through	xid8,
	sql_merge		boolean NOT NULL DEFAULT true,
	on_conflict		text NOT NULL DEFAULT 'merge',
	groups			jsonb NOT NULL DEFAULT '{}',
	json_merge		name[] NOT NULL DEFAULT '{}',
	links			jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX tracked_table_aggregate_type ON esync.tracked_table (aggregate_type)
	WHERE relation IS NOT NULL;
COMMENT ON TABLE esync.tracked_table IS
'one row a table that esync tracks or tracked; written by esync_enable and esync_disable alone';
COMMENT ON COLUMN esync.tracked_table.table_id IS 'names the leaf esync.event_<table_id>';
COMMENT ON COLUMN esync.tracked_table.relation IS 'NULL once the table was dropped';
COMMENT ON COLUMN esync.tracked_table.schema_name IS 'schema of the table when it was enabled or dropped';
COMMENT ON COLUMN esync.tracked_table.table_name IS 'name of the table when it was enabled or dropped';
COMMENT ON COLUMN esync.tracked_table.aggregate_type IS 'name of the table in the stream; survives renames';
COMMENT ON COLUMN esync.tracked_table.enabled IS 'whether the triggers are there; false: history only';
COMMENT ON COLUMN esync.tracked_table.mode IS '''events''';
COMMENT ON COLUMN esync.tracked_table.payload IS '''full'' or ''changes''';
COMMENT ON COLUMN esync.tracked_table.key_columns IS 'columns that make the aggregate_id, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.key IS 'the option key; NULL: the primary key';
COMMENT ON COLUMN esync.tracked_table.exclude IS 'columns never recorded, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.mask IS 'columns recorded as changed, value hidden, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.last_modified IS 'timestamptz columns that esync keeps, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.tombstone IS 'timestamptz column that marks a deleted row, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.tenant IS 'column stored with each event as tenant, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.notify IS 'whether a commit notifies channel esync';
COMMENT ON COLUMN esync.tracked_table.retention IS 'how long events are to be kept; NULL: for ever';
COMMENT ON COLUMN esync.tracked_table.options_as_of IS 'the event_id at which the column names in this row were true';
COMMENT ON COLUMN esync.tracked_table.since IS 'when tracking began';
COMMENT ON COLUMN esync.tracked_table.pruned_through IS 'highest transaction whose events were purged';
COMMENT ON COLUMN esync.tracked_table.sql_merge IS 'whether plain SQL merges where its context names a base';
COMMENT ON COLUMN esync.tracked_table.on_conflict IS '''merge'', ''server_wins'', ''client_wins'', ''last_write_wins'' or ''reject''';
COMMENT ON COLUMN esync.tracked_table.groups IS 'sets of columns that win or lose together, by name, columns named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.json_merge IS 'jsonb columns merged path by path, named as of options_as_of';
COMMENT ON COLUMN esync.tracked_table.links IS
'columns that point to other tracked tables: the table_id of each, columns named as of options_as_of';

CREATE TABLE esync.tracked_column (
	table_id		integer NOT NULL,
	epoch			integer NOT NULL,
	relid			oid NOT NULL,
	attnum			smallint NOT NULL,
	name			name NOT NULL,
	from_event		bigint NOT NULL,
	generated		boolean NOT NULL,
	fill			jsonb
);
CREATE INDEX tracked_column_table_id ON esync.tracked_column (table_id);
COMMENT ON TABLE esync.tracked_column IS
'which column bore which name from which event on; filled when the first event after DDL is written; duplicates are harmless, the lowest from_event counts';
COMMENT ON COLUMN esync.tracked_column.table_id IS 'esync.tracked_table';
COMMENT ON COLUMN esync.tracked_column.epoch IS 'esync.life: attnum and relid mean nothing in another one';
COMMENT ON COLUMN esync.tracked_column.relid IS 'OID of the table in that epoch';
COMMENT ON COLUMN esync.tracked_column.attnum IS
'number of the column in that relation; 0 is a mark: rows whose last event is older are compared with their stream once';
COMMENT ON COLUMN esync.tracked_column.name IS 'its name in patches and payloads from from_event on';
COMMENT ON COLUMN esync.tracked_column.from_event IS 'event_id';
COMMENT ON COLUMN esync.tracked_column.generated IS 'whether it was a generated column, which is not recorded';
COMMENT ON COLUMN esync.tracked_column.fill IS
'what rows hold that were not written since ADD COLUMN ... DEFAULT; NULL: SQL NULL';

CREATE TABLE esync.life (
	epoch				integer NOT NULL,
	system_identifier	bigint NOT NULL,
	database			oid NOT NULL,
	since				timestamptz NOT NULL
);
COMMENT ON TABLE esync.life IS
'the epochs of this stream: a restored dump, a copied database and an upgraded cluster begin a new one with their first event; duplicates are harmless';
COMMENT ON COLUMN esync.life.epoch IS 'esync.event.epoch; the highest is the present one';
COMMENT ON COLUMN esync.life.system_identifier IS 'of the cluster, as pg_control_system() tells it';
COMMENT ON COLUMN esync.life.database IS 'OID of the database';
COMMENT ON COLUMN esync.life.since IS 'when its first event was written';

CREATE TABLE esync.event (
	event_id			bigint NOT NULL,
	xid					xid8 NOT NULL,
	version				bigint NOT NULL,
	base_version		bigint NOT NULL,
	branch_timestamp	timestamptz NOT NULL,
	submit_timestamp	timestamptz NOT NULL,
	commit_timestamp	timestamptz NOT NULL,
	effective_timestamp	timestamptz NOT NULL,
	effective_high		timestamptz NOT NULL,
	device_seq			bigint,
	epoch				integer NOT NULL,
	table_id			integer NOT NULL,
	flags				integer NOT NULL,
	row_xmin			xid NOT NULL,
	row_tid				tid,
	event_type			text COLLATE "C" NOT NULL,
	aggregate_id		text COLLATE "C" NOT NULL,
	user_id				text,
	device_id			text,
	db_role				text NOT NULL,
	tenant				text,
	client_event_id		uuid,
	patch				jsonb NOT NULL,
	payload				jsonb,
	meta				jsonb
) PARTITION BY LIST (table_id);
COMMENT ON TABLE esync.event IS
'the stream: one row an event, one leaf esync.event_<table_id> a tracked table; written by esync alone, its column list is frozen; whoever is granted SELECT on it reads everything';
COMMENT ON COLUMN esync.event.event_id IS 'ascends per aggregate, not over the whole stream in order of commits';
COMMENT ON COLUMN esync.event.xid IS 'top-level transaction';
COMMENT ON COLUMN esync.event.version IS '1, 2, 3 ... per aggregate, never reused';
COMMENT ON COLUMN esync.event.base_version IS 'the version that the author had seen; 0: none';
COMMENT ON COLUMN esync.event.branch_timestamp IS 'when the author took a copy';
COMMENT ON COLUMN esync.event.submit_timestamp IS 'when the author saved, as corrected; the raw one is in meta where it differs';
COMMENT ON COLUMN esync.event.commit_timestamp IS 'when the server took it: the clock under the lock of the row, never before the previous one of the aggregate';
COMMENT ON COLUMN esync.event.effective_timestamp IS 'place on the submit axis; -infinity for the ground of an aggregate';
COMMENT ON COLUMN esync.event.effective_high IS 'highest effective_timestamp of the aggregate so far';
COMMENT ON COLUMN esync.event.device_seq IS 'the how-manieth event of the device; NULL where it does not count';
COMMENT ON COLUMN esync.event.epoch IS 'esync.life';
COMMENT ON COLUMN esync.event.table_id IS 'esync.tracked_table';
COMMENT ON COLUMN esync.event.flags IS
'bits: 1 deleted after this event, 2 changed no row, 4 submit clamped to commit, 8 submit shifted by the clock offset, 16 effective later than submit, 32 noticed late (drift), 64 half of a change of key, 128 the row has an open conflict after this event, 256 what triggers of the table made of a merge, 512 later edits of the same device were there before, 1024 a trigger or a foreign key wrote it, not the statement of the device that it bears';
COMMENT ON COLUMN esync.event.row_xmin IS 'raw xmin of the tuple that the event left; 0: no row';
COMMENT ON COLUMN esync.event.row_tid IS 'where that tuple was; with row_xmin it tells whether the row was changed unseen; NULL: no row';
COMMENT ON COLUMN esync.event.event_type IS 'Created, Updated, Deleted, Restored, Resolved or Baseline';
COMMENT ON COLUMN esync.event.aggregate_id IS 'the key as canonical text; a composite key as the text of a JSON array';
COMMENT ON COLUMN esync.event.user_id IS 'who, as the session said; NULL for a Baseline';
COMMENT ON COLUMN esync.event.device_id IS 'on which device; NULL: none was named';
COMMENT ON COLUMN esync.event.db_role IS 'the role that PostgreSQL knows: what counts as proof';
COMMENT ON COLUMN esync.event.tenant IS 'value of the column that the option tenant names';
COMMENT ON COLUMN esync.event.client_event_id IS 'the id that the client gave the event';
COMMENT ON COLUMN esync.event.patch IS 'what the author changed, RFC 6902; [] where the payload is the change';
COMMENT ON COLUMN esync.event.payload IS 'the row after the event, the last row of a Deleted; NULL where only changes are stored';
COMMENT ON COLUMN esync.event.meta IS 'what the author added, and moved_to, moved_from, deleted, submit_raw, clock_offset_ms, base_version from esync';

CREATE SEQUENCE esync.conflict_id_seq AS bigint;
COMMENT ON SEQUENCE esync.conflict_id_seq IS 'source of esync.conflict.conflict_id';

CREATE TABLE esync.conflict (
	conflict_id		bigint PRIMARY KEY,
	table_id		integer NOT NULL,
	aggregate_id	text COLLATE "C" NOT NULL,
	field			text,
	kind			text NOT NULL,
	base_value		jsonb,
	contenders		jsonb NOT NULL,
	shown_event		bigint,
	shown_value		jsonb,
	status			text COLLATE "C" NOT NULL,
	opened_at		timestamptz NOT NULL,
	opened_event	bigint NOT NULL,
	resolved_at		timestamptz,
	resolved_by		text,
	resolution		text,
	resolved_event	bigint
);
CREATE INDEX conflict_aggregate_id ON esync.conflict (table_id, aggregate_id, status);
CREATE INDEX conflict_status ON esync.conflict (table_id, status, conflict_id);
COMMENT ON TABLE esync.conflict IS
'the ledger: edits that contradict each other, at most one open row a field of an aggregate; written by esync alone, under the lock of the row';
COMMENT ON COLUMN esync.conflict.conflict_id IS 'names the conflict';
COMMENT ON COLUMN esync.conflict.table_id IS 'esync.tracked_table';
COMMENT ON COLUMN esync.conflict.aggregate_id IS 'as in esync.event';
COMMENT ON COLUMN esync.conflict.field IS
'a column, under its name as of opened_event; column/path of a json_merge column; a group; NULL: the row as a whole, a delete against edits';
COMMENT ON COLUMN esync.conflict.kind IS 'field, delete_edit, create_create or constraint';
COMMENT ON COLUMN esync.conflict.base_value IS 'what the field held before all contenders; NULL: unknown, or there was no row';
COMMENT ON COLUMN esync.conflict.contenders IS
'array of event_id, version, base_version, device_seq, type, user_id, device_id, value, submit_timestamp: the edits that none of the others had seen; the value of a group is an object, of a delete null; where a constraint refused the value, constraint is its name';
COMMENT ON COLUMN esync.conflict.shown_event IS 'event_id of the contender that the row shows, or showed when the conflict was closed; NULL: none of them';
COMMENT ON COLUMN esync.conflict.shown_value IS 'its value';
COMMENT ON COLUMN esync.conflict.status IS 'open or closed';
COMMENT ON COLUMN esync.conflict.opened_at IS 'commit time of opened_event';
COMMENT ON COLUMN esync.conflict.opened_event IS 'event_id of the event that contradicted first; the name in field was true then';
COMMENT ON COLUMN esync.conflict.resolved_at IS 'commit time of resolved_event; NULL: open';
COMMENT ON COLUMN esync.conflict.resolved_by IS 'user_id of resolved_event';
COMMENT ON COLUMN esync.conflict.resolution IS 'how it was closed: superseded by an edit whose author had seen all contenders, agreed by edits of one value, or the strategy of a decision';
COMMENT ON COLUMN esync.conflict.resolved_event IS 'event_id of the event that closed it';

CREATE TABLE esync.submission (
	client_event_id	uuid PRIMARY KEY,
	device_id		text COLLATE "C",
	user_id			text NOT NULL,
	hash			bytea NOT NULL,
	table_id		integer NOT NULL,
	result			jsonb NOT NULL,
	at				timestamptz NOT NULL
);
COMMENT ON TABLE esync.submission IS
'events that were accepted under an id of the client, with what was answered: a repeat gets the same answer and has no other effect';
COMMENT ON COLUMN esync.submission.client_event_id IS 'the id that the client gave the event';
COMMENT ON COLUMN esync.submission.device_id IS 'of the batch; NULL: none was named';
COMMENT ON COLUMN esync.submission.user_id IS 'as the context said';
COMMENT ON COLUMN esync.submission.hash IS 'SHA-256 of user, device and event as sent';
COMMENT ON COLUMN esync.submission.table_id IS 'esync.tracked_table';
COMMENT ON COLUMN esync.submission.result IS 'the element of "results" that was answered';
COMMENT ON COLUMN esync.submission.at IS 'when it was accepted';
-- an answer that tells a conflict has the row in it
DO $$
BEGIN
	IF 'lz4' = ANY (SELECT unnest(enumvals) FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression') THEN
		ALTER TABLE esync.submission ALTER COLUMN result SET COMPRESSION lz4;
	END IF;
END
$$;

CREATE TABLE esync.temporary_id (
	device_id	text COLLATE "C" NOT NULL,
	temporary	text COLLATE "C" NOT NULL,
	table_id	integer NOT NULL,
	value		jsonb NOT NULL,
	PRIMARY KEY (device_id, temporary)
);
COMMENT ON TABLE esync.temporary_id IS 'which row a device means by a temporary id';
COMMENT ON COLUMN esync.temporary_id.device_id IS 'who gave it';
COMMENT ON COLUMN esync.temporary_id.temporary IS 'tmp:... or temp_...';
COMMENT ON COLUMN esync.temporary_id.table_id IS 'esync.tracked_table of the row';
COMMENT ON COLUMN esync.temporary_id.value IS 'its real id';

CREATE SEQUENCE esync.rejected_id_seq AS bigint;
COMMENT ON SEQUENCE esync.rejected_id_seq IS 'source of esync.rejected.rejected_id';

CREATE TABLE esync.rejected (
	rejected_id		bigint PRIMARY KEY,
	table_id		integer,
	aggregate_id	text COLLATE "C",
	client_event_id	uuid,
	device_id		text COLLATE "C",
	user_id			text NOT NULL,
	db_role			text NOT NULL,
	hash			bytea NOT NULL,
	via				text NOT NULL,
	offset_ms		bigint NOT NULL,
	status			text NOT NULL CHECK (status IN ('open', 'closed', 'discarded')),
	code			text NOT NULL,
	message			text NOT NULL,
	event			jsonb NOT NULL,
	first_seen		timestamptz NOT NULL,
	last_seen		timestamptz NOT NULL,
	tries			integer NOT NULL
);
CREATE INDEX rejected_hash ON esync.rejected (hash);
CREATE INDEX rejected_client_event_id ON esync.rejected (client_event_id);
COMMENT ON TABLE esync.rejected IS
'events that were submitted and not applied, whole; esync_rejected() shows them, esync_retry() tries one again, esync_discard() gives one up';
COMMENT ON COLUMN esync.rejected.rejected_id IS 'as answered with the rejection';
COMMENT ON COLUMN esync.rejected.table_id IS 'esync.tracked_table; NULL: there is no such table';
COMMENT ON COLUMN esync.rejected.aggregate_id IS 'the row; NULL where it could not be told';
COMMENT ON COLUMN esync.rejected.client_event_id IS 'the id that the client gave the event; NULL: none, or no uuid';
COMMENT ON COLUMN esync.rejected.device_id IS 'as the batch said';
COMMENT ON COLUMN esync.rejected.user_id IS 'as the context said';
COMMENT ON COLUMN esync.rejected.db_role IS 'the role that PostgreSQL knows';
COMMENT ON COLUMN esync.rejected.hash IS 'SHA-256 of user, device and event: sent again, it is the same row';
COMMENT ON COLUMN esync.rejected.via IS 'the function that was called';
COMMENT ON COLUMN esync.rejected.offset_ms IS 'by how much its submit time is to be shifted';
COMMENT ON COLUMN esync.rejected.status IS '''open'', ''closed'': accepted later, ''discarded'': given up';
COMMENT ON COLUMN esync.rejected.code IS 'what was answered last';
COMMENT ON COLUMN esync.rejected.message IS 'what was answered last';
COMMENT ON COLUMN esync.rejected.event IS 'as sent';
COMMENT ON COLUMN esync.rejected.first_seen IS 'when it came first';
COMMENT ON COLUMN esync.rejected.last_seen IS 'when it was tried last';
COMMENT ON COLUMN esync.rejected.tries IS 'how often it was rejected';

CREATE TABLE esync.device (
	device_id		text COLLATE "C" NOT NULL,
	user_id			text COLLATE "C" NOT NULL,
	db_role			text NOT NULL,
	last_seen		timestamptz NOT NULL,
	clock_offset	interval,
	accepted		bigint NOT NULL,
	conflict		bigint NOT NULL,
	rejected		bigint NOT NULL,
	duplicates		bigint NOT NULL,
	PRIMARY KEY (device_id, user_id)
);
COMMENT ON TABLE esync.device IS 'who submitted from which device, and what became of it; one row a device and user';
COMMENT ON COLUMN esync.device.device_id IS 'as the batch said';
COMMENT ON COLUMN esync.device.user_id IS 'as the context said';
COMMENT ON COLUMN esync.device.db_role IS 'the role that PostgreSQL knows, the last time';
COMMENT ON COLUMN esync.device.last_seen IS 'when the last batch came';
COMMENT ON COLUMN esync.device.clock_offset IS 'by how much its clock was behind the server''s then';
COMMENT ON COLUMN esync.device.accepted IS 'how many events were accepted without a conflict';
COMMENT ON COLUMN esync.device.conflict IS 'how many were accepted and in conflict';
COMMENT ON COLUMN esync.device.rejected IS 'how many were rejected, each try counted';
COMMENT ON COLUMN esync.device.duplicates IS 'how many had been accepted before';

CREATE TABLE esync.consumer (
	consumer		text COLLATE "C" PRIMARY KEY,
	owner			text NOT NULL,
	tables			integer[],
	tenant			text,
	cursor			text,
	pending			text,
	leased_until	timestamptz,
	reset			text,
	created_at		timestamptz NOT NULL,
	polled_at		timestamptz,
	acked_at		timestamptz
);
COMMENT ON TABLE esync.consumer IS
'named cursors: who follows the changes by esync_poll and esync_ack, and how far; esync_consumers() shows them';
COMMENT ON COLUMN esync.consumer.consumer IS 'its name';
COMMENT ON COLUMN esync.consumer.owner IS 'name of the role that made it: its members may use it';
COMMENT ON COLUMN esync.consumer.tables IS 'esync.tracked_table: what it reads; NULL: all that the caller may read';
COMMENT ON COLUMN esync.consumer.tenant IS 'whose rows it reads; NULL: all';
COMMENT ON COLUMN esync.consumer.cursor IS 'what was acknowledged; NULL: nothing yet';
COMMENT ON COLUMN esync.consumer.pending IS 'what was given out last and not acknowledged';
COMMENT ON COLUMN esync.consumer.leased_until IS 'until then nobody else is given it';
COMMENT ON COLUMN esync.consumer.reset IS 'why its cursor is of no use any more; NULL: it is good';
COMMENT ON COLUMN esync.consumer.created_at IS 'when it was made';
COMMENT ON COLUMN esync.consumer.polled_at IS 'when it was polled last; where nothing was new, noted every ten seconds';
COMMENT ON COLUMN esync.consumer.acked_at IS 'when something was acknowledged last';

-- they have no key, and must be replicable where everything is published
ALTER TABLE esync.tracked_column REPLICA IDENTITY FULL;
ALTER TABLE esync.life REPLICA IDENTITY FULL;

SELECT pg_catalog.pg_extension_config_dump('esync.table_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('esync.event_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('esync.tracked_table', '');
SELECT pg_catalog.pg_extension_config_dump('esync.tracked_column', '');
SELECT pg_catalog.pg_extension_config_dump('esync.life', '');
SELECT pg_catalog.pg_extension_config_dump('esync.conflict_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('esync.conflict', '');
SELECT pg_catalog.pg_extension_config_dump('esync.submission', '');
SELECT pg_catalog.pg_extension_config_dump('esync.temporary_id', '');
SELECT pg_catalog.pg_extension_config_dump('esync.rejected_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('esync.rejected', '');
SELECT pg_catalog.pg_extension_config_dump('esync.device', '');
SELECT pg_catalog.pg_extension_config_dump('esync.consumer', '');


----------------------------------------------------------- triggers: capture.c

CREATE FUNCTION esync.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_capture';
COMMENT ON FUNCTION esync.capture() IS
'row trigger that writes events; made by esync_enable, executable by all so that owners can add partitions, refuses tables that are not tracked';

CREATE FUNCTION esync.truncate() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_truncate';
COMMENT ON FUNCTION esync.truncate() IS
'statement trigger that writes a Deleted event for every row before TRUNCATE; made by esync_enable';

CREATE FUNCTION esync.stamp() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_stamp';
COMMENT ON FUNCTION esync.stamp() IS
'row trigger that keeps the columns of the option last_modified; made by esync_enable';

CREATE FUNCTION esync.merge() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_merge_row';
COMMENT ON FUNCTION esync.merge() IS
'row trigger that merges an UPDATE into the row where the context names a base; made by esync_enable for the option sql_merge';


------------------------------------- names and plans: lineage.c, tracked.c, key.c

CREATE FUNCTION esync.record_columns(table_id integer, tbl regclass, from_event bigint, mark boolean) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'esync_record_columns';
COMMENT ON FUNCTION esync.record_columns(integer, regclass, bigint, boolean) IS
'writes the present names of all columns into esync.tracked_column, as true from that event on, where they are not there yet; with mark, rows are compared with their stream at their next write';
REVOKE ALL ON FUNCTION esync.record_columns(integer, regclass, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION esync.present_name(table_id integer, tbl regclass, name name, as_of bigint, namesake boolean) RETURNS name
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'esync_present_name';
COMMENT ON FUNCTION esync.present_name(integer, regclass, name, bigint, boolean) IS
'what the column is called now that bore that name at that event; NULL if it is gone, or with namesake the one that bears its name now';
REVOKE ALL ON FUNCTION esync.present_name(integer, regclass, name, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION esync.invalidate(tbl regclass) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'esync_invalidate';
COMMENT ON FUNCTION esync.invalidate(regclass) IS
'makes every session read the configuration of a table anew';
REVOKE ALL ON FUNCTION esync.invalidate(regclass) FROM PUBLIC;

CREATE FUNCTION esync.close_leaves() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_close_leaves';
COMMENT ON FUNCTION esync.close_leaves() IS
'gives back what this session holds of the leaves of the stream, so that they can be altered';
REVOKE ALL ON FUNCTION esync.close_leaves() FROM PUBLIC;

CREATE FUNCTION esync.key_type_fits(type oid, collation_ oid) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_key_type_fits';
COMMENT ON FUNCTION esync.key_type_fits(oid, oid) IS
'whether equal values of a type and collation have one canonical text, so that they can be a key';
REVOKE ALL ON FUNCTION esync.key_type_fits(oid, oid) FROM PUBLIC;

CREATE FUNCTION esync.aggregate_id(tbl regclass, key text) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_key_canonical';
COMMENT ON FUNCTION esync.aggregate_id(regclass, text) IS
'the canonical form of a key of a tracked table, as esync.event.aggregate_id has it';

CREATE FUNCTION esync.key_object(tbl regclass, key text) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_key_as_object';
COMMENT ON FUNCTION esync.key_object(regclass, text) IS
'a key of a tracked table as a JSON object of its columns';

CREATE FUNCTION esync.key_columns(tbl regclass) RETURNS name[]
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_key_names';
COMMENT ON FUNCTION esync.key_columns(regclass) IS
'the columns of the key of a tracked table by their present names; NULL where the table is not tracked';


------------------------------------------------------------------- switching

CREATE FUNCTION esync.check_table(tbl regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	c pg_class;
	relative regclass;
BEGIN
	SELECT * INTO STRICT c FROM pg_class WHERE oid = tbl;
	IF c.relnamespace IN ('esync'::regnamespace, 'pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
		OR c.relnamespace = to_regnamespace('information_schema') THEN
		RAISE EXCEPTION 'cannot track "%": it belongs to the system or to esync', tbl
			USING ERRCODE = 'insufficient_privilege', HINT = 'Only tables of users can be tracked.';
	END IF;
	IF c.relkind NOT IN ('r', 'p') THEN
		RAISE EXCEPTION 'cannot track "%": it is not a table', tbl
			USING ERRCODE = 'wrong_object_type',
			HINT = 'Views, materialized views and foreign tables have no row triggers that could record; name the tables behind them.';
	END IF;
	IF c.relpersistence = 't' THEN
		RAISE EXCEPTION 'cannot track temporary table "%"', tbl
			USING ERRCODE = 'feature_not_supported',
			HINT = 'A temporary table is seen by one session alone.';
	END IF;
	SELECT t.relation INTO relative FROM esync.tracked_table t
	WHERE t.enabled AND t.relation <> tbl
		AND (t.relation IN (SELECT relid FROM pg_partition_ancestors(tbl))
			OR tbl IN (SELECT relid FROM pg_partition_ancestors(t.relation)))
	LIMIT 1;
	IF relative IS NOT NULL THEN
		RAISE EXCEPTION 'cannot track "%": its relative "%" is tracked', tbl, relative
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Track the partitioned table itself, or its partitions one by one, not both.';
	END IF;
END
$$;
COMMENT ON FUNCTION esync.check_table(regclass) IS 'raises unless it is a table that can be tracked';
REVOKE ALL ON FUNCTION esync.check_table(regclass) FROM PUBLIC;

CREATE FUNCTION esync.check_columns(tbl regclass, option text, columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	col text;
BEGIN
	FOREACH col IN ARRAY columns LOOP
		IF col IS NULL OR NOT EXISTS (SELECT FROM pg_attribute
			WHERE attrelid = tbl AND attname = col AND attnum > 0 AND NOT attisdropped) THEN
			RAISE EXCEPTION 'column "%" of option "%" does not exist in table "%"', col, option, tbl
				USING ERRCODE = 'undefined_column',
				HINT = 'Names are taken as they stand in the catalog: fold unquoted ones to lower case yourself.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION esync.check_columns(regclass, text, text[]) IS
'raises unless every name is a column of the table';
REVOKE ALL ON FUNCTION esync.check_columns(regclass, text, text[]) FROM PUBLIC;

CREATE FUNCTION esync.find_key(tbl regclass, key name[]) RETURNS name[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	result name[];
	col record;
BEGIN
	IF key IS NULL THEN
		SELECT array_agg(a.attname ORDER BY k.place) INTO result
		FROM pg_index i
		CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE i.indrelid = tbl AND i.indisprimary AND i.indimmediate AND k.place <= i.indnkeyatts;
		IF result IS NULL THEN
			RAISE EXCEPTION 'table "%" has no primary key', tbl
				USING ERRCODE = 'YS002', DETAIL = 'Without a key no row can be told from another; a deferrable one does not count.',
				HINT = 'Add one, or name the columns of an index fit for REPLICA IDENTITY USING INDEX with the option key.';
		END IF;
	ELSE
		PERFORM esync.check_columns(tbl, 'key', key);
		result := key;
		IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = tbl AND attname = ANY (key) AND NOT attnotnull)
			OR (SELECT relkind = 'r' FROM pg_class WHERE oid = tbl) AND NOT EXISTS (
			SELECT FROM pg_index i
			WHERE i.indrelid = tbl AND i.indisunique AND i.indimmediate AND i.indisvalid
				AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality(key)
				AND NOT EXISTS (
					SELECT FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
					JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
					WHERE k.place <= i.indnkeyatts AND a.attname <> ALL (key)))
			OR cardinality(key) = 0
			OR cardinality(key) <> (SELECT count(DISTINCT n) FROM unnest(key) AS n) THEN
			RAISE EXCEPTION 'option "key" does not name the columns of a fit index of table "%"', tbl
				USING ERRCODE = 'YS002', DETAIL = format('Given is: %s.', array_to_string(key, ', ')),
				HINT = 'The columns must be NOT NULL and have a unique index that is not partial, not deferrable and has no expressions; on a partitioned table NOT NULL is enough if you vouch for uniqueness.';
		END IF;
	END IF;
	FOR col IN
		SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
		FROM pg_attribute a
		WHERE a.attrelid = tbl AND a.attname = ANY (result)
			AND NOT esync.key_type_fits(a.atttypid, a.attcollation)
	LOOP
		RAISE EXCEPTION 'column "%" of type % cannot be part of a key', col.attname, col.type
			USING ERRCODE = 'YS002', DETAIL = 'Two of its values may be equal and yet differ, so a row would have two names in the stream.',
			HINT = 'Use the option key with other columns; numbers, uuid, dates, enums and text with a deterministic collation fit.';
	END LOOP;
	RETURN result;
END
$$;
COMMENT ON FUNCTION esync.find_key(regclass, name[]) IS
'the key columns of a table: those given, or the primary key; raises where they cannot name rows';
REVOKE ALL ON FUNCTION esync.find_key(regclass, name[]) FROM PUBLIC;

CREATE FUNCTION esync.check_groups(tbl regclass, groups jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	g record;
	twice text;
BEGIN
	IF jsonb_typeof(groups) <> 'object' THEN
		RAISE EXCEPTION 'option groups must be a JSON object'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Such as {"name": ["column", "column"]}; ''{}'' removes all groups.';
	END IF;
	FOR g IN SELECT key AS name, value AS columns FROM jsonb_each(groups) LOOP
		IF g.name = '' OR octet_length(g.name) > 63 OR strpos(g.name, '/') > 0 OR EXISTS (SELECT FROM pg_attribute
			WHERE attrelid = tbl AND attname::text = g.name AND NOT attisdropped) THEN
			RAISE EXCEPTION 'invalid name "%" of a group of table "%"', g.name, tbl
				USING ERRCODE = 'invalid_parameter_value',
				HINT = 'A conflict of the group bears this name: it must not be empty, the name of a column, contain a slash, or exceed 63 bytes.';
		END IF;
		IF jsonb_typeof(g.columns) <> 'array' OR jsonb_path_exists(g.columns, 'strict $[*] ? (@.type() != "string")') THEN
			RAISE EXCEPTION 'group "%" must be a JSON array of column names', g.name USING ERRCODE = 'invalid_parameter_value';
		END IF;
		PERFORM esync.check_columns(tbl, 'groups', ARRAY(SELECT jsonb_array_elements_text(g.columns)));
		IF jsonb_array_length(g.columns) < 2 THEN
			RAISE EXCEPTION 'group "%" has less than two columns', g.name
				USING ERRCODE = 'invalid_parameter_value', HINT = 'One column wins or loses by itself.';
		END IF;
	END LOOP;
	SELECT c.name INTO twice FROM jsonb_each(groups), jsonb_array_elements_text(value) AS c (name)
	GROUP BY c.name HAVING count(*) > 1 ORDER BY c.name LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'column "%" stands in groups more than once', twice
			USING ERRCODE = 'invalid_parameter_value', HINT = 'A column belongs to one group.';
	END IF;
END
$$;
COMMENT ON FUNCTION esync.check_groups(regclass, jsonb) IS
'raises unless the option groups, as given, names columns of the table, each once';
REVOKE ALL ON FUNCTION esync.check_groups(regclass, jsonb) FROM PUBLIC;

CREATE FUNCTION esync.key_type(tbl regclass, col name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH RECURSIVE base (type) AS (
	SELECT atttypid FROM pg_attribute WHERE attrelid = tbl AND attname = col AND NOT attisdropped
	UNION ALL
	SELECT t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd')
SELECT CASE WHEN type IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype) THEN 'text'
	WHEN type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype) THEN 'number'
	ELSE format_type(type, NULL) END
FROM base JOIN pg_type t ON t.oid = type
WHERE t.typtype <> 'd'
$$;
COMMENT ON FUNCTION esync.key_type(regclass, name) IS
'the kind of values that a column holds: columns of one kind can be compared as keys';
REVOKE ALL ON FUNCTION esync.key_type(regclass, name) FROM PUBLIC;

CREATE FUNCTION esync.find_links(tbl regclass, links jsonb, o esync.tracked_table) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	l record;
	parent esync.tracked_table;
	parent_key name[];
	result jsonb := '{}';
BEGIN
	IF jsonb_typeof(links) <> 'object' OR jsonb_path_exists(links, 'strict $.* ? (@.type() != "string")') THEN
		RAISE EXCEPTION 'option links must be a JSON object of table names'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Such as {"column": "schema.table"}; ''{}'' removes all links.';
	END IF;
	PERFORM esync.check_columns(tbl, 'links', ARRAY(SELECT jsonb_object_keys(links)));
	FOR l IN SELECT key AS col, value AS name FROM jsonb_each_text(links) LOOP
		parent := o;
		parent_key := o.key_columns;
		IF to_regclass(l.name) IS DISTINCT FROM tbl AND l.name <> o.aggregate_type THEN
			SELECT t.* INTO parent FROM esync.tracked_table t
			WHERE t.enabled AND (t.relation = to_regclass(l.name) OR t.aggregate_type = l.name)
			ORDER BY t.relation = to_regclass(l.name) DESC NULLS LAST LIMIT 1;
			parent_key := esync.present_names(parent, parent.key_columns);
		END IF;
		IF parent.relation IS NULL THEN
			RAISE EXCEPTION 'table "%", to which column "%" is linked, is not tracked', l.name, l.col
				USING ERRCODE = 'YS001', HINT = 'Call esync_enable for that table first.';
		END IF;
		IF cardinality(parent_key) <> 1
			OR esync.key_type(tbl, l.col::name) IS DISTINCT FROM esync.key_type(parent.relation, parent_key[1]) THEN
			RAISE EXCEPTION 'column "%" cannot be linked to table "%"', l.col, parent.relation
				USING ERRCODE = 'datatype_mismatch',
				HINT = 'The key of that table must be one column with a type that this column can be compared with.';
		END IF;
		result := result || jsonb_build_object(l.col, parent.table_id);
	END LOOP;
	RETURN result;
END
$$;
COMMENT ON FUNCTION esync.find_links(regclass, jsonb, esync.tracked_table) IS
'the option links, as given, with the table_id of each table in place of its name; raises where one cannot be linked';
REVOKE ALL ON FUNCTION esync.find_links(regclass, jsonb, esync.tracked_table) FROM PUBLIC;

CREATE FUNCTION esync.check_options(tbl regclass, o esync.tracked_table) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	clash record;
	col name;
BEGIN
	IF o.mode <> 'events' THEN
		RAISE EXCEPTION 'invalid mode "%"', o.mode
			USING ERRCODE = 'invalid_parameter_value', HINT = 'The mode is ''events''.';
	END IF;
	IF o.payload NOT IN ('full', 'changes') THEN
		RAISE EXCEPTION 'invalid payload "%"', o.payload
			USING ERRCODE = 'invalid_parameter_value', HINT = 'The payload is ''full'' or ''changes''.';
	END IF;
	IF o.on_conflict NOT IN ('merge', 'server_wins', 'client_wins', 'last_write_wins', 'reject') THEN
		RAISE EXCEPTION 'invalid on_conflict "%"', o.on_conflict
			USING ERRCODE = 'invalid_parameter_value', HINT = 'It is ''merge'', ''server_wins'', ''client_wins'', ''last_write_wins'' or ''reject''.';
	END IF;
	IF o.aggregate_type = '' THEN
		RAISE EXCEPTION 'aggregate_type must not be empty' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF EXISTS (SELECT FROM esync.tracked_table t
		WHERE t.aggregate_type = o.aggregate_type AND t.relation <> tbl) THEN
		RAISE EXCEPTION 'aggregate_type "%" is taken by another tracked table', o.aggregate_type
			USING ERRCODE = 'unique_violation', HINT = 'Give the table another one with the option aggregate_type.';
	END IF;
	IF o.retention <= interval '0' THEN
		RAISE EXCEPTION 'retention must be positive' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM esync.check_columns(tbl, 'exclude', o.exclude),
		esync.check_columns(tbl, 'mask', o.mask),
		esync.check_columns(tbl, 'last_modified', o.last_modified),
		esync.check_columns(tbl, 'tombstone', CASE WHEN o.tombstone IS NULL THEN '{}' ELSE ARRAY[o.tombstone] END),
		esync.check_columns(tbl, 'tenant', CASE WHEN o.tenant IS NULL THEN '{}' ELSE ARRAY[o.tenant] END),
		esync.check_columns(tbl, 'json_merge', o.json_merge);
	FOREACH col IN ARRAY o.json_merge LOOP
		IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = tbl AND attname = col
			AND atttypid = 'jsonb'::regtype AND attgenerated = '') THEN
			RAISE EXCEPTION 'column "%" cannot serve as json_merge of table "%"', col, tbl
				USING ERRCODE = 'datatype_mismatch', HINT = 'It must be an ordinary column of type jsonb.';
		END IF;
	END LOOP;
	SELECT a.attname INTO col FROM pg_attribute a
	WHERE a.attrelid = tbl AND a.attgenerated <> '' AND (o.links ? a.attname
		OR EXISTS (SELECT FROM jsonb_each(o.groups) AS g WHERE g.value ? a.attname)) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'generated column "%" cannot stand in groups or links of table "%"', col, tbl
			USING ERRCODE = 'invalid_parameter_value', HINT = 'It has no value of its own: name the columns that it is made from.';
	END IF;
	FOREACH col IN ARRAY o.last_modified || CASE WHEN o.tombstone IS NULL THEN '{}' ELSE ARRAY[o.tombstone] END LOOP
		IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = tbl AND attname = col
			AND atttypid = 'timestamptz'::regtype AND attgenerated = '') THEN
			RAISE EXCEPTION 'column "%" cannot serve as % of table "%"', col,
				CASE WHEN col = o.tombstone THEN 'tombstone' ELSE 'last_modified' END, tbl
				USING ERRCODE = 'datatype_mismatch', HINT = 'It must be an ordinary column of type timestamp with time zone.';
		END IF;
	END LOOP;
	IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = tbl AND attname = o.tenant AND attgenerated <> '') THEN
		RAISE EXCEPTION 'column "%" cannot serve as tenant of table "%"', o.tenant, tbl
			USING ERRCODE = 'invalid_parameter_value', HINT = 'It must not be a generated column.';
	END IF;
	IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = tbl AND attname = o.tombstone AND attnotnull) THEN
		RAISE EXCEPTION 'column "%" cannot serve as tombstone of table "%"', o.tombstone, tbl
			USING ERRCODE = 'invalid_parameter_value', HINT = 'It must be nullable: NULL says that the row lives.';
	END IF;
	-- a column plays one part; only key, tenant and links may go together, and links with groups
	SELECT col.n AS name, string_agg(r.part, ' and ' ORDER BY r.part) AS parts INTO clash
	FROM (VALUES ('key', o.key_columns), ('exclude', o.exclude), ('mask', o.mask), ('last_modified', o.last_modified),
		('tombstone', ARRAY[o.tombstone]), ('tenant', ARRAY[o.tenant]), ('json_merge', o.json_merge),
		('groups', ARRAY(SELECT jsonb_array_elements_text(value)::name FROM jsonb_each(o.groups))),
		('links', ARRAY(SELECT jsonb_object_keys(o.links)::name))) AS r (part, names)
	CROSS JOIN LATERAL (SELECT DISTINCT unnest(r.names)) AS col (n)
	WHERE col.n IS NOT NULL
	GROUP BY col.n
	HAVING count(*) > 1 AND string_agg(r.part, ' and ' ORDER BY r.part) <> ALL
		('{key and tenant,key and links,links and tenant,key and links and tenant,groups and links}')
	ORDER BY col.n LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'options contradict each other: column "%" is %', clash.name, clash.parts
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the column in one of these options alone.';
	END IF;
END
$$;
COMMENT ON FUNCTION esync.check_options(regclass, esync.tracked_table) IS
'raises unless the options fit the table and each other';
REVOKE ALL ON FUNCTION esync.check_options(regclass, esync.tracked_table) FROM PUBLIC;

CREATE FUNCTION esync.revoke_all(rel regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	grantee oid;
BEGIN
	FOR grantee IN SELECT DISTINCT a.grantee FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.oid = rel AND a.grantee <> c.relowner LOOP
		EXECUTE format('REVOKE ALL ON %s %s FROM %s', CASE (SELECT relkind FROM pg_class WHERE oid = rel) WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
			rel, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END);
	END LOOP;
END
$$;
COMMENT ON FUNCTION esync.revoke_all(regclass) IS
'takes from a relation what default privileges may have granted: nobody holds rights on the stream unless somebody says so of it';
REVOKE ALL ON FUNCTION esync.revoke_all(regclass) FROM PUBLIC;

CREATE FUNCTION esync.make_leaf(table_id integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	leaf text := format('event_%s', table_id);
BEGIN
	IF to_regclass('esync.' || leaf) IS NOT NULL THEN
		RETURN;
	END IF;
	-- stand-alone first, then attached: no ACCESS EXCLUSIVE lock on the parent
	EXECUTE format('CREATE TABLE esync.%I (LIKE esync.event, CONSTRAINT attaching CHECK (table_id = %s))', leaf, table_id);
	IF 'lz4' = ANY (SELECT unnest(enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
		EXECUTE format('ALTER TABLE esync.%I ALTER COLUMN payload SET COMPRESSION lz4, ALTER COLUMN patch SET COMPRESSION lz4', leaf);
	END IF;
	EXECUTE format('CREATE UNIQUE INDEX ON esync.%I (aggregate_id, version)', leaf);
	EXECUTE format('CREATE INDEX ON esync.%I (xid, event_id)', leaf);
	-- a window of events that many tables share reads one range of each
	EXECUTE format('CREATE INDEX ON esync.%I USING brin (event_id) WITH (pages_per_range = 32)', leaf);
	EXECUTE format('ALTER TABLE esync.event ATTACH PARTITION esync.%I FOR VALUES IN (%s)', leaf, table_id);
	EXECUTE format('ALTER TABLE esync.%I DROP CONSTRAINT attaching', leaf);
	PERFORM esync.revoke_all(to_regclass('esync.' || leaf));
	EXECUTE format('COMMENT ON TABLE esync.%I IS %L', leaf,
		format('events of the table that esync.tracked_table names with table_id %s', table_id));
END
$$;
COMMENT ON FUNCTION esync.make_leaf(integer) IS 'makes the leaf of the stream for a tracked table, if it is not there';
REVOKE ALL ON FUNCTION esync.make_leaf(integer) FROM PUBLIC;

CREATE FUNCTION esync.make_trigger(rel regclass, name name, definition text, function regprocedure) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	present pg_trigger;
BEGIN
	SELECT * INTO present FROM pg_trigger WHERE tgrelid = rel AND tgname = make_trigger.name;
	IF NOT FOUND THEN
		EXECUTE format('CREATE TRIGGER %I %s ON %s %s EXECUTE FUNCTION %s', name,
			split_part(definition, ' FOR ', 1), rel, 'FOR ' || split_part(definition, ' FOR ', 2), function);
	ELSIF present.tgfoid <> function THEN
		RAISE EXCEPTION 'table "%" has a trigger "%" that is not of esync', rel, name
			USING ERRCODE = 'duplicate_object', HINT = 'Rename or drop it.';
	ELSIF present.tgenabled IN ('D', 'R') THEN
		EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', rel, name);
	END IF;
END
$$;
COMMENT ON FUNCTION esync.make_trigger(regclass, name, text, regprocedure) IS
'makes one trigger of esync, or switches it on where it is disabled';
REVOKE ALL ON FUNCTION esync.make_trigger(regclass, name, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION esync.drop_trigger(rel regclass, name name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = rel AND t.tgname = drop_trigger.name) THEN
		EXECUTE format('DROP TRIGGER %I ON %s', name, rel);
	END IF;
END
$$;
COMMENT ON FUNCTION esync.drop_trigger(regclass, name) IS 'drops one trigger of esync, if it is there';
REVOKE ALL ON FUNCTION esync.drop_trigger(regclass, name) FROM PUBLIC;

CREATE FUNCTION esync.make_truncate_triggers(tbl regclass, only_new boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	rel regclass;
BEGIN
	-- statement triggers are not cloned to partitions
	FOR rel IN SELECT tbl UNION SELECT relid FROM pg_partition_tree(tbl) JOIN pg_class ON oid = relid WHERE relkind IN ('r', 'p') LOOP
		IF NOT only_new OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = rel AND t.tgname = '0_esync_truncate') THEN
			PERFORM esync.make_trigger(rel, '0_esync_truncate', 'BEFORE TRUNCATE FOR EACH STATEMENT', 'esync.truncate()');
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION esync.make_truncate_triggers(regclass, boolean) IS
'makes the truncate triggers of a tracked table and its partitions; only_new leaves those alone that are there, disabled or not';
REVOKE ALL ON FUNCTION esync.make_truncate_triggers(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION esync.make_triggers(tbl regclass, stamped boolean, merged boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
	PERFORM esync.make_trigger(tbl, '0_esync_capture', 'AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW', 'esync.capture()');
	IF stamped THEN
		PERFORM esync.make_trigger(tbl, '~_esync_stamp', 'BEFORE INSERT OR UPDATE FOR EACH ROW', 'esync.stamp()');
	ELSE
		PERFORM esync.drop_trigger(tbl, '~_esync_stamp');
	END IF;
	IF merged THEN
		PERFORM esync.make_trigger(tbl, '0_esync_merge', 'BEFORE UPDATE FOR EACH ROW', 'esync.merge()');
	ELSE
		PERFORM esync.drop_trigger(tbl, '0_esync_merge');
	END IF;
	PERFORM esync.make_truncate_triggers(tbl, false);
END
$$;
COMMENT ON FUNCTION esync.make_triggers(regclass, boolean, boolean) IS 'makes the triggers of a tracked table that are missing';
REVOKE ALL ON FUNCTION esync.make_triggers(regclass, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION esync.present_names(o esync.tracked_table, names name[], namesake boolean DEFAULT false) RETURNS name[]
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
SELECT coalesce(array_agg(p.name ORDER BY n.place) FILTER (WHERE p.name IS NOT NULL), '{}')
FROM unnest(names) WITH ORDINALITY AS n (name, place),
	LATERAL esync.present_name(o.table_id, o.relation, n.name, o.options_as_of, namesake) AS p (name)
$$;
COMMENT ON FUNCTION esync.present_names(esync.tracked_table, name[], boolean) IS
'what the columns that an option names are called now; those that are gone are left out';
REVOKE ALL ON FUNCTION esync.present_names(esync.tracked_table, name[], boolean) FROM PUBLIC;

CREATE FUNCTION esync.present_groups(o esync.tracked_table) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
SELECT coalesce(jsonb_object_agg(g.key, to_jsonb(p.names)) FILTER (WHERE p.names <> '{}'), '{}')
FROM jsonb_each(o.groups) AS g,
	LATERAL esync.present_names(o, ARRAY(SELECT jsonb_array_elements_text(g.value)::name)) AS p (names)
$$;
COMMENT ON FUNCTION esync.present_groups(esync.tracked_table) IS
'the option groups with the names that its columns have now; a group stays as long as one of them is there';
REVOKE ALL ON FUNCTION esync.present_groups(esync.tracked_table) FROM PUBLIC;

CREATE FUNCTION esync.present_links(o esync.tracked_table) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
SELECT coalesce(jsonb_object_agg(p.names[1], l.value) FILTER (WHERE p.names <> '{}'), '{}')
FROM jsonb_each(o.links) AS l, LATERAL esync.present_names(o, ARRAY[l.key::name]) AS p (names)
WHERE EXISTS (SELECT FROM esync.tracked_table t WHERE t.table_id = (l.value #>> '{}')::integer AND t.relation IS NOT NULL)
$$;
COMMENT ON FUNCTION esync.present_links(esync.tracked_table) IS
'the option links with the names that its columns have now; links to tables that are gone are left out';
REVOKE ALL ON FUNCTION esync.present_links(esync.tracked_table) FROM PUBLIC;

CREATE FUNCTION esync.enable_table(tbl regclass, mode text, payload text, aggregate_type text,
	exclude name[], mask name[], last_modified name[], tombstone name, tenant name, sql_merge boolean,
	on_conflict text, groups jsonb, json_merge name[], links jsonb, retention interval, baseline boolean,
	notify boolean, key name[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_variable
DECLARE
	o esync.tracked_table;
	is_new boolean;
	was_key name[];
	was_hidden name[] := '{}';
	was_stamped name[] := '{}';
BEGIN
	IF mode = 'last_modified' THEN
		RAISE EXCEPTION 'mode "last_modified" is not supported by this version of esync'
			USING ERRCODE = 'feature_not_supported', HINT = 'Leave it out: the mode is ''events''.';
	END IF;
	PERFORM esync.check_table(tbl);
	-- a trigger that will be dropped needs the stronger lock at once: no upgrade, no deadlock
	EXECUTE format('LOCK TABLE %s IN %s MODE', tbl, CASE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = tbl
		AND (t.tgname = '~_esync_stamp' AND last_modified = '{}' OR t.tgname = '0_esync_merge' AND NOT sql_merge))
		THEN 'ACCESS EXCLUSIVE' ELSE 'SHARE ROW EXCLUSIVE' END);
	SELECT * INTO o FROM esync.tracked_table t WHERE t.relation = tbl;
	is_new := NOT FOUND;
	IF is_new THEN
		o.table_id := nextval('esync.table_id_seq');
		o.relation := tbl;
		o.mode := 'events';
		o.payload := 'full';
		o.exclude := '{}';
		o.mask := '{}';
		o.last_modified := '{}';
		o.notify := false;
		o.sql_merge := true;
		o.on_conflict := 'merge';
		o.groups := '{}';
		o.json_merge := '{}';
		o.links := '{}';
		o.since := clock_timestamp();
		SELECT relname INTO o.aggregate_type FROM pg_class WHERE oid = tbl;
	ELSE
		o.exclude := esync.present_names(o, o.exclude, true);
		o.mask := esync.present_names(o, o.mask, true);
		o.last_modified := esync.present_names(o, o.last_modified);
		o.json_merge := esync.present_names(o, o.json_merge);
		o.groups := esync.present_groups(o);
		o.links := esync.present_links(o);
		o.key := CASE WHEN o.key IS NOT NULL THEN esync.present_names(o, o.key) END;
		o.tombstone := (esync.present_names(o, ARRAY[o.tombstone]))[1];
		o.tenant := (esync.present_names(o, ARRAY[o.tenant]))[1];
		was_key := esync.present_names(o, o.key_columns);
		IF cardinality(was_key) < cardinality(o.key_columns) THEN
			was_key := o.key_columns;
		END IF;
		was_hidden := o.exclude || o.mask;
		was_stamped := o.last_modified;
	END IF;
	SELECT n.nspname, c.relname INTO o.schema_name, o.table_name
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = tbl;
	o.enabled := true;
	o.mode := coalesce(mode, o.mode);
	o.payload := coalesce(payload, o.payload);
	o.aggregate_type := coalesce(aggregate_type, o.aggregate_type);
	o.exclude := coalesce(exclude, o.exclude);
	o.mask := coalesce(mask, o.mask);
	o.last_modified := coalesce(last_modified, o.last_modified);
	o.tombstone := nullif(coalesce(tombstone, o.tombstone), '');
	o.tenant := nullif(coalesce(tenant, o.tenant), '');
	o.retention := nullif(coalesce(retention, o.retention), interval '0');
	o.notify := coalesce(notify, o.notify);
	o.sql_merge := coalesce(sql_merge, o.sql_merge);
	o.on_conflict := coalesce(on_conflict, o.on_conflict);
	o.json_merge := coalesce(json_merge, o.json_merge);
	o.key := nullif(coalesce(key, o.key), '{}');
	o.key_columns := esync.find_key(tbl, o.key);
	IF o.key_columns <> was_key THEN
		RAISE EXCEPTION 'the key of table "%" cannot change while its history is kept', tbl
			USING ERRCODE = 'YS002', DETAIL = format('The stream names rows by: %s; the key is now: %s.',
				array_to_string(was_key, ', '), array_to_string(o.key_columns, ', ')),
			HINT = 'Name the former columns with the option key, if they still have a fit index; or call esync_disable with drop_history (the manual says how to keep the events elsewhere), and begin anew.';
	END IF;
	IF groups IS NOT NULL THEN
		PERFORM esync.check_groups(tbl, groups);
		o.groups := groups;
	END IF;
	IF links IS NOT NULL THEN
		o.links := esync.find_links(tbl, links, o);
	END IF;
	PERFORM esync.check_options(tbl, o);
	o.options_as_of := nextval('esync.event_id_seq');
	PERFORM esync.record_columns(o.table_id, tbl, o.options_as_of,
		NOT is_new AND (was_hidden || was_stamped) IS DISTINCT FROM (o.exclude || o.mask || o.last_modified));
	BEGIN
		DELETE FROM esync.tracked_table t WHERE t.table_id = o.table_id;
		INSERT INTO esync.tracked_table SELECT o.*;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION 'could not serialize access due to a concurrent esync_enable of table "%"', tbl
			USING ERRCODE = 'serialization_failure', HINT = 'The transaction might succeed if retried.';
	END;
	PERFORM esync.make_leaf(o.table_id), esync.make_triggers(tbl, o.last_modified <> '{}', o.sql_merge), esync.invalidate(tbl);
	-- of a column that was hidden the stream does not know what it holds
	RETURN EXISTS (SELECT unnest(was_hidden || was_stamped) EXCEPT SELECT unnest(o.exclude || o.mask || o.last_modified));
END
$$;
COMMENT ON FUNCTION esync.enable_table(regclass, text, text, text, name[], name[], name[], name, name, boolean,
	text, jsonb, name[], jsonb, interval, boolean, boolean, name[]) IS
'the work of esync_enable, run as the owner of the extension; true if every row must be compared with its stream now';
REVOKE ALL ON FUNCTION esync.enable_table(regclass, text, text, text, name[], name[], name[], name, name, boolean,
	text, jsonb, name[], jsonb, interval, boolean, boolean, name[]) FROM PUBLIC;

CREATE FUNCTION @extschema@.esync_enable(tbl regclass, mode text DEFAULT NULL, payload text DEFAULT NULL,
	aggregate_type text DEFAULT NULL, exclude name[] DEFAULT NULL, mask name[] DEFAULT NULL,
	last_modified name[] DEFAULT NULL, tombstone name DEFAULT NULL, tenant name DEFAULT NULL,
	sql_merge boolean DEFAULT NULL, on_conflict text DEFAULT NULL, groups jsonb DEFAULT NULL,
	json_merge name[] DEFAULT NULL, links jsonb DEFAULT NULL, retention interval DEFAULT NULL,
	baseline boolean DEFAULT NULL, notify boolean DEFAULT NULL, key name[] DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_enable_table';
COMMENT ON FUNCTION @extschema@.esync_enable(regclass, text, text, text, name[], name[], name[], name, name, boolean,
	text, jsonb, name[], jsonb, interval, boolean, boolean, name[]) IS
'begins to record the changes of a table, or changes its options: those not given keep their value ('''' clears tombstone and tenant, ''0'' retention, ''{}'' each option that names columns); takes the lock of CREATE TRIGGER; reads the whole table where baseline is asked for, or a column is recorded that was excluded, masked or last_modified; the caller must own the table';
REVOKE ALL ON FUNCTION @extschema@.esync_enable(regclass, text, text, text, name[], name[], name[], name, name, boolean,
	text, jsonb, name[], jsonb, interval, boolean, boolean, name[]) FROM PUBLIC;

CREATE FUNCTION esync.disable_table(tbl regclass, drop_history boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	o esync.tracked_table;
	rel regclass;
BEGIN
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tbl);
	SELECT * INTO o FROM esync.tracked_table t WHERE t.relation = tbl;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'table "%" is not tracked', tbl USING ERRCODE = 'YS001',
			HINT = 'SELECT * FROM esync_status() lists the tables that are.';
	END IF;
	PERFORM esync.close_leaves();
	PERFORM esync.drop_trigger(tbl, '0_esync_capture'), esync.drop_trigger(tbl, '0_esync_merge'),
		esync.drop_trigger(tbl, '~_esync_stamp');
	FOR rel IN SELECT tbl UNION SELECT relid FROM pg_partition_tree(tbl) JOIN pg_class ON oid = relid WHERE relkind IN ('r', 'p') LOOP
		PERFORM esync.drop_trigger(rel, '0_esync_truncate');
	END LOOP;
	IF drop_history THEN
		EXECUTE format('DROP TABLE IF EXISTS esync.%I', format('event_%s', o.table_id));
		DELETE FROM esync.conflict c WHERE c.table_id = o.table_id;
		DELETE FROM esync.submission s WHERE s.table_id = o.table_id;
		DELETE FROM esync.temporary_id i WHERE i.table_id = o.table_id;
		DELETE FROM esync.rejected r WHERE r.table_id = o.table_id;
		DELETE FROM esync.tracked_column t WHERE t.table_id = o.table_id;
		DELETE FROM esync.tracked_table t WHERE t.table_id = o.table_id;
	ELSE
		UPDATE esync.tracked_table t SET enabled = false WHERE t.table_id = o.table_id;
	END IF;
	PERFORM esync.invalidate(tbl);
END
$$;
COMMENT ON FUNCTION esync.disable_table(regclass, boolean) IS
'the work of esync_disable, run as the owner of the extension';
REVOKE ALL ON FUNCTION esync.disable_table(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.esync_disable(tbl regclass, drop_history boolean DEFAULT false) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'esync_disable_table';
COMMENT ON FUNCTION @extschema@.esync_disable(regclass, boolean) IS
'stops recording the changes of a table: its triggers go (with the lock of DROP TRIGGER), its history stays unless drop_history; esync_enable goes on where it stopped; the caller must own the table';
REVOKE ALL ON FUNCTION @extschema@.esync_disable(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION esync.table_dropped() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
	UPDATE esync.tracked_table t
	SET relation = NULL, enabled = false, schema_name = d.schema_name, table_name = d.object_name
	FROM pg_event_trigger_dropped_objects() AS d
	WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND t.relation = d.objid;
END
$$;
COMMENT ON FUNCTION esync.table_dropped() IS
'keeps the configuration of a dropped table readable and dumpable: its OID must not be restored as another table''s';
REVOKE ALL ON FUNCTION esync.table_dropped() FROM PUBLIC;

CREATE FUNCTION esync.table_altered() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	c record;
	o esync.tracked_table;
	stray regclass;
BEGIN
	FOR c IN SELECT classid, objid FROM pg_event_trigger_ddl_commands() LOOP
		IF tg_tag = 'ALTER TYPE' THEN
			-- the label of an enum, the name of an attribute: rows show something else, and no row was written
			FOR o IN SELECT t.* FROM esync.tracked_table t WHERE t.relation IN (
				-- the type may stand inside an array, a domain or a composite of any depth
				SELECT a.attrelid FROM pg_attribute a WHERE a.attrelid = t.relation AND a.atttypid >= 16384) LOOP
				PERFORM esync.record_columns(o.table_id, o.relation, nextval('esync.event_id_seq'), true),
					esync.invalidate(o.relation);
			END LOOP;
		END IF;
		CONTINUE WHEN c.classid <> 'pg_class'::regclass;
		SELECT t.* INTO o FROM esync.tracked_table t
		WHERE t.relation = c.objid OR t.relation IN (SELECT relid FROM pg_partition_ancestors(c.objid)) AND t.enabled
		ORDER BY t.relation = c.objid DESC LIMIT 1;
		CONTINUE WHEN NOT FOUND;
		-- another type may show the same tuple otherwise, and rewrite no row; what the command does is told by its text alone
		PERFORM esync.record_columns(o.table_id, o.relation, nextval('esync.event_id_seq'),
			tg_tag = 'ALTER TABLE' AND (current_query() !~* '^\s*alter\s' OR current_query() ~* '\mtype\M'));
		IF o.enabled AND EXISTS (SELECT FROM pg_class WHERE oid = o.relation AND relkind = 'p') THEN
			PERFORM esync.make_truncate_triggers(c.objid, true);
			FOR stray IN SELECT g.tgrelid FROM pg_trigger g JOIN pg_class r ON r.oid = g.tgrelid
				WHERE tg_tag = 'ALTER TABLE' AND g.tgfoid = 'esync.truncate'::regproc AND g.tgname = '0_esync_truncate'
					AND NOT r.relispartition AND NOT EXISTS (
						SELECT FROM esync.tracked_table t WHERE t.relation = g.tgrelid AND t.enabled) LOOP
				PERFORM esync.drop_trigger(stray, '0_esync_truncate');
			END LOOP;
		END IF;
		PERFORM esync.invalidate(o.relation);
	END LOOP;
END
$$;
COMMENT ON FUNCTION esync.table_altered() IS
'after DDL on a tracked table: records the names of its columns, gives new partitions a truncate trigger and takes it from detached ones; after ALTER TYPE: lets rows be compared with their stream once';
REVOKE ALL ON FUNCTION esync.table_altered() FROM PUBLIC;

CREATE EVENT TRIGGER esync_table_altered ON ddl_command_end
	WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'ALTER TYPE')
	EXECUTE FUNCTION esync.table_altered();
COMMENT ON EVENT TRIGGER esync_table_altered IS 'keeps esync.tracked_column true; touches tracked tables alone';

CREATE EVENT TRIGGER esync_table_dropped ON sql_drop
	EXECUTE FUNCTION esync.table_dropped();
COMMENT ON EVENT TRIGGER esync_table_dropped IS 'marks a tracked table as dropped in esync.tracked_table';


----------------------------------------------------------- who and when: context.c

CREATE FUNCTION @extschema@.esync_context(user_id text DEFAULT NULL, device_id text DEFAULT NULL,
	branch_timestamp timestamptz DEFAULT NULL, submit_timestamp timestamptz DEFAULT NULL,
	sent_at timestamptz DEFAULT NULL, base_version bigint DEFAULT NULL, meta jsonb DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_context';
COMMENT ON FUNCTION @extschema@.esync_context(text, text, timestamptz, timestamptz, timestamptz, bigint, jsonb) IS
'says who makes the changes of this transaction, on which device, when a copy was taken (branch) and when it was saved (submit); sent_at is the device''s clock as the request left, by which submit is corrected; NULL clears; sets esync.user_id and so on, local to the transaction';


--------------------------------------------------------------------- replay

CREATE FUNCTION @extschema@.esync_replay(tbl regclass, key "any",
	as_of timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL)
RETURNS TABLE (event_id bigint, version bigint, event_type text,
	effective_timestamp timestamptz, patch jsonb, state jsonb)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_replay_any';
COMMENT ON FUNCTION @extschema@.esync_replay(regclass, "any", timestamptz, timestamptz) IS
'the state of a row after each of its events, in submit order; only what was saved until as_of, and had reached the server at known_at';

CREATE FUNCTION @extschema@.esync_replay(tbl regclass, key text,
	as_of timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL)
RETURNS TABLE (event_id bigint, version bigint, event_type text,
	effective_timestamp timestamptz, patch jsonb, state jsonb)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_replay_text';
COMMENT ON FUNCTION @extschema@.esync_replay(regclass, text, timestamptz, timestamptz) IS
'the state of a row after each of its events, in submit order; key as text';

CREATE FUNCTION @extschema@.esync_state(tbl regclass, key "any",
	as_of timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL)
RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_state_any';
COMMENT ON FUNCTION @extschema@.esync_state(regclass, "any", timestamptz, timestamptz) IS
'a row by its events: only what was saved until as_of, and had reached the server at known_at; NULL where there was no row';

CREATE FUNCTION @extschema@.esync_state(tbl regclass, key text,
	as_of timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL)
RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_state_text';
COMMENT ON FUNCTION @extschema@.esync_state(regclass, text, timestamptz, timestamptz) IS
'a row by its events, bounded on both axes; key as text';

CREATE FUNCTION @extschema@.esync_as_of(tbl anyelement,
	as_of timestamptz, known_at timestamptz DEFAULT NULL)
RETURNS SETOF anyelement
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_as_of';
COMMENT ON FUNCTION @extschema@.esync_as_of(anyelement, timestamptz, timestamptz) IS
'all rows of a table as they were, by their events; the table is named by a value of its row type, such as NULL::schema.name';

--------------------------------------------------------------------- verify

CREATE FUNCTION @extschema@.esync_verify(tbl regclass, key text DEFAULT NULL)
RETURNS TABLE (aggregate_id text, problem text, detail jsonb)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_verify';
COMMENT ON FUNCTION @extschema@.esync_verify(regclass, text) IS
'what is wrong between a table, its triggers and its stream, or one row of it; empty when all is well';


-------------------------------------------------- taking back: undo.c, rebuild.c

CREATE FUNCTION @extschema@.esync_undo(event_id bigint) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_undo';
COMMENT ON FUNCTION @extschema@.esync_undo(bigint) IS
'takes an event back, by a Resolved event: each field that the row still shows from it gets the value that it has without it, what was changed since or had lost is left alone and told, and the event is no contender any more; an undo can be undone; needs the right to UPDATE the table';

CREATE FUNCTION @extschema@.esync_rebuild(tbl regclass, key text DEFAULT NULL, source text DEFAULT 'stream') RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_rebuild';
COMMENT ON FUNCTION @extschema@.esync_rebuild(regclass, text, text) IS
'puts right the rows that differ from their stream: source stream makes them what their events say, without an event; source table records what they hold as Baseline events; how many rows; the caller must own the table';
REVOKE ALL ON FUNCTION @extschema@.esync_rebuild(regclass, text, text) FROM PUBLIC;


----------------------------------------------- the ledger: conflict.c, conflictfn.c

CREATE FUNCTION @extschema@.esync_conflicts(tbl regclass DEFAULT NULL, key text DEFAULT NULL, status text DEFAULT 'open',
	field name DEFAULT NULL, kind text DEFAULT NULL, user_id text DEFAULT NULL, after bigint DEFAULT NULL,
	max_rows int DEFAULT NULL)
RETURNS TABLE (
	conflict_id bigint, tbl regclass, aggregate_id text, field text, kind text, base_value jsonb, shown_value jsonb,
	contenders jsonb, status text, opened_at timestamptz, resolved_at timestamptz, resolved_by text, resolution text)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_conflicts';
COMMENT ON FUNCTION @extschema@.esync_conflicts(regclass, text, text, name, text, text, bigint, int) IS
'conflicts by conflict_id, as far as the caller may read their fields and sees their rows: of all tables, a table or a row; status open, closed or all; field with what is inside of it and its group; user_id of a contender; those after a conflict_id, and how many';

CREATE FUNCTION esync.open_conflicts(tbl regclass) RETURNS bigint
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_open_conflicts';
COMMENT ON FUNCTION esync.open_conflicts(regclass) IS
'how many open conflicts of a table esync_conflicts would show the caller; NULL where it may not read the table, or that is gone';


------------------------------------------------------ what speaks for a value: suggest.c

CREATE FUNCTION @extschema@.esync_suggest(tbl regclass, key text, field name)
RETURNS TABLE (value jsonb, confidence float8, reason text, support bigint, sources jsonb)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_suggest';
COMMENT ON FUNCTION @extschema@.esync_suggest(regclass, text, name) IS
'the values that a field of a row has or had, the most likely first, by plain counts: authors by what each said last, other living rows of the table (and tenant) that hold the value, and for numbers the distance from their median; reason has the figures, support is authors and rows together, sources the edits; reads the table';


CREATE FUNCTION @extschema@.esync_conflict_stats(since timestamptz DEFAULT NULL)
RETURNS TABLE (tbl regclass, day date, opened bigint, closed bigint, median_age interval, by_strategy jsonb)
LANGUAGE sql STABLE SET jit = off AS $$
WITH c AS MATERIALIZED (
	SELECT c.tbl, c.opened_at, c.resolved_at, c.resolution FROM @extschema@.esync_conflicts(status => 'all') AS c
), moments AS (
	SELECT m.tbl, (m.at AT TIME ZONE 'UTC')::pg_catalog.date AS day, m.age, m.resolution
	FROM (
		SELECT c.tbl, c.opened_at AS at, NULL::interval AS age, NULL::text AS resolution FROM c
		UNION ALL
		SELECT c.tbl, c.resolved_at, c.resolved_at OPERATOR(pg_catalog.-) c.opened_at, c.resolution
		FROM c WHERE c.resolved_at IS NOT NULL) AS m
	WHERE $1 IS NULL OR m.at OPERATOR(pg_catalog.>=) $1
), days AS (
	SELECT m.tbl, m.day, pg_catalog.count(*) FILTER (WHERE m.resolution IS NULL) AS opened,
		pg_catalog.count(m.resolution) AS closed, pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY m.age) AS age
	FROM moments AS m GROUP BY m.tbl, m.day
), strategies AS (
	SELECT r.tbl, r.day, pg_catalog.jsonb_object_agg(r.resolution, r.n) AS counts
	FROM (
		SELECT m.tbl, m.day, m.resolution, pg_catalog.count(*) AS n
		FROM moments AS m WHERE m.resolution IS NOT NULL GROUP BY m.tbl, m.day, m.resolution) AS r
	GROUP BY r.tbl, r.day
)
SELECT d.tbl, d.day, d.opened, d.closed, d.age, COALESCE(s.counts, '{}')
FROM days AS d LEFT JOIN strategies AS s
	ON s.tbl OPERATOR(pg_catalog.=) d.tbl AND s.day OPERATOR(pg_catalog.=) d.day
ORDER BY d.tbl::pg_catalog.text COLLATE "C", d.day
$$;
COMMENT ON FUNCTION @extschema@.esync_conflict_stats(timestamptz) IS
'conflicts per table and day (UTC), as far as esync_conflicts shows them: how many were opened and closed, the median age of those closed, and how many of these by which strategy; since: only what was opened or closed from then on';


---------------------------------------------------- decisions: resolve.c

CREATE FUNCTION @extschema@.esync_resolve(conflict_id bigint, strategy text, value jsonb DEFAULT NULL,
	expected_version bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_resolve';
COMMENT ON FUNCTION @extschema@.esync_resolve(bigint, text, jsonb, bigint) IS
'decides a conflict by an event: server_wins, client_wins, last_write_wins, event_sourced, or manual with a value; an error where it is closed, or where contenders came after expected_version';

CREATE FUNCTION @extschema@.esync_resolve_row(tbl regclass, key text, choices jsonb,
	expected_version bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_resolve_row';
COMMENT ON FUNCTION @extschema@.esync_resolve_row(regclass, text, jsonb, bigint) IS
'decides fields of a row, in conflict or not, by one event: {"field": {"event_id": 12} | {"value": ...}, ...}, where "" is the row as a whole ({"deleted": false}); or all its open conflicts by the name of a strategy';

CREATE FUNCTION @extschema@.esync_resolve_all(tbl regclass, strategy text, field name DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_resolve_all';
COMMENT ON FUNCTION @extschema@.esync_resolve_all(regclass, text, name) IS
'decides all open conflicts of a table that the caller sees, or those about a field, one event a row; how many were closed';


---------------------------------------------------- fields and events over time: history.c, timeline.c

CREATE FUNCTION @extschema@.field_history(tbl regclass, key "any", field name DEFAULT NULL)
RETURNS TABLE (
	field text, version bigint, event_id bigint, event_type text, value jsonb, previous_value jsonb,
	user_id text, device_id text, branch_timestamp timestamptz, submit_timestamp timestamptz,
	commit_timestamp timestamptz, effective_timestamp timestamptz, status text)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_field_history_any';
COMMENT ON FUNCTION @extschema@.field_history(regclass, "any", name) IS
'who set which field of a row to what, one row an edit: field by field in column order, the newest by effective order first; a row with field NULL took the row as a whole, or gave it back';

CREATE FUNCTION @extschema@.field_history(tbl regclass, key text, field name DEFAULT NULL)
RETURNS TABLE (
	field text, version bigint, event_id bigint, event_type text, value jsonb, previous_value jsonb,
	user_id text, device_id text, branch_timestamp timestamptz, submit_timestamp timestamptz,
	commit_timestamp timestamptz, effective_timestamp timestamptz, status text)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_field_history_text';
COMMENT ON FUNCTION @extschema@.field_history(regclass, text, name) IS
'who set which field of a row to what, one row an edit: field by field in column order, the newest by effective order first; a row with field NULL took the row as a whole, or gave it back';

CREATE FUNCTION @extschema@.esync_history(tbl regclass, key "any")
RETURNS TABLE (
	event_id bigint, version bigint, event_type text, base_version bigint, patch jsonb, payload jsonb,
	user_id text, device_id text, branch_timestamp timestamptz, submit_timestamp timestamptz,
	commit_timestamp timestamptz, effective_timestamp timestamptz, meta jsonb)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_history_any';
COMMENT ON FUNCTION @extschema@.esync_history(regclass, "any") IS
'all events of a row, oldest version first, those under a former key before; payload is the row after the event, of a hard delete the row that it took';

CREATE FUNCTION @extschema@.esync_history(tbl regclass, key text)
RETURNS TABLE (
	event_id bigint, version bigint, event_type text, base_version bigint, patch jsonb, payload jsonb,
	user_id text, device_id text, branch_timestamp timestamptz, submit_timestamp timestamptz,
	commit_timestamp timestamptz, effective_timestamp timestamptz, meta jsonb)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_history_text';
COMMENT ON FUNCTION @extschema@.esync_history(regclass, text) IS
'all events of a row, oldest version first, those under a former key before; payload is the row after the event, of a hard delete the row that it took';

CREATE FUNCTION @extschema@.esync_timeline(tbl regclass, key "any")
RETURNS TABLE (
	at timestamptz, moment text, lane int, event_id bigint, event_type text, user_id text,
	device_id text, patch jsonb)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_timeline_any';
COMMENT ON FUNCTION @extschema@.esync_timeline(regclass, "any") IS
'branch, submit and commit moments of all events of a row, in time; commits lie on lane 0 and bear the patch, what went before a commit lies on the lane of its author; an event whose three moments are one, and a Baseline, has its commit alone';

CREATE FUNCTION @extschema@.esync_timeline(tbl regclass, key text)
RETURNS TABLE (
	at timestamptz, moment text, lane int, event_id bigint, event_type text, user_id text,
	device_id text, patch jsonb)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_timeline_text';
COMMENT ON FUNCTION @extschema@.esync_timeline(regclass, text) IS
'branch, submit and commit moments of all events of a row, in time; commits lie on lane 0 and bear the patch, what went before a commit lies on the lane of its author; an event whose three moments are one, and a Baseline, has its commit alone';

CREATE FUNCTION @extschema@.esync_version(tbl regclass, key "any") RETURNS bigint
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_version_any';
COMMENT ON FUNCTION @extschema@.esync_version(regclass, "any") IS
'the version of a row as of the statement''s snapshot, to be echoed as base_version; 1 for a row without events, NULL for a key that never was';

CREATE FUNCTION @extschema@.esync_version(tbl regclass, key text) RETURNS bigint
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_version_text';
COMMENT ON FUNCTION @extschema@.esync_version(regclass, text) IS
'the version of a row as of the statement''s snapshot; key as text';

CREATE FUNCTION esync.row_head(tbl regclass, key text)
RETURNS jsonb
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_row_head';
COMMENT ON FUNCTION esync.row_head(regclass, text) IS
'the first members of esync_row: table, key, version, deleted, and row unless row policies hide it; NULL for what is neither event nor row';

CREATE FUNCTION @extschema@.esync_row(tbl regclass, key text)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET "TimeZone" TO 'UTC'
AS $$
SELECT CASE WHEN head.doc OPERATOR(pg_catalog.?) 'row' THEN
	head.doc OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
	'fields', COALESCE((
		SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
				'field', COALESCE(member.name, track.field),
				'current_value', COALESCE(head.doc OPERATOR(pg_catalog.->) 'row'
						OPERATOR(pg_catalog.->) COALESCE(member.name, track.field),
					track.bars OPERATOR(pg_catalog.->) 0 OPERATOR(pg_catalog.->) 'value'),
				'history', COALESCE(track.bars, '[]'::pg_catalog.jsonb))
			ORDER BY a.attnum, track.place)
		FROM (
			SELECT h.field, pg_catalog.min(h.place) AS place,
				pg_catalog.jsonb_agg(pg_catalog.to_jsonb(h) OPERATOR(pg_catalog.-) 'place'
					ORDER BY h.place) AS bars
			FROM @extschema@.field_history($1, $2) WITH ORDINALITY AS h (field, version, event_id,
				event_type, value, previous_value, user_id, device_id, branch_timestamp,
				submit_timestamp, commit_timestamp, effective_timestamp, status, place)
			WHERE h.field IS NOT NULL
			GROUP BY h.field) AS track
		FULL JOIN pg_catalog.jsonb_object_keys(
			CASE WHEN pg_catalog.jsonb_typeof(head.doc OPERATOR(pg_catalog.->) 'row')
				OPERATOR(pg_catalog.=) 'object' THEN head.doc OPERATOR(pg_catalog.->) 'row' ELSE '{}' END) AS member (name)
			ON member.name OPERATOR(pg_catalog.=) track.field
		LEFT JOIN pg_catalog.pg_attribute AS a
			ON a.attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid AND NOT a.attisdropped
				AND a.attname OPERATOR(pg_catalog.=) COALESCE(member.name, track.field)), '[]'),
	'timeline', COALESCE((
		SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(h) OPERATOR(pg_catalog.-) 'payload'
				OPERATOR(pg_catalog.-) 'place' ORDER BY h.place)
		FROM @extschema@.esync_history($1, $2) WITH ORDINALITY AS h (event_id, version, event_type,
			base_version, patch, payload, user_id, device_id, branch_timestamp, submit_timestamp,
			commit_timestamp, effective_timestamp, meta, place)), '[]'),
	'conflicts', COALESCE((
		SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)
				OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('tbl', head.doc OPERATOR(pg_catalog.->) 'table')
			ORDER BY c.status OPERATOR(pg_catalog.=) 'closed', c.conflict_id)
		FROM @extschema@.esync_conflicts($1, $2, 'all') AS c), '[]'),
	'drift', CASE WHEN pg_catalog.has_table_privilege($1, 'SELECT') THEN COALESCE((
		SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(v) ORDER BY v.problem, v.detail)
		FROM @extschema@.esync_verify($1, $2) AS v), '[]') ELSE '[]' END)
	ELSE head.doc END
FROM esync.row_head($1, $2) AS head (doc)
$$;
COMMENT ON FUNCTION @extschema@.esync_row(regclass, text) IS
'all that there is to know about one row, in one document: the row, its fields with their history, its events, its conflicts (open ones first), and what esync_verify says of it; NULL for what is neither event nor row';


----------------------------------------------------- lanes drawn as text: graph.c

CREATE FUNCTION @extschema@.esync_graph(tbl regclass, key "any", color boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_graph_any';
COMMENT ON FUNCTION @extschema@.esync_graph(regclass, "any", boolean) IS
'the lanes of a row as text, newest first, as git log --graph draws branches: * a commit on the line of the server, o an authors branch or submit moment; times are UTC; color adds ANSI escapes';

CREATE FUNCTION @extschema@.esync_graph(tbl regclass, key text, color boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_graph_text';
COMMENT ON FUNCTION @extschema@.esync_graph(regclass, text, boolean) IS
'the lanes of a row as text, newest first, as git log --graph draws branches: * a commit on the line of the server, o an authors branch or submit moment; times are UTC; color adds ANSI escapes';


---------------------------------------------------------------- json: patch

-- esync_patch('{"a": [1, 2]}', '[{"op": "add", "path": "/a/1", "value": 5}, {"op": "test", "path": "/a/2", "value": 2}]')
--   -> {"a": [1, 5, 2]}
CREATE FUNCTION @extschema@.esync_patch(doc jsonb, patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_patch';
COMMENT ON FUNCTION @extschema@.esync_patch(jsonb, jsonb) IS
'a document after a JSON Patch (RFC 6902), all of it or none; a failed test is SQLSTATE YS010, the detail names the operation, counted from 0';

-- SELECT * FROM esync_try_patch('{"a": 1}', '[{"op": "remove", "path": "/b"}]')
--   -> result NULL, error {"op": 0, "code": "2203A", "path": "/b", "message": "there is no object member \"b\""}
CREATE FUNCTION @extschema@.esync_try_patch(doc jsonb, patch jsonb, OUT result jsonb, OUT error jsonb)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_try_patch';
COMMENT ON FUNCTION @extschema@.esync_try_patch(jsonb, jsonb) IS
'as esync_patch, but what is wrong with the patch is the value error {"op", "code", "path", "message"} and not an error; op and path are null where no operation is to blame';

-- esync_invert('{"a": 1.0, "b": [1, 2]}', '[{"op": "remove", "path": "/a"}, {"op": "move", "from": "/b/0", "path": "/b/-"}]')
--   -> [{"op": "move", "from": "/b/1", "path": "/b/0"}, {"op": "add", "path": "/a", "value": 1.0}]
CREATE FUNCTION @extschema@.esync_invert(doc jsonb, patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_invert';
COMMENT ON FUNCTION @extschema@.esync_invert(jsonb, jsonb) IS
'the JSON Patch that undoes patch: esync_patch(esync_patch(doc, patch), esync_invert(doc, patch)) is doc, to the last digit of its numbers';

-- esync_merge_patch('{"a": 1, "b": {"c": 2, "d": 3}}', '{"a": null, "b": {"c": 4}}')
--   -> {"b": {"c": 4, "d": 3}}
CREATE FUNCTION @extschema@.esync_merge_patch(doc jsonb, patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_merge_patch';
COMMENT ON FUNCTION @extschema@.esync_merge_patch(jsonb, jsonb) IS
'a document after a JSON Merge Patch (RFC 7396): members are replaced one by one, null removes a member, and arrays are replaced as a whole';

CREATE FUNCTION esync.patch_agg_step(state internal, doc jsonb, patch jsonb) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_patch_agg_step';
COMMENT ON FUNCTION esync.patch_agg_step(internal, jsonb, jsonb) IS
'transition function of esync_patch_agg';

CREATE FUNCTION esync.patch_agg_result(state internal) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_patch_agg_result';
COMMENT ON FUNCTION esync.patch_agg_result(internal) IS
'final function of esync_patch_agg';

-- SELECT esync_patch_agg('{"n": 0}', patch ORDER BY i)
--   FROM (VALUES (1, '[{"op": "replace", "path": "/n", "value": 1}]'::jsonb), (2, '[{"op": "add", "path": "/m", "value": 2}]')) v (i, patch)
--   -> {"m": 2, "n": 1}
CREATE AGGREGATE @extschema@.esync_patch_agg(doc jsonb, patch jsonb) (
	SFUNC = esync.patch_agg_step,
	STYPE = internal,
	SSPACE = 8192,
	FINALFUNC = esync.patch_agg_result,
	FINALFUNC_MODIFY = READ_ONLY,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE @extschema@.esync_patch_agg(jsonb, jsonb) IS
'the first doc that is not NULL after all patches from its row on, in order; NULL patches are passed over; give it ORDER BY';


------------------------------------------------------------ JSON differences: diff.c, diff_array.c, lcs.c

CREATE FUNCTION @extschema@.esync_diff(a jsonb, b jsonb, exclude text[] DEFAULT '{}',
	arrays text DEFAULT 'minimal', exact boolean DEFAULT false) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_diff';
COMMENT ON FUNCTION @extschema@.esync_diff(jsonb, jsonb, text[], text, boolean) IS
'the RFC 6902 patch (add, remove, replace) that makes b out of a; exclude: JSON pointers to leave out, a token * stands for any member or element; arrays: minimal, or replace for whole ones; exact: 1.0 and 1.00 differ';
-- esync_diff('{"a": 1, "b": [1, 2]}', '{"a": 2, "b": [0, 1, 2]}')
--     [{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/b/0", "value": 0}]
-- esync_diff('{"a": 1, "seen": 1}', '{"a": 2, "seen": 2}', exclude => '{/seen}')
--     [{"op": "replace", "path": "/a", "value": 2}]


-------------------------------------------------------------------- three-way merge of JSON: threeway.c

CREATE FUNCTION @extschema@.esync_merge(base jsonb, ours jsonb, theirs jsonb,
	arrays text DEFAULT 'atomic', OUT merged jsonb, OUT conflicts jsonb)
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'esync_merge';
COMMENT ON FUNCTION @extschema@.esync_merge(jsonb, jsonb, jsonb, text) IS
'both what ours and what theirs changed in base, member by member; where they contradict, merged takes ours, and conflicts tells path, kind, base, ours and theirs (absent where missing); arrays: atomic, or keyed:<member> to match elements by that member (their index in a path is that in base, of added ones that in ours)';
-- SELECT * FROM esync_merge('{"a": 1, "b": 1}', '{"a": 2, "b": 1}', '{"a": 3, "b": 3}')
--     merged     {"a": 2, "b": 3}
--     conflicts  [{"base": 1, "kind": "edit/edit", "ours": 2, "path": "/a", "took": "ours", "theirs": 3}]
-- SELECT merged FROM esync_merge('[{"id": 1, "v": 1}]', '[{"id": 1, "v": 2}]', '[{"id": 1, "v": 1}, {"id": 2}]', 'keyed:id')
--     [{"v": 2, "id": 1}, {"id": 2}]


------------------------------------------ submitting edits: submit.c, single.c, rejected.c

CREATE FUNCTION @extschema@.esync_checkout(tbl regclass, key text) RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'esync_checkout';
COMMENT ON FUNCTION @extschema@.esync_checkout(regclass, text) IS
'a row to be edited offline: {"row", "version", "branch_timestamp", "deleted"}, all of one snapshot; version goes back as base_version; NULL for a key that never was';

CREATE FUNCTION @extschema@.esync_submit(batch jsonb, context jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_submit';
COMMENT ON FUNCTION @extschema@.esync_submit(jsonb, jsonb) IS
'merges the edits of a device''s batch, as the caller, and answers one result an event; what cannot be applied is kept in esync.rejected; context: the arguments of esync_context as an object';

CREATE FUNCTION @extschema@.esync_save(tbl regclass, document jsonb, base_version bigint DEFAULT NULL,
	base jsonb DEFAULT NULL, client_event_id uuid DEFAULT NULL, context jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_save';
COMMENT ON FUNCTION @extschema@.esync_save(regclass, jsonb, bigint, jsonb, uuid, jsonb) IS
'merges one document into its row, or creates it; base_version or base say what the author had seen, without them all that is there; answers one element of the results of esync_submit';

CREATE FUNCTION @extschema@.esync_delete(tbl regclass, key text, base_version bigint DEFAULT NULL,
	base jsonb DEFAULT NULL, client_event_id uuid DEFAULT NULL, context jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_delete';
COMMENT ON FUNCTION @extschema@.esync_delete(regclass, text, bigint, jsonb, uuid, jsonb) IS
'deletes one row, softly where the table has a tombstone; base_version or base say what the author had seen, without them all that is there; answers one element of the results of esync_submit';

CREATE FUNCTION @extschema@.esync_rejected(tbl regclass DEFAULT NULL, status text DEFAULT 'open')
RETURNS TABLE (rejected_id bigint, tbl regclass, aggregate_id text, client_event_id uuid, device_id text,
	user_id text, code text, message text, event jsonb, first_seen timestamptz, last_seen timestamptz, tries int)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_rejected';
COMMENT ON FUNCTION @extschema@.esync_rejected(regclass, text) IS
'events that were submitted and not applied: open, closed or discarded ones, or all; the owner of the table sees all, others their own';

CREATE FUNCTION esync.open_rejected(table_id integer) RETURNS bigint
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'esync_open_rejected';
COMMENT ON FUNCTION esync.open_rejected(integer) IS
'how many open events for a tracked table esync_rejected would show the caller';

CREATE FUNCTION @extschema@.esync_retry(rejected_id bigint, event jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_retry';
COMMENT ON FUNCTION @extschema@.esync_retry(bigint, jsonb) IS
'tries a rejected event again in the name of its author, as it was sent or as amended, with the rights of the caller; answers one element of the results of esync_submit';

CREATE FUNCTION @extschema@.esync_discard(rejected_id bigint) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'esync_discard';
COMMENT ON FUNCTION @extschema@.esync_discard(bigint) IS
'gives a rejected event up: it is kept, but is not open any more';

CREATE FUNCTION @extschema@.esync_devices() RETURNS TABLE (device_id text, user_id text, last_seen timestamptz,
	clock_offset interval, accepted bigint, conflict bigint, rejected bigint, duplicates bigint)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_devices';
COMMENT ON FUNCTION @extschema@.esync_devices() IS
'who submitted from which device, and what became of it; all of them to whom may SELECT esync.device, to others their own';


------------------------------------------- what is new: cursor.c, changes.c, effect.c

CREATE FUNCTION @extschema@.esync_changes(cursor text DEFAULT NULL, max_rows int DEFAULT 500, tables regclass[] DEFAULT NULL,
	device_id text DEFAULT NULL, tenant text DEFAULT NULL, rows boolean DEFAULT false) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_changes';
COMMENT ON FUNCTION @extschema@.esync_changes(text, int, regclass[], text, text, boolean) IS
'what is new since a cursor, as far as the caller may read it: {"cursor", "has_more", "reset", "reason", "server_now", "changes"}; the cursor answered goes into the next call; NULL is the beginning of what is retained, ''now'' the present, a timestamp that time less esync.since_overlap; reset: the cursor is of no use, begin anew; device_id leaves out that device''s own events, rows gives the whole row each time';

CREATE FUNCTION @extschema@.esync_touch(tbl regclass, key text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_touch';
COMMENT ON FUNCTION @extschema@.esync_touch(regclass, text) IS
'shows a row to every cursor again, by a Baseline event that says nothing of its own: for those who were given the right to see it; needs the right to UPDATE the table';


---------------------------------------------------- cursors kept here: consumer.c

CREATE FUNCTION @extschema@.esync_poll(consumer text, max_rows int DEFAULT 500) RETURNS jsonb
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_poll';
COMMENT ON FUNCTION @extschema@.esync_poll(text, int) IS
'what is new for a named consumer, as esync_changes answers it, at least once: until esync_ack, or for esync.consumer_lease, nobody else is given anything, then it comes again; the first call makes the consumer, from the beginning of what is retained';

CREATE FUNCTION @extschema@.esync_ack(consumer text, cursor text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_ack';
COMMENT ON FUNCTION @extschema@.esync_ack(text, text) IS
'says that the changes which esync_poll answered with this cursor were dealt with; NULL after a reset: the consumer begins anew, with all that is retained';

CREATE FUNCTION @extschema@.esync_consumer_create(consumer text, cursor text DEFAULT NULL, tables regclass[] DEFAULT NULL,
	tenant text DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_consumer_create';
COMMENT ON FUNCTION @extschema@.esync_consumer_create(text, text, regclass[], text) IS
'makes a consumer that begins at a cursor, ''now'', a timestamp, or with NULL at the beginning of what is retained; tables and tenant: what it is given';

CREATE FUNCTION @extschema@.esync_consumer_drop(consumer text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'esync_consumer_drop';
COMMENT ON FUNCTION @extschema@.esync_consumer_drop(text) IS 'removes a consumer of the caller''s';

CREATE FUNCTION @extschema@.esync_consumers() RETURNS TABLE (consumer text, owner text, tables regclass[], tenant text,
	cursor text, pending text, leased_until timestamptz, reset text, lag interval, behind bigint,
	created_at timestamptz, polled_at timestamptz, acked_at timestamptz)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_consumers';
COMMENT ON FUNCTION @extschema@.esync_consumers() IS
'the consumers of the caller, all of them to whom may SELECT esync.consumer: since when the oldest event waits that was not acknowledged (lag), and how many wait (behind), exactly up to 10000; before filters of tenant and rights; NULL where the cursor is of no use any more';


------------------------------------------------------------------ links: links.c

CREATE FUNCTION @extschema@.esync_orphans(tbl regclass)
RETURNS TABLE (aggregate_id text, field name, parent regclass, parent_id text, problem text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_orphans';
COMMENT ON FUNCTION @extschema@.esync_orphans(regclass) IS
'rows that point to rows that are not there, by the option links and by foreign keys that are not enforced; problem: deleted, or missing where there never was one';


------------------------------------------------------------------------ status

CREATE FUNCTION esync.leaf_stats(table_id integer, tbl regclass, OUT events bigint, OUT aggregates bigint,
	OUT bytes bigint, OUT oldest timestamptz, OUT newest timestamptz) RETURNS record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'esync_leaf_stats';
COMMENT ON FUNCTION esync.leaf_stats(integer, regclass) IS
'counts the events of a tracked table by reading its leaf, and their bytes with indexes; NULLs for a caller who may not read the table';

CREATE FUNCTION esync.link_names(links jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(jsonb_object_agg(l.key, format('%I.%I', coalesce(n.nspname, t.schema_name), coalesce(c.relname, t.table_name))), '{}')
FROM jsonb_each_text(links) AS l
JOIN esync.tracked_table t ON t.table_id = l.value::integer
LEFT JOIN pg_class c ON c.oid = t.relation
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
$$;
COMMENT ON FUNCTION esync.link_names(jsonb) IS
'the option links as it is given: with the names of tables in place of their table_id';

CREATE FUNCTION @extschema@.esync_status() RETURNS TABLE (tbl regclass, mode text, enabled boolean, events bigint,
	aggregates bigint, bytes bigint, oldest timestamptz, newest timestamptz, open_conflicts bigint, rejected bigint,
	options jsonb)
LANGUAGE sql STABLE AS $$
WITH c AS MATERIALIZED (
	SELECT c.consumer, c.tables, c.lag, c.behind, c.reset FROM @extschema@.esync_consumers() AS c
)
SELECT t.relation, t.mode, t.enabled, s.events, s.aggregates, s.bytes, s.oldest, s.newest,
	esync.open_conflicts(t.relation), esync.open_rejected(t.table_id),
	pg_catalog.jsonb_build_object('table_id', t.table_id, 'schema', t.schema_name, 'table', t.table_name,
		'aggregate_type', t.aggregate_type, 'payload', t.payload, 'key', t.key_columns, 'exclude', t.exclude,
		'mask', t.mask, 'last_modified', t.last_modified, 'tombstone', t.tombstone, 'tenant', t.tenant,
		'notify', t.notify, 'retention', t.retention, 'since', t.since, 'sql_merge', t.sql_merge,
		'on_conflict', t.on_conflict, 'groups', t.groups, 'json_merge', t.json_merge, 'links', esync.link_names(t.links))
	OPERATOR(pg_catalog.||) COALESCE((
		SELECT pg_catalog.jsonb_build_object('consumers', pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
			'consumer', c.consumer, 'lag', c.lag, 'behind', c.behind, 'reset', c.reset) ORDER BY c.consumer COLLATE "C"))
		FROM c
		WHERE t.relation IS NOT NULL
			AND (c.tables IS NULL OR t.relation::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (c.tables::pg_catalog.oid[]))
		HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0), '{}')
FROM esync.tracked_table AS t
CROSS JOIN LATERAL esync.leaf_stats(t.table_id, t.relation) AS s
ORDER BY t.relation IS NULL, t.schema_name, t.table_name, t.table_id
$$;
COMMENT ON FUNCTION @extschema@.esync_status() IS
'one row a tracked table, disabled and dropped ones included (tbl NULL): how many events of how many rows, their bytes with indexes, and the options in force, with the consumers that read it and how far they are behind; reads the whole stream to count it';


----------------------------------------------------------------- nobody else's

-- default privileges of whoever creates the extension may have granted more than was meant
SELECT esync.revoke_all(c.oid::pg_catalog.regclass)
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace OPERATOR(pg_catalog.=) 'esync'::pg_catalog.regnamespace
	AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,S}'::"char"[]);
GRANT SELECT ON esync.tracked_table TO PUBLIC;
