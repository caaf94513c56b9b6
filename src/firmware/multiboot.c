/*
 * Multiboot 1: a 32-bit entry with EAX = 2BADB002h and EBX at the information structure.
 *
 * Modelled: ELF kernels (32-bit, and 64-bit files with a 32-bit entry, as GRUB takes them) and
 * kernels with the header's own addresses; memory sizes and map, command line (the kernel's path
 * first, as GRUB and QEMU give it), modules from -initrd "file args,file2 args" (",," is a comma),
 * loader name.
 * Not modelled: boot device, symbols, APM, and a video mode: it is a preference, and the
 * information structure then says that there is none.
 * References: [MULTIBOOT 3.1-3.3]. Threads: one, before the vCPUs run.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "firmware/elf.h"
#include "firmware/kernel.h"

enum {
	MB_SEARCH = 8192,
	MB_MAGIC = 0x1badb002,
	MB_EAX = 0x2badb002,
	MB_F_KNOWN = 0x00010007, /* bits 0-15 must be understood: page align, memory, video */
	MB_F_MUST = 0x0000ffff,
	MB_F_ADDRS = 1 << 16,
	MB_MODULES_MAX = 64,
	MBI_MEMORY = 1 << 0,
	MBI_CMDLINE = 1 << 2,
	MBI_MODS = 1 << 3,
	MBI_MMAP = 1 << 6,
	MBI_LOADER = 1 << 9,
};

struct mb_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	uint32_t syms[4], mmap_length, mmap_addr, drives[2], config_table, loader_name, apm_table;
	uint32_t vbe[4], framebuffer[6];
};

struct mb_module {
	uint32_t start, end, string, reserved;
};

struct mb_mmap {
	uint32_t size; /* of the rest of the entry */
	uint32_t addr[2], len[2], type;
};

struct mb_block {
	struct mb_info info;
	struct mb_mmap map[PLACE_MAP];
	struct mb_module mod[MB_MODULES_MAX];
};

static bool multiboot_find(const struct image *k, uint64_t *off)
{
	for (uint64_t o = 0; o + 12 <= MB_SEARCH && image_has(k, o, 12); o += 4) {
		if (image_u32(k, o) != MB_MAGIC ||
		    (uint32_t)(MB_MAGIC + image_u32(k, o + 4) + image_u32(k, o + 8)))
			continue;
		*off = o;
		return true;
	}
	return false;
}

/* Addresses in the header ("a.out kludge"): [MULTIBOOT 3.1.3]. */
static int multiboot_flat(struct place *p, const struct image *k, uint64_t off, gpa_t *end,
			  uint64_t *entry, struct err *e)
{
	uint32_t header = image_u32(k, off + 12), load = image_u32(k, off + 16);
	uint32_t load_end = image_u32(k, off + 20), bss_end = image_u32(k, off + 24);
	uint64_t from, size, total;
	uint8_t *host = NULL;
	int r;

	*entry = image_u32(k, off + 28);
	if (!image_has(k, off, 32))
		return err_set(e, ENOEXEC, "truncated: the multiboot header is incomplete");
	if (header < load || header - load > off)
		return err_set(e, ENOEXEC,
			       "multiboot header: load address %#x does not fit header address %#x "
			       "at file offset %#llx",
			       load, header, (unsigned long long)off);
	from = off - (header - load);
	if (load_end && load_end < load)
		return err_set(e, ENOEXEC, "multiboot header: load end %#x is below load %#x",
			       load_end, load);
	size = load_end ? load_end - load : k->size - from;
	if (!image_has(k, from, size))
		return err_set(e, ENOEXEC,
			       "truncated: the multiboot header asks for %#llx bytes, "
			       "the file has %#llx",
			       (unsigned long long)size, (unsigned long long)(k->size - from));
	if (bss_end && (bss_end < load || bss_end - load < size))
		return err_set(e, ENOEXEC, "multiboot header: bss end %#x is inside the data",
			       bss_end);
	total = bss_end ? bss_end - load : size;
	r = place_claim(p, load, total, "the multiboot kernel", &host, e);
	if (r < 0)
		return r;
	memcpy(host, k->data + from, size);
	memset(host + size, 0, total - size);
	*end = load + total;
	return 0;
}

/* One module: str is "path args" and is kept whole as the module's string. */
static int multiboot_module(struct place *p, char *str, gpa_t floor, struct mb_module *m,
			    struct err *e)
{
	size_t n;
	char *path;
	struct image i;
	uint8_t *host = NULL;
	gpa_t at = 0, text = 0;
	int r;

	str += strspn(str, " ");
	n = strcspn(str, " ");
	path = strndup(str, n);
	if (!path)
		return err_set(e, ENOMEM, "-initrd: out of memory");
	r = image_open(&i, path, e);
	if (r < 0) {
		free(path);
		return err_prefix(e, "-initrd");
	}
	/* Page-aligned whether flag 0 asks for it or not; after the kernel, as loaders do. */
	r = place_bottom(p, i.size, PAGE_SIZE, MAX(floor, (gpa_t)PLACE_HIGH), place_low_end(p),
			 "a multiboot module", &at, &host, e);
	if (r == 0) {
		memcpy(host, i.data, i.size);
		r = boot_string(p, str, "a module's string", &text, e);
	}
	if (r == 0)
		*m = (struct mb_module){ (uint32_t)at, (uint32_t)(at + i.size), (uint32_t)text, 0 };
	else
		err_prefix(e, "-initrd %s", path);
	image_close(&i);
	free(path);
	return r;
}

