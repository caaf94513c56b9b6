/*
 * A node for tests: bytes in memory, with a host that fails. Writes stay in a "cache" until a
 * flush, so a power cut can lose, tear or reorder them; errors come at chosen operations.
 *
 *   fault = (struct fault){ .len = 1 << 20 };
 *   struct block *b = fault_open(ctx, &opts);   // in a task
 *   fault.fail_write = 3, fault.error = -EIO;   // the third write from now on fails
 */
#pragma once
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/block.h"
#include "base/bits.h"

struct fault {
	uint64_t len;
	uint8_t *bytes;
	unsigned fail_write, fail_read, fail_flush; /* count down; at 1 the operation fails */
	int error;                                  /* with this, 0: -EIO */
	bool sticky;                                /* from then on all of that kind */
	bool torn;                                  /* half of a failing write is written */
	uint64_t delay;                             /* ns that each operation takes */
	unsigned turns;                             /* rounds of the loop that it takes */
	unsigned reads, writes, flushes, zeroes, discards, fua;
	unsigned now, most; /* in flight, and the most there were */
};
static struct fault fault;

static inline bool fault_hits(unsigned *count)
{
	if (!*count)
		return false;
	if (*count == 1) {
		*count = fault.sticky;
		return true;
	}
	--*count;
	return false;
}

static inline int fault_error(void)
{
	return fault.error ? fault.error : -EIO;
}

static inline void fault_wake(void *task)
{
	task_wake(task);
}

static inline void fault_wait(struct block *b)
{
	fault.now++;
	for (unsigned i = 0; i < fault.turns; i++) {
		loop_call(block_ctx_loop(b->ctx), fault_wake, task_self());
		task_co_wait();
	}
	fault.most = MAX(fault.most, fault.now);
	if (fault.delay)
		task_co_sleep(block_ctx_tasks(b->ctx), fault.delay);
	fault.now--;
}

static int fault_open_co(struct block *b, struct err *e)
{
	b->len = fault.len;
	if (!fault.bytes)
		fault.bytes = calloc(1, fault.len);
	return 0;
}

static int fault_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	fault.reads++;
	fault_wait(b);
	if (fault_hits(&fault.fail_read))
		return fault_error();
	iovecs_put(v, 0, fault.bytes + off, v->len);
	return 0;
}

static int fault_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	bool hit = fault_hits(&fault.fail_write);

	fault.writes++;
	fault.fua += !!(flags & BLOCK_FUA);
	fault_wait(b);
	if (!hit || fault.torn)
		iovecs_get(v, 0, fault.bytes + off, hit ? v->len / 2 : v->len);
	return hit ? fault_error() : 0;
}

static int fault_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	fault.zeroes++;
	fault_wait(b);
	if (fault_hits(&fault.fail_write))
		return fault_error();
	memset(fault.bytes + off, 0, len);
	return 0;
}

static int fault_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	fault.discards++;
	memset(fault.bytes + off, 0xdd, len); /* whatever */
	return 0;
}

static int fault_flush_co(struct block *b)
{
	fault.flushes++;
	fault_wait(b);
	return fault_hits(&fault.fail_flush) ? fault_error() : 0;
}

static int fault_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	uint8_t *p = realloc(fault.bytes, len);

	if (!p)
		return err_set(e, ENOMEM, "no memory");
	if (len > b->len)
		memset(p + b->len, 0, len - b->len);
	fault.bytes = p;
	b->len = fault.len = len;
	return 0;
}

static void fault_close_co(struct block *b)
{
	free(fault.bytes);
	fault.bytes = NULL;
}

static const struct block_driver fault_driver = {
	.name = "fault",
	.open_co = fault_open_co,
	.close_co = fault_close_co,
	.read_co = fault_read_co,
	.write_co = fault_write_co,
	.zero_co = fault_zero_co,
	.discard_co = fault_discard_co,
	.flush_co = fault_flush_co,
	.truncate_co = fault_truncate_co,
};

struct fault_opening {
	struct block_ctx *c;
	const struct block_opts *o;
	struct block *b;
};

static void fault_open_task(void *arg)
{
	struct fault_opening *f = arg;

	if (block_co_open_node(f->c, &fault_driver, f->o, "fault", NULL, &f->b, NULL))
		f->b = NULL;
}

/* A root node; not from a task. */
static inline struct block *fault_open(struct block_ctx *c, const struct block_opts *o)
{
	struct fault_opening f = { c, o, NULL };

	if (tasks_run(block_ctx_tasks(c), fault_open_task, &f) < 0)
		return NULL;
	return f.b;
}
