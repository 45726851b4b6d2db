#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/testing/vdriver.h"
#include "vmm/base/test.h"

enum { HIPRIO, QUEUE, DATA = 200000 };

static struct vdriver d;
static char dir[64];

static void put_file(const char *name, size_t size)
{
    char path[100];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    for (size_t i = 0; i < size; i++)
        fputc((int)(i % 251), f);
    assert_int_equal(fclose(f), 0);
}

static int set_up(const struct vdriver_transport *t)
{
    char options[100];

    snprintf(dir, sizeof(dir), "/tmp/bothy-virtio-fs-XXXXXX");
    assert_non_null(mkdtemp(dir));
    put_file("file", DATA);
    snprintf(options, sizeof(options), "path=%s,tag=the-tag,queues=2,mode=rw", dir);
    vdriver_create(&d, t, device_class_find("virtio-fs"), options);
    vdriver_start(&d, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
    return 0;
}

static int set_up_mmio(void **s)
{
    (void)s;
    return set_up(&vdriver_mmio);
}

static int set_up_pci(void **s)
{
    (void)s;
    return set_up(&vdriver_pci);
}

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

static int tear_down(void **s)
{
    (void)s;
    vdriver_destroy(&d);
    return nftw(dir, delete_one, 8, FTW_DEPTH | FTW_PHYS);
}

static gpa_t reply_at;

/* Sends a request, and has room for `room` bytes of reply in pieces of a page; the length used. */
static uint32_t request(unsigned queue, uint32_t opcode, uint64_t node, const void *args, uint32_t len, uint32_t room)
{
    struct fuse_in_header h = {.len = (uint32_t)sizeof(h) + len, .opcode = opcode, .unique = 42, .nodeid = node};
    struct vdriver_buf bufs[100] = {{vdriver_alloc(&d, 4096), sizeof(h), false}, {vdriver_alloc(&d, 4096), len, false}};
    unsigned n = len ? 2 : 1;
    uint16_t id;
    uint32_t used;

    assert_int_equal(gmem_write(d.e.env.mem, bufs[0].addr, &h, sizeof(h)), 0);
    if (len)
        assert_int_equal(gmem_write(d.e.env.mem, bufs[1].addr, args, len), 0);
    reply_at = vdriver_alloc(&d, room);
    for (uint32_t at = 0; at < room; at += 4096)
        bufs[n++] = (struct vdriver_buf){reply_at + at, (uint32_t)min_u64(4096, room - at), true};
    vdriver_add(&d, queue, bufs, n, true);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, queue, &id, &used));
    return used;
}

/* The same, to be answered with `body` bytes and no error. */
static void ask(unsigned queue, uint32_t opcode, uint64_t node, const void *args, uint32_t len, void *body,
                uint32_t body_len)
{
    struct fuse_out_header h;

    assert_int_equal(request(queue, opcode, node, args, len, sizeof(h) + body_len), sizeof(h) + body_len);
    assert_int_equal(gmem_read(d.e.env.mem, reply_at, &h, sizeof(h)), 0);
    assert_int_equal(h.error, 0);
    assert_int_equal(h.unique, 42);
    assert_int_equal(h.len, sizeof(h) + body_len);
    if (body_len)
        assert_int_equal(gmem_read(d.e.env.mem, reply_at + sizeof(h), body, body_len), 0);
}

static void begin(void)
{
    struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u};
    struct fuse_init_out out;

    ask(QUEUE, FUSE_INIT, 0, &in, sizeof(in), &out, sizeof(out));
    assert_int_equal(out.major, 7);
}

static void the_tag_and_the_queues_are_in_the_configuration(void **s)
{
    (void)s;
    assert_int_equal(vdriver_config(&d, 0, 4), 0x2d656874); /* "the-" */
    assert_int_equal(vdriver_config(&d, 4, 4), 0x676174);
    assert_int_equal(vdriver_config(&d, 32, 4), 0);
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_fs_config, num_request_queues), 4), 2);
    assert_int_equal(d.v->nqueues, 3);
}

static void a_file_is_found_read_and_forgotten(void **s)
{
    static uint8_t data[DATA];
    struct fuse_entry_out e;
    struct fuse_open_in open_in = {.flags = O_RDWR};
    struct fuse_open_out o;
    struct fuse_read_in read_in = {.size = DATA};
    struct fuse_out_header h;

    (void)s;
    begin();
    ask(QUEUE, FUSE_LOOKUP, FUSE_ROOT_ID, "file", 5, &e, sizeof(e));
    assert_int_equal(e.attr.size, DATA);
    ask(QUEUE + 1, FUSE_OPEN, e.nodeid, &open_in, sizeof(open_in), &o, sizeof(o));
    read_in.fh = o.fh;
    ask(QUEUE, FUSE_READ, e.nodeid, &read_in, sizeof(read_in), data, sizeof(data));
    for (size_t i = 0; i < DATA; i++)
        assert_int_equal(data[i], i % 251);
    ask(QUEUE, FUSE_RELEASE, e.nodeid, &(struct fuse_release_in){.fh = o.fh}, sizeof(struct fuse_release_in), NULL, 0);
    assert_int_equal(request(HIPRIO, FUSE_FORGET, e.nodeid, &(struct fuse_forget_in){1}, 8, 0), 0); /* no reply */
    assert_int_equal(request(QUEUE, FUSE_GETATTR, e.nodeid, &(struct fuse_getattr_in){0}, 16, 200), sizeof(h));
    assert_int_equal(gmem_read(d.e.env.mem, reply_at, &h, sizeof(h)), 0);
    assert_int_equal(h.error, -ESTALE);
}

