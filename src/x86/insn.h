/*
 * Decoded instructions and the facts of the instruction table.
 *
 * insn.def has one row for each instruction form. This header gives its vocabulary (maps, operand
 * letters, attributes, flags) and struct insn, what the decoder makes of guest bytes.
 *
 * References: [SDM2 2 "Instruction format"], [SDM2D A "Opcode map"], [APM3 1].
 * Threads:    everything here is immutable or owned by the caller.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* The vocabulary is aligned by hand. */
/* clang-format off */

/* Opcode maps: legacy, VEX. pp tells apart forms that share an opcode by mandatory prefix. */
enum insn_map { M1, M0F, M0F38, M0F3A, V0F, V0F38, V0F3A, INSN_MAPS };

/*
 * Mandatory prefix column. PA: prefixes do not select the form (66 is operand size, F2/F3 are REP
 * or ignored). NP: none of 66, F3, F2. NF: neither F3 nor F2, 66 is operand size (MOVBE, NOP).
 */
enum insn_pp { NP, P66, PF3, PF2, PA, NF };

/* Extension column ("ext"): which ModRM bytes the row takes. */
#define X_ANY   (-1)            /* any ModRM byte, or no ModRM byte */
#define X_G(n)  (0x100 | (n))   /* ModRM.reg == n, memory or register */
#define X_GM(n) (0x200 | (n))   /* ModRM.reg == n, memory only */
#define X_GR(n) (0x300 | (n))   /* ModRM.reg == n, register only */
#define X_M     0x400           /* memory only, any reg */
#define X_R     0x500           /* register only, any reg */
#define X_RM(b) (0x600 | (b))   /* exactly this ModRM byte (0xc0..0xff) */

/* Attributes. */
enum {
	A_LOCK   = 1u << 0,  /* LOCK prefix allowed when the destination is memory */
	A_D64    = 1u << 1,  /* operand size defaults to 64 bits in 64-bit mode */
	A_F64    = 1u << 2,  /* operand size is forced to 64 bits in 64-bit mode */
	A_I64    = 1u << 3,  /* #UD in 64-bit mode */
	A_O64    = 1u << 4,  /* #UD outside 64-bit mode */
	A_STACK  = 1u << 5,  /* implicit stack access */
	A_BRANCH = 1u << 6,  /* may change rIP: ends a block */
	A_END    = 1u << 7,  /* ends a block for another reason: mode, mapping, interrupt flag, exit; or
			      * because it serializes: what follows is to be fetched again */
	A_PRIV   = 1u << 8,  /* #GP(0) unless CPL == 0 */
	A_PROT   = 1u << 9,  /* #UD in real and virtual-8086 mode */
	A_X8     = 1u << 10, /* row spans 8 opcodes: low three bits name a register */
	A_X16    = 1u << 11, /* row spans 16 opcodes: low four bits are a condition */
	A_REP    = 1u << 12, /* F3 (and F2) repeat the instruction */
	A_REPZ   = 1u << 13, /* with A_REP: F3 is REPE, F2 is REPNE */
	A_W0     = 1u << 14, /* VEX.W (or REX.W) must be 0 */
	A_W1     = 1u << 15, /* VEX.W (or REX.W) must be 1; selects the row */
	A_L0     = 1u << 16, /* VEX.L must be 0 */
	A_L1     = 1u << 17, /* VEX.L must be 1 */
	A_NOVVVV = 1u << 18, /* VEX.vvvv must be 1111b */
	A_ALIGN  = 1u << 19, /* memory operand must be aligned to its size (16 or 32), else #GP(0) */
	A_SSE    = 1u << 20, /* needs CR0.EM=0, CR4.OSFXSR=1 (#UD), CR0.TS=0 (#NM) */
	A_AVX    = 1u << 21, /* needs CR4.OSXSAVE, XCR0[2:1]=11b (#UD), CR0.TS=0 (#NM) */
	A_MMX    = 1u << 22, /* needs CR0.EM=0 (#UD), CR0.TS=0 (#NM), no pending x87 exception */
	A_X87    = 1u << 23, /* needs CR0.EM=0 and CR0.TS=0 (#NM) */
	A_X87W   = 1u << 24, /* with A_X87: waits, a pending unmasked x87 exception gives #MF */
	A_MXCSR  = 1u << 25, /* computes under MXCSR and may set its flags or raise #XM */
	A_VSIB   = 1u << 26, /* memory operand has a vector index */
	A_FALL   = 1u << 27, /* without its feature not #UD but the same opcode without F3 */
	A_IMPL   = 1u << 28, /* also uses RDX (MULX); RAX, RDX, RCX, XMM0 (PCMPxSTRx) */
	A_UD     = 1u << 29, /* defined to raise #UD (UD0, UD1, UD2) */
	A_VSIBX  = 1u << 30, /* with A_VSIB: index vector is half the width named by L (gathers) */
};

