#include "firmware/load/loader.h"

#include <inttypes.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

/* In this order: a Multiboot kernel is an ELF file too, and Xen's has a PVH note besides. */
static const struct loader *const loaders[] = {&fit_loader, &bzimage_loader, &multiboot_loader, &elf_loader};

/* What people give by mistake, and what to do about it. */
static const struct {
    uint16_t off;
    uint8_t len;
    const char *magic, *hint;
} lookalikes[] = {
    {0, 2, "\x1f\x8b", "gzip-compressed; unpack it with gunzip first"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "xz-compressed; unpack it with unxz first"},
    {0, 4, "\x28\xb5\x2f\xfd", "zstd-compressed; unpack it with unzstd first"},
    {0, 3, "BZh", "bzip2-compressed; unpack it with bunzip2 first"},
    {0, 6, "070701", "an initramfs (cpio archive); give it as -i"},
    {0, 4, "QFI\xfb", "a qcow2 disk image; give it as -d"},
    {0, 8, "!<arch>\n", "a Debian package or archive; unpack it and give the vmlinuz in it"},
    {56, 4, "ARM\x64", "a kernel for arm64; give one for x86-64"},
    {48, 5, "RISCV", "a kernel for RISC-V; give one for x86-64"},
    {0, 4, "\x27\x05\x19\x56", "a legacy U-Boot image; give the kernel itself or a FIT image"},
    {0, 2, "MZ", "an EFI program without a Linux kernel header; it needs firmware"},
    {510, 2, "\x55\xaa", "a boot sector or disk image; give it as -d"},
};

static int not_a_kernel(const struct image *im, const uint8_t *head, size_t n, struct err *err)
{
    for (size_t i = 0; i < array_len(lookalikes); i++) {
        if (range_fits(lookalikes[i].off, lookalikes[i].len, n) &&
            memcmp(head + lookalikes[i].off, lookalikes[i].magic, lookalikes[i].len) == 0)
            return err_set(err, EINVAL, "%s: not a kernel: looks like %s", im->name, lookalikes[i].hint);
    }
    return err_set(err, EINVAL, "%s: not a kernel; give a bzImage, vmlinux, PVH, Multiboot or FIT file for x86-64",
                   im->name);
}

int load_image(struct load *ld, const struct image *im, bool nested, struct err *err)
{
    uint8_t head[LOAD_HEAD];
    size_t n = min_u64(im->size, sizeof(head));
    int rc = image_read(im, 0, head, n, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < array_len(loaders); i++) {
        if (loaders[i]->match(head, n) && !(nested && loaders[i] == &fit_loader))
            return loaders[i]->load(ld, im, err);
    }
    return not_a_kernel(im, head, n, err);
}

int low_alloc(struct load *ld, size_t n, size_t align, gpa_t *ret, struct err *err)
{
    gpa_t at = align_up(ld->low_next, align);

    if (at > ld->in->low_end || n > ld->in->low_end - at)
        return err_set(err, ENOSPC, "low memory is full: %zu bytes more do not fit; shorten the command line", n);
    ld->low_next = at + n;
    *ret = at;
    return 0;
}

int low_write(struct load *ld, gpa_t at, const void *p, size_t n, struct err *err)
{
    if (gmem_write(ld->mem, at, p, n) < 0)
        return err_set(err, EFAULT, "guest RAM ends below 0x%" PRIx64 "; give more with -m", at + n);
    return 0;
}

int low_put(struct load *ld, const void *p, size_t n, size_t align, gpa_t *ret, struct err *err)
{
    int rc = low_alloc(ld, n, align, ret, err);

    return rc < 0 ? rc : low_write(ld, *ret, p, n, err);
}

int low_cmdline(struct load *ld, const char *before, const char *after, size_t limit, gpa_t *ret, struct err *err)
{
    const char *words[] = {before, ld->in->cmdline, after};
    size_t n = 0, room = 1;
    cleanup_free char *line = NULL;

    for (size_t i = 0; i < array_len(words); i++)
        room += words[i] ? strlen(words[i]) + 1 : 0;
    line = xcalloc(1, room);
    for (size_t i = 0; i < array_len(words); i++) {
        size_t len = words[i] ? strlen(words[i]) : 0;

        if (len && n)
            line[n++] = ' ';
        memcpy(line + n, len ? words[i] : "", len);
        n += len;
    }
    if (n > limit)
        return err_set(err, E2BIG, "kernel command line of %zu bytes; this kernel takes %zu: shorten -a", n, limit);
    return low_put(ld, line, n + 1, 1, ret, err);
}

bool cmdline_has(const char *cmdline, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = cmdline; p && (p = strstr(p, word)); p += n) {
        if ((p == cmdline || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0))
            return true;
    }
    return false;
}

int boot_load(struct gmem *mem, const struct boot_params_in *in, struct boot_regs *ret, struct err *err)
{
    struct load ld = {.mem = mem, .in = in, .regs = ret, .low_next = in->low_free};
    struct image kernel = {.fd = -1};
    int rc = image_open(&kernel, "kernel", in->kernel, err);

    assert(in->ninitrds <= BOOT_INITRDS_MAX);
    room_init(&ld.room, in->e820, in->ne820);
    for (; rc == 0 && ld.ninitrds < in->ninitrds; ld.ninitrds += rc == 0)
        rc = image_open(&ld.initrds[ld.ninitrds], "initrd", in->initrds[ld.ninitrds], err);
    if (rc == 0)
        rc = load_image(&ld, &kernel, false, err);
    for (unsigned i = 0; i < ld.ninitrds; i++)
        image_close(&ld.initrds[i]);
    image_close(&kernel);
    return rc;
}
