/*
 * The guest's time stamp counter: the host's, scaled when another frequency is asked for, moved by
 * an offset for each vCPU.
 *
 * Modelled:     WRMSR TSC and TSC_ADJUST, KVM_SET_TSC_KHZ, vCPUs kept in step when user space sets
 *               their counters one after the other.
 * Not modelled: hosts whose TSC is not constant or differs between processors.
 * References:   [SDM3 17.17], [KVM-API 4.54, 4.55].
 * Threads:      the owner of the vCPU writes; tsc_offset is also read by the timer thread.
 */
#include <errno.h>
#include <time.h>
#include <x86intrin.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/tsc.h"

/* A fact of the host, found once in a process: the one exception to "no file-scope state". */
static pthread_once_t tsc_start_once = PTHREAD_ONCE_INIT, tsc_once = PTHREAD_ONCE_INIT;
static uint64_t tsc_start_tsc, tsc_start_ns;
static uint32_t tsc_host_khz;

/* Two readings so far apart give a few ppm. */
#define TSC_CALIBRATION_NS 10000000

/* Read both clocks at the same moment: the tightest of some tries. */
static void tsc_pair(uint64_t *tsc, uint64_t *ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 16; i++) {
		struct timespec ts;
		uint64_t a = __rdtsc(), b;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		b = __rdtsc();
		if (b - a < best) {
			best = b - a;
			*tsc = a + best / 2;
			*ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
		}
	}
}

static void tsc_start(void)
{
	tsc_pair(&tsc_start_tsc, &tsc_start_ns);
}

void kvm_tsc_calibration_start(void)
{
	pthread_once(&tsc_start_once, tsc_start);
}

static void tsc_calibrate(void)
{
	uint64_t tsc = 0, ns = 0;

	kvm_tsc_calibration_start();
	tsc_pair(&tsc, &ns);
	while (ns < tsc_start_ns + TSC_CALIBRATION_NS) {
		struct timespec rest = { .tv_nsec =
						 (long)(tsc_start_ns + TSC_CALIBRATION_NS - ns) };

		nanosleep(&rest, NULL);
		tsc_pair(&tsc, &ns);
	}
	if (ns <= tsc_start_ns || tsc <= tsc_start_tsc) {
		tsc_host_khz = 1000000; /* no usable TSC: anything but zero */
		return;
	}
	tsc_host_khz = (uint32_t)((unsigned __int128)(tsc - tsc_start_tsc) * 1000000 /
				  (ns - tsc_start_ns));
	if (!tsc_host_khz)
		tsc_host_khz = 1;
}

uint32_t kvm_host_tsc_khz(void)
{
	pthread_once(&tsc_once, tsc_calibrate);
	return tsc_host_khz;
}

uint64_t kvm_host_tsc(void)
{
	return __rdtsc();
}

uint64_t kvm_scale_tsc(uint32_t khz, uint64_t host_tsc)
{
	uint64_t host = kvm_host_tsc_khz(), diff;

	if (!khz || khz == host)
		return host_tsc;
	/* So close is the same crystal measured twice, and plain addition is exact. */
	diff = khz > host ? khz - host : host - khz;
	if (diff * 4000 <= host)
		return host_tsc;
	return (uint64_t)((unsigned __int128)host_tsc * khz / host);
}

static void tsc_set_offset(struct vcpu *v, uint64_t offset)
{
	__atomic_store_n(&v->tsc_offset, offset, __ATOMIC_RELAXED);
	atomic_store(&v->pvclock.update, true);
	kvm_make_request(v, REQ_STEAL);
	if (v->lapic)
		kvm_apic_timer_tsc_changed(v->lapic);
}

uint64_t kvm_read_tsc(struct vcpu *v)
{
	return kvm_scale_tsc(v->tsc_khz, __rdtsc()) +
	       __atomic_load_n(&v->tsc_offset, __ATOMIC_RELAXED);
}

void kvm_tsc_init(struct vcpu *v)
{
	struct kvm_arch_vm *arch = kvm_chips(v->vm);

	if (!v->tsc_khz)
		v->tsc_khz = kvm_host_tsc_khz();
	v->tsc_offset = arch ? 0 - kvm_scale_tsc(v->tsc_khz, arch->clock.start_tsc) : 0;
	if (arch) {
		/* The first vCPU's count is what later writes are compared with. */
		pthread_mutex_lock(&arch->clock.lock);
		if (!arch->clock.last_khz) {
			arch->clock.last_khz = v->tsc_khz;
			arch->clock.last_offset = v->tsc_offset;
			arch->clock.last_host_tsc = arch->clock.start_tsc;
		}
		pthread_mutex_unlock(&arch->clock.lock);
	}
	atomic_store(&v->pvclock.update, true);
}

void kvm_write_tsc(struct vcpu *v, uint64_t tsc)
{
	uint64_t move = tsc - kvm_read_tsc(v);

	v->msr.tsc_adjust += move;
	tsc_set_offset(v, v->tsc_offset + move);
}

void kvm_write_tsc_adjust(struct vcpu *v, uint64_t value, bool host)
{
	uint64_t move = value - v->msr.tsc_adjust;

	v->msr.tsc_adjust = value;
	if (!host && move)
		tsc_set_offset(v, v->tsc_offset + move);
}

void kvm_write_tsc_host(struct vcpu *v, uint64_t tsc)
{
	struct kvm_arch_vm *arch = kvm_chips(v->vm);
	uint64_t host = __rdtsc(), offset = tsc - kvm_scale_tsc(v->tsc_khz, host), expected, diff;
	struct kvm_guest_clock *c;

	if (!arch) {
		tsc_set_offset(v, offset);
		return;
	}
	/*
	 * A write of what another vCPU got less than a second's count away is meant as the same
	 * counter; so is 0, which user space writes at reset to one vCPU after the other.
	 */
	c = &arch->clock;
	pthread_mutex_lock(&c->lock);
	expected = c->last_tsc + kvm_scale_tsc(v->tsc_khz, host - c->last_host_tsc);
	diff = tsc > expected ? tsc - expected : expected - tsc;
	if (c->last_khz == v->tsc_khz && (!tsc || diff < v->tsc_khz * 1000ull)) {
		offset = c->last_offset;
	} else {
		c->last_khz = v->tsc_khz;
		c->last_offset = offset;
	}
	c->last_tsc = tsc;
	c->last_host_tsc = host;
	pthread_mutex_unlock(&c->lock);
	tsc_set_offset(v, offset);
}

uint64_t kvm_tsc_to_ns(struct vcpu *v, uint64_t tsc)
{
	uint64_t now = kvm_now_ns(), cur = kvm_read_tsc(v), khz;
	unsigned __int128 ns;

	if (tsc <= cur)
		return 0;
	khz = v->tsc_khz ? v->tsc_khz : kvm_host_tsc_khz();
	ns = ((unsigned __int128)(tsc - cur) * 1000000 + khz - 1) / khz;
	/* Some centuries from now is never. */
	return ns > (uint64_t)INT64_MAX - now ? (uint64_t)INT64_MAX : now + (uint64_t)ns;
}

int kvm_set_tsc_khz(struct vcpu *v, uint32_t khz)
{
	uint64_t cur = kvm_read_tsc(v);

	if (!khz)
		khz = kvm_host_tsc_khz();
	v->tsc_khz = khz;
	v->flush_code = true; /* the translator has made RDTSC for the old rate */
	/* The counter goes on from where it is. */
	tsc_set_offset(v, cur - kvm_scale_tsc(khz, __rdtsc()));
	return 0;
}
