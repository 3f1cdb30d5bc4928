/*
** Ways in: the entry point of the loadable extension, and the one call of
** programs that link walferry.
*/
#include "wf.h"
#include "walferry.h"
#include <stdlib.h>
#include <string.h>

/* Everything else is hidden (-fvisibility, cmd/loadable/walferry.map): a host may
** have symbols of the same names. */
#define PUBLIC __attribute__((visibility("default")))

#ifdef SQLITE3VFS_LOADABLE_EXT
/* Every other file declares it. Weak, since psanford/sqlite3vfs has one of that name too. */
__attribute__((weak)) const sqlite3_api_routines *sqlite3_api = 0;
#endif

static void at_exit(void) {
  if (!atomic_load(&wf.forked) && wf.hooks.exit) wf.hooks.exit();
}

/* Every connection that opens from now on gets the functions. It must never
** make an open fail, whatever is wrong here. */
static int auto_extension(sqlite3 *db, char **err, const struct sqlite3_api_routines *api) {
  (void)err;
  (void)api;
  (void)wf_functions(db);
  return SQLITE_OK;
}

/* SQLite 3.7.0 to 3.51.2 can lose commits when a checkpoint meets a restart of
** the WAL; it was mended in 3.51.3, 3.50.7 and 3.44.6. */
static int has_wal_reset_bug(int version) {
  if (version >= 3051003 || version < 3007000) return 0;
  if (version >= 3050007 && version < 3051000) return 0;
  return !(version >= 3044006 && version < 3045000);
}

static void fail(char **err, char *text) {
  if (err) *err = text;
  else sqlite3_free(text);
}

static int is_one_of(const char *value, const char *a, const char *b, const char *c, const char *d) {
  return sqlite3_stricmp(value, a) == 0 || sqlite3_stricmp(value, b) == 0 || sqlite3_stricmp(value, c) == 0 ||
         sqlite3_stricmp(value, d) == 0;
}

/* The variables that are for the whole process; vfs/options.go has the others, and
** these two once more. A value that is wrong is refused here as it is there. */
static int from_environment(int *make_default, char **err) {
  static const char *const levels[] = {"off", "error", "info", "debug"}; /* as WF_LOG_OFF... */
  const char *log = getenv("WALFERRY_LOG"), *is_default = getenv("WALFERRY_DEFAULT"), *replica = getenv("WALFERRY_REPLICA");
  if (log && *log) {
    int level = 0;
    while (level < 4 && strcmp(log, levels[level]) != 0) level++;
    if (level == 4) {
      fail(err, sqlite3_mprintf("walferry: environment WALFERRY_LOG=\"%s\": allowed is off, error, info, debug", log));
      return SQLITE_ERROR;
    }
    atomic_store(&wf.log_level, level);
  }
  if (is_default && *is_default) {
    int on = is_one_of(is_default, "1", "on", "yes", "true");
    if (!on && !is_one_of(is_default, "0", "off", "no", "false")) {
      fail(err, sqlite3_mprintf("walferry: environment WALFERRY_DEFAULT=\"%s\": allowed is 0 or 1", is_default));
      return SQLITE_ERROR;
    }
    if (on && !(replica && *replica)) {
      fail(err, sqlite3_mprintf("walferry: walferry cannot be the default VFS without a replica: set WALFERRY_REPLICA, "
                                "for example to file:///backup/{name}"));
      return SQLITE_ERROR;
    }
    *make_default |= on;
  }
  return SQLITE_OK;
}

static int start(int make_default, int is_go_program, char **err) {
  static atomic_int once;
  int rc;
  if (sqlite3_libversion_number() < WF_MIN_SQLITE) {
    fail(err, sqlite3_mprintf("walferry needs SQLite " WF_MIN_SQLITE_TEXT " or newer, and this is %s", sqlite3_libversion()));
    return SQLITE_ERROR;
  }
  if (!sqlite3_threadsafe()) {
    fail(err, sqlite3_mprintf("walferry needs an SQLite that was built with threads (SQLITE_THREADSAFE=1 or 2)"));
    return SQLITE_ERROR;
  }
  rc = from_environment(&make_default, err);
  if (rc == SQLITE_OK && !wf_go_is_deferred()) rc = wf_go(err);
  if (rc == SQLITE_OK) rc = wf_register(make_default, err);
  if (rc != SQLITE_OK) return rc;
  rc = sqlite3_auto_extension((void (*)(void))auto_extension);
  if (rc == SQLITE_OK && !atomic_exchange(&once, 1)) {
    /* A Go program runs no handlers of exit(3), save under the race detector, which
    ** runs them while Go holds a lock of its scheduler's. */
    if (!is_go_program) atexit(at_exit);
    if (has_wal_reset_bug(sqlite3_libversion_number())) {
      wf_log(WF_LOG_ERROR, "warning: SQLite %s has the WAL-reset bug, which can lose commits when two connections write and "
             "checkpoint at the same moment; connections through walferry are kept from it, others need 3.51.3, 3.50.7 or 3.44.6", sqlite3_libversion());
    }
  }
  return rc;
}

#ifdef SQLITE3VFS_LOADABLE_EXT

PUBLIC int sqlite3_walferry_init(sqlite3 *db, char **err, const sqlite3_api_routines *api) {
  if (sqlite3_api && sqlite3_api != api) {
    fail(err, api->mprintf("walferry: another SQLite library in this process has loaded this extension already"));
    return SQLITE_ERROR;
  }
  SQLITE_EXTENSION_INIT2(api);
  int rc = start(0, 0, err);
  if (rc == SQLITE_OK && db) rc = wf_functions(db);
  return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}

#endif

PUBLIC int walferry_register(char **err) { return start(0, 0, err); }

int wf_start(int make_default, char **err) { return start(make_default, 1, err); }

PUBLIC const char *walferry_version(void) { return WF_VERSION; }
