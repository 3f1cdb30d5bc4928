/*
** The locks, which are all that the shim learns a commit, a checkpoint and a
** close from, and the waiting for connections of ours that are in their way.
**
** An application meets no SQLITE_BUSY that it would not have met without us: what
** ours holds is tried again until ours has given way, for as long as stated below.
*/
#include "wf.h"
#include <time.h>

/* Longest that a lock is retried, in milliseconds. */
enum {
  YIELD_MS = 50,  /* for our reader to give way to a restart of the WAL, which may be for a commit; it is no
                  ** error if it does not, and the WAL only grows */
  OURS_MS = 1000, /* for a connection of ours to open or close: it may sync the disk; and for all of them to
                  ** end, where BUSY would be an error of the application's */
};

/* What a lock that is BUSY waits for. */
enum awaited {
  NOTHING,
  OURS_CLOSED, /* a connection of ours to end */
  OURS_READS,  /* ... to let go of WAL_WRITE_LOCK, under which it reads the header */
  YIELD_RESET, /* our reader to give way to a restart of the WAL */
  YIELD_ALL,   /* ... to who wants the database for himself */
};

/* Asks our reader, in whatever process, to end. Returns 0 if there is none
** that gives way to this. */
int wf_give_way(struct wf_file *f, uint32_t bit) {
  struct wf_ledger *h = f->db && !f->reader ? wf_ledger_of(f->db) : 0;
  uint32_t reader = h ? __atomic_load_n(&h->reader, __ATOMIC_SEQ_CST) : 0;
  if (!reader || (bit == WF_YIELD_RESET && (reader & WF_READER_SCAN))) return 0;
  if (!wf_shipper_lives(f->db)) return 0; /* it was killed with the word set */
  __atomic_fetch_or(&h->yield, bit, __ATOMIC_SEQ_CST);
  return 1;
}

/* Whether a connection of ours is open, in whatever process: one that opens may
** recover the WAL, and one that is the last to close checkpoints it. With writes
** whether it holds WAL_WRITE_LOCK. */
static int ours_is_open(struct wf_file *f, int writes) {
  if (!writes && atomic_load(&f->db->ours)) return 1;
  struct wf_ledger *h = wf_ledger_of(f->db);
  uint32_t reader = h ? __atomic_load_n(&h->reader, __ATOMIC_SEQ_CST) : 0;
  return (writes ? reader & WF_READER_WRITES : reader) && wf_shipper_lives(f->db);
}

static int in_the_way(struct wf_file *f, enum awaited what) {
  switch (what) {
    case OURS_CLOSED: return ours_is_open(f, 0);
    case OURS_READS: return ours_is_open(f, 1);
    case YIELD_RESET: return wf_give_way(f, WF_YIELD_RESET);
    case YIELD_ALL: return wf_give_way(f, WF_YIELD_EXCLUSIVE) || ours_is_open(f, 0);
    default: return 0;
  }
}

/* A lock that is tried again. */
struct patience {
  enum awaited what;
  int64_t until;
  int last;
};

/* Whether a lock that was BUSY is to be tried again: ours may be what is in the
** way, which the application would not have met without us. Waits a moment. */
static int again(struct wf_file *f, struct patience *p) {
  struct timespec moment = {0, 50000};
  if (!f->db || f->reader || p->what == NOTHING || p->last) return 0;
  if (!in_the_way(f, p->what)) {
    p->last = 1; /* it may have gone since the lock was tried */
    return 1;
  }
  if (!p->until) p->until = wf_now_ms() + (p->what == YIELD_RESET ? YIELD_MS : OURS_MS);
  if (wf_now_ms() >= p->until) return 0;
  nanosleep(&moment, 0);
  return 1;
}

int wf_lock(sqlite3_file *p, int level) {
  struct wf_file *f = FILE_OF(p);
  int wanted = f->db && !f->reader && level >= SQLITE_LOCK_PENDING;
  if (wanted && f->index && f->handle && f->db->files == 1 && !atomic_load(&wf.forked)) {
    wf_catch_up(f);
    wf.hooks.last(f->handle);
  }
  int rc = CALL(p)->xLock(REAL(p), level);
  struct patience patience = {wanted ? YIELD_ALL : OURS_CLOSED, 0, 0};
  while (rc == SQLITE_BUSY && again(f, &patience)) rc = CALL(p)->xLock(REAL(p), level);
  if (level == SQLITE_LOCK_EXCLUSIVE) {
    f->refused = rc != SQLITE_OK;
    f->synced = 0;
  }
  if (rc == SQLITE_OK) {
    if (level > f->lock) f->lock = level;
    if (level == SQLITE_LOCK_EXCLUSIVE) wf_catch_up(f);
  }
  return rc;
}

/* The application wants a rollback journal, and has not seen yet that we have switched the
** database to WAL mode: it would believe that it has its way already. */
void wf_leave_wal(struct wf_file *f) {
  struct patience patience = {YIELD_ALL, 0, 0};
  while (!wf_set_journal_mode(f->path, "delete") && again(f, &patience)) {
  }
}

/* The application has just let go of a database that is not in WAL mode. */
void wf_try_wal(struct wf_file *f) {
  if (!f->db || !atomic_load(&f->db->auto_wal) || f->reader || f->index || atomic_load(&f->db->explicit_mode) ||
      atomic_load(&wf.forked) || !wf_is_rollback(f)) {
    return;
  }
  if (wf_set_journal_mode(f->path, "wal")) wf_mark_all(f);
}

int wf_unlock(sqlite3_file *p, int level) {
  struct wf_file *f = FILE_OF(p);
  int rc = CALL(p)->xUnlock(REAL(p), level);
  if (rc == SQLITE_OK) {
    f->lock = level;
    f->direct = 0;
    if (level == SQLITE_LOCK_NONE && f->wrote) {
      f->wrote = 0;
      wf_try_wal(f);
    }
  }
  return rc;
}

