#include "devices/testing/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

static struct test_env *test_env_of(struct device_env *env)
{
    return container_of(env, struct test_env, env);
}

void test_env_ends(const char *what, const struct err *err)
{
    fprintf(stderr, "%s: %s\n", what, err->msg);
    abort();
}

static void line_set(void *far, unsigned pin, bool level)
{
    struct test_env *t = far;

    pthread_mutex_lock(&t->lock);
    t->lines[pin].rises += level && !t->lines[pin].level;
    t->lines[pin].level = level;
    pthread_mutex_unlock(&t->lock);
}

static struct irq line(struct device_env *env, unsigned gsi)
{
    assert(gsi < TEST_LINES);
    return irq_or_input(&test_env_of(env)->ors[gsi]);
}

static void msi_send(struct msi_sink *s, struct msi m)
{
    struct test_env *t = container_of(s, struct test_env, sink);

    pthread_mutex_lock(&t->lock);
    if (t->nmsis < TEST_MSIS)
        t->msis[t->nmsis] = m;
    t->nmsis++;
    pthread_mutex_unlock(&t->lock);
}

static int msi_wire(struct msi_sink *s, int fd, struct msi m)
{
    struct test_env *t = container_of(s, struct test_env, sink);
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    if (t->nwires == TEST_WIRES)
        rc = -ENOSPC;
    else
        t->wires[t->nwires++] = (struct test_wire){fd, m};
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* As with doorbells, it must be there. */
static void msi_unwire(struct msi_sink *s, int fd)
{
    struct test_env *t = container_of(s, struct test_env, sink);
    unsigned i = 0;

    pthread_mutex_lock(&t->lock);
    while (i < t->nwires && t->wires[i].fd != fd)
        i++;
    assert(i < t->nwires);
    t->wires[i] = t->wires[--t->nwires];
    pthread_mutex_unlock(&t->lock);
}

static int doorbell_add(struct device_env *env, const struct doorbell *d)
{
    struct test_env *t = test_env_of(env);
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    if (t->no_doorbells || t->ndoorbells == TEST_DOORBELLS)
        rc = -ENOSYS;
    else
        t->doorbells[t->ndoorbells++] = *d;
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* What is taken away must be there, so that a device that forgets or repeats it is found out. */
static void doorbell_del(struct device_env *env, const struct doorbell *d)
{
    struct test_env *t = test_env_of(env);
    unsigned i = 0;

    pthread_mutex_lock(&t->lock);
    while (i < t->ndoorbells && (t->doorbells[i].region != d->region || t->doorbells[i].off != d->off ||
                                 t->doorbells[i].value != d->value || t->doorbells[i].fd != d->fd))
        i++;
    assert(i < t->ndoorbells);
    t->doorbells[i] = t->doorbells[--t->ndoorbells];
    pthread_mutex_unlock(&t->lock);
}

static void request(struct device_env *env, enum request r, int code)
{
    struct test_env *t = test_env_of(env);

    pthread_mutex_lock(&t->lock);
    t->requests[r]++;
    t->code = code;
    pthread_mutex_unlock(&t->lock);
}

static void pause_machine(struct device_env *env, const char *why)
{
    struct test_env *t = test_env_of(env);

    pthread_mutex_lock(&t->lock);
    t->requests[REQ_PAUSE]++;
    snprintf(t->why, sizeof(t->why), "%s", why);
    pthread_mutex_unlock(&t->lock);
}

void test_env_init(struct test_env *t, uint64_t ram)
{
    struct err err;

    *t = (struct test_env){.sink = {msi_send, msi_wire, msi_unwire}};
    pthread_mutex_init(&t->lock, NULL);
    t->env.pio = bus_create("pio", 65536);
    t->env.mmio = bus_create("mmio", 1ull << 46);
    t->env.msi = &t->sink;
    t->env.line = line;
    t->env.doorbell_add = doorbell_add;
    t->env.doorbell_del = doorbell_del;
    t->env.request = request;
    t->env.pause = pause_machine;
    for (unsigned i = 0; i < TEST_LINES; i++)
        irq_or_init(&t->ors[i], (struct irq){.set = line_set, .far = t, .pin = i});
    if (gmem_create(ram, GMEM_ANON, 0, &t->env.mem, &err) || loop_create("test", &t->env.loop, &err) ||
        loop_create("test-io", &t->io_loop, &err))
        test_env_ends("test_env_init", &err);
}

void test_env_fini(struct test_env *t)
{
    assert(!t->ndoorbells && !t->nwires);
    loop_destroy(t->io_loop);
    loop_destroy(t->env.loop);
    bus_destroy(t->env.mmio);
    bus_destroy(t->env.pio);
    gmem_destroy(t->env.mem);
    pthread_mutex_destroy(&t->lock);
}

struct device *test_env_device(struct test_env *t, const char *cls, const char *id, const char *options)
{
    const struct device_class *c = device_class_find(cls);
    struct err err = {.msg = "no such class"};
    struct device *d;

    if (!c || device_create(c, id, options, &d, &err) || device_init(d, &t->env, t->env.loop, &err))
        test_env_ends(cls, &err);
    device_reset(d);
    device_settle(d);
    return d;
}

uint64_t test_env_read(struct test_env *t, struct bus *bus, uint64_t addr, unsigned size)
{
    uint64_t v = 0;

    (void)t;
    bus_access(bus, addr, &v, size, false);
    return le64toh(v);
}

const char *test_env_options(const struct device_class *cls, int image, char *buf, size_t n)
{
    static const struct {
        const char *cls, *options; /* %d is the image's descriptor */
    } needs[] = {
        {"virtio-balloon", "stats=3600000"},          {"virtio-blk", "path=/proc/self/fd/%d"},
        {"virtio-console", "port=agent:null"},        {"virtio-fs", "path=.,tag=test"},
        {"virtio-net", "null,mac=52:54:00:12:34:56"},
    };

    *buf = 0;
    for (size_t i = 0; i < array_len(needs); i++)
        if (!strcmp(needs[i].cls, cls->name))
            snprintf(buf, n, needs[i].options, image);
    return buf;
}

static bool meets(const struct doorbell *d, const struct bus *bus, uint64_t addr, uint64_t val, unsigned size)
{
    return d->region->bus == bus && d->region->base + d->off == addr && (!d->len || d->len == size) &&
           (!d->match || d->value == mask_bytes(val, size));
}

void test_env_write(struct test_env *t, struct bus *bus, uint64_t addr, uint64_t val, unsigned size)
{
    for (unsigned i = 0; i < t->ndoorbells; i++)
        if (meets(&t->doorbells[i], bus, addr, val, size)) {
            eventfd_write(t->doorbells[i].fd, 1);
            return;
        }
    val = htole64(val);
    bus_access(bus, addr, &val, size, true);
}
