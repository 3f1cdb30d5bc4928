// Command loadable is walferry as a SQLite extension (a shared library) and as a
// C archive. The entry points are C, in cext/init.c; this links them with Go's
// side.
package main

import _ "github.com/walferry/walferry/vfs"

func main() {}
