/*
 * Programs for the differential test: some dozen instructions, most of them random, around loops,
 * calls, forward branches and other things that random bytes do not give.
 *
 * Theory of operation
 *   Some registers are pointers into the data area, some small indexes; random instructions are
 *   taken when their memory operand uses those, and when they do not write to them. Nothing depends
 *   on that: a program that has lost a pointer faults, in all engines alike.
 *   What must hold is that programs end. Branches go forward, but for loops, whose counter no other
 *   instruction of the program names; only a return to an overwritten address can go astray, and
 *   such cases are given up when they do not end.
 *   With smc the program lies where it can be written, and stores go into other instructions of it:
 *   bytes of immediates, conditions, operations, so that whatever they become is a program too.
 *
 * Not made: instructions that show the model (FIP, XSAVE's header, ...), gathers, port I/O beyond
 * faults, branches with 16-bit operands; PUSHA and POPA, segment overrides.
 * References: [SDM2 2]. Threads: one.
 */
#include <string.h>

#include "base/bits.h"
#include "kvm/x86/interp/thunk.h"
#include "kvm/x86/jit/rows.h"
#include "seq.h"
#include "x86/decode.h"

enum { SEQ_INT, SEQ_HOSTG, SEQ_VEC, SEQ_CALL, SEQ_FPU, SEQ_FAULT, SEQ_CLASSES };
enum { SEQ_NO = 255 };

/* Rows by class; constant after diff_seq_init. */
static struct {
	uint16_t row[SEQ_CLASSES][I_COUNT];
	unsigned n[SEQ_CLASSES];
} seq_rows;

static bool seq_named(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (!strncmp(s, *list, strlen(*list)))
			return true;
	return false;
}

static unsigned seq_class(unsigned id)
{
	static const char *const never[] = { "POPF",    "CMPS_",       "ENTER",   "LEAVE",
					     "FXSAVE",  "FXRSTOR",     "XSAVE",   "XRSTOR",
					     "FNSAVE",  "FRSTOR",      "FNSTENV", "FLDENV",
					     "MASKMOV", "VMASKMOVDQU", "LDMXCSR", "VLDMXCSR",
					     "BOUND",   "PUSHA",       "POPA",    NULL };
	static const char *const fault[] = { "IN_", "OUT", "INS_", "CLI", "STI", NULL };
	const struct insn_info *row = &insn_info[id];

	if (diff_skip_reason(id) || !host_has_feature(row->feature) || row->attr & A_VSIB ||
	    seq_named(row->name, never))
		return SEQ_NO;
	if (row->attr & (A_UD | A_PRIV) || seq_named(row->name, fault))
		return SEQ_FAULT;
	if (row->attr & (A_BRANCH | A_END))
		return SEQ_NO;
	if (row->attr & (A_MMX | A_X87))
		return SEQ_FPU;
	if (row->attr & (A_SSE | A_AVX))
		return SEQ_VEC;
	if (row->how == HOST)
		return SEQ_HOSTG;
	return jit_kinds[id] == JK_CALL ? SEQ_CALL : SEQ_INT;
}

void diff_seq_init(void)
{
	for (unsigned id = 0; id < I_COUNT; id++) {
		unsigned c = seq_class(id);

		if (c != SEQ_NO)
			seq_rows.row[c][seq_rows.n[c]++] = (uint16_t)id;
	}
}

/* ---- Bytes ---------------------------------------------------------------------------------- */

void seq_put(struct seq *s, uint64_t x, unsigned n)
{
	memcpy(s->code + s->n, &x, n);
	s->n += n;
}

void seq_rex(struct seq *s, unsigned rex)
{
	if (!s->m32)
		seq_put(s, 0x40 | rex, 1);
}

unsigned seq_reg(struct seq *s)
{
	return gen_below(s->g, s->m32 ? 8 : 16);
}

void seq_disp(struct seq *s, uint64_t to, unsigned more)
{
	seq_put(s, s->m32 ? to : to - (s->ip + s->n + 4 + more), 4);
}

bool seq_room(const struct seq *s, unsigned n)
{
	return s->n + n + SEQ_ROOM * s->depth < DIFF_CODE_MAX;
}

