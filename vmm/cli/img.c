/* `bothy img`: disk images, made, looked at, converted and mended; qemu-img's verbs and letters. */
#include "vmm/cli/img.h"

#include <inttypes.h>

#include "vmm/base/cleanup.h"

const char *const img_cache_words[] = {[BLK_CACHE_WRITEBACK] = "writeback",
                                       [BLK_CACHE_NONE] = "none",
                                       [BLK_CACHE_WRITETHROUGH] = "writethrough",
                                       [BLK_CACHE_UNSAFE] = "unsafe",
                                       NULL};
const char *const img_output_words[] = {[IMG_HUMAN] = "human", [IMG_JSON] = "json", NULL};

static const struct cli_verb *const img_verbs[] = {
    &img_info,     &img_create, &img_convert, &img_check,  &img_map,   &img_compare, &img_resize, &img_measure, &img_dd,
    &img_snapshot, &img_rebase, &img_commit,  &img_bitmap, &img_amend, &img_bench,   &img_replay, NULL,
};

const struct cli_verb verb_img = {
    .name = "img",
    .summary = "make, look at, convert and mend disk images",
    .text = "The verbs, their letters and what they print are qemu-img's.  An image's format is what -f says, or else "
            "what the ending of its name says, and its header must agree; only info goes by the header alone.",
    .verbs = img_verbs,
};

int img_need(const struct cli_line *l, unsigned n, struct err *err)
{
    if (l->nargs >= n)
        return 0;
    return err_set(err, EINVAL, "%s missing; write: bothy %s %s", l->nargs ? "an argument is" : "the image's name is",
                   l->verb->name, l->verb->args);
}

/* QEMU's object "secret". */
struct secret {
    char *type, *id, *data, *file;
};
static const struct opt secret_opts[] = {
    O_STR(struct secret, type, "qom-type", NULL, "secret"),
    O_STR(struct secret, id, "id", NULL, "what options call it"),
    O_STR(struct secret, data, "data", NULL, "the key"),
    O_STR(struct secret, file, "file", NULL, "file with the key"),
    O_END,
};

static int add_key(const struct secret *s, struct blk_keys *keys, struct err *err)
{
    if (!s->type || strcmp(s->type, "secret"))
        return err_set(err, ENOTSUP, "there are objects of type secret only; write secret,id=ID,file=FILE");
    if (!s->id || !s->data == !s->file)
        return err_set(err, EINVAL, "a secret has an id= and either file= or data=; write secret,id=ID,file=FILE");
    return s->file ? blk_keys_add_file(keys, s->id, s->file, err)
                   : blk_keys_add(keys, s->id, s->data, strlen(s->data), err);
}

int img_keys(const struct opt_list *objects, struct blk_keys *ret, struct err *err)
{
    int rc = 0;

    *ret = (struct blk_keys){0};
    for (size_t i = 0; !rc && i < objects->n; i++) {
        struct secret s = {0};

        rc = opts_parse(secret_opts, &s, "qom-type", objects->v[i], err);
        if (!rc)
            rc = add_key(&s, ret, err);
        if (rc)
            rc = err_wrap(err, "--object");
        opts_clear(secret_opts, &s);
    }
    return rc;
}

/* What --image-opts names an image by: the words of QEMU's that people use for files. */
struct image_words {
    char *driver, *filename, *file_filename, *file_driver, *secret, *luks_secret;
};
static const struct opt image_words[] = {
    O_STR(struct image_words, driver, "driver", NULL, "its format"),
    O_STR(struct image_words, filename, "filename", NULL, "its file"),
    O_STR(struct image_words, file_filename, "file.filename", NULL, "its file"),
    O_STR(struct image_words, file_driver, "file.driver", NULL, "file"),
    O_STR(struct image_words, secret, "key-secret", NULL, "the id of its key"),
    O_STR(struct image_words, luks_secret, "encrypt.key-secret", NULL, "the id of its key"),
    O_END,
};

static int check_words(const struct image_words *w, const struct blk_keys *keys, struct err *err)
{
    const char *secret = w->secret ? w->secret : w->luks_secret;

    if (!w->filename == !w->file_filename)
        return err_set(err, EINVAL, "which file? write driver=FORMAT,file.filename=FILE");
    if (w->file_driver && strcmp(w->file_driver, "file"))
        return err_set(err, ENOTSUP, "file.driver=%s: only files are opened, no protocols", w->file_driver);
    if (secret && !blk_keys_find(keys, secret))
        return err_set(err, EINVAL, "no key has the id \"%s\"; give it by --object secret,id=%s,file=FILE", secret,
                       secret);
    return 0;
}

