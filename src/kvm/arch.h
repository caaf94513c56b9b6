/*
 * What the architecture-neutral part of the software KVM asks of the x86 part.
 *
 * References: [KVM-API]. Threads: as said for each function.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"

struct kvm_vm;
struct vcpu;

/* Ioctls that the neutral part does not know. Any thread; the last is called with v->lock held. */
long kvm_arch_sys_ioctl(unsigned long request, uintptr_t arg);
long kvm_arch_vm_ioctl(struct kvm_vm *vm, unsigned long request, uintptr_t arg);
long kvm_arch_vcpu_ioctl(struct vcpu *v, unsigned long request, uintptr_t arg);

/* Value of a capability; vm is NULL on the system handle. Any thread. */
int kvm_arch_check_extension(struct kvm_vm *vm, long cap);

/*
 * VM state of the architecture. Init: 0 or -errno. Destroy comes after all vCPUs' destroy and after
 * the timer and eventfd threads have ended.
 */
int kvm_arch_vm_create(struct kvm_vm *vm);
void kvm_arch_vm_destroy(struct kvm_vm *vm);

/*
 * Make a vCPU in its power-up state, not yet in vm->vcpus. vm->lock held. Returns 0, -EINVAL,
 * -ENOMEM, -EMFILE.
 */
int kvm_arch_vcpu_create(struct kvm_vm *vm, uint32_t id, uint32_t index, struct vcpu **out);
void kvm_arch_vcpu_destroy(struct vcpu *v);

/* KVM_RUN with v->lock held: 0 or -errno. */
long kvm_arch_vcpu_run(struct vcpu *v);

/* Act on REQ_TLB_FLUSH and REQ_FLUSH_CODE. vCPU thread, outside guest mode. */
void kvm_arch_flush(struct vcpu *v, uint32_t requests);

/* Highest guest page frame number that may have memory. */
uint64_t kvm_arch_max_gfn(void);

/*
 * Drive a pin of an in-kernel chip (KVM_IRQCHIP_*): as kvm_set_irq. vm->irq_lock held. valid tells
 * whether the chip and pin exist, for KVM_SET_GSI_ROUTING.
 */
int kvm_arch_set_irqchip_pin(struct kvm_vm *vm, unsigned chip, unsigned pin, int source, int level);
bool kvm_arch_irqchip_pin_valid(unsigned chip, unsigned pin);
int kvm_arch_deliver_msi(struct kvm_vm *vm, uint64_t address, uint32_t data);

/* Some in-kernel interrupt controller is there; and one with pins that are acknowledged. */
bool kvm_arch_has_irqchip(const struct kvm_vm *vm);
bool kvm_arch_has_pins(const struct kvm_vm *vm);
