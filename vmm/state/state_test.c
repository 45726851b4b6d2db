#include <jansson.h>

#include "vmm/base/test.h"
#include "vmm/state/state.h"

#include "vmm/base/cleanup.h"

struct inner {
    uint16_t reg;
    bool on;
    uint8_t kind;
};

struct outer {
    uint64_t counter;
    uint32_t word;
    struct inner one, many[2];
    uint8_t fifo[5];
    uint8_t byte;
    bool up;
    uint8_t level; /* 0 to 9 */
};

static int inner_check(void *obj, struct err *err)
{
    struct inner *i = obj;

    return i->kind > 100 ? err_set(err, EINVAL, "kind %d", i->kind) : 0;
}

static int outer_check(void *obj, struct err *err)
{
    struct outer *o = obj;

    return o->level > 9 ? err_set(err, ERANGE, "level %d", o->level) : 0;
}

static const struct field inner_fields[] = {
    F_U16(struct inner, reg),
    F_BOOL(struct inner, on),
    F_U8(struct inner, kind),
    F_END,
};
static const struct state_desc inner_desc = {"inner", 1, sizeof(struct inner), inner_fields, inner_check};
static const struct field outer_fields[] = {
    F_U64(struct outer, counter),
    F_U32(struct outer, word),
    F_STRUCT(struct outer, one, &inner_desc),
    F_ARRAY(struct outer, many, &inner_desc),
    F_BYTES(struct outer, fifo),
    F_U8(struct outer, byte),
    F_BOOL(struct outer, up),
    F_U8(struct outer, level),
    F_END,
};
static const struct state_desc outer_desc = {"outer", 3, sizeof(struct outer), outer_fields, outer_check};

static const struct outer sample = {
    .counter = 0x1122334455667788,
    .word = 0xdeadbeef,
    .one = {0xabcd, true, 7},
    .many = {{1, false, 2}, {3, true, 4}},
    .fifo = "fifo!",
    .byte = 0xff,
    .up = true,
    .level = 9,
};

static struct state_writer saved(const struct state_desc *d, const void *obj)
{
    struct state_writer w = {0};

    state_save(&w, "dev0", d, obj);
    return w;
}

static int load_bytes(const uint8_t *buf, size_t len, const struct state_desc *d, void *obj, struct err *err)
{
    struct state_reader r = {.buf = buf, .len = len};

    return state_load(&r, "dev0", d, obj, err);
}

static void what_is_saved_loads_equal(void **s)
{
    struct state_writer w = {0};
    struct state_reader r;
    struct outer a = {0}, b = {0};
    struct err err;

    (void)s;
    state_save(&w, "dev0", &outer_desc, &sample);
    state_save(&w, "dev1", &outer_desc, &sample);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    assert_int_equal(state_load(&r, "dev0", &outer_desc, &a, &err), 0);
    assert_int_equal(state_load(&r, "dev1", &outer_desc, &b, &err), 0);
    assert_int_equal(r.off, r.len);
    assert_memory_equal(&a, &sample, sizeof(a));
    assert_memory_equal(&b, &sample, sizeof(b));
    assert_int_equal(state_load(&r, "dev2", &outer_desc, &a, &err), -EBADMSG);
    state_writer_fini(&w);
}

static void the_wire_is_little_endian_and_named(void **s)
{
    static const struct field fields[] = {F_U16(struct inner, reg), F_END};
    static const struct state_desc desc = {"inner", 0x102, sizeof(struct inner), fields, NULL};
    static const uint8_t want[] = "BHYS\x02\x01\x04"
                                  "dev0\x0b\0\0\0\x03"
                                  "reg\x01\x02\0\0\0\xcd\xab";
    struct state_writer w = saved(&desc, &sample.one);

    (void)s;
    assert_int_equal(w.len, sizeof(want) - 1);
    assert_memory_equal(w.buf, want, w.len);
    state_writer_fini(&w);
}

/* The same struct as an older and as a newer bothy would describe it. */
static const struct field few_fields[] = {F_U32(struct outer, word), F_END};

