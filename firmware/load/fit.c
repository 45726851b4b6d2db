/*
 * Flattened image trees: a device tree with kernel, ramdisk and a configuration that names them, each with hashes
 * [U-Boot doc/usage/fit/source_file_format.rst].  The data lies in the tree, or behind it (mkimage -E).
 */
#include <inttypes.h>
#include <libfdt.h>
#include <nettle/nettle-meta.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <zlib.h>

#include "firmware/load/loader.h"
#include "firmware/load/payload.h"

enum { FDT_VERSION = 17, FIT_UNPACKED_MAX = 1 << 30 };
#define FIT_FILE_MAX GiB(2)

struct fit {
    const struct image *im;
    struct buf file; /* of im->size bytes */
    int images;      /* node of /images */
};

static bool match(const uint8_t *head, size_t n)
{
    return n >= sizeof(struct fdt_header) && fdt_magic(head) == FDT_MAGIC;
}

static int open_fit(struct fit *f, const struct image *im, struct err *err)
{
    int rc;

    f->im = im;
    if (im->size > FIT_FILE_MAX)
        return err_set(err, EFBIG, "%s: a FIT image of more than %u MiB", im->name, (unsigned)(FIT_FILE_MAX >> 20));
    rc = buf_alloc(&f->file, im->size);
    if (rc < 0)
        return err_set(err, -rc, "%s: no memory for %" PRIu64 " bytes", im->name, im->size);
    rc = image_read(im, 0, f->file.p, im->size, err);
    if (rc < 0)
        return rc;
    if (fdt_totalsize(f->file.p) > im->size)
        return err_set(err, EINVAL,
                       "%s: truncated FIT image: its header says %u bytes, the file has %" PRIu64 "; copy it again",
                       im->name, fdt_totalsize(f->file.p), im->size);
    /* libfdt follows a null pointer in older versions' trees, in which no FIT image ever was. */
    if (fdt_version(f->file.p) < FDT_VERSION || fdt_check_full(f->file.p, im->size) < 0)
        return err_set(err, EINVAL, "%s: damaged device tree; build or copy it again", im->name);
    f->images = fdt_path_offset(f->file.p, "/images");
    if (f->images < 0)
        return err_set(err, EINVAL, "%s: a device tree, but not a FIT image: it has no /images", im->name);
    return 0;
}

/* A property of 32 bits; false where there is none. */
static bool get_cell(const struct fit *f, int node, const char *name, uint32_t *ret)
{
    int len;
    const void *p = fdt_getprop(f->file.p, node, name, &len);

    if (!p || len != 4)
        return false;
    *ret = fdt32_ld(p);
    return true;
}

/* A property that is a string and ends in a NUL; NULL else. */
static const char *get_text(const struct fit *f, int node, const char *name)
{
    int len;
    const char *p = fdt_getprop(f->file.p, node, name, &len);

    return p && len > 0 && p[len - 1] == 0 ? p : NULL;
}

static int get_data(const struct fit *f, int node, const char *name, struct image *ret, struct err *err)
{
    int len;
    const uint8_t *p = fdt_getprop(f->file.p, node, "data", &len);
    uint32_t off, size;
    uint64_t at;

    if (p) {
        *ret = (struct image){.name = f->im->name, .size = (uint64_t)len, .mem = p, .fd = -1};
        return len > 0 ? 0 : err_set(err, EINVAL, "%s: image %s is empty", f->im->name, name);
    }
    if (!get_cell(f, node, "data-size", &size) || size == 0)
        return err_set(err, EINVAL, "%s: image %s has no data", f->im->name, name);
    if (get_cell(f, node, "data-position", &off))
        at = off;
    else if (get_cell(f, node, "data-offset", &off))
        at = align_up(fdt_totalsize(f->file.p), 4) + off;
    else
        return err_set(err, EINVAL, "%s: image %s has no data", f->im->name, name);
    if (!range_fits(at, size, f->im->size))
        return err_set(err, EINVAL,
                       "%s: truncated: image %s ends at %" PRIu64 ", the file has %" PRIu64 " bytes; copy it again",
                       f->im->name, name, at + size, f->im->size);
    *ret = (struct image){.name = f->im->name, .size = size, .mem = f->file.p + at, .fd = -1};
    return 0;
}

/* The digest's length; 0: an algorithm that we do not have. */
static size_t digest_of(const struct image *data, const char *algo, uint8_t digest[SHA512_DIGEST_SIZE])
{
    static const struct nettle_hash *const hashes[] = {&nettle_sha1, &nettle_sha256, &nettle_sha512};
    union {
        struct sha1_ctx sha1;
        struct sha256_ctx sha256;
        struct sha512_ctx sha512;
    } ctx;

    if (strcmp(algo, "crc32") == 0) {
        fdt32_st(digest, (uint32_t)crc32_z(0, data->mem, data->size));
        return sizeof(uint32_t);
    }
    for (size_t i = 0; i < array_len(hashes); i++) {
        if (strcmp(algo, hashes[i]->name) != 0)
            continue;
        hashes[i]->init(&ctx);
        hashes[i]->update(&ctx, data->size, data->mem);
        hashes[i]->digest(&ctx, hashes[i]->digest_size, digest);
        return hashes[i]->digest_size;
    }
    return 0;
}

