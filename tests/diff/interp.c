/*
 * Interpreter side of the differential test: a guest in 64-bit mode, ring 3, whose pages have the
 * addresses that the native side uses. Built through the KVM API, then driven instruction by
 * instruction through interp_step().
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
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/thunk.h"
#include "kvm/x86/mmu.h"
#include "kvm/x86/vcpu.h"

enum { PT_AREA = 0x10000 };
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_AD = 0x60 };
#define PTE_NX BIT(63)

/* One guest, one run of the program. */
static struct {
	struct kvm_file *sys, *vm, *vcpu;
	struct vcpu *v;
	uint8_t *tables, *data, *code;
	unsigned slots;
} interp;

bool interp_step(struct vcpu *v);

static void interp_check(long r, const char *what)
{
	if (r < 0) {
		fprintf(stderr, "diff: %s: %s\n", what, strerror((int)-r));
		exit(1);
	}
}

static uint8_t *interp_slot(uint64_t gpa, uint64_t size)
{
	struct kvm_userspace_memory_region m = {
		.slot = interp.slots++,
		.guest_phys_addr = gpa,
		.memory_size = size,
	};
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	m.userspace_addr = (uintptr_t)p;
	interp_check(kvm_file_ioctl(interp.vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m, NULL),
		     "memory slot");
	return p;
}

static void interp_pte(unsigned table, unsigned index, uint64_t pte)
{
	memcpy(interp.tables + table * 4096 + index * 8, &pte, 8);
}

/* PML4, PDPT, PD in pages 0, 1, 2; page tables of data and code in 3 and 4. */
static void interp_tables(void)
{
	uint64_t up = PTE_P | PTE_W | PTE_U | PTE_AD;

	interp_pte(0, 0, (PT_AREA + 0x1000) | up);
	interp_pte(1, 0, (PT_AREA + 0x2000) | up);
	interp_pte(2, DIFF_DATA >> 21, (PT_AREA + 0x3000) | up);
	interp_pte(2, DIFF_CODE >> 21, (PT_AREA + 0x4000) | up);
	for (unsigned n = 0; n < DIFF_DATA_PAGES; n++)
		if (n < 2)
			interp_pte(3, n, (DIFF_DATA + 4096 * n) | up | PTE_NX);
		else if (n == DIFF_RO_OFF / 4096)
			interp_pte(3, n, (DIFF_DATA + 4096 * n) | PTE_P | PTE_U | PTE_AD | PTE_NX);
	for (unsigned n = 0; n < DIFF_CODE_SIZE / 4096; n++)
		interp_pte(4, n, (DIFF_CODE + 4096 * n) | PTE_P | PTE_U | PTE_AD);
}

static void interp_segments(struct kvm_sregs *s)
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

void diff_interp_init(void)
{
	struct kvm_options opt = { .no_jit = true };
	struct err e;
	struct kvm_sregs s;
	enum { NENT = 100 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + NENT * sizeof(cpuid->entries[0]));

	cpuid->nent = NENT;
	if (kvm_open(&opt, &interp.sys, &e) < 0) {
		fprintf(stderr, "diff: cannot open the software KVM\n");
		exit(1);
	}
	interp_check(kvm_file_ioctl(interp.sys, KVM_CREATE_VM, 0, &interp.vm), "VM");
	interp.tables = interp_slot(PT_AREA, 5 * 4096);
	interp.data = interp_slot(DIFF_DATA, DIFF_DATA_PAGES * 4096);
	interp.code = interp_slot(DIFF_CODE, DIFF_CODE_SIZE);
	memcpy(interp.data, diff_template, sizeof(diff_template));
	interp_tables();
	interp_check(kvm_file_ioctl(interp.vm, KVM_CREATE_VCPU, 0, &interp.vcpu), "vCPU");
	interp_check(kvm_file_ioctl(interp.sys, KVM_GET_SUPPORTED_CPUID, (uintptr_t)cpuid, NULL),
		     "supported CPUID");
	interp_check(kvm_file_ioctl(interp.vcpu, KVM_SET_CPUID2, (uintptr_t)cpuid, NULL), "CPUID");
	interp_check(kvm_file_ioctl(interp.vcpu, KVM_GET_SREGS, (uintptr_t)&s, NULL), "GET_SREGS");
	interp_segments(&s);
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s.cr3 = PT_AREA;
	s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	interp_check(kvm_file_ioctl(interp.vcpu, KVM_SET_SREGS, (uintptr_t)&s, NULL), "SET_SREGS");
	free(cpuid);
	interp.v = interp.vcpu->vcpu;
	interp.v->xcr0 = fpu_supported_xcr0() & 7;
	vcpu_update_mode(interp.v);
}

/* 32-bit code runs in compatibility mode, as it does natively. */
static void interp_mode(struct vcpu *v, bool mode32)
{
	struct seg *cs = &v->seg[SEG_CS];

	if (v->long64 == !mode32)
		return;
	cs->ar &= ~(uint32_t)(SEG_AR_L | SEG_AR_DB);
	cs->ar |= mode32 ? SEG_AR_DB : SEG_AR_L;
	cs->sel = mode32 ? 0x23 : 0x33;
	vcpu_update_mode(v);
}

void diff_interp_load(const struct diff_case *c, unsigned n)
{
	memset(interp.code, 0xcc, DIFF_CODE_SIZE);
	for (unsigned k = 0; k < n; k++)
		memcpy(interp.code + (diff_ip(k) - DIFF_CODE), c[k].code, c[k].len);
	kvm_vm_memory_written(interp.vm, DIFF_CODE, DIFF_CODE_SIZE);
}

void diff_interp_run(const struct diff_case *c, unsigned k, struct diff_result *out)
{
	struct vcpu *v = interp.v;
	unsigned steps = 0;

	memcpy(interp.data, diff_template, DIFF_RW_SIZE);
	if (c->patch_at + c->patch_len <= DIFF_RW_SIZE)
		memcpy(interp.data + c->patch_at, c->patch, c->patch_len);
	interp_mode(v, c->mode32);
	memcpy(v->r, c->in.r, sizeof(c->in.r));
	v->r[REG_RIP] = c->in.rip;
	vcpu_set_rflags(v, c->in.flags, ~0ull);
	vcpu_update_mode(v);
	memcpy(v->xsave, c->in.xsave, 512);
	memcpy(v->xsave + XS_YMMH, c->in.xsave + 576, 256);
	v->ev.exc_pending = false;

	out->vec = DIFF_OK;
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
	out->error = v->ev.exc_has_error ? v->ev.exc_error : 0;
	out->cr2 = v->cr2;
	memcpy(out->out.r, v->r, sizeof(out->out.r));
	out->out.rip = v->r[REG_RIP];
	out->out.flags = vcpu_rflags(v);
	memset(out->out.xsave, 0, DIFF_XSAVE);
	memcpy(out->out.xsave, v->xsave, 512);
	memcpy(out->out.xsave + 576, v->xsave + XS_YMMH, 256);
	memcpy(out->mem, interp.data, DIFF_RW_SIZE);
	v->ev.exc_pending = false;
}
