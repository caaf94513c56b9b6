/* virtio-rng: bytes come, limits hold, a dry source is waited for. */
#include "virtio_bed.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "backend/rng/rng.h"

static struct dev *make(struct vbed *vb, const char *name, const char *value)
{
	struct err e = { 0 };
	struct dev *d = dev_create(&vb->bed->md, &virtio_rng_class, "rng0", &e, name, value, NULL);

	if (!d)
		fail_msg("%s", e.msg);
	return d;
}

static void rng_fills(void **state)
{
	struct vbed *vb = vbed_new();
	gpa_t a = vbed_alloc(vb, 64), b = vbed_alloc(vb, 64);
	uint32_t len;
	int head;

	vbed_plug(vb, make(vb, NULL, NULL));
	assert_int_equal(vbed_r(vb, 0x08), VIRTIO_ID_RNG);
	vbed_start(vb, VBED_ALL, 1);
	head = vbed_add(vb, 0, 2, VIN(a, 64), VIN(b, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), head);
	assert_int_equal(len, 128);
	assert_memory_not_equal(vb->ram + a, vb->ram + b, 64);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	assert_int_equal(vbed_used(vb, 0, &len), -1);
	vbed_free(vb);
}

/* A chain that names more memory than there is gets 64 KiB. */
static void rng_bounds_an_element(void **state)
{
	struct vbed *vb = vbed_new();
	uint32_t len;

	vbed_plug(vb, make(vb, NULL, NULL));
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(0x100000, 0xf00000));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(len, 65536);
	vbed_free(vb);
}

static void rng_limit(void **state)
{
	struct vbed *vb = vbed_new();
	gpa_t a = vbed_alloc(vb, 64);
	uint32_t len;

	vbed_plug(vb, make(vb, "max-bytes", "100"));
	vbed_start(vb, VBED_ALL, 1);
	for (int i = 0; i < 3; i++)
		vbed_add(vb, 0, 1, VIN(a, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(len, 64);
	assert_int_equal(vbed_used(vb, 0, &len), 1);
	assert_int_equal(len, 36);
	assert_int_equal(vbed_used(vb, 0, &len), -1);
	loop_advance(vb->bed->loop, 65535 * NS_PER_MS);
	assert_int_equal(vbed_used(vb, 0, &len), -1);
	loop_advance(vb->bed->loop, 2 * NS_PER_MS);
	assert_int_equal(vbed_used(vb, 0, &len), 2);
	assert_int_equal(len, 64);
	/* a reset by the driver does not open a new period, one of the machine does */
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(a, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(len, 36);
	machine_devs_reset(&vb->bed->md, RESET_WARM);
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(a, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(len, 64);
	vbed_free(vb);
}

/* A FIFO without bytes: the driver waits, and gets them when they come. */
static void rng_dry_source(void **state)
{
	struct vbed *vb = vbed_new();
	gpa_t a = vbed_alloc(vb, 64);
	char path[] = "/tmp/kvasir-rng-XXXXXX";
	struct err e = { 0 };
	struct rng *r;
	struct dev *d;
	uint32_t len;
	int fd;

	assert_non_null(mkdtemp(path));
	strcat(path, ""); /* the directory is ours */
	{
		char fifo[64];

		snprintf(fifo, sizeof(fifo), "%s/f", path);
		assert_int_equal(mkfifo(fifo, 0600), 0);
		r = rng_random_new("r0", fifo, &e);
		assert_non_null(r);
		fd = open(fifo, O_WRONLY);
		assert_true(fd >= 0);
		unlink(fifo);
		rmdir(path);
	}
	d = dev_new(&vb->bed->md, &virtio_rng_class, "rng0", &e);
	dev_set_backend(d, "rng", r);
	assert_int_equal(dev_realize(d, &e), 0);
	vbed_plug(vb, d);
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(a, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), -1);
	assert_int_equal(vbed_irq(vb), 0);
	assert_int_equal(write(fd, "random", 6), 6);
	vbed_run(vb);
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(len, 6);
	assert_memory_equal(vb->ram + a, "random", 6);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	close(fd);
	vbed_free(vb);
	rng_free(r);
	assert_null(rng_random_new("r0", "/no/such/file", &e));
	assert_non_null(strstr(e.msg, "/no/such/file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rng_fills),
		cmocka_unit_test(rng_bounds_an_element),
		cmocka_unit_test(rng_limit),
		cmocka_unit_test(rng_dry_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
