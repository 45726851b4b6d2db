/* The archive, the modules that depmod's files lead to, and orders on their way from the host to the guest. */
#include "vmm/runner/pack.h"

#include <sys/stat.h>
#include <unistd.h>

#include "firmware/init/orders.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/runner/cpio.h"
#include "vmm/runner/modules.h"
#include "vmm/runner/said.h"

static void an_archive_is_as_linux_reads_it(void **state)
{
    char *text cleanup_free = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    (void)state;
    cpio_add(f, "dir", S_IFDIR | 0755, NULL, 0);
    cpio_add(f, "dir/file", S_IFREG | 0400, "hello", 5);
    cpio_end(f);
    fclose(f);
    assert_int_equal(n % 4, 0);
    /* 110 bytes of header, the name with its NUL up to a multiple of 4, then the data likewise. */
    assert_memory_equal(text, "07070100000000000041ed", 22);
    assert_memory_equal(text + 110, "dir", 4);
    assert_memory_equal(text + 116,
                        "07070100000000"
                        "00008100",
                        22);
    assert_memory_equal(text + 116 + 54, "00000005", 8);
    assert_memory_equal(text + 116 + 94, "00000009", 8);
    assert_memory_equal(text + 116 + 110,
                        "dir/file\0\0hello\0\0\0"
                        "070701",
                        24);
    assert_memory_equal(text + n - 14, "TRAILER!!!\0\0\0", 14);
}

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void remove_file(const char *dir, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(unlink(path), 0);
}

static const char dep[] = "kernel/a/virtio_pci.ko.xz: kernel/a/modern-dev.ko kernel/a/virtio.ko kernel/a/ring.ko\n"
                          "kernel/a/modern-dev.ko: kernel/a/virtio.ko kernel/a/ring.ko\n"
                          "kernel/a/virtio.ko:\n"
                          "kernel/a/ring.ko:\n"
                          "kernel/b/console.ko: kernel/a/virtio.ko kernel/a/ring.ko\n";

static void assert_list(const struct module_list *l, const char *const *names)
{
    unsigned n;

    for (n = 0; names[n]; n++) {
        char name[64];

        assert_true(n < l->n);
        module_name(l, n, name, sizeof(name));
        assert_string_equal(name, names[n]);
    }
    assert_int_equal(l->n, n);
}

static void modules_come_after_those_that_they_need(void **state)
{
    struct module_list list = {.n = 0};
    char dir[] = "/tmp/bothy-modules.XXXXXX";
    struct modules m;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    write_file(dir, "modules.dep", dep, sizeof(dep) - 1);
    write_file(dir, "modules.builtin", "kernel/c/fuse.ko\n", 17);
    assert_int_equal(modules_open(&m, dir, &err), 0);
    assert_int_equal(modules_need(&m, "virtio_pci", &list, &err), 0);
    assert_int_equal(modules_need(&m, "console", &list, &err), 0);
    assert_int_equal(modules_need(&m, "modern_dev", &list, &err), 0);
    assert_int_equal(modules_need(&m, "fuse", &list, &err), 0);
    assert_int_equal(modules_need(&m, "virtio_p", &list, &err), -ENOENT);
    assert_int_equal(modules_need(&m, "pci", &list, &err), -ENOENT);
    assert_list(&list, (const char *const[]){"ring", "virtio", "modern-dev", "virtio_pci", "console", NULL});
    modules_close(&m);
    remove_file(dir, "modules.dep");
    assert_int_equal(modules_open(&m, dir, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "modules.order"));
    modules_close(&m);
    remove_file(dir, "modules.builtin");
    assert_int_equal(rmdir(dir), 0);
}

