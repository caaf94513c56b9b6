/*
 * MC146818 real-time clock and CMOS memory.
 *
 * Modelled:     time in BCD or binary, 12 or 24 hours, century at 32h; SET and divider reset
 *               stopping the time; UIP; periodic, alarm (with don't-care) and update interrupts
 *               and their flags; 114 bytes of battery-backed memory; the index port's NMI mask
 *               bit (kept).
 * Not modelled: daylight saving (DSE), square wave, a weekday that differs from the date's, and
 *               the effect of the NMI mask.
 * Theory:       The chip's time is a function of the machine's clock: t = now + phase; the
 *               calendar is sec_base + t / 1 s and the divider chain t * 32768 / 1 s. Flags are
 *               brought up to date (rtc_sync) when somebody looks; a timer is armed only for
 *               enabled interrupts. While the time stands, the registers in cmos[] hold it.
 * Reference:    [MC146818 "Registers", "Update cycle"]; the CMOS map is PC convention
 * Threads:      any vCPU and the event loop, under the device lock.
 * Time:         one timer.  Host resources: none (wall time is read once, at realize).
 */
#include "hw/isa/rtc.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "hw/isa/calendar.h"

#define RTC_HZ     32768
#define RTC_UPDATE (2228 * NS_PER_US) /* UIP: 244 us of warning and 1984 us of update */
#define RTC_ANY    0xc0               /* an alarm byte from here on matches anything */

enum {
	RTC_SEC = 0,
	RTC_SEC_ALARM,
	RTC_MIN,
	RTC_MIN_ALARM,
	RTC_HOUR,
	RTC_HOUR_ALARM,
	RTC_WEEKDAY,
	RTC_DAY,
	RTC_MONTH,
	RTC_YEAR,
	RTC_A,
	RTC_B,
	RTC_C,
	RTC_D,
	RTC_RAM,
	RTC_CENTURY = 0x32
};
enum { A_UIP = 0x80, A_STOP = 0x60, A_RATE = 0x0f };
enum {
	B_SET = 0x80,
	B_PIE = 0x40,
	B_AIE = 0x20,
	B_UIE = 0x10,
	B_SQWE = 8,
	B_BINARY = 4,
	B_24H = 2
};
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VRT = 0x80 };

struct rtc {
	struct dev dev;
	uint16_t iobase;
	uint8_t irq;
	char *base;
	struct irq_pin pin;
	struct timer timer;
	struct rtc_state {
		uint64_t sec_base; /* calendar seconds (calendar.h) when t was 0 */
		uint64_t phase;    /* ns, below a second: t = now + phase */
		uint64_t seen;     /* the t up to which flags in C are right */
		uint8_t index;     /* with the NMI mask in bit 7 */
		uint8_t cmos[128];
		uint8_t pad[7];
	} s;
};

/* clang-format off */
static const struct prop rtc_props[] = {
	PROP(struct rtc, iobase, 0x70, "index port; data is the next one"),
	PROP(struct rtc, irq, 8, "interrupt line"),
	PROP_STR(struct rtc, base, "utc", "start: utc, localtime, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"),
	PROP_END
};
/* clang-format on */

static const struct field rtc_fields[] = {
	ST(struct rtc_state, sec_base, .lim = CALENDAR_SECONDS),
	ST(struct rtc_state, phase, .lim = NS_PER_SEC),
	ST(struct rtc_state, seen),
	ST(struct rtc_state, index),
	ST_ARR(struct rtc_state, cmos),
	ST_ARR(struct rtc_state, pad, .lim = 1),
	{ 0 },
};

static struct rtc *rtc_of(struct dev *d)
{
	return container_of(d, struct rtc, dev);
}

static uint64_t rtc_t(const struct rtc *r)
{
	return dev_now(&r->dev) + r->s.phase;
}

/* Does the calendar advance? */
static bool rtc_runs(const struct rtc_state *s)
{
	return !(s->cmos[RTC_B] & B_SET) && (s->cmos[RTC_A] & A_STOP) != A_STOP;
}

/* --- registers and numbers --- */

