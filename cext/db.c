/*
** Databases of this process, their mapped ledgers, and what a fork means to
** them.
**
** A fork copies the memory but only one thread: in the child there is no Go,
** and the shipper stays behind in the parent. So the child keeps marking, in C,
** in the ledger that both have mapped, and its pokes wake the parent. What must
** not be copied is a connection of ours (the child would believe that it holds
** locks) and the shipper's lock (it would outlive the parent).
*/
#include "wf.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct wf_globals wf = {.mu = PTHREAD_MUTEX_INITIALIZER,
                        .idle = PTHREAD_COND_INITIALIZER,
                        .log_level = WF_LOG_ERROR};

int64_t wf_now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The database of that path with one more reference, made at the first call;
** NULL without memory. */
struct wf_db *wf_db_get(const char *path) {
  struct wf_db *db;
  pthread_mutex_lock(&wf.mu);
  for (db = wf.dbs; db && strcmp(db->path, path) != 0; db = db->next) {
  }
  if (!db && (db = calloc(1, sizeof *db)) != 0) {
    db->path = strdup(path);
    db->fd = -1;
    if (!db->path) {
      free(db);
      db = 0;
    } else {
      db->next = wf.dbs;
      wf.dbs = db;
    }
  }
  if (db) db->refs++;
  pthread_mutex_unlock(&wf.mu);
  return db;
}

/* Gives a reference back; the last one unmaps the ledger. */
void wf_db_put(struct wf_db *db) {
  if (!db) return;
  pthread_mutex_lock(&wf.mu);
  int last = --db->refs == 0;
  for (struct wf_db **p = &wf.dbs; last && *p; p = &(*p)->next) {
    if (*p != db) continue;
    *p = db->next;
    break;
  }
  pthread_mutex_unlock(&wf.mu);
  if (!last) return;
  for (int i = 0; i < WF_CHUNKS; i++) {
    for (int k = 0; db->chunks[i] && k < WF_CHUNK_SEGMENTS; k++) {
      struct wf_segment *s = atomic_load(&db->chunks[i][k]);
      if (s) munmap(s, WF_SEGMENT_SIZE);
    }
    free(db->chunks[i]);
  }
  struct wf_ledger *h = atomic_load(&db->ledger);
  if (h) munmap(h, WF_HEADER_SIZE);
  if (db->fd >= 0) close(db->fd);
  free(db->path);
  free(db);
}

static struct wf_ledger *map_ledger(const char *path, int *fd_out) {
  struct stat st;
  char name[4096 + sizeof "-ledger"];
  size_t n = strlen(path);
  if (n > 4096) return 0;
  memcpy(name, path, n);
  memcpy(name + n, "-ledger", sizeof "-ledger");
  int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return 0;
  if (fstat(fd, &st) == 0 && st.st_size >= WF_HEADER_SIZE + WF_SEGMENT_SIZE) {
    struct wf_ledger *h = mmap(0, WF_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (h != MAP_FAILED) {
      if (__atomic_load_n(&h->ready, __ATOMIC_ACQUIRE) == WF_READY &&
          memcmp(h->magic, "WALFERRY", 8) == 0 && h->version == WF_LEDGER_VERSION) {
        *fd_out = fd;
        return h;
      }
      munmap(h, WF_HEADER_SIZE);
    }
  }
  close(fd); /* no lock of anybody's is on it: OFD locks do not mind */
  return 0;
}

/* The mapped ledger, NULL while there is none. One that was replaced is mapped
** again; the old mapping stays, since another thread may be reading it. */
struct wf_ledger *wf_ledger_of(struct wf_db *db) {
  struct wf_ledger *h = atomic_load(&db->ledger);
  /* One that is being made new is ready again in microseconds. */
  for (int i = 0; h && i < 10000; i++) {
    uint32_t ready = __atomic_load_n(&h->ready, __ATOMIC_ACQUIRE);
    if (ready == WF_READY) return h;
    if (ready == WF_GONE) break;
    sched_yield();
  }

  pthread_mutex_lock(&wf.mu);
  h = atomic_load(&db->ledger);
  int64_t now = wf_now_ms();
  int usable = h && __atomic_load_n(&h->ready, __ATOMIC_ACQUIRE) == WF_READY;
  /* One that was never there is looked for each time: what is committed between its
  ** making and the next look would be marked by nobody. */
  if (!usable && (!h || now >= db->next_try_ms || now < db->next_try_ms - 1000)) {
    int fd = -1;
    db->next_try_ms = now + 100;
    h = map_ledger(db->path, &fd);
    if (h) {
      if (db->fd >= 0) close(db->fd);
      db->fd = fd;
      for (int i = 0; i < WF_CHUNKS; i++) db->chunks[i] = 0;
      atomic_store(&db->ledger, h);
      db->next_try_ms = 0;
      usable = 1;
    }
  }
  pthread_mutex_unlock(&wf.mu);
  return usable ? h : 0;
}

/* The segment that holds a page, NULL where the ledger has not grown so far. */
struct wf_segment *wf_segment_of(struct wf_db *db, uint32_t pgno) {
  uint32_t i = (pgno - 1) / WF_SEGMENT_PAGES;
  _Atomic(struct wf_segment *) *chunk = __atomic_load_n(&db->chunks[i / WF_CHUNK_SEGMENTS], __ATOMIC_ACQUIRE);
  struct wf_segment *s = chunk ? atomic_load(&chunk[i % WF_CHUNK_SEGMENTS]) : 0;
  if (s) return s;

