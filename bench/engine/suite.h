/*
 * A suite of small programs for measuring engines: what the files share.
 *
 * Each program does n units of work and gives back a number that depends on all of it, so that the
 * compiler drops nothing; suite.c chooses n, measures, and prints nanoseconds for one unit.
 * References: DESIGN.md section 6 lists the ground covered.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct bench {
	const char *name;
	const char *unit; /* what one unit is */
	uint64_t (*run)(uint64_t n);
};

#define BENCH(id, what) \
	{ \
#id, what, bench_##id \
	}

extern const struct bench bench_cpu[], bench_memory[], bench_system[]; /* end: name NULL */

/* A stream of numbers, the same each time. */
static inline uint32_t bench_rand(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	*s ^= *s << 5;
	return *s;
}

/* Page-aligned memory that is touched before it is returned; never freed. */
void *bench_pages(size_t size);

__attribute__((noreturn)) void bench_fail(const char *what);
