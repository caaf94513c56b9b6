/* The list of boards. Threads: constant data. */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "machine/machine.h"

static const struct board_ops *const boards[] = { &microvm_board, &pc_board };

const struct board_ops *machine_board_at(unsigned i)
{
	return i < ARRAY_SIZE(boards) ? boards[i] : NULL;
}

/*
 * QEMU's names for the same board: versions of it differ in what a guest may have seen before a
 * migration from there, which is of no matter here.
 */
static bool board_is_pc(const char *name)
{
	return !strncmp(name, "pc-i440fx-", 10) || !strncmp(name, "pc-0.", 5) ||
	       !strncmp(name, "pc-1.", 5);
}

const struct board_ops *machine_board(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(boards)];
	char hint[96];

	if (board_is_pc(name))
		return &pc_board;
	if (!strcmp(name, "q35") || !strncmp(name, "pc-q35-", 7)) {
		err_set(e, ENOTSUP,
			"-machine: %s is not supported: pc has conventional PCI, "
			"microvm,pcie=on has ECAM",
			name);
		return NULL;
	}

	for (unsigned i = 0; i < ARRAY_SIZE(boards); i++) {
		names[i] = boards[i]->name;
		if (!strcmp(name, names[i]))
			return boards[i];
	}
	err_set(e, EINVAL, "-machine: unknown machine '%s'%s; -machine help lists them", name,
		text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	return NULL;
}
