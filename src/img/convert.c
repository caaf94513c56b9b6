/*
 * kvasir-img convert.
 *
 * Several tasks take pieces of the source in order; each reads, then waits for its turn to write
 * (with -W it does not wait: the target's layout may differ, its content not). A piece is all of
 * one kind: zeroes, which a new target has already, or data, in which runs of zeroes (-S) are left
 * out, too. With -c a piece is a cluster of the target.
 * Threads: one; compression runs on workers.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/task.h"
#include "img/img.h"

enum { PIECE = 2 << 20, MAX_TASKS = 16, MAX_SOURCES = 64 };

struct convert {
	struct img *im;
	struct block *src[MAX_SOURCES], *dst;
	unsigned n_src;
	uint64_t len, piece;
	uint64_t at;      /* the next byte that a task takes */
	uint64_t n_taken; /* pieces */
	uint64_t n_written;
	uint64_t sparse; /* runs of zeroes of this length are left out; 0: nothing is */
	bool dst_zero;   /* the target reads as zeroes where nothing was written */
	bool compress, out_of_order;
	struct task_queue turn;
	struct task *waiter;
	unsigned running, n_tasks;
	struct img_progress progress;
	uint64_t done;
	int result;
	const char *what; /* failed */
};

/* The source that has byte `off`, and where in it. */
static struct block *convert_source(struct convert *c, uint64_t *off)
{
	unsigned i = 0;

	while (i + 1 < c->n_src && *off >= c->src[i]->len)
		*off -= c->src[i++]->len;
	return c->src[i];
}

