/*
 * String instructions, with and without REP.
 *
 * A repeated instruction runs in chunks that stay within a page on each side; RAM is then moved by
 * the host's own REP instruction, which has the same meaning for overlapping operands. Between
 * chunks requests are looked at: the instruction then starts again with the counts that it has
 * reached, as the processor does ([SDM2B REP]). A fault leaves the registers at the element.
 *
 * References: [SDM2 MOVS, STOS, CMPS, SCAS, LODS, INS, OUTS, REP]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/io.h"
#include "kvm/x86/interp/rmw.h"

#define STRING_IO_MAX 4096

/* The registers of one instruction, under its address size. */
struct string {
	uint64_t mask; /* of rSI, rDI, rCX */
	int64_t step;  /* bytes by which the pointers move */
	unsigned size; /* of an element */
};

static always_inline struct string string_start(const struct vcpu *v, const struct insn *i,
						unsigned size)
{
	return (struct string){ size_mask(i->asize),
				v->rflags & RF_DF ? -(int64_t)size : (int64_t)size, size };
}

static always_inline void string_move(struct vcpu *v, const struct string *s, unsigned reg,
				      uint64_t elements)
{
	uint64_t x = v->r[reg] + (uint64_t)s->step * elements;

	if (s->mask == ~0ull)
		v->r[reg] = x;
	else if (s->mask == 0xffffffff)
		v->r[reg] = (uint32_t)x;
	else
		v->r[reg] = (v->r[reg] & ~0xffffull) | (uint16_t)x;
}

static always_inline uint64_t string_count(const struct vcpu *v, const struct string *s)
{
	return v->r[REG_RCX] & s->mask;
}

static always_inline void string_done(struct vcpu *v, const struct string *s, uint64_t elements)
{
	uint64_t x = v->r[REG_RCX] - elements;

	if (s->mask == ~0ull)
		v->r[REG_RCX] = x;
	else if (s->mask == 0xffffffff)
		v->r[REG_RCX] = (uint32_t)x;
	else
		v->r[REG_RCX] = (v->r[REG_RCX] & ~0xffffull) | (uint16_t)x;
}

/* Something waits at the boundary: leave the instruction, to be started again. */
static always_inline bool string_interrupted(struct vcpu *v)
{
	if (likely(!(atomic_load_explicit(&v->requests, memory_order_relaxed) | v->single_step)))
		return false;
	v->r[REG_RIP] = v->insn_rip;
	v->block_end = v->cur + 1;
	return true;
}

static always_inline gva_t string_src(struct vcpu *v, const struct insn *i, const struct string *s)
{
	return mmu_linear(v, i->seg, v->r[REG_RSI] & s->mask, s->size, ACC_READ);
}

static always_inline gva_t string_dst(struct vcpu *v, const struct string *s, unsigned acc)
{
	return mmu_linear(v, SEG_ES, v->r[REG_RDI] & s->mask, s->size, acc);
}

/* Elements that fit from la to the end of its page, going up; 0 when the first one crosses. */
static always_inline uint64_t string_room(gva_t la, unsigned size)
{
	return (PAGE_SIZE - (la & ~PAGE_MASK)) / size;
}

/* Does a run of n elements up from off stay inside a flat segment and the address size? */
static always_inline bool string_flat(const struct vcpu *v, const struct string *s, unsigned seg,
				      uint64_t off, uint64_t n, unsigned need)
{
	if (v->ac_check || off + n * s->size - 1 > s->mask)
		return false;
	return v->long64 || (v->seg_fast[seg] & need);
}

static void *string_host(struct vcpu *v, gva_t la, bool write)
{
	const struct tlb_entry *t = mmu_entry(v, la);

	if ((write ? t->wtag : t->rtag) != mmu_tag(v, la, 1))
		return NULL;
	return (void *)(uintptr_t)(la + t->addend);
}

/* ---- MOVS, STOS ----------------------------------------------------------------------------- */

