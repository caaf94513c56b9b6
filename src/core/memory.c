/*
 * See memory.h. Blocks live in a sorted array that is replaced, never changed, when a block comes
 * or goes: readers load the pointer once and need no lock. Old arrays are kept until gmem_free;
 * blocks change a few times in a machine's life.
 */
#include "core/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/backing.h"

#define GMEM_MAX_GPA (1ull << 52)

struct gmem_entry {
	struct gmem_block b;
	struct gmem_backing *backing;
};

/* Immutable once published. */
struct gmem_map {
	size_t n;
	struct gmem_map *older;
	struct gmem_entry *e[]; /* sorted by gpa */
};

struct gmem {
	struct gmem_map *_Atomic map;
	struct gmem_listener *listeners;
	unsigned next_id;
};

struct gmem *gmem_new(void)
{
	struct gmem *gm = calloc(1, sizeof(*gm));
	struct gmem_map *m = calloc(1, sizeof(*m));

	if (!gm || !m) {
		free(gm);
		free(m);
		return NULL;
	}
	gm->map = m;
	return gm;
}

static void gmem_drop(struct gmem *gm, struct gmem_entry *en)
{
	for (struct gmem_listener *l = gm->listeners; l; l = l->next)
		if (l->del)
			l->del(l, &en->b);
	gmem_backing_put(en->backing);
	free(en);
}

void gmem_free(struct gmem *gm)
{
	struct gmem_map *m;

	if (!gm)
		return;
	m = gm->map;
	for (size_t i = 0; i < m->n; i++)
		gmem_drop(gm, m->e[i]);
	while (m) {
		struct gmem_map *older = m->older;

		free(m);
		m = older;
	}
	free(gm);
}

/* --- blocks --- */

static struct gmem_map *gmem_map_new(const struct gmem_map *old, size_t n)
{
	struct gmem_map *m = calloc(1, sizeof(*m) + n * sizeof(struct gmem_entry *));

	if (m)
		m->older = (struct gmem_map *)old;
	return m;
}

static int gmem_range_check(const struct gmem_map *m, const char *name, gpa_t gpa, uint64_t len,
			    struct err *e)
{
	if (!len || (gpa | len) & ~PAGE_MASK)
		return err_set(e, EINVAL, "%s: 0x%" PRIx64 "+0x%" PRIx64 " is not whole pages",
			       name, gpa, len);
	if (gpa >= GMEM_MAX_GPA || len > GMEM_MAX_GPA - gpa)
		return err_set(e, EINVAL, "%s: ends above the 52-bit address space", name);
	for (size_t i = 0; i < m->n; i++) {
		const struct gmem_block *b = &m->e[i]->b;

		if (gpa < b->gpa + b->len && b->gpa < gpa + len)
			return err_set(e, EEXIST, "%s at 0x%" PRIx64 " overlaps %s at 0x%" PRIx64,
				       name, gpa, b->name, b->gpa);
	}
	return 0;
}

/* Takes one reference to the backing in any case. */
static int gmem_add_block(struct gmem *gm, struct gmem_block b, struct gmem_backing *k,
			  struct err *e)
{
	struct gmem_map *old = gm->map, *m = gmem_map_new(old, old->n + 1);
	struct gmem_entry *en = calloc(1, sizeof(*en));
	struct gmem_listener *l;
	int rc = -ENOMEM;

	if (!m || !en) {
		err_set(e, ENOMEM, "%s: out of memory", b.name);
		goto fail;
	}
	rc = gmem_range_check(old, b.name, b.gpa, b.len, e);
	if (rc)
		goto fail;
	b.id = gm->next_id;
	b.host = k->host + b.fd_off;
	b.fd = k->fd;
	*en = (struct gmem_entry){ .b = b, .backing = k };
	for (l = gm->listeners; l; l = l->next)
		if (l->add && (rc = l->add(l, &en->b, e)))
			break;
	if (rc) { /* take it back from those who had agreed */
		for (struct gmem_listener *u = gm->listeners; u != l; u = u->next)
			if (u->del)
				u->del(u, &en->b);
		goto fail;
	}
	for (size_t i = 0; i < old->n; i++) {
		if (m->n == i && old->e[i]->b.gpa > b.gpa)
			m->e[m->n++] = en;
		m->e[m->n++] = old->e[i];
	}
	if (m->n == old->n)
		m->e[m->n++] = en;
	gm->next_id++;
	gm->map = m;
	return 0;
fail:
	free(m);
	free(en);
	gmem_backing_put(k);
	return rc;
}

int gmem_add_pc_ram(struct gmem *gm, uint64_t size, gpa_t hole_start, const struct gmem_opts *o,
		    struct err *e)
{
	uint64_t low = MIN(size, hole_start);
	struct gmem_backing *k;
	int rc;

