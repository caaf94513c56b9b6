/* Descriptor tables, and exceptions as values: see guest.h. */
#include "cpu.h"

enum { TRAP_STUB_SIZE = 16, TRAP_STACK = 0x4000 };

extern u8 trap_stubs[];
extern u8 run_iret_insn[];
void run_iret(const ulong *f, const ulong *r);
extern const struct table_reg gdt_reg;

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16))) = {
	[SEL_CODE64 / 8] = 0x00af9b000000ffff, [SEL_DATA / 8] = 0x00cf93000000ffff,
	[SEL_CODE32 / 8] = 0x00cf9b000000ffff, [SEL_UCODE32 / 8] = 0x00cffb000000ffff,
	[SEL_UDATA / 8] = 0x00cff3000000ffff,  [SEL_UCODE64 / 8] = 0x00affb000000ffff,
	[SEL_CODE16 / 8] = 0x00009b000000ffff, [SEL_DATA16 / 8] = 0x000093000000ffff,
};
u64 idt[512] __attribute__((aligned(16)));
struct cpu cpus[MAX_CPUS];
u32 boot_info[2];
static void (*hooks[256])(struct frame *f);
#ifdef GUEST64
struct tss64 tss[MAX_CPUS] __attribute__((aligned(128)));
static u8 trap_stack[MAX_CPUS][TRAP_STACK] __attribute__((aligned(16)));
static u8 ist_stack[MAX_CPUS][3][TRAP_STACK / 2] __attribute__((aligned(16)));
#else
struct tss32 tss[1] __attribute__((aligned(128)));
static u8 trap_stack[1][TRAP_STACK] __attribute__((aligned(16)));
void trap_longjmp(struct catch_buf *b) __attribute__((noreturn));
#endif

void gdt_set(u16 sel, u64 desc)
{
	((volatile u64 *)gdt)[sel / 8] = desc;
}

u64 gdt_get(u16 sel)
{
	return ((volatile u64 *)gdt)[sel / 8];
}

void idt_set(unsigned vec, u16 sel, ulong off, u8 type_dpl, u8 ist)
{
	u64 lo = (off & 0xffff) | (u64)sel << 16 | (u64)ist << 32 | (u64)type_dpl << 40 |
		 (u64)(off >> 16 & 0xffff) << 48;

#ifdef GUEST64
	idt[2 * vec] = lo;
	idt[2 * vec + 1] = off >> 32;
#else
	idt[vec] = lo;
#endif
}

void idt_default(unsigned vec)
{
	bool user = vec == VEC_BP || vec == VEC_OF || (vec >= 0x40 && vec < 0x50);

	idt_set(vec, SEL_CODE, (ulong)trap_stubs + vec * TRAP_STUB_SIZE, user ? 0xee : 0x8e,
		sizeof(ulong) == 8 && vec == VEC_DF ? 1 : 0);
}

void trap_init(unsigned cpu)
{
	struct table_reg r = { sizeof(idt) - 1, (ulong)idt };
	ulong base = (ulong)&tss[cpu];

	if (!cpu)
		for (unsigned v = 0; v < 256; v++)
			idt_default(v);
	cpus[cpu].index = cpu;
#ifdef GUEST64
	tss[cpu].rsp[0] = (ulong)trap_stack[cpu] + TRAP_STACK;
	for (unsigned i = 0; i < 3; i++)
		tss[cpu].ist[i] = (ulong)ist_stack[cpu][i] + TRAP_STACK / 2;
	gdt_set((u16)(SEL_TSS + 16 * cpu + 8), base >> 32);
#else
	r.limit = 256 * 8 - 1;
	tss[0].ss0 = SEL_DATA;
	tss[0].esp0 = (ulong)trap_stack[0] + TRAP_STACK;
	guest_memset(tss[0].bitmap, 0xff, sizeof(tss[0].bitmap));
#endif
	tss[cpu].iomap = sizeof(tss[0]);
	gdt_set((u16)(SEL_TSS + 16 * cpu), make_desc((u32)base, sizeof(tss[0]) - 1, 0x89, 0));
	lidt(&r);
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS + 16 * cpu));
}

