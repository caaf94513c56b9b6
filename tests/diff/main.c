/*
 * diff [-n CASES] [-p PROGRAMS] [-m PROGRAMS] [-s SEED] [-r ROW] [-v MAX] [-u] [-c FILE]:
 * differential test of interpreter and translator.
 *
 * Walks the instruction table in rounds, one case for each row in turn, until CASES cases of one
 * instruction are done; then runs random programs, -p ordinary ones and -m that modify themselves.
 * Prints the first MAX differences with disassembly, then coverage: rows that were never run and
 * why, how much ran as translated code. Exit status 0 only without differences.
 *
 * -u runs thunks uncached, as when the cache is full; -c writes the names of the rows that ran.
 *
 * Threads: one, and a child process for each batch.
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

enum main_part { PART_ONE, PART_PROGRAMS, PART_SMC, PARTS };

static struct {
	unsigned long cases[PARTS], lost, stuck, differences[DIFF_ENGINES];
	/* cases of one instruction, in 64-bit mode and 32-bit code: all by emitted code, with
	 * calls, not translated */
	unsigned long emitted[2], called[2], untranslated[2];
	/* programs: instructions that ran; of those, in DIFF_JIT and DIFF_MIX */
	unsigned long steps[PARTS], calls[PARTS][DIFF_ENGINES], interpreted[PARTS][DIFF_ENGINES];
	unsigned long ended[PARTS], faulted[PARTS], ended32[PARTS], blocks, traces;
	unsigned shown, show_max;
	unsigned rows_run[I_COUNT], rows_bad[I_COUNT], rows_ok[I_COUNT];
} stats;

/* ---- Comparing ------------------------------------------------------------------------------ */

static void main_differs(const struct diff_case *c, const struct diff_result *a,
			 const struct diff_result *b, enum diff_engine e)
{
	stats.differences[e]++;
	if (c->seq) /* shrunk and shown when the batch is done */
		return;
	/* A row that is wrong is shown twice at most: others want room. */
	if (stats.rows_bad[c->id]++ >= 2 || stats.shown >= stats.show_max)
		return;
	stats.shown++;
	diff_show(c, a, b, e);
}

static void main_count(enum main_part part, const struct diff_case *c, const struct diff_result *b,
		       enum diff_engine e, const struct diff_how *how)
{
	stats.blocks += how->blocks;
	stats.traces += how->traces;
	stats.calls[part][e] += how->calls;
	stats.interpreted[part][e] += how->interpreted;
	if (e == DIFF_INTERP)
		stats.steps[part] += how->steps;
	if (part != PART_ONE || e != DIFF_JIT)
		return;
	/* the INT3 at the end is a call */
	if (!how->calls)
		stats.untranslated[c->mode32]++;
	else if (b->vec == DIFF_OK && how->calls == 1 && !how->interpreted)
		stats.emitted[c->mode32]++;
	else
		stats.called[c->mode32]++;
}

/*
 * Has a program faulted at an instruction that none is given, because it depends on what lies below
 * the process (segment loads, far returns, INT)? It began in the middle of another then, or has
 * been made by a store.
 */
static bool main_never_made(const struct diff_case *c, const struct diff_result *mine,
			    enum diff_engine e)
{
	uint8_t bytes[15];
	struct insn i;

	return c->seq && mine->vec >= 0 && diff_engine_bytes(e, mine->out.rip, bytes) &&
	       insn_decode(bytes, sizeof(bytes), c->mode32 ? DECODE_32 : DECODE_64, false, &i) ==
		       DECODE_OK &&
	       diff_skip_reason(i.id);
}

/*
 * Has a program made itself a near branch with prefix 66 in 64-bit mode? AMD cuts the target to 16
 * bits, and the displacement, too; the engines do as Intel does (insn.def, departure 1).
 */
static bool main_branch16(const struct diff_case *c, enum diff_engine e)
{
	uint8_t b[15];

	for (unsigned at = 0; c->smc && !c->mode32 && at < c->len; at++)
		if (diff_engine_bytes(e, c->in.rip + at, b) && b[0] == 0x66 &&
		    ((b[1] == 0x0f && (b[2] & 0xf0) == 0x80) || (b[1] & 0xfe) == 0xe8))
			return true;
	return false;
}

