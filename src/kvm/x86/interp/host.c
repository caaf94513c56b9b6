/*
 * Running HOST rows: memory operands, faults and x87 pointers around a thunk.
 *
 * A memory operand on a page of the data TLB is used where it is; else (page border, MMIO, watched
 * page) through a buffer, by mmu_read or after mmu_probe by mmu_write.
 *
 * Departures: FIP, FDP and FOP are set by every x87 instruction that is not a control one, as Intel
 * does (AMD saves them only with a pending exception); FCS and FDS read as 0, as on processors that
 * deprecate them (CPUID.7.EBX[13]). With CR0.NE clear a pending x87 exception would go through
 * FERR# and IRQ 13; that wiring is not modelled, #MF is raised as if NE were set.
 *
 * References: [SDM1 8.1.8, 8.7, 11.5], [SDM2A FXSAVE].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/hostfpe.h"
#include "kvm/x86/interp/thunk.h"

/* An unmasked exception may come: the thread must be able to take SIGFPE. */
static __attribute__((noinline)) uint64_t host_run_unmasked(struct vcpu *v, const struct insn *i,
							    const struct host_thunk *t, void *mem)
{
	int blocked = hostfpe_unblock();
	uint64_t rc;

	rc = t->flags & HT_UNCACHED ? host_thunk_run_uncached(v, i, mem) : t->fn(v, mem);
	hostfpe_restore(blocked);
	return rc;
}

static always_inline uint64_t host_run(struct vcpu *v, const struct insn *i,
				       const struct host_thunk *t, void *mem)
{
	if (unlikely(t->flags & HT_GUARD && ((fpu_mxcsr(v) & MXCSR_MASKS) != MXCSR_MASKS ||
					     (t->flags & HT_FX && fpu_x87_pending(v)))))
		return host_run_unmasked(v, i, t, mem);
	if (unlikely(t->flags & HT_UNCACHED))
		return host_thunk_run_uncached(v, i, mem);
	return t->fn(v, mem);
}

/* Instruction, opcode and operand pointers: bytes 6 to 23 of the FXSAVE area. */
struct host_x87_ptrs {
	uint64_t fip, fdp;
	uint16_t fop;
};

static void host_x87_load(const struct vcpu *v, struct host_x87_ptrs *p)
{
	memcpy(&p->fop, v->xsave + FX_FOP, 2);
	memcpy(&p->fip, v->xsave + FX_FIP, 8);
	memcpy(&p->fdp, v->xsave + FX_FDP, 8);
}

static void host_x87_store(struct vcpu *v, const struct host_x87_ptrs *p)
{
	memcpy(v->xsave + FX_FOP, &p->fop, 2);
	memcpy(v->xsave + FX_FIP, &p->fip, 8);
	memcpy(v->xsave + FX_FDP, &p->fdp, 8);
}

/* The thunk's FXSAVE wrote what the host knows of its own code: put the guest's values there. */
static uint64_t host_run_fx(struct vcpu *v, const struct insn *i, const struct host_thunk *t,
			    void *mem)
{
	struct host_x87_ptrs p;
	uint64_t ea = t->flags & HT_MEM ? insn_ea(v, i) : 0;
	uint64_t rc;

	host_x87_load(v, &p);
	rc = host_run(v, i, t, mem);
	if (t->flags & HT_X87 && !rc) {
		p.fip = v->insn_rip;
		p.fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
		if (t->flags & HT_MEM)
			p.fdp = ea;
	}
	host_x87_store(v, &p);
	if (unlikely(rc == VEC_XM) && !(i->id == I_CVTPI2PS_VdqQq && t->flags & HT_MEM)) {
		/* Using an MMX register enters MMX state before #XM is raised. */
		fpu_x87_set_top(v, 0);
		v->xsave[FX_FTW] = 0xff;
	}
	return rc;
}

