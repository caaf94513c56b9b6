/* See memfile.h. */
#include "memfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

static struct memfile *mem_opening; /* open_co has no other way to it */

struct mem_node {
	struct memfile *m;
};

uint64_t mem_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull >> 16;
}

static struct memfile *mem_of(struct block *b)
{
	return ((struct mem_node *)b->priv)->m;
}

static void mem_wake(void *arg)
{
	task_wake(arg);
}

static int mem_step(struct block *b)
{
	struct memfile *m = mem_of(b);

	if (m->yield) {
		for (uint64_t n = mem_random(&m->random) % 4; n > 1; n--) {
			loop_call(block_ctx_loop(b->ctx), mem_wake, task_self());
			task_co_wait();
		}
	}
	if (m->fail_in && !--m->fail_in)
		return -EIO;
	return 0;
}

static void mem_aligned(const struct memfile *m, uint64_t v)
{
	if (m->align && v % m->align) {
		fprintf(stderr, "memfile: a request that is not aligned\n");
		abort();
	}
}

static int mem_room(struct memfile *m, uint64_t end)
{
	if (end > (m->max ? m->max : 64u << 20))
		return -ENOSPC;
	if (end > m->room) {
		uint64_t room = MAX(end, MAX(m->room * 2, (uint64_t)65536));
		uint8_t *p = realloc(m->data, room);

		if (!p)
			return -ENOMEM;
		memset(p + m->room, 0, room - m->room);
		m->data = p;
		m->room = room;
	}
	if (end > m->len)
		m->len = end;
	return 0;
}

static struct mem_log *mem_note(struct memfile *m, enum mem_op op, uint64_t off, uint64_t len)
{
	if (!m->logging)
		return NULL;
	if (m->n_log == m->room_log) {
		m->room_log = m->room_log ? m->room_log * 2 : 256;
		m->log = realloc(m->log, m->room_log * sizeof(*m->log));
		if (!m->log)
			abort();
	}
	m->log[m->n_log] = (struct mem_log){ .op = op, .off = off, .len = len };
	return &m->log[m->n_log++];
}

void mem_log_clear(struct memfile *m)
{
	for (size_t i = 0; i < m->n_log; i++)
		free(m->log[i].data);
	m->n_log = 0;
}

void mem_free(struct memfile *m)
{
	mem_log_clear(m);
	free(m->log);
	free(m->data);
	memset(m, 0, sizeof(*m));
}

static int mem_open_co(struct block *b, struct err *e)
{
	((struct mem_node *)b->priv)->m = mem_opening;
	b->len = mem_opening->len;
	b->request_align = MAX(mem_opening->align, 1u);
	return 0;
}

static int mem_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	struct memfile *m = mem_of(b);
	uint64_t n;
	int r = mem_step(b);

	mem_aligned(m, off | v->len);
	if (r < 0)
		return r;
	n = off < m->len ? MIN(v->len, m->len - off) : 0;
	if (n)
		iovecs_put(v, 0, m->data + off, n);
	iovecs_fill(v, n, 0, v->len - n);
	return 0;
}

static int mem_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	struct memfile *m = mem_of(b);
	struct mem_log *l;
	int r = mem_step(b);

	mem_aligned(m, off | v->len);
	if (r >= 0)
		r = mem_room(m, off + v->len);
	if (r < 0)
		return r;
	b->len = m->len;
	iovecs_get(v, 0, m->data + off, v->len);
	l = mem_note(m, MEM_WRITE, off, v->len);
	if (l) {
		l->data = malloc(v->len);
		if (!l->data)
			abort();
		memcpy(l->data, m->data + off, v->len);
	}
	return 0;
}

static int mem_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	struct memfile *m = mem_of(b);
	int r = mem_step(b);

	if (r >= 0)
		r = mem_room(m, off + len);
	if (r < 0)
		return r;
	b->len = m->len;
	memset(m->data + off, 0, len);
	mem_note(m, MEM_ZERO, off, len);
	return 0;
}

static int mem_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	struct memfile *m = mem_of(b);

	/* a host may give anything afterwards; this one gives what nobody wants */
	if (off >= m->len)
		return 0;
	len = MIN(len, m->len - off);
	memset(m->data + off, 0xdd, len);
	struct mem_log *l = mem_note(m, MEM_WRITE, off, len);
	if (l) {
		l->data = malloc(len);
		if (!l->data)
			abort();
		memset(l->data, 0xdd, len);
	}
	return 0;
}

static int mem_flush_co(struct block *b)
{
	struct memfile *m = mem_of(b);
	struct mem_log *l = mem_note(m, MEM_FLUSH_BEGIN, 0, 0);
	uint64_t id = ++m->flushes;
	int r;

	if (l)
		l->id = id;
	r = mem_step(b);
	if (r < 0)
		return r;
	l = mem_note(m, MEM_FLUSH_END, 0, 0);
	if (l)
		l->id = id;
	return 0;
}

