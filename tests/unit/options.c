/*
 * The command line: every documented option parses, what is wrong is refused with a line that
 * helps, and topology and CPUID come out as asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "machine/cpuid.h"
#include "main/keyval.h"
#include "main/options.h"

enum { ARGS = 24 };

/* Split at blanks ('~' stands for one inside an argument) and parse. */
static int parse(struct options *o, const char *line, struct err *e)
{
	static char buf[512];
	char *argv[ARGS] = { "kvasir" }, *save;
	int argc = 1;

	memset(o, 0, sizeof(*o));
	memset(e, 0, sizeof(*e));
	o->out = fopen("/dev/null", "w");
	snprintf(buf, sizeof(buf), "%s", line);
	for (char *s = strtok_r(buf, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		for (char *t = s; *t; t++)
			*t = *t == '~' ? ' ' : *t;
		assert_true(argc < ARGS);
		argv[argc++] = s;
	}
	return options_parse(o, argc, argv, e);
}

static void done(struct options *o)
{
	if (o->out)
		fclose(o->out);
	options_free(o);
}

static void good(struct options *o, const char *line)
{
	struct err e;

	if (parse(o, line, &e) < 0)
		fail_msg("'%s' is refused: %s", line, e.msg);
}

/* Each option of the table, with its own example. */
static void test_every_option(void **state)
{
	unsigned n = 0;

	for (unsigned i = 0; options_row(i); i++) {
		const struct option_row *r = options_row(i);
		struct options o;
		char line[300];

		if (!r->fn)
			continue;
		assert_true(!r->arg == !r->example);
		assert_non_null(r->help);
		snprintf(line, sizeof(line), "-kernel k -%s %s", r->name, r->arg ? r->example : "");
		good(&o, line);
		done(&o);
		snprintf(line, sizeof(line), "-kernel k --%s %s", r->name,
			 r->arg ? r->example : "");
		good(&o, line);
		done(&o);
		n++;
	}
	assert_true(n > 30);
}

static void test_help(void **state)
{
	char *text = NULL, *argv[] = { "kvasir", "-help" };
	size_t len = 0;
	struct options o = { .out = open_memstream(&text, &len) };
	struct err e;

	assert_int_equal(options_parse(&o, 2, argv, &e), 0);
	assert_true(o.done);
	fclose(o.out);
	for (unsigned i = 0; options_row(i); i++) {
		char want[80];

		snprintf(want, sizeof(want), options_row(i)->fn ? "\n  -%s" : "\n%s:\n",
			 options_row(i)->name);
		if (!strstr(text, want))
			fail_msg("-help does not show '%s'", want);
	}
	free(text);
	options_free(&o);
	good(&o, "-device help");
	assert_true(o.done);
	done(&o);
	good(&o, "-device isa-debug-exit,help");
	assert_true(o.done);
	done(&o);
	good(&o, "-cpu help");
	done(&o);
	good(&o, "-machine help");
	done(&o);
	good(&o, "-version");
	done(&o);
}

static const struct {
	const char *line, *says;
} wrong[] = {
	{ "", "nothing to boot" },
	{ "-kernel", "-kernel needs an argument: -kernel FILE" },
	{ "-kernal x", "did you mean kernel?" },
	{ "-smpp 2", "did you mean smp?" },
	{ "-nografic", "did you mean nographic?" },
	{ "-xyzzyplugh", "unknown option '-xyzzyplugh'" },
	{ "-drive file=x,if=ide", "use if=virtio" },
	{ "-drive if=none", "file=FILE is needed" },
	{ "-drive file=x,cache=fast", "writeback, none, writethrough, directsync, unsafe exist" },
	{ "-drive file=x,aio=native", "io_uring" },
	{ "-drive file=x,formt=raw", "format" },
	{ "-drive file=x,format=qcow3", "qcow2" },
	{ "-drive file=x,bps=1M,bps_rd=1M", "cannot be used together" },
	{ "-drive file=x,detect-zeroes=unmap", "discard=unmap" },
	{ "-drive file=x,index=1 -drive file=y,index=1", "index 1" },
	{ "-drive file=x,id=a -drive file=y,id=a", "the id 'a' is taken" },
	{ "-hda x -hda y", "index 0" },
	{ "-blockdev driver=raw,node-name=a", "file=NODE-NAME" },
	{ "-blockdev driver=raw,node-name=a,file=b", "'b'" },
	{ "-blockdev driver=file,node-name=a", "filename=FILE is needed" },
	{ "-blockdev driver=file,filename=x", "node-name=NAME is needed" },
	{ "-blockdev {}", "driver=" },
	{ "-blockdev {\"driver\":\"raw\"", "',' or '}'" },
	{ "-blockdev {\"a\":1,\"a\":2}", "second time" },
	{ "-blockdev {\"a\":[1]}", "arrays" },
	{ "-blockdev {\"a\":\"\\uD800\"}", "surrogate" },
	{ "-blockdev {\"driver\":\"file\",\"node-name\":\"n\",\"filename\":\"x\",\"z\":1}", "z" },
	{ "-S", "needs a monitor" },
	{ "-bios x", "no firmware yet" },
	{ "k1 k2", "there is a kernel already ('k1')" },
	{ "-initrd x", "-initrd needs -kernel" },
	{ "-append x", "-append needs -kernel" },
	{ "k -m 0", "4M to 1T" },
	{ "k -m 1", "4M to 1T" },
	{ "k -m -5", "'-5' is no size" },
	{ "k -m 12x", "'12x' is no size" },
	{ "k -m 12MM", "is no size" },
	{ "k -m 0x100", "is no size" },
	{ "k -m inf", "is no size" },
	{ "k -m nan", "is no size" },
	{ "k -m 2T", "4M to 1T" },
	{ "k -m 99999999999999T", "more than any machine" },
	{ "k -m ,", "a size is needed" },
	{ "k -m size=", "a size is needed" },
	{ "k -m siz=5", "a size is needed" },
	{ "k -m 512,maxmem=2G", "maxmem" },
	{ "k -smp 0", "a number from 1 to" },
	{ "k -smp 9999", "a number from 1 to" },
	{ "k -smp -1", "a number from 1 to" },
	{ "k -smp two", "a number from 1 to" },
	{ "k -smp 4,cores=3", "not maxcpus" },
	{ "k -smp 4,maxcpus=2", "is less than cpus" },
	{ "k -smp 4,corse=2", "did you mean cores?" },
	{ "k -smp 4,dies=2", "dies=2" },
	{ "k -cpu pentium", "unknown model 'pentium'" },
	{ "k -cpu host,+avxx", "did you mean avx" },
	{ "k -cpu host,avx=maybe", "on or off" },
	{ "k -accel kmv", "did you mean kvm?" },
	{ "k -accel xen", "kvm and soft exist" },
	{ "k -accel kvm,jit=on", "no property 'jit'" },
	{ "k -accel soft,jti=off", "did you mean jit?" },
	{ "k -machine isapc", "unknown machine 'isapc'" },
	{ "k -machine microvn", "did you mean microvm?" },
	{ "k -machine microvm,acip=on", "did you mean acpi?" },
	{ "k -machine microvm,acpi=perhaps", "on or off" },
	{ "k -machine microvm,pit=off", "not supported" },
	{ "k -serial sdtio", "did you mean stdio?" },
	{ "k -serial tcp:localhost", "HOST:PORT is needed" },
	{ "k -serial vc", "no display" },
	{ "k -serial file:", "a path is needed" },
	{ "k -serial stdio -chardev stdio,id=a", "more than one" },
	{ "k -serial null -serial null -serial null -serial null -serial null", "4 serial ports" },
	{ "k -chardev null", "an id is needed" },
	{ "k -chardev nil,id=a", "unknown backend 'nil'" },
	{ "k -chardev file,id=a", "needs path" },
	{ "k -chardev null,id=a,path=x", "has no property 'path'" },
	{ "k -chardev socket,id=a,path=x,websocket=on", "websocket is not supported" },
	{ "k -chardev null,id=a -chardev null,id=a", "taken" },
	{ "k -device isa-debug-exi", "did you mean isa-debug-exit?" },
	{ "k -device e1000", "-device" },
	{ "k -rtc clock=vm", "only host" },
	{ "k -rtc bas=utc", "did you mean base?" },
	{ "k -uuid 12", "a UUID looks like" },
	{ "k -display gtk", "-display gtk is not supported" },
	{ "k -vga std", "only -vga none" },
	{ "k -nic usr", "did you mean user?" },
	{ "k -nic none,mac=52:54:00:12:34:56", "takes nothing else" },
	{ "k -nic stream,addr.type=unix,addr.path=/x,mac=1", "an address looks like" },
	{ "k -nic tap,ifnam=x", "did you mean ifname?" },
	{ "k -nic bridge", "ifname=" },
	{ "k -netdev tap", "an id is needed" },
	{ "k -netdev tap,id=a -netdev tap,id=a", "taken" },
	{ "k -netdev tap,id=a,vhost=on,vnet_hdr=off", "needs vnet_hdr" },
	{ "k -netdev hubport,id=a,hubid=0", "no hubs" },
	{ "k -net nic", "add -net user" },
	{ "k -net tap", "add -net nic" },
	{ "k -net nic -net nic -net tap", "no hubs" },
	{ "k -net nic -net tap -net tap", "no hubs" },
	{ "k -monitor stdio", "only -monitor none" },
	{ "k -boot menu=on", "not supported" },
	{ "k -boot ordr=c,xx=1", "unknown property" },
	{ "k -d op", "no intermediate code" },
	{ "k -d in_asm,exec", "jit-profile=on" },
	{ "k -d trace:serial0", "device's name alone" },
	{ "k -dfilter 0x1000", "a range looks like" },
	{ "k -dfilter 0x1000+0", "a range looks like" },
	{ "k -dfilter 0x1000-0x1002", "a range looks like" },
	{ "k -dfilter 0xffffffffffffffff+2", "a range looks like" },
	{ "k -dfilter 2..1", "a range looks like" },
	{ "k -dfilter -1..5", "a range looks like" },
	{ "k -dfilter 1..2..3", "a range looks like" },
	{ "k -dfilter 1+1,2+1,3+1,4+1,5+1,6+1,7+1,8+1,9+1", "more than 8 ranges" },
	{ "k -perfmap -accel soft,jit=off", "jit=off leaves out" },
	{ "k -accel soft,jit=off,jit-profile=on", "jit=off leaves out" },
	{ "k -accel kvm,perf-map=on", "no property 'perf-map'" },
	{ "k -accel kvm -perfmap", "-accel kvm" },
};

static void test_wrong(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct options o;
		struct err e;

		if (parse(&o, wrong[i].line, &e) == 0)
			fail_msg("'%s' is accepted", wrong[i].line);
		if (!strstr(e.msg, wrong[i].says))
			fail_msg("'%s': \"%s\" does not say \"%s\"", wrong[i].line, e.msg,
				 wrong[i].says);
		assert_null(strchr(e.msg, '\n'));
		done(&o);
	}
}

