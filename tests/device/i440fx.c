/* Configuration mechanism 1: widths, empty places, and the reset port in the middle of it. */
#include "testbed.h"

static uint32_t cfg(struct bed *b, unsigned devfn, unsigned off, unsigned size)
{
	bus_io_write(b->md.bus, 0xcf8, 0x80000000 | devfn << 8 | (off & 0xfc), 4);
	return (uint32_t)bus_io_read(b->md.bus, (uint16_t)(0xcfc + (off & 3)), size);
}

static void i440fx_mechanism(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &i440fx_class, NULL, NULL, NULL));
	assert_non_null(dev_create(&b->md, &reset_class, NULL, NULL, NULL));
	assert_int_equal(cfg(b, 0, 0, 4), 0x12378086);
	assert_int_equal(cfg(b, 0, 2, 2), 0x1237);
	assert_int_equal(cfg(b, 0, 0xb, 1), 0x06);
	assert_int_equal(cfg(b, 8, 0, 4), 0xffffffff);     /* nobody */
	assert_int_equal(cfg(b, 0x100, 0, 4), 0xffffffff); /* bus 1 */
	/* the address register: bits that do not exist read 0; only dwords reach it */
	bus_io_write(b->md.bus, 0xcf8, 0xffffffff, 4);
	assert_int_equal(bus_io_read(b->md.bus, 0xcf8, 4), 0x80fffffc);
	bus_io_write(b->md.bus, 0xcf8, 0x80000000, 4);
	out8(b, 0xcf8, 0x55);
	bus_io_write(b->md.bus, 0xcfa, 0x5555, 2);
	assert_int_equal(bus_io_read(b->md.bus, 0xcf8, 4), 0x80000000);
	assert_int_equal(in8(b, 0xcf8), 0xff);
	/* not selected: plain I/O */
	bus_io_write(b->md.bus, 0xcf8, 0, 4);
	assert_int_equal(bus_io_read(b->md.bus, 0xcfc, 4), 0xffffffff);
	out8(b, 0xcf9, 6);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	bed_free(b);
}

static void i440fx_registers(void **state)
{
	struct bed *b = bed_new();
	struct dev *d = dev_create(&b->md, &i440fx_class, NULL, NULL, NULL);

	bus_io_write(b->md.bus, 0xcf8, 0x80000058, 4);
	bus_io_write(b->md.bus, 0xcfc, 0xffffffff, 4); /* DRAM type: not writable; PAM0 to PAM2 */
	assert_int_equal(bus_io_read(b->md.bus, 0xcfc, 4), 0xfffff000);
	out8(b, 0xcfe, 0x33);
	assert_int_equal(bus_io_read(b->md.bus, 0xcfc, 4), 0xff33f000);
	dev_reset(d, RESET_WARM);
	assert_int_equal(bus_io_read(b->md.bus, 0xcf8, 4), 0);
	bus_io_write(b->md.bus, 0xcf8, 0x80000058, 4);
	assert_int_equal(bus_io_read(b->md.bus, 0xcfc, 4), 0);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(i440fx_mechanism),
					    cmocka_unit_test(i440fx_registers) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
