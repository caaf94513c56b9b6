/*
 * The disassembler: a decoded instruction as Intel-syntax text, straight from the table's mnemonic
 * and operand letters.
 *
 * Modelled:     all rows. Names that depend on a size (cwde, jecxz, iretq, movq, stosd) are formed
 *               here; everything else is the table's.
 * Not modelled: hint prefixes and prefixes without effect are not shown.
 * References:   [SDM2 3.1.1], [SDM2D A.2].
 * Threads:      any; works on its arguments only.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "x86/decode.h"

static const char disasm_cc[16][3] = { "o", "no", "b", "ae", "e", "ne", "be", "a",
				       "s", "ns", "p", "np", "l", "ge", "le", "g" };
static const char disasm_seg[8][3] = { "es", "cs", "ss", "ds", "fs", "gs", "?", "?" };
static const char disasm_r64[18][4] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					"rsi", "rdi", "r8",  "r9",  "r10", "r11",
					"r12", "r13", "r14", "r15", "rip", "" };

struct text {
	char *buf;
	size_t cap, len; /* len counts what did not fit, as snprintf does */
	const struct insn *insn;
	const struct insn_info *info;
	enum decode_mode mode;
	uint64_t rip;
};

static __attribute__((format(printf, 2, 3))) void disasm_put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->len < t->cap ? t->buf + t->len : NULL,
		      t->len < t->cap ? t->cap - t->len : 0, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n;
}

static void disasm_gpr(struct text *t, unsigned n, unsigned size)
{
	static const char low[8][4] = { "al", "cl", "dl", "bl", "ah", "ch", "dh", "bh" };
	static const char rex[8][4] = { "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil" };

	if (size == 8)
		disasm_put(t, "%s", disasm_r64[n]);
	else if (n >= 8)
		disasm_put(t, "%s%s", disasm_r64[n], size == 4 ? "d" : size == 2 ? "w" : "b");
	else if (size == 1)
		disasm_put(t, "%s", t->insn->flags & IF_REX ? rex[n] : low[n]);
	else
		disasm_put(t, "%s%s", size == 4 ? "e" : "", disasm_r64[n] + 1);
}

static const char *disasm_ptr(unsigned size)
{
	switch (size) {
	case 1: return "byte ptr ";
	case 2: return "word ptr ";
	case 4: return "dword ptr ";
	case 6: return "fword ptr ";
	case 8: return "qword ptr ";
	case 10: return "tbyte ptr ";
	case 16: return "xmmword ptr ";
	case 32: return "ymmword ptr ";
	default: return "";
	}
}

static uint64_t disasm_mask(uint64_t v, unsigned size)
{
	return size >= 8 ? v : v & ((1ull << size * 8) - 1);
}

static void disasm_mem(struct text *t, unsigned size)
{
	const struct insn *i = t->insn;
	unsigned deflt = i->base == REG_RSP || i->base == REG_RBP ? SEG_SS : SEG_DS;
	bool any = false;

	disasm_put(t, "%s", disasm_ptr(size));
	if (i->seg != deflt || (i->base == REG_ZERO && i->index == REG_ZERO))
		disasm_put(t, "%s:", disasm_seg[i->seg & 7]);
	if (i->base == REG_RIP) {
		disasm_put(t, "[%s%+" PRId64 "]", i->asize == 4 ? "eip" : "rip", (int64_t)i->disp);
		return;
	}
	disasm_put(t, "[");
	if (i->base != REG_ZERO) {
		disasm_gpr(t, i->base, i->asize);
		any = true;
	}
	if (t->info->attr & A_VSIB) {
		bool wide = i->flags & IF_L && !(t->info->attr & A_VSIBX);

		disasm_put(t, "%s%cmm%u*%u", any ? "+" : "", wide ? 'y' : 'x', i->index,
			   1u << i->scale);
		any = true;
	} else if (i->index != REG_ZERO) {
		disasm_put(t, "%s", any ? "+" : "");
		disasm_gpr(t, i->index, i->asize);
		if (i->asize != 2)
			disasm_put(t, "*%u", 1u << i->scale);
		any = true;
	}
	if (!any)
		disasm_put(t, "0x%" PRIx64, disasm_mask((uint64_t)(int64_t)i->disp, i->asize));
	else if (i->disp)
		disasm_put(t, "%c0x%" PRIx64, i->disp < 0 ? '-' : '+',
			   (uint64_t)(i->disp < 0 ? -(int64_t)i->disp : (int64_t)i->disp));
	disasm_put(t, "]");
}

