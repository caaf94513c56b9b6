/*
 * Interrupt controllers: the PIC pair, the PIT, the IOAPIC, the local APIC with its timer and
 * IPIs to itself. Lines are raised with pc-testdev. References: [8259A], [8254], [IOAPIC],
 * [SDM3 11].
 */
#include "apic.h"

static volatile unsigned count[256], order[16], order_len;

static void note(struct frame *f)
{
	count[f->vec]++;
	if (order_len < 16)
		order[order_len++] = (unsigned)f->vec;
}

static void note_pic(struct frame *f)
{
	note(f);
	if (f->vec >= 0x28)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static void note_apic(struct frame *f)
{
	note(f);
	apic_eoi();
}

static void fresh(void (*fn)(struct frame *), unsigned first, unsigned last)
{
	for (unsigned v = first; v <= last; v++) {
		trap_hook(v, fn);
		count[v] = 0;
	}
	order_len = 0;
}

static u8 pic_isr(u16 port)
{
	u8 v;

	outb(port, 0x0b);
	v = inb(port);
	outb(port, 0x0a);
	return v;
}

static void pic_setup(void)
{
	apic_init(true);
	pic_init();
	outb(0x4d0, 0); /* all lines edge-triggered */
	outb(0x4d1, 0);
	fresh(note_pic, 0x20, 0x2f);
	for (unsigned l = 3; l < 16; l++)
		if (l != 8 && l != 13)
			testdev_irq(l, 0);
}

TEST(pic_priorities_and_masks)
{
	pic_setup();
	testdev_irq(5, 1);
	testdev_irq(3, 1);
	testdev_irq(10, 1);
	CHECK_EQ(inb(0x20) & 0x28, 0x28); /* IRR, masked */
	sti_nop_cli();
	CHECK_EQ(order_len, 0);
	outb(0xa1, 0xfb);
	outb(0x21, 0xd3); /* 2, 3, 5 */
	sti_nop_cli();
	CHECK_EQ(order_len, 3);
	CHECK_EQ(order[0], 0x2a); /* the cascade is line 2 */
	CHECK_EQ(order[1], 0x23);
	CHECK_EQ(order[2], 0x25);
	sti_nop_cli();
	CHECK_EQ(order_len, 3); /* edges: nothing more until they fall */
	testdev_irq(5, 0);
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x25], 2);
	testdev_irq(3, 0);
	testdev_irq(5, 0);
	testdev_irq(10, 0);
}

TEST(pic_nesting_and_eoi)
{
	pic_setup();
	fresh(note, 0x20, 0x2f); /* no EOI */
	outb(0x21, 0x00);
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x25], 1);
	CHECK_EQ(pic_isr(0x20), 0x20);
	testdev_irq(6, 1); /* lower: has to wait */
	sti_nop_cli();
	CHECK_EQ(count[0x26], 0);
	testdev_irq(3, 1); /* higher: nests */
	sti_nop_cli();
	CHECK_EQ(count[0x23], 1);
	CHECK_EQ(pic_isr(0x20), 0x28);
	outb(0x20, 0x20); /* the highest in service goes */
	CHECK_EQ(pic_isr(0x20), 0x20);
	outb(0x20, 0x65); /* specific: line 5 */
	CHECK_EQ(pic_isr(0x20), 0);
	sti_nop_cli();
	CHECK_EQ(count[0x26], 1);
	outb(0x20, 0x66);
	testdev_irq(3, 0);
	testdev_irq(5, 0);
	testdev_irq(6, 0);
	outb(0x21, 0xff);
}

