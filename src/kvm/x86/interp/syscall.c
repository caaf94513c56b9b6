/*
 * Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and the bases of FS and GS.
 *
 * Modelled:   Intel: SYSCALL and SYSRET exist in 64-bit mode only, SYSRET to a non-canonical
 * address is #GP(0) at level 0. AMD: they exist in all protected modes, SYSRET does not look at RCX
 * (the fetch faults at level 3), SYSENTER is #UD in long mode. Not modelled: AMD's SYSRET leaves
 * the hidden part of SS as it was; here SS becomes the flat segment that its selector stands for,
 * as on Intel. References: [SDM2B SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS], [APM3], [APM2 6.1].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/syscall.h"
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/system.h"

EXEC(SYSCALL)
{
	unsigned cs = v->msr.star >> 32 & 0xfffc;

	if (!(v->efer & EFER_SCE) || v->real || (!v->long64 && !vcpu_is_amd(v)))
		throw_ud(v);
	v->r[REG_RCX] = v->r[REG_RIP];
	if (seg_long_mode(v)) {
		uint64_t flags = vcpu_rflags(v) & ~(uint64_t)RF_RF;

		v->r[REG_R11] = flags;
		v->no_trap = flags & v->msr.sfmask & RF_TF;
		v->r[REG_RIP] = v->long64 ? v->msr.lstar : v->msr.cstar;
		syscall_segments(v, cs, cs + 8, 0, true);
		vcpu_set_rflags(v, flags & ~v->msr.sfmask, ~(uint64_t)RF_FIXED);
	} else {
		v->r[REG_RIP] = (uint32_t)v->msr.star;
		syscall_segments(v, cs, cs + 8, 0, false);
		vcpu_set_rflags(v, 0, RF_IF | RF_VM | RF_RF);
	}
	vcpu_update_mode(v);
}

EXEC(SYSRET)
{
	unsigned base = v->msr.star >> 48;
	bool wide = i->osize == 8;

	if (!(v->efer & EFER_SCE) || (!v->long64 && !vcpu_is_amd(v)))
		throw_ud(v);
	if (!seg_long_mode(v)) {
		v->r[REG_RIP] = (uint32_t)v->r[REG_RCX];
		syscall_segments(v, base, base + 8, 3, false);
		vcpu_set_rflags(v, RF_IF, RF_IF);
		vcpu_update_mode(v);
		return;
	}
	if (wide && !seg_canonical(v->r[REG_RCX]) && !vcpu_is_amd(v))
		throw_gp(v, 0);
	v->r[REG_RIP] = wide ? v->r[REG_RCX] : (uint32_t)v->r[REG_RCX];
	syscall_segments(v, wide ? base + 16 : base, base + 8, 3, wide);
	vcpu_set_rflags(v, v->r[REG_R11] & SYSRET_FLAGS, ~(uint64_t)RF_FIXED);
	vcpu_update_mode(v);
}

EXEC(SYSENTER)
{
	unsigned cs = v->msr.sysenter_cs & 0xfffc;
	bool lm = seg_long_mode(v);

	if (lm && vcpu_is_amd(v))
		throw_ud(v);
	if (!(v->cr0 & CR0_PE) || !cs)
		throw_gp(v, 0);
	v->r[REG_RSP] = lm ? v->msr.sysenter_esp : (uint32_t)v->msr.sysenter_esp;
	v->r[REG_RIP] = lm ? v->msr.sysenter_eip : (uint32_t)v->msr.sysenter_eip;
	v->rflags &= ~(uint32_t)(RF_VM | RF_IF | RF_RF);
	syscall_segments(v, cs, cs + 8, 0, lm);
	vcpu_update_mode(v);
}

EXEC(SYSEXIT)
{
	unsigned cs = v->msr.sysenter_cs & 0xfffc;
	bool wide = i->osize == 8;

	if (seg_long_mode(v) && vcpu_is_amd(v))
		throw_ud(v);
	if (!(v->cr0 & CR0_PE) || !cs)
		throw_gp(v, 0);
	if (wide) {
		if (!seg_canonical(v->r[REG_RCX]) || !seg_canonical(v->r[REG_RDX]))
			throw_gp(v, 0);
		v->r[REG_RSP] = v->r[REG_RCX];
		v->r[REG_RIP] = v->r[REG_RDX];
		syscall_segments(v, cs + 32, cs + 40, 3, true);
	} else {
		v->r[REG_RSP] = (uint32_t)v->r[REG_RCX];
		v->r[REG_RIP] = (uint32_t)v->r[REG_RDX];
		syscall_segments(v, cs + 16, cs + 24, 3, false);
	}
	vcpu_update_mode(v);
}

/* ---- Bases of FS and GS --------------------------------------------------------------------- */

static void syscall_set_base(struct vcpu *v, unsigned seg, uint64_t base)
{
	v->seg[seg].base = base;
	vcpu_update_seg(v, seg);
}

EXEC(SWAPGS)
{
	uint64_t base = v->seg[SEG_GS].base;

	syscall_set_base(v, SEG_GS, v->msr.kernel_gs_base);
	v->msr.kernel_gs_base = base;
}

static void syscall_fsgsbase(struct vcpu *v)
{
	if (!(v->cr4 & CR4_FSGSBASE))
		throw_ud(v);
}

static void syscall_wrbase(struct vcpu *v, const struct insn *i, unsigned seg)
{
	uint64_t base = reg_get(v, i->rm, i->osize == 8 ? 8 : 4);

	syscall_fsgsbase(v);
	if (!seg_canonical(base))
		throw_gp(v, 0);
	syscall_set_base(v, seg, base);
}

EXEC(RDFSBASE_Ry)
{
	syscall_fsgsbase(v);
	reg_set(v, i->rm, i->osize == 8 ? 8 : 4, v->seg[SEG_FS].base);
}

EXEC(RDGSBASE_Ry)
{
	syscall_fsgsbase(v);
	reg_set(v, i->rm, i->osize == 8 ? 8 : 4, v->seg[SEG_GS].base);
}

EXEC(WRFSBASE_Ry)
{
	syscall_wrbase(v, i, SEG_FS);
}

EXEC(WRGSBASE_Ry)
{
	syscall_wrbase(v, i, SEG_GS);
}
