/*
 * Cases about running: exits, their fields, registers at exits, injection, debugging, dirty pages.
 *
 * Each guest is a few bytes of real-mode code at 1000h; DS is 0, ES begins at the MMIO hole, FS one
 * byte before the end of RAM where ad_far puts it.
 * References: [KVM-API 5]. Threads: main's.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "apidiff.h"

#define CODE(...) ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

/* ES reaches the hole behind RAM, FS its last byte. */
static void ad_segments(struct ad_world *w)
{
	struct kvm_sregs s;

	libkvm_get_sregs(w->cpu, &s);
	s.es.base = AD_MMIO;
	s.fs.base = AD_RAM - 0x1000;
	libkvm_set_sregs(w->cpu, &s);
}

static void ad_regs(struct ad_world *w, const char *what)
{
	struct kvm_regs r;

	libkvm_get_regs(w->cpu, &r);
	ad_say(w, what, "rip %llx ax %llx cx %llx si %llx di %llx sp %llx fl %llx",
	       (unsigned long long)r.rip, (unsigned long long)r.rax, (unsigned long long)r.rcx,
	       (unsigned long long)r.rsi, (unsigned long long)r.rdi, (unsigned long long)r.rsp,
	       (unsigned long long)r.rflags);
}

/* The exit's own fields; reads are answered with 11 12 13... */
static void ad_exit(struct ad_world *w, int r)
{
	struct kvm_run *run = w->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;
	char hex[64] = "";

	if (r) {
		ad_ret(w, "run", r);
		return;
	}
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		for (unsigned i = 0; i < (unsigned)run->io.size * run->io.count && i < 16; i++)
			if (run->io.direction)
				snprintf(hex + 2 * i, 3, "%02x", p[i]);
			else
				p[i] = (uint8_t)(0x11 + i);
		ad_say(w, "io", "%s %x size %u count %u %s", run->io.direction ? "out" : "in",
		       run->io.port, run->io.size, run->io.count, hex);
		break;
	case KVM_EXIT_MMIO:
		for (unsigned i = 0; i < run->mmio.len && i < 8; i++)
			if (run->mmio.is_write)
				snprintf(hex + 2 * i, 3, "%02x", run->mmio.data[i]);
			else
				run->mmio.data[i] = (uint8_t)(0x11 + i);
		ad_say(w, "mmio", "%s %llx len %u %s", run->mmio.is_write ? "write" : "read",
		       (unsigned long long)run->mmio.phys_addr, run->mmio.len, hex);
		break;
	case KVM_EXIT_DEBUG:
		ad_say(w, "debug", "exception %u pc %llx dr6 %llx dr7 %llx",
		       run->debug.arch.exception, (unsigned long long)run->debug.arch.pc,
		       (unsigned long long)run->debug.arch.dr6,
		       (unsigned long long)run->debug.arch.dr7);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		ad_say(w, "internal error", "%u", run->internal.suberror);
		break;
	default: ad_say(w, "exit", "%u", run->exit_reason);
	}
	ad_say(w, "after exit", "if %d ready %d flags %x cr8 %llx apic %llx", run->if_flag,
	       run->ready_for_interrupt_injection, run->flags, (unsigned long long)run->cr8,
	       (unsigned long long)run->apic_base);
}

/* Run to an exit that is no access, at most max exits, registers at each. */
static void ad_go(struct ad_world *w, unsigned max)
{
	for (unsigned i = 0; i < max; i++) {
		int r = ad_run(w);

		bool access = !r && (w->run->exit_reason == KVM_EXIT_IO ||
				     w->run->exit_reason == KVM_EXIT_MMIO);

		ad_exit(w, r);
		ad_regs(w, access ? "regs at access" : "regs");
		if (r ||
		    (w->run->exit_reason != KVM_EXIT_IO && w->run->exit_reason != KVM_EXIT_MMIO &&
		     w->run->exit_reason != KVM_EXIT_DEBUG))
			return;
	}
}

static void ad_set(struct ad_world *w, const struct kvm_regs *more)
{
	struct kvm_regs r = { .rip = AD_CODE, .rflags = 2, .rsp = 0x8000 };

	if (more) {
		r = *more;
		r.rip = r.rip ? r.rip : AD_CODE;
		r.rflags |= 2;
		r.rsp = r.rsp ? r.rsp : 0x8000;
	}
	libkvm_set_regs(w->cpu, &r);
}

