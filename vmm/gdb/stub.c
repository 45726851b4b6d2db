#include "vmm/gdb/stub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/gdb/regs.h"
#include "vmm/inspect/paging.h"

enum { PAGE = 4096, INT3 = 0xcc, SIGNAL_INT = 2, SIGNAL_TRAP = 5 };
enum { MEMORY_MAX = (GDB_PACKET_MAX - 1) / 2 }; /* bytes in one answer */

/* What is left of a packet. */
struct text {
    const char *p, *end;
};

static bool skip(struct text *t, char c)
{
    bool there = t->p < t->end && *t->p == c;

    t->p += there;
    return there;
}

/* A number in hexadecimal, of at least one digit and at most 64 bits. */
static bool number(struct text *t, uint64_t *ret)
{
    const char *from = t->p;

    for (*ret = 0; t->p < t->end && gdb_digit(*t->p) >= 0; t->p++) {
        if (*ret >> 60)
            return false;
        *ret = *ret << 4 | (unsigned)gdb_digit(*t->p);
    }
    return t->p > from;
}

static void failed(struct gdb_reply *r, int code)
{
    gdb_reply_text(r, "E%02x", (unsigned)code & 0xff);
}

static void answer(struct gdb_reply *r, int code)
{
    if (code)
        failed(r, -code);
    else
        gdb_reply_text(r, "OK");
}

/* "-1" and "0" are any CPU: the one that gdb looks at. */
static bool thread(const struct gdb_stub *s, struct text *t, unsigned *ret)
{
    uint64_t n;

    *ret = s->cpu;
    if (skip(t, '-'))
        return number(t, &n);
    if (!number(t, &n) || n > s->guest->ncpus)
        return false;
    if (n)
        *ret = (unsigned)n - 1;
    return true;
}

/* --- registers --- */

static enum gdb_wish read_all(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    struct cpu_state state;
    int rc = s->guest->get(s->guest, s->cpu, &state);

    (void)t;
    if (rc) {
        failed(r, -rc);
        return GDB_STAY;
    }
    for (unsigned i = 0; i < GDB_REGS; i++) {
        uint8_t value[16];

        gdb_reg_get(i, &state, value);
        gdb_reply_hex(r, value, gdb_regs[i].len);
    }
    return GDB_STAY;
}

static enum gdb_wish write_all(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    uint8_t values[GDB_REGS_BYTES], *v = values;
    struct cpu_state state;
    int rc = s->guest->get(s->guest, s->cpu, &state);

    if (!rc && !gdb_unhex(t->p, (size_t)(t->end - t->p), values, sizeof(values)))
        rc = -EINVAL;
    for (unsigned i = 0; i < GDB_REGS && !rc; v += gdb_regs[i++].len)
        gdb_reg_set(i, &state, v);
    answer(r, rc ? rc : s->guest->set(s->guest, s->cpu, &state));
    return GDB_STAY;
}

static enum gdb_wish read_one(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    struct cpu_state state;
    uint8_t value[16];
    uint64_t n;
    int rc = number(t, &n) && n < GDB_REGS ? s->guest->get(s->guest, s->cpu, &state) : -EINVAL;

    if (rc) {
        failed(r, -rc);
        return GDB_STAY;
    }
    gdb_reg_get((unsigned)n, &state, value);
    gdb_reply_hex(r, value, gdb_regs[n].len);
    return GDB_STAY;
}

static enum gdb_wish write_one(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    struct cpu_state state;
    uint8_t value[16];
    uint64_t n;
    int rc = s->guest->get(s->guest, s->cpu, &state);

    if (!rc && (!number(t, &n) || n >= GDB_REGS || !skip(t, '=') ||
                !gdb_unhex(t->p, (size_t)(t->end - t->p), value, gdb_regs[n].len)))
        rc = -EINVAL;
    if (!rc) {
        gdb_reg_set((unsigned)n, &state, value);
        rc = s->guest->set(s->guest, s->cpu, &state);
    }
    answer(r, rc);
    return GDB_STAY;
}

/* --- memory --- */

