/*
 * What the files of the qcow2 driver share. Not for others: they use qcow2.h.
 *
 * On disk everything is big-endian; in memory the L1 and refcount tables are in host order, cached
 * slices of L2 tables and refcount blocks stay as they are on disk.
 * Terms as in the specification [QCOW2 docs/interop/qcow2.txt]: guest and host clusters, L1 and L2
 * tables, refcount table and blocks.
 * Threads: the node's loop. Between two calls of task functions nothing changes under a task.
 */
#pragma once
#include <endian.h>
#include <string.h>

#include "backend/block/qcow2.h"
#include "base/bits.h"
#include "core/task.h"

#define QCOW2_MAGIC 0x514649fbu

/* Bounds on what an image may make us allocate; QEMU has the same. */
#define QCOW2_MAX_L1         (32u << 20) /* bytes */
#define QCOW2_MAX_REFTABLE   (8u << 20)
#define QCOW2_MAX_SNAPSHOTS  65536u
#define QCOW2_MAX_SNAP_TABLE (64u << 20)
#define QCOW2_MAX_SNAP_EXTRA 1024u

enum {
	INCOMPAT_DIRTY = 1,
	INCOMPAT_CORRUPT = 2,
	INCOMPAT_DATA_FILE = 4,
	INCOMPAT_COMPRESSION = 8,
	INCOMPAT_EXTENDED_L2 = 16,
	INCOMPAT_KNOWN = 31
};
enum { COMPAT_LAZY_REFCOUNTS = 1 };
enum { AUTOCLEAR_BITMAPS = 1, AUTOCLEAR_DATA_FILE_RAW = 2 };

/* Entries of L1, L2 and refcount tables. */
#define ENTRY_COPIED     BIT(63)
#define ENTRY_COMPRESSED BIT(62)
#define ENTRY_ZERO       BIT(0)
#define ENTRY_OFFSET     0x00fffffffffffe00ull
#define ENTRY_RT_OFFSET  0xfffffffffffffe00ull
#define ENTRY_L1_RSVD    0x7f000000000001ffull
#define ENTRY_L2_RSVD    0x3f000000000001feull

/* The header, at these byte offsets. */
enum {
	H_MAGIC = 0,
	H_VERSION = 4,
	H_BACKING_OFF = 8,
	H_BACKING_LEN = 16,
	H_CLUSTER_BITS = 20,
	H_SIZE = 24,
	H_CRYPT = 32,
	H_L1_SIZE = 36,
	H_L1_OFF = 40,
	H_RT_OFF = 48,
	H_RT_CLUSTERS = 56,
	H_NB_SNAPSHOTS = 60,
	H_SNAPSHOTS_OFF = 64,
	H_V2_LEN = 72,
	H_INCOMPAT = 72,
	H_COMPAT = 80,
	H_AUTOCLEAR = 88,
	H_REFCOUNT_ORDER = 96,
	H_HEADER_LEN = 100,
	H_COMPRESSION = 104,
	H_V3_LEN = 112
};

static inline uint64_t q2_get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return be64toh(v);
}
static inline uint32_t q2_get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return be32toh(v);
}
static inline uint16_t q2_get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return be16toh(v);
}
static inline void q2_put64(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, 8);
}
static inline void q2_put32(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}
static inline void q2_put16(void *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, 2);
}

struct qcow2;

/* ---- The cache of tables (qcow2_cache.c) ---------------------------------------------------- */

/* A part of an L2 table or refcount block. */
struct q2_slice {
	uint64_t off; /* host offset, the key */
	uint8_t *data;
	struct q2_slice *hash_next;
	struct q2_slice *lru_prev, *lru_next;
	bool dirty;
	bool loading;    /* being read; wait in cache->wait */
	bool committing; /* its copy is being written: must not be read again from the disk */
};
struct q2_cache {
	struct qcow2 *s;
	unsigned n, max, n_dirty, hash_bits;
	struct q2_slice **hash;
	struct q2_slice lru; /* list head; next: most recently used */
	struct task_queue wait;
};
int q2_cache_init(struct q2_cache *c, struct qcow2 *s, uint64_t bytes);
void q2_cache_free(struct q2_cache *c);
/*
 * The slice at a host offset (aligned to slice_size). The pointer is good until the caller waits.
 * May commit.
 */
