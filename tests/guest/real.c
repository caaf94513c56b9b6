/*
 * Real-address mode. The 32-bit harness leaves protected mode, runs a snippet that lies below
 * 64 KiB with segment 0, and comes back with its registers; vectors 0 to 31 end a snippet and are
 * reported. Segment limits and wraps, INT and IRET, the vector table's limit, far transfers, string
 * instructions, 16-bit addressing, big real mode. References: [SDM3 20.1], [SDM2].
 */
#include "cpu.h"

#define REAL(ident, text) \
	__asm__(".pushsection .real, \"awx\"\n\t.code16\n\t.global " #ident "\n" #ident \
		":\n\t" text "\n\t.code32\n\t.popsection\n"); \
	extern u8 ident[]
#define REAL_SP 0x6f00

struct real_regs {
	u32 ax, bx, cx, dx, si, di, bp;
	u32 flags; /* after the snippet, or pushed by its trap */
	u16 ds, es;
	u16 vec, ip, cs, sp; /* vec 0xffff: it returned */
	u16 idt_limit;
};

__asm__(".pushsection .real, \"awx\"\n"
	/* struct real_regs, by hand */
	"real_regs:\t.fill 44, 1, 0\n"
	"real_pm_sp:\t.long 0\n"
	"real_target:\t.word 0\n"
	"real_idt:\t.word 0x3ff\n\t.long 0\n"
	"real_pm_idt:\t.word 0\n\t.long 0\n"
	"\t.code32\n"
	/* void real_enter(void) */
	"real_enter:\tpushal\n\tsidt real_pm_idt\n\tmov %esp, real_pm_sp\n"
	"\tlidt real_idt\n\tljmp $0x38, $1f\n"
	"\t.code16\n"
	"1:\tmov $0x40, %ax\n\tmov %ax, %ds\n\tmov %ax, %es\n\tmov %ax, %fs\n\tmov %ax, %gs\n\tmov "
	"%ax, %ss\n"
	"\tmov %cr0, %eax\n\tand $~1, %al\n\tmov %eax, %cr0\n\tljmp $0, $2f\n"
	"2:\txor %ax, %ax\n\tmov %ax, %fs\n\tmov %ax, %gs\n\tmov %ax, %ss\n\tmov $0x6f00, %sp\n"
	"\tmov %cs:real_regs+32, %ds\n\tmov %cs:real_regs+34, %es\n"
	"\tmov %cs:real_regs, %eax\n\tmov %cs:real_regs+4, %ebx\n\tmov %cs:real_regs+8, %ecx\n"
	"\tmov %cs:real_regs+12, %edx\n\tmov %cs:real_regs+16, %esi\n\tmov %cs:real_regs+20, %edi\n"
	"\tmov %cs:real_regs+24, %ebp\n\tcall *%cs:real_target\n"
	"\tmovw $0xffff, %cs:real_regs+36\n\tmov %sp, %cs:real_regs+42\n\tpushfl\n\tpopl "
	"%cs:real_regs+28\n"
	"real_save:\tmov %eax, %cs:real_regs\n\tmov %ebx, %cs:real_regs+4\n\tmov %ecx, "
	"%cs:real_regs+8\n"
	"\tmov %edx, %cs:real_regs+12\n\tmov %esi, %cs:real_regs+16\n\tmov %edi, %cs:real_regs+20\n"
	"\tmov %ebp, %cs:real_regs+24\n\tmov %ds, %cs:real_regs+32\n\tmov %es, %cs:real_regs+34\n"
	"\tcli\n\tcld\n\tmov %cr0, %eax\n\tor $1, %al\n\tmov %eax, %cr0\n\tljmpl $0x18, $3f\n"
	"\t.code32\n"
	"3:\tmov $0x10, %eax\n\tmov %eax, %ds\n\tmov %eax, %es\n\tmov %eax, %fs\n\tmov %eax, %gs\n"
	"\tmov %eax, %ss\n\tmov real_pm_sp, %esp\n\tlidt real_pm_idt\n\tpush "
	"$2\n\tpopf\n\tpopal\n\tret\n"
	"\t.code16\n"
	"real_common:\tpopw %cs:real_regs+36\n\tpopw %cs:real_regs+38\n\tpopw %cs:real_regs+40\n"
	"\tpopw %cs:real_regs+28\n\tmovw $0, %cs:real_regs+30\n\tmov %sp, %cs:real_regs+42\n"
	"\tmovl $0, %cs:real_scratch\n\tmov %ax, %cs:real_scratch\n"
	"\tmov $0, %ax\n\tmov %ax, %ss\n\tmov $0x6e00, %sp\n\tmov %cs:real_scratch, %ax\n\tjmp "
	"real_save\n"
	"real_scratch:\t.long 0\n"
	"\t.balign 8\nreal_stubs:\n\t.set rv, 0\n\t.rept 32\n\t.balign 8\n\tpushw $rv\n\tjmp "
	"real_common\n\t.set rv, rv + 1\n\t.endr\n"
	"\t.code32\n\t.popsection\n");