/* A list of little guests, each ended by HLT. */
struct ad_guest {
	const char *label;
	const uint8_t *code;
	size_t len;
	struct kvm_regs r;
};

static void ad_guests(struct ad_world *w, const struct ad_guest *g, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct kvm_sregs s;

		ad_say(w, g[i].label, "begins");
		libkvm_get_sregs(w->cpu, &s);
		memset(w->ram + 0x2000, 0xa5, 64);
		memset(w->ram + AD_RAM - 16, 0x5a, 16);
		memcpy(w->ram + AD_CODE, g[i].code, g[i].len);
		w->ram[AD_CODE + g[i].len] = 0xf4;
		libkvm_mem_written(w->vm, 0, AD_RAM);
		ad_set(w, &g[i].r);
		ad_go(w, 40);
		ad_say(w, "memory", "%02x%02x%02x%02x %02x%02x%02x%02x end %02x%02x",
		       w->ram[0x2000], w->ram[0x2001], w->ram[0x2002], w->ram[0x2003],
		       w->ram[0x2004], w->ram[0x2005], w->ram[0x2006], w->ram[0x2007],
		       w->ram[AD_RAM - 2], w->ram[AD_RAM - 1]);
	}
}

static void ad_pio(struct ad_world *w)
{
	const struct ad_guest g[] = {
		{ "out imm al", CODE(0xe6, 0x42), { .rax = 0x12345678 } },
		{ "out imm ax", CODE(0xe7, 0x42), { .rax = 0x12345678 } },
		{ "out imm eax", CODE(0x66, 0xe7, 0x42), { .rax = 0x12345678 } },
		{ "out dx al", CODE(0xee), { .rax = 0x12345678, .rdx = 0x1234 } },
		{ "out at the end", CODE(0x66, 0xef), { .rax = 0x12345678, .rdx = 0xffff } },
		{ "out 7e", CODE(0xe6, 0x7e), { .rax = 1 } },
		{ "in imm al", CODE(0xe4, 0x42), { .rax = 0xaabbccddeeff } },
		{ "in ax", CODE(0xed), { .rax = 0xaabbccddeeff, .rdx = 0x99 } },
		{ "in eax", CODE(0x66, 0xed), { .rax = 0xaabbccddeeff, .rdx = 0x99 } },
		{ "outsb", CODE(0x6e), { .rsi = 0x2000, .rdx = 0x99 } },
		{ "outsb down", CODE(0x6e), { .rsi = 0x2000, .rdx = 0x99, .rflags = 0x400 } },
		{ "rep outsb", CODE(0xf3, 0x6e), { .rsi = 0x2000, .rdx = 0x99, .rcx = 3 } },
		{ "rep outsw none", CODE(0xf3, 0x6f), { .rsi = 0x2000, .rdx = 0x99 } },
		{ "insb", CODE(0x6c), { .rdi = 0x3000, .rdx = 0x99 } },
		{ "rep outsd mmio",
		  CODE(0x26, 0x66, 0xf3, 0x6f),
		  { .rsi = 0, .rdx = 0x99, .rcx = 2 } },
	};

	ad_segments(w);
	ad_guests(w, g, sizeof(g) / sizeof(g[0]));
}

static void ad_ins(struct ad_world *w)
{
	const struct ad_guest g[] = {
		{ "insb", CODE(0x6c), { .rdi = 0x2000, .rdx = 0x99 } },
		{ "rep insb", CODE(0xf3, 0x6c), { .rdi = 0x2000, .rdx = 0x99, .rcx = 5 } },
		{ "rep insd", CODE(0x66, 0xf3, 0x6d), { .rdi = 0x2000, .rdx = 0x99, .rcx = 2 } },
		{ "rep insw down",
		  CODE(0xf3, 0x6d),
		  { .rdi = 0x2004, .rdx = 0x99, .rcx = 2, .rflags = 0x400 } },
		{ "rep insb at the end of a page",
		  CODE(0xf3, 0x6c),
		  { .rdi = 0x2ffe, .rdx = 0x99, .rcx = 4 } },
	};

	ad_guests(w, g, sizeof(g) / sizeof(g[0])); /* ES is 0 */
}

