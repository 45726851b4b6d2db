#include "devices/core/device.h"
#include "vmm/base/test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { PORT = 0xe9 };

struct bench {
    struct test_env t;
    struct device *dev;
    int pipe[2];
};

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));
    char options[64];

    assert_int_equal(pipe2(b->pipe, O_NONBLOCK), 0);
    test_env_init(&b->t, MiB(2));
    snprintf(options, sizeof(options), "chardev=file:/proc/self/fd/%d", b->pipe[1]);
    b->dev = test_env_device(&b->t, "debugcon", "debugcon", options);
    device_start(b->dev);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    if (b->dev)
        device_stop(b->dev);
    device_destroy(b->dev);
    close(b->pipe[0]);
    if (b->pipe[1] >= 0)
        close(b->pipe[1]);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static void put(struct bench *b, uint8_t byte)
{
    test_env_write(&b->t, b->t.env.pio, PORT, byte, 1);
}

static void what_is_written_comes_out(void **state)
{
    struct bench *b = *state;
    char text[32];

    assert_int_equal(test_env_read(&b->t, b->t.env.pio, PORT, 1), 0xe9);
    for (const char *s = "one"; *s; s++)
        put(b, *s);
    loop_once(b->t.env.loop, 0);
    put(b, '!');
    device_stop(b->dev);
    assert_int_equal(read(b->pipe[0], text, sizeof(text)), 4);
    assert_memory_equal(text, "one!", 4);
}

/* What the host takes is in order and without a gap, up to where it took no more. */
static void a_blocked_host_does_not_block_the_guest(void **state)
{
    enum { MUCH = 1 << 20 };
    struct bench *b = *state;
    unsigned got = 0;
    uint8_t buf[4096];
    ssize_t n;

    for (unsigned i = 0; i < MUCH; i++)
        put(b, i % 251);
    for (int tries = 0; tries < 100; tries++) {
        while ((n = read(b->pipe[0], buf, sizeof(buf))) > 0)
            for (ssize_t i = 0; i < n; i++)
                assert_int_equal(buf[i], got++ % 251);
        loop_once(b->t.env.loop, 0);
    }
    assert_true(got > 4096 && got < MUCH);
}

struct reader {
    int fd;
    unsigned bytes, wrong;
};

static void *read_on(void *far)
{
    struct reader *r = far;
    uint8_t buf[256];
    ssize_t n;

    while ((n = read(r->fd, buf, sizeof(buf))) > 0)
        for (ssize_t i = 0; i < n; i++)
            r->wrong += buf[i] != r->bytes++ % 251;
    return NULL;
}

/* The reader starts when the guest is at its end. */
static void stop_waits_for_a_slow_reader(void **state)
{
    struct bench *b = *state;
    struct reader r = {.fd = b->pipe[0]};
    struct pollfd full = {.fd = b->pipe[1], .events = POLLOUT};
    unsigned sent = 0;
    pthread_t thread;

    while (poll(&full, 1, 0) > 0) {
        put(b, sent++ % 251);
        loop_once(b->t.env.loop, 0);
    }
    for (int i = 0; i < 100; i++)
        put(b, sent++ % 251);
    fcntl(b->pipe[0], F_SETFL, 0);
    pthread_create(&thread, NULL, read_on, &r);
    device_stop(b->dev);
    device_destroy(b->dev);
    b->dev = NULL;
    close(b->pipe[1]);
    b->pipe[1] = -1;
    pthread_join(thread, NULL);
    assert_int_equal(r.bytes, sent);
    assert_int_equal(r.wrong, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_comes_out),
        TEST(a_blocked_host_does_not_block_the_guest),
        TEST(stop_waits_for_a_slow_reader),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
