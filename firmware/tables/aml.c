#include "firmware/tables/aml.h"

#include <stdlib.h>

enum {
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_NAME = 0x08,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DEVICE = 0x5b82, /* ExtOpPrefix first */
    OP_IF = 0xa0,
    OP_ELSE = 0xa1,
    SEGMENT = 4,
    METHOD_SERIALIZED = 8,
    PKG_ONE_BYTE_MAX = 0x3f,
};

static void put_op(struct blob *b, unsigned op)
{
    if (op > 0xff)
        blob_u8(b, op >> 8);
    blob_u8(b, op);
}

void aml_op(struct blob *b, enum aml_op op)
{
    put_op(b, op);
}

void aml_ref(struct blob *b, const char *name)
{
    assert(strlen(name) <= SEGMENT);
    blob_put(b, name, strlen(name));
    for (size_t i = strlen(name); i < SEGMENT; i++)
        blob_u8(b, '_');
}

void aml_int(struct blob *b, uint64_t v)
{
    if (v <= 1) {
        aml_op(b, v ? AML_ONE : AML_ZERO);
    } else if (v <= UINT8_MAX) {
        blob_u8(b, OP_BYTE);
        blob_u8(b, v);
    } else if (v <= UINT16_MAX) {
        blob_u8(b, OP_WORD);
        blob_u16(b, v);
    } else if (v <= UINT32_MAX) {
        blob_u8(b, OP_DWORD);
        blob_u32(b, v);
    } else {
        blob_u8(b, OP_QWORD);
        blob_u64(b, v);
    }
}

void aml_string(struct blob *b, const char *s)
{
    blob_u8(b, OP_STRING);
    blob_put(b, s, strlen(s) + 1);
}

static size_t block(struct blob *b, unsigned op)
{
    put_op(b, op);
    return b->len;
}

/* PkgLength [20.2.4] counts itself: 6 bits in one byte, or 4 bits and up to three bytes more. */
void aml_close(struct blob *b, size_t at)
{
    size_t body = b->len - at;
    unsigned more = 0;

    if (body + 1 > PKG_ONE_BYTE_MAX)
        for (more = 1; body + 1 + more >= 1u << (4 + 8 * more); more++)
            assert(more < 3);

    size_t len = body + 1 + more;
    uint8_t *p = blob_insert(b, at, 1 + more);

    p[0] = more ? more << 6 | (len & 0xf) : len;
    for (unsigned i = 1; i <= more; i++)
        p[i] = len >> (8 * i - 4);
}

void aml_buffer(struct blob *b, const void *p, size_t n)
{
    size_t buf = block(b, OP_BUFFER);

    aml_int(b, n);
    blob_put(b, p, n);
    aml_close(b, buf);
}

static unsigned hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = strchr(digits, c | 0x20); /* lower case; digits have that bit set */

    assert(c && at);
    return at - digits;
}

/* [6.1.5]: three letters of 5 bits, four hexadecimal digits, most significant byte first. */
void aml_eisa_id(struct blob *b, const char *id)
{
    assert(strlen(id) == 7);

    uint32_t v = 0;

    for (int i = 0; i < 3; i++)
        v = v << 5 | (id[i] & 0x1f);
    for (int i = 3; i < 7; i++)
        v = v << 4 | hex_digit(id[i]);
    blob_u8(b, OP_DWORD);
    blob_u32(b, __builtin_bswap32(v));
}

/* The first three groups are little endian [19.6.142]. */
void aml_uuid(struct blob *b, const char *text)
{
    static const uint8_t where[16] = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
    uint8_t uuid[16];

    assert(strlen(text) == 36);
    for (size_t i = 0; i < sizeof(uuid); i++)
        uuid[i] = hex_digit(text[where[i]]) << 4 | hex_digit(text[where[i] + 1]);
    aml_buffer(b, uuid, sizeof(uuid));
}

void aml_name(struct blob *b, const char *name)
{
    blob_u8(b, OP_NAME);
    aml_ref(b, name);
}

void aml_name_int(struct blob *b, const char *name, uint64_t v)
{
    aml_name(b, name);
    aml_int(b, v);
}

void aml_name_eisa_id(struct blob *b, const char *name, const char *id)
{
    aml_name(b, name);
    aml_eisa_id(b, id);
}

void aml_name_resources(struct blob *b, const char *name, struct blob *res)
{
    static const uint8_t end_tag[] = {0x79, 0x00}; /* a checksum of 0 is taken as good [6.4.2.9] */

    blob_put(res, end_tag, sizeof(end_tag));
    aml_name(b, name);
    aml_buffer(b, res->data, res->len);
    blob_fini(res);
}

