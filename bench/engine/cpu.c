/*
 * Programs that compute: registers, branches, calls, floating point, vectors, code made at run
 * time.
 *
 * References: [FIPS180-4] for sha256. Threads: none.
 */
#include "engine/suite.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t bench_integer(uint64_t n)
{
	uint64_t a = 1, b = 2;

	for (uint64_t i = 0; i < n * 1000; i++) {
		a = a * 5 + b;
		b ^= a >> 7;
		a += i;
		__asm__("" : "+r"(a), "+r"(b));
	}
	return a + b;
}

/* Lists, a matrix, a state machine over text, and a checksum of the results, as CoreMark has. */
struct bench_node {
	struct bench_node *next;
	int16_t key, data;
};

static uint16_t bench_crc(uint16_t crc, uint32_t v)
{
	for (int i = 0; i < 32; i++, v >>= 1)
		crc = (uint16_t)((crc >> 1) ^ (((crc ^ v) & 1) ? 0xa001 : 0));
	return crc;
}

static struct bench_node *bench_list_reverse(struct bench_node *l)
{
	struct bench_node *r = NULL, *next;

	for (; l; l = next) {
		next = l->next;
		l->next = r;
		r = l;
	}
	return r;
}

static unsigned bench_scan(const char *p)
{
	unsigned state = 0, seen = 0;

	for (; *p; p++) {
		switch (state) {
		case 0: state = *p == '-' ? 1 : *p >= '0' && *p <= '9' ? 2 : 4; break;
		case 1: state = *p >= '0' && *p <= '9' ? 2 : 4; break;
		case 2:
			state = *p == '.' ? 3 : *p == ',' ? 0 : *p >= '0' && *p <= '9' ? 2 : 4;
			break;
		case 3: state = *p == ',' ? 0 : *p >= '0' && *p <= '9' ? 3 : 4; break;
		default: state = *p == ',' ? 0 : 4; break;
		}
		seen = seen * 5 + state;
	}
	return seen;
}

static uint64_t bench_coremark(uint64_t n)
{
	static struct bench_node nodes[200];
	static int16_t a[20][20], b[20][20];
	static const char text[] =
		"5012,-12.74,+99,1.5e3,T0.3,-874,35.54400,.1234500,-110.700,0x12";
	uint16_t crc = 0xffff;

	for (unsigned i = 0; i < 200; i++)
		nodes[i] = (struct bench_node){ i < 199 ? &nodes[i + 1] : NULL,
						(int16_t)(i * 7 % 200), (int16_t)i };
	while (n--) {
		struct bench_node *l = bench_list_reverse(&nodes[0]);
		int32_t sum = 0;

		for (int16_t want = 0; want < 200; want += 9)
			for (struct bench_node *p = l; p; p = p->next)
				if (p->key == want) {
					sum += p->data;
					break;
				}
		bench_list_reverse(l);
		for (int i = 0; i < 20; i++)
			for (int j = 0; j < 20; j++) {
				int32_t x = 0;

				for (int k = 0; k < 20; k++)
					x += a[i][k] * b[k][j];
				a[i][j] = (int16_t)(x + i);
				b[j][i] = (int16_t)(x ^ j);
			}
		for (int i = 0; i < 10; i++)
			crc = bench_crc(crc, bench_scan(text + i));
		crc = bench_crc(crc, (uint32_t)sum);
		crc = bench_crc(crc, (uint32_t)a[3][7]);
	}
	return crc;
}

