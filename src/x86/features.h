/*
 * Where CPUID reports the features that gate instructions, so that an engine can turn its CPUID
 * entries into the set of instructions it accepts.
 *
 * References: [SDM2A CPUID], [APM3 E].
 * Threads:    constant tables.
 */
#pragma once
#include <stdint.h>

#include "x86/insn.h"

/* One bit of CPUID. */
struct insn_feature_bit {
	uint32_t leaf;
	uint32_t subleaf;
	uint8_t reg; /* 0 EAX, 1 EBX, 2 ECX, 3 EDX */
	uint8_t bit;
	const char *name; /* as /proc/cpuinfo spells it */
};

/* Indexed by enum insn_feature. The entry of BASE has leaf 0, bit 0 and name "base". */
extern const struct insn_feature_bit insn_feature_bit[INSN_FEATURES];

/* Name of a feature as /proc/cpuinfo spells it, "base" for BASE. Never NULL; any thread. */
const char *insn_feature_name(enum insn_feature feature);
