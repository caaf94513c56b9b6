/*
 * Host thunks: code memory and cache.
 *
 * One cache for the process, because the handler that recovers from a thunk's floating-point
 * exception (hostfpe.c) is the process's.
 *
 * Code is appended under a mutex; a finished thunk is published in an open-addressed table with a
 * release store, so that lookups take no lock. Nothing is ever removed.
 *
 * After fork the child gets code memory of its own at the same addresses: the memfd would be shared
 * with the parent.
 *
 * References: [SDM3 8.1.3 "Handling self- and cross-modifying code"], [SDM2A CPUID].
 * Threads:    host_thunk_get any; the mutex covers everything but lookups.
 */
#include "kvm/x86/interp/thunk.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bug.h"
#include "kvm/x86/interp/hostfpe.h"
#include "kvm/x86/vcpu.h"
#include "x86/features.h"

enum {
	CODE_SIZE = 16 << 20,
	CODE_STUB = 0,    /* offset of the fault stub */
	CODE_SLOT = 1024, /* offset and size of the slot for uncached runs */
	SLOT_SIZE = 1024,
	CODE_FIRST = 4096,
	THUNK_MAX = 1 << 17,
	TABLE_BITS = 18,
	TABLE_SIZE = 1 << TABLE_BITS, /* twice THUNK_MAX: probes end soon */
};

static struct thunk_cache {
	pthread_once_t once;
	pthread_mutex_t lock;
	int memfd;
	uint8_t *rw, *rx;                    /* the same bytes twice */
	_Atomic(struct host_thunk *) *table; /* TABLE_SIZE, by hash of key */
	struct host_thunk *thunks;           /* THUNK_MAX */
	unsigned nthunks, used;              /* used: bytes of code */
	bool full;
	uint64_t host_features; /* by enum insn_feature */
} thunk_cache = { .once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER };

_Static_assert(INSN_FEATURES <= 64, "host_features is too small");

/* ---- Set-up --------------------------------------------------------------------------------- */

static int thunk_memfd(void)
{
	int fd = memfd_create("kvasir-thunks", MFD_CLOEXEC);

	BUG_ON(fd < 0 || ftruncate(fd, CODE_SIZE));
	return fd;
}

static uint8_t *thunk_map(void *at, int prot, int fd)
{
	void *p = mmap(at, CODE_SIZE, prot, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);

	BUG_ON(p == MAP_FAILED);
	return p;
}

static void *thunk_reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	BUG_ON(p == MAP_FAILED);
	return p;
}

static void thunk_fork_prepare(void)
{
	pthread_mutex_lock(&thunk_cache.lock);
}

static void thunk_fork_parent(void)
{
	pthread_mutex_unlock(&thunk_cache.lock);
}

static void thunk_fork_child(void)
{
	struct thunk_cache *c = &thunk_cache;
	int fd = thunk_memfd();

	for (unsigned done = 0; done < c->used;) {
		ssize_t n = pwrite(fd, c->rx + done, c->used - done, done);

		BUG_ON(n <= 0);
		done += (unsigned)n;
	}
	thunk_map(c->rw, PROT_READ | PROT_WRITE, fd);
	thunk_map(c->rx, PROT_READ | PROT_EXEC, fd);
	close(c->memfd);
	c->memfd = fd;
	pthread_mutex_unlock(&c->lock);
}

static uint64_t thunk_host_features(void)
{
	uint32_t reg[4] = { 0 }, leaf = ~0u, subleaf = 0, xcr0 = 0, high;
	uint64_t have = 1;

	for (unsigned f = BASE + 1; f < INSN_FEATURES; f++) {
		const struct insn_feature_bit *b = &insn_feature_bit[f];

		/* The table is grouped by leaf, and CPUID is slow in a virtual machine. */
		if (b->leaf != leaf || b->subleaf != subleaf) {
			leaf = b->leaf;
			subleaf = b->subleaf;
			if (!__get_cpuid_count(leaf, subleaf, &reg[0], &reg[1], &reg[2], &reg[3]))
				memset(reg, 0, sizeof(reg));
			if (leaf == 1 && reg[2] & 1u << 27) /* OSXSAVE */
				__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
		}
		if (reg[b->reg] >> b->bit & 1)
			have |= BIT(f);
	}
	if ((xcr0 & 6) != 6)
		have &= ~(BIT(FEAT_AVX) | BIT(FEAT_AVX2) | BIT(FEAT_FMA) | BIT(FEAT_F16C) |
			  BIT(FEAT_VAES) | BIT(FEAT_VPCLMULQDQ));
	return have;
}

