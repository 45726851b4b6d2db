/* Scope-bound ownership: cleanup_free, cleanup_fd, and take_* where ownership moves on. */
#pragma once
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_fd_(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define cleanup_free __attribute__((cleanup(cleanup_free_)))
#define cleanup_fd   __attribute__((cleanup(cleanup_fd_)))

/* The value, leaving the variable empty, so that its cleanup does nothing. */
#define take_ptr(p)                 \
    ({                              \
        __typeof__(p) taken_ = (p); \
        (p) = NULL;                 \
        taken_;                     \
    })

static inline int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* Set-up allocations: a host without memory for them cannot go on.  Never for sizes that a guest or a file chose. */
static inline void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);

    if (!p)
        abort();
    return p;
}

static inline char *xstrdup(const char *s)
{
    char *copy = strdup(s);

    if (!copy)
        abort();
    return copy;
}