static bool is_zero(const uint8_t *p, uint64_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Write data but for its runs of zeroes. */
static int convert_data_co(struct convert *c, uint64_t off, const uint8_t *p, uint64_t n)
{
	uint64_t unit = c->sparse ? c->sparse : n, i = 0;
	int r = 0;

	while (r >= 0 && i < n) {
		/* units count from the disk's start, so that they are the target's blocks */
		uint64_t end = i, stop;
		bool zero = false;

		for (bool first = true; end < n; first = false, end = stop) {
			bool z;

			stop = MIN(((off + end) / unit + 1) * unit - off, n);
			z = c->sparse && is_zero(p + end, stop - end);
			if (!first && z != zero)
				break;
			zero = z;
		}
		if (!zero)
			r = block_co_pwrite(c->dst, off + i, p + i, end - i, 0);
		else if (!c->dst_zero)
			r = block_co_zero(c->dst, off + i, end - i, BLOCK_UNMAP);
		i = end;
	}
	return r;
}

/* The next piece: where, how long, is it zero. false: all taken, or it failed. */
static bool convert_take_co(struct convert *c, uint64_t *off, uint64_t *n, bool *zero)
{
	uint64_t in_src, span;
	struct block *b;

	if (c->result < 0 || c->at >= c->len)
		return false;
	*off = in_src = c->at;
	b = convert_source(c, &in_src);
	/* the last piece may be the rounding up to a sector, behind the source's end */
	span = in_src < b->len ? MIN(c->len - c->at, b->len - in_src) : c->len - c->at;
	if (c->compress) {
		/* whole clusters of the target, whatever kind they are */
		*n = MIN(c->piece, c->len - c->at);
		*zero = false;
		c->at += *n;
		c->n_taken++;
		return true;
	}
	*n = MIN(span, (uint64_t)PIECE - c->at % PIECE);
	*zero = false;
	c->at += *n; /* before waiting, so that nobody else takes it */
	c->n_taken++;
	return true;
}

/* Read [off, off+n) of the joined sources. */
static int convert_read_co(struct convert *c, uint64_t off, uint8_t *buf, uint64_t n)
{
	int r = 0;

	while (r >= 0 && n) {
		uint64_t at = off, part;
		struct block *b = convert_source(c, &at);

		part = at < b->len ? MIN(n, b->len - at) : n;
		if (at >= b->len)
			memset(buf, 0, part); /* the rounding at the end */
		else
			r = block_co_pread(b, at, buf, part);
		off += part;
		buf += part;
		n -= part;
	}
	return r;
}

/* A piece, read by extents: zeroes are not read. extent[i] says how long and what. */
struct part {
	uint64_t len;
	bool zero;
};
enum { MAX_PARTS = 64 };

static int convert_read_parts_co(struct convert *c, uint64_t off, uint8_t *buf, uint64_t n,
				 struct part *parts, unsigned *n_parts)
{
	*n_parts = 0;
	while (n) {
		uint64_t at = off, part = n;
		struct block *b = convert_source(c, &at);
		struct img_extent x = { .zero = true };
		int r = 0;

		if (at < b->len) {
			r = img_co_extent(b, at, &x);
			if (r < 0)
				return r;
			part = MIN(MIN(n, x.len), b->len - at);
		}
		if (*n_parts == MAX_PARTS - 1) {
			part = n; /* many small ones: read the rest */
			x.zero = false;
		}
		if (!x.zero)
			r = convert_read_co(c, off, buf, part);
		if (r < 0)
			return r;
		if (*n_parts && parts[*n_parts - 1].zero == x.zero)
			parts[*n_parts - 1].len += part;
		else
			parts[(*n_parts)++] = (struct part){ part, x.zero };
		off += part;
		buf += part;
		n -= part;
	}
	return 0;
}

/*
 * With -c: whole clusters are written. Where the source ends in one, what the target has behind it
 * stays. *len: of what is in buf, which has room for a cluster.
 */
static int convert_fill_cluster_co(struct convert *c, uint64_t off, uint8_t *buf, uint64_t *len)
{
	uint64_t all = MIN(c->piece, c->dst->len - off), more = all - MIN(*len, all);
	uint8_t *end = buf + *len;

	*len += more;
	if (!more || c->dst_zero) {
		memset(end, 0, more);
		return 0;
	}
	return block_co_pread(c->dst, off + all - more, end, more);
}

static int convert_write_parts_co(struct convert *c, uint64_t off, uint8_t *buf,
				  const struct part *parts, unsigned n)
{
	int r = 0;

	if (c->compress) {
		uint64_t len = 0;
		bool zero = true;

		for (unsigned i = 0; i < n; i++) {
			zero &= parts[i].zero || is_zero(buf + len, parts[i].len);
			len += parts[i].len;
		}
		if (zero && c->dst_zero)
			return 0;
		r = convert_fill_cluster_co(c, off, buf, &len);
		return r < 0 ? r : qcow2_co_write_compressed(c->dst, off, buf, (uint32_t)len);
	}
	for (unsigned i = 0; r >= 0 && i < n; i++) {
		if (!parts[i].zero || !c->sparse)
			r = convert_data_co(c, off, buf, parts[i].len);
		else if (!c->dst_zero)
			r = block_co_zero(c->dst, off, parts[i].len, BLOCK_UNMAP);
		off += parts[i].len;
		buf += parts[i].len;
	}
	return r;
}

static void convert_task(void *arg)
{
	struct convert *c = arg;
	struct part *parts = malloc(MAX_PARTS * sizeof(*parts));
	uint8_t *buf = malloc(MAX(c->piece, (uint64_t)PIECE));
	uint64_t off, n;
	bool zero;

	if (!buf || !parts) {
		c->result = -ENOMEM;
		c->what = "reading";
	}
	while (convert_take_co(c, &off, &n, &zero)) {
		uint64_t turn = c->n_taken - 1;
		unsigned n_parts = 0;
		int r;

		if (c->compress || !c->sparse)
			memset(buf, 0, n); /* what is zero is not read */
		r = convert_read_parts_co(c, off, buf, n, parts, &n_parts);
		if (r < 0 && c->result >= 0) {
			c->result = r;
			c->what = "reading";
		}
		while (!c->out_of_order && c->n_written != turn && c->result >= 0)
			task_co_queue(&c->turn);
		if (c->result >= 0) {
			r = convert_write_parts_co(c, off, buf, parts, n_parts);
			if (r < 0 && c->result >= 0) {
				c->result = r;
				c->what = "writing";
			}
		}
		c->n_written++;
		task_queue_wake_all(&c->turn);
		c->done += n;
		img_progress(&c->progress, c->done);
	}
	free(buf);
	free(parts);
	if (!--c->running && c->waiter)
		task_wake(c->waiter);
}

static int convert_run_co(struct convert *c)
{
	c->progress.total = c->len;
	img_progress(&c->progress, 0);
	for (unsigned i = 0; i < c->n_tasks; i++) {
		if (task_start(block_ctx_tasks(c->im->ctx), convert_task, c) == 0)
			c->running++;
	}
	if (!c->running)
		return img_fail("out of memory");
	c->waiter = task_self();
	while (c->running)
		task_co_wait();
	if (c->result >= 0) {
		c->result = block_co_flush(c->dst);
		c->what = "flushing";
	}
	if (c->result < 0)
		return img_fail("error while %s: %s", c->what, strerror(-c->result));
	img_progress_end(&c->progress);
	return 0;
}

struct convert_args {
	const char *format, *out, *cache, *src_cache, *snapshot, *backing, *backing_format;
	bool no_create, share, target_zero;
};

static int convert_open_sources_co(struct convert *c, const struct convert_args *a, char **names,
				   unsigned n)
{
	struct block_opts o = { .force_share = a->share };
	struct err e = { 0 };

	if (a->src_cache && !img_cache(a->src_cache, &o))
		return img_fail("Invalid source cache option: %s", a->src_cache);
	if (n > MAX_SOURCES)
		return img_fail("more than %u source images", MAX_SOURCES);
	for (unsigned i = 0; i < n; i++) {
		struct block *b = img_co_open(c->im, names[i], a->format, &o);

		if (!b)
			return 1;
		c->src[c->n_src++] = b;
		c->len += b->len;
	}
	if (!a->snapshot)
		return 0;
	if (n > 1)
		return img_fail("No support for concatenating multiple snapshot");
	if (!qcow2_is(c->src[0]))
		return img_fail("Failed to load snapshot: raw images have none");
	c->len = 0;
	if (qcow2_co_snapshot_view(c->src[0], a->snapshot, &e) < 0)
		return img_fail("Failed to load snapshot: %s", e.msg);
	c->len = c->src[0]->len;
	return 0;
}

static int convert_open_target_co(struct convert *c, const struct convert_args *a,
				  struct img_new *n, const char *name)
{
	struct block_opts o = { .writable = true, .discard_unmap = true };

	if (!img_cache(a->cache ? a->cache : "unsafe", &o))
		return img_fail("Invalid cache option: %s", a->cache);
	c->len = (c->len + 511) & ~511ull;
	if (!a->no_create) {
		if (!n->has_size)
			n->q.size = c->len;
		if (n->q.size < c->len)
			return img_fail("the target is smaller than the source");
		if (img_co_new(c->im, n, name))
			return 1;
	}
	c->dst = img_co_open(c->im, name, a->out, &o);
	if (!c->dst)
		return 1;
	if (c->dst->len < c->len) {
		uint64_t excess = c->len - c->dst->len;

		if (excess > 511)
			return img_fail("output file is smaller than input file");
		c->len = c->dst->len;
	}
	c->dst_zero = (!a->no_create && !c->dst->backing_file && n->q.prealloc != PREALLOC_FULL) ||
		      a->target_zero;
	/* a device is used as it is */
	if (!a->no_create && !n->is_qcow2 && img_is_device(name))
		c->dst_zero = a->target_zero;
	if (c->compress && !qcow2_is(c->dst))
		return img_fail("Compression not supported for this file format");
	if (c->compress) {
		c->piece = c->dst->discard_align; /* its cluster size */
		c->sparse = c->sparse ? c->sparse : 512;
	}
	return 0;
}

int img_convert(struct img *im, int argc, char **argv)
{
	enum { OPT_ZERO = OPT_OTHER };
	static const struct option longs[] = { { "force-share", no_argument, NULL, 'U' },
					       { "target-is-zero", no_argument, NULL, OPT_ZERO },
					       { "object", required_argument, NULL, OPT_NOT },
					       { "image-opts", no_argument, NULL, OPT_NOT },
					       { "target-image-opts", no_argument, NULL, OPT_NOT },
					       { "salvage", no_argument, NULL, OPT_NOT },
					       { "bitmaps", no_argument, NULL, OPT_NOT },
					       { 0 } };
	struct convert c = { .im = im, .sparse = 4096, .n_tasks = 8, .piece = PIECE };
	struct convert_args a = { .out = "raw" };
	struct img_new n = { 0 };
	const char *options[16], *target;
	unsigned n_options = 0;
	bool help = false;
	uint64_t v;
	int opt, r = 0;

	while ((opt = getopt_long(argc, argv, "hf:O:B:CcF:o:l:S:pt:T:qnm:Wr:U", longs, NULL)) !=
	       -1) {
		switch (opt) {
		case 'f': a.format = optarg; break;
		case 'O': a.out = optarg; break;
		case 'B': a.backing = optarg; break;
		case 'F': a.backing_format = optarg; break;
		case 'c': c.compress = true; break;
		case 'o':
			if (n_options == ARRAY_SIZE(options))
				return img_fail("too many -o");
			options[n_options++] = optarg;
			break;
		case 'l':
			a.snapshot = strncmp(optarg, "snapshot.", 9) ? optarg : NULL;
			if (!a.snapshot)
				return img_fail(
					"-l snapshot.id=... is not supported, give an ID or "
					"a name");
			break;
		case 'S':
			if (img_size(optarg, &v) < 0 || v % 512 || v > 64 << 20)
				return img_fail(
					"Invalid buffer size for sparse output specified. "
					"Valid sizes are multiples of 512 up to 64M. Select 0 "
					"to disable sparse detection (fully allocates "
					"output).");
			c.sparse = v;
			break;
		case 'p': c.progress.on = true; break;
		case 't': a.cache = optarg; break;
		case 'T': a.src_cache = optarg; break;
		case 'q': im->quiet = true; break;
		case 'n': a.no_create = true; break;
		case 'm':
			if (img_size(optarg, &v) < 0 || !v || v > MAX_TASKS)
				return img_fail("Invalid number of coroutines. Allowed number of "
						"coroutines is between 1 and %d",
						MAX_TASKS);
			c.n_tasks = (unsigned)v;
			break;
		case 'W': c.out_of_order = true; break;
		case 'U': a.share = true; break;
		case OPT_ZERO: a.target_zero = true; break;
		case 'C':
		case 'r':
		case OPT_NOT:
			return img_fail(
				"-C, -r, --salvage, --bitmaps, --object and --image-opts are "
				"not supported");
		default:
			return img_usage("convert [-c] [-f FMT] [-l SNAPSHOT] [-m N] [-n] [-O FMT] "
					 "[-o OPTIONS] [-p] [-q] [-S SIZE] [-t CACHE] [-T CACHE] "
					 "[-U] [-W] FILENAME... OUTPUT");
		}
	}
	if (argc - optind < 2)
		return img_usage("Must specify image file name");
	if (a.backing)
		return img_fail(
			"-B is not supported: make the overlay with 'create -b' and 'rebase'");
	if (a.target_zero && !a.no_create)
		return img_fail("--target-is-zero requires use of -n flag");
	if (a.no_create && n_options)
		return img_fail("-o has no effect when skipping image creation");
	if (im->quiet)
		c.progress.on = false;
	n.format = a.out;
	n.is_qcow2 = !strcmp(a.out, "qcow2");
	if (!n.is_qcow2 && strcmp(a.out, "raw"))
		return img_fail("Unknown file format '%s'", a.out);
	if (c.compress && !n.is_qcow2)
		return img_fail("Compression not supported for this file format");
	for (unsigned i = 0; r == 0 && i < n_options && !help; i++)
		r = img_new_options(&n, options[i], &help);
	if (r == 0 && !help && n.backing_file)
		r = img_fail("-o backing_file is not supported with convert");
	target = argv[argc - 1];
	if (r == 0 && !help)
		r = convert_open_sources_co(&c, &a, argv + optind, (unsigned)(argc - optind - 1));
	for (unsigned i = 0; r == 0 && !help && i < c.n_src; i++) {
		if (img_same_file(argv[optind + (int)i], target))
			r = img_fail("%s is both source and target", target);
	}
	if (r == 0 && !help)
		r = convert_open_target_co(&c, &a, &n, target);
	if (r == 0 && !help)
		r = convert_run_co(&c);
	block_co_close(c.dst);
	for (unsigned i = 0; i < c.n_src; i++)
		block_co_close(c.src[i]);
	img_new_free(&n);
	return r;
}