static void thunk_init(void)
{
	struct thunk_cache *c = &thunk_cache;
	struct emit e;

	c->host_features = thunk_host_features();
	c->memfd = thunk_memfd();
	c->rw = thunk_map(NULL, PROT_READ | PROT_WRITE, c->memfd);
	c->rx = thunk_map(NULL, PROT_READ | PROT_EXEC, c->memfd);
	c->table = thunk_reserve(TABLE_SIZE * sizeof(*c->table));
	c->thunks = thunk_reserve(THUNK_MAX * sizeof(*c->thunks));
	emit_init(&e, c->rw + CODE_STUB, CODE_SLOT, (uintptr_t)c->rx + CODE_STUB);
	host_thunk_generate_stub(&e, c->host_features & BIT(FEAT_AVX));
	BUG_ON(e.full);
	c->used = CODE_FIRST;
	BUG_ON(hostfpe_install(c->rx, CODE_SIZE, c->rx + CODE_STUB));
	BUG_ON(pthread_atfork(thunk_fork_prepare, thunk_fork_parent, thunk_fork_child));
}

static struct thunk_cache *thunk_cache_get(void)
{
	pthread_once(&thunk_cache.once, thunk_init);
	return &thunk_cache;
}

bool host_has_feature(enum insn_feature f)
{
	return thunk_cache_get()->host_features >> f & 1;
}

void host_thunk_usage(unsigned *thunks, unsigned *bytes)
{
	struct thunk_cache *c = thunk_cache_get();

	pthread_mutex_lock(&c->lock);
	*thunks = c->nthunks;
	*bytes = c->used;
	pthread_mutex_unlock(&c->lock);
}

void host_thunk_set_full(bool full)
{
	struct thunk_cache *c = thunk_cache_get();

	pthread_mutex_lock(&c->lock);
	c->full = full;
	pthread_mutex_unlock(&c->lock);
}

/* ---- Cache ---------------------------------------------------------------------------------- */

/* Everything that host_thunk_generate looks at. Never 0: len is not in it, but id's row is + 1. */
static uint64_t thunk_key(const struct insn *i, enum decode_mode mode)
{
	const struct insn_info *row = &insn_info[i->id];
	uint64_t imm = 0, rm = i->flags & IF_MEM ? 0 : i->rm;
	unsigned flags = i->flags & (IF_REX | IF_MEM | IF_W | IF_L);

	for (unsigned n = 0; n < 5; n++) {
		unsigned o = row->operand[n];

		if (o == Ib || o == Ldq || o == Lqq || o == Lx)
			imm |= i->imm & 0xff;
		else if (o == Ib2)
			imm |= (uint64_t)(i->imm2 & 0xff) << 8;
	}
	return (uint64_t)(i->id + 1) | (uint64_t)(i->reg & 15) << 12 | (rm & 15) << 16 |
	       (uint64_t)(i->vvvv & 15) << 20 | (uint64_t)(i->osize & 15) << 24 |
	       (uint64_t)flags << 28 | (uint64_t)(mode == DECODE_64) << 36 | imm << 37 |
	       (uint64_t)(i->opcode & 7) << 53;
}
_Static_assert(I_COUNT < 4095, "the key has 12 bits for the row");

static unsigned thunk_hash(uint64_t key)
{
	return (unsigned)(key * 0x9e3779b97f4a7c15ull >> (64 - TABLE_BITS));
}

