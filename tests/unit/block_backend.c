/* Backends: policies for errors, throttling, cache modes, draining, overlays; on a failing host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "backend/block/backend.h"
#include "block_fault.h"
#include "core/runstate.h"

struct bed {
	struct clock clock;
	struct loop *loop;
	struct block_ctx *ctx;
	struct runstate run;
	struct blk *blk;
	enum req_kind asked;
};
static struct bed bed;

static void bed_request(void *opaque, const struct request *r)
{
	bed.asked = r->kind;
}

static int bed_new(void **state)
{
	memset(&bed, 0, sizeof(bed));
	clock_init_virtual(&bed.clock, 0, 0);
	bed.loop = loop_new(&bed.clock, NULL);
	bed.ctx = block_ctx_new(bed.loop, BLOCK_AIO_THREADS, NULL);
	runstate_init(&bed.run, bed.loop, bed_request, NULL);
	return !bed.ctx;
}

static int bed_free(void **state)
{
	blk_free(bed.blk);
	block_ctx_free(bed.ctx);
	runstate_destroy(&bed.run);
	loop_free(bed.loop);
	return 0;
}

static struct blk *blk_make(const struct blk_conf *c)
{
	struct block_opts o = { .writable = true, .discard_unmap = true };

	fault = (struct fault){ .len = 1 << 20 };
	bed.blk = blk_new("d0", fault_open(bed.ctx, &o), c, &bed.run, NULL);
	assert_non_null(bed.blk);
	return bed.blk;
}

struct io {
	struct blk_req r;
	struct iovec iov;
	uint8_t buf[4096];
	int result; /* 1: not yet */
	uint64_t at;
};

static void io_done(struct blk_req *r, int result)
{
	struct io *io = container_of(r, struct io, r);

	assert_int_equal(io->result, 1); /* once */
	io->result = result;
	io->at = clock_now(&bed.clock);
}

static struct io *io_start(struct io *io, enum blk_op op, uint64_t off, uint64_t len)
{
	*io = (struct io){ .r = { .op = op, .off = off, .len = len, .done = io_done },
			   .result = 1 };
	memset(io->buf, 0x42, sizeof(io->buf));
	io->r.v = iovecs_one(&io->iov, io->buf, len);
	blk_submit(bed.blk, &io->r);
	return io;
}

static int io_run(enum blk_op op, uint64_t off, uint64_t len)
{
	struct io io;

	io_start(&io, op, off, len);
	loop_advance(bed.loop, 0);
	return io.result;
}

static void plain(void **state)
{
	struct blk *b = blk_make(&(struct blk_conf){ 0 });

	assert_int_equal(io_run(BLK_WRITE, 512, 512), 0);
	assert_int_equal(fault.bytes[512], 0x42);
	assert_int_equal(io_run(BLK_READ, 0, 4096), 0);
	assert_int_equal(io_run(BLK_ZERO, 512, 512), 0);
	assert_int_equal(fault.bytes[512], 0);
	assert_int_equal(io_run(BLK_DISCARD, 0, 512), 0);
	assert_int_equal(fault.discards, 1);
	assert_int_equal(io_run(BLK_FLUSH, 0, 0), 0);
	assert_int_equal(fault.flushes, 1);
	assert_int_equal(io_run(BLK_READ, (1 << 20) - 511, 512), -EIO);
	assert_int_equal(io_run(BLK_WRITE, UINT64_MAX - 511, 512), -EIO);
	assert_int_equal(blk_stats(b).op[BLK_READ].ops, 1);
	assert_int_equal(blk_stats(b).op[BLK_READ].bytes, 4096);
	assert_int_equal(blk_stats(b).op[BLK_READ].failed, 1);
	assert_int_equal(blk_stats(b).in_flight, 0);
}

static void writethrough(void **state)
{
	struct blk *b = blk_make(&(struct blk_conf){ .writethrough = true });

	assert_int_equal(io_run(BLK_WRITE, 0, 512), 0);
	assert_int_equal(io_run(BLK_ZERO, 0, 512), 0);
	assert_int_equal(fault.flushes, 2);
	blk_set_writethrough(b, false);
	assert_int_equal(io_run(BLK_WRITE, 0, 512), 0);
	assert_int_equal(fault.flushes, 2);
	/* the write is not acknowledged if the flush fails */
	blk_set_writethrough(b, true);
	fault.fail_flush = 1;
	assert_int_equal(io_run(BLK_WRITE, 0, 512), -EIO);
}

static void report_ignore(void **state)
{
	struct blk *b = blk_make(&(struct blk_conf){ .werror = BLK_IGNORE });

	fault.fail_read = fault.fail_write = fault.fail_flush = 1;
	assert_int_equal(io_run(BLK_READ, 0, 512), -EIO);
	assert_int_equal(io_run(BLK_WRITE, 0, 512), 0);
	assert_int_equal(io_run(BLK_FLUSH, 0, 0), 0);
	assert_int_equal(bed.asked, REQ_NONE);
	assert_int_equal(blk_set_on_error(b, NULL, "stopp", NULL), -EINVAL);
}

