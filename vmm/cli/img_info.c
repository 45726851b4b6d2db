/* `bothy img info`: an image's format, size and properties; the one verb that goes by the header alone. */
#include <inttypes.h>
#include <sys/stat.h>

#include "devices/block/file.h"
#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct info_opts {
    struct img_open open;
    uint32_t output;
    bool chain;
};

static const struct opt info_opts[] = {
    IMG_OPEN_OPTIONS(struct info_opts, open.),
    IMG_OUTPUT(struct info_opts, output),
    O_BOOL(struct info_opts, chain, "backing-chain", "off", "tell about the images that it is based on, too"),
    O_END,
};

/* What a driver's info() may say besides its format's own properties: these are every image's. */
static const char *const common[] = {"snapshots", "backing-filename", "backing-filename-format", "dirty-flag",
                                     "encrypted"};

static void describe_qcow2(struct blk *b, json_t *j)
{
    cleanup_free char *format = qcow2_backing_format(b);
    json_t *snapshots = img_snapshots(b);

    if (snapshots)
        json_object_set_new(j, "snapshots", snapshots);
    if (qcow2_backing_name(b))
        json_object_set_new(j, "backing-filename", json_string(qcow2_backing_name(b)));
    if (qcow2_backing_name(b) && format)
        json_object_set_new(j, "backing-filename-format", json_string(format));
}

static const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

static json_t *describe(struct blk *b)
{
    json_t *j = json_object(), *own = b->drv->info ? b->drv->info(b) : NULL;
    uint32_t cluster = b->drv->cluster ? b->drv->cluster(b) : 0;
    char full[PATH_MAX];
    const char *name;
    struct stat st;
    struct err err;

    json_object_set_new(j, "virtual-size", json_integer((json_int_t)b->lim.size));
    json_object_set_new(j, "filename", json_string(b->name));
    if (cluster)
        json_object_set_new(j, "cluster-size", json_integer(cluster));
    json_object_set_new(j, "format", json_string(b->drv->name));
    if (!stat(b->name, &st))
        json_object_set_new(j, "actual-size", json_integer((json_int_t)st.st_blocks * 512));
    json_object_set_new(j, "dirty-flag", json_false());
    for (size_t i = 0; own && i < array_len(common); i++) {
        json_t *v = json_object_get(own, common[i]);

        if (v) {
            json_object_set(j, common[i], v);
            json_object_del(own, common[i]);
        }
    }
    if (b->drv == &qcow2_driver)
        describe_qcow2(b, j);
    name = text_of(j, "backing-filename");
    if (name && !img_beside(b->name, name, full, &err))
        json_object_set_new(j, "full-backing-filename", json_string(full));
    if (own && json_object_size(own))
        json_object_set_new(j, "format-specific", json_pack("{s:s, s:O}", "type", b->drv->name, "data", own));
    json_decref(own);
    return j;
}

static void print_value(const char *key, json_t *v, int indent)
{
    const char *k;
    json_t *each;
    size_t i;

    printf("%*s", indent, "");
    for (; *key; key++)
        putchar(*key == '-' ? ' ' : *key);
    if (json_is_object(v)) {
        puts(":");
        json_object_foreach(v, k, each) print_value(k, each, indent + 4);
    } else if (json_is_array(v)) {
        puts(":");
        json_array_foreach(v, i, each)
        {
            char number[24];

            snprintf(number, sizeof(number), "[%zu]", i);
            print_value(number, each, indent + 4);
        }
    } else if (json_is_string(v)) {
        printf(": %s\n", json_string_value(v));
    } else if (json_is_integer(v)) {
        printf(": %" JSON_INTEGER_FORMAT "\n", json_integer_value(v));
    } else {
        printf(": %s\n", json_is_true(v) ? "true" : "false");
    }
}

static void print_human(const json_t *j)
{
    uint64_t size = (uint64_t)json_integer_value(json_object_get(j, "virtual-size"));
    const json_t *actual = json_object_get(j, "actual-size"), *cluster = json_object_get(j, "cluster-size");
    const char *backing = text_of(j, "backing-filename"), *full = text_of(j, "full-backing-filename"), *key;
    json_t *own = json_object_get(json_object_get(j, "format-specific"), "data"), *v;
    char text[IMG_SIZE_TEXT];

    printf("image: %s\nfile format: %s\n", text_of(j, "filename"), text_of(j, "format"));
    printf("virtual size: %s (%" PRIu64 " bytes)\n", img_size_text(size, text), size);
    if (actual)
        printf("disk size: %s\n", img_size_text((uint64_t)json_integer_value(actual), text));
    if (json_is_true(json_object_get(j, "encrypted")))
        puts("encrypted: yes");
    if (cluster)
        printf("cluster_size: %" JSON_INTEGER_FORMAT "\n", json_integer_value(cluster));
    if (json_is_true(json_object_get(j, "dirty-flag")))
        puts("cleanly shut down: no");
    if (backing) {
        printf("backing file: %s", backing);
        if (full && strcmp(full, backing))
            printf(" (actual path: %s)", full);
        putchar('\n');
        if (text_of(j, "backing-filename-format"))
            printf("backing file format: %s\n", text_of(j, "backing-filename-format"));
    }
    img_print_snapshots(json_object_get(j, "snapshots"));
    if (!own)
        return;
    puts("Format specific information:");
    json_object_foreach(own, key, v) print_value(key, v, 4);
}

/* The format that the header shows. */
static int probe(const char *path, bool share, const char **ret, struct err *err)
{
    const struct blk_open_opts o = {.read_only = true, .unlocked = share};
    struct blk *file cleanup_blk = NULL;
    const struct blk_driver *drv;
    int rc = file_open(path, path, &o, 0, NULL, &file, err);

    if (rc)
        return img_not_read(rc, err);
    rc = blk_probe(file, &drv);
    if (rc)
        return err_set(err, -rc, "read %s: %s", path, strerror(-rc));
    *ret = drv ? drv->name : "raw";
    return 0;
}

static int info_run(struct cli_line *l, struct err *err)
{
    struct info_opts *o = l->opts;
    struct img_open open = o->open;
    struct blk *b cleanup_blk = NULL;
    json_t *all;
    int rc = img_need(l, 1, err);

    if (!rc && !open.format && !open.image_opts)
        rc = probe(l->args[0], open.share, (const char **)&open.format, err);
    if (!rc)
        rc = img_open(l->args[0], &open, o->chain ? IMG_ABOUT : IMG_ABOUT | IMG_ALONE, &b, err);
    if (rc)
        return rc;
    all = json_array();
    for (struct blk *each = b; each; each = each->backing)
        json_array_append_new(all, describe(each));
    if (o->output == IMG_JSON) {
        img_print_json(o->chain ? json_incref(all) : json_incref(json_array_get(all, 0)));
    } else {
        size_t i;
        json_t *j;

        json_array_foreach(all, i, j)
        {
            if (i)
                putchar('\n');
            print_human(j);
        }
    }
    json_decref(all);
    return 0;
}

const struct cli_verb img_info = {
    .name = "img info",
    .summary = "tell about an image",
    .args = "FILE",
    .max_args = 1,
    .text =
        "Reads only, and goes by the image's header when -f names no format: what it calls qcow2, say, is opened as "
        "such elsewhere only when the name ends so or -f says so.",
    .opts = info_opts,
    .size = sizeof(struct info_opts),
    .run = info_run,
    .fail_code = 1,
};
