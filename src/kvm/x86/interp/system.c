/*
 * System instructions that are one small thing each: interrupt flag, time stamps, MSRs, TLB and
 * cache control, protection keys, hints, fences, invalid opcodes.
 *
 * Modelled:     VIF under VME and PVI; the interrupt shadow of STI.
 * Not modelled: SMM (RSM has no row and is #UD, as outside it), VMX, SVM and SMX (their
 *               instructions have no rows: #UD, as without the feature); performance counters
 *               (RDPMC is #GP(0), as KVM without a PMU); caches (WBINVD and its kin do nothing).
 * References:   [SDM2], [SDM3 20.3, 20.4]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/system.h"
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/msr.h"

/* ---- Interrupt flag ------------------------------------------------------------------------- */

/*
 * Which flag CLI and STI change: RF_IF, RF_VIF (virtual interrupts of VME or PVI), or 0 when the
 * program may do neither.
 */
static uint32_t system_if_flag(const struct vcpu *v)
{
	unsigned iopl = v->rflags >> 12 & 3;

	if (!(v->cr0 & CR0_PE))
		return RF_IF;
	if (v->rflags & RF_VM)
		return iopl == 3 ? RF_IF : v->cr4 & CR4_VME ? RF_VIF : 0;
	if (v->cpl <= iopl)
		return RF_IF;
	return v->cpl == 3 && (v->cr4 & CR4_PVI) ? RF_VIF : 0;
}

EXEC(CLI)
{
	uint32_t flag = system_if_flag(v);

	if (!flag)
		throw_gp(v, 0);
	v->rflags &= ~flag;
}

EXEC(STI)
{
	uint32_t flag = system_if_flag(v);

	if (!flag || (flag == RF_VIF && (v->rflags & RF_VIP)))
		throw_gp(v, 0);
	if (flag == RF_IF && !(v->rflags & RF_IF)) {
		v->ev.shadow = SHADOW_STI;
		v->block_end = v->cur + 1; /* for the run loop to see it */
	}
	v->rflags |= flag;
}

/* Around every access of a kernel to its user's memory: no more work than there is. */
static void system_set_ac(struct vcpu *v, uint32_t ac)
{
	if (v->cpl)
		throw_ud(v);
	v->rflags = (v->rflags & ~(uint32_t)RF_AC) | ac;
	vcpu_set_cpl(v, v->cpl);
}

EXEC(CLAC)
{
	system_set_ac(v, 0);
}

EXEC(STAC)
{
	system_set_ac(v, RF_AC);
}

EXEC(HLT)
{
	/* a kick that came before we slept ends the sleep before it begins */
	if (!atomic_exchange(&v->pv_unhalted, false))
		vcpu_halt(v);
}

/* ---- Time stamps, counters, MSRs ------------------------------------------------------------ */

static void system_put64(struct vcpu *v, uint64_t x)
{
	v->r[REG_RAX] = (uint32_t)x;
	v->r[REG_RDX] = x >> 32;
}

static void system_tsc(struct vcpu *v)
{
	if ((v->cr4 & CR4_TSD) && v->cpl > 0)
		throw_gp(v, 0);
	system_put64(v, kvm_read_tsc(v));
}

EXEC(RDTSC)
{
	system_tsc(v);
}

EXEC(RDTSCP)
{
	system_tsc(v);
	v->r[REG_RCX] = (uint32_t)v->msr.tsc_aux;
}

EXEC(RDPID_Ry)
{
	reg_set(v, i->rm, v->long64 ? 8 : 4, (uint32_t)v->msr.tsc_aux);
}

EXEC(RDPMC)
{
	throw_gp(v, 0);
}

EXEC(RDMSR)
{
	uint64_t val = 0;

	if (vcpu_get_msr(v, (uint32_t)v->r[REG_RCX], &val, false))
		throw_gp(v, 0);
	system_put64(v, val);
}

EXEC(WRMSR)
{
	uint64_t val = (uint32_t)v->r[REG_RAX] | v->r[REG_RDX] << 32;

	if (vcpu_set_msr(v, (uint32_t)v->r[REG_RCX], val, false))
		throw_gp(v, 0);
}

/* ---- TLB and caches ------------------------------------------------------------------------- */

EXEC(INVLPG)
{
	gva_t la = v->seg_base[i->seg] + insn_ea(v, i);

	if (!v->long64)
		la = (uint32_t)la;
	else if (!seg_canonical(la))
		return;
	mmu_flush_page(v, la);
}

