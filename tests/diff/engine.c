/*
 * Guests of the differential test, one for each engine: in 64-bit mode, ring 3, with pages at the
 * addresses that the native side uses. Built through the KVM API, then driven instruction by
 * instruction through interp_step(), or by interp_block().
 *
 * The end of a case is the INT3 behind it. The guest's IDT is empty, so that it throws #GP there;
 * for the translator that is an instruction that reads all flags.
 *
 * References: [SDM3 4.5], [KVM-API].
 * Threads:    one.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "diff.h"
#include "kvm/handle.h"
#include "kvm/kvm.h"
#include "kvm/vm.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/jit/jit_int.h"
#include "kvm/x86/mmu.h"
#include "kvm/x86/vcpu.h"

enum { PT_AREA = 0x10000, ENGINE_STEPS = 200000, ENGINE_TICK = 10000, ENGINE_TICKS = 20 };
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_AD = 0x60 };
#define PTE_NX BIT(63)

static struct engine {
	struct kvm_file *sys, *vm, *vcpu;
	struct vcpu *v;
	uint8_t *tables, *data, *code, *smc;
	struct seg seg[SEG_COUNT]; /* at the start of a case, but for CS */
	unsigned slots;
} engines[DIFF_ENGINES];
static volatile unsigned engine_ticks; /* since the case began */
static struct vcpu *volatile engine_running;
static const struct diff_case *engine_watched; /* by diff_engine_undefined() */
static uint64_t engine_undefined;

const char *const diff_engine_name[DIFF_ENGINES] = { "interp", "jit", "mix" };

static void engine_check(long r, const char *what)
{
	if (r < 0) {
		fprintf(stderr, "diff: %s: %s\n", what, strerror((int)-r));
		exit(1);
	}
}

static uint8_t *engine_slot(struct engine *g, uint64_t gpa, uint64_t size)
{
	struct kvm_userspace_memory_region m = {
		.slot = g->slots++,
		.guest_phys_addr = gpa,
		.memory_size = size,
	};
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	m.userspace_addr = (uintptr_t)p;
	engine_check(kvm_file_ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m, NULL),
		     "memory slot");
	return p;
}

static void engine_pte(struct engine *g, unsigned table, unsigned index, uint64_t pte)
{
	memcpy(g->tables + table * 4096 + index * 8, &pte, 8);
}

/* PML4, PDPT, PD in pages 0, 1, 2; page tables of data, code, SMC in 3 to 5. */
static void engine_tables(struct engine *g)
{
	uint64_t up = PTE_P | PTE_W | PTE_U | PTE_AD;

	engine_pte(g, 0, 0, (PT_AREA + 0x1000) | up);
	engine_pte(g, 1, 0, (PT_AREA + 0x2000) | up);
	engine_pte(g, 2, DIFF_DATA >> 21, (PT_AREA + 0x3000) | up);
	engine_pte(g, 2, DIFF_CODE >> 21, (PT_AREA + 0x4000) | up);
	for (unsigned n = 0; n < DIFF_DATA_PAGES; n++)
		if (n < 2)
			engine_pte(g, 3, n, (DIFF_DATA + 4096 * n) | up | PTE_NX);
		else if (n == DIFF_RO_OFF / 4096)
			engine_pte(g, 3, n,
				   (DIFF_DATA + 4096 * n) | PTE_P | PTE_U | PTE_AD | PTE_NX);
	engine_pte(g, 2, DIFF_SMC >> 21, (PT_AREA + 0x5000) | up);
	for (unsigned n = 0; n < DIFF_CODE_SIZE / 4096; n++)
		engine_pte(g, 4, n, (DIFF_CODE + 4096 * n) | PTE_P | PTE_U | PTE_AD);
	for (unsigned n = 0; n < DIFF_SMC_SIZE / 4096; n++)
		engine_pte(g, 5, n, (DIFF_SMC + 4096 * n) | up);
}

