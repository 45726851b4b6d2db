#include "vmm/inspect/modules.h"

#include <errno.h>

#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_world.h"

static void check_names(const struct symbols *sym, bool init)
{
    static const struct {
        uint64_t at;
        const char *name;
    } wanted[] = {
        {FAKE_TEXT + 0x110, "panic+0x10/0x100"},
        {FAKE_ALPHA_TEXT + 0x11, "alpha_open+0x1/0xf0 [alpha]"},
        {FAKE_ALPHA_TEXT + 0x7ff, "alpha_read+0x6ff/0x700 [alpha]"},
        {FAKE_BETA_TEXT, "beta_spin+0/0x800 [beta]"},
        {FAKE_ALPHA_TEXT + 0x800, "0xffffffff80180800"},
        {FAKE_BETA + 0x800, "0xffffffff80171900"},
    };
    char name[80];

    for (size_t i = 0; i < array_len(wanted); i++) {
        symbols_name(sym, FAKE_IMAGE + wanted[i].at, name, sizeof(name));
        assert_string_equal(name, wanted[i].name);
    }
    symbols_name(sym, FAKE_IMAGE + FAKE_BETA_INIT + 8, name, sizeof(name));
    assert_string_equal(name, init ? "beta_init+0x8/0x100 [beta]" : "0xffffffff80182008");
}

static void modules_name_their_code(void **s)
{
    struct fake_world *w = *s;

    assert_int_equal(symbols_add_modules(&w->k, &w->sym), 2);
    check_names(&w->sym, true);
}

static void the_layout_since_6_4_is_known(void **s)
{
    struct fake_world *w = *s;

    fake_modules(w->mem, true);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), 2);
    check_names(&w->sym, true);
}

static void what_ran_only_at_the_start_is_gone(void **s)
{
    struct fake_world *w = *s;

    fake_put64(w->mem, FAKE_BETA + 200, 0);
    fake_put32(w->mem, FAKE_BETA + 200 + 12, 0);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), 2);
    check_names(&w->sym, false);
}

static void traces_go_through_modules(void **s)
{
    const struct cpu_state cpu = {.gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK};
    struct fake_world *w = *s;
    uint64_t trace[TRACE_MAX];

    fake_put(w->mem, FAKE_BETA_TEXT + 0x20, "\xe8\0\0\0\0", 5);
    fake_put64(w->mem, FAKE_STACK + 24, FAKE_IMAGE + FAKE_BETA_TEXT + 0x25);
    assert_int_equal(symbols_trace(&w->sym, &w->k, &cpu, trace), 2);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), 2);
    assert_int_equal(symbols_trace(&w->sym, &w->k, &cpu, trace), 3);
    assert_true(trace[1] == FAKE_IMAGE + FAKE_BETA_TEXT + 0x25);
}

static void a_kernel_without_modules_has_none(void **s)
{
    struct fake_world *w = *s;

    fake_put64(w->mem, FAKE_MODULES, FAKE_IMAGE + FAKE_MODULES);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), 0);
    fake_put64(w->mem, FAKE_BTF, 0);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), -EFAULT);
    w->sym.names[w->sym.s[w->sym.n - 2].name]++; /* no symbol is called "__stop_BTF" any more, or no "modules" */
    w->sym.names[w->sym.s[w->sym.n - 1].name]++;
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), -ENOENT);
}

static void check_symbol_of_alpha(const struct symbols *sym)
{
    char name[80];

    symbols_function(sym, FAKE_IMAGE + FAKE_ALPHA_TEXT + 0x10, name, sizeof(name));
    assert_string_equal(name, "alpha_open [alpha]");
}

static void lists_that_do_not_end_are_damaged(void **s)
{
    struct fake_world *w = *s;

    fake_put64(w->mem, FAKE_ALPHA + 8, FAKE_IMAGE + FAKE_ALPHA + 8);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), -EFAULT);
    symbols_fini(&w->sym);
    assert_int_equal(symbols_read(&w->k, &w->sym), 0);
    fake_modules(w->mem, false);
    fake_put64(w->mem, FAKE_ALPHA + 8, 0x1234);
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), -EFAULT);
    check_symbol_of_alpha(&w->sym);
    fake_modules(w->mem, false);
    fake_put32(w->mem, FAKE_BETA + 0x188, UINT32_MAX); /* symbols as far as memory reaches */
    assert_int_equal(symbols_add_modules(&w->k, &w->sym), -EFAULT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(modules_name_their_code),
        TEST(the_layout_since_6_4_is_known),
        TEST(what_ran_only_at_the_start_is_gone),
        TEST(traces_go_through_modules),
        TEST(a_kernel_without_modules_has_none),
        TEST(lists_that_do_not_end_are_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