void seq_victim(struct seq *s, unsigned at, unsigned len, unsigned mask)
{
	if (s->nvictims < SEQ_VICTIMS && len)
		s->victim[s->nvictims++] =
			(struct seq_victim){ (uint8_t)at, (uint8_t)len, (uint8_t)mask };
}

unsigned seq_free_reg(struct seq *s)
{
	unsigned r;

	do
		r = seq_reg(s);
	while ((s->counters | 1u << REG_RSP) >> r & 1 ||
	       (s->pointers >> r & 1 && gen_percent(s->g, 90)));
	return r;
}

unsigned seq_pick(struct seq *s, uint16_t set)
{
	unsigned r;

	do
		r = seq_reg(s);
	while (set && !(set >> r & 1));
	return r;
}

/* mov r64, imm64, or shorter */
void seq_mov_imm(struct seq *s, unsigned r, uint64_t x)
{
	bool small = s->m32 || (x == (uint32_t)x && gen_percent(s->g, 80));

	seq_rex(s, (small ? 0 : 8) | r >> 3);
	seq_put(s, 0xb8 | (r & 7), 1);
	seq_put(s, x, small ? 4 : 8);
}

/* lea r, [rip + to] */
void seq_lea(struct seq *s, unsigned r, uint64_t to)
{
	seq_rex(s, 8 | r >> 3 << 2);
	seq_put(s, 0x8d, 1);
	seq_put(s, 5 | (r & 7) << 3, 1);
	seq_disp(s, to, 0);
}

void seq_lead(struct seq *s, unsigned at, bool call)
{
	uint32_t d = s->n - at - 4;

	if (s->m32 && !call)
		d = (uint32_t)s->ip + s->n;
	memcpy(s->code + at, &d, 4);
}

uint64_t seq_address(struct seq *s, unsigned align)
{
	uint64_t a;

	switch (gen_below(s->g, 20)) {
	case 0: return gen_target(s->g, align);
	case 1: a = DIFF_DATA + DIFF_RO_OFF + 512 + gen_below(s->g, 1024); break;
	case 2: a = s->ip + gen_below(s->g, DIFF_CODE_MAX); break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7: a = DIFF_DATA + 4096 - 32 + gen_below(s->g, 64); break;
	default: a = DIFF_DATA + 256 + gen_below(s->g, DIFF_RW_SIZE - 512); break;
	}
	if (s->smc && a - s->ip < DIFF_CODE_MAX) /* what a random store makes of code may not end */
		a = DIFF_DATA + 4096;
	return align && gen_percent(s->g, 95) ? a & ~(uint64_t)(align - 1) : a;
}

/* ---- Random instructions -------------------------------------------------------------------- */

/* General registers that its ModRM and opcode name; too many rather than too few. */
static uint16_t seq_named_regs(const struct insn *i)
{
	const struct insn_info *row = &insn_info[i->id];
	unsigned set = 1u << i->reg | 1u << i->vvvv;

	if (!(i->flags & IF_MEM))
		set |= 1u << i->rm;
	for (unsigned k = 0; k < 5; k++)
		if ((row->operand[k] == Eb || row->operand[k] == Gb || row->operand[k] == Zb) &&
		    !(i->flags & IF_REX))
			set |= 1u << (i->reg & 3) | 1u << (i->rm & 3);
	if (i->base < 16)
		set |= 1u << i->base;
	if (i->index < 16)
		set |= 1u << i->index;
	return (uint16_t)set;
}

/* General registers that it writes, roughly. */
static uint16_t seq_written_regs(const struct insn *i)
{
	const struct insn_info *row = &insn_info[i->id];
	unsigned o = row->operand[0], set = 0, reg = i->reg, rm = i->rm;

	if (!row->writes && (!strncmp(row->name, "PUSH", 4) || !strncmp(row->name, "NOP", 3)))
		return 0;
	if (!strncmp(row->name, "CMP_", 4) || !strncmp(row->name, "TEST", 4))
		return 0;
	if (o == Eb || o == Gb || o == Zb) {
		if ((reg & 12) == 4 && !(i->flags & IF_REX))
			reg &= 3;
		if ((rm & 12) == 4 && !(i->flags & IF_REX))
			rm &= 3;
	}
	if (o >= Gb && o <= Gy)
		set |= 1u << reg;
	if (((o >= Eb && o <= Ep) || (o >= Rw && o <= RvMw)) && !(i->flags & IF_MEM))
		set |= 1u << rm;
	if (o == Zb || o == Zv)
		set |= 1u << rm;
	if (!strncmp(row->name, "XCHG", 4) || !strncmp(row->name, "XADD", 4))
		set |= 1u << reg | 1u << rm;
	return (uint16_t)set;
}

