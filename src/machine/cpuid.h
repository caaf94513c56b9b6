/*
 * The CPUID table of a vCPU: what the engine supports, with the topology of -smp and the features
 * of -cpu. Threads: pure.
 */
#pragma once
#include <libkvm.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "machine/config.h"

/* APIC id of processor index: socket, core and thread in bit fields of their own. */
uint32_t cpuid_apic_id(const struct smp_config *smp, unsigned index);

/*
 * supported: from the engine. tsc_deadline: the LAPIC timer has that mode. The result is allocated
 * and belongs to the caller. Errors: an unknown feature, or one that the engine does not have.
 */
int cpuid_build(const struct machine_config *cfg, const struct kvm_cpuid2 *supported,
		unsigned index, bool tsc_deadline, struct kvm_cpuid2 **out,
		struct err *e) must_check;

/* Check the spelling of one feature of -cpu before there is an engine. */
int cpuid_check_feature(const char *name, struct err *e) must_check;

/* Names of all features, for -cpu help. */
void cpuid_help(FILE *out);
