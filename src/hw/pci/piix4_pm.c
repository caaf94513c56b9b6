/*
 * PIIX4's power management function (01.3): where the ACPI registers of an acpi-pm device are.
 *
 * Modelled:     PMBASE and its enable bit in PMREGMISC, which move the device's ports; device
 *               activity registers that firmware writes are kept.
 * Not modelled: the SMBus host controller: its base register reads 0 and systems say that it is not
 *               set up (memory modules' contents are what they would read there). Device monitors,
 *               the APM control in 5Bh: the SMI command port is always decoded.
 * References:   [PIIX4 7.1 "Power management PCI configuration registers"], [PIIX4 7.2]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include "hw/pci/piix.h"

#include "hw/isa/acpi_pm.h"
#include "hw/pci/pci.h"

enum { PIIX4_PM_FUNCTION = 3, PIIX4_SCI = 9 };

struct piix4_pm {
	struct pci_dev pci;
	struct dev *pm; /* NULL: none attached */
	struct piix4_pm_state {
		struct pci_state pci;
	} s;
};

/* clang-format off */
static const struct prop piix4_pm_props[] = { PCI_PROPS(struct piix4_pm, pci), PROP_END };
/* clang-format on */

static const struct field piix4_pm_fields[] = {
	PCI_STATE_FIELDS(struct piix4_pm_state, pci),
	{ 0 },
};

static struct piix4_pm *piix4_pm_of(struct dev *d)
{
	return container_of(d, struct piix4_pm, pci.dev);
}

static void piix4_pm_written(struct pci_dev *pci, unsigned off, unsigned size)
{
	struct piix4_pm *p = container_of(pci, struct piix4_pm, pci);
	uint16_t base = (uint16_t)pci_get(pci, PIIX4_PMBASE, 2) & 0xffc0;

	if (p->pm)
		acpi_pm_place(p->pm, pci_get(pci, PIIX4_PMREGMISC, 1) & 1 ? base : 0);
}

void piix4_pm_attach(struct dev *piix4_pm, struct dev *pm)
{
	piix4_pm_of(piix4_pm)->pm = pm;
	piix4_pm_written(&piix4_pm_of(piix4_pm)->pci, 0, PCI_CONFIG_SIZE);
}

static int piix4_pm_realize(struct dev *d, struct err *e)
{
	static const struct pci_ident id = { .vendor = 0x8086,
					     .device = 0x7113,
					     .revision = 3,
					     .class = 0x068000,
					     .subsystem_vendor = 0x1af4,
					     .subsystem = 0x1100,
					     .pin = 1 };
	static const struct pci_ops ops = { .written = piix4_pm_written };
	struct piix4_pm *p = piix4_pm_of(d);
	int r = pci_realize(&p->pci, &p->s.pci, &id, &ops, PIIX_SLOT << 3 | PIIX4_PM_FUNCTION, e);

	if (r < 0)
		return r;
	pci_init(&p->pci, PCI_STATUS, 2, 0x0280); /* fast back-to-back, medium DEVSEL */
	/* Its interrupt is the SCI, whatever PIRQA is routed to. */
	pci_init(&p->pci, PCI_INTERRUPT_LINE, 1, PIIX4_SCI);
	p->pci.wmask[PCI_INTERRUPT_LINE] = 0;
	pci_init(&p->pci, PIIX4_PMBASE, 4, 1);
	pci_writable(&p->pci, PIIX4_PMBASE, 2, 0xffc0);
	pci_writable(&p->pci, 0x44, 4, ~0u);            /* CNTA */
	pci_writable(&p->pci, 0x48, 4, ~0u);            /* CNTB */
	for (unsigned off = 0x4c; off < 0x80; off += 4) /* GPICTL, DEVRESD to DEVRESJ */
		pci_writable(&p->pci, off, 4, ~0u);
	pci_writable(&p->pci, PIIX4_PMREGMISC, 1, 1);
	return 0;
}

static void piix4_pm_unrealize(struct dev *d)
{
	pci_unrealize(&piix4_pm_of(d)->pci);
}

static void piix4_pm_reset(struct dev *d, enum reset_kind kind)
{
	pci_reset(&piix4_pm_of(d)->pci);
}

static int piix4_pm_loaded(struct dev *d, struct err *e)
{
	return pci_loaded(&piix4_pm_of(d)->pci, e);
}

const struct dev_class piix4_pm_class = {
	.name = "PIIX4_PM",
	.desc = "PCI function that places the ACPI registers",
	.bus = "PCI",
	.size = sizeof(struct piix4_pm),
	.props = piix4_pm_props,
	.state = STATE_OF(struct piix4_pm, s, piix4_pm_fields, 1),
	.realize = piix4_pm_realize,
	.reset = piix4_pm_reset,
	.loaded = piix4_pm_loaded,
	.unrealize = piix4_pm_unrealize,
};
