/*
 * qcow2: the header cluster: fields, feature bits, extensions, names.
 *
 * Modelled:     versions 2 and 3; extensions for the backing format, the data file's name, the
 *               feature name table (read for messages, written for others' messages), bitmaps
 *               (kept as they are until the first write, which makes them stale: then bit and
 *               extension go); extensions that are not known are kept.
 * Not modelled: encryption, refused.
 * Bounds:       everything of the header lies in the first cluster; all sizes in it are checked
 *               against the limits in qcow2_priv.h before anything is allocated.
 * Reference:    [QCOW2 "Header", "Header extensions", "Feature name table"]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum {
	EXT_END = 0,
	EXT_FEATURES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
	EXT_CRYPTO = 0x0537be77,
	EXT_DATA_FILE = 0x44415441
};
#define EXT_BACKING_FORMAT 0xe2792acau
#define NAME_MAX_LEN       1023u
enum { FEATURE_LEN = 48 };

static const struct {
	uint8_t type, bit;
	const char *name;
} features[] = {
	{ 0, 0, "dirty bit" },
	{ 0, 1, "corrupt bit" },
	{ 0, 2, "external data file" },
	{ 0, 3, "compression type" },
	{ 0, 4, "extended L2 entries" },
	{ 1, 0, "lazy refcounts" },
	{ 2, 0, "bitmaps" },
	{ 2, 1, "raw external data" },
};

/* A string of the image; NULL without memory. NULs inside end it. */
static char *header_string(const uint8_t *p, uint32_t len)
{
	return strndup((const char *)p, len);
}

/* Names of the incompatible features in `bits`, from the image's own table where it has them. */
static void header_unknown_names(const uint8_t *table, uint32_t len, uint64_t unknown, char *out,
				 size_t size)
{
	size_t n = 0;

	out[0] = 0;
	for (uint32_t at = 0; table && at + FEATURE_LEN <= len; at += FEATURE_LEN) {
		char name[FEATURE_LEN - 2 + 1] = { 0 };

		if (table[at] != 0 || table[at + 1] > 63 || !(unknown & BIT(table[at + 1])))
			continue;
		unknown &= ~BIT(table[at + 1]);
		memcpy(name, table + at + 2, FEATURE_LEN - 2);
		for (char *c = name; *c; c++) {
			if (*c < ' ' || *c > '~')
				*c = '?';
		}
		n += (size_t)snprintf(out + n, size - n, "%s'%s'", n ? ", " : "", name);
		if (n >= size)
			return;
	}
	if (unknown)
		snprintf(out + n, size - n, "%sbits 0x%llx", n ? ", " : "",
			 (unsigned long long)unknown);
}

static int ext_keep(struct qcow2 *s, uint32_t type, const uint8_t *p, uint32_t len)
{
	struct q2_ext *v = realloc(s->exts, (s->n_exts + 1) * sizeof(*v));

	if (!v)
		return -ENOMEM;
	s->exts = v;
	v += s->n_exts;
	v->data = malloc(len + 1);
	if (!v->data)
		return -ENOMEM;
	memcpy(v->data, p, len);
	v->type = type;
	v->len = len;
	s->n_exts++;
	return 0;
}

static int ext_string(char **to, const uint8_t *p, uint32_t len, const char *what, const char *file,
		      struct err *e)
{
	if (len > NAME_MAX_LEN)
		return err_set(e, EINVAL, "%s: the %s in the header is longer than %u bytes", file,
			       what, NAME_MAX_LEN);
	free(*to);
	*to = header_string(p, len);
	return *to ? 0 : err_set(e, ENOMEM, "%s: out of memory", file);
}

static int ext_bitmaps(struct qcow2 *s, const uint8_t *p, uint32_t len, struct err *e)
{
	const char *f = s->b->opts.filename;

	if (!(s->autoclear & AUTOCLEAR_BITMAPS))
		return 0; /* stale, so it need not be kept */
	if (len != 24 || q2_get32(p + 4))
		return err_set(e, EINVAL, "%s: the bitmaps extension in the header is malformed",
			       f);
	s->n_bitmaps = q2_get32(p);
	s->bitmap_dir_size = q2_get64(p + 8);
	s->bitmap_dir_off = q2_get64(p + 16);
	if (!s->n_bitmaps || s->n_bitmaps > 65535 || q2_in_cluster(s, s->bitmap_dir_off) ||
	    s->bitmap_dir_off > (uint64_t)INT64_MAX || s->bitmap_dir_size > (64u << 20))
		return err_set(e, EINVAL, "%s: the bitmap directory in the header is malformed", f);
	return 0;
}

