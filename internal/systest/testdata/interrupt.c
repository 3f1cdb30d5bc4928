/*
** Interrupts queries of a replica from another thread.
**
**   interrupt EXTENSION URI
**
** Reads lines from its standard input: "query SQL" is answered by a line with the result code, its
** name and the first value; "attach URI" the same; "interrupt" by "interrupted", at any time.
*/
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sqlite3 *db;

static void *query(void *sql) {
  sqlite3_stmt *s = 0;
  char value[200] = "";
  int rc = sqlite3_prepare_v2(db, sql, -1, &s, 0);
  while (rc == SQLITE_OK || rc == SQLITE_ROW) {
    rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) snprintf(value, sizeof value, "%s", (const char *)sqlite3_column_text(s, 0));
  }
  if (rc == SQLITE_DONE) rc = SQLITE_OK;
  sqlite3_finalize(s);
  printf("answer %d %s %s\n", rc, sqlite3_errstr(rc), value);
  fflush(stdout);
  free(sql);
  return 0;
}

int main(int argc, char **argv) {
  char line[4096], *err = 0;
  pthread_t thread;
  int running = 0;
  if (argc != 3 || sqlite3_config(SQLITE_CONFIG_SERIALIZED) != SQLITE_OK) return 2;
  if (sqlite3_open(":memory:", &db) != SQLITE_OK || sqlite3_enable_load_extension(db, 1) != SQLITE_OK) return 2;
  if (sqlite3_load_extension(db, argv[1], 0, &err) != SQLITE_OK) {
    fprintf(stderr, "%s\n", err);
    return 2;
  }
  sqlite3_close(db);
  int rc = sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, 0);
  printf("opened %d\n", rc);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "query ", 6)) {
      if (running) pthread_join(thread, 0);
      running = !pthread_create(&thread, 0, query, strdup(line + 6));
    } else if (!strcmp(line, "interrupt")) {
      sqlite3_interrupt(db);
      puts("interrupted");
      fflush(stdout);
    }
  }
  if (running) pthread_join(thread, 0);
  return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
