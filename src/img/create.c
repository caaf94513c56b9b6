/*
 * kvasir-img create, and making images for convert: options, preallocation.
 * Threads: one.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "img/img.h"

static const char *const prealloc_names[] = { "off", "metadata", "falloc", "full" };

static int option_bool(const char *key, const char *v, bool *out)
{
	if (!strcmp(v, "on") || !strcmp(v, "yes") || !strcmp(v, "true"))
		*out = true;
	else if (!strcmp(v, "off") || !strcmp(v, "no") || !strcmp(v, "false"))
		*out = false;
	else
		return img_fail("Parameter '%s' expects 'on' or 'off'", key);
	return 0;
}

static int option_size(const char *key, const char *v, uint64_t *out)
{
	return img_size(v, out) < 0 ? img_fail("Parameter '%s' expects a size", key) : 0;
}

/* What both formats know. -1: not one of these. */
static int option_common(struct img_new *n, const char *key, const char *v)
{
	if (!strcmp(key, "size")) {
		n->has_size = true;
		return option_size(key, v, &n->q.size);
	}
	if (!strcmp(key, "preallocation")) {
		for (size_t i = 0; i < ARRAY_SIZE(prealloc_names); i++) {
			if (!strcmp(v, prealloc_names[i])) {
				n->q.prealloc = (enum qcow2_prealloc)i;
				return !n->is_qcow2 && i == PREALLOC_METADATA
					       ? img_fail("Unsupported preallocation mode "
							  "'metadata' for raw images")
					       : 0;
			}
		}
		return img_fail("Invalid parameter '%s' for preallocation", v);
	}
	return -1;
}

static int option_qcow2(struct img_new *n, const char *key, const char *v)
{
	uint64_t u;
	int r = 0;

	if (!strcmp(key, "backing_file")) {
		free(n->backing_file);
		n->backing_file = strdup(v);
	} else if (!strcmp(key, "backing_fmt")) {
		free(n->backing_format);
		n->backing_format = strdup(v);
	} else if (!strcmp(key, "data_file")) {
		free(n->data_file);
		n->data_file = strdup(v);
	} else if (!strcmp(key, "data_file_raw")) {
		r = option_bool(key, v, &n->q.data_file_raw);
	} else if (!strcmp(key, "lazy_refcounts")) {
		r = option_bool(key, v, &n->q.lazy_refcounts);
	} else if (!strcmp(key, "extended_l2")) {
		r = option_bool(key, v, &n->q.extended_l2);
	} else if (!strcmp(key, "cluster_size")) {
		r = option_size(key, v, &u);
		if (r == 0 && (u < 512 || u > 2 << 20))
			return img_fail("Cluster size must be a power of two between 512 and "
					"2048k");
		n->q.cluster_size = (uint32_t)u;
	} else if (!strcmp(key, "refcount_bits")) {
		r = option_size(key, v, &u);
		if (r == 0 && (!u || u > 64))
			return img_fail("Refcount width must be a power of two and may not exceed "
					"64 bits");
		n->q.refcount_bits = (unsigned)u;
	} else if (!strcmp(key, "compat")) {
		if (!strcmp(v, "0.10") || !strcmp(v, "v2"))
			n->q.version = 2;
		else if (!strcmp(v, "1.1") || !strcmp(v, "v3"))
			n->q.version = 3;
		else
			return img_fail("Invalid compatibility level '%s', it is 0.10 or 1.1", v);
	} else if (!strcmp(key, "compression_type")) {
		n->q.zstd = !strcmp(v, "zstd");
		if (!n->q.zstd && strcmp(v, "zlib"))
			return img_fail("Invalid compression type '%s', it is zlib or zstd", v);
	} else if (!strncmp(key, "encrypt", 7)) {
		return img_fail("Option '%s': encryption is not supported", key);
	} else {
		return -1;
	}
	return r;
}

static void option_help(const struct img_new *n)
{
	printf("Supported %s options:\n", n->format);
	if (n->is_qcow2)
		printf("  backing_file=<str>     - File name of a base image\n"
		       "  backing_fmt=<str>      - Image format of the base image\n"
		       "  cluster_size=<size>    - qcow2 cluster size\n"
		       "  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])\n"
		       "  compression_type=<str> - Compression method used for image cluster "
		       "compression (zlib, zstd)\n"
		       "  data_file=<str>        - File name of an external data file\n"
		       "  data_file_raw=<bool (on/off)> - The external data file must stay valid "
		       "as a raw image\n"
		       "  extended_l2=<bool (on/off)> - Extended L2 tables\n"
		       "  lazy_refcounts=<bool (on/off)> - Postpone refcount updates\n"
		       "  preallocation=<str>    - Preallocation mode (off, metadata, falloc, "
		       "full)\n"
		       "  refcount_bits=<num>    - Width of a reference count entry in bits\n");
	else
		printf("  preallocation=<str>    - Preallocation mode (off, falloc, full)\n");
	printf("  size=<size>            - Virtual disk size\n");
}

