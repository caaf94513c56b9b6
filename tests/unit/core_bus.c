/* Buses: pieces of accesses, overlap and priority, nobody there, locking; interrupt lines. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/dev.h"

/* A "device" that is 64 bytes of memory and writes down how it is accessed. */
struct probe {
	struct dev dev;
	uint8_t mem[64];
	char log[512];
	bool locked;
};

static void probe_log(struct probe *p, char what, uint64_t off, unsigned size)
{
	size_t n = strlen(p->log);

	assert_int_equal(off % size, 0);
	assert_true(off + size <= 64);
	p->locked = biglock_held(bus_lock_of(p->dev.bus));
	if (n < sizeof(p->log) - 16)
		sprintf(p->log + n, "%c%u:%u ", what, (unsigned)off, size);
}

static uint64_t probe_read(struct dev *d, uint64_t off, unsigned size)
{
	struct probe *p = container_of(d, struct probe, dev);
	uint64_t v = 0;

	probe_log(p, 'r', off, size);
	memcpy(&v, p->mem + off, size);
	return v | (size < 8 ? 0xdeadull << 48 : 0); /* sloppy upper bits */
}

static void probe_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct probe *p = container_of(d, struct probe, dev);

	probe_log(p, 'w', off, size);
	assert_true(size == 8 || !(val >> 8 * size));
	memcpy(p->mem + off, &val, size);
}

static const struct region_ops any = { probe_read, probe_write, 1, 8 };
static const struct region_ops bytes = { probe_read, probe_write, 1, 1 };
static const struct region_ops words = { probe_read, probe_write, 2, 2 };
static const struct region_ops dwords = { probe_read, probe_write, 4, 4 };
static const struct region_ops write_only = { NULL, probe_write, 1, 4 };

static struct probe probe_of(struct bus *b, const char *id)
{
	struct probe p = { .dev = { .id = id, .bus = b } };

	for (int i = 0; i < 64; i++)
		p.mem[i] = (uint8_t)(0x10 + i);
	return p;
}

static void expect_log(struct probe *p, const char *log)
{
	assert_string_equal(p->log, log);
	p->log[0] = 0;
}

static void bus_pieces(void **state)
{
	struct bus *b = bus_new(NULL);
	struct probe p = probe_of(b, "p"), q = probe_of(b, "q"), r = probe_of(b, "r");

	assert_int_equal(bus_claim_mem(&p.dev, 0x1000, 64, &any, NULL), 0);
	assert_int_equal(bus_mem_read(b, 0x1000, 8), 0x1716151413121110);
	expect_log(&p, "r0:8 ");
	assert_int_equal(bus_mem_read(b, 0x1003, 4), 0x16151413);
	expect_log(&p, "r3:1 r4:2 r6:1 ");
	assert_int_equal(bus_mem_read(b, 0x103e, 4), 0xffff4f4e);
	assert_int_equal(bus_mem_read(b, 0xffe, 4), 0x1110ffff);
	p.log[0] = 0;
	assert_int_equal(bus_claim(&q.dev, 0x70, 4, &bytes, NULL), 0);
	assert_int_equal(bus_io_read(b, 0x70, 4), 0x13121110);
	expect_log(&q, "r0:1 r1:1 r2:1 r3:1 ");
	bus_io_write(b, 0x72, 0xaabbccdd, 4);
	expect_log(&q, "w2:1 w3:1 ");
	assert_true(q.mem[2] == 0xdd && q.mem[3] == 0xcc);
	assert_int_equal(bus_claim_mem(&r.dev, 0x2000, 64, &dwords, NULL), 0);
	assert_int_equal(bus_mem_read(b, 0x2005, 1), 0x15);
	expect_log(&r, "r4:4 ");
	assert_int_equal(bus_mem_read(b, 0x2002, 4), 0x15141312);
	expect_log(&r, "r0:4 r4:4 ");
	bus_mem_write(b, 0x2002, 0x1234, 2); /* narrower than the device knows: dropped */
	expect_log(&r, "");
	bus_mem_write(b, 0x2008, 0x1122334455667788, 8);
	expect_log(&r, "w8:4 w12:4 ");
	assert_true(p.locked && q.locked && r.locked);
	bus_free(b);
}

static void bus_nobody_there(void **state)
{
	struct trace_sink *sink = trace_sink_new();
	struct bus *b = bus_new(sink);
	struct probe p = probe_of(b, "p");
	char *text = NULL;
	size_t len;
	FILE *f;

	trace_sink_ring(sink, true);
	trace_switch(sink, "b*", true);
	assert_int_equal(bus_io_read(b, 0x80, 1), 0xff);
	assert_int_equal(bus_io_read(b, 0x80, 4), 0xffffffff);
	assert_int_equal(bus_mem_read(b, UINT64_MAX - 1, 8), UINT64_MAX);
	bus_io_write(b, 0xffff, 0x1234, 2);
	assert_int_equal(bus_claim(&p.dev, 0x10, 4, &write_only, NULL), 0);
	assert_int_equal(bus_io_read(b, 0x10, 2), 0xffff);
	assert_int_equal(bus_claim(&p.dev, 0, 1, &bytes, NULL), 0);
	assert_int_equal(bus_io_read(b, 0xffff, 2), 0x10ff); /* ports wrap */
	for (int i = 0; i < 1000; i++)                       /* a guest may repeat it for ever */
		bus_io_write(b, 0x99, 1, 1);
	f = open_memstream(&text, &len);
	trace_sink_dump(sink, f);
	fclose(f);
	assert_non_null(strstr(text, "bus guest_error:port_read 0x80 0x4\n"));
	assert_true(len < 3 * TRACE_ERRORS_PER_SEC * 60);
	free(text);
	bus_free(b);
	trace_sink_free(sink);
}

