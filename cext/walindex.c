/*
** Reading SQLite's wal-index, the shared memory that says which frame of the
** WAL holds which page (wal.c, "WAL-INDEX FORMAT"):
**
**   region 0   header, header, checkpoint info    136 bytes
**              page numbers of frames 1..4062     4062 * 4
**              hash table                         8192 * 2
**   region n   page numbers of 4096 frames        4096 * 4
**              hash table                         8192 * 2
**
** Nothing here is written. The wal-index, not the WAL, is the authority on what
** is committed: SQLite up to 3.47 can leave committed frames in the WAL whose
** own checksums are zero.
*/
#include "wf.h"
#include <stdlib.h>
#include <string.h>

enum {
  REGION_BYTES = 32768,
  REGION_FRAMES = 4096,
  FIRST_FRAMES = 4062, /* what the headers leave of region 0 */
  HEADER_WORDS = 34,
  HASH_SLOTS = 8192,
  FRAME_HEADER = 24,
  WAL_HEADER = 32,
};

/* The header, unless its two copies differ or it was never written: recovery
** is then about to run. */
int wf_header(volatile uint32_t *index, uint32_t out[HDR_WORDS]) {
  uint32_t second[HDR_WORDS];
  atomic_thread_fence(memory_order_seq_cst);
  for (int i = 0; i < HDR_WORDS; i++) out[i] = index[i];
  atomic_thread_fence(memory_order_seq_cst);
  for (int i = 0; i < HDR_WORDS; i++) second[i] = index[HDR_WORDS + i];
  return memcmp(out, second, sizeof second) == 0 && (out[HDR_FLAGS] & 0xff) != 0;
}

/* Bytes of a page; 0 where the header does not know (an empty WAL, recovered). */
uint32_t wf_page_size(const uint32_t hdr[HDR_WORDS]) {
  uint32_t size = hdr[HDR_FLAGS] >> 16;
  return size == 1 ? 65536 : size;
}

static volatile uint32_t *region(struct wf_file *f, uint32_t i) {
  void volatile *p = 0;
  if (i == 0) return f->index;
  if (f->real->pMethods->xShmMap(f->real, (int)i, REGION_BYTES, 0, &p) != SQLITE_OK) return 0;
  return p;
}

static uint32_t region_of(uint32_t frame) {
  return (uint32_t)(((uint64_t)frame + REGION_FRAMES - FIRST_FRAMES - 1) / REGION_FRAMES);
}

/* Frames before a region's first, and where its page numbers begin. */
static uint32_t region_zero(uint32_t i) {
  return i == 0 ? 0 : FIRST_FRAMES + (i - 1) * REGION_FRAMES;
}
static volatile uint32_t *region_pages(volatile uint32_t *r, uint32_t i) {
  return i == 0 ? r + HEADER_WORDS : r;
}

/* Calls each(arg, pgno) for the frames from+1..to. Returns 0 if part of the
** index could not be read or each returned 0. */
int wf_frame_pages(struct wf_file *f, uint32_t from, uint32_t to,
                   int (*each)(void *arg, uint32_t pgno), void *arg) {
  uint32_t frame = from + 1;
  while (frame <= to && frame != 0) {
    uint32_t i = region_of(frame);
    volatile uint32_t *r = region(f, i);
    if (!r) return 0;
    volatile uint32_t *pages = region_pages(r, i);
    uint32_t zero = region_zero(i);
    uint32_t last = zero + (i == 0 ? FIRST_FRAMES : REGION_FRAMES);
    for (; frame <= to && frame <= last; frame++) {
      if (!each(arg, pages[frame - zero - 1])) return 0;
    }
  }
  return 1;
}

/* The regions that hold frames up to mx, for free(). Returns 0 if one cannot be
** had. */
int wf_map_regions(struct wf_file *f, uint32_t mx, volatile uint32_t ***out) {
  uint32_t n = mx ? region_of(mx) + 1 : 0;
  *out = calloc(n + 1, sizeof **out);
  for (uint32_t i = 0; *out && i < n; i++) {
    if (!((*out)[i] = region(f, i))) return 0;
  }
  return *out != 0;
}

/* The newest frame up to mx that holds the page, 0 where none does. Returns 0
** if the index is not SQLite's. The caller holds a read mark, so frames up to
** mx stay; newer ones may be added meanwhile, as any reader must bear. */
int wf_find_frame(volatile uint32_t **regions, uint32_t mx, uint32_t pgno, uint32_t *frame) {
  *frame = 0;
  if (mx == 0) return 1;
  for (int64_t i = region_of(mx); i >= 0; i--) {
    volatile uint32_t *r = regions[i];
    volatile uint32_t *pages = region_pages(r, (uint32_t)i);
    volatile uint16_t *hash = (volatile uint16_t *)(r + REGION_FRAMES);
    uint32_t zero = region_zero((uint32_t)i);
    uint32_t key = (pgno * 383) & (HASH_SLOTS - 1);
    uint16_t slot;
    for (int probes = 0; (slot = hash[key]) != 0; key = (key + 1) & (HASH_SLOTS - 1)) {
      uint32_t at = zero + slot;
      if (at <= mx && at > *frame && pages[(slot - 1) & (REGION_FRAMES - 1)] == pgno) *frame = at;
      if (++probes > HASH_SLOTS) return 0; /* not a table of SQLite's */
    }
    if (*frame) return 1;
  }
  return 1;
}

static uint32_t get32(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int frame_header(struct wf_file *f, uint32_t page_size, uint32_t frame,
                        unsigned char out[FRAME_HEADER]) {
  if (!f->wal || !page_size || !frame) return 0;
  sqlite3_file *wal = f->wal->real;
  sqlite3_int64 off = WAL_HEADER + (sqlite3_int64)(frame - 1) * (page_size + FRAME_HEADER);
  return wal->pMethods->xRead(wal, out, FRAME_HEADER, off) == SQLITE_OK;
}

/* The smallest database size that a commit of the frames from+1..mx left. Only a
** foreign writer commits more than once between two looks, so this reads the
** WAL rarely. Returns 0 if it cannot be known. */
int wf_min_size(struct wf_file *f, const uint32_t hdr[HDR_WORDS], uint32_t from, uint32_t *min) {
  unsigned char b[FRAME_HEADER];
  uint32_t size = wf_page_size(hdr);
  *min = hdr[HDR_NPAGE];
  for (uint32_t frame = from + 1; frame <= hdr[HDR_MXFRAME]; frame++) {
    if (!frame_header(f, size, frame, b)) return 0;
    uint32_t commit = get32(b + 4);
    if (commit && commit < *min) *min = commit;
  }
  return 1;
}

/* Whether the last frame that hdr speaks of is still in the WAL: its salts and
** its checksum, which covers all frames before it. */
int wf_frame_is(struct wf_file *f, const uint32_t hdr[HDR_WORDS]) {
  unsigned char b[FRAME_HEADER];
  if (hdr[HDR_MXFRAME] == 0) return 1;
  if (!frame_header(f, wf_page_size(hdr), hdr[HDR_MXFRAME], b)) return 0;
  /* The salts of the wal-index are the file's bytes; checksums are numbers. */
  return memcmp(b + 8, &hdr[HDR_SALT], 8) == 0 &&
         get32(b + 16) == hdr[HDR_CKSUM] && get32(b + 20) == hdr[HDR_CKSUM + 1];
}
