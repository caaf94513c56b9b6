/*
 * qcow2 images: the driver. Opening, closing, flushing, information.
 *
 * Modelled:     versions 2 and 3; clusters of 512 B to 2 MiB; refcounts of 1 to 64 bits; backing
 *               files; external data files, also raw; compressed clusters, zlib and zstd; internal
 *               snapshots; lazy refcounts, dirty and corrupt bits; extended L2 entries.
 * Not modelled: encryption and unknown incompatible features (refused by name), persistent bitmaps
 *               (kept while nothing is written, then dropped as stale), saved machine states.
 *
 * Where things are:
 *   qcow2_header    fields, feature bits, extensions     qcow2_io        reads, writes, COW
 *   qcow2_cache     slices of tables in memory           qcow2_zero      zeroes, discard, status
 *   qcow2_commit    what is written when (read this!)    qcow2_compress  zlib, zstd
 *   qcow2_map       L1 and L2 tables                     qcow2_snapshot, qcow2_tree
 *   qcow2_refcount, qcow2_alloc                          qcow2_check, qcow2_rebuild
 *   qcow2_overlap   writes that would hit metadata       qcow2_create, qcow2_resize, qcow2_file
 * Reference: [QCOW2 docs/interop/qcow2.txt]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"
#include "base/log.h"

enum { L2_CACHE = 32 << 20, REFCOUNT_CACHE = 4 << 20 };

bool qcow2_is(const struct block *b)
{
	return b->drv == &qcow2_driver;
}

static int qcow2_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && q2_get32(buf) == QCOW2_MAGIC && q2_get32(buf + 4) >= 2 ? 100 : 0;
}

static void qcow2_free(struct qcow2 *s)
{
	struct block *b = s->b;

	q2_header_free(s);
	q2_snapshots_free(s);
	q2_cache_free(&s->l2c);
	q2_cache_free(&s->rbc);
	q2_overlap_free(s);
	free(s->l1);
	free(s->l1_dirty);
	free(s->rt);
	free(s->frees_new.v);
	free(s->frees_written.v);
	free(s->frees_ready.v);
	free(s->comp_buf);
	free(b->backing_file);
	free(b->backing_format);
	free(b->data_file_name);
	b->backing_file = b->backing_format = b->data_file_name = NULL;
	memset(s, 0, sizeof(*s));
}

/* All that is in the image. */
static int qcow2_load_co(struct qcow2 *s, struct err *e)
{
	struct block *b = s->b;
	uint64_t cache = b->opts.cache_size ? b->opts.cache_size : L2_CACHE;
	int r;

	s->ios.next = s->ios.prev = &s->ios;
	s->zero_from = UINT64_MAX;
	s->file_end = b->file->len;
	r = q2_header_read_co(s, e);
	if (r >= 0)
		r = q2_reftable_load_co(s, e);
	if (r >= 0)
		r = q2_l1_load_co(s, e);
	if (r >= 0)
		r = q2_snapshots_load_co(s, e);
	if (r < 0)
		return r;
	if (q2_cache_init(&s->l2c, s, cache) < 0 || q2_cache_init(&s->rbc, s, REFCOUNT_CACHE) < 0 ||
	    q2_overlap_rebuild(s) < 0)
		return err_set(e, ENOMEM, "%s: out of memory for its tables", b->opts.filename);
	return 0;
}

/* What the feature bits want before the image is used. */
static int qcow2_bits_co(struct qcow2 *s, struct err *e)
{
	struct block *b = s->b;
	struct qcow2_check c = { 0 };
	int r;

	if (b->opts.check)
		return 0;
	if (s->incompat & INCOMPAT_CORRUPT && b->writable)
		return err_set(e, EACCES,
			       "%s is corrupt and can only be opened read-only (repair it with "
			       "'kvasir-img check -r all')",
			       b->opts.filename);
	if (s->incompat & INCOMPAT_DIRTY && b->writable) {
		r = qcow2_co_check(b, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c, e);
		if (r < 0)
			return err_prefix(e, "%s was not closed, and repairing it failed",
					  b->opts.filename);
		if (c.corruptions)
			return err_set(e, EIO,
				       "%s was not closed, and repairing it left %llu errors (see "
				       "'kvasir-img check')",
				       b->opts.filename, (unsigned long long)c.corruptions);
		log_info("%s was not closed: %llu errors and %llu leaks repaired", b->opts.filename,
			 (unsigned long long)c.corruptions_fixed,
			 (unsigned long long)c.leaks_fixed);
	}
	s->lazy = s->version >= 3 &&
		  (b->opts.lazy_refcounts_set ? b->opts.lazy_refcounts
					      : !!(s->compat & COMPAT_LAZY_REFCOUNTS));
	return 0;
}

