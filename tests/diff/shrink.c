/*
 * Making a program that differs small: instructions are replaced by NOPs, in halves, quarters, then
 * one by one, as long as native and engine still differ. Nothing moves, so branches stay right.
 *
 * Threads: one, and a child process for each try.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "diff.h"
#include "x86/decode.h"

static struct {
	struct diff_result *native, *mine;
} shrink;

static bool shrink_differs(const struct diff_case *c, enum diff_engine e)
{
	struct diff_how how;

	diff_native(c, 1, shrink.native);
	if (shrink.native->vec < DIFF_OK || shrink.native->vec == 1)
		return false;
	diff_engine_load(e, c, 1);
	/* more than once, as the engine that mixes needs it */
	for (unsigned n = 0; n < 4; n++) {
		struct diff_result a = *shrink.native;

		diff_engine_run(e, c, shrink.mine, &how);
		diff_normalize(c, &a, shrink.mine, e);
		if (!diff_equal(&a, shrink.mine)) {
			*shrink.native = a;
			return shrink.mine->vec != DIFF_STUCK;
		}
	}
	return false;
}

void diff_shrink(const struct diff_case *c, enum diff_engine e)
{
	struct diff_case x = *c, y;
	unsigned at[DIFF_CODE_MAX + 1], n = 0;
	struct insn i;
	bool together = false; /* with the instruction before it */

	shrink.native = mmap(NULL, sizeof(*shrink.native), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shrink.mine = calloc(1, sizeof(*shrink.mine));
	for (unsigned p = 0; p < c->len; p += i.len) {
		if (!together)
			at[n++] = p;
		if (insn_decode(c->code + p, c->len - p, c->mode32 ? DECODE_32 : DECODE_64, false,
				&i) != DECODE_OK)
			i.len = 1, i.id = 0;
		together = diff_leaves_undefined(i.id);
	}
	at[n] = c->len;
	if (!shrink_differs(&x, e)) {
		printf("differs only in its batch, after other code; now without a difference:\n");
		diff_show(&x, shrink.native, shrink.native, e);
	} else {
		for (unsigned step = n / 2 ? n / 2 : 1;; step /= 2) {
			for (unsigned k = 0; k < n; k += step) {
				unsigned end = k + step < n ? k + step : n;

				y = x;
				memset(y.code + at[k], 0x90, at[end] - at[k]);
				if (memcmp(y.code, x.code, x.len) && shrink_differs(&y, e))
					x = y;
			}
			if (step == 1)
				break;
		}
		shrink_differs(&x, e);
		diff_show(&x, shrink.native, shrink.mine, e);
	}
	munmap(shrink.native, sizeof(*shrink.native));
	free(shrink.mine);
}
