/*
 * The vCPU's run loop: blocks, events at their boundaries, exceptions, waiting, exits.
 *
 * Theory of operation
 *   The loop is the body of the vCPU's coroutine. Each KVM_RUN resumes it; it yields when a request
 *   says so (kick, signal), when the guest waits in a way user space must know of, or in the middle
 *   of an instruction (vcpu_exit_to_user).
 *   Between blocks one load tells whether anything is to be looked at; run_service() then does it
 * in the order of [SDM3 6.9 table 6-2]. A request bit for interrupts stays set while one is pending
 *   but masked, so that whatever unmasks it needs no hook.
 *   A throw records the exception in v->ev and unwinds here; run_deliver() delivers it, and
 *   run_combine() applies the double-fault table when delivering throws again.
 *
 * Modelled:     interrupt shadows, single step, NMI blocking, INIT/SIPI, HLT with and without
 *               in-kernel irqchip, triple fault. Not modelled: SMM.
 * References:   [SDM3 6.8.3, 6.9, 6.15 "#DF"], [KVM-API 4.10, 5].
 * Threads:      the vCPU's own.
 */
#include <errno.h>
#include <setjmp.h>

#include "kvm/arch.h"
#include "kvm/x86/interp/block.h"
#include "kvm/x86/interp/coverage.h"
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit.h"

/* ---- Guest mode ----------------------------------------------------------------------------- */

/* REQ_TLB_FLUSH, REQ_FLUSH_CODE: others have changed slots or logs and wait for us. */
void kvm_arch_flush(struct vcpu *v, uint32_t requests)
{
	mmu_flush_all(v);
	if (requests & REQ_FLUSH_CODE) {
		v->flush_code = true; /* a block may be running: before the next lookup */
		if (v->cur)
			v->block_end = v->cur + 1;
	}
}

/* ---- Leaving -------------------------------------------------------------------------------- */

static void run_yield(struct vcpu *v)
{
	kvm_guest_exit(v);
	coro_yield(v->coro);
	jit_thread(v);
	kvm_guest_enter(v);
}

void vcpu_exit_to_user(struct vcpu *v)
{
	bool alone = v->in_exclusive;

	if (unlikely(v->jit.check))
		jit_check_stop(v);
	if (alone)
		kvm_exclusive_end(v);
	v->run_result = 0;
	v->in_insn = true;
	v->stat.exits++;
	run_yield(v);
	v->in_insn = false;
	/*
	 * The block ends here: what has been asked for meanwhile (immediate_exit, an interrupt) comes
	 * after this instruction, and user space may have set another mode.
	 */
	if (v->cur)
		v->block_end = v->cur + 1;
	if (v->abandon) {
		v->abandon = false;
		siglongjmp(v->unwind, 1);
	}
	if (alone)
		kvm_exclusive_start(v);
}

/* ---- Exceptions ----------------------------------------------------------------------------- */

static bool run_contributory(unsigned vec)
{
	return vec == VEC_DE || (vec >= VEC_TS && vec <= VEC_GP);
}

/* A second exception while the first was being delivered ([SDM3 6.15] table 6-5). */
static void run_combine(struct vcpu *v, struct vcpu_event *e, unsigned first)
{
	unsigned second = e->exc_vec;

	if (first == VEC_DF && (run_contributory(second) || second == VEC_PF)) {
		e->triple_fault = true;
		e->exc_pending = false;
		return;
	}
	if ((run_contributory(first) && run_contributory(second)) ||
	    (first == VEC_PF && (run_contributory(second) || second == VEC_PF))) {
		e->exc_vec = VEC_DF;
		e->exc_has_error = true;
		e->exc_error = 0;
	}
}

static __attribute__((noreturn)) void run_throw(struct vcpu *v, unsigned vec, bool has_error,
						uint32_t error)
{
	struct vcpu_event *e = &v->ev;

	if (v->in_exclusive)
		kvm_exclusive_end(v);
	v->r[REG_RIP] = v->insn_rip;
	e->exc_pending = true;
	e->exc_injected = false;
	e->exc_vec = (uint8_t)vec;
	e->exc_has_error = has_error && (v->cr0 & CR0_PE); /* also in virtual-8086 mode */
	e->exc_error = error;
	if (v->delivering >= 0) {
		run_combine(v, e, (unsigned)v->delivering);
		v->delivering = -1;
	}
	siglongjmp(v->unwind, 1);
}

void vcpu_throw(struct vcpu *v, unsigned vec)
{
	run_throw(v, vec, false, 0);
}