TEST(pic_spurious)
{
	pic_setup();
	fresh(note, 0x20, 0x2f);
	outb(0x21, 0x00);
	testdev_irq(5, 1);
	testdev_irq(5, 0); /* gone before the acknowledge: an edge is latched by the line only */
	sti_nop_cli();
	CHECK(count[0x27] + count[0x25] <= 1);
	if (count[0x27])
		CHECK_EQ(pic_isr(0x20), 0); /* line 7 without a bit in service */
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

TEST(pic_auto_eoi_and_rotation)
{
	pic_setup();
	fresh(note, 0x20, 0x2f);
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x03); /* AEOI */
	outb(0x21, 0x00);
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x25], 1);
	CHECK_EQ(pic_isr(0x20), 0);
	testdev_irq(5, 0);
	pic_init();
	outb(0x20, 0xc4); /* lowest priority: 4, so 5 is the highest */
	testdev_irq(3, 1);
	testdev_irq(5, 1);
	fresh(note_pic, 0x20, 0x2f);
	outb(0x21, 0x00);
	sti_nop_cli();
	CHECK_EQ(order[0], 0x25);
	CHECK_EQ(order[1], 0x23);
	testdev_irq(3, 0);
	testdev_irq(5, 0);
	outb(0x20, 0xc7);
	pic_init();
}

TEST(pic_poll_and_registers)
{
	pic_setup();
	outb(0x21, 0x5a);
	CHECK_EQ(inb(0x21), 0x5a);
	outb(0x21, 0x00);
	testdev_irq(6, 1);
	outb(0x20, 0x0c);
	CHECK_EQ(inb(0x20), 0x86); /* poll: an interrupt, line 6, acknowledged */
	CHECK_EQ(pic_isr(0x20), 0x40);
	outb(0x20, 0x20);
	outb(0x20, 0x0c);
	CHECK_EQ(inb(0x20) & 0x80, 0);
	testdev_irq(6, 0);
	outb(0x21, 0xff);
}

static void note_pic_lower(struct frame *f)
{
	if (count[0x25] == 1)
		testdev_irq(5, 0);
	note_pic(f);
}

TEST(pic_level)
{
	pic_setup();
	fresh(note_pic_lower, 0x25, 0x25);
	outb(0x4d0, 0x20);
	CHECK_EQ(inb(0x4d0), 0x20);
	outb(0x21, 0xdf);
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x25], 2); /* came again until the line fell */
	sti_nop_cli();
	CHECK_EQ(count[0x25], 2);
	testdev_irq(5, 0);
	outb(0x4d0, 0);
	outb(0x21, 0xff);
}

static unsigned pit_read(unsigned ch)
{
	unsigned lo;

	outb(0x43, (u8)(ch << 6));
	lo = inb((u16)(0x40 + ch));
	return lo | (unsigned)inb((u16)(0x40 + ch)) << 8;
}

TEST(pit_counts)
{
	unsigned a, b;
	bool down = false;

	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb4); /* channel 2, mode 2 */
	outb(0x42, 0x00);
	outb(0x42, 0x00); /* 65536 */
	/* it counts down; a host that takes the CPU away for 16 ms spoils an attempt */
	for (unsigned try = 0; try < 50 && !down; try++) {
		a = pit_read(2);
		b = pit_read(2);
		down = b < a && a - b < 20000;
	}
	CHECK(down);
	outb(0x43, 0xb0); /* mode 0: the output rises at the end */
	CHECK_EQ(inb(0x61) & 0x20, 0);
	outb(0x42, 0xff);
	outb(0x42, 0xff);
	CHECK_EQ(inb(0x61) & 0x20, 0);
	outb(0x42, 100);
	outb(0x42, 0);
	for (unsigned i = 0; i < 10000000 && !(inb(0x61) & 0x20); i++)
		;
	CHECK_EQ(inb(0x61) & 0x20, 0x20);
	outb(0x43, 0xe8); /* read back: status of channel 2 */
	CHECK_EQ(inb(0x42) & 0xbf, 0xb0);
	outb(0x43, 0x96); /* low byte only, mode 3 */
	outb(0x42, 50);
	outb(0x43, 0xe8);
	CHECK_EQ(inb(0x42) & 0x3f, 0x16);
	outb(0x61, inb(0x61) & ~3);
}

