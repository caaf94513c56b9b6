/*
 * qcow2: new images.
 *
 * Layout: header, refcount table, refcount blocks, L1 table, each in its own clusters. Everything
 * is flushed before the header, so that a crash leaves no half image.
 * Reference: [QCOW2 "Header"]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { DEFAULT_CLUSTER = 65536 };

int qcow2_create_check(const struct qcow2_create *c, struct err *e)
{
	uint32_t cluster = c->cluster_size ? c->cluster_size : DEFAULT_CLUSTER;
	unsigned width = c->refcount_bits ? c->refcount_bits : 16, version = c->version;
	struct qcow2 s = { 0 };
	uint32_t l1;

	if (version && version != 2 && version != 3)
		return err_set(e, EINVAL, "qcow2 version %u does not exist, only 2 and 3", version);
	if (cluster < 512 || cluster > 2 << 20 || cluster & (cluster - 1))
		return err_set(e, EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	if (width > 64 || !width || width & (width - 1))
		return err_set(e, EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (version == 2 && width != 16)
		return err_set(e, EINVAL,
			       "Different refcount widths than 16 bits require compatibility level "
			       "1.1 or above (use compat=1.1 or greater)");
	if (version == 2 && c->lazy_refcounts)
		return err_set(e, EINVAL,
			       "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use compat=1.1 or greater)");
	if (version == 2 && c->data_file)
		return err_set(e, EINVAL,
			       "External data files are only supported with compatibility level "
			       "1.1 and above (use compat=1.1 or greater)");
	if (version == 2 && c->zstd)
		return err_set(e, EINVAL,
			       "Non-zlib compression type is only supported with compatibility "
			       "level 1.1 and above (use compat=1.1 or greater)");
	if (version == 2 && c->extended_l2)
		return err_set(e, EINVAL,
			       "Extended L2 entries are only supported with compatibility level "
			       "1.1 and above (use compat=1.1 or greater)");
	if (c->extended_l2 && cluster < 16384)
		return err_set(e, EINVAL,
			       "Extended L2 entries are only supported with cluster sizes of at "
			       "least 16384 bytes");
	if (c->data_file_raw && !c->data_file)
		return err_set(e, EINVAL, "data-file-raw requires data-file");
	if (c->data_file_raw && c->backing_file)
		return err_set(e, EINVAL,
			       "Backing file and data-file-raw cannot be used at the same time");
	if (c->backing_file && strlen(c->backing_file) > 1023)
		return err_set(e, EINVAL, "The backing file's name has more than 1023 bytes");
	if (c->backing_file && c->prealloc != PREALLOC_OFF)
		return err_set(e, EINVAL,
			       "Backing file and preallocation cannot be used at the same time");
	if (c->size % 512)
		return err_set(e, EINVAL, "The image size must be a multiple of 512 bytes");
	s.cluster_bits = (unsigned)__builtin_ctz(cluster);
	s.l2_bits = s.cluster_bits - (c->extended_l2 ? 4 : 3);
	if (c->size > (uint64_t)INT64_MAX - cluster || q2_l1_min_size(&s, c->size, &l1) < 0)
		return err_set(e, EFBIG,
			       "The image size is too large (try using a larger cluster size)");
	return 0;
}

/* Where things lie, in clusters: blocks count all, the table points to all blocks. */
static void create_layout(struct qcow2 *s, uint64_t *n_blocks, uint64_t *n_l1)
{
	uint64_t total, blocks, table;

	*n_l1 = q2_round_up(s, s->l1_size * 8ull) >> s->cluster_bits;
	s->rt_clusters = 1;
	*n_blocks = 1;
	for (;;) {
		total = 1 + s->rt_clusters + *n_blocks + *n_l1;
		blocks = (total + (1ull << s->rb_bits) - 1) >> s->rb_bits;
		table = (blocks * 8 + s->cluster_size - 1) >> s->cluster_bits;
		if (blocks <= *n_blocks && table <= s->rt_clusters)
			break;
		*n_blocks = MAX(blocks, *n_blocks);
		s->rt_clusters = (uint32_t)MAX(table, s->rt_clusters);
	}
	s->rt_offset = s->cluster_size;
	s->l1_offset = *n_l1 ? (1 + s->rt_clusters + *n_blocks) << s->cluster_bits : 0;
}

