/*
** walferry: a SQLite VFS that replicates a database to object storage.
**
**   #include <sqlite3.h>
**   #include <walferry.h>
**
**   char *err = 0;
**   if (walferry_register(&err) != SQLITE_OK) { ... err ...; sqlite3_free(err); }
**   sqlite3_open_v2("file:app.db?replica=s3://bucket/app", &db,
**                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "walferry");
**
** Link with pkg-config --libs walferry, which brings the program's own -lsqlite3.
*/
#ifndef WALFERRY_H
#define WALFERRY_H

#ifdef __cplusplus
extern "C" {
#endif

/*
** Registers the VFS "walferry", over the default VFS, and its SQL functions for
** connections that are opened from now on. With WALFERRY_DEFAULT=1 in the
** environment it becomes the default VFS. May be called again, and from any
** thread.
**
** Returns SQLITE_OK or another of SQLite's codes; then *err, if err is not NULL,
** is a message for sqlite3_free.
*/
int walferry_register(char **err);

/* The version of this library, as in "0.1.0". */
const char *walferry_version(void);

#ifdef __cplusplus
}
#endif

#endif
