/*
 * CPUID: the entries that user space has set, and the bits that follow the processor's state.
 *
 * Modelled:   ranges beyond the last leaf (Intel: the last basic leaf; AMD: zeros), OSXSAVE, OSPKE,
 *             the APIC bit, sizes of the XSAVE area, levels of leaves 0Bh and 1Fh beyond the last.
 * References: [SDM2A CPUID], [APM3 E], [KVM-API "KVM_SET_CPUID2"].
 * Threads:    the vCPU's own, or the holder of v->lock while it is not running.
 */
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/system.h"

const struct kvm_cpuid_entry2 *vcpu_cpuid_find(const struct vcpu *v, uint32_t leaf, uint32_t index)
{
	for (uint32_t n = 0; n < v->ncpuid; n++) {
		const struct kvm_cpuid_entry2 *e = &v->cpuid[n];

		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
			return e;
	}
	return NULL;
}

bool vcpu_cpuid_bit(const struct vcpu *v, uint32_t leaf, unsigned reg, unsigned bit)
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_find(v, leaf, 0);
	uint32_t r[4];

	if (!e)
		return false;
	r[0] = e->eax, r[1] = e->ebx, r[2] = e->ecx, r[3] = e->edx;
	return r[reg] >> bit & 1;
}

bool vcpu_is_amd(const struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_find(v, 0, 0);

	/* EBX: "Auth", "Hygo" */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

/* Which entry stands for a leaf outside every range, if any. */
static const struct kvm_cpuid_entry2 *cpuid_out_of_range(const struct vcpu *v, uint32_t leaf,
							 uint32_t index)
{
	const struct kvm_cpuid_entry2 *base, *basic = vcpu_cpuid_find(v, 0, 0);

	if (!basic || vcpu_is_amd(v))
		return NULL;
	if (leaf >= 0x40000000 && leaf <= 0x4fffffff)
		base = vcpu_cpuid_find(v, leaf & 0xffffff00, 0);
	else if (leaf >= 0xc0000000)
		base = vcpu_cpuid_find(v, 0xc0000000, 0);
	else
		base = vcpu_cpuid_find(v, leaf & 0x80000000, 0);
	if (base && leaf <= base->eax)
		return NULL; /* a hole inside a range reads as zeros */
	return vcpu_cpuid_find(v, basic->eax, index);
}

/* Bytes of the XSAVE area for components mask; in the compacted format packed one after another. */
static uint32_t cpuid_xsave_size(const struct vcpu *v, uint64_t mask, bool compact)
{
	uint32_t size = 512 + 64;

	for (unsigned n = 2; n < 63; n++) {
		const struct kvm_cpuid_entry2 *e;

		if (!(mask >> n & 1))
			continue;
		e = vcpu_cpuid_find(v, 0xd, n);
		if (!e)
			continue;
		if (!compact) {
			size = MAX(size, e->ebx + e->eax);
		} else {
			if (e->ecx & 2)
				size = (size + 63) & ~63u;
			size += e->eax;
		}
	}
	return size;
}

static void cpuid_set_bit(uint32_t *r, unsigned bit, bool on)
{
	*r = on ? *r | 1u << bit : *r & ~(1u << bit);
}

static void cpuid_dynamic(const struct vcpu *v, uint32_t leaf, uint32_t index, uint32_t out[4])
{
	switch (leaf) {
	case 1:
		if (out[2] & 1u << 26) /* XSAVE */
			cpuid_set_bit(&out[2], 27, v->cr4 & CR4_OSXSAVE);
		cpuid_set_bit(&out[3], 9, v->msr.apic_base & BIT(11));
		break;
	case 7:
		if (index == 0 && (out[2] & 1u << 3)) /* PKU */
			cpuid_set_bit(&out[2], 4, v->cr4 & CR4_PKE);
		break;
	case 0xd:
		if (index == 0)
			out[1] = cpuid_xsave_size(v, v->xcr0, false);
		else if (index == 1 && (out[0] & (1u << 1 | 1u << 3)))
			out[1] = cpuid_xsave_size(v, v->xcr0 | v->msr.xss, true);
		break;
	default: break;
	}
}

void vcpu_cpuid(struct vcpu *v, uint32_t leaf, uint32_t index, uint32_t out[4])
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_find(v, leaf, index);
	bool exact = e;

	if (!e)
		e = cpuid_out_of_range(v, leaf, index);
	out[0] = out[1] = out[2] = out[3] = 0;
	if (e) {
		out[0] = e->eax, out[1] = e->ebx, out[2] = e->ecx, out[3] = e->edx;
		cpuid_dynamic(v, e->function, index, out);
	}
	if (!exact && (leaf == 0xb || leaf == 0x1f)) {
		/* an invalid level still tells the level asked for and the APIC id */
		e = vcpu_cpuid_find(v, leaf, 1);
		if (e) {
			out[2] = index & 0xff;
			out[3] = e->edx;
		}
	}
}

EXEC(CPUID)
{
	uint32_t out[4];

	vcpu_cpuid(v, (uint32_t)v->r[REG_RAX], (uint32_t)v->r[REG_RCX], out);
	v->r[REG_RAX] = out[0];
	v->r[REG_RBX] = out[1];
	v->r[REG_RCX] = out[2];
	v->r[REG_RDX] = out[3];
}
