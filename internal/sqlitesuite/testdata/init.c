/* What SQLite calls at the end of each sqlite3_initialize (SQLITE_EXTRA_INIT): the
** tests shut it down and start it again, and then the list of VFSs is new. */
#ifdef WITH_WALFERRY
#include "walferry.h"
#include <stdio.h>

int sqlitesuite_init(const char *unused) {
  char *err = 0;
  int rc = walferry_register(&err);
  (void)unused;
  if (rc) fprintf(stderr, "walferry_register: %s\n", err ? err : "?");
  return rc;
}
#else
int sqlitesuite_init(const char *unused) {
  (void)unused;
  return 0;
}
#endif