extern u8 real_stubs[];
extern struct real_regs real_regs;
extern u16 real_target;
extern struct {
	u16 limit;
	u32 base;
} __attribute__((packed)) real_idt;
void real_enter(void);

static struct real_regs regs(void)
{
	return (struct real_regs){ .idt_limit = 0x3ff };
}

static volatile u32 *ivt(unsigned v)
{
	return (volatile u32 *)(v * 4ul);
}

static void real_run(struct real_regs *r, const void *code)
{
	for (unsigned v = 0; v < 32; v++)
		*ivt(v) = (u32)real_stubs + 8 * v;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	real_regs = *r;
	real_target = (u16)(u32)code;
	real_idt.limit = r->idt_limit;
	real_enter();
	*r = real_regs;
}

#define CHECK_DONE(r) CHECK_EQ((r).vec, 0xffff)
#define CHECK_VEC(r, v, at) \
	do { \
		CHECK_EQ((r).vec, v); \
		CHECK_EQ((r).ip, (u16)(u32)(at)); \
	} while (0)

REAL(r_basic, "mov %ax, %cx\n\tadd $1, %cx\n\tsmsw %dx\n\tret");

TEST(basic)
{
	struct real_regs r = regs();

	_Static_assert(
		offsetof(struct real_regs, vec) == 36 && offsetof(struct real_regs, sp) == 42, "");
	r.ax = 0xffff;
	r.cx = 0x12340000;
	real_run(&r, r_basic);
	CHECK_DONE(r);
	CHECK_EQ(r.cx, 0x12340000);
	CHECK_EQ(r.dx & 1, 0);
	CHECK_EQ(r.flags & FL_ZF, FL_ZF);
	CHECK_EQ(read_cr0() & 1, 1);
}

REAL(r_load, "mov (%di), %ax\n\tret");
REAL(r_load_bp, "mov (%bp), %ax\n\tret");
REAL(r_load32, "addr32 mov (%edi), %ax\n\tret");
REAL(r_load_bxsi, "mov 0x10(%bx, %si), %ax\n\tret");

TEST(segments)
{
	struct real_regs r = regs();

	*(volatile u32 *)0x20000 = 0x44332211;
	*(volatile u32 *)0x2fffc = 0x88776655;
	r.ds = 0x2000;
	real_run(&r, r_load);
	CHECK_EQ(r.ax & 0xffff, 0x2211);
	r.di = 0xfffe;
	real_run(&r, r_load);
	CHECK_EQ(r.ax & 0xffff, 0x8877);
	r.di = 0xffff;
	real_run(&r, r_load); /* a word at ffffh */
	CHECK_VEC(r, VEC_GP, r_load);
	r.di = 0x10000;
	real_run(&r, r_load32); /* 32-bit offsets beyond 64 KiB */
	CHECK_VEC(r, VEC_GP, r_load32);
	r.bp = 0xffff;
	real_run(&r, r_load_bp);
	CHECK_VEC(r, VEC_SS, r_load_bp);
	r.bx = 0xfff0;
	r.si = 0x10; /* the sum wraps to 16 bits before the displacement, and after */
	real_run(&r, r_load_bxsi);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & 0xffff, *(volatile u16 *)0x20010);
	r.ds = 0xffff; /* over 1 MiB, A20 being on */
	r.di = 0x10;
	real_run(&r, r_load);
	CHECK_EQ(r.ax & 0xffff, 0xb002);
}

REAL(r_push_sp1, "mov $0x3000, %ax\n\tmov %ax, %ss\n\tmov $1, %sp\nr_push_sp1_at: push %ax\n\tret");
REAL(r_push_sp0, "mov %sp, %bx\n\tmov %ss, %cx\n\tmov $0x3000, %dx\n\tmov %dx, %ss\n\txor %sp, "
		 "%sp\n\tpush %di\n\t"
		 "mov %sp, %ax\n\tmov %cx, %ss\n\tmov %bx, %sp\n\tret");
