# A standby reads the history; promoted, it goes on with it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION esync');
set_story($primary, 'postgres');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', q(UPDATE pairs SET v = 1.5 WHERE b = 'moved'; ALTER TABLE pairs RENAME v TO value));
$primary->wait_for_catchup($standby);
is(telling($standby, 'postgres'), telling($primary, 'postgres'), 'the standby tells what the primary tells');
faults_are_none($standby, 'postgres', 'and finds nothing wrong');
my ($rc, $out, $err) = $standby->psql('postgres', q(SELECT esync_enable('dropped_history')));
isnt($rc, 0, 'switching there fails');
like($err, qr/read-only transaction|during recovery/, 'as every write does');
($rc, $out, $err) = $standby->psql('postgres', q(SELECT esync_context(user_id => 'x')));
is($rc, 0, 'a context may be set where nothing is written');

$primary->stop('immediate');
$standby->promote;
$standby->safe_psql('postgres', 'ALTER TABLE pairs RENAME value TO v');
go_on($standby, 'postgres', 'after the promotion', 1);
$standby->stop;
done_testing();
