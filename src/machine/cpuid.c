/*
 * CPUID tables; see cpuid.h.
 *
 * Modelled: APIC ids and counts in leaves 1, 4, Bh, 1Fh, 80000008h, 8000001Dh, 8000001Eh; the
 * hypervisor bit; feature bits of -cpu. Everything else is what the engine reports, the KVM leaves
 * at 40000000h included.
 * References: [SDM3 9.9.1 "Hierarchical Mapping of Shared Resources"], [SDM2A CPUID], [APM3 E.4].
 */
#include "machine/cpuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/nearest.h"

enum { CPUID_SPARE = 8, CPUID_TYPE_SMT = 1, CPUID_TYPE_CORE = 2 };

struct cpuid_feature {
	const char *name;
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
};

static const struct cpuid_feature cpuid_features[] = {
#define CPU_FEATURE(name, leaf, subleaf, reg, bit) { name, leaf, subleaf, reg, bit },
#include "machine/cpu_features.def"
#undef CPU_FEATURE
};

/* Bits needed for n different values. */
static unsigned cpuid_width(unsigned n)
{
	unsigned w = 0;

	while (1u << w < n)
		w++;
	return w;
}

uint32_t cpuid_apic_id(const struct smp_config *smp, unsigned index)
{
	unsigned tw = cpuid_width(smp->threads), cw = cpuid_width(smp->cores);
	unsigned thread = index % smp->threads, core = index / smp->threads % smp->cores;

	return index / (smp->threads * smp->cores) << (tw + cw) | core << tw | thread;
}

/* The entry, or NULL. */
static struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *t, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < t->nent; i++)
		if (t->entries[i].function == leaf && t->entries[i].index == subleaf)
			return &t->entries[i];
	return NULL;
}

/* The entry, made if need be; there are CPUID_SPARE places for those made. */
static struct kvm_cpuid_entry2 *cpuid_get(struct kvm_cpuid2 *t, uint32_t leaf, uint32_t subleaf)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, leaf, subleaf);

	if (!c) {
		c = &t->entries[t->nent++];
		*c = (struct kvm_cpuid_entry2){ .function = leaf, .index = subleaf };
	}
	return c;
}

static void cpuid_drop(struct kvm_cpuid2 *t, uint32_t leaf)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nent; i++)
		if (t->entries[i].function != leaf)
			t->entries[n++] = t->entries[i];
	t->nent = n;
}

/* Cache leaves 4 and 8000001Dh: who shares what. L1 and L2 belong to a core, L3 to a package. */
static void cpuid_caches(struct kvm_cpuid2 *t, const struct smp_config *smp)
{
	unsigned core = (1u << cpuid_width(smp->threads)) - 1;
	unsigned package = (1u << (cpuid_width(smp->threads) + cpuid_width(smp->cores))) - 1;
	unsigned cores = (1u << cpuid_width(smp->cores)) - 1;

	for (unsigned i = 0; i < t->nent; i++) {
		struct kvm_cpuid_entry2 *c = &t->entries[i];
		unsigned sharing = bits(c->eax, 7, 5) >= 3 ? package : core;

		if ((c->function != 4 && c->function != 0x8000001d) || !(c->eax & 0x1f))
			continue;
		c->eax = (c->eax & 0x3fff) | sharing << 14;
		if (c->function == 4)
			c->eax |= cores << 26;
	}
}

static void cpuid_topology(struct kvm_cpuid2 *t, const struct smp_config *smp, uint32_t id)
{
	unsigned tw = cpuid_width(smp->threads), cw = cpuid_width(smp->cores);
	unsigned logical = smp->threads * smp->cores;
	struct kvm_cpuid_entry2 *c = cpuid_get(t, 0, 0);

	c->eax = MAX(c->eax, 0xbu);
	c = cpuid_get(t, 1, 0);
	c->ebx = (c->ebx & 0xffff) | (1u << (tw + cw)) << 16 | id << 24;
	c->edx = logical > 1 ? c->edx | 1u << 28 : c->edx & ~(1u << 28);
	cpuid_caches(t, smp);
	/* Leaf 1Fh says the same as Bh when there are no dies; without it systems read Bh. */
	cpuid_drop(t, 0x1f);
	cpuid_drop(t, 0xb);
	*cpuid_get(t, 0xb, 0) = (struct kvm_cpuid_entry2){
		0xb, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, tw, smp->threads, CPUID_TYPE_SMT << 8, id,
	};
	*cpuid_get(t, 0xb, 1) = (struct kvm_cpuid_entry2){
		0xb, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, tw + cw, logical, 1 | CPUID_TYPE_CORE << 8,
		id,
	};
	*cpuid_get(t, 0xb, 2) = (struct kvm_cpuid_entry2){
		0xb, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0, 0, 2, id,
	};
	c = cpuid_find(t, 0x80000008, 0);
	if (c)
		c->ecx = (c->ecx & ~0xf0ffu) | (logical - 1) | (tw + cw) << 12;
	c = cpuid_find(t, 0x8000001e, 0);
	if (c) {
		c->eax = id;
		c->ebx = (id >> tw & 0xff) | (smp->threads - 1) << 8;
		c->ecx = id >> (tw + cw) & 0xff; /* one node a package */
	}
	/* CmpLegacy: AMD parts without the topology extension count cores, not threads. */
	c = cpuid_find(t, 0x80000001, 0);
	if (c && cpuid_find(t, 0x8000001e, 0))
		c->ecx = logical > 1 ? c->ecx | 2 : c->ecx & ~2u;
}

