"""Connections to a replica that read while others write, merge and remove.

    readers.py THREADS ROUNDS [NAME=VALUE ...]

The writer (writing.py) keeps what is held here: each transaction is one state, and no state is older than one
that the thread has seen before. Prints how many transactions there were, and how many ended with an error that
says that the state has gone.
"""
import random
import threading
from wf import *

threads, rounds = int(sys.argv[1]), int(sys.argv[2])
params = {"vfs": "walferry-replica", "poll": "50ms"} | dict(a.split("=", 1) for a in sys.argv[3:])
done, gone, wrong = [], [], []


def look(c):
    n, total, last, logged = c.execute("SELECT n, (SELECT sum(v) FROM t), (SELECT max(i) FROM log), (SELECT count(*) FROM log) FROM head").fetchone()
    assert total == 0, f"the sum is {total}"
    assert last == logged == n, f"head {n}, last {last}, {logged} rows"
    return n


def transaction(c, rnd, seen):
    c.execute("BEGIN")
    try:
        n, txid = look(c), one(c, "SELECT walferry_txid()")
        assert n >= seen, f"{n} after {seen}"
        for _ in range(rnd.randrange(6)):
            what = rnd.randrange(10)
            if what < 3:
                again = look(c)
                assert again == n, f"{n}, and then {again}"
            elif what < 6:
                rows = one(c, "SELECT count(*) FROM log JOIN t ON t.id = log.i % 500")
                assert rows == n, f"{n}, and {rows} rows"
            elif what < 9:
                assert one(c, "SELECT b FROM big WHERE id = ?", rnd.randrange(300)) is not None, "a row is missing"
            else:
                said = one(c, "PRAGMA integrity_check")
                if "error code" in said or "failed to get" in said: # so it tells of a page that cannot be read
                    raise sqlite3.OperationalError(said)
                assert said == "ok", said
            now = one(c, "PRAGMA walferry_txid")
            assert now == txid, f"TXID {txid} has become {now}"
        return n
    finally:
        if c.in_transaction:
            c.execute("ROLLBACK")


def work(number):
    rnd, seen, c = random.Random(number), 0, None
    try:
        for i in range(rounds):
            if c is None or rnd.randrange(10) == 0:
                c = connect("reader", **params)
            try:
                seen = transaction(c, rnd, seen)
                done.append(1)
            except sqlite3.OperationalError as e:
                cause = status(c)["last_error"]
                assert "has gone" in cause, f"{e}: {cause}"
                gone.append(cause)
    except BaseException as e:
        wrong.append(f"thread {number}: {type(e).__name__}: {e}")


running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
for t in running:
    t.start()
for t in running:
    t.join()
for w in wrong:
    say("wrong", w)
say("done", len(done), len(gone))
