/* virtconsole: a console is always open and never stalls; it reads as soon as there are buffers. */
#include "vserial_bed.h"

static void console(void **state)
{
	struct sbed *s = sbed_new("31");
	gpa_t a;
	uint32_t len;

	sbed_port(s, &virtconsole_class, "con", NULL, -1, 4);
	sbed_start(s, VBED_ALL, 4);
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_told(s, "add 0 1");
	sbed_send(s, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_told(s, "console 0 1");
	assert_told(s, "open 0 1");
	/* Linux spins until it has the buffer back: it gets it, with nothing lost */
	sbed_out(s, 1, "0123456789", 10);
	assert_int_equal(vbed_used(s->vb, 1, &len), 0);
	assert_string_equal(sbed_host(s, "con"), "0123456789");
	chardev_ring_event(sbed_chr(s, "con"), CHARDEV_CLOSED); /* end of its input */
	sbed_out(s, 1, "more", 4);
	assert_string_equal(sbed_host(s, "con"), "more");
	chardev_ring_input(sbed_chr(s, "con"), "ab", 2);
	a = vbed_alloc(s->vb, 64);
	vbed_add(s->vb, 0, 1, VIN(a, 64));
	vbed_kick(s->vb, 0);
	assert_int_equal(vbed_used(s->vb, 0, &len), -1);
	sbed_send(s, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vbed_run(s->vb);
	assert_int_equal(vbed_used(s->vb, 0, &len), 0);
	assert_memory_equal(s->vb->ram + a, "ab", 2);
	sbed_free(s);
}

static void without_chardev(void **state)
{
	struct sbed *s = sbed_new("1");
	uint32_t len;

	sbed_port(s, &virtconsole_class, "con", NULL, -1, 0);
	sbed_start(s, VBED_ALL, 2);
	sbed_out(s, 1, "nowhere", 7);
	assert_int_equal(vbed_used(s->vb, 1, &len), 0);
	assert_true(vbed_irq(s->vb) & VIRTIO_ISR_QUEUE);
	sbed_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(console),
		cmocka_unit_test(without_chardev),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
