#include "vmm/inspect/printk.h"

#include <errno.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"

struct world {
    struct gmem *mem;
    struct vmcoreinfo k;
    struct printk_reader reader;
    char log[2048];
};

static void keep(struct printk_reader *r, const struct printk_record *rec)
{
    struct world *w = container_of(r, struct world, reader);
    size_t n = strlen(w->log);

    snprintf(w->log + n, sizeof(w->log) - n, "%llu:%s;", (unsigned long long)rec->seq, rec->text);
}

static int setup(void **s)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->mem = fake_kernel_create();
    w->reader.record = keep;
    assert_int_equal(vmcoreinfo_find(w->mem, &w->k), 0);
    *s = w;
    return 0;
}

static int teardown(void **s)
{
    struct world *w = *s;

    vmcoreinfo_fini(&w->k);
    gmem_destroy(w->mem);
    free(w);
    return 0;
}

#define R(n) #n ":record " #n "\twith? text;"

static void the_log_is_read_in_order(void **s)
{
    struct world *w = *s;
    uint64_t pos = 0x1000;

    assert_int_equal(printk_read(&w->k, &w->reader), 0);
    assert_string_equal(w->log, R(3) R(4) R(5) R(6) "7:;" R(8) R(9) R(10));
    w->log[0] = 0;
    assert_int_equal(printk_read(&w->k, &w->reader), 0);
    assert_string_equal(w->log, "");
    fake_record(w->mem, 11, &pos, "panic");
    fake_put64(w->mem, FAKE_RING + 24, 11);
    fake_put64(w->mem, FAKE_RING + 32, 4);
    assert_int_equal(printk_read(&w->k, &w->reader), 0);
    assert_string_equal(w->log, "11:panic;");
}

static void records_that_are_not_whole_are_left_out(void **s)
{
    struct world *w = *s;

    fake_put64(w->mem, FAKE_DESCS + 24 * 3, 3);                 /* reserved */
    fake_put64(w->mem, FAKE_DESCS + 24 * 4, 3ull << 62 | 4);    /* reusable */
    fake_put64(w->mem, FAKE_DESCS + 24 * 5, 2ull << 62 | 13);   /* another's */
    fake_put64(w->mem, FAKE_DESCS + 24 * 6 + 16, 1ull << 40);   /* from nowhere to nowhere */
    fake_put32(w->mem, FAKE_INFOS + 88 * (8 % 8) + 16, 0xffff); /* longer than its room */
    assert_int_equal(printk_read(&w->k, &w->reader), 0);
    assert_string_equal(w->log, "6:;7:;8:record 8\twith? text?????;" R(9) R(10));
}

/* Else a few bytes of a guest's could fill a disk with its log. */
static void text_that_is_in_many_records_is_read_once(void **s)
{
    struct world *w = *s;
    uint64_t pos;

    for (uint64_t id = 3; id < 11; id++) {
        pos = 0x1000;
        fake_record(w->mem, id, &pos, "0123456789012345678901234567890123456789012345678901234567890123456789");
    }
    assert_int_equal(printk_read(&w->k, &w->reader), -EFAULT);
    assert_true(strlen(w->log) > 3 * 70 && strlen(w->log) < 4 * 70 + 100);
}

static void a_damaged_ring_is_an_error(void **s)
{
    struct world *w = *s;

    fake_put32(w->mem, FAKE_RING, 60);
    assert_int_equal(printk_read(&w->k, &w->reader), -EFAULT);
    fake_put32(w->mem, FAKE_RING, 3);
    fake_put64(w->mem, FAKE_RING + 8, 0x1234);
    assert_int_equal(printk_read(&w->k, &w->reader), 0);
    fake_put64(w->mem, FAKE_PRB, 0);
    assert_int_equal(printk_read(&w->k, &w->reader), -EFAULT);
    memcpy(strstr(w->k.info, "SIZE(prb_desc)"), "SIZE(none_at_al", 15);
    assert_int_equal(printk_read(&w->k, &w->reader), -ENOTSUP);
    assert_string_equal(w->log, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_log_is_read_in_order),
        TEST(records_that_are_not_whole_are_left_out),
        TEST(text_that_is_in_many_records_is_read_once),
        TEST(a_damaged_ring_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
