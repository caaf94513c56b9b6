/*
 * microvm: the smallest board that a stock Linux kernel boots on, for direct kernel boot.
 *
 * The devices of isa.h, and what -device adds.
 *
 * Differences from QEMU's microvm: a real power-off through ACPI's fixed hardware instead of none,
 * and no PCI, no virtio-mmio yet.
 * Threads: the machine's.
 */
#include <errno.h>

#include "hw/isa/acpi_pm.h"
#include "machine/isa.h"

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
	return r < 0 ? r : machine_devices(m, e);
}

const struct board_ops microvm_board = {
	.name = "microvm",
	.desc = "minimal machine for direct kernel boot",
	.nic = "virtio-net-device",
	.build = microvm_build,
	.boot = isa_boot,
};
