/*
 * qcow2: internal snapshots: the table of them, create, apply, delete, view.
 *
 * Each operation changes the header once, in one sector, and that is the moment it happens: before
 * it, counts are raised and tables are written; after it, counts are lowered. So a crash leaks.
 * Not modelled: saving a machine's state with it (the size is kept and shown).
 * Bounds: see qcow2_priv.h; names come from the image and are printed with care by others.
 * Reference: [QCOW2 "Snapshots"]
 * Threads: the node's loop, no other requests.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/block/qcow2_priv.h"

enum { SNAP_FIXED = 40, SNAP_EXTRA = 16 };

static void snap_free(struct q2_snapshot *sn)
{
	free(sn->id);
	free(sn->name);
	free(sn->extra);
	*sn = (struct q2_snapshot){ 0 };
}

void q2_snapshots_free(struct qcow2 *s)
{
	for (uint32_t i = 0; s->snaps && i < s->n_snaps; i++)
		snap_free(&s->snaps[i]);
	free(s->snaps);
	s->snaps = NULL;
}

/* ---- The table ----------------------------------------------------------------------------- */

static int snap_read_co(struct qcow2 *s, uint64_t *at, struct q2_snapshot *sn, struct err *e)
{
	const char *f = s->b->opts.filename;
	uint32_t extra, id_len, name_len;
	uint8_t fixed[SNAP_FIXED], *var;
	int r = q2_file_pread_co(s->b->file, *at, fixed, sizeof(fixed));

	if (r < 0)
		return err_set(e, -r, "%s: the snapshot table cannot be read: %s", f, strerror(-r));
	sn->l1_offset = q2_get64(fixed);
	sn->l1_size = q2_get32(fixed + 8);
	id_len = q2_get16(fixed + 12);
	name_len = q2_get16(fixed + 14);
	sn->date_sec = q2_get32(fixed + 16);
	sn->date_nsec = q2_get32(fixed + 20);
	sn->vm_clock_nsec = q2_get64(fixed + 24);
	sn->vm_state_size = q2_get32(fixed + 32);
	extra = q2_get32(fixed + 36);
	sn->disk_size = s->b->len;
	if (extra > QCOW2_MAX_SNAP_EXTRA || sn->l1_size > QCOW2_MAX_L1 / 8 ||
	    q2_in_cluster(s, sn->l1_offset) || sn->l1_offset > (uint64_t)INT64_MAX - QCOW2_MAX_L1)
		return err_set(e, EINVAL, "%s: an entry of the snapshot table is invalid", f);
	var = malloc(extra + id_len + name_len + 1);
	r = var ? q2_file_pread_co(s->b->file, *at + SNAP_FIXED, var, extra + id_len + name_len)
		: -ENOMEM;
	if (r >= 0 && extra >= 8)
		sn->vm_state_size = q2_get64(var);
	if (r >= 0 && extra >= 16)
		sn->disk_size = q2_get64(var + 8);
	if (r >= 0 && extra > SNAP_EXTRA) {
		sn->extra_len = extra - SNAP_EXTRA;
		sn->extra = malloc(sn->extra_len);
		if (sn->extra)
			memcpy(sn->extra, var + SNAP_EXTRA, sn->extra_len);
		else
			r = -ENOMEM;
	}
	if (r >= 0) {
		sn->id = strndup((char *)var + extra, id_len);
		sn->name = strndup((char *)var + extra + id_len, name_len);
		r = sn->id && sn->name ? 0 : -ENOMEM;
	}
	free(var);
	*at += (SNAP_FIXED + extra + id_len + name_len + 7ull) / 8 * 8;
	return r < 0 ? err_set(e, -r, "%s: the snapshot table cannot be read: %s", f, strerror(-r))
		     : 0;
}

int q2_snapshots_load_co(struct qcow2 *s, struct err *e)
{
	uint64_t at = s->snapshots_off;
	uint32_t n = s->n_snaps;
	int r = 0;

	if (!n)
		return 0;
	s->n_snaps = 0;
	s->snaps = calloc(n, sizeof(*s->snaps));
	if (!s->snaps)
		return err_set(e, ENOMEM, "%s: out of memory for %u snapshots", s->b->opts.filename,
			       n);
	while (r >= 0 && s->n_snaps < n) {
		r = snap_read_co(s, &at, &s->snaps[s->n_snaps++], e);
		if (r >= 0 && at - s->snapshots_off > QCOW2_MAX_SNAP_TABLE)
			r = err_set(e, EFBIG, "%s: the snapshot table is larger than %u bytes",
				    s->b->opts.filename, QCOW2_MAX_SNAP_TABLE);
	}
	return r;
}

