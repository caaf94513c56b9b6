/*
 * Options about disks: -drive, its short forms -hda to -hdd and -cdrom, -snapshot; see options.h.
 *
 * A -drive makes a backend and, with if=virtio (the default), a disk of the board.
 * References: [QEMU-MAN "Block device options"].
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "main/options_block.h"

static const char *const drive_known[] = { BLOCK_OPT_COMMON,
					   "file",
					   "if",
					   "id",
					   "format",
					   "media",
					   "index",
					   "bus",
					   "unit",
					   "readonly",
					   "read-only",
					   "snapshot",
					   "cache",
					   "cache.writeback",
					   "rerror",
					   "werror",
					   "serial",
					   "copy-on-read",
					   "throttling.bps-total",
					   "throttling.iops-total",
					   NULL };

static int drive_interface(struct keyval *k, struct drive_config *d, struct err *e)
{
	const char *text = keyval_get(k, "if");

	d->virtio = true;
	if (!text || !strcmp(text, "virtio"))
		return 0;
	d->virtio = false;
	if (!strcmp(text, "none"))
		return 0;
	for (const char *const *w = (const char *const[]){ "ide", "scsi", "sd", "floppy", "mtd",
							   "pflash", "xen", NULL };
	     *w; w++)
		if (!strcmp(*w, text))
			return err_set(e, ENOTSUP, "%s: there is no %s disk yet: use if=virtio",
				       k->option, text);
	return err_set(e, EINVAL, "%s: if=%s: virtio and none exist", k->option, text);
}

static int drive_cache(struct keyval *k, struct drive_config *d, struct err *e)
{
	static const struct block_word words[] = { { "writeback", 0 },    { "none", 1 },
						   { "writethrough", 2 }, { "directsync", 3 },
						   { "unsafe", 4 },       { NULL, 0 } };
	bool writeback;
	int v = 0, r = block_opt_word(k, "cache", words, &v, e);

	d->opts.cache_direct = v == 1 || v == 3;
	d->opts.cache_no_flush = v == 4;
	writeback = v != 2 && v != 3;
	if (r == 0)
		r = keyval_bool(k, "cache.writeback", &writeback, e);
	d->conf.writethrough = !writeback;
	return r;
}

/* throttling.bps-total and so on; the older bps and bps_max mean the same. */
static int drive_throttle(struct keyval *k, struct throttle_limits *l, struct err *e)
{
	static const char *const names[THROTTLE_KINDS][2] = {
		{ "bps-total", "bps" },   { "bps-read", "bps_rd" },   { "bps-write", "bps_wr" },
		{ "iops-total", "iops" }, { "iops-read", "iops_rd" }, { "iops-write", "iops_wr" },
	};
	char key[64];
	int r = 0;

	for (int i = 0; i < THROTTLE_KINDS; i++) {
		struct {
			const char *suffix[2];
			uint64_t *v;
		} f[] = { { { "", "" }, &l->kind[i].avg },
			  { { "-max", "_max" }, &l->kind[i].max },
			  { { "-max-length", "_max_length" }, &l->kind[i].burst_seconds } };

		for (unsigned n = 0; n < ARRAY_SIZE(f) && r == 0; n++) {
			snprintf(key, sizeof(key), "throttling.%s%s", names[i][0], f[n].suffix[0]);
			r = block_opt_size(k, key, f[n].v, e);
			snprintf(key, sizeof(key), "%s%s", names[i][1], f[n].suffix[1]);
			if (r == 0)
				r = block_opt_size(k, key, f[n].v, e);
		}
	}
	if (r == 0)
		r = block_opt_size(k, "throttling.iops-size", &l->iops_size, e);
	if (r == 0)
		r = block_opt_size(k, "iops_size", &l->iops_size, e);
	if (r == 0 && throttle_check(l, e))
		r = err_prefix(e, "%s", k->option);
	return r;
}

