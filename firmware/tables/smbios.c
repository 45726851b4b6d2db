/*
 * SMBIOS 3 [DSP0134 3.6]: what a guest's dmidecode, its installer and its cloud agent ask for: who made the machine,
 * its UUID, processors and memory.
 */
#include "firmware/tables/tables.h"

enum { ENTRY_SIZE = 24, ENTRY_ROOM = 32, UNKNOWN = 2, OTHER = 1, STRINGS_MAX = 4 };

/* Strings are numbered from 1 in the order given; the caller writes the formatted part between begin and end. */
struct maker {
    struct blob b;
    uint16_t handle;
    size_t at;
};

static uint16_t begin(struct maker *m, uint8_t type)
{
    m->at = m->b.len;
    blob_u8(&m->b, type);
    blob_u8(&m->b, 0);
    blob_u16(&m->b, m->handle);
    return m->handle++;
}

/* `strings` ends with NULL; `len` is the size of the formatted part that the specification gives for it. */
static void end(struct maker *m, size_t len, const char *const strings[STRINGS_MAX])
{
    assert(m->b.len - m->at == len);
    m->b.data[m->at + 1] = len;
    for (unsigned i = 0; i < STRINGS_MAX && strings[i]; i++)
        blob_put(&m->b, strings[i], strlen(strings[i]) + 1);
    if (!strings[0])
        blob_u8(&m->b, 0);
    blob_u8(&m->b, 0);
}

static void put_bios(struct maker *m, const char *version)
{
    begin(m, 0);
    blob_u8(&m->b, 1); /* vendor */
    blob_u8(&m->b, 2); /* version */
    blob_u16(&m->b, 0xe000);
    blob_u8(&m->b, 3);       /* release date */
    blob_u8(&m->b, 0);       /* 64 KiB */
    blob_u64(&m->b, 1 << 3); /* characteristics are not given, but for: */
    blob_u8(&m->b, 1 << 0);  /* ACPI */
    blob_u8(&m->b, 1 << 4);  /* virtual machine */
    blob_u16(&m->b, 0xffff); /* no release number */
    blob_u16(&m->b, 0xffff); /* no embedded controller */
    blob_u16(&m->b, 0);
    end(m, 26, (const char *[STRINGS_MAX]){"bothy", version, "01/01/2026"});
}

static void put_system(struct maker *m, const uint8_t uuid[16], const char *version)
{
    /* time-low, time-mid and time-high are little endian here [7.2.1] */
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

    begin(m, 1);
    blob_u8(&m->b, 1); /* manufacturer */
    blob_u8(&m->b, 2); /* product */
    blob_u8(&m->b, 3); /* version */
    blob_u8(&m->b, 0); /* no serial number */
    for (size_t i = 0; i < sizeof(order); i++)
        blob_u8(&m->b, uuid[order[i]]);
    blob_u8(&m->b, 6); /* woken by the power switch */
    blob_u8(&m->b, 0); /* no SKU */
    blob_u8(&m->b, 0); /* no family */
    end(m, 27, (const char *[STRINGS_MAX]){"bothy", "virtual machine", version});
}

static void put_chassis(struct maker *m)
{
    begin(m, 3);
    blob_u8(&m->b, 1); /* manufacturer */
    blob_u8(&m->b, OTHER);
    blob_zero(&m->b, 3); /* no version, serial number, asset tag */
    for (int state = 0; state < 3; state++)
        blob_u8(&m->b, 3); /* boot-up, power supply, thermal: safe */
    blob_u8(&m->b, UNKNOWN);
    blob_zero(&m->b, 9); /* OEM, height, power cords, contained elements, SKU */
    end(m, 22, (const char *[STRINGS_MAX]){"bothy"});
}

static void put_processor(struct maker *m, unsigned socket, unsigned cores)
{
    char name[] = "CPU 00";
    uint16_t cores16 = cores < UINT16_MAX ? cores : UINT16_MAX - 1;
    uint8_t cores8 = cores < UINT8_MAX ? cores : UINT8_MAX;

    name[4] += socket / 10 % 10;
    name[5] += socket % 10;
    begin(m, 4);
    blob_u8(&m->b, 1);       /* socket */
    blob_u8(&m->b, 3);       /* central processor */
    blob_u8(&m->b, UNKNOWN); /* family: CPUID tells more */
    blob_u8(&m->b, 2);       /* manufacturer */
    blob_zero(&m->b, 8);     /* CPUID's signature and features: not given */
    blob_u8(&m->b, 0);
    blob_u8(&m->b, 0);
    blob_zero(&m->b, 6);     /* clock and speeds: unknown */
    blob_u8(&m->b, 0x41);    /* populated, enabled */
    blob_u8(&m->b, OTHER);   /* upgrade */
    blob_u16(&m->b, 0xffff); /* no cache structures */
    blob_u16(&m->b, 0xffff);
    blob_u16(&m->b, 0xffff);
    blob_zero(&m->b, 3); /* no serial number, asset tag, part number */
    blob_u8(&m->b, cores8);
    blob_u8(&m->b, cores8);
    blob_u8(&m->b, cores8);  /* threads */
    blob_u16(&m->b, 1 << 2); /* 64-bit */
    blob_u16(&m->b, UNKNOWN);
    blob_u16(&m->b, cores16);
    blob_u16(&m->b, cores16);
    blob_u16(&m->b, cores16);
    blob_u16(&m->b, cores16);
    end(m, 50, (const char *[STRINGS_MAX]){name, "bothy"});
}

