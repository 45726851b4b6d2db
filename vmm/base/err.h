/*
 * Why a host-side operation failed.  The caller owns the struct; filling it never allocates, so it cannot leak or fail.
 * Set-up and control paths take one; data paths return -errno only.  It is filled where the cause is known, prefixed on
 * the way up, and printed once, by main or by the control socket.
 */
#pragma once
#include <errno.h>
#include <stdarg.h>

struct err {
    int code;      /* positive errno */
    char msg[508]; /* one line, no full stop at the end */
};

/* Both return -code.  `e` may be NULL where the caller wants the code alone.  Long messages are cut. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A path that the user gave could not be used: what it is for, itself, the reason, the remedy. */
int err_file(struct err *e, int code, const char *what, const char *path);
/* Puts "PREFIX: " in front of the message that is there. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