/* Does the memory operand go somewhere useful? Sets what can be set. */
static bool seq_fix_address(struct seq *s, const struct insn *i, struct gen_code *c)
{
	unsigned align = gen_align(i->id, &insn_info[i->id]) * (i->flags & IF_L ? 2 : 1);
	uint64_t a = seq_address(s, align);
	int32_t small = (int32_t)gen_below(s->g, 400) - 200;

	if (i->seg == SEG_GS) {
		a -= DIFF_DATA;
		if (c->moffs_at < 0 && i->base == REG_RIP)
			return false;
	}
	if (c->moffs_at >= 0) {
		memcpy(c->b + c->moffs_at, &a, i->asize);
		return true;
	}
	if (i->base == REG_RIP)
		a -= s->ip + s->n + i->len;
	if (i->base == REG_RIP || (i->base == REG_ZERO && i->index == REG_ZERO)) {
		if (c->disp32_at < 0)
			return false;
		memcpy(c->b + c->disp32_at, &a, 4);
		return true;
	}
	if (i->index != REG_ZERO && !(s->indexes >> i->index & 1))
		return false;
	if (i->base == REG_ZERO) {
		memcpy(c->b + c->disp32_at, &a, 4);
		return true;
	}
	if (s->indexes >> i->base & 1 && c->mod2_at >= 0) {
		memcpy(c->b + c->mod2_at, &a, 4);
		return true;
	}
	if (!(s->pointers >> i->base & 1) || i->seg == SEG_GS)
		return false;
	if (c->mod2_at >= 0) {
		small &= -(int32_t)MAX(align, 1u);
		memcpy(c->b + c->mod2_at, &small, 4);
	} else if (align && i->disp & (int32_t)(align - 1)) {
		return false;
	}
	return !align || i->index == REG_ZERO;
}

static unsigned seq_imm_len(const struct insn *i)
{
	const struct insn_info *row = &insn_info[i->id];

	switch (row->operand[1] == Ib || row->operand[1] == Ibs || row->operand[1] == Iz ||
				row->operand[1] == Iv
			? row->operand[1]
			: row->operand[2]) {
	case Ib:
	case Ibs: return 1;
	case Iz: return i->osize == 2 ? 2 : 4;
	case Iv: return i->osize;
	default: return 0;
	}
}

/* wild: it need not go well */
static bool seq_accept(struct seq *s, const struct insn *i, struct gen_code *c, bool wild)
{
	if (seq_named_regs(i) & s->counters)
		return false;
	if (seq_written_regs(i) & (s->pointers | s->indexes) && !wild)
		return false;
	if (insn_info[i->id].attr & A_REP) {
		if (i->flags & (IF_REP | IF_REPNE))
			return false; /* with its count: seq_string */
		if (((s->pointers >> REG_RSI & s->pointers >> REG_RDI) & 1) == 0 && !wild)
			return false;
	}
	if (i->id == I_XLAT && !(s->pointers >> REG_RBX & 1) && !wild)
		return false;
	/* what a function has pushed it returns to */
	if (s->in_call &&
	    (!strncmp(insn_info[i->id].name, "PUSH", 4) ||
	     !strncmp(insn_info[i->id].name, "POP_", 4)) &&
	    !wild)
		return false;
	if (i->id == I_CMPXCHG16B && i->base < 16 && !wild)
		return false;
	if (i->id == I_MOVSXD_GvEd && i->osize == 2)
		return false;
	/* vendors differ */
	if (i->flags & IF_MEM && insn_info[i->id].feature == FEAT_SHA)
		return false;
	if (!(i->flags & IF_MEM))
		return true;
	if (insn_info[i->id].name[0] == 'B' && insn_info[i->id].name[1] == 'T' &&
	    insn_info[i->id].operand[1] == Gv && !(s->indexes >> i->reg & 1))
		return false;
	if (i->base == REG_ZERO && i->index != REG_ZERO && c->disp32_at < 0)
		return false;
	return seq_fix_address(s, i, c);
}

