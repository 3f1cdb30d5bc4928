/*
** A program with other VFSs under and over walferry.
**
**   shims EXTENSION BELOW OVER URI
**
** BELOW becomes the default VFS before walferry is loaded: "through", which passes
** every call on and counts them, or one of SQLite's own. With OVER "over" the database
** is opened through such a shim above walferry, with "again" through one that is the default
** when walferry is loaded once more, with "shutdown" through the default after SQLite was shut
** down and walferry loaded once more, with "secret" through one that encrypts
** the pages, with "names" through one that opens each file by a name of its own, as
** SQLite's multiplexor does, of which a WAL's says nothing of the database. Then it writes, and
** prints the status. "shims read FILE" reads what that
** has encrypted.
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file {
  sqlite3_file base;
  sqlite3_io_methods methods;
  sqlite3_file *real;
  struct through *vfs;
  int is_wal;
  const char *name; /* of our own; NULL: it is SQLite's */
};

struct through {
  sqlite3_vfs vfs;
  sqlite3_vfs *root;
  int secret, names;
};

enum { PAGE = 1024, WAL_HEADER = 32, FRAME_HEADER = 24 };

static int calls;

#define REAL(p) (calls++, ((struct file *)(p))->real)
#define CALL(p) (((struct file *)(p))->real->pMethods)

static int t_close(sqlite3_file *p) {
  int rc = CALL(p)->xClose(REAL(p));
  if (((struct file *)p)->name) sqlite3_free_filename(((struct file *)p)->name);
  return rc;
}

/* The same name elsewhere, with a database's parameters. */
static const char *name_of_ours(const char *name, int is_wal) {
  const char *params[40], *key;
  int n = 0;
  while (!is_wal && n < 20 && (key = sqlite3_uri_key(name, n)) != 0) {
    params[2 * n] = key;
    params[2 * n + 1] = sqlite3_uri_parameter(name, key);
    n++;
  }
  return sqlite3_create_filename(name, "", "", n, params);
}

/* Encrypts, or decrypts, what of a write or read is of a page; a page looks the same in
** the WAL as in the database. */
static void turn(struct file *f, unsigned char *b, int n, sqlite3_int64 at) {
  for (int i = 0; f->vfs->secret && i < n; i++) {
    sqlite3_int64 in = (at + i) % PAGE;
    if (f->is_wal) {
      if (at + i < WAL_HEADER) continue;
      in = (at + i - WAL_HEADER) % (PAGE + FRAME_HEADER) - FRAME_HEADER;
    }
    if (in >= 0) b[i] ^= (unsigned char)(in * 7 + 0x5a);
  }
}

