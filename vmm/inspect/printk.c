#include "vmm/inspect/printk.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

/* A descriptor for each 32 bytes of a ring of up to log_buf_len=8M; more would take a guest's owner too long to read.
 */
enum { SIZE_BITS_MAX = 23, COUNT_BITS_MAX = 18, STRUCT_MAX = 256, TEXT_MAX = 65536 };
enum { STATE_SHIFT = 62, STATE_COMMITTED = 1, STATE_FINALIZED = 2, ID_BYTES = 8 };

/* Where things are in the kernel's structs. */
struct layout {
    uint64_t ring_size, desc_size, info_size;
    uint64_t desc_ring, text_ring;                       /* in printk_ringbuffer */
    uint64_t count_bits, descs, infos, head_id, tail_id; /* in prb_desc_ring */
    uint64_t size_bits, data;                            /* in prb_data_ring */
    uint64_t state, counter, pos, begin, next;           /* in prb_desc, atomic_long_t, prb_data_blk_lpos */
    uint64_t seq, ts, text_len;                          /* in printk_info */
};
static const struct {
    const char *key;
    size_t off;
} keys[] = {
    {"SIZE(printk_ringbuffer)", offsetof(struct layout, ring_size)},
    {"SIZE(prb_desc)", offsetof(struct layout, desc_size)},
    {"SIZE(printk_info)", offsetof(struct layout, info_size)},
    {"OFFSET(printk_ringbuffer.desc_ring)", offsetof(struct layout, desc_ring)},
    {"OFFSET(printk_ringbuffer.text_data_ring)", offsetof(struct layout, text_ring)},
    {"OFFSET(prb_desc_ring.count_bits)", offsetof(struct layout, count_bits)},
    {"OFFSET(prb_desc_ring.descs)", offsetof(struct layout, descs)},
    {"OFFSET(prb_desc_ring.infos)", offsetof(struct layout, infos)},
    {"OFFSET(prb_desc_ring.head_id)", offsetof(struct layout, head_id)},
    {"OFFSET(prb_desc_ring.tail_id)", offsetof(struct layout, tail_id)},
    {"OFFSET(prb_data_ring.size_bits)", offsetof(struct layout, size_bits)},
    {"OFFSET(prb_data_ring.data)", offsetof(struct layout, data)},
    {"OFFSET(prb_desc.state_var)", offsetof(struct layout, state)},
    {"OFFSET(atomic_long_t.counter)", offsetof(struct layout, counter)},
    {"OFFSET(prb_desc.text_blk_lpos)", offsetof(struct layout, pos)},
    {"OFFSET(prb_data_blk_lpos.begin)", offsetof(struct layout, begin)},
    {"OFFSET(prb_data_blk_lpos.next)", offsetof(struct layout, next)},
    {"OFFSET(printk_info.seq)", offsetof(struct layout, seq)},
    {"OFFSET(printk_info.ts_nsec)", offsetof(struct layout, ts)},
    {"OFFSET(printk_info.text_len)", offsetof(struct layout, text_len)},
};

struct ring {
    const struct vmcoreinfo *k;
    struct layout l;
    uint64_t descs, infos, data; /* addresses */
    unsigned count_bits, size_bits;
    uint64_t head, tail;
    uint64_t left; /* bytes of text that may yet come: all of them have a place of their own in the ring */
};

/* Structs are copied whole into STRUCT_MAX bytes, so every offset has room behind it. */
static int read_layout(const struct vmcoreinfo *k, struct layout *ret)
{
    for (size_t i = 0; i < array_len(keys); i++) {
        uint64_t v;

        if (!vmcoreinfo_number(k, keys[i].key, &v))
            return -ENOTSUP;
        if (v > STRUCT_MAX - 8)
            return -EFAULT;
        memcpy((uint8_t *)ret + keys[i].off, &v, sizeof(v));
    }
    return 0;
}

/* A field of up to two levels in a copied struct. */
static uint64_t field(const uint8_t *copy, uint64_t outer, uint64_t inner)
{
    return outer + inner <= STRUCT_MAX - 8 ? get_le64(copy + outer + inner) : 0;
}

