/*
 * qcow2 images beyond reading and writing: creation, snapshots, check and repair, compression.
 *
 * Everything here is a task function of the node's loop, and expects that no other request of the
 * node is in flight unless it says otherwise. What is supported and how crashes are survived:
 * qcow2.c and qcow2_commit.c.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "backend/block/block.h"
#include "backend/block/info.h"
#include "base/err.h"

extern const struct block_driver qcow2_driver;

enum qcow2_prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct qcow2_create {
	uint64_t size;          /* of the virtual disk, bytes, a multiple of 512 */
	unsigned version;       /* 2 or 3; 0: 3 */
	uint32_t cluster_size;  /* 512 to 2 MiB; 0: 64 KiB */
	unsigned refcount_bits; /* 1 to 64, a power of two; 0: 16 */
	bool lazy_refcounts, extended_l2, zstd;
	enum qcow2_prealloc prealloc;
	const char *backing_file, *backing_format; /* NULL: none. Only stored, not opened. */
	const char *data_file;                     /* the name to store; NULL: data is inside */
	bool data_file_raw;
};

/* Every check that needs no file. 0 or -EINVAL. */
int qcow2_create_check(const struct qcow2_create *c, struct err *e) must_check;

/*
 * Write an empty image into file, an open writable node, whose old content goes away. data_file:
 * the open external data file or NULL. file stays the caller's.
 */
int qcow2_co_create(struct block *file, struct block *data_file, const struct qcow2_create *c,
		    struct err *e) must_check;

/* Is the node one of this driver? */
bool qcow2_is(const struct block *b);

/* ---- Snapshots ----------------------------------------------------------------------------- */

int qcow2_co_snapshot_create(struct block *b, const char *name, struct err *e) must_check;
/* By id, else by name. -ENOENT. */
int qcow2_co_snapshot_apply(struct block *b, const char *id_or_name, struct err *e) must_check;
int qcow2_co_snapshot_delete(struct block *b, const char *id_or_name, struct err *e) must_check;
/* Show the snapshot's content from now on; the node must be read-only. */
int qcow2_co_snapshot_view(struct block *b, const char *id_or_name, struct err *e) must_check;

/* ---- Check --------------------------------------------------------------------------------- */

enum { QCOW2_FIX_LEAKS = 1, QCOW2_FIX_ERRORS = 2 };
struct qcow2_check {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end;                                /* bytes */
	uint64_t total_clusters, allocated_clusters;       /* of the guest's disk */
	uint64_t fragmented_clusters, compressed_clusters; /* the same */
	/* Called with one line for each finding; NULL: counted only. */
	void (*report)(void *opaque, const char *line);
	void *opaque;
};
/* -errno only if the check could not be done; what it found is in *r. */
int qcow2_co_check(struct block *b, unsigned fix, struct qcow2_check *r, struct err *e) must_check;

/* ---- Others -------------------------------------------------------------------------------- */

/*
 * Write a whole cluster (or up to the end of the disk) compressed; stored plainly where that is
 * not smaller. May run in several tasks at once. off is aligned to the cluster size.
 */
int qcow2_co_write_compressed(struct block *b, uint64_t off, const void *buf,
			      uint32_t len) must_check;

/* Allocate everything from off on, as PREALLOC_METADATA does. */
int qcow2_co_preallocate(struct block *b, uint64_t off, enum qcow2_prealloc how,
			 struct err *e) must_check;

/* Unmap everything: the backing file shows through again. */
int qcow2_co_make_empty(struct block *b, struct err *e) must_check;

/* Put another backing file's name (NULL: none) into the header. */
int qcow2_co_change_backing(struct block *b, const char *file, const char *format,
			    struct err *e) must_check;