bool diff_leaves_undefined(unsigned id)
{
	static const char *const fixed[] = { "AND_", "OR_",  "XOR_", "TEST_", "SHL_", "SHR_",
					     "SAR_", "ROL_", "ROR_", "RCL_",  "RCR_", NULL };

	return insn_info[id].undef && !seq_named(insn_info[id].name, fixed);
}

/* Compare two registers. */
static void seq_define_flags(struct seq *s)
{
	seq_rex(s, gen_below(s->g, 16));
	seq_put(s, 0x38 | gen_below(s->g, 4), 1);
	seq_put(s, 0xc0 | gen_below(s->g, 64), 1);
}

static void seq_random(struct seq *s)
{
	static const char *const shifts[] = {
		"SHL", "SHR", "SAR", "ROL", "ROR", "RCL", "RCR", NULL
	};
	unsigned k = gen_below(s->g, 1000), class, id, tries = 0;
	bool wild = gen_percent(s->g, 4);
	struct gen_code c;
	struct insn i;

	class = k < 700   ? SEQ_INT
		: k < 750 ? SEQ_HOSTG
		: k < 880 ? SEQ_VEC
		: k < 960 ? SEQ_CALL
		: k < 995 ? SEQ_FPU
			  : SEQ_FAULT;
	if (s->fpu && k < 600)
		class = SEQ_FPU;
	if (s->no_vec && (class == SEQ_VEC || class == SEQ_FPU))
		class = SEQ_INT;
	id = seq_rows.row[class][gen_below(s->g, seq_rows.n[class])];
	if (insn_info[id].attr & (s->m32 ? A_O64 : A_I64))
		return;
	/* from random memory it unmasks something, and #MF soon ends the program: see seq_x87 */
	if (id == I_FLDCW_Mw && s->fpu && gen_percent(s->g, 80))
		return;
	if (!strncmp(insn_info[id].name, "DIV", 3) || !strncmp(insn_info[id].name, "IDIV", 4))
		if (gen_percent(s->g, 80))
			return;
	do {
		if (++tries > 40)
			return;
		gen_encode(s->g, id, s->m32, &c);
	} while (c.n > 15 ||
		 insn_decode(c.b, c.n, s->m32 ? DECODE_32 : DECODE_64, false, &i) != DECODE_OK ||
		 i.id != id || i.len != c.n || !seq_accept(s, &i, &c, wild));
	if (!seq_room(s, c.n + 3))
		return;
	/* a count that becomes 0 keeps flags that the translator has dropped before the store */
	if (!(i.flags & IF_MEM) && !seq_named(insn_info[id].name, shifts))
		seq_victim(s, s->n + c.n - seq_imm_len(&i), seq_imm_len(&i), 0xff);
	memcpy(s->code + s->n, c.b, c.n);
	s->n += c.n;
	if (diff_leaves_undefined(id))
		seq_define_flags(s);
}

/* ---- Programs ------------------------------------------------------------------------------- */

void seq_items(struct seq *s, unsigned n)
{
	while (n-- && seq_room(s, 16)) {
		unsigned k = gen_below(s->g, 100);

		if (s->smc && k >= 70) {
			if (gen_percent(s->g, 45))
				seq_store(s);
			else
				seq_target(s);
			continue;
		}
		k = gen_below(s->g, 100);
		if (s->depth < 3 && k < 6)
			seq_forward(s);
		else if (s->depth < 3 && k < (s->smc ? 14 : 9))
			seq_loop(s);
		else if (s->depth < 3 && k < 17)
			seq_call(s);
		else if (s->depth < 3 && k < 18)
			seq_jump(s);
		else if (s->depth < 3 && k < 19)
			seq_frame(s);
		else if (s->depth < 3 && k < 20)
			seq_saves(s, gen_below(s->g, 3));
		else if (k < 21)
			seq_flags(s);
		else if (k < 22)
			seq_string(s);
		else if (k < 23)
			seq_mxcsr(s);
		else if (k < 25)
			seq_refresh(s);
		else if (k < 30 && s->fpu)
			seq_x87(s);
		else
			seq_random(s);
	}
}

