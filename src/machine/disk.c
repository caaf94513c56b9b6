/*
 * Disks of a machine: images of the configuration become backends, and those with if=virtio become
 * devices of the board. See machine.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "machine/device.h"
#include "machine/machine.h"

/* What opening needs, for one task. */
struct disk_opening {
	struct machine *m;
	struct err *e;
	int result;
};

static int disk_co_overlay(struct machine *m, const struct block_opts *o, struct block **b,
			   struct err *e)
{
	struct block *below = *b;

	return block_co_open_overlay(m->block, below, o, b, e);
}

/* Whatever was probed as raw: say so once, since its first sector is guarded. */
static void disk_guessed(const char *file, const struct block *b)
{
	if (b->probed && b->writable)
		log_info("%s: taken for a raw disk; format=raw says so, and lets the guest write "
			 "anything to its first sector",
			 file);
}

static int disk_co_drive(struct machine *m, const struct drive_config *d, struct err *e)
{
	bool snapshot = d->snapshot || m->cfg->snapshot;
	struct block_opts o = d->opts;
	struct block *root;
	struct blk *b;
	int r;

	if (snapshot) {
		o.writable = false;
		o.detect_zeroes = DETECT_ZEROES_OFF;
	}
	r = block_co_open(m->block, d->file, d->format, &o, &root, e);
	if (r == 0)
		disk_guessed(d->file, root);
	if (r == 0 && snapshot && d->opts.writable)
		r = disk_co_overlay(m, &d->opts, &root, e);
	if (r < 0)
		return err_prefix(e, "-drive");
	b = blk_new(d->id, root, &d->conf, &m->run, e);
	return b ? blks_add(&m->blks, b, e) : -ENOMEM;
}

static int disk_co_nodes(struct machine *m, struct err *e)
{
	struct block *node[CONFIG_BLOCKDEVS] = { NULL };
	const struct machine_config *cfg = m->cfg;
	int r = 0;

	for (unsigned i = 0; i < cfg->nblockdevs && r == 0; i++) {
		const struct blockdev_config *c = &cfg->blockdev[i];
		struct block *file = c->file >= 0 ? node[c->file] : NULL;
		struct block_opts o = c->opts;

		if (c->file >= 0)
			node[c->file] = NULL; /* taken, whatever comes of it */
		o.filename = file ? file->opts.filename : (char *)c->filename;
		r = block_co_open_node(m->block, c->driver, &o, c->node_name, file, &node[i], e);
		if (r == 0 && !c->used && cfg->snapshot && o.writable)
			r = disk_co_overlay(m, &o, &node[i], e);
		if (r < 0)
			err_prefix(e, "-blockdev %s", c->node_name ? c->node_name : "file");
	}
	for (unsigned i = 0; i < cfg->nblockdevs; i++) {
		const struct blk_conf conf = { .werror = BLK_ENOSPC };
		struct blk *b = NULL;

		if (r == 0 && node[i]) {
			b = blk_new(cfg->blockdev[i].node_name, node[i], &conf, &m->run, e);
			r = b ? blks_add(&m->blks, b, e) : -ENOMEM;
		} else {
			block_co_close(node[i]);
		}
	}
	return r;
}

static void disk_open(void *arg)
{
	struct disk_opening *p = arg;
	const struct machine_config *cfg = p->m->cfg;

	p->result = disk_co_nodes(p->m, p->e);
	for (unsigned i = 0; i < cfg->ndrives && p->result == 0; i++)
		p->result = disk_co_drive(p->m, &cfg->drive[i], p->e);
}

int machine_drives(struct machine *m, struct err *e)
{
	struct disk_opening p = { .m = m, .e = e };

	if (!m->cfg->ndrives && !m->cfg->nblockdevs)
		return 0;
	m->block = block_ctx_new(m->loop, BLOCK_AIO_AUTO, e);
	if (!m->block)
		return -ENOMEM;
	if (tasks_run(block_ctx_tasks(m->block), disk_open, &p))
		return err_set(e, ENOMEM, "out of memory");
	return p.result;
}

int machine_disks(struct machine *m, struct err *e)
{
	for (unsigned index = 0; index < CONFIG_DRIVES; index++)
		for (unsigned i = 0; i < m->cfg->ndrives; i++) {
			const struct drive_config *d = &m->cfg->drive[i];
			const struct device_prop drive = { "drive", d->id };
			int r;

			if (!d->virtio || d->index != index)
				continue;
			r = device_make(m, "virtio-blk", NULL, &drive, 1, e);
			if (r < 0)
				return err_prefix(e, "-drive file=%s", d->file);
		}
	return 0;
}

void machine_disk_check(const struct machine *m)
{
	struct blk *b;

	for (unsigned i = 0; (b = blks_at(&m->blks, i)); i++)
		if (!blk_attached(b))
			log_warn("no device has the drive %s: give -device virtio-blk with "
				 "drive=%s",
				 blk_id(b), blk_id(b));
}
