"""Commits so many megabytes at once, and half of them again: large.py MEGABYTES PAGESIZE.

Prints by how many KiB the process had grown at most, and "done".
"""
from wf import *


def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1])


megabytes, page_size = int(sys.argv[1]), int(sys.argv[2])
c = connect(interval="1h", snapshot_interval="0", close_timeout="10m")
c.execute(f"PRAGMA page_size={page_size}")
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
sync(c)
before = peak()
c.execute("BEGIN")
for i in range(megabytes):
    # Half of each row compresses, as with most data.
    c.execute("INSERT INTO t VALUES(?, ?)", (i, os.urandom(500_000) + bytes(500_000)))
c.execute("COMMIT")
sync(c)
c.execute("UPDATE t SET v = v || x'00' WHERE id % 2")
sync(c)
say("resident", peak() - before)
c.close()
say("done")
