/* PCI in general, with a function made for it: BARs, places, INTx, MSI, MSI-X, loads. */
#include "testbed.h"

#include "pci_fake.h"

#include <errno.h>

#include "hw/pci/assign.h"

enum { CAP_MSIX = 0x40, CAP_MSI = 0x4c };
#define MSG_ADDR 0xfee00000u

static struct fake *fake_new(struct bed *b, const char *addr)
{
	struct err e = { 0 };
	struct dev *d = addr ? dev_create(&b->md, &fake_class, NULL, &e, "addr", addr, NULL)
			     : dev_create(&b->md, &fake_class, NULL, &e, NULL);

	if (!d)
		fail_msg("%s", e.msg);
	return fake_of(d);
}

static uint32_t mem(struct bed *b, uint64_t at)
{
	return (uint32_t)bus_mem_read(b->md.bus, at, 4);
}

static void pci_sizing(void **state)
{
	struct bed *b = bed_new();

	bed_pci(b);
	fake_new(b, "0");
	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		bed_cfg_write(b, 0, PCI_BAR0 + 4 * bar, ~0u, 4);
	assert_int_equal(bed_cfg_read(b, 0, 0x10, 4), 0xfffff000);
	assert_int_equal(bed_cfg_read(b, 0, 0x14, 4), 0xfffff000); /* MSI-X */
	assert_int_equal(bed_cfg_read(b, 0, 0x18, 4), 0xffffffe1);
	assert_int_equal(bed_cfg_read(b, 0, 0x1c, 4), 0);
	assert_int_equal(bed_cfg_read(b, 0, 0x20, 4), 0xffff000c);
	assert_int_equal(bed_cfg_read(b, 0, 0x24, 4), 0xffffffff);
	/* all ones is no address, also when decoding is on (as some systems leave it) */
	bed_cfg_write(b, 0, PCI_COMMAND, 3, 2);
	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		assert_true(fake_of(b->md.last)->pci.bar[bar].addr == PCI_UNMAPPED);
	/* no expansion ROM, identity is read-only */
	bed_cfg_write(b, 0, 0x30, ~0u, 4);
	assert_int_equal(bed_cfg_read(b, 0, 0x30, 4), 0);
	bed_cfg_write(b, 0, 0, 0, 4);
	assert_int_equal(bed_cfg_read(b, 0, 0, 4), 0x56781234);
	bed_free(b);
}

static void pci_moving(void **state)
{
	struct bed *b = bed_new();
	struct fake *f;

	bed_pci(b);
	f = fake_new(b, "0");
	bed_cfg_write(b, 0, 0x10, 0xf0000000, 4);
	bed_cfg_write(b, 0, 0x18, 0xc000, 4);
	bed_cfg_write(b, 0, 0x20, 0x40000000, 4);
	bed_cfg_write(b, 0, 0x24, 0x12, 4);
	assert_int_equal(mem(b, 0xf0000010), 0xffffffff); /* not decoded yet */
	assert_int_equal(f->moves, 0);
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_MEM, 1);
	assert_int_equal(mem(b, 0xf0000010), 0xa0000010);
	assert_int_equal(mem(b, 0x1240008000), 0xc0008000);
	assert_int_equal(bus_io_read(b->md.bus, 0xc004, 4), 0xffffffff);
	bed_cfg_write(b, 0, PCI_COMMAND, 3, 1);
	assert_int_equal(bus_io_read(b->md.bus, 0xc004, 4), 0xb0000004);
	/* moved, a byte at a time */
	bed_cfg_write(b, 0, 0x13, 0xe8, 1);
	assert_int_equal(mem(b, 0xf0000010), 0xffffffff);
	assert_int_equal(mem(b, 0xe8000010), 0xa0000010);
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_IO, 1);
	assert_int_equal(mem(b, 0xe8000010), 0xffffffff);
	assert_int_equal(bus_io_read(b->md.bus, 0xc004, 4), 0xb0000004);
	dev_reset(&f->pci.dev, RESET_WARM);
	assert_int_equal(bus_io_read(b->md.bus, 0xc004, 4), 0xffffffff);
	assert_int_equal(bed_cfg_read(b, 0, 0x10, 4), 0);
	bed_free(b);
}