static size_t snap_len(const struct q2_snapshot *sn)
{
	return (SNAP_FIXED + SNAP_EXTRA + sn->extra_len + strlen(sn->id) + strlen(sn->name) + 7) /
	       8 * 8;
}

static void snap_put(uint8_t *p, const struct q2_snapshot *sn)
{
	size_t id_len = strlen(sn->id), name_len = strlen(sn->name);

	q2_put64(p, sn->l1_offset);
	q2_put32(p + 8, sn->l1_size);
	q2_put16(p + 12, (uint16_t)id_len);
	q2_put16(p + 14, (uint16_t)name_len);
	q2_put32(p + 16, sn->date_sec);
	q2_put32(p + 20, sn->date_nsec);
	q2_put64(p + 24, sn->vm_clock_nsec);
	q2_put32(p + 32, (uint32_t)MIN(sn->vm_state_size, UINT32_MAX));
	q2_put32(p + 36, SNAP_EXTRA + sn->extra_len);
	q2_put64(p + 40, sn->vm_state_size);
	q2_put64(p + 48, sn->disk_size);
	p += SNAP_FIXED + SNAP_EXTRA;
	if (sn->extra_len)
		memcpy(p, sn->extra, sn->extra_len);
	memcpy(p + sn->extra_len, sn->id, id_len);
	memcpy(p + sn->extra_len + id_len, sn->name, name_len);
}

static size_t table_len(const struct q2_snapshot *v, uint32_t n)
{
	size_t len = 0;

	for (uint32_t i = 0; i < n; i++)
		len += snap_len(&v[i]);
	return len;
}

/* Write a table of v[0..n) and let the header point to it. v is not taken. */
static int table_write_co(struct qcow2 *s, const struct q2_snapshot *v, uint32_t n,
			  uint64_t old_len)
{
	uint64_t len = table_len(v, n), at = 0, off = 0, clusters;
	uint64_t old_off = s->snapshots_off;
	uint8_t head[12], *buf;
	int r = 0;

	if (len > QCOW2_MAX_SNAP_TABLE)
		return -EFBIG;
	if (len) {
		clusters = q2_round_up(s, len) >> s->cluster_bits;
		buf = calloc(clusters, s->cluster_size);
		r = buf ? q2_alloc_co(s, &clusters, true, &off) : -ENOMEM;
		for (uint32_t i = 0; r >= 0 && i < n; at += snap_len(&v[i++]))
			snap_put(buf + at, &v[i]);
		if (r >= 0)
			r = q2_file_pwrite_co(s, off, buf, clusters << s->cluster_bits, META_NONE);
		free(buf);
	}
	/* the counts of all that the new table needs, too */
	if (r >= 0)
		r = q2_commit_co(s, true);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	q2_put32(head, n);
	q2_put64(head + 4, off);
	if (r >= 0)
		r = q2_header_poke_co(s, H_NB_SNAPSHOTS, head, sizeof(head));
	if (r < 0)
		return r;
	s->snapshots_off = off;
	if (old_len)
		q2_free_unused(s, old_off, q2_round_up(s, old_len));
	return 0;
}

static struct q2_snapshot *snap_find(struct qcow2 *s, const char *name)
{
	for (uint32_t i = 0; i < s->n_snaps; i++) {
		if (!strcmp(s->snaps[i].id, name))
			return &s->snaps[i];
	}
	for (uint32_t i = 0; i < s->n_snaps; i++) {
		if (!strcmp(s->snaps[i].name, name))
			return &s->snaps[i];
	}
	return NULL;
}

/* ---- Operations ---------------------------------------------------------------------------- */

static int snap_begin_co(struct qcow2 *s, struct err *e)
{
	const char *f = s->b->opts.filename;
	int r;

	if (!s->b->writable)
		return err_set(e, EPERM, "%s: is opened read-only", f);
	if (q2_external(s))
		return err_set(e, ENOTSUP,
			       "%s: images with an external data file have no internal snapshots",
			       f);
	r = q2_before_write_co(s);
	if (r >= 0)
		r = q2_settle_co(s);
	if (r >= 0)
		r = q2_set_incompat_co(s, INCOMPAT_DIRTY, 0);
	return r < 0 ? err_set(e, -r, "%s: %s", f, strerror(-r)) : 0;
}

