/*
 * A capture of the frames between a NIC and its backend, in the file format of tcpdump with nanoseconds
 * [draft-ietf-opsawg-pcap], to a file or live to a FIFO.  Who reads too slowly misses frames; nobody waits.
 */
#pragma once
#include "devices/net/net.h"

struct pcap;

/* What of each frame (0: all) and how much in all (0: no limit). */
int pcap_create(const char *path, uint32_t snap, uint64_t limit, struct pcap **ret, struct err *err) must_check;
void pcap_destroy(struct pcap *p); /* accepts NULL */
/* Copies a frame; a checksum that is left to do is done in the copy.  Then pcap_write() or, if it did not go, another
 * pcap_hold(). */
void pcap_hold(struct pcap *p, const struct net_frame *f);
void pcap_write(struct pcap *p);
/* Frames that are not in the capture. */
uint64_t pcap_missed(const struct pcap *p);
