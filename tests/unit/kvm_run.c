/*
 * KVM_RUN from outside: exits, completion, abandoning, kicks, signals, interrupts.
 * References: [KVM-API 4.10, 4.18, 5].
 */
#include <signal.h>
#include <unistd.h>

#include "unit/kvmtest.h"

/* mov dx,0xe9; mov al,0x41; out dx,al; hlt */
static const uint8_t out_hlt[] = { 0xba, 0xe9, 0x00, 0xb0, 0x41, 0xee, 0xf4 };
static const uint8_t forever[] = { 0xeb, 0xfe };

static void test_out(void **state)
{
	struct kt t;

	kt_open(&t, 0, out_hlt, sizeof(out_hlt));
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(t.run->io.port, 0xe9);
	assert_int_equal(t.run->io.size, 1);
	assert_int_equal(t.run->io.count, 1);
	assert_int_equal(((uint8_t *)t.run)[t.run->io.data_offset], 0x41);
	/* until it is completed, RIP is at the instruction */
	assert_int_equal(kt_rip(&t), KT_CODE + 5);
	t.run->immediate_exit = 1;
	assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
	assert_int_equal(kt_rip(&t), KT_CODE + 6);
	assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
	assert_int_equal(kt_rip(&t), KT_CODE + 6);
	t.run->immediate_exit = 0;
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(kt_rip(&t), KT_CODE + 7);
	kt_close(&t);
}

static void test_abandon(void **state)
{
	struct kt t;
	struct kvm_regs r;

	kt_open(&t, 0, out_hlt, sizeof(out_hlt));
	kt_run(&t, KVM_EXIT_IO);
	/* the same RIP goes on with the instruction... */
	assert_int_equal(kt_cpu(&t, KVM_GET_REGS, &r), 0);
	assert_int_equal(kt_cpu(&t, KVM_SET_REGS, &r), 0);
	kt_run(&t, KVM_EXIT_HLT);
	kt_start(t.cpu, KT_CODE);
	kt_run(&t, KVM_EXIT_IO);
	/* ...another one drops it: straight to the HLT */
	r.rip = KT_CODE + 6;
	assert_int_equal(kt_cpu(&t, KVM_SET_REGS, &r), 0);
	assert_int_equal(kt_rip(&t), KT_CODE + 6);
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(kt_rip(&t), KT_CODE + 7);
	kt_close(&t);
}

static void test_in(void **state)
{
	/* in ax,0x70; mov di,0x2000; mov cx,3; mov dx,0x71; rep insb; hlt */
	static const uint8_t code[] = { 0xe5, 0x70, 0xbf, 0x00, 0x20, 0xb9, 0x03,
					0x00, 0xba, 0x71, 0x00, 0xf3, 0x6c, 0xf4 };
	struct kt t;
	struct kvm_regs r;
	unsigned got = 0;

	kt_open(&t, 0, code, sizeof(code));
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.size, 2);
	assert_int_equal(t.run->io.direction, KVM_EXIT_IO_IN);
	memcpy((uint8_t *)t.run + t.run->io.data_offset, "\x34\x12", 2);
	while (got < 3) {
		kt_run(&t, KVM_EXIT_IO);
		assert_int_equal(t.run->io.port, 0x71);
		assert_in_range(t.run->io.count, 1, 3);
		for (unsigned i = 0; i < t.run->io.count; i++)
			((uint8_t *)t.run)[t.run->io.data_offset + i] = (uint8_t)('a' + got++);
	}
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(kt_cpu(&t, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rax & 0xffff, 0x1234);
	assert_int_equal(r.rcx & 0xffff, 0);
	assert_memory_equal(t.ram + 0x2000, "abc", 4);
	kt_close(&t);
}

static void test_mmio_straddle(void **state)
{
	/* mov ax,0xf000; mov ds,ax; mov dword [0xfffe],0x44332211; hlt: 0xffffe crosses to nothing
	 */
	static const uint8_t code[] = { 0xb8, 0x00, 0xf0, 0x8e, 0xd8, 0x66, 0xc7, 0x06,
					0xfe, 0x8f, 0x11, 0x22, 0x33, 0x44, 0xf4 };
	struct kt t;
	uint8_t *page =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	kt_open(&t, 0, code, sizeof(code));
	assert_int_equal(kt_slot(&t, 1, 0, 0xf8000, 4096, page), 0);
	kt_run(&t, KVM_EXIT_MMIO);
	assert_int_equal(t.run->mmio.phys_addr, 0xf9000);
	assert_int_equal(t.run->mmio.len, 2);
	assert_int_equal(t.run->mmio.is_write, 1);
	assert_memory_equal(t.run->mmio.data, "\x33\x44", 2);
	kt_run(&t, KVM_EXIT_HLT);
	assert_memory_equal(page + 0xffe, "\x11\x22", 2);
	kt_close(&t);
	munmap(page, 4096);
}

static void *kick_later(void *arg)
{
	usleep(20000);
	kvm_vcpu_kick_user(arg);
	return NULL;
}