TEST(pit_interrupt)
{
	pic_setup();
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 0x04); /* 1193: 1 kHz */
	outb(0x21, 0xfe);
	sti();
	while (count[0x20] < 5)
		__asm__ volatile("hlt");
	cli();
	CHECK(count[0x20] >= 5);
	outb(0x43, 0x30); /* one shot */
	outb(0x40, 0xff);
	outb(0x40, 0x01);
	count[0x20] = 0;
	while (!count[0x20]) /* the only interrupt must not come between the look and the HLT */
		__asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
	sti();
	pit_delay_us(3000);
	cli();
	CHECK(count[0x20] <= 2); /* a tick of the old mode may have been pending */
	outb(0x21, 0xff);
}

TEST(rtc_interrupt)
{
	pic_setup();
	outb(0x70, 0x0d);
	if (inb(0x71) == 0xff)
		SKIP("no RTC");
	outb(0x70, 0x0a);
	outb(0x71, 0x26); /* 1024 Hz */
	outb(0x70, 0x0b);
	outb(0x71, 0x42); /* periodic, 24 hours */
	outb(0x70, 0x0c);
	inb(0x71);
	fresh(note_pic, 0x28, 0x28);
	outb(0xa1, 0xfe);
	outb(0x21, 0xfb);
	/* an edge from before register C was read may still be latched: let it and the first real
	 * one pass, and the line stay up */
	pit_delay_us(5000);
	sti_nop_cli();
	pit_delay_us(5000);
	sti_nop_cli();
	CHECK(count[0x28] == 1 || count[0x28] == 2);
	outb(0x70, 0x0c);
	inb(0x71);
	for (unsigned i = 0; i < 3; i++) {
		const unsigned was = count[0x28];

		for (unsigned ms = 0; ms < 500 && count[0x28] == was; ms++) {
			sti_nop_cli();
			pit_delay_us(1000);
		}
		pit_delay_us(3000);
		sti_nop_cli();
		CHECK_EQ(count[0x28], was + 1); /* no second one until register C is read */
		outb(0x70, 0x0c);
		CHECK_EQ(inb(0x71) & 0xc0, 0xc0);
	}
	outb(0x70, 0x0b);
	outb(0x71, 0x02);
	outb(0x70, 0x0c);
	inb(0x71);
	outb(0xa1, 0xff);
	outb(0x21, 0xff);
}

static void ioapic_setup(void)
{
	pic_setup();
	apic_init(false);
	fresh(note_apic, 0x60, 0xf0);
	for (unsigned i = 0; i < 16; i++)
		ioapic_write(0x10 + 2 * i, 1u << 16);
}

static u8 my_id(void)
{
	return (u8)(apic_read(APIC_ID) >> 24);
}

TEST(ioapic_edge)
{
	ioapic_setup();
	CHECK((ioapic_read(1) >> 16 & 0xff) >= 23);
	ioapic_route(5, 0x65, my_id());
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x65], 1);
	sti_nop_cli();
	CHECK_EQ(count[0x65], 1);
	testdev_irq(5, 0);
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x65], 2);
	testdev_irq(5, 0);
	ioapic_route(5, 0x65 | 1u << 16, my_id());
	testdev_irq(5, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x65], 2); /* masked */
	testdev_irq(5, 0);
}

TEST(ioapic_level)
{
	ioapic_setup();
	fresh(note, 0x66, 0x66); /* no EOI */
	ioapic_route(6, 0x66 | 1u << 15, my_id());
	testdev_irq(6, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x66], 1);
	CHECK_EQ(ioapic_read(0x10 + 12) >> 14 & 1, 1); /* remote IRR */
	CHECK(apic_bit(APIC_TMR, 0x66));
	CHECK(apic_bit(APIC_ISR, 0x66));
	sti_nop_cli();
	CHECK_EQ(count[0x66], 1);
	apic_eoi(); /* the line is still up */
	sti_nop_cli();
	CHECK_EQ(count[0x66], 2);
	testdev_irq(6, 0);
	apic_eoi();
	sti_nop_cli();
	CHECK_EQ(count[0x66], 2);
	CHECK_EQ(ioapic_read(0x10 + 12) >> 14 & 1, 0);
	ioapic_route(6, 1u << 16, 0);
}

