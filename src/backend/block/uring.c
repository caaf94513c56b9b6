/*
 * See uring.h.
 *
 * Theory of operation: a task fills an entry and waits. At the end of the loop's round a hook
 * submits all entries with one system call and takes what has completed already (reads from the
 * page cache complete inside of that call); tasks that this wakes may add entries, so it repeats.
 * Later completions make the ring's fd readable. When entries or places for completions run out,
 * tasks wait in a queue.
 * References: io_uring(7), io_uring_setup(2), io_uring_enter(2).
 * Host resources: the ring. It counts against RLIMIT_MEMLOCK on old kernels: then it is refused.
 */
#include "backend/block/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"

#define URING_ENTRIES   256u         /* and twice as many completions */
#define URING_ROUNDS    16           /* submissions in a row before other handlers get their turn */
#define URING_LONG_COPY (128u << 10) /* bytes */

struct uring {
	struct io_uring ring;
	struct loop *loop;
	struct loop_fd fd;
	struct loop_hook hook;
	unsigned queued, in_flight; /* not yet submitted; all that have not completed */
	struct task_queue full;
};

struct uring_op {
	struct task *task;
	int64_t result;
	bool done;
};

/* Wake the tasks of all completions. */
static unsigned uring_reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned n = 0;

	while (!io_uring_peek_cqe(&u->ring, &cqe)) {
		struct uring_op *op = io_uring_cqe_get_data(cqe);

		op->result = cqe->res;
		op->done = true;
		io_uring_cqe_seen(&u->ring, cqe); /* before the task runs: it may add entries */
		u->in_flight--;
		n++;
		task_wake(op->task);
		if (u->full.first)
			task_queue_wake(&u->full);
	}
	return n;
}

static void uring_submit(struct uring *u)
{
	while (u->queued) {
		int r = io_uring_submit(&u->ring);

		if (r > 0)
			u->queued -= (unsigned)r;
		else if (r != -EINTR)
			break; /* -EAGAIN, -EBUSY: the kernel wants us to reap; the next round */
	}
}

static bool uring_round(void *opaque)
{
	struct uring *u = opaque;
	unsigned n = u->queued;

	for (int i = 0; i < URING_ROUNDS && u->queued; i++) {
		uring_submit(u);
		uring_reap(u);
	}
	uring_submit(u);
	if (u->queued)
		loop_notify(u->loop); /* not all was taken: do not wait for something else */
	return n;
}

int uring_poll(struct uring *u)
{
	uring_round(u);
	uring_reap(u);
	return u->ring.ring_fd;
}

static void uring_ready(void *opaque, unsigned ready)
{
	uring_reap(opaque);
}

struct uring *uring_new(struct loop *l, struct err *e)
{
	struct uring *u = calloc(1, sizeof(*u));
	int r = -ENOMEM;

	if (u) {
		u->loop = l;
		r = io_uring_queue_init(URING_ENTRIES, &u->ring, 0);
	}
	if (r < 0) {
		err_set(e, -r, "io_uring: the host refuses it (%s); aio=threads does without",
			strerror(-r));
		free(u);
		return NULL;
	}
	io_uring_ring_dontfork(&u->ring);
	u->fd = (struct loop_fd){ .fn = uring_ready, .opaque = u, .fd = u->ring.ring_fd };
	if (loop_fd_add(l, &u->fd, LOOP_IN, e)) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return NULL;
	}
	u->hook = (struct loop_hook){ .fn = uring_round, .opaque = u };
	loop_hook_add(l, &u->hook);
	return u;
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	BUG_ON(u->in_flight);
	loop_hook_del(u->loop, &u->hook);
	loop_fd_del(u->loop, &u->fd);
	io_uring_queue_exit(&u->ring);
	free(u);
}

/*
 * Bytes of the page cache are copied inside of io_uring_enter, on the loop's thread: for a large
 * request that holds up the loop, and all requests behind it. Such a copy is a kernel worker's. The
 * question costs little next to the copy.
 */
static bool uring_is_long_copy(int fd, const struct iovec *iov, unsigned n)
{
	size_t len = 0;
	int flags;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (len < URING_LONG_COPY)
		return false;
	flags = fcntl(fd, F_GETFL);
	return flags >= 0 && !(flags & O_DIRECT);
}

int64_t uring_co_io(struct uring *u, enum host_op kind, int fd, uint64_t off,
		    const struct iovec *iov, unsigned n)
{
	struct uring_op op = { .task = task_self() };
	bool async = kind != HOST_FDATASYNC && uring_is_long_copy(fd, iov, n);
	struct io_uring_sqe *sqe;

	do {
		op.done = false;
		while (u->in_flight >= 2 * URING_ENTRIES || !(sqe = io_uring_get_sqe(&u->ring))) {
			uring_submit(u);
			if (u->in_flight < 2 * URING_ENTRIES && io_uring_sq_space_left(&u->ring))
				continue;
			task_co_queue(&u->full);
		}
		switch (kind) {
		case HOST_READ: io_uring_prep_readv(sqe, fd, iov, n, off); break;
		case HOST_WRITE: io_uring_prep_writev(sqe, fd, iov, n, off); break;
		case HOST_FDATASYNC: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
		}
		io_uring_sqe_set_data(sqe, &op);
		if (async)
			sqe->flags |= IOSQE_ASYNC;
		u->in_flight++;
		if (!u->queued++)
			loop_notify_others(u->loop);
		while (!op.done)
			task_co_wait();
	} while (op.result == -EINTR || op.result == -EAGAIN);
	return op.result;
}
