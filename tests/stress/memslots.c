/*
 * Memory slots that change while two processors run from them.
 *
 *     memslots SECONDS [SEED]
 *
 * The guest stores, adds with LOCK, copies, straddles pages, and writes functions that it calls, in
 * random pages of slots 1 to 5. Meanwhile the host switches dirty logging on and off, fetches and
 * clears logs, removes, adds and moves slots 3 to 5, writes memory itself, kicks and signals.
 *
 * Oracles: a copy of each logged slot, kept as a migration keeps it (log, then copy the pages it
 * names), equals the memory whenever both processors stand still; in the slots that stay, each
 * function that the guest has written returns what was written last; and the sanitizers' own.
 * Memory that is absent gives MMIO exits, code there an internal error: the processor starts over.
 *
 * References: [KVM-API 4.35, 4.8, 4.117]. Threads: main changes, one thread for each processor.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kvm/kvm.h"

enum {
	NV = 2,
	SLOTS = 6,
	PAGES = 64,
	SIZE = PAGES * 4096,
	CODE = 0x8000,
	STACK = 0x20000, /* and down, 4 KiB for each processor */
	TABLE = 0x9000,  /* of the bases the guest accesses */
	COUNT = 0xa000,  /* turns of each processor */
	FAIL_PORT = 0x10,
};

/* Slots 0 to 2 stay; the others have two places. */
static const uint64_t slots_place[SLOTS][2] = {
	{ 0, 0 },
	{ 0x200000, 0x200000 },
	{ 0x280000, 0x280000 },
	{ 0x300000, 0x480000 },
	{ 0x380000, 0x500000 },
	{ 0x3c0000, 0x600000 },
};
static const uint64_t slots_bases[8] = { 0x200000, 0x280000, 0x300000, 0x480000,
					 0x380000, 0x500000, 0x3c0000, 0x600000 };

/*
 * r15 random, r12 TABLE, r14 this processor's count, rbp 64 + 128 * number: where in a page it
 * writes functions. Data goes to offsets 1024 and up, and to the first four bytes.
 */
/* clang-format off */
__asm__(".pushsection .rodata\n"
	"slots_guest:\n"
	"	incq (%r14)\n"
	"	mov %r15, %rax\n	shl $13, %rax\n	xor %rax, %r15\n"
	"	mov %r15, %rax\n	shr $7, %rax\n	xor %rax, %r15\n"
	"	mov %r15, %rax\n	shl $17, %rax\n	xor %rax, %r15\n"
	"	mov %r15d, %r8d\n	shr $8, %r8d\n	and $7, %r8d\n"
	"	mov (%r12,%r8,8), %rbx\n"
	"	mov %r15, %rcx\n	shr $16, %rcx\n	and $63, %ecx\n	shl $12, %ecx\n"
	"	add %rcx, %rbx\n"
	"	mov %r15, %rcx\n	shr $24, %rcx\n	and $2047, %ecx\n"
	"	lea 1024(%rbx,%rcx), %rcx\n"
	"	mov %r15, %rdx\n	shr $40, %rdx\n	and $7, %edx\n"
	"	cmp $1, %edx\n	jb 1f\n	je 2f\n"
	"	cmp $3, %edx\n	jb 3f\n	je 4f\n"
	"	cmp $5, %edx\n	jb 5f\n	je 6f\n"
	"	cmp $7, %edx\n	jb 7f\n"
	"	movups %xmm0, (%rcx)\n	movups (%rcx), %xmm0\n	jmp slots_guest\n"
	"1:	mov %r15, (%rcx)\n	jmp slots_guest\n"
	"2:	lock incq (%rcx)\n	jmp slots_guest\n"
	"3:	mov %rcx, %rdi\n	mov $100, %ecx\n	mov %r15, %rax\n	rep stosb\n"
	"	jmp slots_guest\n"
	"4:	mov %r15, 4092(%rbx)\n	jmp slots_guest\n"
	"5:	lea (%rbx,%rbp), %rdi\n"
	"	movb $0xb8, (%rdi)\n	mov %r15d, 1(%rdi)\n	movb $0xc3, 5(%rdi)\n"
	"	call *%rdi\n"
	"	cmp $2, %r8d\n	jae slots_guest\n"
	"	cmp %r15d, %eax\n	je slots_guest\n"
	"	out %al, $0x10\n	jmp slots_guest\n"
	"6:	mov (%rcx), %rax\n	add %rax, %r9\n	jmp slots_guest\n"
	"7:	mov %rcx, %rsi\n	lea 3300(%rbx), %rdi\n	mov $16, %ecx\n	rep movsq\n"
	"	jmp slots_guest\n"
	"slots_guest_end:\n"
	".popsection\n");
