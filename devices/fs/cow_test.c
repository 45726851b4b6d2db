/* A share whose changes are thrown away: in the guest all goes as on any file system, on the host nothing does. */
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/fs/fs_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { ROOT = FUSE_ROOT_ID };

static struct fs_rig g;
static char names[4096];

static const char *host(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", g.dir, name);
    return path;
}

static struct stat before[3];

static int set_up(void **s)
{
    (void)s;
    fs_rig_init(&g, &(struct fs_opts){.mode = FS_COW});
    fs_rig_put(&g, "share/a", "from the host");
    fs_rig_put(&g, "share/b", "b");
    assert_int_equal(mkdir(host("d"), 0755), 0);
    fs_rig_put(&g, "share/d/f", "deep");
    assert_int_equal(symlink("target", host("l")), 0);
    assert_int_equal(stat(host("a"), &before[0]), 0);
    assert_int_equal(stat(host("d"), &before[1]), 0);
    assert_int_equal(stat(host("d/f"), &before[2]), 0);
    return 0;
}

static void assert_unchanged(const char *name, const struct stat *was)
{
    struct stat st;

    assert_int_equal(stat(host(name), &st), 0);
    assert_int_equal(st.st_ino, was->st_ino);
    assert_int_equal(st.st_mode, was->st_mode);
    assert_int_equal(st.st_nlink, was->st_nlink);
    assert_memory_equal(&st.st_mtim, &was->st_mtim, sizeof(st.st_mtim));
    assert_memory_equal(&st.st_ctim, &was->st_ctim, sizeof(st.st_ctim));
}

static int tear_down(void **s)
{
    cleanup_free char *a = fs_rig_get(&g, "share/a"), *b = fs_rig_get(&g, "share/b"), *f = fs_rig_get(&g, "share/d/f");

    (void)s;
    assert_string_equal(a, "from the host");
    assert_string_equal(b, "b");
    assert_string_equal(f, "deep");
    assert_unchanged("a", &before[0]);
    assert_unchanged("d", &before[1]);
    assert_unchanged("d/f", &before[2]);
    fs_rig_fini(&g);
    return 0;
}

static void assert_reads(uint64_t node, uint64_t fh, const char *text)
{
    assert_int_equal(fs_rig_read(&g, node, fh, 0, 1000), 0);
    assert_int_equal(g.len, strlen(text));
    assert_memory_equal(g.reply, text, g.len);
}

static void assert_names(uint64_t dir, const char *wanted)
{
    for (int plus = 0; plus < 2; plus++) {
        assert_int_equal(fs_rig_names(&g, dir, plus, names, sizeof(names)), 0);
        assert_string_equal(names, wanted);
    }
}

static void write_to(const char *name, const char *text)
{
    uint64_t n = fs_rig_found(&g, ROOT, name), fh = fs_rig_opened(&g, n, O_WRONLY | O_TRUNC);

    assert_int_equal(fs_rig_write(&g, n, fh, 0, text, (uint32_t)strlen(text)), 0);
    assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
}

static void what_is_written_is_read_by_those_who_had_it_open(void **s)
{
    uint64_t n = fs_rig_found(&g, ROOT, "a"), early = fs_rig_opened(&g, n, O_RDONLY), fh;

    (void)s;
    assert_reads(n, early, "from the host");
    fh = fs_rig_opened(&g, n, O_RDWR);
    assert_int_equal(fs_rig_write(&g, n, fh, 5, "US", 2), 0);
    assert_reads(n, early, "from USe host");
    assert_reads(n, fh, "from USe host");
    assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
    assert_int_equal(fs_rig_forget(&g, n, 1), 1);
    n = fs_rig_found(&g, ROOT, "a");
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "from USe host");
}

static void truncated_files_lose_their_content_only_here(void **s)
{
    struct fuse_setattr_in in = {.valid = FATTR_SIZE, .size = 4};
    uint64_t n = fs_rig_found(&g, ROOT, "a");

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(((struct fuse_attr_out *)g.reply)->attr.size, 4);
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "from");
    write_to("b", "other");
    n = fs_rig_found(&g, ROOT, "b");
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "other");
}