/* All is in memory; r: how it went. After a failure the counts are made right from scratch. */
static int snap_end_co(struct qcow2 *s, int r, const char *what, struct err *e)
{
	const char *f = s->b->opts.filename;
	struct qcow2_check c = { 0 };

	if (r >= 0)
		r = q2_settle_co(s);
	if (r >= 0)
		r = q2_overlap_rebuild(s);
	if (r >= 0 && !s->lazy)
		r = q2_set_incompat_co(s, 0, INCOMPAT_DIRTY);
	if (r >= 0)
		return 0;
	err_set(e, -r, "%s: the snapshot cannot be %s: %s", f, what,
		r == -ERANGE ? "a refcount would become too large for the image's width"
			     : strerror(-r));
	if (!s->broken && q2_settle_co(s) >= 0 &&
	    qcow2_co_check(s->b, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c, NULL) < 0)
		s->broken = true;
	return r;
}

static int snap_new_id(struct qcow2 *s, char **id)
{
	unsigned long max = 0;

	for (uint32_t i = 0; i < s->n_snaps; i++) {
		unsigned long v = strtoul(s->snaps[i].id, NULL, 10);

		if (v > max && v < UINT32_MAX)
			max = v;
	}
	return asprintf(id, "%lu", max + 1) < 0 ? -ENOMEM : 0;
}

/* A copy of the active L1 table for sn. */
static int snap_l1_co(struct qcow2 *s, struct q2_snapshot *sn)
{
	uint64_t n = MAX(q2_round_up(s, s->l1_size * 8ull) >> s->cluster_bits, 1ull);
	uint8_t *buf = calloc(n, s->cluster_size);
	int r = buf ? q2_alloc_co(s, &n, true, &sn->l1_offset) : -ENOMEM;

	sn->l1_size = s->l1_size;
	for (uint32_t i = 0; r >= 0 && i < s->l1_size; i++)
		q2_put64(buf + i * 8ull, s->l1[i] & ~ENTRY_COPIED);
	if (r >= 0)
		r = q2_file_pwrite_co(s, sn->l1_offset, buf, n << s->cluster_bits, META_NONE);
	free(buf);
	return r;
}

int qcow2_co_snapshot_create(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	size_t old_len = table_len(s->snaps, s->n_snaps);
	struct q2_snapshot *v, *sn;
	struct timespec now;
	int r;

	if (strlen(name) > 255)
		return err_set(e, EINVAL, "a snapshot's name has at most 255 bytes");
	if (s->n_snaps >= QCOW2_MAX_SNAPSHOTS)
		return err_set(e, EFBIG, "%s: there are %u snapshots already", b->opts.filename,
			       s->n_snaps);
	r = snap_begin_co(s, e);
	if (r < 0)
		return r;
	v = realloc(s->snaps, (s->n_snaps + 1) * sizeof(*v));
	if (!v)
		return snap_end_co(s, -ENOMEM, "created", e);
	s->snaps = v;
	sn = &v[s->n_snaps];
	clock_gettime(CLOCK_REALTIME, &now);
	*sn = (struct q2_snapshot){ .name = strdup(name),
				    .date_sec = (uint32_t)now.tv_sec,
				    .date_nsec = (uint32_t)now.tv_nsec,
				    .disk_size = b->len };
	/* the guest's instruction count, which QEMU writes, too */
	sn->extra_len = 8;
	sn->extra = calloc(1, sn->extra_len);
	r = sn->name && sn->extra ? snap_new_id(s, &sn->id) : -ENOMEM;
	if (r >= 0)
		r = q2_tree_co(s, s->l1, s->l1_size, 1, true);
	if (r >= 0)
		r = snap_l1_co(s, sn);
	if (r >= 0)
		r = table_write_co(s, s->snaps, s->n_snaps + 1, old_len);
	if (r >= 0)
		s->n_snaps++;
	else
		snap_free(sn);
	return snap_end_co(s, r, "created", e);
}

static int snap_missing(struct qcow2 *s, const char *name, struct err *e)
{
	return err_set(e, ENOENT, "%s: there is no snapshot '%s'", s->b->opts.filename, name);
}

