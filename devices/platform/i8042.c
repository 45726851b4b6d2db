/*
 * Keyboard controller of the PC/AT kind [IBM PS/2 Technical Reference, keyboard and auxiliary device controller], with
 * nothing plugged in.  Guests use its reset line, and some will not boot without its self-test; one that looks for a
 * keyboard or a mouse is told at once that there is none, so it does not wait for an answer.
 */
#include "devices/core/device.h"

enum { DATA_PORT = 0x60, COMMAND_PORT = 0x64, RAM_SIZE = 32 };
enum { STATUS_OUTPUT_FULL = 1 << 0, STATUS_SYSTEM = 1 << 2, STATUS_COMMAND = 1 << 3 };
enum { STATUS_UNLOCKED = 1 << 4, STATUS_TIMEOUT = 1 << 6 };
enum { CTR = 0, CTR_IRQ = 1 << 0, CTR_SYSTEM = 1 << 2, CTR_KEYBOARD_OFF = 1 << 4, CTR_AUX_OFF = 1 << 5 };
enum { OUTPUT_NO_RESET = 1 << 0, OUTPUT_A20 = 1 << 1 };
enum { RESEND = 0xfe, SELF_TEST_OK = 0x55, INTERFACE_OK = 0, AUX_CLOCK_STUCK = 1 };

struct i8042_state {
    uint8_t status, output; /* output: what the data port reads */
    uint8_t port;           /* the chip's output port */
    uint8_t command;        /* waits for its byte at the data port; 0: none */
    uint8_t ram[RAM_SIZE];  /* byte 0 is the controller command byte (CTR) */
};

struct i8042 {
    struct device dev;
    uint32_t irq;
    struct region data, command;
    struct irq line;
    struct i8042_state s;
};

static const struct field i8042_fields[] = {
    F_U8(struct i8042_state, status),  F_U8(struct i8042_state, output), F_U8(struct i8042_state, port),
    F_U8(struct i8042_state, command), F_BYTES(struct i8042_state, ram), F_END,
};
static const struct state_desc i8042_desc = {"i8042", 1, sizeof(struct i8042_state), i8042_fields, NULL};

static void update(struct i8042 *k)
{
    irq_set(k->line, k->s.status & STATUS_OUTPUT_FULL && k->s.ram[CTR] & CTR_IRQ);
}

static void reply(struct i8042 *k, uint8_t byte)
{
    k->s.output = byte;
    k->s.status |= STATUS_OUTPUT_FULL;
    k->s.status &= ~STATUS_TIMEOUT;
}

/* What the controller says when a device does not answer. */
static void nobody_there(struct i8042 *k)
{
    reply(k, RESEND);
    k->s.status |= STATUS_TIMEOUT;
}

static void output_port(struct i8042 *k, uint8_t val)
{
    k->s.port = val;
    if (!(val & OUTPUT_NO_RESET))
        k->dev.env->request(k->dev.env, REQ_RESET, 0);
}

static void self_test(struct i8042 *k)
{
    k->s.ram[CTR] = CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_AUX_OFF;
    k->s.status |= STATUS_SYSTEM;
    reply(k, SELF_TEST_OK);
}

static void run_command(struct i8042 *k, uint8_t cmd)
{
    k->s.status |= STATUS_COMMAND;
    k->s.command = 0;
    switch (cmd) {
    case 0x20 ... 0x3f:
        reply(k, k->s.ram[cmd % RAM_SIZE]);
        break;
    case 0x60 ... 0x7f: /* write RAM */
    case 0xd1:          /* write output port */
    case 0xd2:          /* write keyboard output buffer */
    case 0xd3:          /* write auxiliary output buffer */
    case 0xd4:          /* write to auxiliary device */
        k->s.command = cmd;
        break;
    case 0xa7:
        k->s.ram[CTR] |= CTR_AUX_OFF;
        break;
    case 0xa8:
        k->s.ram[CTR] &= ~CTR_AUX_OFF;
        break;
    case 0xa9:
        reply(k, AUX_CLOCK_STUCK);
        break;
    case 0xaa:
        self_test(k);
        break;
    case 0xab:
        reply(k, INTERFACE_OK);
        break;
    case 0xad:
        k->s.ram[CTR] |= CTR_KEYBOARD_OFF;
        break;
    case 0xae:
        k->s.ram[CTR] &= ~CTR_KEYBOARD_OFF;
        break;
    case 0xc0: /* input port: the keyboard is not locked */
        reply(k, 0x80);
        break;
    case 0xd0:
        reply(k, k->s.port);
        break;
    case 0xf0 ... 0xff: /* pulse the lines whose bits are 0 */
        if (!(cmd & OUTPUT_NO_RESET))
            k->dev.env->request(k->dev.env, REQ_RESET, 0);
        break;
    }
}

