/*
 * Linux bzImage: the 64-bit boot protocol where the kernel has it, else the 32-bit one.
 *
 * Theory of operation: the file is a boot sector and setup code of (setup_sects + 1) * 512 bytes,
 * which describe the kernel and which we do not run, and then the kernel proper. The latter goes to
 * its preferred address when it is relocatable, else to 1 MiB. The setup header is copied into a
 * zeroed page (boot_params) together with the memory map, the command line's and the initrd's
 * place and the RSDP; RSI points at it. The initrd goes as high as it may, so that the kernel
 * has room to unpack itself (init_size), which is claimed too.
 *
 * Modelled: versions 2.02 to 2.15; initrd above 4 GiB where the kernel allows it.
 * Not modelled: zImage (loads low; nothing builds it since 2.6.30), the EFI handover entry,
 * setup_data. References: [LINUX-BOOT] all offsets below. Threads: one, before the vCPUs run.
 */
#include <errno.h>

#include "firmware/kernel.h"

/* Offsets in the file and in boot_params alike. */
enum {
	BP_EXT_MEM_K = 0x002,
	BP_ACPI_RSDP = 0x070,
	BP_EXT_RAMDISK_IMAGE = 0x0c0,
	BP_EXT_RAMDISK_SIZE = 0x0c4,
	BP_ALT_MEM_K = 0x1e0,
	BP_E820_ENTRIES = 0x1e8,
	HDR_START = 0x1f1,
	HDR_SETUP_SECTS = 0x1f1,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP = 0x200, /* short jump over the header: its second byte gives the header's end */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_CODE32_START = 0x214,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMD_LINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_KERNEL_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END_MAX = 0x290, /* [LINUX-BOOT] boot_params: edd follows */
	BP_E820_TABLE = 0x2d0,
};

enum {
	LOADED_HIGH = 1 << 0,
	KEEP_SEGMENTS = 1 << 6,
	XLF_KERNEL_64 = 1 << 0,
	XLF_ABOVE_4G = 1 << 1,
	LOADER_UNDEFINED = 0xff, /* type_of_loader: a loader without a number */
	ENTRY_64 = 0x200,        /* the 64-bit entry, from the start of the kernel proper */
	PDE_TABLES = 4,          /* page directories: 4 GiB in pages of 2 MiB */
};

struct bzimage {
	uint64_t setup; /* bytes before the kernel proper */
	uint64_t size;  /* of the kernel proper in the file */
	uint16_t version;
	uint16_t xflags;
	bool relocatable, is64;
	uint32_t align, init_size, cmdline_max;
	uint64_t pref, initrd_max;
	uint32_t code32;
};

static int bzimage_parse(const struct image *k, struct bzimage *b, struct err *e)
{
	uint8_t sects;

	if (!image_has(k, 0, HDR_VERSION + 2) || memcmp(k->data + HDR_MAGIC, "HdrS", 4) ||
	    image_u16(k, HDR_BOOT_FLAG) != 0xaa55)
		return -ENOEXEC;
	sects = image_u8(k, HDR_SETUP_SECTS);
	b->setup = ((sects ? sects : 4) + 1) * 512ull;
	b->version = image_u16(k, HDR_VERSION);
	if (k->size <= b->setup)
		return err_set(e, ENOEXEC,
			       "truncated: %llu bytes, but the kernel proper begins at %llu",
			       (unsigned long long)k->size, (unsigned long long)b->setup);
	b->size = k->size - b->setup;
	if (b->version < 0x202 || !(image_u8(k, HDR_LOADFLAGS) & LOADED_HIGH))
		return err_set(e, ENOEXEC,
			       "a Linux zImage or boot protocol %u.%02u; a bzImage with protocol "
			       "2.02 or later is needed",
			       b->version >> 8, b->version & 0xff);
	b->code32 = image_u32(k, HDR_CODE32_START);
	b->initrd_max = 0x37ffffff;
	b->cmdline_max = 255;
	b->align = 0x1000;
	b->pref = PLACE_HIGH;
	if (b->version >= 0x203)
		b->initrd_max = image_u32(k, HDR_INITRD_ADDR_MAX);
	if (b->version >= 0x205) {
		b->align = image_u32(k, HDR_KERNEL_ALIGNMENT);
		b->relocatable = image_u8(k, HDR_RELOCATABLE) != 0;
	}
	if (b->version >= 0x206)
		b->cmdline_max = image_u32(k, HDR_CMDLINE_SIZE);
	if (b->version >= 0x20a) {
		b->pref = image_u64(k, HDR_PREF_ADDRESS);
		b->init_size = image_u32(k, HDR_INIT_SIZE);
	}
	if (b->version >= 0x20c) {
		b->xflags = image_u16(k, HDR_XLOADFLAGS);
		b->is64 = b->xflags & XLF_KERNEL_64;
	}
	if (b->is64 && b->size < ENTRY_64 + 16)
		return err_set(e, ENOEXEC, "truncated: no code at the 64-bit entry point");
	if (b->relocatable && (!b->align || (b->align & (b->align - 1))))
		return err_set(e, ENOEXEC, "the header's kernel_alignment %#x is no power of two",
			       b->align);
	return 0;
}

