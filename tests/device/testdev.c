/* pc-testdev: register widths, byte window, interrupt lines, memory window, flush. */
#include "testbed.h"

static gpa_t flushed;

static void testdev_note(struct gmem_listener *l, gpa_t gpa, uint64_t len)
{
	flushed = len == PAGE_SIZE ? gpa : 1;
}

static void testdev_ports(void **state)
{
	struct bed *b = bed_new();
	struct bus *bus = b->md.bus;

	assert_non_null(dev_create(&b->md, &testdev_class, NULL, NULL, NULL));
	bus_io_write(bus, 0xe0, 0x12345678, 4);
	assert_int_equal(bus_io_read(bus, 0xe0, 4), 0x12345678);
	assert_int_equal(in8(b, 0xe1), 0x56);
	assert_int_equal(bus_io_read(bus, 0xe2, 2), 0x1234);
	assert_int_equal(bus_io_read(bus, 0xe8, 4), 0x12345678);
	bus_io_write(bus, 0xe9, 0xabcd, 2);
	assert_int_equal(bus_io_read(bus, 0xe0, 4), 0x12abcd78);
	bed_free(b);
}

static void testdev_lines(void **state)
{
	struct bed *b = bed_new(), *b2 = bed_new();
	struct dev *d = dev_create(&b->md, &testdev_class, NULL, NULL, NULL);
	struct dev *d2 = dev_create(&b2->md, &testdev_class, NULL, NULL, NULL);

	out8(b, 0x2000 + 10, 1);
	out8(b, 0x2000 + 23, 0xff);
	assert_true(b->level[10] && b->level[23] && !b->level[0]);
	bed_copy(d, d2);
	assert_true(b2->level[10] && b2->level[23]);
	out8(b, 0x2000 + 10, 0);
	assert_false(b->level[10]);
	dev_reset(d, RESET_WARM);
	assert_false(b->level[23]);
	bed_free(b);
	bed_free(b2);
}

static void testdev_memory(void **state)
{
	struct bed *b = bed_new();
	struct bus *bus = b->md.bus;
	struct gmem_listener l = { .written = testdev_note };

	assert_int_equal(
		gmem_add_pc_ram(b->md.mem, 1 << 20, 1 << 30, &(struct gmem_opts){ 0 }, NULL), 0);
	assert_int_equal(gmem_listen(b->md.mem, &l, NULL), 0);
	assert_non_null(dev_create(&b->md, &testdev_class, NULL, NULL, NULL));
	bus_mem_write(bus, 0xff000000, 0x1122334455667788, 8);
	assert_int_equal(bus_mem_read(bus, 0xff000003, 2), 0x4455);
	bus_mem_write(bus, 0xff00fffe, 0xaabbccdd, 4); /* half of it is outside */
	assert_int_equal(bus_mem_read(bus, 0xff00fffe, 4), 0xffffccdd);
	bus_io_write(bus, 0xe4, 0x5123, 4);
	assert_int_equal(flushed, 0x5000);
	bus_io_write(bus, 0xe4, 0x200000, 4); /* not RAM */
	assert_int_equal(flushed, 0x5000);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(testdev_ports),
					    cmocka_unit_test(testdev_lines),
					    cmocka_unit_test(testdev_memory) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
