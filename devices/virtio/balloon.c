/*
 * Memory balloon [VIRTIO-v1.2 5.5]: pages that the guest gives up, and free pages that it reports, go back to the host.
 * Whatever it names is checked by gmem_discard(); a page taken back needs nothing, the host backs it again by itself.
 */
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdio.h>

#include "devices/virtio/virtio.h"
#include "vmm/base/log.h"

enum {
    INFLATE,
    DEFLATE, /* queues; the next two are numbered as negotiated */
    PAGE_SHIFT = VIRTIO_BALLOON_PFN_SHIFT,
    PFNS_MAX = 4096, /* in one buffer; drivers send 256 or 1024 */
    NS_PER_MS = 1000000,
    STATS_MAX = 2 * VIRTIO_BALLOON_S_NR, /* entries in one buffer, with room for tags to come */
};

struct balloon_config { /* as struct virtio_balloon_config begins; the rest belongs to features not offered */
    uint32_t num_pages, actual;
};

struct balloon_state {
    uint32_t actual; /* pages, as the driver tells */
};

struct balloon {
    struct virtio v;
    uint64_t size;              /* to take from the guest */
    uint32_t interval;          /* of statistics in seconds; 0: none */
    struct vq *stats, *reports; /* NULL: not negotiated */
    struct vq_chain stats_chain;
    bool stats_held; /* the driver's buffer, until we want the next statistics */
    struct timer timer;
    struct log_limit limit, stats_limit;
    struct balloon_state s;
};

static const struct opt balloon_opts[] = {
    O_SIZE(struct balloon, size, "size", "0", 0, 0, "memory to take from the guest"),
    O_U32(struct balloon, interval, "stats", "0", 0, 0,
          "milliseconds between statistics of the guest in the log (level info)"),
    O_END,
};

static struct balloon *balloon_of(struct virtio *v)
{
    return container_of(v, struct balloon, v);
}

static void give_back(struct balloon *b, gpa_t gpa, uint64_t n)
{
    int rc = gmem_discard(b->v.dev.env->mem, gpa, n);

    if (rc)
        log_guest(&b->limit, "%s: cannot give back %#llx+%#llx: %s", b->v.dev.id, (unsigned long long)gpa,
                  (unsigned long long)n, rc == -EFAULT ? "not the guest's memory" : strerror(-rc));
}

/* Neighbours, in either direction, go back together: a system call a page would be slow. */
static void inflate_some(struct balloon *b, const uint32_t *pfns, size_t n)
{
    for (size_t i = 0, end; i < n; i = end) {
        uint64_t low = le32toh(pfns[i]), high = low;

        for (end = i + 1; end < n; end++) {
            uint64_t pfn = le32toh(pfns[end]);

            if (pfn == high + 1)
                high = pfn;
            else if (pfn + 1 == low)
                low = pfn;
            else
                break;
        }
        give_back(b, low << PAGE_SHIFT, (high - low + 1) << PAGE_SHIFT);
    }
}

static void inflate(struct balloon *b, struct vq *q)
{
    struct vq_chain c;
    uint32_t pfns[256];
    size_t n;

    while (vq_pop(q, &c) > 0) {
        if (c.out.left > PFNS_MAX * sizeof(pfns[0])) {
            virtio_broken(&b->v, "too many pages in one buffer");
            return;
        }
        while ((n = chain_read(&c, pfns, sizeof(pfns)) / sizeof(pfns[0])))
            inflate_some(b, pfns, n);
        vq_push(q, &c);
    }
    vq_flush(q);
}

static void deflate(struct vq *q)
{
    struct vq_chain c;

    while (vq_pop(q, &c) > 0)
        vq_push(q, &c);
    vq_flush(q);
}

/* Where in guest RAM a checked buffer is. */
static gpa_t gpa_of(struct balloon *b, const struct iovec *iov)
{
    const struct gmem_range *r;
    unsigned n = gmem_ranges(b->v.dev.env->mem, &r);
    uintptr_t p = (uintptr_t)iov->iov_base;

    while (n > 1 && (p < (uintptr_t)r->host || p - (uintptr_t)r->host >= r->size)) {
        r++;
        n--;
    }
    return r->base + (p - (uintptr_t)r->host);
}

/* Free page reporting: each buffer is a run of free pages [5.5.6.7]. */
static void report(struct balloon *b, struct vq *q)
{
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        for (unsigned i = 0; i < c.in.n; i++)
            give_back(b, gpa_of(b, &c.in.iov[i]), c.in.iov[i].iov_len);
        vq_push(q, &c);
    }
    vq_flush(q);
}

static void log_stats(struct balloon *b, struct vq_chain *c)
{
    static const char *const names[] = VIRTIO_BALLOON_S_NAMES;
    struct virtio_balloon_stat st;
    char text[512] = "";
    size_t len = 0;

    for (unsigned i = 0; i < STATS_MAX && chain_read(c, &st, sizeof(st)) == sizeof(st); i++) {
        uint16_t tag = le16toh(st.tag);

        if (tag < array_len(names) && len < sizeof(text))
            len += (size_t)snprintf(text + len, sizeof(text) - len, " %s=%llu", names[tag],
                                    (unsigned long long)le64toh(st.val));
    }
    if (len && log_limit_ok(&b->stats_limit))
        log_msg(LOG_INFO, "%s:%s", b->v.dev.id, text);
}

/* The driver sends a buffer of statistics each time it gets the last one back [5.5.6.4]. */
static void stats(struct balloon *b, struct vq *q)
{
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        if (b->stats_held)
            vq_push(q, &b->stats_chain);
        log_stats(b, &c);
        b->stats_chain = c;
        b->stats_held = true;
    }
    vq_flush(q);
}