TEST(ioapic_level_mask)
{
	ioapic_setup();
	ioapic_route(6, 0x66 | 1u << 15 | 1u << 16, my_id());
	testdev_irq(6, 1);
	sti_nop_cli();
	CHECK_EQ(count[0x66], 0);
	fresh(note, 0x66, 0x66);
	ioapic_write(0x10 + 12, 0x66 | 1u << 15); /* unmasking a line that is up */
	sti_nop_cli();
	CHECK_EQ(count[0x66], 1);
	testdev_irq(6, 0);
	apic_eoi();
	ioapic_route(6, 1u << 16, 0);
}

TEST(lapic_registers)
{
	ioapic_setup();
	CHECK_EQ(apic_read(APIC_VER) & 0xf0, 0x10);
	apic_write(APIC_TPR, 0x35);
	CHECK_EQ(apic_read(APIC_TPR), 0x35);
	CHECK_EQ(apic_read(APIC_PPR), 0x35);
	CHECK_EQ(read_cr8(), 3);
	write_cr8(7);
	CHECK_EQ(apic_read(APIC_TPR), 0x70);
	write_cr8(0);
	apic_write(APIC_DFR, 0x0fffffff);
	CHECK_EQ(apic_read(APIC_DFR), 0x0fffffff);
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 0x01000000);
	CHECK_EQ(apic_read(APIC_LDR), 0x01000000);
	apic_write(APIC_LVTPC, 0x10055);
	CHECK_EQ(apic_read(APIC_LVTPC), 0x10055);
	apic_write(APIC_SVR, 0xff); /* software disabled: LVTs are masked and stay so */
	CHECK_EQ(apic_read(APIC_LVTT) >> 16 & 1, 1);
	apic_write(APIC_LVTT, 0x55);
	CHECK_EQ(apic_read(APIC_LVTT) >> 16 & 1, 1);
	apic_init(false);
}

TEST(self_ipi_and_priorities)
{
	ioapic_setup();
	apic_write(APIC_ICR, 0x40000 | 0x71); /* shorthand self */
	apic_write(APIC_ICR, 0x40000 | 0x91);
	apic_write(APIC_ICR, 0x40000 | 0x81);
	CHECK(apic_bit(APIC_IRR, 0x81));
	write_cr8(8);
	sti_nop_cli();
	CHECK_EQ(order_len, 1); /* class 8 and 7 are held back */
	CHECK_EQ(order[0], 0x91);
	write_cr8(7);
	sti_nop_cli();
	CHECK_EQ(order_len, 2);
	CHECK_EQ(order[1], 0x81);
	write_cr8(0);
	sti_nop_cli();
	CHECK_EQ(order[2], 0x71);
	/* in service: the same class waits, a higher one nests */
	fresh(note, 0x81, 0x91);
	apic_ipi(my_id(), 0x82);
	sti_nop_cli();
	CHECK_EQ(apic_read(APIC_PPR), 0x80);
	apic_ipi(my_id(), 0x83);
	sti_nop_cli();
	CHECK_EQ(order_len, 1);
	apic_ipi(my_id(), 0x91);
	sti_nop_cli();
	CHECK_EQ(order_len, 2);
	apic_eoi();
	sti_nop_cli();
	CHECK_EQ(order_len, 2);
	apic_eoi();
	sti_nop_cli();
	CHECK_EQ(order_len, 3);
	CHECK_EQ(order[2], 0x83);
	apic_eoi();
	CHECK_EQ(apic_read(APIC_PPR), 0);
}

TEST(apic_error)
{
	ioapic_setup();
	apic_write(APIC_LVTERR, 0xe1);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ICR, 0x40000 | 0x05); /* vectors below 16 cannot be sent */
	sti_nop_cli();
	apic_write(APIC_ESR, 0);
	CHECK(apic_read(APIC_ESR) & 0x60);
	CHECK_EQ(count[0xe1], 1);
	apic_write(APIC_ESR, 0);
	CHECK_EQ(apic_read(APIC_ESR), 0);
	apic_init(false);
}