/*
 * Do only flags differ, and only such that are undefined at the end of a program that has made
 * itself the instruction that left them so? In all other programs another one defines them next.
 */
static bool main_undefined(const struct diff_case *c, const struct diff_result *a,
			   const struct diff_result *mine)
{
	static struct diff_result b;
	uint64_t differ = a->out.flags ^ mine->out.flags;

	b = *mine;
	b.out.flags = a->out.flags;
	return c->smc && diff_equal(a, &b) && !(differ & ~diff_engine_undefined(c));
}

/* Run c in an engine and compare. False: it differs. */
static bool main_compare(enum main_part part, const struct diff_case *c,
			 const struct diff_result *native, struct diff_result *mine,
			 enum diff_engine e)
{
	static struct diff_result a;
	struct diff_how how;

	diff_engine_run(e, c, mine, &how);
	main_count(part, c, mine, e, &how);
	a = *native;
	diff_normalize(c, &a, mine, e);
	if (diff_equal(&a, mine))
		return true;
	if (main_never_made(c, mine, e) || main_branch16(c, e) || main_undefined(c, &a, mine)) {
		stats.stuck++;
		return true;
	}
	main_differs(c, &a, mine, e);
	return false;
}

/*
 * A program that has gone where nobody wanted it: it does not end, makes a system call or breaks
 * the process it runs in; has set TF, which interp_step() and interp_block() ignore; has found an
 * INT3, perhaps with prefixes, in itself, or a fault in another program.
 */
static bool main_astray(const struct diff_case *c, const struct diff_result *native)
{
	uint64_t at = native->out.rip - c->in.rip;
	if (native->vec == DIFF_STUCK)
		return true;
	if (!c->seq)
		return false;
	if (native->vec == DIFF_LOST || native->vec == 1)
		return true;
	return native->vec == DIFF_OK ? at < c->len
				      : at > c->len && native->out.rip - DIFF_CODE < DIFF_CODE_SIZE;
}

