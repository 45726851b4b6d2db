#include <libfdt.h>

#include "firmware/tables/tables.h"
#include "firmware/tables/tool.h"

enum { CPUS = 300 };

static uint32_t apic_ids[CPUS];

static struct board_desc board(void)
{
    return (struct board_desc){
        .cpus = CPUS,
        .apic_ids = apic_ids,
        .ram_low = GiB(3),
        .ram_high = GiB(2),
        .virtio_mmio = {{0xd0000000, 0x1000, 5}, {0xd0001000, 0x1000, 6}},
        .nvirtio_mmio = 2,
        .ioapic = 0xfec00000,
        .lapic = 0xfee00000,
    };
}

static const void *property(const struct blob *b, const char *path, const char *name, int *len)
{
    int at = fdt_path_offset(b->data, path);

    assert_true(at >= 0);
    return fdt_getprop(b->data, at, name, len);
}

static uint64_t be64_at(const uint8_t *cells, unsigned i)
{
    uint64_t v;

    memcpy(&v, cells + 8 * i, sizeof(v));
    return be64toh(v);
}

static void the_tree_says_what_the_board_has(void **s)
{
    (void)s;
    struct board_desc d = board();
    struct blob b = fdt_build(&d, "console=hvc0 quiet");
    int len;

    assert_int_equal(fdt_check_full(b.data, b.len), 0);
    assert_string_equal(property(&b, "/chosen", "bootargs", &len), "console=hvc0 quiet");
    property(&b, "/cpus/cpu@12b", "reg", &len);
    assert_int_equal(len, 4);

    const uint8_t *ram = property(&b, "/memory@0", "reg", &len);

    assert_int_equal(len, 32);
    assert_int_equal(be64_at(ram, 1), GiB(3));
    assert_int_equal(be64_at(ram, 2), GiB(4));
    assert_int_equal(be64_at(ram, 3), GiB(2));

    const uint32_t *irq = property(&b, "/bus/virtio_mmio@d0001000", "interrupts", &len);

    assert_int_equal(fdt32_to_cpu(irq[0]), 6);
    assert_int_equal(fdt32_to_cpu(irq[1]), 2);
    blob_fini(&b);
}

static void a_long_command_line_fits(void **s)
{
    (void)s;
    char words[8192];
    struct board_desc d = board();

    memset(words, 'x', sizeof(words));
    words[sizeof(words) - 1] = 0;

    struct blob b = fdt_build(&d, words);

    assert_int_equal(fdt_check_full(b.data, b.len), 0);
    blob_fini(&b);
}

static void dtc_has_no_complaint(void **s)
{
    char dir[32];
    struct board_desc d = board();
    struct blob out = {0};

    (void)s;
    if (!tool_found("dtc")) {
        print_message("dtc (package device-tree-compiler) is not installed\n");
        skip();
    }
    struct blob b = fdt_build(&d, "quiet");

    tool_mkdir(dir);
    tool_write(dir, "board.dtb", b.data, b.len);
    assert_int_equal(tool_run(dir, "dtc -I dtb -O dts -o board.dts board.dtb", &out), 0);
    assert_string_equal((char *)out.data, "");
    tool_rmdir(dir);
    blob_fini(&out);
    blob_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tree_says_what_the_board_has),
        cmocka_unit_test(a_long_command_line_fits),
        cmocka_unit_test(dtc_has_no_complaint),
    };

    for (unsigned i = 0; i < CPUS; i++)
        apic_ids[i] = i;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
