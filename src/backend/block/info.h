/*
 * What an image says of itself: for kvasir-img info and the monitor.
 *
 * Filled by a driver's info_co; the caller zeroes it first and frees it with block_info_free.
 * Threads: the node's loop.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct block_snapshot {
	char *id, *name;
	uint64_t vm_state_size; /* bytes */
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec;
	uint64_t disk_size; /* bytes */
	uint64_t icount;    /* instructions executed by the guest */
	bool has_icount;
};

struct block_info {
	uint32_t cluster_size; /* bytes, 0: the format has none */
	bool encrypted, dirty;

	/* qcow2 only, valid if is_qcow2 */
	bool is_qcow2;
	bool compat_v3, lazy_refcounts, corrupt, extended_l2, has_bitmaps;
	bool has_data_file, data_file_raw;
	unsigned refcount_bits;
	const char *compression_type; /* "zlib" or "zstd" */

	struct block_snapshot *snapshots;
	unsigned n_snapshots;
};

void block_info_free(struct block_info *i);