static void modules_of_a_build_tree_say_what_they_need(void **state)
{
    static const char a[] = "\177ELF..\0depends=b-b,c\0", b[] = "\177ELF..\0depends=c\0", c[] = "\177ELF..\0depends=\0";
    static const char order[] = "kernel/a.ko\nb_b.o\nc.o\nbad.o\nself.o\n", bad[] = "\177ELF..\0depends=gone";
    static const char self[] = "\177ELF..\0depends=self";
    char dir[] = "/tmp/bothy-modules.XXXXXX", path[64];
    static const char *const files[] = {"a.ko", "b_b.ko", "c.ko", "bad.ko", "self.ko", "modules.order"};
    static const char *const texts[] = {a, b, c, bad, self, order};
    static const size_t sizes[] = {sizeof(a), sizeof(b), sizeof(c), sizeof(bad), sizeof(self), sizeof(order) - 1};
    struct module_list list = {.n = 0};
    struct modules m;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/include", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/include/config", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(dir, "include/config/kernel.release", "6.1\n", 4);
    for (size_t i = 0; i < array_len(files); i++)
        write_file(dir, files[i], texts[i], sizes[i]);
    assert_int_equal(modules_open(&m, dir, &err), 0);
    assert_int_equal(modules_need(&m, "a", &list, &err), 0);
    assert_list(&list, (const char *const[]){"c", "b_b", "a", NULL});
    assert_int_equal(modules_need(&m, "none", &list, &err), -ENOENT);
    assert_int_equal(modules_need(&m, "bad", &list, &err), -ENOEXEC);
    assert_non_null(strstr(err.msg, "gone"));
    assert_int_equal(modules_need(&m, "self", &list, &err), -ELOOP);
    modules_close(&m);
    for (size_t i = 0; i < array_len(files); i++)
        remove_file(dir, files[i]);
    remove_file(dir, "include/config/kernel.release");
    assert_int_equal(rmdir(path), 0);
    snprintf(path, sizeof(path), "%s/include", dir);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void modules_of_a_package_say_what_they_need(void **state)
{
    static const char a[] = "\177ELF..\0depends=b\0", b[] = "\177ELF..\0depends=\0",
                      order[] = "kernel/a.ko\nkernel/b.ko\n";
    char dir[] = "/tmp/bothy-modules.XXXXXX", path[64];
    struct module_list list = {.n = 0};
    uint8_t *data cleanup_free = NULL;
    struct modules m;
    struct err err;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/kernel", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(dir, "modules.order", order, sizeof(order) - 1);
    write_file(dir, "kernel/a.ko.xz", a, sizeof(a)); /* the ending is all that is looked at */
    write_file(dir, "kernel/b.ko", b, sizeof(b));
    assert_int_equal(modules_open(&m, dir, &err), 0);
    assert_int_equal(modules_need(&m, "a", &list, &err), 0);
    assert_list(&list, (const char *const[]){"b", "a", NULL});
    assert_int_equal(modules_read(&m, &list, 1, &data, &n, &err), 0);
    assert_memory_equal(data, a, sizeof(a));
    modules_close(&m);
    remove_file(dir, "kernel/a.ko.xz");
    remove_file(dir, "kernel/b.ko");
    remove_file(dir, "modules.order");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void a_list_that_never_ends_is_refused(void **state)
{
    struct module_list list = {.n = 0};
    struct modules m = {.builtin = ""};
    struct err err;
    size_t n;
    FILE *f = open_memstream(&m.dep, &n);

    (void)state;
    fputs("a.ko:", f);
    for (int i = 0; i < MODULES_MAX; i++)
        fprintf(f, " b%d.ko", i);
    fclose(f);
    assert_int_equal(modules_need(&m, "a", &list, &err), -E2BIG);
    free(m.dep);
}

static void compressed_modules_are_unpacked(void **state)
{
    /* "\177ELF" and "module", by gzip. */
    static const uint8_t packed[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03,
                                     0xab, 0x77, 0xf5, 0x71, 0xcb, 0xcd, 0x4f, 0x29, 0xcd, 0x49,
                                     0x05, 0x00, 0x41, 0xe0, 0xc2, 0x94, 0x0a, 0x00, 0x00, 0x00};
    char dir[] = "/tmp/bothy-modules.XXXXXX";
    struct modules m = {.dir = dir, .dep = "plain.ko:\npacked.ko.gz:\nbad.ko:\n", .builtin = ""};
    struct module_list list = {.n = 0};
    struct err err;
    uint8_t *data = NULL;
    size_t n = 0;

    (void)state;
    assert_non_null(mkdtemp(dir));
    write_file(dir, "plain.ko", "\177ELFmodule", 10);
    write_file(dir, "packed.ko.gz", packed, sizeof(packed));
    write_file(dir, "bad.ko", "no module", 9);
    assert_int_equal(modules_need(&m, "plain", &list, &err), 0);
    assert_int_equal(modules_need(&m, "packed", &list, &err), 0);
    assert_int_equal(modules_need(&m, "bad", &list, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(modules_read(&m, &list, i, &data, &n, &err), 0);
        assert_int_equal(n, 10);
        assert_memory_equal(data, "\177ELFmodule", 10);
        free(data);
    }
    assert_true(modules_read(&m, &list, 2, &data, &n, &err) < 0);
    assert_non_null(strstr(err.msg, "bad.ko"));
    remove_file(dir, "bad.ko");
    assert_int_equal(modules_read(&m, &list, 2, &data, &n, &err), -ENOENT);
    remove_file(dir, "plain.ko");
    remove_file(dir, "packed.ko.gz");
    assert_int_equal(rmdir(dir), 0);
}

#define PARSE(text, o) orders_parse((char[]){text}, sizeof(text) - 1, pointers, o)

static void orders_arrive(void **state)
{
    static char *pointers[ORDERS_POINTERS];
    struct orders o;

    (void)state;
    assert_null(PARSE("root=tag\0env=A=1\0arg=ls\0module=x\0arg=\0uid=10\0gid=20\0group=5\0group=6\0env=B\0"
                      "size=80 24\0clock=17\0host=h\0cwd=/x\0systemd=\0net=1 2 3\0dns=1.2.3.4\0",
                      &o));
    assert_string_equal(o.root, "tag");
    assert_string_equal(o.argv[0], "ls");
    assert_string_equal(o.argv[1], "");
    assert_null(o.argv[2]);
    assert_string_equal(o.envp[0], "A=1");
    assert_string_equal(o.envp[1], "B");
    assert_null(o.envp[2]);
    assert_int_equal(o.nmodules, 1);
    assert_true(o.uid == 10 && o.gid == 20 && o.ngroups == 2 && o.groups[1] == 6 && o.clock == 17);
    assert_true(o.tty && o.cols == 80 && o.rows == 24 && o.net && o.address == 1 && o.mask == 2 && o.gateway == 3);
    assert_true(o.systemd);
    assert_string_equal(o.cwd, "/x");
    assert_string_equal(o.dns, "1.2.3.4");
}

static void who_serves_gets_its_commands_later(void **state)
{
    static char *pointers[ORDERS_POINTERS];
    char *const words[] = {"ls", "", "-l", NULL};
    char *text cleanup_free = NULL;
    struct orders o;
    size_t n;

    (void)state;
    assert_null(PARSE("env=A\0serve=\0profile=\0", &o));
    assert_true(o.serve && o.profile);
    assert_null(o.argv[0]);
    assert_string_equal(o.envp[0], "A");
    pack_command(words, &text, &n);
    assert_null(orders_parse(text, n, pointers, &o));
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(o.argv[i], words[i]);
    assert_null(o.argv[3]);
}

static void bad_orders_are_refused(void **state)
{
    static const struct {
        const char *text, *why;
        size_t n;
    } cases[] = {
#define CASE(text, why) {text, why, sizeof(text) - 1}
        CASE("", "end"),
        CASE("arg=x", "end"),
        CASE("root=tag\0", "no command"),
        CASE("arg=x\0what=x\0", "no sense"),
        CASE("arg=x\0\0", "no sense"),
        CASE("arg=x\0uid=-1\0", "user"),
        CASE("arg=x\0uid=4294967295\0", "user"),
        CASE("arg=x\0gid=\0", "user"),
        CASE("arg=x\0group=1x\0", "group"),
        CASE("arg=x\0size=80\0", "size"),
        CASE("arg=x\0size=80 65536\0", "size"),
        CASE("arg=x\0clock=99999999999999999999\0", "clock"),
        CASE("arg=x\0net=1\0", "network"),
        CASE("arg=x\0net=1 2\0", "network"),
        CASE("arg=x\0net=1 2 3 4\0", "network"),
#undef CASE
    };
    static char *pointers[ORDERS_POINTERS];
    struct orders o;

    (void)state;
    for (size_t i = 0; i < array_len(cases); i++) {
        char text[64];
        const char *why;

        memcpy(text, cases[i].text, cases[i].n + 1);
        why = orders_parse(text, cases[i].n, pointers, &o);
        assert_non_null(why);
        assert_non_null(strstr(why, cases[i].why));
    }
}

static void lines_of_the_guest_are_understood(void **state)
{
    struct said s;

    (void)state;
    assert_int_equal(said_parse("ready", &s), 0);
    assert_int_equal(s.kind, SAID_READY);
    assert_int_equal(said_parse("exit 3 18446744073709551615 7 8", &s), 0);
    assert_true(s.kind == SAID_EXIT && s.number == 3 && s.out == UINT64_MAX && s.err == 7 && s.log == 8);
    assert_int_equal(said_parse("signal 11 0 0 0", &s), 0);
    assert_true(s.kind == SAID_SIGNAL && s.number == 11);
    assert_int_equal(said_parse("error 19 mount \033[1m", &s), 0);
    assert_true(s.kind == SAID_ERROR && s.number == 19);
    assert_string_equal(s.text, "mount ?[1m");
}

static void other_lines_are_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "ready ",
        "exit",
        "exit 256 0 0 0",
        "exit 1 0 0",
        "exit 1 0 0 0 ",
        "exit -1 0 0 0",
        "exit 1 0 0 x",
        "exit 1 18446744073709551616 0 0",
        "signal 128 0 0 0",
        "error",
        "error 5",
        "error x y",
        "error 5000 y",
    };
    struct said s;

    (void)state;
    for (size_t i = 0; i < array_len(lines); i++)
        assert_int_equal(said_parse(lines[i], &s), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_archive_is_as_linux_reads_it),
        cmocka_unit_test(modules_come_after_those_that_they_need),
        cmocka_unit_test(modules_of_a_build_tree_say_what_they_need),
        cmocka_unit_test(modules_of_a_package_say_what_they_need),
        cmocka_unit_test(a_list_that_never_ends_is_refused),
        cmocka_unit_test(compressed_modules_are_unpacked),
        cmocka_unit_test(orders_arrive),
        cmocka_unit_test(who_serves_gets_its_commands_later),
        cmocka_unit_test(bad_orders_are_refused),
        cmocka_unit_test(lines_of_the_guest_are_understood),
        cmocka_unit_test(other_lines_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
