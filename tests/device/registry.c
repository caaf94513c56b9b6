/*
 * What every device class must do, checked for all of hw/devices.def: a sound state table, reset
 * that is idempotent, state that is all there is (a copy made by save and load behaves the same
 * from then on), hostile sections refused or harmless, and accesses of every size at every offset.
 */
#include "testbed.h"

#include <stdio.h>

#include "hw/pci/assign.h"

#define OPS       300
#define FLIP_FULL 4096 /* sections up to this size have every bit flipped, larger ones a sample */

static uint64_t rnd(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* One of the class; a PCI function is number 0 of a bus, and its BARs are placed. */
static struct dev *make(struct bed *b, const struct dev_class *cls)
{
	static const struct pci_windows w = { { 0xc000, 0xdfff },
					      { 0xf0000000, 0xf0ffffff },
					      { 1, 0 } };
	static const uint8_t irq[4] = { 10, 10, 11, 11 };
	struct err e = { 0 };
	struct dev *d;

	if (cls->bus && !strcmp(cls->bus, "PCI")) {
		if (!b->md.pci)
			bed_pci(b);
		d = dev_create(&b->md, cls, NULL, &e, "addr", "0", NULL);
		if (d && pci_assign(b->md.pci, &w, irq, &e) < 0)
			d = NULL;
	} else if (dev_class_has_prop(cls, "drive")) {
		d = dev_create(&b->md, cls, NULL, &e, "drive", bed_disk(b), NULL);
	} else {
		d = dev_create(&b->md, cls, NULL, &e, NULL);
	}
	if (!d)
		fail_msg("%s: %s", cls->name, e.msg);
	return d;
}

/* Number of ranges in both spaces, and number i of them. */
static size_t ranges(struct bed *b, size_t i, struct region *out)
{
	size_t n = 0, k;

	for (int space = 0; space < BUS_SPACES; space++)
		for (k = 0; bus_region_at(b->md.bus, (enum bus_space)space, k, out); k++, n++)
			if (n == i)
				return n;
	return n;
}

static uint64_t access_at(struct bed *b, enum bus_space sp, uint64_t at, unsigned size, bool write,
			  uint64_t v)
{
	if (sp == BUS_IO && write)
		bus_io_write(b->md.bus, (uint16_t)at, v, size);
	else if (sp == BUS_IO)
		return bus_io_read(b->md.bus, (uint16_t)at, size);
	else if (write)
		bus_mem_write(b->md.bus, at, v, size);
	else
		return bus_mem_read(b->md.bus, at, size);
	return 0;
}

/* One random access or step of time. The same seed does the same in another machine. */
static uint64_t poke(struct bed *b, uint64_t *seed)
{
	struct region r;
	size_t n = ranges(b, SIZE_MAX, &r);
	uint64_t x = rnd(seed), at;
	unsigned size;

	if (x % 8 == 0 || !n) {
		loop_advance(b->loop, rnd(seed) % (x % 64 ? 2 * NS_PER_MS : 3 * NS_PER_SEC));
		return 0;
	}
	ranges(b, rnd(seed) % n, &r);
	size = 1u << (x >> 8) % (r.space == BUS_IO ? 3 : 4);
	at = r.base + rnd(seed) % MIN(r.len, 4096u);
	return access_at(b, r.space, at, size, x >> 16 & 1, rnd(seed) >> (x >> 20) % 57);
}

static void sync_clock(const struct bed *from, struct bed *to)
{
	clock_advance(&to->clock, clock_now(&from->clock) - clock_now(&to->clock));
}

static uint8_t *save(struct dev *d, size_t *n)
{
	uint8_t *p = malloc(state_save_size(&d->cls->state));

	*n = dev_save(d, p, state_save_size(&d->cls->state));
	assert_int_equal(*n, state_save_size(&d->cls->state));
	return p;
}

static void assert_same(struct dev *a, struct dev *b, const char *when)
{
	if (state_diff(&a->cls->state, a, b, stderr))
		fail_msg("%s: %s: state differs", a->cls->name, when);
}

static void registry_classes(void **state)
{
	const struct dev_class *k;
	struct err e = { 0 };

	assert_null(hw_class("isa-serail", &e));
	assert_non_null(strstr(e.msg, "isa-serial"));
	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		char *text = NULL;
		size_t len;
		FILE *f = open_memstream(&text, &len);

		if (!k->name || !k->desc || !k->realize || !k->reset ||
		    k->size < sizeof(struct dev))
			fail_msg("class %s is incomplete", hw_class_file(i));
		if (state_check(&k->state, &e))
			fail_msg("%s: %s", k->name, e.msg);
		assert_ptr_equal(hw_class(k->name, &e), k);
		dev_help(k, f);
		fclose(f);
		for (const struct prop *p = k->props; p && p->name; p++)
			if (!p->help || !strstr(text, p->name) || strchr(p->name, '_'))
				fail_msg("%s: property %s: help, or an underscore", k->name,
					 p->name);
		free(text);
	}
}

