/* `bothy img amend`: other properties for an image that is there. */
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct amend_opts {
    struct img_open open;
    struct opt_list options;
    bool quiet, force;
};

static const struct opt amend_opts[] = {
    IMG_OPEN_OPTIONS(struct amend_opts, open.),
    O_LIST(struct amend_opts, options, "options", "what to change, key=value,...; help lists what can be",
           .letter = 'o', .arg = "OPTIONS"),
    O_BOOL(struct amend_opts, force, "force", "off", "take out the last key, too, after which nothing opens the image"),
    O_BOOL(struct amend_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

static int amend(struct blk *b, const struct amend_opts *o, struct err *err)
{
    const struct blk_driver *drv = b->drv;
    cleanup_free void *opts = xcalloc(1, drv->amend_size + 1);
    struct blk_keys keys cleanup_keys = {0};
    int rc;

    if (!drv->amend)
        return err_set(err, ENOTSUP, "%s: only qcow2 and luks images can be changed so, and this one is %s; convert it",
                       b->name, drv->name);
    rc = img_keys(&o->open.objects, &keys, err);
    opts_default(drv->amend_opts, opts);
    for (size_t i = 0; !rc && i < o->options.n; i++) {
        rc = opts_parse(drv->amend_opts, opts, NULL, o->options.v[i], err);
        if (rc)
            err_wrap(err, "-o %s", o->options.v[i]);
    }
    if (!rc)
        rc = drv->amend(b, opts, &keys, o->force, err);
    opts_clear(drv->amend_opts, opts);
    return rc;
}

static int amend_run(struct cli_line *l, struct err *err)
{
    const struct amend_opts *o = l->opts;
    const struct blk_driver *drv;
    struct blk *b cleanup_blk = NULL;
    int rc;

    if (img_wants_help(&o->options)) {
        drv = blk_driver_find(o->open.format ? o->open.format : "qcow2");
        if (!drv || !drv->amend)
            return img_bad_format(o->open.format, err);
        img_list_options(drv->name, drv->amend_opts);
        return 0;
    }
    rc = img_need(l, 1, err);
    if (!rc && !o->options.n)
        rc = err_set(err, EINVAL, "what is to be changed? say -o key=value; -o help lists what can be");
    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_WRITE | IMG_ALONE | IMG_ABOUT, &b, err);
    return rc ? rc : amend(b, o, err);
}

const struct cli_verb img_amend = {
    .name = "img amend",
    .summary = "change an image's properties",
    .args = "FILE",
    .max_args = 1,
    .text =
        "What is not named stays as it is.  The keys of an encrypted image: encrypt.state=active,encrypt.new-secret=ID "
        "adds one, encrypt.state=inactive,encrypt.old-secret=ID takes one out (state=... for a luks image).  For "
        "another cluster size, width of refcounts or older version, convert the "
        "image to a new one.",
    .opts = amend_opts,
    .size = sizeof(struct amend_opts),
    .run = amend_run,
    .fail_code = 1,
};