int qcow2_co_snapshot_apply(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	struct q2_snapshot *sn = snap_find(s, name);
	uint64_t *l1 = NULL, *old = NULL;
	uint32_t min, n, old_n = s->l1_size;
	int r;

	if (!sn)
		return snap_missing(s, name, e);
	if (sn->disk_size > (uint64_t)INT64_MAX - s->cluster_size ||
	    q2_l1_min_size(s, sn->disk_size, &min) < 0)
		return err_set(e, EFBIG, "%s: the snapshot's size is invalid", b->opts.filename);
	r = snap_begin_co(s, e);
	if (r < 0)
		return r;
	n = MAX(min, sn->l1_size);
	r = q2_l1_read_co(s, sn->l1_offset, sn->l1_size, &l1, e);
	if (r >= 0 && n > sn->l1_size) {
		uint64_t *more = realloc(l1, n * sizeof(*l1));

		r = more ? 0 : -ENOMEM;
		l1 = more ? more : l1;
		if (more)
			memset(l1 + sn->l1_size, 0, (n - sn->l1_size) * sizeof(*l1));
	}
	if (r >= 0)
		r = q2_tree_co(s, l1, n, 1, false);
	old = malloc((old_n + 1ull) * sizeof(*old));
	if (r >= 0 && !old)
		r = -ENOMEM;
	if (r >= 0) {
		memcpy(old, s->l1, old_n * sizeof(*old));
		r = q2_l1_replace_co(s, l1, n, sn->disk_size, e);
		l1 = NULL;
	}
	if (r >= 0)
		r = q2_overlap_rebuild(s);
	if (r >= 0)
		r = q2_tree_co(s, old, old_n, -1, false);
	if (r >= 0)
		r = q2_tree_co(s, s->l1, s->l1_size, 0, true);
	free(l1);
	free(old);
	return snap_end_co(s, r, "applied", e);
}

int qcow2_co_snapshot_delete(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	struct q2_snapshot *sn = snap_find(s, name), gone;
	size_t old_len = table_len(s->snaps, s->n_snaps), i;
	uint64_t *l1 = NULL;
	int r;

	if (!sn)
		return snap_missing(s, name, e);
	i = (size_t)(sn - s->snaps);
	r = snap_begin_co(s, e);
	if (r < 0)
		return r;
	gone = *sn;
	r = q2_l1_read_co(s, gone.l1_offset, gone.l1_size, &l1, e);
	if (r < 0)
		return snap_end_co(s, r, "deleted", e);
	memmove(sn, sn + 1, (s->n_snaps - i - 1) * sizeof(*sn));
	r = table_write_co(s, s->snaps, s->n_snaps - 1, old_len);
	if (r < 0) {
		memmove(sn + 1, sn, (s->n_snaps - i - 1) * sizeof(*sn));
		*sn = gone;
		free(l1);
		return snap_end_co(s, r, "deleted", e);
	}
	s->n_snaps--;
	r = q2_tree_co(s, l1, gone.l1_size, -1, false);
	if (r >= 0)
		q2_free_unused(s, gone.l1_offset,
			       MAX(q2_round_up(s, gone.l1_size * 8ull), (uint64_t)s->cluster_size));
	if (r >= 0)
		r = q2_tree_co(s, s->l1, s->l1_size, 0, true);
	free(l1);
	snap_free(&gone);
	return snap_end_co(s, r, "deleted", e);
}

int qcow2_co_snapshot_view(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	struct q2_snapshot *sn = snap_find(s, name);
	uint64_t *l1;
	uint32_t min;
	int r;

	if (!sn)
		return snap_missing(s, name, e);
	if (b->writable)
		return err_set(e, EPERM, "%s: must be read-only to show a snapshot",
			       b->opts.filename);
	if (sn->disk_size > (uint64_t)INT64_MAX - s->cluster_size ||
	    q2_l1_min_size(s, sn->disk_size, &min) < 0 || min > sn->l1_size)
		return err_set(e, EINVAL, "%s: the snapshot's size is invalid", b->opts.filename);
	r = q2_l1_read_co(s, sn->l1_offset, sn->l1_size, &l1, e);
	if (r < 0)
		return r;
	free(s->l1);
	s->l1 = l1;
	s->l1_size = sn->l1_size;
	b->len = sn->disk_size;
	return 0;
}
