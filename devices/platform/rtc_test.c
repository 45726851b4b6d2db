#include "devices/core/device.h"
#include "vmm/base/test.h"

#include <time.h>

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum { BASE = 0x70, LINE = 8, A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32 };
enum {
    SET = 0x80,
    PIE = 0x40,
    AIE = 0x20,
    UIE = 0x10,
    BINARY = 4,
    H24 = 2,
    IRQ = 0x80,
    PF = 0x40,
    AF = 0x20,
    UF = 0x10
};

struct bench {
    struct test_env t;
    struct device *dev;
};

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(2));
    b->dev = test_env_device(&b->t, "rtc", "rtc", "");
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

static uint8_t get(struct bench *b, unsigned reg)
{
    test_env_write(&b->t, b->t.env.pio, BASE, reg, 1);
    return test_env_read(&b->t, b->t.env.pio, BASE + 1, 1);
}

static void set(struct bench *b, unsigned reg, uint8_t val)
{
    test_env_write(&b->t, b->t.env.pio, BASE, reg, 1);
    test_env_write(&b->t, b->t.env.pio, BASE + 1, val, 1);
}

/* How far the clock is ahead of the host's, which lets a test make time pass. */
static uint64_t *ahead(struct bench *b)
{
    const struct device_part *p = &b->dev->parts[0];

    for (const struct field *f = p->desc->fields; f->kind != FIELD_END; f++) {
        if (!strcmp(f->name, "ahead"))
            return (uint64_t *)((char *)p->obj + f->off);
    }
    fail();
    return NULL;
}

static void pass(struct bench *b, uint64_t ns)
{
    *ahead(b) += ns;
}

/* Sets the clock to the first instants of a second. */
static void set_time(struct bench *b, uint8_t century, uint8_t year, uint8_t month, uint8_t day, uint8_t hour,
                     uint8_t minute, uint8_t second)
{
    uint8_t mode = get(b, B);

    set(b, B, mode | SET);
    set(b, CENTURY, century);
    set(b, 9, year);
    set(b, 8, month);
    set(b, 7, day);
    set(b, 4, hour);
    set(b, 2, minute);
    set(b, 0, second);
    set(b, B, mode & ~SET);
}

static void assert_time(struct bench *b, uint8_t hour, uint8_t minute, uint8_t second)
{
    assert_int_equal(get(b, 4), hour);
    assert_int_equal(get(b, 2), minute);
    assert_int_equal(get(b, 0), second);
}

static unsigned bcd(uint8_t v)
{
    return (v >> 4) * 10u + (v & 15);
}

/* Not time(), which tells a new second only at the kernel's next tick. */
static time_t seconds_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

static void it_tells_the_hosts_utc(void **state)
{
    struct bench *b = *state;
    time_t before = seconds_now(), told;
    struct tm tm;
    int second;

    do {
        second = (int)bcd(get(b, 0));
        tm = (struct tm){
            .tm_year = (int)(bcd(get(b, CENTURY)) * 100 + bcd(get(b, 9))) - 1900,
            .tm_mon = (int)bcd(get(b, 8)) - 1,
            .tm_mday = (int)bcd(get(b, 7)),
            .tm_hour = (int)bcd(get(b, 4)),
            .tm_min = (int)bcd(get(b, 2)),
            .tm_sec = second,
        };
    } while (second != (int)bcd(get(b, 0))); /* another began in between */
    told = timegm(&tm);
    assert_true(told >= before && told <= seconds_now());
    assert_int_equal(bcd(get(b, 6)), tm.tm_wday + 1);
    assert_int_equal(get(b, B), H24);
    assert_int_equal(get(b, D), 0x80);
}

