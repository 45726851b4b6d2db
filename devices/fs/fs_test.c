#include "devices/fs/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
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

static int set_up(void **s)
{
    (void)s;
    fs_rig_init(&g, &(struct fs_opts){.mode = FS_RW});
    return 0;
}

static int set_up_ro(void **s)
{
    (void)s;
    fs_rig_init(&g, &(struct fs_opts){.mode = FS_RO});
    return 0;
}

static int tear_down(void **s)
{
    (void)s;
    fs_rig_fini(&g);
    return 0;
}

static void assert_reply(const char *text)
{
    assert_int_equal(g.len, strlen(text));
    assert_memory_equal(g.reply, text, g.len);
}

static void assert_host_has(const char *name, const char *text)
{
    char path[100];
    cleanup_free char *got = NULL;

    snprintf(path, sizeof(path), "share/%s", name);
    got = fs_rig_get(&g, path);
    assert_string_equal(got, text);
}

/* ---- INIT ---- */

static void init_says_what_both_can(void **s)
{
    struct fuse_init_in in = {.major = 7, .minor = 31, .max_readahead = 4096, .flags = FUSE_BIG_WRITES | 1u << 31};
    const struct fuse_init_out *out = (const struct fuse_init_out *)g.reply;

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_INIT, 0, &in, 16, NULL, 0), 0);
    assert_int_equal(g.len, 64);
    assert_int_equal(out->minor, 31);
    assert_int_equal(out->flags, FUSE_BIG_WRITES);
    assert_int_equal(out->max_write, 32 * 4096);
    in.minor = 200;
    in.flags = ~0u;
    assert_int_equal(fs_rig_call(&g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(out->minor, FUSE_KERNEL_MINOR_VERSION);
    assert_int_equal(out->max_pages, 256);
    assert_false(out->flags & (FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_POSIX_ACL));
    in.major = 8;
    assert_int_equal(fs_rig_call(&g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(out->major, 7);
    in.major = 6;
    assert_int_equal(fs_rig_call(&g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), -EPROTO);
    in = (struct fuse_init_in){.major = 7, .minor = 30};
    assert_int_equal(fs_rig_call(&g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), -EPROTO);
}

static void nothing_works_before_init_and_all_is_gone_after_destroy(void **s)
{
    uint64_t n, old;

    (void)s;
    fs_rig_put(&g, "share/a", "x");
    old = fs_rig_found(&g, ROOT, "a");
    assert_true(fs_mounted(g.fs));
    assert_int_equal(fs_rig_call(&g, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
    assert_false(fs_mounted(g.fs));
    assert_int_equal(fs_rig_lookup(&g, ROOT, "a", &n), -EIO);
    assert_int_equal(fs_rig_start(&g), 0);
    assert_int_equal(fs_rig_lookup(&g, ROOT, "a", &n), 0);
    assert_int_not_equal(n, old);
    assert_int_equal(fs_rig_getattr(&g, old, &(struct fuse_attr){0}), -ESTALE);
}

static void what_is_not_there_is_not_implemented(void **s)
{
    static const uint32_t opcodes[] = {0, 7, FUSE_GETLK, FUSE_IOCTL, FUSE_POLL, FUSE_SETUPMAPPING, 52, 4096, ~0u};

    (void)s;
    for (size_t i = 0; i < array_len(opcodes); i++)
        assert_int_equal(fs_rig_call(&g, opcodes[i], ROOT, NULL, 0, NULL, 0), -ENOSYS);
}

/* ---- Files ---- */

static void a_file_is_written_and_read(void **s)
{
    uint64_t n, fh;
    struct fuse_attr a;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "new", 0640, &n, &fh), 0);
    assert_int_equal(fs_rig_write(&g, n, fh, 0, "hello, world", 12), 0);
    assert_int_equal(((struct fuse_write_out *)g.reply)->size, 12);
    assert_host_has("new", "hello, world");
    assert_int_equal(fs_rig_read(&g, n, fh, 7, 100), 0);
    assert_reply("world");
    assert_int_equal(fs_rig_read(&g, n, fh, 12, 100), 0);
    assert_reply("");
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 5), 0);
    assert_reply("hello");
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.size, 12);
    assert_int_equal(a.mode, S_IFREG | 0640);
    assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
    assert_int_equal(fs_rig_release(&g, n, fh, false), -EBADF);
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 5), -EBADF);
}

