/*
 * Theory of operation.  A timer on the main loop reads what is new in the kernel's log, from the guest's memory and
 * while it runs, so that neither a console nor the words `quiet` and `loglevel=` matter.  A splat takes the kernel some
 * time to print, on a slow console seconds, and the guest is left that time: until the function to blame is known, or
 * until a turn brings nothing new.
 */
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/bundle/bundle.h"
#include "vmm/inspect/printk.h"

enum { TURN_MS = 200, SEARCH_TURNS = 5 }; /* the search reads of every page, so it is made less often */
enum { MORE_TURNS = 50 };                 /* for a splat, at most: a log may never stand still */

struct log_watch {
    struct machine *machine;
    struct machine_observer observer;
    struct lane lane;
    struct timer timer;
    struct vmcoreinfo kernel;
    bool has_kernel;
    unsigned turns, more; /* more: since the splat was seen */
    struct printk_reader reader;
    struct splat_watch splats;
};

static void look(struct log_watch *w)
{
    if (!w->has_kernel && w->turns++ % SEARCH_TURNS == 0)
        w->has_kernel = vmcoreinfo_look(machine_memory(w->machine), &w->kernel) == 0;
    if (w->has_kernel && printk_read(&w->kernel, &w->reader) < 0)
        log_msg(LOG_DEBUG, "the kernel's log cannot be read in its memory");
}

static void take_record(struct printk_reader *r, const struct printk_record *rec)
{
    for (char *rest = rec->text, *line; (line = strsep(&rest, "\n"));)
        splat_line(&container_of(r, struct log_watch, reader)->splats, line);
}

/* Is a splat there that is not being printed any more? */
static bool is_complete(struct log_watch *w, bool news)
{
    if (!(w->splats.seen & w->splats.wanted))
        return false;
    return w->splats.function[0] || (w->more && !news) || w->more++ == MORE_TURNS;
}

static void turn(struct timer *t)
{
    struct log_watch *w = container_of(t, struct log_watch, timer);
    uint64_t before = w->reader.next;

    look(w);
    if (is_complete(w, w->reader.next != before)) {
        machine_request(w->machine, REQ_CRASHED, 0);
        return;
    }
    timer_arm(t, loop_now(w->lane.loop, CLK_GUEST) + TURN_MS * NS_PER_MS);
}

/* Memory is about to be cleared: was it a panic that led here? */
static bool on_reset(struct machine_observer *o)
{
    struct log_watch *w = container_of(o, struct log_watch, observer);
    bool died;

    w->turns = 0;
    look(w);
    died = w->splats.seen & w->splats.wanted;
    if (!died) { /* another kernel begins */
        vmcoreinfo_fini(&w->kernel);
        w->has_kernel = false;
        w->reader.next = 0;
        w->splats.seen = 0;
        w->more = 0;
    }
    return died;
}

void log_watch_create(struct machine *m, uint32_t fail_on, struct log_watch **ret)
{
    struct log_watch *w = xcalloc(1, sizeof(*w));

    w->machine = m;
    w->reader.record = take_record;
    w->splats.wanted = fail_on;
    w->observer.resets = on_reset;
    lane_init(&w->lane, machine_loop(m));
    w->timer = (struct timer){.lane = &w->lane, .clk = CLK_GUEST, .fire = turn};
    machine_observe(m, &w->observer);
    lane_lock(&w->lane);
    timer_arm(&w->timer, loop_now(w->lane.loop, CLK_GUEST) + TURN_MS * NS_PER_MS);
    lane_unlock(&w->lane);
    *ret = w;
}

bool log_watch_last(struct log_watch *w)
{
    if (!w)
        return false;
    w->turns = 0;
    if (!(w->splats.seen & w->splats.wanted) && w->splats.wanted != 1u << SPLAT_PANIC)
        look(w);
    if (!(w->splats.seen & w->splats.wanted))
        return false;
    log_msg(LOG_ERROR, "the guest's kernel says: %s", w->splats.title);
    return true;
}

void log_watch_destroy(struct log_watch *w)
{
    if (!w)
        return;
    machine_unobserve(w->machine, &w->observer);
    lane_lock(&w->lane);
    timer_disarm(&w->timer);
    lane_unlock(&w->lane);
    lane_fini(&w->lane);
    vmcoreinfo_fini(&w->kernel);
    free(w);
}
