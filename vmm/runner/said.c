#include "vmm/runner/said.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

static bool number(const char **text, uint64_t max, uint64_t *ret)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    *ret = strtoull(*text, &end, 10);
    *text = end;
    return !errno && *ret <= max;
}

int said_parse_error(const char *text, struct said *ret)
{
    struct said s = {.kind = SAID_ERROR};
    uint64_t e;

    if (!number(&text, 4095, &e) || *text++ != ' ')
        return -EINVAL;
    s.number = (uint32_t)e;
    for (size_t i = 0; text[i] && i < sizeof(s.text) - 1; i++)
        s.text[i] = isprint((unsigned char)text[i]) ? text[i] : '?';
    *ret = s;
    return 0;
}

static int parse_end(const char *text, enum said_kind kind, uint64_t max, struct said *ret)
{
    struct said s = {.kind = kind};
    uint64_t n;

    if (!number(&text, max, &n) || *text++ != ' ' || !number(&text, UINT64_MAX, &s.out) || *text++ != ' ' ||
        !number(&text, UINT64_MAX, &s.err) || *text++ != ' ' || !number(&text, UINT64_MAX, &s.log) || *text)
        return -EINVAL;
    s.number = (uint32_t)n;
    *ret = s;
    return 0;
}

int said_parse(const char *line, struct said *ret)
{
    if (!strcmp(line, "ready")) {
        *ret = (struct said){.kind = SAID_READY};
        return 0;
    }
    if (!strncmp(line, "exit ", 5))
        return parse_end(line + 5, SAID_EXIT, 255, ret);
    if (!strncmp(line, "signal ", 7))
        return parse_end(line + 7, SAID_SIGNAL, 127, ret);
    if (!strncmp(line, "error ", 6))
        return said_parse_error(line + 6, ret);
    return -EINVAL;
}