/* EFLAGS bits for the reads, writes and undef columns. */
enum {
	F_C = 0x1, F_P = 0x4, F_A = 0x10, F_Z = 0x40, F_S = 0x80, F_D = 0x400, F_O = 0x800,
	F_ARITH = F_C | F_P | F_A | F_Z | F_S | F_O,
	F_CC = F_ARITH & ~F_A, /* what conditions can read */
};

/*
 * Operands: addressing letter and size as in [SDM2D A.2]. One byte each.
 * Sizes: b w d q = 1 2 4 8; v = 2/4/8 by operand size; z = 2/4/4; y = 4/8; x = 16/32 by VEX.L;
 * dq = 16; qq = 32; p = far pointer; a = BOUND pair; s = descriptor table pointer;
 * t = 10-byte real; ss/sd are d/q.
 */
enum insn_operand {
	O_NONE,
	Eb, Ew, Ed, Eq, Ev, Ey, Ep,      /* ModRM.rm: general register or memory */
	Mb, Mw, Md, Mq, Mv, My, Mdq, Mqq, Mx, Mt, Mp, Ma, Ms, M_, /* memory only; M_: address or other size */
	Rw, Rd, Rq, Ry, Rv,              /* ModRM.rm: general register only */
	RdMb, RdMw, RvMw,                /* ModRM.rm: register of the first size or memory of the second */
	Gb, Gw, Gd, Gq, Gv, Gz, Gy,      /* ModRM.reg: general register */
	Bd, Bq, By,                      /* VEX.vvvv: general register */
	Zb, Zv,                          /* opcode bits 2:0 (+REX.B): general register */
	AL, AX, eAX, rAX, CL, DX, I1,    /* implied registers and the constant 1; eAX is z, rAX is v */
	Ib, Ibs, Iw, Iz, Iv, Ib2,        /* immediates; Ibs sign-extends to the operand size; Ib2: second */
	Jb, Jz,                          /* relative branch targets */
	Ap,                              /* far pointer in the instruction */
	Ob, Ov,                          /* moffs */
	Sw,                              /* ModRM.reg: segment register */
	rES, rCS, rSS, rDS, rFS, rGS,    /* implied segment registers */
	Cy, Dy,                          /* ModRM.reg: control, debug register; size 4 or 8 by mode */
	Xb, Xv, Xz, Yb, Yv, Yz,          /* string operands: seg:[rSI], ES:[rDI] */
	Pd, Pq,                          /* ModRM.reg: MMX register */
	Qd, Qq,                          /* ModRM.rm: MMX register or memory */
	Nq,                              /* ModRM.rm: MMX register only */
	Vd, Vq, Vdq, Vqq, Vx,            /* ModRM.reg: vector register */
	Hd, Hq, Hdq, Hqq, Hx,            /* VEX.vvvv: vector register */
	Wb, Ww, Wd, Wq, Wdq, Wqq, Wx,    /* ModRM.rm: vector register or memory */
	Ud, Uq, Udq, Ux,                 /* ModRM.rm: vector register only */
	Ldq, Lqq, Lx,                    /* immediate bits 7:4: vector register */
	XMM0,                            /* implied (BLENDV, SHA256RNDS2) */
	ST0, STi,                        /* x87 top of stack, ST(rm) */
	O_COUNT
};

