/* bothy: virtual machines on KVM. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "vmm/cli/cli.h"

/* Descriptors 0 to 2 that we were started without must not become a disk or /dev/kvm. */
static int fill_standard_fds(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) {
            dprintf(STDERR_FILENO,
                    "bothy: /dev/null: %m; make it (mknod /dev/null c 1 3), or leave descriptor %d open\n", fd);
            return -1;
        }
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    if (fill_standard_fds())
        return EXIT_BOTHY;
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an EPIPE where we write, not our end */
    signal(SIGXFSZ, SIG_IGN); /* and a file of the guest's beyond `ulimit -f` an EFBIG */
    return cli_main(argv);
}
