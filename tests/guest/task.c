/*
 * Hardware task switches, 32-bit and 16-bit: JMP, CALL, IRET, task gates in GDT and IDT, nesting,
 * the busy bit, #TS and its relatives, the debug trap bit, CR0.TS. References: [SDM3 7].
 */
#include "cpu.h"

#define S_TSS1   SEL_FREE
#define S_GATE   (SEL_FREE + 8)
#define S_TSS16  (SEL_FREE + 16)
#define S_MISC   (SEL_FREE + 24)
#define S_RESCUE (SEL_FREE + 32)

struct tss16 {
	u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs,
		ss, ds, ldt;
} __attribute__((packed));

static struct tss32 other __attribute__((aligned(128)));
static struct tss16 other16 __attribute__((aligned(128)));
static u8 other_stack[4096] __attribute__((aligned(16)));
static volatile ulong seen_flags, seen_tr, seen_cr0, runs;
volatile ulong seen_err, seen_eax;

static u8 busy(u16 sel)
{
	return gdt_get(sel) >> 40 & 0xff;
}

/* The task's body: note what it sees, IRET back; entered again after the IRET when called again. */
static void __attribute__((used)) task_note(ulong flags, ulong eax)
{
	seen_flags = flags;
	seen_eax = eax;
	seen_tr = read_tr();
	seen_cr0 = read_cr0();
	runs++;
}
SNIPPET(task_body, "push %eax\n\tpushf\n\tcall task_note\n\tadd $8, %esp\n\t"
		   "mov $0x5678, %eax\n\tiret\n\tmov $0x9999, %eax\n\tjmp task_body");
/* Goes back with a jump: not nested. */
SNIPPET(task_jump_back, "push %eax\n\tpushf\n\tcall task_note\n\tadd $8, %esp\n\tljmp $0x100, $0");
static void task_setup(const void *body)
{
	guest_memset(&other, 0, sizeof(other));
	other.eip = (u32)body;
	other.esp = (u32)(other_stack + sizeof(other_stack));
	other.eax = 0x1234;
	other.eflags = 2;
	other.cs = SEL_CODE32;
	other.ss = other.ds = other.es = other.fs = other.gs = SEL_DATA;
	other.ss0 = SEL_DATA;
	other.esp0 = (u32)(other_stack + sizeof(other_stack));
	other.iomap = sizeof(other);
	gdt_set(S_TSS1, make_desc((u32)&other, sizeof(other) - 1, 0x89, 0));
	gdt_set(SEL_TSS, (gdt_get(SEL_TSS) & ~(0xffull << 40)) | 0x8bull << 40);
	runs = 0;
	__asm__ volatile("clts");
}

static void task_call(struct trap *t, u16 sel)
{
	static struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) p;

	p.sel = sel;
	CATCH(*t, __asm__ volatile("lcall *%0" ::"m"(p) : "memory", "cc"));
}

TEST(call_and_iret)
{
	struct trap t;

	task_setup(task_body);
	task_call(&t, S_TSS1);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(runs, 1);
	CHECK_EQ(seen_eax, 0x1234);
	CHECK_EQ(seen_tr, S_TSS1);
	CHECK_EQ(seen_flags & FL_NT, FL_NT);
	CHECK_EQ(seen_cr0 & CR0_TS, CR0_TS);
	CHECK_EQ(other.link, SEL_TSS);
	CHECK_EQ(read_tr(), SEL_TSS);
	CHECK_EQ(busy(S_TSS1), 0x89); /* free again */
	CHECK_EQ(busy(SEL_TSS), 0x8b);
	CHECK_EQ(read_flags() & FL_NT, 0);
	CHECK_EQ(other.eax, 0x5678);       /* saved by the IRET */
	CHECK_EQ(other.eflags & FL_NT, 0); /* and NT cleared in the task left */
	task_call(&t, S_TSS1);             /* goes on after its IRET */
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(runs, 2);
	CHECK_EQ(seen_eax, 0x9999);
	__asm__ volatile("clts");
}

TEST(jump)
{
	struct trap t;

	task_setup(task_jump_back);
	CATCH(t, __asm__ volatile("ljmp %0, $0" ::"i"(S_TSS1)
				  : "memory", "eax", "ecx", "edx", "cc"));
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(runs, 1);
	CHECK_EQ(seen_flags & FL_NT, 0);
	CHECK_EQ(other.link, 0);
	CHECK_EQ(busy(S_TSS1), 0x89); /* left by a jump: not busy */
	CHECK_EQ(busy(SEL_TSS), 0x8b);
	__asm__ volatile("clts");
}

TEST(gate)
{
	struct trap t;

	task_setup(task_body);
	gdt_set(S_GATE, (u64)S_TSS1 << 16 | 0x85ull << 40);
	task_call(&t, S_GATE);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(runs, 1);
	gdt_set(S_GATE, (u64)S_TSS1 << 16 | 0x05ull << 40);
	task_call(&t, S_GATE);
	CHECK_TRAP(t, VEC_NP, S_GATE);
	gdt_set(S_GATE, (u64)SEL_DATA << 16 | 0x85ull << 40);
	task_call(&t, S_GATE);
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	__asm__ volatile("clts");
}

