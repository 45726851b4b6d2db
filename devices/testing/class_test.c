/* What is true of every device class, whatever it does: each test here runs over all of them, on both boards. */
#include "devices/testing/env.h"
#include "vmm/base/test.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"

enum { RAM = 4 << 20, IMAGE = 1 << 20, VIRTIO_WINDOWS = 0xd000000, TRIES = 4 };

/* A device alone in its world. */
struct world {
    struct test_env t;
    struct device *bridge; /* NULL: none, or it is `dev` */
    struct device *dev;
    int image;
};

static int attach_mmio(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_mmio_attach(v, VIRTIO_WINDOWS, 5, err);
}

static int attach_pci(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_pci_attach(v, -1, err);
}

static const struct board {
    const char *name, *bridge;
    int (*attach_virtio)(struct device_env *env, struct virtio *v, struct err *err);
} boards[] = {
    {"mmio", NULL, attach_mmio},
    {"pci", "pci-host", attach_pci},
};

static struct world *world_create(const struct device_class *cls, const struct board *b)
{
    struct world *w = calloc(1, sizeof(*w));
    char options[64];

    test_env_init(&w->t, RAM);
    w->t.env.attach_virtio = b->attach_virtio;
    w->image = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(ftruncate(w->image, IMAGE), 0);
    if (b->bridge && strcmp(b->bridge, cls->name))
        w->bridge = test_env_device(&w->t, b->bridge, "bridge", "");
    test_env_options(cls, w->image, options, sizeof(options));
    w->dev = test_env_device(&w->t, cls->name, "dev0", options);
    return w;
}

static void world_destroy(struct world *w)
{
    device_destroy(w->dev);
    device_destroy(w->bridge);
    test_env_fini(&w->t);
    close(w->image);
    free(w);
}

static struct state_writer saved(struct world *w)
{
    struct state_writer s = {0};

    device_save(w->dev, &s);
    return s;
}

static int load(struct world *w, const uint8_t *buf, size_t len)
{
    struct state_reader r = {.buf = buf, .len = len};
    struct err err;
    int rc = device_load(w->dev, &r, &err);

    if (!rc)
        assert_int_equal(r.off, len);
    return rc;
}

static void live_a_little(struct world *w)
{
    device_settle(w->dev);
    device_start(w->dev);
    loop_once(w->t.env.loop, 0);
    device_stop(w->dev);
}