static void string_host_movs(void *d, const void *s, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n)::"memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n)::"memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n)::"memory");
	}
}

static void string_host_stos(void *d, uint64_t a, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(a) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(a) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(a) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(a) : "memory");
	}
}

static void string_movs(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE);
	uint64_t left = rep ? string_count(v, &s) : 1;

	while (left) {
		gva_t src = string_src(v, i, &s);
		const void *hs = string_host(v, src, false);
		uint64_t n = 1;

		/* where the load may fault, it does so before anything of the destination does */
		if (rep && s.step > 0 && !v->single_step && !v->ac_check && hs) {
			gva_t dst = string_dst(v, &s, ACC_WRITE);
			void *hd = string_host(v, dst, true);

			n = MIN(left, MIN(string_room(src, size), string_room(dst, size)));
			if (!n || !hd ||
			    !string_flat(v, &s, i->seg, v->r[REG_RSI] & s.mask, n, SEGF_READ) ||
			    !string_flat(v, &s, SEG_ES, v->r[REG_RDI] & s.mask, n, SEGF_WRITE))
				n = 1;
			if (n > 1)
				string_host_movs(hd, hs, n, size);
		}
		if (n == 1) {
			uint64_t x = mem_ld(v, src, size);

			mem_st(v, string_dst(v, &s, ACC_WRITE), size, x);
		}
		string_move(v, &s, REG_RSI, n);
		string_move(v, &s, REG_RDI, n);
		if (!rep)
			return;
		string_done(v, &s, n);
		left -= n;
		if (left && string_interrupted(v))
			return;
	}
}

static void string_stos(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE);
	uint64_t left = rep ? string_count(v, &s) : 1;

	while (left) {
		gva_t dst = string_dst(v, &s, ACC_WRITE);
		uint64_t n = 1;

		if (rep && s.step > 0 && !v->single_step) {
			n = MIN(left, string_room(dst, size));
			if (!n ||
			    !string_flat(v, &s, SEG_ES, v->r[REG_RDI] & s.mask, n, SEGF_WRITE))
				n = 1;
		}
		if (n > 1) {
			void *hd = string_host(v, dst, true);

			if (hd)
				string_host_stos(hd, v->r[REG_RAX], n, size);
			else
				n = 1;
		}
		if (n == 1)
			mem_st(v, dst, size, v->r[REG_RAX]);
		string_move(v, &s, REG_RDI, n);
		if (!rep)
			return;
		string_done(v, &s, n);
		left -= n;
		if (left && string_interrupted(v))
			return;
	}
}

EXEC(MOVS_b)
{
	string_movs(v, i, 1);
}
EXEC(MOVS_v)
{
	BY_OSIZE(i, string_movs(v, i, size));
}
EXEC(STOS_b)
{
	string_stos(v, i, 1);
}
EXEC(STOS_v)
{
	BY_OSIZE(i, string_stos(v, i, size));
}

/* ---- LODS, SCAS, CMPS ----------------------------------------------------------------------- */

static void string_lods(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE);
	uint64_t left = rep ? string_count(v, &s) : 1;

	while (left) {
		uint64_t x = mem_ld(v, string_src(v, i, &s), size);

		if (size == 1)
			*(uint8_t *)&v->r[REG_RAX] = (uint8_t)x;
		else
			reg_set(v, REG_RAX, size, x);
		string_move(v, &s, REG_RSI, 1);
		if (!rep)
			return;
		string_done(v, &s, 1);
		if (--left && string_interrupted(v))
			return;
	}
}

/* SCAS compares rAX with [rDI], CMPS [rSI] with [rDI]; REPE goes on while equal, REPNE while not.
 */