/* All extensions in [at, end) of the header cluster h. */
static int header_extensions(struct qcow2 *s, const uint8_t *h, uint32_t at, uint32_t end,
			     const uint8_t **table, uint32_t *table_len, struct err *e)
{
	struct block *b = s->b;

	while (end - at >= 8) {
		uint32_t type = q2_get32(h + at), len = q2_get32(h + at + 4);
		const uint8_t *p = h + at + 8;
		int r = 0;

		if (type == EXT_END)
			return 0;
		if (len > end - at - 8)
			return err_set(e, EINVAL,
				       "%s: header extension 0x%x reaches out of the header",
				       b->opts.filename, type);
		switch (type) {
		case EXT_BACKING_FORMAT:
			r = ext_string(&b->backing_format, p, len, "backing format's name",
				       b->opts.filename, e);
			break;
		case EXT_DATA_FILE:
			r = ext_string(&b->data_file_name, p, len, "data file's name",
				       b->opts.filename, e);
			break;
		case EXT_FEATURES:
			*table = p;
			*table_len = len;
			break;
		case EXT_BITMAPS: r = ext_bitmaps(s, p, len, e); break;
		case EXT_CRYPTO: break; /* refused by crypt_method */
		default:
			if (ext_keep(s, type, p, len) < 0)
				r = err_set(e, ENOMEM, "%s: out of memory", b->opts.filename);
		}
		if (r < 0)
			return r;
		if ((len + 7ull) / 8 * 8 > end - at - 8)
			return 0;
		at += 8 + (len + 7) / 8 * 8;
	}
	return 0;
}

/* The fixed fields. */
static int header_fields(struct qcow2 *s, const uint8_t *h, struct err *e)
{
	const char *f = s->b->opts.filename;

	if (q2_get32(h + H_MAGIC) != QCOW2_MAGIC)
		return err_set(e, EINVAL, "%s: not in qcow2 format", f);
	s->version = q2_get32(h + H_VERSION);
	if (s->version != 2 && s->version != 3)
		return err_set(e, ENOTSUP, "%s: qcow2 version %u is not supported, only 2 and 3", f,
			       s->version);
	s->cluster_bits = q2_get32(h + H_CLUSTER_BITS);
	if (s->cluster_bits < 9 || s->cluster_bits > 21)
		return err_set(e, EINVAL,
			       "%s: cluster size 2^%u is not supported, only 2^9 to 2^21", f,
			       s->cluster_bits);
	s->cluster_size = 1u << s->cluster_bits;
	s->refcount_order = 4;
	s->header_len = H_V2_LEN;
	if (s->version == 3) {
		s->incompat = q2_get64(h + H_INCOMPAT);
		s->compat = q2_get64(h + H_COMPAT);
		s->autoclear = q2_get64(h + H_AUTOCLEAR);
		s->refcount_order = q2_get32(h + H_REFCOUNT_ORDER);
		s->header_len = q2_get32(h + H_HEADER_LEN);
		if (s->header_len < H_COMPRESSION || s->header_len > s->cluster_size ||
		    s->header_len % 8)
			return err_set(e, EINVAL, "%s: header length %u is invalid", f,
				       s->header_len);
		if (s->header_len > H_COMPRESSION)
			s->compression_type = h[H_COMPRESSION];
	}
	if (s->refcount_order > 6)
		return err_set(e, EINVAL, "%s: refcount width 2^%u is invalid, at most 2^6 bits", f,
			       s->refcount_order);
	return 0;
}

static int header_features(struct qcow2 *s, const uint8_t *table, uint32_t table_len, struct err *e)
{
	const char *f = s->b->opts.filename;
	char names[256];

	if (s->incompat & ~(uint64_t)INCOMPAT_KNOWN) {
		header_unknown_names(table, table_len, s->incompat & ~(uint64_t)INCOMPAT_KNOWN,
				     names, sizeof(names));
		return err_set(e, ENOTSUP, "%s: unsupported qcow2 feature(s): %s", f, names);
	}
	if (s->compression_type > 1)
		return err_set(e, ENOTSUP,
			       "%s: compression type %u is not supported, only zlib and zstd", f,
			       s->compression_type);
	if (!(s->incompat & INCOMPAT_COMPRESSION) != !s->compression_type)
		return err_set(e, EINVAL,
			       "%s: the compression type in the header and its feature bit do not "
			       "agree",
			       f);
	if (q2_extended(s) && s->cluster_bits < 14)
		return err_set(e, EINVAL, "%s: extended L2 entries need clusters of 16 KiB or more",
			       f);
	if (!q2_external(s))
		s->autoclear &= ~(uint64_t)AUTOCLEAR_DATA_FILE_RAW;
	return 0;
}