static void many_requests_at_once_are_all_answered(void **s)
{
    struct fuse_entry_out e;
    struct fuse_open_in open_in = {.flags = O_RDWR};
    struct fuse_open_out o;
    struct fuse_in_header h = {.opcode = FUSE_WRITE, .unique = 7};
    struct fuse_write_in in = {.size = 4096};
    enum { MANY = 100 };
    unsigned answered = 0;
    uint16_t id;
    uint32_t used;

    (void)s;
    begin();
    ask(QUEUE, FUSE_LOOKUP, FUSE_ROOT_ID, "file", 5, &e, sizeof(e));
    ask(QUEUE, FUSE_OPEN, e.nodeid, &open_in, sizeof(open_in), &o, sizeof(o));
    h.nodeid = e.nodeid;
    h.len = sizeof(h) + sizeof(in) + 4096;
    in.fh = o.fh;
    for (unsigned i = 0; i < MANY; i++) {
        gpa_t at = vdriver_alloc(&d, 8192);
        const struct vdriver_buf bufs[] = {
            {at, sizeof(h) + sizeof(in), false}, {at + 4096, 4096, false}, {at + 1024, 24, true}};

        in.offset = i * 4096;
        assert_int_equal(gmem_write(d.e.env.mem, at, &h, sizeof(h)), 0);
        assert_int_equal(gmem_write(d.e.env.mem, at + sizeof(h), &in, sizeof(in)), 0);
        vdriver_add(&d, QUEUE, bufs, 3, false);
    }
    vdriver_kick(&d, QUEUE);
    vdriver_run(&d);
    while (vdriver_used(&d, QUEUE, &id, &used)) {
        assert_int_equal(used, 24);
        answered++;
    }
    assert_int_equal(answered, MANY);
    ask(QUEUE, FUSE_LOOKUP, FUSE_ROOT_ID, "file", 5, &e, sizeof(e));
    assert_int_equal(e.attr.size, MANY * 4096);
}

static void a_reset_ends_the_mount(void **s)
{
    struct fuse_out_header h;

    (void)s;
    begin();
    vdriver_start(&d, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
    assert_int_equal(request(QUEUE, FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, 200), sizeof(h));
    assert_int_equal(gmem_read(d.e.env.mem, reply_at, &h, sizeof(h)), 0);
    assert_int_equal(h.error, -EIO);
    begin();
}

/* A mounted share is told from others when the state is loaded. */
static void state_is_refused_while_the_share_is_mounted(void **s)
{
    struct err err;

    (void)s;
    for (int mounted = 0; mounted < 2; mounted++) {
        struct state_writer w = {0};
        struct state_reader r;

        if (mounted)
            begin();
        device_stop(&d.v->dev);
        device_save(&d.v->dev, &w);
        r = (struct state_reader){.buf = w.buf, .len = w.len};
        if (mounted) {
            assert_true(device_load(&d.v->dev, &r, &err) < 0);
            assert_non_null(strstr(err.msg, "unmount"));
            device_reset(&d.v->dev);
        } else {
            assert_int_equal(device_load(&d.v->dev, &r, &err), 0);
        }
        device_settle(&d.v->dev);
        device_start(&d.v->dev);
        state_writer_fini(&w);
    }
}

static void options_that_cannot_be_are_refused(void **s)
{
    static const struct {
        const char *options, *why;
    } rows[] = {
        {"tag=x", "path=DIR"},
        {"path=/none/there", "/none/there"},
        {"path=/dev/null", "not a directory"},
        {"path=.,tag=", "name to mount"},
        {"path=.,tag=0123456789012345678901234567890123456", "36"},
    };
    const struct device_class *cls = device_class_find("virtio-fs");

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct device *dev;
        struct err err;

        assert_int_equal(device_create(cls, "x", rows[i].options, &dev, &err), 0);
        assert_true(device_init(dev, &d.e.env, d.e.env.loop, &err) < 0);
        assert_non_null(strstr(err.msg, rows[i].why));
        device_destroy(dev);
    }
}

int main(void)
{
#define BOTH(t)                                                 \
    cmocka_unit_test_setup_teardown(t, set_up_mmio, tear_down), \
        cmocka_unit_test_setup_teardown(t, set_up_pci, tear_down)
    const struct CMUnitTest tests[] = {
        BOTH(the_tag_and_the_queues_are_in_the_configuration), BOTH(a_file_is_found_read_and_forgotten),
        BOTH(many_requests_at_once_are_all_answered),          BOTH(a_reset_ends_the_mount),
        BOTH(state_is_refused_while_the_share_is_mounted),     BOTH(options_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
