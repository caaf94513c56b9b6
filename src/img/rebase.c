/*
 * kvasir-img rebase and commit: overlays and their backing files.
 *
 * rebase gives an image another backing file. Safe mode first copies into it whatever reads
 * differently over the new one; unsafe mode (-u) changes the name only. commit writes what an
 * overlay has into its backing file and empties the overlay (unless -d).
 * Threads: one.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

enum { PIECE = 1 << 20 };

static int read_or_zero_co(struct block *b, uint64_t off, uint8_t *buf, uint64_t n)
{
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, buf, n);

	return block_co_read_backing(b, off, &v);
}

/* Where b itself decides nothing, the old and the new backing file must look the same. */
static int rebase_safe_co(struct block *b, struct block *to, struct img_progress *p)
{
	uint8_t *old = malloc(PIECE), *new = malloc(PIECE);
	uint32_t unit = b->discard_align; /* its cluster size */
	int r = old && new ? 0 : -ENOMEM;
	uint64_t n;

	p->total = b->len;
	for (uint64_t at = 0; r >= 0 && at < b->len; at += n) {
		struct block_status st;

		img_progress(p, at);
		r = block_co_status(b, at, MIN(b->len - at, (uint64_t)PIECE), &st);
		n = r >= 0 ? st.len : 0;
		if (r < 0 || st.flags & BLOCK_ALLOCATED)
			continue;
		r = read_or_zero_co(b->backing, at, old, n);
		if (r >= 0)
			r = read_or_zero_co(to, at, new, n);
		for (uint64_t i = 0, k; r >= 0 && i < n; i += k) {
			k = MIN(n - i, unit - (at + i) % unit);
			if (memcmp(old + i, new + i, k))
				r = block_co_pwrite(b, at + i, old + i, k, 0);
		}
	}
	free(old);
	free(new);
	return r;
}

int img_rebase(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { { "force-share", no_argument, NULL, 'U' },
					       { "object", required_argument, NULL, 'O' },
					       { "image-opts", no_argument, NULL, 'O' },
					       { 0 } };
	const char *format = NULL, *backing = NULL, *backing_format = NULL;
	struct block_opts o = { .writable = true, .discard_unmap = true }, bo = { 0 };
	struct block *b, *to = NULL;
	struct img_progress p = { 0 };
	struct err e = { 0 };
	bool unsafe = false;
	char *path = NULL;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "hf:F:b:upt:T:qU", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'F': backing_format = optarg; break;
		case 'b': backing = optarg; break;
		case 'u': unsafe = true; break;
		case 'p': p.on = true; break;
		case 'q': im->quiet = true; break;
		case 'U': bo.force_share = true; break;
		case 't':
			if (!img_cache(optarg, &o))
				return img_fail("Invalid cache option: %s", optarg);
			break;
		case 'T':
			if (!img_cache(optarg, &bo))
				return img_fail("Invalid source cache option: %s", optarg);
			break;
		case 'O': return img_fail("--object and --image-opts are not supported");
		default:
			return img_usage(
				"rebase [-U] [-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] "
				"-b BACKING [-F FMT] FILENAME");
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	if (!unsafe && !backing)
		return img_usage("Use backing file (-b) option or unsafe mode (-u)");
	if (im->quiet)
		p.on = false;
	o.no_backing = unsafe;
	b = img_co_open(im, argv[optind], format, &o);
	if (!b)
		return 1;
	if (!qcow2_is(b))
		r = img_fail("Could not change the backing file to '%s': raw images have none",
			     backing ? backing : "");
	else if (backing && backing[0] && !backing_format)
		r = img_fail("Could not change the backing file to '%s': backing format must be "
			     "specified",
			     backing);
	if (r == 0 && !unsafe && backing[0]) {
		path = block_path_combine(argv[optind], backing);
		if (img_same_file(path, argv[optind]))
			r = img_fail("%s would be its own backing file", argv[optind]);
		to = r ? NULL : img_co_open(im, path, backing_format, &bo);
		r = to ? 0 : 1;
	}
	if (r == 0 && !unsafe) {
		r = rebase_safe_co(b, to, &p);
		if (r >= 0)
			r = block_co_flush(b);
		r = r < 0 ? img_fail("error while rebasing: %s", strerror(-r)) : 0;
	}
	if (r == 0 &&
	    qcow2_co_change_backing(b, backing && backing[0] ? backing : NULL,
				    backing && backing[0] ? backing_format : NULL, &e) < 0)
		r = img_fail("Could not change the backing file to '%s': %s",
			     backing ? backing : "", e.msg);
	if (r == 0)
		img_progress_end(&p);
	block_co_close(to);
	block_co_close(b);
	free(path);
	return r;
}