/* Choose the load address and copy the kernel proper there. */
static int bzimage_place(struct place *p, const struct image *k, const struct bzimage *b,
			 gpa_t *load, struct err *e)
{
	/* init_size covers unpacking in place; without it (< 2.10) the kernel cares for itself. */
	uint64_t need = MAX(b->size, (uint64_t)b->init_size), end;
	gpa_t at = PLACE_HIGH;
	uint8_t *host;
	int r;

	/* A relocatable kernel that is loaded below its preferred address moves up to it, so it
	 * must have its room there in any case. A fixed one gets there from 1 MiB by itself. */
	if (b->relocatable)
		at = MAX(b->pref, (gpa_t)PLACE_HIGH);
	if (b->relocatable && at <= UINT32_MAX)
		at = (at + b->align - 1) & ~(uint64_t)(b->align - 1);
	else if (b->init_size && b->pref > at && b->pref <= UINT32_MAX)
		need += b->pref - at;
	end = at + need;
	if (end < at || end > place_low_end(p))
		return err_set(
			e, ENOMEM,
			"the kernel needs memory up to %llu MiB to unpack itself, the guest has "
			"%llu MiB below 3 GiB; give more with -m",
			(unsigned long long)((end < at ? at : end) + 0xfffff) >> 20,
			(unsigned long long)(place_low_end(p) >> 20));
	r = place_claim(p, at, need, "the kernel", &host, e);
	if (r == 0) {
		memcpy(host, k->data + b->setup, b->size);
		*load = at;
	}
	return r;
}

static int bzimage_initrd(struct place *p, const struct bzimage *b, const char *path, uint8_t *bp,
			  struct err *e)
{
	/* initrd_addr_max is the last byte's address; the kernel's own limit for "high" is its
	 * direct map, which covers all RAM we give. */
	gpa_t limit = MIN(b->initrd_max + 1, place_end(p)), at;
	struct image i;
	uint8_t *host;
	int r = image_open(&i, path, e);

	if (r < 0)
		return err_prefix(e, "-initrd");
	if (!i.size) {
		r = err_set(e, EINVAL, "-initrd %s: the file is empty", path);
		goto out;
	}
	r = place_top(p, i.size, PAGE_SIZE, PLACE_HIGH, limit, "the initrd", &at, &host, e);
	if (r < 0 && b->is64 && (b->xflags & XLF_ABOVE_4G))
		r = place_top(p, i.size, PAGE_SIZE, PLACE_HIGH, place_end(p), "the initrd", &at,
			      &host, e);
	if (r < 0) {
		err_prefix(e, "-initrd %s", path);
		goto out;
	}
	memcpy(host, i.data, i.size);
	memcpy(bp + HDR_RAMDISK_IMAGE, &(uint32_t){ (uint32_t)at }, 4);
	memcpy(bp + HDR_RAMDISK_SIZE, &(uint32_t){ (uint32_t)i.size }, 4);
	if (b->is64) {
		memcpy(bp + BP_EXT_RAMDISK_IMAGE, &(uint32_t){ (uint32_t)(at >> 32) }, 4);
		memcpy(bp + BP_EXT_RAMDISK_SIZE, &(uint32_t){ (uint32_t)(i.size >> 32) }, 4);
	}
out:
	image_close(&i);
	return r;
}

