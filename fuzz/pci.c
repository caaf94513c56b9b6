/*
 * The pc board's bus with several functions: configuration by mechanism 1, BARs moved over each
 * other and over the board's devices, interrupts and messages, snapshots, resets.
 *
 * Found by it: crashes and sanitizer reports; a BAR that answers where its register does not say;
 * an interrupt line whose level is not what pins and routes make of it; claims that stay after all
 * decoding is off; a section that is refused and yet changes something.
 */
#include "../tests/device/pci_fake.h"
#include "hw/isa/acpi_pm.h"
#include "hw/pci/assign.h"
#include "hw/pci/piix.h"
#include "hw/registry.h"
#include "machine.h"

enum { MAX_OPS = 300, FUNCTIONS = 4, SLOT = 2 };

struct fuzz {
	struct fuzz_machine m;
	bool level[FUZZ_LINES];
	struct dev *bridge; /* PIIX3 */
	struct dev *fn[FUNCTIONS];
};

static void fuzz_line(void *opaque, unsigned n, bool level)
{
	((struct fuzz *)opaque)->level[n] = level;
}

static struct pci_dev *pci_of(struct dev *d)
{
	return container_of(d, struct pci_dev, dev);
}

static void fuzz_new(struct fuzz *f)
{
	struct dev *pm, *d;

	memset(f, 0, sizeof(*f));
	fuzz_machine_new(&f->m, NULL, NULL);
	for (unsigned i = 0; i < FUZZ_LINES; i++)
		irq_line_init(&f->m.gsi[i], fuzz_line, f, i);
	BUG_ON(!dev_create(&f->m.md, &i440fx_class, NULL, NULL, NULL));
	f->bridge = dev_create(&f->m.md, &piix3_class, NULL, NULL, NULL);
	BUG_ON(!f->bridge || !dev_create(&f->m.md, &reset_class, NULL, NULL, NULL));
	pm = dev_create(&f->m.md, &acpi_pm_class, NULL, NULL, "iobase", "0", NULL);
	d = dev_create(&f->m.md, &piix4_pm_class, NULL, NULL, NULL);
	BUG_ON(!pm || !d);
	piix4_pm_attach(d, pm);
	f->m.md.pci->first_slot = SLOT;
	for (unsigned i = 0; i < FUNCTIONS; i++)
		f->fn[i] = dev_create(&f->m.md, &fake_class, NULL, NULL, "vectors", i ? "70" : "3",
				      "msi", "4", NULL);
	BUG_ON(!f->fn[FUNCTIONS - 1]);
}

static void fuzz_config(struct fuzz *f, unsigned devfn, unsigned off, unsigned size, uint32_t v,
			bool write)
{
	bus_io_write(f->m.md.bus, 0xcf8, 0x80000000u | devfn << 8 | (off & 0xfc), 4);
	if (write)
		bus_io_write(f->m.md.bus, (uint16_t)(0xcfc + (off & 3)), v, size);
	else
		bus_io_read(f->m.md.bus, (uint16_t)(0xcfc + (off & 3)), size);
}

/* Registers that matter are more likely than others, and addresses are from a few places. */
static void fuzz_config_op(struct fuzz *f, struct input *in, unsigned op)
{
	static const uint8_t regs[] = { 0x04, 0x04, 0x05, 0x10, 0x14, 0x20, 0x24, 0x3c };
	static const uint32_t places[] = { 0,          0xffffffff, 0xf0000000, 0xf0001000,
					   0xf0004000, 0xfec00000, 0xcf8,      0x600 };
	static const uint8_t who[] = { 0, 8, 11, 16, 24, 32, 40, 48 };
	unsigned devfn = who[take(in, 1) % sizeof(who)], off = (unsigned)take(in, 1);
	unsigned size = 1u << (op >> 4) % 3;
	uint32_t v = (uint32_t)take(in, size);

	if (off & 0x80 && devfn >= 16) {
		off = regs[off % 8];
		if (off >= PCI_BAR0 && off < PCI_BARS_END) {
			v = places[v % 8];
			size = 4;
		}
	}
	if (devfn == 8 && off & 0x80) /* PIRQ routes */
		off = PIIX3_PIRQA + off % 4;
	fuzz_config(f, devfn, off & ~(size - 1), size, v, op & 8);
}

