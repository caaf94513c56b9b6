/*
 * Character devices: what a telnet peer sends, and what users write in options. Found by it:
 * crashes, input that grows, answers without end, and options that are accepted and yet refused by
 * the check that comes later.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/char/opts.h"
#include "backend/char/telnet.h"
#include "base/bug.h"
#include "fuzz.h"

static void fuzz_reply(void *opaque, const uint8_t *answer, size_t len)
{
	BUG_ON(len != TELNET_REPLY || answer[0] != TELNET_IAC || answer[1] < 251);
	(*(size_t *)opaque)++;
}

/* Cut into pieces at any place the result is the same. */
static void fuzz_telnet(const uint8_t *data, size_t size, size_t cut)
{
	uint8_t *one = malloc(size + 1), *two = malloc(size + 1), start[TELNET_START];
	size_t answers = 0, n, m, more = 0;
	struct telnet t, u;
	unsigned breaks, b1, b2;

	cut = size ? cut % (size + 1) : 0;
	if (size)
		memcpy(one, data, size);
	memcpy(two, one, size);
	telnet_start(&t, start);
	telnet_start(&u, start);
	n = telnet_input(&t, one, size, &breaks, fuzz_reply, &answers);
	BUG_ON(n > size || answers * 3 > size || breaks * 2 > size);
	m = telnet_input(&u, two, cut, &b1, fuzz_reply, &more);
	BUG_ON(m > cut);
	memmove(two + m, two + cut, size - cut);
	m += telnet_input(&u, two + m, size - cut, &b2, fuzz_reply, &more);
	BUG_ON(n != m || memcmp(one, two, n) || breaks != b1 + b2 || answers != more);
	BUG_ON(t.us != u.us || t.peer != u.peer || t.state != u.state);
	free(one);
	free(two);
}

/* Read as far as telnet_ahead says: at most one BREAK, and that at the end. */
static void fuzz_breaks(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1), start[TELNET_START];
	struct telnet t, before;
	size_t answers = 0, m;
	unsigned n;

	telnet_start(&t, start);
	for (size_t at = 0; at < size; at += m) {
		m = telnet_ahead(&t, data + at, size - at);
		BUG_ON(!m || m > size - at);
		before = t;
		memcpy(copy, data + at, m);
		(void)telnet_input(&before, copy, m - 1, &n, fuzz_reply, &answers);
		BUG_ON(n);
		memcpy(copy, data + at, m);
		(void)telnet_input(&t, copy, m, &n, fuzz_reply, &answers);
		BUG_ON(m < size - at && n != 1);
	}
	free(copy);
}

static void fuzz_text(const char *text)
{
	struct chardev_opts o;
	struct err e = { 0 };

	if (chardev_opts_text(&o, text, &e)) {
		BUG_ON(!e.code || !e.msg[0]);
		return;
	}
	BUG_ON(chardev_opts_check(&o, &e) || o.kind >= CHARDEV_KINDS);
	chardev_opts_free(&o);
}

/* "name=value,name=value..." for a kind. */
static void fuzz_props(unsigned kind, char *s)
{
	struct chardev_opts o;
	char *save, *eq;

	chardev_opts_init(&o, (enum chardev_kind)(kind % CHARDEV_KINDS));
	for (s = strtok_r(s, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
		eq = strchr(s, '=');
		if (eq)
			*eq = 0;
		(void)!chardev_opts_set(&o, s, eq ? eq + 1 : "on", NULL);
	}
	(void)!chardev_opts_check(&o, NULL);
	chardev_opts_free(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const starts[] = { "",     "tcp:",  "unix:", "udp:", "telnet:",
					      "mon:", "file:", "pty:",  "pipe:" };
	const char *start;
	char *text;

	if (size < 2)
		return 0;
	if (data[0] & 1) {
		fuzz_telnet(data + 2, size - 2, data[1]);
		fuzz_breaks(data + 2, size - 2);
		return 0;
	}
	start = starts[data[1] % (sizeof(starts) / sizeof(starts[0]))];
	text = malloc(strlen(start) + size);
	strcpy(text, start);
	memcpy(text + strlen(start), data + 2, size - 2);
	text[strlen(start) + size - 2] = 0;
	if (data[0] & 2)
		fuzz_text(text);
	else
		fuzz_props(data[1], text);
	free(text);
	return 0;
}
