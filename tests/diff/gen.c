/*
 * Case generator of the differential test: bytes from a row's columns, checked with the decoder;
 * then registers such that the memory operand lies where something interesting happens.
 *
 * References: [SDM2 2], [SDM2D A].
 * Threads:    one.
 */
#include <string.h>

#include "base/bits.h"
#include "gen.h"
#include "x86/decode.h"

uint8_t diff_template[DIFF_DATA_PAGES * 4096];

uint64_t diff_rand(struct diff_rng *g)
{
	uint64_t z = (g->s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

unsigned gen_below(struct diff_rng *g, unsigned n)
{
	return (unsigned)(diff_rand(g) % n);
}

bool gen_percent(struct diff_rng *g, unsigned p)
{
	return gen_below(g, 100) < p;
}

/* Integers of the kinds that break things. */
uint64_t gen_int(struct diff_rng *g)
{
	static const uint64_t edge[] = { 0,          1,          0x7f,
					 0x80,       0xff,       0x7fff,
					 0x8000,     0xffff,     0x7fffffff,
					 0x80000000, 0xffffffff, ~0ull,
					 1ull << 63, ~0ull >> 1, 0x5555555555555555 };

	switch (gen_below(g, 4)) {
	case 0: return edge[gen_below(g, ARRAY_SIZE(edge))];
	case 1: return gen_below(g, 256);
	case 2: return diff_rand(g) >> gen_below(g, 64);
	default: return diff_rand(g);
	}
}

static uint32_t gen_f32(struct diff_rng *g)
{
	static const uint32_t edge[] = {
		0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
		0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x007fffff,
		0x7f7fffff, 0x00800000, 0x4f000000, 0xcf000000, 0x5f000000
	};

	switch (gen_below(g, 4)) {
	case 0: return edge[gen_below(g, ARRAY_SIZE(edge))];
	case 1: return 0x3f800000 + ((uint32_t)diff_rand(g) & 0x87ffffff);
	default: return (uint32_t)diff_rand(g);
	}
}

static uint64_t gen_f64(struct diff_rng *g)
{
	static const uint64_t edge[] = { 0,
					 1ull << 63,
					 0x3ff0000000000000,
					 0x7ff0000000000000,
					 0xfff0000000000000,
					 0x7ff8000000000000,
					 0x7ff0000000000001,
					 1,
					 0x000fffffffffffff,
					 0x7fefffffffffffff,
					 0x0010000000000000,
					 0x41e0000000000000,
					 0x43e0000000000000 };

	switch (gen_below(g, 4)) {
	case 0: return edge[gen_below(g, ARRAY_SIZE(edge))];
	case 1: return 0x3ff0000000000000 + (diff_rand(g) & 0x80ffffffffffffff);
	default: return diff_rand(g);
	}
}

void gen_bytes(struct diff_rng *g, uint8_t *p, unsigned n)
{
	unsigned kind = gen_below(g, 4);

	for (unsigned k = 0; k + 8 <= n; k += 8) {
		uint64_t x;

		switch (kind) {
		case 0: x = gen_f32(g) | (uint64_t)gen_f32(g) << 32; break;
		case 1: x = gen_f64(g); break;
		case 2: x = gen_int(g); break;
		default: x = diff_rand(g); break;
		}
		memcpy(p + k, &x, 8);
	}
}

void gen_st(struct diff_rng *g, uint8_t *p)
{
	static const uint16_t exps[] = { 0, 1, 0x3fff, 0x4000, 0x7ffe, 0x7fff, 0x403e, 0x401e };
	uint64_t man = gen_percent(g, 30) ? 1ull << 63 : diff_rand(g);
	uint16_t exp = gen_percent(g, 40) ? exps[gen_below(g, 8)]
					  : (uint16_t)(0x3fe0 + gen_below(g, 0x40));

	if (gen_percent(g, 85))
		man |= 1ull << 63;
	if (gen_percent(g, 10)) {
		man = 0;
		exp = 0;
	}
	exp |= (uint16_t)(gen_below(g, 2) << 15);
	memcpy(p, &man, 8);
	memcpy(p + 8, &exp, 2);
}

/* Vector, x87 and control state. */
void gen_xsave(struct diff_rng *g, uint8_t *x)
{
	uint16_t fcw = 0x37f, fsw = 0;
	uint32_t mxcsr = 0x1f80;
	uint64_t bv = 7;

	memset(x, 0, DIFF_XSAVE);
	if (gen_percent(g, 50))
		fcw = (uint16_t)(0x7f | gen_below(g, 16) << 8);
	if (gen_percent(g, 8))
		fcw &= (uint16_t)~gen_below(g, 64);
	fsw = (uint16_t)(gen_below(g, 8) << 11);
	if (gen_percent(g, 50))
		fsw |= (uint16_t)(diff_rand(g) & 0x4700);
	if (gen_percent(g, 10))
		fsw |= (uint16_t)(diff_rand(g) & 0x7f);
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	memcpy(x, &fcw, 2);
	memcpy(x + 2, &fsw, 2);
	x[4] = gen_percent(g, 50) ? 0xff : (uint8_t)diff_rand(g);
	if (gen_percent(g, 50))
		mxcsr |= (uint32_t)(diff_rand(g) & 0xe07f);
	if (gen_percent(g, 6))
		mxcsr &= ~(uint32_t)(diff_rand(g) & 0x1f80);
	memcpy(x + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 8; n++)
		gen_st(g, x + 32 + 16 * n);
	for (unsigned n = 0; n < 16; n++) {
		gen_bytes(g, x + 160 + 16 * n, 16);
		gen_bytes(g, x + 576 + 16 * n, 16);
	}
	memcpy(x + 512, &bv, 8);
}

/* ---- Which rows ----------------------------------------------------------------------------- */

static bool gen_starts(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (!strncmp(s, *list, strlen(*list)))
			return true;
	return false;
}

const char *diff_skip_reason(unsigned id)
{
	static const char *const selector[] = {
		"POP_ES", "POP_SS",  "POP_DS",  "POP_FS", "POP_GS", "MOV_SwEw", "LES_", "LDS_",
		"LSS_",   "LFS_",    "LGS_",    "LAR_",   "LSL_",   "VERR",     "VERW", "JMP_Ap",
		"JMP_Ep", "CALL_Ap", "CALL_Ep", "RETF",   "IRET",   NULL
	};
	static const char *const kernel[] = { "INT3",     "INT1",    "INT_",   "SYSCALL", "INTO",
					      "SYSENTER", "SLDT",    "STR",    "SGDT",    "SIDT",
					      "SMSW",     "MONITOR", "MWAIT",  "VMCALL",  "VMMCALL",
					      "RDPMC",    "CPUID",   "XGETBV", "RDPKRU",  "WRPKRU",
					      NULL };
	static const char *const varies[] = { "RDTSC",    "RDPID",    "RDRAND",
					      "RDSEED",   "RDFSBASE", "RDGSBASE",
					      "WRFSBASE", "WRGSBASE", NULL };
	const struct insn_info *row = &insn_info[id];

	if (gen_starts(row->name, selector))
		return "wants the descriptors of the kernel below: guest tests";
	if (row->feature == FEAT_XSAVES)
		return "the guest is not offered it";
	if (!strncmp(row->name, "STOS", 4))
		return NULL;
	if (gen_starts(row->name, kernel))
		return "depends on the kernel or hypervisor below: guest tests";
	if (gen_starts(row->name, varies))
		return "result differs each time, or would break the child";
	return NULL;
}

/* ---- Bytes ---------------------------------------------------------------------------------- */

void gen_put(struct gen_code *c, uint64_t x, unsigned n)
{
	memcpy(c->b + c->n, &x, n);
	c->n += n;
}

static void gen_modrm(struct diff_rng *g, struct gen_code *c, const struct insn_info *row,
		      bool mode32, bool asize16)
{
	unsigned reg = gen_below(g, 8), mod, rm = gen_below(g, 8);
	bool mem = gen_percent(g, 50);

	switch (row->ext & 0xf00) {
	case 0x100: reg = row->ext & 7; break;
	case 0x200:
		reg = row->ext & 7;
		mem = true;
		break;
	case 0x300:
		reg = row->ext & 7;
		mem = false;
		break;
	case 0x400: mem = true; break;
	case 0x500: mem = false; break;
	case 0x600: gen_put(c, row->ext & 0xff, 1); return;
	default: break;
	}
	if (row->attr & A_VSIB)
		rm = 4;
	if (!mem) {
		gen_put(c, 0xc0 | reg << 3 | rm, 1);
		return;
	}
	mod = gen_below(g, 3);
	gen_put(c, mod << 6 | reg << 3 | rm, 1);
	if (asize16) {
		gen_put(c, diff_rand(g), mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0);
		return;
	}
	if (rm == 4) {
		uint8_t sib = (uint8_t)diff_rand(g);

		gen_put(c, sib, 1);
		if (mod == 0 && (sib & 7) == 5) {
			c->disp32_at = (int)c->n;
			gen_put(c, (uint64_t)((int64_t)gen_below(g, 4000) - 2000), 4);
		}
	} else if (mod == 0 && rm == 5) {
		c->disp32_at = (int)c->n;
		gen_put(c, 0, 4);
	}
	if (mod == 2)
		c->mod2_at = (int)c->n;
	if (mod == 1)
		gen_put(c, diff_rand(g), 1);
	else if (mod == 2)
		gen_put(c, (uint64_t)((int64_t)(int32_t)diff_rand(g) >> gen_below(g, 20)), 4);
}

static void gen_imm(struct diff_rng *g, struct gen_code *c, const struct insn_info *row,
		    unsigned osize, bool asize_small, bool mode32)
{
	for (unsigned n = 0; n < 5; n++) {
		switch (row->operand[n]) {
		case Ib:
		case Ibs:
		case Ib2:
		case Ldq:
		case Lqq:
		case Lx: gen_put(c, gen_percent(g, 40) ? gen_below(g, 16) : diff_rand(g), 1); break;
		case Jb: gen_put(c, diff_rand(g), 1); break;
		case Iw:
			gen_put(c, row->op == 0xc8 ? gen_below(g, 64) : gen_below(g, 32), 2);
			break;
		case Iz: gen_put(c, gen_int(g), osize == 2 ? 2 : 4); break;
		case Jz:
			gen_put(c, (uint64_t)((int64_t)gen_below(g, 240) - 120),
				osize == 2 && mode32 ? 2 : 4);
			break;
		case Iv: gen_put(c, gen_int(g), osize); break;
		case Ob:
		case Ov:
			c->moffs_at = (int)c->n;
			gen_put(c, 0, mode32 || asize_small ? 4 : 8);
			break;
		default: break;
		}
	}
}

/* Bytes of some instance of the row. The decoder decides whether they are one. */
void gen_encode(struct diff_rng *g, unsigned id, bool mode32, struct gen_code *c)
{
	static const uint8_t pp_byte[] = { 0, 0x66, 0xf3, 0xf2 };
	const struct insn_info *row = &insn_info[id];
	uint8_t rex = mode32 ? 0 : (uint8_t)(0x40 | gen_below(g, 16));
	uint8_t op = row->op;
	unsigned osize = 4;
	bool modrm, as = gen_percent(g, 6);

	*c = (struct gen_code){ .disp32_at = -1, .moffs_at = -1, .mod2_at = -1 };
	if (mode32)
		as = false; /* 16-bit addresses cannot reach the data */
	if (row->attr & A_X8)
		op |= gen_below(g, 8);
	else if (row->attr & A_X16)
		op |= gen_below(g, 16);
	if (as)
		gen_put(c, 0x67, 1);
	if (gen_percent(g, 4) && !mode32)
		gen_put(c, 0x65, 1); /* GS */
	if (row->map >= V0F) {
		bool w = row->attr & A_W1 ? true : row->attr & A_W0 ? false : gen_percent(g, 50);
		bool l = row->attr & A_L1 ? true : row->attr & A_L0 ? false : gen_percent(g, 50);
		uint8_t v = row->attr & A_NOVVVV ? 15 : (uint8_t)gen_below(g, 16);
		uint8_t rxb = mode32 ? 0xe0 : (uint8_t)(gen_below(g, 8) << 5);

		if (mode32) {
			v |= 8;
			/* VPINSRQ and VPEXTRQ do not exist: #UD on AMD, W ignored on Intel. */
			if (row->map == V0F3A && !(row->attr & A_W1))
				w = false;
		}
		gen_put(c, 0xc4, 1);
		gen_put(c, rxb | (row->map - V0F + 1), 1);
		gen_put(c, (w ? 0x80 : 0) | v << 3 | (l ? 4 : 0) | row->pp, 1);
	} else {
		/* Near branches: vendors differ, see note 1 of the table. */
		if (row->pp >= PA && gen_percent(g, 25) && !(row->attr & A_BRANCH)) {
			gen_put(c, 0x66, 1);
			osize = 2;
		}
		if (row->attr & A_REP && gen_percent(g, 60))
			gen_put(c, gen_percent(g, 50) ? 0xf3 : 0xf2, 1);
		if (row->attr & A_LOCK && gen_percent(g, 30))
			gen_put(c, 0xf0, 1);
		if (row->pp < PA && pp_byte[row->pp]) {
			if (row->pp >= PF3 && gen_percent(g, 15)) {
				gen_put(c, 0x66, 1); /* operand size of CRC32, POPCNT */
				osize = 2;
			}
			gen_put(c, pp_byte[row->pp], 1);
		}
		if (rex && (gen_percent(g, 60) || row->attr & A_W1)) {
			if (row->attr & A_W1)
				rex |= 8;
			if (row->attr & A_W0)
				rex &= 0xf7;
			gen_put(c, rex, 1);
			if (rex & 8)
				osize = 8;
		}
		if (row->map != M1)
			gen_put(c, 0x0f, 1);
		if (row->map == M0F38)
			gen_put(c, 0x38, 1);
		else if (row->map == M0F3A)
			gen_put(c, 0x3a, 1);
	}
	gen_put(c, op, 1);
	modrm = row->ext != X_ANY;
	for (unsigned n = 0; n < 5; n++) {
		unsigned o = row->operand[n];

		if ((o >= Eb && o <= Gy) || (o >= Pd && o <= Wx) || (o >= Ud && o <= Ux) ||
		    o == STi || o == Sw)
			modrm |= o != Hx;
	}
	if (modrm)
		gen_modrm(g, c, row, mode32, false);
	gen_imm(g, c, row, osize, as, mode32);
}

/* ---- Registers ------------------------------------------------------------------------------ */

/* Where a memory operand goes: mostly across the border of the two writable pages. */
uint64_t gen_target(struct diff_rng *g, unsigned align)
{
	unsigned k = gen_below(g, 100);
	uint64_t a;

	if (k < 45)
		a = DIFF_DATA + 4096 - 64 + gen_below(g, 128);
	else if (k < 80)
		a = DIFF_DATA + gen_below(g, DIFF_RW_SIZE - 256);
	else if (k < 88)
		a = DIFF_DATA + DIFF_RW_SIZE - gen_below(g, 48); /* into the hole */
	else if (k < 94)
		a = DIFF_DATA + DIFF_RO_OFF + 512 + gen_below(g, 1024);
	else if (k < 97)
		a = DIFF_DATA + DIFF_RO_OFF - gen_below(g, 32); /* from the hole */
	else
		a = DIFF_DATA + gen_below(g, 64);
	return align > 1 && gen_percent(g, 80) ? a & ~(uint64_t)(align - 1) : a;
}

/* Solve for the base (or index) register. False: cannot be. */
static bool gen_fix_address(struct diff_rng *g, const struct insn *i, struct gen_code *code,
			    struct diff_case *c, uint64_t target)
{
	uint64_t ip = c->in.rip + i->len, idx;

	if (i->seg == SEG_GS)
		target -= DIFF_DATA;
	else if (i->seg == SEG_FS)
		return false;
	if (code->moffs_at >= 0) {
		memcpy(code->b + code->moffs_at, &target, i->asize);
		return true;
	}
	if (i->base == REG_RIP || (i->base == REG_ZERO && i->index == REG_ZERO)) {
		int64_t d = (int64_t)(target - (i->base == REG_RIP ? ip : 0));

		if (code->disp32_at < 0)
			return false;
		memcpy(code->b + code->disp32_at, &d, 4);
		return true;
	}
	if (insn_info[i->id].attr & A_VSIB) {
		unsigned isize = strstr(insn_info[i->id].mnem, "qd") ||
						 strstr(insn_info[i->id].mnem, "qq") ||
						 strstr(insn_info[i->id].mnem, "qp")
					 ? 8
					 : 4;

		if (i->base == REG_ZERO)
			return false;
		for (unsigned n = 0; n < 32; n += isize) {
			int64_t x = (int64_t)gen_below(g, 64) - 16;

			memcpy(c->in.xsave + (n < 16 ? 160 : 576 - 16) + 16 * i->index + n, &x,
			       isize);
		}
		c->in.r[i->base] = target - (uint64_t)(int64_t)i->disp;
		return true;
	}
	if (i->base == REG_ZERO) {
		idx = target - (uint64_t)(int64_t)i->disp;
		c->in.r[i->index] = idx >> i->scale;
		/* The target is not met exactly; SHA rows need their alignment. */
		return insn_info[i->id].feature != FEAT_SHA || !(idx & (BIT(i->scale) - 1));
	}
	if (i->base == i->index)
		return false;
	idx = i->index == REG_ZERO ? 0 : c->in.r[i->index];
	c->in.r[i->base] = target - (idx << i->scale) - (uint64_t)(int64_t)i->disp;
	if (i->asize == 4 && gen_percent(g, 50))
		c->in.r[i->base] += diff_rand(g) << 32;
	return true;
}

/* What implied operands, or just luck, would make useless or dangerous. */
static void gen_special(struct diff_rng *g, const struct insn *i, unsigned n, struct diff_case *c,
			uint64_t target)
{
	const char *name = insn_info[i->id].name;
	uint64_t x, at = target - DIFF_DATA - c->patch_at;
	bool patched = i->flags & IF_MEM && at <= DIFF_PATCH - 32;
	bool reg = !(i->flags & IF_MEM);

	if (insn_info[i->id].attr & A_REP)
		c->in.r[REG_RCX] = gen_below(g, 20);
	if (!strncmp(name, "LOOP", 4))
		c->in.r[REG_RCX] = gen_below(g, 3);
	if (name[0] == 'B' && name[1] == 'T' && i->flags & IF_MEM)
		c->in.r[i->reg] = (uint64_t)((int64_t)gen_below(g, 1024) - 512);
	if (!strncmp(name, "CMPXCHG", 7) && (reg || patched) && gen_percent(g, 50) &&
	    (reg || (i->base != REG_RAX && i->index != REG_RAX && i->base != REG_RDX &&
		     i->index != REG_RDX))) {
		/* Equal operands: rAX is what memory or register has. */
		if (reg)
			c->in.r[REG_RAX] = c->in.r[i->rm];
		else
			memcpy(&c->in.r[REG_RAX], c->patch + at, 8);
		if (name[7] != '_')
			memcpy(&c->in.r[REG_RDX], c->patch + at + (i->id == I_CMPXCHG16B ? 8 : 4),
			       8);
	}
	if (i->id == I_FXRSTOR && patched)
		memset(c->patch + at + 26, 0, 2); /* MXCSR.MM is AMD's, and reserved bits are #GP */
	if ((i->id == I_LDMXCSR || i->id == I_VLDMXCSR) && patched)
		c->patch[at + 2] &= 0xfd; /* likewise */
	if (i->id == I_POPF || !strncmp(name, "RET", 3)) {
		/* TF would trap, AC fault in the handler; a return wants a place to go to. */
		x = i->id == I_POPF ? diff_rand(g) & 0x204cd5 : diff_ip(n) + 32;
		memcpy(c->patch + DIFF_PATCH / 2, &x, 8);
		c->in.r[REG_RSP] = DIFF_DATA + c->patch_at + DIFF_PATCH / 2;
	}
	if ((i->id == I_JMP_Ev || i->id == I_CALL_Ev) && (reg || patched) && gen_percent(g, 70)) {
		x = diff_ip(n) + 16 + gen_below(g, 64);
		if (reg)
			c->in.r[i->rm] = x;
		else
			memcpy(c->patch + at, &x, 8);
	}
}

static bool gen_is_xsave(unsigned id)
{
	return id == I_XSAVE || id == I_XSAVEOPT || id == I_XSAVEC || id == I_XRSTOR;
}

/* An area for XRSTOR, or for XSAVE to write over: mostly with a valid header. */
static void gen_xsave_area(struct diff_rng *g, struct diff_case *c, uint64_t target)
{
	uint64_t h[8] = { diff_rand(g) & 7 };

	/* The process has more components than the guest: only the common ones are named. */
	c->in.r[REG_RAX] = (diff_rand(g) & ~0xffffffffull) | gen_below(g, 8);
	c->in.r[REG_RDX] = diff_rand(g) << 32;
	if (target - DIFF_DATA > DIFF_RW_SIZE - DIFF_PATCH_MAX)
		return;
	c->patch_at = (uint32_t)(target - DIFF_DATA);
	c->patch_len = DIFF_PATCH_MAX;
	gen_xsave(g, c->patch);
	if (gen_percent(g, 30))
		h[1] = 1ull << 63 | h[0] | gen_below(g, 8);
	if (gen_percent(g, 5))
		h[gen_below(g, 8)] ^= 1ull << gen_below(g, 3);
	memcpy(c->patch + 512, h, 64);
}

unsigned gen_align(unsigned id, const struct insn_info *row)
{
	if (gen_is_xsave(id))
		return 64;
	return row->attr & A_ALIGN || id == I_CMPXCHG16B || id == I_FXSAVE || id == I_FXRSTOR ? 16
											      : 0;
}

bool diff_generate(struct diff_rng *g, unsigned id, unsigned n, bool mode32, struct diff_case *c)
{
	enum decode_mode mode = mode32 ? DECODE_32 : DECODE_64;
	const struct insn_info *row = &insn_info[id];
	struct gen_code code;
	struct insn i;
	unsigned tries = 0, align = gen_align(id, row);
	uint64_t target;

	do {
		if (++tries > 60)
			return false;
		gen_encode(g, id, mode32, &code);
	} while (code.n > 15 || insn_decode(code.b, code.n, mode, false, &i) != DECODE_OK ||
		 i.id != id || i.len != code.n);

	if (id == I_MOVSXD_GvEd && i.osize == 2)
		return false; /* vendors differ, see note 2 of the table */
	memset(c, 0, sizeof(*c));
	c->id = (uint16_t)id;
	c->mode32 = mode32;
	c->in.rip = diff_ip(n);
	/* CF PF AF ZF SF OF at random, DF sometimes */
	c->in.flags = 0x202 | (diff_rand(g) & 0x8d5) | (gen_percent(g, 20) ? 0x400 : 0);
	/* AC. Which operands of more than 8 bytes it is for differs between vendors. */
	if (gen_percent(g, 4) && id != I_BOUND_GvMa && id != I_CMPS_b && id != I_CMPS_v &&
	    !(row->attr & (A_SSE | A_AVX | A_MMX | A_X87)))
		c->in.flags |= 1 << 18;
	gen_xsave(g, c->in.xsave);
	for (unsigned k = 0; k < 16; k++)
		c->in.r[k] = gen_int(g);
	target = gen_target(g, align * (i.flags & IF_L ? 2 : 1));
	/* AMD lets SHA operands be unaligned, Intel and the interpreter do not. */
	if (row->feature == FEAT_SHA)
		target &= ~15ull;
	/* Implied pointers. */
	c->in.r[REG_RSP] = gen_target(g, 8) & ~(uint64_t)(gen_percent(g, 80) ? 7 : 0);
	c->in.r[REG_RBP] = gen_target(g, 0);
	c->in.r[REG_RSI] = gen_target(g, 0);
	c->in.r[REG_RDI] = gen_target(g, 0);
	if (id == I_CALL_Ev) /* stack or target first: the model's */
		c->in.r[REG_RSP] = DIFF_DATA + 2048;
	if (!strncmp(row->name + (row->name[0] == 'V'), "MASKMOV", 7) && !(i.flags & IF_MEM))
		/* Whether bytes that are masked off fault is the model's. */
		c->in.r[REG_RDI] =
			(i.seg == SEG_GS ? 0 : DIFF_DATA) + gen_below(g, DIFF_RW_SIZE - 16);
	if (id == I_XLAT)
		c->in.r[REG_RBX] = gen_target(g, 0);
	/* Memory with values like those of registers around the operand. */
	if (target < DIFF_DATA + DIFF_RW_SIZE - DIFF_PATCH)
		c->patch_at = (uint32_t)MAX((int64_t)(target - DIFF_DATA) - DIFF_PATCH / 2, 0);
	c->patch_len = DIFF_PATCH;
	gen_bytes(g, c->patch, DIFF_PATCH);
	if (gen_percent(g, 20) && target - DIFF_DATA - c->patch_at <= DIFF_PATCH - 32)
		gen_st(g, c->patch + (target - DIFF_DATA - c->patch_at));
	if (target - DIFF_DATA - c->patch_at > DIFF_PATCH - 16)
		c->patch_at = DIFF_PATCH,
		target = gen_percent(g, 50) ? target : DIFF_DATA + c->patch_at + DIFF_PATCH / 2;
	if (id == I_CALL_Ev && (i.base == REG_RSP || i.index == REG_RSP))
		return false;
	if (i.flags & IF_MEM) {
		if (!gen_fix_address(g, &i, &code, c, target))
			return false;
		if (insn_decode(code.b, code.n, mode, false, &i) != DECODE_OK || i.id != id)
			return false;
	}
	gen_special(g, &i, n, c, target);
	if (gen_is_xsave(id)) {
		uint64_t off = target - DIFF_DATA;

		/* Which fault comes first where a part is not there is the model's. */
		if (i.base == REG_RAX || i.index == REG_RAX || i.base == REG_RDX ||
		    i.index == REG_RDX || (off < DIFF_RW_SIZE && off > DIFF_RW_SIZE - 1024) ||
		    (off > DIFF_RO_OFF - 1024 && off < DIFF_RO_OFF))
			return false;
		gen_xsave_area(g, c, target);
	}
	/* A branch to itself never ends; one into itself runs who knows what. */
	if ((row->operand[0] == Jb || row->operand[0] == Jz) && i.imm + i.len + 16 < 32)
		return false;
	if (mode32)
		for (unsigned k = 0; k < 16; k++)
			c->in.r[k] = k < 8 ? (uint32_t)c->in.r[k] : 0;
	memcpy(c->code, code.b, code.n);
	c->len = (uint8_t)code.n;
	return true;
}
