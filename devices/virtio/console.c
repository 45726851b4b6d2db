/*
 * Console [VIRTIO-v1.2 5.3].  Port 0 is the guest's console (hvc0 in Linux); more ports, each with a name of its own,
 * are byte channels to programs in the guest, and come with a pair of queues for control messages.
 *
 * Bytes are pulled both ways: input stays with the backend until the guest has a buffer for it, and a chain that the
 * backend took in part stays in the queue until it has room again.  What is to be told to the driver is a set of bits
 * per port, so neither side can make the other queue anything up.
 */
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "devices/char/chardev.h"
#include "devices/virtio/virtio.h"
#include "vmm/base/log.h"

enum {
    RX, /* of port 0, as the next; the other ports' pairs follow the control queues */
    TX,
    CONTROL_RX,
    CONTROL_TX,
    PORTS_MAX = 16,
    CHUNK = 4096,      /* bytes copied at once */
    TX_MAX = 1 << 20,  /* bytes in one chain: as much as a pipe can hold that Linux splices to a port */
    PORT_NAME_MAX = 63 /* bytes */
};

struct resize { /* follows a VIRTIO_CONSOLE_RESIZE message; older Linux took them the other way round */
    uint16_t cols, rows;
};

struct port_state {
    uint32_t tx_done; /* bytes of the next chain that the backend has taken already */
    uint16_t pending; /* 1 << event: messages that the driver has not got yet */
    bool ready;       /* the driver has set the port up */
    bool open;        /* a program in the guest reads it */
};

struct console_state {
    struct port_state ports[PORTS_MAX];
};

struct port {
    struct console *console;
    char name[PORT_NAME_MAX + 1];
    struct chardev *chardev;
    struct chardev_user user;
    bool connected; /* at the backend's other end */
};

struct console {
    struct virtio v;
    char *chardev;
    struct opt_list more;
    struct port ports[PORTS_MAX];
    unsigned nports;
    bool size_told;
    struct log_limit limit;
    struct console_state s;
};

static const struct opt console_opts[] = {
    O_STR(struct console, chardev, "chardev", "null", "where the console's bytes go and come from", .arg = CHARDEV_ARG),
    O_LIST(struct console, more, "port", "one more port, by its name in the guest and its place on the host",
           .arg = "NAME:PLACE"),
    O_END,
};

static struct console *console_of(struct virtio *v)
{
    return container_of(v, struct console, v);
}

static struct virtio_console_config *config_of(struct console *c)
{
    return (struct virtio_console_config *)c->v.config;
}

static struct port_state *state_of(struct port *p)
{
    return &p->console->s.ports[p - p->console->ports];
}

/* The port's queue for that direction, RX or TX. */
static struct vq *queue_of(struct port *p, unsigned direction)
{
    unsigned i = (unsigned)(p - p->console->ports);

    return virtio_queue(&p->console->v, (i ? 2 * i + 2 : 0) + direction);
}

/* Without control messages there is but the console, and it is always open. */
static bool may_receive(struct port *p)
{
    return virtio_has(&p->console->v, VIRTIO_CONSOLE_F_MULTIPORT) ? state_of(p)->open : p == p->console->ports;
}

static void to_guest(struct port *p)
{
    struct vq *q = queue_of(p, RX);
    struct vq_chain c;
    uint8_t buf[CHUNK];

    while (may_receive(p) && vq_pop(q, &c) > 0) {
        size_t room = min_u64(sizeof(buf), c.in.left);
        ssize_t n = room ? chardev_read(p->chardev, buf, room) : 0;

        if (room && n <= 0) {
            vq_unpop(q, &c);
            break;
        }
        chain_write(&c, buf, (size_t)n);
        vq_push(q, &c);
    }
    vq_flush(q);
}

