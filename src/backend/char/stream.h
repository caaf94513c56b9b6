/*
 * A non-blocking file descriptor with bytes both ways, driven by the event loop: sockets, the
 * master side of a pty, real serial lines, FIFOs. Embedded in the chardev whose it is.
 *
 * Output that the kernel does not take at once waits in a bounded queue; short writes are held
 * back for one turn of the loop, so that a UART's single bytes leave together. Input is read as
 * the frontend has room. A peer that hung up while the frontend has no room is kept until what it
 * sent last has been read.
 * Threads: under the device lock, or in the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/char/chardev.h"

struct stream;

struct stream_ops {
	/* End of file or an error: nothing comes any more. Calls stream_close sooner or later. */
	void (*gone)(struct stream *s);
	/* The peer hung up, but input is left that the frontend has no room for. May be NULL. */
	void (*hung_up)(struct stream *s);
	/*
	 * A socket has sent buf: how much of it, at least a byte, to read now; the rest comes the
	 * next time. NULL: all.
	 */
	size_t (*ahead)(struct stream *s, const uint8_t *buf, size_t n);
	/* Change input in place before the frontend gets it; bytes left. NULL: as it is. */
	size_t (*filter)(struct stream *s, uint8_t *buf, size_t n);
};

struct stream {
	struct chardev *c;
	const struct stream_ops *ops;
	struct loop_fd fd; /* fd.fd -1: closed, output is dropped */
	int out_fd;        /* where output goes; fd.fd, or another one (never watched for input) */
	struct loop_fd out_watch; /* for the latter */
	struct bh push_bh;
	uint8_t *ring;
	size_t cap, head, n; /* cap: 0 or a power of two */
	bool blocked;        /* the kernel took less than it was given: wait for LOOP_OUT */
	bool full;           /* the frontend was told "no room" */
	bool hup;            /* the peer hung up, its last words are not read yet */
	bool dropped;        /* complained once */
};

/* Closed. Before chardev_init or after. */
void stream_init(struct stream *s, struct chardev *c, const struct stream_ops *ops);

/*
 * Take fd (closed by stream_close) and watch it. It is made non-blocking. out_fd: -1 when fd is
 * written to as well, else taken, too. On failure nothing is taken.
 */
int stream_open(struct stream *s, int fd, int out_fd, struct err *e) must_check;

/* Stop watching, close, forget queued output. Harmless when closed. */
void stream_close(struct stream *s);

bool stream_is_open(const struct stream *s);

/* Queue len bytes; force: up to CHARDEV_HARD_MAX. Bytes taken; all when closed. */
size_t stream_write(struct stream *s, const uint8_t *buf, size_t len, bool force);

/* Room in the queue within the bound for plain or forced writes. */
size_t stream_room(const struct stream *s, bool force);

/* Forget what is queued. */
void stream_drop(struct stream *s);

/* Look at the frontend's room again. */
void stream_update(struct stream *s);

/* Wait until all is written, or nothing has moved for two seconds, or the peer is too slow. */
void stream_flush(struct stream *s);
