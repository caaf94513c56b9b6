/*
 * The instruction table: insn.def as an array.
 *
 * References: [SDM2], [APM3].
 * Threads:    constant.
 */
#include "x86/insn.h"

/* clang-format off */
#define O0                { O_NONE }
#define O1(a)             { a }
#define O2(a, b)          { a, b }
#define O3(a, b, c)       { a, b, c }
#define O4(a, b, c, d)    { a, b, c, d }

const struct insn_info insn_info[I_COUNT] = {
#define INSN(id_, map_, pp_, op_, ext_, mnem_, ops_, attr_, rd_, wr_, un_, feat_, how_, sdm_) \
	[I_##id_] = {                                                                         \
		.name = #id_, .mnem = mnem_, .sdm = sdm_, .map = map_, .pp = pp_, .op = op_,  \
		.how = how_, .ext = ext_, .operand = ops_, .feature = feat_, .attr = attr_,   \
		.reads = rd_, .writes = wr_, .undef = un_,                                    \
	},
#include "x86/insn.def"
#undef INSN
};
/* clang-format on */

enum insn_id insn_fallback(enum insn_id id)
{
	const struct insn_info *row = &insn_info[id];

	if (row->attr & A_FALL)
		for (unsigned k = 0; k < I_COUNT; k++)
			if (insn_info[k].map == row->map && insn_info[k].op == row->op &&
			    insn_info[k].pp == PA)
				return (enum insn_id)k;
	return id;
}