static void ad_mmio(struct ad_world *w)
{
	const struct ad_guest g[] = {
		{ "read al", CODE(0x26, 0xa0, 0x10, 0x00), { .rax = 0xaabbccddeeff } },
		{ "read eax", CODE(0x66, 0x26, 0xa1, 0x10, 0x00), { .rax = 0xaabbccddeeff } },
		{ "write al", CODE(0x26, 0xa2, 0x10, 0x00), { .rax = 0x12345678 } },
		{ "write ax odd", CODE(0x26, 0xa3, 0x11, 0x00), { .rax = 0x12345678 } },
		{ "write eax over a page",
		  CODE(0x66, 0x26, 0xa3, 0xfe, 0x0f),
		  { .rax = 0x12345678 } },
		{ "read eax over a page", CODE(0x66, 0x26, 0xa1, 0xfd, 0x0f), { 0 } },
		{ "write eax from ram to hole",
		  CODE(0x66, 0x64, 0xa3, 0xfe, 0x0f),
		  { .rax = 0x12345678 } },
		{ "read eax from ram to hole", CODE(0x66, 0x64, 0xa1, 0xfe, 0x0f), { 0 } },
		{ "mov imm", CODE(0x26, 0xc7, 0x06, 0x20, 0x00, 0x34, 0x12), { 0 } },
		{ "add to", CODE(0x26, 0x00, 0x06, 0x20, 0x00), { .rax = 5 } },
		{ "add from", CODE(0x26, 0x02, 0x06, 0x20, 0x00), { .rax = 5 } },
		{ "xchg", CODE(0x26, 0x87, 0x06, 0x20, 0x00), { .rax = 0x55aa } },
		{ "lock inc", CODE(0xf0, 0x26, 0xff, 0x06, 0x20, 0x00), { 0 } },
		{ "cmp", CODE(0x26, 0x83, 0x3e, 0x20, 0x00, 0x11), { 0 } },
		{ "test", CODE(0x26, 0xf6, 0x06, 0x20, 0x00, 0x11), { 0 } },
		{ "push", CODE(0x26, 0xff, 0x36, 0x20, 0x00), { 0 } },
		{ "pop", CODE(0x26, 0x8f, 0x06, 0x20, 0x00), { .rsp = 0x2000 } },
		{ "movzx", CODE(0x26, 0x0f, 0xb6, 0x06, 0x20, 0x00), { .rax = ~0ull } },
		{ "bts", CODE(0x26, 0x0f, 0xba, 0x2e, 0x20, 0x00, 0x01), { 0 } },
		{ "stosb", CODE(0xaa), { .rax = 0x77, .rdi = 4 } },
		{ "rep stosw", CODE(0xf3, 0xab), { .rax = 0x7788, .rdi = 4, .rcx = 2 } },
		{ "movsb to", CODE(0xa4), { .rsi = 0x2000, .rdi = 8 } },
		{ "rep movsb to", CODE(0xf3, 0xa4), { .rsi = 0x2000, .rdi = 8, .rcx = 2 } },
		{ "movsw in the hole", CODE(0x26, 0xa5), { .rsi = 0x20, .rdi = 8 } },
		{ "rep movsw over a page",
		  CODE(0x26, 0xf3, 0xa5),
		  { .rsi = 0xffe, .rdi = 9, .rcx = 2 } },
		{ "lodsb", CODE(0x26, 0xac), { .rsi = 0x20 } },
		{ "scasb", CODE(0xae), { .rdi = 0x20, .rax = 0x11 } },
		{ "fnstcw", CODE(0x26, 0xd9, 0x3e, 0x20, 0x00), { 0 } },
		{ "cmpxchg",
		  CODE(0x26, 0x0f, 0xb1, 0x0e, 0x20, 0x00),
		  { .rax = 0x1211, .rcx = 0x9876 } },
		{ "xadd", CODE(0x26, 0x0f, 0xc1, 0x0e, 0x20, 0x00), { .rcx = 0x9876 } },
		{ "call", CODE(0x26, 0xff, 0x16, 0x20, 0x00), { 0 } },
	};

	ad_segments(w);
	w->ram[0x1211] = 0xf4; /* where that call goes */
	ad_guests(w, g, sizeof(g) / sizeof(g[0]));
}

