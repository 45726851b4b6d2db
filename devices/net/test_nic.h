/* A NIC for the tests of backends: it has a loop, which several may share, and keeps the frames that it reads. */
#pragma once
#include "devices/net/backend.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

#include <linux/if_ether.h>
#include <stdio.h>

struct test_nic {
    struct device dev;
    struct loop *loop; /* borrowed */
    struct net *n;     /* NULL: not open */
    struct net_user user;
    bool deaf;    /* does not read */
    unsigned got; /* frames read */
    struct virtio_net_hdr_v1 hdr;
    uint8_t last[NET_FRAME_MAX]; /* the last of them */
    size_t last_len;
    unsigned writable; /* calls */
    unsigned links;    /* calls */
    bool up;
};

static inline void test_nic_read(struct test_nic *t)
{
    struct net_frame f;

    while (!t->deaf && net_peek(t->n, 0, &f)) {
        struct net_frame again;

        assert_true(net_peek(t->n, 0, &again));
        assert_int_equal(again.len, f.len);
        assert_in_range(f.len, ETH_HLEN, NET_FRAME_MAX);
        iov_get(f.iov, 0, t->last, f.len);
        t->last_len = f.len;
        t->hdr = f.hdr;
        t->got++;
        net_next(t->n, 0);
    }
}

static inline void test_nic_readable(struct net_user *u, unsigned queue)
{
    assert_int_equal(queue, 0);
    test_nic_read(container_of(u, struct test_nic, user));
}

static inline void test_nic_writable(struct net_user *u, unsigned queue)
{
    assert_int_equal(queue, 0);
    container_of(u, struct test_nic, user)->writable++;
}

static inline void test_nic_link(struct net_user *u, bool up)
{
    struct test_nic *t = container_of(u, struct test_nic, user);

    t->links++;
    t->up = up;
}

/* The result of net_open(); takes any offload. */
static inline int test_nic_open(struct test_nic *t, struct loop *loop, const struct net_class *cls, const char *options,
                                struct err *err)
{
    int rc;

    *t = (struct test_nic){.loop = loop, .user = {test_nic_readable, test_nic_writable, test_nic_link}};
    strcpy(t->dev.id, "net0");
    lane_init(&t->dev.lane, loop);
    t->n = xcalloc(1, cls->size);
    opts_default(cls->opts, t->n);
    rc = opts_parse(cls->opts, t->n, NULL, options, err);
    if (!rc)
        rc = net_open(cls, t->n, &t->dev, &t->user, &(struct net_limits){0}, err);
    if (!rc)
        net_set(t->n, ~0ull, 1);
    return rc;
}

/* Opens one, or the test has failed. */
static inline void test_nic_new(struct test_nic *t, struct loop *loop, const struct net_class *cls, const char *options)
{
    struct err err = {0};

    if (test_nic_open(t, loop, cls, options, &err))
        fail_msg("%s", err.msg);
}

/* Copes with one that did not open. */
static inline void test_nic_close(struct test_nic *t, const struct net_class *cls)
{
    if (!t->n)
        return;
    net_close(t->n);
    opts_clear(cls->opts, t->n);
    free(take_ptr(t->n));
    lane_fini(&t->dev.lane);
}

/* Such options fail with -code and words with `says` among them. */
static inline void test_nic_refused(struct loop *loop, const struct net_class *cls, const char *options, int code,
                                    const char *says)
{
    struct err err = {0};
    struct test_nic t;

    assert_int_equal(test_nic_open(&t, loop, cls, options, &err), -code);
    if (!strstr(err.msg, says))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, says);
    test_nic_close(&t, cls);
}

/* For a group of tests: a loop, and a directory, whose name ends in XXXXXX.  0 or -1, as cmocka has it. */
static inline int test_nic_setup(char *dir, struct loop **ret)
{
    struct err err;

    return mkdtemp(dir) && !loop_create("test", ret, &err) ? 0 : -1;
}

static inline int test_nic_teardown(const char *dir, struct loop *loop)
{
    loop_destroy(loop);
    return rmdir(dir);
}

/* Sends `len` bytes; the result of net_send(). */
static inline int test_nic_send(struct test_nic *t, const void *frame, size_t len, struct virtio_net_hdr_v1 hdr)
{
    /* In two pieces, since a guest's frames come so. */
    struct iovec iov[2] = {{(void *)frame, len / 3}, {(char *)frame + len / 3, len - len / 3}};
    struct net_frame f = {.hdr = hdr, .iov = iov, .niov = 2, .len = len};

    return net_send(t->n, 0, &f);
}

/* Runs the loop until `condition`; one that never comes true is ended by the test's time limit. */
#define loop_until(loop, condition)  \
    do {                             \
        while (!(condition))         \
            loop_once((loop), 1000); \
    } while (0)

/* Runs the loop until nothing is left to do. */
static inline void loop_settle(struct loop *loop)
{
    for (int i = 0; i < 16; i++)
        loop_once(loop, 0);
}
