/*
** A process that ends, or stands still, at a chosen step. trap.c tells how.
*/
#ifndef WALFERRY_TRAP_H
#define WALFERRY_TRAP_H

#include <stddef.h>
#include <stdint.h>

/* What a step does, and to which file; trap.go has the names. */
enum trap_kind { TRAP_OPEN, TRAP_WRITE, TRAP_SIZE, TRAP_SYNC, TRAP_UNLINK, TRAP_LINK, TRAP_LOCK, TRAP_UNLOCK, TRAP_KINDS,
                 TRAP_ANY = TRAP_KINDS, /* whatever it does */
                 TRAP_STORE };          /* a store into the mapped ledger */
enum trap_file { TRAP_DB, TRAP_WAL, TRAP_JOURNAL, TRAP_SHM, TRAP_LEDGER, TRAP_REPLICA, TRAP_DIR, TRAP_FILES };
enum trap_how { TRAP_BEFORE, TRAP_HALF, TRAP_AFTER, TRAP_STOP };

/* At the n-th step of that kind and file. For TRAP_STORE: at store number m after
** step n of whatever kind. */
struct trap_action { int kind, file, n, m, how; };
#define TRAP_ACTIONS 4

struct trap_plan {
  char db[512], replica[512]; /* absolute paths */
  char trace[512];            /* file that the steps are written to; empty: none */
  int actions;
  struct trap_action action[TRAP_ACTIONS];
};

/* Records of the trace, each with len bytes behind it if it is TRACE_WRITE or
** TRACE_LEDGER. A process that is killed from outside may leave a part of one, and others
** go on behind it: so each begins with the magic. */
#define TRACE_MAGIC 0x6543415254a5c39dull
enum { TRACE_CREATE = 1, TRACE_WRITE, TRACE_CUT, TRACE_EXTEND, TRACE_SYNC, TRACE_DELETE, TRACE_DIRSYNC, TRACE_LEDGER };
struct trace_record { uint64_t magic; uint32_t type, file; uint64_t ino, off, len; };

/* From here on the whole process is watched. 0, or an errno. */
int trap_begin(const struct trap_plan *plan);

/* How often a step was met. */
int trap_count(int kind, int file);

/* trap.c, for ledger.c */
extern struct trap_plan trap_plan;
void trap_die(int kind, int file, int n, int how);

/* ledger.c */
void trap_ledger_begin(void);
void trap_ledger_step(int total);
int trap_ledger_pages(int fd, char *page, void (*each)(uint64_t off, const char *page, int changed));

#endif
