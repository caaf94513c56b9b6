/*
 * vCPU threads; see vcpu.h.
 *
 * A thread is parked or inside libkvm_vcpu_loop. It leaves the loop when the machine asks
 * (machine->stop, after a kick) or when a request about the machine is pending, so that nothing
 * after the instruction that made the request runs on this vCPU.
 * References: [KVM-API 5 "The kvm_run structure"].
 */
#include "machine/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "machine/cpuid.h"

static enum libkvm_next vcpu_stop(struct vcpu *v)
{
	v->stopping = true;
	return LIBKVM_STOP;
}

static enum libkvm_next vcpu_next(struct vcpu *v)
{
	return v->m->stop || runstate_pending(&v->m->run) ? vcpu_stop(v) : LIBKVM_CONTINUE;
}

static enum libkvm_next vcpu_pio(void *opaque, struct libkvm_vcpu *c, uint16_t port, void *data,
				 unsigned size, unsigned count, bool is_write)
{
	struct vcpu *v = opaque;
	uint64_t val = 0;

	if (count != 1 && is_write) {
		bus_io_write_rep(v->m->bus, port, data, size, count);
	} else if (count != 1) {
		bus_io_read_rep(v->m->bus, port, data, size, count);
	} else if (is_write) {
		memcpy(&val, data, size);
		bus_io_write(v->m->bus, port, val, size);
	} else {
		val = bus_io_read(v->m->bus, port, size);
		memcpy(data, &val, size);
	}
	return vcpu_next(v);
}

static enum libkvm_next vcpu_mmio(void *opaque, struct libkvm_vcpu *c, uint64_t gpa, void *data,
				  unsigned len, bool is_write)
{
	struct vcpu *v = opaque;
	uint64_t val = 0;

	if (len > sizeof(val)) /* kvm_run has room for eight bytes */
		return LIBKVM_STOP;
	if (is_write) {
		memcpy(&val, data, len);
		bus_mem_write(v->m->bus, gpa, val, len);
	} else {
		val = bus_mem_read(v->m->bus, gpa, len);
		memcpy(data, &val, len);
	}
	return vcpu_next(v);
}

static enum libkvm_next vcpu_shutdown(void *opaque, struct libkvm_vcpu *c)
{
	struct vcpu *v = opaque;
	char where[400];

	vcpu_describe(v, where, sizeof(where));
	log_info("triple fault: %s", where);
	/* What a PC's chipset does with the processor's shutdown cycle: reset. */
	machine_request(&v->m->run, REQ_OF(REQ_RESET, "triple fault"));
	return vcpu_stop(v);
}

static enum libkvm_next vcpu_kicked(void *opaque, struct libkvm_vcpu *c)
{
	return vcpu_next(opaque);
}

void vcpu_describe(struct vcpu *v, char *buf, size_t cap)
{
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };
	struct kvm_translation t = { 0 };
	uint8_t code[15];
	int n;

	(void)libkvm_get_regs(v->kvm, &r);
	(void)libkvm_get_sregs(v->kvm, &s);
	n = snprintf(buf, cap,
		     "cpu %u rip %#" PRIx64 " rsp %#" PRIx64 " rflags %#" PRIx64
		     " cs %#x base %#" PRIx64 " cr0 %#" PRIx64 " cr2 %#" PRIx64 " cr3 %#" PRIx64
		     " cr4 %#" PRIx64 " efer %#" PRIx64 " code",
		     v->index, (uint64_t)r.rip, (uint64_t)r.rsp, (uint64_t)r.rflags, s.cs.selector,
		     (uint64_t)s.cs.base, (uint64_t)s.cr0, (uint64_t)s.cr2, (uint64_t)s.cr3,
		     (uint64_t)s.cr4, (uint64_t)s.efer);
	for (unsigned i = 0; i < sizeof(code) && n > 0 && (size_t)n < cap; i++) {
		t.linear_address = s.cs.base + r.rip + i;
		if (libkvm_vcpu_ioctl(v->kvm, KVM_TRANSLATE, &t) < 0 || !t.valid ||
		    gmem_read(v->m->mem, t.physical_address, &code[i], 1) < 0)
			break;
		n += snprintf(buf + n, cap - (size_t)n, " %02x", code[i]);
	}
}

