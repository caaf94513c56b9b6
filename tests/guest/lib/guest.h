/*
 * Bare-metal test guests: what a suite sees. A suite is one .c file with TEST(name) { ... } bodies,
 * linked with lib/ into a multiboot-1 kernel, 64-bit (GUEST64) or 32-bit. main() runs every test
 * under an outer catch, prints TAP on the debug console and leaves through isa-debug-exit.
 *
 * Faults are values: CATCH(t, statements) runs the statements and fills struct trap with the first
 * exception or interrupt that has no hook; t.vec is -1 if there was none. What the statements
 * change in memory stays; locals they change are lost unless volatile.
 *
 * Memory: below 1 MiB belongs to the suite (real-mode blobs, trampoline at AP_TRAMPOLINE); the
 * image starts at 1 MiB; from GUEST_FREE up to 96 MiB the suite does as it likes.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64; /* one printf format in both widths */
typedef unsigned long ulong;

#define MAX_CPUS      8
#define GUEST_FREE    0x2000000ul /* 32 MiB */
#define AP_TRAMPOLINE 0x7000ul
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BARRIER()     __asm__ volatile("" ::: "memory")
#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

/* Selectors of the boot GDT; SEL_FREE and up are the suite's. */
#define SEL_CODE64  0x08
#define SEL_DATA    0x10
#define SEL_CODE32  0x18
#define SEL_UCODE32 0x23
#define SEL_UDATA   0x2b
#define SEL_UCODE64 0x33
#define SEL_CODE16  0x38
#define SEL_DATA16  0x40
#define SEL_TSS     0x100 /* 16 bytes for each CPU */
#define SEL_FREE    0x200
#define GDT_ENTRIES 192

#ifdef GUEST64
#define SEL_CODE SEL_CODE64
#else
#define SEL_CODE SEL_CODE32
#endif

enum {
	VEC_DE,
	VEC_DB,
	VEC_NMI,
	VEC_BP,
	VEC_OF,
	VEC_BR,
	VEC_UD,
	VEC_NM,
	VEC_DF,
	VEC_CSO,
	VEC_TS,
	VEC_NP,
	VEC_SS,
	VEC_GP,
	VEC_PF,
	VEC_MF = 16,
	VEC_AC,
	VEC_MC,
	VEC_XM,
	VEC_USER_EXIT = 0x40, /* DPL 3: how ring-3 code ends */
};

/* What the stubs of trap32.S/trap64.S push. */
struct frame {
#ifdef GUEST64
	ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, dx, cx, bx, ax;
	ulong vec, err, ip, cs, flags, sp, ss;
#else
	ulong ss_now, gs, fs, es, ds, di, si, bp, sp_pusha, bx, dx, cx, ax;
	ulong vec, err, ip, cs, flags;
	ulong sp, ss;                 /* only after a change of privilege */
	ulong v_es, v_ds, v_fs, v_gs; /* only from virtual-8086 mode */
#endif
};

struct trap {
	long vec; /* -1: none */
	ulong err, ip, cs, flags, sp, ss;
	ulong cr2, dr6;
	ulong ax, bx, cx, dx, si, di, bp, r11;
	ulong es, ds, fs, gs; /* 32-bit guests: as interrupted */
};

struct catch_buf {
	ulong regs[8]; /* trap_setjmp's layout */
};

struct cpu {
	struct trap *trap[4];
	struct catch_buf buf[4];
	unsigned level;
	void (*volatile fn)(void *arg);
	void *arg;
	volatile unsigned started, done;
	unsigned index, apic_id;
};

struct tss64 {
	u32 rsv0;
	u64 rsp[3];
	u64 rsv1;
	u64 ist[8]; /* [0] is IST1 */
	u16 rsv2, iomap;
	u8 bitmap[32];
} __attribute__((packed));