static const struct cpuid_feature *cpuid_feature(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(cpuid_features)];
	char hint[96], want[48];
	size_t n = strlen(name);

	for (size_t i = 0; i <= n && i < sizeof(want); i++)
		want[i] = name[i] == '_' ? '-' : name[i];
	want[sizeof(want) - 1] = 0;
	if (!strcmp(want, "sse4-1") || !strcmp(want, "sse4-2"))
		want[4] = '.';
	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++) {
		names[i] = cpuid_features[i].name;
		if (!strcmp(want, names[i]))
			return &cpuid_features[i];
	}
	err_set(e, EINVAL, "-cpu: unknown feature '%s'%s; -cpu help lists them", name,
		text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	return NULL;
}

int cpuid_check_feature(const char *name, struct err *e)
{
	return cpuid_feature(name, e) ? 0 : -EINVAL;
}

/* The register that holds a feature, or NULL. */
static uint32_t *cpuid_reg(struct kvm_cpuid2 *t, const struct cpuid_feature *f)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, f->leaf, f->subleaf);

	if (!c)
		return NULL;
	return f->reg == 0 ? &c->eax : f->reg == 1 ? &c->ebx : f->reg == 2 ? &c->ecx : &c->edx;
}

/* text: "+name" or "-name". */
static int cpuid_apply(struct kvm_cpuid2 *t, const struct kvm_cpuid2 *supported, const char *text,
		       struct err *e)
{
	const struct cpuid_feature *f = cpuid_feature(text + 1, e);
	uint32_t *reg, *has;

	if (!f)
		return -EINVAL;
	reg = cpuid_reg(t, f);
	has = cpuid_reg((struct kvm_cpuid2 *)supported, f);
	if (*text == '-') {
		if (reg)
			*reg &= ~(1u << f->bit);
		return 0;
	}
	/* What cpuid_build itself sets (hypervisor, tsc-deadline) is there, too. */
	if (!reg || !((has ? *has : 0) & 1u << f->bit || *reg & 1u << f->bit))
		return err_set(e, ENOTSUP, "-cpu: this engine does not have the feature '%s'",
			       f->name);
	*reg |= 1u << f->bit;
	return 0;
}

int cpuid_build(const struct machine_config *cfg, const struct kvm_cpuid2 *supported,
		unsigned index, bool tsc_deadline, struct kvm_cpuid2 **out, struct err *e)
{
	size_t size = sizeof(*supported) +
		      (supported->nent + CPUID_SPARE) * sizeof(supported->entries[0]);
	struct kvm_cpuid2 *t = calloc(1, size);
	struct kvm_cpuid_entry2 *c;

	if (!t)
		return err_set(e, ENOMEM, "out of memory for CPUID");
	memcpy(t, supported, sizeof(*t) + supported->nent * sizeof(t->entries[0]));
	c = cpuid_get(t, 1, 0);
	c->ecx |= 1u << 31;    /* hypervisor */
	c->ecx &= ~(1u << 27); /* OSXSAVE follows CR4 */
	if (tsc_deadline)
		c->ecx |= 1u << 24;
	/* Only on request, as in QEMU: it promises that the guest never moves, and an AMD guest
	 * then expects firmware to have set up HWCR. */
	c = cpuid_find(t, 0x80000007, 0);
	if (c)
		c->edx &= ~(1u << 8);
	for (unsigned i = 0; i < cfg->ncpu_features; i++) {
		int r = cpuid_apply(t, supported, cfg->cpu_features[i], e);

		if (r < 0) {
			free(t);
			return r;
		}
	}
	cpuid_topology(t, &cfg->smp, cpuid_apic_id(&cfg->smp, index));
	*out = t;
	return 0;
}

void cpuid_help(FILE *out)
{
	fprintf(out, "Models: max (all the engine has; the default), host (the same).\nFeatures "
		     "(+name, -name, name=on|off):\n");
	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++)
		fprintf(out, "%s%s", cpuid_features[i].name,
			i % 10 == 9 || i + 1 == ARRAY_SIZE(cpuid_features) ? "\n" : " ");
}
