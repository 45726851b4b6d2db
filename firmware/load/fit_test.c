#include "firmware/load/load.h"
#include "firmware/load/test_images.h"

#include <libfdt.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <sys/stat.h>

enum { RAM = 64 << 20, FIT_SPACE = 64 << 10 };

/* What a test may choose; the rest is as it should be. */
struct plan {
    const char *algo; /* NULL: no hash */
    const char *arch, *compression, *default_conf, *conf_kernel;
    bool spoil_hash, ramdisk, external;
};

static const struct plan good = {
    .algo = "sha256", .arch = "x86_64", .compression = "none", .default_conf = "conf-2", .conf_kernel = "kernel-1"};

struct world {
    char path[64];
    struct gmem *mem;
    struct boot_params_in in;
    struct boot_regs regs;
    struct err err;
};

static const struct e820_entry map[] = {{.base = MiB(1), .size = RAM - MiB(1), .type = 1}};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    int fd;

    strcpy(w->path, "/tmp/bothy-fit-XXXXXX");
    fd = mkstemp(w->path);
    if (fd < 0 || gmem_create(RAM, GMEM_SHARED, 0, &w->mem, &w->err) < 0)
        return -1;
    close(fd);
    w->in = (struct boot_params_in){
        .kernel = w->path, .cmdline = "", .e820 = map, .ne820 = 1, .low_free = 0x1000, .low_end = 0x9fc00};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    unlink(w->path);
    gmem_destroy(w->mem);
    free(w);
    return 0;
}

static size_t digest(const char *algo, const struct bytes *data, uint8_t *ret)
{
    struct sha1_ctx sha1;
    struct sha256_ctx sha256;

    if (strcmp(algo, "crc32") == 0) {
        fdt32_st(ret, (uint32_t)crc32(0, data->p, (uInt)data->n));
        return 4;
    }
    if (strcmp(algo, "sha1") == 0) {
        sha1_init(&sha1);
        sha1_update(&sha1, data->n, data->p);
        sha1_digest(&sha1, 20, ret);
        return 20;
    }
    sha256_init(&sha256);
    sha256_update(&sha256, data->n, data->p);
    sha256_digest(&sha256, 32, ret);
    return 32;
}

/* An image's node; `out` takes the data where it is to lie outside. */
static void put_image(void *fdt, const char *name, const struct bytes *data, const struct plan *p, struct bytes *out)
{
    uint8_t hash[32] = {0};

    assert_int_equal(fdt_begin_node(fdt, name), 0);
    assert_int_equal(fdt_property_string(fdt, "arch", p->arch), 0);
    assert_int_equal(fdt_property_string(fdt, "compression", p->compression), 0);
    if (p->external) {
        assert_int_equal(fdt_property_u32(fdt, "data-offset", (uint32_t)out->n), 0);
        assert_int_equal(fdt_property_u32(fdt, "data-size", (uint32_t)data->n), 0);
        bytes_put(out, out->n, data->p, data->n);
    } else {
        assert_int_equal(fdt_property(fdt, "data", data->p, (int)data->n), 0);
    }
    if (p->algo) {
        size_t n = digest(p->algo, data, hash);

        hash[0] ^= p->spoil_hash;
        assert_int_equal(fdt_begin_node(fdt, "hash-1"), 0);
        assert_int_equal(fdt_property_string(fdt, "algo", p->algo), 0);
        assert_int_equal(fdt_property(fdt, "value", hash, (int)n), 0);
        assert_int_equal(fdt_end_node(fdt), 0);
    }
    assert_int_equal(fdt_end_node(fdt), 0);
}

static void put_configuration(void *fdt, const char *name, const char *kernel, bool ramdisk)
{
    assert_int_equal(fdt_begin_node(fdt, name), 0);
    assert_int_equal(fdt_property_string(fdt, "kernel", kernel), 0);
    if (ramdisk)
        assert_int_equal(fdt_property_string(fdt, "ramdisk", "ramdisk-1"), 0);
    assert_int_equal(fdt_end_node(fdt), 0);
}

static struct bytes fit(const struct plan *p, struct bytes kernel)
{
    struct bytes b = {.p = calloc(1, FIT_SPACE), .n = FIT_SPACE}, out = {0};
    struct bytes disk = {.p = (uint8_t *)"in the tree", .n = 12};
    struct plan plain = *p;

    plain.compression = "none";
    assert_int_equal(fdt_create(b.p, FIT_SPACE), 0);
    assert_int_equal(fdt_finish_reservemap(b.p), 0);
    assert_int_equal(fdt_begin_node(b.p, ""), 0);
    assert_int_equal(fdt_begin_node(b.p, "images"), 0);
    put_image(b.p, "kernel-1", &kernel, p, &out);
    put_image(b.p, "ramdisk-1", &disk, &plain, &out);
    assert_int_equal(fdt_end_node(b.p), 0);
    assert_int_equal(fdt_begin_node(b.p, "configurations"), 0);
    if (p->default_conf)
        assert_int_equal(fdt_property_string(b.p, "default", p->default_conf), 0);
    put_configuration(b.p, "conf-1", "ramdisk-1", false); /* no kernel at all */
    put_configuration(b.p, "conf-2", p->conf_kernel, p->ramdisk);
    assert_int_equal(fdt_end_node(b.p), 0);
    assert_int_equal(fdt_end_node(b.p), 0);
    assert_int_equal(fdt_finish(b.p), 0);
    b.n = fdt_totalsize(b.p);
    if (out.n)
        bytes_put(&b, align_up(b.n, 4), out.p, out.n);
    bytes_free(&out);
    bytes_free(&kernel);
    return b;
}