struct tss32 {
	u16 link, l0;
	u32 esp0;
	u16 ss0, l1;
	u32 esp1;
	u16 ss1, l2;
	u32 esp2;
	u16 ss2, l3;
	u32 cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u16 es, e0, cs, e1, ss, e2, ds, e3, fs, e4, gs, e5, ldt, e6;
	u16 trap, iomap;
	u8 bitmap[8196];
} __attribute__((packed));

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(ident) \
	static void tcase_##ident(void); \
	static const struct test entry_##ident __attribute__(( \
		used, section("tests"), aligned(sizeof(void *)))) = { #ident, tcase_##ident }; \
	static void tcase_##ident(void)

/* Both go on after a failure; the first one is reported. Values are printed in hexadecimal. */
#define CHECK(cond) \
	do { \
		if (!(cond)) \
			test_fail(__FILE__, __LINE__, #cond, 0, 0, false); \
	} while (0)
#define CHECK_EQ(a, b) \
	do { \
		u64 va_ = (u64)(a), vb_ = (u64)(b); \
		if (va_ != vb_) \
			test_fail(__FILE__, __LINE__, #a " == " #b, va_, vb_, true); \
	} while (0)
/* The exception and its error code. */
#define CHECK_TRAP(t, v, e) \
	do { \
		CHECK_EQ((t).vec, v); \
		CHECK_EQ((t).err, e); \
	} while (0)
#define SKIP(why) \
	do { \
		test_skip(why); \
		return; \
	} while (0)

/* Assembly with a label that C sees as u8 ident[]; ring-3 code ends with USER_END. */
#define SNIPPET(ident, text) \
	__asm__(".pushsection .text\n\t.global " #ident "\n" #ident ":\n\t" text \
		"\n\t.popsection\n"); \
	extern u8 ident[]
#define USER_END "int $0x40\n\t"

#define CATCH(t, ...) \
	do { \
		if (trap_setjmp(trap_arm(&(t))) == 0) { \
			__VA_ARGS__; \
		} \
		trap_disarm(); \
	} while (0)

/* lib.c */
void guest_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void test_fail(const char *file, int line, const char *text, u64 a, u64 b, bool values);
void test_skip(const char *why);
extern volatile bool test_failed;

bool cmdline_has(const char *word);
void *guest_memset(void *p, int c, size_t n);
void *guest_memcpy(void *d, const void *s, size_t n);
int guest_memcmp(const void *a, const void *b, size_t n);

/* trap.c and trap32.S/trap64.S */
struct catch_buf *trap_arm(struct trap *t);
int trap_setjmp(struct catch_buf *b) __attribute__((returns_twice));
void trap_disarm(void);
void trap_hook(unsigned vec, void (*fn)(struct frame *f)); /* NULL: catch again */
void trap_init(unsigned cpu);
void trap_dispatch(struct frame *f);
struct cpu *cpu_self(void);
void idt_set(unsigned vec, u16 sel, ulong off, u8 type_dpl, u8 ist);
void idt_default(unsigned vec);
void gdt_set(u16 sel, u64 desc);
u64 gdt_get(u16 sel);
/*
 * Run code at ring 3 (or wherever the selectors say) until it traps; fills t as CATCH does. r is
 * loaded into di, si, dx, cx in that order and may be NULL.
 */
void run_at(struct trap *t, u16 cs, u16 ss, ulong ip, ulong sp, ulong flags, const ulong *r);
void run_user(struct trap *t, const void *fn, ulong arg);

extern u64 gdt[GDT_ENTRIES];
extern u8 user_stack_top[];
#ifdef GUEST64
extern struct tss64 tss[MAX_CPUS];
#else
extern struct tss32 tss[1];
#endif
extern struct cpu cpus[MAX_CPUS];
extern u64 idt[512];
extern u32 boot_info[2]; /* eax, ebx from the loader */

/* smp.c, 64-bit guests only */
unsigned smp_boot(void); /* CPUs running, the boot CPU included; a second call only returns it */
void smp_start(unsigned cpu, void (*fn)(void *arg), void *arg);
void smp_wait(unsigned cpu);

/* A descriptor; access is the byte with P, DPL, S and type; flags is G, D/B, L, AVL as 0xGDLA. */
static inline u64 make_desc(u32 base, u32 limit, u8 access, u8 flags)
{
	return (u64)(limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)((limit >> 16) & 0xf) << 48 | (u64)(flags & 0xf) << 52 |
	       (u64)(base >> 24) << 56;
}

#endif
