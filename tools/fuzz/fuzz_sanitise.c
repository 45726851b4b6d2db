/*
 * Frames from a guest through the sanitiser into libslirp, best one that tools/fuzz/libslirp built with sanitizers. The
 * first byte picks the network's options; then come frames, each behind two bytes: its length, and MEND to have its
 * address and checksums set right and RELATIVE to have TCP's numbers counted from where the connection is, without
 * which little gets far.  libslirp sends from the loopback only, so that nothing leaves this host; what it can reach
 * is a socket that is the harness's own, at 10.0.2.100:7.
 */
#include <fcntl.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "devices/net/backend.h"
#include "devices/net/csum.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { MEND = 0x8000, RELATIVE = 0x4000, LEN = 0x3fff, FRAMES_MAX = 64, DESCRIPTORS = 256 };

static const uint8_t mac[] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
#define FROM   "outbound=127.0.0.1,ipv6-outbound=::1"
#define SERVED FROM ",guestfwd=tcp:10.0.2.100:7-unix:%1$s/it"
static const char *const options[] = {SERVED,
                                      SERVED ",restrict",
                                      SERVED ",tftp=%1$s",
                                      SERVED ",ipv6=off",
                                      FROM ",ipv4=off",
                                      SERVED ",hostfwd=udp:127.0.0.1:0-:53"};

struct guest {
    struct device dev;
    struct net_user user;
    struct net *n;
    uint32_t seq, ack; /* where the last TCP connection is */
};

static int server = -1;
static struct net *memory; /* of all inputs' networks; to map it anew each time costs more than what is tested */
static char dir[] = "/tmp/bothy-fuzz.XXXXXX";
static struct sockaddr_un at = {.sun_family = AF_UNIX};

static void remove_server(void)
{
    unlink(at.sun_path);
    rmdir(dir);
}

static void start_server(size_t size)
{
    const struct rlimit few = {DESCRIPTORS, DESCRIPTORS};

    if (!mkdtemp(dir))
        abort();
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/it", dir);
    atexit(remove_server);
    server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(server, (struct sockaddr *)&at, sizeof(at)) || listen(server, FRAMES_MAX))
        abort();
    memory = xcalloc(1, size);
    setrlimit(RLIMIT_NOFILE, &few); /* tables of the network's are as large */
    signal(SIGPIPE, SIG_IGN);       /* as in bothy */
    log_set_level(LOG_ERROR);       /* of forwards, and of what libslirp has to say */
}

static void readable(struct net_user *u, unsigned queue)
{
    struct guest *g = container_of(u, struct guest, user);
    struct net_frame f;

    while (net_peek(g->n, queue, &f)) {
        uint8_t *head = xcalloc(1, f.len); /* of just that size */

        iov_get(f.iov, 0, head, f.len);
        if (f.len >= 54 && get_be16(head + 12) == ETH_P_IP && head[23] == IPPROTO_TCP) {
            g->ack = get_be32(head + 38) + (uint32_t)(f.len - 34) - (head[46] >> 4) * 4u + !!(head[47] & 3);
            g->seq = get_be32(head + 42);
        }
        free(head);
        net_next(g->n, queue);
    }
}

static void writable(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static size_t sum_at(uint8_t proto)
{
    return proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : 2;
}

static void put_sum(uint8_t *l4, size_t n, uint64_t sum, size_t at_byte)
{
    if (n < at_byte + 2)
        return;
    put_be16(l4 + at_byte, 0);
    put_be16(l4 + at_byte, csum_fold(csum_add(sum, l4, n)));
}

static void mend(uint8_t *f, size_t len)
{
    uint8_t pseudo[8] = {0};

    if (len < 14)
        return;
    memcpy(f + 6, mac, 6);
    if (get_be16(f + 12) == ETH_P_IP && len >= 34) {
        put_be16(f + 24, 0);
        put_be16(f + 24, csum_fold(csum_add(0, f + 14, 20)));
        pseudo[1] = f[23];
        put_be16(pseudo + 2, (uint16_t)(len - 34));
        put_sum(f + 34, len - 34, f[23] == IPPROTO_ICMP ? 0 : csum_add(csum_add(0, f + 26, 8), pseudo, 4),
                sum_at(f[23]));
    } else if (get_be16(f + 12) == ETH_P_IPV6 && len >= 54) {
        put_be32(pseudo, (uint32_t)(len - 54));
        pseudo[7] = f[20];
        put_sum(f + 54, len - 54, csum_add(csum_add(0, f + 22, 32), pseudo, 8), sum_at(f[20]));
    }
}

static void send_frame(struct guest *g, uint8_t *bytes, size_t len, uint16_t how)
{
    struct iovec iov = {bytes, len};
    struct net_frame f = {.iov = &iov, .niov = 1, .len = len};

    if (how & RELATIVE && len >= 54 && get_be16(bytes + 12) == ETH_P_IP) {
        put_be32(bytes + 38, get_be32(bytes + 38) + g->seq);
        put_be32(bytes + 42, get_be32(bytes + 42) + g->ack);
    }
    if (how & MEND)
        mend(bytes, len);
    if (net_send(g->n, 0, &f))
        assert(!"the user network takes every frame");
    loop_once(g->dev.lane.loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct net_class *cls = net_class_find("user");
    struct guest g = {.dev.id = "net0", .user = {.readable = readable, .writable = writable}};
    struct loop *loop;
    struct err err;
    char text[256];
    int fd;

    if (!cls || !size)
        return 0;
    if (server < 0)
        start_server(cls->size);
    if (loop_create("fuzz", &loop, &err))
        abort();
    lane_init(&g.dev.lane, loop);
    g.n = memset(memory, 0, cls->size);
    snprintf(text, sizeof(text), options[data[0] % array_len(options)], dir);
    opts_default(cls->opts, g.n);
    if (opts_parse(cls->opts, g.n, NULL, text, &err) ||
        net_open(cls, g.n, &g.dev, &g.user, &(struct net_limits){0}, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    data++;
    size--;
    for (unsigned i = 0; size > 2 && i < FRAMES_MAX; i++) {
        uint16_t how = get_le16(data);
        size_t len = min_u64(how & LEN, size - 2);
        cleanup_free uint8_t *exact = xcalloc(1, len);

        memcpy(exact, data + 2, len);
        send_frame(&g, exact, len, how);
        data += 2 + len;
        size -= 2 + len;
        while ((fd = accept(server, NULL, NULL)) >= 0)
            close(fd);
    }
    lane_lock(&g.dev.lane);
    lane_drain(&g.dev.lane);
    net_close(g.n);
    opts_clear(cls->opts, g.n);
    lane_unlock(&g.dev.lane);
    lane_fini(&g.dev.lane);
    loop_destroy(loop);
    return 0;
}
