use strict;
use warnings;
use DBI;
use DBD::SQLite;

my ($extension, $uri, $query) = @ARGV;
my $loader = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', {RaiseError => 1});
$loader->sqlite_enable_load_extension(1);
$loader->do('SELECT load_extension(?)', undef, $extension);
$loader->disconnect;

my $db = DBI->connect("dbi:SQLite:uri=$uri", '', '', {RaiseError => 1});
print $db->selectrow_array($query), "\n";
$db->disconnect;
