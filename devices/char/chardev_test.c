#include "devices/char/chardev.h"
#include "devices/char/front.h"
#include "vmm/base/cleanup.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#include "devices/char/peer.h"

static void a_bad_spec_is_refused_with_the_remedy(void **s)
{
    static const struct {
        const char *spec, *msg;
    } cases[] = {
        {"", "\"\" is no place for a console; there is stdio|null|file:PATH|pty[:LINK]|unix:PATH"},
        {"stdi", "\"stdi\" is no place for a console; there is stdio|null|file:PATH|pty[:LINK]|unix:PATH"},
        {"null:x", "\"null:x\": nothing follows \"null\""},
        {"stdio:", "\"stdio:\": nothing follows \"stdio\""},
        {"file", "\"file\" lacks its path; write file:PATH"},
        {"file:", "\"file:\" lacks its path; write file:PATH"},
        {"pty:", "\"pty:\" lacks its path; write pty:PATH"},
        {"file:/", "output \"/\": Is a directory; name a file in it"},
        {"unix:/nowhere/x", "socket \"/nowhere/x\": No such file or directory; check the path"},
        {"pty:/nowhere/x", "link \"/nowhere/x\": No such file or directory; check the path"},
    };
    struct front f;

    (void)s;
    front_init(&f, "com1");
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = {0};

        assert_true(chardev_open(cases[i].spec, &f.dev, &f.c, &err) < 0);
        assert_null(f.c);
        err.msg[strlen(cases[i].msg)] = 0;
        assert_string_equal(err.msg, cases[i].msg);
    }
    front_fini(&f);
}

static void null_takes_all_and_gives_nothing(void **s)
{
    struct front f;
    char c;

    (void)s;
    front_open(&f, "null");
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    assert_int_equal(chardev_read(f.c, &c, 1), -EPIPE);
    front_fini(&f);
}

static void a_file_is_made_anew(void **s)
{
    struct test_dir d;
    struct front f;
    char text[8] = "";
    FILE *old;

    (void)s;
    test_dir_init(&d, "file");
    old = fopen(d.path, "w");
    fputs("longer than what follows", old);
    fclose(old);
    front_open(&f, d.spec);
    assert_int_equal(chardev_write(f.c, "one ", 4), 4);
    assert_int_equal(chardev_write(f.c, "two", 3), 3);
    assert_int_equal(chardev_read(f.c, text, 1), -EPIPE);
    front_fini(&f);
    old = fopen(d.path, "r");
    assert_int_equal(fread(text, 1, sizeof(text), old), 7);
    fclose(old);
    assert_memory_equal(text, "one two", 7);
    test_dir_fini(&d);
}

static void a_full_disk_ends_output_not_the_guest(void **s)
{
    struct front f;

    (void)s;
    front_open(&f, "file:/dev/full");
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    front_fini(&f);
}

static void a_named_pipe_pushes_back_until_it_is_read(void **s)
{
    char block[4096] = {0};
    size_t sent = 0, n;
    struct err err;
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "file");
    assert_int_equal(mkfifo(d.path, 0600), 0);
    front_init(&f, "com1");
    assert_int_equal(chardev_open(d.spec, &f.dev, &f.c, &err), -ENXIO);
    assert_non_null(strstr(err.msg, "nobody reads this pipe"));
    front_fini(&f);

    fd = open(d.path, O_RDONLY | O_NONBLOCK);
    front_open(&f, d.spec);
    do
        sent += n = chardev_write(f.c, block, sizeof(block));
    while (n == sizeof(block));
    front_settle(&f);
    assert_int_equal(f.writable, 0);
    while (sent)
        sent -= (size_t)read(fd, block, sizeof(block));
    front_until(&f, f.writable);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    close(fd);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    front_fini(&f);
    test_dir_fini(&d);
}

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void assert_reads(int fd, const char *text)
{
    char buf[128];
    size_t n = 0;

    while (n < strlen(text)) {
        ssize_t r = read(fd, buf + n, strlen(text) - n);

        assert_true(r > 0);
        n += (size_t)r;
    }
    assert_memory_equal(buf, text, n);
}

