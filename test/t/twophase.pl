# Prepared transactions: their events come and go with them, over a crash, too.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\nstatement_timeout = '20s'\n");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text);
INSERT INTO item VALUES (1, 'old'), (2, 'old'), (3, 'old');
CREATE TABLE parts (id int NOT NULL, region text) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
INSERT INTO parts VALUES (1, 'eu');
SELECT esync_enable('item'), esync_enable('parts', key => '{id}');
SQL
install_checks($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE item SET a = 'prepared' WHERE id = 1;
SAVEPOINT s;
UPDATE item SET a = 'rolled back' WHERE id = 1;
ROLLBACK TO s;
UPDATE parts SET region = 'us';
PREPARE TRANSACTION 'one';
BEGIN;
UPDATE item SET a = 'never' WHERE id = 2;
PREPARE TRANSACTION 'two';
UPDATE item SET a = 'plain' WHERE id = 3;
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM esync.event'), '2', 'a prepared event is not there yet');
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q(COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two'));
$node->safe_psql('postgres', q(UPDATE item SET a = 'after' WHERE id < 3));
is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'what was prepared is there after a crash');
SELECT table_name, aggregate_id, version, event_type, patch FROM esync.event JOIN esync.tracked_table USING (table_id) ORDER BY 1, 2, 3
SQL
item|1|1|Baseline|[]
item|1|2|Updated|[{"op": "replace", "path": "/a", "value": "prepared"}]
item|1|3|Updated|[{"op": "replace", "path": "/a", "value": "after"}]
item|2|1|Baseline|[]
item|2|2|Updated|[{"op": "replace", "path": "/a", "value": "after"}]
item|3|1|Baseline|[]
item|3|2|Updated|[{"op": "replace", "path": "/a", "value": "plain"}]
parts|1|1|Baseline|[]
parts|1|2|Updated|[{"op": "replace", "path": "/region", "value": "us"}]
WANT
faults_are_none($node, 'postgres', 'nothing is wrong');
$node->stop;
done_testing();
