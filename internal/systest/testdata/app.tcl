package require sqlite3
lassign $argv extension uri
sqlite3 loader :memory:
loader enable_load_extension 1
loader eval {SELECT load_extension($extension)}
loader close

sqlite3 db $uri -uri 1
db eval {CREATE TABLE t(v)}
db eval {INSERT INTO t VALUES('first')}
puts [db eval {SELECT walferry_wait(walferry_token(), 30000)}]
db eval {INSERT INTO t VALUES('last')}
db close