static void missing_fields_keep_their_value(void **s)
{
    static const struct state_desc older = {"outer", 2, sizeof(struct outer), few_fields, NULL};
    struct state_writer w = saved(&older, &sample);
    struct outer o = {.word = 1, .byte = 42, .one.reg = 43};
    struct err err;

    (void)s;
    assert_int_equal(load_bytes(w.buf, w.len, &outer_desc, &o, &err), 0);
    assert_int_equal(o.word, 0xdeadbeef);
    assert_int_equal(o.byte, 42);
    assert_int_equal(o.one.reg, 43);
    state_writer_fini(&w);
}

static void unknown_fields_are_skipped_and_newer_versions_refused(void **s)
{
    static const struct state_desc older = {"outer", 3, sizeof(struct outer), few_fields, NULL};
    static const struct state_desc oldest = {"outer", 2, sizeof(struct outer), few_fields, NULL};
    struct state_writer w = saved(&outer_desc, &sample);
    struct outer o = {.byte = 42};
    struct err err;

    (void)s;
    assert_int_equal(load_bytes(w.buf, w.len, &older, &o, &err), 0);
    assert_int_equal(o.word, 0xdeadbeef);
    assert_int_equal(o.byte, 42);
    assert_int_equal(load_bytes(w.buf, w.len, &oldest, &o, &err), -EBADMSG);
    assert_string_equal(err.msg, "dev0: version 3 is of a newer bothy; this one knows 2");
    state_writer_fini(&w);
}

static void checks_run_on_every_level_and_name_the_place(void **s)
{
    struct outer bad = sample, o = {0};
    struct state_writer w;
    struct err err;

    (void)s;
    bad.level = 10;
    w = saved(&outer_desc, &bad);
    assert_int_equal(load_bytes(w.buf, w.len, &outer_desc, &o, &err), -EBADMSG);
    assert_string_equal(err.msg, "dev0: level 10");
    assert_int_equal(err.code, EBADMSG);
    state_writer_fini(&w);
    bad = sample;
    bad.many[1].kind = 101;
    w = saved(&outer_desc, &bad);
    assert_int_equal(load_bytes(w.buf, w.len, &outer_desc, &o, &err), -EBADMSG);
    assert_string_equal(err.msg, "dev0: many: kind 101");
    assert_int_equal(load_bytes(w.buf, w.len, &outer_desc, &o, NULL), -EBADMSG);
    state_writer_fini(&w);
}

/* Loads a damaged stream.  What is accepted must be a state that the checks allow, and save and load again. */
static void try_damaged(const uint8_t *buf, size_t len)
{
    cleanup_free uint8_t *copy = malloc(len ? len : 1); /* of just the size, for ASan's sake */
    struct outer o = {0}, again = {0};
    struct state_writer w;
    struct err err = {0};

    memcpy(copy, buf, len);
    if (load_bytes(copy, len, &outer_desc, &o, &err)) {
        assert_int_equal(err.code, EBADMSG);
        assert_true(!strncmp(err.msg, "dev0: ", 6));
        return;
    }
    assert_true(o.level <= 9);
    w = saved(&outer_desc, &o);
    assert_int_equal(load_bytes(w.buf, w.len, &outer_desc, &again, &err), 0);
    assert_memory_equal(&o, &again, sizeof(o));
    state_writer_fini(&w);
}

static void every_truncation_is_refused(void **s)
{
    struct state_writer w = saved(&outer_desc, &sample);
    struct outer o;
    struct err err;

    (void)s;
    for (size_t n = 0; n < w.len; n++) {
        try_damaged(w.buf, n);
        assert_int_equal(load_bytes(w.buf, n, &outer_desc, &o, &err), -EBADMSG);
    }
    state_writer_fini(&w);
}

static void every_damaged_byte_is_refused_or_harmless(void **s)
{
    struct state_writer w = saved(&outer_desc, &sample);

    (void)s;
    for (size_t at = 0; at < w.len; at++)
        for (int v = 0; v < 256; v++) {
            uint8_t was = w.buf[at];

            w.buf[at] = (uint8_t)v;
            try_damaged(w.buf, w.len);
            w.buf[at] = was;
        }
    state_writer_fini(&w);
}

