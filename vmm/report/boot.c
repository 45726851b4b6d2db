/*
 * The kernel's clock begins some time after its first instruction.  The first process writes INIT_LOG_START into the
 * log when it tells us that the command starts, which ties that clock to ours.
 */
#include "vmm/report/boot.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "firmware/abi/init.h"
#include "vmm/base/cleanup.h"
#include "vmm/report/text.h"

enum { CULPRITS = 10, LOG_LINE_MAX = 512, CAUSES = 10 };

struct culprit {
    uint64_t usec;
    char what[96];
};

struct boot {
    char line[LOG_LINE_MAX];
    size_t n;
    uint64_t usec;                 /* of the last line */
    uint64_t initcalls, run, mark; /* when the first of them was called, our process, the command; 0: not yet */
    unsigned ninitcalls;
    struct culprit culprits[CULPRITS + 1]; /* the worst first */
};

struct boot *boot_create(void)
{
    return xcalloc(1, sizeof(struct boot));
}

void boot_destroy(struct boot *b)
{
    free(b);
}

__attribute__((format(printf, 3, 4))) static void accuse(struct boot *b, uint64_t usec, const char *fmt, ...)
{
    struct culprit *c = &b->culprits[CULPRITS]; /* the last one's place is free */
    va_list ap;

    if (b->mark)
        return;
    c->usec = usec;
    va_start(ap, fmt);
    vsnprintf(c->what, sizeof(c->what), fmt, ap);
    va_end(ap);
    c->what[text_clean(c->what, strlen(c->what))] = 0;
    for (; c > b->culprits && c[-1].usec < c->usec; c--) {
        struct culprit other = c[-1];

        c[-1] = c[0];
        c[0] = other;
    }
}

/* "virtio_fs_init+0x0/0x1000 [virtiofs] returned 0 after 1234 usecs" */
static void take_initcall(struct boot *b, char *text)
{
    char *returned = strstr(text, " returned "), *after = strstr(text, " after "), *module = strchr(text, '[');
    uint64_t usec;

    if (!returned || !after || sscanf(after, " after %" SCNu64 " usecs", &usec) != 1)
        return;
    b->ninitcalls += !b->mark;
    *returned = 0;
    text[strcspn(text, "+ ")] = 0;
    accuse(b, usec, "initcall %.60s%s%.30s", text, module && module < returned ? " " : "",
           module && module < returned ? module : "");
}

static void take_line(struct boot *b, char *line)
{
    static const char calling[] = "calling  ", initcall[] = "initcall ";
    unsigned sec, usec;
    int end = 0;
    uint64_t at;
    char *text;

    if (sscanf(line, "[%u.%6u] %n", &sec, &usec, &end) != 2 || !end)
        return;
    text = line + end;
    at = sec * 1000000ull + usec;
    if (!strncmp(text, calling, strlen(calling))) {
        b->initcalls = b->initcalls ? b->initcalls : at;
    } else if (!strncmp(text, initcall, strlen(initcall))) {
        take_initcall(b, text + strlen(initcall));
    } else {
        if (!strncmp(text, "Run ", 4) && strstr(text, " as init process"))
            b->run = at;
        if (at > b->usec && (!b->initcalls || b->run)) /* initcalls tell of themselves */
            accuse(b, at - b->usec, "until the log says: %s", text);
        if (strstr(text, INIT_LOG_START) && !b->mark)
            b->mark = at;
    }
    b->usec = at;
}

void boot_feed(struct boot *b, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (b->n < sizeof(b->line) - 1)
                b->line[b->n++] = bytes[i] ? bytes[i] : '?';
            continue;
        }
        b->line[b->n] = 0;
        b->n = 0;
        take_line(b, b->line);
    }
}

/* ---- What comes of it. ---- */

static double member(json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* From one moment to the next; none goes back, whatever the guest says. */
static void put_row(FILE *to, double *now, double then, const char *what)
{
    double took = then > *now ? then - *now : 0;

    fprintf(to, "%9.3f s  %s\n", took, what);
    *now += took;
}

static int more(const void *a, const void *b)
{
    const json_int_t n[] = {json_integer_value(*(json_t *const *)a), json_integer_value(*(json_t *const *)b)};

    return (n[0] < n[1]) - (n[0] > n[1]);
}

static void put_exits(json_t *exits, FILE *to)
{
    json_t **sorted cleanup_free = xcalloc(json_object_size(exits), sizeof(json_t *));
    const char *cause;
    size_t n = 0;
    json_t *v;

    json_object_foreach(exits, cause, v)
    {
        sorted[n++] = v;
    }
    qsort(sorted, n, sizeof(json_t *), more);
    if (n)
        fprintf(to, "left the guest until then:\n");
    for (size_t i = 0; i < n && i < CAUSES; i++)
        json_object_foreach(exits, cause, v)
        {
            if (v == sorted[i])
                fprintf(to, "%9" JSON_INTEGER_FORMAT " ×  %s\n", json_integer_value(v), cause);
        }
}

void boot_write(const struct boot *b, const struct test_result *r, uint64_t begun_ns, const char *machine, FILE *to)
{
    json_t *answer = machine ? json_loads(machine, 0, NULL) : NULL, *m = json_object_get(answer, "result");
    double begun = (double)begun_ns / 1e9, now = begun, start = (double)r->start_ns / 1e9;
    double ready = start + (double)r->boot_ns / 1e9, from = member(m, "begun");

    if (!r->boot_ns) {
        fprintf(to, "boot profile: the command has not started\n");
    } else {
        uint64_t first = r->byte_ns ? r->byte_ns : r->command_ns;
        double clock = ready - (double)b->mark / 1e6, end = ready + (double)first / 1e9;

        fprintf(to, "boot profile: %.3f s from bothy's start to the command's %s\n", end - begun,
                r->byte_ns ? "first byte" : "end");
        put_row(to, &now, start, "bothy: finds the kernel, packs what the guest loads");
        if (m) {
            put_row(to, &now, from, "machine: its process");
            put_row(to, &now, from + member(m, "made"), "machine: memory, CPUs, devices");
            put_row(to, &now, from + member(m, "loaded"), "machine: loads the kernel");
            put_row(to, &now, from + member(m, "entered"), "machine: starts");
        }
        if (b->mark && b->initcalls && b->run) {
            put_row(to, &now, clock, "kernel: until its clock runs");
            put_row(to, &now, clock + (double)b->initcalls / 1e6, "kernel: set-up");
            put_row(to, &now, clock + (double)b->run / 1e6, "kernel: initcalls");
            put_row(to, &now, ready, "first process: modules, devices, root");
        } else {
            put_row(to, &now, ready, "kernel and first process; its log does not tell more");
        }
        put_row(to, &now, end, "the command");
    }
    if (b->culprits[0].usec)
        fprintf(to, "longest, of %u initcalls and of silences in the log:\n", b->ninitcalls);
    for (unsigned i = 0; i < CULPRITS && b->culprits[i].usec; i++)
        fprintf(to, "%9.3f s  %s\n", (double)b->culprits[i].usec / 1e6, b->culprits[i].what);
    put_exits(json_object_get(m, "exits"), to);
    json_decref(answer);
}
