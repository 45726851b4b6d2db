#include "vmm/inspect/symbols.h"

#include <errno.h>

#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_world.h"

/* Their names, and a trace that takes only what follows a call. */
static void check_symbols(struct fake_world *w)
{
    const struct cpu_state cpu = {.gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK}, user = {.level = 3};
    uint64_t addr, trace[TRACE_MAX];
    struct symbols s;
    char name[64];

    assert_int_equal(symbols_read(&w->k, &s), 0);
    assert_int_equal(s.n, FAKE_SYMBOLS);
    assert_true(symbols_find(&s, "panic", &addr) && addr == FAKE_IMAGE + FAKE_TEXT + 0x100);
    assert_false(symbols_find(&s, "pani", &addr));
    symbols_name(&s, FAKE_IMAGE + FAKE_TEXT + 0x134, name, sizeof(name));
    assert_string_equal(name, "panic+0x34/0x100");
    symbols_function(&s, FAKE_IMAGE + FAKE_TEXT + 0x134, name, sizeof(name));
    assert_string_equal(name, "panic");
    symbols_name(&s, FAKE_IMAGE + FAKE_TEXT + 0x234, name, sizeof(name));
    assert_string_equal(name, "sysrq_handle_crash+0x34/0xe00");
    symbols_name(&s, FAKE_IMAGE + FAKE_TEXT + 0x1000, name, sizeof(name));
    assert_string_equal(name, "0xffffffff80101000");
    assert_int_equal(symbols_trace(&s, &w->k, &cpu, trace), 2);
    assert_true(trace[0] == FAKE_IMAGE + FAKE_TEXT + 0x122 && trace[1] == FAKE_IMAGE + FAKE_TEXT + 0x215);
    assert_int_equal(symbols_trace(&s, &w->k, &user, trace), 0);
    symbols_fini(&s);
}

static void symbols_name_code(void **s)
{
    struct fake_world *w = *s;

    check_symbols(w);
    fake_kallsyms(w->mem, false);
    check_symbols(w);
}

static void what_is_added_has_its_place(void **s)
{
    struct fake_world *w = *s;
    struct symbols sym;
    uint64_t addr;
    char name[64];

    assert_int_equal(symbols_read(&w->k, &sym), 0);
    assert_int_equal(symbols_add_code(&sym, 0x5000, 0x100, "bad\nname"), 0);
    assert_int_equal(symbols_add(&sym, 0x5010, "f\x1b"), 0);
    assert_int_equal(symbols_add(&sym, 0x4000, "before"), 0);
    symbols_sort(&sym);
    symbols_name(&sym, 0x50ff, name, sizeof(name));
    assert_string_equal(name, "f?+0xef/0xf0 [bad?name]");
    symbols_name(&sym, 0x500f, name, sizeof(name)); /* its code has no symbol yet */
    assert_string_equal(name, "0x500f");
    symbols_name(&sym, 0x4000, name, sizeof(name));
    assert_string_equal(name, "0x4000");
    assert_null(symbols_code(&sym, 0x5100));
    assert_true(symbols_find(&sym, "before", &addr) && addr == 0x4000);
    assert_int_equal(symbols_add_code(&sym, UINT64_MAX, 2, "m"), -EFAULT);
    symbols_fini(&sym);
}

static void traces_leave_out_how_functions_return(void **s)
{
    const struct cpu_state cpu = {.gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK};
    struct fake_world *w = *s;
    uint64_t trace[TRACE_MAX];
    struct symbols sym;

    assert_int_equal(symbols_read(&w->k, &sym), 0);
    assert_int_equal(symbols_add(&sym, FAKE_IMAGE + FAKE_TEXT + 0x120, "srso_return_thunk"), 0);
    symbols_sort(&sym);
    assert_int_equal(symbols_trace(&sym, &w->k, &cpu, trace), 1);
    assert_true(trace[0] == FAKE_IMAGE + FAKE_TEXT + 0x215);
    symbols_fini(&sym);
}

static void without_symbols_addresses_are_numbers(void **s)
{
    const struct symbols none = {0};
    const struct cpu_state cpu = {0};
    struct fake_world *w = *s;
    uint64_t trace[TRACE_MAX];
    char name[64];

    symbols_name(&none, 0x1234, name, sizeof(name));
    assert_string_equal(name, "0x1234");
    assert_int_equal(symbols_trace(&none, &w->k, &cpu, trace), 0);
}

static void a_damaged_table_is_an_error(void **s)
{
    struct fake_world *w = *s;
    struct symbols sym;

    fake_put32(w->mem, FAKE_KALLSYMS, UINT32_MAX);
    assert_int_equal(symbols_read(&w->k, &sym), -EFAULT);
    fake_put32(w->mem, FAKE_KALLSYMS, FAKE_SYMBOLS);
    fake_put(w->mem, FAKE_KALLSYMS + 0x100, "\xff\xff", 2);
    assert_int_equal(symbols_read(&w->k, &sym), -EFAULT);
    fake_kallsyms(w->mem, true);
    fake_put(w->mem, FAKE_KALLSYMS + 0x802, "\xff\xff", 2);
    assert_int_equal(symbols_read(&w->k, &sym), -EFAULT);
    fake_kallsyms(w->mem, true);
    fake_put(w->mem, FAKE_KALLSYMS + 0x100 + 3 * 3, "\2\0\1", 3); /* two that are called _stext, none _etext */
    assert_int_equal(symbols_read(&w->k, &sym), -EFAULT);
    fake_kallsyms(w->mem, true);
    fake_put(w->mem, FAKE_KALLSYMS + 0x800 + 2 * 8, "\1\0", 2); /* a token that stands for nothing */
    fake_put(w->mem, FAKE_KALLSYMS + 0x100 + 3 * (FAKE_SYMBOLS - 1), "\4\0\10\10\7", 5);
    assert_int_equal(symbols_read(&w->k, &sym), -EFAULT);
    memcpy(strstr(w->k.info, "SYMBOL(kallsyms_num_syms)"), "SYMBOL(kallsyms_nun_syms)", 25);
    assert_int_equal(symbols_read(&w->k, &sym), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(symbols_name_code),
        TEST(what_is_added_has_its_place),
        TEST(traces_leave_out_how_functions_return),
        TEST(without_symbols_addresses_are_numbers),
        TEST(a_damaged_table_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