static void ad_fetch(struct ad_world *w)
{
	struct kvm_regs r = { .rip = 0, .rflags = 2, .rsp = 0x8000 };
	struct kvm_sregs s;

	libkvm_get_sregs(w->cpu, &s);
	s.cs.base = AD_MMIO;
	libkvm_set_sregs(w->cpu, &s);
	libkvm_set_regs(w->cpu, &r);
	ad_go(w, 3);
}

static void ad_immediate(struct ad_world *w)
{
	static const uint8_t code[] = { 0xe6, 0x42, 0x90, 0xe4, 0x43, 0x40, 0xe6, 0x44, 0xf4 };
	struct kvm_regs r;

	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	for (unsigned i = 0; i < 4; i++) {
		w->run->immediate_exit = 1;
		ad_ret(w, "immediate", ad_run(w));
		ad_regs(w, "then");
		w->run->immediate_exit = 0;
		ad_exit(w, ad_run(w));
		ad_regs(w, "regs");
	}
	/* in the middle of an access: other registers, and a RIP as it was or another one */
	for (unsigned i = 0; i < 4; i++) {
		ad_set(w, &(struct kvm_regs){ .rip = i & 1 ? AD_CODE + 3 : AD_CODE });
		ad_exit(w, ad_run(w));
		libkvm_get_regs(w->cpu, &r);
		r.rbx = 0x77;
		r.rax = 0x1000;
		r.rip = i & 2 ? AD_CODE + 5 : r.rip;
		libkvm_set_regs(w->cpu, &r);
		w->run->immediate_exit = 1;
		ad_ret(w, "set, immediate", ad_run(w));
		w->run->immediate_exit = 0;
		ad_regs(w, "set regs");
		ad_go(w, 4);
	}
}

static void ad_kick(struct ad_world *w)
{
	static const uint8_t code[] = { 0xeb, 0xfe };

	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	for (unsigned i = 0; i < 3; i++) {
		libkvm_vcpu_kick(w->cpu);
		ad_ret(w, "kicked", ad_run(w));
		ad_say(w, "reason", "%u immediate %u", w->run->exit_reason, w->run->immediate_exit);
	}
}

/* Until HLT, on from each stop; INT3 is skipped, RF set for a breakpoint. */
static void ad_debug(struct ad_world *w, const char *label, uint32_t control, uint64_t dr0,
		     uint64_t dr1, uint64_t dr7)
{
	struct kvm_guest_debug g = { .control = KVM_GUESTDBG_ENABLE | control };
	struct kvm_regs r;

	g.arch.debugreg[0] = dr0;
	g.arch.debugreg[1] = dr1;
	g.arch.debugreg[7] = dr7;
	ad_set(w, NULL);
	ad_ret(w, label, libkvm_vcpu_ioctl(w->cpu, KVM_SET_GUEST_DEBUG, &g));
	for (unsigned n = 0; n < 20; n++) {
		ad_exit(w, ad_run(w));
		ad_regs(w, "regs");
		if (w->run->exit_reason == KVM_EXIT_HLT)
			break;
		if (w->run->exit_reason != KVM_EXIT_DEBUG)
			continue;
		libkvm_get_regs(w->cpu, &r);
		if (w->run->debug.arch.exception == 3)
			r.rip++;
		else if (w->run->debug.arch.dr6 & 15)
			r.rflags |= 1 << 16;
		libkvm_set_regs(w->cpu, &r);
		libkvm_vcpu_ioctl(w->cpu, KVM_SET_GUEST_DEBUG, &g);
	}
}

static void ad_step(struct ad_world *w)
{
	/* mov ax, 1; out 42h, al; in al, 43h; mov [2000h], al; cli; sti; nop; hlt */
	static const uint8_t code[] = { 0xb8, 1, 0,    0xe6, 0x42, 0xe4, 0x43,
					0xa2, 0, 0x20, 0xfa, 0xfb, 0x90, 0xf4 };

	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	ad_debug(w, "step", KVM_GUESTDBG_SINGLESTEP, 0, 0, 0);
	ad_debug(w, "enabled", 0, 0, 0, 0);
}

