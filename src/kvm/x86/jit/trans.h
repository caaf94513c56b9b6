/*
 * Between the files of block translation: the state of one translation and the steps of it.
 *
 * operand.c: what an instruction reads and writes, flags, registers, memory. ops.c: instructions
 * re-encoded. flow.c: stack and branches. trans.c: an instruction, a block.
 *
 * References: see trans.c. Threads: the vCPU's own.
 */
#pragma once
#include "kvm/x86/jit/jit_int.h"
#include "kvm/x86/jit/rows.h"

/* What an operand letter of the row names. */
enum opclass { OPC_NONE, OPC_REG, OPC_RM, OPC_VVVV, OPC_VEC, OPC_MEM, OPC_MMX };

enum { TRANS_SLOWS = 400 };

struct trans_slow {
	size_t from;   /* rel32 of the jump that leads here */
	size_t to;     /* offset to come back to */
	uint32_t desc; /* in a trace: the step */
	uint8_t n;     /* instructions to run there, with successive descriptors */
	uint32_t x87;  /* trans.x87_last there */
};

struct trans {
	struct vcpu *v;
	struct jit *j;
	struct emit e;
	struct jit_block *b;
	unsigned ctx;    /* of the code; that of its data is ctx % JIT_CTXS */
	uint8_t word;    /* bytes of an address and of a stack element: 8, or 4 in 32-bit code */
	gva_t rip, next; /* of the instruction under way */
	bool slides;     /* addresses are relative to env.slide, as la in all that follows */
	uint64_t slide;  /* at this time */
	unsigned live;   /* flags live after it */
	bool in_reg, in_mem;
	uint32_t desc; /* of the instruction under way */
	uint8_t group; /* how many share its slow paths: 1, or a run of pushes or pops */
	struct trans_slow slow[TRANS_SLOWS];
	unsigned nslow;
	bool vec, x87; /* the block has emitted instructions of these units */
	/* 1 + descriptor of the x87 instruction whose pointers are not stored yet; see fpu.c */
	uint32_t x87_last;
	bool failed;
	bool ended;             /* the last instruction has left the block */
	struct trans_trace *tr; /* NULL: a block is translated */
};

/* A memory operand as host address: [base + index << scale + disp]. */
struct trans_ref {
	uint8_t base, index, scale;
	bool sib;
	int32_t disp;
};
struct trans_trace; /* trace.h */

/* ---- operand.c ---- */
enum opclass trans_class(unsigned o);
unsigned trans_imm_bytes(const struct insn_info *info, const struct insn *i);
/* The emitter of an instruction in this block, JK_CALL when it has none. */
enum jit_kind trans_kind(const struct vcpu *v, const struct insn *i);
/* Does the instruction write its memory operand? */
bool trans_writes_memory(const struct vcpu *v, const struct insn *i);
bool trans_aligned(const struct insn *i);
unsigned trans_flags_read(const struct insn *i);
unsigned trans_flags_written(const struct insn *i);
/* Flags in one byte: SF ZF AF PF CF in their places, OF in bit 1. */
uint8_t trans_pack(unsigned flags);
unsigned trans_unpack(uint8_t p);
/* Flags live at a linear address that the block may go to. */
unsigned trans_flags_at(struct trans *t, gva_t la);
void trans_save_flags(struct trans *t);
void trans_load_flags(struct trans *t);
/* EFLAGS are about to be overwritten. live: flags still needed. */
void trans_clobber(struct trans *t, unsigned live);
void trans_need_reg(struct trans *t);
/* Just before the operation itself: flags it reads, or leaves alone while they are live. */
void trans_before_op(struct trans *t, const struct insn *i);
void trans_after_op(struct trans *t, const struct insn *i);
/* Flags that must survive what the instruction does before its operation. */
unsigned trans_live_before(const struct trans *t, const struct insn *i);
void trans_slow_at(struct trans *t, size_t from);
/* All slow paths entered since `first` come back here. */
void trans_slow_back(struct trans *t, unsigned first);
uint32_t trans_desc(struct trans *t, const struct insn *i, gva_t rip);
/* An instruction that stands for the vector registers a block needs: with AVX if any has it. */
const struct insn *trans_vec_insn(const struct jit_block *b);
/* Host register that holds a guest one here, or -1: it is in memory. */
int trans_host(const struct trans *t, unsigned guest);
/* Is la in a page that this code is made of? */
bool trans_near(const struct trans *t, gva_t la);
/* Host register of a guest one; one that lives in memory is loaded into scratch when load. */
unsigned trans_reg(struct trans *t, unsigned guest, unsigned scratch, bool load);
void trans_reg_back(struct trans *t, unsigned guest, unsigned host);
/*
 * reg = a linear address of code, or one relative to it. EFLAGS stay if trans_la_keeps: always in
 * blocks.
 */
void trans_la(struct trans *t, unsigned reg, gva_t la);
bool trans_la_keeps(const struct trans *t, gva_t la);
/* mov dst, src of the width of an address. */
void trans_mov_word(struct trans *t, unsigned dst, unsigned src);
/* S0 = linear address of the operand, before the segment base; flags stay. Uses S1. */
void trans_ea(struct trans *t, const struct insn *i);
/* S0 = linear address -> host address, or leave to the slow path. Overwrites EFLAGS, S1. */
void trans_probe(struct trans *t, unsigned size, bool write);
/* to = host minus linear address of its page, else the same. */
void trans_probe_delta(struct trans *t, unsigned size, bool write, unsigned to);
/* Leave to the slow path unless the address in S0 is a multiple of n. */
void trans_test_aligned(struct trans *t, unsigned n);
/*
 * Where the memory operand of an instruction is. Uses S0; S1 is free, unless pair allows its use.
 * Leaves EFLAGS alone or not: what is live is saved.
 */