/* clang-format on */
extern const uint8_t slots_guest[], slots_guest_end[];

struct slot {
	uint8_t *mem, *copy;
	bool there, logged;
	unsigned place;
};

struct slots {
	struct kvm_file *sys, *vm, *cpu[NV];
	struct kvm_run *run[NV];
	struct slot slot[SLOTS];
	bool manual; /* logs are cleared by KVM_CLEAR_DIRTY_LOG */
	uint64_t seed;
	unsigned long changes, checks;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool pause, stop;
	unsigned parked;
	atomic_ulong exits, restarts;
};

struct slots_cpu {
	struct slots *s;
	unsigned index;
};

__attribute__((noreturn, format(printf, 1, 2))) static void slots_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

static uint32_t slots_rand(struct slots *s, uint32_t below)
{
	s->seed ^= s->seed << 13;
	s->seed ^= s->seed >> 7;
	s->seed ^= s->seed << 17;
	return (uint32_t)(s->seed >> 20) % below;
}

static long slots_vm(struct slots *s, unsigned long request, void *arg)
{
	return kvm_file_ioctl(s->vm, request, (uintptr_t)arg, NULL);
}

/* ---- Processors ----------------------------------------------------------------------------- */

static void slots_start(struct slots *s, unsigned n)
{
	struct kvm_regs r = { .rip = CODE,
			      .rflags = 2,
			      .rsp = STACK - 4096 * n,
			      .r12 = TABLE,
			      .r14 = COUNT + 64 * n,
			      .rbp = 64 + 128 * n,
			      .r15 = 0x9e3779b97f4a7c15ull * (n + 1 + atomic_load(&s->restarts)) };
	long rc = kvm_file_ioctl(s->cpu[n], KVM_SET_REGS, (uintptr_t)&r, NULL);

	if (rc)
		slots_die("KVM_SET_REGS: %ld", rc);
}

static void slots_exit(struct slots *s, unsigned n)
{
	struct kvm_run *run = s->run[n];

	atomic_fetch_add(&s->exits, 1);
	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		if (!run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		return;
	case KVM_EXIT_INTERNAL_ERROR: /* code in a slot that has gone */
		atomic_fetch_add(&s->restarts, 1);
		slots_start(s, n);
		return;
	case KVM_EXIT_IO: slots_die("processor %u: a function gave an old value", n);
	default: slots_die("processor %u: exit %u", n, run->exit_reason);
	}
}

static void *slots_thread(void *arg)
{
	struct slots_cpu *c = arg;
	struct slots *s = c->s;

	for (;;) {
		long r = kvm_file_ioctl(s->cpu[c->index], KVM_RUN, 0, NULL);
		bool stop;

		if (r == 0)
			slots_exit(s, c->index);
		else if (r != -EINTR)
			slots_die("KVM_RUN: %ld", r);
		pthread_mutex_lock(&s->lock);
		if (s->pause) {
			s->parked++;
			pthread_cond_broadcast(&s->cond);
			while (s->pause)
				pthread_cond_wait(&s->cond, &s->lock);
			s->parked--;
		}
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			return NULL;
	}
}

