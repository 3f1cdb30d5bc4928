"""Does the same with a database of walferry's and with a plain one, statement by
statement, through two connections each: what SQLite answers must be the same.

The first argument is a seed, the second what wal= is, the third parameters of both
URIs, or "shared" for a cache that all connections of the process share. Ends with "done"
when both hold the same and the store has it.
"""
import ctypes
import random
from wf import *

seed, mode, extra = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if extra == "shared":
    extra = "" # from here on it is what every open does that does not say otherwise
    ctypes.CDLL("libsqlite3.so.0").sqlite3_enable_shared_cache(1)
r = random.Random(seed)
PLAIN = DB + "-plain.db"


def open_both():
    """Each opening of ours has its plain one; ours are the application's twins."""
    ours = sqlite3.connect(f"{uri(wal=mode, interval='10ms')}&{extra}", uri=True, isolation_level=None, timeout=0)
    return ours, sqlite3.connect(f"file:{PLAIN}?{extra}", uri=True, isolation_level=None, timeout=0)


MODES = ["delete", "truncate", "persist", "memory", "wal"]
if without_rollback := seed % 3 == 0: # with OFF a ROLLBACK spoils a database, as SQLite warns
    MODES.append("off")
STATEMENTS = [
    (12, lambda: "PRAGMA journal_mode=" + r.choice(MODES)),
    (2, lambda: "PRAGMA main.journal_mode"),
    (5, lambda: r.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])),
    (8, lambda: "COMMIT"),
    (3, lambda: "ROLLBACK"),
    (3, lambda: "SAVEPOINT s"),
    (2, lambda: "ROLLBACK TO s"),
    (3, lambda: "RELEASE s"),
    (20, lambda: f"INSERT INTO t(v) VALUES(zeroblob({r.randrange(9000)}))"),
    (6, lambda: f"UPDATE t SET v = zeroblob({r.randrange(3000)}) WHERE id % 3 = {r.randrange(3)}"),
    (4, lambda: f"DELETE FROM t WHERE id % 4 = {r.randrange(4)}"),
    (8, lambda: "SELECT count(*), total(length(v)) FROM t"),
    (2, lambda: f"CREATE TABLE IF NOT EXISTS u{r.randrange(4)}(x)"),
    (1, lambda: f"DROP TABLE IF EXISTS u{r.randrange(4)}"),
    (3, lambda: f"PRAGMA wal_checkpoint({r.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})"),
    (2, lambda: f"PRAGMA synchronous={r.randrange(4)}"),
    (1, lambda: f"PRAGMA mmap_size={r.choice([0, 1 << 20])}"),
    (1, lambda: f"PRAGMA cache_size={r.choice([2, 100])}"),
    (1, lambda: f"PRAGMA wal_autocheckpoint={r.choice([0, 3, 1000])}"),
    (1, lambda: "CREATE TEMP TABLE IF NOT EXISTS tmp(x)"),
    (1, lambda: "INSERT INTO temp.tmp SELECT id FROM t"),
    (1, lambda: "VACUUM"),
    (1, lambda: "PRAGMA incremental_vacuum"),
    (1, lambda: f"PRAGMA user_version={r.randrange(99)}"),
    (2, lambda: "open"),
]
WEIGHTS, MAKERS = zip(*STATEMENTS)


def run(c, sql):
    try:
        rows = c.execute(sql).fetchall()
    except sqlite3.Error as e:
        return f"{e.sqlite_errorname if hasattr(e, 'sqlite_errorname') else type(e).__name__}: {e}"
    return None if "checkpoint" in sql else rows


def differs(sql, ours, plain):
    if ours == plain:
        return False
    # With wal=auto a database is in WAL mode where a plain one is not, and so more is allowed.
    return mode == "keep" or not (sql.startswith("PRAGMA") or isinstance(ours, str) or isinstance(plain, str))


pairs = [open_both(), open_both()]
auto_vacuum = r.randrange(3)
for c in pairs[0]:
    c.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
    c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
done = []
for step in range(250):
    i, sql = r.randrange(2), r.choices(MAKERS, WEIGHTS)[0]()
    if without_rollback:
        sql = sql.replace("ROLLBACK TO", "RELEASE").replace("ROLLBACK", "COMMIT")
    if sql == "open":
        for c in pairs[i]:
            run(c, "COMMIT")
            c.close()
        pairs[i] = open_both()
        continue
    answers = [run(c, sql) for c in pairs[i]]
    done.append(f"{i} {sql}: {answers}"[:300])
    if differs(sql, *answers):
        if mode == "keep":
            raise SystemExit("walferry, then plain SQLite, answer:\n" + "\n".join(done[-25:]))
        break # one of the two took a lock that the other did not, and the worlds part here
for c in pairs[0] + pairs[1]:
    run(c, "COMMIT" if without_rollback else "ROLLBACK")
ours, plainly = pairs[0]
pairs[1][0].close()
pairs[1][1].close()
if mode == "keep":
    for sql in ("SELECT id, length(v) FROM t", "PRAGMA integrity_check"):
        assert run(ours, sql) == run(plainly, sql), done[-10:]
assert one(ours, "PRAGMA integrity_check") == "ok"
ours.execute("PRAGMA busy_timeout=10000")
assert one(ours, "PRAGMA journal_mode=WAL") == "wal", done[-10:]
ours.execute("INSERT INTO t(v) VALUES('last')")
sync(ours)
ours.close()
plainly.close()
say("done")
