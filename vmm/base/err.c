#include "vmm/base/err.h"

#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -code;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    e->code = code;
    return -code;
}

int err_file(struct err *e, int code, const char *what, const char *path)
{
    static const struct {
        int code;
        const char *remedy;
    } remedies[] = {
        {ENOENT, "check the path"},
        {ENOTDIR, "check the path"},
        {EISDIR, "name a file in it"},
        {EEXIST, "remove it, or choose another path"},
        {EACCES, "choose another, or give yourself access with chmod"},
        {EROFS, "choose a place that can be written"},
        {ENOSPC, "make room there, or choose another place"},
    };

    for (size_t i = 0; i < sizeof(remedies) / sizeof(*remedies); i++)
        if (remedies[i].code == code)
            return err_set(e, code, "%s \"%s\": %s; %s", what, path, strerror(code), remedies[i].remedy);
    return err_set(e, code, "%s \"%s\": %s", what, path, strerror(code));
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char inner[sizeof(e->msg)];
    va_list ap;
    size_t n;

    if (!e)
        return -EIO; /* the cause is gone with the message; any failure serves a caller who wants no reason */
    memcpy(inner, e->msg, sizeof(inner));
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    n = strlen(e->msg);
    snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", inner);
    return -e->code;
}
