/*
 * A network card, a driver gone mad and a network that hands out anything: the input picks features and what the
 * network takes, then sends and receives frames that begin as good ones, in buffers of any size, gives commands, and
 * pulls the cable.  No end ever gets a frame with an offload that it does not take.
 */
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "devices/testing/netscript.h"
#include "devices/testing/vdriver.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { HEADER = sizeof(struct virtio_net_hdr_v1), STEPS_MAX = 64, CONTROL = 4, PIECES_MAX = 80 };

static struct vdriver d;

/* A frame of the kind that `how` says, from IPv4 TCP to IPv6 UDP, cut short or damaged in a few bytes; its length. */
static size_t make_frame(struct bytes *b, struct virtio_net_hdr_v1 *hdr, uint8_t *frame)
{
    static const uint8_t gsos[] = {0, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP,
                                   VIRTIO_NET_HDR_GSO_UDP_L4};
    uint8_t how = (uint8_t)bytes_take(b, 1);
    bool v6 = how & 1, tcp = how & 2;
    unsigned tag = how & 4 ? 4 : 0, ip = ETH_HLEN + tag, transport = ip + (v6 ? 40 : 20);
    size_t len = (size_t)min_u64(bytes_take(b, 2), NET_FRAME_MAX);

    memset(frame, 0, 256);
    memset(frame, 0xff, ETH_ALEN);
    put_be16(frame + 2 * ETH_ALEN, ETH_P_8021Q);
    put_be16(frame + ip - 2, v6 ? ETH_P_IPV6 : ETH_P_IP);
    frame[ip] = v6 ? 0x60 : 0x45;
    frame[ip + (v6 ? 6 : 9)] = tcp ? IPPROTO_TCP : IPPROTO_UDP;
    frame[transport + 12] = tcp ? 0x50 : 0;
    *hdr = (struct virtio_net_hdr_v1){.flags = how & 8 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
                                      .gso_type = gsos[(how >> 4) % array_len(gsos)],
                                      .gso_size = htole16((uint16_t)bytes_take(b, 2)),
                                      .csum_start = htole16((uint16_t)transport),
                                      .csum_offset = htole16(tcp ? 16 : 6)};
    for (unsigned n = (unsigned)bytes_take(b, 1) % 4; n; n--)
        frame[bytes_take(b, 1)] = (uint8_t)bytes_take(b, 1);
    if (bytes_take(b, 1) == 1)
        ((uint8_t *)hdr)[bytes_take(b, 1) % HEADER] = (uint8_t)bytes_take(b, 1);
    return len;
}

static void send_frame(struct bytes *b, unsigned queue)
{
    static uint8_t frame[NET_FRAME_MAX + 256];
    struct virtio_net_hdr_v1 hdr;
    struct vdriver_buf bufs[PIECES_MAX];
    size_t len = HEADER + make_frame(b, &hdr, frame), done = 0;
    gpa_t at = vdriver_alloc(&d, len);
    unsigned n = 0, pieces = (unsigned)bytes_take(b, 1) % PIECES_MAX + 1;

    if (gmem_write(d.e.env.mem, at, &hdr, HEADER) || gmem_write(d.e.env.mem, at + HEADER, frame, len - HEADER))
        abort();
    for (; n + 1 < pieces && done < len; n++) {
        size_t piece = min_u64(bytes_take(b, 1) + 1, len - done);

        bufs[n] = (struct vdriver_buf){at + done, (uint32_t)piece, false};
        done += piece;
    }
    if (done < len)
        bufs[n++] = (struct vdriver_buf){at + done, (uint32_t)(len - done), false};
    vdriver_add(&d, queue, bufs, n, true);
    vdriver_kick(&d, queue);
}

