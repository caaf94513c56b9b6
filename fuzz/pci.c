/*
 * The pc board's bus with several functions: configuration by mechanism 1, BARs moved over each
 * other and over the board's devices, interrupts and messages, snapshots, resets.
 *
 * Found by it: crashes and sanitizer reports; a BAR that answers where its register does not say;
 * an interrupt line whose level is not what pins and routes make of it; claims that stay after all
 * decoding is off; a section that is refused and yet changes something.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "fuzz.h"
#include "hw/isa/acpi_pm.h"
#include "hw/pci/assign.h"
#include "hw/pci/msi.h"
#include "hw/pci/piix.h"
#include "hw/registry.h"

enum { LINES = 24, MAX_OPS = 300, FUNCTIONS = 4, SLOT = 2 };

struct input {
	const uint8_t *p;
	size_t n;
};

struct fuzz {
	struct clock clock;
	struct runstate run;
	struct irq_line gsi[LINES];
	bool level[LINES];
	struct machine_devs md;
	struct dev *bridge; /* PIIX3 */
	struct dev *fn[FUNCTIONS];
};

/* A function with all kinds of BARs, MSI, MSI-X and INTx. */
struct fake {
	struct pci_dev pci;
	struct fake_state {
		struct pci_state pci;
		struct pci_msix_state msix;
	} s;
};

static const struct field fake_fields[] = {
	PCI_STATE_FIELDS(struct fake_state, pci),
	PCI_MSIX_FIELDS(struct fake_state, msix),
	{ 0 },
};

static const struct prop fake_props[] = { PCI_PROPS(struct fake, pci), PROP_END };

static struct fake *fake_of(struct dev *d)
{
	return container_of(d, struct fake, pci.dev);
}

static int fake_realize(struct dev *d, struct err *e)
{
	static const struct pci_ident id = { .vendor = 1, .device = 1, .pin = 1 };
	static const struct region_ops nothing = { .min = 1, .max = 4 };
	static const struct pci_ops ops = { 0 };
	struct fake *f = fake_of(d);
	int r = pci_realize(&f->pci, &f->s.pci, &id, &ops, PCI_SLOT_ANY, e);

	if (r < 0)
		return r;
	pci_add_bar(&f->pci, 0, PCI_BAR_IO, 32, &nothing);
	pci_add_bar(&f->pci, 2, 0, 16, &nothing);
	pci_add_bar(&f->pci, 4, PCI_BAR_MEM64, 1 << 14, &nothing);
	pci_msix_init(&f->pci, &f->s.msix, 1, f->pci.devfn % 16 ? 70 : 3);
	pci_msi_init(&f->pci, 4);
	return 0;
}

static void fake_unrealize(struct dev *d)
{
	pci_unrealize(&fake_of(d)->pci);
}

static void fake_reset(struct dev *d, enum reset_kind k)
{
	pci_reset(&fake_of(d)->pci);
}

static int fake_loaded(struct dev *d, struct err *e)
{
	return pci_loaded(&fake_of(d)->pci, e);
}

static const struct dev_class fake_class = {
	.name = "fake",
	.desc = "a PCI function",
	.bus = "PCI",
	.size = sizeof(struct fake),
	.props = fake_props,
	.state = STATE_OF(struct fake, s, fake_fields, 1),
	.realize = fake_realize,
	.reset = fake_reset,
	.loaded = fake_loaded,
	.unrealize = fake_unrealize,
};

static uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;

	n = MIN(n, in->n);
	memcpy(&v, in->p, n);
	in->p += n;
	in->n -= n;
	return v;
}

static int fuzz_msi(void *opaque, uint64_t addr, uint32_t data)
{
	BUG_ON(addr & 3);
	return 0;
}

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
	static const struct event_ops events = { .msi = fuzz_msi };
	struct dev *pm, *d;

	memset(f, 0, sizeof(*f));
	clock_init_virtual(&f->clock, 1, 1781524800000000000);
	f->md.loop = loop_new(&f->clock, NULL);
	f->md.bus = bus_new(NULL);
	runstate_init(&f->run, f->md.loop, NULL, NULL);
	f->md.run = &f->run;
	f->md.gsi = f->gsi;
	f->md.n_gsi = LINES;
	f->md.events = &events;
	for (unsigned i = 0; i < LINES; i++)
		irq_line_init(&f->gsi[i], fuzz_line, f, i);
	loop_set_lock(f->md.loop, bus_lock_of(f->md.bus));
	BUG_ON(!dev_create(&f->md, &i440fx_class, NULL, NULL, NULL));
	f->bridge = dev_create(&f->md, &piix3_class, NULL, NULL, NULL);
	BUG_ON(!f->bridge || !dev_create(&f->md, &reset_class, NULL, NULL, NULL));
	pm = dev_create(&f->md, &acpi_pm_class, NULL, NULL, "iobase", "0", NULL);
	d = dev_create(&f->md, &piix4_pm_class, NULL, NULL, NULL);
	BUG_ON(!pm || !d);
	piix4_pm_attach(d, pm);
	f->md.pci->first_slot = SLOT;
	for (unsigned i = 0; i < FUNCTIONS; i++)
		f->fn[i] = dev_create(&f->md, &fake_class, NULL, NULL, NULL);
	BUG_ON(!f->fn[FUNCTIONS - 1]);
}

