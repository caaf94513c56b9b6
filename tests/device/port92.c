/* Port 92h: A20 bit, reset on the rising edge only. */
#include "testbed.h"

static void port92_all(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &port92_class, NULL, NULL, NULL));
	assert_int_equal(in8(b, 0x92), 2);
	out8(b, 0x92, 0);
	assert_int_equal(in8(b, 0x92), 0);
	bed_run(b);
	assert_int_equal(b->requests, 0);
	out8(b, 0x92, 0xff);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	assert_int_equal(in8(b, 0x92), 3);
	out8(b, 0x92, 1); /* still high: no edge */
	bed_run(b);
	assert_int_equal(b->requests, 1);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(port92_all) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
