#include "vmm/inspect/btf.h"

#include <errno.h>

#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_world.h"

static void members_have_their_places(void **s)
{
    struct fake_world *w = *s;
    struct btf_layout l;
    struct btf b;
    uint64_t at;

    assert_int_equal(btf_read(&w->k, &w->sym, &b), 0);
    assert_true(btf_struct(&b, "module", &l) && l.size == 512 && l.nmembers == 6);
    assert_true(btf_member(&l, "kallsyms", &at) && at == 128);
    assert_false(btf_member(&l, "kallsym", &at));
    assert_true(btf_struct(&b, "mod_kallsyms", &l) && btf_member(&l, "strtab", &at) && at == 16);
    assert_false(btf_struct(&b, "list_head", &l));
    btf_fini(&b);
}

static void what_begins_within_a_byte_has_no_place(void **s)
{
    struct fake_world *w = *s;
    struct btf_layout l;
    struct btf b;
    uint64_t at;

    assert_int_equal(btf_read(&w->k, &w->sym, &b), 0);
    assert_true(btf_struct(&b, "module", &l));
    put_le32(b.data + l.members + 8, 3);
    assert_false(btf_member(&l, "state", &at));
    put_le32(b.data + l.members + 8, 1u << 24 | 8); /* a field of one bit */
    assert_false(btf_member(&l, "state", &at));
    btf_fini(&b);
}

static void damage_is_noticed(void **s)
{
    static const struct {
        uint32_t at, value;
    } cases[] = {
        {0, 0}, {4, 0}, {4, UINT32_MAX}, {8, UINT32_MAX}, {12, UINT32_MAX}, {16, FAKE_BTF_LEN}, {20, FAKE_BTF_LEN}};
    struct fake_world *w = *s;
    struct btf b;

    for (size_t i = 0; i < array_len(cases); i++) {
        fake_types(w->mem, false);
        fake_put32(w->mem, FAKE_BTF + cases[i].at, cases[i].value);
        assert_int_equal(btf_read(&w->k, &w->sym, &b), -EFAULT);
    }
    fake_put64(w->mem, FAKE_TABLES + 0x2000, 0); /* nothing is mapped */
    assert_int_equal(btf_read(&w->k, &w->sym, &b), -EFAULT);
}

/* Types that reach beyond their section, or are of no known kind, end the search. */
static void types_that_make_no_sense_end_it(void **s)
{
    static const uint32_t infos[] = {(uint32_t)BTF_KIND_STRUCT << 24 | 0xffff, 31u << 24, 0};
    struct fake_world *w = *s;
    struct btf_layout l;
    struct btf b;

    for (size_t i = 0; i < array_len(infos); i++) {
        assert_int_equal(btf_read(&w->k, &w->sym, &b), 0);
        put_le32(b.data + b.types + 4, infos[i]);
        assert_false(btf_struct(&b, "mod_kallsyms", &l));
        btf_fini(&b);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(members_have_their_places),
        TEST(what_begins_within_a_byte_has_no_place),
        TEST(damage_is_noticed),
        TEST(types_that_make_no_sense_end_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