TEST(timer_one_shot)
{
	ioapic_setup();
	apic_write(APIC_TDCR, 0xb); /* by 1 */
	apic_write(APIC_LVTT, 0xd0);
	apic_write(APIC_TMICT, 1000000);
	CHECK(apic_read(APIC_TMCCT) <= 1000000);
	for (unsigned ms = 0; ms < 1000 && !count[0xd0]; ms++) {
		pit_delay_us(1000);
		sti_nop_cli();
	}
	CHECK_EQ(count[0xd0], 1);
	CHECK_EQ(apic_read(APIC_TMCCT), 0);
	pit_delay_us(5000);
	sti_nop_cli();
	CHECK_EQ(count[0xd0], 1);
	apic_write(APIC_TMICT, 100000000);
	apic_write(APIC_TMICT, 0); /* stops */
	CHECK_EQ(apic_read(APIC_TMCCT), 0);
}

TEST(timer_periodic)
{
	ioapic_setup();
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, 0xd1 | 1u << 17);
	apic_write(APIC_TMICT, 1000000);
	sti();
	while (count[0xd1] < 4)
		__asm__ volatile("hlt");
	cli();
	apic_write(APIC_LVTT, 0xd1 | 1u << 17 | 1u << 16);
	sti_nop_cli();
	count[0xd1] = 0;
	pit_delay_us(5000);
	sti_nop_cli();
	CHECK_EQ(count[0xd1], 0);
	CHECK(apic_read(APIC_TMCCT) != 0); /* masked, yet it counts */
	apic_write(APIC_TMICT, 0);
}

TEST(timer_tsc_deadline)
{
	u64 start;

	if (!HAS_1C(24))
		SKIP("no TSC deadline timer");
	ioapic_setup();
	apic_write(APIC_LVTT, 0xd2 | 2u << 17);
	__asm__ volatile("mfence");
	start = rdtsc();
	wrmsr(MSR_TSC_DEADLINE, start + 2000000);
	CHECK(rdmsr(MSR_TSC_DEADLINE) == start + 2000000 || rdtsc() >= start + 2000000);
	CHECK_EQ(apic_read(APIC_TMCCT), 0);
	sti();
	while (!count[0xd2])
		__asm__ volatile("pause");
	cli();
	CHECK(rdtsc() - start >= 2000000);
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0); /* disarmed */
	wrmsr(MSR_TSC_DEADLINE, 1);           /* in the past: at once */
	sti_nop_cli();
	sti_nop_cli();
	CHECK_EQ(count[0xd2], 2);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + (1ull << 40));
	wrmsr(MSR_TSC_DEADLINE, 0);
	apic_write(APIC_LVTT, 1u << 16);
}

TEST(x2apic)
{
	struct trap t;
	u64 base = rdmsr(MSR_APICBASE);
	u8 id;

	if (!HAS_1C(21))
		SKIP("no x2APIC");
	ioapic_setup();
	id = my_id();
	CHECK_EQ(base & 0xfffff000, LAPIC_BASE);
	CHECK_EQ(base >> 8 & 1, 1); /* the boot processor */
	CATCH(t, rdmsr(0x802));
	CHECK_TRAP(t, VEC_GP, 0); /* not in this mode */
	wrmsr(MSR_APICBASE, base | 1u << 10);
	CHECK_EQ(rdmsr(0x802), id);
	CHECK_EQ(rdmsr(0x80d), (id >> 4 << 16) | 1u << (id & 15)); /* LDR, read-only */
	CATCH(t, wrmsr(0x80d, 0));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(0x802, 0));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, rdmsr(0x80e)); /* no DFR */
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(0x80b, 1)); /* EOI takes 0 only */
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(0x808, 0x100)); /* TPR: reserved bits */
	CHECK_TRAP(t, VEC_GP, 0);
	fresh(note, 0x75, 0x76);
	wrmsr(0x83f, 0x75); /* self IPI */
	wrmsr(0x830, (u64)id << 32 | 0x76);
	sti_nop_cli();
	CHECK_EQ(order_len, 1);
	CHECK_EQ(order[0], 0x76);
	CHECK_EQ(rdmsr(0x810 + 3) >> 22 & 1, 1); /* ISR */
	wrmsr(0x80b, 0);
	sti_nop_cli();
	CHECK_EQ(count[0x75], 1);
	wrmsr(0x80b, 0);
	CATCH(t, wrmsr(MSR_APICBASE, base)); /* x2APIC to xAPIC goes by way of disabled */
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_APICBASE, base & ~(3ull << 10));
	CHECK_EQ(HAS_1D(9), 0);
	CATCH(t,
	      wrmsr(MSR_APICBASE, base | 3ull << 10)); /* and so does the way there, in one step */
	wrmsr(MSR_APICBASE, base & ~(3ull << 10));
	wrmsr(MSR_APICBASE, base);
	CHECK_EQ(HAS_1D(9), 1);
	apic_init(false);
}