static void engine_segments(struct kvm_sregs *s)
{
	struct kvm_segment d = { .limit = 0xffffffff,
				 .selector = 0x2b,
				 .type = 3,
				 .present = 1,
				 .dpl = 3,
				 .db = 1,
				 .s = 1,
				 .g = 1 };

	s->ds = s->es = s->fs = s->gs = s->ss = d;
	s->fs.selector = s->gs.selector = 0;
	s->gs.base = DIFF_DATA;
	s->cs = d;
	s->cs.selector = 0x33;
	s->cs.type = 11;
	s->cs.db = 0;
	s->cs.l = 1;
	/* Too short for a permission bitmap: all ports are forbidden. */
	s->tr = (struct kvm_segment){ .limit = 0x60, .selector = 0x40, .type = 11, .present = 1 };
	s->ldt = (struct kvm_segment){ .unusable = 1 };
}

static void engine_new(struct engine *g, const struct kvm_options *opt)
{
	struct err e;
	struct kvm_sregs s;
	enum { NENT = 100 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + NENT * sizeof(cpuid->entries[0]));

	cpuid->nent = NENT;
	if (kvm_open(opt, &g->sys, &e) < 0) {
		fprintf(stderr, "diff: cannot open the software KVM\n");
		exit(1);
	}
	engine_check(kvm_file_ioctl(g->sys, KVM_CREATE_VM, 0, &g->vm), "VM");
	g->tables = engine_slot(g, PT_AREA, 6 * 4096);
	g->data = engine_slot(g, DIFF_DATA, DIFF_DATA_PAGES * 4096);
	g->code = engine_slot(g, DIFF_CODE, DIFF_CODE_SIZE);
	g->smc = engine_slot(g, DIFF_SMC, DIFF_SMC_SIZE);
	memcpy(g->data, diff_template, sizeof(diff_template));
	engine_tables(g);
	engine_check(kvm_file_ioctl(g->vm, KVM_CREATE_VCPU, 0, &g->vcpu), "vCPU");
	engine_check(kvm_file_ioctl(g->sys, KVM_GET_SUPPORTED_CPUID, (uintptr_t)cpuid, NULL),
		     "supported CPUID");
	engine_check(kvm_file_ioctl(g->vcpu, KVM_SET_CPUID2, (uintptr_t)cpuid, NULL), "CPUID");
	engine_check(kvm_file_ioctl(g->vcpu, KVM_GET_SREGS, (uintptr_t)&s, NULL), "GET_SREGS");
	engine_segments(&s);
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s.idt.limit = 0;
	s.cr3 = PT_AREA;
	s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	engine_check(kvm_file_ioctl(g->vcpu, KVM_SET_SREGS, (uintptr_t)&s, NULL), "SET_SREGS");
	free(cpuid);
	g->v = g->vcpu->vcpu;
	g->v->xcr0 = fpu_supported_xcr0() & 7;
	memcpy(g->seg, g->v->seg, sizeof(g->seg));
	vcpu_update_mode(g->v);
	if (!opt->no_jit && !g->v->jitp) {
		fprintf(stderr, "diff: no translator on this host\n");
		exit(1);
	}
}

/* Translated code looks at requests when it jumps back: it leaves, and the tick is seen. */
static void engine_tick(int sig)
{
	engine_ticks++;
	if (engine_running)
		atomic_fetch_or(&engine_running->requests, REQ_SYNC);
}

void diff_engine_init(void)
{
	static const struct kvm_options opt[DIFF_ENGINES] = {
		[DIFF_INTERP] = { .no_jit = true },
		[DIFF_JIT] = { .jit_heat = 1 },
		/* from one to the other in the middle of a program, and traces at once */
		[DIFF_MIX] = { .jit_heat = 2, .jit_trace = 2 },
	};

	for (unsigned e = 0; e < DIFF_ENGINES; e++)
		engine_new(&engines[e], &opt[e]);
	diff_timer(engine_tick, ENGINE_TICK, 0);
}

