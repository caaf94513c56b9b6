/*
 * KVM_GET/SET_REGS, _SREGS and _SREGS2.
 *
 * Modelled:     the kernel's checks of control registers against each other and against CPUID.
 * Deviations:   EFER bits that no processor of ours has are refused, where the kernel takes them.
 * References:   [KVM-API 4.11-4.14, 4.130], [SDM3 2.5].
 * Threads:      v->lock held.
 */
#include <errno.h>
#include <string.h>

#include "kvm/x86/irqchip.h"
#include "kvm/x86/mmu.h"
#include "kvm/x86/state.h"

#define SREGS_EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_FFXSR | EFER_AIBRSE)
#define SREGS_RFLAGS     0x3f7fd5ull /* bits that exist */

/* Order of the registers in struct kvm_regs. */
static const uint8_t sregs_order[16] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI,
					 REG_RSP, REG_RBP, REG_R8,  REG_R9,  REG_R10, REG_R11,
					 REG_R12, REG_R13, REG_R14, REG_R15 };

uint64_t vcpu_get_cr8(struct vcpu *v)
{
	return v->lapic ? kvm_lapic_get_cr8(v) : v->cr8;
}

void vcpu_get_regs(struct vcpu *v, struct kvm_regs *r)
{
	uint64_t out[18];

	for (unsigned i = 0; i < 16; i++)
		out[i] = v->r[sregs_order[i]];
	/* RIP stands at the instruction until it has been completed. */
	out[16] = v->in_insn ? v->insn_rip : v->r[REG_RIP];
	out[17] = vcpu_rflags(v);
	memcpy(r, out, sizeof(*r));
}

void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *r)
{
	uint64_t in[18];

	memcpy(in, r, sizeof(in));
	for (unsigned i = 0; i < 16; i++)
		v->r[sregs_order[i]] = in[i];
	if (!v->in_insn) {
		v->r[REG_RIP] = v->insn_rip = in[16];
	} else if (in[16] != v->insn_rip) {
		v->r[REG_RIP] = v->insn_rip = in[16];
		v->in_insn = false;
		v->abandon = true;
	}
	vcpu_set_rflags(v, in[17] & SREGS_RFLAGS, SREGS_RFLAGS);
	if (!v->ev.exc_injected)
		v->ev.exc_pending = false;
	vcpu_update_mode(v);
	kvm_make_request(v, REQ_EVENT);
}

/* ---- Segments ------------------------------------------------------------------------------- */

static void sregs_get_seg(const struct seg *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->ar & SEG_AR_TYPE,
		.s = !!(s->ar & SEG_AR_S),
		.dpl = SEG_DPL(s->ar),
		.present = !!(s->ar & SEG_AR_P),
		.avl = !!(s->ar & SEG_AR_AVL),
		.l = !!(s->ar & SEG_AR_L),
		.db = !!(s->ar & SEG_AR_DB),
		.g = !!(s->ar & SEG_AR_G),
		.unusable = !!(s->ar & SEG_AR_UNUSABLE),
	};
	if (k->unusable)
		k->present = 0;
}

static void sregs_set_seg(struct seg *s, const struct kvm_segment *k)
{
	s->base = k->base;
	s->limit = k->limit;
	s->sel = k->selector;
	s->ar = (k->type & SEG_AR_TYPE) | (k->s ? SEG_AR_S : 0) | (uint32_t)(k->dpl & 3) << 5 |
		(k->present ? SEG_AR_P : 0) | (k->avl ? SEG_AR_AVL : 0) | (k->l ? SEG_AR_L : 0) |
		(k->db ? SEG_AR_DB : 0) | (k->g ? SEG_AR_G : 0);
	if (k->unusable || !k->present)
		s->ar |= SEG_AR_UNUSABLE;
}

/* ---- What both structures share ------------------------------------------------------------- */

/* kvm_sregs begins like kvm_sregs2; only what follows apic_base differs. */
_Static_assert(offsetof(struct kvm_sregs, apic_base) == offsetof(struct kvm_sregs2, apic_base),
	       "common part");

static void sregs_get_common(struct vcpu *v, struct kvm_sregs *s)
{
	memset(s, 0, sizeof(*s));
	sregs_get_seg(&v->seg[SEG_CS], &s->cs);
	sregs_get_seg(&v->seg[SEG_DS], &s->ds);
	sregs_get_seg(&v->seg[SEG_ES], &s->es);
	sregs_get_seg(&v->seg[SEG_FS], &s->fs);
	sregs_get_seg(&v->seg[SEG_GS], &s->gs);
	sregs_get_seg(&v->seg[SEG_SS], &s->ss);
	sregs_get_seg(&v->tr, &s->tr);
	sregs_get_seg(&v->ldtr, &s->ldt);
	s->gdt.base = v->gdt.base;
	s->gdt.limit = v->gdt.limit;
	s->idt.base = v->idt.base;
	s->idt.limit = v->idt.limit;
	s->cr0 = v->cr0;
	s->cr2 = v->cr2;
	s->cr3 = v->cr3;
	s->cr4 = v->cr4;
	s->cr8 = vcpu_get_cr8(v);
	s->efer = v->efer;
	s->apic_base = v->msr.apic_base;
}

