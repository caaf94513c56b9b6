/*
 * microvm: the smallest board that a stock Linux kernel boots on, for direct kernel boot.
 *
 * The devices of isa.h, and what -device adds.
 *
 * Virtio-mmio slots are made with each virtio-...-device, from FEB00000h on, 200h each: there are
 * no empty ones. They share IOAPIC inputs 16 to 23, level-triggered; with acpi=off ISA interrupts.
 *
 * pcie=on adds a PCI bus: configuration space (ECAM) at E0000000h, BARs from C0000000h on,
 * interrupt lines at inputs 20 to 23. There are no I/O BARs, and only ACPI tells where it is.
 *
 * Differences from QEMU's microvm: a real power-off through ACPI's fixed hardware instead of none,
 * no fixed number of slots.
 * Threads: the machine's.
 */
#include <errno.h>

#include "hw/isa/acpi_pm.h"
#include "hw/pci/assign.h"
#include "hw/registry.h"
#include "machine/device.h"
#include "machine/isa.h"

#define MICROVM_MMIO  0xfeb00000ull
#define MICROVM_ECAM  0xe0000000ull
#define MICROVM_MEM   0xc0000000ull
#define MICROVM_MEM64 (256ull << 30) /* above any RAM that fits below it; 32 GiB */

enum { MICROVM_INTX = 20 };

/*
 * Nobody answers at the PCI configuration ports, but a dword written to CF8h must not be cut up, or
 * its second byte would reach the reset register: systems that look for PCI would reset.
 */
static int microvm_no_pci(struct machine *m, struct err *e)
{
	static const struct region_ops nothing = { .min = 1, .max = 4 };
	const struct region r = { .dev = machine_devs_find(&m->devs, "reset"),
				  .space = BUS_IO,
				  .base = 0xcf8,
				  .len = 8,
				  .ops = &nothing,
				  .flags = REGION_OVERLAP };

	return bus_claim_region(m->bus, &r, e);
}

static int microvm_slot(struct machine *m, struct dev *d, struct err *e)
{
	/* Without ACPI nothing tells the guest of inputs above 15; these ISA interrupts are free.
	 */
	static const uint8_t isa[] = { 5, 6, 7, 10, 11, 14, 15 };
	struct board *b = &m->board;
	unsigned n = b->virtio_mmios;

	if (n == TABLES_VIRTIO_MMIO)
		return err_set(e, ENOSPC, "machine microvm has %u virtio-mmio slots", n);
	b->virtio_mmio[n].base = MICROVM_MMIO + n * (uint64_t)TABLES_VIRTIO_MMIO_LEN;
	b->virtio_mmio[n].gsi = m->cfg->acpi ? 16 + n % 8 : isa[n % ARRAY_SIZE(isa)];
	dev_set_u64(d, "addr", b->virtio_mmio[n].base);
	dev_set_u64(d, "irq", b->virtio_mmio[n].gsi);
	b->virtio_mmios++;
	return 0;
}

static int microvm_pcie(struct machine *m, struct err *e)
{
	struct board_pci *b = &m->board.pci;
	struct dev *d;

	if (!m->cfg->acpi)
		return err_set(e, EINVAL,
			       "machine microvm: pcie=on needs acpi=on: only ACPI tells "
			       "the guest where the bus is");
	d = dev_new(&m->devs, &gpex_class, "pcie", e);
	if (!d)
		return -ENOMEM;
	dev_set_u64(d, "base", MICROVM_ECAM);
	dev_set_u64(d, "irq", MICROVM_INTX);
	*b = (struct board_pci){ .present = true,
				 .ecam = MICROVM_ECAM,
				 .mem = { MICROVM_MEM, MICROVM_ECAM - 1 },
				 .mem64 = { 1, 0 } };
	if (m->cfg->ram <= MICROVM_MEM64 - MICROVM_MEM) {
		b->mem64[0] = MICROVM_MEM64;
		b->mem64[1] = MICROVM_MEM64 + (32ull << 30) - 1;
	}
	for (unsigned i = 0; i < 4; i++)
		b->gsi[i] = (uint8_t)(MICROVM_INTX + i);
	return dev_realize(d, e);
}

static int microvm_build(struct machine *m, struct err *e)
{
	int r;

	if (!m->cfg->kernel)
		return err_set(e, EINVAL, "machine microvm boots only kernels: give -kernel FILE");
	r = isa_build(m, e);
	if (r == 0)
		r = microvm_no_pci(m, e);
	if (r == 0 && m->cfg->acpi)
		r = isa_pm(m, ACPI_PM_BASE, NULL, e);
	if (r == 0 && m->cfg->pcie)
		r = microvm_pcie(m, e);
	return r < 0 ? r : device_add_all(m, e);
}

static int microvm_boot(struct machine *m, struct boot_state *bs, struct err *e)
{
	const struct board_pci *b = &m->board.pci;
	const struct pci_windows w = { { 1, 0 },
				       { b->mem[0], b->mem[1] },
				       { b->mem64[0], b->mem64[1] } };
	static const uint8_t none[4] = { 0xff, 0xff, 0xff, 0xff };
	int r = b->present ? pci_assign(m->devs.pci, &w, none, e) : 0;

	return r < 0 ? r : isa_boot(m, bs, e);
}

const struct board_ops microvm_board = {
	.name = "microvm",
	.desc = "minimal machine for direct kernel boot",
	.build = microvm_build,
	.boot = microvm_boot,
	.mmio_slot = microvm_slot,
};
