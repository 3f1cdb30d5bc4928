/*
** The shim's own structures. cext/shim.c tells how the parts work together.
*/
#ifndef WALFERRY_WF_H
#define WALFERRY_WF_H

#ifdef SQLITE3VFS_LOADABLE_EXT
#include "sqlite3ext.h"
extern const sqlite3_api_routines *sqlite3_api; /* init.c defines it */
#else
#include "sqlite3.h"
#endif
#include <pthread.h>
#include <stdatomic.h>
#include "ledger.h"

/* Segments are mapped as they are needed, found through a table of tables:
** enough of them for the largest database that SQLite knows. */
#define WF_CHUNKS 544
#define WF_CHUNK_SEGMENTS 512

#define WF_VFS_NAME "walferry"
#define WF_REPLICA_NAME "walferry-replica"
#define WF_VERSION "0.1.0" /* and internal/version */
#define WF_MIN_SQLITE 3040001
#define WF_MIN_SQLITE_TEXT "3.40.1"

/* A file control of ours: *(struct wf_file **)arg becomes the file. Shims
** above us pass it down as they must pass what they do not know. */
#define WF_FCNTL_FILE 0x77616c66

/* Another, of a replica's: *(uint64_t *)arg becomes Go's name for it. */
#define WF_FCNTL_REPLICA 0x77616c72

/* Words of the header of the wal-index, in 32-bit units (wal.c, WalIndexHdr). */
enum { HDR_ICHANGE = 2, HDR_FLAGS = 3, HDR_MXFRAME = 4, HDR_NPAGE = 5,
       HDR_CKSUM = 6, HDR_SALT = 8, HDR_WORDS = 12 };

/* Locks of the wal-index (wal.c, SQLITE_SHM_NLOCK). */
enum { SHM_WRITE = 0, SHM_CKPT = 1, SHM_RECOVER = 2, SHM_READ0 = 3, SHM_READ1 = 4, SHM_READS = 4 };

/*
** One per database and process, shared by its connections. Fields are set
** under wf.mu, save those that are atomic.
*/
struct wf_db {
  struct wf_db *next;
  char *path;
  int refs;                           /* files and readers that hold it */
  int fd;                             /* of the ledger; -1 */
  _Atomic(struct wf_ledger *) ledger; /* NULL: there is none yet */
  int64_t next_try_ms;                /* when to look for a ledger again */
  atomic_int files;                   /* connections of the application */
  atomic_int wal_left;                /* the last of them has left the WAL on purpose */
  atomic_int ours;                    /* connections of ours that are open here */
  atomic_int auto_wal;                /* may be switched to WAL mode */
  atomic_int explicit_mode;           /* the application chose a journal mode */
  _Atomic(struct wf_segment *) *chunks[WF_CHUNKS];
};

struct wf_file {
  sqlite3_file base;
  sqlite3_file *real; /* the platform's file, behind this struct */
  const char *path;   /* SQLite keeps it while the file is open */
  struct wf_db *db;   /* NULL: calls pass through, nothing ships */
  char *why;          /* ... for this reason */
  uint64_t handle;    /* Go's name for this connection; 0: none */
  struct wf_file *main, *wal; /* of a WAL: its database; and back */
  const char *wal_path;       /* of a database: the name its WAL is opened by */
  struct wf_file *next;       /* open database file */
  volatile uint32_t *index;   /* region 0 of the wal-index, NULL outside WAL mode */
  int lock;           /* SQLITE_LOCK_ level of a database file */
  int synced;         /* the database, in this EXCLUSIVE lock, and not written since */
  int refused;        /* EXCLUSIVE: somebody else is at the database */
  int reader;         /* a connection of ours */
  int pinning;        /* ... that reads page 1 to pin a snapshot, and nothing else */
  int writing;        /* holds WAL_WRITE_LOCK */
  int own_hold;       /* ... and the header was `seen` when that was got */
  int holds_ckpt;     /* holds WAL_CKPT_LOCK */
  uint32_t ckpt_salt[2]; /* ... and the WAL then had these salts */
  int checkpointing;  /* between CKPT_START and CKPT_DONE */
  int direct;         /* the database was written outside a checkpoint, in this lock */
  int wrote;          /* ... since it was last unlocked */
  int blind;          /* the WAL was written without WAL_WRITE_LOCK */
  uint64_t token_epoch, token_window; /* of the newest commit here; 0: none */
  int snap_mark;      /* reader: index of the read mark held, -1 */
  uint32_t snap[HDR_WORDS]; /* and the header when it was got */
};

#define FILE_OF(p) ((struct wf_file *)(p))
#define REAL(p) (FILE_OF(p)->real)
#define CALL(p) (REAL(p)->pMethods)

/* What Go answers to an open. */
struct wf_opened {
  uint64_t handle;
  int auto_wal;
  char *why; /* from sqlite3_malloc; set: pass through */
};

/* Go, as the shim sees it. Every member is called outside any lock of the
** shim's and never in a forked child. */
struct wf_hooks {
  int (*check)(char *path, char *params, char **err); /* before a file is made */
  int (*open)(char *path, char *params, struct wf_opened *out, char **err);
  void (*last)(uint64_t handle);  /* EXCLUSIVE is about to be asked for */
  void (*close)(uint64_t handle);
  char *(*status)(uint64_t handle); /* JSON, from sqlite3_malloc */
  int (*mark)(uint64_t handle, char *name, uint64_t *txid, char **err);
  void (*exit)(void);

