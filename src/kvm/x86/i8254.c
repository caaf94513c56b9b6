/*
 * The 8254 interval timer and the part of port 61h that belongs to it.
 *
 * Modelled:     three channels, six modes, binary and BCD, LSB/MSB access, counter latch,
 *               read-back, GATE2, OUT0 on GSI 0 with reinjection: ticks that the guest was too
 *               slow for are kept and delivered one after the other as it ends them.
 * Not modelled: a count written in the middle of a period of modes 2 and 3 starts at once, not
 *               after the period, as in the kernel; GATE0 and GATE1 are tied high, so modes 1
 *               and 5 never start there; periods below KVM_MIN_TIMER_PERIOD tick at that rate.
 * References:   [8254 "Mode Definitions", "Read-Back Command"], [KVM-API 4.71, 4.72].
 * Threads:      pit->lock over the channels: vCPU threads, ioctls, timer thread. Ticks are
 *               injected without it: kvm_set_irq takes vm->irq_lock; one at a time, under
 *               pit->edge_lock.
 * Time:         CLOCK_MONOTONIC; a channel is a start time and a count, nothing runs but OUT0's
 *               timer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"

#define PIT_HZ        1193182ull
#define NS_PER_S      1000000000ull
#define PIT_MAX_TICKS 10000 /* that wait for injection: a guest stopped for long gets no more */

enum { PIT_UNPROGRAMMED = 0xff };
/* Access states of a channel's data port. */
enum { ACC_LSB = 1, ACC_MSB, ACC_WORD0, ACC_WORD1 };

