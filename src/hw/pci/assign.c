/* See assign.h. */
#include "hw/pci/assign.h"

#include <errno.h>
#include <inttypes.h>

/* The next free aligned place of a window; false when there is no room. */
static bool pci_window_take(struct pci_window *w, uint64_t size, uint64_t *addr)
{
	uint64_t at = (w->first + size - 1) & ~(size - 1);

	if (at < w->first || at > w->last || size - 1 > w->last - at)
		return false;
	*addr = at;
	if (at + size - 1 == w->last)
		*w = (struct pci_window){ 1, 0 }; /* full; and the end of all does not wrap */
	else
		w->first = at + size;
	return true;
}

static int pci_place_bar(struct pci_dev *p, unsigned n, struct pci_windows *w, struct err *e)
{
	const struct pci_bar *b = &p->bar[n];
	unsigned off = PCI_BAR0 + 4 * n;
	bool io = b->flags & PCI_BAR_IO, wide = b->flags & PCI_BAR_MEM64;
	uint64_t addr = 0;

	if (!pci_window_take(io ? &w->io : &w->mem, b->size, &addr) &&
	    !(wide && pci_window_take(&w->mem64, b->size, &addr)))
		return err_set(e, ENOSPC,
			       "%s: no room for BAR %u (%" PRIu64 " bytes of %s addresses): fewer "
			       "devices, or smaller ones, are needed",
			       p->dev.id, n, b->size, io ? "I/O" : "memory");
	pci_config_write(p, off, (uint32_t)addr, 4);
	if (wide)
		pci_config_write(p, off + 4, (uint32_t)(addr >> 32), 4);
	return 0;
}

/* All BARs of one size; wide: the 64-bit ones, or the others. */
static int pci_place_size(struct pci_bus *b, struct pci_windows *w, uint64_t size, bool wide,
			  struct err *e)
{
	int r = 0;

	for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
		for (unsigned n = 0; b->fn[f] && n < PCI_BARS && r == 0; n++)
			if (b->fn[f]->bar[n].size == size &&
			    !(b->fn[f]->bar[n].flags & PCI_BAR_MEM64) == !wide)
				r = pci_place_bar(b->fn[f], n, w, e);
	return r;
}

static void pci_enable(struct pci_dev *p, const uint8_t irq[4])
{
	uint32_t decode = PCI_COMMAND_IO | PCI_COMMAND_MEM;

	if (p->reset[PCI_INTERRUPT_PIN])
		pci_config_write(p, PCI_INTERRUPT_LINE, irq[pci_intx_line(p)], 1);
	/* Bits that the function does not have stay 0. */
	pci_config_write(p, PCI_COMMAND, pci_get(p, PCI_COMMAND, 2) | decode, 2);
}

int pci_assign(struct pci_bus *b, const struct pci_windows *w, const uint8_t irq[4], struct err *e)
{
	struct pci_windows left = *w;
	int r = 0;

	for (int wide = 0; wide < 2; wide++)
		for (unsigned shift = 63; shift >= 2 && r == 0; shift--)
			r = pci_place_size(b, &left, 1ull << shift, wide, e);
	for (unsigned f = 0; f < PCI_FUNCTIONS && r == 0; f++)
		if (b->fn[f])
			pci_enable(b->fn[f], irq);
	return r;
}
