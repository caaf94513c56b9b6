/*
 * The x86 virtual processor.
 *
 * A vCPU runs on its own stack (base/coro.h) inside the thread that calls KVM_RUN. Whatever must
 * leave to user space in the middle of an instruction yields and goes on at the next KVM_RUN.
 * A guest fault unwinds to the run loop with vcpu_throw(): instruction bodies read as the manual's
 * pseudo-code, and commit state only after their last access that can fault.
 *
 * rIP during an instruction: r[REG_RIP] is the address of the NEXT instruction (as in the manual's
 * pseudo-code); v->insn_rip that of the current one, which a fault restores.
 *
 * Arithmetic flags are kept apart from RFLAGS in v->fl, in the form that LAHF;SETO give in AX:
 * bit 0 OF, bit 15 SF, 14 ZF, 12 AF, 10 PF, 8 CF. `add $0x7f, %al; sahf` brings them back.
 *
 * Vector, x87 and MMX state lives in v->xsave in the standard (not compacted) XSAVE format.
 *
 * References: [SDM1 3.4], [SDM3 2, 3, 6], [APM2]. Threads: owned by the vCPU thread while it is in
 * KVM_RUN, else by the holder of v->lock; atomics as marked.
 */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/busypoll.h"
#include "base/coro.h"
#include "kvm/vm.h"
#include "kvm/x86/jit/env.h"
#include "x86/decode.h"
#include "x86/insn.h"

/* RFLAGS bits beside the arithmetic ones of x86/insn.h. */
enum {
	RF_FIXED = 1 << 1,
	RF_TF = 1 << 8, RF_IF = 1 << 9, RF_DF = 1 << 10, RF_IOPL = 3 << 12, RF_NT = 1 << 14,
	RF_RF = 1 << 16, RF_VM = 1 << 17, RF_AC = 1 << 18, RF_VIF = 1 << 19, RF_VIP = 1 << 20,
	RF_ID = 1 << 21,
};
/* v->fl bits. */
enum { FL_O = 1, FL_C = 1 << 8, FL_P = 1 << 10, FL_A = 1 << 12, FL_Z = 1 << 14, FL_S = 1 << 15 };

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR4_PKE BIT(22)
#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NX BIT(11)
#define EFER_FFXSR BIT(14)
#define EFER_AIBRSE BIT(21) /* nothing speculates: only kept */

/* Exception vectors. */
enum {
	VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF,
	VEC_TS = 10, VEC_NP, VEC_SS, VEC_GP, VEC_PF, VEC_MF = 16, VEC_AC, VEC_MC, VEC_XM,
};

/* A segment register: selector and hidden part. ar has the descriptor's own bits. */
struct seg {
	uint64_t base;
	uint32_t limit; /* in bytes, inclusive */
	uint32_t ar;	/* SEG_AR_*; bits as the high descriptor dword >> 8 */
	uint16_t sel;
};
enum {
	SEG_AR_TYPE = 0xf, SEG_AR_ACCESSED = 1, SEG_AR_WRITE = 2 /* data; code: readable */,
	SEG_AR_DOWN = 4 /* data expand-down; code: conforming */, SEG_AR_CODE = 8,
	SEG_AR_S = 1 << 4, SEG_AR_DPL = 3 << 5, SEG_AR_P = 1 << 7, SEG_AR_AVL = 1 << 12,
	SEG_AR_L = 1 << 13, SEG_AR_DB = 1 << 14, SEG_AR_G = 1 << 15,
	SEG_AR_UNUSABLE = 1 << 16, /* null selector loaded, or LDTR/TR empty */
};
#define SEG_DPL(ar) (((ar) >> 5) & 3)

struct dtable {
	uint64_t base;
	uint16_t limit;
};

/*
 * Data TLB: direct-mapped by virtual page, one table for each way of accessing. A tag is the page's
 * address | ASID; it matches ((va + size - 1) & PAGE_MASK) | v->asid, so that an access that leaves
 * the page misses. An empty tag is TLB_EMPTY (not canonical with any ASID).
 */