/* Up to the next comma; ",," is a comma in a value. Changes the text. */
static char *option_next(char **text)
{
	char *start = *text, *from = start, *to = start;

	while (*from) {
		if (*from == ',' && from[1] != ',')
			break;
		if (*from == ',')
			from++;
		*to++ = *from++;
	}
	*text = *from ? from + 1 : from;
	*to = 0;
	return start;
}

int img_new_options(struct img_new *n, const char *text, bool *help)
{
	char *copy = strdup(text), *at = copy;
	int r = 0;

	while (r == 0 && *at) {
		char *key = option_next(&at), *v = strchr(key, '=');

		if (!strcmp(key, "help") || !strcmp(key, "?")) {
			option_help(n);
			*help = true;
			break;
		}
		if (v)
			*v++ = 0;
		else
			v = (char *)"on";
		r = option_common(n, key, v);
		if (r < 0 && n->is_qcow2)
			r = option_qcow2(n, key, v);
		if (r < 0)
			r = img_fail("Invalid parameter '%s'\nkvasir-img: Invalid options for file "
				     "format '%s'",
				     key, n->format);
	}
	free(copy);
	return r;
}

void img_new_free(struct img_new *n)
{
	free(n->backing_file);
	free(n->backing_format);
	free(n->data_file);
}

/* The host allocates all of a file, whose content stays. */
static int host_allocate(const char *filename)
{
	int fd = open(filename, O_RDWR | O_CLOEXEC), r;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return img_fail("%s: Could not preallocate data: %s", filename, strerror(errno));
	r = st.st_size ? posix_fallocate(fd, 0, st.st_size) : 0;
	close(fd);
	return r ? img_fail("%s: Could not preallocate data: %s", filename, strerror(r)) : 0;
}

static int raw_fill_co(struct block *b, uint64_t len)
{
	void *buf = calloc(1, 1 << 20);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; r >= 0 && at < len; at += 1 << 20)
		r = block_co_pwrite(b, at, buf, MIN(len - at, 1ull << 20), 0);
	free(buf);
	return r;
}

static int new_raw_co(struct img *im, struct img_new *n, const char *filename)
{
	struct block_opts o = { .writable = true };
	struct block *b = NULL;
	struct err e = { 0 };
	int r = block_co_create_file(im->ctx, filename, n->q.size, &o, &b, &e);

	if (r < 0)
		return img_fail("%s: %s", filename, e.msg);
	if (n->q.prealloc == PREALLOC_FULL)
		r = raw_fill_co(b, n->q.size);
	block_co_close(b);
	if (r < 0)
		return img_fail("%s: Could not preallocate data: %s", filename, strerror(-r));
	return n->q.prealloc == PREALLOC_FALLOC ? host_allocate(filename) : 0;
}

static int new_prealloc_co(struct img *im, struct img_new *n, const char *filename)
{
	struct block_opts o = { .writable = true, .no_backing = true };
	struct block *b = img_co_open(im, filename, "qcow2", &o);
	struct err e = { 0 };
	int r;

	if (!b)
		return 1;
	r = qcow2_co_preallocate(b, 0, n->q.prealloc, &e);
	if (r >= 0)
		r = block_co_flush(b);
	block_co_close(b);
	if (r < 0)
		return img_fail("%s: %s", filename, e.code ? e.msg : strerror(-r));
	if (n->q.prealloc == PREALLOC_FALLOC) {
		char *path = n->data_file ? block_path_combine(filename, n->data_file) : NULL;

		r = host_allocate(path ? path : filename);
		free(path);
	}
	return r;
}

static int new_qcow2_co(struct img *im, struct img_new *n, const char *filename)
{
	struct block_opts o = { .writable = true };
	struct block *b = NULL, *data = NULL;
	struct err e = { 0 };
	int r;

	n->q.backing_file = n->backing_file;
	n->q.backing_format = n->backing_format;
	n->q.data_file = n->data_file;
	/* before anything is written */
	if (qcow2_create_check(&n->q, &e) < 0)
		return img_fail("%s: %s", filename, e.msg);
	if (n->data_file) {
		char *path = block_path_combine(filename, n->data_file);

		r = path ? block_co_create_file(im->ctx, path, n->q.size, &o, &data, &e) : -ENOMEM;
		free(path);
		if (r < 0)
			return img_fail("%s: %s", filename, e.msg);
	}
	r = block_co_create_file(im->ctx, filename, 0, &o, &b, &e);
	if (r >= 0)
		r = qcow2_co_create(b, data, &n->q, &e);
	block_co_close(b);
	block_co_close(data);
	if (r < 0)
		return img_fail("%s: %s", filename, e.msg);
	return n->q.prealloc == PREALLOC_OFF ? 0 : new_prealloc_co(im, n, filename);
}

int img_co_new(struct img *im, struct img_new *n, const char *filename)
{
	return n->is_qcow2 ? new_qcow2_co(im, n, filename) : new_raw_co(im, n, filename);
}

