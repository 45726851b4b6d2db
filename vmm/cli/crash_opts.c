#include "vmm/cli/crash_opts.h"

#include "vmm/inspect/splat.h"

int crash_opts_check(const struct crash_opts *o, uint32_t *kinds, struct err *err)
{
    uint32_t found = o->bundle ? 1u << SPLAT_PANIC : 0;
    char bad[32];

    if (o->core && !o->bundle)
        return err_set(err, EINVAL, "--core is a file of the bundle's; give --bundle DIR, too");
    if (o->fail_on && splat_kinds(o->fail_on, &found, bad, sizeof(bad)) < 0) {
        const char *near = nearest_word(bad, splat_names);

        return err_set(err, EINVAL, "--fail-on: unknown kind \"%s\"%s%s", bad, near ? "; did you mean " : "",
                       near ? near : "; --help lists them");
    }
    if (kinds)
        *kinds = found;
    return 0;
}
