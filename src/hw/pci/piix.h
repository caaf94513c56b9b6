/*
 * The pc board's south bridge: what boards need to know of PIIX3 (ISA bridge, 01.0) and PIIX4's
 * power management (01.3). Threads: under the device lock, or before the machine runs.
 */
#pragma once
#include "core/dev.h"

enum {
	PIIX_SLOT = 1,
	PIIX3_PIRQA = 0x60,     /* route of PIRQA, then B, C, D: ISA interrupt, or ... */
	PIIX3_PIRQ_OFF = 0x80,  /* ... none */
	PIIX3_IOAPIC_GSI = 16,  /* PIRQA to D are also IOAPIC inputs 16 to 19 */
	PIIX4_PMBASE = 0x40,    /* I/O base of the power management registers, bit 0 is 1 */
	PIIX4_PMREGMISC = 0x80, /* bit 0: they are decoded */
};

/* pm, an acpi-pm device with iobase=0, answers where the guest puts it. Before the machine runs. */
void piix4_pm_attach(struct dev *piix4_pm, struct dev *pm);
