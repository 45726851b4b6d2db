/* Bundles of a machine that is not there: what is in them. */
#include "vmm/bundle/bundle.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/test.h"
#include "vmm/bundle/fake_vm.h"

struct world {
    struct machine m;
    struct vm vm;
    char dir[64], line[256], text[8192];
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    struct err err;

    fake_vm_init(&w->m, &w->vm);
    assert_int_equal(opts_set(config_opts, &w->m.config, "kernel", "bzImage", &err), 0);
    strcpy(w->dir, "/tmp/bothy-bundle-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    DIR *d = opendir(w->dir);

    for (struct dirent *e; (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(w->dir);
    fake_machine_fini(&w->m);
    free(w);
    return 0;
}

static void write_bundle(struct world *w, struct bundle_opts o)
{
    struct err err;

    o.dir = w->dir;
    if (bundle_write(&w->m, &o, w->line, sizeof(w->line), &err) < 0)
        fail_msg("%s", err.msg);
}

/* What a file holds, in w->text. */
static const char *file(struct world *w, const char *name)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    f = fopen(path, "r");
    if (!f)
        fail_msg("no %s", name);
    w->text[fread(w->text, 1, sizeof(w->text) - 1, f)] = 0;
    fclose(f);
    return w->text;
}

static void check_holds(struct world *w, const char *name, const char *part)
{
    if (!strstr(file(w, name), part))
        fail_msg("%s lacks \"%s\": %s", name, part, w->text);
}

static void say(struct world *w, const char *text)
{
    uint64_t pos = 0x1000;

    fake_record(w->m.e.env.mem, 11, &pos, text);
    fake_put64(w->m.e.env.mem, FAKE_RING + 24, 2ull << 62 | 11);
    fake_put64(w->m.e.env.mem, FAKE_RING + 32, 2ull << 62 | 4);
}

static void a_panic_leaves_all_of_it(void **state)
{
    struct world *w = *state;
    struct json_error_t e;
    json_t *j;

    say(w, "Kernel panic - not syncing: by f+0x1/0x2");
    fake_config(w->m.e.env.mem);
    write_bundle(w, (struct bundle_opts){.core = true});
    assert_string_equal(w->line, "panic in f: Kernel panic - not syncing: by f+0x1/0x2");
    check_holds(w, "summary", "panic in f: Kernel panic - not syncing: by f+0x1/0x2\n\n");
    check_holds(w, "summary",
                "2 CPUs, 512 MiB, up 1.500 s\nKernel: 6.1.0-test, moved by 0x1e000000 (KASLR)\nLog: kernel.log\n");
    check_holds(w, "summary", "Again: bothy run --config config.json\nCore: crash");
    check_holds(w, "summary",
                "\nCPU 0: halted in _stext+0x20/0x100, interrupts on\n"
                "CPU 1: running in sysrq_handle_crash+0x34/0xe00, interrupts off\n");
    assert_null(strstr(w->text, "Modules:"));
    check_holds(w, "kernel.log", "[    0.004000] record 4\twith? text\n[    0.005000] record 5");
    check_holds(w, "kernel.log", "\n[    0.011000] Kernel panic");
    check_holds(w, "cpus", "off\n  panic+0x22/0x100\n  sysrq_handle_crash+0x15/0xe00\nreport of CPU 1\n");
    check_holds(w, "config.json", "\"bzImage\"");
    assert_string_equal(file(w, "kernel.config"), FAKE_CONFIG);
    assert_memory_equal(file(w, "vmcore"),
                        "\x7f"
                        "ELF",
                        4);
    j = json_loads(file(w, "devices.json"), 0, &e);
    assert_true(json_is_object(json_object_get(j, "com1")));
    json_decref(j);
}

static void what_the_engine_says_begins_the_line(void **state)
{
    struct world *w = *state;

    w->m.crash = "triple fault";
    write_bundle(w, (struct bundle_opts){0});
    assert_string_equal(w->line, "triple fault: CPU 0 in _stext+0x20/0x100");
}

static void a_hang_is_told_by_samples(void **state)
{
    struct world *w = *state;
    struct bundle_opts o = {.what = "ended by SIGQUIT"};
    struct samples s;
    struct guest_kernel k;

    guest_kernel_init(&k, w->m.e.env.mem);
    samples_init(&s, FAKE_CPUS);
    samples_take(&s, &k, w->vm.cpus);
    samples_take(&s, &k, w->vm.cpus);
    o.samples = &s;
    say(w, "WARNING: CPU: 1 PID: 99 at f.c:28 f+0xba/0x110"); /* long ago: not what it hangs by */
    write_bundle(w, o);
    assert_string_equal(w->line, "ended by SIGQUIT: CPU 1 spins in sysrq_handle_crash with interrupts off");
    check_holds(w, "summary", "CPU 1, looked at 2 times: in the kernel 2");
    check_holds(w, "cpus", "\n  sysrq_handle_crash+0x34/0xe00 < panic+0x22/0x100");
    say(w, "Kernel panic - not syncing: by f+0x1/0x2");
    write_bundle(w, o);
    assert_string_equal(w->line, "panic in f: Kernel panic - not syncing: by f+0x1/0x2");
    samples_fini(&s);
    guest_kernel_fini(&k);
}

static void what_cannot_be_read_is_said(void **state)
{
    struct world *w = *state;

    fake_put64(w->m.e.env.mem, FAKE_BTF, 0);
    fake_put64(w->m.e.env.mem, FAKE_PRB, 0);
    write_bundle(w, (struct bundle_opts){0});
    check_holds(w, "summary", "\nLog: the ring of its records is damaged\nModules: their list is damaged\n");
    fake_put32(w->m.e.env.mem, FAKE_KALLSYMS, 0);
    write_bundle(w, (struct bundle_opts){0});
    check_holds(w, "summary", "\nSymbols: this kernel does not tell");
    fake_put32(w->m.e.env.mem, FAKE_NOTE, 0);
    write_bundle(w, (struct bundle_opts){0});
    check_holds(w, "summary", "\nLog: no Linux kernel in memory");
    check_holds(w, "summary", "\nCPU 1: running in 0xffffffff80100234, interrupts off\n");
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    struct world *w = *state;
    const struct bundle_opts none = {.dir = "/proc/nowhere"}, taken = {.dir = w->dir};
    char path[128];
    struct err err;

    assert_true(bundle_write(&w->m, &none, w->line, sizeof(w->line), &err) < 0);
    assert_non_null(strstr(err.msg, "/proc/nowhere"));
    snprintf(path, sizeof(path), "%s/summary", w->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(bundle_write(&w->m, &taken, w->line, sizeof(w->line), &err), -EISDIR);
    assert_non_null(strstr(err.msg, "bundle: summary: "));
    rmdir(path);
}

static void nothing_is_left_of_the_last_one(void **state)
{
    struct world *w = *state;
    char path[128];

    fake_config(w->m.e.env.mem);
    write_bundle(w, (struct bundle_opts){.core = true, .lean = true, .packed = true});
    assert_memory_equal(file(w, "vmcore"), "KDUMP   \6", 9);
    assert_string_equal(file(w, "kernel.config"), FAKE_CONFIG);
    fake_put32(w->m.e.env.mem, FAKE_NOTE, 0);
    snprintf(path, sizeof(path), "%s/summary", w->dir);
    unlink(path);
    assert_int_equal(symlink("/tmp/elsewhere", path), 0); /* which it does not follow */
    write_bundle(w, (struct bundle_opts){0});
    check_holds(w, "summary", "\nLog: no Linux kernel in memory");
    for (size_t i = 0; i < 3; i++) {
        static const char *const old[] = {"kernel.config", "kernel.log", "vmcore"};

        snprintf(path, sizeof(path), "%s/%s", w->dir, old[i]);
        assert_int_equal(access(path, F_OK), -1);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_panic_leaves_all_of_it),
        TEST(what_the_engine_says_begins_the_line),
        TEST(a_hang_is_told_by_samples),
        TEST(what_cannot_be_read_is_said),
        TEST(a_place_that_cannot_be_written_is_named),
        TEST(nothing_is_left_of_the_last_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