static uint64_t pit_to_ticks(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

static uint64_t pit_to_ns(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

/* ---- What a channel shows at a time -----------------------------------------------------------
 */

static uint64_t pit_elapsed(const struct kvm_pit *pit, unsigned ch, uint64_t now)
{
	uint64_t end = pit->gate_off[ch] ? pit->gate_off[ch] : now;
	uint64_t start = (uint64_t)pit->s.channels[ch].count_load_time;

	return end > start ? pit_to_ticks(end - start) : 0;
}

static bool pit_gated_start(const struct kvm_pit_channel_state *c)
{
	return c->mode == 1 || c->mode == 5;
}

static unsigned pit_counter(const struct kvm_pit *pit, unsigned ch, uint64_t now)
{
	const struct kvm_pit_channel_state *c = &pit->s.channels[ch];
	uint64_t d = pit_elapsed(pit, ch, now), n = c->count, wrap = c->bcd ? 10000 : 0x10000, v;

	if (!n || c->mode > 5)
		return 0;
	if (pit_gated_start(c) && !pit->triggered[ch])
		v = n;
	else if (c->mode == 2)
		v = n - d % n;
	else if (c->mode == 3)
		v = n - 2 * d % n;
	else
		v = n + wrap - d % wrap;
	v %= wrap;
	if (c->bcd)
		v = v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12;
	return (unsigned)v;
}

static bool pit_out(const struct kvm_pit *pit, unsigned ch, uint64_t now)
{
	const struct kvm_pit_channel_state *c = &pit->s.channels[ch];
	uint64_t d = pit_elapsed(pit, ch, now), n = c->count;

	if (!n || c->mode > 5) /* a control word without a count */
		return c->mode != 0;
	if (pit_gated_start(c) && !pit->triggered[ch])
		return true;
	switch (c->mode) {
	case 0:
	case 1: return d >= n;
	case 2: return pit->gate_off[ch] || d % n != n - 1;
	case 3: return pit->gate_off[ch] || d % n < (n + 1) / 2;
	default: return d != n; /* 4, 5: a strobe of one clock */
	}
}

/* ---- OUT0 -------------------------------------------------------------------------------------
 */

void kvm_pit_forget_ticks(struct kvm_vm *vm)
{
	struct kvm_pit *pit = atomic_load(&kvm_chips(vm)->pit);

	if (!pit)
		return;
	atomic_store(&pit->pending, 0);
	atomic_store(&pit->irq_ack, true);
}

/* LINT0 in NMI mode sees the line as well: the NMI watchdog of old kernels. */
static void pit_nmi_watchdog(struct kvm_vm *vm)
{
	unsigned n = atomic_load(&vm->nvcpus);

	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (v && v->lapic && LVT_MODE(lapic_reg(v->lapic, LAPIC_LVT0)) == DM_NMI)
			kvm_apic_local(v->lapic, LAPIC_LVT0);
	}
}

/*
 * A tick is an edge. It is raised by the timer thread, and by a vCPU that has ended the one before
 * it, perhaps while that is still high: that would be no edge, and nobody would ever end it.
 */
static void pit_inject(struct kvm_pit *pit)
{
	int r;

	pthread_mutex_lock(&pit->edge_lock);
	r = kvm_set_irq(pit->vm, KVM_IRQ_SOURCE_PIT, 0, 1);
	kvm_set_irq(pit->vm, KVM_IRQ_SOURCE_PIT, 0, 0);
	pthread_mutex_unlock(&pit->edge_lock);
	/* Masked everywhere: nobody will end it, and ticks from that time are of no use later. */
	if (r < 0)
		kvm_pit_forget_ticks(pit->vm);
	pit_nmi_watchdog(pit->vm);
}

static void pit_tick(struct kvm_pit *pit, uint64_t due)
{
	if (atomic_load(&pit->reinject)) {
		unsigned old = atomic_load(&pit->pending), sum;

		do
			sum = (unsigned)MIN(old + MIN(due, PIT_MAX_TICKS), PIT_MAX_TICKS);
		while (!atomic_compare_exchange_weak(&pit->pending, &old, sum));
		if (!atomic_exchange(&pit->irq_ack, false))
			return; /* the last one is not ended yet: kvm_pit_acked goes on */
	}
	pit_inject(pit);
}

void kvm_pit_acked(struct kvm_vm *vm)
{
	struct kvm_pit *pit = atomic_load(&kvm_chips(vm)->pit);
	unsigned n;

	if (!pit || !atomic_load(&pit->reinject))
		return;
	atomic_store(&pit->irq_ack, true);
	n = atomic_load(&pit->pending);
	while (n && !atomic_compare_exchange_weak(&pit->pending, &n, n - 1))
		;
	if (n > 1 && atomic_exchange(&pit->irq_ack, false))
		pit_inject(pit);
}

static uint64_t pit_period(const struct kvm_pit_channel_state *c)
{
	return MAX(c->count, pit_to_ticks(KVM_MIN_TIMER_PERIOD));
}

static bool pit_periodic(const struct kvm_pit_channel_state *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Arm for OUT0's next edge; loaded: the count is from a saved state. Lock held. */
static void pit_schedule(struct kvm_pit *pit, uint64_t now, bool loaded)
{
	const struct kvm_pit_channel_state *c = &pit->s.channels[0];
	uint64_t start = (uint64_t)c->count_load_time, n = pit_period(c);

	pit->target = 0;
	if (!c->count || c->mode > 5 || pit_gated_start(c) ||
	    (pit->s.flags & KVM_PIT_FLAGS_HPET_LEGACY))
		return;
	if (pit_periodic(c)) {
		if (loaded) /* edges of the past are not owed */
			pit->edges = pit_elapsed(pit, 0, now) / n;
		pit->target = start + pit_to_ns((pit->edges + 1) * n);
	} else {
		/* One that has expired may not have been seen: better once too often. */
		pit->target = MAX(start + pit_to_ns(c->count), loaded ? now : 0);
	}
	kvm_timer_arm(pit->vm, &pit->timer, pit->target);
}

static void pit_expired(void *opaque)
{
	struct kvm_pit *pit = opaque;
	uint64_t now = kvm_now_ns(), due = 0, edges;

	pthread_mutex_lock(&pit->lock);
	if (!pit->target || now < pit->target) {
		/* Reprogrammed while this call was on its way. */
	} else if (pit_periodic(&pit->s.channels[0])) {
		edges = pit_elapsed(pit, 0, now) / pit_period(&pit->s.channels[0]);
		/* pit_to_ns rounds up, so the edge has been reached; be sure to get on. */
		edges = MAX(edges, pit->edges + 1);
		due = edges - pit->edges;
		pit->edges = edges;
		pit_schedule(pit, now, false);
	} else {
		due = 1;
		pit->target = 0;
	}
	pthread_mutex_unlock(&pit->lock);
	if (due)
		pit_tick(pit, due);
}

/* ---- Programming ------------------------------------------------------------------------------
 */

static void pit_restart(struct kvm_pit *pit, unsigned ch, uint64_t now)
{
	pit->s.channels[ch].count_load_time = (int64_t)now;
	pit->gate_off[ch] = 0;
	if (ch == 0) {
		pit->edges = 0;
		kvm_pit_forget_ticks(pit->vm);
		pit_schedule(pit, now, false);
	}
}

static void pit_load(struct kvm_pit *pit, unsigned ch, unsigned raw)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];
	uint64_t now = kvm_now_ns();
	unsigned n = raw;

	if (c->bcd) {
		n = (raw & 0xf) + (raw >> 4 & 0xf) * 10 + (raw >> 8 & 0xf) * 100 +
		    (raw >> 12 & 0xf) * 1000;
		n %= 10000;
	}
	c->count = n ? n : c->bcd ? 10000 : 0x10000;
	if (pit_gated_start(c))
		return; /* GATE starts it */
	pit_restart(pit, ch, now);
	if (!c->gate)
		pit->gate_off[ch] = now;
}

