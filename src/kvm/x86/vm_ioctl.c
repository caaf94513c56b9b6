/*
 * x86 ioctls of VM and system handles, and capabilities.
 *
 * Modelled:     interrupt controllers (whole or split), PIT, clock, TSS and identity-map addresses,
 *               boot processor, capabilities with a true answer for each.
 * Not modelled: SMM, Xen, Hyper-V, nested virtualisation, PMU filters, MSR filters: capability 0,
 *               request -ENOTTY.
 * Note:         the engine needs no TSS or identity map of its own; their addresses are kept.
 * References:   [KVM-API 4, 7, 8].
 * Threads:      any; vm->lock where creation has to be atomic.
 */
#include <errno.h>

#include "kvm/arch.h"
#include "kvm/handle.h"
#include "kvm/routing.h"
#include "kvm/x86/chips.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/msr.h"
#include "kvm/x86/state.h"

#define VM_IDENTITY_MAP_DEFAULT 0xfffbc000ull
#define VM_MAX_GFN              (BIT(52 - PAGE_SHIFT) - 1)
#define VM_MCE_CAP              (BIT(8) | BIT(24)) /* MCG_CTL_P, MCG_SER_P */
#define VM_CPUID_MAX            256
#define VM_QUIRKS \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED | \
	 KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP | \
	 KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)

uint64_t kvm_arch_max_gfn(void)
{
	return VM_MAX_GFN;
}

int kvm_arch_vm_create(struct kvm_vm *vm)
{
	vm->config.identity_map_addr = VM_IDENTITY_MAP_DEFAULT;
	return kvm_chips_create(vm);
}

void kvm_arch_vm_destroy(struct kvm_vm *vm)
{
	kvm_irqchip_destroy(vm);
}

/* ---- Capabilities --------------------------------------------------------------------------- */

int kvm_arch_check_extension(struct kvm_vm *vm, long cap)
{
	switch (cap) {
	case KVM_CAP_IRQCHIP:
	case KVM_CAP_HLT:
	case KVM_CAP_SET_TSS_ADDR:
	case KVM_CAP_EXT_CPUID:
	case KVM_CAP_EXT_EMUL_CPUID:
	case KVM_CAP_CLOCKSOURCE:
	case KVM_CAP_PIT:
	case KVM_CAP_NOP_IO_DELAY:
	case KVM_CAP_USER_NMI:
	case KVM_CAP_REINJECT_CONTROL:
	case KVM_CAP_IRQ_INJECT_STATUS:
	case KVM_CAP_PIT2:
	case KVM_CAP_PIT_STATE2:
	case KVM_CAP_SET_IDENTITY_MAP_ADDR:
	case KVM_CAP_VCPU_EVENTS:
	case KVM_CAP_DEBUGREGS:
	case KVM_CAP_XSAVE:
	case KVM_CAP_ENABLE_CAP:
	case KVM_CAP_TSC_DEADLINE_TIMER:
	case KVM_CAP_DISABLE_QUIRKS:
	case KVM_CAP_SET_BOOT_CPU_ID:
	case KVM_CAP_SPLIT_IRQCHIP:
	case KVM_CAP_GET_MSR_FEATURES:
	case KVM_CAP_EXCEPTION_PAYLOAD:
	case KVM_CAP_KVMCLOCK_CTRL:
	case KVM_CAP_TSC_CONTROL:
	case KVM_CAP_VM_TSC_CONTROL:
	case KVM_CAP_GET_TSC_KHZ:
	case KVM_CAP_XCRS:
	case KVM_CAP_SREGS2:
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
	case KVM_CAP_X86_ROBUST_SINGLESTEP: return 1;
	case KVM_CAP_SYNC_REGS: return KVM_SYNC_X86_VALID_FIELDS;
	case KVM_CAP_ADJUST_CLOCK: return KVM_CLOCK_TSC_STABLE;
	case KVM_CAP_SET_GUEST_DEBUG2:
		return KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP |
		       KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_INJECT_DB;
	case KVM_CAP_MCE: return 32;
	case KVM_CAP_X2APIC_API:
		return KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
	case KVM_CAP_XSAVE2: return sizeof(struct kvm_xsave);
	case KVM_CAP_DISABLE_QUIRKS2: return VM_QUIRKS;
	default: (void)vm; return 0;
	}
}

