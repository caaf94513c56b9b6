/*
 * Messages instead of interrupt lines: MSI and MSI-X of a PCI function.
 *
 * A message is a write of a word to an address: at FEExxxxxh the engine turns it into an interrupt
 * (machine_devs.events), anywhere else it goes to memory, as all that a device writes. Masked
 * vectors are remembered as pending and sent when they are unmasked.
 *
 * Modelled:     MSI with 64-bit addresses, up to 32 vectors and per-vector masks; MSI-X with table
 *               and pending bits in a BAR of their own. Messages need bus mastering, as any write
 *               of a device to memory does; without it they are lost.
 * Not modelled: MSI-X tables that share a BAR with registers.
 * References:   [PCI3.0 6.8], [SDM3 10.11.1] addresses of interrupts.
 * Threads:      the notify functions and msi_on, msix_on: any thread (msg_lock of the function
 *               covers table, masks, pending and enable bits); the rest under the device lock.
 */
#pragma once
#include "hw/pci/pci.h"

enum { PCI_MSIX_MAX = 256 }; /* vectors of a function */

/* A member "msix" of the state of a device that has MSI-X. */
struct pci_msix_state {
	uint32_t table[PCI_MSIX_MAX * 4];
	uint32_t pending[PCI_MSIX_MAX / 32];
};

/* clang-format off */
#define PCI_MSIX_FIELDS(T, m) ST_ARR(T, m.table), ST_ARR(T, m.pending)
/* clang-format on */

/*
 * During realize: offer n vectors (MSI: a power of two up to 32; MSI-X: 1 to PCI_MSIX_MAX, in BAR
 * number bar). On a machine without messages nothing is offered, and INTx remains.
 */
void pci_msi_init(struct pci_dev *p, unsigned n);
void pci_msix_init(struct pci_dev *p, struct pci_msix_state *s, unsigned bar, unsigned n);

/* Has the guest switched it on? INTx is silent then. */
bool pci_msi_on(struct pci_dev *p);
bool pci_msix_on(struct pci_dev *p);

/* Vector v has something to say. Ignored when it is off or there is no such vector. */
void pci_msi_notify(struct pci_dev *p, unsigned v);
void pci_msix_notify(struct pci_dev *p, unsigned v);

/* For pci.c, with msg_lock held. */
void pci_msg_reset(struct pci_dev *p);
void pci_msg_flush(struct pci_dev *p);
bool pci_msg_enabled(const struct pci_dev *p);
