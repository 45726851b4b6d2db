#include "devices/char/chardev.h"

#include "devices/char/backend.h"
#include "vmm/base/cleanup.h"

static const struct chardev_class *const classes[] = {
    &chardev_stdio, &chardev_null, &chardev_file, &chardev_pty, &chardev_unix,
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

/* Finds the class of "name" or "name:arg". */
static int parse(const char *spec, const struct chardev_class **ret, const char **arg, struct err *err)
{
    const char *colon = strchrnul(spec, ':');
    size_t n = (size_t)(colon - spec);

    for (size_t i = 0; i < array_len(classes); i++) {
        const struct chardev_class *cls = classes[i];

        if (strlen(cls->name) != n || memcmp(cls->name, spec, n))
            continue;
        *arg = *colon ? colon + 1 : NULL;
        if (*arg && !cls->arg)
            return err_set(err, EINVAL, "\"%s\": nothing follows \"%s\"", spec, cls->name);
        if (!*arg ? cls->arg && cls->arg[0] != '[' : !**arg)
            return err_set(err, EINVAL, "\"%s\" lacks its path; write %s:PATH", spec, cls->name);
        *ret = cls;
        return 0;
    }
    return err_set(err, EINVAL, "\"%s\" is no place for a console; there is %s", spec, CHARDEV_ARG);
}

int chardev_open(const char *spec, struct device *dev, struct chardev **ret, struct err *err)
{
    const struct chardev_class *cls;
    const char *arg;
    struct chardev *c;
    int r = parse(spec, &cls, &arg, err);

    if (r)
        return r;
    c = xcalloc(1, cls->size);
    *c = (struct chardev){
        .cls = cls,
        .dev = dev,
        .tell = {.lane = &dev->lane, .clk = CLK_HOST, .fire = tell},
        .connected = true,
    };
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