static void slots_pause(struct slots *s)
{
	pthread_mutex_lock(&s->lock);
	s->pause = true;
	for (unsigned i = 0; i < NV; i++)
		kvm_vcpu_kick_user(s->cpu[i]);
	while (s->parked < NV)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void slots_resume(struct slots *s, bool stop)
{
	pthread_mutex_lock(&s->lock);
	s->pause = false;
	s->stop = stop;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* ---- Slots ---------------------------------------------------------------------------------- */

static void slots_set(struct slots *s, unsigned i, bool there)
{
	struct slot *t = &s->slot[i];
	struct kvm_userspace_memory_region m = { i, t->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0,
						 slots_place[i][t->place], there ? SIZE : 0,
						 (uintptr_t)t->mem };
	long r = slots_vm(s, KVM_SET_USER_MEMORY_REGION, &m);

	if (r)
		slots_die("slot %u: %ld", i, r);
	t->there = there;
}

/* What the guest writes meanwhile may be torn in the copy; then it is in the next log. */
__attribute__((no_sanitize("thread"))) static void slots_copy(struct slot *t, unsigned page)
{
	const volatile uint64_t *from =
		(const volatile uint64_t *)(const void *)(t->mem + page * 4096);
	uint64_t *to = (uint64_t *)(void *)(t->copy + page * 4096);

	for (unsigned i = 0; i < 512; i++)
		to[i] = from[i];
}

static void slots_fetch(struct slots *s, unsigned i)
{
	uint64_t bits[PAGES / 64] = { 0 };
	struct kvm_dirty_log get = { .slot = i, .dirty_bitmap = bits };
	struct kvm_clear_dirty_log clear = { .slot = i, .num_pages = PAGES, .dirty_bitmap = bits };
	long r = slots_vm(s, KVM_GET_DIRTY_LOG, &get);

	if (!r && s->manual)
		r = slots_vm(s, KVM_CLEAR_DIRTY_LOG, &clear);
	if (r)
		slots_die("dirty log of slot %u: %ld", i, r);
	for (unsigned p = 0; p < PAGES; p++)
		if (bits[p / 64] >> p % 64 & 1)
			slots_copy(&s->slot[i], p);
}

static void slots_log(struct slots *s, unsigned i, bool on)
{
	s->slot[i].logged = on;
	slots_set(s, i, true);
	for (unsigned p = 0; on && p < PAGES; p++)
		slots_copy(&s->slot[i], p);
}

/* A device of ours writes to memory. */
static void slots_write(struct slots *s, unsigned i)
{
	struct slot *t = &s->slot[i];
	uint64_t at = slots_rand(s, PAGES) * 4096 + 1024 + slots_rand(s, 3000 / 8) * 8;

	atomic_store((_Atomic uint64_t *)(void *)(t->mem + at), s->seed);
	kvm_vm_memory_written(s->vm, slots_place[i][t->place] + at, 8);
}

static void slots_change(struct slots *s)
{
	unsigned i = slots_rand(s, SLOTS);
	struct slot *t = &s->slot[i];

	s->changes++;
	if (!t->there) {
		t->place = slots_rand(s, 2);
		t->logged = false;
		slots_set(s, i, true);
		if (slots_rand(s, 2))
			slots_log(s, i, true);
		return;
	}
	switch (slots_rand(s, 8)) {
	case 0: slots_log(s, i, !t->logged); break;
	case 1:
		if (i >= 3) {
			t->logged = false;
			slots_set(s, i, false);
		}
		break;
	case 2:
		if (i >= 3) {
			t->place ^= 1;
			slots_set(s, i, true);
		}
		break;
	case 3:
		if (i)
			slots_write(s, i);
		break;
	case 4: kvm_vcpu_kick_user(s->cpu[slots_rand(s, NV)]); break;
	default:
		if (t->logged)
			slots_fetch(s, i);
	}
}

static void slots_check(struct slots *s)
{
	slots_pause(s);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (!s->slot[i].logged)
			continue;
		slots_fetch(s, i);
		for (unsigned p = 0; p < PAGES; p++)
			if (memcmp(s->slot[i].mem + p * 4096, s->slot[i].copy + p * 4096, 4096))
				slots_die("slot %u page %u was written and is not in the log "
					  "(%lu changes)",
					  i, p, s->changes);
	}
	s->checks++;
	slots_resume(s, false);
}

/* ---- Setting up ----------------------------------------------------------------------------- */

static void *slots_map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		slots_die("mmap: %s", strerror(errno));
	return p;
}

/* Long mode; the first 16 MiB by 4-KiB pages, whose tables lie in slot 0. */
static void slots_long_mode(struct slots *s, unsigned n)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = code;
	struct kvm_sregs r;

	data.selector = 16;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	if (kvm_file_ioctl(s->cpu[n], KVM_GET_SREGS, (uintptr_t)&r, NULL))
		slots_die("KVM_GET_SREGS");
	r.cr3 = 0x1000;
	r.cr4 = 0x620;
	r.cr0 = 0x80000033;
	r.efer = 0x500;
	r.cs = code;
	r.ds = r.es = r.fs = r.gs = r.ss = data;
	if (kvm_file_ioctl(s->cpu[n], KVM_SET_SREGS, (uintptr_t)&r, NULL))
		slots_die("KVM_SET_SREGS");
}