void vcpu_throw_error(struct vcpu *v, unsigned vec, uint32_t error)
{
	run_throw(v, vec, true, error);
}

void vcpu_throw_pf(struct vcpu *v, gva_t addr, uint32_t error)
{
	v->cr2 = addr;
	run_throw(v, VEC_PF, true, error);
}

/* Deliver the pending exception. */
static void run_deliver(struct vcpu *v)
{
	struct vcpu_event *e = &v->ev;
	unsigned vec = e->exc_vec;

	if (debug_intercept(v, vec)) /* user space debugs: KVM_EXIT_DEBUG instead */
		return;
	e->exc_pending = false;
	e->exc_injected = false;
	e->shadow = 0;
	v->cur = NULL;
	v->insn_rip = v->r[REG_RIP];
	v->delivering = (int)vec;
	vcpu_deliver(v, vec, DELIVER_EXCEPTION, e->exc_has_error, e->exc_error);
	v->delivering = -1;
}

/* ---- Waiting -------------------------------------------------------------------------------- */

void vcpu_halt(struct vcpu *v)
{
	v->stat.halts++;
	if (v->vm->irqchip_in_kernel || v->vm->irqchip_split) {
		atomic_store(&v->mp_state, KVM_MP_STATE_HALTED);
		kvm_make_request(v, REQ_EVENT);
		return;
	}
	v->run->exit_reason = KVM_EXIT_HLT;
	v->run_result = 0;
	v->halt_exit = true;
	atomic_fetch_or(&v->requests, REQ_EVENT);
}

/* Would an event end HLT now? */
static bool run_wakes(struct vcpu *v)
{
	struct vcpu_event *e = &v->ev;

	if (e->exc_pending || e->irq_injected || e->nmi_injected)
		return true;
	if (atomic_load(&e->nmi_pending) && !e->nmi_masked)
		return true;
	if (atomic_load(&v->pending_events) || atomic_exchange(&v->pv_unhalted, false))
		return true;
	return (v->rflags & RF_IF) && kvm_cpu_has_interrupt(v);
}

/* HLT has ended, at once: run_wakes() tells of a kick but once. */
static bool run_woken(struct vcpu *v)
{
	if (atomic_load(&v->mp_state) != KVM_MP_STATE_HALTED || !run_wakes(v))
		return false;
	atomic_store(&v->mp_state, KVM_MP_STATE_RUNNABLE);
	return true;
}

/* Not runnable: wait. True when the vCPU can run, false when KVM_RUN has to end. */
static bool run_wait(struct vcpu *v)
{
	for (;;) {
		unsigned r;

		if (atomic_load(&v->pending_events))
			kvm_lapic_accept_events(v);
		if (atomic_load(&v->mp_state) == KVM_MP_STATE_RUNNABLE || run_woken(v))
			return true;
		r = atomic_load(&v->requests);
		if (r & (REQ_KICK | REQ_SIGNAL | REQ_IMMEDIATE))
			return false;
		kvm_guest_boundary(v);
		/* before it is done, and no more than was read: a request made meanwhile stays */
		atomic_fetch_and(&v->requests, ~(r & (REQ_EVENT | REQ_STEAL | REQ_CODE)));
		if (r & REQ_STEAL)
			kvm_pvclock_update(v);
		if (r & REQ_CODE)
			jit_check_pages(v);
		/* an event between the test above and r, of which nothing else would remind */
		if (run_woken(v))
			return true;
		if (atomic_load(&v->pending_events))
			continue;
		kvm_guest_exit(v);
		kvm_vcpu_wait(v, 0);
		kvm_guest_enter(v);
	}
}

/* ---- Between blocks ------------------------------------------------------------------------- */

enum run_next { RUN_ON, RUN_LEAVE };

static enum run_next run_leave(struct vcpu *v, long result, uint32_t reason)
{
	v->run_result = result;
	v->run->exit_reason = reason;
	return RUN_LEAVE;
}

/* Take one interrupt if it can be taken. */
static enum run_next run_interrupts(struct vcpu *v)
{
	struct vcpu_event *e = &v->ev;
	int vec = -1;

