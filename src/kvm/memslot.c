/*
 * Memory slots: KVM_SET_USER_MEMORY_REGION and the dirty logs.
 *
 * Modelled:     creation, deletion, moving, change of flags, read-only slots, dirty logging with
 *               automatic and manual protection (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
 * Not modelled: the second address space (SMM), dirty rings.
 * Note:         two slots over the same host memory have separate code and dirty state: a write
 *               through one is not seen as a write to code that was decoded through the other.
 * References:   [KVM-API 4.35, 4.8, 4.117].
 * Threads:      vm->slots_lock covers updates; see vm.h.
 *
 * Dirty bits: a vCPU sets a page's bit when it makes a translation writable, so bits are cleared
 * first and then every vCPU drops its translations. A write in between goes through an old
 * translation, but the vCPU has passed a boundary, so has done it, before the ioctl returns: it is
 * in the page's contents when user space reads them for this round.
 */
#include "kvm/memslot.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/sanitize.h"
#include "kvm/arch.h"

#define MEMSLOT_MAX_PAGES ((1ull << 31) - 1)
#define MEMSLOT_HOST_END  (1ull << 47)

struct kvm_memslot *kvm_memslot_find(struct kvm_vm *vm, uint64_t gfn)
{
	const struct kvm_memslots *t = atomic_load(&vm->slots);
	uint32_t lo = 0, hi = t->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;
		struct kvm_memslot *s = t->slot[mid];

		if (gfn < s->base_gfn)
			hi = mid;
		else if (gfn - s->base_gfn >= s->npages)
			lo = mid + 1;
		else
			return s;
	}
	return NULL;
}

void kvm_memslot_mark_dirty(struct kvm_memslot *slot, uint64_t gfn)
{
	uint64_t rel = gfn - slot->base_gfn;

	if (slot->dirty && !(atomic_load(&slot->dirty[rel / 64]) & BIT(rel % 64)))
		atomic_fetch_or(&slot->dirty[rel / 64], BIT(rel % 64));
}

/* Writes to decoded bytes of a page after which it counts as code and data at once. */
#define MEMSLOT_MIXED_WRITES 16

bool kvm_memslot_written(struct kvm_memslot *slot, gpa_t gpa, uint64_t len)
{
	bool code = false;

	while (len) {
		uint64_t gfn = gpa >> PAGE_SHIFT, off = gpa & ~PAGE_MASK;
		uint64_t n = MIN(len, PAGE_SIZE - off);
		struct kvm_page *p = &slot->pages[gfn - slot->base_gfn];
		uint64_t lines =
			bits(~0ull, (unsigned)((off + n - 1) / 64), 0) & (~0ull << (off / 64));

		/*
		 * A locked read: the caller's stores must be visible before we look whether the
		 * page has been decoded, as the decoder sets its lines before it reads the bytes.
		 */
		if (atomic_fetch_or(&p->code_lines, 0) & lines) {
			/*
			 * The page is not code any more, unless it has been so often that decoding
			 * and writing take turns: then its writes stay on the slow path. gen goes
			 * before the lines, so that no block is valid when writes are unseen again;
			 * and until they are gone nobody makes one.
			 */
			bool clear = atomic_load(&p->writes) < MEMSLOT_MIXED_WRITES;

			if (clear) {
				atomic_fetch_add(&p->writes, 1);
				atomic_fetch_add(&p->clearing, 1);
			}
			atomic_fetch_add(&p->gen, 1);
			if (clear) {
				atomic_store(&p->code_lines, 0);
				atomic_fetch_sub(&p->clearing, 1);
			}
			code = true;
		}
		kvm_memslot_mark_dirty(slot, gfn);
		gpa += n;
		len -= n;
	}
	return code;
}

static size_t memslot_dirty_words(uint64_t npages)
{
	return (size_t)((npages + 63) / 64);
}

