/* For terminal.py: says on the console how large the terminal is, at first and whenever it changes, and what was typed,
 * byte by byte; "x" ends it with exit code 7. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { RECEIVE, TRANSMIT, F_SIZE = 0, CONFIG_VECTOR = 1, EXIT_X = 7 };

static struct ring rx, tx;

static void say(const char *what, unsigned v)
{
    static char line[32];
    unsigned n = strlen(what);

    memcpy(line, what, n);
    for (unsigned digit = 10000; digit; digit /= 10)
        line[n++] = '0' + v / digit % 10;
    line[n++] = '\n';
    ring_call(&tx, &(struct buffer){line, n, .in = false}, 1);
}

int main(void)
{
    static struct virtio v;
    static char typed[64];
    const struct buffer in = {typed, sizeof(typed), .in = true};
    uint32_t changes = 0, len;
    uint16_t id;

    virtio_find(&v, VIRTIO_CONSOLE);
    pci_msix_enable(v.devfn);
    pci_msix_route(v.devfn, CONFIG_VECTOR, VECTOR_FIRST);
    virtio_open(&v, VIRTIO_CONSOLE, 1 << F_SIZE);
    virtio_config_vector(&v, CONFIG_VECTOR);
    ring_init(&rx, &v, RECEIVE, VIRTIO_NO_VECTOR);
    ring_init(&tx, &v, TRANSMIT, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    ring_add(&rx, &in, 1);
    ring_kick(&rx);
    say("started ", 0); /* bothy tells the size to those who print */
    for (;;) {
        if (irq_count[VECTOR_FIRST] != changes) {
            changes = irq_count[VECTOR_FIRST];
            say("columns ", virtio_config64(&v, 0) & 0xffff);
            say("rows ", virtio_config64(&v, 0) >> 16 & 0xffff);
        }
        if (!ring_take(&rx, &id, &len))
            continue;
        for (uint32_t i = 0; i < len; i++) {
            if (typed[i] == 'x')
                return EXIT_X;
            say("typed ", (uint8_t)typed[i]);
        }
        ring_add(&rx, &in, 1);
        ring_kick(&rx);
    }
}
