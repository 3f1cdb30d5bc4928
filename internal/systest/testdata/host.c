/*
** Calls the entry point of the extension with its own hands.
**
**   host EXTENSION [VERSION]
**
** With VERSION the routines that it hands over say that they are of that SQLite.
** Prints the code that the entry point returned, and its message.
*/
#include <dlfcn.h>
#include <sqlite3.h>
#include <sqlite3ext.h>
#include <stdio.h>
#include <stdlib.h>

/* sqlite3ext.h renames the functions; this program links them. */
#undef sqlite3_auto_extension
#undef sqlite3_close
#undef sqlite3_open
#undef sqlite3_free

typedef int (*entry)(sqlite3 *, char **, const sqlite3_api_routines *);

static sqlite3_api_routines routines;
static const char *version;
static int number;

/* SQLite gives its routines to those extensions only that it calls itself. */
static int take_routines(sqlite3 *db, const char **err, const struct sqlite3_api_routines *api) {
  (void)db;
  (void)err;
  routines = *api;
  return SQLITE_OK;
}

static const char *say_version(void) { return version; }
static int say_number(void) { return number; }

int main(int argc, char **argv) {
  sqlite3 *db;
  char *err = 0;
  int major, minor, patch;
  if (argc < 2) return 2;
  sqlite3_auto_extension((void (*)(void))take_routines);
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
  if (argc > 2 && sscanf(argv[2], "%d.%d.%d", &major, &minor, &patch) == 3) {
    version = argv[2];
    number = major * 1000000 + minor * 1000 + patch;
    routines.libversion = say_version;
    routines.libversion_number = say_number;
  }
  void *so = dlopen(argv[1], RTLD_NOW);
  entry init = so ? (entry)dlsym(so, "sqlite3_walferry_init") : 0;
  if (!init) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  int first = init(db, 0, &routines); /* nowhere to put a message */
  int again = init(db, &err, &routines);
  if (first != again) {
    fprintf(stderr, "returned %d and then %d\n", first, again);
    return 1;
  }
  printf("%d %s\n", first, err ? err : "");
  sqlite3_free(err);
  sqlite3_close(db);
  return 0;
}
