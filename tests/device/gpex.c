/* ECAM: functions by address, empty places, one bus a machine, lines to GSIs. */
#include "testbed.h"

#include "hw/pci/pci.h"

static void gpex_places(void **state)
{
	struct bed *b = bed_new();

	bed_pci(b);
	assert_non_null(dev_create(&b->md, &piix3_class, NULL, NULL, "addr", "3", NULL));
	assert_int_equal(bed_cfg_read(b, 3 << 3, 0, 4), 0x70008086);
	assert_int_equal(bed_cfg_read(b, 3 << 3, 2, 2), 0x7000);
	assert_int_equal(bed_cfg_read(b, 3 << 3, 0x3, 1), 0x70);
	assert_int_equal(bed_cfg_read(b, 3 << 3, 0x100, 4), 0); /* no extended capabilities */
	assert_int_equal(bed_cfg_read(b, 3 << 3 | 1, 0, 4), 0xffffffff);
	assert_int_equal(bed_cfg_read(b, 4 << 3, 0, 4), 0xffffffff);
	assert_int_equal(bus_mem_read(b->md.bus, BED_ECAM + (1 << 20), 4), 0xffffffff);
	bed_free(b);
}

static void gpex_alone(void **state)
{
	struct bed *b = bed_new();
	struct err e = { 0 };

	assert_null(dev_create(&b->md, &piix3_class, NULL, &e, NULL));
	assert_non_null(strstr(e.msg, "no PCI bus"));
	bed_pci(b);
	assert_null(dev_create(&b->md, &gpex_class, NULL, &e, "base", "0xd0000000", NULL));
	assert_non_null(strstr(e.msg, "gpex-pcihost"));
	assert_null(dev_create(&b->md, &i440fx_class, NULL, &e, NULL));
	assert_non_null(strstr(e.msg, "gpex-pcihost"));
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(gpex_places),
					    cmocka_unit_test(gpex_alone) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