static uint64_t dice(void)
{
    static uint64_t x = 88172645463325252;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

/* Gives one integer, flag or byte of `from` another value that `into` loads; leaves it alone when there is none. */
static void scramble_one(struct world *from, struct world *into, void *at, enum field_kind kind, unsigned size)
{
    uint8_t was[8];

    memcpy(was, at, size);
    for (int i = 0; i < TRIES; i++) {
        uint64_t v = kind == FIELD_BOOL ? !was[0] : dice() >> (i * 16);
        struct state_writer s;
        int rc;

        v = htole64(v);
        memcpy(at, &v, size);
        s = saved(from);
        rc = load(into, s.buf, s.len);
        state_writer_fini(&s);
        if (!rc)
            return;
    }
    memcpy(at, was, size);
}

static void scramble_struct(struct world *from, struct world *into, const struct state_desc *d, char *obj)
{
    for (const struct field *f = d->fields; f->kind != FIELD_END; f++)
        for (uint32_t i = 0; i < f->count; i++) {
            char *at = obj + f->off + (size_t)i * f->size;

            if (f->kind == FIELD_STRUCT)
                scramble_struct(from, into, f->sub, at);
            else
                scramble_one(from, into, at, f->kind, f->size);
        }
}

static void scramble(struct world *from, struct world *into)
{
    for (const struct device_part *p = from->dev->parts; p < from->dev->parts + from->dev->nparts; p++)
        for (unsigned i = 0; i < p->count; i++)
            scramble_struct(from, into, p->desc, (char *)p->obj + (size_t)i * p->desc->size);
}

static void assert_same(const struct device_class *cls, const struct state_writer *a, const struct state_writer *b)
{
    if (a->len != b->len || (a->len && memcmp(a->buf, b->buf, a->len)))
        fail_msg("%s: states differ", cls->name);
}

static void for_all(void (*test)(const struct device_class *cls, const struct board *b))
{
    for (const struct board *b = boards; b < boards + array_len(boards); b++)
        for (const struct device_class *const *c = device_classes; *c; c++) {
            print_message("# %s on %s\n", (*c)->name, b->name);
            test(*c, b);
        }
}

static void check_fields(const struct device_class *cls, const struct board *b)
{
    struct world *w = world_create(cls, b);

    for (const struct device_part *p = w->dev->parts; p < w->dev->parts + w->dev->nparts; p++)
        if (state_uncovered(p->desc))
            fail_msg("%s: %zu bytes of %s are in no field", cls->name, state_uncovered(p->desc), p->desc->name);
    world_destroy(w);
}

static void every_byte_of_state_is_named(void **s)
{
    (void)s;
    for_all(check_fields);
}

static void check_round_trip(const struct device_class *cls, const struct board *b)
{
    struct world *from = world_create(cls, b), *into = world_create(cls, b);
    struct state_writer fresh = saved(from), scrambled, loaded, reset;

    scramble(from, into);
    scrambled = saved(from);
    if (load(into, scrambled.buf, scrambled.len))
        fail_msg("%s does not load what it saved", cls->name);
    loaded = saved(into);
    assert_same(cls, &scrambled, &loaded);
    live_a_little(into);
    device_reset(into->dev);
    reset = saved(into);
    assert_same(cls, &fresh, &reset);
    state_writer_fini(&fresh);
    state_writer_fini(&scrambled);
    state_writer_fini(&loaded);
    state_writer_fini(&reset);
    world_destroy(from);
    world_destroy(into);
}

static void what_is_saved_loads_equal_and_reset_forgets_it(void **s)
{
    (void)s;
    for_all(check_round_trip);
}

/* Refused, or a state that the device can live with: it runs, and what it saves it loads again. */
static void load_damaged(const struct device_class *cls, struct world *w, const struct state_writer *damaged)
{
    struct state_writer s;

    if (load(w, damaged->buf, damaged->len))
        return;
    live_a_little(w);
    s = saved(w);
    if (load(w, s.buf, s.len))
        fail_msg("%s does not load what it saved", cls->name);
    state_writer_fini(&s);
}

static void check_damage(const struct device_class *cls, const struct board *b)
{
    static const uint8_t flips[] = {0x01, 0x80, 0xff};
    struct world *from = world_create(cls, b), *into = world_create(cls, b);
    struct state_writer s;

    scramble(from, into);
    s = saved(from);
    for (size_t at = 0; at < s.len; at++)
        for (size_t i = 0; i < array_len(flips); i++) {
            s.buf[at] ^= flips[i];
            load_damaged(cls, into, &s);
            s.buf[at] ^= flips[i];
        }
    for (size_t n = 0; n < s.len; n++)
        if (!load(into, s.buf, n))
            fail_msg("%s loads a state cut short after %zu of %zu bytes", cls->name, n, s.len);
    state_writer_fini(&s);
    world_destroy(from);
    world_destroy(into);
}

static void damaged_state_is_refused_or_harmless(void **s)
{
    (void)s;
    for_all(check_damage);
}

static void check_twin(const struct device_class *cls, const struct board *b)
{
    struct world *w = world_create(cls, b);
    struct device *twin;
    struct err err;
    char options[64];

    test_env_options(cls, w->image, options, sizeof(options));
    assert_int_equal(device_create(cls, "dev1", options, &twin, &err), 0);
    if (!device_init(twin, &w->t.env, w->t.env.loop, &err)) {
        device_reset(twin);
        device_settle(twin);
    }
    device_destroy(twin);
    live_a_little(w);
    world_destroy(w);
}

static void a_second_one_works_or_fails_cleanly(void **s)
{
    (void)s;
    for_all(check_twin);
}

static void check_commands(const struct device_class *cls, const struct board *b)
{
    struct world *w = world_create(cls, b);
    json_t *info = device_info(w->dev), *reply = json_object();
    char *text = json_dumps(info, 0);

    assert_non_null(text);
    for (const struct device_command *c = cls->commands; c && c->name; c++) {
        struct err err = {0};

        assert_true(c->help && c->help[0] && !strchr(c->name, '.'));
        assert_ptr_equal(device_command_find(w->dev, c->name), c);
        if (device_command_run(w->dev, c, "no-such-argument=1", reply, &err) != -ENOENT)
            fail_msg("%s.%s takes an argument that it does not have", cls->name, c->name);
    }
    free(text);
    json_decref(info);
    json_decref(reply);
    world_destroy(w);
}

static void information_and_commands_are_sound(void **s)
{
    (void)s;
    for_all(check_commands);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_state_is_named),
        cmocka_unit_test(what_is_saved_loads_equal_and_reset_forgets_it),
        cmocka_unit_test(damaged_state_is_refused_or_harmless),
        cmocka_unit_test(information_and_commands_are_sound),
        cmocka_unit_test(a_second_one_works_or_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