/* Bytes in a memory or register operand of this kind; 0 where it has no size. */
static unsigned disasm_size(const struct insn *insn, unsigned o)
{
	unsigned v = insn->osize;

	switch (o) {
	case Eb:
	case Mb:
	case Gb:
	case Zb:
	case AL:
	case CL:
	case Ob:
	case Xb:
	case Yb:
	case Wb:
	case RdMb: return 1;
	case Ew:
	case Mw:
	case Rw:
	case Gw:
	case AX:
	case DX:
	case Ww:
	case RdMw:
	case RvMw: return 2;
	case Ed:
	case Md:
	case Rd:
	case Gd:
	case Bd:
	case Qd:
	case Wd: return 4;
	case Eq:
	case Mq:
	case Rq:
	case Gq:
	case Bq:
	case Qq:
	case Wq: return 8;
	case Ev:
	case Mv:
	case Rv:
	case Gv:
	case Zv:
	case rAX:
	case Ov:
	case Xv:
	case Yv: return v;
	case Gz:
	case eAX:
	case Xz:
	case Yz: return v == 2 ? 2 : 4;
	case Ey:
	case My:
	case Ry:
	case Gy:
	case By:
	case Cy:
	case Dy: return v == 8 ? 8 : 4;
	case Mdq:
	case Wdq: return 16;
	case Mqq:
	case Wqq: return 32;
	case Mx:
	case Wx: return insn->flags & IF_L ? 32 : 16;
	case Mt: return 10;
	case Mp: return v == 2 ? 4 : v == 4 ? 6 : 10;
	case Ma: return v * 2;
	default: return 0;
	}
}

static void disasm_vec(struct text *t, unsigned o, unsigned n)
{
	bool y = o == Vqq || o == Hqq || o == Wqq || o == Lqq;

	if (o == Vx || o == Hx || o == Wx || o == Ux || o == Lx)
		y = t->insn->flags & IF_L;
	disasm_put(t, "%cmm%u", y ? 'y' : 'x', n);
}

static void disasm_string(struct text *t, unsigned o)
{
	bool src = o == Xb || o == Xv || o == Xz;

	disasm_put(t, "%s%s:[", disasm_ptr(disasm_size(t->insn, o)),
		   src ? disasm_seg[t->insn->seg & 7] : "es");
	disasm_gpr(t, src ? REG_RSI : REG_RDI, t->insn->asize);
	disasm_put(t, "]");
}

