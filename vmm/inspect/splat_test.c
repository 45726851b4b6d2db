#include "vmm/inspect/splat.h"

#include <errno.h>

#include "vmm/base/test.h"

/* What kernels said, shortened; the kind and the function that each is to be blamed on. */
static const struct {
    enum splat_kind kind;
    const char *function, *lines[12];
} samples[] = {
    {SPLAT_PANIC,
     "sysrq_handle_crash",
     {"[    3.401] sysrq: Trigger a crash", "[    3.402377] Kernel panic - not syncing: sysrq triggered crash",
      "[    3.403] CPU: 0 PID: 1 Comm: sh Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2",
      "[    3.4] Call Trace:", "[    3.404]  <TASK>", "[    3.404]  dump_stack_lvl+0x44/0x5c",
      "[    3.405]  panic+0x118/0x2ed", "[    3.406]  ? lock+0x1/0x2", "[    3.407]  sysrq_handle_crash+0x16/0x20",
      "[    3.4]  __handle_sysrq.cold+0x9/0x1"}},
    {SPLAT_OOPS,
     "lkdtm_EXCEPTION",
     {"<1>[   12.3] BUG: kernel NULL pointer dereference, address: 0000000000000000", "#PF: supervisor write access",
      "Oops: 0002 [#1] PREEMPT SMP PTI", "RIP: 0010:lkdtm_EXCEPTION+0x9/0x10 [lkdtm]", "RIP: 0033:0x7f1",
      "Call Trace:", " <TASK>", " direct_entry+0x1/0x2"}},
    {SPLAT_OOPS,
     "__list_del_entry_valid",
     {"[    1.0][  T77] general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP",
      "RIP: 0010:__list_del_entry_valid+0x3f/0xe0"}},
    {SPLAT_BUG,
     "ext4_writepages",
     {"kernel BUG at fs/ext4/inode.c:2721!", "invalid opcode: 0000 [#1] SMP", "RIP: 0010:ext4_writepages+0xe/0x10"}},
    {SPLAT_BUG,
     "lkdtm_BUG",
     {"Kernel BUG at lkdtm_BUG+0x5/0x10 [verbose debug info unavailable]", "invalid opcode: 0000 [#1] SMP",
      "RIP: 0010:lkdtm_BUG+0x5/0x10"}},
    {SPLAT_BUG,
     "schedule",
     {"BUG: scheduling while atomic: sh/1/0x00000002", "Call Trace:", " dump_stack+0x1/0x2", " schedule+0x1/0x2"}},
    {SPLAT_WARN,
     "refcount_warn_saturate",
     {"------------[ cut here ]------------", "refcount_t: underflow; use-after-free.",
      "WARNING: CPU: 1 PID: 99 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110"}},
    {SPLAT_KASAN, "kmalloc_uaf", {"BUG: KASAN: slab-use-after-free in kmalloc_uaf+0xa1/0xb0 [test_kasan]"}},
    {SPLAT_UBSAN,
     "do_test",
     {"UBSAN: shift-out-of-bounds in lib/test.c:12:3", "shift exponent 33 is too large",
      "Call Trace:", " dump_stack_lvl+0x1/0x2", " ubsan_epilogue+0x5/0x40",
      " __ubsan_handle_shift_out_of_bounds.cold+0x6/0x1", " do_test+0x1/0x2"}},
    {SPLAT_LOCKDEP,
     "ww_test",
     {"======================", "WARNING: possible circular locking dependency detected",
      "Call Trace:", " ww_test+0x1/0x2"}},
    {SPLAT_LOCKDEP, "f", {"WARNING: suspicious RCU usage", "Call Trace:", " f+0x1/0x2"}},
    {SPLAT_LOCKUP, "spin", {"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]", "RIP: 0010:spin+0x2/0x10"}},
    {SPLAT_HUNG,
     "__schedule",
     {"INFO: task mount:12 blocked for more than 120 seconds.", "Call Trace:", " __schedule+0x1/0x2"}},
    {SPLAT_RCU, "spin", {"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RIP: 0010:spin+0x2/0x10"}},
    {SPLAT_RCU, "", {"rcu: INFO: rcu_sched self-detected stall on CPU"}},
};

static void real_splats_are_known(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(samples); i++) {
        struct splat_watch w = {.wanted = UINT32_MAX};

        for (const char *const *line = samples[i].lines; *line; line++)
            splat_line(&w, *line);
        assert_int_equal(w.first, samples[i].kind);
        assert_string_equal(w.function, samples[i].function);
        assert_true(w.title[0] && w.title[0] != '[' && w.title[0] != '<');
    }
}

static void other_lines_are_none(void **s)
{
    static const char *const lines[] = {
        "",
        "[",
        "<",
        "[    0.000000] Linux version 6.1.0",
        "panic=-1",
        "[ 1.0] kernel BUGs are none",
        "INFO: task list follows",
        "Call Trace:",
        " f+0x1/0x2",
        "debug: WARNING: said a program",
        "bug: lower case",
        "RIP: 0010:f+0x1/0x2",
        "[    1.0] Oops",
        "Warning: unable to open an initial console.",
    };
    struct splat_watch w = {.wanted = UINT32_MAX};

    (void)s;
    for (size_t i = 0; i < array_len(lines); i++)
        splat_line(&w, lines[i]);
    assert_int_equal(w.seen, 0);
    assert_string_equal(w.function, "");
}

static void only_what_is_wanted_counts(void **s)
{
    struct splat_watch w = {.wanted = 1u << SPLAT_PANIC};

    (void)s;
    splat_line(&w, "WARNING: CPU: 1 PID: 99 at f.c:28 f+0xba/0x110");
    splat_line(&w, "Kernel panic - not syncing: g");
    splat_line(&w, "WARNING: CPU: 1 PID: 99 at f.c:28 h+0xba/0x110");
    assert_int_equal(w.seen, 1u << SPLAT_PANIC | 1u << SPLAT_WARN);
    assert_int_equal(w.first, SPLAT_PANIC);
    assert_string_equal(w.title, "Kernel panic - not syncing: g");
    assert_string_equal(w.function, "");
}

static void kinds_are_words(void **s)
{
    char bad[16];
    uint32_t k;

    (void)s;
    assert_int_equal(splat_kinds("panic,warn", &k, bad, sizeof(bad)), 0);
    assert_int_equal(k, 1u << SPLAT_PANIC | 1u << SPLAT_WARN);
    assert_int_equal(splat_kinds("all", &k, bad, sizeof(bad)), 0);
    assert_int_equal(k, (1u << SPLAT_KINDS) - 1);
    assert_int_equal(splat_kinds("", &k, bad, sizeof(bad)), -EINVAL);
    assert_string_equal(bad, "");
    assert_int_equal(splat_kinds("oops,pan", &k, bad, sizeof(bad)), -EINVAL);
    assert_string_equal(bad, "pan");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_splats_are_known),
        cmocka_unit_test(other_lines_are_none),
        cmocka_unit_test(only_what_is_wanted_counts),
        cmocka_unit_test(kinds_are_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
