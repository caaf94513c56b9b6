/*
 * Interrupt lines. A line is a wire to an interrupt controller input, bound to it by the machine;
 * a pin is one device's output. Several pins may share a line: it is high while any pin is.
 * Threads: under the device lock; the line's fn is called with it held.
 */
#pragma once
#include <stdbool.h>

struct irq_line {
	void (*fn)(void *opaque, unsigned n, bool level); /* NULL: connected to nothing */
	void *opaque;
	unsigned n;    /* passed to fn: a GSI number, for example */
	unsigned high; /* private: how many pins are high */
};

/* A device's output. All zero is unconnected and low. Not part of a device's state: re-derived. */
struct irq_pin {
	struct irq_line *line;
	bool level;
};

void irq_line_init(struct irq_line *l, void (*fn)(void *opaque, unsigned n, bool level),
		   void *opaque, unsigned n);

/* Connect; a level that is high moves from the old line to the new. line may be NULL. */
void irq_connect(struct irq_pin *p, struct irq_line *line);

/* Drive the pin. The line's fn is called when the line's level changes. */
void irq_set(struct irq_pin *p, bool level);

/* High, then low: for edge-triggered inputs. */
void irq_pulse(struct irq_pin *p);

/* Tell the controller the line's level again (it was reset or loaded). */
void irq_line_sync(struct irq_line *l);
