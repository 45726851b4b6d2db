/*
 * ACPI fixed hardware [ACPI 6.3 4.8]: PM1a event and control blocks with the power button and power-off (S5), the
 * 3.579545 MHz timer, and a reset register.  There is no legacy mode: SCI_EN is always set.
 *
 * The timer's status bit is worked out when somebody looks; only a guest that enables its interrupt costs a wake-up,
 * every ten minutes.
 */
#include "devices/platform/pm.h"

#include "vmm/base/clock.h"

#define PM_TIMER_HZ 3579545ull

enum { EVENT_ENABLE = PM_EVENT + 2 };
enum {
    STS_TIMER = 1 << 0,
    STS_GLOBAL = 1 << 5, /* never happens, but an OS checks that it can be enabled; so the clock's */
    STS_POWER_BUTTON = 1 << 8,
    STS_RTC = 1 << 10,
    STS_ALL = STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_RTC,
};
enum { CNT_SCI_EN = 1 << 0, CNT_BM_RLD = 1 << 1, CNT_TYPE_SHIFT = 10, CNT_TYPE = 7 << CNT_TYPE_SHIFT };
enum { CNT_SLEEP = 1 << 13, CNT_KEPT = CNT_SCI_EN | CNT_BM_RLD | CNT_TYPE };

struct pm_state {
    uint64_t ticks; /* of the timer, when the machine stopped */
    uint32_t sts, en, cnt;
    uint32_t half; /* periods of bit 31 that had begun when the timer's status was last worked out */
};

struct pm {
    struct device dev;
    uint32_t iobase, irq;
    struct region regs;
    struct irq sci;
    struct timer overflow;
    uint64_t origin; /* the guest clock in ticks when the timer was 0; modulo 2^64 */
    struct pm_state s;
};

static int pm_check(void *obj, struct err *err)
{
    struct pm_state *s = obj;

    if (s->sts & ~STS_ALL || s->en & ~STS_ALL || s->cnt & ~CNT_KEPT || !(s->cnt & CNT_SCI_EN))
        return err_set(err, EBADMSG, "status %#x, enable %#x, control %#x have bits that do not exist", s->sts, s->en,
                       s->cnt);
    return 0;
}

static const struct field pm_fields[] = {
    F_U64(struct pm_state, ticks), F_U32(struct pm_state, sts),  F_U32(struct pm_state, en),
    F_U32(struct pm_state, cnt),   F_U32(struct pm_state, half), F_END,
};
static const struct state_desc pm_desc = {"pm", 1, sizeof(struct pm_state), pm_fields, pm_check};

static uint64_t clock_ticks(struct pm *p)
{
    uint64_t ns = loop_now(p->dev.lane.loop, CLK_GUEST);

    return ns / NS_PER_SEC * PM_TIMER_HZ + ns % NS_PER_SEC * PM_TIMER_HZ / NS_PER_SEC;
}

static uint64_t timer_ticks(struct pm *p)
{
    return clock_ticks(p) - p->origin;
}

/* The interrupt, and when to look again: when the period after s.half begins, be that in the past by now. */
static void drive(struct pm *p)
{
    irq_set(p->sci, p->s.sts & p->s.en);
    if (p->s.en & ~p->s.sts & STS_TIMER) {
        uint64_t now = timer_ticks(p), left = 0;

        if ((uint32_t)(now >> 31) == p->s.half)
            left = (1ull << 31) - (now & INT32_MAX);
        timer_arm(&p->overflow, loop_now(p->dev.lane.loop, CLK_GUEST) + left * NS_PER_SEC / PM_TIMER_HZ + 1);
    } else {
        timer_disarm(&p->overflow);
    }
}

static void update(struct pm *p)
{
    uint32_t half = timer_ticks(p) >> 31;

    if (half != p->s.half)
        p->s.sts |= STS_TIMER;
    p->s.half = half;
    drive(p);
}

static void overflow_fire(struct timer *t)
{
    update(container_of(t, struct pm, overflow));
}