/* Where a byte lies, and how many follow it there. */
static int locate(struct gdb_stub *s, uint64_t addr, gpa_t *ret, uint64_t *left)
{
    struct cpu_state state;
    struct paging paging;
    int rc;

    if (s->physical) {
        *ret = addr;
        *left = UINT64_MAX - addr;
        return 0;
    }
    rc = s->guest->get(s->guest, s->cpu, &state);
    if (rc)
        return rc;
    paging = paging_of(s->guest->mem, &state);
    return paging_walk(&paging, addr, ret, left);
}

/* gdb shall not see its own breakpoints, nor overwrite them. */
static void hide_breaks(const struct gdb_stub *s, gpa_t at, uint8_t *bytes, size_t n)
{
    for (unsigned i = 0; i < s->nbreaks; i++)
        if (s->breaks[i].at - at < n && bytes[s->breaks[i].at - at] == INT3)
            bytes[s->breaks[i].at - at] = s->breaks[i].was;
}

static void keep_breaks(struct gdb_stub *s, gpa_t at, uint8_t *bytes, size_t n)
{
    for (unsigned i = 0; i < s->nbreaks; i++)
        if (s->breaks[i].at - at < n) {
            s->breaks[i].was = bytes[s->breaks[i].at - at];
            bytes[s->breaks[i].at - at] = INT3;
        }
}

/* What can be had of it from the start on; gdb asks for the rest again. */
static enum gdb_wish read_memory(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    uint64_t addr, n, left;
    size_t done = 0;
    uint8_t bytes[PAGE];
    int rc = 0;

    if (!number(t, &addr) || !skip(t, ',') || !number(t, &n)) {
        failed(r, EINVAL);
        return GDB_STAY;
    }
    for (n = min_u64(n, MEMORY_MAX); done < n; done += left) {
        gpa_t at;

        rc = locate(s, addr + done, &at, &left);
        if (rc)
            break;
        left = min_u64(min_u64(left, n - done), PAGE - at % PAGE);
        if (!left || gmem_read(s->guest->mem, at, bytes, left))
            break;
        hide_breaks(s, at, bytes, left);
        gdb_reply_hex(r, bytes, left);
    }
    if (n && !done)
        failed(r, rc ? -rc : EFAULT);
    return GDB_STAY;
}

static int store(struct gdb_stub *s, uint64_t addr, uint8_t *bytes, size_t n)
{
    uint64_t left;

    for (size_t done = 0; done < n; done += left) {
        gpa_t at;
        int rc = locate(s, addr + done, &at, &left);

        if (rc || !left)
            return rc ? rc : -EFAULT;
        left = min_u64(left, n - done);
        keep_breaks(s, at, bytes + done, left);
        if (gmem_write(s->guest->mem, at, bytes + done, left))
            return -EFAULT;
    }
    return 0;
}

static bool address_and_length(struct text *t, uint64_t *addr, uint64_t *n)
{
    return number(t, addr) && skip(t, ',') && number(t, n) && skip(t, ':') && *n <= GDB_PACKET_MAX;
}

static enum gdb_wish write_hex(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    uint8_t bytes[GDB_PACKET_MAX];
    uint64_t addr, n;
    bool good = address_and_length(t, &addr, &n) && gdb_unhex(t->p, (size_t)(t->end - t->p), bytes, n);

    answer(r, good ? store(s, addr, bytes, n) : -EINVAL);
    return GDB_STAY;
}

static enum gdb_wish write_binary(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    uint8_t bytes[GDB_PACKET_MAX];
    uint64_t addr, n;
    bool good = address_and_length(t, &addr, &n) && n == (size_t)(t->end - t->p);

    if (good)
        memcpy(bytes, t->p, n);
    answer(r, good ? store(s, addr, bytes, n) : -EINVAL);
    return GDB_STAY;
}

/* --- breakpoints --- */

static void tell(struct gdb_stub *s)
{
    for (unsigned i = 0; i < s->nbreaks; i++)
        s->addrs[i] = s->breaks[i].addr;
    s->debug.nbreaks = s->nbreaks;
    s->debug.breaks = s->addrs;
    s->guest->debug(s->guest, &s->debug);
}

static unsigned find_break(const struct gdb_stub *s, uint64_t addr)
{
    unsigned i = 0;

    while (i < s->nbreaks && s->breaks[i].addr != addr)
        i++;
    return i;
}

