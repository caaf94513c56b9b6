/*
 * qcow2: compressed clusters, zlib (raw deflate with a 4 KiB window) and zstd.
 *
 * Compression and its inverse run on worker threads. The last uncompressed cluster is kept, since
 * guests read in smaller pieces than clusters. Writing over a compressed cluster makes it a
 * standard one (qcow2_io.c); compressed ones are written by kvasir-img convert -c.
 * Hostile input: the length of a compressed cluster is at most two clusters; data that is wrong or
 * too short is -EIO.
 * Reference: [QCOW2 "Compressed Clusters Descriptor", "compression_type"]
 * Threads: the node's loop and workers.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "backend/block/qcow2_priv.h"

enum {
	WINDOW_BITS = 12,
	INFLATE_MAX = 16, /* reads at a time, each with up to 6 MiB: a guest has thousands */
};

struct comp_job {
	const uint8_t *in;
	uint8_t *out;
	size_t in_len, out_len;
	bool zstd;
	int result; /* bytes of output, or -errno */
};

static void inflate_run(void *arg)
{
	struct comp_job *j = arg;
	z_stream z = { .next_in = (uint8_t *)j->in,
		       .avail_in = (uInt)j->in_len,
		       .next_out = j->out,
		       .avail_out = (uInt)j->out_len };
	int r;

	j->result = -EIO;
	if (inflateInit2(&z, -WINDOW_BITS) != Z_OK) {
		j->result = -ENOMEM;
		return;
	}
	/* The sectors behind the data hold anything: the end is when the output is full. */
	r = inflate(&z, Z_FINISH);
	if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out)
		j->result = (int)j->out_len;
	inflateEnd(&z);
}

static void unzstd_run(void *arg)
{
	struct comp_job *j = arg;
	ZSTD_inBuffer in = { j->in, j->in_len, 0 };
	ZSTD_outBuffer out = { j->out, j->out_len, 0 };
	ZSTD_DCtx *d = ZSTD_createDCtx();
	size_t r = 1;

	j->result = -EIO;
	if (!d) {
		j->result = -ENOMEM;
		return;
	}
	/* There may be several frames in it; each turn must make progress. */
	while (out.pos < out.size) {
		size_t in_was = in.pos, out_was = out.pos;

		r = ZSTD_decompressStream(d, &out, &in);
		if (ZSTD_isError(r) || (in.pos == in_was && out.pos == out_was))
			break;
	}
	if (!ZSTD_isError(r) && out.pos == out.size)
		j->result = (int)j->out_len;
	ZSTD_freeDCtx(d);
}

static void uncompress_run(void *arg)
{
	struct comp_job *j = arg;

	if (j->zstd)
		unzstd_run(j);
	else
		inflate_run(j);
}

static void compress_run(void *arg)
{
	struct comp_job *j = arg;
	z_stream z = { .next_in = (uint8_t *)j->in,
		       .avail_in = (uInt)j->in_len,
		       .next_out = j->out,
		       .avail_out = (uInt)j->out_len };

	j->result = -ENOSPC; /* not smaller */
	if (j->zstd) {
		size_t r = ZSTD_compress(j->out, j->out_len, j->in, j->in_len, ZSTD_CLEVEL_DEFAULT);

		if (!ZSTD_isError(r))
			j->result = (int)r;
		return;
	}
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, 9,
			 Z_DEFAULT_STRATEGY) != Z_OK) {
		j->result = -ENOMEM;
		return;
	}
	if (deflate(&z, Z_FINISH) == Z_STREAM_END)
		j->result = (int)(j->out_len - z.avail_out);
	deflateEnd(&z);
}

/* It is the one that is kept. */
static bool compressed_kept(struct qcow2 *s, uint64_t entry, uint64_t in_cluster,
			    const struct iovecs *v)
{
	if (!s->comp_buf || s->comp_key != entry)
		return false;
	iovecs_put(v, 0, s->comp_buf + in_cluster, v->len);
	return true;
}