TEST(interrupt_gate)
{
	task_setup(task_body);
	gdt_set(S_TSS1, make_desc((u32)&other, sizeof(other) - 1, 0x89, 0));
	idt_set(0x51, S_TSS1, 0, 0x85, 0);
	__asm__ volatile("int $0x51" ::: "memory", "cc");
	CHECK_EQ(runs, 1);
	CHECK_EQ(seen_flags & FL_NT, FL_NT);
	CHECK_EQ(other.link, SEL_TSS);
	idt_default(0x51);
	__asm__ volatile("clts");
}

/* Repairs the faulting instruction's operand before going back. */
SNIPPET(task_fix_err, "popl seen_err\n\tmovl $0x10, other_fix\n\tiret\n\tjmp task_fix_err");
volatile u32 other_fix;

TEST(fault_through_task_gate)
{
	task_setup(task_fix_err);
	idt_set(VEC_GP, S_TSS1, 0, 0x85, 0);
	seen_err = 0;
	other_fix = GDT_ENTRIES * 8;
	__asm__ volatile("movw other_fix, %%es" ::: "memory");
	CHECK_EQ(seen_err, GDT_ENTRIES * 8);
	CHECK_EQ(other_fix, 0x10);
	idt_default(VEC_GP);
	__asm__ volatile("clts");
}

TEST(double_fault_task)
{
	struct trap t;
	const u64 save = idt[VEC_GP];

	/* the way kernels catch stack overflows: #DF on a stack of its own */
	task_setup(task_fix_err);
	idt_set(VEC_DF, S_TSS1, 0, 0x85, 0);
	idt[VEC_GP] &= ~(0x80ull << 40);
	seen_err = 99;
	other_fix = GDT_ENTRIES * 8;
	CATCH(t, __asm__ volatile("movw other_fix, %%es" ::: "memory"));
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(seen_err, 0);
	idt[VEC_GP] = save;
	idt_default(VEC_DF);
	__asm__ volatile("clts");
}

TEST(faults_before_the_switch)
{
	struct trap t;

	task_setup(task_body);
	gdt_set(S_TSS1, make_desc((u32)&other, sizeof(other) - 1, 0x8b, 0));
	task_call(&t, S_TSS1); /* busy */
	CHECK_TRAP(t, VEC_GP, S_TSS1);
	gdt_set(S_TSS1, make_desc((u32)&other, sizeof(other) - 1, 0x09, 0));
	task_call(&t, S_TSS1);
	CHECK_TRAP(t, VEC_NP, S_TSS1);
	gdt_set(S_TSS1, make_desc((u32)&other, 0x66, 0x89, 0));
	task_call(&t, S_TSS1); /* limit below 67h */
	CHECK_TRAP(t, VEC_TS, S_TSS1);
	CHECK_EQ(read_tr(), SEL_TSS);
	CHECK_EQ(runs, 0);
	/* IRET with NT and a back link that is no busy TSS */
	task_setup(task_body);
	tss[0].link = S_TSS1;
	CATCH(t, __asm__ volatile("pushf\n\torl $0x4000, (%%esp)\n\tpopf\n\tiret" ::
					  : "memory", "cc"));
	CHECK_TRAP(t, VEC_TS, S_TSS1);
	tss[0].link = 0;
}

/*
 * A fault while the new task is loaded happens in the new task, which may have no stack yet: only
 * a task can handle it. One for each vector; it notes the error code and jumps back to the first.
 */
static struct tss32 rescue[3] __attribute__((aligned(128)));
static u8 rescue_stack[3][512] __attribute__((aligned(16)));
static volatile ulong rescue_vec, rescue_link;

static void __attribute__((used)) rescue_note(void)
{
	const unsigned n = (read_tr() - S_RESCUE) / 8;

	rescue_vec = VEC_TS + n;
	rescue_link = rescue[n].link;
	gdt_set(SEL_TSS, (gdt_get(SEL_TSS) & ~(0xffull << 40)) | 0x89ull << 40);
}
SNIPPET(rescue_body, "popl seen_err\n\tcall rescue_note\n\tljmp $0x100, $0");

static void ts_case(size_t field, u16 value, ulong vec, ulong err)
{
	struct trap t;

	task_setup(task_body);
	for (unsigned n = 0; n < 3; n++) {
		rescue[n] = other;
		rescue[n].eip = (u32)rescue_body;
		rescue[n].esp = (u32)rescue_stack[n] + sizeof(rescue_stack[n]);
		gdt_set(S_RESCUE + 8 * n,
			make_desc((u32)&rescue[n], sizeof(rescue[n]) - 1, 0x89, 0));
		idt_set(VEC_TS + n, (u16)(S_RESCUE + 8 * n), 0, 0x85, 0);
	}
	*(u16 *)((u8 *)&other + field) = value;
	rescue_vec = 0;
	task_call(&t, S_TSS1);
	for (unsigned n = 0; n < 3; n++)
		idt_default(VEC_TS + n);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(rescue_vec, vec);
	CHECK_EQ(seen_err, err);
	CHECK_EQ(rescue_link, S_TSS1);
	CHECK_EQ(runs, 0);
	__asm__ volatile("clts");
}

