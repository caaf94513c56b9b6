/*
 * Read-modify-write of an r/m operand: register, memory, LOCK-ed memory.
 *
 * On RAM a LOCK-ed operation is a compare-and-swap loop on the host address, so that it is atomic
 * against other vCPUs and against devices. Across pages, and on pages with decoded code, it runs
 * alone (kvm_exclusive_start) when there are other vCPUs.
 *
 * References: [SDM3 8.1.2]. Threads: the vCPU's own.
 */
#pragma once
#include "kvm/x86/interp/alu.h"
#include "kvm/x86/interp/exec.h"

static always_inline uint64_t host_ld(const void *p, unsigned size)
{
	uint64_t x = 0;

	switch (size) {
	case 1: return *(const uint8_t *)p;
	case 2: __builtin_memcpy(&x, p, 2); return x;
	case 4: __builtin_memcpy(&x, p, 4); return x;
	default: __builtin_memcpy(&x, p, 8); return x;
	}
}

static always_inline void host_st(void *p, unsigned size, uint64_t x)
{
	switch (size) {
	case 1: *(uint8_t *)p = (uint8_t)x; break;
	case 2: __builtin_memcpy(p, &x, 2); break;
	case 4: __builtin_memcpy(p, &x, 4); break;
	default: __builtin_memcpy(p, &x, 8);
	}
}

/* Atomic compare-and-swap at any alignment; *old gets what was there. */
static always_inline bool host_cas(void *p, unsigned size, uint64_t *old, uint64_t x)
{
	bool done;

	switch (size) {
	case 1:
		__asm__ volatile("lock cmpxchgb %b3, %0"
				 : "+m"(*(uint8_t *)p), "+a"(*old), "=@ccz"(done)
				 : "q"(x)
				 : "memory");
		break;
	case 2:
		__asm__ volatile("lock cmpxchgw %w3, %0"
				 : "+m"(*(uint16_t *)p), "+a"(*old), "=@ccz"(done)
				 : "r"(x)
				 : "memory");
		break;
	case 4:
		__asm__ volatile("lock cmpxchgl %k3, %0"
				 : "+m"(*(uint32_t *)p), "+a"(*old), "=@ccz"(done)
				 : "r"(x)
				 : "memory");
		break;
	default:
		__asm__ volatile("lock cmpxchgq %3, %0"
				 : "+m"(*(uint64_t *)p), "+a"(*old), "=@ccz"(done)
				 : "r"(x)
				 : "memory");
	}
	return done;
}

/* Before a LOCK-ed access without a host pointer; rmw_alone_end after it. Throws end it as well. */
static inline void rmw_alone_start(struct vcpu *v)
{
	if (atomic_load(&v->vm->nvcpus) > 1)
		kvm_exclusive_start(v);
}

static inline void rmw_alone_end(struct vcpu *v)
{
	kvm_exclusive_end(v);
}

/* Host pointer for a read-modify-write after making sure that the page is writable, or NULL. */
static inline void *rmw_ptr_slow(struct vcpu *v, gva_t la, unsigned size)
{
	mmu_probe(v, la, size, ACC_WRITE);
	return mmu_rmw_ptr(v, la, size);
}

/* d = op(d, s) at linear address la; returns the new value. */
static always_inline uint64_t rmw_mem(struct vcpu *v, const struct insn *i, gva_t la, unsigned size,
				      alu2_fn *op, uint64_t s, uint64_t *old)
{
	void *p = mmu_rmw_ptr(v, la, size);
	uint16_t fl = v->fl;
	uint64_t d, r;

	if (unlikely(!p))
		p = rmw_ptr_slow(v, la, size);
	if (likely(p && !(i->flags & IF_LOCK))) {
		d = host_ld(p, size);
		r = op(&fl, d, s, size);
		host_st(p, size, r);
	} else if (p) {
		d = host_ld(p, size);
		do {
			fl = v->fl;
			r = op(&fl, d, s, size);
		} while (!host_cas(p, size, &d, r));
	} else {
		if (i->flags & IF_LOCK)
			rmw_alone_start(v);
		d = mmu_ld_rmw(v, la, size);
		r = op(&fl, d, s, size);
		mem_st(v, la, size, r);
		rmw_alone_end(v);
	}
	v->fl = fl;
	*old = d & size_mask(size);
	return r;
}

/* r/m = op(r/m, s). */
static always_inline void rmw_rm(struct vcpu *v, const struct insn *i, unsigned size, alu2_fn *op,
				 uint64_t s)
{
	uint64_t old;

	if (i->flags & IF_MEM) {
		rmw_mem(v, i, insn_la(v, i, size, ACC_WRITE), size, op, s, &old);
	} else if (size == 1) {
		uint8_t *r = reg8(v, i, i->rm);

		*r = (uint8_t)op(&v->fl, *r, s, 1);
	} else {
		reg_set(v, i->rm, size, op(&v->fl, v->r[i->rm], s, size));
	}
}

/* Call fn(size) with size a constant: 2, 4 or 8 by operand size. */
#define BY_OSIZE(i, stmt) \
	do { \
		if (likely((i)->osize == 8)) { \
			const unsigned size = 8; \
			stmt; \
		} else if ((i)->osize == 4) { \
			const unsigned size = 4; \
			stmt; \
		} else { \
			const unsigned size = 2; \
			stmt; \
		} \
	} while (0)
