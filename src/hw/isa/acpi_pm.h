/*
 * Addresses of the ACPI power management device, for tables (firmware/) and machines.
 *
 * Full hardware ("hw-reduced" off): FADT PM1a_EVT_BLK = base+0 (4), PM1a_CNT_BLK = base+4 (2),
 * PM_TMR_BLK = base+8 (4), GPE0_BLK = gpe (4); SMI_CMD port with ACPI_ENABLE/ACPI_DISABLE values.
 * Hardware-reduced: SLEEP_CONTROL_REG = base+0 (1), SLEEP_STATUS_REG = base+1 (1), and
 * RESET_REG = base+2 (1) with value ACPI_RESET_VALUE. There is no PM timer then.
 * SLP_TYP for S5 is ACPI_S5_TYPE in both forms.
 * Threads: under the device lock.
 */
#pragma once
#include "core/dev.h"

#define ACPI_PM_BASE     0x600  /* property "iobase"; 0: nowhere until acpi_pm_place */
#define ACPI_GPE_BASE    0xafe0 /* property "gpe" */
#define ACPI_SMI_CMD     0xb2   /* property "smi-cmd" */
#define ACPI_SCI_IRQ     9      /* property "irq" */
#define ACPI_ENABLE      0xf1
#define ACPI_DISABLE     0xf0
#define ACPI_S5_TYPE     5
#define ACPI_RESET_VALUE 1

/* The power button was pressed: PWRBTN_STS and an SCI. Hardware-reduced: GPE0/GED is the machine's.
 */
void acpi_pm_power_button(struct dev *d);

/* Set a GPE0 status bit (0..15) and raise the SCI if enabled. */
void acpi_pm_gpe(struct dev *d, unsigned bit);

/*
 * Move the PM1 and timer blocks to base, or away (0). Only for a device realized with iobase=0: a
 * bridge's function decides. They may come to lie over or under anything; other devices win there.
 */
void acpi_pm_place(struct dev *d, uint16_t base);
