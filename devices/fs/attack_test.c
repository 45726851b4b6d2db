/*
 * Guests that try to leave the directory, to make the server keep more than it may, or to confuse it.  Beside the
 * shared directory lies a sentinel: after each test it is as it was, and nothing of it was read.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/fs/fs_rig.h"
#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { ROOT = FUSE_ROOT_ID };
static const char secret[] = "the sentinel's content";

static struct fs_rig g;

static const char *host(const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % array_len(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", g.top, name);
    return path;
}

static int set_up(void **s)
{
    (void)s;
    fs_rig_init(&g, &(struct fs_opts){.mode = FS_RW});
    fs_rig_put(&g, "sentinel", secret);
    assert_int_equal(mkdir(host("outside"), 0755), 0);
    fs_rig_put(&g, "outside/file", secret);
    return 0;
}

static int tear_down(void **s)
{
    cleanup_free char *a = fs_rig_get(&g, "sentinel"), *b = fs_rig_get(&g, "outside/file");
    struct stat st;

    (void)s;
    assert_string_equal(a, secret);
    assert_string_equal(b, secret);
    assert_int_equal(lstat(host("sentinel"), &st), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(lstat(host("outside"), &st), 0);
    assert_int_equal(st.st_nlink, 2);
    fs_rig_fini(&g);
    return 0;
}

/* Each operation that takes a name, with each name that is none. */
static void names_that_are_no_names(void **s)
{
    static const struct {
        const char *bytes;
        size_t len;
    } names[] = {
        {"..", 3},           {".", 2},    {"", 1},  {"/", 2}, {"../sentinel", 12}, {"a/b", 4},
        {"/etc/passwd", 12}, {"a\0b", 4}, {"a", 1}, {"", 0},
    };
    static const struct {
        uint32_t opcode;
        size_t args;
    } ops[] = {{FUSE_LOOKUP, 0},
               {FUSE_MKNOD, sizeof(struct fuse_mknod_in)},
               {FUSE_MKDIR, sizeof(struct fuse_mkdir_in)},
               {FUSE_UNLINK, 0},
               {FUSE_RMDIR, 0},
               {FUSE_CREATE, sizeof(struct fuse_create_in)},
               {FUSE_LINK, sizeof(struct fuse_link_in)}};
    static const char *const pairs[] = {"..", "../sentinel", "/etc", "."};
    uint8_t args[64] = {0};
    uint64_t n;

    (void)s;
    fs_rig_put(&g, "share/a", "");
    n = fs_rig_found(&g, ROOT, "a");
    memcpy(args, &n, sizeof(n)); /* of FUSE_LINK; as a mode it is a file's */
    for (size_t o = 0; o < array_len(ops); o++)
        for (size_t i = 0; i < array_len(names); i++) {
            struct fuse_mknod_in node = {.mode = S_IFREG | 0600};
            bool is_node = ops[o].opcode == FUSE_MKNOD;

            assert_int_equal(fs_rig_call(&g, ops[o].opcode, ROOT, is_node ? (void *)&node : args, ops[o].args,
                                         names[i].bytes, names[i].len),
                             -EINVAL);
        }
    for (size_t i = 0; i < array_len(pairs); i++) {
        assert_int_equal(fs_rig_rename(&g, ROOT, "a", ROOT, pairs[i], 0), -EINVAL);
        assert_int_equal(fs_rig_rename(&g, ROOT, pairs[i], ROOT, "b", 0), -EINVAL);
    }
}

static void long_names_are_refused(void **s)
{
    char name[600];
    uint64_t n;

    (void)s;
    memset(name, 'x', sizeof(name));
    name[599] = 0;
    assert_int_equal(fs_rig_lookup(&g, ROOT, name, &n), -ENAMETOOLONG);
    name[256] = 0;
    assert_int_equal(fs_rig_lookup(&g, ROOT, name, &n), -ENAMETOOLONG);
    name[255] = 0;
    assert_int_equal(fs_rig_mkdir(&g, ROOT, name, &n), 0);
}