#define TLB_BITS  10
#define TLB_SIZE  (1u << TLB_BITS)
#define TLB_EMPTY (~0ull)
#define ASID_MAX  0xffe
struct tlb_entry {
	uint64_t rtag, wtag;
	uint64_t addend; /* host address = va + addend */
	uint64_t info;	 /* gpa of the page | TLB_I_* */
};
enum { TLB_I_GLOBAL = 1, TLB_I_USER = 2 };
enum tlb_ctx { TLB_USER, TLB_KERNEL, TLB_KERNEL_AC /* SMAP off for this access */, TLB_CTXS };

/* Code TLB. */
struct itlb_entry {
	uint64_t tag; /* as above */
	uint8_t *host; /* host address of the page's first byte */
	struct kvm_page *page;
	uint64_t gpa;
	bool global;
};
#define ITLB_BITS 8
#define ITLB_SIZE (1u << ITLB_BITS)

struct block_cache; /* kvm/x86/interp/block.h */
struct lapic;	    /* kvm/x86/lapic.c */

/* What is pending to be delivered at the next boundary. */
struct vcpu_event {
	bool exc_pending;     /* exception to be delivered (thrown or injected) */
	bool exc_has_error;
	bool exc_injected;    /* by user space: KVM_SET_VCPU_EVENTS */
	uint8_t exc_vec;
	uint32_t exc_error;
	uint64_t exc_payload; /* CR2 for #PF, DR6 bits for #DB */
	bool irq_injected;    /* interrupt accepted but not yet delivered */
	bool irq_soft;
	uint8_t irq_vec;
	bool nmi_injected, nmi_masked;
	atomic_uint nmi_pending;
	uint8_t shadow; /* SHADOW_*: delivery inhibited for one instruction */
	bool triple_fault;
	bool smi_pending;
};
enum { SHADOW_STI = 1, SHADOW_MOV_SS = 2 };

enum { XSAVE_AREA_SIZE = 4096 };

struct vcpu {
	/* -- hot: reached by every instruction -- */
	uint64_t r[REG_COUNT]; /* general registers, RIP (next), zero */
	uint16_t fl;	       /* arithmetic flags, LAHF;SETO form */
	uint8_t cpl;
	uint8_t mode;	   /* enum decode_mode of CS */
	bool real;	   /* real or virtual-8086 mode */
	bool long64;	   /* 64-bit mode (mode == DECODE_64) */
	bool flat32;	   /* 32-bit protected or compatibility mode; CS, SS, DS, ES are 0 to 4 GiB */
	uint8_t stack_size; /* 2, 4, 8: width of rSP by SS.B or mode */
	bool ac_check;	   /* CR0.AM && RFLAGS.AC && CPL == 3 */
	uint32_t rflags;   /* all but the arithmetic flags; bit 1 set */
	uint64_t asid;	   /* low 12 bits of the tags in use */
	uint64_t fetch_gen; /* changes when a code address may mean other bytes: INVLPG, slots */
	uint64_t seg_base[SEG_COUNT]; /* effective: 0 for ES, CS, SS, DS in 64-bit mode */
	uint8_t seg_fast[SEG_COUNT];  /* SEGF_*: no limit or type check needed */
	struct tlb_entry *tlb;	      /* table for explicit data accesses now */
	atomic_uint requests;	      /* REQ_* */
	const struct insn *cur;	      /* instruction under way */
	const struct insn *block_end; /* where its block ends; moved to stop after it */
	uint64_t insn_rip;	      /* its address */
	uint64_t insn_count;	      /* instructions started, for statistics */
	struct block_cache *blocks;

	/* -- architectural state -- */
	struct seg seg[SEG_COUNT], ldtr, tr;
	struct dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8 /* without an in-kernel LAPIC */, xcr0, efer;
	uint64_t pdpte[4]; /* PAE paging, loaded by MOV CR3 */
	uint64_t dr[4], dr6, dr7;
	uint32_t pkru;
	struct vcpu_event ev;
	uint8_t xsave[XSAVE_AREA_SIZE] __attribute__((aligned(64)));