/* Registers: some point to data, some are small. */
static void seq_registers(struct seq *s, struct diff_case *c)
{
	static const uint8_t may[] = { REG_RBX, REG_RBP, REG_RSI, REG_RDI, REG_R8,  REG_R9,
				       REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

	unsigned nmay = s->m32 ? 4 : sizeof(may);

	for (unsigned k = 0; k < 16; k++)
		c->in.r[k] = gen_int(s->g);
	s->pointers = 1 << REG_RSP;
	for (unsigned n = 2 + gen_below(s->g, s->m32 ? 2 : 4); n--;) {
		unsigned r =
			gen_percent(s->g, 95) ? may[gen_below(s->g, nmay)] : gen_below(s->g, 4);

		s->pointers |= (uint16_t)(1u << r);
		c->in.r[r] = seq_address(s, gen_percent(s->g, 80) ? 32 : 0);
	}
	for (unsigned n = 1 + gen_below(s->g, 2); n--;) {
		unsigned r = may[gen_below(s->g, nmay)];

		if (s->pointers >> r & 1)
			continue;
		s->indexes |= (uint16_t)(1u << r);
		c->in.r[r] = (uint64_t)((int64_t)gen_below(s->g, 96) - 32);
	}
	c->in.r[REG_RSP] = gen_percent(s->g, 30) ? DIFF_DATA + 4096 - 24 + gen_below(s->g, 48)
						 : DIFF_DATA + 2048 + gen_below(s->g, 2048);
	/* into the hole before or behind the data, in the middle of a run of pushes or pops */
	if (gen_percent(s->g, 6))
		c->in.r[REG_RSP] = gen_percent(s->g, 50)
					   ? DIFF_DATA + gen_below(s->g, 40)
					   : DIFF_DATA + DIFF_RW_SIZE - gen_below(s->g, 24);
	if (gen_percent(s->g, 90))
		c->in.r[REG_RSP] &= ~7ull;
	for (unsigned k = 0; s->m32 && k < 16; k++)
		c->in.r[k] = k < 8 ? (uint32_t)c->in.r[k] : 0;
}

void diff_seq_generate(struct diff_rng *g, unsigned n, bool smc, bool mode32, struct diff_case *c)
{
	struct seq s = { .g = g, .code = c->code, .smc = smc, .m32 = mode32 };
	unsigned border = 1 + gen_below(g, 200);

	memset(c, 0, sizeof(*c));
	c->seq = true;
	c->mode32 = mode32;
	c->smc = smc;
	/* where a slot ends a page, and half of the time in memory to be written: across the border
	 */
	if (smc)
		c->in.rip = DIFF_SMC + 4096 - (gen_percent(g, 50) ? border : 1024);
	else if (n % (4096 / DIFF_SLOT) == 4096 / DIFF_SLOT - 1 && n != DIFF_BATCH - 1)
		c->in.rip = diff_ip(n) + DIFF_SLOT / 2 - border;
	else
		c->in.rip = diff_ip(n);
	s.ip = c->in.rip;
	s.no_vec = gen_percent(g, 30);
	s.no_ac = !s.no_vec || gen_percent(g, 70);
	s.fpu = !s.no_vec && gen_percent(g, 40);
	c->in.flags = 0x202 | (diff_rand(g) & 0x8d5) | (gen_percent(g, 10) ? 0x400 : 0);
	gen_xsave(g, c->in.xsave);
	seq_registers(&s, c);
	c->patch_at = 4096 - DIFF_PATCH / 2;
	c->patch_len = DIFF_PATCH;
	gen_bytes(g, c->patch, DIFF_PATCH);
	while (!s.n)
		seq_items(&s, 5 + gen_below(g, 21));
	for (unsigned k = 0; k < s.nstores; k++)
		seq_store_fill(&s, s.store[k]);
	c->len = (uint8_t)s.n;
}
