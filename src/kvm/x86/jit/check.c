/* Lockstep of translated code and interpreter: running both. See check.h. */
#include "kvm/x86/jit/check.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>

#include "base/log.h"
#include "kvm/kvm.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/jit/check_int.h"
#include "kvm/x86/jit/trace.h"

/* ---- Which instructions ---------------------------------------------------------------------- */

bool jit_check_pure(const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];

	if (info->attr & A_PRIV)
		return false;
	if ((info->attr & A_REP) && (i->flags & (IF_REP | IF_REPNE)))
		return false; /* as long as they please */
	if (info->how == HOST || (jit_kinds[i->id] != JK_CALL && jit_kinds[i->id] != JK_SYS))
		return true;
	switch (i->id) {
	case I_BT_EvGv:
	case I_BTS_EvGv:
	case I_BTR_EvGv:
	case I_BTC_EvGv:
	case I_DAA:
	case I_DAS:
	case I_AAA:
	case I_AAS:
	case I_AAM:
	case I_AAD:
	case I_SALC:
	case I_INC_Zv:
	case I_DEC_Zv:
	case I_PUSHA:
	case I_POPA:
	case I_PUSH_ES:
	case I_PUSH_CS:
	case I_PUSH_SS:
	case I_PUSH_DS:
	case I_PUSH_FS:
	case I_PUSH_GS:
	case I_DIV_Eb:
	case I_DIV_Ev:
	case I_IDIV_Eb:
	case I_IDIV_Ev:
	case I_CLI:
	case I_CLD:
	case I_STD:
	case I_PUSHF:
	case I_ENTER:
	case I_XLAT:
	case I_LOOP:
	case I_LOOPE:
	case I_LOOPNE:
	case I_JRCXZ:
	case I_PUSH_Ev:
	case I_POP_Ev:
	case I_MOVBE_GvMv:
	case I_MOVBE_MvGv:
	case I_MOV_EvSw:
	case I_MOV_ALOb:
	case I_MOV_rAXOv:
	case I_MOV_ObAL:
	case I_MOV_OvrAX:
	case I_MOVS_b:
	case I_MOVS_v:
	case I_STOS_b:
	case I_STOS_v:
	case I_LODS_b:
	case I_LODS_v:
	case I_CMPS_b:
	case I_CMPS_v:
	case I_SCAS_b:
	case I_SCAS_v:
	case I_SHL_EbIb_6:
	case I_SHL_EvIb_6:
	case I_SHL_Eb1_6:
	case I_SHL_Ev1_6:
	case I_SHL_EbCL_6:
	case I_SHL_EvCL_6:
	case I_TEST_EbIb_1:
	case I_TEST_EvIz_1:
	case I_PAUSE:
	case I_LFENCE:
	case I_MFENCE:
	case I_SFENCE:
	case I_LDMXCSR:
	case I_STMXCSR:
	case I_VLDMXCSR:
	case I_VSTMXCSR:
	case I_VZEROALL:
	case I_VZEROUPPER:
	case I_FNSTCW_Mw:
	case I_FNSTSW_AX:
	case I_FNSTSW_Mw:
	case I_FNINIT:
	case I_FNCLEX:
	case I_FWAIT:
	case I_FLDENV:
	case I_FNSTENV: return true;
	default: return false;
	}
}

/* ---- State ----------------------------------------------------------------------------------- */

static void check_get(const struct vcpu *v, struct check_state *s, bool fpu)
{
	memcpy(s->r, v->r, sizeof(s->r));
	s->cr2 = v->cr2;
	s->rflags = v->rflags;
	s->fl = v->fl;
	s->exc = v->ev.exc_pending;
	s->exc_has_error = v->ev.exc_has_error;
	s->exc_vec = v->ev.exc_vec;
	s->exc_error = v->ev.exc_error;
	if (fpu) {
		memcpy(s->xsave, v->xsave, sizeof(s->xsave));
		/* a thunk's FXSAVE leaves the host's there, which no guest sees */
		memset(s->xsave + FX_MXCSR_MASK, 0xff, 2);
		memset(s->xsave + FX_MXCSR_MASK + 2, 0, 2);
	}
}