static uint64_t pm_read(struct region *r, uint64_t off, unsigned size)
{
    struct pm *p = container_of(r, struct pm, regs);
    uint8_t image[PM_SIZE] = {0};
    uint32_t val = 0;

    update(p);
    put_le16(image + PM_EVENT, p->s.sts);
    put_le16(image + EVENT_ENABLE, p->s.en);
    put_le16(image + PM_CONTROL, p->s.cnt);
    put_le32(image + PM_TIMER, timer_ticks(p));
    memcpy(&val, image + off, size);
    return le32toh(val);
}

static void control_write(struct pm *p, uint16_t val)
{
    p->s.cnt = (val & CNT_KEPT) | CNT_SCI_EN;
    if (val & CNT_SLEEP && (val & CNT_TYPE) >> CNT_TYPE_SHIFT == PM_S5_TYPE)
        p->dev.env->request(p->dev.env, REQ_POWEROFF, 0);
}

/* Of any width: bytes that are not written keep what they are, or for the status register clear nothing. */
static void pm_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct pm *p = container_of(r, struct pm, regs);
    uint8_t image[PM_SIZE] = {0};

    update(p);
    put_le16(image + EVENT_ENABLE, p->s.en);
    put_le16(image + PM_CONTROL, p->s.cnt);
    val = htole64(val);
    memcpy(image + off, &val, size);
    p->s.sts &= ~get_le16(image + PM_EVENT);
    p->s.en = get_le16(image + EVENT_ENABLE) & STS_ALL;
    control_write(p, get_le16(image + PM_CONTROL));
    if (image[PM_RESET] == PM_RESET_VALUE)
        p->dev.env->request(p->dev.env, REQ_RESET, 0);
    update(p);
}

static const struct region_ops pm_ops = {.read = pm_read, .write = pm_write, .sizes = 1 | 2 | 4};

void pm_press_power_button(struct device *d)
{
    struct pm *p = container_of(d, struct pm, dev);

    lane_lock(&d->lane);
    p->s.sts |= STS_POWER_BUTTON;
    update(p);
    lane_unlock(&d->lane);
}

static int pm_init(struct device *d, struct err *err)
{
    struct pm *p = container_of(d, struct pm, dev);

    p->regs = (struct region){.name = d->id, .ops = &pm_ops, .lane = &d->lane, .len = PM_SIZE};
    p->overflow = (struct timer){.lane = &d->lane, .clk = CLK_GUEST, .fire = overflow_fire};
    p->sci = d->env->line(d->env, p->irq);
    device_add_state(d, "", &pm_desc, &p->s, 1);
    return bus_map(d->env->pio, &p->regs, p->iobase, err);
}

static void pm_fini(struct device *d)
{
    struct pm *p = container_of(d, struct pm, dev);

    timer_disarm(&p->overflow);
    bus_unmap(&p->regs);
}

static void pm_reset(struct device *d)
{
    struct pm *p = container_of(d, struct pm, dev);

    p->s = (struct pm_state){.cnt = CNT_SCI_EN};
}

static void pm_settle(struct device *d)
{
    struct pm *p = container_of(d, struct pm, dev);

    p->origin = clock_ticks(p) - p->s.ticks;
    drive(p);
}

static void pm_stop(struct device *d)
{
    struct pm *p = container_of(d, struct pm, dev);

    p->s.ticks = timer_ticks(p);
}

static const struct opt pm_opts[] = {
    O_U32(struct pm, iobase, "iobase", "0x600", 0, 0x10000 - PM_SIZE, "first of the sixteen ports"),
    O_U32(struct pm, irq, "irq", "9", 0, 23, "interrupt line (SCI)"),
    O_END,
};

const struct device_class platform_pm = {
    .name = "pm",
    .summary = "ACPI power button, power-off, timer and reset",
    .size = DEVICE_SIZE(struct pm, dev),
    .opts = pm_opts,
    .internal = true,
    .init = pm_init,
    .fini = pm_fini,
    .reset = pm_reset,
    .settle = pm_settle,
    .stop = pm_stop,
};
