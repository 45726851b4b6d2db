#include "vmm/report/boot.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

static const char log_text[] = "[    0.000000] Linux version 6.1\n"
                               "[    0.300000] smpboot: Total of 1\n"
                               "[    0.400000] calling  early_init+0x0/0x10 @ 1\n"
                               "[    0.410000] initcall early_init+0x0/0x10 returned 0 after 250 usecs\n"
                               "[    0.800000] calling  slow_init+0x0/0x2f @ 1\n"
                               "[    1.300000] initcall slow_init+0x0/0x2f returned -19 after 480000 usecs\n"
                               "[    1.400000] Run /.bothy/init as init process\n"
                               "[    1.500000] initcall fuse_init+0x0/0xbb [fuse] returned 0 after 60000 usecs\n"
                               "[    1.520000] fuse: init\n"
                               "[    1.600000] bothy: the command starts\n"
                               "[    9.000000] initcall late+0x0/0x1 returned 0 after 999999 usecs\n";

static char *written(const char *text, const struct test_result *r, const char *machine)
{
    struct boot *b = boot_create();
    char *ret;
    size_t n;
    FILE *f = open_memstream(&ret, &n);

    for (const char *p = text; *p; p++) /* lines come in pieces */
        boot_feed(b, p, 1);
    boot_write(b, r, 10000000000, machine, f);
    fclose(f);
    boot_destroy(b);
    return ret;
}

static void every_moment_has_its_row(void **s)
{
    static const struct test_result r = {
        .start_ns = 10100000000, .boot_ns = 2000000000, .byte_ns = 50000000, .command_ns = 90000000};
    char *text cleanup_free = written(log_text, &r,
                                      "{\"result\": {\"begun\": 10.11, \"made\": 0.02, \"loaded\": 0.05, \"entered\": "
                                      "0.06, \"exits\": {\"com1\": 7, \"pci-ecam\": 900}}}\n");

    (void)s;
    assert_string_equal(text, "boot profile: 2.150 s from bothy's start to the command's first byte\n"
                              "    0.100 s  bothy: finds the kernel, packs what the guest loads\n"
                              "    0.010 s  machine: its process\n"
                              "    0.020 s  machine: memory, CPUs, devices\n"
                              "    0.030 s  machine: loads the kernel\n"
                              "    0.010 s  machine: starts\n"
                              "    0.330 s  kernel: until its clock runs\n"
                              "    0.400 s  kernel: set-up\n"
                              "    1.000 s  kernel: initcalls\n"
                              "    0.200 s  first process: modules, devices, root\n"
                              "    0.050 s  the command\n"
                              "longest, of 3 initcalls and of silences in the log:\n"
                              "    0.480 s  initcall slow_init\n"
                              "    0.300 s  until the log says: smpboot: Total of 1\n"
                              "    0.100 s  until the log says: Run /.bothy/init as init process\n"
                              "    0.080 s  until the log says: bothy: the command starts\n"
                              "    0.060 s  initcall fuse_init [fuse]\n"
                              "    0.020 s  until the log says: fuse: init\n"
                              "    0.000 s  initcall early_init\n"
                              "left the guest until then:\n"
                              "      900 ×  pci-ecam\n"
                              "        7 ×  com1\n");
}

static void what_is_not_known_has_none(void **s)
{
    static const struct test_result silent = {.start_ns = 10100000000, .boot_ns = 2000000000, .command_ns = 90000000};
    static const struct test_result dead = {.start_ns = 10100000000};
    char *a cleanup_free = written("[    0.000000] Linux\nno stamp\n[ x\n", &silent, NULL);
    char *b cleanup_free = written("", &dead, "no JSON");

    (void)s;
    assert_string_equal(a, "boot profile: 2.190 s from bothy's start to the command's end\n"
                           "    0.100 s  bothy: finds the kernel, packs what the guest loads\n"
                           "    2.000 s  kernel and first process; its log does not tell more\n"
                           "    0.090 s  the command\n");
    assert_string_equal(b, "boot profile: the command has not started\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_moment_has_its_row),
        cmocka_unit_test(what_is_not_known_has_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