/* 32-bit code runs in compatibility mode, as it does natively. */
static void engine_mode(struct vcpu *v, bool mode32)
{
	struct seg *cs = &v->seg[SEG_CS];

	if (v->long64 == !mode32)
		return;
	cs->ar &= ~(uint32_t)(SEG_AR_L | SEG_AR_DB);
	cs->ar |= mode32 ? SEG_AR_DB : SEG_AR_L;
	cs->sel = mode32 ? 0x23 : 0x33;
	vcpu_update_mode(v);
}

void diff_engine_load(enum diff_engine e, const struct diff_case *c, unsigned n)
{
	struct engine *g = &engines[e];

	memset(g->code, 0xcc, DIFF_CODE_SIZE);
	for (unsigned k = 0; k < n; k++)
		if (!c[k].smc)
			memcpy(g->code + (c[k].in.rip - DIFF_CODE), c[k].code, c[k].len);
	kvm_vm_memory_written(g->vm, DIFF_CODE, DIFF_CODE_SIZE);
}

bool diff_engine_bytes(enum diff_engine e, uint64_t rip, uint8_t *bytes)
{
	const struct engine *g = &engines[e];

	if (rip - DIFF_CODE < DIFF_CODE_SIZE - 15)
		memcpy(bytes, g->code + (rip - DIFF_CODE), 15);
	else if (rip - DIFF_SMC < DIFF_SMC_SIZE - 15)
		memcpy(bytes, g->smc + (rip - DIFF_SMC), 15);
	else
		return false;
	return true;
}

/*
 * Does an INT3 start here? A program that modifies itself may have put prefixes before the one at
 * its end: rip is moved behind them, where the signal says that it was.
 */
static bool engine_at_end(const struct engine *g, uint64_t *rip)
{
	const uint8_t *code = g->code;
	uint64_t at = *rip - DIFF_CODE, size = DIFF_CODE_SIZE;

	if (at >= size) {
		code = g->smc;
		at = *rip - DIFF_SMC;
		size = DIFF_SMC_SIZE;
	}
	for (unsigned n = 0; n < 15 && at < size; n++, at++) {
		if (code[at] == 0xcc) {
			*rip += n;
			return true;
		}
		if (!code[at] || (!strchr("\x26\x2e\x36\x3e\x64\x65\x66\x67\xf2\xf3", code[at]) &&
				  (code[at] & 0xf0) != 0x40))
			break;
	}
	return false;
}

/* One instruction, as often as it repeats. */
static void engine_single(struct vcpu *v, const struct diff_case *c, struct diff_result *out)
{
	unsigned steps = 0;

	do {
		/* A REP instruction may take several steps; 20 iterations at most are asked for. */
		if (interp_step(v)) {
			out->vec = v->ev.exc_pending ? v->ev.exc_vec : DIFF_LOST;
			break;
		}
	} while (v->r[REG_RIP] == c->in.rip && ++steps < 64);
	/* Natively a jump out of the code area is seen by the fault of the fetch that follows. */
	if (out->vec == DIFF_OK && v->r[REG_RIP] - DIFF_CODE >= DIFF_CODE_SIZE && interp_step(v))
		out->vec = v->ev.exc_pending ? v->ev.exc_vec : DIFF_LOST;
}

/* interp_step() that notes in engine_undefined which flags are undefined after the instruction. */
static bool engine_watch(struct vcpu *v)
{
	enum decode_mode mode = engine_watched->mode32 ? DECODE_32 : DECODE_64;
	const struct insn_info *row = NULL;
	uint8_t bytes[15];
	struct insn i;

	if (diff_engine_bytes(DIFF_INTERP, v->r[REG_RIP], bytes) &&
	    insn_decode(bytes, sizeof(bytes), mode, false, &i) == DECODE_OK)
		row = &insn_info[i.id];
	if (interp_step(v))
		return true;
	if (row && !(row->attr & A_X16)) /* a shift by 0 writes none */
		engine_undefined &= ~(uint64_t)row->writes;
	if (row)
		engine_undefined |= row->undef;
	return false;
}