static void test_drives(void **state)
{
	const struct drive_config *d;
	const struct blockdev_config *b;
	struct options o;

	good(&o, "k -drive file=a,,b,format=raw,cache=none,bps=1M,iops_rd=5,werror=stop,serial=S "
		 "-hdb first -drive file=x,if=none,readonly=on,cache=writethrough,aio=threads "
		 "-drive y,snapshot=on,discard=unmap,detect-zeroes=unmap,file.locking=off");
	assert_int_equal(o.cfg.ndrives, 4);
	d = &o.cfg.drive[0];
	assert_string_equal(d->file, "a,b");
	assert_string_equal(d->id, "virtio0");
	assert_true(d->opts.cache_direct && d->opts.writable && d->virtio);
	assert_false(d->conf.writethrough);
	assert_int_equal(d->conf.werror, BLK_STOP);
	assert_int_equal(d->conf.rerror, BLK_REPORT);
	assert_int_equal(d->conf.limits.kind[THROTTLE_BPS].avg, 1 << 20);
	assert_int_equal(d->conf.limits.kind[THROTTLE_IOPS_RD].avg, 5);
	assert_string_equal(d->conf.serial, "S");
	d = &o.cfg.drive[2];
	assert_false(d->virtio || d->opts.writable || d->opts.cache_direct);
	assert_true(d->conf.writethrough);
	assert_int_equal(d->opts.aio, BLOCK_AIO_THREADS);
	assert_string_equal(d->id, "none2");
	d = &o.cfg.drive[3];
	assert_int_equal(d->index, 2);
	assert_true(d->snapshot && d->opts.no_lock && d->opts.discard_unmap);
	assert_int_equal(d->opts.detect_zeroes, DETECT_ZEROES_UNMAP);
	assert_string_equal(o.board->name, "pc");
	done(&o);
	good(&o, "k -blockdev file,node-name=f,filename=x -blockdev "
		 "{\"driver\":\"qcow2\",\"node-name\":\"q\",\"file\":\"f\",\"backing\":null}"
		 " -blockdev {\"driver\":\"raw\",\"node-name\":\"\\u00e9\",\"read-only\":true,"
		 "\"file\":{\"driver\":\"file\",\"filename\":\"a,b\"}}");
	assert_int_equal(o.cfg.nblockdevs, 4);
	b = o.cfg.blockdev;
	assert_true(b[0].used && !b[1].used && b[2].used && !b[3].used);
	assert_int_equal(b[1].file, 0);
	assert_true(b[1].opts.no_backing);
	assert_int_equal(b[3].file, 2);
	assert_string_equal(b[2].filename, "a,b");
	assert_string_equal(b[3].node_name, "\xc3\xa9");
	assert_false(b[3].opts.writable);
	done(&o);
}

