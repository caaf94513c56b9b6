/*
 * Fuzzer: any sequence of ioctls on a VM and two vCPUs of the software KVM, with hostile
 * structures, between them short runs of whatever the guest's memory then means.
 *
 * Pointers inside structures are ours, as they would fault in the caller anyway; everything else
 * comes from the input. Checked: no crash, no report of a sanitizer, every result is >= 0 or
 * -errno, KVM_RUN ends soon after a kick. Threads: the caller's, and one that kicks.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bug.h"
#include "fuzz.h"
#include "kvm/kvm.h"

#define RAM   0x40000u
#define CPUS  2u
#define ROOM  8192u /* for any structure and its table */
#define KINDS 5u

struct fuzz {
	const uint8_t *p, *end;
	struct kvm_file *sys, *vm, *cpu[CPUS];
	uint8_t *ram, *room;
	int fd[2];
	atomic_bool stop;
	bool kicking;
	pthread_t kicker;
};

static uint8_t fuzz_byte(struct fuzz *f)
{
	return f->p < f->end ? *f->p++ : 0;
}

static void fuzz_bytes(struct fuzz *f, void *to, size_t n)
{
	size_t have = MIN(n, (size_t)(f->end - f->p));

	memcpy(to, f->p, have);
	f->p += have;
}

static long fuzz_call(struct kvm_file *file, unsigned long request, uintptr_t arg)
{
	long r = kvm_file_ioctl(file, request, arg, NULL);

	BUG_ON(r < -4095);
	return r;
}

/* What is got, with some bytes changed, is set: reaches deeper than noise. */
static void fuzz_get_set(struct fuzz *f, struct kvm_file *file, unsigned long get,
			 unsigned long set, size_t size)
{
	unsigned n = fuzz_byte(f) % 8;

	memset(f->room, 0, ROOM);
	if (fuzz_call(file, get, (uintptr_t)f->room) < 0)
		return;
	while (n--) {
		size_t at = (fuzz_byte(f) | (size_t)fuzz_byte(f) << 8) % size;

		f->room[at] = fuzz_byte(f);
	}
	fuzz_call(file, set, (uintptr_t)f->room);
}

static void *fuzz_kicker(void *arg)
{
	struct fuzz *f = arg;

	while (!atomic_load(&f->stop)) {
		usleep(300);
		for (unsigned i = 0; i < CPUS; i++)
			kvm_vcpu_kick_user(f->cpu[i]);
	}
	return NULL;
}

static void fuzz_run(struct fuzz *f, struct kvm_file *cpu)
{
	struct kvm_run *run = kvm_file_mmap(cpu);

	if (!f->kicking)
		f->kicking = !pthread_create(&f->kicker, NULL, fuzz_kicker, f);
	if (!f->kicking)
		return;
	run->request_interrupt_window = fuzz_byte(f) & 1;
	for (unsigned n = 0; n < 4; n++)
		if (fuzz_call(cpu, KVM_RUN, 0) < 0)
			return;
}

static void fuzz_slot(struct fuzz *f)
{
	struct kvm_userspace_memory_region m;
	uint32_t x[4] = { 0 };

	fuzz_bytes(f, x, sizeof(x));
	m.slot = x[0] & 3;
	m.flags = x[0] >> 4 & 7;
	m.guest_phys_addr = (uint64_t)(x[1] & (x[0] & 0x100 ? ~0u : 0x3ffff)) << (x[0] >> 12 & 15);
	/* host memory is ours: offset and size stay inside it */
	m.userspace_addr = (uintptr_t)f->ram + (x[2] % RAM & ~0xfffu);
	m.memory_size = x[3] % (RAM - (x[2] % RAM & ~0xfffu) + 1);
	if (!(x[0] & 0x200))
		m.memory_size &= ~0xfffull;
	if (!(x[0] & 0x400))
		m.guest_phys_addr &= ~0xfffull;
	fuzz_call(f->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m);
}

