/*
 * CPUID: what a guest can be offered, and what user space has set.
 *
 * The offer is the host's CPUID cut down to what the engine implements. Instructions that the
 * engine computes itself are offered whether the host has them or not; those it runs on the host's
 * units only where the host has them.
 *
 * Modelled:     leaves 0-0xd, 0x40000000-1, 0x80000000-8, 0x1d, 0x1e, 0x21.
 * Not modelled: AVX-512, AMX, VMX, SVM, MWAIT, performance counters, supervisor XSAVE states,
 *               5-level paging, SGX, memory encryption: not offered.
 * Note:         CPUID can trap to a hypervisor below us, so the host's is read once a process.
 * References:   [SDM2A CPUID], [APM3 E], [KVM-API 4.46], [KVM-CPUID].
 * Threads:      any; vcpu_set_cpuid: v->lock held.
 */
#include <asm/kvm_para.h>
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/block.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/mmu.h"
#include "kvm/x86/state.h"
#include "x86/features.h"

#define CPUID_MAX_ENTRIES 256 /* the kernel's limit for user space */
#define CPUID_MAX_BASIC   0xd
#define CPUID_MAX_EXT     0x80000021

enum { CPUID_TABLE = 64 };

struct cpuid_table {
	struct kvm_cpuid_entry2 e[CPUID_TABLE];
	uint32_t n;
	bool amd;
};

/* Features whose instructions the engine computes without the host's. */
static bool cpuid_is_soft(enum insn_feature f)
{
	switch (f) {
	case BASE:
	case FEAT_TSC:
	case FEAT_MSR:
	case FEAT_CX8:
	case FEAT_SEP:
	case FEAT_CMOV:
	case FEAT_CLFLUSH:
	case FEAT_CX16:
	case FEAT_MOVBE:
	case FEAT_XSAVE:
	case FEAT_FSGSBASE:
	case FEAT_INVPCID:
	case FEAT_SMAP:
	case FEAT_CLFLUSHOPT:
	case FEAT_CLWB:
	case FEAT_PKU:
	case FEAT_RDPID:
	case FEAT_XSAVEOPT:
	case FEAT_XSAVEC:
	case FEAT_XGETBV1:
	case FEAT_LAHF:
	case FEAT_PREFETCHW:
	case FEAT_SYSCALL:
	case FEAT_RDTSCP:
	case FEAT_LM:
	case FEAT_WBNOINVD: return true;
	default: return false;
	}
}

/* In the table because decoder and disassembler know them, but not run. */
static bool cpuid_is_refused(enum insn_feature f)
{
	return f == FEAT_MONITOR || f == FEAT_XSAVES || f == FEAT_SVM;
}

static uint32_t *cpuid_reg(struct kvm_cpuid_entry2 *e, unsigned reg)
{
	uint32_t *const r[4] = { &e->eax, &e->ebx, &e->ecx, &e->edx };

	return r[reg & 3];
}

static struct kvm_cpuid_entry2 cpuid_host(uint32_t leaf, uint32_t sub)
{
	struct kvm_cpuid_entry2 e = { .function = leaf, .index = sub };

	if (leaf <= (unsigned)__get_cpuid_max(leaf & 0x80000000, NULL))
		__cpuid_count(leaf, sub, e.eax, e.ebx, e.ecx, e.edx);
	return e;
}

/* Features of insn.def that are offered of this leaf, in the entry's own registers. */
static void cpuid_insn_features(struct kvm_cpuid_entry2 *e, const struct kvm_cpuid_entry2 *host)
{
	for (unsigned f = 1; f < INSN_FEATURES; f++) {
		const struct insn_feature_bit *b = &insn_feature_bit[f];
		struct kvm_cpuid_entry2 h = *host;

		if (b->leaf != e->function || b->subleaf != e->index || cpuid_is_refused(f))
			continue;
		if (cpuid_is_soft(f) || (*cpuid_reg(&h, b->reg) & BIT(b->bit)))
			*cpuid_reg(e, b->reg) |= (uint32_t)BIT(b->bit);
	}
}

static struct kvm_cpuid_entry2 *cpuid_add(struct cpuid_table *t, uint32_t leaf, uint32_t sub,
					  bool indexed)
{
	struct kvm_cpuid_entry2 *e = &t->e[t->n++];

	*e = (struct kvm_cpuid_entry2){ .function = leaf, .index = sub };
	if (indexed)
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	return e;
}

