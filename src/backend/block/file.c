/*
 * Driver "file": a regular file or block device of the host.
 *
 * Modelled: reads that reach behind the end give zeroes there; writes make a regular file longer;
 * holes are made and found; O_DIRECT with the alignment that the host tells, scattered requests
 * gathered where that helps (gather.h); a flush only goes to the host if something was written
 * since the last one. Not modelled: character devices, FIFOs,
 * sockets, tapes (refused).
 * References: open(2), fallocate(2), lseek(2), statx(2), <linux/fs.h> for the ioctls of block
 * devices. Threads: the context's loop. Host resources: one fd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/file.h"
#include "backend/block/gather.h"
#include "backend/block/priv.h"
#include "base/bits.h"

struct file {
	int fd;
	bool is_blk, no_punch, no_zero_range, no_seek;
	/*
	 * A flush through the page cache failed: the host has forgotten which pages it could not
	 * write, and the next flush would succeed without them. So none succeeds any more.
	 */
	bool lost;
	uint64_t written, flushed; /* counts of writes: all, and those known to be stable */
	struct gather *gather;     /* NULL: scattered requests go to the host as they are */
	dev_t dev, rdev;
	ino_t ino;
};

extern const struct block_driver block_file;

static struct file *file_of(const struct block *b)
{
	return b->priv;
}

int block_file_fd(const struct block *b)
{
	return b->drv == &block_file ? file_of(b)->fd : -1;
}

bool block_file_is(const struct block *b, const char *path)
{
	const struct file *f = file_of(b);
	struct stat st;

	if (b->drv != &block_file || stat(path, &st))
		return false;
	if (f->is_blk)
		return S_ISBLK(st.st_mode) && st.st_rdev == f->rdev;
	return st.st_dev == f->dev && st.st_ino == f->ino;
}

/* ---- Opening ------------------------------------------------------------------------------- */

static const char *file_kind(mode_t m)
{
	return S_ISDIR(m)    ? "a directory"
	       : S_ISCHR(m)  ? "a character device"
	       : S_ISFIFO(m) ? "a FIFO"
	       : S_ISSOCK(m) ? "a socket"
			     : "no regular file";
}

static int file_open_error(const char *path, const struct block_opts *o, int code, struct err *e)
{
	if (code == EINVAL && o->cache_direct)
		return err_set(e, EINVAL,
			       "%s: the host's file system cannot do O_DIRECT; use "
			       "cache=writeback",
			       path);
	if ((code == EACCES || code == EPERM || code == EROFS) && o->writable &&
	    access(path, R_OK) == 0)
		return err_set(e, code, "%s: may be read but not written (%s); use readonly=on",
			       path, strerror(code));
	return err_set(e, code, "%s: %s", path, strerror(code));
}

static int file_open_fd(const char *path, const struct block_opts *o, int extra, struct err *e)
{
	int flags = O_CLOEXEC | O_NOCTTY | (o->writable ? O_RDWR : O_RDONLY) |
		    (o->cache_direct ? O_DIRECT : 0) | extra;
	struct stat st;
	int fd;

	/* before opening: opening a FIFO or a tape has effects */
	if (stat(path, &st)) {
		if (errno != ENOENT || !(extra & O_CREAT))
			return file_open_error(path, o, errno, e);
	} else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return err_set(e, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			       "%s is %s, a regular file or block device is needed", path,
			       file_kind(st.st_mode));
	}
	fd = open(path, flags, 0644);
	return fd < 0 ? file_open_error(path, o, errno, e) : fd;
}

