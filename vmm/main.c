/* bothy: virtual machines on KVM. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "vmm/cli/cli.h"

/* Descriptors 0 to 2 that we were started without must not become a disk or /dev/kvm. */
static int fill_standard_fds(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    return fd < 0 ? -1 : close(fd);
}

int main(int argc, char **argv)
{
    (void)argc;
    if (fill_standard_fds())
        return EXIT_BOTHY;
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an EPIPE where we write, not our end */
    return cli_main(argv);
}
