/*
 * Fuzz target: the decoder and the disassembler. The first byte chooses mode and buffer size for
 * the text, the rest is code.
 *
 * Properties: nothing is read beyond the bytes given (each call gets an allocation of its own, for
 * ASan); length is at most 15; DECODE_MORE if and only if bytes are missing; more bytes behind an
 * instruction change nothing; the text never overruns its buffer.
 *
 * Threads: one.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "x86/decode.h"

#define REQUIRE(x) \
	do { \
		if (!(x)) \
			abort(); \
	} while (0)

static enum decode_result fuzz_decode(const uint8_t *data, size_t n, enum decode_mode mode,
				      bool real, struct insn *insn)
{
	uint8_t *copy = malloc(n ? n : 1);
	enum decode_result r;

	REQUIRE(copy);
	memcpy(copy, data, n);
	r = insn_decode(copy, n, mode, real, insn);
	free(copy);
	return r;
}

static void fuzz_one(const uint8_t *data, size_t n, enum decode_mode mode, bool real, size_t cap)
{
	struct insn insn, other;
	enum decode_result r = fuzz_decode(data, n, mode, real, &insn);
	char *text;
	int len;

	REQUIRE(insn.len <= 15 && insn.len <= n);
	if (r == DECODE_MORE) {
		REQUIRE(n < 15);
		return;
	}
	/* The bytes consumed decide, neither more nor fewer. */
	REQUIRE(fuzz_decode(data, insn.len, mode, real, &other) == r);
	REQUIRE(!memcmp(&insn, &other, sizeof(insn)));
	for (size_t k = 0; k < insn.len; k++)
		REQUIRE(fuzz_decode(data, k, mode, real, &other) == DECODE_MORE);
	if (r != DECODE_OK)
		return;
	REQUIRE(insn.id < I_COUNT && insn.base < REG_COUNT && insn.index < REG_COUNT);
	REQUIRE(insn.reg < 16 && insn.rm < 16 && insn.vvvv < 16 && insn.seg < SEG_COUNT);
	text = malloc(cap + 1);
	REQUIRE(text);
	len = insn_format(&insn, mode, 0xfffffffffffff000, text, cap);
	REQUIRE(len > 0 && (!cap || strlen(text) < cap));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum decode_mode mode[] = { DECODE_16, DECODE_32, DECODE_64, DECODE_64 };

	if (size < 1)
		return 0;
	fuzz_one(data + 1, size - 1, mode[data[0] & 3], !(data[0] & 3) && data[0] & 4,
		 data[0] >> 3);
	return 0;
}
