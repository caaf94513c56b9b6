/*
 * The balloon, as a monitor sees it. d: a virtio-balloon device. Threads: under the device lock.
 */
#pragma once
#include <stdint.h>

#include "core/dev.h"

/* What the guest says of its memory; UINT64_MAX: it has not said that. Bytes, or counts. */
enum balloon_stat {
	BALLOON_SWAP_IN,
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,
	BALLOON_TOTAL,
	BALLOON_AVAILABLE,
	BALLOON_CACHES,
	BALLOON_HUGETLB_ALLOC,
	BALLOON_HUGETLB_FAIL,
	BALLOON_STATS,
};

/* The guest shall have so many bytes of its memory; all of it and more: an empty balloon. */
void balloon_set_target(struct dev *d, uint64_t bytes);

/* How many bytes it has now, as far as it has said. */
uint64_t balloon_actual(const struct dev *d);

/* Ask for new statistics every so many seconds, 0: never. */
void balloon_poll_stats(struct dev *d, uint32_t seconds);
uint64_t balloon_stat(const struct dev *d, enum balloon_stat s);
const char *balloon_stat_name(enum balloon_stat s); /* as QEMU's qom-get has it */
