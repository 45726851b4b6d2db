/* Encrypted disks: the cipher against the library's, headers that lie, keys, and disks against a model. */
#include "devices/block/luks.h"

#include <nettle/xts.h>

#include "devices/block/qcow2_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SECTOR = CRYPT_SECTOR, DISK = 1 << 20, AT_PAYLOAD = 104, AT_SLOTS = 208, SLOT = 48 };

static const struct crypt_kind kinds[] = {
    {0, CRYPT_XTS, CRYPT_PLAIN64}, {1, CRYPT_XTS, CRYPT_PLAIN}, {2, CRYPT_XTS, CRYPT_PLAIN64},
    {0, CRYPT_CBC, CRYPT_ESSIV},   {1, CRYPT_CBC, CRYPT_PLAIN}, {2, CRYPT_CBC, CRYPT_PLAIN64},
};

static uint64_t rng;

static unsigned pick(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)pick(256);
}

static void sectors_come_back_and_differ_from_each_other(void **s)
{
    uint8_t key[CRYPT_KEY_MAX], plain[4 * SECTOR] = {0}, buf[4 * SECTOR];

    (void)s;
    for (size_t i = 0; i < array_len(kinds); i++) {
        struct crypt c;

        fill(key, sizeof(key));
        crypt_init(&c, &kinds[i], key);
        memcpy(buf, plain, sizeof(buf));
        crypt_encrypt(&c, UINT32_MAX - 1, buf, sizeof(buf));
        for (unsigned k = 1; k < 4; k++)
            assert_memory_not_equal(buf, buf + k * SECTOR, SECTOR);
        crypt_decrypt(&c, UINT32_MAX + 1ull, buf + 2 * SECTOR, SECTOR);
        crypt_decrypt(&c, UINT32_MAX - 1, buf, 2 * SECTOR);
        crypt_decrypt(&c, UINT32_MAX + 2ull, buf + 3 * SECTOR, SECTOR);
        assert_memory_equal(buf, plain, sizeof(buf));
        crypt_fini(&c);
        assert_null(c.aes);
    }
}

static void xts_is_the_librarys(void **s)
{
    uint8_t key[64], data[SECTOR], ours[SECTOR], theirs[SECTOR], tweak[16] = {0};
    struct xts_aes256_key k;
    struct crypt c;

    (void)s;
    for (uint64_t sector = 1; sector; sector <<= 7) {
        fill(key, sizeof(key));
        fill(data, sizeof(data));
        memcpy(ours, data, sizeof(ours));
        crypt_init(&c, &kinds[2], key);
        crypt_encrypt(&c, sector, ours, SECTOR);
        xts_aes256_set_encrypt_key(&k, key);
        put_le64(tweak, sector);
        xts_aes256_encrypt_message(&k, tweak, SECTOR, theirs, data);
        assert_memory_equal(ours, theirs, SECTOR);
    }
}

/* ---- Disks. ---- */

static const char *const made[] = {"", "cipher-alg=aes-128,hash-alg=sha1",
                                   "cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha512",
                                   "cipher-alg=aes-192,cipher-mode=cbc,ivgen-alg=plain"};

static void make(struct mem *m, const char *options)
{
    struct luks_create c = {0};
    struct err err = {0};

    opts_default(luks_driver.create_opts, &c);
    if (opts_parse(luks_driver.create_opts, &c, NULL, "key-secret=key,iter-time=1", &err) ||
        opts_parse(luks_driver.create_opts, &c, NULL, options, &err) ||
        luks_driver.create(&m->b, DISK, &c, rig_keys(), &err))
        fail_msg("%s: %s", options, err.msg);
    opts_clear(luks_driver.create_opts, &c);
}

static struct blk *try(struct mem *m, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = blk_node(&luks_driver, "disk.luks", NULL);

    if (m->b.lim.grows)
        m->b.lim.size = m->size;
    b->file = &m->b;
    if (!luks_driver.open(b, o, err))
        return b;
    luks_layer_close(b);
    return NULL;
}