static long vm_enable_split(struct kvm_vm *vm, const struct kvm_enable_cap *cap)
{
	long r;

	/* args[0]: pins of user space's IOAPIC, whose routes come first. */
	if (cap->args[0] > 4096 - 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (kvm_arch_has_irqchip(vm))
		r = -EEXIST;
	else if (atomic_load(&vm->nvcpus))
		r = -EINVAL;
	else
		r = kvm_irqchip_split(vm);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static long vm_enable_cap(struct kvm_vm *vm, const struct kvm_enable_cap *cap)
{
	const uint64_t x2 = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;

	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_DISABLE_QUIRKS2:
		if (cap->args[0] & ~(uint64_t)VM_QUIRKS)
			return -EINVAL;
		vm->config.disabled_quirks = cap->args[0];
		return 0;
	case KVM_CAP_DISABLE_QUIRKS: vm->config.disabled_quirks = cap->args[0]; return 0;
	case KVM_CAP_SPLIT_IRQCHIP: return vm_enable_split(vm, cap);
	case KVM_CAP_X2APIC_API:
		if (cap->args[0] & ~x2)
			return -EINVAL;
		if (cap->args[0] & KVM_X2APIC_API_USE_32BIT_IDS)
			vm->config.x2apic_32bit_ids = true;
		if (cap->args[0] & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
			vm->config.x2apic_no_bcast_quirk = true;
		return 0;
	case KVM_CAP_EXCEPTION_PAYLOAD: vm->config.exception_payload = cap->args[0]; return 0;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT: vm->config.triple_fault_event = cap->args[0]; return 0;
	default: return -EINVAL;
	}
}

/* ---- VM ioctls ------------------------------------------------------------------------------ */

static long vm_create_irqchip(struct kvm_vm *vm)
{
	long r;

	pthread_mutex_lock(&vm->lock);
	if (kvm_arch_has_irqchip(vm))
		r = -EEXIST;
	else if (atomic_load(&vm->nvcpus))
		r = -EINVAL; /* their LAPICs would be missing */
	else
		r = kvm_irqchip_create(vm);
	if (!r)
		r = kvm_routing_default(vm);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static long vm_create_pit(struct kvm_vm *vm, const struct kvm_pit_config *config)
{
	struct kvm_pit_config none = { .flags = KVM_PIT_SPEAKER_DUMMY };
	long r;

	pthread_mutex_lock(&vm->lock);
	if (atomic_load(&kvm_chips(vm)->pit))
		r = -EEXIST;
	else if (!kvm_arch_has_pins(vm))
		r = -ENOENT;
	else
		r = kvm_pit_create(vm, config ? config : &none);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static long vm_set_boot_cpu(struct kvm_vm *vm, uintptr_t id)
{
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (atomic_load(&vm->nvcpus))
		r = -EBUSY;
	else
		vm->config.boot_cpu_id = (uint32_t)id;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static long vm_set_identity_map(struct kvm_vm *vm, const uint64_t *addr)
{
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (atomic_load(&vm->nvcpus))
		r = -EINVAL;
	else
		vm->config.identity_map_addr = *addr ? *addr : VM_IDENTITY_MAP_DEFAULT;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* The first version of the PIT ioctls has no flags. */
static long vm_pit1(struct kvm_vm *vm, struct kvm_pit_state *s, bool set)
{
	struct kvm_pit_state2 s2;
	int r;

	if (!atomic_load(&kvm_chips(vm)->pit))
		return -ENXIO;
	r = kvm_pit_get(vm, &s2);
	if (r)
		return r;
	if (!set) {
		for (unsigned i = 0; i < 3; i++)
			s->channels[i] = s2.channels[i];
		return 0;
	}
	for (unsigned i = 0; i < 3; i++)
		s2.channels[i] = s->channels[i];
	return kvm_pit_set(vm, &s2);
}

static long vm_chip_ioctl(struct kvm_vm *vm, unsigned long request, void *p)
{
	bool pit = atomic_load(&kvm_chips(vm)->pit);

	switch (request) {
	case KVM_GET_IRQCHIP: return kvm_arch_has_pins(vm) ? kvm_irqchip_get(vm, p) : -ENXIO;
	case KVM_SET_IRQCHIP: return kvm_arch_has_pins(vm) ? kvm_irqchip_set(vm, p) : -ENXIO;
	case KVM_CREATE_PIT2: return vm_create_pit(vm, p);
	case KVM_GET_PIT: return vm_pit1(vm, p, false);
	case KVM_SET_PIT: return vm_pit1(vm, p, true);
	case KVM_GET_PIT2: return pit ? kvm_pit_get(vm, p) : -ENXIO;
	case KVM_SET_PIT2: return pit ? kvm_pit_set(vm, p) : -ENXIO;
	case KVM_REINJECT_CONTROL:
		return pit ? kvm_pit_reinject(vm, ((struct kvm_reinject_control *)p)->pit_reinject)
			   : -ENXIO;
	case KVM_GET_CLOCK: kvm_clock_get(vm, p); return 0;
	case KVM_SET_CLOCK: return kvm_clock_set(vm, p);
	case KVM_SET_IDENTITY_MAP_ADDR: return vm_set_identity_map(vm, p);
	default: return vm_enable_cap(vm, p);
	}
}

long kvm_arch_vm_ioctl(struct kvm_vm *vm, unsigned long request, uintptr_t arg)
{
	void *p = kvm_arg_ptr(arg);

	switch (request) {
	case KVM_SET_TSS_ADDR:
		/* Three pages below 4 GiB. */
		if (arg > 0xffffffff - 3 * PAGE_SIZE)
			return -EINVAL;
		vm->config.tss_addr = arg;
		return 0;
	case KVM_CREATE_IRQCHIP: return vm_create_irqchip(vm);
	case KVM_CREATE_PIT: return vm_create_pit(vm, NULL);
	case KVM_SET_BOOT_CPU_ID: return vm_set_boot_cpu(vm, arg);
	case KVM_SET_TSC_KHZ:
		if (arg > UINT32_MAX)
			return -EINVAL;
		vm->config.tsc_khz = (uint32_t)arg;
		return 0;
	case KVM_GET_TSC_KHZ: return vm->config.tsc_khz ? vm->config.tsc_khz : kvm_host_tsc_khz();
	case KVM_GET_IRQCHIP:
	case KVM_SET_IRQCHIP:
	case KVM_CREATE_PIT2:
	case KVM_GET_PIT:
	case KVM_SET_PIT:
	case KVM_GET_PIT2:
	case KVM_SET_PIT2:
	case KVM_REINJECT_CONTROL:
	case KVM_GET_CLOCK:
	case KVM_SET_CLOCK:
	case KVM_SET_IDENTITY_MAP_ADDR:
	case KVM_ENABLE_CAP: return p ? vm_chip_ioctl(vm, request, p) : -EFAULT;
	default: return -ENOTTY;
	}
}

/* ---- System ioctls -------------------------------------------------------------------------- */

static long sys_msr_list(struct kvm_msr_list *l, const uint32_t *list, unsigned n)
{
	bool fits = l->nmsrs >= n;

	/* The count is told in either case, so that user space can come back. */
	l->nmsrs = n;
	for (unsigned i = 0; fits && i < n; i++)
		l->indices[i] = list[i];
	return fits ? 0 : -E2BIG;
}

/* KVM_GET_MSRS on the system handle reads feature MSRs. */
static long sys_feature_msrs(struct kvm_msrs *m)
{
	uint32_t i;

	if (m->nmsrs >= VM_CPUID_MAX)
		return -E2BIG;
	for (i = 0; i < m->nmsrs; i++) {
		uint64_t val;

		if (vcpu_msr_feature(m->entries[i].index, &val))
			break;
		m->entries[i].data = val;
	}
	return i;
}

long kvm_arch_sys_ioctl(unsigned long request, uintptr_t arg)
{
	void *p = kvm_arg_ptr(arg);
	const uint32_t *list;
	unsigned n;

	switch (request) {
	case KVM_GET_MSR_INDEX_LIST:
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
	case KVM_GET_SUPPORTED_CPUID:
	case KVM_GET_EMULATED_CPUID:
	case KVM_GET_MSRS:
	case KVM_X86_GET_MCE_CAP_SUPPORTED:
		if (!p)
			return -EFAULT;
		break;
	default: return -EINVAL;
	}
	switch (request) {
	case KVM_GET_MSR_INDEX_LIST: n = vcpu_msr_list(&list); return sys_msr_list(p, list, n);
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
		n = vcpu_msr_feature_list(&list);
		return sys_msr_list(p, list, n);
	case KVM_GET_SUPPORTED_CPUID: return kvm_cpuid_supported(p);
	case KVM_GET_EMULATED_CPUID: return kvm_cpuid_emulated(p);
	case KVM_GET_MSRS: return sys_feature_msrs(p);
	default: *(uint64_t *)p = VM_MCE_CAP; return 0;
	}
}
