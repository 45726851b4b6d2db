#include "devices/block/driver.h"
#include "vmm/base/test.h"

/* A driver that keeps what it is given until the test answers. */
struct fake {
    struct blk b;
    struct list held;
    unsigned kicks, batches;
    struct blk_user user;
};

struct io { /* a request and what became of it */
    struct blk_req r;
    struct iovec iov[3];
    int ret;
    unsigned answers;
};

static struct loop *loop;
static struct lane lane;

static void fake_submit(struct blk *b, struct blk_req *r)
{
    list_add_tail(&container_of(b, struct fake, b)->held, &r->link);
}

static void fake_kick(struct blk *b)
{
    container_of(b, struct fake, b)->kicks++;
}

static void fake_close(struct blk *b)
{
    assert_true(list_empty(&container_of(b, struct fake, b)->held));
}

static const struct blk_driver fake_driver = {
    .name = "fake", .size = sizeof(struct fake), .submit = fake_submit, .kick = fake_kick, .close = fake_close};

static void count_batch(struct blk_user *u)
{
    container_of(u, struct fake, user)->batches++;
}

static void done(struct blk_req *r, int ret)
{
    struct io *io = container_of(r, struct io, r);

    io->ret = ret;
    io->answers++;
}

static struct fake *setup(bool read_only)
{
    struct fake *f = container_of(blk_node(&fake_driver, "fake", &lane), struct fake, b);
    struct err err;

    f->b.lim = (struct blk_limits){MiB(1), 512, read_only};
    f->user.batch = count_batch;
    f->b.user = &f->user;
    list_init(&f->held);
    if (loop_create("test", &loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&lane, loop);
    lane_lock(&lane);
    return f;
}

static void teardown(struct blk *b)
{
    blk_close(b);
    assert_int_equal(lane.inflight, 0);
    lane_unlock(&lane);
    lane_fini(&lane);
    loop_destroy(loop);
}

static struct io request(enum blk_op op, uint64_t off, uint64_t len)
{
    return (struct io){.r = {.io = {.op = op, .off = off, .len = len}, .done = done}, .ret = 1};
}

static struct blk_req *take(struct fake *f)
{
    struct list *l = list_pop(&f->held);

    assert_non_null(l);
    return container_of(l, struct blk_req, link);
}

static void bad_requests_never_reach_the_driver(void **s)
{
    static const struct {
        enum blk_op op;
        uint64_t off, len;
        bool read_only;
        int ret;
    } rows[] = {
        {BLK_READ, 0, 0, false, -EINVAL},
        {BLK_READ, 1, 512, false, -EINVAL},
        {BLK_READ, 0, 513, false, -EINVAL},
        {BLK_READ, MiB(1), 512, false, -EINVAL},
        {BLK_READ, MiB(1) - 512, 1024, false, -EINVAL},
        {BLK_WRITE, UINT64_MAX - 511, 1024, false, -EINVAL},
        {BLK_DISCARD, 512, UINT64_MAX - 511, false, -EINVAL},
        {BLK_ZERO, 0, MiB(1) + 512, false, -EINVAL},
        {BLK_WRITE, 0, 512, true, -EROFS},
        {BLK_DISCARD, 0, 512, true, -EROFS},
        {BLK_ZERO, 0, 512, true, -EROFS},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct fake *f = setup(rows[i].read_only);
        struct io io = request(rows[i].op, rows[i].off, rows[i].len);

        blk_submit(&f->b, &io.r);
        assert_true(list_empty(&f->held));
        assert_int_equal(io.answers, 0); /* never from inside submit */
        lane_drain(&lane);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, rows[i].ret);
        assert_int_equal(f->batches, 1);
        teardown(&f->b);
    }
}

static void good_requests_do(void **s)
{
    static const enum blk_op ops[] = {BLK_READ, BLK_WRITE, BLK_DISCARD, BLK_ZERO};
    struct fake *f = setup(false);

    (void)s;
    for (size_t i = 0; i < array_len(ops); i++) {
        struct io io = request(ops[i], MiB(1) - 512, 512);

        blk_submit(&f->b, &io.r);
        assert_ptr_equal(take(f), &io.r);
        assert_int_equal(lane.inflight, 1);
        blk_complete(&io.r, 512);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, 0);
        assert_int_equal(lane.inflight, 0);
    }
    teardown(&f->b);
}

