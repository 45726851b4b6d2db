/*
 * UART of the 16550A kind [PC16550D data sheet], wired as a PC's serial port.  Bytes leave and arrive as fast as the
 * guest handles them: there is no baud rate, so the transmitter is empty as long as the host takes the bytes, and the
 * character timeout of the receiver is up at once when fewer bytes than the trigger level are there.
 *
 * No input is lost: bytes are taken from the backend only when there is room in the FIFO and the guest listens, which
 * it does once it has enabled the receive interrupt or polls the line status register with nothing in between.  Linux
 * empties the FIFO several times before its driver is ready; what was typed or piped in by then must not be in it.
 */
#include "devices/platform/tx.h"

#include <linux/serial_reg.h>

enum { RX_FIFO = 16, REGS = 8, POLLS = 16 };
enum { IER_ALL = UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI };
enum { LSR_IDLE = UART_LSR_THRE | UART_LSR_TEMT, IIR_FIFOS = 0xc0, FCR_KEPT = UART_FCR_ENABLE_FIFO | 0xc0 };

struct uart_state {
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t dll, dlm;
    uint8_t errors;     /* bits of the line status register: overrun, break */
    uint8_t msr_deltas; /* low half of the modem status register */
    uint8_t thr_irq;    /* the transmitter became empty, which the guest has not been told: 0 or 1 */
    uint8_t polls;      /* reads in a row that found the receiver empty, up to POLLS */
    uint8_t rx_len;
    uint8_t rx[RX_FIFO];
};

struct uart {
    struct device dev;
    uint32_t iobase, irq;
    char *spec;
    struct chardev *chardev;
    struct chardev_user user;
    struct region regs;
    struct irq line;
    bool running, rx_ready; /* rx_ready: the backend may have bytes */
    struct tx tx;
    struct uart_state s;
};

static int uart_check(void *obj, struct err *err)
{
    struct uart_state *s = obj;

    if (s->rx_len > RX_FIFO)
        return err_set(err, EBADMSG, "%u bytes in a FIFO of %d", s->rx_len, RX_FIFO);
    if (s->thr_irq > 1 || s->polls > POLLS || s->fcr & ~FCR_KEPT || s->ier & ~IER_ALL || s->mcr & 0xe0 ||
        s->msr_deltas & 0xf0 || s->errors & ~(UART_LSR_OE | UART_LSR_BI))
        return err_set(err, EBADMSG, "a register has bits that do not exist");
    return 0;
}

static const struct field uart_fields[] = {
    F_U8(struct uart_state, ier),        F_U8(struct uart_state, fcr),
    F_U8(struct uart_state, lcr),        F_U8(struct uart_state, mcr),
    F_U8(struct uart_state, scr),        F_U8(struct uart_state, dll),
    F_U8(struct uart_state, dlm),        F_U8(struct uart_state, errors),
    F_U8(struct uart_state, msr_deltas), F_U8(struct uart_state, thr_irq),
    F_U8(struct uart_state, polls),      F_U8(struct uart_state, rx_len),
    F_BYTES(struct uart_state, rx),      F_END,
};
static const struct state_desc uart_desc = {"uart", 1, sizeof(struct uart_state), uart_fields, uart_check};

static bool fifos(const struct uart *u)
{
    return u->s.fcr & UART_FCR_ENABLE_FIFO;
}

static unsigned rx_depth(const struct uart *u)
{
    return fifos(u) ? RX_FIFO : 1;
}

/* What the interrupt identification register says, by priority. */
static uint8_t pending(const struct uart *u)
{
    static const uint8_t trigger[] = {1, 4, 8, 14};

    if (u->s.ier & UART_IER_RLSI && u->s.errors)
        return UART_IIR_RLSI;
    if (u->s.ier & UART_IER_RDI && u->s.rx_len)
        return !fifos(u) || u->s.rx_len >= trigger[u->s.fcr >> 6] ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
    if (u->s.ier & UART_IER_THRI && u->s.thr_irq)
        return UART_IIR_THRI;
    if (u->s.ier & UART_IER_MSI && u->s.msr_deltas)
        return UART_IIR_MSI;
    return UART_IIR_NO_INT;
}

static void update(struct uart *u)
{
    irq_set(u->line, pending(u) != UART_IIR_NO_INT);
}

