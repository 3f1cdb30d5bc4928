# Prints the files of a suite of permutations.test: testfixture lists.tcl SUITE
set suite [lindex $argv 0]
set argv {}
set argv0 $env(SUITE_TESTER)
set testdir [file dirname $argv0]
source $testdir/permutations.test
array set spec $::testspec($suite)
foreach name [lsort $spec(-files)] { puts_original "FILE $name" }
catch {db close}
exit 0