/* Failed requests are kept, in order, and tried again when the machine goes on. */
static void stop(void **state)
{
	struct blk *b = blk_make(&(struct blk_conf){ .werror = BLK_STOP });
	struct io a, c;

	fault.fail_write = 1;
	fault.sticky = true;
	io_start(&a, BLK_WRITE, 0, 512);
	io_start(&c, BLK_WRITE, 512, 512);
	loop_advance(bed.loop, 0);
	assert_int_equal(a.result, 1);
	assert_int_equal(bed.asked, REQ_PAUSE);
	assert_true(blk_has_kept(b));
	blk_drain(b); /* does not wait for them */
	bed.asked = REQ_NONE;
	blk_resume(b); /* still bad: paused again */
	loop_advance(bed.loop, 0);
	assert_int_equal(bed.asked, REQ_PAUSE);
	assert_int_equal(a.result, 1);
	fault.fail_write = 0;
	blk_resume(b);
	loop_advance(bed.loop, 0);
	assert_int_equal(a.result, 0);
	assert_int_equal(c.result, 0);
	assert_int_equal(fault.bytes[1023], 0x42);
	assert_false(blk_has_kept(b));
	/* a reset cancels */
	fault.fail_write = 1;
	io_start(&a, BLK_WRITE, 0, 512);
	blk_cancel_kept(b);
	assert_int_equal(a.result, -ECANCELED);
}

static void enospc(void **state)
{
	struct io a;

	blk_make(&(struct blk_conf){ .werror = BLK_ENOSPC, .rerror = BLK_ENOSPC });
	fault.fail_write = 1;
	assert_int_equal(io_run(BLK_WRITE, 0, 512), -EIO);
	fault.fail_write = 1;
	fault.error = -ENOSPC;
	io_start(&a, BLK_WRITE, 0, 512);
	loop_advance(bed.loop, 0);
	assert_int_equal(a.result, 1);
	assert_int_equal(bed.asked, REQ_PAUSE);
	blk_resume(bed.blk);
	loop_advance(bed.loop, 0);
	assert_int_equal(a.result, 0);
}

/* 100 requests of 4 KiB at 100 a second take about a second, in order. */
static void throttled(void **state)
{
	static struct io io[100];
	struct blk_conf c = { .limits.kind[THROTTLE_IOPS].avg = 100 };
	uint64_t last = 0;

	blk_make(&c);
	for (int i = 0; i < 100; i++)
		io_start(&io[i], BLK_READ, 0, 4096);
	loop_advance(bed.loop, 500 * NS_PER_MS);
	assert_int_equal(io[20].result, 0);
	assert_int_equal(io[80].result, 1);
	loop_advance(bed.loop, 1000 * NS_PER_MS);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(io[i].result, 0);
		assert_true(io[i].at >= last);
		last = io[i].at;
	}
	assert_in_range(last, 800 * NS_PER_MS, 1000 * NS_PER_MS);
}

static void throttled_bytes_and_bursts(void **state)
{
	static struct io io[200];
	struct blk_conf c = { 0 };
	unsigned done;

	/* 100 KB/s on average, for two seconds 400 KB/s; reads only */
	c.limits.kind[THROTTLE_BPS_RD].avg = 102400;
	c.limits.kind[THROTTLE_BPS_RD].max = 409600;
	c.limits.kind[THROTTLE_BPS_RD].burst_seconds = 2;
	assert_int_equal(throttle_check(&c.limits, NULL), 0);
	blk_make(&c);
	assert_int_equal(io_run(BLK_WRITE, 0, 4096), 0);
	for (int i = 0; i < 200; i++)
		io_start(&io[i], BLK_READ, 0, 4096);
	for (int s = 1; s <= 2; s++) {
		loop_advance(bed.loop, NS_PER_SEC);
		done = 0;
		for (int i = 0; i < 200; i++)
			done += io[i].result == 0;
		assert_in_range(done * 4096, s * 380000, s * 409600 + 50000);
	}
	/* whoever waits for it all lets it through */
	blk_drain(bed.blk);
	assert_int_equal(io[199].result, 0);
}

static void limits_refused(void **state)
{
	struct throttle_limits l = { 0 };
	struct err e = { 0 };

	l.kind[THROTTLE_BPS].avg = l.kind[THROTTLE_BPS_RD].avg = 1;
	assert_int_equal(throttle_check(&l, &e), -EINVAL);
	l = (struct throttle_limits){ .kind[THROTTLE_IOPS].max = 5 };
	assert_int_equal(throttle_check(&l, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "iops_max needs iops"));
	l = (struct throttle_limits){ .iops_size = 5 };
	assert_int_equal(throttle_check(&l, &e), -EINVAL);
	l = (struct throttle_limits){ .kind[THROTTLE_IOPS].avg = UINT64_MAX };
	assert_int_equal(throttle_check(&l, &e), -EINVAL);
}

static unsigned resized;

static void note_resize(void *opaque)
{
	resized++;
}

