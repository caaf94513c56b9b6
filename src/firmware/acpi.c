/*
 * ACPI tables: RSDP, XSDT, FADT, FACS, MADT, DSDT, and MCFG where PCI configuration is memory.
 *
 * Modelled: fixed power management hardware (PM1a, PM timer, GPE0, SMI_CMD hand-over, power button
 * as a fixed feature), reset register, processors, the IOAPIC with the PC's overrides (IRQ 0 on
 * input 2, the SCI level-triggered), S5, COM ports, RTC, keyboard and virtio-mmio with their
 * resources.
 * Hardware-reduced: sleep and reset registers only; a stock Debian kernel powers off with either.
 * PCI is in acpi_pci.c.
 * Not modelled: S3, processor objects and hot-plug, SRAT.
 * References: [ACPI 5.2.5] RSDP, [ACPI 5.2.8] XSDT, [ACPI 5.2.9] FADT, [ACPI 5.2.10] FACS,
 * [ACPI 5.2.12] MADT. Threads: one, before the vCPUs run.
 */
#include <errno.h>
#include <string.h>

#include "firmware/acpi_pci.h"
#include "firmware/aml.h"
#include "firmware/tables.h"

enum { ACPI_DSDT_MAX = 16384, ACPI_HEADER = 36 };

enum {
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_SLP_BUTTON = 1 << 5, /* no fixed sleep button */
	FADT_FIX_RTC = 1 << 6,    /* no fixed RTC wake status */
	FADT_RESET_REG_SUP = 1 << 10,
	FADT_HW_REDUCED = 1 << 20,
	BOOT_LEGACY_DEVICES = 1 << 0,
	BOOT_8042 = 1 << 1,
	BOOT_NO_VGA = 1 << 2,
	BOOT_NO_RTC = 1 << 5,
};

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_gas {
	uint8_t space, width, bit_offset, access;
	uint64_t address;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t checksum2, reserved[3];
} __attribute__((packed));

struct acpi_fadt {
	struct acpi_header h;
	uint32_t facs, dsdt;
	uint8_t model, profile;
	uint16_t sci;
	uint32_t smi_cmd;
	uint8_t enable, disable, s4bios, pstate_cnt;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base;
	uint8_t cst_cnt;
	uint16_t c2_lat, c3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved;
	uint32_t flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct acpi_gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr;
	struct acpi_gas x_gpe0, x_gpe1, sleep_control, sleep_status;
	uint64_t hypervisor;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT revision 6");

struct acpi_facs {
	char signature[4];
	uint32_t length, hw_signature, waking_vector, global_lock, flags;
	uint64_t x_waking_vector;
	uint8_t version, reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_facs) == 64, "FACS");

/* Where the next table goes. */
struct acpi_out {
	uint8_t *host;
	gpa_t base;
	size_t len, cap;
};

static uint8_t acpi_sum(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *b++);
	return (uint8_t)-s;
}

static void acpi_header(void *table, const char *signature, uint8_t revision, size_t len)
{
	struct acpi_header *h = table;

	memcpy(h->signature, signature, 4);
	h->length = (uint32_t)len;
	h->revision = revision;
	h->checksum = 0;
	memcpy(h->oem_id, "KVASIR", 6);
	memcpy(h->oem_table_id, "KVASIR  ", 8);
	h->oem_revision = 1;
	memcpy(h->creator, "KVSR", 4);
	h->creator_revision = 1;
	h->checksum = acpi_sum(table, len);
}

/* Append a finished table, aligned; its address, or 0 when the area is full. */
static gpa_t acpi_put(struct acpi_out *o, const void *table, size_t len, size_t align)
{
	size_t at = (o->len + align - 1) & ~(align - 1);

	if (at > o->cap || len > o->cap - at)
		return 0;
	memcpy(o->host + at, table, len);
	o->len = at + len;
	return o->base + at;
}

static void acpi_com(struct aml *a, const struct board *b, unsigned n)
{
	const char name[5] = { 'C', 'O', 'M', (char)('1' + n), 0 };
	const struct aml_io io = { b->serial_port[n], 8 };

	aml_device(a, name);
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, n + 1);
	aml_crs(a, &io, 1, b->serial_irq[n]);
	aml_end(a);
}

/* A virtio-mmio transport: registers and a shared level-triggered interrupt. */
static void acpi_virtio_mmio(struct aml *a, const struct board *b, unsigned n)
{
	uint32_t base = (uint32_t)b->virtio_mmio[n].base, len = TABLES_VIRTIO_MMIO_LEN;
	char name[5] = { 'V', 'M', (char)('A' + n / 16), 0, 0 };
	uint8_t res[12 + 9 + 2] = { 0 };

	name[3] = "0123456789ABCDEF"[n % 16];
	/* 32-bit fixed memory [ACPI 6.4.3.4], extended interrupt [ACPI 6.4.3.6], end tag */
	memcpy(res, "\x86\x09\x00\x01", 4);
	memcpy(res + 4, &base, 4);
	memcpy(res + 8, &len, 4);
	memcpy(res + 12, "\x89\x06\x00\x09\x01", 5); /* consumer, level, high, shared; one */
	memcpy(res + 17, &b->virtio_mmio[n].gsi, 4);
	res[21] = 0x79;
	aml_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "LNRO0005");
	aml_name(a, "_UID");
	aml_int(a, n);
	aml_name(a, "_CRS");
	aml_buffer(a, res, sizeof(res));
	aml_end(a);
}

