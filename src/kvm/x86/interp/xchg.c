/*
 * XCHG, XADD, CMPXCHG, CMPXCHG8B/16B.
 *
 * XCHG with memory is locked with or without the prefix. CMPXCHG writes its memory operand in any
 * case, so that it faults on a read-only page even when the comparison fails.
 *
 * References: [SDM2A CMPXCHG, CMPXCHG8B], [SDM2D XADD, XCHG]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

/* ---- XCHG, XADD ----------------------------------------------------------------------------- */

static always_inline uint64_t xchg_op(uint16_t *fl, uint64_t d, uint64_t s, unsigned size)
{
	(void)fl;
	(void)d;
	(void)size;
	return s;
}

/* Exchange memory with s; returns the old value. */
static always_inline uint64_t xchg_mem(struct vcpu *v, const struct insn *i, unsigned size,
				       uint64_t s)
{
	struct insn locked = { .flags = IF_LOCK };
	uint64_t old;

	rmw_mem(v, &locked, insn_la(v, i, size, ACC_WRITE), size, xchg_op, s, &old);
	return old;
}

EXEC(XCHG_EbGb)
{
	uint8_t *r = reg8(v, i, i->reg), s = *r;

	if (i->flags & IF_MEM) {
		*r = (uint8_t)xchg_mem(v, i, 1, s);
	} else {
		*r = *reg8(v, i, i->rm);
		*reg8(v, i, i->rm) = s;
	}
}
EXEC(XCHG_EvGv)
{
	BY_OSIZE(i, {
		uint64_t s = v->r[i->reg];

		if (i->flags & IF_MEM) {
			reg_set(v, i->reg, size, xchg_mem(v, i, size, s));
		} else {
			uint64_t d = v->r[i->rm];

			reg_set(v, i->reg, size, d);
			reg_set(v, i->rm, size, s);
		}
	});
}
EXEC(XCHG_ZvrAX)
{
	uint64_t a = v->r[REG_RAX];

	reg_set(v, REG_RAX, i->osize, v->r[i->rm]);
	reg_set(v, i->rm, i->osize, a);
}

EXEC(XADD_EbGb)
{
	uint8_t *r = reg8(v, i, i->reg);
	uint64_t old;

	if (i->flags & IF_MEM) {
		rmw_mem(v, i, insn_la(v, i, 1, ACC_WRITE), 1, alu_add, *r, &old);
		*r = (uint8_t)old;
	} else {
		uint8_t *d = reg8(v, i, i->rm);
		uint8_t sum = (uint8_t)alu_add(&v->fl, *d, *r, 1);

		*r = *d;
		*d = sum; /* last: XADD r, r leaves the sum */
	}
}
EXEC(XADD_EvGv)
{
	BY_OSIZE(i, {
		uint64_t old;

		if (i->flags & IF_MEM) {
			rmw_mem(v, i, insn_la(v, i, size, ACC_WRITE), size, alu_add, v->r[i->reg],
				&old);
			reg_set(v, i->reg, size, old);
		} else {
			uint64_t sum;

			old = v->r[i->rm];
			sum = alu_add(&v->fl, old, v->r[i->reg], size);
			reg_set(v, i->reg, size, old);
			reg_set(v, i->rm, size, sum);
		}
	});
}

/* ---- CMPXCHG -------------------------------------------------------------------------------- */

/* Registers: the host's own instruction on whole registers, to get the upper halves right. */
static always_inline void cmpxchg_reg(struct vcpu *v, const struct insn *i, unsigned size)
{
	uint64_t d = v->r[i->rm], a = v->r[REG_RAX], s = v->r[i->reg], f = 0;

	if (size == 8)
		__asm__("cmpxchgq %3, %1\n\tmov %%rax, %2" ALU_STORE
			: "+a"(a), "+r"(d), "=&r"(f)
			: "r"(s)
			: "cc");
	else if (size == 4)
		__asm__("cmpxchgl %k3, %k1\n\tmov %%rax, %2" ALU_STORE
			: "+a"(a), "+r"(d), "=&r"(f)
			: "r"(s)
			: "cc");
	else
		__asm__("cmpxchgw %w3, %w1\n\tmov %%rax, %2" ALU_STORE
			: "+a"(a), "+r"(d), "=&r"(f)
			: "r"(s)
			: "cc");
	/* f is the accumulator, a the flags */
	v->fl = (uint16_t)a;
	v->r[REG_RAX] = f;
	if (i->rm != REG_RAX || (v->fl & FL_Z))
		v->r[i->rm] = d;
}

