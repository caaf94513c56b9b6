/*
 * PVH: an ELF kernel with a XEN_ELFNOTE_PHYS32_ENTRY note is entered in 32-bit protected mode with
 * EBX pointing at struct hvm_start_info.
 *
 * Modelled: start_info version 1 with memory map, command line, RSDP, one module (the initrd).
 * Not modelled: Xen hypercalls; an ELF without the note (vmlinux of a kernel without CONFIG_PVH),
 * which is refused with the cure.
 * References: [PVH]. Threads: one, before the vCPUs run.
 */
#include <errno.h>

#include "firmware/elf.h"
#include "firmware/kernel.h"

enum { XEN_ELFNOTE_PHYS32_ENTRY_ = 18, PVH_MAGIC = 0x336ec578, PVH_VERSION = 1 };

struct pvh_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp;
	uint64_t memmap; /* since version 1 */
	uint32_t memmap_entries, reserved;
};

struct pvh_module {
	uint64_t paddr, size, cmdline, reserved;
};

struct pvh_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

/* start_info, then the module, then the map: one block, so one claim. */
struct pvh_block {
	struct pvh_start_info info;
	struct pvh_module module;
	struct pvh_memmap map[PLACE_MAP];
};

static int pvh_initrd(struct place *p, const char *path, struct pvh_block *b, struct err *e)
{
	struct image i;
	uint8_t *host = NULL;
	gpa_t at;
	int r = image_open(&i, path, e);

	if (r < 0)
		return err_prefix(e, "-initrd");
	r = place_top(p, i.size, PAGE_SIZE, PLACE_HIGH, place_low_end(p), "the initrd", &at, &host,
		      e);
	if (r < 0) {
		err_prefix(e, "-initrd %s", path);
	} else {
		memcpy(host, i.data, i.size);
		b->module.paddr = at;
		b->module.size = i.size;
		b->info.nr_modules = 1;
	}
	image_close(&i);
	return r;
}

int elf_pvh_load(struct place *p, const struct image *k, const struct boot_input *in,
		 struct boot_state *out, struct err *e)
{
	struct pvh_block b = { 0 };
	uint64_t off, size, entry_paddr;
	gpa_t end, at = 0, cmdline = 0;
	uint8_t *host = NULL;
	struct elf f;
	int r = elf_parse(&f, k, e);

	if (r < 0)
		return r;
	if (!elf_note(&f, "Xen", 4, XEN_ELFNOTE_PHYS32_ENTRY_, &off, &size))
		return err_set(e, ENOEXEC,
			       "an ELF file without a PVH entry note (a Linux vmlinux needs "
			       "CONFIG_PVH=y; or give the bzImage)");
	if (size != 4 && size != 8)
		return err_set(e, ENOEXEC, "the PVH entry note has %llu bytes, not 4 or 8",
			       (unsigned long long)size);
	out->mode = BOOT_PROT32;
	out->proto = "PVH";
	out->rip = image_le(k, off, (unsigned)size);
	r = elf_load(&f, p, &end, &entry_paddr, e);
	if (r < 0)
		return r;
	if (out->rip > UINT32_MAX || !place_ptr(p, out->rip, 1))
		return err_set(e, ENOEXEC, "the PVH entry %#llx is not in memory",
			       (unsigned long long)out->rip);
	r = boot_gdt(p, out, e);
	if (r == 0)
		r = boot_string(p, in->cmdline, "the command line", &cmdline, e);
	if (r == 0)
		r = place_top(p, sizeof(b), 16, 0, PLACE_EBDA, "hvm_start_info", &at, &host, e);
	if (r == 0 && in->initrd)
		r = pvh_initrd(p, in->initrd, &b, e);
	if (r < 0)
		return r;
	b.info.magic = PVH_MAGIC;
	b.info.version = PVH_VERSION;
	b.info.modlist = b.info.nr_modules ? at + offsetof(struct pvh_block, module) : 0;
	b.info.cmdline = cmdline;
	b.info.rsdp = in->rsdp;
	b.info.memmap = at + offsetof(struct pvh_block, map);
	b.info.memmap_entries = p->nmap;
	for (unsigned i = 0; i < p->nmap; i++)
		b.map[i] = (struct pvh_memmap){ p->map[i].base, p->map[i].size, p->map[i].type, 0 };
	memcpy(host, &b, sizeof(b));
	out->rbx = at;
	return 0;
}
