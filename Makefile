# walferry. `make demo` shows it, `make test` proves it, `make help` lists the rest.

GO        ?= go
CC        ?= cc
PREFIX    ?= /usr/local
DIST      := dist
TOOLS     := $(DIST)/tools
MODULE    := github.com/walferry/walferry
VERSION   := $(shell sed -n 's/^#define WF_VERSION "\([^"]*\)".*/\1/p' cext/wf.h)
GO_SOURCES := $(shell find . -name '*.go' -not -path './dist/*') go.mod go.sum
C_SOURCES  := $(wildcard cext/*.c cext/*.h)

# Pinned tools of the tests: a real S3 server, the program whose replicas we
# share, a linter. `make tools` builds them into dist/tools.
VERSITYGW   := github.com/versity/versitygw/cmd/versitygw@v1.8.0
LITESTREAM_VERSION := v0.5.18
LITESTREAM_ := github.com/benbjohnson/litestream/cmd/litestream@$(LITESTREAM_VERSION)
LITESTREAM_MODULE := github.com/benbjohnson/litestream@$(LITESTREAM_VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
CLIENTS     := node@24.21.0 deno@2.9.6

.PHONY: all help build loadable static install demo test test-nocgo test-race test-system test-sqlite test-large test-arm64 \
	crash faults fuzz soak model sanitize sanitize-source sanitize-asan sanitize-ubsan sanitize-valgrind \
	check bench tools litestream-vfs clean
.DELETE_ON_ERROR:

all: build

help:
	@echo 'make build      the extension, the C library and the command line, in dist/'
	@echo 'make loadable   dist/walferry.so, for .load in the sqlite3 shell and other clients'
	@echo 'make static     dist/libwalferry.a, walferry.h and walferry.pc, for C programs'
	@echo 'make install    the above to PREFIX ($(PREFIX))'
	@echo 'make demo       ships a database to a directory, kills the writer, restores'
	@echo 'make test       all tests; builds the tools they need first'
	@echo 'make test-sqlite the tests of SQLite itself, over walferry; SUITE=full: hours'
	@echo 'make crash      kills processes and cuts the power at ROUNDS=10000 steps each, or for MINUTES; SEED=n repeats'
	@echo 'make faults     every call of ours to the file system and the store failing in every way (about 20 minutes)'
	@echo 'make fuzz       each fuzzer for FUZZTIME ($(FUZZTIME)); FUZZ=Options: those of that name'
	@echo 'make test-arm64 builds for arm64, and ships and restores there, under qemu'
	@echo 'make test-large a transaction of LARGE=$(LARGE) megabytes'
	@echo 'make check      formatting, vet, staticcheck, warnings of the C compiler'
	@echo 'make model      every interleaving of the protocol, to a bound; MODEL_FLAGS=-rules shows what rules are for'
	@echo 'make sanitize   the C under ASan, UBSan, valgrind, and what reads its source'
	@echo 'make soak       a mixed load with faults for DURATION, and whether anything grows'
	@echo 'make bench      a table of costs; LITESTREAM=path adds litestream to it, LITESTREAM_VFS=path its VFS'
	@echo 'make litestream-vfs  that VFS, as $(TOOLS)/litestream-vfs.so'

build: loadable static $(DIST)/walferry

loadable: $(DIST)/walferry.so
static: $(DIST)/libwalferry.a $(DIST)/walferry.h $(DIST)/walferry.pc

# Both libraries start Go with the first open, not when they are loaded (cext/start.c).
DEFER := cmd/loadable/defer-go.sh

$(DIST)/walferry.so: $(GO_SOURCES) $(C_SOURCES) cmd/loadable/walferry.map $(DEFER)
	@mkdir -p $(DIST)/extension
	@echo 'building $@'
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-archive -tags SQLITE3VFS_LOADABLE_EXT -ldflags '-s -w' \
		-o $(DIST)/extension/walferry.a ./cmd/loadable
	@CC='$(CC)' sh $(DEFER) $(DIST)/extension/walferry.a
	@$(CC) -shared -s -o $@ -Wl,--whole-archive $(DIST)/extension/walferry.a -Wl,--no-whole-archive \
		-Wl,--version-script=cmd/loadable/walferry.map -Wl,-z,nodelete,-z,relro,-z,defs -lpthread
	@rm -r $(DIST)/extension

$(DIST)/libwalferry.a: $(GO_SOURCES) $(C_SOURCES) $(DEFER)
	@mkdir -p $(DIST)/archive
	@echo 'building $@'
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-archive -tags walferry_archive -ldflags '-s -w' \
		-o $(DIST)/archive/walferry.a ./cmd/loadable
	@CC='$(CC)' sh $(DEFER) $(DIST)/archive/walferry.a
	@mv $(DIST)/archive/walferry.a $@ && rm -r $(DIST)/archive

$(DIST)/walferry.h: cext/walferry.h
	@mkdir -p $(DIST)
	@cp cext/walferry.h $@

$(DIST)/walferry.pc: Makefile cext/wf.h
	@mkdir -p $(DIST)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
		'Name: walferry' 'Description: SQLite VFS that replicates a database to object storage' \
		'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lwalferry -lsqlite3 -lpthread' > $@

$(DIST)/walferry: $(GO_SOURCES) $(C_SOURCES)
	@mkdir -p $(DIST)
	@echo 'building $@'
	@CGO_ENABLED=1 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./cmd/walferry

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 $(DIST)/walferry $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(DIST)/walferry.so $(DESTDIR)$(PREFIX)/lib/
	install -m 644 $(DIST)/libwalferry.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 $(DIST)/walferry.h $(DESTDIR)$(PREFIX)/include/
	sed 's|^prefix=.*|prefix=$(PREFIX)|' $(DIST)/walferry.pc > $(DESTDIR)$(PREFIX)/lib/pkgconfig/walferry.pc

tools: $(TOOLS)/versitygw $(TOOLS)/litestream $(TOOLS)/clients/node_modules/.bin/deno

$(TOOLS)/versitygw:
	@echo 'building an S3 server for the tests: $(VERSITYGW) (some minutes, once)'
	@GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 $(GO) install $(VERSITYGW)

$(TOOLS)/litestream:
	@echo 'building litestream to test against: $(LITESTREAM_) (some minutes, once)'
	@GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 $(GO) install $(LITESTREAM_)

# Its VFS for reading a replica, which comes as source only: as its own Makefile builds it, in
# a copy of its module.
litestream-vfs: $(TOOLS)/litestream-vfs.so

$(TOOLS)/litestream-vfs.so:
	@echo 'building the VFS of $(LITESTREAM_MODULE) to measure against (some minutes, once)'
	@mkdir -p $(TOOLS)
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
		from=$$($(GO) mod download -json $(LITESTREAM_MODULE) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && \
		cp -r "$$from/." "$$work" && chmod -R u+w "$$work" && \
		(cd "$$work" && GOTOOLCHAIN=local CGO_ENABLED=1 $(GO) build -trimpath -tags vfs,SQLITE3VFS_LOADABLE_EXT \
			-o src/litestream-vfs.a -buildmode=c-archive ./cmd/litestream-vfs) && \
		$(CC) -DSQLITE3VFS_LOADABLE_EXT -g -fPIC -shared -o $(CURDIR)/$@ \
			"$$work/src/litestream-vfs.c" "$$work/src/litestream-vfs.a" -lpthread -ldl -lm

# Clients that the distribution has not, or not new enough.
$(TOOLS)/clients/node_modules/.bin/deno:
	@.ci/need npm:npm
	@echo 'installing $(CLIENTS) with npm'
	@mkdir -p $(TOOLS)/clients && cd $(TOOLS)/clients && npm install --silent --no-save --no-audit --no-fund --prefix . $(CLIENTS)

$(TOOLS)/staticcheck:
	@echo 'building $(STATICCHECK)'
	@GOBIN=$(CURDIR)/$(TOOLS) $(GO) install $(STATICCHECK)

demo: $(DIST)/walferry.so $(DIST)/walferry
	@.ci/need sqlite3:sqlite3
	@sh internal/demo/demo.sh

# Packages that a C-less build must pass too, and those of them for the race detector:
# what brings SQLite in Go is left out, since to compile that for it takes minutes.
PURE := ./shipper/... ./cmd/walferry/... \
	$(patsubst %,./%/...,$(filter-out internal/systest internal/bench internal/crash internal/demo internal/soak,$(wildcard internal/*)))
RACE := $(filter-out ./internal/model/... ./cmd/walferry/... ./internal/histtest/... ./internal/sqlcheck/... ./internal/standby/... ./internal/verify/...,$(PURE))

test: test-nocgo test-race test-system

test-nocgo: $(TOOLS)/versitygw $(TOOLS)/litestream
	@echo 'tests without cgo'
	CGO_ENABLED=0 $(GO) test $(PURE)

test-race: $(TOOLS)/versitygw $(TOOLS)/litestream
	@echo 'tests under the race detector (it compiles SQLite once more: some minutes)'
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./cext/... ./vfs/... $(RACE)

# The extension and the libraries as users use them.
test-system: build tools
	@.ci/need sqlite3:sqlite3 python3:python3 file=/usr/include/sqlite3.h:libsqlite3-dev pkg-config:pkg-config \
		strace:strace perl=DBD::SQLite:libdbd-sqlite3-perl ruby:ruby-sqlite3 lsof:lsof tclsh:tcl file=/usr/lib/tcltk/sqlite3:libsqlite3-tcl \
		java:default-jre-headless file=/usr/share/java/sqlite-jdbc.jar:libxerial-sqlite-jdbc-java file=/usr/share/java/sqlline.jar:sqlline
	$(GO) test -timeout 20m ./internal/systest/... ./internal/bench/... ./internal/crash/... ./internal/soak/...

# The campaign of kills and power cuts, some hundred rounds of which are in `make test`.
# CRASH is a pattern of the tests' names: Killed, PowerCut. With MINUTES each ends after as many,
# if its rounds have not ended before.
ROUNDS  ?= 10000
MINUTES ?=
CRASH   ?= .

crash:
	@mkdir -p $(DIST)/crash
	WALFERRY_TEST_ROUNDS=$(ROUNDS) WALFERRY_TEST_MINUTES=$(MINUTES) WALFERRY_TEST_SEED=$(SEED) WALFERRY_TEST_EVIDENCE=$(CURDIR)/$(DIST)/crash \
		$(GO) test -v -count 1 -timeout 0 -run '$(CRASH)' ./internal/crash

# SQLite's own tests, from Debian's source of the sqlite3 that is installed, over the plain
# VFS and over walferry while it replicates: SUITE=quick|full, or FILES='wal*.test ...'.
# As root attach.test ends early, over both: a file that nobody may read can be read.
SUITE ?= quick
test-sqlite: $(DIST)/libwalferry.a $(DIST)/walferry.h $(DIST)/walferry
	@.ci/need tclsh:tcl file=/usr/include/tcl8.6/tcl.h:tcl-dev dpkg-source:dpkg-dev file=/usr/include/zlib.h:zlib1g-dev \
		file=/usr/include/sqlite3.h:libsqlite3-dev
	sh internal/sqlitesuite/build.sh $(DIST)
	$(GO) run ./internal/sqlitesuite -set $(SUITE) $(if $(FILES),-files '$(FILES)') $(SUITE_FLAGS)

# The whole matrices of what `make test` samples.
faults: build tools
	@.ci/need strace:strace sqlite3:sqlite3 python3:python3
	WALFERRY_TEST_FAULTS=all $(GO) test -timeout 60m -parallel 6 -v -run 'TestFault' ./internal/systest

# FUZZ is a pattern of the fuzzers' names. To make what was found smaller Go takes a minute for each,
# which would be all of FUZZTIME.
FUZZTIME ?= 30s
FUZZ     ?= .
fuzz:
	@for f in $$(grep -rl --include='*_test.go' --exclude-dir=dist '^func Fuzz' . | sort); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f | grep -E '$(FUZZ)'); do \
			echo "== $$(dirname $$f) $$name, $(FUZZTIME)"; \
			$(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x || exit 1; \
		done; \
	done

# On any machine: both libraries and the command line for arm64, under qemu-user.
ARM64 := aarch64-linux-gnu-gcc
test-arm64:
	@.ci/need $(ARM64):gcc-aarch64-linux-gnu file=/usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross qemu-aarch64:qemu-user
	GOARCH=arm64 CGO_ENABLED=1 $(MAKE) build DIST=$(DIST)/arm64 CC=$(ARM64)
	.ci/arm64 $(DIST)/arm64 $(ARM64)

# One transaction of so many megabytes; 1100 and more reach beyond the page of SQLite's locks.
LARGE := 5000
test-large: build
	WALFERRY_TEST_LARGE=$(LARGE) $(GO) test -timeout 4h -v -run TestLarge ./internal/systest

check: $(TOOLS)/staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "not formatted: $$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags SQLITE3VFS_LOADABLE_EXT ./cext ./vfs ./cmd/loadable
	$(TOOLS)/staticcheck ./...
	@for f in cext/*.c internal/crash/trap/*.c; do \
		$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -c $$f -o /dev/null || exit 1; \
		$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -DSQLITE3VFS_LOADABLE_EXT -c $$f -o /dev/null || exit 1; \
	done
	@echo 'our C compiles without a warning'

# Each search visits the nearest 8 million states: some minutes in all, and 5 GB. MODEL_FLAGS='-most 1000000' is less.
model:
	CGO_ENABLED=0 $(GO) run ./internal/model $(MODEL_FLAGS)

# The C under what finds wrong uses of memory and undefined behaviour, and under two readers of
# its source. valgrind's own reports about Go's runtime are not counted (.ci/memcheck).
sanitize: sanitize-source sanitize-asan sanitize-ubsan sanitize-valgrind

sanitize-source:
	@.ci/need cppcheck:cppcheck
	@for f in cext/*.c; do \
		$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -fanalyzer -c $$f -o /dev/null || exit 1; \
	done
	cppcheck -q --enable=warning,performance,portability --std=c11 -D_GNU_SOURCE --suppress='*:cext/sqlite3*.h' --error-exitcode=1 cext/*.c

sanitize-asan:
	CGO_ENABLED=1 $(GO) test -asan -p 1 -timeout 30m ./cext/... ./vfs/...

sanitize-ubsan:
	CGO_ENABLED=1 CGO_CFLAGS='-g -O1 -fsanitize=undefined -fno-sanitize-recover=undefined' CGO_LDFLAGS=-fsanitize=undefined \
		$(GO) test -p 1 -timeout 30m ./cext/... ./vfs/...

sanitize-valgrind:
	@.ci/need valgrind:valgrind sqlite3:sqlite3
	@mkdir -p $(DIST)/sanitize
	CGO_ENABLED=1 CGO_CFLAGS='-g -O1' $(GO) build -trimpath -buildmode=c-shared -tags SQLITE3VFS_LOADABLE_EXT,valgrind \
		-ldflags "-extldflags '-Wl,--version-script=$(CURDIR)/cmd/loadable/walferry.map'" -o $(DIST)/sanitize/walferry.so ./cmd/loadable
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cd "$$dir" && WALFERRY_REPLICA="file://$$dir/replica/{name}" \
		$(CURDIR)/.ci/memcheck $(CURDIR)/$(DIST)/sanitize/valgrind.log sqlite3 -bail -batch \
		-cmd '.load $(CURDIR)/$(DIST)/sanitize/walferry' <$(CURDIR)/.ci/memcheck.sql

# For as long as is wanted: make soak DURATION=8h
DURATION ?= 3m
soak: $(TOOLS)/versitygw
	CGO_ENABLED=1 $(GO) run ./internal/soak -duration $(DURATION) -server $(TOOLS)/versitygw $(SOAK_FLAGS)

bench: build $(TOOLS)/versitygw
	@.ci/need lz4:lz4 python3:python3
	$(GO) run ./internal/bench $(BENCH_FLAGS)

clean:
	rm -rf $(DIST)
