/*
 * The instruction decoder.
 *
 * Theory of operation: the rows of insn.def are turned, once, into an index. A slot stands for one
 * opcode of one map. Which rows of a slot fit depends on at most five bits (mandatory prefix, W, L,
 * 64-bit mode) and on ModRM; a slot says which of these matter, packs only those into a number, and
 * that number selects the row in decode_entry[]. So decoding is: prefixes, opcode, one lookup,
 * then fetching what the row's operands call for. Nothing searches.
 *
 * What a lookup cannot tell is checked after it: LOCK, VEX.vvvv, real mode, register numbers.
 * A result other than DECODE_MORE depends on no byte beyond those consumed, so that decoding the
 * same bytes with more behind them gives the same result.
 *
 * Modelled:     see decode.h.
 * References:   [SDM2 2], [SDM2D A], [APM3 1.2]. Numbered notes are those of insn.def.
 * Threads:      any. The index is built under pthread_once and never changes after.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "x86/decode.h"

enum {
	LEN_MAX = 15,
	NO_ROW = 0xffff,
	ENTRY_MAX = 16384,

	/* Bits of the selector: mandatory prefix (two bits), W, L, 64-bit mode. */
	K_PP = 3,
	K_W = 4,
	K_L = 8,
	K_64 = 16,
	K_COUNT = 32,

	/* ModRM as a selector: none; memory or register with reg; memory with reg or whole byte. */
	MODRM_NONE = 1,
	MODRM_REG = 16,
	MODRM_FULL = 72,
};

/* One opcode of one map. mask is the set of K_ bits that matter. */
struct decode_slot {
	uint16_t first;
	uint8_t mask;
	uint8_t modrms; /* entries for each selector value: MODRM_ */
	bool valid, modrm;
};

/* What a row needs besides its insn_info. */
enum {
	RF_MODRM = 1,
	RF_OPSIZE = 2, /* 66 changes the operand size */
	RF_BYTE = 4,
	RF_MOD3 = 8, /* ModRM.mod is ignored: MOV CR, MOV DR */
	RF_SREG = 16,
	RF_CR = 32,
	RF_DR = 64,
	RF_NOREXR = 128, /* ModRM.reg names one of eight registers */
	RF_NOREXB = 256,
	RF_Z = 512,
	RF_MOFFS = 1024,
	RF_IMM = 2048,
};

struct decode_row {
	uint16_t flags;
	uint8_t imm[2]; /* operand kinds, O_NONE if none */
};

/* Written once by decode_build(), constant after. */
static struct decode_slot decode_slot[INSN_MAPS][256];
static uint16_t decode_entry[ENTRY_MAX];
static struct decode_row decode_row[I_COUNT];
static uint8_t decode_pack[K_COUNT][K_COUNT]; /* [mask][bits]: the masked bits moved together */
static atomic_bool decode_ready;

static void decode_build_row(const struct insn_info *info, struct decode_row *row)
{
	unsigned nr_imm = 0, v = 0, y = 0, byte = 0;

	for (unsigned i = 0; i < 5 && info->operand[i]; i++) {
		unsigned o = info->operand[i];

		switch (o) {
		case Ev:
		case Mv:
		case Rv:
		case RvMw:
		case Gv:
		case Gz:
		case Zv:
		case eAX:
		case rAX:
		case Iz:
		case Iv:
		case Jz:
		case Ov:
		case Xv:
		case Xz:
		case Yv:
		case Yz: v = 1; break;
		case Ey:
		case My:
		case Ry:
		case Gy:
		case By:
		case Cy:
		case Dy: y = 1; break;
		case Eb:
		case Mb:
		case Gb:
		case Zb:
		case AL:
		case Ob:
		case Xb:
		case Yb: byte = 1; break;
		default: break;
		}
		if ((o >= Eb && o <= Gy) || (o >= Sw && o < rES) || o == Cy || o == Dy ||
		    (o >= Pd && o <= Vx) || (o >= Wb && o <= Ux) || o == STi)
			row->flags |= RF_MODRM;
		if (o == Sw)
			row->flags |= RF_SREG | RF_NOREXR;
		if (o == Cy)
			row->flags |= RF_CR | RF_MOD3;
		if (o == Dy)
			row->flags |= RF_DR | RF_MOD3;
		if (o == Pd || o == Pq)
			row->flags |= RF_NOREXR;
		if (o == Qd || o == Qq || o == Nq || o == STi)
			row->flags |= RF_NOREXB;
		if (o == Zb || o == Zv)
			row->flags |= RF_Z;
		if (o == Ob || o == Ov)
			row->flags |= RF_MOFFS;
		if ((o >= Ib && o <= Ap) || (o >= Ldq && o <= Lx)) {
			row->imm[nr_imm++] = (uint8_t)o;
			row->flags |= RF_IMM;
		}
	}
	if (info->ext != X_ANY)
		row->flags |= RF_MODRM;
	if (byte && !v && !y)
		row->flags |= RF_BYTE;
	if (info->map <= M0F3A && (v || (!y && (info->pp == PA || info->pp == NF))))
		row->flags |= RF_OPSIZE;
}

