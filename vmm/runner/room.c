#include "vmm/runner/room.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { KEEP = 10 /* of 100, for all else on the host */ };

static bool read_text(const char *path, char *buf, size_t n)
{
    int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, buf, n - 1);

    if (got < 0)
        return false;
    buf[got] = 0;
    return true;
}

uint64_t room_available(const char *meminfo)
{
    const char *p = strstr(meminfo, "MemAvailable:");
    uint64_t kib = p ? strtoull(p + strlen("MemAvailable:"), NULL, 10) : 0;

    return p && kib <= UINT64_MAX >> 10 ? kib << 10 : UINT64_MAX;
}

/* What the control group (version 2) leaves us. */
static uint64_t group_memory(void)
{
    char line[512], path[640], max[64], now[64], *group;

    if (!read_text("/proc/self/cgroup", line, sizeof(line)) || strncmp(line, "0::", 3))
        return UINT64_MAX;
    group = line + 3;
    group[strcspn(group, "\n")] = 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group);
    if (!read_text(path, max, sizeof(max)) || !strncmp(max, "max", 3))
        return UINT64_MAX;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.current", group);
    if (!read_text(path, now, sizeof(now)) || strtoull(now, NULL, 10) > strtoull(max, NULL, 10))
        return 0;
    return strtoull(max, NULL, 10) - strtoull(now, NULL, 10);
}

void room_look(struct room *ret)
{
    char meminfo[4096];
    cpu_set_t set;

    ret->cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
    ret->memory = read_text("/proc/meminfo", meminfo, sizeof(meminfo)) ? room_available(meminfo) : UINT64_MAX;
    ret->memory = min_u64(ret->memory, group_memory());
    if (ret->memory != UINT64_MAX)
        ret->memory -= ret->memory / 100 * KEEP;
}
