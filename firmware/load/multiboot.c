/*
 * Multiboot 1: kvm-unit-tests, Xen and many small kernels [Multiboot Specification 0.6.96].  The kernel is an ELF file,
 * or the header itself says what goes where ("a.out kludge").  Initrds become modules.
 */
#include "firmware/load/elf.h"

#include <inttypes.h>

enum {
    MB_HEADER_MAGIC = 0x1badb002,
    MB_EAX = 0x2badb002,
    MB_HEADER_LEN = 32,
    MB_HEADER_ADDRS = 1 << 16,  /* header flag: the address fields are there */
    MB_HEADER_UNKNOWN = 0xfff8, /* required features beyond page alignment, memory and video */
    MB_HEADER_VIDEO = 1 << 2,   /* a wish; the info says that there is none */
    MB_INFO_MEMORY = 1 << 0,    /* info flags */
    MB_INFO_CMDLINE = 1 << 2,
    MB_INFO_MODS = 1 << 3,
    MB_INFO_MMAP = 1 << 6,
    MB_INFO_LOADER = 1 << 9,
    MB_CMDLINE_MAX = 4095,
    BDA_MEMORY_KIB = 0x413, /* in the BIOS data area */
};

struct mb_header { /* from MB_HEADER_ADDRS on, behind magic, flags, checksum */
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct mb_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table;
};

struct mb_module {
    uint32_t start, end, string, reserved;
};