static void test_values(void **state)
{
	struct options o;

	good(&o, "vmlinuz");
	assert_string_equal(o.cfg.kernel, "vmlinuz");
	assert_string_equal(o.cfg.serial[0], "mon:stdio");
	assert_int_equal(o.cfg.ram, 512ull << 20);
	assert_int_equal(o.cfg.engine, LIBKVM_AUTO);
	assert_true(o.cfg.acpi);
	done(&o);
	good(&o, "k -nodefaults");
	assert_null(o.cfg.serial[0]);
	done(&o);
	good(&o, "k -serial null -serial file:a,b -m 1.5G -append a~b=c,d");
	assert_string_equal(o.cfg.serial[0], "null");
	assert_string_equal(o.cfg.serial[1], "file:a,b");
	assert_int_equal(o.cfg.ram, 1536ull << 20);
	assert_string_equal(o.cfg.append, "a b=c,d");
	done(&o);
	good(&o, "k -m size=64M -M microvm,acpi=off,accel=kvm:tcg -no-reboot -rtc base=localtime");
	assert_int_equal(o.cfg.ram, 64ull << 20);
	assert_int_equal(o.cfg.engine, LIBKVM_AUTO);
	assert_false(o.cfg.acpi);
	assert_true(o.cfg.no_reboot);
	assert_string_equal(o.cfg.rtc_base, "localtime");
	done(&o);
	good(&o, "k -accel kvm");
	assert_int_equal(o.cfg.engine, LIBKVM_HOST);
	done(&o);
	good(&o, "k -accel soft,jit=off -chardev file,id=x,path=a,,b,mux=on -serial chardev:x");
	assert_int_equal(o.cfg.engine, LIBKVM_SOFT);
	assert_true(o.cfg.no_jit);
	assert_int_equal(o.cfg.chardev[0].opts.kind, CHARDEV_FILE);
	assert_string_equal(o.cfg.chardev[0].opts.path, "a,b");
	assert_int_equal(o.cfg.chardev[0].opts.mux, 1);
	done(&o);
	good(&o, "k -chardev stdio,id=x");
	assert_string_equal(o.cfg.serial[0], "null");
	done(&o);
}

