/* A socket stands for whatever a client may come by. */
#include "devices/char/front.h"
#include "devices/char/peer.h"

#include <signal.h>
#include <sys/socket.h>

/* A front end behind a socket, in a directory of its own. */
static void served_open(struct test_dir *d, struct front *f)
{
    test_dir_init(d, "unix");
    front_open(f, d->spec);
}

static void served_fini(struct test_dir *d, struct front *f)
{
    front_fini(f);
    test_dir_fini(d);
}

/* A client that was seen to come. */
static int client_of(const struct test_dir *d, struct front *f)
{
    int fd = connect_to(d->path);

    front_until(f, f->is_connected);
    return fd;
}

static void a_late_client_sees_the_last_64_kib(void **s)
{
    enum { LINES = 20000 };
    char line[8], first[8];
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    served_open(&d, &f);
    for (int i = 0; i < LINES; i++) {
        snprintf(line, sizeof(line), "%06d\n", i);
        assert_int_equal(chardev_write(f.c, line, 7), 7);
    }
    fd = client_of(&d, &f);
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
    served_fini(&d, &f);
}

static void a_slow_client_holds_the_guest_up_and_loses_nothing(void **s)
{
    uint32_t next = 0, seen = 0, word;
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    served_open(&d, &f);
    fd = client_of(&d, &f);
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
    served_fini(&d, &f);
}

static void a_client_that_vanishes_releases_the_guest(void **s)
{
    char block[4096] = {0};
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    served_open(&d, &f);
    fd = client_of(&d, &f);
    while (chardev_write(f.c, block, sizeof(block)) == sizeof(block))
        ;
    close(fd);
    front_until(&f, f.writable && !f.is_connected);
    assert_int_equal(chardev_write(f.c, block, sizeof(block)), sizeof(block));
    served_fini(&d, &f);
}

static void what_a_client_sent_before_it_left_is_not_lost(void **s)
{
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    served_open(&d, &f);
    f.deaf = true;
    fd = client_of(&d, &f);
    assert_int_equal(write(fd, "last words", 10), 10);
    close(fd);
    front_settle(&f);
    f.deaf = false;
    f.user.readable(&f.user);
    assert_memory_equal(f.in, "last words", 10);
    assert_true(f.ended);
    front_until(&f, !f.is_connected);
    served_fini(&d, &f);
}

static void a_client_that_has_closed_its_half_still_listens(void **s)
{
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    served_open(&d, &f);
    fd = connect_to(d.path);
    assert_int_equal(write(fd, "x", 1), 1);
    shutdown(fd, SHUT_WR);
    front_until(&f, f.ended && f.in_len == 1);
    assert_true(f.is_connected);
    assert_int_equal(chardev_write(f.c, "answer", 6), 6);
    assert_reads(fd, "answer");
    close(fd);
    front_until(&f, !f.is_connected);
    served_fini(&d, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_client_sees_the_last_64_kib),
        cmocka_unit_test(a_slow_client_holds_the_guest_up_and_loses_nothing),
        cmocka_unit_test(a_client_that_vanishes_releases_the_guest),
        cmocka_unit_test(what_a_client_sent_before_it_left_is_not_lost),
        cmocka_unit_test(a_client_that_has_closed_its_half_still_listens),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
