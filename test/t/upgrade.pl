# pg_upgrade into a fresh cluster of the same major version.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $bindir = `$pg_config --bindir`);
plan skip_all => 'pg_upgrade is not there' unless -x "$bindir/pg_upgrade";

# from 18 on pg_upgrade looks for libraries in the server's own directory alone
chomp(my $libdir = `$pg_config --pkglibdir`);
plan skip_all => 'esync is not installed into this server, where pg_upgrade would look for it'
  if `$pg_config --version` =~ / (\d+)/ && $1 >= 18 && !-e "$libdir/esync.so";

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init;
$old->start;
$old->safe_psql('postgres', 'CREATE DATABASE source');
$old->safe_psql('source', 'CREATE EXTENSION esync');
set_story($old, 'source');
set_late($old, 'late');
my $told = telling($old, 'source');
my $xids = $old->safe_psql('source', 'SELECT event_id, xid, row_xmin FROM esync.event ORDER BY 1');
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
my $dir = PostgreSQL::Test::Utils::tempdir;
chdir $dir or die;
command_ok(
	[
		"$bindir/pg_upgrade", '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $bindir, '-B', $bindir, '-s', $new->host, '-p', $old->port, '-P', $new->port
	],
	'pg_upgrade');
$new->start;
is(telling($new, 'source'), $told, 'the history tells the same');
is( $new->safe_psql('source', 'SELECT event_id, xid, row_xmin FROM esync.event ORDER BY 1'),
	$xids, 'the events are the same');
faults_are_none($new, 'source', 'nothing is wrong after the upgrade');
go_on($new, 'source', 'upgrade', 2);
late_names($new, 'late', 'after the upgrade');
$new->stop;
done_testing();
