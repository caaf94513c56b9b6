/*
 * Debug registers: breakpoints, DR7 and DR6, guest debugging by user space.
 *
 * Modelled:     instruction, data and I/O breakpoints, general detect, single step; user space's
 *               breakpoints instead of the guest's (KVM_GUESTDBG_USE_HW_BP), its single step, and
 *               software breakpoints. Debug registers accessed as DR4 and DR5 while CR4.DE is 0.
 * Not modelled: branch steps (DEBUGCTL.BTF), RTM.
 * References:   [SDM3 18.2, 18.3], [SDM2B MOV DR], [KVM-API "KVM_SET_GUEST_DEBUG"].
 * Threads:      the vCPU's own.
 */
#include "kvm/x86/interp/debug.h"

#include "kvm/x86/interp/exec.h"

enum { DEBUG_EXEC, DEBUG_WRITE, DEBUG_IO, DEBUG_ACCESS }; /* R/W field of DR7 */

static bool debug_by_user(const struct vcpu *v, uint32_t what)
{
	return (v->guest_debug & KVM_GUESTDBG_ENABLE) && (v->guest_debug & what);
}

/* The breakpoints in force: user space's take the place of the guest's. */
static uint64_t debug_dr7(const struct vcpu *v)
{
	return debug_by_user(v, KVM_GUESTDBG_USE_HW_BP) ? v->gdb_dr7 : v->dr7;
}

static uint64_t debug_address(const struct vcpu *v, unsigned n)
{
	return debug_by_user(v, KVM_GUESTDBG_USE_HW_BP) ? v->gdb_dr[n] : v->dr[n];
}

bool debug_armed(const struct vcpu *v)
{
	return debug_dr7(v) & DR7_ENABLES;
}

/* ---- Matching ------------------------------------------------------------------------------- */

/* B0..B3 of enabled breakpoints whose kind is in kinds (bit n: R/W = n) and that touch the range.
 */
static uint64_t debug_match(const struct vcpu *v, uint64_t at, unsigned size, unsigned kinds)
{
	uint64_t dr7 = debug_dr7(v), hits = 0;

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = dr7 >> (16 + 4 * n) & 3, len = dr7 >> (18 + 4 * n) & 3;
		uint64_t start = debug_address(v, n), bytes;

		if (!(dr7 >> (2 * n) & 3) || !(kinds >> kind & 1))
			continue;
		bytes = len == 2 ? 8 : len + 1;
		if (kind == DEBUG_EXEC)
			bytes = 1;
		start &= ~(bytes - 1);
		if (at < start + bytes && start < at + size)
			hits |= BIT(n);
	}
	return hits;
}

void debug_check_data(struct vcpu *v, gva_t la, unsigned size, bool write)
{
	if (debug_armed(v))
		v->db_hits |= debug_match(v, la, size,
					  1u << DEBUG_ACCESS | (write ? 1u << DEBUG_WRITE : 0));
}

void debug_check_io(struct vcpu *v, uint16_t port, unsigned size)
{
	if (debug_armed(v) && (v->cr4 & CR4_DE))
		v->db_hits |= debug_match(v, port, size, 1u << DEBUG_IO);
}

/* ---- Events --------------------------------------------------------------------------------- */

/* Leave with KVM_EXIT_DEBUG at the next boundary. */
static void debug_leave(struct vcpu *v, unsigned vec, uint64_t dr6)
{
	struct kvm_debug_exit_arch *d = &v->run->debug.arch;

	*d = (struct kvm_debug_exit_arch){
		.exception = vec,
		.pc = v->seg_base[SEG_CS] + v->r[REG_RIP],
		.dr6 = dr6 | DR6_FIXED,
		.dr7 = debug_dr7(v),
	};
	v->debug_exit = true;
}

/* B0..B3 as DR6 reports them: the new ones take the place of the old, the rest accumulates. */
static void debug_set_dr6(struct vcpu *v, uint64_t bits)
{
	v->dr6 = (v->dr6 & ~0xfull) | bits;
}

static void debug_pend(struct vcpu *v, uint64_t bits)
{
	debug_set_dr6(v, bits);
	v->ev.exc_pending = true;
	v->ev.exc_injected = false;
	v->ev.exc_vec = VEC_DB;
	v->ev.exc_has_error = false;
	v->ev.exc_error = 0;
	v->ev.exc_payload = bits;
}

void debug_task_trap(struct vcpu *v)
{
	debug_pend(v, DR6_BT);
}

