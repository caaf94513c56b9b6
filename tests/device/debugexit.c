/* isa-debug-exit: the status, every width, the first request wins. */
#include "testbed.h"

static void debugexit_status(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &debugexit_class, NULL, NULL, "iobase", "0xf4", NULL));
	assert_int_equal(bus_io_read(b->md.bus, 0xf4, 4), 0);
	bus_io_write(b->md.bus, 0xf4, 0x10, 4);
	assert_true(runstate_pending(&b->run));
	out8(b, 0xf5, 3); /* too late */
	bed_run(b);
	assert_int_equal(b->requests, 1);
	assert_int_equal(b->last.kind, REQ_EXIT);
	assert_int_equal(b->last.status, 0x21);
	assert_false(runstate_pending(&b->run));
	bus_io_write(b->md.bus, 0xf6, 0x81, 2);
	bed_run(b);
	assert_int_equal(b->last.status, 0x03); /* eight bits of a status remain */
	bed_free(b);
}

static void debugexit_bad_size(void **state)
{
	struct bed *b = bed_new();
	struct err e = { 0 };

	assert_null(dev_create(&b->md, &debugexit_class, NULL, &e, "iosize", "0", NULL));
	assert_non_null(strstr(e.msg, "iosize=0"));
	assert_null(b->md.first);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(debugexit_status),
					    cmocka_unit_test(debugexit_bad_size) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
