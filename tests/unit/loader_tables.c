/*
 * Claims on memory, ACPI and MP tables: found and walked as an operating system does it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "firmware/aml.h"
#include "firmware/tables.h"

#define RAM (16ull << 20)

struct fix {
	uint8_t *ram;
	struct place p;
	struct board b;
	struct err e;
};

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	f->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	place_init(&f->p, RAM, f->ram, NULL);
	f->b = (struct board){ .cpus = 3,
			       .apic_id = { 0, 1, 4 },
			       .serials = 2,
			       .serial_port = { 0x3f8, 0x2f8 },
			       .serial_irq = { 4, 3 },
			       .keyboard = true,
			       .rtc = true,
			       .pm_base = 0x600,
			       .gpe_base = 0xafe0,
			       .smi_cmd = 0xb2,
			       .acpi_enable = 0xf1,
			       .acpi_disable = 0xf0,
			       .s5_type = 5,
			       .sci = 9,
			       .reset_port = 0xcf9,
			       .reset_value = 0x0e };
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	munmap(f->ram, RAM);
	free(f);
	return 0;
}

static uint64_t peek(const struct fix *f, uint64_t at, unsigned n)
{
	uint64_t v = 0;

	assert_true(at + n <= RAM);
	memcpy(&v, f->ram + at, n);
	return v;
}

static uint8_t sum(const struct fix *f, uint64_t at, uint64_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + f->ram[at++]);
	return s;
}

/* Address of a table in the XSDT, its checksum right. */
static uint64_t table(const struct fix *f, const char *signature)
{
	uint64_t xsdt = peek(f, PLACE_TABLES + 24, 8), n = (peek(f, xsdt + 4, 4) - 36) / 8;

	assert_memory_equal(f->ram + xsdt, "XSDT", 4);
	assert_int_equal(sum(f, xsdt, peek(f, xsdt + 4, 4)), 0);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t t = peek(f, xsdt + 36 + i * 8, 8);

		assert_int_equal(sum(f, t, peek(f, t + 4, 4)), 0);
		if (!memcmp(f->ram + t, signature, 4))
			return t;
	}
	fail_msg("no table %s", signature);
	return 0;
}

static void test_acpi(void **state)
{
	struct fix *f = *state;
	uint64_t rsdp, fadt, dsdt, facs, madt, end;
	unsigned cpus = 0, ioapics = 0, overrides = 0;
	FILE *dump = getenv("KVASIR_DUMP_ACPI") ? fopen(getenv("KVASIR_DUMP_ACPI"), "wb") : NULL;

	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), 0);
	assert_int_equal(rsdp, PLACE_TABLES);
	assert_memory_equal(f->ram + rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(f, rsdp, 20), 0);
	assert_int_equal(sum(f, rsdp, 36), 0);
	fadt = table(f, "FACP");
	facs = peek(f, fadt + 36, 4);
	assert_memory_equal(f->ram + facs, "FACS", 4);
	assert_int_equal(facs & 63, 0);
	assert_int_equal(peek(f, fadt + 46, 2), 9);     /* SCI */
	assert_int_equal(peek(f, fadt + 48, 4), 0xb2);  /* SMI_CMD */
	assert_int_equal(peek(f, fadt + 56, 4), 0x600); /* PM1a event */
	assert_int_equal(peek(f, fadt + 64, 4), 0x604); /* PM1a control */
	assert_int_equal(peek(f, fadt + 76, 4), 0x608); /* timer */
	assert_int_equal(peek(f, fadt + 109, 2), 0x7);  /* boot flags: legacy, 8042, no VGA */
	assert_int_equal(peek(f, fadt + 116, 1), 1);    /* reset register in port space */
	assert_int_equal(peek(f, fadt + 120, 8), 0xcf9);
	assert_int_equal(peek(f, fadt + 128, 1), 0x0e);
	assert_int_equal(peek(f, fadt + 112, 4) >> 20 & 1, 0);
	dsdt = peek(f, fadt + 140, 8);
	assert_int_equal(peek(f, fadt + 40, 4), dsdt);
	assert_memory_equal(f->ram + dsdt, "DSDT", 4);
	assert_int_equal(sum(f, dsdt, peek(f, dsdt + 4, 4)), 0);
	/* Name (\_S5, Package () { 5, 5, 0, 0 }) */
	assert_non_null(memmem(f->ram + dsdt, peek(f, dsdt + 4, 4),
			       "\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00", 14));
	if (dump) {
		fwrite(f->ram + dsdt, 1, peek(f, dsdt + 4, 4), dump);
		fclose(dump);
	}
	madt = table(f, "APIC");
	end = madt + peek(f, madt + 4, 4);
	for (uint64_t at = madt + 44; at < end; at += peek(f, at + 1, 1)) {
		assert_true(peek(f, at + 1, 1) >= 6);
		cpus += peek(f, at, 1) == 0;
		ioapics += peek(f, at, 1) == 1;
		overrides += peek(f, at, 1) == 2;
	}
	assert_int_equal(cpus, 3);
	assert_int_equal(peek(f, madt + 44 + 2 * 8 + 3, 1), 4); /* APIC id of the third */
	assert_int_equal(ioapics, 1);
	assert_int_equal(overrides, 2);
}

