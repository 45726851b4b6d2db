#include "devices/net/vhost.h"

#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "vmm/base/cleanup.h"

/* What the kernel must know of what the driver accepted. */
static const uint64_t known = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                              1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_NET_F_MRG_RXBUF;

static int set_memory(const struct vhost *v, const struct gmem *mem)
{
    const struct gmem_range *r;
    union { /* a header that ends in a flexible array, and room for it */
        struct vhost_memory head;
        uint8_t room[sizeof(struct vhost_memory) + GMEM_RANGES * sizeof(struct vhost_memory_region)];
    } table = {.head.nregions = gmem_ranges(mem, &r)};

    for (unsigned i = 0; i < table.head.nregions; i++)
        table.head.regions[i] = (struct vhost_memory_region){
            .guest_phys_addr = r[i].base,
            .memory_size = r[i].size,
            .userspace_addr = (uintptr_t)r[i].host,
        };
    return ioctl(v->fd, VHOST_SET_MEM_TABLE, &table);
}

static void broken(struct watch *w, uint32_t revents)
{
    struct vhost_ring *r = container_of(w, struct vhost_ring, broken);

    (void)revents;
    watch_set(w, 0);
    r->v->failed(r->v, (unsigned)(r - r->v->rings));
}

void vhost_init(struct vhost *v, struct lane *lane, void (*failed)(struct vhost *v, unsigned index))
{
    *v = (struct vhost){.fd = -1, .failed = failed};
    for (unsigned i = 0; i < VHOST_RINGS; i++)
        v->rings[i] = (struct vhost_ring){v, {.lane = lane, .fd = -1, .ready = broken}};
}

int vhost_open(struct vhost *v, const struct gmem *mem, struct err *err)
{
    v->fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
    if (v->fd < 0 && (errno == EACCES || errno == EPERM))
        return err_set(err, errno, "/dev/vhost-net: %s; as root: chmod 666 /dev/vhost-net", strerror(errno));
    if (v->fd < 0)
        return err_set(err, errno, "/dev/vhost-net: %s; as root: modprobe vhost_net", strerror(errno));
    if (ioctl(v->fd, VHOST_SET_OWNER) < 0 || ioctl(v->fd, VHOST_GET_FEATURES, &v->features) < 0 ||
        set_memory(v, mem) < 0)
        return err_set(err, errno, "/dev/vhost-net: %s", strerror(errno));
    if (!(v->features >> VIRTIO_F_VERSION_1 & 1))
        return err_set(err, EOPNOTSUPP, "/dev/vhost-net: this kernel's knows no virtio 1; use a newer one");
    v->features &= known;
    return 0;
}

void vhost_close(struct vhost *v)
{
    if (v->fd >= 0)
        close(v->fd);
    v->fd = -1;
}

static int set_file(const struct vhost *v, unsigned long request, unsigned index, int fd)
{
    return ioctl(v->fd, request, &(struct vhost_vring_file){.index = index, .fd = fd});
}

static int set_number(const struct vhost *v, unsigned long request, unsigned index, unsigned num)
{
    return ioctl(v->fd, request, &(struct vhost_vring_state){.index = index, .num = num});
}

/* The kernel lets go of all descriptors of a ring. */
static void let_go(struct vhost *v, unsigned index)
{
    struct watch *w = &v->rings[index].broken;

    set_file(v, VHOST_SET_VRING_KICK, index, VHOST_FILE_UNBIND);
    set_file(v, VHOST_SET_VRING_CALL, index, VHOST_FILE_UNBIND);
    set_file(v, VHOST_SET_VRING_ERR, index, VHOST_FILE_UNBIND);
    watch_del(w);
    close(w->fd);
    w->fd = -1;
}

int vhost_start(struct vhost *v, unsigned index, const struct ring *r, uint64_t features, int backend)
{
    struct watch *w = &v->rings[index].broken;
    struct vhost_vring_addr addr = {
        .index = index,
        .desc_user_addr = (uintptr_t)r->desc,
        .avail_user_addr = (uintptr_t)r->driver,
        .used_user_addr = (uintptr_t)r->device,
    };
    int rc;

    features &= v->features;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0)
        return -errno;
    w->events = EPOLLIN;
    watch_add(w);
    if (ioctl(v->fd, VHOST_SET_FEATURES, &features) < 0 || set_number(v, VHOST_SET_VRING_NUM, index, r->size) < 0 ||
        set_number(v, VHOST_SET_VRING_BASE, index, r->next) < 0 || ioctl(v->fd, VHOST_SET_VRING_ADDR, &addr) < 0 ||
        set_file(v, VHOST_SET_VRING_KICK, index, r->kick) < 0 ||
        set_file(v, VHOST_SET_VRING_CALL, index, r->call) < 0 || set_file(v, VHOST_SET_VRING_ERR, index, w->fd) < 0 ||
        set_file(v, VHOST_NET_SET_BACKEND, index, backend) < 0) {
        rc = -errno;
        let_go(v, index);
        return rc;
    }
    eventfd_write(r->kick, 1); /* for what is there already */
    return 0;
}

uint16_t vhost_stop(struct vhost *v, unsigned index)
{
    struct vhost_vring_state s = {.index = index};

    /* Neither can fail for a ring that runs. */
    set_file(v, VHOST_NET_SET_BACKEND, index, VHOST_FILE_UNBIND);
    ioctl(v->fd, VHOST_GET_VRING_BASE, &s);
    let_go(v, index);
    return (uint16_t)s.num;
}
