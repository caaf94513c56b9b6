/*
 * Guest memory: which guest-physical addresses are RAM or ROM, and the host memory behind them.
 *
 * RAM is one backing (anonymous memory, a memfd sealed against shrinking, or a file of -mem-path)
 * that is mapped once; blocks place pieces of it in the guest's address space (below the hole,
 * above 4 GiB). Everybody but a vCPU reaches guest memory through the functions here: they check
 * bounds for hostile addresses, and each write reports itself to the listeners, because a software
 * CPU must drop code it has cached from there and a dirty log must know.
 *
 * Modelled:     RAM, ROM (devices and guest cannot write; a loader can), any number of blocks.
 * Not modelled: MMIO through these functions (a device cannot DMA into another one's registers).
 * Threads:      reads, writes and pointers: any thread, no lock. Adding and removing blocks and
 *               listeners: one thread, and removing only while no vCPU runs and no DMA is in
 *               flight.
 * Host resources: one mapping a backing, and a memfd or file for those that are shared.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct gmem;

/* How the host provides RAM. All zero is the default: anonymous memory, pages on demand. */
struct gmem_opts {
	const char *path; /* -mem-path: a directory (a hugetlbfs, say) or a file to create */
	bool shared;      /* a memfd, for vhost-user and others who map it too */
	bool hugepages;   /* memfd with MFD_HUGETLB; fails if the host has none free */
	bool thp_off;     /* do not ask for transparent huge pages (the default asks) */
	bool prealloc; /* touch all pages now; out of memory is an error instead of SIGBUS later */
	bool private_map; /* MAP_PRIVATE: a fork of a snapshot file; default shared */
	bool no_dump;     /* leave guest RAM out of core dumps */
};

struct gmem_block {
	const char *name; /* "ram", "ram-above-4g", "bios", ... */
	gpa_t gpa;        /* page aligned */
	uint64_t len;     /* page aligned, not 0 */
	uint8_t *host;    /* where it is mapped here; readable and writable by us, also a ROM */
	int fd;           /* backing file, -1: none, and offset in it: for vhost-user, say */
	uint64_t fd_off;
	bool rom;    /* the guest and devices may only read */
	unsigned id; /* unique in this gmem, small, not reused: a good KVM slot number */
};

/*
 * Somebody who must know about blocks (libkvm's slots, a dirty log, vhost). Embedded in its owner.
 * add is called for the blocks that exist when the listener is added; it can refuse.
 * written is called after each write through this file, from any thread, and must be quick.
 */
struct gmem_listener {
	int (*add)(struct gmem_listener *l, const struct gmem_block *b, struct err *e);
	void (*del)(struct gmem_listener *l, const struct gmem_block *b);
	void (*written)(struct gmem_listener *l, gpa_t gpa, uint64_t len);
	struct gmem_listener *next; /* private */
};

/* NULL only when out of memory. */
struct gmem *gmem_new(void);

/* Tells listeners of each block's end, unmaps and closes everything. */
void gmem_free(struct gmem *gm);

/*
 * The usual machine: size bytes of RAM from one backing, "ram" from 0 up to at most hole_start and
 * the rest as "ram-above-4g" from 4 GiB. Sizes are multiples of a page. 0 or -errno with a message
 * a user understands.
 */
int gmem_add_pc_ram(struct gmem *gm, uint64_t size, gpa_t hole_start, const struct gmem_opts *o,
		    struct err *e) must_check;

/* One block of RAM with a backing of its own. */
int gmem_add_ram(struct gmem *gm, const char *name, gpa_t gpa, uint64_t len,
		 const struct gmem_opts *o, struct err *e) must_check;

/* A ROM of len bytes (page multiple), filled with data[0..data_len), the rest FFh. Copies. */
int gmem_add_rom(struct gmem *gm, const char *name, gpa_t gpa, uint64_t len, const void *data,
		 size_t data_len, struct err *e) must_check;

/* Remove a block by its id. Unknown ids are ignored. */
void gmem_remove(struct gmem *gm, unsigned id);

int gmem_listen(struct gmem *gm, struct gmem_listener *l, struct err *e) must_check;

/* Calls del for each block. */
void gmem_unlisten(struct gmem *gm, struct gmem_listener *l);

/* Block number i in order of address, or NULL at the end. */
const struct gmem_block *gmem_block_at(const struct gmem *gm, size_t i);

/* The block that holds gpa, or NULL. */
const struct gmem_block *gmem_find(const struct gmem *gm, gpa_t gpa);

/* Sum of all RAM (not ROM) blocks in bytes. */
uint64_t gmem_ram_size(const struct gmem *gm);

/*
 * Copy. 0, or -EFAULT when any byte is not RAM or ROM (read) or not RAM (write); on failure what
 * comes before the bad byte has been copied. len may cross blocks. A copy is not atomic.
 */
int gmem_read(struct gmem *gm, gpa_t gpa, void *buf, uint64_t len) must_check;
int gmem_write(struct gmem *gm, gpa_t gpa, const void *buf, uint64_t len) must_check;
int gmem_fill(struct gmem *gm, gpa_t gpa, uint8_t byte, uint64_t len) must_check;

/* As gmem_write, and may write to ROM: for loaders. */
int gmem_load(struct gmem *gm, gpa_t gpa, const void *buf, uint64_t len) must_check;

/* Host pointer to len bytes (len > 0) that lie in one block, for reading; else NULL. */
const void *gmem_ptr(struct gmem *gm, gpa_t gpa, uint64_t len);

/* The same for writing, RAM only. The caller reports each write with gmem_written(). */
void *gmem_ptr_w(struct gmem *gm, gpa_t gpa, uint64_t len);
void gmem_written(struct gmem *gm, gpa_t gpa, uint64_t len);

/*
 * Give whole pages of RAM back to the host: they read as zeroes from now on, until they are
 * written. Of huge pages only whole ones go. -EFAULT when any byte is not RAM, -EINVAL when it is
 * not whole pages; -ENOTSUP of private mappings of files, other errors of the host: the memory
 * keeps its contents.
 */
int gmem_discard(struct gmem *gm, gpa_t gpa, uint64_t len) must_check;

/*
 * Little-endian values. Naturally aligned ones are single accesses (a vCPU never sees half of one).
 * 0 or -EFAULT; *v is 0 after a failed load.
 */
int gmem_ld8(struct gmem *gm, gpa_t gpa, uint8_t *v) must_check;
int gmem_ld16(struct gmem *gm, gpa_t gpa, uint16_t *v) must_check;
int gmem_ld32(struct gmem *gm, gpa_t gpa, uint32_t *v) must_check;
int gmem_ld64(struct gmem *gm, gpa_t gpa, uint64_t *v) must_check;
int gmem_st8(struct gmem *gm, gpa_t gpa, uint8_t v) must_check;
int gmem_st16(struct gmem *gm, gpa_t gpa, uint16_t v) must_check;
int gmem_st32(struct gmem *gm, gpa_t gpa, uint32_t v) must_check;
int gmem_st64(struct gmem *gm, gpa_t gpa, uint64_t v) must_check;
