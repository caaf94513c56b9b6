/*
 * vCPU threads: each runs libkvm's loop, hands port and memory accesses to the bus, and parks when
 * the machine wants it out of the guest.
 * Threads: new, free, reset, boot: the machine's thread while the vCPU is parked.
 */
#pragma once
#include <libkvm.h>
#include <pthread.h>
#include <stdbool.h>

#include "machine/machine.h"

struct vcpu_state;

struct vcpu {
	struct machine *m;
	struct libkvm_vcpu *kvm;
	struct vcpu_state *power_on; /* everything the engine reports of a fresh vCPU */
	unsigned index;
	uint32_t apic_id;
	pthread_t thread;
	bool started;
	bool stopping; /* the vCPU's thread only: a callback ended the loop on purpose */
};

/* Create the engine's vCPU with its CPUID and start the thread, parked. */
int vcpu_new(struct vcpu *v, struct machine *m, unsigned index, const struct kvm_cpuid2 *supported,
	     struct err *e) must_check;

/* The thread has ended (machine->quit) or is made to. */
void vcpu_free(struct vcpu *v);

/* Power-on state: registers, FPU, MSRs, LAPIC, pending events, run state. */
int vcpu_power_up(struct vcpu *v, struct err *e) must_check;

/* Put the boot processor where the kernel's protocol says. */
int vcpu_boot(struct vcpu *v, const struct boot_state *bs, struct err *e) must_check;

/* One line about where the vCPU stands: RIP, control registers, bytes at RIP. */
void vcpu_describe(struct vcpu *v, char *buf, size_t cap);

/* machine/vcpu_state.c: the engine's structures, taken and given back. */
int vcpu_state_save(struct libkvm *k, struct libkvm_vcpu *c, struct vcpu_state **out,
		    struct err *e) must_check;
int vcpu_state_load(struct libkvm_vcpu *c, const struct vcpu_state *s, struct err *e) must_check;
void vcpu_state_free(struct vcpu_state *s);

/* The same for the interrupt controllers and the PIT of the machine. */
int irqchip_state_save(struct libkvm_vm *vm, struct irqchip_state **out, struct err *e) must_check;
int irqchip_state_load(struct libkvm_vm *vm, const struct irqchip_state *s,
		       struct err *e) must_check;
void irqchip_state_free(struct irqchip_state *s);