	if (!size || size & ~PAGE_MASK || hole_start & ~PAGE_MASK || hole_start > 1ull << 32 ||
	    !hole_start)
		return err_set(e, EINVAL, "guest RAM: %" PRIu64 " bytes are not whole pages", size);
	if (size > GMEM_MAX_GPA / 2)
		return err_set(e, EINVAL, "guest RAM: %" PRIu64 " MiB is too much", size >> 20);
	k = gmem_backing_new("ram", size, o, e);
	if (!k)
		return e ? -e->code : -ENOMEM;
	k->users = size > low ? 2 : 1;
	rc = gmem_add_block(gm, (struct gmem_block){ .name = "ram", .len = low }, k, e);
	if (rc || size == low) {
		if (rc && size > low)
			gmem_backing_put(k);
		return rc;
	}
	rc = gmem_add_block(gm,
			    (struct gmem_block){ .name = "ram-above-4g",
						 .gpa = 1ull << 32,
						 .len = size - low,
						 .fd_off = low },
			    k, e);
	if (rc)
		gmem_remove(gm, gmem_find(gm, 0)->id);
	return rc;
}

int gmem_add_ram(struct gmem *gm, const char *name, gpa_t gpa, uint64_t len,
		 const struct gmem_opts *o, struct err *e)
{
	struct gmem_backing *k;
	int rc = gmem_range_check(gm->map, name, gpa, len, e);

	if (rc)
		return rc;
	k = gmem_backing_new(name, len, o, e);
	if (!k)
		return e ? -e->code : -ENOMEM;
	return gmem_add_block(gm, (struct gmem_block){ .name = name, .gpa = gpa, .len = len }, k,
			      e);
}

int gmem_add_rom(struct gmem *gm, const char *name, gpa_t gpa, uint64_t len, const void *data,
		 size_t data_len, struct err *e)
{
	struct gmem_backing *k;
	int rc = gmem_range_check(gm->map, name, gpa, len, e);

	if (rc)
		return rc;
	if (data_len > len)
		return err_set(e, EFBIG, "%s: %zu bytes do not fit into %" PRIu64, name, data_len,
			       len);
	k = gmem_backing_new(name, len, &(struct gmem_opts){ .thp_off = true }, e);
	if (!k)
		return e ? -e->code : -ENOMEM;
	memset(k->host, 0xff, len);
	if (data_len)
		memcpy(k->host, data, data_len);
	return gmem_add_block(
		gm, (struct gmem_block){ .name = name, .gpa = gpa, .len = len, .rom = true }, k, e);
}

void gmem_remove(struct gmem *gm, unsigned id)
{
	struct gmem_map *old = gm->map, *m = gmem_map_new(old, old->n);
	struct gmem_entry *gone = NULL;

	if (!m)
		return; /* no memory to forget with: it stays */
	for (size_t i = 0; i < old->n; i++) {
		if (old->e[i]->b.id == id)
			gone = old->e[i];
		else
			m->e[m->n++] = old->e[i];
	}
	if (!gone) {
		free(m);
		return;
	}
	gm->map = m;
	gmem_drop(gm, gone);
}

int gmem_listen(struct gmem *gm, struct gmem_listener *l, struct err *e)
{
	const struct gmem_map *m = gm->map;

	for (size_t i = 0; i < m->n && l->add; i++) {
		int rc = l->add(l, &m->e[i]->b, e);

		if (rc) {
			while (i-- && l->del)
				l->del(l, &m->e[i]->b);
			return rc;
		}
	}
	l->next = gm->listeners;
	gm->listeners = l;
	return 0;
}

void gmem_unlisten(struct gmem *gm, struct gmem_listener *l)
{
	struct gmem_listener **p = &gm->listeners;
	const struct gmem_map *m = gm->map;

	while (*p && *p != l)
		p = &(*p)->next;
	if (!*p)
		return;
	*p = l->next;
	for (size_t i = 0; i < m->n && l->del; i++)
		l->del(l, &m->e[i]->b);
}

const struct gmem_block *gmem_block_at(const struct gmem *gm, size_t i)
{
	const struct gmem_map *m = gm->map;

	return i < m->n ? &m->e[i]->b : NULL;
}

const struct gmem_block *gmem_find(const struct gmem *gm, gpa_t gpa)
{
	const struct gmem_map *m = gm->map;
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct gmem_block *b = &m->e[mid]->b;

		if (gpa < b->gpa)
			hi = mid;
		else if (gpa - b->gpa >= b->len)
			lo = mid + 1;
		else
			return b;
	}
	return NULL;
}

uint64_t gmem_ram_size(const struct gmem *gm)
{
	const struct gmem_map *m = gm->map;
	uint64_t sum = 0;

	for (size_t i = 0; i < m->n; i++)
		sum += m->e[i]->b.rom ? 0 : m->e[i]->b.len;
	return sum;
}

/* --- access --- */

void gmem_written(struct gmem *gm, gpa_t gpa, uint64_t len)
{
	for (struct gmem_listener *l = gm->listeners; l; l = l->next)
		if (l->written)
			l->written(l, gpa, len);
}