static void fuzz_vm(struct fuzz *f)
{
	static const unsigned long plain[] = {
		KVM_ENABLE_CAP,
		KVM_IRQ_LINE,
		KVM_IRQ_LINE_STATUS,
		KVM_SIGNAL_MSI,
		KVM_REGISTER_COALESCED_MMIO,
		KVM_UNREGISTER_COALESCED_MMIO,
		KVM_SET_IRQCHIP,
		KVM_SET_PIT2,
		KVM_SET_PIT,
		KVM_SET_CLOCK,
		KVM_REINJECT_CONTROL,
		KVM_SET_GSI_ROUTING,
		KVM_GET_IRQCHIP,
		KVM_SET_IDENTITY_MAP_ADDR,
		KVM_CREATE_PIT2,
	};
	unsigned op = fuzz_byte(f) % (ARRAY_SIZE(plain) + KINDS);
	struct kvm_dirty_log *log = (struct kvm_dirty_log *)f->room;
	struct kvm_clear_dirty_log *clear = (struct kvm_clear_dirty_log *)f->room;

	memset(f->room, 0, ROOM);
	if (op < ARRAY_SIZE(plain)) {
		fuzz_bytes(f, f->room,
			   plain[op] == KVM_SET_GSI_ROUTING ? 256 : _IOC_SIZE(plain[op]));
		if (plain[op] == KVM_SET_GSI_ROUTING)
			((struct kvm_irq_routing *)f->room)->nr %= 100;
		fuzz_call(f->vm, plain[op], (uintptr_t)f->room);
		return;
	}
	switch (op - ARRAY_SIZE(plain)) {
	case 0:
		log->slot = fuzz_byte(f) & 3;
		log->dirty_bitmap = f->room + 1024;
		fuzz_call(f->vm, KVM_GET_DIRTY_LOG, (uintptr_t)log);
		break;
	case 1:
		fuzz_bytes(f, f->room, sizeof(*clear));
		fuzz_bytes(f, f->room + 1024, 16);
		clear->slot &= 3;
		clear->first_page &= 0xc0;
		clear->dirty_bitmap = f->room + 1024;
		fuzz_call(f->vm, KVM_CLEAR_DIRTY_LOG, (uintptr_t)clear);
		break;
	case 2: {
		struct kvm_ioeventfd q = { 0 };

		fuzz_bytes(f, &q, sizeof(q));
		q.fd = f->fd[fuzz_byte(f) & 1];
		fuzz_call(f->vm, KVM_IOEVENTFD, (uintptr_t)&q);
		break;
	}
	case 3: {
		struct kvm_irqfd q = { 0 };

		fuzz_bytes(f, &q, sizeof(q));
		q.fd = (uint32_t)f->fd[fuzz_byte(f) & 1];
		q.resamplefd = (uint32_t)f->fd[fuzz_byte(f) & 1];
		fuzz_call(f->vm, KVM_IRQFD, (uintptr_t)&q);
		eventfd_write((int)q.fd, 1);
		break;
	}
	default:
		kvm_vm_memory_written(f->vm, (uint64_t)fuzz_byte(f) << 12, fuzz_byte(f) << 6);
		break;
	}
}

static void fuzz_cpu(struct fuzz *f)
{
	static const struct {
		unsigned long get, set;
	} pair[] = {
		{ KVM_GET_REGS, KVM_SET_REGS },
		{ KVM_GET_SREGS, KVM_SET_SREGS },
		{ KVM_GET_SREGS2, KVM_SET_SREGS2 },
		{ KVM_GET_FPU, KVM_SET_FPU },
		{ KVM_GET_XSAVE, KVM_SET_XSAVE },
		{ KVM_GET_XCRS, KVM_SET_XCRS },
		{ KVM_GET_LAPIC, KVM_SET_LAPIC },
		{ KVM_GET_MP_STATE, KVM_SET_MP_STATE },
		{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS },
		{ KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS },
	};
	static const unsigned long plain[] = { KVM_SET_GUEST_DEBUG, KVM_TRANSLATE,
					       KVM_INTERRUPT,       KVM_NMI,
					       KVM_KVMCLOCK_CTRL,   KVM_X86_SETUP_MCE };
	struct kvm_file *cpu = f->cpu[fuzz_byte(f) % CPUS];
	unsigned op = fuzz_byte(f) % (ARRAY_SIZE(pair) + ARRAY_SIZE(plain) + 3);
	struct kvm_msrs *m = (struct kvm_msrs *)f->room;
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)f->room;

	if (op < ARRAY_SIZE(pair)) {
		fuzz_get_set(f, cpu, pair[op].get, pair[op].set, _IOC_SIZE(pair[op].set));
		return;
	}
	op -= ARRAY_SIZE(pair);
	memset(f->room, 0, ROOM);
	if (op < ARRAY_SIZE(plain)) {
		fuzz_bytes(f, f->room, _IOC_SIZE(plain[op]));
		fuzz_call(cpu, plain[op], (uintptr_t)f->room);
	} else if (op == ARRAY_SIZE(plain)) {
		fuzz_bytes(f, f->room, 4 + 4 + 3 * sizeof(struct kvm_msr_entry));
		m->nmsrs &= 3;
		fuzz_call(cpu, fuzz_byte(f) & 1 ? KVM_SET_MSRS : KVM_GET_MSRS, (uintptr_t)m);
	} else if (op == ARRAY_SIZE(plain) + 1) {
		c->nent = 100;
		fuzz_call(f->sys, KVM_GET_SUPPORTED_CPUID, (uintptr_t)c);
		for (unsigned n = fuzz_byte(f) % 4; n; n--)
			((uint8_t *)c->entries)[(fuzz_byte(f) << 4) % 2048] = fuzz_byte(f);
		fuzz_call(cpu, KVM_SET_CPUID2, (uintptr_t)c);
	} else {
		fuzz_run(f, cpu);
	}
}

