#include "devices/platform/pm.h"
#include "vmm/base/test.h"

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"

enum { BASE = 0x600, LINE = 9, ENABLE = PM_EVENT + 2, TIMER_STS = 1, BUTTON = 1 << 8, SLEEP = 1 << 13 };

struct bench {
    struct test_env t;
    struct device *dev;
};

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(2));
    b->dev = test_env_device(&b->t, "pm", "pm", "");
    device_start(b->dev);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_stop(b->dev);
    device_destroy(b->dev);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static uint64_t get(struct bench *b, unsigned off, unsigned size)
{
    return test_env_read(&b->t, b->t.env.pio, BASE + off, size);
}

static void set(struct bench *b, unsigned off, uint64_t val, unsigned size)
{
    test_env_write(&b->t, b->t.env.pio, BASE + off, val, size);
}

static void the_button_interrupts_until_it_is_acknowledged(void **state)
{
    struct bench *b = *state;

    pm_press_power_button(b->dev);
    assert_int_equal(get(b, PM_EVENT, 2), BUTTON);
    assert_false(b->t.lines[LINE].level);
    set(b, ENABLE, BUTTON, 2);
    assert_true(b->t.lines[LINE].level);
    set(b, PM_EVENT, TIMER_STS, 2); /* not this one */
    assert_true(b->t.lines[LINE].level);
    set(b, PM_EVENT + 1, BUTTON >> 8, 1);
    assert_false(b->t.lines[LINE].level);
    assert_int_equal(get(b, PM_EVENT, 4), BUTTON << 16);
}

static void s5_powers_off(void **state)
{
    struct bench *b = *state;

    assert_int_equal(get(b, PM_CONTROL, 2), 1); /* always in ACPI mode */
    for (unsigned type = 0; type < 8; type++) {
        set(b, PM_CONTROL, type << 10, 2);
        assert_int_equal(get(b, PM_CONTROL, 2), type << 10 | 1);
        assert_int_equal(b->t.requests[REQ_POWEROFF], type > PM_S5_TYPE);
        set(b, PM_CONTROL, type << 10 | SLEEP, 2);
        assert_int_equal(get(b, PM_CONTROL, 2), type << 10 | 1);
        assert_int_equal(b->t.requests[REQ_POWEROFF], type >= PM_S5_TYPE);
    }
    set(b, PM_CONTROL, PM_S5_TYPE << 10, 2);
    set(b, PM_CONTROL + 1, (PM_S5_TYPE << 10 | SLEEP) >> 8, 1); /* a byte at a time */
    assert_int_equal(b->t.requests[REQ_POWEROFF], 2);
}

static void the_reset_register_resets(void **state)
{
    struct bench *b = *state;

    set(b, PM_RESET, 0, 1);
    assert_int_equal(b->t.requests[REQ_RESET], 0);
    set(b, PM_RESET, PM_RESET_VALUE, 1);
    assert_int_equal(b->t.requests[REQ_RESET], 1);
    assert_int_equal(b->t.requests[REQ_POWEROFF], 0);
}

static void the_timer_runs_while_the_machine_does(void **state)
{
    struct bench *b = *state;
    uint32_t was = get(b, PM_TIMER, 4);

    while (get(b, PM_TIMER, 4) == was)
        ;
    device_stop(b->dev);
    loop_clock_stop(b->t.env.loop);
    was = get(b, PM_TIMER, 4);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(get(b, PM_TIMER, 4), was);
    loop_clock_start(b->t.env.loop);
    device_start(b->dev);
}

/* Puts the timer at a value, as a load does. */
static void set_timer(struct bench *b, uint64_t ticks)
{
    const struct device_part *p = &b->dev->parts[0];

    device_stop(b->dev);
    for (const struct field *f = p->desc->fields; f->kind != FIELD_END; f++) {
        if (!strcmp(f->name, "ticks"))
            memcpy((char *)p->obj + f->off, &ticks, sizeof(ticks));
        if (!strcmp(f->name, "half"))
            memcpy((char *)p->obj + f->off, &(uint32_t){ticks >> 31}, sizeof(uint32_t));
    }
    device_settle(b->dev);
    device_start(b->dev);
}

static void the_timer_goes_on_after_a_load(void **state)
{
    struct bench *b = *state;

    set_timer(b, 0x12340000000);
    assert_true(get(b, PM_TIMER, 4) - 0x40000000 < 0x10000000);
    assert_int_equal(get(b, PM_EVENT, 2), 0);
}

static void a_change_of_the_timers_top_bit_is_noted(void **state)
{
    struct bench *b = *state;

    for (uint64_t half = 1; half <= 2; half++) {
        set_timer(b, half << 31);
        set(b, PM_EVENT, TIMER_STS, 2);
        set_timer(b, (half << 31) - 1);
        while (!(get(b, PM_EVENT, 2) & TIMER_STS))
            ;
        assert_false(b->t.lines[LINE].level);
    }
    set(b, PM_EVENT, TIMER_STS, 2);
    set_timer(b, (3ull << 31) - 10);
    set(b, ENABLE, TIMER_STS, 2); /* now it comes by itself */
    for (int tries = 0; tries < 100 && !b->t.lines[LINE].level; tries++)
        loop_once(b->t.env.loop, 20);
    assert_true(b->t.lines[LINE].level);
}

static void accesses_of_every_place_and_width_are_safe(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    for (unsigned off = 0; off < PM_SIZE; off++) {
        for (unsigned i = 0; i < array_len(sizes); i++) {
            set(b, off, UINT64_MAX, sizes[i]);
            get(b, off, sizes[i]);
        }
    }
    assert_int_equal(get(b, PM_EVENT, 8) >> 16, 0x1c030521); /* what can be enabled, and kept */
    assert_int_equal(b->t.requests[REQ_RESET], 0);           /* 0xff is not the value */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_button_interrupts_until_it_is_acknowledged),
        TEST(s5_powers_off),
        TEST(the_reset_register_resets),
        TEST(the_timer_runs_while_the_machine_does),
        TEST(the_timer_goes_on_after_a_load),
        TEST(a_change_of_the_timers_top_bit_is_noted),
        TEST(accesses_of_every_place_and_width_are_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
