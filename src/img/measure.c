/* kvasir-img measure: how large an image would become. Threads: one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

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
					       { "size", required_argument, NULL, OPT_OTHER },
					       { 0 } };
	const char *out = "raw", *options = NULL, *snapshot = NULL;
	struct img_common com = { 0 };
	struct block_opts o = { 0 };
	struct img_new n = { 0 };
	bool help = false, has_size = false;
	uint64_t size = 0, need = 0, full = 0;
	struct block *b = NULL;
	struct err e = { 0 };
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "hf:l:o:O:U", longs, NULL)) != -1) {
		switch (c) {
		case 'l': snapshot = optarg; break;
		case 'o': options = optarg; break;
		case 'O': out = optarg; break;
		case OPT_OTHER:
			if (img_size(optarg, &size) < 0)
				return img_fail("Invalid size '%s'", optarg);
			has_size = true;
			break;
		default:
			if (img_option(
				    &com, c,
				    "measure [--output=human|json] [-O FMT] [-o OPTIONS] [--size "
				    "N | [-f FMT] [-l SNAPSHOT] [-U] FILENAME]"))
				return 1;
		}
	}
	o.force_share = com.share;
	if (has_size ? optind != argc : optind != argc - 1)
		return img_usage("Either --size N or one filename must be specified.");
	n.format = out;
	n.is_qcow2 = !strcmp(out, "qcow2");
	if (!n.is_qcow2 && strcmp(out, "raw"))
		return img_fail("Unknown file format '%s'", out);
	r = options ? img_new_options(&n, options, &help) : 0;
	if (r == 0 && !help && !has_size) {
		b = img_co_open(im, argv[optind], com.format, &o);
		if (!b)
			r = 1;
		else if (snapshot && (!qcow2_is(b) || qcow2_co_snapshot_view(b, snapshot, &e) < 0))
			r = img_fail("Failed to load snapshot: %s",
				     qcow2_is(b) ? e.msg : "raw images have none");
	}
	if (r == 0 && !help) {
		uint64_t cl = !n.is_qcow2 ? 512 : n.q.cluster_size ? n.q.cluster_size : 65536;

		size = ((b ? b->len : size) + 511) & ~511ull; /* what create makes of it */
		r = b ? measure_co(b, &n, &need) : 0;
		full = n.is_qcow2 && n.data_file ? 0 : (size + cl - 1) / cl * cl;
		full += n.is_qcow2 ? measure_meta(&n, size) : 0;
		need = !n.is_qcow2                       ? size
		       : n.data_file                     ? full
		       : n.q.prealloc >= PREALLOC_FALLOC ? full
							 : measure_meta(&n, size) + need;
	}
	if (r == 0 && !help && com.is_json) {
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