static void test_acpi_reduced(void **state)
{
	struct fix *f = *state;
	uint64_t rsdp, fadt;

	f->b.hw_reduced = true;
	f->b.keyboard = f->b.rtc = false;
	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), 0);
	fadt = table(f, "FACP");
	assert_int_equal(peek(f, fadt + 112, 4) >> 20 & 1, 1);
	assert_int_equal(peek(f, fadt + 56, 4), 0);
	assert_int_equal(peek(f, fadt + 109, 2), 0x25); /* no 8042, no RTC */
	assert_int_equal(peek(f, fadt + 248, 8), 0x600);
	assert_int_equal(peek(f, fadt + 260, 8), 0x601);
	/* a second time there is no room */
	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), -EEXIST);
}

static void test_acpi_pci(void **state)
{
	struct fix *f = *state;
	uint64_t rsdp, dsdt, mcfg, len;

	f->b.pci = (struct board_pci){ .present = true,
				       .mechanism1 = true,
				       .mem = { 0xc0000000, 0xfebfffff },
				       .mem64 = { 0x100000000, 0x8ffffffff },
				       .swizzle = 3,
				       .gsi = { 16, 17, 18, 19 },
				       .irq = { 10, 10, 11, 11 } };
	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), 0);
	dsdt = peek(f, table(f, "FACP") + 140, 8);
	len = peek(f, dsdt + 4, 4);
	assert_int_equal(sum(f, dsdt, len), 0);
	if (getenv("KVASIR_DUMP_ACPI_PCI")) {
		FILE *dump = fopen(getenv("KVASIR_DUMP_ACPI_PCI"), "wb");

		fwrite(f->ram + dsdt, 1, len, dump);
		fclose(dump);
	}
	/* Method (_PIC, 1) { Store (Arg0, PICF) } */
	assert_non_null(memmem(f->ram + dsdt, len, "\x14\x0c_PIC\x01\x70\x68PICF", 13));
	/* slot 1 INTA with the IOAPIC, slot 2 INTD with the PIC */
	assert_non_null(memmem(f->ram + dsdt, len, "\x0c\xff\xff\x01\x00\x00\x00\x0a\x10", 9));
	assert_non_null(memmem(f->ram + dsdt, len, "\x0c\xff\xff\x02\x00\x0a\x03\x00\x0a\x0a", 10));
	/* with ECAM there is an MCFG */
	place_init(&f->p, RAM, f->ram, NULL);
	f->b.pci.ecam = 0xe0000000;
	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), 0);
	mcfg = table(f, "MCFG");
	assert_int_equal(peek(f, mcfg + 4, 4), 36 + 24);
	assert_int_equal(peek(f, mcfg + 44, 8), 0xe0000000);
	assert_int_equal(peek(f, mcfg + 54, 2), 0); /* buses 0 to 0 */
}