/* Writes the file, frees it, boots it. */
static int boot(struct world *w, struct bytes b)
{
    write_file(w->path, b.p, b.n);
    bytes_free(&b);
    assert_int_equal(gmem_discard(w->mem, 0, RAM), 0);
    return boot_load(w->mem, &w->in, &w->regs, &w->err);
}

static void assert_boots(struct world *w, const struct plan *p, struct bytes kernel)
{
    if (boot(w, fit(p, kernel)) < 0)
        fail_msg("%s", w->err.msg);
    assert_int_equal(w->regs.rip, FAKE_PHYS + FAKE_ENTRY);
}

static void assert_fails(struct world *w, const struct plan *p, const char *word)
{
    assert_true(boot(w, fit(p, fake_kernel())) < 0);
    if (!strstr(w->err.msg, word))
        fail_msg("\"%s\" in: %s", word, w->err.msg);
}

static void default_configuration_boots(void **state)
{
    struct world *w = *state;

    assert_boots(w, &good, fake_kernel());
}

static void kernel_may_be_any_kind_but_a_tree(void **state)
{
    struct world *w = *state;
    uint8_t code[FAKE_MEMSZ] = {0};

    assert_boots(w, &good, elf64(FAKE_PHYS, FAKE_PHYS + FAKE_ENTRY, code, sizeof(code), sizeof(code), 0));
    assert_true(boot(w, fit(&good, fit(&good, fake_kernel()))) < 0);
    assert_non_null(strstr(w->err.msg, "not a kernel"));
}

static void kernel_may_be_compressed(void **state)
{
    struct world *w = *state;
    struct plan p = good;
    struct bytes plain = fake_kernel();

    p.compression = "gzip";
    assert_boots(w, &p, gzip(plain.p, plain.n));
    bytes_free(&plain);
    assert_fails(w, &p, "gzip"); /* it says so and is not */
}

static void ramdisk_comes_before_the_initrds_given(void **state)
{
    struct world *w = *state;
    struct plan p = good;
    struct boot_params bp;
    char text[32];

    p.ramdisk = true;
    w->in.initrds[0] = w->path; /* any file */
    w->in.ninitrds = 1;
    assert_boots(w, &p, fake_kernel());
    assert_int_equal(gmem_read(w->mem, w->regs.rsi, &bp, sizeof(bp)), 0);
    assert_int_equal(gmem_read(w->mem, bp.hdr.ramdisk_image, text, sizeof(text)), 0);
    assert_string_equal(text, "in the tree");
    assert_int_equal(fdt_magic(text + 12), FDT_MAGIC);
}

static void every_hash_is_checked(void **state)
{
    struct world *w = *state;
    static const char *const algos[] = {"crc32", "sha1", "sha256"};

    for (size_t i = 0; i < array_len(algos); i++) {
        struct plan p = good;

        p.algo = algos[i];
        assert_boots(w, &p, fake_kernel());
        p.spoil_hash = true;
        assert_fails(w, &p, algos[i]);
        assert_non_null(strstr(w->err.msg, "damaged"));
    }
}

static void hash_of_unknown_kind_is_not_passed_over(void **state)
{
    struct world *w = *state;
    struct plan p = good;

    p.algo = "rot13";
    assert_fails(w, &p, "rot13");
}

static void data_may_lie_behind_the_tree(void **state)
{
    struct world *w = *state;
    struct plan p = good;
    struct bytes b;

    p.external = true;
    assert_boots(w, &p, fake_kernel());
    b = fit(&p, fake_kernel());
    b.n -= 200;
    assert_true(boot(w, b) < 0);
    assert_non_null(strstr(w->err.msg, "truncated"));
}

static void what_does_not_make_sense_is_named(void **state)
{
    struct world *w = *state;
    struct plan p = good;

    p.arch = "arm64";
    assert_fails(w, &p, "for arm64");
    p = good;
    p.default_conf = "conf-9";
    assert_fails(w, &p, "conf-9");
    p.default_conf = NULL; /* the first one, which names what is no kernel */
    assert_fails(w, &p, "not a kernel");
    p = good;
    p.conf_kernel = "kernel-7";
    assert_fails(w, &p, "kernel-7");
}

static void tree_of_an_old_version_is_refused(void **state)
{
    struct world *w = *state;
    struct bytes b = fit(&good, fake_kernel());

    fdt_set_version(b.p, 13);
    assert_true(boot(w, b) < 0);
    assert_non_null(strstr(w->err.msg, "damaged"));
}

static void damaged_trees_never_crash(void **state)
{
    struct world *w = *state;
    struct bytes whole = fit(&good, fake_kernel());
    uint32_t seed = 7;

    for (int i = 0; i < 500; i++) {
        struct bytes b = {0};

        bytes_put(&b, 0, whole.p, i % 4 == 3 ? seed % whole.n : whole.n);
        for (int k = 0; k < 3 && b.n > 0; k++) {
            seed = seed * 1664525 + 1013904223;
            b.p[seed / 65536 % (b.n < 600 ? b.n : 600)] = (uint8_t)(seed >> 8);
        }
        (void)!boot(w, b);
    }
    bytes_free(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(default_configuration_boots),
        T(kernel_may_be_any_kind_but_a_tree),
        T(kernel_may_be_compressed),
        T(ramdisk_comes_before_the_initrds_given),
        T(every_hash_is_checked),
        T(hash_of_unknown_kind_is_not_passed_over),
        T(data_may_lie_behind_the_tree),
        T(what_does_not_make_sense_is_named),
        T(tree_of_an_old_version_is_refused),
        T(damaged_trees_never_crash),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
