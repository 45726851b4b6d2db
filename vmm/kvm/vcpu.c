/*
 * A CPU's thread: its exit loop, from vm_start() to vm_stop().
 *
 * vm_stop() sets immediate_exit, which makes the next KVM_RUN return at once after finishing what the last exit began,
 * then sends a signal, which ends the present one.  Whatever the thread is doing at that moment it meets one of the
 * two, so no wake-up is lost.  The signal does nothing by itself and can come to no harm; nor can one to a thread that
 * has ended and is not joined yet.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "vmm/kvm/engine.h"

enum { KICK_SIGNAL = SIGUSR1 };
/* Device code runs here, within bus accesses; it is not deep. */
enum { STACK_SIZE = 256 << 10 };

static void on_kick(int sig)
{
    (void)sig;
}

static void set_immediate_exit(struct vcpu *c, bool on)
{
    __atomic_store_n(&c->run->immediate_exit, on, __ATOMIC_RELEASE);
}

/* Until it is stopped or held, or until the guest cannot go on. */
static void run(struct vcpu *c)
{
    enum vm_event event;

    while (!atomic_load_explicit(&c->vm->held, memory_order_relaxed)) {
        if (ioctl(c->fd, KVM_RUN, 0) < 0) {
            if (errno == EINTR && __atomic_load_n(&c->run->immediate_exit, __ATOMIC_ACQUIRE))
                return;
            if (errno == EINTR || errno == EAGAIN) /* EAGAIN: woken while it waits for its INIT */
                continue;
            c->error = errno;
            c->vm->user->event(c->vm->user, VM_ENGINE_ERROR, c->index);
            return;
        }
        if (!vcpu_serve_exit(c, &event)) {
            c->vm->user->event(c->vm->user, event, c->index);
            return;
        }
    }
}

static void *vcpu_main(void *arg)
{
    struct vcpu *c = arg;
    char name[16];
    sigset_t kick;

    snprintf(name, sizeof(name), "cpu%u", c->index);
    pthread_setname_np(pthread_self(), name);
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    run(c);
    return NULL;
}

static int start_thread(struct vcpu *c, struct err *err)
{
    struct sigaction act = {.sa_handler = on_kick, .sa_flags = SA_RESTART}; /* devices' calls, not KVM_RUN */
    sigset_t all, old;
    pthread_attr_t attr;
    int rc;

    sigaction(KICK_SIGNAL, &act, NULL);
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    /* The thread inherits the mask: all other signals are for others. */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&c->thread, &attr, vcpu_main, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc)
        return err_set(err, rc, "thread of CPU %u: %s; raise the limit on processes (ulimit -u)", c->index,
                       strerror(rc));
    c->has_thread = true;
    return 0;
}

int vm_start(struct vm *vm, struct err *err)
{
    int rc = 0;

    assert(!vm->running);
    vm->running = true;
    if (!vm->fresh)
        vm_clock_start(vm);
    vm->fresh = false;
    atomic_store(&vm->held, false);
    for (unsigned i = 0; i < vm->ncpus && !rc; i++) {
        struct vcpu *c = &vm->cpus[i];

        set_immediate_exit(c, false);
        rc = vcpu_set_debug(c, 0);
        if (rc)
            err_set(err, -rc, "KVM: debug CPU %u: %s", i, strerror(-rc));
        else if (c->plan != VM_STAY)
            rc = start_thread(c, err);
    }
    if (rc)
        vm_stop(vm);
    return rc;
}

void vm_hold(struct vm *vm)
{
    atomic_store(&vm->held, true);
}

void vm_stop(struct vm *vm)
{
    assert(vm->running);
    for (unsigned i = 0; i < vm->ncpus; i++) {
        set_immediate_exit(&vm->cpus[i], true);
        if (vm->cpus[i].has_thread)
            pthread_kill(vm->cpus[i].thread, KICK_SIGNAL);
    }
    for (unsigned i = 0; i < vm->ncpus; i++) {
        if (vm->cpus[i].has_thread)
            pthread_join(vm->cpus[i].thread, NULL);
        vm->cpus[i].has_thread = false;
    }
    vm_clock_stop(vm);
    vm->running = false;
}
