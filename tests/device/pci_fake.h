/*
 * A PCI function for tests and fuzzing: registers in a 4-KiB memory BAR 0 and a 32-port BAR 2, a
 * 64-bit BAR 4 of 64 KiB, MSI-X in BAR 1 or MSI, INTA. The registers read their own address's page.
 */
#pragma once
#include "hw/pci/msi.h"
#include "hw/pci/pci.h"

struct fake {
	struct pci_dev pci;
	uint8_t vectors, msi; /* MSI-X, MSI */
	unsigned moves;       /* calls of mapped() */
	uint64_t written;     /* last write to BAR 0 */
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

static const struct prop fake_props[] = {
	PCI_PROPS(struct fake, pci),
	PROP(struct fake, vectors, 8, "MSI-X vectors"),
	PROP(struct fake, msi, 0, "MSI vectors"),
	PROP_END,
};

static inline struct fake *fake_of(struct dev *d)
{
	return container_of(d, struct fake, pci.dev);
}

static uint64_t fake_read0(struct dev *d, uint64_t off, unsigned size)
{
	return 0xa0000000 | off;
}

static uint64_t fake_read2(struct dev *d, uint64_t off, unsigned size)
{
	return 0xb0000000 | off;
}

static uint64_t fake_read4(struct dev *d, uint64_t off, unsigned size)
{
	return 0xc0000000 | off;
}

static void fake_write0(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	fake_of(d)->written = val;
}

static const struct region_ops fake_bar0 = { fake_read0, fake_write0, 4, 4 };
static const struct region_ops fake_bar2 = { fake_read2, NULL, 4, 4 };
static const struct region_ops fake_bar4 = { fake_read4, NULL, 4, 4 };

static void fake_mapped(struct pci_dev *p, unsigned bar, uint64_t addr)
{
	container_of(p, struct fake, pci)->moves++;
}

static int fake_realize(struct dev *d, struct err *e)
{
	static const struct pci_ident id = {
		.vendor = 0x1234, .device = 0x5678, .class = 0xff0000, .pin = 1
	};
	static const struct pci_ops ops = { .mapped = fake_mapped };
	struct fake *f = fake_of(d);
	int r = pci_realize(&f->pci, &f->s.pci, &id, &ops, PCI_SLOT_ANY, e);

	if (r < 0)
		return r;
	pci_add_bar(&f->pci, 0, 0, 4096, &fake_bar0);
	pci_add_bar(&f->pci, 2, PCI_BAR_IO, 32, &fake_bar2);
	pci_add_bar(&f->pci, 4, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, 0x10000, &fake_bar4);
	if (f->vectors)
		pci_msix_init(&f->pci, &f->s.msix, 1, f->vectors);
	if (f->msi)
		pci_msi_init(&f->pci, f->msi);
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
	.desc = "a PCI function for tests",
	.bus = "PCI",
	.size = sizeof(struct fake),
	.props = fake_props,
	.state = STATE_OF(struct fake, s, fake_fields, 1),
	.realize = fake_realize,
	.reset = fake_reset,
	.loaded = fake_loaded,
	.unrealize = fake_unrealize,
};