REAL(r_pusha, "mov %sp, %si\n\tpush %sp\n\tpop %ax\n\tpushaw\n\tmov %sp, %bp\n\tmov 6(%bp), "
	      "%dx\n\tmov %dx, %cs:r_tmp\n\t"
	      "popaw\n\tmov %cs:r_tmp, %dx\n\tret\nr_tmp: .word 0");
REAL(r_enter, "mov $0x1234, %bp\n\tenter $8, $0\n\tmov %bp, %ax\n\tsub %sp, %ax\n\tleave\n\tmov "
	      "%bp, %bx\n\tret");
extern u8 r_push_sp1_at[];

TEST(stack)
{
	struct real_regs r = regs();

	/* with sp 1 not even the exception can be pushed: the CPU would shut down, so only look at
	 * 0 */
	(void)r_push_sp1_at;
	r.di = 0xabcd;
	real_run(&r, r_push_sp0);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & 0xffff, 0xfffe);
	CHECK_EQ(*(volatile u16 *)0x3fffe, 0xabcd);
	real_run(&r, r_pusha);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & 0xffff, r.si & 0xffff); /* PUSH SP pushes the old value */
	CHECK_EQ(r.dx & 0xffff, r.si & 0xffff); /* and so does PUSHA */
	real_run(&r, r_enter);
	CHECK_EQ(r.ax & 0xffff, 8);
	CHECK_EQ(r.bx & 0xffff, 0x1234);
}

REAL(r_int, "sti\n\tstc\n\tint $0x60\nr_int_back: mov %sp, %di\n\tcli\n\tret");
REAL(r_handler, "pushf\n\tpop %ax\n\tmov %sp, %bp\n\tmov %ss:(%bp), %bx\n\tmov %ss:2(%bp), %cx\n\t"
		"mov %ss:4(%bp), %dx\n\tiret");
extern u8 r_int_back[];

TEST(int_and_iret)
{
	struct real_regs r = regs();

	*ivt(0x60) = (u32)r_handler;
	real_run(&r, r_int);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & (FL_IF | FL_TF), 0);
	CHECK_EQ(r.bx & 0xffff, (u16)(u32)r_int_back);
	CHECK_EQ(r.cx & 0xffff, 0);
	CHECK_EQ(r.dx & (FL_IF | FL_CF), FL_IF | FL_CF);
	CHECK_EQ(r.di & 0xffff, REAL_SP - 2);
	/* a table too short for vector 60h, long enough for #GP */
	r.idt_limit = 0x60 * 4 + 2;
	real_run(&r, r_int);
	CHECK_EQ(r.vec, VEC_GP);
	CHECK_EQ(r.ip, (u16)((u32)r_int_back - 2));
	r.idt_limit = 0x60 * 4 + 3;
	real_run(&r, r_int);
	CHECK_DONE(r);
}

REAL(r_div, "xor %cx, %cx\nr_div_at: div %cx\n\tret");
REAL(r_into, "mov $0x7fff, %ax\n\tinc %ax\n\tinto\nr_into_after: ret");
REAL(r_bound, "bound %ax, (%di)\n\tret");
REAL(r_ud, "ud2");
REAL(r_int3, "int3\nr_int3_after: ret");
REAL(r_step,
     "pushf\n\tpop %ax\n\tor $0x100, %ax\n\tpush %ax\n\tpopf\n\tnop\nr_step_after: nop\n\tret");
REAL(r_hlt_lock, ".byte 0xf0, 0x90\n\tret");
extern u8 r_div_at[], r_into_after[], r_int3_after[], r_step_after[];

TEST(exceptions)
{
	struct real_regs r = regs();

	real_run(&r, r_div);
	CHECK_VEC(r, VEC_DE, r_div_at);
	real_run(&r, r_into);
	CHECK_VEC(r, VEC_OF, r_into_after);
	*(volatile u32 *)0x20000 = 10u << 16 | 5;
	r = regs();
	r.ds = 0x2000;
	r.ax = 11;
	real_run(&r, r_bound);
	CHECK_VEC(r, VEC_BR, r_bound);
	r.ax = 10;
	r.ds = 0x2000;
	real_run(&r, r_bound);
	CHECK_DONE(r);
	real_run(&r, r_ud);
	CHECK_VEC(r, VEC_UD, r_ud);
	real_run(&r, r_int3);
	CHECK_VEC(r, VEC_BP, r_int3_after);
	real_run(&r, r_step);
	CHECK_VEC(r, VEC_DB, r_step_after);
	CHECK_EQ(r.flags & FL_TF, FL_TF);
	real_run(&r, r_hlt_lock);
	CHECK_VEC(r, VEC_UD, r_hlt_lock);
}

