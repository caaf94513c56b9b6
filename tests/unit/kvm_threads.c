/*
 * What several threads do at once: requests and grace periods, exclusive sections, timers, slot
 * changes and dirty logs under a running guest. Made to be run under ThreadSanitizer too.
 * References: kvm/vm.h, kvm/request.c.
 */
#include <unistd.h>

#include "unit/kvmtest.h"
/* after the standard headers: REG_RAX */
#include "kvm/handle.h"
#include "kvm/vm.h"
#include "kvm/x86/vcpu.h"

/* ---- Grace periods: no vCPU uses the old value once kvm_sync_vcpus has returned -------------- */

#define NV 3

struct grace {
	struct kvm_file *sys, *vmf, *cpu[NV];
	struct kvm_vm *vm;
	int *_Atomic current; /* the pointed-to value is plain: TSan watches it */
	int box[2];
	atomic_bool stop;
	atomic_uint turns, alone;
	unsigned plain; /* counted in exclusive sections only */
};

static void grace_open(struct grace *g)
{
	memset(g, 0, sizeof(*g));
	assert_int_equal(kvm_open(NULL, &g->sys, NULL), 0);
	assert_int_equal(kvm_file_ioctl(g->sys, KVM_CREATE_VM, 0, &g->vmf), 0);
	for (unsigned i = 0; i < NV; i++)
		assert_int_equal(kvm_file_ioctl(g->vmf, KVM_CREATE_VCPU, i, &g->cpu[i]), 0);
	g->vm = g->vmf->vm;
	g->current = &g->box[0];
}

static void grace_close(struct grace *g)
{
	for (unsigned i = 0; i < NV; i++)
		kvm_file_close(g->cpu[i]);
	kvm_file_close(g->vmf);
	kvm_file_close(g->sys);
}

struct grace_arg {
	struct grace *g;
	struct vcpu *v;
};

static void *grace_reader(void *arg)
{
	struct grace_arg *a = arg;
	struct grace *g = a->g;

	kvm_guest_enter(a->v);
	while (!atomic_load(&g->stop)) {
		int *p = atomic_load(&g->current);

		/* a boundary now and then; between boundaries the old value may be used */
		for (int i = 0; i < 20; i++)
			if (*p != 1)
				atomic_store(&g->stop, true), abort();
		atomic_fetch_add(&g->turns, 1);
		if (atomic_load(&a->v->requests))
			kvm_guest_boundary(a->v);
		if (!(atomic_load(&g->turns) & 63)) {
			kvm_guest_exit(a->v);
			kvm_guest_enter(a->v);
		}
	}
	kvm_guest_exit(a->v);
	return NULL;
}

static void test_grace(void **state)
{
	struct grace g;
	struct grace_arg a[NV];
	pthread_t th[NV];

	grace_open(&g);
	g.box[0] = g.box[1] = 1;
	for (unsigned i = 0; i < NV; i++) {
		a[i] = (struct grace_arg){ &g, g.cpu[i]->vcpu };
		pthread_create(&th[i], NULL, grace_reader, &a[i]);
	}
	while (!atomic_load(&g.turns))
		usleep(100);
	for (unsigned i = 0; i < 100; i++) {
		int *old = &g.box[i % 2], *new = &g.box[1 - i % 2];

		*new = 1;
		atomic_store(&g.current, new);
		kvm_sync_vcpus(g.vm, REQ_SYNC, NULL);
		*old = 0; /* "freed": a reader that still sees it aborts */
	}
	atomic_store(&g.stop, true);
	for (unsigned i = 0; i < NV; i++)
		pthread_join(th[i], NULL);
	grace_close(&g);
}

/* vCPUs that sync each other, with exclusive sections in between: no deadlock, and really alone. */
static void *grace_mutual(void *arg)
{
	struct grace_arg *a = arg;
	struct grace *g = a->g;

	kvm_guest_enter(a->v);
	for (unsigned i = 0; i < 60; i++) {
		kvm_sync_vcpus(g->vm, REQ_SYNC, a->v);
		kvm_exclusive_start(a->v);
		if (atomic_fetch_add(&g->alone, 1))
			abort();
		g->plain++;
		atomic_fetch_sub(&g->alone, 1);
		kvm_exclusive_end(a->v);
		kvm_guest_boundary(a->v);
	}
	kvm_guest_exit(a->v);
	return NULL;
}

static void test_exclusive(void **state)
{
	struct grace g;
	struct grace_arg a[NV];
	pthread_t th[NV];

	grace_open(&g);
	for (unsigned i = 0; i < NV; i++) {
		a[i] = (struct grace_arg){ &g, g.cpu[i]->vcpu };
		pthread_create(&th[i], NULL, grace_mutual, &a[i]);
	}
	for (unsigned i = 0; i < NV; i++)
		pthread_join(th[i], NULL);
	assert_int_equal(g.plain, NV * 60);
	grace_close(&g);
}

static void *wake_later(void *arg)
{
	usleep(5000);
	kvm_make_request(arg, REQ_EVENT);
	return NULL;
}

