/*
 * The translator's counters, executions of blocks, and the text of `info jit`.
 *
 * Executions are counted in the blocks themselves. When a block goes, its count is kept in a table
 * by guest address, host address and context, so that code which is translated again goes on
 * counting.
 *
 * References: docs/translator.md "How to look at it".
 * Threads:    see watch.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/x86/jit/jit_int.h"
#include "kvm/x86/jit/rows.h"
#include "kvm/x86/jit/trace.h"

enum { STAT_TOP_ROWS = 16, STAT_TOP_BLOCKS = 24, PROFILE_MIN = 1024 };

/* ---- Counting -------------------------------------------------------------------------------- */

gva_t jit_block_rip(const struct jit_block *jb, unsigned n)
{
	gva_t la = jb->la;

	if (jb->trace)
		return jb->trace->rip[n];
	for (unsigned k = 0; k < n; k++)
		la += jb->insns[k].len;
	return la;
}

const uint8_t *jit_block_bytes(const struct jit_block *jb, gva_t la)
{
	const struct jit_trace *t = jb->trace;

	for (unsigned n = 0; t && n < t->npages; n++)
		if (t->page[n].la == (la & PAGE_MASK))
			return t->page[n].host + (la & ~PAGE_MASK);
	return jb->host + (la - jb->la);
}

void jit_watch_block(const struct vcpu *v, const struct jit_block *jb, uint64_t ns)
{
	struct jit_stat *s = &v->jitp->stat;

	s->blocks++;
	s->traces += jb->trace != NULL;
	s->insns += jb->n;
	for (unsigned n = 0; n < jb->n; n++)
		s->bytes += jb->insns[n].len;
	s->host_bytes += jb->size;
	s->ns += ns;
	jit_log_block(v, jb);
	if (unlikely(v->vm->perf_fd >= 0))
		jit_perfmap_block(v, jb);
}

void jit_emit_count(struct emit *e, const struct jit_block *jb)
{
	asm_const(e, S1, (uintptr_t)&jb->runs);
	emit_mov_load(e, 8, S0, S1, 0);
	asm_lea(e, true, S0, S0, -1, 0, 1);
	emit_mov_store(e, 8, S1, 0, S0);
}

/* ---- Executions ------------------------------------------------------------------------------ */

struct jit_count {
	gva_t la;
	const uint8_t *host; /* tells address spaces apart; NULL: free */
	uint64_t count;
	uint32_t size;
	uint16_t n;
	uint8_t ctx;
	bool trace;
};

struct jit_profile {
	struct jit_count *at;
	size_t cap, used; /* cap: 2^n, at most half used */
};

static bool profile_grow(struct jit_profile *p);

static void profile_add(struct jit_profile *p, const struct jit_count *c)
{
	uint64_t h = (c->la ^ (uintptr_t)c->host >> 12 ^ c->ctx) * 0x9e3779b97f4a7c15ull;

	if (!c->count || (2 * p->used >= p->cap && !profile_grow(p)))
		return;
	for (size_t n = h >> 32;; n++) {
		struct jit_count *x = &p->at[n & (p->cap - 1)];

		if (!x->host) {
			*x = *c;
			p->used++;
			return;
		}
		if (x->la == c->la && x->host == c->host && x->ctx == c->ctx &&
		    x->trace == c->trace) {
			x->count += c->count;
			x->size = c->size;
			x->n = c->n;
			return;
		}
	}
}

/* False: no memory, counts are lost. */
static bool profile_grow(struct jit_profile *p)
{
	struct jit_profile q = { .cap = p->cap ? 2 * p->cap : PROFILE_MIN };

	q.at = calloc(q.cap, sizeof(*q.at));
	if (!q.at)
		return false;
	for (size_t n = 0; n < p->cap; n++)
		if (p->at[n].host)
			profile_add(&q, &p->at[n]);
	free(p->at);
	*p = q;
	return true;
}

static void profile_add_block(struct jit_profile *p, const struct jit_block *jb)
{
	const struct jit_count c = { .la = jb->la + jb->made,
				     .host = jb->host,
				     .count = jb->runs,
				     .size = jb->size,
				     .n = jb->n,
				     .ctx = jb->ctx,
				     .trace = jb->trace != NULL };

	profile_add(p, &c);
}

static void profile_add_all(struct jit_profile *p, const struct jit *j)
{
	for (unsigned n = 0; n < JIT_HASH; n++)
		for (const struct jit_block *b = j->hash[n]; b; b = b->hash_next)
			profile_add_block(p, b);
}

void jit_profile_keep(struct jit *j, const struct jit_block *jb)
{
	if (!j->counting)
		return;
	if (!j->profile)
		j->profile = calloc(1, sizeof(*j->profile));
	if (j->profile)
		profile_add_block(j->profile, jb);
}

void jit_profile_keep_all(struct jit *j)
{
	if (!j->counting)
		return;
	for (unsigned n = 0; n < JIT_HASH; n++)
		for (const struct jit_block *b = j->hash[n]; b; b = b->hash_next)
			jit_profile_keep(j, b);
}