REAL(r_sldt, "sldt %ax");
REAL(r_str, "str %ax");
REAL(r_lldt, "lldt %ax");
REAL(r_ltr, "ltr %ax");
REAL(r_lar, "lar %ax, %ax");
REAL(r_arpl, ".byte 0x63, 0xc0");
REAL(r_verw, "verw %ax");

TEST(undefined_here)
{
	static const u8 *const ud[] = { r_sldt, r_str, r_lldt, r_ltr, r_lar, r_arpl, r_verw };

	for (unsigned i = 0; i < ARRAY_SIZE(ud); i++) {
		struct real_regs r = regs();

		real_run(&r, ud[i]);
		CHECK_VEC(r, VEC_UD, ud[i]);
	}
}

REAL(r_far, "lcall $0x800, $(r_far_target - 0x8000)\nr_far_back: mov %cs, %bx\n\tret");
REAL(r_far_target,
     "mov %cs, %ax\n\tmov %sp, %bp\n\tmov %ss:(%bp), %cx\n\tmov %ss:2(%bp), %dx\n\tlret");
REAL(r_ljmp, "ljmp $0x800, $(r_ljmp_target - 0x8000)");
REAL(r_ljmp_target, "mov %cs, %ax\n\tljmp $0, $r_ljmp_back\nr_ljmp_back: mov %cs, %bx\n\tret");
REAL(r_ljmp_far, "ljmpl $0, $0x10000");
extern u8 r_far_back[];

TEST(far_transfers)
{
	struct real_regs r = regs();

	real_run(&r, r_far);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & 0xffff, 0x800);
	CHECK_EQ(r.bx & 0xffff, 0);
	CHECK_EQ(r.cx & 0xffff, (u16)(u32)r_far_back);
	CHECK_EQ(r.dx & 0xffff, 0);
	real_run(&r, r_ljmp);
	CHECK_DONE(r);
	CHECK_EQ(r.ax & 0xffff, 0x800);
	CHECK_EQ(r.bx & 0xffff, 0);
	real_run(&r, r_ljmp_far); /* beyond the limit of 64 KiB: a fault in the jump */
	CHECK_VEC(r, VEC_GP, r_ljmp_far);
}

REAL(r_movsb, "rep movsb\n\tret");
REAL(r_movsb_down, "std\n\trep movsb\n\tcld\n\tret");
REAL(r_stosd, "rep stosl\n\tret");
REAL(r_scas, "repne scasb\n\tret");
REAL(r_a32_stos, "addr32 rep stosb\n\tret");
REAL(r_loop, "xor %ax, %ax\n1:\tinc %ax\n\tloop 1b\n\tret");
REAL(r_jcxz, "jcxz 1f\n\tmov $1, %ax\n\tret\n1:\tmov $2, %ax\n\tret");

TEST(strings)
{
	struct real_regs r = regs();

	for (unsigned i = 0; i < 32; i++)
		*(volatile u8 *)(0x20000 + ((0xfff0 + i) & 0xffff)) = (u8)(i + 1);
	r.ds = 0x2000;
	r.es = 0x3000;
	r.si = 0xabcdfff0; /* the upper halves are neither used nor changed */
	r.di = 0x5678fff8;
	r.cx = 0x77770018;
	real_run(&r, r_movsb); /* both pointers wrap within their segments */
	CHECK_DONE(r);
	CHECK_EQ(r.si, 0xabcd0008);
	CHECK_EQ(r.di, 0x56780010);
	CHECK_EQ(r.cx, 0x77770000);
	CHECK_EQ(*(volatile u8 *)0x3ffff, 8);
	CHECK_EQ(*(volatile u8 *)0x30000, 9);
	CHECK_EQ(*(volatile u8 *)0x3000f, 24);
	r.si = 3;
	r.di = 3;
	r.cx = 8;
	real_run(&r, r_movsb_down);
	CHECK_EQ(r.si & 0xffff, 0xfffb);
	CHECK_EQ(*(volatile u8 *)0x3fffc, *(volatile u8 *)0x2fffc);
	r.di = 0xfffa;
	r.ax = 0x01020304;
	r.cx = 3;
	real_run(&r, r_stosd); /* the second element crosses ffffh */
	CHECK_VEC(r, VEC_GP, r_stosd);
	CHECK_EQ(r.cx & 0xffff, 2);
	CHECK_EQ(r.di & 0xffff, 0xfffe);
	CHECK_EQ(*(volatile u32 *)0x3fffa, 0x01020304);
	*(volatile u8 *)0x30123 = 0x5a;
	guest_memset((void *)0x30100, 0, 0x23);
	r.es = 0x3000;
	r.di = 0x100;
	r.cx = 0xffff;
	r.ax = 0x5a;
	real_run(&r, r_scas);
	CHECK_EQ(r.di & 0xffff, 0x124);
	CHECK_EQ(r.flags & FL_ZF, FL_ZF);
	r.es = 0x3000;
	r.di = 0xfffe;
	r.cx = 4;
	real_run(&r, r_a32_stos); /* a 32-bit pointer does not wrap: it leaves the segment */
	CHECK_VEC(r, VEC_GP, r_a32_stos);
	CHECK_EQ(r.di, 0x10000);
	CHECK_EQ(r.cx, 2);
	r.cx = 0x10005; /* LOOP and JCXZ count in cx */
	real_run(&r, r_loop);
	CHECK_EQ(r.ax & 0xffff, 5);
	CHECK_EQ(r.cx, 0x10000);
	real_run(&r, r_jcxz);
	CHECK_EQ(r.ax & 0xffff, 2);
}

