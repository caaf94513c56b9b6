/*
 * kvasir-img bench: requests of one size at a fixed step, some in parallel, and the time they took.
 * Each of `depth` tasks takes the next request until all are sent. Threads: one.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/task.h"
#include "img/img.h"

enum { DEPTH_MAX = 1024 };

struct bench {
	struct block *b;
	uint64_t left, size, step, next, flush_every, until_flush;
	bool write, drain;
	uint8_t pattern;
	unsigned running, depth, in_flight;
	struct task *waiter;
	struct task_queue drained;
	bool flushing;
	int result;
};

/* Behind every so many writes; with drain nobody else runs meanwhile. */
static void bench_flush_co(struct bench *n)
{
	int r;

	n->until_flush = n->flush_every;
	n->flushing = n->drain;
	while (n->drain && n->in_flight)
		task_co_queue(&n->drained);
	r = block_co_flush(n->b);
	if (r < 0)
		n->result = r;
	n->flushing = false;
	task_queue_wake_all(&n->drained);
}

static void bench_task(void *arg)
{
	struct bench *n = arg;
	void *buf = NULL;

	if (posix_memalign(&buf, 4096, n->size)) {
		n->result = -ENOMEM;
		n->left = 0;
	} else {
		memset(buf, n->pattern, n->size);
	}
	while (n->left && n->result >= 0) {
		uint64_t off = n->next;
		int r;

		if (n->flushing) {
			task_co_queue(&n->drained);
			continue;
		}
		n->left--;
		n->next += n->step;
		if (n->b->len < n->size + n->next)
			n->next = 0;
		n->in_flight++;
		r = n->write ? block_co_pwrite(n->b, off, buf, n->size, 0)
			     : block_co_pread(n->b, off, buf, n->size);
		n->in_flight--;
		if (n->flushing)
			task_queue_wake_all(&n->drained);
		if (r < 0)
			n->result = r;
		if (r >= 0 && n->flush_every && !--n->until_flush)
			bench_flush_co(n);
	}
	free(buf);
	if (!--n->running && n->waiter)
		task_wake(n->waiter);
}

static int bench_run_co(struct bench *n, struct img *im)
{
	const struct clock *clock = loop_clock(im->loop);
	uint64_t start;

	printf("Sending %llu %s requests, %llu bytes each, %u in parallel (starting at offset "
	       "%llu, "
	       "step size %llu)\n",
	       (unsigned long long)n->left, n->write ? "write" : "read",
	       (unsigned long long)n->size, n->depth, (unsigned long long)n->next,
	       (unsigned long long)n->step);
	if (n->flush_every)
		printf("Sending flush every %llu %srequests\n", (unsigned long long)n->flush_every,
		       n->drain ? "" : "parallel ");
	fflush(stdout);
	start = clock_now(clock);
	for (unsigned i = 0; i < n->depth; i++) {
		if (task_start(block_ctx_tasks(im->ctx), bench_task, n) == 0)
			n->running++;
	}
	n->waiter = task_self();
	while (n->running)
		task_co_wait();
	if (n->result < 0)
		return img_fail("Failed request: %s", strerror(-n->result));
	printf("Run completed in %.3f seconds.\n", (double)(clock_now(clock) - start) / 1e9);
	return 0;
}

static int bench_number(const char *what, const char *arg, uint64_t min, uint64_t max,
			uint64_t *out)
{
	if (img_size(arg, out) < 0 || *out < min || *out > max)
		return img_fail("Invalid %s '%s'", what, arg);
	return 0;
}

int img_bench(struct img *im, int argc, char **argv)
{
	enum { OPT_FLUSH = OPT_OTHER, OPT_PATTERN, OPT_NO_DRAIN };
	static const struct option longs[] = { { "flush-interval", required_argument, NULL,
						 OPT_FLUSH },
					       { "pattern", required_argument, NULL, OPT_PATTERN },
					       { "no-drain", no_argument, NULL, OPT_NO_DRAIN },
					       { "force-share", no_argument, NULL, 'U' },
					       { "image-opts", no_argument, NULL, OPT_NOT },
					       { 0 } };
	struct bench n = { .left = 75000, .size = 4096, .depth = 64, .drain = true };
	struct block_opts o = { 0 };
	const char *format = NULL;
	uint64_t v;
	int c, r;

	while ((c = getopt_long(argc, argv, "hc:d:f:ni:o:qs:S:t:wU", longs, NULL)) != -1) {
		r = 0;
		switch (c) {
		case 'c': r = bench_number("request count", optarg, 1, INT32_MAX, &n.left); break;
		case 'd':
			r = bench_number("queue depth", optarg, 1, DEPTH_MAX, &v);
			n.depth = (unsigned)v;
			break;
		case 'f': format = optarg; break;
		case 'n': o.aio = BLOCK_AIO_IO_URING; break; /* there: Linux AIO */
		case 'i':
			o.aio = !strcmp(optarg, "threads") ? BLOCK_AIO_THREADS : BLOCK_AIO_IO_URING;
			break;
		case 'o': r = bench_number("offset", optarg, 0, INT64_MAX, &n.next); break;
		case 'q': im->quiet = true; break;
		case 's': r = bench_number("buffer size", optarg, 1, 64 << 20, &n.size); break;
		case 'S': r = bench_number("step size", optarg, 1, INT64_MAX, &n.step); break;
		case 't':
			if (!img_cache(optarg, &o))
				return img_fail("Invalid cache mode '%s'", optarg);
			break;
		case 'w': n.write = o.writable = true; break;
		case 'U': o.force_share = true; break;
		case OPT_FLUSH:
			r = bench_number("flush interval", optarg, 0, INT32_MAX, &n.flush_every);
			break;
		case OPT_PATTERN:
			r = bench_number("pattern byte", optarg, 0, 255, &v);
			n.pattern = (uint8_t)v;
			break;
		case OPT_NO_DRAIN: n.drain = false; break;
		case OPT_NOT: return img_fail("--image-opts is not supported");
		default:
			return img_usage(
				"bench [-c N] [-d N] [-f FMT] [--flush-interval=N [--no-drain]] "
				"[-i AIO] [-n] [-o OFF] [--pattern=N] [-q] [-s SIZE] [-S "
				"STEP] [-t CACHE] [-w] [-U] FILENAME");
		}
		if (r)
			return r;
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	if (!n.write && n.flush_every)
		return img_fail("--flush-interval is only available in write tests");
	n.until_flush = n.flush_every;
	if (!n.step)
		n.step = n.size;
	n.b = img_co_open(im, argv[optind], format, &o);
	if (!n.b)
		return 1;
	if (n.b->len < n.size || n.next > n.b->len - n.size)
		r = img_fail("the image is smaller than one request");
	else
		r = bench_run_co(&n, im);
	block_co_close(n.b);
	return r;
}
