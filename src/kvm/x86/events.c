/*
 * KVM_GET/SET_VCPU_EVENTS, _DEBUGREGS and KVM_SET_GUEST_DEBUG.
 *
 * Modelled:     exceptions, interrupts, NMIs, interrupt shadow, SIPI vector, exception payload (ABI
 *               of KVM_CAP_EXCEPTION_PAYLOAD), triple fault.
 * Not modelled: SMM: its fields must be zero.
 * Note:         an exception changes CR2 and DR6 when it is raised, not when it is delivered, so no
 *               payload is ever pending; one that is set takes effect at once.
 * References:   [KVM-API 4.31-4.34, 4.87].
 * Threads:      v->lock held.
 */
#include <errno.h>
#include <string.h>

#include "kvm/x86/interp/debug.h"
#include "kvm/x86/state.h"

void vcpu_get_events(struct vcpu *v, struct kvm_vcpu_events *e)
{
	const struct vcpu_event *s = &v->ev;
	bool payload = v->vm->config.exception_payload;

	memset(e, 0, sizeof(*e));
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	if (s->exc_pending) {
		/* Without the payload ABI there is only "injected". */
		e->exception.injected = s->exc_injected || !payload;
		e->exception.pending = !e->exception.injected;
		e->exception.nr = s->exc_vec;
		e->exception.has_error_code = s->exc_has_error;
		e->exception.error_code = s->exc_has_error ? s->exc_error : 0;
	}
	if (payload)
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	e->interrupt.injected = s->irq_injected && !s->irq_soft;
	e->interrupt.nr = s->irq_vec;
	e->interrupt.shadow = (s->shadow & SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) |
			      (s->shadow & SHADOW_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
	e->nmi.injected = s->nmi_injected;
	e->nmi.pending = atomic_load(&s->nmi_pending) != 0;
	e->nmi.masked = s->nmi_masked;
	if (v->vm->config.triple_fault_event) {
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e->triple_fault.pending = s->triple_fault;
	}
}

static bool events_valid(const struct vcpu *v, const struct kvm_vcpu_events *e)
{
	const uint32_t known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			       KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |
			       KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	bool payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD;

	if (e->flags & ~known || (payload && !v->vm->config.exception_payload))
		return false;
	if ((e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && !v->vm->config.triple_fault_event)
		return false;
	if ((e->flags & KVM_VCPUEVENT_VALID_SMM) &&
	    (e->smi.smm || e->smi.pending || e->smi.smm_inside_nmi))
		return false;
	if (e->exception.injected || (payload && e->exception.pending))
		return e->exception.nr <= 31 && e->exception.nr != VEC_NMI;
	return true;
}

/* What raising the exception would have stored. */
static void events_apply_payload(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	if (e->exception.nr == VEC_PF)
		v->cr2 = e->exception_payload;
	else if (e->exception.nr == VEC_DB)
		v->dr6 = (v->dr6 & ~15ull) | (e->exception_payload & DR6_ROM);
}

int vcpu_set_events(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	bool payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD;
	bool pending = payload && e->exception.pending;
	struct vcpu_event *s = &v->ev;

	if (!events_valid(v, e))
		return -EINVAL;
	s->exc_injected = e->exception.injected && !pending;
	s->exc_pending = s->exc_injected || pending;
	s->exc_vec = e->exception.nr & 31;
	s->exc_has_error = e->exception.has_error_code;
	s->exc_error = e->exception.error_code;
	if (pending && e->exception_has_payload)
		events_apply_payload(v, e);
	s->irq_injected = e->interrupt.injected;
	s->irq_vec = e->interrupt.nr;
	s->irq_soft = e->interrupt.soft;
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW)
		s->shadow = (e->interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : 0) |
			    (e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOV_SS : 0);
	s->nmi_injected = e->nmi.injected;
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		atomic_store(&s->nmi_pending, e->nmi.pending ? 1 : 0);
	s->nmi_masked = e->nmi.masked;
	if ((e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR) && v->lapic)
		v->sipi_vector = (uint8_t)e->sipi_vector;
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		s->triple_fault = e->triple_fault.pending;
	kvm_make_request(v, REQ_EVENT);
	return 0;
}

void vcpu_get_debugregs(struct vcpu *v, struct kvm_debugregs *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->db, v->dr, sizeof(d->db));
	d->dr6 = v->dr6;
	d->dr7 = v->dr7;
}

int vcpu_set_debugregs(struct vcpu *v, const struct kvm_debugregs *d)
{
	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(v->dr, d->db, sizeof(v->dr));
	v->dr6 = (d->dr6 & DR6_ROM) | DR6_FIXED;
	v->dr7 = (d->dr7 & DR7_ROM) | DR7_FIXED;
	vcpu_update_mode(v);
	return 0;
}

int vcpu_set_guest_debug(struct vcpu *v, const struct kvm_guest_debug *d)
{
	if (d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (v->ev.exc_pending)
			return -EBUSY;
		v->ev.exc_pending = true;
		v->ev.exc_injected = true;
		v->ev.exc_has_error = false;
		v->ev.exc_vec = d->control & KVM_GUESTDBG_INJECT_DB ? VEC_DB : VEC_BP;
	}
	v->guest_debug = d->control & KVM_GUESTDBG_ENABLE ? d->control : 0;
	memset(v->gdb_dr, 0, sizeof(v->gdb_dr));
	v->gdb_dr7 = 0;
	if (v->guest_debug & KVM_GUESTDBG_USE_HW_BP) {
		memcpy(v->gdb_dr, d->arch.debugreg, sizeof(v->gdb_dr));
		v->gdb_dr7 = d->arch.debugreg[7];
	}
	vcpu_update_mode(v);
	kvm_make_request(v, REQ_EVENT);
	return 0;
}
