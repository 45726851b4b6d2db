/*
 * bzImage [Linux Documentation/arch/x86/boot.rst].  The payload is decompressed here, once, and the vmlinux in it is
 * entered; the kernel's own decompressor runs in the guest only where we do not understand the payload.
 */
#include <inttypes.h>

#include "firmware/load/cache.h"
#include "firmware/load/kernel.h"
#include "firmware/load/payload.h"
#include "vmm/base/log.h"

enum {
    HDR_OFF = offsetof(struct boot_params, hdr),
    SECTOR = 512,
    VERSION_64BIT = 0x20c, /* xloadflags, and all that is older */
    ENTRY_64 = 0x200,
};

struct bzimage {
    struct setup_header hdr;
    uint64_t code; /* file offset of the protected-mode part */
    uint64_t payload, payload_len;
};

static bool match(const uint8_t *head, size_t n)
{
    return n >= HDR_OFF + sizeof(struct setup_header) && get_le16(head + 0x1fe) == 0xaa55 &&
           memcmp(head + 0x202, "HdrS", 4) == 0;
}

static int parse(const struct image *im, struct bzimage *ret, struct err *err)
{
    uint8_t head[HDR_OFF + sizeof(struct setup_header)];
    struct setup_header *h = &ret->hdr;
    uint64_t need;
    int rc = image_read(im, 0, head, sizeof(head), err);

    if (rc < 0)
        return rc;
    *ret = (struct bzimage){0};
    /* The byte behind the jump's opcode says how long the header is. */
    memcpy(h, head + HDR_OFF, min_u64(sizeof(*h), 0x202 + head[0x201] - HDR_OFF));
    if (h->version < VERSION_64BIT)
        return err_set(err, ENOEXEC, "%s: boot protocol %u.%02u; give a kernel with 2.12 or later (Linux 3.8)",
                       im->name, h->version >> 8, h->version & 0xff);
    if (!(h->xloadflags & XLF_KERNEL_64))
        return err_set(err, ENOEXEC, "%s: a 32-bit kernel; give one for x86-64", im->name);
    ret->code = ((h->setup_sects ? h->setup_sects : 4) + 1) * SECTOR;
    need = ret->code + h->syssize * 16ull;
    if (need > im->size)
        return err_set(err, EINVAL,
                       "%s: truncated kernel: its header says %" PRIu64 " bytes, the file has %" PRIu64
                       "; copy it again",
                       im->name, need, im->size);
    if (!is_pow2(h->kernel_alignment) || h->kernel_alignment < KERNEL_PAGE || h->kernel_alignment > KERNEL_SPAN_MAX ||
        h->init_size == 0 || h->init_size > KERNEL_SPAN_MAX || h->pref_address > GMEM_LOW_MAX)
        return err_set(err, EINVAL,
                       "%s: damaged header (alignment 0x%x, size 0x%x, address 0x%" PRIx64 "); copy it again", im->name,
                       h->kernel_alignment, h->init_size, (uint64_t)h->pref_address);
    ret->payload = ret->code + h->payload_offset;
    ret->payload_len = h->payload_length;
    if (!range_fits(ret->payload, ret->payload_len, im->size))
        return err_set(err, EINVAL,
                       "%s: truncated kernel: payload ends at %" PRIu64 ", the file has %" PRIu64
                       " bytes; copy it again",
                       im->name, ret->payload + ret->payload_len, im->size);
    return 0;
}

/* Decompresses the payload.  -ENOTSUP: it must be left to the guest. */
static int unpack(const struct bzimage *bz, const struct buf *payload, struct kernel *ret, struct err *err)
{
    struct buf cleanup_buf vmlinux = {0};
    uint32_t size;
    size_t len;
    int rc;

    /* All formats end with the length of what comes out, gzip by itself, the others by the kernel's build. */
    size = payload->n >= 4 ? get_le32(payload->p + payload->n - 4) : 0;
    if (size == 0 || size > bz->hdr.init_size)
        return err_set(err, ENOTSUP, "payload claims %u bytes, more than its header allows", size);
    rc = payload_decompress(payload->p, payload->n, size, &vmlinux, &len);
    if (rc == -ENOTSUP)
        return err_set(err, ENOTSUP, "payload is compressed in a way that this build does not know");
    if (rc == -ENOMEM)
        return err_set(err, ENOMEM, "no memory for %u bytes of kernel", size);
    if (rc < 0 || len != size)
        return err_set(err, EINVAL, "payload is damaged");
    return kernel_unpack(vmlinux.p, len, &bz->hdr, ret, err);
}