int q2_cache_get_co(struct q2_cache *c, uint64_t off, struct q2_slice **out) must_check;
void q2_cache_dirty(struct q2_cache *c, struct q2_slice *sl);
/* Forget clean and dirty slices in a range of the host file, because it is freed. */
void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len);

/* ---- Metadata that must not be overwritten (qcow2_overlap.c) ----------------------------------
 */

enum q2_meta {
	META_NONE,
	META_HEADER,
	META_L1,
	META_REFTABLE,
	META_SNAPSHOTS,
	META_INACTIVE_L1,
	META_L2,
	META_REFBLOCK
};
struct q2_range {
	uint64_t start, end;
	enum q2_meta type;
};
struct q2_overlap {
	struct q2_range *ranges; /* sorted, disjoint */
	unsigned n_ranges;
	uint64_t *hash; /* cluster index << 2 | 1: L2, 2: refcount block, 3: both or twice */
	uint64_t n, used;
	unsigned bits;
	bool twice; /* a refcount block is also another table: the image is corrupt */
};
int q2_overlap_rebuild(struct qcow2 *s); /* from the tables in memory */
void q2_overlap_free(struct qcow2 *s);
int q2_overlap_add(struct qcow2 *s, uint64_t off, enum q2_meta type);
void q2_overlap_remove(struct qcow2 *s, uint64_t off);
/*
 * May [off, off+len) of the host file be written as `self` (META_NONE: guest data)? If not, the
 * image is marked corrupt and -EIO returned.
 */
int q2_overlap_check_co(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_meta self) must_check;

/* ---- The image ----------------------------------------------------------------------------- */

struct q2_ext { /* a header extension that we do not know, kept */
	uint32_t type, len;
	uint8_t *data;
};

struct q2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size; /* entries */
	char *id, *name;
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec, vm_state_size, disk_size;
	uint32_t extra_len; /* of unknown extra data, behind the known 16 bytes */
	uint8_t *extra;
};

/* Host clusters that lost a reference; applied when the loss is stable. */
struct q2_free {
	uint64_t off, len;
	bool discard; /* data of the guest: the host's space may be given back */
};
struct q2_frees {
	struct q2_free *v;
	unsigned n, room;
	unsigned fixed; /* of frees_new: so many are of the commit under way, and do not grow */
};

/* A guest range whose mapping is being changed. On the stack of its task. */
struct q2_lock {
	uint64_t start, end;
	struct q2_lock *next;
	struct task_queue wait;
};

/* A host range under I/O: it may have been freed meanwhile, but must not be given out again. */
struct q2_io {
	uint64_t start, end;
	struct q2_io *prev, *next;
};

struct qcow2 {
	struct block *b;

	/* from the header */
	unsigned version, cluster_bits, refcount_order;
	uint32_t header_len;
	uint64_t incompat, compat, autoclear;
	uint8_t compression_type;
	uint64_t snapshots_off;
	struct q2_ext *exts;
	unsigned n_exts;
	uint64_t bitmap_dir_off, bitmap_dir_size;
	uint32_t n_bitmaps;

	/* derived */
	uint32_t cluster_size;
	unsigned l2_entry_size;   /* 8 or 16 */
	unsigned l2_bits;         /* log2 of entries in an L2 table */
	unsigned rb_bits;         /* log2 of entries in a refcount block */
	uint32_t slice_size;      /* bytes of a table cached at once */
	unsigned slice_l2_bits;   /* log2 of L2 entries in a slice */
	unsigned subcluster_bits; /* log2 of the subcluster's size; cluster_bits without them */
	uint64_t refcount_max;

