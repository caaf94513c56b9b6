/* Rows of x86/insn.def to the functions that run them; a missing body does not link. */
#include "kvm/x86/interp/exec.h"

#define EXEC_TABLE_CALL(id) exec_##id
#define EXEC_TABLE_HOST(id) exec_host

exec_fn *const insn_exec[I_COUNT] = {
#define INSN(id, map, pp, op, ext, mnem, ops, at, rd, wr, un, ft, how, sdm) \
	[I_##id] = EXEC_TABLE_##how(id),
#include "x86/insn.def"
#undef INSN
};
