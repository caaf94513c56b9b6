/*
 * apidiff: the KVM API of the host and of the software engine, request by request. See apidiff.h.
 *
 * Prints TAP: a case is good when both engines say the same, except where ad_known tells why not.
 * "apidiff -v" shows all lines. Skipped where there is no host engine.
 *
 * References: [KVM-API]. Threads: main's.
 */
#include "apidiff.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

/* Patterns of fnmatch(3): case, label, and why the engines differ. */
static const struct ad_known {
	const char *name, *label, *why;
} ad_known[] = {
#define KNOWN(name, label, why) { name, label, why },
#include "apidiff_known.def"
#undef KNOWN
};

void ad_say(struct ad_world *w, const char *label, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (w->lines == AD_LINES)
		return;
	n = snprintf(w->log[w->lines], AD_LINE, "%s: ", label);
	va_start(ap, fmt);
	vsnprintf(w->log[w->lines] + n, (size_t)(AD_LINE - n), fmt, ap);
	va_end(ap);
	w->lines++;
}

void ad_ret(struct ad_world *w, const char *label, int r)
{
	if (r < 0)
		ad_say(w, label, "%s", strerrorname_np(-r));
	else
		ad_say(w, label, "%d", r);
}

static struct libkvm_vcpu *volatile ad_running;

static void ad_alarm(int sig)
{
	(void)sig;
	if (ad_running)
		libkvm_vcpu_kick(ad_running);
}

int ad_run(struct ad_world *w)
{
	const struct itimerval limit = { .it_value = { .tv_sec = 1 } }, none = { 0 };
	int r;

	ad_running = w->cpu;
	setitimer(ITIMER_REAL, &limit, NULL);
	r = libkvm_vcpu_run(w->cpu);
	setitimer(ITIMER_REAL, &none, NULL);
	ad_running = NULL;
	return r;
}

static bool ad_open(struct ad_world *w, unsigned flags)
{
	struct libkvm_err e = { 0 };
	struct kvm_cpuid2 *t;
	struct kvm_sregs s;
	struct kvm_regs r = { .rip = AD_CODE, .rflags = 2, .rsp = 0x8000 };

	w->lines = 0;
	w->vm = NULL;
	w->cpu = NULL;
	w->ram = mmap(NULL, AD_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w->ram == MAP_FAILED || libkvm_vm_create(w->k, &w->vm, &e))
		return false;
	if (flags & AD_IRQCHIP && libkvm_irqchip_create(w->vm))
		return false;
	if (flags & AD_NO_VCPU)
		return true;
	if (libkvm_mem_add(w->vm, 0, AD_RAM, w->ram, 0) ||
	    libkvm_vcpu_create(w->vm, 0, &w->cpu, &e))
		return false;
	w->run = libkvm_vcpu_run_area(w->cpu);
	if (flags & AD_CPUID && !libkvm_supported_cpuid(w->k, &t)) {
		libkvm_set_cpuid(w->cpu, t);
		free(t);
	}
	libkvm_get_sregs(w->cpu, &s);
	s.cs.base = 0;
	s.cs.selector = 0;
	return !libkvm_set_sregs(w->cpu, &s) && !libkvm_set_regs(w->cpu, &r);
}

static void ad_close(struct ad_world *w)
{
	libkvm_vcpu_close(w->cpu);
	libkvm_vm_close(w->vm);
	munmap(w->ram, AD_RAM);
}

/* A pattern with a colon is about the whole line, another about the label. */
static const char *ad_why(const char *name, const char *line)
{
	char label[AD_LINE];

	snprintf(label, sizeof(label), "%.*s", (int)strcspn(line, ":"), line);
	for (size_t i = 0; i < sizeof(ad_known) / sizeof(ad_known[0]); i++) {
		const struct ad_known *k = &ad_known[i];

		if (!fnmatch(k->name, name, 0) &&
		    !fnmatch(k->label, strchr(k->label, ':') ? line : label, 0))
			return k->why;
	}
	return NULL;
}

/* A line that only one engine has: is it known? */
static bool ad_line(const char *name, const char *engine, const char *line)
{
	const char *why = ad_why(name, line);

	printf("# %s: %s%s: %s%s%s\n", name, why ? "known, " : "", engine, line,
	       why ? "; " : "  <--", why ? why : "");
	return why != NULL;
}

/* What both have in the same order is left out: the longest common subsequence. */
static bool ad_compare(const char *name, const struct ad_world *a, const struct ad_world *b)
{
	uint16_t(*len)[AD_LINES + 1] = calloc(a->lines + 1, sizeof(*len));
	unsigned i = 0, j = 0;
	bool good = true;

	if (!len)
		return false;
	for (unsigned x = a->lines; x-- > 0;)
		for (unsigned y = b->lines; y-- > 0;)
			len[x][y] = !strcmp(a->log[x], b->log[y])
					    ? (uint16_t)(len[x + 1][y + 1] + 1)
				    : len[x + 1][y] > len[x][y + 1] ? len[x + 1][y]
								    : len[x][y + 1];
	while (i < a->lines || j < b->lines) {
		if (i < a->lines && j < b->lines && !strcmp(a->log[i], b->log[j])) {
			i++;
			j++;
		} else if (j == b->lines || (i < a->lines && len[i + 1][j] >= len[i][j + 1])) {
			good &= ad_line(name, "kvm", a->log[i++]);
		} else {
			good &= ad_line(name, "soft", b->log[j++]);
		}
	}
	free(len);
	return good;
}

static unsigned ad_number;

static void ad_cases(const struct ad_case *c, struct ad_world w[2], bool verbose, const char *only)
{
	for (; c->name; c++) {
		bool good = true;

		ad_number++;
		if (only && !strstr(c->name, only)) {
			printf("ok %u - %s # SKIP\n", ad_number, c->name);
			continue;
		}
		for (int i = 0; i < 2; i++) {
			if (ad_open(&w[i], c->flags))
				c->go(&w[i]);
			else
				ad_say(&w[i], "set-up", "failed on engine %d", i);
			ad_close(&w[i]);
		}
		for (unsigned i = 0; verbose && i < w[0].lines; i++)
			printf("# kvm: %s\n", w[0].log[i]);
		good = ad_compare(c->name, &w[0], &w[1]);
		printf("%s %u - %s\n", good ? "ok" : "not ok", ad_number, c->name);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	const struct libkvm_options host = { .engine = LIBKVM_HOST },
				    soft = { .engine = LIBKVM_SOFT };
	bool verbose = argc > 1 && !strcmp(argv[1], "-v");
	const char *only = argc > 1 + verbose ? argv[1 + verbose] : NULL;
	struct ad_world w[2] = { 0 };
	struct libkvm_err e = { 0 };
	unsigned n = 0;

	for (const struct ad_case *c = ad_ioctl_cases; c->name; c++)
		n++;
	for (const struct ad_case *c = ad_run_cases; c->name; c++)
		n++;
	if (libkvm_open(&host, &w[0].k, &e) || libkvm_open(&soft, &w[1].k, &e)) {
		printf("1..0 # SKIP %s\n", e.msg);
		return 77;
	}
	for (int i = 0; i < 2; i++) {
		w[i].log = calloc(AD_LINES, AD_LINE);
		if (!w[i].log)
			return 1;
	}
	signal(SIGALRM, ad_alarm);
	printf("1..%u\n", n);
	ad_cases(ad_ioctl_cases, w, verbose, only);
	ad_cases(ad_run_cases, w, verbose, only);
	for (int i = 0; i < 2; i++) {
		libkvm_close(w[i].k);
		free(w[i].log);
	}
	return 0;
}
