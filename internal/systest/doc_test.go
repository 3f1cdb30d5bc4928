// Package systest tests walferry from the outside, as its users meet it: the
// loadable extension in programs that others wrote, the C library, the command
// line, a real S3 server, the real litestream. Nothing of walferry runs in the
// test's own process.
//
//	machine_test.go   the tools and artefacts that the tests need
//	process_test.go   programs that run, with a bound and a transcript
//	place_test.go     a database and its replica, restored and compared
//	objects_test.go   what lies in a replica, decoded
//	client_test.go    a process with one connection, driven line by line
//	testdata/         the programs: wf.py is the Python ones' common part
package systest