static bool sregs_valid(const struct vcpu *v, const struct kvm_sregs *s)
{
	if (s->cr0 >> 32 || ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)) ||
	    ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)))
		return false;
	if (s->cr4 & v->cr4_reserved || s->efer & ~SREGS_EFER_KNOWN)
		return false;
	if ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)) {
		/* Long mode is active, perhaps in a compatibility segment. */
		if (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		return !(s->cr3 & ~(BIT(v->maxphyaddr) - 1));
	}
	return !(s->efer & EFER_LMA) && !s->cs.l;
}

static int sregs_set_common(struct vcpu *v, const struct kvm_sregs *s)
{
	if (!sregs_valid(v, s) || kvm_lapic_set_base(v, s->apic_base, true))
		return -EINVAL;
	v->gdt = (struct dtable){ s->gdt.base, s->gdt.limit };
	v->idt = (struct dtable){ s->idt.base, s->idt.limit };
	v->cr2 = s->cr2;
	if (v->lapic)
		kvm_lapic_set_cr8(v, s->cr8 & 15);
	v->cr8 = s->cr8 & 15;
	v->efer = s->efer;
	v->cr0 = s->cr0 | CR0_ET;
	v->cr4 = s->cr4;
	sregs_set_seg(&v->seg[SEG_CS], &s->cs);
	sregs_set_seg(&v->seg[SEG_DS], &s->ds);
	sregs_set_seg(&v->seg[SEG_ES], &s->es);
	sregs_set_seg(&v->seg[SEG_FS], &s->fs);
	sregs_set_seg(&v->seg[SEG_GS], &s->gs);
	sregs_set_seg(&v->seg[SEG_SS], &s->ss);
	sregs_set_seg(&v->tr, &s->tr);
	sregs_set_seg(&v->ldtr, &s->ldt);
	/* The privilege level is that of the stack segment, as in the VMCS and the VMCB. */
	v->cpl = SEG_DPL(v->seg[SEG_SS].ar);
	mmu_flush_all(v);
	mmu_set_cr3(v, s->cr3, true);
	vcpu_update_mode(v);
	/* User space that resets the boot processor without KVM_SET_MP_STATE means it to run. */
	if (v->id == v->vm->config.boot_cpu_id && v->r[REG_RIP] == 0xfff0 &&
	    s->cs.selector == 0xf000 && s->cs.base == 0xffff0000 && !(s->cr0 & CR0_PE))
		atomic_store(&v->mp_state, KVM_MP_STATE_RUNNABLE);
	kvm_make_request(v, REQ_EVENT);
	return 0;
}

static bool sregs_pae(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
}

/* ---- Ioctls --------------------------------------------------------------------------------- */

void vcpu_get_sregs(struct vcpu *v, struct kvm_sregs *s)
{
	sregs_get_common(v, s);
	if (v->ev.irq_injected && !v->ev.irq_soft)
		s->interrupt_bitmap[v->ev.irq_vec / 64] |= BIT(v->ev.irq_vec % 64);
}

int vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *s)
{
	int r = sregs_set_common(v, s);

	if (r)
		return r;
	if (sregs_pae(v)) {
		kvm_guest_enter(v); /* reads guest memory */
		(void)mmu_load_pdptes(v, v->cr3);
		kvm_guest_exit(v);
	}
	for (unsigned i = 0; i < 4; i++) {
		if (!s->interrupt_bitmap[i])
			continue;
		v->ev.irq_injected = true;
		v->ev.irq_soft = false;
		v->ev.irq_vec =
			(uint8_t)(64 * i + (unsigned)__builtin_ctzll(s->interrupt_bitmap[i]));
		break;
	}
	return 0;
}

void vcpu_get_sregs2(struct vcpu *v, struct kvm_sregs2 *s)
{
	struct kvm_sregs k;

	memset(s, 0, sizeof(*s));
	sregs_get_common(v, &k);
	memcpy(s, &k, offsetof(struct kvm_sregs2, flags));
	if (sregs_pae(v)) {
		s->flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(s->pdptrs, v->pdpte, sizeof(s->pdptrs));
	}
}

int vcpu_set_sregs2(struct vcpu *v, const struct kvm_sregs2 *s)
{
	bool pae = (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
	bool given = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	struct kvm_sregs k = { 0 };
	int r;

	if (s->flags & ~(uint64_t)KVM_SREGS2_FLAGS_PDPTRS_VALID || (given && !pae))
		return -EINVAL;
	memcpy(&k, s, offsetof(struct kvm_sregs2, flags));
	r = sregs_set_common(v, &k);
	if (r || !pae)
		return r;
	if (given) {
		memcpy(v->pdpte, s->pdptrs, sizeof(v->pdpte));
	} else {
		kvm_guest_enter(v);
		(void)mmu_load_pdptes(v, v->cr3);
		kvm_guest_exit(v);
	}
	return 0;
}
