/*
 * A host bridge whose configuration space is plain memory (ECAM), for boards without a chipset.
 *
 * Modelled:     the window: function number in address bits 19:12, register in 11:0, bus in 27:20;
 *               the four INTx lines on four consecutive GSIs.
 * Not modelled: a function of its own (QEMU's gpex has one that does nothing), more than one bus.
 * Reference:    [PCIE 7.2.2 "PCI Express Enhanced Configuration Access Mechanism"]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include <errno.h>

#include "hw/pci/pci.h"

enum { GPEX_BUS_SHIFT = 20, GPEX_FN_SHIFT = 12 };

struct gpex {
	struct dev dev;
	uint64_t base;
	uint8_t irq;
	struct pci_bus *pci; /* its own */
	struct irq_pin pin[4];
};

/* clang-format off */
static const struct prop gpex_props[] = {
	PROP(struct gpex, base, 0xe0000000, "address of the configuration window, 1 MiB"),
	PROP(struct gpex, irq, 16, "GSI of the first of four interrupt lines"),
	PROP_END
};
/* clang-format on */

static struct gpex *gpex_of(struct dev *d)
{
	return container_of(d, struct gpex, dev);
}

static uint64_t gpex_read(struct dev *d, uint64_t off, unsigned size)
{
	return pci_bus_read(gpex_of(d)->pci, (unsigned)off >> GPEX_FN_SHIFT, off & 0xfff, size);
}

static void gpex_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	pci_bus_write(gpex_of(d)->pci, (unsigned)off >> GPEX_FN_SHIFT, off & 0xfff, (uint32_t)val,
		      size);
}

static const struct region_ops gpex_window = { gpex_read, gpex_write, 1, 4 };

static void gpex_intx(void *opaque, unsigned line, bool level)
{
	irq_set(&((struct gpex *)opaque)->pin[line], level);
}

static void gpex_unrealize(struct dev *d)
{
	struct gpex *g = gpex_of(d);

	pci_bus_free(g->pci);
	for (unsigned i = 0; i < 4; i++)
		irq_connect(&g->pin[i], NULL);
}

static int gpex_realize(struct dev *d, struct err *e)
{
	struct gpex *g = gpex_of(d);
	int r = bus_claim_mem(d, g->base, 1u << GPEX_BUS_SHIFT, &gpex_window, e);

	if (r < 0)
		return r;
	g->pci = pci_bus_new(d, "pcie.0", e);
	r = g->pci ? 0 : -EEXIST;
	for (unsigned i = 0; i < 4 && r == 0; i++)
		r = dev_irq(d, &g->pin[i], g->irq + i, e);
	if (r < 0)
		gpex_unrealize(d);
	else
		pci_bus_route(g->pci, gpex_intx, g);
	return r;
}

static void gpex_reset(struct dev *d, enum reset_kind kind)
{
	/* The functions are devices of the machine's and are reset by it. */
}

const struct dev_class gpex_class = {
	.name = "gpex-pcihost",
	.desc = "PCI host bridge with a memory-mapped configuration space",
	.size = sizeof(struct gpex),
	.props = gpex_props,
	.state = STATE_NONE,
	.realize = gpex_realize,
	.reset = gpex_reset,
	.unrealize = gpex_unrealize,
};
