/*
** walferry's VFS: a shim over the platform's.
**
** It hides nothing. Every method goes to the VFS below; the version of the
** io_methods is the one that the file below has, so a host sees the abilities
** of its platform, shared memory and memory mapping included. Only the database
** and its WAL get a struct of ours in front; journals and temporary files are
** opened by the VFS below straight into SQLite's own buffer.
**
** What the shim watches, and for what:
**
**   xShmLock(WRITE) got, released    wf_catch_up: commits become dirty bits (mark.c)
**   xLock(EXCLUSIVE) asked           the last close: Go reads the last batch first
**   xLock(EXCLUSIVE) got             wf_catch_up, for a last close or a mode switch
**   xShmUnmap(delete) at a last close  the stamp that spares a scan at the next open
**   xWrite outside a checkpoint      what changed is not known: all pages
**   EXCLUSIVE, read marks are BUSY   our own reader is asked to give way (reader.c)
**   any other lock is BUSY           if a connection of ours is open, tried again
**   xShmLock(READ0) of a checkpoint  refused if the WAL was restarted under it (lock.c)
**   xShmLock(read mark) of ours      the snapshot that was pinned (reader.c)
**
** Nothing on the commit path calls Go, allocates, or waits for anything of
** ours. What the shim cannot do it leaves undone: no call fails that would not
** have failed without it, save locking_mode=EXCLUSIVE, which is refused (sql.c).
*/
#include "wf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- open files -------------------------------------------------------- */

static void enlist(struct wf_file *f) {
  pthread_mutex_lock(&wf.mu);
  f->next = wf.files;
  wf.files = f;
  pthread_mutex_unlock(&wf.mu);
}

static void strike(struct wf_file *f) {
  pthread_mutex_lock(&wf.mu);
  for (struct wf_file **p = &wf.files; *p; p = &(*p)->next) {
    if (*p != f) continue;
    *p = f->next;
    break;
  }
  pthread_mutex_unlock(&wf.mu);
}

/* The database of a WAL, NULL if it is not known. SQLite opens the WAL by the very
** pointer that sqlite3_filename_wal gives. Another VFS above us may open it by a name
** of its own, for which sqlite3_database_file_object would read foreign memory. */
static struct wf_file *database_of(const char *wal_path) {
  pthread_mutex_lock(&wf.mu);
  struct wf_file *f = wf.files;
  while (f && f->wal_path != wal_path) f = f->next;
  pthread_mutex_unlock(&wf.mu);
  return f;
}

/* ---- file methods ------------------------------------------------------ */

static int wf_close(sqlite3_file *p) {
  struct wf_file *f = FILE_OF(p);
  if (f->main && f->main->wal == f) f->main->wal = 0;
  if (f->wal) f->wal->main = 0;
  if (f->wal_path) strike(f);
  if (f->blind) wf_mark_all(f);
  int rc = CALL(p)->xClose(REAL(p));
  if (f->db && !f->reader) {
    pthread_mutex_lock(&wf.mu);
    if (f->db->files > 0) f->db->files--;
    if (f->db->files == 0) atomic_store(&f->db->explicit_mode, 0);
    pthread_mutex_unlock(&wf.mu);
  }
  if (f->handle && !atomic_load(&wf.forked)) wf.hooks.close(f->handle);
  wf_db_put(f->db); /* after the last batch, whose reader looks at it */
  sqlite3_free(f->why);
  return rc;
}

/* A database whose pages are encrypted above us has no header that SQLite could read
** without the key. A reader of ours needs none of it: it pins a state of the WAL, and
** reads pages as they are. So what it is shown of page 1 while it pins is a
** header that says nothing but the page size. */
static void dress(struct wf_file *main, unsigned char *page, int n) {
  static const unsigned char rest[] = {2, 2, 0, 64, 32, 32};
  uint32_t hdr[HDR_WORDS], size;
  if (n < 100 || !main->index || memcmp(page, "SQLite format 3", 16) == 0) return;
  if (!wf_header(main->index, hdr) || !(size = wf_page_size(hdr))) return;
  memset(page, 0, 100);
  memcpy(page, "SQLite format 3", 16);
  page[16] = size >> 8 & 0xff;
  page[17] = size >> 16 & 0xff;
  memcpy(page + 18, rest, sizeof rest);
}

static int wf_read(sqlite3_file *p, void *buf, int n, sqlite3_int64 off) {
  int rc = CALL(p)->xRead(REAL(p), buf, n, off);
  if (FILE_OF(p)->pinning && off == 0 && rc == SQLITE_OK) dress(FILE_OF(p), buf, n);
  return rc;
}