static int t_read(sqlite3_file *p, void *b, int n, sqlite3_int64 at) {
  int rc = CALL(p)->xRead(REAL(p), b, n, at);
  if (rc == SQLITE_OK) turn((struct file *)p, b, n, at);
  return rc;
}
static int t_write(sqlite3_file *p, const void *b, int n, sqlite3_int64 at) {
  unsigned char *copy = sqlite3_malloc(n);
  if (!copy) return SQLITE_NOMEM;
  memcpy(copy, b, (size_t)n);
  turn((struct file *)p, copy, n, at);
  int rc = CALL(p)->xWrite(REAL(p), copy, n, at);
  sqlite3_free(copy);
  return rc;
}
static int t_truncate(sqlite3_file *p, sqlite3_int64 n) { return CALL(p)->xTruncate(REAL(p), n); }
static int t_sync(sqlite3_file *p, int flags) { return CALL(p)->xSync(REAL(p), flags); }
static int t_size(sqlite3_file *p, sqlite3_int64 *n) { return CALL(p)->xFileSize(REAL(p), n); }
static int t_lock(sqlite3_file *p, int l) { return CALL(p)->xLock(REAL(p), l); }
static int t_unlock(sqlite3_file *p, int l) { return CALL(p)->xUnlock(REAL(p), l); }
static int t_reserved(sqlite3_file *p, int *out) { return CALL(p)->xCheckReservedLock(REAL(p), out); }
static int t_control(sqlite3_file *p, int op, void *arg) { return CALL(p)->xFileControl(REAL(p), op, arg); }
static int t_sector(sqlite3_file *p) { return CALL(p)->xSectorSize(REAL(p)); }
static int t_characteristics(sqlite3_file *p) { return CALL(p)->xDeviceCharacteristics(REAL(p)); }
static int t_map(sqlite3_file *p, int i, int n, int extend, void volatile **out) { return CALL(p)->xShmMap(REAL(p), i, n, extend, out); }
static int t_shm_lock(sqlite3_file *p, int at, int n, int flags) { return CALL(p)->xShmLock(REAL(p), at, n, flags); }
static void t_barrier(sqlite3_file *p) { CALL(p)->xShmBarrier(REAL(p)); }
static int t_unmap(sqlite3_file *p, int delete) { return CALL(p)->xShmUnmap(REAL(p), delete); }
static int t_fetch(sqlite3_file *p, sqlite3_int64 at, int n, void **out) { return CALL(p)->xFetch(REAL(p), at, n, out); }
static int t_unfetch(sqlite3_file *p, sqlite3_int64 at, void *b) { return CALL(p)->xUnfetch(REAL(p), at, b); }

static int t_open(sqlite3_vfs *v, const char *name, sqlite3_file *p, int flags, int *out) {
  sqlite3_vfs *root = ((struct through *)v)->root;
  struct file *f = (struct file *)p;
  memset(f, 0, sizeof *f);
  f->real = (sqlite3_file *)(f + 1);
  f->vfs = (struct through *)v;
  f->is_wal = (flags & SQLITE_OPEN_WAL) != 0;
  if (!(flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_DB))) return root->xOpen(root, name, p, flags, out);
  if (f->vfs->names && !(name = f->name = name_of_ours(name, f->is_wal))) return SQLITE_NOMEM;
  int rc = root->xOpen(root, name, f->real, flags, out);
  if (!f->real->pMethods && f->name) sqlite3_free_filename(f->name);
  if (f->real->pMethods) {
    const sqlite3_io_methods *m = f->real->pMethods;
    f->methods = (sqlite3_io_methods){m->iVersion > 2 && f->vfs->secret ? 2 : m->iVersion, t_close, t_read, t_write, t_truncate, t_sync, t_size, t_lock, t_unlock,
                                      t_reserved, t_control, t_sector, t_characteristics, 0, 0, 0, 0, 0, 0};
    if (m->iVersion > 1 && m->xShmMap) {
      f->methods.xShmMap = t_map;
      f->methods.xShmLock = t_shm_lock;
      f->methods.xShmBarrier = t_barrier;
      f->methods.xShmUnmap = t_unmap;
    }
    if (m->iVersion > 2 && m->xFetch && !f->vfs->secret) {
      f->methods.xFetch = t_fetch;
      f->methods.xUnfetch = t_unfetch;
    }
    f->base.pMethods = &f->methods;
  }
  return rc;
}

#define ROOT(v) (((struct through *)(v))->root)
static int t_delete(sqlite3_vfs *v, const char *name, int sync) { return ROOT(v)->xDelete(ROOT(v), name, sync); }
static int t_access(sqlite3_vfs *v, const char *name, int flags, int *out) { return ROOT(v)->xAccess(ROOT(v), name, flags, out); }
static int t_full(sqlite3_vfs *v, const char *name, int n, char *out) { return ROOT(v)->xFullPathname(ROOT(v), name, n, out); }

