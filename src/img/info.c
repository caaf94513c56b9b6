/*
 * kvasir-img info and snapshot: what an image says of itself.
 * Names inside of images are printed with control characters replaced (text) or escaped (JSON).
 * Threads: one.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/block/info.h"
#include "base/bits.h"
#include "img/img.h"

enum { CHAIN_MAX = 200 };

/* A name from an image, for a terminal. */
static const char *clean(char *buf, size_t n, const char *s)
{
	size_t i;

	for (i = 0; s[i] && i + 1 < n; i++)
		buf[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
	buf[i] = 0;
	return buf;
}

static void snapshots_show(const struct block_info *i)
{
	printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
	for (unsigned k = 0; k < i->n_snapshots; k++) {
		const struct block_snapshot *s = &i->snapshots[k];
		char date[64] = "", vm_clock[64], size[32], id[64], name[256], icount[24] = "";
		time_t t = (time_t)s->date_sec;
		uint64_t sec = s->vm_clock_nsec / 1000000000;
		struct tm tm;

		if (localtime_r(&t, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		snprintf(vm_clock, sizeof(vm_clock), "%02llu:%02u:%02u.%03u",
			 (unsigned long long)(sec / 3600), (unsigned)(sec / 60 % 60),
			 (unsigned)(sec % 60), (unsigned)(s->vm_clock_nsec / 1000000 % 1000));
		if (s->has_icount)
			snprintf(icount, sizeof(icount), "%llu", (unsigned long long)s->icount);
		printf("%-9s %-16s %8s%20s%13s%11s\n", clean(id, sizeof(id), s->id),
		       clean(name, sizeof(name), s->name),
		       img_human(size, sizeof(size), s->vm_state_size), date, vm_clock, icount);
	}
}

/* One image of a chain. */
struct layer {
	struct block *b;
	struct block_info i;
	const char *filename;
	char *backing_path; /* resolved, NULL: none */
};

static void info_text(const struct layer *l)
{
	const struct block *b = l->b;
	const struct block_info *i = &l->i;
	char size[32], name[1100], path[1100];

	printf("image: %s\nfile format: %s\n", l->filename, b->drv->name);
	printf("virtual size: %s (%llu bytes)\n", img_human(size, sizeof(size), b->len),
	       (unsigned long long)b->len);
	printf("disk size: %s\n", img_human(size, sizeof(size), img_allocated(l->filename)));
	if (i->encrypted)
		printf("encrypted: yes\n");
	if (i->cluster_size)
		printf("cluster_size: %u\n", i->cluster_size);
	if (i->dirty)
		printf("cleanly shut down: no\n");
	if (b->backing_file) {
		printf("backing file: %s", clean(name, sizeof(name), b->backing_file));
		if (l->backing_path && strcmp(l->backing_path, b->backing_file))
			printf(" (actual path: %s)", clean(path, sizeof(path), l->backing_path));
		putchar('\n');
		if (b->backing_format)
			printf("backing file format: %s\n",
			       clean(name, sizeof(name), b->backing_format));
	}
	if (i->n_snapshots) {
		printf("Snapshot list:\n");
		snapshots_show(i);
	}
	if (!i->is_qcow2)
		return;
	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
	       i->compat_v3 ? "1.1" : "0.10", i->compression_type);
	if (i->compat_v3)
		printf("    lazy refcounts: %s\n", i->lazy_refcounts ? "true" : "false");
	printf("    refcount bits: %u\n", i->refcount_bits);
	if (i->has_data_file) {
		printf("    data file: %s\n    data file raw: %s\n",
		       clean(name, sizeof(name), b->data_file_name ? b->data_file_name : ""),
		       i->data_file_raw ? "true" : "false");
	}
	if (i->compat_v3)
		printf("    corrupt: %s\n    extended l2: %s\n", i->corrupt ? "true" : "false",
		       i->extended_l2 ? "true" : "false");
}

static void info_json_snapshots(struct json *j, const struct block_info *i)
{
	json_open(j, "snapshots", '[');
	for (unsigned k = 0; k < i->n_snapshots; k++) {
		const struct block_snapshot *s = &i->snapshots[k];

		json_open(j, NULL, '{');
		if (s->has_icount)
			json_uint(j, "icount", s->icount);
		json_uint(j, "vm-clock-nsec", s->vm_clock_nsec % 1000000000);
		json_str(j, "name", s->name);
		json_uint(j, "date-sec", s->date_sec);
		json_uint(j, "date-nsec", s->date_nsec);
		json_uint(j, "vm-clock-sec", s->vm_clock_nsec / 1000000000);
		json_str(j, "id", s->id);
		json_uint(j, "vm-state-size", s->vm_state_size);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void info_json_qcow2(struct json *j, const struct layer *l)
{
	const struct block_info *i = &l->i;

	json_open(j, "format-specific", '{');
	json_str(j, "type", "qcow2");
	json_open(j, "data", '{');
	json_str(j, "compat", i->compat_v3 ? "1.1" : "0.10");
	json_str(j, "compression-type", i->compression_type);
	if (i->compat_v3)
		json_bool(j, "lazy-refcounts", i->lazy_refcounts);
	json_uint(j, "refcount-bits", i->refcount_bits);
	if (i->has_data_file) {
		json_str(j, "data-file", l->b->data_file_name ? l->b->data_file_name : "");
		json_bool(j, "data-file-raw", i->data_file_raw);
	}
	if (i->compat_v3) {
		json_bool(j, "corrupt", i->corrupt);
		json_bool(j, "extended-l2", i->extended_l2);
	}
	json_close(j, '}');
	json_close(j, '}');
}

static void info_json(struct json *j, const struct layer *l, bool in_array)
{
	const struct block *b = l->b;
	const struct block_info *i = &l->i;

	json_open(j, NULL, '{');
	if (b->backing_format)
		json_str(j, "backing-filename-format", b->backing_format);
	if (i->n_snapshots)
		info_json_snapshots(j, i);
	json_uint(j, "virtual-size", b->len);
	json_str(j, "filename", l->filename);
	if (i->cluster_size)
		json_uint(j, "cluster-size", i->cluster_size);
	json_str(j, "format", b->drv->name);
	json_uint(j, "actual-size", img_allocated(l->filename));
	if (i->encrypted)
		json_bool(j, "encrypted", true);
	if (i->is_qcow2)
		info_json_qcow2(j, l);
	if (l->backing_path)
		json_str(j, "full-backing-filename", l->backing_path);
	if (b->backing_file)
		json_str(j, "backing-filename", b->backing_file);
	json_bool(j, "dirty-flag", i->dirty);
	json_close(j, '}');
}

/* Open a layer without what is below it. 0 or a status. */
static int layer_open_co(struct img *im, struct layer *l, const char *filename, const char *format,
			 bool share)
{
	struct block_opts o = { .no_backing = true, .force_share = share, .check = true };
	struct err e = { 0 };

	*l = (struct layer){ .filename = filename };
	l->b = img_co_open(im, filename, format, &o);
	if (!l->b)
		return 1;
	if (l->b->drv->info_co && l->b->drv->info_co(l->b, &l->i, &e) < 0)
		return img_fail("%s: %s", filename, e.msg);
	if (l->b->backing_file)
		l->backing_path = block_path_combine(filename, l->b->backing_file);
	return 0;
}

static void layer_close_co(struct layer *l)
{
	block_co_close(l->b);
	block_info_free(&l->i);
	free(l->backing_path);
}

int img_info(struct img *im, int argc, char **argv)
{
	enum { OPT_CHAIN = OPT_OTHER };
	static const struct option longs[] = { OPTS_COMMON,
					       { "backing-chain", no_argument, NULL, OPT_CHAIN },
					       { 0 } };
	struct img_common com = { 0 };
	bool chain = false;
	char *name, *fmt = NULL;
	struct json j = { 0 };
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "f:hU", longs, NULL)) != -1) {
		switch (c) {
		case OPT_CHAIN: chain = true; break;
		default:
			if (img_option(&com, c,
				       "info [-f FMT] [--output=human|json] [--backing-chain] "
				       "[-U] FILENAME"))
				return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	name = strdup(argv[optind]);
	fmt = com.format ? strdup(com.format) : NULL;
	if (com.is_json && chain)
		json_open(&j, NULL, '[');
	for (unsigned depth = 0; name && r == 0; depth++) {
		struct layer l;
		char *next = NULL, *next_fmt = NULL;

		if (depth >= CHAIN_MAX) {
			r = img_fail("Backing file '%s' creates an infinite loop.", name);
			break;
		}
		r = layer_open_co(im, &l, name, fmt, com.share);
		if (r == 0 && com.is_json)
			info_json(&j, &l, chain);
		else if (r == 0) {
			if (depth)
				putchar('\n');
			info_text(&l);
		}
		if (r == 0 && chain && l.backing_path) {
			next = strdup(l.backing_path);
			next_fmt = l.b->backing_format ? strdup(l.b->backing_format) : NULL;
		}
		layer_close_co(&l);
		free(name);
		free(fmt);
		name = next;
		fmt = next_fmt;
	}
	if (com.is_json && chain && r == 0)
		json_close(&j, ']');
	free(name);
	free(fmt);
	return r;
}

/* ---- snapshot ------------------------------------------------------------------------------ */

static int snapshot_list_co(struct img *im, const char *filename, const char *format, bool share)
{
	struct layer l;
	int r = layer_open_co(im, &l, filename, format, share);

	if (r == 0 && l.i.n_snapshots) {
		printf("Snapshot list:\n");
		snapshots_show(&l.i);
	}
	layer_close_co(&l);
	return r;
}

static int snapshot_do_co(struct img *im, const char *filename, const char *format, int what,
			  const char *name)
{
	struct block_opts o = { .writable = true, .discard_unmap = true };
	struct block *b = img_co_open(im, filename, format, &o);
	struct err e = { 0 };
	int r;

	if (!b)
		return 1;
	if (!qcow2_is(b)) {
		block_co_close(b);
		return img_fail("Could not %s snapshot '%s': %s images have no snapshots",
				what == 'c'   ? "create"
				: what == 'a' ? "apply"
					      : "delete",
				name, "raw");
	}
	if (what == 'c')
		r = qcow2_co_snapshot_create(b, name, &e);
	else if (what == 'a')
		r = qcow2_co_snapshot_apply(b, name, &e);
	else
		r = qcow2_co_snapshot_delete(b, name, &e);
	if (r >= 0)
		r = block_co_flush(b);
	block_co_close(b);
	if (r == -ENOENT && what == 'd')
		return img_fail("Could not delete snapshot '%s': snapshot not found", name);
	if (r < 0)
		return img_fail("Could not %s snapshot '%s': %s",
				what == 'c'   ? "create"
				: what == 'a' ? "apply"
					      : "delete",
				name, e.code ? e.msg : strerror(-r));
	return 0;
}

int img_snapshot(struct img *im, int argc, char **argv)
{
	static const struct option longs[] = { { "force-share", no_argument, NULL, 'U' },
					       { "object", required_argument, NULL, 'O' },
					       { "image-opts", no_argument, NULL, 'O' },
					       { 0 } };
	const char *format = NULL, *name = NULL;
	bool share = false;
	int c, what = 0;

	while ((c = getopt_long(argc, argv, "f:la:c:d:hqU", longs, NULL)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'q': im->quiet = true; break;
		case 'U': share = true; break;
		case 'O': return img_fail("--object and --image-opts are not supported");
		case 'l':
		case 'a':
		case 'c':
		case 'd':
			if (what)
				return img_usage("Cannot mix '-l', '-a', '-c', '-d'");
			what = c;
			name = optarg;
			break;
		default:
			return img_usage("snapshot [-U] [-q] [-f FMT] [-l | -a NAME | -c NAME | "
					 "-d NAME] FILENAME");
		}
	}
	if (optind != argc - 1)
		return img_usage("Expecting one image file name");
	if (!what || what == 'l')
		return snapshot_list_co(im, argv[optind], format, share);
	return snapshot_do_co(im, argv[optind], format, what, name);
}
