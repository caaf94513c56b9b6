/* CF9h: two-step reset as firmware and Linux do it; dwords at CF8h belong to a host bridge. */
#include "testbed.h"

static uint64_t cf8;

static uint64_t bridge_read(struct dev *d, uint64_t off, unsigned size)
{
	return size == 4 ? cf8 : 0;
}

static void bridge_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	cf8 = val;
}

static void reset_steps(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &reset_class, NULL, NULL, NULL));
	out8(b, 0xcf9, 0x02);
	bed_run(b);
	assert_int_equal(b->requests, 0);
	out8(b, 0xcf9, 0x06);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	assert_int_equal(in8(b, 0xcf9), 0x06);
	out8(b, 0xcf9, 0x06);
	bed_run(b);
	assert_int_equal(b->requests, 1);
	bed_free(b);
}

static void reset_inside_cf8(void **state)
{
	static const struct region_ops ops = { bridge_read, bridge_write, 4, 4 };
	struct bed *b = bed_new();
	struct dev *d = dev_create(&b->md, &reset_class, NULL, NULL, NULL);
	struct region r = { .dev = d, .space = BUS_IO, .base = 0xcf8, .len = 4, .ops = &ops };

	assert_int_equal(bus_claim_region(b->md.bus, &r, NULL), 0);
	bus_io_write(b->md.bus, 0xcf8, 0x80000600, 4);
	assert_int_equal(cf8, 0x80000600);
	assert_int_equal(bus_io_read(b->md.bus, 0xcf8, 4), 0x80000600);
	out8(b, 0xcf9, 0x04);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	assert_int_equal(cf8, 0x80000600);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(reset_steps),
					    cmocka_unit_test(reset_inside_cf8) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
