/* State tables: round trip, strides, holes, hostile sections, versions, diff, print. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/state.h"

struct thing {
	int outside;
	struct thing_state {
		uint64_t big;
		struct {
			uint32_t base;
			uint16_t sel;
			uint8_t bits[2];
		} seg[3];
		uint8_t head;
		bool on;
		uint16_t later;
		uint8_t log[4];
	} s;
};

static const struct field thing_fields[] = {
	ST(struct thing_state, big),
	ST_SUB(struct thing_state, seg, base),
	ST_SUB(struct thing_state, seg, sel),
	ST_SUB_ARR(struct thing_state, seg, bits),
	ST(struct thing_state, head, .lim = 4),
	ST(struct thing_state, on),
	ST(struct thing_state, later, .since = 2),
	ST_ARR(struct thing_state, log),
	{ 0 },
};

static const struct state_desc thing = STATE_OF(struct thing, s, thing_fields, 2);

static void thing_fill(struct thing *t)
{
	memset(t, 0, sizeof(*t));
	t->s.big = 0x1122334455667788;
	for (int i = 0; i < 3; i++) {
		t->s.seg[i].base = 0xa0000000u + (unsigned)i;
		t->s.seg[i].sel = (uint16_t)(8 * i);
		t->s.seg[i].bits[0] = (uint8_t)i;
		t->s.seg[i].bits[1] = (uint8_t)(0x80 + i);
	}
	t->s.head = 3;
	t->s.on = true;
	t->s.later = 77;
	memcpy(t->s.log, "abcd", 4);
}

static void state_round_trip(void **state)
{
	struct thing a, b = { .outside = 5 };
	uint8_t buf[512];
	size_t n;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	thing_fill(&a);
	assert_int_equal(state_check(&thing, NULL), 0);
	n = state_save(&thing, &a, buf, sizeof(buf));
	assert_int_equal(n, state_save_size(&thing));
	assert_int_equal(state_save(&thing, &a, buf, n - 1), 0);
	assert_int_equal(state_diff(&thing, &a, &b, f), 8);
	assert_int_equal(state_load(&thing, &b, buf, n, NULL), 0);
	assert_int_equal(state_diff(&thing, &a, &b, NULL), 0);
	assert_memory_equal(&a.s, &b.s, sizeof(a.s));
	assert_int_equal(b.outside, 5);
	state_print(&thing, &a, f);
	state_schema(&thing, "thing", f);
	fclose(f);
	assert_non_null(strstr(text, "seg.bits[1]: 80 / 0\n"));
	assert_non_null(strstr(text, "thing 2 seg.bits u8 6 0 0\n"));
	assert_non_null(strstr(text, "a0000000 a0000001 a0000002"));
	free(text);
}

static int load_with(const uint8_t *buf, size_t n, struct err *e)
{
	struct thing t, was;
	int rc;

	thing_fill(&t);
	memset(t.s.log, 0x55, 4);
	was = t;
	rc = state_load(&thing, &t, buf, n, e);
	if (rc)
		assert_memory_equal(&t, &was, sizeof(t)); /* nothing has changed */
	else
		assert_true(t.s.head < 4);
	return rc;
}