static void holes_are_kept(void **s)
{
    uint64_t n, fh;
    struct fuse_attr a;

    (void)s;
    fs_rig_put(&g, "share/sparse", "begin");
    assert_int_equal(truncate(host("sparse"), 64 << 20), 0);
    n = fs_rig_found(&g, ROOT, "sparse");
    fh = fs_rig_opened(&g, n, O_RDWR);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.size, 64 << 20);
    assert_in_range(a.blocks, 0, 2048);
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 5), 0);
    assert_memory_equal(g.reply, "begin", 5);
}

static void owners_and_modes_are_free_for_all(void **s)
{
    struct fuse_setattr_in in = {.valid = FATTR_UID | FATTR_GID, .uid = 4321, .gid = 8765};
    uint64_t n = fs_rig_found(&g, ROOT, "a");
    struct fuse_attr a;

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    in = (struct fuse_setattr_in){.valid = FATTR_MODE | FATTR_MTIME, .mode = 04711, .mtime = 99};
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
        assert_int_equal(a.uid, 4321);
        assert_int_equal(a.gid, 8765);
        assert_int_equal(a.mode, S_IFREG | 04711);
        assert_int_equal(a.mtime, 99);
        assert_int_equal(a.size, 13);
        fs_rig_opened(&g, n, O_RDWR); /* it stays so when there is a copy */
    }
    in = (struct fuse_setattr_in){.valid = FATTR_UID, .uid = 1};
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(((struct fuse_attr_out *)g.reply)->attr.mode, S_IFREG | 0711);
}

static void names_come_and_go(void **s)
{
    uint64_t d = fs_rig_found(&g, ROOT, "d"), n, fh;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "new", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "a", &n), -EEXIST);
    assert_names(ROOT, "a b d l new");
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), 0);
    assert_int_equal(fs_rig_lookup(&g, ROOT, "a", &n), -ENOENT);
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), -ENOENT);
    assert_names(ROOT, "b d l new");
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", true), -ENOTEMPTY);
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", false), -EISDIR);
    assert_int_equal(fs_rig_remove(&g, ROOT, "b", true), -ENOTDIR);
    assert_int_equal(fs_rig_remove(&g, d, "f", false), 0);
    assert_names(d, "");
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", true), 0);
    assert_int_equal(fs_rig_mkdir(&g, d, "late", &n), -ENOENT);
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "d", &d), 0); /* has nothing of the old one */
    assert_names(d, "");
    assert_int_equal(fs_rig_create(&g, ROOT, "a", 0600, &n, &fh), 0);
    assert_reads(n, fh, "");
    assert_names(ROOT, "a b d l new");
}

static void an_unlinked_file_lives_while_it_is_open(void **s)
{
    uint64_t n = fs_rig_found(&g, ROOT, "a"), fh = fs_rig_opened(&g, n, O_RDWR);
    struct fuse_attr a;

    (void)s;
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), 0);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.nlink, 0);
    assert_reads(n, fh, "from the host");
    assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
    assert_int_equal(fs_rig_forget(&g, n, 1), 1);
    assert_int_equal(fs_rig_getattr(&g, n, &a), -ESTALE);
}

static void directories_are_renamed_with_all_that_is_in_them(void **s)
{
    uint64_t d = fs_rig_found(&g, ROOT, "d"), n, fh;

    (void)s;
    assert_int_equal(fs_rig_create(&g, d, "mine", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_rename(&g, ROOT, "d", ROOT, "e", 0), 0);
    assert_int_equal(fs_rig_lookup(&g, ROOT, "d", &n), -ENOENT);
    assert_int_equal(fs_rig_found(&g, ROOT, "e"), d);
    assert_names(d, "f mine");
    n = fs_rig_found(&g, d, "f");
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "deep");
    assert_names(ROOT, "a b e l");
    assert_int_equal(fs_rig_rename(&g, ROOT, "e", d, "x", 0), -EINVAL);
    assert_int_equal(fs_rig_rename(&g, d, "f", ROOT, "a", RENAME_NOREPLACE), -EEXIST);
    assert_int_equal(fs_rig_rename(&g, d, "f", ROOT, "a", RENAME_EXCHANGE), 0);
    assert_reads(n, fs_rig_opened(&g, fs_rig_found(&g, ROOT, "a"), O_RDONLY), "deep");
    assert_names(ROOT, "a b e l");
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, "b", 0), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "b"), n);
    assert_names(ROOT, "b e l");
    assert_int_equal(fs_rig_rename(&g, ROOT, "b", ROOT, "e", 0), -EISDIR);
    assert_int_equal(fs_rig_rename(&g, ROOT, "e", ROOT, "b", 0), -ENOTDIR);
    assert_int_equal(fs_rig_rename(&g, ROOT, "none", ROOT, "b", 0), -ENOENT);
}

