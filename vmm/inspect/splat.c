#include "vmm/inspect/splat.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

const char *const splat_names[SPLAT_KINDS + 1] = {
    [SPLAT_PANIC] = "panic", [SPLAT_OOPS] = "oops",   [SPLAT_BUG] = "bug",         [SPLAT_WARN] = "warn",
    [SPLAT_KASAN] = "kasan", [SPLAT_UBSAN] = "ubsan", [SPLAT_LOCKDEP] = "lockdep", [SPLAT_LOCKUP] = "lockup",
    [SPLAT_HUNG] = "hung",   [SPLAT_RCU] = "rcu",
};

/* What a line begins with, or, after a '*', holds.  The first that fits counts. */
static const struct {
    const char *text;
    enum splat_kind kind;
} beginnings[] = {
    {"Kernel panic - not syncing", SPLAT_PANIC},
    {"BUG: KASAN: ", SPLAT_KASAN},
    {"BUG: KFENCE: ", SPLAT_KASAN},
    {"BUG: KMSAN: ", SPLAT_KASAN},
    {"BUG: KCSAN: ", SPLAT_KASAN},
    {"UBSAN: ", SPLAT_UBSAN},
    {"BUG: soft lockup", SPLAT_LOCKUP},
    {"*watchdog: BUG: soft lockup", SPLAT_LOCKUP},
    {"*Watchdog detected hard LOCKUP", SPLAT_LOCKUP},
    {"*possible circular locking dependency detected", SPLAT_LOCKDEP},
    {"*possible recursive locking detected", SPLAT_LOCKDEP},
    {"*inconsistent lock state", SPLAT_LOCKDEP},
    {"*possible irq lock inversion dependency detected", SPLAT_LOCKDEP},
    {"*suspicious RCU usage", SPLAT_LOCKDEP},
    {"*bad unlock balance detected", SPLAT_LOCKDEP},
    {"*held lock freed!", SPLAT_LOCKDEP},
    {"*lock held when returning to user space!", SPLAT_LOCKDEP},
    {"*detected stalls on CPUs/tasks", SPLAT_RCU},
    {"*self-detected stall on CPU", SPLAT_RCU},
    {"INFO: task ", SPLAT_HUNG}, /* "… blocked for more than 120 seconds." */
    {"BUG: kernel NULL pointer dereference", SPLAT_OOPS},
    {"BUG: unable to handle ", SPLAT_OOPS},
    {"general protection fault", SPLAT_OOPS},
    {"Oops: ", SPLAT_OOPS},
    {"invalid opcode: ", SPLAT_OOPS},
    {"divide error: ", SPLAT_OOPS},
    {"stack segment: ", SPLAT_OOPS},
    {"double fault: ", SPLAT_OOPS},
    {"kernel BUG at ", SPLAT_BUG},
    {"Kernel BUG at ", SPLAT_BUG}, /* without CONFIG_DEBUG_BUGVERBOSE */
    {"BUG: ", SPLAT_BUG},
    {"WARNING: ", SPLAT_WARN},
};

/* Behind "[    1.234567]", "[    1.234567][  T123]" and "<4>". */
static const char *behind_stamp(const char *line)
{
    for (;;) {
        const char *p = line;

        if (*p == '<') {
            p += 1 + strspn(p + 1, "0123456789");
            if (*p != '>')
                return line;
        } else if (*p == '[') {
            p += 1 + strspn(p + 1, " .0123456789TC");
            if (*p != ']')
                return line;
        } else {
            return line;
        }
        line = p + 1;
        line += *line == ' ';
    }
}

static int kind_of(const char *line)
{
    for (size_t i = 0; i < array_len(beginnings); i++) {
        const char *text = beginnings[i].text;

        if (*text == '*' ? strstr(line, text + 1) != NULL : !strncmp(line, text, strlen(text)))
            return beginnings[i].kind == SPLAT_HUNG && !strstr(line, " blocked for more than ")
                       ? -1
                       : (int)beginnings[i].kind;
    }
    return -1;
}

/* A symbol with its offset at `p`: "f+0x1/0x2" or "f.isra.0+0x1/0x2 [module]"; how long its name is. */
static size_t symbol_at(const char *p)
{
    size_t n = 0;

    while (isalnum((unsigned char)p[n]) || p[n] == '_' || p[n] == '.')
        n++;
    return n && !strncmp(p + n, "+0x", 3) ? n : 0;
}

/* What only carries the news. */
static bool is_messenger(const char *name, size_t n)
{
    static const char *const names[] = {"dump_stack",
                                        "dump_stack_lvl",
                                        "panic",
                                        "vpanic",
                                        "__warn",
                                        "report_bug",
                                        "handle_bug",
                                        "exc_invalid_op",
                                        "asm_exc_invalid_op",
                                        "show_stack",
                                        "print_report",
                                        "kasan_report",
                                        "ubsan_epilogue",
                                        "check_panic_on_warn",
                                        "nmi_panic",
                                        "__dump_stack",
                                        "oops_end",
                                        "die",
                                        "kasan_report.cold"};

    for (size_t i = 0; i < array_len(names); i++)
        if (strlen(names[i]) == n && !memcmp(names[i], name, n))
            return true;
    return !memcmp(name, "__ubsan_handle", min_u64(n, 14)) && n >= 14;
}

static bool blame(struct splat_watch *w, const char *p)
{
    size_t n = symbol_at(p);

    if (!n || is_messenger(p, n))
        return false;
    snprintf(w->function, sizeof(w->function), "%.*s", (int)n, p);
    return true;
}

/* The first line may say where: "BUG: KASAN: use-after-free in f+0x1/0x2", "WARNING: … at file.c:1 f+0x1/0x2". */
static void look_in_title(struct splat_watch *w)
{
    for (const char *p = w->title; *p && !blame(w, p); p += *p == ' ')
        p += strcspn(p, " ");
}

/* "RIP: 0010:f+0x1/0x2", or what stands below "Call Trace:". */
static void look_below(struct splat_watch *w, const char *line)
{
    static const char rip[] = "RIP: 0010:";

    if (!strncmp(line, rip, sizeof(rip) - 1))
        blame(w, line + sizeof(rip) - 1);
    else if (w->in_trace && *line == ' ')
        blame(w, line + strspn(line, " "));
    else if (!strncmp(line, "Call Trace:", 11))
        w->in_trace = true;
}

void splat_line(struct splat_watch *w, const char *line)
{
    bool any = w->seen & w->wanted;
    int kind;

    line = behind_stamp(line);
    kind = kind_of(line);
    if (kind >= 0)
        w->seen |= 1u << kind;
    if (any && !w->function[0]) {
        look_below(w, line);
    } else if (!any && w->seen & w->wanted) {
        w->first = (enum splat_kind)kind;
        snprintf(w->title, sizeof(w->title), "%s", line);
        look_in_title(w);
    }
}

int splat_kinds(const char *words, uint32_t *ret, char *bad, size_t n)
{
    *ret = 0;
    do {
        size_t len = strcspn(words, ",");
        unsigned kind = 0;

        while (kind < SPLAT_KINDS && (strlen(splat_names[kind]) != len || memcmp(splat_names[kind], words, len)))
            kind++;
        if (len == 3 && !memcmp(words, "all", 3)) {
            *ret = (1u << SPLAT_KINDS) - 1;
        } else if (kind < SPLAT_KINDS) {
            *ret |= 1u << kind;
        } else {
            snprintf(bad, n, "%.*s", (int)len, words);
            return -EINVAL;
        }
        words += len + (words[len] == ',');
    } while (*words);
    return 0;
}
