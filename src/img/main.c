/*
 * kvasir-img: disk images from the command line, with the words of qemu-img.
 *
 * A command runs as one task; main serves the loop until it has ended.
 * Threads: one, and the block layer's workers.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img.h"

static const struct command {
	const char *name;
	int (*run)(struct img *im, int argc, char **argv);
	const char *args;
} commands[] = {
	{ "bench", img_bench,
	  "[-c N] [-d N] [-f FMT] [--flush-interval=N [--no-drain]] [-i AIO] [-n] [-o OFF]\n"
	  "          [--pattern=N] [-q] [-s SIZE] [-S STEP] [-t CACHE] [-w] [-U] FILENAME" },
	{ "check", img_check, "[-q] [-f FMT] [--output=human|json] [-r leaks|all] [-U] FILENAME" },
	{ "commit", img_commit, "[-q] [-f FMT] [-t CACHE] [-d] [-p] FILENAME" },
	{ "compare", img_compare,
	  "[-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] FILENAME1 FILENAME2" },
	{ "convert", img_convert,
	  "[-U] [-c] [-p] [-q] [-n] [--target-is-zero] [-f FMT] [-t CACHE] [-T CACHE]\n"
	  "          [-O FMT] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] [-m N] [-W] FILENAME... "
	  "OUTPUT" },
	{ "create", img_create,
	  "[-q] [-f FMT] [-b BACKING -F FMT] [-u] [-o OPTIONS] FILENAME [SIZE]" },
	{ "info", img_info, "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILENAME" },
	{ "map", img_map,
	  "[-f FMT] [--start-offset=OFF] [--max-length=LEN] [--output=human|json] [-U] FILENAME" },
	{ "measure", img_measure,
	  "[--output=human|json] [-O FMT] [-o OPTIONS] [--size N | [-f FMT] [-l SNAPSHOT] [-U] "
	  "FILENAME]" },
	{ "rebase", img_rebase,
	  "[-U] [-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] -b BACKING [-F FMT] FILENAME" },
	{ "resize", img_resize,
	  "[-f FMT] [--preallocation=off|metadata|full] [-q] [--shrink] FILENAME [+|-]SIZE" },
	{ "snapshot", img_snapshot,
	  "[-U] [-q] [-f FMT] [-l | -a NAME | -c NAME | -d NAME] FILENAME" },
};
static const char *const not_here[] = { "amend", "bitmap", "dd" };

struct run {
	struct img im;
	const struct command *cmd;
	int argc, status;
	char **argv;
};

static void help(void)
{
	printf("kvasir-img version " KVASIR_VERSION "\n"
	       "usage: kvasir-img COMMAND [OPTIONS]\n"
	       "Disk images of the formats raw and qcow2, with the words of qemu-img.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %s %s\n", commands[i].name, commands[i].args);
	printf("\nCACHE is none, writeback, writethrough, directsync or unsafe. OPTIONS: see "
	       "'create -f FMT -o help'.\n"
	       "check ends with status 2 after errors, 3 after leaks; compare with 1 after a "
	       "difference.\n");
}

static void run_command(void *arg)
{
	struct run *r = arg;

	r->status = r->cmd->run(&r->im, r->argc, r->argv);
}

int main(int argc, char **argv)
{
	struct clock clock;
	struct err e = { 0 };
	struct run r = { 0 };
	const char *name = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(name, "-h") || !strcmp(name, "--help")) {
		help();
		return 0;
	}
	if (!strcmp(name, "-V") || !strcmp(name, "--version")) {
		printf("kvasir-img version " KVASIR_VERSION "\n");
		return 0;
	}
	if (!name[0])
		return img_usage("Not enough arguments");
	if (name[0] == '-')
		return img_usage("unrecognized option '%s'", name);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(commands[i].name, name))
			r.cmd = &commands[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(not_here); i++) {
		if (!strcmp(not_here[i], name))
			return img_fail("the command '%s' is not supported (qemu-img has it)",
					name);
	}
	if (!r.cmd)
		return img_usage("Command not found: %s", name);
	clock_init_host(&clock);
	r.im.loop = loop_new(&clock, &e);
	r.im.ctx = r.im.loop ? block_ctx_new(r.im.loop, BLOCK_AIO_AUTO, &e) : NULL;
	if (!r.im.ctx)
		return img_fail("%s", e.msg);
	r.argc = argc - 1;
	r.argv = argv + 1;
	if (r.argc > 1 && !strcmp(r.argv[1], "--help")) {
		printf("usage: kvasir-img %s %s\n", r.cmd->name, r.cmd->args);
		return 0;
	}
	opterr = 1;
	if (tasks_run(block_ctx_tasks(r.im.ctx), run_command, &r) < 0)
		r.status = img_fail("out of memory");
	block_ctx_free(r.im.ctx);
	loop_free(r.im.loop);
	if (fflush(stdout) || ferror(stdout))
		return r.status ? r.status : 1;
	return r.status;
}