static void links_symbolic_and_hard(void **s)
{
    static const char link[] = "new\0/etc/passwd";
    uint64_t a = fs_rig_found(&g, ROOT, "a"), l = fs_rig_found(&g, ROOT, "l");
    struct fuse_attr attr;

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_READLINK, l, NULL, 0, NULL, 0), 0);
    assert_memory_equal(g.reply, "target", 6);
    assert_int_equal(fs_rig_call(&g, FUSE_SYMLINK, ROOT, NULL, 0, link, sizeof(link)), 0);
    l = ((struct fuse_entry_out *)g.reply)->nodeid;
    assert_int_equal(fs_rig_call(&g, FUSE_READLINK, l, NULL, 0, NULL, 0), 0);
    assert_int_equal(g.len, 11);
    assert_memory_equal(g.reply, "/etc/passwd", 11);
    assert_int_equal(fs_rig_call(&g, FUSE_LINK, ROOT, &(struct fuse_link_in){a}, 8, "again", 6), 0);
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "again"), a);
    assert_int_equal(fs_rig_getattr(&g, a, &attr), 0);
    assert_int_equal(attr.nlink, 1);
    write_to("again", "changed");
    assert_reads(a, fs_rig_opened(&g, a, O_RDONLY), "changed");
}

/* The host gives a file another name, of which the guest's links know nothing. */
static void links_that_the_host_makes(void **s)
{
    uint64_t n = fs_rig_found(&g, ROOT, "a"), again;
    cleanup_free char *from = xstrdup(host("a"));
    struct fuse_attr a;

    (void)s;
    write_to("a", "changed");
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, "mine", 0), 0);
    assert_int_equal(link(from, host("c")), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "c"), n);
    assert_int_equal(fs_rig_remove(&g, ROOT, "c", false), 0);
    assert_int_equal(fs_rig_forget(&g, n, 100), 1);
    again = fs_rig_found(&g, ROOT, "mine"); /* it is there as long as it has that name */
    assert_int_equal(again, n);
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "changed");
    assert_int_equal(link(from, host("e")), 0); /* when it has no more */
    assert_int_equal(fs_rig_remove(&g, ROOT, "mine", false), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "e"), n);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.nlink, 1);
    assert_int_equal(unlink(host("c")), 0);
    assert_int_equal(unlink(host("e")), 0);
    assert_int_equal(stat(from, &before[0]), 0); /* all that has changed is when it last did */
}

static void owners_take_the_right_to_run_as_somebody_else(void **s)
{
    struct fuse_mknod_in in = {.mode = S_IFIFO | 06755};
    struct fuse_setattr_in owner = {.valid = FATTR_UID, .uid = 1};
    const struct fuse_entry_out *e = (const struct fuse_entry_out *)g.reply;

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_MKNOD, ROOT, &in, sizeof(in), "p", 2), 0);
    assert_int_equal(e->attr.mode, S_IFIFO | 06755);
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, e->nodeid, &owner, sizeof(owner), NULL, 0), 0);
    assert_int_equal(((struct fuse_attr_out *)g.reply)->attr.mode, S_IFIFO | 0755);
}

