/*
 * A VM on a lan and two others on it that follow no rules: the input says what they send, when they hang up and come
 * back, and what the VM sends itself.  What the VM is handed must be frames, and it must go on to hear an honest one.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/net/backend.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/log.h"
#include "vmm/base/opt.h"

extern const struct net_class net_lan;

enum { PEERS = 2, MESSAGE_MAX = sizeof(struct virtio_net_hdr_v1) + NET_FRAME_MAX + 4096 };

static char root[] = "/tmp/bothy-fuzz.XXXXXX", lan_socket[64];
static struct loop *loop;
static struct device dev;
static struct net *net;
static int peers[PEERS];
static unsigned honest; /* frames of the honest one that arrived */

static void readable(struct net_user *u, unsigned queue)
{
    static uint8_t bytes[NET_FRAME_MAX];
    struct net_frame f;

    (void)u;
    while (net_peek(net, queue, &f)) {
        if (f.len < ETH_HLEN || f.len > NET_FRAME_MAX || !net_frame_ok(&f))
            abort();
        iov_get(f.iov, 0, bytes, f.len);
        honest += f.len == ETH_HLEN + 1;
        net_next(net, queue);
    }
}

static void writable(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static struct net_user user = {readable, writable, NULL};

static void connect_peer(int *fd)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", lan_socket);
    *fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0 || connect(*fd, (struct sockaddr *)&addr, sizeof(addr)))
        abort();
    loop_once(loop, 0);
}

static void end(void)
{
    net_close(net);
    unlink(lan_socket);
    *strrchr(lan_socket, '/') = 0;
    rmdir(lan_socket);
    rmdir(root);
}

static void begin(void)
{
    struct err err;

    log_set_level(LOG_ERROR);
    net = calloc(1, net_lan.size);
    if (!net || !mkdtemp(root) || setenv("XDG_RUNTIME_DIR", root, 1) || loop_create("fuzz", &loop, &err))
        abort();
    snprintf(lan_socket, sizeof(lan_socket), "%s/bothy/lan.fuzz.0", root);
    strcpy(dev.id, "net0");
    lane_init(&dev.lane, loop);
    opts_default(net_lan.opts, net);
    if (opts_set(net_lan.opts, net, "name", "fuzz", &err) ||
        net_open(&net_lan, net, &dev, &user, &(struct net_limits){0}, &err))
        abort();
    for (int i = 0; i < PEERS; i++)
        connect_peer(&peers[i]);
    atexit(end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t message[MESSAGE_MAX];
    struct virtio_net_hdr_v1 plain = {0};
    unsigned before;

    if (!net)
        begin();
    /* A byte of what to do, two of length, then as many of the bytes as there are. */
    while (size >= 3) {
        int *peer = &peers[data[0] & 1];
        size_t len = get_le16(data + 1), have = min_u64(len, size - 3);
        struct iovec iov = {message, len};
        struct net_frame f = {.hdr = plain, .iov = &iov, .niov = 1, .len = len};

        memset(message + have, 0xa5, sizeof(message) - have);
        memcpy(message, data + 3, have);
        switch (data[0] >> 1 & 3) {
        case 0:
            len += data[0] & 8 ? 8192 : 0; /* too long */
            /* fall through */
        case 1:
            if (send(*peer, message, min_u64(len, sizeof(message)), MSG_NOSIGNAL) < 0 && errno != EPIPE &&
                errno != EAGAIN && errno != ECONNRESET)
                abort();
            break;
        case 2:
            if (net_send(net, 0, &f) && f.len < ETH_HLEN)
                abort();
            break;
        case 3:
            close(*peer);
            connect_peer(peer);
            break;
        }
        data += 3 + have;
        size -= 3 + have;
        loop_once(loop, 0);
    }
    before = honest;
    close(peers[0]);
    connect_peer(&peers[0]);
    memset(message, 0, sizeof(plain) + ETH_HLEN + 1);
    if (send(peers[0], message, sizeof(plain) + ETH_HLEN + 1, 0) < 0)
        abort();
    while (honest == before)
        loop_once(loop, 1000);
    return 0;
}
