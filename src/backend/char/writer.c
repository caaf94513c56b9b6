/*
 * See writer.h. The queue is a ring that grows; the thread takes out what is there in one write.
 * The struct has two owners, the chardev and the thread, because the thread may be stuck for ever.
 */
#include "backend/char/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "core/thread.h"

#define WRITER_CHUNK 4096
#define WRITER_FEW   256    /* bytes: so few wait for company, ... */
#define WRITER_PAUSE 300000 /* ... this many ns: a UART gives them one by one */
#define WRITER_WAIT  2      /* seconds without progress */

struct writer {
	int fd;
	size_t bound, hard;
	void (*room)(void *opaque);
	void *opaque;
	pthread_t thread;

	pthread_mutex_t mutex; /* covers all below */
	pthread_cond_t more;   /* for the thread: bytes, or the end */
	pthread_cond_t moved;  /* for flush: progress, or the thread's end */
	uint8_t *ring;
	size_t cap, head, n; /* cap is a power of two */
	size_t out;          /* bytes in the thread's hands */
	uint64_t written;    /* ever; to see progress */
	bool full;           /* somebody was told "no room" */
	bool stop, gone, abandoned;
	int error; /* the fd is broken: output is dropped from now on */
	bool dropped;
	bool failed; /* said so */
};

static void writer_destroy(struct writer *w)
{
	close(w->fd);
	pthread_cond_destroy(&w->more);
	pthread_cond_destroy(&w->moved);
	pthread_mutex_destroy(&w->mutex);
	free(w->ring);
	free(w);
}

/* Copy out up to cap bytes. With the mutex. */
static size_t writer_take(struct writer *w, uint8_t *buf, size_t cap)
{
	size_t n = MIN(w->n, cap), first = MIN(n, w->cap - w->head);

	memcpy(buf, w->ring + w->head, first);
	memcpy(buf + first, w->ring, n - first);
	w->head = (w->head + n) & (w->cap - 1);
	w->n -= n;
	return n;
}

/* The piece at hand is lost. A full disk may have room again: what comes later is tried. */
static void writer_failed(struct writer *w, int code)
{
	bool full = code == ENOSPC || code == EDQUOT || code == EFBIG, tell;
	char link[32], path[256];
	ssize_t n;

	pthread_mutex_lock(&w->mutex);
	w->error = full ? 0 : code;
	tell = !w->failed && code != EPIPE; /* a reader that left: it need not be told */
	w->failed |= tell;
	pthread_mutex_unlock(&w->mutex);
	if (!tell)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", w->fd);
	n = readlink(link, path, sizeof(path));
	log_warn("output to %.*s: %s; %s", n > 0 ? (int)n : 6, n > 0 ? path : "a file",
		 strerror(code), full ? "what does not fit is lost" : "nothing more is written");
}

static void writer_out(struct writer *w, const uint8_t *buf, size_t n)
{
	while (n) {
		ssize_t r = write(w->fd, buf, n);

		if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			/* somebody else made the open file non-blocking: be patient in its place */
			nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
			continue;
		}
		if (r < 0 && errno != EINTR) {
			writer_failed(w, errno);
			return;
		}
		if (r <= 0)
			continue;
		buf += r;
		n -= (size_t)r;
		pthread_mutex_lock(&w->mutex);
		w->written += (uint64_t)r;
		w->out = n;
		pthread_cond_broadcast(&w->moved);
		pthread_mutex_unlock(&w->mutex);
	}
}

static void *writer_thread(void *opaque)
{
	struct writer *w = opaque;
	uint8_t buf[WRITER_CHUNK];
	bool abandoned;

	pthread_mutex_lock(&w->mutex);
	for (;;) {
		while (!w->n && !w->stop)
			pthread_cond_wait(&w->more, &w->mutex);
		if (!w->n || w->abandoned)
			break;
		if (w->n < WRITER_FEW && !w->stop) {
			pthread_mutex_unlock(&w->mutex);
			nanosleep(&(struct timespec){ .tv_nsec = WRITER_PAUSE }, NULL);
			pthread_mutex_lock(&w->mutex);
		}
		w->out = writer_take(w, buf, sizeof(buf));
		if (!w->error) {
			size_t n = w->out;

			pthread_mutex_unlock(&w->mutex);
			writer_out(w, buf, n);
			pthread_mutex_lock(&w->mutex);
		}
		w->out = 0;
		if (w->full && w->n <= w->bound / 2 && !w->abandoned) {
			w->full = false;
			if (w->room)
				w->room(w->opaque);
		}
		pthread_cond_broadcast(&w->moved);
	}
	w->gone = true;
	abandoned = w->abandoned;
	pthread_cond_broadcast(&w->moved);
	pthread_mutex_unlock(&w->mutex);
	if (abandoned)
		writer_destroy(w);
	return NULL;
}