/* Until something throws: mostly the INT3 at the end. */
static void engine_through(struct engine *g, bool (*run)(struct vcpu *), struct diff_result *out,
			   uint64_t *steps)
{
	struct vcpu *v = g->v;

	engine_ticks = 0;
	engine_running = v;
	while (!run(v)) {
		if (++*steps == ENGINE_STEPS || engine_ticks >= ENGINE_TICKS) {
			out->vec = DIFF_STUCK;
			return;
		}
	}
	engine_running = NULL;
	out->vec = v->ev.exc_pending ? v->ev.exc_vec : DIFF_LOST;
	/* INT3 without a gate */
	if (out->vec == VEC_GP && v->ev.exc_error == (VEC_BP << 3 | 2) &&
	    engine_at_end(g, &v->r[REG_RIP]))
		out->vec = DIFF_OK;
}

void diff_engine_run(enum diff_engine e, const struct diff_case *c, struct diff_result *out,
		     struct diff_how *how)
{
	struct engine *g = &engines[e];
	struct vcpu *v = g->v;
	const struct jit *j = v->jitp;
	struct jit_stat before = j ? j->stat : (struct jit_stat){ 0 };
	uint64_t count = v->insn_count;

	memset(how, 0, sizeof(*how));
	memcpy(g->data, diff_template, DIFF_RW_SIZE);
	if (c->patch_at + c->patch_len <= DIFF_RW_SIZE)
		memcpy(g->data + c->patch_at, c->patch, c->patch_len);
	if (c->smc) {
		memset(g->smc, 0xcc, DIFF_SMC_SIZE);
		memcpy(g->smc + (c->in.rip - DIFF_SMC), c->code, c->len);
		kvm_vm_memory_written(g->vm, DIFF_SMC, DIFF_SMC_SIZE);
	}
	/* a program that goes astray may load null selectors */
	for (unsigned n = 0; n < SEG_COUNT; n++)
		if (n != SEG_CS)
			v->seg[n] = g->seg[n];
	engine_mode(v, c->mode32);
	memcpy(v->r, c->in.r, sizeof(c->in.r));
	v->r[REG_RIP] = c->in.rip;
	vcpu_set_rflags(v, c->in.flags, ~0ull);
	vcpu_update_mode(v);
	memcpy(v->xsave, c->in.xsave, 512);
	memcpy(v->xsave + XS_YMMH, c->in.xsave + 576, 256);
	v->ev.exc_pending = false;

	out->vec = DIFF_OK;
	if (e != DIFF_INTERP)
		engine_through(g, interp_block, out, &how->steps);
	else if (c->seq)
		engine_through(g, engine_watched ? engine_watch : interp_step, out, &how->steps);
	else
		engine_single(v, c, out);
	out->error = v->ev.exc_has_error ? v->ev.exc_error : 0;
	out->cr2 = v->cr2;
	memcpy(out->out.r, v->r, sizeof(out->out.r));
	out->out.rip = v->r[REG_RIP];
	out->out.flags = vcpu_rflags(v);
	memset(out->out.xsave, 0, DIFF_XSAVE);
	memcpy(out->out.xsave, v->xsave, 512);
	memcpy(out->out.xsave + 576, v->xsave + XS_YMMH, 256);
	memcpy(out->mem, g->data, DIFF_RW_SIZE);
	v->ev.exc_pending = false;
	if (j) {
		how->calls = j->stat.execs - before.execs;
		how->blocks = j->stat.blocks - before.blocks;
		how->traces = j->stat.traces - before.traces;
		how->interpreted = v->insn_count - count;
	}
}

uint64_t diff_engine_undefined(const struct diff_case *c)
{
	static struct diff_result out;
	struct diff_how how;

	engine_undefined = 0;
	engine_watched = c;
	diff_engine_run(DIFF_INTERP, c, &out, &how);
	engine_watched = NULL;
	return engine_undefined;
}