static size_t acpi_dsdt(const struct board *b, uint8_t *buf, size_t cap)
{
	static const struct aml_io rtc_io = { 0x70, 2 };
	static const struct aml_io kbd_io[] = { { 0x60, 1 }, { 0x64, 1 } };
	struct aml a;

	memset(buf, 0, ACPI_HEADER);
	aml_init(&a, buf, cap);
	a.len = ACPI_HEADER;
	if (b->pci.present)
		acpi_pci_pic(&a);
	aml_scope(&a, "\\_SB_");
	if (b->pci.present)
		acpi_pci_device(&a, &b->pci);
	for (unsigned n = 0; n < b->serials; n++)
		acpi_com(&a, b, n);
	for (unsigned n = 0; n < b->virtio_mmios; n++)
		acpi_virtio_mmio(&a, b, n);
	if (b->rtc) {
		aml_device(&a, "RTC");
		aml_name(&a, "_HID");
		aml_eisaid(&a, "PNP0B00");
		aml_crs(&a, &rtc_io, 1, 8);
		aml_end(&a);
	}
	if (b->keyboard) {
		aml_device(&a, "KBD");
		aml_name(&a, "_HID");
		aml_eisaid(&a, "PNP0303");
		aml_crs(&a, kbd_io, 2, 1);
		aml_end(&a);
		aml_device(&a, "MOU");
		aml_name(&a, "_HID");
		aml_eisaid(&a, "PNP0F13");
		aml_crs(&a, NULL, 0, 12);
		aml_end(&a);
	}
	aml_end(&a);
	aml_name(&a, "\\_S5_");
	aml_package(&a, 4);
	aml_int(&a, b->s5_type);
	aml_int(&a, b->s5_type);
	aml_int(&a, 0);
	aml_int(&a, 0);
	aml_end(&a);
	if (!aml_ok(&a))
		return 0;
	acpi_header(buf, "DSDT", 2, a.len);
	return a.len;
}

/* MADT: processors as LAPIC entries (x2APIC entries from id 255 on), IOAPIC, overrides, NMI. */
static size_t acpi_madt(const struct board *b, uint8_t *buf, size_t cap)
{
	/* clang-format off */
	const uint8_t tail[] = {
		1, 12, 0, 0, 0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0, /* IOAPIC 0 at FEC00000h, GSI 0 */
		2, 10, 0, 0, 2, 0, 0, 0, 0, 0,                   /* ISA IRQ 0 is GSI 2 */
		2, 10, 0, b->sci, b->sci, 0, 0, 0, 0x0d, 0,      /* the SCI: high, level */
		4, 6, 0xff, 0, 0, 1,                             /* NMI on LINT1 of all */
	};
	/* clang-format on */
	const uint32_t head[2] = { TABLES_LAPIC, 1 /* PCAT_COMPAT: has a PIC pair */ };
	size_t n = ACPI_HEADER + sizeof(head);

	if (cap < n + b->cpus * 16ull + sizeof(tail))
		return 0;
	memset(buf, 0, ACPI_HEADER);
	memcpy(buf + ACPI_HEADER, head, sizeof(head));
	for (unsigned i = 0; i < b->cpus; i++) {
		uint32_t id = b->apic_id[i];

		if (id < 255) {
			const uint8_t lapic[8] = { 0, 8, (uint8_t)i, (uint8_t)id, 1, 0, 0, 0 };

			memcpy(buf + n, lapic, 8);
			n += 8;
		} else {
			const uint32_t x2apic[4] = { 9 | 16 << 8, id, 1, i };

			memcpy(buf + n, x2apic, 16);
			n += 16;
		}
	}
	memcpy(buf + n, tail, sizeof(tail));
	n += sizeof(tail);
	acpi_header(buf, "APIC", 4, n);
	return n;
}

static struct acpi_gas acpi_io(uint16_t port, uint8_t width)
{
	/* access size: 1 byte, 2 word, 3 dword */
	return (struct acpi_gas){ 1, width, 0, width == 8 ? 1 : width == 16 ? 2 : 3, port };
}

