/* The ring between us and vhost by itself: it goes round, it gets full, and is taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/net/vhost_ring.h"

/* The ring by itself: it goes round, and it gets full. */
static void ring_round(void **state)
{
	uint8_t byte[4];
	struct iovec v[2] = { { byte, 1 }, { byte, 2 } };
	struct vhost_ring r;
	uint32_t len;
	bool begun;

	assert_int_equal(vhost_ring_init(&r), 0);
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = r.free, idx = (uint16_t)(i + 1);
		struct vring_used_elem u = { head, i };

		assert_true(vhost_ring_add(&r, v, i % 2, v, 1, v));
		assert_int_equal(r.avail[2 + i % VHOST_RING_SIZE], head);
		memcpy(r.used + 4 + 8 * (i % VHOST_RING_SIZE), &u, 8);
		assert_null(i % 3 ? NULL : vhost_ring_get(&r, &len));
		memcpy(r.used + 2, &idx, 2);
		assert_ptr_equal(vhost_ring_get(&r, &len), v);
		assert_int_equal(len, i);
		assert_null(vhost_ring_get(&r, &len));
		assert_false(vhost_ring_arm(&r));
		assert_int_equal(r.room, VHOST_RING_SIZE);
	}
	vhost_ring_reset(&r);
	for (uintptr_t i = 1; i <= VHOST_RING_SIZE / 2; i++)
		assert_true(vhost_ring_add(&r, v, 1, v, 1, (void *)i));
	assert_false(vhost_ring_add(&r, v, 1, NULL, 0, v));
	/* the newest first; those before number 100 had been begun */
	for (uintptr_t i = VHOST_RING_SIZE / 2; i; i--) {
		assert_ptr_equal(vhost_ring_take_back(&r, 100, &begun), (void *)i);
		assert_int_equal(begun, i <= 100);
	}
	assert_null(vhost_ring_take_back(&r, 100, &begun));
	assert_int_equal(r.room, VHOST_RING_SIZE);
	vhost_ring_exit(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
