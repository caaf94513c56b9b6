/*
 * Host I/O by io_uring: one ring for each context, entered once for each round of its loop.
 * Threads: the context's loop.
 */
#pragma once
#include "backend/block/priv.h"

/* NULL with e when the host refuses (an old kernel, a seccomp filter, kernel.io_uring_disabled). */
struct uring *uring_new(struct loop *l, struct err *e);

/* Nothing may be in flight. NULL is allowed. */
void uring_free(struct uring *u);

/* As host_co_io. A task function. */
int64_t uring_co_io(struct uring *u, enum host_op op, int fd, uint64_t off, const struct iovec *iov,
		    unsigned n);

/* Submit and serve what is ready, without waiting; an fd that is readable when more is ready. */
int uring_poll(struct uring *u);
