/*
 * vCPU ioctls.
 *
 * Modelled:     registers, MSRs, CPUID, LAPIC, FPU and XSAVE, events, debug, clocks, signal mask,
 *               injection, translation.
 * Not modelled: nested state, SMM (KVM_SMI), Xen, Hyper-V, TPR access reporting, VAPIC page: they
 *               answer as an unknown request, -EINVAL.
 * References:   [KVM-API 4].
 * Threads:      v->lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/arch.h"
#include "kvm/handle.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/mmu.h"
#include "kvm/x86/msr.h"
#include "kvm/x86/state.h"

#define IOCTL_MAX_MSRS      256
#define IOCTL_MAX_MCE_BANKS 32
#define IOCTL_MCG_KNOWN     (BIT(8) | BIT(24)) /* MCG_CTL_P, MCG_SER_P */

/* KVM_GET_MSRS and KVM_SET_MSRS stop at the first bad one and say how many went well. */
static long ioctl_msrs(struct vcpu *v, struct kvm_msrs *m, bool set)
{
	uint32_t i;

	if (m->nmsrs >= IOCTL_MAX_MSRS)
		return -E2BIG;
	kvm_guest_enter(v); /* paravirtual clocks write guest memory */
	for (i = 0; i < m->nmsrs; i++) {
		struct kvm_msr_entry *e = &m->entries[i];
		uint64_t val = set ? e->data : 0;

		if (set ? vcpu_set_msr(v, e->index, val, true)
			: vcpu_get_msr(v, e->index, &val, true))
			break;
		if (!set)
			e->data = val;
	}
	kvm_guest_exit(v);
	return i;
}

/* The older KVM_SET_CPUID, without subleaves. */
static long ioctl_set_cpuid1(struct vcpu *v, const struct kvm_cpuid *c)
{
	struct kvm_cpuid_entry2 *e;
	long r;

	if (c->nent > 256)
		return -E2BIG;
	e = calloc(c->nent ? c->nent : 1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->nent; i++)
		e[i] = (struct kvm_cpuid_entry2){ .function = c->entries[i].function,
						  .eax = c->entries[i].eax,
						  .ebx = c->entries[i].ebx,
						  .ecx = c->entries[i].ecx,
						  .edx = c->entries[i].edx };
	r = vcpu_set_cpuid(v, e, c->nent);
	free(e);
	return r;
}

static long ioctl_get_mp_state(struct vcpu *v, struct kvm_mp_state *s)
{
	/* An INIT or SIPI that has arrived has taken effect; not in the middle of an instruction.
	 */
	if (v->lapic && !v->in_insn && atomic_load(&v->pending_events))
		kvm_lapic_accept_events(v);
	s->mp_state = atomic_load(&v->mp_state);
	return 0;
}

static long ioctl_set_mp_state(struct vcpu *v, const struct kvm_mp_state *s)
{
	switch (s->mp_state) {
	case KVM_MP_STATE_RUNNABLE: break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (!v->lapic)
			return -EINVAL;
		break;
	default: return -EINVAL;
	}
	if (s->mp_state == KVM_MP_STATE_SIPI_RECEIVED) {
		atomic_store(&v->mp_state, KVM_MP_STATE_INIT_RECEIVED);
		atomic_fetch_or(&v->pending_events, VCPU_EV_SIPI);
	} else {
		atomic_store(&v->mp_state, s->mp_state);
	}
	kvm_make_request(v, REQ_EVENT);
	return 0;
}

static long ioctl_interrupt(struct vcpu *v, const struct kvm_interrupt *irq)
{
	int none = 0;

	if (irq->irq >= 256)
		return -EINVAL;
	if (!kvm_arch_has_irqchip(v->vm)) {
		v->ev.irq_injected = true;
		v->ev.irq_soft = false;
		v->ev.irq_vec = (uint8_t)irq->irq;
		kvm_make_request(v, REQ_EVENT);
		return 0;
	}
	if (kvm_arch_has_pins(v->vm))
		return -ENXIO;
	/* Split: ExtINT from a PIC in user space, through the LAPIC. */
	if (!atomic_compare_exchange_strong(&v->pending_extint, &none, (int)irq->irq + 1))
		return -EEXIST;
	kvm_make_request(v, REQ_EVENT);
	return 0;
}

static long ioctl_translate(struct vcpu *v, struct kvm_translation *t)
{
	struct mmu_result res = { 0 };

	kvm_guest_enter(v);
	t->valid = mmu_walk(v, t->linear_address, ACC_READ | ACC_SYS, false, &res);
	kvm_guest_exit(v);
	t->physical_address = t->valid ? res.gpa : ~0ull;
	t->writeable = 1; /* the kernel does not look either */
	t->usermode = 0;
	return 0;
}

static long ioctl_set_signal_mask(struct vcpu *v, const struct kvm_signal_mask *m)
{
	if (!m) {
		v->sigset_active = false;
		return 0;
	}
	if (m->len != sizeof(v->sigset))
		return -EINVAL;
	memcpy(&v->sigset, m->sigset, sizeof(v->sigset));
	v->sigset_active = true;
	return 0;
}

/* Machine checks are never raised; the banks are registers. */
static long ioctl_setup_mce(struct vcpu *v, const uint64_t *cap)
{
	unsigned banks = *cap & 0xff;

	if (!banks || banks > IOCTL_MAX_MCE_BANKS || (*cap & ~(IOCTL_MCG_KNOWN | 0xff | 0xff0000)))
		return -EINVAL;
	v->msr.mcg_cap = *cap;
	if (*cap & BIT(8))
		v->msr.mcg_ctl = ~0ull;
	for (unsigned i = 0; i < banks; i++)
		v->msr.mce[i][0] = ~0ull;
	return 0;
}