	/* L1 */
	uint64_t l1_offset;
	uint32_t l1_size;
	uint64_t *l1;
	uint8_t *l1_dirty; /* by entry: not written yet */
	unsigned n_l1_dirty;

	/* refcounts */
	uint64_t rt_offset;
	uint32_t rt_clusters;
	uint64_t rt_entries;
	uint64_t *rt;
	bool rt_reserved;              /* reserved bits were found in it: for check */
	struct task_mutex alloc_lock;  /* refcounts and allocation */
	uint64_t free_hint;            /* no free cluster has a lower index */
	uint64_t comp_off;             /* where the next compressed cluster may go, 0: nowhere */
	struct q2_frees frees_new;     /* since the last commit */
	struct q2_frees frees_written; /* committed; a flush has to follow */
	struct q2_frees frees_ready;
	uint64_t file_end;  /* end of what is allocated, for trimming at the end */
	uint64_t zero_from; /* the file reads as zeroes from here, UINT64_MAX: unknown */

	/* tables */
	struct q2_cache l2c, rbc;
	struct task_mutex commit_lock, l2_lock, grow_lock;
	bool barrier; /* data was written that L2 tables in memory point to */
	struct q2_overlap ov;

	/* requests */
	struct q2_lock *locks;
	struct q2_io ios; /* list head */

	struct q2_snapshot *snaps;
	uint32_t n_snaps;

	/* bounds on memory: reads of compressed clusters at a time, bytes copied around writes */
	unsigned inflating;
	uint64_t cow_bytes;
	struct task_queue inflate_wait, cow_wait;

	/* the last cluster that was uncompressed */
	uint8_t *comp_buf;
	uint64_t comp_key;

	bool lazy;          /* refcount blocks are written at the end only */
	bool dirty_marked;  /* the dirty bit is set by us */
	bool header_synced; /* the header was written since it was opened for writing */
	bool broken;        /* metadata overlap was found: no writes any more */
};

static inline struct qcow2 *q2_of(const struct block *b)
{
	return b->priv;
}
static inline struct block *q2_data(const struct qcow2 *s)
{
	return s->incompat & INCOMPAT_DATA_FILE ? s->b->data_file : s->b->file;
}
static inline bool q2_external(const struct qcow2 *s)
{
	return s->incompat & INCOMPAT_DATA_FILE;
}
static inline bool q2_extended(const struct qcow2 *s)
{
	return s->incompat & INCOMPAT_EXTENDED_L2;
}
/* Could something else than zeroes show through an unallocated cluster? */
static inline bool q2_has_backing(const struct qcow2 *s)
{
	return s->b->backing || s->b->backing_file;
}
static inline uint64_t q2_round_up(const struct qcow2 *s, uint64_t v)
{
	return (v + s->cluster_size - 1) & ~(uint64_t)(s->cluster_size - 1);
}
static inline uint64_t q2_in_cluster(const struct qcow2 *s, uint64_t off)
{
	return off & (s->cluster_size - 1);
}
static inline uint64_t q2_l2_span(const struct qcow2 *s) /* guest bytes under one L1 entry */
{
	return 1ull << (s->l2_bits + s->cluster_bits);
}

/* ---- qcow2_header.c ------------------------------------------------------------------------- */

int q2_header_read_co(struct qcow2 *s, struct err *e) must_check;
void q2_header_free(struct qcow2 *s);
/* The whole header cluster again: extensions, backing file name. Followed by a flush. */
int q2_header_write_co(struct qcow2 *s) must_check;
/* Only len bytes at off of the header's first sector, followed by a flush. */
int q2_header_poke_co(struct qcow2 *s, unsigned off, const void *buf, unsigned len) must_check;
/* Set or clear bits of incompatible_features. Nothing on version 2. */
int q2_set_incompat_co(struct qcow2 *s, uint64_t set, uint64_t clear) must_check;
/* Before the first change of an image: clear autoclear bits that we do not maintain. */
int q2_before_write_co(struct qcow2 *s) must_check;

