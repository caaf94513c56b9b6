/*
 * 16550A UART: a PC's serial port.
 *
 * Modelled:     all registers; both FIFOs with trigger levels and the character timeout
 *               interrupt; interrupt priorities and the ways each is cleared; OUT2 as the PC's
 *               interrupt gate; loopback; receive errors per character (break); overrun; FIFO
 *               reset.
 * Not modelled: line speed (bytes leave as fast as the chardev takes them, and arrive as fast as
 *               the FIFO has room), word length and parity (all 8 bits pass), modem lines other
 *               than "connected" (CTS, DSR, DCD on). The divisor only scales the timeout. A chardev
 *               that is a real line (/dev/ttyS0) is told of all three, and of breaks.
 * Flow:         input that does not fit waits in the chardev. Output the chardev does not take
 *               stays in the transmit FIFO with THRE clear, so a guest waits instead of losing
 *               bytes; one that does not wait has them queued further out.
 * Reference:    [16550 8.0 "Registers", 8.6.5 "FIFO interrupt mode operation"]
 * Threads:      any vCPU and the event loop, under the device lock.
 * Time:         one timer, for the character timeout.  Host resources: a chardev.
 */
#include "backend/char/chardev.h"
#include "core/dev.h"

#define SERIAL_FIFO 16

