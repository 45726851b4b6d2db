/* The console with a driver on one side, and on the other a program that is connected to its sockets. */
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ring.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/testing/vdriver.h"
#include "vmm/base/test.h"

enum { RX, TX, CONTROL_RX, CONTROL_TX, RX1, TX1, BUF = 256, MESSAGE = sizeof(struct virtio_console_control) };
#define MULTIPORT (1ull << VIRTIO_CONSOLE_F_MULTIPORT)

static const struct {
    const char *name;
    const struct vdriver_transport *t;
    uint64_t features;
} kinds[] = {
    {"mmio, split", &vdriver_mmio, 0},
    {"pci, packed", &vdriver_pci, 1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_RING_F_EVENT_IDX},
};

static struct {
    char dir[32], console[64], agent[64]; /* the sockets */
    uint64_t features;                    /* of the rings */
    struct vdriver d;
} rig;

static void make_paths(void)
{
    strcpy(rig.dir, "/tmp/bothy-console.XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    snprintf(rig.console, sizeof(rig.console), "%s/console", rig.dir);
    snprintf(rig.agent, sizeof(rig.agent), "%s/agent", rig.dir);
}

/* Runs `body` for each kind of transport and ring, with a console on a socket, and `more` options. */
static void for_each_kind(const char *more, uint64_t features, void (*body)(void))
{
    char options[256], format[128];

    for (size_t i = 0; i < array_len(kinds); i++) {
        make_paths();
        snprintf(format, sizeof(format), "unix:%%s%s", more);
        snprintf(options, sizeof(options), format, rig.console, rig.agent);
        print_message("# %s\n", kinds[i].name);
        rig.features = kinds[i].features | features;
        vdriver_create(&rig.d, kinds[i].t, device_class_find("virtio-console"), options);
        vdriver_start(&rig.d, rig.features);
        body();
        vdriver_destroy(&rig.d);
        assert_int_equal(rmdir(rig.dir), 0);
    }
}

static void with_console(void (*body)(void))
{
    for_each_kind("", 0, body);
}

static void with_ports(void (*body)(void))
{
    for_each_kind(",port=org.agent:unix:%s", MULTIPORT, body);
}

static void turn(void)
{
    for (int i = 0; i < 4; i++)
        vdriver_run(&rig.d);
}

static int host_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(addr.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    turn();
    return fd;
}

static void host_expect(int fd, const char *text)
{
    char got[BUF];

    assert_int_equal(read(fd, got, sizeof(got)), strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static gpa_t guest_send(unsigned queue, const void *bytes, uint32_t n)
{
    gpa_t at = vdriver_alloc(&rig.d, n);

    assert_int_equal(gmem_write(rig.d.e.env.mem, at, bytes, n), 0);
    vdriver_add(&rig.d, queue, &(struct vdriver_buf){at, n, false}, 1, false);
    vdriver_kick(&rig.d, queue);
    turn();
    return at;
}

/* A buffer of `n` bytes for the device to fill. */
static gpa_t guest_offer(unsigned queue, uint32_t n)
{
    gpa_t at = vdriver_alloc(&rig.d, n);

    vdriver_add(&rig.d, queue, &(struct vdriver_buf){at, n, true}, 1, false);
    vdriver_kick(&rig.d, queue);
    turn();
    return at;
}

/* The buffer came back with just `text` in it. */
static void guest_expect(unsigned queue, gpa_t at, const char *text)
{
    char got[BUF];
    uint32_t len;
    uint16_t id;

    assert_true(vdriver_used(&rig.d, queue, &id, &len));
    assert_int_equal(len, strlen(text));
    assert_int_equal(gmem_read(rig.d.e.env.mem, at, got, len), 0);
    assert_memory_equal(got, text, len);
}

static bool guest_got_back(unsigned queue)
{
    uint32_t len;
    uint16_t id;

    return vdriver_used(&rig.d, queue, &id, &len);
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control msg = {htole32(id), htole16(event), htole16(value)};

    guest_send(CONTROL_TX, &msg, sizeof(msg));
    assert_true(guest_got_back(CONTROL_TX));
}

/* Offers a buffer for a message, which must be this one, with `extra` behind it. */
static void expect_control(uint32_t id, uint16_t event, uint16_t value, const void *extra, size_t n)
{
    gpa_t at = guest_offer(CONTROL_RX, 64);
    uint8_t got[64];
    uint32_t len;
    uint16_t unused;

    assert_true(vdriver_used(&rig.d, CONTROL_RX, &unused, &len));
    assert_int_equal(gmem_read(rig.d.e.env.mem, at, got, sizeof(got)), 0);
    assert_int_equal(len, MESSAGE + n);
    assert_int_equal(get_le32(got), id);
    assert_int_equal(get_le16(got + 4), event);
    assert_int_equal(get_le16(got + 6), value);
    if (n)
        assert_memory_equal(got + MESSAGE, extra, n);
}

/* As after a driver's start-up: all ports ready, the second one open in the guest. */
static void set_up_ports(void)
{
    control(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect_control(0, VIRTIO_CONSOLE_PORT_ADD, 1, NULL, 0);
    expect_control(1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL, 0);
    control(0, VIRTIO_CONSOLE_PORT_READY, 1);
    control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_control(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL, 0);
    expect_control(0, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL, 0);
    expect_control(1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.agent", 9);
    expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL, 0);
    control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void talk(void)
{
    int host = host_connect(rig.console);
    gpa_t at;

    assert_int_equal(vdriver_offered(&rig.d) & MULTIPORT, 0);
    assert_int_equal(vdriver_config(&rig.d, offsetof(struct virtio_console_config, max_nr_ports), 4), 1);
    guest_send(TX, "hello", 5);
    assert_true(guest_got_back(TX));
    host_expect(host, "hello");
    at = guest_offer(RX, BUF);
    assert_false(guest_got_back(RX));
    assert_int_equal(write(host, "world", 5), 5);
    turn();
    guest_expect(RX, at, "world");
    close(host);
}

static void bytes_pass_both_ways(void **s)
{
    (void)s;
    with_console(talk);
}

static void print_and_wait(void)
{
    gpa_t at = vdriver_alloc(&rig.d, BUF);

    vdriver_add(&rig.d, TX, &(struct vdriver_buf){at, BUF, false}, 1, false);
    vdriver_kick(&rig.d, TX);
    assert_true(guest_got_back(TX));
}

static void output_is_taken_before_its_notification_returns(void **s)
{
    (void)s;
    with_console(print_and_wait);
}

static void fill_late(void)
{
    int host = host_connect(rig.console);
    gpa_t at;

    assert_int_equal(write(host, "0123456789", 10), 10);
    turn();
    at = guest_offer(RX, 4);
    guest_expect(RX, at, "0123");
    guest_offer(RX, 0);
    assert_true(guest_got_back(RX));
    at = guest_offer(RX, BUF);
    guest_expect(RX, at, "456789");
    close(host);
}

static void input_waits_for_the_guests_buffers(void **s)
{
    (void)s;
    with_console(fill_late);
}

enum { BLOCK = 1 << 20 };

static uint32_t block_read; /* bytes */

/* Reads what is there of numbered words, at most `max` bytes. */
static void host_count(int fd, size_t max)
{
    uint8_t got[4096];
    ssize_t n = 1;

    for (; max && n > 0; max -= (size_t)n) {
        n = read(fd, got, min_u64(max, sizeof(got)));
        for (ssize_t i = 0; i < n; i++, block_read++)
            if (got[i] != (uint8_t)(block_read / 4 >> 8 * (block_read % 4)))
                fail_msg("byte %u is wrong", block_read);
        n = n < 0 ? 0 : n;
    }
}

/* A megabyte of numbered words, in two descriptors. */
static void guest_send_block(void)
{
    gpa_t at = vdriver_alloc(&rig.d, BLOCK);
    const struct vdriver_buf bufs[] = {{at, 12345, false}, {at + 12345, BLOCK - 12345, false}};

    for (uint32_t i = 0; i < BLOCK / 4; i++)
        assert_int_equal(gmem_write(rig.d.e.env.mem, at + 4 * i, &i, 4), 0);
    vdriver_add(&rig.d, TX, bufs, array_len(bufs), false);
    vdriver_kick(&rig.d, TX);
    turn();
}

static void send_slowly(void)
{
    int host = host_connect(rig.console);

    block_read = 0;
    guest_send_block();
    assert_false(guest_got_back(TX));
    while (block_read < BLOCK) {
        host_count(host, 100000);
        turn();
    }
    assert_true(guest_got_back(TX));
    assert_false(guest_got_back(TX));
    close(host);
}

static void output_waits_for_a_slow_host(void **s)
{
    (void)s;
    with_console(send_slowly);
}

static void send_across_a_snapshot(void)
{
    int host = host_connect(rig.console);
    struct state_writer w = {0};
    struct state_reader r;
    struct err err;

    block_read = 0;
    guest_send_block();
    device_stop(&rig.d.v->dev);
    device_save(&rig.d.v->dev, &w);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    if (device_load(&rig.d.v->dev, &r, &err))
        fail_msg("%s", err.msg);
    device_settle(&rig.d.v->dev);
    host_count(host, 100000);
    turn();
    device_start(&rig.d.v->dev);
    while (block_read < BLOCK) {
        host_count(host, BLOCK);
        turn();
    }
    assert_true(guest_got_back(TX));
    state_writer_fini(&w);
    close(host);
}

static void a_snapshot_in_the_middle_of_output_repeats_nothing(void **s)
{
    (void)s;
    with_console(send_across_a_snapshot);
}

/* Reads all there is, and runs the device until nothing more comes. */
static void host_drain(int fd)
{
    char got[4096];

    while (read(fd, got, sizeof(got)) > 0)
        turn();
}

static void reset_while_sending(void)
{
    int host = host_connect(rig.console);

    guest_send_block();
    vdriver_start(&rig.d, rig.features);
    host_drain(host);
    guest_send(TX, "fresh", 5);
    host_expect(host, "fresh");

    /* One queue alone. */
    vdriver_start(&rig.d, rig.features | 1ull << VIRTIO_F_RING_RESET);
    guest_send_block();
    vdriver_set(&rig.d, VDR_QUEUE, TX);
    vdriver_set(&rig.d, VDR_QUEUE_RESET, 1);
    vdriver_set_queue(&rig.d, TX, 0);
    host_drain(host);
    guest_send(TX, "again", 5);
    host_expect(host, "again");
    close(host);
}

static void reset_forgets_half_sent_output(void **s)
{
    (void)s;
    with_console(reset_while_sending);
}

static void talk_on_ports(void)
{
    int host;
    gpa_t at;

    set_up_ports();
    host = host_connect(rig.agent);
    expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL, 0);
    guest_send(TX1, "hello", 5);
    assert_true(guest_got_back(TX1));
    host_expect(host, "hello");
    assert_int_equal(write(host, "world", 5), 5);
    at = guest_offer(RX1, BUF);
    guest_expect(RX1, at, "world");
    close(host);
    turn();
    expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL, 0);
}

static void ports_have_names_and_tell_who_is_there(void **s)
{
    (void)s;
    with_ports(talk_on_ports);
}

static void open_late(void)
{
    int host;
    gpa_t at;

    set_up_ports();
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
    host = host_connect(rig.agent);
    expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL, 0);
    assert_int_equal(write(host, "early", 5), 5);
    at = guest_offer(RX1, BUF);
    assert_false(guest_got_back(RX1));
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    guest_expect(RX1, at, "early");
    close(host);
}

static void input_waits_until_the_guest_opens_the_port(void **s)
{
    (void)s;
    with_ports(open_late);
}

static void connect_often(void)
{
    set_up_ports();
    for (int i = 0; i < 100; i++) {
        close(host_connect(rig.agent));
        turn();
    }
    expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL, 0);
    guest_offer(CONTROL_RX, 64);
    assert_false(guest_got_back(CONTROL_RX));
}

static void what_the_driver_has_no_buffer_for_does_not_pile_up(void **s)
{
    (void)s;
    with_ports(connect_often);
}

static void be_hostile(void)
{
    static const struct virtio_console_control nonsense[] = {
        {2, VIRTIO_CONSOLE_PORT_READY, 1},         {VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_PORT_OPEN, 1},
        {0x80000000, VIRTIO_CONSOLE_PORT_OPEN, 0}, {0, VIRTIO_CONSOLE_RESIZE, 7},
        {1, VIRTIO_CONSOLE_PORT_REMOVE, 1},        {1, 0xffff, 0xffff},
        {0, VIRTIO_CONSOLE_DEVICE_READY, 0},
    };

    for (size_t i = 0; i < array_len(nonsense); i++)
        control(nonsense[i].id, nonsense[i].event, nonsense[i].value);
    for (uint32_t n = 0; n < MESSAGE; n++) {
        guest_send(CONTROL_TX, &nonsense[0], n ? n : 1);
        assert_true(guest_got_back(CONTROL_TX));
    }
    /* A message longer than its buffer is cut, an empty buffer comes back. */
    for (int i = 0; i < 1000; i++)
        control(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    guest_offer(CONTROL_RX, 3);
    assert_true(guest_got_back(CONTROL_RX));
    guest_offer(CONTROL_RX, 0);
    assert_true(guest_got_back(CONTROL_RX));
    guest_offer(CONTROL_RX, 64);
    assert_false(guest_got_back(CONTROL_RX));
    assert_false(vdriver_broken(&rig.d));
}

static void hostile_messages_change_nothing(void **s)
{
    (void)s;
    with_ports(be_hostile);
}

static void send_too_much(void)
{
    gpa_t at = vdriver_alloc(&rig.d, 1 << 20);
    const struct vdriver_buf bufs[] = {{at, 1 << 20, false}, {at, 1, false}};

    vdriver_add(&rig.d, TX, bufs, array_len(bufs), false);
    vdriver_kick(&rig.d, TX);
    turn();
    assert_true(vdriver_broken(&rig.d));
    vdriver_start(&rig.d, rig.features);
    guest_send(TX, "x", 1);
    assert_true(guest_got_back(TX));
}

static void a_huge_buffer_breaks_the_device_until_reset(void **s)
{
    (void)s;
    with_console(send_too_much);
}

static void ignore_ports(void)
{
    int host = host_connect(rig.console);
    gpa_t at;

    vdriver_start(&rig.d, rig.features & ~MULTIPORT);
    guest_send(TX, "plain", 5);
    host_expect(host, "plain");
    at = guest_offer(RX, BUF);
    assert_int_equal(write(host, "old", 3), 3);
    turn();
    guest_expect(RX, at, "old");
    guest_offer(CONTROL_RX, 64);
    control(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_false(guest_got_back(CONTROL_RX));
    close(host);
}

static void a_driver_without_ports_has_its_console(void **s)
{
    (void)s;
    with_ports(ignore_ports);
}

static void shout(void)
{
    const unsigned at = offsetof(struct virtio_console_config, emerg_wr);
    int host = host_connect(rig.console);

    vdriver_reset(&rig.d);
    vdriver_set_config(&rig.d, at, 'h', 4);
    vdriver_set_config(&rig.d, at, 0xffffff00 | 'i', 4);
    vdriver_set_config(&rig.d, offsetof(struct virtio_console_config, cols), 1, 2);
    host_expect(host, "hi");
    assert_int_equal(vdriver_config(&rig.d, offsetof(struct virtio_console_config, cols), 2), 0);
    close(host);
}

static void emergency_writes_need_no_driver(void **s)
{
    (void)s;
    with_console(shout);
}

static void expect_size(uint16_t cols, uint16_t rows)
{
    assert_int_equal(vdriver_config(&rig.d, offsetof(struct virtio_console_config, cols), 2), cols);
    assert_int_equal(vdriver_config(&rig.d, offsetof(struct virtio_console_config, rows), 2), rows);
}

/* A console on a new terminal of that size. */
static void start_on_terminal(const struct winsize *size, const char *options, int *master)
{
    int in = dup(STDIN_FILENO), out = dup(STDOUT_FILENO), slave;

    assert_int_equal(openpty(master, &slave, NULL, NULL, size), 0);
    fflush(stdout);
    dup2(slave, STDIN_FILENO);
    dup2(slave, STDOUT_FILENO);
    vdriver_create(&rig.d, &vdriver_pci, device_class_find("virtio-console"), options);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    close(slave);
    close(in);
    close(out);
}

static void the_size_of_the_terminal_is_the_consoles(void **s)
{
    struct winsize small = {.ws_col = 80, .ws_row = 24}, large = {.ws_col = 132, .ws_row = 50};
    uint64_t generation;
    int master;

    (void)s;
    start_on_terminal(&small, "stdio,port=spare:null", &master);
    vdriver_start(&rig.d, MULTIPORT);
    turn();
    expect_size(80, 24);
    control(0, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_control(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL, 0);
    expect_control(0, VIRTIO_CONSOLE_RESIZE, 1, (uint8_t[]){80, 0, 24, 0}, 4);
    expect_control(0, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL, 0);

    generation = vdriver_get(&rig.d, VDR_GENERATION);
    assert_int_equal(ioctl(master, TIOCSWINSZ, &large), 0);
    raise(SIGWINCH); /* as the terminal's foreground, which we are not, would get it */
    turn();
    expect_size(132, 50);
    assert_int_not_equal(vdriver_get(&rig.d, VDR_GENERATION), generation);
    expect_control(0, VIRTIO_CONSOLE_RESIZE, 1, (uint8_t[]){132, 0, 50, 0}, 4);
    vdriver_destroy(&rig.d);
    close(master);
}

static void the_size_is_told_again_when_the_guest_prints(void **s)
{
    struct winsize size = {.ws_col = 80, .ws_row = 24};
    uint64_t generation;
    int master;

    (void)s;
    start_on_terminal(&size, "stdio", &master);
    vdriver_start(&rig.d, 0);
    turn();
    generation = vdriver_get(&rig.d, VDR_GENERATION);
    guest_send(TX, "login:", 6);
    assert_int_not_equal(vdriver_get(&rig.d, VDR_GENERATION), generation);
    generation = vdriver_get(&rig.d, VDR_GENERATION);
    guest_send(TX, " ", 1);
    assert_int_equal(vdriver_get(&rig.d, VDR_GENERATION), generation);
    vdriver_destroy(&rig.d);
    close(master);
}

static void bad_options_are_refused(void **s)
{
    static const struct {
        const char *options, *msg;
    } cases[] = {
        {"port=agent", "port \"agent\" lacks its name; write port=NAME:PLACE"},
        {"port=:null", "port \":null\" lacks its name; write port=NAME:PLACE"},
        {"port=a:null,port=a:null", "port name \"a\" is given twice"},
        {"port=a:nowhere", "\"nowhere\" is no place for a console"},
        {"tty", "\"tty\" is no place for a console"},
        {"port=1:null,port=2:null,port=3:null,port=4:null,port=5:null,port=6:null,port=7:null,port=8:null,port=9:null,"
         "port=10:null,port=11:null,port=12:null,port=13:null,port=14:null,port=15:null,port=16:null",
         "more than 15 ports"},
        {"port=0123456789012345678901234567890123456789012345678901234567890123:null", "port name \"0123"},
    };
    struct test_env e;

    (void)s;
    test_env_init(&e, MiB(1));
    e.env.attach_virtio = vdriver_mmio.attach;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct device *dev;
        struct err err = {0};

        assert_int_equal(device_create(device_class_find("virtio-console"), "c0", cases[i].options, &dev, &err), 0);
        assert_true(device_init(dev, &e.env, e.env.loop, &err) < 0);
        assert_non_null(strstr(err.msg, cases[i].msg));
        device_destroy(dev);
    }
    test_env_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_both_ways),
        cmocka_unit_test(output_is_taken_before_its_notification_returns),
        cmocka_unit_test(input_waits_for_the_guests_buffers),
        cmocka_unit_test(output_waits_for_a_slow_host),
        cmocka_unit_test(a_snapshot_in_the_middle_of_output_repeats_nothing),
        cmocka_unit_test(reset_forgets_half_sent_output),
        cmocka_unit_test(ports_have_names_and_tell_who_is_there),
        cmocka_unit_test(input_waits_until_the_guest_opens_the_port),
        cmocka_unit_test(what_the_driver_has_no_buffer_for_does_not_pile_up),
        cmocka_unit_test(hostile_messages_change_nothing),
        cmocka_unit_test(a_huge_buffer_breaks_the_device_until_reset),
        cmocka_unit_test(a_driver_without_ports_has_its_console),
        cmocka_unit_test(emergency_writes_need_no_driver),
        cmocka_unit_test(the_size_of_the_terminal_is_the_consoles),
        cmocka_unit_test(the_size_is_told_again_when_the_guest_prints),
        cmocka_unit_test(bad_options_are_refused),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
