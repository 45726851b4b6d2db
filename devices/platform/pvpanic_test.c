#include "devices/core/device.h"
#include "vmm/base/test.h"

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { PORT = 0x505 };

static void each_event_asks_for_what_it_means(void **state)
{
    struct test_env t;
    struct device *d;

    (void)state;
    test_env_init(&t, MiB(2));
    d = test_env_device(&t, "pvpanic", "pvpanic", "");
    assert_int_equal(test_env_read(&t, t.env.pio, PORT, 1), 7);
    test_env_write(&t, t.env.pio, PORT, 0, 1);
    test_env_write(&t, t.env.pio, PORT, 2, 1); /* its crash kernel will tell more */
    test_env_write(&t, t.env.pio, PORT, 0xf8, 1);
    assert_int_equal(t.requests[REQ_CRASHED] + t.requests[REQ_POWEROFF], 0);
    test_env_write(&t, t.env.pio, PORT, 4, 1);
    assert_int_equal(t.requests[REQ_POWEROFF], 1);
    test_env_write(&t, t.env.pio, PORT, 1, 1);
    assert_int_equal(t.requests[REQ_CRASHED], 1);
    device_destroy(d);
    test_env_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_event_asks_for_what_it_means)};

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
