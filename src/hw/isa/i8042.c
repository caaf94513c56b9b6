/*
 * i8042 keyboard controller with a PS/2 keyboard behind it.
 *
 * Modelled:     controller commands a PC's controller has; configuration byte and RAM; self
 *               tests; the output port with CPU reset and A20 bit; translation to scan code set
 *               1; a keyboard that identifies itself, takes all its commands and sends the keys
 *               that i8042_key() gives. With kbd=off nothing is plugged in: what is sent to the
 *               keyboard comes back as FEh with the time-out bit.
 * Not modelled: an auxiliary port: it answers like a controller without one (loopback and test
 *               of it fail at once, so drivers do not wait). Masking of address bit 20. Scan
 *               code sets 1 and 3 in the keyboard (it asks to resend, as keyboards without them
 *               do). Typing repeat is the injector's business.
 * Reference:    [8042 "Commands", "Keyboard"]
 * Threads:      any vCPU and the event loop, under the device lock.
 * Time:         none; bytes arrive at once.  Host resources: none.
 */
#include "hw/isa/i8042.h"

#include <string.h>

#define I8042_QUEUE 64

enum { STS_OBF = 1, STS_SYS = 4, STS_A2 = 8, STS_UNLOCKED = 0x10, STS_TIMEOUT = 0x40 };
enum { CFG_IRQ = 1, CFG_SYS = 4, CFG_KBD_OFF = 0x10, CFG_AUX_OFF = 0x20, CFG_XLATE = 0x40 };
enum { OUT_RUN = 1, OUT_A20 = 2, OUT_OBF = 0x10 };
enum { KBD_ACK = 0xfa, KBD_RESEND = 0xfe, KBD_PASSED = 0xaa, KBD_BREAK = 0xf0 };

struct i8042 {
	struct dev dev;
	uint8_t irq;
	bool kbd;
	struct irq_pin pin;
	struct i8042_state {
		uint8_t obuf;       /* output buffer, valid while full */
		bool full, timeout; /* STS_OBF, STS_TIMEOUT of that byte */
		bool a2;            /* the last write went to port 64h */
		uint8_t command;    /* controller command that waits for a byte at 60h; 0: none */
		uint8_t ram[32];    /* [0] is the configuration byte */
		uint8_t outport;
		/* the controller's own answers, and the keyboard's bytes; the former go first */
		uint8_t reply[2], reply_n;
		bool reply_timeout;
		bool release; /* translation has swallowed a break prefix */
		/* keyboard */
		uint8_t kbd_command; /* keyboard command that waits for its argument; 0: none */
		uint8_t leds, rate, last;
		bool scanning;
		uint8_t head, n, q[I8042_QUEUE];
	} s;
};

/* clang-format off */
static const struct prop i8042_props[] = {
	PROP(struct i8042, irq, 1, "keyboard interrupt line"),
	PROP(struct i8042, kbd, true, "a keyboard is plugged in"),
	PROP_END
};
/* clang-format on */

static const struct field i8042_fields[] = {
	ST(struct i8042_state, obuf),
	ST(struct i8042_state, full),
	ST(struct i8042_state, timeout),
	ST(struct i8042_state, a2),
	ST(struct i8042_state, command),
	ST_ARR(struct i8042_state, ram),
	ST(struct i8042_state, outport),
	ST_ARR(struct i8042_state, reply),
	ST(struct i8042_state, reply_n, .lim = 3),
	ST(struct i8042_state, reply_timeout),
	ST(struct i8042_state, release),
	ST(struct i8042_state, kbd_command),
	ST(struct i8042_state, leds),
	ST(struct i8042_state, rate),
	ST(struct i8042_state, last),
	ST(struct i8042_state, scanning),
	ST(struct i8042_state, head, .lim = I8042_QUEUE),
	ST(struct i8042_state, n, .lim = I8042_QUEUE + 1),
	ST_ARR(struct i8042_state, q),
	{ 0 },
};