static void ad_breakpoints(struct ad_world *w)
{
	/* mov ax, 1; out 42h, al; mov [2000h], al; int3; nop; hlt */
	static const uint8_t code[] = { 0xb8, 1, 0, 0xe6, 0x42, 0xa2, 0, 0x20, 0xcc, 0x90, 0xf4 };

	w->ram[3 * 4] = 0x00; /* INT3's handler: IRET at 3000h */
	w->ram[3 * 4 + 1] = 0x30;
	w->ram[0x3000] = 0xcf;
	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	ad_debug(w, "int3", KVM_GUESTDBG_USE_SW_BP, 0, 0, 0);
	ad_debug(w, "execute", KVM_GUESTDBG_USE_HW_BP, AD_CODE + 5, 0, 0x402);
	ad_debug(w, "write", KVM_GUESTDBG_USE_HW_BP, 0, 0x2000, 0x10040c);
	ad_debug(w, "step over int3", KVM_GUESTDBG_SINGLESTEP, 0, 0, 0);
}

static void ad_events(struct ad_world *w)
{
	/* sti; hlt; nop; hlt with handlers that say OUT n */
	static const uint8_t code[] = { 0xfb, 0xf4, 0x90, 0xf4 };
	struct kvm_interrupt irq = { .irq = 0x20 };
	struct kvm_vcpu_events v = { 0 };

	for (unsigned i = 0; i < 256; i++) {
		uint8_t *h = w->ram + 0x3000 + 4 * i;

		w->ram[4 * i] = (uint8_t)(4 * i);
		w->ram[4 * i + 1] = (uint8_t)(0x30 + (4 * i >> 8));
		h[0] = 0xe6; /* out i, al */
		h[1] = (uint8_t)i;
		h[2] = 0xcf;
	}
	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	w->run->request_interrupt_window = 1;
	ad_go(w, 1);
	ad_go(w, 1);
	ad_ret(w, "interrupt", libkvm_vcpu_ioctl(w->cpu, KVM_INTERRUPT, &irq));
	ad_ret(w, "a second", libkvm_vcpu_ioctl(w->cpu, KVM_INTERRUPT, &irq));
	w->run->request_interrupt_window = 0;
	libkvm_vcpu_ioctl(w->cpu, KVM_GET_VCPU_EVENTS, &v);
	ad_say(w, "queued", "injected %d nr %x soft %d shadow %d nmi %d %d flags %x",
	       v.interrupt.injected, v.interrupt.nr, v.interrupt.soft, v.interrupt.shadow,
	       v.nmi.injected, v.nmi.pending, v.flags);
	ad_go(w, 4);
	ad_ret(w, "nmi", libkvm_vcpu_ioctl(w->cpu, KVM_NMI, NULL));
	libkvm_vcpu_ioctl(w->cpu, KVM_GET_VCPU_EVENTS, &v);
	ad_say(w, "nmi queued", "%d %d masked %d", v.nmi.injected, v.nmi.pending, v.nmi.masked);
	ad_set(w, &(struct kvm_regs){ .rip = AD_CODE + 2 });
	ad_exit(w, ad_run(w));
	ad_regs(w, "in the nmi");
	libkvm_vcpu_ioctl(w->cpu, KVM_GET_VCPU_EVENTS, &v);
	ad_say(w, "in the nmi", "%d %d masked %d", v.nmi.injected, v.nmi.pending, v.nmi.masked);
	ad_go(w, 4);
	for (uint8_t nr = 0; nr < 20; nr++) {
		if (nr >= 2 && nr <= 4)
			continue; /* NMI; #BP and #OF are soft: KVM on SVM skips an instruction */
		memset(&v, 0, sizeof(v));
		v.exception.injected = 1;
		v.exception.nr = nr;
		ad_ret(w, "exception", libkvm_vcpu_ioctl(w->cpu, KVM_SET_VCPU_EVENTS, &v));
		ad_set(w, &(struct kvm_regs){ .rip = AD_CODE + 2 });
		ad_go(w, 4);
	}
}

static void ad_faults(struct ad_world *w)
{
	const struct ad_guest g[] = {
		{ "cli hlt", CODE(0xfa, 0xf4), { 0 } },
		{ "cpuid", CODE(0x66, 0x31, 0xc0, 0x0f, 0xa2), { 0 } },
		{ "lidt 0, ud2", CODE(0x0f, 0x01, 0x1e, 0x00, 0x20, 0x0f, 0x0b), { 0 } },
	};

	ad_guests(w, g, 2);
	memset(w->ram + 0x2000, 0, 16);
	memcpy(w->ram + AD_CODE, g[2].code, g[2].len);
	libkvm_mem_written(w->vm, 0, AD_RAM);
	ad_set(w, NULL);
	ad_go(w, 2); /* a triple fault */
	ad_ret(w, "run after a shutdown", ad_run(w));
	ad_exit(w, 0);
}