static void cpuid_add_raw(struct cpuid_table *t, uint32_t leaf)
{
	struct kvm_cpuid_entry2 h = cpuid_host(leaf, 0), *e = cpuid_add(t, leaf, 0, false);

	h.flags = e->flags;
	*e = h;
}

static void cpuid_leaf1(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 h = cpuid_host(1, 0), *e = cpuid_add(t, 1, 0, false);

	cpuid_insn_features(e, &h);
	e->eax = h.eax;
	e->ebx = 8u << 8; /* CLFLUSH line of 64 bytes; APIC id and count are user space's */
	/* PCID, x2APIC, TSC-deadline, hypervisor present. OSXSAVE follows CR4. */
	e->ecx |= (uint32_t)(BIT(17) | BIT(21) | BIT(24) | BIT(31));
	/* VME DE PSE PAE MCE APIC MTRR PGE MCA PAT PSE36 */
	e->edx |= (uint32_t)(BIT(1) | BIT(2) | BIT(3) | BIT(6) | BIT(7) | BIT(9) | BIT(12) |
			     BIT(13) | BIT(14) | BIT(16) | BIT(17));
}

/* Cache parameters: each cache belongs to one processor, whatever the host shares. */
static void cpuid_caches(struct cpuid_table *t, uint32_t leaf)
{
	for (uint32_t i = 0; i < 8; i++) {
		struct kvm_cpuid_entry2 h = cpuid_host(leaf, i), *e;

		e = cpuid_add(t, leaf, i, true);
		if (!(h.eax & 31))
			break;
		e->eax = h.eax & 0x3fff;
		e->ebx = h.ebx;
		e->ecx = h.ecx;
		e->edx = h.edx;
	}
}

static void cpuid_leaf7(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 h = cpuid_host(7, 0), *e = cpuid_add(t, 7, 0, true);

	cpuid_insn_features(e, &h);
	e->ebx |= (uint32_t)(BIT(1) | BIT(7) | BIT(9)); /* TSC_ADJUST SMEP ERMS */
	e->ecx |= (uint32_t)BIT(2);                     /* UMIP */
	e->edx |= (uint32_t)BIT(4);                     /* FSRM */
	/* ARCH_CAPABILITIES says that Intel's speculation defects are not here: nothing speculates.
	 */
	if (!t->amd)
		e->edx |= (uint32_t)BIT(29);
}

static void cpuid_leaf_d(struct cpuid_table *t)
{
	uint64_t xcr0 = fpu_supported_xcr0();
	struct kvm_cpuid_entry2 h = { 0 }, *e = cpuid_add(t, 0xd, 0, true);

	e->eax = (uint32_t)xcr0;
	e->edx = (uint32_t)(xcr0 >> 32);
	e->ebx = e->ecx = fpu_xsave_size(xcr0);
	e = cpuid_add(t, 0xd, 1, true);
	cpuid_insn_features(e, &h);
	for (unsigned i = 2; i < XFEATURES; i++) {
		struct fpu_component c = fpu_component(i);

		if (!c.size || !(xcr0 & BIT(i)))
			continue;
		e = cpuid_add(t, 0xd, i, true);
		e->eax = c.size;
		e->ebx = c.offset;
		e->ecx = c.align64 ? 2 : 0;
	}
}

static void cpuid_kvm_leaves(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 *e = cpuid_add(t, KVM_CPUID_SIGNATURE, 0, false);

	e->eax = KVM_CPUID_FEATURES;
	memcpy(&e->ebx, "KVMK", 4);
	memcpy(&e->ecx, "VMKV", 4);
	memcpy(&e->edx, "M\0\0", 4);
	e = cpuid_add(t, KVM_CPUID_FEATURES, 0, false);
	e->eax =
		(uint32_t)(BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) |
			   BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT));
}

static void cpuid_ext1(struct cpuid_table *t)
{
	const uint32_t mirrored = 0x0183f3ff; /* bits of leaf 1 EDX that AMD repeats here */
	struct kvm_cpuid_entry2 h = cpuid_host(0x80000001, 0),
				*e = cpuid_add(t, 0x80000001, 0, false);

	cpuid_insn_features(e, &h);
	e->eax = h.eax;
	e->edx |= (uint32_t)(BIT(20) | BIT(26)); /* NX, 1-GiB pages */
	if (t->amd) {
		e->edx |= t->e[1].edx & mirrored;
		e->edx |= (uint32_t)BIT(22); /* MMXEXT is part of SSE */
		e->ecx |= (uint32_t)BIT(22); /* topology leaf 0x8000001e */
	}
}