	struct vcpu_msrs {
		uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
		uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
		uint64_t tsc_aux, pat, misc_enable, apic_base, tsc_deadline;
		uint64_t mtrr_def, mtrr_fix[11], mtrr_base[8], mtrr_mask[8];
		uint64_t mcg_cap, mcg_status, mcg_ctl, mce[32][4];
		uint64_t debugctl, spec_ctrl, virt_ssbd, xss, tsc_adjust;
		uint64_t kvm_system_time, kvm_wall_clock, kvm_steal_time, kvm_async_pf_en,
			kvm_async_pf_int, kvm_pv_eoi, kvm_poll_control;
		uint64_t hwcr, syscfg, patch_level, smbase, vm_hsave_pa;
	} msr;
	struct vcpu_pvclock { /* kvm/x86/pvclock.c */
		atomic_bool update;  /* the guest's kvm-clock area must be rewritten */
		atomic_bool wall;    /* the wall clock area too */
		atomic_bool stopped; /* KVM_KVMCLOCK_CTRL: say that the guest was paused */
		uint64_t steal_seen, steal_due; /* run delay counted so far; when to look again, ns */
	} pvclock;
	uint64_t tsc_offset; /* guest TSC = host TSC * ratio + offset */
	uint32_t tsc_khz;

	/* -- guest debugging and debug registers -- */
	bool single_step;	 /* run one instruction at a time: TF, guest debug, DR7 in use */
	uint32_t guest_debug;	 /* KVM_GUESTDBG_* control */
	uint64_t gdb_dr[4], gdb_dr7;
	uint64_t db_hits;	 /* DR6 bits collected by the instruction under way */

	/* -- CPUID as set by user space -- */
	struct kvm_cpuid_entry2 *cpuid;
	uint32_t ncpuid;
	uint64_t features[4]; /* bit n: enum insn_feature n is offered (BASE always) */
	uint8_t maxphyaddr;
	uint64_t gpa_reserved; /* reserved address bits of a paging entry */
	uint64_t cr4_reserved; /* bits that MOV CR4 refuses */

	/* -- APIC and multiprocessing -- */
	struct lapic *lapic; /* NULL without an in-kernel one */
	_Atomic uint32_t mp_state; /* KVM_MP_STATE_* */
	atomic_uint pending_events; /* VCPU_EV_* set by other processors */
	uint8_t sipi_vector;

	/* -- host side -- */
	struct kvm_vm *vm;
	uint32_t id, index; /* APIC id given by user space; index in vm->vcpus */
	pthread_mutex_t lock; /* held by each ioctl, KVM_RUN included */
	struct kvm_run *run;  /* kvm_run page, PIO page, coalesced ring page */
	struct coro *coro;
	sigjmp_buf unwind; /* target of vcpu_throw: the run loop */
	bool in_insn;	   /* an exit is open in the middle of an instruction */
	bool abandon;	   /* user space set another RIP meanwhile: drop the instruction */
	bool halt_exit;	   /* HLT without in-kernel irqchip: leave after the instruction */
	bool debug_exit;   /* leave with KVM_EXIT_DEBUG, run->debug is filled */
	bool ioapic_eoi_exit; /* leave with KVM_EXIT_IOAPIC_EOI, run->eoi is filled */
	bool rf_keep;	   /* the instruction has set RFLAGS.RF for the next one (IRET, task switch) */
	bool no_trap;	   /* the instruction has cleared TF before its end (INT n, SYSCALL): no trap */
	bool flush_code;   /* drop cached code at the next boundary */
	bool in_exclusive; /* between kvm_exclusive_start and _end */
	int delivering;	   /* exception vector whose delivery is under way, or -1 */
	long run_result;   /* what the KVM_RUN under way will return */
	/* pages that others may write to unseen until its kvm_sync_vcpus() ends; never followed */
	_Atomic(const struct kvm_page *) marking[2];
	atomic_int in_guest; /* 1 between entry and exit: see kvm_sync_vcpus */
	atomic_int kick_fd;  /* eventfd to wake a halted vCPU */
	atomic_bool halted_wait; /* asleep in kvm_vcpu_wait */
	struct busypoll halt_poll; /* the vCPU's thread */
	atomic_bool pv_unhalted; /* KVM_HC_KICK_CPU came: ends this HLT or the next one */
	atomic_bool ignore_signals; /* kvm_vcpu_kick_user is the only interruption */
	bool sigset_active;	    /* KVM_SET_SIGNAL_MASK: sigset is what KVM_RUN blocks */
	uint64_t sigset;
	uint64_t run_mask;	    /* signals that do not interrupt the KVM_RUN under way */
	int sig_fd;		    /* signalfd of ~sig_fd_mask, to sleep on; -1 */
	uint64_t sig_fd_mask;
	struct kvm_timer sig_timer; /* sets REQ_SIGNAL every ms while KVM_RUN looks for signals */
	atomic_bool sig_timer_armed;
	atomic_bool running;	    /* inside KVM_RUN */
	_Atomic int pending_extint; /* vector + 1 of KVM_INTERRUPT with a split irqchip, or 0 */
	struct vcpu_stat {
		uint64_t exits, mmio_exits, io_exits, halts, irq_injections, page_walks, tlb_fills,
			blocks_decoded, code_invalidations;
	} stat;

