/* Kernels in packages, good and hostile ones, made here byte by byte. */
#include "vmm/runner/package.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/runner/kernel.h"

/* A file of the inner archive [POSIX ustar]. */
struct file {
    const char *name, *text;
    char type;        /* 0: a regular file */
    const char *size; /* what its header says, in octal; NULL: the truth */
};
enum { BLOCK = 512, FILES = 6 };

static void put_file(FILE *f, const struct file *file)
{
    size_t n = file->type ? 0 : strlen(file->text);
    char block[BLOCK] = "", sum[8];
    unsigned total = 0;

    snprintf(block, 100, "%s", file->name);
    strcpy(block + 100, "0000644");
    if (file->size)
        strcpy(block + 124, file->size);
    else
        snprintf(block + 124, 12, "%011o", (unsigned)n);
    strcpy(block + 136, "00000000000");
    block[156] = file->type ? file->type : '0';
    if (file->type)
        snprintf(block + 157, 100, "%s", file->text);
    memcpy(block + 257, "ustar\00000", 8);
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < sizeof(block); i++)
        total += (uint8_t)block[i];
    snprintf(sum, sizeof(sum), "%06o", total);
    memcpy(block + 148, sum, 7);
    fwrite(block, 1, sizeof(block), f);
    fwrite(file->text, 1, n, f);
    while (ftell(f) % BLOCK)
        fputc(0, f);
}

static void put_member(FILE *f, const char *name, const char *text, size_t n)
{
    fprintf(f, "%-16s%-12d%-6d%-6d%-8o%-10zu`\n", name, 0, 0, 0, 0100644, n);
    fwrite(text, 1, n, f);
    if (n % 2)
        fputc('\n', f);
}

static char top[64], package[96], cache[96]; /* a directory of the test's own, and in it */

/* `cut`: bytes missing at its end. */
static void make_package(const struct file *files, size_t cut)
{
    char *tar cleanup_free = NULL;
    FILE *f;
    size_t n;

    f = open_memstream(&tar, &n);
    for (; files->name; files++)
        put_file(f, files);
    for (unsigned i = 0; i < 2 * BLOCK; i++)
        fputc(0, f);
    fclose(f);
    f = fopen(package, "w");
    assert_non_null(f);
    fputs("!<arch>\n", f);
    put_member(f, "debian-binary", "2.0\n", 4);
    put_member(f, "control.tar", "", 0);
    put_member(f, "data.tar", tar, n);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), ftell(f) - (long)cut), 0);
    fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(top, "/tmp/bothy-package.XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(package, sizeof(package), "%s/linux-image.deb", top);
    snprintf(cache, sizeof(cache), "%s/cache", top);
    setenv("XDG_CACHE_HOME", cache, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Below the folder where `kernel`'s boot/ is. */
static bool is_there(const char *kernel, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%.*s%s", (int)(strstr(kernel, "boot/") - kernel), kernel, name);
    return !access(path, F_OK);
}

static int folders; /* of packages in the cache, also of those that failed */
static int count_folder(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)path, (void)st;
    folders += type == FTW_D && where->level == 3;
    return 0;
}
static int count_folders(void)
{
    folders = 0;
    nftw(cache, count_folder, 8, FTW_PHYS);
    return folders;
}

/* A setup header that says where the version lies. */
static void put_kernel(const char *path)
{
    char text[0x400] = "";
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    memcpy(text + 0x202, "HdrS", 4);
    put_le16(text + 0x20e, 0x100);
    strcpy(text + 0x300, "1.2-test (somebody)");
    fwrite(text, 1, sizeof(text), f);
    fclose(f);
}

static void a_package_is_unpacked_once(void **state)
{
    static const struct file files[] = {
        {"./boot/vmlinuz-1.2-test", "a kernel"},
        {"./boot/System.map-1.2-test", "not needed"},
        {"./usr/lib/modules/1.2-test/kernel/a.ko", "a module"},
        {"./lib/modules/1.2-test/build", "/etc", '2'},
        {"./usr/share/doc/copyright", "not needed"},
        {NULL},
    };
    struct kernel_place k, again;
    struct err err;

    (void)state;
    make_package(files, 0);
    assert_int_equal(kernel_find(package, &k, &err), 0);
    assert_non_null(strstr(k.file, "/boot/vmlinuz-1.2-test"));
    assert_true(is_there(k.file, "lib/modules/1.2-test/kernel/a.ko"));
    assert_false(is_there(k.file, "lib/modules/1.2-test/build"));
    assert_false(is_there(k.file, "usr"));
    assert_false(is_there(k.file, "boot/System.map-1.2-test"));
    put_kernel(k.file);
    assert_int_equal(kernel_find(package, &again, &err), 0);
    assert_string_equal(again.file, k.file);
    assert_string_equal(again.version, "1.2-test");
    assert_non_null(strstr(again.modules, "/lib/modules/1.2-test"));
    kernel_place_fini(&again);
    kernel_place_fini(&k);
}

static void what_leads_elsewhere_is_refused(void **state)
{
#define KERNEL               \
    {                        \
        "boot/vmlinuz-1", "" \
    }
    static const struct {
        struct file files[FILES];
        const char *why;
        size_t cut;
    } cases[] = {
        {{{"lib/modules/../../../../x", ""}, KERNEL}, "leads elsewhere"},
        {{{"lib/modules//x", ""}, KERNEL}, "leads elsewhere"},
        {{{"./boot/vmlinuz-1/../../x", ""}, KERNEL}, "leads elsewhere"},
        {{KERNEL, KERNEL}, "twice"},
        {{{"lib/modules/a", ""}, {"lib/modules/a/b", ""}, KERNEL}, "Not a directory"},
        {{{"usr/share/x", "", 0, "50000000000"}, KERNEL}, "4 GiB"},
        {{KERNEL, {"lib/modules/1/x", "text"}}, "damaged", 3 * BLOCK - 2},
        {{{"boot/vmlinuz-1", "/etc/passwd", '2'}}, "linux-image-VERSION"},
        {{{"/boot/vmlinuz-1", ""}}, "linux-image-VERSION"},
        {{{"lib/modules/1/x", ""}}, "linux-image-VERSION"},
    };

    (void)state;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = {0};
        char *kernel = NULL;
        int hold = -1;

        make_package(cases[i].files, cases[i].cut);
        assert_true(package_kernel(package, &kernel, &hold, &err) < 0);
        if (!strstr(err.msg, cases[i].why) || !strstr(err.msg, package))
            fail_msg("case %zu: %s", i, err.msg);
        assert_int_equal(count_folders(), 0);
    }
}