static void handles_do_only_what_they_were_opened_for(void **s)
{
    uint64_t n, fh;

    (void)s;
    fs_rig_put(&g, "share/a", "text");
    n = fs_rig_found(&g, ROOT, "a");
    fh = fs_rig_opened(&g, n, O_RDONLY);
    assert_int_equal(fs_rig_write(&g, n, fh, 0, "x", 1), -EBADF);
    assert_int_equal(fs_rig_read(&g, ROOT, fh, 0, 1), -EBADF); /* another file's */
    assert_int_equal(fs_rig_release(&g, n, fh, true), -EBADF); /* not a directory's */
    fh = fs_rig_opened(&g, n, O_WRONLY);
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 1), -EBADF);
    assert_int_equal(fs_rig_open(&g, n, O_ACCMODE, &fh), -EINVAL);
    assert_int_equal(fs_rig_open(&g, ROOT, O_RDONLY, &fh), -EISDIR);
    assert_int_equal(fs_rig_open(&g, n, O_DIRECTORY, &fh), -ENOTDIR);
    fh = fs_rig_opened(&g, n, O_RDWR | O_TRUNC);
    assert_host_has("a", "");
}

static void large_requests_arrive_whole(void **s)
{
    enum { SIZE = 1 << 20 };
    cleanup_free uint8_t *data = xcalloc(1, SIZE);
    uint64_t n, fh;

    (void)s;
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(fs_rig_create(&g, ROOT, "big", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_write(&g, n, fh, 3, data, SIZE), 0);
    assert_int_equal(((struct fuse_write_out *)g.reply)->size, SIZE);
    for (size_t at = 0; at < SIZE; at += g.len) {
        assert_int_equal(fs_rig_read(&g, n, fh, 3 + at, 100000), 0);
        assert_true(g.len);
        assert_memory_equal(g.reply, data + at, g.len);
    }
}

static void an_open_file_outlives_its_name(void **s)
{
    uint64_t n, fh;
    struct fuse_attr a;
    struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = 0400};

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "gone", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_write(&g, n, fh, 0, "data", 4), 0);
    assert_int_equal(fs_rig_remove(&g, ROOT, "gone", false), 0);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.nlink, 0);
    assert_int_equal(a.size, 4);
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 10), 0);
    assert_reply("data");
}

static void a_file_without_a_name_can_get_one(void **s)
{
    struct fuse_create_in in = {.flags = O_RDWR, .mode = 0600};
    const struct fuse_entry_out *e = (const struct fuse_entry_out *)g.reply;
    struct fuse_link_in link;
    uint64_t fh;

    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_TMPFILE, ROOT, &in, sizeof(in), NULL, 0), 0);
    link.oldnodeid = e->nodeid;
    fh = ((const struct fuse_open_out *)(e + 1))->fh;
    assert_int_equal(fs_rig_write(&g, link.oldnodeid, fh, 0, "t", 1), 0);
    assert_int_equal(fs_rig_call(&g, FUSE_LINK, ROOT, &link, sizeof(link), "named", 6), 0);
    assert_host_has("named", "t");
}

static void assert_writes(uint64_t n, struct fuse_write_in in, const char *text, const char *file)
{
    in.size = (uint32_t)strlen(text);
    assert_int_equal(fs_rig_call(&g, FUSE_WRITE, n, &in, sizeof(in), text, in.size), 0);
    assert_host_has("a", file);
}

/* Each write says whether it appends: fcntl(2) may have changed that since open(2), and pages of a mapping are written
 * by any handle. */
