/* Devices: properties from text, life, ids, traces by name; suggestions for mistyped words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/dev.h"
#include "core/nearest.h"

struct gadget {
	struct dev dev;
	uint8_t small;
	uint16_t port;
	uint64_t size;
	bool flag;
	char *text;
	void *peer;
	struct gadget_state {
		uint8_t v;
	} s;
};

static int unrealized, resets;

static const struct prop gadget_props[] = { PROP(struct gadget, small, 7, "a small number"),
					    PROP(struct gadget, port, 0x3f8, "a port"),
					    PROP_SIZE(struct gadget, size, 64 << 20, "a size"),
					    PROP_N(struct gadget, flag, "the-flag", true,
						   "a switch"),
					    PROP_STR(struct gadget, text, "dflt", "a text"),
					    PROP_BACKEND(struct gadget, peer, "chardev", "a peer"),
					    PROP_END };

static const struct field gadget_fields[] = { ST(struct gadget_state, v, .lim = 100), { 0 } };

static uint64_t gadget_read(struct dev *d, uint64_t off, unsigned size)
{
	return container_of(d, struct gadget, dev)->s.v;
}

static const struct region_ops gadget_ops = { gadget_read, NULL, 1, 1 };

static int gadget_realize(struct dev *d, struct err *e)
{
	struct gadget *g = container_of(d, struct gadget, dev);
	int rc = bus_claim(d, g->port, 1, &gadget_ops, e);

	return rc ? rc : g->small == 99 ? err_set(e, EINVAL, "no 99") : 0;
}

static void gadget_reset(struct dev *d, enum reset_kind k)
{
	resets++;
	container_of(d, struct gadget, dev)->s.v = k == RESET_COLD ? 1 : 2;
}

static int gadget_loaded(struct dev *d, struct err *e)
{
	return container_of(d, struct gadget, dev)->s.v == 13 ? err_set(e, EINVAL, "unlucky") : 0;
}

static void gadget_unrealize(struct dev *d)
{
	unrealized++;
}

static const struct dev_class gadget_class = {
	.name = "gadget",
	.desc = "a gadget",
	.size = sizeof(struct gadget),
	.props = gadget_props,
	.state = STATE_OF(struct gadget, s, gadget_fields, 1),
	.realize = gadget_realize,
	.reset = gadget_reset,
	.loaded = gadget_loaded,
	.unrealize = gadget_unrealize,
};

static int the_peer;

static void *find_peer(void *opaque, const char *type, const char *id)
{
	return !strcmp(type, "chardev") && !strcmp(id, "con0") ? &the_peer : NULL;
}

static void expect_error(struct dev *d, const char *name, const char *text, const char *part)
{
	struct err e = { 0 };

	assert_true(dev_set_prop(d, name, text, &e) < 0);
	if (!strstr(e.msg, part))
		fail_msg("%s=%s: %s", name, text, e.msg);
}

static void dev_props(void **state)
{
	struct machine_devs md = { .bus = bus_new(NULL), .backend_find = find_peer };
	struct dev *d = dev_new(&md, &gadget_class, NULL, NULL);
	struct gadget *g = container_of(d, struct gadget, dev);

	assert_true(g->small == 7 && g->port == 0x3f8 && g->size == 64 << 20 && g->flag);
	assert_string_equal(g->text, "dflt");
	assert_int_equal(dev_set_prop(d, "small", "0xff", NULL), 0);
	assert_int_equal(g->small, 255);
	assert_int_equal(dev_set_prop(d, "small", "010", NULL), 0);
	assert_int_equal(g->small, 8);
	assert_int_equal(dev_set_prop(d, "size", "2G", NULL), 0);
	assert_int_equal(g->size, 2ull << 30);
	assert_int_equal(dev_set_prop(d, "size", "12k", NULL), 0);
	assert_int_equal(g->size, 12288);
	assert_int_equal(dev_set_prop(d, "the-flag", "off", NULL), 0);
	assert_false(g->flag);
	assert_int_equal(dev_set_prop(d, "text", "hello", NULL), 0);
	assert_string_equal(g->text, "hello");
	assert_int_equal(dev_set_prop(d, "peer", "con0", NULL), 0);
	assert_ptr_equal(g->peer, &the_peer);
	expect_error(d, "smal", "1", "did you mean small?");
	expect_error(d, "zzz", "1", "no property zzz");
	expect_error(d, "small", "256", "more than 0xff");
	expect_error(d, "small", "-1", "number");
	expect_error(d, "small", " 1", "number");
	expect_error(d, "small", "", "number");
	expect_error(d, "small", "1x", "number");
	expect_error(d, "size", "99999999999T", "more than");
	expect_error(d, "size", "99999999999999999999", "more than");
	expect_error(d, "size", "1KB", "size");
	expect_error(d, "the-flag", "maybe", "on or off");
	expect_error(d, "peer", "con1", "no chardev with the id con1");
	dev_set_u64(d, "port", 0x2f8);
	assert_int_equal(dev_realize(d, NULL), 0);
	expect_error(d, "port", "1", "cannot change");
	machine_devs_free(&md);
	bus_free(md.bus);
}

static void dev_life(void **state)
{
	struct machine_devs md = { .bus = bus_new(NULL) };
	struct err e = { 0 };
	struct dev *a, *b;
	uint8_t buf[64];
	size_t n;

	unrealized = resets = 0;
	a = dev_create(&md, &gadget_class, "first", &e, NULL);
	b = dev_create(&md, &gadget_class, NULL, &e, "port", "1", NULL);
	assert_string_equal(b->id, "gadget");
	assert_null(dev_create(&md, &gadget_class, "first", &e, "port", "2", NULL));
	assert_null(dev_create(&md, &gadget_class, NULL, &e, "port", "3", "small", "99", NULL));
	assert_int_equal(bus_io_read(md.bus, 3, 1), 0xff);
	assert_null(dev_create(&md, &gadget_class, NULL, &e, "port", "x", NULL));
	assert_int_equal(unrealized, 0);
	assert_int_equal(resets, 2);
	machine_devs_reset(&md, RESET_WARM);
	assert_int_equal(bus_io_read(md.bus, 1, 1), 2);
	assert_ptr_equal(machine_devs_find(&md, "first"), a);
	n = dev_save(a, buf, sizeof(buf));
	buf[n - 1] = 13; /* the class refuses it: as before */
	assert_true(dev_load(a, buf, n, &e) < 0);
	assert_string_equal(e.msg, "first: unlucky");
	assert_int_equal(bus_io_read(md.bus, 0x3f8, 1), 2);
	buf[n - 1] = 14;
	assert_int_equal(dev_load(a, buf, n, &e), 0);
	assert_int_equal(bus_io_read(md.bus, 0x3f8, 1), 14);
	dev_free(a);
	assert_int_equal(bus_io_read(md.bus, 0x3f8, 1), 0xff);
	assert_ptr_equal(md.first, b);
	machine_devs_free(&md);
	assert_int_equal(unrealized, 2);
	assert_null(md.first);
	bus_free(md.bus);
}