static bool decode_fits(const struct insn_info *info, unsigned key, unsigned modrms, unsigned sel)
{
	unsigned pp = key & K_PP;
	bool mem = sel < 8;
	unsigned reg = modrms == MODRM_FULL && !mem ? (sel - 8) >> 3 : sel & 7;

	switch (info->pp) {
	case NP:
	case P66:
	case PF3:
	case PF2:
		if (pp != info->pp)
			return false;
		break;
	case NF:
		if (pp > P66)
			return false;
		break;
	default: break;
	}
	if ((info->attr & A_W0 && key & K_W) || (info->attr & A_W1 && !(key & K_W)) ||
	    (info->attr & A_L0 && key & K_L) || (info->attr & A_L1 && !(key & K_L)) ||
	    (info->attr & A_I64 && key & K_64) || (info->attr & A_O64 && !(key & K_64)))
		return false;
	if (info->ext == X_ANY)
		return true;
	switch (info->ext & ~0xff) {
	case X_G(0): return reg == (info->ext & 7u);
	case X_GM(0): return mem && reg == (info->ext & 7u);
	case X_GR(0): return !mem && reg == (info->ext & 7u);
	case X_M: return mem;
	case X_R: return !mem;
	default: return !mem && sel - 8 == (info->ext & 0x3fu);
	}
}

/* Rows with A_X8 and A_X16 cover several opcodes. */
static unsigned decode_span(const struct insn_info *info)
{
	return info->attr & A_X16 ? 16 : info->attr & A_X8 ? 8 : 1;
}

static void decode_build_slot(struct decode_slot *slot, const uint16_t *rows, unsigned n,
			      unsigned *used)
{
	slot->modrms = MODRM_NONE;
	for (unsigned i = 0; i < n; i++) {
		const struct insn_info *info = &insn_info[rows[i]];

		slot->valid = true;
		slot->modrm |= !!(decode_row[rows[i]].flags & RF_MODRM);
		if (info->pp != PA)
			slot->mask |= K_PP;
		if (info->attr & (A_W0 | A_W1))
			slot->mask |= K_W;
		if (info->attr & (A_L0 | A_L1))
			slot->mask |= K_L;
		if (info->attr & (A_I64 | A_O64))
			slot->mask |= K_64;
		if ((info->ext & ~0xff) == X_RM(0))
			slot->modrms = MODRM_FULL;
		else if (info->ext != X_ANY && slot->modrms == MODRM_NONE)
			slot->modrms = MODRM_REG;
	}
	slot->first = (uint16_t)*used;
	for (unsigned key = 0; key < K_COUNT; key++) {
		if (key & ~slot->mask)
			continue;
		for (unsigned sel = 0; sel < slot->modrms; sel++) {
			uint16_t *e =
				&decode_entry[*used + decode_pack[slot->mask][key] * slot->modrms +
					      sel];

			*e = NO_ROW;
			for (unsigned i = 0; i < n && *e == NO_ROW; i++)
				if (decode_fits(&insn_info[rows[i]], key, slot->modrms, sel))
					*e = rows[i];
		}
	}
	*used += slot->modrms << __builtin_popcount(slot->mask);
}