/* ---- commit -------------------------------------------------------------------------------- */

static int commit_data_co(struct block *b, struct block *base, struct img_progress *p)
{
	uint8_t *buf = malloc(PIECE);
	int r = buf ? 0 : -ENOMEM;
	uint64_t n;

	p->total = b->len;
	for (uint64_t at = 0; r >= 0 && at < b->len; at += n) {
		struct block_status st;

		img_progress(p, at);
		r = block_co_status(b, at, MIN(b->len - at, (uint64_t)PIECE), &st);
		n = r >= 0 ? st.len : 0;
		if (r < 0 || !(st.flags & BLOCK_ALLOCATED))
			continue;
		if (st.flags & BLOCK_ZERO) {
			r = block_co_zero(base, at, n, BLOCK_UNMAP);
			continue;
		}
		r = block_co_pread(b, at, buf, n);
		if (r >= 0)
			r = block_co_pwrite(base, at, buf, n, 0);
	}
	free(buf);
	return r;
}

static int commit_co(struct img *im, struct block *b, const char *filename, bool keep,
		     struct img_progress *p)
{
	struct block_opts o = { .writable = true, .discard_unmap = true };
	struct block *base;
	struct err e = { 0 };
	char *path;
	int r;

	if (!b->backing_file)
		return img_fail("Image does not have a backing file");
	path = block_path_combine(filename, b->backing_file);
	if (!path)
		return img_fail("out of memory");
	base = img_same_file(path, filename)
		       ? (img_fail("%s is its own backing file", filename), NULL)
		       : img_co_open(im, path, b->backing_format, &o);
	free(path);
	if (!base)
		return 1;
	r = base->len < b->len ? block_co_truncate(base, b->len, &e) : 0;
	if (r >= 0)
		r = commit_data_co(b, base, p);
	/* the base has it for good before the overlay lets go */
	if (r >= 0)
		r = block_co_flush(base);
	if (r >= 0 && !keep)
		r = qcow2_co_make_empty(b, &e);
	block_co_close(base);
	if (r < 0)
		return img_fail("error while committing: %s", e.code ? e.msg : strerror(-r));
	img_progress_end(p);
	if (!im->quiet)
		printf("Image committed.\n");
	return 0;
}

int img_commit(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { { "object", required_argument, NULL, 'O' },
					       { "image-opts", no_argument, NULL, 'O' },
					       { 0 } };
	struct block_opts o = { .writable = true, .discard_unmap = true, .no_backing = true };
	struct img_progress p = { 0 };
	const char *format = NULL;
	bool keep = false;
	struct block *b;
	int c, r;

	while ((c = getopt_long(argc, argv, "f:ht:b:dpqr:", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'd': keep = true; break;
		case 'p': p.on = true; break;
		case 'q': im->quiet = true; break;
		case 't':
			if (!img_cache(optarg, &o))
				return img_fail("Invalid cache option: %s", optarg);
			break;
		case 'b': return img_fail("-b is not supported: commit one layer after the other");
		case 'r':
		case 'O': return img_fail("-r, --object and --image-opts are not supported");
		default: return img_usage("commit [-q] [-f FMT] [-t CACHE] [-d] [-p] FILENAME");
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	if (im->quiet)
		p.on = false;
	b = img_co_open(im, argv[optind], format, &o);
	if (!b)
		return 1;
	r = qcow2_is(b) ? commit_co(im, b, argv[optind], keep, &p)
			: img_fail("Image does not have a backing file");
	block_co_close(b);
	return r;
}
