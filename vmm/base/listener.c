#include "vmm/base/listener.h"

#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

static int bind_private(struct listener *l)
{
    /* The socket's own mode is what bind() makes the name with, so nobody else can connect even for a moment. */
    if (fchmod(l->fd, 0600) || bind(l->fd, (struct sockaddr *)&l->addr, sizeof(l->addr)))
        return -errno;
    return lstat(l->addr.sun_path, &l->made) ? -errno : 0;
}

bool listener_is_stale(const struct sockaddr_un *addr, int type)
{
    cleanup_fd int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct stat st;

    return fd >= 0 && !lstat(addr->sun_path, &st) && S_ISSOCK(st.st_mode) && st.st_uid == geteuid() &&
           connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) && errno == ECONNREFUSED;
}

static int listen_on(struct listener *l, int type, const char *path, int backlog, struct err *err)
{
    int r;

    if (strlen(path) >= sizeof(l->addr.sun_path))
        return err_set(err, ENAMETOOLONG, "socket \"%s\": its path is longer than %zu bytes; choose a shorter one",
                       path, sizeof(l->addr.sun_path) - 1);
    strcpy(l->addr.sun_path, path);
    l->fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return err_file(err, errno, "socket", path);
    r = bind_private(l);
    if (r == -EADDRINUSE && listener_is_stale(&l->addr, type) && !unlink(path))
        r = bind_private(l);
    if (r == -EADDRINUSE)
        return err_set(err, EADDRINUSE, "socket \"%s\" exists already; remove it or choose another path", path);
    if (!r && type != SOCK_DGRAM && listen(l->fd, backlog))
        r = -errno;
    return r ? err_file(err, -r, "socket", path) : 0;
}

int listener_open(struct listener *l, int type, const char *path, int backlog, struct err *err)
{
    int r;

    *l = (struct listener){.fd = -1, .addr.sun_family = AF_UNIX};
    r = listen_on(l, type, path, backlog, err);
    if (r)
        listener_close(l);
    return r;
}

void listener_close(struct listener *l)
{
    struct stat now;

    if (l->made.st_ino && !lstat(l->addr.sun_path, &now) && now.st_ino == l->made.st_ino &&
        now.st_dev == l->made.st_dev)
        unlink(l->addr.sun_path);
    if (l->fd >= 0)
        close(l->fd);
    *l = (struct listener){.fd = -1};
}
