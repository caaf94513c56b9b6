/* kvasir-img resize: another length of the disk in an image. Threads: one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

enum { OPT_SHRINK = OPT_OTHER, OPT_PREALLOC };

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