static void test_net(void **state)
{
	struct options o;

	good(&o, "k -nic tap,ifname=t0,model=virtio,mac=52:54:00:00:00:09,id=n -nic none");
	assert_int_equal(o.cfg.nnics, 1);
	assert_int_equal(o.cfg.nnetdevs, 1);
	assert_string_equal(o.cfg.nic[0].netdev, o.cfg.netdev[0].id);
	assert_string_equal(o.cfg.nic[0].mac, "52:54:00:00:00:09");
	assert_string_equal(o.cfg.netdev[0].ifname, "t0");
	done(&o);
	good(&o, "k -net tap,ifname=t0 -net nic,macaddr=52:54:00:00:00:09");
	assert_int_equal(o.cfg.nnics, 1);
	assert_string_equal(o.cfg.nic[0].netdev, o.cfg.netdev[0].id);
	done(&o);
	good(&o, "k -netdev dgram,id=d,local.type=fd,local.str=5 -net nic,netdev=d");
	assert_string_equal(o.cfg.nic[0].netdev, "d");
	done(&o);
	good(&o, "k -nodefaults -netdev help");
	assert_true(o.done);
	done(&o);
}

static void test_log(void **state)
{
	struct options o;

	good(&o, "k -d in_asm,serial*,jit -d out_asm -accel soft,jit-profile=on,perf-map=on "
		 "-dfilter 0x1000..0x1fff,0x2000+16 -dfilter 0x3fff-0x1000,0+0xffffffffffffffff");
	assert_int_equal(o.cfg.jit_log, LIBKVM_LOG_IN_ASM | LIBKVM_LOG_OUT_ASM);
	assert_true(o.cfg.jit_info && o.cfg.jit_profile && o.cfg.jit_perf_map);
	assert_int_equal(o.cfg.ntraces, 1);
	assert_string_equal(o.cfg.trace[0], "serial*");
	assert_int_equal(o.cfg.jit_log_ranges, 4);
	assert_int_equal(o.cfg.jit_log_range[0].first, 0x1000);
	assert_int_equal(o.cfg.jit_log_range[0].last, 0x1fff);
	assert_int_equal(o.cfg.jit_log_range[1].first, 0x2000);
	assert_int_equal(o.cfg.jit_log_range[1].last, 0x200f);
	assert_int_equal(o.cfg.jit_log_range[2].first, 0x3000);
	assert_int_equal(o.cfg.jit_log_range[2].last, 0x3fff);
	assert_int_equal(o.cfg.jit_log_range[3].last, 0xfffffffffffffffe);
	done(&o);
}

