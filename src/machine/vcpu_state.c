/*
 * The whole state of a vCPU and of the interrupt controllers as the engine's own structures: taken
 * once at power-on, given back at each reset.
 *
 * The KVM API has no "reset"; what a fresh vCPU reports is by definition its power-on state, on
 * both engines and whatever CPUID it was given. The TSC is left running over a reset: writing it
 * on one vCPU after the other would pull them apart.
 * References: [KVM-API 4]. Threads: the vCPU is parked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "machine/vcpu.h"

enum { MSR_TSC = 0x10, MSR_TSC_DEADLINE = 0x6e0, STATE_MSRS_MAX = 512 };

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	_Alignas(8) uint8_t xsave[4096]; /* struct kvm_xsave without its open end */
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp;
	unsigned has; /* bit i: row i of the table below was there */
	unsigned nmsrs;
	struct vcpu_msr {
		uint32_t index;
		uint64_t value;
	} msr[];
};

/* In the order in which they are set: the LAPIC needs sregs' APIC base, XSAVE needs XCR0. */
static const struct {
	unsigned long get, set;
	size_t off;
	bool after_msrs;
	const char *name;
} vcpu_state_rows[] = {
	{ KVM_GET_SREGS, KVM_SET_SREGS, offsetof(struct vcpu_state, sregs), false, "SREGS" },
	{ KVM_GET_REGS, KVM_SET_REGS, offsetof(struct vcpu_state, regs), false, "REGS" },
	{ KVM_GET_XCRS, KVM_SET_XCRS, offsetof(struct vcpu_state, xcrs), false, "XCRS" },
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, offsetof(struct vcpu_state, xsave), false, "XSAVE" },
	{ KVM_GET_LAPIC, KVM_SET_LAPIC, offsetof(struct vcpu_state, lapic), true, "LAPIC" },
	{ KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, offsetof(struct vcpu_state, events), true,
	  "VCPU_EVENTS" },
	{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, offsetof(struct vcpu_state, debugregs), true,
	  "DEBUGREGS" },
	{ KVM_GET_MP_STATE, KVM_SET_MP_STATE, offsetof(struct vcpu_state, mp), true, "MP_STATE" },
};

static struct kvm_msr_list *vcpu_state_msr_list(struct libkvm *k)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + STATE_MSRS_MAX * sizeof(l->indices[0]));

	if (!l)
		return NULL;
	l->nmsrs = STATE_MSRS_MAX;
	if (libkvm_ioctl(k, KVM_GET_MSR_INDEX_LIST, l) < 0)
		l->nmsrs = 0;
	return l;
}

static void vcpu_state_save_msrs(struct libkvm_vcpu *c, const struct kvm_msr_list *l,
				 struct vcpu_state *s)
{
	for (unsigned i = 0; i < l->nmsrs; i++) {
		uint32_t index = l->indices[i];
		uint64_t v;

		if (index != MSR_TSC && index != MSR_TSC_DEADLINE &&
		    libkvm_get_msr(c, index, &v) == 0)
			s->msr[s->nmsrs++] = (struct vcpu_msr){ index, v };
	}
}

int vcpu_state_save(struct libkvm *k, struct libkvm_vcpu *c, struct vcpu_state **out, struct err *e)
{
	struct kvm_msr_list *l = vcpu_state_msr_list(k);
	struct vcpu_state *s = l ? calloc(1, sizeof(*s) + l->nmsrs * sizeof(s->msr[0])) : NULL;

	if (!s) {
		free(l);
		return err_set(e, ENOMEM, "out of memory for a vCPU's state");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(vcpu_state_rows); i++) {
		int r;

		/* A host without XSAVE gives an empty set of XCRs, and takes none back. */
		if (vcpu_state_rows[i].get == KVM_GET_XCRS && libkvm_check(k, KVM_CAP_XCRS) <= 0)
			continue;
		r = libkvm_vcpu_ioctl(c, vcpu_state_rows[i].get,
				      (char *)s + vcpu_state_rows[i].off);
		if (r >= 0) {
			s->has |= 1u << i;
		} else if (i < 2) { /* without these two nothing works */
			free(l);
			free(s);
			return err_set(e, -r, "KVM_GET_%s: %s", vcpu_state_rows[i].name,
				       strerror(-r));
		}
	}
	vcpu_state_save_msrs(c, l, s);
	free(l);
	*out = s;
	return 0;
}

static int vcpu_state_load_rows(struct libkvm_vcpu *c, const struct vcpu_state *s, bool after,
				struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vcpu_state_rows); i++) {
		int r;

		if (vcpu_state_rows[i].after_msrs != after || !(s->has & 1u << i))
			continue;
		r = libkvm_vcpu_ioctl(c, vcpu_state_rows[i].set,
				      (char *)s + vcpu_state_rows[i].off);
		if (r < 0)
			return err_set(e, -r, "KVM_SET_%s: %s", vcpu_state_rows[i].name,
				       strerror(-r));
	}
	return 0;
}

int vcpu_state_load(struct libkvm_vcpu *c, const struct vcpu_state *s, struct err *e)
{
	int r = vcpu_state_load_rows(c, s, false, e);

	if (r < 0)
		return r;
	/* Some MSRs can be read and not written; their value cannot have changed, either. */
	for (unsigned i = 0; i < s->nmsrs; i++)
		(void)libkvm_set_msr(c, s->msr[i].index, s->msr[i].value);
	r = vcpu_state_load_rows(c, s, true, e);
	(void)libkvm_set_msr(c, MSR_TSC_DEADLINE, 0);
	return r;
}

void vcpu_state_free(struct vcpu_state *s)
{
	free(s);
}

enum { CHIPS = 3 };

struct irqchip_state {
	struct kvm_irqchip chip[CHIPS];
	struct kvm_pit_state2 pit;
};

int irqchip_state_save(struct libkvm_vm *vm, struct irqchip_state **out, struct err *e)
{
	struct irqchip_state *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return err_set(e, ENOMEM, "out of memory");
	for (unsigned i = 0; i < CHIPS && r >= 0; i++) {
		s->chip[i].chip_id = i; /* KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC */
		r = libkvm_vm_ioctl(vm, KVM_GET_IRQCHIP, &s->chip[i]);
	}
	if (r >= 0)
		r = libkvm_vm_ioctl(vm, KVM_GET_PIT2, &s->pit);
	if (r < 0) {
		free(s);
		return err_set(e, -r, "reading the interrupt controllers: %s", strerror(-r));
	}
	*out = s;
	return 0;
}

int irqchip_state_load(struct libkvm_vm *vm, const struct irqchip_state *s, struct err *e)
{
	struct irqchip_state copy = *s; /* the calls take pointers to non-const */
	int r = 0;

	for (unsigned i = 0; i < CHIPS && r >= 0; i++)
		r = libkvm_vm_ioctl(vm, KVM_SET_IRQCHIP, &copy.chip[i]);
	if (r >= 0)
		r = libkvm_vm_ioctl(vm, KVM_SET_PIT2, &copy.pit);
	return r < 0 ? err_set(e, -r, "resetting the interrupt controllers: %s", strerror(-r)) : 0;
}

void irqchip_state_free(struct irqchip_state *s)
{
	free(s);
}
