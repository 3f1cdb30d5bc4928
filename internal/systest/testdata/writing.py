"""A writer whose every state can be told from a mixture, until its standard input ends. What readers.py looks at."""
import random
import threading
from wf import *

rnd, c = random.Random(1), connect(**dict(a.split("=", 1) for a in sys.argv[1:]))
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
c.execute("CREATE TABLE log(i INTEGER PRIMARY KEY, x)")
c.execute("CREATE TABLE head(n)")
c.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, b)")
c.execute("BEGIN")
c.executemany("INSERT INTO t VALUES(?, 0)", [(i,) for i in range(500)])
c.executemany("INSERT INTO big VALUES(?, randomblob(5000))", [(i,) for i in range(300)])
c.execute("INSERT INTO head VALUES(0)")
c.execute("COMMIT")
sync(c)
say("ready")
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
n = 0
while not stop.is_set():
    c.execute("BEGIN")
    for _ in range(rnd.randrange(1, 6)):
        n += 1
        amount = rnd.randrange(100)
        c.execute("UPDATE t SET v = v + ? WHERE id = ?", (amount, rnd.randrange(500)))
        c.execute("UPDATE t SET v = v - ? WHERE id = ?", (amount, rnd.randrange(500)))
        c.execute("INSERT INTO log VALUES(?, randomblob(200))", (n,))
        c.execute("UPDATE big SET b = randomblob(5000) WHERE id = ?", (rnd.randrange(300),))
    c.execute("UPDATE head SET n = ?", (n,))
    c.execute("COMMIT")
    if rnd.randrange(40) == 0:
        c.execute("VACUUM")
    stop.wait(0.02)
sync(c)
c.close()
say("wrote", n)