static void *memslot_map(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void memslot_free_dirty(struct kvm_memslot *s)
{
	if (s->dirty)
		munmap((void *)s->dirty, memslot_dirty_words(s->npages) * 8);
}

static void memslot_free_pages(struct kvm_memslot *s)
{
	if (s->pages)
		munmap(s->pages, s->npages * sizeof(*s->pages));
}

/* Every page dirty, no bit beyond the last. */
static void memslot_dirty_all(struct kvm_memslot *s)
{
	for (uint64_t page = 0; page < s->npages; page += 64)
		atomic_store(&s->dirty[page / 64],
			     s->npages - page < 64 ? BIT(s->npages - page) - 1 : ~0ull);
}

int kvm_memslots_init(struct kvm_vm *vm)
{
	struct kvm_memslots *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	atomic_store(&vm->slots, t);
	return 0;
}

void kvm_memslots_free(struct kvm_vm *vm)
{
	struct kvm_memslots *t = atomic_load(&vm->slots);

	if (!t)
		return;
	for (uint32_t i = 0; i < t->n; i++) {
		memslot_free_dirty(t->slot[i]);
		memslot_free_pages(t->slot[i]);
		free(t->slot[i]);
	}
	free(t);
	atomic_store(&vm->slots, NULL);
}

static struct kvm_memslot *memslot_by_id(const struct kvm_memslots *t, uint32_t id)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (t->slot[i]->id == id)
			return t->slot[i];
	return NULL;
}

static bool memslot_overlaps(const struct kvm_memslots *t, uint32_t but, uint64_t gfn, uint64_t n)
{
	for (uint32_t i = 0; i < t->n; i++) {
		const struct kvm_memslot *s = t->slot[i];

		if (s->id != but && gfn < s->base_gfn + s->npages && s->base_gfn < gfn + n)
			return true;
	}
	return false;
}

/*
 * Publish a table without old and with new (either may be NULL), wait until no vCPU uses the old
 * table. On success the old table is freed; old itself is the caller's again.
 */
static int memslot_publish(struct kvm_vm *vm, struct kvm_memslot *old, struct kvm_memslot *new,
			   uint32_t request)
{
	struct kvm_memslots *t = atomic_load(&vm->slots), *nt;
	uint32_t n = 0;

	nt = malloc(sizeof(*nt) + (t->n + 1) * sizeof(struct kvm_memslot *));
	if (!nt)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->n; i++) {
		if (new && t->slot[i]->base_gfn > new->base_gfn) {
			nt->slot[n++] = new;
			new = NULL;
		}
		if (t->slot[i] != old)
			nt->slot[n++] = t->slot[i];
	}
	if (new)
		nt->slot[n++] = new;
	nt->n = n;
	atomic_store(&vm->slots, nt);
	kvm_sync_vcpus(vm, request, NULL);
	free(t);
	return 0;
}

static int memslot_delete(struct kvm_vm *vm, struct kvm_memslot *old)
{
	int r = memslot_publish(vm, old, NULL, REQ_TLB_FLUSH | REQ_FLUSH_CODE);

	if (r)
		return r;
	memslot_free_dirty(old);
	memslot_free_pages(old);
	free(old);
	return 0;
}

/* A changed copy of old: same memory, page states and, where it stays logged, dirty bits. */
static int memslot_change(struct kvm_vm *vm, struct kvm_memslot *old, uint64_t base_gfn,
			  uint32_t flags)
{
	bool log = flags & KVM_MEM_LOG_DIRTY_PAGES;
	struct kvm_memslot *new = malloc(sizeof(*new));
	int r;

	if (!new)
		return -ENOMEM;
	*new = *old;
	new->base_gfn = base_gfn;
	new->flags = flags;
	if (log && !old->dirty) {
		new->dirty = memslot_map(memslot_dirty_words(new->npages) * 8);
		if (!new->dirty) {
			free(new);
			return -ENOMEM;
		}
		if (vm->config.dirty_protect & KVM_DIRTY_LOG_INITIALLY_SET)
			memslot_dirty_all(new);
	} else if (!log) {
		new->dirty = NULL;
	}
	r = memslot_publish(vm, old, new,
			    REQ_TLB_FLUSH | (base_gfn != old->base_gfn ? REQ_FLUSH_CODE : 0));
	if (r) {
		if (new->dirty != old->dirty)
			memslot_free_dirty(new);
		free(new);
		return r;
	}
	if (new->dirty != old->dirty)
		memslot_free_dirty(old);
	free(old);
	return 0;
}

