/* See rng.h. References: getrandom(2), random(4). */
#include "backend/rng/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct rng {
	char *id;
	int fd; /* -1: getrandom */
};

struct rng *rng_builtin_new(const char *id)
{
	struct rng *r = calloc(1, sizeof(*r));

	if (r)
		r->id = strdup(id);
	if (!r || !r->id) {
		free(r);
		return NULL;
	}
	r->fd = -1;
	return r;
}

struct rng *rng_random_new(const char *id, const char *filename, struct err *e)
{
	struct rng *r = rng_builtin_new(id);

	if (!r) {
		err_set(e, ENOMEM, "rng-random: out of memory");
		return NULL;
	}
	filename = filename ? filename : "/dev/urandom";
	r->fd = open(filename, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (r->fd < 0) {
		err_set(e, errno, "rng-random %s: %s", filename, strerror(errno));
		rng_free(r);
		return NULL;
	}
	return r;
}

void rng_free(struct rng *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->id);
	free(r);
}

const char *rng_id(const struct rng *r)
{
	return r->id;
}

long rng_get(struct rng *r, void *buf, size_t len)
{
	ssize_t n = r->fd < 0 ? getrandom(buf, len, GRND_NONBLOCK) : read(r->fd, buf, len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == 0 && len)
		return -ENODATA; /* a file that has an end */
	return n < 0 ? -errno : n;
}

int rng_fd(const struct rng *r)
{
	return r->fd;
}