static void registry_reset(void **state)
{
	const struct dev_class *k;

	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		struct bed *b = bed_new();
		struct dev *d = make(b, k);
		uint64_t seed = 0x1234567 + i;
		uint8_t *one, *two;
		size_t n;

		for (int op = 0; op < OPS; op++)
			poke(b, &seed);
		dev_reset(d, RESET_COLD);
		one = save(d, &n);
		dev_reset(d, RESET_COLD);
		two = save(d, &n);
		if (memcmp(one, two, n))
			fail_msg("%s: a second reset changes something", k->name);
		for (unsigned l = 0; l < BED_LINES; l++)
			if (b->level[l])
				fail_msg("%s: line %u is high after reset", k->name, l);
		free(one);
		free(two);
		bed_free(b);
	}
}

static void registry_copy_behaves_the_same(void **state)
{
	const struct dev_class *k;

	for (size_t i = 0; (k = hw_class_at(i)); i++)
		for (uint64_t round = 1; round <= 10; round++) {
			struct bed *b = bed_new(), *b2 = bed_new();
			struct dev *d = make(b, k), *d2 = make(b2, k);
			uint64_t seed = round * 0x9e3779b97f4a7c15 + i, seed2;

			for (int op = 0; op < OPS; op++)
				poke(b, &seed);
			for (uint64_t op = 0; op < round; op++) /* it has a past of its own */
				poke(b2, &(uint64_t){ seed + op });
			/* time may not go back in a virtual clock: the later one rules */
			if (clock_now(&b->clock) < clock_now(&b2->clock))
				loop_advance(b->loop, clock_now(&b2->clock) - clock_now(&b->clock));
			sync_clock(b, b2);
			bed_copy(d, d2);
			for (unsigned l = 0; l < BED_LINES; l++)
				if (b->level[l] != b2->level[l])
					fail_msg("%s: line %u is not re-derived", k->name, l);
			seed2 = seed;
			for (int op = 0; op < OPS; op++)
				if (poke(b, &seed) != poke(b2, &seed2))
					fail_msg("%s: a loaded device reads differently", k->name);
			assert_same(d, d2, "after the same accesses");
			for (unsigned l = 0; l < BED_LINES; l++)
				assert_int_equal(b->level[l], b2->level[l]);
			bed_free(b);
			bed_free(b2);
		}
}

static void registry_hostile_sections(void **state)
{
	const struct dev_class *k;

	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		struct bed *b = bed_new(), *b2 = bed_new();
		struct dev *d = make(b, k), *d2 = make(b2, k);
		uint64_t seed = 42 + i;
		uint8_t *sec, *cut;
		size_t n, step;
		struct err e;

		for (int op = 0; op < OPS; op++)
			poke(b, &seed);
		sync_clock(b, b2);
		sec = save(d, &n);
		step = n <= FLIP_FULL ? 1 : n / 64;
		for (size_t len = 0; len < n; len += len < 256 || n - len < 64 ? 1 : step) {
			cut = malloc(len + 1); /* exact, so that ASan sees a read past the end */
			memcpy(cut, sec, len);
			cut = realloc(cut, len ? len : 1);
			if (!dev_load(d2, cut, len, &e))
				fail_msg("%s: takes %zu of %zu bytes", k->name, len, n);
			free(cut);
		}
		for (size_t at = 0; at < n; at += at < 256 ? 1 : step)
			for (int bit = 0; bit < 8; bit++) {
				size_t m;
				uint8_t *before = save(d2, &m), *after;
				bool refused;

				sec[at] ^= (uint8_t)(1 << bit);
				refused = dev_load(d2, sec, n, &e);
				sec[at] ^= (uint8_t)(1 << bit);
				after = save(d2, &m);
				if (refused && memcmp(before, after, m))
					fail_msg("%s: refused, yet changed", k->name);
				free(before);
				free(after);
				for (int op = 0; op < 4; op++)
					poke(b2, &seed);
			}
		free(sec);
		bed_free(b);
		bed_free(b2);
	}
}