static int multiboot_modules(struct place *p, const char *list, gpa_t floor, struct mb_block *b,
			     struct err *e)
{
	char *one = malloc(strlen(list) + 1);
	size_t n = 0;
	int r = 0;

	if (!one)
		return err_set(e, ENOMEM, "-initrd: out of memory");
	for (const char *s = list; r == 0; s++) {
		if (*s == ',' && s[1] == ',') {
			one[n++] = *s++;
			continue;
		}
		if (*s && *s != ',') {
			one[n++] = *s;
			continue;
		}
		one[n] = 0;
		n = 0;
		if (!one[strspn(one, " ")])
			r = err_set(e, EINVAL, "-initrd %s: a module without a file name", list);
		else if (b->info.mods_count == MB_MODULES_MAX)
			r = err_set(e, E2BIG, "-initrd: more than %d modules", MB_MODULES_MAX);
		else
			r = multiboot_module(p, one, floor, &b->mod[b->info.mods_count++], e);
		if (!*s)
			break;
	}
	free(one);
	return r;
}

static int multiboot_cmdline(struct place *p, const char *name, const char *args, gpa_t *gpa,
			     struct err *e)
{
	char *s = NULL;
	int r;

	if (asprintf(&s, "%s%s%s", name, *args ? " " : "", args) < 0)
		return err_set(e, ENOMEM, "out of memory for the command line");
	r = boot_string(p, s, "the command line", gpa, e);
	free(s);
	return r;
}

static void multiboot_map(const struct place *p, struct mb_block *b)
{
	uint64_t upper = (place_low_end(p) - PLACE_HIGH) >> 10;

	b->info.mem_lower = PLACE_EBDA >> 10;
	b->info.mem_upper = (uint32_t)upper;
	b->info.mmap_length = p->nmap * (uint32_t)sizeof(struct mb_mmap);
	for (unsigned i = 0; i < p->nmap; i++) {
		const struct mem_range *m = &p->map[i];

		b->map[i] = (struct mb_mmap){ sizeof(struct mb_mmap) - 4,
					      { (uint32_t)m->base, (uint32_t)(m->base >> 32) },
					      { (uint32_t)m->size, (uint32_t)(m->size >> 32) },
					      m->type };
	}
}

static int multiboot_kernel(struct place *p, const struct image *k, uint64_t off, gpa_t *end,
			    uint64_t *entry, struct err *e)
{
	uint32_t flags = image_u32(k, off + 4);
	struct elf f;
	int r;

	if (flags & MB_F_MUST & ~MB_F_KNOWN)
		return err_set(e, ENOEXEC, "multiboot header demands unknown features (flags %#x)",
			       flags);
	/* The specification lets the header's addresses win over the file's format. */
	if (flags & MB_F_ADDRS)
		return multiboot_flat(p, k, off, end, entry, e);
	r = elf_parse(&f, k, e);
	if (r == -ENOEXEC && !e->code)
		return err_set(e, ENOEXEC,
			       "a multiboot kernel that is neither ELF nor has load addresses");
	return r < 0 ? r : elf_load(&f, p, end, entry, e);
}

int multiboot_load(struct place *p, const struct image *k, const struct boot_input *in,
		   struct boot_state *out, struct err *e)
{
	struct err local = { 0 };
	struct mb_block *b;
	uint64_t off, entry = 0;
	gpa_t end = 0, at = 0, cmdline = 0, loader = 0;
	uint8_t *host = NULL;
	int r;

	e = e ? e : &local;
	if (!multiboot_find(k, &off))
		return -ENOEXEC;
	out->mode = BOOT_PROT32;
	out->proto = "multiboot";
	r = multiboot_kernel(p, k, off, &end, &entry, e);
	if (r < 0)
		return r;
	if (entry > UINT32_MAX || !place_ptr(p, entry, 1))
		return err_set(e, ENOEXEC, "the entry point %#llx is not in memory",
			       (unsigned long long)entry);
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, ENOMEM, "out of memory");
	multiboot_map(p, b);
	r = boot_gdt(p, out, e);
	if (r == 0)
		r = multiboot_cmdline(p, k->name, in->cmdline, &cmdline, e);
	if (r == 0)
		r = boot_string(p, "kvasir", "the loader's name", &loader, e);
	if (r == 0 && in->initrd)
		r = multiboot_modules(p, in->initrd, end, b, e);
	if (r == 0)
		r = place_top(p, sizeof(*b), 16, 0, PLACE_EBDA, "the multiboot information", &at,
			      &host, e);
	if (r == 0) {
		b->info.flags = MBI_MEMORY | MBI_CMDLINE | MBI_MODS | MBI_MMAP | MBI_LOADER;
		b->info.cmdline = (uint32_t)cmdline;
		b->info.loader_name = (uint32_t)loader;
		b->info.mods_addr = (uint32_t)(at + offsetof(struct mb_block, mod));
		b->info.mmap_addr = (uint32_t)(at + offsetof(struct mb_block, map));
		memcpy(host, b, sizeof(*b));
		out->rip = entry;
		out->rax = MB_EAX;
		out->rbx = at;
	}
	free(b);
	return r;
}
