/*
 * qcow2: check and repair.
 *
 * Counts all references anew and compares: too high a refcount is a leak, too low one corruption.
 * Repairing leaks lowers counts; repairing corruption writes a whole new refcount structure behind
 * all that is used (qcow2_rebuild.c) and then sets the COPIED bits. Entries that point nowhere are
 * reported, not repaired.
 * Bounds: memory is 8 bytes for each cluster of the host file (from calloc, so holes cost nothing).
 * Each L2 table is read once, however many L1 entries share it; an L1 table or a bitmap's that
 * overlaps what was seen before is not walked, nor is a refcount block that is entered twice beyond
 * the file's end: so time is bounded by the file's size.
 * Reference: [QCOW2 "Host cluster management", "Cluster mapping", "Snapshots", "Bitmaps"]
 * Threads: the node's loop, no other requests.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

#define CHECK_MAX_CLUSTERS (1ull << 28) /* 16 TiB of 64-KiB clusters: 2 GiB of tables */

struct chk {
	struct qcow2 *s;
	struct qcow2_check *r;
	uint64_t n;     /* clusters of the host file, rounded up, and one more */
	uint32_t *refs; /* by cluster */
	uint32_t *l2;   /* how many L1 entries point to a table in this cluster */
	uint8_t *buf;   /* a cluster */
	uint64_t next;  /* where the next cluster of this L2 table would be contiguous */
	bool rebuild;   /* the refcount structure itself is wrong */
	uint64_t ref_corruptions, ref_leaks;
};

__attribute__((format(printf, 2, 3))) static void say(struct chk *c, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!c->r->report)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->r->report(c->r->opaque, line);
}

static void mark(struct chk *c, uint64_t off, uint64_t len, uint32_t times)
{
	uint64_t first = off >> c->s->cluster_bits, last;

	if (!len)
		return;
	if (off + len < off || (off + len - 1) >> c->s->cluster_bits >= c->n) {
		say(c, "ERROR: a reference to offset 0x%llx, behind the end of the file",
		    (unsigned long long)off);
		c->r->corruptions++;
		return;
	}
	last = (off + len - 1) >> c->s->cluster_bits;
	for (uint64_t i = first; i <= last; i++)
		c->refs[i] = c->refs[i] > UINT32_MAX - times ? UINT32_MAX : c->refs[i] + times;
}

/* Is it all inside of the file, and nothing of it marked? */
static bool unseen(const struct chk *c, uint64_t off, uint64_t len)
{
	uint64_t last;

	if (!len || off > (uint64_t)INT64_MAX - len)
		return !len;
	last = (off + len - 1) >> c->s->cluster_bits;
	for (uint64_t i = off >> c->s->cluster_bits; i <= last; i++)
		if (i >= c->n || c->refs[i])
			return false;
	return true;
}

/* Take marks back, exactly those that mark() made. */
static void unmark(struct chk *c, uint64_t off, uint64_t len)
{
	uint64_t first = off >> c->s->cluster_bits, last = (off + len - 1) >> c->s->cluster_bits;

	if (!len || off + len < off || last >= c->n)
		return;
	for (uint64_t i = first; i <= last; i++)
		c->refs[i] -= c->refs[i] < UINT32_MAX;
}

/* ---- L1 and L2 ----------------------------------------------------------------------------- */

static void check_l1_entry(struct chk *c, uint64_t v)
{
	struct qcow2 *s = c->s;
	uint64_t off = v & ENTRY_OFFSET;

	if (v & ENTRY_L1_RSVD || q2_in_cluster(s, off)) {
		say(c, "ERROR: L1 entry 0x%llx is invalid", (unsigned long long)v);
		c->r->corruptions++;
	} else if (off >> s->cluster_bits >= c->n) {
		say(c, "ERROR: L2 table at 0x%llx is behind the end of the file",
		    (unsigned long long)off);
		c->r->corruptions++;
	} else {
		c->l2[off >> s->cluster_bits] += c->l2[off >> s->cluster_bits] < UINT32_MAX;
	}
}