static int wf_read_wal(sqlite3_file *p, void *buf, int n, sqlite3_int64 off) {
  struct wf_file *main = FILE_OF(p)->main;
  uint32_t hdr[HDR_WORDS];
  int rc = CALL(p)->xRead(REAL(p), buf, n, off);
  /* A page, and not a frame with its header, as recovery reads it. */
  if (main && main->pinning && rc == SQLITE_OK && main->index && wf_header(main->index, hdr) && off >= 56 &&
      (off - 56) % (wf_page_size(hdr) + 24) == 0) {
    dress(main, buf, n);
  }
  return rc;
}

/* Whatever writes to the database file but a checkpoint changes pages that no
** frame tells of. */
static void note_direct_write(struct wf_file *f) {
  if (f->db && !f->checkpointing && !f->direct) {
    f->direct = f->wrote = 1;
    wf_mark_all(f);
  }
}

static int wf_write_main(sqlite3_file *p, const void *buf, int n, sqlite3_int64 off) {
  note_direct_write(FILE_OF(p));
  FILE_OF(p)->synced = 0;
  return CALL(p)->xWrite(REAL(p), buf, n, off);
}

/* A frame. With locking_mode=EXCLUSIVE, which the host can have compiled in,
** WAL_WRITE_LOCK is not taken and nothing would be marked. */
static int wf_write_wal(sqlite3_file *p, const void *buf, int n, sqlite3_int64 off) {
  struct wf_file *f = FILE_OF(p)->main;
  if (f && !f->writing && !f->blind && f->lock >= SQLITE_LOCK_EXCLUSIVE && !f->reader) {
    f->blind = 1;
    wf_mark_all(f);
  }
  return CALL(p)->xWrite(REAL(p), buf, n, off);
}

/* Not noted as a write: a checkpoint ends with it, after CKPT_DONE, and whoever
** else shortens the file also writes page 1. */
static int wf_truncate(sqlite3_file *p, sqlite3_int64 size) {
  FILE_OF(p)->synced = 0;
  return CALL(p)->xTruncate(REAL(p), size);
}

static int wf_sync(sqlite3_file *p, int flags) {
  int rc = CALL(p)->xSync(REAL(p), flags);
  if (rc == SQLITE_OK) FILE_OF(p)->synced = 1;
  return rc;
}

static int wf_file_size(sqlite3_file *p, sqlite3_int64 *size) { return CALL(p)->xFileSize(REAL(p), size); }

/* Whether the file holds a database that is not in WAL mode. */
int wf_is_rollback(struct wf_file *f) {
  unsigned char head[100];
  return CALL(f)->xRead(REAL(f), head, sizeof head, 0) == SQLITE_OK &&
         memcmp(head, "SQLite format 3", 16) == 0 && head[18] == 1 && head[19] == 1;
}

static int wf_check_reserved(sqlite3_file *p, int *out) { return CALL(p)->xCheckReservedLock(REAL(p), out); }

static int wf_control_main(sqlite3_file *p, int op, void *arg) {
  struct wf_file *f = FILE_OF(p);
  switch (op) {
    case WF_FCNTL_FILE:
      *(struct wf_file **)arg = f;
      return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA: {
      int rc = wf_pragma(f, (char **)arg);
      if (rc != SQLITE_NOTFOUND) return rc;
      break;
    }
    case SQLITE_FCNTL_CKPT_START: f->checkpointing = 1; break;
    case SQLITE_FCNTL_CKPT_DONE: f->checkpointing = 0; break;
    case SQLITE_FCNTL_VFSNAME: {
      int rc = CALL(p)->xFileControl(REAL(p), op, arg);
      if (rc == SQLITE_OK) *(char **)arg = sqlite3_mprintf(WF_VFS_NAME "/%z", *(char **)arg);
      return rc;
    }
  }
  return CALL(p)->xFileControl(REAL(p), op, arg);
}

static int wf_control_wal(sqlite3_file *p, int op, void *arg) {
  return CALL(p)->xFileControl(REAL(p), op, arg);
}
static int wf_sector_size(sqlite3_file *p) { return CALL(p)->xSectorSize(REAL(p)); }
static int wf_characteristics(sqlite3_file *p) { return CALL(p)->xDeviceCharacteristics(REAL(p)); }

static void wf_shm_barrier(sqlite3_file *p) { CALL(p)->xShmBarrier(REAL(p)); }

