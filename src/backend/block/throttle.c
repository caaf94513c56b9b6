/* See throttle.h. References: [QEMU-MAN "throttling"], for the meaning of the options. */
#include "backend/block/throttle.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "core/clock.h"

#define THROTTLE_MAX 1000000000000000ull /* 10^15 a second: far from where doubles round */

static const char *const throttle_names[THROTTLE_KINDS] = { "bps",  "bps_rd",  "bps_wr",
							    "iops", "iops_rd", "iops_wr" };

int throttle_check(const struct throttle_limits *l, struct err *e)
{
	bool ops = false;

	for (int i = 0; i < THROTTLE_KINDS; i++) {
		const char *n = throttle_names[i];

		if (l->kind[i].avg > THROTTLE_MAX || l->kind[i].max > THROTTLE_MAX)
			return err_set(e, EINVAL, "%s: at most %llu a second", n, THROTTLE_MAX);
		if (l->kind[i].max && !l->kind[i].avg)
			return err_set(e, EINVAL, "%s_max needs %s, the average", n, n);
		if (l->kind[i].max && l->kind[i].max < l->kind[i].avg)
			return err_set(e, EINVAL, "%s_max is less than %s", n, n);
		if (l->kind[i].burst_seconds && !l->kind[i].max)
			return err_set(e, EINVAL, "%s_max_length needs %s_max", n, n);
		if (l->kind[i].burst_seconds > 1000000)
			return err_set(e, EINVAL, "%s_max_length: at most 1000000 seconds", n);
		ops |= i >= THROTTLE_IOPS && l->kind[i].avg;
	}
	for (int i = 0; i < THROTTLE_KINDS; i += 3)
		if (l->kind[i].avg && (l->kind[i + 1].avg || l->kind[i + 2].avg))
			return err_set(e, EINVAL, "%s and %s or %s cannot be used together",
				       throttle_names[i], throttle_names[i + 1],
				       throttle_names[i + 2]);
	if (l->iops_size && !ops)
		return err_set(e, EINVAL, "iops_size needs iops, iops_rd or iops_wr");
	return 0;
}

bool throttle_any(const struct throttle_limits *l)
{
	bool any = false;

	for (int i = 0; i < THROTTLE_KINDS; i++)
		any |= l->kind[i].avg != 0;
	return any;
}

void throttle_init(struct throttle *t, const struct throttle_limits *l, uint64_t now)
{
	*t = (struct throttle){ .limits = *l, .last = now };
}

/* Is limit i one for this direction? 0, 3: both; 1, 4: reads; 2, 5: writes. */
static bool throttle_applies(const struct throttle *t, int i, bool write)
{
	return t->limits.kind[i].avg && (i % 3 == 0 || (i % 3 == 2) == write);
}

/* What fits before a request must wait: a tenth of a second without bursts. */
static double throttle_room(const struct throttle *t, int i)
{
	uint64_t max = t->limits.kind[i].max, len = t->limits.kind[i].burst_seconds;

	return max ? (double)max * (double)(len ? len : 1) : (double)t->limits.kind[i].avg / 10;
}

static void throttle_leak(struct throttle *t, uint64_t now)
{
	double s = now > t->last ? (double)(now - t->last) / NS_PER_SEC : 0;

	t->last = now;
	for (int i = 0; i < THROTTLE_KINDS; i++) {
		t->level[i] = MAX(t->level[i] - s * (double)t->limits.kind[i].avg, 0);
		t->burst[i] = MAX(t->burst[i] - s * (double)t->limits.kind[i].max, 0);
	}
}

uint64_t throttle_wait(struct throttle *t, bool write, uint64_t now)
{
	double wait = 0;

	throttle_leak(t, now);
	for (int i = 0; i < THROTTLE_KINDS; i++) {
		double avg = (double)t->limits.kind[i].avg, max = (double)t->limits.kind[i].max;
		double over = t->level[i] - throttle_room(t, i);

		if (!throttle_applies(t, i, write))
			continue;
		if (over > 0)
			wait = MAX(wait, over / avg);
		if (t->limits.kind[i].burst_seconds > 1 && t->burst[i] > max / 10)
			wait = MAX(wait, (t->burst[i] - max / 10) / max);
	}
	return (uint64_t)(wait * NS_PER_SEC);
}

void throttle_account(struct throttle *t, bool write, uint64_t bytes)
{
	uint64_t size = t->limits.iops_size;
	double ops = size && bytes > size ? (double)bytes / (double)size : 1;

	for (int i = 0; i < THROTTLE_KINDS; i++)
		if (throttle_applies(t, i, write)) {
			t->level[i] += i < THROTTLE_IOPS ? (double)bytes : ops;
			t->burst[i] += i < THROTTLE_IOPS ? (double)bytes : ops;
		}
}
