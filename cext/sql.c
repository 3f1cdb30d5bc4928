/*
** What SQL sees: two PRAGMAs, five functions, and the waits behind them. All but
** walferry_mark work from the ledger alone, so they answer in a process that is
** not the shipper, and in a forked child.
*/
#include "wf.h"
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
  SLICE_MS = 20,         /* longest sleep between two looks at the ledger */
  AGAIN_MS = 1000,       /* when who ships is woken once more */
  NO_SHIPPER_MS = 5000,  /* how long a process may take to become the shipper */
};

static uint64_t load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

/* Sleeps until durable is no longer what it was, at most a slice. */
static void await_durable(struct wf_ledger *h, uint64_t was) {
  struct timespec slice = {0, SLICE_MS * 1000000};
  syscall(SYS_futex, (uint32_t *)&h->durable, FUTEX_WAIT, (uint32_t)was, &slice, 0, 0);
}

/* shipper.State: the states in which nothing ships until somebody does something. */
static int is_stuck(uint32_t state) { return state >= 16; }

/* The cause of the state, or the last error; NULL if there is none any more. */
static char *cause_of(struct wf_ledger *h, int of_error) {
  char text[sizeof h->cause];
  memcpy(text, of_error ? h->last_error : h->cause, sizeof text);
  text[sizeof text - 1] = 0;
  return text[0] ? sqlite3_mprintf("%s", text) : 0;
}

static struct wf_ledger *ledger_or_say(struct wf_file *f, char **err) {
  struct wf_ledger *h = f->db ? wf_ledger_of(f->db) : 0;
  if (!h) *err = sqlite3_mprintf("nothing ships: %s", f->why ? f->why : "there is no ledger yet; PRAGMA walferry_status tells why");
  return h;
}

/* Why nothing will ship what this process waits for, NULL while something may: where
** it is broken another process may have gone on. */
static char *broken_here(struct wf_file *f) {
  const char *broken = atomic_load(&wf.broken);
  return broken && !wf_shipper_lives(f->db) ? sqlite3_mprintf("%s", broken) : 0;
}

/* Waits until the commits of a token are in the store: 1 yes, 0 not in time, -1
** with a text where it cannot be known or will not happen. */
int wf_wait(struct wf_file *f, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err) {
  struct wf_ledger *h = ledger_or_say(f, err);
  int64_t until = wf_now_ms() + timeout_ms;
  if (!h) return -1;
  for (;;) {
    uint64_t durable = load(&h->durable);
    int known = epoch == load(&h->epoch);
    if (known ? durable >= window : load(&h->compared_epoch) == load(&h->epoch)) return 1;
    if (is_stuck(__atomic_load_n(&h->state, __ATOMIC_SEQ_CST)) && (*err = cause_of(h, 0)) != 0) return -1;
    if ((*err = broken_here(f)) != 0) return -1;
    if (wf_now_ms() >= until) {
      if (known) return 0;
      *err = sqlite3_mprintf("unknown: the token is of before a restart of the machine or another ledger, "
                             "and the database has not been compared with the store since");
      return -1;
    }
    await_durable(h, durable);
  }
}

