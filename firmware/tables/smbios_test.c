#include "firmware/tables/tables.h"
#include "firmware/tables/tool.h"

static const uint8_t uuid[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static struct board_desc board(void)
{
    return (struct board_desc){.cpus = 8, .sockets = 2, .ram_low = GiB(3), .ram_high = GiB(61)};
}

/* The `n`th structure (from 0) of that type, as Linux walks them; NULL when there is none. */
static const uint8_t *find(const struct blob *b, uint8_t type, unsigned n)
{
    const uint8_t *p = b->data + 32, *end = b->data + b->len;

    while (p + 4 <= end) {
        if (p[0] == type && n-- == 0)
            return p;
        for (p += p[1]; p[0] || p[1]; p++)
            assert_true(p + 2 < end);
        p += 2;
    }
    assert_ptr_equal(p, end);
    return NULL;
}

static void the_entry_point_leads_to_the_tables(void **s)
{
    (void)s;
    struct board_desc d = board();
    struct blob b = smbios_build(&d, 0xf0000, uuid, "1.0");
    uint8_t sum = 0;

    assert_memory_equal(b.data, "_SM3_", 5);
    for (unsigned i = 0; i < b.data[6]; i++)
        sum += b.data[i];
    assert_int_equal(sum, 0);
    assert_int_equal(get_le64(b.data + 16), 0xf0000 + 32);
    assert_int_equal(get_le32(b.data + 12), b.len - 32);
    assert_non_null(find(&b, 127, 0));
    assert_null(find(&b, 200, 0));
    blob_fini(&b);
}

static void memory_beyond_32_gib_is_told_in_full(void **s)
{
    (void)s;
    struct board_desc d = board();
    struct blob b = smbios_build(&d, 0xf0000, uuid, "1.0");

    assert_int_equal(get_le64(find(&b, 16, 0) + 15), GiB(64));
    assert_int_equal(get_le16(find(&b, 17, 0) + 12), 0x7fff);
    assert_int_equal(get_le32(find(&b, 17, 0) + 28), 64 << 10);
    assert_int_equal(get_le64(find(&b, 19, 0) + 23), GiB(3) - 1);
    assert_int_equal(get_le64(find(&b, 19, 1) + 15), GiB(4));
    assert_int_equal(get_le64(find(&b, 19, 1) + 23), GiB(65) - 1);
    blob_fini(&b);

    d.ram_low = MiB(256);
    d.ram_high = 0;
    b = smbios_build(&d, 0xf0000, uuid, "1.0");
    assert_int_equal(get_le16(find(&b, 17, 0) + 12), 256);
    assert_null(find(&b, 19, 1));
    blob_fini(&b);
}

static void dmidecode_reads_what_was_meant(void **s)
{
    static const char *const lines[] = {
        "SMBIOS 3.6",
        "UUID: 00112233-4455-6677-8899-aabbccddeeff",
        "Version: 1.2.3",
        "Core Count: 4",
        "Socket Designation: CPU 01",
        "Size: 64 GB",
        "Maximum Capacity: 64 GB",
        "Range Size: 61 GB",
        "System is a virtual machine",
    };
    char dir[32];
    struct board_desc d = board();
    struct blob out = {0};

    (void)s;
    if (!tool_found("dmidecode")) {
        print_message("dmidecode is not installed\n");
        skip();
    }
    /* built for address 0 the bytes are in the form of its own dumps */
    struct blob b = smbios_build(&d, 0, uuid, "1.2.3");

    tool_mkdir(dir);
    tool_write(dir, "dump", b.data, b.len);
    assert_int_equal(tool_run(dir, "dmidecode --from-dump dump", &out), 0);
    for (size_t i = 0; i < array_len(lines); i++)
        if (!strstr((char *)out.data, lines[i]))
            fail_msg("no \"%s\" in: %s", lines[i], (char *)out.data);
    for (size_t i = 0; i < 3; i++)
        assert_null(strstr((char *)out.data, (const char *[]){"BAD", "truncated", "OUT OF SPEC"}[i]));
    tool_rmdir(dir);
    blob_fini(&out);
    blob_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_entry_point_leads_to_the_tables),
        cmocka_unit_test(memory_beyond_32_gib_is_told_in_full),
        cmocka_unit_test(dmidecode_reads_what_was_meant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
