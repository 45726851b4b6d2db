/*
 * What a bare guest talks to in tools/bench: on the host's loopback, TCP ports that swallow, pour out BYTES, echo, or
 * close at once, and a UDP port that echoes.  Prints their numbers in this order and serves until its input ends.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/base.h"

enum { CHUNK = 1 << 20 };
static char chunk[CHUNK]; /* poured out; nobody writes it */
static size_t source_bytes;

static void swallow(int fd)
{
    char *buf = malloc(CHUNK);

    while (buf && recv(fd, buf, CHUNK, 0) > 0)
        ;
    free(buf);
}

static void pour(int fd)
{
    ssize_t n;

    for (size_t left = source_bytes; left; left -= (size_t)n) {
        n = send(fd, chunk, left < CHUNK ? left : CHUNK, MSG_NOSIGNAL);
        if (n <= 0)
            return;
    }
}

static void echo(int fd)
{
    char buf[2048];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        if (send(fd, buf, (size_t)n, MSG_NOSIGNAL) < 0)
            return;
}

struct service {
    int type;
    void (*serve)(int fd); /* NULL: closes at once */
    int fd;
};

struct client {
    const struct service *service;
    int fd;
};

static void *client_thread(void *arg)
{
    struct client c = *(struct client *)arg;

    free(arg);
    c.service->serve(c.fd);
    close(c.fd);
    return NULL;
}

static void *service_thread(void *arg)
{
    const struct service *s = arg;
    const int one = 1;
    pthread_t thread;

    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        struct client *c;

        if (fd >= 0 && !s->serve) {
            close(fd);
            continue;
        }
        c = malloc(sizeof(*c));
        if (!c)
            abort();
        *c = (struct client){s, fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (fd < 0 || pthread_create(&thread, NULL, client_thread, c))
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static void *datagram_thread(void *arg)
{
    const struct service *s = arg;
    struct sockaddr_in from;
    char buf[2048];

    for (;;) {
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(s->fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

        if (n >= 0)
            sendto(s->fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct service services[] = {
        {SOCK_STREAM, swallow, -1}, {SOCK_STREAM, pour, -1}, {SOCK_STREAM, echo, -1},
        {SOCK_STREAM, NULL, -1},    {SOCK_DGRAM, NULL, -1},
    };
    char c;

    source_bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    for (size_t i = 0; i < array_len(services); i++) {
        struct service *s = &services[i];
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(a);
        pthread_t thread;

        s->fd = socket(AF_INET, s->type, 0);
        if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, len) || getsockname(s->fd, (struct sockaddr *)&a, &len) ||
            (s->type == SOCK_STREAM && listen(s->fd, 128)) ||
            pthread_create(&thread, NULL, s->type == SOCK_STREAM ? service_thread : datagram_thread, s)) {
            perror("bench-peer");
            return 1;
        }
        printf("%d\n", ntohs(a.sin_port));
    }
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) > 0)
        ;
    return 0;
}