static void bus_overlap(void **state)
{
	struct bus *b = bus_new(NULL);
	struct probe p = probe_of(b, "lower"), q = probe_of(b, "upper");
	struct region over = { .dev = &q.dev,
			       .space = BUS_MEM,
			       .base = 0x1010,
			       .len = 16,
			       .ops = &words,
			       .prio = 1,
			       .flags = REGION_OVERLAP };
	struct region out;
	struct err e = { 0 };

	assert_int_equal(bus_claim_mem(&p.dev, 0x1000, 64, &any, &e), 0);
	assert_int_equal(bus_claim_mem(&q.dev, 0x103f, 1, &any, &e), -EEXIST);
	assert_non_null(strstr(e.msg, "lower"));
	assert_int_equal(bus_claim_mem(&q.dev, 0x1000, 0, &any, &e), -EINVAL);
	assert_int_equal(bus_claim_mem(&q.dev, UINT64_MAX, 2, &any, &e), -EINVAL);
	assert_int_equal(bus_claim(&q.dev, 0xffff, 2, &bytes, &e), -EINVAL);
	assert_int_equal(bus_claim(&q.dev, 0x10000, 1, &bytes, &e), -EINVAL);
	over.prio = 0;
	assert_int_equal(bus_claim_region(b, &over, &e), -EEXIST);
	over.prio = 1;
	assert_int_equal(bus_claim_region(b, &over, &e), 0);
	assert_int_equal(bus_mem_read(b, 0x1010, 2), 0x1110);
	assert_int_equal(bus_mem_read(b, 0x1020, 2), 0x3130);
	assert_true(bus_region_at(b, BUS_MEM, 0, &out) && out.base == 0x1000 && out.len == 16);
	assert_true(bus_region_at(b, BUS_MEM, 1, &out) && out.dev == &q.dev);
	assert_true(bus_region_at(b, BUS_MEM, 2, &out) && out.base == 0x1020 && out.len == 32);
	assert_false(bus_region_at(b, BUS_MEM, 3, &out));
	bus_unclaim(&q.dev, BUS_MEM, 0x1010);
	assert_int_equal(bus_mem_read(b, 0x1010, 2), 0x2120);
	assert_true(bus_region_at(b, BUS_MEM, 0, &out) && out.len == 64);
	assert_int_equal(bus_claim_mem(&q.dev, UINT64_MAX - 63, 64, &any, &e), 0);
	assert_int_equal(bus_mem_read(b, UINT64_MAX, 1), 0x4f);
	bus_unclaim_all(&q.dev);
	bus_unclaim_all(&p.dev);
	assert_false(bus_region_at(b, BUS_MEM, 0, &out));
	bus_free(b);
}

static void bus_rep(void **state)
{
	struct bus *b = bus_new(NULL);
	struct probe p = probe_of(b, "p");
	uint16_t buf[3] = { 0 };

	assert_int_equal(bus_claim(&p.dev, 0x100, 8, &words, NULL), 0);
	bus_io_read_rep(b, 0x102, buf, 2, 3);
	assert_true(buf[0] == 0x1312 && buf[2] == 0x1312);
	buf[2] = 0xbeef;
	bus_io_write_rep(b, 0x104, buf, 2, 3);
	assert_int_equal(bus_io_read(b, 0x104, 2), 0xbeef);
	bus_free(b);
}

static int nolock_value;

static uint64_t nolock_read(struct dev *d, uint64_t off, unsigned size)
{
	assert_false(biglock_held(bus_lock_of(d->bus)));
	return (uint64_t)__atomic_add_fetch(&nolock_value, 1, __ATOMIC_RELAXED);
}

static const struct region_ops nolock = { nolock_read, NULL, 1, 4 };

/* A device that removes itself in its own callback, and one that others reach meanwhile. */
static void suicide_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	bus_unclaim_all(d);
}

static const struct region_ops suicide = { NULL, suicide_write, 1, 1 };

static void *hammer(void *opaque)
{
	for (int i = 0; i < 20000; i++) {
		bus_io_read(opaque, 0x200, 2);
		bus_io_write(opaque, 0x300, 1, 4);
	}
	return NULL;
}