static void all_four_formats_tell_the_same(void **state)
{
    static const struct {
        uint8_t bcd24, bin24, bcd12, bin12;
    } hours[] = {{0x00, 0, 0x12, 12},    {0x01, 1, 0x01, 1},     {0x09, 9, 0x09, 9},
                 {0x12, 12, 0x92, 0x8c}, {0x13, 13, 0x81, 0x81}, {0x23, 23, 0x91, 0x8b}};
    struct bench *b = *state;

    for (unsigned i = 0; i < array_len(hours); i++) {
        set(b, B, H24);
        set_time(b, 0x20, 0x24, 0x02, 0x29, hours[i].bcd24, 0x34, 0x56);
        assert_time(b, hours[i].bcd24, 0x34, 0x56);
        set(b, B, 0);
        assert_time(b, hours[i].bcd12, 0x34, 0x56);
        set(b, B, H24 | BINARY);
        assert_time(b, hours[i].bin24, 34, 56);
        set(b, B, BINARY);
        assert_time(b, hours[i].bin12, 34, 56);
        set_time(b, 20, 24, 2, 29, hours[i].bin12, 1, 2);
        set(b, B, H24);
        assert_time(b, hours[i].bcd24, 0x01, 0x02);
        assert_int_equal(get(b, 6), 5); /* a Thursday */
    }
}

static void the_clock_runs_on_from_what_was_set(void **state)
{
    struct bench *b = *state;

    set_time(b, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    pass(b, NS_PER_SEC);
    assert_time(b, 0, 0, 0);
    assert_int_equal(get(b, CENTURY), 0x20);
    assert_int_equal(get(b, 9), 0);
    assert_int_equal(get(b, 8), 1);
    assert_int_equal(get(b, 7), 1);
    set(b, 2, 0x30); /* without stopping it */
    assert_time(b, 0, 0x30, 0);
}

static void set_stops_the_clock(void **state)
{
    struct bench *b = *state;

    set(b, A, 0x20); /* no periodic flag: that goes on */
    set_time(b, 0x20, 0x26, 0x05, 0x17, 0x12, 0, 0);
    set(b, B, H24 | SET);
    get(b, C);
    pass(b, 90 * NS_PER_SEC);
    assert_time(b, 0x12, 0, 0);
    assert_int_equal(get(b, C), 0);
    assert_int_equal(get(b, A) & 0x80, 0);
    set(b, B, H24);
    assert_time(b, 0x12, 0, 0);
}

static void flags_tell_what_happened_since(void **state)
{
    struct bench *b = *state;

    set(b, A, 0x20); /* no periodic flag */
    set_time(b, 0x20, 0x26, 0x05, 0x17, 0x12, 0, 0);
    get(b, C);
    assert_int_equal(get(b, C), 0);
    pass(b, NS_PER_SEC);
    assert_int_equal(get(b, C), UF);
    assert_int_equal(get(b, C), 0);
    set(b, A, 0x26);
    pass(b, NS_PER_SEC / 1024);
    assert_int_equal(get(b, C) & ~UF, PF);
    assert_false(b->t.lines[LINE].level);
}

static void the_alarm_goes_off_at_its_time(void **state)
{
    static const struct {
        uint8_t hour, minute, second;
        unsigned after;
    } alarms[] = {{0x12, 0x30, 0x10, 10},    {0x12, 0x30, 0xff, 1},    {0xff, 0xff, 0x05, 5},    {0xc0, 0x31, 0x00, 60},
                  {0x11, 0x00, 0x00, 81000}, {0xff, 0x29, 0x59, 3599}, {0x12, 0x30, 0x00, 86400}};
    struct bench *b = *state;

    set(b, A, 0x20);
    for (unsigned i = 0; i < array_len(alarms); i++) {
        set(b, 5, alarms[i].hour);
        set(b, 3, alarms[i].minute);
        set(b, 1, alarms[i].second);
        set_time(b, 0x20, 0x26, 0x05, 0x17, 0x12, 0x30, 0);
        set(b, B, H24 | AIE);
        get(b, C);
        pass(b, (alarms[i].after - 1) * NS_PER_SEC);
        assert_int_equal(get(b, C) & AF, 0);
        assert_false(b->t.lines[LINE].level);
        pass(b, NS_PER_SEC);
        set(b, 0x40, 0); /* any access: it looks */
        assert_true(b->t.lines[LINE].level);
        assert_int_equal(get(b, C) & (IRQ | AF), IRQ | AF);
        assert_false(b->t.lines[LINE].level);
        set(b, B, H24);
    }
}

static void an_impossible_alarm_never_goes_off(void **state)
{
    struct bench *b = *state;

    set(b, 5, 0xff);
    set(b, 3, 0x75);
    set(b, 1, 0xff);
    set(b, B, H24 | AIE);
    get(b, C);
    pass(b, 3 * 86400 * NS_PER_SEC);
    assert_int_equal(get(b, C) & AF, 0);
}

static bool waits_for(struct bench *b, uint8_t flag)
{
    for (int tries = 0; tries < 100 && !b->t.lines[LINE].level; tries++)
        loop_once(b->t.env.loop, 20);
    return (get(b, C) & (IRQ | flag)) == (IRQ | flag);
}

static void enabled_interrupts_arrive_by_themselves(void **state)
{
    struct bench *b = *state;
    struct timespec ts;

    set(b, A, 0x23); /* 8192 Hz */
    set(b, B, H24 | PIE);
    assert_true(waits_for(b, PF));
    assert_true(waits_for(b, PF));
    set(b, B, H24);
    clock_gettime(CLOCK_REALTIME, &ts);
    *ahead(b) = NS_PER_SEC - 5000000 - (uint64_t)ts.tv_nsec; /* 5 ms before a second's end */
    set(b, B, H24 | UIE);
    get(b, C);
    assert_true(waits_for(b, UF));
}

static void ram_keeps_what_is_written(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 14; i < 128; i++)
        set(b, i, i ^ 0x55);
    for (unsigned i = 14; i < 128; i++)
        assert_int_equal(get(b, i | 0x80), i == CENTURY ? get(b, CENTURY) : i ^ 0x55);
    set(b, C, 0xff);
    set(b, D, 0);
    assert_int_equal(get(b, D), 0x80);
    assert_int_equal(test_env_read(&b->t, b->t.env.pio, BASE, 1), 0xff);
}