static void test_kick(void **state)
{
	pthread_t th;
	struct kt t;

	for (int chip = 0; chip < 2; chip++) {
		/* a busy guest; with an irqchip, one that halts for ever */
		kt_open(&t, chip ? KT_IRQCHIP : 0, chip ? (const uint8_t *)"\xf4" : forever,
			chip ? 1 : 2);
		kvm_vcpu_ignore_signals(t.cpu, true);
		pthread_create(&th, NULL, kick_later, t.cpu);
		assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
		assert_int_equal(t.run->exit_reason, KVM_EXIT_INTR);
		pthread_join(th, NULL);
		/* a kick before the run ends the next one, and only that */
		kvm_vcpu_kick_user(t.cpu);
		assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
		pthread_create(&th, NULL, kick_later, t.cpu);
		assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
		pthread_join(th, NULL);
		kt_close(&t);
	}
}

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	handled = sig;
}

static volatile bool signal_stop;

/* Again and again: the first may come before KVM_RUN does. */
static void *signal_later(void *arg)
{
	do {
		usleep(10000);
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
	} while (!__atomic_load_n(&signal_stop, __ATOMIC_SEQ_CST));
	return NULL;
}

static void test_signal(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal };
	pthread_t self = pthread_self(), th;
	struct kt t;

	sigaction(SIGUSR1, &sa, NULL);
	for (int chip = 0; chip < 2; chip++) {
		kt_open(&t, chip ? KT_IRQCHIP : 0, chip ? (const uint8_t *)"\xf4" : forever,
			chip ? 1 : 2);
		handled = 0;
		signal_stop = false;
		pthread_create(&th, NULL, signal_later, &self);
		assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
		/* the handler has run when KVM_RUN is back */
		assert_int_equal(handled, SIGUSR1);
		__atomic_store_n(&signal_stop, true, __ATOMIC_SEQ_CST);
		pthread_join(th, NULL);
		kt_close(&t);
	}
}

static void test_signal_mask(void **state)
{
	uint64_t room[2] = { 0 };
	struct kvm_signal_mask *m = (struct kvm_signal_mask *)room;
	struct timespec none = { 0 };
	sigset_t set, old;
	pthread_t self = pthread_self(), th;
	struct kt t;

	kt_open(&t, 0, forever, sizeof(forever));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	m->len = 8;
	memcpy(m->sigset, &old, 8);
	assert_int_equal(kt_cpu(&t, KVM_SET_SIGNAL_MASK, m), 0);
	handled = 0;
	signal_stop = true; /* once: blocked, it waits */
	pthread_create(&th, NULL, signal_later, &self);
	assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINTR);
	pthread_join(th, NULL);
	/* blocked outside: it stays pending, no handler */
	assert_int_equal(handled, 0);
	assert_int_equal(sigtimedwait(&set, NULL, &none), SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	m->len = 4;
	assert_int_equal(kt_cpu(&t, KVM_SET_SIGNAL_MASK, m), -EINVAL);
	kt_close(&t);
}

static void test_interrupt(void **state)
{
	/* sti; 1: jmp 1b; the handler: mov al,7; out 0x80,al; iret */
	static const uint8_t code[] = { 0xfb, 0xeb, 0xfe },
			     handler[] = { 0xb0, 7, 0xe6, 0x80, 0xcf };
	struct kvm_interrupt irq = { .irq = 0x21 };
	struct kt t;

	kt_open(&t, 0, code, sizeof(code));
	memcpy(t.ram + 0x3000, handler, sizeof(handler));
	memcpy(t.ram + 4 * 0x21, "\x00\x30\x00\x00", 4);
	t.run->request_interrupt_window = 1;
	kt_run(&t, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_int_equal(t.run->ready_for_interrupt_injection, 1);
	assert_int_equal(t.run->if_flag, 1);
	t.run->request_interrupt_window = 0;
	assert_int_equal(kt_cpu(&t, KVM_INTERRUPT, &irq), 0);
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.port, 0x80);
	assert_int_equal(t.run->if_flag, 0);
	assert_int_equal(kt_rip(&t), 0x3002);
	kt_close(&t);
}

/* Split irqchip: KVM_INTERRUPT waits for the guest's IF and for LVT0 as ExtINT. */
static void test_split_extint(void **state)
{
	/* out 0x81,al; sti; 1: jmp 1b */
	static const uint8_t code[] = { 0xe6, 0x81, 0xfb, 0xeb, 0xfe },
			     handler[] = { 0xe6, 0x80, 0xf4 };
	struct kvm_interrupt irq = { .irq = 0x21 };
	struct kvm_lapic_state s;
	struct kt t;

	kt_open(&t, KT_SPLIT, code, sizeof(code));
	memcpy(t.ram + 0x3000, handler, sizeof(handler));
	memcpy(t.ram + 4 * 0x21, "\x00\x30\x00\x00", 4);
	assert_int_equal(kt_cpu(&t, KVM_GET_LAPIC, &s), 0);
	s.regs[0xf1] |= 1;
	memcpy(s.regs + 0x350, "\x00\x07\x00\x00", 4);
	assert_int_equal(kt_cpu(&t, KVM_SET_LAPIC, &s), 0);
	assert_int_equal(kt_cpu(&t, KVM_INTERRUPT, &irq), 0);
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.port, 0x81);
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.port, 0x80);
	assert_int_equal(kt_cpu(&t, KVM_INTERRUPT, &irq), 0);
	kt_close(&t);
}

