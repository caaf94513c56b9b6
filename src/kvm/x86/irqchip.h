/*
 * What the rest of the software KVM needs of the interrupt controllers, the PIT and the clock.
 *
 * References: [KVM-API], [8259A], [IOAPIC], [SDM3 10], [8254]. Threads: as said for each function.
 */
#pragma once
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"

struct kvm_vm;
struct vcpu;

/*
 * ---- Creation and state ioctls. -errno as the kernel's. --------------------------------------
 * Creation and destruction with vm->lock held (or before and after anybody else knows vm); the
 * others from any thread.
 */
int kvm_chips_create(struct kvm_vm *vm);	/* at KVM_CREATE_VM: the clock starts. 0, -ENOMEM */
int kvm_irqchip_create(struct kvm_vm *vm);	/* KVM_CREATE_IRQCHIP: PIC pair, IOAPIC, LAPICs */
int kvm_irqchip_split(struct kvm_vm *vm);	/* LAPICs only; the IOAPIC is user space's */
void kvm_irqchip_destroy(struct kvm_vm *vm);	/* and all else in vm->arch; vCPUs are gone */
int kvm_irqchip_get(struct kvm_vm *vm, struct kvm_irqchip *chip);
int kvm_irqchip_set(struct kvm_vm *vm, const struct kvm_irqchip *chip);
int kvm_pit_create(struct kvm_vm *vm, const struct kvm_pit_config *config);
int kvm_pit_get(struct kvm_vm *vm, struct kvm_pit_state2 *s);
int kvm_pit_set(struct kvm_vm *vm, const struct kvm_pit_state2 *s);
int kvm_pit_reinject(struct kvm_vm *vm, bool reinject);
void kvm_clock_get(struct kvm_vm *vm, struct kvm_clock_data *c); /* KVM_GET_CLOCK */
int kvm_clock_set(struct kvm_vm *vm, const struct kvm_clock_data *c);

/* ---- Chip pins, called by the routing code with vm->irq_lock held --------------------------- */
/* Return > 0 delivered, 0 coalesced, < 0 ignored (masked), as kvm_set_irq. PIC pins: 0..15. */
int kvm_pic_set_irq(struct kvm_vm *vm, unsigned pin, int source, int level);
int kvm_ioapic_set_irq(struct kvm_vm *vm, unsigned pin, int source, int level);
/* Deliver an MSI message to the LAPICs. Any thread, no lock needed. > 0 when accepted. */
int kvm_msi_deliver(struct kvm_vm *vm, uint64_t address, uint32_t data);

/* ---- The vCPU's view. vCPU thread unless said. ---------------------------------------------- */
int kvm_lapic_create(struct vcpu *v); /* under vm->lock, when the chip is in the kernel */
void kvm_lapic_free(struct vcpu *v);
void kvm_lapic_reset(struct vcpu *v, bool init);
int kvm_lapic_get(struct vcpu *v, struct kvm_lapic_state *s);
int kvm_lapic_set(struct vcpu *v, const struct kvm_lapic_state *s);
/* Is a maskable interrupt waiting (LAPIC above PPR, or PIC through LINT0 / without LAPIC)? Any thread. */
bool kvm_cpu_has_interrupt(struct vcpu *v);
/* Acknowledge it: the vector to deliver, or -1 when it has gone. */
int kvm_cpu_get_interrupt(struct vcpu *v);
/* CR8. */
uint64_t kvm_lapic_get_cr8(struct vcpu *v);
void kvm_lapic_set_cr8(struct vcpu *v, uint64_t cr8);
/* MSR_IA32_APICBASE: returns 0, or 1 for #GP. */
int kvm_lapic_set_base(struct vcpu *v, uint64_t value, bool host);
/* x2APIC MSRs 0x800-0x8ff and TSC_DEADLINE: 0, or 1 for #GP. */
int kvm_x2apic_msr_read(struct vcpu *v, uint32_t index, uint64_t *value);
int kvm_x2apic_msr_write(struct vcpu *v, uint32_t index, uint64_t value);
uint64_t kvm_lapic_get_tsc_deadline(struct vcpu *v);
void kvm_lapic_set_tsc_deadline(struct vcpu *v, uint64_t value);
/*
 * The xAPIC page: true when gpa is in this vCPU's enabled xAPIC page (apic_base, 4 KiB). The access
 * functions are then called by the MMIO path; 4-byte aligned accesses are architectural, others
 * behave as the processor does.
 */
bool kvm_lapic_claims(struct vcpu *v, gpa_t gpa);
void kvm_lapic_mmio_read(struct vcpu *v, gpa_t gpa, int len, void *data);
void kvm_lapic_mmio_write(struct vcpu *v, gpa_t gpa, int len, const void *data);
/* INIT and SIPI that other processors have sent: acts on v->pending_events. Run loop. */
void kvm_lapic_accept_events(struct vcpu *v);
/* KVM_NMI and LINT1/NMI messages: queue an NMI. Any thread. */
void kvm_inject_nmi(struct vcpu *v);

/* ---- Guest time ----------------------------------------------------------------------------- */
uint64_t kvm_read_tsc(struct vcpu *v);		    /* guest TSC now */
void kvm_write_tsc(struct vcpu *v, uint64_t tsc);   /* WRMSR TSC; moves TSC_ADJUST too */
/* KVM_SET_MSRS of the TSC: vCPUs that are set to nearly the same time run in step afterwards. */
void kvm_write_tsc_host(struct vcpu *v, uint64_t tsc);
/* IA32_TSC_ADJUST; host: KVM_SET_MSRS, which moves no TSC. */
void kvm_write_tsc_adjust(struct vcpu *v, uint64_t value, bool host);
/* At vCPU creation: tsc_khz is the host's unless set, the count is in step with the VM's others. */
void kvm_tsc_init(struct vcpu *v);
/* CLOCK_MONOTONIC time at which the guest TSC will read tsc (0 when past). */
uint64_t kvm_tsc_to_ns(struct vcpu *v, uint64_t tsc);
int kvm_set_tsc_khz(struct vcpu *v, uint32_t khz);  /* KVM_SET_TSC_KHZ */
uint32_t kvm_host_tsc_khz(void);
/* kvm-clock MSRs (both numberings), wall clock, steal time: 0, or 1 for #GP; -1 not such an MSR. */
int kvm_pvclock_msr_write(struct vcpu *v, uint32_t index, uint64_t value);
int kvm_pvclock_msr_read(struct vcpu *v, uint32_t index, uint64_t *value);
/* Rewrite the shared time areas; the run loop calls it on entry and when REQ_STEAL is set. */
void kvm_pvclock_update(struct vcpu *v);
int kvm_clock_ctrl(struct vcpu *v); /* KVM_KVMCLOCK_CTRL: tell the guest it was paused */
/* Guest-physical access for pvclock areas; in interp/mmu.c. Return 0 or -EFAULT. vCPU thread. */
int kvm_write_guest(struct vcpu *v, gpa_t gpa, const void *data, uint32_t len);
int kvm_read_guest(struct vcpu *v, gpa_t gpa, void *data, uint32_t len);
