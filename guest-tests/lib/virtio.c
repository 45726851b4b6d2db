#include "guest-tests/lib/virtio.h"

#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

enum { /* PCI common configuration [4.1.4.3] */
       PCI_FEATURE_SELECT = 0x00,
       PCI_FEATURE = 0x04,
       PCI_GUEST_SELECT = 0x08,
       PCI_GUEST = 0x0c,
       PCI_CONFIG_VECTOR = 0x10,
       PCI_STATUS_REG = 0x14,
       PCI_QUEUE_SELECT = 0x16,
       PCI_QUEUE_SIZE = 0x18,
       PCI_QUEUE_VECTOR = 0x1a,
       PCI_QUEUE_ENABLE = 0x1c,
       PCI_QUEUE_NOTIFY_OFF = 0x1e,
       PCI_QUEUE_DESC = 0x20,
       PCI_QUEUE_DRIVER = 0x28,
       PCI_QUEUE_DEVICE = 0x30,
};

enum { /* MMIO registers [4.2.2] */
       MMIO_MAGIC = 0x00,
       MMIO_VERSION = 0x04,
       MMIO_DEVICE = 0x08,
       MMIO_FEATURE = 0x10,
       MMIO_FEATURE_SELECT = 0x14,
       MMIO_GUEST = 0x20,
       MMIO_GUEST_SELECT = 0x24,
       MMIO_QUEUE_SELECT = 0x30,
       MMIO_QUEUE_SIZE_MAX = 0x34,
       MMIO_QUEUE_SIZE = 0x38,
       MMIO_QUEUE_READY = 0x44,
       MMIO_NOTIFY = 0x50,
       MMIO_INTERRUPT = 0x60,
       MMIO_ACK = 0x64,
       MMIO_STATUS = 0x70,
       MMIO_QUEUE_DESC = 0x80,
       MMIO_QUEUE_DRIVER = 0x90,
       MMIO_QUEUE_DEVICE = 0xa0,
       MMIO_CONFIG = 0x100,
};

enum { DESC_NEXT = 1, DESC_IN = 2, DESC_INDIRECT = 4, PACKED_AVAIL = 1 << 7, PACKED_USED = 1 << 15 };
enum { EVENT_ALWAYS, EVENT_NEVER, EVENT_AT, EVENT_WRAP = 1 << 15 }; /* [2.8.10] */

static bool is_pci(const struct virtio *v)
{
    return v->devfn != PCI_NONE;
}

/* ---- finding ---- */

static volatile uint8_t *pci_structure(int devfn, unsigned cap)
{
    return (volatile uint8_t *)pci_bar_map(devfn, pci_read8(devfn, cap + 4)) + pci_read32(devfn, cap + 8);
}

static bool find_pci(struct virtio *v, unsigned type)
{
    v->devfn = pci_find(0x1af4, 0x1040 + type, 0);
    if (v->devfn == PCI_NONE)
        return false;
    for (unsigned cap = 0; (cap = pci_capability(v->devfn, PCI_CAP_VENDOR, cap));) {
        switch (pci_read8(v->devfn, cap + 3)) {
        case 1:
            v->common = pci_structure(v->devfn, cap);
            break;
        case 2:
            v->notify = pci_structure(v->devfn, cap);
            v->notify_multiplier = pci_read32(v->devfn, cap + 16);
            break;
        case 3:
            v->isr = pci_structure(v->devfn, cap);
            break;
        case 4:
            v->config = pci_structure(v->devfn, cap);
            break;
        }
    }
    CHECK(v->common && v->notify && v->isr);
    return true;
}

static bool try_mmio(struct virtio *v, unsigned type, uint64_t address, unsigned pin)
{
    v->common = phys(address);
    v->pin = pin;
    CHECK_EQ(read32(v->common + MMIO_MAGIC), 0x74726976);
    CHECK_EQ(read32(v->common + MMIO_VERSION), 2);
    if (read32(v->common + MMIO_DEVICE) != type)
        return false;
    v->config = v->common + MMIO_CONFIG;
    return true;
}