static always_inline void cmpxchg_mem(struct vcpu *v, const struct insn *i, unsigned size,
				      uint64_t s)
{
	gva_t la = insn_la(v, i, size, ACC_WRITE);
	void *p = mmu_rmw_ptr(v, la, size);
	uint64_t acc = v->r[REG_RAX] & size_mask(size), old = acc;
	bool same;

	if (unlikely(!p))
		p = rmw_ptr_slow(v, la, size);
	if (likely(p)) {
		same = host_cas(p, size, &old, s);
	} else {
		if (i->flags & IF_LOCK)
			rmw_alone_start(v);
		old = mmu_ld_rmw(v, la, size);
		same = old == acc;
		mem_st(v, la, size, same ? s : old);
		rmw_alone_end(v);
	}
	alu_cmp(&v->fl, acc, old, size);
	if (!same) {
		if (size == 1)
			*(uint8_t *)&v->r[REG_RAX] = (uint8_t)old;
		else
			reg_set(v, REG_RAX, size, old);
	}
}

EXEC(CMPXCHG_EbGb)
{
	uint8_t s = *reg8(v, i, i->reg);

	if (i->flags & IF_MEM) {
		cmpxchg_mem(v, i, 1, s);
	} else {
		uint8_t *a = (uint8_t *)&v->r[REG_RAX], *d = reg8(v, i, i->rm), old = *d;

		alu_cmp(&v->fl, *a, old, 1);
		if (v->fl & FL_Z)
			*d = s;
		else
			*a = old;
	}
}
EXEC(CMPXCHG_EvGv)
{
	BY_OSIZE(i, {
		if (i->flags & IF_MEM)
			cmpxchg_mem(v, i, size, v->r[i->reg]);
		else
			cmpxchg_reg(v, i, size);
	});
}

EXEC(CMPXCHG8B)
{
	gva_t la = insn_la(v, i, 8, ACC_WRITE);
	void *p = mmu_rmw_ptr(v, la, 8);
	uint64_t want = v->r[REG_RDX] << 32 | (uint32_t)v->r[REG_RAX], old = want;
	uint64_t s = v->r[REG_RCX] << 32 | (uint32_t)v->r[REG_RBX];
	bool same;

	if (unlikely(!p))
		p = rmw_ptr_slow(v, la, 8);
	if (p) {
		same = host_cas(p, 8, &old, s);
	} else {
		if (i->flags & IF_LOCK)
			rmw_alone_start(v);
		old = mmu_ld_rmw(v, la, 8);
		same = old == want;
		mmu_st64(v, la, same ? s : old);
		rmw_alone_end(v);
	}
	if (same) {
		v->fl |= FL_Z;
	} else {
		v->fl &= (uint16_t)~FL_Z;
		v->r[REG_RAX] = (uint32_t)old;
		v->r[REG_RDX] = old >> 32;
	}
}

EXEC(CMPXCHG16B)
{
	gva_t la = insn_la(v, i, 16, ACC_WRITE);
	uint64_t old[2] = { v->r[REG_RAX], v->r[REG_RDX] };
	bool same;
	void *p;

	if (la & 15)
		throw_gp(v, 0);
	p = mmu_rmw_ptr(v, la, 16);
	if (unlikely(!p))
		p = rmw_ptr_slow(v, la, 16);
	if (p) {
		__asm__ volatile("lock cmpxchg16b %0"
				 : "+m"(*(char(*)[16])p), "+a"(old[0]), "+d"(old[1]), "=@ccz"(same)
				 : "b"(v->r[REG_RBX]), "c"(v->r[REG_RCX])
				 : "memory");
	} else {
		uint64_t x[2];

		if (i->flags & IF_LOCK)
			rmw_alone_start(v);
		mmu_probe(v, la, 16, ACC_WRITE);
		mmu_read(v, la, x, 16, ACC_READ);
		same = x[0] == old[0] && x[1] == old[1];
		old[0] = x[0];
		old[1] = x[1];
		if (same) {
			x[0] = v->r[REG_RBX];
			x[1] = v->r[REG_RCX];
		}
		mmu_write(v, la, x, 16, ACC_WRITE);
		rmw_alone_end(v);
	}
	if (same) {
		v->fl |= FL_Z;
	} else {
		v->fl &= (uint16_t)~FL_Z;
		v->r[REG_RAX] = old[0];
		v->r[REG_RDX] = old[1];
	}
}