static void ad_readonly(struct ad_world *w)
{
	/* mov [es:10h], al; mov al, [es:10h]; inc word [es:20h] */
	const struct ad_guest g[] = {
		{ "write", CODE(0x26, 0xa2, 0x10, 0x00), { .rax = 0x55 } },
		{ "read", CODE(0x26, 0xa0, 0x10, 0x00), { .rax = 0x55 } },
		{ "inc", CODE(0x26, 0xff, 0x06, 0x20, 0x00), { 0 } },
		{ "rep movsb", CODE(0xf3, 0xa4), { .rsi = 0x2000, .rdi = 8, .rcx = 2 } },
		{ "lock add", CODE(0xf0, 0x26, 0x01, 0x06, 0x20, 0x00), { .rax = 3 } },
		{ "push", CODE(0x06), { .rsp = 0x8000 } },
	};

	ad_ret(w, "slot",
	       libkvm_mem_add(w->vm, AD_MMIO, 0x1000, w->ram + 0x20000, KVM_MEM_READONLY));
	memset(w->ram + 0x20000, 0x3c, 0x1000);
	ad_segments(w);
	ad_guests(w, g, sizeof(g) / sizeof(g[0]));
	ad_say(w, "unchanged", "%x %x", w->ram[0x20010], w->ram[0x20020]);
}

static void ad_dirty(struct ad_world *w)
{
	const struct ad_guest g[] = {
		{ "write two pages", CODE(0x64, 0x66, 0xa3, 0xfe, 0x0f), { .rax = 1 } },
		{ "push", CODE(0x50), { .rsp = 0x8000 } },
		{ "read", CODE(0xa1, 0x00, 0x20), { 0 } },
		{ "cmpxchg that fails", CODE(0x0f, 0xb1, 0x0e, 0x00, 0x20), { .rax = 1 } },
		{ "rep insb", CODE(0xf3, 0x6c), { .rdi = 0x4ffe, .rdx = 0x99, .rcx = 4 } },
	};
	uint64_t map[1];
	struct kvm_sregs s;

	libkvm_get_sregs(w->cpu, &s);
	s.fs.base = 0x8000;
	libkvm_set_sregs(w->cpu, &s);
	ad_ret(w, "log", libkvm_mem_set_flags(w->vm, 0, KVM_MEM_LOG_DIRTY_PAGES));
	for (unsigned i = 0; i < sizeof(g) / sizeof(g[0]); i++) {
		memcpy(w->ram + AD_CODE, g[i].code, g[i].len);
		w->ram[AD_CODE + g[i].len] = 0xf4;
		libkvm_mem_written(w->vm, AD_CODE, 16);
		libkvm_mem_dirty_log(w->vm, 0, map);
		ad_set(w, &g[i].r);
		ad_go(w, 10);
		ad_ret(w, g[i].label, libkvm_mem_dirty_log(w->vm, 0, map));
		ad_say(w, "dirty", "%llx", (unsigned long long)map[0]);
	}
	ad_ret(w, "off", libkvm_mem_set_flags(w->vm, 0, 0));
	ad_ret(w, "log then", libkvm_mem_dirty_log(w->vm, 0, map));
}