static int wf_fetch(sqlite3_file *p, sqlite3_int64 off, int n, void **out) {
  return CALL(p)->xFetch(REAL(p), off, n, out);
}
static int wf_unfetch(sqlite3_file *p, sqlite3_int64 off, void *page) {
  return CALL(p)->xUnfetch(REAL(p), off, page);
}

#define METHODS(version, read, write, control)                                          \
  {version, wf_close, read, write, wf_truncate, wf_sync, wf_file_size, wf_lock,      \
   wf_unlock, wf_check_reserved, control, wf_sector_size, wf_characteristics,           \
   wf_shm_map, wf_shm_lock, wf_shm_barrier, wf_shm_unmap, wf_fetch, wf_unfetch}

/* By the version of the file below; SQLite looks at no member beyond it. */
static const sqlite3_io_methods main_methods[] = {METHODS(1, wf_read, wf_write_main, wf_control_main),
                                                  METHODS(2, wf_read, wf_write_main, wf_control_main),
                                                  METHODS(3, wf_read, wf_write_main, wf_control_main)};
static const sqlite3_io_methods wal_methods[] = {METHODS(1, wf_read_wal, wf_write_wal, wf_control_wal),
                                                 METHODS(2, wf_read_wal, wf_write_wal, wf_control_wal),
                                                 METHODS(3, wf_read_wal, wf_write_wal, wf_control_wal)};

/* ---- open -------------------------------------------------------------- */

/* The URI's parameters as key, value, key, value ... with a NUL behind each and
** one more at the end; from sqlite3_malloc. */
static char *uri_parameters(const char *path) {
  char *all = 0, *at;
  size_t n = 1;
  const char *key;
  for (int i = 0; (key = sqlite3_uri_key(path, i)) != 0; i++) {
    n += strlen(key) + 1 + strlen(sqlite3_uri_parameter(path, key)) + 1;
  }
  at = all = sqlite3_malloc64(n);
  if (!all) return 0;
  for (int i = 0; (key = sqlite3_uri_key(path, i)) != 0; i++) {
    const char *value = sqlite3_uri_parameter(path, key);
    memcpy(at, key, strlen(key) + 1);
    at += strlen(key) + 1;
    memcpy(at, value, strlen(value) + 1);
    at += strlen(value) + 1;
  }
  *at = 0;
  return all;
}

/* Why a database is not replicated whatever the options say, or NULL. */
static const char *exempt(const char *path, int flags, int out_flags) {
  if (sqlite3_uri_boolean(path, "immutable", 0)) return "opened with immutable=1";
  if (sqlite3_uri_boolean(path, "nolock", 0)) return "opened with nolock=1";
  if ((flags | out_flags) & SQLITE_OPEN_READONLY) return "opened read-only";
  return 0;
}

/* The version of io_methods that a file below lives up to: some say 3 and have no
** shared memory. */
static int version_of(const sqlite3_io_methods *m) {
  if (m->iVersion < 2 || !m->xShmMap) return 1;
  return m->iVersion < 3 || !m->xFetch ? 2 : 3;
}

/* Whether restore=auto is asked for a file that is empty. */
static int wants_restore(struct wf_file *f) {
  sqlite3_int64 size = 0;
  const char *value = sqlite3_uri_parameter(f->path, "restore");
  if (!value) value = getenv("WALFERRY_RESTORE");
  return value && strcmp(value, "auto") == 0 && f->real->pMethods->xFileSize(f->real, &size) == SQLITE_OK && size == 0;
}

/* In a forked child there is no Go: mark in the ledger that the parent ships. Nor can
** it restore: an empty file is only a new database if somebody ships it. */
static int open_in_child(struct wf_file *f) {
  f->db = wf_db_get(f->path);
  if (!f->db) return SQLITE_OK;
  int shared = wf_ledger_of(f->db) != 0;
  if (!(shared && wf_shipper_lives(f->db)) && wants_restore(f)) {
    wf_db_put(f->db);
    f->db = 0;
    wf_log(WF_LOG_ERROR, "cannot open %s: restore=auto: the database is gone, and a forked child cannot restore it; "
                         "open it once in the parent, or open what walferry ships only after the fork", f->path);
    return SQLITE_CANTOPEN;
  }
  if (!shared) {
    wf_db_put(f->db);
    f->db = 0;
    f->why = sqlite3_mprintf("opened in a forked child, and no process has opened it before the fork: nothing ships; "
                             "open it once in the parent, or open what walferry ships only after the fork");
    wf_log(WF_LOG_ERROR, "%s: %s", f->path, f->why);
  }
  return SQLITE_OK;
}

