"""Commits numbered rows for ever.

Prints "confirmed N" when the store has row N: from another thread, by a token,
so that the writer is never held up. The first argument is the size of a ballast
that is written before the first row, the second the largest row.
"""
import random
import threading
from wf import *

ballast, largest = int(sys.argv[1]), int(sys.argv[2])
c = connect()
c.execute("PRAGMA wal_autocheckpoint=50")
c.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, b)")
c.execute("CREATE TABLE IF NOT EXISTS ballast(b)")
if ballast and one(c, "SELECT count(*) FROM ballast") == 0:
    c.execute("BEGIN")
    for _ in range(ballast // 10000):
        c.execute("INSERT INTO ballast VALUES(randomblob(9990))")
    c.execute("COMMIT")
last = one(c, "SELECT coalesce(max(id), 0) FROM t")
newest, fresh = None, threading.Event()
say("begin", last)


def confirmations():
    w = connect()
    while fresh.wait():
        fresh.clear()
        row, token = newest
        if one(w, "SELECT walferry_wait(?, 30000)", token) == 1:
            say("confirmed", row)


threading.Thread(target=confirmations, daemon=True).start()
while True:
    last += 1
    c.execute("INSERT INTO t VALUES(?, randomblob(?))", (last, random.randrange(largest)))
    newest = (last, one(c, "SELECT walferry_token()"))
    fresh.set()