static struct blk *open_disk(struct mem *m)
{
    const struct blk_open_opts o = {.keys = rig_keys()};
    struct err err = {0};
    struct blk *b = try(m, &o, &err);

    if (!b)
        fail_msg("%s", err.msg);
    return b;
}

static void disks_hold_what_was_written(void **s)
{
    cleanup_free uint8_t *model = xcalloc(1, DISK), *buf = xcalloc(1, DISK);

    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        struct mem *m = mem_create(0);
        struct blk *b;

        make(m, made[i]);
        b = open_disk(m);
        assert_int_equal(b->lim.size, DISK);
        memset(model, 0, DISK);
        assert_int_equal(blk_zero(b, 0, DISK, true), 0);
        for (unsigned k = 0; k < 200; k++) {
            uint64_t off = pick(DISK), n = 1 + pick((unsigned)min_u64(DISK - off, pick(8) ? 2000 : DISK));

            if (k == 100) {
                luks_layer_close(b);
                b = open_disk(m);
            }
            if (pick(2)) {
                fill(model + off, n);
                assert_int_equal(blk_pwrite(b, model + off, n, off), 0);
            } else if (pick(4) == 0) {
                memset(model + off, 0, n);
                assert_int_equal(blk_zero(b, off, n, false), 0);
            } else {
                assert_int_equal(blk_pread(b, buf, n, off), 0);
                assert_memory_equal(buf, model + off, n);
            }
        }
        assert_int_equal(blk_pread(b, buf, DISK, 0), 0);
        assert_memory_equal(buf, model, DISK);
        for (uint64_t at = 0; at < DISK; at += SECTOR) /* nothing lies there as it is */
            assert_memory_not_equal(m->bytes + m->size - DISK + at, model + at, SECTOR);
        luks_layer_close(b);
        mem_destroy(m);
    }
}

static void refused(struct mem *m, const struct blk_open_opts *o, int code, const char *word)
{
    struct err err = {0};

    assert_null(try(m, o, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.msg, word))
        fail_msg("\"%s\" has no \"%s\"", err.msg, word);
}

static void only_its_key_opens_a_disk(void **s)
{
    struct blk_keys keys = {0};
    const struct blk_open_opts o = {.keys = &keys}, about = {.keyless = true};
    struct mem *m = mem_create(0);
    struct err err = {0};
    struct blk *b;
    json_t *j;
    char c;

    (void)s;
    make(m, "");
    refused(m, &o, ENOKEY, "key-file=FILE");
    assert_int_equal(blk_keys_add(&keys, "wrong", "secret", 6, &err), 0);
    refused(m, &o, EACCES, "wrong does not open it");
    assert_int_equal(blk_keys_add(&keys, "wrong", "x", 1, &err), -EINVAL);
    assert_int_equal(blk_keys_add(&keys, "none", "", 0, &err), -EINVAL);
    assert_int_equal(blk_keys_add(&keys, "other", "x", 1, &err), 0);
    refused(m, &o, EACCES, "none of the 2 keys");
    assert_int_equal(blk_keys_add(&keys, "line", "secret\n", 7, &err), 0);
    refused(m, &o, EACCES, "line ends with a line's end");
    assert_int_equal(blk_keys_add(&keys, "right", RIG_KEY, strlen(RIG_KEY), &err), 0);
    b = try(m, &o, &err);
    assert_non_null(b);
    luks_layer_close(b);
    blk_keys_fini(&keys);

    b = try(m, &about, &err);
    assert_non_null(b);
    assert_int_equal(blk_pread(b, &c, 1, 0), -ENOKEY);
    assert_int_equal(blk_pwrite(b, &c, 1, 0), -ENOKEY);
    j = luks_info(b);
    assert_string_equal(json_string_value(json_object_get(j, "cipher-alg")), "aes-256");
    assert_int_equal(json_array_size(json_object_get(j, "slots")), LUKS_SLOTS);
    json_decref(j);
    luks_layer_close(b);
    mem_destroy(m);
}