static void decode_build(void)
{
	unsigned used = 0;

	for (unsigned mask = 0; mask < K_COUNT; mask++)
		for (unsigned bits = 0; bits < K_COUNT; bits++)
			for (unsigned b = 0, out = 0; b < 5; b++)
				if (mask >> b & 1)
					decode_pack[mask][bits] |= (bits >> b & 1) << out++;
	for (unsigned id = 0; id < I_COUNT; id++)
		decode_build_row(&insn_info[id], &decode_row[id]);
	for (unsigned map = 0; map < INSN_MAPS; map++) {
		for (unsigned op = 0; op < 256; op++) {
			uint16_t rows[128];
			unsigned n = 0;

			for (unsigned id = 0; id < I_COUNT && n < 128; id++)
				if (insn_info[id].map == map && op >= insn_info[id].op &&
				    op < insn_info[id].op + decode_span(&insn_info[id]))
					rows[n++] = (uint16_t)id;
			/* The unit test fails on a row that does not fit, long before a guest. */
			if (n && used + (MODRM_FULL << 5) <= ENTRY_MAX)
				decode_build_slot(&decode_slot[map][op], rows, n, &used);
		}
	}
	atomic_store_explicit(&decode_ready, true, memory_order_release);
}

static __attribute__((noinline, cold)) void decode_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, decode_build);
}

/* Classes of prefix bytes. */
enum { P_NONE, P_SEG, P_FSGS, P_OPSIZE, P_ADSIZE, P_LOCK, P_REPNE, P_REP, P_REX };

static const uint8_t decode_prefix[256] = {
	[0x26] = P_SEG,  [0x2e] = P_SEG,   [0x36] = P_SEG,    [0x3e] = P_SEG,
	[0x64] = P_FSGS, [0x65] = P_FSGS,  [0x66] = P_OPSIZE, [0x67] = P_ADSIZE,
	[0xf0] = P_LOCK, [0xf2] = P_REPNE, [0xf3] = P_REP,    [0x40 ... 0x4f] = P_REX,
};

/* State of one decoding: what the prefixes said. */
struct decode {
	const uint8_t *bytes;
	unsigned pos, limit;
	bool m64, opsize, adsize, vex;
	uint8_t rex; /* W R X B in bits 3:0, also from VEX */
	uint8_t pp;  /* mandatory prefix: none, 66, F3, F2 */
	uint8_t vvvv, l;
	int8_t seg; /* override, or -1 */
};

static inline bool decode_has(const struct decode *d, unsigned n)
{
	return d->limit - d->pos >= n;
}

static enum decode_result decode_short(const struct decode *d, struct insn *insn)
{
	insn->len = (uint8_t)d->limit;
	return d->limit == LEN_MAX ? DECODE_GP : DECODE_MORE;
}

static inline uint64_t decode_le(const uint8_t *p, unsigned n)
{
	uint16_t w;
	uint32_t l;
	uint64_t q;

	switch (n) {
	case 1: return *p;
	case 2: memcpy(&w, p, 2); return w;
	case 4: memcpy(&l, p, 4); return l;
	default: memcpy(&q, p, 8); return q;
	}
}

/*
 * The memory operand behind a ModRM byte with mod != 3.
 * Returns DECODE_UD for a vector index without SIB.
 */
static inline enum decode_result decode_memory(struct decode *d, struct insn *insn, bool vsib)
{
	static const uint8_t base16[8] = { REG_RBX, REG_RBX, REG_RBP, REG_RBP,
					   REG_RSI, REG_RDI, REG_RBP, REG_RBX };
	static const uint8_t index16[8] = { REG_RSI,  REG_RDI,  REG_RSI,  REG_RDI,
					    REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO };
	unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;
	unsigned disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;

	insn->flags |= IF_MEM;
	insn->index = REG_ZERO;
	if (insn->asize == 2) {
		if (vsib)
			return DECODE_UD;
		if (mod == 2)
			disp = 2;
		insn->base = base16[rm];
		insn->index = index16[rm];
		if (mod == 0 && rm == 6) {
			insn->base = REG_ZERO;
			disp = 2;
		}
	} else if (rm == 4) {
		uint8_t sib;
		unsigned base, index;

		if (!decode_has(d, 1))
			return decode_short(d, insn);
		sib = d->bytes[d->pos++];
		base = (sib & 7) | (d->rex & 1) << 3;
		index = (sib >> 3 & 7) | (d->rex & 2) << 2;
		insn->scale = sib >> 6;
		if (vsib || index != 4)
			insn->index = (uint8_t)index;
		else
			insn->scale = 0;
		insn->base = (uint8_t)base;
		if ((sib & 7) == 5 && mod == 0) {
			insn->base = REG_ZERO;
			disp = 4;
		}
	} else {
		if (vsib)
			return DECODE_UD;
		insn->base = (uint8_t)(rm | (d->rex & 1) << 3);
		if (mod == 0 && rm == 5) {
			insn->base = d->m64 ? REG_RIP : REG_ZERO;
			disp = 4;
		}
	}
	if (insn->base == REG_RSP || insn->base == REG_RBP)
		insn->seg = SEG_SS;
	if (disp) {
		if (!decode_has(d, disp))
			return decode_short(d, insn);
		insn->disp = disp == 1   ? (int8_t)d->bytes[d->pos]
			     : disp == 2 ? (int16_t)decode_le(d->bytes + d->pos, 2)
					 : (int32_t)decode_le(d->bytes + d->pos, 4);
		d->pos += disp;
	}
	return DECODE_OK;
}