/* Where the tables are. */
static int header_tables(struct qcow2 *s, const uint8_t *h, struct err *e)
{
	const char *f = s->b->opts.filename;

	s->b->len = q2_get64(h + H_SIZE);
	s->l1_size = q2_get32(h + H_L1_SIZE);
	s->l1_offset = q2_get64(h + H_L1_OFF);
	s->rt_offset = q2_get64(h + H_RT_OFF);
	s->rt_clusters = q2_get32(h + H_RT_CLUSTERS);
	s->n_snaps = q2_get32(h + H_NB_SNAPSHOTS);
	s->snapshots_off = q2_get64(h + H_SNAPSHOTS_OFF);
	if (s->b->len > (uint64_t)INT64_MAX - s->cluster_size)
		return err_set(e, EFBIG, "%s: the disk is too large, %llu bytes", f,
			       (unsigned long long)s->b->len);
	if (s->l1_size > QCOW2_MAX_L1 / 8)
		return err_set(e, EFBIG, "%s: the active L1 table is too large, %u entries", f,
			       s->l1_size);
	if (!s->rt_clusters && !s->b->opts.check)
		return err_set(e, EINVAL, "%s: there is no refcount table", f);
	if (s->rt_clusters > QCOW2_MAX_REFTABLE >> s->cluster_bits)
		return err_set(e, EFBIG, "%s: the refcount table is too large, %u clusters", f,
			       s->rt_clusters);
	if (s->n_snaps > QCOW2_MAX_SNAPSHOTS)
		return err_set(e, EFBIG, "%s: too many snapshots, %u", f, s->n_snaps);
	if (q2_in_cluster(s, s->l1_offset) || s->l1_offset > (uint64_t)INT64_MAX - QCOW2_MAX_L1)
		return err_set(e, EINVAL, "%s: the active L1 table's offset is invalid", f);
	if (q2_in_cluster(s, s->rt_offset) ||
	    s->rt_offset > (uint64_t)INT64_MAX - QCOW2_MAX_REFTABLE)
		return err_set(e, EINVAL, "%s: the refcount table's offset is invalid", f);
	if (s->n_snaps && (q2_in_cluster(s, s->snapshots_off) ||
			   s->snapshots_off > (uint64_t)INT64_MAX - QCOW2_MAX_SNAP_TABLE))
		return err_set(e, EINVAL, "%s: the snapshot table's offset is invalid", f);
	return 0;
}

static int header_backing(struct qcow2 *s, const uint8_t *h, uint32_t *ext_end, struct err *e)
{
	uint64_t off = q2_get64(h + H_BACKING_OFF);
	uint32_t len = q2_get32(h + H_BACKING_LEN);
	const char *f = s->b->opts.filename;

	*ext_end = s->cluster_size;
	if (!off)
		return 0;
	if (off < s->header_len || off > s->cluster_size)
		return err_set(e, EINVAL, "%s: the backing file's name is not in the header", f);
	*ext_end = (uint32_t)off;
	if (!len)
		return 0;
	if (len > NAME_MAX_LEN || len > s->cluster_size - off)
		return err_set(e, EINVAL, "%s: the backing file's name is too long", f);
	s->b->backing_file = header_string(h + off, len);
	return s->b->backing_file ? 0 : err_set(e, ENOMEM, "%s: out of memory", f);
}

static void header_derive(struct qcow2 *s)
{
	s->l2_entry_size = q2_extended(s) ? 16 : 8;
	s->l2_bits = s->cluster_bits - (q2_extended(s) ? 4 : 3);
	s->rb_bits = s->cluster_bits + 3 - s->refcount_order;
	s->slice_size = MIN(s->cluster_size, 4096u);
	s->slice_l2_bits = (unsigned)__builtin_ctz(s->slice_size) - (q2_extended(s) ? 4 : 3);
	s->subcluster_bits = q2_extended(s) ? s->cluster_bits - 5 : s->cluster_bits;
	s->refcount_max = s->refcount_order == 6 ? UINT64_MAX : BIT(1u << s->refcount_order) - 1;
}

