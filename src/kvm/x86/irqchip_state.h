/*
 * The state of each interrupt chip, field by field, in the layout of the KVM API.
 *
 * A load goes through the table: a field keeps only the bits that the chip has, and an index that
 * is out of range becomes its first value. KVM_SET_* has no error for a bad value, and no byte from
 * user space may break the chip. Bytes that no row covers are reserved and load as zero.
 *
 * References: [KVM-API 4.26, 4.57, 4.71]. Threads: pure; the tables are constant.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct chip_field {
	const char *name;
	uint16_t off, size; /* of one element, in bytes: 1, 2, 4 or 8 */
	uint16_t n, stride; /* elements, and the distance between them */
	uint64_t mask;      /* bits that exist */
	uint64_t lim;       /* values >= lim become 0; 0: any value */
};

struct chip_state {
	const char *name;
	const struct chip_field *fields; /* up to a row without a name */
	uint32_t size;
};

extern const struct chip_state kvm_pic_table, kvm_ioapic_table, kvm_lapic_table, kvm_pit_table;

/* Copy the described fields of src to dst, cleaned; other bytes of dst become 0. */
void kvm_chip_state_load(const struct chip_state *t, void *dst, const void *src);
/* First byte of the structure that no row describes, counted from from; -1 when there is none. */
long kvm_chip_state_hole(const struct chip_state *t, size_t from);
/* The value of element i of a field. */
uint64_t kvm_chip_state_get(const struct chip_field *f, const void *state, unsigned i);
