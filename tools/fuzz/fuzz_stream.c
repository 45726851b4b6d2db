/*
 * The far end of a cable that follows no rules: after a byte that says how the rest is cut, the input is what it sends.
 * The frames that come of it must be those that a plain reading of the same bytes finds.
 */
#include <linux/if_ether.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/conn.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/log.h"

static struct loop *loop;
static struct device dev;
static struct conn conn;
static uint64_t frames, bytes, sum;

static void readable(struct net_user *u, unsigned queue)
{
    static uint8_t copy[NET_FRAME_MAX];
    struct net_frame f;

    (void)u;
    (void)queue;
    while (conn_peek(&conn, &f)) {
        if (f.len < ETH_HLEN || f.len > NET_FRAME_MAX)
            abort();
        iov_get(f.iov, 0, copy, f.len);
        frames++;
        bytes += f.len;
        sum = sum * 31 + copy[0] + copy[f.len - 1];
        conn_next(&conn);
    }
}

static void writable(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static struct net_user user = {readable, writable, NULL};

static struct net *begin(void)
{
    static const struct net_class cls = {.name = "stream"};
    static struct net net = {.cls = &cls, .dev = &dev, .user = &user};
    struct err err;

    log_set_level(LOG_ERROR);
    if (loop_create("fuzz", &loop, &err))
        abort();
    lane_init(&dev.lane, loop);
    conn_init(&conn, &net, NULL);
    return &net;
}

/* Takes `size` bytes away from what was found. */
static void read_plainly(const uint8_t *data, size_t size)
{
    uint64_t expected = 0;

    while (size >= 4) {
        uint32_t len = get_be32(data);

        if (len > NET_FRAME_MAX || size - 4 < len)
            break;
        if (len >= ETH_HLEN) {
            frames--;
            bytes -= len;
            expected = expected * 31 + data[4] + data[4 + len - 1];
        }
        data += 4 + len;
        size -= 4 + len;
    }
    if (frames || bytes || sum != expected)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct net *net;
    int fds[2];
    size_t cut;

    net = net ? net : begin();
    if (!size || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
        return 0;
    cut = *data++ + 1u;
    size--;
    frames = bytes = sum = 0;
    conn_start(&conn, fds[0]);
    for (size_t at = 0; at < size && conn.fd >= 0; at += cut) {
        if (write(fds[1], data + at, min_u64(cut, size - at)) < 0)
            abort();
        loop_once(loop, 0);
    }
    close(fds[1]);
    while (conn.fd >= 0)
        loop_once(loop, 1000);
    read_plainly(data, size);
    return 0;
}