/* False when the backend has no room for all of it: writable() follows. */
static bool send_chain(struct port *p, struct vq_chain *c)
{
    struct port_state *s = state_of(p);
    uint8_t buf[CHUNK];
    size_t n;

    for (uint32_t skip = s->tx_done; skip; skip -= (uint32_t)n)
        if (!(n = chain_read(c, buf, min_u64(sizeof(buf), skip))))
            break; /* not the chain that we began with; a guest may do that to itself */
    while ((n = chain_read(c, buf, sizeof(buf)))) {
        size_t took = chardev_write(p->chardev, buf, n);

        s->tx_done += (uint32_t)took;
        if (took < n)
            return false;
    }
    s->tx_done = 0;
    return true;
}

/* Linux asks for the size only when it hears of a change, and is deaf before its console is there: so when it prints.
 */
static void tell_size(struct console *c)
{
    if (!c->size_told && config_of(c)->cols)
        virtio_config_changed(&c->v);
    c->size_told = true;
}

static void from_guest(struct port *p)
{
    struct vq *q = queue_of(p, TX);
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        if (c.out.left > TX_MAX) {
            virtio_broken(&p->console->v, "more than 1 MiB in one buffer");
            break;
        }
        if (!send_chain(p, &c)) {
            vq_unpop(q, &c);
            break;
        }
        vq_push(q, &c);
        tell_size(p->console);
    }
    vq_flush(q);
}

static void write_message(struct port *p, unsigned event, struct vq_chain *c)
{
    struct console *con = p->console;
    struct virtio_console_control msg = {
        .id = htole32((uint32_t)(p - con->ports)),
        .event = htole16((uint16_t)event),
        .value = htole16(event != VIRTIO_CONSOLE_PORT_OPEN || p->connected),
    };
    struct resize size = {config_of(con)->cols, config_of(con)->rows};

    chain_write(c, &msg, sizeof(msg));
    if (event == VIRTIO_CONSOLE_RESIZE)
        chain_write(c, &size, sizeof(size));
    if (event == VIRTIO_CONSOLE_PORT_NAME)
        chain_write(c, p->name, strlen(p->name));
}

/* Tells the driver what is pending, as far as it has buffers. */
static void send_messages(struct console *c)
{
    static const unsigned order[] = {VIRTIO_CONSOLE_PORT_ADD, VIRTIO_CONSOLE_CONSOLE_PORT, VIRTIO_CONSOLE_PORT_NAME,
                                     VIRTIO_CONSOLE_RESIZE, VIRTIO_CONSOLE_PORT_OPEN};
    struct vq *q;
    struct vq_chain chain;

    if (!virtio_has(&c->v, VIRTIO_CONSOLE_F_MULTIPORT))
        return;
    q = virtio_queue(&c->v, CONTROL_RX);
    for (struct port *p = c->ports; p < c->ports + c->nports; p++)
        for (size_t i = 0; i < array_len(order); i++) {
            uint16_t bit = (uint16_t)(1 << order[i]);

            if (!(state_of(p)->pending & bit))
                continue;
            if (vq_pop(q, &chain) <= 0)
                goto out;
            write_message(p, order[i], &chain);
            vq_push(q, &chain);
            state_of(p)->pending &= (uint16_t)~bit;
        }
out:
    vq_flush(q);
}

static void tell(struct port *p, unsigned event)
{
    state_of(p)->pending |= (uint16_t)(1 << event);
}

static void port_ready(struct port *p, bool ready)
{
    state_of(p)->ready = ready;
    if (!ready)
        return;
    if (p == p->console->ports) {
        tell(p, VIRTIO_CONSOLE_CONSOLE_PORT);
        if (config_of(p->console)->cols)
            tell(p, VIRTIO_CONSOLE_RESIZE);
    }
    if (*p->name)
        tell(p, VIRTIO_CONSOLE_PORT_NAME);
    tell(p, VIRTIO_CONSOLE_PORT_OPEN);
}

