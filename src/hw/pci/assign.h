/*
 * What a PC's firmware does to a PCI bus before it starts a system: give each BAR an address,
 * switch decoding on, and note in the interrupt line registers what the lines lead to. Boards that
 * boot kernels without firmware call it after each reset. Threads: under the device lock, or before
 * the machine runs.
 */
#pragma once
#include "hw/pci/pci.h"

/* First and last byte. A window with last < first is empty. */
struct pci_window {
	uint64_t first, last;
};

struct pci_windows {
	struct pci_window io, mem, mem64; /* mem below 4 GiB; mem64 above */
};

/*
 * Place all BARs, larger ones first. 64-bit BARs go below 4 GiB as long as there is room, where
 * old systems find them, too. irq: what each of the bus's four lines is on the PIC. -ENOSPC names
 * the device that does not fit.
 */
int pci_assign(struct pci_bus *b, const struct pci_windows *w, const uint8_t irq[4],
	       struct err *e) must_check;