/* The line qemu-img prints first. */
static void new_show(const struct img_new *n, const char *filename)
{
	printf("Formatting '%s', fmt=%s", filename, n->format);
	if (n->is_qcow2) {
		printf(" cluster_size=%u extended_l2=%s",
		       n->q.cluster_size ? n->q.cluster_size : 65536,
		       n->q.extended_l2 ? "on" : "off");
		if (n->q.prealloc)
			printf(" preallocation=%s", prealloc_names[n->q.prealloc]);
		printf(" compression_type=%s", n->q.zstd ? "zstd" : "zlib");
	}
	printf(" size=%llu", (unsigned long long)n->q.size);
	if (n->is_qcow2) {
		if (n->q.version)
			printf(" compat=%s", n->q.version == 2 ? "0.10" : "1.1");
		if (n->data_file)
			printf(" data_file=%s", n->data_file);
		if (n->backing_file)
			printf(" backing_file=%s", n->backing_file);
		if (n->backing_format)
			printf(" backing_fmt=%s", n->backing_format);
		printf(" lazy_refcounts=%s refcount_bits=%u", n->q.lazy_refcounts ? "on" : "off",
		       n->q.refcount_bits ? n->q.refcount_bits : 16);
		if (n->q.data_file_raw)
			printf(" data_file_raw=on");
	} else if (n->q.prealloc) {
		printf(" preallocation=%s", prealloc_names[n->q.prealloc]);
	}
	putchar('\n');
	fflush(stdout);
}

/* Look at the backing file: it must be there, and gives the size if none was said. */
static int create_backing_co(struct img *im, struct img_new *n, const char *filename)
{
	struct block_opts o = { 0 };
	struct err e = { 0 };
	struct block *b = NULL;
	char *path = block_path_combine(filename, n->backing_file);
	int r;

	if (!path)
		return img_fail("out of memory");
	if (!strcmp(path, filename) || img_same_file(path, filename)) {
		free(path);
		return img_fail("%s: Error: Trying to create an image with the same filename as "
				"the backing file",
				filename);
	}
	r = block_co_open(im->ctx, path, n->backing_format, &o, &b, &e);
	free(path);
	if (r < 0)
		return img_fail("%s: Could not open '%s': %s\nCould not open backing image.",
				filename, n->backing_file, e.msg);
	if (!n->backing_format) {
		r = img_fail("%s: Backing file specified without backing format\nDetected format "
			     "of %s.",
			     filename, b->drv->name);
	} else if (!n->has_size) {
		n->q.size = (b->len + 511) & ~511ull;
		n->has_size = true;
	}
	block_co_close(b);
	return r;
}

int img_create(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { { "object", required_argument, NULL, 'O' }, { 0 } };
	const char *format = "raw", *options[16];
	struct img_new n = { 0 };
	bool unsafe = false, help = false;
	unsigned n_options = 0;
	char *size = NULL;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "F:b:f:ho:qu", longs, NULL)) != -1) {
		switch (c) {
		case 'F': n.backing_format = strdup(optarg); break;
		case 'b': n.backing_file = strdup(optarg); break;
		case 'f': format = optarg; break;
		case 'o':
			if (n_options == ARRAY_SIZE(options))
				return img_fail("too many -o");
			options[n_options++] = optarg;
			break;
		case 'q': im->quiet = true; break;
		case 'u': unsafe = true; break;
		case 'O': return img_fail("--object is not supported (it is for encryption)");
		default:
			return img_usage("create [-q] [-f FMT] [-b FILE -F FMT] [-u] [-o OPTIONS] "
					 "FILENAME [SIZE]");
		}
	}
	n.format = format;
	n.is_qcow2 = !strcmp(format, "qcow2");
	if (!n.is_qcow2 && strcmp(format, "raw"))
		return img_fail("Unknown file format '%s'", format);
	for (unsigned i = 0; r == 0 && i < n_options && !help; i++)
		r = img_new_options(&n, options[i], &help);
	if (r || help)
		goto out;
	if (optind >= argc) {
		r = img_usage("Expecting image file name");
		goto out;
	}
	size = optind + 1 < argc ? argv[optind + 1] : NULL;
	if (optind + 2 < argc) {
		r = img_usage("Unexpected argument: %s", argv[optind + 2]);
		goto out;
	}
	if (size) {
		if (img_size(size, &n.q.size) < 0) {
			r = img_fail("Invalid image size specified. You may use k, M, G, T, P or E "
				     "suffixes for kilobytes, megabytes, gigabytes, terabytes, "
				     "petabytes and exabytes.");
			goto out;
		}
		n.has_size = true;
	}
	if (!n.is_qcow2 && n.backing_file) {
		r = img_fail("%s: Backing file not supported for file format 'raw'", argv[optind]);
		goto out;
	}
	if (n.backing_file && !n.backing_file[0]) {
		free(n.backing_file);
		n.backing_file = NULL;
	}
	if (n.backing_file && !unsafe)
		r = create_backing_co(im, &n, argv[optind]);
	if (r == 0 && !n.has_size)
		r = img_fail("%s: Image creation needs a size parameter", argv[optind]);
	if (r == 0) {
		n.q.size = (n.q.size + 511) & ~511ull;
		if (!im->quiet)
			new_show(&n, argv[optind]);
		r = img_co_new(im, &n, argv[optind]);
	}
out:
	img_new_free(&n);
	return r;
}
