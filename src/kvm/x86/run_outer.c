/*
 * KVM_RUN around the coroutine: masks, signals, the fields of the run area.
 *
 * Theory of operation. The coroutine (interp/run.c) runs the guest and yields when this KVM_RUN is
 * to end. Signals are blocked meanwhile, except those of our own faults; a timer sets REQ_SIGNAL
 * every millisecond, on which the loop asks kvm_signal_pending(). A vCPU that only
 * kvm_vcpu_kick_user interrupts (libkvm's) does none of this.
 *
 * Modelled:     immediate_exit, KVM_SET_SIGNAL_MASK, KVM_CAP_SYNC_REGS, the fields for an interrupt
 *               controller in user space, KVM_RUN of an uninitialised processor (-EAGAIN).
 * References:   [KVM-API 4.10, 4.18, 5].
 * Threads:      v->lock held.
 */
#include <errno.h>

#include "base/runner.h"
#include "kvm/arch.h"
#include "kvm/hostsig.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/state.h"

#define RUN_STACK (256u << 10)

bool kvm_signal_pending(struct vcpu *v)
{
	return !atomic_load(&v->ignore_signals) && hostsig_pending(v->run_mask);
}

bool vcpu_ready_for_injection(struct vcpu *v)
{
	if (kvm_arch_has_pins(v->vm))
		return true;
	return (v->rflags & RF_IF) && !v->ev.shadow && !v->ev.irq_injected && !v->ev.exc_pending &&
	       !atomic_load(&v->pending_extint);
}

/* Sleep until INIT or SIPI comes: -EAGAIN, or -EINTR when something else ends the call. */
static long run_uninitialized(struct vcpu *v)
{
	if (v->run->immediate_exit)
		return -EINTR;
	while (!atomic_load(&v->pending_events)) {
		unsigned r = atomic_load(&v->requests);
		bool leave = r & (REQ_KICK | REQ_IMMEDIATE);

		if (r & REQ_SIGNAL)
			leave |= kvm_signal_pending(v);
		atomic_fetch_and(&v->requests,
				 ~(unsigned)(REQ_KICK | REQ_IMMEDIATE | REQ_SIGNAL | REQ_EVENT));
		if (leave) {
			v->run->exit_reason = KVM_EXIT_INTR;
			return -EINTR;
		}
		if (atomic_load(&v->pending_events))
			break;
		if (r & REQ_OUTSIDE) {
			kvm_guest_enter(v);
			kvm_guest_exit(v);
		}
		kvm_vcpu_wait(v, 0);
	}
	kvm_lapic_accept_events(v);
	return -EAGAIN;
}

static long run_sync_in(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	long r = 0;

	if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~(uint64_t)KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
		vcpu_set_regs(v, &run->s.regs.regs);
	if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS)
		r = vcpu_set_sregs(v, &run->s.regs.sregs);
	if (!r && (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS))
		r = vcpu_set_events(v, &run->s.regs.events);
	if (!r)
		run->kvm_dirty_regs = 0;
	return r ? -EINVAL : 0;
}

static void run_sync_out(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		vcpu_get_regs(v, &run->s.regs.regs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		vcpu_get_sregs(v, &run->s.regs.sregs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		vcpu_get_events(v, &run->s.regs.events);
}

static long run_guest(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	long r;

	if (atomic_load(&v->mp_state) == KVM_MP_STATE_UNINITIALIZED)
		return run_uninitialized(v);
	r = run_sync_in(v);
	if (r)
		return r;
	if (!vcpu_has_lapic(v)) {
		if (run->cr8 & ~15ull)
			return -EINVAL;
		v->cr8 = run->cr8;
	}
	if (run->immediate_exit) {
		/* An open instruction is completed first, as the kernel does. */
		if (!v->in_insn)
			return -EINTR;
		atomic_fetch_or(&v->requests, REQ_IMMEDIATE);
	}
	if (!v->coro && coro_new(&v->coro, RUN_STACK, vcpu_run_loop, v, NULL))
		return -ENOMEM;
	v->run_result = 0;
	coro_resume(v->coro);
	/* It may have ended otherwise, by another exit of the same instruction. */
	atomic_fetch_and(&v->requests, ~(unsigned)REQ_IMMEDIATE);
	return v->run_result;
}

static void run_save(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	run->flags = 0;
	run->if_flag = (v->rflags & RF_IF) != 0;
	run->cr8 = vcpu_get_cr8(v);
	run->apic_base = v->msr.apic_base;
	run->ready_for_interrupt_injection = vcpu_ready_for_injection(v);
	run_sync_out(v);
}

long kvm_arch_vcpu_run(struct vcpu *v)
{
	bool signals = !atomic_load(&v->ignore_signals);
	uint64_t mask = 0;
	long r;

	if (signals) {
		mask = hostsig_block();
		v->run_mask = v->sigset_active ? v->sigset : mask;
		if (hostsig_pending(v->run_mask))
			atomic_fetch_or(&v->requests, REQ_SIGNAL);
		atomic_store(&v->running, true);
		if (!atomic_exchange(&v->sig_timer_armed, true))
			kvm_timer_arm(v->vm, &v->sig_timer, kvm_now_ns() + 1000000);
	}
	runner_here();
	r = run_guest(v);
	runner_gone();
	run_save(v);
	if (signals) {
		atomic_store(&v->running, false);
		hostsig_restore(mask);
	}
	return r;
}