static void what_appends_is_at_the_end_and_pages_where_they_belong(void **s)
{
    uint64_t n, fh;

    (void)s;
    fs_rig_put(&g, "share/a", "0123456789");
    n = fs_rig_found(&g, ROOT, "a");
    fh = fs_rig_opened(&g, n, O_WRONLY | O_APPEND);
    assert_writes(n, (struct fuse_write_in){.fh = fh, .flags = O_APPEND}, "end", "0123456789end");
    assert_writes(n, (struct fuse_write_in){.fh = fh, .offset = 2, .flags = O_APPEND, .write_flags = FUSE_WRITE_CACHE},
                  "page", "01page6789end");
    assert_writes(n, (struct fuse_write_in){.fh = fh, .flags = O_SYNC}, "AB", "ABpage6789end");
    fh = fs_rig_opened(&g, n, O_WRONLY);
    assert_writes(n, (struct fuse_write_in){.fh = fh, .flags = O_APPEND | O_DSYNC}, "!", "ABpage6789end!");
}

static void files_have_holes_space_and_copies(void **s)
{
    uint64_t n, fh, m, to;
    struct fuse_fallocate_in fa = {.length = 65536};
    struct fuse_lseek_in seek = {.offset = 0, .whence = SEEK_HOLE};
    struct fuse_copy_file_range_in copy = {.len = 1ull << 40};
    struct fuse_fsync_in sync = {0};
    struct fuse_attr a;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "a", 0600, &n, &fh), 0);
    fa.fh = seek.fh = copy.fh_in = sync.fh = fh;
    assert_int_equal(fs_rig_call(&g, FUSE_FALLOCATE, n, &fa, sizeof(fa), NULL, 0), 0);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.size, 65536);
    fa.mode = 0x40;
    assert_int_equal(fs_rig_call(&g, FUSE_FALLOCATE, n, &fa, sizeof(fa), NULL, 0), -EOPNOTSUPP);
    fa.mode = 0;
    fa.length = UINT64_MAX;
    assert_int_equal(fs_rig_call(&g, FUSE_FALLOCATE, n, &fa, sizeof(fa), NULL, 0), -EFBIG);
    assert_int_equal(fs_rig_call(&g, FUSE_LSEEK, n, &seek, sizeof(seek), NULL, 0), 0);
    assert_in_range(((struct fuse_lseek_out *)g.reply)->offset, 0, 65536);
    seek.whence = SEEK_SET;
    assert_int_equal(fs_rig_call(&g, FUSE_LSEEK, n, &seek, sizeof(seek), NULL, 0), -EINVAL);
    assert_int_equal(fs_rig_write(&g, n, fh, 0, "copied", 6), 0);
    assert_int_equal(fs_rig_create(&g, ROOT, "b", 0600, &m, &to), 0);
    copy.nodeid_out = m;
    copy.fh_out = to;
    assert_int_equal(fs_rig_call(&g, FUSE_COPY_FILE_RANGE, n, &copy, sizeof(copy), NULL, 0), 0);
    assert_int_equal(((struct fuse_write_out *)g.reply)->size, 65536);
    assert_int_equal(fs_rig_read(&g, m, to, 0, 6), 0);
    assert_reply("copied");
    assert_int_equal(fs_rig_call(&g, FUSE_FSYNC, n, &sync, sizeof(sync), NULL, 0), 0);
    assert_int_equal(
        fs_rig_call(&g, FUSE_FLUSH, n, &(struct fuse_flush_in){.fh = fh}, sizeof(struct fuse_flush_in), NULL, 0), 0);
    assert_int_equal(fs_rig_call(&g, FUSE_SYNCFS, ROOT, &(struct fuse_syncfs_in){0}, 8, NULL, 0), 0);
}

/* ---- Names ---- */