static int qcow2_open_co(struct block *b, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	int r;

	s->b = b;
	r = qcow2_load_co(s, e);
	if (r >= 0 && q2_external(s) && !b->data_file_name)
		r = err_set(e, EINVAL, "%s: the image does not name its data file",
			    b->opts.filename);
	if (r >= 0)
		r = qcow2_bits_co(s, e);
	if (r < 0) {
		qcow2_free(s);
		return r;
	}
	b->zero_align = b->discard_align = s->cluster_size;
	return 0;
}

/* Everything is written; the image is as a clean one should be. */
static int qcow2_finish_co(struct qcow2 *s)
{
	struct block *f = s->b->file;
	int r = q2_settle_co(s);

	if (r >= 0 && s->dirty_marked) {
		r = q2_set_incompat_co(s, 0, INCOMPAT_DIRTY);
		s->dirty_marked = s->header_synced = false;
	}
	if (r >= 0 && f->len > s->file_end)
		r = block_co_truncate(f, s->file_end, NULL);
	return r;
}

static void qcow2_close_co(struct block *b)
{
	struct qcow2 *s = q2_of(b);

	if (b->writable && !s->broken) {
		int r = qcow2_finish_co(s);

		if (r < 0)
			log_err("%s: closing the image failed: %s", b->opts.filename, strerror(-r));
	}
	qcow2_free(s);
}

static int qcow2_flush_co(struct block *b)
{
	struct qcow2 *s = q2_of(b);

	int r = s->broken ? -EIO : q2_commit_co(s, false);

	/* what earlier discards gave up goes back to the host */
	if (r >= 0 && unlikely(s->frees_ready.n)) {
		task_co_lock(&s->alloc_lock);
		r = q2_frees_apply_co(s);
		task_unlock(&s->alloc_lock);
	}
	return r;
}

static int qcow2_reopen_co(struct block *b, bool writable, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	char *backing = b->backing_file, *format = b->backing_format, *data = b->data_file_name;
	int r = 0;

	if (b->writable && !s->broken)
		r = qcow2_finish_co(s);
	if (r < 0)
		return err_set(e, -r, "%s: %s", b->opts.filename, strerror(-r));
	b->backing_file = b->backing_format = b->data_file_name = NULL;
	qcow2_free(s);
	s->b = b;
	b->writable = writable;
	r = qcow2_load_co(s, e);
	if (r >= 0)
		r = qcow2_bits_co(s, e);
	free(backing);
	free(format);
	free(data);
	if (r < 0) {
		/* there is no image any more: nothing may be read from it, nor written */
		qcow2_free(s);
		s->b = b;
		s->ios.next = s->ios.prev = &s->ios;
		s->broken = true;
		b->len = 0;
	}
	return r;
}

static char *info_string(const char *s)
{
	return strdup(s ? s : "");
}

