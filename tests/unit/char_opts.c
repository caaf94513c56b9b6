/* Options of chardevs: every QEMU form gives what it says, and what is wrong is refused with why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/opts.h"
#include "base/bits.h"

static struct chardev_opts text(const char *s)
{
	struct chardev_opts o;
	struct err e;

	if (chardev_opts_text(&o, s, &e))
		fail_msg("'%s' is refused: %s", s, e.msg);
	return o;
}

static void test_texts(void **state)
{
	static const struct {
		const char *text;
		enum chardev_kind kind;
		const char *path, *host, *port;
		int server, wait, telnet;
	} rows[] = {
		{ "null", CHARDEV_NULL, NULL, NULL, NULL, -1, -1, -1 },
		{ "stdio", CHARDEV_STDIO, NULL, NULL, NULL, -1, -1, -1 },
		{ "pty", CHARDEV_PTY, NULL, NULL, NULL, -1, -1, -1 },
		{ "pty:/tmp/l", CHARDEV_PTY, "/tmp/l", NULL, NULL, -1, -1, -1 },
		{ "file:a,b:c", CHARDEV_FILE, "a,b:c", NULL, NULL, -1, -1, -1 },
		{ "pipe:/tmp/p", CHARDEV_PIPE, "/tmp/p", NULL, NULL, -1, -1, -1 },
		{ "/dev/ttyS0", CHARDEV_TTY, "/dev/ttyS0", NULL, NULL, -1, -1, -1 },
		{ "tcp:h:1", CHARDEV_SOCKET, NULL, "h", "1", -1, -1, -1 },
		{ "tcp::1,server,nowait", CHARDEV_SOCKET, NULL, "", "1", 1, 0, -1 },
		{ "tcp:[::1]:1,server=on,wait=off", CHARDEV_SOCKET, NULL, "::1", "1", 1, 0, -1 },
		{ "telnet:h:telnet,server=on", CHARDEV_SOCKET, NULL, "h", "telnet", 1, -1, 1 },
		{ "unix:/a,,b,server=on", CHARDEV_SOCKET, "/a,b", NULL, NULL, 1, -1, -1 },
		{ "udp:h:5", CHARDEV_UDP, NULL, "h", "5", -1, -1, -1 },
		{ "udp::5@:6", CHARDEV_UDP, NULL, "", "5", -1, -1, -1 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct chardev_opts o = text(rows[i].text);

		assert_int_equal(o.kind, rows[i].kind);
		assert_int_equal(!!o.path, !!rows[i].path);
		assert_int_equal(!!o.host, !!rows[i].host);
		if (o.path)
			assert_string_equal(o.path, rows[i].path);
		if (o.host) {
			assert_string_equal(o.host, rows[i].host);
			assert_string_equal(o.port, rows[i].port);
		}
		assert_int_equal(o.server, rows[i].server);
		assert_int_equal(o.wait, rows[i].wait);
		assert_int_equal(o.telnet, rows[i].telnet);
		chardev_opts_free(&o);
	}
}

static void test_values(void **state)
{
	struct chardev_opts o = text("mon:tcp:h:1,reconnect=10,nodelay,ipv6=off,to=0");

	assert_int_equal(o.mux, 1);
	assert_int_equal(o.reconnect, 10);
	assert_int_equal(o.nodelay, 1);
	assert_int_equal(o.ipv6, 0);
	assert_int_equal(o.ipv4, -1);
	chardev_opts_free(&o);
	o = text("udp:a:5@[::2]:6");
	assert_string_equal(o.localaddr, "::2");
	assert_string_equal(o.localport, "6");
	chardev_opts_free(&o);
	chardev_opts_init(&o, CHARDEV_RINGBUF);
	assert_int_equal(chardev_opts_set(&o, "size", "64K", NULL), 0);
	assert_int_equal(o.size, 65536);
	assert_int_equal(chardev_opts_set(&o, "logfile", "a", NULL), 0);
	assert_int_equal(chardev_opts_set(&o, "logfile", "b", NULL), 0); /* the last one counts */
	assert_string_equal(o.logfile, "b");
	assert_int_equal(chardev_opts_check(&o, NULL), 0);
	chardev_opts_free(&o);
}