static void handle_message(struct console *c, const struct virtio_console_control *msg)
{
    uint32_t id = le32toh(msg->id);
    uint16_t event = le16toh(msg->event);
    bool value = le16toh(msg->value);

    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; value && i < c->nports; i++)
            tell(&c->ports[i], VIRTIO_CONSOLE_PORT_ADD);
    } else if (id < c->nports && event == VIRTIO_CONSOLE_PORT_READY) {
        port_ready(&c->ports[id], value);
    } else if (id < c->nports && event == VIRTIO_CONSOLE_PORT_OPEN) {
        c->s.ports[id].open = value;
        to_guest(&c->ports[id]);
    } else {
        log_guest(&c->limit, "%s: the guest sent message %u for port %u, which makes no sense", c->v.dev.id, event, id);
    }
}

static void receive_messages(struct console *c, struct vq *q)
{
    struct virtio_console_control msg;
    struct vq_chain chain;

    while (vq_pop(q, &chain) > 0) {
        if (chain_read(&chain, &msg, sizeof(msg)) == sizeof(msg))
            handle_message(c, &msg);
        vq_push(q, &chain);
    }
    vq_flush(q);
    send_messages(c);
}

/* The port that a queue other than those for control belongs to. */
static struct port *port_of(struct console *c, unsigned queue)
{
    return &c->ports[queue < CONTROL_RX ? 0 : queue / 2 - 1];
}

static void console_queue(struct virtio *v, struct vq *q)
{
    struct console *c = console_of(v);
    unsigned i = vq_index(q);

    if (i == CONTROL_RX)
        send_messages(c);
    else if (i == CONTROL_TX)
        receive_messages(c, q);
    else if (i % 2 == RX)
        to_guest(port_of(c, i));
    else
        from_guest(port_of(c, i));
}

static void console_queue_reset(struct virtio *v, struct vq *q)
{
    unsigned i = vq_index(q);

    if (i != CONTROL_TX && i % 2 == TX)
        state_of(port_of(console_of(v), i))->tx_done = 0;
}

/* Emergency write: a byte from a guest that cannot set up queues, or not any more [5.3.4]. */
static void console_config_written(struct virtio *v, size_t off, size_t n)
{
    struct console *c = console_of(v);
    uint8_t byte = (uint8_t)le32toh(config_of(c)->emerg_wr);

    (void)off;
    (void)n;
    chardev_write(c->ports[0].chardev, &byte, 1); /* without room it is lost: nobody could wait */
}

static void console_reset(struct virtio *v)
{
    struct console *c = console_of(v);

    c->s = (struct console_state){0};
    c->size_told = false;
    config_of(c)->emerg_wr = 0;
}

/* What a snapshot's driver knew of the backends may be wrong by now. */
static void console_activate(struct virtio *v)
{
    struct console *c = console_of(v);

    for (struct port *p = c->ports; p < c->ports + c->nports; p++)
        if (state_of(p)->ready)
            port_ready(p, true);
}

static const struct virtio_ops console_ops = {
    .id = VIRTIO_ID_CONSOLE,
    .nqueues = 2,
    .queue_size = 64,
    .no_doorbells = true, /* Linux spins until what it prints is taken */
    .features = 1ull << VIRTIO_CONSOLE_F_SIZE | 1ull << VIRTIO_CONSOLE_F_EMERG_WRITE,
    .config_size = sizeof(struct virtio_console_config),
    .config_wr_off = offsetof(struct virtio_console_config, emerg_wr),
    .config_wr_len = sizeof(uint32_t),
    .reset = console_reset,
    .activate = console_activate,
    .queue = console_queue,
    .queue_reset = console_queue_reset,
    .config_written = console_config_written,
};

static const struct field port_fields[] = {
    F_U32(struct port_state, tx_done),
    F_U16(struct port_state, pending),
    F_BOOL(struct port_state, ready),
    F_BOOL(struct port_state, open),
    F_END,
};
static const struct state_desc port_desc = {
    .name = "port", .version = 1, .size = sizeof(struct port_state), .fields = port_fields};
