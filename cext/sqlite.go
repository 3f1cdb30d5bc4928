//go:build !SQLITE3VFS_LOADABLE_EXT && !walferry_archive

package cext

// In a Go program SQLite is go-sqlite3's: importing it here is what resolves the
// shim's calls. The loadable extension calls its host's through a table, the C
// archive leaves them to the program that links it.
import _ "github.com/mattn/go-sqlite3"
