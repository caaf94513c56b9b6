/*
 * Host I/O for tasks: one operation on a file, by a worker thread or io_uring; see priv.h.
 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/block/priv.h"
#include "backend/block/uring.h"
#include "base/bits.h"

struct host_io {
	enum host_op op;
	int fd;
	uint64_t off;
	const struct iovec *iov;
	unsigned n;
	int64_t result;
};

static void host_io_run(void *arg)
{
	struct host_io *io = arg;
	ssize_t r = -1;

	do {
		switch (io->op) {
		case HOST_READ: r = preadv(io->fd, io->iov, (int)io->n, (off_t)io->off); break;
		case HOST_WRITE: r = pwritev(io->fd, io->iov, (int)io->n, (off_t)io->off); break;
		case HOST_FDATASYNC: r = fdatasync(io->fd); break;
		}
	} while (r < 0 && errno == EINTR);
	io->result = r < 0 ? -errno : r;
}

int64_t host_co_io(struct block_ctx *c, enum block_aio aio, enum host_op op, int fd, uint64_t off,
		   const struct iovec *iov, unsigned n)
{
	struct host_io io = { .op = op, .fd = fd, .off = off, .iov = iov, .n = n };

	if (c->uring && (aio == BLOCK_AIO_AUTO ? c->aio : aio) == BLOCK_AIO_IO_URING)
		return uring_co_io(c->uring, op, fd, off, iov, n);
	task_co_work(host_io_run, &io);
	return io.result;
}