/* An L1 table in the file. */
static int check_l1_co(struct chk *c, uint64_t off, uint32_t n, const char *what)
{
	struct qcow2 *s = c->s;
	uint64_t len = n * 8ull;
	int r = 0;

	if (!n)
		return 0;
	if (q2_in_cluster(s, off) || !unseen(c, off, len)) {
		say(c, "ERROR: the L1 table of %s at 0x%llx is invalid", what,
		    (unsigned long long)off);
		c->r->corruptions++;
		return 0;
	}
	mark(c, off, len, 1);
	for (uint64_t at = 0; r >= 0 && at < len; at += s->cluster_size) {
		uint32_t part = (uint32_t)MIN(len - at, s->cluster_size);

		r = q2_file_pread_co(s->b->file, off + at, c->buf, part);
		for (uint32_t i = 0; r >= 0 && i < part; i += 8) {
			if (q2_get64(c->buf + i) & ~ENTRY_COPIED)
				check_l1_entry(c, q2_get64(c->buf + i));
		}
	}
	return r;
}

static void check_data(struct chk *c, uint64_t off, uint32_t times, bool active)
{
	struct qcow2 *s = c->s;

	if (active) {
		c->r->allocated_clusters++;
		if (c->next && off != c->next)
			c->r->fragmented_clusters++;
		c->next = off + s->cluster_size;
	}
	if (!q2_external(s))
		mark(c, off, s->cluster_size, times);
}

static void check_l2_entry(struct chk *c, const uint8_t *e, uint32_t times, bool active)
{
	struct qcow2 *s = c->s;
	uint64_t v = q2_get64(e), off = v & ENTRY_OFFSET, len, bitmap = q2_bitmap(s, e);

	if (v & ENTRY_COMPRESSED) {
		if (q2_external(s) || v & ENTRY_COPIED) {
			say(c, "ERROR: compressed cluster's L2 entry 0x%llx is invalid",
			    (unsigned long long)v);
			c->r->corruptions++;
			if (q2_external(s))
				return;
		}
		q2_compressed_range(s, v, &off, &len);
		mark(c, off, len, times);
		if (active) {
			c->r->allocated_clusters++;
			c->r->compressed_clusters++;
			c->r->fragmented_clusters++;
		}
		return;
	}
	if (q2_in_cluster(s, off) || v & ENTRY_L2_RSVD ||
	    (v & ENTRY_ZERO && (s->version < 3 || q2_extended(s))) ||
	    (bitmap & bitmap >> 32 & UINT32_MAX) ||
	    (bitmap & UINT32_MAX && !off && !q2_external(s))) {
		say(c, "ERROR: L2 entry 0x%llx is invalid", (unsigned long long)v);
		c->r->corruptions++;
		return;
	}
	if (off || (q2_external(s) && v & ENTRY_COPIED))
		check_data(c, off, times, active);
}

static int check_l2_tables_co(struct chk *c, const uint8_t *active)
{
	struct qcow2 *s = c->s;

	for (uint64_t t = 0; t < c->n; t++) {
		int r;

		if (likely(!c->l2[t]))
			continue;
		mark(c, t << s->cluster_bits, s->cluster_size, c->l2[t]);
		r = q2_file_pread_co(s->b->file, t << s->cluster_bits, c->buf, s->cluster_size);
		if (r < 0)
			return r;
		c->next = 0;
		for (uint32_t i = 0; i < s->cluster_size; i += s->l2_entry_size) {
			if (q2_get64(c->buf + i) || q2_bitmap(s, c->buf + i))
				check_l2_entry(c, c->buf + i, c->l2[t],
					       active[t / 8] >> (t % 8) & 1);
		}
	}
	return 0;
}

/* The COPIED bits of what the active L1 reaches; on fix they are set right. */
static bool copied_wrong(struct chk *c, uint64_t v)
{
	uint64_t off = v & ENTRY_OFFSET, cl = off >> c->s->cluster_bits;

	if (v & ENTRY_COMPRESSED || !off || q2_in_cluster(c->s, off) || cl >= c->n ||
	    q2_external(c->s))
		return false;
	return (c->refs[cl] == 1) != !!(v & ENTRY_COPIED);
}

