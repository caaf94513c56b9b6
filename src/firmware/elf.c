/* ELF parsing and loading; see elf.h. */
#include "firmware/elf.h"

#include <errno.h>

enum {
	EM_386_ = 3,
	EM_X86_64_ = 62,
	ET_EXEC_ = 2,
	ET_DYN_ = 3,
	PT_LOAD_ = 1,
	PT_NOTE_ = 4,
	ELF_PHDRS_MAX = 128,
	ELF_NOTES_MAX = 4096, /* notes looked at: a crafted file must not keep us busy */
};

int elf_parse(struct elf *f, const struct image *img, struct err *e)
{
	unsigned machine, type, want;

	*f = (struct elf){ .img = img };
	if (!image_has(img, 0, 4) || memcmp(img->data,
					    "\x7f"
					    "ELF",
					    4))
		return -ENOEXEC;
	if (!image_has(img, 0, 52))
		return err_set(e, ENOEXEC, "truncated: the ELF header is incomplete");
	f->is64 = image_u8(img, 4) == 2;
	if ((!f->is64 && image_u8(img, 4) != 1) || image_u8(img, 5) != 1)
		return err_set(e, ENOEXEC, "an ELF of class %u, data encoding %u; x86 is 1 or 2, 1",
			       image_u8(img, 4), image_u8(img, 5));
	if (f->is64 && !image_has(img, 0, 64))
		return err_set(e, ENOEXEC, "truncated: the ELF header is incomplete");
	type = image_u16(img, 16);
	machine = image_u16(img, 18);
	if (machine != EM_386_ && machine != EM_X86_64_)
		return err_set(e, ENOEXEC, "an ELF for machine %u; x86 is 3 or 62", machine);
	if (type != ET_EXEC_ && type != ET_DYN_)
		return err_set(e, ENOEXEC, "an ELF of type %u, not an executable", type);
	f->entry = image_le(img, 24, f->is64 ? 8 : 4);
	f->phoff = f->is64 ? image_u64(img, 32) : image_u32(img, 28);
	f->phentsize = image_u16(img, f->is64 ? 54 : 42);
	f->phnum = image_u16(img, f->is64 ? 56 : 44);
	want = f->is64 ? 56 : 32;
	if (!f->phnum || f->phnum > ELF_PHDRS_MAX || f->phentsize < want)
		return err_set(e, ENOEXEC,
			       "%u ELF program headers of %u bytes; 1 to %u of at least %u are "
			       "accepted",
			       f->phnum, f->phentsize, ELF_PHDRS_MAX, want);
	if (!image_has(img, f->phoff, (uint64_t)f->phnum * f->phentsize))
		return err_set(e, ENOEXEC, "truncated: ELF program headers end after the file");
	return 0;
}

struct elf_phdr elf_phdr(const struct elf *f, unsigned n)
{
	const struct image *i = f->img;
	uint64_t o = f->phoff + (uint64_t)n * f->phentsize;

	if (f->is64)
		return (struct elf_phdr){ image_u32(i, o),      image_u64(i, o + 8),
					  image_u64(i, o + 16), image_u64(i, o + 24),
					  image_u64(i, o + 32), image_u64(i, o + 40),
					  image_u64(i, o + 48) };
	return (struct elf_phdr){ image_u32(i, o),      image_u32(i, o + 4),  image_u32(i, o + 8),
				  image_u32(i, o + 12), image_u32(i, o + 16), image_u32(i, o + 20),
				  image_u32(i, o + 28) };
}

int elf_load(const struct elf *f, struct place *p, gpa_t *end, uint64_t *entry_paddr, struct err *e)
{
	unsigned loaded = 0;

	*end = 0;
	*entry_paddr = f->entry;
	for (unsigned n = 0; n < f->phnum; n++) {
		struct elf_phdr h = elf_phdr(f, n);
		uint8_t *host;
		int r;

		if (h.type != PT_LOAD_ || !h.memsz)
			continue;
		if (h.filesz > h.memsz)
			return err_set(e, ENOEXEC,
				       "ELF segment %u has %#llx bytes in the file but only %#llx "
				       "in memory",
				       n, (unsigned long long)h.filesz,
				       (unsigned long long)h.memsz);
		if (!image_has(f->img, h.offset, h.filesz))
			return err_set(e, ENOEXEC, "truncated: ELF segment %u ends after the file",
				       n);
		r = place_claim(p, h.paddr, h.memsz, "an ELF segment", &host, e);
		if (r < 0)
			return r;
		memcpy(host, f->img->data + h.offset, h.filesz);
		memset(host + h.filesz, 0, h.memsz - h.filesz);
		*end = MAX(*end, h.paddr + h.memsz);
		/* Some kernels give the entry as a virtual address. */
		if (f->entry >= h.vaddr && f->entry - h.vaddr < h.memsz && h.vaddr != h.paddr)
			*entry_paddr = h.paddr + (f->entry - h.vaddr);
		loaded++;
	}
	if (!loaded)
		return err_set(e, ENOEXEC, "an ELF file with nothing to load");
	return 0;
}

int elf_note(const struct elf *f, const char *name, uint32_t namesz, uint32_t type, uint64_t *off,
	     uint64_t *size)
{
	unsigned seen = 0;

	for (unsigned n = 0; n < f->phnum; n++) {
		struct elf_phdr h = elf_phdr(f, n);
		uint64_t at = h.offset, end, step = h.align == 8 ? 8 : 4;

		if (h.type != PT_NOTE_ || !image_has(f->img, h.offset, h.filesz))
			continue;
		end = h.offset + h.filesz;
		while (end - at >= 12 && seen++ < ELF_NOTES_MAX) {
			uint64_t nsz = image_u32(f->img, at), dsz = image_u32(f->img, at + 4);
			uint64_t d = at + 12 + ((nsz + step - 1) & ~(step - 1));
			uint64_t next = d + ((dsz + step - 1) & ~(step - 1));

			if (step == 8) { /* the name starts at 12: align the sum, not the part */
				d = at + ((12 + nsz + 7) & ~7ull);
				next = d + ((dsz + 7) & ~7ull);
			}
			if (d > end || dsz > end - d)
				break;
			if (image_u32(f->img, at + 8) == type && nsz == namesz &&
			    !memcmp(f->img->data + at + 12, name, namesz)) {
				*off = d;
				*size = dsz;
				return 1;
			}
			if (next >= end)
				break;
			at = next;
		}
	}
	return 0;
}
