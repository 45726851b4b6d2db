#include "devices/net/forward.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static const char host_grammar[] = "write tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT, the same with udp, or "
                                   "unix:PATH-[GUESTADDR]:PORT, with ports up to 65535";
static const char guest_grammar[] = "write tcp:GUESTADDR:PORT-cmd:COMMAND or tcp:GUESTADDR:PORT-unix:PATH";

socklen_t forward_addr_len(const union forward_addr *a)
{
    return a->sa.sa_family == AF_INET ? sizeof(a->in) : a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->un);
}

uint16_t forward_port(const union forward_addr *a)
{
    return ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in.sin_port);
}

void forward_set_port(union forward_addr *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET6)
        a->in6.sin6_port = htons(port);
    else
        a->in.sin_port = htons(port);
}

const char *forward_addr_text(const union forward_addr *a, char *buf)
{
    char ip[INET6_ADDRSTRLEN];

    if (a->sa.sa_family == AF_UNIX)
        snprintf(buf, FORWARD_TEXT_MAX, "%s", a->un.sun_path);
    else if (a->sa.sa_family == AF_INET6)
        snprintf(buf, FORWARD_TEXT_MAX, "[%s]:%u", inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof(ip)),
                 forward_port(a));
    else
        snprintf(buf, FORWARD_TEXT_MAX, "%s:%u", inet_ntop(AF_INET, &a->in.sin_addr, ip, sizeof(ip)), forward_port(a));
    return buf;
}

/* ---- A text is taken apart from its beginning. ---- */

static bool take(const char **at, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(*at, word, n))
        return false;
    *at += n;
    return true;
}

static bool take_number(const char **at, unsigned max, unsigned *ret)
{
    unsigned long v;
    char *end;

    if (!isdigit((unsigned char)**at))
        return false;
    v = strtoul(*at, &end, 10);
    if (v > max || end - *at > 5)
        return false;
    *at = end;
    *ret = (unsigned)v;
    return true;
}

/* "ADDR:", "[ADDR]:" or ":"; the latter leaves the family open. */
static bool take_addr(const char **at, union forward_addr *ret)
{
    char text[INET6_ADDRSTRLEN] = "";
    bool v6 = take(at, "[");
    size_t n = strcspn(*at, v6 ? "]" : ":");

    if (n >= sizeof(text))
        return false;
    memcpy(text, *at, n);
    *at += n;
    if ((v6 && !take(at, "]")) || !take(at, ":"))
        return false;
    *ret = (union forward_addr){.sa.sa_family = v6 ? AF_INET6 : n ? AF_INET : AF_UNSPEC};
    if (!n)
        return true;
    return v6 ? inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1 : inet_pton(AF_INET, text, &ret->in.sin_addr) == 1;
}

/* "80", "80-89", and what follows is not part of it. */
static bool take_ports(const char **at, unsigned *first, unsigned *count)
{
    const char *rest;
    unsigned last;

    if (!take_number(at, 65535, first))
        return false;
    *count = 1;
    rest = *at;
    if (!take(&rest, "-") || !take_number(&rest, 65535, &last) || (*rest && *rest != '-'))
        return true;
    *at = rest;
    if (last < *first)
        return false;
    *count = last - *first + 1;
    return true;
}

/* ---- ---- */

static int bad_host(const char *text, const char *why, struct err *err)
{
    return err_set(err, EINVAL, "hostfwd=\"%s\": %s", text, why);
}

/* An address that was left out is of the other's family. */
static bool same_family(union forward_addr *a, union forward_addr *b)
{
    if (a->sa.sa_family == AF_UNSPEC)
        a->sa.sa_family = b->sa.sa_family == AF_INET6 ? AF_INET6 : AF_INET;
    if (b->sa.sa_family == AF_UNSPEC)
        b->sa.sa_family = a->sa.sa_family;
    return a->sa.sa_family == b->sa.sa_family;
}

static int parse_unix(const char *text, struct host_forward *f, struct err *err)
{
    const char *path = text + strlen("unix:"), *end = strrchr(path, '-'), *at = end ? end + 1 : "";
    unsigned port;

    if (!end || end == path || !take_addr(&at, &f->guest) || !take_number(&at, 65535, &port) || !port || *at)
        return bad_host(text, host_grammar, err);
    f->host = (union forward_addr){.un.sun_family = AF_UNIX};
    if ((size_t)(end - path) >= sizeof(f->host.un.sun_path))
        return bad_host(text, "the path is longer than 107 bytes; choose a shorter one", err);
    memcpy(f->host.un.sun_path, path, (size_t)(end - path));
    if (f->guest.sa.sa_family == AF_INET6)
        return bad_host(text, "a socket's connections reach the guest over IPv4; name an IPv4 address or none", err);
    f->guest.sa.sa_family = AF_INET;
    forward_set_port(&f->guest, (uint16_t)port);
    f->count = 1;
    return 0;
}