	/* TLBs last: large. */
	uint32_t next_asid;	  /* 1..ASID_MAX; all ones in a tag would look empty */
	uint64_t large_lo[2], large_hi[2]; /* linear range, by address half, with large pages cached */
	uint16_t pcid_asid[4096]; /* PCID -> ASID, 0: none */
	struct jit *jitp;   /* the translator, NULL: interpreter only */
	struct jit_env jit; /* what generated code reaches */
	struct itlb_entry itlb[2][ITLB_SIZE]; /* supervisor, user */
	struct tlb_entry tlbs[TLB_CTXS][TLB_SIZE];
};
enum { SEGF_READ = 1, SEGF_WRITE = 2 }; /* flat enough: any 32-bit offset is inside and allowed */
enum { VCPU_EV_INIT = 1, VCPU_EV_SIPI = 2 };

static inline bool vcpu_has(const struct vcpu *v, enum insn_feature f)
{
	return v->features[f / 64] >> (f % 64) & 1;
}

/* RFLAGS as the guest sees it, and setting the bits of mask from val (arithmetic ones too). */
uint64_t vcpu_rflags(const struct vcpu *v);
void vcpu_set_rflags(struct vcpu *v, uint64_t val, uint64_t mask);

/*
 * Re-derive mode, cpl-dependent pointers, segment shortcuts, stack size, TLB context and
 * single_step after any change of segments, CR0, CR4, EFER, CPL, RFLAGS.VM/AC/TF or DR7.
 */
void vcpu_update_mode(struct vcpu *v);

/* ---- Leaving an instruction (interp/run.c). vCPU thread, inside KVM_RUN only. --------------- */

/* Raise an exception of the current instruction: restores insn_rip, unwinds. */
__attribute__((noreturn)) void vcpu_throw(struct vcpu *v, unsigned vec);
__attribute__((noreturn)) void vcpu_throw_error(struct vcpu *v, unsigned vec, uint32_t error);
__attribute__((noreturn)) void vcpu_throw_pf(struct vcpu *v, gva_t addr, uint32_t error);
#define throw_ud(v)	vcpu_throw(v, VEC_UD)
#define throw_gp(v, er) vcpu_throw_error(v, VEC_GP, er)

/*
 * Go to user space with run->exit_reason filled, and come back here at the next KVM_RUN. Does not
 * return when user space sets another RIP meanwhile: the instruction is then abandoned.
 */
void vcpu_exit_to_user(struct vcpu *v);

/* Is a signal pending that KVM_RUN's mask lets through? ioctl side of the run loop. */
bool kvm_signal_pending(struct vcpu *v);

/* One instruction, for tests: true when it threw (v->ev has the exception). No events. */
bool interp_step(struct vcpu *v);
/* The same for one block, or as much translated code as runs by itself. */
bool interp_block(struct vcpu *v);

/* Body of the vCPU's coroutine: runs the guest, yields at the end of each KVM_RUN. */
void vcpu_run_loop(void *vcpu);

/* HLT: wait for an interrupt (in-kernel irqchip), or leave to user space with KVM_EXIT_HLT. */
void vcpu_halt(struct vcpu *v);

/*
 * Without an in-kernel PIC: may KVM_INTERRUPT be injected now? run->ready_for_interrupt_injection,
 * and with run->request_interrupt_window KVM_EXIT_IRQ_WINDOW_OPEN. run_outer.c.
 */
bool vcpu_ready_for_injection(struct vcpu *v);

/* ---- Reset, creation ------------------------------------------------------------------------ */

/* State after power-up or RESET (init false) or INIT (init true): [SDM3 9.1.1 table 9-1]. */
void vcpu_reset(struct vcpu *v, bool init);