/* BARs over each other and over the board's devices; taking one away uncovers the other. */
static void pci_overlap(void **state)
{
	struct bed *b = bed_new();

	bed_pci(b);
	fake_new(b, "0");
	fake_new(b, "1");
	for (unsigned slot = 0; slot < 2; slot++) {
		bed_cfg_write(b, slot << 3, 0x10, 0xf0000000, 4);
		bed_cfg_write(b, slot << 3, 0x20, 0xf0000000, 4); /* the same function's, too */
		bed_cfg_write(b, slot << 3, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	}
	assert_int_equal(mem(b, 0xf0000000), 0xa0000000);
	assert_int_equal(mem(b, 0xf0001000), 0xc0001000);
	bus_mem_write(b->md.bus, 0xf0000000, 7, 4);
	assert_int_equal(fake_of(b->md.last->prev)->written, 7);
	bed_cfg_write(b, 0, 0x10, 0xf8000000, 4);
	assert_int_equal(mem(b, 0xf0000000), 0xc0000000); /* BAR 4 of function 0 was below */
	bed_cfg_write(b, 0, PCI_COMMAND, 0, 2);
	bus_mem_write(b->md.bus, 0xf0000000, 9, 4);
	assert_int_equal(fake_of(b->md.last)->written, 9);
	/* over the configuration window: the board's device answers */
	bed_cfg_write(b, 0, 0x10, (uint32_t)BED_ECAM, 4);
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	assert_int_equal(bed_cfg_read(b, 0, 0, 4), 0x56781234);
	bed_free(b);
}

static void pci_places(void **state)
{
	struct bed *b = bed_new();
	struct err e = { 0 };

	bed_pci(b);
	assert_int_equal(fake_new(b, "1f.0")->pci.devfn, 0xf8);
	assert_int_equal(fake_new(b, NULL)->pci.devfn, 0);
	assert_int_equal(fake_new(b, NULL)->pci.devfn, 8);
	assert_int_equal(fake_new(b, "0x10")->pci.devfn, 0x80);
	static const char *const bad[] = {
		"20", "1.8", "", "1.", ".1", "x", "-1", "1.-1", "1 ", "1.0 ", "99999999999999999999"
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_null(dev_create(&b->md, &fake_class, NULL, &e, "addr", bad[i], NULL));
		if (!strstr(e.msg, "addr="))
			fail_msg("%s: %s", bad[i], e.msg);
	}
	assert_null(dev_create(&b->md, &fake_class, NULL, &e, "addr", "0", NULL));
	assert_non_null(strstr(e.msg, "taken by fake1"));
	assert_null(dev_create(&b->md, &fake_class, NULL, &e, "addr", "0.1", NULL));
	assert_non_null(strstr(e.msg, "multifunction=on"));
	assert_null(dev_create(&b->md, &fake_class, NULL, &e, "bus", "pci.7", NULL));
	assert_non_null(strstr(e.msg, "pcie.0"));
	assert_non_null(
		dev_create(&b->md, &fake_class, NULL, &e, "bus", "pcie.0", "addr", "4.1", NULL));
	assert_null(dev_create(&b->md, &fake_class, NULL, &e, "addr", "4", NULL));
	assert_non_null(strstr(e.msg, "multifunction=on"));
	assert_non_null(dev_create(&b->md, &fake_class, NULL, &e, "addr", "4", "multifunction",
				   "on", NULL));
	assert_int_equal(bed_cfg_read(b, 4 << 3, PCI_HEADER_TYPE, 1), 0x80);
	while (dev_create(&b->md, &fake_class, NULL, &e, NULL))
		;
	assert_non_null(strstr(e.msg, "no free slot"));
	bed_free(b);
}

static void pci_intx_line_and_status(void **state)
{
	struct bed *b = bed_new();
	struct fake *f, *g;

	bed_pci(b);
	f = fake_new(b, "1");
	g = fake_new(b, "5"); /* the same line: (5 + 0) % 4 */
	pci_intx(&f->pci, true);
	assert_true(b->level[17]);
	assert_int_equal(bed_cfg_read(b, 8, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
	pci_intx(&g->pci, true);
	pci_intx(&f->pci, false);
	assert_true(b->level[17]); /* shared */
	pci_intx(&g->pci, false);
	assert_false(b->level[17]);
	pci_intx(&f->pci, true);
	bed_cfg_write(b, 8, PCI_COMMAND, PCI_COMMAND_INTX_OFF, 2);
	assert_false(b->level[17]);
	assert_int_equal(bed_cfg_read(b, 8, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
	bed_cfg_write(b, 8, PCI_COMMAND, 0, 2);
	assert_true(b->level[17]);
	bed_cfg_write(b, 8, CAP_MSIX + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE, 2);
	assert_false(b->level[17]); /* messages silence the line */
	dev_reset(&f->pci.dev, RESET_WARM);
	assert_false(b->level[17]);
	pci_intx(&f->pci, true);
	dev_free(&f->pci.dev);
	assert_false(b->level[17]);
	bed_free(b);
}

/* --- messages --- */

#define TABLE 0xf0010000ull

static struct fake *msix_new(struct bed *b)
{
	struct fake *f;

	bed_pci(b);
	f = fake_new(b, "0");
	bed_cfg_write(b, 0, 0x14, TABLE, 4);
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER, 2);
	for (unsigned v = 0; v < 8; v++) {
		bus_mem_write(b->md.bus, TABLE + 16 * v, MSG_ADDR, 8);
		bus_mem_write(b->md.bus, TABLE + 16 * v + 8, 0x40 + v, 4);
	}
	return f;
}

static void pci_msix_table(void **state)
{
	struct bed *b = bed_new();
	struct fake *f = msix_new(b);

	assert_int_equal(bed_cfg_read(b, 0, CAP_MSIX, 4), 0x00070011);
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSIX + 4, 4), 1);
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSIX + 8, 4), 0x801);
	assert_int_equal(bed_cfg_read(b, 0, PCI_CAPABILITIES, 1), CAP_MSIX);
	assert_int_equal(mem(b, TABLE + 12), 1); /* masked at first */
	pci_msix_notify(&f->pci, 0);             /* off: nothing, not even pending */
	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE, 2);
	assert_int_equal(mem(b, TABLE + 0x800), 0);
	pci_msix_notify(&f->pci, 3);
	assert_int_equal(b->msgs, 0);
	assert_int_equal(mem(b, TABLE + 0x800), 8);
	bus_mem_write(b->md.bus, TABLE + 0x800, 0, 8); /* read-only */
	assert_int_equal(mem(b, TABLE + 0x800), 8);
	bus_mem_write(b->md.bus, TABLE + 3 * 16 + 12, 0, 4);
	assert_int_equal(b->msgs, 1);
	assert_int_equal(b->msg[0].addr, MSG_ADDR);
	assert_int_equal(b->msg[0].data, 0x43);
	assert_int_equal(mem(b, TABLE + 0x800), 0);
	pci_msix_notify(&f->pci, 3);
	assert_int_equal(b->msgs, 2);
	bus_mem_write(b->md.bus, TABLE + 3 * 16 + 8, 0x77, 8); /* data and control in one */
	pci_msix_notify(&f->pci, 3);
	assert_int_equal(b->msg[2].data, 0x77);
	pci_msix_notify(&f->pci, 8); /* no such vector */
	pci_msix_notify(&f->pci, 0xffff);
	assert_int_equal(b->msgs, 3);
	/* past the table and past the pending bits */
	assert_int_equal(mem(b, TABLE + 8 * 16), 0);
	assert_int_equal(mem(b, TABLE + 0x808), 0);
	bus_mem_write(b->md.bus, TABLE + 8 * 16, ~0ull, 8);
	assert_int_equal(mem(b, TABLE + 8 * 16), 0);
	bed_free(b);
}

