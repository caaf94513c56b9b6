/*
 * Comparing what a case has made of the processor's state and of memory; showing how they differ.
 *
 * Not compared: flags in the row's undef column (in the instruction's own definition of undefined),
 * though they are at the end of a program, since all engines give the host's; FIP, FDP, FOP and
 * MXCSR_MASK, where vendors differ; RF, which the kernel sets in signal frames; flags of a fault in
 * translated code that the code after it overwrites (see kvm/x86/jit/jit.h).
 *
 * References: [SDM1 8.1.8, 11.6]. Threads: one.
 */
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "diff.h"
#include "x86/decode.h"

/* Flags of an instance that are undefined though the row's column, which must hold for all, is 0.
 */
static uint64_t compare_undef(const struct diff_case *c)
{
	return insn_info[c->id].undef;
}

/* Offset of the memory operand. */
static uint64_t compare_address(const struct diff_case *c)
{
	struct insn i;
	uint64_t ea;

	if (insn_decode(c->code, c->len, c->mode32 ? DECODE_32 : DECODE_64, false, &i) != DECODE_OK)
		return 0;
	ea = (uint64_t)(int64_t)i.disp;
	if (i.base == REG_RIP)
		ea += c->in.rip + c->len;
	else if (i.base != REG_ZERO)
		ea += c->in.r[i.base];
	if (i.index != REG_ZERO)
		ea += c->in.r[i.index] << i.scale;
	if (i.asize != 8)
		ea &= 0xffffffff;
	return ea + (i.seg == SEG_GS ? DIFF_DATA : 0);
}

static void compare_forget(struct diff_result *r, uint64_t at, unsigned n)
{
	for (; n--; at++)
		if (at - DIFF_DATA < DIFF_RW_SIZE)
			r->mem[at - DIFF_DATA] = 0;
}

static bool compare_is_long(const struct diff_case *c)
{
	switch (c->id) {
	case I_FXSAVE:
	case I_XSAVE:
	case I_XSAVEOPT:
	case I_XSAVEC:
	case I_XRSTOR:
	case I_FXRSTOR:
	case I_FNSAVE:
	case I_FRSTOR:
	case I_FNSTENV:
	case I_FLDENV:
	case I_CMPS_b:
	case I_CMPS_v:
	case I_PUSHA:
	case I_POPA:
	case I_MASKMOVQ_PqNq:
	case I_MASKMOVDQU_VdqUdq:
	case I_VMASKMOVDQU_VdqUdq: return true;
	default: return false;
	}
}

static bool compare_writes_area(unsigned id)
{
	return id == I_FXSAVE || id == I_XSAVE || id == I_XSAVEOPT || id == I_XSAVEC;
}

/* Bring what is not compared to one value. */
static void compare_one(const struct diff_case *c, struct diff_result *r)
{
	static const char zero[18];

	r->out.flags &= 0x8d5 | 0x400 | (c->id == I_POPF ? 0x244000 : 0);
	if (!c->seq)
		r->out.flags &= ~compare_undef(c);
	memcpy(r->out.xsave + 6, zero, 18);       /* FOP, FIP, FDP */
	memcpy(r->out.xsave + 28, zero, 4);       /* MXCSR_MASK */
	memset(r->out.xsave + 416, 0, 576 - 416); /* software's bytes, header */
	/* not aligned and not canonical through rSP or rBP: which comes first is the model's */
	if (r->vec == 12 && c->id < I_COUNT && insn_info[c->id].attr & A_ALIGN)
		r->vec = 13;
	if (r->vec != 14)
		r->cr2 = 0;
	if (r->vec != 14 && r->vec != 13 && r->vec != 12)
		r->error = 0;
	/* Which byte of a long operand faults first is the model's. */
	if (r->vec == 14 && compare_is_long(c)) {
		r->cr2 = 0;
		r->error &= ~1u;
	}
	if (c->id == I_PUSHA && r->vec != DIFF_OK) /* what was pushed before the fault stays */
		memset(r->mem, 0, sizeof(r->mem));
	if (c->id == I_POPA && r->vec != DIFF_OK) /* AMD keeps what it popped before the fault */
		memset(r->out.r, 0, sizeof(r->out.r));
	if (compare_writes_area(c->id) && r->vec == DIFF_OK)
		compare_forget(r, compare_address(c) + 28, 4); /* MXCSR_MASK */
	if (r->vec == 14 && r->cr2 >= 0x7ffffffff000)          /* the kernel hides what is there */
		r->error &= ~1u;
	for (unsigned n = 0; n < 8; n++) /* reserved halves of the x87 slots */
		memset(r->out.xsave + 32 + 16 * n + 10, 0, 6);
	if (c->mode32)
		for (unsigned n = 8; n < 16; n++) {
			memset(r->out.xsave + 160 + 16 * n, 0, 16);
			memset(r->out.xsave + 576 + 16 * n, 0, 16);
			r->out.r[n] = 0;
		}
}

/*
 * Flags that code at rip is sure to read before it writes them: those that the translator keeps
 * for the frame of a fault there.
 */
static uint64_t compare_flags_kept(const struct diff_case *c, uint64_t rip)
{
	uint64_t read = 0x400, open = 0x8d5;
	struct insn i;

	for (uint64_t n = rip - c->in.rip; n < c->len && open; n += i.len) {
		const struct insn_info *row;

		if (insn_decode(c->code + n, c->len - n, c->mode32 ? DECODE_32 : DECODE_64, false,
				&i) != DECODE_OK)
			break;
		row = &insn_info[i.id];
		/* a shift by a constant may only have a count of 0 */
		if (!(row->attr & A_X16))
			read |= open & row->reads & ~(row->reads & row->writes);
		open &= ~(uint64_t)(row->reads | row->writes);
		if (row->attr & (A_BRANCH | A_END))
			break;
	}
	return read;
}

