/*
 * pc: the classic PC with a PCI bus, as QEMU's pc-i440fx: i440FX host bridge, PIIX3 ISA bridge,
 * PIIX4 power management, and the ISA devices of isa.h. Boots kernels directly; firmware is to
 * come.
 *
 *   00:00.0  i440FX    configuration mechanism 1 at CF8h, CFCh
 *   00:01.0  PIIX3     PIRQA-D: ISA interrupts 10, 10, 11, 11 and IOAPIC inputs 16 to 19
 *   00:01.3  PIIX4_PM  power management at 600h
 *   00:02.0 and up: what -device and the options for disks and networks add
 *
 *   0 - 3 GiB                 RAM
 *   C0000000 - FEBFFFFF       BARs
 *   4 GiB -                   RAM above 3 GiB, then, from the next GiB on, 32 GiB for 64-bit BARs
 *
 * Before each boot it does what firmware would: BARs, interrupt routes and lines, level-triggered
 * interrupts in the PIC's ELCR, power management's place. Systems without ACPI, or that look at
 * nothing but the configuration space, find all set up.
 * Not modelled: VGA, IDE, floppy, USB (01.1 and 01.2 are free), HPET.
 * Threads: the machine's.
 */
#include <errno.h>
#include <string.h>

#include "hw/isa/acpi_pm.h"
#include "hw/pci/assign.h"
#include "hw/pci/piix.h"
#include "hw/registry.h"
#include "machine/device.h"
#include "machine/isa.h"

#define PC_MEM_FIRST  0xc0000000ull
#define PC_MEM_LAST   0xfebfffffull
#define PC_4G         (1ull << 32)
#define PC_MEM64_SIZE (32ull << 30)

enum { PC_IO_FIRST = 0xc000, PC_IO_LAST = 0xfeff, PC_FIRST_SLOT = 2 };

static const uint8_t pc_pirq_isa[4] = { 10, 10, 11, 11 };

/* 64-bit BARs begin at the next GiB after RAM. */
static uint64_t pc_mem64(const struct machine *m)
{
	uint64_t above = m->cfg->ram > PC_MEM_FIRST ? m->cfg->ram - PC_MEM_FIRST : 0;

	return (PC_4G + above + (1ull << 30) - 1) & ~((1ull << 30) - 1);
}

static void pc_describe(struct machine *m)
{
	struct board_pci *b = &m->board.pci;

	*b = (struct board_pci){ .present = true,
				 .mechanism1 = true,
				 .mem = { PC_MEM_FIRST, PC_MEM_LAST },
				 .mem64 = { pc_mem64(m), pc_mem64(m) + PC_MEM64_SIZE - 1 },
				 .swizzle = m->devs.pci->swizzle };
	for (unsigned i = 0; i < 4; i++) {
		b->gsi[i] = (uint8_t)(PIIX3_IOAPIC_GSI + i);
		b->irq[i] = pc_pirq_isa[i];
	}
}

static int pc_build(struct machine *m, struct err *e)
{
	struct dev *pm, *bridge;
	int r;

	if (!m->cfg->kernel)
		return err_set(e, EINVAL,
			       "machine pc boots only kernels yet: give -kernel FILE (there is no "
			       "firmware to boot a disk by itself)");
	if (m->cfg->pcie)
		return err_set(e, EINVAL,
			       "machine pc has conventional PCI: pcie=on is for microvm");
	if (m->cfg->hw_reduced)
		return err_set(e, EINVAL,
			       "machine pc has ACPI's full hardware: hw-reduced=on is for microvm");
	if (!dev_create(&m->devs, &i440fx_class, "i440fx", e, NULL) ||
	    !dev_create(&m->devs, &piix3_class, "piix3", e, NULL))
		return -EINVAL;
	m->devs.pci->first_slot = PC_FIRST_SLOT;
	pc_describe(m);
	r = isa_build(m, e);
	if (r == 0 && m->cfg->acpi) {
		r = isa_pm(m, 0, &pm, e);
		if (r < 0)
			return r;
		bridge = dev_create(&m->devs, &piix4_pm_class, "piix4-pm", e, NULL);
		if (!bridge)
			return -EINVAL;
		piix4_pm_attach(bridge, pm);
	}
	return r < 0 ? r : device_add_all(m, e);
}

/* The interrupts that PCI uses are level-triggered at the PIC [PIIX3 "ELCR1, ELCR2"]. */
static int pc_levels(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned half = 0; half < 2 && r == 0; half++) {
		struct kvm_irqchip chip = { .chip_id = half ? KVM_IRQCHIP_PIC_SLAVE
							    : KVM_IRQCHIP_PIC_MASTER };

		r = libkvm_vm_ioctl(m->vm, KVM_GET_IRQCHIP, &chip);
		for (unsigned i = 0; i < 4 && r >= 0; i++)
			if (pc_pirq_isa[i] / 8 == half)
				chip.chip.pic.elcr |= (uint8_t)(1 << pc_pirq_isa[i] % 8);
		if (r >= 0)
			r = libkvm_vm_ioctl(m->vm, KVM_SET_IRQCHIP, &chip);
	}
	return r < 0 ? err_set(e, -r, "the engine refuses the PIC's ELCR: %s", strerror(-r)) : 0;
}

static int pc_firmware(struct machine *m, struct err *e)
{
	const struct pci_windows w = { { PC_IO_FIRST, PC_IO_LAST },
				       { PC_MEM_FIRST, PC_MEM_LAST },
				       { m->board.pci.mem64[0], m->board.pci.mem64[1] } };
	struct pci_bus *b = m->devs.pci;
	const unsigned piix3 = PIIX_SLOT << 3, pm = PIIX_SLOT << 3 | 3;

	for (unsigned i = 0; i < 4; i++)
		pci_bus_write(b, piix3, PIIX3_PIRQA + i, pc_pirq_isa[i], 1);
	pci_bus_write(b, pm, PIIX4_PMBASE, ACPI_PM_BASE, 4);
	pci_bus_write(b, pm, PIIX4_PMREGMISC, 1, 1);
	return pci_assign(b, &w, pc_pirq_isa, e);
}

static int pc_boot(struct machine *m, struct boot_state *bs, struct err *e)
{
	int r = pc_firmware(m, e);

	if (r == 0)
		r = pc_levels(m, e);
	return r < 0 ? r : isa_boot(m, bs, e);
}

const struct board_ops pc_board = {
	.name = "pc",
	.desc = "PC with PCI (i440FX and PIIX)",
	.build = pc_build,
	.boot = pc_boot,
};
