/*
 * What SYSCALL and its kin share with the translator's short ways of them.
 *
 * References: see syscall.c. Threads: the vCPU's own.
 */
#pragma once
#include "kvm/x86/vcpu.h"

enum {
	SYSCALL_CODE =
		SEG_AR_P | SEG_AR_S | SEG_AR_CODE | SEG_AR_WRITE | SEG_AR_ACCESSED | SEG_AR_G,
	SYSCALL_DATA = SEG_AR_P | SEG_AR_S | SEG_AR_WRITE | SEG_AR_ACCESSED | SEG_AR_G | SEG_AR_DB,
	/* CF PF AF ZF SF TF IF DF OF IOPL NT AC VIF VIP ID: what SYSRET loads */
	SYSRET_FLAGS = 0x3c7fd7,
};

/* Flat CS and SS at a level, without looking at any descriptor. */
static inline void syscall_segments(struct vcpu *v, unsigned cs, unsigned ss, unsigned cpl, bool l)
{
	v->seg[SEG_CS] = (struct seg){
		.limit = 0xffffffff,
		.ar = SYSCALL_CODE | cpl << 5 | (l ? SEG_AR_L : SEG_AR_DB),
		.sel = (uint16_t)((cs & ~3u) | cpl),
	};
	v->seg[SEG_SS] = (struct seg){
		.limit = 0xffffffff,
		.ar = SYSCALL_DATA | cpl << 5,
		.sel = (uint16_t)((ss & ~3u) | cpl),
	};
	v->cpl = (uint8_t)cpl;
}
