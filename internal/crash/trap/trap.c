/*
** Steps are system calls. A seccomp filter turns those that change a file, and
** those that lock one, into SIGSYS; the handler looks which file it is, counts,
** and makes the call itself, unless the plan says that the process ends here. So
** every step of SQLite, of the shim below it and of Go is met in one place, and
** nothing of what is tested knows of it.
**
** With a trace each call that changes the database, its WAL, its journal or its
** ledger is also written down, in the order in which all processes made them: a
** lock on the trace is held while the call is. Calls that sync are written down
** and not made. What a power cut could have left is then a matter of choosing
** (cut_test.go).
**
** The calls of the handler itself carry a number as their sixth argument, which
** none of them has, and the filter lets those pass.
*/
#include "trap.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#define PASS 0x57414c46

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define ARG(u, i) ((long)(u)->uc_mcontext.gregs[(const int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8}[i]])
#define RESULT(u) ((u)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#define ARG(u, i) ((long)(u)->uc_mcontext.regs[i])
#define RESULT(u) ((u)->uc_mcontext.regs[0])
#endif

struct trap_plan trap_plan;
static int count[TRAP_KINDS][TRAP_FILES], total, trace = -1;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

static long pass(long nr, long a, long b, long c, long d, long e) {
  long r = syscall(nr, a, b, c, d, e, PASS);
  return r < 0 ? -errno : r;
}

static void say(const char *text) { pass(SYS_write, 1, (long)text, (long)strlen(text), 0, 0); }