static void state_hostile(void **state)
{
	struct thing a;
	struct err e = { 0 };
	uint8_t buf[512], bad[512], *p;
	size_t n;

	thing_fill(&a);
	n = state_save(&thing, &a, buf, sizeof(buf));
	for (size_t i = 0; i < n; i++) {
		uint8_t *cut = malloc(i ? i : 1);

		memcpy(cut, buf, i);
		assert_true(load_with(cut, i, &e) < 0);
		free(cut);
	}
	for (size_t i = 0; i < n; i++)
		for (int v = 1; v < 256; v++) {
			memcpy(bad, buf, n);
			bad[i] ^= (uint8_t)v;
			(void)!load_with(bad, n, &e);
		}
	memcpy(bad, buf, n);
	p = memmem(bad, n, "\4head", 5);
	p[10] = 200;
	assert_int_equal(load_with(bad, n, &e), -ERANGE);
	assert_string_equal(e.msg, "field head[0]: 200 >= 4");
	memcpy(bad, buf, n);
	p = memmem(bad, n, "\2on", 3);
	p[8] = 2;
	assert_int_equal(load_with(bad, n, &e), -ERANGE);
	memcpy(bad, buf, n);
	memcpy(bad + n, p, 9); /* a field twice */
	assert_int_equal(load_with(bad, n + 9, &e), -EINVAL);
	memcpy(bad, buf, n);
	p = memmem(bad, n, "\3big", 4);
	p[3] = 'x';
	assert_int_equal(load_with(bad, n, &e), -EINVAL);
	memcpy(bad, buf, n);
	memset(p + 5, 0xff, 4); /* 4 G elements */
	assert_int_equal(load_with(bad, n, &e), -EINVAL);
	memcpy(bad, buf, n);
	bad[0] = 3; /* a version to come */
	assert_int_equal(load_with(bad, n, &e), -EINVAL);
}

/* A section of version 1 has no "later": it keeps the reset value; version 2 must have it. */
static void state_versions(void **state)
{
	struct thing a, b;
	uint8_t buf[512];
	size_t n, at;
	uint8_t *p;

	thing_fill(&a);
	n = state_save(&thing, &a, buf, sizeof(buf));
	p = memmem(buf, n, "\5later", 6);
	at = (size_t)(p - buf);
	memmove(p, p + 13, n - at - 13);
	thing_fill(&b);
	b.s.later = 42;
	assert_int_equal(state_load(&thing, &b, buf, n - 13, NULL), -EINVAL);
	buf[0] = 1;
	assert_int_equal(state_load(&thing, &b, buf, n - 13, NULL), 0);
	assert_int_equal(b.s.later, 42);
	buf[0] = 0;
	assert_int_equal(state_load(&thing, &b, buf, n - 13, NULL), -EINVAL);
}

struct holes {
	uint8_t a, forgotten;
	uint16_t b;
};

static void state_tables(void **state)
{
	static const struct field hole[] = { ST(struct holes, a), ST(struct holes, b), { 0 } };
	static const struct field twice[] = {
		ST(struct holes, a),
		ST(struct holes, forgotten),
		ST(struct holes, b),
		{ .name = "c", .kind = ST_U8, .off = 2, .n = 1 },
		{ 0 },
	};
	static const struct field same[] = {
		ST(struct holes, a),
		{ .name = "a", .kind = ST_U8, .off = 1, .n = 1 },
		ST(struct holes, b),
		{ 0 },
	};
	static const struct field beyond[] = {
		ST(struct holes, a),
		ST(struct holes, forgotten),
		{ .name = "b", .kind = ST_U16, .off = 2, .n = 2 },
		{ 0 },
	};
	struct err e = { 0 };
	struct state_desc d = { hole, 0, sizeof(struct holes), 1 };
	static const struct state_desc nothing = STATE_NONE;

	assert_int_equal(state_hole(&d), 1);
	assert_true(state_check(&d, &e) < 0);
	assert_string_equal(e.msg, "byte 1 is in no row");
	d.fields = twice;
	assert_true(state_check(&d, &e) < 0);
	assert_string_equal(e.msg, "byte 2 is in two rows");
	d.fields = same;
	assert_true(state_check(&d, &e) < 0);
	d.fields = beyond;
	assert_true(state_check(&d, &e) < 0);
	d.fields = NULL;
	assert_true(state_check(&d, &e) < 0);
	assert_int_equal(state_check(&nothing, &e), 0);
	assert_int_equal(state_save_size(&nothing), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(state_hostile),
		cmocka_unit_test(state_versions),
		cmocka_unit_test(state_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