static void test_smp(void **state)
{
	static const struct {
		const char *text;
		struct smp_config want;
	} row[] = {
		{ "1", { 1, 1, 1, 1, 1 } },
		{ "8", { 8, 8, 1, 8, 1 } },
		{ "cpus=4,sockets=2", { 4, 4, 2, 2, 1 } },
		{ "4,threads=2", { 4, 4, 1, 2, 2 } },
		{ "4,cores=2", { 4, 4, 2, 2, 1 } },
		{ "sockets=2,cores=2,threads=2", { 8, 8, 2, 2, 2 } },
		{ "2,maxcpus=8", { 2, 8, 1, 8, 1 } },
		{ "8,sockets=2,cores=4,threads=1,maxcpus=8,dies=1", { 8, 8, 2, 4, 1 } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		struct options o;
		char line[100];

		snprintf(line, sizeof(line), "k -smp %s", row[i].text);
		good(&o, line);
		assert_memory_equal(&o.cfg.smp, &row[i].want, sizeof(row[i].want));
		done(&o);
	}
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *t, uint32_t fn, uint32_t sub)
{
	for (unsigned i = 0; i < t->nent; i++)
		if (t->entries[i].function == fn && t->entries[i].index == sub)
			return &t->entries[i];
	fail_msg("no CPUID leaf %#x.%u", fn, sub);
	return NULL;
}

static void test_cpuid(void **state)
{
	struct kvm_cpuid2 *s = calloc(1, sizeof(*s) + 8 * sizeof(s->entries[0])), *t;
	struct options o;
	struct err e = { 0 };

	s->nent = 6;
	s->entries[0] = (struct kvm_cpuid_entry2){ .function = 0, .eax = 7 };
	s->entries[1] = (struct kvm_cpuid_entry2){ .function = 1, .ecx = 1u << 28 | 1u << 27 };
	s->entries[2] = (struct kvm_cpuid_entry2){ .function = 7, .flags = 1, .ebx = 1u << 5 };
	s->entries[3] = (struct kvm_cpuid_entry2){ .function = 0x80000008, .eax = 48 };
	s->entries[4] = (struct kvm_cpuid_entry2){ .function = 0x8000001e };
	s->entries[5] = (struct kvm_cpuid_entry2){ .function = 0x8000001d, .eax = 0x143 };
	/* 2 sockets of 3 cores of 2 threads: ids are bit fields of 2 and 1 bits */
	good(&o, "k -smp 12,sockets=2,cores=3,threads=2 -cpu max,-avx2");
	assert_int_equal(cpuid_apic_id(&o.cfg.smp, 0), 0);
	assert_int_equal(cpuid_apic_id(&o.cfg.smp, 5), 5);
	assert_int_equal(cpuid_apic_id(&o.cfg.smp, 6), 8);
	assert_int_equal(cpuid_apic_id(&o.cfg.smp, 11), 13);
	assert_int_equal(cpuid_build(&o.cfg, s, 11, true, &t, &e), 0);
	assert_int_equal(leaf(t, 0, 0)->eax, 0xb);
	assert_int_equal(leaf(t, 1, 0)->ebx >> 24, 13);
	assert_int_equal(leaf(t, 1, 0)->ebx >> 16 & 0xff, 8);
	assert_int_equal(leaf(t, 1, 0)->edx >> 28 & 1, 1);
	/* hypervisor, avx, TSC deadline; OSXSAVE is the guest's to set */
	assert_int_equal(leaf(t, 1, 0)->ecx, 1u << 31 | 1u << 28 | 1u << 24);
	assert_int_equal(leaf(t, 7, 0)->ebx, 0);
	assert_int_equal(leaf(t, 0xb, 0)->eax, 1);
	assert_int_equal(leaf(t, 0xb, 0)->ebx, 2);
	assert_int_equal(leaf(t, 0xb, 1)->eax, 3);
	assert_int_equal(leaf(t, 0xb, 1)->ebx, 6);
	assert_int_equal(leaf(t, 0xb, 1)->edx, 13);
	assert_int_equal(leaf(t, 0x80000008, 0)->ecx, 5 | 3 << 12);
	assert_int_equal(leaf(t, 0x8000001e, 0)->eax, 13);
	assert_int_equal(leaf(t, 0x8000001e, 0)->ebx, 6 | 1 << 8);
	assert_int_equal(leaf(t, 0x8000001d, 0)->eax >> 14 & 0xfff, 1); /* L2: the core's */
	free(t);
	done(&o);
	good(&o, "k -cpu max,+avx");
	assert_int_equal(cpuid_build(&o.cfg, s, 0, false, &t, &e), 0);
	assert_int_equal(leaf(t, 1, 0)->edx >> 28 & 1, 0);
	free(t);
	done(&o);
	good(&o, "k -cpu max,sse4_2=on");
	assert_int_equal(cpuid_build(&o.cfg, s, 0, false, &t, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "'sse4.2'"));
	done(&o);
	free(s);
}

static void test_keyval(void **state)
{
	struct keyval k;
	struct err e;

	assert_int_equal(keyval_parse(&k, "-x", "a,,b,c=1,,2,,,d=,e=f=g,c=3", "first", &e), 0);
	assert_string_equal(keyval_get(&k, "first"), "a,b");
	assert_string_equal(keyval_get(&k, "c"), "3");
	assert_string_equal(keyval_get(&k, "e"), "f=g");
	assert_string_equal(keyval_get(&k, "d"), "");
	keyval_free(&k);
	assert_int_equal(keyval_parse(&k, "-x", "", "first", &e), 0);
	assert_null(keyval_get(&k, "first"));
	keyval_free(&k);
	assert_int_equal(keyval_parse(&k, "-x",
				      "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,"
				      "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a",
				      NULL, &e),
			 -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_option), cmocka_unit_test(test_help),
		cmocka_unit_test(test_wrong),        cmocka_unit_test(test_values),
		cmocka_unit_test(test_log),          cmocka_unit_test(test_net),
		cmocka_unit_test(test_smp),          cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_keyval),       cmocka_unit_test(test_drives),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
