/* Lockstep of translated code and interpreter: comparing, and what is said of a difference. */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/jit/check_int.h"
#include "kvm/x86/jit/trace.h"

/* ---- Comparing ------------------------------------------------------------------------------- */

static const char *const check_regs[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					  "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					  "r12", "r13", "r14", "r15", "rip" };

/* The first thing said stays. */
static __attribute__((format(printf, 2, 3))) bool check_say(struct jit_check *c, const char *fmt,
							    ...)
{
	va_list ap;

	if (!c->what[0]) {
		va_start(ap, fmt);
		vsnprintf(c->what, sizeof(c->what), fmt, ap);
		va_end(ap);
	}
	return false;
}

static bool check_xsave(struct jit_check *c)
{
	const uint8_t *a = c->interp.xsave, *b = c->trans.xsave;
	unsigned at = 0;

	if (!memcmp(a, b, CHECK_XSAVE))
		return true;
	while (a[at] == b[at])
		at++;
	if (at >= FX_XMM && at < FX_XMM + 256)
		return check_say(c, "xmm%u", (at - FX_XMM) / 16);
	if (at >= XS_YMMH)
		return check_say(c, "ymm%u, upper half", (at - XS_YMMH) / 16);
	if (at >= 24 && at < 28)
		return check_say(c, "MXCSR");
	return check_say(c, "x87 state or header, XSAVE offset %u", at);
}

static bool check_is_logged(const struct jit_check *c, const uint8_t *p)
{
	for (unsigned n = 0; n < c->nw; n++)
		if (p - c->w[n].host >= 0 && p - c->w[n].host < c->w[n].len)
			return true;
	return false;
}

/* Bytes of the pages written; those that nobody should have written are put back. */
static bool check_pages(struct jit_check *c)
{
	bool same = true;

	for (unsigned n = 0; n < c->npage; n++) {
		uint8_t *p = c->page[n].host;
		const uint8_t *want = c->page[n].old;

		if (likely(!memcmp(p, want, PAGE_SIZE)))
			continue;
		for (unsigned k = 0; k < PAGE_SIZE; k++) {
			if (p[k] == want[k])
				continue;
			if (check_is_logged(c, p + k)) {
				check_say(c, "byte %#x of a page written is %02x, not %02x", k,
					  p[k], want[k]);
				same = false;
				continue;
			}
			check_say(c, "byte %#x of a page, not to be written, is %02x, not %02x", k,
				  p[k], want[k]);
			same = false;
			if (c->nodd < CHECK_ODD) {
				c->odd[c->nodd++] = (struct check_odd){ p + k, want[k], p[k] };
				p[k] = want[k];
			}
		}
	}
	for (unsigned n = 0; same && n < c->nw; n++)
		if (memcmp(c->w[n].host, c->new + c->w[n].at, c->w[n].len))
			same = check_say(c, "memory written");
	return same;
}

static bool check_state_same(struct jit_check *c, unsigned flags, bool fpu)
{
	const struct check_state *a = &c->interp, *b = &c->trans;
	uint16_t fl = (uint16_t)((a->fl ^ b->fl) & check_fl(flags));

	if (a->end != b->end)
		return check_say(c, "%s",
				 b->end == CHECK_THREW     ? "throws an exception"
				 : b->end == CHECK_STOPPED ? "does I/O"
							   : "does not throw an exception");
	for (unsigned n = 0; n < ARRAY_SIZE(check_regs); n++)
		if (a->r[n] != b->r[n])
			return check_say(c, "%s", check_regs[n]);
	if (b->r[REG_ZERO])
		return check_say(c, "the register that is always zero");
	if (fl)
		return check_say(c, "flags%s%s%s%s%s%s", fl & FL_O ? " OF" : "",
				 fl & FL_S ? " SF" : "", fl & FL_Z ? " ZF" : "",
				 fl & FL_A ? " AF" : "", fl & FL_P ? " PF" : "",
				 fl & FL_C ? " CF" : "");
	if (a->rflags != b->rflags)
		return check_say(c, "system flags");
	if (a->end == CHECK_THREW &&
	    (a->exc_vec != b->exc_vec || a->exc_has_error != b->exc_has_error ||
	     (a->exc_has_error && a->exc_error != b->exc_error)))
		return check_say(c, "the exception");
	if (a->cr2 != b->cr2)
		return check_say(c, "cr2");
	return !fpu || check_xsave(c);
}

bool jit_check_same(struct jit_check *c, unsigned flags, bool fpu)
{
	bool state;

	c->what[0] = 0;
	state = check_state_same(c, flags, fpu);
	return check_pages(c) && state; /* both: bytes are put back */
}

/* ---- Reporting ------------------------------------------------------------------------------- */

static void check_hex(const uint8_t *p, size_t n, char *s, size_t cap)
{
	size_t at = 0;

	*s = 0;
	for (size_t k = 0; k < n && at + 3 < cap; k++)
		at += (size_t)snprintf(s + at, cap - at, "%02x", p[k]);
}

void jit_check_report(struct vcpu *v, const struct jit_block *jb)
{
	const struct jit_check *c = v->jitp->check;
	gva_t rip = c->start.r[REG_RIP];
	char s[160], t[96];

	log_err("translator check: %s %#llx: %s (%llu blocks compared before)",
		jb->trace ? "trace" : "block", (unsigned long long)rip, c->what,
		(unsigned long long)c->stat.blocks);
	for (unsigned n = 0; n < jb->n; n++) {
		if (jb->trace)
			rip = jb->trace->rip[n] + (c->start.r[REG_RIP] - jb->la);
		insn_format(&jb->insns[n], DECODE_64, rip, s, sizeof(s));
		log_err("  %16llx  %s%s", (unsigned long long)rip, s,
			jb->trace && n + 1 == c->interp.done ? "  <- the last to run" : "");
		rip += jb->insns[n].len;
	}
	log_err("  %-8s %16s %16s %16s", "", "before", "interpreter", "translator");
	for (unsigned n = 0; n < ARRAY_SIZE(check_regs); n++)
		log_err("  %-8s %16llx %16llx %16llx%s", check_regs[n],
			(unsigned long long)c->start.r[n], (unsigned long long)c->interp.r[n],
			(unsigned long long)c->trans.r[n],
			c->interp.r[n] != c->trans.r[n] ? " *" : "");
	log_err("  %-8s %16x %16x %16x  (SF ZF - AF - PF - CF in bits 15-8, OF in 0)", "fl",
		c->start.fl, c->interp.fl, c->trans.fl);
	log_err("  %-8s %16x %16x %16x", "rflags", c->start.rflags, c->interp.rflags,
		c->trans.rflags);
	log_err("  %-8s %16llx %16llx %16llx", "cr2", (unsigned long long)c->start.cr2,
		(unsigned long long)c->interp.cr2, (unsigned long long)c->trans.cr2);
	if (c->interp.exc || c->trans.exc)
		log_err("  %-8s %16s %13u/%02x %13u/%02x", "#", "",
			c->interp.exc ? c->interp.exc_vec : 0, c->interp.exc_error,
			c->trans.exc ? c->trans.exc_vec : 0, c->trans.exc_error);
	for (unsigned n = 0; jb->fpu && n < CHECK_XSAVE; n += 16)
		if (memcmp(c->interp.xsave + n, c->trans.xsave + n, 16)) {
			check_hex(c->interp.xsave + n, 16, s, sizeof(s));
			check_hex(c->trans.xsave + n, 16, t, sizeof(t));
			log_err("  xsave+%-3u interpreter %s translator %s", n, s, t);
		}
	for (unsigned n = 0; n < c->nw; n++) {
		uint32_t len = MIN(c->w[n].len, 32u), at = c->w[n].at;

		check_hex(c->new + at, len, s, sizeof(s));
		check_hex(c->got + at, len, t, sizeof(t));
		log_err("  written, page +%#-5llx: interpreter %s translator %s%s",
			(unsigned long long)((uintptr_t)c->w[n].host & ~PAGE_MASK), s, t,
			memcmp(c->new + at, c->got + at, c->w[n].len) ? " *" : "");
	}
	for (uint32_t at = 0; at < jb->size; at += 32) {
		check_hex(v->jitp->rw + jb->entry_mem + at, MIN(jb->size - at, 32u), s, sizeof(s));
		log_err("  host %llx: %s",
			(unsigned long long)(uintptr_t)(v->jitp->rx + jb->entry_mem + at), s);
	}
}
