/* `bothy img create`: an empty image, or one that starts as another's contents. */
#include <inttypes.h>
#include <limits.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct create_opts {
    char *format, *backing, *backing_format, *allow;
    struct opt_list options, objects;
    bool unchecked, quiet;
};

static const struct opt create_opts[] = {
    IMG_FORMAT(struct create_opts, format, "format", 'f'),
    O_LIST(struct create_opts, options, "options", "the format's options, key=value,...; help lists them",
           .letter = 'o', .arg = "OPTIONS"),
    O_STR(struct create_opts, backing, "backing", NULL, "image whose contents it starts with, relative to its folder",
          .letter = 'b', .arg = "FILE"),
    O_STR(struct create_opts, backing_format, "backing-format", NULL, "that image's format", .letter = 'F',
          .arg = "FORMAT"),
    O_STR(struct create_opts, allow, "allow", NULL,
          "where that image may lie besides the new one's own folder; ':' in between", .arg = "DIRS"),
    IMG_OBJECTS(struct create_opts, objects),
    O_BOOL(struct create_opts, unchecked, "unsafe", "off", "do not look at the backing image", .letter = 'u'),
    O_BOOL(struct create_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

/* Opens the image that is to be below, for its size and, where none is given, its format. */
static int look_at_backing(const char *path, struct create_opts *o, uint64_t *size, struct err *err)
{
    struct img_open open = {.format = o->backing_format, .allow = o->allow, .share = true};
    struct blk *b cleanup_blk = NULL;
    char full[PATH_MAX];
    int rc = img_beside(path, o->backing, full, err);

    if (!rc)
        rc = img_open(full, &open, IMG_READ | IMG_ABOUT, &b, err);
    if (rc)
        return err_wrap(err, "backing image");
    *size = b->lim.size;
    if (!o->backing_format)
        o->backing_format = xstrdup(b->drv->name);
    return 0;
}

/* "Formatting 'a.qcow2', fmt=qcow2 cluster_size=64K size=…", as qemu-img begins. */
static void say(const char *path, const struct img_new *n, uint64_t size)
{
    printf("Formatting '%s', fmt=%s size=%" PRIu64, path, n->drv->name, size);
    for (const struct opt *o = n->drv->create_opts; o && o->name; o++) {
        char buf[IMG_VALUE];
        const char *v = o->kind == OPT_LIST ? NULL : opts_get(o, n->opts, buf, sizeof(buf));

        if (v && (!o->dflt || strcmp(v, o->dflt)))
            printf(" %s=%s", o->name, v);
    }
    putchar('\n');
}

static int create(struct cli_line *l, struct img_new *n, struct err *err)
{
    struct create_opts *o = l->opts;
    const char *path = l->args[0];
    uint64_t size = 0;
    bool known = l->nargs == 2;
    struct img_target t;
    int rc = 0;

    if (o->backing_format && !o->backing)
        return err_set(err, EINVAL, "a backing format without a backing image; name that with -b FILE");
    if (o->backing && !o->unchecked) {
        rc = look_at_backing(path, o, &size, err);
        known = true;
    }
    if (!rc && o->backing)
        rc = img_new_backing(n, o->backing, o->backing_format, err);
    if (!rc && l->nargs == 2)
        rc = img_parse_size(l->args[1], &size, err);
    if (!rc)
        rc = img_new_options(n, &o->options, err);
    if (rc)
        return rc > 0 ? 0 : rc;
    if (!known)
        return err_set(err, EINVAL, "how large? write: bothy img create %s 10G", path);
    rc = img_target_create(&t, path, n, &o->objects, size, err);
    if (!rc)
        rc = img_target_done(&t, err);
    if (!rc && !o->quiet)
        say(path, n, size);
    img_target_fini(&t);
    return rc;
}

static int create_run(struct cli_line *l, struct err *err)
{
    struct create_opts *o = l->opts;
    struct img_new n = {0};
    int rc = l->nargs || !img_wants_help(&o->options) ? img_need(l, 1, err) : 0;

    if (!rc)
        rc = img_new_init(&n, o->format, l->nargs ? l->args[0] : "", err);
    if (!rc)
        rc = create(l, &n, err);
    img_new_fini(&n);
    return rc;
}

const struct cli_verb img_create = {
    .name = "img create",
    .summary = "make an empty image, or one on top of another",
    .args = "FILE [SIZE]",
    .max_args = 2,
    .text =
        "  bothy img create disk.qcow2 10G\n"
        "  bothy img create -b base.qcow2 overlay.qcow2\n\n"
        "An image that has the name is replaced when the new one is whole.  With -b the size is that image's unless "
        "one is given; that image must not be written to any more.",
    .opts = create_opts,
    .size = sizeof(struct create_opts),
    .run = create_run,
    .fail_code = 1,
};