static void test_code_written(void **state)
{
	/* 1: mov al,1; out 0x80,al; jmp 1b */
	static const uint8_t code[] = { 0xb0, 1, 0xe6, 0x80, 0xeb, 0xfa };
	struct kt t;

	kt_open(&t, 0, code, sizeof(code));
	for (unsigned i = 1; i < 5; i++) {
		t.ram[KT_CODE + 1] = (uint8_t)i;
		kvm_vm_memory_written(t.vm, KT_CODE + 1, 1);
		kt_run(&t, KVM_EXIT_IO);
		assert_int_equal(((uint8_t *)t.run)[t.run->io.data_offset], i);
	}
	kt_close(&t);
}

static void test_dirty_log(void **state)
{
	/* 1: inc byte [0x2000]; inc byte [0x5000]; out 0x80,al; jmp 1b */
	static const uint8_t code[] = { 0xfe, 0x06, 0x00, 0x20, 0xfe, 0x06,
					0x00, 0x50, 0xe6, 0x80, 0xeb, 0xf4 };
	uint64_t map[1] = { 0 };
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = map };
	struct kvm_clear_dirty_log clear = { .slot = 0, .num_pages = 16, .dirty_bitmap = map };
	struct kvm_enable_cap manual = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 1 } };
	struct kt t;

	kt_open(&t, 0, code, sizeof(code));
	kt_run(&t, KVM_EXIT_IO);
	/* switched on under a guest that has the pages writable already */
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	assert_int_equal(kt_slot(&t, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, KT_RAM, t.ram), 0);
	for (int i = 0; i < 3; i++) {
		kt_run(&t, KVM_EXIT_IO);
		assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
		assert_int_equal(map[0], 1 << 2 | 1 << 5);
		assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
		assert_int_equal(map[0], 0);
	}
	kvm_vm_memory_written(t.vm, 0x7fff, 2);
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(map[0], 1 << 7 | 1 << 8);
	/* manual protection: reading keeps, clearing clears what it names */
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &manual), 0);
	kt_run(&t, KVM_EXIT_IO);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
		assert_int_equal(map[0], 1 << 2 | 1 << 5);
	}
	map[0] = 1 << 2;
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &clear), 0);
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(map[0], 1 << 5);
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(map[0], 1 << 2 | 1 << 5);
	kt_close(&t);
}

static void test_readonly_slot(void **state)
{
	/* mov byte [0x9000],1; hlt: a write to a ROM goes to user space */
	static const uint8_t code[] = { 0xc6, 0x06, 0x00, 0x90, 1, 0xf4 };
	struct kt t;

	kt_open(&t, KT_NO_RAM, code, sizeof(code));
	assert_int_equal(kt_slot(&t, 0, 0, 0, 0x8000, t.ram), 0);
	assert_int_equal(kt_slot(&t, 1, KVM_MEM_READONLY, 0x8000, 0x8000, t.ram + 0x8000), 0);
	kt_run(&t, KVM_EXIT_MMIO);
	assert_int_equal(t.run->mmio.phys_addr, 0x9000);
	assert_int_equal(t.run->mmio.is_write, 1);
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(t.ram[0x9000], 0);
	kt_close(&t);
}

static void test_shutdown(void **state)
{
	/* lidt of an empty table; int3 */
	static const uint8_t code[] = { 0x0f, 0x01, 0x1e, 0x00, 0x20, 0xcc };
	struct kt t;

	kt_open(&t, 0, code, sizeof(code));
	kt_run(&t, KVM_EXIT_SHUTDOWN);
	kt_close(&t);
}

static void test_sync_regs(void **state)
{
	struct kt t;

	kt_open(&t, 0, out_hlt, sizeof(out_hlt));
	t.run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->s.regs.regs.rip, KT_CODE + 5);
	t.run->s.regs.regs.rip = KT_CODE + 6;
	t.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(t.run->s.regs.regs.rip, KT_CODE + 7);
	t.run->kvm_valid_regs = 1 << 20;
	assert_int_equal(kt_cpu(&t, KVM_RUN, NULL), -EINVAL);
	kt_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out),
		cmocka_unit_test(test_abandon),
		cmocka_unit_test(test_in),
		cmocka_unit_test(test_mmio_straddle),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_signal),
		cmocka_unit_test(test_signal_mask),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_code_written),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_readonly_slot),
		cmocka_unit_test(test_shutdown),
		cmocka_unit_test(test_sync_regs),
		cmocka_unit_test(test_split_extint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