/* Asks for the window under way to be shipped at once. Returns it, and the number of the wish. */
static uint64_t wish(struct wf_db *db, struct wf_ledger *h, uint64_t *number) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  uint64_t want = load(&h->window), wanted = load(&h->sync_wanted);
  while (wanted < want && !__atomic_compare_exchange_n(&h->sync_wanted, &wanted, want, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  *number = __atomic_add_fetch(&h->wishes, 1, __ATOMIC_SEQ_CST);
  wf_poke(db);
  return want;
}

/* Has everything shipped that is committed. Returns 1, and the newest TXID; 0
** when the time is over; -1 with the cause. Of an attempt that had begun before
** the call only the success counts: what has made it fail may be over. */
int wf_ship_now(struct wf_file *f, int64_t timeout_ms, uint64_t *txid, char **err) {
  struct wf_ledger *h = ledger_or_say(f, err);
  int64_t begun = wf_now_ms(), again = AGAIN_MS;
  uint64_t epoch = 0, want = 0, number = 0;
  while (h) {
    if (epoch != load(&h->epoch)) { /* the first time, or the ledger was made new */
      epoch = load(&h->epoch);
      want = wish(f->db, h, &number);
    }
    uint64_t durable = load(&h->durable);
    if (durable >= want) {
      *txid = load(&h->txid);
      return 1;
    }
    int stuck = is_stuck(__atomic_load_n(&h->state, __ATOMIC_SEQ_CST));
    if ((stuck || load(&h->failed) >= number) && (*err = cause_of(h, !stuck)) != 0) return -1;
    if ((*err = broken_here(f)) != 0) return -1;
    int64_t waited = wf_now_ms() - begun;
    if (waited >= timeout_ms) return 0;
    if (waited >= again) {
      again = waited + AGAIN_MS; /* the poke may have failed, or who was woken have died of it */
      if (!wf_poke(f->db)) {
        *err = sqlite3_mprintf("the ledger cannot be written: %s", strerror(errno));
        return -1;
      }
    }
    if (waited >= NO_SHIPPER_MS && !wf_shipper_lives(f->db)) {
      *err = sqlite3_mprintf(atomic_load(&wf.forked)
                                 ? "no process ships this database: the one that did has ended, and this one is a forked child"
                                 : "no process ships this database; PRAGMA walferry_status tells why");
      return -1;
    }
    await_durable(h, durable);
    h = ledger_or_say(f, err);
  }
  return -1;
}

/* ---- PRAGMAs ----------------------------------------------------------- */

static char *status_here(struct wf_file *f) {
  if (f->handle && !atomic_load(&wf.forked)) return wf.hooks.status(f->handle);
  const char *why = f->why ? f->why : "not replicated";
  if (f->db && wf_ledger_of(f->db) && wf_shipper_lives(f->db)) {
    why = "this is a forked child: it marks, and the process that opened the database before the fork ships, or another "
          "one since; 'walferry status' reads its ledger";
  } else if (f->db) {
    why = "this is a forked child, and the process that opened the database before the fork has ended: nothing ships until a "
          "process that has not forked opens the database; what is committed here is marked for it";
  }
  sqlite3_str *s = sqlite3_str_new(0);
  sqlite3_str_appendf(s, "{\"state\":\"%s\",\"cause\":\"", f->db ? "child" : "off");
  for (; *why; why++) {
    unsigned char c = (unsigned char)*why;
    if (c == '"' || c == '\\') sqlite3_str_appendchar(s, 1, '\\');
    sqlite3_str_appendchar(s, 1, c < 0x20 ? ' ' : (char)c);
  }
  sqlite3_str_appendall(s, "\"}");
  return sqlite3_str_finish(s);
}

static int pragma_sync(struct wf_file *f, char **out) {
  uint64_t txid;
  char *err = 0;
  int rc = wf_ship_now(f, INT64_MAX / 2, &txid, &err);
  if (rc == 1) {
    *out = sqlite3_mprintf("%016llx", (sqlite3_uint64)txid);
    return SQLITE_OK;
  }
  *out = sqlite3_mprintf("walferry_sync: %z", err);
  return SQLITE_ERROR;
}

static int is_journal_mode(const char *value) {
  static const char *const modes[] = {"wal", "delete", "truncate", "persist", "memory", "off"};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    if (sqlite3_stricmp(value, modes[i]) == 0) return 1;
  }
  return 0;
}

/* A PRAGMA on this file: arg is {result, name, value}. SQLITE_NOTFOUND leaves it
** to SQLite. */
int wf_pragma(struct wf_file *f, char **arg) {
  const char *name = arg[1], *value = arg[2];
  if (sqlite3_stricmp(name, "walferry_status") == 0) {
    arg[0] = status_here(f);
    return arg[0] ? SQLITE_OK : SQLITE_NOMEM;
  }
  if (sqlite3_stricmp(name, "walferry_sync") == 0) return pragma_sync(f, &arg[0]);
  if (!f->db || f->reader || !value) return SQLITE_NOTFOUND;
  if (sqlite3_stricmp(name, "locking_mode") == 0 && sqlite3_stricmp(value, "exclusive") == 0) {
    arg[0] = sqlite3_mprintf("walferry: locking_mode=EXCLUSIVE would hide the WAL from replication; leave it at NORMAL, "
                             "or open the database without vfs=walferry");
    return SQLITE_ERROR;
  }
  if (sqlite3_stricmp(name, "journal_mode") == 0 && is_journal_mode(value)) {
    int other = sqlite3_stricmp(value, "wal") != 0;
    atomic_store(&f->db->explicit_mode, other);
    /* A connection that has not read since we switched the database believes that
    ** it is in its old mode still, and would leave it as it is. */
    if (other && !f->index && atomic_load(&f->db->auto_wal) && !atomic_load(&wf.forked)) wf_leave_wal(f);
  }
  return SQLITE_NOTFOUND;
}

