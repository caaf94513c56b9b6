/* kvasir-img map, compare, resize and measure: an image's length and content. Threads: one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

enum { OPT_OUTPUT = 256, OPT_NOT, OPT_START, OPT_LENGTH, OPT_SHRINK, OPT_PREALLOC, OPT_SIZE };
#define OPTS_COMMON \
	{ "output", required_argument, NULL, OPT_OUTPUT }, \
		{ "force-share", no_argument, NULL, 'U' }, \
		{ "object", required_argument, NULL, OPT_NOT }, \
	{ \
		"image-opts", no_argument, NULL, OPT_NOT \
	}

static int output_arg(const char *arg, bool *is_json)
{
	*is_json = !strcmp(arg, "json");
	if (!*is_json && strcmp(arg, "human"))
		return img_fail("--output must be used with human or json as argument.");
	return 0;
}

/* ---- map ----------------------------------------------------------------------------------- */

static bool extents_join(const struct img_extent *a, const struct img_extent *b)
{
	return a->zero == b->zero && a->data == b->data && a->present == b->present &&
	       a->depth == b->depth && a->has_offset == b->has_offset && a->file == b->file &&
	       a->compressed == b->compressed &&
	       (!a->has_offset || a->offset + a->len == b->offset);
}

static int extent_show(const struct img_extent *x, bool is_json, bool first, bool last)
{
	if (!is_json) {
		if (x->data && !x->has_offset)
			return img_fail("File contains external, encrypted or compressed "
					"clusters.");
		if (x->data && !x->zero)
			printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)x->start,
			       (unsigned long long)x->len, (unsigned long long)x->offset,
			       x->file ? x->file->opts.filename : "");
		return 0;
	}
	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": "
	       "%s, \"data\": %s",
	       first ? "[" : "", (unsigned long long)x->start, (unsigned long long)x->len, x->depth,
	       x->present ? "true" : "false", x->zero ? "true" : "false",
	       x->data ? "true" : "false");
	if (x->has_offset)
		printf(", \"offset\": %llu", (unsigned long long)x->offset);
	printf(last ? "}]\n" : "},\n");
	return 0;
}

int img_map(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { OPTS_COMMON,
					       { "start-offset", required_argument, NULL, 's' },
					       { "max-length", required_argument, NULL, 'l' },
					       { 0 } };
	struct block_opts o = { 0 };
	const char *format = NULL;
	struct img_extent cur, x;
	bool is_json = false, any = false;
	uint64_t at = 0, end = UINT64_MAX, start = 0;
	struct block *b;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "f:s:l:hU", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'U': o.force_share = true; break;
		case 's':
			if (img_size(optarg, &start) < 0)
				return img_fail("Invalid start offset '%s'", optarg);
			break;
		case 'l':
			if (img_size(optarg, &end) < 0)
				return img_fail("Invalid maximum length '%s'", optarg);
			break;
		case OPT_OUTPUT:
			if (output_arg(optarg, &is_json))
				return 1;
			break;
		case OPT_NOT: return img_fail("--object and --image-opts are not supported");
		default:
			return img_usage("map [-f FMT] [--start-offset=OFF] [--max-length=LEN] "
					 "[--output=human|json] [-U] FILENAME");
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	b = img_co_open(im, argv[optind], format, &o);
	if (!b)
		return 1;
	end = end < b->len - MIN(start, b->len) ? start + end : b->len;
	if (!is_json)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	for (at = start; r == 0 && at < end; at += x.len) {
		if (img_co_extent(b, at, &x) < 0) {
			r = img_fail("Failed to read image metadata: %s", strerror(EIO));
			break;
		}
		x.len = MIN(x.len, end - at);
		if (at > start && extents_join(&cur, &x)) {
			cur.len += x.len;
			continue;
		}
		if (at > start) {
			r = extent_show(&cur, is_json, !any, false);
			any = true;
		}
		cur = x;
	}
	if (r == 0 && at > start)
		r = extent_show(&cur, is_json, !any, true);
	else if (r == 0 && is_json)
		printf("[]\n");
	block_co_close(b);
	return r;
}

