/*
 * Names and numbers of PCI's configuration space.
 *
 * References: [PCI3.0 6.1] header, [PCI3.0 6.7] capabilities, [PCI3.0 6.8] MSI and MSI-X.
 * Threads: constants.
 */
#pragma once

enum {
	PCI_CONFIG_SIZE = 256,
	PCI_BARS = 6,
	PCI_FUNCTIONS = 256, /* of one bus: 32 slots of 8 */

	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS_PROG = 0x09,
	PCI_CLASS = 0x0a,
	PCI_CACHE_LINE = 0x0c,
	PCI_LATENCY = 0x0d,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_BARS_END = 0x28,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM_ID = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_HEADER_END = 0x40, /* capabilities and registers of the device follow */

	PCI_COMMAND_IO = 1 << 0,
	PCI_COMMAND_MEM = 1 << 1,
	PCI_COMMAND_MASTER = 1 << 2,
	PCI_COMMAND_PARITY = 1 << 6,
	PCI_COMMAND_SERR = 1 << 8,
	PCI_COMMAND_INTX_OFF = 1 << 10,

	PCI_STATUS_INTX = 1 << 3,
	PCI_STATUS_CAPS = 1 << 4,
	PCI_STATUS_W1C = 0xf900, /* parity, SERR, aborts */

	PCI_MULTIFUNCTION = 0x80, /* in the header type */

	PCI_BAR_IO = 1,    /* bit 0 */
	PCI_BAR_MEM64 = 4, /* bits 2:1 are 10b */
	PCI_BAR_PREFETCH = 8,

	PCI_CAP_MSI = 0x05,
	PCI_CAP_VENDOR = 0x09,
	PCI_CAP_MSIX = 0x11,

	/* MSI, with 64-bit addresses and masks */
	PCI_MSI_CONTROL = 2,
	PCI_MSI_ADDR = 4,
	PCI_MSI_DATA = 12,
	PCI_MSI_MASK = 16,
	PCI_MSI_PENDING = 20,
	PCI_MSI_SIZE = 24,
	PCI_MSI_ENABLE = 1 << 0, /* in the control word */
	PCI_MSI_64BIT = 1 << 7,
	PCI_MSI_MASKING = 1 << 8,

	/* MSI-X */
	PCI_MSIX_CONTROL = 2,
	PCI_MSIX_TABLE = 4,
	PCI_MSIX_PBA = 8,
	PCI_MSIX_SIZE = 12,
	PCI_MSIX_ENABLE = 1 << 15,
	PCI_MSIX_FUNCTION_MASK = 1 << 14,
	PCI_MSIX_ENTRY = 16, /* bytes of a table entry: address, data, vector control */
	PCI_MSIX_MASKED = 1, /* in the vector control */
};
