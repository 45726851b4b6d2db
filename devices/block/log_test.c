#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/filter.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SIZE = 64 << 10, RECORD = 32 };

/* A folder with a disk of 'o's, a copy of it, and room for a log. */
static char home[64];

static void make(const char *path)
{
    cleanup_fd int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    char bytes[SIZE];

    memset(bytes, 'o', SIZE);
    assert_int_equal(write(fd, bytes, SIZE), SIZE);
}

static int setup(void **s)
{
    (void)s;
    strcpy(home, "/tmp/bothy-log-XXXXXX");
    if (!mkdtemp(home) || chdir(home))
        return -1;
    make("disk");
    make("copy");
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    unlink("disk");
    unlink("copy");
    unlink("log");
    return chdir("/") || rmdir(home);
}

static struct blk *open_disk(const char *path, char *filter)
{
    struct opt_list filters = {.v = &filter, .n = filter ? 1 : 0};
    struct blk *b;
    struct err err;

    if (blk_open(path, &(struct blk_open_opts){.filters = &filters}, NULL, NULL, &b, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void put(struct blk *b, char c, uint64_t off, uint64_t n)
{
    char bytes[SIZE];

    memset(bytes, c, n);
    assert_int_equal(blk_pwrite(b, bytes, n, off), 0);
}

/* What became of the disk: a write, a flush, a write over it and others, a flush, a write. */
static void change(void)
{
    struct blk *b = open_disk("disk", "log:file=log");

    put(b, 'a', 0, 4096);
    assert_int_equal(blk_flush(b), 0);
    put(b, 'b', 512, 1);
    put(b, 'c', 8192, 8192);
    assert_int_equal(blk_zero(b, 12288, 512, true), 0);
    assert_int_equal(blk_discard(b, 0, 512), 0);
    assert_int_equal(blk_flush(b), 0);
    put(b, 'd', SIZE - 512, 512);
    blk_close(b);
}

static void read_all(const char *path, char *ret)
{
    cleanup_fd int fd = open(path, O_RDONLY);

    assert_int_equal(read(fd, ret, SIZE), SIZE);
}

static int replay(uint64_t flushes, bool dry, struct log_summary *ret, struct err *err)
{
    struct blk *b = open_disk("copy", NULL);
    int rc = log_replay("log", flushes, dry ? NULL : b, ret, err);

    blk_close(b);
    return rc;
}

static void the_whole_log_makes_the_same_disk(void **s)
{
    char disk[SIZE], copy[SIZE];
    struct log_summary sum;
    struct err err;

    (void)s;
    change();
    assert_int_equal(replay(UINT64_MAX, false, &sum, &err), 0);
    assert_int_equal(sum.size, SIZE);
    assert_int_equal(sum.flushes, 2);
    assert_int_equal(sum.changes, 6);
    assert_int_equal(sum.bytes, 4096 + 1 + 8192 + 512);
    read_all("disk", disk);
    read_all("copy", copy);
    assert_memory_equal(disk, copy, SIZE);
}

static void replay_ends_at_the_flush(void **s)
{
    char copy[SIZE];
    struct log_summary sum;
    struct err err;

    (void)s;
    change();
    assert_int_equal(replay(0, false, &sum, &err), 0);
    assert_int_equal(sum.changes, 0);
    assert_int_equal(replay(1, false, &sum, &err), 0);
    read_all("copy", copy);
    assert_int_equal(copy[0], 'a');
    assert_int_equal(copy[512], 'a');
    assert_int_equal(copy[8192], 'o');
    assert_int_equal(replay(2, false, &sum, &err), 0);
    read_all("copy", copy);
    assert_int_equal(copy[512], 'b');
    assert_int_equal(copy[12288 - 1], 'c');
    assert_int_equal(copy[12288], 0);
    assert_int_equal(copy[SIZE - 1], 'o');
    assert_int_equal(replay(3, false, &sum, &err), -ERANGE);
    assert_non_null(strstr(err.msg, "has 2 flushes"));
}

static void counting_changes_nothing(void **s)
{
    char copy[SIZE];
    struct log_summary sum;
    struct err err;

    (void)s;
    change();
    assert_int_equal(replay(UINT64_MAX, true, &sum, &err), 0);
    assert_int_equal(sum.changes, 6);
    read_all("copy", copy);
    assert_int_equal(copy[0], 'o');
}

static void a_record_cut_short_never_happened(void **s)
{
    struct log_summary sum;
    struct err err;
    struct stat st;

    (void)s;
    change();
    assert_int_equal(stat("log", &st), 0);
    for (off_t cut = 1; cut <= 512 + RECORD; cut += 181) {
        assert_int_equal(truncate("log", st.st_size - cut), 0);
        assert_int_equal(replay(UINT64_MAX, true, &sum, &err), 0);
        assert_int_equal(sum.changes, 5);
        assert_int_equal(sum.flushes, 2);
    }
}

static void damaged_logs_are_refused(void **s)
{
    static const struct {
        unsigned off;
        uint64_t value;
        const char *word;
    } rows[] = {
        {0, 0, "not a log"},
        {8, 2, "not a log"},
        {RECORD, 0, "record at byte 32 is damaged"},
        {RECORD + 4, 0, "record at byte 32 is damaged"},
        {RECORD + 4, 6, "record at byte 32 is damaged"},
        {RECORD + 8, UINT64_MAX - 511, "record at byte 32 is damaged"},
        {RECORD + 8, SIZE, "goes on behind"},
        {RECORD + 16, 0, "record at byte 32 is damaged"},
        {RECORD + 16, UINT64_MAX, "record at byte 32 is damaged"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        uint64_t value = htole64(rows[i].value);
        struct log_summary sum;
        struct err err;
        int fd;

        unlink("log");
        change();
        fd = open("log", O_WRONLY);
        assert_int_equal(pwrite(fd, &value, 8, rows[i].off), 8);
        close(fd);
        assert_true(replay(UINT64_MAX, false, &sum, &err) < 0);
        if (!strstr(err.msg, rows[i].word))
            fail_msg("%zu: %s", i, err.msg);
    }
}

static void a_log_is_a_new_file(void **s)
{
    static const struct {
        char *filter;
        const char *word;
    } rows[] = {{"log", "file="}, {"log:file=copy", "exists"}, {"log:file=no/such", "No such file"}};

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct opt_list filters = {.v = (char **)&rows[i].filter, .n = 1};
        struct blk *b;
        struct err err;

        assert_true(blk_open("disk", &(struct blk_open_opts){.filters = &filters}, NULL, NULL, &b, &err) < 0);
        assert_non_null(strstr(err.msg, rows[i].word));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_whole_log_makes_the_same_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(replay_ends_at_the_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(counting_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_cut_short_never_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_logs_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_is_a_new_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
