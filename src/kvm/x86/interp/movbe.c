/*
 * MOVBE: a move that swaps bytes.
 *
 * References: [SDM2B MOVBE].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/exec.h"

static uint64_t movbe_swap(uint64_t x, unsigned size)
{
	return __builtin_bswap64(x) >> (64 - 8 * size);
}

EXEC(MOVBE_GvMv)
{
	uint64_t x = mem_ld(v, insn_la(v, i, i->osize, ACC_READ), i->osize);

	reg_set(v, i->reg, i->osize, movbe_swap(x, i->osize));
}

EXEC(MOVBE_MvGv)
{
	uint64_t x = movbe_swap(reg_get(v, i->reg, i->osize), i->osize);

	mem_st(v, insn_la(v, i, i->osize, ACC_WRITE), i->osize, x);
}
