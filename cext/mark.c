/*
** Marking: at the end of every commit, the pages that it changed become dirty
** bits in the ledger. This runs on the commit path, inside the application's
** write lock; it makes no system call but one write per window.
**
** `seen` in the ledger is the header of the wal-index up to which everything is
** marked. It is written only while WAL_WRITE_LOCK is held, by whatever process,
** and after the bits: a kill between the two marks again, which is harmless.
*/
#include "wf.h"
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A copy of seen for who does not hold the lock. Returns 0 if it is being
** written just now, or if its writer was killed doing so. */
int wf_read_seen(const struct wf_ledger *h, uint32_t out[HDR_WORDS]) {
  uint32_t before = __atomic_load_n(&h->seen_seq, __ATOMIC_ACQUIRE);
  for (int i = 0; i < HDR_WORDS; i++) out[i] = __atomic_load_n(&h->seen[i], __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return !(before & 1) && before == __atomic_load_n(&h->seen_seq, __ATOMIC_RELAXED) && h->seen_set;
}

/* For who holds the lock: whether seen is whole. */
static int seen_is_set(const struct wf_ledger *h) { return h->seen_set && !(h->seen_seq & 1); }

static void write_seen(struct wf_ledger *h, const uint32_t in[HDR_WORDS]) {
  __atomic_store_n(&h->seen_seq, h->seen_seq | 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  for (int i = 0; i < HDR_WORDS; i++) __atomic_store_n(&h->seen[i], in[i], __ATOMIC_RELAXED);
  h->seen_set = 1;
  __atomic_store_n(&h->seen_seq, (h->seen_seq | 1) + 1, __ATOMIC_RELEASE);
}

struct marking {
  struct wf_db *db;
  uint32_t pages;  /* of the database now: frames above are of a cut off tail */
  uint32_t missed; /* the first page that the ledger has no room for, or WF_NONE */
};

static int mark(void *arg, uint32_t pgno) {
  struct marking *m = arg;
  if (pgno == 0 || pgno > m->pages) return 1;
  struct wf_segment *s = wf_segment_of(m->db, pgno);
  if (!s) {
    if (pgno < m->missed) m->missed = pgno;
    return 1;
  }
  uint32_t i = (pgno - 1) % WF_SEGMENT_PAGES;
  uint64_t bit = (uint64_t)1 << (i % 64);
  /* The look first spares the cache line of a page that changes often. It may
  ** not be older than the commit: wf_header's fence has ordered the two. */
  if (!(__atomic_load_n(&s->dirty[i / 64], __ATOMIC_SEQ_CST) & bit)) {
    __atomic_fetch_or(&s->dirty[i / 64], bit, __ATOMIC_SEQ_CST);
  }
  return 1;
}

static void lower(uint32_t *word, uint32_t value) {
  uint32_t v = __atomic_load_n(word, __ATOMIC_SEQ_CST);
  while (value < v && !__atomic_compare_exchange_n(word, &v, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
}

/* The window has something to ship: note it, and wake Go once. */
static void open_window(struct wf_file *f, struct wf_ledger *h) {
  uint64_t none = 0;
  f->token_window = __atomic_load_n(&h->window, __ATOMIC_SEQ_CST);
  f->token_epoch = __atomic_load_n(&h->epoch, __ATOMIC_RELAXED);
  __atomic_store_n(&h->commit_window, f->token_window, __ATOMIC_RELAXED);
  if (__atomic_load_n(&h->poked, __ATOMIC_SEQ_CST) == 0 &&
      __atomic_exchange_n(&h->poked, 1, __ATOMIC_SEQ_CST) == 0) {
    __atomic_compare_exchange_n(&h->open_since_ms, &none, (uint64_t)wf_now_ms(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    /* Where that fails the next commit tries again. */
    if (!wf_poke(f->db)) __atomic_store_n(&h->poked, 0, __ATOMIC_SEQ_CST);
  }
}

/* What changed is not known: every page is a candidate of the next batch. */
void wf_mark_all(struct wf_file *f) {
  struct wf_ledger *h = f->db ? wf_ledger_of(f->db) : 0;
  if (!h) return;
  __atomic_fetch_add(&h->all, 1, __ATOMIC_SEQ_CST);
  open_window(f, h);
}

static int64_t ns(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

static int stamp_of(const char *path, struct wf_stamp *s) {
  struct stat st;
  if (stat(path, &st) != 0) return 0;
  s->valid = WF_STAMP_SEEN;
  s->dev = st.st_dev;
  s->ino = st.st_ino;
  s->size = (uint64_t)st.st_size;
  s->mtime_ns = ns(st.st_mtim);
  s->ctime_ns = ns(st.st_ctim);
  return 1;
}

/* Stamps the database file. File times move in ticks of some milliseconds: the
** tick of the last write must be over, or one after the stamp could look alike.
** Waits for that at most as many milliseconds. */
static void take_stamp(struct wf_file *f, struct wf_ledger *h, int ms) {
  struct wf_stamp s;
  h->stamp.valid = 0;
  for (int i = 0; i <= ms; i++) {
    struct timespec now, wait = {0, 1000000};
    if (!stamp_of(f->path, &s)) return;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (ns(now) > s.mtime_ns && ns(now) > s.ctime_ns) {
      h->stamp = s;
      return;
    }
    if (i < ms) nanosleep(&wait, 0);
  }
}

static int same_stamp(struct wf_stamp a, const struct wf_stamp *b) {
  a.valid = b->valid; /* how it was taken makes no other file of it */
  return b->valid && memcmp(&a, b, sizeof a) == 0;
}

/* The WAL has just begun and holds nothing, so the header tells nothing of what
** is in the database file: its stamp does. Returns whether all is marked. */
static int fresh_wal(struct wf_file *f, struct wf_ledger *h, const uint32_t now[HDR_WORDS]) {
  struct wf_stamp s;
  int known = seen_is_set(h) && stamp_of(f->path, &s) && same_stamp(s, &h->stamp);
  if (!known) {
    __atomic_fetch_add(&h->all, 1, __ATOMIC_SEQ_CST);
    take_stamp(f, h, 0); /* WAL_WRITE_LOCK is held, which somebody may want; the last close waits */
  }
  write_seen(h, now);
  return known;
}

/* Size in pages of the database that `seen` speaks of. */
static uint32_t seen_pages(const struct wf_ledger *h, const uint32_t seen[HDR_WORDS], uint32_t page_size) {
  if (seen[HDR_NPAGE] || !h->stamp.valid || !page_size) return seen[HDR_NPAGE];
  return (uint32_t)(h->stamp.size / page_size);
}

/* Marks the frames from+1..mxFrame, and what the database grew by: a page that
** went to the free list at once is in no frame. Pages that the ledger has not
** grown to yet are marked as a whole, as if the database had shrunk to where it
** ends. Returns 0 if something could not be marked. */
static int mark_frames(struct wf_file *f, struct wf_ledger *h, const uint32_t seen[HDR_WORDS],
                       const uint32_t now[HDR_WORDS], uint32_t from) {
  struct marking m = {f->db, now[HDR_NPAGE], WF_NONE};
  uint32_t min = now[HDR_NPAGE];
  uint32_t old = seen_pages(h, seen, wf_page_size(now));
  /* One hold of the lock is one commit. iChange does not tell how many there
  ** were: it begins anew with every recovery. */
  if (!f->own_hold && from != now[HDR_MXFRAME] && !wf_min_size(f, now, from, &min)) return 0;
  if (!wf_frame_pages(f, from, now[HDR_MXFRAME], mark, &m)) return 0;
  for (uint32_t p = (min < old ? min : old) + 1; p <= now[HDR_NPAGE] && p < m.missed; p++) mark(&m, p);
  lower(&h->min_pages, m.missed <= min ? m.missed - 1 : min);
  return 1;
}

/*
** Brings the marks up to the header of the wal-index. Called when this
** connection got WAL_WRITE_LOCK, is about to release it, or got EXCLUSIVE on
** the database.
*/
void wf_catch_up(struct wf_file *f) {
  uint32_t now[HDR_WORDS], seen[HDR_WORDS];
  struct wf_ledger *h;
  int known = 0;
  if (!f->db || !f->index || !(h = wf_ledger_of(f->db))) return;
  if (!wf_header(f->index, now)) return; /* recovery is about to run; the unlock looks again */
  memcpy(seen, h->seen, sizeof seen);    /* its writers are serialised by the lock we hold */

  if (now[HDR_MXFRAME] == 0 && now[HDR_SALT] == 0 && now[HDR_SALT + 1] == 0) {
    if (!fresh_wal(f, h, now)) open_window(f, h);
    return;
  }
  int set = seen_is_set(h);
  if (set && memcmp(now, seen, sizeof now) == 0) return;

  int same_salts = set && memcmp(&now[HDR_SALT], &seen[HDR_SALT], 8) == 0;
  int same_sum = memcmp(&now[HDR_CKSUM], &seen[HDR_CKSUM], 8) == 0;
  if (same_salts && now[HDR_MXFRAME] == seen[HDR_MXFRAME] && (same_sum || now[HDR_MXFRAME] == 0)) {
    write_seen(h, now); /* recovery found the same and counts changes anew */
    return;
  }
  /* A power loss may have taken back what seen speaks of, and others may have
  ** written more than that since. */
  if (same_salts && now[HDR_MXFRAME] > seen[HDR_MXFRAME] && (f->own_hold || wf_frame_is(f, seen))) {
    known = mark_frames(f, h, seen, now, seen[HDR_MXFRAME]);
  } else if (!same_salts && set && f->own_hold) {
    known = mark_frames(f, h, seen, now, 0);
  } else if (same_salts) {
    h->behind_salt[0] = now[HDR_SALT];
    h->behind_salt[1] = now[HDR_SALT + 1];
    h->behind_frame = now[HDR_MXFRAME];
    __atomic_fetch_add(&h->behind, 1, __ATOMIC_SEQ_CST);
  }
  if (!known) __atomic_fetch_add(&h->all, 1, __ATOMIC_SEQ_CST);
  write_seen(h, now);
  h->stamp.valid = 0;
  open_window(f, h);
}

/* Whether everything that the wal-index speaks of is marked. */
int wf_header_is_seen(struct wf_file *f) {
  uint32_t now[HDR_WORDS];
  struct wf_ledger *h = f->db ? wf_ledger_of(f->db) : 0;
  return h && f->index && wf_header(f->index, now) && seen_is_set(h) && memcmp(now, h->seen, sizeof now) == 0;
}

/* The last closer has checkpointed and is about to delete the WAL, nobody else
** can be at the file: from here on its stamp vouches for it. The checkpoint has
** synced the file, unless there was nothing to do, or synchronous=OFF. But not in
** a ledger of another boot, whose marks a power loss may have taken: who opens it first as
** its shipper counts that, and a forked child may be here before. */
void wf_stamp_closed(struct wf_file *f) {
  struct wf_ledger *h = f->db ? wf_ledger_of(f->db) : 0;
  if (!h || !wf_header_is_seen(f) || memcmp(h->boot, wf.boot, sizeof h->boot) != 0) return;
  int synced = f->synced || h->stamp.valid == WF_STAMP_SYNCED || /* nothing was committed since that was taken */
               f->real->pMethods->xSync(f->real, SQLITE_SYNC_NORMAL) == SQLITE_OK;
  take_stamp(f, h, 50);
  if (h->stamp.valid && synced) h->stamp.valid = WF_STAMP_SYNCED;
  fdatasync(f->db->fd);
}
