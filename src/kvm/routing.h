/*
 * Interrupt routing: GSI to chip pins or MSI. What chips and users call is in vm.h.
 * References: [KVM-API 4.52]. Threads: any.
 */
#pragma once
#include "kvm/vm.h"

#define KVM_ROUTING_MAX 4096 /* entries of a table, and GSIs */

int kvm_routing_create(struct kvm_vm *vm);
void kvm_routing_free(struct kvm_vm *vm);
/* Replace the table: 0, -EINVAL (bad entry: nothing changes), -ENOMEM. */
int kvm_routing_set(struct kvm_vm *vm, const struct kvm_irq_routing_entry *e, uint32_t n);
/* What KVM_CREATE_IRQCHIP sets up: GSI n to IOAPIC pin n and, below 16, to the PIC. */
int kvm_routing_default(struct kvm_vm *vm);