/* What comes with a header from elsewhere a backend looks at first. */
static void receive_frame(struct bytes *b, unsigned queue)
{
    static uint8_t frame[NET_FRAME_MAX + 256];
    struct virtio_net_hdr_v1 hdr;
    size_t len = make_frame(b, &hdr, frame);
    struct iovec iov = {frame, len};
    struct net_frame f = {.hdr = hdr, .iov = &iov, .niov = 1, .len = len};

    if (net_frame_ok(&f))
        netscript_put(queue, &f.hdr, frame, len);
}

static void add_room(struct bytes *b, unsigned queue)
{
    unsigned n = (unsigned)bytes_take(b, 1) % 16;
    uint32_t size = (uint32_t)bytes_take(b, 2);

    for (unsigned i = 0; i < n; i++) {
        const struct vdriver_buf buf = {0, size, true};

        vdriver_add(&d, queue, &buf, 1, true);
    }
    vdriver_kick(&d, queue);
}

static void command(struct bytes *b)
{
    gpa_t at = vdriver_alloc(&d, 1024);
    uint32_t n = (uint32_t)bytes_take(b, 1) % 32;
    const struct vdriver_buf bufs[] = {{at, n + 2, false}, {at + 512, 1, true}};
    uint8_t data[40];

    for (uint32_t i = 0; i < n + 2; i++)
        data[i] = (uint8_t)bytes_take(b, 1);
    data[0] %= 6;
    if (gmem_write(d.e.env.mem, at, data, n + 2))
        abort();
    vdriver_add(&d, CONTROL, bufs, 2, true);
    vdriver_kick(&d, CONTROL);
}

/* Frames that left ask for nothing that the network does not take. */
static void check_sent(void)
{
    for (unsigned i = 0; i < min_u64(netscript->nout, NETSCRIPT_MAX); i++) {
        const struct virtio_net_hdr_v1 *h = &netscript->out[i].hdr;

        assert(!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || netscript->cls.takes >> VIRTIO_NET_F_CSUM & 1);
        assert(!h->gso_type || netscript->cls.takes & ~(1ull << VIRTIO_NET_F_CSUM));
    }
    netscript_clear();
}

static void step(struct bytes *b)
{
    uint8_t op = (uint8_t)bytes_take(b, 1);
    unsigned pair = op >> 7;

    switch (op % 8) {
    case 0:
    case 1:
        send_frame(b, 2 * pair + 1);
        break;
    case 2:
        receive_frame(b, pair);
        break;
    case 3:
        add_room(b, 2 * pair);
        break;
    case 4:
        command(b);
        break;
    case 5:
        netscript->n.user->link(netscript->n.user, op & 8);
        break;
    case 6:
        netscript->room = (unsigned)bytes_take(b, 1);
        netscript->n.user->writable(netscript->n.user, pair);
        break;
    case 7:
        vdriver_run(&d);
        check_sent();
        break;
    }
}

/* The one machine of all inputs, as good as new. */
static void power_on(void)
{
    if (!d.v) {
        log_set_level(LOG_ERROR);
        vdriver_create(&d, &vdriver_mmio, device_class_find("virtio-net"), "null,mac=52:54:00:12:34:56,queues=2");
    }
    netscript_empty();
    netscript->room = UINT32_MAX;
    netscript->n.user->link(netscript->n.user, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {.p = data, .left = size};
    uint64_t features;
    uint8_t how;

    power_on();
    how = (uint8_t)bytes_take(&b, 1);
    features = vdriver_offered(&d);
    if (how & 1)
        features &= ~(1ull << VIRTIO_NET_F_MRG_RXBUF);
    if (how & 2)
        features &= ~bytes_take(&b, 8);
    netscript->cls.takes = how & 4 ? bytes_take(&b, 8) : 0;
    vdriver_start(&d, features);
    for (unsigned i = 0; b.left && i < STEPS_MAX; i++)
        step(&b);
    vdriver_run(&d);
    check_sent();
    vdriver_reset(&d);
    assert(!d.v->dev.lane.inflight && !d.e.ndoorbells);
    return 0;
}