static void links_are_not_followed(void **state)
{
    struct file files[] = {{"./lib/modules/1", top, '2'}, {"lib/modules/1/x", "outside"}, KERNEL, {NULL}};
    char *kernel cleanup_free = NULL, outside[96];
    int hold cleanup_fd = -1;
    struct err err;

    (void)state;
    make_package(files, 0);
    assert_int_equal(package_kernel(package, &kernel, &hold, &err), 0);
    assert_true(is_there(kernel, "lib/modules/1/x"));
    snprintf(outside, sizeof(outside), "%s/x", top);
    assert_int_equal(access(outside, F_OK), -1);
}

static void what_is_no_package_is_refused(void **state)
{
    static const char *const texts[] = {"!<arch>\n", "!<arch>\nnothing", ""};

    (void)state;
    for (size_t i = 0; i < array_len(texts); i++) {
        FILE *f = fopen(package, "w");
        struct err err = {0};
        char *kernel = NULL;
        int hold = -1;

        fputs(texts[i], f);
        fclose(f);
        assert_true(package_kernel(package, &kernel, &hold, &err) < 0);
        assert_non_null(strstr(err.msg, "no Debian package"));
        assert_int_equal(count_folders(), 0);
    }
}

static void the_oldest_that_nobody_uses_goes(void **state)
{
    enum { PACKAGES = 8 };
    char *kernels[PACKAGES];
    int first cleanup_fd = -1;

    (void)state;
    for (unsigned i = 0; i < PACKAGES; i++) {
        char text[] = {(char)('a' + i), 0};
        struct file files[] = {{"boot/vmlinuz-1", text}, {NULL}};
        struct timespec when[2] = {{.tv_sec = i}, {.tv_sec = i}};
        int hold cleanup_fd = -1;
        struct err err;

        make_package(files, 0);
        assert_int_equal(package_kernel(package, &kernels[i], &hold, &err), 0);
        assert_int_equal(futimens(hold, when), 0);
        if (!i)
            first = take_fd(&hold);
    }
    for (unsigned i = 0; i < PACKAGES; i++) {
        assert_int_equal(is_there(kernels[i], "boot/vmlinuz-1"), i == 0 || i + 3 >= PACKAGES);
        free(kernels[i]);
    }
}

enum { NOBODY = 65534 };
static int give_away(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return lchown(path, NOBODY, NOBODY);
}

static void a_cache_that_cannot_be_written_stays_as_it_is(void **state)
{
    enum { PACKAGES = 6 };
    int holds[PACKAGES], hold = -1;
    char *kernel, packages[256];
    uid_t me = geteuid();
    struct err err;

    (void)state;
    for (unsigned i = 0; i < PACKAGES; i++) {
        char text[] = {(char)('a' + i), 0};
        struct file files[] = {{"boot/vmlinuz-1", text}, {NULL}};

        make_package(files, 0);
        assert_int_equal(package_kernel(package, &kernel, &holds[i], &err), 0);
        free(kernel);
    }
    for (unsigned i = 0; i < PACKAGES; i++)
        close(holds[i]);
    snprintf(packages, sizeof(packages), "%s/bothy/packages", cache);
    assert_int_equal(chmod(packages, 0500), 0);
    assert_true(me || (!nftw(top, give_away, 8, FTW_PHYS) && !seteuid(NOBODY))); /* modes do not bind root */
    assert_int_equal(package_kernel(package, &kernel, &hold, &err), 0);
    assert_true(me || !seteuid(me));
    assert_int_equal(chmod(packages, 0700), 0);
    assert_int_equal(count_folders(), PACKAGES);
    free(kernel);
    close(hold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_package_is_unpacked_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_leads_elsewhere_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(links_are_not_followed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_package_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_that_nobody_uses_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cache_that_cannot_be_written_stays_as_it_is, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
