/*
** Our own connection: a reader that pins one committed state for a batch.
**
** It goes through the VFS like any other, so SQLite itself takes the locks and
** decides what the snapshot is; the shim only notes which one. SQLite reads the
** header of the wal-index, gets a shared lock on a read mark, and keeps it only
** if the header still stands. So if the mark that the shim saw granted is still
** held when the first read has returned, the header copied at that moment is
** the snapshot, exactly. The pages are then read without SQLite's pager:
**
**   mark 0       all of the WAL is in the database file: pages come from there
**                only (the WAL may restart under us)
**   marks 1..4   the newest frame up to the snapshot's last, else the file (a
**                checkpoint copies no frame beyond a mark that is held)
**
** No such connection is open outside a batch, nor while the process forks, and
** between two pages it looks whether somebody asks it to give way.
*/
#include "wf.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct wf_reader {
  sqlite3 *conn;
  struct wf_file *f;
  struct wf_db *db;
  struct wf_ledger *h;
  int scan;
  int found_wal; /* there was one before this connection */
  uint32_t page_size, pages;
  volatile uint32_t **regions; /* of the wal-index, up to the snapshot's last frame */
  unsigned char *frames;       /* room for a run of frames */
};

enum {
  FRAME_HEADER = 24,
  WAL_HEADER = 32,
  RUN = 32, /* pages that are read with one call where they lie side by side */
};

static _Thread_local int opening;

/* Whether the open under way on this thread is of a connection of ours. */
int wf_opening_reader(void) { return opening; }

static int open_connection(const char *path, sqlite3 **conn) {
  opening = 1;
  int rc = sqlite3_open_v2(path, conn, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, WF_VFS_NAME);
  opening = 0;
  return rc;
}

static void say(char **err, const char *what, sqlite3 *conn) {
  if (err) *err = sqlite3_mprintf("%s: %s", what, conn ? sqlite3_errmsg(conn) : "out of memory");
}

