#include "firmware/tables/tables.h"
#include "firmware/tables/tool.h"

enum { BASE = 0xe0000, MANY_CPUS = 300 };

static const uint8_t intx_gsi[4] = {16, 17, 18, 19};
static uint32_t apic_ids[MANY_CPUS];

static struct board_desc pci_board(void)
{
    return (struct board_desc){
        .cpus = 2,
        .apic_ids = apic_ids,
        .sockets = 1,
        .ram_low = MiB(512),
        .pci = {.ecam = 0xe0000000,
                .mmio32 = 0xc0000000,
                .mmio32_len = MiB(512),
                .mmio64 = GiB(64),
                .mmio64_len = GiB(64),
                .io_base = 0x1000,
                .io_len = 0xf000,
                .intx_gsi = intx_gsi},
        .uart = {{0x3f8, 4}, {0x2f8, 3}},
        .nuarts = 2,
        .rtc = true,
        .pm_base = 0x600,
        .sci = 9,
        .s5_type = 5,
        .reset_port = 0xcf9,
        .reset_value = 6,
        .pvpanic_port = 0x505,
        .ioapic = 0xfec00000,
        .lapic = 0xfee00000,
        .pit = true,
    };
}

static struct board_desc mmio_board(void)
{
    struct board_desc d = {
        .cpus = MANY_CPUS,
        .apic_ids = apic_ids,
        .sockets = 1,
        .ram_low = MiB(512),
        .uart = {{0x3f8, 4}},
        .nuarts = 1,
        .nvirtio_mmio = BOARD_VIRTIO_MMIO_MAX,
        .ioapic = 0xfec00000,
        .lapic = 0xfee00000,
    };

    for (unsigned i = 0; i < d.nvirtio_mmio; i++) {
        d.virtio_mmio[i].base = (i ? 0xd0000000 : GiB(8)) + 0x1000 * i;
        d.virtio_mmio[i].len = 0x1000;
        d.virtio_mmio[i].gsi = 5 + i;
    }
    return d;
}

/* The table with that signature, found the way a guest does; NULL when there is none. */
static const uint8_t *find_table(const struct blob *b, const char *signature)
{
    const uint8_t *xsdt = b->data + get_le64(b->data + 24) - BASE;

    for (unsigned at = 36; at < get_le32(xsdt + 4); at += 8) {
        const uint8_t *t = b->data + get_le64(xsdt + at) - BASE;

        if (!memcmp(t, signature, 4))
            return t;
    }
    return NULL;
}

static const uint8_t *find_dsdt(const struct blob *b)
{
    return b->data + get_le64(find_table(b, "FACP") + 140) - BASE;
}

static void assert_sums_to_zero(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p[i];
    assert_int_equal(sum, 0);
}

static void every_pointer_and_checksum_holds(void **s)
{
    (void)s;
    struct board_desc d = pci_board();
    struct blob b = acpi_build(&d, BASE);

    assert_memory_equal(b.data, "RSD PTR ", 8);
    assert_sums_to_zero(b.data, 20);
    assert_sums_to_zero(b.data, 36);
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *t = find_table(&b, (const char *[]){"FACP", "APIC", "MCFG"}[i]);

        assert_non_null(t);
        assert_true(range_fits(t - b.data, get_le32(t + 4), b.len));
        assert_sums_to_zero(t, get_le32(t + 4));
    }

    const uint8_t *fadt = find_table(&b, "FACP");
    const uint8_t *dsdt = find_dsdt(&b);
    uint32_t facs = get_le32(fadt + 36);

    assert_int_equal(get_le32(fadt + 40), get_le64(fadt + 140));
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_sums_to_zero(dsdt, get_le32(dsdt + 4));
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(b.data + facs - BASE, "FACS", 4);
    blob_fini(&b);
}

static void a_board_without_pm_is_hardware_reduced(void **s)
{
    (void)s;
    struct board_desc d = mmio_board();
    struct blob b = acpi_build(&d, BASE);
    const uint8_t *fadt = find_table(&b, "FACP");

    assert_true(get_le32(fadt + 112) & 1 << 20);
    assert_int_equal(get_le32(fadt + 36), 0);
    assert_int_equal(get_le32(fadt + 56), 0);
    assert_null(find_table(&b, "MCFG"));
    blob_fini(&b);
}

