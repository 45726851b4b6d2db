#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>

#include "devices/testing/vdriver.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SIZE = 1 << 20, BAD = 0xee };

static struct vdriver d;
static int image;

static void insert(const char *options, uint64_t size)
{
    char text[128];

    image = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(image, (off_t)size), 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d%s", image, options);
    vdriver_create(&d, &vdriver_mmio, device_class_find("virtio-blk"), text);
}

static void eject(void)
{
    vdriver_destroy(&d);
    close(image);
}

#define BIT(f) (1ull << (f))
static const uint64_t all = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_DISCARD) |
                            BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_MQ);

/* Makes a request with `n` bytes of data at `data`, in two buffers if it can be; where its status byte is. */
static gpa_t submit(unsigned queue, uint32_t type, uint64_t sector, gpa_t data, uint32_t n, bool in)
{
    struct virtio_blk_outhdr h = {.type = htole32(type), .sector = htole64(sector)};
    gpa_t at = vdriver_alloc(&d, sizeof(h) + 1);
    const struct vdriver_buf bufs[] = {
        {at, sizeof(h), false}, {data, n / 2, in}, {data + n / 2, n - n / 2, in}, {at + sizeof(h), 1, true}};
    uint8_t status = BAD;

    assert_int_equal(gmem_write(d.e.env.mem, at, &h, sizeof(h)), 0);
    assert_int_equal(gmem_write(d.e.env.mem, at + sizeof(h), &status, 1), 0);
    vdriver_add(&d, queue, bufs, 4, false);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    return at + sizeof(h);
}

static uint8_t status_at(gpa_t at)
{
    uint8_t status;

    assert_int_equal(gmem_read(d.e.env.mem, at, &status, 1), 0);
    return status;
}

/* The same, answered; what its status byte says. */
static uint8_t request_on(unsigned queue, uint32_t type, uint64_t sector, gpa_t data, uint32_t n, bool in,
                          uint32_t *written)
{
    gpa_t status = submit(queue, type, sector, data, n, in);
    uint16_t id;

    assert_true(vdriver_used(&d, queue, &id, written));
    return status_at(status);
}

static uint8_t request(uint32_t type, uint64_t sector, gpa_t data, uint32_t n, bool in)
{
    uint32_t written;

    return request_on(0, type, sector, data, n, in, &written);
}

static uint8_t range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes seg = {htole64(sector), htole32(sectors), htole32(flags)};
    gpa_t at = vdriver_alloc(&d, sizeof(seg));

    assert_int_equal(gmem_write(d.e.env.mem, at, &seg, sizeof(seg)), 0);
    return request(type, 0, at, sizeof(seg), false);
}

static void write_then_read(unsigned queue, uint64_t sector)
{
    gpa_t out = vdriver_alloc(&d, 4096), in = vdriver_alloc(&d, 4096);
    char pattern[4096], got[4096];
    uint32_t written;

    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (char)(i * 3 + sector);
    assert_int_equal(gmem_write(d.e.env.mem, out, pattern, sizeof(pattern)), 0);
    assert_int_equal(request_on(queue, VIRTIO_BLK_T_OUT, sector, out, 4096, false, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 1);
    assert_int_equal(pread(image, got, sizeof(got), (off_t)sector * 512), 4096);
    assert_memory_equal(got, pattern, sizeof(got));
    assert_int_equal(request_on(queue, VIRTIO_BLK_T_IN, sector, in, 4096, true, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 4097);
    assert_int_equal(gmem_read(d.e.env.mem, in, got, sizeof(got)), 0);
    assert_memory_equal(got, pattern, sizeof(got));
}

static void what_is_written_reads_back(void **s)
{
    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    write_then_read(0, 0);
    write_then_read(0, SIZE / 512 - 8);
    vdriver_start(&d, 0); /* with no feature at all: each write goes through to the image */
    write_then_read(0, 40);
    eject();
}

static void every_queue_works(void **s)
{
    (void)s;
    insert(",queues=64", SIZE);
    assert_true(vdriver_offered(&d) & BIT(VIRTIO_BLK_F_MQ));
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_blk_config, num_queues), 2), 64);
    vdriver_start(&d, all);
    for (unsigned i = 0; i < 64; i++)
        write_then_read(i, i * 8);
    eject();
}