static uint32_t get32(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Page size and number of pages of what is pinned. The header knows neither
** while the WAL is empty after a recovery: then the file does. */
static int measure(struct wf_reader *r) {
  unsigned char head[100];
  sqlite3_file *file = r->f->real;
  sqlite3_int64 size;
  r->page_size = wf_page_size(r->f->snap);
  r->pages = r->f->snap[HDR_NPAGE];
  if (r->page_size && r->pages) return 1;
  if (file->pMethods->xFileSize(file, &size) != SQLITE_OK) return 0;
  if (size == 0) {
    r->pages = 0;
    return 1;
  }
  if (file->pMethods->xRead(file, head, sizeof head, 0) != SQLITE_OK) return 0;
  r->page_size = get32(head + 14) & 0xffff;
  if (r->page_size == 1) r->page_size = 65536;
  if (r->page_size < 512 || (r->page_size & (r->page_size - 1))) return 0;
  r->pages = (uint32_t)((size + r->page_size - 1) / r->page_size);
  return 1;
}

static int asked_to_yield(const struct wf_reader *r) {
  if (atomic_load_explicit(&wf.fork_pending, memory_order_relaxed)) return 1;
  uint32_t y = r->h ? __atomic_load_n(&r->h->yield, __ATOMIC_RELAXED) : 0;
  return y & (r->scan ? WF_YIELD_EXCLUSIVE : WF_YIELD_EXCLUSIVE | WF_YIELD_RESET);
}

/* Why a database is not in WAL mode, and what to do. */
static const char *not_wal(struct wf_db *db, const char *path) {
  if (access(path, F_OK) != 0) return "there is no database file yet";
  if (db && atomic_load(&db->explicit_mode)) {
    return "the application has chosen another with PRAGMA journal_mode, which is respected until it closes the database; "
           "PRAGMA journal_mode=WAL lets it ship";
  }
  if (db && !atomic_load(&db->auto_wal)) return "wal=keep leaves it alone; PRAGMA journal_mode=WAL lets it ship";
  return "it is switched by the first commit after which nobody else is at it";
}

/* Whether there is a file without a byte. SQLite deletes the -wal beside one, which
** the first connection of the application may be about to do. */
static int is_empty(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && st.st_size == 0;
}

/* Whether the database has a WAL. SQLite holds no lock on it. */
static int has_wal(const char *path) {
  char *wal = sqlite3_mprintf("%s-wal", path);
  int yes = wal && access(wal, F_OK) == 0;
  sqlite3_free(wal);
  return yes;
}

/* Whether there is a journal to roll back, which wal=keep leaves to the application's
** first read. SQLite holds no lock on a journal, so it may be opened here; one that
** begins with 0 is a leftover of journal_mode=PERSIST. */
static int has_journal(struct wf_db *db, const char *path) {
  char first = 0, *journal = db && !atomic_load(&db->auto_wal) ? sqlite3_mprintf("%s-journal", path) : 0;
  int fd = journal ? open(journal, O_RDONLY | O_CLOEXEC) : -1;
  int yes = fd >= 0 && read(fd, &first, 1) == 1 && first;
  if (fd >= 0) close(fd);
  sqlite3_free(journal);
  return yes;
}

static int open_reader(const char *path, int scan, struct wf_reader **out, char **err, int *rollback) {
  *out = 0;
  if (is_empty(path)) {
    if (err) *err = sqlite3_mprintf("the database is empty yet");
    return WF_NOTWAL;
  }
  if (!wf_reader_enter()) return WF_BUSY;
  struct wf_reader *r = calloc(1, sizeof *r);
  int result = WF_FAILED;
  if (!r) {
    wf_reader_leave();
    return WF_BUSY;
  }
  r->scan = scan;
  r->found_wal = has_wal(path);
  r->db = wf_db_get(path);
  if (r->db) atomic_fetch_add(&r->db->ours, 1);
  if (r->db && (r->h = wf_ledger_of(r->db)) != 0) {
    __atomic_store_n(&r->h->yield, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&r->h->reader, scan ? WF_READER_SCAN : WF_READER_BATCH, __ATOMIC_SEQ_CST);
  }
  if (has_journal(r->db, path)) {
    if (err) *err = sqlite3_mprintf("it has a rollback journal, which the next program that reads it rolls back");
    wf_reader_close(r);
    return WF_NOTWAL;
  }
  int rc = open_connection(path, &r->conn);
  if (rc == SQLITE_OK) rc = sqlite3_exec(r->conn, "BEGIN", 0, 0, 0);
  if (rc == SQLITE_OK) rc = sqlite3_file_control(r->conn, "main", WF_FCNTL_FILE, &r->f);
  /* It reads page 1 and no schema, so a schema that SQLite cannot parse is no
  ** reason not to ship. */
  if (rc == SQLITE_OK) {
    r->f->pinning = 1;
    rc = sqlite3_exec(r->conn, "PRAGMA user_version", 0, 0, 0);
    r->f->pinning = 0;
  }
  if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED || rc == SQLITE_PROTOCOL) {
    result = WF_BUSY;
  } else if (rc == SQLITE_CANTOPEN && access(path, F_OK) != 0) {
    result = WF_NOTWAL;
    if (err) *err = sqlite3_mprintf("%s", not_wal(r->db, path));
  } else if (rc == SQLITE_NOTADB && (!r->f->index || !wf_page_size(r->f->snap))) {
    result = WF_NOTWAL;
    if (err) *err = sqlite3_mprintf("it is encrypted, or none of SQLite's, and nothing is known of it before its first commit in WAL mode; "
                                    "PRAGMA journal_mode=WAL lets it ship");
  } else if (rc == SQLITE_CORRUPT && !r->f->index && wf_is_rollback(r->f)) {
    result = WF_NOTWAL;
    if (err) *err = sqlite3_mprintf("SQLite finds it malformed, and cannot switch it to WAL mode");
  } else if (rc != SQLITE_OK) {
    if (rc == SQLITE_CORRUPT) result = WF_MALFORMED;
    say(err, "cannot read the database", r->conn);
  } else if (!r->f->index) {
    result = WF_NOTWAL;
    *rollback = wf_is_rollback(r->f); /* and not an empty file, whose pages the application may still choose */
    if (err) *err = sqlite3_mprintf("%s", not_wal(r->db, path));
  } else if (r->f->snap_mark < 0) {
    result = WF_BUSY;
  } else if (!measure(r)) {
    say(err, "cannot read the database's header", r->conn);
  } else if (!wf_map_regions(r->f, r->f->snap[HDR_MXFRAME], &r->regions) ||
             !(r->frames = malloc((size_t)RUN * (r->page_size + FRAME_HEADER)))) {
    say(err, "cannot map the wal-index", 0);
  } else {
    *out = r;
    return WF_OK;
  }
  wf_reader_close(r);
  return result;
}

