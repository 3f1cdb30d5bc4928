/* The program of walferry.h's comment, with some rows. */
#include <sqlite3.h>
#include <stdio.h>
#include <walferry.h>

static int print(void *arg, int n, char **values, char **names) {
  (void)arg;
  (void)names;
  for (int i = 0; i < n; i++) puts(values[i]);
  return 0;
}

int main(int argc, char **argv) {
  sqlite3 *db;
  char *err = 0;
  if (argc != 2) return 2;
  if (walferry_register(&err) != SQLITE_OK || walferry_register(0) != SQLITE_OK) {
    fprintf(stderr, "register: %s\n", err);
    return 1;
  }
  puts(walferry_version());
  int rc = sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "walferry");
  if (rc == SQLITE_OK) {
    rc = sqlite3_exec(db,
                      "CREATE TABLE t(v); INSERT INTO t VALUES('first');"
                      "SELECT walferry_wait(walferry_token(), 30000);"
                      "INSERT INTO t VALUES('last')",
                      print, 0, &err);
  }
  if (rc != SQLITE_OK) fprintf(stderr, "%s: %s\n", sqlite3_errmsg(db), err ? err : "");
  sqlite3_free(err);
  return sqlite3_close(db) == SQLITE_OK && rc == SQLITE_OK ? 0 : 1;
}