static int memslot_create(struct kvm_vm *vm, uint32_t id,
			  const struct kvm_userspace_memory_region *mem)
{
	struct kvm_memslot *s = calloc(1, sizeof(*s));
	int r = -ENOMEM;

	if (!s)
		return -ENOMEM;
	s->id = id;
	s->flags = mem->flags;
	s->base_gfn = mem->guest_phys_addr >> PAGE_SHIFT;
	s->npages = mem->memory_size >> PAGE_SHIFT;
	s->host = (uint8_t *)(uintptr_t)mem->userspace_addr;
	s->pages = memslot_map(s->npages * sizeof(*s->pages));
	if (!s->pages)
		goto fail;
	if (mem->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		s->dirty = memslot_map(memslot_dirty_words(s->npages) * 8);
		if (!s->dirty)
			goto fail;
		if (vm->config.dirty_protect & KVM_DIRTY_LOG_INITIALLY_SET)
			memslot_dirty_all(s);
	}
	/* A vCPU may have cached that there is nothing at these addresses. */
	sanitize_guest_memory(s->host, s->npages << PAGE_SHIFT);
	r = memslot_publish(vm, NULL, s, REQ_TLB_FLUSH);
	if (!r)
		return 0;
fail:
	memslot_free_dirty(s);
	memslot_free_pages(s);
	free(s);
	return r;
}