/* virtio_mmio.device=SIZE@ADDRESS:IRQ[:ID], any number of times. */
static bool find_in_words(struct virtio *v, unsigned type)
{
    static const char name[] = "virtio_mmio.device=";

    for (const char *s = boot_words(); *s; s++) {
        if (memcmp(s, name, sizeof(name) - 1))
            continue;
        while (*s != '@')
            s++;

        uint64_t address = parse_number(s + 1, &s);

        if (try_mmio(v, type, address, parse_number(s + 1, NULL)))
            return true;
    }
    return false;
}

/* Devices LNRO0005, each followed by a 32-bit memory and an extended interrupt descriptor; not an AML parser. */
static bool find_in_dsdt(struct virtio *v, unsigned type)
{
    static const uint8_t memory[] = {0x86, 9, 0}, interrupt[] = {0x89, 6, 0};
    const uint8_t *dsdt = acpi_find("DSDT"), *end = dsdt + get32(dsdt + 4), *address = NULL;

    for (const uint8_t *p = dsdt + 36; p + 9 <= end; p++) {
        if (!memcmp(p, "LNRO0005", 8))
            address = p;
        else if (address && !memcmp(p, memory, sizeof(memory)))
            address = p + 4;
        else if (address && !memcmp(p, interrupt, sizeof(interrupt))) {
            if (try_mmio(v, type, get32(address), get32(p + 5)))
                return true;
            address = NULL;
        }
    }
    return false;
}

void virtio_find(struct virtio *v, unsigned type)
{
    *v = (struct virtio){.devfn = PCI_NONE, .packed = word("packed")};
    if (!find_in_words(v, type) && !(pci_present() && find_pci(v, type)) && !(boot_rsdp() && find_in_dsdt(v, type)))
        skip("the device is not there");
}

/* ---- registers ---- */

uint8_t virtio_status(const struct virtio *v)
{
    return is_pci(v) ? read8(v->common + PCI_STATUS_REG) : read32(v->common + MMIO_STATUS);
}

static void set_status(const struct virtio *v, uint8_t status)
{
    if (is_pci(v))
        write8(v->common + PCI_STATUS_REG, status);
    else
        write32(v->common + MMIO_STATUS, status);
}

void virtio_reset(const struct virtio *v)
{
    set_status(v, 0);
    while (virtio_status(v))
        asm volatile("pause");
}

static uint64_t offered(const struct virtio *v)
{
    uint64_t f = 0;

    for (unsigned page = 0; page < 2; page++) {
        write32(v->common + (is_pci(v) ? PCI_FEATURE_SELECT : MMIO_FEATURE_SELECT), page);
        f |= (uint64_t)read32(v->common + (is_pci(v) ? PCI_FEATURE : MMIO_FEATURE)) << 32 * page;
    }
    return f;
}

static void accept(const struct virtio *v, uint64_t f)
{
    for (unsigned page = 0; page < 2; page++) {
        write32(v->common + (is_pci(v) ? PCI_GUEST_SELECT : MMIO_GUEST_SELECT), page);
        write32(v->common + (is_pci(v) ? PCI_GUEST : MMIO_GUEST), f >> 32 * page);
    }
}

bool virtio_has(const struct virtio *v, unsigned feature)
{
    return v->features >> feature & 1;
}

