/*
 * Debug registers: breakpoints, single step, and their use by KVM_SET_GUEST_DEBUG.
 *
 * The run loop calls these while v->single_step is set (one instruction at a time). An event either
 * becomes a pending #DB in v->ev with DR6 updated, or, when user space debugs the guest, fills
 * run->debug and sets v->debug_exit: the loop then leaves with KVM_EXIT_DEBUG.
 *
 * References: [SDM3 18.2, 18.3], [KVM-API "KVM_SET_GUEST_DEBUG"]. Threads: the vCPU's own.
 */
#pragma once
#include <stdbool.h>

#include "kvm/x86/vcpu.h"

enum {
	DR6_BD = 1 << 13,
	DR6_BS = 1 << 14,
	DR6_BT = 1 << 15,
	DR7_GD = 1 << 13,
	DR7_GE = 1 << 9,
	DR7_LE = 1 << 8,
	DR7_ENABLES = 0xff, /* L0..G3 */
	DR7_LOCALS = 0x155, /* L0..L3, LE */
};
#define DR6_FIXED 0xffff0ff0ull
#define DR6_ROM   0xe00full /* writable */
#define DR7_FIXED 0x400ull
#define DR7_ROM   0xffff23ffull

/* Breakpoints are set that v->single_step must watch for; vcpu_update_mode asks. */
bool debug_armed(const struct vcpu *v);

/* Before an instruction: breakpoints at CS:rIP. True: an event came, the instruction must not run.
 */
bool debug_check_exec(struct vcpu *v);
/*
 * After an instruction: single step (tf: RFLAGS.TF was set at its start) and what v->db_hits has
 * collected, which is cleared.
 */
void debug_after_insn(struct vcpu *v, bool tf);
/*
 * Before an exception is delivered: does user space want it (#DB, #BP)? True: it is no longer
 * pending and v->debug_exit is set.
 */
bool debug_intercept(struct vcpu *v, unsigned vec);

/* The new task's TSS has its T bit set: #DB before its first instruction. */
void debug_task_trap(struct vcpu *v);

/* Collect data breakpoints hit by [la, la + size) in v->db_hits. */
void debug_check_data(struct vcpu *v, gva_t la, unsigned size, bool write);
/* The same for a port, when CR4.DE is set. */
void debug_check_io(struct vcpu *v, uint16_t port, unsigned size);

/*
 * INT3. True: user space has asked for software breakpoints; v->debug_exit is set, rIP stands at
 * the instruction again and the body must return.
 */
bool debug_int3(struct vcpu *v);
