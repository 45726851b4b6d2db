/*
 * Offloads in software: the checksum that a sender left to do, and packets larger than the network takes cut into such
 * as it does [VIRTIO-v1.2 5.1.6.2].
 */
#pragma once
#include "devices/net/net.h"

enum {
    PACKET_HEADERS_MAX = 256, /* Ethernet to TCP; larger ones are refused */
    SEGMENT_SIZE_MIN = 48,    /* Linux sends no smaller ones, and each costs the same */
    SEGMENT_MAX = NET_FRAME_MAX + 8,
};

/* Where the parts of a large packet are, and a copy of its headers. */
struct packet {
    bool v6;
    uint8_t gso;                     /* VIRTIO_NET_HDR_GSO_* without ECN */
    unsigned ip, transport, payload; /* offsets */
    unsigned cut, size;              /* what is spread over segments: from there on, in such portions */
    unsigned segments;
    uint8_t headers[PACKET_HEADERS_MAX]; /* up to `cut` */
};

/* A frame that its header calls large: false when it is not one of that kind. */
bool packet_parse(const struct net_frame *f, struct packet *ret) must_check;
/*
 * The `i`th segment, whole and with all checksums, in `buf`, which is SEGMENT_MAX long; its length.  `id` tells the
 * fragments of one IPv6 packet from those of others.
 */
size_t packet_segment(const struct packet *p, const struct net_frame *f, unsigned i, uint32_t id, uint8_t *buf);

/* Does what f->hdr asks for in a frame that lies at `data`, and says so in it. */
void checksum_complete(struct net_frame *f, uint8_t *data);