static void stats_due(struct timer *t)
{
    struct balloon *b = container_of(t, struct balloon, timer);

    if (b->stats_held) {
        b->stats_held = false;
        vq_push(b->stats, &b->stats_chain);
        vq_flush(b->stats);
    }
    timer_arm(t, t->due_ns + (uint64_t)b->interval * NS_PER_MS);
}

static void balloon_queue(struct virtio *v, struct vq *q)
{
    struct balloon *b = balloon_of(v);

    if (q == b->stats)
        stats(b, q);
    else if (q == b->reports)
        report(b, q);
    else if (vq_index(q) == INFLATE)
        inflate(b, q);
    else
        deflate(q);
}

static void balloon_activate(struct virtio *v)
{
    struct balloon *b = balloon_of(v);
    unsigned next = DEFLATE + 1;

    b->stats = virtio_has(v, VIRTIO_BALLOON_F_STATS_VQ) ? virtio_queue(v, next++) : NULL;
    b->reports = virtio_has(v, VIRTIO_BALLOON_F_REPORTING) ? virtio_queue(v, next++) : NULL;
}

static struct balloon_config *config_of(struct balloon *b)
{
    return (struct balloon_config *)b->v.config;
}

static void balloon_reset(struct virtio *v)
{
    struct balloon *b = balloon_of(v);

    b->s = (struct balloon_state){0};
    b->stats = b->reports = NULL;
    b->stats_held = false;
    config_of(b)->actual = 0;
}

static void balloon_config_written(struct virtio *v, size_t off, size_t n)
{
    struct balloon *b = balloon_of(v);

    (void)off;
    (void)n;
    b->s.actual = le32toh(config_of(b)->actual);
}

static const struct virtio_ops balloon_ops = {
    .id = VIRTIO_ID_BALLOON,
    .nqueues = 4,
    .queue_size = 128,
    .features = 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM | 1ull << VIRTIO_BALLOON_F_REPORTING,
    .config_size = sizeof(struct balloon_config),
    .config_wr_off = offsetof(struct balloon_config, actual),
    .config_wr_len = sizeof(uint32_t),
    .reset = balloon_reset,
    .activate = balloon_activate,
    .queue = balloon_queue,
    .config_written = balloon_config_written,
};

static const struct field balloon_fields[] = {F_U32(struct balloon_state, actual), F_END};
static const struct state_desc balloon_desc = {
    .name = "virtio-balloon", .version = 1, .size = sizeof(struct balloon_state), .fields = balloon_fields};

static int check_size(const struct device *d, uint64_t size, struct err *err)
{
    if (size > gmem_size(d->env->mem))
        return err_set(err, EINVAL, "size=%llu is more than the guest's %llu bytes of RAM; give less",
                       (unsigned long long)size, (unsigned long long)gmem_size(d->env->mem));
    return 0;
}

static void want(struct balloon *b, uint64_t size)
{
    b->size = size;
    config_of(b)->num_pages = htole32((uint32_t)(size >> PAGE_SHIFT));
}

struct take_args {
    uint64_t size;
};

static const struct opt take_opts[] = {
    O_SIZE(struct take_args, size, "size", NULL, 0, 0, "how much in all; 0 gives everything back"),
    O_END,
};

static int take_run(struct device *d, const void *args, json_t *reply, struct err *err)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);
    const struct take_args *a = args;
    int rc = check_size(d, a->size, err);

    (void)reply;
    if (rc)
        return rc;
    want(b, a->size);
    virtio_config_changed(&b->v);
    return 0;
}

static const struct device_command balloon_commands[] = {
    {.name = "take",
     .help = "take memory from the guest, as far as it gives it",
     .opts = take_opts,
     .size = sizeof(struct take_args),
     .run = take_run},
    {.name = NULL},
};

static json_t *balloon_info(struct device *d)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);

    return json_pack("{s:I, s:I}", "wanted", (json_int_t)b->size, "taken", (json_int_t)b->s.actual << PAGE_SHIFT);
}

static int balloon_init(struct device *d, struct err *err)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);
    int rc = check_size(d, b->size, err);

    if (rc)
        return rc;
    b->timer = (struct timer){.lane = &d->lane, .clk = CLK_GUEST, .fire = stats_due};
    b->v.offered = balloon_ops.features;
    if (b->interval)
        b->v.offered |= 1ull << VIRTIO_BALLOON_F_STATS_VQ;
    device_add_state(d, "", &balloon_desc, &b->s, 1);
    rc = virtio_init(&b->v, &balloon_ops, err);
    if (!rc)
        want(b, b->size);
    return rc;
}

static void balloon_settle(struct device *d)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);

    config_of(b)->actual = htole32(b->s.actual);
}

static void balloon_start(struct device *d)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);

    if (b->interval)
        timer_arm(&b->timer, loop_now(d->lane.loop, CLK_GUEST) + (uint64_t)b->interval * NS_PER_MS);
}

/* The statistics' buffer goes back to where it came from: a snapshot knows no request in flight. */
static void balloon_stop(struct device *d)
{
    struct balloon *b = container_of(d, struct balloon, v.dev);

    timer_disarm(&b->timer);
    if (b->stats_held)
        vq_unpop(b->stats, &b->stats_chain);
    b->stats_held = false;
}

static void balloon_fini(struct device *d)
{
    virtio_fini(&container_of(d, struct balloon, v.dev)->v);
}

const struct device_class virtio_balloon = {
    .name = "virtio-balloon",
    .summary = "memory that the guest gives back to the host",
    .size = DEVICE_SIZE(struct balloon, v.dev),
    .opts = balloon_opts,
    .init = balloon_init,
    .fini = balloon_fini,
    .settle = balloon_settle,
    .start = balloon_start,
    .stop = balloon_stop,
    .commands = balloon_commands,
    .info = balloon_info,
};