	if (e->nmi_injected ||
	    (atomic_load(&e->nmi_pending) && !e->nmi_masked && !(e->shadow & SHADOW_MOV_SS))) {
		if (!e->nmi_injected)
			atomic_fetch_sub(&e->nmi_pending, 1);
		e->nmi_injected = false;
		e->nmi_masked = true;
		v->cur = NULL;
		v->insn_rip = v->r[REG_RIP];
		vcpu_deliver(v, VEC_NMI, DELIVER_NMI, false, 0);
		return RUN_ON;
	}
	if (e->irq_injected) {
		vec = e->irq_vec;
		e->irq_injected = false;
	} else if ((v->rflags & RF_IF) && !e->shadow && kvm_cpu_has_interrupt(v)) {
		vec = kvm_cpu_get_interrupt(v);
	}
	if (vec >= 0) {
		v->stat.irq_injections++;
		v->cur = NULL;
		v->insn_rip = v->r[REG_RIP];
		vcpu_deliver(v, (unsigned)vec, DELIVER_EXT_INT, false, 0);
	}
	return RUN_ON;
}

/* Everything that is not running the next block. */
static enum run_next run_service(struct vcpu *v)
{
	struct vcpu_event *e = &v->ev;
	unsigned r = atomic_load(&v->requests);

	v->cur = NULL;
	kvm_guest_boundary(v);
	if (e->triple_fault) {
		e->triple_fault = false;
		return run_leave(v, 0, KVM_EXIT_SHUTDOWN);
	}
	if (v->halt_exit) {
		v->halt_exit = false;
		if (!(run_wakes(v) && (v->rflags & RF_IF)))
			return run_leave(v, 0, KVM_EXIT_HLT);
	}
	if (r & (REQ_KICK | REQ_IMMEDIATE)) {
		atomic_fetch_and(&v->requests, ~(unsigned)(REQ_KICK | REQ_IMMEDIATE));
		return run_leave(v, -EINTR, KVM_EXIT_INTR);
	}
	if ((r & REQ_SIGNAL)) {
		atomic_fetch_and(&v->requests, ~(unsigned)REQ_SIGNAL);
		if (kvm_signal_pending(v))
			return run_leave(v, -EINTR, KVM_EXIT_INTR);
	}
	if (r & REQ_CODE) {
		atomic_fetch_and(&v->requests, ~(unsigned)REQ_CODE);
		jit_check_pages(v);
	}
	if (r & REQ_STEAL) {
		atomic_fetch_and(&v->requests, ~(unsigned)REQ_STEAL);
		kvm_pvclock_update(v);
	}
	if (v->ioapic_eoi_exit) {
		v->ioapic_eoi_exit = false;
		return run_leave(v, 0, KVM_EXIT_IOAPIC_EOI);
	}
	if (atomic_load(&v->pending_events))
		kvm_lapic_accept_events(v);
	if (atomic_load(&v->mp_state) != KVM_MP_STATE_RUNNABLE) {
		if (!run_wait(v))
			return RUN_ON; /* a kick or a signal: dealt with on the next turn */
		r |= REQ_EVENT; /* which run_wait() may have taken with what ended the wait */
	}
	if (e->exc_pending) {
		run_deliver(v);
		if (v->debug_exit) {
			v->debug_exit = false;
			return run_leave(v, 0, KVM_EXIT_DEBUG);
		}
		return RUN_ON;
	}
	if (v->run->request_interrupt_window && !v->vm->irqchip_in_kernel && (v->rflags & RF_IF) &&
	    !e->shadow && !e->irq_injected)
		return run_leave(v, 0, KVM_EXIT_IRQ_WINDOW_OPEN);
	if (r & REQ_EVENT) {
		/*
		 * Clear before looking, so that an event raised meanwhile is seen on the next turn;
		 * and set again while something waits that cannot be taken now.
		 */
		atomic_fetch_and(&v->requests, ~(unsigned)REQ_EVENT);
		run_interrupts(v);
		if (e->irq_injected || atomic_load(&e->nmi_pending) || kvm_cpu_has_interrupt(v))
			atomic_fetch_or(&v->requests, REQ_EVENT);
	} else if (e->irq_injected || e->nmi_injected) {
		run_interrupts(v);
	}
	return RUN_ON;
}

/* ---- Running -------------------------------------------------------------------------------- */

static always_inline void run_insn(struct vcpu *v, const struct insn *i)
{
	v->cur = i;
	v->insn_rip = v->r[REG_RIP];
	v->r[REG_RIP] += i->len;
	((exec_fn *)i->exec)(v, i);
	COVERAGE_ROW(i->id);
}

/* Outside 64-bit mode rIP wraps at its width after the last instruction of a block. */
static always_inline void run_wrap_rip(struct vcpu *v)
{
	if (unlikely(!v->long64))
		v->r[REG_RIP] = (uint32_t)v->r[REG_RIP];
}

static enum run_next run_no_memory(struct vcpu *v)
{
	v->run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	v->run->internal.ndata = 0;
	return run_leave(v, 0, KVM_EXIT_INTERNAL_ERROR);
}