static int file_limits(struct block *b, struct err *e)
{
	struct file *f = file_of(b);
	const char *path = b->opts.filename;
	struct stat st;
	uint64_t len;
	int size = 0;

	if (fstat(f->fd, &st))
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	f->dev = st.st_dev;
	f->rdev = st.st_rdev;
	f->ino = st.st_ino;
	f->is_blk = S_ISBLK(st.st_mode);
	b->len = (uint64_t)st.st_size;
	if (f->is_blk) {
		if (ioctl(f->fd, BLKGETSIZE64, &len))
			return err_set(e, errno, "%s: length: %s", path, strerror(errno));
		b->len = len;
	}
	if (!b->opts.cache_direct)
		return 0;
	if (b->opts.gather == BLOCK_GATHER_ON ||
	    (b->opts.gather == BLOCK_GATHER_AUTO && gather_on_virtio(f->fd)))
		f->gather = gather_new();
	if (f->is_blk && ioctl(f->fd, BLKSSZGET, &size) == 0 && size > 0)
		b->request_align = b->memory_align = (uint32_t)size;
	else
		block_file_probe_direct(f->fd, b->len, &b->request_align, &b->memory_align);
	return 0;
}

static int file_open_co(struct block *b, struct err *e)
{
	struct file *f = file_of(b);
	int r;

	f->fd = file_open_fd(b->opts.filename, &b->opts, 0, e);
	if (f->fd < 0)
		return f->fd;
	r = block_file_lock(f->fd, &b->opts, b->opts.filename, e);
	if (r == 0)
		r = file_limits(b, e);
	if (r < 0) {
		gather_free(f->gather);
		close(f->fd);
	}
	return r;
}

/* Without a name from the start, where the file system can; else it loses it at once. */
static int file_temporary_co(struct block *b, struct err *e)
{
	const char *dir = b->opts.filename;
	char *path = NULL;
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR) &&
	    asprintf(&path, "%s/kvasir-XXXXXX", dir) >= 0) {
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
		free(path);
	}
	if (fd < 0)
		return err_set(e, errno, "a temporary file in %s (TMPDIR): %s", dir,
			       strerror(errno));
	file_of(b)->fd = fd;
	return 0;
}

static void file_close_co(struct block *b)
{
	gather_free(file_of(b)->gather);
	close(file_of(b)->fd);
}

int block_co_create_file(struct block_ctx *c, const char *filename, uint64_t len,
			 const struct block_opts *o, struct block **out, struct err *e)
{
	const char *path = block_path_of(filename, e);
	struct block_opts co;
	struct stat st;
	int fd, r;

	*out = NULL;
	if (!path)
		return -ENOTSUP;
	if (block_opts_copy(&co, o))
		return err_set(e, ENOMEM, "block layer: out of memory");
	free(co.filename);
	co.filename = strdup(path);
	co.writable = true;
	fd = co.filename ? file_open_fd(path, &co, O_CREAT, e)
			 : err_set(e, ENOMEM, "block layer: out of memory");
	if (fd >= 0)
		close(fd);
	r = fd < 0 ? fd : block_co_open_node(c, &block_file, &co, NULL, NULL, out, e);
	block_opts_free(&co);
	if (r < 0)
		return r;
	fd = file_of(*out)->fd;
	if (file_of(*out)->is_blk) {
		if ((*out)->len < len)
			r = err_set(e, ENOSPC, "%s has %llu bytes, %llu are needed", path,
				    (unsigned long long)(*out)->len, (unsigned long long)len);
	} else if (fstat(fd, &st) || (st.st_size && ftruncate(fd, 0)) ||
		   ftruncate(fd, (off_t)len)) {
		r = err_set(e, errno, "%s: length: %s", path, strerror(errno));
	} else {
		(*out)->len = len;
	}
	if (r < 0) {
		block_co_close(*out);
		*out = NULL;
	}
	return r;
}

/* ---- Reading and writing ------------------------------------------------------------------- */

/* All of v, in as many operations as the host makes of it. */
static int file_co_rw(struct block *b, enum host_op op, uint64_t off, const struct iovecs *v)
{
	struct file *f = file_of(b);
	struct iovec *rest = NULL;
	struct iovecs cur = *v;
	uint64_t done = 0;
	int64_t r;

	for (;;) {
		r = host_co_io(b->ctx, b->opts.aio, op, f->fd, off + done, cur.iov,
			       MIN(cur.n, HOST_IOV_MAX));
		if (r <= 0)
			break;
		done += (uint64_t)r;
		if (likely(done >= v->len))
			break;
		if (!rest && !(rest = malloc(v->n * sizeof(*rest)))) {
			r = -ENOMEM;
			break;
		}
		cur = iovecs_slice(v, done, v->len - done, rest);
	}
	free(rest);
	if (r < 0)
		return (int)r;
	if (done < v->len) {
		if (op == HOST_WRITE)
			return -ENOSPC;                 /* nothing was taken, without a reason */
		iovecs_fill(v, done, 0, v->len - done); /* the end of the file */
	}
	return 0;
}

