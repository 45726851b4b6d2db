/* In the kernel's read-only data: the first mark, what gzip made of .config, the second [Linux kernel/configs.c]. */
#include "firmware/load/ikconfig.h"

#include "firmware/load/elf.h"
#include "firmware/load/kernel.h"
#include "firmware/load/payload.h"
#include "vmm/base/cleanup.h"

#define BEGIN "IKCFG_ST"
#define GZIP  "\x1f\x8b"
#define END   "IKCFG_ED"

enum { MARK = sizeof(BEGIN) - 1, PACKED_MAX = 1 << 20, TEXT_MAX = 4 << 20, TRIES_MAX = 8 };

static int unpack(const uint8_t *p, size_t n, char **ret)
{
    struct buf cleanup_buf text = {0};
    size_t len;
    int rc = payload_decompress(p, n, TEXT_MAX, &text, &len);

    if (rc < 0)
        return rc;
    *ret = xcalloc(1, len + 1);
    memcpy(*ret, text.p, len);
    return 0;
}

int ikconfig_find(const uint8_t *p, size_t n, char **ret)
{
    const uint8_t *end = p + n, *to;

    for (unsigned i = 0; i < TRIES_MAX; i++) {
        p = memmem(p, (size_t)(end - p), BEGIN GZIP, sizeof(BEGIN GZIP) - 1);
        if (!p)
            break;
        p += MARK;
        to = memmem(p, min_u64((size_t)(end - p), PACKED_MAX), END, MARK);
        if (to && unpack(p, (size_t)(to - p), ret) == 0)
            return 0;
    }
    return -ENOENT;
}

static int of_bzimage(const struct image *im, bool cache, char **ret)
{
    struct kernel k;
    struct err err;
    int rc = bzimage_unpack(im, cache, &k, &err);

    if (rc < 0)
        return -ENOENT;
    rc = ikconfig_find(k.map.p, k.map.n, ret);
    kernel_fini(&k);
    return rc;
}

static int of_elf(const struct image *im, char **ret)
{
    struct elf elf;
    struct err err;

    if (elf_parse(im, &elf, &err) < 0)
        return -ENOENT;
    for (unsigned i = 0; i < elf.nsegs; i++) {
        const struct elf_seg *s = &elf.segs[i];
        struct buf cleanup_buf bytes = {0};

        if (s->filesz <= KERNEL_SPAN_MAX && buf_alloc(&bytes, s->filesz) == 0 &&
            image_read(im, s->off, bytes.p, s->filesz, &err) == 0 && ikconfig_find(bytes.p, s->filesz, ret) == 0)
            return 0;
    }
    return -ENOENT;
}

int boot_config(const char *kernel, bool cache, char **ret)
{
    uint8_t head[LOAD_HEAD];
    struct image im;
    struct err err;
    size_t n;
    int rc = image_open(&im, "kernel", kernel, &err);

    if (rc < 0)
        return -ENOENT;
    n = min_u64(im.size, sizeof(head));
    if (image_read(&im, 0, head, n, &err) < 0)
        rc = -ENOENT;
    else if (bzimage_loader.match(head, n))
        rc = of_bzimage(&im, cache, ret);
    else
        rc = elf_match(head, n) ? of_elf(&im, ret) : -ENOENT;
    image_close(&im);
    return rc;
}
