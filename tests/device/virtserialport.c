/* virtserialport: flow control both ways, opening and closing at both ends, reset with data in
 * hand. */
#include "vserial_bed.h"

#define PORT &virtserialport_class

enum { IN = 4, OUT = 5 }; /* queues of port 1 */

static struct sbed *ready(size_t room)
{
	struct sbed *s = sbed_new("31");

	sbed_port(s, PORT, "p", "name", 1, room);
	sbed_start(s, VBED_ALL, 6);
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	while (*sbed_told(s)) {
	}
	return s;
}

/* The guest gives one buffer for input; what came into it, "" for nothing. */
static const char *take(struct sbed *s, uint32_t cap)
{
	static char text[4096];
	gpa_t at = vbed_alloc(s->vb, cap);
	uint32_t len = 0;

	vbed_add(s->vb, IN, 1, VIN(at, cap));
	vbed_kick(s->vb, IN);
	if (vbed_used(s->vb, IN, &len) < 0)
		return "";
	snprintf(text, sizeof(text), "%.*s", (int)len, (char *)s->vb->ram + at);
	return text;
}

static void input(void **state)
{
	struct sbed *s = ready(1000);
	struct chardev *c = sbed_chr(s, "p");

	chardev_ring_input(c, "0123456789", 10);
	assert_string_equal(take(s, 4), ""); /* the guest has not opened it: nothing is read */
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vbed_run(s->vb);
	assert_true(vbed_used(s->vb, IN, &(uint32_t){ 0 }) >= 0);
	assert_string_equal(take(s, 4), "4567");
	assert_string_equal(take(s, 4), "89"); /* without a buffer it had to wait */
	assert_string_equal(take(s, 4), "");
	chardev_ring_input(c, "abcdefgh", 8);
	vbed_run(s->vb);
	assert_true(vbed_used(s->vb, IN, &(uint32_t){ 0 }) >= 0);
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 0); /* closed: the rest waits again */
	assert_string_equal(take(s, 4), "");
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vbed_run(s->vb);
	assert_true(vbed_used(s->vb, IN, &(uint32_t){ 0 }) >= 0);
	sbed_free(s);
}

/* A driver that notifies only when it is asked to: input goes on whenever there are buffers again.
 */
static void input_notified(void **state)
{
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		struct sbed *s = sbed_new("31");
		uint64_t f = event_idx ? VBED_ALL : VBED_ALL & ~BIT(VIRTIO_RING_F_EVENT_IDX);
		gpa_t a;
		char text[1000] = { 0 };
		size_t got = 0;
		uint32_t len;

		sbed_port(s, PORT, "p", "name", 1, 100);
		sbed_start(s, f, 6);
		sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		a = vbed_alloc(s->vb, 64);
		chardev_ring_input(sbed_chr(s, "p"), text, sizeof(text));
		vbed_run(s->vb); /* nothing else drives it from here on */
		for (int round = 0; got < sizeof(text); round++) {
			bool want = false;

			assert_true(round < 1000);
			for (int i = 0; i < 1 + round % 3; i++)
				want |= sbed_in(s, IN, a, 8);
			if (want)
				vbed_kick(s->vb, IN);
			vbed_run(s->vb);
			while (vbed_used(s->vb, IN, &len) >= 0)
				got += len;
		}
		sbed_free(s);
	}
}

/* Buffers in several pieces, and one without room at all. */
static void input_pieces(void **state)
{
	struct sbed *s = ready(1000);
	gpa_t a = vbed_alloc(s->vb, 64);
	uint32_t len;

	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vbed_add(s->vb, IN, 1, VOUT(a, 8));
	vbed_add(s->vb, IN, 3, VIN(a, 2), VIN(a + 10, 3), VIN(a + 20, 4));
	vbed_kick(s->vb, IN);
	chardev_ring_input(sbed_chr(s, "p"), "abcdefg", 7);
	vbed_run(s->vb);
	assert_true(vbed_used(s->vb, IN, &len) >= 0);
	assert_int_equal(len, 0);
	assert_true(vbed_used(s->vb, IN, &len) >= 0);
	assert_int_equal(len, 7);
	assert_memory_equal(s->vb->ram + a, "ab", 2);
	assert_memory_equal(s->vb->ram + a + 10, "cde", 3);
	assert_memory_equal(s->vb->ram + a + 20, "fg", 2);
	sbed_free(s);
}