/* Enabling all interrupts while OUT2 keeps them from the line is how drivers look whether there is such a register. */
static bool listens(const struct uart *u)
{
    bool probes = u->s.ier == IER_ALL && !(u->s.mcr & UART_MCR_OUT2);

    return (u->s.ier & UART_IER_RDI && !probes) || u->s.polls == POLLS;
}

/* Takes bytes from the backend if the guest wants them. */
static void rx_pull(struct uart *u)
{
    if (!u->running || !listens(u) || u->s.mcr & UART_MCR_LOOP)
        return;
    while (u->rx_ready && u->s.rx_len < rx_depth(u)) {
        ssize_t n = chardev_read(u->chardev, u->s.rx + u->s.rx_len, rx_depth(u) - u->s.rx_len);

        u->rx_ready = n > 0; /* else readable() follows */
        if (n > 0)
            u->s.rx_len += n;
    }
}

static void readable(struct chardev_user *user)
{
    struct uart *u = container_of(user, struct uart, user);

    u->rx_ready = true;
    rx_pull(u);
    update(u);
}

static void writable(struct chardev_user *user)
{
    struct uart *u = container_of(user, struct uart, user);

    tx_flush(&u->tx);
    u->s.thr_irq |= !tx_full(&u->tx);
    update(u);
}

static uint8_t rx_take(struct uart *u)
{
    uint8_t byte = u->s.rx[0];

    if (!u->s.rx_len)
        return 0;
    memmove(u->s.rx, u->s.rx + 1, --u->s.rx_len);
    if (!u->s.rx_len)
        rx_pull(u);
    return byte;
}

/* A byte that went out comes back in. */
static void loop_back(struct uart *u, uint8_t byte)
{
    if (u->s.rx_len >= rx_depth(u)) {
        u->s.errors |= UART_LSR_OE;
        return;
    }
    u->s.rx[u->s.rx_len++] = byte;
}

static void tx_byte(struct uart *u, uint8_t byte)
{
    u->s.thr_irq = 0;
    if (u->s.mcr & UART_MCR_LOOP)
        loop_back(u, byte);
    else if (!(u->s.lcr & UART_LCR_SBC))
        tx_put(&u->tx, byte);
    u->s.thr_irq = !tx_full(&u->tx);
}

