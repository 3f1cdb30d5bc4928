/*
** walferry-replica: the VFS that reads a replica where it lies. What it does is in Go
** (internal/replica), and psanford/sqlite3vfs brings SQLite's calls there. This is
** the door before it, which that package leaves open:
**
**   - Go starts with the first open, and is never called in the child of a fork.
**   - A file that could not be opened has no methods; the package leaves some.
**   - Temporary files, and the clock and such, are the platform's own.
**   - There are no journals here, so the question for one is answered at once.
**   - Where SQLite takes no lock, the transaction is as long as the connection.
**   - A PRAGMA that fails says why, and who waits for the network can be interrupted.
*/
#include "wf.h"
#include <stdlib.h>
#include <string.h>

enum { HEADER_AT = 24, HEADER_SIZE = 16 }; /* pager.c, dbFileVers */

struct replica {
  sqlite3_file base;
  sqlite3_file *go; /* the package's file */
  uint64_t handle;  /* Go's name for the connection */
  sqlite3 **db;     /* whose it is; NULL while it is being opened */
  int shared;       /* another connection has come to it, which opened something else */
  uint32_t state;   /* which state the open transaction reads, as Go counts them */
  uint32_t known;   /* the one that header is of; 0: none */
  unsigned char header[HEADER_SIZE]; /* the bytes by which SQLite sees that a file has changed */
};

#define REPLICA(p) ((struct replica *)(p))
#define GO(p) (REPLICA(p)->go)

/* What the thread is doing, for what Go asks meanwhile. */
static __thread struct call {
  sqlite3 *db;         /* the connection that waits; NULL: not known */
  sqlite3_stmt *alone; /* see wf_replica_interrupted */
  int asked;
  uint64_t opened; /* the handle of the file that is being opened */
  uint32_t state;  /* what the transaction that begins will read */
} now;

static sqlite3_vfs *package; /* its VFS, which SQLite does not list */

/* enter begins what may wait, and leave ends it. */
static struct call enter(sqlite3 *db) {
  struct call before = now;
  now.db = db;
  now.alone = 0;
  now.asked = 0;
  return before;
}

static void leave(struct call before) {
  if (now.alone) sqlite3_finalize(now.alone);
  now.db = before.db;
  now.alone = before.alone;
  now.asked = before.asked;
}

static struct call enter_file(sqlite3_file *p) { return enter(REPLICA(p)->db ? *REPLICA(p)->db : 0); }

/* ---- for Go ------------------------------------------------------------ */

void wf_replica_opened(uint64_t handle) { now.opened = handle; }
void wf_replica_began(uint32_t state) { now.state = state; }

#ifndef SQLITE3VFS_LOADABLE_EXT
/* Not in SQLite before 3.41. */
extern int sqlite3_is_interrupted(sqlite3 *) __attribute__((weak));
#endif

static int any_runs(sqlite3 *db) {
  sqlite3_stmt *s = 0;
  while ((s = sqlite3_next_stmt(db, s)) != 0) {
    if (sqlite3_stmt_busy(s)) return 1;
  }
  return 0;
}

/* Whether what this thread does is to end. SQLite before 3.41 does not tell; but its parser
** looks, whatever it is given, and forgets it where no statement runs. None does while
** one is being prepared, as the first one that reads the schema, so one of ours does. */
int wf_replica_interrupted(void) {
  sqlite3_stmt *nothing = 0;
  if (!now.db) return 0;
#ifdef SQLITE3VFS_LOADABLE_EXT
  if (sqlite3_libversion_number() >= 3041000) return sqlite3_is_interrupted(now.db);
#else
  if (sqlite3_is_interrupted) return sqlite3_is_interrupted(now.db);
#endif
  if (!now.asked && !any_runs(now.db) && sqlite3_prepare_v2(now.db, "SELECT 1", -1, &now.alone, 0) == SQLITE_OK) {
    (void)sqlite3_step(now.alone);
  }
  now.asked = 1;
  int rc = sqlite3_prepare_v2(now.db, " ", 1, &nothing, 0);
  sqlite3_finalize(nothing);
  return rc == SQLITE_INTERRUPT;
}

/* ---- file methods ------------------------------------------------------ */

