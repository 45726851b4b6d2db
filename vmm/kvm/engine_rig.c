#include "vmm/kvm/engine_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

enum { PATIENCE_S = 30 };

static uint64_t on_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r, (void)off;
    return mask_bytes(READS, size);
}

static void logged_write(struct guest *g, uint64_t addr, uint64_t val, unsigned size)
{
    if (g->on_write)
        g->on_write(g);
    pthread_mutex_lock(&g->lock);
    if (g->nwrites < LOG_MAX)
        g->writes[g->nwrites] = (struct access){addr, val, size};
    g->nwrites++;
    pthread_cond_broadcast(&g->news);
    pthread_mutex_unlock(&g->lock);
}

static void ports_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    logged_write(container_of(r, struct guest, ports), r->base + off, val, size);
}

static void window_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    logged_write(container_of(r, struct guest, window), r->base + off, val, size);
}

static const struct region_ops ports_ops = {.read = on_read, .write = ports_write, .sizes = 1 | 2 | 4};
static const struct region_ops window_ops = {.read = on_read, .write = window_write, .sizes = 1 | 2 | 4 | 8};

static void on_event(struct vm_user *u, enum vm_event e, unsigned cpu)
{
    struct guest *g = container_of(u, struct guest, user);

    pthread_mutex_lock(&g->lock);
    g->nevents++;
    g->event = e;
    g->event_cpu = cpu;
    pthread_cond_broadcast(&g->news);
    pthread_mutex_unlock(&g->lock);
}

bool guest_reached(struct guest *g, const unsigned *counter, unsigned n)
{
    struct timespec until;
    bool yes;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&g->lock);
    while (*counter < n && !g->nevents && !rc)
        rc = pthread_cond_timedwait(&g->news, &g->lock, &until);
    yes = *counter >= n;
    pthread_mutex_unlock(&g->lock);
    return yes;
}

void guest_write(struct guest *g, gpa_t at, const void *bytes, size_t n)
{
    assert_int_equal(gmem_write(g->mem, at, bytes, n), 0);
}

void guest_make(struct guest *g, unsigned cpus, bool pit)
{
    const struct vm_opts opts = {.topology = {1, cpus, 1}, .pit = pit};
    struct err err;

    if (vm_create(&opts, g->mem, g->pio, g->mmio, &g->user, &g->vm, &err))
        fail_msg("%s", err.msg);
}

void guest_load(struct guest *g, const uint8_t *code, const uint8_t *end)
{
    guest_write(g, CODE_AT, code, (size_t)(end - code));
    g->boot.rip = CODE_AT;
}

void guest_reset(struct guest *g)
{
    struct err err;

    if (vm_reset(g->vm, &g->boot, &err))
        fail_msg("%s", err.msg);
    g->nwrites = g->nevents = 0;
}

void guest_start(struct guest *g)
{
    struct err err;

    if (vm_start(g->vm, &err))
        fail_msg("%s", err.msg);
    g->running = true;
}

void guest_stop(struct guest *g)
{
    vm_stop(g->vm);
    g->running = false;
}

int guest_setup(void **s)
{
    struct guest *g = xcalloc(1, sizeof(*g));
    struct err err;

    if (gmem_create(RAM, GMEM_ANON, 0, &g->mem, &err))
        fail_msg("%s", err.msg);
    g->pio = bus_create("ports", 0x10000);
    g->mmio = bus_create("memory", 1ull << 48);
    g->ports = (struct region){.name = "ports", .ops = &ports_ops, .len = PORTS_LEN};
    g->window = (struct region){.name = "window", .ops = &window_ops, .len = WINDOW_LEN};
    assert_int_equal(bus_map(g->pio, &g->ports, PORTS, NULL), 0);
    assert_int_equal(bus_map(g->mmio, &g->window, WINDOW, NULL), 0);
    g->user.event = on_event;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->news, NULL);
    *s = g;
    return 0;
}

int guest_teardown(void **s)
{
    struct guest *g = *s;

    if (g->running) { /* the test failed half-way */
        char *text cleanup_free = NULL;

        guest_stop(g);
        text = vm_report(g->vm, 0);
        fputs(text, stderr);
    }
    vm_destroy(g->vm);
    bus_unmap(&g->ports);
    bus_unmap(&g->window);
    bus_destroy(g->pio);
    bus_destroy(g->mmio);
    gmem_destroy(g->mem);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->news);
    free(g);
    return 0;
}

void guest_check_write(const struct guest *g, unsigned i, uint64_t addr, unsigned size, uint64_t val)
{
    assert_int_equal(g->writes[i].addr, addr);
    assert_int_equal(g->writes[i].size, size);
    assert_true(g->writes[i].val == val);
}

void guest_identity_map(struct guest *g)
{
    enum { PML4 = 0x1000, PRESENT_WRITE = 3, LARGE = 1 << 7, PDPT = PML4 + 0x1000, DIRECTORIES = PML4 + 0x2000 };
    uint64_t table[512] = {PDPT | PRESENT_WRITE};

    guest_write(g, PML4, table, sizeof(table));
    table[0] = DIRECTORIES | PRESENT_WRITE;
    table[3] = (DIRECTORIES + 0x1000) | PRESENT_WRITE;
    guest_write(g, PDPT, table, sizeof(table));
    for (unsigned half = 0; half < 2; half++) {
        for (uint64_t i = 0; i < array_len(table); i++)
            table[i] = (half ? GiB(3) : 0) + i * MiB(2) + (LARGE | PRESENT_WRITE);
        guest_write(g, DIRECTORIES + half * 0x1000, table, sizeof(table));
    }
    g->boot.long_mode = true;
    g->boot.cr3 = PML4;
}

int guest_tests_begin(int argc, char **argv)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    close(fd);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return 0;
}
