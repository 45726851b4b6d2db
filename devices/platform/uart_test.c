#include "devices/core/device.h"
#include "vmm/base/test.h"

#include <linux/serial_reg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/testing/env.h"
#include "vmm/base/cleanup.h"

enum { BASE = 0x3f8, LINE = 4, IDLE = UART_LSR_THRE | UART_LSR_TEMT };

struct bench {
    struct test_env t;
    struct device *dev;
    char dir[32], options[128];
    struct sockaddr_un addr;
    int client;
};

static void run(struct bench *b)
{
    for (int i = 0; i < 4; i++)
        loop_once(b->t.env.loop, 0);
}

static void connect_client(struct bench *b)
{
    b->client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(b->client, (struct sockaddr *)&b->addr, sizeof(b->addr)), 0);
    run(b);
}

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(2));
    strcpy(b->dir, "/tmp/uart-test-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    b->addr.sun_family = AF_UNIX;
    snprintf(b->addr.sun_path, sizeof(b->addr.sun_path), "%s/socket", b->dir);
    snprintf(b->options, sizeof(b->options), "chardev=unix:%s", b->addr.sun_path);
    b->dev = test_env_device(&b->t, "uart", "com1", b->options);
    device_start(b->dev);
    connect_client(b);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_stop(b->dev);
    device_destroy(b->dev);
    close(b->client);
    rmdir(b->dir);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static uint8_t get(struct bench *b, unsigned reg)
{
    return test_env_read(&b->t, b->t.env.pio, BASE + reg, 1);
}

static void set(struct bench *b, unsigned reg, uint8_t val)
{
    test_env_write(&b->t, b->t.env.pio, BASE + reg, val, 1);
}

static uint8_t iir(struct bench *b)
{
    return get(b, UART_IIR) & 0x0f;
}

static bool line(struct bench *b)
{
    return b->t.lines[LINE].level;
}

static void type(struct bench *b, const char *text)
{
    assert_int_equal(write(b->client, text, strlen(text)), strlen(text));
    run(b);
}

/* What the guest receives until there is no more. */
static const char *receive(struct bench *b)
{
    static char text[256];
    unsigned n = 0;

    while (get(b, UART_LSR) & UART_LSR_DR && n < sizeof(text) - 1)
        text[n++] = (char)get(b, UART_RX);
    text[n] = 0;
    return text;
}

static void it_is_a_16550a(void **state)
{
    struct bench *b = *state;

    assert_int_equal(get(b, UART_IIR), UART_IIR_NO_INT);
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    assert_int_equal(get(b, UART_IIR), 0xc0 | UART_IIR_NO_INT);
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
    assert_int_equal(get(b, UART_IIR), 0xc0 | UART_IIR_NO_INT); /* not a 16750 */
    set(b, UART_SCR, 0xa5);
    assert_int_equal(get(b, UART_SCR), 0xa5);
    set(b, UART_IER, 0xff);
    assert_int_equal(get(b, UART_IER), 0x0f);
    set(b, UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    set(b, UART_DLL, 0x0c);
    set(b, UART_DLM, 0x01);
    assert_int_equal(get(b, UART_DLL) | get(b, UART_DLM) << 8, 0x010c);
    set(b, UART_LCR, UART_LCR_WLEN8);
    assert_int_equal(get(b, UART_IER), 0x0f);
    assert_int_equal(get(b, UART_LSR), IDLE);
    assert_int_equal(get(b, UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
}

static void bytes_come_out_together_and_in_order(void **state)
{
    struct bench *b = *state;
    char text[64];

    for (const char *s = "Hello, world\n"; *s; s++) {
        assert_true(get(b, UART_LSR) & UART_LSR_THRE);
        set(b, UART_TX, *s);
    }
    assert_int_equal(read(b->client, text, sizeof(text)), -1);
    run(b);
    assert_int_equal(read(b->client, text, sizeof(text)), 13);
    assert_memory_equal(text, "Hello, world\n", 13);
}

static void stop_sends_what_is_left(void **state)
{
    struct bench *b = *state;
    char text[64];

    set(b, UART_TX, 'x');
    device_stop(b->dev);
    assert_int_equal(read(b->client, text, sizeof(text)), 1);
}

/* Nobody reads: the guest must wait, and then goes on where it was. */
static void a_slow_reader_holds_the_guest_up(void **state)
{
    enum { ENOUGH = 16 << 20 };
    struct bench *b = *state;
    uint8_t buf[4096];
    unsigned sent = 0, got = 0;
    ssize_t n;

    while (get(b, UART_LSR) & UART_LSR_THRE && sent < ENOUGH) {
        set(b, UART_TX, sent++ % 251);
        run(b);
    }
    assert_true(sent < ENOUGH);
    assert_int_equal(get(b, UART_LSR), 0);
    set(b, UART_IER, UART_IER_THRI);
    assert_false(line(b));
    set(b, UART_TX, 0xff); /* too much: lost, as in a full chip */
    for (int tries = 0; tries < 1000; tries++) {
        while ((n = read(b->client, buf, sizeof(buf))) > 0)
            for (ssize_t i = 0; i < n; i++)
                assert_int_equal(buf[i], got++ % 251);
        run(b);
    }
    assert_int_equal(got, sent);
    assert_true(line(b));
    assert_int_equal(iir(b), UART_IIR_THRI);
    assert_int_equal(get(b, UART_LSR), IDLE);
}

static void the_empty_transmitter_interrupts(void **state)
{
    struct bench *b = *state;

    assert_false(line(b));
    set(b, UART_IER, UART_IER_THRI);
    assert_true(line(b));
    assert_int_equal(iir(b), UART_IIR_THRI);
    assert_false(line(b));
    assert_int_equal(iir(b), UART_IIR_NO_INT);
    set(b, UART_TX, 'x');
    assert_true(line(b));
    set(b, UART_IER, 0);
    assert_false(line(b));
    set(b, UART_IER, UART_IER_THRI); /* enabling asks again */
    assert_true(line(b));
}

static void the_receiver_interrupts_at_its_level(void **state)
{
    struct bench *b = *state;

    set(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_4);
    set(b, UART_IER, UART_IER_RDI);
    assert_false(line(b));
    type(b, "abc");
    assert_true(line(b));
    assert_int_equal(iir(b), UART_IIR_RX_TIMEOUT);
    type(b, "d");
    assert_int_equal(iir(b), UART_IIR_RDI);
    assert_int_equal(get(b, UART_RX), 'a');
    assert_int_equal(iir(b), UART_IIR_RX_TIMEOUT);
    assert_string_equal(receive(b), "bcd");
    assert_false(line(b));
    set(b, UART_FCR, 0);
    type(b, "ef");
    assert_int_equal(iir(b), UART_IIR_RDI);
    assert_string_equal(receive(b), "ef");
}

static void input_waits_until_the_guest_listens(void **state)
{
    struct bench *b = *state;

    type(b, "typed early");
    /* What Linux's driver does before it is ready. */
    for (int i = 0; i < 3; i++) {
        set(b, UART_IER, 0x0f);
        get(b, UART_IER);
        set(b, UART_IER, 0);
        set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
        set(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
        set(b, UART_FCR, 0);
        get(b, UART_LSR);
        get(b, UART_RX);
        get(b, UART_IIR);
        get(b, UART_MSR);
    }
    for (const char *s = "a kernel message"; *s; s++) {
        get(b, UART_LSR);
        get(b, UART_LSR);
        set(b, UART_TX, *s);
    }
    set(b, UART_MCR, UART_MCR_OUT2);
    set(b, UART_IER, UART_IER_RDI);
    assert_true(line(b));
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO); /* turned on last */
    assert_string_equal(receive(b), "typed early");
}

static void a_guest_that_polls_receives(void **state)
{
    struct bench *b = *state;
    unsigned polls = 0;

    type(b, "0123456789abcdefghij");
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    for (char c = '0'; c <= '9'; c++) {
        while (!(get(b, UART_LSR) & UART_LSR_DR))
            assert_true(++polls < 100);
        assert_int_equal(get(b, UART_RX), c);
    }
    assert_false(line(b));
}

static void a_slow_guest_loses_nothing(void **state)
{
    struct bench *b = *state;
    char text[1000], got[1000];
    unsigned n = 0;

    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (char)('!' + i % 90);
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
    set(b, UART_IER, UART_IER_RDI);
    assert_int_equal(write(b->client, text, sizeof(text)), sizeof(text));
    for (unsigned tries = 0; tries < 2 * sizeof(text) && n < sizeof(text); tries++) {
        run(b);
        if (line(b))
            got[n++] = (char)get(b, UART_RX);
    }
    assert_int_equal(n, sizeof(text));
    assert_memory_equal(text, got, n);
    assert_int_equal(get(b, UART_LSR), IDLE);
}

static void loopback_tests_itself(void **state)
{
    static const uint8_t lines[][2] = {{UART_MCR_DTR, UART_MSR_DSR},
                                       {UART_MCR_RTS, UART_MSR_CTS},
                                       {UART_MCR_OUT1, UART_MSR_RI},
                                       {UART_MCR_OUT2, UART_MSR_DCD}};
    struct bench *b = *state;
    char text[8];

    set(b, UART_MCR, UART_MCR_LOOP);
    get(b, UART_MSR);
    for (unsigned i = 0; i < array_len(lines); i++) {
        set(b, UART_MCR, UART_MCR_LOOP | lines[i][0]);
        assert_int_equal(get(b, UART_MSR) & 0xf0, lines[i][1]);
    }
    set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    for (unsigned i = 0; i < 16; i++)
        set(b, UART_TX, 'a' + i);
    assert_int_equal(get(b, UART_LSR), IDLE | UART_LSR_DR);
    set(b, UART_TX, 'z'); /* one too many */
    assert_int_equal(get(b, UART_LSR), IDLE | UART_LSR_DR | UART_LSR_OE);
    assert_string_equal(receive(b), "abcdefghijklmnop");
    run(b);
    assert_int_equal(read(b->client, text, sizeof(text)), -1);
}

static void interrupts_come_by_priority(void **state)
{
    struct bench *b = *state;

    set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    set(b, UART_MCR, UART_MCR_LOOP);
    set(b, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
    set(b, UART_LCR, UART_LCR_SBC); /* a break */
    set(b, UART_IER, 0x0f);
    assert_int_equal(iir(b), UART_IIR_RLSI);
    assert_int_equal(get(b, UART_LSR), IDLE | UART_LSR_FIFOE | UART_LSR_BI | UART_LSR_DR);
    assert_int_equal(iir(b), UART_IIR_RDI);
    assert_int_equal(get(b, UART_RX), 0);
    assert_int_equal(iir(b), UART_IIR_THRI);
    assert_int_equal(iir(b), UART_IIR_MSI);
    assert_true(line(b));
    assert_true(get(b, UART_MSR) & UART_MSR_DCTS);
    assert_int_equal(iir(b), UART_IIR_NO_INT);
    assert_false(line(b));
}

static void a_break_sends_nothing(void **state)
{
    struct bench *b = *state;
    char text[8];

    set(b, UART_LCR, UART_LCR_SBC);
    set(b, UART_TX, 'x');
    set(b, UART_LCR, 0);
    set(b, UART_TX, 'y');
    run(b);
    assert_int_equal(read(b->client, text, sizeof(text)), 1);
    assert_int_equal(text[0], 'y');
}

static void what_was_received_survives_a_move(void **state)
{
    struct bench *b = *state;
    struct state_writer w = {0};
    struct state_reader r;
    struct err err;

    set(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    set(b, UART_IER, UART_IER_RDI);
    type(b, "abc");
    device_stop(b->dev);
    device_save(b->dev, &w);
    device_reset(b->dev);
    device_settle(b->dev);
    assert_false(line(b));
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    assert_int_equal(device_load(b->dev, &r, &err), 0);
    device_settle(b->dev);
    assert_true(line(b));
    device_start(b->dev);
    assert_string_equal(receive(b), "abc");
    state_writer_fini(&w);
}

static void accesses_of_every_place_and_width_are_safe(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    for (unsigned pass = 0; pass < 256; pass++) {
        for (unsigned off = 0; off < 8; off++) {
            for (unsigned i = 0; i < array_len(sizes); i++) {
                test_env_write(&b->t, b->t.env.pio, BASE + off, pass * 0x9e3779b97f4a7c15ull, sizes[i]);
                test_env_read(&b->t, b->t.env.pio, BASE + off, sizes[i]);
            }
        }
        run(b);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_16550a),
        TEST(bytes_come_out_together_and_in_order),
        TEST(stop_sends_what_is_left),
        TEST(a_slow_reader_holds_the_guest_up),
        TEST(the_empty_transmitter_interrupts),
        TEST(the_receiver_interrupts_at_its_level),
        TEST(input_waits_until_the_guest_listens),
        TEST(a_guest_that_polls_receives),
        TEST(a_slow_guest_loses_nothing),
        TEST(loopback_tests_itself),
        TEST(interrupts_come_by_priority),
        TEST(a_break_sends_nothing),
        TEST(what_was_received_survives_a_move),
        TEST(accesses_of_every_place_and_width_are_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
