/*
 * diff [-n CASES] [-s SEED] [-r ROW] [-v MAX] [-u] [-c FILE]: differential test of the interpreter.
 *
 * Walks the instruction table in rounds, one case for each row in turn, until CASES cases are done;
 * prints the first MAX differences with disassembly, then coverage: rows that were never run and
 * why. Exit status 0 only without differences.
 *
 * -u runs thunks uncached, as when the cache is full; -c writes the names of the rows that ran.
 *
 * Not compared: flags in the row's undef column (in the instruction's own definition of undefined);
 * FIP, FDP, FOP and MXCSR_MASK, where vendors differ; RF, which the kernel sets in signal frames.
 *
 * References: [SDM1 8.1.8, 11.6]. Threads: one, and a child process for each batch.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "diff.h"
#include "kvm/x86/interp/thunk.h"
#include "x86/decode.h"

static struct {
	unsigned long cases, lost, differences;
	unsigned shown, show_max;
	unsigned rows_run[I_COUNT], rows_bad[I_COUNT], rows_ok[I_COUNT];
} stats;

/* ---- Comparing ------------------------------------------------------------------------------ */

/* Flags of an instance that are undefined though the row's column, which must hold for all, is 0.
 */
static uint64_t main_undef(const struct diff_case *c)
{
	return insn_info[c->id].undef;
}

/* Offset of the memory operand. */
static uint64_t main_address(const struct diff_case *c)
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

static void main_forget(struct diff_result *r, uint64_t at, unsigned n)
{
	for (; n--; at++)
		if (at - DIFF_DATA < DIFF_RW_SIZE)
			r->mem[at - DIFF_DATA] = 0;
}

static bool main_is_long(const struct diff_case *c)
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

static bool main_writes_area(unsigned id)
{
	return id == I_FXSAVE || id == I_XSAVE || id == I_XSAVEOPT || id == I_XSAVEC;
}

