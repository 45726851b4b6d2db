#include "firmware/load/loader.h"

#include <inttypes.h>

enum { INITRD_PART_ALIGN = 4 }; /* between archives Linux skips zeroes up to a multiple of 4 */

int ram_short(const struct load *ld, const char *name, uint64_t need, struct err *err)
{
    need = align_up(need, MiB(1)) >> 20;
    return err_set(err, ENOMEM,
                   "%s: does not fit into %" PRIu64 " MiB of guest RAM, needs about %" PRIu64
                   " MiB with what else is loaded; give at least -m %" PRIu64 "M",
                   name, gmem_size(ld->mem) >> 20, need, need);
}

int initrd_load(struct load *ld, const struct image *im, unsigned n, uint64_t end, bool high, uint64_t below,
                struct blob_at *ret, struct err *err)
{
    struct want w = {.align = 4096, .min = below, .end = min_u64(end, GMEM_LOW_MAX)};
    uint64_t slots, pos = 0;
    gpa_t base;
    int rc;

    for (unsigned i = 0; i < n; i++) {
        w.size = align_up(w.size, INITRD_PART_ALIGN);
        if (im[i].size > GiB(1024) || __builtin_add_overflow(w.size, im[i].size, &w.size))
            return err_set(err, EFBIG, "initrd %s: no guest has that much RAM", im[i].name);
    }
    if (w.size == 0) {
        *ret = (struct blob_at){0};
        return 0;
    }
    slots = room_slots(&ld->room, &w);
    if (slots == 0 && high) {
        w.min = GMEM_HIGH_BASE;
        w.end = UINT64_MAX;
        slots = room_slots(&ld->room, &w);
    }
    if (slots == 0 && !high && below + w.size > w.end)
        return err_set(err, EFBIG, "initrd %s: %" PRIu64 " MiB; this kernel takes %" PRIu64 " MiB at most", im->name,
                       w.size >> 20, (w.end - below) >> 20);
    if (slots == 0) /* the odd MiB: holes and the board's tables */
        return ram_short(ld, im->name, below + w.size + MiB(2), err);
    base = room_slot(&ld->room, &w, slots - 1);
    for (unsigned i = 0; i < n; i++) {
        pos = align_up(pos, INITRD_PART_ALIGN);
        rc = image_to_guest(&im[i], 0, ld->mem, base + pos, im[i].size, err);
        if (rc < 0)
            return err_wrap(err, "initrd");
        pos += im[i].size;
    }
    room_take(&ld->room, base, w.size);
    *ret = (struct blob_at){.base = base, .size = w.size};
    return 0;
}
