/*
 * Virtual-8086 mode: entry and exit, IOPL-sensitive instructions, software interrupts to the
 * monitor, the I/O bitmap, 64-KiB segments, VME's redirection where CPUID offers it.
 * References: [SDM3 20].
 */
#include "cpu.h"

/* 16-bit code below 64 KiB; segment 0. HLT, which faults, ends a run. */
#define V86(ident, text) \
	__asm__(".pushsection .real, \"awx\"\n\t.code16\n\t.global " #ident "\n" #ident \
		":\n\t" text "\n\t.code32\n\t.popsection\n"); \
	extern u8 ident[]
#define V86_SP 0x6ff0
void run_iret(const ulong *f, const ulong *r);

static u16 v86_ds, v86_ss, v86_sp;

static void v86_run(struct trap *t, const void *code, ulong flags, ulong di)
{
	const ulong f[9] = { (ulong)code, 0,     2 | FL_VM | flags, v86_sp, v86_ss, 0x1111, v86_ds,
			     0x2222,      0x3333 };
	const ulong r[4] = { di };

	CATCH(*t, run_iret(f, r));
}

static void v86_setup(void)
{
	v86_ds = 0;
	v86_ss = 0;
	v86_sp = V86_SP;
	guest_memset(tss[0].bitmap, 0xff, sizeof(tss[0].bitmap));
	tss[0].iomap = offsetof(struct tss32, bitmap) + 32;
}

/* Ended by HLT at this place. */
#define CHECK_HLT(t, at) \
	do { \
		CHECK_TRAP(t, VEC_GP, 0); \
		CHECK_EQ((t).ip, (ulong)(at)); \
	} while (0)

V86(v_segs, "mov %cs, %ax\n\tmov %ss, %bx\n\tmov %es, %cx\n\tmov %fs, %dx\n"
	    "v_segs_end: hlt");
extern u8 v_segs_end[];

TEST(enter_and_leave)
{
	struct trap t;

	v86_setup();
	v86_ds = 0x4444;
	v86_run(&t, v_segs, 0, 0);
	CHECK_HLT(t, v_segs_end);
	CHECK_EQ(t.flags & FL_VM, FL_VM);
	CHECK_EQ(t.ax & 0xffff, 0);
	CHECK_EQ(t.cx & 0xffff, 0x1111);
	CHECK_EQ(t.dx & 0xffff, 0x2222);
	CHECK_EQ(t.es, 0x1111);
	CHECK_EQ(t.ds, 0x4444);
	CHECK_EQ(t.fs, 0x2222);
	CHECK_EQ(t.gs, 0x3333);
	CHECK_EQ(t.sp, V86_SP);
}

static volatile ulong mon_ds, mon_fs, mon_cs;

static void monitor(struct frame *f)
{
	mon_ds = f->ds & 0xffff;
	mon_fs = f->fs & 0xffff;
	mon_cs = f->cs & 0xffff;
	f->ax = 0x1234;
}

V86(v_int, "int $0x41\n\tmov %ax, %bx\nv_int_end: hlt");
extern u8 v_int_end[];

TEST(int_to_the_monitor)
{
	struct trap t;

	v86_setup();
	v86_run(&t, v_int, 0, 0); /* IOPL 0 */
	CHECK_HLT(t, v_int);
	trap_hook(0x41, monitor);
	v86_run(&t, v_int, FL_IOPL, 0);
	CHECK_HLT(t, v_int_end);
	CHECK_EQ(t.bx & 0xffff, 0x1234);
	CHECK_EQ(mon_ds, 0); /* the data segments are nulled for the monitor */
	CHECK_EQ(mon_fs, 0);
	CHECK_EQ(t.ds, 0);
	CHECK_EQ(t.fs, 0x2222);
	trap_hook(0x41, NULL);
	/* a gate of DPL 0 */
	idt[0x41] &= ~(3ull << 45);
	v86_run(&t, v_int, FL_IOPL, 0);
	CHECK_TRAP(t, VEC_GP, 0x41 * 8 + 2);
	idt_default(0x41);
}

