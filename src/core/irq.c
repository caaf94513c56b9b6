/* See irq.h. */
#include "core/irq.h"

#include <stddef.h>

void irq_line_init(struct irq_line *l, void (*fn)(void *opaque, unsigned n, bool level),
		   void *opaque, unsigned n)
{
	*l = (struct irq_line){ .fn = fn, .opaque = opaque, .n = n };
}

void irq_line_sync(struct irq_line *l)
{
	if (l->fn)
		l->fn(l->opaque, l->n, l->high > 0);
}

static void irq_line_count(struct irq_line *l, bool up)
{
	bool was = l->high > 0;

	l->high += up ? 1 : -1u;
	if (was != (l->high > 0))
		irq_line_sync(l);
}

void irq_connect(struct irq_pin *p, struct irq_line *line)
{
	if (p->line && p->level)
		irq_line_count(p->line, false);
	p->line = line;
	if (line && p->level)
		irq_line_count(line, true);
}

void irq_set(struct irq_pin *p, bool level)
{
	if (p->level == level)
		return;
	p->level = level;
	if (p->line)
		irq_line_count(p->line, level);
}

void irq_pulse(struct irq_pin *p)
{
	irq_set(p, true);
	irq_set(p, false);
}
