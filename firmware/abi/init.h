/*
 * What bothy and its first process in a guest (firmware/init) say to each other.
 *
 * Orders are a file in the initramfs: words that each end with a NUL, KEY=VALUE, keys as below, in any order, those of
 * one key in theirs.  Then there are five ports of a virtio console: the command's three streams, the kernel's log as
 * its consoles would print it at any level, and one for lines of text.  The guest's:
 *
 *     ready                 the command starts now
 *     exit N OUT ERR LOG    it ended with that code, when so many bytes had gone into the ports for output and log
 *     signal N OUT ERR LOG  the same, by a signal
 *     error E TEXT          the command could not be started: an errno value (0: none) and what was tried
 *
 * The host's: "size COLS ROWS", of its terminal.  One who serves is ready when it waits for a command.  The host then
 * says "run N IN" and, in the N bytes behind that line, orders with nothing but its words; its standard input is the
 * next IN bytes of that port.  When it has ended the next may come.  The counts are of all commands together.
 *
 * Where the ports cannot be had, the guest writes INIT_LOG_MARK and what would follow "error" into the kernel's log,
 * and ends the machine by its debug exit port.
 */
#pragma once

#define INIT_FOLDER     ".bothy"
#define INIT_PROGRAM    INIT_FOLDER "/init"
#define INIT_ORDERS     INIT_FOLDER "/orders"
#define INIT_MODULE     INIT_FOLDER "/%u.ko"
#define INIT_ROOT       INIT_FOLDER "/root"
#define INIT_LOG_MARK   "bothy-init: "
#define INIT_LOG_START  "bothy: the command starts"
#define INIT_EXIT_PORT  0xf4
#define INIT_EXIT_ERROR 125

enum {
    INIT_ORDERS_MAX = 4 << 20, /* bytes: more than Linux takes as arguments and environment */
    INIT_WORDS_MAX = 32768,    /* orders */
    INIT_MODULES_MAX = 64,
    INIT_GROUPS_MAX = 64,
    INIT_LINE_MAX = 512, /* bytes of a line, with its end */
};

enum init_port { INIT_CONTROL, INIT_STDIN, INIT_STDOUT, INIT_STDERR, INIT_LOG, INIT_PORTS };
#define INIT_PORT_NAMES                                                             \
    {                                                                               \
        "bothy.control", "bothy.stdin", "bothy.stdout", "bothy.stderr", "bothy.log" \
    }

enum init_order {
    ORDER_MODULE, /* its name; the N-th is in INIT_MODULE */
    ORDER_ROOT,   /* virtio-fs tag; empty: the root is INIT_ROOT; none: it is on the first disk */
    ORDER_HOST,   /* name */
    ORDER_CLOCK,  /* seconds since 1970 */
    ORDER_UID,
    ORDER_GID,
    ORDER_GROUP, /* one more */
    ORDER_CWD,
    ORDER_SIZE,    /* COLS ROWS: the command's streams are a terminal */
    ORDER_SYSTEMD, /* empty: the root's systemd is the first process, and we are a unit of it */
    ORDER_SERVE,   /* empty: commands come later, one after the other */
    ORDER_PROFILE, /* empty: INIT_LOG_START goes into the kernel's log just before "ready" */
    ORDER_NET,     /* ADDRESS MASK GATEWAY, numbers in network order: eth0's */
    ORDER_DNS,     /* address of a name server, in text */
    ORDER_ARG,
    ORDER_ENV,
    INIT_ORDERS_KINDS,
};
#define INIT_ORDER_NAMES                                                                                               \
    {                                                                                                                  \
        "module", "root", "host", "clock", "uid", "gid", "group", "cwd", "size", "systemd", "serve", "profile", "net", \
            "dns", "arg", "env"                                                                                        \
    }
