/*
 * pc-testdev: ports and memory with known behaviour, for bare-metal tests of CPU emulation.
 *
 * Modelled, all by address:
 *   E0h-E3h      a 32-bit register, accessed in any width in one piece
 *   E4h          write of a guest-physical address: drop what is cached of that page
 *   E8h-EBh      the same register as E0h, accessed byte by byte
 *   2000h-2017h  interrupt lines 0..23: a write of nonzero raises, of zero lowers line (port-2000h)
 *   FF000000h    64 KiB of memory behind device callbacks
 * Not modelled: nothing of it. isa-debugcon may sit on E9h and then answers there.
 * Reference:    kvm-unit-tests, lib/x86 and x86/, which are written against it
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include <string.h>

#include "core/dev.h"

#define TESTDEV_DATA  0xe0
#define TESTDEV_FLUSH 0xe4
#define TESTDEV_BYTES 0xe8
#define TESTDEV_IRQ   0x2000
#define TESTDEV_LINES 24
#define TESTDEV_MEM   0xff000000
#define TESTDEV_SIZE  0x10000

struct testdev {
	struct dev dev;
	struct irq_pin pin[TESTDEV_LINES];
	struct testdev_state {
		uint8_t data[4];
		bool line[TESTDEV_LINES];
		uint8_t mem[TESTDEV_SIZE];
	} s;
};

static const struct field testdev_fields[] = {
	ST_ARR(struct testdev_state, data),
	ST_ARR(struct testdev_state, line),
	ST_ARR(struct testdev_state, mem),
	{ 0 },
};

static struct testdev *testdev_of(struct dev *d)
{
	return container_of(d, struct testdev, dev);
}

/* off is a multiple of size and inside the region (bus.h), so nothing leaves the arrays. */
static uint64_t testdev_data_read(struct dev *d, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, testdev_of(d)->s.data + off, size);
	return v;
}

static void testdev_data_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	memcpy(testdev_of(d)->s.data + off, &val, size);
}

static void testdev_flush_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	gpa_t page = val & PAGE_MASK;

	trace(d, "flush", page);
	if (d->md->mem && gmem_ptr(d->md->mem, page, PAGE_SIZE))
		gmem_written(d->md->mem, page, PAGE_SIZE);
	else
		guest_error(d, "flush_not_ram", page);
}

static void testdev_irq_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct testdev *t = testdev_of(d);

	trace(d, "irq", off, val);
	t->s.line[off] = val != 0;
	irq_set(&t->pin[off], t->s.line[off]);
}

static uint64_t testdev_mem_read(struct dev *d, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, testdev_of(d)->s.mem + off, size);
	return v;
}

static void testdev_mem_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	memcpy(testdev_of(d)->s.mem + off, &val, size);
}

static const struct region_ops testdev_data = { testdev_data_read, testdev_data_write, 1, 4 };
static const struct region_ops testdev_bytes = { testdev_data_read, testdev_data_write, 1, 1 };
static const struct region_ops testdev_flush = { NULL, testdev_flush_write, 4, 4 };
static const struct region_ops testdev_irq = { NULL, testdev_irq_write, 1, 1 };
static const struct region_ops testdev_mem = { testdev_mem_read, testdev_mem_write, 1, 8 };

static int testdev_realize(struct dev *d, struct err *e)
{
	struct testdev *t = testdev_of(d);
	struct region bytes = { .dev = d,
				.space = BUS_IO,
				.base = TESTDEV_BYTES,
				.len = 4,
				.ops = &testdev_bytes,
				.prio = -1,
				.flags = REGION_OVERLAP };
	int rc = bus_claim(d, TESTDEV_DATA, 4, &testdev_data, e);

	if (!rc)
		rc = bus_claim(d, TESTDEV_FLUSH, 4, &testdev_flush, e);
	if (!rc)
		rc = bus_claim_region(d->bus, &bytes, e);
	if (!rc)
		rc = bus_claim(d, TESTDEV_IRQ, TESTDEV_LINES, &testdev_irq, e);
	if (!rc)
		rc = bus_claim_mem(d, TESTDEV_MEM, TESTDEV_SIZE, &testdev_mem, e);
	/* a machine with fewer lines has the rest unconnected */
	for (unsigned i = 0; !rc && i < TESTDEV_LINES && i < d->md->n_gsi; i++)
		rc = dev_irq(d, &t->pin[i], i, e);
	return rc;
}

static int testdev_loaded(struct dev *d, struct err *e)
{
	struct testdev *t = testdev_of(d);

	for (unsigned i = 0; i < TESTDEV_LINES; i++)
		irq_set(&t->pin[i], t->s.line[i]);
	return 0;
}

static void testdev_reset(struct dev *d, enum reset_kind kind)
{
	struct testdev *t = testdev_of(d);

	memset(&t->s, 0, sizeof(t->s));
	for (unsigned i = 0; i < TESTDEV_LINES; i++)
		irq_set(&t->pin[i], false);
}

static void testdev_unrealize(struct dev *d)
{
	for (unsigned i = 0; i < TESTDEV_LINES; i++)
		irq_connect(&testdev_of(d)->pin[i], NULL);
}

const struct dev_class testdev_class = {
	.name = "pc-testdev",
	.desc = "ports, memory and interrupt lines for bare-metal tests",
	.size = sizeof(struct testdev),
	.state = STATE_OF(struct testdev, s, testdev_fields, 1),
	.realize = testdev_realize,
	.reset = testdev_reset,
	.loaded = testdev_loaded,
	.unrealize = testdev_unrealize,
};
