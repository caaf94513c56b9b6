/*
 * Code that other vCPUs write while it is decoded: three vCPUs for some seconds, in 64-bit mode.
 *
 * constants  one writes the constant of an instruction, on a new page after some writes; the others
 *            run it after a serialising instruction: never older than what was published before
 * page_end   the last byte of a page is by turns a RET and the first byte of an instruction that
 *            goes on in the next page; one runs it, another has new code all the time, so that
 *            all are asked to flush their TLBs
 *
 * References: [SDM3 8.1.3], kvm/vm.h "Code pages".
 */
#include <pthread.h>
#include <unistd.h>

#include "unit/longtest.h"

enum { NV = 3, SECONDS = 3 };
enum { PAGES = 0x1000000, PAGES_END = 0x4000000, OTHER_END = 0x7000000 };
enum { V_CODE = 0x2000, V_PUBLISHED = 0x2040, V_WRONG = 0x2080, V_TURNS = 0x20c0 };

/* nop; mov $constant, %eax; ret, with the constant at an aligned address. */
__asm__(".pushsection .rodata\n"
	".global constants_write, constants_run, constants_end\n"
	"constants_write: xor %edx, %edx\n"
	"1: mov $0x1000000, %ebx\n"
	"2: movl $0xb8001f0f, (%rbx)\n"
	"mov %edx, 4(%rbx)\n"
	"movb $0xc3, 8(%rbx)\n"
	"mov %rbx, 0x2000\n"
	"mov $48, %ecx\n"
	"3: inc %edx\n"
	"mov %edx, 4(%rbx)\n"
	"mov %edx, 0x2040\n"
	"mov $100, %eax\n"
	"4: pause\n"
	"dec %eax\n"
	"jnz 4b\n"
	"dec %ecx\n"
	"jnz 3b\n"
	"add $0x1000, %ebx\n"
	"cmp $0x4000000, %ebx\n"
	"jb 2b\n"
	"jmp 1b\n"
	"constants_run: mov 0x2040, %esi\n"
	"mov 0x2000, %rdi\n"
	"xor %eax, %eax\n"
	"cpuid\n"
	"test %rdi, %rdi\n"
	"jz constants_run\n"
	"call *%rdi\n"
	"lock incl 0x20c0\n"
	"cmp %esi, %eax\n"
	"jae constants_run\n"
	"lock incl 0x2080\n"
	"jmp constants_run\n"
	"constants_end:\n"
	".popsection\n");
extern const char constants_write[], constants_run[], constants_end[];

/* A page begins with a constant and a RET, for what its predecessor ends with. */
__asm__(".pushsection .rodata\n"
	".global end_run, end_write, end_other, end_end\n"
	"end_run: mov 0x2000, %rdi\n"
	"test %rdi, %rdi\n"
	"jz end_run\n"
	"mov $-1, %eax\n"
	"call *%rdi\n"
	"lock incl 0x20c0\n"
	"cmp $-1, %eax\n"
	"je end_run\n"
	"cmp $0x12345678, %eax\n"
	"je end_run\n"
	"lock incl 0x2080\n"
	"jmp end_run\n"
	"end_write: mov $0x1000fff, %ebx\n"
	"1: movl $0x12345678, 1(%rbx)\n"
	"movb $0xc3, 5(%rbx)\n"
	"movb $0xc3, (%rbx)\n"
	"mov %rbx, 0x2000\n"
	"mov $40, %ecx\n"
	"2: movb $0xb8, (%rbx)\n"
	".rept 40\n pause\n .endr\n"
	"movb $0xc3, (%rbx)\n"
	".rept 40\n pause\n .endr\n"
	"dec %ecx\n"
	"jnz 2b\n"
	"add $0x1000, %ebx\n"
	"cmp $0x3f00000, %ebx\n"
	"jb 1b\n"
	"jmp end_write\n"
	"end_other: mov $0x4000000, %ebx\n"
	"1: mov $14, %ecx\n"
	"2: movb $0xc3, (%rbx)\n"
	"call *%rbx\n"
	"dec %ecx\n"
	"jnz 2b\n"
	"add $0x1000, %ebx\n"
	"cmp $0x7000000, %ebx\n"
	"jb 1b\n"
	"jmp end_other\n"
	"end_end:\n"
	".popsection\n");
