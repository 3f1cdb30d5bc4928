/*
** Stores into the mapped ledger, one at a time. Once the plan's step is over, the
** pages of all its mappings are made read-only; a store then faults, is counted,
** and is made with its page writable for one instruction. Where the machine
** cannot take single steps a page faults once per system call instead.
*/
#include "trap.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <fcntl.h>

/* The pages that a small database makes use of: the header, and of the first
** segment the bits and the first sums. */
static const uint64_t pages[] = {0, 1, 2, 3, 16, 17, 18, 19};
enum { PAGES = sizeof pages / sizeof *pages, PAGE = 4096, MOST = 1024 };

static const struct trap_action *action;
static char *guarded[MOST]; /* only ever appended: another thread may be looking */
static int guards, stores;
static __thread char *open_page;

static int is_guarded(const char *page) {
  int n = __atomic_load_n(&guards, __ATOMIC_ACQUIRE);
  for (int i = 0; i < n; i++) {
    if (guarded[i] == page) return 1;
  }
  return 0;
}

static void guard(char *page) {
  if (!is_guarded(page)) {
    if (guards == MOST) return;
    guarded[guards] = page;
    __atomic_store_n(&guards, guards + 1, __ATOMIC_RELEASE);
  }
  mprotect(page, PAGE, PROT_READ);
}

static void on_store(int sig, siginfo_t *info, void *context) {
  char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
  if (!is_guarded(page)) { /* an error of the program */
    signal(sig, SIG_DFL);
    return;
  }
  int n = __atomic_add_fetch(&stores, 1, __ATOMIC_SEQ_CST);
  if (n == action->m) trap_die(TRAP_STORE, TRAP_LEDGER, n, TRAP_BEFORE);
  mprotect(page, PAGE, PROT_READ | PROT_WRITE);
#ifdef __x86_64__
  open_page = page;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= 0x100;
#else
  (void)context;
#endif
}

#ifdef __x86_64__
static void on_stepped(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)info;
  if (open_page && is_guarded(open_page)) mprotect(open_page, PAGE, PROT_READ);
  open_page = 0;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
}
#endif

void trap_ledger_begin(void) {
  struct sigaction a = {.sa_sigaction = on_store, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  for (int i = 0; i < trap_plan.actions; i++) {
    if (trap_plan.action[i].kind == TRAP_STORE) action = &trap_plan.action[i];
  }
  if (!action) return;
  sigfillset(&a.sa_mask);
  sigaction(SIGSEGV, &a, 0);
#ifdef __x86_64__
  a.sa_sigaction = on_stepped;
  sigaction(SIGTRAP, &a, 0);
#endif
}

/* After each step: mappings come and go. */
void trap_ledger_step(int total) {
  static char text[1 << 17];
  char name[sizeof trap_plan.db + 8], *at;
  if (!action || total < action->n) return;
  snprintf(name, sizeof name, "%s-ledger", trap_plan.db);
  int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  size_t n = 0;
  for (ssize_t k; n < sizeof text - 1 && (k = read(fd, text + n, sizeof text - 1 - n)) > 0;) n += (size_t)k;
  close(fd);
  text[n] = 0;
  for (char *line = strtok_r(text, "\n", &at); line; line = strtok_r(0, "\n", &at)) {
    unsigned long from, to, off;
    int path = 0;
    if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &from, &to, &off, &path) < 3 || !path || strcmp(line + path, name) != 0) continue;
    for (int i = 0; i < PAGES; i++) {
      uint64_t want = pages[i] * PAGE;
      if (want >= off && want < off + (to - from)) guard((char *)from + (want - off));
    }
  }
}

/* Reads the pages of the ledger's file; changed tells whether one is another than
** when it was read last. */
int trap_ledger_pages(int fd, char *page, void (*each)(uint64_t off, const char *page, int changed)) {
  static char last[PAGES][PAGE];
  for (int i = 0; i < PAGES; i++) {
    uint64_t off = pages[i] * PAGE;
    if (pread(fd, page, PAGE, (off_t)off) != PAGE) return i;
    int changed = memcmp(page, last[i], PAGE) != 0;
    if (changed) memcpy(last[i], page, PAGE);
    each(off, page, changed);
  }
  return PAGES;
}
