/* [Documentation/virt/kvm/api.rst, section 4.4 and the capability named with each call] */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/base/cleanup.h"
#include "vmm/kvm/engine.h"

#define CAP(name)                    \
    {                                \
        KVM_CAP_##name, #name, false \
    }
#define REQUIRED(name)              \
    {                               \
        KVM_CAP_##name, #name, true \
    }

const struct kvm_cap kvm_caps[] = {
    REQUIRED(USER_MEMORY),
    REQUIRED(EXT_CPUID),
    REQUIRED(IRQCHIP),
    REQUIRED(SPLIT_IRQCHIP),
    REQUIRED(SIGNAL_MSI),
    REQUIRED(IRQ_ROUTING),
    REQUIRED(MP_STATE),
    REQUIRED(SET_TSS_ADDR),
    REQUIRED(SET_IDENTITY_MAP_ADDR),
    REQUIRED(IMMEDIATE_EXIT),
    CAP(IOEVENTFD),
    CAP(IOEVENTFD_ANY_LENGTH),
    CAP(IRQFD),
    CAP(PIT2),
    CAP(TSC_DEADLINE_TIMER),
    CAP(ADJUST_CLOCK),
    CAP(NR_VCPUS),
    CAP(MAX_VCPUS),
    CAP(MAX_VCPU_ID),
    CAP(X2APIC_API),
    CAP(NR_MEMSLOTS),
    CAP(READONLY_MEM),
    CAP(SYNC_MMU),
    CAP(DIRTY_LOG_RING),
    CAP(XSAVE2),
    CAP(NESTED_STATE),
    CAP(SET_GUEST_DEBUG),
    CAP(EXIT_ON_EMULATION_FAILURE),
    {0, NULL, false},
};

int kvm_cap(int fd, int id)
{
    int v = ioctl(fd, KVM_CHECK_EXTENSION, id);

    return v > 0 ? v : 0;
}

int kvm_err(struct err *err, const char *what, int code)
{
    static const struct {
        int code;
        const char *remedy;
    } remedies[] = {
        {ENOENT, "load KVM with \"modprobe kvm_intel\" or \"modprobe kvm_amd\"; when that fails, switch on "
                 "virtualisation in this machine's firmware or, in a virtual machine, nested virtualisation outside"},
        {ENODEV, "load KVM with \"modprobe kvm_intel\" or \"modprobe kvm_amd\""},
        {ENXIO, "load KVM with \"modprobe kvm_intel\" or \"modprobe kvm_amd\""},
        {EACCES, "join its group with \"sudo usermod -aG kvm $USER\" and log in again, or own it until the next boot "
                 "with \"sudo chown $USER /dev/kvm\""},
        {EPERM, "this container or sandbox keeps /dev/kvm away; pass the device in"},
        {EBUSY, "another hypervisor holds the processor; stop its machines or unload its module"},
        {ENOMEM, "free memory on this host"},
    };

    for (size_t i = 0; i < array_len(remedies); i++)
        if (remedies[i].code == code)
            return err_set(err, code, "%s: %s; %s", what, strerror(code), remedies[i].remedy);
    return err_set(err, code, "%s: %s", what, strerror(code));
}

int kvm_open(int *ret, struct err *err)
{
    cleanup_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version;

    if (fd < 0)
        return kvm_err(err, "/dev/kvm", errno);
    version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return err_set(err, ENOTTY, "/dev/kvm: not KVM (%s); remove it and load KVM's module", strerror(errno));
    if (version != KVM_API_VERSION)
        return err_set(err, EPROTO, "/dev/kvm: API version %d, not %d; this kernel is too old or too new", version,
                       KVM_API_VERSION);
    for (const struct kvm_cap *c = kvm_caps; c->name; c++)
        if (c->required && !kvm_cap(fd, c->id))
            return err_set(err, EOPNOTSUPP, "/dev/kvm: this kernel's KVM lacks %s; use Linux 4.14 or later", c->name);
    *ret = take_fd(&fd);
    return 0;
}
