/*
** The ledger, `<database>-ledger`: what the store is known to hold, and which
** pages it lacks. Every process that uses the database maps it; Go reads the
** same bytes through internal/ledger, whose struct is held against this one
** field by field in a test.
**
**   +-----------------+ 0
**   | header          |   WF_HEADER_SIZE; ready is written last
**   +-----------------+ 64 KiB
**   | segment 0       |   pages 1 .. WF_SEGMENT_PAGES
**   |   dirty bits    |   set by markers, moved to in-flight by the shipper
**   |   in-flight bits|   cleared once the store has them
**   |   page sums     |   8 bytes a page; 0 = not known
**   +-----------------+ 192 KiB
**   | segment 1 ...   |   only ever appended, by the shipper
**
** Numbers are in the byte order of the machine, which must be little-endian
** (the futex of a 64-bit counter is its low half). Sizes are multiples of the
** largest page that Linux runs with, so that each part maps on its own.
**
** Who writes what: the fields under "markers" only while SQLite's
** WAL_WRITE_LOCK is held, which serialises them across processes, save those
** said to be atomic; the fields under "shipper" only by the holder of the
** shipper's lock; the identity when the ledger is made.
*/
#ifndef WALFERRY_LEDGER_H
#define WALFERRY_LEDGER_H

#include <stdint.h>

#define WF_LEDGER_VERSION 1
#define WF_HEADER_SIZE 65536
#define WF_SEGMENT_SIZE 131072
#define WF_SEGMENT_PAGES 15872
#define WF_READY 0x59444552u /* "REDY" */
#define WF_GONE 0x454e4f47u  /* "GONE": replaced by another file, map again */
#define WF_NONE 0xffffffffu  /* no page count */

/* Offset in the file of the word that a poke writes; it is read by nobody:
** the write wakes whoever watches the file. */
#define WF_POKE_OFFSET 61440

/* Offset, beyond any file, of the byte that the shipper locks. */
#define WF_LOCK_OFFSET 0x4000000000000000ll

/* Who asks our reader to give way. */
#define WF_YIELD_RESET 1     /* a checkpoint or a restart of the WAL waits */
#define WF_YIELD_EXCLUSIVE 2 /* somebody wants the database for himself */

/* What our reader is doing. */
#define WF_READER_BATCH 1 /* gives way to every yield */
#define WF_READER_SCAN 2  /* long: gives way to WF_YIELD_EXCLUSIVE only */
#define WF_READER_WRITES 4 /* and one of ours has WAL_WRITE_LOCK, or asks for it */

/* What the file of the database looked like when `seen` was true of it and
** there was no WAL. After a power cut a file can have its times without its
** bytes: for another boot only one that was synced vouches. */
#define WF_STAMP_SYNCED 1
#define WF_STAMP_SEEN 2
struct wf_stamp {
  uint64_t valid; /* WF_STAMP_, or 0 */
  uint64_t dev, ino, size;
  int64_t mtime_ns, ctime_ns;
};

/* One try to put an object, whose outcome may not be known. */
struct wf_attempt {
  uint64_t txid; /* 0: free */
  uint64_t nonce;
  char upload[240]; /* id of a multipart upload, or empty */
};
#define WF_ATTEMPTS 16

/* Where in the WAL an object ended. */
struct wf_shipped {
  uint64_t txid;
  uint32_t salt[2];
  uint32_t mx_frame;
  uint32_t unused;
};
#define WF_SHIPPED 64

/* What the shipper knows of the levels above 0 without asking the store. Times
** are milliseconds since 1970; 0 is not known, or never. */
struct wf_kept {
  uint64_t level_end[3];        /* of levels 1 to 3: the TXID that each ends with */
  int64_t level_ms[3];          /* when each was last brought up to date */
  uint64_t snapshot_txid;       /* the newest snapshot */
  int64_t snapshot_ms;          /* its time */
  int64_t trimmed_ms, swept_ms; /* when retention was last applied: to level 0, to all */
};

/* A multipart upload of a merge or a snapshot. */
struct wf_keep_upload {
  uint64_t level, min, max; /* the object's; max 0: there is none */
  char upload[240];
};