enum { IER_RDA = 1, IER_THRE = 2, IER_RLS = 4, IER_MSI = 8 };
enum { IIR_NONE = 1, IIR_MSI = 0, IIR_THRE = 2, IIR_RDA = 4, IIR_RLS = 6, IIR_TIMEOUT = 12 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_DMA = 8, FCR_TRIGGER = 0xc0 };
enum { LCR_STOP2 = 4, LCR_PARITY = 8, LCR_EVEN = 0x10, LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum {
	LSR_DR = 1,
	LSR_OE = 2,
	LSR_PE = 4,
	LSR_FE = 8,
	LSR_BI = 16,
	LSR_THRE = 32,
	LSR_TEMT = 64,
	LSR_FIFO_ERR = 128
};
enum { MSR_DELTAS = 0x0f, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

#define LSR_ERRORS    (LSR_OE | LSR_PE | LSR_FE | LSR_BI)
#define MSR_CONNECTED (MSR_CTS | MSR_DSR | MSR_DCD)

struct serial {
	struct dev dev;
	uint16_t iobase;
	uint8_t irq;
	struct chardev *chardev;
	struct irq_pin pin;
	struct timer timeout;
	struct chardev_line line; /* as the chardev was told last */
	bool brk;
	struct serial_state {
		uint64_t timeout_at; /* when the character timeout strikes; 0: not running */
		uint16_t divisor;
		uint8_t ier, fcr, lcr, mcr, msr, scr;
		uint8_t lsr_errors; /* OE PE FE BI as LSR shows them; its other bits are derived */
		uint8_t rbr;        /* what a read of an empty receiver gives again */
		uint8_t rx_head, rx_n, tx_head, tx_n;
		bool thre_pending;    /* the THRE interrupt was raised and not yet taken */
		bool timeout_pending; /* the same for the character timeout */
		uint8_t rx[SERIAL_FIFO], rx_err[SERIAL_FIFO], tx[SERIAL_FIFO];
	} s;
};

/* clang-format off */
static const struct prop serial_props[] = {
	PROP(struct serial, iobase, 0x3f8, "first of 8 I/O ports"),
	PROP(struct serial, irq, 4, "interrupt line"),
	PROP_BACKEND(struct serial, chardev, "chardev", "the other end of the line"),
	PROP_END
};
/* clang-format on */

static const struct field serial_fields[] = {
	ST(struct serial_state, timeout_at),
	ST(struct serial_state, divisor),
	ST(struct serial_state, ier, .lim = 0x10),
	ST(struct serial_state, fcr),
	ST(struct serial_state, lcr),
	ST(struct serial_state, mcr, .lim = 0x20),
	ST(struct serial_state, msr),
	ST(struct serial_state, scr),
	ST(struct serial_state, lsr_errors, .lim = 0x20),
	ST(struct serial_state, rbr),
	ST(struct serial_state, rx_head, .lim = SERIAL_FIFO),
	ST(struct serial_state, rx_n, .lim = SERIAL_FIFO + 1),
	ST(struct serial_state, tx_head, .lim = SERIAL_FIFO),
	ST(struct serial_state, tx_n, .lim = SERIAL_FIFO + 1),
	ST(struct serial_state, thre_pending),
	ST(struct serial_state, timeout_pending),
	ST_ARR(struct serial_state, rx),
	ST_ARR(struct serial_state, rx_err),
	ST_ARR(struct serial_state, tx),
	{ 0 },
};

static struct serial *serial_of(struct dev *d)
{
	return container_of(d, struct serial, dev);
}

static unsigned serial_depth(const struct serial_state *s)
{
	return s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;
}

static unsigned serial_trigger(const struct serial_state *s)
{
	static const uint8_t level[] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* Four characters' time in ns: the receiver's patience below the trigger level [16550 8.6.5]. */
static uint64_t serial_timeout_ns(const struct serial_state *s)
{
	uint64_t half_bits = 2u * (1u + 5u + (s->lcr & 3u)) + (s->lcr & LCR_PARITY ? 2 : 0);
	uint64_t divisor = s->divisor ? s->divisor : 1;

	half_bits += !(s->lcr & LCR_STOP2) ? 2 : (s->lcr & 3) ? 4 : 3;
	return 4 * half_bits * divisor * NS_PER_SEC / (2 * 115200ull);
}

/* The interrupt that IIR shows: the highest pending and enabled one. */
static uint8_t serial_iir(const struct serial_state *s)
{
	if (s->ier & IER_RLS && s->lsr_errors)
		return IIR_RLS;
	if (s->ier & IER_RDA && s->rx_n >= serial_trigger(s))
		return IIR_RDA;
	if (s->ier & IER_RDA && s->timeout_pending)
		return IIR_TIMEOUT;
	if (s->ier & IER_THRE && s->thre_pending)
		return IIR_THRE;
	if (s->ier & IER_MSI && s->msr & MSR_DELTAS)
		return IIR_MSI;
	return IIR_NONE;
}

/*
 * The pin. In loopback the modem outputs are inactive [16550 8.6.4], OUT2 among them, and a PC's
 * interrupt buffer is enabled by OUT2.
 */
static void serial_update(struct serial *p)
{
	const struct serial_state *s = &p->s;
	bool gate = (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	irq_set(&p->pin, gate && serial_iir(s) != IIR_NONE);
}

/* (Re)start or stop the character timeout: it runs while the FIFO holds something. */
static void serial_timeout_start(struct serial *p)
{
	struct serial_state *s = &p->s;

	s->timeout_pending = false;
	if (s->rx_n && s->fcr & FCR_ENABLE) {
		s->timeout_at = dev_now(&p->dev) + serial_timeout_ns(s);
		timer_arm(&p->timeout, s->timeout_at);
	} else {
		s->timeout_at = 0;
		timer_cancel(&p->timeout);
	}
}

static void serial_timeout(void *opaque)
{
	struct serial *p = opaque;

	p->s.timeout_at = 0;
	p->s.timeout_pending = p->s.rx_n > 0;
	trace(&p->dev, "timeout", p->s.rx_n);
	serial_update(p);
}

/* --- receiver --- */

/* A character's error bits show in LSR when it comes to the top of the FIFO. */
static void serial_rx_reveal(struct serial_state *s)
{
	if (s->rx_n) {
		s->lsr_errors |= s->rx_err[s->rx_head] & LSR_ERRORS;
		s->rx_err[s->rx_head] = 0;
	}
}

static void serial_rx_put(struct serial *p, uint8_t byte, uint8_t err)
{
	struct serial_state *s = &p->s;

	if (s->rx_n >= serial_depth(s)) {
		s->lsr_errors |= LSR_OE;
		if (s->fcr & FCR_ENABLE)
			return; /* the FIFO keeps what it has; the new character is lost */
		s->rx_n = 0;    /* the old character is overwritten */
	}
	s->rx[(s->rx_head + s->rx_n) % SERIAL_FIFO] = byte;
	s->rx_err[(s->rx_head + s->rx_n) % SERIAL_FIFO] = err;
	if (!s->rx_n++)
		serial_rx_reveal(s);
}

static uint8_t serial_rx_take(struct serial *p)
{
	struct serial_state *s = &p->s;

	if (!s->rx_n)
		return s->rbr;
	s->rbr = s->rx[s->rx_head];
	s->rx_head = (s->rx_head + 1) % SERIAL_FIFO;
	s->rx_n--;
	serial_rx_reveal(s);
	serial_timeout_start(p);
	chardev_accept_input(p->chardev);
	return s->rbr;
}

static void serial_rx_clear(struct serial *p)
{
	p->s.rx_head = p->s.rx_n = 0;
	serial_timeout_start(p);
	chardev_accept_input(p->chardev);
}

static size_t serial_can_read(void *opaque)
{
	struct serial_state *s = &((struct serial *)opaque)->s;
	unsigned depth = serial_depth(s);

	/* in loopback the line is cut off [16550 8.6.4]: let the sender wait */
	return s->mcr & MCR_LOOP || s->rx_n >= depth ? 0 : depth - s->rx_n;
}

static void serial_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct serial *p = opaque;

	for (size_t i = 0; i < len; i++)
		serial_rx_put(p, buf[i], 0);
	serial_timeout_start(p);
	serial_update(p);
}

static void serial_event(void *opaque, enum chardev_event ev)
{
	struct serial *p = opaque;

	if (ev != CHARDEV_BREAK || p->s.mcr & MCR_LOOP)
		return;
	serial_rx_put(p, 0, LSR_BI | LSR_FE);
	serial_timeout_start(p);
	serial_update(p);
}

/* --- transmitter --- */

/* Move what the other side takes; raise THRE when the FIFO runs empty. */
static void serial_tx_run(struct serial *p)
{
	struct serial_state *s = &p->s;
	bool had = s->tx_n;

	while (s->tx_n) {
		if (s->mcr & MCR_LOOP) {
			serial_rx_put(p, s->tx[s->tx_head], 0);
			serial_timeout_start(p);
		} else if (!chardev_write(p->chardev, &s->tx[s->tx_head], 1)) {
			break; /* serial_can_write comes when there is room */
		}
		s->tx_head = (s->tx_head + 1) % SERIAL_FIFO;
		s->tx_n--;
	}
	if (had && !s->tx_n)
		s->thre_pending = true;
}

static void serial_tx_put(struct serial *p, uint8_t byte)
{
	struct serial_state *s = &p->s;

	s->thre_pending = false;
	if (s->tx_n >= serial_depth(s)) {
		guest_error(&p->dev, "thr_overwritten", byte);
		if (s->mcr & MCR_LOOP)
			return;
		/*
		 * The guest has given up waiting for a terminal that stands still (Linux's console
		 * does after 10 ms). Hardware would lose this; the chardev has a larger queue for
		 * it.
		 */
		chardev_write_all(p->chardev, &s->tx[s->tx_head], 1);
		s->tx_head = (s->tx_head + 1) % SERIAL_FIFO;
		s->tx_n--;
	}
	s->tx[(s->tx_head + s->tx_n++) % SERIAL_FIFO] = byte;
	serial_tx_run(p);
}

static void serial_can_write(void *opaque)
{
	serial_tx_run(opaque);
	serial_update(opaque);
}

static const struct chardev_handlers serial_handlers = {
	.can_read = serial_can_read,
	.read = serial_receive,
	.can_write = serial_can_write,
	.event = serial_event,
};

/* --- line --- */

/*
 * A real line below has the speed and frame that the guest asks for, from the write to LCR on that
 * ends the access to the divisor. Before the first it is as the chardev opened it.
 */
static void serial_line(struct serial *p)
{
	const struct serial_state *s = &p->s;
	struct chardev_line line = { .speed = 115200u / (s->divisor ? s->divisor : 1),
				     .bits = (uint8_t)(5 + (s->lcr & 3)),
				     .stop = s->lcr & LCR_STOP2 ? 2 : 1,
				     .parity = !(s->lcr & LCR_PARITY) ? 'N'
					       : s->lcr & LCR_EVEN    ? 'E'
								      : 'O' };

	if (!(s->lcr & LCR_DLAB) && (line.speed != p->line.speed || line.bits != p->line.bits ||
				     line.stop != p->line.stop || line.parity != p->line.parity)) {
		chardev_set_line(p->chardev, &line);
		p->line = line;
	}
	if (p->brk != ((s->lcr & LCR_BREAK) && !(s->mcr & MCR_LOOP))) {
		p->brk = !p->brk;
		chardev_send_break(p->chardev, p->brk);
	}
}

/* --- modem --- */

/* Lines as they come in: from outside, or in loopback from our own outputs. */
static void serial_modem_update(struct serial_state *s)
{
	uint8_t lines = MSR_CONNECTED, old = s->msr, delta;

	if (s->mcr & MCR_LOOP)
		lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
			(s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
	delta = (old ^ lines) >> 4;
	if (lines & MSR_RI) /* ring counts at its end only */
		delta &= (uint8_t) ~(MSR_RI >> 4);
	s->msr = lines | (old & MSR_DELTAS) | (delta & MSR_DELTAS);
}

/* --- registers --- */

static uint8_t serial_lsr(const struct serial_state *s)
{
	uint8_t v = s->lsr_errors | (s->rx_n ? LSR_DR : 0) | (s->tx_n ? 0 : LSR_THRE | LSR_TEMT);

	if (s->fcr & FCR_ENABLE) {
		if (s->lsr_errors & (LSR_PE | LSR_FE | LSR_BI))
			v |= LSR_FIFO_ERR;
		for (unsigned i = 0; i < s->rx_n; i++)
			if (s->rx_err[(s->rx_head + i) % SERIAL_FIFO])
				v |= LSR_FIFO_ERR;
	}
	return v;
}

static void serial_fcr_write(struct serial *p, uint8_t val)
{
	struct serial_state *s = &p->s;
	bool toggled = (s->fcr ^ val) & FCR_ENABLE;

	/* the other bits are programmed only together with the enable bit; toggling it clears all
	 */
	s->fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
	if (toggled || (val & FCR_ENABLE && val & FCR_CLEAR_RX))
		serial_rx_clear(p);
	if (toggled || (val & FCR_ENABLE && val & FCR_CLEAR_TX)) {
		if (s->tx_n)
			s->thre_pending = true;
		s->tx_head = s->tx_n = 0;
	}
}

static void serial_lcr_write(struct serial *p, uint8_t val)
{
	struct serial_state *s = &p->s;
	bool brk = val & ~s->lcr & LCR_BREAK;

	s->lcr = val;
	serial_line(p);
	if (brk && s->mcr & MCR_LOOP) {
		serial_rx_put(p, 0, LSR_BI | LSR_FE);
		serial_timeout_start(p);
	}
}

static void serial_mcr_write(struct serial *p, uint8_t val)
{
	struct serial_state *s = &p->s;

	s->mcr = val & 0x1f;
	serial_line(p); /* in loopback a break stays inside */
	serial_modem_update(s);
	serial_tx_run(p); /* waiting output may go another way now */
	chardev_accept_input(p->chardev);
}

static uint64_t serial_read(struct dev *d, uint64_t off, unsigned size)
{
	struct serial *p = serial_of(d);
	struct serial_state *s = &p->s;
	uint8_t v = 0;

	switch (off) {
	case 0: v = s->lcr & LCR_DLAB ? (uint8_t)s->divisor : serial_rx_take(p); break;
	case 1: v = s->lcr & LCR_DLAB ? (uint8_t)(s->divisor >> 8) : s->ier; break;
	case 2:
		v = serial_iir(s);
		if (v == IIR_THRE)
			s->thre_pending = false; /* seen, so taken */
		v |= s->fcr & FCR_ENABLE ? 0xc0 : 0;
		break;
	case 3: v = s->lcr; break;
	case 4: v = s->mcr; break;
	case 5:
		v = serial_lsr(s);
		s->lsr_errors = 0;
		break;
	case 6:
		v = s->msr;
		s->msr &= (uint8_t)~MSR_DELTAS;
		break;
	case 7: v = s->scr; break;
	default: break;
	}
	serial_update(p);
	trace(d, "read", off, v);
	return v;
}

static void serial_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct serial *p = serial_of(d);
	struct serial_state *s = &p->s;
	uint8_t v = (uint8_t)val;

	trace(d, "write", off, val);
	switch (off) {
	case 0:
		if (s->lcr & LCR_DLAB)
			s->divisor = (s->divisor & 0xff00) | v;
		else
			serial_tx_put(p, v);
		break;
	case 1:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (uint16_t)((s->divisor & 0xff) | v << 8);
			break;
		}
		/* enabling THRE while the transmitter is empty raises it at once */
		if (v & ~s->ier & IER_THRE && !s->tx_n)
			s->thre_pending = true;
		s->ier = v & 0x0f;
		break;
	case 2: serial_fcr_write(p, v); break;
	case 3: serial_lcr_write(p, v); break;
	case 4: serial_mcr_write(p, v); break;
	case 7: s->scr = v; break;
	default: guest_error(d, "read_only", off, val); break; /* LSR, MSR: factory tests */
	}
	serial_update(p);
}

static const struct region_ops serial_io = { serial_read, serial_write, 1, 1 };

static int serial_realize(struct dev *d, struct err *e)
{
	struct serial *p = serial_of(d);
	int rc = bus_claim(d, p->iobase, 8, &serial_io, e);

	if (!rc)
		rc = dev_irq(d, &p->pin, p->irq, e);
	timer_init(&p->timeout, d->md->loop, serial_timeout, p);
	if (!rc && p->chardev)
		rc = chardev_attach(p->chardev, &serial_handlers, p, e);
	return rc;
}

static void serial_reset(struct dev *d, enum reset_kind kind)
{
	struct serial *p = serial_of(d);

	p->s = (struct serial_state){ .divisor = 12, .msr = MSR_CONNECTED };
	timer_cancel(&p->timeout);
	serial_update(p);
	chardev_accept_input(p->chardev);
}

static int serial_loaded(struct dev *d, struct err *e)
{
	struct serial *p = serial_of(d);

	timer_cancel(&p->timeout);
	if (p->s.timeout_at)
		timer_arm(&p->timeout, p->s.timeout_at);
	serial_line(p);
	serial_tx_run(p);
	serial_update(p);
	chardev_accept_input(p->chardev);
	return 0;
}

static void serial_unrealize(struct dev *d)
{
	struct serial *p = serial_of(d);

	timer_cancel(&p->timeout);
	chardev_detach(p->chardev);
	irq_connect(&p->pin, NULL);
}

const struct dev_class serial_class = {
	.name = "isa-serial",
	.desc = "serial port (16550A)",
	.size = sizeof(struct serial),
	.props = serial_props,
	.state = STATE_OF(struct serial, s, serial_fields, 1),
	.realize = serial_realize,
	.reset = serial_reset,
	.loaded = serial_loaded,
	.unrealize = serial_unrealize,
};