/* From the cache, or else from the file and into the cache; `bz` is filled where the cache did not know the file. */
static int find_kernel(const struct image *im, struct cache *cache, struct bzimage *bz, struct kernel *ret,
                       struct err *err)
{
    struct buf cleanup_buf payload = {0};
    int rc;

    if (cache_find_file(cache, ret) == 0)
        return 0;
    rc = parse(im, bz, err);
    if (rc < 0)
        return rc;
    rc = buf_alloc(&payload, bz->payload_len);
    if (rc < 0)
        return err_set(err, -rc, "%s: no memory for %" PRIu64 " bytes", im->name, bz->payload_len);
    rc = image_read(im, bz->payload, payload.p, payload.n, err);
    if (rc < 0 || cache_find_content(cache, &bz->hdr, &payload, ret) == 0)
        return rc;
    rc = unpack(bz, &payload, ret, err);
    if (rc < 0)
        return err_wrap(err, "%s", im->name);
    cache_put(cache, ret);
    return 0;
}

static int get_kernel(const struct image *im, bool cached, struct bzimage *bz, struct kernel *ret, struct err *err)
{
    struct cache cache;
    int rc;

    cache_open(&cache, cached, im);
    rc = find_kernel(im, &cache, bz, ret, err);
    cache_close(&cache);
    return rc;
}

int bzimage_unpack(const struct image *im, bool cache, struct kernel *ret, struct err *err)
{
    struct bzimage bz;

    return get_kernel(im, cache, &bz, ret, err);
}

/* The kernel's own decompressor, entered in long mode at +0x200; it also does KASLR. */
static int start_packed(struct load *ld, const struct image *im, const struct bzimage *bz, struct err *err)
{
    const struct setup_header *h = &bz->hdr;
    struct want w = {.size = h->init_size, .align = h->kernel_alignment, .min = h->pref_address, .end = GMEM_LOW_MAX};
    const char *word = ld->in->kaslr ? NULL : "nokaslr";
    struct blob_at initrd;
    gpa_t base;
    int rc;

    w.size = max_u64(w.size, im->size - bz->code);
    if (!h->relocatable_kernel)
        w.end = h->pref_address + w.size;
    if (room_slots(&ld->room, &w) == 0)
        return ram_short(ld, im->name, h->pref_address + w.size + MiB(1), err);
    base = room_slot(&ld->room, &w, 0);
    room_take(&ld->room, base, w.size);
    rc = image_to_guest(im, bz->code, ld->mem, base, im->size - bz->code, err);
    if (rc < 0)
        return rc;
    rc = initrd_load(ld, ld->initrds, ld->ninitrds, h->initrd_addr_max + 1ull,
                     h->xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G, base + w.size, &initrd, err);
    return rc < 0 ? rc : linux_start(ld, h, word, base + ENTRY_64, &initrd, err);
}

/* The kernel itself. */
static int start_unpacked(struct load *ld, const struct image *im, const struct kernel *k, struct err *err)
{
    bool random = ld->in->kaslr && !cmdline_has(ld->in->cmdline, "nokaslr");
    struct setup_header hdr = k->hdr;
    struct blob_at initrd;
    uint64_t virt;
    gpa_t base;
    /* The initrd goes first, to the top: the kernel has the choice of what is left. */
    int rc = initrd_load(ld, ld->initrds, ld->ninitrds, hdr.initrd_addr_max + 1ull,
                         hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G, k->phys + max_u64(k->memsz, hdr.init_size),
                         &initrd, err);

    if (rc < 0)
        return rc;
    rc = kaslr_choose(ld, k, im->name, random, &base, &virt, err);
    if (rc < 0)
        return rc;
    rc = kernel_place(k, ld->mem, base, virt, err);
    if (rc < 0)
        return err_wrap(err, "%s", im->name);
    if (random)
        hdr.loadflags |= KASLR_FLAG;
    log_msg(LOG_DEBUG, "%s: at 0x%" PRIx64 ", virtual +0x%" PRIx64, im->name, base, virt);
    return linux_start(ld, &hdr, NULL, base + k->entry, &initrd, err);
}

static int load(struct load *ld, const struct image *im, struct err *err)
{
    struct kernel k = KERNEL_NONE;
    struct bzimage bz;
    int rc = get_kernel(im, ld->in->cache, &bz, &k, err);

    if (rc == -ENOTSUP) {
        log_msg(LOG_INFO, "%s; the guest unpacks it itself", err->msg);
        return start_packed(ld, im, &bz, err);
    }
    if (rc == 0)
        rc = start_unpacked(ld, im, &k, err);
    kernel_fini(&k);
    return rc;
}

const struct loader bzimage_loader = {.name = "bzImage", .match = match, .load = load};