/* One immediate. second: goes to imm2. */
static inline enum decode_result decode_immediate(struct decode *d, struct insn *insn,
						  unsigned kind)
{
	const uint8_t *p = d->bytes + d->pos;
	unsigned n;

	switch (kind) {
	case Ibs:
	case Jb:
		if (!decode_has(d, 1))
			return decode_short(d, insn);
		insn->imm = (uint64_t)(int8_t)*p;
		d->pos++;
		return DECODE_OK;
	case Iz:
	case Jz:
		n = insn->osize == 2 ? 2 : 4;
		if (!decode_has(d, n))
			return decode_short(d, insn);
		insn->imm = n == 2 ? (uint64_t)(int16_t)decode_le(p, 2)
				   : (uint64_t)(int32_t)decode_le(p, 4);
		d->pos += n;
		return DECODE_OK;
	case Iv:
		n = insn->osize;
		if (!decode_has(d, n))
			return decode_short(d, insn);
		insn->imm = n == 2   ? (uint64_t)(int16_t)decode_le(p, 2)
			    : n == 4 ? (uint64_t)(int32_t)decode_le(p, 4)
				     : decode_le(p, 8);
		d->pos += n;
		return DECODE_OK;
	case Iw:
		if (!decode_has(d, 2))
			return decode_short(d, insn);
		insn->imm = decode_le(p, 2);
		d->pos += 2;
		return DECODE_OK;
	case Ib2:
		if (!decode_has(d, 1))
			return decode_short(d, insn);
		insn->imm2 = *p;
		d->pos++;
		return DECODE_OK;
	case Ap:
		n = insn->osize == 2 ? 2 : 4;
		if (!decode_has(d, n + 2))
			return decode_short(d, insn);
		insn->imm = decode_le(p, n);
		insn->imm2 = (uint16_t)decode_le(p + n, 2);
		d->pos += n + 2;
		return DECODE_OK;
	default: /* Ib, and the register in bits 7:4 */
		if (!decode_has(d, 1))
			return decode_short(d, insn);
		insn->imm = *p;
		d->pos++;
		return DECODE_OK;
	}
}

static inline unsigned decode_osize(const struct decode *d, enum decode_mode mode,
				    const struct insn_info *info, unsigned flags)
{
	bool opsize = d->opsize && flags & RF_OPSIZE;

	if (flags & RF_BYTE)
		return 1;
	if (d->m64) {
		if (info->attr & A_F64 || d->rex & 8)
			return 8;
		if (opsize)
			return 2;
		return info->attr & A_D64 ? 8 : 4;
	}
	if (!(flags & RF_OPSIZE))
		return 4;
	return (mode == DECODE_16) != opsize ? 2 : 4;
}

/* Register numbers that do not exist. MOV to CS and CR1, CR5-7, CR9-15, DR8-15 are #UD. */
static bool decode_bad_register(const struct insn *insn, unsigned flags)
{
	if (flags & RF_SREG)
		return insn->reg > SEG_GS || (insn->id == I_MOV_SwEw && insn->reg == SEG_CS);
	if (flags & RF_CR)
		return insn->reg > 8 || !(0x11d >> insn->reg & 1);
	return insn->reg > 7;
}

