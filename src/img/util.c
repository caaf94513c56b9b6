/* Helpers of the commands: messages, sizes, opening, progress, extents. See img.h. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "img/img.h"

int img_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "kvasir-img: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

int img_usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "kvasir-img: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'kvasir-img --help' for more information\n");
	return 1;
}

int img_option(struct img_common *c, int opt, const char *usage)
{
	switch (opt) {
	case 'f': c->format = optarg; return 0;
	case 'U': c->share = true; return 0;
	case OPT_OUTPUT:
		c->is_json = !strcmp(optarg, "json");
		if (!c->is_json && strcmp(optarg, "human"))
			return img_fail("--output must be used with human or json as argument.");
		return 0;
	case OPT_NOT: return img_fail("--object and --image-opts are not supported");
	default: return img_usage("%s", usage);
	}
}

int img_size(const char *text, uint64_t *out)
{
	static const char units[] = "bkmgtpe";
	char *end;
	double v;
	uint64_t factor = 1;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &end, 0);
	v = (double)*out;
	if (*end == '.') {
		if (!strncmp(text, "0x", 2))
			return -EINVAL;
		v = strtod(text, &end);
	}
	if (errno)
		return -EINVAL;
	if (*end) {
		const char *u = strchr(units, tolower((unsigned char)*end));

		if (!u || end[1])
			return -EINVAL;
		factor = 1ull << (10 * (u - units));
	}
	if (v * (double)factor >= 9.2e18)
		return -ERANGE;
	*out = v == (double)*out ? *out * factor : (uint64_t)(v * (double)factor);
	return 0;
}

const char *img_human(char *buf, size_t n, uint64_t bytes)
{
	static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	double v = (double)bytes;
	unsigned i = 0;

	/* three digits are shown: 1000 KiB is 0.977 MiB */
	while (v >= 1000 && i + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		i++;
	}
	snprintf(buf, n, "%0.3g %sB", v, units[i]);
	return buf;
}

bool img_cache(const char *mode, struct block_opts *o)
{
	o->cache_direct =
		!strcmp(mode, "none") || !strcmp(mode, "off") || !strcmp(mode, "directsync");
	o->cache_no_flush = !strcmp(mode, "unsafe");
	o->cache_writethrough = !strcmp(mode, "writethrough") || !strcmp(mode, "directsync");
	return o->cache_direct || o->cache_no_flush || o->cache_writethrough ||
	       !strcmp(mode, "writeback");
}

struct block *img_co_open(struct img *im, const char *filename, const char *format,
			  struct block_opts *o)
{
	struct block *b = NULL;
	struct err e = { 0 };

	if (block_co_open(im->ctx, filename, format, o, &b, &e) < 0) {
		img_fail("Could not open '%s': %s", filename, e.msg);
		return NULL;
	}
	return b;
}

uint64_t img_allocated(const char *filename)
{
	struct stat st;

	return stat(filename, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

bool img_same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	return a && b && !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

bool img_is_device(const char *filename)
{
	struct stat st;

	return !stat(filename, &st) && S_ISBLK(st.st_mode);
}

void img_progress(struct img_progress *p, uint64_t done)
{
	uint64_t now = p->total ? (uint64_t)((double)done * 100 / (double)p->total) : 100;

	if (!p->on || (now == p->shown && done))
		return;
	p->shown = now;
	printf("    (%3.2f/100%%)\r", (double)now);
	fflush(stdout);
}

void img_progress_end(struct img_progress *p)
{
	if (p->on)
		printf("    (100.00/100%%)\n");
}

int img_co_extent(struct block *b, uint64_t off, struct img_extent *x)
{
	uint64_t len = b->len - off;

	*x = (struct img_extent){ .start = off, .len = len };
	for (unsigned depth = 0;; depth++) {
		struct block_status st;
		int r = block_co_status(b, off, len, &st);

		if (r < 0)
			return r;
		x->len = len = st.len;
		x->depth = depth;
		if (st.flags & (BLOCK_ALLOCATED | BLOCK_DATA | BLOCK_ZERO)) {
			x->present = st.flags & BLOCK_ALLOCATED;
			x->zero = st.flags & BLOCK_ZERO;
			x->data = st.flags & BLOCK_DATA;
			x->compressed = st.flags & BLOCK_COMPRESSED;
			x->has_offset = st.flags & BLOCK_OFFSET;
			x->offset = st.offset;
			x->file = st.file;
			return 0;
		}
		if (!b->backing || off >= b->backing->len) {
			x->zero = true;
			return 0;
		}
		b = b->backing;
		len = MIN(len, b->len - off);
	}
}