static long ioctl_lapic(struct vcpu *v, struct kvm_lapic_state *s, bool set)
{
	if (!v->lapic)
		return -EINVAL;
	return set ? kvm_lapic_set(v, s) : kvm_lapic_get(v, s);
}

/* Requests without an argument, or with a number. */
static long ioctl_plain(struct vcpu *v, unsigned long request, uintptr_t arg, bool *known)
{
	*known = true;
	switch (request) {
	case KVM_NMI: kvm_inject_nmi(v); return 0;
	case KVM_KVMCLOCK_CTRL: return kvm_clock_ctrl(v);
	case KVM_GET_TSC_KHZ: return v->tsc_khz;
	case KVM_SET_TSC_KHZ:
		if (arg > UINT32_MAX)
			return -EINVAL;
		return kvm_set_tsc_khz(v, arg ? (uint32_t)arg : kvm_host_tsc_khz());
	case KVM_SET_SIGNAL_MASK: return ioctl_set_signal_mask(v, kvm_arg_ptr(arg));
	default: *known = false; return 0;
	}
}

static long ioctl_state(struct vcpu *v, unsigned long request, void *p)
{
	switch (request) {
	case KVM_GET_REGS: vcpu_get_regs(v, p); return 0;
	case KVM_SET_REGS: vcpu_set_regs(v, p); return 0;
	case KVM_GET_SREGS: vcpu_get_sregs(v, p); return 0;
	case KVM_SET_SREGS: return vcpu_set_sregs(v, p);
	case KVM_GET_SREGS2: vcpu_get_sregs2(v, p); return 0;
	case KVM_SET_SREGS2: return vcpu_set_sregs2(v, p);
	case KVM_GET_FPU: kvm_fpu_get(v, p); return 0;
	case KVM_SET_FPU: return kvm_fpu_set(v, p);
	case KVM_GET_XSAVE:
	case KVM_GET_XSAVE2: kvm_xsave_get(v, p); return 0;
	case KVM_SET_XSAVE: return kvm_xsave_set(v, p);
	case KVM_GET_XCRS: return kvm_xcrs_get(v, p);
	case KVM_SET_XCRS: return kvm_xcrs_set(v, p);
	case KVM_GET_MSRS: return ioctl_msrs(v, p, false);
	case KVM_SET_MSRS: return ioctl_msrs(v, p, true);
	case KVM_GET_LAPIC: return ioctl_lapic(v, p, false);
	case KVM_SET_LAPIC: return ioctl_lapic(v, p, true);
	case KVM_GET_MP_STATE: return ioctl_get_mp_state(v, p);
	case KVM_SET_MP_STATE: return ioctl_set_mp_state(v, p);
	case KVM_GET_VCPU_EVENTS: vcpu_get_events(v, p); return 0;
	case KVM_SET_VCPU_EVENTS: return vcpu_set_events(v, p);
	case KVM_GET_DEBUGREGS: vcpu_get_debugregs(v, p); return 0;
	case KVM_SET_DEBUGREGS: return vcpu_set_debugregs(v, p);
	case KVM_SET_GUEST_DEBUG: return vcpu_set_guest_debug(v, p);
	case KVM_SET_CPUID: return ioctl_set_cpuid1(v, p);
	case KVM_SET_CPUID2:
		return vcpu_set_cpuid(v, ((struct kvm_cpuid2 *)p)->entries,
				      ((struct kvm_cpuid2 *)p)->nent);
	case KVM_GET_CPUID2: return vcpu_get_cpuid(v, p);
	case KVM_TRANSLATE: return ioctl_translate(v, p);
	case KVM_INTERRUPT: return ioctl_interrupt(v, p);
	case KVM_X86_SETUP_MCE: return ioctl_setup_mce(v, p);
	default: return -EINVAL;
	}
}

static bool ioctl_known(unsigned long request)
{
	static const uint32_t known[] = {
		KVM_GET_REGS,        KVM_SET_REGS,      KVM_GET_SREGS,     KVM_SET_SREGS,
		KVM_GET_SREGS2,      KVM_SET_SREGS2,    KVM_GET_FPU,       KVM_SET_FPU,
		KVM_GET_XSAVE,       KVM_GET_XSAVE2,    KVM_SET_XSAVE,     KVM_GET_XCRS,
		KVM_SET_XCRS,        KVM_GET_MSRS,      KVM_SET_MSRS,      KVM_GET_LAPIC,
		KVM_SET_LAPIC,       KVM_GET_MP_STATE,  KVM_SET_MP_STATE,  KVM_GET_VCPU_EVENTS,
		KVM_SET_VCPU_EVENTS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_SET_GUEST_DEBUG,
		KVM_SET_CPUID,       KVM_SET_CPUID2,    KVM_GET_CPUID2,    KVM_TRANSLATE,
		KVM_INTERRUPT,       KVM_X86_SETUP_MCE,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i] == request)
			return true;
	return false;
}

long kvm_arch_vcpu_ioctl(struct vcpu *v, unsigned long request, uintptr_t arg)
{
	void *p = kvm_arg_ptr(arg);
	bool known;
	long r = ioctl_plain(v, request, arg, &known);

	if (known)
		return r;
	if (!p && ioctl_known(request))
		return -EFAULT;
	return p ? ioctl_state(v, request, p) : -EINVAL;
}
