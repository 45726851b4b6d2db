#include "vmm/base/test.h"
#include "vmm/loop/acceptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct loop *loop;
static struct lane lane;
static struct acceptor door;
static struct sockaddr_un at = {.sun_family = AF_UNIX};
static int listening, came;

static void accepted(struct acceptor *a, int fd)
{
    assert_ptr_equal(a, &door);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    close(fd);
    came++;
}

/* An address of the kernel's choice, which is nobody's file. */
static int setup(void **s)
{
    socklen_t len = sizeof(at);
    struct err err;

    (void)s;
    if (loop_create("test", &loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&lane, loop);
    came = 0;
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&at, sizeof(sa_family_t)), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(listen(listening, 8), 0);
    door = (struct acceptor){.name = "door", .accepted = accepted};
    acceptor_open(&door, &lane, listening);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    acceptor_close(&door);
    close(listening);
    lane_fini(&lane);
    loop_destroy(loop);
    return 0;
}

static int knock(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(sa_family_t) + 6), 0); /* NUL and five digits */
    return fd;
}

static void who_knocks_comes_in_unless_he_has_to_wait(void **s)
{
    int fd = knock(), more;

    (void)s;
    while (came < 1)
        loop_once(loop, -1);
    acceptor_listen(&door, false);
    more = knock();
    loop_once(loop, 0);
    assert_int_equal(came, 1);
    acceptor_listen(&door, true);
    while (came < 2)
        loop_once(loop, -1);
    close(fd);
    close(more);
}

static void without_descriptors_the_loop_sleeps_and_tries_again(void **s)
{
    int fd = knock();
    struct rlimit before, none;

    (void)s;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    loop_once(loop, -1);
    assert_true(door.retry.armed);
    assert_int_equal(door.watch.events, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    timer_arm(&door.retry, 0); /* not in a second: now */
    while (!came)
        loop_once(loop, -1);
    close(fd);
}

static void one_that_was_never_opened_can_be_closed(void **s)
{
    struct acceptor never = {.name = NULL};

    (void)s;
    acceptor_close(&never);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_knocks_comes_in_unless_he_has_to_wait),
        TEST(without_descriptors_the_loop_sleeps_and_tries_again),
        TEST(one_that_was_never_opened_can_be_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