static int r_close(sqlite3_file *p) {
  int rc = SQLITE_OK;
  if (!atomic_load(&wf.forked)) rc = GO(p)->pMethods->xClose(GO(p));
  sqlite3_free(GO(p));
  return rc;
}

static int r_read(sqlite3_file *p, void *b, int n, sqlite3_int64 off) {
  struct replica *r = REPLICA(p);
  if (atomic_load(&wf.forked) || r->shared) return SQLITE_IOERR_READ;
  if (off == HEADER_AT && n == HEADER_SIZE && r->known && r->known == r->state) {
    memcpy(b, r->header, HEADER_SIZE); /* every transaction begins with this */
    return SQLITE_OK;
  }
  struct call before = enter_file(p);
  int rc = GO(p)->pMethods->xRead(GO(p), b, n, off);
  leave(before);
  if (rc == SQLITE_OK && off == 0 && n >= HEADER_AT + HEADER_SIZE && r->state) {
    memcpy(r->header, (char *)b + HEADER_AT, HEADER_SIZE);
    r->known = r->state;
  }
  return rc;
}

static int r_write(sqlite3_file *p, const void *b, int n, sqlite3_int64 off) {
  (void)p, (void)b, (void)n, (void)off;
  return SQLITE_READONLY;
}

static int r_truncate(sqlite3_file *p, sqlite3_int64 size) {
  (void)p, (void)size;
  return SQLITE_READONLY;
}

static int r_sync(sqlite3_file *p, int flags) {
  (void)p, (void)flags;
  return SQLITE_OK;
}

static int r_file_size(sqlite3_file *p, sqlite3_int64 *size) {
  if (atomic_load(&wf.forked)) return SQLITE_IOERR_FSTAT;
  return GO(p)->pMethods->xFileSize(GO(p), size);
}

/* A lock begins a read transaction, and looks for the newest state. */
static int r_lock(sqlite3_file *p, int level) {
  if (atomic_load(&wf.forked) || REPLICA(p)->shared) return SQLITE_IOERR_LOCK;
  if (level > SQLITE_LOCK_SHARED) return SQLITE_READONLY;
  struct call before = enter_file(p);
  int rc = GO(p)->pMethods->xLock(GO(p), level);
  leave(before);
  REPLICA(p)->state = rc == SQLITE_OK ? now.state : 0;
  return rc;
}

static int r_unlock(sqlite3_file *p, int level) {
  if (atomic_load(&wf.forked)) return SQLITE_OK;
  if (level == SQLITE_LOCK_NONE) REPLICA(p)->state = 0;
  return GO(p)->pMethods->xUnlock(GO(p), level);
}

static int r_check_reserved(sqlite3_file *p, int *out) {
  (void)p;
  *out = 0;
  return SQLITE_OK;
}

static int pragma(struct replica *r, char **arg) {
  char *said = 0;
  if (sqlite3_strnicmp(arg[1], "walferry_", 9) != 0) return SQLITE_NOTFOUND;
  if (atomic_load(&wf.forked)) {
    arg[0] = sqlite3_mprintf("walferry: a forked child cannot use what its parent has opened: open the replica in the child");
    return SQLITE_ERROR;
  }
  struct call before = enter_file(&r->base);
  int rc = wf.hooks.replica_pragma(r->handle, arg[1], arg[2], &said);
  leave(before);
  arg[0] = rc == SQLITE_OK || !said ? said : sqlite3_mprintf("%s: %z", arg[1], said);
  return rc;
}

#define NO_SHARED_CACHE "cache=shared would mix what is opened under one name: leave it out"

/* SQLite tells each connection's place once. With a cache that is shared a second one comes, whose
** parameters nobody has looked at: SQLite goes by the name alone. */
static void belongs_to(struct replica *r, sqlite3 **db) {
  if (r->db && !r->shared) {
    r->shared = 1;
    wf_log(WF_LOG_ERROR, "nothing is read from this replica any more: " NO_SHARED_CACHE);
  }
  r->db = db;
}

static int r_control(sqlite3_file *p, int op, void *arg) {
  switch (op) {
    case SQLITE_FCNTL_PRAGMA: return pragma(REPLICA(p), arg);
    case SQLITE_FCNTL_PDB: belongs_to(REPLICA(p), arg); return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME: *(char **)arg = sqlite3_mprintf(WF_REPLICA_NAME); return SQLITE_OK;
    case WF_FCNTL_REPLICA: *(uint64_t *)arg = REPLICA(p)->handle; return SQLITE_OK;
  }
  return SQLITE_NOTFOUND;
}

