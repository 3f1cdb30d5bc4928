"""What the Python programs of the tests share."""
import json
import os
import sqlite3
import sys

SO, DB, REPLICA = os.environ["WF_SO"], os.environ["WF_DB"], os.environ["WF_REPLICA"]
sys.stdout.reconfigure(line_buffering=True)


def load():
    c = sqlite3.connect(":memory:")
    c.enable_load_extension(True)
    c.load_extension(SO.removesuffix(".so"))
    c.close()


def uri(path=DB, **params):
    params = {"vfs": "walferry", "replica": REPLICA, "interval": "50ms"} | params
    return f"file:{path}?" + "&".join(f"{k}={v}" for k, v in params.items() if v is not None)


def connect(path=DB, **params):
    return sqlite3.connect(uri(path, **params), uri=True, isolation_level=None, timeout=30, check_same_thread=False)


def plain(path=DB):
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def one(c, sql, *args):
    row = c.execute(sql, args).fetchone()
    return row[0] if row else None


def status(c, schema="main"):
    return json.loads(one(c, f"PRAGMA {schema}.walferry_status"))


def sync(c, schema="main"):
    return one(c, f"PRAGMA {schema}.walferry_sync")


def confirm(c, schema="main"):
    assert one(c, f"SELECT walferry_wait(walferry_token('{schema}'), 30000, '{schema}')") == 1


def say(*words):
    print(*words, flush=True)


load()