/* ---- compare ------------------------------------------------------------------------------- */

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

/* ---- resize -------------------------------------------------------------------------------- */

static int resize_co(struct img *im, struct block *b, const char *filename, uint64_t len,
		     bool shrink, enum qcow2_prealloc how)
{
	uint64_t old = b->len;
	struct err e = { 0 };
	int r;

	if (len < old && !shrink)
		return img_fail(
			"Use the --shrink option to perform a shrink operation.\n"
			"kvasir-img: warning: Shrinking an image will delete all data beyond "
			"the shrunken image's end. Before performing such an operation, make "
			"sure there is no important data there.");
	if (len < old && how != PREALLOC_OFF)
		return img_fail("Preallocation can only be used for growing images");
	if (how != PREALLOC_OFF && (!qcow2_is(b) || b->backing_file))
		return img_fail(
			"--preallocation=%s is supported for qcow2 images without a backing "
			"file only",
			how == PREALLOC_METADATA ? "metadata" : "full");
	r = block_co_truncate(b, len, &e);
	if (r >= 0 && how != PREALLOC_OFF)
		r = qcow2_co_preallocate(b, old, how, &e);
	if (r >= 0)
		r = block_co_flush(b);
	if (r < 0)
		return img_fail("%s", e.code ? e.msg : strerror(-r));
	if (!im->quiet)
		printf("Image resized.\n");
	return 0;
}

