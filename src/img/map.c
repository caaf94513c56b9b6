/* kvasir-img map: where the content of an image lies. Threads: one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

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
	struct img_common com = { 0 };
	struct img_extent cur, x;
	bool any = false;
	uint64_t at = 0, end = UINT64_MAX, start = 0;
	struct block *b;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "f:s:l:hU", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			if (img_size(optarg, &start) < 0)
				return img_fail("Invalid start offset '%s'", optarg);
			break;
		case 'l':
			if (img_size(optarg, &end) < 0)
				return img_fail("Invalid maximum length '%s'", optarg);
			break;
		default:
			if (img_option(&com, c,
				       "map [-f FMT] [--start-offset=OFF] [--max-length=LEN] "
				       "[--output=human|json] [-U] FILENAME"))
				return 1;
		}
	}
	o.force_share = com.share;
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	b = img_co_open(im, argv[optind], com.format, &o);
	if (!b)
		return 1;
	end = end < b->len - MIN(start, b->len) ? start + end : b->len;
	if (!com.is_json)
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
			r = extent_show(&cur, com.is_json, !any, false);
			any = true;
		}
		cur = x;
	}
	if (r == 0 && at > start)
		r = extent_show(&cur, com.is_json, !any, true);
	else if (r == 0 && com.is_json)
		printf("[]\n");
	block_co_close(b);
	return r;
}
