/* The list of boards. Threads: constant data. */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "machine/machine.h"

static const struct board_ops *const boards[] = { &microvm_board };

const struct board_ops *machine_board_at(unsigned i)
{
	return i < ARRAY_SIZE(boards) ? boards[i] : NULL;
}

const struct board_ops *machine_board(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(boards)];
	char hint[96];

	for (unsigned i = 0; i < ARRAY_SIZE(boards); i++) {
		names[i] = boards[i]->name;
		if (!strcmp(name, names[i]))
			return boards[i];
	}
	err_set(e, EINVAL, "-machine: unknown machine '%s'%s; -machine help lists them", name,
		text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	return NULL;
}
