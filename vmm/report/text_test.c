#include "vmm/base/test.h"
#include "vmm/report/text.h"

static void clean(const char *in, size_t n, const char *wanted)
{
    char buf[128];

    memcpy(buf, in, n);
    n = text_clean(buf, n);
    assert_int_equal(n, strlen(wanted));
    assert_memory_equal(buf, wanted, n);
}
#define CLEAN(in, wanted) clean(in, sizeof(in) - 1, wanted)

static void only_characters_remain(void **state)
{
    (void)state;
    CLEAN("", "");
    CLEAN("plain\ttext\n", "plain\ttext\n");
    CLEAN("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8f\x94", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8f\x94");
    CLEAN("a\0b\x01\x7f\r", "a?b???");
    CLEAN("\x1b[1;31mred\x1b[0m\x1b[K", "red");
    CLEAN("\x1b]0;title\x07 \x1b[", "?]0;title? ?[");
    CLEAN("\xc2\x9b"
          "31m", /* CSI in one character */
          "?31m");
    CLEAN("\xc0\xaf \xe0\x80\xaf \xf8", "?? ??? ?");                   /* too long */
    CLEAN("\xed\xa0\x80 \xef\xbf\xbe \xf4\x90\x80\x80", "??? ? ????"); /* surrogate; no character; beyond Unicode */
    CLEAN("\xe2\x82", "??");
}

static void what_is_too_much_is_counted(void **state)
{
    struct text t = {.max = 8};
    char *s;

    (void)state;
    assert_null(text_take(&t));
    text_add(&t, "1234", 4);
    text_add(&t, "567\xc3\xa4z", 6); /* no half character */
    text_add(&t, "more", 4);
    s = text_take(&t);
    assert_string_equal(s, "1234567\n… 7 bytes more\n");
    free(s);
    text_add(&t, "again", 5);
    s = text_take(&t);
    assert_string_equal(s, "again");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_characters_remain),
        cmocka_unit_test(what_is_too_much_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
