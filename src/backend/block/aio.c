/*
 * Host I/O for tasks: one operation on a file, by a worker thread or io_uring; see priv.h.
 */
#include <errno.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/block/priv.h"
#include "backend/block/uring.h"
#include "base/bits.h"
#include "base/bug.h"
#include "core/worker.h"

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

void block_ctx_poll(struct block_ctx *c)
{
	struct pollfd p = { .fd = -1, .events = POLLIN };

	/* a worker does not make an fd readable; a millisecond is short for what drains wait for */
	if (c->uring)
		p.fd = uring_poll(c->uring);
	workers_poll(c->workers);
	if (poll(&p, 1, 1) > 0)
		uring_poll(c->uring);
}

struct block_ctx_whole {
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void block_ctx_whole(void *arg)
{
	struct block_ctx_whole *w = arg;

	w->fn(w->arg);
	w->done = true;
}

void block_ctx_run(struct block_ctx *c, void (*fn)(void *arg), void *arg)
{
	struct block_ctx_whole w = { .fn = fn, .arg = arg };

	BUG_ON(task_self());
	BUG_ON(task_start(c->tasks, block_ctx_whole, &w) < 0);
	while (!w.done)
		block_ctx_poll(c);
}