static void pit_set_gate(struct kvm_pit *pit, unsigned ch, bool gate)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];
	uint64_t now = kvm_now_ns();

	if (gate && !c->gate) {
		if (pit_gated_start(c)) {
			pit->triggered[ch] = true;
			pit_restart(pit, ch, now);
		} else if (pit_periodic(c)) {
			pit_restart(pit, ch, now);
		} else if (pit->gate_off[ch]) { /* 0, 4: go on */
			c->count_load_time += (int64_t)(now - pit->gate_off[ch]);
			pit->gate_off[ch] = 0;
		}
	} else if (!gate && c->gate && !pit_gated_start(c)) {
		pit->gate_off[ch] = now;
	}
	c->gate = gate;
}

static void pit_latch_count(struct kvm_pit *pit, unsigned ch)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];

	if (c->count_latched)
		return;
	c->latched_count = (uint16_t)pit_counter(pit, ch, kvm_now_ns());
	c->count_latched = c->rw_mode;
}

static void pit_latch_status(struct kvm_pit *pit, unsigned ch)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];

	if (c->status_latched)
		return;
	c->status = (uint8_t)(pit_out(pit, ch, kvm_now_ns()) << 7 | !c->count << 6 |
			      c->rw_mode << 4 | (c->mode & 7) << 1 | c->bcd);
	c->status_latched = 1;
}

static void pit_control(struct kvm_pit *pit, uint8_t val)
{
	unsigned ch = val >> 6, access = val >> 4 & 3;
	struct kvm_pit_channel_state *c;

	if (ch == 3) {
		for (ch = 0; ch < 3; ch++) {
			if (!(val & 2 << ch))
				continue;
			if (!(val & 0x20))
				pit_latch_count(pit, ch);
			if (!(val & 0x10))
				pit_latch_status(pit, ch);
		}
		return;
	}
	if (!access) {
		pit_latch_count(pit, ch);
		return;
	}
	c = &pit->s.channels[ch];
	c->rw_mode = c->read_state = c->write_state = (uint8_t)access;
	c->count_latched = c->status_latched = 0;
	c->mode = val >> 1 & 7;
	if (c->mode > 5)
		c->mode -= 4; /* bit 2 is not looked at in modes 2 and 3 */
	c->bcd = val & 1;
	c->count = 0; /* idle until one is written */
	pit->triggered[ch] = false;
	pit->gate_off[ch] = 0;
	if (ch == 0)
		pit->target = 0;
}

