/*
 * Opening images by file name: protocol, format, backing chain; see block.h.
 *
 * A chain is made from the top down: a format's open_co names its backing file, which may name its
 * own. The way back is by ->parent, along which cycles and too long chains are found.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "base/bits.h"

#define CHAIN_MAX 200

/* The length of "PROTO:" at the beginning of name, 0: a plain path. */
static size_t path_protocol(const char *name)
{
	size_t n = 0;

	while (isalnum((unsigned char)name[n]) || (n && strchr("+-.", name[n]) && name[n]))
		n++;
	return n && name[n] == ':' ? n + 1 : 0;
}

char *block_path_combine(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *p;

	if (name[0] == '/' || path_protocol(name) || !slash)
		return strdup(name);
	if (asprintf(&p, "%.*s%s", (int)(slash - image + 1), image, name) < 0)
		return NULL;
	return p;
}

const char *block_path_of(const char *filename, struct err *e)
{
	size_t n = path_protocol(filename);

	if (!n)
		return filename;
	if (n == 5 && !strncmp(filename, "file:", 5))
		return filename + 5;
	err_set(e, ENOTSUP,
		"'%s': images by the protocol '%.*s' are not supported, only host files (write "
		"./%s if this is one)",
		filename, (int)n - 1, filename, filename);
	return NULL;
}

static int block_co_open_file(struct block_ctx *c, const char *filename, const struct block_opts *o,
			      struct block **out, struct err *e)
{
	const char *path = block_path_of(filename, e);
	struct block_opts fo;
	int r;

	if (!path)
		return -ENOTSUP;
	if (block_opts_copy(&fo, o))
		return err_set(e, ENOMEM, "block layer: out of memory");
	free(fo.filename);
	fo.filename = strdup(path);
	fo.detect_zeroes = DETECT_ZEROES_OFF; /* the node on top has looked */
	r = fo.filename ? block_co_open_node(c, block_driver("file", NULL), &fo, NULL, NULL, out, e)
			: err_set(e, ENOMEM, "block layer: out of memory");
	block_opts_free(&fo);
	return r;
}

/* Which driver for the bytes of file; *probed tells that it was a guess. */
static const struct block_driver *block_co_guess(struct block *file, struct err *e)
{
	uint8_t buf[BLOCK_PROBE_SIZE] = { 0 };
	size_t n = MIN(file->len, sizeof(buf));
	int r = block_co_pread(file, 0, buf, n);
	const struct block_driver *drv;
	const char *foreign;

	if (r < 0) {
		err_set(e, -r, "%s: cannot be read: %s", file->opts.filename, strerror(-r));
		return NULL;
	}
	drv = block_probe(buf, n);
	foreign = block_probe_foreign(buf, n);
	if (foreign && !strcmp(drv->name, "raw")) {
		err_set(e, ENOTSUP,
			"%s looks like a %s image, which is not supported: convert it with "
			"'qemu-img convert', or say format=raw if it is a raw disk",
			file->opts.filename, foreign);
		return NULL;
	}
	return drv;
}

/* parent: who asked for it (a chain), or NULL. */
static int block_co_open_image(struct block_ctx *c, const char *filename, const char *format,
			       const struct block_opts *o, struct block *parent, struct block **out,
			       struct err *e)
{
	const struct block_driver *drv = NULL;
	struct block_opts bo;
	struct block *file;
	int r;

	*out = NULL;
	if (format) {
		drv = block_driver(format, e);
		if (!drv)
			return -EINVAL;
	}
	r = block_co_open_file(c, filename, o, &file, e);
	if (r < 0 || (drv && drv->is_protocol)) {
		*out = r < 0 ? NULL : file;
		return r;
	}
	if (!drv)
		drv = block_co_guess(file, e);
	if (!drv) {
		block_co_close(file);
		return e && e->code ? -e->code : -EINVAL;
	}
	if (block_opts_copy(&bo, o) == 0) {
		free(bo.filename);
		bo.filename = strdup(file->opts.filename);
	}
	if (!bo.filename) {
		block_co_close(file);
		return err_set(e, ENOMEM, "block layer: out of memory");
	}
	r = block_node_co_open(c, drv, &bo, NULL, file,
			       &(struct block_node_extra){ .parent = parent, .probed = !format },
			       out, e);
	block_opts_free(&bo);
	return r;
}

