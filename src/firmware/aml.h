/*
 * A small writer of AML, the byte code of ACPI's DSDT: just the forms that tables here need.
 *
 * Everything is appended to one buffer; a scope is opened by aml_scope/aml_device/..., and closed
 * by aml_end, which puts the package length in front of what was written meanwhile. Running out of
 * room sets a flag that the user asks for once, at the end.
 * References: [ACPI 20 "ACPI Machine Language"]. Threads: the struct belongs to its owner.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AML_DEPTH = 8 };

struct aml {
	uint8_t *buf;
	size_t cap, len;
	size_t open[AML_DEPTH]; /* where the length of each open scope belongs */
	unsigned depth;
	bool bad; /* out of room, or unbalanced */
};

void aml_init(struct aml *a, void *buf, size_t cap);

void aml_scope(struct aml *a, const char *name);  /* Scope (name); name as "_SB_" or "\\" */
void aml_device(struct aml *a, const char *name); /* Device (name) */
void aml_package(struct aml *a, uint8_t count);   /* a package of count elements follows */
void aml_end(struct aml *a);

/* Name (name, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
/* A plug-and-play identifier such as "PNP0501" in its packed form. */
void aml_eisaid(struct aml *a, const char *id);

/* Method (name, args): its terms follow. */
void aml_method(struct aml *a, const char *name, uint8_t args);
void aml_if(struct aml *a);                    /* If: the predicate, then the terms follow */
void aml_return(struct aml *a);                /* Return: the operand follows */
void aml_ref(struct aml *a, const char *name); /* the value of a named object */
void aml_store_arg0(struct aml *a, const char *target); /* Store (Arg0, target) */
void aml_buffer(struct aml *a, const void *bytes, size_t n);

/* Name (_CRS, ResourceTemplate): one or two port ranges and an ISA interrupt; 0 leaves out. */
struct aml_io {
	uint16_t base;
	uint8_t len;
};
void aml_crs(struct aml *a, const struct aml_io *io, unsigned nio, unsigned irq);

/* Everything written and every scope closed? */
bool aml_ok(const struct aml *a);
