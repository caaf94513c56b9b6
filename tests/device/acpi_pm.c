/* ACPI power management: mode switch, soft off, power button, PM timer and its event, GPE, reduced.
 */
#include "testbed.h"

#include "hw/isa/acpi_pm.h"

#define PM ACPI_PM_BASE

static uint16_t in16(struct bed *b, uint16_t port)
{
	return (uint16_t)bus_io_read(b->md.bus, port, 2);
}

static void out16(struct bed *b, uint16_t port, uint16_t v)
{
	bus_io_write(b->md.bus, port, v, 2);
}

static void acpi_off(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &acpi_pm_class, NULL, NULL, NULL));
	assert_int_equal(in16(b, PM + 4), 0);
	out8(b, ACPI_SMI_CMD, ACPI_ENABLE);
	assert_int_equal(in16(b, PM + 4), 1);
	out16(b, PM + 4, 0x0001 | 3 << 10 | 1 << 13); /* a sleep state there is not */
	bed_run(b);
	assert_int_equal(b->requests, 0);
	out16(b, PM + 4, 0x0001 | ACPI_S5_TYPE << 10);
	bed_run(b);
	assert_int_equal(b->requests, 0);
	out16(b, PM + 4, 0x0001 | ACPI_S5_TYPE << 10 | 1 << 13);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_SHUTDOWN);
	assert_int_equal(in16(b, PM + 4), 0x0001 | ACPI_S5_TYPE << 10); /* SLP_EN reads 0 */
	out8(b, ACPI_SMI_CMD, ACPI_DISABLE);
	assert_int_equal(in16(b, PM + 4) & 1, 0);
	bed_free(b);
}

static void acpi_button(void **state)
{
	struct bed *b = bed_new();
	struct dev *d = dev_create(&b->md, &acpi_pm_class, NULL, NULL, "sci-en", "on", NULL);

	acpi_pm_power_button(d);
	assert_false(b->level[ACPI_SCI_IRQ]);
	out16(b, PM + 2, 0xffff);
	assert_int_equal(in16(b, PM + 2), 0x0721);
	assert_true(b->level[ACPI_SCI_IRQ]);
	assert_int_equal(in16(b, PM), 0x0100);
	out16(b, PM, 0x0001);
	assert_true(b->level[ACPI_SCI_IRQ]);
	out8(b, PM + 1, 0x01); /* bytes work, too */
	assert_false(b->level[ACPI_SCI_IRQ]);
	acpi_pm_gpe(d, 3);
	assert_false(b->level[ACPI_SCI_IRQ]);
	out16(b, ACPI_GPE_BASE + 2, 0x0008);
	assert_true(b->level[ACPI_SCI_IRQ]);
	out16(b, ACPI_GPE_BASE, 0xffff);
	assert_false(b->level[ACPI_SCI_IRQ]);
	bed_free(b);
}

static void acpi_timer(void **state)
{
	struct bed *b = bed_new();
	uint64_t t0, t1;

	assert_non_null(dev_create(&b->md, &acpi_pm_class, NULL, NULL, "sci-en", "on", NULL));
	t0 = bus_io_read(b->md.bus, PM + 8, 4);
	loop_advance(b->loop, NS_PER_SEC);
	t1 = bus_io_read(b->md.bus, PM + 8, 4);
	assert_int_equal(t1 - t0, 3579545);
	assert_int_equal(in8(b, PM + 9), t1 >> 8 & 0xff);
	out16(b, PM, 1);
	out16(b, PM + 2, 1);
	/* 24 bits: the top bit changes at 2^23 ticks, 2.34 s on this clock */
	loop_advance(b->loop, 343 * NS_PER_MS);
	assert_false(b->level[ACPI_SCI_IRQ]);
	loop_advance(b->loop, 2 * NS_PER_MS);
	assert_true(b->level[ACPI_SCI_IRQ]);
	assert_int_equal(in16(b, PM), 1);
	out16(b, PM, 1);
	assert_false(b->level[ACPI_SCI_IRQ]);
	loop_advance(b->loop, 2344 * NS_PER_MS);
	assert_true(b->level[ACPI_SCI_IRQ]);
	assert_in_range(bus_io_read(b->md.bus, PM + 8, 4), 0, 10000); /* wrapped */
	bed_free(b);
}

static void acpi_reduced(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &acpi_pm_class, NULL, NULL, "hw-reduced", "on", NULL));
	assert_int_equal(bus_io_read(b->md.bus, PM + 8, 4), 0xffffffff);
	out8(b, PM + 2, 0);
	bed_run(b);
	assert_int_equal(b->requests, 0);
	out8(b, PM + 2, ACPI_RESET_VALUE);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	out8(b, PM, ACPI_S5_TYPE << 2 | 0x20);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_SHUTDOWN);
	assert_int_equal(in8(b, PM), ACPI_S5_TYPE << 2);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acpi_off),
		cmocka_unit_test(acpi_button),
		cmocka_unit_test(acpi_timer),
		cmocka_unit_test(acpi_reduced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
