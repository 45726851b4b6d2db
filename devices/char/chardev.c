#include "devices/char/chardev.h"

#include "devices/char/backend.h"
#include "vmm/base/cleanup.h"

static const struct chardev_class *const classes[] = {
    &chardev_stdio, &chardev_null, &chardev_file, &chardev_pty, &chardev_unix, &chardev_fd,
};

static size_t null_write(struct chardev *c, const void *buf, size_t n)
{
    (void)c;
    (void)buf;
    return n;
}

const struct chardev_class chardev_null = {
    .name = "null",
    .size = sizeof(struct chardev),
    .write = null_write,
};

static void tell(struct timer *t)
{
    struct chardev *c = container_of(t, struct chardev, tell);
    unsigned events = c->events;

    c->events = 0;
    if (events & CHARDEV_RESIZED && c->user->resized)
        c->user->resized(c->user, c->cols, c->rows);
    if (events & CHARDEV_CONNECTED && c->user->connected)
        c->user->connected(c->user, c->connected);
    if (events & CHARDEV_READABLE && c->user->readable)
        c->user->readable(c->user);
    if (events & CHARDEV_WRITABLE)
        c->user->writable(c->user);
}

void chardev_tell(struct chardev *c, unsigned events)
{
    c->events |= events;
    if (c->user)
        timer_arm(&c->tell, 0);
}

static const struct chardev_class *find(const char *name, size_t n)
{
    for (size_t i = 0; i < array_len(classes); i++)
        if (strlen(classes[i]->name) == n && !memcmp(classes[i]->name, name, n))
            return classes[i];
    return NULL;
}

int chardev_open(const char *spec, struct device *dev, struct chardev **ret, struct err *err)
{
    const char *colon = strchrnul(spec, ':'), *arg = *colon ? colon + 1 : NULL;
    const struct chardev_class *cls = find(spec, (size_t)(colon - spec));
    struct chardev *c;
    int r;

    if (!cls)
        return err_set(err, EINVAL, "\"%s\" is no place for a console; there is %s", spec, CHARDEV_ARG);
    if (arg && !cls->arg)
        return err_set(err, EINVAL, "\"%s\": nothing follows \"%s\"", spec, cls->name);
    if (arg ? !*arg : cls->arg && cls->arg[0] != '[')
        return err_set(err, EINVAL, "\"%s\" is not whole; write %s:%s", spec, cls->name,
                       cls->arg[0] == '[' ? "PATH" : cls->arg);
    c = xcalloc(1, cls->size);
    c->cls = cls;
    c->dev = dev;
    c->tell = (struct timer){.lane = &dev->lane, .clk = CLK_HOST, .fire = tell};
    c->connected = true;
    r = cls->open ? cls->open(c, arg, err) : 0;
    if (r)
        chardev_close(c);
    else
        *ret = c;
    return r;
}

void chardev_close(struct chardev *c)
{
    if (!c)
        return;
    if (c->cls->close)
        c->cls->close(c);
    timer_disarm(&c->tell);
    free(c);
}

void chardev_attach(struct chardev *c, struct chardev_user *u)
{
    assert(!c->user);
    c->user = u;
    chardev_tell(c, CHARDEV_READABLE | CHARDEV_CONNECTED | (c->cols ? CHARDEV_RESIZED : 0));
}

ssize_t chardev_read(struct chardev *c, void *buf, size_t n)
{
    return c->cls->read ? c->cls->read(c, buf, n) : -EPIPE;
}

size_t chardev_write(struct chardev *c, const void *buf, size_t n)
{
    return c->cls->write(c, buf, n);
}