/* Links are for the guest to follow: the server shows them as what they are. */
static void symbolic_links_lead_nowhere(void **s)
{
    static const char *const targets[] = {"../sentinel", "/etc/passwd", "../outside", ".", "/proc/self/mem", "loop"};
    uint64_t n, fh, x;

    (void)s;
    for (size_t i = 0; i < array_len(targets); i++) {
        struct fuse_setattr_in in = {.valid = FATTR_SIZE};

        assert_int_equal(symlink(targets[i], host("share/l")), 0);
        n = fs_rig_found(&g, ROOT, "l");
        assert_int_equal(fs_rig_open(&g, n, O_RDWR, &fh), -EACCES);
        assert_int_equal(fs_rig_open(&g, n, O_DIRECTORY, &fh), -ENOTDIR);
        assert_int_equal(fs_rig_lookup(&g, n, "file", &x), -ENOTDIR);
        assert_int_not_equal(fs_rig_mkdir(&g, n, "made", &x), 0);
        assert_int_not_equal(fs_rig_remove(&g, n, "file", false), 0);
        assert_int_equal(fs_rig_create(&g, ROOT, "l", 0600, &x, &fh), -EEXIST);
        assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), -EINVAL);
        in.valid = FATTR_MODE;
        assert_int_equal(fs_rig_call(&g, FUSE_SETATTR, n, &in, sizeof(in), NULL, 0), -EOPNOTSUPP);
        assert_int_equal(fs_rig_remove(&g, ROOT, "l", false), 0);
    }
}

static atomic_bool swapping;

/* "d" is a directory of the share's, then a link to the one outside, and so on. */
static void *swap(void *arg)
{
    (void)arg;
    while (atomic_load(&swapping)) {
        rename(host("share/d"), host("share/real"));
        rename(host("share/link"), host("share/d"));
        rename(host("share/d"), host("share/link"));
        rename(host("share/real"), host("share/d"));
    }
    return NULL;
}

static void a_directory_that_becomes_a_link_meanwhile(void **s)
{
    const char *factor = getenv("BOTHY_TEST_FACTOR");
    int rounds = 2000 * (factor ? atoi(factor) : 1);
    uint64_t d, n, fh;
    pthread_t t;

    (void)s;
    assert_int_equal(mkdir(host("share/d"), 0755), 0);
    fs_rig_put(&g, "share/d/file", "inside");
    assert_int_equal(symlink("../outside", host("share/link")), 0);
    atomic_store(&swapping, true);
    assert_int_equal(pthread_create(&t, NULL, swap, NULL), 0);
    for (int i = 0; i < rounds; i++) {
        if (fs_rig_lookup(&g, ROOT, "d", &d))
            continue;
        if (!fs_rig_create(&g, d, "new", 0600, &n, &fh)) {
            assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
            fs_rig_remove(&g, d, "new", false);
        }
        if (!fs_rig_lookup(&g, d, "file", &n) && !fs_rig_open(&g, n, O_RDWR, &fh)) {
            assert_int_equal(fs_rig_read(&g, n, fh, 0, 100), 0);
            assert_int_equal(g.len, 6);
            assert_memory_equal(g.reply, "inside", 6);
            assert_int_equal(fs_rig_release(&g, n, fh, false), 0);
        }
        fs_rig_forget(&g, d, UINT64_MAX); /* so that all is opened anew */
    }
    atomic_store(&swapping, false);
    pthread_join(t, NULL);
    assert_int_equal(fs_rig_open(&g, fs_rig_found(&g, fs_rig_found(&g, ROOT, "d"), "file"), O_RDWR, &fh), 0);
}

