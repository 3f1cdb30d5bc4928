-- What a session of the sqlite3 shell does, for .ci/memcheck: load, open, write, ship, merge
-- back, attach, switch modes, close, open again.
.open 'file:app.db?vfs=walferry&interval=50ms'
CREATE TABLE t(id INTEGER PRIMARY KEY, b);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT i, randomblob(500) FROM n;
PRAGMA walferry_sync;
UPDATE t SET b = randomblob(700) WHERE id % 3 = 0;
SELECT walferry_wait(walferry_token(), 30000);
PRAGMA wal_checkpoint(TRUNCATE);
DELETE FROM t WHERE id > 100;
VACUUM;
SELECT walferry_mark('here') <> '';
ATTACH 'file:aux.db?vfs=walferry' AS aux;
CREATE TABLE aux.u(x);
INSERT INTO aux.u SELECT b FROM t;
PRAGMA aux.walferry_sync;
PRAGMA aux.walferry_status;
DETACH aux;
PRAGMA walferry_status;
SELECT walferry_txid() <> '', walferry_version();
PRAGMA journal_mode=DELETE;
INSERT INTO t VALUES(1000, 1);
PRAGMA journal_mode=WAL;
PRAGMA walferry_sync;
.open 'file:app.db?vfs=walferry&wal=keep'
INSERT INTO t VALUES(1001, 1);
.open 'file::memory:?vfs=walferry'
CREATE TABLE m(x);
.open 'file:app.db?vfs=walferry&mode=ro'
SELECT count(*) FROM t;
