/*
 * ioeventfds, irqfds, routing, coalesced MMIO.
 * References: [KVM-API 4.52, 4.59, 4.71, 4.75, 4.116].
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "unit/kvmtest.h"

static uint64_t ev_take(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, 8) == 8 ? n : 0;
}

static long ev_io(struct kt *t, int fd, uint64_t addr, uint32_t len, uint32_t flags, uint64_t match)
{
	struct kvm_ioeventfd q = {
		.datamatch = match, .addr = addr, .len = len, .fd = fd, .flags = flags
	};

	return kt_vm(t, KVM_IOEVENTFD, &q);
}

static void test_ioeventfd_errors(void **state)
{
	const uint32_t pio = KVM_IOEVENTFD_FLAG_PIO, dm = KVM_IOEVENTFD_FLAG_DATAMATCH,
		       de = KVM_IOEVENTFD_FLAG_DEASSIGN;
	int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK), p[2];
	struct kt t;

	assert_int_equal(pipe(p), 0);
	kt_open(&t, KT_NO_CPU, NULL, 0);
	assert_int_equal(ev_io(&t, a, 0x100, 3, pio, 0), -EINVAL);
	assert_int_equal(ev_io(&t, a, 0x100, 16, pio, 0), -EINVAL);
	assert_int_equal(ev_io(&t, a, ~0ull, 4, 0, 0), -EINVAL);
	assert_int_equal(ev_io(&t, a, 0x100, 4, 1u << 20, 0), -EINVAL);
	assert_int_equal(ev_io(&t, a, 0x100, 0, pio | dm, 1), -EINVAL);
	assert_int_equal(ev_io(&t, 999, 0x100, 4, pio, 0), -EBADF);
	assert_int_equal(ev_io(&t, p[0], 0x100, 4, pio, 0), -EINVAL);
	assert_int_equal(ev_io(&t, a, 0x100, 2, pio | dm, 1), 0);
	assert_int_equal(ev_io(&t, b, 0x100, 2, pio | dm, 1), -EEXIST);
	assert_int_equal(ev_io(&t, b, 0x100, 2, pio, 0), -EEXIST);
	assert_int_equal(ev_io(&t, b, 0x100, 0, pio, 0), -EEXIST);
	assert_int_equal(ev_io(&t, b, 0x100, 2, pio | dm, 2), 0);
	assert_int_equal(ev_io(&t, b, 0x100, 4, pio, 0), 0);
	assert_int_equal(ev_io(&t, b, 0x100, 2, 0, 0), 0);
	assert_int_equal(ev_io(&t, b, 0x100, 2, pio | dm | de, 1), -ENOENT);
	assert_int_equal(ev_io(&t, a, 0x100, 2, pio | dm | de, 3), -ENOENT);
	assert_int_equal(ev_io(&t, a, 0x100, 2, pio | dm | de, 1), 0);
	assert_int_equal(ev_io(&t, a, 0x100, 2, pio | dm | de, 1), -ENOENT);
	kt_close(&t);
	close(a);
	close(b);
	close(p[0]);
	close(p[1]);
}

static void test_ioeventfd_guest(void **state)
{
	/* mov dx,0x500; mov ax,5; out dx,ax; inc ax; out dx,ax; out dx,al; mov [0xa000],ax; hlt */
	static const uint8_t code[] = { 0xba, 0x00, 0x05, 0xb8, 0x05, 0x00, 0xef,
					0x40, 0xef, 0xee, 0xa3, 0x00, 0xa0, 0xf4 };
	const uint32_t pio = KVM_IOEVENTFD_FLAG_PIO, dm = KVM_IOEVENTFD_FLAG_DATAMATCH;
	int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK);
	struct kt t;

	kt_open(&t, KT_NO_RAM, code, sizeof(code));
	assert_int_equal(kt_slot(&t, 0, 0, 0, 0x9000, t.ram), 0);
	assert_int_equal(ev_io(&t, a, 0x500, 2, pio | dm, 6), 0);
	assert_int_equal(ev_io(&t, b, 0xa000, 0, 0, 0), 0);
	/* 5 does not match: user space gets it */
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(ev_take(a), 0);
	/* 6 does; the byte write has another width */
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.size, 1);
	assert_int_equal(ev_take(a), 1);
	kt_run(&t, KVM_EXIT_HLT);
	assert_int_equal(ev_take(b), 1);
	kt_close(&t);
	close(a);
	close(b);
}

static long ev_irq(struct kt *t, int fd, int resample, uint32_t gsi, uint32_t flags)
{
	struct kvm_irqfd q = {
		.fd = (uint32_t)fd, .gsi = gsi, .flags = flags, .resamplefd = (uint32_t)resample
	};

	return kt_vm(t, KVM_IRQFD, &q);
}