void trap_die(int kind, int file, int n, int how) {
  char line[64];
  snprintf(line, sizeof line, "killed %d %d %d %d\n", kind, file, n, how);
  say(line);
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* ---- which file -------------------------------------------------------- */

static int classify(const char *path) {
  static const char *const suffix[] = {"", "-wal", "-journal", "-shm", "-ledger"};
  size_t n = strlen(trap_plan.db), m = strlen(trap_plan.replica);
  if (strncmp(path, trap_plan.replica, m) == 0) return TRAP_REPLICA;
  if (strncmp(path, trap_plan.db, n) == 0) {
    for (int i = 0; i < TRAP_DIR; i++) {
      if (i < TRAP_REPLICA && strcmp(path + n, suffix[i]) == 0) return i;
    }
    return TRAP_FILES;
  }
  size_t dir = (size_t)(strrchr(trap_plan.db, '/') - trap_plan.db);
  return strlen(path) == dir && strncmp(path, trap_plan.db, dir) == 0 ? TRAP_DIR : TRAP_FILES;
}

static int file_of(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return TRAP_FILES;
  path[n] = 0;
  return classify(path);
}

/* ---- the trace --------------------------------------------------------- */

static void trace_lock(int type) {
  struct flock l = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  while (pass(SYS_fcntl, trace, F_OFD_SETLKW, (long)&l, 0, 0) == -EINTR) {
  }
}

static void put(int type, int file, uint64_t ino, uint64_t off, const void *data, uint64_t len) {
  struct trace_record r = {TRACE_MAGIC, (uint32_t)type, (uint32_t)file, ino, off, len};
  struct iovec v[] = {{&r, sizeof r}, {(void *)data, data ? len : 0}};
  pass(SYS_writev, trace, (long)v, 2, 0, 0);
}

static uint64_t ino_of(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static int ledger_all;

static void put_ledger(uint64_t off, const char *page, int changed) {
  if (changed || ledger_all) put(TRACE_LEDGER, TRAP_LEDGER, 0, off, page, 4096);
}

/* What the ledger is at this moment; with all even what is as it was. */
static void trace_ledger(int all) {
  static char page[4096];
  char name[sizeof trap_plan.db + 8];
  snprintf(name, sizeof name, "%s-ledger", trap_plan.db);
  int fd = (int)pass(SYS_openat, AT_FDCWD, (long)name, O_RDONLY | O_CLOEXEC, 0, 0);
  if (fd < 0) return;
  ledger_all = all;
  trap_ledger_pages(fd, page, put_ledger);
  close(fd);
}

/* ---- one step ---------------------------------------------------------- */

struct step {
  long nr, arg[5];
  int kind, file;
  const char *path; /* of TRAP_OPEN, TRAP_UNLINK, TRAP_LINK */
};

static int locks(long type) { return ((struct flock *)type)->l_type == F_UNLCK ? TRAP_UNLOCK : TRAP_LOCK; }

static void recognise(struct step *s) {
  s->kind = TRAP_KINDS;
  switch (s->nr) {
    case SYS_openat: s->kind = TRAP_OPEN; s->path = (const char *)s->arg[1]; break;
    case SYS_write: case SYS_pwrite64: s->kind = TRAP_WRITE; break;
    case SYS_ftruncate: case SYS_fallocate: s->kind = TRAP_SIZE; break;
    case SYS_fsync: case SYS_fdatasync: s->kind = TRAP_SYNC; break;
    case SYS_unlinkat: s->kind = TRAP_UNLINK; s->path = (const char *)s->arg[1]; break;
    case SYS_linkat: s->kind = TRAP_LINK; s->path = (const char *)s->arg[3]; break;
    case SYS_fcntl: s->kind = locks(s->arg[2]); break;
#ifdef SYS_unlink
    case SYS_unlink: s->kind = TRAP_UNLINK; s->path = (const char *)s->arg[0]; break;
    case SYS_open: s->kind = TRAP_OPEN; s->path = (const char *)s->arg[0]; break;
#endif
  }
  s->file = s->path ? classify(s->path) : file_of((int)s->arg[0]);
}

/* Makes the call. A kill between its record and itself is one after it, and
** nothing of it was synced. */
static long make(const struct step *s, int half) {
  long len = s->kind == TRAP_WRITE ? s->arg[2] : 0;
  if (half) len /= 2;
  int traced = trace >= 0 && (s->file <= TRAP_JOURNAL || s->file == TRAP_LEDGER || s->file == TRAP_DIR);
  if (!traced) {
    if (s->kind == TRAP_SYNC) return 0;
    return pass(s->nr, s->arg[0], s->arg[1], s->kind == TRAP_WRITE ? len : s->arg[2], s->arg[3], s->arg[4]);
  }
  long r = 0;
  struct stat st;
  int is_new = s->kind == TRAP_OPEN && stat(s->path, &st) != 0;
  switch (s->kind) {
    case TRAP_SYNC:
      if (s->file == TRAP_LEDGER) trace_ledger(1);
      put(s->file == TRAP_DIR ? TRACE_DIRSYNC : TRACE_SYNC, s->file, ino_of((int)s->arg[0]), 0, 0, 0);
      return 0;
    case TRAP_WRITE: /* SQLite writes at an offset; only a poke does so to a ledger, and nobody reads it */
      if (s->file != TRAP_LEDGER) put(TRACE_WRITE, s->file, ino_of((int)s->arg[0]), (uint64_t)s->arg[3], (void *)s->arg[1], (uint64_t)len);
      return pass(s->nr, s->arg[0], s->arg[1], len, s->arg[3], 0);
    case TRAP_SIZE:
      if (s->nr == SYS_ftruncate) put(TRACE_CUT, s->file, ino_of((int)s->arg[0]), (uint64_t)s->arg[1], 0, 0);
      else put(TRACE_EXTEND, s->file, ino_of((int)s->arg[0]), (uint64_t)(s->arg[2] + s->arg[3]), 0, 0);
      break;
    case TRAP_UNLINK: put(TRACE_DELETE, s->file, stat(s->path, &st) == 0 ? st.st_ino : 0, 0, 0, 0); break;
  }
  r = pass(s->nr, s->arg[0], s->arg[1], s->arg[2], s->arg[3], s->arg[4]);
  if (is_new && r >= 0) put(TRACE_CREATE, s->file, ino_of((int)r), 0, 0, 0);
  return r;
}

/* What the plan has for this step, or NULL. */
static const struct trap_action *planned(const struct step *s, int n) {
  for (int i = 0; i < trap_plan.actions; i++) {
    const struct trap_action *a = &trap_plan.action[i];
    if (a->kind == TRAP_ANY ? a->n == total : a->kind == s->kind && a->file == s->file && a->n == n) return a;
  }
  return 0;
}

static long take(const struct step *s) {
  pthread_mutex_lock(&mu);
  int n = ++count[s->kind][s->file];
  total++;
  const struct trap_action *a = planned(s, n);
  if (a && a->how == TRAP_STOP) {
    pthread_mutex_unlock(&mu);
    say("stopped\n");
    kill(getpid(), SIGSTOP);
    pthread_mutex_lock(&mu);
    a = 0;
  }
  if (trace >= 0) {
    trace_lock(F_WRLCK);
    trace_ledger(0);
  }
  if (a && a->how == TRAP_BEFORE) trap_die(s->kind, s->file, n, a->how);
  long r = make(s, a && a->how == TRAP_HALF);
  if (a) trap_die(s->kind, s->file, n, a->how);
  if (trace >= 0) trace_lock(F_UNLCK);
  trap_ledger_step(total);
  pthread_mutex_unlock(&mu);
  return r;
}

static void on_call(int sig, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  int saved = errno;
  struct step s = {.nr = info->si_syscall};
  (void)sig;
  for (int i = 0; i < 5; i++) s.arg[i] = ARG(u, i);
  recognise(&s);
  RESULT(u) = s.file == TRAP_FILES || s.kind == TRAP_KINDS
                  ? pass(s.nr, s.arg[0], s.arg[1], s.arg[2], s.arg[3], s.arg[4])
                  : take(&s);
  errno = saved;
}

/* ---- the filter -------------------------------------------------------- */

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define HAS(bits, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), (yes), (no))
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, (what))
/* A call that is watched if the argument's test holds. */
#define WATCH(nr) IS(nr, 0, 4), LOAD(args[5]), IS(PASS, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_TRAP)
#define CREATES(nr, flags) IS(nr, 0, 6), LOAD(args[5]), IS(PASS, 0, 1), ANSWER(SECCOMP_RET_ALLOW), \
    LOAD(args[flags]), HAS(O_CREAT | __O_TMPFILE, 0, 1), ANSWER(SECCOMP_RET_TRAP)

