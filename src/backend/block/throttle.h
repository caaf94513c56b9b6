/*
 * Limits on bytes and operations a second, with bursts.
 *
 * Each limit is a leaky bucket: a request pours its bytes (or 1) in, and waits while the bucket is
 * fuller than what a burst may be; it leaks at the average rate. With a burst rate there is a
 * second, small bucket that leaks at that rate, so a burst is not infinitely fast.
 * Threads: pure functions over the caller's memory.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum throttle_kind {
	THROTTLE_BPS,
	THROTTLE_BPS_RD,
	THROTTLE_BPS_WR,
	THROTTLE_IOPS,
	THROTTLE_IOPS_RD,
	THROTTLE_IOPS_WR,
	THROTTLE_KINDS
};

struct throttle_limits {
	struct {
		uint64_t avg;           /* a second; 0: no limit */
		uint64_t max;           /* a second, during a burst; 0: no bursts */
		uint64_t burst_seconds; /* how long a burst may be; 0: 1 */
	} kind[THROTTLE_KINDS];
	uint64_t iops_size; /* a request counts once for so many bytes; 0: once */
};

struct throttle {
	struct throttle_limits limits;
	double level[THROTTLE_KINDS], burst[THROTTLE_KINDS]; /* units in the buckets */
	uint64_t last;                                       /* ns, when they were leaked */
};

/* -EINVAL for what contradicts itself. */
int throttle_check(const struct throttle_limits *l, struct err *e) must_check;
bool throttle_any(const struct throttle_limits *l);
void throttle_init(struct throttle *t, const struct throttle_limits *l, uint64_t now);

/* How long a request in this direction must wait, in ns; 0: it may go. */
uint64_t throttle_wait(struct throttle *t, bool write, uint64_t now);

/* It goes. */
void throttle_account(struct throttle *t, bool write, uint64_t bytes);