static int file_co_rw_gathered(struct block *b, enum host_op op, uint64_t off,
			       const struct iovecs *v)
{
	struct gather *g = file_of(b)->gather;
	void *buf = g && gather_worth(v) ? gather_get(g) : NULL;
	struct iovec one;
	struct iovecs all;
	int r;

	if (!buf)
		return file_co_rw(b, op, off, v);
	all = iovecs_one(&one, buf, v->len);
	if (op == HOST_WRITE)
		iovecs_get(v, 0, buf, v->len);
	r = file_co_rw(b, op, off, &all);
	if (op == HOST_READ && r == 0)
		iovecs_put(v, 0, buf, v->len);
	gather_put(g, buf);
	return r;
}

static int file_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	return file_co_rw_gathered(b, HOST_READ, off, v);
}

static void file_wrote(struct block *b, uint64_t end)
{
	file_of(b)->written++;
	if (!file_of(b)->is_blk && end > b->len)
		b->len = end;
}

static int file_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	int r;

	if (file_of(b)->is_blk && (off > b->len || v->len > b->len - off))
		return -ENOSPC;
	r = file_co_rw_gathered(b, HOST_WRITE, off, v);
	file_wrote(b, r == 0 ? off + v->len : 0); /* a failed one may have written a part */
	return r;
}

static int file_flush_co(struct block *b)
{
	struct file *f = file_of(b);
	uint64_t upto = f->written;
	int64_t r;

	if (b->opts.cache_no_flush || !b->writable)
		return 0;
	if (f->lost)
		return -EIO;
	if (f->flushed >= upto)
		return 0;
	r = host_co_io(b->ctx, b->opts.aio, HOST_FDATASYNC, f->fd, 0, NULL, 0);
	if (r == 0 && f->flushed < upto)
		f->flushed = upto;
	f->lost |= r < 0 && !b->opts.cache_direct;
	return (int)r;
}

/* ---- Holes --------------------------------------------------------------------------------- */

struct file_alloc {
	int fd, mode; /* of fallocate; BLK: an ioctl */
	unsigned long ioctl;
	uint64_t off, len;
	int result;
};

static void file_alloc_run(void *arg)
{
	struct file_alloc *a = arg;
	uint64_t range[2] = { a->off, a->len };
	int r;

	do {
		r = a->ioctl ? ioctl(a->fd, a->ioctl, range)
			     : fallocate(a->fd, a->mode, (off_t)a->off, (off_t)a->len);
	} while (r < 0 && errno == EINTR);
	a->result = r < 0 ? -errno : 0;
}

/* -ENOTSUP however the host says that it cannot. */
static int file_co_alloc(struct block *b, int mode, unsigned long ioctl_nr, uint64_t off,
			 uint64_t len)
{
	struct file_alloc a = {
		.fd = file_of(b)->fd, .mode = mode, .ioctl = ioctl_nr, .off = off, .len = len
	};

	task_co_work(file_alloc_run, &a);
	switch (a.result) {
	case -EOPNOTSUPP:
	case -ENOTTY:
	case -ENOSYS:
	case -EINVAL: return -ENOTSUP;
	default: return a.result;
	}
}

/* A hole, which reads as zeroes; only up to the file's end. */
static int file_co_punch(struct block *b, uint64_t off, uint64_t len)
{
	struct file *f = file_of(b);
	int r = -ENOTSUP;

	if (off >= b->len)
		return 0;
	len = MIN(len, b->len - off);
	if (!f->no_punch)
		r = file_co_alloc(b, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, off, len);
	f->no_punch |= r == -ENOTSUP;
	return r;
}

