/*
 * Contexts, the table of drivers, and making and ending single nodes; see block.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "backend/block/uring.h"
#include "base/bits.h"
#include "base/bug.h"
#include "core/nearest.h"
#include "core/worker.h"

#define HOST_THREADS 32 /* for host I/O without io_uring: as many requests run at a time */

#define BLOCK_DRIVER(d) extern const struct block_driver d;
#include "backend/block/drivers.def"
#undef BLOCK_DRIVER

static const struct block_driver *const block_drivers[] = {
#define BLOCK_DRIVER(d) &d,
#include "backend/block/drivers.def"
#undef BLOCK_DRIVER
};

const struct block_driver *block_driver_at(unsigned i)
{
	return i < ARRAY_SIZE(block_drivers) ? block_drivers[i] : NULL;
}

const struct block_driver *block_driver(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(block_drivers)];
	char hint[96];

	if (!strcmp(name, "host_device")) /* QEMU's name for "file" on a block device */
		name = "file";
	for (unsigned i = 0; i < ARRAY_SIZE(block_drivers); i++) {
		names[i] = block_drivers[i]->name;
		if (!strcmp(names[i], name))
			return block_drivers[i];
	}
	err_set(e, EINVAL, "unknown image format or driver '%s'%s", name,
		text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	return NULL;
}

/* ---- Contexts ------------------------------------------------------------------------------ */

struct block_ctx *block_ctx_new(struct loop *l, enum block_aio aio, struct err *e)
{
	struct block_ctx *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ENOMEM, "block layer: out of memory");
		return NULL;
	}
	c->loop = l;
	c->aio_asked = aio;
	c->aio = BLOCK_AIO_THREADS;
	c->workers = workers_new(l, HOST_THREADS, e);
	c->tasks = c->workers ? tasks_new(l, c->workers, e) : NULL;
	if (!c->tasks)
		goto fail;
	if (aio != BLOCK_AIO_THREADS) {
		c->uring = uring_new(l, e);
		if (c->uring)
			c->aio = BLOCK_AIO_IO_URING;
		else if (aio == BLOCK_AIO_IO_URING)
			goto fail;
		else if (e)
			*e = (struct err){ 0 };
	}
	return c;
fail:
	block_ctx_free(c);
	return NULL;
}

void block_ctx_free(struct block_ctx *c)
{
	if (!c)
		return;
	uring_free(c->uring);
	tasks_free(c->tasks);
	workers_free(c->workers);
	free(c);
}

struct tasks *block_ctx_tasks(struct block_ctx *c)
{
	return c->tasks;
}

enum block_aio block_ctx_aio(struct block_ctx *c)
{
	return c->aio_asked;
}

struct loop *block_ctx_loop(struct block_ctx *c)
{
	return c->loop;
}

/* ---- Options ------------------------------------------------------------------------------- */

int block_opts_copy(struct block_opts *to, const struct block_opts *from)
{
	*to = from ? *from : (struct block_opts){ 0 };
	if (!to->filename)
		return 0;
	to->filename = strdup(to->filename);
	return to->filename ? 0 : -ENOMEM;
}

void block_opts_free(struct block_opts *o)
{
	free(o->filename);
	*o = (struct block_opts){ 0 };
}

/* ---- Nodes --------------------------------------------------------------------------------- */

static void block_free(struct block *b)
{
	block_opts_free(&b->opts);
	free(b->node_name);
	free(b->backing_file);
	free(b->backing_format);
	free(b->data_file_name);
	free(b->reqs);
	free(b->priv);
	free(b);
}

static struct block *block_alloc(struct block_ctx *c, const struct block_driver *drv,
				 const struct block_opts *o, const char *node_name)
{
	struct block *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->drv = drv;
	b->ctx = c;
	b->request_align = b->memory_align = 1;
	b->priv = calloc(1, MAX(drv->priv_size, 1u));
	b->reqs = calloc(1, sizeof(*b->reqs));
	b->node_name = node_name ? strdup(node_name) : NULL;
	if (block_opts_copy(&b->opts, o) || !b->priv || !b->reqs || (node_name && !b->node_name)) {
		block_free(b);
		return NULL;
	}
	b->writable = b->opts.writable;
	return b;
}

int block_node_co_open(struct block_ctx *c, const struct block_driver *drv,
		       const struct block_opts *o, const char *node_name, struct block *file,
		       const struct block_node_extra *x, struct block **out, struct err *e)
{
	struct block *b = block_alloc(c, drv, o, node_name);
	int r;

	*out = NULL;
	if (!b) {
		block_co_close(file);
		return err_set(e, ENOMEM, "block layer: out of memory");
	}
	b->file = file;
	b->parent = x->parent;
	b->probed = x->probed;
	b->backing = x->backing;
	if (file) {
		BUG_ON(drv->is_protocol);
		file->parent = b;
		b->request_align = file->request_align;
		b->memory_align = file->memory_align;
	}
	r = drv->open_co(b, e);
	if (r < 0) {
		block_co_close(b->file);
		block_free(b);
		return r;
	}
	if (b->backing)
		b->backing->parent = b;
	r = block_co_open_children(b, e);
	if (r < 0) {
		block_co_close(b);
		return r;
	}
	b->parent = NULL; /* whoever adopts it says so */
	*out = b;
	return 0;
}

int block_co_open_node(struct block_ctx *c, const struct block_driver *drv,
		       const struct block_opts *o, const char *node_name, struct block *file,
		       struct block **out, struct err *e)
{
	return block_node_co_open(c, drv, o, node_name, file, &(struct block_node_extra){ 0 }, out,
				  e);
}

void block_co_close(struct block *b)
{
	if (!b)
		return;
	BUG_ON(b->reqs->n); /* its user drains it */
	if (b->drv->close_co)
		b->drv->close_co(b);
	block_co_close(b->backing);
	block_co_close(b->data_file);
	block_co_close(b->file);
	block_free(b);
}

static void block_close_run(void *arg)
{
	block_co_close(arg);
}

void block_close(struct block *b)
{
	if (b)
		BUG_ON(tasks_run(b->ctx->tasks, block_close_run, b) < 0);
}
