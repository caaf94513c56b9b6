/*
 * Programs whose time is memory's: copies, streams, chains of pointers.
 *
 * Threads: none.
 */
#include "engine/suite.h"

#include <string.h>

static uint64_t bench_memcpy_8m(uint64_t n)
{
	static uint8_t *a, *b;

	if (!a) {
		a = bench_pages(8 << 20);
		b = bench_pages(8 << 20);
	}
	while (n--) {
		memcpy(a, b, 8 << 20);
		__asm__ volatile("" ::: "memory");
	}
	return a[5];
}

static uint64_t bench_memcpy_4000(uint64_t n)
{
	static uint8_t *a;

	if (!a)
		a = bench_pages(8192);
	while (n--) {
		memcpy(a, a + 4096, 4000);
		__asm__ volatile("" ::: "memory");
	}
	return a[5];
}

#define STREAM (1 << 17)
static uint64_t bench_stream(uint64_t n)
{
	static double *a, *b, *c;

	if (!a) {
		a = bench_pages(STREAM * 8);
		b = bench_pages(STREAM * 8);
		c = bench_pages(STREAM * 8);
	}
	while (n--) {
		for (int i = 0; i < STREAM; i++)
			a[i] = b[i] + 3.0 * c[i];
		__asm__ volatile("" ::: "memory");
	}
	return (uint64_t)(int64_t)a[7];
}

/* One cycle through all lines of size bytes, in an order no prefetcher sees (Sattolo's shuffle). */
static void **bench_chain(size_t size)
{
	size_t lines = size / 64;
	uint8_t *p = bench_pages(size);
	uint32_t *order =
		bench_pages(lines * sizeof(*order) < 4096 ? 4096 : lines * sizeof(*order));
	uint32_t s = 9;

	for (size_t i = 0; i < lines; i++)
		order[i] = (uint32_t)i;
	for (size_t i = lines - 1; i; i--) {
		size_t j = bench_rand(&s) % i;
		uint32_t t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (size_t i = 0; i < lines; i++)
		*(void **)(p + 64ull * order[i]) = p + 64ull * order[(i + 1) % lines];
	return (void **)p;
}

static void **bench_follow(void **p, uint64_t n)
{
	while (n--)
		p = *p;
	return p;
}

static uint64_t bench_chase_l1(uint64_t n)
{
	static void **at;

	if (!at)
		at = bench_chain(16 << 10);
	at = bench_follow(at, n * 100);
	return (uint64_t)(uintptr_t)at;
}

static uint64_t bench_chase_64m(uint64_t n)
{
	static void **at;

	if (!at)
		at = bench_chain(64 << 20);
	at = bench_follow(at, n * 100);
	return (uint64_t)(uintptr_t)at;
}

const struct bench bench_memory[] = {
	BENCH(memcpy_8m, "8 MiB"),    BENCH(memcpy_4000, "4000 B"),  BENCH(stream, "3 MiB"),
	BENCH(chase_l1, "100 loads"), BENCH(chase_64m, "100 loads"), { 0 },
};
