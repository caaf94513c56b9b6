/*
 * Scattered requests to a virtio disk of the host, made of one piece.
 *
 * Why: a guest's request of 1 MiB is often 256 pages from all over its memory. Each piece is a
 * descriptor for the disk of a host that is a virtual machine itself, and costs it 2 to 3
 * microseconds: 1 MiB took 350 us in one piece and 950 in 256 there, a copy of it 50 to 80. Disks
 * whose controllers read memory themselves do not care, so it is done for virtio disks only, and
 * only without the page cache (with it, the host's kernel copies and gathers anyway).
 *
 * Threads: those of the node that owns it. Host resources: up to GATHER_BUFFERS of GATHER_SIZE,
 * taken when they are first needed, kept until it is freed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "backend/block/block.h"

#define GATHER_SIZE    ((size_t)2 << 20) /* the longest request, and a huge page */
#define GATHER_BUFFERS 4

struct gather;

/* Is the disk below this open file or block device a virtio one? False when that is not to be seen.
 */
bool gather_on_virtio(int fd);

/* NULL: out of memory. */
struct gather *gather_new(void);
void gather_free(struct gather *g); /* no buffer is in use; NULL is allowed */

/* Would a copy cost less than the pieces do? */
bool gather_worth(const struct iovecs *v);

/* A buffer of GATHER_SIZE bytes, page-aligned, or NULL: all in use, or no memory. */
void *gather_get(struct gather *g);
void gather_put(struct gather *g, void *buf);