static void resize(void **state)
{
	struct blk *b = blk_make(&(struct blk_conf){ 0 });
	struct err e = { 0 };

	assert_int_equal(blk_attach(b, "disk0", note_resize, NULL, &e), 0);
	assert_int_equal(blk_attach(b, "disk1", NULL, NULL, &e), -EBUSY);
	assert_non_null(strstr(e.msg, "disk0"));
	assert_int_equal(blk_resize(b, 2 << 20, &e), 0);
	assert_int_equal(resized, 1);
	assert_int_equal(blk_len(b), 2 << 20);
	assert_int_equal(io_run(BLK_WRITE, (2 << 20) - 512, 512), 0);
	assert_int_equal(blk_resize(b, 1000, &e), -EINVAL);
	blk_detach(b);
}

static void list(void **state)
{
	struct blks bs = { NULL };
	uint8_t *first;
	struct err e = { 0 };

	assert_int_equal(blks_add(&bs, blk_make(&(struct blk_conf){ 0 }), &e), 0);
	first = fault.bytes;
	assert_int_equal(blks_add(&bs, blk_make(&(struct blk_conf){ 0 }), &e), -EEXIST);
	fault.bytes = first; /* the first one's, to be freed */
	assert_ptr_equal(blks_find(&bs, "d0"), blks_at(&bs, 0));
	assert_null(blks_at(&bs, 1));
	blks_free(&bs);
	bed.blk = NULL;
}

/* ---- snapshot=on --------------------------------------------------------------------------- */

struct over {
	struct block *below, *top;
};

static void t_overlay(void *arg)
{
	struct over *o = arg;
	uint8_t *model = malloc(fault.len), *buf = malloc(70000);
	struct block_status st;

	memcpy(model, fault.bytes, fault.len);
	assert_int_equal(block_co_open_overlay(bed.ctx, o->below, &o->below->opts, &o->top, NULL),
			 0);
	assert_int_equal(o->top->len, fault.len);
	srand(3);
	for (int i = 0; i < 300; i++) {
		uint64_t off = (uint64_t)rand() % fault.len;
		size_t want = (size_t)rand() % (i % 3 ? 5000 : 70000);
		size_t len = MIN(want, fault.len - off);

		if (i % 2) {
			assert_int_equal(block_co_pread(o->top, off, buf, len), 0);
			assert_memory_equal(buf, model + off, len);
		} else if (i % 10 == 0) {
			assert_int_equal(block_co_zero(o->top, off, len, BLOCK_UNMAP), 0);
			memset(model + off, 0, len);
		} else {
			memset(buf, i, len);
			assert_int_equal(block_co_pwrite(o->top, off, buf, len, 0), 0);
			memcpy(model + off, buf, len);
		}
	}
	assert_int_equal(fault.writes, 0);
	assert_int_equal(fault.zeroes, 0);
	for (uint64_t at = 0; at < fault.len; at += st.len)
		assert_int_equal(block_co_status_chain(o->top, at, fault.len - at, &st), 0);
	block_co_close(o->top);
	free(model);
	free(buf);
}

static void overlay(void **state)
{
	struct block_opts opts = { 0 };
	struct over o;

	fault = (struct fault){ .len = 1000000 }; /* no multiple of a block */
	o.below = fault_open(bed.ctx, &opts);
	for (unsigned i = 0; i < fault.len; i++)
		fault.bytes[i] = (uint8_t)(i >> 9);
	assert_int_equal(tasks_run(block_ctx_tasks(bed.ctx), t_overlay, &o), 0);
}

/* Bytes that the host has for the only file without a name and of this length; -1: none. */
static int64_t nameless_bytes(uint64_t len)
{
	struct stat st;

	for (int fd = 3; fd < 256; fd++)
		if (!fstat(fd, &st) && !st.st_nlink && (uint64_t)st.st_size == len)
			return st.st_blocks * 512;
	return -1;
}

static void t_overlay_space(void *arg)
{
	struct block_opts opts = { .raw_size = 1ull << 30 };
	struct block *below, *top;

	assert_int_equal(block_co_open_node(bed.ctx, block_driver("null-co", NULL), &opts, NULL,
					    NULL, &below, NULL),
			 0);
	assert_int_equal(block_co_open_overlay(bed.ctx, below, &opts, &top, NULL), 0);
	assert_int_equal(block_co_discard(top, 0, top->len), 0);
	assert_in_range(nameless_bytes(top->len), 0, 1 << 20);
	assert_int_equal(block_co_zero(top, 0, top->len, BLOCK_UNMAP), 0);
	assert_in_range(nameless_bytes(top->len), 0, 1 << 20);
	block_co_close(top);
}

/* A guest that discards all of its disk must not fill the host's. */
static void overlay_space(void **state)
{
	assert_int_equal(tasks_run(block_ctx_tasks(bed.ctx), t_overlay_space, NULL), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(plain),
		T(writethrough),
		T(report_ignore),
		T(stop),
		T(enospc),
		T(throttled),
		T(throttled_bytes_and_bursts),
		T(limits_refused),
		T(resize),
		T(list),
		T(overlay),
		T(overlay_space),
	};

	return cmocka_run_group_tests_name("block/backend", tests, NULL, NULL);
}