static void reads_and_flushes_pass_on_a_read_only_disk(void **s)
{
    struct fake *f = setup(true);
    struct io io = request(BLK_READ, 0, 512), flush = request(BLK_FLUSH, 0, 0);

    (void)s;
    blk_submit(&f->b, &io.r);
    blk_submit(&f->b, &flush.r);
    blk_complete(take(f), 512);
    blk_complete(take(f), 0);
    assert_int_equal(io.ret, 0);
    assert_int_equal(flush.ret, 0);
    teardown(&f->b);
}

static void what_a_driver_leaves_comes_back_to_it(void **s)
{
    static char buf[3][1024];
    struct fake *f = setup(false);
    struct io io = request(BLK_READ, 4096, 2048);

    (void)s;
    io.iov[0] = (struct iovec){buf[0], 512};
    io.iov[1] = (struct iovec){buf[1], 1024};
    io.iov[2] = (struct iovec){buf[2], 512};
    io.r.io.iov = io.iov;
    io.r.io.niov = 3;
    blk_submit(&f->b, &io.r);
    blk_complete(take(f), 700);
    assert_int_equal(io.answers, 0);
    assert_int_equal(f->kicks, 1);
    assert_int_equal(io.r.io.off, 4796);
    assert_int_equal(io.r.io.len, 1348);
    assert_int_equal(io.r.io.niov, 2);
    assert_ptr_equal(io.r.io.iov[0].iov_base, buf[1] + 188);
    assert_int_equal(io.r.io.iov[0].iov_len, 836);
    blk_complete(take(f), 836); /* to the end of a buffer */
    assert_int_equal(io.r.io.niov, 1);
    assert_ptr_equal(io.r.io.iov[0].iov_base, buf[2]);
    blk_complete(take(f), 512);
    assert_int_equal(io.answers, 1);
    assert_int_equal(io.ret, 0);
    teardown(&f->b);
}

static void errors_and_standstill_end_a_request(void **s)
{
    static const int64_t answers[][2] = {{-ENOSPC, -ENOSPC}, {0, -EIO}};

    (void)s;
    for (size_t i = 0; i < array_len(answers); i++) {
        struct fake *f = setup(false);
        struct io io = request(BLK_WRITE, 0, 1024);

        blk_submit(&f->b, &io.r);
        blk_complete(take(f), answers[i][0]);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, answers[i][1]);
        teardown(&f->b);
    }
}

/*
 * A format of 4 KiB clusters whose number says where they are: 0 in the file, the other way round; 1 zeroes; 2 in the
 * backing node; 3 only rw() knows.
 */
struct format {
    struct blk b;
    unsigned held, released, rws;
};

enum { CLUSTER = 4096, LAST_OF_FILE = 1 << 20 };

static void format_map(struct blk *b, const struct blk_io *io, struct blk_map *ret)
{
    static const enum blk_place places[] = {BLK_AT, BLK_ZEROES, BLK_BACKING, BLK_BUSY};
    struct format *f = container_of(b, struct format, b);

    ret->len = min_u64(io->len, align_down(io->off, CLUSTER) + CLUSTER - io->off);
    ret->place = places[io->off / CLUSTER % 4];
    if (ret->place != BLK_AT)
        return;
    ret->off = LAST_OF_FILE - align_up(io->off + 1, CLUSTER) + io->off % CLUSTER;
    ret->held = true;
    ret->hold = f->held++;
}

static void format_release(struct blk *b, unsigned hold)
{
    struct format *f = container_of(b, struct format, b);

    assert_int_equal(hold, f->released++);
}

static int format_rw(struct blk *b, const struct blk_io *io)
{
    char byte = '3';

    container_of(b, struct format, b)->rws++;
    for (uint64_t i = 0; i < io->len; i++)
        iov_put(io->iov, i, &byte, 1);
    return 0;
}

static void format_close(struct blk *b)
{
    (void)b;
}

static const struct blk_driver format_driver = {.name = "format",
                                                .size = sizeof(struct format),
                                                .rw = format_rw,
                                                .map = format_map,
                                                .release = format_release,
                                                .close = format_close};