static void main_case(enum main_part part, const struct diff_case *c,
		      const struct diff_result *native, struct diff_result *mine, bool bad[])
{
	stats.cases[part]++;
	if (main_astray(c, native)) {
		stats.stuck++;
		return;
	}
	if (native->vec == DIFF_LOST) {
		stats.lost++;
		if (stats.shown < stats.show_max) {
			stats.shown++;
			printf("child lost: ");
			diff_show(c, native, native, DIFF_INTERP);
		}
		return;
	}
	if (native->vec == DIFF_OK)
		stats.ended[part]++, stats.ended32[part] += c->mode32;
	else
		stats.faulted[part]++;
	if (part == PART_ONE) {
		stats.rows_run[c->id]++;
		stats.rows_ok[c->id] += native->vec == DIFF_OK;
	}
	for (unsigned e = 0; e < DIFF_ENGINES; e++) {
		/* so often that it becomes hot */
		unsigned rounds = e == DIFF_MIX ? 1 + 3 * (stats.cases[part] % 4 == 0) : 1;

		if (e == DIFF_MIX && part == PART_ONE)
			continue;
		while (rounds-- && !bad[e])
			bad[e] = !main_compare(part, c, native, mine, e);
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

/* Cases of one instruction; their number. */
static unsigned main_fill_one(struct diff_rng *g, int only, unsigned *id, struct diff_case *c)
{
	unsigned n = 0, idle = 0;

	while (n < DIFF_BATCH && idle < 4 * I_COUNT) {
		bool mode32 = insn_info[*id].attr & A_I64 || diff_rand(g) % 8 == 0;

		if (insn_info[*id].attr & A_O64)
			mode32 = false;
		if ((only < 0 || *id == (unsigned)only) && !main_skip(*id) &&
		    diff_generate(g, *id, n, mode32, &c[n]))
			n++, idle = 0;
		else
			idle++;
		*id = only >= 0 ? (unsigned)only : (*id + 1) % I_COUNT;
	}
	return n;
}

static void main_run(enum main_part part, unsigned long total, uint64_t seed, int only)
{
	struct diff_case *c = calloc(DIFF_BATCH, sizeof(*c));
	struct diff_result *native, *mine = calloc(1, sizeof(*mine));
	struct diff_rng g = { seed };
	unsigned id = 0;

	native = mmap(NULL, DIFF_BATCH * sizeof(*native), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	while (stats.cases[part] < total) {
		bool bad[DIFF_BATCH][DIFF_ENGINES] = { 0 };
		unsigned n = 0;

		if (part == PART_ONE)
			n = main_fill_one(&g, only, &id, c);
		else
			for (; n < DIFF_BATCH; n++)
				diff_seq_generate(&g, n, part == PART_SMC, diff_rand(&g) % 3 == 0,
						  &c[n]);
		if (!n)
			break;
		diff_native(c, n, native);
		for (unsigned e = 0; e < DIFF_ENGINES; e++)
			diff_engine_load(e, c, n);
		for (unsigned k = 0; k < n; k++)
			main_case(part, &c[k], &native[k], mine, bad[k]);
		/* these load other code: after the batch */
		for (unsigned k = 0; k < n; k++)
			for (unsigned e = 0; e < DIFF_ENGINES; e++)
				if (bad[k][e] && c[k].seq && stats.shown++ < stats.show_max)
					diff_shrink(&c[k], e);
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

/* How much of it was translated code. */
static void main_how(void)
{
	static const char *const name[PARTS] = { "", "programs", "self-modifying programs" };

	for (unsigned m = 0; m < 2; m++)
		printf("of one instruction, %s-bit: %lu by emitted code, %lu with a call, %lu not "
		       "translated\n",
		       m ? "32" : "64", stats.emitted[m], stats.called[m], stats.untranslated[m]);
	for (unsigned p = PART_PROGRAMS; p < PARTS; p++) {
		printf("%s: %lu, %lu to their end (%lu of 32-bit code), %lu with a fault; "
		       "%lu instructions run;",
		       name[p], stats.cases[p], stats.ended[p], stats.ended32[p], stats.faulted[p],
		       stats.steps[p]);
		printf(" of translation at once: %lu called, %lu interpreted;",
		       stats.calls[p][DIFF_JIT], stats.interpreted[p][DIFF_JIT]);
		printf(" of the mix: %lu, %lu\n", stats.calls[p][DIFF_MIX],
		       stats.interpreted[p][DIFF_MIX]);
	}
	printf("%lu blocks translated, %lu traces made\n", stats.blocks, stats.traces);
}

int main(int argc, char **argv)
{
	unsigned long total[PARTS] = { 200000, 50000, 20000 };
	uint64_t seed = 1;
	const char *coverage = NULL;
	int only = -1, opt;
	struct diff_rng g = { 42 };

	stats.show_max = 20;
	while ((opt = getopt(argc, argv, "n:p:m:s:r:v:uc:")) != -1) {
		switch (opt) {
		case 'n': total[PART_ONE] = strtoul(optarg, NULL, 0); break;
		case 'p': total[PART_PROGRAMS] = strtoul(optarg, NULL, 0); break;
		case 'm': total[PART_SMC] = strtoul(optarg, NULL, 0); break;
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
			fprintf(stderr,
				"usage: diff [-n cases] [-p programs] [-m programs] [-s seed] "
				"[-r row] [-v max] [-u] [-c file]\n");
			return 1;
		}
	}
	for (unsigned n = 0; n < sizeof(diff_template); n++)
		diff_template[n] = (uint8_t)diff_rand(&g);
	diff_engine_init();
	diff_seq_init();
	for (unsigned p = 0; p < PARTS; p++)
		if (p == PART_ONE || only < 0)
			main_run(p, total[p], seed + p, only);
	if (only < 0 && total[PART_ONE])
		main_coverage();
	if (coverage)
		main_coverage_file(coverage);
	main_how();
	printf("%lu cases, %lu differences in the interpreter, %lu in the translator, %lu in the "
	       "mix, "
	       "%lu killed the child, %lu given up\n",
	       stats.cases[0] + stats.cases[1] + stats.cases[2], stats.differences[DIFF_INTERP],
	       stats.differences[DIFF_JIT], stats.differences[DIFF_MIX], stats.lost, stats.stuck);
	return stats.differences[DIFF_INTERP] || stats.differences[DIFF_JIT] ||
	       stats.differences[DIFF_MIX] || stats.lost;
}