/* The commit after which nobody else was at the database switches it to WAL mode
** (try_wal in shim.c). If that commit met a reader of ours, it is up to us. */
static int switched(const char *path) {
  struct wf_db *db = wf_db_get(path);
  int may = db && atomic_load(&db->auto_wal) && !atomic_load(&db->explicit_mode);
  wf_db_put(db);
  return may && wf_set_journal_mode(path, "wal");
}

/* Pins the newest committed state. A scan may be long and gives way only to
** who wants the database for himself. Returns WF_BUSY where it is to be tried
** again, WF_NOTWAL where there is no WAL to read, WF_MALFORMED where SQLite finds the
** database so, WF_FAILED with a text. */
int wf_reader_open(const char *path, int scan, struct wf_reader **out, char **err) {
  char *why = 0;
  int rollback = 0;
  int rc = open_reader(path, scan, out, &why, &rollback);
  if (rollback && switched(path)) {
    sqlite3_free(why);
    why = 0;
    rc = open_reader(path, scan, out, &why, &rollback);
  }
  if (err) *err = why;
  else sqlite3_free(why);
  return rc;
}

/* Bytes of a page; 0 for an empty database. */
uint32_t wf_reader_page_size(struct wf_reader *r) { return r->page_size; }

/* Pages of the database. */
uint32_t wf_reader_pages(struct wf_reader *r) { return r->pages; }

/* The header of the wal-index whose state is pinned. */
void wf_reader_header(struct wf_reader *r, uint32_t out[HDR_WORDS]) { memcpy(out, r->f->snap, sizeof r->f->snap); }

struct list {
  uint32_t *pgno;
  int n, cap;
};

static int add(void *arg, uint32_t pgno) {
  struct list *l = arg;
  if (l->n == l->cap) {
    int cap = l->cap ? 2 * l->cap : 256;
    uint32_t *grown = realloc(l->pgno, (size_t)cap * sizeof *grown);
    if (!grown) return 0;
    l->pgno = grown;
    l->cap = cap;
  }
  l->pgno[l->n++] = pgno;
  return 1;
}

static int same_salt(const uint32_t a[HDR_WORDS], const uint32_t b[HDR_WORDS]) {
  return memcmp(&a[HDR_SALT], &b[HDR_SALT], 8) == 0;
}