static void pit_write_data(struct kvm_pit *pit, unsigned ch, uint8_t val)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];

	switch (c->write_state) {
	case ACC_MSB: pit_load(pit, ch, (unsigned)val << 8); break;
	case ACC_WORD0:
		c->write_latch = val;
		c->write_state = ACC_WORD1;
		if (c->mode == 0) { /* half a count stops it */
			c->count = 0;
			if (ch == 0)
				pit->target = 0;
		}
		break;
	case ACC_WORD1:
		pit_load(pit, ch, c->write_latch | (unsigned)val << 8);
		c->write_state = ACC_WORD0;
		break;
	default: pit_load(pit, ch, val); break;
	}
}

static uint8_t pit_read_data(struct kvm_pit *pit, unsigned ch)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[ch];
	unsigned count;
	bool high;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched) {
		high = c->count_latched == ACC_MSB || c->count_latched == ACC_WORD1;
		c->count_latched = c->count_latched == ACC_WORD0 ? ACC_WORD1 : 0;
		return (uint8_t)(high ? c->latched_count >> 8 : c->latched_count);
	}
	count = pit_counter(pit, ch, kvm_now_ns());
	high = c->read_state == ACC_MSB || c->read_state == ACC_WORD1;
	if (c->read_state == ACC_WORD0)
		c->read_state = ACC_WORD1;
	else if (c->read_state == ACC_WORD1)
		c->read_state = ACC_WORD0;
	return (uint8_t)(high ? count >> 8 : count);
}

/* ---- Ports ------------------------------------------------------------------------------------
 */

static int pit_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data)
{
	struct kvm_pit *pit = container_of(d, struct kvm_pit, dev);

	memset(data, 0, (size_t)len);
	if ((addr & 3) == 3)
		return 0;
	pthread_mutex_lock(&pit->lock);
	*(uint8_t *)data = pit_read_data(pit, addr & 3);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

static int pit_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, const void *data)
{
	struct kvm_pit *pit = container_of(d, struct kvm_pit, dev);
	uint8_t val = *(const uint8_t *)data;

	pthread_mutex_lock(&pit->lock);
	if ((addr & 3) == 3)
		pit_control(pit, val);
	else
		pit_write_data(pit, addr & 3, val);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

static int pit_speaker_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			    void *data)
{
	struct kvm_pit *pit = container_of(d, struct kvm_pit, speaker_dev);
	uint64_t now = kvm_now_ns();
	bool speaker;

	pthread_mutex_lock(&pit->lock);
	speaker = pit->s.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	memset(data, 0, (size_t)len);
	/* Bit 4 changes with each DRAM refresh, about every 15 us. */
	*(uint8_t *)data = (uint8_t)(pit->s.channels[2].gate | speaker << 1 | (now >> 14 & 1) << 4 |
				     pit_out(pit, 2, now) << 5);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

static int pit_speaker_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			     const void *data)
{
	struct kvm_pit *pit = container_of(d, struct kvm_pit, speaker_dev);
	uint8_t val = *(const uint8_t *)data;

	pthread_mutex_lock(&pit->lock);
	if (val & 2)
		pit->s.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	else
		pit->s.flags &= ~(uint32_t)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	pit_set_gate(pit, 2, val & 1);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

static const struct kvm_io_ops pit_ops = { pit_read, pit_write };
static const struct kvm_io_ops pit_speaker_ops = { pit_speaker_read, pit_speaker_write };

/* ---- Creation and state -----------------------------------------------------------------------
 */

int kvm_pit_create(struct kvm_vm *vm, const struct kvm_pit_config *config)
{
	struct kvm_arch_vm *arch = kvm_chips(vm);
	struct kvm_pit *pit;
	int r;

	if (!arch)
		return -ENOMEM;
	if (atomic_load(&arch->pit))
		return -EEXIST;
	if (!vm->irqchip_in_kernel)
		return -ENOENT;
	pit = calloc(1, sizeof(*pit));
	if (!pit)
		return -ENOMEM;
	pit->vm = vm;
	pit->dev.ops = &pit_ops;
	pit->speaker_dev.ops = &pit_speaker_ops;
	pthread_mutex_init(&pit->lock, NULL);
	pthread_mutex_init(&pit->edge_lock, NULL);
	kvm_timer_init(&pit->timer, pit_expired, pit);
	atomic_init(&pit->reinject, true);
	atomic_init(&pit->irq_ack, true);
	for (unsigned i = 0; i < 3; i++) {
		pit->s.channels[i].mode = PIT_UNPROGRAMMED;
		pit->s.channels[i].gate = i != 2;
	}
	r = kvm_io_bus_register(vm, KVM_BUS_PIO, 0x40, 4, &pit->dev);
	if (!r && (config->flags & KVM_PIT_SPEAKER_DUMMY)) {
		r = kvm_io_bus_register(vm, KVM_BUS_PIO, 0x61, 1, &pit->speaker_dev);
		pit->has_speaker = !r;
		if (r)
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pit->dev);
	}
	if (r) {
		pthread_mutex_destroy(&pit->lock);
		pthread_mutex_destroy(&pit->edge_lock);
		free(pit);
		return r;
	}
	atomic_store(&arch->pit, pit);
	return 0;
}

