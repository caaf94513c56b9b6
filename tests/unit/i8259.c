/* The 8259A pair, driven through its ports. [8259A] */
#include "chipfake.h"

static int setup(void **state)
{
	fake_start(1, FAKE_FULL);
	return 0;
}

static int teardown(void **state)
{
	fake_stop();
	return 0;
}

/* The PC's initialization: vectors 20h and 28h, all unmasked. icw4: extra bits. */
static void pic_init(uint8_t icw4)
{
	fake_outb(0x20, 0x11);
	fake_outb(0xa0, 0x11);
	fake_outb(0x21, 0x20);
	fake_outb(0xa1, 0x28);
	fake_outb(0x21, 0x04);
	fake_outb(0xa1, 0x02);
	fake_outb(0x21, 0x01 | icw4);
	fake_outb(0xa1, 0x01);
	fake_outb(0x21, 0);
	fake_outb(0xa1, 0);
}

static int line(unsigned pin, int level)
{
	int r;

	pthread_mutex_lock(&fake.vm.irq_lock);
	r = kvm_pic_set_irq(&fake.vm, pin, KVM_IRQ_SOURCE_USER, level);
	pthread_mutex_unlock(&fake.vm.irq_lock);
	return r;
}

static void pulse(unsigned pin)
{
	line(pin, 1);
	line(pin, 0);
}

static int take(void)
{
	return kvm_cpu_has_interrupt(fake.v[0]) ? kvm_cpu_get_interrupt(fake.v[0]) : -1;
}

static uint8_t isr(unsigned port)
{
	fake_outb((uint16_t)port, 0x0b);
	return fake_inb((uint16_t)port);
}

static uint8_t irr(unsigned port)
{
	fake_outb((uint16_t)port, 0x0a);
	return fake_inb((uint16_t)port);
}

static void test_edge(void **state)
{
	pic_init(0);
	atomic_store(&fake.v[0]->requests, 0);
	assert_int_equal(line(4, 1), 1);
	assert_true(atomic_load(&fake.v[0]->requests) & REQ_EVENT);
	assert_int_equal(irr(0x20), 0x10);
	assert_int_equal(line(4, 1), 1); /* no edge: neither lost nor new */
	assert_int_equal(take(), 0x24);
	assert_int_equal(irr(0x20), 0);
	assert_int_equal(isr(0x20), 0x10);
	assert_int_equal(take(), -1); /* the line is still high */
	fake_outb(0x20, 0x20);
	assert_int_equal(isr(0x20), 0);
	assert_int_equal(take(), -1);
	assert_int_equal(fake.acks[KVM_IRQCHIP_PIC_MASTER][4], 1);
	line(4, 0);
	pulse(4);                        /* latched though the line fell */
	assert_int_equal(line(4, 1), 0); /* coalesced */
	assert_int_equal(take(), 0x24);
}

static void test_level(void **state)
{
	pic_init(0);
	fake_outb(0x4d0, 0xff);
	assert_int_equal(fake_inb(0x4d0), 0xf8); /* ISA lines stay edges */
	fake_outb(0x4d1, 0xff);
	assert_int_equal(fake_inb(0x4d1), 0xde);
	line(11, 1);
	assert_int_equal(take(), 0x2b);
	assert_int_equal(take(), -1);
	fake_outb(0xa0, 0x20);
	fake_outb(0x20, 0x20);
	assert_int_equal(take(), 0x2b); /* still asserted */
	line(11, 0);
	fake_outb(0xa0, 0x20);
	fake_outb(0x20, 0x20);
	assert_int_equal(take(), -1);
	assert_int_equal(fake.acks[KVM_IRQCHIP_PIC_SLAVE][3], 2);
}

static void test_sources(void **state)
{
	pic_init(0);
	fake_outb(0x4d0, 0x20);
	pthread_mutex_lock(&fake.vm.irq_lock);
	kvm_pic_set_irq(&fake.vm, 5, KVM_IRQ_SOURCE_USER, 1);
	kvm_pic_set_irq(&fake.vm, 5, KVM_IRQ_SOURCE_IRQFD, 1);
	kvm_pic_set_irq(&fake.vm, 5, KVM_IRQ_SOURCE_USER, 0);
	pthread_mutex_unlock(&fake.vm.irq_lock);
	assert_int_equal(irr(0x20), 0x20); /* the other one holds it */
	pthread_mutex_lock(&fake.vm.irq_lock);
	kvm_pic_set_irq(&fake.vm, 5, KVM_IRQ_SOURCE_IRQFD, 0);
	assert_true(kvm_pic_set_irq(&fake.vm, 16, KVM_IRQ_SOURCE_USER, 1) < 0);
	pthread_mutex_unlock(&fake.vm.irq_lock);
	assert_int_equal(irr(0x20), 0);
}