static void bus_threads(void **state)
{
	struct bus *b = bus_new(NULL);
	struct probe p = probe_of(b, "p"), q = probe_of(b, "q");
	struct region r = { .dev = &p.dev,
			    .space = BUS_IO,
			    .base = 0x200,
			    .len = 4,
			    .ops = &nolock,
			    .flags = REGION_NOLOCK };
	pthread_t t[2];

	assert_int_equal(bus_claim_region(b, &r, NULL), 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, hammer, b);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(bus_claim(&q.dev, 0x300, 4, &suicide, NULL), 0);
		bus_io_write(b, 0x301, 1, 2);
		bus_unclaim_all(&q.dev);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_true(nolock_value >= 40000);
	bus_free(b);
}

struct wire {
	int calls;
	bool level;
};

static void wire_fn(void *opaque, unsigned n, bool level)
{
	struct wire *w = opaque;

	assert_int_equal(n, 5);
	w->calls++;
	w->level = level;
}

static void irq_shared(void **state)
{
	struct wire w = { 0 };
	struct irq_line l, other;
	struct irq_pin a = { 0 }, b = { 0 };

	irq_line_init(&l, wire_fn, &w, 5);
	irq_line_init(&other, NULL, NULL, 0);
	irq_set(&a, true); /* unconnected: remembered */
	irq_connect(&a, &l);
	assert_true(w.level && w.calls == 1);
	irq_connect(&b, &l);
	irq_set(&b, true);
	irq_set(&b, true);
	irq_set(&a, false);
	assert_true(w.level && w.calls == 1);
	irq_set(&b, false);
	assert_true(!w.level && w.calls == 2);
	irq_pulse(&a);
	assert_int_equal(w.calls, 4);
	irq_set(&a, true);
	irq_connect(&a, &other); /* takes its level along */
	assert_true(!w.level && other.high == 1);
	irq_line_sync(&l);
	assert_int_equal(w.calls, 7);
}

static uint64_t rang(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* Doorbells: by address, length and value; the device sees what no bell takes. */
static void bus_doorbells(void **state)
{
	struct bus *b = bus_new(NULL);
	struct probe p = probe_of(b, "p");
	int fd = eventfd(0, EFD_NONBLOCK), fd2 = eventfd(0, EFD_NONBLOCK);
	struct doorbell d = {
		.space = BUS_MEM, .addr = 0x1010, .len = 4, .match = true, .value = 7, .fd = fd
	};
	struct doorbell all = { .space = BUS_MEM, .addr = 0x1020, .fd = fd2 };
	struct doorbell port = { .space = BUS_IO, .addr = 0x10, .len = 2, .fd = fd2 };
	struct err e = { 0 };

	assert_int_equal(bus_claim_mem(&p.dev, 0x1000, 64, &any, NULL), 0);
	assert_int_equal(bus_doorbell_add(b, &d, NULL), 0);
	assert_int_equal(bus_doorbell_add(b, &all, NULL), 0);
	assert_int_equal(bus_doorbell_add(b, &port, NULL), 0);
	assert_int_equal(bus_doorbell_add(b, &d, &e), -EEXIST);
	d.value = 9;
	assert_int_equal(bus_doorbell_add(b, &d, NULL), 0);

	bus_mem_write(b, 0x1010, 7, 4);
	bus_mem_write(b, 0x1010, 9, 4);
	assert_int_equal(rang(fd), 2);
	assert_string_equal(p.log, "");
	bus_mem_write(b, 0x1010, 8, 4);                  /* another value */
	bus_mem_write(b, 0x1010, 7, 2);                  /* another length */
	bus_mem_write(b, 0x1014, 7, 4);                  /* another place */
	bus_io_write(b, 0x1010, 7, 4);                   /* another space */
	assert_int_equal(bus_mem_read(b, 0x1010, 4), 7); /* reads do not ring */
	assert_int_equal(rang(fd), 0);
	assert_string_equal(p.log, "w16:4 w16:2 w20:4 r16:4 ");
	for (unsigned n = 1; n <= 8; n *= 2)
		bus_mem_write(b, 0x1020, n, n);
	assert_int_equal(rang(fd2), 4);
	bus_io_write(b, 0x10, 1, 2);
	bus_io_write(b, 0x10, 1, 1);
	assert_int_equal(rang(fd2), 1);
	/* a full counter still takes the write */
	for (uint64_t full = UINT64_MAX - 1; write(fd2, &full, 8) < 0;)
		;
	bus_mem_write(b, 0x1020, 1, 1);
	assert_string_equal(p.log, "w16:4 w16:2 w20:4 r16:4 ");
	/* taken away: only the one meant */
	d.value = 7;
	bus_doorbell_del(b, &d);
	bus_doorbell_del(b, &d);
	bus_mem_write(b, 0x1010, 7, 4);
	bus_mem_write(b, 0x1010, 9, 4);
	assert_int_equal(rang(fd), 1);
	bus_free(b);
	close(fd);
	close(fd2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bus_pieces),  cmocka_unit_test(bus_nobody_there),
		cmocka_unit_test(bus_overlap), cmocka_unit_test(bus_rep),
		cmocka_unit_test(bus_threads), cmocka_unit_test(bus_doorbells),
		cmocka_unit_test(irq_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