static uint8_t rtc_encode(const struct rtc_state *s, unsigned v)
{
	return (uint8_t)(s->cmos[RTC_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10);
}

/* The guest may have put anything into the register; digits over 9 just count. */
static unsigned rtc_decode(const struct rtc_state *s, uint8_t v)
{
	return s->cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t rtc_encode_hour(const struct rtc_state *s, unsigned hour)
{
	if (s->cmos[RTC_B] & B_24H)
		return rtc_encode(s, hour);
	return rtc_encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned rtc_decode_hour(const struct rtc_state *s, uint8_t v)
{
	if (s->cmos[RTC_B] & B_24H)
		return rtc_decode(s, v);
	return rtc_decode(s, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* Calendar seconds at time t, while the time runs. */
static uint64_t rtc_seconds(const struct rtc_state *s, uint64_t t)
{
	return (s->sec_base + t / NS_PER_SEC) % CALENDAR_SECONDS;
}

/* Running time -> registers. */
static void rtc_latch(struct rtc_state *s, uint64_t t)
{
	struct calendar c;

	calendar_from_seconds(&c, rtc_seconds(s, t));
	s->cmos[RTC_SEC] = rtc_encode(s, c.sec);
	s->cmos[RTC_MIN] = rtc_encode(s, c.min);
	s->cmos[RTC_HOUR] = rtc_encode_hour(s, c.hour);
	s->cmos[RTC_WEEKDAY] = rtc_encode(s, c.weekday);
	s->cmos[RTC_DAY] = rtc_encode(s, c.day);
	s->cmos[RTC_MONTH] = rtc_encode(s, c.month);
	s->cmos[RTC_YEAR] = rtc_encode(s, c.year % 100);
	s->cmos[RTC_CENTURY] = rtc_encode(s, c.year / 100);
}

/* Registers -> running time. */
static void rtc_unlatch(struct rtc_state *s, uint64_t t)
{
	struct calendar c = {
		.year = (uint16_t)(rtc_decode(s, s->cmos[RTC_CENTURY]) % 100 * 100 +
				   rtc_decode(s, s->cmos[RTC_YEAR])),
		.month = (uint8_t)rtc_decode(s, s->cmos[RTC_MONTH]),
		.day = (uint8_t)rtc_decode(s, s->cmos[RTC_DAY]),
		.hour = (uint8_t)rtc_decode_hour(s, s->cmos[RTC_HOUR]),
		.min = (uint8_t)rtc_decode(s, s->cmos[RTC_MIN]),
		.sec = (uint8_t)rtc_decode(s, s->cmos[RTC_SEC]),
	};
	uint64_t passed = t / NS_PER_SEC % CALENDAR_SECONDS;

	s->sec_base = (calendar_seconds(&c) + CALENDAR_SECONDS - passed) % CALENDAR_SECONDS;
}

/* --- events --- */

/* Divider ticks between periodic interrupts, 0: off. Rates 1 and 2 equal 8 and 9. */
static uint64_t rtc_period(const struct rtc_state *s)
{
	unsigned rate = s->cmos[RTC_A] & A_RATE;

	if (!rate || (s->cmos[RTC_A] & A_STOP) == A_STOP)
		return 0;
	return 1u << ((rate < 3 ? rate + 7 : rate) - 1);
}

static bool rtc_match(uint8_t alarm, unsigned want, unsigned have)
{
	return alarm >= RTC_ANY || want == have;
}

/* The first calendar second after sec at which the alarm matches, as a distance; 0: never. */
static uint64_t rtc_alarm_distance(const struct rtc_state *s, uint64_t sec)
{
	uint8_t ah = s->cmos[RTC_HOUR_ALARM], am = s->cmos[RTC_MIN_ALARM];
	uint8_t as = s->cmos[RTC_SEC_ALARM];
	unsigned h = rtc_decode_hour(s, ah), m = rtc_decode(s, am), c = rtc_decode(s, as);
	unsigned now = (unsigned)(sec % 86400), t = now + 1;

	/* also bounds the search: a guest may ask for second 75 */
	if ((ah < RTC_ANY && h > 23) || (am < RTC_ANY && m > 59) || (as < RTC_ANY && c > 59))
		return 0;

	while (t <= now + 86400) {
		unsigned day = t % 86400;

		if (!rtc_match(ah, h, day / 3600))
			t += 3600 - day % 3600;
		else if (!rtc_match(am, m, day / 60 % 60))
			t += 60 - day % 60;
		else if (!rtc_match(as, c, day % 60))
			t++;
		else
			return t - now;
	}
	return 0;
}

/* Set the flags of what happened up to t. */
static void rtc_sync(struct rtc *r, uint64_t t)
{
	struct rtc_state *s = &r->s;
	uint64_t period = rtc_period(s), secs, dist;

	if (t <= s->seen)
		return;
	if (period && clock_ticks(t, RTC_HZ) / period != clock_ticks(s->seen, RTC_HZ) / period)
		s->cmos[RTC_C] |= C_PF;
	secs = t / NS_PER_SEC - s->seen / NS_PER_SEC;
	if (secs && rtc_runs(s)) {
		s->cmos[RTC_C] |= C_UF;
		dist = rtc_alarm_distance(s, rtc_seconds(s, s->seen));
		if (dist && dist <= secs)
			s->cmos[RTC_C] |= C_AF;
	}
	s->seen = t;
}

/* Drive the pin from the flags, and arm the timer for the next enabled event. */
static void rtc_update(struct rtc *r, uint64_t t)
{
	struct rtc_state *s = &r->s;
	uint8_t enabled = s->cmos[RTC_B] & (B_PIE | B_AIE | B_UIE);
	uint64_t period = rtc_period(s), next = UINT64_MAX, at, dist;

	s->cmos[RTC_C] &= C_PF | C_AF | C_UF;
	if (s->cmos[RTC_C] & enabled)
		s->cmos[RTC_C] |= C_IRQF;
	irq_set(&r->pin, s->cmos[RTC_C] & C_IRQF);
	timer_cancel(&r->timer);
	if (s->cmos[RTC_C] & C_IRQF)
		return; /* stays up until C is read */
	if (enabled & B_PIE && period) {
		at = clock_tick_time((clock_ticks(t, RTC_HZ) / period + 1) * period, RTC_HZ);
		next = MIN(next, at);
	}
	if (enabled & B_UIE && rtc_runs(s))
		next = MIN(next, (t / NS_PER_SEC + 1) * NS_PER_SEC);
	if (enabled & B_AIE && rtc_runs(s) && (dist = rtc_alarm_distance(s, rtc_seconds(s, t))))
		next = MIN(next, (t / NS_PER_SEC + dist) * NS_PER_SEC);
	if (next != UINT64_MAX)
		timer_arm(&r->timer, next - s->phase);
}

static void rtc_timer(void *opaque)
{
	struct rtc *r = opaque;
	uint64_t t = rtc_t(r);

	rtc_sync(r, t);
	trace(&r->dev, "timer", r->s.cmos[RTC_C]);
	rtc_update(r, t);
}

/* --- accesses --- */

static bool rtc_is_time(unsigned i)
{
	return i == RTC_SEC || i == RTC_MIN || i == RTC_HOUR ||
	       (i >= RTC_WEEKDAY && i <= RTC_YEAR) || i == RTC_CENTURY;
}

static uint8_t rtc_get(struct rtc *r, unsigned i, uint64_t t)
{
	struct rtc_state *s = &r->s;
	uint8_t v;

	if (rtc_is_time(i) && rtc_runs(s))
		rtc_latch(s, t);
	v = s->cmos[i];
	if (i == RTC_A && rtc_runs(s) && t % NS_PER_SEC >= NS_PER_SEC - RTC_UPDATE)
		v |= A_UIP;
	if (i == RTC_C) {
		/* what has come since the timer last looked interrupts as well */
		if (v & s->cmos[RTC_B] & (B_PIE | B_AIE | B_UIE))
			v |= C_IRQF;
		s->cmos[RTC_C] = 0;
	}
	return v;
}

static void rtc_set_a_b(struct rtc *r, unsigned i, uint8_t v, uint64_t t)
{
	struct rtc_state *s = &r->s;
	bool ran = rtc_runs(s), stopped = (s->cmos[RTC_A] & A_STOP) == A_STOP;

	if (ran)
		rtc_latch(s, t); /* in the old format: the chip does not convert either */
	s->cmos[i] = i == RTC_A ? v & (uint8_t)~A_UIP : v;
	if (i == RTC_B && v & B_SET)
		s->cmos[RTC_B] &= (uint8_t)~B_UIE; /* SET going high clears it */
	if (i == RTC_A && stopped && (v & A_STOP) != A_STOP) {
		/* the divider chain starts half-way: the first update comes after 500 ms */
		uint64_t now = dev_now(&r->dev);

		s->phase = (NS_PER_SEC * 3 / 2 - now % NS_PER_SEC) % NS_PER_SEC;
		t = rtc_t(r);
		s->seen = t;
	}
	if (rtc_runs(s))
		rtc_unlatch(s, t);
}

static void rtc_put(struct rtc *r, unsigned i, uint8_t v, uint64_t t)
{
	struct rtc_state *s = &r->s;

	if (i == RTC_A || i == RTC_B) {
		rtc_set_a_b(r, i, v, t);
	} else if (i == RTC_C || i == RTC_D) {
		guest_error(&r->dev, "read_only", i, v);
	} else if (rtc_is_time(i) && rtc_runs(s)) {
		rtc_latch(s, t);
		s->cmos[i] = v;
		rtc_unlatch(s, t);
	} else {
		s->cmos[i] = v;
	}
}

static uint64_t rtc_read(struct dev *d, uint64_t off, unsigned size)
{
	struct rtc *r = rtc_of(d);
	uint64_t t = rtc_t(r);
	uint8_t v;

	if (!off)
		return 0xff; /* the index port is write-only */
	rtc_sync(r, t);
	v = rtc_get(r, r->s.index & 0x7f, t);
	rtc_update(r, t);
	trace(d, "read", r->s.index & 0x7f, v);
	return v;
}

static void rtc_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct rtc *r = rtc_of(d);
	uint64_t t = rtc_t(r);

	if (!off) {
		r->s.index = (uint8_t)val;
		return;
	}
	trace(d, "write", r->s.index & 0x7f, val);
	rtc_sync(r, t);
	rtc_put(r, r->s.index & 0x7f, (uint8_t)val, t);
	rtc_update(r, rtc_t(r)); /* a write to A can move t */
}

static const struct region_ops rtc_io = { rtc_read, rtc_write, 1, 1 };

/* --- for the machine --- */

static bool rtc_is_nvram(unsigned i)
{
	return i >= RTC_RAM && i < 128 && i != RTC_CENTURY;
}

void rtc_set_nvram(struct dev *d, uint8_t index, uint8_t value)
{
	if (rtc_is_nvram(index))
		rtc_of(d)->s.cmos[index] = value;
}

uint8_t rtc_get_nvram(const struct dev *d, uint8_t index)
{
	return container_of(d, struct rtc, dev)->s.cmos[index & 0x7f];
}

static void rtc_set_word(struct dev *d, uint8_t index, uint64_t v)
{
	rtc_set_nvram(d, index, (uint8_t)v);
	rtc_set_nvram(d, index + 1, (uint8_t)(v >> 8));
}

void rtc_set_memory(struct dev *d, uint64_t below_4g, uint64_t above_4g)
{
	uint64_t kib = below_4g >> 10, ext = kib > 1024 ? kib - 1024 : 0;
	uint64_t above16 = below_4g > 16u << 20 ? (below_4g - (16u << 20)) >> 16 : 0;
	uint64_t high = above_4g >> 16;

	rtc_set_word(d, 0x15, MIN(kib, 640u));       /* conventional memory, KiB */
	rtc_set_word(d, 0x17, MIN(ext, 65535u));     /* above 1 MiB, KiB */
	rtc_set_word(d, 0x30, MIN(ext, 65535u));     /* the same again, by the POST */
	rtc_set_word(d, 0x34, MIN(above16, 65535u)); /* above 16 MiB, 64 KiB */
	rtc_set_nvram(d, 0x5b, (uint8_t)high);       /* above 4 GiB, 64 KiB */
	rtc_set_nvram(d, 0x5c, (uint8_t)(high >> 8));
	rtc_set_nvram(d, 0x5d, (uint8_t)(high >> 16));
}

/* --- life --- */

/* n decimal digits at *p, then the character after (0: the end). Steps over both; -1: not so. */
static int rtc_digits(const char **p, int n, char after)
{
	int v = 0;

	for (; n; n--, (*p)++) {
		if (**p < '0' || **p > '9')
			return -1;
		v = v * 10 + (**p - '0');
	}
	if (**p != after)
		return -1;
	*p += after != 0;
	return v;
}

/* YYYY-MM-DD or YYYY-MM-DDThh:mm:ss; false if it is neither. */
static bool rtc_parse_date(const char *p, struct calendar *c)
{
	bool with_time = strlen(p) > 10;
	int year = rtc_digits(&p, 4, '-'), month = year < 0 ? -1 : rtc_digits(&p, 2, '-');
	int day = month < 0 ? -1 : rtc_digits(&p, 2, with_time ? 'T' : 0), h = 0, m = 0, s = 0;

	if (day > 0 && with_time) {
		h = rtc_digits(&p, 2, ':');
		m = h < 0 ? -1 : rtc_digits(&p, 2, ':');
		s = m < 0 ? -1 : rtc_digits(&p, 2, 0);
	}
	if (month < 1 || month > 12 || day < 1 || day > 31 || h < 0 || h > 23 || m < 0 || m > 59 ||
	    s < 0 || s > 59)
		return false;
	*c = (struct calendar){ .year = (uint16_t)year,
				.month = (uint8_t)month,
				.day = (uint8_t)day,
				.hour = (uint8_t)h,
				.min = (uint8_t)m,
				.sec = (uint8_t)s };
	return true;
}

/* Calendar seconds for the "base" property. */
static int rtc_base(struct rtc *r, uint64_t *sec, struct err *e)
{
	int64_t wall = clock_wall(loop_clock(r->dev.md->loop)) / (int64_t)NS_PER_SEC;
	time_t unix_now = (time_t)wall;
	struct calendar c;
	struct tm tm;

	if (!strcmp(r->base, "utc")) {
		*sec = (uint64_t)wall + CALENDAR_1970;
	} else if (!strcmp(r->base, "localtime") && localtime_r(&unix_now, &tm)) {
		*sec = (uint64_t)(wall + tm.tm_gmtoff) + CALENDAR_1970;
	} else if (rtc_parse_date(r->base, &c)) {
		*sec = calendar_seconds(&c);
	} else {
		return err_set(e, EINVAL,
			       "%s: base=%s should be utc, localtime or a date like "
			       "2026-01-31T23:59:59",
			       r->dev.id, r->base);
	}
	return 0;
}

static int rtc_realize(struct dev *d, struct err *e)
{
	struct rtc *r = rtc_of(d);
	struct rtc_state *s = &r->s;
	uint64_t sec = 0, now = dev_now(d);
	int rc = rtc_base(r, &sec, e);

	if (!rc)
		rc = bus_claim(d, r->iobase, 2, &rtc_io, e);
	if (!rc)
		rc = dev_irq(d, &r->pin, r->irq, e);
	timer_init(&r->timer, d->md->loop, rtc_timer, r);
	/* What the battery keeps: here, not in reset. */
	*s = (struct rtc_state){ 0 };
	s->seen = now;
	s->sec_base =
		(sec + CALENDAR_SECONDS - now / NS_PER_SEC % CALENDAR_SECONDS) % CALENDAR_SECONDS;
	s->cmos[RTC_A] = 0x26; /* 32768 Hz, 1024 periodic interrupts a second */
	s->cmos[RTC_B] = B_24H;
	s->cmos[RTC_D] = D_VRT;
	return rc;
}

/* The RESET pin clears enables and flags; time and memory are the battery's. */
static void rtc_reset(struct dev *d, enum reset_kind kind)
{
	struct rtc *r = rtc_of(d);
	uint64_t t = rtc_t(r);

	rtc_sync(r, t);
	r->s.cmos[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	r->s.cmos[RTC_C] = 0;
	r->s.index = 0;
	rtc_update(r, t);
}

static int rtc_loaded(struct dev *d, struct err *e)
{
	struct rtc *r = rtc_of(d);
	uint64_t t = rtc_t(r);

	r->s.cmos[RTC_A] &= (uint8_t)~A_UIP;
	r->s.cmos[RTC_D] = D_VRT;
	r->s.seen = MIN(r->s.seen, t); /* a time to come would silence the flags until then */
	rtc_update(r, t);
	if (r->s.seen < t)
		timer_arm(&r->timer, dev_now(d)); /* what happened meanwhile, at once */
	return 0;
}

static void rtc_unrealize(struct dev *d)
{
	timer_cancel(&rtc_of(d)->timer);
	irq_connect(&rtc_of(d)->pin, NULL);
}

const struct dev_class rtc_class = {
	.name = "mc146818rtc",
	.desc = "real-time clock and CMOS memory",
	.size = sizeof(struct rtc),
	.props = rtc_props,
	.state = STATE_OF(struct rtc, s, rtc_fields, 1),
	.realize = rtc_realize,
	.reset = rtc_reset,
	.loaded = rtc_loaded,
	.unrealize = rtc_unrealize,
};
