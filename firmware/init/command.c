/*
 * The command and its streams, or several commands one after the other.  Between them and the ports are pipes, or a
 * terminal: programs open /dev/stdout again, ask what it is, and leave it to children, none of which a port would bear.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "firmware/init/init.h"

enum { CHUNK = 65536, KERNEL_SIGSET = 8, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

/* Bytes on their way from one descriptor to another. */
struct pump {
    int from, to;   /* -1: closed */
    char *buf;      /* CHUNK bytes */
    size_t at, n;   /* what of it is not yet out */
    uint64_t left;  /* bytes that may still come; UINT64_MAX: until the end */
    uint64_t moved; /* bytes that are out */
};

struct session {
    struct pump pumps[3]; /* by the command's descriptor; one terminal is on the first two */
    int children;         /* signalfd */
    int theirs[3];        /* the command's ends */
    int terminal;         /* its other end, or -1 */
    int kmsg;             /* the kernel's log */
    bool log_waits;       /* for the host to take more of it */
    long pid;
    int status;
    bool ended;
    struct line said; /* what came by the control port so far */
    struct orders next;
    bool has_next;
    uint64_t input;              /* the next one's */
    char *next_text, **pointers; /* INIT_ORDERS_MAX bytes; ORDERS_POINTERS */
};

static void pump_close(struct pump *p)
{
    if (p->from >= 0)
        SYS(close, p->from);
    if (p->to >= 0)
        SYS(close, p->to);
    p->from = p->to = -1;
    p->at = p->n = 0;
}

/* What it waits for. */
static struct pollfd pump_wish(const struct pump *p)
{
    bool full = p->at < p->n;

    return (struct pollfd){.fd = full ? p->to : p->from, .events = full ? POLLOUT : POLLIN};
}

static bool is_again(long r)
{
    return r == -11 /* EAGAIN */ || r == -4 /* EINTR */;
}

/* Moves what can be without waiting; true: something was. */
static bool pump_step(struct pump *p)
{
    long r;

    if (p->from < 0)
        return false;
    if (p->at == p->n) {
        r = SYS(read, p->from, p->buf, p->left < CHUNK ? p->left : CHUNK);
        if (is_again(r))
            return false;
        if (r <= 0) {
            pump_close(p);
            return false;
        }
        p->at = 0;
        p->n = (size_t)r;
        p->left -= (uint64_t)r;
    }
    r = SYS(write, p->to, p->buf + p->at, p->n - p->at);
    if (is_again(r))
        return false;
    if (r < 0) {
        pump_close(p);
        return false;
    }
    p->at += (size_t)r;
    p->moved += (uint64_t)r;
    if (p->at == p->n && !p->left)
        pump_close(p);
    return true;
}

/* A pump closes what it has; who serves needs the port again. */
static int port_for_pump(const struct orders *o, enum init_port p)
{
    return o->serve ? (int)SYS(fcntl, ports[p], F_DUPFD_CLOEXEC, 3) : ports[p];
}

static void make_pipes(struct session *s, const struct orders *o)
{
    for (int fd = 0; fd < 3; fd++) {
        int ends[2];
        long r = SYS(pipe2, ends, O_CLOEXEC | O_NONBLOCK);
        int ours = fd ? ends[0] : ends[1];

        if (r < 0)
            fail(r, "make a pipe", NULL);
        s->theirs[fd] = fd ? ends[1] : ends[0];
        SYS(fcntl, s->theirs[fd], F_SETFL, 0);
        SYS(fchown, s->theirs[fd], o->uid, o->gid); /* so that it may open /dev/stdout */
        s->pumps[fd].from = fd ? ours : port_for_pump(o, INIT_STDIN);
        s->pumps[fd].to = fd ? port_for_pump(o, INIT_STDIN + fd) : ours;
    }
}

static void set_size(const struct session *s, unsigned cols, unsigned rows)
{
    struct winsize size = {.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows};

    if (s->terminal >= 0)
        SYS(ioctl, s->terminal, TIOCSWINSZ, &size);
}

