/*
 * Inside of driver "file". Threads: any; the functions look at the host only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct block;
struct block_opts;

/* The fd of a node of driver "file", -1: another driver. */
int block_file_fd(const struct block *b);

/* What O_DIRECT wants of offsets and of memory, for a regular file of len bytes. */
void block_file_probe_direct(int fd, uint64_t len, uint32_t *request, uint32_t *memory);

/*
 * Lock for what o says (writable, force_share, no_lock); the lock ends with the descriptor. -EAGAIN
 * if others use it in a way that does not fit. A host that has no such locks gives a warning.
 */
int block_file_lock(int fd, const struct block_opts *o, const char *path, struct err *e) must_check;