/* ---- functions --------------------------------------------------------- */

/* The schema that the last argument names, main without one; NULL for NULL. */
static const char *schema_of(int argc, sqlite3_value **argv, int at) {
  return argc > at ? (const char *)sqlite3_value_text(argv[at]) : "main";
}

/* Its file. */
static struct wf_file *file_of(sqlite3_context *ctx, int argc, sqlite3_value **argv, int at) {
  struct wf_file *f = 0;
  const char *schema = schema_of(argc, argv, at);
  if (!schema || sqlite3_file_control(sqlite3_context_db_handle(ctx), schema, WF_FCNTL_FILE, &f) != SQLITE_OK || !f) {
    sqlite3_result_error(ctx, schema && wf_is_replica(sqlite3_context_db_handle(ctx), schema)
                                  ? "walferry: this is a replica, to which nobody commits: ask the database that ships to it"
                                  : "walferry: this database was not opened with vfs=walferry", -1);
    return 0;
  }
  return f;
}

static void result_error(sqlite3_context *ctx, char *err) {
  char *text = sqlite3_mprintf("walferry: %z", err);
  if (text) sqlite3_result_error(ctx, text, -1);
  else sqlite3_result_error_nomem(ctx);
  sqlite3_free(text);
}

/* walferry_token([schema]): covers everything that this connection has
** committed; with no commit of its own, everything that anybody has. */
static void f_token(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  char *err = 0, text[64];
  struct wf_file *f = file_of(ctx, argc, argv, 0);
  struct wf_ledger *h = f ? ledger_or_say(f, &err) : 0;
  if (!f) return;
  if (!h) {
    result_error(ctx, err);
    return;
  }
  uint64_t epoch = f->token_epoch, window = f->token_window;
  if (!window) {
    epoch = load(&h->epoch);
    window = load(&h->commit_window);
  }
  snprintf(text, sizeof text, "%012llx-%llu", (unsigned long long)epoch, (unsigned long long)window);
  sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
}

static int parse_token(const char *text, uint64_t *epoch, uint64_t *window) {
  char *end = 0;
  if (!text || strspn(text, "0123456789abcdef") != 12 || text[12] != '-') return 0;
  *epoch = strtoull(text, &end, 16);
  if (end != text + 12 || strspn(text + 13, "0123456789") == 0 || strlen(text + 13) > 20) return 0;
  *window = strtoull(text + 13, &end, 10);
  return *end == 0;
}

/* The file of the connection whose ledger a token is of, NULL if none is: it is
** of before, and then the schema tells. */
static struct wf_file *file_of_token(sqlite3 *db, uint64_t epoch) {
  const char *schema;
  for (int i = 0; (schema = sqlite3_db_name(db, i)) != 0; i++) {
    struct wf_file *f = 0;
    if (sqlite3_file_control(db, schema, WF_FCNTL_FILE, &f) != SQLITE_OK || !f) continue;
    struct wf_ledger *h = f->db ? wf_ledger_of(f->db) : 0;
    if (h && load(&h->epoch) == epoch) return f;
  }
  return 0;
}

