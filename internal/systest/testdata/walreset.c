/*
** Forces the interleaving of SQLite's WAL-reset bug (3.7.0 to 3.51.2).
**
**   walreset DATABASE [EXTENSION QUERY]
**
** A checkpointer has read the header of a WAL that is wholly copied already; before
** it looks at how much is copied, a writer restarts the WAL. In SQLite the two are
** apart by one call to the VFS, xUnfetch(0, 0), from where this program writes. With
** an extension the database is opened as file:DATABASE?vfs=walferry&QUERY.
**
** Prints "sound", or what the database lost.
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 40 };

static sqlite3 *checkpointer, *writer;
static int newest[ROWS + 1]; /* what each row must hold */
static int armed, wrote_inside;

static int (*unix_open)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
static sqlite3_io_methods methods;
static const sqlite3_io_methods *unix_methods;
static sqlite3_vfs pausing;

static void fail(const char *what) {
  printf("%s\n", what);
  exit(1);
}

static void exec(sqlite3 *db, const char *sql) {
  char *err = 0;
  if (sqlite3_exec(db, sql, 0, 0, &err) != SQLITE_OK) fail(err);
}

/* One commit of one page. */
static void update(int row) {
  char sql[128];
  snprintf(sql, sizeof sql, "UPDATE t SET n=%d, fill=randomblob(3500) WHERE id=%d", ++newest[row], row);
  exec(writer, sql);
}

static int unfetch(sqlite3_file *file, sqlite3_int64 off, void *page) {
  if (armed && off == 0 && !page) {
    armed = 0;
    wrote_inside = 1;
    update(1);
  }
  return unix_methods->xUnfetch(file, off, page);
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  int rc = unix_open(vfs, name, file, flags, out);
  if (rc == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB)) {
    if (!unix_methods) {
      unix_methods = file->pMethods;
      methods = *unix_methods;
      methods.xUnfetch = unfetch;
    }
    if (file->pMethods == unix_methods) file->pMethods = &methods;
  }
  return rc;
}

/* Puts a VFS of ours under whatever is registered later. */
static void pause_unix(void) {
  sqlite3_vfs *root = sqlite3_vfs_find("unix");
  pausing = *root;
  unix_open = root->xOpen;
  pausing.zName = "pausing";
  pausing.xOpen = open_file;
  sqlite3_vfs_register(&pausing, 1);
}

static void load(const char *extension) {
  sqlite3 *db;
  char *err = 0;
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) fail("open :memory:");
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, extension, "sqlite3_walferry_init", &err) != SQLITE_OK) fail(err);
  sqlite3_close(db);
}

static int frames(sqlite3 *db) {
  int log = 0, copied = 0;
  if (sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, &log, &copied) != SQLITE_OK) fail("checkpoint");
  return log;
}

static void check(const char *path) {
  sqlite3 *db;
  sqlite3_stmt *stmt;
  int lost = 0, seen = 0;
  if (sqlite3_open(path, &db) != SQLITE_OK) fail("open again");
  sqlite3_prepare_v2(db, "SELECT id, n FROM t", -1, &stmt, 0);
  while (sqlite3_step(stmt) == SQLITE_ROW) {
    seen++;
    lost += sqlite3_column_int(stmt, 1) != newest[sqlite3_column_int(stmt, 0)];
  }
  if (sqlite3_finalize(stmt) != SQLITE_OK) fail("unreadable");
  sqlite3_close(db);
  if (seen != ROWS || lost) {
    printf("lost: %d of %d rows are not what was committed\n", lost + ROWS - seen, ROWS);
    exit(0);
  }
  printf("sound\n");
}

int main(int argc, char **argv) {
  char uri[8192];
  if (argc < 2) return 2;
  sqlite3_config(SQLITE_CONFIG_URI, 1);
  sqlite3_initialize();
  pause_unix();
  if (argc > 3) load(argv[2]);
  snprintf(uri, sizeof uri, argc > 3 ? "file:%s?vfs=walferry&%s" : "file:%s", argv[1], argc > 3 ? argv[3] : "");
  if (sqlite3_open(uri, &writer) || sqlite3_open(uri, &checkpointer)) fail("open");
  exec(writer, "PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0;"
               "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, fill)");
  exec(checkpointer, "PRAGMA wal_autocheckpoint=0");
  for (int i = 1; i <= ROWS; i++) {
    char sql[96];
    snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d, 0, randomblob(3500))", i);
    exec(writer, sql);
  }
  exec(checkpointer, "SELECT count(*) FROM t"); /* so that the next header is news to it */
  update(2);
  int before = frames(writer); /* wholly copied */

  armed = 1;
  if (sqlite3_wal_checkpoint_v2(checkpointer, "main", SQLITE_CHECKPOINT_PASSIVE, 0, 0) != SQLITE_OK) fail("checkpoint");
  if (!wrote_inside) fail("the checkpointer was not met between its two looks");

  /* Commits up to the frame that the old header ended at, then a checkpoint, and on. */
  for (int i = 0; i < before - 1; i++) update(1 + i % ROWS);
  frames(checkpointer);
  for (int i = 0; i < 3; i++) update(1 + i % ROWS);
  sqlite3_close(checkpointer);
  sqlite3_close(writer);
  check(argv[1]);
  return 0;
}