static void directories_are_listed_and_changed(void **s)
{
    uint64_t d, n, fh;

    (void)s;
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "d", &d), 0);
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "d", &n), -EEXIST);
    for (int i = 0; i < 60; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%02d", i);
        assert_int_equal(fs_rig_create(&g, d, name, 0600, &n, &fh), 0);
        assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
    }
    for (int plus = 0; plus < 2; plus++) {
        assert_int_equal(fs_rig_names(&g, d, plus, names, sizeof(names)), 0);
        assert_int_equal(strlen(names), 60 * 4 - 1);
        assert_memory_equal(names, "f00 f01 f02", 11);
    }
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", true), -ENOTEMPTY);
    for (int i = 0; i < 60; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%02d", i);
        assert_int_equal(fs_rig_remove(&g, d, name, false), 0);
    }
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", false), -EISDIR);
    assert_int_equal(fs_rig_remove(&g, ROOT, "d", true), 0);
    assert_int_equal(fs_rig_lookup(&g, ROOT, "d", &n), -ENOENT);
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void move(const char *from, const char *to)
{
    cleanup_free char *path = xstrdup(host(from));

    assert_int_equal(rename(path, host(to)), 0);
}

static void what_is_only_looked_at_takes_no_descriptors(void **s)
{
    unsigned before = descriptors();
    struct fuse_attr a;
    uint64_t n;

    (void)s;
    fs_rig_put(&g, "share/a", "text");
    assert_int_equal(symlink("a", host("l")), 0);
    assert_int_equal(mkdir(host("d"), 0755), 0);
    assert_int_equal(fs_rig_names(&g, ROOT, true, names, sizeof(names)), 0);
    assert_string_equal(names, "a d l");
    n = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.size, 4);
    assert_int_equal(descriptors(), before);
    move("a", "b"); /* nor can it be told where it is now */
    assert_int_equal(fs_rig_getattr(&g, n, &a), -ESTALE);
    assert_int_equal(fs_rig_found(&g, ROOT, "b"), n);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    fs_rig_release(&g, n, fs_rig_opened(&g, n, O_RDONLY), false);
    assert_int_equal(descriptors(), before + 1); /* until others need it more */
    move("b", "c");
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
}

/* Who is in a directory, or has it by a descriptor, does not look it up again. */
static void a_directory_that_was_walked_into_may_be_moved_by_the_host(void **s)
{
    uint64_t d, n, fh;
    struct fuse_attr a;

    (void)s;
    assert_int_equal(mkdir(host("d"), 0755), 0);
    d = fs_rig_found(&g, ROOT, "d");
    move("d", "e");
    assert_int_equal(fs_rig_getattr(&g, d, &a), 0);
    assert_int_equal(fs_rig_create(&g, d, "f", 0600, &n, &fh), 0);
    assert_host_has("e/f", "");
}

static void renamed_files_keep_their_number(void **s)
{
    uint64_t a, b, d, n;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    fs_rig_put(&g, "share/b", "B");
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "d", &d), 0);
    a = fs_rig_found(&g, ROOT, "a");
    b = fs_rig_found(&g, ROOT, "b");
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, "b", RENAME_NOREPLACE), -EEXIST);
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "a"), b);
    assert_int_equal(fs_rig_rename(&g, ROOT, "b", d, "c", 0), 0);
    assert_int_equal(fs_rig_found(&g, d, "c"), a);
    assert_host_has("d/c", "A");
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", d, "c", 0), 0);
    assert_int_equal(fs_rig_found(&g, d, "c"), b);
    assert_int_equal(fs_rig_lookup(&g, ROOT, "a", &n), -ENOENT);
    assert_int_equal(fs_rig_rename(&g, ROOT, "d", d, "e", 0), -EINVAL); /* into itself */
    assert_int_equal(fs_rig_rename(&g, d, "c", ROOT, "x", 4), -EINVAL); /* a flag that there is not */
}