static void what_is_absent_is_denied(void **s)
{
    (void)s;
    struct board_desc d = pci_board();
    struct blob b = acpi_build(&d, BASE);

    assert_int_equal(find_table(&b, "FACP")[108], 0x32);
    assert_int_equal(get_le16(find_table(&b, "FACP") + 109), 1 << 0 | 1 << 2 | 1 << 4);
    blob_fini(&b);

    d.rtc = false;
    d.nuarts = 0;
    b = acpi_build(&d, BASE);
    assert_int_equal(find_table(&b, "FACP")[108], 0);
    assert_int_equal(get_le16(find_table(&b, "FACP") + 109), 1 << 2 | 1 << 4 | 1 << 5);
    blob_fini(&b);
}

/* Counts MADT entries by type. */
static void count_madt(const struct blob *b, unsigned count[16])
{
    const uint8_t *madt = find_table(b, "APIC");

    for (unsigned at = 44; at < get_le32(madt + 4); at += madt[at + 1]) {
        assert_true(madt[at] < 16 && madt[at + 1]);
        count[madt[at]]++;
    }
}

static void processors_beyond_254_are_x2apic_entries(void **s)
{
    (void)s;
    struct board_desc d = mmio_board();
    struct blob b = acpi_build(&d, BASE);
    unsigned count[16] = {0};

    count_madt(&b, count);
    assert_int_equal(count[0], 255);
    assert_int_equal(count[9], MANY_CPUS - 255);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 0);
    assert_int_equal(count[10], 1);
    blob_fini(&b);
}

static void sci_and_pit_have_overrides(void **s)
{
    (void)s;
    static const uint8_t pit[] = {2, 10, 0, 0, 2, 0, 0, 0, 0, 0};
    static const uint8_t sci[] = {2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0};
    struct board_desc d = pci_board();
    struct blob b = acpi_build(&d, BASE);
    const uint8_t *madt = find_table(&b, "APIC");

    assert_non_null(memmem(madt, get_le32(madt + 4), pit, sizeof(pit)));
    assert_non_null(memmem(madt, get_le32(madt + 4), sci, sizeof(sci)));
    assert_int_equal(get_le32(madt + 40), 1); /* dual 8259 */
    blob_fini(&b);

    d.pit = false;
    b = acpi_build(&d, BASE);
    madt = find_table(&b, "APIC");
    assert_null(memmem(madt, get_le32(madt + 4), pit, sizeof(pit)));
    assert_int_equal(get_le32(madt + 40), 0);
    blob_fini(&b);
}

/* Has iasl take a table apart and compile the result. */
static void check_table(const char *dir, const uint8_t *t)
{
    struct blob out = {0};

    tool_write(dir, "table.aml", t, get_le32(t + 4));
    if (tool_run(dir, "iasl -d table.aml && iasl -p again table.dsl && ! grep ERROR table.dsl", &out) ||
        !strstr((char *)out.data, "0 Errors, 0 Warnings, 0 Remarks"))
        fail_msg("%.4s: %s", (const char *)t, (char *)out.data);
    blob_fini(&out);
}

static void iasl_accepts_every_table(void **s)
{
    const struct board_desc boards[] = {pci_board(), mmio_board(), {.cpus = 1, .apic_ids = apic_ids, .sockets = 1}};
    char dir[32];

    (void)s;
    if (!tool_found("iasl")) {
        print_message("iasl (package acpica-tools) is not installed\n");
        skip();
    }
    tool_mkdir(dir);
    for (size_t i = 0; i < array_len(boards); i++) {
        struct blob b = acpi_build(&boards[i], BASE);
        const uint8_t *mcfg = find_table(&b, "MCFG");

        check_table(dir, find_table(&b, "FACP"));
        check_table(dir, find_table(&b, "APIC"));
        check_table(dir, find_dsdt(&b));
        if (mcfg)
            check_table(dir, mcfg);
        blob_fini(&b);
    }
    tool_rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pointer_and_checksum_holds), cmocka_unit_test(a_board_without_pm_is_hardware_reduced),
        cmocka_unit_test(what_is_absent_is_denied),         cmocka_unit_test(processors_beyond_254_are_x2apic_entries),
        cmocka_unit_test(sci_and_pit_have_overrides),       cmocka_unit_test(iasl_accepts_every_table),
    };

    for (unsigned i = 0; i < MANY_CPUS; i++)
        apic_ids[i] = i;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
