/* See tick.h. */
#include "backend/char/tick.h"

#include <stdint.h>
#include <sys/timerfd.h>
#include <unistd.h>

static void tick_ready(void *opaque, unsigned ready)
{
	struct tick *t = opaque;
	uint64_t n;

	if (read(t->fd.fd, &n, sizeof(n)) != sizeof(n) || !t->armed)
		return;
	t->armed = false;
	t->fn(t->opaque);
}

void tick_init(struct tick *t, struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct tick){ .loop = l, .fn = fn, .opaque = opaque };
	t->fd = (struct loop_fd){ .fn = tick_ready, .opaque = t, .fd = -1, .slot = -1 };
}

void tick_arm(struct tick *t, unsigned ms)
{
	struct itimerspec at = { .it_value = { ms / 1000, (long)(ms % 1000) * 1000000 + 1 } };

	if (t->fd.fd < 0) {
		t->fd.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (t->fd.fd < 0)
			return; /* out of descriptors: a retry less */
		if (loop_fd_add(t->loop, &t->fd, LOOP_IN, NULL)) {
			close(t->fd.fd);
			t->fd.fd = -1;
			return;
		}
	}
	timerfd_settime(t->fd.fd, 0, &at, NULL);
	t->armed = true;
}

void tick_stop(struct tick *t)
{
	if (t->armed)
		timerfd_settime(t->fd.fd, 0, &(struct itimerspec){ 0 }, NULL);
	t->armed = false;
}

void tick_free(struct tick *t)
{
	if (t->fd.fd < 0)
		return;
	loop_fd_del(t->loop, &t->fd);
	close(t->fd.fd);
	t->fd.fd = -1;
	t->armed = false;
}
