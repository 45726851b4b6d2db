#include "devices/core/device.h"
#include "vmm/base/test.h"

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"

enum { DATA = 0x60, COMMAND = 0x64, LINE = 1, FULL = 1, AUX = 0x20, TIMEOUT = 0x40, ANSWERED_NO = FULL | TIMEOUT };

struct bench {
    struct test_env t;
    struct device *dev;
};

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(2));
    b->dev = test_env_device(&b->t, "i8042", "i8042", "");
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_destroy(b->dev);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static uint8_t get(struct bench *b, unsigned port)
{
    return test_env_read(&b->t, b->t.env.pio, port, 1);
}

static void set(struct bench *b, unsigned port, uint8_t val)
{
    test_env_write(&b->t, b->t.env.pio, port, val, 1);
}

/* The byte that a command answers with at once. */
static uint8_t ask(struct bench *b, uint8_t command)
{
    set(b, COMMAND, command);
    assert_int_equal(get(b, COMMAND) & (FULL | AUX | TIMEOUT), FULL);
    return get(b, DATA);
}

static void its_self_test_passes(void **state)
{
    struct bench *b = *state;

    assert_int_equal(get(b, COMMAND) & FULL, 0);
    assert_int_equal(ask(b, 0xaa), 0x55);
    assert_int_equal(get(b, COMMAND) & FULL, 0);
    assert_int_equal(ask(b, 0xab), 0);
    assert_int_not_equal(ask(b, 0xa9), 0); /* no second port */
}

static void who_looks_for_devices_is_answered_at_once(void **state)
{
    struct bench *b = *state;

    set(b, DATA, 0xf2); /* a keyboard's identity */
    assert_int_equal(get(b, COMMAND) & (ANSWERED_NO | AUX), ANSWERED_NO);
    assert_int_equal(get(b, DATA), 0xfe);
    assert_int_equal(get(b, COMMAND) & ANSWERED_NO, 0);
    set(b, COMMAND, 0xd4);
    set(b, DATA, 0xf2); /* a mouse's */
    assert_int_equal(get(b, COMMAND) & (ANSWERED_NO | AUX), ANSWERED_NO);
    assert_int_equal(get(b, DATA), 0xfe);
    set(b, COMMAND, 0xd3); /* is there a second port? */
    set(b, DATA, 0x5a);
    assert_int_equal(get(b, COMMAND) & (FULL | AUX), FULL);
}

static void the_command_byte_rules_the_interrupt(void **state)
{
    struct bench *b = *state;

    set(b, COMMAND, 0x60);
    set(b, DATA, 0x45);
    assert_int_equal(ask(b, 0x20), 0x45);
    assert_false(b->t.lines[LINE].level);
    set(b, COMMAND, 0xd2);
    set(b, DATA, 0x1c);
    assert_true(b->t.lines[LINE].level);
    assert_int_equal(get(b, DATA), 0x1c);
    assert_false(b->t.lines[LINE].level);
    set(b, COMMAND, 0xad);
    set(b, COMMAND, 0xa7);
    assert_int_equal(ask(b, 0x20), 0x75);
    set(b, COMMAND, 0xae);
    set(b, COMMAND, 0xa8);
    assert_int_equal(ask(b, 0x20), 0x45);
    assert_int_equal(ask(b, 0xaa), 0x55);
    assert_int_equal(ask(b, 0x20) & 1, 0);
}

static void its_line_resets_the_machine(void **state)
{
    struct bench *b = *state;

    set(b, COMMAND, 0xff); /* pulses nothing */
    assert_int_equal(b->t.requests[REQ_RESET], 0);
    set(b, COMMAND, 0xfe);
    assert_int_equal(b->t.requests[REQ_RESET], 1);
    set(b, COMMAND, 0xd1);
    set(b, DATA, 0xdf); /* A20 on */
    assert_int_equal(b->t.requests[REQ_RESET], 1);
    assert_int_equal(ask(b, 0xd0), 0xdf);
    set(b, COMMAND, 0xd1);
    set(b, DATA, 0xde);
    assert_int_equal(b->t.requests[REQ_RESET], 2);
}

static void any_command_and_width_is_safe(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    for (unsigned command = 0; command < 256; command++) {
        for (unsigned i = 0; i < array_len(sizes); i++) {
            test_env_write(&b->t, b->t.env.pio, COMMAND, command, sizes[i]);
            test_env_write(&b->t, b->t.env.pio, DATA, UINT64_MAX, sizes[i]);
            test_env_read(&b->t, b->t.env.pio, COMMAND, sizes[i]);
            test_env_read(&b->t, b->t.env.pio, DATA, sizes[i]);
        }
    }
    assert_int_equal(ask(b, 0xaa), 0x55);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(its_self_test_passes),
        TEST(who_looks_for_devices_is_answered_at_once),
        TEST(the_command_byte_rules_the_interrupt),
        TEST(its_line_resets_the_machine),
        TEST(any_command_and_width_is_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