/* Bring what is not compared to one value. */
static void main_normalize(const struct diff_case *c, struct diff_result *r)
{
	static const char zero[18];

	r->out.flags &= 0x8d5 | 0x400 | (c->id == I_POPF ? 0x244000 : 0);
	r->out.flags &= ~main_undef(c);
	memcpy(r->out.xsave + 6, zero, 18);       /* FOP, FIP, FDP */
	memcpy(r->out.xsave + 28, zero, 4);       /* MXCSR_MASK */
	memset(r->out.xsave + 416, 0, 576 - 416); /* software's bytes, header */
	if (r->vec != 14)
		r->cr2 = 0;
	if (r->vec != 14 && r->vec != 13 && r->vec != 12)
		r->error = 0;
	/* Which byte of a long operand faults first is the model's. */
	if (r->vec == 14 && main_is_long(c)) {
		r->cr2 = 0;
		r->error &= ~1u;
	}
	if (c->id == I_PUSHA && r->vec != DIFF_OK) /* what was pushed before the fault stays */
		memset(r->mem, 0, sizeof(r->mem));
	if (c->id == I_POPA && r->vec != DIFF_OK) /* AMD keeps what it popped before the fault */
		memset(r->out.r, 0, sizeof(r->out.r));
	if (main_writes_area(c->id) && r->vec == DIFF_OK)
		main_forget(r, main_address(c) + 28, 4); /* MXCSR_MASK */
	if (r->vec == 14 && r->cr2 >> 47) /* the kernel hides whether its pages are there */
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

static bool main_equal(const struct diff_result *a, const struct diff_result *b)
{
	return a->vec == b->vec && a->error == b->error && a->cr2 == b->cr2 &&
	       !memcmp(&a->out, &b->out, sizeof(a->out)) && !memcmp(a->mem, b->mem, DIFF_RW_SIZE);
}

static void main_show_bytes(const char *what, const uint8_t *in, const uint8_t *a, const uint8_t *b,
			    unsigned n)
{
	if (!memcmp(a, b, n))
		return;
	printf("  %-8s in ", what);
	for (unsigned k = n; k-- > 0;)
		printf("%02x", in[k]);
	printf("\n           native ");
	for (unsigned k = n; k-- > 0;)
		printf("%02x", a[k]);
	printf("\n           interp ");
	for (unsigned k = n; k-- > 0;)
		printf("%02x", b[k]);
	printf("\n");
}

static void main_show(const struct diff_case *c, unsigned k, const struct diff_result *a,
		      const struct diff_result *b)
{
	static const char *const reg[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	enum decode_mode mode = c->mode32 ? DECODE_32 : DECODE_64;
	char text[128] = "?", name[16];
	struct insn i;

	if (insn_decode(c->code, c->len, mode, false, &i) == DECODE_OK)
		insn_format(&i, mode, c->in.rip, text, sizeof(text));
	printf("%s%s: %s\n  bytes", insn_info[c->id].name, c->mode32 ? " (32-bit)" : "", text);
	for (unsigned n = 0; n < c->len; n++)
		printf(" %02x", c->code[n]);
	printf("\n");
	if (a->vec != b->vec || a->error != b->error || a->cr2 != b->cr2)
		printf("  exception native %d error %x cr2 %lx, interp %d error %x cr2 %lx\n",
		       a->vec, a->error, a->cr2, b->vec, b->error, b->cr2);
	for (unsigned n = 0; n < 16; n++)
		if (a->out.r[n] != b->out.r[n])
			printf("  %s in %016lx native %016lx interp %016lx\n", reg[n], c->in.r[n],
			       a->out.r[n], b->out.r[n]);
	if (a->out.rip != b->out.rip)
		printf("  rip in %lx native %lx interp %lx\n", c->in.rip, a->out.rip, b->out.rip);
	if (a->out.flags != b->out.flags)
		printf("  flags in %lx native %lx interp %lx\n", c->in.flags, a->out.flags,
		       b->out.flags);
	main_show_bytes("x87", c->in.xsave, a->out.xsave, b->out.xsave, 6);
	main_show_bytes("mxcsr", c->in.xsave + 24, a->out.xsave + 24, b->out.xsave + 24, 4);
	for (unsigned n = 0; n < 8; n++) {
		unsigned at = 32 + 16 * n;

		snprintf(name, sizeof(name), "st%u", n);
		main_show_bytes(name, c->in.xsave + at, a->out.xsave + at, b->out.xsave + at, 10);
	}
	for (unsigned n = 0; n < 32; n++) {
		unsigned at = n < 16 ? 160 + 16 * n : 576 + 16 * (n - 16);

		snprintf(name, sizeof(name), n < 16 ? "xmm%u" : "ymmh%u", n & 15);
		main_show_bytes(name, c->in.xsave + at, a->out.xsave + at, b->out.xsave + at, 16);
	}
	for (unsigned n = 0; n < DIFF_RW_SIZE; n += 16)
		if (memcmp(a->mem + n, b->mem + n, 16)) {
			uint8_t in[16];

			for (unsigned m = 0; m < 16; m++)
				in[m] = n + m - c->patch_at < DIFF_PATCH
						? c->patch[n + m - c->patch_at]
						: diff_template[n + m];
			snprintf(name, sizeof(name), "%lx", DIFF_DATA + n);
			main_show_bytes(name, in, a->mem + n, b->mem + n, 16);
		}
}

static void main_compare(const struct diff_case *c, unsigned k, struct diff_result *a,
			 struct diff_result *b)
{
	stats.cases++;
	if (a->vec == DIFF_LOST) {
		stats.lost++;
		if (stats.shown < stats.show_max) {
			stats.shown++;
			printf("child lost: ");
			main_show(c, k, a, a);
		}
		return;
	}
	main_normalize(c, a);
	main_normalize(c, b);
	stats.rows_run[c->id]++;
	if (a->vec == DIFF_OK)
		stats.rows_ok[c->id]++;
	if (main_equal(a, b))
		return;
	stats.differences++;
	/* A row that is wrong is shown twice at most: others want room. */
	if (stats.rows_bad[c->id]++ < 2 && stats.shown < stats.show_max) {
		stats.shown++;
		main_show(c, k, a, b);
	}
}

/* ---- Running -------------------------------------------------------------------------------- */

static const char *main_skip(unsigned id)
{
	const char *why = diff_skip_reason(id);

	if (!why && !host_has_feature(insn_info[id].feature))
		why = "the host lacks it";
	return why;
}

static void main_run(unsigned long total, uint64_t seed, int only)
{
	struct diff_case *c = calloc(DIFF_BATCH, sizeof(*c));
	struct diff_result *native, *mine = calloc(1, sizeof(*mine));
	struct diff_rng g = { seed };
	unsigned id = 0;

	native = mmap(NULL, DIFF_BATCH * sizeof(*native), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	while (stats.cases < total) {
		unsigned n = 0, idle = 0;

		while (n < DIFF_BATCH && idle < 4 * I_COUNT) {
			bool mode32 = insn_info[id].attr & A_I64 || diff_rand(&g) % 8 == 0;

			if (insn_info[id].attr & A_O64)
				mode32 = false;
			if ((only < 0 || id == (unsigned)only) && !main_skip(id) &&
			    diff_generate(&g, id, n, mode32, &c[n]))
				n++, idle = 0;
			else
				idle++;
			id = only >= 0 ? (unsigned)only : (id + 1) % I_COUNT;
		}
		if (!n)
			break;
		diff_native(c, n, native);
		diff_interp_load(c, n);
		for (unsigned k = 0; k < n; k++) {
			diff_interp_run(&c[k], k, mine);
			main_compare(&c[k], k, &native[k], mine);
		}
	}
	munmap(native, DIFF_BATCH * sizeof(*native));
	free(mine);
	free(c);
}

/* One line for each row that ran: for a report over all kinds of tests. */
static void main_coverage_file(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		exit(1);
	}
	for (unsigned id = 0; id < I_COUNT; id++)
		if (stats.rows_run[id])
			fprintf(f, "%s\n", insn_info[id].name);
	fclose(f);
}

static void main_coverage(void)
{
	unsigned run = 0, faults_only = 0;

	for (unsigned id = 0; id < I_COUNT; id++) {
		const char *why = main_skip(id);

		run += stats.rows_run[id] > 0;
		if (!stats.rows_run[id])
			printf("not run: %-20s %s\n", insn_info[id].name,
			       why ? why : "no case found");
		else if (!stats.rows_ok[id]) {
			printf("only faults: %s\n", insn_info[id].name);
			faults_only++;
		}
		if (stats.rows_bad[id])
			printf("differs: %-20s %u of %u\n", insn_info[id].name, stats.rows_bad[id],
			       stats.rows_run[id]);
	}
	printf("%u of %u rows run, %u of them only with faults\n", run, I_COUNT, faults_only);
}

int main(int argc, char **argv)
{
	unsigned long total = 200000;
	uint64_t seed = 1;
	const char *coverage = NULL;
	int only = -1, opt;
	struct diff_rng g = { 42 };

	stats.show_max = 20;
	while ((opt = getopt(argc, argv, "n:s:r:v:uc:")) != -1) {
		switch (opt) {
		case 'n': total = strtoul(optarg, NULL, 0); break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'c': coverage = optarg; break;
		case 'u': host_thunk_set_full(true); break;
		case 'v': stats.show_max = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'r':
			for (only = 0; only < I_COUNT; only++)
				if (!strcmp(insn_info[only].name, optarg))
					break;
			if (only < I_COUNT)
				break;
			fprintf(stderr, "diff: no row %s\n", optarg);
			return 1;
		default:
			fprintf(stderr, "usage: diff [-n cases] [-s seed] [-r row] [-v max] [-u] "
					"[-c file]\n");
			return 1;
		}
	}
	for (unsigned n = 0; n < sizeof(diff_template); n++)
		diff_template[n] = (uint8_t)diff_rand(&g);
	diff_interp_init();
	main_run(total, seed, only);
	if (only < 0)
		main_coverage();
	if (coverage)
		main_coverage_file(coverage);
	printf("%lu cases, %lu differences, %lu killed the child\n", stats.cases, stats.differences,
	       stats.lost);
	return stats.differences || stats.lost;
}