void jit_profile_free(struct jit *j)
{
	if (j->profile)
		free(j->profile->at);
	free(j->profile);
}

/* ---- Names ----------------------------------------------------------------------------------- */

const char *jit_ctx_name(unsigned ctx)
{
	static const char *const name[JIT_CTXS] = { "user", "kernel", "kernel-ac" };

	return name[ctx % JIT_CTXS];
}

unsigned jit_glue_names(const struct jit *j, struct jit_glue_name out[JIT_GLUE_NAMES])
{
	const struct jit_glue_name all[] = {
		{ j->g_enter, 0, "enter", false },
		{ j->g_exit, 0, "exit", false },
		{ j->g_place, 0, "find-place", false },
		{ j->g_place_kernel, 0, "find-place-kernel", false },
		{ j->g_other[TLB_USER], 0, "indirect-user", true },
		{ j->g_other[TLB_KERNEL], 0, "indirect-kernel", true },
		{ j->g_other[TLB_KERNEL_AC], 0, "indirect-kernel-ac", true },
		{ j->g_other[JIT_CTXS + TLB_USER], 0, "indirect-user-32", true },
		{ j->g_other[JIT_CTXS + TLB_KERNEL], 0, "indirect-kernel-32", true },
		{ j->g_other[JIT_CTXS + TLB_KERNEL_AC], 0, "indirect-kernel-ac-32", true },
		{ j->g_unlinked, 0, "leave-unlinked", true },
		{ j->g_hot[JIT_HOT_NOT], 0, "leave", true },
		{ j->g_hot[JIT_HOT_BLOCK], 0, "leave-hot", true },
		{ j->g_hot[JIT_HOT_STALE], 0, "leave-stale", true },
		{ j->g_exec, 0, "interpret", false },
		{ j->g_exec_end, 0, "interpret-and-leave", false },
		{ j->g_lean[JIT_SYSCALL], 0, "syscall", false },
		{ j->g_lean[JIT_SYSRET], 0, "sysret", false },
		{ j->g_lean[JIT_IRET], 0, "iret", false },
		{ j->g_vec, 0, "load-vectors", false },
		{ j->g_exec_x87, 0, "interpret-x87", false },
		{ j->g_x87, 0, "load-x87", false },
	};
	unsigned n = 0;

	_Static_assert(ARRAY_SIZE(all) <= JIT_GLUE_NAMES, "room for the names");
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		unsigned k = n++;

		for (; k && out[k - 1].at > all[i].at; k--)
			out[k] = out[k - 1];
		out[k] = all[i];
	}
	/* each reaches to the next, with what has no name of its own */
	for (unsigned i = 0; i < n; i++)
		out[i].size =
			(i + 1 < n ? out[i + 1].at : (uintptr_t)j->rx + j->glue_end) - out[i].at;
	return n;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static double stat_ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

static double stat_mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

/* The sum over vCPUs. */
struct stat_sum {
	struct jit_stat s;
	uint64_t calls[I_COUNT];
	uint64_t used, size; /* of the code cache */
	uint64_t meta, descs, live;
	uint64_t decoded; /* bytes of the interpreter's blocks */
	struct jit_profile profile;
	unsigned n;
	bool counted;
};

static void stat_add(struct stat_sum *t, const struct jit *j)
{
	const uint64_t *from = (const uint64_t *)&j->stat;
	uint64_t *to = (uint64_t *)&t->s;

	_Static_assert(sizeof(j->stat) % sizeof(*from) == 0, "only counters");
	for (size_t n = 0; n < sizeof(j->stat) / sizeof(*from); n++)
		to[n] += from[n];
	for (unsigned n = 0; n < I_COUNT; n++)
		t->calls[n] += j->calls[n];
	t->used += j->used;
	t->size += j->code_size;
	t->meta += j->meta_used;
	t->descs += j->ndescs * sizeof(*j->descs);
	t->decoded += block_cache_used(j->v);
	for (unsigned n = 0; n < JIT_HASH; n++)
		for (const struct jit_block *b = j->hash[n]; b; b = b->hash_next)
			t->live += !b->dead;
	t->n++;
	if (!j->counting)
		return;
	t->counted = true;
	profile_add_all(&t->profile, j);
	for (size_t n = 0; j->profile && n < j->profile->cap; n++)
		if (j->profile->at[n].host)
			profile_add(&t->profile, &j->profile->at[n]);
}