static struct format *format_on(struct fake *file, struct fake *backing)
{
    struct format *f = container_of(blk_node(&format_driver, "format", &lane), struct format, b);

    f->b.lim = (struct blk_limits){MiB(1), 512, false, false};
    f->b.file = &file->b;
    f->b.backing = &backing->b;
    file->b.parent = backing->b.parent = &f->b;
    return f;
}

/* Answers what the node has, with `fill` as data. */
static void serve(struct fake *f, uint64_t off, uint64_t len, char fill)
{
    struct blk_req *r = take(f);

    assert_int_equal(r->io.off, off);
    assert_int_equal(r->io.len, len);
    for (uint64_t i = 0; i < len; i++)
        iov_put(r->io.iov, i, &fill, 1);
    blk_complete(r, (int64_t)len);
}

static void a_request_goes_where_its_parts_are(void **s)
{
    static char buf[5 * CLUSTER];
    struct fake *file = setup(false), *backing = container_of(blk_node(&fake_driver, "base", &lane), struct fake, b);
    struct format *f = format_on(file, backing);
    struct io io = request(BLK_READ, 512, 4 * CLUSTER);

    (void)s;
    list_init(&backing->held);
    backing->b.lim = (struct blk_limits){2 * CLUSTER + 1024, 512, true, false}; /* shorter than what is on top */
    memset(buf, '.', sizeof(buf));
    io.iov[0] = (struct iovec){buf, 1000};
    io.iov[1] = (struct iovec){buf + 1000, 2 * CLUSTER};
    io.iov[2] = (struct iovec){buf + 1000 + 2 * CLUSTER, sizeof(buf) - 1000 - 2 * CLUSTER};
    io.r.io.iov = io.iov;
    io.r.io.niov = 3;
    blk_submit(&f->b, &io.r);
    serve(file, LAST_OF_FILE - CLUSTER + 512, CLUSTER - 512, '0');
    serve(backing, 2 * CLUSTER, 1024, '2');
    lane_unlock(&lane); /* the fourth runs on a worker, and leads to the file again */
    while (list_empty(&file->held))
        loop_once(loop, -1);
    lane_lock(&lane);
    serve(file, LAST_OF_FILE - 5 * CLUSTER, 512, '4');
    assert_int_equal(io.answers, 1);
    assert_int_equal(io.ret, 0);
    assert_int_equal(f->held, 2);
    assert_int_equal(f->released, 2);
    assert_int_equal(f->rws, 1);
    for (size_t i = 0; i < sizeof(buf); i++) {
        size_t at = i + 512, c = at / CLUSTER, left = at % CLUSTER;
        char want = at >= 512 + 4 * CLUSTER ? '.' : c == 1 || (c == 2 && left >= 1024) ? 0 : (char)('0' + c);

        assert_int_equal(buf[i], want);
    }
    teardown(&f->b);
}

static void nothing_but_zeroes_is_answered_later(void **s)
{
    char buf[1024] = "x";
    struct fake *file = setup(false), *backing = container_of(blk_node(&fake_driver, "base", &lane), struct fake, b);
    struct format *f = format_on(file, backing);
    struct io io = request(BLK_READ, CLUSTER, sizeof(buf));

    (void)s;
    list_init(&backing->held);
    io.iov[0] = (struct iovec){buf, sizeof(buf)};
    io.r.io.iov = io.iov;
    io.r.io.niov = 1;
    blk_submit(&f->b, &io.r);
    assert_int_equal(io.answers, 0);
    lane_drain(&lane);
    assert_int_equal(io.answers, 1);
    assert_int_equal(buf[0], 0);
    teardown(&f->b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_requests_never_reach_the_driver),
        cmocka_unit_test(good_requests_do),
        cmocka_unit_test(reads_and_flushes_pass_on_a_read_only_disk),
        cmocka_unit_test(what_a_driver_leaves_comes_back_to_it),
        cmocka_unit_test(errors_and_standstill_end_a_request),
        cmocka_unit_test(a_request_goes_where_its_parts_are),
        cmocka_unit_test(nothing_but_zeroes_is_answered_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
