/*
 * Memory-type range registers and the page attribute table.
 *
 * Modelled:     storage and validity. Not modelled: memory types; guest memory is always write-back
 *               and device memory uncached, as it is for a guest of KVM.
 * References:   [SDM3 12.11, 12.12]. Threads: as kvm/x86/msr.h.
 */
#include "kvm/x86/msr.h"
#include "kvm/x86/vcpu.h"

enum {
	MTRR_CAP = 0xfe,
	MTRR_VAR = 0x200,
	MTRR_VAR_LAST = 0x20f,
	MTRR_FIX_64K = 0x250,
	MTRR_FIX_16K = 0x258,
	MTRR_FIX_4K = 0x268,
	MTRR_FIX_LAST = 0x26f,
	MTRR_PAT = 0x277,
	MTRR_DEF = 0x2ff,
};
/* 8 variable ranges, fixed ranges, write combining. */
#define MTRR_CAP_VALUE 0x508ull

static bool mtrr_type_valid(uint8_t type)
{
	return type < 8 && (0x73 >> type & 1); /* UC WC WT WP WB */
}

static bool mtrr_pat_valid(uint8_t type)
{
	return mtrr_type_valid(type) || type == 7; /* UC- */
}

static bool mtrr_all_valid(uint64_t val, bool (*valid)(uint8_t type))
{
	for (unsigned n = 0; n < 8; n++)
		if (!valid((uint8_t)(val >> 8 * n)))
			return false;
	return true;
}

/* The fixed-range register of an index, or NULL. */
static uint64_t *mtrr_fixed(struct vcpu *v, uint32_t index)
{
	if (index == MTRR_FIX_64K)
		return &v->msr.mtrr_fix[0];
	if (index == MTRR_FIX_16K || index == MTRR_FIX_16K + 1)
		return &v->msr.mtrr_fix[1 + index - MTRR_FIX_16K];
	if (index >= MTRR_FIX_4K && index <= MTRR_FIX_LAST)
		return &v->msr.mtrr_fix[3 + index - MTRR_FIX_4K];
	return NULL;
}

static uint64_t *mtrr_variable(struct vcpu *v, uint32_t index)
{
	unsigned n = (index - MTRR_VAR) / 2;

	if (index < MTRR_VAR || index > MTRR_VAR_LAST)
		return NULL;
	return index & 1 ? &v->msr.mtrr_mask[n] : &v->msr.mtrr_base[n];
}

int vcpu_mtrr_get(struct vcpu *v, uint32_t index, uint64_t *val)
{
	uint64_t *p;

	switch (index) {
	case MTRR_CAP: *val = MTRR_CAP_VALUE; return 0;
	case MTRR_PAT: *val = v->msr.pat; return 0;
	case MTRR_DEF: *val = v->msr.mtrr_def; return 0;
	default:
		p = mtrr_fixed(v, index);
		if (!p)
			p = mtrr_variable(v, index);
		if (!p)
			return -1;
		*val = *p;
		return 0;
	}
}

int vcpu_mtrr_set(struct vcpu *v, uint32_t index, uint64_t val)
{
	uint64_t *p;

	switch (index) {
	case MTRR_CAP: return 1;
	case MTRR_PAT:
		if (!mtrr_all_valid(val, mtrr_pat_valid))
			return 1;
		v->msr.pat = val;
		return 0;
	case MTRR_DEF:
		if ((val & ~0xcffull) || !mtrr_type_valid((uint8_t)val))
			return 1;
		v->msr.mtrr_def = val;
		return 0;
	default: break;
	}
	p = mtrr_fixed(v, index);
	if (p) {
		if (!mtrr_all_valid(val, mtrr_type_valid))
			return 1;
		*p = val;
		return 0;
	}
	p = mtrr_variable(v, index);
	if (!p)
		return -1;
	if (v->maxphyaddr < 64 && val >> v->maxphyaddr)
		return 1;
	if (index & 1 ? val & 0x7ff : (val & 0xf00) || !mtrr_type_valid((uint8_t)val))
		return 1;
	*p = val;
	return 0;
}
