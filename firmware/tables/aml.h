/*
 * Writes AML, the byte code of ACPI's DSDT [ACPI 6.3 20.2], and the resource descriptors in it [6.4].  Terms are
 * appended in the order in which AML has them; blocks are opened, filled and closed, which settles their length.
 */
#pragma once
#include "firmware/tables/blob.h"

/* Operators and terms that are one or two bytes and take what follows as operands. */
enum aml_op {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_AND = 0x7b,
    AML_OR = 0x7d,
    AML_CREATE_DWORD_FIELD = 0x8a,
    AML_EQUAL = 0x93,
    AML_NOT_EQUAL = 0x9392, /* LNot LEqual */
    AML_RETURN = 0xa4,
};
void aml_op(struct blob *b, enum aml_op op);

/* Names are one segment of up to 4 characters. */
void aml_ref(struct blob *b, const char *name);
void aml_int(struct blob *b, uint64_t v);
void aml_string(struct blob *b, const char *s);
void aml_buffer(struct blob *b, const void *p, size_t n);
/* "PNP0A08" as the integer that _HID wants. */
void aml_eisa_id(struct blob *b, const char *id);
/* "33db4d5b-1ff7-401c-9657-7441c03dd766" as the buffer that _OSC compares with. */
void aml_uuid(struct blob *b, const char *text);
/* Name(NAME, …): the value follows. */
void aml_name(struct blob *b, const char *name);
void aml_name_int(struct blob *b, const char *name, uint64_t v);
void aml_name_eisa_id(struct blob *b, const char *name, const char *id);
/* Name(NAME, ResourceTemplate(){…}); takes the descriptors, `res` is empty after. */
void aml_name_resources(struct blob *b, const char *name, struct blob *res);

/* Blocks.  Each returns what aml_close() wants; they nest. */
size_t aml_scope(struct blob *b, const char *name);
size_t aml_device(struct blob *b, const char *name);
size_t aml_method(struct blob *b, const char *name, unsigned nargs); /* serialized */
size_t aml_package(struct blob *b, uint8_t nelements);
size_t aml_if(struct blob *b); /* the condition comes first */
size_t aml_else(struct blob *b);
void aml_close(struct blob *b, size_t block);

/* Resource descriptors, for aml_name_resources(). */
void res_io(struct blob *r, uint16_t base, uint8_t len);
void res_irq(struct blob *r, unsigned irq); /* ISA: edge, active high */
void res_gsi(struct blob *r, uint32_t gsi); /* level, active high, shared */
void res_memory(struct blob *r, uint64_t base, uint64_t len);
/* What a host bridge passes on to its bus.  `len` is not 0. */
enum res_window { RES_WINDOW_MEMORY, RES_WINDOW_IO, RES_WINDOW_BUS };
void res_window(struct blob *r, enum res_window type, uint64_t base, uint64_t len);
