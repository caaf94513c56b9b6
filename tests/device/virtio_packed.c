/* Packed rings: what differs from split ones: wraps, notifications both ways, broken drivers. */
#include "virtio_echo.h"

#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)

static struct vbed *start(struct echo **ec, uint64_t features, unsigned size)
{
	struct vbed *vb = echo_bed_in(NULL, true, ec);

	assert_true(vbed_negotiate(vb, features));
	assert_true(vbed_has(vb, VIRTIO_F_RING_PACKED));
	vbed_queue(vb, 0, size);
	vbed_driver_ok(vb);
	return vb;
}

static gpa_t buf(struct vbed *vb)
{
	return vbed_alloc(vb, 64);
}

/* Rings of any size, chains over their end, several out at once, given back in another order. */
static void packed_wraps(void **state)
{
	static const unsigned sizes[] = { 3, 5, 7, 16, 100, 255, 256 };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, VBED_ALL, sizes[i]);
		gpa_t out = buf(vb), in = buf(vb);

		ec->mode = ECHO_HOLD;
		for (unsigned k = 0; k < 400; k++) {
			unsigned n = 1 + k % MIN(3u, sizes[i] / 3), heads[3];
			struct virtq_elem *a, *b;
			uint32_t len;

			for (unsigned j = 0; j < n; j++) {
				memset(vb->ram + out, (int)k, 8);
				heads[j] = vbed_add(vb, 0, 3, VOUT(out, 4), VOUT(out + 4, 4),
						    VIN(in, 64));
			}
			vbed_kick(vb, 0);
			assert_int_equal(virtio_in_flight(vb->vd), n);
			a = ec->first;
			b = n > 1 ? a->next : NULL;
			if (b) { /* the second one first */
				struct virtq_elem *rest = b->next;

				a->next = rest;
				b->next = a;
				ec->first = b;
			}
			echo_release(ec);
			for (unsigned j = 0; j < n; j++) {
				unsigned want = n > 1 && j < 2 ? heads[1 - j] : heads[j];

				assert_int_equal(vbed_used(vb, 0, &len), want);
				assert_int_equal(len, 8);
			}
			assert_int_equal(vbed_used(vb, 0, &len), -1);
			assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
		}
		vbed_free(vb);
	}
}

/* Several given back together become visible with the first one's flags. */
static void packed_batch(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 8);
	struct virtq_elem *el;

	ec->mode = ECHO_HOLD;
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 3; i++)
			vbed_add(vb, 0, 2, VOUT(buf(vb), 8), VIN(buf(vb), 8));
		vbed_kick(vb, 0);
		while ((el = ec->first)) {
			ec->first = el->next;
			virtq_fill(el, 8);
			assert_int_equal(vbed_used(vb, 0, NULL), -1);
		}
		ec->end = &ec->first;
		virtq_flush(virtio_queue(vb->vd, 0));
		for (int i = 0; i < 3; i++)
			assert_true(vbed_used(vb, 0, NULL) >= 0);
	}
	vbed_free(vb);
}

static void one(struct vbed *vb)
{
	vbed_add(vb, 0, 1, VIN(buf(vb), 8));
	vbed_kick(vb, 0);
	assert_true(vbed_used(vb, 0, NULL) >= 0);
}

static void packed_interrupts(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 10);
	struct vq *q = &vb->q[0];

	one(vb);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE); /* the first one always */
	for (unsigned i = 1; i < 60; i++) {
		unsigned event = 7 | (i / 10 % 2 ? 0 : 0x8000); /* slot 7 of this round */

		q->avail[0] = (uint16_t)event;
		q->avail[1] = VRING_PACKED_EVENT_FLAG_DESC;
		one(vb);
		assert_int_equal(vbed_irq(vb), i % 10 == 7 ? VIRTIO_ISR_QUEUE : 0);
	}
	/* slot 2 of the next round, asked for at slot 0 */
	for (unsigned i = 0; i < 20; i++) {
		q->avail[0] = 2;
		q->avail[1] = VRING_PACKED_EVENT_FLAG_DESC;
		one(vb);
		assert_int_equal(vbed_irq(vb), i == 12 ? VIRTIO_ISR_QUEUE : 0);
	}
	q->avail[1] = VRING_PACKED_EVENT_FLAG_DISABLE;
	one(vb);
	assert_int_equal(vbed_irq(vb), 0);
	q->avail[1] = VRING_PACKED_EVENT_FLAG_ENABLE;
	one(vb);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	vbed_free(vb);
}

static void look(struct echo *ec)
{
	struct vbed *vb = ec->opaque;

	assert_int_equal(vb->q[0].used[1], VRING_PACKED_EVENT_FLAG_DISABLE);
}

