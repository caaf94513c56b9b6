/*
 * Software interrupts: INT n, INT3, INTO, INT1, BOUND.
 *
 * Modelled:   IOPL in virtual-8086 mode; the redirection bitmap of VME; #BP handed to user space
 *             when it debugs with software breakpoints. #BP and #OF of INT3 and INTO are software
 *             interrupts for the gate's DPL check, but not for IOPL.
 * References: [SDM2A INT n/INTO/INT3/INT1, BOUND], [SDM3 20.3.3 table 20-2].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/seg.h"

/* VME: does the TSS's bitmap send INT vec to the program's own handler? */
static bool int_redirected(struct vcpu *v, unsigned vec)
{
	unsigned io, byte;

	if ((v->tr.ar & SEG_AR_TYPE) < DESC_TSS32 || v->tr.limit < 103)
		throw_gp(v, 0);
	/* the 32 bytes of the bitmap end where the I/O bitmap begins */
	io = (unsigned)mmu_sys_ld(v, seg_wrap(v, v->tr.base + 102), 2);
	byte = io - 32 + vec / 8;
	if (io < 32 || byte > v->tr.limit)
		throw_gp(v, 0);
	return !(mmu_sys_ld(v, seg_wrap(v, v->tr.base + byte), 1) >> (vec % 8) & 1);
}

/* Through the interrupt table at linear 0 of the virtual-8086 task itself. */
static void int_v86_redirect(struct vcpu *v, unsigned vec)
{
	bool iopl3 = (v->rflags & RF_IOPL) == RF_IOPL;
	struct frame f = frame_current(v, 0);
	uint64_t flags = vcpu_rflags(v);
	uint32_t entry;

	if (!iopl3) {
		flags = (flags & ~(uint64_t)RF_IF) | RF_IOPL;
		if (v->rflags & RF_VIF)
			flags |= RF_IF;
	}
	entry = (uint32_t)mmu_slow_load(v, vec * 4, 4, ACC_READ);
	frame_push(v, &f, 2, (uint64_t[]){ flags, v->seg[SEG_CS].sel, v->r[REG_RIP] }, 3);
	frame_commit(v, &f);
	vcpu_set_seg_real(v, SEG_CS, (uint16_t)(entry >> 16));
	v->r[REG_RIP] = entry & 0xffff;
	v->no_trap = v->rflags & RF_TF;
	vcpu_set_rflags(v, 0, RF_TF | RF_RF | (iopl3 ? RF_IF : RF_VIF));
}

EXEC(INT_Ib)
{
	unsigned vec = (uint8_t)i->imm;

	if (v->rflags & RF_VM) {
		if ((v->cr4 & CR4_VME) && int_redirected(v, vec)) {
			int_v86_redirect(v, vec);
			return;
		}
		if ((v->rflags & RF_IOPL) != RF_IOPL)
			throw_gp(v, 0);
	}
	vcpu_deliver(v, vec, DELIVER_SOFT_INT, false, 0);
}

EXEC(INT3)
{
	if (debug_int3(v))
		return;
	vcpu_deliver(v, VEC_BP, DELIVER_SOFT_INT, false, 0);
}

EXEC(INTO)
{
	if (v->fl & FL_O)
		vcpu_deliver(v, VEC_OF, DELIVER_SOFT_INT, false, 0);
}

EXEC(INT1)
{
	vcpu_deliver(v, VEC_DB, DELIVER_ICEBP, false, 0);
}