static int filter(void) {
  struct sock_filter code[] = {
      LOAD(arch), IS(ARCH, 1, 0), ANSWER(SECCOMP_RET_ALLOW),
      LOAD(nr),
      WATCH(SYS_write), WATCH(SYS_pwrite64), WATCH(SYS_ftruncate), WATCH(SYS_fallocate), WATCH(SYS_fsync),
      WATCH(SYS_fdatasync), WATCH(SYS_unlinkat), WATCH(SYS_linkat),
#ifdef SYS_unlink
      WATCH(SYS_unlink), CREATES(SYS_open, 1), LOAD(nr),
#endif
      CREATES(SYS_openat, 2), LOAD(nr),
      IS(SYS_fcntl, 1, 0), ANSWER(SECCOMP_RET_ALLOW),
      LOAD(args[5]), IS(PASS, 0, 1), ANSWER(SECCOMP_RET_ALLOW),
      LOAD(args[1]), IS(F_SETLK, 1, 0), IS(F_OFD_SETLK, 0, 1), ANSWER(SECCOMP_RET_TRAP),
      ANSWER(SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0 ? errno : 0;
}

int trap_begin(const struct trap_plan *plan) {
  struct sigaction a = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  trap_plan = *plan;
  sigfillset(&a.sa_mask);
  sigdelset(&a.sa_mask, SIGSEGV);
  if (plan->trace[0] && (trace = open(plan->trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0) return errno;
  if (sigaction(SIGSYS, &a, 0) != 0) return errno;
  trap_ledger_begin();
  return filter();
}

int trap_count(int kind, int file) { return count[kind][file]; }