static void links_symbolic_and_hard(void **s)
{
    static const char link[] = "l\0../../outside";
    uint64_t a, l;
    struct fuse_attr attr;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    a = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(fs_rig_call(&g, FUSE_LINK, ROOT, &(struct fuse_link_in){a}, 8, "b", 2), 0);
    assert_int_equal(((struct fuse_entry_out *)g.reply)->nodeid, a);
    assert_int_equal(fs_rig_getattr(&g, a, &attr), 0);
    assert_int_equal(attr.nlink, 2);
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), 0);
    assert_int_equal(fs_rig_getattr(&g, a, &attr), 0);
    assert_int_equal(attr.nlink, 1);
    assert_int_equal(fs_rig_call(&g, FUSE_SYMLINK, ROOT, NULL, 0, link, sizeof(link)), 0);
    l = ((struct fuse_entry_out *)g.reply)->nodeid;
    assert_int_equal(fs_rig_call(&g, FUSE_READLINK, l, NULL, 0, NULL, 0), 0);
    assert_reply("../../outside");
    assert_int_equal(fs_rig_call(&g, FUSE_READLINK, a, NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(fs_rig_open(&g, l, O_RDONLY, &l), -EACCES);
}

static void fifos_and_sockets_are_made_but_never_opened(void **s)
{
    static const uint32_t types[] = {S_IFIFO, S_IFSOCK};
    struct fuse_mknod_in in = {0};
    uint64_t n, fh;

    (void)s;
    for (size_t i = 0; i < array_len(types); i++) {
        in.mode = types[i] | 0666;
        assert_int_equal(fs_rig_call(&g, FUSE_MKNOD, ROOT, &in, sizeof(in), i ? "s" : "f", 2), 0);
        n = ((struct fuse_entry_out *)g.reply)->nodeid;
        assert_int_equal(((struct fuse_entry_out *)g.reply)->attr.mode, in.mode);
        assert_int_equal(fs_rig_open(&g, n, O_RDONLY, &fh), -EACCES);
        assert_int_equal(fs_rig_create(&g, ROOT, i ? "s" : "f", 0600, &n, &fh), -EEXIST);
    }
    in.mode = S_IFREG | 0600;
    assert_int_equal(fs_rig_call(&g, FUSE_MKNOD, ROOT, &in, sizeof(in), "r", 2), 0);
    assert_host_has("r", "");
}

/* ---- Attributes ---- */

static void attributes_are_set(void **s)
{
    struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_ATIME,
                                 .mode = S_IFREG | 0604,
                                 .size = 1000,
                                 .atime = 1,
                                 .mtime = 2,
                                 .mtimensec = 3};
    uint64_t n;
    struct stat st;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    n = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(((struct fuse_attr_out *)g.reply)->attr.size, 1000);
    assert_int_equal(stat(host("a"), &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0604);
    assert_int_equal(st.st_size, 1000);
    assert_int_equal(st.st_atim.tv_sec, 1);
    assert_int_equal(st.st_mtim.tv_sec, 2);
    assert_int_equal(st.st_mtim.tv_nsec, 3);
    in.mtimensec = 1000000000;
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), -EINVAL);
    in = (struct fuse_setattr_in){.valid = FATTR_SIZE};
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, ROOT, &in, sizeof(in), NULL, 0), -EISDIR);
}

static unsigned mode_of(const char *name)
{
    struct stat st;

    assert_int_equal(stat(host(name), &st), 0);
    return st.st_mode & 07777;
}