/* In a listing without attributes, too. */
static void files_have_one_number(void **s)
{
    struct fuse_read_in in = {.size = 4096};
    uint64_t n, fh;
    unsigned found = 0;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "new", 0600, &n, &fh), 0);
    in.fh = fs_rig_opened(&g, ROOT, O_DIRECTORY);
    assert_int_equal(fs_rig_call(&g, FUSE_READDIR, ROOT, &in, sizeof(in), NULL, 0), 0);
    for (size_t at = 0, len = g.len; at < len;) {
        struct fuse_dirent d;
        struct fuse_attr a;
        char name[16] = "";

        assert_int_equal(fs_rig_call(&g, FUSE_READDIR, ROOT, &in, sizeof(in), NULL, 0), 0);
        memcpy(&d, g.reply + at, FUSE_NAME_OFFSET);
        memcpy(name, g.reply + at + FUSE_NAME_OFFSET, d.namelen);
        at += FUSE_REC_ALIGN(FUSE_NAME_OFFSET + d.namelen);
        if (*name == '.')
            continue;
        assert_int_equal(fs_rig_getattr(&g, fs_rig_found(&g, ROOT, name), &a), 0);
        assert_int_equal(a.ino, d.ino);
        found++;
    }
    assert_int_equal(found, 5);
}

static void a_new_mount_starts_from_the_host_again(void **s)
{
    uint64_t n;

    (void)s;
    write_to("a", "x");
    assert_int_equal(fs_rig_remove(&g, ROOT, "b", false), 0);
    fs_reset(g.fs);
    assert_int_equal(fs_rig_start(&g), 0);
    n = fs_rig_found(&g, ROOT, "a");
    assert_reads(n, fs_rig_opened(&g, n, O_RDONLY), "from the host");
    assert_names(ROOT, "a b d l");
}

/* What a killed bothy left is cleaned up by the next; what another one uses is not. */
static void nothing_is_left_in_the_temporary_directory(void **s)
{
    char top[128];
    struct fs_rig a, b;
    struct fs_opts o = {.mode = FS_COW};
    char path[200];

    (void)s;
    snprintf(top, sizeof(top), "%s/tmp", g.top);
    snprintf(path, sizeof(path), "%s/bothy-share-dead", top);
    assert_int_equal(mkdir(top, 0755), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    fs_rig_put(&g, "tmp/bothy-share-dead/1", "left");
    setenv("TMPDIR", top, 1);
    fs_rig_init(&a, &o);
    assert_int_equal(access(path, F_OK), -1);
    fs_rig_init(&b, &o);
    fs_rig_put(&a, "share/f", "text");
    {
        uint64_t n = 0, fh = 0;

        assert_int_equal(fs_rig_lookup(&a, ROOT, "f", &n), 0);
        assert_int_equal(fs_rig_open(&a, n, O_RDWR, &fh), 0);
    }
    fs_rig_fini(&b);
    fs_rig_fini(&a);
    unsetenv("TMPDIR");
    assert_int_equal(rmdir(top), 0); /* empty */
}

static void *make_and_destroy(void *failed)
{
    for (int i = 0; i < 100; i++) {
        struct err err;
        struct fs *fs;

        if (!fs_create(&(struct fs_opts){.dir = g.dir, .mode = FS_COW}, &g.lane, &fs, &err))
            fs_destroy(fs);
        else
            *(bool *)failed = true;
    }
    return NULL;
}

/* Each sweeps up what killed ones have left, and must leave alone what is just being made. */
static void many_at_a_time_are_not_in_each_others_way(void **s)
{
    bool failed[4] = {false};
    pthread_t threads[array_len(failed)];

    (void)s;
    assert_int_equal(setenv("TMPDIR", g.top, 1), 0);
    for (size_t i = 0; i < array_len(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_and_destroy, &failed[i]), 0);
    for (size_t i = 0; i < array_len(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    unsetenv("TMPDIR");
    for (size_t i = 0; i < array_len(failed); i++)
        assert_false(failed[i]);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_is_written_is_read_by_those_who_had_it_open),
        T(truncated_files_lose_their_content_only_here),
        T(holes_are_kept),
        T(owners_and_modes_are_free_for_all),
        T(names_come_and_go),
        T(an_unlinked_file_lives_while_it_is_open),
        T(directories_are_renamed_with_all_that_is_in_them),
        T(links_symbolic_and_hard),
        T(links_that_the_host_makes),
        T(owners_take_the_right_to_run_as_somebody_else),
        T(files_have_one_number),
        T(a_new_mount_starts_from_the_host_again),
        T(nothing_is_left_in_the_temporary_directory),
        T(many_at_a_time_are_not_in_each_others_way),
    };

    unsetenv("TMPDIR");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
