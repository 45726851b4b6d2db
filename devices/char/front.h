/* A front end for the tests of character backends: it has a loop, records what it is told, and reads all it can. */
#pragma once
#include "devices/char/chardev.h"
#include "vmm/base/test.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct front {
    struct device dev;
    struct device_env env;
    struct loop *loop;
    struct chardev *c;
    struct chardev_user user;
    bool deaf;     /* does not read */
    bool ended;    /* the last read said -EPIPE */
    char in[4096]; /* all that was read */
    size_t in_len;
    unsigned writable, resized, connected; /* calls */
    bool is_connected;
    uint16_t cols, rows;
    enum request request; /* the last one */
    unsigned requests;
};

static inline void front_readable(struct chardev_user *u)
{
    struct front *f = container_of(u, struct front, user);
    ssize_t n = 1;

    while (!f->deaf && n > 0 && f->in_len < sizeof(f->in)) {
        n = chardev_read(f->c, f->in + f->in_len, sizeof(f->in) - f->in_len);
        if (n > 0)
            f->in_len += (size_t)n;
    }
    f->ended = n == -EPIPE;
}

static inline void front_writable(struct chardev_user *u)
{
    container_of(u, struct front, user)->writable++;
}

static inline void front_resized(struct chardev_user *u, uint16_t cols, uint16_t rows)
{
    struct front *f = container_of(u, struct front, user);

    f->resized++;
    f->cols = cols;
    f->rows = rows;
}

static inline void front_connected(struct chardev_user *u, bool yes)
{
    struct front *f = container_of(u, struct front, user);

    f->connected++;
    f->is_connected = yes;
}

static inline void front_request(struct device_env *env, enum request r, int code)
{
    struct front *f = container_of(env, struct front, env);

    (void)code;
    f->request = r;
    f->requests++;
}

static inline void front_init(struct front *f, const char *id)
{
    struct err err;

    *f = (struct front){
        .env.request = front_request,
        .user = {front_readable, front_writable, front_resized, front_connected},
    };
    assert_int_equal(loop_create("test", &f->loop, &err), 0);
    f->dev.env = &f->env;
    strcpy(f->dev.id, id);
    lane_init(&f->dev.lane, f->loop);
}

static inline void front_fini(struct front *f)
{
    chardev_close(f->c);
    lane_fini(&f->dev.lane);
    loop_destroy(f->loop);
}

/* Opened and attached. */
static inline void front_open(struct front *f, const char *spec)
{
    struct err err = {0};

    front_init(f, "com1");
    if (chardev_open(spec, &f->dev, &f->c, &err))
        fail_msg("%s", err.msg);
    chardev_attach(f->c, &f->user);
}

/* Runs the loop until `condition`; one that never comes true is ended by the test's time limit. */
#define front_until(f, condition)       \
    do {                                \
        while (!(condition))            \
            loop_once((f)->loop, 1000); \
    } while (0)

/* Runs the loop until nothing is left to do. */
static inline void front_settle(struct front *f)
{
    for (int i = 0; i < 8; i++)
        loop_once(f->loop, 0);
}

/* A spec whose path lies in a directory of the test's own. */
struct test_dir {
    char dir[32];
    char path[48]; /* DIR/NAME */
    char spec[64]; /* KIND:DIR/NAME */
};

static inline void test_dir_init(struct test_dir *d, const char *kind)
{
    strcpy(d->dir, "/tmp/bothy-char.XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    snprintf(d->path, sizeof(d->path), "%s/it", d->dir);
    snprintf(d->spec, sizeof(d->spec), "%s:%s", kind, d->path);
}

static inline void test_dir_fini(struct test_dir *d)
{
    unlink(d->path);
    assert_int_equal(rmdir(d->dir), 0);
}

/* A client of the "unix" backend. */
static inline int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static inline void assert_reads(int fd, const char *text)
{
    char buf[128];
    size_t n = 0;

    while (n < strlen(text)) {
        ssize_t r = read(fd, buf + n, strlen(text) - n);

        assert_true(r > 0);
        n += (size_t)r;
    }
    assert_memory_equal(buf, text, n);
}
