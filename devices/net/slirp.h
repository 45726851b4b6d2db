/*
 * libslirp, a shared library that is loaded when a machine has a user network, so that nothing else pays for it.  What
 * it and GLib would print goes to our log, at a limited rate, since a guest can cause much of it.
 */
#pragma once
#include <libslirp.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"

#define SLIRP_FUNCTIONS(F) \
    F(new)                 \
    F(cleanup) F(pollfds_fill) F(pollfds_poll) F(input) F(add_hostxfwd) F(add_exec) F(add_unix) F(version_string)

struct slirp_lib {
#define SLIRP_MEMBER(name) __typeof__(slirp_##name) *name;
    SLIRP_FUNCTIONS(SLIRP_MEMBER)
#undef SLIRP_MEMBER
};

/* From any thread; it stays loaded.  An error names what is missing. */
int slirp_load(const struct slirp_lib **ret, struct err *err) must_check;

/* What is known to be wrong with libslirp before `fixed`, and what that means here. */
struct slirp_hole {
    const char *fixed, *what;
};
extern const struct slirp_hole slirp_holes[]; /* the last one's `what` is NULL */
/* Is `version` ("4.7.0") older than that?  One that cannot be read is. */
bool slirp_has_hole(const char *version, const struct slirp_hole *hole);
