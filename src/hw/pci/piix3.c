/*
 * PIIX3: the ISA bridge, and where the PCI interrupt lines end.
 *
 * Each of PIRQA to PIRQD goes to the ISA interrupt that its route register names, at the PIC and
 * IOAPIC input of that number, and besides, as on boards with an IOAPIC, to IOAPIC input 16 to 19.
 * A system uses one of the two: ISA interrupts without the IOAPIC, inputs 16 to 19 with it.
 *
 * Modelled:     PIRQ routing; registers that firmware writes (ISA wait states, XBUS decode, top of
 *               memory) are kept.
 * Not modelled: what these registers do: decoding of the ISA devices is fixed here. The DMA
 *               controllers, APM, IDE (function 1), USB (2). The level/edge ports 4D0h are the
 *               PIC's, the reset port CF9h is reset-control's.
 * References:   [PIIX3 "PCI configuration registers, function 0", "PIRQRC[A:D]"]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include <errno.h>

#include "hw/pci/pci.h"
#include "hw/pci/piix.h"

/* What an ISA interrupt may be routed to: not the timer, keyboard, cascade, clock or FPU. */
#define PIIX3_ISA_IRQS 0xdef8u

struct piix3 {
	struct pci_dev pci;
	struct irq_pin isa[4], ioapic[4];
	struct piix3_state {
		struct pci_state pci;
	} s;
};

/* clang-format off */
static const struct prop piix3_props[] = { PCI_PROPS(struct piix3, pci), PROP_END };
/* clang-format on */

static const struct field piix3_fields[] = {
	PCI_STATE_FIELDS(struct piix3_state, pci),
	{ 0 },
};

static struct piix3 *piix3_of(struct dev *d)
{
	return container_of(d, struct piix3, pci.dev);
}

static void piix3_pirq(void *opaque, unsigned line, bool level)
{
	struct piix3 *p = opaque;

	irq_set(&p->isa[line], level);
	irq_set(&p->ioapic[line], level);
}

/* Connect the pins as the route registers say; a line that is high moves over. */
static void piix3_written(struct pci_dev *pci, unsigned off, unsigned size)
{
	struct piix3 *p = container_of(pci, struct piix3, pci);
	struct machine_devs *md = pci->dev.md;

	if (off >= PIIX3_PIRQA + 4 || off + size <= PIIX3_PIRQA)
		return;
	for (unsigned i = 0; i < 4; i++) {
		uint8_t route = p->s.pci.config[PIIX3_PIRQA + i];
		unsigned irq = route & 15;
		bool on = !(route & PIIX3_PIRQ_OFF) && PIIX3_ISA_IRQS >> irq & 1;

		irq_connect(&p->isa[i], on && irq < md->n_gsi ? &md->gsi[irq] : NULL);
	}
}

static void piix3_registers(struct pci_dev *p)
{
	static const struct {
		uint8_t off, size;
		uint32_t reset, mask;
	} regs[] = {
		{ 0x4c, 1, 0x4d, 0xff },   /* IORT */
		{ 0x4e, 2, 0x03, 0xffff }, /* XBCS */
		{ 0x60, 4, 0x80808080, 0x8f8f8f8f },
		{ 0x69, 1, 0x02, 0xfe },     /* TOM */
		{ 0x6a, 2, 0x00, 0x8063 },   /* MSTAT */
		{ 0x70, 1, 0x80, 0xff },     /* MBIRQ0 */
		{ 0x76, 2, 0x0c0c, 0xffff }, /* MBDMA */
		{ 0x78, 2, 0x02, 0xffff },   /* PCSC */
		{ 0x80, 1, 0x00, 0x7f },     /* APICBASE */
		{ 0x82, 1, 0x00, 0x0f },     /* DLC */
		{ 0xa0, 1, 0x08, 0x1f },     /* SMICNTL */
		{ 0xa2, 2, 0x00, 0x00ff },   /* SMIEN */
		{ 0xa4, 4, 0x00, 0xffffffff },
		{ 0xa8, 1, 0x0f, 0xff },
		{ 0xac, 1, 0x00, 0xff },
		{ 0xae, 1, 0x00, 0xff },
	};

	for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
		pci_init(p, regs[i].off, regs[i].size, regs[i].reset);
		pci_writable(p, regs[i].off, regs[i].size, regs[i].mask);
	}
	/* An ISA bridge always decodes and masters. */
	pci_init(p, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	p->wmask[PCI_COMMAND] = 0;
	pci_init(p, PCI_STATUS, 2, 0x0200); /* medium DEVSEL */
	pci_init(p, PCI_HEADER_TYPE, 1, PCI_MULTIFUNCTION);
}

static int piix3_realize(struct dev *d, struct err *e)
{
	static const struct pci_ident id = { .vendor = 0x8086,
					     .device = 0x7000,
					     .class = 0x060100,
					     .subsystem_vendor = 0x1af4,
					     .subsystem = 0x1100 };
	static const struct pci_ops ops = { .written = piix3_written };
	struct piix3 *p = piix3_of(d);
	int r;

	p->pci.multifunction = true;
	r = pci_realize(&p->pci, &p->s.pci, &id, &ops, PIIX_SLOT << 3, e);
	if (r < 0)
		return r;
	if (p->pci.pbus->route == piix3_pirq) {
		pci_unrealize(&p->pci);
		return err_set(e, EBUSY, "the PCI bus has a PIIX3 already");
	}
	piix3_registers(&p->pci);
	for (unsigned i = 0; i < 4; i++)
		if (PIIX3_IOAPIC_GSI + i < d->md->n_gsi)
			irq_connect(&p->ioapic[i], &d->md->gsi[PIIX3_IOAPIC_GSI + i]);
	pci_bus_route(p->pci.pbus, piix3_pirq, p);
	return 0;
}

static void piix3_unrealize(struct dev *d)
{
	struct piix3 *p = piix3_of(d);

	pci_bus_route(p->pci.pbus, NULL, NULL);
	pci_unrealize(&p->pci);
	for (unsigned i = 0; i < 4; i++) {
		irq_connect(&p->isa[i], NULL);
		irq_connect(&p->ioapic[i], NULL);
	}
}

static void piix3_reset(struct dev *d, enum reset_kind kind)
{
	pci_reset(&piix3_of(d)->pci);
}

static int piix3_loaded(struct dev *d, struct err *e)
{
	return pci_loaded(&piix3_of(d)->pci, e);
}

const struct dev_class piix3_class = {
	.name = "PIIX3",
	.desc = "ISA bridge with PCI interrupt routing",
	.bus = "PCI",
	.size = sizeof(struct piix3),
	.props = piix3_props,
	.state = STATE_OF(struct piix3, s, piix3_fields, 1),
	.realize = piix3_realize,
	.reset = piix3_reset,
	.loaded = piix3_loaded,
	.unrealize = piix3_unrealize,
};