static void test_wait(void **state)
{
	struct grace g;
	struct vcpu *v;
	uint64_t before;
	pthread_t th;

	grace_open(&g);
	v = g.cpu[0]->vcpu;
	kvm_vcpu_ignore_signals(g.cpu[0], true);
	atomic_store(&v->requests, 0);
	pthread_create(&th, NULL, wake_later, v);
	kvm_vcpu_wait(v, 0);
	assert_int_equal(atomic_load(&v->requests), REQ_EVENT);
	pthread_join(th, NULL);
	/* time areas alone do not wake; the deadline does */
	atomic_store(&v->requests, REQ_STEAL);
	before = kvm_now_ns();
	kvm_vcpu_wait(v, before + 3000000);
	assert_true(kvm_now_ns() >= before + 3000000);
	grace_close(&g);
}

/* ---- Timers ---------------------------------------------------------------------------------- */

struct tick {
	struct kvm_vm *vm;
	struct kvm_timer t;
	atomic_uint n, begun;
	unsigned again, slow;
	uint64_t at;
};

static void tick_fn(void *opaque)
{
	struct tick *k = opaque;

	atomic_fetch_add(&k->begun, 1);
	if (k->slow)
		usleep(k->slow);
	k->at = kvm_now_ns();
	if (atomic_fetch_add(&k->n, 1) + 1 < k->again)
		kvm_timer_arm(k->vm, &k->t, kvm_now_ns() + 100000);
}

static bool ticks_done(struct tick *k)
{
	for (unsigned i = 0; i < 40; i++)
		if (atomic_load(&k[i].n) != (i == 2 ? 0 : i == 3 ? 5 : 1))
			return false;
	return true;
}

static void test_timers(void **state)
{
	struct kt t;
	static struct tick k[40]; /* the timer thread may outlive a failed test's stack */
	struct kvm_vm *vm;
	uint64_t now;

	kt_open(&t, KT_NO_CPU, NULL, 0);
	vm = t.vm->vm;
	memset(k, 0, sizeof(k));
	k[3].again = 5;
	now = kvm_now_ns();
	for (unsigned i = 0; i < 40; i++) {
		k[i].vm = vm;
		kvm_timer_init(&k[i].t, tick_fn, &k[i]);
		/* late enough that a slow machine has set all before the first is due */
		kvm_timer_arm(vm, &k[i].t, now + 500000000 + (i * 7 % 40) * 200000ull);
	}
	/* an earlier and a later time, and never */
	kvm_timer_arm(vm, &k[0].t, now + 400000000);
	kvm_timer_arm(vm, &k[1].t, now + 600000000);
	kvm_timer_cancel(vm, &k[2].t);
	for (int i = 0; i < 5000 && !ticks_done(k); i++)
		usleep(1000);
	assert_true(ticks_done(k));
	assert_true(k[0].at < k[4].at);
	assert_true(k[1].at > k[4].at);
	/* cancelling waits for the callback under way */
	k[5].slow = 20000;
	atomic_store(&k[5].n, 0);
	atomic_store(&k[5].begun, 0);
	kvm_timer_arm(vm, &k[5].t, 1);
	while (!atomic_load(&k[5].begun))
		usleep(100);
	kvm_timer_cancel(vm, &k[5].t);
	assert_int_equal(atomic_load(&k[5].n), 1);
	kt_close(&t);
}

/* ---- Slots change while a guest runs --------------------------------------------------------- */

static void *run_guest(void *arg)
{
	struct kt *t = arg;
	long r;

	do
		r = kt_cpu(t, KVM_RUN, NULL);
	while (!r && t->run->exit_reason == KVM_EXIT_MMIO);
	return (void *)r;
}

static void test_slots_running(void **state)
{
	/* 1: inc byte [0x9000]; inc byte [0x2000]; jmp 1b */
	static const uint8_t code[] = {
		0xfe, 0x06, 0x00, 0x90, 0xfe, 0x06, 0x00, 0x20, 0xeb, 0xf6
	};
	uint8_t *other =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t map[1];
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = map };
	pthread_t th;
	struct kt t;
	unsigned dirty = 0;

	kt_open(&t, KT_NO_RAM, code, sizeof(code));
	kvm_vcpu_ignore_signals(t.cpu, true);
	assert_int_equal(kt_slot(&t, 0, 0, 0, 0x9000, t.ram), 0);
	pthread_create(&th, NULL, run_guest, &t);
	/* until the guest has been seen to write often enough, however seldom it runs */
	for (int i = 0; i < 60 || (dirty <= 5 && i < 100000); i++) {
		uint8_t seen;

		assert_int_equal(kt_slot(&t, 1, 0, 0x9000, 4096, other), 0);
		assert_int_equal(
			kt_slot(&t, 0, i & 1 ? 0 : KVM_MEM_LOG_DIRTY_PAGES, 0, 0x9000, t.ram), 0);
		usleep(200);
		assert_int_equal(kt_slot(&t, 1, 0, 0, 0, other), 0);
		/* gone: nobody writes there any more */
		seen = *(volatile uint8_t *)other;
		usleep(100);
		assert_int_equal(seen, *(volatile uint8_t *)other);
		if (!(i & 1)) {
			assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
			assert_int_equal(map[0] & ~(1ull << 2), 0);
			dirty += map[0] != 0;
		}
	}
	kvm_vcpu_kick_user(t.cpu);
	pthread_join(th, NULL);
	assert_true(dirty > 5);
	kt_close(&t);
	munmap(other, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grace),         cmocka_unit_test(test_exclusive),
		cmocka_unit_test(test_wait),          cmocka_unit_test(test_timers),
		cmocka_unit_test(test_slots_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
