/*
 * Stack switching. See coro.h.
 *
 * The switch saves what the ABI says a callee must: rbx, rbp, r12-r15, rsp, MXCSR and the x87
 * control word. Everything else is dead across a call.
 */
#include "base/coro.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CORO_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CORO_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define CORO_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define CORO_TSAN 1
#endif
#ifdef CORO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CORO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

struct coro {
	void *sp;        /* its stack pointer while it is not running */
	void *caller_sp; /* resumer's stack pointer while it runs */
	void (*fn)(void *arg);
	void *arg;
	char *map; /* guard page and stack */
	size_t map_len;
#ifdef CORO_ASAN
	void *fake, *caller_fake;
	const void *caller_bottom;
	size_t caller_size;
#endif
#ifdef CORO_TSAN
	void *fiber, *caller_fiber;
#endif
	bool done;
};

/* void coro_switch(void **save, void *to): push state, *save = rsp, rsp = to, pop state, ret. */
void coro_switch(void **save, void *to);
void coro_entry(void);

__asm__(".text\n"
	".p2align 4\n"
	".hidden coro_switch\n"
	".globl coro_switch\n"
	".type coro_switch, @function\n"
	"coro_switch:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	sub $8, %rsp\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	add $8, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size coro_switch, . - coro_switch\n"
	/* First switch "returns" here with the coroutine in rbx and the stack aligned. */
	".hidden coro_entry\n"
	".globl coro_entry\n"
	".type coro_entry, @function\n"
	"coro_entry:\n"
	"	mov %rbx, %rdi\n"
	"	xor %ebp, %ebp\n"
	"	call coro_main\n"
	"	ud2\n"
	".size coro_entry, . - coro_entry\n");

static void coro_enter_done(struct coro *c)
{
#ifdef CORO_ASAN
	__sanitizer_finish_switch_fiber(c->fake, &c->caller_bottom, &c->caller_size);
#endif
	(void)c;
}

__attribute__((used, noreturn, visibility("hidden"))) void coro_main(struct coro *c);
void coro_main(struct coro *c)
{
	coro_enter_done(c);
	c->fn(c->arg);
	c->done = true;
#ifdef CORO_ASAN
	__sanitizer_start_switch_fiber(NULL, c->caller_bottom, c->caller_size);
#endif
#ifdef CORO_TSAN
	__tsan_switch_to_fiber(c->caller_fiber, 0);
#endif
	coro_switch(&c->sp, c->caller_sp);
	__builtin_trap();
}

int coro_new(struct coro **out, size_t stack, void (*fn)(void *arg), void *arg, struct err *e)
{
	struct coro *c = calloc(1, sizeof(*c));
	uint64_t *sp;

	if (!c)
		return err_set(e, ENOMEM, "no memory for a coroutine");
	c->map_len = ((stack + 4095) & ~(size_t)4095) + 4096;
	c->map = mmap(NULL, c->map_len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->map == MAP_FAILED || mprotect(c->map, 4096, PROT_NONE)) {
		if (c->map != MAP_FAILED)
			munmap(c->map, c->map_len);
		free(c);
		return err_set(e, ENOMEM, "no memory for a coroutine stack");
	}
	c->fn = fn;
	c->arg = arg;
	sp = (uint64_t *)(c->map + c->map_len);
	sp -= 2; /* coro_entry starts with rsp % 16 == 0, as before a call */
	sp[0] = sp[1] = 0;
	*--sp = (uint64_t)(uintptr_t)coro_entry;
	*--sp = 0;                      /* rbp */
	*--sp = (uint64_t)(uintptr_t)c; /* rbx */
	sp -= 4;                        /* r12..r15 */
	memset(sp, 0, 32);
	--sp;
	__asm__ volatile("stmxcsr (%0)\n\tfnstcw 4(%0)" ::"r"(sp) : "memory");
	c->sp = sp;
#ifdef CORO_TSAN
	c->fiber = __tsan_create_fiber(0);
#endif
	*out = c;
	return 0;
}

void coro_resume(struct coro *c)
{
#ifdef CORO_ASAN
	__sanitizer_start_switch_fiber(&c->caller_fake, c->map + 4096, c->map_len - 4096);
#endif
#ifdef CORO_TSAN
	c->caller_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(c->fiber, 0);
#endif
	coro_switch(&c->caller_sp, c->sp);
#ifdef CORO_ASAN
	__sanitizer_finish_switch_fiber(c->caller_fake, NULL, NULL);
#endif
}

void coro_yield(struct coro *c)
{
#ifdef CORO_ASAN
	__sanitizer_start_switch_fiber(&c->fake, c->caller_bottom, c->caller_size);
#endif
#ifdef CORO_TSAN
	__tsan_switch_to_fiber(c->caller_fiber, 0);
#endif
	coro_switch(&c->sp, c->caller_sp);
	coro_enter_done(c);
}

void coro_free(struct coro *c)
{
	if (!c)
		return;
#ifdef CORO_TSAN
	__tsan_destroy_fiber(c->fiber);
#endif
#ifdef CORO_ASAN
	/* frames that never returned have left marks; the addresses will be somebody else's memory */
	__asan_unpoison_memory_region(c->map, c->map_len);
#endif
	munmap(c->map, c->map_len);
	free(c);
}