int q2_header_read_co(struct qcow2 *s, struct err *e)
{
	const char *f = s->b->opts.filename;
	const uint8_t *table = NULL;
	uint32_t table_len = 0, ext_end = 0;
	uint8_t *h;
	int r;

	if (s->b->file->len < H_V2_LEN)
		return err_set(e, EINVAL, "%s: not in qcow2 format: the file is too short", f);
	h = malloc(512);
	r = h ? q2_file_pread_co(s->b->file, 0, h, 512) : -ENOMEM;
	if (r < 0)
		err_set(e, -r, "%s: the header cannot be read: %s", f, strerror(-r));
	else
		r = header_fields(s, h, e);
	if (r >= 0) {
		free(h);
		h = malloc(s->cluster_size);
		if (!h)
			return err_set(e, ENOMEM, "%s: out of memory", f);
		r = q2_file_pread_co(s->b->file, 0, h, s->cluster_size);
		if (r < 0)
			err_set(e, -r, "%s: the header cannot be read: %s", f, strerror(-r));
	}
	if (r >= 0 && q2_get32(h + H_CRYPT))
		r = err_set(e, ENOTSUP,
			    "%s is encrypted, which is not supported: decrypt it with 'qemu-img "
			    "convert'",
			    f);
	if (r >= 0)
		r = header_backing(s, h, &ext_end, e);
	if (r >= 0)
		r = header_extensions(s, h, s->header_len, ext_end, &table, &table_len, e);
	if (r >= 0)
		r = header_features(s, table, table_len, e);
	if (r >= 0)
		r = header_tables(s, h, e);
	if (r >= 0 && s->header_len > H_V3_LEN &&
	    ext_keep(s, EXT_END, h + H_V3_LEN, s->header_len - H_V3_LEN) < 0)
		r = err_set(e, ENOMEM, "%s: out of memory", f);
	free(h);
	if (r >= 0)
		header_derive(s);
	return r;
}

void q2_header_free(struct qcow2 *s)
{
	for (unsigned i = 0; i < s->n_exts; i++)
		free(s->exts[i].data);
	free(s->exts);
	s->exts = NULL;
	s->n_exts = 0;
}

/* ---- Writing ------------------------------------------------------------------------------- */

struct header_out {
	uint8_t *p;
	uint32_t at, size;
	bool full;
};

static void out_ext(struct header_out *o, uint32_t type, const void *data, uint32_t len)
{
	uint32_t all = 8 + (len + 7) / 8 * 8;

	if (o->full || all > o->size - o->at) {
		o->full = true;
		return;
	}
	q2_put32(o->p + o->at, type);
	q2_put32(o->p + o->at + 4, len);
	if (len)
		memcpy(o->p + o->at + 8, data, len);
	o->at += all;
}

static void out_features(struct header_out *o)
{
	uint8_t t[ARRAY_SIZE(features) * FEATURE_LEN] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		t[i * FEATURE_LEN] = features[i].type;
		t[i * FEATURE_LEN + 1] = features[i].bit;
		memcpy(t + i * FEATURE_LEN + 2, features[i].name, strlen(features[i].name));
	}
	out_ext(o, EXT_FEATURES, t, sizeof(t));
}

static void out_fields(struct qcow2 *s, uint8_t *h)
{
	q2_put32(h + H_MAGIC, QCOW2_MAGIC);
	q2_put32(h + H_VERSION, s->version);
	q2_put32(h + H_CLUSTER_BITS, s->cluster_bits);
	q2_put64(h + H_SIZE, s->b->len);
	q2_put32(h + H_L1_SIZE, s->l1_size);
	q2_put64(h + H_L1_OFF, s->l1_offset);
	q2_put64(h + H_RT_OFF, s->rt_offset);
	q2_put32(h + H_RT_CLUSTERS, s->rt_clusters);
	q2_put32(h + H_NB_SNAPSHOTS, s->n_snaps);
	q2_put64(h + H_SNAPSHOTS_OFF, s->n_snaps ? s->snapshots_off : 0);
	if (s->version < 3)
		return;
	q2_put64(h + H_INCOMPAT, s->incompat);
	q2_put64(h + H_COMPAT, s->compat);
	q2_put64(h + H_AUTOCLEAR, s->autoclear);
	q2_put32(h + H_REFCOUNT_ORDER, s->refcount_order);
	q2_put32(h + H_HEADER_LEN, MAX(s->header_len, (uint32_t)H_V3_LEN));
	h[H_COMPRESSION] = s->compression_type;
}

