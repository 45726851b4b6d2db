#include "vmm/gdb/packet.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

static enum gdb_token feed(struct gdb_input *in, const char *text, size_t n)
{
    enum gdb_token t = GDB_MORE;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(t, GDB_MORE);
        t = gdb_input_byte(in, (uint8_t)text[i]);
    }
    return t;
}
#define FEED(in, text) feed(in, text, sizeof(text) - 1)

static void frames_are_taken_apart(void **s)
{
    struct gdb_input *in = xcalloc(1, sizeof(*in));

    (void)s;
    assert_int_equal(FEED(in, "junk$g#67"), GDB_PACKET);
    assert_string_equal(in->payload, "g");
    assert_int_equal(FEED(in, "$#00"), GDB_PACKET);
    assert_int_equal(in->n, 0);
    assert_int_equal(FEED(in, "$X1,1:}\x03#a0"), GDB_PACKET);
    assert_memory_equal(in->payload, "X1,1:#", 7);
    assert_int_equal(FEED(in, "$g#68"), GDB_BAD_PACKET);
    assert_int_equal(FEED(in, "$g#6x"), GDB_BAD_PACKET);
    assert_int_equal(FEED(in, "+"), GDB_ACK);
    assert_int_equal(FEED(in, "-"), GDB_NACK);
    assert_int_equal(FEED(in, "\x03"), GDB_INTERRUPT);
    free(in);
}

static void a_frame_without_end_is_refused_at_its_end(void **s)
{
    struct gdb_input *in = xcalloc(1, sizeof(*in));

    (void)s;
    assert_int_equal(FEED(in, "$"), GDB_MORE);
    for (unsigned i = 0; i < 3 * GDB_PACKET_MAX; i++)
        assert_int_equal(gdb_input_byte(in, 'a'), GDB_MORE);
    assert_int_equal(FEED(in, "#00"), GDB_BAD_PACKET);
    assert_int_equal(FEED(in, "$g#67"), GDB_PACKET);
    free(in);
}

static void answers_are_framed_and_escaped(void **s)
{
    struct gdb_reply *r = xcalloc(1, sizeof(*r));
    char *frame = xcalloc(1, GDB_FRAME_MAX);

    (void)s;
    gdb_reply_text(r, "T%02x", 5);
    gdb_reply_hex(r, "\xab\x01", 2);
    assert_int_equal(gdb_frame(r, frame), 11);
    assert_memory_equal(frame, "$T05ab01#dd", 11);
    r->n = 0;
    gdb_reply_bytes(r, "*}", 2);
    assert_int_equal(gdb_frame(r, frame), 8);
    assert_memory_equal(frame, "$}\x0a}]#61", 8);
    r->n = 0;
    for (unsigned i = 0; i < GDB_PACKET_MAX; i++)
        gdb_reply_bytes(r, "#", 1);
    assert_int_equal(gdb_frame(r, frame), 2 * GDB_PACKET_MAX + 4);
    gdb_reply_bytes(r, "#", 1);
    assert_int_equal(gdb_frame(r, frame), 7);
    assert_memory_equal(frame, "$E07#ac", 7);
    free(frame);
    free(r);
}

static void hex_is_whole_bytes(void **s)
{
    uint8_t b[2];

    (void)s;
    assert_true(gdb_unhex("0aFf", 4, b, 2) && b[0] == 0x0a && b[1] == 0xff);
    assert_false(gdb_unhex("0af", 3, b, 2));
    assert_false(gdb_unhex("0agf", 4, b, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_taken_apart),
        cmocka_unit_test(a_frame_without_end_is_refused_at_its_end),
        cmocka_unit_test(answers_are_framed_and_escaped),
        cmocka_unit_test(hex_is_whole_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
