/* Vectors of bytes; see block.h. */
#include <string.h>

#include "backend/block/block.h"
#include "base/bits.h"
#include "base/bug.h"

struct iovecs iovecs_of(const struct iovec *iov, unsigned n)
{
	struct iovecs v = { .iov = iov, .n = n };

	for (unsigned i = 0; i < n; i++)
		v.len += iov[i].iov_len;
	return v;
}

struct iovecs iovecs_one(struct iovec *iov, void *buf, size_t len)
{
	*iov = (struct iovec){ .iov_base = buf, .iov_len = len };
	return (struct iovecs){ .iov = iov, .n = 1, .len = len };
}

/* A walk over the pieces of [off, off + len) of v. */
struct iovecs_walk {
	const struct iovecs *v;
	unsigned i;
	uint64_t skip, left;
};

static struct iovecs_walk iovecs_walk(const struct iovecs *v, uint64_t off, uint64_t len)
{
	struct iovecs_walk w = { .v = v, .skip = off, .left = len };

	BUG_ON(off > v->len || len > v->len - off);
	while (w.i < v->n && w.skip >= v->iov[w.i].iov_len)
		w.skip -= v->iov[w.i++].iov_len;
	return w;
}

/* The next piece; its length, 0 at the end. */
static size_t iovecs_next(struct iovecs_walk *w, uint8_t **p)
{
	while (w->left) {
		const struct iovec *o = &w->v->iov[w->i++];
		size_t n = MIN(o->iov_len - w->skip, w->left);

		if (!n) /* its base may be NULL */
			continue;
		*p = (uint8_t *)o->iov_base + w->skip;
		w->skip = 0;
		w->left -= n;
		return n;
	}
	return 0;
}

struct iovecs iovecs_slice(const struct iovecs *v, uint64_t off, uint64_t len, struct iovec *out)
{
	struct iovecs_walk w = iovecs_walk(v, off, len);
	struct iovecs r = { .iov = out, .len = len };
	uint8_t *p;
	size_t n;

	while ((n = iovecs_next(&w, &p)))
		out[r.n++] = (struct iovec){ .iov_base = p, .iov_len = n };
	return r;
}

void iovecs_get(const struct iovecs *v, uint64_t off, void *buf, size_t len)
{
	struct iovecs_walk w = iovecs_walk(v, off, len);
	uint8_t *p, *to = buf;
	size_t n;

	while ((n = iovecs_next(&w, &p))) {
		memcpy(to, p, n);
		to += n;
	}
}

void iovecs_put(const struct iovecs *v, uint64_t off, const void *buf, size_t len)
{
	struct iovecs_walk w = iovecs_walk(v, off, len);
	const uint8_t *from = buf;
	uint8_t *p;
	size_t n;

	while ((n = iovecs_next(&w, &p))) {
		memcpy(p, from, n);
		from += n;
	}
}

void iovecs_fill(const struct iovecs *v, uint64_t off, uint8_t byte, uint64_t len)
{
	struct iovecs_walk w = iovecs_walk(v, off, len);
	uint8_t *p;
	size_t n;

	while ((n = iovecs_next(&w, &p)))
		memset(p, byte, n);
}

/* Most data differs from zero within a few bytes; the rest is a comparison with itself, shifted. */
static bool bytes_all_zero(const uint8_t *p, size_t n)
{
	size_t head = MIN(n, 16);

	for (size_t i = 0; i < head; i++)
		if (p[i])
			return false;
	return n <= 16 || !memcmp(p, p + 16, n - 16);
}

bool iovecs_all_zero(const struct iovecs *v)
{
	for (unsigned i = 0; i < v->n; i++)
		if (v->iov[i].iov_len && !bytes_all_zero(v->iov[i].iov_base, v->iov[i].iov_len))
			return false;
	return true;
}
