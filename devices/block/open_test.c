#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* A folder for each test, with files in it; names are relative to it. */
static char home[64];

static int setup(void **s)
{
    (void)s;
    strcpy(home, "/tmp/bothy-open-XXXXXX");
    return !mkdtemp(home) || chdir(home);
}

static int teardown(void **s)
{
    char command[128];

    (void)s;
    snprintf(command, sizeof(command), "rm -r %s", home);
    return chdir("/") || system(command);
}

static void make(const char *path, const char *head, uint64_t size)
{
    cleanup_fd int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, head, strlen(head), 0), strlen(head));
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static struct blk *open_ok(const char *path, const struct blk_open_opts *o)
{
    struct blk *b;
    struct err err;

    if (blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void open_refused(const char *path, const struct blk_open_opts *o, const char *word, const char *remedy)
{
    struct blk *b;
    struct err err;

    if (!blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s was opened", path);
    if (!strstr(err.msg, word) || !strstr(err.msg, remedy))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.msg, word, remedy);
}

static void names_decide_that_a_disk_is_raw(void **s)
{
    static const char *const paths[] = {"a.raw", "a.img", "a.IMG", "a.iso", "noending", "odd.ending", ".raw"};

    (void)s;
    for (size_t i = 0; i < array_len(paths); i++) {
        struct blk *b;

        make(paths[i], "", 4096);
        b = open_ok(paths[i], &(struct blk_open_opts){0});
        assert_string_equal(b->drv->name, "raw");
        assert_int_equal(b->lim.size, 4096);
        assert_int_equal(b->lim.read_only, !strcmp(paths[i], "a.iso"));
        blk_close(b);
    }
}

static void unknown_formats_and_options_are_refused(void **s)
{
    (void)s;
    make("a.raw", "", 4096);
    open_refused("a.raw", &(struct blk_open_opts){.format = "qcow9"}, "qcow9", "raw");
    open_refused("a.raw", &(struct blk_open_opts){.format = "file"}, "\"file\" is unknown", "raw");
    open_refused("a.raw", &(struct blk_open_opts){.options = "x=1"}, "raw", "x");
}

/* An empty image of 1 MiB, on top of `backing` unless that is NULL. */
static void create(const struct blk_driver *d, const char *path, const char *backing)
{
    cleanup_free void *opts = xcalloc(1, d->create_size);
    struct blk *file;
    struct err err;

    if (d->create_opts)
        opts_default(d->create_opts, opts);
    if (backing && (opts_set(d->create_opts, opts, "backing_file", backing, &err) ||
                    opts_set(d->create_opts, opts, "backing_fmt", d->name, &err)))
        fail_msg("%s: %s", d->name, err.msg);
    if (blk_create_file(path, true, &file, &err) || d->create(file, 1 << 20, opts, NULL, &err))
        fail_msg("%s: %s", d->name, err.msg);
    blk_close(file);
    if (d->create_opts)
        opts_clear(d->create_opts, opts);
}

/* For every format that we can write, under its own name and under another's. */
static void names_and_headers_have_to_agree(void **s)
{
    const struct blk_open_opts ro = {.read_only = true};
    unsigned formats = 0;

    (void)s;
    for (const struct blk_driver *const *d = blk_drivers; *d; d++) {
        char own[64], word[64];

        if (!(*d)->create || !(*d)->probe || (*d)->guests_too)
            continue;
        snprintf(own, sizeof(own), "own.%s", (*d)->endings[0]);
        create(*d, own, NULL);
        blk_close(open_ok(own, &ro));
        blk_close(open_ok(own, &(struct blk_open_opts){.read_only = true, .format = (*d)->name}));

        create(*d, "other.img", NULL);
        snprintf(word, sizeof(word), "format=%s", (*d)->name);
        open_refused("other.img", &ro, word, "raw");
        blk_close(open_ok("other.img", &(struct blk_open_opts){.read_only = true, .format = (*d)->name}));
        blk_close(open_ok("other.img", &(struct blk_open_opts){.format = "raw"}));

        make(own, "", 1 << 20);
        open_refused(own, &ro, "does not begin as", "format=raw");
        blk_close(open_ok(own, &(struct blk_open_opts){.format = "raw"}));
        formats++;
    }
    assert_true(formats);
}

/* A guest may well encrypt its raw disk. */
static void a_raw_disk_may_begin_as_an_encrypted_one(void **s)
{
    const struct blk_driver *found = NULL;
    struct blk *b;

    (void)s;
    make("a.img", "LUKS\xba\xbe", 1 << 20);
    b = open_ok("a.img", &(struct blk_open_opts){0});
    assert_string_equal(b->drv->name, "raw");
    assert_int_equal(blk_pwrite(b, "\0\1", 2, 6), 0);
    assert_int_equal(blk_probe(b, &found), 0);
    assert_string_equal(found->name, "luks");
    blk_close(b);
    blk_close(open_ok("a.img", &(struct blk_open_opts){0}));
    make("a.luks", "", 1 << 20);
    open_refused("a.luks", &(struct blk_open_opts){0}, "does not begin as", "format=raw");
}

static void a_raw_disk_reads_and_writes_its_file(void **s)
{
    char out[1000], in[1000], zeroes[1000] = {0};
    struct blk *b;

    (void)s;
    memset(out, 'x', sizeof(out));
    make("a.raw", "", 8192);
    b = open_ok("a.raw", &(struct blk_open_opts){0});
    assert_int_equal(blk_pwrite(b, out, sizeof(out), 4001), 0);
    assert_int_equal(blk_pread(b, in, sizeof(in), 4001), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(blk_zero(b, 0, 8192, true), 0);
    assert_int_equal(blk_pread(b, in, sizeof(in), 4001), 0);
    assert_memory_equal(in, zeroes, sizeof(in));
    assert_int_equal(blk_pwrite(b, out, sizeof(out), 8000), -EINVAL);
    assert_int_equal(blk_flush(b), 0);
    blk_close(b);
}

static void a_raw_disk_says_where_its_holes_are_and_resizes(void **s)
{
    struct blk_status st;
    struct blk *b;
    struct err err;

    (void)s;
    make("a.raw", "data", 1 << 20);
    b = open_ok("a.raw", &(struct blk_open_opts){0});
    assert_int_equal(b->drv->status(b, 0, 512, &st), 0);
    assert_int_equal(st.place, BLK_AT);
    assert_int_equal(st.len, 512);
    assert_true(st.has_off && st.off == 0);
    assert_int_equal(b->drv->status(b, 512 << 10, 512 << 10, &st), 0);
    if (st.place == BLK_ZEROES) /* else the file system does not say */
        assert_int_equal(st.len, 512 << 10);
    assert_int_equal(b->drv->resize(b, 2 << 20, &err), 0);
    assert_int_equal(b->lim.size, 2 << 20);
    assert_int_equal(blk_zero(b, (2 << 20) - 4096, 4096, false), 0);
    assert_int_equal(b->drv->resize(b, 4096, &err), 0);
    assert_int_equal(blk_zero(b, 4096, 4096, false), -EINVAL);
    assert_true(b->drv->resize(b, 1ull << 63, &err) < 0);
    assert_int_equal(b->lim.size, 4096);
    blk_close(b);
}

static void a_new_file_is_made_but_never_over_another(void **s)
{
    char buf[512] = "x";
    struct blk *b;
    struct err err;
    struct stat st;

    (void)s;
    make("full", "data", 512);
    assert_int_equal(blk_create_file("full", false, &b, &err), -EEXIST);
    assert_int_equal(stat("full", &st), 0);
    assert_int_equal(st.st_size, 512);
    assert_int_equal(blk_create_file("full", true, &b, &err), 0);
    assert_int_equal(b->lim.size, 0);
    assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(1)), 0); /* it grows … */
    assert_int_equal(blk_pread(b, buf, sizeof(buf), MiB(2)), 0);  /* … and reads as zeroes behind */
    assert_int_equal(buf[0], 0);
    blk_close(b);
    assert_int_equal(blk_create_file("new", false, &b, &err), 0);
    blk_close(b);
    assert_int_equal(blk_create_file("new", false, &b, &err), 0); /* still empty */
    blk_close(b);
    assert_int_equal(blk_create_file("no/such/folder", false, &b, &err), -ENOENT);
}

static unsigned files_here(void)
{
    unsigned n = 0;
    DIR *d = opendir(".");

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void what_is_written_to_a_snapshot_vanishes(void **s)
{
    static const char *const paths[] = {"a.raw", "a.qcow2"};
    const struct blk_open_opts snapshot = {.snapshot = true}, plain = {.read_only = true};

    (void)s;
    make("a.raw", "data", 1 << 20);
    create(blk_driver_find("qcow2"), "a.qcow2", NULL);
    setenv("TMPDIR", home, 1);
    for (size_t i = 0; i < array_len(paths); i++) {
        unsigned before = files_here();
        char first[4], got[4], out[4] = "new!";
        struct blk *a, *b;

        a = open_ok(paths[i], &plain);
        assert_int_equal(blk_pread(a, first, 4, 0), 0);
        blk_close(a);
        a = open_ok(paths[i], &snapshot);
        b = open_ok(paths[i], &snapshot);
        assert_int_equal(files_here(), before);
        assert_int_equal(a->lim.size, 1 << 20);
        assert_int_equal(blk_pwrite(a, out, 4, 0), 0);
        assert_int_equal(blk_zero(a, 4096, (1 << 20) - 4096, false), 0);
        assert_int_equal(blk_flush(a), 0);
        assert_int_equal(blk_pread(a, got, 4, 0), 0);
        assert_memory_equal(got, out, 4);
        assert_int_equal(blk_pread(b, got, 4, 0), 0); /* each has its own */
        assert_memory_equal(got, first, 4);
        open_refused(paths[i], &(struct blk_open_opts){0}, "in use", "snapshot");
        blk_close(a);
        blk_close(b);
        a = open_ok(paths[i], &plain);
        assert_int_equal(blk_pread(a, got, 4, 0), 0);
        assert_memory_equal(got, first, 4);
        blk_close(a);
        a = open_ok(paths[i], &(struct blk_open_opts){.snapshot = true, .read_only = true});
        assert_true(a->lim.read_only);
        blk_close(a);
    }
    setenv("TMPDIR", "/nonexistent", 1);
    open_refused("a.raw", &snapshot, "/nonexistent", "TMPDIR");
    unsetenv("TMPDIR");
}

/* ---- What images name.  The image is any file here: its driver names nothing itself. ---- */

static const struct blk_driver image_driver = {.name = "image", .size = sizeof(struct blk)};

static struct blk *image(const char *path)
{
    struct blk *b = blk_node(&image_driver, path, NULL);
    struct err err;

    if (file_open(path, path, &(struct blk_open_opts){0}, 0, NULL, &b->file, &err))
        fail_msg("%s", err.msg);
    b->file->parent = b;
    return b;
}

static void named_ok(struct blk *b, const char *name, const struct blk_open_opts *o)
{
    struct err err;

    if (blk_open_named(b, name, "raw", false, o, &b->backing, &err))
        fail_msg("%s", err.msg);
    assert_ptr_equal(b->backing->parent, b);
    assert_true(b->backing->lim.read_only);
    blk_close(b->backing);
    b->backing = NULL;
}

static void named_refused(struct blk *b, const char *name, const struct blk_open_opts *o, const char *word)
{
    struct blk *got;
    struct err err;

    if (!blk_open_named(b, name, NULL, false, o, &got, &err))
        fail_msg("%s was opened", name);
    if (!strstr(err.msg, word) || !strstr(err.msg, b->name) || strlen(err.msg) > 500)
        fail_msg("%s: \"%s\" lacks \"%s\"", name, err.msg, word);
}

static void make_tree(void)
{
    assert_int_equal(mkdir("own", 0700) | mkdir("own/sub", 0700) | mkdir("other", 0700) | mkdir("own-not", 0700), 0);
    make("own/top", "", 4096);
    make("own/base", "", 4096);
    make("own/sub/deep", "", 4096);
    make("other/base", "", 4096);
    make("own-not/base", "", 4096);
    assert_int_equal(symlink("base", "own/inward") | symlink("../other/base", "own/outward") |
                         symlink("../other", "own/dir") | symlink("/proc/self/fd/0", "own/magic") |
                         mkfifo("own/fifo", 0600),
                     0);
}

static void names_lead_to_files_in_the_own_folder(void **s)
{
    static const char *const names[] = {"base", "./base", "sub/deep", "sub/../base", "inward", "../own/base"};
    const struct blk_open_opts o = {0};
    char absolute[128];
    struct blk *b;

    (void)s;
    make_tree();
    b = image("own/top");
    for (size_t i = 0; i < array_len(names); i++)
        named_ok(b, names[i], &o);
    snprintf(absolute, sizeof(absolute), "%s/own/base", home);
    named_ok(b, absolute, &o);
    blk_close(b);

    make("top", "", 4096); /* without any folder in its name */
    b = image("top");
    named_ok(b, "own/base", &o);
    blk_close(b);
}

static void names_that_lead_elsewhere_are_refused(void **s)
{
    static const struct {
        const char *name, *word;
    } rows[] = {
        {"../other/base", "allow="},
        {"outward", "allow="},
        {"dir/base", "allow="},
        {"../own-not/base", "allow="}, /* whose name only begins like the folder's */
        {"/etc/passwd", "allow="},
        {"/dev/zero", "allow="},
        {"/proc/self/mem", "allow="},
        {"magic", ""},
        {"..", "allow="},
        {"fifo", "not a regular file"},
        {"sub", "not a regular file"},
        {"nowhere", "No such file"},
        {"", "protocol"},
        {"json:{\"driver\":\"file\",\"filename\":\"base\"}", "protocol"},
        {"nbd:localhost:10809", "protocol"},
        {"file:base", "protocol"},
        {"fd:3", "protocol"},
        {"base\n", "control characters"},
        {"\x1b[2Jbase", "control characters"},
    };
    const struct blk_open_opts o = {0}, all = {.allow = "/"};
    struct blk *b;

    (void)s;
    make_tree();
    b = image("own/top");
    for (size_t i = 0; i < array_len(rows); i++)
        named_refused(b, rows[i].name, &o, rows[i].word);
    /* The user may allow folders, but never these. */
    named_refused(b, "/proc/self/mem", &all, "not a regular file");
    named_refused(b, "/proc/cpuinfo", &all, "not a regular file");
    named_refused(b, "/dev/zero", &all, "not a regular file");
    blk_close(b);
}

static void the_user_allows_folders(void **s)
{
    const struct blk_open_opts o = {.allow = "nowhere:own-not:other/"}, none = {.allow = "::"};
    struct blk *b;

    (void)s;
    make_tree();
    b = image("own/top");
    named_ok(b, "../other/base", &o);
    named_ok(b, "outward", &o);
    named_ok(b, "../own-not/base", &o);
    named_refused(b, "/etc/passwd", &o, "allow=");
    named_refused(b, "../other/base", &none, "allow=");
    blk_close(b);
}

static void a_long_chain_is_refused_with_the_first_and_the_last_name(void **s)
{
    (void)s;
    create(blk_driver_find("qcow2"), "0.qcow2", NULL);
    for (unsigned i = 1; i <= 64; i++) {
        char name[32], backing[48];

        snprintf(name, sizeof(name), "%u.qcow2", i);
        snprintf(backing, sizeof(backing), "%u.qcow2", i - 1);
        create(blk_driver_find("qcow2"), name, backing);
    }
    blk_close(open_ok("63.qcow2", &(struct blk_open_opts){.read_only = true}));
    open_refused("64.qcow2", &(struct blk_open_opts){.read_only = true}, "64.qcow2: 1.qcow2 is already 64 images deep",
                 "commit");
    assert_int_equal(unlink("20.qcow2"), 0);
    open_refused("30.qcow2", &(struct blk_open_opts){.read_only = true}, "30.qcow2: 21.qcow2 names \"20.qcow2\"",
                 "No such");
}

static void a_chain_never_contains_itself_and_ends(void **s)
{
    struct blk_open_opts o = {0};
    struct blk *b;
    struct err err;

    (void)s;
    make_tree();
    assert_int_equal(link("own/top", "own/hardlink"), 0);
    b = image("own/top");
    named_refused(b, "top", &o, "itself");
    named_refused(b, "hardlink", &o, "itself");
    b->backing = image("own/base");
    b->backing->parent = b;
    named_refused(b->backing, "top", &o, "itself or an image above");
    named_ok(b->backing, "sub/deep", &o);
    o.depth = 62;
    named_ok(b->backing, "sub/deep", &o);
    o.depth = 63;
    named_refused(b->backing, "sub/deep", &o, "64 images");
    /* Bytes without a format, to be written. */
    o.depth = 0;
    assert_int_equal(blk_open_named(b, "sub/deep", "file", true, &o, &b->backing->backing, &err), 0);
    assert_string_equal(b->backing->backing->drv->name, "file");
    assert_false(b->backing->backing->lim.read_only);
    blk_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_decide_that_a_disk_is_raw, setup, teardown),
        cmocka_unit_test_setup_teardown(names_and_headers_have_to_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_formats_and_options_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_raw_disk_may_begin_as_an_encrypted_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_raw_disk_reads_and_writes_its_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_raw_disk_says_where_its_holes_are_and_resizes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_file_is_made_but_never_over_another, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_written_to_a_snapshot_vanishes, setup, teardown),
        cmocka_unit_test_setup_teardown(names_lead_to_files_in_the_own_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_lead_elsewhere_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_user_allows_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_chain_is_refused_with_the_first_and_the_last_name, setup, teardown),
        cmocka_unit_test_setup_teardown(a_chain_never_contains_itself_and_ends, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
