/* `bothy test`: a command on a kernel, with the host's files around it. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/test_one.h"
#include "vmm/runner/kernel.h"

struct test_opts {
    struct config c;
    char *root, *modules, *cwd, *user, *log;
    bool shell;
    uint32_t boot_timeout, silence_timeout, timeout, log_level;
};

enum { SECONDS_MAX = 1000000, COMMAND_WORDS_MAX = 16384 };

static const struct opt test_options[] = {
    O_STR(struct test_opts, root, "root", "/",
          "directory that the guest has as its root; what it writes is thrown away", .arg = "DIR"),
    O_STR(struct test_opts, modules, "modules", NULL, "the kernel's modules; found for kernels that tell their version",
          .arg = "DIR"),
    O_STR(struct test_opts, cwd, "cwd", NULL, "the command's directory; bothy's own where the root is /", .arg = "DIR"),
    O_STR(struct test_opts, user, "user", NULL, "who runs the command; root unless told", .arg = "NAME|UID[:GID]"),
    O_BOOL(struct test_opts, shell, "shell", "off", "run a shell"),
    O_U32(struct test_opts, timeout, "timeout", "0", 0, SECONDS_MAX, "seconds for all of it; 0: no limit"),
    O_U32(struct test_opts, boot_timeout, "boot-timeout", "120", 0, SECONDS_MAX,
          "seconds until the command starts; 0: no limit"),
    O_U32(struct test_opts, silence_timeout, "silence-timeout", "0", 0, SECONDS_MAX,
          "seconds that the command may be silent, and the kernel's log with it; 0: no limit"),
    O_STR(struct test_opts, log, "log", NULL, "write the kernel's log there", .arg = "FILE"),
    CONFIG_OPTIONS(struct test_opts, c.),
    O_ENUM(struct test_opts, log_level, "log-level", "warn", log_level_words, "how much bothy says on standard error"),
    O_END,
};

static int check_root(struct test_opts *o, struct err *err)
{
    struct stat st;
    char *full;

    if (stat(o->root, &st))
        return err_file(err, errno, "root", o->root);
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ENOTDIR, "root \"%s\": not a directory; unpack it into one", o->root);
    full = realpath(o->root, NULL);
    if (!full)
        return err_file(err, errno, "root", o->root);
    free(o->root);
    o->root = full;
    return 0;
}

static int choose_cwd(struct test_opts *o, struct err *err)
{
    if (!o->cwd && strcmp(o->root, "/") != 0)
        o->cwd = xstrdup("/");
    if (!o->cwd)
        o->cwd = getcwd(NULL, 0);
    if (!o->cwd)
        return err_set(err, errno, "the current directory: %s; change to one that is there", strerror(errno));
    if (*o->cwd != '/')
        return err_set(err, EINVAL, "--cwd %s: give the whole path", o->cwd);
    return 0;
}

static int choose_kernel(struct test_opts *o, struct err *err)
{
    struct kernel_place k;
    int r = kernel_find(o->c.kernel, &k, err);

    if (r < 0)
        return r;
    free(o->c.kernel);
    o->c.kernel = take_ptr(k.file);
    if (!o->modules)
        o->modules = take_ptr(k.modules);
    kernel_place_fini(&k);
    return 0;
}

static int run_test(struct cli_line *l, struct err *err)
{
    struct test_opts *o = l->opts;
    char *const shell[] = {"/bin/sh", NULL};
    int log cleanup_fd = -1;
    struct test_spec s = {
        .config = &o->c,
        .command = o->shell ? shell : l->args,
        .env = environ,
        .root = o->root,
        .modules = o->modules,
        .cwd = o->cwd,
        .user = o->user,
        .hostname = o->c.name,
        .boot_ns = o->boot_timeout * NS_PER_SEC,
        .silence_ns = o->silence_timeout * NS_PER_SEC,
        .total_ns = o->timeout * NS_PER_SEC,
    };

    s.name = s.command[0];
    if (o->log && (log = open(o->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        return err_file(err, errno, "log", o->log);
    return test_one(&s, log, err);
}

static int test_verb(struct cli_line *l, struct err *err)
{
    struct test_opts *o = l->opts;
    int r;

    log_set_level(o->log_level);
    if (o->shell && l->nargs)
        return err_set(err, EINVAL, "--shell and the command \"%s\": give one of them", l->args[0]);
    if (!o->shell && !l->nargs)
        return err_set(err, EINVAL, "no command; write it after --, as in: bothy test -- uname -r");
    r = check_root(o, err);
    if (r >= 0)
        r = choose_cwd(o, err);
    if (r >= 0)
        r = choose_kernel(o, err);
    if (r >= 0)
        r = run_test(l, err);
    config_fini(&o->c);
    return r;
}

const struct cli_verb verb_test = {
    .name = "test",
    .summary = "run a command on a kernel",
    .args = "-- COMMAND...",
    .max_args = COMMAND_WORDS_MAX,
    .text = "Boots a kernel with the host's files around it and runs the command there, with its standard streams and "
            "its environment, as root.  -k names a bzImage or vmlinux, a kernel's build tree, or the version of an "
            "installed kernel; without it the running kernel's file is taken, else the newest in /boot.\n\n"
            "What the guest writes to its files is thrown away.  The exit code is the command's own, 128 and the "
            "signal's number when one ended it, 124 when it ran out of time, 126 when the guest ended before the "
            "command did, and 125 when bothy could not do it.  Ctrl-] q ends it at a terminal.",
    .opts = test_options,
    .size = sizeof(struct test_opts),
    .run = test_verb,
};
