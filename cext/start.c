/*
** Starting Go, in a process that is not a Go program: not where the library is
** loaded but where a replicated database is first opened.
**
** A process that loads it and then forks, as servers do that load an application
** before they start their workers, must not have Go running when it forks: of Go's
** threads none is in the child. Started by the first open, Go begins in each worker
** anew. It also sees the environment of that moment, with what the program has set,
** which a runtime that starts with the library does not.
**
** The linker puts the start of Go's runtime into the library's constructors. The
** Makefile takes it out of there and names it wf_go_entry.
*/
#include "wf.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* NULL in a Go program, and in a library that starts Go when it is loaded. */
extern void wf_go_entry(int argc, char **argv) __attribute__((weak));

/* Go's side, in cext.go. The first waits for Go's runtime; errors are from
** sqlite3_malloc. */
extern int walferryGoReady(char **err);
extern int walferryGoCheck(char *path, char *params, char **err);
extern int walferryGoOpen(char *path, char *params, struct wf_opened *out, char **err);
extern void walferryGoLast(uint64_t handle);
extern void walferryGoClose(uint64_t handle);
extern char *walferryGoStatus(uint64_t handle);
extern int walferryGoMark(uint64_t handle, char *name, uint64_t *txid, char **err);
extern void walferryGoExit(void);
extern int walferryGoReplicaStart(char **err);
extern int walferryGoReplicaPragma(uint64_t handle, char *name, char *value, char **out);
extern int walferryGoReplicaWait(uint64_t handle, uint64_t epoch, uint64_t window, int64_t timeout_ms, char **err);

extern char **environ;

/* The block that the kernel gives a process, as Go's runtime expects it: arguments,
** environment, and an auxiliary vector that is empty, so that the runtime asks
** the kernel for it. Its strings are the runtime's for ever. */
static char **process_block(void) {
  static char *none[] = {0};
  char **env = environ ? environ : none;
  size_t n = 0, bytes = strlen(program_invocation_name) + 1;
  for (; env[n]; n++) bytes += strlen(env[n]) + 1;
  char **block = calloc(1, (n + 5) * sizeof *block + bytes); /* in one piece, which is there or not */
  if (!block) return 0;
  char *at = (char *)(block + n + 5);
  block[0] = strcpy(at, program_invocation_name);
  for (size_t i = 0; i < n; i++) {
    at += strlen(at) + 1;
    block[2 + i] = strcpy(at, env[i]);
  }
  return block;
}

static int begin(char **err) {
  if (wf_go_entry) {
    char **block = process_block();
    if (!block) {
      if (err) *err = sqlite3_mprintf("out of memory before Go could be started");
      return SQLITE_NOMEM;
    }
    atomic_store(&wf.go, WF_GO_BEGUN);
    wf_go_entry(1, block);
  }
  atomic_store(&wf.go, WF_GO_BEGUN);
  int rc = walferryGoReady(err);
  if (rc != SQLITE_OK) return rc;
  wf.hooks = (struct wf_hooks){walferryGoCheck,  walferryGoOpen, walferryGoLast, walferryGoClose,
                               walferryGoStatus, walferryGoMark, walferryGoExit,
                               walferryGoReplicaStart, walferryGoReplicaPragma, walferryGoReplicaWait};
  atomic_store(&wf.go, WF_GO_RUNS);
  return SQLITE_OK;
}

/* Whether Go starts with the first open, not with the program or the library. */
int wf_go_is_deferred(void) { return wf_go_entry != 0; }

/* Starts Go, once in a process. Never called in the child of one in which Go has
** begun. Returns an SQLite code. */
int wf_go(char **err) {
  static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
  int rc = SQLITE_OK;
  if (atomic_load(&wf.go) == WF_GO_RUNS) return SQLITE_OK;
  pthread_mutex_lock(&mu);
  if (atomic_load(&wf.go) == WF_GO_NONE) rc = begin(err);
  else if (atomic_load(&wf.go) != WF_GO_RUNS) {
    if (err) *err = sqlite3_mprintf("Go could not be started in this process");
    rc = SQLITE_ERROR;
  }
  pthread_mutex_unlock(&mu);
  return rc;
}