static void who_truncates_a_file_may_not_leave_it_set_user_id(void **s)
{
    struct fuse_open_in in = {.flags = O_RDWR, .open_flags = FUSE_OPEN_KILL_SUIDGID};
    uint64_t n;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    assert_int_equal(chmod(host("a"), 06755), 0);
    n = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(fs_rig_call(&g, FUSE_OPEN, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(mode_of("a"), 06755); /* nothing is truncated */
    in.flags |= O_TRUNC;
    assert_int_equal(fs_rig_call(&g, FUSE_OPEN, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(mode_of("a"), 0755);
}

/* Of a directory that passes its group on. */
static void what_has_no_name_has_its_directorys_group(void **s)
{
    struct fuse_create_in in = {.flags = O_RDWR, .mode = 0600};
    const struct fuse_entry_out *e = (const struct fuse_entry_out *)g.reply;

    (void)s;
    if (geteuid())
        skip(); /* it has no other groups */
    assert_int_equal(chown(g.dir, 0, 4321), 0);
    assert_int_equal(chmod(g.dir, 02755), 0);
    assert_int_equal(fs_rig_call(&g, FUSE_TMPFILE, ROOT, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(e->attr.gid, 4321);
}

/* By default what belongs to the user of a writable share is root's in the guest, and what the guest's root makes is
 * the user's. */
static void owners_are_mapped(void **s)
{
    struct fuse_setattr_in in = {.valid = FATTR_UID | FATTR_GID};
    uint64_t n, fh;
    struct fuse_attr a;
    struct stat st;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "a", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(a.uid, 0);
    assert_int_equal(a.gid, 0);
    assert_int_equal(stat(host("a"), &st), 0);
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(st.st_gid, getegid());
    if (geteuid())
        return;
    in.uid = 1234;
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), 0);
    assert_int_equal(((struct fuse_attr_out *)g.reply)->attr.uid, 1234);
}

static int xattr(uint32_t opcode, uint64_t n, const char *name, const char *value, uint32_t size)
{
    char tail[300];
    size_t len = strlen(name) + 1;
    struct fuse_setxattr_in set = {.size = value ? (uint32_t)strlen(value) : 0};
    struct fuse_getxattr_in get = {.size = size};

    memcpy(tail, name, len);
    if (value)
        memcpy(tail + len, value, set.size);
    if (opcode == FUSE_SETXATTR)
        return fs_rig_call(&g, opcode, n, &set, FUSE_COMPAT_SETXATTR_IN_SIZE, tail, len + set.size);
    if (opcode == FUSE_REMOVEXATTR)
        return fs_rig_call(&g, opcode, n, NULL, 0, tail, len);
    return fs_rig_call(&g, opcode, n, &get, sizeof(get), tail, opcode == FUSE_LISTXATTR ? 0 : len);
}

static void extended_attributes_are_the_users_only(void **s)
{
    uint64_t n;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    if (setxattr(host("a"), "user.try", "", 0, 0) && errno == EOPNOTSUPP)
        skip();
    n = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(xattr(FUSE_SETXATTR, n, "user.k", "value", 0), 0);
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.k", NULL, 0), 0);
    assert_int_equal(((struct fuse_getxattr_out *)g.reply)->size, 5);
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.k", NULL, 5), 0);
    assert_reply("value");
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.k", NULL, 4), -ERANGE);
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.none", NULL, 4), -ENODATA);
    assert_int_equal(xattr(FUSE_LISTXATTR, n, "", NULL, 100), 0);
    assert_int_equal(g.len, 16);
    assert_int_equal(xattr(FUSE_REMOVEXATTR, n, "user.k", NULL, 0), 0);
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.k", NULL, 5), -ENODATA);
    assert_int_equal(xattr(FUSE_SETXATTR, n, "user.a/b", "value", 0), 0); /* it is not a file's name */
    assert_int_equal(xattr(FUSE_GETXATTR, n, "user.a/b", NULL, 5), 0);
    assert_reply("value");
    assert_int_equal(symlink("a", host("l")), 0);
    assert_int_equal(xattr(FUSE_LISTXATTR, fs_rig_found(&g, ROOT, "l"), "", NULL, 100), 0);
    assert_int_equal(g.len, 0);
    assert_int_equal(xattr(FUSE_SETXATTR, n, "security.capability", "value", 0), -EOPNOTSUPP);
    assert_int_equal(xattr(FUSE_SETXATTR, n, "trusted.x", "value", 0), -EOPNOTSUPP);
    assert_int_equal(xattr(FUSE_SETXATTR, n, "user.", "value", 0), -EOPNOTSUPP);
}

static void the_file_system_is_described(void **s)
{
    (void)s;
    assert_int_equal(fs_rig_call(&g, FUSE_STATFS, ROOT, NULL, 0, NULL, 0), 0);
    assert_int_equal(g.len, sizeof(struct fuse_statfs_out));
    assert_int_equal(((struct fuse_statfs_out *)g.reply)->st.namelen, 255);
}

/* ---- Read-only ---- */

static void a_read_only_share_stays_as_it_is(void **s)
{
    struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = 0};
    struct fuse_mknod_in node = {.mode = S_IFREG | 0600};
    uint64_t n, fh;

    (void)s;
    fs_rig_put(&g, "share/a", "A");
    n = fs_rig_found(&g, ROOT, "a");
    assert_int_equal(fs_rig_open(&g, n, O_RDWR, &fh), -EROFS);
    assert_int_equal(fs_rig_open(&g, n, O_RDONLY | O_TRUNC, &fh), -EROFS);
    fh = fs_rig_opened(&g, n, O_RDONLY);
    assert_int_equal(fs_rig_read(&g, n, fh, 0, 10), 0);
    assert_reply("A");
    assert_int_equal(fs_rig_write(&g, n, fh, 0, "x", 1), -EROFS);
    assert_int_equal(fs_rig_create(&g, ROOT, "b", 0600, &n, &fh), -EROFS);
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "b", &n), -EROFS);
    assert_int_equal(fs_rig_remove(&g, ROOT, "a", false), -EROFS);
    assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, "b", 0), -EROFS);
    assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), -EROFS);
    assert_int_equal(fs_rig_call(&g, FUSE_MKNOD, ROOT, &node, sizeof(node), "b", 2), -EROFS);
    assert_int_equal(xattr(FUSE_SETXATTR, n, "user.k", "value", 0), -EROFS);
    assert_host_has("a", "A");
    assert_int_equal(fs_rig_names(&g, ROOT, true, names, sizeof(names)), 0);
    assert_string_equal(names, "a");
}