/* A checkpoint is of the WAL that has these salts. Called before SQLite reads the
** header that it works from, so the salts are that header's or older ones. */
static void note_checkpointed(struct wf_file *f) {
  if (!f->index) return; /* wf_shm_map calls again */
  f->ckpt_salt[0] = f->index[HDR_SALT];
  f->ckpt_salt[1] = f->index[HDR_SALT + 1];
}

/*
** Whether a checkpointer that has just got READ0 works from the header of a WAL
** that has been restarted since: SQLite 3.7.0 to 3.51.2 would note its frames as
** copied, and as many of the new WAL would never be (the WAL-reset bug; fixed
** there by the same comparison). While READ0 is held the WAL is not restarted.
** That SQLite takes SQLITE_BUSY here for readers that are in the way, and does
** nothing; where our salts are older than its header, needlessly, once.
*/
static int restarted_under_checkpoint(struct wf_file *f) {
  return f->holds_ckpt && f->index &&
         (f->index[HDR_SALT] != f->ckpt_salt[0] || f->index[HDR_SALT + 1] != f->ckpt_salt[1]);
}

int wf_shm_map(sqlite3_file *p, int region, int size, int extend, void volatile **out) {
  struct wf_file *f = FILE_OF(p);
  int rc = CALL(p)->xShmMap(REAL(p), region, size, extend, out);
  if (rc == SQLITE_OK && region == 0 && *out) {
    int first = !f->index;
    f->index = *out;
    if (first && f->holds_ckpt) note_checkpointed(f);
  }
  return rc;
}

/* Whether who asks for read marks alone is a writer that would restart the WAL,
** or a checkpointer: one that meets a mark leaves frames behind, and then no
** writer even tries. */
static int wants_wal_back(struct wf_file *f, int at, int n) {
  return (at == SHM_READ1 && n == SHM_READS) || (f->holds_ckpt && at >= SHM_READ0 && n == 1);
}

/* What a lock of the wal-index that is BUSY waits for. */
static enum awaited awaited_for(struct wf_file *f, int at, int n, int exclusive) {
  if (exclusive && wants_wal_back(f, at, n)) return YIELD_RESET;
  if (exclusive && at == SHM_WRITE) return OURS_READS;
  if (!exclusive && at == SHM_RECOVER) return OURS_CLOSED; /* it has met a recovery */
  return NOTHING;
}

/* Tells all processes that a connection of ours holds WAL_WRITE_LOCK, or is about
** to get it. */
static void tell_write(struct wf_file *f, int held) {
  struct wf_ledger *h = f->reader && f->db ? wf_ledger_of(f->db) : 0;
  if (h && held) __atomic_fetch_or(&h->reader, WF_READER_WRITES, __ATOMIC_SEQ_CST);
  if (h && !held) __atomic_fetch_and(&h->reader, ~(uint32_t)WF_READER_WRITES, __ATOMIC_SEQ_CST);
}

int wf_shm_lock(sqlite3_file *p, int at, int n, int flags) {
  struct wf_file *f = FILE_OF(p);
  int exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  int is_write = at == SHM_WRITE && exclusive;

  if (is_write && (flags & SQLITE_SHM_UNLOCK)) {
    if (f->writing) wf_catch_up(f);
    f->writing = f->own_hold = 0;
  }
  if (is_write && (flags & SQLITE_SHM_LOCK)) tell_write(f, 1);
  int rc = CALL(p)->xShmLock(REAL(p), at, n, flags);
  if (at == SHM_CKPT && rc == SQLITE_OK) f->holds_ckpt = (flags & SQLITE_SHM_LOCK) != 0;
  if ((at == SHM_CKPT || at == SHM_RECOVER) && f->holds_ckpt) note_checkpointed(f); /* a recovery that ended, too */
  if (flags & SQLITE_SHM_UNLOCK) {
    if (f->reader && f->snap_mark == at - SHM_READ0) f->snap_mark = -1;
    if (is_write) tell_write(f, 0);
    return rc;
  }
  struct patience patience = {awaited_for(f, at, n, exclusive), 0, 0};
  while (rc == SQLITE_BUSY && again(f, &patience)) rc = CALL(p)->xShmLock(REAL(p), at, n, flags);
  if (rc != SQLITE_OK) {
    if (is_write) tell_write(f, 0);
    return rc;
  }
  if (exclusive && at == SHM_READ0 && n == 1 && restarted_under_checkpoint(f)) {
    CALL(p)->xShmLock(REAL(p), at, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    return SQLITE_BUSY;
  }
  if (is_write) {
    if (f->holds_ckpt) note_checkpointed(f); /* no longer restarted by others */
    f->writing = 1;
    wf_catch_up(f);
    f->own_hold = wf_header_is_seen(f);
  } else if (f->reader && f->index && at >= SHM_READ0 && (flags & SQLITE_SHM_SHARED)) {
    f->snap_mark = wf_header(f->index, f->snap) ? at - SHM_READ0 : -1;
  }
  return rc;
}

int wf_shm_unmap(sqlite3_file *p, int delete) {
  struct wf_file *f = FILE_OF(p);
  if (delete && f->lock == SQLITE_LOCK_EXCLUSIVE) wf_stamp_closed(f);
  /* A close that does not ask for EXCLUSIVE, or has got it and fails, leaves the WAL. */
  if (f->db && !f->reader) atomic_store(&f->db->wal_left, !delete && !f->refused);
  f->index = 0;
  return CALL(p)->xShmUnmap(REAL(p), delete);
}