static void devices_are_neither_made_nor_opened(void **s)
{
    struct fuse_mknod_in in = {.rdev = 0x103};
    static const uint32_t modes[] = {S_IFCHR | 0666, S_IFBLK | 0666, S_IFDIR | 0755, S_IFLNK | 0777, 0, 0170000};
    uint64_t n, fh;

    (void)s;
    for (size_t i = 0; i < array_len(modes); i++) {
        in.mode = modes[i];
        assert_int_equal(fs_rig_call(&g, FUSE_MKNOD, ROOT, &in, sizeof(in), "dev", 4), -EPERM);
    }
    if (mknod(host("share/dev"), S_IFCHR | 0666, 0x103)) /* needs root */
        return;
    n = fs_rig_found(&g, ROOT, "dev");
    assert_int_equal(fs_rig_open(&g, n, O_RDONLY, &fh), -EACCES);
}

/* A fifo that the host's user puts in the place of a file would stop whoever opens it. */
static void a_file_that_becomes_a_fifo_is_not_opened(void **s)
{
    uint64_t n, fh;

    (void)s;
    fs_rig_put(&g, "share/f", "");
    n = fs_rig_found(&g, ROOT, "f");
    fs_rig_forget(&g, n, 1);
    assert_int_equal(unlink(host("share/f")), 0);
    assert_int_equal(mkfifo(host("share/f"), 0600), 0);
    assert_int_equal(fs_rig_create(&g, ROOT, "f", 0600, &n, &fh), -EEXIST);
    n = fs_rig_found(&g, ROOT, "f");
    assert_int_equal(fs_rig_open(&g, n, O_RDONLY, &fh), -EACCES);
}

static void numbers_that_nobody_gave_are_stale(void **s)
{
    uint64_t n, stale[6], x;
    struct fuse_attr a;

    (void)s;
    fs_rig_put(&g, "share/a", "");
    n = fs_rig_found(&g, ROOT, "a");
    stale[0] = n + 1;
    stale[1] = n + (1ull << 32);
    stale[2] = 0;
    stale[3] = UINT64_MAX;
    stale[4] = NODES_MAX + 1;
    stale[5] = n;
    assert_int_equal(fs_rig_forget(&g, n, 1), 1);
    for (size_t i = 0; i < array_len(stale); i++) {
        assert_int_equal(fs_rig_getattr(&g, stale[i], &a), -ESTALE);
        assert_int_equal(fs_rig_lookup(&g, stale[i], "a", &x), -ESTALE);
        assert_int_equal(fs_rig_rename(&g, ROOT, "a", stale[i], "b", 0), -ESTALE);
        assert_int_equal(fs_rig_call(&g, FUSE_LINK, ROOT, &(struct fuse_link_in){stale[i]}, 8, "c", 2), -ESTALE);
        assert_int_equal(fs_rig_forget(&g, stale[i], 1), 1);
    }
    for (uint64_t fh = 0; fh < 4; fh++)
        assert_int_equal(fs_rig_read(&g, fs_rig_found(&g, ROOT, "a"), fh, 0, 1), -EBADF);
}

static void forgetting_too_much_is_harmless(void **s)
{
    struct {
        struct fuse_batch_forget_in in;
        struct fuse_forget_one one[3];
    } batch = {.in.count = UINT32_MAX};
    uint64_t d, n, fh;
    struct fuse_attr a;

    (void)s;
    assert_int_equal(fs_rig_mkdir(&g, ROOT, "d", &d), 0);
    assert_int_equal(fs_rig_create(&g, d, "f", 0600, &n, &fh), 0);
    assert_int_equal(fs_rig_forget(&g, d, UINT64_MAX), 1); /* before what is in it */
    assert_int_equal(fs_rig_getattr(&g, d, &a), -ESTALE);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    assert_int_equal(fs_rig_forget(&g, n, 5), 1); /* while it is open */
    assert_int_equal(fs_rig_getattr(&g, n, &a), -ESTALE);
    assert_int_equal(fs_rig_release(&g, n, fh, false), -ESTALE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fs_rig_forget(&g, ROOT, UINT64_MAX), 1);
    for (int i = 0; i < 3; i++)
        batch.one[i] = (struct fuse_forget_one){.nodeid = fs_rig_found(&g, ROOT, "d"), .nlookup = UINT64_MAX - 1};
    assert_int_equal(fs_rig_call(&g, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL, 0), 1);
    assert_int_equal(fs_rig_getattr(&g, batch.one[0].nodeid, &a), -ESTALE);
    assert_int_equal(fs_rig_getattr(&g, ROOT, &a), 0);
}