static void registry_every_access(void **state)
{
	const struct dev_class *k;

	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		struct bed *b = bed_new();
		struct region r;
		size_t n;

		make(b, k);
		n = ranges(b, SIZE_MAX, &r);
		for (size_t j = 0; j < n; j++) {
			ranges(b, j, &r);
			for (uint64_t at = r.base - MIN(r.base, 8u);
			     at < r.base + MIN(r.len, 64u) + 8; at++)
				for (unsigned size = 1; size <= 8; size++)
					for (unsigned v = 0; v < 4; v++) {
						uint64_t x = v * 0x5555555555555555ull;

						access_at(b, r.space, at, size, true, x);
						x = access_at(b, r.space, at, size, false, 0);
						if (size < 8)
							assert_int_equal(x >> 8 * size, 0);
					}
		}
		bed_free(b);
	}
}

/* A second device at the same place is refused, by name, and leaves nothing behind. */
static void registry_twice(void **state)
{
	const struct dev_class *k;

	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		struct bed *b = bed_new();
		struct dev *d = make(b, k);
		struct err e = { 0 };
		struct region r;

		bool pci = k->bus && !strcmp(k->bus, "PCI");

		if (!pci && !ranges(b, SIZE_MAX, &r)) { /* it has no place: many may be */
			bed_free(b);
			continue;
		}
		if (pci)
			assert_null(dev_create(&b->md, k, NULL, &e, "addr", "0", NULL));
		else
			assert_null(dev_create(&b->md, k, NULL, &e, NULL));
		if (!strstr(e.msg, d->id))
			fail_msg("%s: %s", k->name, e.msg);
		assert_ptr_equal(b->md.last, d);
		dev_free(d);
		make(b, k);
		bed_free(b);
	}
}

/* The lines of old that belong to a class, as one string. */
static char *lines_of(const char *text, const char *name)
{
	char *out = calloc(1, strlen(text) + 1), *at = out;
	size_t nl = strlen(name);

	while (*text) {
		size_t len = strcspn(text, "\n") + 1;

		if (!strncmp(text, name, nl) && text[nl] == ' ') {
			memcpy(at, text, len);
			at += len;
		}
		text += len;
	}
	return out;
}

/*
 * The schema of all classes against the golden file. With KVASIR_UPDATE_GOLDEN set the file is
 * rewritten, but not for a class whose rows changed under the same version.
 */
static void registry_schema(void **state)
{
	const char *path = TESTS_DIR "/golden/state-schema.txt";
	char *now = NULL, *old = calloc(1, 1 << 20);
	const struct dev_class *k;
	FILE *f;
	size_t len;

	f = open_memstream(&now, &len);
	for (size_t i = 0; (k = hw_class_at(i)); i++)
		state_schema(&k->state, k->name, f);
	fclose(f);
	f = fopen(path, "r");
	if (f) {
		old[fread(old, 1, (1 << 20) - 1, f)] = 0;
		fclose(f);
	}
	for (size_t i = 0; (k = hw_class_at(i)); i++) {
		char *was = lines_of(old, k->name), *is = lines_of(now, k->name);
		unsigned version = 0;

		if (*was && strcmp(was, is) && sscanf(was, "%*s %u", &version) == 1 &&
		    version == k->state.version)
			fail_msg("%s: the state changed but its version is still %u", k->name,
				 version);
		free(was);
		free(is);
	}
	if (strcmp(old, now) && getenv("KVASIR_UPDATE_GOLDEN")) {
		f = fopen(path, "w");
		assert_non_null(f);
		fputs(now, f);
		fclose(f);
	} else if (strcmp(old, now)) {
		fail_msg("%s is not up to date: run this test with KVASIR_UPDATE_GOLDEN=1 and "
			 "commit it with the change",
			 path);
	}
	free(now);
	free(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registry_classes),
		cmocka_unit_test(registry_reset),
		cmocka_unit_test(registry_copy_behaves_the_same),
		cmocka_unit_test(registry_hostile_sections),
		cmocka_unit_test(registry_every_access),
		cmocka_unit_test(registry_twice),
		cmocka_unit_test(registry_schema),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