static int check_copied_co(struct chk *c, bool fix)
{
	struct qcow2 *s = c->s;
	uint8_t *done = calloc(1, c->n / 8 + 1); /* by cluster: an L2 table that was looked at */
	int r = done ? 0 : -ENOMEM;

	for (uint32_t i = 0; r >= 0 && i < s->l1_size; i++) {
		uint64_t l1e = s->l1[i], off = l1e & ENTRY_OFFSET, cl = off >> s->cluster_bits;

		if (!off || q2_in_cluster(s, off) || cl >= c->n)
			continue;
		/* like a data cluster's; external data or not */
		if ((c->refs[cl] == 1) != !!(l1e & ENTRY_COPIED)) {
			say(c, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%llx refcount=%u",
			    fix ? "Repairing" : "ERROR", i, (unsigned long long)l1e, c->refs[cl]);
			*(fix ? &c->r->corruptions_fixed : &c->r->corruptions) += 1;
			if (fix) {
				s->l1[i] ^= ENTRY_COPIED;
				s->n_l1_dirty += !s->l1_dirty[i];
				s->l1_dirty[i] = 1;
			}
		}
		if (done[cl / 8] >> (cl % 8) & 1)
			continue;
		done[cl / 8] |= (uint8_t)(1 << cl % 8);
		for (uint32_t at = 0; r >= 0 && at < s->cluster_size; at += s->slice_size) {
			struct q2_slice *sl;

			r = q2_cache_get_co(&s->l2c, off + at, &sl);
			for (uint32_t k = 0; r >= 0 && k < s->slice_size; k += s->l2_entry_size) {
				uint64_t v = q2_get64(sl->data + k);

				if (!copied_wrong(c, v))
					continue;
				say(c, "%s OFLAG_COPIED data cluster: l2_entry=%llx refcount=%u",
				    fix ? "Repairing" : "ERROR", (unsigned long long)v,
				    c->refs[(v & ENTRY_OFFSET) >> s->cluster_bits]);
				*(fix ? &c->r->corruptions_fixed : &c->r->corruptions) += 1;
				if (fix) {
					q2_put64(sl->data + k, v ^ ENTRY_COPIED);
					q2_cache_dirty(&s->l2c, sl);
				}
			}
		}
	}
	free(done);
	return r;
}

/* ---- Other metadata ------------------------------------------------------------------------ */

static int check_bitmaps_co(struct chk *c)
{
	struct qcow2 *s = c->s;
	uint64_t at = s->bitmap_dir_off, end = at + s->bitmap_dir_size;
	int r = 0;

	if (!s->n_bitmaps || !(s->autoclear & AUTOCLEAR_BITMAPS))
		return 0;
	mark(c, at, s->bitmap_dir_size, 1);
	for (uint32_t i = 0; r >= 0 && i < s->n_bitmaps && at + 24 <= end; i++) {
		uint8_t e[24];
		uint64_t table, size;

		r = q2_file_pread_co(s->b->file, at, e, sizeof(e));
		if (r < 0)
			break;
		table = q2_get64(e);
		size = q2_get32(e + 8) * 8ull;
		at += (24ull + q2_get32(e + 20) + q2_get16(e + 18) + 7) / 8 * 8;
		if (q2_in_cluster(s, table) || !unseen(c, table, size)) {
			say(c, "ERROR: a bitmap's table at 0x%llx is invalid",
			    (unsigned long long)table);
			c->r->corruptions++;
			continue;
		}
		mark(c, table, size, 1);
		for (uint64_t k = 0; r >= 0 && k < size; k += s->cluster_size) {
			uint64_t n = MIN(size - k, s->cluster_size);

			r = q2_file_pread_co(s->b->file, table + k, c->buf, n);
			for (uint64_t j = 0; r >= 0 && j < n; j += 8) {
				uint64_t off = q2_get64(c->buf + j) & ENTRY_OFFSET;

				if (off)
					mark(c, off & ~(s->cluster_size - 1ull), s->cluster_size,
					     1);
			}
		}
	}
	return r;
}

