/*
 * Small helpers on integers and pointers that every folder uses.
 * Threads: pure.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define container_of(p, T, m) ((T *)((char *)(p)-offsetof(T, m)))
#define ARRAY_SIZE(a)	      (sizeof(a) / sizeof((a)[0]))
#define BIT(n)		      (1ull << (n))
#define likely(x)	      __builtin_expect(!!(x), 1)
#define unlikely(x)	      __builtin_expect(!!(x), 0)
#define always_inline	      inline __attribute__((always_inline))
#define MIN(a, b)	      ((a) < (b) ? (a) : (b))
#define MAX(a, b)	      ((a) > (b) ? (a) : (b))

/* Guest-physical and guest-virtual (linear) addresses. */
typedef uint64_t gpa_t;
typedef uint64_t gva_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ull
#define PAGE_MASK  (~(PAGE_SIZE - 1))

/* Bits hi..lo of v, shifted down. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo)
{
	return (v >> lo) & (~0ull >> (63 - (hi - lo)));
}

/* Sign-extend the low n bits (1..64). */
static inline int64_t sext(uint64_t v, unsigned n)
{
	return (int64_t)(v << (64 - n)) >> (64 - n);
}