/* bits that user space has asked for go to it, any other make a #DB of the guest's. */
static void debug_event(struct vcpu *v, uint64_t bits)
{
	uint64_t mine = 0;

	if (debug_by_user(v, KVM_GUESTDBG_SINGLESTEP))
		mine |= DR6_BS;
	if (debug_by_user(v, KVM_GUESTDBG_USE_HW_BP))
		mine |= 0xf;
	if (bits & mine)
		debug_leave(v, VEC_DB, bits);
	else
		debug_pend(v, bits);
}

bool debug_check_exec(struct vcpu *v)
{
	gva_t la = v->seg_base[SEG_CS] + v->r[REG_RIP];
	uint64_t hits;

	if ((v->rflags & RF_RF) || !debug_armed(v))
		return false;
	if (!v->long64)
		la = (uint32_t)la;
	hits = debug_match(v, la, 1, 1u << DEBUG_EXEC);
	/* MOV SS and POP SS hold instruction breakpoints back until after the next instruction */
	if (!hits || (v->ev.shadow & SHADOW_MOV_SS))
		return false;
	debug_event(v, hits);
	return true;
}

void debug_after_insn(struct vcpu *v, bool tf)
{
	uint64_t bits = v->db_hits;

	tf = tf && !v->no_trap;
	v->no_trap = false;
	/* a breakpoint instruction that has already stopped, or one that raised its own exception
	 */
	if (v->debug_exit || v->ev.exc_pending)
		return;
	/* after MOV SS the trap waits for the next instruction, and data breakpoints with it */
	if ((v->ev.shadow & SHADOW_MOV_SS) && !debug_by_user(v, KVM_GUESTDBG_SINGLESTEP))
		return;
	v->db_hits = 0;
	if (tf || debug_by_user(v, KVM_GUESTDBG_SINGLESTEP))
		bits |= DR6_BS;
	if (bits)
		debug_event(v, bits);
}

bool debug_intercept(struct vcpu *v, unsigned vec)
{
	uint64_t bits;

	/* what user space injects is for the guest */
	if (v->ev.exc_injected)
		return false;
	if (vec == VEC_BP) {
		if (!debug_by_user(v, KVM_GUESTDBG_USE_SW_BP))
			return false;
		bits = 0;
	} else if (vec == VEC_DB && v->ev.exc_payload == DR6_BD) {
		/* general detect is the only #DB not sorted out by debug_event() */
		if (!debug_by_user(v, KVM_GUESTDBG_USE_HW_BP))
			return false;
		bits = DR6_BD;
	} else {
		return false;
	}
	v->ev.exc_pending = false;
	debug_leave(v, vec, bits);
	return true;
}

bool debug_int3(struct vcpu *v)
{
	if (!debug_by_user(v, KVM_GUESTDBG_USE_SW_BP))
		return false;
	v->r[REG_RIP] = v->insn_rip;
	debug_leave(v, VEC_BP, 0);
	return true;
}

/* ---- MOV DRn -------------------------------------------------------------------------------- */

/* Number after aliasing, or #UD; then general detect. */
static unsigned debug_register(struct vcpu *v, const struct insn *i)
{
	unsigned n = i->reg;

	if (n >= 8)
		throw_ud(v);
	if (n == 4 || n == 5) {
		if (v->cr4 & CR4_DE)
			throw_ud(v);
		n += 2;
	}
	if (v->dr7 & DR7_GD) {
		v->dr6 |= DR6_BD;
		v->ev.exc_payload = DR6_BD;
		vcpu_throw(v, VEC_DB);
	}
	return n;
}

EXEC(MOV_RyDy)
{
	unsigned n = debug_register(v, i);
	uint64_t val = n == 6 ? v->dr6 : n == 7 ? v->dr7 : v->dr[n];

	reg_set(v, i->rm, v->long64 ? 8 : 4, val);
}

EXEC(MOV_DyRy)
{
	unsigned n = debug_register(v, i);
	uint64_t val = reg_get(v, i->rm, v->long64 ? 8 : 4);

	if (n < 4) {
		v->dr[n] = val;
	} else if (val >> 32) {
		throw_gp(v, 0);
	} else if (n == 6) {
		v->dr6 = DR6_FIXED | (val & DR6_ROM);
	} else {
		v->dr7 = DR7_FIXED | (val & DR7_ROM);
		mmu_flush_all(v); /* pages with data breakpoints must miss the TLB from now on */
		vcpu_update_mode(v);
	}
}
