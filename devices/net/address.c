#include "devices/net/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>

static bool parse_port(const char *text, in_port_t *ret)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    *ret = htons((uint16_t)v);
    return isdigit((unsigned char)*text) && !*end && v <= UINT16_MAX;
}

static bool parse_ip(const char *text, struct address *ret)
{
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : sizeof(host);

    if (len >= sizeof(host))
        return false;
    memcpy(host, text, len);
    host[len] = 0;
    if (*host == '[' && host[len - 1] == ']') {
        host[len - 1] = 0;
        ret->in6.sin6_family = AF_INET6;
        ret->len = sizeof(ret->in6);
        return inet_pton(AF_INET6, host + 1, &ret->in6.sin6_addr) == 1 && parse_port(colon + 1, &ret->in6.sin6_port);
    }
    ret->in.sin_family = AF_INET;
    ret->len = sizeof(ret->in);
    return inet_pton(AF_INET, *host ? host : "127.0.0.1", &ret->in.sin_addr) == 1 &&
           parse_port(colon + 1, &ret->in.sin_port);
}

int address_of_path(const char *path, struct address *ret, struct err *err)
{
    if (strlen(path) >= sizeof(ret->un.sun_path))
        return err_set(err, ENAMETOOLONG, "socket \"%s\": its path is longer than %zu bytes; choose a shorter one",
                       path, sizeof(ret->un.sun_path) - 1);
    *ret = (struct address){.un.sun_family = AF_UNIX, .len = sizeof(ret->un)};
    strcpy(ret->un.sun_path, path);
    return 0;
}

int address_parse(const char *key, const char *text, struct address *ret, struct err *err)
{
    static const char unix_[] = "unix:";

    if (!strncmp(text, unix_, strlen(unix_)))
        return address_of_path(text + strlen(unix_), ret, err);
    *ret = (struct address){0};
    if (!parse_ip(text, ret))
        return err_set(err, EINVAL,
                       "%s=%s is no address; write unix:PATH, or an IP address and a port as in 127.0.0.1:1234 or "
                       "[::1]:1234",
                       key, text);
    return 0;
}