/* Asks Go about an open: with out to take part in it, without only whether the
** options are right. An error is told here, since SQLite will only say that it
** cannot open the file. */
static int ask_go(const char *path, struct wf_opened *out) {
  char *err = 0, *params = uri_parameters(path);
  if (!params) return SQLITE_NOMEM;
  int rc = wf_go(&err);
  if (rc == SQLITE_OK) {
    rc = out ? wf.hooks.open((char *)path, params, out, &err) : wf.hooks.check((char *)path, params, &err);
  }
  sqlite3_free(params);
  if (rc != SQLITE_OK) wf_log(WF_LOG_ERROR, "cannot open %s: %s", path, err ? err : "no reason was given");
  sqlite3_free(err);
  return rc;
}

static int open_main(struct wf_file *f, int flags, int out_flags) {
  const char *why = exempt(f->path, flags, out_flags);
  struct wf_opened opened = {0, 0, 0};
  if (why || version_of(f->real->pMethods) < 2) {
    f->why = why ? sqlite3_mprintf("%s", why)
                 : sqlite3_mprintf("the VFS below walferry, %s, has no shared memory, which WAL mode needs", wf.root->zName);
    return SQLITE_OK;
  }
  if (atomic_load(&wf.forked)) {
    int rc = open_in_child(f);
    if (rc != SQLITE_OK) return rc;
  } else {
    int rc = ask_go(f->path, &opened);
    if (rc != SQLITE_OK) return rc;
    f->why = opened.why;
    f->handle = opened.handle;
    if (!f->why) f->db = wf_db_get(f->path);
  }
  if (f->db) {
    pthread_mutex_lock(&wf.mu);
    f->db->files++;
    pthread_mutex_unlock(&wf.mu);
    atomic_store(&f->db->auto_wal, opened.auto_wal);
    wf_try_wal(f);
  }
  return SQLITE_OK;
}

static int wf_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *p, int flags, int *out) {
  struct wf_file *f = FILE_OF(p);
  int is_wal = (flags & SQLITE_OPEN_WAL) != 0, out_flags = 0;
  if (!path || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) || (flags & SQLITE_OPEN_MEMORY)) {
    return wf.root->xOpen(wf.root, path, p, flags, out);
  }
  struct wf_file *database = is_wal ? database_of(path) : 0;
  if (is_wal && (!database || !database->db)) return wf.root->xOpen(wf.root, path, p, flags, out);

  memset(f, 0, sizeof *f);
  f->real = (sqlite3_file *)((char *)f + ((sizeof *f + 7) & ~(size_t)7));
  f->path = path;
  f->snap_mark = -1;
  f->reader = !is_wal && wf_opening_reader();
  if (!is_wal && !f->reader && !atomic_load(&wf.forked) && !exempt(path, flags, 0)) {
    /* Before the file is made: an option that is wrong leaves nothing behind. */
    int rc = ask_go(path, 0);
    if (rc != SQLITE_OK) return rc;
  }
  int rc = wf.root->xOpen(wf.root, path, f->real, flags, &out_flags);
  if (out) *out = out_flags;
  if (rc == SQLITE_OK) {
    if (is_wal) {
      f->main = database;
      database->wal = f;
    } else if (f->reader) {
      f->db = wf_db_get(path);
    } else {
      rc = open_main(f, flags, out_flags);
    }
  }
  if (rc != SQLITE_OK) {
    if (f->real->pMethods) f->real->pMethods->xClose(f->real);
    sqlite3_free(f->why);
    f->base.pMethods = 0;
    return rc;
  }
  int version = version_of(f->real->pMethods);
  f->base.pMethods = is_wal ? &wal_methods[version - 1] : &main_methods[version - 1];
  if (!is_wal && (f->wal_path = sqlite3_filename_wal(path)) != 0) enlist(f);
  (void)vfs;
  return SQLITE_OK;
}

/* ---- VFS methods ------------------------------------------------------- */

#define ROOT(v) (((void)(v)), wf.root)

