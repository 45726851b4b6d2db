#include "firmware/tables/blob.h"

#include <stdlib.h>

void blob_fini(struct blob *b)
{
    free(b->data);
    *b = (struct blob){0};
}

uint8_t *blob_insert(struct blob *b, size_t at, size_t n)
{
    assert(at <= b->len);
    if (n > b->cap - b->len) {
        b->cap = 2 * (b->len + n);
        b->data = realloc(b->data, b->cap);
        if (!b->data)
            abort();
    }
    if (at < b->len)
        memmove(b->data + at + n, b->data + at, b->len - at);
    b->len += n;
    return memset(b->data + at, 0, n);
}

void blob_put(struct blob *b, const void *p, size_t n)
{
    if (n)
        memcpy(blob_insert(b, b->len, n), p, n);
}

void blob_zero(struct blob *b, size_t n)
{
    if (n)
        blob_insert(b, b->len, n);
}

void blob_align(struct blob *b, size_t align)
{
    blob_zero(b, align_up(b->len, align) - b->len);
}

void blob_u8(struct blob *b, uint8_t v)
{
    *blob_insert(b, b->len, sizeof(v)) = v;
}

void blob_u16(struct blob *b, uint16_t v)
{
    put_le16(blob_insert(b, b->len, sizeof(v)), v);
}

void blob_u32(struct blob *b, uint32_t v)
{
    put_le32(blob_insert(b, b->len, sizeof(v)), v);
}

void blob_u64(struct blob *b, uint64_t v)
{
    put_le64(blob_insert(b, b->len, sizeof(v)), v);
}

uint8_t blob_checksum(const struct blob *b, size_t at, size_t n)
{
    uint8_t sum = 0;

    assert(range_fits(at, n, b->len));
    for (size_t i = at; i < at + n; i++)
        sum += b->data[i];
    return -sum;
}
