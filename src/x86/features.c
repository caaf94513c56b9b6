/*
 * The table of CPUID feature bits, built from features.def.
 *
 * References: [SDM2A CPUID], [APM3 E].
 * Threads:    constant tables.
 */
#include "x86/features.h"

const struct insn_feature_bit insn_feature_bit[INSN_FEATURES] = {
	[BASE] = { .name = "base" },
#define FEATURE(id, leaf, subleaf, reg, bit, name) [id] = { leaf, subleaf, reg, bit, name },
#include "x86/features.def"
#undef FEATURE
};

const char *insn_feature_name(enum insn_feature feature)
{
	return (unsigned)feature < INSN_FEATURES ? insn_feature_bit[feature].name : "?";
}