TEST(faults_in_the_new_task)
{
	gdt_set(S_MISC, make_desc(0, 0xfffff, 0x1b, 0xc)); /* code, not present */
	ts_case(offsetof(struct tss32, cs), SEL_DATA, VEC_TS, SEL_DATA);
	ts_case(offsetof(struct tss32, cs), 0, VEC_TS, 0);
	ts_case(offsetof(struct tss32, cs), S_MISC, VEC_NP, S_MISC);
	ts_case(offsetof(struct tss32, ss), SEL_CODE32, VEC_TS, SEL_CODE32);
	ts_case(offsetof(struct tss32, ss), SEL_UDATA, VEC_TS, SEL_UDATA & ~3);
	ts_case(offsetof(struct tss32, ds), SEL_TSS, VEC_TS, SEL_TSS);
	ts_case(offsetof(struct tss32, ldt), SEL_DATA, VEC_TS, SEL_DATA);
	gdt_set(S_MISC, make_desc(0, 0xfffff, 0x13, 0xc)); /* data, not present */
	ts_case(offsetof(struct tss32, ds), S_MISC, VEC_NP, S_MISC);
	ts_case(offsetof(struct tss32, ss), S_MISC, VEC_SS, S_MISC);
}

static volatile ulong db_dr6, db_ip;

static void on_db(struct frame *f)
{
	db_dr6 = read_dr6();
	db_ip = f->ip;
	write_dr6(0xffff0ff0);
}

TEST(debug_trap_bit)
{
	struct trap t;

	task_setup(task_body);
	other.trap = 1;
	trap_hook(VEC_DB, on_db);
	db_dr6 = 0;
	task_call(&t, S_TSS1);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(db_dr6 & 0xe00f, 0x8000); /* BT */
	CHECK_EQ(db_ip, (ulong)task_body); /* before the first instruction */
	trap_hook(VEC_DB, NULL);
	__asm__ volatile("clts");
}

TEST(registers_and_cr3)
{
	struct trap t;

	task_setup(task_body);
	other.ebx = 0xb;
	other.ebp = 0xbb;
	other.ldt = 0;
	task_call(&t, S_TSS1);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(other.ebx, 0xb);
	CHECK_EQ(other.ebp, 0xbb);
	CHECK_EQ(tss[0].cs, SEL_CODE32);
	CHECK_EQ(tss[0].ss, SEL_DATA);
	CHECK_EQ(tss[0].cr3, 0); /* never written by a switch */
	CHECK_EQ(gdt_get(SEL_CODE32) >> 40 & 1, 1);
	__asm__ volatile("clts");
}

/* ds is flat, but seen_eax is out of reach of a 16-bit offset: 32-bit addressing. */
SNIPPET(task16_entry, ".code16\n\taddr32 movw %ax, seen_eax\n\tinc %ax\n\tiretw\n\t.code32");

TEST(task_16bit)
{
	struct trap t;

	task_setup(task_body);
	guest_memset(&other16, 0, sizeof(other16));
	gdt_set(S_MISC, make_desc((u32)task16_entry, 0xffff, 0x9b, 0x0));
	other16.ip = 0;
	other16.cs = S_MISC;
	other16.ss = other16.ds = other16.es = SEL_DATA;
	other16.sp = 0x7000;
	other16.flags = 2;
	other16.ax = 0x4321;
	gdt_set(S_TSS16, make_desc((u32)&other16, sizeof(other16) - 1, 0x81, 0));
	seen_eax = 0;
	task_call(&t, S_TSS16);
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(seen_eax & 0xffff, 0x4321);
	CHECK_EQ(other16.link, SEL_TSS);
	CHECK_EQ(other16.ax, 0x4322);
	CHECK_EQ(read_tr(), SEL_TSS);
	gdt_set(S_TSS16, make_desc((u32)&other16, 0x2a, 0x81, 0));
	task_call(&t, S_TSS16);
	CHECK_TRAP(t, VEC_TS, S_TSS16);
	__asm__ volatile("clts");
}

SNIPPET(u_call_tss, "lcall $0x203, $0\n\t" USER_END);
SNIPPET(u_call_gate, "lcall $0x20b, $0\n\tmov %cs, %eax\n\t" USER_END);

TEST(from_ring3)
{
	struct trap t;

	task_setup(task_body);
	run_user(&t, u_call_tss, 0); /* DPL 0 */
	CHECK_TRAP(t, VEC_GP, S_TSS1);
	gdt_set(S_GATE, (u64)S_TSS1 << 16 | 0xe5ull << 40);
	run_user(&t, u_call_gate, 0); /* a gate with DPL 3 opens it */
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.ax & 0xffff, SEL_UCODE32);
	CHECK_EQ(runs, 1);
	__asm__ volatile("clts");
}
