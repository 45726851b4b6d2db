#include "devices/net/user_config.h"

#include <arpa/inet.h>
#include <sys/stat.h>

#include "devices/net/forward.h"
#include "vmm/base/cleanup.h"

enum {
    HOSTNAME_MAX = 32,  /* in libslirp */
    BOOTFILE_MAX = 127, /* [RFC 2131 2] */
    DHCP_LEASES = 16,   /* in libslirp */
};

static int bad_addr(const char *key, const char *text, const char *remedy, struct err *err)
{
    return err_set(err, EINVAL, "%s=%s: %s", key, text, remedy);
}

/* An address of the network: as given, or the network's `nth`. */
static int addr4_in_net(const char *key, const char *text, const struct san_rules *r, uint32_t nth, struct in_addr *ret,
                        struct err *err)
{
    struct in_addr a = {r->net.s_addr | htonl(nth)};

    if (text && inet_pton(AF_INET, text, &a) != 1)
        return bad_addr(key, text, "not an IPv4 address; write it as 10.0.2.2", err);
    if ((a.s_addr & r->mask.s_addr) != r->net.s_addr || a.s_addr == r->net.s_addr ||
        (a.s_addr | r->mask.s_addr) == INADDR_BROADCAST)
        return bad_addr(key, text, "not an address of the network that net= names; choose one of it", err);
    *ret = a;
    return 0;
}

static int addr6_in_net(const char *key, const char *text, const struct in6_addr *net, uint8_t nth,
                        struct in6_addr *ret, struct err *err)
{
    struct in6_addr a = *net;

    a.s6_addr[15] = nth;
    if (text && inet_pton(AF_INET6, text, &a) != 1)
        return bad_addr(key, text, "not an IPv6 address; write it as fec0::2", err);
    if (memcmp(&a, net, 8) || !memcmp(&a, net, sizeof(a)))
        return bad_addr(key, text, "not an address of the network that ipv6-net= names; choose one of it", err);
    *ret = a;
    return 0;
}

/* Of the guest's own addresses none may be the gateway's. */
static int check_leases(struct in_addr first, const struct san_rules *r, struct err *err)
{
    char text[INET_ADDRSTRLEN];

    if (ntohl(r->host.s_addr) - ntohl(first.s_addr) >= DHCP_LEASES &&
        ntohl(r->dns.s_addr) - ntohl(first.s_addr) >= DHCP_LEASES)
        return 0;
    return err_set(
        err, EINVAL,
        "dhcpstart: the %d addresses from %s on have the host's or the DNS proxy's among them; choose another, "
        "or others for host= and dns=",
        DHCP_LEASES, inet_ntop(AF_INET, &first, text, sizeof(text)));
}

int user_config_addresses(struct user_config *c, SlirpConfig *cfg, struct san_rules *r, struct err *err)
{
    struct in6_addr net6;
    int rc;

    if (!c->ipv4 && !c->ipv6)
        return err_set(err, EINVAL, "ipv4=off and ipv6=off leave nothing; turn one on, or choose another network");
    rc = net4_parse(c->net, 8, 27, &r->net, &r->mask, err);
    if (!rc)
        rc = addr4_in_net("host", c->host, r, 2, &r->host, err);
    if (!rc)
        rc = addr4_in_net("dns", c->dns, r, 3, &r->dns, err);
    if (!rc)
        rc = addr4_in_net("dhcpstart", c->dhcp, r, 15, &cfg->vdhcp_start, err);
    if (!rc && r->host.s_addr == r->dns.s_addr)
        rc = bad_addr("dns", c->dns ? c->dns : c->host, "is the host's address too; choose another", err);
    if (!rc && (ntohl(cfg->vdhcp_start.s_addr | r->mask.s_addr) > UINT32_MAX - DHCP_LEASES))
        rc = bad_addr("dhcpstart", c->dhcp, "leaves fewer than 16 addresses above it; choose a lower one", err);
    if (!rc)
        rc = check_leases(cfg->vdhcp_start, r, err);
    if (!rc)
        rc = net6_parse(c->net6, &net6, err);
    if (!rc)
        rc = addr6_in_net("ipv6-host", c->host6, &net6, 2, &r->host6, err);
    if (!rc)
        rc = addr6_in_net("ipv6-dns", c->dns6, &net6, 3, &r->dns6, err);
    if (!rc && !memcmp(&r->host6, &r->dns6, sizeof(net6)))
        rc = bad_addr("ipv6-dns", c->dns6 ? c->dns6 : c->host6, "is the host's address too; choose another", err);
    if (rc)
        return rc;
    c->first = cfg->vdhcp_start;
    cfg->vnetwork = r->net;
    cfg->vnetmask = r->mask;
    cfg->vhost = r->host;
    cfg->vnameserver = r->dns;
    cfg->vprefix_addr6 = net6;
    cfg->vprefix_len = 64;
    cfg->vhost6 = r->host6;
    cfg->vnameserver6 = r->dns6;
    return 0;
}

