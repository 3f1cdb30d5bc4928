package main

import "github.com/walferry/walferry/vfs"

func registerVFS() error { return vfs.Register() }
