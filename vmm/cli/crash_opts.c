#include "vmm/cli/crash_opts.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/inspect/splat.h"

/* It is better known before a guest dies; one that lives leaves no directory. */
static int check_place(const char *dir, struct err *err)
{
    bool made = !mkdir(dir, 0700);
    int fd cleanup_fd = -1;

    if (!made && errno != EEXIST)
        return err_file(err, errno, "bundle", dir);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS))
        return err_file(err, errno, "bundle", dir);
    if (made)
        rmdir(dir);
    return 0;
}

int crash_opts_check(const struct crash_opts *o, uint32_t *kinds, struct err *err)
{
    uint32_t found = o->bundle ? 1u << SPLAT_PANIC : 0;
    char bad[32];

    if ((o->core || o->lean || o->packed) && !o->bundle)
        return err_set(err, EINVAL, "--%s is a file of the bundle's; give --bundle DIR, too",
                       o->core   ? "core"
                       : o->lean ? "lean-core"
                                 : "packed-core");
    if (o->fail_on && splat_kinds(o->fail_on, &found, bad, sizeof(bad)) < 0) {
        const char *near = nearest_word(bad, splat_names);

        return err_set(err, EINVAL, "--fail-on: unknown kind \"%s\"%s%s", bad, near ? "; did you mean " : "",
                       near ? near : "; --help lists them");
    }
    if (kinds)
        *kinds = found;
    return o->bundle ? check_place(o->bundle, err) : 0;
}