static uint16_t put_memory_array(struct maker *m, uint64_t bytes)
{
    uint16_t handle = begin(m, 16);

    blob_u8(&m->b, OTHER);       /* where */
    blob_u8(&m->b, 3);           /* system memory */
    blob_u8(&m->b, 3);           /* no error correction */
    blob_u32(&m->b, 0x80000000); /* the capacity is at the end */
    blob_u16(&m->b, 0xfffe);     /* no error information */
    blob_u16(&m->b, 1);          /* devices */
    blob_u64(&m->b, bytes);
    end(m, 23, (const char *[STRINGS_MAX]){0});
    return handle;
}

static void put_memory_device(struct maker *m, uint16_t array, uint64_t bytes)
{
    uint64_t mib = bytes / MiB(1);
    bool extended = mib >= 0x7fff;

    begin(m, 17);
    blob_u16(&m->b, array);
    blob_u16(&m->b, 0xfffe); /* no error information */
    blob_u16(&m->b, 0xffff); /* widths: unknown */
    blob_u16(&m->b, 0xffff);
    blob_u16(&m->b, extended ? 0x7fff : mib);
    blob_u8(&m->b, OTHER); /* form factor */
    blob_u8(&m->b, 0);     /* no set */
    blob_u8(&m->b, 1);     /* locator */
    blob_u8(&m->b, 0);
    blob_u8(&m->b, 7);       /* type: RAM */
    blob_u16(&m->b, 1 << 1); /* of another kind */
    blob_u16(&m->b, 0);      /* speed: unknown */
    blob_zero(&m->b, 5);     /* maker, serial number, asset tag, part number, rank */
    blob_u32(&m->b, extended ? mib : 0);
    blob_zero(&m->b, 8); /* configured speed and voltages: unknown */
    end(m, 40, (const char *[STRINGS_MAX]){"RAM"});
}

static void put_memory_range(struct maker *m, uint16_t array, uint64_t base, uint64_t len)
{
    if (!len)
        return;
    begin(m, 19);
    blob_u32(&m->b, 0xffffffff); /* the addresses are at the end */
    blob_u32(&m->b, 0xffffffff);
    blob_u16(&m->b, array);
    blob_u8(&m->b, 1); /* partition width */
    blob_u64(&m->b, base);
    blob_u64(&m->b, base + len - 1);
    end(m, 31, (const char *[STRINGS_MAX]){0});
}

/* The 64-bit entry point [5.2.2]. */
static void fill_entry(struct blob *b, uint64_t tables)
{
    static const uint8_t head[] = {'_', 'S', 'M', '3', '_', 0, ENTRY_SIZE, 3, 6, 0, 1};

    memcpy(b->data, head, sizeof(head));
    put_le32(b->data + 12, b->len - ENTRY_ROOM);
    put_le64(b->data + 16, tables);
    b->data[5] = blob_checksum(b, 0, ENTRY_SIZE);
}

struct blob smbios_build(const struct board_desc *d, uint64_t base, const uint8_t uuid[16], const char *version)
{
    struct maker m = {0};
    uint64_t ram = d->ram_low + d->ram_high;

    assert(d->sockets && d->cpus % d->sockets == 0 && base % 16 == 0);
    blob_zero(&m.b, ENTRY_ROOM);
    put_bios(&m, version);
    put_system(&m, uuid, version);
    put_chassis(&m);
    for (unsigned i = 0; i < d->sockets; i++)
        put_processor(&m, i, d->cpus / d->sockets);

    uint16_t array = put_memory_array(&m, ram);

    put_memory_device(&m, array, ram);
    put_memory_range(&m, array, 0, d->ram_low);
    put_memory_range(&m, array, GiB(4), d->ram_high);
    begin(&m, 32);
    blob_zero(&m.b, 7); /* the last boot had no errors */
    end(&m, 11, (const char *[STRINGS_MAX]){0});
    begin(&m, 127);
    end(&m, 4, (const char *[STRINGS_MAX]){0});
    fill_entry(&m.b, base + ENTRY_ROOM);
    return m.b;
}
