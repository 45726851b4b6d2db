/* For tools/rig/test: exits with 42 if /dev/kvm runs a guest, which says 42 at port 0x10. KVM's API:
 * Documentation/virt/kvm/api.rst. */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { GUEST_AT = 0x1000, RAM_SIZE = 0x1000 };

/* Real mode: mov al, 42; out 0x10, al; hlt */
static const unsigned char guest[] = {0xb0, 42, 0xe6, 0x10, 0xf4};

static int call(int fd, unsigned long request, void *arg, const char *what)
{
    int ret = ioctl(fd, request, arg);
    if (ret < 0)
        err(1, "%s", what);
    return ret;
}

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(1, "/dev/kvm");
    int vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
    void *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        err(1, "mmap");
    memcpy(ram, guest, sizeof(guest));
    struct kvm_userspace_memory_region slot = {
        .guest_phys_addr = GUEST_AT, .memory_size = RAM_SIZE, .userspace_addr = (unsigned long)ram};
    call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");

    int vcpu = call(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
    size_t size = (size_t)call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "mmap of the vCPU");
    struct kvm_sregs sregs;
    call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
    sregs.cs.base = sregs.cs.selector = 0;
    call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
    struct kvm_regs regs = {.rip = GUEST_AT, .rflags = 2};
    call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");

    call(vcpu, KVM_RUN, NULL, "KVM_RUN");
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x10)
        errx(1, "exit %u, port %#x", run->exit_reason, run->io.port);
    return *((unsigned char *)run + run->io.data_offset);
}
