"""Does random things to a database for ever, with walferry or (first argument "plain") without."""
import random
from wf import *

opens = plain if sys.argv[1] == "plain" else lambda: connect(interval=random.choice(["10ms", "50ms", "300ms"]))
r = random.Random(int(sys.argv[2]))
acts = [
    "INSERT INTO t(v) VALUES(randomblob(abs(random() % 9000)))",
    "INSERT INTO t(v) SELECT randomblob(2000) FROM t LIMIT 30",
    "UPDATE t SET v = randomblob(300) WHERE id % 17 = abs(random() % 17)",
    "DELETE FROM t WHERE id % 5 = abs(random() % 5)",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(RESTART)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "VACUUM",
    "PRAGMA journal_mode=WAL",
]
c = opens()
while True:
    try:
        what = r.randrange(len(acts) + 3)
        if what == len(acts):
            c.close()
            c = opens()
        elif what == len(acts) + 1:
            c.execute("BEGIN IMMEDIATE")
            c.execute("INSERT INTO t(v) SELECT randomblob(4000) FROM t LIMIT 40")
            c.execute("ROLLBACK")
        elif what == len(acts) + 2:
            c.execute("BEGIN IMMEDIATE")
            c.execute("SAVEPOINT s")
            c.execute("UPDATE t SET v = randomblob(500)")
            c.execute("ROLLBACK TO s")
            c.execute("INSERT INTO t(v) VALUES('kept')")
            c.execute("COMMIT")
        else:
            c.execute(acts[what]).fetchall()
        say("did", what)
    except sqlite3.OperationalError as e:
        if "locked" not in str(e) and "busy" not in str(e):
            raise
        if c.in_transaction:
            c.execute("ROLLBACK")