static int r_sector_size(sqlite3_file *p) {
  (void)p;
  return 4096;
}

static int r_characteristics(sqlite3_file *p) {
  (void)p;
  return 0;
}

/* Version 1: no shared memory, and no pointers into pages. */
static const sqlite3_io_methods methods = {
    1, r_close, r_read, r_write, r_truncate, r_sync, r_file_size, r_lock, r_unlock,
    r_check_reserved, r_control, r_sector_size, r_characteristics, 0, 0, 0, 0, 0, 0,
};

/* ---- open -------------------------------------------------------------- */

static int refuse(const char *path, const char *why) {
  wf_log(WF_LOG_ERROR, "cannot open replica %s: %s", path ? path : "", why);
  return SQLITE_CANTOPEN;
}

static int start_package(const char *path) {
  static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
  char *err = 0;
  int rc = wf_go(&err);
  if (rc == SQLITE_OK) {
    pthread_mutex_lock(&mu);
    if (!package && (rc = wf.hooks.replica_start(&err)) == SQLITE_OK) {
      sqlite3_vfs *found = sqlite3_vfs_find(WF_REPLICA_NAME "-go");
      if (found) sqlite3_vfs_unregister(found);
      else rc = SQLITE_ERROR;
      package = found;
    }
    pthread_mutex_unlock(&mu);
  }
  if (rc != SQLITE_OK) (void)refuse(path, err ? err : "it could not be started");
  sqlite3_free(err);
  return rc;
}

/* With these parameters SQLite takes no locks, and does not look whether what it keeps is
** right still: all is one transaction. */
static int is_frozen(const char *path) {
  return sqlite3_uri_boolean(path, "immutable", 0) || sqlite3_uri_boolean(path, "nolock", 0);
}

static int r_open(sqlite3_vfs *v, const char *path, sqlite3_file *p, int flags, int *out) {
  struct replica *r = REPLICA(p);
  int ignored = 0;
  (void)v;
  if (!(flags & SQLITE_OPEN_MAIN_DB)) {
    if (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL)) return SQLITE_CANTOPEN;
    /* SQLite would name it after what is no file here, and others could not find it after a crash. */
    if (flags & SQLITE_OPEN_SUPER_JOURNAL) {
      wf_log(WF_LOG_ERROR, "cannot make %s: a transaction that writes to two databases needs one of them as main: attach the replica to that", path);
      return SQLITE_CANTOPEN;
    }
    return wf.root->xOpen(wf.root, path, p, flags, out);
  }
  memset(r, 0, sizeof *r);
  if (atomic_load(&wf.forked)) {
    return refuse(path, "this is the child of a process in which walferry was already in use: open it there only after the fork");
  }
  const char *cache = sqlite3_uri_parameter(path, "cache"); /* the flag is kept from a VFS */
  if (cache && !strcmp(cache, "shared")) return refuse(path, NO_SHARED_CACHE);
  int rc = start_package(path);
  if (rc != SQLITE_OK) return rc;
  r->go = sqlite3_malloc(package->szOsFile);
  if (!r->go) return SQLITE_NOMEM;
  memset(r->go, 0, (size_t)package->szOsFile);
  struct call before = enter(0);
  rc = package->xOpen(package, path, r->go, flags, &ignored);
  leave(before);
  if (rc != SQLITE_OK) {
    sqlite3_free(r->go);
    return rc;
  }
  r->handle = now.opened;
  if (is_frozen(path) && (rc = r_lock(p, SQLITE_LOCK_SHARED)) != SQLITE_OK) {
    (void)r_close(p);
    return rc;
  }
  r->base.pMethods = &methods;
  if (out) *out = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
  return SQLITE_OK;
}

/* ---- VFS methods ------------------------------------------------------- */

#define ROOT(v) (((void)(v)), wf.root)

