/*
 * Looking at the translator: counters, counted executions, what is logged, the perf map.
 * References: kvm/x86/jit/watch.h.
 */
#include "unit/longtest.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { LOOPS = 100 };

/* A loop, then I/O so that KVM_RUN ends, and again from the start. */
static const uint8_t code[] = {
	0xb9, LOOPS, 0,    0,    0,          /* mov ecx, LOOPS */
	0x83, 0xc0,  0x03,                   /* add eax, 3 */
	0x8b, 0x14,  0x25, 0x00, 0x20, 0, 0, /* mov edx, [LT_DATA] */
	0xff, 0xc9,                          /* dec ecx */
	0x75, 0xf2,                          /* jnz to the add */
	0xd7,                                /* xlatb: the interpreter's */
	0x90,                                /* nop */
	0xe6, 0xe9,                          /* out 0xe9, al */
	0xeb, 0xe7,                          /* jmp to the start */
};
enum { LOOP = KT_CODE + 5, LOOP_INSNS = 4 };

static const struct jit_block *watch_block(struct kt *t, gva_t la)
{
	struct jit *j = t->cpu->vcpu->jitp;

	for (unsigned n = 0; n < JIT_HASH; n++)
		for (const struct jit_block *b = j->hash[n]; b; b = b->hash_next)
			if (b->la == la)
				return b;
	return NULL;
}

static void watch_run(struct kt *t, unsigned times)
{
	for (unsigned n = 0; n < times; n++)
		kt_run(t, KVM_EXIT_IO);
}

static char *watch_info(struct kt *t)
{
	char *text = NULL;

	assert_int_equal(kvm_vm_jit_info(t->vm, &text), 0);
	assert_non_null(text);
	return text;
}

static void test_counters(void **state)
{
	const struct kvm_options o = { .jit_heat = 1, .jit_trace = ~0u };
	struct jit_stat *s;
	char *text;
	struct kt t;
	struct jit *j;

	if (!lt_open(&t, &o, code, sizeof(code))) {
		skip();
		return;
	}
	watch_run(&t, 3);
	j = t.cpu->vcpu->jitp;
	s = &j->stat;
	assert_in_range(s->blocks, 2, 8);
	assert_in_range(s->insns, s->blocks, 32);
	assert_in_range(s->bytes, s->insns, 8 * sizeof(code));
	assert_int_equal(s->host_bytes, j->used - j->glue_end);
	assert_true(s->ns > 0);
	assert_true(s->exits > 0 && s->links > 0 && s->tlb_fills > 0);
	assert_true(j->calls[I_XLAT] >= 1);
	assert_int_equal(s->invalidated, 0);
	text = watch_info(&t);
	assert_non_null(strstr(text, "XLAT\n"));
	assert_null(strstr(text, "Hottest blocks"));
	free(text);

	/* bytes of a block are written */
	t.ram[LOOP + 2] = 4;
	kvm_vm_memory_written(t.vm, LOOP + 2, 1);
	watch_run(&t, 2);
	assert_true(s->invalidated > 0);
	kt_close(&t);
}

/* A vCPU in KVM_RUN has its lock. */
static void test_busy(void **state)
{
	char *text = NULL;
	struct kt t;

	kt_open(&t, 0, code, sizeof(code));
	pthread_mutex_lock(&t.cpu->vcpu->lock);
	assert_int_equal(kvm_vm_jit_info(t.vm, &text), -EBUSY);
	pthread_mutex_unlock(&t.cpu->vcpu->lock);
	assert_int_equal(kvm_vm_jit_info(t.vm, &text), 0);
	free(text);
	kt_close(&t);
}