static int inflate_co(struct qcow2 *s, uint64_t entry, uint64_t in_cluster, const struct iovecs *v)
{
	struct comp_job j = { .out_len = s->cluster_size, .zstd = s->compression_type == 1 };
	uint64_t off, len;
	uint8_t *in, *out;
	int r;

	q2_compressed_range(s, entry, &off, &len);
	in = malloc(len);
	out = malloc(s->cluster_size);
	r = in && out ? 0 : -ENOMEM;
	if (r >= 0)
		r = q2_file_pread_co(s->b->file, off, in, len);
	if (r >= 0) {
		j.in = in;
		j.in_len = len;
		j.out = out;
		task_co_work(uncompress_run, &j);
		r = j.result;
	}
	if (r >= 0) {
		iovecs_put(v, 0, out + in_cluster, v->len);
		free(s->comp_buf);
		s->comp_buf = out;
		s->comp_key = entry;
		out = NULL;
	}
	free(in);
	free(out);
	return r < 0 ? r : 0;
}

int q2_compressed_read_co(struct qcow2 *s, uint64_t entry, uint64_t in_cluster,
			  const struct iovecs *v)
{
	uint64_t off, len;
	struct q2_io io;
	int r = 0;

	if (compressed_kept(s, entry, in_cluster, v))
		return 0;
	/* the bytes stay what they are while this waits, whatever happens to the entry */
	q2_compressed_range(s, entry, &off, &len);
	q2_io_begin(s, &io, off, len);
	while (s->inflating >= INFLATE_MAX)
		task_co_queue(&s->inflate_wait);
	if (!compressed_kept(s, entry, in_cluster, v)) {
		if (++s->inflating < INFLATE_MAX)
			task_queue_wake(&s->inflate_wait);
		r = inflate_co(s, entry, in_cluster, v);
		s->inflating--;
	}
	q2_io_end(&io);
	task_queue_wake(&s->inflate_wait);
	return r;
}

/* Bytes are written: let the entry point to them. The cluster is locked. */
static int compressed_link_co(struct qcow2 *s, uint64_t guest, uint64_t off, uint32_t len)
{
	unsigned x = 62 - (s->cluster_bits - 8);
	uint64_t sectors = ((off + len - 1) >> 9) - (off >> 9), old;
	struct q2_slice *sl = NULL;
	uint8_t *e = NULL;
	int r = q2_l2_prepare_co(s, guest);

	if (r >= 0)
		r = q2_l2_slice_co(s, guest, &sl, &e);
	if (r < 0)
		return r;
	old = q2_get64(e);
	q2_put64(e, ENTRY_COMPRESSED | sectors << x | off);
	if (q2_extended(s))
		q2_put64(e + 8, 0);
	q2_l2_entry_free(s, old);
	q2_cache_dirty(&s->l2c, sl);
	s->barrier = true;
	s->comp_key = 0;
	return 0;
}

static int write_compressed_co(struct qcow2 *s, uint64_t guest, const uint8_t *buf, uint32_t len)
{
	uint64_t limit = MIN(1ull << 56, BIT(62 - (s->cluster_bits - 8))), off;
	struct q2_lock lock;
	int r;

	r = q2_alloc_bytes_co(s, len, &off);
	if (r < 0)
		return r;
	if (off + len > limit)
		return -EFBIG; /* leaked; an image of this size is beyond use anyway */
	r = q2_file_pwrite_co(s, off, buf, len, META_NONE);
	if (r < 0)
		return r;
	q2_lock_co(s, &lock, guest, guest + s->cluster_size);
	r = compressed_link_co(s, guest, off, len);
	q2_unlock(s, &lock);
	return r;
}

int qcow2_co_write_compressed(struct block *b, uint64_t off, const void *buf, uint32_t len)
{
	struct qcow2 *s = q2_of(b);
	struct comp_job j = { .zstd = s->compression_type == 1 };
	uint8_t *in, *out;
	int r;

	if (q2_external(s))
		return -ENOTSUP;
	if (q2_in_cluster(s, off) || len > s->cluster_size || off > b->len || len > b->len - off ||
	    (len < s->cluster_size && off + len != b->len))
		return -EINVAL;
	r = q2_before_write_co(s);
	if (r < 0)
		return r;
	in = calloc(1, s->cluster_size);
	out = malloc(s->cluster_size);
	if (!in || !out) {
		free(in);
		free(out);
		return -ENOMEM;
	}
	memcpy(in, buf, len);
	j.in = in;
	j.in_len = s->cluster_size;
	j.out = out;
	j.out_len = s->cluster_size - 1;
	task_co_work(compress_run, &j);
	if (j.result == -ENOSPC)
		r = block_co_pwrite(b, off, buf, len, 0);
	else if (j.result < 0)
		r = j.result;
	else
		r = write_compressed_co(s, off, out, (uint32_t)j.result);
	free(in);
	free(out);
	return r;
}