/* The engine cannot go on: say everything useful in one line and end with status 1. */
static void vcpu_fatal(struct vcpu *v, const char *cause)
{
	char where[400];

	vcpu_describe(v, where, sizeof(where));
	log_err("%s: %s", cause, where);
	machine_request(&v->m->run, REQ_EXIT_STATUS(1, "vCPU failure"));
}

static enum libkvm_next vcpu_other(void *opaque, struct libkvm_vcpu *c, uint32_t reason)
{
	static const char *const suberror[] = { "", "an instruction cannot be emulated",
						"simultaneous exceptions",
						"event delivery caused an exit",
						"unexpected exit reason" };
	const struct kvm_run *run = libkvm_vcpu_run_area(c);
	struct vcpu *v = opaque;
	char cause[160];

	switch (reason) {
	case KVM_EXIT_SYSTEM_EVENT:
		machine_request(&v->m->run, REQ_OF(run->system_event.type == KVM_SYSTEM_EVENT_RESET
							   ? REQ_RESET
							   : REQ_SHUTDOWN,
						   "engine"));
		return vcpu_stop(v);
	case KVM_EXIT_INTERNAL_ERROR:
		if (run->internal.suberror == LIBKVM_SUBERROR_CHECK)
			snprintf(cause, sizeof(cause),
				 "engine: the translator and the interpreter differ");
		else
			snprintf(cause, sizeof(cause), "engine: internal error %u (%s)",
				 run->internal.suberror,
				 run->internal.suberror < ARRAY_SIZE(suberror)
					 ? suberror[run->internal.suberror]
					 : "unknown");
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(cause, sizeof(cause),
			 "engine: the processor refused to enter the guest (%#llx)",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	default: snprintf(cause, sizeof(cause), "engine: unexpected exit reason %u", reason);
	}
	vcpu_fatal(v, cause);
	return vcpu_stop(v);
}

static const struct libkvm_callbacks vcpu_callbacks = {
	.pio = vcpu_pio,
	.mmio = vcpu_mmio,
	.shutdown = vcpu_shutdown,
	.other = vcpu_other,
	.kicked = vcpu_kicked,
	.pre = vcpu_kicked,
};

/* Wait until the machine lets the vCPUs go; false: end the thread. */
static bool vcpu_park(struct vcpu *v)
{
	struct machine *m = v->m;
	uint64_t seen;
	bool quit;

	pthread_mutex_lock(&m->park_mutex);
	seen = m->go;
	m->parked++;
	pthread_cond_broadcast(&m->park_cond);
	loop_notify(m->loop);
	while (!m->quit && m->go == seen)
		pthread_cond_wait(&m->park_cond, &m->park_mutex);
	quit = m->quit;
	pthread_mutex_unlock(&m->park_mutex);
	return !quit;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index % 1000);
	pthread_setname_np(pthread_self(), name);
	while (vcpu_park(v)) {
		int r;

		v->stopping = false;
		r = libkvm_vcpu_loop(v->kvm, &vcpu_callbacks, v);

		if (r < 0 && r != -EINTR) {
			char cause[80];

			snprintf(cause, sizeof(cause), "engine: KVM_RUN: %s", strerror(-r));
			vcpu_fatal(v, cause);
		} else if (!v->stopping) {
			/* The loop ended for a reason that no callback took: HLT without an irqchip
			 * or a debug exit that nobody asked for. */
			vcpu_fatal(v, "engine: the vCPU stopped by itself");
		}
	}
	return NULL;
}

