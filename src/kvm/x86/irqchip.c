/*
 * Creation of a VM's interrupt controllers, their state ioctls, and the routing code's door to
 * them.
 *
 * References: [KVM-API 4.24-4.26, 4.41, 7.5]. Threads: as irqchip.h says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/arch.h"
#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"
#include "kvm/x86/tsc.h"

static struct kvm_arch_vm *chips_new(void)
{
	struct kvm_arch_vm *arch = calloc(1, sizeof(*arch));

	if (!arch)
		return NULL;
	pthread_mutex_init(&arch->clock.lock, NULL);
	arch->clock.base_tsc = arch->clock.start_tsc = kvm_host_tsc();
	kvm_tsc_calibration_start();
	return arch;
}

struct kvm_arch_vm *kvm_chips(struct kvm_vm *vm)
{
	struct kvm_arch_vm *arch = __atomic_load_n(&vm->arch, __ATOMIC_ACQUIRE), *old = NULL;

	if (likely(arch))
		return arch;
	arch = chips_new();
	if (arch && !__atomic_compare_exchange_n(&vm->arch, &old, arch, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE)) {
		free(arch);
		arch = old;
	}
	return arch;
}

int kvm_chips_create(struct kvm_vm *vm)
{
	return kvm_chips(vm) ? 0 : -ENOMEM;
}

int kvm_irqchip_create(struct kvm_vm *vm)
{
	int r;

	if (kvm_arch_has_irqchip(vm))
		return -EEXIST;
	if (atomic_load(&vm->nvcpus))
		return -EINVAL; /* they have no LAPIC */
	if (!kvm_chips(vm))
		return -ENOMEM;
	kvm_pic_init(vm);
	kvm_ioapic_init(vm);
	r = kvm_pic_register(vm);
	if (!r) {
		r = kvm_ioapic_register(vm);
		if (r) {
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &vm->arch->pic.master_dev);
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &vm->arch->pic.slave_dev);
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &vm->arch->pic.elcr_dev);
		}
	}
	if (!r)
		vm->irqchip_in_kernel = true;
	return r;
}

int kvm_irqchip_split(struct kvm_vm *vm)
{
	if (kvm_arch_has_irqchip(vm))
		return -EEXIST;
	if (atomic_load(&vm->nvcpus))
		return -EINVAL;
	if (!kvm_chips(vm))
		return -ENOMEM;
	vm->irqchip_split = true;
	return 0;
}

void kvm_irqchip_destroy(struct kvm_vm *vm)
{
	struct kvm_arch_vm *arch = vm->arch;

	if (!arch)
		return;
	kvm_pit_destroy(vm);
	if (vm->irqchip_in_kernel) {
		kvm_io_bus_unregister(vm, KVM_BUS_PIO, &arch->pic.master_dev);
		kvm_io_bus_unregister(vm, KVM_BUS_PIO, &arch->pic.slave_dev);
		kvm_io_bus_unregister(vm, KVM_BUS_PIO, &arch->pic.elcr_dev);
		kvm_io_bus_unregister(vm, KVM_BUS_MMIO, &arch->ioapic.dev);
	}
	vm->irqchip_in_kernel = vm->irqchip_split = false;
	pthread_mutex_destroy(&arch->clock.lock);
	free(arch);
	vm->arch = NULL;
}

int kvm_irqchip_get(struct kvm_vm *vm, struct kvm_irqchip *chip)
{
	struct kvm_arch_vm *arch = vm->arch;

	if (!arch || !vm->irqchip_in_kernel)
		return -ENXIO;
	if (chip->chip_id > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	memset(&chip->chip, 0, sizeof(chip->chip));
	pthread_mutex_lock(&vm->irq_lock);
	if (chip->chip_id == KVM_IRQCHIP_IOAPIC)
		kvm_ioapic_get_state(vm, &chip->chip.ioapic);
	else
		chip->chip.pic = arch->pic.s[chip->chip_id];
	pthread_mutex_unlock(&vm->irq_lock);
	return 0;
}

int kvm_irqchip_set(struct kvm_vm *vm, const struct kvm_irqchip *chip)
{
	struct kvm_arch_vm *arch = vm->arch;

	if (!arch || !vm->irqchip_in_kernel)
		return -ENXIO;
	if (chip->chip_id > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	pthread_mutex_lock(&vm->irq_lock);
	if (chip->chip_id == KVM_IRQCHIP_IOAPIC) {
		kvm_ioapic_set_state(vm, &chip->chip.ioapic);
	} else {
		kvm_chip_state_load(&kvm_pic_table, &arch->pic.s[chip->chip_id], &chip->chip.pic);
		kvm_pic_loaded(vm);
	}
	pthread_mutex_unlock(&vm->irq_lock);
	/* A tick that was under way in the old state is not ended in the new one. */
	kvm_pit_forget_ticks(vm);
	return 0;
}

/* ---- kvm/arch.h: what the routing code asks ---------------------------------------------------
 */

int kvm_arch_set_irqchip_pin(struct kvm_vm *vm, unsigned chip, unsigned pin, int source, int level)
{
	if (!kvm_arch_has_pins(vm))
		return -1;
	switch (chip) {
	case KVM_IRQCHIP_PIC_MASTER: return pin < 8 ? kvm_pic_set_irq(vm, pin, source, level) : -1;
	case KVM_IRQCHIP_PIC_SLAVE:
		return pin < 8 ? kvm_pic_set_irq(vm, pin + 8, source, level) : -1;
	case KVM_IRQCHIP_IOAPIC: return kvm_ioapic_set_irq(vm, pin, source, level);
	default: return -1;
	}
}

bool kvm_arch_irqchip_pin_valid(unsigned chip, unsigned pin)
{
	switch (chip) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE: return pin < 8;
	case KVM_IRQCHIP_IOAPIC: return pin < KVM_IOAPIC_NUM_PINS;
	default: return false;
	}
}

int kvm_arch_deliver_msi(struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	return kvm_msi_deliver(vm, address, data);
}

bool kvm_arch_has_irqchip(const struct kvm_vm *vm)
{
	return vm->irqchip_in_kernel || vm->irqchip_split;
}

bool kvm_arch_has_pins(const struct kvm_vm *vm)
{
	return vm->irqchip_in_kernel;
}
