/*
 * The output side of fd chardevs: a bounded queue and a thread that writes it out.
 *
 * A thread rather than O_NONBLOCK, because that flag belongs to the open file, which we share
 * with the shell and every other process on the terminal, and because a blocking write to a tty,
 * a pipe, a file or a socket is the one thing that works for all of them. A thread that is stuck
 * in write() on a stopped terminal stops nobody else; its queue fills, and frontends see no room.
 * Threads: writer_put any thread; new, flush and free one thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct writer;

/*
 * Open a file for one: made if it is not there, emptied unless append. A FIFO must have a reader
 * already: open(2) would wait for it, and signals would not end that. The fd, or -errno.
 */
int writer_open(const char *path, bool append, struct err *e) must_check;

/*
 * room(opaque) is called on the writer's thread when a queue that was found full has space again;
 * NULL: nobody wants to know. fd is duplicated.
 */
struct writer *writer_new(int fd, size_t bound, size_t hard, void (*room)(void *opaque),
			  void *opaque, struct err *e);

/*
 * Queue up to len bytes; force ignores the bound, not hard. Bytes taken. After an error: all. What
 * a full disk does not take is lost, and a warning says so once.
 */
size_t writer_put(struct writer *w, const uint8_t *buf, size_t len, bool force);

/* Wait until all is written, or nothing has moved for two seconds. */
void writer_flush(struct writer *w);

/* Flush; then end the thread. NULL is allowed. One stuck in write() is left behind, with its copy
 * of the fd. */
void writer_free(struct writer *w);