static bool fuzz_open(struct fuzz *f, uint8_t how)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_userspace_memory_region m = { .memory_size = RAM };

	if (kvm_open(NULL, &f->sys, NULL))
		return false;
	f->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->room = aligned_alloc(64, ROOM);
	f->fd[0] = eventfd(0, EFD_NONBLOCK);
	f->fd[1] = eventfd(0, EFD_NONBLOCK);
	if (f->ram == MAP_FAILED || !f->room || f->fd[1] < 0 ||
	    kvm_file_ioctl(f->sys, KVM_CREATE_VM, 0, &f->vm))
		return false;
	if (how & 1)
		fuzz_call(f->vm, KVM_CREATE_IRQCHIP, 0);
	else if (how & 2)
		fuzz_call(f->vm, KVM_ENABLE_CAP, (uintptr_t)&split);
	m.userspace_addr = (uintptr_t)f->ram;
	fuzz_call(f->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m);
	for (unsigned i = 0; i < CPUS; i++) {
		if (kvm_file_ioctl(f->vm, KVM_CREATE_VCPU, i, &f->cpu[i]))
			return false;
		kvm_vcpu_ignore_signals(f->cpu[i], true);
	}
	return true;
}

static void fuzz_close(struct fuzz *f)
{
	atomic_store(&f->stop, true);
	if (f->kicking)
		pthread_join(f->kicker, NULL);
	for (unsigned i = 0; i < CPUS; i++)
		kvm_file_close(f->cpu[i]);
	kvm_file_close(f->vm);
	kvm_file_close(f->sys);
	munmap(f->ram, RAM);
	free(f->room);
	close(f->fd[0]);
	close(f->fd[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { .p = data, .end = data + size };
	struct kvm_regs r = { .rip = 0x100, .rflags = 2, .rsp = 0x7000 };
	struct kvm_sregs s;

	if (!fuzz_open(&f, fuzz_byte(&f)))
		return 0;
	/* the input is also the guest's program, at 0000:0100 and behind every interrupt vector */
	for (size_t at = 0x100; at + size < RAM && size; at += size + 0x1000)
		memcpy(f.ram + at, data, size);
	fuzz_call(f.cpu[0], KVM_GET_SREGS, (uintptr_t)&s);
	s.cs.base = 0;
	s.cs.selector = 0;
	fuzz_call(f.cpu[0], KVM_SET_SREGS, (uintptr_t)&s);
	fuzz_call(f.cpu[0], KVM_SET_REGS, (uintptr_t)&r);
	for (unsigned n = 0; f.p < f.end && n < 100; n++) {
		switch (fuzz_byte(&f) % 8) {
		case 0: fuzz_slot(&f); break;
		case 1:
		case 2: fuzz_vm(&f); break;
		case 3: {
			struct kvm_file *to = fuzz_byte(&f) & 1 ? f.vm : f.cpu[1];
			unsigned long request = 0xae00 | fuzz_byte(&f);

			/* unknown requests, mostly; KVM_RUN is fuzz_run's */
			if (request != KVM_RUN)
				fuzz_call(to, request, 0);
			break;
		}
		case 4: fuzz_run(&f, f.cpu[fuzz_byte(&f) % CPUS]); break;
		default: fuzz_cpu(&f); break;
		}
	}
	fuzz_close(&f);
	return 0;
}
