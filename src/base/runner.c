/* See runner.h. */
#include "base/runner.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "base/bits.h"

#define RUNNER_LONG        300000u /* ns: longer than what our threads do at a time, or a move lasts */
#define HANDOFF_REST       100000000u
#define APART_REST         20000000u
#define APART_REST_IN_VAIN 1000000000u /* the others are busy */

/* How many threads are "here", by processor. Those beyond the table do not count. */
static struct {
	_Alignas(64) atomic_int n;
} runner_count[256];
static _Thread_local int runner_cpu = -1;

static uint64_t runner_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void runner_gone(void)
{
	if (runner_cpu >= 0)
		atomic_fetch_sub_explicit(&runner_count[runner_cpu].n, 1, memory_order_relaxed);
	runner_cpu = -1;
}

void runner_here(void)
{
	int cpu = sched_getcpu();

	if (cpu == runner_cpu)
		return;
	runner_gone();
	if (cpu < 0 || cpu >= (int)ARRAY_SIZE(runner_count))
		return;
	atomic_fetch_add_explicit(&runner_count[cpu].n, 1, memory_order_relaxed);
	runner_cpu = cpu;
}

bool runner_shared(void)
{
	int cpu = sched_getcpu();

	return cpu >= 0 && cpu < (int)ARRAY_SIZE(runner_count) &&
	       atomic_load_explicit(&runner_count[cpu].n, memory_order_relaxed);
}

static atomic_int runner_sleepers;

void runner_asleep(bool on)
{
	atomic_fetch_add_explicit(&runner_sleepers, on ? 1 : -1, memory_order_relaxed);
}

void runner_handoff(void)
{
	static _Thread_local uint64_t not_before;
	uint64_t start, end;

	if (!atomic_load_explicit(&runner_sleepers, memory_order_relaxed))
		return;
	start = runner_now();
	if (start < not_before)
		return;
	sched_yield();
	end = runner_now();
	if (end - start > RUNNER_LONG)
		not_before = end + HANDOFF_REST;
}

void runner_apart(void)
{
	static _Thread_local uint64_t not_before;
	uint64_t start, end;
	cpu_set_t all, rest;
	int cpu = sched_getcpu();

	if (cpu < 0 || cpu >= CPU_SETSIZE || !runner_shared())
		return;
	start = runner_now();
	if (start < not_before || sched_getaffinity(0, sizeof(all), &all))
		return;
	rest = all;
	CPU_CLR(cpu, &rest);
	if (!CPU_COUNT(&rest) || sched_setaffinity(0, sizeof(rest), &rest))
		return;
	sched_setaffinity(0, sizeof(all), &all);
	end = runner_now();
	not_before = end + (end - start > RUNNER_LONG ? APART_REST_IN_VAIN : APART_REST);
}
