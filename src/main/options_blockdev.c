/*
 * -blockdev: nodes of images, each of which has one user; see options.h. One that no other node
 * uses is a backend for -device with drive=NODE-NAME. References: [QEMU-MAN "Block device
 * options"].
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "main/options_block.h"

static const char *const blockdev_known[] = { BLOCK_OPT_COMMON, "driver",   "node-name",
					      "read-only",      "filename", "locking",
					      "file",           "backing",  "auto-read-only",
					      "file.filename",  NULL };

/* The keys that begin with "file." as a list of their own, without it. They count as used. */
static int blockdev_nested(const struct keyval *k, struct keyval *sub, bool *any)
{
	*sub = (struct keyval){ .option = k->option };
	*any = false;
	for (unsigned i = 0; i < k->n; i++)
		if (!strncmp(k->kv[i].key, "file.", 5)) {
			sub->kv[sub->n].key = k->kv[i].key + 5;
			sub->kv[sub->n++].val = k->kv[i].val;
			((struct keyval *)k)->kv[i].used = true;
			*any = true;
		}
	return 0;
}

static int blockdev_find(const struct options *o, const char *name)
{
	for (unsigned i = 0; i < o->cfg.nblockdevs; i++)
		if (o->cfg.blockdev[i].node_name && !strcmp(o->cfg.blockdev[i].node_name, name))
			return (int)i;
	return -1;
}

/* The node that "file" means: another -blockdev, which gets a user, or a nested one. */
static int blockdev_child(struct options *o, struct keyval *k, struct blockdev_config *b,
			  struct err *e)
{
	const char *ref = keyval_get(k, "file");
	struct keyval sub;
	bool nested;
	int at;

	blockdev_nested(k, &sub, &nested);
	if (!!ref == nested)
		return err_set(
			e, EINVAL,
			"%s driver=%s: file=NODE-NAME or file.driver=file,file.filename=FILE "
			"is needed",
			k->option, b->driver->name);
	if (nested) {
		int r = options_blockdev_add(o, &sub, true, e);

		b->file = (int)o->cfg.nblockdevs - 1;
		if (r == 0)
			o->cfg.blockdev[b->file].used = true;
		return r;
	}
	at = blockdev_find(o, ref);
	if (at < 0)
		return err_set(e, ENOENT, "%s: no -blockdev before has the node-name '%s'",
			       k->option, ref);
	if (o->cfg.blockdev[at].used)
		return err_set(e, EBUSY, "%s: the node '%s' has a user already", k->option, ref);
	o->cfg.blockdev[at].used = true;
	b->file = at;
	return 0;
}

int options_blockdev_add(struct options *o, struct keyval *k, bool nested, struct err *e)
{
	const char *driver = keyval_get(k, "driver"), *backing = keyval_get(k, "backing"), *file;
	struct blockdev_config b = { .file = -1 };
	bool ro = false, auto_ro = false;
	int r;

	if (!driver)
		return err_set(e, EINVAL, "%s: driver=file, raw or qcow2 is needed", k->option);
	b.driver = block_driver(driver, e);
	if (!b.driver)
		return err_prefix(e, "%s", k->option);
	r = block_opt_string(o, k, "node-name", &b.node_name, e);
	if (r == 0 && !b.node_name && !nested)
		r = err_set(e, EINVAL, "%s: node-name=NAME is needed", k->option);
	if (r == 0 && b.node_name && blockdev_find(o, b.node_name) >= 0)
		r = err_set(e, EEXIST, "%s: the node-name '%s' is taken", k->option, b.node_name);
	if (r == 0)
		r = block_opt_common(k, &b.opts, e);
	if (r == 0)
		r = keyval_bool(k, "read-only", &ro, e);
	if (r == 0)
		r = keyval_bool(k, "auto-read-only", &auto_ro, e);
	b.opts.writable = !ro;
	if (r == 0 && backing && *backing)
		r = err_set(e, ENOTSUP,
			    "%s: backing=NODE is not supported: the image's own backing file is "
			    "opened, and none with backing= (empty)",
			    k->option);
	b.opts.no_backing = backing != NULL;
	if (r == 0)
		r = block_opt_locking(k, "locking", &b.opts, e);
	file = keyval_get(k, "filename");
	if (r == 0 && (b.driver->is_protocol && !b.driver->nameless) != (file != NULL))
		r = err_set(e, EINVAL,
			    file ? "%s driver=%s: filename belongs to driver=file"
				 : "%s driver=%s: filename=FILE is needed",
			    k->option, driver);
	if (r == 0 && file)
		r = block_opt_string(o, k, "filename", &b.filename, e);
	if (r == 0 && !b.driver->is_protocol)
		r = blockdev_child(o, k, &b, e);
	if (r == 0)
		r = keyval_done(k, blockdev_known, e);
	if (r == 0 && o->cfg.nblockdevs == CONFIG_BLOCKDEVS)
		r = err_set(e, E2BIG, "%s: more than %d nodes", k->option, CONFIG_BLOCKDEVS);
	if (r == 0)
		o->cfg.blockdev[o->cfg.nblockdevs++] = b;
	return r;
}

int options_blockdev(struct options *o, const char *arg, struct err *e)
{
	struct keyval k;
	int r;

	r = *arg == '{' ? keyval_parse_json(&k, "-blockdev", arg, e)
			: keyval_parse(&k, "-blockdev", arg, "driver", e);
	if (r == 0) {
		r = options_blockdev_add(o, &k, false, e);
		keyval_free(&k);
	}
	return r;
}