static void stat_print_code(FILE *f, const struct stat_sum *t)
{
	const struct jit_stat *s = &t->s;

	fprintf(f, "Translator, %u vCPU%s:\n", t->n, t->n == 1 ? "" : "s");
	fprintf(f, "code cache           %.1f of %.0f MiB, descriptions %.1f MiB\n",
		stat_mib(t->used), stat_mib(t->size), stat_mib(t->meta + t->descs));
	fprintf(f, "decoded blocks       %.1f MiB\n", stat_mib(t->decoded));
	fprintf(f,
		"blocks               %llu translated (%llu traces), %llu in the cache, %llu "
		"invalidated\n",
		(unsigned long long)s->blocks, (unsigned long long)s->traces,
		(unsigned long long)t->live, (unsigned long long)s->invalidated);
	fprintf(f, "guest instructions   %llu (%.1f a block)\n", (unsigned long long)s->insns,
		stat_ratio(s->insns, s->blocks));
	fprintf(f, "guest code           %llu bytes\n", (unsigned long long)s->bytes);
	fprintf(f, "host code            %llu bytes (%.1f times the guest's)\n",
		(unsigned long long)s->host_bytes, stat_ratio(s->host_bytes, s->bytes));
	fprintf(f, "translation time     %.1f ms (%.1f us a block)\n", (double)s->ns / 1e6,
		stat_ratio(s->ns, s->blocks) / 1000);
	fprintf(f, "cache flushes        %llu (%.1f MiB of code)\n", (unsigned long long)s->flushes,
		stat_mib(s->flushed_bytes));
}

/* The largest of `calls` go first; a table of I_COUNT is small enough to be searched again. */
static void stat_print_calls(FILE *f, struct stat_sum *t)
{
	uint64_t slow = 0;

	for (unsigned n = 0; n < I_COUNT; n++)
		if (jit_kinds[n] != JK_CALL)
			slow += t->calls[n];
	fprintf(f, "links                %llu\n", (unsigned long long)t->s.links);
	fprintf(f, "exits to run loop    %llu (%llu at jumps not linked)\n",
		(unsigned long long)t->s.exits, (unsigned long long)t->s.link_exits);
	fprintf(f, "indirect misses      %llu\n", (unsigned long long)t->s.ibtc_fills);
	fprintf(f, "TLB fills            %llu\n", (unsigned long long)t->s.tlb_fills);
	fprintf(f, "interpreter calls    %llu (%llu from slow paths, most of them TLB misses)\n",
		(unsigned long long)t->s.execs, (unsigned long long)slow);
	if (!t->s.execs)
		return;
	fprintf(f, "\nInterpreter calls by row:\n   share        calls  row\n");
	for (unsigned k = 0; k < STAT_TOP_ROWS; k++) {
		unsigned best = 0;

		for (unsigned n = 1; n < I_COUNT; n++)
			if (t->calls[n] > t->calls[best])
				best = n;
		if (!t->calls[best])
			break;
		fprintf(f, "%6.2f %% %12llu  %s%s\n", 100 * stat_ratio(t->calls[best], t->s.execs),
			(unsigned long long)t->calls[best], insn_info[best].name,
			jit_kinds[best] == JK_CALL ? "" : " (slow path)");
		t->calls[best] = 0;
	}
}

/* By instructions executed, most first. */
static int stat_compare(const void *a, const void *b)
{
	const struct jit_count *x = a, *y = b;
	uint64_t m = x->count * x->n, n = y->count * y->n;

	if (m != n)
		return m < n ? 1 : -1;
	return x->la < y->la ? -1 : x->la > y->la;
}

static void stat_print_blocks(FILE *f, struct stat_sum *t)
{
	struct jit_profile *p = &t->profile;
	uint64_t blocks = 0, insns = 0;
	size_t used = 0;

	for (size_t n = 0; n < p->cap; n++)
		if (p->at[n].host) {
			blocks += p->at[n].count;
			insns += p->at[n].count * p->at[n].n;
			p->at[used++] = p->at[n];
		}
	if (used)
		qsort(p->at, used, sizeof(*p->at), stat_compare);
	fprintf(f,
		"\nHottest blocks, by guest instructions (%llu in %llu executions of blocks):\n"
		"   share   executions  insns   host  address\n",
		(unsigned long long)insns, (unsigned long long)blocks);
	for (size_t n = 0; n < used && n < STAT_TOP_BLOCKS; n++)
		fprintf(f, "%6.2f %% %12llu %6u %6u  0x%016llx %s%s\n",
			100 * stat_ratio(p->at[n].count * p->at[n].n, insns),
			(unsigned long long)p->at[n].count, p->at[n].n, p->at[n].size,
			(unsigned long long)p->at[n].la, jit_ctx_name(p->at[n].ctx),
			p->at[n].trace ? " trace" : "");
}

char *jit_info(struct vcpu *const *v, unsigned n)
{
	struct stat_sum *t = calloc(1, sizeof(*t));
	char *text = NULL;
	size_t len = 0;
	FILE *f = t ? open_memstream(&text, &len) : NULL;

	if (!f) {
		free(t);
		return NULL;
	}
	for (unsigned i = 0; i < n; i++)
		if (v[i]->jitp)
			stat_add(t, v[i]->jitp);
	if (t->n) {
		stat_print_code(f, t);
		stat_print_calls(f, t);
		if (t->counted)
			stat_print_blocks(f, t);
	} else {
		fprintf(f, "Translator: off, everything is interpreted.\n");
	}
	free(t->profile.at);
	free(t);
	fclose(f);
	return text;
}
