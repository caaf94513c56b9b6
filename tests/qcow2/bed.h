/*
 * What the programs that exercise the qcow2 driver share: a loop, a context, random configurations
 * of an image and an image over memfiles.
 * Threads: one loop.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/qcow2.h"
#include "base/bits.h"
#include "memfile.h"

struct bed {
	struct clock clock;
	struct loop *loop;
	struct block_ctx *ctx;
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