static void test_priority(void **state)
{
	pic_init(0);
	pulse(3);
	pulse(1);
	pulse(12);
	assert_int_equal(take(), 0x21);
	assert_int_equal(take(), -1); /* 3 and 12 rank lower than 1 in service */
	pulse(0);
	assert_int_equal(take(), 0x20);
	fake_outb(0x20, 0x20); /* non-specific: ends 0 */
	assert_int_equal(isr(0x20), 0x02);
	fake_outb(0x20, 0x61);          /* specific: ends 1 */
	assert_int_equal(take(), 0x2c); /* through the cascade, before 3 */
	assert_int_equal(isr(0x20), 0x04);
	assert_int_equal(isr(0xa0), 0x10);
	fake_outb(0xa0, 0x20);
	fake_outb(0x20, 0x20);
	assert_int_equal(take(), 0x23);
}

static void test_mask(void **state)
{
	pic_init(0);
	fake_outb(0x21, 0x10);
	assert_int_equal(fake_inb(0x21), 0x10);
	assert_true(line(4, 1) < 0);
	assert_int_equal(take(), -1);
	fake_outb(0x21, 0);
	assert_int_equal(take(), 0x24);
}

static void test_rotation(void **state)
{
	pic_init(0);
	pulse(2 + 1);
	assert_int_equal(take(), 0x23);
	fake_outb(0x20, 0xa0); /* rotate on non-specific EOI: 3 is now lowest */
	pulse(3);
	pulse(4);
	assert_int_equal(take(), 0x24);
	fake_outb(0x20, 0x64);
	assert_int_equal(take(), 0x23);
	fake_outb(0x20, 0xe3);     /* rotate on specific EOI */
	fake_outb(0x20, 0xc0 | 5); /* set priority: 5 lowest, 6 highest */
	pulse(0);
	pulse(6);
	pulse(7);
	assert_int_equal(take(), 0x26);
	fake_outb(0x20, 0x66);
	assert_int_equal(take(), 0x27);
	fake_outb(0x20, 0x67);
	assert_int_equal(take(), 0x20);
}

static void test_aeoi(void **state)
{
	pic_init(0x02);
	pulse(4);
	assert_int_equal(take(), 0x24);
	assert_int_equal(isr(0x20), 0);
	assert_int_equal(fake.acks[KVM_IRQCHIP_PIC_MASTER][4], 1);
	fake_outb(0x20, 0x80); /* rotate in AEOI */
	pulse(4);
	assert_int_equal(take(), 0x24);
	pulse(4);
	pulse(5);
	assert_int_equal(take(), 0x25); /* 4 went to the end */
	assert_int_equal(take(), 0x24);
}

static void test_spurious(void **state)
{
	pic_init(0);
	fake_outb(0x4d0, 0xf8);
	fake_outb(0x4d1, 0xde);
	line(5, 1);
	assert_true(kvm_cpu_has_interrupt(fake.v[0]));
	line(5, 0); /* gone before the acknowledge */
	assert_int_equal(kvm_pic_read_irq(&fake.vm), 0x27);
	assert_int_equal(isr(0x20), 0); /* not in service */
	line(10, 1);
	line(10, 0); /* the master has latched the slave's edge */
	assert_int_equal(take(), 0x2f);
	assert_int_equal(isr(0xa0), 0);
	assert_int_equal(isr(0x20), 0x04);
}

static void test_special_mask(void **state)
{
	pic_init(0);
	pulse(1);
	assert_int_equal(take(), 0x21);
	pulse(5);
	assert_int_equal(take(), -1);
	fake_outb(0x21, 0x02);
	fake_outb(0x20, 0x68); /* special mask mode: only the masked level is kept out */
	assert_int_equal(take(), 0x25);
	fake_outb(0x20, 0x20); /* does not end the masked 1 */
	assert_int_equal(isr(0x20), 0x02);
	fake_outb(0x20, 0x48);
	pulse(6);
	assert_int_equal(take(), -1);
}