/* Whatever is no interrupt's address is memory's. */
static void pci_msix_to_memory(void **state)
{
	struct bed *b = bed_new();
	struct gmem_opts o = { .thp_off = true };
	struct fake *f;
	uint32_t v = 0;

	assert_int_equal(gmem_add_ram(b->md.mem, "ram", 0, 0x10000, &o, NULL), 0);
	f = msix_new(b);
	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE, 2);
	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t addr[] = { 0x1236, 0x10000, 0xfef00000 };

		bus_mem_write(b->md.bus, TABLE + 16 * i, addr[i], 8); /* bits 1:0 are 0 */
		bus_mem_write(b->md.bus, TABLE + 16 * i + 8, 0x12345678, 8);
		pci_msix_notify(&f->pci, i);
	}
	assert_int_equal(b->msgs, 0);
	assert_int_equal(gmem_read(b->md.mem, 0x1234, &v, 4), 0);
	assert_int_equal(v, 0x12345678);
	bus_mem_write(b->md.bus, TABLE + 16, 0x1200fee01000, 8); /* a large APIC id */
	pci_msix_notify(&f->pci, 1);
	assert_int_equal(b->msgs, 1);
	assert_int_equal(b->msg[0].addr, 0x1200fee01000);
	bed_free(b);
}

