/* i8042: the probe sequence of PC drivers, resets, translation, no auxiliary port, no keyboard. */
#include "testbed.h"

#include "hw/isa/i8042.h"

static void cmd(struct bed *b, uint8_t v)
{
	out8(b, 0x64, v);
}

/* The next byte, which must be there. */
static uint8_t take(struct bed *b)
{
	assert_true(in8(b, 0x64) & 1);
	return in8(b, 0x60);
}

static void none(struct bed *b)
{
	assert_false(in8(b, 0x64) & 1);
}

static void i8042_probe(void **state)
{
	struct bed *b = bed_new();
	uint8_t cfg;

	assert_non_null(dev_create(&b->md, &i8042_class, NULL, NULL, NULL));
	assert_int_equal(in8(b, 0x64), 0x14);
	cmd(b, 0x20);
	cfg = take(b);
	assert_int_equal(cfg, 0x65);
	cmd(b, 0x60);
	out8(b, 0x60, (cfg | 0x10) & 0xfe);
	cmd(b, 0x20);
	assert_int_equal(take(b), 0x74);
	cmd(b, 0xaa);
	assert_int_equal(take(b), 0x55);
	cmd(b, 0xab);
	assert_int_equal(take(b), 0);
	cmd(b, 0xd3); /* auxiliary loopback comes back as a keyboard byte: no such port */
	out8(b, 0x60, 0x5a);
	assert_int_equal(in8(b, 0x64) & 0x21, 0x01);
	assert_int_equal(in8(b, 0x60), 0x5a);
	cmd(b, 0xa9);
	assert_int_equal(take(b), 1);
	cmd(b, 0xd4);
	out8(b, 0x60, 0xf4);
	none(b);
	assert_int_equal(b->rises[1], 1); /* only before they were switched off */
	bed_free(b);
}

static void i8042_keyboard(void **state)
{
	struct bed *b = bed_new(), *b2 = bed_new();
	struct dev *d = dev_create(&b->md, &i8042_class, NULL, NULL, NULL), *d2;
	static const uint8_t press[] = { 0x1c }, release[] = { 0xf0, 0x1c }, e0[] = { 0xe0, 0x75 };

	out8(b, 0x60, 0xff);
	assert_true(b->level[1]);
	assert_int_equal(take(b), 0xfa);
	assert_true(b->level[1]);
	assert_int_equal(b->rises[1], 2); /* an edge for each byte */
	assert_int_equal(take(b), 0xaa);
	assert_false(b->level[1]);
	out8(b, 0x60, 0xf2);
	assert_int_equal(take(b), 0xfa);
	assert_int_equal(take(b), 0xab);
	assert_int_equal(take(b), 0x41); /* 83h, translated as the ROM does it */
	out8(b, 0x60, 0xed);
	assert_int_equal(take(b), 0xfa);
	out8(b, 0x60, 0x07);
	assert_int_equal(take(b), 0xfa);
	out8(b, 0x60, 0xf0);
	assert_int_equal(take(b), 0xfa);
	out8(b, 0x60, 0x03);
	assert_int_equal(take(b), 0xfe);
	out8(b, 0x60, 0x12);
	assert_int_equal(take(b), 0xfe);
	assert_true(i8042_key(d, press, 1));
	assert_true(i8042_key(d, release, 2));
	d2 = dev_create(&b2->md, &i8042_class, NULL, NULL, NULL);
	bed_copy(d, d2);
	assert_int_equal(take(b2), 0x1e);
	assert_int_equal(take(b2), 0x9e);
	assert_int_equal(take(b), 0x1e);
	assert_int_equal(take(b), 0x9e);
	assert_true(i8042_key(d, e0, 2));
	assert_int_equal(take(b), 0xe0);
	assert_int_equal(take(b), 0x48);
	cmd(b, 0x60); /* raw, and the line closed */
	out8(b, 0x60, 0x11);
	assert_true(i8042_key(d, release, 2));
	none(b);
	cmd(b, 0xae);
	assert_int_equal(take(b), 0xf0);
	assert_int_equal(take(b), 0x1c);
	for (int i = 0; i < 100; i++)
		(void)i8042_key(d, press, 1);
	assert_false(i8042_key(d, press, 1)); /* full, and says so */
	bed_free(b);
	bed_free(b2);
}

static void i8042_unplugged(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &i8042_class, NULL, NULL, "kbd", "off", NULL));
	out8(b, 0x60, 0xf2);
	assert_int_equal(in8(b, 0x64) & 0x41, 0x41);
	assert_int_equal(take(b), 0xfe);
	assert_int_equal(in8(b, 0x64) & 0x40, 0);
	bed_free(b);
}

static void i8042_reset(void **state)
{
	struct bed *b = bed_new();

	assert_non_null(dev_create(&b->md, &i8042_class, NULL, NULL, NULL));
	cmd(b, 0xd0);
	assert_int_equal(take(b) & 3, 3);
	cmd(b, 0xd1);
	out8(b, 0x60, 0x01); /* A20 off, running */
	bed_run(b);
	assert_int_equal(b->requests, 0);
	cmd(b, 0xdf);
	cmd(b, 0xd0);
	assert_int_equal(take(b) & 3, 3);
	cmd(b, 0xff); /* pulse nothing */
	bed_run(b);
	assert_int_equal(b->requests, 0);
	cmd(b, 0xfe);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_RESET);
	cmd(b, 0xd1);
	out8(b, 0x60, 0x02);
	bed_run(b);
	assert_int_equal(b->requests, 2);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(i8042_probe),
		cmocka_unit_test(i8042_keyboard),
		cmocka_unit_test(i8042_unplugged),
		cmocka_unit_test(i8042_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
