/*
 * What hangs on the processor's mode: derived fields of struct vcpu, RFLAGS, CPL, reset.
 *
 * Modelled:     power-up, RESET and INIT states as the kernel's KVM gives them: x87 and SSE state
 *               start as after FNINIT and with MXCSR 1f80h.
 * References:   [SDM3 2.2, 9.1.1 table 9-1], [SDM1 3.4.3].
 * Threads:      the vCPU's own, or the holder of v->lock while it is not running.
 */
#include <string.h>

#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/system.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/msr.h"

/* ---- Flags ---------------------------------------------------------------------------------- */

enum { MODE_ARITH = F_ARITH };

uint64_t vcpu_rflags(const struct vcpu *v)
{
	/* the AH half of v->fl has CF, PF, AF, ZF and SF where RFLAGS has them */
	return (v->rflags & ~(uint64_t)MODE_ARITH) | (v->fl >> 8 & (F_ARITH & 0xff)) |
	       (v->fl & FL_O ? F_O : 0) | RF_FIXED;
}

void vcpu_set_rflags(struct vcpu *v, uint64_t val, uint64_t mask)
{
	uint64_t all = (vcpu_rflags(v) & ~mask) | (val & mask);
	uint32_t changed;

	v->fl = (uint16_t)((all & (F_ARITH & 0xff)) << 8 | (all & F_O ? FL_O : 0));
	all = (all & ~(uint64_t)MODE_ARITH) | RF_FIXED;
	changed = v->rflags ^ (uint32_t)all;
	v->rflags = (uint32_t)all;
	if (changed & (RF_TF | RF_VM | RF_AC))
		vcpu_update_mode(v);
}

/* ---- Derived fields ------------------------------------------------------------------------- */

static void mode_update_access(struct vcpu *v)
{
	v->ac_check = v->cpl == 3 && (v->rflags & RF_AC) && (v->cr0 & CR0_AM);
	mmu_select_tlb(v);
}

/* SEGF_*: may any 32-bit offset be used without looking? */
static uint8_t mode_seg_fast(const struct vcpu *v, const struct seg *s)
{
	unsigned type = s->ar & SEG_AR_TYPE;

	if (v->long64)
		return SEGF_READ | SEGF_WRITE;
	if ((s->ar & SEG_AR_UNUSABLE) || !(s->ar & SEG_AR_P) || s->limit != 0xffffffff ||
	    (type & (SEG_AR_CODE | SEG_AR_DOWN)) == SEG_AR_DOWN)
		return 0;
	if (v->real)
		return SEGF_READ | SEGF_WRITE;
	if (type & SEG_AR_CODE)
		return type & SEG_AR_WRITE ? SEGF_READ : 0;
	return type & SEG_AR_WRITE ? SEGF_READ | SEGF_WRITE : SEGF_READ;
}

/* May the translator take code, stack and data segments for one address space? */
static bool mode_flat32(const struct vcpu *v)
{
	unsigned rw = SEGF_READ | SEGF_WRITE;

	return v->mode == DECODE_32 && !v->real && v->stack_size == 4 &&
	       v->seg[SEG_CS].limit == 0xffffffff &&
	       !(v->seg_base[SEG_CS] | v->seg_base[SEG_SS] | v->seg_base[SEG_DS] |
		 v->seg_base[SEG_ES]) &&
	       (v->seg_fast[SEG_SS] & v->seg_fast[SEG_DS] & v->seg_fast[SEG_ES]) == rw;
}

static void mode_update_seg(struct vcpu *v, unsigned n)
{
	const struct seg *s = &v->seg[n];

	v->seg_base[n] = v->long64 && n < SEG_FS ? 0 : s->base;
	v->seg_fast[n] = mode_seg_fast(v, s);
	if (n == SEG_SS)
		v->stack_size = v->long64 ? 8 : s->ar & SEG_AR_DB ? 4 : 2;
}

