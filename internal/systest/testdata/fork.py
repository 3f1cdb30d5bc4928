"""A parent that ships and a child that only writes, by fork or multiprocessing.

Ends with "done" when the store has what the children committed.
"""
import multiprocessing
import re
import signal
from wf import *


def inherited_locks():
    """Locks of open file descriptions that came with the fork: /proc/self/fdinfo lists them."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
            info = open(f"/proc/self/fdinfo/{fd}").read()
        except FileNotFoundError:
            continue
        if re.search(r"^lock:.*OFDLCK", info, re.M):
            found.append(name)
    return found


def child(first, rows, sql="INSERT INTO t(v) VALUES(?)"):
    signal.alarm(30)  # a child that hangs dies of it, and the test sees the signal
    assert not inherited_locks(), inherited_locks()
    c = connect()
    for i in range(rows):
        c.execute(sql, (first + i,))
    assert status(c)["state"] == "child", status(c)
    confirm(c)
    assert sync(c) == one(c, "SELECT walferry_txid()")
    c.close()


def forked(first, rows):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(first, rows)
            code = 0
        finally:
            if code:
                import traceback
                traceback.print_exc()
            os._exit(code)
    return pid


def reap(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def by_fork():
    """Forks again and again right behind large commits, so that batches are under way."""
    c = connect(interval="10ms")
    for round in range(8):
        c.execute("UPDATE big SET b = randomblob(3000000)")
        pids = [forked(round * 1000 + n * 100, 20) for n in range(3)]
        for pid in pids:
            reap(pid)
    c.close()


def by_multiprocessing():
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=child, args=(n * 100, 20)) for n in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
        assert w.exitcode == 0, w.exitcode


def by_exit():
    """A child that ends by exit(3), whose handlers walferry has one among."""
    pid = os.fork()
    if pid == 0:
        child(500, 20)
        sys.exit(0)
    reap(pid)


if __name__ == "__main__":
    c = connect()
    c.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
    c.execute("CREATE TABLE big(b)")
    c.execute("INSERT INTO big VALUES(zeroblob(3000000))")
    {"fork": by_fork, "multiprocessing": by_multiprocessing, "exit": by_exit}[sys.argv[1]]()
    sync(c)
    assert status(c)["shipper_pid"] == os.getpid()
    rows = one(c, "SELECT count(*) FROM t WHERE v >= 0")
    c.close()
    say("done", rows)
