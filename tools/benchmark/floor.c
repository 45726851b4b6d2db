/*
 * The floor under every VMM's start: the KVM calls that none can do without, for a guest of 128 MiB with one CPU that
 * writes to a port at once.  tools/bench times it beside them.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int must(const char *what, int r)
{
    if (r < 0) {
        perror(what);
        _exit(125);
    }
    return r;
}

int main(void)
{
    const size_t ram = 128 << 20;
    const unsigned char code[] = {0xe6, 0xf4, 0xf4}; /* out %al, $0xf4; hlt */
    int kvm = must("/dev/kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
    int vm = must("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));
    unsigned char *mem = mmap(NULL, ram, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = ram, .userspace_addr = (unsigned long)mem};
    struct kvm_sregs s;
    struct kvm_regs r = {.rip = 0x1000, .rflags = 2};
    struct kvm_run *run;
    int cpu;

    must("KVM_SET_USER_MEMORY_REGION", ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
    memcpy(mem + 0x1000, code, sizeof(code));
    cpu = must("KVM_CREATE_VCPU", ioctl(vm, KVM_CREATE_VCPU, 0));
    run = mmap(NULL, (size_t)must("KVM_GET_VCPU_MMAP_SIZE", ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)),
               PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    must("KVM_GET_SREGS", ioctl(cpu, KVM_GET_SREGS, &s));
    s.cs.base = s.cs.selector = 0;
    must("KVM_SET_SREGS", ioctl(cpu, KVM_SET_SREGS, &s));
    must("KVM_SET_REGS", ioctl(cpu, KVM_SET_REGS, &r));
    must("KVM_RUN", ioctl(cpu, KVM_RUN, 0));
    return run->exit_reason == KVM_EXIT_IO ? 0 : 1;
}
