use strict;
use warnings;
use DBI;
use DBD::SQLite;

my ($extension, $uri) = @ARGV;
my $loader = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', {RaiseError => 1});
$loader->sqlite_enable_load_extension(1);
$loader->do('SELECT load_extension(?)', undef, $extension);
$loader->disconnect;

my $db = DBI->connect("dbi:SQLite:uri=$uri", '', '', {RaiseError => 1});
$db->do('CREATE TABLE t(v)');
$db->do("INSERT INTO t VALUES('first')");
print $db->selectrow_array('SELECT walferry_wait(walferry_token(), 30000)'), "\n";
$db->do("INSERT INTO t VALUES('last')");
$db->disconnect;