extern const char end_run[], end_write[], end_other[], end_end[];

static atomic_bool stop;

static void *run(void *arg)
{
	struct kvm_file *cpu = arg;
	long r;

	do
		r = kvm_file_ioctl(cpu, KVM_RUN, 0, NULL);
	while (r == -EINTR && !stop);
	return (void *)r;
}

/* Each vCPU at its entry for some seconds; then nothing may have been wrong. */
static void together(const struct kvm_options *o, const char *code, size_t len,
		     const char *const entry[NV])
{
	uint8_t *big = mmap(NULL, OTHER_END - PAGES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_file *cpu[NV];
	struct kvm_sregs sr;
	pthread_t thread[NV];
	uint32_t wrong, turns;
	struct kt t;

	if (!lt_open(&t, o, code, len))
		skip();
	assert_ptr_not_equal(big, MAP_FAILED);
	assert_int_equal(kt_slot(&t, 1, 0, PAGES, OTHER_END - PAGES, big), 0);
	for (uint64_t n = PAGES >> 21; n < OTHER_END >> 21; n++) {
		uint64_t large = n << 21 | 0x83;

		memcpy(t.ram + LT_PD + 8 * n, &large, 8);
	}
	assert_int_equal(kt_cpu(&t, KVM_GET_SREGS, &sr), 0);
	for (unsigned n = 0; n < NV; n++) {
		struct kvm_regs regs = { .rflags = 2,
					 .rsp = 0x9000 + 0x1000 * n,
					 .rip = KT_CODE + (uint64_t)(entry[n] - code) };

		cpu[n] = t.cpu;
		if (n)
			assert_int_equal(kvm_file_ioctl(t.vm, KVM_CREATE_VCPU, n, &cpu[n]), 0);
		assert_int_equal(kvm_file_ioctl(cpu[n], KVM_SET_SREGS, (uintptr_t)&sr, NULL), 0);
		assert_int_equal(kvm_file_ioctl(cpu[n], KVM_SET_REGS, (uintptr_t)&regs, NULL), 0);
	}
	stop = false;
	for (unsigned n = 0; n < NV; n++)
		assert_int_equal(pthread_create(&thread[n], NULL, run, cpu[n]), 0);
	sleep(SECONDS);
	stop = true;
	for (unsigned n = 0; n < NV; n++) {
		void *r;

		kvm_vcpu_kick_user(cpu[n]);
		assert_int_equal(pthread_join(thread[n], &r), 0);
		assert_int_equal((long)r, -EINTR);
	}
	memcpy(&wrong, t.ram + V_WRONG, 4);
	memcpy(&turns, t.ram + V_TURNS, 4);
	assert_int_equal(wrong, 0);
	assert_true(turns > 0);
	for (unsigned n = 1; n < NV; n++)
		kvm_file_close(cpu[n]);
	kt_close(&t);
	munmap(big, OTHER_END - PAGES);
}

/* Blocks that never become hot, and those that do at once. */
static const struct kvm_options interpreted = { .jit_heat = ~0u }, translated = { .jit_heat = 1 };

static void constants(void **state)
{
	const char *const entry[NV] = { constants_run, constants_run, constants_write };

	together(*state, constants_write, (size_t)(constants_end - constants_write), entry);
}

static void page_end(void **state)
{
	const char *const entry[NV] = { end_run, end_write, end_other };

	together(*state, end_run, (size_t)(end_end - end_run), entry);
}

#define CODE_TEST(fn, how) \
	{ \
#fn ", " #how, fn, NULL, NULL, (void *)(uintptr_t) & (how) \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CODE_TEST(constants, interpreted),
		CODE_TEST(constants, translated),
		CODE_TEST(page_end, interpreted),
		CODE_TEST(page_end, translated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