static void check_set(struct vcpu *v, const struct check_state *s, bool fpu)
{
	memcpy(v->r, s->r, sizeof(s->r));
	v->cr2 = s->cr2;
	v->rflags = s->rflags;
	v->fl = s->fl;
	v->ev.exc_pending = s->exc;
	v->ev.exc_has_error = s->exc_has_error;
	v->ev.exc_vec = s->exc_vec;
	v->ev.exc_error = s->exc_error;
	if (fpu)
		memcpy(v->xsave, s->xsave, sizeof(s->xsave));
}

/* ---- Memory ---------------------------------------------------------------------------------- */

void jit_check_access(struct vcpu *v, uint64_t la, bool write)
{
	struct jit_check *c = v->jitp->check;
	gva_t page = la & PAGE_MASK;
	unsigned n;

	if (v->jit.check != CHECK_RECORD)
		return;
	for (n = 0; n < c->nacc; n++)
		if (c->acc[n].page == page) {
			c->acc[n].write |= write;
			return;
		}
	if (n < CHECK_PAGES)
		c->acc[c->nacc++] = (struct check_access){ page, write };
}

static void check_keep_page(struct jit_check *c, uint8_t *page)
{
	for (unsigned n = c->npage; n-- > 0;)
		if (c->page[n].host == page)
			return;
	if (c->npage <
	    CHECK_PAGES) { /* beyond: only what the interpreter has written is compared */
		c->page[c->npage].host = page;
		memcpy(c->page[c->npage++].old, page, PAGE_SIZE);
	}
}

void jit_check_store(struct vcpu *v, void *host, unsigned len, bool code)
{
	struct jit_check *c = v->jitp->check;
	uint8_t *p = host;

	if (v->jit.check != CHECK_RECORD)
		return;
	if (code || c->nw == CHECK_WRITES || c->nbytes + len > CHECK_BYTES)
		jit_check_stop(v);
	check_keep_page(c, (uint8_t *)((uintptr_t)p & PAGE_MASK));
	c->w[c->nw++] = (struct check_write){ p, c->nbytes, len };
	memcpy(c->old + c->nbytes, p, len);
	c->nbytes += len;
}

static void check_undo(struct jit_check *c)
{
	for (unsigned n = c->nw; n-- > 0;)
		memcpy(c->w[n].host, c->old + c->w[n].at, c->w[n].len);
}

/* Keep what the interpreter has written, and put back what was there. */
static void check_take_writes(struct jit_check *c)
{
	for (unsigned n = 0; n < c->nw; n++)
		memcpy(c->new + c->w[n].at, c->w[n].host, c->w[n].len);
	check_undo(c);
	for (unsigned n = 0; n < c->nw; n++)
		for (unsigned p = 0; p < c->npage; p++) {
			uint64_t off = (uint64_t)(c->w[n].host - c->page[p].host);

			if (off < PAGE_SIZE)
				memcpy(c->page[p].old + off, c->new + c->w[n].at, c->w[n].len);
		}
}

/* ---- Running --------------------------------------------------------------------------------- */

void jit_check_stop(struct vcpu *v)
{
	siglongjmp(v->unwind, 2);
}

/* A trace is followed as far as control goes the same way. */
static bool check_goes_on(const struct vcpu *v, const struct jit_block *jb, const struct insn *i)
{
	return i < v->block_end &&
	       (!jb->trace || v->r[REG_RIP] == jb->trace->rip[i - jb->insns] + v->jit.slide);
}

static void check_interpret(struct vcpu *v, const struct jit_block *jb)
{
	struct jit_check *c = v->jitp->check;
	const struct insn *i = jb->insns;

	v->block_end = i + MIN(c->limit, jb->n);
	do {
		v->cur = i;
		v->insn_rip = v->r[REG_RIP];
		v->r[REG_RIP] += i->len;
		((exec_fn *)i->exec)(v, i);
		i++;
		c->interp.done = (unsigned)(i - jb->insns);
	} while (check_goes_on(v, jb, i));
	if (!v->long64)
		v->r[REG_RIP] = (uint32_t)v->r[REG_RIP];
}