static void headers_that_lie_are_refused(void **s)
{
    static const struct {
        unsigned at;
        const char *bytes;
        unsigned n;
        int code;
        const char *word;
    } lies[] = {
        {0, "LUKX", 4, EINVAL, "has no LUKS header"},
        {6, "\0\2", 2, ENOTSUP, "version 2"},
        {8, "twofish", 8, ENOTSUP, "\"twofish\""},
        {8, "\x1b[2Jgarble", 11, ENOTSUP, "\"?[2Jgarble\""},
        {40, "ecb", 4, ENOTSUP, "\"ecb\""},
        {72, "md5", 4, ENOTSUP, "\"md5\""},
        {72, "sha256sha256sha256sha256sha256sha256", 32, ENOTSUP, "hash"},
        {AT_PAYLOAD, "\0\0\0\0", 4, EINVAL, "the disk is at byte 0"},
        {AT_PAYLOAD, "\xff\xff\xff\xff", 4, EINVAL, "the disk is at byte"},
        {108, "\0\0\0\x41", 4, EINVAL, "the key's bytes are 65"},
        {164, "\0\0\0\0", 4, EINVAL, "rounds are 0"},
        {164, "\xff\xff\xff\xff", 4, ENOTSUP, "rounds of hashing"},
        {AT_SLOTS, "\0\0\0\1", 4, EINVAL, "a key slot's state is 1"},
        {AT_SLOTS + 4, "\0\0\0\0", 4, EINVAL, "a key slot's rounds are 0"},
        {AT_SLOTS + 4, "\x04\0\0\0", 4, ENOTSUP, "rounds of hashing"},
        {AT_SLOTS + 40, "\0\0\0\1", 4, EINVAL, "a key is at 512"},
        {AT_SLOTS + 40, "\0\xff\xff\xff", 4, EINVAL, "a key is at"},
        {AT_SLOTS + 44, "\xff\xff\xff\xff", 4, EINVAL, "stripes are"},
        {AT_SLOTS, "\0\0\xde\xad", 4, EACCES, "wrong key"},
        {AT_SLOTS + 8, "salt", 4, EACCES, "wrong key"},
        {112, "digest", 6, EACCES, "wrong key"},
    };
    const struct blk_open_opts o = {.keys = rig_keys()};
    struct mem *m = mem_create(0);
    uint8_t was[LUKS_HEADER];

    (void)s;
    make(m, "");
    memcpy(was, m->bytes, sizeof(was));
    for (size_t i = 0; i < array_len(lies); i++) {
        memcpy(m->bytes + lies[i].at, lies[i].bytes, lies[i].n);
        refused(m, &o, lies[i].code, lies[i].word);
        memcpy(m->bytes, was, sizeof(was));
    }
    m->b.lim.size = SECTOR;
    m->b.lim.grows = false;
    refused(m, &o, EINVAL, "has no LUKS header");
    mem_destroy(m);
}

static void wishes_without_sense_are_refused(void **s)
{
    static const struct {
        struct luks_create c;
        const char *word;
    } wishes[] = {
        {{.secret = NULL}, "needs a key"},
        {{.secret = (char *)"nobody"}, "no key has the id \"nobody\""},
        {{.secret = (char *)"key", .kind = {0, CRYPT_XTS, CRYPT_ESSIV}}, "cipher-mode=cbc only"},
    };
    const struct blk_key *key;
    struct err err;

    (void)s;
    for (size_t i = 0; i < array_len(wishes); i++) {
        assert_int_equal(luks_create_check(&wishes[i].c, rig_keys(), "disk", &key, &err), -EINVAL);
        assert_non_null(strstr(err.msg, wishes[i].word));
    }
}

/* ---- qcow2. ---- */

#define LUKS "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1"