static void damage_is_described(void **s)
{
    static const struct {
        const char *stream, *why;
        size_t len;
    } cases[] = {
#define CASE(stream, why) {stream, why, sizeof(stream) - 1}
        CASE("BHYS\3\0\4dev1\0\0\0\0", "dev0: section dev1 where dev0 belongs"),
        CASE("BHYS\3\0\0\0\0\0\0", "dev0: name at byte 6 has 0 letters"),
        CASE("BHYS\3\0\2\n0\0\0\0\0", "dev0: name at byte 6 is not text"),
        CASE("BHYS\3\0\4dev0\xff\xff\xff\xff", "dev0: section at byte 15 claims 4294967295 bytes; at most 16777216 are "
                                               "allowed"),
        CASE("BHYS\3\0\4dev0\x01\0\0\0", "dev0: section at byte 15 is cut short"),
        CASE("BHYS\3\0\4dev0\x0b\0\0\0\4byte\1\2\0\0\0\0", "dev0: field at byte 25 is cut short"),
        CASE("BHYS\3\0\4dev0\x05\0\0\0\5byte", "dev0: name at byte 16 is cut short"),
        CASE("BHYS\3\0\4dev0\x05\0\0\0\4byte", "dev0: kind at byte 20 is cut short"),
        CASE("BHYS\3\0\4dev0\x0a\0\0\0\4byte\2\0\0\0\0", "dev0: byte: kind 2 where 1 belongs"),
        CASE("BHYS\3\0\4dev0\x0a\0\0\0\4byte\1\0\0\0\0", "dev0: byte: 0 bytes at byte 25 where 1 belong"),
        CASE("BHYS\3\0\4dev0\x09\0\0\0\2up\2\1\0\0\0\2", "dev0: up: 2 at byte 23 is neither 0 nor 1"),
        CASE("XHYS\3\0\4dev0\0\0\0\0", "dev0: no section at byte 0"),
        CASE("BHY", "dev0: section at byte 0 is cut short"),
    };
    struct outer o;
    struct err err;

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        assert_int_equal(load_bytes((const uint8_t *)cases[i].stream, cases[i].len, &outer_desc, &o, &err), -EBADMSG);
        assert_string_equal(err.msg, cases[i].why);
    }
}

static void people_see_json(void **s)
{
    struct outer high = sample;
    json_t *got = state_to_json(&outer_desc, &sample), *v;

    (void)s;
    assert_int_equal(json_object_size(got), 8);
    assert_int_equal(json_integer_value(json_object_get(got, "counter")), (json_int_t)sample.counter);
    assert_true(json_is_true(json_object_get(json_object_get(got, "one"), "on")));
    v = json_array_get(json_object_get(got, "many"), 1);
    assert_int_equal(json_integer_value(json_object_get(v, "kind")), 4);
    assert_int_equal(json_string_length(json_object_get(got, "fifo")), 2 * sizeof(sample.fifo));
    json_decref(got);
    high.counter = UINT64_MAX; /* more than JSON's integers hold */
    got = state_to_json(&outer_desc, &high);
    assert_string_equal(json_string_value(json_object_get(got, "counter")), "18446744073709551615");
    json_decref(got);
}

static void forgotten_bytes_are_counted(void **s)
{
    struct padded {
        uint8_t a;
        uint32_t b; /* three bytes of padding before it */
        struct inner in[2];
    };
    static const struct field part_fields[] = {F_U16(struct inner, reg), F_END};
    static const struct state_desc part = {"inner", 1, sizeof(struct inner), part_fields, NULL};
    static const struct field fields[] = {F_U8(struct padded, a), F_U32(struct padded, b),
                                          F_ARRAY(struct padded, in, &part), F_END};
    static const struct state_desc desc = {"padded", 1, sizeof(struct padded), fields, NULL};

    (void)s;
    assert_int_equal(state_uncovered(&outer_desc), 0);
    assert_int_equal(state_uncovered(&desc), 3 + 2 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_loads_equal),
        cmocka_unit_test(the_wire_is_little_endian_and_named),
        cmocka_unit_test(missing_fields_keep_their_value),
        cmocka_unit_test(unknown_fields_are_skipped_and_newer_versions_refused),
        cmocka_unit_test(checks_run_on_every_level_and_name_the_place),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_damaged_byte_is_refused_or_harmless),
        cmocka_unit_test(damage_is_described),
        cmocka_unit_test(people_see_json),
        cmocka_unit_test(forgotten_bytes_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