static void disasm_operand(struct text *t, unsigned o)
{
	const struct insn *i = t->insn;
	unsigned size = disasm_size(t->insn, o);

	switch (o) {
	case Eb:
	case Ew:
	case Ed:
	case Eq:
	case Ev:
	case Ey:
	case Rw:
	case Rd:
	case Rq:
	case Ry:
	case Rv:
	case RdMb:
	case RdMw:
	case RvMw:
		if (i->flags & IF_MEM)
			disasm_mem(t, size);
		else
			disasm_gpr(t, i->rm,
				   o == RvMw                ? i->osize
				   : o == RdMb || o == RdMw ? 4
							    : size);
		break;
	case Ep:
	case Mb:
	case Mw:
	case Md:
	case Mq:
	case Mv:
	case My:
	case Mdq:
	case Mqq:
	case Mx:
	case Mt:
	case Mp:
	case Ma:
	case Ms:
	case M_: disasm_mem(t, size); break;
	case Gb:
	case Gw:
	case Gd:
	case Gq:
	case Gv:
	case Gz:
	case Gy: disasm_gpr(t, i->reg, size); break;
	case Bd:
	case Bq:
	case By: disasm_gpr(t, i->vvvv, size); break;
	case Zb:
	case Zv: disasm_gpr(t, i->rm, size); break;
	case AL:
	case AX:
	case eAX:
	case rAX: disasm_gpr(t, REG_RAX, size); break;
	case CL: disasm_put(t, "cl"); break;
	case DX: disasm_put(t, "dx"); break;
	case I1: disasm_put(t, "1"); break;
	case Ib:
	case Iw: disasm_put(t, "0x%" PRIx64, i->imm); break;
	case Ibs:
	case Iz:
	case Iv: disasm_put(t, "0x%" PRIx64, disasm_mask(i->imm, i->osize)); break;
	case Ib2: disasm_put(t, "0x%x", i->imm2); break;
	case Jb:
	case Jz:
		disasm_put(
			t, "0x%" PRIx64,
			disasm_mask(t->rip + i->len + i->imm, t->mode == DECODE_64 ? 8 : i->osize));
		break;
	case Ap: disasm_put(t, "0x%x:0x%" PRIx64, i->imm2, i->imm); break;
	case Ob:
	case Ov:
		disasm_put(t, "%s%s:0x%" PRIx64, disasm_ptr(size), disasm_seg[i->seg & 7], i->imm);
		break;
	case Sw: disasm_put(t, "%s", disasm_seg[i->reg & 7]); break;
	case rES:
	case rCS:
	case rSS:
	case rDS:
	case rFS:
	case rGS: disasm_put(t, "%s", disasm_seg[o - rES]); break;
	case Cy:
	case Dy: disasm_put(t, "%s%u", o == Cy ? "cr" : "dr", i->reg); break;
	case Xb:
	case Xv:
	case Xz:
	case Yb:
	case Yv:
	case Yz: disasm_string(t, o); break;
	case Pd:
	case Pq: disasm_put(t, "mm%u", i->reg); break;
	case Qd:
	case Qq:
	case Nq:
		if (i->flags & IF_MEM)
			disasm_mem(t, size);
		else
			disasm_put(t, "mm%u", i->rm);
		break;
	case Vd:
	case Vq:
	case Vdq:
	case Vqq:
	case Vx: disasm_vec(t, o, i->reg); break;
	case Hd:
	case Hq:
	case Hdq:
	case Hqq:
	case Hx: disasm_vec(t, o, i->vvvv); break;
	case Wb:
	case Ww:
	case Wd:
	case Wq:
	case Wdq:
	case Wqq:
	case Wx:
	case Ud:
	case Uq:
	case Udq:
	case Ux:
		if (i->flags & IF_MEM)
			disasm_mem(t, size);
		else
			disasm_vec(t, o, i->rm);
		break;
	case Ldq:
	case Lqq:
	case Lx: disasm_vec(t, o, (unsigned)(i->imm >> 4 & (t->mode == DECODE_64 ? 15 : 7))); break;
	case XMM0: disasm_put(t, "xmm0"); break;
	case ST0: disasm_put(t, "st"); break;
	case STi: disasm_put(t, "st(%u)", i->rm); break;
	default: break;
	}
}

