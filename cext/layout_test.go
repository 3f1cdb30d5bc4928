package cext

import "testing"

func TestLedgerIsTheSameInCAndGo(t *testing.T) {
	c, g := ledgerTypes()
	if c.NumField() != g.NumField() {
		t.Fatalf("C has %d fields, Go %d", c.NumField(), g.NumField())
	}
	for i := range c.NumField() {
		a, b := c.Field(i), g.Field(i)
		if a.Offset != b.Offset || a.Type.Size() != b.Type.Size() {
			t.Errorf("C's %s is %d bytes at %d, Go's %s %d at %d", a.Name, a.Type.Size(), a.Offset, b.Name, b.Type.Size(), b.Offset)
		}
	}
	if c.Size() != g.Size() {
		t.Errorf("C's struct has %d bytes, Go's %d", c.Size(), g.Size())
	}
	for name, size := range ledgerSizes() {
		if size[0] != size[1] {
			t.Errorf("%s: C has %d, Go %d", name, size[0], size[1])
		}
	}
}