/* Set 2 to set 1, as the controller's ROM does it; codes from 80h on pass, but for two keys. */
static const uint8_t i8042_xlate[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
	0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
	0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
	0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
	0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
	0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
	0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
	0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
	0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

static struct i8042 *i8042_of(struct dev *d)
{
	return container_of(d, struct i8042, dev);
}

/* --- output buffer --- */

static void i8042_irq(struct i8042 *k)
{
	irq_set(&k->pin, k->s.full && k->s.ram[0] & CFG_IRQ);
}

/* Translate one keyboard byte. False: it was a break prefix and nothing is sent for it. */
static bool i8042_translate(struct i8042_state *s, uint8_t *byte)
{
	uint8_t in = *byte;

	if (!(s->ram[0] & CFG_XLATE))
		return true;
	if (in == KBD_BREAK) {
		s->release = true;
		return false;
	}
	*byte = in < 128 ? i8042_xlate[in] : in == 0x83 ? 0x41 : in == 0x84 ? 0x54 : in;
	if (s->release && *byte < 128)
		*byte |= 0x80;
	s->release = false;
	return true;
}

/* Fill the output buffer if it is empty and something waits. */
static void i8042_fill(struct i8042 *k)
{
	struct i8042_state *s = &k->s;

	while (!s->full) {
		s->timeout = false;
		if (s->reply_n) {
			s->obuf = s->reply[0];
			s->reply[0] = s->reply[1];
			s->reply_n--;
			s->timeout = s->reply_timeout;
			s->reply_timeout = false;
			s->full = true;
		} else if (s->n && !(s->ram[0] & CFG_KBD_OFF)) {
			s->obuf = s->q[s->head];
			s->head = (s->head + 1) % I8042_QUEUE;
			s->n--;
			s->full = i8042_translate(s, &s->obuf);
		} else {
			break;
		}
	}
	i8042_irq(k);
}

/* An answer of the controller itself. It replaces one that nobody read. */
static void i8042_reply(struct i8042 *k, uint8_t byte)
{
	struct i8042_state *s = &k->s;

	if (s->reply_n == ARRAY_SIZE(s->reply))
		s->reply_n--;
	s->reply[s->reply_n++] = byte;
}

/* --- keyboard --- */

static void kbd_send(struct i8042_state *s, uint8_t byte)
{
	if (s->n < I8042_QUEUE)
		s->q[(s->head + s->n++) % I8042_QUEUE] = byte;
	if (byte != KBD_RESEND)
		s->last = byte;
}

static void kbd_defaults(struct i8042_state *s)
{
	s->leds = 0;
	s->rate = 0x2b; /* 10.9 a second after 500 ms */
	s->kbd_command = 0;
}

static void kbd_argument(struct i8042 *k, uint8_t v)
{
	struct i8042_state *s = &k->s;
	uint8_t command = s->kbd_command;

	s->kbd_command = 0;
	switch (command) {
	case 0xed:
		s->leds = v & 7;
		kbd_send(s, KBD_ACK);
		break;
	case 0xf0: /* scan code set: 0 asks, 2 is the one there is */
		kbd_send(s, v == 0 || v == 2 ? KBD_ACK : KBD_RESEND);
		if (!v)
			kbd_send(s, 2);
		break;
	default: /* F3: rate and delay */
		s->rate = v & 0x7f;
		kbd_send(s, KBD_ACK);
		break;
	}
}

static void kbd_write(struct i8042 *k, uint8_t v)
{
	struct i8042_state *s = &k->s;

	if (s->kbd_command && v < 0xed) { /* a command in place of the argument wins */
		kbd_argument(k, v);
		return;
	}
	s->kbd_command = 0;
	if (v >= 0xed && v != 0xfe)
		s->n = 0; /* a command ends what was being sent */
	switch (v) {
	case 0xed:
	case 0xf0:
	case 0xf3:
		s->kbd_command = v;
		kbd_send(s, KBD_ACK);
		break;
	case 0xee: kbd_send(s, 0xee); break; /* echo */
	case 0xf2:                           /* identify: an MF2 keyboard */
		kbd_send(s, KBD_ACK);
		kbd_send(s, 0xab);
		kbd_send(s, 0x83);
		break;
	case 0xf4:
	case 0xf5:
	case 0xf6:
		if (v != 0xf4)
			kbd_defaults(s);
		s->scanning = v == 0xf4 || (v == 0xf6 && s->scanning);
		kbd_send(s, KBD_ACK);
		break;
	case 0xfe: kbd_send(s, s->last); break;
	case 0xff:
		kbd_defaults(s);
		s->scanning = true;
		kbd_send(s, KBD_ACK);
		kbd_send(s, KBD_PASSED);
		break;
	default: kbd_send(s, KBD_RESEND); break;
	}
}

bool i8042_key(struct dev *d, const uint8_t *codes, unsigned n)
{
	struct i8042 *k = i8042_of(d);
	struct i8042_state *s = &k->s;

	if (!k->kbd || !s->scanning)
		return true; /* nobody listens, as on hardware */
	if (n > I8042_QUEUE - 8u || s->n > I8042_QUEUE - 8u - n) /* keep room for answers */
		return false;
	while (n--)
		kbd_send(s, *codes++);
	i8042_fill(k);
	return true;
}

/* --- controller --- */

static void i8042_outport(struct i8042 *k, uint8_t v)
{
	k->s.outport = v & (OUT_RUN | OUT_A20);
	if (!(v & OUT_RUN))
		machine_request(k->dev.md->run, REQ_OF(REQ_RESET, "keyboard controller"));
}

static void i8042_command(struct i8042 *k, uint8_t v)
{
	struct i8042_state *s = &k->s;

	s->command = 0;
	switch (v) {
	case 0x20 ... 0x3f: i8042_reply(k, s->ram[v & 31]); break;
	case 0x60 ... 0x7f: s->command = v; break;
	case 0xa4: i8042_reply(k, 0xf1); break; /* no password is set */
	case 0xa7: s->ram[0] |= CFG_AUX_OFF; break;
	case 0xa8: s->ram[0] &= (uint8_t)~CFG_AUX_OFF; break;
	case 0xa9: i8042_reply(k, 1); break; /* the auxiliary clock line is stuck low: no port */
	case 0xaa:
		s->ram[0] |= CFG_SYS;
		s->outport = OUT_RUN | OUT_A20;
		i8042_reply(k, 0x55);
		break;
	case 0xab: i8042_reply(k, 0); break; /* keyboard lines are fine */
	case 0xad: s->ram[0] |= CFG_KBD_OFF; break;
	case 0xae: s->ram[0] &= (uint8_t)~CFG_KBD_OFF; break;
	case 0xc0: i8042_reply(k, 0xa0); break; /* input port: keyboard not locked */
	case 0xd0: i8042_reply(k, s->outport | (s->full ? OUT_OBF : 0)); break;
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: s->command = v; break;
	case 0xdd: s->outport &= (uint8_t)~OUT_A20; break;
	case 0xdf: s->outport |= OUT_A20; break;
	case 0xf0 ... 0xff: /* pulse output lines low where the bit is 0; line 0 is the CPU's reset
			     */
		if (!(v & OUT_RUN))
			machine_request(k->dev.md->run, REQ_OF(REQ_RESET, "keyboard controller"));
		break;
	default: guest_error(&k->dev, "command", v); break;
	}
}

/* A byte at 60h: the argument of a controller command, or for the keyboard. */
static void i8042_data(struct i8042 *k, uint8_t v)
{
	struct i8042_state *s = &k->s;
	uint8_t command = s->command;

	s->command = 0;
	switch (command) {
	case 0:
		s->ram[0] &= (uint8_t)~CFG_KBD_OFF; /* sending opens the line */
		if (k->kbd) {
			kbd_write(k, v);
		} else {
			i8042_reply(k, KBD_RESEND);
			s->reply_timeout = true;
		}
		break;
	case 0xd1: i8042_outport(k, v); break;
	case 0xd2: /* as if the keyboard had sent it */
	case 0xd3: /* as if the auxiliary device had; without that port it looks like the keyboard
		    */
		i8042_reply(k, v);
		break;
	case 0xd4: guest_error(&k->dev, "no_aux", v); break;
	default: s->ram[command & 31] = v; break;
	}
}

static uint64_t i8042_data_read(struct dev *d, uint64_t off, unsigned size)
{
	struct i8042 *k = i8042_of(d);
	uint8_t v = k->s.obuf;

	k->s.full = false;
	i8042_irq(k); /* down before it may go up again: the input is edge-triggered */
	i8042_fill(k);
	trace(d, "data_read", v);
	return v;
}

static void i8042_data_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct i8042 *k = i8042_of(d);

	trace(d, "data_write", val);
	k->s.a2 = false;
	i8042_data(k, (uint8_t)val);
	i8042_fill(k);
}