static int drive_errors(struct keyval *k, struct drive_config *d, struct err *e)
{
	const char *rd = keyval_get(k, "rerror"), *wr = keyval_get(k, "werror");
	int r = 0;

	d->conf.rerror = BLK_REPORT;
	d->conf.werror = BLK_ENOSPC;
	if (rd)
		r = blk_on_error_parse("rerror", rd, &d->conf.rerror, e);
	if (r == 0 && wr)
		r = blk_on_error_parse("werror", wr, &d->conf.werror, e);
	return r < 0 ? err_prefix(e, "%s", k->option) : 0;
}

static int drive_media(struct keyval *k, struct drive_config *d, struct err *e)
{
	static const struct block_word media[] = { { "disk", 0 }, { "cdrom", 1 }, { NULL, 0 } };
	bool ro = false, cor = false;
	int cd = 0, r = block_opt_word(k, "media", media, &cd, e);

	if (r == 0)
		r = keyval_bool(k, "readonly", &ro, e);
	if (r == 0)
		r = keyval_bool(k, "read-only", &ro, e);
	if (r == 0)
		r = keyval_bool(k, "snapshot", &d->snapshot, e);
	if (r == 0)
		r = keyval_bool(k, "copy-on-read", &cor, e);
	if (r == 0 && cor)
		r = err_set(e, ENOTSUP, "%s: copy-on-read is not supported", k->option);
	d->opts.writable = !ro && !cd;
	return r;
}

/* The file by its plain key or by the nested ones. */
static int drive_file(struct options *o, struct keyval *k, struct drive_config *d, struct err *e)
{
	const char *file = keyval_get(k, "file"), *nested = keyval_get(k, "file.filename");
	const char *drv = keyval_get(k, "file.driver"), *driver = keyval_get(k, "driver");
	int r;

	file = file ? file : nested;
	if (!file || !*file)
		return err_set(e, EINVAL, "%s: file=FILE is needed", k->option);
	if (drv && strcmp(drv, "file") && strcmp(drv, "host_device"))
		return err_set(e, ENOTSUP,
			       "%s: file.driver=%s is not supported: file and "
			       "host_device are",
			       k->option, drv);
	d->file = options_keep(o, file, e);
	if (!d->file)
		return -ENOMEM;
	r = block_opt_string(o, k, "format", &d->format, e);
	if (r == 0 && driver && !d->format)
		r = block_opt_string(o, k, "driver", &d->format, e);
	if (r == 0 && d->format && !block_driver(d->format, e))
		r = err_prefix(e, "%s", k->option);
	if (r == 0)
		r = block_opt_aio(k, "file.aio", &d->opts, e);
	return r == 0 ? block_opt_locking(k, "file.locking", &d->opts, e) : r;
}

/* Where QEMU would put it: units of a bus do not exist for virtio, an order does. */
static int drive_place(struct keyval *k, struct drive_config *d, struct err *e)
{
	unsigned bus = 0, unit = 0;
	int r = keyval_uint(k, "index", 0, CONFIG_DRIVES - 1, &d->index, e);

	if (r == 0)
		r = keyval_uint(k, "bus", 0, 0, &bus, e);
	if (r == 0)
		r = keyval_uint(k, "unit", 0, CONFIG_DRIVES - 1, &unit, e);
	if (r == 0 && !keyval_get(k, "index") && keyval_get(k, "unit"))
		d->index = unit;
	d->has_index = keyval_get(k, "index") || keyval_get(k, "unit");
	return r;
}

static int drive_name(struct options *o, struct keyval *k, struct drive_config *d, struct err *e)
{
	char made[32];
	int r = block_opt_string(o, k, "id", &d->id, e);

	if (r == 0)
		r = block_opt_string(o, k, "serial", &d->conf.serial, e);
	if (r < 0)
		return r;
	if (!d->has_index && d->virtio)
		while (d->index < CONFIG_DRIVES && options_drive_at(o, d->index))
			d->index++;
	else if (d->virtio && options_drive_at(o, d->index))
		return err_set(e, EEXIST, "%s: there is a disk with index %u already", k->option,
			       d->index);
	if (!d->id) {
		snprintf(made, sizeof(made), "%s%u", d->virtio ? "virtio" : "none",
			 d->virtio ? d->index : o->cfg.ndrives);
		d->id = options_keep(o, made, e);
		if (!d->id)
			return -ENOMEM;
	}
	for (unsigned i = 0; i < o->cfg.ndrives; i++)
		if (!strcmp(o->cfg.drive[i].id, d->id))
			return err_set(e, EEXIST, "%s: the id '%s' is taken", k->option, d->id);
	return 0;
}

