/*
 * What the live probe and its guest agree on. Numbers only: assembled too.
 * References: none. Threads: constants.
 */
#pragma once

#define PROBE_BASE  0x1000
#define PROBE_PML4  0x3000
#define PROBE_PDPT  0x4000
#define PROBE_PD    0x5000
#define PROBE_IDT   0x6000
#define PROBE_STACK 0x8000
#define PROBE_DATA  0x8000 /* 16 bytes to exchange, interrupt flag, loop's store */
#define PROBE_SIZE  0x10000
#define PROBE_PORT  0x10

/* Values written to the port, in this order. */
#define PROBE_REAL        1
#define PROBE_PROTECTED   2
#define PROBE_LONG        3
#define PROBE_LOCKED      4
#define PROBE_WAITING     5
#define PROBE_INTERRUPTED 6
#define PROBE_LOOPED      7 /* again and again */
#define PROBE_BAD         0xff

#define PROBE_LOOPS      250000
#define PROBE_LOOP_INSNS 4
#define PROBE_VECTOR     0x20
