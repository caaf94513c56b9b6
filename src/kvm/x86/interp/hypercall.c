/*
 * KVM's hypercalls, by VMCALL or VMMCALL: either works, so nothing needs patching.
 *
 * Modelled:     VAPIC_POLL_IRQ, KICK_CPU, SEND_IPI, SCHED_YIELD.
 * Not modelled: CLOCK_PAIRING (answers EOPNOTSUPP, as KVM does when its clock is not the host's
 *               TSC), everything else (ENOSYS).
 * References:   [KVM-HYPERCALL]. Threads: the vCPU's own.
 */
#include <errno.h>
#include <linux/kvm_para.h>
#include <sched.h>

#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/system.h"
#include "kvm/x86/irqchip.h"

/* End the HLT of the processor with an APIC id, now or when it comes. */
static void hypercall_kick(struct kvm_vm *vm, uint64_t apic_id)
{
	unsigned n = atomic_load(&vm->nvcpus);

	for (unsigned k = 0; k < n; k++) {
		struct vcpu *t = atomic_load(&vm->vcpus[k]);

		if (t && t->id == apic_id) {
			atomic_store(&t->pv_unhalted, true);
			kvm_make_request(t, REQ_EVENT);
			return;
		}
	}
}

/*
 * An ICR to each processor of a bitmap that starts at APIC id min. cluster: bits in the whole map.
 * Returns how many took it, or a negative KVM error.
 */
static int64_t hypercall_send_ipi(struct vcpu *v, const uint64_t map[2], uint64_t min, uint64_t icr,
				  unsigned cluster)
{
	unsigned mode = icr >> 8 & 7;
	int64_t sent = 0;

	/* fixed and NMI only, and no shorthand, as the guest's own code sends */
	if ((icr & 0xc0000) || (mode != 0 && mode != 4))
		return -KVM_EINVAL;
	for (unsigned k = 0; k < cluster; k++) {
		uint64_t id = min + k;

		/* an MSI can name APIC ids below 255 only */
		if (!(map[k / 64] >> (k % 64) & 1) || id >= 255)
			continue;
		if (kvm_msi_deliver(v->vm, 0xfee00000 | id << 12,
				    (uint32_t)(icr & 0xff) | mode << 8) > 0)
			sent++;
	}
	return sent;
}

void vcpu_hypercall(struct vcpu *v)
{
	bool wide = v->long64;
	uint64_t mask = wide ? ~0ull : 0xffffffff;
	uint64_t nr = v->r[REG_RAX] & mask, a0 = v->r[REG_RBX] & mask, a1 = v->r[REG_RCX] & mask,
		 a2 = v->r[REG_RDX] & mask, a3 = v->r[REG_RSI] & mask;
	int64_t ret;

	if (v->cpl > 0) {
		ret = -KVM_EPERM;
	} else {
		switch (nr) {
		case KVM_HC_VAPIC_POLL_IRQ: ret = 0; break;
		case KVM_HC_KICK_CPU:
			hypercall_kick(v->vm, a1);
			ret = 0;
			break;
		case KVM_HC_SEND_IPI: {
			/* without 64-bit registers the two map words are 32 bits each */
			uint64_t map[2] = { wide ? a0 : a0 | a1 << 32, wide ? a1 : 0 };

			ret = v->lapic ? hypercall_send_ipi(v, map, a2, a3, wide ? 128 : 64)
				       : -KVM_ENOSYS;
			break;
		}
		case KVM_HC_SCHED_YIELD:
			sched_yield();
			ret = 0;
			break;
		case KVM_HC_CLOCK_PAIRING: ret = -KVM_EOPNOTSUPP; break;
		default: ret = -KVM_ENOSYS; break;
		}
	}
	v->r[REG_RAX] = (uint64_t)ret & mask;
}