static int parse_outbound(struct user_config *c, SlirpConfig *cfg, struct err *err)
{
    c->from = (struct sockaddr_in){.sin_family = AF_INET};
    c->from6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
    if (c->outbound && inet_pton(AF_INET, c->outbound, &c->from.sin_addr) != 1)
        return bad_addr("outbound", c->outbound, "not an IPv4 address; name one of this host's", err);
    if (c->outbound6 && inet_pton(AF_INET6, c->outbound6, &c->from6.sin6_addr) != 1)
        return bad_addr("ipv6-outbound", c->outbound6, "not an IPv6 address; name one of this host's", err);
    cfg->outbound_addr = c->outbound ? &c->from : NULL;
    cfg->outbound_addr6 = c->outbound6 ? &c->from6 : NULL;
    return 0;
}

static int parse_names(struct user_config *c, SlirpConfig *cfg, struct err *err)
{
    struct stat st;

    if (c->hostname && strlen(c->hostname) > HOSTNAME_MAX)
        return err_set(err, EINVAL, "hostname=%s: longer than %d characters; choose a shorter one", c->hostname,
                       HOSTNAME_MAX);
    if (c->bootfile && strlen(c->bootfile) > BOOTFILE_MAX)
        return err_set(err, EINVAL, "bootfile=%s: longer than %d characters; choose a shorter one", c->bootfile,
                       BOOTFILE_MAX);
    if (c->tftp) {
        c->tftp_path = realpath(c->tftp, NULL);
        if (!c->tftp_path)
            return err_file(err, errno, "tftp directory", c->tftp);
        if (stat(c->tftp_path, &st) || !S_ISDIR(st.st_mode))
            return err_set(err, ENOTDIR, "tftp=%s: not a directory; name the one whose files the guest may read",
                           c->tftp);
    }
    cfg->vhostname = c->hostname;
    cfg->tftp_path = c->tftp_path;
    cfg->bootfile = c->bootfile;
    if (c->domains.n) {
        c->search = xcalloc(c->domains.n + 1, sizeof(*c->search));
        memcpy(c->search, c->domains.v, c->domains.n * sizeof(*c->search));
        cfg->vdomainname = c->search[0];
        cfg->vdnssearch = c->search;
    }
    return 0;
}

int user_config_resolve(struct user_config *c, SlirpConfig *cfg, struct san_rules *rules, struct err *err)
{
    int rc = user_config_addresses(c, cfg, rules, err);
    bool udp = false;

    if (!rc)
        rc = parse_outbound(c, cfg, err);
    if (!rc)
        rc = parse_names(c, cfg, err);
    if (rc)
        return rc;
    rules->ipv4 = cfg->in_enabled = c->ipv4;
    rules->ipv6 = cfg->in6_enabled = c->ipv6;
    rules->restricted = c->restricted;
    cfg->restricted = c->restricted;
    rules->tftp = c->tftp;
    rules->rate = c->rate;
    for (size_t i = 0; i < c->hostfwd.n; i++)
        udp |= !strncmp(c->hostfwd.v[i], "udp:", 4);
    rules->answers_only = !c->host_loopback && udp;
    cfg->disable_host_loopback = !c->host_loopback && !udp;
    return 0;
}

void user_config_fini(struct user_config *c)
{
    free(c->search);
    free(c->tftp_path);
}
