/*
 * Where time comes from: nanoseconds of the host's CLOCK_MONOTONIC, or a counter that a test moves.
 *
 * A clock can be stopped and started (a paused guest sees no time pass). Each clock also knows the
 * wall-clock time that belongs to its "now", for real-time clocks; in virtual mode wall time moves
 * with the counter, so tests of calendar code need no luck.
 * Threads: reading is for any thread; clock_stop/start/advance are for one thread at a time.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS  1000000ull
#define NS_PER_US  1000ull

struct clock {
	bool is_virtual;
	_Atomic bool stopped;
	_Atomic uint64_t offset; /* host mode: now = CLOCK_MONOTONIC - offset */
	_Atomic uint64_t frozen; /* virtual mode, or while stopped: the value of now */
	int64_t wall_base;       /* virtual mode: wall time (ns since 1970) at now = 0 */
};

/* Follow the host. Now starts near zero and runs. */
void clock_init_host(struct clock *c);

/* Stand at start_ns until advanced; wall time at now = 0 is wall_ns since 1970-01-01 UTC. */
void clock_init_virtual(struct clock *c, uint64_t start_ns, int64_t wall_ns);

/* Nanoseconds; never goes back. */
uint64_t clock_now(const struct clock *c);

/* Wall time in nanoseconds since 1970-01-01 00:00 UTC. Follows the host's settings in host mode. */
int64_t clock_wall(const struct clock *c);

/* Virtual mode only: move on by ns. Timers do not run by this; see loop_advance(). */
void clock_advance(struct clock *c, uint64_t ns);

/* Freeze now; go on from the frozen value. Idempotent. The loop's timers follow
 * (loop_clock_changed). */
void clock_stop(struct clock *c);
void clock_start(struct clock *c);

/*
 * Host mode: set now to the given value (a snapshot brings its own time). Call while stopped.
 * Deadlines stored by devices are absolute values of this clock and stay right.
 */
void clock_set(struct clock *c, uint64_t now_ns);

/* Ticks of a counter of hz at time now_ns (hz up to 2^33), without overflow. */
static inline uint64_t clock_ticks(uint64_t now_ns, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)now_ns * hz / NS_PER_SEC);
}

/* The first time in ns at which clock_ticks(time, hz) is at least ticks; saturates. */
static inline uint64_t clock_tick_time(uint64_t ticks, uint64_t hz)
{
	unsigned __int128 t = ((unsigned __int128)ticks * NS_PER_SEC + hz - 1) / hz;

	return t > UINT64_MAX ? UINT64_MAX : (uint64_t)t;
}