static int set_break(struct gdb_stub *s, uint64_t addr)
{
    struct gdb_break *b = &s->breaks[s->nbreaks];
    static const uint8_t int3 = INT3;
    uint64_t left;
    int rc;

    if (find_break(s, addr) < s->nbreaks)
        return 0;
    if (s->nbreaks == GDB_BREAKS_MAX)
        return -ENOSPC;
    rc = locate(s, addr, &b->at, &left);
    if (!rc)
        rc = gmem_read(s->guest->mem, b->at, &b->was, 1);
    if (!rc)
        rc = gmem_write(s->guest->mem, b->at, &int3, 1);
    if (rc)
        return rc;
    b->addr = addr;
    s->nbreaks++;
    return 0;
}

/* The guest may have started anew, or patched itself there. */
static void lift_break(struct gdb_stub *s, unsigned i)
{
    const struct gdb_break *b = &s->breaks[i];
    uint8_t now;

    if (!gmem_read(s->guest->mem, b->at, &now, 1) && now == INT3 && gmem_write(s->guest->mem, b->at, &b->was, 1))
        assert(false); /* it was readable */
    s->breaks[i] = s->breaks[--s->nbreaks];
}

static unsigned find_hw(const struct gdb_stub *s, uint64_t addr, uint64_t len, unsigned kind)
{
    unsigned i = 0;

    while (i < s->debug.nhw &&
           (s->debug.hw[i].addr != addr || s->debug.hw[i].len != len || (unsigned)s->debug.hw[i].kind != kind))
        i++;
    return i;
}

static int set_hw(struct gdb_stub *s, uint64_t addr, uint64_t len, unsigned kind)
{
    unsigned i = find_hw(s, addr, len, kind);

    if (!is_pow2(len) || len > 8 || addr & (len - 1))
        return -EINVAL;
    if (i == VM_HW_BREAKS)
        return -ENOSPC;
    s->debug.hw[i].addr = addr;
    s->debug.hw[i].len = (uint8_t)len;
    s->debug.hw[i].kind = kind;
    s->debug.nhw += i == s->debug.nhw;
    return 0;
}

/* "Z0,ADDR,KIND": 0 software, 1 hardware, 2 write, 3 read, which x86 can only watch with writes, 4 access. */
static enum gdb_wish breakpoint(struct gdb_stub *s, struct text *t, struct gdb_reply *r, bool set)
{
    static const uint8_t kinds[] = {[1] = VM_BREAK_EXECUTE, [2] = VM_BREAK_WRITE, [4] = VM_BREAK_ACCESS};
    uint64_t type, addr, len;
    unsigned i;
    int rc = 0;

    if (!number(t, &type) || !skip(t, ',') || !number(t, &addr) || !skip(t, ',') || !number(t, &len)) {
        failed(r, EINVAL);
        return GDB_STAY;
    }
    if (type > 4 || type == 3)
        return GDB_STAY;
    if (type == 1)
        len = 1;
    if (!type) {
        if (set)
            rc = set_break(s, addr);
        else if ((i = find_break(s, addr)) < s->nbreaks)
            lift_break(s, i);
    } else if (set) {
        rc = set_hw(s, addr, len, kinds[type]);
    } else if ((i = find_hw(s, addr, len, kinds[type])) < s->debug.nhw) {
        s->debug.hw[i] = s->debug.hw[--s->debug.nhw];
    }
    tell(s);
    answer(r, rc);
    return GDB_STAY;
}

static enum gdb_wish insert(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    return breakpoint(s, t, r, true);
}

static enum gdb_wish take_out(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    return breakpoint(s, t, r, false);
}

/* --- running --- */

static bool plan_of(char action, enum vm_plan *ret)
{
    *ret = action == 's' || action == 'S' ? VM_STEP : VM_RUN;
    return action == 's' || action == 'S' || action == 'c' || action == 'C';
}

/* ";ACTION[:THREAD]…": for each CPU the first that names it, or names none; a CPU without stays. */
static enum gdb_wish resume(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    for (unsigned i = 0; i < s->guest->ncpus; i++)
        s->plans[i] = VM_STAY;
    while (skip(t, ';')) {
        unsigned first = 0, last = s->guest->ncpus - 1;
        enum vm_plan plan;
        uint64_t signal;
        char action = t->p < t->end ? *t->p++ : 0;

        if (!plan_of(action, &plan) || ((action == 'S' || action == 'C') && !number(t, &signal)))
            goto bad;
        if (skip(t, ':') && !(t->end - t->p >= 2 && t->p[0] == '-' && (t->p += 2))) {
            if (!thread(s, t, &first))
                goto bad;
            last = first;
        }
        for (unsigned i = first; i <= last; i++)
            if (s->plans[i] == VM_STAY)
                s->plans[i] = plan;
    }
    return GDB_RESUME;
bad:
    failed(r, EINVAL);
    return GDB_STAY;
}