/* So that its node has a descriptor. */
static void use(uint64_t file)
{
    assert_int_equal(fs_rig_release(&g, file, fs_rig_opened(&g, file, O_RDONLY), false), 0);
}

/* What the host's user moves away under the guest. */
static void moved_and_replaced_files_are_stale(void **s)
{
    uint64_t d, n, fh;
    struct fuse_attr a;
    char name[32];

    (void)s;
    assert_int_equal(mkdir(host("share/d"), 0755), 0);
    fs_rig_put(&g, "share/d/f", "inside");
    d = fs_rig_found(&g, ROOT, "d");
    n = fs_rig_found(&g, d, "f");
    use(n);
    g.fs->open_max = 4; /* so that descriptors are closed */
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "share/x%d", i);
        fs_rig_put(&g, name, "");
        use(fs_rig_found(&g, ROOT, name + 6));
    }
    assert_in_range(g.fs->nrecent, 4, 5);
    assert_int_equal(fs_rig_getattr(&g, n, &a), 0);
    use(n); /* opened again, by its way */
    for (int i = 4; i < 12; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        use(fs_rig_found(&g, ROOT, name));
    }
    assert_int_equal(rename(host("share/d"), host("share/e")), 0);
    assert_int_equal(symlink("../outside", host("share/d")), 0);
    assert_int_equal(fs_rig_getattr(&g, n, &a), -ESTALE);
    assert_int_equal(fs_rig_open(&g, n, O_RDWR, &fh), -ESTALE);
    assert_int_equal(fs_rig_lookup(&g, d, "file", &n), -ESTALE);
    assert_int_equal(fs_rig_found(&g, ROOT, "e"), d); /* and good again once it is found */
    assert_int_equal(fs_rig_getattr(&g, fs_rig_found(&g, d, "f"), &a), 0);
}

/* The host turns a directory and the one above it around, between two looks. */
static void parents_that_go_in_circles(void **s)
{
    uint64_t a, b, none;
    struct fuse_attr attr;

    (void)s;
    assert_int_equal(mkdir(host("share/a"), 0755), 0);
    assert_int_equal(mkdir(host("share/a/b"), 0755), 0);
    a = fs_rig_found(&g, ROOT, "a");
    b = fs_rig_found(&g, a, "b");
    assert_int_equal(fs_rig_lookup(&g, b, "none", &none), -ENOENT); /* it has a descriptor now */
    assert_int_equal(rename(host("share/a/b"), host("share/b")), 0);
    assert_int_equal(rename(host("share/a"), host("share/b/a")), 0);
    assert_int_equal(fs_rig_found(&g, b, "a"), a);
    assert_int_equal(fs_rig_getattr(&g, a, &attr), 0);
    assert_int_equal(fs_rig_found(&g, ROOT, "b"), b);
    assert_int_equal(fs_rig_getattr(&g, b, &attr), 0);
    fs_rig_forget(&g, b, 100);
    fs_rig_forget(&g, a, 100);
    assert_int_equal(fs_rig_getattr(&g, a, &attr), -ESTALE);
}

static void kernel_interfaces_are_empty_directories(void **s)
{
    struct fs_opts o = {.dir = "/"};
    struct fs_rig r;
    uint64_t proc, n;
    char names[4096];

    (void)s;
    fs_rig_init(&r, &o);
    assert_int_equal(fs_rig_lookup(&r, ROOT, "proc", &proc), 0);
    assert_int_equal(fs_rig_lookup(&r, proc, "self", &n), -ENOENT);
    assert_int_equal(fs_rig_lookup(&r, proc, "1", &n), -ENOENT);
    assert_int_equal(fs_rig_names(&r, proc, true, names, sizeof(names)), 0);
    assert_string_equal(names, "");
    fs_rig_fini(&r);
}

/* ---- What a guest can make the server keep ---- */