/* CPUID feature columns; #UD when the vCPU's CPUID does not offer it. */
enum insn_feature {
	BASE,
#define FEATURE(id, ...) id,
#include "x86/features.def"
#undef FEATURE
	INSN_FEATURES
};

/* How the interpreter runs a row. CALL: exec_<id>. HOST: by a thunk that runs it on the host. */
enum insn_how { CALL, HOST };

enum insn_id {
#define INSN(id, ...) I_##id,
#include "x86/insn.def"
#undef INSN
	I_COUNT
};

/* clang-format on */

struct insn_info {
	const char *name, *mnem, *sdm;
	uint8_t map, pp, op, how;
	int16_t ext;
	uint8_t operand[5];
	uint8_t feature;
	uint32_t attr;
	uint16_t reads, writes, undef; /* EFLAGS; undef is a subset of writes */
};
extern const struct insn_info insn_info[I_COUNT];

/*
 * What a row with A_FALL (TZCNT, LZCNT, WBNOINVD) is on a vCPU without its feature: the row of the
 * same opcode without F3 (BSF, BSR, WBINVD). Any other id is returned as it is. Any thread.
 */
enum insn_id insn_fallback(enum insn_id id);

/* Indexes into the vCPU's register file as struct insn names them. */
enum {
	REG_RAX,
	REG_RCX,
	REG_RDX,
	REG_RBX,
	REG_RSP,
	REG_RBP,
	REG_RSI,
	REG_RDI,
	REG_R8,
	REG_R9,
	REG_R10,
	REG_R11,
	REG_R12,
	REG_R13,
	REG_R14,
	REG_R15,
	REG_RIP,  /* base of a RIP-relative operand: address of the next instruction */
	REG_ZERO, /* absent base or index: always 0 */
	REG_COUNT
};
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

enum insn_flag {
	IF_LOCK = 1,
	IF_REP = 2,
	IF_REPNE = 4,  /* prefixes present (F3, F2) */
	IF_OPSIZE = 8, /* 66 present */
	IF_REX = 16,   /* REX present: byte registers 4-7 are SPL..DIL */
	IF_MEM = 32,   /* ModRM names memory (mod != 3), or moffs */
	IF_W = 64,
	IF_L = 128, /* REX.W/VEX.W, VEX.L */
};

/* A decoded instruction. Fixed size, no pointers into the guest; holds for any address but RIP. */
struct insn {
	void (*exec)(void); /* set by the engine that caches it, cast to its own type; else NULL */
	void *aux;          /* engine's: host thunk, translated code; else NULL */
	uint64_t imm;  /* Ib, Iw, moffs, far offset zero-extended; Ibs, Iz, Iv, J sign-extended */
	int32_t disp;  /* memory operand displacement */
	uint16_t id;   /* enum insn_id */
	uint16_t imm2; /* second immediate (ENTER), far selector */
	uint8_t len;   /* bytes, 1..15 */
	uint8_t flags; /* enum insn_flag */
	uint8_t osize; /* operand size in bytes: 2, 4, 8 for v operands; 1 for byte rows */
	uint8_t asize; /* address size in bytes: 2, 4, 8 */
	uint8_t reg;   /* ModRM.reg with REX.R; 0..15 */
	uint8_t rm;    /* ModRM.rm with REX.B when a register (not IF_MEM), opcode register (Z) */
	uint8_t vvvv;  /* VEX.vvvv, 0..15 */
	uint8_t base, index; /* memory operand: REG_*; with A_VSIB index is a vector register */
	uint8_t scale;       /* log2 */
	uint8_t seg;         /* SEG_* of the memory operand after defaults and overrides */
	uint8_t cc;          /* condition (A_X16), else opcode's low three bits */
	uint8_t opcode;      /* last opcode byte */
	uint8_t modrm;       /* raw ModRM byte */
};

/*
 * Byte registers: place of an 8-bit operand in the register file. Without REX, 4..7 are AH..BH,
 * the second bytes of RAX..RBX. Returns the byte offset from the first register.
 */
static inline unsigned insn_reg8(const struct insn *i, unsigned n)
{
	return (n & 12) == 4 && !(i->flags & IF_REX) ? (n - 4) * 8 + 1 : n * 8;
}