struct trans_ref trans_operand(struct trans *t, const struct insn *i, unsigned size, bool write,
			       bool aligned, bool pair);
/* The memory operand of an instruction as host address in S0. */
void trans_mem(struct trans *t, const struct insn *i, unsigned size, bool write, bool aligned);

/* ---- ops.c ---- */
/* Call the interpreter's function for this instruction. */
void trans_call(struct trans *t, const struct insn *i);
/*
 * The guest's own instruction with registers mapped and memory at [S0]. dest_g: ModRM.reg is
 * written. False when it has no such form: high-byte registers beside ones that need REX, too many
 * operands in memory-resident registers.
 */
bool trans_generic(struct trans *t, const struct insn *i, bool reads, bool writes, unsigned msize);
/* Can trans_generic, trans_zreg do it, whatever registers are in memory? */
bool trans_has_form(const struct insn *i);
bool trans_zreg_has_form(const struct insn *i);
/* mov reg, [at]; size 4 or 8. */
void trans_load(struct trans *t, unsigned size, unsigned reg, const struct trans_ref *at);
unsigned trans_msize(const struct insn *i);
/* Registers and immediates without ModRM: accumulator forms, CBW, CMC and the like. */
void trans_plain(struct trans *t, const struct insn *i);
/* A register in the opcode. */
bool trans_zreg(struct trans *t, const struct insn *i);
bool trans_lea(struct trans *t, const struct insn *i);
/*
 * DIV when the quotient fits. IDIV when the dividend is rAX sign-extended and the divisor is
 * neither 0 nor -1, so that it fits as well. Everything else, #DE with it, is the interpreter's.
 */
bool trans_div(struct trans *t, const struct insn *i);

/* ---- fpu.c ---- */
/* Does an x87 or MMX instruction with an emitter use vector registers too? */
bool trans_x87_vec(const struct insn *i);
bool trans_x87(struct trans *t, const struct insn *i);
/* Store the instruction pointers of an x87 instruction. Uses S1; flags stay. */
void trans_x87_pointers(struct trans *t, uint32_t last);
/* The same for the last one, before the block can be left or C looks at them. */
void trans_x87_settle(struct trans *t);

/* ---- flow.c ---- */
/* The address behind bytes at la: 32-bit code goes on at 0. */
gva_t trans_next(const struct trans *t, gva_t la, unsigned bytes);
/* Where a relative branch leads. */
gva_t trans_target(const struct trans *t, const struct insn *i);
/* Has a near branch the size of addresses, and does it not fault? */
bool trans_near_branch(const struct trans *t, const struct insn *i, gva_t target);
void trans_push(struct trans *t, const struct insn *i, bool imm, uint64_t val);
void trans_push_rm(struct trans *t, const struct insn *i);
void trans_pop(struct trans *t, const struct insn *i);
void trans_leave(struct trans *t, const struct insn *i);
/*
 * Go to la by a jump that will be patched. l->mem, l->plain are set already. live: flags that are
 * to be right there.
 */
void trans_goto_live(struct trans *t, gva_t la, struct jit_link *l, unsigned live);
/* The same with the flags that may be read there. */
void trans_goto(struct trans *t, gva_t la, struct jit_link *l);
/*
 * Go to the address in S0 by the table of indirect targets, with pop added to rSP; flags are in
 * v->fl. checked: it is known to be canonical. miss: jumps for trans_jump_missed, taken when the
 * target is not known or not canonical, or something waits.
 */
void trans_jump_s0(struct trans *t, int32_t pop, bool checked, size_t miss[3]);
/* What comes then; goes on when the target is not known to code. S0 is the target ^ token, if that
 * was checked. */
void trans_jump_missed(struct trans *t, int32_t pop, const size_t miss[3]);
/* To C, to the beginning of the block; flags are in v->fl. why: JIT_HOT_*. */
void trans_leave_hot(struct trans *t, unsigned why);
void trans_indirect(struct trans *t, const struct insn *i, enum jit_kind kind);
void trans_jcc(struct trans *t, const struct insn *i);
/*
 * If a run of at least two stack instructions starts at i, translate it: t->rip and t->next are
 * then those of its last instruction. Returns how many. live: of each instruction, as packed by
 * trans_liveness.
 */
unsigned trans_stack_run(struct trans *t, const struct insn *i, unsigned left, const uint8_t *live);

/* ---- system.c ---- */
/* Rows of kind JK_SYS. False: this one calls the interpreter. */
bool trans_system(struct trans *t, const struct insn *i);

/* ---- trans.c ---- */
/* An instruction that is neither a branch nor a stack operation; false: no such form. */
bool trans_simple(struct trans *t, const struct insn *i, enum jit_kind kind);
bool trans_canonical(gva_t la);
/* JIT_DEAD_BYTES that do nothing. */
void trans_room(struct trans *t);

/* ---- flat.c ---- */
/* Can the translator do this memory operand of 32-bit code? */
bool trans_flat_operand(const struct insn *i);
/* Forms of 32-bit code that 64-bit mode lacks, as ones that it has. */
void trans_flat_forms(struct insn *insns, unsigned n);
/*
 * S0 += base of FS or GS, when the segment is one that needs no checks, else to the slow path.
 * Overwrites EFLAGS.
 */
void trans_flat_base(struct trans *t, const struct insn *i, unsigned size, bool write);