static void slots_memory(struct slots *s)
{
	/* the form that the guest writes: a slot may go or come between any two of its stores */
	static const uint8_t zero_function[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
	uint64_t *table;

	for (unsigned i = 0; i < SLOTS; i++) {
		s->slot[i].mem = slots_map(SIZE);
		s->slot[i].copy = slots_map(SIZE);
		for (unsigned p = 0; i && p < PAGES; p++)
			for (unsigned n = 0; n < NV; n++)
				memcpy(s->slot[i].mem + p * 4096 + 64 + 128 * n, zero_function,
				       sizeof(zero_function));
		slots_set(s, i, true);
	}
	table = (uint64_t *)(void *)s->slot[0].mem;
	table[0x1000 / 8] = 0x2003;
	table[0x2000 / 8] = 0x3003;
	for (unsigned i = 0; i < 4; i++)
		table[0x3000 / 8 + i] = (0x4000 + i * 4096) | 3;
	for (uint64_t i = 0; i < 4 * 512; i++)
		table[0x4000 / 8 + i] = i << 12 | 3;
	memcpy(s->slot[0].mem + CODE, slots_guest, (size_t)(slots_guest_end - slots_guest));
	memcpy(s->slot[0].mem + TABLE, slots_bases, sizeof(slots_bases));
}

static void slots_cpus(struct slots *s)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[128];
	} *id = calloc(1, sizeof(*id));

	if (!id)
		slots_die("no memory");
	id->head.nent = 128;
	if (kvm_file_ioctl(s->sys, KVM_GET_SUPPORTED_CPUID, (uintptr_t)id, NULL))
		slots_die("KVM_GET_SUPPORTED_CPUID");
	for (unsigned n = 0; n < NV; n++) {
		if (kvm_file_ioctl(s->vm, KVM_CREATE_VCPU, n, &s->cpu[n]) ||
		    kvm_file_ioctl(s->cpu[n], KVM_SET_CPUID2, (uintptr_t)id, NULL))
			slots_die("KVM_CREATE_VCPU");
		s->run[n] = kvm_file_mmap(s->cpu[n]);
		slots_long_mode(s, n);
		slots_start(s, n);
	}
	free(id);
}

static void slots_signal(int sig)
{
}

static double slots_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* One virtual machine for some seconds. */
static void slots_round(double seconds, uint64_t seed, bool manual, bool no_jit)
{
	struct slots s = { .seed = seed,
			   .manual = manual,
			   .lock = PTHREAD_MUTEX_INITIALIZER,
			   .cond = PTHREAD_COND_INITIALIZER };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				      .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } };
	struct kvm_options opt = { .no_jit = no_jit };
	double end = slots_now() + seconds;
	struct slots_cpu arg[NV];
	pthread_t thread[NV];
	uint64_t turns = 0;

	if (kvm_open(&opt, &s.sys, NULL) || kvm_file_ioctl(s.sys, KVM_CREATE_VM, 0, &s.vm))
		slots_die("KVM_CREATE_VM");
	if (manual && slots_vm(&s, KVM_ENABLE_CAP, &cap))
		slots_die("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
	slots_memory(&s);
	slots_cpus(&s);
	for (unsigned n = 0; n < NV; n++) {
		arg[n] = (struct slots_cpu){ &s, n };
		if (pthread_create(&thread[n], NULL, slots_thread, &arg[n]))
			slots_die("pthread_create");
	}
	while (slots_now() < end) {
		slots_change(&s);
		if (slots_rand(&s, 16) == 0)
			pthread_kill(thread[slots_rand(&s, NV)], SIGUSR1);
		if (slots_rand(&s, 64) == 0)
			slots_check(&s);
		if (slots_rand(&s, 4) == 0)
			nanosleep(&(struct timespec){ .tv_nsec = slots_rand(&s, 400000) }, NULL);
	}
	slots_check(&s);
	slots_pause(&s);
	slots_resume(&s, true);
	for (unsigned n = 0; n < NV; n++) {
		pthread_join(thread[n], NULL);
		turns += *(uint64_t *)(void *)(s.slot[0].mem + COUNT + 64 * n);
		kvm_file_close(s.cpu[n]);
	}
	kvm_file_close(s.vm);
	kvm_file_close(s.sys);
	for (unsigned i = 0; i < SLOTS; i++) {
		munmap(s.slot[i].mem, SIZE);
		munmap(s.slot[i].copy, SIZE);
	}
	printf("%s, %s: %lu turns, %lu exits, %lu restarts, %lu changes, %lu checks\n",
	       manual ? "manual" : "automatic", no_jit ? "interpreter" : "default",
	       (unsigned long)turns, atomic_load(&s.exits), atomic_load(&s.restarts), s.changes,
	       s.checks);
	if (turns < 100 || !s.checks)
		slots_die("the guest hardly ran");
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 4;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);

	signal(SIGUSR1, slots_signal);
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	for (unsigned k = 0; k < 4; k++)
		slots_round(seconds / 4, (seed + k) * 0x9e3779b97f4a7c15ull | 1, k & 1, k < 2);
	return 0;
}