static void an_images_header_is_counted_and_kept(void **s)
{
    struct mem *m = mem_create(0);
    struct blk *b;
    uint64_t at;

    (void)s;
    rig_create(m, MiB(8), LUKS ",cluster_size=4K");
    rig_check(m, false);
    rig_qemu_check(m, false);
    b = rig_open(m, NULL);
    assert_int_equal(qcow2_of(b)->h.crypt, 2);
    at = get_be64(qcow2_ext_find(&qcow2_of(b)->h, QCOW2_EXT_LUKS)->data);
    assert_memory_equal(m->bytes + at, "LUKS", 4);
    assert_false(qcow2_clear_of_meta(qcow2_of(b), at + (1 << 20), 1));
    assert_int_equal(blk_pwrite(b, "guest", 5, MiB(1) + 7), 0);
    rig_close(b);
    assert_null(memmem(m->bytes, m->size, "guest", 5));
    rig_check(m, false);
    mem_destroy(m);
}

/* Space that is there already must not read as what its bytes decrypt to. */
static void preallocated_clusters_read_as_zeroes(void **s)
{
    static const char *const options[] = {LUKS ",preallocation=metadata", LUKS ",preallocation=full",
                                          LUKS ",preallocation=falloc,extended_l2=on"};
    cleanup_free uint8_t *buf = xcalloc(1, DISK), *model = xcalloc(1, DISK);

    (void)s;
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0);
        struct blk *b;

        rig_create(m, DISK, options[i]);
        b = rig_open(m, NULL);
        assert_int_equal(blk_pwrite(b, "inside", 6, 100000), 0);
        memcpy(model + 100000, "inside", 6);
        assert_int_equal(blk_pread(b, buf, DISK, 0), 0);
        assert_memory_equal(buf, model, DISK);
        rig_close(b);
        rig_check(m, false);
        rig_qemu_check(m, false);
        mem_destroy(m);
    }
}

static void images_with_bad_pointers_are_refused(void **s)
{
    static const struct {
        unsigned at;
        const char *bytes;
        unsigned n;
        const char *word;
    } lies[] = {
        {0, "\0\0\0\0\0\0\0\1", 8, "encryption header is"},
        {0, "\0\0\0\0\0\0\0\0", 8, "encryption header is"},
        {0, "\x7f\xff\xff\xff\xff\xff\0\0", 8, "encryption header is"},
        {8, "\0\0\0\0\0\0\0\1", 8, "encryption header is 1 byte"},
        {8, "\0\0\0\1\0\0\0\0", 8, "encryption header is"},
        {8, "\0\0\0\0\0\0\x10\0", 8, "a key is at"},
        {-4u, "\0\0\0\x0f", 4, "where its keys are"},
    };
    struct mem *m = mem_create(0);
    struct err err = {0};
    uint8_t *p, was[64];

    (void)s;
    rig_create(m, MiB(1), LUKS);
    p = memmem(m->bytes, 4096, "\x05\x37\xbe\x77", 4);
    assert_non_null(p);
    memcpy(was, p, sizeof(was));
    for (size_t i = 0; i < array_len(lies); i++) {
        memcpy(p + 8 + (int)lies[i].at, lies[i].bytes, lies[i].n);
        assert_null(rig_try(m, NULL, "", true, &err));
        if (!strstr(err.msg, lies[i].word))
            fail_msg("%zu: \"%s\" has no \"%s\"", i, err.msg, lies[i].word);
        memcpy(p, was, sizeof(was));
    }
    mem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sectors_come_back_and_differ_from_each_other),
        cmocka_unit_test(xts_is_the_librarys),
        cmocka_unit_test(disks_hold_what_was_written),
        cmocka_unit_test(only_its_key_opens_a_disk),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(wishes_without_sense_are_refused),
        cmocka_unit_test(an_images_header_is_counted_and_kept),
        cmocka_unit_test(preallocated_clusters_read_as_zeroes),
        cmocka_unit_test(images_with_bad_pointers_are_refused),
    };

    rng = 0x9e3779b97f4a7c15;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
