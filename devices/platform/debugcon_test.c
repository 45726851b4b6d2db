#include "devices/core/device.h"
#include "vmm/base/test.h"

#include <fcntl.h>
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

    device_stop(b->dev);
    device_destroy(b->dev);
    close(b->pipe[0]);
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

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_comes_out),
        TEST(a_blocked_host_does_not_block_the_guest),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