/* The caller keeps nothing in registers over this. */
static __attribute__((noinline)) enum check_end
check_protected(struct vcpu *v, const struct jit_block *jb, uint64_t code)
{
	switch (sigsetjmp(v->unwind, 0)) {
	case 0:
		if (jb)
			check_interpret(v, jb);
		else
			jit_enter(v, code);
		return CHECK_RAN;
	case 1: return CHECK_THREW;
	default: return CHECK_STOPPED;
	}
}

static enum check_end check_phase(struct vcpu *v, unsigned phase, const struct jit_block *jb,
				  uint64_t code)
{
	enum check_end end;
	sigjmp_buf unwind;

	memcpy(&unwind, &v->unwind, sizeof(unwind));
	v->jit.check = (uint8_t)phase;
	mmu_select_tlb(v);
	end = check_protected(v, jb, code);
	v->jit.check = CHECK_NOT;
	mmu_select_tlb(v);
	memcpy(&v->unwind, &unwind, sizeof(unwind));
	v->cur = NULL;
	return end;
}

/* The translator's TLB: what the interpreter has used, and no more. */
static void check_fill_tlb(struct vcpu *v)
{
	struct jit_check *c = v->jitp->check;

	jit_tlb_flush(v);
	if (!(c->runs & 3))
		return;
	for (unsigned n = 0; n < c->nacc; n++) {
		gva_t la = c->acc[n].page;

		jit_tlb_fill(v, la, false);
		if (c->acc[n].write)
			jit_tlb_fill(v, la, true);
	}
}

/* ---- One block ------------------------------------------------------------------------------- */

/* Flags that an exit to la keeps. */
static unsigned check_live(const struct jit_block *jb, gva_t la) /* before the slide */
{
	unsigned live = 0;
	bool known = false;

	for (unsigned n = 0; n < jb->nlink; n++)
		if (jb->link[n].site && jb->link[n].la == la) {
			live |= jb->link[n].live;
			known = true;
		}
	return known ? live : F_ARITH;
}

/* Both ways once. False: they differ, and everything is as before, c->what says how. */
static bool check_once(struct vcpu *v, struct jit_block *jb, bool *alone)
{
	struct jit_check *c = v->jitp->check;
	unsigned old_dead = c->dead_at == c->start.r[REG_RIP] ? c->dead : 0, live = 0, undef = 0;
	uint64_t slide = c->start.r[REG_RIP] - jb->la;

	c->nw = c->nbytes = c->npage = c->nacc = 0;
	c->interp.done = 0;
	c->interp.end = check_phase(v, CHECK_RECORD, jb, 0);
	if (c->interp.end == CHECK_STOPPED) {
		check_undo(c);
		check_set(v, &c->start, jb->fpu);
		*alone = true;
		return true;
	}
	check_get(v, &c->interp, jb->fpu);
	check_take_writes(c);
	check_set(v, &c->start, jb->fpu);
	check_fill_tlb(v);
	v->fl ^= check_fl(old_dead);
	v->jit.tmp2 = 0;
	v->jit.steps = jb->n;
	c->trans.end =
		check_phase(v, CHECK_TRANSLATED, NULL, (uintptr_t)v->jitp->rx + jb->entry_mem);
	if (v->jit.interp_once) { /* vector instructions that the host must not run now */
		v->jit.interp_once = 0;
		check_undo(c);
		check_set(v, &c->start, jb->fpu);
		*alone = true;
		return true;
	}
	check_get(v, &c->trans, jb->fpu);
	if (jb->trace && c->trans.end == CHECK_RAN &&
	    (v->jit.steps < c->interp.done ||
	     (v->jit.steps == c->interp.done && c->interp.end == CHECK_THREW))) {
		/* a lookup has missed, and the trace has ended there: no further, then */
		for (unsigned n = 0; n < c->nw; n++)
			memcpy(c->got + c->w[n].at, c->w[n].host, c->w[n].len);
		check_undo(c);
		check_set(v, &c->start, jb->fpu);
		*alone = v->jit.steps == 0;
		c->limit = v->jit.steps;
		return *alone || check_once(v, jb, alone);
	}
	if (c->interp.end == CHECK_RAN && (jb->trace || c->interp.done == jb->n)) {
		const struct jit_link *l = (struct jit_link *)(uintptr_t)v->jit.tmp2;

		live = jb->trace && l ? l->live : check_live(jb, c->interp.r[REG_RIP] - slide);
		for (unsigned n = 0; n < c->interp.done; n++) {
			const struct insn_info *info = &insn_info[jb->insns[n].id];

			undef = (undef & ~info->writes) | (info->undef & F_ARITH);
			old_dead &= ~info->writes;
		}
	}
	if (jit_check_same(c, live & ~undef & ~old_dead, jb->fpu)) {
		v->fl = c->interp.fl;
		c->dead = (F_ARITH & ~live) | old_dead;
		c->dead_at = c->interp.end == CHECK_RAN ? v->r[REG_RIP] : 1;
		return true;
	}
	for (unsigned n = 0; n < c->nw; n++)
		memcpy(c->got + c->w[n].at, c->w[n].host, c->w[n].len);
	check_undo(c);
	check_set(v, &c->start, jb->fpu);
	return false;
}

