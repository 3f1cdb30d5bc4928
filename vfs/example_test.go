package vfs_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3"
	"github.com/walferry/walferry/vfs"
)

func Example() {
	dir, err := os.MkdirTemp("", "walferry")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")

	if err := vfs.Register(); err != nil {
		log.Fatal(err)
	}
	// The handle keeps replication going whatever the connection pool does.
	replica, err := vfs.Open(path, vfs.WithReplica("file://"+dir+"/replica"))
	if err != nil {
		log.Fatal(err)
	}
	defer replica.Close()

	db, err := sql.Open("sqlite3", "file:"+path+"?vfs=walferry&replica=file://"+dir+"/replica")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE t(x); INSERT INTO t VALUES('hello')"); err != nil {
		log.Fatal(err)
	}

	// Nothing above has waited for the replica. This does.
	txid, err := replica.Sync(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in the replica:", txid)
	fmt.Println("state:", replica.Status().State)
	// Output:
	// in the replica: 0000000000000002
	// state: shipping
}
