#include "devices/net/tcp_order.h"

#include <sys/random.h>

void tcp_order_init(struct tcp_order *o)
{
    /* Keys of another seed are as good as none. */
    if (getrandom(&o->seed, sizeof(o->seed), 0) < 0)
        memset(o->flows, 0, sizeof(o->flows));
}

static uint64_t mix(uint64_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += sizeof(uint32_t)) {
        uint32_t v;

        memcpy(&v, p + i, sizeof(v));
        h = (h ^ v) * 0x9e3779b97f4a7c15; /* 2^64 / the golden ratio */
        h ^= h >> 32;
    }
    return h;
}

uint64_t tcp_order_key(const struct tcp_order *o, const uint8_t *guest, const uint8_t *far_end, size_t n,
                       const uint8_t *guest_port, const uint8_t *far_port)
{
    const uint8_t ports[4] = {guest_port[0], guest_port[1], far_port[0], far_port[1]};
    uint64_t h = mix(mix(mix(o->seed, guest, n), far_end, n), ports, sizeof(ports));

    return mix(h, (const uint8_t *)&o->seed, sizeof(o->seed)) | 1;
}

/* Makes `f` the first of the first `n` in its row. */
static struct tcp_flow *to_front(struct tcp_flow *row, unsigned n, struct tcp_flow f)
{
    memmove(row + 1, row, (n - 1) * sizeof(*row));
    row[0] = f;
    return row;
}

static struct tcp_flow *row_of(struct tcp_order *o, uint64_t key)
{
    return o->flows[(key >> 32) % TCP_ORDER_ROWS];
}

static struct tcp_flow *find(struct tcp_order *o, uint64_t key)
{
    struct tcp_flow *row = row_of(o, key);

    for (unsigned i = 0; i < TCP_ORDER_WAYS; i++)
        if (row[i].key == key)
            return i ? to_front(row, i + 1, row[i]) : row;
    return NULL;
}

void tcp_order_told(struct tcp_order *o, uint64_t key, uint32_t next)
{
    struct tcp_flow *f = find(o, key);

    if (!f)
        f = to_front(row_of(o, key), TCP_ORDER_WAYS, (struct tcp_flow){.key = key});
    f->next = next;
}

bool tcp_order_pass(struct tcp_order *o, uint64_t key, uint32_t seq, uint32_t n, uint32_t *ret)
{
    struct tcp_flow *f = find(o, key);

    if (!f || (int32_t)(seq - f->next) > 0) {
        *ret = (f ? f->next : seq) - 1;
        return false;
    }
    if ((int32_t)(seq + n - f->next) > 0)
        f->next = seq + n;
    return true;
}