int block_co_open(struct block_ctx *c, const char *filename, const char *format,
		  const struct block_opts *o, struct block **out, struct err *e)
{
	return block_co_open_image(c, filename, format, o, NULL, out, e);
}

struct block_open_args {
	struct block_ctx *c;
	const char *filename, *format;
	const struct block_opts *o;
	struct block **out;
	struct err *e;
	int result;
};

static void block_open_run(void *arg)
{
	struct block_open_args *a = arg;

	a->result = block_co_open(a->c, a->filename, a->format, a->o, a->out, a->e);
}

int block_open(struct block_ctx *c, const char *filename, const char *format,
	       const struct block_opts *o, struct block **out, struct err *e)
{
	struct block_open_args a = { c, filename, format, o, out, e, 0 };

	if (tasks_run(c->tasks, block_open_run, &a))
		return err_set(e, ENOMEM, "block layer: out of memory");
	return a.result;
}

/* ---- Children that images name ------------------------------------------------------------- */

static int block_chain_check(struct block *b, const char *path, struct err *e)
{
	unsigned depth = 0;

	for (; b; b = b->parent) {
		const char *cycle =
			b->file && block_file_is(b->file, path) ? b->opts.filename : NULL;

		if (cycle)
			return err_set(e, ELOOP,
				       "%s is its own backing file, directly or through "
				       "others",
				       cycle);
		if (++depth >= CHAIN_MAX)
			return err_set(e, ELOOP, "the chain of backing files is longer than %u",
				       CHAIN_MAX);
	}
	return 0;
}

static int block_co_open_child(struct block *b, const char *name, const char *format, bool writable,
			       struct block **out, struct err *e)
{
	char *path = block_path_combine(b->opts.filename, name);
	const char *real = path ? block_path_of(path, e) : NULL;
	struct block_opts o;
	int r;

	if (!path)
		return err_set(e, ENOMEM, "block layer: out of memory");
	r = real ? block_chain_check(b, real, e) : -ENOTSUP;
	if (r == 0 && block_opts_copy(&o, &b->opts) < 0) {
		r = err_set(e, ENOMEM, "block layer: out of memory");
	} else if (r == 0) {
		o.writable = writable;
		o.detect_zeroes = DETECT_ZEROES_OFF;
		o.raw_offset = o.raw_size = 0;
		r = block_co_open_image(b->ctx, path, format, &o, b, out, e);
		if (r == 0)
			(*out)->parent = b;
		block_opts_free(&o);
	}
	free(path);
	return r;
}

/* Whose child could not be opened: of a chain the one that names it, or the cause has no room. */
static int block_child_error(struct err *e, const char *what, const struct block *b)
{
	static const char *const done[] = { "data file of ", "backing file of " };

	for (unsigned i = 0; e && i < ARRAY_SIZE(done); i++)
		if (!strncmp(e->msg, done[i], strlen(done[i])))
			return -e->code;
	return err_prefix(e, "%s of %s", what, b->opts.filename);
}

int block_co_open_children(struct block *b, struct err *e)
{
	int r = 0;

	if (b->data_file_name) {
		r = block_co_open_child(b, b->data_file_name, "file", b->writable, &b->data_file,
					e);
		if (r < 0)
			return block_child_error(e, "data file", b);
	}
	if (b->backing_file && !b->opts.no_backing) {
		r = block_co_open_child(b, b->backing_file, b->backing_format, false, &b->backing,
					e);
		if (r < 0)
			return block_child_error(e, "backing file", b);
	}
	return 0;
}