static void any_bytes_make_some_time(void **state)
{
    static const uint8_t regs[] = {0, 2, 4, 6, 7, 8, 9, CENTURY};
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    for (unsigned mode = 0; mode < 8; mode += 2) {
        for (unsigned val = 0; val < 256; val++) {
            set(b, B, mode | (val & 1 ? SET : 0));
            for (unsigned i = 0; i < array_len(regs); i++)
                set(b, regs[i], val);
            set(b, B, mode | AIE | UIE | PIE);
            for (unsigned i = 0; i < array_len(regs); i++)
                get(b, regs[i]);
        }
    }
    for (unsigned val = 0; val < 256; val++) {
        for (unsigned i = 0; i < array_len(sizes); i++) {
            test_env_write(&b->t, b->t.env.pio, BASE, val, sizes[i]);
            test_env_write(&b->t, b->t.env.pio, BASE + 1, val * 0x0101010101010101ull, sizes[i]);
            test_env_read(&b->t, b->t.env.pio, BASE + 1, sizes[i]);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_tells_the_hosts_utc),
        TEST(all_four_formats_tell_the_same),
        TEST(the_clock_runs_on_from_what_was_set),
        TEST(set_stops_the_clock),
        TEST(flags_tell_what_happened_since),
        TEST(the_alarm_goes_off_at_its_time),
        TEST(an_impossible_alarm_never_goes_off),
        TEST(enabled_interrupts_arrive_by_themselves),
        TEST(ram_keeps_what_is_written),
        TEST(any_bytes_make_some_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
