/*
 * Changes of level in few registers: SYSCALL, SYSRET, and IRET of 64-bit programs.
 *
 * Theory of operation
 *   These are compiled without vector registers (-mgeneral-regs-only), so that generated code calls
 *   them with the guest's in the host's, and stores only what C may clobber. In return they must
 *   not throw, nor call what is compiled otherwise. Each looks first whether all is as usual,
 * reading memory through TLB entries that are there; if not it has changed nothing, and returns 0:
 * the interpreter's function is then called with everything stored. Else it does what that function
 *   does, and returns the host address to go on at.
 *
 * Modelled:     64-bit mode to 64-bit mode, CPL 0 and 3. Not modelled, left to interp/: TF, LDT
 *               selectors, segments that a return to level 3 would drop, alignment checks.
 * References:   [SDM2B SYSCALL, SYSRET], [SDM2A IRET]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/syscall.h"
#include "kvm/x86/jit/jit_int.h"

uint64_t jit_next(struct vcpu *v)
{
	const struct jit_ibtc_entry *x;
	unsigned ctx = jit_code_ctx(v);

	if ((atomic_load_explicit(&v->requests, memory_order_relaxed) | v->ev.exc_pending |
	     v->ev.triple_fault | v->ev.shadow | v->single_step | v->debug_exit | v->flush_code |
	     v->jit.interp_once) ||
	    !jit_usable(v))
		return 0;
	x = jit_lookup(v, v->r[REG_RIP], ctx);
	if (!x)
		return 0;
	jit_arrive(v, x, ctx);
	return (uintptr_t)x->code;
}

/* Go on there, or leave generated code. */
static uint64_t lean_go(struct vcpu *v)
{
	uint64_t code = jit_next(v);

	return code ? code : v->jitp->g_exit;
}

static uint64_t lean_rflags(const struct vcpu *v)
{
	return (v->rflags & ~(uint64_t)F_ARITH) | (v->fl >> 8 & (F_ARITH & 0xff)) |
	       (v->fl & FL_O ? F_O : 0);
}

static void lean_set_rflags(struct vcpu *v, uint64_t x)
{
	v->fl = (uint16_t)((x & (F_ARITH & 0xff)) << 8 | (x & F_O ? FL_O : 0));
	v->rflags = (uint32_t)(x & ~(uint64_t)F_ARITH) | RF_FIXED;
}

/* What hangs on CPL and RFLAGS.AC; no alignment checks. */
static void lean_select(struct vcpu *v)
{
	unsigned ctx = v->cpl == 3                                  ? TLB_USER
		       : (v->rflags & RF_AC) && (v->cr4 & CR4_SMAP) ? TLB_KERNEL_AC
								    : TLB_KERNEL;

	v->ac_check = false;
	v->tlb = v->tlbs[ctx];
}

/* ---- SYSCALL, SYSRET ------------------------------------------------------------------------- */

uint64_t jit_lean_syscall(struct vcpu *v, uint32_t desc)
{
	const struct jit_desc *d = &v->jitp->descs[desc];
	unsigned cs = v->msr.star >> 32 & 0xfffc;
	uint64_t flags = lean_rflags(v) & ~(uint64_t)RF_RF;

	if (!(v->efer & EFER_SCE) || (flags & RF_TF))
		return 0;
	v->r[REG_RCX] = d->rip + v->jit.slide + d->insn->len;
	v->r[REG_R11] = flags;
	v->no_trap = false;
	v->r[REG_RIP] = v->msr.lstar;
	syscall_segments(v, cs, cs + 8, 0, true);
	lean_set_rflags(v, flags & ~v->msr.sfmask);
	lean_select(v);
	return lean_go(v);
}

uint64_t jit_lean_sysret(struct vcpu *v, uint32_t desc)
{
	const struct insn *i = v->jitp->descs[desc].insn;
	unsigned base = v->msr.star >> 48;
	uint64_t flags = v->r[REG_R11] & SYSRET_FLAGS;

	if (!(v->efer & EFER_SCE) || i->osize != 8 || !seg_canonical(v->r[REG_RCX]) ||
	    (flags & (RF_TF | RF_AC)))
		return 0;
	v->r[REG_RIP] = v->r[REG_RCX];
	syscall_segments(v, base + 16, base + 8, 3, true);
	lean_set_rflags(v, flags);
	lean_select(v);
	return lean_go(v);
}

