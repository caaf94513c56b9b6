/*
 * Helpers to write the body of an instruction, exec_<id> of x86/insn.def.
 *
 * A body runs after the checks its row asks for (LOCK, mode, privilege, feature, FPU availability).
 * r[REG_RIP] is already the next instruction's address. It may throw; see kvm/x86/vcpu.h.
 * Threads: the vCPU's own.
 */
#pragma once
#include "kvm/x86/mmu.h"
#include "kvm/x86/vcpu.h"

typedef void exec_fn(struct vcpu *v, const struct insn *i);

#define EXEC(id) void exec_##id(struct vcpu *v, const struct insn *i)

/* One declaration for each row that is not run on the host by a thunk. */
#define INSN_EXEC_CALL(id) exec_fn exec_##id;
#define INSN_EXEC_HOST(id)
#define INSN(id, map, pp, op, ext, mnem, ops, at, rd, wr, un, ft, how, sdm) INSN_EXEC_##how(id)
#include "x86/insn.def"
#undef INSN
extern exec_fn *const insn_exec[I_COUNT]; /* HOST rows: exec_host */
exec_fn exec_host;
exec_fn exec_host_checked; /* with fpu_check; insn->aux must be set */

/* ---- Registers ------------------------------------------------------------------------------ */

static always_inline uint8_t *reg8(struct vcpu *v, const struct insn *i, unsigned n)
{
	return (uint8_t *)v->r + insn_reg8(i, n);
}

/* Read a general register zero-extended; size 2, 4, 8 (1: use reg8). */
static always_inline uint64_t reg_get(const struct vcpu *v, unsigned n, unsigned size)
{
	return size == 8 ? v->r[n] : size == 4 ? (uint32_t)v->r[n] : (uint16_t)v->r[n];
}

/* Write: 32-bit writes clear the upper half, 16-bit ones keep it. */
static always_inline void reg_set(struct vcpu *v, unsigned n, unsigned size, uint64_t x)
{
	if (size == 8)
		v->r[n] = x;
	else if (size == 4)
		v->r[n] = (uint32_t)x;
	else
		v->r[n] = (v->r[n] & ~0xffffull) | (uint16_t)x;
}

static always_inline uint64_t size_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

/* ---- Memory operands ------------------------------------------------------------------------ */

/* Offset of the memory operand, truncated to the address size. */
static always_inline uint64_t insn_ea(const struct vcpu *v, const struct insn *i)
{
	uint64_t off = v->r[i->base] + (v->r[i->index] << i->scale) + (uint64_t)(int64_t)i->disp;

	if (unlikely(i->asize != 8))
		off &= i->asize == 4 ? 0xffffffff : 0xffff;
	return off;
}

/* Linear address of the memory operand, checked for an access of size bytes. */
static always_inline gva_t insn_la(struct vcpu *v, const struct insn *i, unsigned size,
				   unsigned acc)
{
	return mmu_linear(v, i->seg, insn_ea(v, i), size, acc);
}

static always_inline uint64_t mem_ld(struct vcpu *v, gva_t la, unsigned size)
{
	switch (size) {
	case 1: return mmu_ld8(v, la);
	case 2: return mmu_ld16(v, la);
	case 4: return mmu_ld32(v, la);
	default: return mmu_ld64(v, la);
	}
}

static always_inline void mem_st(struct vcpu *v, gva_t la, unsigned size, uint64_t x)
{
	switch (size) {
	case 1: mmu_st8(v, la, (uint8_t)x); break;
	case 2: mmu_st16(v, la, (uint16_t)x); break;
	case 4: mmu_st32(v, la, (uint32_t)x); break;
	default: mmu_st64(v, la, x); break;
	}
}

/* ModRM.rm operand, register or memory, size 1..8. */
static always_inline uint64_t rm_get(struct vcpu *v, const struct insn *i, unsigned size)
{
	if (i->flags & IF_MEM)
		return mem_ld(v, insn_la(v, i, size, ACC_READ), size);
	return size == 1 ? *reg8(v, i, i->rm) : reg_get(v, i->rm, size);
}

static always_inline void rm_set(struct vcpu *v, const struct insn *i, unsigned size, uint64_t x)
{
	if (i->flags & IF_MEM)
		mem_st(v, insn_la(v, i, size, ACC_WRITE), size, x);
	else if (size == 1)
		*reg8(v, i, i->rm) = (uint8_t)x;
	else
		reg_set(v, i->rm, size, x);
}

/* ---- Stack ---------------------------------------------------------------------------------- */

static always_inline uint64_t stack_mask(const struct vcpu *v)
{
	return size_mask(v->stack_size);
}