static void test_fully_nested(void **state)
{
	pic_init(0);
	pulse(12);
	assert_int_equal(take(), 0x2c);
	pulse(9);
	assert_int_equal(take(), -1); /* the slave is in service */
	pic_init(0x10);
	pulse(12);
	assert_int_equal(take(), 0x2c);
	pulse(9);
	assert_int_equal(take(), 0x29);
}

static void test_poll(void **state)
{
	pic_init(0);
	fake_outb(0x20, 0x0c);
	assert_int_equal(fake_inb(0x20), 0);
	pulse(6);
	fake_outb(0x20, 0x0c);
	assert_int_equal(fake_inb(0x20), 0x86);
	assert_int_equal(isr(0x20), 0x40);
	assert_int_equal(take(), -1);
}

static void test_lint0(void **state)
{
	struct vcpu *v = fake.v[0];

	pic_init(0);
	pulse(4);
	assert_true(kvm_cpu_has_interrupt(v));
	apic_on(v);
	apic_write(v, 0x350, 0x10700); /* LINT0 masked */
	assert_false(kvm_cpu_has_interrupt(v));
	apic_write(v, 0x350, 0x400); /* NMI: not ExtINT */
	assert_false(kvm_cpu_has_interrupt(v));
	atomic_store(&v->requests, 0);
	apic_write(v, 0x350, 0x700);
	assert_true(atomic_load(&v->requests) & REQ_EVENT);
	assert_int_equal(take(), 0x24);
}

static void get(unsigned chip, struct kvm_irqchip *c)
{
	memset(c, 0, sizeof(*c));
	c->chip_id = chip;
	assert_int_equal(kvm_irqchip_get(&fake.vm, c), 0);
}

static void test_state(void **state)
{
	struct kvm_irqchip a, b;

	assert_int_equal(kvm_chip_state_hole(&kvm_pic_table, 0), -1);
	pic_init(0x12);
	fake_outb(0x4d1, 0x0e);
	fake_outb(0x20, 0xc3);
	fake_outb(0x20, 0x68);
	pulse(4);
	line(9, 1);
	take();
	for (unsigned chip = 0; chip < 2; chip++) {
		get(chip, &a);
		assert_int_equal(kvm_irqchip_set(&fake.vm, &a), 0);
		get(chip, &b);
		assert_memory_equal(&a, &b, sizeof(a));
	}
	a.chip_id = 3;
	assert_int_equal(kvm_irqchip_get(&fake.vm, &a), -EINVAL);
	assert_int_equal(kvm_irqchip_set(&fake.vm, &a), -EINVAL);
}

static void exercise(void)
{
	for (unsigned i = 0; i < 16; i++)
		pulse(i);
	for (int i = 0; i < 20; i++) {
		int vec = take();

		assert_true(vec < 256);
		fake_outb(0xa0, i & 1 ? 0xa0 : 0x20);
		fake_outb(0x20, i & 1 ? 0xa0 : 0x20);
	}
	fake_outb(0x20, 0x0c);
	fake_inb(0x20);
	fake_outb(0x21, 0xff);
}

static void test_hostile_state(void **state)
{
	struct kvm_irqchip good[2], c;
	uint64_t seed = 1;

	pic_init(0);
	get(0, &good[0]);
	get(1, &good[1]);
	for (unsigned chip = 0; chip < 2; chip++)
		for (unsigned bit = 0; bit < sizeof(struct kvm_pic_state) * 8; bit++) {
			c = good[chip];
			c.chip.dummy[bit / 8] ^= (char)(1 << (bit % 8));
			assert_int_equal(kvm_irqchip_set(&fake.vm, &c), 0);
			exercise();
		}
	for (int n = 0; n < 2000; n++) {
		c.chip_id = n & 1;
		for (unsigned i = 0; i < sizeof(struct kvm_pic_state); i++)
			c.chip.dummy[i] = (char)fake_random(&seed);
		assert_int_equal(kvm_irqchip_set(&fake.vm, &c), 0);
		exercise();
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_edge),         T(test_level),         T(test_sources), T(test_priority),
		T(test_mask),         T(test_rotation),      T(test_aeoi),    T(test_spurious),
		T(test_special_mask), T(test_fully_nested),  T(test_poll),    T(test_lint0),
		T(test_state),        T(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