/* A guest that has another buffer without room whenever one comes back. */
struct feeder {
	struct gmem_listener l;
	struct vq *q;
	unsigned left;
};

static void feed(struct gmem_listener *l, gpa_t gpa, uint64_t len)
{
	struct feeder *f = container_of(l, struct feeder, l);

	if (gpa == f->q->device + 2 && f->left && f->left--)
		f->q->avail[1] = (uint16_t)(f->q->used[1] + f->q->size);
}

static void input_endless(void **state)
{
	struct sbed *s = ready(1000);
	struct feeder f = { .l.written = feed, .q = &s->vb->q[IN], .left = 10000 };

	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (unsigned i = 0; i < f.q->size; i++)
		vbed_add(s->vb, IN, 1, VOUT(vbed_alloc(s->vb, 8), 8));
	assert_int_equal(gmem_listen(s->b->md.mem, &f.l, NULL), 0);
	chardev_ring_input(sbed_chr(s, "p"), "abcdefg", 7);
	for (int i = 0; i < 10; i++) {
		unsigned before = f.left;

		loop_step(s->b->md.loop, false);
		assert_true(before - f.left <= 256);
	}
	assert_true(f.left < 9500); /* and yet it goes on */
	gmem_unlisten(s->b->md.mem, &f.l);
	sbed_free(s);
}

static void output(void **state)
{
	struct sbed *s = ready(4);
	gpa_t a = vbed_alloc(s->vb, 64);
	uint32_t len;

	memcpy(s->vb->ram + a, "abcdefghijkl", 12);
	vbed_add(s->vb, OUT, 3, VOUT(a, 3), VOUT(a + 3, 6), VOUT(a + 9, 3));
	vbed_add(s->vb, OUT, 1, VOUT(a, 2));
	vbed_kick(s->vb, OUT);
	assert_int_equal(vbed_used(s->vb, OUT, &len), -1); /* a full chardev stops the queue */
	assert_int_equal(virtio_in_flight(s->vb->vd), 0);
	vbed_kick(s->vb, OUT); /* and kicks do not repeat anything */
	assert_string_equal(sbed_host(s, "p"), "abcd");
	assert_string_equal(sbed_host(s, "p"), "efgh");
	assert_int_equal(vbed_used(s->vb, OUT, &len), 0);
	assert_string_equal(sbed_host(s, "p"), "ijkl");
	assert_true(vbed_used(s->vb, OUT, &len) >= 0);
	assert_string_equal(sbed_host(s, "p"), "ab");
	assert_int_equal(vbed_used(s->vb, OUT, &len), -1);
	assert_true(vbed_irq(s->vb) & VIRTIO_ISR_QUEUE);
	sbed_free(s);
}

