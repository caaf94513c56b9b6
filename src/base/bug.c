/* See bug.h. Threads: any. */
#include "base/bug.h"

#include <stdio.h>
#include <stdlib.h>

void bug_at(const char *file, int line, const char *what)
{
	fprintf(stderr, "kvasir: internal error at %s:%d: %s\n", file, line, what);
	abort();
}