/* The piece of [gpa, gpa+len) in gpa's block, or NULL. */
static uint8_t *gmem_piece(const struct gmem *gm, gpa_t gpa, uint64_t len, bool rom_ok, uint64_t *n)
{
	const struct gmem_block *b = gmem_find(gm, gpa);

	if (!b || (b->rom && !rom_ok))
		return NULL;
	*n = MIN(len, b->len - (gpa - b->gpa));
	return b->host + (gpa - b->gpa);
}

int gmem_read(struct gmem *gm, gpa_t gpa, void *buf, uint64_t len)
{
	uint8_t *to = buf, *p;

	for (uint64_t n; len; gpa += n, to += n, len -= n) {
		p = gmem_piece(gm, gpa, len, true, &n);
		if (!p)
			return -EFAULT;
		memcpy(to, p, n);
	}
	return 0;
}

static int gmem_put(struct gmem *gm, gpa_t gpa, const uint8_t *from, uint8_t byte, uint64_t len,
		    bool rom_ok)
{
	uint8_t *p;

	for (uint64_t n; len; gpa += n, len -= n) {
		p = gmem_piece(gm, gpa, len, rom_ok, &n);
		if (!p)
			return -EFAULT;
		if (from) {
			memcpy(p, from, n);
			from += n;
		} else {
			memset(p, byte, n);
		}
		gmem_written(gm, gpa, n);
	}
	return 0;
}

int gmem_write(struct gmem *gm, gpa_t gpa, const void *buf, uint64_t len)
{
	return gmem_put(gm, gpa, buf, 0, len, false);
}

int gmem_load(struct gmem *gm, gpa_t gpa, const void *buf, uint64_t len)
{
	return gmem_put(gm, gpa, buf, 0, len, true);
}

int gmem_fill(struct gmem *gm, gpa_t gpa, uint8_t byte, uint64_t len)
{
	return gmem_put(gm, gpa, NULL, byte, len, false);
}

const void *gmem_ptr(struct gmem *gm, gpa_t gpa, uint64_t len)
{
	uint64_t n = 0;
	const uint8_t *p = gmem_piece(gm, gpa, len, true, &n);

	return n == len && len ? p : NULL;
}

void *gmem_ptr_w(struct gmem *gm, gpa_t gpa, uint64_t len)
{
	uint64_t n = 0;
	uint8_t *p = gmem_piece(gm, gpa, len, false, &n);

	return n == len && len ? p : NULL;
}

int gmem_discard(struct gmem *gm, gpa_t gpa, uint64_t len)
{
	int rc = 0;

	if ((gpa | len) & ~PAGE_MASK)
		return -EINVAL;
	for (uint64_t n; len && !rc; gpa += n, len -= n) {
		const struct gmem_block *b = gmem_find(gm, gpa);

		if (!b || b->rom)
			return -EFAULT;
		n = MIN(len, b->len - (gpa - b->gpa));
		rc = gmem_backing_discard(container_of(b, struct gmem_entry, b)->backing,
					  b->fd_off + (gpa - b->gpa), n);
		gmem_written(gm, gpa, n);
	}
	return rc;
}

/* A value that lies across blocks, or nowhere. */
static int gmem_ld_slow(struct gmem *gm, gpa_t gpa, void *v, size_t n)
{
	int rc = gmem_read(gm, gpa, v, n);

	if (rc)
		memset(v, 0, n);
	return rc;
}

/* Values: the host is little-endian too (x86-64 only), so no swapping. */
#define GMEM_VALUE(bits_) \
	int gmem_ld##bits_(struct gmem *gm, gpa_t gpa, uint##bits_##_t *v) \
	{ \
		const void *p = gmem_ptr(gm, gpa, sizeof(*v)); \
\
		*v = 0; \
		if (!p) \
			return gmem_ld_slow(gm, gpa, v, sizeof(*v)); \
		if ((uintptr_t)p % sizeof(*v)) \
			memcpy(v, p, sizeof(*v)); \
		else \
			*v = __atomic_load_n((const uint##bits_##_t *)p, __ATOMIC_RELAXED); \
		return 0; \
	} \
	int gmem_st##bits_(struct gmem *gm, gpa_t gpa, uint##bits_##_t v) \
	{ \
		void *p = gmem_ptr_w(gm, gpa, sizeof(v)); \
\
		if (!p) \
			return gmem_write(gm, gpa, &v, sizeof(v)); \
		if ((uintptr_t)p % sizeof(v)) \
			memcpy(p, &v, sizeof(v)); \
		else \
			__atomic_store_n((uint##bits_##_t *)p, v, __ATOMIC_RELAXED); \
		gmem_written(gm, gpa, sizeof(v)); \
		return 0; \
	}

GMEM_VALUE(8)
GMEM_VALUE(16)
GMEM_VALUE(32)
GMEM_VALUE(64)
