/* Real-time clock: formats, stopping and setting, UIP, the three interrupts, memory bytes. */
#include "testbed.h"

#include "hw/isa/calendar.h"
#include "hw/isa/rtc.h"

static uint8_t get(struct bed *b, uint8_t i)
{
	out8(b, 0x70, i);
	return in8(b, 0x71);
}

static void put(struct bed *b, uint8_t i, uint8_t v)
{
	out8(b, 0x70, i);
	out8(b, 0x71, v);
}

static struct dev *make(struct bed *b, const char *base)
{
	struct err e = { 0 };
	struct dev *d = dev_create(&b->md, &rtc_class, NULL, &e, "base", base, NULL);

	if (!d)
		fail_msg("%s", e.msg);
	return d;
}

static void expect(struct bed *b, const char *hex) /* century, year, month, day, hour, min, sec */
{
	static const uint8_t reg[] = { 0x32, 9, 8, 7, 4, 2, 0 };
	char got[16];

	for (int i = 0; i < 7; i++)
		sprintf(got + 2 * i, "%02x", get(b, reg[i]));
	assert_string_equal(got, hex);
}

static void rtc_calendar(void **state)
{
	struct calendar c;

	for (uint64_t s = 0; s < CALENDAR_SECONDS; s += 86400 * 17 + 12345) {
		calendar_from_seconds(&c, s);
		assert_in_range(c.month, 1, 12);
		assert_in_range(c.day, 1, 31);
		assert_int_equal(calendar_seconds(&c), s);
	}
	calendar_from_seconds(&c, CALENDAR_1970);
	assert_true(c.year == 1970 && c.month == 1 && c.day == 1 && c.weekday == 5);
}

static void rtc_runs(void **state)
{
	struct bed *b = bed_new();

	make(b, "utc");
	expect(b, "20260615120000");
	assert_int_equal(get(b, 6), 2); /* Monday */
	assert_int_equal(get(b, 0x0d), 0x80);
	loop_advance(b->loop, 86399 * NS_PER_SEC);
	expect(b, "20260616115959");
	bed_free(b);
	b = bed_new();
	make(b, "2024-02-28T23:59:59");
	loop_advance(b->loop, NS_PER_SEC);
	expect(b, "20240229000000");
	loop_advance(b->loop, 86400 * NS_PER_SEC);
	expect(b, "20240301000000");
	bed_free(b);
}

static void rtc_formats(void **state)
{
	struct bed *b = bed_new();

	make(b, "2026-12-31T13:45:59");
	put(b, 11, 0x80); /* SET: stop, then 12-hour BCD */
	put(b, 4, 0x81);  /* 1 pm */
	put(b, 11, 0x00);
	expect(b, "20261231814559");
	put(b, 11, 0x86); /* 24-hour binary: the chip does not convert what is there */
	put(b, 0x32, 20), put(b, 9, 26), put(b, 8, 12), put(b, 7, 31);
	put(b, 4, 23), put(b, 2, 59), put(b, 0, 59);
	put(b, 11, 0x06);
	expect(b, "141a0c1f173b3b");
	loop_advance(b->loop, NS_PER_SEC);
	expect(b, "141b0101000000");
	put(b, 11, 0x82); /* while SET the time stands */
	loop_advance(b->loop, 10 * NS_PER_SEC);
	assert_int_equal(get(b, 0), 0);
	bed_free(b);
}

static void rtc_uip_and_divider(void **state)
{
	struct bed *b = bed_new();

	make(b, "utc");
	assert_int_equal(get(b, 10), 0x26);
	loop_advance(b->loop, 997 * NS_PER_MS);
	assert_int_equal(get(b, 10), 0x26);
	assert_int_equal(get(b, 0), 0);
	loop_advance(b->loop, 2 * NS_PER_MS);
	assert_int_equal(get(b, 10), 0xa6);
	assert_int_equal(get(b, 0), 0);
	loop_advance(b->loop, NS_PER_MS);
	assert_int_equal(get(b, 10), 0x26);
	assert_int_equal(get(b, 0), 1);
	put(b, 10, 0x76); /* divider held in reset */
	loop_advance(b->loop, 5 * NS_PER_SEC);
	assert_int_equal(get(b, 0), 1);
	put(b, 10, 0x26); /* the first update comes 500 ms later */
	loop_advance(b->loop, 499 * NS_PER_MS);
	assert_int_equal(get(b, 0), 1);
	loop_advance(b->loop, 1 * NS_PER_MS);
	assert_int_equal(get(b, 0), 2);
	bed_free(b);
}