static void pci_msix_masks(void **state)
{
	struct bed *b = bed_new();
	struct fake *f = msix_new(b);

	for (unsigned v = 0; v < 8; v++)
		bus_mem_write(b->md.bus, TABLE + 16 * v + 12, v == 2, 4);
	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE | PCI_MSIX_FUNCTION_MASK, 2);
	for (unsigned v = 0; v < 4; v++) {
		pci_msix_notify(&f->pci, v);
		pci_msix_notify(&f->pci, v); /* pending once is enough */
	}
	assert_int_equal(b->msgs, 0);
	assert_int_equal(mem(b, TABLE + 0x800), 0xf);
	bus_mem_write(b->md.bus, TABLE + 12, 0, 4); /* the function mask still holds */
	assert_int_equal(b->msgs, 0);
	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE, 2);
	assert_int_equal(b->msgs, 3);
	assert_int_equal(mem(b, TABLE + 0x800), 4);
	/* pending is state: a copy sends it when it is unmasked there */
	struct bed *b2 = bed_new();
	struct fake *f2 = msix_new(b2);

	bed_copy(&f->pci.dev, &f2->pci.dev);
	assert_int_equal(b2->msgs, 0);
	bus_mem_write(b2->md.bus, TABLE + 2 * 16 + 12, 0, 4);
	assert_int_equal(b2->msgs, 1);
	assert_int_equal(b2->msg[0].data, 0x42);
	bed_free(b2);
	/* without bus mastering messages are lost, as other writes to memory would be */
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	pci_msix_notify(&f->pci, 0);
	assert_int_equal(b->msgs, 3);
	dev_reset(&f->pci.dev, RESET_WARM);
	assert_int_equal(f->s.msix.table[3], 1);
	assert_int_equal(f->s.msix.pending[0], 0);
	bed_free(b);
}

static void *notifier(void *arg)
{
	struct fake *f = arg;

	for (unsigned i = 0; i < 20000; i++)
		pci_msix_notify(&f->pci, i % 8);
	return NULL;
}