/* The task register tells the CPU; a 32-bit guest has one CPU and switches tasks. */
struct cpu *cpu_self(void)
{
#ifdef GUEST64
	return &cpus[(read_tr() - SEL_TSS) / 16 % MAX_CPUS];
#else
	return &cpus[0];
#endif
}

struct catch_buf *trap_arm(struct trap *t)
{
	struct cpu *c = cpu_self();

	guest_memset(t, 0, sizeof(*t));
	t->vec = -1;
	c->trap[c->level] = t;
	return &c->buf[c->level++];
}

void trap_disarm(void)
{
	cpu_self()->level--;
}

void trap_hook(unsigned vec, void (*fn)(struct frame *f))
{
	hooks[vec] = fn;
}

static void trap_fill(struct trap *t, const struct frame *f)
{
	t->vec = (long)f->vec;
	t->err = f->err;
	t->ip = f->ip;
	t->cs = f->cs;
	t->flags = f->flags;
	t->ax = f->ax;
	t->bx = f->bx;
	t->cx = f->cx;
	t->dx = f->dx;
	t->si = f->si;
	t->di = f->di;
	t->bp = f->bp;
	t->cr2 = read_cr2();
	t->dr6 = read_dr6();
#ifdef GUEST64
	t->r11 = f->r11;
	t->sp = f->sp;
	t->ss = f->ss;
#else
	t->es = f->es & 0xffff;
	t->ds = f->ds & 0xffff;
	t->fs = f->fs & 0xffff;
	t->gs = f->gs & 0xffff;
	t->cs &= 0xffff;
	if (f->flags & FL_VM) {
		t->es = f->v_es & 0xffff;
		t->ds = f->v_ds & 0xffff;
		t->fs = f->v_fs & 0xffff;
		t->gs = f->v_gs & 0xffff;
	}
	if ((f->cs & 3) || (f->flags & FL_VM)) {
		t->sp = f->sp;
		t->ss = f->ss & 0xffff;
	} else {
		t->sp = (ulong)&f->sp;
		t->ss = f->ss_now & 0xffff;
	}
#endif
}

void trap_dispatch(struct frame *f)
{
	struct cpu *c = cpu_self();
	struct catch_buf *b;

	if (hooks[f->vec & 0xff]) {
		hooks[f->vec & 0xff](f);
		return;
	}
	if (!c->level) {
		guest_printf("Bail out! CPU %u: vector %lu error %lx at %lx:%lx\n", c->index,
			     f->vec, f->err, f->cs, f->ip);
		outb(0x501 & 0xffff, 0x7f);
		for (;;)
			__asm__ volatile("cli\n\thlt");
	}
	trap_fill(c->trap[c->level - 1], f);
	b = &c->buf[c->level - 1];
#ifdef GUEST64
	write_ds(SEL_DATA);
	write_es(SEL_DATA);
	f->ip = b->regs[0];
	f->sp = b->regs[1];
	f->bx = b->regs[2];
	f->bp = b->regs[3];
	f->r12 = b->regs[4];
	f->r13 = b->regs[5];
	f->r14 = b->regs[6];
	f->r15 = b->regs[7];
	f->cs = SEL_CODE;
	f->ss = SEL_DATA;
	f->flags = 2;
	f->ax = 1;
#else
	trap_longjmp(b);
#endif
}

void run_at(struct trap *t, u16 cs, u16 ss, ulong ip, ulong sp, ulong flags, const ulong *r)
{
	static const ulong zero[4];
	const u16 seg = (cs & 3) == 3 ? SEL_UDATA : SEL_DATA;
	const ulong f[9] = { ip, cs, flags, sp, ss, seg, seg, 0, 0 };

	CATCH(*t, run_iret(f, r ? r : zero));
}

void run_user(struct trap *t, const void *fn, ulong arg)
{
	extern u8 user_exit[];
	ulong *sp = (ulong *)user_stack_top;
	const ulong r[4] = { arg };

	sp[-1] = arg; /* 32-bit calling convention */
	sp[-2] = (ulong)user_exit;
	run_at(t, SEL_CODE == SEL_CODE64 ? SEL_UCODE64 : SEL_UCODE32, SEL_UDATA, (ulong)fn,
	       (ulong)(sp - 2), 2, r);
}