static void rtc_periodic(void **state)
{
	struct bed *b = bed_new();
	unsigned seen = 0;

	make(b, "utc");
	loop_advance(b->loop, NS_PER_MS);
	assert_int_equal(get(b, 12) & 0xc0, 0x40); /* the flag comes without the enable */
	put(b, 11, 0x42);
	for (int i = 0; i < 8192; i++) { /* one second in steps of 122 us */
		loop_advance(b->loop, NS_PER_SEC / 8192);
		if (!b->level[8])
			continue;
		seen++;
		assert_int_equal(get(b, 12) & 0xc0, 0xc0);
		assert_false(b->level[8]);
	}
	assert_in_range(seen, 1023, 1025);
	put(b, 10, 0x20); /* rate 0: off */
	get(b, 12);
	loop_advance(b->loop, NS_PER_SEC);
	assert_false(b->level[8]);
	bed_free(b);
}

static void rtc_alarm_and_update(void **state)
{
	struct bed *b = bed_new(), *b2 = bed_new();
	struct dev *d = make(b, "2026-06-15T12:00:00"), *d2 = make(b2, "utc");

	get(b, 12);
	put(b, 5, 0x13), put(b, 3, 0x01), put(b, 1, 0x30);
	put(b, 11, 0x22);
	loop_advance(b->loop, (3600 + 60 + 29) * NS_PER_SEC);
	assert_false(b->level[8]);
	bed_copy(d, d2); /* the alarm travels with the state */
	clock_advance(&b2->clock, clock_now(&b->clock) - clock_now(&b2->clock));
	bed_copy(d, d2);
	loop_advance(b->loop, NS_PER_SEC);
	assert_true(b->level[8]);
	assert_int_equal(get(b, 12) & 0xa0, 0xa0);
	assert_int_equal(get(b, 12), 0);
	loop_advance(b2->loop, NS_PER_SEC);
	assert_true(b2->level[8]);
	loop_advance(b->loop, 86399 * NS_PER_SEC); /* the next day again */
	assert_false(b->level[8]);
	loop_advance(b->loop, NS_PER_SEC);
	assert_true(b->level[8]);
	get(b, 12);
	put(b, 5, 0xff), put(b, 3, 0xc0), put(b, 1, 0xff); /* every second */
	loop_advance(b->loop, NS_PER_SEC);
	assert_true(b->level[8]);
	put(b, 11, 0x12); /* update interrupt instead */
	get(b, 12);
	loop_advance(b->loop, NS_PER_SEC);
	assert_int_equal(get(b, 12) & 0x90, 0x90);
	put(b, 11, 0x92); /* SET clears UIE */
	assert_int_equal(get(b, 11), 0x82);
	bed_free(b);
	bed_free(b2);
}

static void rtc_memory(void **state)
{
	struct bed *b = bed_new();
	struct dev *d = make(b, "utc");
	struct err e = { 0 };

	rtc_set_memory(d, 3ull << 30, 5ull << 30);
	assert_int_equal(get(b, 0x16) << 8 | get(b, 0x15), 640);
	assert_int_equal(get(b, 0x31) << 8 | get(b, 0x30), 65535);
	assert_int_equal(get(b, 0x35) << 8 | get(b, 0x34), ((3u << 30) - (16u << 20)) >> 16);
	assert_int_equal(get(b, 0x5d) << 16 | get(b, 0x5c) << 8 | get(b, 0x5b), 5 << 14);
	put(b, 0xff, 0x77); /* index 7Fh with the NMI mask */
	assert_int_equal(rtc_get_nvram(d, 0x7f), 0x77);
	assert_int_equal(in8(b, 0x70), 0xff);
	put(b, 11, 0x72);
	dev_reset(d, RESET_WARM);
	assert_int_equal(get(b, 11), 0x02);
	assert_int_equal(get(b, 0x7f), 0x77);
	assert_null(dev_create(&b->md, &rtc_class, "r2", &e, "base", "2026-13-01", "iobase", "0x72",
			       NULL));
	assert_non_null(strstr(e.msg, "base=2026-13-01"));
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rtc_calendar), cmocka_unit_test(rtc_runs),
		cmocka_unit_test(rtc_formats),  cmocka_unit_test(rtc_uip_and_divider),
		cmocka_unit_test(rtc_periodic), cmocka_unit_test(rtc_alarm_and_update),
		cmocka_unit_test(rtc_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