static always_inline void string_compare(struct vcpu *v, const struct insn *i, unsigned size,
					 bool cmps)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE), while_equal = i->flags & IF_REP;
	uint64_t left = rep ? string_count(v, &s) : 1;

	while (left) {
		uint64_t a = cmps ? mem_ld(v, string_src(v, i, &s), size) : v->r[REG_RAX];
		uint64_t b = mem_ld(v, string_dst(v, &s, ACC_READ), size);

		alu_cmp(&v->fl, a, b, size);
		if (cmps)
			string_move(v, &s, REG_RSI, 1);
		string_move(v, &s, REG_RDI, 1);
		if (!rep)
			return;
		string_done(v, &s, 1);
		left--;
		if (!!(v->fl & FL_Z) != while_equal)
			return;
		if (left && string_interrupted(v))
			return;
	}
}

EXEC(LODS_b)
{
	string_lods(v, i, 1);
}
EXEC(LODS_v)
{
	BY_OSIZE(i, string_lods(v, i, size));
}
EXEC(SCAS_b)
{
	string_compare(v, i, 1, false);
}
EXEC(SCAS_v)
{
	BY_OSIZE(i, string_compare(v, i, size, false));
}
EXEC(CMPS_b)
{
	string_compare(v, i, 1, true);
}
EXEC(CMPS_v)
{
	BY_OSIZE(i, string_compare(v, i, size, true));
}

/* ---- INS, OUTS ------------------------------------------------------------------------------ */

/* Elements of one exit to user space: within a page, going up, flat; else one. */
static uint64_t string_io_chunk(struct vcpu *v, const struct string *s, unsigned seg, uint64_t off,
				gva_t la, uint64_t left, unsigned need)
{
	uint64_t n = MIN(left, MIN(string_room(la, s->size), STRING_IO_MAX / s->size));

	if (s->step < 0 || n == 0 || v->single_step || !string_flat(v, s, seg, off, n, need))
		return 1;
	return n;
}

static void string_ins(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE);
	uint64_t left = rep ? string_count(v, &s) : 1;
	uint16_t port = (uint16_t)v->r[REG_RDX];
	uint8_t buf[STRING_IO_MAX];

	io_check(v, port, size);
	while (left) {
		uint64_t off = v->r[REG_RDI] & s.mask, n = 1;
		gva_t dst = string_dst(v, &s, ACC_WRITE);

		if (rep)
			n = string_io_chunk(v, &s, SEG_ES, off, dst, left, SEGF_WRITE);
		/* what has been read from the port cannot be put back: the page must be there */
		mmu_probe(v, dst, (unsigned)(n * size), ACC_WRITE);
		io_in_string(v, port, size, (unsigned)n, buf);
		mmu_write(v, dst, buf, (unsigned)(n * size), ACC_WRITE);
		string_move(v, &s, REG_RDI, n);
		if (!rep)
			return;
		string_done(v, &s, n);
		left -= n;
		if (left && string_interrupted(v))
			return;
	}
}

static void string_outs(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct string s = string_start(v, i, size);
	bool rep = i->flags & (IF_REP | IF_REPNE);
	uint64_t left = rep ? string_count(v, &s) : 1;
	uint16_t port = (uint16_t)v->r[REG_RDX];
	uint8_t buf[STRING_IO_MAX];

	io_check(v, port, size);
	while (left) {
		uint64_t off = v->r[REG_RSI] & s.mask, n = 1;
		gva_t src = string_src(v, i, &s);

		if (rep)
			n = string_io_chunk(v, &s, i->seg, off, src, left, SEGF_READ);
		mmu_read(v, src, buf, (unsigned)(n * size), ACC_READ);
		io_out_string(v, port, size, (unsigned)n, buf);
		string_move(v, &s, REG_RSI, n);
		if (!rep)
			return;
		string_done(v, &s, n);
		left -= n;
		if (left && string_interrupted(v))
			return;
	}
}

EXEC(INS_b)
{
	string_ins(v, i, 1);
}
EXEC(INS_z)
{
	string_ins(v, i, i->osize == 2 ? 2 : 4);
}
EXEC(OUTS_b)
{
	string_outs(v, i, 1);
}
EXEC(OUTS_z)
{
	string_outs(v, i, i->osize == 2 ? 2 : 4);
}