V86(v_cli, "cli\nv_cli_end: hlt");
V86(v_pushf, "pushf\n\tpop %ax\nv_pushf_end: hlt");
V86(v_popf, "pushw $0x3203\n\tpopf\nv_popf_end: hlt");
V86(v_iret, "pushw $0x3203\n\tpushw $0\n\tpushw $v_iret_end\n\tiret\nv_iret_end: hlt");
extern u8 v_cli_end[], v_pushf_end[], v_popf_end[], v_iret_end[];

TEST(iopl_sensitive)
{
	struct trap t;

	v86_setup();
	v86_run(&t, v_cli, 0, 0);
	CHECK_HLT(t, v_cli);
	v86_run(&t, v_cli, FL_IOPL | FL_IF, 0);
	CHECK_HLT(t, v_cli_end);
	CHECK_EQ(t.flags & FL_IF, 0);
	v86_run(&t, v_pushf, 0, 0);
	CHECK_HLT(t, v_pushf);
	v86_run(&t, v_pushf, FL_IOPL | FL_CF, 0);
	CHECK_HLT(t, v_pushf_end);
	CHECK_EQ(t.ax & 0xffff, FL_IOPL | FL_CF | 2);
	v86_run(&t, v_popf, 0, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.ip, (ulong)v_popf + 3);
	v86_run(&t, v_popf, FL_IOPL, 0);
	CHECK_HLT(t, v_popf_end);
	CHECK_EQ(t.flags & (FL_IF | FL_CF | FL_IOPL | FL_VM), FL_IF | FL_CF | FL_IOPL | FL_VM);
	v86_run(&t, v_iret, FL_IOPL, 0);
	CHECK_HLT(t, v_iret_end);
	CHECK_EQ(t.flags & (FL_IF | FL_CF), FL_IF | FL_CF);
	CHECK_EQ(t.sp, V86_SP);
}

V86(v_int3, "int3");
V86(v_in, "mov %di, %dx\n\tin %dx, %al\nv_in_end: hlt");
extern u8 v_in_end[];

TEST(int3_and_ports)
{
	struct trap t;

	v86_setup();
	v86_run(&t, v_int3, 0, 0); /* not IOPL-sensitive */
	CHECK_EQ(t.vec, VEC_BP);
	v86_run(&t, v_in, FL_IOPL, 0x80); /* IOPL does not open ports */
	CHECK_HLT(t, v_in + 2);
	tss[0].bitmap[32 + 0x80 / 8] = 0xfe;
	v86_run(&t, v_in, 0, 0x80);
	CHECK_HLT(t, v_in_end);
}

V86(v_word, "mov (%di), %ax\nv_word_end: hlt");
V86(v_stack, "push %ax\nv_stack_end: hlt");
V86(v_addr32, "addr32 movb (%edi), %al\nv_addr32_end: hlt");
V86(v_far, "ljmp $0xffff, $0x1000");
extern u8 v_word_end[], v_stack_end[], v_addr32_end[];

TEST(segments)
{
	struct trap t;

	v86_setup();
	v86_ds = 0x10;
	*(volatile u16 *)0x5100 = 0xabcd;
	v86_run(&t, v_word, 0, 0x5000);
	CHECK_HLT(t, v_word_end);
	CHECK_EQ(t.ax & 0xffff, 0xabcd);
	v86_run(&t, v_word, 0, 0xffff); /* over the end of the segment */
	CHECK_HLT(t, v_word);
	v86_ds = 0xffff; /* ffff:0010 is above 1 MiB */
	v86_run(&t, v_word, 0, 0x10);
	CHECK_EQ(t.ax & 0xffff, 0xb002);
	v86_run(&t, v_addr32, 0, 0x10000);
	CHECK_HLT(t, v_addr32);
	v86_sp = 1;
	v86_ss = 0x600;
	v86_run(&t, v_stack, 0, 0);
	CHECK_TRAP(t, VEC_SS, 0);
	v86_sp = 0;
	v86_run(&t, v_stack, 0, 0); /* from 0 it wraps to fffe */
	CHECK_HLT(t, v_stack_end);
	CHECK_EQ(t.sp & 0xffff, 0xfffe);
}