static void test_irqfd_errors(void **state)
{
	int a = eventfd(0, EFD_NONBLOCK), d = dup(a);
	struct kt t;

	kt_open(&t, KT_NO_CPU, NULL, 0);
	assert_int_equal(ev_irq(&t, a, 0, 5, 0), -EINVAL); /* no chip */
	kt_close(&t);
	kt_open(&t, KT_NO_CPU | KT_SPLIT, NULL, 0);
	assert_int_equal(ev_irq(&t, a, a, 5, KVM_IRQFD_FLAG_RESAMPLE), -EINVAL);
	assert_int_equal(ev_irq(&t, a, 0, 5, 0), 0);
	kt_close(&t);
	kt_open(&t, KT_NO_CPU | KT_IRQCHIP, NULL, 0);
	assert_int_equal(ev_irq(&t, a, 0, 5, 8), -EINVAL);
	assert_int_equal(ev_irq(&t, 999, 0, 5, 0), -EBADF);
	assert_int_equal(ev_irq(&t, a, 0, 5, 0), 0);
	assert_int_equal(ev_irq(&t, a, 0, 6, 0), -EBUSY);
	assert_int_equal(ev_irq(&t, d, 0, 6, 0), -EBUSY); /* the same eventfd */
	assert_int_equal(ev_irq(&t, a, 0, 6, KVM_IRQFD_FLAG_DEASSIGN), 0);
	assert_int_equal(ev_irq(&t, a, 0, 6, 0), -EBUSY);
	assert_int_equal(ev_irq(&t, d, 0, 5, KVM_IRQFD_FLAG_DEASSIGN), 0);
	assert_int_equal(ev_irq(&t, a, 0, 6, 0), 0);
	kt_close(&t);
	close(a);
	close(d);
}

static uint8_t pic_irr(struct kt *t)
{
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_PIC_MASTER };

	assert_int_equal(kt_vm(t, KVM_GET_IRQCHIP, &c), 0);
	return c.chip.pic.irr;
}

static void test_irqfd(void **state)
{
	int a = eventfd(0, 0); /* blocking on purpose */
	struct kt t;

	kt_open(&t, KT_IRQCHIP, NULL, 0);
	assert_int_equal(ev_irq(&t, a, 0, 5, 0), 0);
	assert_int_equal(pic_irr(&t) & 0x20, 0);
	eventfd_write(a, 1);
	for (int i = 0; i < 1000 && !(pic_irr(&t) & 0x20); i++)
		usleep(1000);
	assert_int_equal(pic_irr(&t) & 0x20, 0x20);
	kt_close(&t);
	close(a);
}

/* A level irqfd holds its line until the guest's EOI, then tells. */
static void test_resample(void **state)
{
	/*
	 * PIC at vectors 0x20.., only IRQ 5 open, level by ELCR; sti; 1: jmp 1b.
	 * Handler: mov al,0x20; out 0x20,al (EOI); out 0x80,al; iret
	 */
	static const uint8_t code[] = {
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x04, 0xe6,
		0x21, 0xb0, 0x01, 0xe6, 0x21, 0xb0, 0xdf, 0xe6, 0x21, 0xba, 0xd0,
		0x04, 0xb0, 0x20, 0xee, 0xe6, 0x81, 0xfb, 0xeb, 0xfe,
	};
	static const uint8_t handler[] = { 0xb0, 0x20, 0xe6, 0x20, 0xe6, 0x80, 0xcf };
	int a = eventfd(0, EFD_NONBLOCK), r = eventfd(0, EFD_NONBLOCK);
	struct kt t;

	kt_open(&t, KT_IRQCHIP, code, sizeof(code));
	memcpy(t.ram + 0x3000, handler, sizeof(handler));
	memcpy(t.ram + 4 * 0x25, "\x00\x30\x00\x00", 4);
	assert_int_equal(ev_irq(&t, a, r, 5, KVM_IRQFD_FLAG_RESAMPLE), 0);
	kt_run(&t, KVM_EXIT_IO);
	assert_int_equal(t.run->io.port, 0x81);
	for (int i = 0; i < 2; i++) {
		eventfd_write(a, 1);
		kt_run(&t, KVM_EXIT_IO);
		assert_int_equal(t.run->io.port, 0x80);
		assert_int_equal(ev_take(r), 1);
	}
	kt_close(&t);
	close(a);
	close(r);
}

static long ev_route(struct kt *t, const struct kvm_irq_routing_entry *e, uint32_t n,
		     uint32_t flags)
{
	struct kvm_irq_routing *r = calloc(1, sizeof(*r) + n * sizeof(*e));
	long ret;

	r->nr = n;
	r->flags = flags;
	memcpy(r->entries, e, n * sizeof(*e));
	ret = kt_vm(t, KVM_SET_GSI_ROUTING, r);
	free(r);
	return ret;
}

