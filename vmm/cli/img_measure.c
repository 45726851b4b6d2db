/* `bothy img measure`: how large a new image's file would be. */
#include <inttypes.h>

#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct measure_opts {
    struct img_open open;
    char *out_format, *snapshot, *size;
    struct opt_list options;
    uint32_t output;
};

static const struct opt measure_opts[] = {
    IMG_OPEN_OPTIONS(struct measure_opts, open.),
    IMG_OUTPUT(struct measure_opts, output),
    O_STR(struct measure_opts, out_format, "out-format", "raw", "the new image's format", .letter = 'O',
          .arg = "FORMAT"),
    O_LIST(struct measure_opts, options, "options", "its options, key=value,...; help lists them", .letter = 'o',
           .arg = "OPTIONS"),
    O_STR(struct measure_opts, size, "size", NULL, "of an empty disk of this size", .arg = "SIZE"),
    O_STR(struct measure_opts, snapshot, "snapshot", NULL, "of the state of that ID or name", .letter = 'l',
          .arg = "SNAPSHOT"),
    O_END,
};

/* Bytes that hold data, in units of what the new image allocates at a time. */
static int count_data(struct blk *b, uint64_t unit, uint64_t *ret, struct err *err)
{
    uint64_t sum = 0, counted = 0; /* everything below `counted` */
    struct img_part p;

    for (uint64_t off = 0; off < b->lim.size; off += p.len) {
        int rc = img_part(b, off, b->lim.size - off, 0, &p);
        uint64_t start, end;

        if (rc)
            return img_io_failed(b, off, rc, err);
        if (p.place != BLK_AT)
            continue;
        start = max_u64(align_down(off, unit), counted);
        end = align_up(off + p.len, unit);
        if (end > start) {
            sum += end - start;
            counted = end;
        }
    }
    *ret = sum;
    return 0;
}

struct sizes { /* bytes */
    uint64_t required, full, bitmaps;
    bool has_bitmaps; /* the source's format knows such */
};

/* What copies of the source's bitmaps need [QEMU docs/interop/qcow2.txt, "Bitmaps extension"]. */
static void count_bitmaps(struct blk *b, uint64_t cluster, struct sizes *ret)
{
    json_t *info = b->drv == &qcow2_driver ? b->drv->info(b) : NULL;
    const char *compat = json_string_value(json_object_get(info, "compat"));
    struct qcow2_bitmap_info m;
    uint64_t dir = 0;

    ret->has_bitmaps = compat && strcmp(compat, "0.10");
    json_decref(info);
    for (unsigned i = 0; ret->has_bitmaps && qcow2_bitmap_get(b, i, &m); i++) {
        uint64_t bytes = align_up(align_up(b->lim.size, m.granularity) / m.granularity, 8) / 8;
        uint64_t clusters = align_up(bytes, cluster) / cluster;

        ret->bitmaps += clusters * cluster + align_up(clusters * 8, cluster);
        dir += align_up(24 + strlen(m.name), 8);
    }
    ret->bitmaps += align_up(dir, cluster);
}

static int measure(struct cli_line *l, const struct img_new *n, struct sizes *ret, struct err *err)
{
    const struct measure_opts *o = l->opts;
    struct img_open open = o->open;
    struct blk *b cleanup_blk = NULL;
    cleanup_free char *options = NULL;
    uint64_t size = 0, data = 0, unit = 1, overhead = 0;
    int rc = 0;

    if (!o->size == !l->nargs)
        return err_set(err, EINVAL, "what to measure? name an image, or say --size SIZE, and not both");
    if (o->snapshot)
        open.options = options = img_option("snapshot-name", o->snapshot);
    if (o->size)
        rc = img_parse_size(o->size, &size, err);
    else
        rc = img_open(l->args[0], &open, IMG_READ | IMG_ABOUT, &b, err);
    if (rc)
        return rc;
    if (b)
        size = b->lim.size;
    if (n->drv->overhead)
        rc = n->drv->overhead(size, n->opts, &overhead, &unit, err);
    else if (strcmp(n->drv->name, "raw"))
        rc = err_set(err, ENOTSUP, "how large images of format %s get is not known beforehand; ask for raw or qcow2",
                     n->drv->name);
    if (!rc && b)
        rc = count_data(b, unit, &data, err);
    if (!rc && b && n->drv == &qcow2_driver)
        count_bitmaps(b, unit, ret);
    ret->full = align_up(size, unit) + overhead;
    ret->required = n->drv->overhead ? data + overhead : size;
    return rc;
}

static int measure_run(struct cli_line *l, struct err *err)
{
    const struct measure_opts *o = l->opts;
    struct img_new n = {0};
    struct sizes s = {0};
    int rc = img_new_init(&n, o->out_format, "", err);

    if (!rc)
        rc = img_new_options(&n, &o->options, err);
    if (!rc)
        rc = measure(l, &n, &s, err);
    img_new_fini(&n);
    if (rc)
        return rc > 0 ? 0 : rc; /* help was asked for */
    if (o->output == IMG_JSON) {
        json_t *j = json_pack("{s:I, s:I}", "required", (json_int_t)s.required, "fully-allocated", (json_int_t)s.full);

        if (s.has_bitmaps)
            json_object_set_new(j, "bitmaps", json_integer((json_int_t)s.bitmaps));
        img_print_json(j);
        return 0;
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", s.required, s.full);
    if (s.has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", s.bitmaps);
    return 0;
}

const struct cli_verb img_measure = {
    .name = "img measure",
    .summary = "tell how large a file a new image would need",
    .args = "[FILE]",
    .max_args = 1,
    .text = "`required` with what the image holds now, `fully allocated` when the guest has written everywhere.",
    .opts = measure_opts,
    .size = sizeof(struct measure_opts),
    .run = measure_run,
    .fail_code = 1,
};