static int file_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	struct file *f = file_of(b);
	int r = -ENOTSUP;

	if (f->is_blk && (off > b->len || len > b->len - off))
		return -ENOSPC;
	/* a hole cannot make the file longer; the rest can */
	if ((flags & BLOCK_UNMAP) && off + len <= b->len)
		r = file_co_punch(b, off, len);
	if (r == -ENOTSUP && !f->no_zero_range) {
		r = f->is_blk ? file_co_alloc(b, 0, BLKZEROOUT, off, len)
			      : file_co_alloc(b, FALLOC_FL_ZERO_RANGE, 0, off, len);
		f->no_zero_range |= r == -ENOTSUP && !((off | len) % 4096);
	}
	if (r == -ENOTSUP && !f->is_blk && off >= b->len) /* new space is zero */
		r = file_co_alloc(b, 0, 0, off, len);
	if (r != -ENOTSUP)
		file_wrote(b, r == 0 ? off + len : 0);
	return r;
}

static int file_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	int r;

	if (file_of(b)->is_blk)
		r = off < b->len ? file_co_alloc(b, 0, BLKDISCARD, off, MIN(len, b->len - off)) : 0;
	else
		r = file_co_punch(b, off, len);
	file_wrote(b, 0);
	return r;
}

static int file_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	struct file *f = file_of(b);
	off_t data, hole;

	st->flags = BLOCK_DATA | BLOCK_ALLOCATED | BLOCK_OFFSET;
	st->offset = off;
	st->file = b;
	if (off >= b->len) {
		st->flags = BLOCK_ZERO | BLOCK_ALLOCATED;
		return 0;
	}
	st->len = MIN(len, b->len - off);
	if (f->is_blk || f->no_seek)
		return 0;
	data = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (data < 0) {
		if (errno == ENXIO) /* no data up to the end */
			st->flags = BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_OFFSET;
		else
			f->no_seek = true;
		return 0;
	}
	if ((uint64_t)data > off) {
		st->flags = BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_OFFSET;
		st->len = MIN(st->len, (uint64_t)data - off);
		return 0;
	}
	hole = lseek(f->fd, (off_t)off, SEEK_HOLE);
	if (hole > (off_t)off)
		st->len = MIN(st->len, (uint64_t)hole - off);
	return 0;
}

struct file_length {
	int fd, result;
	uint64_t len;
};

static void file_length_run(void *arg)
{
	struct file_length *a = arg;

	a->result = ftruncate(a->fd, (off_t)a->len) ? -errno : 0;
}

static int file_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	struct file_length a = { .fd = file_of(b)->fd, .len = len };

	if (file_of(b)->is_blk)
		return len <= b->len ? 0
				     : err_set(e, ENOSPC, "%s: a block device does not grow",
					       b->opts.filename);
	task_co_work(file_length_run, &a);
	if (a.result < 0)
		return err_set(e, -a.result, "%s: length: %s", b->opts.filename,
			       strerror(-a.result));
	b->len = len;
	file_of(b)->written++;
	return 0;
}

/* clang-format off */
#define FILE_OPS \
	.is_protocol = true, .priv_size = sizeof(struct file), .close_co = file_close_co, \
	.read_co = file_read_co, .write_co = file_write_co, .zero_co = file_zero_co, \
	.discard_co = file_discard_co, .flush_co = file_flush_co, .status_co = file_status_co, \
	.truncate_co = file_truncate_co
/* clang-format on */

/* Its own driver, for what opens differently; the rest is a file's. */
static const struct block_driver block_temporary = {
	.name = "temporary",
	.open_co = file_temporary_co,
	FILE_OPS,
};

int block_co_open_temporary(struct block_ctx *c, const struct block_opts *o, struct block **out,
			    struct err *e)
{
	return block_co_open_node(c, &block_temporary, o, NULL, NULL, out, e);
}

const struct block_driver block_file = {
	.name = "file",
	.open_co = file_open_co,
	FILE_OPS,
};