static int memslot_check(const struct kvm_userspace_memory_region *mem)
{
	if (mem->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if ((mem->memory_size | mem->guest_phys_addr | mem->userspace_addr) & ~PAGE_MASK)
		return -EINVAL;
	if (mem->userspace_addr > MEMSLOT_HOST_END ||
	    mem->memory_size > MEMSLOT_HOST_END - mem->userspace_addr)
		return -EINVAL;
	/* Bits 31:16 name the address space; there is one. */
	if (mem->slot >= KVM_SOFT_MAX_SLOTS)
		return -EINVAL;
	if (mem->guest_phys_addr + mem->memory_size < mem->guest_phys_addr)
		return -EINVAL;
	if (mem->memory_size >> PAGE_SHIFT > MEMSLOT_MAX_PAGES)
		return -EINVAL;
	return 0;
}

static int memslot_set(struct kvm_vm *vm, const struct kvm_userspace_memory_region *mem)
{
	const struct kvm_memslots *t = atomic_load(&vm->slots);
	struct kvm_memslot *old = memslot_by_id(t, mem->slot);
	uint64_t gfn = mem->guest_phys_addr >> PAGE_SHIFT, n = mem->memory_size >> PAGE_SHIFT;

	if (!n)
		return old ? memslot_delete(vm, old) : -EINVAL;
	if (old) {
		if (mem->userspace_addr != (uintptr_t)old->host || n != old->npages ||
		    ((mem->flags ^ old->flags) & KVM_MEM_READONLY))
			return -EINVAL;
		if (gfn == old->base_gfn && mem->flags == old->flags)
			return 0;
	}
	if (!old || gfn != old->base_gfn) {
		if (memslot_overlaps(t, mem->slot, gfn, n))
			return -EEXIST;
		if (gfn + n - 1 > kvm_arch_max_gfn())
			return -EINVAL;
	}
	return old ? memslot_change(vm, old, gfn, mem->flags) : memslot_create(vm, mem->slot, mem);
}

int kvm_set_memory_region(struct kvm_vm *vm, const struct kvm_userspace_memory_region *mem)
{
	int r = memslot_check(mem);

	if (r)
		return r;
	pthread_mutex_lock(&vm->slots_lock);
	r = memslot_set(vm, mem);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

/* The logged slot that a dirty log ioctl names; slots_lock held. */
static int memslot_logged(struct kvm_vm *vm, uint32_t id, struct kvm_memslot **out)
{
	if (id >= KVM_SOFT_MAX_SLOTS)
		return -EINVAL;
	*out = memslot_by_id(atomic_load(&vm->slots), id);
	return *out && (*out)->dirty ? 0 : -ENOENT;
}

int kvm_get_dirty_log(struct kvm_vm *vm, const struct kvm_dirty_log *log)
{
	uint64_t *to = log->dirty_bitmap;
	struct kvm_memslot *s;
	bool flush = false;
	int r;

	pthread_mutex_lock(&vm->slots_lock);
	r = memslot_logged(vm, log->slot, &s);
	for (size_t i = 0; !r && i < memslot_dirty_words(s->npages); i++) {
		if (vm->config.dirty_protect & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) {
			to[i] = atomic_load(&s->dirty[i]);
		} else {
			to[i] = atomic_load(&s->dirty[i]) ? atomic_exchange(&s->dirty[i], 0) : 0;
			flush |= to[i];
		}
	}
	if (flush)
		kvm_sync_vcpus(vm, REQ_TLB_FLUSH, NULL);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

/* Clear the bits of s that are set in from, for pages [first, first + num). */
static bool memslot_clear_bits(struct kvm_memslot *s, const uint64_t *from, uint64_t first,
			       uint64_t num)
{
	bool any = false;

	for (uint64_t page = first; page < first + num; page += 64) {
		uint64_t mask = from[(page - first) / 64];

		if (first + num - page < 64)
			mask &= BIT(first + num - page) - 1;
		if (mask)
			any |= (atomic_fetch_and(&s->dirty[page / 64], ~mask) & mask) != 0;
	}
	return any;
}

int kvm_clear_dirty_log(struct kvm_vm *vm, const struct kvm_clear_dirty_log *log)
{
	struct kvm_memslot *s;
	int r;

	if (log->first_page & 63)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	r = memslot_logged(vm, log->slot, &s);
	if (!r && (log->first_page > s->npages || log->num_pages > s->npages - log->first_page ||
		   (log->num_pages < s->npages - log->first_page && (log->num_pages & 63))))
		r = -EINVAL;
	if (!r && memslot_clear_bits(s, log->dirty_bitmap, log->first_page, log->num_pages))
		kvm_sync_vcpus(vm, REQ_TLB_FLUSH, NULL);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

/* Part of [gpa, gpa + size) that lies in s, or 0. */
static uint64_t memslot_part(const struct kvm_memslot *s, gpa_t gpa, uint64_t size, gpa_t *from)
{
	gpa_t lo = MAX(gpa, s->base_gfn << PAGE_SHIFT);
	gpa_t hi = MIN(gpa + size, (s->base_gfn + s->npages) << PAGE_SHIFT);

	*from = lo;
	return lo < hi ? hi - lo : 0;
}

void kvm_memory_written(struct kvm_vm *vm, gpa_t gpa, uint64_t size)
{
	const struct kvm_memslots *t;
	bool code = false;

	if (gpa + size < gpa)
		size = -gpa;
	pthread_mutex_lock(&vm->slots_lock);
	t = atomic_load(&vm->slots);
	for (uint32_t i = 0; i < t->n; i++) {
		gpa_t from;
		uint64_t n = memslot_part(t->slot[i], gpa, size, &from);

		if (n)
			code |= kvm_memslot_written(t->slot[i], from, n);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	if (code)
		kvm_request_all(vm, REQ_CODE, NULL);
}