static void dev_traces(void **state)
{
	struct trace_sink *sink = trace_sink_new();
	struct machine_devs md = { .bus = bus_new(sink), .trace = sink };
	char *text = NULL;
	size_t len;
	struct dev *a, *b;
	FILE *f;

	trace_sink_ring(sink, true);
	trace_switch(sink, "gad*", true);
	trace_switch(sink, "gadget-b", false);
	a = dev_create(&md, &gadget_class, "gadget-a", NULL, NULL);
	b = dev_create(&md, &gadget_class, "gadget-b", NULL, "port", "1", NULL);
	trace(a, "plain");
	trace(a, "four", 1, 2, 3, 4);
	trace(b, "quiet", 1);
	guest_error(b, "quiet", 1);
	assert_int_equal(b->tr.errors, 1);
	trace_switch(sink, "*", true);
	trace(b, "loud", UINT64_MAX);
	f = open_memstream(&text, &len);
	trace_sink_dump(sink, f);
	fclose(f);
	assert_non_null(strstr(text, "gadget-a plain\n"));
	assert_non_null(strstr(text, "gadget-a four 0x1 0x2 0x3 0x4\n"));
	assert_null(strstr(text, "quiet"));
	assert_non_null(strstr(text, "gadget-b loud 0xffffffffffffffff\n"));
	free(text);
	machine_devs_free(&md);
	bus_free(md.bus);
	trace_sink_free(sink);
}

static void dev_help_text(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	dev_help(&gadget_class, f);
	fclose(f);
	assert_non_null(strstr(text, "gadget, a gadget\n"));
	assert_non_null(strstr(text, "port=<u16>  a port (default 0x3f8)\n"));
	assert_non_null(strstr(text, "the-flag=<on|off>  a switch (default on)\n"));
	assert_non_null(strstr(text, "peer=<chardev>  a peer\n"));
	free(text);
}

static void nearest_words(void **state)
{
	static const char *const words[] = { "-kernel", "-initrd", "-append", NULL, "-m", "-smp" };

	assert_int_equal(text_nearest("-kernal", words, 6), 0);
	assert_int_equal(text_nearest("-kenrel", words, 6), 0);
	assert_int_equal(text_nearest("-INITRD", words, 6), 1);
	assert_int_equal(text_nearest("-app", words, 6), 2);
	assert_int_equal(text_nearest("-smpp", words, 6), 5);
	assert_int_equal(text_nearest("-something-else-entirely", words, 6), -1);
	assert_int_equal(text_nearest("", words, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dev_props),     cmocka_unit_test(dev_life),
		cmocka_unit_test(dev_traces),    cmocka_unit_test(dev_help_text),
		cmocka_unit_test(nearest_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
