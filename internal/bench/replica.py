"""Read a database as an application does, and time it.

A conversation of JSON values, one a line, over standard input and output. The first is

    {"Extension": path or "", "URI": text, "IDs": [row, ...]}

and each that follows asks for a step, of which each gets one answer:

    {"Do": "open"}                      load the extension, open, read a first row
    {"Do": "points"}                    read the rows, a transaction each
    {"Do": "warm", "Seconds": s}        the same again and again, for at least so long
    {"Do": "scan", "From": a, "To": b}  read all rows of a range in one transaction

Times are in nanoseconds. The run time of the interpreter before the first step is in none.
"""

import json
import sqlite3
import sys
import time
import zlib


def resident():
    """Return VmRSS in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


class Reader:
    POINT = "SELECT v FROM rows WHERE id = ?"

    def __init__(self, spec):
        self.extension, self.uri, self.ids = spec["Extension"], spec["URI"], spec["IDs"]
        self.memory = sqlite3.connect(":memory:")
        if self.extension:
            self.memory.enable_load_extension(True)
        self.memory.execute("SELECT 1").fetchone()

    def open(self, _):
        before = resident()
        begin = time.monotonic_ns()
        if self.extension:
            self.memory.load_extension(self.extension)
        self.database = sqlite3.connect(self.uri, uri=True, isolation_level=None)
        self.database.execute("SELECT v FROM rows LIMIT 1").fetchone()
        elapsed = time.monotonic_ns() - begin
        return {"Elapsed": elapsed, "Grown": resident() - before}

    def points(self, _):
        execute, check = self.database.execute, 0
        begin = time.monotonic_ns()
        for row in self.ids:
            check = zlib.crc32(execute(self.POINT, (row,)).fetchone()[0].encode(), check)
        return {"Elapsed": time.monotonic_ns() - begin, "Check": check}

    def warm(self, step):
        execute, reads = self.database.execute, 0
        begin = time.monotonic_ns()
        until = begin + int(step["Seconds"] * 1e9)
        while True:
            for row in self.ids:
                execute(self.POINT, (row,)).fetchone()
            reads += len(self.ids)
            now = time.monotonic_ns()
            if now >= until:
                return {"Elapsed": now - begin, "Reads": reads}

    def scan(self, step):
        begin = time.monotonic_ns()
        check = self.database.execute(
            "SELECT sum(length(v)) FROM rows WHERE id BETWEEN ? AND ?", (step["From"], step["To"])
        ).fetchone()[0]
        return {"Elapsed": time.monotonic_ns() - begin, "Check": check}


def main():
    reader = Reader(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        step = json.loads(line)
        answer = getattr(reader, step["Do"])(step)
        print(json.dumps(answer), flush=True)
    reader.database.close()


main()