static const struct field console_fields[] = {F_ARRAY(struct console_state, ports, &port_desc), F_END};
static const struct state_desc console_desc = {
    .name = "virtio-console", .version = 1, .size = sizeof(struct console_state), .fields = console_fields};

static void port_readable(struct chardev_user *u)
{
    to_guest(container_of(u, struct port, user));
}

static void port_writable(struct chardev_user *u)
{
    from_guest(container_of(u, struct port, user));
}

static void port_resized(struct chardev_user *u, uint16_t cols, uint16_t rows)
{
    struct port *p = container_of(u, struct port, user);
    struct console *c = p->console;

    if (p != c->ports)
        return; /* no console, no size */
    config_of(c)->cols = htole16(cols);
    config_of(c)->rows = htole16(rows);
    virtio_config_changed(&c->v);
    if (state_of(p)->ready)
        tell(p, VIRTIO_CONSOLE_RESIZE);
    send_messages(c);
}

static void port_connected(struct chardev_user *u, bool yes)
{
    struct port *p = container_of(u, struct port, user);

    p->connected = yes;
    if (state_of(p)->ready)
        tell(p, VIRTIO_CONSOLE_PORT_OPEN);
    send_messages(p->console);
}

static int add_port(struct console *c, const char *name, size_t len, const char *place, struct err *err)
{
    struct port *p = &c->ports[c->nports];

    if (c->nports == PORTS_MAX)
        return err_set(err, EINVAL, "more than %d ports", PORTS_MAX - 1);
    if (len > PORT_NAME_MAX)
        return err_set(err, EINVAL, "port name \"%.*s\" is longer than %d bytes", (int)len, name, PORT_NAME_MAX);
    p->console = c;
    memcpy(p->name, name, len);
    for (struct port *other = c->ports; other < p; other++)
        if (!strcmp(other->name, p->name))
            return err_set(err, EINVAL, "port name \"%s\" is given twice", p->name);
    p->user = (struct chardev_user){port_readable, port_writable, port_resized, port_connected};
    c->nports++;
    return chardev_open(place, &c->v.dev, &p->chardev, err);
}

static int open_ports(struct console *c, struct err *err)
{
    int r = add_port(c, "", 0, c->chardev, err);

    for (size_t i = 0; !r && i < c->more.n; i++) {
        const char *spec = c->more.v[i], *colon = strchr(spec, ':');

        if (!colon || colon == spec)
            return err_set(err, EINVAL, "port \"%s\" lacks its name; write port=NAME:PLACE, as in agent:unix:PATH",
                           spec);
        r = add_port(c, spec, (size_t)(colon - spec), colon + 1, err);
    }
    return r;
}

static int console_init(struct device *d, struct err *err)
{
    struct console *c = container_of(d, struct console, v.dev);
    int r = open_ports(c, err);

    if (r)
        return r;
    if (c->nports > 1) {
        c->v.nqueues = 2 * c->nports + 2;
        c->v.offered = console_ops.features | 1ull << VIRTIO_CONSOLE_F_MULTIPORT;
    }
    device_add_state(d, "", &console_desc, &c->s, 1);
    r = virtio_init(&c->v, &console_ops, err);
    if (r)
        return r;
    config_of(c)->max_nr_ports = htole32(c->nports);
    for (struct port *p = c->ports; p < c->ports + c->nports; p++)
        chardev_attach(p->chardev, &p->user);
    return 0;
}

static void console_fini(struct device *d)
{
    struct console *c = container_of(d, struct console, v.dev);

    for (unsigned i = 0; i < c->nports; i++)
        chardev_close(c->ports[i].chardev);
    virtio_fini(&c->v);
}

const struct device_class virtio_console = {
    .name = "virtio-console",
    .summary = "console, and byte channels to programs in the guest",
    .size = DEVICE_SIZE(struct console, v.dev),
    .opts = console_opts,
    .first = "chardev",
    .init = console_init,
    .fini = console_fini,
};