static void test_acpi_many(void **state)
{
	struct fix *f = *state;
	uint64_t rsdp, madt;

	f->b.cpus = TABLES_CPUS;
	for (unsigned i = 0; i < TABLES_CPUS; i++)
		f->b.apic_id[i] = i * 2;
	assert_int_equal(acpi_build(&f->p, &f->b, &rsdp, &f->e), 0);
	madt = table(f, "APIC");
	assert_int_equal(peek(f, madt + 4, 4), 44 + 128 * 8 + 128 * 16 + 12 + 10 + 10 + 6);
}

static void test_mptable(void **state)
{
	struct fix *f = *state;
	uint64_t fp = 0, t, at;
	unsigned kinds[5] = { 0 };

	assert_int_equal(bda_build(&f->p, &f->b, &f->e), 0);
	assert_int_equal(mptable_build(&f->p, &f->b, &f->e), 0);
	assert_int_equal(peek(f, 0x400, 2), 0x3f8);
	assert_int_equal(peek(f, 0x402, 2), 0x2f8);
	for (at = peek(f, 0x40e, 2) << 4; at < 0xa0000; at += 16)
		if (!memcmp(f->ram + at, "_MP_", 4))
			fp = at;
	assert_int_not_equal(fp, 0);
	assert_int_equal(sum(f, fp, 16), 0);
	t = peek(f, fp + 4, 4);
	assert_memory_equal(f->ram + t, "PCMP", 4);
	assert_int_equal(sum(f, t, peek(f, t + 4, 2)), 0);
	at = t + 44;
	for (unsigned n = (unsigned)peek(f, t + 34, 2); n--;) {
		unsigned kind = f->ram[at];

		assert_true(kind < 5);
		kinds[kind]++;
		at += kind ? 8 : 20;
	}
	assert_int_equal(at, t + peek(f, t + 4, 2));
	assert_int_equal(kinds[0], 3);
	assert_int_equal(kinds[2], 1);
	assert_int_equal(kinds[3], 15);
	assert_int_equal(kinds[4], 2);
	/* a PCI bus is number 0, and each pin of each slot has an entry */
	place_init(&f->p, RAM, f->ram, NULL);
	f->b.pci = (struct board_pci){ .present = true, .swizzle = 3, .gsi = { 16, 17, 18, 19 } };
	assert_int_equal(mptable_build(&f->p, &f->b, &f->e), 0);
	assert_int_equal(peek(f, t + 34, 2), 3 + 2 + 1 + 128 + 15 + 2);
	assert_int_equal(sum(f, t, peek(f, t + 4, 2)), 0);
	at = t + 44 + 3 * 20;
	assert_memory_equal(f->ram + at, "\1\0PCI   \1\1ISA   ", 16);
	/* slot 1 pin A: the first line, level, low */
	at += 16 + 8 + 4 * 8;
	assert_memory_equal(f->ram + at, "\3\0\x0f\0\0\4\5\x10", 8);
	/* processors without end */
	place_init(&f->p, RAM, f->ram, NULL);
	f->b.pci.present = false;
	f->b.cpus = TABLES_CPUS;
	assert_int_equal(mptable_build(&f->p, &f->b, &f->e), 0);
	place_init(&f->p, RAM, f->ram, NULL);
	f->b.apic_id[7] = 255;
	assert_int_equal(mptable_build(&f->p, &f->b, &f->e), -ENOSPC);
}

