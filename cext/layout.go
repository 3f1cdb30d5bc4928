package cext

// #include "ledger.h"
import "C"

import (
	"reflect"

	"github.com/walferry/walferry/internal/ledger"
)

// ledgerTypes are the two sides' structs of one file; a test holds them against
// each other. Test files cannot use cgo.
func ledgerTypes() (c, g reflect.Type) {
	return reflect.TypeFor[C.struct_wf_ledger](), reflect.TypeFor[ledger.Header]()
}

// ledgerSizes pairs the constants that both sides have.
func ledgerSizes() map[string][2]int64 {
	return map[string][2]int64{
		"version":       {C.WF_LEDGER_VERSION, ledger.Version},
		"header":        {C.WF_HEADER_SIZE, ledger.HeaderSize},
		"segment":       {C.WF_SEGMENT_SIZE, ledger.SegmentSize},
		"segment pages": {C.WF_SEGMENT_PAGES, ledger.SegmentPages},
		"poke offset":   {C.WF_POKE_OFFSET, ledger.PokeOffset},
		"lock offset":   {C.WF_LOCK_OFFSET, ledger.LockOffset},
		"batch reader":  {C.WF_READER_BATCH, ledger.ReaderBatch},
		"scan reader":   {C.WF_READER_SCAN, ledger.ReaderScan},
		"no pages":      {C.WF_NONE, int64(ledger.None)},
	}
}
