/* `bothy doctor`: what this host's KVM is worth, and what is in this build. */
#include <dirent.h>
#include <stdlib.h>

#include "build_features.h"
#include "devices/core/device.h"
#ifdef HAVE_SLIRP
#include "devices/net/slirp.h"
#endif
#include "vmm/base/cleanup.h"
#include "vmm/cli/cli.h"
#include "vmm/kvm/decode.h"
#include "vmm/kvm/probe.h"

enum { EXIT_NO_KERNELS = 1 };

static void print_module(void)
{
    DIR *d = opendir("/sys/module");
    const struct dirent *e;

    while (d && (e = readdir(d)))
        if (!strncmp(e->d_name, "kvm_", 4))
            printf("  %-26s %s\n", "module", e->d_name);
    if (d)
        closedir(d);
}

static void print_kvm(const struct probe *p)
{
    printf("KVM\n");
    print_module();
    for (unsigned i = 0; i < p->ncaps; i++)
        if (p->caps[i].value)
            printf("  %-26s %d\n", p->caps[i].name, p->caps[i].value);
        else
            printf("  %-26s no\n", p->caps[i].name);
    printf("\nSpeed, in million instructions a second\n");
    printf("  %-26s %.2f\n", "level 0 (kernels)", (double)p->level0 / 1e6);
    printf("  %-26s %.2f\n", "level 3 (programs)", (double)p->level3 / 1e6);
    printf("  %-26s", "missing at level 0");
    for (unsigned i = 0; i < p->nmissing; i++)
        printf(" %s", p->missing[i]);
    printf("%s\n\n", p->nmissing ? "" : " nothing that is known to matter");
}

static void print_network(void)
{
#ifdef HAVE_SLIRP
    const struct slirp_lib *lib;
    struct err err;

    if (slirp_load(&lib, &err)) {
        printf("  %-26s no: %s\n", "user network", err.msg);
        return;
    }
    printf("  %-26s libslirp %s\n", "user network", lib->version_string());
    for (const struct slirp_hole *h = slirp_holes; h->what; h++)
        if (slirp_has_hole(lib->version_string(), h))
            printf("  %-26s before %s: %s\n", "known hole", h->fixed, h->what);
#else
    printf("  %-26s no, this build has no libslirp\n", "user network");
#endif
}

static void print_build(void)
{
    printf("Build\n");
    printf("  %-26s %s\n", "version", BOTHY_VERSION);
    printf("  %-26s %s\n", "with", BUILT_WITH);
    printf("  %-26s %s\n", "without", *BUILT_WITHOUT ? BUILT_WITHOUT : "-");
    printf("  %-26s %s\n", "instructions decoded", decode_available() ? "yes" : "no, libZydis is not here");
    printf("  %-26s", "devices");
    for (const struct device_class *const *c = device_classes; *c; c++)
        if (!(*c)->internal)
            printf(" %s", (*c)->name);
    printf("\n");
    print_network();
    printf("\n");
}

static int doctor_run(struct cli_line *l, struct err *err)
{
    struct probe p;
    char text[256];
    int rc;

    (void)l;
    print_build();
    rc = probe_run(&p, err);
    if (rc < 0)
        return rc;
    print_kvm(&p);
    probe_explain(&p, text, sizeof(text));
    printf("Verdict: %s\n", text);
    return probe_judge(&p) == PROBE_KERNELS ? 0 : EXIT_NO_KERNELS;
}

const struct cli_verb verb_doctor = {
    .name = "doctor",
    .summary = "tell what this host's KVM offers and what this build contains",
    .text =
        "Measures how fast KVM runs guest code at privilege level 0, as kernels do, and at level 3, and tries "
        "instructions that some KVMs cannot run.  Ends with 0 where stock kernels run, with 1 where KVM works but they "
        "do not, and with 125 where there is no KVM to be used.",
    .run = doctor_run,
};