static void requests_beyond_the_disk_or_half_a_sector_fail(void **s)
{
    gpa_t at;

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, 4096);
    assert_int_equal(request(VIRTIO_BLK_T_IN, SIZE / 512, at, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, SIZE / 512 - 1, at, 1024, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, UINT64_MAX / 512, at, 1024, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, UINT64_MAX, at, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, at, 100, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, at, 0, true), VIRTIO_BLK_S_IOERR);
    eject();
}

static void a_read_only_disk_stays_as_it_is(void **s)
{
    gpa_t at;

    (void)s;
    insert(",ro", SIZE);
    assert_true(vdriver_offered(&d) & BIT(VIRTIO_BLK_F_RO));
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, 512);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, at, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, at, 512, true), VIRTIO_BLK_S_OK);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, at, 0, false), VIRTIO_BLK_S_OK);
    eject();
}

static void ranges_become_zeroes(void **s)
{
    char ones[8192], got[8192], zeroes[4096] = {0};

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    memset(ones, 1, sizeof(ones));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pwrite(image, ones, sizeof(ones), 0), sizeof(ones));
        if (i == 0)
            assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
        else
            assert_int_equal(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, i - 1), VIRTIO_BLK_S_OK);
        assert_int_equal(pread(image, got, sizeof(got), 0), sizeof(got));
        assert_memory_equal(got, zeroes, 4096);
        assert_memory_equal(got + 4096, ones, 4096);
    }
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP); /* unmap is for zeroes only */
    assert_int_equal(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, UINT64_MAX, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, vdriver_alloc(&d, 32), 32, false), VIRTIO_BLK_S_UNSUPP);
    eject();
}

static void one_range_is_a_gigabyte_at_most(void **s)
{
    (void)s;
    insert("", GiB(4));
    vdriver_start(&d, all);
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, 1 << 21, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, (1 << 21) + 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(VIRTIO_BLK_T_WRITE_ZEROES, 0, (1 << 21) + 1, 1), VIRTIO_BLK_S_IOERR);
    eject();
}

static void discard_can_be_forbidden(void **s)
{
    (void)s;
    insert(",discard=off", SIZE);
    assert_false(vdriver_offered(&d) & (BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES)));
    vdriver_start(&d, BIT(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(range(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
    eject();
}

static void the_serial_number_is_told(void **s)
{
    char got[VIRTIO_BLK_ID_BYTES];
    gpa_t at;

    (void)s;
    insert(",serial=0123456789abcdefghij", SIZE);
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, sizeof(got));
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, at, sizeof(got), true), VIRTIO_BLK_S_OK);
    assert_int_equal(gmem_read(d.e.env.mem, at, got, sizeof(got)), 0);
    assert_memory_equal(got, "0123456789abcdefghij", sizeof(got));
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, at, 4, true), VIRTIO_BLK_S_OK); /* as much as fits */
    eject();
}

static void unknown_commands_are_unsupported(void **s)
{
    gpa_t at;

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, 512);
    assert_int_equal(request(VIRTIO_BLK_T_SCSI_CMD, 0, at, 512, true), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(0x12345678, 0, at, 512, false), VIRTIO_BLK_S_UNSUPP);
    assert_false(vdriver_offered(&d) & BIT(VIRTIO_BLK_F_SCSI));
    eject();
}

#define CONFIG(f) vdriver_config(&d, offsetof(struct virtio_blk_config, f), sizeof(((struct virtio_blk_config *)0)->f))

static void limits_and_shape_are_in_the_configuration(void **s)
{
    (void)s;
    insert("", 64 * SIZE);
    assert_int_equal(CONFIG(capacity), 64 * SIZE / 512);
    assert_int_equal(CONFIG(seg_max), 254);
    assert_int_equal(CONFIG(blk_size), 512);
    assert_int_equal(CONFIG(physical_block_exp), 3);
    assert_int_equal(CONFIG(geometry.cylinders), 64 * SIZE / 512 / 16 / 63);
    assert_int_equal(CONFIG(wce), 1);
    eject();
    insert(",block-size=4096", SIZE);
    assert_int_equal(CONFIG(capacity), SIZE / 512); /* in 512s whatever the block size */
    assert_int_equal(CONFIG(blk_size), 4096);
    assert_int_equal(CONFIG(physical_block_exp), 0);
    eject();
}

static void the_cache_mode_is_the_drivers_choice_and_kept(void **s)
{
    char options[64];

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    vdriver_set_config(&d, offsetof(struct virtio_blk_config, wce), 0, 1);
    write_then_read(0, 8);
    snprintf(options, sizeof(options), "/proc/self/fd/%d", image);
    vdriver_move(&d, options);
    assert_int_equal(CONFIG(wce), 0);
    write_then_read(0, 16);
    vdriver_reset(&d);
    assert_int_equal(CONFIG(wce), 1);
    eject();
}

