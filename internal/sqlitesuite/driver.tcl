# Runs one file of SQLite's tests: testfixture driver.tcl FILE.test MODE RESULTS ASIDE
#
# MODE is `asis`, or `wal`: each connection begins with journal_mode=WAL, and the files
# that ask know it as their own permutation of that name. RESULTS gets a line for each
# case: `ok` or `FAIL`, its name, a tab and what it got. Where ASIDE is a directory, databases that the tests delete are set aside there
# with their ledgers and replicas, to be compared afterwards.
foreach {file_under_test mode results_path aside} $argv break
set argv {}
set argv0 $file_under_test
set results [open $results_path w]
fconfigure $results -buffering line

if {$aside ne ""} {
  set aside_count 0
  rename file file_of_tcl
  proc file {args} {
    if {[lindex $args 0] eq "delete"} {
      foreach path [lrange $args 1 end] { set_aside [file_of_tcl normalize $path] }
    }
    uplevel 1 [list file_of_tcl {*}$args]
  }
  # A database in WAL mode is moved away with what belongs to it, and its -wal copied:
  # some tests delete only one of the two. Of any other nothing is replicated.
  proc set_aside {path} {
    if {![file_of_tcl isfile $path-ledger] || ![file_of_tcl isfile $path]} return
    set replica $::env(SUITE_REPLICAS)$path
    set head ""
    if {[file_of_tcl readable $path]} {
      set fd [open $path rb]
      set head [read $fd 20]
      close $fd
    }
    set dir $::aside/[incr ::aside_count]
    if {[string range $head 18 19] eq "\2\2" && $::aside_count <= $::env(SUITE_ASIDE_MAX)} {
      file_of_tcl mkdir $dir
      file_of_tcl rename $path $dir/db
      file_of_tcl rename $path-ledger $dir/db-ledger
      if {[file_of_tcl exists $path-wal]} { file_of_tcl copy $path-wal $dir/db-wal }
      if {[file_of_tcl exists $replica]} { file_of_tcl rename $replica $dir/replica }
    } else {
      file_of_tcl delete -force $path-ledger $replica
    }
  }
}

set tester $env(SUITE_TESTER)
set testdir [file dirname $tester]
set ::G(isquick) 1
if {$mode eq "wal"} {
  set ::G(perm:name) wal
  set ::G(savepoint6_iterations) 100
}
source $tester

if {[info exists env(WALFERRY_DEFAULT)]} {
  set fd [open vfs.tcl w]
  puts $fd {sqlite3 db test.db; puts [file_control_vfsname db]; db close; exit}
  close $fd
  foreach vfs [list [file_control_vfsname db] [exec [info nameofexec] vfs.tcl]] {
    if {![string match walferry/* $vfs]} { error "the default VFS is $vfs, not walferry" }
  }
  file delete vfs.tcl
}

rename output2 output2_of_suite
proc output2 {args} {
  regexp {(?:got: +|^\nError: )(.*)$} [lindex $args end] -> ::got
  uplevel 1 [list output2_of_suite {*}$args]
}
rename do_test do_test_of_suite
proc do_test {name cmd expected} {
  set before [set_test_counter errors]
  set ::got ""
  uplevel 1 [list do_test_of_suite $name $cmd $expected]
  set verdict [expr {[set_test_counter errors] > $before ? "FAIL" : "ok"}]
  puts_original $::results [string map [list \n { }] "$verdict $name\t[string range $::got 0 400]"]
}
if {$mode eq "wal"} {
  rename sqlite3 sqlite3_of_suite
  proc sqlite3 {args} {
    set result [uplevel 1 [list sqlite3_of_suite {*}$args]]
    if {[llength $args] >= 2 && [string index [lindex $args 0] 0] ne "-"} {
      catch { [lindex $args 0] eval {PRAGMA journal_mode = WAL} }
    }
    set result
  }
  reset_db
}

# walferry refuses locking_mode=EXCLUSIVE, and most files give up at an error. So that the
# rest of them is run, both runs read NORMAL in its place.
set fd [open $file_under_test rb]
set text [read $fd]
close $fd
if {[regsub -all -nocase {(locking_mode\s*=\s*['"]?)exclusive} $text {\1normal} text]} {
  set file_under_test [file join $cmdlinearg(TESTFIXTURE_HOME) [file tail $file_under_test]]
  set fd [open $file_under_test wb]
  puts -nonewline $fd $text
  close $fd
  puts $results "exclusive"
}
unset text fd

set argv {}
source $file_under_test
