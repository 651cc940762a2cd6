# A database with tracked tables, dumped and restored in all the usual ways:
# the history answers as before, and events go on in a new epoch.

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
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE source');
$node->safe_psql('source', 'CREATE EXTENSION esync');
set_story($node, 'source');
faults_are_none($node, 'source', 'nothing is wrong in the source');
my $told = telling($node, 'source');
my $dir = PostgreSQL::Test::Utils::tempdir;

# Tests that a restored database tells what the source told.
sub tells_the_same
{
	my ($at, $db, $what) = @_;
	my @old = split /\n/, $told;
	my @new = split /\n/, telling($at, $db);
	my %in_new = map { $_ => 1 } @new;
	my %in_old = map { $_ => 1 } @old;
	my @lost = grep { !$in_new{$_} } @old;
	my @more = grep { !$in_old{$_} } @new;
	is(join("\n", @lost), '', "$what: nothing that was told is lost");
	is(join("\n", @more), '', "$what: nothing else is told");
	is(scalar(@new), scalar(@old), "$what: nothing is told twice");
	faults_are_none($at, $db, "$what: nothing is wrong after the restore");
	return;
}

# a plain dump into a new database
$node->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", $node->connstr('source') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql", $node->connstr('plain') ], 'psql');
tells_the_same($node, 'plain', 'plain dump');
go_on($node, 'plain', 'plain dump', 2);

# that dump over the database that went on in the meantime
$node->command_ok([ 'pg_dump', '--clean', '--if-exists', '-f', "$dir/clean.sql", $node->connstr('source') ], 'pg_dump --clean');
$node->safe_psql('source', q(UPDATE "Blocks" SET "Title" = 'lost with the restore'));
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/clean.sql", $node->connstr('source') ], 'psql over it');
tells_the_same($node, 'source', 'dump with --clean');

# a custom dump, by two jobs, and the dump of a dump
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", $node->connstr('source') ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE custom');
$node->command_ok([ 'pg_restore', '-j2', '--exit-on-error', '-d', $node->connstr('custom'), "$dir/custom" ], 'pg_restore -j2');
tells_the_same($node, 'custom', 'custom dump');
# nothing was written between the two dumps, so the second life left no trace
go_on($node, 'custom', 'custom dump', 2);
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/again", $node->connstr('custom') ], 'pg_dump again');
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('again'), "$dir/again" ], 'pg_restore again');
$node->safe_psql('again', q(UPDATE "Blocks" SET "Title" = 'third life' WHERE "Title" = 'new life'; INSERT INTO pairs VALUES (3, 'new', 0)));
is( $node->safe_psql('again', 'SELECT epoch, event_type FROM esync.event ORDER BY event_id DESC LIMIT 2'),
	"3|Created\n3|Updated", 'a third life is a third epoch');
is( $node->safe_psql('again', q(SELECT string_agg(value #>> '{}', ' < ') FROM field_history('"Blocks"', '00000000-0000-0000-0000-000000000001', 'Title'))),
	'third life < new life < after the renaming < before the renaming < title 1', 'names go through all of them');
faults_are_none($node, 'again', 'nothing is wrong in the third life');

# structure and data one by one
$node->command_ok([ 'pg_dump', '-s', '-f', "$dir/structure.sql", $node->connstr('source') ], 'pg_dump -s');
$node->command_ok([ 'pg_dump', '-a', '--disable-triggers', '-f', "$dir/data.sql", $node->connstr('source') ], 'pg_dump -a');
$node->safe_psql('postgres', 'CREATE DATABASE apart');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/structure.sql", '-f', "$dir/data.sql", $node->connstr('apart') ],
	'structure, then data');
tells_the_same($node, 'apart', 'structure, then data');
go_on($node, 'apart', 'structure, then data', 2);

# the database as a template
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE source');
tells_the_same($node, 'copied', 'copy of a database');
go_on($node, 'copied', 'copy of a database', 2);

# the whole cluster
$node->command_ok([ 'pg_dumpall', '--no-role-passwords', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ], 'pg_dumpall');
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
# the superuser is there already: that one error is the manual's own
$other->run_log([ 'psql', '-Xq', '-f', "$dir/all.sql", $other->connstr('postgres') ]);
$told = telling($node, 'source');
tells_the_same($other, 'source', 'pg_dumpall');
go_on($other, 'source', 'pg_dumpall', 2);

# names that no event has seen
set_late($node, 'late');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/late", $node->connstr('late') ], 'pg_dump of late names');
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('later'), "$dir/late" ], 'pg_restore of them');
late_names($node, 'later', 'after the restore');

# jobs may make the constraints of a table before the side tables of esync are filled
my @list = grep { /^\d/ } split /\n/, (run_command([ 'pg_restore', '-l', "$dir/late" ]))[0];
my $early = qr/TABLE DATA (public item|esync tracked_table) /;
my @data = grep { /TABLE DATA|SEQUENCE SET/ } @list;
my @post = grep { / CONSTRAINT | INDEX | TRIGGER /x && !/EVENT TRIGGER/ } @list;
my %moved = map { $_ => 1 } @data, @post;
append_to_file("$dir/late.list", join("\n", (grep { !$moved{$_} && !/ COMMENT | ACL / } @list), (grep { /$early/ } @data),
	(grep { / CONSTRAINT / } @post), (grep { !/$early/ } @data), (grep { !/ CONSTRAINT / } @post)) . "\n");
$node->safe_psql('postgres', 'CREATE DATABASE jobs');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-L', "$dir/late.list", '-d', $node->connstr('jobs'), "$dir/late" ],
	'pg_restore in an order that jobs may take');
late_names($node, 'jobs', 'after that restore');
$node->safe_psql('jobs', q(UPDATE item SET b = 'three'));
is($node->safe_psql('jobs', q(SELECT version, value FROM field_history('item', 1, 'b'))), qq(3|"three"\n2|"two"\n1|"one"), 'a new event joins');
is($node->safe_psql('jobs', q(SELECT epoch FROM esync.event ORDER BY event_id)), "1\n1\n2", 'in a new epoch, with a new id');
faults_are_none($node, 'jobs', 'nothing is wrong after it');

$node->stop;
$other->stop;
done_testing();