int writer_open(const char *path, bool append, struct err *e)
{
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
			      (append ? O_APPEND : O_TRUNC),
		      0666);
	int code = errno;
	struct stat st;

	if (fd < 0 && code == ENXIO && !stat(path, &st) && S_ISFIFO(st.st_mode))
		return err_set(e, ENXIO,
			       "%s: nobody reads this FIFO yet; the chardev pipe waits for a "
			       "reader while the machine runs",
			       path);
	if (fd < 0 && code == ENXIO && !stat(path, &st) && S_ISSOCK(st.st_mode))
		return err_set(e, ENXIO, "%s is a socket: the chardev socket connects to it", path);
	if (fd < 0)
		return err_set(e, code, "%s: %s", path, strerror(code));
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

struct writer *writer_new(int fd, size_t bound, size_t hard, void (*room)(void *opaque),
			  void *opaque, struct err *e)
{
	struct writer *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;
	int rc = ENOMEM;

	if (!w || !(w->ring = malloc(WRITER_CHUNK)))
		goto fail;
	w->cap = WRITER_CHUNK;
	w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (w->fd < 0) {
		rc = errno;
		goto fail;
	}
	w->bound = bound;
	w->hard = hard;
	w->room = room;
	w->opaque = opaque;
	pthread_mutex_init(&w->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->more, &attr);
	pthread_cond_init(&w->moved, &attr);
	pthread_condattr_destroy(&attr);
	rc = thread_start(&w->thread, writer_thread,
			  w); /* without SIGPIPE, so that EPIPE is seen */
	if (!rc)
		return w;
	close(w->fd);
fail:
	err_set(e, rc, "output: %s", strerror(rc));
	if (w)
		free(w->ring);
	free(w);
	return NULL;
}

/* With the mutex: make room for n more bytes. */
static bool writer_grow(struct writer *w, size_t n)
{
	size_t cap = w->cap, had = w->n;
	uint8_t *ring;

	while (cap < w->n + n)
		cap *= 2;
	if (cap == w->cap)
		return true;
	ring = malloc(cap);
	if (!ring)
		return false;
	writer_take(w, ring, had);
	free(w->ring);
	w->ring = ring;
	w->cap = cap;
	w->head = 0;
	w->n = had;
	return true;
}

size_t writer_put(struct writer *w, const uint8_t *buf, size_t len, bool force)
{
	size_t limit = force ? w->hard : w->bound, n, first, tail;
	bool complain;

	pthread_mutex_lock(&w->mutex);
	n = w->n >= limit ? 0 : MIN(len, limit - w->n);
	if (w->error) {
		n = 0; /* nobody reads it any more: the guest must not stop for that */
	} else if (n && !writer_grow(w, n)) {
		n = MIN(n, w->cap - w->n);
	}
	tail = (w->head + w->n) & (w->cap - 1);
	first = MIN(n, w->cap - tail);
	memcpy(w->ring + tail, buf, first);
	memcpy(w->ring, buf + first, n - first);
	if (n && !w->n)
		pthread_cond_signal(&w->more);
	w->n += n;
	if (w->error)
		n = len;
	if (n < len && !force)
		w->full = true;
	complain = n < len && force && !w->dropped;
	w->dropped |= complain;
	pthread_mutex_unlock(&w->mutex);
	if (complain)
		log_warn("console output is stuck, %zu MiB are queued; dropping the rest",
			 w->hard >> 20);
	return n;
}

/* With the mutex. False: nothing moved for WRITER_WAIT seconds. */
static bool writer_wait(struct writer *w, bool for_end)
{
	while (for_end ? !w->gone : (w->n || w->out) && !w->error) {
		uint64_t was = w->written;
		struct timespec t;

		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_sec += WRITER_WAIT;
		if (pthread_cond_timedwait(&w->moved, &w->mutex, &t) == ETIMEDOUT &&
		    w->written == was)
			return false;
	}
	return true;
}

void writer_flush(struct writer *w)
{
	pthread_mutex_lock(&w->mutex);
	writer_wait(w, false);
	pthread_mutex_unlock(&w->mutex);
}

void writer_free(struct writer *w)
{
	pthread_t thread;
	bool gone;

	if (!w)
		return;
	thread = w->thread;
	pthread_mutex_lock(&w->mutex);
	gone = writer_wait(w, false);
	w->stop = true;
	pthread_cond_signal(&w->more);
	gone = gone && writer_wait(w, true);
	w->abandoned = !gone;
	pthread_mutex_unlock(&w->mutex);
	if (gone) {
		pthread_join(thread, NULL);
		writer_destroy(w);
	} else {
		pthread_detach(thread);
	}
}
