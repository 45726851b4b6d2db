/* The user network's options, and what they say to libslirp and to the sanitiser. */
#pragma once
#include "devices/net/sanitise.h"
#include "devices/net/slirp.h"
#include "vmm/base/opt.h"

struct user_config {
    bool ipv4, ipv6, restricted, host_loopback;
    char *net, *host, *dns, *dhcp, *net6, *host6, *dns6, *hostname, *tftp, *bootfile, *outbound, *outbound6;
    struct opt_list domains, hostfwd, guestfwd;
    uint32_t max, rate;

    /* Made of them; libslirp borrows it. */
    struct in_addr first; /* that DHCP gives away */
    struct sockaddr_in from;
    struct sockaddr_in6 from6;
    const char **search;
    char *tftp_path;
};

/* Fills all but version and MTU of *cfg, and all but max of *rules. */
int user_config_resolve(struct user_config *c, SlirpConfig *cfg, struct san_rules *rules, struct err *err) must_check;
/* The part of that about addresses: of *cfg where DHCP begins, of *rules the IPv4 network. */
int user_config_addresses(struct user_config *c, SlirpConfig *cfg, struct san_rules *rules, struct err *err) must_check;
/* Copes with half a resolve. */
void user_config_fini(struct user_config *c);
