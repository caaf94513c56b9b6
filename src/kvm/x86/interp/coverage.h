/*
 * Which rows of the instruction table the interpreter has completed: for tests/coverage.py, in a
 * build with -Dinsn_coverage=true. Nothing in any other build.
 *
 * A row counts once its function has returned, so one that only ever threw does not.
 * Threads: any vCPU; a byte is only ever set to 1.
 */
#pragma once
#include <stdint.h>

#ifdef INSN_COVERAGE
extern uint8_t *coverage_rows; /* by id; see coverage.c for the file it lies in */
#define COVERAGE_ROW(id) (coverage_rows[id] = 1)
#else
#define COVERAGE_ROW(id) ((void)0)
#endif
