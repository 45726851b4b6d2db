#include "vmm/kvm/ioapic.h"

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { INDEX_ID = 0, INDEX_VERSION = 1, INDEX_ARBITRATION = 2, INDEX_ENTRIES = 0x10 };
enum { VERSION = 0x20, ID_SHIFT = 24, ID_MASK = 0xf, LAST_PIN_SHIFT = 16 };

/* An entry [82093AA §3.2.4]. */
#define ENTRY_VECTOR     0xffull
#define ENTRY_MODE       (7ull << 8)
#define ENTRY_LOGICAL    (1ull << 11)
#define ENTRY_REMOTE_IRR (1ull << 14) /* sent, and no EOI yet; level-triggered only */
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_READ_ONLY  (ENTRY_REMOTE_IRR | 1ull << 12)
/* Destination, and where Linux puts its bits 14:8 (KVM_FEATURE_MSI_EXT_DEST_ID). */
enum { ENTRY_DEST_SHIFT = 56, ENTRY_EXT_DEST_SHIFT = 49 };
enum { MSI_ASSERT = 1 << 14, MSI_LEVEL = 1 << 15 };

static struct msi entry_msi(uint64_t e)
{
    return (struct msi){
        .addr = 0xfee00000 | (e >> ENTRY_DEST_SHIFT & 0xff) << 12 | (e >> ENTRY_EXT_DEST_SHIFT & 0x7f) << 5 |
                (e & ENTRY_LOGICAL ? 1 << 2 : 0),
        .data = (uint32_t)(e & (ENTRY_VECTOR | ENTRY_MODE)) | (e & ENTRY_LEVEL ? MSI_LEVEL | MSI_ASSERT : 0),
    };
}

/* A level that is up and not yet known to a CPU. */
static void send_level(struct ioapic *io, unsigned pin)
{
    uint64_t *e = &io->s.entry[pin];

    if (!(*e & ENTRY_LEVEL) || *e & (ENTRY_MASKED | ENTRY_REMOTE_IRR) || !(io->s.lines & 1u << pin))
        return;
    *e |= ENTRY_REMOTE_IRR;
    io->out->send(io->out, entry_msi(*e));
}

void ioapic_set(struct ioapic *io, unsigned pin, bool level)
{
    uint32_t bit = 1u << pin;

    assert(pin < IOAPIC_PINS);
    pthread_mutex_lock(&io->lock);
    if (!level) {
        io->s.lines &= ~bit;
    } else if (!(io->s.lines & bit)) {
        io->s.lines |= bit;
        if (!(io->s.entry[pin] & (ENTRY_LEVEL | ENTRY_MASKED))) /* an edge on a masked pin is lost */
            io->out->send(io->out, entry_msi(io->s.entry[pin]));
        send_level(io, pin);
    }
    pthread_mutex_unlock(&io->lock);
}

static void eoi_locked(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *e = &io->s.entry[pin];

        if (!(*e & ENTRY_REMOTE_IRR) || (*e & ENTRY_VECTOR) != vector)
            continue;
        *e &= ~ENTRY_REMOTE_IRR;
        send_level(io, pin);
    }
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    pthread_mutex_lock(&io->lock);
    eoi_locked(io, vector);
    pthread_mutex_unlock(&io->lock);
}

static void write_entry(struct ioapic *io, unsigned pin, bool high, uint32_t v)
{
    uint64_t *e = &io->s.entry[pin], old = *e;

    if (high)
        *e = (uint64_t)v << 32 | (uint32_t)old;
    else
        *e = (old & (~(uint64_t)UINT32_MAX | ENTRY_READ_ONLY)) | (v & ~ENTRY_READ_ONLY);
    if (!(*e & ENTRY_LEVEL))
        *e &= ~ENTRY_REMOTE_IRR;
    /* Masking does not count: the EOI of what was sent before is still to come. */
    if (io->level_changed && (old | *e) & ENTRY_LEVEL && (old ^ *e) & ~(ENTRY_MASKED | ENTRY_READ_ONLY))
        io->level_changed(io);
    send_level(io, pin);
}

static uint32_t read_index(const struct ioapic *io, unsigned index)
{
    switch (index) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return (uint32_t)io->s.id << ID_SHIFT;
    case INDEX_VERSION:
        return VERSION | (IOAPIC_PINS - 1) << LAST_PIN_SHIFT;
    default:
        if (index < INDEX_ENTRIES || index >= INDEX_ENTRIES + 2 * IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->s.entry[(index - INDEX_ENTRIES) / 2] >> (index & 1 ? 32 : 0));
    }
}

static uint64_t ioapic_read(struct region *r, uint64_t off, unsigned size)
{
    struct ioapic *io = container_of(r, struct ioapic, region);
    uint32_t v = 0;

    (void)size;
    pthread_mutex_lock(&io->lock);
    if (off == REG_SELECT)
        v = io->s.select;
    else if (off == REG_WINDOW)
        v = read_index(io, io->s.select);
    pthread_mutex_unlock(&io->lock);
    return v;
}

static void ioapic_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct ioapic *io = container_of(r, struct ioapic, region);
    unsigned index;

    (void)size;
    pthread_mutex_lock(&io->lock);
    index = io->s.select;
    if (off == REG_SELECT)
        io->s.select = (uint8_t)val;
    else if (off == REG_EOI)
        eoi_locked(io, (uint8_t)val);
    else if (off == REG_WINDOW && index == INDEX_ID)
        io->s.id = val >> ID_SHIFT & ID_MASK;
    else if (off == REG_WINDOW && index >= INDEX_ENTRIES && index < INDEX_ENTRIES + 2 * IOAPIC_PINS)
        write_entry(io, (index - INDEX_ENTRIES) / 2, index & 1, (uint32_t)val);
    pthread_mutex_unlock(&io->lock);
}

bool ioapic_level_msi(const struct ioapic *io, unsigned pin, struct msi *ret)
{
    if (!(io->s.entry[pin] & ENTRY_LEVEL))
        return false;
    *ret = entry_msi(io->s.entry[pin]);
    return true;
}

void ioapic_reset(struct ioapic *io)
{
    pthread_mutex_lock(&io->lock);
    io->s = (struct ioapic_state){0};
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->s.entry[pin] = ENTRY_MASKED;
    pthread_mutex_unlock(&io->lock);
}

static const struct region_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write, .sizes = 4};

void ioapic_init(struct ioapic *io, struct msi_sink *out, void (*level_changed)(struct ioapic *io))
{
    *io = (struct ioapic){
        .region = {.name = "ioapic", .ops = &ioapic_ops, .len = IOAPIC_LEN}, /* its own lock, no lane */
        .out = out,
        .level_changed = level_changed,
    };
    pthread_mutex_init(&io->lock, NULL);
    ioapic_reset(io);
}

void ioapic_fini(struct ioapic *io)
{
    bus_unmap(&io->region);
    pthread_mutex_destroy(&io->lock);
}