static struct host_thunk *thunk_find(struct thunk_cache *c, uint64_t key, unsigned *slot)
{
	struct host_thunk *t;
	unsigned h = thunk_hash(key);

	while ((t = atomic_load_explicit(&c->table[h], memory_order_acquire)) && t->key != key)
		h = (h + 1) & (TABLE_SIZE - 1);
	*slot = h;
	return t;
}

static struct host_thunk *thunk_make(struct thunk_cache *c, const struct insn *i,
				     enum decode_mode mode, uint64_t key, unsigned slot)
{
	struct host_thunk *t = &c->thunks[c->nthunks];
	struct emit e;

	if (c->full || c->nthunks == THUNK_MAX || CODE_SIZE - c->used < SLOT_SIZE)
		return NULL;
	t->key = key;
	if (!(c->host_features >> insn_info[i->id].feature & 1)) {
		host_thunk_generate(i, mode, t, NULL); /* fn stays NULL: #UD */
	} else {
		emit_init(&e, c->rw + c->used, SLOT_SIZE, (uintptr_t)c->rx + c->used);
		host_thunk_generate(i, mode, t, &e);
		BUG_ON(e.full);
		t->fn = (host_fn *)(uintptr_t)e.run;
		emit_align(&e, 16);
		c->used += (unsigned)emit_size(&e);
	}
	c->nthunks++;
	atomic_store_explicit(&c->table[slot], t, memory_order_release);
	return t;
}

void *host_thunk_get(const struct insn *i, enum decode_mode mode)
{
	struct thunk_cache *c = thunk_cache_get();
	uint64_t key = thunk_key(i, mode);
	struct host_thunk *t;
	unsigned slot;

	t = thunk_find(c, key, &slot);
	if (t)
		return t;
	pthread_mutex_lock(&c->lock);
	t = thunk_find(c, key, &slot);
	if (!t)
		t = thunk_make(c, i, mode, key, slot);
	pthread_mutex_unlock(&c->lock);
	return t;
}

/* ---- Without the cache ---------------------------------------------------------------------- */

void host_thunk_describe(const struct insn *i, enum decode_mode mode, struct host_thunk *t)
{
	*t = (struct host_thunk){ 0 };
	host_thunk_generate(i, mode, t, NULL);
	if (host_has_feature(insn_info[i->id].feature))
		t->flags |= HT_UNCACHED;
}

/* IRET is the only serialising instruction that user code may execute and hypervisors let alone. */
static void thunk_serialize(void)
{
	uint64_t tmp;

	__asm__ volatile("sub $128, %%rsp\n\t" /* the red zone is in use */
			 "mov %%rsp, %0\n\t"
			 "push %%rax\n\t"
			 "mov %%ss, %%eax\n\t"
			 "xchg %%rax, (%%rsp)\n\t"
			 "push %0\n\t"
			 "pushfq\n\t"
			 "mov %%cs, %k0\n\t"
			 "push %0\n\t"
			 "lea 1f(%%rip), %0\n\t"
			 "push %0\n\t"
			 "iretq\n"
			 "1:\n\t"
			 "add $128, %%rsp"
			 : "=&r"(tmp)
			 :
			 : "memory", "cc");
}

uint64_t host_thunk_run_uncached(struct vcpu *v, const struct insn *i, void *mem)
{
	struct thunk_cache *c = thunk_cache_get();
	struct host_thunk t = { 0 };
	struct emit e;
	uint64_t rc;

	pthread_mutex_lock(&c->lock);
	emit_init(&e, c->rw + CODE_SLOT, SLOT_SIZE, (uintptr_t)c->rx + CODE_SLOT);
	host_thunk_generate(i, (enum decode_mode)v->mode, &t, &e);
	BUG_ON(e.full);
	/* The slot may have been run before, by this processor or another one. */
	thunk_serialize();
	rc = ((host_fn *)(uintptr_t)e.run)(v, mem);
	pthread_mutex_unlock(&c->lock);
	return rc;
}
