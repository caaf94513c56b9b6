/* isa-debugcon: bytes come out in order, also past the chardev's bound; readback; lone device. */
#include "testbed.h"

static void debugcon_output(void **state)
{
	struct bed *b = bed_new();
	struct chardev *c = bed_ring(b, "log", 2);
	char got[16] = { 0 };

	assert_non_null(dev_create(&b->md, &debugcon_class, NULL, NULL, "chardev", "log", NULL));
	assert_int_equal(in8(b, 0xe9), 0xe9);
	for (const char *p = "hello"; *p; p++)
		out8(b, 0xe9, (uint8_t)*p);
	assert_int_equal(chardev_ring_output(c, got, sizeof(got)), 5);
	assert_string_equal(got, "hello");
	bed_free(b);
}

static void debugcon_busy(void **state)
{
	struct bed *b = bed_new();
	struct err e = { 0 };

	bed_ring(b, "log", 2);
	assert_non_null(dev_create(&b->md, &debugcon_class, NULL, NULL, "chardev", "log", NULL));
	assert_null(dev_create(&b->md, &debugcon_class, NULL, &e, "chardev", "log", "iobase",
			       "0xea", NULL));
	assert_non_null(strstr(e.msg, "in use"));
	assert_int_equal(in8(b, 0xea), 0xff); /* its claim was taken back */
	assert_non_null(dev_create(&b->md, &debugcon_class, NULL, &e, "iobase", "0xea", "readback",
				   "0x12", NULL));
	out8(b, 0xea, 'x'); /* to nowhere */
	assert_int_equal(in8(b, 0xea), 0x12);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(debugcon_output),
					    cmocka_unit_test(debugcon_busy) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