static void data_byte(struct i8042 *k, uint8_t val)
{
    uint8_t cmd = k->s.command;

    k->s.status &= ~STATUS_COMMAND;
    k->s.command = 0;
    switch (cmd) {
    case 0x60 ... 0x7f:
        k->s.ram[cmd % RAM_SIZE] = val;
        break;
    case 0xd1:
        output_port(k, val);
        break;
    case 0xd2:
    case 0xd3: /* comes back as the keyboard's: there is no auxiliary port */
        reply(k, val);
        break;
    default: /* for a device */
        nobody_there(k);
        break;
    }
}

static uint64_t data_read(struct region *r, uint64_t off, unsigned size)
{
    struct i8042 *k = container_of(r, struct i8042, data);

    (void)off;
    (void)size;
    k->s.status &= ~(STATUS_OUTPUT_FULL | STATUS_TIMEOUT);
    update(k);
    return k->s.output;
}

static void data_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct i8042 *k = container_of(r, struct i8042, data);

    (void)off;
    (void)size;
    data_byte(k, val);
    update(k);
}

static uint64_t status_read(struct region *r, uint64_t off, unsigned size)
{
    (void)off;
    (void)size;
    return container_of(r, struct i8042, command)->s.status;
}

static void command_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct i8042 *k = container_of(r, struct i8042, command);

    (void)off;
    (void)size;
    run_command(k, val);
    update(k);
}

static const struct region_ops data_ops = {.read = data_read, .write = data_write, .sizes = 1};
static const struct region_ops command_ops = {.read = status_read, .write = command_write, .sizes = 1};

static int i8042_init(struct device *d, struct err *err)
{
    struct i8042 *k = container_of(d, struct i8042, dev);
    int ret;

    k->data = (struct region){.name = d->id, .ops = &data_ops, .lane = &d->lane, .len = 1};
    k->command = (struct region){.name = d->id, .ops = &command_ops, .lane = &d->lane, .len = 1};
    k->line = d->env->line(d->env, k->irq);
    device_add_state(d, "", &i8042_desc, &k->s, 1);
    ret = bus_map(d->env->pio, &k->data, DATA_PORT, err);
    return ret ? ret : bus_map(d->env->pio, &k->command, COMMAND_PORT, err);
}

static void i8042_fini(struct device *d)
{
    struct i8042 *k = container_of(d, struct i8042, dev);

    bus_unmap(&k->data);
    bus_unmap(&k->command);
}

static void i8042_reset(struct device *d)
{
    struct i8042 *k = container_of(d, struct i8042, dev);

    k->s = (struct i8042_state){.status = STATUS_UNLOCKED | STATUS_SYSTEM,
                                .port = OUTPUT_NO_RESET | OUTPUT_A20,
                                .ram = {[CTR] = CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_AUX_OFF}};
}

static void i8042_settle(struct device *d)
{
    update(container_of(d, struct i8042, dev));
}

static const struct opt i8042_opts[] = {
    O_U32(struct i8042, irq, "irq", "1", 0, 23, "interrupt line"),
    O_END,
};

const struct device_class platform_i8042 = {
    .name = "i8042",
    .summary = "keyboard controller without a keyboard: reset line and self-test",
    .size = DEVICE_SIZE(struct i8042, dev),
    .opts = i8042_opts,
    .internal = true,
    .init = i8042_init,
    .fini = i8042_fini,
    .reset = i8042_reset,
    .settle = i8042_settle,
};
