"""Load walferry's extension into Python's sqlite3 and open a replicated database through it.

    load.py EXTENSION URI

Prints one JSON object: nanoseconds of the load and of the first open, and the resident bytes before,
after the load and after the open. The run time of the interpreter is not in the times.
"""

import json
import sqlite3
import sys
import time


def resident():
    """Return VmRSS in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def main():
    extension, uri = sys.argv[1:]
    memory = sqlite3.connect(":memory:")
    memory.enable_load_extension(True)
    memory.execute("SELECT 1").fetchone()

    before = resident()
    begin = time.monotonic_ns()
    memory.load_extension(extension)
    load = time.monotonic_ns() - begin
    time.sleep(0.1)  # threads that the load started settle
    loaded = resident()

    begin = time.monotonic_ns()
    database = sqlite3.connect(uri, uri=True)
    database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    opened = time.monotonic_ns() - begin
    database.execute("PRAGMA walferry_sync").fetchone()
    after = resident()
    database.close()

    print(json.dumps({
        "load": load, "open": opened,
        "before": before, "loaded": loaded, "after": after,
    }))


main()