/* "c", "s" without vCont: the CPU that gdb looks at, and all others run. */
static enum gdb_wish resume_all(struct gdb_stub *s, char action)
{
    for (unsigned i = 0; i < s->guest->ncpus; i++)
        s->plans[i] = VM_RUN;
    if (!plan_of(action, &s->plans[s->cpu]))
        assert(false);
    return GDB_RESUME;
}

static enum gdb_wish go_on(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)r;
    return resume_all(s, t->p[-1]);
}

/* The CPU that is named in "thread:" is the one that gdb looks at next. */
static void say_why(struct gdb_stub *s, unsigned cpu, struct vm_hit hit)
{
    static const char *const watches[] = {[VM_BREAK_WRITE] = "watch", [VM_BREAK_ACCESS] = "awatch"};
    int n = snprintf(s->why, sizeof(s->why), "T%02xthread:%x;",
                     hit.what == VM_HIT_NONE ? (unsigned)SIGNAL_INT : (unsigned)SIGNAL_TRAP, cpu + 1);

    if (hit.what == VM_HIT_BREAK)
        snprintf(s->why + n, sizeof(s->why) - (size_t)n, "swbreak:;");
    else if (hit.what == VM_HIT_HW && s->debug.hw[hit.hw].kind == VM_BREAK_EXECUTE)
        snprintf(s->why + n, sizeof(s->why) - (size_t)n, "hwbreak:;");
    else if (hit.what == VM_HIT_HW)
        snprintf(s->why + n, sizeof(s->why) - (size_t)n, "%s:%llx;", watches[s->debug.hw[hit.hw].kind],
                 (unsigned long long)s->debug.hw[hit.hw].addr);
}

void gdb_stub_stopped(struct gdb_stub *s, unsigned cpu, struct vm_hit hit, struct gdb_reply *reply)
{
    s->cpu = cpu;
    say_why(s, cpu, hit);
    gdb_reply_text(reply, "%s", s->why);
}

static enum gdb_wish why(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)t;
    gdb_reply_text(r, "%s", s->why);
    return GDB_STAY;
}

static enum gdb_wish detach(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)s, (void)t;
    gdb_reply_text(r, "OK");
    return GDB_DETACH;
}

static enum gdb_wish kill_guest(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)s, (void)t;
    gdb_reply_text(r, "OK");
    return GDB_KILL;
}

/* --- threads and questions --- */

static enum gdb_wish choose_thread(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    bool good;
    unsigned cpu;

    t->p += t->p < t->end; /* for what: all the same to us */
    good = thread(s, t, &cpu);
    if (good)
        s->cpu = cpu;
    answer(r, good ? 0 : -EINVAL);
    return GDB_STAY;
}

static enum gdb_wish is_alive(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    unsigned cpu;

    answer(r, thread(s, t, &cpu) ? 0 : -EINVAL);
    return GDB_STAY;
}

static enum gdb_wish current_thread(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    if (t->p == t->end) /* not qCRC */
        gdb_reply_text(r, "QC%x", s->cpu + 1);
    return GDB_STAY;
}

static enum gdb_wish more_threads(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    enum { AT_ONCE = 512 };
    unsigned end = (unsigned)min_u64(s->listed + AT_ONCE, s->guest->ncpus);

    (void)t;
    if (s->listed == end)
        gdb_reply_text(r, "l");
    for (char c = 'm'; s->listed < end; c = ',')
        gdb_reply_text(r, "%c%x", c, ++s->listed);
    return GDB_STAY;
}

static enum gdb_wish first_threads(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    s->listed = 0;
    return more_threads(s, t, r);
}

static enum gdb_wish thread_name(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    static const char *const activities[] = {
        [CPU_RUNS] = "running", [CPU_HALTED] = "halted", [CPU_WAITS] = "not started"};
    struct cpu_state state;
    char text[64];
    unsigned cpu;

    if (!thread(s, t, &cpu) || s->guest->get(s->guest, cpu, &state)) {
        failed(r, EINVAL);
        return GDB_STAY;
    }
    snprintf(text, sizeof(text), "CPU %u, %s, level %u", cpu, activities[state.activity], state.level & 3);
    gdb_reply_hex(r, text, strlen(text));
    return GDB_STAY;
}

