/*
 * Control registers: MOV CRn, CLTS, XCR0.
 *
 * Modelled:   every #GP(0) of [SDM2B MOV CR], long mode's activation, PDPTE loads of PAE paging,
 *             PCIDs, CR8 with and without an in-kernel LAPIC.
 * Not modelled: cache disabling (CD and NW are kept but do nothing); the refusal of long mode while
 *             TR has a 16-bit TSS, which KVM does not make either.
 * References: [SDM3 2.5, 2.6, 4.1.2, 4.4.1, 4.10.4], [SDM2D XSETBV], [APM2 3.1].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/system.h"
#include "kvm/x86/irqchip.h"

#define CR0_KNOWN \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

/* Is PAE paging without long mode in use, with these register values? */
static bool cr_pae_paging(const struct vcpu *v, uint64_t cr0, uint64_t cr4)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(v->efer & EFER_LME);
}

void vcpu_write_cr0(struct vcpu *v, uint64_t val)
{
	uint64_t old = v->cr0, changed;

	if (val >> 32 || ((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		throw_gp(v, 0);
	val = (val & CR0_KNOWN) | CR0_ET;
	changed = val ^ old;
	if (changed & CR0_PG) {
		if (val & CR0_PG) {
			if ((v->efer & EFER_LME) &&
			    (!(v->cr4 & CR4_PAE) || (v->seg[SEG_CS].ar & SEG_AR_L)))
				throw_gp(v, 0);
		} else if (v->long64 || (v->cr4 & CR4_PCIDE)) {
			throw_gp(v, 0);
		}
	}
	if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && cr_pae_paging(v, val, v->cr4) &&
	    !mmu_load_pdptes(v, v->cr3))
		throw_gp(v, 0);
	v->cr0 = val;
	if (changed & CR0_PG) {
		if ((val & CR0_PG) && (v->efer & EFER_LME))
			v->efer |= EFER_LMA;
		else
			v->efer &= ~(uint64_t)EFER_LMA;
	}
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		mmu_flush_all(v);
	if (changed & (CR0_PG | CR0_PE | CR0_AM))
		vcpu_update_mode(v);
}

void vcpu_write_cr3(struct vcpu *v, uint64_t val)
{
	bool keep = false;

	if (seg_long_mode(v)) {
		if (v->cr4 & CR4_PCIDE) {
			keep = val & BIT(63);
			val &= ~BIT(63);
		}
		if (v->maxphyaddr < 64 && val >> v->maxphyaddr)
			throw_gp(v, 0);
	} else {
		val = (uint32_t)val;
		if (cr_pae_paging(v, v->cr0, v->cr4) && !mmu_load_pdptes(v, val))
			throw_gp(v, 0);
	}
	v->cr3 = val;
	mmu_set_cr3(v, val, !keep);
}

void vcpu_write_cr4(struct vcpu *v, uint64_t val)
{
	uint64_t changed = val ^ v->cr4;

	if (val & v->cr4_reserved)
		throw_gp(v, 0);
	if (seg_long_mode(v) && !(val & CR4_PAE))
		throw_gp(v, 0);
	if ((changed & val & CR4_PCIDE) && (!seg_long_mode(v) || (v->cr3 & 0xfff)))
		throw_gp(v, 0);
	if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && cr_pae_paging(v, v->cr0, val) &&
	    !mmu_load_pdptes(v, v->cr3))
		throw_gp(v, 0);
	v->cr4 = val;
	if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PCIDE))
		mmu_flush_all(v);
	if (changed & CR4_PCIDE)
		mmu_set_cr3(v, v->cr3, true);
	vcpu_update_mode(v);
}

static uint64_t cr_read_cr8(struct vcpu *v)
{
	return v->lapic ? kvm_lapic_get_cr8(v) : v->cr8;
}

static void cr_write_cr8(struct vcpu *v, uint64_t val)
{
	uint64_t old = cr_read_cr8(v);

	if (val & ~0xfull)
		throw_gp(v, 0);
	if (v->lapic) {
		kvm_lapic_set_cr8(v, val);
	} else {
		v->cr8 = v->run->cr8 = val;
		if (val < old) {
			/* user space's LAPIC may have an interrupt for us now */
			v->run->exit_reason = KVM_EXIT_SET_TPR;
			vcpu_exit_to_user(v);
		}
	}
	if (val < old)
		atomic_fetch_or(&v->requests, REQ_EVENT);
}

EXEC(MOV_RyCy)
{
	unsigned size = v->long64 ? 8 : 4;
	uint64_t val;

	switch (i->reg) {
	case 0: val = v->cr0; break;
	case 2: val = v->cr2; break;
	case 3: val = v->cr3; break;
	case 4: val = v->cr4; break;
	case 8: val = cr_read_cr8(v); break;
	default: throw_ud(v);
	}
	reg_set(v, i->rm, size, val);
}

EXEC(MOV_CyRy)
{
	uint64_t val = reg_get(v, i->rm, v->long64 ? 8 : 4);

	switch (i->reg) {
	case 0: vcpu_write_cr0(v, val); break;
	case 2: v->cr2 = val; break;
	case 3: vcpu_write_cr3(v, val); break;
	case 4: vcpu_write_cr4(v, val); break;
	case 8: cr_write_cr8(v, val); break;
	default: throw_ud(v);
	}
}

EXEC(CLTS)
{
	v->cr0 &= ~(uint64_t)CR0_TS;
}

/* ---- XCR0 ----------------------------------------------------------------------------------- */

bool vcpu_xcr0_valid(const struct vcpu *v, uint64_t val)
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_find(v, 0xd, 0);
	uint64_t offered = e ? e->eax | (uint64_t)e->edx << 32 : 3;
	const uint64_t avx = 6, bound = 0x18, avx512 = 0xe0, tiles = 0x60000;

	if (!(val & 1) || (val & ~offered))
		return false;
	if ((val & 4) && !(val & 2))
		return false;
	if ((val & bound) && (val & bound) != bound)
		return false;
	if ((val & avx512) && ((val & avx512) != avx512 || (val & avx) != avx))
		return false;
	return !(val & tiles) || (val & tiles) == tiles;
}

EXEC(XGETBV)
{
	uint32_t n = (uint32_t)v->r[REG_RCX];
	uint64_t val = v->xcr0;

	if (!(v->cr4 & CR4_OSXSAVE))
		throw_ud(v);
	/* 1: components in use; none is tracked as unused */
	if (n != 0 && !(n == 1 && vcpu_has(v, FEAT_XGETBV1)))
		throw_gp(v, 0);
	v->r[REG_RAX] = (uint32_t)val;
	v->r[REG_RDX] = val >> 32;
}

EXEC(XSETBV)
{
	uint64_t val = (uint32_t)v->r[REG_RAX] | v->r[REG_RDX] << 32;

	if (!(v->cr4 & CR4_OSXSAVE))
		throw_ud(v);
	if ((uint32_t)v->r[REG_RCX] != 0 || !vcpu_xcr0_valid(v, val))
		throw_gp(v, 0);
	v->xcr0 = val;
}