static int open_ring(const struct vmcoreinfo *k, struct ring *ret)
{
    struct ring r = {.k = k};
    uint8_t copy[STRUCT_MAX] = {0};
    uint64_t var, addr, bits;
    int rc = read_layout(k, &r.l);

    if (rc)
        return rc;
    if (!vmcoreinfo_symbol(k, "prb", &var))
        return -ENOTSUP;
    if (vmcoreinfo_read(k, var, &addr, sizeof(addr)) || vmcoreinfo_read(k, addr, copy, r.l.ring_size))
        return -EFAULT;
    bits = (uint32_t)field(copy, r.l.desc_ring, r.l.count_bits);
    r.count_bits = (unsigned)bits;
    r.descs = field(copy, r.l.desc_ring, r.l.descs);
    r.infos = field(copy, r.l.desc_ring, r.l.infos);
    r.head = field(copy, r.l.desc_ring, r.l.head_id + r.l.counter);
    r.tail = field(copy, r.l.desc_ring, r.l.tail_id + r.l.counter);
    bits = (uint32_t)field(copy, r.l.text_ring, r.l.size_bits);
    r.size_bits = (unsigned)bits;
    r.data = field(copy, r.l.text_ring, r.l.data);
    if (r.count_bits > COUNT_BITS_MAX || r.size_bits > SIZE_BITS_MAX)
        return -EFAULT;
    r.left = 1ull << r.size_bits;
    *ret = r;
    return 0;
}

static uint64_t id_mask(uint64_t id)
{
    return id & ((1ull << STATE_SHIFT) - 1);
}

/* The descriptor of `id`, if it holds a record that is complete. */
static bool read_desc(const struct ring *r, uint64_t id, uint64_t *begin, uint64_t *next)
{
    uint64_t index = id & ((1ull << r->count_bits) - 1), state;
    uint8_t copy[STRUCT_MAX] = {0};

    if (vmcoreinfo_read(r->k, r->descs + index * r->l.desc_size, copy, r->l.desc_size))
        return false;
    state = field(copy, r->l.state, r->l.counter);
    *begin = field(copy, r->l.pos, r->l.begin);
    *next = field(copy, r->l.pos, r->l.next);
    return id_mask(state) == id && (state >> STATE_SHIFT == STATE_COMMITTED || state >> STATE_SHIFT == STATE_FINALIZED);
}

/* Where the text between two positions is: in one piece, at the start of the ring when it would not fit at its end. */
static size_t locate(const struct ring *r, uint64_t begin, uint64_t next, uint64_t *addr)
{
    uint64_t size = 1ull << r->size_bits, mask = size - 1, len;

    if (begin & 1 && next & 1) /* a record without text */
        return 0;
    if (begin < next && begin >> r->size_bits == (next - 1) >> r->size_bits) {
        *addr = r->data + (begin & mask);
        len = next - begin;
    } else if ((begin + size) >> r->size_bits == next >> r->size_bits) {
        *addr = r->data;
        len = next & mask;
    } else {
        return 0;
    }
    *addr += ID_BYTES;
    return len > ID_BYTES ? min_u64(len - ID_BYTES, TEXT_MAX) : 0;
}

static void clean(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] < ' ' && text[i] != '\n' && text[i] != '\t')
            text[i] = '?';
    text[n] = 0;
}

/* The record of `id`; false: there is none, or it is of no interest. */
static bool read_record(struct ring *r, uint64_t id, uint64_t from, char *text, struct printk_record *ret)
{
    uint64_t index = id & ((1ull << r->count_bits) - 1), begin, next, again, addr = 0;
    uint8_t info[STRUCT_MAX] = {0};
    size_t room;

    if (!read_desc(r, id, &begin, &next) ||
        vmcoreinfo_read(r->k, r->infos + index * r->l.info_size, info, r->l.info_size))
        return false;
    *ret = (struct printk_record){.seq = field(info, r->l.seq, 0), .ns = field(info, r->l.ts, 0), .text = text};
    if (ret->seq < from)
        return false;
    room = locate(r, begin, next, &addr);
    ret->len = min_u64(min_u64(room, get_le16(info + r->l.text_len)), r->left);
    r->left -= ret->len;
    if (vmcoreinfo_read(r->k, addr, text, ret->len) || !read_desc(r, id, &begin, &again) || again != next)
        return false;
    clean(text, ret->len);
    return true;
}

int printk_read(const struct vmcoreinfo *k, struct printk_reader *reader)
{
    char *text cleanup_free = xcalloc(1, TEXT_MAX + 1);
    uint64_t from = reader->next, seen, n;
    struct ring r;
    int rc = open_ring(k, &r);

    if (rc)
        return rc;
    seen = reader->next ? id_mask(reader->id - r.tail) : 0;
    n = id_mask(r.head - r.tail) + 1;
    for (uint64_t i = seen < n ? seen : 0; i < n && i < 1ull << r.count_bits && r.left; i++) {
        uint64_t id = id_mask(r.tail + i);
        struct printk_record rec;

        if (!read_record(&r, id, from, text, &rec))
            continue;
        reader->next = rec.seq + 1;
        reader->id = id;
        reader->record(reader, &rec);
    }
    return r.left ? 0 : -EFAULT;
}