/* The legacy prefixes and REX. Leaves pos at the opcode. False: bytes ran out. */
static inline bool decode_prefixes(struct decode *d, struct insn *insn)
{
	static const uint8_t segment[8] = { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };
	bool rex = false;

	for (; d->pos < d->limit; d->pos++) {
		uint8_t b = d->bytes[d->pos];

		switch (decode_prefix[b]) {
		case P_NONE: return true;
		case P_REX:
			if (!d->m64)
				return true;
			/* Counts only right before the opcode: any later prefix cancels it. */
			d->rex = b & 15;
			insn->flags |= IF_REX;
			rex = true;
			continue;
		case P_SEG:
			if (!d->m64)
				d->seg = (int8_t)segment[b >> 3 & 3];
			break;
		case P_FSGS: d->seg = b == 0x64 ? SEG_FS : SEG_GS; break;
		case P_OPSIZE:
			d->opsize = true;
			insn->flags |= IF_OPSIZE;
			break;
		case P_ADSIZE: d->adsize = true; break;
		case P_LOCK: insn->flags |= IF_LOCK; break;
		case P_REPNE:
			insn->flags = (insn->flags & ~IF_REP) | IF_REPNE;
			d->pp = PF2;
			break;
		default:
			insn->flags = (insn->flags & ~IF_REPNE) | IF_REP;
			d->pp = PF3;
			break;
		}
		if (rex) {
			insn->flags &= ~IF_REX;
			d->rex = 0;
			rex = false;
		}
	}
	return false;
}

/* VEX, pos at C4 or C5, of which the next byte is at hand. On success *map is set. */
static enum decode_result decode_vex(struct decode *d, struct insn *insn, unsigned *map)
{
	bool three = d->bytes[d->pos++] == 0xc4;
	uint8_t a = d->bytes[d->pos++], b = a;
	bool prefixed = d->opsize || d->pp || insn->flags & (IF_LOCK | IF_REX);

	*map = V0F;
	if (prefixed)
		return DECODE_UD;
	if (three) {
		if ((a & 31) < 1 || (a & 31) > 3)
			return DECODE_UD;
		*map = V0F + (a & 31) - 1;
		if (!decode_has(d, 1))
			return decode_short(d, insn);
		b = d->bytes[d->pos++];
		d->rex = (uint8_t)((~a >> 5 & 7) | (b >> 7) << 3);
	} else {
		d->rex = (uint8_t)((~a >> 5) & 4);
	}
	d->vvvv = ~b >> 3 & 15;
	d->l = b >> 2 & 1;
	d->pp = b & 3;
	d->vex = true;
	/* Outside 64-bit mode there are eight registers; W still selects rows. */
	if (!d->m64) {
		d->rex &= 8;
		d->vvvv &= 7;
	}
	return DECODE_OK;
}

/* The escape bytes or VEX, and the opcode. */
static inline enum decode_result decode_opcode(struct decode *d, struct insn *insn, bool real,
					       unsigned *map)
{
	uint8_t b = d->bytes[d->pos];
	enum decode_result r;

	*map = M1;
	if (b == 0x0f) {
		*map = M0F;
		d->pos++;
		if (!decode_has(d, 1))
			return decode_short(d, insn);
		b = d->bytes[d->pos];
		if (b == 0x38 || b == 0x3a) {
			*map = b == 0x38 ? M0F38 : M0F3A;
			d->pos++;
			if (!decode_has(d, 1))
				return decode_short(d, insn);
		}
	} else if ((b == 0xc4 || b == 0xc5) && !real) {
		if (!decode_has(d, 2))
			return decode_short(d, insn);
		if (d->m64 || d->bytes[d->pos + 1] >= 0xc0) {
			r = decode_vex(d, insn, map);
			if (r != DECODE_OK)
				return r;
			if (!decode_has(d, 1))
				return decode_short(d, insn);
		}
	}
	insn->opcode = d->bytes[d->pos++];
	return DECODE_OK;
}

/* Everything after the opcode's row is known. */
static inline enum decode_result decode_operands(struct decode *d, struct insn *insn,
						 enum decode_mode mode, bool real, unsigned id)
{
	const struct insn_info *info = &insn_info[id];
	unsigned flags = decode_row[id].flags;
	enum decode_result r;