static void a_socket_serves_one_client_after_another(void **s)
{
    struct test_dir d;
    struct front f;
    struct stat st;
    char c;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    assert_int_equal(lstat(d.path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_int_equal(chardev_read(f.c, &c, 1), -EPIPE);
    front_until(&f, f.connected);
    assert_false(f.is_connected);

    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fd, "in", 2), 2);
    front_until(&f, f.in_len == 2);
    assert_memory_equal(f.in, "in", 2);
    assert_int_equal(chardev_write(f.c, "out", 3), 3);
    assert_reads(fd, "out");
    close(fd);
    front_until(&f, !f.is_connected);
    assert_true(f.ended);

    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fd, "!", 1), 1);
    front_until(&f, f.in_len == 3);
    close(fd);
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), -1);
    test_dir_fini(&d);
}

static void a_late_client_sees_the_last_64_kib(void **s)
{
    enum { LINES = 20000 };
    char line[8], first[8];
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    for (int i = 0; i < LINES; i++) {
        snprintf(line, sizeof(line), "%06d\n", i);
        assert_int_equal(chardev_write(f.c, line, 7), 7);
    }
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    /* The first line there is cut. */
    snprintf(first, sizeof(first), "%06d\n", LINES - 1 - PEER_REPLAY / 7);
    assert_reads(fd, first + 7 - PEER_REPLAY % 7);
    for (int i = LINES - PEER_REPLAY / 7; i < LINES; i++) {
        ssize_t n = 0;

        while (n < 7) {
            ssize_t r = recv(fd, line + n, (size_t)(7 - n), MSG_DONTWAIT);

            if (r > 0)
                n += r;
            else
                loop_once(f.loop, 1000);
        }
        assert_int_equal(atoi(line), i);
    }
    close(fd);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_slow_client_holds_the_guest_up_and_loses_nothing(void **s)
{
    uint32_t next = 0, seen = 0, word;
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    while (chardev_write(f.c, &next, sizeof(next)) == sizeof(next))
        next++;
    assert_true(next >= PEER_REPLAY / sizeof(next));
    front_settle(&f);
    f.writable = 0;
    while (seen < next)
        if (recv(fd, &word, sizeof(word), MSG_DONTWAIT | MSG_PEEK) == sizeof(word) &&
            read(fd, &word, sizeof(word)) == sizeof(word))
            assert_int_equal(word, seen++);
        else
            loop_once(f.loop, 1000);
    front_until(&f, f.writable);
    assert_int_equal(chardev_write(f.c, &next, sizeof(next)), sizeof(next));
    close(fd);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_client_that_vanishes_releases_the_guest(void **s)
{
    char block[4096] = {0};
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    while (chardev_write(f.c, block, sizeof(block)) == sizeof(block))
        ;
    close(fd);
    front_until(&f, f.writable && !f.is_connected);
    assert_int_equal(chardev_write(f.c, block, sizeof(block)), sizeof(block));
    front_fini(&f);
    test_dir_fini(&d);
}

static void what_a_client_sent_before_it_left_is_not_lost(void **s)
{
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    f.deaf = true;
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fd, "last words", 10), 10);
    close(fd);
    front_settle(&f);
    f.deaf = false;
    f.user.readable(&f.user);
    assert_memory_equal(f.in, "last words", 10);
    assert_true(f.ended);
    front_until(&f, !f.is_connected);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_client_that_has_closed_its_half_still_listens(void **s)
{
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    fd = connect_to(d.path);
    assert_int_equal(write(fd, "x", 1), 1);
    shutdown(fd, SHUT_WR);
    front_until(&f, f.ended && f.in_len == 1);
    assert_true(f.is_connected);
    assert_int_equal(chardev_write(f.c, "answer", 6), 6);
    assert_reads(fd, "answer");
    close(fd);
    front_until(&f, !f.is_connected);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_second_client_is_told_and_turned_away(void **s)
{
    struct test_dir d;
    struct front f;
    int one, two;
    char c;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    one = connect_to(d.path);
    front_until(&f, f.is_connected);
    two = connect_to(d.path);
    front_settle(&f);
    assert_reads(two, "bothy: another client is connected\r\n");
    assert_int_equal(read(two, &c, 1), 0);
    assert_int_equal(chardev_write(f.c, "one", 3), 3);
    assert_reads(one, "one");
    close(one);
    close(two);
    front_fini(&f);
    test_dir_fini(&d);
}

static void names_that_are_there_already_are_left_alone(void **s)
{
    static const char *const kinds[] = {"unix", "pty"};

    (void)s;
    for (size_t i = 0; i < array_len(kinds); i++)
        for (int link = 0; link < 2; link++) {
            struct test_dir d;
            struct err err;
            struct stat st;
            struct front f;

            test_dir_init(&d, kinds[i]);
            if (link)
                assert_int_equal(symlink("/nowhere/at-all", d.path), 0);
            else
                close(open(d.path, O_CREAT | O_WRONLY, 0600));
            front_init(&f, "com1");
            assert_true(chardev_open(d.spec, &f.dev, &f.c, &err) < 0);
            front_fini(&f);
            assert_int_equal(lstat(d.path, &st), 0);
            assert_int_equal(S_ISLNK(st.st_mode), link);
            test_dir_fini(&d);
        }
}

static void a_socket_in_use_is_kept_and_a_stale_one_replaced(void **s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct test_dir d;
    struct front f, g;
    struct err err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)s;
    test_dir_init(&d, "unix");
    strcpy(addr.sun_path, d.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    front_open(&f, d.spec);

    front_init(&g, "com2");
    assert_int_equal(chardev_open(d.spec, &g.dev, &g.c, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "exists already"));
    front_fini(&g);
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    close(fd);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_socket_that_is_not_ours_any_more_is_not_removed(void **s)
{
    struct test_dir d;
    struct front f;
    struct stat st;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    assert_int_equal(unlink(d.path), 0);
    close(open(d.path, O_CREAT | O_WRONLY, 0600));
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), 0);
    test_dir_fini(&d);
}

static void too_long_a_socket_path_is_refused(void **s)
{
    char spec[200] = "unix:/";
    struct err err;
    struct front f;

    (void)s;
    memset(spec + 6, 'x', sizeof(spec) - 7);
    front_init(&f, "com1");
    assert_int_equal(chardev_open(spec, &f.dev, &f.c, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.msg, "longer than 107 bytes"));
    front_fini(&f);
}

static void a_pseudo_terminal_is_raw_and_may_be_reopened(void **s)
{
    struct termios t;
    struct test_dir d;
    struct front f;
    struct stat st;
    int fd;

    (void)s;
    test_dir_init(&d, "pty");
    front_open(&f, d.spec);
    assert_int_equal(chardev_write(f.c, "early\r\n", 7), 7);
    front_settle(&f);
    assert_false(f.is_connected);
    for (int i = 0; i < 2; i++) {
        fd = open(d.path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        assert_int_equal(tcgetattr(fd, &t), 0);
        assert_int_equal(t.c_lflag & (ICANON | ECHO | ISIG), 0);
        front_until(&f, f.is_connected);
        assert_reads(fd, "early\r\n");
        assert_int_equal(write(fd, "in\3", 3), 3);
        front_until(&f, f.in_len == 3);
        assert_memory_equal(f.in, "in\3", 3);
        f.in_len = 0;
        close(fd);
        front_until(&f, !f.is_connected);
    }
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), -1);
    test_dir_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_spec_is_refused_with_the_remedy),
        cmocka_unit_test(null_takes_all_and_gives_nothing),
        cmocka_unit_test(a_file_is_made_anew),
        cmocka_unit_test(a_full_disk_ends_output_not_the_guest),
        cmocka_unit_test(a_named_pipe_pushes_back_until_it_is_read),
        cmocka_unit_test(a_socket_serves_one_client_after_another),
        cmocka_unit_test(a_late_client_sees_the_last_64_kib),
        cmocka_unit_test(a_slow_client_holds_the_guest_up_and_loses_nothing),
        cmocka_unit_test(a_client_that_vanishes_releases_the_guest),
        cmocka_unit_test(what_a_client_sent_before_it_left_is_not_lost),
        cmocka_unit_test(a_client_that_has_closed_its_half_still_listens),
        cmocka_unit_test(a_second_client_is_told_and_turned_away),
        cmocka_unit_test(names_that_are_there_already_are_left_alone),
        cmocka_unit_test(a_socket_in_use_is_kept_and_a_stale_one_replaced),
        cmocka_unit_test(a_socket_that_is_not_ours_any_more_is_not_removed),
        cmocka_unit_test(too_long_a_socket_path_is_refused),
        cmocka_unit_test(a_pseudo_terminal_is_raw_and_may_be_reopened),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
