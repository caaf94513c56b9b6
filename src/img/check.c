/* kvasir-img check. Exit statuses: 0 good, 1 could not, 2 errors, 3 leaks, 63 no such thing. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "img/img.h"

enum { CHECK_CORRUPT = 2, CHECK_LEAKS = 3, CHECK_NOT_SUPPORTED = 63 };

static void check_report(void *opaque, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static void check_text(const struct qcow2_check *c)
{
	if (!c->corruptions && !c->leaks && !c->check_errors)
		printf("No errors were found on the image.\n");
	if (c->corruptions)
		printf("\n%llu errors were found on the image.\nData may be corrupted, or further "
		       "writes to the image may corrupt it.\n",
		       (unsigned long long)c->corruptions);
	if (c->leaks)
		printf("\n%llu leaked clusters were found on the image.\nThis means waste of disk "
		       "space, but no harm to data.\n",
		       (unsigned long long)c->leaks);
	if (c->check_errors)
		printf("\n%llu internal errors have occurred during the check.\n",
		       (unsigned long long)c->check_errors);
	if (c->total_clusters && c->allocated_clusters)
		printf("%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed "
		       "clusters\n",
		       (unsigned long long)c->allocated_clusters,
		       (unsigned long long)c->total_clusters,
		       (double)c->allocated_clusters * 100 / (double)c->total_clusters,
		       (double)c->fragmented_clusters * 100 / (double)c->allocated_clusters,
		       (double)c->compressed_clusters * 100 / (double)c->allocated_clusters);
	if (c->image_end)
		printf("Image end offset: %llu\n", (unsigned long long)c->image_end);
}

static void check_json(const struct qcow2_check *c, const char *filename)
{
	struct json j = { 0 };

	json_open(&j, NULL, '{');
	json_uint(&j, "image-end-offset", c->image_end);
	if (c->compressed_clusters)
		json_uint(&j, "compressed-clusters", c->compressed_clusters);
	json_uint(&j, "total-clusters", c->total_clusters);
	if (c->leaks)
		json_uint(&j, "leaks", c->leaks);
	if (c->corruptions)
		json_uint(&j, "corruptions", c->corruptions);
	if (c->leaks_fixed)
		json_uint(&j, "leaks-fixed", c->leaks_fixed);
	if (c->corruptions_fixed)
		json_uint(&j, "corruptions-fixed", c->corruptions_fixed);
	json_uint(&j, "check-errors", c->check_errors);
	if (c->allocated_clusters)
		json_uint(&j, "allocated-clusters", c->allocated_clusters);
	json_str(&j, "filename", filename);
	json_str(&j, "format", "qcow2");
	if (c->fragmented_clusters)
		json_uint(&j, "fragmented-clusters", c->fragmented_clusters);
	json_close(&j, '}');
}

int img_check(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { OPTS_COMMON,
					       { "repair", required_argument, NULL, 'r' },
					       { 0 } };
	struct block_opts o = { .check = true, .no_backing = true };
	struct qcow2_check c = { .report = check_report }, again = { .report = check_report };
	struct img_common com = { 0 };
	struct err e = { 0 };
	unsigned fix = 0;
	struct block *b;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "hf:r:T:qU", longs, NULL)) != -1) {
		switch (opt) {
		case 'q': im->quiet = true; break;
		case 'r':
			if (!strcmp(optarg, "leaks"))
				fix = QCOW2_FIX_LEAKS;
			else if (!strcmp(optarg, "all"))
				fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS;
			else
				return img_usage("--repair/-r expects 'leaks' or 'all' not '%s'",
						 optarg);
			o.writable = true;
			break;
		case 'T':
			if (!img_cache(optarg, &o))
				return img_fail("Invalid source cache option: %s", optarg);
			break;
		default:
			if (img_option(&com, opt,
				       "check [-q] [-f FMT] [--output=human|json] [-r leaks|all] "
				       "[-U] FILENAME"))
				return 1;
		}
	}
	o.force_share = com.share;
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	if (fix && o.force_share)
		return img_fail("-r needs the image for itself and cannot be used with -U");
	b = img_co_open(im, argv[optind], com.format, &o);
	if (!b)
		return 1;
	if (!qcow2_is(b)) {
		block_co_close(b);
		img_fail("This image format does not support checks");
		return CHECK_NOT_SUPPORTED;
	}
	if (im->quiet)
		c.report = again.report = NULL;
	r = qcow2_co_check(b, fix, &c, &e);
	if (r >= 0 && (c.corruptions_fixed || c.leaks_fixed)) {
		if (!im->quiet && !com.is_json)
			printf("The following inconsistencies were found and repaired:\n\n    %llu "
			       "leaked clusters\n    %llu corruptions\n\nDouble checking the fixed "
			       "image now...\n",
			       (unsigned long long)c.leaks_fixed,
			       (unsigned long long)c.corruptions_fixed);
		again.corruptions_fixed = c.corruptions_fixed;
		again.leaks_fixed = c.leaks_fixed;
		r = qcow2_co_check(b, 0, &again, &e);
		c = again;
	}
	if (r >= 0 && !im->quiet) {
		if (com.is_json)
			check_json(&c, argv[optind]);
		else
			check_text(&c);
	}
	block_co_close(b);
	if (r < 0)
		return img_fail("Check failed: %s", e.msg);
	return c.corruptions ? CHECK_CORRUPT : c.leaks ? CHECK_LEAKS : c.check_errors ? 1 : 0;
}
