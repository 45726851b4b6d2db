#include "vmm/base/test.h"
#include "vmm/kvm/engine.h"

static void failures_name_their_remedies(void **s)
{
    static const struct {
        int code;
        const char *in_message;
    } cases[] = {
        {ENOENT, "modprobe kvm_intel"}, {ENODEV, "modprobe kvm_amd"},  {EACCES, "usermod -aG kvm"},
        {EPERM, "container"},           {EBUSY, "another hypervisor"}, {EMFILE, "Too many open files"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err;

        assert_int_equal(kvm_err(&err, "/dev/kvm", cases[i].code), -cases[i].code);
        assert_memory_equal(err.msg, "/dev/kvm: ", 10);
        assert_non_null(strstr(err.msg, cases[i].in_message));
    }
}

static void no_capability_is_listed_twice(void **s)
{
    (void)s;
    for (const struct kvm_cap *a = kvm_caps; a->name; a++)
        for (const struct kvm_cap *b = a + 1; b->name; b++)
            assert_int_not_equal(a->id, b->id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_name_their_remedies),
        cmocka_unit_test(no_capability_is_listed_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
