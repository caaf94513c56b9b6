/* kvasir-img compare. Exit statuses: 0 equal, 1 different, 2 to 4 could not. Threads: one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

enum { PIECE = 2 << 20 };

struct cmp {
	struct block *a, *b;
	uint8_t *pa, *pb;
	bool strict;
};

/* Content or zeroes of [off, off+len) of one image; behind its end: zeroes. */
static int cmp_read_co(struct block *b, uint64_t off, uint64_t len, uint8_t *buf)
{
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, buf, len);

	return block_co_read_backing(b, off, &v);
}

/* How many bytes from off both are known to be zero for; 0: not known. */
static int cmp_zero_co(struct cmp *c, uint64_t off, uint64_t end, uint64_t *n, bool *both)
{
	struct img_extent x = { .len = end - off, .zero = true }, y = x;

	*both = false;
	if (off < c->a->len && img_co_extent(c->a, off, &x) < 0)
		return -EIO;
	if (off < c->b->len && img_co_extent(c->b, off, &y) < 0)
		return -EIO;
	*n = MIN(MIN(x.len, y.len), end - off);
	*both = x.zero && y.zero;
	/* an allocated range in one and not in the other is a difference only when strict */
	return c->strict && off < c->a->len && off < c->b->len && x.present != y.present ? 1 : 0;
}

static int cmp_all_co(struct cmp *c, struct img *im, struct img_progress *p)
{
	uint64_t end = MAX(c->a->len, c->b->len), n;

	for (uint64_t at = 0; at < end; at += n) {
		uint64_t common = MIN(c->a->len, c->b->len);
		bool both;
		int r;

		if (at == common && !im->quiet)
			printf("Warning: Image size mismatch!\n");
		r = cmp_zero_co(c, at, at < common ? common : end, &n, &both);

		if (r < 0) {
			img_fail("Sector allocation test failed: %s", strerror(-r));
			return 3;
		}
		if (r > 0) {
			if (!im->quiet)
				printf("Strict mode: Offset %llu block status mismatch!\n",
				       (unsigned long long)at);
			return 1;
		}
		img_progress(p, at);
		if (both)
			continue;
		n = MIN(n, (uint64_t)PIECE);
		if (cmp_read_co(c->a, at, n, c->pa) < 0 || cmp_read_co(c->b, at, n, c->pb) < 0) {
			img_fail("Error while reading offset %llu", (unsigned long long)at);
			return 4;
		}
		for (uint64_t i = 0; memcmp(c->pa, c->pb, n) && i < n; i++) {
			if (c->pa[i] == c->pb[i])
				continue;
			if (!im->quiet)
				printf("Content mismatch at offset %llu!\n",
				       (unsigned long long)(at + i / 512 * 512));
			return 1;
		}
	}
	img_progress_end(p);
	if (!im->quiet)
		printf("Images are identical.\n");
	return 0;
}

int img_compare(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { OPTS_COMMON, { 0 } };
	const char *fa = NULL, *fb = NULL;
	struct img_progress p = { 0 };
	struct block_opts o = { 0 };
	struct cmp c = { 0 };
	int opt, r = 2;

	while ((opt = getopt_long(argc, argv, "hf:F:T:pqsU", longs, NULL)) != -1) {
		switch (opt) {
		case 'f': fa = optarg; break;
		case 'F': fb = optarg; break;
		case 'p': p.on = true; break;
		case 'q': im->quiet = true; break;
		case 's': c.strict = true; break;
		case 'U': o.force_share = true; break;
		case 'T':
			if (!img_cache(optarg, &o)) {
				img_fail("Invalid source cache option: %s", optarg);
				return 2;
			}
			break;
		case OPT_NOT: img_fail("--object and --image-opts are not supported"); return 2;
		default:
			img_usage("compare [-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] "
				  "FILENAME1 "
				  "FILENAME2");
			return 2;
		}
	}
	if (optind != argc - 2) {
		img_usage("Expecting two image file names");
		return 2;
	}
	if (im->quiet)
		p.on = false;
	c.a = img_co_open(im, argv[optind], fa, &o);
	c.b = c.a ? img_co_open(im, argv[optind + 1], fb, &o) : NULL;
	c.pa = malloc(PIECE);
	c.pb = malloc(PIECE);
	if (c.b && c.pa && c.pb) {
		p.total = MAX(c.a->len, c.b->len);
		if (c.strict && c.a->len != c.b->len) {
			r = 1;
			if (!im->quiet)
				printf("Strict mode: Image size mismatch!\n");
		} else {
			r = cmp_all_co(&c, im, &p);
		}
	}
	free(c.pa);
	free(c.pb);
	block_co_close(c.b);
	block_co_close(c.a);
	return r;
}
