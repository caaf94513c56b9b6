/*
 * Interrupt routing table and acknowledge notifiers.
 *
 * Modelled:     chip pins (PIC pair, IOAPIC) and MSI; several pins for one GSI.
 * Not modelled: Hyper-V SynIC and Xen routes: refused.
 * References:   [KVM-API 4.52, 4.25, 4.71].
 * Threads:      any; vm->irq_lock covers table and notifiers. MSIs are sent after it is dropped.
 */
#include "kvm/routing.h"

#include <errno.h>
#include <stdlib.h>

#include "kvm/arch.h"

/* A GSI drives at most the three chips or one MSI. */
#define ROUTING_PER_GSI 3

struct routing_gsi {
	uint8_t n;
	struct kvm_irq_routing_entry e[ROUTING_PER_GSI];
};

struct kvm_irq_router {
	uint32_t ngsi;
	struct routing_gsi *gsi;
	struct kvm_ack_notifier *acks;
};

int kvm_routing_create(struct kvm_vm *vm)
{
	vm->router = calloc(1, sizeof(*vm->router));
	return vm->router ? 0 : -ENOMEM;
}

void kvm_routing_free(struct kvm_vm *vm)
{
	if (!vm->router)
		return;
	free(vm->router->gsi);
	free(vm->router);
	vm->router = NULL;
}

static bool routing_entry_ok(struct kvm_vm *vm, const struct kvm_irq_routing_entry *e)
{
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		return !e->flags && kvm_arch_has_pins(vm) &&
		       kvm_arch_irqchip_pin_valid(e->u.irqchip.irqchip, e->u.irqchip.pin);
	case KVM_IRQ_ROUTING_MSI:
		/* With 32-bit APIC ids the upper word holds id bits 31:8, and nothing below them.
		 */
		return !(e->flags & ~(uint32_t)KVM_MSI_VALID_DEVID) &&
		       !(vm->config.x2apic_32bit_ids && (e->u.msi.address_hi & 0xff));
	default: return false;
	}
}

/* One GSI may go to each chip once, or to one MSI. */
static bool routing_add(struct routing_gsi *g, const struct kvm_irq_routing_entry *e)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->e[i].type != KVM_IRQ_ROUTING_IRQCHIP || e->type != KVM_IRQ_ROUTING_IRQCHIP ||
		    g->e[i].u.irqchip.irqchip == e->u.irqchip.irqchip)
			return false;
	if (g->n == ROUTING_PER_GSI)
		return false;
	g->e[g->n++] = *e;
	return true;
}

int kvm_routing_set(struct kvm_vm *vm, const struct kvm_irq_routing_entry *e, uint32_t n)
{
	struct routing_gsi *gsi, *old;
	uint32_t ngsi = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (e[i].gsi >= KVM_ROUTING_MAX)
			return -EINVAL;
		ngsi = MAX(ngsi, e[i].gsi + 1);
	}
	gsi = calloc(ngsi ? ngsi : 1, sizeof(*gsi));
	if (!gsi)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (!routing_entry_ok(vm, &e[i]) || !routing_add(&gsi[e[i].gsi], &e[i])) {
			free(gsi);
			return -EINVAL;
		}
	}
	pthread_mutex_lock(&vm->irq_lock);
	old = vm->router->gsi;
	vm->router->gsi = gsi;
	vm->router->ngsi = ngsi;
	pthread_mutex_unlock(&vm->irq_lock);
	free(old);
	return 0;
}

int kvm_routing_default(struct kvm_vm *vm)
{
	struct kvm_irq_routing_entry e[40] = { 0 };
	uint32_t n = 0;

	for (uint32_t g = 0; g < 24; g++) {
		e[n].gsi = g;
		e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
		e[n].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		e[n++].u.irqchip.pin = g;
		if (g >= 16)
			continue;
		e[n].gsi = g;
		e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
		e[n].u.irqchip.irqchip = g < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
		e[n++].u.irqchip.pin = g % 8;
	}
	return kvm_routing_set(vm, e, n);
}

int kvm_set_msi(struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	if (vm->config.x2apic_32bit_ids && (address >> 32 & 0xff))
		return -EINVAL;
	return kvm_arch_deliver_msi(vm, address, data);
}

/* As the kernel adds them up: an ignoring route does not hide another's delivery. */
static int routing_sum(int sum, int r)
{
	return r < 0 ? sum : r + (sum < 0 ? 0 : sum);
}

int kvm_set_irq(struct kvm_vm *vm, int source, uint32_t gsi, int level)
{
	struct kvm_irq_router *router = vm->router;
	struct kvm_irq_routing_entry msi = { 0 };
	bool send = false;
	int sum = -1;

	pthread_mutex_lock(&vm->irq_lock);
	for (unsigned i = 0; gsi < router->ngsi && i < router->gsi[gsi].n; i++) {
		const struct kvm_irq_routing_entry *e = &router->gsi[gsi].e[i];

		if (e->type == KVM_IRQ_ROUTING_IRQCHIP) {
			sum = routing_sum(sum, kvm_arch_set_irqchip_pin(vm, e->u.irqchip.irqchip,
									e->u.irqchip.pin, source,
									level));
		} else if (level) {
			msi = *e;
			send = true;
		}
	}
	pthread_mutex_unlock(&vm->irq_lock);
	if (send)
		sum = routing_sum(
			sum,
			kvm_set_msi(vm, (uint64_t)msi.u.msi.address_hi << 32 | msi.u.msi.address_lo,
				    msi.u.msi.data));
	return sum;
}

void kvm_ack_register(struct kvm_vm *vm, struct kvm_ack_notifier *n)
{
	pthread_mutex_lock(&vm->irq_lock);
	n->next = vm->router->acks;
	vm->router->acks = n;
	pthread_mutex_unlock(&vm->irq_lock);
}

void kvm_ack_unregister(struct kvm_vm *vm, struct kvm_ack_notifier *n)
{
	pthread_mutex_lock(&vm->irq_lock);
	for (struct kvm_ack_notifier **p = &vm->router->acks; *p; p = &(*p)->next) {
		if (*p == n) {
			*p = n->next;
			break;
		}
	}
	pthread_mutex_unlock(&vm->irq_lock);
}

static bool routing_drives(const struct kvm_irq_router *router, uint32_t gsi, unsigned chip,
			   unsigned pin)
{
	for (unsigned i = 0; gsi < router->ngsi && i < router->gsi[gsi].n; i++) {
		const struct kvm_irq_routing_entry *e = &router->gsi[gsi].e[i];

		if (e->type == KVM_IRQ_ROUTING_IRQCHIP && e->u.irqchip.irqchip == chip &&
		    e->u.irqchip.pin == pin)
			return true;
	}
	return false;
}

void kvm_notify_acked_irq(struct kvm_vm *vm, unsigned irqchip, unsigned pin)
{
	struct kvm_ack_notifier *n, *next;

	pthread_mutex_lock(&vm->irq_lock);
	for (n = vm->router->acks; n; n = next) {
		next = n->next; /* fn may take itself out */
		if (routing_drives(vm->router, n->gsi, irqchip, pin))
			n->fn(vm, n);
	}
	pthread_mutex_unlock(&vm->irq_lock);
}
