/* What comes before the root: the kernel's modules, the ports by which bothy is heard, the network. */
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/time_types.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include "firmware/init/init.h"

enum {
    PORTS_WAIT_MS = 20000, /* drivers are there, so that they find the device is a matter of moments */
    LOOK_AGAIN_MS = 10,    /* where the kernel sends no events */
};

static void mount_early(const char *type, const char *path, const char *what)
{
    long r;

    SYS(mkdir, path, 0755);
    r = SYS(mount, type, path, type, 0, NULL);
    if (r < 0 && r != -16 /* EBUSY: the kernel has done so itself */)
        fail(r, what, NULL);
}

void load_modules(const struct orders *o)
{
    mount_early("devtmpfs", "/dev", "mount /dev (CONFIG_DEVTMPFS)");
    mount_early("sysfs", "/sys", "mount /sys (CONFIG_SYSFS)");
    for (unsigned i = 0; i < o->nmodules; i++) {
        struct line name = {.n = 0};
        long fd, r;

        line_add(&name, "/" INIT_FOLDER "/");
        line_number(&name, i);
        line_add(&name, ".ko");
        r = fd = SYS(open, name.text, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            r = SYS(finit_module, fd, "", 0);
        if (r < 0 && r != -17 /* EEXIST: it is built in, or loaded already */)
            fail(r, "load the kernel's module ", o->modules[i]);
        SYS(close, fd);
        SYS(unlink, name.text); /* its memory is the guest's again */
    }
}

struct linux_dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

#define PORTS_FOLDER "/sys/class/virtio-ports"

/* Opens the device if the name that bothy gave the port is one of ours. */
static void look_at_port(const char *device)
{
    static const char names[][16] = INIT_PORT_NAMES;
    _Static_assert(array_len(names) == INIT_PORTS, "each has a name");
    char path[128], name[64] = "";
    long fd, n;

    if (!path_join(PORTS_FOLDER, sizeof(PORTS_FOLDER) - 1, device, path, sizeof(path)) ||
        !path_join(path, text_length(path), "name", path, sizeof(path)))
        return;
    fd = SYS(open, path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : SYS(read, fd, name, sizeof(name) - 1);
    if (fd >= 0)
        SYS(close, fd);
    if (n <= 0 || name[n - 1] != '\n')
        return;
    name[n - 1] = 0;
    path_join("/dev", 4, device, path, sizeof(path));
    for (unsigned i = 0; i < INIT_PORTS; i++)
        if (ports[i] < 0 && text_equal(name, names[i]))
            ports[i] = (int)SYS(open, path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static bool all_ports(void)
{
    char buf[1024];
    long n, fd = SYS(open, PORTS_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    while (fd >= 0 && (n = SYS(getdents64, fd, buf, sizeof(buf))) > 0)
        for (long at = 0; at < n;) {
            const struct linux_dirent64 *d = (const void *)(buf + at);

            if (d->name[0] == 'v')
                look_at_port(d->name);
            at += d->reclen;
        }
    if (fd >= 0)
        SYS(close, fd);
    for (unsigned i = 0; i < INIT_PORTS; i++)
        if (ports[i] < 0)
            return false;
    return true;
}

/* Ports and their names come one by one, each with an event. */
static void find_ports(int events)
{
    int waited = 0;

    while (!all_ports()) {
        struct pollfd e = {.fd = events, .events = POLLIN};
        char text[4096];
        long r = SYS(poll, &e, 1, events < 0 ? LOOK_AGAIN_MS : PORTS_WAIT_MS);

        waited += r ? 0 : events < 0 ? LOOK_AGAIN_MS : PORTS_WAIT_MS;
        if (waited >= PORTS_WAIT_MS)
            fail(0, "find the ports of its virtio console (CONFIG_VIRTIO_CONSOLE, CONFIG_VIRTIO_PCI or _MMIO)", NULL);
        while (events >= 0 && SYS(recvfrom, events, text, sizeof(text), MSG_DONTWAIT) > 0)
            ; /* which ones there were does not matter */
    }
}

/* A port can be written to when the host listens; before that it would read as ended. */
static void await_host(void)
{
    for (unsigned i = 0; i < INIT_PORTS; i++) {
        struct pollfd p = {.fd = ports[i], .events = POLLOUT};

        do {
            /* The kernel reports POLLHUP until then, which nobody can ask it to leave out. */
            struct __kernel_timespec moment = {.tv_nsec = 1000000};

            if (SYS(poll, &p, 1, -1) > 0 && !(p.revents & POLLOUT))
                SYS(nanosleep, &moment, NULL);
        } while (!(p.revents & POLLOUT));
    }
}

void open_ports(void)
{
    struct sockaddr_nl everybody = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int events = (int)SYS(socket, AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

    if (SYS(access, "/sys/bus/virtio/drivers/virtio_console", 0) < 0)
        fail(0, "talk to bothy: its kernel has no virtio console (CONFIG_VIRTIO_CONSOLE)", NULL);
    if (events >= 0 && SYS(bind, events, &everybody, sizeof(everybody)) < 0) {
        SYS(close, events);
        events = -1;
    }
    find_ports(events);
    if (events >= 0)
        SYS(close, events);
    await_host();
}

static void set_name(struct ifreq *r, const char *name)
{
    *r = (struct ifreq){0};
    memcpy(r->ifr_name, name, text_length(name));
}

static struct sockaddr inet_address(uint32_t address)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    struct sockaddr ret;

    memcpy(&ret, &a, sizeof(ret));
    return ret;
}

static long bring_up(int fd, const char *name)
{
    struct ifreq r;

    set_name(&r, name);
    r.ifr_flags = IFF_UP;
    return SYS(ioctl, fd, SIOCSIFFLAGS, &r);
}

static long set_address(int fd, const char *name, unsigned request, uint32_t address)
{
    struct ifreq r;

    set_name(&r, name);
    r.ifr_addr = inet_address(address);
    return SYS(ioctl, fd, request, &r);
}

/* The root is a copy, so its own file may go. */
static void set_resolver(const char *address)
{
    static const char path[] = "/etc/resolv.conf";
    struct line l = {.n = 0};
    long fd;

    SYS(unlink, path);
    fd = SYS(open, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    line_add(&l, "nameserver ");
    line_add(&l, address);
    line_add(&l, "\n");
    SYS(write, fd, l.text, l.n);
    SYS(close, fd);
}

/* Where a kernel has no networks, tests that want one say so themselves; an ordered one must be there. */
void start_network(const struct orders *o)
{
    int fd = (int)SYS(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dst = inet_address(0), .rt_genmask = inet_address(0)};
    long r = fd;

    if (fd >= 0)
        bring_up(fd, "lo");
    if (o->net) {
        route.rt_gateway = inet_address(o->gateway);
        if (r >= 0)
            r = set_address(fd, "eth0", SIOCSIFADDR, o->address);
        if (r >= 0)
            r = set_address(fd, "eth0", SIOCSIFNETMASK, o->mask);
        if (r >= 0)
            r = bring_up(fd, "eth0");
        if (r >= 0)
            r = SYS(ioctl, fd, SIOCADDRT, &route);
        if (r < 0)
            fail(r, "set up the network (CONFIG_VIRTIO_NET, CONFIG_INET)", NULL);
        if (o->dns)
            set_resolver(o->dns);
    }
    if (fd >= 0)
        SYS(close, fd);
}