static void ad_eventfd(struct ad_world *w)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t match = 7, n;
	const struct ad_guest g[] = {
		{ "pio", CODE(0xe6, 0x60), { .rax = 1 } },
		{ "pio other size", CODE(0xe7, 0x60), { .rax = 1 } },
		{ "pio match", CODE(0xe7, 0x62), { .rax = 7 } },
		{ "pio no match", CODE(0xe7, 0x62), { .rax = 8 } },
		{ "mmio", CODE(0x26, 0xa2, 0x10, 0x00), { .rax = 1 } },
		{ "mmio read", CODE(0x26, 0xa0, 0x10, 0x00), { .rax = 1 } },
		{ "any length", CODE(0x66, 0x26, 0xa3, 0x20, 0x00), { .rax = 1 } },
		{ "any length inside", CODE(0x26, 0xa3, 0x22, 0x00), { .rax = 1 } },
		{ "rep outsb", CODE(0xf3, 0x6e), { .rsi = 0x2000, .rdx = 0x60, .rcx = 3 } },
	};

	ad_segments(w);
	ad_ret(w, "pio 60", libkvm_ioeventfd(w->vm, fd, 0x60, 1, true, NULL, true));
	ad_ret(w, "pio 62", libkvm_ioeventfd(w->vm, fd, 0x62, 2, true, &match, true));
	ad_ret(w, "mmio 10", libkvm_ioeventfd(w->vm, fd, AD_MMIO + 0x10, 1, false, NULL, true));
	ad_ret(w, "mmio 20", libkvm_ioeventfd(w->vm, fd, AD_MMIO + 0x20, 0, false, NULL, true));
	for (unsigned i = 0; i < sizeof(g) / sizeof(g[0]); i++) {
		ad_guests(w, &g[i], 1);
		n = 0;
		ad_say(w, "count", "%d %llu", (int)read(fd, &n, 8), (unsigned long long)n);
	}
	close(fd);
}

static void ad_split(struct ad_world *w)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	/* mov eax, [es:20h] (the APIC's id); hlt */
	static const uint8_t code[] = { 0x66, 0x26, 0xa1, 0x20, 0x00, 0x66, 0x26,
					0xa1, 0x30, 0x00, 0xe6, 0x99, 0xf4 };
	struct kvm_irq_level l = { .irq = 4, .level = 1 };
	struct libkvm_err e = { 0 };
	struct kvm_sregs s;

	ad_ret(w, "split", libkvm_vm_ioctl(w->vm, KVM_ENABLE_CAP, &cap));
	ad_ret(w, "irqchip after", libkvm_irqchip_create(w->vm));
	ad_ret(w, "pit", libkvm_pit_create(w->vm));
	ad_ret(w, "line", libkvm_vm_ioctl(w->vm, KVM_IRQ_LINE, &l));
	ad_ret(w, "msi", libkvm_signal_msi(w->vm, 0xfee00000, 0x31));
	ad_ret(w, "memory", libkvm_mem_add(w->vm, 0, AD_RAM, w->ram, 0));
	if (libkvm_vcpu_create(w->vm, 0, &w->cpu, &e))
		return;
	w->run = libkvm_vcpu_run_area(w->cpu);
	libkvm_get_sregs(w->cpu, &s);
	s.cs.base = 0;
	s.cs.selector = 0;
	s.es.base = 0xfee00000;
	libkvm_set_sregs(w->cpu, &s);
	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	ad_set(w, NULL);
	ad_go(w, 1);
}

static void ad_sync(struct ad_world *w)
{
	static const uint8_t code[] = { 0xe6, 0x42, 0xf4 };

	memcpy(w->ram + AD_CODE, code, sizeof(code));
	libkvm_mem_written(w->vm, 0, AD_RAM);
	w->run->kvm_valid_regs = 1ull << 40;
	ad_ret(w, "bad", ad_run(w));
	w->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	ad_exit(w, ad_run(w));
	ad_say(w, "synced", "%llx %llx", (unsigned long long)w->run->s.regs.regs.rip,
	       (unsigned long long)w->run->s.regs.sregs.cr0);
	w->run->s.regs.regs.rip = AD_CODE;
	w->run->s.regs.regs.rax = 9;
	w->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	ad_exit(w, ad_run(w));
	ad_regs(w, "regs");
}

const struct ad_case ad_run_cases[] = {
	{ "pio", ad_pio, 0 },
	{ "ins", ad_ins, 0 },
	{ "mmio", ad_mmio, AD_CPUID },
	{ "fetch_from_mmio", ad_fetch, 0 },
	{ "immediate_exit", ad_immediate, 0 },
	{ "kick", ad_kick, 0 },
	{ "guest_debug_step", ad_step, 0 },
	{ "guest_debug_breakpoints", ad_breakpoints, 0 },
	{ "events", ad_events, 0 },
	{ "faults", ad_faults, 0 },
	{ "readonly_slot", ad_readonly, AD_CPUID },
	{ "dirty_log", ad_dirty, AD_CPUID },
	{ "ioeventfd", ad_eventfd, 0 },
	{ "split_irqchip", ad_split, AD_NO_VCPU },
	{ "sync_regs", ad_sync, 0 },
	{ 0 },
};