static void fuzz_access(struct fuzz *f, struct input *in, unsigned op)
{
	unsigned size = 1u << (op >> 4 & 3), pick = (unsigned)take(in, 1);
	uint64_t off = take(in, 2), v = op & 8 ? take(in, size) : 0;
	struct region r;

	if (!fuzz_range(&f->m, pick % 32, &r))
		return;
	off %= r.len + 4;
	fuzz_bus(&f->m, &r, off, v, size, op & 8);
}

/* What must hold after every step. */
static void fuzz_check(struct fuzz *f)
{
	bool want[FUZZ_LINES] = { 0 }, line[4] = { 0 };

	for (unsigned i = 0; i < FUNCTIONS; i++) {
		struct pci_dev *p = pci_of(f->fn[i]);
		unsigned command = pci_get(p, PCI_COMMAND, 2);

		for (unsigned n = 0; n < PCI_BARS; n++) {
			const struct pci_bar *b = &p->bar[n];
			bool io = b->flags & PCI_BAR_IO;

			if (b->addr == PCI_UNMAPPED)
				continue;
			BUG_ON(!(command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEM)));
			BUG_ON((uint32_t)b->addr !=
			       (pci_get(p, PCI_BAR0 + 4 * n, 4) & (uint32_t) ~(b->size - 1)));
		}
		if (pci_get(p, PCI_STATUS, 2) & PCI_STATUS_INTX &&
		    !(command & PCI_COMMAND_INTX_OFF) && !pci_msix_on(p) && !pci_msi_on(p))
			line[pci_intx_line(p)] = true;
	}
	for (unsigned i = 0; i < 4; i++) {
		unsigned route = pci_get(pci_of(f->bridge), PIIX3_PIRQA + i, 1), irq = route & 15;

		want[PIIX3_IOAPIC_GSI + i] |= line[i];
		if (!(route & PIIX3_PIRQ_OFF) && 0xdef8u >> irq & 1)
			want[irq] |= line[i];
	}
	for (unsigned i = 0; i < FUZZ_LINES; i++)
		BUG_ON(want[i] != f->level[i] && i != ACPI_SCI_IRQ);
}

static size_t fuzz_ranges(struct fuzz *f, enum bus_space sp)
{
	struct region r;
	size_t n = 0;

	while (bus_region_at(f->m.md.bus, sp, n, &r))
		n++;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct fuzz f;
	size_t ports;

	fuzz_new(&f);
	ports = fuzz_ranges(&f, BUS_IO);
	for (int ops = 0; in.n && ops < MAX_OPS; ops++) {
		unsigned op = (unsigned)take(&in, 1), pick = op >> 4 & (FUNCTIONS - 1);

		switch (op & 7) {
		case 0: pci_intx(pci_of(f.fn[pick]), op >> 7); break;
		case 1:
			pci_msix_notify(pci_of(f.fn[pick]), (unsigned)take(&in, 1));
			pci_msi_notify(pci_of(f.fn[pick]), op >> 7);
			break;
		case 2: fuzz_state(op >> 7 ? f.bridge : f.fn[pick], &in, 8, true); break;
		case 3:
			if (op >> 5 == 7)
				machine_devs_reset(&f.m.md, RESET_WARM);
			else
				loop_advance(f.m.md.loop, take(&in, 3));
			break;
		case 4: fuzz_access(&f, &in, (unsigned)take(&in, 1)); break;
		default: fuzz_config_op(&f, &in, (unsigned)take(&in, 1)); break;
		}
		fuzz_check(&f);
	}
	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_config_write(pci_of(f.fn[i]), PCI_COMMAND, 0, 2);
	pci_bus_write(f.m.md.pci, PIIX_SLOT << 3 | 3, PIIX4_PMREGMISC, 0, 1);
	BUG_ON(fuzz_ranges(&f, BUS_MEM) || fuzz_ranges(&f, BUS_IO) != ports);
	machine_devs_reset(&f.m.md, RESET_COLD);
	fuzz_check(&f);
	machine_devs_free(&f.m.md);
	fuzz_machine_free(&f.m);
	return 0;
}