/* Mnemonics that the operand or address size chooses: for 2, 4 and 8 bytes. */
static const char *disasm_sized(const struct text *t)
{
	static const struct {
		uint16_t id;
		bool address;
		const char *name[3];
	} sized[] = {
		{ I_CBW, false, { "cbw", "cwde", "cdqe" } },
		{ I_CWD, false, { "cwd", "cdq", "cqo" } },
		{ I_PUSHA, false, { "pushaw", "pusha", "pusha" } },
		{ I_POPA, false, { "popaw", "popa", "popa" } },
		{ I_PUSHF, false, { "pushfw", "pushf", "pushfq" } },
		{ I_POPF, false, { "popfw", "popf", "popfq" } },
		{ I_IRET, false, { "iretw", "iret", "iretq" } },
		{ I_RETF, false, { "retfw", "retf", "retfq" } },
		{ I_RETF_Iw, false, { "retfw", "retf", "retfq" } },
		{ I_SYSRET, false, { "sysret", "sysret", "sysretq" } },
		{ I_SYSEXIT, false, { "sysexit", "sysexit", "sysexitq" } },
		{ I_JRCXZ, true, { "jcxz", "jecxz", "jrcxz" } },
		{ I_FXSAVE, false, { "fxsave", "fxsave", "fxsave64" } },
		{ I_FXRSTOR, false, { "fxrstor", "fxrstor", "fxrstor64" } },
		{ I_XSAVE, false, { "xsave", "xsave", "xsave64" } },
		{ I_XSAVEOPT, false, { "xsaveopt", "xsaveopt", "xsaveopt64" } },
		{ I_XSAVEC, false, { "xsavec", "xsavec", "xsavec64" } },
		{ I_XSAVES, false, { "xsaves", "xsaves", "xsaves64" } },
		{ I_XRSTOR, false, { "xrstor", "xrstor", "xrstor64" } },
		{ I_XRSTORS, false, { "xrstors", "xrstors", "xrstors64" } },
		{ I_MOVD_PqEy, false, { "movd", "movd", "movq" } },
		{ I_MOVD_EyPq, false, { "movd", "movd", "movq" } },
		{ I_MOVD_VdqEy, false, { "movd", "movd", "movq" } },
		{ I_MOVD_EyVdq, false, { "movd", "movd", "movq" } },
		{ I_VMOVD_VdqEy, false, { "vmovd", "vmovd", "vmovq" } },
		{ I_VMOVD_EyVdq, false, { "vmovd", "vmovd", "vmovq" } },
		{ I_PINSRD_VdqEyIb, false, { "pinsrd", "pinsrd", "pinsrq" } },
		{ I_PEXTRD_EyVdqIb, false, { "pextrd", "pextrd", "pextrq" } },
	};

	for (size_t k = 0; k < sizeof(sized) / sizeof(sized[0]); k++) {
		unsigned size = sized[k].address ? t->insn->asize : t->insn->osize;

		if (sized[k].id == t->insn->id)
			return sized[k].name[size == 2 ? 0 : size == 4 ? 1 : 2];
	}
	return t->info->mnem;
}

static bool disasm_is_string(unsigned o)
{
	return o >= Xb && o <= Yz;
}

static void disasm_mnemonic(struct text *t, bool string)
{
	const struct insn *i = t->insn;
	const char *m = disasm_sized(t);

	if (i->flags & IF_LOCK)
		disasm_put(t, "lock ");
	if (t->info->attr & A_REP && i->flags & (IF_REP | IF_REPNE))
		disasm_put(t, "%s ",
			   !(t->info->attr & A_REPZ) ? "rep"
			   : i->flags & IF_REP       ? "repe"
						     : "repne");
	if (t->info->attr & A_X16) {
		disasm_put(t, "%.*s%s", (int)strlen(m) - 2, m, disasm_cc[i->cc]);
	} else if (string) {
		unsigned o = t->info->operand[disasm_is_string(t->info->operand[0]) ? 0 : 1];
		unsigned size = disasm_size(t->insn, o);

		disasm_put(t, "%s%c", m, size == 1 ? 'b' : size == 2 ? 'w' : size == 4 ? 'd' : 'q');
	} else {
		disasm_put(t, "%s", m);
	}
}

unsigned insn_memory_size(const struct insn *insn)
{
	const uint8_t *operand = insn_info[insn->id].operand;

	if (!(insn->flags & IF_MEM))
		return 0;
	for (unsigned k = 0; k < 5 && operand[k]; k++) {
		unsigned o = operand[k];

		if ((o >= Eb && o <= M_) || (o >= RdMb && o <= RvMw) || o == Ob || o == Ov ||
		    o == Qd || o == Qq || (o >= Wb && o <= Wx))
			return disasm_size(insn, o);
	}
	return 0;
}

int insn_format(const struct insn *insn, enum decode_mode mode, uint64_t rip, char *buf, size_t cap)
{
	struct text t = { .buf = buf, .cap = cap, .insn = insn, .mode = mode, .rip = rip };
	bool string;

	if (cap)
		buf[0] = 0;
	if (insn->id >= I_COUNT) {
		disasm_put(&t, "(bad)");
		return (int)t.len;
	}
	t.info = &insn_info[insn->id];
	string = disasm_is_string(t.info->operand[0]) || disasm_is_string(t.info->operand[1]);
	disasm_mnemonic(&t, string);
	/* A string instruction's suffix says it all unless the source segment was overridden. */
	if (string && insn->seg == SEG_DS)
		return (int)t.len;
	for (unsigned k = 0; k < 5 && t.info->operand[k]; k++) {
		disasm_put(&t, k ? ", " : " ");
		disasm_operand(&t, t.info->operand[k]);
	}
	return (int)t.len;
}