static int qcow2_info_co(struct block *b, struct block_info *i, struct err *e)
{
	struct qcow2 *s = q2_of(b);

	i->cluster_size = s->cluster_size;
	i->dirty = s->incompat & INCOMPAT_DIRTY;
	i->is_qcow2 = true;
	i->compat_v3 = s->version >= 3;
	i->lazy_refcounts = s->compat & COMPAT_LAZY_REFCOUNTS;
	i->corrupt = s->incompat & INCOMPAT_CORRUPT;
	i->extended_l2 = q2_extended(s);
	i->has_bitmaps = s->n_bitmaps;
	i->has_data_file = q2_external(s);
	i->data_file_raw = s->autoclear & AUTOCLEAR_DATA_FILE_RAW;
	i->refcount_bits = 1u << s->refcount_order;
	i->compression_type = s->compression_type ? "zstd" : "zlib";
	i->snapshots = calloc(s->n_snaps + 1ull, sizeof(*i->snapshots));
	if (!i->snapshots)
		return err_set(e, ENOMEM, "%s: out of memory", b->opts.filename);
	for (uint32_t k = 0; k < s->n_snaps; k++) {
		const struct q2_snapshot *sn = &s->snaps[k];

		i->snapshots[i->n_snapshots++] =
			(struct block_snapshot){ .id = info_string(sn->id),
						 .name = info_string(sn->name),
						 .vm_state_size = sn->vm_state_size,
						 .date_sec = sn->date_sec,
						 .date_nsec = sn->date_nsec,
						 .vm_clock_nsec = sn->vm_clock_nsec,
						 .disk_size = sn->disk_size,
						 .has_icount = sn->extra_len >= 8,
						 .icount = sn->extra_len >= 8 ? q2_get64(sn->extra)
									      : 0 };
	}
	return 0;
}

void block_info_free(struct block_info *i)
{
	for (unsigned k = 0; k < i->n_snapshots; k++) {
		free(i->snapshots[k].id);
		free(i->snapshots[k].name);
	}
	free(i->snapshots);
	*i = (struct block_info){ 0 };
}

int qcow2_co_preallocate(struct block *b, uint64_t off, enum qcow2_prealloc how, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	int r = how == PREALLOC_OFF ? 0 : q2_preallocate_co(s, off, b->len);

	/* full: the clusters exist, so this only writes */
	for (uint64_t at = off; r >= 0 && how == PREALLOC_FULL && at < b->len;) {
		uint64_t n = MIN(b->len - at, 1ull << 20);
		struct iovec iov;
		void *buf = calloc(1, n);
		struct iovecs v = iovecs_one(&iov, buf, n);

		r = buf ? q2_write_co(b, at, &v, 0) : -ENOMEM;
		free(buf);
		at += n;
	}
	return r < 0 ? err_set(e, -r, "%s: cannot be preallocated: %s", b->opts.filename,
			       strerror(-r))
		     : 0;
}

int qcow2_co_make_empty(struct block *b, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	int r = q2_before_write_co(s);

	if (r >= 0)
		r = q2_drop_co(s, 0, q2_round_up(s, b->len));
	if (r >= 0)
		r = q2_settle_co(s);
	return r < 0 ? err_set(e, -r, "%s: cannot be emptied: %s", b->opts.filename, strerror(-r))
		     : 0;
}

int qcow2_co_change_backing(struct block *b, const char *file, const char *format, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	char *old_file = b->backing_file, *old_format = b->backing_format;
	char *new_file = file ? strdup(file) : NULL, *new_format = format ? strdup(format) : NULL;
	int r = q2_before_write_co(s);

	if ((file && !new_file) || (format && !new_format))
		r = -ENOMEM;
	if (file && strlen(file) > 1023)
		r = -EINVAL;
	if (r >= 0)
		r = q2_settle_co(s);
	if (r >= 0) {
		b->backing_file = new_file;
		b->backing_format = new_format;
		r = q2_header_write_co(s);
	}
	if (r < 0) {
		b->backing_file = old_file;
		b->backing_format = old_format;
		free(new_file);
		free(new_format);
		return err_set(e, -r, "%s: the backing file's name cannot be changed: %s",
			       b->opts.filename,
			       r == -ENOSPC ? "there is no room in the header" : strerror(-r));
	}
	free(old_file);
	free(old_format);
	return 0;
}

const struct block_driver qcow2_driver = {
	.name = "qcow2",
	.priv_size = sizeof(struct qcow2),
	.probe = qcow2_probe,
	.open_co = qcow2_open_co,
	.close_co = qcow2_close_co,
	.read_co = q2_read_co,
	.write_co = q2_write_co,
	.zero_co = q2_zero_co,
	.discard_co = q2_discard_co,
	.flush_co = qcow2_flush_co,
	.status_co = q2_status_co,
	.truncate_co = q2_truncate_co,
	.info_co = qcow2_info_co,
	.reopen_co = qcow2_reopen_co,
};