/* An I/O thread notifies while a vCPU masks, moves and switches off: nothing is lost at the end. */
static void pci_msix_threads(void **state)
{
	struct bed *b = bed_new();
	struct fake *f = msix_new(b);
	pthread_t thread;

	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE, 2);
	assert_int_equal(pthread_create(&thread, NULL, notifier, f), 0);
	for (unsigned i = 0; i < 2000; i++) {
		bus_mem_write(b->md.bus, TABLE + i % 8 * 16 + 12, i / 8 % 2, 4);
		bed_cfg_write(b, 0, CAP_MSIX + 2,
			      PCI_MSIX_ENABLE | (i % 5 ? 0 : PCI_MSIX_FUNCTION_MASK), 2);
		bed_cfg_write(b, 0, 0x10, 0xf0000000 + i % 2 * 4096, 4);
		(void)mem(b, TABLE + 0x800);
	}
	pthread_join(thread, NULL);
	bed_cfg_write(b, 0, CAP_MSIX + 2, PCI_MSIX_ENABLE, 2);
	for (unsigned v = 0; v < 8; v++)
		bus_mem_write(b->md.bus, TABLE + 16 * v + 12, 0, 4);
	assert_int_equal(mem(b, TABLE + 0x800), 0);
	assert_true(b->msgs >= 8);
	bed_free(b);
}

static void pci_msi_vectors(void **state)
{
	struct bed *b = bed_new();
	struct fake *f;

	bed_pci(b);
	f = fake_of(dev_create(&b->md, &fake_class, NULL, NULL, "addr", "0", "msi", "8", NULL));
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSI, 4), 0x01864005);
	bed_cfg_write(b, 0, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_ADDR, MSG_ADDR, 4);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_DATA, 0x4057, 2);
	pci_msi_notify(&f->pci, 0);
	assert_int_equal(b->msgs, 0);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_CONTROL, PCI_MSI_ENABLE | 2 << 4, 2); /* 4 vectors */
	assert_true(pci_msi_on(&f->pci));
	pci_msi_notify(&f->pci, 2);
	assert_int_equal(b->msg[0].addr, MSG_ADDR);
	assert_int_equal(b->msg[0].data, 0x4056); /* the low bits are the vector */
	pci_msi_notify(&f->pci, 6);               /* not granted: shares */
	assert_int_equal(b->msg[1].data, 0x4056);
	pci_msi_notify(&f->pci, 99);
	assert_int_equal(b->msgs, 2);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_MASK, 2, 4);
	pci_msi_notify(&f->pci, 1);
	assert_int_equal(b->msgs, 2);
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSI + PCI_MSI_PENDING, 4), 2);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_PENDING, 0xffffffff, 4); /* read-only */
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSI + PCI_MSI_PENDING, 4), 2);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_MASK, 0, 4);
	assert_int_equal(b->msgs, 3);
	assert_int_equal(b->msg[2].data, 0x4055);
	assert_int_equal(bed_cfg_read(b, 0, CAP_MSI + PCI_MSI_PENDING, 4), 0);
	/* a guest that grants more than was offered gets what was offered */
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_CONTROL, PCI_MSI_ENABLE | 7 << 4, 2);
	bed_cfg_write(b, 0, CAP_MSI + PCI_MSI_DATA, 0xffff, 2);
	pci_msi_notify(&f->pci, 0);
	assert_int_equal(b->msg[3].data, 0xfff8);
	bed_free(b);
}

/* A machine without messages: INTx is all there is. */
static void pci_no_messages(void **state)
{
	struct bed *b = bed_new();
	struct fake *f;

	b->md.events = NULL;
	bed_pci(b);
	f = fake_of(dev_create(&b->md, &fake_class, NULL, NULL, "addr", "0", "msi", "1", NULL));
	assert_int_equal(bed_cfg_read(b, 0, PCI_CAPABILITIES, 1), 0);
	assert_int_equal(bed_cfg_read(b, 0, PCI_STATUS, 2) & PCI_STATUS_CAPS, 0);
	pci_msi_notify(&f->pci, 0);
	pci_msix_notify(&f->pci, 0);
	assert_false(pci_msix_on(&f->pci));
	bed_free(b);
}

