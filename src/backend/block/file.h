/*
 * Inside of driver "file". Threads: any; the functions look at the host only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct block;

/* The fd of a node of driver "file", -1: another driver. */
int block_file_fd(const struct block *b);

/* What O_DIRECT wants of offsets and of memory, for a regular file of len bytes. */
void block_file_probe_direct(int fd, uint64_t len, uint32_t *request, uint32_t *memory);
