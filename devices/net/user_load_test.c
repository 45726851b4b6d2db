/* The user network under load, with libslirp as it is: what it does for many at once, and what is left of it. */
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>

#include "devices/net/guest.h"

enum {
    AT_ONCE = 1000,
    IN_ALL = 10000, /* connections, one after the other */
    BATCH = 100,
    FLOWS = 24,
    FLOW_SIZE = 512 << 10,
    ROUNDS = 4, /* of the loop in which a question is answered amid all that */
};

/* What the default amounts are multiplied with. */
static unsigned factor(void)
{
    const char *text = getenv("BOTHY_TEST_FACTOR");

    return text ? (unsigned)atoi(text) : 1;
}

/* Bytes that the process has asked for and not given back; 0 where a sanitizer counts by itself. */
static size_t in_use(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

static void echo(struct guest *g, struct conn *c)
{
    until(g, c->in_len == 4);
    tcp_send(g, c, ACK | PSH, c->in, 4);
}

/* So many clients come by a forward, each asks and is answered, and they leave. */
static void come_and_go(struct guest *g, unsigned n)
{
    static int fd[AT_ONCE];
    uint8_t said[4], heard[4];

    for (unsigned i = 0; i < n; i++) {
        fd[i] = client_of(SOCK_STREAM, forwarded(g, 0));
        put_be32(said, i);
        assert_int_equal(send(fd[i], said, sizeof(said), 0), sizeof(said));
    }
    for (unsigned i = 0; i < n; i++)
        echo(g, called(g, i));
    assert_int_equal(told(g, NULL, "connections"), n);
    for (unsigned i = 0; i < n; i++) {
        put_be32(said, i);
        receive(g, fd[i], heard, sizeof(heard));
        assert_memory_equal(said, heard, sizeof(said));
    }
    for (unsigned i = 0; i < n; i++)
        tcp_send(g, &g->conns[i], FIN | ACK, NULL, 0);
    for (unsigned i = 0; i < n; i++) {
        until(g, recv(fd[i], heard, 1, 0) == 0);
        close(fd[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        until(g, g->conns[i].fin && g->conns[i].acked == g->conns[i].seq);
        forget(&g->conns[i]);
    }
    until(g, !told(g, NULL, "connections"));
}

/* Two for each of them, and some. */
static unsigned as_many_as_there_are_descriptors_for(unsigned n)
{
    struct rlimit lim;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
    return lim.rlim_cur / 3 < n ? (unsigned)(lim.rlim_cur / 3) : n;
}

static void a_thousand_connections_at_once_leave_nothing_behind(void **state)
{
    struct guest *g = guest_new("hostfwd=tcp:127.0.0.1:0-:22");
    unsigned n = as_many_as_there_are_descriptors_for(AT_ONCE), fds;
    size_t memory;

    (void)state;
    g->listens = 22;
    come_and_go(g, n);
    fds = open_fds();
    memory = in_use();
    come_and_go(g, n);
    assert_int_equal(open_fds(), fds);
    assert_true(in_use() <= memory + (64 << 10));
    guest_end(g);
}

/* From outside and from the guest in turn. */
static void thousands_of_connections_one_after_the_other_leave_nothing_behind(void **state)
{
    struct guest *g = guest_new("host-loopback,connection-rate=0,hostfwd=tcp:127.0.0.1:0-:22");
    unsigned n = IN_ALL / (in_use() ? 1 : 10) * factor(), fds = 0; /* a sanitizer makes each as slow as ten */
    size_t memory = 0;
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port);

    (void)state;
    g->listens = 22;
    for (unsigned i = 0; i < n; i += 2 * BATCH) {
        come_and_go(g, BATCH);
        for (unsigned k = 0; k < BATCH; k++) {
            struct conn *c = connected(g, gateway4, port);

            close_both(g, c, accepted(g, server));
            forget(c);
        }
        until(g, !told(g, NULL, "connections"));
        fds = fds ? fds : open_fds();
        memory = memory ? memory : in_use();
    }
    assert_int_equal(open_fds(), fds);
    assert_true(in_use() <= memory + (64 << 10));
    close(server);
    guest_end(g);
}

struct bulk {
    struct conn *c;
    int fd;
    bool out;             /* of the guest */
    size_t sent, arrived; /* bytes */
};

static size_t received(struct bulk *b)
{
    return b->out ? b->arrived : b->c->in_len;
}

/* What can leave now, and what has come. */
static void bulk_go_on(struct guest *g, struct bulk *b, size_t size)
{
    static uint8_t buf[PATTERN];
    ssize_t n;

    if (!b->out) {
        n = b->sent < size ? send(b->fd, pattern(b->sent), size - b->sent < PATTERN ? size - b->sent : PATTERN, 0) : 0;
        b->sent += n > 0 ? (size_t)n : 0;
        return;
    }
    if (b->sent < size && b->c->seq - b->c->acked <= WINDOW / 2) {
        size_t part = size - b->sent < WINDOW / 2 ? size - b->sent : WINDOW / 2;

        tcp_send(g, b->c, ACK | PSH, pattern(b->sent), part);
        b->sent += part;
    }
    while ((n = recv(b->fd, buf, sizeof(buf), 0)) > 0) {
        assert_memory_equal(buf, pattern(b->arrived), (size_t)n);
        b->arrived += (size_t)n;
    }
}

static void bulk_flows_do_not_hold_up_each_other_or_a_small_one(void **state)
{
    const size_t size = FLOW_SIZE * (size_t)factor();
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fd;
    struct guest *g = guest_new("host-loopback");
    struct conn *small = connected(g, gateway4, port);
    struct bulk bulks[FLOWS];
    unsigned left = FLOWS, questions = 0, asked = 0, slowest = 0;
    bool first_ended = false;
    char c = 'q';

    (void)state;
    fd = accepted(g, server);
    for (unsigned i = 0; i < FLOWS; i++) {
        bulks[i] = (struct bulk){.c = connected(g, gateway4, port), .fd = accepted(g, server), .out = i % 2};
        bulks[i].c->patterned = true;
    }
    for (unsigned round = 0; left; round++) {
        left = 0;
        for (unsigned i = 0; i < FLOWS; i++) {
            bulk_go_on(g, &bulks[i], size);
            left += received(&bulks[i]) < size;
        }
        if (left < FLOWS && !first_ended)
            for (unsigned i = 0; i < FLOWS; i++)
                assert_true(received(&bulks[i]) >= size / 4);
        first_ended = left < FLOWS;
        /* The guest asks, the host answers, and so on, for as long as the others have something to do. */
        if (small->in_len == questions) {
            slowest = round - asked > slowest ? round - asked : slowest;
            asked = round;
            questions++;
            tcp_send(g, small, ACK | PSH, &c, 1);
        }
        if (recv(fd, &c, 1, 0) == 1)
            assert_int_equal(send(fd, &c, 1, 0), 1);
        step(g);
    }
    assert_true(questions > 2);
    assert_true(slowest <= ROUNDS);
    for (unsigned i = 0; i < FLOWS; i++)
        close_both(g, bulks[i].c, bulks[i].fd);
    close(fd);
    close(server);
    guest_end(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_connections_at_once_leave_nothing_behind),
        cmocka_unit_test(thousands_of_connections_one_after_the_other_leave_nothing_behind),
        cmocka_unit_test(bulk_flows_do_not_hold_up_each_other_or_a_small_one),
    };

    signal(SIGPIPE, SIG_IGN); /* as in bothy */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