size_t aml_scope(struct blob *b, const char *name)
{
    size_t at = block(b, OP_SCOPE);

    aml_ref(b, name);
    return at;
}

size_t aml_device(struct blob *b, const char *name)
{
    size_t at = block(b, OP_DEVICE);

    aml_ref(b, name);
    return at;
}

size_t aml_method(struct blob *b, const char *name, unsigned nargs)
{
    size_t at = block(b, OP_METHOD);

    aml_ref(b, name);
    blob_u8(b, nargs | METHOD_SERIALIZED);
    return at;
}

size_t aml_package(struct blob *b, uint8_t nelements)
{
    size_t at = block(b, OP_PACKAGE);

    blob_u8(b, nelements);
    return at;
}

size_t aml_if(struct blob *b)
{
    return block(b, OP_IF);
}

size_t aml_else(struct blob *b)
{
    return block(b, OP_ELSE);
}

void res_io(struct blob *r, uint16_t base, uint8_t len)
{
    blob_u8(r, 0x47); /* I/O port descriptor [6.4.2.5] */
    blob_u8(r, 1);    /* decodes 16 bits */
    blob_u16(r, base);
    blob_u16(r, base);
    blob_u8(r, 1); /* alignment */
    blob_u8(r, len);
}

void res_irq(struct blob *r, unsigned irq)
{
    assert(irq < 16);
    blob_u8(r, 0x22); /* IRQ descriptor without flags [6.4.2.1] */
    blob_u16(r, 1u << irq);
}

void res_gsi(struct blob *r, uint32_t gsi)
{
    blob_u8(r, 0x89); /* extended interrupt descriptor [6.4.3.6] */
    blob_u16(r, 6);
    blob_u8(r, 9); /* consumer, level, active high, shared */
    blob_u8(r, 1);
    blob_u32(r, gsi);
}

enum { ADDR_PRODUCER = 0, ADDR_CONSUMER = 1, ADDR_FIXED = 0xc, MEM_READ_WRITE = 1, IO_ENTIRE = 3 };

static void res_address64(struct blob *r, uint8_t type, uint8_t flags, uint8_t type_flags, uint64_t base, uint64_t len)
{
    blob_u8(r, 0x8a); /* [6.4.3.5.1] */
    blob_u16(r, 43);
    blob_u8(r, type);
    blob_u8(r, flags | ADDR_FIXED);
    blob_u8(r, type_flags);
    blob_u64(r, 0); /* granularity */
    blob_u64(r, base);
    blob_u64(r, base + len - 1);
    blob_u64(r, 0); /* translation */
    blob_u64(r, len);
}

void res_memory(struct blob *r, uint64_t base, uint64_t len)
{
    if (base + len > UINT32_MAX) {
        res_address64(r, RES_WINDOW_MEMORY, ADDR_CONSUMER, MEM_READ_WRITE, base, len);
        return;
    }
    blob_u8(r, 0x86); /* 32-bit fixed memory descriptor [6.4.3.4] */
    blob_u16(r, 9);
    blob_u8(r, MEM_READ_WRITE);
    blob_u32(r, base);
    blob_u32(r, len);
}

void res_window(struct blob *r, enum res_window type, uint64_t base, uint64_t len)
{
    static const uint8_t type_flags[] = {
        [RES_WINDOW_MEMORY] = MEM_READ_WRITE,
        [RES_WINDOW_IO] = IO_ENTIRE,
        [RES_WINDOW_BUS] = 0,
    };
    uint64_t last = base + len - 1;

    assert(len && last >= base);
    if (last > UINT32_MAX) {
        res_address64(r, type, ADDR_PRODUCER, type_flags[type], base, len);
        return;
    }

    bool word = type != RES_WINDOW_MEMORY;
    const uint32_t range[] = {0 /* granularity */, base, last, 0 /* translation */, len};

    blob_u8(r, word ? 0x88 : 0x87); /* [6.4.3.5.3, 6.4.3.5.2] */
    blob_u16(r, word ? 13 : 23);
    blob_u8(r, type);
    blob_u8(r, ADDR_PRODUCER | ADDR_FIXED);
    blob_u8(r, type_flags[type]);
    for (size_t i = 0; i < array_len(range); i++)
        if (word)
            blob_u16(r, range[i]);
        else
            blob_u32(r, range[i]);
}