TEST(sti_and_mov_ss_shadow)
{
	u8 before;

	ioapic_setup();
	/* the instruction after STI is still not interrupted */
	apic_ipi(my_id(), 0x71);
	__asm__ volatile("sti\n\tcli" ::: "memory");
	CHECK_EQ(count[0x71], 0);
	__asm__ volatile("sti\n\tmovb %1, %0\n\tnop\n\tcli"
			 : "=r"(before)
			 : "m"(*(volatile u8 *)&count[0x71]));
	CHECK_EQ(before, 0);
	CHECK_EQ(count[0x71], 1);
	/* POPF has no shadow */
	apic_ipi(my_id(), 0x71);
	__asm__ volatile("pushfq\n\torl $0x200, (%%rsp)\n\tpopfq\n\tmovb %1, %0\n\tcli"
			 : "=r"(before)
			 : "m"(*(volatile u8 *)&count[0x71])
			 : "memory", "cc");
	CHECK_EQ(before, 2);
}

static volatile ulong nmi_count, nmi_flags;

static void on_nmi(struct frame *f)
{
	nmi_count++;
	nmi_flags = f->flags;
	if (nmi_count == 1) {
		apic_ipi((u32)(apic_read(APIC_ID) >> 24), 0x400); /* blocked until IRET */
		__asm__ volatile("nop\n\tnop");
		nmi_flags = nmi_count;
	}
}

TEST(nmi_blocking)
{
	ioapic_setup();
	trap_hook(VEC_NMI, on_nmi);
	nmi_count = 0;
	nmi_flags = 99;
	apic_ipi(my_id(), 0x400); /* IF does not matter */
	for (volatile unsigned i = 0; i < 1000; i++)
		;
	CHECK_EQ(nmi_count, 2);
	CHECK(nmi_flags != 99);
	trap_hook(VEC_NMI, NULL);
}

static volatile ulong nested_at;

static void on_nmi_iret(struct frame *f)
{
	nmi_count++;
	if (nmi_count == 1) {
		apic_ipi((u32)(apic_read(APIC_ID) >> 24), 0x400);
		CHECK_EQ(nmi_count, 1);
		__asm__ volatile("int3"); /* any IRET ends the blocking */
		nested_at = nmi_count;
	}
}

static void on_bp(struct frame *f)
{
}

TEST(nmi_unblocked_by_iret)
{
	ioapic_setup();
	trap_hook(VEC_NMI, on_nmi_iret);
	trap_hook(VEC_BP, on_bp);
	nmi_count = 0;
	apic_ipi(my_id(), 0x400);
	for (volatile unsigned i = 0; i < 1000; i++)
		;
	CHECK_EQ(nmi_count, 2);
	CHECK_EQ(nested_at, 2);
	trap_hook(VEC_NMI, NULL);
	trap_hook(VEC_BP, NULL);
}

TEST(hlt_wakes)
{
	ioapic_setup();
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, 0xd0);
	apic_write(APIC_TMICT, 3000000);
	__asm__ volatile("sti\n\thlt\n\tcli");
	CHECK_EQ(count[0xd0], 1);
	apic_init(false);
}