static void test_wrong_texts(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{ "", "unknown backend" },
		{ "sdtio", "did you mean stdio?" },
		{ "stdio,x", "unknown backend" },
		{ "file:", "a path is needed" },
		{ "pipe:", "a path is needed" },
		{ "vc", "no display" },
		{ "vc:80Cx24C", "no display" },
		{ "mon:vc", "no display" },
		{ "/dev/parport0", "parallel" },
		{ "websocket:h:1", "not supported" },
		{ "tn3270:h:1", "not supported" },
		{ "tcp:", "HOST:PORT is needed" },
		{ "tcp:h", "HOST:PORT is needed" },
		{ "tcp:h:", "HOST:PORT is needed" },
		{ "tcp:[::1]", "HOST:PORT is needed" },
		{ "tcp:[::1", "HOST:PORT is needed" },
		{ "tcp:h:1,sever=on", "did you mean server?" },
		{ "tcp:h:1,server=maybe", "on or off is needed" },
		{ "tcp:h:1,path=/x", "one of them" },
		{ "tcp:h:1,wait=off", "needs server=on" },
		{ "tcp:h:1,server=on,reconnect=1", "for clients" },
		{ "tcp:h:1,reconnect=x", "a number up to" },
		{ "tcp:h:1,reconnect=-1", "a number up to" },
		{ "tcp:h:1,reconnect=99999999999999999999", "a number up to" },
		{ "tcp:h:1,to=99999,server=on", "a number up to" },
		{ "tcp:h:1,ipv4=off,ipv6=off", "leaves no addresses" },
		{ "tcp:h:1,abstract=on", "are for path=" },
		{ "tcp:h:1,tls-creds=t", "not supported" },
		{ "unix:", "1 to 107 characters" },
		{ "unix:/x,nodelay=on", "are for host=" },
		{ "udp:h", "HOST:PORT is needed" },
		{ "udp:h:1@h", "HOST:PORT is needed" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct chardev_opts o;
		struct err e;

		if (!chardev_opts_text(&o, rows[i].text, &e))
			fail_msg("'%s' is accepted", rows[i].text);
		if (!strstr(e.msg, rows[i].says))
			fail_msg("'%s': \"%s\" does not say \"%s\"", rows[i].text, e.msg,
				 rows[i].says);
		assert_null(strchr(e.msg, '\n'));
	}
}

static void test_wrong_props(void **state)
{
	static const struct {
		const char *kind, *name, *value, *says;
	} rows[] = {
		{ "null", "path", "x", "has no property" },
		{ "file", "pth", "x", "did you mean path?" },
		{ "ringbuf", "size", "100", "power of two" },
		{ "ringbuf", "size", "64X", "a number up to" },
		{ "ringbuf", "size", "9999G", "a number up to" },
		{ "file", "append", "on", "needs path" },
		{ "stdio", "signal", "5", "on or off" },
		{ "stdio", "nosignale", "on", "unknown property" },
		{ "null", "logappend", "on", "needs logfile" },
		{ "socket", "host", "x", "a port is needed" },
		{ "socket", "server", "on", "a socket has path" },
		{ "udp", "host", "x", "needs port" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct chardev_opts o;
		enum chardev_kind kind;
		struct err e = { 0 };
		int r;

		assert_int_equal(chardev_kind_find(rows[i].kind, &kind, &e), 0);
		chardev_opts_init(&o, kind);
		r = chardev_opts_set(&o, rows[i].name, rows[i].value, &e);
		if (!r)
			r = chardev_opts_check(&o, &e);
		if (!r || !strstr(e.msg, rows[i].says))
			fail_msg("%s,%s=%s: \"%s\" does not say \"%s\"", rows[i].kind, rows[i].name,
				 rows[i].value, e.msg, rows[i].says);
		chardev_opts_free(&o);
	}
}

static void test_kinds(void **state)
{
	static const char *const absent[] = { "vc",  "parallel", "msmouse",      "braille",
					      "hub", "spicevmc", "qemu-vdagent", "wctablet",
					      "mux", "testdev",  "dbus" };
	enum chardev_kind k;
	struct err e;

	for (unsigned i = 0; i < CHARDEV_KINDS; i++) {
		assert_int_equal(chardev_kind_find(chardev_kind_name((enum chardev_kind)i), &k, &e),
				 0);
		assert_int_equal(k, i);
	}
	assert_int_equal(chardev_kind_find("memory", &k, &e), 0);
	assert_int_equal(k, CHARDEV_RINGBUF);
	assert_int_equal(chardev_kind_find("tty", &k, &e), 0);
	assert_int_equal(k, CHARDEV_TTY);
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
		assert_true(chardev_kind_find(absent[i], &k, &e) < 0);
		assert_non_null(strstr(e.msg, "not supported"));
	}
	assert_true(chardev_kind_find("sokcet", &k, &e) < 0);
	assert_non_null(strstr(e.msg, "did you mean socket?"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),       cmocka_unit_test(test_values),
		cmocka_unit_test(test_wrong_texts), cmocka_unit_test(test_wrong_props),
		cmocka_unit_test(test_kinds),
	};

	return cmocka_run_group_tests_name("char_opts", tests, NULL, NULL);
}