static void handles_are_limited(void **s)
{
    uint64_t n, fh[200];
    unsigned i = 0;
    int rc = 0;

    (void)s;
    fs_rig_put(&g, "share/a", "");
    n = fs_rig_found(&g, ROOT, "a");
    g.fs->open_max = 100;
    while (i < 200 && !(rc = fs_rig_open(&g, n, O_RDONLY, &fh[i])))
        i++;
    assert_int_equal(i, 100);
    assert_int_equal(rc, -ENFILE);
    assert_int_equal(fs_rig_release(&g, n, fh[7], false), 0);
    assert_int_equal(fs_rig_open(&g, n, O_RDONLY, &fh[7]), 0);
}

static void listings_are_limited(void **s)
{
    struct fuse_read_in in = {.size = 4096};
    int rc = 0;
    unsigned i;

    (void)s;
    g.fs->listed = LISTED_MAX - 10000; /* as if there were others */
    for (i = 0; i < 20; i++) {
        assert_int_equal(fs_rig_open(&g, ROOT, O_DIRECTORY, &in.fh), 0);
        rc = fs_rig_call(&g, FUSE_READDIR, ROOT, &in, sizeof(in), NULL, 0);
        if (rc)
            break;
    }
    assert_int_equal(rc, -ENOMEM);
    assert_in_range(i, 1, 10);
    g.fs->listed -= LISTED_MAX - 10000;
}

static void listings_from_anywhere_and_into_anything(void **s)
{
    struct fuse_read_in in = {0};
    static const uint64_t offsets[] = {0, 1, 2, 3, 1000, UINT32_MAX, 1ull << 32, INT64_MAX, UINT64_MAX};
    static const uint32_t sizes[] = {0, 1, 23, 24, 31, 32, 159, 160, 4096, UINT32_MAX};

    (void)s;
    assert_int_equal(fs_rig_open(&g, ROOT, O_DIRECTORY, &in.fh), 0);
    for (size_t i = 0; i < array_len(offsets); i++)
        for (size_t j = 0; j < array_len(sizes); j++)
            for (uint32_t op = FUSE_READDIR; op <= FUSE_READDIRPLUS; op += FUSE_READDIRPLUS - FUSE_READDIR) {
                int rc;

                in.offset = offsets[i];
                in.size = sizes[j];
                rc = fs_rig_call(&g, op, ROOT, &in, sizeof(in), NULL, 0);
                assert_true(!rc || rc == -EINVAL);
                assert_in_range(g.len, 0, in.size);
            }
}

static void the_same_lookups_take_no_more_memory(void **s)
{
    size_t before = 0;

    (void)s;
    fs_rig_put(&g, "share/a", "");
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t n = fs_rig_found(&g, ROOT, "a"), m;

        assert_int_equal(fs_rig_lookup(&g, ROOT, "none", &m), -ENOENT);
        if (i % 3 == 0)
            fs_rig_forget(&g, n, i % 2 ? 1 : UINT64_MAX);
        if (i == 1000)
            before = mallinfo2().uordblks;
    }
    assert_in_range(mallinfo2().uordblks, 0, before + 4096);
}

/* ---- Requests that are none ---- */

static void headers_that_lie(void **s)
{
    union {
        struct fuse_in_header h;
        uint8_t bytes[256];
    } r = {.h = {.opcode = FUSE_GETATTR, .nodeid = ROOT}};
    static const uint32_t lens[] = {0, 39, 40, 41, 55, 57, 1000, UINT32_MAX};

    (void)s;
    for (size_t n = 0; n < 40; n++)
        assert_int_equal(fs_rig_raw(&g, r.bytes, n), 1);
    for (size_t i = 0; i < array_len(lens); i++) {
        r.h.len = lens[i];
        assert_int_equal(fs_rig_raw(&g, r.bytes, 56), -EINVAL);
    }
    r.h.len = 56;
    r.h.total_extlen = 1;
    assert_int_equal(fs_rig_raw(&g, r.bytes, 56), -EINVAL);
    r.h.total_extlen = 0;
    assert_int_equal(fs_rig_raw(&g, r.bytes, 56), 0);
    r.h.len = 55;
    assert_int_equal(fs_rig_raw(&g, r.bytes, 55), -EINVAL);
}