V86(v_lgdt, "lgdt 0x5000");
V86(v_cr0, "mov %cr0, %eax");
V86(v_sldt, "sldt %ax");
V86(v_str, "str %ax");
V86(v_lar, "lar %ax, %bx");
V86(v_verr, "verr %ax");
V86(v_arpl, ".byte 0x63, 0xc0");
V86(v_clts, "clts");
V86(v_smsw, "smsw %ax\nv_smsw_end: hlt");
extern u8 v_smsw_end[];

TEST(privileged_and_undefined)
{
	static const u8 *const gp[] = { v_lgdt, v_cr0, v_clts }, *const ud[] = { v_sldt, v_str,
										 v_lar, v_verr,
										 v_arpl };
	struct trap t;

	v86_setup();
	for (unsigned i = 0; i < ARRAY_SIZE(gp); i++) {
		v86_run(&t, gp[i], FL_IOPL, 0);
		CHECK_TRAP(t, VEC_GP, 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(ud); i++) {
		v86_run(&t, ud[i], FL_IOPL, 0);
		CHECK_TRAP(t, VEC_UD, 0);
	}
	v86_run(&t, v_smsw, 0, 0);
	CHECK_HLT(t, v_smsw_end);
}

V86(v_soft, "int $0x60\n\tmov %ax, %bx\nv_soft_end: hlt");
V86(v_handler, "mov $0x4321, %ax\n\tmov %sp, %bp\n\tmov 4(%bp), %cx\n\tiret");
V86(v_vme_cli, "sti\n\tcli\nv_vme_cli_end: hlt");
V86(v_vme_sti, "sti\nv_vme_sti_end: hlt");
extern u8 v_soft_end[], v_vme_cli_end[], v_vme_sti_end[];

TEST(vme)
{
	struct trap t;

	if (!HAS_1D(1))
		SKIP("no VME");
	v86_setup();
	*(volatile u32 *)(0x60 * 4) = (u32)v_handler;
	write_cr4(read_cr4() | CR4_VME);
	v86_run(&t, v_soft, 0, 0); /* bitmap bit set: to the monitor, which IOPL 0 makes #GP */
	CHECK_TRAP(t, VEC_GP, 0);
	tss[0].bitmap[0x60 / 8] &= ~1;
	v86_run(&t, v_soft, 0, 0); /* clear: through the 8086 vector table */
	CHECK_HLT(t, v_soft_end);
	CHECK_EQ(t.bx & 0xffff, 0x4321);
	CHECK_EQ(t.cx & (FL_IF | FL_IOPL), FL_IOPL); /* pushed with VIF as IF, IOPL as 3 */
	v86_run(&t, v_soft, FL_VIF, 0);
	CHECK_EQ(t.cx & (FL_IF | FL_IOPL), FL_IF | FL_IOPL);
	CHECK_EQ(t.flags & FL_VIF, FL_VIF);
	v86_run(&t, v_vme_cli, FL_IF, 0);
	CHECK_HLT(t, v_vme_cli_end);
	CHECK_EQ(t.flags & (FL_VIF | FL_IF), FL_IF); /* the real IF is not touched */
	v86_run(&t, v_vme_sti, 0, 0);
	CHECK_HLT(t, v_vme_sti_end);
	CHECK_EQ(t.flags & FL_VIF, FL_VIF);
	v86_run(&t, v_vme_sti, FL_VIP, 0);
	CHECK_HLT(t, v_vme_sti); /* an interrupt is pending for the 8086 program */
	write_cr4(read_cr4() & ~CR4_VME);
}