int img_not_read(int rc, struct err *err)
{
    struct err why;

    if (rc != -EAGAIN)
        return rc;
    why = *err;
    return err_set(err, EAGAIN, "%s; or say -U to read it though it may change meanwhile", why.msg);
}

static int open_path(const char *path, const struct img_open *o, const struct blk_keys *keys, unsigned mode,
                     struct blk **ret, struct err *err)
{
    const struct blk_driver *drv = o->format ? blk_driver_find(o->format) : img_by_ending(path);
    struct blk_open_opts opts = {.format = o->format,
                                 .options = o->options,
                                 .allow = o->allow,
                                 .cache = o->cache,
                                 .unlocked = o->share,
                                 .read_only = !(mode & IMG_WRITE),
                                 .fresh = mode & IMG_FRESH,
                                 .no_backing = mode & IMG_ALONE,
                                 .keys = keys,
                                 .keyless = mode & IMG_ABOUT};
    int rc;

    /* Of drivers that have such an option.  The name alone says which is asked where -f does not. */
    if (mode & IMG_DAMAGED && drv && drv->opts && opts_find(drv->opts, "repair"))
        opts.options = "repair";
    if (o->format && !blk_driver_find(o->format))
        return img_bad_format(o->format, err);
    rc = blk_open(path, &opts, NULL, NULL, ret, err);
    return mode & IMG_WRITE ? rc : img_not_read(rc, err);
}

int img_open(const char *path, const struct img_open *o, unsigned mode, struct blk **ret, struct err *err)
{
    struct blk_keys keys cleanup_keys = {0};
    struct img_open open = *o;
    struct image_words w = {0};
    int rc = img_keys(&o->objects, &keys, err);

    if (rc || !o->image_opts)
        return rc ? rc : open_path(path, o, &keys, mode, ret, err);
    rc = opts_parse(image_words, &w, NULL, path, err);
    if (!rc)
        rc = check_words(&w, &keys, err);
    if (rc) {
        rc = err_wrap(err, "--image-opts");
    } else {
        open.format = w.driver ? w.driver : open.format;
        rc = open_path(w.filename ? w.filename : w.file_filename, &open, &keys, mode, ret, err);
    }
    opts_clear(image_words, &w);
    return rc;
}

int img_beside(const char *path, const char *name, char ret[PATH_MAX], struct err *err)
{
    const char *slash = *name == '/' ? NULL : strrchr(path, '/');
    int dir = slash ? (int)(slash - path) + 1 : 0;

    if (snprintf(ret, PATH_MAX, "%.*s%s", dir, path, name) >= PATH_MAX)
        return err_set(err, ENAMETOOLONG, "%s: more than %d bytes of path", name, PATH_MAX - 1);
    return 0;
}

char *img_option(const char *name, const char *value)
{
    char *text = xcalloc(1, strlen(name) + 2 * strlen(value) + 2), *p = text + sprintf(text, "%s=", name);

    for (; *value; *p++ = *value++)
        if (*value == ',')
            *p++ = ',';
    return text;
}

int img_io_failed(const struct blk *b, uint64_t off, int rc, struct err *err)
{
    return err_set(err, -rc, "%s, at byte %" PRIu64 ": %s", b->name, off, strerror(-rc));
}

enum { SECTOR = 512 };

int img_parse_size(const char *text, uint64_t *ret, struct err *err)
{
    uint64_t size;
    int rc = parse_size(text, &size);

    if (rc == -EINVAL)
        return err_set(err, EINVAL, "\"%s\" is not a size; write 512M or 10G", text);
    if (rc || size > INT64_MAX - SECTOR)
        return err_set(err, EFBIG, "%s is larger than any disk; the most is 8E less a sector", text);
    *ret = align_up(size, SECTOR);
    return 0;
}

const char *img_size_text(uint64_t bytes, char buf[IMG_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    while (v >= 1000 && i < array_len(units) - 1) {
        v /= 1024;
        i++;
    }
    snprintf(buf, IMG_SIZE_TEXT, "%.3g %s", v, units[i]);
    return buf;
}

void img_print_json(json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(j);
}