static void write_through_flushes_behind_every_write(void **s)
{
    static const struct {
        const char *options;
        uint8_t status;
    } rows[] = {
        {",filter=fault:op=flush:times=0", VIRTIO_BLK_S_OK},
        {",cache=unsafe,filter=fault:op=flush:times=0", VIRTIO_BLK_S_OK},
        {",cache=writethrough,filter=fault:op=flush:times=0", VIRTIO_BLK_S_IOERR},
        {",cache=writethrough", VIRTIO_BLK_S_OK},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        gpa_t at;

        insert(rows[i].options, SIZE);
        vdriver_start(&d, all & vdriver_offered(&d));
        at = vdriver_alloc(&d, 512);
        assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, at, 512, false), rows[i].status);
        eject();
    }
}

static void errors_are_told_unless_the_user_says_not_to(void **s)
{
    static const struct {
        const char *options;
        uint8_t read, write;
    } rows[] = {
        {",filter=fault:times=0", VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {",werror=report,rerror=ignore,filter=fault:times=0", VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR},
        {",file-filter=fault:op=change:times=0:do=enospc", VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR},
        {",werror=ignore,file-filter=fault:op=change:times=0:do=enospc", VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        gpa_t at;

        insert(rows[i].options, SIZE);
        vdriver_start(&d, all);
        at = vdriver_alloc(&d, 512);
        assert_int_equal(request(VIRTIO_BLK_T_IN, 0, at, 512, true), rows[i].read);
        assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, at, 512, false), rows[i].write);
        eject();
    }
}

/* The machine does what it was asked for, pauses; then the user has it continue. */
static void pause_and_continue(void)
{
    assert_int_equal(d.e.requests[REQ_PAUSE], 1);
    d.e.requests[REQ_PAUSE] = 0;
    device_stop(&d.v->dev); /* returns, whatever is kept */
    device_start(&d.v->dev);
    vdriver_run(&d);
}

static uint64_t info(const char *member)
{
    json_t *whole = device_info(&d.v->dev);
    uint64_t ret = (uint64_t)json_integer_value(json_object_get(whole, member));

    json_decref(whole);
    return ret;
}

static void a_request_that_failed_is_kept_until_it_goes(void **s)
{
    static const struct {
        const char *options;
        bool in;
    } rows[] = {
        {",werror=enospc,filter=fault:op=write:times=2:do=enospc", false},
        {",werror=stop,filter=fault:op=write:times=2", false},
        {",rerror=stop,filter=fault:op=read:times=2", true},
    };
    char pattern[4096], got[4096];
    uint32_t written;
    uint16_t id;

    (void)s;
    memset(pattern, 7, sizeof(pattern));
    for (size_t i = 0; i < array_len(rows); i++) {
        bool in = rows[i].in;
        gpa_t data, status;

        insert(rows[i].options, SIZE);
        vdriver_start(&d, all);
        data = vdriver_alloc(&d, sizeof(pattern));
        if (in)
            assert_int_equal(pwrite(image, pattern, sizeof(pattern), 4096), sizeof(pattern));
        else
            assert_int_equal(gmem_write(d.e.env.mem, data, pattern, sizeof(pattern)), 0);
        status = submit(0, in ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 8, data, sizeof(pattern), in);
        assert_non_null(strstr(d.e.why, in ? "dev0: read at byte 4096 of" : "dev0: write at byte 4096 of"));
        pause_and_continue(); /* and it fails again */
        assert_int_equal(info("kept"), 1);
        assert_false(vdriver_used(&d, 0, &id, &written));
        assert_int_equal(status_at(status), BAD);
        pause_and_continue();
        assert_int_equal(info("kept"), 0);
        assert_true(vdriver_used(&d, 0, &id, &written));
        assert_int_equal(written, in ? sizeof(pattern) + 1 : 1);
        assert_int_equal(status_at(status), VIRTIO_BLK_S_OK);
        if (in)
            assert_int_equal(gmem_read(d.e.env.mem, data, got, sizeof(got)), 0);
        else
            assert_int_equal(pread(image, got, sizeof(got), 4096), sizeof(got));
        assert_memory_equal(got, pattern, sizeof(got));
        assert_int_equal(d.e.requests[REQ_PAUSE], 0);
        eject();
    }
}

