/* "file:PATH": output to a file that is made anew, or to a pipe or device of that name.  Nothing is read. */
#include <fcntl.h>

#include "devices/char/sink.h"

struct file {
    struct chardev c;
    struct sink out;
};

static int file_open(struct chardev *c, const char *path, struct err *err)
{
    struct file *f = container_of(c, struct file, c);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);

    f->out.fd = -1;
    if (fd < 0 && errno == ENXIO)
        return err_set(err, ENXIO, "output \"%s\": nobody reads this pipe; start its reader first", path);
    if (fd < 0)
        return err_file(err, errno, "output", path);
    sink_init(&f->out, c, fd);
    return 0;
}

static void file_close(struct chardev *c)
{
    sink_fini(&container_of(c, struct file, c)->out);
}

static size_t file_write(struct chardev *c, const void *buf, size_t n)
{
    return sink_write(&container_of(c, struct file, c)->out, buf, n);
}

const struct chardev_class chardev_file = {
    .name = "file",
    .arg = "PATH",
    .size = sizeof(struct file),
    .open = file_open,
    .close = file_close,
    .write = file_write,
};
