#include "devices/net/pcap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "devices/net/offload.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum {
    MAGIC = 0xa1b23c4d, /* in the host's byte order, times in nanoseconds */
    MAJOR = 2,
    MINOR = 4,
    ETHERNET = 1, /* LINKTYPE_ETHERNET */
    PIPE_ROOM = 1 << 20,
};

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zero[2], snap, link_type;
};

struct record {
    uint32_t seconds, nanoseconds, captured, len;
};

struct pcap {
    char *path;
    int fd;
    uint32_t snap;
    uint64_t limit, written, missed;
    bool held;             /* buf has a frame that nothing is written of yet */
    size_t from, to;       /* what of buf is still to be written */
    struct log_limit logs; /* of failures */
    uint8_t buf[sizeof(struct record) + NET_FRAME_MAX];
};

/* As much as goes; what is left stays. */
static void flush(struct pcap *p)
{
    ssize_t n = p->from < p->to ? write(p->fd, p->buf + p->from, p->to - p->from) : 0;

    if (n > 0) {
        p->from += (size_t)n;
        p->written += (size_t)n;
    } else if (n < 0 && errno != EAGAIN) {
        log_guest(&p->logs, "capture \"%s\": %s", p->path, strerror(errno));
    }
}

void pcap_hold(struct pcap *p, const struct net_frame *f)
{
    struct net_frame copy = *f;
    struct record r = {.len = (uint32_t)f->len, .captured = (uint32_t)min_u64(p->snap, f->len)};
    uint8_t *data = p->buf + sizeof(r);
    struct timespec now;

    if (!p->held)
        flush(p);
    p->held = p->held || p->from == p->to;
    if (!p->held)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    r.seconds = (uint32_t)now.tv_sec;
    r.nanoseconds = (uint32_t)now.tv_nsec;
    memcpy(p->buf, &r, sizeof(r));
    iov_get(f->iov, 0, data, f->len);
    if (f->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        checksum_complete(&copy, data);
    p->from = 0;
    p->to = sizeof(r) + r.captured;
}

void pcap_write(struct pcap *p)
{
    if (!p->held || (p->limit && p->to > p->limit - min_u64(p->written, p->limit))) {
        p->missed++;
        p->from = p->held ? p->to : p->from;
    } else {
        flush(p);
        if (!p->from) { /* nothing of it went, so it need not be finished */
            p->missed++;
            p->from = p->to;
        }
    }
    p->held = false;
}

uint64_t pcap_missed(const struct pcap *p)
{
    return p->missed;
}

/* A FIFO is opened at both ends, so that it is there before its reader is, and after. */
static int open_file(struct pcap *p, const char *path, struct err *err)
{
    struct stat st;
    bool fifo = !stat(path, &st) && S_ISFIFO(st.st_mode);

    p->fd = open(path, O_CLOEXEC | O_NONBLOCK | (fifo ? O_RDWR : O_WRONLY | O_CREAT | O_TRUNC), 0600);
    if (p->fd < 0)
        return err_file(err, errno, "capture", path);
    if (fifo)
        fcntl(p->fd, F_SETPIPE_SZ, PIPE_ROOM); /* or what the host allows */
    return 0;
}

int pcap_create(const char *path, uint32_t snap, uint64_t limit, struct pcap **ret, struct err *err)
{
    struct pcap *p = xcalloc(1, sizeof(*p));
    struct file_header h = {
        .magic = MAGIC, .major = MAJOR, .minor = MINOR, .snap = NET_FRAME_MAX, .link_type = ETHERNET};
    int rc = open_file(p, path, err);

    p->path = xstrdup(path);
    p->snap = snap ? snap : NET_FRAME_MAX;
    p->limit = limit;
    memcpy(p->buf, &h, sizeof(h));
    p->to = sizeof(h);
    if (!rc)
        flush(p);
    if (!rc && p->from < p->to)
        rc = err_file(err, errno, "capture", path);
    if (rc) {
        pcap_destroy(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pcap_destroy(struct pcap *p)
{
    if (!p)
        return;
    if (p->fd >= 0)
        close(p->fd);
    free(p->path);
    free(p);
}
