/*
 * What the programs that exercise the qcow2 driver share: a loop, a context, random numbers, the
 * first failure, tasks that run together; random configurations of an image, and images over
 * memfiles.
 * Threads: one loop.
 */
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"
#include "base/bits.h"
#include "memfile.h"

struct bed {
	struct clock clock;
	struct loop *loop;
	struct block_ctx *ctx;
	uint64_t seed, random;
	unsigned running; /* bed_co_together */
	struct task *waiter;
	int failed;
	char what[400]; /* the first failure */
};

static inline void bed_open(struct bed *b)
{
	struct err e;

	clock_init_host(&b->clock);
	b->loop = loop_new(&b->clock, &e);
	b->ctx = b->loop ? block_ctx_new(b->loop, BLOCK_AIO_THREADS, &e) : NULL;
	if (!b->ctx) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
}

static inline void bed_close(struct bed *b)
{
	block_ctx_free(b->ctx);
	loop_free(b->loop);
}

static inline void bed_run(struct bed *b, void (*fn)(void *), void *arg)
{
	if (tasks_run(block_ctx_tasks(b->ctx), fn, arg) < 0)
		abort();
}

/* The random numbers of a seed. */
static inline void bed_seed(struct bed *b, uint64_t seed)
{
	b->seed = seed;
	b->random = seed * 0x9e3779b97f4a7c15ull | 1;
	for (unsigned k = 0; k < 4; k++)
		mem_random(&b->random);
}

/* 0 to n - 1; 0 of 0. */
static inline uint64_t bed_rnd(struct bed *b, uint64_t n)
{
	return n ? mem_random(&b->random) % n : 0;
}

__attribute__((format(printf, 2, 3))) static inline void bed_fail(struct bed *b, const char *fmt,
								  ...)
{
	va_list ap;

	if (b->failed++)
		return;
	va_start(ap, fmt);
	vsnprintf(b->what, sizeof(b->what), fmt, ap);
	va_end(ap);
}

/* Run fn as a task for each of n elements of size bytes, and wait until each has called bed_ended.
 */
static inline void bed_co_together(struct bed *b, void (*fn)(void *), void *elements, size_t size,
				   unsigned n)
{
	b->running = n;
	for (unsigned i = 0; i < n; i++) {
		if (task_start(block_ctx_tasks(b->ctx), fn, (char *)elements + i * size) < 0)
			abort();
	}
	b->waiter = task_self();
	while (b->running)
		task_co_wait();
	b->waiter = NULL;
}

static inline void bed_ended(struct bed *b)
{
	if (!--b->running && b->waiter)
		task_wake(b->waiter);
}

/* A new image in m. -errno with e. */
static inline int bed_co_create(struct bed *b, struct memfile *m, const struct qcow2_create *c,
				struct err *e)
{
	struct block *file;
	int r = mem_co_open(b->ctx, m, true, &file, e);

	if (r >= 0)
		r = qcow2_co_create(file, NULL, c, e);
	block_co_close(file);
	return r;
}

/* An image over m; base, when not NULL, shows through. Takes nothing. -errno with e. */
static inline int bed_co_image(struct bed *b, struct memfile *m, struct memfile *base, bool check,
			       bool writable, struct block **out, struct err *e)
{
	struct block_opts o = { .filename = "mem.qcow2",
				.writable = writable,
				.discard_unmap = true,
				.no_backing = true,
				.check = check,
				.cache_size = 64 << 10 };
	struct block *file, *back;
	int r = mem_co_open(b->ctx, m, writable, &file, e);

	if (r >= 0)
		r = block_co_open_node(b->ctx, &qcow2_driver, &o, NULL, file, out, e);
	if (r < 0 || !base)
		return r;
	r = mem_co_open(b->ctx, base, false, &back, e);
	if (r >= 0)
		r = block_co_open_node(b->ctx, block_driver("raw", NULL),
				       &(struct block_opts){ .filename = "base.raw" }, NULL, back,
				       &(*out)->backing, e);
	return r;
}

/* What is in a sector that the n-th write wrote: "sector, write" over and over, and not zero. */
static inline void bed_stamp(uint8_t *p, uint32_t sector, uint32_t write)
{
	sector++;
	for (unsigned i = 0; i < 512; i += 8) {
		memcpy(p + i, &sector, 4);
		memcpy(p + i + 4, &write, 4);
	}
}

/* A random kind of image; every field of c except size, and *backing. */
static inline void bed_config(uint64_t *random, struct qcow2_create *c, bool *backing)
{
	static const uint32_t clusters[] = { 512, 512, 1024, 4096, 4096, 16384, 65536, 2 << 20 };

	*c = (struct qcow2_create){ .version = mem_random(random) % 4 ? 3 : 2 };
	c->cluster_size = clusters[mem_random(random) % ARRAY_SIZE(clusters)];
	c->refcount_bits = c->version == 2 ? 16 : 1u << mem_random(random) % 7;
	c->lazy_refcounts = c->version == 3 && mem_random(random) % 4 == 0;
	c->zstd = c->version == 3 && mem_random(random) % 2;
	c->extended_l2 = c->version == 3 && c->cluster_size >= 16384 && mem_random(random) % 2;
	*backing = mem_random(random) % 2;
	c->backing_file = *backing ? "base.raw" : NULL;
	c->backing_format = *backing ? "raw" : NULL;
}

/* What kind it is, for people. */
static inline const char *bed_kind(const struct qcow2_create *c, bool backing, char text[100])
{
	snprintf(text, 100, "version %u, %u-byte clusters, %u-bit refcounts%s%s%s", c->version,
		 c->cluster_size, c->refcount_bits, c->lazy_refcounts ? ", lazy" : "",
		 c->extended_l2 ? ", extended" : "", backing ? ", backing" : "");
	return text;
}