/* Bytes put back that turned out to be somebody else's. */
static void check_give_back(struct jit_check *c)
{
	for (unsigned n = 0; n < c->nodd; n++)
		if (*c->odd[n].host == c->odd[n].was)
			*c->odd[n].host = c->odd[n].is;
	c->nodd = 0;
}

bool jit_check_run(struct vcpu *v, struct jit_block *jb)
{
	struct jit_check *c = v->jitp->check;
	bool alone = false;

	check_get(v, &c->start, jb->fpu);
	c->nodd = 0;
	c->runs++;
	for (unsigned n = 0; n < CHECK_TRIES; n++) {
		c->limit = jb->n;
		if (check_once(v, jb, &alone)) {
			check_give_back(c);
			c->stat.blocks += !alone;
			c->stat.undone += alone;
			c->stat.traces += !alone && jb->trace;
			v->insn_count += alone ? 0 : c->interp.done;
			return !alone;
		}
		c->stat.retries++;
	}
	jit_check_report(v, jb);
	/* what the interpreter says holds, should user space go on */
	for (unsigned n = 0; n < c->nw; n++)
		memcpy(c->w[n].host, c->new + c->w[n].at, c->w[n].len);
	check_set(v, &c->interp, jb->fpu);
	v->insn_rip = v->r[REG_RIP];
	v->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	v->run->internal.suberror = KVM_SUBERROR_CHECK;
	v->run->internal.ndata = 0;
	vcpu_exit_to_user(v);
	return true;
}

/* ---- Creation -------------------------------------------------------------------------------- */

int jit_check_new(struct vcpu *v)
{
	if (v->index) {
		log_err("check=on compares one virtual processor: another may not be added");
		return -EINVAL;
	}
	if (!v->jitp) {
		log_err("check=on: this host cannot run translated code");
		return -ENOTSUP;
	}
	v->jitp->check = calloc(1, sizeof(*v->jitp->check));
	if (!v->jitp->check)
		return -ENOMEM;
	v->jitp->check->dead_at = 1; /* nowhere */
	return 0;
}

void jit_check_free(struct vcpu *v)
{
	const struct jit_check *c = v->jitp->check;

	if (c)
		log_info(
			"translator check: %llu blocks the same, %llu of them traces, %llu left to "
			"the interpreter, %llu comparisons repeated",
			(unsigned long long)c->stat.blocks, (unsigned long long)c->stat.traces,
			(unsigned long long)c->stat.undone, (unsigned long long)c->stat.retries);
	free(v->jitp->check);
	v->jitp->check = NULL;
}
