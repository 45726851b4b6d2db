#include "devices/core/device.h"
#include "vmm/base/test.h"

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"

enum { PORT = 0xf4 };

static void what_is_written_is_the_exit_code(void **state)
{
    struct test_env t;
    struct device *d;
    unsigned n = 0;

    (void)state;
    test_env_init(&t, MiB(2));
    d = test_env_device(&t, "debug-exit", "exit", "");
    for (unsigned size = 1; size <= 4; size *= 2) {
        test_env_write(&t, t.env.pio, PORT, 0x12345600 + 0x2a + size, size);
        assert_int_equal(t.requests[REQ_EXIT], ++n);
        assert_int_equal(t.code, 0x2a + size);
    }
    for (unsigned i = 1; i < 4; i++)
        test_env_write(&t, t.env.pio, PORT + i, 1, 1);
    assert_int_equal(t.requests[REQ_EXIT], n);
    assert_int_equal(test_env_read(&t, t.env.pio, PORT, 4), UINT32_MAX);
    device_destroy(d);
    test_env_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_written_is_the_exit_code)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
