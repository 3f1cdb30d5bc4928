/*
** Forks a hundred times while walferry ships, and looks in the middle of each fork
** whether this process holds a read mark of the wal-index: its own connection
** is idle then, so such a lock is that of a reader of walferry's.
**
**   forker EXTENSION URI
**
** The handler is registered before the extension is loaded. Such handlers run in
** the opposite order, so it sees what walferry's own has left.
*/
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 100, READ_MARKS = 123, READ_MARKS_END = 127 };

static int held;
static char locks[65536];

static void look(void) {
  int fd = open("/proc/locks", O_RDONLY);
  size_t n = 0;
  ssize_t got;
  while (fd >= 0 && n < sizeof locks - 1 && (got = read(fd, locks + n, sizeof locks - 1 - n)) > 0) n += (size_t)got;
  close(fd);
  locks[n] = 0;
  for (char *line = locks, *next; line && *line; line = next) {
    int pid;
    long long first, last;
    next = strchr(line, '\n');
    if (next) *next++ = 0;
    if (sscanf(line, "%*d: POSIX %*s %*s %d %*s %lld %lld", &pid, &first, &last) == 3 && pid == getpid() &&
        first <= READ_MARKS_END && last >= READ_MARKS) {
      held++;
      fprintf(stderr, "held at fork: %s\n", line);
    }
  }
}

static sqlite3 *db;

static void must(const char *sql) {
  char *err = 0;
  if (sqlite3_exec(db, sql, 0, 0, &err) != SQLITE_OK) {
    fprintf(stderr, "%s: %s\n", sql, err);
    exit(1);
  }
}

int main(int argc, char **argv) {
  char *err = 0;
  if (argc != 3) return 2;
  pthread_atfork(look, 0, 0);
  sqlite3_config(SQLITE_CONFIG_URI, 1);
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, argv[1], 0, &err) != SQLITE_OK) {
    fprintf(stderr, "load: %s\n", err);
    return 1;
  }
  sqlite3_close(db);
  if (sqlite3_open(argv[2], &db) != SQLITE_OK) return 1;
  must("CREATE TABLE t(v); INSERT INTO t VALUES(zeroblob(4000000))");
  for (int i = 0; i < ROUNDS; i++) {
    int status;
    must("UPDATE t SET v = randomblob(4000000)");
    usleep((useconds_t)(i % 20) * 1000); /* another moment of the window each time */
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) return 1;
  }
  sqlite3_close(db);
  return held ? 1 : 0;
}