static int mem_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	struct memfile *m = mem_of(b);
	int r = mem_step(b);

	if (r >= 0 && len > m->len)
		r = mem_room(m, len);
	if (r < 0)
		return err_set(e, -r, "memfile: %s", strerror(-r));
	if (len < m->len) {
		memset(m->data + len, 0, m->len - len);
		m->len = len;
	}
	b->len = m->len;
	mem_note(m, MEM_TRUNCATE, 0, len);
	return 0;
}

const struct block_driver mem_driver = {
	.name = "memfile",
	.is_protocol = true,
	.priv_size = sizeof(struct mem_node),
	.open_co = mem_open_co,
	.read_co = mem_read_co,
	.write_co = mem_write_co,
	.zero_co = mem_zero_co,
	.discard_co = mem_discard_co,
	.flush_co = mem_flush_co,
	.truncate_co = mem_truncate_co,
};

int mem_co_open(struct block_ctx *c, struct memfile *m, bool writable, struct block **out,
		struct err *e)
{
	struct block_opts o = { .filename = "mem", .writable = writable, .discard_unmap = true };

	mem_opening = m;
	return block_co_open_node(c, &mem_driver, &o, NULL, NULL, out, e);
}

/* ---- Crashes ------------------------------------------------------------------------------- */

static void apply(struct memfile *f, const struct mem_log *l, uint64_t from, uint64_t n)
{
	switch (l->op) {
	case MEM_WRITE:
		if (mem_room(f, l->off + from + n) == 0)
			memcpy(f->data + l->off + from, l->data + from, n);
		break;
	case MEM_ZERO:
		if (mem_room(f, l->off + from + n) == 0)
			memset(f->data + l->off + from, 0, n);
		break;
	case MEM_TRUNCATE:
		if (l->len > f->len) {
			(void)!mem_room(f, l->len);
		} else {
			memset(f->data + l->len, 0, f->len - l->len);
			f->len = l->len;
		}
		break;
	default: break;
	}
}

/* Some sectors of a write; sector borders are those of the disk. */
static void apply_torn(struct memfile *f, const struct mem_log *l, uint64_t *random)
{
	uint64_t mode = mem_random(random) % 3;
	uint64_t cut = l->len ? mem_random(random) % (l->len + 511) / 512 * 512 : 0;

	for (uint64_t at = 0; at < l->len;) {
		uint64_t n = MIN(512 - ((l->off + at) & 511), l->len - at);

		if (mode == 0 ? at < cut : mode == 1 ? at >= cut : mem_random(random) & 1)
			apply(f, l, at, n);
		at += n;
	}
}

void mem_crash(const struct memfile *m, const struct memfile *base, size_t at, uint64_t *random,
	       struct memfile *out)
{
	size_t stable = 0, n = 0, *order;
	uint64_t keep = mem_random(random) % 4; /* mostly all, mostly nothing, or half */

	*out = (struct memfile){ .max = m->max, .random = 1 };
	if (mem_room(out, base->len) < 0)
		abort();
	memcpy(out->data, base->data, base->len);
	/* the last flush that was done: what came before it began is there */
	for (size_t i = at; i-- > 0;) {
		if (m->log[i].op != MEM_FLUSH_END)
			continue;
		for (size_t k = i; k-- > 0;) {
			if (m->log[k].op == MEM_FLUSH_BEGIN && m->log[k].id == m->log[i].id) {
				stable = MAX(stable, k);
				break;
			}
		}
	}
	for (size_t i = 0; i < stable; i++)
		apply(out, &m->log[i], 0, m->log[i].len);
	order = malloc((at - stable + 1) * sizeof(*order));
	if (!order)
		abort();
	for (size_t i = stable; i < at; i++)
		order[n++] = i;
	for (size_t i = n; i > 1; i--) { /* shuffled */
		size_t k = mem_random(random) % i, t = order[i - 1];

		order[i - 1] = order[k];
		order[k] = t;
	}
	for (size_t i = 0; i < n; i++) {
		const struct mem_log *l = &m->log[order[i]];
		uint64_t x = mem_random(random) % 16;
		uint64_t whole = keep == 0 ? 1 : keep == 1 ? 13 : 7;

		if (l->op == MEM_TRUNCATE) {
			/* only growth: shrinking happens at closing, and reordering it with
			 * earlier writes would be a broken file system */
			if (x < whole && l->len > out->len)
				apply(out, l, 0, 0);
		} else if (x < whole) {
			apply(out, l, 0, l->len);
		} else if (x < whole + 2) {
			apply_torn(out, l, random);
		}
	}
	free(order);
}