/* Each execution is counted, also over invalidation and a flush. */
static void test_profile(void **state)
{
	const struct kvm_options o = { .jit_heat = 1, .jit_trace = ~0u, .jit_profile = true };
	const struct jit_block *b;
	uint64_t before;
	char want[80], *text;
	struct kt t;

	if (!lt_open(&t, &o, code, sizeof(code))) {
		skip();
		return;
	}
	watch_run(&t, 4);
	b = watch_block(&t, LOOP);
	assert_non_null(b);
	assert_int_equal(b->n, LOOP_INSNS);
	before = b->runs;
	watch_run(&t, 1);
	/* the first turn belongs to the block that begins with MOV */
	assert_int_equal(watch_block(&t, LOOP)->runs, before + LOOPS - 1);
	before += LOOPS - 1;

	t.ram[LOOP + 2] = 4;
	kvm_vm_memory_written(t.vm, LOOP + 2, 1);
	watch_run(&t, 1);
	b = watch_block(&t, LOOP);
	assert_non_null(b);
	assert_in_range(b->runs, LOOPS - 3, LOOPS);
	before += b->runs;
	jit_flush(t.cpu->vcpu);
	assert_null(watch_block(&t, LOOP));
	text = watch_info(&t);
	snprintf(want, sizeof(want), "%12llu %6u ", (unsigned long long)before, LOOP_INSNS);
	if (!strstr(text, want))
		fail_msg("no '%s' in\n%s", want, text);
	snprintf(want, sizeof(want), "0x%016llx kernel\n", (unsigned long long)LOOP);
	assert_non_null(strstr(text, want));
	free(text);
	kt_close(&t);
}

