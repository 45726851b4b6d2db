/* `bothy img snapshot`: the states of the disk that are kept inside the image. */
#include <inttypes.h>
#include <time.h>

#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/cli/img.h"

struct snapshot_opts {
    struct img_open open;
    char *apply, *create, *remove;
    bool list, quiet;
};

static const struct opt snapshot_opts[] = {
    IMG_OPEN_OPTIONS(struct snapshot_opts, open.),
    O_BOOL(struct snapshot_opts, list, "list", "off", "list what there is, which is also what no option does",
           .letter = 'l'),
    O_STR(struct snapshot_opts, create, "create", NULL, "keep the state of now under a name", .letter = 'c',
          .arg = "NAME"),
    O_STR(struct snapshot_opts, apply, "apply", NULL, "go back to a state; what was not kept is lost", .letter = 'a',
          .arg = "NAME"),
    O_STR(struct snapshot_opts, remove, "delete", NULL, "drop a state", .letter = 'd', .arg = "NAME"),
    O_BOOL(struct snapshot_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

json_t *img_snapshots(struct blk *b)
{
    const struct qcow2_snapshot *s;
    json_t *list;
    unsigned n;

    if (b->drv != &qcow2_driver)
        return NULL;
    s = qcow2_snapshots(b, &n);
    list = n ? json_array() : NULL;
    for (unsigned i = 0; i < n; i++) {
        json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s[i].id, "name", s[i].name, "vm-state-size",
                              (json_int_t)s[i].vm_size, "date-sec", (json_int_t)s[i].sec, "date-nsec",
                              (json_int_t)s[i].nsec, "vm-clock-sec", (json_int_t)(s[i].vm_clock / NS_PER_SEC),
                              "vm-clock-nsec", (json_int_t)(s[i].vm_clock % NS_PER_SEC));

        if (s[i].icount != UINT64_MAX)
            json_object_set_new(j, "icount", json_integer((json_int_t)s[i].icount));
        json_array_append_new(list, j);
    }
    return list;
}

static uint64_t number(const json_t *snapshot, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(snapshot, key));
}

void img_print_snapshots(const json_t *list)
{
    const json_t *s;
    size_t i;

    if (!json_array_size(list))
        return;
    printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    json_array_foreach(list, i, s)
    {
        uint64_t clock = number(s, "vm-clock-sec");
        time_t when = (time_t)number(s, "date-sec");
        char size[IMG_SIZE_TEXT], date[32], run[40], icount[24] = "";
        struct tm tm;

        localtime_r(&when, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(run, sizeof(run), "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, clock / 3600,
                 clock / 60 % 60, clock % 60, number(s, "vm-clock-nsec") / 1000000);
        if (json_object_get(s, "icount"))
            snprintf(icount, sizeof(icount), "%" PRIu64, number(s, "icount"));
        printf("%-9s %-16s %8s%20s%13s%11s\n", json_string_value(json_object_get(s, "id")),
               json_string_value(json_object_get(s, "name")), img_size_text(number(s, "vm-state-size"), size), date,
               run, icount);
    }
}

static int snapshot(struct blk *b, const struct snapshot_opts *o, struct err *err)
{
    json_t *list;

    if (b->drv != &qcow2_driver)
        return err_set(err, ENOTSUP, "%s: only qcow2 images keep snapshots, and this one is %s", b->name, b->drv->name);
    if (o->create)
        return qcow2_snapshot_create(b, o->create, err);
    if (o->apply)
        return qcow2_snapshot_apply(b, o->apply, err);
    if (o->remove)
        return qcow2_snapshot_delete(b, o->remove, err);
    list = img_snapshots(b);
    if (!o->quiet)
        img_print_snapshots(list);
    json_decref(list);
    return 0;
}

static int snapshot_run(struct cli_line *l, struct err *err)
{
    const struct snapshot_opts *o = l->opts;
    int changes = !!o->create + !!o->apply + !!o->remove;
    struct blk *b cleanup_blk = NULL;
    int rc = img_need(l, 1, err);

    if (!rc && changes + o->list > 1)
        rc = err_set(err, EINVAL, "one of -l, -c, -a and -d at a time");
    if (!rc)
        rc = img_open(l->args[0], &o->open, (changes ? IMG_WRITE : IMG_READ) | IMG_ALONE | IMG_ABOUT, &b, err);
    return rc ? rc : snapshot(b, o, err);
}

const struct cli_verb img_snapshot = {
    .name = "img snapshot",
    .summary = "keep, list, go back to and drop states of a disk",
    .args = "FILE",
    .max_args = 1,
    .text =
        "The states are kept inside the image, which must be qcow2 and not in use.  `bothy img convert -l NAME` copies "
        "one out of it.",
    .opts = snapshot_opts,
    .size = sizeof(struct snapshot_opts),
    .run = snapshot_run,
    .fail_code = 1,
};
