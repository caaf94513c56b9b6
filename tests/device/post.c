/* POST code port: latch, log and its wrap. */
#include "testbed.h"

static void post_latch(void **state)
{
	struct bed *b = bed_new();
	struct dev *d = dev_create(&b->md, &post_class, NULL, NULL, NULL);
	const struct field *head = d->cls->state.fields + 1;

	assert_int_equal(in8(b, 0x80), 0);
	for (int i = 0; i < 19; i++)
		out8(b, 0x80, (uint8_t)(0x10 + i));
	assert_int_equal(in8(b, 0x80), 0x22);
	assert_int_equal(state_get(head, (char *)d + d->cls->state.off, 0), 3);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(post_latch) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
