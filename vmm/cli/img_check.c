/* `bothy img check`: is the image's metadata consistent? */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct check_opts {
    struct img_open open;
    uint32_t output, repair;
    bool quiet;
};

static const char *const repair_words[] = {
    [BLK_FIX_NONE] = "none", [BLK_FIX_LEAKS] = "leaks", [BLK_FIX_ALL] = "all", NULL};

static const struct opt check_opts[] = {
    IMG_OPEN_OPTIONS(struct check_opts, open.),
    IMG_OUTPUT(struct check_opts, output),
    O_ENUM(struct check_opts, repair, "repair", "none", repair_words,
           "what to mend: clusters that nothing uses, or all that can be", .letter = 'r'),
    O_BOOL(struct check_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

enum { EXIT_NOT_CHECKED = 1, EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_NO_CHECKS = 63 }; /* qemu-img(1) */

static void print_json(const struct blk *b, const struct blk_check *c)
{
    const struct {
        const char *key;
        uint64_t value;
        bool always;
    } rows[] = {
        {"image-end-offset", c->end},
        {"total-clusters", c->total},
        {"allocated-clusters", c->allocated},
        {"fragmented-clusters", c->fragmented},
        {"compressed-clusters", c->compressed},
        {"corruptions", c->corruptions},
        {"corruptions-fixed", c->corruptions_fixed},
        {"leaks", c->leaks},
        {"leaks-fixed", c->leaks_fixed},
        {"check-errors", c->failures, true},
    };
    json_t *j = json_pack("{s:s, s:s}", "filename", b->name, "format", b->drv->name);

    for (size_t i = 0; i < array_len(rows); i++)
        if (rows[i].value || rows[i].always)
            json_object_set_new(j, rows[i].key, json_integer((json_int_t)rows[i].value));
    img_print_json(j);
}

static void print_human(const struct blk_check *c)
{
    if (c->leaks_fixed || c->corruptions_fixed)
        printf("The following inconsistencies were found and repaired:\n\n    %" PRIu64 " leaked clusters\n    %" PRIu64
               " corruptions\n\n",
               c->leaks_fixed, c->corruptions_fixed);
    if (!c->corruptions && !c->leaks && !c->failures)
        printf("No errors were found on the image.\n");
    if (c->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\nData may be corrupted, or further writes to the image "
               "may corrupt it.\n",
               c->corruptions);
    if (c->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\nThis means waste of disk space, but no harm to "
               "data.\n",
               c->leaks);
    if (c->failures)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", c->failures);
    if (c->total && c->allocated)
        printf("%" PRIu64 "/%" PRIu64 " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
               c->allocated, c->total, (double)c->allocated * 100 / (double)c->total,
               (double)c->fragmented * 100 / (double)c->allocated, (double)c->compressed * 100 / (double)c->allocated);
    if (c->end)
        printf("Image end offset: %" PRIu64 "\n", c->end);
}

/* Mends, and looks once more at what was mended. */
static int check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err)
{
    uint64_t corruptions, leaks;
    int rc = b->drv->check(b, fix, ret, err);

    corruptions = ret->corruptions_fixed;
    leaks = ret->leaks_fixed;
    if (rc || !(corruptions || leaks))
        return rc;
    *ret = (struct blk_check){0};
    rc = b->drv->check(b, BLK_FIX_NONE, ret, err);
    ret->corruptions_fixed = corruptions;
    ret->leaks_fixed = leaks;
    return rc;
}

static int check_run(struct cli_line *l, struct err *err)
{
    const struct check_opts *o = l->opts;
    struct img_open open = o->open;
    struct blk *b cleanup_blk = NULL;
    struct blk_check c = {0};
    int rc = img_need(l, 1, err);

    if (!rc)
        rc = img_open(l->args[0], &open, (o->repair ? IMG_WRITE : IMG_READ) | IMG_ALONE | IMG_DAMAGED | IMG_ABOUT, &b,
                      err);
    if (rc)
        return rc;
    if (!b->drv->check) {
        fprintf(stderr, "bothy img check: %s: images of format %s have nothing that could be checked\n", b->name,
                b->drv->name);
        return EXIT_NO_CHECKS;
    }
    rc = check(b, o->repair, &c, err);
    if (rc)
        return err_wrap(err, "%s", b->name);
    if (o->output == IMG_JSON)
        print_json(b, &c);
    else if (!o->quiet)
        print_human(&c);
    return c.failures ? EXIT_NOT_CHECKED : c.corruptions ? EXIT_CORRUPT : c.leaks ? EXIT_LEAKS : 0;
}

const struct cli_verb img_check = {
    .name = "img check",
    .summary = "look for damage in an image, and mend it",
    .args = "FILE",
    .max_args = 1,
    .text =
        "Ends with 0 when all is well, 2 when the image is damaged, 3 when it only has clusters that nothing uses, 63 "
        "for formats that have nothing to check, and 1 when the check failed.  Without -r nothing is written.",
    .opts = check_opts,
    .size = sizeof(struct check_opts),
    .run = check_run,
    .fail_code = EXIT_NOT_CHECKED,
};