static void make_terminal(struct session *s, const struct orders *o)
{
    long fd = SYS(open, "/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), r = fd;
    int unlock = 0;

    if (fd >= 0)
        r = SYS(ioctl, fd, TIOCSPTLCK, &unlock);
    if (r >= 0)
        r = SYS(ioctl, fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (r < 0)
        fail(r, "make a terminal (CONFIG_UNIX98_PTYS)", NULL);
    SYS(fchown, r, o->uid, 5 /* tty */);
    s->theirs[0] = s->theirs[1] = s->theirs[2] = (int)r;
    s->terminal = (int)fd;
    s->pumps[0].from = ports[INIT_STDIN];
    s->pumps[0].to = (int)fd;
    s->pumps[1].from = (int)SYS(fcntl, fd, F_DUPFD_CLOEXEC, 3);
    s->pumps[1].to = ports[INIT_STDOUT];
    set_size(s, o->cols, o->rows);
}

static const char *path_of(char *const *env)
{
    for (; *env; env++) {
        const char *e = *env;

        if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
            return e + 5;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

static bool has_slash(const char *s)
{
    while (*s && *s != '/')
        s++;
    return *s;
}

/* As execvp(3) looks for it; returns only why not. */
static long execute(const struct orders *o)
{
    const char *name = o->argv[0], *dir = path_of(o->envp);
    long worst = -2 /* ENOENT */;
    char path[4096];

    if (has_slash(name))
        return SYS(execve, name, o->argv, o->envp);
    for (;;) {
        size_t n = 0;
        long r;

        while (dir[n] && dir[n] != ':')
            n++;
        if (path_join(n ? dir : ".", n ? n : 1, name, path, sizeof(path))) {
            r = SYS(execve, path, o->argv, o->envp);
            if (r != -2 && r != -20 /* ENOTDIR */)
                worst = r;
        }
        if (!dir[n])
            return worst;
        dir += n + 1;
    }
}

static void say(const char *text)
{
    SYS(write, 2, text, text_length(text));
}

__attribute__((noreturn)) static void become_command(const struct session *s, const struct orders *o)
{
    uint64_t none = 0;
    long r;

    for (int fd = 0; fd < 3; fd++)
        SYS(dup2, s->theirs[fd], fd);
    SYS(setsid);
    if (o->tty)
        SYS(ioctl, 0, TIOCSCTTY, 0);
    SYS(rt_sigprocmask, SIG_SETMASK, &none, NULL, KERNEL_SIGSET);
    r = SYS(setgroups, o->ngroups, o->groups);
    if (r >= 0)
        r = SYS(setresgid, o->gid, o->gid, o->gid);
    if (r >= 0)
        r = SYS(setresuid, o->uid, o->uid, o->uid);
    if (r >= 0)
        r = execute(o);
    say("bothy test: ");
    say(o->argv[0]);
    say(r == -2    ? ": the guest has no such program\n"
        : r == -13 ? ": it may not be run by that user\n"
        : r == -8  ? ": it is no program for this kernel; does a script lack its #! line?\n"
                   : ": the guest cannot run it\n");
    SYS(exit_group, r == -2 ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
    __builtin_unreachable();
}

/* Orphans are ours, too. */
static void reap(struct session *s)
{
    char info[128];
    int status;
    long pid;

    while (SYS(read, s->children, info, sizeof(info)) > 0)
        ;
    while ((pid = SYS(wait4, -1, &status, WNOHANG, NULL)) > 0)
        if (pid == s->pid) {
            s->status = status;
            s->ended = true;
        }
}

/* All of `n` bytes from a port; `buf` NULL: they are of no use. */
static void take(int port, char *buf, uint64_t n)
{
    char useless[4096];

    while (n) {
        struct pollfd some = {.fd = port, .events = POLLIN};
        long r = buf ? SYS(read, port, buf, n) : SYS(read, port, useless, n < sizeof(useless) ? n : sizeof(useless));

        if (r <= 0) {
            SYS(poll, &some, 1, -1);
            continue;
        }
        n -= (uint64_t)r;
        if (buf)
            buf += r;
    }
}

static void take_command(struct session *s, uint64_t n, uint64_t input)
{
    const char *wrong;

    if (!s->next_text || n > INIT_ORDERS_MAX)
        fail(0, "take a command of that length", NULL);
    take(ports[INIT_CONTROL], s->next_text, n);
    wrong = orders_parse(s->next_text, n, s->pointers, &s->next);
    if (wrong)
        fail(0, "take a command: ", wrong);
    s->input = input;
    s->has_next = true;
}

/* The numbers of "WORD NUMBER NUMBER". */
static bool is_about(const char *line, const char *word, uint64_t max, uint64_t numbers[2])
{
    while (*word && *word == *line) {
        word++;
        line++;
    }
    return !*word && parse_numbers(line, max, numbers, 2);
}

static void listen(struct session *s)
{
    char c;

    while (!s->has_next && SYS(read, ports[INIT_CONTROL], &c, 1) == 1) {
        uint64_t n[2];

        if (c != '\n' && s->said.n < sizeof(s->said.text) - 1) {
            s->said.text[s->said.n++] = c;
            continue;
        }
        s->said.text[s->said.n] = 0;
        s->said.n = 0;
        if (is_about(s->said.text, "size ", UINT16_MAX, n))
            set_size(s, (unsigned)n[0], (unsigned)n[1]);
        else if (is_about(s->said.text, "run ", UINT64_MAX, n))
            take_command(s, n[0], n[1]);
    }
}

/* Until *done. */
static void carry(struct session *s, const bool *done)
{
    while (!*done) {
        struct pollfd fds[6] = {{.fd = s->children, .events = POLLIN}, {.fd = ports[INIT_CONTROL], .events = POLLIN}};

        for (unsigned i = 0; i < 3; i++)
            fds[2 + i] = pump_wish(&s->pumps[i]);
        fds[5].fd = s->log_waits ? ports[INIT_LOG] : s->kmsg;
        fds[5].events = s->log_waits ? POLLOUT : POLLIN;
        SYS(poll, fds, 6, -1);
        for (unsigned i = 0; i < 3; i++)
            if (fds[2 + i].revents)
                pump_step(&s->pumps[i]);
        if (fds[5].revents)
            s->log_waits = !log_carry(s->kmsg);
        if (fds[1].revents & POLLIN)
            listen(s);
        if (fds[0].revents)
            reap(s);
    }
}

/* All that the command itself has written; what it left behind may write for ever, so that is not waited for. */
static void drain(struct pump *p)
{
    while (p->from >= 0) {
        struct pollfd room = {.fd = p->to, .events = POLLOUT};

        if (pump_step(p))
            continue;
        if (p->from < 0 || p->at == p->n)
            return;
        SYS(poll, &room, 1, -1);
    }
}

static void report(const struct session *s)
{
    struct line l = {.n = 0};
    bool exited = WIFEXITED(s->status);

    line_add(&l, exited ? "exit " : "signal ");
    line_number(&l, (uint64_t)(exited ? WEXITSTATUS(s->status) : WTERMSIG(s->status)));
    for (unsigned i = 1; i < 3; i++) {
        line_add(&l, " ");
        line_number(&l, s->pumps[i].moved);
    }
    line_add(&l, " ");
    line_number(&l, log_sent());
    line_send(&l);
}

static void say_ready(const struct orders *o)
{
    static const char start[] = "<6>" INIT_LOG_START "\n"; /* a line without an end is not read until the next comes */
    struct line ready = {.n = 0};

    if (o->profile) {
        long fd = SYS(open, "/dev/kmsg", O_WRONLY | O_CLOEXEC);

        SYS(write, fd, start, sizeof(start) - 1);
        SYS(close, fd);
    }
    line_add(&ready, "ready");
    line_send(&ready);
}

/* Its streams are there. */
static void run(struct session *s, const struct orders *o)
{
    s->ended = false;
    s->pid = SYS(fork);
    if (s->pid == 0)
        become_command(s, o);
    if (s->pid < 0)
        fail(s->pid, "start a process", NULL);
    for (int fd = 0; fd < (o->tty ? 1 : 3); fd++)
        SYS(close, s->theirs[fd]);
    carry(s, &s->ended);
    drain(&s->pumps[1]);
    drain(&s->pumps[2]);
    while (s->kmsg >= 0 && !log_carry(s->kmsg)) {
        struct pollfd room = {.fd = ports[INIT_LOG], .events = POLLOUT};

        SYS(poll, &room, 1, -1);
    }
    SYS(sync);
}

/* One command after the other, as the host says. */
__attribute__((noreturn)) static void serve(struct session *s, const struct orders *o)
{
    struct orders command = *o;

    s->next_text = pages(INIT_ORDERS_MAX);
    s->pointers = pages(ORDERS_POINTERS * sizeof(char *));
    say_ready(o);
    for (;;) {
        carry(s, &s->has_next);
        command.argv = s->next.argv;
        make_pipes(s, o);
        s->pumps[0].left = s->input;
        s->pumps[1].left = s->pumps[2].left = UINT64_MAX;
        if (!s->input)
            pump_close(&s->pumps[0]);
        run(s, &command);
        for (unsigned i = 0; i < 3; i++)
            pump_close(&s->pumps[i]);
        take(ports[INIT_STDIN], NULL, s->pumps[0].left);
        s->has_next = false;
        report(s);
    }
}

void run_command(const struct orders *o)
{
    /* The second comes only to a unit: nobody can do that to a first process. */
    uint64_t child = 1ull << (SIGCHLD - 1), blocked = child | 1ull << (SIGPIPE - 1);
    struct session s = {.terminal = -1, .kmsg = log_open()};
    long r = SYS(chdir, o->cwd);

    if (r < 0)
        fail(r, "enter the working directory ", o->cwd);
    for (unsigned i = 0; i < 3; i++)
        s.pumps[i] = (struct pump){.from = -1, .to = -1, .buf = pages(CHUNK), .left = UINT64_MAX};
    SYS(rt_sigprocmask, SIG_BLOCK, &blocked, NULL, KERNEL_SIGSET);
    s.children = (int)SYS(signalfd4, -1, &child, KERNEL_SIGSET, O_CLOEXEC | O_NONBLOCK);
    if (s.children < 0)
        fail(s.children, "wait for the command (CONFIG_SIGNALFD)", NULL);
    if (o->serve)
        serve(&s, o);
    if (o->tty)
        make_terminal(&s, o);
    else
        make_pipes(&s, o);
    say_ready(o);
    run(&s, o);
    report(&s);
}