/* An element that names gigabytes has its bytes in turns. */
static void output_endless(void **state)
{
	enum { BIG = 3 << 20, N = 3 };
	struct sbed *s = ready(N * BIG);
	struct chardev *c = sbed_chr(s, "p");
	uint8_t *got = malloc(N * BIG), *ram = s->vb->ram + (8 << 20);
	size_t n, total = 0;
	uint32_t len;

	for (size_t i = 0; i < BIG; i++)
		ram[i] = (uint8_t)(i * 7 >> 3 ^ i >> 11);
	vbed_add(s->vb, OUT, N, VOUT(8 << 20, BIG), VOUT(8 << 20, BIG), VOUT(8 << 20, BIG));
	for (int i = 0; i < 4; i++)
		vbed_add(s->vb, OUT, 1, VOUT(8 << 20, 300000));
	vbed_w(s->vb, 0x50, OUT);
	for (int rounds = 0; total < N * BIG && rounds < 100; rounds++) {
		assert_int_equal(vbed_used(s->vb, OUT, &len), -1);
		loop_step(s->b->md.loop, false);
		n = chardev_ring_output(c, got + total, N * BIG - total);
		assert_true(n <= 1 << 20);
		total += n;
	}
	assert_int_equal(total, N * BIG);
	assert_int_equal(vbed_used(s->vb, OUT, &len), 0);
	for (int i = 0; i < N; i++)
		assert_memory_equal(got + i * BIG, ram, BIG);
	for (total = 0; total < 1200000; total += n) { /* the same for several that are smaller */
		loop_step(s->b->md.loop, false);
		n = chardev_ring_output(c, got, N * BIG);
		assert_true(n && n <= 1 << 20);
	}
	while (vbed_used(s->vb, OUT, &len) >= 0)
		total++;
	assert_int_equal(total, 1200004);
	free(got);
	sbed_free(s);
}

/* Nobody on the host: output is dropped, also what had begun to go out. */
static void output_closed(void **state)
{
	struct sbed *s = ready(4);
	struct chardev *c = sbed_chr(s, "p");
	uint32_t len;

	sbed_out(s, OUT, "0123456789", 10);
	chardev_ring_event(c, CHARDEV_CLOSED);
	vbed_run(s->vb);
	assert_true(vbed_used(s->vb, OUT, &len) >= 0);
	sbed_out(s, OUT, "dropped", 7);
	assert_true(vbed_used(s->vb, OUT, &len) >= 0);
	assert_string_equal(sbed_host(s, "p"), "0123");
	chardev_ring_event(c, CHARDEV_OPENED);
	sbed_out(s, OUT, "new", 3);
	assert_string_equal(sbed_host(s, "p"), "new"); /* from its first byte on */
	sbed_free(s);
}

/* A guest that changes a chain that is half written gets what it deserves, and no more. */
static void output_changed(void **state)
{
	struct sbed *s = ready(4);
	struct vq *q = &s->vb->q[OUT];
	uint32_t len;

	sbed_out(s, OUT, "0123456789", 10);
	q->d[0].len = 2; /* shorter than what is out already */
	assert_string_equal(sbed_host(s, "p"), "0123");
	assert_int_equal(vbed_used(s->vb, OUT, &len), 0);
	assert_string_equal(sbed_host(s, "p"), "");
	sbed_out(s, OUT, "abcdefgh", 8);
	q->d[1].addr = UINT64_MAX - 2;
	assert_string_equal(sbed_host(s, "p"), "abcd");
	vbed_assert_broken(s->vb);
	assert_string_equal(sbed_host(s, "p"), "");
	sbed_start(s, VBED_ALL, 6); /* as good as new */
	assert_int_equal(vbed_status(s->vb), 15);
	sbed_free(s);
}

/* Hot reset with an input buffer in hand and output half written. */
static void reset(void **state)
{
	struct sbed *s = ready(4);
	gpa_t a = vbed_alloc(s->vb, 64);

	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vbed_add(s->vb, IN, 1, VIN(a, 64));
	vbed_kick(s->vb, IN);
	sbed_out(s, OUT, "0123456789", 10);
	assert_int_equal(chardev_fe_can_read(sbed_chr(s, "p")), 64);
	assert_int_equal(virtio_in_flight(s->vb->vd), 1);
	vbed_w(s->vb, 0x70, 0);
	assert_int_equal(vbed_status(s->vb), 0);
	assert_int_equal(virtio_in_flight(s->vb->vd), 0);
	memset(s->vb->ram + a, 0x55, 64);
	chardev_ring_input(sbed_chr(s, "p"), "typed", 5);
	vbed_run(s->vb);
	assert_int_equal(s->vb->ram[a], 0x55); /* memory is the guest's again */
	assert_string_equal(sbed_host(s, "p"), "0123");
	sbed_start(s, VBED_ALL, 6);
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_told(s, "add 1 1");
	assert_told(s, "name 1 1 name");
	assert_told(s, "open 1 1");
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	assert_string_equal(take(s, 64), "typed"); /* input waited */
	sbed_out(s, OUT, "new", 3);
	assert_string_equal(sbed_host(s, "p"), "new");
	machine_devs_reset(&s->b->md, RESET_WARM);
	assert_int_equal(vbed_status(s->vb), 0);
	sbed_free(s);
}

