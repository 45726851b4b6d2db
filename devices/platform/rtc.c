/*
 * Real-time clock and CMOS RAM of the MC146818 kind [MC146818A data sheet], with the century at 0x32 [ACPI 6.3 4.8.2.4
 * leaves the place to us].  Its time is the host's UTC plus what the guest has set it forward.
 *
 * Nothing ticks: the time is computed when it is read, and the flags in register C from the time of the last look.  A
 * timer runs only for an interrupt that is enabled and not yet pending.
 */
#include <time.h>

#include "devices/core/device.h"
#include "vmm/base/clock.h"

enum { PORTS = 2, CMOS_SIZE = 128, ALARM_ANY = 0xc0, CRYSTAL_HZ = 32768, UPDATE_NS = 244000 };
enum reg {
    SECONDS = 0,
    SECONDS_ALARM = 1,
    MINUTES = 2,
    MINUTES_ALARM = 3,
    HOURS = 4,
    HOURS_ALARM = 5,
    WEEKDAY = 6,
    DAY = 7,
    MONTH = 8,
    YEAR = 9,
    REG_A = 10,
    REG_B = 11,
    REG_C = 12,
    REG_D = 13,
    CENTURY = 0x32,
};
enum { A_UPDATING = 1 << 7, A_RATE = 0x0f, A_32KHZ = 0x20, A_1024HZ = 6, HOURS_PM = 1 << 7 };
enum { B_SET = 1 << 7, B_BINARY = 1 << 2, B_24H = 1 << 1 };
enum { C_IRQ = 1 << 7, PERIODIC = 1 << 6, ALARM = 1 << 5, UPDATE = 1 << 4 }; /* in B: enables; in C: flags */
enum { C_FLAGS = PERIODIC | ALARM | UPDATE };

struct rtc_state {
    uint64_t ahead; /* of the host's UTC, ns, modulo 2^64 */
    uint64_t seen;  /* the clock when the flags were last worked out; 0: not yet */
    uint32_t index, flags;
    uint8_t cmos[CMOS_SIZE]; /* the time's bytes count only while B_SET stops the clock */
};

struct rtc {
    struct device dev;
    uint32_t iobase, irq;
    struct region regs;
    struct irq line;
    struct timer timer;
    struct rtc_state s;
};

static int rtc_check(void *obj, struct err *err)
{
    struct rtc_state *s = obj;

    if (s->index >= CMOS_SIZE || s->flags & ~C_FLAGS)
        return err_set(err, EBADMSG, "index %#x, flags %#x", s->index, s->flags);
    return 0;
}

static const struct field rtc_fields[] = {
    F_U64(struct rtc_state, ahead), F_U64(struct rtc_state, seen),   F_U32(struct rtc_state, index),
    F_U32(struct rtc_state, flags), F_BYTES(struct rtc_state, cmos), F_END,
};
static const struct state_desc rtc_desc = {"rtc", 1, sizeof(struct rtc_state), rtc_fields, rtc_check};

static uint64_t rtc_now(const struct rtc *r)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec + r->s.ahead;
}

static bool stopped(const struct rtc *r)
{
    return r->s.cmos[REG_B] & B_SET;
}

static uint8_t encode(const struct rtc *r, unsigned v)
{
    return r->s.cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10;
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
    return r->s.cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 0xf);
}

static uint8_t encode_hours(const struct rtc *r, unsigned h)
{
    if (r->s.cmos[REG_B] & B_24H)
        return encode(r, h);
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? HOURS_PM : 0);
}