static void fuzz_config(struct fuzz *f, unsigned devfn, unsigned off, unsigned size, uint32_t v,
			bool write)
{
	bus_io_write(f->md.bus, 0xcf8, 0x80000000u | devfn << 8 | (off & 0xfc), 4);
	if (write)
		bus_io_write(f->md.bus, (uint16_t)(0xcfc + (off & 3)), v, size);
	else
		bus_io_read(f->md.bus, (uint16_t)(0xcfc + (off & 3)), size);
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

/* Range number n of both spaces, going round. */
static bool fuzz_range(struct fuzz *f, unsigned n, struct region *r)
{
	for (unsigned left = n;;) {
		unsigned before = left;

		for (int sp = 0; sp < BUS_SPACES; sp++)
			for (size_t i = 0; bus_region_at(f->md.bus, (enum bus_space)sp, i, r); i++)
				if (!left--)
					return true;
		if (before == left)
			return false;
	}
}

static void fuzz_access(struct fuzz *f, struct input *in, unsigned op)
{
	unsigned size = 1u << (op >> 4 & 3), pick = (unsigned)take(in, 1);
	uint64_t off = take(in, 2), v = op & 8 ? take(in, size) : 0;
	struct region r;

	if (!fuzz_range(f, pick % 32, &r))
		return;
	off %= r.len + 4;
	if (r.space == BUS_IO && op & 8)
		bus_io_write(f->md.bus, (uint16_t)(r.base + off), v, MIN(size, 4u));
	else if (r.space == BUS_IO)
		bus_io_read(f->md.bus, (uint16_t)(r.base + off), MIN(size, 4u));
	else if (op & 8)
		bus_mem_write(f->md.bus, r.base + off, v, size);
	else
		bus_mem_read(f->md.bus, r.base + off, size);
}

static void fuzz_snapshot(struct dev *d, struct input *in)
{
	size_t cap = state_save_size(&d->cls->state), n;
	uint8_t *a = malloc(cap), *b = malloc(cap);
	unsigned spoil = (unsigned)take(in, 1) % 8;

	n = dev_save(d, a, cap);
	memcpy(b, a, n);
	while (spoil--)
		b[take(in, 3) % n] = (uint8_t)take(in, 1);
	if (dev_load(d, b, n, NULL)) {
		dev_save(d, b, cap);
		BUG_ON(memcmp(a, b, n)); /* refused means unchanged */
	} else {
		dev_save(d, a, cap);
		BUG_ON(memcmp(a, b, n)); /* taken means taken as it is */
	}
	free(a);
	free(b);
}

/* What must hold after every step. */
static void fuzz_check(struct fuzz *f)
{
	bool want[LINES] = { 0 }, line[4] = { 0 };

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
	for (unsigned i = 0; i < LINES; i++)
		BUG_ON(want[i] != f->level[i] && i != ACPI_SCI_IRQ);
}

static size_t fuzz_ranges(struct fuzz *f, enum bus_space sp)
{
	struct region r;
	size_t n = 0;

	while (bus_region_at(f->md.bus, sp, n, &r))
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
		case 2: fuzz_snapshot(op >> 7 ? f.bridge : f.fn[pick], &in); break;
		case 3:
			if (op >> 5 == 7)
				machine_devs_reset(&f.md, RESET_WARM);
			else
				loop_advance(f.md.loop, take(&in, 3));
			break;
		case 4: fuzz_access(&f, &in, (unsigned)take(&in, 1)); break;
		default: fuzz_config_op(&f, &in, (unsigned)take(&in, 1)); break;
		}
		fuzz_check(&f);
	}
	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_config_write(pci_of(f.fn[i]), PCI_COMMAND, 0, 2);
	pci_bus_write(f.md.pci, PIIX_SLOT << 3 | 3, PIIX4_PMREGMISC, 0, 1);
	BUG_ON(fuzz_ranges(&f, BUS_MEM) || fuzz_ranges(&f, BUS_IO) != ports);
	machine_devs_reset(&f.md, RESET_COLD);
	fuzz_check(&f);
	machine_devs_free(&f.md);
	runstate_destroy(&f.run);
	bus_free(f.md.bus);
	loop_free(f.md.loop);
	return 0;
}