static enum gdb_wish features(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)s, (void)t;
    gdb_reply_text(r, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
                   GDB_PACKET_MAX - 1);
    return GDB_STAY;
}

static enum gdb_wish no_ack(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)t;
    s->no_ack = true;
    gdb_reply_text(r, "OK");
    return GDB_STAY;
}

static enum gdb_wish description(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    size_t len = strlen(s->xml);
    uint64_t off, n;

    if (!number(t, &off) || !skip(t, ',') || !number(t, &n) || off > len) {
        failed(r, EINVAL);
        return GDB_STAY;
    }
    n = min_u64(min_u64(n, len - off), GDB_PACKET_MAX - 1);
    gdb_reply_text(r, "%c", off + n < len ? 'm' : 'l');
    gdb_reply_bytes(r, s->xml + off, n);
    return GDB_STAY;
}

static enum gdb_wish actions(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)s, (void)t;
    gdb_reply_text(r, "vCont;c;C;s;S");
    return GDB_STAY;
}

/* That quitting gdb detaches from the guest. */
static enum gdb_wish attached(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)s, (void)t;
    gdb_reply_text(r, "1");
    return GDB_STAY;
}

static enum gdb_wish is_physical(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    (void)t;
    gdb_reply_text(r, "%d", s->physical);
    return GDB_STAY;
}

static enum gdb_wish set_physical(struct gdb_stub *s, struct text *t, struct gdb_reply *r)
{
    uint64_t on;
    bool good = number(t, &on);

    if (good)
        s->physical = on;
    answer(r, good ? 0 : -EINVAL);
    return GDB_STAY;
}

/* By how it begins; the first that fits.  What is not here gets an empty answer: gdb knows then that we cannot. */
static const struct {
    const char *begins;
    enum gdb_wish (*serve)(struct gdb_stub *s, struct text *t, struct gdb_reply *r);
} packets[] = {
    {"qSupported", features},
    {"QStartNoAckMode", no_ack},
    {"qXfer:features:read:target.xml:", description},
    {"qfThreadInfo", first_threads},
    {"qsThreadInfo", more_threads},
    {"qThreadExtraInfo,", thread_name},
    {"qC", current_thread},
    {"qAttached", attached},
    {"qqemu.PhyMemMode", is_physical},
    {"Qqemu.PhyMemMode:", set_physical},
    {"vCont?", actions},
    {"vCont", resume},
    {"vKill;", kill_guest},
    {"?", why},
    {"g", read_all},
    {"G", write_all},
    {"p", read_one},
    {"P", write_one},
    {"m", read_memory},
    {"M", write_hex},
    {"X", write_binary},
    {"Z", insert},
    {"z", take_out},
    {"H", choose_thread},
    {"T", is_alive},
    {"c", go_on},
    {"s", go_on},
    {"D", detach},
    {"k", kill_guest},
};

enum gdb_wish gdb_stub_packet(struct gdb_stub *s, const char *payload, size_t n, struct gdb_reply *reply)
{
    reply->n = 0;
    reply->overflow = false;
    for (size_t i = 0; i < array_len(packets); i++) {
        size_t len = strlen(packets[i].begins);
        struct text t = {payload + len, payload + n};

        if (len <= n && !memcmp(payload, packets[i].begins, len))
            return packets[i].serve(s, &t, reply);
    }
    return GDB_STAY;
}

void gdb_stub_init(struct gdb_stub *s, struct gdb_guest *guest)
{
    *s = (struct gdb_stub){.guest = guest, .xml = gdb_target_xml(), .debug.on = true};
    s->plans = xcalloc(guest->ncpus, sizeof(*s->plans));
    say_why(s, 0, (struct vm_hit){.what = VM_HIT_NONE});
    tell(s);
}

void gdb_stub_fini(struct gdb_stub *s)
{
    while (s->nbreaks)
        lift_break(s, s->nbreaks - 1);
    s->guest->debug(s->guest, &(struct vm_debug){0});
    free(s->xml);
    free(s->plans);
}