static int check_references_co(struct chk *c)
{
	struct qcow2 *s = c->s;
	uint8_t *active = calloc(1, c->n / 8 + 1);
	uint64_t table = 0, at;
	int r = active ? 0 : -ENOMEM;

	mark(c, 0, s->cluster_size, 1);
	if (r >= 0)
		r = check_l1_co(c, s->l1_offset, s->l1_size, "the disk");
	for (uint32_t i = 0; r >= 0 && i < s->l1_size; i++) {
		uint64_t cl = (s->l1[i] & ENTRY_OFFSET) >> s->cluster_bits;

		if (cl && cl < c->n)
			active[cl / 8] |= (uint8_t)(1 << cl % 8);
	}
	for (uint32_t i = 0; r >= 0 && i < s->n_snaps; i++) {
		at = 40 + 16 + s->snaps[i].extra_len + strlen(s->snaps[i].id) +
		     strlen(s->snaps[i].name);
		table += (at + 7) / 8 * 8;
		r = check_l1_co(c, s->snaps[i].l1_offset, s->snaps[i].l1_size, "a snapshot");
	}
	if (r >= 0 && s->n_snaps)
		mark(c, s->snapshots_off, table, 1);
	if (r >= 0)
		r = check_l2_tables_co(c, active);
	if (r >= 0)
		r = check_bitmaps_co(c);
	free(active);
	return r;
}

/* The refcount structure's own clusters. */
static void check_ref_clusters(struct chk *c)
{
	struct qcow2 *s = c->s;
	uint64_t was = c->r->corruptions;

	mark(c, s->rt_offset, (uint64_t)s->rt_clusters << s->cluster_bits, 1);
	if (c->r->corruptions != was) { /* it reaches behind the end */
		c->ref_corruptions++;
		c->rebuild = true;
	}
	if (s->rt_reserved) {
		say(c, "ERROR the refcount table has entries with reserved bits set");
		c->r->corruptions++;
		c->ref_corruptions++;
		c->rebuild = true;
	}
	for (uint64_t i = 0; i < s->rt_entries; i++) {
		uint64_t off = s->rt[i];

		if (!off)
			continue;
		if (q2_in_cluster(s, off) || off >> s->cluster_bits >= c->n) {
			say(c, "ERROR refcount block %llu is %s", (unsigned long long)i,
			    q2_in_cluster(s, off) ? "not cluster aligned; refcount table entry "
						    "corrupted"
						  : "outside image");
			c->r->corruptions++;
			c->ref_corruptions++;
			c->rebuild = true;
			continue;
		}
		mark(c, off, s->cluster_size, 1);
		if (c->refs[off >> s->cluster_bits] != 1) {
			say(c, "ERROR refcount block %llu refcount=%u", (unsigned long long)i,
			    c->refs[off >> s->cluster_bits]);
			c->r->corruptions++;
			c->ref_corruptions++;
			c->rebuild = true;
		}
	}
}

/* Forget them again: a new structure takes their place. */
static void uncheck_ref_clusters(struct chk *c)
{
	struct qcow2 *s = c->s;

	unmark(c, s->rt_offset, (uint64_t)s->rt_clusters << s->cluster_bits);
	for (uint64_t i = 0; i < s->rt_entries; i++) {
		if (s->rt[i] && !q2_in_cluster(s, s->rt[i]))
			unmark(c, s->rt[i], s->cluster_size);
	}
}

/*
 * The block of entry i, which counts clusters that the file does not have. Is there nothing in it?
 * Asked of the host where it is a hole: there may be a million.
 */
static int check_block_zero_co(struct chk *c, uint64_t i, bool *zero)
{
	struct block_status st;
	int r = block_co_status(c->s->b->file, c->s->rt[i], c->s->cluster_size, &st);

	*zero = r >= 0 && st.flags & BLOCK_ZERO && st.len >= c->s->cluster_size;
	return r;
}

