/*
 * The MP tables of the Intel MultiProcessor Specification 1.4, for -M microvm,acpi=off and for
 * kernels without ACPI; and the BIOS data area that leads to them.
 *
 * Modelled: processors, an ISA bus, a PCI bus with the interrupts of all its slots, one IOAPIC with
 * the PC's wiring (IRQ 0 on input 2), ExtINT and NMI. Not modelled: the extended entries.
 * References: [MPS 4]. Threads: one, before the vCPUs run.
 */
#include <errno.h>
#include <string.h>

#include "firmware/tables.h"

enum { MP_ISA_IRQS = 16, MP_EDGE_HIGH = 0, MP_LEVEL_LOW = 0x0f, MP_ALL_CPUS = 0xff };
enum { EBDA_SIZE = 0xa0000 - PLACE_EBDA, MP_TABLE_MAX = 8192 };

struct mp_floating {
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, feature[5];
} __attribute__((packed));

struct mp_header {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic;
	uint16_t ext_length;
	uint8_t ext_checksum, reserved;
} __attribute__((packed));

struct mp_cpu {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
} __attribute__((packed));

struct mp_out {
	uint8_t buf[MP_TABLE_MAX];
	size_t len;
	unsigned entries;
	bool full;
};

static void mp_put(struct mp_out *o, const void *p, size_t n)
{
	if (n > sizeof(o->buf) - o->len) {
		o->full = true;
		return;
	}
	memcpy(o->buf + o->len, p, n);
	o->len += n;
	o->entries++;
}

static uint8_t mp_sum(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *b++);
	return (uint8_t)-s;
}

/* Each pin of each slot: systems look for what they find, and the rest does not matter. */
static void mp_pci(struct mp_out *o, const struct board_pci *p, uint8_t ioapic_id)
{
	for (unsigned slot = 0; slot < 32; slot++)
		for (unsigned pin = 0; pin < 4; pin++) {
			/* bus 0; source: slot in bits 6:2, pin in 1:0 */
			const uint8_t from = (uint8_t)(slot << 2 | pin);
			const uint8_t to = p->gsi[(slot + pin + p->swizzle) % 4];
			const uint8_t e[8] = { 3, 0, MP_LEVEL_LOW, 0, 0, from, ioapic_id, to };

			mp_put(o, e, sizeof(e));
		}
}

static void mp_interrupts(struct mp_out *o, uint8_t isa_bus, uint8_t ioapic_id)
{
	for (unsigned irq = 0; irq < MP_ISA_IRQS; irq++) {
		/* type 3: I/O interrupt, INT, bus, IRQ -> IOAPIC input. IRQ 2 is the cascade. */
		const uint8_t pin = irq == 0 ? 2 : (uint8_t)irq;
		const uint8_t e[8] = {
			3, 0, MP_EDGE_HIGH, 0, isa_bus, (uint8_t)irq, ioapic_id, pin
		};

		if (irq != 2)
			mp_put(o, e, sizeof(e));
	}
	/* type 4: local interrupts of all processors: ExtINT on LINT0, NMI on LINT1 */
	mp_put(o, (const uint8_t[8]){ 4, 3, 0, 0, 0, 0, MP_ALL_CPUS, 0 }, 8);
	mp_put(o, (const uint8_t[8]){ 4, 1, 0, 0, 0, 0, MP_ALL_CPUS, 1 }, 8);
}

int mptable_build(struct place *p, const struct board *b, struct err *e)
{
	struct mp_out o = { .len = sizeof(struct mp_header) };
	struct mp_floating fp = { .length = 1, .revision = 4 };
	struct mp_header h = { .revision = 4, .lapic = TABLES_LAPIC };
	uint8_t ioapic[8] = { 2, 0, 0x11, 1, 0x00, 0x00, 0xc0, 0xfe };
	uint8_t *ebda, *host = NULL;
	/* Systems take the number of a PCI bus here for its real one. */
	const uint8_t isa[8] = { 1, b->pci.present, 'I', 'S', 'A', ' ', ' ', ' ' };
	int r = place_claim(p, PLACE_EBDA, EBDA_SIZE, "the EBDA", &ebda, e);

	if (r == 0)
		r = place_claim(p, PLACE_MPTABLE, MP_TABLE_MAX, "the MP tables", &host, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < b->cpus; i++) {
		const struct mp_cpu cpu = { .apic_id = (uint8_t)b->apic_id[i],
					    .apic_version = 0x14,
					    .flags = (uint8_t)(1 | (i == 0) << 1), /* on, BSP */
					    .signature = 0x600,
					    .features = 0x201 /* FPU, APIC */ };

		if (b->apic_id[i] > 254)
			return err_set(e, ENOSPC, "MP tables hold APIC ids up to 254; use acpi=on");
		ioapic[1] = MAX(ioapic[1], (uint8_t)(b->apic_id[i] + 1)); /* a free id */
		mp_put(&o, &cpu, sizeof(cpu));
	}
	if (b->pci.present)
		mp_put(&o, "\x01\0PCI   ", 8);
	mp_put(&o, isa, sizeof(isa));
	mp_put(&o, ioapic, sizeof(ioapic));
	if (b->pci.present)
		mp_pci(&o, &b->pci, ioapic[1]);
	mp_interrupts(&o, isa[1], ioapic[1]);
	if (o.full)
		return err_set(e, ENOSPC, "the MP tables do not fit: too many processors");
	memcpy(h.signature, "PCMP", 4);
	memcpy(h.oem, "KVASIR  ", 8);
	memcpy(h.product, "PC          ", 12);
	h.entries = (uint16_t)o.entries;
	h.length = (uint16_t)o.len;
	memcpy(o.buf, &h, sizeof(h));
	h.checksum = mp_sum(o.buf, h.length);
	memcpy(o.buf, &h, sizeof(h));
	memcpy(host, o.buf, sizeof(o.buf));
	memset(ebda, 0, EBDA_SIZE);
	ebda[0] = EBDA_SIZE >> 10;
	memcpy(fp.signature, "_MP_", 4);
	fp.table = PLACE_MPTABLE;
	fp.checksum = mp_sum(&fp, sizeof(fp));
	memcpy(ebda + 16, &fp, sizeof(fp));
	return 0;
}

int bda_build(struct place *p, const struct board *b, struct err *e)
{
	uint8_t *host;
	int r = place_claim(p, 0x400, 0x100, "the BIOS data area", &host, e);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < b->serials; i++)
		memcpy(host + 2 * i, &b->serial_port[i], 2);
	memcpy(host + 0x0e, &(uint16_t){ PLACE_EBDA >> 4 }, 2);
	memcpy(host + 0x13, &(uint16_t){ PLACE_EBDA >> 10 }, 2);
	return 0;
}
