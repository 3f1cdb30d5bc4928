/*
** Lets the C code that reads shared memory meet memory of an enemy: a wal-index, a WAL and a
** ledger of random words. It is built with the sanitizers, which end it where something is
** read or written that must not be. Arguments: the ledger's database, seed, rounds.
*/
#include "wf.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void wf_log(int level, const char *format, ...) { (void)level, (void)format; }

static uint64_t state;
static uint32_t rnd(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 32);
}
static uint32_t word(void) {
  static const uint32_t odd[] = {0, 1, 2, 4061, 4062, 4063, 8158, 15872, 15873, 31744, 0x7fffffff, 0xfffffffe, 0xffffffff, 4096u << 16 | 1, 0x10001};
  return rnd() % 4 ? odd[rnd() % (sizeof odd / sizeof *odd)] : rnd() % 3 ? rnd() % 40000 : rnd();
}

enum { REGIONS = 4, WORDS = 8192 };
static uint32_t *regions[REGIONS];

static int shm_map(sqlite3_file *f, int i, int n, int extend, void volatile **out) {
  (void)f, (void)n, (void)extend;
  *out = i >= 0 && i < REGIONS && rnd() % 50 ? regions[i] : 0;
  return rnd() % 50 ? SQLITE_OK : SQLITE_IOERR;
}
static int read_at(sqlite3_file *f, void *buf, int n, sqlite3_int64 off) {
  (void)f;
  for (int i = 0; i < n; i++) ((unsigned char *)buf)[i] = (unsigned char)word();
  return off >= 0 && rnd() % 20 ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}
static int seen_page(void *arg, uint32_t pgno) { return (void)pgno, ++*(int *)arg < 100000; }

static void spoil_ledger(const char *name) {
  static uint32_t head[WF_HEADER_SIZE / 4];
  int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
  for (size_t i = 0; i < sizeof head / 4; i++) head[i] = word();
  struct wf_ledger *h = (void *)head;
  memcpy(h->magic, "WALFERRY", 8);
  h->version = WF_LEDGER_VERSION;
  h->ready = WF_READY;
  if (fd < 0 || write(fd, head, sizeof head) != sizeof head ||
      ftruncate(fd, WF_HEADER_SIZE + (1 + rnd() % 3) * (off_t)WF_SEGMENT_SIZE - (rnd() % 2) * 1000) != 0) exit(2);
  close(fd);
}

int main(int argc, char **argv) {
  sqlite3_io_methods methods = {.iVersion = 3, .xRead = read_at, .xShmMap = shm_map};
  sqlite3_file real = {&methods}, wal_real = {&methods};
  char name[4200];
  if (argc != 4) return 2;
  snprintf(name, sizeof name, "%s-ledger", argv[1]);
  for (int i = 0; i < REGIONS; i++) regions[i] = malloc(WORDS * 4);
  long rounds = atol(argv[3]);
  for (long n = 0; n < rounds; n++) {
    state = (uint64_t)atol(argv[2]) * 1000003u + (uint64_t)n;
    spoil_ledger(name);
    struct wf_file f, wal;
    memset(&f, 0, sizeof f);
    memset(&wal, 0, sizeof wal);
    f.real = &real;
    wal.real = &wal_real;
    f.path = argv[1];
    f.db = wf_db_get(argv[1]);
    if (rnd() % 2) f.wal = &wal;
    f.index = regions[0];
    for (int k = 0; k < 4; k++) {
      for (int i = 0; i < REGIONS; i++) {
        for (int w = 0; w < WORDS; w++) regions[i][w] = word();
      }
      if (rnd() % 8) memcpy(regions[0] + HDR_WORDS, regions[0], HDR_WORDS * 4);
      f.own_hold = rnd() % 2;
      wf_catch_up(&f);
      wf_mark_all(&f);
      (void)wf_header_is_seen(&f);
      uint32_t hdr[HDR_WORDS], min, frame, mx = word() % 20000;
      int count = 0;
      if (wf_header(f.index, hdr)) {
        (void)wf_frame_is(&f, hdr);
        hdr[HDR_MXFRAME] %= 10000;
        (void)wf_min_size(&f, hdr, word() % 10000, &min);
      }
      (void)wf_frame_pages(&f, word(), word(), seen_page, &count);
      volatile uint32_t **mapped = 0;
      if (wf_map_regions(&f, mx, &mapped)) (void)wf_find_frame(mapped, mx, word(), &frame);
      free((void *)mapped);
    }
    wf_db_put(f.db);
  }
  for (int i = 0; i < REGIONS; i++) free(regions[i]);
  unlink(name);
  puts("done");
  return 0;
}
