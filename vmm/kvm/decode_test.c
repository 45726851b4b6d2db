#include "vmm/kvm/decode.h"

#include "vmm/base/test.h"

static void code_is_text_in_its_mode(void **s)
{
    static const uint8_t cmpxchg16b[] = {0x48, 0x0f, 0xc7, 0x4f, 0x10};
    static const uint8_t mov_ax[] = {0xb8, 0x34, 0x12, 0, 0};
    char text[96];

    (void)s;
    if (!decode_available())
        skip();
    assert_true(decode_instruction(64, 0, cmpxchg16b, sizeof(cmpxchg16b), text, sizeof(text)));
    assert_string_equal(text, "cmpxchg16b [rdi+0x10]");
    assert_true(decode_instruction(16, 0, mov_ax, sizeof(mov_ax), text, sizeof(text)));
    assert_string_equal(text, "mov ax, 0x1234");
    assert_true(decode_instruction(32, 0, mov_ax, sizeof(mov_ax), text, sizeof(text)));
    assert_string_equal(text, "mov eax, 0x1234");
}

static void what_is_no_instruction_is_no_text(void **s)
{
    static const uint8_t cut[] = {0x48, 0x0f}, invalid[] = {0x06}; /* PUSH ES: gone in 64-bit mode */
    char text[96];

    (void)s;
    assert_false(decode_instruction(64, 0, cut, sizeof(cut), text, sizeof(text)));
    assert_false(decode_instruction(64, 0, invalid, sizeof(invalid), text, sizeof(text)));
    assert_false(decode_instruction(64, 0, cut, 0, text, sizeof(text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_is_text_in_its_mode),
        cmocka_unit_test(what_is_no_instruction_is_no_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
