#include "firmware/load/ikconfig.h"

#include "firmware/load/kernel.h"
#include "firmware/load/test_images.h"

static const char config[] = "# made by hand\nCONFIG_VIRTIO_PCI=y\n# CONFIG_VIRTIO_FS is not set\n";

/* As the kernel's build puts it there. */
static void put_config(struct bytes *b, size_t at)
{
    struct bytes packed = gzip(config, sizeof(config) - 1);

    bytes_put(b, at, "IKCFG_ST", 8);
    bytes_put(b, at + 8, packed.p, packed.n);
    bytes_put(b, at + 8 + packed.n, "IKCFG_ED", 8);
    bytes_free(&packed);
}

static void check_found(const struct bytes *b)
{
    char *text;

    assert_int_equal(ikconfig_find(b->p, b->n, &text), 0);
    assert_string_equal(text, config);
    free(text);
}

static void it_is_found_wherever_it_is(void **state)
{
    struct bytes b = {0};

    (void)state;
    bytes_put(&b, 0, "IKCFG_ST and IKCFG_ED in a string, IKCFG_ST\x1f\x8b damaged", 53);
    put_config(&b, 4093);
    check_found(&b);
    bytes_free(&b);
    put_config(&b, 0);
    check_found(&b);
    bytes_free(&b);
}

static void damaged_or_cut_short_there_is_none(void **state)
{
    struct bytes b = {0};
    char *text;

    (void)state;
    put_config(&b, 64);
    for (size_t n = 1; n < b.n; n++) {
        struct bytes part = {0};

        bytes_put(&part, 0, b.p, n); /* so that reading beyond it is seen */
        assert_int_equal(ikconfig_find(part.p, n, &text), -ENOENT);
        bytes_free(&part);
    }
    b.p[64 + 8 + 12] ^= 0xff;
    assert_int_equal(ikconfig_find(b.p, b.n, &text), -ENOENT);
    bytes_free(&b);
}

/* Marks without end cost no more than a few, and what unpacks to too much is none. */
static void what_is_made_to_waste_time_is_given_up(void **state)
{
    const size_t big = 5 << 20;
    uint8_t *zeroes = calloc(1, big);
    struct bytes b = {0}, packed = gzip(zeroes, big);
    char *text;

    (void)state;
    bytes_put(&b, 0, "IKCFG_ST", 8);
    bytes_put(&b, 8, packed.p, packed.n);
    bytes_put(&b, b.n, "IKCFG_ED", 8);
    assert_int_equal(ikconfig_find(b.p, b.n, &text), -ENOENT);
    for (size_t i = 0; i < big; i += 10)
        memcpy(zeroes + i, "IKCFG_ST\x1f\x8b", 10);
    assert_int_equal(ikconfig_find(zeroes, big, &text), -ENOENT);
    bytes_free(&packed);
    bytes_free(&b);
    free(zeroes);
}

/* A kernel's file, in the formats that are looked into. */
static void it_is_read_from_a_kernels_file(void **state)
{
    char dir[] = "/tmp/bothy-ikconfig-XXXXXX", path[64], *text;
    struct bytes vmlinux = fake_vmlinux(), plain = fake_vmlinux(), packed, file;
    struct setup_header h;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/kernel", dir);
    put_config(&vmlinux, 0x1000 + 0x400); /* in its segment */
    packed = gzip(vmlinux.p, vmlinux.n);
    h = fake_header((uint32_t)packed.n);
    file = fake_bzimage(&h, packed.p);
    write_file(path, file.p, file.n);
    assert_int_equal(boot_config(path, false, &text), 0);
    assert_string_equal(text, config);
    free(text);
    write_file(path, vmlinux.p, vmlinux.n);
    assert_int_equal(boot_config(path, false, &text), 0);
    assert_string_equal(text, config);
    free(text);
    write_file(path, plain.p, plain.n);
    assert_int_equal(boot_config(path, false, &text), -ENOENT);
    write_file(path, "rubbish", 7);
    assert_int_equal(boot_config(path, false, &text), -ENOENT);
    unlink(path);
    assert_int_equal(boot_config(path, false, &text), -ENOENT);
    assert_int_equal(rmdir(dir), 0);
    bytes_free(&vmlinux);
    bytes_free(&plain);
    bytes_free(&packed);
    bytes_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_found_wherever_it_is),
        cmocka_unit_test(damaged_or_cut_short_there_is_none),
        cmocka_unit_test(what_is_made_to_waste_time_is_given_up),
        cmocka_unit_test(it_is_read_from_a_kernels_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