void kvm_pit_destroy(struct kvm_vm *vm)
{
	struct kvm_pit *pit = atomic_exchange(&kvm_chips(vm)->pit, NULL);

	if (!pit)
		return;
	kvm_timer_cancel(vm, &pit->timer);
	kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pit->dev);
	if (pit->has_speaker)
		kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pit->speaker_dev);
	pthread_mutex_destroy(&pit->lock);
	pthread_mutex_destroy(&pit->edge_lock);
	free(pit);
}

static struct kvm_pit *pit_of(struct kvm_vm *vm)
{
	struct kvm_arch_vm *arch = kvm_chips(vm);

	return arch ? atomic_load(&arch->pit) : NULL;
}

int kvm_pit_get(struct kvm_vm *vm, struct kvm_pit_state2 *s)
{
	struct kvm_pit *pit = pit_of(vm);
	uint64_t now = kvm_now_ns();

	if (!pit)
		return -ENXIO;
	pthread_mutex_lock(&pit->lock);
	*s = pit->s;
	for (unsigned i = 0; i < 3; i++) {
		/* A stopped count is told as one that was loaded later, an idle one as never
		 * loaded. */
		if (pit->gate_off[i])
			s->channels[i].count_load_time += (int64_t)(now - pit->gate_off[i]);
		else if (pit_gated_start(&s->channels[i]) && !pit->triggered[i])
			s->channels[i].count_load_time = 0;
	}
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

int kvm_pit_set(struct kvm_vm *vm, const struct kvm_pit_state2 *s)
{
	struct kvm_pit *pit = pit_of(vm);
	uint64_t now = kvm_now_ns();

	if (!pit)
		return -ENXIO;
	pthread_mutex_lock(&pit->lock);
	kvm_chip_state_load(&kvm_pit_table, &pit->s, s);
	for (unsigned i = 0; i < 3; i++) {
		struct kvm_pit_channel_state *c = &pit->s.channels[i];

		if (c->mode > 5)
			c->mode = PIT_UNPROGRAMMED;
		pit->triggered[i] = c->count_load_time != 0;
		/* From another machine the time may lie in the future. */
		if (c->count_load_time < 0 || (uint64_t)c->count_load_time > now)
			c->count_load_time = (int64_t)now;
		pit->gate_off[i] = !c->gate && !pit_gated_start(c) && c->mode <= 5 ? now : 0;
	}
	pit->s.channels[0].gate = pit->s.channels[1].gate = 1;
	pit->gate_off[0] = pit->gate_off[1] = 0;
	pit->edges = 0;
	kvm_pit_forget_ticks(vm);
	pit_schedule(pit, now, true);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}

int kvm_pit_reinject(struct kvm_vm *vm, bool reinject)
{
	struct kvm_pit *pit = pit_of(vm);

	if (!pit)
		return -ENXIO;
	atomic_store(&pit->reinject, reinject);
	kvm_pit_forget_ticks(vm);
	return 0;
}