int vcpu_new(struct vcpu *v, struct machine *m, unsigned index, const struct kvm_cpuid2 *supported,
	     struct err *e)
{
	bool deadline = libkvm_check(m->kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	struct libkvm_err le = { 0 };
	struct kvm_cpuid2 *table;
	sigset_t all, old;
	int r;

	*v = (struct vcpu){ .m = m, .index = index };
	v->apic_id = cpuid_apic_id(&m->cfg->smp, index);
	r = cpuid_build(m->cfg, supported, index, deadline, &table, e);
	if (r < 0)
		return r;
	r = libkvm_vcpu_create(m->vm, v->apic_id, &v->kvm, &le);
	if (r < 0) {
		err_set(e, -r, "cannot create vCPU %u: %s", index, le.msg);
	} else {
		r = libkvm_set_cpuid(v->kvm, table);
		if (r < 0)
			err_set(e, -r, "the engine refuses the CPUID table: %s", strerror(-r));
	}
	free(table);
	if (r < 0)
		return r;
	r = vcpu_state_save(m->kvm, v->kvm, &v->power_on, e);
	if (r < 0)
		return r;
	/* Signals of the process (SIGINT, SIGTERM, SIGWINCH) are for the main thread. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGTRAP);
	for (int s = SIGRTMIN; s <= SIGRTMAX; s++)
		sigdelset(&all, s); /* libkvm's kick */
	sigdelset(&all, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = -pthread_create(&v->thread, NULL, vcpu_main, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0)
		return err_set(e, -r, "cannot start a vCPU thread: %s", strerror(-r));
	v->started = true;
	return 0;
}

void vcpu_free(struct vcpu *v)
{
	if (v->started)
		pthread_join(v->thread, NULL);
	if (v->kvm)
		libkvm_vcpu_close(v->kvm);
	vcpu_state_free(v->power_on);
	*v = (struct vcpu){ 0 };
}

int vcpu_power_up(struct vcpu *v, struct err *e)
{
	int r = vcpu_state_load(v->kvm, v->power_on, e);

	return r < 0 ? err_prefix(e, "resetting vCPU %u", v->index) : 0;
}

/* A flat segment as the protocols demand it, with what a load of the selector would cache. */
static struct kvm_segment vcpu_segment(uint16_t selector, uint8_t type, bool code64)
{
	return (struct kvm_segment){ .limit = UINT32_MAX,
				     .selector = selector,
				     .type = type,
				     .present = 1,
				     .db = !code64,
				     .s = 1,
				     .l = code64,
				     .g = 1 };
}

int vcpu_boot(struct vcpu *v, const struct boot_state *bs, struct err *e)
{
	enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_PG = 1u << 31, CR4_PAE = 1 << 5 };
	enum { EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
	bool is64 = bs->mode == BOOT_LONG64;
	struct kvm_sregs s;
	struct kvm_regs r = { 0 };
	int rc;

	if (bs->mode == BOOT_REAL)
		return 0; /* the reset state already */
	rc = libkvm_get_sregs(v->kvm, &s);
	if (rc < 0)
		return err_set(e, -rc, "KVM_GET_SREGS: %s", strerror(-rc));
	s.cs = vcpu_segment(bs->cs, 0xb, is64);
	s.ds = s.es = s.fs = s.gs = s.ss = vcpu_segment(bs->ds, 0x3, false);
	/* A busy TSS of the least size, as [PVH] and VM entry checks want it. */
	s.tr = (struct kvm_segment){ .limit = 0x67, .selector = 0x28, .type = 0xb, .present = 1 };
	s.gdt.base = bs->gdt;
	s.gdt.limit = bs->gdt_limit;
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr0 = CR0_PE | CR0_ET | (is64 ? CR0_PG : 0);
	s.cr3 = is64 ? bs->cr3 : 0;
	s.cr4 = is64 ? CR4_PAE : 0;
	s.efer = is64 ? EFER_LME | EFER_LMA : 0;
	rc = libkvm_set_sregs(v->kvm, &s);
	if (rc < 0)
		return err_set(e, -rc, "KVM_SET_SREGS: %s", strerror(-rc));
	r.rip = bs->rip;
	r.rax = bs->rax;
	r.rbx = bs->rbx;
	r.rsi = bs->rsi;
	r.rflags = 2;
	rc = libkvm_set_regs(v->kvm, &r);
	return rc < 0 ? err_set(e, -rc, "KVM_SET_REGS: %s", strerror(-rc)) : 0;
}