static int create_write_co(struct qcow2 *s, uint64_t n_blocks, uint64_t n_l1)
{
	struct block *f = s->b->file;
	uint64_t total = 1 + s->rt_clusters + n_blocks + n_l1, first = 1 + s->rt_clusters;
	uint8_t *buf = calloc(1, s->cluster_size);
	int r = buf ? 0 : -ENOMEM;

	/* of an old image or what else is there: no header until all is written */
	if (r >= 0)
		r = block_co_pwrite(f, 0, buf, s->cluster_size, 0);
	for (uint64_t c = 0; r >= 0 && c < s->rt_clusters; c++) {
		for (uint64_t k = 0; k < s->cluster_size / 8; k++) {
			uint64_t i = c * (s->cluster_size / 8) + k;

			q2_put64(buf + k * 8, i < n_blocks ? (first + i) << s->cluster_bits : 0);
		}
		r = block_co_pwrite(f, (1 + c) << s->cluster_bits, buf, s->cluster_size, 0);
	}
	for (uint64_t i = 0; r >= 0 && i < n_blocks; i++) {
		memset(buf, 0, s->cluster_size);
		for (uint64_t k = 0; k < 1ull << s->rb_bits && (i << s->rb_bits) + k < total; k++)
			q2_refbits_set(buf, s->refcount_order, k, 1);
		r = block_co_pwrite(f, (first + i) << s->cluster_bits, buf, s->cluster_size, 0);
	}
	free(buf);
	if (r >= 0 && n_l1)
		r = block_co_zero(f, s->l1_offset, n_l1 << s->cluster_bits, 0);
	if (r >= 0)
		r = block_co_flush(f);
	return r < 0 ? r : q2_header_write_co(s);
}

int qcow2_co_create(struct block *file, struct block *data_file, const struct qcow2_create *c,
		    struct err *e)
{
	struct block b = { .file = file,
			   .data_file = data_file,
			   .len = c->size,
			   .backing_file = (char *)c->backing_file,
			   .backing_format = (char *)c->backing_format,
			   .data_file_name = (char *)c->data_file };
	uint32_t cluster = c->cluster_size ? c->cluster_size : DEFAULT_CLUSTER;
	unsigned width = c->refcount_bits ? c->refcount_bits : 16;
	uint64_t n_blocks, n_l1;
	struct qcow2 s = { .b = &b };
	int r = qcow2_create_check(c, e);

	if (r < 0)
		return r;
	s.version = c->version ? c->version : 3;
	s.cluster_bits = (unsigned)__builtin_ctz(cluster);
	s.cluster_size = cluster;
	s.refcount_order = (unsigned)__builtin_ctz(width);
	s.rb_bits = s.cluster_bits + 3 - s.refcount_order;
	s.l2_bits = s.cluster_bits - (c->extended_l2 ? 4 : 3);
	s.header_len = s.version == 2 ? H_V2_LEN : H_V3_LEN;
	s.compression_type = c->zstd;
	s.zero_from = UINT64_MAX;
	if (c->data_file)
		s.incompat |= INCOMPAT_DATA_FILE;
	if (c->data_file_raw)
		s.autoclear |= AUTOCLEAR_DATA_FILE_RAW;
	if (c->zstd)
		s.incompat |= INCOMPAT_COMPRESSION;
	if (c->extended_l2)
		s.incompat |= INCOMPAT_EXTENDED_L2;
	if (c->lazy_refcounts)
		s.compat |= COMPAT_LAZY_REFCOUNTS;
	r = q2_l1_min_size(&s, c->size, &s.l1_size);
	create_layout(&s, &n_blocks, &n_l1);
	/* the host file becomes just as long, and all zeroes; a device stays */
	if (r >= 0 && block_co_truncate(file, 0, NULL) < 0 &&
	    file->len < (1 + s.rt_clusters + n_blocks + n_l1) << s.cluster_bits)
		r = -ENOSPC;
	if (r >= 0)
		r = create_write_co(&s, n_blocks, n_l1);
	if (r >= 0 && file->len < (1 + s.rt_clusters + n_blocks + n_l1) << s.cluster_bits)
		(void)block_co_truncate(file,
					(1 + s.rt_clusters + n_blocks + n_l1) << s.cluster_bits,
					NULL); /* only for looks: what is missing reads as zeroes */
	if (r < 0)
		return err_set(e, -r, "%s: the image cannot be written: %s", file->opts.filename,
			       r == -ENOSPC && s.cluster_size == 512 && c->backing_file
				       ? "no space left, on the device or for the names in the "
					 "header (try a larger cluster size)"
				       : strerror(-r));
	return 0;
}
