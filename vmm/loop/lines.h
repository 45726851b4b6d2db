/*
 * A unix socket on which clients, programs of the same user on this host, and we say lines of JSON to each other.  A
 * client that sends rubbish, leaves at any byte or never reads harms itself only: there are LINES_CLIENTS of them at
 * most, each with LINES_MAX bytes of lines coming in, and nothing is taken from one that has LINES_FULL bytes to read.
 *
 * All functions are for the lane, and call back in it.
 */
#pragma once
#include "vmm/base/listener.h"
#include "vmm/loop/acceptor.h"
#include "vmm/loop/loop.h"

enum { LINES_CLIENTS = 8, LINES_MAX = 64 << 10, LINES_FULL = 256 << 10 };

struct lines;

struct lines_client { /* all of it private to lines.c */
    struct lines *lines;
    struct watch watch;
    char *in; /* LINES_MAX bytes; NULL: nobody */
    size_t in_len;
    char *out; /* what it has not got yet */
    size_t out_len, out_size;
    bool held;
    bool last; /* it is dropped when it has got all */
};

/* Embedded in its owner, which sets the functions. */
struct lines {
    void (*ready)(struct lines_client *c); /* lines_take() has something */
    void (*room)(struct lines_client *c);  /* it has read all that it was told; NULL: nobody cares */
    void (*gone)(struct lines_client *c);  /* and its place is another's soon; NULL: nobody cares */

    struct lines_client clients[LINES_CLIENTS];
    struct listener listener; /* private, as all below */
    struct lane *lane;
    struct acceptor more;
};

int lines_open(struct lines *l, struct lane *lane, const char *path, struct err *err) must_check;
/* In its place: the one client is at the other end of the socket `fd`, which is given away. */
void lines_adopt(struct lines *l, struct lane *lane, int fd);
/* All get what they can take at once, and are dropped without gone(); the socket is removed. */
void lines_close(struct lines *l);
/* Its next line, without its end, the caller's; NULL: there is none, or it has too much to read. */
char *lines_take(struct lines_client *c, size_t *n);
/* Says `n` bytes and a line's end; what it cannot take yet is kept. */
void lines_say(struct lines_client *c, const char *text, size_t n);
/* Has it so much to read that what can wait should? */
bool lines_full(const struct lines_client *c);
/* While held it is not listened to, and does not go. */
void lines_hold(struct lines_client *c, bool on);