  /* The header may be anybody's, and what is mapped behind a file's end is a SIGBUS. */
  struct stat st;
  struct wf_ledger *h = atomic_load(&db->ledger);
  if (!h || i >= __atomic_load_n(&h->segments, __ATOMIC_ACQUIRE)) return 0;
  if (fstat(db->fd, &st) != 0 || st.st_size < WF_HEADER_SIZE + ((off_t)i + 1) * WF_SEGMENT_SIZE) return 0;
  pthread_mutex_lock(&wf.mu);
  chunk = db->chunks[i / WF_CHUNK_SEGMENTS];
  if (!chunk) {
    chunk = calloc(WF_CHUNK_SEGMENTS, sizeof *chunk);
    if (chunk) __atomic_store_n(&db->chunks[i / WF_CHUNK_SEGMENTS], chunk, __ATOMIC_RELEASE);
  }
  if (chunk && !(s = atomic_load(&chunk[i % WF_CHUNK_SEGMENTS]))) {
    void *p = mmap(0, WF_SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, db->fd,
                   WF_HEADER_SIZE + (off_t)i * WF_SEGMENT_SIZE);
    if (p != MAP_FAILED) {
      s = p;
      atomic_store(&chunk[i % WF_CHUNK_SEGMENTS], s);
    }
  }
  pthread_mutex_unlock(&wf.mu);
  return s;
}

/* Wakes whoever ships: every process that could watches the file, and a write
** is what a watch sees. Nobody reads the byte. Returns 0 if nobody was woken. */
int wf_poke(struct wf_db *db) {
  ssize_t n;
  do n = pwrite(db->fd, "\1", 1, WF_POKE_OFFSET);
  while (n < 0 && errno == EINTR);
  return n == 1;
}

int wf_shipper_lives(struct wf_db *db) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = WF_LOCK_OFFSET, .l_len = 1};
  return fcntl(db->fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* Makes room for one more. */
static int room_for_lock_fd(void) {
  if (wf.lock_fd_n < wf.lock_fd_room) return 1;
  int room = wf.lock_fd_room ? 2 * wf.lock_fd_room : 64;
  int *grown = realloc(wf.lock_fds, (size_t)room * sizeof *grown);
  if (!grown) return 0;
  wf.lock_fds = grown;
  wf.lock_fd_room = room;
  return 1;
}

/* Opens a descriptor for the shipper's lock, to be closed in every child. */
int wf_open_lock_fd(const char *path) {
  int fd = -1;
  pthread_mutex_lock(&wf.mu);
  if (room_for_lock_fd()) fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0) wf.lock_fds[wf.lock_fd_n++] = fd;
  pthread_mutex_unlock(&wf.mu);
  return fd;
}

void wf_close_lock_fd(int fd) {
  pthread_mutex_lock(&wf.mu);
  for (int i = 0; i < wf.lock_fd_n; i++) {
    if (wf.lock_fds[i] != fd) continue;
    wf.lock_fds[i] = wf.lock_fds[--wf.lock_fd_n];
    close(fd);
    break;
  }
  pthread_mutex_unlock(&wf.mu);
}

/* A connection of ours is about to be opened; refused while a fork waits. */
int wf_reader_enter(void) {
  pthread_mutex_lock(&wf.mu);
  int ok = !atomic_load(&wf.fork_pending) && !atomic_load(&wf.forked);
  if (ok) wf.readers++;
  pthread_mutex_unlock(&wf.mu);
  return ok;
}

void wf_reader_leave(void) {
  pthread_mutex_lock(&wf.mu);
  if (--wf.readers == 0) pthread_cond_broadcast(&wf.idle);
  pthread_mutex_unlock(&wf.mu);
}

/* Waits until no connection of ours is open, and lets none open until the
** fork is over. The readers see fork_pending between two pages. The bound is
** for a host that forks while it holds what a reader needs. */
static void before_fork(void) {
  struct timespec until;
  atomic_store(&wf.fork_pending, 1);
  pthread_mutex_lock(&wf.mu);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  while (wf.readers > 0 && pthread_cond_timedwait(&wf.idle, &wf.mu, &until) == 0) {
  }
}

static void after_fork_parent(void) {
  atomic_store(&wf.fork_pending, 0);
  pthread_mutex_unlock(&wf.mu);
}

static void after_fork_child(void) {
  if (atomic_load(&wf.go) != WF_GO_NONE) atomic_store(&wf.forked, 1);
  for (int i = 0; i < wf.lock_fd_n; i++) close(wf.lock_fds[i]);
  wf.lock_fd_n = 0;
  wf.readers = 0;
  for (struct wf_db *db = wf.dbs; db; db = db->next) {
    db->files = 0;
    atomic_store(&db->ours, 0);
  }
  atomic_store(&wf.fork_pending, 0);
  pthread_mutex_unlock(&wf.mu);
}

/* Names this run of the kernel, as internal/ledger does: zeros if it cannot. */
static void read_boot(void) {
  char text[64];
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
  if (fd >= 0) close(fd);
  for (int i = 0, digits = 0; i < n && digits < 2 * (int)sizeof wf.boot; i++) {
    int c = text[i], value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (value < 0) continue;
    wf.boot[digits / 2] = (uint8_t)(wf.boot[digits / 2] << 4 | value);
    digits++;
  }
}

static void install(void) {
  read_boot();
  pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* What a process does once, however often it registers the VFS. */
void wf_process_begins(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
}