static void acpi_fadt(const struct board *b, gpa_t facs, gpa_t dsdt, struct acpi_fadt *f)
{
	*f = (struct acpi_fadt){ .dsdt = (uint32_t)dsdt, .x_dsdt = dsdt, .sci = b->sci };
	f->flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC;
	f->boot_arch = BOOT_LEGACY_DEVICES | BOOT_NO_VGA;
	f->boot_arch |= b->keyboard ? BOOT_8042 : 0;
	f->boot_arch |= b->rtc ? 0 : BOOT_NO_RTC;
	f->century = b->rtc ? 0x32 : 0;
	f->c2_lat = f->c3_lat = 0xffff; /* none */
	if (b->hw_reduced) {
		f->flags |= FADT_HW_REDUCED;
		f->sleep_control = acpi_io(b->pm_base, 8);
		f->sleep_status = acpi_io((uint16_t)(b->pm_base + 1), 8);
	} else {
		/* FACS by its 32-bit address only: giving both makes some systems warn. */
		f->facs = (uint32_t)facs;
		f->smi_cmd = b->smi_cmd;
		f->enable = b->acpi_enable;
		f->disable = b->acpi_disable;
		f->pm1a_evt = b->pm_base;
		f->pm1a_cnt = b->pm_base + 4u;
		f->pm_tmr = b->pm_base + 8u;
		f->gpe0 = b->gpe_base;
		f->pm1_evt_len = 4;
		f->pm1_cnt_len = 2;
		f->pm_tmr_len = 4;
		f->gpe0_len = 4;
		f->x_pm1a_evt = acpi_io(b->pm_base, 32);
		f->x_pm1a_cnt = acpi_io((uint16_t)(b->pm_base + 4), 16);
		f->x_pm_tmr = acpi_io((uint16_t)(b->pm_base + 8), 32);
		f->x_gpe0 = acpi_io(b->gpe_base, 32);
	}
	if (b->reset_port) {
		f->flags |= FADT_RESET_REG_SUP;
		f->reset_reg = acpi_io(b->reset_port, 8);
		f->reset_value = b->reset_value;
	}
	acpi_header(f, "FACP", 6, sizeof(*f));
}

static size_t acpi_mcfg(const struct board *b, uint8_t *buf, size_t cap)
{
	size_t n = acpi_pci_mcfg(&b->pci, buf + ACPI_HEADER, cap - ACPI_HEADER);

	if (n)
		acpi_header(buf, "MCFG", 1, ACPI_HEADER + n);
	return n ? ACPI_HEADER + n : 0;
}

int acpi_build(struct place *p, const struct board *b, gpa_t *rsdp_at, struct err *e)
{
	uint8_t buf[ACPI_DSDT_MAX + TABLES_CPUS * 16];
	struct acpi_rsdp rsdp = { .revision = 2, .length = sizeof(rsdp) };
	struct acpi_facs facs = { .length = sizeof(facs), .version = 2 };
	struct {
		struct acpi_header h;
		uint64_t table[3];
	} __attribute__((packed)) xsdt;
	struct acpi_out o = { .base = PLACE_TABLES, .cap = PLACE_MPTABLE - PLACE_TABLES };
	struct acpi_fadt fadt;
	gpa_t dsdt, facs_at, xsdt_at;
	size_t n;
	int r = place_claim(p, PLACE_TABLES, o.cap, "the ACPI tables", &o.host, e);

	if (r < 0)
		return r;
	/* The RSDP first: systems scan from E0000h on 16-byte borders. */
	*rsdp_at = acpi_put(&o, &rsdp, sizeof(rsdp), 16);
	memcpy(facs.signature, "FACS", 4);
	facs_at = acpi_put(&o, &facs, sizeof(facs), 64);
	dsdt = acpi_put(&o, buf, acpi_dsdt(b, buf, ACPI_DSDT_MAX), 16);
	acpi_fadt(b, facs_at, dsdt, &fadt);
	xsdt.table[0] = acpi_put(&o, &fadt, sizeof(fadt), 16);
	xsdt.table[1] = acpi_put(&o, buf, acpi_madt(b, buf, sizeof(buf)), 16);
	n = acpi_mcfg(b, buf, sizeof(buf));
	if (n)
		xsdt.table[2] = acpi_put(&o, buf, n, 16);
	n = sizeof(xsdt) - (n ? 0 : sizeof(xsdt.table[2]));
	acpi_header(&xsdt, "XSDT", 1, n);
	xsdt_at = acpi_put(&o, &xsdt, n, 16);
	if (!xsdt_at)
		return err_set(e, ENOSPC, "the ACPI tables do not fit");
	memcpy(rsdp.signature, "RSD PTR ", 8);
	memcpy(rsdp.oem_id, "KVASIR", 6);
	rsdp.xsdt = xsdt_at;
	rsdp.checksum = acpi_sum(&rsdp, 20);
	rsdp.checksum2 = acpi_sum(&rsdp, sizeof(rsdp));
	memcpy(o.host, &rsdp, sizeof(rsdp));
	return 0;
}