void vcpu_update_seg(struct vcpu *v, unsigned n)
{
	mode_update_seg(v, n);
	v->flat32 = mode_flat32(v);
}

void vcpu_update_mode(struct vcpu *v)
{
	uint32_t cs = v->seg[SEG_CS].ar;

	if (!(v->cr0 & CR0_PE))
		v->cpl = 0;
	else if (v->rflags & RF_VM)
		v->cpl = 3;
	v->real = !(v->cr0 & CR0_PE) || (v->rflags & RF_VM);
	v->long64 = (v->efer & EFER_LMA) && (cs & SEG_AR_L);
	v->mode = v->long64 ? DECODE_64 : cs & SEG_AR_DB ? DECODE_32 : DECODE_16;
	for (unsigned n = 0; n < SEG_COUNT; n++)
		mode_update_seg(v, n);
	v->flat32 = mode_flat32(v);
	mode_update_access(v);
	v->single_step =
		(v->rflags & RF_TF) || debug_armed(v) ||
		(v->guest_debug & KVM_GUESTDBG_ENABLE && v->guest_debug & KVM_GUESTDBG_SINGLESTEP);
}

void vcpu_set_cpl(struct vcpu *v, unsigned cpl)
{
	v->cpl = (uint8_t)cpl;
	mode_update_access(v);
}

/* ---- Reset ---------------------------------------------------------------------------------- */

static void mode_reset_segments(struct vcpu *v)
{
	struct seg data = { .limit = 0xffff,
			    .ar = SEG_AR_P | SEG_AR_S | SEG_AR_WRITE | SEG_AR_ACCESSED };

	for (unsigned n = 0; n < SEG_COUNT; n++)
		v->seg[n] = data;
	v->seg[SEG_CS].sel = 0xf000;
	v->seg[SEG_CS].base = 0xffff0000;
	v->seg[SEG_CS].ar |= SEG_AR_CODE;
	v->gdt = v->idt = (struct dtable){ .limit = 0xffff };
	v->ldtr = (struct seg){ .limit = 0xffff, .ar = SEG_AR_P | DESC_LDT };
	v->tr = (struct seg){ .limit = 0xffff, .ar = SEG_AR_P | DESC_TSS32_BUSY };
}

/* State that INIT leaves alone. */
static void mode_reset_power_up(struct vcpu *v)
{
	fpu_reset(v);
	vcpu_msr_reset(v);
}

void vcpu_reset(struct vcpu *v, bool init)
{
	const struct kvm_cpuid_entry2 *sig = vcpu_cpuid_find(v, 1, 0);
	unsigned nmis = atomic_load(&v->ev.nmi_pending);
	struct vcpu_event ev = { 0 };

	memset(v->r, 0, sizeof(v->r));
	v->r[REG_RDX] = sig ? sig->eax : 0x600;
	v->r[REG_RIP] = v->insn_rip = 0xfff0;
	v->fl = 0;
	v->rflags = RF_FIXED;
	v->cpl = 0;
	mode_reset_segments(v);

	v->cr0 = CR0_ET | (init ? v->cr0 & (CR0_NW | CR0_CD) : CR0_NW | CR0_CD);
	v->cr2 = v->cr3 = v->cr4 = v->cr8 = v->efer = 0;
	memset(v->pdpte, 0, sizeof(v->pdpte));
	memset(v->dr, 0, sizeof(v->dr));
	v->dr6 = DR6_FIXED;
	v->dr7 = DR7_FIXED;
	v->db_hits = 0;
	atomic_init(&ev.nmi_pending, init ? nmis : 0);
	memcpy(&v->ev, &ev, sizeof(ev));
	if (!init)
		mode_reset_power_up(v);
	if (v->lapic)
		kvm_lapic_reset(v, init);
	mmu_flush_all(v);
	mmu_set_cr3(v, 0, true);
	vcpu_update_mode(v);
}
