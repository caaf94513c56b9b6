/*
 * For boards: what they share as PCs.
 *
 *   port     GSI  device
 *   020 0A0       PIC pair (engine)            FEC00000 IOAPIC, FEE00000 LAPIC (engine)
 *   040 061  0    PIT, speaker gate (engine)
 *   060 064  1,12 i8042 keyboard controller (i8042=off leaves it out)
 *   070      8    RTC with CMOS
 *   080           POST code port
 *   092           A20 and fast reset
 *   0B2           ACPI: SMI command port
 *   3F8      4    COM1; 2F8/3 COM2, 3E8/4 COM3, 2E8/3 COM4 with more -serial options
 *   600      9    ACPI power management (PM1, PM timer); AFE0 GPE0
 *   CF9           reset control
 *
 * Threads: one, before the machine runs or while its vCPUs are parked.
 */
#pragma once
#include "machine/machine.h"

/* All of the table but power management, as m->cfg wants it, and what the tables say about it. */
int isa_build(struct machine *m, struct err *e) must_check;

/* Power management at iobase (0: something else places it); *pm (may be NULL): the device. */
int isa_pm(struct machine *m, uint16_t iobase, struct dev **pm, struct err *e) must_check;

/* Tables and kernel into memory: a boot without firmware. As board_ops.boot. */
int isa_boot(struct machine *m, struct boot_state *bs, struct err *e) must_check;
