"""A child that outlives the parent which ships, and one that uses a connection that its
parent has opened: orphan.py orphan, or orphan.py inherited walferry|plain.
"""
import signal
import time
from wf import *


def orphan():
    """The child opens the database, the parent ends, then the child commits."""
    c = connect(interval="1h")
    c.execute("CREATE TABLE t(v)")
    sync(c)
    ours, theirs = os.pipe()
    told, tell = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        signal.alarm(120)
        os.close(theirs)
        d = connect()
        d.execute("INSERT INTO t VALUES('the parent lives')")
        say("living", json.dumps(status(d)))
        os.write(tell, b"x")
        os.read(ours, 1)  # until the parent ends, which closes its files one after the other
        while os.getppid() == parent:
            time.sleep(0.001)
        d.execute("INSERT INTO t VALUES('the parent has ended')")
        say("orphaned", json.dumps(status(d)))
        say("wait", one(d, "SELECT walferry_wait(walferry_token(), 100)"))
        try:
            say("sync", sync(d))
        except sqlite3.Error as e:
            say("sync", e)
        sys.stdin.readline()
        d.execute("INSERT INTO t VALUES('another process ships')")
        confirm(d)
        say("shipped", json.dumps(status(d)))
        d.close()
        os._exit(0)
    os.read(told, 1)
    os._exit(0)


def inherited(how):
    """A bug of the application's, which SQLite forbids: the child uses what the parent opened."""
    c = plain() if how == "plain" else connect()
    c.execute("PRAGMA journal_mode=WAL")
    c.execute("CREATE TABLE t(v)")
    c.execute("INSERT INTO t VALUES('parent')")
    answers = []
    for round in range(3):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            try:
                c.execute("INSERT INTO t VALUES(?)", (f"child {round}",))
                said = one(c, "SELECT count(*) FROM t")
                if round == 1:
                    c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if round == 2:
                    c.close()
            except sqlite3.Error as e:
                said = e
            os.write(w, str(said).encode())
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(w)
        answers.append((os.read(r, 1000).decode(), code))
        for sql in ("INSERT INTO t VALUES('parent')", "SELECT count(*) FROM t", "PRAGMA integrity_check"):
            try:
                answers.append(c.execute(sql).fetchall())
            except sqlite3.Error as e:
                answers.append(str(e))
    say("answers", json.dumps(answers))
    if how != "plain":
        sync(c)
    c.close()
    say("done")


if sys.argv[1] == "orphan":
    orphan()
else:
    inherited(sys.argv[2])