/* All hashes that the image has; one that we cannot check is as good as a wrong one. */
static int check_hashes(const struct fit *f, int node, const char *name, const struct image *data, struct err *err)
{
    int sub;

    fdt_for_each_subnode(sub, f->file.p, node)
    {
        const char *sub_name = fdt_get_name(f->file.p, sub, NULL), *algo = get_text(f, sub, "algo");
        uint8_t digest[SHA512_DIGEST_SIZE];
        const void *value;
        size_t n;
        int len;

        if (!sub_name || strncmp(sub_name, "hash", 4) != 0)
            continue;
        n = algo ? digest_of(data, algo, digest) : 0;
        if (n == 0)
            return err_set(err, ENOTSUP, "%s: image %s has a hash of kind \"%s\"; build it with crc32, sha1 or sha256",
                           f->im->name, name, algo ? algo : "");
        value = fdt_getprop(f->file.p, sub, "value", &len);
        if (!value || (size_t)len != n || memcmp(value, digest, n) != 0)
            return err_set(err, EBADMSG, "%s: %s of image %s is wrong: the file is damaged; copy or build it again",
                           f->im->name, algo, name);
    }
    return 0;
}

/* The image that the configuration's property `role` names: 1; 0: it names none. */
static int get_image(const struct fit *f, int conf, const char *role, struct image *ret, int *node, struct err *err)
{
    const char *name = get_text(f, conf, role), *arch;
    int rc;

    if (!name)
        return 0;
    *node = fdt_subnode_offset(f->file.p, f->images, name);
    if (*node < 0)
        return err_set(err, EINVAL, "%s: the configuration's %s is \"%s\", and no image has that name", f->im->name,
                       role, name);
    arch = get_text(f, *node, "arch");
    if (arch && strcmp(arch, "x86_64") != 0 && strcmp(arch, "x86") != 0)
        return err_set(err, EINVAL, "%s: image %s is for %s; give one for x86_64", f->im->name, name, arch);
    rc = get_data(f, *node, name, ret, err);
    if (rc == 0)
        rc = check_hashes(f, *node, name, ret, err);
    return rc < 0 ? rc : 1;
}

/* Its node, or -errno. */
static int choose_configuration(const struct fit *f, struct err *err)
{
    int confs = fdt_path_offset(f->file.p, "/configurations"), conf;
    const char *name = confs < 0 ? NULL : get_text(f, confs, "default");

    if (confs < 0)
        return err_set(err, EINVAL, "%s: a FIT image without /configurations; build it with one", f->im->name);
    conf = name ? fdt_subnode_offset(f->file.p, confs, name) : fdt_first_subnode(f->file.p, confs);
    if (conf < 0)
        return err_set(err, EINVAL, "%s: its default configuration \"%s\" is not there", f->im->name, name ? name : "");
    return conf;
}

/* Decompresses where the image says that it is compressed; `ret` then owns the bytes, and `im` is made to be them. */
static int unpack(const struct fit *f, int node, struct image *im, struct buf *ret, struct err *err)
{
    const char *how = get_text(f, node, "compression");
    size_t len;
    int rc;

    if (!how || strcmp(how, "none") == 0)
        return 0;
    rc = payload_decompress(im->mem, im->size, FIT_UNPACKED_MAX, ret, &len);
    if (rc == -ENOTSUP)
        return err_set(err, ENOTSUP, "%s: kernel is compressed with %s, which this build does not have", f->im->name,
                       how);
    if (rc < 0 || len == 0)
        return err_set(err, EINVAL, "%s: kernel does not decompress (%s); build or copy it again", f->im->name, how);
    im->mem = ret->p;
    im->size = len;
    return 0;
}

static void fit_free(struct fit *f)
{
    buf_free(&f->file);
}

static int load(struct load *ld, const struct image *im, struct err *err)
{
    struct buf cleanup_buf unpacked = {0};
    struct fit __attribute__((cleanup(fit_free))) f = {0};
    struct image kernel, ramdisk;
    int conf, node, rc = open_fit(&f, im, err);

    if (rc < 0)
        return rc;
    conf = choose_configuration(&f, err);
    if (conf < 0)
        return conf;
    rc = get_image(&f, conf, "ramdisk", &ramdisk, &node, err);
    if (rc < 0)
        return rc;
    if (rc > 0) { /* in front of those given beside it, which may so add to it */
        memmove(&ld->initrds[1], &ld->initrds[0], ld->ninitrds * sizeof(ld->initrds[0]));
        ld->initrds[0] = ramdisk;
        ld->ninitrds++;
    }
    rc = get_image(&f, conf, "kernel", &kernel, &node, err);
    if (rc == 0)
        return err_set(err, EINVAL, "%s: its configuration names no kernel", im->name);
    if (rc > 0)
        rc = unpack(&f, node, &kernel, &unpacked, err);
    return rc < 0 ? rc : load_image(ld, &kernel, true, err);
}

const struct loader fit_loader = {.name = "FIT", .match = match, .load = load};
