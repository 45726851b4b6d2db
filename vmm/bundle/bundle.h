/*
 * What is known of a guest that died or hangs, as a directory: a summary whose first line says what happened and where,
 * the kernel's log and its own configuration read from memory, what each CPU was doing, the devices' state, the
 * configuration that starts the same again, and on request an ELF core.
 */
#pragma once
#include "vmm/bundle/samples.h"
#include "vmm/inspect/splat.h"
#include "vmm/machine/machine.h"

struct bundle_opts {
    const char *dir;               /* made, if it is not there */
    const char *what;              /* happened, when neither the log nor the engine knows: "time-out after 60 s" */
    bool core, lean, packed;       /* without pages that are free or programs' own; in kdump's compressed form */
    const struct samples *samples; /* NULL: none were taken */
};
/* The machine stands still, and stays as it is.  In *line the summary's first line. */
int bundle_write(struct machine *m, const struct bundle_opts *o, char *line, size_t n, struct err *err) must_check;

/*
 * Looks at the kernel's log in the guest's memory while it runs, and lets the guest end as crashed when one of
 * `fail_on` (1 << enum splat_kind) is there; a guest that reboots because it panicked as well.
 */
struct log_watch;
void log_watch_create(struct machine *m, uint32_t fail_on, struct log_watch **ret);
/*
 * When the guest has ended, however: whether it crashed by what is in its log, which is said.  The machine stands
 * still. A panic alone, which ends guests otherwise, is not looked for once more.  Accepts NULL.
 */
bool log_watch_last(struct log_watch *w);
void log_watch_destroy(struct log_watch *w); /* accepts NULL */

/*
 * Looks at what the CPUs do, several times within a second, while the guest runs; then lets it end as crashed.  One
 * that is paused ends at the first look.
 */
struct sampler;
void sampler_create(struct machine *m, struct sampler **ret);
void sampler_destroy(struct sampler *s); /* accepts NULL, as the last */
/* From the main thread, any lane held; a second time it does nothing. */
void sampler_start(struct sampler *s);
/* What was seen so far; NULL: nothing. */
const struct samples *sampler_samples(const struct sampler *s);