static void cpuid_ext8(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 h = cpuid_host(0x80000008, 0),
				*e = cpuid_add(t, 0x80000008, 0, false);
	uint32_t phys = h.eax & 0xff;

	cpuid_insn_features(e, &h);
	/* Our own page walker, not the host's: up to the architecture's 52 bits. */
	e->eax = (phys >= 36 && phys <= 52 ? phys : 40) | 48 << 8;
	/* Not affected: speculative store bypass (26), branch type confusion (29). */
	if (t->amd)
		e->ebx |= (uint32_t)(BIT(26) | BIT(29));
}

static void cpuid_ext21(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 *e = cpuid_add(t, 0x80000021, 0, false);

	/*
	 * LFENCE serialises (2), a null selector clears the base (6), automatic IBRS (8), no
	 * speculative return stack overflow (29), no transient scheduler attacks (ecx 1, 2): so
	 * that kernels leave their workarounds out, which cost much on an engine that has nothing
	 * to work around.
	 */
	e->eax = (uint32_t)(BIT(2) | BIT(6) | BIT(8) | BIT(29));
	e->ecx = (uint32_t)(BIT(1) | BIT(2));
}

static void cpuid_build(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 h = cpuid_host(0, 0), *e;

	t->amd = h.ebx != signature_INTEL_ebx;
	e = cpuid_add(t, 0, 0, false);
	*e = h;
	e->eax = CPUID_MAX_BASIC;
	cpuid_leaf1(t);
	cpuid_add_raw(t, 2);
	if (!t->amd)
		cpuid_caches(t, 4);
	else
		cpuid_add(t, 4, 0, true);
	cpuid_add(t, 5, 0, false);          /* no MONITOR */
	cpuid_add(t, 6, 0, false)->eax = 4; /* the APIC timer always runs */
	cpuid_leaf7(t);
	cpuid_add(t, 0xb, 0, true); /* topology is user space's to say */
	cpuid_leaf_d(t);
	cpuid_kvm_leaves(t);
	*cpuid_add(t, 0x80000000, 0, false) = (struct kvm_cpuid_entry2){
		.function = 0x80000000,
		.eax = t->amd ? CPUID_MAX_EXT : 0x80000008,
		.ebx = t->amd ? h.ebx : 0,
		.ecx = t->amd ? h.ecx : 0,
		.edx = t->amd ? h.edx : 0,
	};
	cpuid_ext1(t);
	for (uint32_t l = 0x80000002; l <= 0x80000006; l++)
		cpuid_add_raw(t, l);
	cpuid_add(t, 0x80000007, 0, false)->edx = 1u << 8; /* invariant TSC */
	cpuid_ext8(t);
	if (!t->amd)
		return;
	cpuid_caches(t, 0x8000001d);
	cpuid_add(t, 0x8000001e, 0, false);
	cpuid_ext21(t);
}

/* The offer depends on the host alone: one for the process. */
static const struct cpuid_table *cpuid_table(void)
{
	static struct cpuid_table table;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static atomic_bool built;

	if (!atomic_load(&built)) {
		pthread_mutex_lock(&lock);
		if (!atomic_load(&built)) {
			cpuid_build(&table);
			atomic_store(&built, true);
		}
		pthread_mutex_unlock(&lock);
	}
	return &table;
}

int kvm_cpuid_supported(struct kvm_cpuid2 *c)
{
	const struct cpuid_table *t = cpuid_table();

	if (c->nent < t->n)
		return -E2BIG;
	memcpy(c->entries, t->e, t->n * sizeof(t->e[0]));
	c->nent = t->n;
	return 0;
}

int kvm_cpuid_emulated(struct kvm_cpuid2 *c)
{
	/* Nothing is emulated that is not offered; the kernel then gives one empty list. */
	if (c->nent < 1)
		return -E2BIG;
	c->nent = 0;
	return 0;
}

/* ---- What a vCPU has ------------------------------------------------------------------------ */

