/*
 * What the user network's options say in words: networks, addresses, and forwards in QEMU's grammar.
 *
 * hostfwd:  tcp|udp:[HOSTADDR]:PORTS-[GUESTADDR]:PORTS  PORTS are a port or FIRST-LAST; IPv6 addresses stand in []
 *           unix:PATH-[GUESTADDR]:PORT
 * guestfwd: tcp:GUESTADDR:PORT-cmd:COMMAND
 *           tcp:GUESTADDR:PORT-unix:PATH
 */
#pragma once
#include <netinet/in.h>
#include <sys/un.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"

union forward_addr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};
socklen_t forward_addr_len(const union forward_addr *a);
enum { FORWARD_TEXT_MAX = 128 };
/* "127.0.0.1:80", "[::1]:80" or a path; in `buf`, which is FORWARD_TEXT_MAX long. */
const char *forward_addr_text(const union forward_addr *a, char *buf);
/* Of an address that has a port. */
uint16_t forward_port(const union forward_addr *a);
void forward_set_port(union forward_addr *a, uint16_t port);

struct host_forward {
    bool udp;
    union forward_addr host, guest; /* the first; without an address of the guest: zero */
    unsigned count;                 /* ports from there on */
};
int host_forward_parse(const char *text, struct host_forward *ret, struct err *err) must_check;

struct guest_forward {
    struct in_addr addr; /* in the guest's network */
    uint16_t port;
    bool is_path;       /* of a socket; else a command */
    const char *target; /* in the text */
};
int guest_forward_parse(const char *text, struct guest_forward *ret, struct err *err) must_check;

/* "10.0.2.0/24" with a prefix from `min` to `max` bits. */
int net4_parse(const char *text, unsigned min, unsigned max, struct in_addr *net, struct in_addr *mask, struct err *err)
    must_check;
/* "fec0::/64"; always 64 bits, as address autoconfiguration wants. */
int net6_parse(const char *text, struct in6_addr *ret, struct err *err) must_check;