struct mb_mmap {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

/* Offset of the header, or -1. */
static int find_header(const uint8_t *head, size_t n)
{
    for (size_t i = 0; i + 12 <= n; i += 4) {
        if (get_le32(head + i) == MB_HEADER_MAGIC &&
            get_le32(head + i) + get_le32(head + i + 4) + get_le32(head + i + 8) == 0)
            return (int)i;
    }
    return -1;
}

static bool match(const uint8_t *head, size_t n)
{
    return find_header(head, n) >= 0;
}

/* The header's own addresses in the form of an ELF file with one segment. */
static int parse_addrs(const struct image *im, const uint8_t *head, size_t n, int at, struct elf *ret, struct err *err)
{
    struct mb_header h;
    struct elf_seg *s = &ret->segs[0];

    if (!range_fits((size_t)at, MB_HEADER_LEN, n))
        return err_set(err, EINVAL, "%s: truncated in its Multiboot header; copy it again", im->name);
    memcpy(&h, head + at + 12, sizeof(h));
    if (h.load_addr > h.header_addr || h.header_addr - h.load_addr > (uint32_t)at ||
        (h.load_end_addr && h.load_end_addr < h.load_addr))
        return err_set(err, EINVAL, "%s: the addresses in its Multiboot header make no sense", im->name);
    *ret = (struct elf){.entry = h.entry_addr, .nsegs = 1};
    s->off = (uint64_t)at - (h.header_addr - h.load_addr);
    s->paddr = h.load_addr;
    s->filesz = h.load_end_addr ? h.load_end_addr - h.load_addr : im->size - s->off;
    s->memsz = max_u64(s->filesz, h.bss_end_addr > h.load_addr ? h.bss_end_addr - h.load_addr : 0);
    if (!range_fits(s->off, s->filesz, im->size))
        return err_set(err, EINVAL, "%s: truncated: needs %" PRIu64 " bytes, has %" PRIu64 "; copy it again", im->name,
                       s->off + s->filesz, im->size);
    return 0;
}

static int put_modules(struct load *ld, uint64_t kernel_end, struct mb_info *info, struct err *err)
{
    struct mb_module mods[LOAD_INITRDS_MAX] = {0};
    gpa_t at;
    int rc;

    for (unsigned i = 0; i < ld->ninitrds; i++) {
        struct blob_at b;

        rc = initrd_load(ld, &ld->initrds[i], 1, GiB(4), false, kernel_end, &b, err);
        if (rc < 0)
            return rc;
        rc = low_put(ld, ld->initrds[i].name, strlen(ld->initrds[i].name) + 1, 1, &at, err);
        if (rc < 0)
            return rc;
        mods[i] =
            (struct mb_module){.start = (uint32_t)b.base, .end = (uint32_t)(b.base + b.size), .string = (uint32_t)at};
    }
    rc = low_put(ld, mods, sizeof(mods), 8, &at, err);
    info->mods_count = ld->ninitrds;
    info->mods_addr = (uint32_t)at;
    return rc;
}

static int put_mmap(struct load *ld, struct mb_info *info, struct err *err)
{
    const struct boot_params_in *in = ld->in;
    gpa_t at;
    int rc = low_alloc(ld, in->ne820 * sizeof(struct mb_mmap), 8, &at, err);

    for (unsigned i = 0; rc == 0 && i < in->ne820; i++) {
        struct mb_mmap m = {.size = sizeof(m) - sizeof(m.size),
                            .base = in->e820[i].base,
                            .length = in->e820[i].size,
                            .type = in->e820[i].type};

        if (m.type == 1 && m.base == 0)
            info->mem_lower = (uint32_t)(min_u64(m.length, KiB(640)) >> 10);
        if (m.type == 1 && m.base <= MiB(1) && m.base + m.length > MiB(1))
            info->mem_upper = (uint32_t)((m.base + m.length - MiB(1)) >> 10);
        rc = low_write(ld, at + i * sizeof(m), &m, sizeof(m), err);
    }
    /* There is no BIOS, but Xen looks there for where low memory ends. */
    if (rc == 0)
        rc = low_write(ld, BDA_MEMORY_KIB, &(uint16_t){(uint16_t)info->mem_lower}, sizeof(uint16_t), err);
    info->mmap_length = (uint32_t)(in->ne820 * sizeof(struct mb_mmap));
    info->mmap_addr = (uint32_t)at;
    return rc;
}

static int load(struct load *ld, const struct image *im, struct err *err)
{
    uint8_t head[LOAD_HEAD];
    size_t n = min_u64(im->size, sizeof(head));
    struct mb_info info = {.flags = MB_INFO_MEMORY | MB_INFO_CMDLINE | MB_INFO_MODS | MB_INFO_MMAP | MB_INFO_LOADER};
    struct elf elf;
    gpa_t cmdline, name;
    uint64_t end;
    uint32_t flags;
    int at, rc = image_read(im, 0, head, n, err);

    if (rc < 0)
        return rc;
    at = find_header(head, n);
    if (at < 0)
        return err_set(err, EINVAL, "%s: changed while it was read; try again", im->name);
    flags = get_le32(head + at + 4);
    if (flags & MB_HEADER_UNKNOWN)
        return err_set(err, ENOTSUP, "%s: its Multiboot header requires features unknown here (flags 0x%x)", im->name,
                       flags & MB_HEADER_UNKNOWN);
    rc = flags & MB_HEADER_ADDRS ? parse_addrs(im, head, n, at, &elf, err) : elf_parse(im, &elf, err);
    if (rc < 0)
        return rc;
    rc = elf_place(ld, im, &elf, &end, err);
    if (rc < 0)
        return rc;
    /* Kernels of this kind skip the first word, the file's name. */
    rc = low_cmdline(ld, im->name, NULL, MB_CMDLINE_MAX, &cmdline, err);
    if (rc < 0)
        return rc;
    rc = low_put(ld, "bothy", sizeof("bothy"), 1, &name, err);
    if (rc < 0)
        return rc;
    info.cmdline = (uint32_t)cmdline;
    info.boot_loader_name = (uint32_t)name;
    rc = put_modules(ld, end, &info, err);
    if (rc < 0)
        return rc;
    rc = put_mmap(ld, &info, err);
    if (rc < 0)
        return rc;
    *ld->regs = (struct boot_regs){.entry = BOOT_MULTIBOOT, .rip = elf.entry, .rax = MB_EAX};
    rc = low_put(ld, &info, sizeof(info), 8, &ld->regs->rbx, err);
    return rc < 0 ? rc : flat_gdt(ld, false, err);
}

const struct loader multiboot_loader = {.name = "Multiboot", .match = match, .load = load};
