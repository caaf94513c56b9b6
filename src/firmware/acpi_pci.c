/*
 * PCI in ACPI; see acpi_pci.h.
 *
 * Modelled: one host bridge with its bus, I/O and memory windows; _PRT with fixed interrupts, one
 * set for the PIC and one for the IOAPIC, chosen by _PIC.
 * Not modelled: link devices (LNKA to LNKD) with which a system could route interrupts elsewhere:
 * the board routes them before the boot as firmware would; hot-plug, _OSC.
 * References: [ACPI 6.4.3.5] address space descriptors, [ACPI 6.2.13] _PRT, [ACPI 5.8.1] _PIC.
 */
#include "firmware/acpi_pci.h"

#include <string.h>

enum { PCI_SLOTS = 32, PCI_PINS = 4 };

struct acpi_res {
	uint8_t buf[256];
	size_t n;
};

static void res_put(struct acpi_res *r, const void *p, size_t n)
{
	if (n <= sizeof(r->buf) - r->n) {
		memcpy(r->buf + r->n, p, n);
		r->n += n;
	}
}

/*
 * Word, dword or qword address space descriptor of a window that the bridge passes on (producer,
 * fixed). type: 0 memory, 1 I/O, 2 bus numbers; bytes: 2, 4 or 8.
 */
static void res_window(struct acpi_res *r, unsigned bytes, uint8_t type, uint8_t specific,
		       uint64_t first, uint64_t last)
{
	const uint64_t v[5] = { 0, first, last, 0, last - first + 1 };
	const uint16_t len = (uint16_t)(3 + 5 * bytes);
	const uint8_t head[6] = { bytes == 2   ? 0x88
				  : bytes == 4 ? 0x87
					       : 0x8a,
				  (uint8_t)len,
				  (uint8_t)(len >> 8),
				  type,
				  0x0c, /* minimum and maximum fixed, positive decode */
				  specific };

	res_put(r, head, sizeof(head));
	for (unsigned i = 0; i < 5; i++)
		res_put(r, &v[i], bytes);
}

static void acpi_pci_crs(struct aml *a, const struct board_pci *p)
{
	static const uint8_t config[8] = { 0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8 };
	static const uint8_t end[2] = { 0x79, 0 };
	struct acpi_res r = { 0 };

	res_window(&r, 2, 2, 0, 0, p->ecam ? 0 : 0xff);
	if (p->mechanism1) {
		res_put(&r, config, sizeof(config));
		res_window(&r, 2, 1, 3, 0, 0xcf7); /* 3: the whole range of addresses */
		res_window(&r, 2, 1, 3, 0xd00, 0xffff);
		res_window(&r, 4, 0, 3, 0xa0000, 0xbffff); /* cacheable, writable */
	}
	if (p->mem[1] > p->mem[0])
		res_window(&r, 4, 0, 1, p->mem[0], p->mem[1]);
	if (p->mem64[1] > p->mem64[0])
		res_window(&r, 8, 0, 3, p->mem64[0], p->mem64[1]);
	res_put(&r, end, sizeof(end));
	aml_name(a, "_CRS");
	aml_buffer(a, r.buf, r.n);
}

/* Package of packages { slot, pin, 0, GSI }; interrupts that do not exist are left out. */
static void acpi_pci_prt(struct aml *a, const char *name, const struct board_pci *p,
			 const uint8_t to[4])
{
	unsigned n = 0;

	for (unsigned i = 0; i < PCI_PINS; i++)
		n += to[i] ? PCI_SLOTS : 0;
	aml_name(a, name);
	aml_package(a, (uint8_t)n);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < PCI_PINS; pin++) {
			unsigned line = (slot + pin + p->swizzle) % 4;

			if (!to[line])
				continue;
			aml_package(a, 4);
			aml_int(a, (uint64_t)slot << 16 | 0xffff);
			aml_int(a, pin);
			aml_int(a, 0);
			aml_int(a, to[line]);
			aml_end(a);
		}
	aml_end(a);
}

/* Systems use ECAM only where motherboard resources say that it is no place for anything else. */
static void acpi_pci_reserve(struct aml *a, const struct board_pci *p)
{
	const uint32_t base = (uint32_t)p->ecam, size = 1 << 20;
	uint8_t res[14] = { 0x86, 9, 0, 1 /* Memory32Fixed, writable */ };

	memcpy(res + 4, &base, 4);
	memcpy(res + 8, &size, 4);
	res[12] = 0x79;
	aml_device(a, "ECAM");
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0C02");
	aml_name(a, "_CRS");
	aml_buffer(a, res, sizeof(res));
	aml_end(a);
}

void acpi_pci_device(struct aml *a, const struct board_pci *p)
{
	if (p->ecam)
		acpi_pci_reserve(a, p);
	aml_device(a, "PCI0");
	aml_name(a, "_HID");
	aml_eisaid(a, p->ecam ? "PNP0A08" : "PNP0A03");
	if (p->ecam) {
		aml_name(a, "_CID");
		aml_eisaid(a, "PNP0A03");
	}
	aml_name(a, "_ADR");
	aml_int(a, 0);
	aml_name(a, "_UID");
	aml_int(a, 0);
	aml_name(a, "_BBN");
	aml_int(a, 0);
	acpi_pci_crs(a, p);
	acpi_pci_prt(a, "PRTP", p, p->irq);
	acpi_pci_prt(a, "PRTA", p, p->gsi);
	aml_method(a, "_PRT", 0);
	aml_if(a);
	aml_ref(a, "PICF");
	aml_return(a);
	aml_ref(a, "PRTA");
	aml_end(a);
	aml_return(a);
	aml_ref(a, "PRTP");
	aml_end(a);
	aml_end(a);
}

void acpi_pci_pic(struct aml *a)
{
	aml_name(a, "PICF");
	aml_int(a, 0);
	aml_method(a, "_PIC", 1);
	aml_store_arg0(a, "PICF");
	aml_end(a);
}

size_t acpi_pci_mcfg(const struct board_pci *p, uint8_t *buf, size_t cap)
{
	/* 8 reserved bytes; base, segment, first and last bus, 4 reserved bytes */
	if (!p->ecam || cap < 24)
		return 0;
	memset(buf, 0, 24);
	memcpy(buf + 8, &p->ecam, 8);
	return 24;
}