static void packed_kicks(void **state)
{
	for (int event = 0; event < 2; event++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, event ? VBED_ALL : ~BIT(VIRTIO_RING_F_EVENT_IDX), 6);
		struct vq *q = &vb->q[0];

		ec->popped = look;
		ec->opaque = vb;
		for (int i = 0; i < 40; i++) {
			assert_int_equal(q->used[1], event ? VRING_PACKED_EVENT_FLAG_DESC
							   : VRING_PACKED_EVENT_FLAG_ENABLE);
			if (event)
				assert_int_equal(q->used[0], q->next | (q->wrap ? 0x8000 : 0));
			one(vb);
		}
		vbed_free(vb);
	}
}

/* --- broken drivers --- */

static void set(struct vq *q, unsigned slot, gpa_t gpa, uint32_t len, unsigned flags)
{
	q->p[slot] = (struct vring_packed_desc){ gpa, len, 0, (uint16_t)(flags | AVAIL) };
}

static void wrong_loop(struct vbed *vb, struct vq *q)
{
	for (unsigned i = 0; i < q->size; i++)
		set(q, i, buf(vb), 8, VRING_DESC_F_NEXT);
}

static void wrong_addr(struct vbed *vb, struct vq *q)
{
	set(q, 0, VBED_RAM - 7, 8, VRING_DESC_F_WRITE);
}

static void wrong_empty(struct vbed *vb, struct vq *q)
{
	set(q, 0, buf(vb), 0, 0);
}

static void wrong_order(struct vbed *vb, struct vq *q)
{
	set(q, 1, buf(vb), 8, 0);
	set(q, 0, buf(vb), 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
}

static void wrong_ind_len(struct vbed *vb, struct vq *q)
{
	set(q, 0, buf(vb), 17, VRING_DESC_F_INDIRECT);
}

static void wrong_ind_addr(struct vbed *vb, struct vq *q)
{
	set(q, 0, VBED_RAM, 16, VRING_DESC_F_INDIRECT);
}

static void wrong_ind_next(struct vbed *vb, struct vq *q)
{
	set(q, 0, buf(vb), 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT);
}

static void wrong_ind_second(struct vbed *vb, struct vq *q)
{
	set(q, 1, buf(vb), 16, VRING_DESC_F_INDIRECT);
	set(q, 0, buf(vb), 16, VRING_DESC_F_NEXT);
}

static void wrong_ind_nested(struct vbed *vb, struct vq *q)
{
	gpa_t t = buf(vb);

	*(struct vring_packed_desc *)(vb->ram + t) =
		(struct vring_packed_desc){ t, 16, 0, VRING_DESC_F_INDIRECT };
	set(q, 0, t, 16, VRING_DESC_F_INDIRECT);
}

static void wrong_ind_long(struct vbed *vb, struct vq *q)
{
	set(q, 0, 0x100000, 16 * (VRING_MAX + 1), VRING_DESC_F_INDIRECT);
}

static void packed_wrong(void **state)
{
	static void (*const wrong[])(struct vbed *, struct vq *) = {
		wrong_loop,     wrong_addr,     wrong_empty,      wrong_order,      wrong_ind_len,
		wrong_ind_addr, wrong_ind_next, wrong_ind_second, wrong_ind_nested, wrong_ind_long,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, VBED_ALL, 16);

		wrong[i](vb, &vb->q[0]);
		vbed_kick(vb, 0);
		if (!(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET))
			fail_msg("number %u is taken", i);
		vbed_assert_broken(vb);
		assert_int_equal(ec->pops, 0);
		vbed_start(vb, VBED_ALL, 1);
		one(vb);
		/* and a split ring after it */
		vbed_start(vb, ~BIT(VIRTIO_F_RING_PACKED), 1);
		assert_false(vb->q[0].packed);
		one(vb);
		vbed_free(vb);
	}
}

/* A slot in a saved state that the ring does not have. */
static void packed_loaded(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 16);
	uint8_t *state_buf = malloc(1 << 16);
	struct err e = { 0 };
	size_t n;

	one(vb);
	vb->vd->v->s->q[0].avail = 16;
	n = dev_save(vb->transport, state_buf, 1 << 16);
	vb->vd->v->s->q[0].avail = 1;
	assert_true(dev_load(vb->transport, state_buf, n, &e) < 0);
	assert_non_null(strstr(e.msg, "queue 0 is not in memory"));
	one(vb);
	free(state_buf);
	vbed_free(vb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_wraps),      cmocka_unit_test(packed_batch),
		cmocka_unit_test(packed_interrupts), cmocka_unit_test(packed_kicks),
		cmocka_unit_test(packed_wrong),      cmocka_unit_test(packed_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
