/*
** One line to stderr and to sqlite3_log, never to stdout.
*/
#include "wf.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void wf_log_text(int level, const char *text) {
  char line[2048];
  if (level > atomic_load(&wf.log_level)) return;
  int n = snprintf(line, sizeof line, "walferry: %s\n", text);
  if (n >= (int)sizeof line) {
    n = sizeof line - 1;
    line[n - 1] = '\n';
  }
  /* One write, so that lines of several processes do not mix. */
  if (write(STDERR_FILENO, line, (size_t)n) < 0) {
    /* There is nobody left to tell. */
  }
  sqlite3_log(level == WF_LOG_ERROR ? SQLITE_WARNING : SQLITE_NOTICE, "walferry: %s", text);
}

void wf_log(int level, const char *format, ...) {
  char text[2000];
  va_list args;
  if (level > atomic_load(&wf.log_level)) return;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  wf_log_text(level, text);
}