/* ---- IRET ------------------------------------------------------------------------------------ */

/* Host address of size bytes that a TLB has, or NULL. */
static const void *lean_peek(const struct vcpu *v, const struct tlb_entry *tlb, gva_t la,
			     unsigned size)
{
	const struct tlb_entry *t = &tlb[(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];

	if (t->rtag != mmu_tag(v, la, 1) || (la & ~PAGE_MASK) + size > PAGE_SIZE)
		return NULL;
	return (const void *)(uintptr_t)(la + t->addend);
}

/* A present descriptor of the GDT that is marked accessed. */
static bool lean_desc(const struct vcpu *v, uint16_t sel, struct desc *d)
{
	unsigned off = sel & 0xfff8u;
	const void *p;
	uint64_t x;

	if (seg_null(sel) || (sel & 4) || off + 7 > v->gdt.limit)
		return false;
	p = lean_peek(v, v->tlbs[TLB_KERNEL], v->gdt.base + off, 8);
	if (!p)
		return false;
	__builtin_memcpy(&x, p, 8);
	*d = (struct desc){ .lo = (uint32_t)x, .hi = (uint32_t)(x >> 32) };
	return desc_user(d) && desc_present(d) && (d->hi & 0x100);
}

/* Would a return to level 3 take data segments away (seg_drop_inner)? Null ones lose their RPL. */
static bool lean_keeps_data(const struct vcpu *v)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned k = 0; k < ARRAY_SIZE(data); k++) {
		const struct seg *s = &v->seg[data[k]];

		if (s->ar & SEG_AR_UNUSABLE ? s->sel != 0 : SEG_DPL(s->ar) < 3)
			return false;
	}
	return true;
}

uint64_t jit_lean_iret(struct vcpu *v, uint32_t desc)
{
	const uint64_t loaded = F_ARITH | RF_TF | RF_DF | RF_NT | RF_AC | RF_ID | RF_IF | RF_IOPL |
				RF_VIF | RF_VIP | RF_RF;
	const struct insn *i = v->jitp->descs[desc].insn;
	struct desc cs_desc, ss_desc = { 0 };
	uint64_t f[5], flags;
	uint16_t cs, ss;
	const void *p;
	unsigned cpl;

	if (i->osize != 8 || (v->rflags & RF_NT) || v->ev.nmi_masked ||
	    atomic_load_explicit(&v->ev.nmi_pending, memory_order_relaxed))
		return 0;
	p = lean_peek(v, v->tlb, v->r[REG_RSP], sizeof(f));
	if (!p)
		return 0;
	__builtin_memcpy(f, p, sizeof(f));
	cs = (uint16_t)f[1];
	ss = (uint16_t)f[4];
	cpl = cs & 3;
	flags = f[2];
	if ((cpl != 0 && cpl != 3) || (flags & RF_TF) || (cpl && (flags & RF_AC)) ||
	    !seg_canonical(f[0]))
		return 0;
	if (!lean_desc(v, cs, &cs_desc) || !desc_is_code(&cs_desc) || desc_conforming(&cs_desc) ||
	    desc_dpl(&cs_desc) != cpl || !desc_long(&cs_desc) || desc_big(&cs_desc))
		return 0;
	if (seg_null(ss)) {
		if (cpl == 3 || (ss & 3) != cpl)
			return 0;
	} else if (!lean_desc(v, ss, &ss_desc) || (ss & 3) != cpl ||
		   !desc_writable_data(&ss_desc) || desc_dpl(&ss_desc) != cpl) {
		return 0;
	}
	if (cpl == 3 && !lean_keeps_data(v))
		return 0;
	v->seg[SEG_CS] = seg_make(cs, &cs_desc);
	v->seg[SEG_SS] = seg_null(ss) ? seg_make_null(ss, cpl) : seg_make(ss, &ss_desc);
	v->r[REG_RIP] = f[0];
	v->r[REG_RSP] = f[3];
	v->cpl = (uint8_t)cpl;
	v->rf_keep = false;
	lean_set_rflags(v, (lean_rflags(v) & ~loaded) | (flags & loaded & ~(uint64_t)RF_RF));
	lean_select(v);
	return lean_go(v);
}
