/* Routes of PIRQA to D: ISA interrupts as registers say, IOAPIC inputs always, moves while high. */
#include "testbed.h"

#include "hw/pci/pci.h"
#include "hw/pci/piix.h"

static void piix3_routes(void **state)
{
	struct bed *b = bed_new();
	struct dev *d;

	bed_pci(b);
	d = dev_create(&b->md, &piix3_class, NULL, NULL, "addr", "0", NULL);
	assert_int_equal(bed_cfg_read(b, 0, PIIX3_PIRQA, 4), 0x80808080);
	assert_int_equal(bed_cfg_read(b, 0, PCI_HEADER_TYPE, 1), 0x80);
	b->md.pci->route(b->md.pci->route_opaque, 1, true);
	assert_true(b->level[17]);
	for (unsigned i = 0; i < 16; i++)
		assert_false(b->level[i]);
	bed_cfg_write(b, 0, PIIX3_PIRQA + 1, 10, 1);
	assert_true(b->level[10]);
	bed_cfg_write(b, 0, PIIX3_PIRQA, 10, 1); /* shared, and low */
	bed_cfg_write(b, 0, PIIX3_PIRQA + 1, 11, 1);
	assert_false(b->level[10]);
	assert_true(b->level[11]);
	bed_cfg_write(b, 0, PIIX3_PIRQA + 1, 8, 1); /* the clock's: not possible */
	assert_false(b->level[8]);
	assert_false(b->level[11]);
	bed_cfg_write(b, 0, PIIX3_PIRQA + 1, 11, 1);
	dev_reset(d, RESET_WARM);
	assert_false(b->level[11]);
	b->md.pci->route(b->md.pci->route_opaque, 1, false);
	assert_false(b->level[17]);
	bed_free(b);
}

/* A second one is refused, and leaves the routes of the first alone. */
static void piix3_twice(void **state)
{
	struct bed *b = bed_new();
	struct err e = { 0 };
	struct dev *d;

	bed_pci(b);
	d = dev_create(&b->md, &piix3_class, NULL, NULL, "addr", "0", NULL);
	assert_non_null(d);
	assert_null(dev_create(&b->md, &piix3_class, NULL, &e, "addr", "5", NULL));
	assert_non_null(strstr(e.msg, "PIIX3 already"));
	assert_int_equal(bed_cfg_read(b, 5 << 3, PCI_VENDOR_ID, 2), 0xffff);
	b->md.pci->route(b->md.pci->route_opaque, 1, true);
	assert_true(b->level[17]);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(piix3_routes),
		cmocka_unit_test(piix3_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