static void test_routing(void **state)
{
	struct kvm_irq_routing_entry e[3] = {
		{ .gsi = 40, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { 0, 3 } },
		{ .gsi = 40, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { 2, 7 } },
		{ .gsi = 41, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { 0xfee00000, 0, 0x31, { 0 } } },
	};
	struct kvm_irq_level l = { .irq = 40, .level = 1 };
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kt t;

	kt_open(&t, 0, NULL, 0);
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL); /* no chip */
	kt_close(&t);
	kt_open(&t, KT_SPLIT, NULL, 0);
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL); /* no pins */
	assert_int_equal(ev_route(&t, e + 2, 1, 0), 0);
	kt_close(&t);
	kt_open(&t, KT_IRQCHIP, NULL, 0);
	assert_int_equal(ev_route(&t, e, 3, 1), -EINVAL);
	assert_int_equal(ev_route(&t, e, 3, 0), 0);
	assert_int_equal(kt_vm(&t, KVM_IRQ_LINE, &l), 0);
	assert_int_equal(pic_irr(&t), 1 << 3);
	assert_int_equal(kt_vm(&t, KVM_GET_IRQCHIP, &c), 0);
	assert_int_equal(c.chip.ioapic.irr & 0x80, 0x80);
	l.level = 0;
	assert_int_equal(kt_vm(&t, KVM_IRQ_LINE, &l), 0);
	/* GSI 3 was the default's; it goes nowhere now */
	l.irq = 3;
	l.level = 1;
	assert_int_equal(kt_vm(&t, KVM_IRQ_LINE_STATUS, &l), 0);
	assert_int_equal((int)l.status, -1);
	/* bad tables change nothing */
	e[1].u.irqchip.irqchip = 0;
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL); /* the same chip twice */
	e[1].u.irqchip.irqchip = 2;
	e[1].u.irqchip.pin = 24;
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL);
	e[1].u.irqchip.pin = 7;
	e[2].gsi = 40;
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL); /* pin and MSI */
	e[2].gsi = 4096;
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL);
	e[2].gsi = 41;
	e[2].type = 9;
	assert_int_equal(ev_route(&t, e, 3, 0), -EINVAL);
	kt_close(&t);
}

static void test_signal_msi(void **state)
{
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = 0x31 };
	struct kvm_lapic_state s;
	struct kt t;

	kt_open(&t, 0, NULL, 0);
	assert_int_equal(kt_vm(&t, KVM_SIGNAL_MSI, &m), -EINVAL);
	kt_close(&t);
	kt_open(&t, KT_SPLIT, NULL, 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_LAPIC, &s), 0);
	s.regs[0xf1] |= 1; /* software enable */
	assert_int_equal(kt_cpu(&t, KVM_SET_LAPIC, &s), 0);
	assert_int_equal(kt_vm(&t, KVM_SIGNAL_MSI, &m), 1);
	assert_int_equal(kt_cpu(&t, KVM_GET_LAPIC, &s), 0);
	assert_int_equal(s.regs[0x210 + 2] & 2, 2); /* IRR bit 0x31 */
	kt_close(&t);
}

static void test_coalesced(void **state)
{
	/* mov [0xa010],ax; mov [0xa012],ax; mov [0xb000],ax; hlt */
	static const uint8_t code[] = { 0xb8, 0x34, 0x12, 0xa3, 0x10, 0xa0, 0xa3,
					0x12, 0xa0, 0xa3, 0x00, 0xb0, 0xf4 };
	struct kvm_coalesced_mmio_zone z = { .addr = 0xa000, .size = 0x100 };
	struct kvm_coalesced_mmio_ring *ring;
	struct kt t;

	kt_open(&t, KT_NO_RAM, code, sizeof(code));
	ring = (void *)((char *)t.run + 2 * 4096);
	assert_int_equal(kt_slot(&t, 0, 0, 0, 0x9000, t.ram), 0);
	z.pio = 2;
	assert_int_equal(kt_vm(&t, KVM_REGISTER_COALESCED_MMIO, &z), -EINVAL);
	z.pio = 0;
	assert_int_equal(kt_vm(&t, KVM_REGISTER_COALESCED_MMIO, &z), 0);
	kt_run(&t, KVM_EXIT_MMIO);
	assert_int_equal(t.run->mmio.phys_addr, 0xb000);
	assert_int_equal(ring->first, 0);
	assert_int_equal(ring->last, 2);
	assert_int_equal(ring->coalesced_mmio[1].phys_addr, 0xa012);
	assert_int_equal(ring->coalesced_mmio[1].len, 2);
	assert_memory_equal(ring->coalesced_mmio[1].data, "\x34\x12", 2);
	/* a spoilt index: the write goes to user space, nothing breaks */
	ring->last = 0xffffffff;
	kt_start(t.cpu, KT_CODE);
	kt_run(&t, KVM_EXIT_MMIO);
	assert_int_equal(t.run->mmio.phys_addr, 0xa010);
	assert_int_equal(kt_vm(&t, KVM_UNREGISTER_COALESCED_MMIO, &z), 0);
	ring->last = ring->first = 0;
	kt_start(t.cpu, KT_CODE);
	kt_run(&t, KVM_EXIT_MMIO);
	assert_int_equal(t.run->mmio.phys_addr, 0xa010);
	kt_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ioeventfd_errors), cmocka_unit_test(test_ioeventfd_guest),
		cmocka_unit_test(test_irqfd_errors),     cmocka_unit_test(test_irqfd),
		cmocka_unit_test(test_resample),         cmocka_unit_test(test_routing),
		cmocka_unit_test(test_signal_msi),       cmocka_unit_test(test_coalesced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
