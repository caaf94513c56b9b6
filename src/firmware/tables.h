/*
 * What the guest reads about the board: ACPI tables, or the older MP tables.
 *
 * Both are built in host memory from one description and claimed in guest memory before the
 * kernel. Threads: one, before the vCPUs run.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "firmware/place.h"

enum {
	TABLES_CPUS = 256,
	TABLES_SERIALS = 4,
	TABLES_VIRTIO_MMIO = 64,
	TABLES_VIRTIO_MMIO_LEN = 0x200,
	TABLES_IOAPIC = 0xfec00000u,
	TABLES_LAPIC = 0xfee00000u
};

/* A PCI bus, number 0 of segment 0. Windows: first and last address, empty when last is less. */
struct board_pci {
	bool present;
	bool mechanism1; /* configuration ports CF8h-CFFh */
	uint64_t ecam;   /* or configuration space in memory, 1 MiB; 0: none */
	uint64_t mem[2], mem64[2];
	/* Interrupt pin n (from 0) of slot s is line (s + n + swizzle) % 4: this GSI with the
	 * IOAPIC, this IRQ with the PIC (0: none there). */
	unsigned swizzle;
	uint8_t gsi[4], irq[4];
};

struct board {
	unsigned cpus;                 /* 1..TABLES_CPUS present processors; the first one boots */
	uint32_t apic_id[TABLES_CPUS]; /* of each */
	unsigned serials;              /* COM ports 1..n */
	uint16_t serial_port[TABLES_SERIALS];
	uint8_t serial_irq[TABLES_SERIALS];
	bool keyboard; /* an i8042 at 60h/64h */
	bool rtc;
	/* ACPI power management hardware: fixed, as a PC's, or "hardware-reduced". */
	bool hw_reduced;
	uint16_t pm_base, gpe_base, smi_cmd; /* see hw/isa/acpi_pm.h */
	uint8_t acpi_enable, acpi_disable, s5_type, sci;
	uint16_t reset_port; /* 0: none */
	uint8_t reset_value;
	struct board_pci pci;
	struct {
		uint64_t base;
		uint32_t gsi; /* level-triggered, active high, shared */
	} virtio_mmio[TABLES_VIRTIO_MMIO];
	unsigned virtio_mmios;
};

/* RSDP, XSDT, FADT, FACS, MADT and DSDT at PLACE_TABLES. *rsdp is where the RSDP went. */
int acpi_build(struct place *p, const struct board *b, gpa_t *rsdp, struct err *e) must_check;

/* The MP floating pointer in the EBDA and the configuration table at PLACE_MPTABLE. */
int mptable_build(struct place *p, const struct board *b, struct err *e) must_check;

/* BIOS data area: base memory size, EBDA segment, COM ports. Kernels look there for the tables. */
int bda_build(struct place *p, const struct board *b, struct err *e) must_check;