REAL(r_unreal, "cli\n\tlgdtl %cs:r_gdtr\n\tmov %cr0, %eax\n\tor $1, %al\n\tmov %eax, %cr0\n\tmov "
	       "$0x10, %bx\n\t"
	       "mov %bx, %fs\n\tand $~1, %al\n\tmov %eax, %cr0\n\tmov %fs, %cx\n\t"
	       "mov $0x100000, %edi\n\taddr32 mov %fs:(%edi), %eax\n\t"
	       "addr32 movl $0x5a5a, %fs:0x100000(%edi)\n\t"
	       "mov $0x2000, %bx\n\tmov %bx, %fs\n\tmov $0, %edi\n\taddr32 mov %fs:0x10000(%edi), "
	       "%edx\n\tret\n"
	       "r_gdtr: .word 192 * 8 - 1\n\t.long gdt");

TEST(big_real_mode)
{
	struct real_regs r = regs();

	real_run(&r, r_unreal);
	CHECK_DONE(r);
	CHECK_EQ(r.ax, 0x1badb002);
	CHECK_EQ(*(volatile u32 *)0x200000, 0x5a5a);
	CHECK_EQ(r.cx & 0xffff, 0x10);
	CHECK_EQ(r.dx, *(volatile u32 *)0x30000); /* a load in real mode changes the base, keeps the
						     limit */
}

REAL(r_ports, "mov $0xe0, %dx\n\tmov $0x5ac3, %ax\n\tout %ax, %dx\n\txor %ax, %ax\n\tin %dx, "
	      "%ax\n\tmov %ax, %bx\n\t"
	      "mov $0x2000, %ax\n\tmov %ax, %es\n\txor %di, %di\n\tmov $3, %cx\n\trep insw\n\tret");

TEST(ports)
{
	struct real_regs r = regs();

	real_run(&r, r_ports);
	CHECK_DONE(r);
	CHECK_EQ(r.bx & 0xffff, 0x5ac3);
	CHECK_EQ(*(volatile u16 *)0x20004, 0x5ac3);
	CHECK_EQ(r.di & 0xffff, 6);
}

REAL(r_bcd, "mov $0x0905, %ax\n\taaa\n\tmov $0x99, %al\n\tadd $1, %al\n\tdaa\n\tmov %ax, "
	    "%bx\n\tsetc %cl\n\t"
	    "mov $0x1234, %ax\n\taam $16\n\tmov %ax, %dx\n\tret");

TEST(bcd)
{
	struct real_regs r = regs();

	real_run(&r, r_bcd);
	CHECK_DONE(r);
	CHECK_EQ(r.bx & 0xff, 0);
	CHECK_EQ(r.cx & 0xff, 1);
	CHECK_EQ(r.dx & 0xffff, 0x0304);
}

REAL(r_cr,
     "mov %cr0, %eax\n\tmov %eax, %ebx\n\tor $0x10000, %eax\n\tmov %eax, %cr0\n\tmov %cr0, %ecx\n\t"
     "mov %ebx, %cr0\n\tsgdtw %cs:r_tmp6\n\tmov %cs:r_tmp6, %dx\n\tret\nr_tmp6: .word 0, 0, 0");

TEST(control_registers)
{
	struct real_regs r = regs();

	real_run(&r, r_cr);
	CHECK_DONE(r);
	CHECK_EQ(r.bx & 1, 0);
	CHECK_EQ(r.cx & 0x10000, 0x10000);
	CHECK_EQ(r.dx & 0xffff, GDT_ENTRIES * 8 - 1);
}