/*
 * A driver takes the queue away while a buffer of it is in hand, and gives it back smaller: what
 * the buffer knows of slots must not count any more. Nothing else may be written then.
 */
static void queue_taken_away(void **state)
{
	for (int packed = 0; packed < 2; packed++) {
		struct sbed *s = sbed_new("31");
		const struct virtq_state *qs;
		struct chardev *c;
		gpa_t a;

		container_of(s->d, struct virtio_dev, dev)->packed = packed;
		sbed_port(s, PORT, "p", "name", 1, 100);
		c = sbed_chr(s, "p");
		sbed_start(s, VBED_ALL, 6);
		sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		qs = virtio_queue_state(s->vb->vd->v, IN);
		for (int round = 0; round < 2; round++) {
			a = vbed_alloc(s->vb, 64);
			vbed_add(s->vb, IN, 3, VIN(a, 10), VIN(a + 10, 10), VIN(a + 20, 10));
			vbed_kick(s->vb, IN);
			assert_int_equal(chardev_fe_can_read(c), 30);
			assert_int_equal(virtio_in_flight(s->vb->vd), 1);
			vbed_w(s->vb, 0x30, IN);
			vbed_w(s->vb, 0x44, 0);
			vbed_queue(s->vb, IN, 2);
			if (round) { /* put back for a pause, which has no place to go to */
				machine_devs_pause(&s->b->md);
				machine_devs_resume(&s->b->md);
			} else {
				chardev_ring_input(c, "lost to nobody", 14);
				vbed_run(s->vb);
			}
			assert_int_equal(virtio_in_flight(s->vb->vd), 0);
			assert_int_equal(s->vb->ram[a], 0);
			assert_true(qs->avail < 2 && qs->used < 2);
			vbed_w(s->vb, 0x30, IN);
			vbed_w(s->vb, 0x44, 0);
			vbed_queue(s->vb, IN, VBED_QSIZE);
			a = vbed_alloc(s->vb, 64);
			vbed_add(s->vb, IN, 1, VIN(a, 64));
			vbed_kick(s->vb, IN);
			vbed_run(s->vb);
			if (!round) /* it has waited */
				assert_memory_equal(s->vb->ram + a, "lost to nobody", 14);
		}
		sbed_free(s);
	}
}

static void busy_chardev(void **state)
{
	struct sbed *s = sbed_new("31");
	struct err e = { 0 };

	sbed_port(s, PORT, "p", NULL, -1, 10);
	{
		struct dev *d = dev_new(&s->b->md, PORT, "q", &e);

		dev_set_backend(d, "bus", s->serial);
		dev_set_backend(d, "chardev", sbed_chr(s, "p"));
		assert_int_equal(dev_realize(d, &e), -EBUSY);
		dev_free(d);
	}
	chardev_write_all(sbed_chr(s, "p"), (const uint8_t *)"x", 1);
	sbed_port(s, PORT, "r", NULL, 2, 10); /* the number was given back */
	sbed_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input),
		cmocka_unit_test(input_notified),
		cmocka_unit_test(input_pieces),
		cmocka_unit_test(input_endless),
		cmocka_unit_test(output),
		cmocka_unit_test(output_endless),
		cmocka_unit_test(output_closed),
		cmocka_unit_test(output_changed),
		cmocka_unit_test(reset),
		cmocka_unit_test(busy_chardev),
		cmocka_unit_test(queue_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