EXEC(INVPCID_GyMdq)
{
	enum { ONE_ADDRESS, ONE_PCID, ALL, ALL_BUT_GLOBAL };
	uint64_t type = reg_get(v, i->reg, v->long64 ? 8 : 4), ea = insn_ea(v, i), pcid, la;
	bool enabled = v->cr4 & CR4_PCIDE;

	pcid = mmu_ld64(v, mmu_linear(v, i->seg, ea, 8, ACC_READ));
	la = mmu_ld64(v, mmu_linear(v, i->seg, (ea + 8) & size_mask(i->asize), 8, ACC_READ));
	if (type > ALL_BUT_GLOBAL || pcid >> 12)
		throw_gp(v, 0);
	switch (type) {
	case ONE_ADDRESS:
		if ((!enabled && pcid) || !seg_canonical(la))
			throw_gp(v, 0);
		if (!enabled || pcid == (v->cr3 & 0xfff))
			mmu_flush_page(v, la);
		else
			mmu_flush_pcid(v, (unsigned)pcid);
		break;
	case ONE_PCID:
		if (!enabled && pcid)
			throw_gp(v, 0);
		if (enabled)
			mmu_flush_pcid(v, (unsigned)pcid);
		else
			mmu_flush_current(v);
		break;
	default: mmu_flush_all(v); break;
	}
}

/* Rows that do nothing here. */
#define SYSTEM_NOP(id) \
	EXEC(id) \
	{ \
	}
SYSTEM_NOP(INVD)
SYSTEM_NOP(WBINVD)
SYSTEM_NOP(WBNOINVD)
SYSTEM_NOP(PAUSE)
SYSTEM_NOP(PREFETCHNTA)
SYSTEM_NOP(PREFETCHT0)
SYSTEM_NOP(PREFETCHT1)
SYSTEM_NOP(PREFETCHT2)
SYSTEM_NOP(PREFETCHW)
SYSTEM_NOP(PREFETCH)
#undef SYSTEM_NOP

/* Flushing a line checks the address as a load of one byte does. */
static void system_flush_line(struct vcpu *v, const struct insn *i)
{
	mmu_probe(v, insn_la(v, i, 1, ACC_READ), 1, ACC_READ);
}

EXEC(CLFLUSH)
{
	system_flush_line(v, i);
}

EXEC(CLFLUSHOPT)
{
	system_flush_line(v, i);
}

EXEC(CLWB)
{
	system_flush_line(v, i);
}

/* ---- Fences --------------------------------------------------------------------------------- */

/* The host orders guest accesses as the guest expects, but for what the host CPU may delay. */
EXEC(MFENCE)
{
	atomic_thread_fence(memory_order_seq_cst);
}

EXEC(LFENCE)
{
	__builtin_ia32_lfence();
}

EXEC(SFENCE)
{
	__builtin_ia32_sfence();
}

/* ---- MONITOR, protection keys, hypercalls, invalid opcodes ----------------------------------- */

EXEC(MONITOR)
{
	uint64_t ea = v->r[REG_RAX] & size_mask(i->asize);

	if (v->cpl > 0)
		throw_ud(v);
	if ((uint32_t)v->r[REG_RCX])
		throw_gp(v, 0);
	mmu_probe(v, mmu_linear(v, i->seg, ea, 1, ACC_READ), 1, ACC_READ);
}

/* Waking at once is always allowed. */
EXEC(MWAIT)
{
	if (v->cpl > 0)
		throw_ud(v);
	if ((uint32_t)v->r[REG_RCX] & ~1u)
		throw_gp(v, 0);
}

EXEC(RDPKRU)
{
	if (!(v->cr4 & CR4_PKE))
		throw_ud(v);
	if ((uint32_t)v->r[REG_RCX])
		throw_gp(v, 0);
	system_put64(v, v->pkru);
}

EXEC(WRPKRU)
{
	if (!(v->cr4 & CR4_PKE))
		throw_ud(v);
	if ((uint32_t)v->r[REG_RCX] || (uint32_t)v->r[REG_RDX])
		throw_gp(v, 0);
	if (v->pkru == (uint32_t)v->r[REG_RAX])
		return;
	v->pkru = (uint32_t)v->r[REG_RAX];
	mmu_flush_all(v); /* TLB entries hold the outcome of the key check */
}

EXEC(VMCALL)
{
	vcpu_hypercall(v);
}

EXEC(VMMCALL)
{
	vcpu_hypercall(v);
}

EXEC(UD0)
{
	throw_ud(v);
}

EXEC(UD1)
{
	throw_ud(v);
}

EXEC(UD2)
{
	throw_ud(v);
}
