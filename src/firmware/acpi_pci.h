/*
 * The PCI parts of the ACPI tables, for acpi.c. Threads: one, before the vCPUs run.
 */
#pragma once
#include "firmware/aml.h"
#include "firmware/tables.h"

/* Inside \\_SB: the device PCI0 with its windows and interrupt routing. */
void acpi_pci_device(struct aml *a, const struct board_pci *p);

/* At the top: _PIC, with which a system says that it uses the IOAPIC, and what PCI0 keeps of it. */
void acpi_pci_pic(struct aml *a);

/* The body of the MCFG table (without header): its length; 0 without ECAM. */
size_t acpi_pci_mcfg(const struct board_pci *p, uint8_t *buf, size_t cap);