static unsigned decode_hours(const struct rtc *r, uint8_t v)
{
    if (r->s.cmos[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & ~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

/* Puts the time into the CMOS bytes. */
static void time_load(struct rtc *r)
{
    time_t t = rtc_now(r) / NS_PER_SEC;
    struct tm tm;

    gmtime_r(&t, &tm);
    r->s.cmos[SECONDS] = encode(r, tm.tm_sec);
    r->s.cmos[MINUTES] = encode(r, tm.tm_min);
    r->s.cmos[HOURS] = encode_hours(r, tm.tm_hour);
    r->s.cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
    r->s.cmos[DAY] = encode(r, tm.tm_mday);
    r->s.cmos[MONTH] = encode(r, tm.tm_mon + 1);
    r->s.cmos[YEAR] = encode(r, tm.tm_year % 100);
    r->s.cmos[CENTURY] = encode(r, (tm.tm_year + 1900) / 100);
}

/* Sets the clock from them: any bytes make some time. */
static void time_store(struct rtc *r)
{
    struct tm tm = {
        .tm_sec = decode(r, r->s.cmos[SECONDS]),
        .tm_min = decode(r, r->s.cmos[MINUTES]),
        .tm_hour = decode_hours(r, r->s.cmos[HOURS]),
        .tm_mday = decode(r, r->s.cmos[DAY]),
        .tm_mon = (int)decode(r, r->s.cmos[MONTH]) - 1,
        .tm_year = (int)(decode(r, r->s.cmos[CENTURY]) * 100 + decode(r, r->s.cmos[YEAR])) - 1900,
    };

    r->s.ahead += (uint64_t)timegm(&tm) * NS_PER_SEC - rtc_now(r);
    r->s.seen = 0;
}

static bool is_time(unsigned reg)
{
    return reg == SECONDS || reg == MINUTES || reg == HOURS || (reg >= WEEKDAY && reg <= YEAR) || reg == CENTURY;
}

/* Seconds from `now` to the next alarm, or 0 when the alarm's bytes are no time of day. */
static uint64_t alarm_in(const struct rtc *r, uint64_t now)
{
    const uint8_t *c = r->s.cmos;
    uint64_t t = now + 1;

    for (unsigned steps = 24 + 60 + 60; steps; steps--) { /* each of the three steps on at most once around */
        if (c[HOURS_ALARM] < ALARM_ANY && t / 3600 % 24 != decode_hours(r, c[HOURS_ALARM]))
            t = (t / 3600 + 1) * 3600;
        else if (c[MINUTES_ALARM] < ALARM_ANY && t / 60 % 60 != decode(r, c[MINUTES_ALARM]))
            t = (t / 60 + 1) * 60;
        else if (c[SECONDS_ALARM] < ALARM_ANY && t % 60 != decode(r, c[SECONDS_ALARM]))
            t++;
        else
            return t - now;
    }
    return 0;
}

/* Of the periodic interrupt, in cycles of the crystal; 0: off. */
static unsigned period(const struct rtc *r)
{
    unsigned rate = r->s.cmos[REG_A] & A_RATE;

    if (rate == 1 || rate == 2)
        rate += 7;
    return rate ? 1u << (rate - 1) : 0;
}

static uint64_t cycles(uint64_t ns)
{
    return ns / NS_PER_SEC * CRYSTAL_HZ + ns % NS_PER_SEC * CRYSTAL_HZ / NS_PER_SEC;
}

/* Raises the flags of all that has happened since the last look. */
static void look(struct rtc *r, uint64_t now)
{
    uint64_t seen = r->s.seen && r->s.seen <= now ? r->s.seen : now, s0 = seen / NS_PER_SEC, s1 = now / NS_PER_SEC;
    unsigned p = period(r);

    if (s1 > s0 && !stopped(r)) {
        uint64_t in = alarm_in(r, s0);

        r->s.flags |= UPDATE;
        if (in && in <= s1 - s0)
            r->s.flags |= ALARM;
    }
    if (p && cycles(seen) / p != cycles(now) / p)
        r->s.flags |= PERIODIC;
    r->s.seen = now;
}

/* How long until one of the flags in `want` goes up; UINT64_MAX: never. */
static uint64_t next_flag(const struct rtc *r, uint64_t now, unsigned want)
{
    uint64_t due = UINT64_MAX, in = alarm_in(r, now / NS_PER_SEC), since = now % NS_PER_SEC;
    unsigned p = period(r);

    if (want & UPDATE && !stopped(r))
        due = NS_PER_SEC - since;
    if (want & ALARM && !stopped(r) && in)
        due = min_u64(due, in * NS_PER_SEC - since);
    if (want & PERIODIC && p)
        due = min_u64(due, (p - cycles(now) % p) * NS_PER_SEC / CRYSTAL_HZ + 1);
    return due;
}

static void drive(struct rtc *r, uint64_t now)
{
    uint64_t due = next_flag(r, now, r->s.cmos[REG_B] & ~r->s.flags & C_FLAGS);

    irq_set(r->line, r->s.flags & r->s.cmos[REG_B]);
    if (due == UINT64_MAX)
        timer_disarm(&r->timer);
    else
        timer_arm(&r->timer, loop_now(r->dev.lane.loop, CLK_GUEST) + due);
}

static void update(struct rtc *r)
{
    uint64_t now = rtc_now(r);

    look(r, now);
    drive(r, now);
}

static void timer_fire(struct timer *t)
{
    update(container_of(t, struct rtc, timer));
}

static uint8_t flags_read(struct rtc *r)
{
    uint8_t val = r->s.flags | (r->s.flags & r->s.cmos[REG_B] ? C_IRQ : 0);

    r->s.flags = 0;
    update(r);
    return val;
}

static bool updating(const struct rtc *r)
{
    return !stopped(r) && rtc_now(r) % NS_PER_SEC >= NS_PER_SEC - UPDATE_NS;
}

static uint64_t rtc_read(struct region *region, uint64_t off, unsigned size)
{
    struct rtc *r = container_of(region, struct rtc, regs);
    unsigned reg = r->s.index;

    (void)size;
    if (off == 0)
        return 0xff; /* the index cannot be read */
    update(r);
    if (is_time(reg) && !stopped(r))
        time_load(r);
    if (reg == REG_A)
        return r->s.cmos[REG_A] | (updating(r) ? A_UPDATING : 0);
    return reg == REG_C ? flags_read(r) : r->s.cmos[reg];
}

static void time_write(struct rtc *r, unsigned reg, uint8_t val)
{
    if (stopped(r)) {
        r->s.cmos[reg] = val;
        return;
    }
    time_load(r);
    r->s.cmos[reg] = val;
    time_store(r);
}

static void b_write(struct rtc *r, uint8_t val)
{
    if (!stopped(r) && val & B_SET)
        time_load(r);
    if (stopped(r) && !(val & B_SET)) {
        r->s.cmos[REG_B] = val; /* in the form that it now has */
        time_store(r);
    }
    r->s.cmos[REG_B] = val;
}

static void rtc_write(struct region *region, uint64_t off, uint64_t val, unsigned size)
{
    struct rtc *r = container_of(region, struct rtc, regs);
    unsigned reg = r->s.index;

    (void)size;
    if (off == 0) {
        r->s.index = val % CMOS_SIZE; /* bit 7 masks NMIs, of which there are none */
        return;
    }
    update(r);
    if (is_time(reg))
        time_write(r, reg, val);
    else if (reg == REG_A)
        r->s.cmos[REG_A] = val & ~A_UPDATING;
    else if (reg == REG_B)
        b_write(r, val);
    else if (reg != REG_C && reg != REG_D)
        r->s.cmos[reg] = val;
    update(r);
}

static const struct region_ops rtc_ops = {.read = rtc_read, .write = rtc_write, .sizes = 1};

static int rtc_init(struct device *d, struct err *err)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    r->regs = (struct region){.name = d->id, .ops = &rtc_ops, .lane = &d->lane, .len = PORTS};
    r->timer = (struct timer){.lane = &d->lane, .clk = CLK_GUEST, .fire = timer_fire};
    r->line = d->env->line(d->env, r->irq);
    device_add_state(d, "", &rtc_desc, &r->s, 1);
    return bus_map(d->env->pio, &r->regs, r->iobase, err);
}

static void rtc_fini(struct device *d)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    timer_disarm(&r->timer);
    bus_unmap(&r->regs);
}

static void rtc_reset(struct device *d)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    r->s = (struct rtc_state){.cmos = {[REG_A] = A_32KHZ | A_1024HZ, [REG_B] = B_24H, [REG_D] = 0x80}};
}

static void rtc_settle(struct device *d)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    drive(r, rtc_now(r));
}

static void rtc_start(struct device *d)
{
    update(container_of(d, struct rtc, dev));
}

static const struct opt rtc_opts[] = {
    O_U32(struct rtc, iobase, "iobase", "0x70", 0, 0x10000 - PORTS, "first of the two ports"),
    O_U32(struct rtc, irq, "irq", "8", 0, 23, "interrupt line"),
    O_END,
};

const struct device_class platform_rtc = {
    .name = "rtc",
    .summary = "MC146818 real-time clock",
    .size = DEVICE_SIZE(struct rtc, dev),
    .opts = rtc_opts,
    .internal = true,
    .init = rtc_init,
    .fini = rtc_fini,
    .reset = rtc_reset,
    .settle = rtc_settle,
    .start = rtc_start,
};