struct wf_ledger {
  /* Identity. */
  char magic[8]; /* "WALFERRY" */
  uint32_t version;
  uint32_t ready; /* WF_READY, WF_GONE; atomic */
  uint8_t database_id[16];
  uint8_t boot[16];
  uint64_t own_ino, own_btime_ns; /* of the ledger itself: a copy differs */
  uint64_t db_dev, db_ino;
  uint32_t page_size; /* 0: not known yet */
  uint32_t segments;  /* allocated; atomic */
  uint64_t epoch;     /* of the tokens: another ledger or boot is another */
  uint64_t identity_pad[3];

  /* Markers. */
  uint32_t seen_seq; /* odd while seen is being written */
  uint32_t seen_set;
  uint32_t seen[12]; /* the wal-index header up to which all is marked */
  struct wf_stamp stamp;
  uint64_t all;            /* times that what changed was not known; atomic */
  uint64_t commit_window;  /* window of the newest commit that was marked */
  uint64_t open_since_ms;  /* of the oldest commit not in a batch; 0: none; atomic */
  uint32_t min_pages;      /* smallest size of a commit, or WF_NONE; atomic */
  uint32_t poked;          /* Go was woken for this window; atomic */
  uint32_t yield;          /* WF_YIELD_ bits; atomic */
  uint32_t reader;         /* WF_READER_, 0: none open; atomic */
  uint32_t behind;         /* recovery dropped frames: how often; atomic */
  uint32_t behind_salt[2]; /* and where the WAL ended then */
  uint32_t behind_frame;
  uint64_t marker_pad[3];

  /* Shipper. */
  uint64_t window, durable; /* atomic; durable's low half is a futex */
  uint64_t sync_wanted;     /* somebody wants this window shipped at once; atomic, by anyone */
  uint64_t failed;          /* the last wish that an attempt has failed for; atomic */
  uint64_t all_done;
  uint64_t shipper_epoch;
  uint64_t shipper_pid;
  uint64_t heartbeat_ms;
  uint64_t txid; /* newest object that is known to be in the store */
  uint32_t db_pages;     /* size in pages after it; WF_NONE: not known */
  uint32_t min_inflight; /* min_pages of the batch under way */
  uint64_t head_sum;     /* of the header of that object: proves the prefix */
  int64_t head_time_ms;  /* its time */
  uint64_t ship_since_ms; /* open_since_ms of the batch under way */
  uint64_t compared_epoch; /* epoch whose first full comparison is stored */
  uint64_t batches, bytes, requests; /* since the shipper opened */
  uint64_t undone_first, undone_last; /* TXIDs that recovery took back; 0: none */
  uint32_t behind_done; /* value of behind that was looked at */
  uint32_t state;       /* shipper.State */
  uint32_t conditional; /* 0 not known, 1 yes, 2 no */
  uint32_t text_seq;    /* odd while a text is being written */
  uint64_t error_since_ms; /* of last_error; 0: none */
  uint64_t interval_ms;
  uint64_t wishes;          /* times that somebody wanted something shipped at once; atomic, by anyone */
  uint64_t shipper_pad[5];
  char cause[512];
  char last_error[512];
  char replica[1024];
  struct wf_attempt attempts[WF_ATTEMPTS];
  struct wf_shipped shipped[WF_SHIPPED];
  uint64_t shipped_next;

  struct wf_kept kept;
  struct wf_keep_upload keep_upload;
  char keep_error[512]; /* why merging or retention failed last; empty: it did not */
};

struct wf_segment {
  uint64_t dirty[WF_SEGMENT_PAGES / 64];
  uint64_t inflight[WF_SEGMENT_PAGES / 64];
  uint64_t sum[WF_SEGMENT_PAGES];
  uint64_t pad[16];
};

_Static_assert(sizeof(struct wf_ledger) <= WF_POKE_OFFSET, "the header fits");
_Static_assert(sizeof(struct wf_segment) == WF_SEGMENT_SIZE, "a segment maps");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian");
_Static_assert(WF_SEGMENT_PAGES % 64 == 0, "whole words");

#endif