const struct drive_config *options_drive_at(const struct options *o, unsigned index)
{
	for (unsigned i = 0; i < o->cfg.ndrives; i++)
		if (o->cfg.drive[i].virtio && o->cfg.drive[i].index == index)
			return &o->cfg.drive[i];
	return NULL;
}

int options_drive_add(struct options *o, struct keyval *k, struct err *e)
{
	struct drive_config d = { 0 };
	int r;

	if (o->cfg.ndrives == CONFIG_DRIVES)
		return err_set(e, E2BIG, "%s: more than %d drives", k->option, CONFIG_DRIVES);
	r = drive_interface(k, &d, e);
	if (r == 0)
		r = drive_cache(k, &d, e);
	if (r == 0)
		r = block_opt_common(k, &d.opts, e);
	if (r == 0)
		r = drive_throttle(k, &d.conf.limits, e);
	if (r == 0)
		r = drive_errors(k, &d, e);
	if (r == 0)
		r = drive_media(k, &d, e);
	if (r == 0)
		r = drive_file(o, k, &d, e);
	if (r == 0)
		r = drive_place(k, &d, e);
	if (r == 0)
		r = drive_name(o, k, &d, e);
	if (r == 0)
		r = keyval_done(k, drive_known, e);
	if (r < 0)
		return r;
	o->cfg.drive[o->cfg.ndrives++] = d;
	o->wants_pci |= d.virtio;
	return 0;
}

int options_drive(struct options *o, const char *arg, struct err *e)
{
	struct keyval k;
	int r = keyval_parse(&k, "-drive", arg, "file", e);

	if (r == 0) {
		r = options_drive_add(o, &k, e);
		keyval_free(&k);
	}
	return r;
}

/* FILE as disk number index; extra: more keys, or "". */
static int options_disk(struct options *o, const char *option, const char *file, const char *extra,
			struct err *e)
{
	size_t cap = 2 * strlen(file) + strlen(extra) + 16, n;
	char *text = malloc(cap), *to;
	struct keyval k;
	int r;

	if (!text)
		return err_set(e, ENOMEM, "out of memory");
	n = (size_t)snprintf(text, cap, "file=");
	for (to = text + n; *file; *to++ = *file++)
		if (*file == ',')
			*to++ = ',';
	strcpy(to, extra);
	r = keyval_parse(&k, option, text, NULL, e);
	free(text);
	if (r == 0) {
		r = options_drive_add(o, &k, e);
		keyval_free(&k);
	}
	return r;
}

int options_hda(struct options *o, const char *arg, struct err *e)
{
	return options_disk(o, "-hda", arg, ",index=0", e);
}

int options_hdb(struct options *o, const char *arg, struct err *e)
{
	return options_disk(o, "-hdb", arg, ",index=1", e);
}

int options_hdc(struct options *o, const char *arg, struct err *e)
{
	return options_disk(o, "-hdc", arg, ",index=2", e);
}

int options_hdd(struct options *o, const char *arg, struct err *e)
{
	return options_disk(o, "-hdd", arg, ",index=3", e);
}

int options_cdrom(struct options *o, const char *arg, struct err *e)
{
	return options_disk(o, "-cdrom", arg, ",media=cdrom,index=2", e);
}

int options_disk_file(struct options *o, const char *file, struct err *e)
{
	return options_disk(o, file, file, "", e);
}

int options_snapshot(struct options *o, const char *arg, struct err *e)
{
	o->cfg.snapshot = true;
	return 0;
}