static const struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid_entry2 *e, uint32_t n,
						 uint32_t leaf, uint32_t sub)
{
	for (uint32_t i = 0; i < n; i++)
		if (e[i].function == leaf &&
		    (!(e[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e[i].index == sub))
			return &e[i];
	return NULL;
}

static bool cpuid_bit(const struct kvm_cpuid_entry2 *e, uint32_t n, uint32_t leaf, unsigned reg,
		      unsigned bit)
{
	const struct kvm_cpuid_entry2 *f = cpuid_find(e, n, leaf, 0);
	struct kvm_cpuid_entry2 copy;

	if (!f)
		return false;
	copy = *f;
	return *cpuid_reg(&copy, reg) >> bit & 1;
}

/* Instructions: what the guest is told, of what the engine can run here. */
static void cpuid_features(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	const struct cpuid_table *t = cpuid_table();

	memset(v->features, 0, sizeof(v->features));
	v->features[0] |= BIT(BASE);
	for (unsigned f = 1; f < INSN_FEATURES; f++) {
		const struct insn_feature_bit *b = &insn_feature_bit[f];
		const struct kvm_cpuid_entry2 *can = cpuid_find(t->e, t->n, b->leaf, b->subleaf);
		const struct kvm_cpuid_entry2 *set = cpuid_find(e, n, b->leaf, b->subleaf);
		struct kvm_cpuid_entry2 c, s;

		if (!can || !set)
			continue;
		c = *can;
		s = *set;
		if (*cpuid_reg(&c, b->reg) & *cpuid_reg(&s, b->reg) & BIT(b->bit))
			v->features[f / 64] |= BIT(f % 64);
	}
}

static void cpuid_controls(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	static const struct {
		uint64_t cr4;
		uint8_t leaf, reg, bit;
	} gate[] = {
		{ CR4_PCIDE, 1, 2, 17 }, { CR4_OSXSAVE, 1, 2, 26 }, { CR4_FSGSBASE, 7, 1, 0 },
		{ CR4_SMEP, 7, 1, 7 },   { CR4_SMAP, 7, 1, 20 },    { CR4_UMIP, 7, 2, 2 },
		{ CR4_PKE, 7, 2, 3 },
	};
	uint64_t ok = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
		      CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

	for (unsigned i = 0; i < ARRAY_SIZE(gate); i++)
		if (cpuid_bit(e, n, gate[i].leaf, gate[i].reg, gate[i].bit))
			ok |= gate[i].cr4;
	v->cr4_reserved = ~ok;
}

static void cpuid_addresses(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	const struct kvm_cpuid_entry2 *a = cpuid_find(e, n, 0x80000008, 0);
	uint8_t phys = a ? a->eax & 0xff : 36;

	v->maxphyaddr = phys < 32 ? 36 : phys > 52 ? 52 : phys;
	v->gpa_reserved = bits(~0ull, 51, 0) & ~(BIT(v->maxphyaddr) - 1);
}

static int cpuid_install(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	struct kvm_cpuid_entry2 *copy = NULL;

	if (n) {
		copy = malloc(n * sizeof(*copy));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, e, n * sizeof(*copy));
	}
	free(v->cpuid);
	v->cpuid = copy;
	v->ncpuid = n;
	cpuid_features(v, copy, n);
	cpuid_controls(v, copy, n);
	cpuid_addresses(v, copy, n);
	return 0;
}

void vcpu_default_cpuid(struct vcpu *v)
{
	const struct cpuid_table *t = cpuid_table();

	/* A processor runs what it can before user space says what CPUID shows, which is nothing.
	 */
	cpuid_features(v, t->e, t->n);
	cpuid_controls(v, t->e, t->n);
	cpuid_addresses(v, NULL, 0);
}

static bool cpuid_acceptable(const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	const struct kvm_cpuid_entry2 *a = cpuid_find(e, n, 0x80000008, 0);
	unsigned virt = a ? a->eax >> 8 & 0xff : 0;

	return !virt || virt == 48 || virt == 57;
}

int vcpu_set_cpuid(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n)
{
	int r;

	if (n > CPUID_MAX_ENTRIES)
		return -E2BIG;
	/* Once the guest has run, only the same again. */
	if (vcpu_has_run(v))
		return n == v->ncpuid && !memcmp(e, v->cpuid, n * sizeof(*e)) ? 0 : -EINVAL;
	if (!cpuid_acceptable(e, n))
		return -EINVAL;
	r = cpuid_install(v, e, n);
	if (!r) {
		mmu_flush_all(v);
		block_cache_flush(v);
		vcpu_update_mode(v);
	}
	return r;
}

int vcpu_get_cpuid(struct vcpu *v, struct kvm_cpuid2 *c)
{
	if (c->nent < v->ncpuid)
		return -E2BIG;
	if (v->ncpuid)
		memcpy(c->entries, v->cpuid, v->ncpuid * sizeof(*v->cpuid));
	c->nent = v->ncpuid;
	return 0;
}