int q2_header_write_co(struct qcow2 *s)
{
	struct block *b = s->b;
	struct header_out o = { .size = s->cluster_size };
	uint8_t bm[24] = { 0 };
	int r;

	o.at = s->version == 2 ? H_V2_LEN : MAX(s->header_len, (uint32_t)H_V3_LEN);
	o.p = calloc(1, s->cluster_size);
	if (!o.p)
		return -ENOMEM;
	out_fields(s, o.p);
	for (unsigned i = 0; i < s->n_exts; i++) {
		if (s->exts[i].type == EXT_END) /* unknown header fields */
			memcpy(o.p + H_V3_LEN, s->exts[i].data, s->exts[i].len);
	}
	if (b->backing_file && b->backing_format)
		out_ext(&o, EXT_BACKING_FORMAT, b->backing_format,
			(uint32_t)strlen(b->backing_format));
	if (q2_external(s) && b->data_file_name)
		out_ext(&o, EXT_DATA_FILE, b->data_file_name, (uint32_t)strlen(b->data_file_name));
	/* 512-byte clusters have no room for luxury */
	if (s->version >= 3 && s->cluster_size > 512)
		out_features(&o);
	if (s->autoclear & AUTOCLEAR_BITMAPS && s->n_bitmaps) {
		q2_put32(bm, s->n_bitmaps);
		q2_put64(bm + 8, s->bitmap_dir_size);
		q2_put64(bm + 16, s->bitmap_dir_off);
		out_ext(&o, EXT_BITMAPS, bm, sizeof(bm));
	}
	for (unsigned i = 0; i < s->n_exts; i++) {
		if (s->exts[i].type != EXT_END)
			out_ext(&o, s->exts[i].type, s->exts[i].data, s->exts[i].len);
	}
	out_ext(&o, EXT_END, NULL, 0);
	if (b->backing_file && !o.full) {
		size_t n = strlen(b->backing_file);

		if (n > o.size - o.at) {
			o.full = true;
		} else {
			memcpy(o.p + o.at, b->backing_file, n);
			q2_put64(o.p + H_BACKING_OFF, o.at);
			q2_put32(o.p + H_BACKING_LEN, (uint32_t)n);
		}
	}
	r = o.full ? -ENOSPC : q2_file_pwrite_co(s, 0, o.p, s->cluster_size, META_HEADER);
	free(o.p);
	return r < 0 ? r : block_co_flush(b->file);
}

int q2_header_poke_co(struct qcow2 *s, unsigned off, const void *buf, unsigned len)
{
	/* not by q2_file_pwrite_co: the corrupt bit is set when that refuses */
	int r = block_co_pwrite(s->b->file, off, buf, len, 0);

	if (r >= 0)
		r = block_co_flush(s->b->file);
	/* Where tables are is not known now, and what of them may be given up. Bits can be tried
	 * again. */
	if (r < 0 && off < H_V2_LEN)
		s->broken = true;
	return r;
}

int q2_set_incompat_co(struct qcow2 *s, uint64_t set, uint64_t clear)
{
	uint64_t v = (s->incompat | set) & ~clear;
	uint8_t be[8];
	int r;

	if (s->version < 3 || v == s->incompat)
		return 0;
	q2_put64(be, v);
	r = q2_header_poke_co(s, H_INCOMPAT, be, sizeof(be));
	if (r >= 0)
		s->incompat = v;
	return r;
}

int q2_before_write_co(struct qcow2 *s)
{
	uint64_t keep = s->autoclear & AUTOCLEAR_DATA_FILE_RAW;
	int r = 0;

	if (s->broken)
		return -EIO;
	if (likely(s->header_synced))
		return 0;
	/* and looking for a free cluster in it may take for ever */
	if (s->ov.twice)
		return q2_corrupt_co(s, "a refcount block is used for two things");
	if (keep != s->autoclear) {
		/* Their bitmaps say nothing of what is written from now on. */
		uint8_t be[8];

		q2_put64(be, keep);
		r = q2_header_poke_co(s, H_AUTOCLEAR, be, sizeof(be));
		if (r < 0)
			return r;
		s->autoclear = keep;
		s->n_bitmaps = 0;
	}
	if (s->lazy && !s->dirty_marked) {
		r = q2_set_incompat_co(s, INCOMPAT_DIRTY, 0);
		if (r < 0)
			return r;
		s->dirty_marked = true;
	}
	s->header_synced = true;
	return 0;
}
