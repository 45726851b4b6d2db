/* Job control as in termios(3), tcsetpgrp(3) and signal-safety(7). */
#include "devices/char/terminal.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/base/log.h"

static void on_end(int sig);
static void on_stop(int sig);
static void on_wake(int sig);

static const struct {
    int sig;
    bool if_default; /* whoever handles it already lets us end in good order */
    void (*handler)(int sig);
} signals[] = {
    {SIGINT, true, on_end},    {SIGTERM, true, on_end},   {SIGHUP, true, on_end},    {SIGQUIT, true, on_end},
    {SIGSEGV, false, on_end},  {SIGBUS, false, on_end},   {SIGFPE, false, on_end},   {SIGILL, false, on_end},
    {SIGABRT, false, on_end},  {SIGTSTP, false, on_stop}, {SIGCONT, false, on_wake}, {SIGWINCH, false, on_wake},
    {SIGTTIN, false, SIG_IGN}, {SIGTTOU, false, SIG_IGN},
};

static struct {
    int fd, wake;
    bool taken;
    bool known; /* `cooked` is set */
    struct termios cooked, raw;
    atomic_bool is_raw;
    struct sigaction before[array_len(signals)];
} term;

/* From here to on_wake(): async-signal-safe.  SIGTTOU is ignored, so what we may not change must be known beforehand.
 */
static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(term.fd);

    return group < 0 || group == getpgrp(); /* < 0: not our controlling terminal, so no shell shares it with us */
}

static void make_cooked(void)
{
    int saved = errno;

    if (atomic_exchange(&term.is_raw, false) && term.known && in_foreground())
        tcsetattr(term.fd, TCSANOW, &term.cooked);
    log_set_raw(false);
    errno = saved;
}

static void on_end(int sig)
{
    make_cooked();
    for (size_t i = 0; i < array_len(signals); i++)
        if (signals[i].sig == sig)
            sigaction(sig, &term.before[i], NULL);
    raise(sig); /* blocked until we return */
}

static void on_stop(int sig)
{
    (void)sig;
    make_cooked();
    raise(SIGSTOP);
}

static void on_wake(int sig)
{
    uint64_t one = 1;
    int saved = errno;

    /* After SIGCONT the shell has made the terminal as it likes it. */
    if (sig == SIGCONT)
        atomic_store(&term.is_raw, false);
    if (write(term.wake, &one, sizeof(one)) < 0)
        errno = saved; /* it is readable already */
}

static void handle_signals(void)
{
    for (size_t i = 0; i < array_len(signals); i++) {
        struct sigaction sa = {.sa_handler = signals[i].handler, .sa_flags = SA_RESTART};

        sigaction(signals[i].sig, NULL, &term.before[i]);
        if (!signals[i].if_default || term.before[i].sa_handler == SIG_DFL)
            sigaction(signals[i].sig, &sa, NULL);
    }
}

int terminal_enter(int fd, int *wake_ret, struct err *err)
{
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (wake < 0)
        return err_set(err, errno, "terminal: eventfd: %s", strerror(errno));
    assert(!term.taken);
    term.fd = fd;
    term.wake = wake;
    term.known = false;
    term.taken = true;
    handle_signals();
    terminal_resume();
    atexit(terminal_leave);
    *wake_ret = wake;
    return 0;
}

void terminal_leave(void)
{
    if (!term.taken)
        return;
    make_cooked();
    for (size_t i = 0; i < array_len(signals); i++)
        sigaction(signals[i].sig, &term.before[i], NULL);
    close(term.wake);
    term.taken = false;
}

bool terminal_resume(void)
{
    if (!in_foreground())
        return false;
    if (atomic_load(&term.is_raw))
        return true;
    /* In the background the attributes were another program's; from the first time on they are what we go back to. */
    if (!term.known) {
        term.known = !tcgetattr(term.fd, &term.cooked);
        term.raw = term.cooked;
        cfmakeraw(&term.raw);
    }
    atomic_store(&term.is_raw, true); /* before it is: a signal in between restores what needs no restoring */
    tcsetattr(term.fd, TCSANOW, &term.raw);
    log_set_raw(isatty(STDERR_FILENO));
    return true;
}
