"""A process with one connection that does what its standard input says.

A line is "exec SQL", "get SQL", "confirm", "close", "open", "thread"; each is
answered by one line "ok VALUE" or "error TEXT". An argument NAME=VALUE is a
parameter of the URI. The lines that begin with "exit" or "_exit" end the program in
an unkind way.
"""
import threading
from wf import *

params = dict(a.split("=", 1) for a in sys.argv[1:])
c = None


def answer(verb, rest):
    global c
    if verb == "open":
        c = plain() if params.get("vfs") == "plain" else connect(**params)
    elif verb == "close":
        c.close()
    elif verb == "exec":
        c.execute(rest).fetchall()
    elif verb == "get":
        return one(c, rest)
    elif verb == "confirm":
        confirm(c)
    elif verb == "status":
        return status(c).get(rest)
    elif verb == "exit-reading":
        global rows
        rows = c.execute("SELECT 1 UNION ALL SELECT 2 FROM sqlite_schema")
        rows.fetchone()
        sys.exit(0)
    elif verb == "exit-busy":
        running = threading.Event()
        w = connect(**params)
        w.create_function("tell", 0, running.set)
        endless = "WITH RECURSIVE c(x) AS (SELECT tell() UNION ALL SELECT 1 FROM c) SELECT count(*) FROM c"
        threading.Thread(target=w.execute, args=(endless,), daemon=True).start()
        running.wait()
        sys.exit(0)
    elif verb == "_exit":
        os._exit(0)


for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    try:
        say("ok", answer(verb, rest))
    except sqlite3.Error as e:
        say("error", str(e).replace("\n", " "))