void virtio_open(struct virtio *v, unsigned type, uint64_t want)
{
    virtio_find(v, type);
    virtio_reset(v);
    set_status(v, VIRTIO_ACKNOWLEDGE);
    set_status(v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    want |= 1ull << VIRTIO_F_VERSION_1 | (uint64_t)v->packed << VIRTIO_F_PACKED;
    v->features = want & offered(v);
    CHECK(virtio_has(v, VIRTIO_F_VERSION_1));
    if (v->packed && !virtio_has(v, VIRTIO_F_PACKED))
        skip("the device has no packed rings");
    accept(v, v->features);
    set_status(v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    CHECK(virtio_status(v) & VIRTIO_FEATURES_OK);
}

void virtio_go(const struct virtio *v)
{
    set_status(v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

uint64_t virtio_config64(const struct virtio *v, unsigned off)
{
    return read32(v->config + off) | (uint64_t)read32(v->config + off + 4) << 32;
}

void virtio_config_vector(const struct virtio *v, uint16_t vector)
{
    write16(v->common + PCI_CONFIG_VECTOR, vector);
    CHECK_EQ(read16(v->common + PCI_CONFIG_VECTOR), vector);
}

uint32_t virtio_ack(const struct virtio *v)
{
    if (is_pci(v))
        return read8(v->isr);

    uint32_t why = read32(v->common + MMIO_INTERRUPT);

    write32(v->common + MMIO_ACK, why);
    return why;
}

/* ---- rings ---- */

static void set64(volatile uint8_t *p, const void *address)
{
    write32(p, (uint64_t)address);
    write32(p + 4, (uint64_t)address >> 32);
}

void ring_init(struct ring *r, struct virtio *v, unsigned index, uint16_t vector)
{
    memset(r, 0, sizeof(*r));
    r->v = v;
    r->index = index;
    r->next_wrap = r->seen_wrap = true;
    if (is_pci(v)) {
        write16(v->common + PCI_QUEUE_SELECT, index);
        r->size = read16(v->common + PCI_QUEUE_SIZE);
        CHECK(r->size);
        if (r->size > RING_MAX)
            r->size = RING_MAX;
        write16(v->common + PCI_QUEUE_SIZE, r->size);
        write16(v->common + PCI_QUEUE_VECTOR, vector);
        CHECK_EQ(read16(v->common + PCI_QUEUE_VECTOR), vector);
        set64(v->common + PCI_QUEUE_DESC, &r->desc);
        set64(v->common + PCI_QUEUE_DRIVER, &r->driver);
        set64(v->common + PCI_QUEUE_DEVICE, &r->device);
        r->bell = v->notify + read16(v->common + PCI_QUEUE_NOTIFY_OFF) * v->notify_multiplier;
        write16(v->common + PCI_QUEUE_ENABLE, 1);
    } else {
        write32(v->common + MMIO_QUEUE_SELECT, index);
        r->size = read32(v->common + MMIO_QUEUE_SIZE_MAX);
        CHECK(r->size);
        if (r->size > RING_MAX)
            r->size = RING_MAX;
        write32(v->common + MMIO_QUEUE_SIZE, r->size);
        set64(v->common + MMIO_QUEUE_DESC, &r->desc);
        set64(v->common + MMIO_QUEUE_DRIVER, &r->driver);
        set64(v->common + MMIO_QUEUE_DEVICE, &r->device);
        r->bell = v->common + MMIO_NOTIFY;
        write32(v->common + MMIO_QUEUE_READY, 1);
    }
}

void ring_ask(struct ring *r, uint16_t n)
{
    CHECK_EQ(r->size, RING_MAX); /* the split ring's word follows its last entry */
    if (r->v->packed)
        r->driver.packed = (struct packed_event){.wrap = n | EVENT_WRAP, .flags = EVENT_AT};
    else
        r->driver.split.used_event = n;
}

bool ring_wants_kick(const struct ring *r)
{
    const volatile struct packed_event *e = &r->device.packed;

    CHECK_EQ(r->size, RING_MAX);
    if (!r->v->packed)
        return *(const volatile uint16_t *)&r->device.split.avail_event == r->driver.split.idx;
    return e->flags == EVENT_ALWAYS || (e->flags == EVENT_AT && e->wrap == (r->next | (r->next_wrap ? EVENT_WRAP : 0)));
}

bool ring_enabled(const struct virtio *v, unsigned index)
{
    if (is_pci(v)) {
        write16(v->common + PCI_QUEUE_SELECT, index);
        return read16(v->common + PCI_QUEUE_ENABLE);
    }
    write32(v->common + MMIO_QUEUE_SELECT, index);
    return read32(v->common + MMIO_QUEUE_READY);
}

/* The split descriptors of a chain, from `at` on in a table of `size`. */
static void fill_split(struct split_desc *table, unsigned size, unsigned at, const struct buffer *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        table[(at + i) % size] = (struct split_desc){.addr = (uint64_t)b[i].p,
                                                     .len = b[i].len,
                                                     .flags = (b[i].in ? DESC_IN : 0) | (i + 1 < n ? DESC_NEXT : 0),
                                                     .next = (at + i + 1) % size};
}

void ring_fill(struct ring *r, uint16_t head, const struct buffer *b, unsigned n)
{
    fill_split(r->table[head].split, RING_CHAIN, 0, b, n);
    r->desc.split[head] = (struct split_desc){
        .addr = (uint64_t)&r->table[head], .len = n * sizeof(struct split_desc), .flags = DESC_INDIRECT};
}

static uint16_t add_split(struct ring *r, const struct buffer *b, unsigned n)
{
    uint16_t head = r->next % r->size;

    /* A chain's descriptors follow each other and wrap: no case has more under way than fit. */
    if (n > 1 && virtio_has(r->v, VIRTIO_F_INDIRECT)) {
        ring_fill(r, head, b, n);
        r->next++;
    } else {
        fill_split(r->desc.split, r->size, head, b, n);
        r->next += n;
    }
    r->driver.split.ring[r->driver.split.idx % r->size] = head;
    __atomic_store_n(&r->driver.split.idx, r->driver.split.idx + 1, __ATOMIC_RELEASE);
    return head;
}

static uint16_t packed_flags(bool wrap)
{
    return wrap ? PACKED_AVAIL : PACKED_USED;
}

static uint16_t add_packed(struct ring *r, const struct buffer *b, unsigned n)
{
    uint16_t head = r->next, head_flags = 0;
    struct buffer table = {r->table[head].packed, n * sizeof(struct packed_desc), .in = false};
    bool indirect = n > 1 && virtio_has(r->v, VIRTIO_F_INDIRECT);

    if (indirect) {
        for (unsigned i = 0; i < n; i++)
            r->table[head].packed[i] =
                (struct packed_desc){.addr = (uint64_t)b[i].p, .len = b[i].len, .flags = b[i].in ? DESC_IN : 0};
        b = &table;
        n = 1;
    }
    for (unsigned i = 0; i < n; i++) {
        struct packed_desc *d = &r->desc.packed[r->next];
        uint16_t flags = packed_flags(r->next_wrap) | (b[i].in ? DESC_IN : 0) | (i + 1 < n ? DESC_NEXT : 0) |
                         (indirect ? DESC_INDIRECT : 0);

        d->addr = (uint64_t)b[i].p;
        d->len = b[i].len;
        d->id = head;
        if (i)
            d->flags = flags;
        else
            head_flags = flags;
        if (++r->next == r->size) {
            r->next = 0;
            r->next_wrap = !r->next_wrap;
        }
    }
    r->ndesc[head] = n;
    __atomic_store_n(&r->desc.packed[head].flags, head_flags, __ATOMIC_RELEASE);
    return head;
}

uint16_t ring_add(struct ring *r, const struct buffer *b, unsigned n)
{
    CHECK(n <= RING_CHAIN);
    return r->v->packed ? add_packed(r, b, n) : add_split(r, b, n);
}

void ring_kick(struct ring *r)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (is_pci(r->v))
        write16(r->bell, r->index);
    else
        write32(r->bell, r->index);
}

static bool take_split(struct ring *r, uint16_t *id, uint32_t *len)
{
    const struct split_used *u = &r->device.split;

    if (__atomic_load_n(&u->idx, __ATOMIC_ACQUIRE) == r->seen)
        return false;
    *id = u->ring[r->seen % r->size].id;
    *len = u->ring[r->seen % r->size].len;
    r->seen++;
    return true;
}

static bool take_packed(struct ring *r, uint16_t *id, uint32_t *len)
{
    const struct packed_desc *d = &r->desc.packed[r->seen];
    uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);

    if (!(flags & PACKED_AVAIL) != !r->seen_wrap || !(flags & PACKED_USED) != !r->seen_wrap)
        return false;
    *id = d->id;
    *len = d->len;
    CHECK(*id < r->size);
    r->seen += r->ndesc[*id];
    if (r->seen >= r->size) {
        r->seen -= r->size;
        r->seen_wrap = !r->seen_wrap;
    }
    return true;
}

bool ring_take(struct ring *r, uint16_t *id, uint32_t *len)
{
    return r->v->packed ? take_packed(r, id, len) : take_split(r, id, len);
}

uint32_t ring_call(struct ring *r, const struct buffer *b, unsigned n)
{
    uint16_t want = ring_add(r, b, n), id;
    uint32_t len;

    ring_kick(r);
    while (!ring_take(r, &id, &len))
        asm volatile("pause");
    CHECK_EQ(id, want);
    return len;
}