/* --- load, placement --- */

static void pci_load(void **state)
{
	struct bed *b = bed_new(), *b2 = bed_new();
	struct fake *f = msix_new(b), *f2;
	struct err e = { 0 };
	uint8_t sec[8192];
	size_t n;

	bed_pci(b2);
	f2 = fake_new(b2, "0");
	pci_intx(&f->pci, true);
	bed_copy(&f->pci.dev, &f2->pci.dev);
	assert_int_equal(mem(b2, TABLE), MSG_ADDR);
	assert_true(b2->level[16]);
	/* what is fixed must be the same */
	f->s.pci.config[PCI_DEVICE_ID] ^= 1;
	n = dev_save(&f->pci.dev, sec, sizeof(sec));
	assert_int_not_equal(n, 0);
	assert_int_equal(dev_load(&f2->pci.dev, sec, n, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "02h"));
	assert_int_equal(mem(b2, TABLE), MSG_ADDR);
	assert_int_equal(bed_cfg_read(b2, 0, 0, 4), 0x56781234);
	bed_free(b);
	bed_free(b2);
}

static void pci_placement(void **state)
{
	static const struct pci_windows w = { { 0xc000, 0xc03f },
					      { 0xf0000000, 0xf001ffff },
					      { 0x200000000, 0x20000ffff } };
	static const uint8_t irq[4] = { 5, 10, 11, 12 };
	struct bed *b = bed_new();
	struct err e = { 0 };

	bed_pci(b);
	for (unsigned slot = 0; slot < 2; slot++) {
		char addr[4] = { (char)('0' + slot) };

		fake_new(b, addr);
	}
	assert_int_equal(pci_assign(b->md.pci, &w, irq, &e), 0);
	/* 32-bit BARs first, 64-bit ones fill up and go on above */
	assert_int_equal(bed_cfg_read(b, 0, 0x10, 4), 0xf0000000);
	assert_int_equal(bed_cfg_read(b, 0, 0x14, 4), 0xf0001000);
	assert_int_equal(bed_cfg_read(b, 8, 0x10, 4), 0xf0002000);
	assert_int_equal(bed_cfg_read(b, 0, 0x20, 4), 0xf001000c);
	assert_int_equal(bed_cfg_read(b, 8, 0x20, 4), 0xc);
	assert_int_equal(bed_cfg_read(b, 8, 0x24, 4), 2);
	assert_int_equal(bed_cfg_read(b, 8, 0x18, 4), 0xc021);
	assert_int_equal(mem(b, 0x200000004), 0xc0000004);
	assert_int_equal(bed_cfg_read(b, 0, PCI_INTERRUPT_LINE, 1), 5);
	assert_int_equal(bed_cfg_read(b, 8, PCI_INTERRUPT_LINE, 1), 10);
	fake_new(b, "2");
	assert_int_equal(pci_assign(b->md.pci, &w, irq, &e), -ENOSPC);
	assert_non_null(strstr(e.msg, "fake2: no room for BAR"));
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pci_sizing),
		cmocka_unit_test(pci_moving),
		cmocka_unit_test(pci_overlap),
		cmocka_unit_test(pci_places),
		cmocka_unit_test(pci_intx_line_and_status),
		cmocka_unit_test(pci_msix_table),
		cmocka_unit_test(pci_msix_to_memory),
		cmocka_unit_test(pci_msix_masks),
		cmocka_unit_test(pci_msix_threads),
		cmocka_unit_test(pci_msi_vectors),
		cmocka_unit_test(pci_no_messages),
		cmocka_unit_test(pci_load),
		cmocka_unit_test(pci_placement),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