/* Every operation, with room for no reply, for part of one, and with arguments cut short everywhere. */
static void replies_have_no_room(void **s)
{
    static const size_t rooms[] = {0, 1, 15, 16, 17, 24, 31, 100};
    uint8_t args[200] = {1};

    (void)s;
    for (uint32_t op = 0; op < 64; op++)
        for (size_t len = 0; len <= sizeof(args); len += 4)
            for (size_t i = 0; i < array_len(rooms); i++) {
                g.room = rooms[i];
                if (op == FUSE_DESTROY)
                    continue;
                fs_rig_call(&g, op, ROOT, args, len, NULL, 0);
                assert_in_range(g.len, 0, rooms[i]);
            }
    g.room = RIG_REPLY;
    assert_int_equal(fs_rig_start(&g), 0);
}

static bool finished;

static void finish(struct fs_req *r)
{
    (void)r;
    finished = true;
}

/* All handles would go while one of them is being written to. */
static void a_mount_does_not_end_under_a_write(void **s)
{
    struct {
        struct fuse_in_header h;
        struct fuse_write_in in;
        char data[8];
    } w = {.h = {.len = sizeof(w), .opcode = FUSE_WRITE}, .in.size = sizeof(w.data)};
    uint8_t reply[64];
    const struct iovec in = {&w, sizeof(w)}, out = {reply, sizeof(reply)};
    struct fs_req r = {
        .in = &in, .nin = 1, .in_len = sizeof(w), .out = &out, .nout = 1, .out_len = sizeof(reply), .done = finish};

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "a", 0600, &w.h.nodeid, &w.in.fh), 0);
    finished = false;
    assert_false(fs_request(g.fs, &r)); /* its end is for this thread to see */
    assert_int_equal(fs_rig_call(&g, FUSE_DESTROY, 0, NULL, 0, NULL, 0), -EBUSY);
    assert_int_equal(fs_rig_start(&g), -EBUSY);
    assert_int_equal(fs_rig_release(&g, w.h.nodeid, w.in.fh, false), 0); /* it stays open for the write */
    while (!finished)
        lane_drain(&g.lane);
    assert_int_equal(r.written, 24);
    assert_int_equal(fs_rig_call(&g, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
}

static void a_write_that_promises_more_than_there_is(void **s)
{
    struct fuse_write_in in = {.size = 100};
    uint64_t n;

    (void)s;
    assert_int_equal(fs_rig_create(&g, ROOT, "a", 0600, &n, &in.fh), 0);
    assert_int_equal(fs_rig_call(&g, FUSE_WRITE, n, &in, sizeof(in), "short", 5), -EINVAL);
    in.size = 5;
    in.offset = UINT64_MAX - 2;
    assert_int_equal(fs_rig_call(&g, FUSE_WRITE, n, &in, sizeof(in), "short", 5), -EINVAL);
    in.offset = INT64_MAX - 2;
    assert_int_not_equal(fs_rig_call(&g, FUSE_WRITE, n, &in, sizeof(in), "short", 5), 0);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(names_that_are_no_names),
        T(long_names_are_refused),
        T(symbolic_links_lead_nowhere),
        T(a_directory_that_becomes_a_link_meanwhile),
        T(devices_are_neither_made_nor_opened),
        T(a_file_that_becomes_a_fifo_is_not_opened),
        T(numbers_that_nobody_gave_are_stale),
        T(forgetting_too_much_is_harmless),
        T(moved_and_replaced_files_are_stale),
        T(parents_that_go_in_circles),
        T(kernel_interfaces_are_empty_directories),
        T(handles_are_limited),
        T(listings_are_limited),
        T(listings_from_anywhere_and_into_anything),
        T(the_same_lookups_take_no_more_memory),
        T(headers_that_lie),
        T(replies_have_no_room),
        T(a_mount_does_not_end_under_a_write),
        T(a_write_that_promises_more_than_there_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