/* Adds the pages of the commits between two headers of one WAL, and lowers min to
** the smallest size that the database had meanwhile. Returns 0, with nothing
** added, if the WAL was restarted before all was read. */
static int read_tail(struct wf_reader *r, const uint32_t from[HDR_WORDS], uint32_t **pgnos, int *n, uint32_t *min) {
  const uint32_t *snap = r->f->snap;
  struct list l = {0, 0, 0};
  uint32_t live[HDR_WORDS], smallest;
  int ok = 1;
  if (from[HDR_NPAGE] && from[HDR_NPAGE] < *min) *min = from[HDR_NPAGE];
  if (snap[HDR_MXFRAME] != from[HDR_MXFRAME]) {
    ok = wf_min_size(r->f, snap, from[HDR_MXFRAME], &smallest);
    if (ok && smallest < *min) *min = smallest;
  }
  ok = ok && wf_frame_pages(r->f, from[HDR_MXFRAME], snap[HDR_MXFRAME], add, &l);
  /* With mark 0 a writer may have restarted the WAL while we read. */
  if (!ok || !wf_header(r->f->index, live) || !same_salt(live, snap)) {
    free(l.pgno);
    return 0;
  }
  *pgnos = l.pgno;
  *n = l.n;
  return 1;
}

/* Pages of the commits that the snapshot holds and no marker has marked yet: a
** commit between its header and its marks, or a program without walferry. The
** list is the caller's to free. Sets min to the smallest size that the database
** had meanwhile. base, unless NULL, is the header of an earlier snapshot all of
** which was looked at: with it the commits of a program that has restarted the WAL
** without marking are found as long as it does not do so again. Returns 0 if it
** cannot be known: then every page is a candidate. */
int wf_reader_tail(struct wf_reader *r, const uint32_t *base, uint32_t **pgnos, int *n, uint32_t *min) {
  const uint32_t *snap = r->f->snap;
  uint32_t seen[HDR_WORDS], live[HDR_WORDS];
  *pgnos = 0;
  *n = 0;
  *min = r->pages;
  for (int tries = 0; r->h && tries < 8; tries++) {
    struct timespec moment = {0, 2000000};
    if (tries) nanosleep(&moment, 0);
    if (!wf_read_seen(r->h, seen) || !wf_header(r->f->index, live)) continue;
    if (memcmp(seen, live, sizeof live) == 0 && !same_salt(seen, snap)) return 1; /* all is marked */
    if (memcmp(seen, snap, sizeof seen) == 0) return 1;
    /* What seen speaks of may be gone: by a restart, or by a power loss. */
    if (!same_salt(seen, snap) || !wf_frame_is(r->f, seen)) continue;
    if (seen[HDR_MXFRAME] >= snap[HDR_MXFRAME]) return 1; /* marked, and more */
    if (read_tail(r, seen, pgnos, n, min)) return 1;
  }
  return base && same_salt(base, snap) && base[HDR_MXFRAME] <= snap[HDR_MXFRAME] &&
         wf_frame_is(r->f, base) && read_tail(r, base, pgnos, n, min);
}

/* Where a page lies: 1 in the WAL, 0 in the database file, -1 not known. */
static int locate(struct wf_reader *r, uint32_t pgno, uint32_t *frame) {
  *frame = 0;
  if (r->f->snap_mark > 0 && !wf_find_frame(r->regions, r->f->snap[HDR_MXFRAME], pgno, frame)) return -1;
  return *frame != 0;
}

/* Reads n pages that lie side by side in the database file. */
static int read_pages(struct wf_reader *r, uint32_t pgno, int n, unsigned char *out) {
  sqlite3_file *file = r->f->real;
  int rc = file->pMethods->xRead(file, out, n * (int)r->page_size, (sqlite3_int64)(pgno - 1) * r->page_size);
  /* Beyond the file's end a page is zeros, as SQLite itself reads it. */
  return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
}

/* Reads the pages of n frames that lie side by side in the WAL. */
static int read_frames(struct wf_reader *r, uint32_t frame, int n, unsigned char *out) {
  if (!r->f->wal) return SQLITE_IOERR;
  sqlite3_file *file = r->f->wal->real;
  size_t step = r->page_size + FRAME_HEADER;
  sqlite3_int64 off = WAL_HEADER + (sqlite3_int64)(frame - 1) * (sqlite3_int64)step + FRAME_HEADER;
  int bytes = (int)(n * step) - FRAME_HEADER;
  int rc = file->pMethods->xRead(file, n == 1 ? out : r->frames, bytes, off);
  for (int i = 0; n > 1 && i < n; i++) memcpy(out + (size_t)i * r->page_size, r->frames + i * step, r->page_size);
  return rc;
}

