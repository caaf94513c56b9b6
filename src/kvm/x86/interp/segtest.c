/*
 * Instructions that ask about selectors without loading them: LAR, LSL, VERR, VERW, ARPL.
 *
 * Modelled:   LAR gives bits 23:8 of the descriptor's second dword, limit bits 19:16 included (they
 *             are undefined in the manual).
 * References: [SDM2A ARPL, LAR, LSL], [SDM2C VERR/VERW], [APM3]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"

static void segtest_zf(struct vcpu *v, bool set)
{
	v->fl = (uint16_t)(set ? v->fl | FL_Z : v->fl & ~FL_Z);
}

/*
 * Fetch the descriptor that LAR or LSL looks at and check level and type. types: bit n for each
 * acceptable system type n.
 */
static bool segtest_fetch(struct vcpu *v, uint16_t sel, unsigned types, struct desc *d)
{
	if (seg_null(sel) || !seg_fetch(v, sel, d))
		return false;
	if (!desc_user(d)) {
		if (!(types >> desc_type(d) & 1) || !seg_fetch_sys(v, sel, d))
			return false;
	} else if (desc_is_code(d) && desc_conforming(d)) {
		return true;
	}
	return MAX(sel & 3u, (unsigned)v->cpl) <= desc_dpl(d);
}

EXEC(LAR_GvEw)
{
	enum {
		TYPES = 1 << DESC_TSS16 | 1 << DESC_LDT | 1 << DESC_TSS16_BUSY | 1 << DESC_CALL16 |
			1 << DESC_TASK | 1 << DESC_TSS32 | 1 << DESC_TSS32_BUSY | 1 << DESC_CALL32,
		LONG_TYPES =
			1 << DESC_LDT | 1 << DESC_TSS32 | 1 << DESC_TSS32_BUSY | 1 << DESC_CALL32,
	};
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;
	bool ok = segtest_fetch(v, sel, seg_long_mode(v) ? LONG_TYPES : TYPES, &d);

	if (ok)
		reg_set(v, i->reg, i->osize, d.hi & (i->osize == 2 ? 0xff00 : 0xffff00));
	segtest_zf(v, ok);
}

EXEC(LSL_GvEw)
{
	enum {
		TYPES = 1 << DESC_TSS16 | 1 << DESC_LDT | 1 << DESC_TSS16_BUSY | 1 << DESC_TSS32 |
			1 << DESC_TSS32_BUSY,
		LONG_TYPES = 1 << DESC_LDT | 1 << DESC_TSS32 | 1 << DESC_TSS32_BUSY,
	};
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;
	bool ok = segtest_fetch(v, sel, seg_long_mode(v) ? LONG_TYPES : TYPES, &d);

	if (ok)
		reg_set(v, i->reg, i->osize, seg_make(sel, &d).limit);
	segtest_zf(v, ok);
}

EXEC(VERR_Ew)
{
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;
	bool ok = segtest_fetch(v, sel, 0, &d);

	segtest_zf(v, ok && (!desc_is_code(&d) || (desc_type(&d) & SEG_AR_WRITE)));
}

EXEC(VERW_Ew)
{
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;

	segtest_zf(v, segtest_fetch(v, sel, 0, &d) && desc_writable_data(&d));
}

EXEC(ARPL_EwGw)
{
	uint16_t src = (uint16_t)v->r[i->reg];
	uint16_t dst = (uint16_t)rm_get(v, i, 2); /* written only if it has to change */

	if ((dst & 3) < (src & 3)) {
		dst = (uint16_t)((dst & ~3) | (src & 3));
		rm_set(v, i, 2, dst);
		segtest_zf(v, true);
	} else {
		segtest_zf(v, false);
	}
}