static uint32_t bench_ror(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* The constants are the first bits of roots of primes [FIPS180-4 4.2.2, 5.3.3]. */
static void bench_sha_constants(uint32_t *k, uint32_t *h)
{
	unsigned got = 0;

	for (unsigned p = 2; got < 64; p++) {
		unsigned d = 2;

		while (p % d)
			d++;
		if (d != p)
			continue;
		if (got < 8)
			h[got] = (uint32_t)(uint64_t)ldexpl(sqrtl(p), 32);
		k[got++] = (uint32_t)(uint64_t)ldexpl(cbrtl(p), 32);
	}
}

static void bench_sha_block(uint32_t *h, const uint32_t *k, const uint8_t *p)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 |
		       p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t x = w[i - 15], y = w[i - 2];

		w[i] = w[i - 16] + w[i - 7] + (bench_ror(x, 7) ^ bench_ror(x, 18) ^ x >> 3) +
		       (bench_ror(y, 17) ^ bench_ror(y, 19) ^ y >> 10);
	}
	memcpy(s, h, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = s[7] +
			      (bench_ror(s[4], 6) ^ bench_ror(s[4], 11) ^ bench_ror(s[4], 25)) +
			      ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
		uint32_t t2 = (bench_ror(s[0], 2) ^ bench_ror(s[0], 13) ^ bench_ror(s[0], 22)) +
			      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t bench_sha256(uint64_t n)
{
	static uint32_t k[64], h[8];
	static uint8_t data[4096];

	if (!k[0])
		bench_sha_constants(k, h);
	while (n--)
		for (unsigned i = 0; i < sizeof(data); i += 64)
			bench_sha_block(h, k, data + i);
	return h[0];
}

#define DIM 64
static uint64_t bench_matmul(uint64_t n)
{
	static double a[DIM][DIM], b[DIM][DIM], c[DIM][DIM];

	for (int i = 0; i < DIM * DIM; i++) {
		a[i / DIM][i % DIM] = i % 7 + 0.5;
		b[i / DIM][i % DIM] = i % 5 - 1.25;
	}
	while (n--) {
		for (int i = 0; i < DIM; i++)
			for (int k = 0; k < DIM; k++)
				for (int j = 0; j < DIM; j++)
					c[i][j] = a[i][k] * b[k][j] + c[i][j] * 0.5;
		__asm__ volatile("" ::: "memory");
	}
	return (uint64_t)(int64_t)c[5][9];
}

static uint64_t bench_nbody(uint64_t n)
{
	static struct {
		double x[3], v[3], m;
	} p[5];

	for (int i = 0; i < 5; i++) {
		p[i].m = 1.0 / (i + 1);
		for (int j = 0; j < 3; j++) {
			p[i].x[j] = i * (j + 1.5) + j;
			p[i].v[j] = 0.01 * (i - j);
		}
	}
	while (n--) {
		for (int i = 0; i < 5; i++)
			for (int j = i + 1; j < 5; j++) {
				double d[3], r2 = 1e-3, mag;

				for (int k = 0; k < 3; k++) {
					d[k] = p[i].x[k] - p[j].x[k];
					r2 += d[k] * d[k];
				}
				mag = 0.001 / (r2 * sqrt(r2));
				for (int k = 0; k < 3; k++) {
					p[i].v[k] -= d[k] * p[j].m * mag;
					p[j].v[k] += d[k] * p[i].m * mag;
				}
			}
		for (int i = 0; i < 5; i++)
			for (int k = 0; k < 3; k++)
				p[i].x[k] += 0.001 * p[i].v[k];
	}
	return (uint64_t)(int64_t)(p[0].x[0] * 1e6);
}

static void bench_quicksort(uint32_t *a, long lo, long hi)
{
	while (lo < hi) {
		uint32_t pivot = a[(lo + hi) / 2];
		long i = lo, j = hi;

		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				uint32_t t = a[i];

				a[i++] = a[j];
				a[j--] = t;
			}
		}
		bench_quicksort(a, lo, j);
		lo = i;
	}
}

static uint64_t bench_sort(uint64_t n)
{
	static uint32_t a[10000];
	uint32_t s = 1;

	while (n--) {
		for (int i = 0; i < 10000; i++)
			a[i] = bench_rand(&s);
		bench_quicksort(a, 0, 9999);
	}
	return a[77];
}

static __attribute__((noinline)) uint64_t bench_fib_of(uint64_t n)
{
	uint64_t r = n < 2 ? n : bench_fib_of(n - 1) + bench_fib_of(n - 2);

	__asm__("" : "+r"(r)); /* keeps the recursion a recursion */
	return r;
}

static uint64_t bench_fib(uint64_t n)
{
	uint64_t r = 0;

	while (n--)
		r += bench_fib_of(18);
	return r;
}

static __attribute__((noinline)) uint64_t bench_v0(uint64_t x)
{
	return x + 1;
}
static __attribute__((noinline)) uint64_t bench_v1(uint64_t x)
{
	return x ^ 0x55;
}
static __attribute__((noinline)) uint64_t bench_v2(uint64_t x)
{
	return x * 3;
}
static __attribute__((noinline)) uint64_t bench_v3(uint64_t x)
{
	return x - (x >> 3);
}

static uint64_t bench_virtual(uint64_t n)
{
	static uint64_t (*const method[])(uint64_t) = { bench_v0, bench_v1, bench_v2, bench_v3 };
	static uint64_t (*volatile object[64])(uint64_t);
	uint64_t x = 1;
	uint32_t s = 7;

	for (int i = 0; i < 64; i++)
		object[i] = method[bench_rand(&s) >> 8 & 3];
	while (n--)
		for (int i = 0; i < 64; i++)
			x = object[i](x);
	return x;
}

/* A stack machine that sums i * i % 7 for 1000 turns, dispatched through labels. */
static uint64_t bench_bytecode(uint64_t n)
{
	enum { PUSH, LOAD, STORE, ADD, MUL, MOD, SUB, JNZ, END };
	static const uint8_t code[] = { LOAD,  1,   LOAD,  0, LOAD, 0, MUL,  PUSH, 7,
					MOD,   ADD, STORE, 1, LOAD, 0, PUSH, 1,    SUB,
					STORE, 0,   LOAD,  0, JNZ,  0, END };
	static const void *const op[] = { &&push, &&load, &&store, &&add, &&mul,
					  &&mod,  &&sub,  &&jnz,   &&end };
	uint64_t var[2] = { 0 }, stack[8], *sp = stack;
	const uint8_t *pc;

#define NEXT() goto *op[*pc++]
	while (n--) {
		var[0] = 1000;
		pc = code;
		NEXT();
	push:
		*sp++ = *pc++;
		NEXT();
	load:
		*sp++ = var[*pc++];
		NEXT();
	store:
		var[*pc++] = *--sp;
		NEXT();
	add:
		sp--, sp[-1] += sp[0];
		NEXT();
	mul:
		sp--, sp[-1] *= sp[0];
		NEXT();
	mod:
		sp--, sp[-1] %= sp[0];
		NEXT();
	sub:
		sp--, sp[-1] -= sp[0];
		NEXT();
	jnz:
		pc = *--sp ? code + *pc : pc + 1;
		NEXT();
	end:
		__asm__ volatile("" ::: "memory");
	}
#undef NEXT
	return var[1];
}

