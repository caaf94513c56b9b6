/*
 * Options about logs and traces: -d, -dfilter; see options.h.
 * References: [QEMU-MAN] for the items and the form of ranges.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "main/keyval.h"
#include "main/options.h"

/* What of QEMU's -d is not here. A device of such a name would have to be traced by a pattern. */
static const struct {
	const char *name, *why;
} log_absent[] = {
	{ "op", "the translator has no intermediate code; in_asm and out_asm exist" },
	{ "op_opt", "the translator has no intermediate code; in_asm and out_asm exist" },
	{ "op_ind", "the translator has no intermediate code; in_asm and out_asm exist" },
	{ "op_plugin", "there are no plugins" },
	{ "plugin", "there are no plugins" },
	{ "int", "interrupts are not logged" },
	{ "exec", "-accel soft,jit-profile=on with -d jit counts executions" },
	{ "cpu", "processor state is not logged; -accel soft,check=on compares it" },
	{ "fpu", "processor state is not logged; -accel soft,check=on compares it" },
	{ "vpu", "processor state is not logged; -accel soft,check=on compares it" },
	{ "mmu", "the MMU is not logged" },
	{ "page", "the MMU is not logged" },
	{ "pcall", "calls through gates are not logged" },
	{ "cpu_reset", "processor state is not logged; info tells of resets" },
	{ "unimp", "a pattern of device names, as -d '*', shows what a guest gets wrong" },
	{ "guest_errors", "a pattern of device names, as -d '*', shows what a guest gets wrong" },
	{ "invalid_mem", "-d bus shows accesses that no device takes" },
	{ "nochain", "jumps are always linked" },
	{ "tid", "there is one log" },
	{ "strace", "that is for user programs" },
	{ "all", "-d '*' is all devices; -d help lists the items" },
};

static void log_help(FILE *out)
{
	fprintf(out, "Items, separated by commas:\n"
		     "in_asm   guest code of each block as it is translated\n"
		     "out_asm  host code made of it\n"
		     "jit      what the translator has done, printed at the end; SIGUSR1 prints it "
		     "at any time\n"
		     "         (with -accel soft,jit-profile=on the hottest blocks, too)\n"
		     "info     which engine and why, resets and their cause\n"
		     "NAME     events of a device: an id of -device, or a class name. Patterns as "
		     "in the\n"
		     "         shell: serial0, serial*, bus, *\n"
		     "Output goes to standard error, or to the file of -D. -dfilter limits in_asm "
		     "and out_asm.\n");
}

static int log_item(struct options *o, const char *item, struct err *e)
{
	char *kept;

	if (!strcmp(item, "info")) {
		log_set_level(LOG_INFO);
		return 0;
	}
	if (!strcmp(item, "jit")) {
		o->cfg.jit_info = true;
		return 0;
	}
	if (!strcmp(item, "in_asm") || !strcmp(item, "out_asm")) {
		o->cfg.jit_log |= *item == 'i' ? LIBKVM_LOG_IN_ASM : LIBKVM_LOG_OUT_ASM;
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(log_absent); i++)
		if (!strcmp(item, log_absent[i].name))
			return err_set(e, ENOTSUP, "-d %s is not supported: %s", item,
				       log_absent[i].why);
	if (!strncmp(item, "trace:", 6))
		return err_set(e, ENOTSUP, "-d %s is not supported: give a device's name alone",
			       item);
	if (o->cfg.ntraces == CONFIG_TRACES)
		return err_set(e, E2BIG, "-d: more than %d patterns", CONFIG_TRACES);
	kept = options_keep(o, item, e);
	if (!kept)
		return -ENOMEM;
	o->cfg.trace[o->cfg.ntraces++] = kept;
	return 0;
}

int options_d(struct options *o, const char *arg, struct err *e)
{
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		log_help(o->out);
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-d", arg, NULL, e);
	for (unsigned i = 0; i < k.n && r == 0; i++)
		r = log_item(o, k.kv[i].key, e);
	keyval_free(&k);
	return r;
}

/* A number of C's forms; *end behind it, or NULL when there is none. */
static uint64_t log_number(const char *s, const char **end)
{
	unsigned long long v;
	char *stop;

	*end = NULL;
	if (*s < '0' || *s > '9') /* strtoull takes blanks and signs */
		return 0;
	errno = 0;
	v = strtoull(s, &stop, 0);
	if (!errno)
		*end = stop;
	return v;
}

/* A..B, A+LEN, A-LEN (the LEN bytes up to A), and nothing after it. */
static bool log_range(const char *s, struct libkvm_range *x)
{
	uint64_t a, b;
	char how;

	a = log_number(s, &s);
	if (!s)
		return false;
	how = *s;
	if (how == '.' && s[1] == '.')
		s += 2;
	else if (how == '+' || how == '-')
		s++;
	else
		return false;
	b = log_number(s, &s);
	if (!s || *s)
		return false;
	if (how == '.') {
		*x = (struct libkvm_range){ a, b };
		return a <= b;
	}
	if (b == 0 || (how == '+' ? a + (b - 1) < a : b - 1 > a))
		return false;
	*x = how == '+' ? (struct libkvm_range){ a, a + (b - 1) }
			: (struct libkvm_range){ a - (b - 1), a };
	return true;
}

int options_dfilter(struct options *o, const char *arg, struct err *e)
{
	struct keyval k;
	int r = keyval_parse(&k, "-dfilter", arg, NULL, e);

	for (unsigned i = 0; i < k.n && r == 0; i++) {
		struct libkvm_range x;

		if (!log_range(k.kv[i].key, &x))
			r = err_set(e, EINVAL,
				    "-dfilter %s: a range looks like 0x1000..0x1fff, 0x1000+0x200 "
				    "or 0x1fff-0x200",
				    k.kv[i].key);
		else if (o->cfg.jit_log_ranges == LIBKVM_LOG_RANGES)
			r = err_set(e, E2BIG, "-dfilter: more than %d ranges", LIBKVM_LOG_RANGES);
		else
			o->cfg.jit_log_range[o->cfg.jit_log_ranges++] = x;
	}
	keyval_free(&k);
	return r;
}

int options_log_check(const struct options *o, struct err *e)
{
	const struct machine_config *c = &o->cfg;
	const char *what = c->jit_log & LIBKVM_LOG_IN_ASM    ? "-d in_asm"
			   : c->jit_log & LIBKVM_LOG_OUT_ASM ? "-d out_asm"
			   : c->jit_profile                  ? "-accel jit-profile=on"
			   : c->jit_perf_map                 ? "-perfmap"
							     : NULL;

	if (what && c->no_jit)
		return err_set(e, EINVAL, "%s is about the translator, which jit=off leaves out",
			       what);
	if (what && c->engine == LIBKVM_HOST)
		return err_set(e, EINVAL,
			       "%s is about the translator; -accel soft has one, -accel kvm does "
			       "not",
			       what);
	return 0;
}
