/*
 * The host memory behind guest memory: a mapping, perhaps with a file under it, counted by the
 * blocks that place pieces of it in the guest's address space. For memory.c only.
 *
 * Threads:        as gmem_add_ram and gmem_discard (memory.h).
 * Host resources: one mapping a backing, and a memfd or file for those that are shared.
 */
#pragma once
#include "core/memory.h"

struct gmem_backing {
	uint8_t *host;
	uint64_t size;
	int fd;         /* -1: anonymous */
	unsigned users; /* blocks that use it */
	bool private_map;
	uint64_t page; /* what the host can take back in one piece */
};

/* One user. NULL with a message a user understands. */
struct gmem_backing *gmem_backing_new(const char *name, uint64_t size, const struct gmem_opts *o,
				      struct err *e);

/* One user less; the last one unmaps and closes. */
void gmem_backing_put(struct gmem_backing *k);

/* Whole pages of [off, off+len) go back to the host and read as zeroes. 0 or as gmem_discard. */
int gmem_backing_discard(const struct gmem_backing *k, uint64_t off, uint64_t len);
