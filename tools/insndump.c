/*
 * insndump MODE FILE [STRIDE]: disassemble raw bytes with the engine's decoder, for comparison with
 * other disassemblers (tests/unit/decode_objdump.py) and for looking at guest code.
 *
 * MODE is 16, 32 or 64. With STRIDE one instruction is decoded at each multiple of STRIDE, else
 * decoding is linear and goes on one byte later after an invalid one. Each line is offset, length,
 * text, row id; length 0 and "(bad)" for an invalid instruction.
 *
 * Threads: one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"

static uint8_t *insndump_read(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	uint8_t *buf = NULL;
	long size;

	if (!f)
		return NULL;
	if (!fseek(f, 0, SEEK_END) && (size = ftell(f)) >= 0 && !fseek(f, 0, SEEK_SET)) {
		buf = malloc((size_t)size + 1);
		*n = (size_t)size;
		if (buf && fread(buf, 1, *n, f) != *n) {
			free(buf);
			buf = NULL;
		}
	}
	fclose(f);
	return buf;
}

int main(int argc, char **argv)
{
	size_t n = 0, stride = argc == 4 ? strtoul(argv[3], NULL, 0) : 0;
	enum decode_mode mode = DECODE_64;
	uint8_t *buf;

	if (argc != 3 && !(argc == 4 && stride)) {
		fprintf(stderr, "usage: insndump 16|32|64 FILE [STRIDE]\n");
		return 1;
	}
	if (!strcmp(argv[1], "16"))
		mode = DECODE_16;
	else if (!strcmp(argv[1], "32"))
		mode = DECODE_32;
	else if (strcmp(argv[1], "64")) {
		fprintf(stderr, "insndump: mode %s: must be 16, 32 or 64\n", argv[1]);
		return 1;
	}
	buf = insndump_read(argv[2], &n);
	if (!buf) {
		perror(argv[2]);
		return 1;
	}
	for (size_t p = 0; p < n;) {
		struct insn insn;
		char text[128];

		if (insn_decode(buf + p, n - p, mode, false, &insn) == DECODE_OK) {
			insn_format(&insn, mode, p, text, sizeof(text));
			printf("%zx\t%u\t%s\t%s\n", p, insn.len, text, insn_info[insn.id].name);
			p += stride ? stride : insn.len;
		} else {
			printf("%zx\t0\t(bad)\t-\n", p);
			p += stride ? stride : 1;
		}
	}
	free(buf);
	return 0;
}
