/* Application processors: started by INIT and SIPI, then a loop that runs what it is given. */
#include "apic.h"

extern u8 ap_tramp_start[], ap_tramp_end[];
extern volatile u32 ap_next;
void smp_ap_main(unsigned cpu);
static volatile u32 cpus_up = 1;

void smp_ap_main(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];

	trap_init(cpu);
	apic_init(false);
	c->apic_id = apic_read(APIC_ID) >> 24;
	__asm__ volatile("lock incl %0" : "+m"(cpus_up)::"memory");
	for (;;) {
		while (c->started == c->done)
			cpu_pause();
		c->fn(c->arg);
		BARRIER();
		c->done++;
	}
}

unsigned smp_boot(void)
{
	unsigned want = 1;
	static bool tried;

	for (char n = '2'; n <= '8'; n++) {
		const char word[] = { 's', 'm', 'p', '=', n, 0 };

		if (cmdline_has(word))
			want = (unsigned)(n - '0');
	}
	if (tried)
		return cpus_up;
	tried = true;
	apic_init(true);
	pic_init();
	cpus[0].apic_id = apic_read(APIC_ID) >> 24;
	if (want == 1)
		return 1;
	guest_memcpy((void *)AP_TRAMPOLINE, ap_tramp_start,
		     (size_t)(ap_tramp_end - ap_tramp_start));
	apic_ipi(0, 0xc4500); /* INIT, assert, all but self */
	pit_delay_us(10000);
	apic_ipi(0, 0xc4600 | AP_TRAMPOLINE >> 12);
	for (unsigned i = 0; i < 2000 && cpus_up < want; i++)
		pit_delay_us(1000);
	return cpus_up;
}

void smp_start(unsigned cpu, void (*fn)(void *arg), void *arg)
{
	cpus[cpu].fn = fn;
	cpus[cpu].arg = arg;
	BARRIER();
	cpus[cpu].started++;
}

void smp_wait(unsigned cpu)
{
	while (cpus[cpu].started != cpus[cpu].done)
		cpu_pause();
}