/* Set rSP to x under the stack's width: a 16-bit stack keeps the upper bits. */
static always_inline void stack_set(struct vcpu *v, uint64_t x)
{
	if (likely(v->stack_size == 8))
		v->r[REG_RSP] = x;
	else
		v->r[REG_RSP] = (v->r[REG_RSP] & ~stack_mask(v)) | (x & stack_mask(v));
	if (v->stack_size == 4)
		v->r[REG_RSP] = (uint32_t)v->r[REG_RSP];
}

/* Store at the new top; rSP changes only when the store has succeeded. */
static always_inline void stack_push(struct vcpu *v, unsigned size, uint64_t x)
{
	uint64_t sp = (v->r[REG_RSP] - size) & stack_mask(v);

	mem_st(v, mmu_linear(v, SEG_SS, sp, size, ACC_WRITE), size, x);
	stack_set(v, sp);
}

/* Read at rSP + skip without popping. */
static always_inline uint64_t stack_peek(struct vcpu *v, unsigned size, unsigned skip)
{
	uint64_t sp = (v->r[REG_RSP] + skip) & stack_mask(v);

	return mem_ld(v, mmu_linear(v, SEG_SS, sp, size, ACC_READ), size);
}

/* ---- Flags ---------------------------------------------------------------------------------- */

/* Condition code 0..15 ([SDM1 B]) from v->fl. */
static always_inline bool cond(const struct vcpu *v, unsigned cc)
{
	unsigned fl = v->fl, r;

	switch (cc >> 1) {
	case 0: r = fl & FL_O; break;
	case 1: r = fl & FL_C; break;
	case 2: r = fl & FL_Z; break;
	case 3: r = fl & (FL_C | FL_Z); break;
	case 4: r = fl & FL_S; break;
	case 5: r = fl & FL_P; break;
	case 6: r = ((fl >> 15) ^ fl) & 1; break;
	default: r = (((fl >> 15) ^ fl) & 1) | (fl & FL_Z); break;
	}
	return (r != 0) ^ (cc & 1);
}

/* ---- Near branches -------------------------------------------------------------------------- */

/*
 * Set rIP to target after the checks of a near branch: canonical in 64-bit mode, else inside the
 * CS limit; #GP(0) otherwise. osize 2 truncates to 16 bits.
 */
static always_inline void branch_to(struct vcpu *v, uint64_t target, unsigned osize)
{
	if (likely(v->long64)) {
		if (unlikely(osize == 2))
			target &= 0xffff;
		if (unlikely((uint64_t)sext(target, 48) != target))
			throw_gp(v, 0);
	} else {
		target &= osize == 2 ? 0xffff : 0xffffffff;
		if (unlikely(target > v->seg[SEG_CS].limit))
			throw_gp(v, 0);
	}
	v->r[REG_RIP] = target;
}

/* ---- Control transfers through descriptors (interp/far.c, interp/deliver.c) ------------------ */

enum deliver_kind {
	DELIVER_EXT_INT,
	DELIVER_EXCEPTION,
	DELIVER_SOFT_INT,
	DELIVER_NMI,
	DELIVER_ICEBP
};

/*
 * Deliver an interrupt or exception through the IDT/IVT of the current mode: pushes the frame,
 * loads CS:rIP, SS:rSP, clears IF/TF/NT/RF/VM as the gate says; task gates switch tasks. May throw
 * (the run loop then applies the double-fault rules). The return address is r[REG_RIP] as it
 * stands.
 */
void vcpu_deliver(struct vcpu *v, unsigned vec, enum deliver_kind kind, bool has_error,
		  uint32_t error);

/* Load a segment register by a MOV/POP/Lxx in the current mode, all checks ([SDM2 MOV]). */
void vcpu_load_seg(struct vcpu *v, unsigned seg, uint16_t sel);
/* Set CS in real or virtual-8086 mode, or any segment, without checks. */
void vcpu_set_seg_real(struct vcpu *v, unsigned seg, uint16_t sel);
/* Change CPL and what hangs on it. */
void vcpu_set_cpl(struct vcpu *v, unsigned cpl);

/* ---- Ports ---------------------------------------------------------------------------------- */

/* Throw #GP(0) unless IOPL or the TSS bitmap permits [port, port+size). */
void io_check(struct vcpu *v, uint16_t port, unsigned size);
/* One access, in-kernel bus first, then user space; size 1, 2, 4. */
uint32_t io_in(struct vcpu *v, uint16_t port, unsigned size);
void io_out(struct vcpu *v, uint16_t port, unsigned size, uint32_t val);

/* ---- x87, SSE, AVX availability (interp/fpu.c): throw #UD, #NM, #MF as the row's A_* ask ----- */
void fpu_check(struct vcpu *v, const struct insn *i, uint32_t attr);