/* One instruction under single step, debug registers or an interrupt shadow. */
static enum run_next run_one(struct vcpu *v)
{
	uint8_t shadow = v->ev.shadow;
	bool tf = v->rflags & RF_TF;
	struct block *b;

	v->insn_rip = v->r[REG_RIP];
	if (v->single_step && debug_check_exec(v))
		return v->debug_exit ? RUN_ON : RUN_ON;
	b = block_lookup(v);
	if (!b)
		return run_no_memory(v);
	v->block_end = &b->insns[1];
	if (!(shadow & SHADOW_MOV_SS))
		v->db_hits = 0; /* else what MOV SS has hit is reported with this one */
	v->ev.shadow = 0;
	run_insn(v, b->insns);
	run_wrap_rip(v);
	v->insn_count++;
	v->cur = NULL;
	if ((v->rflags & RF_RF) && !v->rf_keep)
		v->rflags &= ~(uint32_t)RF_RF;
	v->rf_keep = false;
	if (v->ev.shadow)
		/* STI right after STI, or MOV SS after MOV SS: only the first inhibits */
		v->ev.shadow &= (uint8_t)~shadow;
	if (v->single_step || tf || v->db_hits)
		debug_after_insn(v, tf);
	if (v->ev.shadow || shadow)
		atomic_fetch_or(&v->requests, REQ_EVENT);
	return RUN_ON;
}

static enum run_next run_block(struct vcpu *v)
{
	const struct insn *i;
	struct block *b;

	if (jit_run_known(v))
		return RUN_ON;
	b = block_lookup(v);
	if (unlikely(!b))
		return run_no_memory(v);
	if (jit_run(v, b))
		return RUN_ON;
	i = b->insns;
	v->block_end = i + b->n;
	v->insn_count += b->n;
	do
		run_insn(v, i++);
	while (i < v->block_end);
	run_wrap_rip(v);
	return RUN_ON;
}

/* Run until KVM_RUN has to end; v->run_result and the run area say how. */
static void run_until_exit(struct vcpu *v)
{
	sigsetjmp(v->unwind, 0);
	for (;;) {
		enum run_next next;

		if (unlikely(atomic_load_explicit(&v->requests, memory_order_relaxed) |
			     v->ev.exc_pending | v->ev.triple_fault | v->debug_exit)) {
			if (v->debug_exit) {
				v->debug_exit = false;
				run_leave(v, 0, KVM_EXIT_DEBUG);
				return;
			}
			next = run_service(v);
			if (next == RUN_LEAVE)
				return;
			if (v->ev.exc_pending || v->ev.triple_fault || v->halt_exit ||
			    atomic_load(&v->mp_state) != KVM_MP_STATE_RUNNABLE)
				continue;
		}
		if (unlikely(v->single_step | v->ev.shadow))
			next = run_one(v);
		else
			next = run_block(v);
		if (unlikely(next == RUN_LEAVE))
			return;
	}
}

void vcpu_run_loop(void *vcpu)
{
	struct vcpu *v = vcpu;

	jit_thread(v);
	kvm_guest_enter(v);
	for (;;) {
		v->delivering = -1;
		/* what user space may have changed since the last exit is looked at first */
		atomic_fetch_or(&v->requests, REQ_EVENT);
		run_until_exit(v);
		v->cur = NULL;
		v->stat.exits++;
		run_yield(v);
	}
}

/* Run one instruction for the differential tests: no events, no requests. True: it threw. */
bool interp_step(struct vcpu *v)
{
	struct block *b;

	/* one that is never served would stop a REP after each element, to be fetched again */
	atomic_store(&v->requests, 0);
	v->delivering = -1;
	if (sigsetjmp(v->unwind, 0))
		return true;
	v->insn_rip = v->r[REG_RIP];
	b = block_lookup(v);
	if (!b)
		return true;
	v->block_end = &b->insns[1];
	run_insn(v, b->insns);
	run_wrap_rip(v);
	v->cur = NULL;
	return false;
}

/*
 * Run what run_block() runs, for the differential tests: no events. Requests are dropped but
 * REQ_CODE. True: it threw.
 */
bool interp_block(struct vcpu *v)
{
	jit_thread(v);
	v->delivering = -1;
	if (sigsetjmp(v->unwind, 0))
		return true;
	if (atomic_exchange(&v->requests, 0) & REQ_CODE)
		jit_check_pages(v);
	return run_block(v) == RUN_LEAVE;
}