/* ---- qcow2_file.c: the host file ------------------------------------------------------------- */

/* Reads behind the end give zeroes. */
int q2_file_read_co(struct block *f, uint64_t off, const struct iovecs *v) must_check;
int q2_file_pread_co(struct block *f, uint64_t off, void *buf, size_t len) must_check;
/* Metadata, checked against overlaps; the file grows. */
int q2_file_pwrite_co(struct qcow2 *s, uint64_t off, const void *buf, size_t len,
		      enum q2_meta self) must_check;
int q2_file_grow_co(struct qcow2 *s, uint64_t end) must_check;
/* Zeroes into a cluster range; nothing is written where the file has zeroes anyway. */
int q2_file_zero_co(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_meta self) must_check;
void q2_io_begin(struct qcow2 *s, struct q2_io *io, uint64_t off, uint64_t len);
void q2_io_end(struct q2_io *io);

/* ---- qcow2_commit.c ------------------------------------------------------------------------- */

/* Write what is dirty, in order. all: refcounts too when they are lazy. */
int q2_commit_co(struct qcow2 *s, bool all) must_check;
/* Commit, flush, apply what was freed, commit again: the image is as small as it can be. */
int q2_settle_co(struct qcow2 *s) must_check;
/* Something is dirty or waits to be freed. */
bool q2_unsettled(const struct qcow2 *s);

/* ---- qcow2_refcount.c ------------------------------------------------------------------------ */

int q2_reftable_load_co(struct qcow2 *s, struct err *e) must_check;
/* These two with alloc_lock held. */
int q2_ref_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *out) must_check;
int q2_ref_set_co(struct qcow2 *s, uint64_t cluster, uint64_t value) must_check;
/* Enter a refcount block, whose content is stable, into the table. With alloc_lock. */
int q2_refblock_adopt_co(struct qcow2 *s, uint64_t index, uint64_t off) must_check;
/* Add delta to each cluster that [off, off+len) touches. Takes alloc_lock. -ERANGE: overflow. */
int q2_ref_add_co(struct qcow2 *s, uint64_t off, uint64_t len, int delta) must_check;
/* In a slice of a refcount block. */
uint64_t q2_refbits_get(const uint8_t *data, unsigned order, uint64_t i);
void q2_refbits_set(uint8_t *data, unsigned order, uint64_t i, uint64_t v);

/* ---- qcow2_alloc.c --------------------------------------------------------------------------- */

/*
 * Up to *n contiguous clusters, at least one, each with refcount 1; *n is what was got. exact:
 * *n or nothing. They may not overlap metadata.
 */
int q2_alloc_co(struct qcow2 *s, uint64_t *n, bool exact, uint64_t *off) must_check;
/* Bytes for a compressed cluster. */
int q2_alloc_bytes_co(struct qcow2 *s, uint32_t len, uint64_t *off) must_check;
/* [off, off+len) is no longer pointed to by tables in memory. Never fails, may leak. */
void q2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, bool discard);
/* The same for what no stable table ever pointed to. */
void q2_free_unused(struct qcow2 *s, uint64_t off, uint64_t len);
int q2_frees_apply_co(struct qcow2 *s) must_check; /* with alloc_lock */
/* Keep the lists of what is to be freed from growing without end. */
int q2_frees_bound_co(struct qcow2 *s) must_check;

/* ---- qcow2_map.c ----------------------------------------------------------------------------- */

