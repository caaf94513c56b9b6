/*
 * Descriptors and segment registers for the bodies that handle them: far transfers, task switches,
 * event delivery, segment loads.
 *
 * All functions belong to the vCPU's thread. Those that read or write guest memory may throw #PF.
 * References: [SDM3 3.4, 3.5], [APM2 4].
 */
#pragma once
#include "kvm/x86/interp/exec.h"

/* A descriptor as read from the GDT or LDT. base_hi: upper half of the base, system ones only. */
struct desc {
	uint32_t lo, hi, base_hi;
	gva_t la; /* where it lies */
};

/* Types of system descriptors and gates. */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS32 = 9,
	DESC_TSS32_BUSY = 11,
	DESC_CALL32 = 12,
	DESC_INT32 = 14,
	DESC_TRAP32 = 15,
};

static inline unsigned desc_type(const struct desc *d)
{
	return d->hi >> 8 & 0xf;
}
static inline unsigned desc_dpl(const struct desc *d)
{
	return d->hi >> 13 & 3;
}
static inline bool desc_present(const struct desc *d)
{
	return d->hi >> 15 & 1;
}
/* Code or data, as opposed to a system descriptor. */
static inline bool desc_user(const struct desc *d)
{
	return d->hi >> 12 & 1;
}
static inline bool desc_is_code(const struct desc *d)
{
	return desc_user(d) && (desc_type(d) & SEG_AR_CODE);
}
static inline bool desc_conforming(const struct desc *d)
{
	return desc_type(d) & SEG_AR_DOWN;
}
static inline bool desc_writable_data(const struct desc *d)
{
	return desc_user(d) && (desc_type(d) & (SEG_AR_CODE | SEG_AR_WRITE)) == SEG_AR_WRITE;
}
/* L and D of a code descriptor. */
static inline bool desc_long(const struct desc *d)
{
	return d->hi >> 21 & 1;
}
static inline bool desc_big(const struct desc *d)
{
	return d->hi >> 22 & 1;
}

static inline bool seg_null(uint16_t sel)
{
	return !(sel & 0xfffc);
}
/* Error code that names a selector. ext: 1 when the event came from outside the program. */
static inline uint32_t seg_error(uint16_t sel, unsigned ext)
{
	return (sel & 0xfffcu) | ext;
}
static inline bool seg_long_mode(const struct vcpu *v)
{
	return v->efer & EFER_LMA;
}
static inline bool seg_canonical(uint64_t la)
{
	return (uint64_t)sext(la, 48) == la;
}
/* Linear addresses are 32 bits wide outside long mode. */
static inline gva_t seg_wrap(const struct vcpu *v, uint64_t la)
{
	return seg_long_mode(v) ? la : (uint32_t)la;
}

/* Read the 8-byte descriptor of a non-null selector. False: outside its table. */
bool seg_fetch(struct vcpu *v, uint16_t sel, struct desc *d);
/* The same for a system descriptor, which in long mode has 16 bytes. False also: upper type not 0.
 */
bool seg_fetch_sys(struct vcpu *v, uint16_t sel, struct desc *d);
/* Read a 16-byte or 8-byte IDT or GDT entry whose place has been checked. */
void seg_read_desc(struct vcpu *v, gva_t la, bool wide, struct desc *d);
/* The register that the descriptor makes, marked accessed. */
static inline struct seg seg_make(uint16_t sel, const struct desc *d)
{
	uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);
	struct seg s = {
		.base = (d->lo >> 16) | (d->hi & 0xff) << 16 | (d->hi & 0xff000000) |
			(uint64_t)d->base_hi << 32,
		.limit = d->hi & (1u << 23) ? limit << 12 | 0xfff : limit,
		.ar = d->hi >> 8 & 0xf0ff,
		.sel = sel,
	};

	if (desc_user(d))
		s.ar |= SEG_AR_ACCESSED;
	return s;
}

/* A register that holds a null selector. dpl is kept for SS, where it stands for CPL. */
static inline struct seg seg_make_null(uint16_t sel, unsigned dpl)
{
	return (struct seg){ .ar = SEG_AR_UNUSABLE | dpl << 5, .sel = sel };
}
/* Set the accessed bit in memory, if clear, by a locked read-modify-write. */
void seg_mark_accessed(struct vcpu *v, const struct desc *d);
/* Set or clear bits of the type field in memory: the busy bit of a TSS. */
void seg_type_bits(struct vcpu *v, gva_t desc_la, uint8_t set, uint8_t clear);
/* Is [off, off + len) inside the segment? */
bool seg_fits(const struct seg *s, uint64_t off, uint64_t len);
/* Flatten ES, DS, FS, GS that CPL may no longer use, after a return to an outer level. */
void seg_drop_inner(struct vcpu *v);

/* Re-derive base, shortcuts and (SS) stack size of one data segment; vcpu_update_mode does all. */
void vcpu_update_seg(struct vcpu *v, unsigned seg);

/* ---- Code segments as targets (interp/far.c) ------------------------------------------------- */

/*
 * Would rip be a good target in a code segment made from d? Throws #GP(error) if not: outside the
 * limit, or not canonical in 64-bit mode.
 */
void far_check_rip(struct vcpu *v, const struct desc *d, uint64_t rip, uint32_t error);

/* ---- Stacks of transfers (interp/frame.c) ---------------------------------------------------- */

/* The stack that a transfer pushes on, current or about to become so. */
struct frame {
	struct seg ss;
	uint64_t sp;
	uint8_t width;     /* 2, 4, 8: of the stack pointer; 8 means no segmentation */
	uint8_t cpl;       /* level that owns it */
	uint32_t ss_error; /* error code of #SS when it does not fit */
};
/* The current stack. */
struct frame frame_current(const struct vcpu *v, uint32_t ss_error);
/*
 * The stack of an inner level from the TSS, with all checks: SS a good stack for cpl. ext as in
 * seg_error. In long mode ist selects RSPn (0) or an IST entry, and SS is null.
 */
struct frame frame_from_tss(struct vcpu *v, unsigned cpl, unsigned ist, unsigned ext);
/* Push n values, val[0] first, size bytes each; nothing is stored unless all fit. Moves f->sp. */
void frame_push(struct vcpu *v, struct frame *f, unsigned size, const uint64_t *val, unsigned n);
/* Make it the current stack. The caller then calls vcpu_update_mode. */
void frame_commit(struct vcpu *v, const struct frame *f);

/* ---- Task switches (interp/task.c) ----------------------------------------------------------- */

enum task_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

/*
 * Switch to the task of a TSS selector. d: its descriptor, of which only the place in the GDT has
 * been checked. ext: as in seg_error. has_error: push error on the new stack. Faults before the
 * commit point are the old task's, later ones the new one's.
 */
void task_switch(struct vcpu *v, enum task_cause cause, uint16_t sel, const struct desc *d,
		 unsigned ext, bool has_error, uint32_t error);
