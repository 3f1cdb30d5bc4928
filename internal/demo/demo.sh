#!/bin/sh
# Shows what walferry is for: a program writes, dies without warning, its disk is
# lost, and nothing that was confirmed is missing. Run by `make demo` at the top of
# the repository; works in a directory of its own and removes it.
set -eu
top=$(pwd)
dir=$(mktemp -d)
writer=
cleanup() {
  [ -z "$writer" ] || kill -9 "$writer" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
say() { printf '\n%s\n' "$*"; }
cd "$dir"

say "1. A program opens app.db through the extension, with a directory as its replica:"
echo "     .load walferry"
echo "     .open 'file:app.db?vfs=walferry&replica=file://\$PWD/replica'"
mkfifo sql
WALFERRY_LOG=off sqlite3 -batch <sql >confirmed &
writer=$!
exec 3>sql
cat >&3 <<SQL
.load $top/dist/walferry
.open 'file:app.db?vfs=walferry&replica=file://$dir/replica'
CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT, at TEXT DEFAULT (strftime('%H:%M:%f')));
SQL

say "2. It takes 30 orders, one every tenth of a second. Nobody waits for the replica."
i=0
while [ $i -lt 30 ]; do
  i=$((i + 1))
  echo "INSERT INTO orders(item) VALUES('item $i');" >&3
  sleep 0.1
done
echo "SELECT CASE walferry_wait(walferry_token(), 10000) WHEN 1 THEN (SELECT max(id) FROM orders) END;" >&3
while [ ! -s confirmed ]; do
  kill -0 "$writer" || { echo "the writer ended early" >&2; exit 1; }
  sleep 0.1
done
last=$(cat confirmed)
echo "     walferry_wait() confirms: order $last is in the replica."

say "3. kill -9, in the middle of its work. Then the disk is lost: app.db is deleted."
j=0
while [ $j -lt 20 ]; do
  j=$((j + 1))
  echo "INSERT INTO orders(item) VALUES('unconfirmed $j');" >&3
done
kill -9 "$writer"
wait "$writer" 2>/dev/null || true
writer=
exec 3>&-
rm -f app.db app.db-wal app.db-shm app.db-ledger
echo "     What is left is the replica:"
find replica -name '*.ltx' | sort | while read -r f; do echo "       $f, $(wc -c <"$f") bytes"; done

say "4. walferry restore -o app.db file://\$PWD/replica"
"$top/dist/walferry" restore -q -o app.db "file://$dir/replica" | sed 's/^/     /'

say "5. What came back:"
sqlite3 app.db "SELECT '     ' || count(*) || ' orders, the newest is ' || max(id) || ' (' || item || '), integrity: ' || (SELECT * FROM pragma_integrity_check) FROM orders"
have=$(sqlite3 app.db "SELECT count(*) FROM orders WHERE id <= $last")
if [ "$have" != "$last" ]; then
  echo "MISSING: only $have of $last confirmed orders came back" >&2
  exit 1
fi
echo
echo "All $last confirmed orders are there. Nothing is missing."