enum q2_type { Q2_UNALLOCATED, Q2_ZERO, Q2_NORMAL, Q2_COMPRESSED };
struct q2_map {
	enum q2_type type;
	bool in_place; /* NORMAL, may be written */
	uint64_t len;  /* bytes from the offset asked for, for which this holds */
	uint64_t host; /* NORMAL: contiguous, exact for the offset. COMPRESSED: the entry */
};
/* off < disk (or VM state) size. -EIO when the tables are wrong. */
int q2_map_co(struct qcow2 *s, uint64_t off, uint64_t len, struct q2_map *m) must_check;
int q2_l1_load_co(struct qcow2 *s, struct err *e) must_check;
int q2_l1_read_co(struct qcow2 *s, uint64_t off, uint32_t n, uint64_t **out,
		  struct err *e) must_check;
/* Make the L2 table for a guest offset exist and writable. */
int q2_l2_prepare_co(struct qcow2 *s, uint64_t off) must_check;
/* The slice that has the entry of a guest offset (prepared). *e: the entry within it. */
int q2_l2_slice_co(struct qcow2 *s, uint64_t off, struct q2_slice **sl, uint8_t **e) must_check;
/* Release what an L2 entry points to. */
void q2_l2_entry_free(struct qcow2 *s, uint64_t entry);
/* First byte and length of a compressed cluster. */
void q2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *off, uint64_t *len);
static inline uint64_t q2_bitmap(const struct qcow2 *s, const uint8_t *entry)
{
	return q2_extended(s) ? q2_get64(entry + 8) : 0;
}
void q2_lock_co(struct qcow2 *s, struct q2_lock *l, uint64_t start, uint64_t end);
void q2_unlock(struct qcow2 *s, struct q2_lock *l);
/* The image is wrong in this way: say it once, set the corrupt bit, no writes any more. -EIO */
__attribute__((format(printf, 2, 3))) int q2_corrupt_co(struct qcow2 *s, const char *fmt, ...);

/* ---- qcow2_io.c, qcow2_zero.c, qcow2_compress.c -------------------------------------------------
 */

int q2_read_co(struct block *b, uint64_t off, const struct iovecs *v) must_check;
int q2_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags) must_check;
int q2_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags) must_check;
int q2_discard_co(struct block *b, uint64_t off, uint64_t len) must_check;
int q2_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st) must_check;
/* Unmap whole clusters [off, end) whatever a backing file has there: the disk gets shorter. */
int q2_drop_co(struct qcow2 *s, uint64_t off, uint64_t end) must_check;
/* Allocate without data, for preallocation. Clusters must be unallocated. */
int q2_preallocate_co(struct qcow2 *s, uint64_t off, uint64_t end) must_check;
int q2_compressed_read_co(struct qcow2 *s, uint64_t entry, uint64_t in_cluster,
			  const struct iovecs *v) must_check;

/* ---- qcow2_snapshot.c, qcow2_tree.c, qcow2_check.c, qcow2_resize.c
 * --------------------------------- */

/* An empty refcount structure of `refs` (by cluster) instead of what is there. */
int q2_refcounts_rebuild_co(struct qcow2 *s, const uint32_t *refs, uint64_t n,
			    struct err *e) must_check;
int q2_snapshots_load_co(struct qcow2 *s, struct err *e) must_check;
void q2_snapshots_free(struct qcow2 *s);
/*
 * All that an L1 table reaches: add delta (-1, 0, 1) to its refcounts. active: the table is the
 * active one, whose COPIED bits are brought in line (l1 itself is changed, too); else its L2
 * tables lose theirs if delta is not negative.
 */
int q2_tree_co(struct qcow2 *s, uint64_t *l1, uint32_t l1_size, int delta, bool active) must_check;
int q2_truncate_co(struct block *b, uint64_t len, struct err *e) must_check;
/* Replace the active L1 table (malloc'd; becomes the image's) and the disk's size, atomically. */
int q2_l1_replace_co(struct qcow2 *s, uint64_t *l1, uint32_t n, uint64_t size,
		     struct err *e) must_check;
int q2_l1_min_size(const struct qcow2 *s, uint64_t size, uint32_t *n); /* -EFBIG */
