#include "devices/block/block.h"
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

static const struct blk_driver fake_driver = {.name = "fake", fake_submit, fake_kick, fake_close};

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

static void setup(struct fake *f, bool read_only)
{
    struct err err;

    *f = (struct fake){.b = {.drv = &fake_driver, .lane = &lane, .lim = {MiB(1), 512, read_only}},
                       .user.batch = count_batch};
    f->b.user = &f->user;
    list_init(&f->held);
    if (loop_create("test", &loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&lane, loop);
    lane_lock(&lane);
}

static void teardown(struct fake *f)
{
    blk_close(&f->b);
    assert_int_equal(lane.inflight, 0);
    lane_unlock(&lane);
    lane_fini(&lane);
    loop_destroy(loop);
}

static struct io request(enum blk_op op, uint64_t off, uint64_t len)
{
    return (struct io){.r = {.op = op, .off = off, .len = len, .done = done}, .ret = 1};
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
        struct fake f;
        struct io io = request(rows[i].op, rows[i].off, rows[i].len);

        setup(&f, rows[i].read_only);
        blk_submit(&f.b, &io.r);
        assert_true(list_empty(&f.held));
        assert_int_equal(io.answers, 0); /* never from inside submit */
        lane_drain(&lane);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, rows[i].ret);
        assert_int_equal(f.batches, 1);
        teardown(&f);
    }
}

static void good_requests_do(void **s)
{
    static const enum blk_op ops[] = {BLK_READ, BLK_WRITE, BLK_DISCARD, BLK_ZERO};
    struct fake f;

    (void)s;
    setup(&f, false);
    for (size_t i = 0; i < array_len(ops); i++) {
        struct io io = request(ops[i], MiB(1) - 512, 512);

        blk_submit(&f.b, &io.r);
        assert_ptr_equal(take(&f), &io.r);
        assert_int_equal(lane.inflight, 1);
        blk_complete(&io.r, 512);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, 0);
        assert_int_equal(lane.inflight, 0);
    }
    teardown(&f);
}

static void reads_and_flushes_pass_on_a_read_only_disk(void **s)
{
    struct fake f;
    struct io io = request(BLK_READ, 0, 512), flush = request(BLK_FLUSH, 0, 0);

    (void)s;
    setup(&f, true);
    blk_submit(&f.b, &io.r);
    blk_submit(&f.b, &flush.r);
    blk_complete(take(&f), 512);
    blk_complete(take(&f), 0);
    assert_int_equal(io.ret, 0);
    assert_int_equal(flush.ret, 0);
    teardown(&f);
}

static void what_a_driver_leaves_comes_back_to_it(void **s)
{
    static char buf[3][1024];
    struct fake f;
    struct io io = request(BLK_READ, 4096, 2048);

    (void)s;
    setup(&f, false);
    io.iov[0] = (struct iovec){buf[0], 512};
    io.iov[1] = (struct iovec){buf[1], 1024};
    io.iov[2] = (struct iovec){buf[2], 512};
    io.r.iov = io.iov;
    io.r.niov = 3;
    blk_submit(&f.b, &io.r);
    blk_complete(take(&f), 700);
    assert_int_equal(io.answers, 0);
    assert_int_equal(f.kicks, 1);
    assert_int_equal(io.r.off, 4796);
    assert_int_equal(io.r.len, 1348);
    assert_int_equal(io.r.niov, 2);
    assert_ptr_equal(io.r.iov[0].iov_base, buf[1] + 188);
    assert_int_equal(io.r.iov[0].iov_len, 836);
    blk_complete(take(&f), 836); /* to the end of a buffer */
    assert_int_equal(io.r.niov, 1);
    assert_ptr_equal(io.r.iov[0].iov_base, buf[2]);
    blk_complete(take(&f), 512);
    assert_int_equal(io.answers, 1);
    assert_int_equal(io.ret, 0);
    teardown(&f);
}

static void errors_and_standstill_end_a_request(void **s)
{
    static const int64_t answers[][2] = {{-ENOSPC, -ENOSPC}, {0, -EIO}};

    (void)s;
    for (size_t i = 0; i < array_len(answers); i++) {
        struct fake f;
        struct io io = request(BLK_WRITE, 0, 1024);

        setup(&f, false);
        blk_submit(&f.b, &io.r);
        blk_complete(take(&f), answers[i][0]);
        assert_int_equal(io.answers, 1);
        assert_int_equal(io.ret, answers[i][1]);
        teardown(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_requests_never_reach_the_driver),
        cmocka_unit_test(good_requests_do),
        cmocka_unit_test(reads_and_flushes_pass_on_a_read_only_disk),
        cmocka_unit_test(what_a_driver_leaves_comes_back_to_it),
        cmocka_unit_test(errors_and_standstill_end_a_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