void diff_normalize(const struct diff_case *c, struct diff_result *a, struct diff_result *b,
		    enum diff_engine e)
{
	struct diff_case at = *c;
	uint64_t off = a->out.rip - c->in.rip;
	struct insn i;

	/* what the instruction that faults may leave as it likes */
	if (c->seq && a->vec >= 0) {
		at.id = I_COUNT;
		if (off < c->len &&
		    insn_decode(c->code + off, c->len - off, c->mode32 ? DECODE_32 : DECODE_64,
				false, &i) == DECODE_OK)
			at.id = i.id;
	}
	compare_one(&at, a);
	compare_one(&at, b);
	if (e != DIFF_INTERP && a->vec >= 0 && a->out.rip == b->out.rip) {
		uint64_t kept = compare_flags_kept(c, a->out.rip);

		a->out.flags &= kept;
		b->out.flags &= kept;
	}
}

bool diff_equal(const struct diff_result *a, const struct diff_result *b)
{
	return a->vec == b->vec && a->error == b->error && a->cr2 == b->cr2 &&
	       !memcmp(&a->out, &b->out, sizeof(a->out)) && !memcmp(a->mem, b->mem, DIFF_RW_SIZE);
}

static void compare_show_bytes(const char *what, const char *name, const uint8_t *in,
			       const uint8_t *a, const uint8_t *b, unsigned n)
{
	if (!memcmp(a, b, n))
		return;
	printf("  %-8s in     ", what);
	for (unsigned k = n; k-- > 0;)
		printf("%02x", in[k]);
	printf("\n           native ");
	for (unsigned k = n; k-- > 0;)
		printf("%02x", a[k]);
	printf("\n           %-6s ", name);
	for (unsigned k = n; k-- > 0;)
		printf("%02x", b[k]);
	printf("\n");
}

static void compare_code(const struct diff_case *c)
{
	enum decode_mode mode = c->mode32 ? DECODE_32 : DECODE_64;
	struct insn i;

	for (unsigned n = 0; n < c->len; n += i.len) {
		char text[128] = "?";

		if (insn_decode(c->code + n, c->len - n, mode, false, &i) != DECODE_OK)
			i.len = 1;
		else
			insn_format(&i, mode, c->in.rip + n, text, sizeof(text));
		if (c->seq && i.len == 1 && c->code[n] == 0x90)
			continue;
		printf("  %lx  ", c->in.rip + n);
		for (unsigned k = 0; k < 12; k++)
			printf(k < i.len ? "%02x" : "  ", c->code[n + k]);
		printf("  %s\n", text);
	}
}

void diff_show(const struct diff_case *c, const struct diff_result *a, const struct diff_result *b,
	       enum diff_engine e)
{
	static const char *const reg[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	const char *mine = diff_engine_name[e];
	char name[16];

	printf("%s%s: native against %s\n", c->seq ? "program" : insn_info[c->id].name,
	       c->mode32 ? " (32-bit)" : "", mine);
	compare_code(c);
	printf("  native: exception %d at %lx\n", a->vec, a->out.rip);
	if (a->vec != b->vec || a->error != b->error || a->cr2 != b->cr2)
		printf("  exception native %d error %x cr2 %lx, %s %d error %x cr2 %lx\n", a->vec,
		       a->error, a->cr2, mine, b->vec, b->error, b->cr2);
	for (unsigned n = 0; n < 16; n++)
		if (a->out.r[n] != b->out.r[n])
			printf("  %s in %016lx native %016lx %s %016lx\n", reg[n], c->in.r[n],
			       a->out.r[n], mine, b->out.r[n]);
		else if (c->seq)
			printf("  %s in %016lx out %016lx\n", reg[n], c->in.r[n], a->out.r[n]);
	if (a->out.rip != b->out.rip)
		printf("  rip in %lx native %lx %s %lx\n", c->in.rip, a->out.rip, mine, b->out.rip);
	if (a->out.flags != b->out.flags)
		printf("  flags in %lx native %lx %s %lx\n", c->in.flags, a->out.flags, mine,
		       b->out.flags);
	compare_show_bytes("x87", mine, c->in.xsave, a->out.xsave, b->out.xsave, 6);
	compare_show_bytes("mxcsr", mine, c->in.xsave + 24, a->out.xsave + 24, b->out.xsave + 24,
			   4);
	for (unsigned n = 0; n < 8; n++) {
		unsigned at = 32 + 16 * n;

		snprintf(name, sizeof(name), "st%u", n);
		compare_show_bytes(name, mine, c->in.xsave + at, a->out.xsave + at,
				   b->out.xsave + at, 10);
	}
	for (unsigned n = 0; n < 32; n++) {
		unsigned at = n < 16 ? 160 + 16 * n : 576 + 16 * (n - 16);

		snprintf(name, sizeof(name), n < 16 ? "xmm%u" : "ymmh%u", n & 15);
		compare_show_bytes(name, mine, c->in.xsave + at, a->out.xsave + at,
				   b->out.xsave + at, 16);
	}
	for (unsigned n = 0; n < DIFF_RW_SIZE; n += 16)
		if (memcmp(a->mem + n, b->mem + n, 16)) {
			uint8_t in[16];

			for (unsigned m = 0; m < 16; m++)
				in[m] = n + m - c->patch_at < c->patch_len
						? c->patch[n + m - c->patch_at]
						: diff_template[n + m];
			snprintf(name, sizeof(name), "%lx", DIFF_DATA + n);
			compare_show_bytes(name, mine, in, a->mem + n, b->mem + n, 16);
		}
}