static uint8_t modem_lines(uint8_t mcr)
{
    if (!(mcr & UART_MCR_LOOP))
        return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
    return (mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
           (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static void mcr_write(struct uart *u, uint8_t val)
{
    uint8_t old = modem_lines(u->s.mcr), now = modem_lines(val);

    u->s.mcr = val & 0x1f;
    u->s.msr_deltas |= (old ^ now) >> 4 & (UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
    if (old & ~now & UART_MSR_RI) /* only its trailing edge is noted */
        u->s.msr_deltas |= UART_MSR_TERI;
    rx_pull(u);
}

static void fcr_write(struct uart *u, uint8_t val)
{
    /* Bytes stay when the FIFOs are turned on or off; the chip would drop them. */
    u->s.fcr = val & UART_FCR_ENABLE_FIFO ? val & FCR_KEPT : 0;
    if (fifos(u) && val & UART_FCR_CLEAR_RCVR)
        u->s.rx_len = 0;
    rx_pull(u);
}

static void lcr_write(struct uart *u, uint8_t val)
{
    bool break_on = val & ~u->s.lcr & UART_LCR_SBC;

    u->s.lcr = val;
    if (break_on && u->s.mcr & UART_MCR_LOOP) {
        u->s.errors |= UART_LSR_BI;
        loop_back(u, 0);
    }
}

static void ier_write(struct uart *u, uint8_t val)
{
    if (val & ~u->s.ier & UART_IER_THRI)
        u->s.thr_irq = !tx_full(&u->tx);
    u->s.ier = val & IER_ALL;
    rx_pull(u);
}

static uint8_t iir_read(struct uart *u)
{
    uint8_t iir = pending(u);

    if (iir == UART_IIR_THRI)
        u->s.thr_irq = 0;
    return iir | (fifos(u) ? IIR_FIFOS : 0);
}

static uint8_t lsr_read(struct uart *u)
{
    uint8_t lsr;

    if (!u->s.rx_len && !tx_full(&u->tx)) {
        u->s.polls += u->s.polls < POLLS;
        rx_pull(u);
    }
    lsr = u->s.errors | (u->s.rx_len ? UART_LSR_DR : 0) | (tx_full(&u->tx) ? 0 : LSR_IDLE);
    if (u->s.errors & UART_LSR_BI && fifos(u))
        lsr |= UART_LSR_FIFOE;
    u->s.errors = 0;
    return lsr;
}

static uint8_t msr_read(struct uart *u)
{
    uint8_t msr = modem_lines(u->s.mcr) | u->s.msr_deltas;

    u->s.msr_deltas = 0;
    return msr;
}

static uint8_t reg_read(struct uart *u, unsigned reg)
{
    bool dlab = u->s.lcr & UART_LCR_DLAB;

    if (reg != UART_LSR)
        u->s.polls = 0;
    switch (reg) {
    case UART_RX:
        return dlab ? u->s.dll : rx_take(u);
    case UART_IER:
        return dlab ? u->s.dlm : u->s.ier;
    case UART_IIR:
        return iir_read(u);
    case UART_LCR:
        return u->s.lcr;
    case UART_MCR:
        return u->s.mcr;
    case UART_LSR:
        return lsr_read(u);
    case UART_MSR:
        return msr_read(u);
    default:
        return u->s.scr;
    }
}

static void reg_write(struct uart *u, unsigned reg, uint8_t val)
{
    bool dlab = u->s.lcr & UART_LCR_DLAB;

    u->s.polls = 0;
    switch (reg) {
    case UART_TX:
        if (dlab)
            u->s.dll = val;
        else
            tx_byte(u, val);
        break;
    case UART_IER:
        if (dlab)
            u->s.dlm = val;
        else
            ier_write(u, val);
        break;
    case UART_FCR:
        fcr_write(u, val);
        break;
    case UART_LCR:
        lcr_write(u, val);
        break;
    case UART_MCR:
        mcr_write(u, val);
        break;
    case UART_SCR:
        u->s.scr = val;
        break;
    }
}

static uint64_t uart_read(struct region *r, uint64_t off, unsigned size)
{
    struct uart *u = container_of(r, struct uart, regs);
    uint8_t val = reg_read(u, off);

    (void)size;
    update(u);
    return val;
}

static void uart_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct uart *u = container_of(r, struct uart, regs);

    (void)size;
    reg_write(u, off, val);
    update(u);
}

static const struct region_ops uart_ops = {.read = uart_read, .write = uart_write, .sizes = 1};

static int uart_init(struct device *d, struct err *err)
{
    struct uart *u = container_of(d, struct uart, dev);
    int ret;

    u->regs = (struct region){.name = d->id, .ops = &uart_ops, .lane = &d->lane, .len = REGS};
    u->user = (struct chardev_user){.readable = readable, .writable = writable};
    device_add_state(d, "", &uart_desc, &u->s, 1);
    ret = chardev_open(u->spec, d, &u->chardev, err);
    if (ret)
        return ret;
    tx_init(&u->tx, d, u->chardev);
    chardev_attach(u->chardev, &u->user);
    u->line = d->env->line(d->env, u->irq);
    return bus_map(d->env->pio, &u->regs, u->iobase, err);
}

static void uart_fini(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    bus_unmap(&u->regs);
    chardev_close(u->chardev);
}

static void uart_reset(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    u->s = (struct uart_state){.dll = 1, .thr_irq = 1};
}

static void uart_settle(struct device *d)
{
    update(container_of(d, struct uart, dev));
}

static void uart_start(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    u->running = true;
    rx_pull(u);
    update(u);
}

static void uart_stop(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    u->running = false;
    tx_finish(&u->tx);
}

static const struct opt uart_opts[] = {
    O_U32(struct uart, iobase, "iobase", "0x3f8", 0, 0x10000 - REGS, "first of the eight ports"),
    O_U32(struct uart, irq, "irq", "4", 0, 23, "interrupt line"),
    O_STR(struct uart, spec, "chardev", "null", "where the bytes go and come from", .arg = CHARDEV_ARG),
    O_END,
};

const struct device_class platform_uart = {
    .name = "uart",
    .summary = "16550A serial port",
    .size = DEVICE_SIZE(struct uart, dev),
    .opts = uart_opts,
    .init = uart_init,
    .fini = uart_fini,
    .reset = uart_reset,
    .settle = uart_settle,
    .start = uart_start,
    .stop = uart_stop,
};