static void many_are_kept(void **s)
{
    enum { N = 100, QUEUES = 4, FAIL = 60 };
    gpa_t status[N];
    uint32_t written;
    uint16_t id;

    (void)s;
    insert(",queues=4,werror=stop,filter=fault:op=write:times=60", SIZE);
    vdriver_start(&d, all);
    for (uint32_t i = 0; i < N; i++) {
        gpa_t data = vdriver_alloc(&d, 512);

        assert_int_equal(gmem_write(d.e.env.mem, data, &i, sizeof(i)), 0);
        status[i] = submit(i % QUEUES, VIRTIO_BLK_T_OUT, i, data, 512, false);
        assert_int_equal(status_at(status[i]), i < FAIL ? BAD : VIRTIO_BLK_S_OK);
    }
    assert_int_equal(info("kept"), FAIL);
    d.e.requests[REQ_PAUSE] = 1; /* asked for with each of them */
    pause_and_continue();
    for (uint32_t i = 0; i < N; i++) {
        uint32_t there;

        assert_int_equal(pread(image, &there, sizeof(there), i * 512), sizeof(there));
        assert_int_equal(there, i);
        assert_int_equal(status_at(status[i]), VIRTIO_BLK_S_OK);
        assert_true(vdriver_used(&d, i % QUEUES, &id, &written));
    }
    assert_int_equal(info("kept"), 0);
    eject();
}

/* With writes that go through to the image, what may fail is the flush behind one. */
static void a_flush_is_kept_as_well(void **s)
{
    gpa_t data, status;

    (void)s;
    insert(",werror=stop,filter=fault:op=flush", SIZE);
    vdriver_start(&d, 0);
    data = vdriver_alloc(&d, 512);
    status = submit(0, VIRTIO_BLK_T_OUT, 0, data, 512, false);
    assert_int_equal(status_at(status), BAD);
    pause_and_continue();
    assert_int_equal(status_at(status), VIRTIO_BLK_S_OK);
    eject();
}

static void what_is_kept_ends_with_a_reset(void **s)
{
    uint32_t written;
    uint16_t id;

    (void)s;
    insert(",queues=2,werror=stop,filter=fault:op=write:times=4", SIZE);
    for (int queue_alone = 0; queue_alone < 2; queue_alone++) {
        vdriver_start(&d, all | BIT(VIRTIO_F_RING_RESET));
        for (unsigned i = 0; i < 2; i++)
            submit(i, VIRTIO_BLK_T_OUT, 0, vdriver_alloc(&d, 512), 512, false);
        assert_int_equal(info("kept"), 2);
        if (queue_alone) {
            vdriver_set(&d, VDR_QUEUE, 0);
            vdriver_set(&d, VDR_QUEUE_RESET, 1);
            assert_int_equal(info("kept"), 1);
        } else {
            vdriver_reset(&d);
            assert_int_equal(info("kept"), 0);
            d.e.requests[REQ_PAUSE] = 0;
        }
    }
    d.e.requests[REQ_PAUSE] = 1;
    pause_and_continue();
    assert_int_equal(info("kept"), 0);
    assert_true(vdriver_used(&d, 1, &id, &written));
    assert_int_equal(written, 1);
    submit(1, VIRTIO_BLK_T_OUT, 0, vdriver_alloc(&d, 512), 512, false);
    eject();
}

static void some_errors_are_told_at_once(void **s)
{
    gpa_t at;

    (void)s;
    insert(",werror=enospc,filter=fault:op=write", SIZE); /* the disk is not full, it is broken */
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, 512);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, at, 512, false), VIRTIO_BLK_S_IOERR);
    eject();
    insert(",werror=stop,rerror=stop,ro", SIZE); /* the guest is wrong, not the disk */
    vdriver_start(&d, all);
    at = vdriver_alloc(&d, 512);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, at, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, SIZE / 512, at, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(d.e.requests[REQ_PAUSE], 0);
    eject();
}

static int command(const char *name, const char *args, struct err *err)
{
    json_t *reply = json_object();
    int rc = device_command_run(&d.v->dev, device_command_find(&d.v->dev, name), args, reply, err);

    json_decref(reply);
    return rc;
}

