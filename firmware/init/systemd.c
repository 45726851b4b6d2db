/* A unit of systemd [systemd.service(5), file-hierarchy(7)] that runs this program, and with it the command. */
#include <fcntl.h>

#include "firmware/init/init.h"

#define UNITS "/run/systemd/system"

static const char unit[] = "[Unit]\n"
                           "Description=Command of bothy test\n"
                           "DefaultDependencies=no\n"
                           "After=basic.target\n"
                           "FailureAction=poweroff-immediate\n"
                           "SuccessAction=poweroff-immediate\n"
                           "[Service]\n"
                           "ExecStart=/run/" INIT_PROGRAM "\n"
                           "TasksMax=infinity\n";

static int open_or_fail(const char *path, int flags, int mode)
{
    long fd = SYS(open, path, flags | O_CLOEXEC, mode);

    if (fd < 0)
        fail(fd, "open ", path);
    return (int)fd;
}

void open_unit_files(struct unit_files *ret)
{
    ret->program = open_or_fail("/" INIT_PROGRAM, O_RDONLY, 0);
    ret->orders = open_or_fail("/" INIT_ORDERS, O_RDONLY, 0);
}

static void copy(int from, const char *path, int mode)
{
    int to = open_or_fail(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    long n;

    while ((n = SYS(sendfile, to, from, NULL, INIT_ORDERS_MAX)) > 0)
        ;
    if (n < 0)
        fail(n, "write ", path);
    SYS(close, to); /* what is open for writing cannot be run */
}

static void write_unit(void)
{
    static const char *const folders[] = {"/run/systemd", UNITS, UNITS "/basic.target.wants"};
    int fd;
    long n;

    for (unsigned i = 0; i < array_len(folders); i++)
        SYS(mkdir, folders[i], 0755);
    fd = open_or_fail(UNITS "/bothy.service", O_WRONLY | O_CREAT | O_EXCL, 0644);
    n = SYS(write, fd, unit, sizeof(unit) - 1);
    if (n < 0)
        fail(n, "write the command's unit", NULL);
    SYS(close, fd);
    SYS(symlink, "../bothy.service", UNITS "/basic.target.wants/bothy.service");
}

/* The root may be a container's, where systemd would find no machine; what lies in /tmp is not of a guest's last boot.
 */
static void tell_of_machine(void)
{
    SYS(unlink, "/.dockerenv");
    SYS(mkdir, "/run/tmpfiles.d", 0755);
    SYS(close, open_or_fail("/run/tmpfiles.d/tmp.conf", O_WRONLY | O_CREAT, 0644)); /* in place of the root's own */
}

void become_systemd(const struct unit_files *f)
{
    static const char *const programs[] = {"/usr/lib/systemd/systemd", "/lib/systemd/systemd"};
    char *env[] = {"TERM=linux", NULL};
    long r = 0;

    SYS(mkdir, "/run/" INIT_FOLDER, 0700);
    copy(f->program, "/run/" INIT_PROGRAM, 0700);
    copy(f->orders, "/run/" INIT_ORDERS, 0400);
    write_unit();
    tell_of_machine();
    for (unsigned i = 0; i < array_len(programs); i++) {
        const char *argv[] = {programs[i], NULL};

        r = SYS(execve, programs[i], argv, env);
    }
    fail(r, "start its root's own systemd", NULL);
}