/* Compare; fix_leaks: lower what is too high. */
static int check_compare_co(struct chk *c, bool fix_leaks)
{
	struct qcow2 *s = c->s;
	uint64_t per = 1ull << s->rb_bits, end;
	int r = 0;

	for (uint64_t i = 0; r >= 0; i++) {
		bool has = i < s->rt_entries && s->rt[i] && !q2_in_cluster(s, s->rt[i]) &&
			   s->rt[i] >> s->cluster_bits < c->n;

		if (i >= s->rt_entries && i << s->rb_bits >= c->n)
			break;
		if (has && i << s->rb_bits >= c->n) {
			bool zero;

			r = check_block_zero_co(c, i, &zero);
			if (r < 0 || zero)
				continue;
			has = c->refs[s->rt[i] >> s->cluster_bits] == 1; /* else it was told */
		}
		end = has && c->refs[s->rt[i] >> s->cluster_bits] == 1 ? (i + 1) * per
								       : MIN((i + 1) * per, c->n);
		for (uint64_t cl = i << s->rb_bits; r >= 0 && cl < end; cl++) {
			uint64_t is = 0, should = cl < c->n ? c->refs[cl] : 0;

			if (has)
				r = q2_ref_get_co(s, cl, &is);
			if (is || should)
				c->r->image_end = (cl + 1) << s->cluster_bits;
			if (r < 0 || is == should)
				continue;
			if (is < should) {
				say(c, "ERROR cluster %llu refcount=%llu reference=%llu",
				    (unsigned long long)cl, (unsigned long long)is,
				    (unsigned long long)should);
				c->r->corruptions++;
				c->ref_corruptions++;
				continue;
			}
			say(c, "%s cluster %llu refcount=%llu reference=%llu",
			    fix_leaks ? "Repairing" : "Leaked", (unsigned long long)cl,
			    (unsigned long long)is, (unsigned long long)should);
			c->r->leaks++;
			c->ref_leaks++;
			if (fix_leaks) {
				r = q2_ref_set_co(s, cl, should);
				c->r->leaks--;
				c->r->leaks_fixed++;
			}
		}
	}
	return r;
}

static int check_all_co(struct chk *c, unsigned fix, struct err *e)
{
	struct qcow2 *s = c->s;
	bool leaks_only = fix & QCOW2_FIX_LEAKS;
	int r = check_references_co(c);

	if (r >= 0 && fix & QCOW2_FIX_ERRORS) {
		/* Look first: a structure that is wrong is not repaired in pieces. */
		struct qcow2_check look = { 0 }, *keep = c->r;

		c->r = &look;
		check_ref_clusters(c);
		r = check_compare_co(c, false);
		c->r = keep;
		c->r->image_end = look.image_end;
		if (r >= 0 && (c->ref_corruptions || c->rebuild)) {
			say(c, "Rebuilding refcount structure");
			uncheck_ref_clusters(c);
			r = q2_refcounts_rebuild_co(s, c->refs, c->n, e);
			c->r->corruptions_fixed += c->ref_corruptions;
			c->r->leaks_fixed += c->ref_leaks;
		} else if (r >= 0 && leaks_only) {
			r = check_compare_co(c, true);
		}
		return r < 0 ? r : check_copied_co(c, true);
	}
	if (r >= 0) {
		check_ref_clusters(c);
		/* counts in a structure that is wrong itself are not changed one by one */
		r = check_compare_co(c, leaks_only && !c->rebuild);
	}
	if (r >= 0)
		r = check_copied_co(c, false);
	return r;
}

int qcow2_co_check(struct block *b, unsigned fix, struct qcow2_check *res, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	struct chk c = { .s = s, .r = res };
	int r;

	c.n = (q2_round_up(s, b->file->len) >> s->cluster_bits) + 1;
	if (c.n > CHECK_MAX_CLUSTERS)
		return err_set(e, EFBIG, "%s: the file is too large to be checked",
			       b->opts.filename);
	if (fix && !b->writable)
		return err_set(e, EPERM, "%s: is opened read-only and cannot be repaired",
			       b->opts.filename);
	res->total_clusters = q2_round_up(s, b->len) >> s->cluster_bits;
	r = fix ? q2_settle_co(s) : 0;
	c.refs = calloc(c.n, sizeof(*c.refs));
	c.l2 = calloc(c.n, sizeof(*c.l2));
	c.buf = malloc(s->cluster_size);
	if (r >= 0)
		r = c.refs && c.l2 && c.buf ? check_all_co(&c, fix, e) : -ENOMEM;
	if (r >= 0 && fix)
		r = q2_settle_co(s);
	if (r >= 0 && fix & QCOW2_FIX_ERRORS && !res->corruptions) {
		r = q2_set_incompat_co(s, 0, INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
		s->dirty_marked = false;
		s->header_synced = false;
	}
	free(c.refs);
	free(c.l2);
	free(c.buf);
	if (r < 0 && (!e || !e->code))
		err_set(e, -r, "%s: the check failed: %s", b->opts.filename, strerror(-r));
	return r;
}