static void the_disk_grows_while_it_is_in_use(void **s)
{
    struct err err;
    gpa_t at;

    (void)s;
    insert(",filter=throttle:iops=1000000", SIZE);
    vdriver_start(&d, all);
    vdriver_set_config(&d, offsetof(struct virtio_blk_config, wce), 0, 1);
    at = vdriver_alloc(&d, 512);
    assert_int_equal(request(VIRTIO_BLK_T_IN, SIZE / 512, at, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(d.t->interrupts(&d) & 2, 0);
    assert_int_equal(command("resize", "size=3M", &err), 0);
    assert_int_equal(d.t->interrupts(&d) & 2, 2);
    assert_int_equal(vdriver_config(&d, 0, 8), (3 << 20) / 512);
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_blk_config, wce), 1), 0); /* the driver's, as before */
    assert_int_equal(lseek(image, 0, SEEK_END), 3 << 20);
    write_then_read(0, (3 << 20) / 512 - 8);
    assert_int_equal(command("resize", "size=2M", &err), -EINVAL);
    assert_int_equal(command("resize", "size=3145729", &err), -EINVAL);
    assert_int_equal(command("resize", "", &err), -EINVAL);
    assert_int_equal(vdriver_config(&d, 0, 8), (3 << 20) / 512);
    eject();
    insert(",ro", SIZE);
    assert_int_equal(command("resize", "size=2M", &err), -EROFS);
    eject();
}

static void a_limit_comes_and_goes_while_the_disk_is_in_use(void **s)
{
    struct err err;
    json_t *all_info;

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, all);
    write_then_read(0, 0);
    assert_int_equal(command("throttle", "iops=1000000,bps=1G", &err), 0);
    all_info = device_info(&d.v->dev);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(all_info, "throttle"), "bps")), 1 << 30);
    json_decref(all_info);
    write_then_read(0, 8);
    assert_int_equal(command("throttle", "iops=20,burst=0", &err), 0);
    write_then_read(0, 16); /* two requests: the second one has waited */
    assert_int_equal(command("throttle", "", &err), 0);
    for (unsigned i = 0; i < 8; i++)
        write_then_read(0, i * 8);
    assert_int_equal(command("throttle", "ips=1", &err), -ENOENT);
    eject();
}

static void a_limit_does_not_hold_up_the_machine(void **s)
{
    gpa_t header;
    const struct virtio_blk_outhdr h = {.type = htole32(VIRTIO_BLK_T_IN)};
    uint32_t written;
    uint16_t id;

    (void)s;
    insert(",filter=throttle:iops=1:burst=0", SIZE);
    vdriver_start(&d, all);
    header = vdriver_alloc(&d, sizeof(h));
    assert_int_equal(gmem_write(d.e.env.mem, header, &h, sizeof(h)), 0);
    for (unsigned i = 0; i < 60; i++) { /* a minute's worth */
        const struct vdriver_buf bufs[] = {{header, sizeof(h), false}, {vdriver_alloc(&d, 513), 513, true}};

        vdriver_add(&d, 0, bufs, 2, false);
    }
    vdriver_kick(&d, 0);
    loop_once(d.e.env.loop, 0);
    device_stop(&d.v->dev);
    for (unsigned i = 0; i < 60; i++)
        assert_true(vdriver_used(&d, 0, &id, &written));
    device_start(&d.v->dev);
    eject();
}

static void a_header_in_pieces_is_one_header(void **s)
{
    struct virtio_blk_outhdr h = {.type = htole32(VIRTIO_BLK_T_IN)};
    struct vdriver_buf bufs[sizeof(h) + 2];
    gpa_t at;
    uint8_t status = BAD;
    uint16_t id;
    uint32_t written;

    (void)s;
    insert("", SIZE);
    vdriver_start(&d, BIT(VIRTIO_RING_F_INDIRECT_DESC));
    at = vdriver_alloc(&d, 1024);
    assert_int_equal(gmem_write(d.e.env.mem, at, &h, sizeof(h)), 0);
    for (unsigned i = 0; i < sizeof(h); i++)
        bufs[i] = (struct vdriver_buf){at + i, 1, false};
    bufs[sizeof(h)] = (struct vdriver_buf){at + 64, 513, true}; /* data and status in one */
    vdriver_add(&d, 0, bufs, sizeof(h) + 1, true);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, 0, &id, &written));
    assert_int_equal(written, 513);
    assert_int_equal(gmem_read(d.e.env.mem, at + 64 + 512, &status, 1), 0);
    assert_int_equal(status, VIRTIO_BLK_S_OK);
    eject();
}

