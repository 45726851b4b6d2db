#include "devices/net/mac_table.h"

static uint64_t value(const uint8_t *mac)
{
    uint64_t v = 0;

    memcpy(&v, mac, MAC_LEN);
    return v;
}

static unsigned row(const struct mac_table *t, uint64_t mac)
{
    uint64_t h = (mac ^ t->seed) * 0x9e3779b97f4a7c15; /* 2^64 / the golden ratio */

    h = (h ^ h >> 32 ^ t->seed) * 0x9e3779b97f4a7c15;
    return (unsigned)(h >> 32) % MAC_ROWS;
}

void mac_learn(struct mac_table *t, const uint8_t *mac, unsigned port, uint32_t now)
{
    uint64_t v = value(mac);
    struct mac_entry *e = t->rows[row(t, v)];

    if (mac_is_group(mac))
        return;
    if (e[port].mac != v) {
        for (unsigned i = 0; i < MAC_PORTS; i++) /* it has moved from there */
            if (e[i].mac == v)
                e[i].mac = 0;
        e[port].mac = v;
    }
    e[port].seen = now;
}

int mac_find(const struct mac_table *t, const uint8_t *mac, uint32_t now)
{
    uint64_t v = value(mac);
    const struct mac_entry *e = t->rows[row(t, v)];

    for (unsigned i = 0; v && i < MAC_PORTS; i++)
        if (e[i].mac == v)
            return now - e[i].seen < MAC_AGE ? (int)i : -1;
    return -1;
}

void mac_forget(struct mac_table *t, unsigned port)
{
    for (unsigned i = 0; i < MAC_ROWS; i++)
        t->rows[i][port].mac = 0;
}
