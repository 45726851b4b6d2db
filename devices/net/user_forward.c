/*
 * Forwards of the user network, both ways: ports and paths of the host on which libslirp listens for the guest, and
 * addresses of the guest's network that a command or a socket of the host serves.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/net/user_private.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"

enum { BACKLOG = 1024 }; /* of forwarded ports; libslirp's own is 1 */

static int forward_failed(const char *text, const struct host_forward *f, const char *where, int code, struct err *err)
{
    if (code == EADDRINUSE)
        return err_set(err, code, "hostfwd=\"%s\": %s is in use; %s", text, where,
                       f->host.sa.sa_family == AF_UNIX ? "remove it or choose another path"
                                                       : "choose another port, or 0 for any that is free");
    if (code == EACCES && f->host.sa.sa_family != AF_UNIX)
        return err_set(err, code, "hostfwd=\"%s\": %s: ports below 1024 need privilege; choose a higher one", text,
                       where);
    if (code == EADDRNOTAVAIL)
        return err_set(err, code, "hostfwd=\"%s\": %s: not an address of this host; choose one that is", text, where);
    return err_set(err, code, "hostfwd=\"%s\": %s: %s", text, where, strerror(code));
}

/* What libslirp listens on is more to our liking after this, and told. */
static void tune_listener(struct user *u, const struct host_forward *f, bool any)
{
    char from[FORWARD_TEXT_MAX], to[FORWARD_TEXT_MAX];
    const char *proto = f->udp ? "udp" : "tcp";
    union forward_addr addr = {0};
    socklen_t len = sizeof(addr);
    int fd = u->newest;

    if (fd < 0 || getsockname(fd, &addr.sa, &len))
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    u->sockets[fd].listens = !f->udp;
    if (!f->udp)
        listen(fd, BACKLOG);
    forward_addr_text(&addr, from);
    forward_addr_text(&f->guest, to);
    json_array_append_new(u->forwards, json_pack("{s:s,s:s,s:s}", "protocol", proto, "host", from, "guest", to));
    if (any)
        log_msg(LOG_WARN, "%s: %s %s is forwarded to %s", u->n.dev->id, proto, from, to);
}

static bool is_stale(const union forward_addr *a)
{
    return a->sa.sa_family == AF_UNIX && listener_is_stale(&a->un, SOCK_STREAM);
}

static int add_host_forward(struct user *u, const char *text, struct err *err)
{
    char where[FORWARD_TEXT_MAX];
    struct host_forward f;
    int rc = host_forward_parse(text, &f, err), flags;
    bool any;

    if (rc)
        return rc;
    if (f.guest.sa.sa_family == AF_INET6 ? !u->c.ipv6 : !u->c.ipv4)
        return err_set(err, EINVAL, "hostfwd=\"%s\": the guest has no %s; turn it on", text,
                       f.guest.sa.sa_family == AF_INET6 ? "IPv6" : "IPv4");
    if (f.udp && u->c.restricted)
        return err_set(err, EINVAL,
                       "hostfwd=\"%s\": a restricted guest could not answer over UDP; forward TCP, or drop restrict",
                       text);
    if (f.guest.sa.sa_family == AF_INET && !f.guest.in.sin_addr.s_addr)
        f.guest.in.sin_addr = u->c.first;
    flags = (f.udp ? SLIRP_HOSTFWD_UDP : 0) | SLIRP_HOSTFWD_V6ONLY;
    any = f.host.sa.sa_family != AF_UNIX && !forward_port(&f.host);
    if (is_stale(&f.host))
        unlink(f.host.un.sun_path);
    for (unsigned i = 0; i < f.count; i++) {
        u->newest = -1;
        if (u->lib->add_hostxfwd(u->slirp, &f.host.sa, forward_addr_len(&f.host), &f.guest.sa,
                                 forward_addr_len(&f.guest), flags) < 0)
            return forward_failed(text, &f, forward_addr_text(&f.host, where), errno, err);
        user_refill(u); /* shows us the descriptor */
        tune_listener(u, &f, any);
        if (f.udp)
            sanitiser_forwards(&u->san, forward_port(&f.guest));
        if (f.host.sa.sa_family == AF_UNIX) {
            chmod(f.host.un.sun_path, 0600);
            break;
        }
        forward_set_port(&f.host, (uint16_t)(forward_port(&f.host) + 1));
        forward_set_port(&f.guest, (uint16_t)(forward_port(&f.guest) + 1));
    }
    return 0;
}

static int add_guest_forward(struct user *u, size_t i, struct err *err)
{
    const char *text = u->c.guestfwd.v[i];
    struct guest_forward f, other;
    int rc = guest_forward_parse(text, &f, err);

    if (rc)
        return rc;
    if (!u->c.ipv4)
        return err_set(err, EINVAL, "guestfwd=\"%s\": the guest has no IPv4; turn it on", text);
    while (i--) /* libslirp would take the first */
        if (!guest_forward_parse(u->c.guestfwd.v[i], &other, err) && other.addr.s_addr == f.addr.s_addr &&
            other.port == f.port)
            return err_set(err, EINVAL, "guestfwd=\"%s\": this port is there twice; choose another", text);
    if ((f.is_path ? u->lib->add_unix : u->lib->add_exec)(u->slirp, f.target, &f.addr, f.port) < 0)
        return err_set(err, EINVAL,
                       "guestfwd=\"%s\": the address must be of the guest's network, and neither the host's nor the "
                       "DNS server's; choose another",
                       text);
    return 0;
}

void user_remove_sockets(struct user *u)
{
    struct host_forward f;
    struct err err;

    for (size_t i = 0; i < u->c.hostfwd.n; i++)
        if (!host_forward_parse(u->c.hostfwd.v[i], &f, &err) && is_stale(&f.host))
            unlink(f.host.un.sun_path);
}

int user_open_forwards(struct user *u, struct err *err)
{
    int rc = 0;

    for (size_t i = 0; i < u->c.hostfwd.n && !rc; i++)
        rc = add_host_forward(u, u->c.hostfwd.v[i], err);
    for (size_t i = 0; i < u->c.guestfwd.n && !rc; i++)
        rc = add_guest_forward(u, i, err);
    return rc;
}
