/* 16550A: each rule of the data sheet that drivers lean on. */
#include "testbed.h"

#define P 0x3f8
enum { THR = P, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct port {
	struct bed *b;
	struct chardev *c;
	struct dev *d;
};

static int setup(void **state)
{
	struct port *p = calloc(1, sizeof(*p));

	p->b = bed_new();
	p->c = bed_ring(p->b, "con", 4);
	p->d = dev_create(&p->b->md, &serial_class, NULL, NULL, "chardev", "con", NULL);
	assert_non_null(p->d);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct port *p = *state;

	bed_free(p->b);
	free(p);
	return 0;
}

static void type(struct port *p, const char *text)
{
	chardev_ring_input(p->c, text, strlen(text));
	bed_run(p->b);
}

static void serial_reset_values(void **state)
{
	struct bed *b = ((struct port *)*state)->b;

	assert_int_equal(in8(b, IER), 0);
	assert_int_equal(in8(b, IIR), 1);
	assert_int_equal(in8(b, LCR), 0);
	assert_int_equal(in8(b, MCR), 0);
	assert_int_equal(in8(b, LSR), 0x60);
	assert_int_equal(in8(b, MSR), 0xb0);
	out8(b, SCR, 0xa5);
	assert_int_equal(in8(b, SCR), 0xa5);
	out8(b, LCR, 0x83);
	out8(b, THR, 0x34);
	out8(b, IER, 0x12);
	assert_int_equal(in8(b, THR), 0x34);
	assert_int_equal(in8(b, IER), 0x12);
	out8(b, LCR, 3);
	assert_int_equal(in8(b, IER), 0);
	out8(b, IER, 0xff);
	assert_int_equal(in8(b, IER), 0x0f);
	out8(b, MCR, 0xe0);
	assert_int_equal(in8(b, MCR), 0);
}

/* Output that the terminal does not take: THRE stays clear, nothing is lost, THRE interrupt later.
 */
static void serial_output(void **state)
{
	struct port *p = *state;
	struct bed *b = p->b;
	char got[32] = { 0 };

	out8(b, IIR, 0x01);
	out8(b, MCR, 0x08);
	for (const char *t = "abcd"; *t; t++)
		out8(b, THR, (uint8_t)*t);
	assert_int_equal(in8(b, LSR), 0x60);
	for (const char *t = "efgh"; *t; t++)
		out8(b, THR, (uint8_t)*t);
	assert_int_equal(in8(b, LSR), 0x00);
	out8(b, IER, 2);
	assert_false(b->level[4]);
	assert_int_equal(chardev_ring_output(p->c, got, 4), 4);
	bed_run(b);
	assert_int_equal(in8(b, LSR), 0x60);
	assert_true(b->level[4]);
	assert_int_equal(in8(b, IIR), 0xc2);
	assert_int_equal(in8(b, IIR), 0xc1); /* seen once, gone */
	assert_false(b->level[4]);
	assert_int_equal(chardev_ring_output(p->c, got + 4, 28), 4);
	assert_string_equal(got, "abcdefgh");
}

/* A guest that does not wait for THRE: its bytes still come out, in order. */
static void serial_impatient(void **state)
{
	struct port *p = *state;
	char got[64] = { 0 };
	size_t n;

	for (int i = 0; i < 10; i++)
		out8(p->b, THR, (uint8_t)('a' + i));
	assert_int_equal(in8(p->b, LSR), 0x00);
	out8(p->b, IIR, 0x01);
	n = chardev_ring_output(p->c, got, sizeof(got)); /* 'j' went with the FIFO reset */
	bed_run(p->b);
	assert_int_equal(n, 9);
	for (int i = 0; i < 40; i++)
		out8(p->b, THR, (uint8_t)('A' + i));
	for (int i = 0; i < 20; i++) {
		n += chardev_ring_output(p->c, got + n, sizeof(got) - n);
		bed_run(p->b);
	}
	assert_string_equal(got, "abcdefghi"
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh");
}

static void serial_thre_rules(void **state)
{
	struct bed *b = ((struct port *)*state)->b;

	out8(b, MCR, 0x08);
	out8(b, IER, 2); /* enabling with an empty transmitter raises it */
	assert_int_equal(in8(b, IIR), 2);
	assert_int_equal(in8(b, IIR), 1);
	out8(b, IER, 2); /* no change, no edge */
	assert_int_equal(in8(b, IIR), 1);
	out8(b, THR, 'x');
	assert_int_equal(b->rises[4], 2);
	out8(b, IER, 0);
	assert_false(b->level[4]);
	out8(b, IER, 2);
	assert_true(b->level[4]);
	out8(b, MCR, 0); /* OUT2 is the gate */
	assert_false(b->level[4]);
	assert_int_equal(in8(b, IIR), 2);
}

static void serial_fifo_trigger_and_timeout(void **state)
{
	struct port *p = *state;
	struct bed *b = p->b, *b2 = bed_new();
	struct dev *d2;
	uint64_t char_ns = NS_PER_SEC * 10 / 9600;

	out8(b, LCR, 0x83);
	out8(b, THR, 12);
	out8(b, IER, 0);
	out8(b, LCR, 3);
	out8(b, IIR, 0x41); /* trigger at 4 */
	out8(b, MCR, 0x08);
	out8(b, IER, 1);
	type(p, "abc");
	assert_int_equal(in8(b, LSR), 0x61);
	assert_false(b->level[4]);
	loop_advance(b->loop, 4 * char_ns - 10000);
	assert_false(b->level[4]);
	d2 = dev_create(&b2->md, &serial_class, NULL, NULL, NULL);
	clock_advance(&b2->clock, clock_now(&b->clock) - clock_now(&b2->clock));
	bed_copy(p->d, d2);
	loop_advance(b->loop, 20000);
	assert_true(b->level[4]);
	assert_int_equal(in8(b, IIR), 0xcc);
	loop_advance(b2->loop, 20000); /* the deadline travels with the state */
	assert_true(b2->level[4]);
	assert_int_equal(in8(b, THR), 'a'); /* a read clears the timeout and starts it again */
	assert_int_equal(in8(b, IIR), 0xc1);
	loop_advance(b->loop, 5 * char_ns);
	assert_int_equal(in8(b, IIR), 0xcc);
	type(p, "de"); /* four are there now */
	assert_int_equal(in8(b, IIR), 0xc4);
	assert_int_equal(in8(b, THR), 'b');
	assert_int_equal(in8(b, IIR), 0xc1);
	assert_false(b->level[4]);
	bed_free(b2);
}

/* More input than the FIFO holds waits outside; no byte is lost and no overrun is seen. */
static void serial_input_flow(void **state)
{
	struct port *p = *state;
	const char *text = "The quick brown fox jumps over the lazy dog.";
	char got[64] = { 0 };
	size_t n = 0;

	out8(p->b, IIR, 0x01);
	type(p, text);
	for (int i = 0; i < 100; i++) {
		uint8_t lsr = in8(p->b, LSR);

		assert_int_equal(lsr & 0x1e, 0);
		if (lsr & 1)
			got[n++] = (char)in8(p->b, THR);
		bed_run(p->b);
	}
	assert_string_equal(got, text);
	out8(p->b, IIR, 0); /* 16450 mode: one at a time */
	type(p, "xy");
	assert_int_equal(in8(p->b, THR), 'x');
	assert_int_equal(in8(p->b, LSR) & 1, 0);
	bed_run(p->b);
	assert_int_equal(in8(p->b, THR), 'y');
	assert_int_equal(in8(p->b, THR), 'y'); /* the buffer keeps its last */
}

static void serial_loopback(void **state)
{
	struct port *p = *state;
	struct bed *b = p->b;
	char none[4];

	in8(b, MSR);
	out8(b, MCR, 0x1a); /* loop, OUT2, RTS: Linux's autodetection */
	assert_int_equal(in8(b, MSR) & 0xf0, 0x90);
	assert_int_equal(in8(b, MSR) & 0x0f, 0); /* deltas were read */
	out8(b, MCR, 0x14);                      /* OUT1 raises RI ... */
	assert_int_equal(in8(b, MSR) & 0x4f, 0x49);
	out8(b, MCR, 0x10); /* ... and its end counts */
	assert_int_equal(in8(b, MSR) & 0x4f, 0x04);
	out8(b, THR, 'L');
	assert_int_equal(chardev_ring_output(p->c, none, 4), 0);
	type(p, "outside"); /* the line is cut off */
	assert_int_equal(in8(b, THR), 'L');
	assert_int_equal(in8(b, LSR), 0x60);
	out8(b, THR, '1');
	out8(b, THR, '2'); /* nobody read: overrun, the newer one stays */
	assert_int_equal(in8(b, LSR), 0x63);
	assert_int_equal(in8(b, LSR), 0x61);
	assert_int_equal(in8(b, THR), '2');
	out8(b, IIR, 1);
	for (int i = 0; i < 17; i++)
		out8(b, THR, (uint8_t)i);
	assert_int_equal(in8(b, LSR), 0x63); /* the FIFO keeps the older ones */
	for (int i = 0; i < 16; i++)
		assert_int_equal(in8(b, THR), i);
	out8(b, LCR, 0x43); /* break */
	assert_int_equal(in8(b, LSR), 0xf9);
	assert_int_equal(in8(b, LSR), 0x61);
	out8(b, MCR, 0);
	bed_run(b);
	assert_int_equal(in8(b, THR), 0); /* the break character comes first */
	assert_int_equal(in8(b, THR), 'o');
}

static void serial_priorities_and_break(void **state)
{
	struct port *p = *state;
	struct bed *b = p->b;

	out8(b, IIR, 0x01);
	out8(b, MCR, 0x18);
	out8(b, MCR, 0x08); /* modem lines moved: deltas */
	out8(b, IER, 0x0f);
	type(p, "a");
	chardev_ring_event(p->c, CHARDEV_BREAK);
	assert_int_equal(in8(b, IIR), 0xc4); /* the break is behind 'a' in the FIFO */
	assert_int_equal(in8(b, LSR) & 0x91, 0x81);
	assert_int_equal(in8(b, THR), 'a');
	assert_int_equal(in8(b, IIR), 0xc6);
	assert_int_equal(in8(b, LSR) & 0x99, 0x99);
	assert_int_equal(in8(b, IIR), 0xc4);
	assert_int_equal(in8(b, THR), 0);
	assert_int_equal(in8(b, IIR), 0xc2);
	assert_int_equal(in8(b, IIR), 0xc0);
	assert_true(in8(b, MSR) & 0x0f);
	assert_int_equal(in8(b, IIR), 0xc1);
	assert_false(b->level[4]);
}

static void serial_fcr(void **state)
{
	struct port *p = *state;
	struct bed *b = p->b;

	out8(b, IIR, 0xc1);
	assert_int_equal(in8(b, IIR) & 0xc0, 0xc0);
	type(p, "abc");
	out8(b, IIR, 0x03); /* clear the receiver */
	assert_int_equal(in8(b, LSR), 0x60);
	type(p, "abc");
	out8(b, IIR, 0x00); /* leaving FIFO mode clears */
	assert_int_equal(in8(b, LSR), 0x60);
	out8(b, IIR, 0xc6); /* without bit 0 nothing else is programmed */
	assert_int_equal(in8(b, IIR), 0x01);
}

/* A real line below is set as the guest sets its UART, and gets its breaks. */
static void serial_line_below(void **state)
{
	struct port *p = *state;
	const struct chardev_line *l;
	bool brk;

	l = chardev_ring_line(p->c, &brk);
	assert_int_equal(l->speed, 0); /* reset says nothing */
	out8(p->b, LCR, 0x03);
	assert_int_equal(l->speed, 9600);
	out8(p->b, LCR, 0x80);
	out8(p->b, THR, 3);
	out8(p->b, IER, 0);
	assert_int_equal(l->speed, 9600); /* not by halves */
	out8(p->b, LCR, 0x1e);
	assert_int_equal(l->speed, 38400);
	assert_int_equal(l->bits, 7);
	assert_int_equal(l->stop, 2);
	assert_int_equal(l->parity, 'E');
	out8(p->b, LCR, 0x4b);
	assert_int_equal(l->parity, 'O');
	assert_int_equal(l->bits, 8);
	chardev_ring_line(p->c, &brk);
	assert_true(brk);
	out8(p->b, LCR, 0x03);
	chardev_ring_line(p->c, &brk);
	assert_false(brk);
	out8(p->b, MCR, 0x10);
	out8(p->b, LCR, 0x43); /* in loopback it stays inside */
	chardev_ring_line(p->c, &brk);
	assert_false(brk);
	out8(p->b, LCR, 0x80); /* a divisor of 0 is what hardware makes of it; no crash */
	out8(p->b, THR, 0);
	out8(p->b, IER, 0);
	out8(p->b, LCR, 0x03);
	assert_int_equal(l->speed, 115200);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(serial_reset_values),
		T(serial_output),
		T(serial_impatient),
		T(serial_thre_rules),
		T(serial_fifo_trigger_and_timeout),
		T(serial_input_flow),
		T(serial_loopback),
		T(serial_priorities_and_break),
		T(serial_fcr),
		T(serial_line_below),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
