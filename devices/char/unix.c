/* "unix:PATH": a listening socket that only its owner can use, for one client at a time. */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "devices/char/peer.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

struct unix_socket {
    struct chardev c;
    struct peer peer;
    int fd;
    struct watch client;
    struct timer retry; /* when the host had no descriptor left to accept with */
    struct sockaddr_un addr;
    struct stat made; /* what we may remove; st_ino is 0 as long as there is nothing */
};

static void client_gone(struct peer *p)
{
    close(p->fd);
}

static void accept_client(struct watch *w, uint32_t revents)
{
    static const char busy[] = "bothy: another client is connected\r\n";
    struct unix_socket *u = container_of(w, struct unix_socket, client);
    int fd = accept4(u->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)revents;
    if (fd >= 0 && !peer_listens(&u->peer)) {
        peer_connect(&u->peer, fd);
    } else if (fd >= 0) {
        if (write(fd, busy, sizeof(busy) - 1) < 0)
            log_msg(LOG_DEBUG, "%s: second client left at once", u->c.dev->id);
        close(fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_msg(LOG_WARN, "%s: accept a client: %s", u->c.dev->id, strerror(errno));
        watch_set(w, 0);
        timer_arm(&u->retry, loop_now(u->c.dev->lane.loop, CLK_HOST) + NS_PER_SEC);
    }
}

static void retry(struct timer *t)
{
    watch_set(&container_of(t, struct unix_socket, retry)->client, EPOLLIN);
}

static int bind_private(struct unix_socket *u)
{
    /* The socket's own mode is what bind() makes the name with, so nobody else can connect even for a moment. */
    if (fchmod(u->fd, 0600) || bind(u->fd, (struct sockaddr *)&u->addr, sizeof(u->addr)))
        return -errno;
    return lstat(u->addr.sun_path, &u->made) ? -errno : 0;
}

/* Did a process of ours leave it behind that ended without tidying up? */
static bool is_stale(const struct sockaddr_un *addr)
{
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct stat st;

    return fd >= 0 && !lstat(addr->sun_path, &st) && S_ISSOCK(st.st_mode) && st.st_uid == geteuid() &&
           connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) && errno == ECONNREFUSED;
}

static int listen_on(struct unix_socket *u, const char *path, struct err *err)
{
    int r;

    if (strlen(path) >= sizeof(u->addr.sun_path))
        return err_set(err, ENAMETOOLONG, "socket \"%s\": its path is longer than %zu bytes; choose a shorter one",
                       path, sizeof(u->addr.sun_path) - 1);
    u->addr.sun_family = AF_UNIX;
    strcpy(u->addr.sun_path, path);
    u->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (u->fd < 0)
        return err_file(err, errno, "socket", path);
    r = bind_private(u);
    if (r == -EADDRINUSE && is_stale(&u->addr) && !unlink(path))
        r = bind_private(u);
    if (r == -EADDRINUSE)
        return err_set(err, EADDRINUSE, "socket \"%s\" exists already; remove it or choose another path", path);
    if (!r && listen(u->fd, 1))
        r = -errno;
    return r ? err_file(err, -r, "socket", path) : 0;
}

static int unix_open(struct chardev *c, const char *path, struct err *err)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);
    int r;

    u->fd = -1;
    r = listen_on(u, path, err);
    if (r)
        return r;
    peer_init(&u->peer, c, client_gone);
    u->client = (struct watch){.lane = &c->dev->lane, .fd = u->fd, .events = EPOLLIN, .ready = accept_client};
    u->retry = (struct timer){.lane = &c->dev->lane, .clk = CLK_HOST, .fire = retry};
    watch_add(&u->client);
    return 0;
}

static void unix_close(struct chardev *c)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);
    struct stat now;

    watch_del(&u->client);
    timer_disarm(&u->retry);
    peer_fini(&u->peer);
    if (u->made.st_ino && !lstat(u->addr.sun_path, &now) && now.st_ino == u->made.st_ino &&
        now.st_dev == u->made.st_dev)
        unlink(u->addr.sun_path);
    if (u->fd >= 0)
        close(u->fd);
}

static ssize_t unix_read(struct chardev *c, void *buf, size_t n)
{
    return peer_read(&container_of(c, struct unix_socket, c)->peer, buf, n);
}

static size_t unix_write(struct chardev *c, const void *buf, size_t n)
{
    return peer_write(&container_of(c, struct unix_socket, c)->peer, buf, n);
}

const struct chardev_class chardev_unix = {
    .name = "unix",
    .arg = "PATH",
    .size = sizeof(struct unix_socket),
    .open = unix_open,
    .close = unix_close,
    .read = unix_read,
    .write = unix_write,
};