static void put(struct through *t, const char *name, const char *root, int make_default) {
  t->root = sqlite3_vfs_find(root);
  if (!t->root) {
    fprintf(stderr, "there is no VFS %s\n", root);
    exit(1);
  }
  t->vfs = *t->root; /* what concerns no file goes to the root with its own pointer, which it does not use */
  t->vfs.pNext = 0;
  t->vfs.zName = name;
  t->vfs.szOsFile = (int)sizeof(struct file) + t->root->szOsFile;
  t->vfs.xOpen = t_open;
  t->vfs.xDelete = t_delete;
  t->vfs.xAccess = t_access;
  t->vfs.xFullPathname = t_full;
  sqlite3_vfs_register(&t->vfs, make_default);
}

static int print(void *arg, int n, char **values, char **names) {
  (void)arg;
  (void)names;
  for (int i = 0; i < n; i++) puts(values[i] ? values[i] : "NULL");
  return 0;
}

static int run(sqlite3 *db, const char *sql) {
  char *err = 0;
  int rc = sqlite3_exec(db, sql, print, 0, &err);
  if (rc != SQLITE_OK) printf("error %d: %s: %s\n", rc, sql, err);
  sqlite3_free(err);
  return rc;
}

static int load(const char *extension) {
  sqlite3 *db;
  char *err = 0;
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
  sqlite3_enable_load_extension(db, 1);
  int rc = sqlite3_load_extension(db, extension, 0, &err);
  if (rc != SQLITE_OK) fprintf(stderr, "%s\n", err);
  sqlite3_free(err);
  sqlite3_close(db);
  return rc;
}

int main(int argc, char **argv) {
  static struct through below, over;
  sqlite3 *db, *other;
  if (argc == 3) {
    over.secret = 1;
    put(&over, "secret", "unix", 0);
    if (sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE, "secret") != SQLITE_OK) return 1;
    return run(db, "SELECT count(*) FROM t; PRAGMA integrity_check") != SQLITE_OK;
  }
  if (argc != 5) return 2;
  if (strcmp(argv[2], "through") == 0) put(&below, "through", "unix", 1);
  else sqlite3_vfs_register(sqlite3_vfs_find(argv[2]), 1);
  if (load(argv[1])) return 1;
  const char *vfs = "walferry";
  int again = strcmp(argv[3], "again") == 0;
  over.secret = strcmp(argv[3], "secret") == 0;
  over.names = strcmp(argv[3], "names") == 0;
  if (over.secret || over.names || again || strcmp(argv[3], "over") == 0) put(&over, vfs = "over", "walferry", again);
  int shutdown = strcmp(argv[3], "shutdown") == 0;
  if (shutdown && sqlite3_shutdown() != SQLITE_OK) return 1;
  if ((again || shutdown) && load(argv[1])) return 1;
  if (again || shutdown) vfs = 0; /* the default */
  calls = 0;
  if (sqlite3_open_v2(argv[4], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs) != SQLITE_OK) {
    fprintf(stderr, "open: %s\n", sqlite3_errmsg(db));
    return 1;
  }
  sqlite3_busy_timeout(db, 5000);
  if (over.secret && run(db, "PRAGMA page_size=1024; PRAGMA user_version=1; PRAGMA journal_mode=WAL")) return 1;
  if (run(db, "CREATE TABLE IF NOT EXISTS t(v)")) return 1;
  for (int i = 0; i < 50; i++) {
    if (run(db, "INSERT INTO t VALUES(randomblob(2000))")) return 1;
  }
  if (run(db, "SELECT count(*) FROM t; PRAGMA journal_mode")) return 1;
  run(db, "PRAGMA walferry_sync");
  if (sqlite3_open_v2(argv[4], &other, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, vfs) != SQLITE_OK) return 1;
  sqlite3_busy_timeout(other, 5000);
  if (run(other, "INSERT INTO t VALUES('other')")) return 1;
  if (run(db, "UPDATE t SET v = 7 WHERE rowid = 3; SELECT count(*) FROM t")) return 1;
  run(db, "PRAGMA walferry_status");
  sqlite3_close(other);
  sqlite3_close(db);
  fprintf(stderr, "calls %d\n", calls);
  return 0;
}