static uint64_t bench_atomics(uint64_t n)
{
	static uint64_t a, b;

	while (n--) {
		__atomic_fetch_add(&a, 1, __ATOMIC_SEQ_CST);
		b = __atomic_exchange_n(&a, a, __ATOMIC_SEQ_CST);
		__atomic_compare_exchange_n(&a, &b, b + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	return a;
}

/* Write a function of a few instructions, call it: mov eax, imm32; add eax, edi; ret. */
static uint64_t bench_codegen(uint64_t n)
{
	static uint8_t *page;
	uint64_t sum = 0;

	if (!page) {
		page = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			bench_fail("mmap");
	}
	for (uint64_t i = 0; i < n; i++) {
		uint8_t *p = page + i * 64 % 65536;
		uint32_t imm = (uint32_t)i;
		unsigned (*f)(unsigned);

		p[0] = 0xb8;
		memcpy(p + 1, &imm, 4);
		memcpy(p + 5, "\x01\xf8\xc3", 3);
		memcpy(&f, &p, sizeof(f));
		__asm__ volatile("" ::: "memory");
		sum += f(3);
	}
	return sum;
}

/* Greedy LZ77 with a hash of three bytes, as deflate's first level: one unit is 64 KiB of text. */
static uint64_t bench_compress(uint64_t n)
{
	static uint8_t in[65536], out[sizeof(in) * 2];
	static uint16_t last[4096];
	uint8_t *o = out;
	uint32_t s = 3;

	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = i > 600 && bench_rand(&s) % 16 ? in[i - 500 - (i / 64 * 7) % 90]
						       : (uint8_t)('a' + bench_rand(&s) % 20);
	while (n--) {
		unsigned i = 0;

		o = out;
		memset(last, 0, sizeof(last));
		while (i + 3 < sizeof(in)) {
			uint32_t v = in[i] | in[i + 1] << 8 | in[i + 2] << 16;
			uint16_t *slot = &last[(v * 0x9e3779b1u) >> 20];
			unsigned at = *slot, len = 0;

			*slot = (uint16_t)i;
			if (at < i)
				while (i + len < sizeof(in) && len < 258 &&
				       in[at + len] == in[i + len])
					len++;
			if (len >= 3) {
				*o++ = (uint8_t)(0x80 | (len & 0x7f));
				*o++ = (uint8_t)(i - at);
				*o++ = (uint8_t)((i - at) >> 8);
				i += len;
			} else {
				*o++ = in[i++];
			}
		}
		__asm__ volatile("" ::: "memory");
	}
	return (uint64_t)(o - out);
}

__attribute__((target("avx2"))) static uint64_t bench_avx2_run(uint64_t n)
{
	static uint8_t a[4096] __attribute__((aligned(32))), b[4096] __attribute__((aligned(32)));
	__m256i sum = _mm256_setzero_si256();

	while (n--)
		for (int i = 0; i < 4096; i += 32) {
			__m256i x = _mm256_load_si256((const __m256i *)(a + i));
			__m256i y = _mm256_load_si256((const __m256i *)(b + i));

			x = _mm256_add_epi8(_mm256_shuffle_epi8(x, y), _mm256_max_epu8(x, y));
			sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, y));
			_mm256_store_si256((__m256i *)(b + i), x);
		}
	return (uint64_t)_mm256_extract_epi64(sum, 1);
}

static uint64_t bench_avx2(uint64_t n)
{
	return __builtin_cpu_supports("avx2") ? bench_avx2_run(n) : bench_integer(n);
}

static uint64_t bench_x87(uint64_t n)
{
	volatile long double start = 0.3L;
	long double x = start, y = 1;

	for (uint64_t i = 0; i < n * 100; i++) {
		y = y * x + 0.25L;
		x = x - y / (i + 3.0L);
	}
	return (uint64_t)(int64_t)(x + y);
}

const struct bench bench_cpu[] = {
	BENCH(integer, "1000 turns"),   BENCH(coremark, "iteration"), BENCH(sha256, "4 KiB"),
	BENCH(matmul, "64x64"),         BENCH(nbody, "step"),         BENCH(sort, "10000 numbers"),
	BENCH(fib, "fib(18)"),          BENCH(virtual, "64 calls"),   BENCH(bytecode, "1000 turns"),
	BENCH(atomics, "3 operations"), BENCH(codegen, "function"),   BENCH(compress, "64 KiB"),
	BENCH(avx2, "4 KiB"),           BENCH(x87, "100 turns"),      { 0 },
};
