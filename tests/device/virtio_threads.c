/*
 * Virtio with several threads: a vCPU that resets and reprograms a device while its elements are
 * out, in the main loop and in an iothread; interrupts from there. Also under ThreadSanitizer.
 */
#include "virtio_echo.h"

#include <stdatomic.h>

#define ROUNDS 150

struct ctx {
	struct vbed *vb;
	struct echo *ec;
	_Atomic bool done;
	unsigned answered, waited;
};

/* What a driver does: set up, requests, reset at some moment; again and again. */
static void *vcpu(void *opaque)
{
	struct ctx *c = opaque;
	struct vbed *vb = c->vb;
	gpa_t top;

	vb->vcpu = true;
	top = vb->top;
	for (unsigned i = 0; i < ROUNDS; i++) {
		gpa_t in;

		vb->top = top;
		vbed_start(vb, VBED_ALL, 2);
		in = vbed_alloc(vb, 64);
		for (unsigned k = 0; k < 8; k++) {
			vbed_add(vb, k & 1, 1, VIN(in, 64));
			vbed_w(vb, 0x50, k & 1);
			if (vbed_used(vb, k & 1, NULL) >= 0)
				c->answered++;
			if (vbed_r(vb, 0x60))
				vbed_w(vb, 0x64, 3);
		}
		if (i % 3 == 0)
			usleep(i % 7 * 20);
		vbed_w(vb, 0x70, 0);
		assert_int_equal(vbed_status(vb), 0);
		/* nothing of the device touches memory from here on */
		memset(vb->ram + top, 0x5a, 4096);
		if (i % 8 == 0)
			usleep(100);
		for (unsigned k = 0; k < 4096; k++)
			assert_int_equal(vb->ram[top + k], 0x5a);
	}
	/* and it works afterwards */
	vb->top = top;
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
	vbed_w(vb, 0x50, 0);
	for (unsigned i = 0; i < 20000 && vbed_used(vb, 0, NULL) < 0; i++) {
		usleep(100);
		assert_true(i < 19999);
	}
	c->done = true;
	loop_notify(vb->bed->loop);
	return NULL;
}

static void run(struct ctx *c)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, vcpu, c), 0);
	while (!c->done)
		loop_step(c->vb->bed->loop, true);
	pthread_join(t, NULL);
	c->vb->vcpu = false;
	assert_true(c->ec->resets >= ROUNDS);
	assert_true(c->ec->done > 0);
	assert_int_equal(virtio_in_flight(c->vb->vd), 0);
}

static void threads_main_loop(void **state)
{
	static const enum echo_mode modes[] = { ECHO_NOW, ECHO_BH, ECHO_HOLD };

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct ctx c = { 0 };

		c.vb = echo_bed_in(NULL, false, &c.ec);
		c.ec->mode = modes[i];
		c.ec->drop_on_reset = false;
		c.ec->answer_on_reset = true;
		if (modes[i] == ECHO_HOLD) { /* the last request has to be answered, too */
			c.ec->mode = ECHO_BH;
			c.ec->drop_on_reset = true;
		}
		run(&c);
		vbed_free(c.vb);
	}
}

static void threads_iothread(void **state)
{
	static const enum echo_mode modes[] = { ECHO_NOW, ECHO_BH, ECHO_TIME };
	struct clock clock;

	clock_init_host(&clock);
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct iothread *t = iothread_new("io0", &clock, NULL);
		struct ctx c = { 0 };

		assert_non_null(t);
		c.vb = echo_bed_in(t, false, &c.ec);
		c.ec->mode = modes[i];
		c.ec->delay = 300 * NS_PER_US;
		c.ec->drop_on_reset = false;
		c.ec->answer_on_reset = modes[i] == ECHO_BH;
		run(&c);
		vbed_free(c.vb);
		iothread_free(t);
	}
}

/* Interrupts of an iothread reach the line through the main loop; pause waits for the thread. */
static void threads_interrupt(void **state)
{
	struct clock clock;
	struct iothread *t;
	struct vbed *vb;
	struct echo *ec;

	clock_init_host(&clock);
	t = iothread_new("io0", &clock, NULL);
	vb = echo_bed_in(t, false, &ec);
	vbed_start(vb, VBED_ALL, 1);
	ec->mode = ECHO_TIME;
	ec->delay = 2 * NS_PER_MS;
	for (int i = 0; i < 20; i++) {
		vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
		vbed_w(vb, 0x50, 0);
		if (i % 4 == 0) {
			usleep(1000);
			bus_lock(vb->bed->md.bus);
			machine_devs_pause(&vb->bed->md);
			assert_int_equal(virtio_in_flight(vb->vd), 0);
			machine_devs_resume(&vb->bed->md);
			bus_unlock(vb->bed->md.bus);
		}
		assert_true(vbed_wait(vb, 0, NULL) >= 0);
		for (int k = 0; k < 1000 && !vb->bed->level[VBED_IRQ]; k++) {
			usleep(100);
			vbed_run(vb);
		}
		assert_true(vb->bed->level[VBED_IRQ]);
		vbed_w(vb, 0x64, 1);
		assert_false(vb->bed->level[VBED_IRQ]);
	}
	vbed_free(vb);
	iothread_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_main_loop),
		cmocka_unit_test(threads_iothread),
		cmocka_unit_test(threads_interrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