int host_forward_parse(const char *text, struct host_forward *ret, struct err *err)
{
    struct host_forward f = {0};
    const char *at = text;
    unsigned from, to, n;

    if (take(&at, "unix:")) {
        int rc = parse_unix(text, &f, err);

        if (!rc)
            *ret = f;
        return rc;
    }
    f.udp = take(&at, "udp:");
    if ((!f.udp && !take(&at, "tcp:")) || !take_addr(&at, &f.host) || !take_ports(&at, &from, &f.count) ||
        !take(&at, "-") || !take_addr(&at, &f.guest) || !take_ports(&at, &to, &n) || *at)
        return bad_host(text, host_grammar, err);
    if (!same_family(&f.host, &f.guest))
        return bad_host(text, "one address is IPv4, the other IPv6; name two of one kind", err);
    if (n != f.count)
        return bad_host(text, "the two ranges of ports differ in length; make them equal", err);
    if (!to || (!from && f.count > 1))
        return bad_host(text, "port 0 stands for any port of the host's, alone; choose another for the guest", err);
    if (f.udp && f.guest.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&f.guest.in6.sin6_addr))
        return bad_host(text, "UDP over IPv6 needs the guest's address; name it", err);
    forward_set_port(&f.host, (uint16_t)from);
    forward_set_port(&f.guest, (uint16_t)to);
    *ret = f;
    return 0;
}

int guest_forward_parse(const char *text, struct guest_forward *ret, struct err *err)
{
    struct guest_forward f = {0};
    union forward_addr addr;
    const char *at = text;
    unsigned port;
    bool ok;

    ok = take(&at, "tcp:") && take_addr(&at, &addr) && addr.sa.sa_family == AF_INET && take_number(&at, 65535, &port) &&
         port && take(&at, "-");
    if (!ok)
        return err_set(err, EINVAL, "guestfwd=\"%s\": %s", text, guest_grammar);
    f.addr = addr.in.sin_addr;
    f.port = (uint16_t)port;
    ok = take(&at, "cmd:");
    f.is_path = !ok && take(&at, "unix:");
    if ((!ok && !f.is_path) || !*at)
        return err_set(err, EINVAL, "guestfwd=\"%s\": %s", text, guest_grammar);
    if (f.is_path && strlen(at) >= sizeof(addr.un.sun_path))
        return err_set(err, EINVAL, "guestfwd=\"%s\": the path is longer than 107 bytes; choose a shorter one", text);
    f.target = at;
    *ret = f;
    return 0;
}

int net4_parse(const char *text, unsigned min, unsigned max, struct in_addr *net, struct in_addr *mask, struct err *err)
{
    char addr[INET_ADDRSTRLEN] = "";
    size_t n = strcspn(text, "/");
    const char *at = text + n;
    struct in_addr a;
    unsigned bits;

    memcpy(addr, text, min_u64(n, sizeof(addr) - 1));
    if (n >= sizeof(addr) || inet_pton(AF_INET, addr, &a) != 1 || !take(&at, "/") || !take_number(&at, 32, &bits) ||
        *at)
        return err_set(err, EINVAL, "net=\"%s\": not a network; write it as 10.0.2.0/24", text);
    if (bits < min || bits > max)
        return err_set(err, EINVAL, "net=\"%s\": must have %u to %u bits; choose another", text, min, max);
    mask->s_addr = htonl(~0u << (32 - bits));
    if (a.s_addr & ~mask->s_addr)
        return err_set(err, EINVAL, "net=\"%s\": is an address in a network; write the network with zeroes at its end",
                       text);
    *net = a;
    return 0;
}

int net6_parse(const char *text, struct in6_addr *ret, struct err *err)
{
    char addr[INET6_ADDRSTRLEN] = "";
    size_t n = strcspn(text, "/");
    struct in6_addr a;

    memcpy(addr, text, min_u64(n, sizeof(addr) - 1));
    if (n >= sizeof(addr) || inet_pton(AF_INET6, addr, &a) != 1 || strcmp(text + n, "/64"))
        return err_set(err, EINVAL, "ipv6-net=\"%s\": not a network of 64 bits; write it as fec0::/64", text);
    if (memcmp(a.s6_addr + 8, in6addr_any.s6_addr, 8) || a.s6_addr[0] == 0xff || IN6_IS_ADDR_LINKLOCAL(&a) ||
        IN6_IS_ADDR_UNSPECIFIED(&a))
        return err_set(err, EINVAL,
                       "ipv6-net=\"%s\": no network that a guest can be on; take fec0::/64 or one of "
                       "your own",
                       text);
    *ret = a;
    return 0;
}
