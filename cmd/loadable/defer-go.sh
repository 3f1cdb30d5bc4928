#!/bin/sh
# Takes the start of Go's runtime out of the constructors of a C archive, and names it
# wf_go_entry: cext/start.c calls it when it is time.
#
#   CC=COMPILER defer-go.sh ARCHIVE
set -eu
# Those of another machine than this one cannot be read by the tools of this one.
tool() { "${CC:-cc}" -print-prog-name="$1"; }
ar=$(tool ar) nm=$(tool nm) objcopy=$(tool objcopy)
archive=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$ar" x "$archive" go.o
entry=$("$nm" go.o | sed -n 's/^[0-9a-f]* [tT] \(_rt0_[a-z0-9]*_linux_lib\)$/\1/p')
if [ -z "$entry" ]; then
  echo "$1: this version of Go starts its runtime by another symbol than _rt0_..._linux_lib" >&2
  exit 1
fi
"$objcopy" --strip-symbol="$entry.ptr" --remove-section=.init_array --remove-section=.rela.init_array \
  --globalize-symbol="$entry" go.o started.o
"$objcopy" --redefine-sym="$entry=wf_go_entry" started.o go.o
"$ar" r "$archive" go.o