/* ---- What does not start ---- */

static void refuse(const char *dir, int code, const char *why)
{
    struct fs_opts o = {.dir = dir};
    struct fs *fs;
    struct err err;

    assert_int_equal(fs_create(&o, &g.lane, &fs, &err), -code);
    assert_non_null(strstr(err.msg, dir));
    assert_non_null(strstr(err.msg, why));
    assert_null(strchr(err.msg, '\n'));
}

static void what_is_no_directory_of_files_is_refused(void **s)
{
    (void)s;
    fs_rig_put(&g, "share/file", "");
    refuse(host("file"), ENOTDIR, "share the directory");
    refuse(host("none"), ENOENT, "No such file");
    refuse("/proc", EINVAL, "kernel");
    refuse("/proc/self/fd", EINVAL, "kernel");
}

int main(void)
{
#define RW(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RW(init_says_what_both_can),
        RW(nothing_works_before_init_and_all_is_gone_after_destroy),
        RW(what_is_not_there_is_not_implemented),
        RW(a_file_is_written_and_read),
        RW(handles_do_only_what_they_were_opened_for),
        RW(large_requests_arrive_whole),
        RW(an_open_file_outlives_its_name),
        RW(a_file_without_a_name_can_get_one),
        RW(what_appends_is_at_the_end_and_pages_where_they_belong),
        RW(files_have_holes_space_and_copies),
        RW(directories_are_listed_and_changed),
        RW(what_is_only_looked_at_takes_no_descriptors),
        RW(a_directory_that_was_walked_into_may_be_moved_by_the_host),
        RW(renamed_files_keep_their_number),
        RW(links_symbolic_and_hard),
        RW(fifos_and_sockets_are_made_but_never_opened),
        RW(attributes_are_set),
        RW(who_truncates_a_file_may_not_leave_it_set_user_id),
        RW(what_has_no_name_has_its_directorys_group),
        RW(owners_are_mapped),
        RW(extended_attributes_are_the_users_only),
        RW(the_file_system_is_described),
        cmocka_unit_test_setup_teardown(a_read_only_share_stays_as_it_is, set_up_ro, tear_down),
        RW(what_is_no_directory_of_files_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
