/* Where a point-to-point network's far end is, in words: "unix:PATH", "ADDRESS:PORT", "[IPV6]:PORT" or ":PORT". */
#pragma once
#include <netinet/in.h>
#include <sys/un.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"

struct address {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t len;
};

/* Of a Unix socket's file. */
int address_of_path(const char *path, struct address *ret, struct err *err) must_check;
/* `key` is for messages.  Without an address it is this host's own, 127.0.0.1. */
int address_parse(const char *key, const char *text, struct address *ret, struct err *err) must_check;
