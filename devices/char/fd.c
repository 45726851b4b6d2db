/* "fd:N": a socket that bothy was started with, for who starts it. */
#include <fcntl.h>
#include <sys/socket.h>

#include "devices/char/peer.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/opt.h"

struct inherited {
    struct chardev c;
    struct peer peer;
    int fd; /* -1: not ours */
};

static int fd_open(struct chardev *c, const char *arg, struct err *err)
{
    struct inherited *i = container_of(c, struct inherited, c);
    int type, flags;
    char *end;
    long fd;

    i->fd = -1;
    errno = 0;
    fd = strtol(arg, &end, 10);
    if (errno || *end || end == arg || fd <= STDERR_FILENO || fd > INT32_MAX)
        return err_set(err, EINVAL, "\"fd:%s\": write the number of a socket above 2 that bothy was started with", arg);
    if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof(type)}) || type != SOCK_STREAM)
        return err_set(err, EBADF, "\"fd:%s\": bothy was started with no stream socket of that number", arg);
    flags = fcntl((int)fd, F_GETFD);
    if (flags & FD_CLOEXEC) /* one of bothy's own, or taken already */
        return err_set(err, EBUSY, "\"fd:%s\": that descriptor is in use", arg);
    if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) || fcntl((int)fd, F_SETFL, O_NONBLOCK))
        return err_set(err, errno, "\"fd:%s\": %s", arg, strerror(errno));
    i->fd = (int)fd;
    peer_init(&i->peer, c, NULL);
    peer_connect(&i->peer, i->fd);
    return 0;
}

static void fd_close(struct chardev *c)
{
    struct inherited *i = container_of(c, struct inherited, c);

    peer_fini(&i->peer);
    if (i->fd >= 0)
        close(i->fd);
}

static ssize_t fd_read(struct chardev *c, void *buf, size_t n)
{
    return peer_read(&container_of(c, struct inherited, c)->peer, buf, n);
}

static size_t fd_write(struct chardev *c, const void *buf, size_t n)
{
    return peer_write(&container_of(c, struct inherited, c)->peer, buf, n);
}

const struct chardev_class chardev_fd = {
    .name = "fd",
    .arg = "N",
    .size = sizeof(struct inherited),
    .open = fd_open,
    .close = fd_close,
    .read = fd_read,
    .write = fd_write,
};
