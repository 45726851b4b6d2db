/*
 * Lines for the control socket (vmm/control/command.h), in front of a machine with a disk.  Each gets one answer, which
 * is a line of JSON with a result or an error.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "devices/testing/fake_machine.h"
#include "devices/testing/vdriver.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/control/command.h"

static void add_disk(struct machine *m, int image)
{
    char options[64];

    snprintf(options, sizeof(options), "/proc/self/fd/%d", image);
    m->e.env.attach_virtio = vdriver_mmio.attach;
    m->devices[m->ndevices++] = test_env_device(&m->e, "virtio-blk", "disk0", options);
}

static void ask(struct machine *m, const char *line, size_t n)
{
    cleanup_free char *text = command_answer(m, line, n);
    json_t *answer = json_loads(text, 0, NULL);

    assert(!strchr(text, '\n') && json_object_size(answer) == 1);
    assert(json_is_object(json_object_get(answer, "result")) || json_is_string(json_object_get(answer, "error")));
    json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = (const char *)data, *end = line + size, *next;
    cleanup_fd int image = memfd_create("disk", MFD_CLOEXEC);
    static struct machine m;

    if (image < 0 || ftruncate(image, 1 << 20))
        abort();
    fake_machine_init(&m);
    add_disk(&m, image);
    while ((next = memchr(line, '\n', (size_t)(end - line)))) {
        ask(&m, line, (size_t)(next - line));
        line = next + 1;
    }
    ask(&m, line, (size_t)(end - line));
    fake_machine_fini(&m);
    return 0;
}
