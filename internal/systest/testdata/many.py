"""Writes numbered rows, with walferry or without: many.py NAME ROWS plain|walferry.

Prints "row N" after each tenth commit; ends without a close where NAME ends with "!".
"""
import random
from wf import *

name, rows, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
c = plain() if how == "plain" else connect()
c.execute("PRAGMA wal_autocheckpoint=20")
for i in range(rows):
    c.execute("INSERT INTO t VALUES(?, ?, zeroblob(?))", (name, i, random.randrange(3000)))
    if i % 50 == 17:
        c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if i % 10 == 9:
        say("row", i)
if not name.endswith("!"):
    c.close()
say("done")