	insn->id = (uint16_t)id;
	insn->osize = (uint8_t)decode_osize(d, mode, info, flags);
	insn->cc = insn->opcode & (info->attr & A_X16 ? 15 : 7);
	if (d->rex & 8 && (d->m64 || info->attr & A_W1))
		insn->flags |= IF_W;
	if (info->attr & A_PROT && real)
		return DECODE_UD;
	if (d->vex) {
		insn->vvvv = d->vvvv;
		if (d->l)
			insn->flags |= IF_L;
		if (info->attr & A_NOVVVV && d->vvvv)
			return DECODE_UD;
	}
	insn->seg = SEG_DS;
	if (flags & RF_MODRM) {
		unsigned rex_r = flags & RF_NOREXR ? 0 : (d->rex & 4u) << 1;
		unsigned rex_b = flags & RF_NOREXB ? 0 : (d->rex & 1u) << 3;

		insn->reg = (uint8_t)((insn->modrm >> 3 & 7) | rex_r);
		insn->rm = (uint8_t)((insn->modrm & 7) | rex_b);
		if (flags & (RF_SREG | RF_CR | RF_DR) && decode_bad_register(insn, flags))
			return DECODE_UD;
		if (insn->modrm < 0xc0 && !(flags & RF_MOD3)) {
			r = decode_memory(d, insn, info->attr & A_VSIB);
			if (r != DECODE_OK)
				return r;
			/* Destination, mask and index of a gather must differ. */
			if (info->attr & A_VSIB &&
			    (insn->reg == insn->vvvv || insn->reg == insn->index ||
			     insn->vvvv == insn->index))
				return DECODE_UD;
		}
	} else if (flags & RF_Z) {
		insn->rm = (uint8_t)((insn->opcode & 7) | (d->rex & 1) << 3);
	} else if (flags & RF_MOFFS) {
		insn->flags |= IF_MEM;
		if (!decode_has(d, insn->asize))
			return decode_short(d, insn);
		insn->imm = decode_le(d->bytes + d->pos, insn->asize);
		d->pos += insn->asize;
	}
	if (d->seg >= 0)
		insn->seg = (uint8_t)d->seg;
	if (insn->flags & IF_LOCK && !(info->attr & A_LOCK && insn->flags & IF_MEM))
		return DECODE_UD;
	if (flags & RF_IMM) {
		r = decode_immediate(d, insn, decode_row[id].imm[0]);
		if (r == DECODE_OK && decode_row[id].imm[1])
			r = decode_immediate(d, insn, decode_row[id].imm[1]);
		if (r != DECODE_OK)
			return r;
	}
	return DECODE_OK;
}

enum decode_result insn_decode(const uint8_t *bytes, size_t n, enum decode_mode mode, bool real,
			       struct insn *insn)
{
	struct decode d = {
		.bytes = bytes,
		.limit = n < LEN_MAX ? (unsigned)n : LEN_MAX,
		.m64 = mode == DECODE_64,
		.seg = -1,
	};
	const struct decode_slot *slot;
	unsigned map, key, index, id;
	enum decode_result r;

	if (__builtin_expect(!atomic_load_explicit(&decode_ready, memory_order_acquire), 0))
		decode_prepare();
	*insn = (struct insn){ .base = REG_ZERO, .index = REG_ZERO };
	if (!decode_prefixes(&d, insn))
		return decode_short(&d, insn);
	if (!d.pp && d.opsize)
		d.pp = P66;
	insn->asize = d.m64 ? (d.adsize ? 4 : 8) : (mode == DECODE_16) != d.adsize ? 2 : 4;
	r = decode_opcode(&d, insn, real, &map);
	if (r != DECODE_OK) {
		if (r == DECODE_UD)
			insn->len = (uint8_t)d.pos;
		return r;
	}
	slot = &decode_slot[map][insn->opcode];
	insn->len = (uint8_t)d.pos;
	if (!slot->valid)
		return DECODE_UD;
	if (slot->modrm) {
		if (!decode_has(&d, 1))
			return decode_short(&d, insn);
		insn->modrm = d.bytes[d.pos++];
	}
	key = d.pp | (d.rex & 8 ? K_W : 0) | (d.l ? K_L : 0) | (d.m64 ? K_64 : 0);
	index = slot->mask ? decode_pack[slot->mask][key & slot->mask] : 0;
	if (slot->modrms != MODRM_NONE) {
		unsigned reg = insn->modrm >> 3 & 7;

		index = index * slot->modrms + (insn->modrm < 0xc0 ? reg
						: slot->modrms == MODRM_REG
							? 8 + reg
							: insn->modrm - 0xc0u + 8);
	}
	id = decode_entry[slot->first + index];
	/* Note 4. */
	if (id == I_NOP || id == I_PAUSE)
		id = d.rex & 1 ? I_XCHG_ZvrAX : id;
	r = id == NO_ROW ? DECODE_UD : decode_operands(&d, insn, mode, real, id);
	if (r == DECODE_OK || r == DECODE_UD)
		insn->len = (uint8_t)d.pos;
	return r;
}