/* walferry_wait(token, timeout_ms [, schema]): 1 once the token's commits are in
** the store, or can be read where the database is a replica; 0 when the time is over, an
** error where that cannot be known. */
static void f_wait(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  uint64_t epoch, window;
  char *err = 0;
  sqlite3 *db = sqlite3_context_db_handle(ctx);
  const char *schema = schema_of(argc, argv, 2);
  int is_replica = schema && wf_is_replica(db, schema);
  struct wf_file *f = is_replica ? 0 : file_of(ctx, argc, argv, 2);
  if (!f && !is_replica) return;
  if (!parse_token((const char *)sqlite3_value_text(argv[0]), &epoch, &window)) {
    sqlite3_result_error(ctx, "walferry: not a token of walferry_token()", -1);
    return;
  }
  int64_t timeout = sqlite3_value_int64(argv[1]);
  if (timeout < 0) timeout = 0;
  if (timeout > INT64_MAX / 4) timeout = INT64_MAX / 4;
  int rc;
  if (is_replica) {
    rc = wf_replica_wait(db, schema, epoch, window, timeout, &err);
  } else {
    struct wf_file *its = file_of_token(db, epoch);
    rc = wf_wait(its ? its : f, epoch, window, timeout, &err);
  }
  if (rc == -2) sqlite3_result_error_code(ctx, SQLITE_INTERRUPT);
  else if (rc < 0) result_error(ctx, err);
  else sqlite3_result_int(ctx, rc);
}

/* walferry_mark(name [, schema]): ships what is committed and names the newest
** object, whose TXID it returns. */
static void f_mark(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  char *err = 0, text[32];
  uint64_t txid = 0;
  struct wf_file *f = file_of(ctx, argc, argv, 1);
  if (!f) return;
  const char *name = (const char *)sqlite3_value_text(argv[0]);
  if (!name || strlen(name) != (size_t)sqlite3_value_bytes(argv[0])) {
    sqlite3_result_error(ctx, "walferry: a mark's name is a text", -1);
  } else if (atomic_load(&wf.forked)) {
    sqlite3_result_error(ctx, "walferry: a forked child cannot set a mark: set it in the process that opened the database before the fork", -1);
  } else if (!f->handle) {
    result_error(ctx, sqlite3_mprintf("nothing ships: %s", f->why ? f->why : "not replicated"));
  } else if (wf.hooks.mark(f->handle, (char *)name, &txid, &err) != SQLITE_OK) {
    result_error(ctx, err);
  } else {
    snprintf(text, sizeof text, "%016llx", (unsigned long long)txid);
    sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
  }
}

/* walferry_txid([schema]): the newest object in the store, NULL before the first; of a replica
** the state that is read. */
static void f_txid(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  char *err = 0, text[32];
  sqlite3 *db = sqlite3_context_db_handle(ctx);
  const char *schema = schema_of(argc, argv, 0);
  if (schema && wf_is_replica(db, schema)) {
    char *txid = wf_replica_txid(db, schema, &err);
    if (txid) sqlite3_result_text(ctx, txid, -1, sqlite3_free);
    else result_error(ctx, err);
    return;
  }
  struct wf_file *f = file_of(ctx, argc, argv, 0);
  struct wf_ledger *h = f ? ledger_or_say(f, &err) : 0;
  if (!f) return;
  uint64_t txid = h ? load(&h->txid) : 0;
  if (!h) {
    result_error(ctx, err);
  } else if (txid) {
    snprintf(text, sizeof text, "%016llx", (unsigned long long)txid);
    sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
  }
}

static void f_version(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  (void)argc;
  (void)argv;
  sqlite3_result_text(ctx, WF_VERSION, -1, SQLITE_STATIC);
}

/* Adds the functions to a connection. They work on files and wait, so no
** trigger or view may call them. */
int wf_functions(sqlite3 *db) {
  static const struct {
    const char *name;
    int args;
    void (*call)(sqlite3_context *, int, sqlite3_value **);
  } all[] = {{"walferry_token", 0, f_token}, {"walferry_token", 1, f_token},
             {"walferry_wait", 2, f_wait},   {"walferry_wait", 3, f_wait},
             {"walferry_txid", 0, f_txid},   {"walferry_txid", 1, f_txid},
             {"walferry_mark", 1, f_mark},   {"walferry_mark", 2, f_mark},
             {"walferry_version", 0, f_version}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    int rc = sqlite3_create_function_v2(db, all[i].name, all[i].args, SQLITE_UTF8 | SQLITE_DIRECTONLY, 0, all[i].call, 0, 0, 0);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}
