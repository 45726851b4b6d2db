/*
 * "pty" or "pty:LINK": a pseudo-terminal for programs that want a serial port, such as screen or minicom, maybe with a
 * symbolic link to it that is removed at the end.  The kernel says when its other end is closed, but not when somebody
 * opens it: that comes from inotify.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <termios.h>

#include "devices/char/peer.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

struct pty {
    struct chardev c;
    struct peer peer;
    int master, notify;
    struct watch opened;
    char name[64]; /* /dev/pts/N */
    char *link;    /* ours, or NULL */
};

static void look(struct pty *p)
{
    struct pollfd fd = {.fd = p->master};

    if (!peer_listens(&p->peer) && poll(&fd, 1, 0) >= 0 && !(fd.revents & POLLHUP))
        peer_connect(&p->peer, p->master);
}

static void opened(struct watch *w, uint32_t revents)
{
    struct pty *p = container_of(w, struct pty, opened);
    char events[16 * sizeof(struct inotify_event)];

    (void)revents;
    while (read(p->notify, events, sizeof(events)) > 0)
        ; /* which ones there were does not matter */
    look(p);
}

/* No echo, no line editing; and as the other end has been open once, poll() says that it is closed. */
static int make_raw(const char *name)
{
    cleanup_fd int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios t;

    if (fd < 0 || tcgetattr(fd, &t))
        return -errno;
    cfmakeraw(&t);
    return tcsetattr(fd, TCSANOW, &t) ? -errno : 0;
}

static int make(struct pty *p)
{
    p->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (p->master < 0 || grantpt(p->master) || unlockpt(p->master) || ptsname_r(p->master, p->name, sizeof(p->name)))
        return -errno;
    return make_raw(p->name);
}

static int pty_open(struct chardev *c, const char *link, struct err *err)
{
    struct pty *p = container_of(c, struct pty, c);
    int r;

    p->notify = -1;
    peer_init(&p->peer, c, NULL);
    r = make(p);
    if (r)
        return err_set(err, -r, "pseudo-terminal: %s", strerror(-r));
    p->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (p->notify < 0 || inotify_add_watch(p->notify, p->name, IN_OPEN) < 0)
        return err_set(err, errno, "pseudo-terminal: inotify: %s; raise fs.inotify.max_user_instances",
                       strerror(errno));
    if (link && symlink(p->name, link))
        return err_file(err, errno, "link", link);
    if (link && !(p->link = strdup(link)))
        abort();
    p->opened = (struct watch){.lane = &c->dev->lane, .fd = p->notify, .events = EPOLLIN, .ready = opened};
    watch_add(&p->opened);
    /* Without a link this line is the only way to find it, so it is shown by default. */
    log_msg(link ? LOG_INFO : LOG_WARN, "%s is on %s", c->dev->id, p->name);
    return 0;
}

static void pty_close(struct chardev *c)
{
    struct pty *p = container_of(c, struct pty, c);
    char target[sizeof(p->name)];
    ssize_t n;

    watch_del(&p->opened);
    peer_fini(&p->peer);
    n = p->link ? readlink(p->link, target, sizeof(target)) : -1;
    if (n >= 0 && (size_t)n == strlen(p->name) && !memcmp(target, p->name, (size_t)n))
        unlink(p->link);
    free(p->link);
    if (p->notify >= 0)
        close(p->notify);
    if (p->master >= 0)
        close(p->master);
}

static ssize_t pty_read(struct chardev *c, void *buf, size_t n)
{
    return peer_read(&container_of(c, struct pty, c)->peer, buf, n);
}

static size_t pty_write(struct chardev *c, const void *buf, size_t n)
{
    return peer_write(&container_of(c, struct pty, c)->peer, buf, n);
}

const struct chardev_class chardev_pty = {
    .name = "pty",
    .arg = "[LINK]",
    .size = sizeof(struct pty),
    .open = pty_open,
    .close = pty_close,
    .read = pty_read,
    .write = pty_write,
};
