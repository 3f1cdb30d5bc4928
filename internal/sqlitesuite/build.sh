#!/bin/sh
# Brings SQLite's own tests: Debian's source package of the sqlite3 that this machine
# has, from Debian's archive by apt's ordinary means, with lists of its own so that
# nothing of the machine's apt is changed. Builds two testfixtures of the same objects,
# one plain and one with walferry. Usage: build.sh DIST, the directory with libwalferry.a.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dist=$(cd "$1" && pwd)
version=$(dpkg-query -W -f '${source:Version}' libsqlite3-0)
root=$dist/sqlite/$version
tcl=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/tcl8.6

fetch() {
  echo "fetching the source of sqlite3 $version (apt-get source)"
  rm -rf "$root" && mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
  for suite in debian:bookworm debian:bookworm-updates debian-security:bookworm-security; do
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/${suite%:*} ${suite#*:} main"
  done > "$root/apt/sources.list"
  set -- -qq -o Dir::Etc::sourcelist="$root/apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$root/apt/lists" -o Dir::Cache="$root/apt/cache" -o APT::Sandbox::User="$(id -un)"
  apt-get "$@" update
  (cd "$root/apt" && apt-get "$@" source --download-only "sqlite3=$version")
  dpkg-source --no-check -x "$root"/apt/sqlite3_*.dsc "$root/unpacked" > "$root/apt/log"
  mv "$root/unpacked" "$root/src" # only when it is whole
}

[ -d "$root/src" ] || fetch
generate() { # GOAL, of SQLite's Makefile and of ours
  make -s -j"$(nproc)" -f Makefile -f "$here/objects.mk" "$1" OBJECTS="$root/objects" > make.log 2>&1 && return
  tail -20 make.log >&2
  exit 1
}

# The tests count down to the fault that they inject. The counters become those of the
# thread that sets them: a fault is for the test's own calls, walferry's part of them
# included, and not for what a thread of walferry's happens to do at that moment.
count_by_thread() {
  sed -i -E 's/\bint (sqlite3_(io_error_(hit|hardhit|pending|persist|benign)|diskfull(_pending)?)( = 0)?;)/__thread int \1/' \
    ../src/src/*.c ../src/src/*.h
  # Not the real malloc, nor the page size, which are in the same structs.
  sed -i -E 's/memfault\.(iCountdown|nRepeat|nBenign|nFail|nOk\w+|enable|isBenignMode)\b/faults.\1/
    s/^} memfault;/&\nstatic __thread struct MemFault faults;/' ../src/src/test_malloc.c
  sed -i -E 's/gSyscall\.(nCount|nFail|bPersist)\b/faults.\1/
    s/^} gSyscall = .*/&\nstatic __thread struct TestSyscallGlobal faults;/' ../src/src/test_syscall.c
}

# What a test has logged comes to Tcl, which only the thread that asked for it may enter. A
# thread of walferry's logs too: what it cannot read.
log_by_thread() {
  sed -i -E 's/^\} logcallback = .*/&\nstatic __thread int logs;/
    s/^static void xLogcallback\(.*\{$/&\n  if( !logs ) return;/
    s/sqlite3_config\(SQLITE_CONFIG_LOG, xLogcallback/logs = 1; &/' ../src/src/test1.c
}

if [ ! -e "$root/objects/by-thread" ]; then
  echo 'building testfixture of it (a minute, once)'
  mkdir -p "$root/build" "$root/objects"
  cd "$root/build"
  [ -e Makefile ] || ../src/configure --with-tcl="$tcl" > configure.log
  [ -e counted ] || count_by_thread
  touch counted
  [ -e logged ] || log_by_thread
  touch logged
  generate sqlite3.c # and the headers that the other sources include
  generate objects
  rm -f "$root/plain" "$root/walferry"
  touch "$root/objects/by-thread"
fi

link() { # OUTPUT, and what it gets beside the objects
  out=$1
  shift
  ${CC:-cc} -O2 -o "$out.new" "$root"/objects/*.o "$@" -ltcl8.6 -lm -lz -lpthread -ldl
  mv "$out.new" "$out"
}
[ -e "$root/plain" ] || link "$root/plain" "$here/testdata/init.c"
if [ ! -e "$root/walferry" ] || [ "$dist/libwalferry.a" -nt "$root/walferry" ]; then
  link "$root/walferry" -DWITH_WALFERRY -I"$dist" "$here/testdata/init.c" "$dist/libwalferry.a"
fi
ln -sfn "$version" "$dist/sqlite/current"
