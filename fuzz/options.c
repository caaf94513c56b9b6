/*
 * The command line: the input is a list of arguments, one a line, given to options_parse. The first
 * byte picks an option that the rest of the line belongs to, so that each gets its share; what is
 * in a table of words is often taken from there.
 * Found by it: crashes, sanitizer reports, a refusal without a message, leaks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "fuzz.h"
#include "main/options.h"

enum { ARGS = 8, TEXT = 600 };

/* What the values of disks are made of; input bytes over 127 are indices. */
static const char *const words[] = {
	"file=",
	"driver=",
	"node-name=",
	"format=",
	"if=",
	"none",
	"virtio",
	"raw",
	"qcow2",
	"file",
	"null-co",
	"cache=",
	"writeback",
	"directsync",
	"unsafe",
	"aio=",
	"threads",
	"io_uring",
	"discard=",
	"unmap",
	"detect-zeroes=",
	"on",
	"off",
	"rerror=",
	"werror=",
	"stop",
	"enospc",
	"throttling.",
	"bps-total",
	"iops-read",
	"-max",
	"-max-length",
	"=",
	",",
	",,",
	"{\"",
	"\":",
	"\"",
	"\"}",
	"{",
	"}",
	"[",
	"null",
	"true",
	"\\u00e9",
	"\\ud83d\\ude00",
	"file.",
	"filename=",
	"filename",
	"driver",
	"node-name",
	"read-only",
	"index=",
	"unit=",
	"id=",
	"serial=",
	"size=",
	"offset=",
	"1M",
	"18446744073709551615",
	"snapshot=",
	"locking=",
	"media=",
	"cdrom",
	"backing=",
};

static void fuzz_line(const uint8_t *p, size_t n, char *out)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		char one[2] = { (char)p[i], 0 };
		const char *w = p[i] > 127 ? words[(p[i] - 128u) % ARRAY_SIZE(words)] : one;

		if (len + strlen(w) >= TEXT)
			break;
		strcpy(out + len, w);
		len += strlen(w);
	}
	out[len] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const mostly[] = { "-drive", "-blockdev", "-hda" };
	char text[ARGS][TEXT], name[ARGS][64], *argv[1 + 2 * ARGS] = { "kvasir" };
	struct options o = { 0 };
	struct err e = { 0 };
	int argc = 1;
	FILE *null = fopen("/dev/null", "w");

	BUG_ON(!null);
	o.out = null;
	for (unsigned i = 0; i < ARGS && size; i++) {
		const uint8_t *nl = memchr(data, '\n', size);
		size_t n = nl ? (size_t)(nl - data) : size;
		unsigned pick = n ? data[0] : 0, rows = 0;

		while (options_row(rows))
			rows++;
		if (pick < 192)
			strcpy(name[i], mostly[pick % ARRAY_SIZE(mostly)]);
		else
			snprintf(name[i], sizeof(name[i]), "-%s", options_row(pick % rows)->name);
		argv[argc++] = name[i];
		fuzz_line(data + !!n, n - !!n, text[i]);
		argv[argc++] = text[i];
		data += n + !!nl;
		size -= n + !!nl;
	}
	if (options_parse(&o, argc, argv, &e) < 0)
		BUG_ON(!e.msg[0]);
	options_free(&o);
	fclose(null);
	return 0;
}