static int r_delete(sqlite3_vfs *v, const char *name, int sync) {
  (void)v, (void)name, (void)sync;
  return SQLITE_OK;
}
static int r_access(sqlite3_vfs *v, const char *name, int flags, int *out) {
  (void)v, (void)name, (void)flags;
  *out = 0;
  return SQLITE_OK;
}
static int r_full_pathname(sqlite3_vfs *v, const char *name, int n, char *out) {
  (void)v;
  if (strlen(name) >= (size_t)n) return SQLITE_CANTOPEN;
  memcpy(out, name, strlen(name) + 1);
  return SQLITE_OK;
}
static void *r_dl_open(sqlite3_vfs *v, const char *name) { return ROOT(v)->xDlOpen(wf.root, name); }
static void r_dl_error(sqlite3_vfs *v, int n, char *out) { ROOT(v)->xDlError(wf.root, n, out); }
static void (*r_dl_sym(sqlite3_vfs *v, void *lib, const char *name))(void) { return ROOT(v)->xDlSym(wf.root, lib, name); }
static void r_dl_close(sqlite3_vfs *v, void *lib) { ROOT(v)->xDlClose(wf.root, lib); }
static int r_randomness(sqlite3_vfs *v, int n, char *out) { return ROOT(v)->xRandomness(wf.root, n, out); }
static int r_sleep(sqlite3_vfs *v, int us) { return ROOT(v)->xSleep(wf.root, us); }
static int r_current_time(sqlite3_vfs *v, double *out) { return ROOT(v)->xCurrentTime(wf.root, out); }
static int r_last_error(sqlite3_vfs *v, int n, char *out) {
  return ROOT(v)->xGetLastError ? wf.root->xGetLastError(wf.root, n, out) : 0;
}
static int r_current_time64(sqlite3_vfs *v, sqlite3_int64 *out) { return ROOT(v)->xCurrentTimeInt64(wf.root, out); }

static sqlite3_vfs replica_vfs = {
    .zName = WF_REPLICA_NAME,
    .xOpen = r_open,
    .xDelete = r_delete,
    .xAccess = r_access,
    .xFullPathname = r_full_pathname,
    .xDlOpen = r_dl_open,
    .xDlError = r_dl_error,
    .xDlSym = r_dl_sym,
    .xDlClose = r_dl_close,
    .xRandomness = r_randomness,
    .xSleep = r_sleep,
    .xCurrentTime = r_current_time,
    .xGetLastError = r_last_error,
    .xCurrentTimeInt64 = r_current_time64,
};

/* Registers the VFS, whose root is the other one's. */
int wf_replica_register(void) {
  int size = (int)sizeof(struct replica);
  replica_vfs.iVersion = wf.root->iVersion > 2 ? 2 : wf.root->iVersion;
  replica_vfs.szOsFile = size > wf.root->szOsFile ? size : wf.root->szOsFile;
  replica_vfs.mxPathname = wf.root->mxPathname;
  return sqlite3_vfs_register(&replica_vfs, 0);
}

/* ---- for SQL functions ------------------------------------------------- */

/* The handle of a schema's replica, 0 if it is none. */
static uint64_t handle_of(sqlite3 *db, const char *schema) {
  uint64_t handle = 0;
  if (sqlite3_file_control(db, schema, WF_FCNTL_REPLICA, &handle) != SQLITE_OK) return 0;
  return handle;
}

int wf_is_replica(sqlite3 *db, const char *schema) { return handle_of(db, schema) != 0; }

static int in_child(char **err) {
  if (!atomic_load(&wf.forked)) return 0;
  *err = sqlite3_mprintf("a forked child cannot use what its parent has opened: open the replica in the child");
  return 1;
}

/* Waits until the replica has the commits of a token: 1 yes, 0 not in time, -1 with
** a text, -2 interrupted. */
int wf_replica_wait(sqlite3 *db, const char *schema, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err) {
  if (in_child(err)) return -1;
  struct call before = enter(db);
  int rc = wf.hooks.replica_wait(handle_of(db, schema), epoch, window, timeout_ms, err);
  leave(before);
  return rc;
}

/* The TXID of the state that is read; NULL with a text on an error. */
char *wf_replica_txid(sqlite3 *db, const char *schema, char **err) {
  char *said = 0;
  if (in_child(err)) return 0;
  if (wf.hooks.replica_pragma(handle_of(db, schema), "walferry_txid", 0, &said) == SQLITE_OK) return said;
  *err = said;
  return 0;
}