  int (*replica_start)(char **err); /* registers the package's VFS, once */
  int (*replica_pragma)(uint64_t handle, char *name, char *value, char **out);
  int (*replica_wait)(uint64_t handle, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err);
};

/* What has become of Go in this process. */
enum { WF_GO_NONE, WF_GO_BEGUN, WF_GO_RUNS };

struct wf_globals {
  pthread_mutex_t mu; /* guards the lists of databases and files, readers, lock descriptors */
  pthread_cond_t idle;
  struct wf_db *dbs;
  struct wf_file *files;   /* of databases, open here */
  int readers;             /* connections of ours that are open */
  atomic_int fork_pending; /* a fork waits for them */
  atomic_int forked;       /* the child of a process with Go, which does not run here */
  atomic_int go;           /* WF_GO_... */
  int *lock_fds; /* of as many databases as this process ships; room for lock_fd_room */
  int lock_fd_n, lock_fd_room;
  atomic_int log_level;
  _Atomic(const char *) broken; /* why this process ships nothing any more; NULL */
  uint8_t boot[16]; /* this run of the kernel, as in the ledger */
  struct wf_hooks hooks;
  sqlite3_vfs *root;
};
extern struct wf_globals wf;

/* shim.c */
int wf_register(int make_default, char **err);
int wf_is_rollback(struct wf_file *f);

/* lock.c */
int wf_give_way(struct wf_file *f, uint32_t bit);
void wf_try_wal(struct wf_file *f);
void wf_leave_wal(struct wf_file *f);
int wf_lock(sqlite3_file *p, int level);
int wf_unlock(sqlite3_file *p, int level);
int wf_shm_map(sqlite3_file *p, int region, int size, int extend, void volatile **out);
int wf_shm_lock(sqlite3_file *p, int at, int n, int flags);
int wf_shm_unmap(sqlite3_file *p, int delete);

/* mark.c */
void wf_catch_up(struct wf_file *f);
void wf_mark_all(struct wf_file *f);
int wf_header_is_seen(struct wf_file *f);
void wf_stamp_closed(struct wf_file *f);
int wf_read_seen(const struct wf_ledger *h, uint32_t out[HDR_WORDS]);

/* db.c */
struct wf_db *wf_db_get(const char *path);
void wf_db_put(struct wf_db *db);
struct wf_ledger *wf_ledger_of(struct wf_db *db);
struct wf_segment *wf_segment_of(struct wf_db *db, uint32_t pgno);
int64_t wf_now_ms(void);
int wf_poke(struct wf_db *db);
int wf_shipper_lives(struct wf_db *db);
int wf_open_lock_fd(const char *path);
void wf_close_lock_fd(int fd);
void wf_process_begins(void);
int wf_reader_enter(void);
void wf_reader_leave(void);

/* walindex.c */
int wf_header(volatile uint32_t *index, uint32_t out[HDR_WORDS]);
uint32_t wf_page_size(const uint32_t hdr[HDR_WORDS]);
int wf_frame_pages(struct wf_file *f, uint32_t from, uint32_t to,
                   int (*each)(void *arg, uint32_t pgno), void *arg);
int wf_min_size(struct wf_file *f, const uint32_t hdr[HDR_WORDS], uint32_t from, uint32_t *min);
int wf_frame_is(struct wf_file *f, const uint32_t hdr[HDR_WORDS]);
int wf_map_regions(struct wf_file *f, uint32_t mx, volatile uint32_t ***out);
int wf_find_frame(volatile uint32_t **regions, uint32_t mx, uint32_t pgno, uint32_t *frame);

/* reader.c */
struct wf_reader;
enum { WF_OK, WF_BUSY, WF_YIELD, WF_NOTWAL, WF_MALFORMED, WF_FAILED };
int wf_reader_open(const char *path, int scan, struct wf_reader **out, char **err);
uint32_t wf_reader_page_size(struct wf_reader *r);
uint32_t wf_reader_pages(struct wf_reader *r);
void wf_reader_header(struct wf_reader *r, uint32_t out[HDR_WORDS]);
int wf_reader_tail(struct wf_reader *r, const uint32_t *base, uint32_t **pgnos, int *n, uint32_t *min);
int wf_reader_read(struct wf_reader *r, const uint32_t *pgnos, int n, unsigned char *out, char **err);
void wf_reader_close(struct wf_reader *r);
int wf_set_journal_mode(const char *path, const char *wanted);
int wf_opening_reader(void);

/* sql.c */
int wf_functions(sqlite3 *db);
int wf_pragma(struct wf_file *f, char **arg);
int wf_wait(struct wf_file *f, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err);
int wf_ship_now(struct wf_file *f, int64_t timeout_ms, uint64_t *txid, char **err);

/* replica.c */
int wf_replica_register(void);
void wf_replica_opened(uint64_t handle);
void wf_replica_began(uint32_t state);
int wf_replica_interrupted(void);
int wf_is_replica(sqlite3 *db, const char *schema);
int wf_replica_wait(sqlite3 *db, const char *schema, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err);
char *wf_replica_txid(sqlite3 *db, const char *schema, char **err);

/* init.c */
int wf_start(int make_default, char **err);

/* start.c */
int wf_go(char **err);
int wf_go_is_deferred(void);

/* log.c */
enum { WF_LOG_OFF, WF_LOG_ERROR, WF_LOG_INFO, WF_LOG_DEBUG };
void wf_log(int level, const char *format, ...);
void wf_log_text(int level, const char *text);

#endif