static int wf_delete(sqlite3_vfs *v, const char *name, int sync) { return ROOT(v)->xDelete(wf.root, name, sync); }
static int wf_access(sqlite3_vfs *v, const char *name, int flags, int *out) {
  return ROOT(v)->xAccess(wf.root, name, flags, out);
}
static _Thread_local int reached; /* a call from a VFS above */
static int wf_full_pathname(sqlite3_vfs *v, const char *name, int n, char *out) {
  reached = 1;
  return ROOT(v)->xFullPathname(wf.root, name, n, out);
}
static void *wf_dl_open(sqlite3_vfs *v, const char *name) { return ROOT(v)->xDlOpen(wf.root, name); }
static void wf_dl_error(sqlite3_vfs *v, int n, char *out) { ROOT(v)->xDlError(wf.root, n, out); }
static void (*wf_dl_sym(sqlite3_vfs *v, void *lib, const char *name))(void) {
  return ROOT(v)->xDlSym(wf.root, lib, name);
}
static void wf_dl_close(sqlite3_vfs *v, void *lib) { ROOT(v)->xDlClose(wf.root, lib); }
static int wf_randomness(sqlite3_vfs *v, int n, char *out) { return ROOT(v)->xRandomness(wf.root, n, out); }
static int wf_sleep(sqlite3_vfs *v, int us) { return ROOT(v)->xSleep(wf.root, us); }
static int wf_current_time(sqlite3_vfs *v, double *out) { return ROOT(v)->xCurrentTime(wf.root, out); }
static int wf_last_error(sqlite3_vfs *v, int n, char *out) {
  return ROOT(v)->xGetLastError ? wf.root->xGetLastError(wf.root, n, out) : 0;
}
static int wf_current_time64(sqlite3_vfs *v, sqlite3_int64 *out) {
  return ROOT(v)->xCurrentTimeInt64(wf.root, out);
}
static int wf_set_system_call(sqlite3_vfs *v, const char *name, sqlite3_syscall_ptr f) {
  return ROOT(v)->xSetSystemCall(wf.root, name, f);
}
static sqlite3_syscall_ptr wf_get_system_call(sqlite3_vfs *v, const char *name) {
  return ROOT(v)->xGetSystemCall(wf.root, name);
}
static const char *wf_next_system_call(sqlite3_vfs *v, const char *name) {
  return ROOT(v)->xNextSystemCall(wf.root, name);
}

static sqlite3_vfs walferry_vfs = {
    .zName = WF_VFS_NAME,
    .xOpen = wf_open,
    .xDelete = wf_delete,
    .xAccess = wf_access,
    .xFullPathname = wf_full_pathname,
    .xDlOpen = wf_dl_open,
    .xDlError = wf_dl_error,
    .xDlSym = wf_dl_sym,
    .xDlClose = wf_dl_close,
    .xRandomness = wf_randomness,
    .xSleep = wf_sleep,
    .xCurrentTime = wf_current_time,
    .xGetLastError = wf_last_error,
    .xCurrentTimeInt64 = wf_current_time64,
    .xSetSystemCall = wf_set_system_call,
    .xGetSystemCall = wf_get_system_call,
    .xNextSystemCall = wf_next_system_call,
};

/* Whether a VFS stands over this one: then what it is asked for comes here. */
static int is_over_us(sqlite3_vfs *vfs) {
  char *out = sqlite3_malloc(vfs->mxPathname + 1);
  if (!out) return 1;
  reached = 0;
  vfs->xFullPathname(vfs, WF_VFS_NAME, vfs->mxPathname + 1, out);
  sqlite3_free(out);
  return reached;
}

/* Registers the VFS over the default one. Again does no harm: after sqlite3_shutdown
** the default is SQLite's own once more, and otherwise what was put over this one
** meanwhile, and is the default now, must not become what it calls. */
int wf_register(int make_default, char **err) {
  sqlite3_vfs *root = sqlite3_vfs_find(0);
  int registered = sqlite3_vfs_find(WF_VFS_NAME) == &walferry_vfs;
  if (root == &walferry_vfs || (registered && !make_default)) return SQLITE_OK;
  if (!root) {
    if (err) *err = sqlite3_mprintf("this SQLite has no default VFS");
    return SQLITE_ERROR;
  }
  if (registered && is_over_us(root)) return SQLITE_OK;
  wf.root = root;
  walferry_vfs.iVersion = root->iVersion > 3 ? 3 : root->iVersion;
  walferry_vfs.szOsFile = (int)((sizeof(struct wf_file) + 7) & ~(size_t)7) + root->szOsFile;
  walferry_vfs.mxPathname = root->mxPathname;
  wf_process_begins();
  int rc = wf_replica_register();
  return rc == SQLITE_OK ? sqlite3_vfs_register(&walferry_vfs, make_default) : rc;
}
