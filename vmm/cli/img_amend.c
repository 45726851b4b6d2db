/* `bothy img amend`: other properties for an image that is there. */
#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct amend_opts {
    struct img_open open;
    struct opt_list options;
    bool quiet;
};

static const struct opt amend_opts[] = {
    IMG_OPEN_OPTIONS(struct amend_opts, open.),
    O_LIST(struct amend_opts, options, "options", "what to change, key=value,...; help lists what can be",
           .letter = 'o', .arg = "OPTIONS"),
    O_BOOL(struct amend_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

static int amend(struct blk *b, const struct opt_list *texts, struct err *err)
{
    struct qcow2_amend a = {0};
    int rc = 0;

    if (b->drv != &qcow2_driver)
        return err_set(err, ENOTSUP, "%s: only qcow2 images can be changed so, and this one is %s; convert it", b->name,
                       b->drv->name);
    opts_default(qcow2_amend_opts, &a);
    for (size_t i = 0; !rc && i < texts->n; i++) {
        rc = opts_parse(qcow2_amend_opts, &a, NULL, texts->v[i], err);
        if (rc)
            err_wrap(err, "-o %s", texts->v[i]);
    }
    if (!rc)
        rc = qcow2_amend(b, &a, err);
    opts_clear(qcow2_amend_opts, &a);
    return rc;
}

static int amend_run(struct cli_line *l, struct err *err)
{
    const struct amend_opts *o = l->opts;
    struct blk *b cleanup_blk = NULL;
    int rc;

    if (img_wants_help(&o->options)) {
        img_list_options("qcow2", qcow2_amend_opts);
        return 0;
    }
    rc = img_need(l, 1, err);
    if (!rc && !o->options.n)
        rc = err_set(err, EINVAL, "what is to be changed? say -o key=value; -o help lists what can be");
    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_WRITE | IMG_ALONE, &b, err);
    return rc ? rc : amend(b, &o->options, err);
}

const struct cli_verb img_amend = {
    .name = "img amend",
    .summary = "change an image's properties",
    .args = "FILE",
    .max_args = 1,
    .text =
        "What is not named stays as it is.  For another cluster size, width of refcounts or older version, convert the "
        "image to a new one.",
    .opts = amend_opts,
    .size = sizeof(struct amend_opts),
    .run = amend_run,
    .fail_code = 1,
};
