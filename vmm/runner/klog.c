#include "vmm/runner/klog.h"

#include <stdio.h>

/* Lines that say why a guest came to its end: the marker, and what is to be said of it. */
static const struct {
    const char *mark, *hint;
} signs[] = {
    {INIT_LOG_MARK, ""},
    {"Unable to mount root fs", "it needs CONFIG_BLK_DEV_INITRD"},
    {"No working init found", "it needs CONFIG_BINFMT_ELF"},
    {KLOG_PANIC, ""},
};

int64_t klog_usec(const char *line)
{
    unsigned sec, usec;

    return sscanf(line, "[%u.%6u", &sec, &usec) == 2 ? (int64_t)sec * 1000000 + usec : INT64_MAX;
}

static void look_at_line(struct klog *k)
{
    int64_t usec = klog_usec(k->line);

    if (usec != INT64_MAX)
        k->usec = usec;
    for (size_t s = 0; s < array_len(signs) && !*k->told; s++)
        if (strstr(k->line, signs[s].mark))
            strcpy(k->told, k->line);
}

void klog_feed(struct klog *k, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n') {
            k->line[k->n] = 0;
            k->n = 0;
            look_at_line(k);
        } else if (k->n < sizeof(k->line) - 1 && bytes[i] != '\r') {
            k->line[k->n++] = bytes[i] ? bytes[i] : '?';
        }
    }
}

const char *klog_hint(const struct klog *k)
{
    for (size_t i = 0; i < array_len(signs); i++)
        if (*signs[i].hint && strstr(k->told, signs[i].mark))
            return signs[i].hint;
    return "";
}