static void test_aml(void **state)
{
	uint8_t buf[8192];
	struct aml a;

	aml_init(&a, buf, sizeof(buf));
	aml_scope(&a, "\\");
	for (int i = 0; i < 1000; i++)
		aml_int(&a, 0x1234); /* 3 bytes each: a two-byte length */
	aml_end(&a);
	assert_true(aml_ok(&a));
	assert_int_equal(a.len, 1 + 2 + 2 + 3000);
	assert_int_equal(buf[1], 0x40 | (3004 & 15));
	assert_int_equal(buf[2], 3004 >> 4);
	aml_init(&a, buf, sizeof(buf));
	aml_eisaid(&a, "PNP0501");
	assert_memory_equal(buf, "\x0c\x41\xd0\x05\x01", 5);
	aml_end(&a);
	assert_false(aml_ok(&a)); /* nothing was open */
	aml_init(&a, buf, 4);
	aml_int(&a, 0x12345678);
	assert_false(aml_ok(&a)); /* no room */
	aml_init(&a, buf, sizeof(buf));
	for (int i = 0; i <= AML_DEPTH; i++)
		aml_device(&a, "DEV");
	assert_false(aml_ok(&a));
}

static void test_place(void **state)
{
	struct fix *f = *state;
	uint8_t *h;
	gpa_t at;

	assert_int_equal(place_claim(&f->p, RAM - 4096, 4096, "a", &h, &f->e), 0);
	assert_ptr_equal(h, f->ram + RAM - 4096);
	assert_int_equal(place_claim(&f->p, RAM - 1, 2, "b", &h, &f->e), -ENOMEM);
	assert_int_equal(place_claim(&f->p, UINT64_MAX, 2, "b", &h, &f->e), -ENOMEM);
	assert_int_equal(place_claim(&f->p, 0, UINT64_MAX, "b", &h, &f->e), -ENOMEM);
	assert_int_equal(place_claim(&f->p, RAM - 4097, 2, "b", &h, &f->e), -EEXIST);
	assert_int_equal(place_top(&f->p, 100, 4096, 0, UINT64_MAX, "c", &at, &h, &f->e), 0);
	assert_int_equal(at, RAM - 8192);
	assert_int_equal(place_top(&f->p, 100, 1, 0, RAM - 8192, "d", &at, &h, &f->e), 0);
	assert_int_equal(at, RAM - 8192 - 100);
	assert_int_equal(place_bottom(&f->p, 4096, 4096, 0, UINT64_MAX, "e", &at, &h, &f->e), 0);
	assert_int_equal(at, 0);
	assert_int_equal(place_bottom(&f->p, 1, 4096, 0, UINT64_MAX, "f", &at, &h, &f->e), 0);
	assert_int_equal(at, 4096);
	/* not in the reserved piece below 1 MiB */
	assert_int_equal(place_bottom(&f->p, 1, 1, PLACE_EBDA, UINT64_MAX, "g", &at, &h, &f->e), 0);
	assert_int_equal(at, PLACE_HIGH);
	assert_int_equal(place_top(&f->p, RAM, 1, 0, UINT64_MAX, "h", &at, &h, &f->e), -ENOMEM);
	assert_int_equal(place_top(&f->p, 0, 1, 0, UINT64_MAX, "i", &at, &h, &f->e), -ENOMEM);
	while (f->p.nclaims < PLACE_CLAIMS)
		assert_int_equal(place_top(&f->p, 1, 1, 0, RAM, "j", &at, &h, &f->e), 0);
	assert_int_equal(place_top(&f->p, 1, 1, 0, RAM, "k", &at, &h, &f->e), -ENOSPC);
	place_init(&f->p, 5ull << 30, f->ram, f->ram);
	assert_int_equal(place_low_end(&f->p), 3ull << 30);
	assert_int_equal(place_end(&f->p), 6ull << 30);
	assert_int_equal(f->p.map[f->p.nmap - 1].size, 2ull << 30);
	assert_null(place_ptr(&f->p, (3ull << 30) - 1, 2));
	assert_null(place_ptr(&f->p, 3ull << 30, 1));
	assert_non_null(place_ptr(&f->p, (4ull << 30) + 5, 1));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_acpi),    T(test_acpi_reduced), T(test_acpi_pci), T(test_acpi_many),
		T(test_mptable), T(test_aml),          T(test_place),
	};

	return cmocka_run_group_tests_name("loader_tables", tests, NULL, NULL);
}