int img_resize(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { OPTS_COMMON,
					       { "shrink", no_argument, NULL, OPT_SHRINK },
					       { "preallocation", required_argument, NULL,
						 OPT_PREALLOC },
					       { 0 } };
	enum qcow2_prealloc how = PREALLOC_OFF;
	struct block_opts o = { .writable = true, .discard_unmap = true };
	const char *format = NULL, *size;
	bool shrink = false;
	struct block *b;
	uint64_t n;
	int c, r;

	/* the last argument may be -SIZE, which is no option */
	if (argc < 3)
		return img_usage("resize [-f FMT] [--preallocation=MODE] [-q] [--shrink] FILENAME "
				 "[+|-]SIZE");
	size = argv[--argc];
	while ((c = getopt_long(argc, argv, "f:hq", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'q': im->quiet = true; break;
		case OPT_SHRINK: shrink = true; break;
		case OPT_PREALLOC:
			if (!strcmp(optarg, "metadata"))
				how = PREALLOC_METADATA;
			else if (!strcmp(optarg, "full"))
				how = PREALLOC_FULL;
			else if (strcmp(optarg, "off"))
				return img_fail("Invalid preallocation mode '%s' (off, metadata, "
						"full)",
						optarg);
			break;
		case OPT_NOT: return img_fail("--object and --image-opts are not supported");
		default: return img_usage("resize: invalid option");
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting image file name and size");
	if (img_size(size + (size[0] == '+' || size[0] == '-'), &n) < 0)
		return img_fail("Invalid image size specified. You may use k, M, G, T, P or E "
				"suffixes for kilobytes, megabytes, gigabytes, terabytes, "
				"petabytes and exabytes.");
	b = img_co_open(im, argv[optind], format, &o);
	if (!b)
		return 1;
	if (size[0] == '-')
		n = n <= b->len ? b->len - n : 0;
	else if (size[0] == '+')
		n += b->len;
	r = n ? resize_co(im, b, argv[optind], (n + 511) & ~511ull, shrink, how)
	      : img_fail("New image size must be positive");
	block_co_close(b);
	return r;
}

/* ---- measure ------------------------------------------------------------------------------- */

/* Everything but data for a qcow2 image with all allocated [QCOW2 "Host cluster management"]. */
static uint64_t measure_meta(const struct img_new *n, uint64_t size)
{
	uint64_t cl = n->q.cluster_size ? n->q.cluster_size : 65536;
	uint64_t width = n->q.refcount_bits ? n->q.refcount_bits : 16;
	uint64_t per_l2 = cl / (n->q.extended_l2 ? 16 : 8), per_block = cl * 8 / width;
	uint64_t data = (size + cl - 1) / cl, l2 = (data + per_l2 - 1) / per_l2;
	uint64_t l1 = (l2 * 8 + cl - 1) / cl, blocks = 0, table = 0, total;

	if (n->data_file)
		data = 0;
	for (;;) {
		total = 1 + data + l2 + l1 + blocks + table;
		uint64_t want = (total + per_block - 1) / per_block;
		uint64_t want_table = (want * 8 + cl - 1) / cl;

		if (want == blocks && want_table == table)
			return (total - data) * cl;
		blocks = want;
		table = want_table;
	}
}

static int measure_co(struct block *b, const struct img_new *n, uint64_t *need)
{
	uint64_t cl = n->is_qcow2 ? n->q.cluster_size ? n->q.cluster_size : 65536 : 512, last = 0;
	struct img_extent x;

	*need = 0;
	for (uint64_t at = 0; at < b->len; at += x.len) {
		if (img_co_extent(b, at, &x) < 0)
			return img_fail("Unable to get block status");
		if (x.zero || !x.data)
			continue;
		/* clusters that are touched, each once */
		uint64_t first = MAX(at / cl * cl, last), end = (at + x.len + cl - 1) / cl * cl;

		*need += end > first ? end - first : 0;
		last = MAX(last, end);
	}
	return 0;
}

int img_measure(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { OPTS_COMMON,
					       { "size", required_argument, NULL, OPT_SIZE },
					       { 0 } };
	const char *format = NULL, *out = "raw", *options = NULL, *snapshot = NULL;
	struct block_opts o = { 0 };
	struct img_new n = { 0 };
	bool is_json = false, help = false, has_size = false;
	uint64_t size = 0, need = 0, full = 0;
	struct block *b = NULL;
	struct err e = { 0 };
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "hf:l:o:O:U", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'l': snapshot = optarg; break;
		case 'o': options = optarg; break;
		case 'O': out = optarg; break;
		case 'U': o.force_share = true; break;
		case OPT_SIZE:
			if (img_size(optarg, &size) < 0)
				return img_fail("Invalid size '%s'", optarg);
			has_size = true;
			break;
		case OPT_OUTPUT:
			if (output_arg(optarg, &is_json))
				return 1;
			break;
		case OPT_NOT: return img_fail("--object and --image-opts are not supported");
		default:
			return img_usage(
				"measure [--output=human|json] [-O FMT] [-o OPTIONS] [--size "
				"N | [-f FMT] [-l SNAPSHOT] [-U] FILENAME]");
		}
	}
	if (has_size ? optind != argc : optind != argc - 1)
		return img_usage("Either --size N or one filename must be specified.");
	n.format = out;
	n.is_qcow2 = !strcmp(out, "qcow2");
	if (!n.is_qcow2 && strcmp(out, "raw"))
		return img_fail("Unknown file format '%s'", out);
	r = options ? img_new_options(&n, options, &help) : 0;
	if (r == 0 && !help && !has_size) {
		b = img_co_open(im, argv[optind], format, &o);
		if (!b)
			r = 1;
		else if (snapshot && (!qcow2_is(b) || qcow2_co_snapshot_view(b, snapshot, &e) < 0))
			r = img_fail("Failed to load snapshot: %s",
				     qcow2_is(b) ? e.msg : "raw images have none");
	}
	if (r == 0 && !help) {
		size = b ? b->len : size;
		r = b ? measure_co(b, &n, &need) : 0;
		full = n.is_qcow2 ? measure_meta(&n, size) + (n.data_file ? 0 : size) : size;
		need = !n.is_qcow2                       ? size
		       : n.data_file                     ? full
		       : n.q.prealloc >= PREALLOC_FALLOC ? full
							 : measure_meta(&n, size) + need;
	}
	if (r == 0 && !help && is_json) {
		struct json j = { 0 };

		json_open(&j, NULL, '{');
		json_uint(&j, "required", need);
		json_uint(&j, "fully-allocated", full);
		json_close(&j, '}');
	} else if (r == 0 && !help) {
		printf("required size: %llu\nfully allocated size: %llu\n",
		       (unsigned long long)need, (unsigned long long)full);
	}
	block_co_close(b);
	img_new_free(&n);
	return r;
}