/* What is written to standard error while the code runs; allocated. NULL: no translator. */
static char *watch_log(const struct kvm_options *o)
{
	FILE *f = tmpfile();
	int saved = dup(STDERR_FILENO);
	char *text = calloc(1, 1 << 20);
	struct kt t;
	bool there;

	assert_non_null(f);
	assert_non_null(text);
	dup2(fileno(f), STDERR_FILENO);
	there = lt_open(&t, o, code, sizeof(code));
	if (there) {
		watch_run(&t, 3);
		kt_close(&t);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(f);
	assert_true(fread(text, 1, (1 << 20) - 1, f) < (1 << 20) - 1);
	fclose(f);
	if (there)
		return text;
	free(text);
	return NULL;
}

static void test_log(void **state)
{
	struct kvm_options o = { .jit_heat = 1, .jit_trace = ~0u, .jit_log = KVM_LOG_IN_ASM };
	char *text = watch_log(&o);

	if (!text) {
		skip();
		return;
	}
	assert_non_null(strstr(text, "IN: kernel, 4 instructions\n"));
	assert_non_null(strstr(text, "0x0000000000001005:  83 c0 03 "));
	assert_non_null(strstr(text, " add eax, 0x3\n"));
	assert_non_null(strstr(text, " jne 0x1005\n"));
	assert_null(strstr(text, "OUT:"));
	free(text);

	o.jit_log = KVM_LOG_OUT_ASM;
	text = watch_log(&o);
	assert_null(strstr(text, "IN:"));
	assert_non_null(strstr(text, " bytes for 0x1005\n"));
	assert_non_null(strstr(text, " add eax, 0x3\n"));
	/* calls of the glue have names, and say what for */
	assert_non_null(strstr(text, "call interpret\n"));
	assert_non_null(strstr(text, "; for xlatb\n"));
	assert_null(strstr(text, ".byte"));
	free(text);
}

/* A loop that has become a trace: kernel code that is where kernels are. */
static void test_trace(void **state)
{
	const struct kvm_options o = { .jit_heat = 1, .jit_trace = 20, .jit_profile = true };
	struct jit_block *b;
	struct kvm_regs r;
	char want[80], *text;
	struct kt t;

	if (!lt_open(&t, &o, code, sizeof(code))) {
		skip();
		return;
	}
	assert_int_equal(kt_cpu(&t, KVM_GET_REGS, &r), 0);
	r.rip += LT_HIGH;
	assert_int_equal(kt_cpu(&t, KVM_SET_REGS, &r), 0);
	watch_run(&t, 10);
	assert_true(t.cpu->vcpu->jitp->stat.traces > 0);
	b = jit_cache_find(t.cpu->vcpu->jitp, LT_HIGH + LOOP, t.ram + LOOP, TLB_KERNEL, true);
	assert_non_null(b);
	assert_true(b->n > LOOP_INSNS); /* several times */
	assert_int_equal(jit_block_rip(b, LOOP_INSNS), LT_HIGH + LOOP);
	assert_ptr_equal(jit_block_bytes(b, LT_HIGH + LOOP + 3), t.ram + LOOP + 3);
	assert_in_range(b->runs, 1, 10 * LOOPS);
	text = watch_info(&t);
	snprintf(want, sizeof(want), "0x%016llx kernel trace\n",
		 (unsigned long long)LT_HIGH + LOOP);
	if (!strstr(text, want))
		fail_msg("no '%s' in\n%s", want, text);
	free(text);
	kt_close(&t);
}

static void test_log_range(void **state)
{
	struct kvm_options o = { .jit_heat = 1,
				 .jit_trace = ~0u,
				 .jit_log = KVM_LOG_IN_ASM,
				 .jit_log_range = { { 0, LOOP - 1 } },
				 .jit_log_ranges = 1 };
	char *text = watch_log(&o);

	if (!text) {
		skip();
		return;
	}
	/* the block that begins with MOV, and no other */
	assert_non_null(strstr(text, "mov ecx, 0x64\n"));
	if (strstr(strstr(text, "IN:") + 1, "IN:"))
		fail_msg("more than one block:\n%s", text);
	free(text);
	o.jit_log_range[0] = (struct kvm_range){ 0x100000, UINT64_MAX };
	text = watch_log(&o);
	assert_string_equal(text, "");
	free(text);
}

static void test_cache_size(void **state)
{
	const struct kvm_options o = { .jit_cache_mib = KVM_JIT_CACHE_MOST + 1 };
	struct kvm_file *f = NULL;
	struct err e = { 0 };

	assert_int_equal(kvm_open(&o, &f, &e), -EINVAL);
	assert_string_equal(e.msg, "1025 MiB of translated code a vCPU: at most 1024");
}

static void test_perf_map(void **state)
{
	const struct kvm_options o = { .jit_heat = 1, .jit_trace = ~0u, .jit_perf_map = true };
	const struct jit_block *b;
	char path[64], line[200], want[200];
	bool block = false, glue = false, old = false;
	unsigned long long from, size;
	const struct jit *j;
	struct kt t;
	FILE *f;

	snprintf(path, sizeof(path), "/tmp/perf-%ld.map", (long)getpid());
	f = fopen(path, "w"); /* of a process that had this number before */
	assert_non_null(f);
	fputs("1000 10 old\n", f);
	fclose(f);
	if (!lt_open(&t, &o, code, sizeof(code))) {
		unlink(path);
		skip();
		return;
	}
	watch_run(&t, 3);
	j = t.cpu->vcpu->jitp;
	b = watch_block(&t, LOOP);
	assert_non_null(b);
	snprintf(want, sizeof(want), "%llx %x kernel:0x1005\n",
		 (unsigned long long)((uintptr_t)j->rx + b->entry_mem), b->size);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(sscanf(line, "%llx %llx ", &from, &size), 2);
		old |= strstr(line, "old") != NULL;
		block |= !strcmp(line, want);
		glue |= strstr(line, " glue:enter\n") != NULL;
		assert_true(from >= (uintptr_t)j->rx && from + size <= (uintptr_t)j->rx + j->used);
	}
	fclose(f);
	assert_true(block && glue && !old);
	kt_close(&t);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counters),   cmocka_unit_test(test_busy),
		cmocka_unit_test(test_profile),    cmocka_unit_test(test_log),
		cmocka_unit_test(test_log_range),  cmocka_unit_test(test_perf_map),
		cmocka_unit_test(test_cache_size), cmocka_unit_test(test_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