/* As in a machine: the device on an I/O thread, the driver (this thread) on a CPU, resets whenever it likes. */
static void cpu_and_io_thread_meet(void **s)
{
    const struct virtio_blk_outhdr h = {.type = htole32(VIRTIO_BLK_T_IN)};
    struct device *dev;
    struct err err;
    char path[64];
    uint16_t id;
    uint32_t len;

    (void)s;
    image = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(image, SIZE), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
    d = (struct vdriver){.t = &vdriver_mmio, .queue_size = 16};
    test_env_init(&d.e, VDRIVER_RAM);
    d.e.env.attach_virtio = vdriver_mmio.attach;
    assert_int_equal(loop_thread(d.e.io_loop, &err), 0);
    assert_int_equal(device_create(device_class_find("virtio-blk"), "dev0", path, &dev, &err), 0);
    assert_int_equal(device_init(dev, &d.e.env, d.e.io_loop, &err), 0);
    d.v = container_of(dev, struct virtio, dev);
    device_reset(dev);
    device_settle(dev);
    vdriver_mmio.find(&d);
    device_start(dev);
    for (unsigned round = 0; round < 100; round++) {
        gpa_t at;

        vdriver_start(&d, all);
        at = vdriver_alloc(&d, 6 * 1024);
        assert_int_equal(gmem_write(d.e.env.mem, at, &h, sizeof(h)), 0);
        for (unsigned i = 0; i < 5; i++) { /* data apart: workers may read at the same time */
            const struct vdriver_buf bufs[] = {{at, sizeof(h), false}, {at + (i + 1) * 1024, 513, true}};

            vdriver_add(&d, 0, bufs, 2, false);
            vdriver_kick(&d, 0);
        }
        for (unsigned i = 0; i < round % 6; i++)
            while (!vdriver_used(&d, 0, &id, &len))
                sched_yield();
        assert_false(vdriver_broken(&d));
    }
    vdriver_reset(&d);
    device_stop(dev);
    device_destroy(dev);
    test_env_fini(&d.e);
    close(image);
}

static void bad_options_are_refused(void **s)
{
    static const struct {
        const char *options, *word;
    } rows[] = {
        {"", "path"},
        {"/nonexistent", "/nonexistent"},
        {"/dev/null,block-size=1024", "block-size"},
        {"/dev/null,serial=0123456789abcdefghijk", "serial"},
    };
    struct test_env e;

    (void)s;
    test_env_init(&e, MiB(4));
    for (size_t i = 0; i < array_len(rows); i++) {
        struct device *dev;
        struct err err;

        assert_int_equal(device_create(device_class_find("virtio-blk"), "disk0", rows[i].options, &dev, &err), 0);
        assert_true(device_init(dev, &e.env, e.env.loop, &err) < 0);
        assert_non_null(strstr(err.msg, rows[i].word));
        device_destroy(dev);
    }
    test_env_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(every_queue_works),
        cmocka_unit_test(requests_beyond_the_disk_or_half_a_sector_fail),
        cmocka_unit_test(a_read_only_disk_stays_as_it_is),
        cmocka_unit_test(ranges_become_zeroes),
        cmocka_unit_test(one_range_is_a_gigabyte_at_most),
        cmocka_unit_test(discard_can_be_forbidden),
        cmocka_unit_test(the_serial_number_is_told),
        cmocka_unit_test(unknown_commands_are_unsupported),
        cmocka_unit_test(limits_and_shape_are_in_the_configuration),
        cmocka_unit_test(the_cache_mode_is_the_drivers_choice_and_kept),
        cmocka_unit_test(write_through_flushes_behind_every_write),
        cmocka_unit_test(errors_are_told_unless_the_user_says_not_to),
        cmocka_unit_test(a_request_that_failed_is_kept_until_it_goes),
        cmocka_unit_test(many_are_kept),
        cmocka_unit_test(a_flush_is_kept_as_well),
        cmocka_unit_test(what_is_kept_ends_with_a_reset),
        cmocka_unit_test(some_errors_are_told_at_once),
        cmocka_unit_test(the_disk_grows_while_it_is_in_use),
        cmocka_unit_test(a_limit_comes_and_goes_while_the_disk_is_in_use),
        cmocka_unit_test(a_limit_does_not_hold_up_the_machine),
        cmocka_unit_test(a_header_in_pieces_is_one_header),
        cmocka_unit_test(cpu_and_io_thread_meet),
        cmocka_unit_test(bad_options_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
