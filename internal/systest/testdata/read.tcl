package require sqlite3
lassign $argv extension uri query
sqlite3 loader :memory:
loader enable_load_extension 1
loader eval {SELECT load_extension($extension)}
loader close

sqlite3 db $uri -uri 1
puts [lindex [db eval $query] 0]
db close