/* boot_params: the file's setup header, our answers, the memory map. */
static void bzimage_params(const struct place *p, const struct image *k, const struct bzimage *b,
			   gpa_t load, gpa_t cmdline, gpa_t rsdp, uint8_t *bp)
{
	uint64_t end = HDR_MAGIC + image_u8(k, HDR_JUMP + 1), ext;
	uint32_t code32 = b->relocatable ? (uint32_t)load : b->code32;

	end = MIN(MAX(end, (uint64_t)HDR_CMD_LINE_PTR + 4), (uint64_t)HDR_END_MAX);
	end = MIN(end, k->size);
	memcpy(bp + HDR_START, k->data + HDR_START, end - HDR_START);
	bp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	bp[HDR_LOADFLAGS] &= (uint8_t)~KEEP_SEGMENTS; /* ours are what the protocol asks for */
	memset(bp + HDR_RAMDISK_IMAGE, 0, 8);
	memcpy(bp + HDR_CODE32_START, &code32, 4);
	memcpy(bp + HDR_CMD_LINE_PTR, &(uint32_t){ (uint32_t)cmdline }, 4);
	memset(bp + HDR_SETUP_DATA, 0, 8);
	memcpy(bp + BP_ACPI_RSDP, &rsdp, 8);
	bp[BP_E820_ENTRIES] = (uint8_t)p->nmap;
	for (unsigned i = 0; i < p->nmap; i++) {
		uint8_t *row = bp + BP_E820_TABLE + i * 20;

		memcpy(row, &p->map[i].base, 8);
		memcpy(row + 8, &p->map[i].size, 8);
		memcpy(row + 16, &(uint32_t){ p->map[i].type }, 4);
	}
	/* What very old kernels and memory testers read instead of the map. */
	ext = (place_low_end(p) - PLACE_HIGH) >> 10;
	memcpy(bp + BP_EXT_MEM_K, &(uint16_t){ (uint16_t)MIN(ext, 0xfc00ull) }, 2);
	memcpy(bp + BP_ALT_MEM_K, &(uint32_t){ (uint32_t)ext }, 4);
}

/* Identity-map the first 4 GiB: PML4, PDPT, four page directories of 2-MiB pages. */
static int bzimage_tables(struct place *p, gpa_t *cr3, struct err *e)
{
	enum { PRESENT_WRITE = 3, LARGE = 0x80 };
	uint8_t *host;
	uint64_t *t;
	int r = place_top(p, (2 + PDE_TABLES) * PAGE_SIZE, PAGE_SIZE, 0, PLACE_EBDA,
			  "the boot page tables", cr3, &host, e);

	if (r < 0)
		return r;
	t = (uint64_t *)host; /* page-aligned by place_top */
	memset(t, 0, 2 * PAGE_SIZE);
	t[0] = (*cr3 + PAGE_SIZE) | PRESENT_WRITE;
	for (unsigned i = 0; i < PDE_TABLES; i++)
		t[512 + i] = (*cr3 + (2 + i) * PAGE_SIZE) | PRESENT_WRITE;
	for (uint64_t i = 0; i < PDE_TABLES * 512ull; i++)
		t[1024 + i] = i << 21 | PRESENT_WRITE | LARGE;
	return 0;
}

int bzimage_load(struct place *p, const struct image *k, const struct boot_input *in,
		 struct boot_state *out, struct err *e)
{
	struct bzimage b = { 0 };
	gpa_t load = 0, cmdline = 0, params = 0;
	uint8_t *bp = NULL;
	int r = bzimage_parse(k, &b, e);

	if (r < 0)
		return r;
	if (strlen(in->cmdline) > b.cmdline_max)
		return err_set(e, E2BIG,
			       "-append is %zu characters long, this kernel takes at most %u",
			       strlen(in->cmdline), b.cmdline_max);
	out->mode = b.is64 ? BOOT_LONG64 : BOOT_PROT32;
	out->proto = b.is64 ? "Linux 64-bit" : "Linux 32-bit";
	r = bzimage_place(p, k, &b, &load, e);
	if (r == 0)
		r = boot_gdt(p, out, e);
	if (r == 0 && b.is64)
		r = bzimage_tables(p, &out->cr3, e);
	if (r == 0)
		r = boot_string(p, in->cmdline, "the command line", &cmdline, e);
	if (r == 0)
		r = place_top(p, PAGE_SIZE, PAGE_SIZE, 0, PLACE_EBDA, "boot_params", &params, &bp,
			      e);
	if (r < 0)
		return r;
	memset(bp, 0, PAGE_SIZE);
	bzimage_params(p, k, &b, load, cmdline, in->rsdp, bp);
	if (in->initrd) {
		r = bzimage_initrd(p, &b, in->initrd, bp, e);
		if (r < 0)
			return r;
	}
	out->rsi = params;
	/* A fixed kernel may ask for another 32-bit entry than its first byte (code32_start). */
	out->rip = b.is64 ? load + ENTRY_64 : b.relocatable || !b.code32 ? load : b.code32;
	return 0;
}