/* Reads n pages, one behind the other, into out. WF_YIELD when the reader is to
** give way: it must then be closed at once. */
int wf_reader_read(struct wf_reader *r, const uint32_t *pgnos, int n, unsigned char *out, char **err) {
  uint32_t frame, next;
  int in_wal = n ? locate(r, pgnos[0], &frame) : 0;
  for (int i = 0, run; i < n; i += run) {
    int next_in_wal = 0;
    if (asked_to_yield(r)) return WF_YIELD;
    for (run = 1; i + run < n; run++) {
      next_in_wal = locate(r, pgnos[i + run], &next);
      int beside = in_wal == next_in_wal && run < RUN &&
                   (in_wal ? next == frame + (uint32_t)run : pgnos[i + run] == pgnos[i] + (uint32_t)run);
      if (!beside) break;
    }
    unsigned char *to = out + (size_t)i * r->page_size;
    int rc = in_wal < 0 ? SQLITE_IOERR : in_wal ? read_frames(r, frame, run, to) : read_pages(r, pgnos[i], run, to);
    if (rc != SQLITE_OK) {
      if (err) *err = sqlite3_mprintf("cannot read page %u: %s", pgnos[i], sqlite3_errstr(rc));
      return WF_FAILED;
    }
    in_wal = next_in_wal;
    frame = next;
  }
  return WF_OK;
}

/* Whether the WAL is to stay even if this connection is the last to close: it was there
** before, and without us it would be there still. That is so while a connection of the
** application has not read yet, and where its last one has left the WAL on purpose; but
** not if somebody wanted to be the last and met us. */
static int leaves_wal(const struct wf_reader *r) {
  uint32_t yield = r->h ? __atomic_load_n(&r->h->yield, __ATOMIC_SEQ_CST) : WF_YIELD_EXCLUSIVE;
  return r->found_wal && r->db && !(yield & WF_YIELD_EXCLUSIVE) &&
         (atomic_load(&r->db->files) > 0 || atomic_load(&r->db->wal_left));
}

/* Ends the snapshot and closes the connection. */
void wf_reader_close(struct wf_reader *r) {
  if (r->conn && leaves_wal(r)) sqlite3_db_config(r->conn, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)0);
  sqlite3_close(r->conn);
  free(r->regions);
  free(r->frames);
  if (r->h) {
    __atomic_store_n(&r->h->reader, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&r->h->yield, 0, __ATOMIC_SEQ_CST);
  }
  if (r->db) atomic_fetch_sub(&r->db->ours, 1);
  wf_db_put(r->db);
  free(r);
  wf_reader_leave();
}

/* Switches a database to another journal mode, unless somebody is at it. Never
** waits. */
int wf_set_journal_mode(const char *path, const char *wanted) {
  sqlite3 *conn = 0;
  sqlite3_stmt *stmt = 0;
  int done = 0;
  char *sql = sqlite3_mprintf("PRAGMA journal_mode=%s", wanted);
  if (!sql || !wf_reader_enter()) {
    sqlite3_free(sql);
    return 0;
  }
  struct wf_db *db = wf_db_get(path);
  if (db) atomic_fetch_add(&db->ours, 1);
  if (open_connection(path, &conn) == SQLITE_OK &&
      sqlite3_prepare_v2(conn, sql, -1, &stmt, 0) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW) {
    const char *mode = (const char *)sqlite3_column_text(stmt, 0);
    done = mode && sqlite3_stricmp(mode, wanted) == 0;
  }
  sqlite3_finalize(stmt);
  sqlite3_close(conn);
  if (db) atomic_fetch_sub(&db->ours, 1);
  wf_db_put(db);
  sqlite3_free(sql);
  wf_reader_leave();
  return done;
}
