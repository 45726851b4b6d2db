#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/block/filter.h"
#include "vmm/base/clock.h"
#include "vmm/base/test.h"

#define MS(n) ((n) * (NS_PER_SEC / 1000))

static void a_rate_lets_so_much_through_and_no_more(void **s)
{
    struct rate r = {.per_sec = 100}, none = {0};

    (void)s;
    assert_int_equal(rate_start(&r, MS(5000)), MS(5000));
    rate_charge(&r, MS(5000), 1);
    assert_int_equal(rate_start(&r, MS(5000)), MS(5010));
    assert_int_equal(rate_start(&r, MS(5004)), MS(5010));
    assert_int_equal(rate_start(&r, MS(5020)), MS(5020));
    rate_charge(&r, MS(5020), 50);
    assert_int_equal(rate_start(&r, MS(5020)), MS(5520));
    rate_charge(&none, MS(5000), UINT64_MAX);
    assert_int_equal(rate_start(&none, MS(5000)), MS(5000));
}

static void a_pause_earns_a_burst(void **s)
{
    struct rate r = {.per_sec = 100, .burst_ns = MS(30)};
    uint64_t now = MS(5000);

    (void)s;
    for (unsigned i = 0; i < 4; i++) { /* the first pays for itself, three more are the burst's */
        assert_int_equal(rate_start(&r, now), now);
        rate_charge(&r, now, 1);
    }
    assert_int_equal(rate_start(&r, now), now + MS(10));
    /* A long pause earns no more than the burst. */
    now = MS(9000);
    rate_charge(&r, now, 5);
    assert_int_equal(rate_start(&r, now), now + MS(20));
}

struct disk {
    int fd;
    struct blk *b;
    struct loop *loop;
    struct lane lane;
};

static int open_disk(struct disk *d, char *filter, bool in_lane, struct err *err)
{
    struct opt_list filters = {.v = &filter, .n = 1};
    struct blk_open_opts o = {.filters = &filters};
    char path[64];

    d->fd = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(d->fd, MiB(1)), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", d->fd);
    if (loop_create("test", &d->loop, err))
        fail_msg("%s", err->msg);
    lane_init(&d->lane, d->loop);
    lane_lock(&d->lane);
    return blk_open(path, &o, in_lane ? &d->lane : NULL, NULL, &d->b, err);
}

static void close_disk(struct disk *d)
{
    blk_close(d->b);
    lane_unlock(&d->lane);
    lane_fini(&d->lane);
    loop_destroy(d->loop);
    close(d->fd);
}

struct io {
    struct blk_req r;
    unsigned *answers, number;
};

static void done(struct blk_req *r, int ret)
{
    struct io *io = container_of(r, struct io, r);

    assert_int_equal(ret, 0);
    assert_int_equal(io->number, (*io->answers)++);
}

enum { COUNT = 11, RATE = 1000 };

static void requests_wait_their_turn_in_the_lane(void **s)
{
    static char data[COUNT][512];
    struct iovec iov[COUNT];
    struct io io[COUNT];
    unsigned answers = 0;
    uint64_t began;
    struct disk d;
    struct err err;

    (void)s;
    assert_int_equal(open_disk(&d, "throttle:iops=1000:bps=1G:burst=0", true, &err), 0);
    began = clock_now_ns();
    for (unsigned i = 0; i < COUNT; i++) {
        memset(data[i], 'a' + (int)i, 512);
        iov[i] = (struct iovec){data[i], 512};
        io[i] =
            (struct io){.r = {.io = {BLK_WRITE, .off = i * 512, .len = 512, .iov = &iov[i], .niov = 1}, .done = done},
                        .answers = &answers,
                        .number = i};
        blk_submit(d.b, &io[i].r);
    }
    blk_kick(d.b);
    lane_drain(&d.lane);
    assert_int_equal(answers, COUNT);
    assert_true(clock_now_ns() - began >= MS((COUNT - 1) * 1000 / RATE));
    for (unsigned i = 0; i < COUNT; i++) {
        char got[512];

        assert_int_equal(pread(d.fd, got, 512, 512 * i), 512);
        assert_memory_equal(got, data[i], 512);
    }
    close_disk(&d);
}

static void blocking_calls_wait_too(void **s)
{
    uint64_t began;
    struct disk d;
    struct err err;

    (void)s;
    assert_int_equal(open_disk(&d, "throttle:iops=1000:burst=0", false, &err), 0);
    began = clock_now_ns();
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(blk_zero(d.b, 0, 512, false), 0);
    assert_true(clock_now_ns() - began >= MS((COUNT - 1) * 1000 / RATE));
    close_disk(&d);
}

static void a_throttle_without_limits_is_refused(void **s)
{
    struct disk d = {0};
    struct err err;

    (void)s;
    assert_int_equal(open_disk(&d, "throttle:burst=5", false, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "iops="));
    close_disk(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_lets_so_much_through_and_no_more), cmocka_unit_test(a_pause_earns_a_burst),
        cmocka_unit_test(requests_wait_their_turn_in_the_lane),    cmocka_unit_test(blocking_calls_wait_too),
        cmocka_unit_test(a_throttle_without_limits_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