static uint64_t i8042_status_read(struct dev *d, uint64_t off, unsigned size)
{
	const struct i8042_state *s = &i8042_of(d)->s;

	return STS_UNLOCKED | (s->full ? STS_OBF : 0) | (s->full && s->timeout ? STS_TIMEOUT : 0) |
	       (s->a2 ? STS_A2 : 0) | (s->ram[0] & CFG_SYS ? STS_SYS : 0);
}

static void i8042_command_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct i8042 *k = i8042_of(d);

	trace(d, "command", val);
	k->s.a2 = true;
	i8042_command(k, (uint8_t)val);
	i8042_fill(k);
}

static const struct region_ops i8042_data_io = { i8042_data_read, i8042_data_write, 1, 1 };
static const struct region_ops i8042_ctl_io = { i8042_status_read, i8042_command_write, 1, 1 };

static int i8042_realize(struct dev *d, struct err *e)
{
	struct i8042 *k = i8042_of(d);
	int rc = bus_claim(d, 0x60, 1, &i8042_data_io, e);

	if (!rc)
		rc = bus_claim(d, 0x64, 1, &i8042_ctl_io, e);
	if (!rc)
		rc = dev_irq(d, &k->pin, k->irq, e);
	return rc;
}

/* As firmware leaves it, since a direct-booted kernel has had none: interrupts on, translating. */
static void i8042_reset(struct dev *d, enum reset_kind kind)
{
	struct i8042 *k = i8042_of(d);

	memset(&k->s, 0, sizeof(k->s));
	k->s.ram[0] = CFG_IRQ | CFG_SYS | CFG_AUX_OFF | CFG_XLATE;
	k->s.outport = OUT_RUN | OUT_A20;
	k->s.scanning = true;
	kbd_defaults(&k->s);
	i8042_irq(k);
}

static int i8042_loaded(struct dev *d, struct err *e)
{
	i8042_irq(i8042_of(d));
	return 0;
}

static void i8042_unrealize(struct dev *d)
{
	irq_connect(&i8042_of(d)->pin, NULL);
}

const struct dev_class i8042_class = {
	.name = "i8042",
	.desc = "PS/2 keyboard controller and keyboard",
	.size = sizeof(struct i8042),
	.props = i8042_props,
	.state = STATE_OF(struct i8042, s, i8042_fields, 1),
	.realize = i8042_realize,
	.reset = i8042_reset,
	.loaded = i8042_loaded,
	.unrealize = i8042_unrealize,
};