static __attribute__((noreturn, noinline)) void host_fault(struct vcpu *v, uint64_t vec)
{
	if (vec == VEC_XM)
		vcpu_throw(v, v->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
	vcpu_throw(v, VEC_MF);
}

static always_inline void host_do(struct vcpu *v, const struct insn *i, const struct host_thunk *t,
				  void *mem)
{
	uint64_t rc =
		unlikely(t->flags & HT_FX) ? host_run_fx(v, i, t, mem) : host_run(v, i, t, mem);

	if (unlikely(rc))
		host_fault(v, rc);
}

static __attribute__((noinline)) void host_mem_slow(struct vcpu *v, const struct insn *i,
						    const struct host_thunk *t, gva_t la)
{
	uint8_t buf[32] __attribute__((aligned(32)));

	if (!(t->flags & HT_STORE)) {
		mmu_read(v, la, buf, t->msize, ACC_READ);
		host_do(v, i, t, buf);
		return;
	}
	mmu_probe(v, la, t->msize, ACC_WRITE);
	host_do(v, i, t, buf);
	/* An x87 store that met an unmasked exception other than precision stored nothing. */
	if (t->flags & HT_WAIT && fpu_x87_pending(v) & ~FSW_PE)
		return;
	mmu_write(v, la, buf, t->msize, ACC_WRITE);
}

static always_inline void host_exec(struct vcpu *v, const struct insn *i,
				    const struct host_thunk *t)
{
	const struct tlb_entry *e;
	uint64_t tag;
	gva_t la;

	if (unlikely(!t->fn && !(t->flags & HT_UNCACHED)))
		throw_ud(v); /* CPUID was set to promise what the host lacks */
	if (!(t->flags & HT_MEM)) {
		host_do(v, i, t, NULL);
		return;
	}
	la = insn_la(v, i, t->msize, t->flags & HT_STORE ? ACC_WRITE : ACC_READ);
	if (unlikely(t->flags & HT_ALIGN && la & (t->msize - 1u)))
		throw_gp(v, 0);
	e = mmu_entry(v, la);
	tag = t->flags & HT_STORE ? e->wtag : e->rtag;
	if (likely(tag == mmu_tag(v, la, t->msize)))
		host_do(v, i, t, (void *)(uintptr_t)(la + e->addend));
	else
		host_mem_slow(v, i, t, la);
}

void exec_host(struct vcpu *v, const struct insn *i)
{
	const struct host_thunk *t = i->aux;
	struct host_thunk uncached;

	if (unlikely(!t)) {
		t = host_thunk_get(i, (enum decode_mode)v->mode);
		if (!t) {
			host_thunk_describe(i, (enum decode_mode)v->mode, &uncached);
			t = &uncached;
		}
	}
	host_exec(v, i, t);
}

/*
 * fpu_check and exec_host in one, for a cached thunk. Everything in the masks holds nearly always;
 * else fpu_check finds out what to throw. Real mode needs no look: VEX does not decode there.
 */
void exec_host_checked(struct vcpu *v, const struct insn *i)
{
	const struct host_thunk *t = i->aux;

	if (unlikely((v->cr0 & t->cr0_clear) | (~v->cr4 & t->cr4_set) | (~v->xcr0 & t->xcr0_set) ||
		     (t->flags & HT_FX && fpu_x87_pending(v))))
		fpu_check(v, i, insn_info[i->id].attr);
	host_exec(v, i, t);
}

/* ---- Random numbers ------------------------------------------------------------------------- */

/* CF says whether there was one; the other flags are cleared, and without one the result is 0. */
static void host_random(struct vcpu *v, const struct insn *i, bool ok, uint64_t x)
{
	v->fl = ok ? FL_C : 0;
	reg_set(v, i->rm, i->osize, ok ? x : 0);
}

EXEC(RDRAND_Rv)
{
	unsigned long long x = 0;
	bool ok;

	if (!host_has_feature(FEAT_RDRAND))
		throw_ud(v);
	__asm__ volatile("rdrand %0" : "=r"(x), "=@ccc"(ok));
	host_random(v, i, ok, x);
}

EXEC(RDSEED_Rv)
{
	unsigned long long x = 0;
	bool ok;

	if (!host_has_feature(FEAT_RDSEED))
		throw_ud(v);
	__asm__ volatile("rdseed %0" : "=r"(x), "=@ccc"(ok));
	host_random(v, i, ok, x);
}
